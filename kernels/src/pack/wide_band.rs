//! Copies the part of a convolution's input of narrow numbers that some positions need, as f32: channels innermost, padding written out.

use crate::format::{Code, Format, Widener, Words, table};
use crate::isa::Isa;
use crate::scan::{Band, Scan};
use crate::simd::{Simd, WithSimd};

use super::{Operand, Zero};

/// Codes of a plane that are widened at a time.
const AT_ONCE: usize = 64;

/// From codes to values.
trait ToFloat<W>: Copy {
    /// The value of padding.
    fn pad(&self) -> f32;
    /// The values of codes. The slices have one length.
    fn widen<S: Simd>(&self, s: S, codes: &[W], out: &mut [f32]);
}

impl<W: Code> ToFloat<W> for Widener<'_> {
    #[inline(always)]
    fn pad(&self) -> f32 {
        self.one(W::zeroed())
    }
    #[inline(always)]
    fn widen<S: Simd>(&self, s: S, codes: &[W], out: &mut [f32]) {
        Widener::widen(self, s, codes, out);
    }
}

/// Integers, less their zero point.
#[derive(Clone, Copy)]
struct Less {
    signed: bool,
    zero: i32,
}

impl ToFloat<u8> for Less {
    #[inline(always)]
    fn pad(&self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn widen<S: Simd>(&self, _: S, codes: &[u8], out: &mut [f32]) {
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

struct CopyWide<'a, W, C> {
    scan: &'a Scan,
    band: &'a Band,
    data: &'a [W],
    start: isize,
    codes: C,
    out: &'a mut [f32],
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
            isa.dispatch_but_dots(CopyWide { scan, band, data, start, codes, out });
        }
        (Words::U16(data), Some(codes), _) => {
            isa.dispatch_but_dots(CopyWide { scan, band, data, start, codes, out });
        }
        (Words::U8(data), None, Zero::Tensor(zero)) => {
            let codes = Less { signed: operand.format == Format::I8, zero };
            isa.dispatch_but_dots(CopyWide { scan, band, data, start, codes, out });
        }
        _ => panic!("{} is not widened, nor with several zero points", operand.format),
    }
}

impl<W: Code, C: ToFloat<W>> WithSimd for CopyWide<'_, W, C> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let CopyWide { scan, band, data, start, codes, out } = self;
        let ((channels, down), pitch, strip) = (scan.channels, scan.pitch, band.len(scan.pitch));
        let out = &mut out[..channels.div_ceil(pitch) * strip];
        let width = band.across.len();
        let (at, across) = scan.across(band);
        for (place, offset) in scan.lines(band) {
            let line = place * width * pitch;
            let inside = if offset.is_some() { at..at + across.len() } else { width..width };
            for out in out.chunks_exact_mut(strip) {
                let out = &mut out[line..][..width * pitch];
                out[..inside.start * pitch].fill(codes.pad());
                out[inside.end * pitch..].fill(codes.pad());
            }
            let Some(offset) = offset else { continue };
            let (stride, len, to) = (scan.axes[2].stride, across.len(), line + at * pitch);
            let first = start + offset + across.start as isize * stride;
            let place = |x: usize, c: usize| (first + x as isize * stride + c as isize * down) as usize;
            if len == 0 {
                continue;
            }
            if down == 1 && pitch == channels && (stride == channels as isize || len == 1) {
                codes.widen(s, &data[place(0, 0)..][..len * channels], &mut out[to..][..len * channels]);
            } else if down == 1 {
                for x in 0..len {
                    let (mut from, mut to) = (&data[place(x, 0)..][..channels], to + x * pitch);
                    while !from.is_empty() {
                        let (now, rest) = from.split_at(pitch.min(from.len()));
                        codes.widen(s, now, &mut out[to..][..now.len()]);
                        (from, to) = (rest, to + strip);
                    }
                }
            } else {
                for c in 0..channels {
                    let to = to + c / pitch * strip + c % pitch;
                    for x in (0..len).step_by(AT_ONCE) {
                        let (mut some, mut values) = ([W::zeroed(); AT_ONCE], [0.0; AT_ONCE]);
                        let n = AT_ONCE.min(len - x);
                        for (i, code) in some[..n].iter_mut().enumerate() {
                            *code = data[place(x + i, c)];
                        }
                        codes.widen(s, &some, &mut values);
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
                }
            }
        }
    }
}
