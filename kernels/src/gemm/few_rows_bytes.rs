//! Products of a few rows of 8-bit integers by a matrix of them whose rows lie side by side, read in place.
//!
//! ```text
//! for each CHUNK steps of k
//!   a[0..M] = the lhs less its zero point, neighbours along k in pairs
//!   for each strip of V vectors of columns
//!     acc[0..M][0..V] = 0
//!     for each two k:   b[..] = two rows less their zero point, in turns
//!                       acc[i][..] += a[i][k] b[k][..] + a[i][k + 1] b[k + 1][..]
//!     dst = acc (Replace, the first chunk), or dst += acc
//! ```
//!
//! Sums of integers are exact in any order (N4), so the result is where they gather, and the rows of a chunk are read from left to right. The last strip ends where the
//! rhs does and begins among columns of the one before; it writes its own only.

use std::ops::Range;

use crate::isa::Isa;
use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{Dot, I16x2, Lanes, Simd, WithSimd, WithToken};

use super::blocking::FEW_ROWS_COLS;
use super::few_rows::strips;
#[cfg(target_arch = "x86_64")]
use super::few_rows_dot::few_rows_dot;

/// Most rows.
pub const FEW_ROWS_BYTES: usize = 4;

/// Steps of k that are read side by side. 3 x 2304 x 768 on Zen 5: 87 % of the f32 peak with 32, 119 with 128, 150 with 512; 1 x 4096 x 4096, which comes from memory, the other way
/// round: 14, 10, 10.
pub(super) const CHUNK: usize = 512;

/// Codes of 8-bit integers.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// The codes.
    pub codes: MatRef<'a, u8>,
    /// Whether they are i8.
    pub signed: bool,
    /// The code that stands for zero.
    pub zero: i32,
}

impl Bytes<'_> {
    /// A value is `(code ^ flip) - less`.
    fn offsets(&self) -> (u8, i16) {
        let (flip, less) = if self.signed { (0x80, 128) } else { (0, 0) };
        (flip, less + self.zero as i16)
    }
}

/// Columns `cols` of `lhs rhs`, or these added to `dst`: an rhs of [`FEW_ROWS_COLS`] columns or more whose rows lie side by side, and up to [`FEW_ROWS_BYTES`] rows.
///
/// # Panics
/// If there are more rows or fewer columns up to the last, the operands do not fit each other and the result, or a row of the rhs does not lie side by side.
pub fn few_rows_bytes(
    isa: Isa,
    lhs: Bytes<'_>,
    rhs: Bytes<'_>,
    cols: Range<usize>,
    dst: &mut Band<'_, i32>,
    add: bool,
) {
    let (a, b) = (lhs.codes, rhs.codes);
    assert!(a.rows() == dst.m() && cols.len() == dst.n() && a.cols() == b.rows());
    assert!(cols.end >= FEW_ROWS_COLS && cols.end <= b.cols());
    let work = Work { lhs, rhs, cols, dst, add };
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = isa.dots() {
        return few_rows_dot(token, work);
    }
    isa.dispatch_but_dots(work);
}

/// What [`few_rows_bytes`] is given.
pub(super) struct Work<'a, 'b, 'c> {
    pub lhs: Bytes<'a>,
    pub rhs: Bytes<'a>,
    pub cols: Range<usize>,
    pub dst: &'b mut Band<'c, i32>,
    pub add: bool,
}

