//! Products of a few rows by a matrix whose columns lie side by side, or of a matrix whose rows lie side by side by a few columns: 16 x 16 elements of the matrix are transposed in registers, for its
//! lines have to be lanes (N1).
//!
//! ```text
//! for each group of 16 lines of the matrix, sometimes two at a time
//!   for each segment of k
//!     s[0..few][16] = +0.0
//!     for each 16 steps of k
//!       transpose 16 x 16 elements in registers
//!       s[i][..] = fma(few[i][k], b[k][..], s[i][..])
//!     dst = s + 0.0, or dst += s + 0.0
//! ```

use std::ops::Range;

use crate::KC;
use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken, prefetch_near};

use super::Write;
use super::few_rows::finish;

/// Lines of a group: a vector of AVX-512.
const GROUP: usize = 16;
/// Vectors of a group, where they are shortest.
const VECTORS: usize = 4;
/// Steps of k at a time: a cache line of each line.
const LINE: usize = 16;
/// Few rows, and few columns, up to which two groups are computed at a time, for the sums of one wait for each other; unless their lines share too few sets of the first-level cache, of 64 lines apart. On Zen 5
/// 1 x 256 x 256 12.5 % of the peak by one, 16.5 by two, 4 x 768 x 768 nt 36 and 28; 3136 x 4 x 256 30 and 35, 1000 x 3 x 1000 28 and 34; 1 x 1024 x 1024, whose columns share one set, 10.1 and 5.8.
const PAIRED: [usize; 2] = [2, 4];
/// Lines of two groups that may share a set.
const IN_A_SET: usize = 8;
/// Most rows, or columns.
pub(super) const FEW_TRANSPOSED: usize = 8;
/// Columns up to which a lhs is transposed whatever its rows; with more of them, if rows share sets of the first-level cache. Zen 5, transposed and by tiles: 128 x 4 x 1024 30.9 and 18.1 % of the peak, 3136 x 4 x 256 24.6
/// and 18.4, 1000 x 6 x 100 30.0 and 31.8; 128 x 6 x 1024 30.4 and 26.7, 4096 x 8 x 4096 31.5 and 26.
const FEW_COLUMNS: usize = 4;
/// Rows and steps of k of a lhs from which on it is transposed. Not swept.
const FROM: usize = 2 * GROUP;
/// Bytes of a matrix from which on it is asked for ahead. Zen 5: 1 x 1024 x 1024 10.6 % of the peak, asked for 9.0; 1 x 4096 x 4096 4.5 and 5.0.
const FROM_MEMORY: usize = 8 * 1024 * 1024;
/// Steps of k that each line is asked for ahead then. A KiB of one line at a time instead: 4096 x 4 x 4096 16 % of the peak in place of 21.
const STEPS_AHEAD: usize = 8 * LINE;

/// Whether [`few_columns`] multiplies a lhs by so many columns faster than tiles do.
#[inline(always)]
pub(super) fn takes_columns(lhs: MatRef<'_, f32>, columns: usize) -> bool {
    lhs.has_whole_rows()
        && lhs.rows() >= FROM
        && lhs.cols() >= FROM
        && (columns <= FEW_COLUMNS || columns <= FEW_TRANSPOSED && lhs.in_a_set(GROUP) > IN_A_SET)
}

/// `dst = lhs rhs` or `dst += lhs rhs` for an rhs whose columns lie side by side, and up to [`FEW_TRANSPOSED`] rows.
#[inline(always)]
pub(super) fn few_rows<S: Simd>(
    s: S,
    lhs: MatRef<'_, f32>,
    rhs: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    few::<S, false>(s, lhs, rhs.transposed(), dst, add);
}

/// `dst = lhs rhs` or `dst += lhs rhs` for a lhs whose rows lie side by side, and up to [`FEW_TRANSPOSED`] columns.
#[inline(always)]
pub(super) fn few_columns<S: Simd>(
    s: S,
    lhs: MatRef<'_, f32>,
    rhs: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    few::<S, true>(s, rhs.transposed(), lhs, dst, add);
}

