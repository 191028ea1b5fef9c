//! One panel. Along k the packer walks runs of the innermost k dim. Within a run each lane is valid on one interval (coordinates are affine), and
//! each lane is copied by the best of three ways (`ways.rs`):
//!
//! 1. lanes side by side in memory (a row-major rhs, channels-last activations): copy lanes together, k by k;
//! 2. k side by side in memory (a row-major lhs, channels-last weights): transpose;
//! 3. neither: gather, lane by lane.
//!
//! Units of several places of k take the first two ways where one run is all there is. Elsewhere a unit may lie across runs: the words are brought
//! to a stage first, a few steps of k at a time, and put together from there.

use std::ops::Range;

use bytemuck::Pod;

use crate::axis::{COORDS, Cursor, Lane, Window};
use crate::mat::CACHE_LINE;
use crate::simd::{Simd, prefetch_near};

use super::PANEL_WIDTH;
use super::convert::Convert;
use super::ways::{CopyRows, Gather, LINES_AHEAD, Turn};

/// Steps of k that are staged at a time: a multiple of every unit's.
const STAGE: usize = 32;

/// Steps that are transposed at a time where lanes are long runs: a cache line of f32 of each lane, which may be gone when its next half is asked for, for runs a multiple of a page apart share
/// few sets of the first-level cache.
const STRETCH: usize = 16;

/// Channels that are gone through before the next kernel position.
const SOME_CHANNELS: usize = 16;

/// Kernel positions of a channel that are turned together.
const MOST_TAPS: usize = 27;

/// The words of an operand as they are, padded lane by lane.
#[derive(Clone, Copy)]
struct Stage<'a, T>(&'a [T; PANEL_WIDTH]);

impl<T: Pod> Convert for Stage<'_, T> {
    type Word = T;
    type Out = T;
    const K: usize = 1;
    #[inline(always)]
    fn pad(&self, w: usize) -> T {
        self.0[w]
    }
    #[inline(always)]
    fn unit(&self, _: usize, words: [T; 4], _: usize) -> T {
        words[0]
    }
    #[inline(always)]
    fn transpose<S: Simd>(_: S, block: [[T; 8]; 8]) -> [[T; 8]; 8] {
        crate::simd::transpose_scalar(block)
    }
}

/// Packs lanes `x0..x0 + lanes` of `W` over `k` into `panel`, without its tail.
#[expect(clippy::too_many_arguments, reason = "one call, inlined")]
#[inline(always)]
pub(super) fn pack_panel<S: Simd, C: Convert, const W: usize>(
    s: S,
    convert: &C,
    window: &Window,
    data: &[C::Word],
    x0: usize,
    lanes: usize,
    k: Range<usize>,
    panel: &mut [C::Out],
) {
    if matrix::<S, C, W>(s, convert, window, data, x0, lanes, &k, panel) {
        return;
    }
    if interleaved::<S, C, W>(s, convert, window, data, x0, lanes, &k, panel)
        || interleaved_pairs::<S, C, W>(s, convert, window, data, x0, lanes, &k, panel)
    {
        return;
    }
    let mut lane = [Lane::default(); W];
    window.lanes(x0, lanes, |w, this| lane[w] = this);
    let at = window.k.cursor(k.start);
    let one_run = window.is_plain() && lanes == W && window.k.run(&at) >= k.len();
    if C::K == 1 || (one_run && (window.k.inner().stride == 1 || side_by_side(&lane))) {
        walk::<S, C, W>(s, convert, window, data, &lane[..lanes], k, panel);
        return;
    }
    let pads = std::array::from_fn(|w| convert.pad(w));
    let mut words = [[convert.pad(0); W]; STAGE];
    let words = words.as_flattened_mut();
    for (first, panel) in k.clone().step_by(STAGE).zip(panel.chunks_mut(STAGE / C::K * W)) {
        let now = first..k.end.min(first + STAGE);
        let len = now.len();
        walk::<S, Stage<'_, C::Word>, W>(
            s,
            &Stage(&pads),
            window,
            data,
            &lane[..lanes],
            now,
            &mut words[..len * W],
        );
        for (u, out) in panel.chunks_exact_mut(W).enumerate() {
            let here = C::K.min(len - u * C::K);
            // Places of k beyond the last repeat it; `unit` takes the first `here`.
            let rows = std::array::from_fn(|j| &words[(u * C::K + j.min(here - 1)) * W..][..W]);
            if here == C::K {
                convert.beside(s, rows, out);
            } else {
                for (w, out) in out.iter_mut().enumerate() {
                    *out = convert.unit(w, rows.map(|row| row[w]), here);
                }
            }
        }
    }
}

