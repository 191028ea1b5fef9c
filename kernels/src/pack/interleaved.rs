//! Panels of weights whose kernel positions lie inside their channels, as planar networks have them: read in the order of memory, for run by run each cache line would come again for every kernel
//! position.

use std::ops::Range;

use crate::axis::Window;
use crate::mat::{CACHE_LINE, MatRef};
use crate::simd::{Lanes as SimdLanes, Simd, WithToken, prefetch, prefetch_near};

use super::convert::Convert;
use super::panel::first_words;
use super::ways::LINES_AHEAD;

/// Lanes, and words of each, that are transposed together where lanes are long runs. On Zen 4 four such squares take 0.6 of the time of one of 16 x 16.
const SQUARE: usize = 8;

/// The same of short runs, of nine words as a rule: 512 x 512 x 3 x 3 0.28 ns an element, by squares of 8 x 8 and what is left over one by one 0.41.
const WIDE: usize = 16;

/// Words that are transposed at a time where lanes are long runs: a cache line of f32 of each lane, which may be gone when its next half is asked for, for runs a multiple of a page apart share
/// few sets of the first-level cache.
const STRETCH: usize = 16;

/// Channels that are gone through before the next kernel position, where elements are copied one by one.
const SOME_CHANNELS: usize = 16;

/// Most kernel positions of a channel of which squares are transposed.
const MOST_TAPS: usize = 32;

/// Kernel positions from which on squares are transposed, although some of their words may be none; fewer are copied one by one: of two 0.68 ns an element, by squares 0.81.
const TAPS_OF_SQUARES: usize = 3;

/// All of k of a plain operand in which the inner dim of k takes long steps and those outside it, if there are any, short ones, such as weights whose kernel positions lie inside their
/// channels, or one such position of all channels.
#[expect(clippy::too_many_arguments, reason = "one call, inlined")]
#[inline(always)]
pub(super) fn interleaved<S: Simd, C: Convert, const W: usize>(
    s: S,
    convert: &C,
    window: &Window,
    data: &[C::Word],
    x0: usize,
    lanes: usize,
    k: &Range<usize>,
    panel: &mut [C::Out],
) -> bool {
    let [outer @ .., inner] = window.k.dims() else { return false };
    let (x, channels) = (window.x.cursor(x0), inner.extent);
    let taps: usize = outer.iter().map(|dim| dim.extent).product();
    let whole = window.is_plain() && *k == (0..taps * channels) && window.x.run(&x) >= lanes;
    let (first, across) = (window.start + x.offset, window.x.inner().stride);
    let inside = outer.iter().all(|dim| dim.stride.abs() < inner.stride.abs());
    if C::K != 1 || !whole || !inside || across <= 1 {
        return false;
    }
    let across = across as usize;
    // Panels of 32 bits are most of the work; every way is compiled for every width and format.
    let squares = const { W.is_multiple_of(WIDE) && size_of::<C::Out>() == 4 };
    if squares && (1..=MOST_TAPS).contains(&taps) && outer.iter().all(|dim| dim.stride > 0) {
        let mut offsets = [0; MOST_TAPS];
        for (tap, offset) in offsets[..taps].iter_mut().enumerate() {
            *offset = window.k.offset(tap * channels) as usize;
        }
        let taps = &offsets[..taps];
        let of = Lanes::<C, W> { convert, data, first, across, lanes, taps, channels, apart: inner.stride };
        let close = taps.iter().enumerate().all(|(tap, &offset)| tap == offset);
        if close && inner.stride == taps.len() as isize && k.len() >= STRETCH {
            s.apart(LongRuns { of, panel });
            return true;
        }
        // A view may have them in another order, or one place twice.
        if taps.len() >= TAPS_OF_SQUARES && taps.is_sorted_by(|a, b| a < b) {
            s.apart(ShortRuns { of, panel });
            return true;
        }
    }
    let reach = (lanes - 1) * across + 1;
    let pad: [C::Out; W] = std::array::from_fn(|w| convert.unit(w, [convert.pad(w); 4], 1));
    // A few channels at a time, whose lines stay near until their last kernel position.
    for some in (0..channels).step_by(SOME_CHANNELS) {
        for tap in 0..taps {
            let first = first + window.k.offset(tap * channels);
            for channel in some..channels.min(some + SOME_CHANNELS) {
                let first = first + channel as isize * inner.stride;
                if tap == 0 {
                    let ahead = first + SOME_CHANNELS as isize * inner.stride;
                    for word in (0..reach).step_by(across.max(CACHE_LINE / size_of::<C::Word>())) {
                        prefetch_near(data.as_ptr().wrapping_offset(ahead).wrapping_add(word));
                    }
                }
                let first = first as usize;
                let (out, beyond) = panel[(tap * channels + channel) * W..][..W].split_at_mut(lanes);
                // Of each stride the first word. (`step_by` keeps its state in memory.)
                let strides = data[first..first + reach].chunks(across);
                for (w, (out, stride)) in out.iter_mut().zip(strides).enumerate() {
                    *out = convert.unit(w, [stride[0]; 4], 1);
                }
                beyond.copy_from_slice(&pad[lanes..]);
            }
        }
    }
    true
}

