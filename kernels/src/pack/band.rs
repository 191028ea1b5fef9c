//! Copies the part of a convolution's input that some positions need: channels innermost, padding written out.

use crate::isa::Isa;
use crate::scan::{Band, Scan};
use crate::simd::{Simd, WithSimd, transpose_scalar};

/// Elements that a band can hold.
pub trait Bands: bytemuck::Pod {
    /// `result[i][j] = block[j][i]`.
    fn transpose<S: Simd>(s: S, block: [[Self; 8]; 8]) -> [[Self; 8]; 8];
}

impl Bands for f32 {
    #[inline(always)]
    fn transpose<S: Simd>(s: S, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        s.transpose_8x8(block)
    }
}

impl Bands for f64 {
    #[inline(always)]
    fn transpose<S: Simd>(_: S, block: [[f64; 8]; 8]) -> [[f64; 8]; 8] {
        transpose_scalar(block)
    }
}

struct Copy<'a, T> {
    scan: &'a Scan,
    band: &'a Band,
    data: &'a [T],
    start: isize,
    out: &'a mut [T],
}

/// Copies what `band` is of to the front of `out`; the tensor's elements lie in `data` from `start` on. Lines that are not read keep what was there.
///
/// # Panics
/// If `out` is shorter than [`Band::len`] or an element lies outside `data`.
pub fn copy_band<T: Bands>(isa: Isa, scan: &Scan, band: &Band, data: &[T], start: isize, out: &mut [T]) {
    isa.dispatch_floats(Copy { scan, band, data, start, out });
}

impl<T: Bands> WithSimd for Copy<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Copy { scan, band, data, start, out } = self;
        let channels = scan.channels.0;
        let line = band.across.len() * channels;
        let (at, across) = scan.across(band);
        for (place, offset) in scan.lines(band) {
            let out = &mut out[place * line..][..line];
            let Some(offset) = offset else {
                out.fill(T::zeroed());
                continue;
            };
            let (before, out) = out.split_at_mut(at * channels);
            let (out, after) = out.split_at_mut(across.len() * channels);
            before.fill(T::zeroed());
            after.fill(T::zeroed());
            let first = start + offset + across.start as isize * scan.axes[2].stride;
            copy_line(s, scan, data, first, across.len(), out);
        }
    }
}

/// `len` coordinates of one line, all channels of each.
#[inline(always)]
fn copy_line<T: Bands, S: Simd>(s: S, scan: &Scan, data: &[T], first: isize, len: usize, out: &mut [T]) {
    let (channels, down) = scan.channels;
    let across = scan.axes[2].stride;
    let place = |x: usize, c: usize| (first + x as isize * across + c as isize * down) as usize;
    if len == 0 {
        return;
    }
    if down == 1 && (across == channels as isize || len == 1) {
        out.copy_from_slice(&data[place(0, 0)..][..len * channels]);
        return;
    }
    if down == 1 {
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            out.copy_from_slice(&data[place(x, 0)..][..channels]);
        }
        return;
    }
    let mut whole = 0;
    if across == 1 && len >= 8 {
        whole = channels / 8 * 8;
        for c in (0..whole).step_by(8) {
            for x in (0..len).step_by(8) {
                // The last block begins early enough to be a whole one.
                let x = x.min(len - 8);
                let mut block = [[T::zeroed(); 8]; 8];
                for (j, block) in block.iter_mut().enumerate() {
                    block.copy_from_slice(&data[place(x, c + j)..][..8]);
                }
                for (i, block) in T::transpose(s, block).iter().enumerate() {
                    out[(x + i) * channels + c..][..8].copy_from_slice(block);
                }
            }
        }
    }
    for c in whole..channels {
        for x in 0..len {
            out[x * channels + c] = data[place(x, c)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::ScanAxis;

    /// Every layout gives the band that its elements say, on every instruction set.
    #[test]
    fn a_band_has_every_element_in_its_place() {
        let (images, channels, depth, height, width) = (2, 19, 2, 4, 13);
        let value = |at: [usize; 5]| at.iter().fold(1usize, |value, at| value * 16 + at) as f32;
        let axis = |positions, taps, origin, size, stride| ScanAxis {
            positions,
            step: 1,
            taps,
            tap_step: 1,
            origin,
            size,
            stride,
        };
        // Elements from a channel to the next, and those of the three axes.
        for (down, strides) in [
            (1, [4 * 13 * 19, 13 * 19, 19]),
            (1, [4 * 13 * 21, 13 * 21, 21]),
            (2 * 4 * 13, [4 * 13, 13, 1]),
            (2 * 4 * 13, [4, 1, 8]),
        ] {
            let image = 2 * 4 * 13 * 21;
            let mut data = vec![0.0f32; images * image];
            let scan = Scan {
                start: 0,
                images: (images, image as isize),
                channels: (channels, down),
                axes: [
                    axis(depth, 1, 0, depth, strides[0]),
                    axis(height, 3, -1, height, strides[1]),
                    axis(width, 3, -1, width, strides[2]),
                ],
            };
            let place = |at: [usize; 5]| {
                at[0] * image
                    + at[1] * strides[0] as usize
                    + at[2] * strides[1] as usize
                    + at[3] * strides[2] as usize
                    + at[4] * down as usize
            };
            let all = (0..images * depth * height * width * channels).map(|i| {
                [
                    i / (depth * height * width * channels),
                    i / (height * width * channels) % depth,
                    i / (width * channels) % height,
                    i / channels % width,
                    i % channels,
                ]
            });
            for at in all.clone() {
                data[place(at)] = value(at);
            }
            for rows in [0..scan.rows(), 3..9, width - 2..width + 3] {
                for isa in Isa::available() {
                    let band = scan.band(rows.clone());
                    let mut out = vec![f32::NAN; band.len(channels)];
                    copy_band(isa, &scan, &band, &data, 0, &mut out);
                    let lines: Vec<_> = scan.lines(&band).collect();
                    let (first, across) = scan.across(&band);
                    for (place_in_band, offset) in lines {
                        for x in 0..band.across.len() {
                            for c in 0..channels {
                                let inside = x.checked_sub(first).filter(|&x| x < across.len());
                                let expected = match (offset, inside) {
                                    (Some(offset), Some(x)) => {
                                        let from = offset
                                            + (across.start + x) as isize * strides[2]
                                            + c as isize * down;
                                        data[from as usize]
                                    }
                                    _ => 0.0,
                                };
                                let got = out[(place_in_band * band.across.len() + x) * channels + c];
                                assert_eq!(got, expected, "{rows:?} {strides:?} {isa}");
                            }
                        }
                    }
                }
            }
        }
    }
}