/// The products of each of `few` with each of `lines`: of a row with columns, or with `COLUMNS` of a column with rows.
#[inline(always)]
fn few<S: Simd, const COLUMNS: bool>(
    s: S,
    few: MatRef<'_, f32>,
    lines: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    match few.rows() {
        1 => groups::<S, 1, COLUMNS>(s, few, lines, dst, add),
        2 => groups::<S, 2, COLUMNS>(s, few, lines, dst, add),
        3 => groups::<S, 3, COLUMNS>(s, few, lines, dst, add),
        4 => groups::<S, 4, COLUMNS>(s, few, lines, dst, add),
        5 => groups::<S, 5, COLUMNS>(s, few, lines, dst, add),
        6 => groups::<S, 6, COLUMNS>(s, few, lines, dst, add),
        7 => groups::<S, 7, COLUMNS>(s, few, lines, dst, add),
        8 => groups::<S, 8, COLUMNS>(s, few, lines, dst, add),
        count => unreachable!("{count} are not few"),
    }
}

/// The products of `M` of them, group by group, segment by segment.
#[inline(always)]
fn groups<S: Simd, const M: usize, const COLUMNS: bool>(
    s: S,
    few: MatRef<'_, f32>,
    lines: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    let (n, k) = (lines.rows(), lines.cols());
    let from_memory = n.saturating_mul(k) >= FROM_MEMORY / size_of::<f32>();
    let by_two = M <= PAIRED[COLUMNS as usize] && !from_memory && lines.in_a_set(2 * GROUP) <= IN_A_SET;
    let mut j = 0;
    while j < n {
        let two = by_two && j + 2 * GROUP <= n;
        let mut first = 0;
        while first < k {
            let len = KC.min(k - first);
            let write = if first > 0 || add { Write::Add } else { Write::Replace };
            let steps = first..first + len;
            let (few, lines, dst) = (few.part(0..M, steps.clone()), lines.part(0..n, steps), &mut *dst);
            if two {
                s.apart(Groups::<M, 2, COLUMNS, false> { few, lines, dst, from: [j, j + GROUP], write });
            } else if from_memory {
                s.apart(Groups::<M, 1, COLUMNS, true> { few, lines, dst, from: [j], write });
            } else {
                s.apart(Groups::<M, 1, COLUMNS, false> { few, lines, dst, from: [j], write });
            }
            first += len;
        }
        j += if two { 2 * GROUP } else { GROUP };
    }
}

/// The products of `M` rows, or columns, with `G` groups of lines over a segment, each `from` a line on. `AHEAD`: lines are asked for before they are read.
struct Groups<'a, 'b, 'c, const M: usize, const G: usize, const COLUMNS: bool, const AHEAD: bool> {
    few: MatRef<'a, f32>,
    lines: MatRef<'a, f32>,
    dst: &'b mut Band<'c, f32>,
    from: [usize; G],
    write: Write,
}

