//! The sums of a few rows between some steps of k and the next: of a tile vector by vector, row by row; and from there into the result.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::mat::WriteRows;
use crate::simd::FloatLanes;

use super::super::Write;

/// `m` rows in as few tiles of at most `most` as can be, as high as each other or one more.
#[inline(always)]
pub(super) fn tiles(m: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = m.div_ceil(most);
    (0..count).map(move |tile| tile * m / count..(tile + 1) * m / count)
}

/// The sums of a strip so far, whose vectors lie `height` rows apart; zeros if it is the `first`.
#[inline(always)]
pub(super) fn load<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const V: usize>(
    s: S,
    sums: &[T],
    height: usize,
    first: bool,
) -> [[S::V; V]; M] {
    let mut acc = [[s.splat(T::zeroed()); V]; M];
    if !first {
        for (i, acc) in acc.iter_mut().enumerate() {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = s.load(&sums[(v * height + i) * S::LANES..]);
            }
        }
    }
    acc
}

/// The other way round.
#[inline(always)]
pub(super) fn store<T: Copy, S: FloatLanes<T>, const M: usize, const V: usize>(
    s: S,
    acc: &[[S::V; V]; M],
    sums: &mut [T],
    height: usize,
) {
    for (i, acc) in acc.iter().enumerate() {
        for (v, &acc) in acc.iter().enumerate() {
            s.store(&mut sums[(v * height + i) * S::LANES..], acc);
        }
    }
}

/// The sums of a tile over a segment into its rows of the result.
#[inline(always)]
pub(super) fn take_out<T: Zeroable + Copy, S: FloatLanes<T>>(
    s: S,
    sums: &[T],
    rows: Range<usize>,
    dst: &mut impl WriteRows<T>,
    write: Write,
) {
    let height = rows.len();
    for (i, row) in rows.enumerate() {
        for (vector, out) in dst.row(row).chunks_mut(S::LANES).enumerate() {
            let at = (vector * height + i) * S::LANES;
            finish(s, &sums[at..at + out.len()], out, write);
        }
    }
}

/// The sums of a segment into a row of the result (N1, N2).
#[inline(always)]
pub(in super::super) fn finish<T: Zeroable + Copy, S: FloatLanes<T>>(
    s: S,
    sums: &[T],
    row: &mut [T],
    write: Write,
) {
    let zero = s.splat(T::zeroed());
    for (sums, row) in sums.chunks(S::LANES).zip(row.chunks_mut(S::LANES)) {
        let n = row.len();
        let segment = s.add(s.load_first_n(sums, n), zero);
        let sum = if write == Write::Add { s.add(s.load_first_n(row, n), segment) } else { segment };
        s.store_first_n(row, n, sum);
    }
}
