//! The three ways to bring lanes to a panel: side by side, turned, one by one. Each is a function of its own for every conversion, width and instruction set, whoever calls it.

use crate::axis::Lane;
use crate::mat::{CACHE_LINE, in_a_set};
use crate::simd::{Simd, WithToken, prefetch, prefetch_near};

use super::convert::Convert;

/// Steps of k that are asked for before they are copied: the processor does not foresee rows that lie far apart.
const AHEAD: isize = 24;

/// Lanes side by side: the words of the first `lanes` of `W` at each step of k, from `first` on.
pub(super) struct CopyRows<'a, C: Convert, const W: usize> {
    pub(super) convert: &'a C,
    pub(super) data: &'a [C::Word],
    pub(super) first: isize,
    pub(super) stride: isize,
    pub(super) lanes: usize,
    pub(super) len: usize,
    pub(super) out: &'a mut [C::Out],
}

impl<S: Simd, C: Convert, const W: usize> WithToken<S> for CopyRows<'_, C, W> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        // Of whole panels the number of lanes is a constant.
        if self.lanes == W {
            self.copy(s, W)
        } else {
            let lanes = self.lanes;
            self.copy(s, lanes)
        }
    }
}

impl<C: Convert, const W: usize> CopyRows<'_, C, W> {
    #[inline(always)]
    fn copy<S: Simd>(self, s: S, lanes: usize) {
        let CopyRows { convert, data, first, stride, len, out, .. } = self;
        let whole = len / C::K;
        let (units, last) = out.split_at_mut(whole * W);
        let mut padding = [convert.unit(0, [convert.pad(0); 4], C::K); W];
        for (w, unit) in padding.iter_mut().enumerate().skip(lanes) {
            *unit = convert.unit(w, [convert.pad(w); 4], C::K);
        }
        for (u, out) in units.chunks_exact_mut(W).enumerate() {
            let mut rows = [step_of(data, first, stride, u * C::K, lanes); 4];
            for (j, to) in rows[..C::K].iter_mut().enumerate() {
                *to = step_of(data, first, stride, u * C::K + j, lanes);
                let ahead = to.as_ptr().wrapping_offset(AHEAD * stride);
                for line in (0..lanes * size_of::<C::Word>()).step_by(CACHE_LINE) {
                    prefetch(ahead.cast::<u8>().wrapping_add(line));
                }
                prefetch(ahead.wrapping_add(lanes - 1));
            }
            let (out, beyond) = out.split_at_mut(lanes);
            convert.beside(s, rows, out);
            beyond.copy_from_slice(&padding[lanes..]);
        }
        let here = len - whole * C::K;
        if here > 0 {
            let mut nothing = [convert.pad(0); W];
            for (w, nothing) in nothing.iter_mut().enumerate() {
                *nothing = convert.nothing(w);
            }
            let mut rows = [&nothing[..lanes]; 4];
            for (j, row) in rows[..here].iter_mut().enumerate() {
                *row = step_of(data, first, stride, whole * C::K + j, lanes);
            }
            let (out, beyond) = last.split_at_mut(lanes);
            convert.beside(s, rows, out);
            for (w, out) in (lanes..).zip(beyond) {
                *out = convert.unit(w, [convert.pad(w); 4], here);
            }
        }
    }
}

/// The lanes at a step of k. A function and not a closure: it is always inlined.
#[inline(always)]
fn step_of<T>(data: &[T], first: isize, stride: isize, step: usize, lanes: usize) -> &[T] {
    let first = (first + step as isize * stride) as usize;
    &data[first..first + lanes]
}

/// Cache lines of a row that are asked for before they are read.
pub(super) const LINES_AHEAD: usize = 6;

/// Bytes of the rows of a panel up to which each step asks for its place in the next panel instead, unless all rows share a set of the first-level cache: of such the lines of two panels share too few of the second, too. Zen 4, percent of the peak, 6 lines and a panel ahead: 64 x 2560 x 2560 nt 66 and 75, 16 x 8448 x 2816 nt
/// 40 and 46; 16 x 3072 x 1024 nt, a page apart, 46 and 41, 32 x 4096 x 4096 nt 54 and 52.
const PANEL_BYTES: usize = 128 * 1024;

/// Words from a place in one of `lanes` rows, `apart` from each other, to what is asked for there while `len` of each are turned. If packing
/// `goes_on` in these lanes, that is what follows in them.
#[inline(always)]
pub(super) fn turn_ahead<T>(lanes: usize, apart: isize, len: usize, goes_on: bool) -> isize {
    let near = lanes * len * size_of::<T>() <= PANEL_BYTES;
    if near && goes_on {
        len as isize
    } else if near && in_a_set(apart.unsigned_abs().wrapping_mul(size_of::<T>()), lanes) < lanes {
        apart.wrapping_mul(lanes as isize)
    } else {
        (LINES_AHEAD * CACHE_LINE / size_of::<T>()) as isize
    }
}