/// The lanes of a panel of `W`, of 32 bits: lane `w` has its kernel position `tap` of a channel at `first + w across + channel apart + taps[tap]`.
struct Lanes<'a, C: Convert, const W: usize> {
    convert: &'a C,
    data: &'a [C::Word],
    first: isize,
    across: usize,
    lanes: usize,
    /// Ascending.
    taps: &'a [usize],
    channels: usize,
    apart: isize,
}

impl<C: Convert, const W: usize> Lanes<'_, C, W> {
    /// `result[i][j]`: word `at + i` of lane `w + j`, converted; of lanes beyond the last the unit of padding. What is beyond the last word of all is of no account.
    #[inline(always)]
    fn square<S: Simd>(&self, s: S, w: usize, at: isize) -> [[C::Out; SQUARE]; SQUARE] {
        let first = self.first + at + (w * self.across) as isize;
        let there = first as usize + (SQUARE - 1) * self.across + SQUARE <= self.data.len();
        if w + SQUARE > self.lanes || !there {
            return self.last_square(w, first as usize);
        }
        let words = MatRef::spread(self.data, first, SQUARE, SQUARE, self.across);
        let mut square = [[padding(self.convert); SQUARE]; SQUARE];
        for (j, square) in square.iter_mut().enumerate() {
            *square = self.convert.along(s, w + j, words.row(j));
        }
        C::transpose(s, square)
    }

    /// A square at the end of the lanes or of the words, from word `first` on.
    #[cold]
    #[inline(never)]
    fn last_square<const N: usize>(&self, w: usize, first: usize) -> [[C::Out; N]; N] {
        let mut square = [[padding(self.convert); N]; N];
        for j in 0..N.min(self.lanes.saturating_sub(w)) {
            for (row, &word) in square.iter_mut().zip(&self.data[first + j * self.across..]) {
                row[j] = self.convert.unit(w + j, [word; 4], 1);
            }
        }
        square
    }

    /// As [`Lanes::square`], of 16 lanes and words.
    #[inline(always)]
    fn wide_square<S: Simd>(&self, s: S, w: usize, at: isize) -> [[f32; WIDE]; WIDE] {
        let first = self.first + at + (w * self.across) as isize;
        let there = first as usize + (WIDE - 1) * self.across + WIDE <= self.data.len();
        if w + WIDE > self.lanes || !there {
            return bytemuck::cast(self.last_square::<WIDE>(w, first as usize));
        }
        let words = MatRef::spread(self.data, first, WIDE, WIDE, self.across);
        let none = padding(self.convert);
        let mut square = [[[none; 8]; 2]; WIDE];
        let mut rows = [&[0f32; WIDE]; WIDE];
        if size_of::<C::Word>() == 4 {
            for (j, row) in rows.iter_mut().enumerate() {
                let words: &[C::Word; WIDE] = words.row(j).first_chunk().expect("a row of the square");
                *row = bytemuck::cast_ref(words);
            }
            return s.transpose_16x16(rows);
        }
        for (j, square) in square.iter_mut().enumerate() {
            for (half, words) in square.iter_mut().zip(words.row(j).as_chunks::<8>().0) {
                *half = self.convert.along(s, w + j, words);
            }
        }
        for (row, square) in rows.iter_mut().zip(&square) {
            *row = bytemuck::cast_ref(square);
        }
        s.transpose_16x16(rows)
    }

    /// 16 lanes that are one long run each, of 32-bit words, from lane `w` on.
    #[inline(always)]
    fn wide_runs<S: Simd>(&self, s: S, w: usize, panel: &mut [C::Out]) {
        let (taps, channels) = (self.taps.len(), self.channels);
        let len = taps * channels;
        let first = self.first + (w * self.across) as isize;
        let words = MatRef::spread(self.data, first, WIDE, len, self.across);
        let whole = len / WIDE * WIDE;
        // The last block may begin inside the one before.
        let last = if whole < len { len - WIDE..len } else { 0..0 };
        for part in [0..whole, last] {
            let mut tap = part.start % taps;
            let mut step = tap * channels + part.start / taps;
            for block in words.part(0..WIDE, part).chunks::<WIDE, WIDE>() {
                let mut rows = [&[0f32; WIDE]; WIDE];
                for (j, row) in rows.iter_mut().enumerate() {
                    let words = block.at(j);
                    let ahead = LINES_AHEAD * CACHE_LINE / size_of::<C::Word>();
                    prefetch_near(words.as_ptr().wrapping_add(ahead));
                    *row = bytemuck::cast_ref(words);
                }
                for row in &s.transpose_16x16(rows) {
                    let row: &[C::Out; WIDE] = bytemuck::cast_ref(row);
                    put::<_, W, WIDE>(panel, step, w, row);
                    let (next, back) = (step + channels, (taps - 1) * channels);
                    (tap, step) = if tap + 1 < taps { (tap + 1, next) } else { (0, step + 1 - back) };
                }
            }
        }
    }
}

