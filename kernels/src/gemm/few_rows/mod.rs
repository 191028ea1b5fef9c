//! Products of a few rows: a vector, or a handful, times a matrix whose rows lie side by side. Nothing is reused but the rows themselves, so all that counts is to
//! read the rhs as it lies in memory, once.
//!
//! ```text
//! near (an rhs that lies in a cache):                       streamed (one that comes from memory):
//!   for each strip of V vectors of columns                    for each block of columns
//!     for each segment of k                                     for each segment of k
//!       acc[0..M][0..V] = +0.0                                    for each R steps of k
//!       for each k:                                                 for each strip of V vectors of columns
//!         acc[i][..] = fma(a[i][k], b[k][..], acc[i][..])             acc[0..M][0..V] = s[strip], +0.0 in the first chunk
//!       dst = acc + 0.0, or dst += acc + 0.0                          acc[i][..] = fma(a[i][k], b[k][..], acc[i][..]), R times
//!                                                                     s[strip] = acc
//!                                                                 dst = s + 0.0, or dst += s + 0.0
//! ```
//!
//! The first form keeps sums in registers over a segment, but touches as many pages as k has steps before it moves on to the right. The second reads R rows
//! from left to right, which the processor foresees if they are few; its sums stay in a first- or second-level cache. With vectors of less than 64 bytes, and 16 registers, it is faster from the second-level cache on.

mod narrow;
mod near;
mod sums;
mod wide;

use bytemuck::Zeroable;

use crate::KC;
use crate::mat::{Band, CacheLevel, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, prefetch, prefetch_near};

use super::Write;
pub(super) use near::{has_strips, near};
pub(super) use sums::finish;

/// Most rows of the second form: 16 x 4096 x 4096 49 % of the peak, by tiles 42; 32 rows 56 and 62.
pub(super) const FEW_ROWS_STREAMED: usize = 16;

/// Bytes of sums of a block of columns: the longer the rows that are read, the nearer to the bandwidth of memory.
const SUMS_BYTES: usize = 256 * 1024;
/// Columns of a block are a multiple of these, which every strip divides.
const BLOCK_GRAIN: usize = 384;

/// Elements of scratch that the second form takes: for a segment of the lhs, and for the sums of a block.
pub(super) fn streamed_elements([m, n, k]: [usize; 3], bytes: usize) -> usize {
    m * (k.min(KC) + streamed_columns([m, n], bytes))
}

/// Columns of a block of the second form, of at most `n` columns.
fn streamed_columns([m, n]: [usize; 2], bytes: usize) -> usize {
    let most = (SUMS_BYTES / (m.max(1) * bytes) / BLOCK_GRAIN * BLOCK_GRAIN).max(BLOCK_GRAIN);
    // Blocks as long as each other: rows of a short last one would end before they are foreseen.
    n.div_ceil(n.div_ceil(most).max(1)).next_multiple_of(BLOCK_GRAIN)
}

/// `dst = lhs rhs` or `dst += lhs rhs` for up to [`FEW_ROWS_STREAMED`] rows; `scratch` has room for [`streamed_elements`].
#[inline(always)]
pub(super) fn streamed<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    add: bool,
    from_memory: bool,
    scratch: &mut [T],
) {
    let (m, n, k) = (dst.m(), rhs.cols(), rhs.rows());
    let (copy, sums) = scratch.split_at_mut(m * k.min(KC));
    let block = (sums.len() / m / BLOCK_GRAIN * BLOCK_GRAIN).max(1);
    for j in (0..n).step_by(block) {
        let cols = j..n.min(j + block);
        for first in (0..k).step_by(KC) {
            let segment = first..k.min(first + KC);
            let (a, b) = (lhs.part(0..m, segment.clone()), rhs.part(segment, cols.clone()));
            let write = if first > 0 || add { Write::Add } else { Write::Replace };
            let mut dst = dst.part(0..m, cols.clone());
            if const { is_wide::<T, S>() } {
                wide::segment(s, a, b, &mut dst, write, n.min(block), sums);
            } else {
                narrow::segment(s, a, b, &mut dst, write, from_memory, [copy, sums]);
            }
        }
    }
}

