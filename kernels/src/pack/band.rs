//! Copies the part of a convolution's input that some positions need: channels innermost, padding written out.

use std::ops::Range;

use crate::isa::Isa;
use crate::scan::{Band, Line, Scan};
use crate::simd::{Simd, Transpose, WithSimd};

struct Copy<'a, T> {
    scan: &'a Scan,
    band: &'a Band,
    data: &'a [T],
    start: isize,
    out: &'a mut [T],
}

/// Copies what `band` is of to the front of `out`; the tensor's elements lie in `data` from `start` on. Lines that are not read keep what was there, as do places
/// behind the last channel. If there are more channels than a place holds, strips of them come one after the other, a band each.
///
/// # Panics
/// If `out` is shorter than [`Band::len`] of each strip or an element lies outside `data`.
pub fn copy_band<T: Transpose>(isa: Isa, scan: &Scan, band: &Band, data: &[T], start: isize, out: &mut [T]) {
    isa.dispatch_but_dots(Copy { scan, band, data, start, out });
}

impl<T: Transpose> WithSimd for Copy<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Copy { scan, band, data, start, out } = self;
        let (pitch, strip) = (scan.pitch, band.len(scan.pitch));
        let out = &mut out[..scan.channels.0.div_ceil(pitch) * strip];
        let width = band.across.len();
        for Line { place, inside, offset } in scan.lines(band) {
            let line = place * width * pitch;
            fill_ends(out, strip, line..line + width * pitch, &inside, pitch, T::zeroed());
            copy_line(s, scan, data, start + offset, inside.len(), out, (line + inside.start * pitch, strip));
        }
    }
}

/// Writes `pad` to the places of a line, `pitch` elements each, that are not `inside`, in every strip of `out`.
#[inline(always)]
pub(super) fn fill_ends<T: bytemuck::Pod>(
    out: &mut [T],
    strip: usize,
    line: Range<usize>,
    inside: &Range<usize>,
    pitch: usize,
    pad: T,
) {
    for out in out.chunks_exact_mut(strip) {
        let out = &mut out[line.clone()];
        out[..inside.start * pitch].fill(pad);
        out[inside.end * pitch..].fill(pad);
    }
}

/// `len` coordinates of one line, all channels of each, from element `to` of each strip on.
#[inline(always)]
fn copy_line<T: Transpose, S: Simd>(
    s: S,
    scan: &Scan,
    data: &[T],
    first: isize,
    len: usize,
    out: &mut [T],
    (to, strip): (usize, usize),
) {
    let ((channels, down), pitch) = (scan.channels, scan.pitch);
    let across = scan.axes[2].stride;
    let place = |x: usize, c: usize| (first + x as isize * across + c as isize * down) as usize;
    if len == 0 {
        return;
    }
    if pitch == 1 && across == 1 {
        for c in 0..channels {
            out[to + c * strip..][..len].copy_from_slice(&data[place(0, c)..][..len]);
        }
        return;
    }
    if pitch == 1 && down == 1 {
        return copy_to_planes(s, |x| &data[place(x, 0)..][..channels], len, &mut out[to..], strip);
    }
    if down == 1 && pitch == channels && (across == channels as isize || len == 1) {
        out[to..][..len * channels].copy_from_slice(&data[place(0, 0)..][..len * channels]);
        return;
    }
    if down == 1 {
        for x in 0..len {
            let (mut from, mut to) = (&data[place(x, 0)..][..channels], to + x * pitch);
            while !from.is_empty() {
                let (now, rest) = from.split_at(pitch.min(from.len()));
                let out = &mut out[to..][..now.len()];
                // Of a size that the compiler knows, where it can be.
                match (<&mut [T; 16]>::try_from(&mut *out), <&[T; 16]>::try_from(now)) {
                    (Ok(out), Ok(now)) => *out = *now,
                    _ => out.copy_from_slice(now),
                }
                (from, to) = (rest, to + strip);
            }
        }
        return;
    }
    if across == 1 && pitch == channels && channels <= 4 {
        return interleave_planes(
            |c| &data[place(0, c)..][..len],
            channels,
            &mut out[to..][..len * channels],
        );
    }
    let at = |x: usize, c: usize| to + c / pitch * strip + x * pitch + c % pitch;
    // Blocks of 16 x 16 and of 8 x 8; of a shorter line, what is read behind it is dropped.
    let has = |block: usize| {
        let end = place(0, channels - 1).max(place(0, 0)).saturating_add(len.max(block));
        across == 1 && (pitch.is_multiple_of(block) || channels <= pitch) && end <= data.len()
    };
    let mut whole = 0;
    if size_of::<T>() == size_of::<f32>() && len > 8 && has(16) {
        while whole + 16 <= channels {
            let c = whole;
            for x in (0..len).step_by(16) {
                // The last block begins early enough to be a whole one.
                let x = x.min(len.saturating_sub(16));
                let row = |j: usize| data[place(x, c + j)..].first_chunk().expect("a whole line");
                let mut rows = [row(0); 16];
                for (j, rows) in rows.iter_mut().enumerate() {
                    *rows = row(j);
                }
                for (i, block) in T::transpose_16(s, rows).iter().take(len).enumerate() {
                    out[at(x + i, c)..][..16].copy_from_slice(block);
                }
            }
            whole += 16;
        }
    }
    if has(8) {
        while whole + 8 <= channels {
            let c = whole;
            for x in (0..len).step_by(8) {
                let x = x.min(len.saturating_sub(8));
                let mut block = [[T::zeroed(); 8]; 8];
                for (j, block) in block.iter_mut().enumerate() {
                    block.copy_from_slice(&data[place(x, c + j)..][..8]);
                }
                for (i, block) in T::transpose(s, block).iter().take(len).enumerate() {
                    out[at(x + i, c)..][..8].copy_from_slice(block);
                }
            }
            whole += 8;
        }
    }
    for c in whole..channels {
        for x in 0..len {
            out[at(x, c)] = data[place(x, c)];
        }
    }
}