impl<S: Simd, const M: usize, const G: usize, const COLUMNS: bool, const AHEAD: bool> WithToken<S>
    for Groups<'_, '_, '_, M, G, COLUMNS, AHEAD>
{
    type Output = ();
    #[inline(always)]
    fn with_token(mut self, s: S) {
        let (n, len) = (self.lines.rows(), self.lines.cols());
        let mut rows: [[&[f32]; GROUP]; G] = [[&[]; GROUP]; G];
        for (rows, from) in rows.iter_mut().zip(self.from) {
            for (lane, row) in rows.iter_mut().enumerate() {
                // Lanes beyond the last line repeat it.
                *row = self.lines.row((from + lane).min(n - 1));
            }
        }
        let whole = len / LINE * LINE;
        // Of a group as many vectors as it has.
        let mut acc = [[[Lanes::<f32>::splat(s, 0.0); M]; VECTORS]; G];
        for step in (0..whole).step_by(LINE) {
            // One by one, for a loop that is not unrolled would have its sums in memory.
            acc[0] = self.line(s, &rows[0], step, acc[0]);
            if G > 1 {
                acc[1] = self.line(s, &rows[1], step, acc[1]);
            }
        }
        for step in whole..len {
            for (rows, acc) in rows.iter().zip(&mut acc) {
                let mut b = [[0.0f32; GROUP]];
                for (b, row) in b[0].iter_mut().zip(rows) {
                    *b = row[step];
                }
                *acc = steps::<S, M>(s, self.few.part(0..M, step..step + 1), &b, *acc);
            }
        }
        for (acc, from) in acc.iter().zip(self.from) {
            let mut sums = [[0.0f32; GROUP]; M];
            for (vector, acc) in acc[..GROUP / <S as Lanes<f32>>::LANES].iter().enumerate() {
                for (sums, &acc) in sums.iter_mut().zip(acc) {
                    Lanes::<f32>::store(s, &mut sums[vector * <S as Lanes<f32>>::LANES..], acc);
                }
            }
            self.take(s, &sums, from..(from + GROUP).min(n));
        }
    }
}

impl<const M: usize, const G: usize, const COLUMNS: bool, const AHEAD: bool>
    Groups<'_, '_, '_, M, G, COLUMNS, AHEAD>
{
    /// `acc` and a cache line's steps of a group from `step` on.
    #[inline(always)]
    fn line<S: Simd>(
        &self,
        s: S,
        rows: &[&[f32]; GROUP],
        step: usize,
        acc: [[<S as Lanes<f32>>::V; M]; VECTORS],
    ) -> [[<S as Lanes<f32>>::V; M]; VECTORS] {
        // Of each line its part at once: lines a power of two apart share a set of the first-level cache, which keeps eight or twelve of them.
        let mut parts: [&[f32; LINE]; GROUP] = [&[0.0; LINE]; GROUP];
        for (part, row) in parts.iter_mut().zip(rows) {
            *part = row[step..].first_chunk().expect("a part is left");
        }
        if AHEAD {
            for part in parts {
                prefetch_near(part.as_ptr().wrapping_add(STEPS_AHEAD));
            }
        }
        let b = s.transpose_16x16(parts);
        steps::<S, M>(s, self.few.part(0..M, step..step + LINE), &b, acc)
    }

    /// The sums of a segment into the result.
    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, sums: &[[f32; GROUP]; M], lanes: Range<usize>) {
        let write = self.write;
        if COLUMNS {
            for (lane, row) in lanes.enumerate() {
                for (to, sums) in self.dst.row(row)[..M].iter_mut().zip(sums) {
                    // N1, N2.
                    let segment = sums[lane] + 0.0;
                    *to = if write == Write::Add { *to + segment } else { segment };
                }
            }
        } else {
            for (row, sums) in sums.iter().enumerate() {
                finish(s, &sums[..lanes.len()], &mut self.dst.row(row)[lanes.clone()], write);
            }
        }
    }
}

/// `acc` and some steps of k of one group. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn steps<S: Simd, const M: usize>(
    s: S,
    few: MatRef<'_, f32>,
    b: &[[f32; GROUP]],
    mut acc: [[<S as Lanes<f32>>::V; M]; VECTORS],
) -> [[<S as Lanes<f32>>::V; M]; VECTORS] {
    let lanes = <S as Lanes<f32>>::LANES;
    for (acc, at) in acc.iter_mut().zip((0..GROUP).step_by(lanes)) {
        let mut sums = *acc;
        for (a, b) in few.across::<M, false>().zip(b) {
            let b = Lanes::<f32>::load(s, &b[at..]);
            for (row, sum) in sums.iter_mut().enumerate() {
                let a = Lanes::<f32>::splat(s, a.at(row));
                *sum = FloatLanes::<f32>::mul_add(s, a, b, *sum);
            }
        }
        *acc = sums;
    }
    acc
}
