//! Copies the part of a convolution's input of narrow floats that some positions need, widened: channels innermost, padding written out.

use crate::format::{Code, Widener, Words, table};
use crate::isa::Isa;
use crate::scan::{Band, Scan};
use crate::simd::{Simd, WithSimd};

use super::Operand;

/// Codes of a plane that are widened at a time.
const AT_ONCE: usize = 64;

struct Copy<'a, W> {
    scan: &'a Scan,
    band: &'a Band,
    data: &'a [W],
    start: isize,
    widener: Widener<'a>,
    out: &'a mut [f32],
}

/// [`super::copy_band`] of the codes of a narrow float format, which lie from `start` on, with all channels at each place.
///
/// # Panics
/// If `out` is shorter than [`Band::len`], places of a band hold other than all channels, the format is no narrow float, or a code lies outside the operand.
pub fn copy_wide_band(
    isa: Isa,
    scan: &Scan,
    band: &Band,
    operand: Operand<'_>,
    start: isize,
    out: &mut [f32],
) {
    assert!(scan.pitch == scan.channels.0);
    let table = table(operand.format);
    let widener = Widener::new(operand.format, &table).expect("a narrow float format");
    match operand.words {
        Words::U8(data) => isa.dispatch_but_dots(Copy { scan, band, data, start, widener, out }),
        Words::U16(data) => isa.dispatch_but_dots(Copy { scan, band, data, start, widener, out }),
        _ => panic!("{} is not narrow", operand.format),
    }
}

impl<W: Code> WithSimd for Copy<'_, W> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Copy { scan, band, data, start, widener, out } = self;
        let (channels, down) = scan.channels;
        let (width, out) = (band.across.len(), &mut out[..band.len(channels)]);
        let (at, across) = scan.across(band);
        let pad = widener.one(W::zeroed());
        for (place, offset) in scan.lines(band) {
            let line = &mut out[place * width * channels..][..width * channels];
            let Some(offset) = offset else {
                line.fill(pad);
                continue;
            };
            let (low, rest) = line.split_at_mut(at * channels);
            let (inside, high) = rest.split_at_mut(across.len() * channels);
            low.fill(pad);
            high.fill(pad);
            let stride = scan.axes[2].stride;
            let first = start + offset + across.start as isize * stride;
            let place = |x: usize, c: usize| (first + x as isize * stride + c as isize * down) as usize;
            if inside.is_empty() {
                continue;
            }
            if down == 1 && (stride == channels as isize || across.len() == 1) {
                widener.widen(s, &data[place(0, 0)..][..inside.len()], inside);
            } else if down == 1 {
                for (x, to) in inside.chunks_exact_mut(channels).enumerate() {
                    widener.widen(s, &data[place(x, 0)..][..channels], to);
                }
            } else {
                for c in 0..channels {
                    for (block, to) in inside.chunks_mut(AT_ONCE * channels).enumerate() {
                        let (len, from) = (to.len() / channels, block * AT_ONCE);
                        let (mut codes, mut values) = ([W::zeroed(); AT_ONCE], [0.0; AT_ONCE]);
                        for (i, code) in codes[..len].iter_mut().enumerate() {
                            *code = data[place(from + i, c)];
                        }
                        widener.widen(s, &codes, &mut values);
                        for (i, &value) in values[..len].iter().enumerate() {
                            to[i * channels + c] = value;
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
        for (channels, down, strides) in
            [(5, 1, [70 * 5, 5]), (5, 1, [70 * 6, 6]), (3, 4 * 70, [70, 1]), (1, 1, [71, 1])]
        {
            let codes: Vec<u32> = (0..2000u32).map(|i| i.wrapping_mul(2_654_435_761) >> 17).collect();
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
                pitch: channels,
                axes: [
                    axis(1, 1, 1, 0, 1, 0),
                    axis(height, 1, 3, -1, height, strides[0]),
                    axis(35, 2, 3, -1, width, strides[1]),
                ],
            };
            for format in [Format::Bf16, Format::F16, Format::Fp8E4M3] {
                let codec = Codec::of(format).expect("narrow");
                let (halves, bytes): (Vec<u16>, Vec<u8>) =
                    codes.iter().map(|&code| (code as u16, code as u8)).unzip();
                let words = if format.bytes() == 2 { Words::U16(&halves) } else { Words::U8(&bytes) };
                let mask = if format.bytes() == 2 { 0xffff } else { 0xff };
                let values: Vec<f32> = codes.iter().map(|&code| codec.widen(code & mask)).collect();
                let operand = Operand { words, format, zero: Zero::Tensor(0), blocks: None };
                for (isa, rows) in Isa::available().flat_map(|isa| [(isa, 0..scan.rows()), (isa, 40..47)]) {
                    let band = scan.band(rows);
                    let mut out = [vec![7.0f32; band.len(channels)], vec![7.0f32; band.len(channels)]];
                    copy_wide_band(isa, &scan, &band, operand, 2, &mut out[0]);
                    copy_band(isa, &scan, &band, &values, 2, &mut out[1]);
                    let same = out[0].iter().zip(&out[1]).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{format}, strides {strides:?} on {isa}");
                }
            }
        }
    }
}