/// The panel of a plain matrix, if it is one whose rows or columns lie side by side: no lane is looked up, which small products notice.
#[expect(clippy::too_many_arguments, reason = "one call, inlined")]
#[inline(always)]
fn matrix<S: Simd, C: Convert, const W: usize>(
    s: S,
    convert: &C,
    window: &Window,
    data: &[C::Word],
    x0: usize,
    lanes: usize,
    k: &Range<usize>,
    panel: &mut [C::Out],
) -> bool {
    let (x, at) = (window.x.cursor(x0), window.k.cursor(k.start));
    if !window.is_plain() || window.x.run(&x) < lanes || window.k.run(&at) < k.len() {
        return false;
    }
    let first = window.start + x.offset + at.offset;
    let (across, down) = (window.x.inner().stride, window.k.inner().stride);
    match (across, down) {
        (1, _) => {
            let (stride, len) = (down, k.len());
            s.apart(CopyRows::<C, W> { convert, data, first, stride, lanes, len, out: panel });
        }
        (_, 1) => {
            // Lanes beyond the last repeat it: nobody reads what is multiplied by them.
            let rows: [&[C::Word]; W] = std::array::from_fn(|w| {
                let first = (first + w.min(lanes - 1) as isize * across) as usize;
                &data[first..first + k.len()]
            });
            s.apart(Turn { convert, rows: &rows, out: panel });
        }
        _ => return false,
    }
    true
}

/// As [`interleaved`], for pairs of bf16 and several kernel positions, which lie side by side inside each channel: units are made of two channels, position by position, and squares of them transposed.
#[expect(clippy::too_many_arguments, reason = "one call, inlined")]
#[inline(always)]
fn interleaved_pairs<S: Simd, C: Convert, const W: usize>(
    s: S,
    convert: &C,
    window: &Window,
    data: &[C::Word],
    x0: usize,
    lanes: usize,
    k: &Range<usize>,
    panel: &mut [C::Out],
) -> bool {
    const SQUARE: usize = 16;
    let &[outer, inner] = window.k.dims() else { return false };
    let (x, taps, channels) = (window.x.cursor(x0), outer.extent, inner.extent);
    let whole = window.is_plain() && *k == (0..taps * channels) && window.x.run(&x) >= lanes;
    let pairs = C::K == 2 && size_of::<C::Word>() == 2 && W.is_multiple_of(SQUARE);
    if !pairs || !whole || outer.stride != 1 || taps > SQUARE || !channels.is_multiple_of(2) {
        return false;
    }
    let (first, across, apart) = (window.start + x.offset, window.x.inner().stride, inner.stride);
    let pad = convert.pad(0);
    for pair in 0..channels / 2 {
        for w in (0..W).step_by(SQUARE) {
            let mut square = [[convert.unit(0, [pad; 4], 1); SQUARE]; SQUARE];
            for (j, units) in square.iter_mut().enumerate() {
                // Lanes beyond the last repeat it.
                let lane = (w + j).min(lanes - 1);
                let first = first + lane as isize * across + 2 * pair as isize * apart;
                let earlier = first_words::<_, SQUARE>(&data[first as usize..], taps, pad);
                let later = first_words::<_, SQUARE>(&data[(first + apart) as usize..], taps, pad);
                for (t, unit) in units.iter_mut().enumerate() {
                    *unit = convert.unit(lane, [earlier[t], later[t], pad, pad], 2);
                }
            }
            let units: &[f32] = bytemuck::cast_slice(square.as_flattened());
            let mut rows = [&[0f32; SQUARE]; SQUARE];
            for (row, units) in rows.iter_mut().zip(units.as_chunks().0) {
                *row = units;
            }
            let turned = s.transpose_16x16(rows);
            for (tap, turned) in turned[..taps].iter().enumerate() {
                let to = (tap * channels / 2 + pair) * W + w;
                let units: &[C::Out] = bytemuck::cast_slice(turned);
                panel[to..to + SQUARE].copy_from_slice(units);
            }
        }
    }
    true
}

/// The first `len` of `N` words; what comes behind them does not matter.
#[inline(always)]
pub(super) fn first_words<T: Copy, const N: usize>(words: &[T], len: usize, pad: T) -> [T; N] {
    if let Some(words) = words.first_chunk() {
        return *words;
    }
    let mut some = [pad; N];
    some[..len].copy_from_slice(&words[..len]);
    some
}

