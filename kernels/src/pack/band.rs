//! Copies the part of a convolution's input that some positions need: channels innermost, padding written out.

use std::ops::Range;

use crate::isa::Isa;
use crate::mat::{Chunk, MatRef};
use crate::scan::{Band, Line, Scan};
use crate::simd::{Simd, Transpose, WithSimd, WithToken, prefetch_near};

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
        let mut lines = scan.lines(band).peekable();
        while let Some(Line { place, inside, offset }) = lines.next() {
            let (len, line) = (inside.len(), |place: usize| place * width * pitch);
            let mut fill = |place: usize| {
                fill_ends(out, strip, line(place)..line(place + 1), &inside, pitch, T::zeroed());
            };
            fill(place);
            // Lines one right behind the other are one long line.
            let mut count = 1;
            let follows = |next: &Line, count: usize| {
                (next.place, next.offset) == (place + count, offset + (count * len) as isize)
                    && next.inside == inside
            };
            while lines.next_if(|next| follows(next, count)).is_some() {
                fill(place + count);
                count += 1;
            }
            let (first, to) = (start + offset, line(place) + inside.start * pitch);
            let turned = turn_lines(s, scan, data, first, (len, count), out, (to, line(1), strip));
            for line in 0..count {
                let (first, to) = (first + (line * len) as isize, to + line * width * pitch);
                copy_line(s, scan, data, (first, len), turned, out, (to, strip));
            }
        }
    }
}

/// Planes of 16 channels at a time of lines one right behind the other, the places of a band in turns; how many channels that are.
#[inline(always)]
fn turn_lines<T: Transpose, S: Simd>(
    s: S,
    scan: &Scan,
    data: &[T],
    first: isize,
    (len, count): (usize, usize),
    out: &mut [T],
    (to, line, strip): (usize, usize, usize),
) -> usize {
    let ((channels, down), pitch) = (scan.channels, scan.pitch);
    let turned = channels / BLOCK * BLOCK;
    let whole = pitch.is_multiple_of(BLOCK) || channels <= pitch;
    let planes = size_of::<T>() == size_of::<f32>() && scan.axes[2].stride == 1 && down > 1;
    if !planes || !whole || len * count < BLOCK {
        return 0;
    }
    for c in (0..turned).step_by(BLOCK) {
        let (first, apart) = (first + c as isize * down, down as usize);
        let out = &mut out[c / pitch * strip + to + c % pitch..];
        s.apart(TurnLines { data, first, apart, len, count, out, pitch, line });
    }
    turned
}

/// Channels, and places of each, that are turned together.
const BLOCK: usize = 16;

/// 16 channels of [`turn_lines`].
struct TurnLines<'a, T> {
    data: &'a [T],
    /// The first place of the first channel, and from there to that of the next.
    first: isize,
    apart: usize,
    /// Places of a line, and lines.
    len: usize,
    count: usize,
    /// From the first channel at the first place on.
    out: &'a mut [T],
    /// From a place to the next, and from a line to the next.
    pitch: usize,
    line: usize,
}

impl<T: Transpose, S: Simd> WithToken<S> for TurnLines<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let TurnLines { data, first, apart, len, count, out, pitch, line } = self;
        let (all, gap) = (len * count, line - len * pitch);
        let words = MatRef::spread(data, first, BLOCK, all, apart);
        let whole = all / BLOCK * BLOCK;
        let mut to = Places { out, at: 0, of_line: 0, len, pitch, gap };
        for block in words.part(0..BLOCK, 0..whole).chunks::<BLOCK, BLOCK>() {
            turn_block(s, block, apart, &mut to);
        }
        if whole < all {
            // The last block begins early enough to be a whole one.
            let x = all - BLOCK;
            (to.at, to.of_line) = (x / len * line + x % len * pitch, x % len);
            for block in words.part(0..BLOCK, x..all).chunks::<BLOCK, BLOCK>() {
                turn_block(s, block, apart, &mut to);
            }
        }
    }
}

/// Places of a band, one after the other.
struct Places<'a, T> {
    out: &'a mut [T],
    /// Where the next is.
    at: usize,
    /// How many of its line are before it, and how many a line has.
    of_line: usize,
    len: usize,
    /// From a place to the next, and how much further that is behind a line.
    pitch: usize,
    gap: usize,
}

/// One block to the next places.
#[inline(always)]
fn turn_block<T: Transpose, S: Simd>(
    s: S,
    block: Chunk<'_, T, BLOCK, BLOCK>,
    apart: usize,
    to: &mut Places<'_, T>,
) {
    let mut rows = [block.at(0); BLOCK];
    for (j, row) in rows.iter_mut().enumerate() {
        *row = block.at(j);
        // The same of the channels that come next.
        prefetch_near(row.as_ptr().wrapping_add(BLOCK * apart));
    }
    let turned = T::transpose_16(s, rows);
    if to.of_line + BLOCK < to.len && to.pitch == BLOCK {
        let places = to.out[to.at..].as_chunks_mut().0.first_chunk_mut().expect("places of the band");
        *places = turned;
        (to.at, to.of_line) = (to.at + BLOCK * BLOCK, to.of_line + BLOCK);
        return;
    }
    for place in turned {
        *to.out[to.at..].first_chunk_mut().expect("a place of the band") = place;
        (to.at, to.of_line) = (to.at + to.pitch, to.of_line + 1);
        if to.of_line == to.len {
            (to.at, to.of_line) = (to.at + to.gap, 0);
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
        let (before, rest) = out[line.clone()].split_at_mut(inside.start * pitch);
        for ends in [before, &mut rest[inside.len() * pitch..]] {
            // One place as a rule, for which a call takes longer than a store.
            match <&mut [T; BLOCK]>::try_from(&mut *ends) {
                Ok(place) => *place = [pad; BLOCK],
                _ => ends.fill(pad),
            }
        }
    }
}

/// `len` coordinates of one line, of each the channels from `turned` on, from element `to` of each strip on.
#[inline(always)]
fn copy_line<T: Transpose, S: Simd>(
    s: S,
    scan: &Scan,
    data: &[T],
    (first, len): (isize, usize),
    turned: usize,
    out: &mut [T],
    (to, strip): (usize, usize),
) {
    let ((channels, down), pitch) = (scan.channels, scan.pitch);
    let across = scan.axes[2].stride;
    let place = |x: usize, c: usize| (first + x as isize * across + c as isize * down) as usize;
    if len == 0 || turned == channels {
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
    // Blocks of 8 x 8; of a shorter line, what is read behind it is dropped.
    let end = place(0, channels - 1).max(place(0, 0)).saturating_add(len.max(8));
    let mut whole = turned;
    if across == 1 && (pitch.is_multiple_of(8) || channels <= pitch) && end <= data.len() {
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
