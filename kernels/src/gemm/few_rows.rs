//! Products of a few rows: a vector, or a handful, times a matrix. Nothing is reused but the rows themselves, so all that counts is to read the rhs as it lies in
//! memory, in long runs, once.
//!
//! ```text
//! rows side by side (a row-major rhs):                      columns side by side (a transposed one):
//!   for each block of BLOCK columns                           for each group of 16 columns
//!     for each segment of k                                     for each segment of k
//!       s[0..M][block] = +0.0                                     s[0..M][16] = +0.0
//!       for each G steps of k                                     for each 16 steps of k
//!         s[i][..] = fma(a[i][k], b[k][..], s[i][..]),              transpose 16 x 16 elements in registers
//!         k ascending, G rows of b at a time                        s[i][..] = fma(a[i][k], b[k][..], s[i][..])
//!       dst = s + 0.0, or dst += s + 0.0                          dst = s + 0.0, or dst += s + 0.0
//! ```
//!
//! The sums `s` of the first form stay in the first-level cache; a tile of M rows would keep them in registers, but read the rhs in pieces of three vectors from
//! as many pages as k has steps. Of an rhs that lies in a cache that does not matter: it is read in strips of as many vectors as there are registers for sums.

use bytemuck::Zeroable;

use crate::KC;
use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::Write;
use super::in_place::write_out;

/// Most rows that the first form takes.
pub(super) const FEW_ROWS: usize = 4;

/// Columns of a group of the transposed form: a vector of AVX-512.
const GROUP: usize = 16;
/// Steps of k at a time: a cache line of a column.
const LINE: usize = 16;
/// Most rows that the transposed form takes.
pub(super) const FEW_ROWS_TRANSPOSED: usize = 8;

/// `dst = lhs rhs` or `dst += lhs rhs` for an rhs whose rows lie side by side, and up to [`FEW_ROWS`] rows.
#[inline(always)]
pub(super) fn side_by_side<T: Zeroable + Copy, S: FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    add: bool,
) {
    // Steps of k that registers allow beside the rows, and columns of a block: long runs are nearer to the bandwidth of memory, and the sums stay in a
    // first-level cache of 32 KiB.
    match dst.m() {
        1 => blocks::<T, S, 1, 8, 4096>(s, lhs, rhs, dst, add),
        2 => blocks::<T, S, 2, 8, 2048>(s, lhs, rhs, dst, add),
        3 => blocks::<T, S, 3, 4, 1024>(s, lhs, rhs, dst, add),
        4 => blocks::<T, S, 4, 4, 1024>(s, lhs, rhs, dst, add),
        rows => unreachable!("{rows} rows are not few"),
    }
}

/// The same for an rhs that lies in a cache.
#[inline(always)]
pub(super) fn side_by_side_near<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    add: bool,
) {
    let write = if add { Write::Add } else { Write::Replace };
    // Vectors of a strip, for each number of rows: first as many as fill the registers, last a part of one.
    macro_rules! strips {
        ($m:literal, $($v:literal)*) => {{
            let mut from = 0;
            $(
                let width = $v * <S as Lanes<T>>::LANES;
                while rhs.cols() - from >= width {
                    s.apart(Strip::<T, $m, $v, false> { lhs, rhs, dst, write, from });
                    from += width;
                }
            )*
            if from < rhs.cols() {
                s.apart(Strip::<T, $m, 1, true> { lhs, rhs, dst, write, from });
            }
        }};
    }
    // Known when compiling: no processor gets the strips of another.
    if const { <S as Lanes<T>>::LANES * size_of::<T>() == 64 } {
        match dst.m() {
            1 => strips!(1, 24 8 4 2 1),
            2 => strips!(2, 12 4 2 1),
            3 => strips!(3, 8 4 2 1),
            4 => strips!(4, 6 3 2 1),
            rows => unreachable!("{rows} rows are not few"),
        }
    } else {
        match dst.m() {
            1 => strips!(1, 8 4 2 1),
            2 => strips!(2, 4 2 1),
            3 => strips!(3, 2 1),
            4 => strips!(4, 2 1),
            rows => unreachable!("{rows} rows are not few"),
        }
    }
}

/// `V` vectors of columns from `from` on, the last of which ends with the rhs if `MASKED`.
struct Strip<'a, 'b, 'c, T, const M: usize, const V: usize, const MASKED: bool> {
    lhs: MatRef<'a, T>,
    rhs: MatRef<'a, T>,
    dst: &'b mut Band<'c, T>,
    write: Write,
    from: usize,
}