/// `out[u][w] = unit(rows[w][u K..])`, in blocks of 8 by 8 units that stay in registers.
pub(super) struct Turn<'a, C: Convert, const W: usize> {
    pub(super) convert: &'a C,
    pub(super) rows: &'a [&'a [C::Word]; W],
    /// Words from a place in a row to what is asked for there.
    pub(super) ahead: isize,
    pub(super) out: &'a mut [C::Out],
}

impl<S: Simd, C: Convert, const W: usize> WithToken<S> for Turn<'_, C, W> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Turn { convert, rows, ahead, out } = self;
        let len = rows[0].len();
        let units = len / C::K;
        let whole = units - units % 8;
        let pad = convert.unit(0, [convert.pad(0); 4], 1);
        // A cache line of each row at a time: rows a power of two apart share a few sets of the first-level cache, which would lose a line between two visits.
        let line = (CACHE_LINE / size_of::<C::Word>() / C::K).max(8);
        for first in (0..whole).step_by(line) {
            for w in (0..W).step_by(8) {
                let lanes = (W - w).min(8);
                for row in &rows[w..w + lanes] {
                    prefetch_near(row.as_ptr().wrapping_add(first * C::K).wrapping_offset(ahead));
                }
                // Of each row what the blocks of this line need, looked up once.
                let end = whole.min(first + line);
                let mut here = [&rows[0][..0]; 8];
                for (here, row) in here.iter_mut().zip(&rows[w..w + lanes]) {
                    *here = &row[first * C::K..end * C::K];
                }
                for t in (first..end).step_by(8) {
                    let mut block = [[pad; 8]; 8];
                    let at = (t - first) * C::K;
                    for (j, (block, row)) in block.iter_mut().zip(&here[..lanes]).enumerate() {
                        *block = convert.along(s, w + j, &row[at..at + 8 * C::K]);
                    }
                    let block = C::transpose(s, block);
                    let out = &mut out[t * W + w..];
                    if lanes == 8 || (W < 8 && out.len() >= 7 * W + 8) {
                        // Narrow panels: what a whole store writes past its row is overwritten by the next row.
                        for (step, block) in block.iter().enumerate() {
                            out[step * W..step * W + 8].copy_from_slice(block);
                        }
                    } else {
                        for (step, block) in block.iter().enumerate() {
                            out[step * W..step * W + lanes].copy_from_slice(&block[..lanes]);
                        }
                    }
                }
            }
        }
        for u in whole..len.div_ceil(C::K) {
            let here = C::K.min(len - u * C::K);
            for w in 0..W {
                let words = std::array::from_fn(|k| rows[w][u * C::K + k.min(here - 1)]);
                out[u * W + w] = convert.unit(w, words, here);
            }
        }
    }
}

/// Any lanes, one place of k a unit: padding first, then each group of lanes that lie side by side with one interval.
pub(super) struct Gather<'a, C: Convert, const W: usize> {
    pub(super) convert: &'a C,
    pub(super) data: &'a [C::Word],
    pub(super) lane: &'a [Lane],
    pub(super) valid: &'a [(usize, usize)],
    pub(super) offset: isize,
    pub(super) stride: isize,
    pub(super) out: &'a mut [C::Out],
}

impl<S: Simd, C: Convert, const W: usize> WithToken<S> for Gather<'_, C, W> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Gather { convert, data, lane, valid, offset, stride, out } = self;
        let pad: [C::Out; W] = std::array::from_fn(|w| convert.unit(w, [convert.pad(w); 4], 1));
        for out in out.chunks_exact_mut(W) {
            out.copy_from_slice(&pad);
        }
        let mut w = 0;
        while w < lane.len() {
            let mut end = w + 1;
            while end < lane.len()
                && lane[end].offset == lane[w].offset + (end - w) as isize
                && valid[end] == valid[w]
            {
                end += 1;
            }
            let base = lane[w].offset + offset;
            for t in valid[w].0..valid[w].1 {
                let first = (base + t as isize * stride) as usize;
                let out = &mut out[t * W + w..t * W + end];
                match out {
                    [out] => *out = convert.unit(w, [data[first]; 4], 1),
                    out => convert.few(s, w, &data[first..first + (end - w)], out),
                }
            }
            w = end;
        }
    }
}
