//! Products of a few rows by a matrix whose columns lie side by side, or of a matrix whose rows lie side by side by a few columns: squares of the matrix are transposed in registers, for its lines have to be
//! lanes (N1).
//!
//! ```text
//! for each group of L lines of the matrix, sometimes two at a time
//!   for each segment of k, sometimes two at a time
//!     s[0..few][L] = +0.0
//!     for each L steps of k, each four with L = 8
//!       transpose as many steps of L lines in registers
//!       s[i][..] = fma(few[i][k], b[k][..], s[i][..])
//!     dst = s + 0.0, or dst += s + 0.0
//! ```

mod of_16;
mod of_8;

use std::ops::Range;

use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{Lanes, Simd};

use super::Write;
use super::few_rows::finish;
use of_16::GROUP;

/// Steps of k at a time: a cache line of each line.
const LINE: usize = 16;
/// Lines that may share a set of the first-level cache.
const IN_A_SET: usize = 8;
/// Few rows, or columns, up to which lines that share a set are taken in groups of 8: 16 have gone from it before they are used up. Zen 4, percent of the peak by groups of 16 and of 8: 1 x 1024 x 1024
/// nt 9.8 and 16.8, two rows 17.3 and 26, three 24 and 32, four 30 and 42.5; 1 x 4096 x 4096 7.5 and 8.6, four rows 26.5 and 31. Where they share none, 1 x 256 x 256 22.8 and 18, four rows 57 and 34.
const FEW_BY_EIGHT: usize = 4;
/// Most rows, or columns.
pub(super) const FEW_TRANSPOSED: usize = 8;
/// Columns up to which a lhs is transposed whatever its rows; with more of them, if rows share sets of the first-level cache. Zen 5, transposed and by tiles: 128 x 4 x 1024 30.9 and 18.1 % of the peak, 3136 x 4 x 256 24.6
/// and 18.4, 1000 x 6 x 100 30.0 and 31.8; 128 x 6 x 1024 30.4 and 26.7, 4096 x 8 x 4096 31.5 and 26.
const FEW_COLUMNS: usize = 4;
/// Rows and steps of k of a lhs from which on it is transposed. Not swept.
const FROM: usize = 2 * GROUP;
/// Bytes of a matrix from which on it is asked for ahead. Zen 5: 1 x 1024 x 1024 10.6 % of the peak, asked for 9.0; 1 x 4096 x 4096 4.5 and 5.0.
const FROM_MEMORY: usize = 8 * 1024 * 1024;
/// Bytes of the lines of a group, by up to two rows or columns and by more, up to which then each step asks for its place in the next group; in longer lines for what comes [`STEPS_AHEAD`]. Zen 4, by 512 bytes ahead and by a group: 1 x 3000 x 3000 nt
/// 14.5 and 17.5 % of the peak, 4 x 3000 x 3000 46 and 51, 8 x 3000 x 3000 54 and 58; by groups of 8, 1 x 4096 x 4096 7.6 and 9.5, 4 x 4096 x 4096 30 and 33, 1 x 8192 x 8192 7.6 and 9.2, but 4 x 8192 x 8192 20.5 and 18.5; by groups of 16
/// 1 x 8000 x 8000 10.5 and 9.8. In the order of memory, line by line of the next group: as fast, from 8000 x 8000 slower.
const GROUP_BYTES: [usize; 2] = [256 * 1024, 192 * 1024];
/// Steps of k that each line is asked for ahead else. A KiB of one line at a time instead: 4096 x 4 x 4096 16 % of the peak in place of 21.
const STEPS_AHEAD: usize = 8 * LINE;

/// Whether [`few_by_lines`] multiplies a lhs by so many columns faster than tiles do.
#[inline(always)]
pub(super) fn takes_columns(lhs: MatRef<'_, f32>, columns: usize) -> bool {
    lhs.has_whole_rows()
        && lhs.rows() >= FROM
        && lhs.cols() >= FROM
        && (columns <= FEW_COLUMNS || columns <= FEW_TRANSPOSED && lhs.in_a_set(GROUP) > IN_A_SET)
}