impl WithSimd for Work<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Work { lhs, rhs, cols, dst, add } = self;
        let lanes = <S as Lanes<i32>>::LANES;
        macro_rules! strip {
            ($v:literal, $masked:literal, $from:expr, $to:expr, ($m:literal, $units:ident, $steps:ident, $keep:ident)) => {{
                let end = cols.start + $to;
                let codes = rhs.codes.part($steps.clone(), end - $v * lanes..end);
                let (units, rhs, keep) = (&$units, Bytes { codes, ..rhs }, $keep);
                s.apart(Strip::<$m, $v> { units, rhs, dst, keep, own: $from..$to });
            }};
        }
        macro_rules! chunks {
            ($m:literal, $vectors:tt) => {
                for first in (0..rhs.codes.rows()).step_by(CHUNK) {
                    let steps = first..rhs.codes.rows().min(first + CHUNK);
                    let (units, keep) = (units::<$m>(lhs, steps.clone()), add || first > 0);
                    strips!(lanes, cols.len(), strip, $vectors, ($m, units, steps, keep));
                }
            };
        }
        // Vectors of a strip: first as many as there are registers for sums.
        if const { <S as Lanes<i32>>::LANES == 16 } {
            match dst.m() {
                1 => chunks!(1, [16 4 1]),
                2 => chunks!(2, [12 4 1]),
                3 => chunks!(3, [8 2 1]),
                4 => chunks!(4, [6 2 1]),
                rows => unreachable!("{rows} rows are not few"),
            }
        } else {
            match dst.m() {
                1 => chunks!(1, [8 1]),
                2 => chunks!(2, [4 1]),
                3 => chunks!(3, [2 1]),
                4 => chunks!(4, [2 1]),
                rows => unreachable!("{rows} rows are not few"),
            }
        }
    }
}

/// Some steps of k of each row, in pairs; a step without a neighbour has a zero.
#[inline(always)]
fn units<const M: usize>(lhs: Bytes<'_>, steps: Range<usize>) -> [[I16x2; M]; CHUNK / 2] {
    let (flip, less) = lhs.offsets();
    let mut units = [[I16x2(0); M]; CHUNK / 2];
    for (k, step) in steps.enumerate() {
        for (row, unit) in units[k / 2].iter_mut().enumerate() {
            let value = i16::from(lhs.codes.at(row, step) ^ flip) - less;
            unit.0 |= u32::from(value as u16) << (16 * (k % 2));
        }
    }
    units
}

/// `V` vectors of columns, of which the last are the result's `own`.
struct Strip<'a, 'b, 'c, const M: usize, const V: usize> {
    units: &'b [[I16x2; M]; CHUNK / 2],
    rhs: Bytes<'a>,
    dst: &'b mut Band<'c, i32>,
    keep: bool,
    own: Range<usize>,
}

impl<S: Simd, const M: usize, const V: usize> WithToken<S> for Strip<'_, '_, '_, M, V> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Strip { units, rhs, dst, keep, own } = self;
        let lanes = <S as Lanes<i32>>::LANES;
        let (flip, less) = rhs.offsets();
        let mut acc = [[Lanes::<i32>::splat(s, 0); V]; M];
        let mut rows = rhs.codes.down();
        let mut pairs = units.iter();
        while let (Some(even), Some(pair)) = (rows.next(), pairs.next()) {
            // Where there is no other row, its factor is zero.
            let odd = rows.next().unwrap_or(even);
            let mut a = [s.splat_unit(I16x2(0)); M];
            for (a, &unit) in a.iter_mut().zip(pair) {
                *a = s.splat_unit(unit);
            }
            for v in 0..V {
                let b = s.byte_pairs([&even[v * lanes..], &odd[v * lanes..]], flip, less);
                for (acc, &a) in acc.iter_mut().zip(&a) {
                    acc[v] = Dot::<I16x2>::dot(s, a, b, acc[v]);
                }
            }
        }
        // A whole strip has none but its own.
        let others = V * lanes - own.len();
        for (i, acc) in acc.iter().enumerate() {
            let row = &mut dst.row(i)[own.clone()];
            for (v, &acc) in acc.iter().enumerate() {
                let mut sums = [0; 16];
                s.store(&mut sums, acc);
                let at = (v * lanes).saturating_sub(others);
                let out = &mut row[at..(v + 1) * lanes - others];
                for (out, &sum) in out.iter_mut().zip(&sums[others..]) {
                    *out = if keep { out.wrapping_add(sum) } else { sum };
                }
            }
        }
    }
}