/// The unit of padding.
#[inline(always)]
fn padding<C: Convert>(convert: &C) -> C::Out {
    convert.unit(0, [convert.pad(0); 4], 1)
}

/// Units to lanes from `w` on of a step of a panel of `W`.
#[inline(always)]
fn put<T: Copy, const W: usize, const N: usize>(panel: &mut [T], step: usize, w: usize, row: &[T; N]) {
    *panel[step * W + w..].first_chunk_mut().expect("a step of the panel") = *row;
}

/// Lanes whose channels lie one behind the other, kernel positions and all: each is one long run.
struct LongRuns<'a, C: Convert, const W: usize> {
    of: Lanes<'a, C, W>,
    panel: &'a mut [C::Out],
}

impl<S: Simd, C: Convert, const W: usize> WithToken<S> for LongRuns<'_, C, W> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let LongRuns { of, panel } = self;
        let (taps, len) = (of.taps.len(), of.taps.len() * of.channels);
        // Blocks of 16 x 16, where they are vectors: Zen 4, 512 to 512 channels 3 x 3 @7 76 and 80 % of the peak; by vectors of eight 70 and 61.
        let wide = size_of::<C::Word>() == 4 && const { <S as SimdLanes<f32>>::LANES == WIDE };
        let whole = if wide { of.lanes / WIDE * WIDE } else { 0 };
        for w in (0..whole).step_by(WIDE) {
            of.wide_runs::<S>(s, w, panel);
        }
        if whole == W {
            return;
        }
        for at in (0..len).step_by(STRETCH) {
            // The last stretch may begin inside the one before.
            let at = at.min(len - STRETCH);
            let (mut tap, mut channel) = (at % taps, at / taps);
            let mut to = [0; STRETCH];
            for to in &mut to {
                *to = tap * of.channels + channel;
                (tap, channel) = if tap + 1 < taps { (tap + 1, channel) } else { (0, channel + 1) };
            }
            // Two squares side by side: a line of the panel is written at once, for others that share its set come before the next.
            for w in (whole..W).step_by(2 * SQUARE) {
                let next = of.first + (at + LINES_AHEAD * CACHE_LINE / size_of::<C::Word>()) as isize;
                for lane in w..of.lanes.min(w + 2 * SQUARE) {
                    let next = next + (lane * of.across) as isize;
                    prefetch_near(of.data.as_ptr().wrapping_offset(next));
                }
                for (at, to) in (at..).step_by(SQUARE).zip(to.as_chunks::<SQUARE>().0) {
                    let left = of.square(s, w, at as isize);
                    let right = of.square(s, w + SQUARE, at as isize);
                    for (&to, (left, right)) in to.iter().zip(left.iter().zip(&right)) {
                        put::<_, W, SQUARE>(panel, to, w, left);
                        put::<_, W, SQUARE>(panel, to, w + SQUARE, right);
                    }
                }
            }
        }
    }
}

