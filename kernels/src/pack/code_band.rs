//! Copies the part of a convolution's input of codes that some positions need, and changes them on the way: narrow numbers to f32, bytes to what the dot products take. Channels innermost, padding
//! written out.

use bytemuck::{Pod, Zeroable};

use crate::format::{Code, Format, Widener, Words, table};
use crate::isa::Isa;
use crate::scan::{Band, Scan};
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
        let (at, across) = scan.across(band);
        for (place, offset) in scan.lines(band) {
            let line = place * width * pitch;
            let inside = if offset.is_some() { at..at + across.len() } else { width..width };
            fill_ends(out, strip, line..line + width * pitch, inside, pitch, codes.pad());
            let Some(offset) = offset else { continue };
            let (stride, len, to) = (scan.axes[2].stride, across.len(), line + at * pitch);
            let first = start + offset + across.start as isize * stride;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Codec, Format};
    use crate::pack::Zero;
    use crate::pack::copy_band;
    use crate::scan::ScanAxis;

    /// The band of the codes is that of their values.
    #[test]
    fn a_band_has_the_value_of_every_code() {
        let (height, width) = (4, 70);
        for (channels, down, strides, pitch) in [
            (5, 1, [70 * 5, 5], 5),
            (5, 1, [70 * 6, 6], 5),
            (3, 4 * 70, [70, 1], 3),
            (1, 1, [71, 1], 1),
            (21, 1, [70 * 21, 21], 8),
            (11, 4 * 70, [70, 1], 8),
        ] {
            // No NaN, whose payload the codec does not keep.
            let codes: Vec<u32> = (0..7000u32).map(|i| i.wrapping_mul(2_654_435_761) >> 18).collect();
            let axis = |positions, step, taps, origin, size, stride| ScanAxis {
                positions,
                step,
                taps,
                tap_step: 1,
                origin,
                size,
                stride,
            };
            let scan = Scan {
                start: 0,
                images: (1, 0),
                channels: (channels, down),
                pitch,
                axes: [
                    axis(1, 1, 1, 0, 1, 0),
                    axis(height, 1, 3, -1, height, strides[0]),
                    axis(35, 2, 3, -1, width, strides[1]),
                ],
            };
            for format in [Format::Bf16, Format::F16, Format::Fp8E5M2, Format::I8, Format::U8] {
                let (halves, bytes): (Vec<u16>, Vec<u8>) =
                    codes.iter().map(|&code| (code as u16, code as u8 & 0x7b)).unzip();
                let (zero, codec) = (i32::from(format.is_integer()) * 77, Codec::of(format));
                let words = if format.bytes() == 2 { Words::U16(&halves) } else { Words::U8(&bytes) };
                let value = |(&half, &byte): (&u16, &u8)| match codec {
                    None => (i32::from(byte) - zero) as f32,
                    Some(codec) if format.bytes() == 1 => codec.widen(byte.into()),
                    Some(codec) => codec.widen(half.into()),
                };
                let values: Vec<f32> = halves.iter().zip(&bytes).map(value).collect();
                let operand = Operand { words, format, zero: Zero::Tensor(zero), blocks: None };
                for (isa, rows) in Isa::available().flat_map(|isa| [(isa, 0..scan.rows()), (isa, 40..47)]) {
                    let band = scan.band(rows);
                    let len = channels.div_ceil(pitch) * band.len(pitch);
                    let mut out = [vec![7.0f32; len], vec![7.0f32; len]];
                    copy_wide_band(isa, &scan, &band, operand, 2, &mut out[0]);
                    copy_band(isa, &scan, &band, &values, 2, &mut out[1]);
                    let same = out[0].iter().zip(&out[1]).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{format}, strides {strides:?} on {isa}");
                    if let (Words::U8(data), None) = (words, codec) {
                        // The same codes, flipped: what was value v is v + zero, padding another byte.
                        let mut flipped = vec![0xee; len];
                        copy_byte_band(isa, &scan, &band, (data, 2), [0x80, 17], &mut flipped);
                        let want = |&value: &f32| (value as i32 + zero) as u8 ^ 0x80;
                        let padding = |i: usize| out[0][i] == 0.0 && flipped[i] == 17;
                        let unread = |i: usize| out[0][i].to_bits() == 7.0f32.to_bits() && flipped[i] == 0xee;
                        let all = out[0].iter().enumerate();
                        let mut wrong =
                            all.filter(|&(i, value)| flipped[i] != want(value) && !padding(i) && !unread(i));
                        assert_eq!(wrong.next(), None, "strides {strides:?} on {isa}");
                    }
                }
            }
        }
    }
}
