//! Products of a few rows by a matrix whose columns lie side by side: 16 x 16 elements are transposed in registers, for lanes have to be columns (N1).
//!
//! ```text
//! for each group of 16 columns, two at a time
//!   for each segment of k
//!     s[0..M][16] = +0.0
//!     for each 16 steps of k
//!       transpose 16 x 16 elements in registers
//!       s[i][..] = fma(a[i][k], b[k][..], s[i][..])
//!     dst = s + 0.0, or dst += s + 0.0
//! ```

use crate::KC;
use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd};

use super::Write;
use super::few_rows::finish;

/// Columns of a group: a vector of AVX-512.
const GROUP: usize = 16;
/// Steps of k at a time: a cache line of a column.
const LINE: usize = 16;
/// Rows up to which two groups are computed at a time, for the sums of one wait for each other; unless their columns share too few sets of the first-level cache, of 64 lines apart. On Zen 5
/// 1 x 256 x 256 10.7 % of the peak by one, 14.6 by two; 1 x 1024 x 1024, whose columns share one set, 10.1 and 5.8.
const PAIRED_ROWS: usize = 4;
/// Columns of two groups that may share a set.
const IN_A_SET: usize = 8;
/// Most rows.
pub(super) const FEW_ROWS_TRANSPOSED: usize = 8;

/// `dst = lhs rhs` or `dst += lhs rhs` for an rhs whose columns lie side by side, and up to [`FEW_ROWS_TRANSPOSED`] rows.
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
    let (n, mut j) = (columns.rows(), 0);
    if M <= PAIRED_ROWS && columns.in_a_set(2 * GROUP) <= IN_A_SET {
        while n - j >= 2 * GROUP {
            some_groups::<S, M, 2>(s, lhs, columns, j, dst, add);
            j += 2 * GROUP;
        }
    }
    while j < n {
        some_groups::<S, M, 1>(s, lhs, columns, j, dst, add);
        j += GROUP;
    }
}

/// `G` groups at a time, from column `j` on.
#[inline(always)]
fn some_groups<S: Simd, const M: usize, const G: usize>(
    s: S,
    lhs: MatRef<'_, f32>,
    columns: MatRef<'_, f32>,
    j: usize,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    let (n, k) = (columns.rows(), columns.cols());
    let width = (G * GROUP).min(n - j);
    // Lanes beyond the last column repeat it.
    let rows: [[&[f32]; GROUP]; G] = std::array::from_fn(|g| {
        std::array::from_fn(|lane| columns.row(j + (g * GROUP + lane).min(width - 1)))
    });
    for first in (0..k).step_by(KC) {
        let segment = first..k.min(first + KC);
        let whole = segment.len() / LINE * LINE;
        let mut sums = [[[0.0f32; GROUP]; M]; G];
        for step in (segment.start..segment.start + whole).step_by(LINE) {
            for (rows, sums) in rows.iter().zip(&mut sums) {
                // Of each column its line at once: columns a power of two apart share a set of the first-level cache, which keeps eight lines.
                let mut lines: [&[f32; LINE]; GROUP] = [&[0.0; LINE]; GROUP];
                for (line, row) in lines.iter_mut().zip(rows) {
                    *line = row[step..].first_chunk().expect("a line is left");
                }
                let b = s.transpose_16x16(lines);
                steps::<S, M>(s, lhs.part(0..M, step..step + LINE), &b, sums);
            }
        }
        for step in segment.start + whole..segment.end {
            for (rows, sums) in rows.iter().zip(&mut sums) {
                let mut b = [[0.0f32; GROUP]];
                for (b, row) in b[0].iter_mut().zip(rows) {
                    *b = row[step];
                }
                steps::<S, M>(s, lhs.part(0..M, step..step + 1), &b, sums);
            }
        }
        let write = if first > 0 || add { Write::Add } else { Write::Replace };
        for row in 0..M {
            for (g, sums) in sums.iter().enumerate() {
                let at = j + g * GROUP;
                let end = (at + GROUP).min(n);
                finish(s, &sums[row][..end - at], &mut dst.row(row)[at..end], write);
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
