//! Copies the part of a convolution's input of codes that some positions need, and changes them on the way: narrow numbers to f32, bytes to what the dot products take. Channels innermost, padding
//! written out.

use bytemuck::{Pod, Zeroable};

use crate::format::{Code, Format, Widener, Words, table};
use crate::isa::Isa;
use crate::scan::{Band, Line, Scan};
use crate::simd::{Simd, WithSimd};

use super::band::fill_ends;
use super::{Operand, Zero};

/// Codes of a plane that are changed at a time.
const AT_ONCE: usize = 64;

/// What becomes of codes on their way.
trait Change<W>: Copy {
    type Out: Pod;
    /// What stands for padding.
    fn pad(&self) -> Self::Out;
    /// What codes become. The slices have one length.
    fn change<S: Simd>(&self, s: S, codes: &[W], out: &mut [Self::Out]);
}

/// The values of narrow floats.
impl<W: Code> Change<W> for Widener<'_> {
    type Out = f32;
    #[inline(always)]
    fn pad(&self) -> f32 {
        self.one(W::zeroed())
    }
    #[inline(always)]
    fn change<S: Simd>(&self, s: S, codes: &[W], out: &mut [f32]) {
        self.widen(s, codes, out);
    }
}

/// Integers, less their zero point, in f32.
#[derive(Clone, Copy)]
struct Less {
    signed: bool,
    zero: i32,
}

impl Change<u8> for Less {
    type Out = f32;
    #[inline(always)]
    fn pad(&self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn change<S: Simd>(&self, _: S, codes: &[u8], out: &mut [f32]) {
        if self.signed {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = (i32::from(code as i8) - self.zero) as f32;
            }
        } else {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = (i32::from(code) - self.zero) as f32;
            }
        }
    }
}

/// Bytes as they are, but for the bits of `flip`, which are turned over.
#[derive(Clone, Copy)]
struct Flip {
    flip: u8,
    pad: u8,
}

impl Change<u8> for Flip {
    type Out = u8;
    #[inline(always)]
    fn pad(&self) -> u8 {
        self.pad
    }
    #[inline(always)]
    fn change<S: Simd>(&self, _: S, codes: &[u8], out: &mut [u8]) {
        if self.flip == 0 {
            return out.copy_from_slice(codes);
        }
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = code ^ self.flip;
        }
    }
}

struct CopyChanged<'a, W, C: Change<W>> {
    scan: &'a Scan,
    band: &'a Band,
    data: &'a [W],
    start: isize,
    codes: C,
    out: &'a mut [C::Out],
}

/// [`super::copy_band`] of the values of an operand of narrow floats or 8-bit integers, which lies from `start` on.
///
/// # Panics
/// If `out` is shorter than [`Band::len`] of each strip, the operand is of another kind or has several zero points, or a code lies outside it.
pub fn copy_wide_band(
    isa: Isa,
    scan: &Scan,
    band: &Band,
    operand: Operand<'_>,
    start: isize,
    out: &mut [f32],
) {
    let table = table(operand.format);
    match (operand.words, Widener::new(operand.format, &table), operand.zero) {
        (Words::U8(data), Some(codes), _) => {
            isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes, out });
        }
        (Words::U16(data), Some(codes), _) => {
            isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes, out });
        }
        (Words::U8(data), None, Zero::Tensor(zero)) => {
            let codes = Less { signed: operand.format == Format::I8, zero };
            isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes, out });
        }
        _ => panic!("{} is not widened, nor with several zero points", operand.format),
    }
}

/// [`super::copy_band`] of bytes, which lie in `data` from `start` on: the bits of `flip` are turned over in each, padding becomes `pad`.
///
/// # Panics
/// If `out` is shorter than [`Band::len`] of each strip or a byte lies outside `data`.
pub fn copy_byte_band(
    isa: Isa,
    scan: &Scan,
    band: &Band,
    (data, start): (&[u8], isize),
    [flip, pad]: [u8; 2],
    out: &mut [u8],
) {
    isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes: Flip { flip, pad }, out });
}

impl<W: Code, C: Change<W>> WithSimd for CopyChanged<'_, W, C> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let CopyChanged { scan, band, data, start, codes, out } = self;
        let ((channels, down), pitch, strip) = (scan.channels, scan.pitch, band.len(scan.pitch));
        let out = &mut out[..channels.div_ceil(pitch) * strip];
        let width = band.across.len();
        for Line { place, inside, offset } in scan.lines(band) {
            let line = place * width * pitch;
            fill_ends(out, strip, line..line + width * pitch, &inside, pitch, codes.pad());
            let (stride, len, to) = (scan.axes[2].stride, inside.len(), line + inside.start * pitch);
            let first = start + offset;
            let place = |x: usize, c: usize| (first + x as isize * stride + c as isize * down) as usize;
            if len == 0 {
                continue;
            }
            if down == 1 && pitch == channels && (stride == channels as isize || len == 1) {
                codes.change(s, &data[place(0, 0)..][..len * channels], &mut out[to..][..len * channels]);
            } else if down == 1 {
                for x in 0..len {
                    let (mut from, mut to) = (&data[place(x, 0)..][..channels], to + x * pitch);
                    while !from.is_empty() {
                        let (now, rest) = from.split_at(pitch.min(from.len()));
                        codes.change(s, now, &mut out[to..][..now.len()]);
                        (from, to) = (rest, to + strip);
                    }
                }
            } else {
                for c in 0..channels {
                    let to = to + c / pitch * strip + c % pitch;
                    for x in (0..len).step_by(AT_ONCE) {
                        let (mut some, mut values) = ([W::zeroed(); AT_ONCE], [C::Out::zeroed(); AT_ONCE]);
                        let n = AT_ONCE.min(len - x);
                        for (i, code) in some[..n].iter_mut().enumerate() {
                            *code = data[place(x + i, c)];
                        }
                        codes.change(s, &some, &mut values);
                        for (i, &value) in values[..n].iter().enumerate() {
                            out[to + (x + i) * pitch] = value;
                        }
                    }
                }
            }
        }
    }
}