/// Whether `few` rows, or columns, are multiplied by these lines faster by vectors of 32 bytes than of 64.
#[inline(always)]
pub(super) fn by_half_vectors(lines: MatRef<'_, f32>, few: usize) -> bool {
    few <= FEW_BY_EIGHT && lines.in_a_set(GROUP) > IN_A_SET
}

/// Whether lines are more than lie in a cache.
#[inline(always)]
fn comes_from_memory(lines: MatRef<'_, f32>) -> bool {
    lines.rows().saturating_mul(lines.cols()) >= FROM_MEMORY / size_of::<f32>()
}

/// Elements from a place in a line to what is asked for there, of lines from memory in groups of `group` that meet `few` rows or columns.
#[inline(always)]
fn ahead(lines: MatRef<'_, f32>, group: usize, few: usize) -> isize {
    let bytes = (group * size_of::<f32>()).saturating_mul(lines.cols());
    if bytes <= GROUP_BYTES[(few > 2) as usize] { lines.down_by(group) } else { STEPS_AHEAD as isize }
}

/// The products of each of up to [`FEW_TRANSPOSED`] rows `few` with each of `lines`, or these added to `dst`: of rows with columns, whose transposed matrix `lines` is, or with `COLUMNS` of columns, which are
/// transposed, with rows. `asks`: groups of 8 lines from memory are asked for ahead.
#[inline(always)]
pub(super) fn few_by_lines<S: Simd, const COLUMNS: bool>(
    s: S,
    few: MatRef<'_, f32>,
    lines: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
    asks: bool,
) {
    match few.rows() {
        1 => groups::<S, 1, COLUMNS>(s, few, lines, dst, add, asks),
        2 => groups::<S, 2, COLUMNS>(s, few, lines, dst, add, asks),
        3 => groups::<S, 3, COLUMNS>(s, few, lines, dst, add, asks),
        4 => groups::<S, 4, COLUMNS>(s, few, lines, dst, add, asks),
        5 => groups::<S, 5, COLUMNS>(s, few, lines, dst, add, asks),
        6 => groups::<S, 6, COLUMNS>(s, few, lines, dst, add, asks),
        7 => groups::<S, 7, COLUMNS>(s, few, lines, dst, add, asks),
        8 => groups::<S, 8, COLUMNS>(s, few, lines, dst, add, asks),
        count => unreachable!("{count} are not few"),
    }
}

/// The products of `M` of them.
#[inline(always)]
fn groups<S: Simd, const M: usize, const COLUMNS: bool>(
    s: S,
    few: MatRef<'_, f32>,
    lines: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
    asks: bool,
) {
    if const { <S as Lanes<f32>>::LANES == GROUP } {
        of_16::groups::<S, M, COLUMNS>(s, few, lines, dst, add);
    } else {
        of_8::Groups::<M, COLUMNS> { few, lines, dst, add, asks }.all(s);
    }
}

/// The sums of `lanes` of a group over a segment into the result, from line `to` on.
#[inline(always)]
fn take<S: Simd, const M: usize, const L: usize, const COLUMNS: bool>(
    s: S,
    sums: &[[f32; L]; M],
    lanes: Range<usize>,
    to: usize,
    write: Write,
    dst: &mut Band<'_, f32>,
) {
    if COLUMNS {
        for (line, lane) in (to..).zip(lanes) {
            for (to, sums) in dst.row(line)[..M].iter_mut().zip(sums) {
                // N1, N2.
                let segment = sums[lane] + 0.0;
                *to = if write == Write::Add { *to + segment } else { segment };
            }
        }
    } else {
        for (row, sums) in sums.iter().enumerate() {
            finish(s, &sums[lanes.clone()], &mut dst.row(row)[to..to + lanes.len()], write);
        }
    }
}
