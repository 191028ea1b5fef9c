//! Copies the part of a convolution's input of bytes that some positions need: channels innermost, padding written out, codes as the dot products take them.

use crate::isa::Isa;
use crate::scan::{Band, Scan};
use crate::simd::{Simd, WithSimd};

struct Copy<'a> {
    scan: &'a Scan,
    band: &'a Band,
    data: &'a [u8],
    start: isize,
    flip: u8,
    pad: u8,
    out: &'a mut [u8],
}

/// Copies what `band` is of to the front of `out`, as many bytes to a place as there are channels; the tensor's codes lie in `data` from `start` on. The bits of `flip` are turned over in each;
/// padding becomes `pad`. Lines that are not read keep what was there.
///
/// # Panics
/// If `out` is shorter than [`Band::len`], places of a band hold other than all channels, or a code lies outside `data`.
pub fn copy_byte_band(
    isa: Isa,
    scan: &Scan,
    band: &Band,
    (data, start): (&[u8], isize),
    [flip, pad]: [u8; 2],
    out: &mut [u8],
) {
    assert!(scan.pitch == scan.channels.0);
    isa.dispatch_but_dots(Copy { scan, band, data, start, flip, pad, out });
}

impl WithSimd for Copy<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Copy { scan, band, data, start, flip, pad, out } = self;
        let (channels, down) = scan.channels;
        let (width, out) = (band.across.len(), &mut out[..band.len(channels)]);
        let (at, across) = scan.across(band);
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
                inside.copy_from_slice(&data[place(0, 0)..][..inside.len()]);
            } else if down == 1 {
                for (x, to) in inside.chunks_exact_mut(channels).enumerate() {
                    to.copy_from_slice(&data[place(x, 0)..][..channels]);
                }
            } else {
                for c in 0..channels {
                    for (x, to) in inside.iter_mut().skip(c).step_by(channels).enumerate() {
                        *to = data[place(x, c)];
                    }
                }
            }
            if flip != 0 {
                inside.iter_mut().for_each(|code| *code ^= flip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axis::COORDS;
    use crate::scan::ScanAxis;

    /// Every layout gives the band that the window over the tensor says.
    #[test]
    fn a_band_has_every_code_in_its_place() {
        let (height, width) = (4, 7);
        for (channels, down, strides) in
            [(5, 1, [7 * 5, 5]), (5, 1, [7 * 6, 6]), (3, 4 * 7, [7, 1]), (1, 1, [9, 1])]
        {
            let data: Vec<u8> = (0..400u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
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
                    axis(3, 2, 3, -1, width, strides[1]),
                ],
            };
            let window = scan.window();
            for (isa, rows) in Isa::available().flat_map(|isa| [(isa, 0..scan.rows()), (isa, 4..5)]) {
                let band = scan.band(rows.clone());
                let mut out = vec![0xee; band.len(channels)];
                copy_byte_band(isa, &scan, &band, (&data, 2), [0x80, 17], &mut out);
                for (row, k) in rows.flat_map(|row| (0..window.k.extent()).map(move |k| (row, k))) {
                    let (x, at) = (window.x.cursor(row), window.k.cursor(k));
                    let inside = (0..COORDS).all(|d| {
                        (0..window.bounds[d]).contains(&(window.origin[d] + x.coords[d] + at.coords[d]))
                    });
                    let want = match inside {
                        true => data[(2 + window.start + x.offset + at.offset) as usize] ^ 0x80,
                        false => 17,
                    };
                    let here = band.window.start + band.window.x.offset(row) + band.window.k.offset(k);
                    assert_eq!(out[here as usize], want, "row {row}, k {k}, strides {strides:?} on {isa}");
                }
            }
        }
    }
}