/// All of k of a plain operand in which the inner dim of k takes long steps and those outside it, if there are any, short ones, such as weights whose kernel positions lie inside their
/// channels, or one such position of all channels: it is read in the order of memory, for run by run each cache line would come again for every kernel position.
#[expect(clippy::too_many_arguments, reason = "one call, inlined")]
#[inline(always)]
fn interleaved<S: Simd, C: Convert, const W: usize>(
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
    let side_by_side = matches!(outer, [dim] if dim.stride == 1);
    let mut from = 0;
    // Wide panels of 32 bits are most of the work; every way is compiled for every width and format.
    let wide = lanes == W && W.is_multiple_of(16) && size_of::<C::Out>() == 4;
    if wide && side_by_side && inner.stride == taps as isize {
        // Lanes are long runs: squares of them are transposed, each step then goes to its row.
        let rows: [&[C::Word]; W] = std::array::from_fn(|w| {
            let first = (first + w as isize * across) as usize;
            &data[first..first + k.len()]
        });
        from = k.len() / STRETCH * STRETCH;
        let (mut tap, mut channel) = (0, 0);
        for t in (0..from).step_by(STRETCH) {
            let mut to = [0; STRETCH];
            for to in &mut to {
                *to = (tap * channels + channel) * W;
                (tap, channel) = if tap + 1 < taps { (tap + 1, channel) } else { (0, channel + 1) };
            }
            for w in (0..W).step_by(8) {
                let lanes = (W - w).min(8);
                for row in &rows[w..w + lanes] {
                    prefetch_near(
                        row.as_ptr().wrapping_add(t + LINES_AHEAD * CACHE_LINE / size_of::<C::Word>()),
                    );
                }
                for (t, to) in (t..t + STRETCH).step_by(8).zip(to.as_chunks::<8>().0) {
                    let mut block = [[convert.unit(0, [convert.pad(0); 4], 1); 8]; 8];
                    for (j, (block, row)) in block.iter_mut().zip(&rows[w..w + lanes]).enumerate() {
                        *block = convert.along(s, w + j, &row[t..t + 8]);
                    }
                    for (to, block) in to.iter().zip(C::transpose(s, block)) {
                        let out = &mut panel[to + w..to + w + lanes];
                        match out.first_chunk_mut::<8>() {
                            Some(out) => *out = block,
                            None => out.copy_from_slice(&block[..lanes]),
                        }
                    }
                }
            }
        }
    }
    let reach = (lanes - 1) * across as usize + 1;
    if wide && side_by_side && taps <= MOST_TAPS && from == 0 {
        // Lanes have short runs, one for each channel: turned as a whole, row by row to its place.
        let mut turned = [[convert.unit(0, [convert.pad(0); 4], 1); W]; MOST_TAPS];
        for channel in 0..channels {
            let first = (first + channel as isize * inner.stride) as usize;
            let runs = &data[first..first + reach + taps - 1];
            let rows: [&[C::Word]; W] = std::array::from_fn(|w| &runs[w * across as usize..][..taps]);
            s.apart(Turn { convert, rows: &rows, out: turned[..taps].as_flattened_mut() });
            for (tap, turned) in turned[..taps].iter().enumerate() {
                panel[(tap * channels + channel) * W..][..W].copy_from_slice(turned);
            }
        }
        return true;
    }
    let pad: [C::Out; W] = std::array::from_fn(|w| convert.unit(w, [convert.pad(w); 4], 1));
    // A few channels at a time, whose lines stay near until their last kernel position.
    for some in (from / taps..channels).step_by(SOME_CHANNELS) {
        for tap in 0..taps {
            let first = first + window.k.offset(tap * channels);
            for channel in some..channels.min(some + SOME_CHANNELS) {
                let first = (first + channel as isize * inner.stride) as usize;
                let (out, beyond) = panel[(tap * channels + channel) * W..][..W].split_at_mut(lanes);
                // Of each stride the first word. (`step_by` keeps its state in memory.)
                let strides = data[first..first + reach].chunks(across as usize);
                for (w, (out, stride)) in out.iter_mut().zip(strides).enumerate() {
                    *out = convert.unit(w, [stride[0]; 4], 1);
                }
                beyond.copy_from_slice(&pad[lanes..]);
            }
        }
    }
    true
}