impl<T, S, const M: usize, const V: usize, const MASKED: bool> WithToken<S>
    for Strip<'_, '_, '_, T, M, V, MASKED>
where
    T: Zeroable + Copy,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Strip { lhs, rhs, dst, mut write, from } = self;
        let to = if MASKED { rhs.cols() } else { from + V * S::LANES };
        let last = to - from - (V - 1) * S::LANES;
        for first in (0..rhs.rows()).step_by(KC) {
            let segment = first..rhs.rows().min(first + KC);
            let mut acc = [[s.splat(T::zeroed()); V]; M];
            let mut rows = rhs.part(segment.clone(), from..to).down();
            let mut columns = lhs.part(0..M, segment).across::<M, false>();
            while let (Some(row), Some(column)) = (rows.next(), columns.next()) {
                let a: [S::V; M] = std::array::from_fn(|i| s.splat(column.at(i)));
                for v in 0..V {
                    let row = &row[v * S::LANES..];
                    let b = if MASKED { s.load_first_n(row, last) } else { s.load(row) };
                    for (acc, &a) in acc.iter_mut().zip(&a) {
                        acc[v] = s.mul_add(a, b, acc[v]);
                    }
                }
            }
            write_out(s, &acc, &mut dst.part(0..M, from..to), write);
            write = Write::Add;
        }
    }
}

#[inline(always)]
fn blocks<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const G: usize, const BLOCK: usize>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    add: bool,
) {
    let (n, k) = (rhs.cols(), rhs.rows());
    let mut sums = [[T::zeroed(); BLOCK]; M];
    for j in (0..n).step_by(BLOCK) {
        let cols = j..n.min(j + BLOCK);
        for first in (0..k).step_by(KC) {
            let segment = first..k.min(first + KC);
            for sums in &mut sums {
                sums[..cols.len()].fill(T::zeroed());
            }
            let whole = segment.len() / G * G;
            for step in (segment.start..segment.start + whole).step_by(G) {
                group::<T, S, M, G, BLOCK>(s, lhs, rhs, step, &cols, &mut sums);
            }
            for step in segment.start + whole..segment.end {
                group::<T, S, M, 1, BLOCK>(s, lhs, rhs, step, &cols, &mut sums);
            }
            let write = if first > 0 || add { Write::Add } else { Write::Replace };
            for (row, sums) in sums.iter().enumerate() {
                finish(s, &sums[..cols.len()], &mut dst.row(row)[cols.clone()], write);
            }
        }
    }
}

