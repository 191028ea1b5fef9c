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
use crate::simd::Simd;

use super::PANEL_WIDTH;
use super::convert::Convert;
use super::interleaved::{interleaved, interleaved_pairs};
use super::ways::{CopyRows, Gather, LINES_AHEAD, Turn, turn_ahead};
use crate::mat::CACHE_LINE;

/// Steps of k that are staged at a time: a multiple of every unit's.
const STAGE: usize = 32;

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

/// Packs lanes `x0..x0 + lanes` of `W` over `k` into `panel`, without its tail. If packing `goes_on` in these lanes, what follows in them is asked for.
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
    goes_on: bool,
    panel: &mut [C::Out],
) {
    if matrix::<S, C, W>(s, convert, window, data, x0, lanes, &k, goes_on, panel) {
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
    goes_on: bool,
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
            let ahead = turn_ahead::<C::Word>(W, across, k.len(), goes_on);
            s.apart(Turn { convert, rows: &rows, ahead, out: panel });
        }
        _ => return false,
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
            // What lies beyond a run is not known here.
            let ahead = (LINES_AHEAD * CACHE_LINE / size_of::<C::Word>()) as isize;
            s.apart(Turn { convert, rows: &rows, ahead, out });
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