#[inline(always)]
fn side_by_side(lane: &[Lane]) -> bool {
    (1..lane.len()).all(|w| lane[w].offset == lane[0].offset + w as isize)
}

/// Run by run. Units of several places of k need `k` to be one run that is valid in every lane.
#[inline(always)]
fn walk<S: Simd, C: Convert, const W: usize>(
    s: S,
    convert: &C,
    window: &Window,
    data: &[C::Word],
    lane: &[Lane],
    k: Range<usize>,
    panel: &mut [C::Out],
) {
    let lanes = lane.len();
    let side_by_side = side_by_side(lane);
    let inner = window.k.inner();
    let mut at = window.k.cursor(k.start);
    let mut done = 0;
    while done < k.len() {
        let len = window.k.run(&at).min(k.len() - done);
        let out = &mut panel[done / C::K * W..(done + len).div_ceil(C::K) * W];
        let mut valid = [(0usize, 0usize); W];
        let mut all = lanes == W;
        for w in 0..lanes {
            // Channels of a kernel position are valid together, and the interval costs divisions.
            valid[w] = if w > 0 && lane[w].coords == lane[w - 1].coords {
                valid[w - 1]
            } else {
                valid_interval(window, &lane[w], &at, len)
            };
            all &= valid[w] == (0, len);
        }
        // Each way reads `data` by checked slices; a run never leaves the operand where its interval is valid. Where every lane is inside, rows are whole; what is left on both sides goes lane
        // by lane.
        let (mut low, mut high) = (0, len);
        for &(first, end) in &valid[..lanes] {
            (low, high) = (low.max(first), high.min(end));
        }
        let copies = side_by_side && lanes == W;
        let turns = inner.stride == 1 && lanes == W && (all || high >= low + 8);
        if low >= high || !(copies || turns) || (C::K > 1 && !all) {
            (low, high) = (len, len);
        }
        let sides = [0..low, high..len];
        for steps in sides.into_iter().filter(|steps| !steps.is_empty()) {
            let mut part = [(0usize, 0usize); W];
            for (part, &(first, end)) in part.iter_mut().zip(&valid[..lanes]) {
                let inside = first.max(steps.start)..end.min(steps.end);
                *part = if inside.is_empty() {
                    (0, 0)
                } else {
                    (inside.start - steps.start, inside.end - steps.start)
                };
            }
            let offset = at.offset + steps.start as isize * inner.stride;
            let out = &mut out[steps.start / C::K * W..steps.end.div_ceil(C::K) * W];
            s.apart(Gather::<C, W> {
                convert,
                data,
                lane,
                valid: &part[..lanes],
                offset,
                stride: inner.stride,
                out,
            });
        }
        let out = &mut out[low / C::K * W..high.div_ceil(C::K) * W];
        if low < high && copies {
            let first = lane[0].offset + at.offset + low as isize * inner.stride;
            let (stride, len) = (inner.stride, high - low);
            s.apart(CopyRows::<C, W> { convert, data, first, stride, lanes, len, out });
        } else if low < high {
            let rows: [&[C::Word]; W] = std::array::from_fn(|w| {
                let first = (lane[w].offset + at.offset + low as isize) as usize;
                &data[first..first + (high - low)]
            });
            s.apart(Turn { convert, rows: &rows, out });
        }
        window.k.advance(&mut at, len);
        done += len;
    }
}

/// The steps `t` of a run at which a lane is inside the operand.
#[inline(always)]
pub(super) fn valid_interval(window: &Window, lane: &Lane, at: &Cursor, len: usize) -> (usize, usize) {
    if window.is_plain() {
        return (0, len);
    }
    let inner = window.k.inner();
    let (mut low, mut high) = (0isize, len as isize);
    for d in 0..COORDS {
        let coord = lane.coords[d] + at.coords[d];
        let bound = window.bounds[d];
        if inner.along == d && inner.step != 0 {
            // 0 <= coord + t step < bound
            let (first, last) =
                if inner.step > 0 { (-coord, bound - coord) } else { (coord - bound + 1, coord + 1) };
            let step = inner.step.abs();
            let ceil = |a: isize| a.div_euclid(step) + isize::from(a.rem_euclid(step) != 0);
            low = low.max(ceil(first));
            high = high.min(ceil(last));
        } else if coord < 0 || coord >= bound {
            return (0, 0);
        }
    }
    if low < high { (low as usize, high as usize) } else { (0, 0) }
}