/// `G` steps of k from `step` on.
#[inline(always)]
fn group<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const G: usize, const BLOCK: usize>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    step: usize,
    cols: &std::ops::Range<usize>,
    sums: &mut [[T; BLOCK]; M],
) {
    let mut a = [[s.splat(T::zeroed()); M]; G];
    let mut rows: [&[T]; G] = [&[]; G];
    for (g, (a, row)) in a.iter_mut().zip(&mut rows).enumerate() {
        *row = &rhs.row(step + g)[cols.clone()];
        for (i, a) in a.iter_mut().enumerate() {
            *a = s.splat(lhs.at(i, step + g));
        }
    }
    let later = rhs.below(step + G, cols.start);
    let whole = cols.len() / S::LANES * S::LANES;
    for j in (0..whole).step_by(S::LANES) {
        for g in 0..G {
            later.prefetch(g, j);
        }
        let mut acc = [s.splat(T::zeroed()); M];
        for (acc, sums) in acc.iter_mut().zip(&*sums) {
            *acc = s.load(&sums[j..]);
        }
        for (a, row) in a.iter().zip(&rows) {
            let b = s.load(&row[j..]);
            for (acc, &a) in acc.iter_mut().zip(a) {
                *acc = s.mul_add(a, b, *acc);
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            s.store(&mut sums[j..], acc);
        }
    }
    let rest = cols.len() - whole;
    if rest > 0 {
        for (i, sums) in sums.iter_mut().enumerate() {
            let mut acc = s.load_first_n(&sums[whole..], rest);
            for (a, row) in a.iter().zip(&rows) {
                acc = s.mul_add(a[i], s.load_first_n(&row[whole..], rest), acc);
            }
            s.store_first_n(&mut sums[whole..], rest, acc);
        }
    }
}

/// The sums of a segment into a row of the result (N1, N2).
#[inline(always)]
fn finish<T: Zeroable + Copy, S: FloatLanes<T>>(s: S, sums: &[T], row: &mut [T], write: Write) {
    let zero = s.splat(T::zeroed());
    for (sums, row) in sums.chunks(S::LANES).zip(row.chunks_mut(S::LANES)) {
        let n = row.len();
        let segment = s.add(s.load_first_n(sums, n), zero);
        let sum = if write == Write::Add { s.add(s.load_first_n(row, n), segment) } else { segment };
        s.store_first_n(row, n, sum);
    }
}

/// The same for an rhs whose columns lie side by side.
#[inline(always)]
pub(super) fn transposed<S: Simd>(
    s: S,
    lhs: MatRef<'_, f32>,
    rhs: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    let columns = rhs.transposed();
    match dst.m() {
        1 => groups::<S, 1>(s, lhs, columns, dst, add),
        2 => groups::<S, 2>(s, lhs, columns, dst, add),
        3 => groups::<S, 3>(s, lhs, columns, dst, add),
        4 => groups::<S, 4>(s, lhs, columns, dst, add),
        5 => groups::<S, 5>(s, lhs, columns, dst, add),
        6 => groups::<S, 6>(s, lhs, columns, dst, add),
        7 => groups::<S, 7>(s, lhs, columns, dst, add),
        8 => groups::<S, 8>(s, lhs, columns, dst, add),
        rows => unreachable!("{rows} rows are not few"),
    }
}

/// `columns` are those of the rhs, as rows.
#[inline(always)]
fn groups<S: Simd, const M: usize>(
    s: S,
    lhs: MatRef<'_, f32>,
    columns: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    let (n, k) = (columns.rows(), columns.cols());
    for j in (0..n).step_by(GROUP) {
        let width = GROUP.min(n - j);
        // Lanes beyond the last column repeat it.
        let rows: [&[f32]; GROUP] = std::array::from_fn(|lane| columns.row(j + lane.min(width - 1)));
        for first in (0..k).step_by(KC) {
            let segment = first..k.min(first + KC);
            let whole = segment.len() / LINE * LINE;
            let mut sums = [[0.0f32; GROUP]; M];
            for step in (segment.start..segment.start + whole).step_by(LINE) {
                // Of each column its line at once: columns a power of two apart share a set of the first-level cache, which keeps eight lines.
                let mut lines: [&[f32; LINE]; GROUP] = [&[0.0; LINE]; GROUP];
                for (line, row) in lines.iter_mut().zip(&rows) {
                    *line = row[step..].first_chunk().expect("a line is left");
                }
                let b = s.transpose_16x16(lines);
                steps::<S, M>(s, lhs.part(0..M, step..step + LINE), &b, &mut sums);
            }
            for step in segment.start + whole..segment.end {
                let mut b = [[0.0f32; GROUP]];
                for (b, row) in b[0].iter_mut().zip(&rows) {
                    *b = row[step];
                }
                steps::<S, M>(s, lhs.part(0..M, step..step + 1), &b, &mut sums);
            }
            let write = if first > 0 || add { Write::Add } else { Write::Replace };
            for (row, sums) in sums.iter().enumerate() {
                finish(s, &sums[..width], &mut dst.row(row)[j..j + width], write);
            }
        }
    }
}

/// Some steps of k of one group.
#[inline(always)]
fn steps<S: Simd, const M: usize>(
    s: S,
    lhs: MatRef<'_, f32>,
    b: &[[f32; GROUP]],
    sums: &mut [[f32; GROUP]; M],
) {
    let lanes = <S as Lanes<f32>>::LANES;
    for at in (0..GROUP).step_by(lanes) {
        let mut acc = [Lanes::<f32>::splat(s, 0.0); M];
        for (acc, sums) in acc.iter_mut().zip(&*sums) {
            *acc = Lanes::<f32>::load(s, &sums[at..]);
        }
        for (a, b) in lhs.across::<M, false>().zip(b) {
            let b = Lanes::<f32>::load(s, &b[at..]);
            for (row, acc) in acc.iter_mut().enumerate() {
                let a = Lanes::<f32>::splat(s, a.at(row));
                *acc = FloatLanes::<f32>::mul_add(s, a, b, *acc);
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            Lanes::<f32>::store(s, &mut sums[at..], acc);
        }
    }
}