/// How far ahead is asked for what comes: from each place, into which cache; and rows that follow, into the first.
#[derive(Clone, Copy)]
struct Asking {
    bytes: isize,
    into: CacheLevel,
    rows: usize,
}

impl Asking {
    const NOTHING: Asking = Asking { bytes: 0, into: CacheLevel::First, rows: 0 };
}

/// Whether a vector has 64 bytes: there are then twice as many registers too. Known when compiling: no processor gets the strips of another.
const fn is_wide<T, S: Lanes<T>>() -> bool {
    S::LANES * size_of::<T>() == 64
}

/// Goes through `$cols` columns by strips of each of so many vectors of `$lanes` columns in turn, the widest first, and at last by a part of one: `$strip!` of the vectors,
/// whether the last is a part, the columns from and to, and `$args`.
macro_rules! strips {
    ($lanes:expr, $cols:expr, $strip:ident, [$($v:literal)*], $args:tt) => {{
        let mut from = 0;
        $(
            let width = $v * $lanes;
            while $cols - from >= width {
                $strip!($v, false, from, from + width, $args);
                from += width;
            }
        )*
        if from < $cols {
            $strip!(1, true, from, $cols, $args);
        }
    }};
}
pub(super) use strips;

/// `acc` and the products of all steps of a strip; `MASKED`: its only vector is a part of one; `AHEAD`: asks for what follows in each row; `ASKS`: for rows that follow. By value: sums
/// behind a reference would go through memory with every step.
#[inline(always)]
fn accumulate<
    T: Zeroable + Copy,
    S: FloatLanes<T>,
    const M: usize,
    const V: usize,
    const MASKED: bool,
    const AHEAD: bool,
    const ASKS: bool,
>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    mut acc: [[S::V; V]; M],
    asking: Asking,
) -> [[S::V; V]; M] {
    let last = rhs.cols() - (V - 1) * S::LANES;
    let mut rows = rhs.down();
    let mut columns = lhs.across::<M, false>();
    while let (Some(row), Some(column)) = (rows.next(), columns.next()) {
        if ASKS {
            for v in 0..V {
                rows.prefetch(asking.rows, v * S::LANES);
            }
        }
        let row = &row[..(V - 1) * S::LANES + if MASKED { last } else { S::LANES }];
        // What is fewer stays in registers over a step: the vectors of the row, or the elements of the column.
        if M <= 4 {
            let mut a = [s.splat(T::zeroed()); M];
            for (i, a) in a.iter_mut().enumerate() {
                *a = s.splat(column.at(i));
            }
            for v in 0..V {
                let b = vector::<T, S, MASKED, AHEAD>(s, row, v, last, asking);
                for (acc, &a) in acc.iter_mut().zip(&a) {
                    acc[v] = s.mul_add(a, b, acc[v]);
                }
            }
        } else {
            let mut b = [s.splat(T::zeroed()); V];
            for (v, b) in b.iter_mut().enumerate() {
                *b = vector::<T, S, MASKED, AHEAD>(s, row, v, last, asking);
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = s.splat(column.at(i));
                for (acc, &b) in acc.iter_mut().zip(&b) {
                    *acc = s.mul_add(a, b, *acc);
                }
            }
        }
    }
    acc
}

/// Vector `v` of a row, or the `last` elements of one.
#[inline(always)]
fn vector<T, S: Lanes<T>, const MASKED: bool, const AHEAD: bool>(
    s: S,
    row: &[T],
    v: usize,
    last: usize,
    asking: Asking,
) -> S::V {
    let row = &row[v * S::LANES..];
    if AHEAD {
        let at = row.as_ptr().wrapping_byte_offset(asking.bytes);
        match asking.into {
            CacheLevel::First => prefetch(at),
            CacheLevel::Second => prefetch_near(at),
        }
    }
    if MASKED { s.load_first_n(row, last) } else { s.load(row) }
}