/// Up to four planes of a line, element by element in turns.
///
/// # Panics
/// If there are more, or elements of another number.
#[inline(always)]
pub(crate) fn interleave_planes<'a, T: Transpose>(
    plane: impl Fn(usize) -> &'a [T],
    channels: usize,
    out: &mut [T],
) {
    match channels {
        1 => out.copy_from_slice(plane(0)),
        2 => interleave([plane(0), plane(1)], out),
        3 => interleave([plane(0), plane(1), plane(2)], out),
        4 => interleave([plane(0), plane(1), plane(2), plane(3)], out),
        _ => unreachable!("{channels} planes"),
    }
}

/// `N` planes of a line, element by element in turns. Of a number that the compiler knows, whole vectors are permuted.
#[inline(always)]
fn interleave<const N: usize, T: Transpose>(planes: [&[T]; N], out: &mut [T]) {
    let (out, _) = out.as_chunks_mut::<N>();
    let planes = planes.map(|plane| &plane[..out.len()]);
    for (x, out) in out.iter_mut().enumerate() {
        for (out, plane) in out.iter_mut().zip(planes) {
            *out = plane[x];
        }
    }
}

/// A plane a channel, `apart` elements from one to the next, from `len` places whose channels lie side by side.
#[inline(always)]
fn copy_to_planes<'a, T: Transpose, S: Simd>(
    s: S,
    channels_of: impl Fn(usize) -> &'a [T],
    len: usize,
    out: &mut [T],
    apart: usize,
) {
    let channels = channels_of(0).len();
    let whole = if len >= 8 { channels / 8 * 8 } else { 0 };
    for x in (0..len).step_by(8) {
        // The last block begins early enough to be a whole one.
        let x = x.min(len.saturating_sub(8));
        for c in (0..whole).step_by(8) {
            let mut block = [[T::zeroed(); 8]; 8];
            for (j, block) in block.iter_mut().enumerate() {
                block.copy_from_slice(&channels_of(x + j)[c..c + 8]);
            }
            for (i, block) in T::transpose(s, block).iter().enumerate() {
                out[(c + i) * apart + x..][..8].copy_from_slice(block);
            }
        }
    }
    for x in 0..len {
        for (c, &value) in channels_of(x).iter().enumerate().skip(whole) {
            out[c * apart + x] = value;
        }
    }
}