/// Lanes with a short run for each channel, of which some words may be left out.
struct ShortRuns<'a, C: Convert, const W: usize> {
    of: Lanes<'a, C, W>,
    panel: &'a mut [C::Out],
}

/// No kernel position.
const NONE: usize = usize::MAX;

impl<S: Simd, C: Convert, const W: usize> WithToken<S> for ShortRuns<'_, C, W> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let ShortRuns { of, panel } = self;
        // Squares of a channel: their first words, and the kernel position that each word is.
        let (mut squares, mut count) = ([(0, [NONE; WIDE]); MOST_TAPS], 0);
        for (tap, &offset) in of.taps.iter().enumerate() {
            if tap == 0 || offset - squares[count - 1].0 >= WIDE {
                squares[count].0 = offset;
                count += 1;
            }
            let (first, taps) = &mut squares[count - 1];
            taps[offset - *first] = tap;
        }
        for channel in 0..of.channels {
            let first = channel as isize * of.apart;
            for w in (0..W).step_by(WIDE) {
                // Those of the next channel, which may lie on a page of its own.
                let next = of.first + first + of.apart + (w * of.across) as isize;
                for word in (0..WIDE * of.across).step_by(CACHE_LINE / size_of::<C::Word>()) {
                    prefetch(of.data.as_ptr().wrapping_offset(next).wrapping_add(word));
                }
                for (offset, taps) in &squares[..count] {
                    let square = of.wide_square(s, w, first + *offset as isize);
                    // All of them, of which those that are none are skipped: rows then stay in registers.
                    for (&tap, row) in taps.iter().zip(&square) {
                        if tap != NONE {
                            let row: &[C::Out; WIDE] = bytemuck::cast_ref(row);
                            put::<_, W, WIDE>(panel, tap * of.channels + channel, w, row);
                        }
                    }
                }
            }
        }
    }
}

/// As [`interleaved`], for pairs of bf16 and several kernel positions, which lie side by side inside each channel: units are made of two channels, position by position, and squares of them transposed.
#[expect(clippy::too_many_arguments, reason = "one call, inlined")]
#[inline(always)]
pub(super) fn interleaved_pairs<S: Simd, C: Convert, const W: usize>(
    s: S,
    convert: &C,
    window: &Window,
    data: &[C::Word],
    x0: usize,
    lanes: usize,
    k: &Range<usize>,
    panel: &mut [C::Out],
) -> bool {
    let &[outer, inner] = window.k.dims() else { return false };
    let (x, taps, channels) = (window.x.cursor(x0), outer.extent, inner.extent);
    let whole = window.is_plain() && *k == (0..taps * channels) && window.x.run(&x) >= lanes;
    let pairs = C::K == 2 && size_of::<C::Word>() == 2 && W.is_multiple_of(WIDE);
    if !pairs || !whole || outer.stride != 1 || taps > WIDE || !channels.is_multiple_of(2) {
        return false;
    }
    let (first, across, apart) = (window.start + x.offset, window.x.inner().stride, inner.stride);
    let pad = convert.pad(0);
    for pair in 0..channels / 2 {
        for w in (0..W).step_by(WIDE) {
            let mut square = [[convert.unit(0, [pad; 4], 1); WIDE]; WIDE];
            for (j, units) in square.iter_mut().enumerate() {
                // Lanes beyond the last repeat it.
                let lane = (w + j).min(lanes - 1);
                let first = first + lane as isize * across + 2 * pair as isize * apart;
                let earlier = first_words::<_, WIDE>(&data[first as usize..], taps, pad);
                let later = first_words::<_, WIDE>(&data[(first + apart) as usize..], taps, pad);
                for (t, unit) in units.iter_mut().enumerate() {
                    *unit = convert.unit(lane, [earlier[t], later[t], pad, pad], 2);
                }
            }
            let units: &[f32] = bytemuck::cast_slice(square.as_flattened());
            let mut rows = [&[0f32; WIDE]; WIDE];
            for (row, units) in rows.iter_mut().zip(units.as_chunks().0) {
                *row = units;
            }
            let turned = s.transpose_16x16(rows);
            for (tap, turned) in turned[..taps].iter().enumerate() {
                let to = (tap * channels / 2 + pair) * W + w;
                let units: &[C::Out] = bytemuck::cast_slice(turned);
                panel[to..to + WIDE].copy_from_slice(units);
            }
        }
    }
    true
}