#[cfg(test)]
mod tests {
    use crate::axis::Axis;
    use crate::isa::Isa;
    use crate::mat::{MatMut, MatRef, MatSpec, Places};
    use crate::simd::{Simd, WithSimd};

    use super::*;

    /// One run of either form, over an rhs with a gap between its rows, by a lhs whose rows lie side by side or whose columns do.
    struct Run<'a> {
        shape: [usize; 3],
        operands: [&'a [f32]; 2],
        out: &'a mut [f32],
        streamed: bool,
        add: bool,
        turned: bool,
    }

    impl WithSimd for Run<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let Run { shape: [m, n, k], operands: [a, b], out, streamed: streams, add, turned } = self;
            let lhs =
                if turned { MatRef::row_major(a, k, m).transposed() } else { MatRef::row_major(a, m, k) };
            let rhs = MatRef::row_major(b, k, n + 3).part(0..k, 1..n + 1);
            let axis = |extent, stride| Axis::strided(extent, stride);
            let spec = MatSpec { start: 0, batch: axis(1, 0), rows: axis(m, n as isize), cols: axis(n, 1) };
            let places = Places::new(spec);
            let mut dst = MatMut::new(out, 0, &places).unwrap();
            let mut band = dst.band(0, 0..m, 0..n);
            if streams {
                let mut sums = vec![f32::NAN; streamed_elements([m, n, k], 4)];
                streamed(s, lhs, rhs, &mut band, add, true, &mut sums);
            } else if has_strips::<f32, S>(m) {
                near(s, lhs, rhs, &mut band, add);
            } else {
                // Blocks narrower than the rhs.
                streamed(
                    s,
                    lhs,
                    rhs,
                    &mut band,
                    add,
                    false,
                    &mut vec![f32::NAN; m * (k.min(KC) + BLOCK_GRAIN)],
                );
            }
        }
    }

    #[test]
    fn both_forms_are_the_scalar_sums() {
        for isa in Isa::available() {
            for m in 1..=FEW_ROWS_STREAMED {
                for (n, k) in [(1, 3), (70, 17), (403, KC + 21), (800, 30)] {
                    let value = |i: usize| ((i * 7919) % 1009) as f32 / 331.0 - 1.5;
                    let a: Vec<f32> = (0..m * k).map(value).collect();
                    let b: Vec<f32> = (0..k * (n + 3)).map(value).collect();
                    for (add, turned) in [(false, false), (true, false), (false, true)] {
                        let mut want = vec![0.75f32; m * n];
                        for (at, want) in want.iter_mut().enumerate() {
                            let (i, j) = (at / n, at % n);
                            for first in (0..k).step_by(KC) {
                                let sum = (first..k.min(first + KC)).fold(0.0f32, |sum, step| {
                                    a[if turned { step * m + i } else { i * k + step }]
                                        .mul_add(b[step * (n + 3) + j + 1], sum)
                                }) + 0.0;
                                *want = if first > 0 || add { *want + sum } else { sum };
                            }
                        }
                        for streamed in [false, true] {
                            let mut out = vec![0.75f32; m * n];
                            isa.dispatch(Run {
                                shape: [m, n, k],
                                operands: [&a, &b],
                                out: &mut out,
                                streamed,
                                add,
                                turned,
                            });
                            let same = out.iter().zip(&want).all(|(x, y)| x.to_bits() == y.to_bits());
                            assert!(
                                same,
                                "{m} x {n} x {k} on {isa}, streamed: {streamed}, add: {add}, turned: {turned}"
                            );
                        }
                    }
                }
            }
        }
    }
}
