//! Products of a few rows of 8-bit integers by a matrix of them whose rows lie side by side, read in place.
//!
//! ```text
//! for each CHUNK steps of k
//!   a[0..M] = the lhs less its zero point, neighbours along k in pairs
//!   for each strip of V vectors of columns
//!     acc[0..M][0..V] = 0 (Replace, the first chunk), or dst
//!     for each two k:   b[..] = two rows less their zero point, in turns
//!                       acc[i][..] += a[i][k] b[k][..] + a[i][k + 1] b[k + 1][..]
//!     dst = acc
//! ```
//!
//! Sums of integers are exact in any order (N4), so the result is where they gather, and the rows of a chunk are read from left to right.

use crate::isa::Isa;
use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{Dot, I16x2, Lanes, Simd, WithSimd, WithToken};

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

/// `dst = lhs rhs` or `dst += lhs rhs` for an rhs whose rows lie side by side and up to [`FEW_ROWS_BYTES`] rows.
///
/// # Panics
/// If there are more, the operands do not fit each other and the result, or a row of the rhs does not lie side by side.
pub fn few_rows_bytes(isa: Isa, lhs: Bytes<'_>, rhs: Bytes<'_>, dst: &mut Band<'_, i32>, add: bool) {
    let (a, b) = (lhs.codes, rhs.codes);
    assert!(a.rows() == dst.m() && b.cols() == dst.n() && a.cols() == b.rows());
    #[cfg(target_arch = "x86_64")]
    if let Isa::Avx512Dot(token) = isa {
        return few_rows_dot(token, lhs, rhs, dst, add);
    }
    isa.dispatch_but_dots(Rows { lhs, rhs, dst, add });
}

struct Rows<'a, 'b, 'c> {
    lhs: Bytes<'a>,
    rhs: Bytes<'a>,
    dst: &'b mut Band<'c, i32>,
    add: bool,
}

impl WithSimd for Rows<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Rows { lhs, rhs, dst, add } = self;
        // Vectors of a strip: first as many as there are registers for sums.
        macro_rules! strips {
            ($m:literal, $($v:literal)*) => {
                for first in (0..rhs.codes.rows()).step_by(CHUNK) {
                    let steps = first..rhs.codes.rows().min(first + CHUNK);
                    let units = units::<$m>(lhs, steps.clone());
                    let keep = add || first > 0;
                    let rhs = Bytes { codes: rhs.codes.part(steps, 0..rhs.codes.cols()), ..rhs };
                    let (n, mut from) = (rhs.codes.cols(), 0);
                    $(
                        let width = $v * <S as Lanes<i32>>::LANES;
                        while n - from >= width {
                            s.apart(Strip::<$m, $v, false> { units: &units, rhs, dst, keep, from, to: from + width });
                            from += width;
                        }
                    )*
                    if from < n {
                        s.apart(Strip::<$m, 1, true> { units: &units, rhs, dst, keep, from, to: n });
                    }
                }
            };
        }
        if const { <S as Lanes<i32>>::LANES == 16 } {
            match dst.m() {
                1 => strips!(1, 16 4 1),
                2 => strips!(2, 12 4 1),
                3 => strips!(3, 8 2 1),
                4 => strips!(4, 6 2 1),
                rows => unreachable!("{rows} rows are not few"),
            }
        } else {
            match dst.m() {
                1 => strips!(1, 8 1),
                2 => strips!(2, 4 1),
                3 => strips!(3, 2 1),
                4 => strips!(4, 2 1),
                rows => unreachable!("{rows} rows are not few"),
            }
        }
    }
}

/// Some steps of k of each row, in pairs; a step without a neighbour has a zero.
#[inline(always)]
fn units<const M: usize>(lhs: Bytes<'_>, steps: std::ops::Range<usize>) -> [[I16x2; M]; CHUNK / 2] {
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

/// `V` vectors of columns, `from..to`; of a `MASKED` one the last lanes are missing.
struct Strip<'a, 'b, 'c, const M: usize, const V: usize, const MASKED: bool> {
    units: &'b [[I16x2; M]; CHUNK / 2],
    rhs: Bytes<'a>,
    dst: &'b mut Band<'c, i32>,
    keep: bool,
    from: usize,
    to: usize,
}

impl<S: Simd, const M: usize, const V: usize, const MASKED: bool> WithToken<S>
    for Strip<'_, '_, '_, M, V, MASKED>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Strip { units, rhs, dst, keep, from, to } = self;
        let lanes = <S as Lanes<i32>>::LANES;
        let (flip, less) = rhs.offsets();
        let mut acc = [[Lanes::<i32>::splat(s, 0); V]; M];
        if keep {
            for (i, acc) in acc.iter_mut().enumerate() {
                let row = &dst.row(i)[from..to];
                for (v, acc) in acc.iter_mut().enumerate() {
                    let row = &row[v * lanes..];
                    *acc = if MASKED { s.load_first_n(row, row.len()) } else { s.load(row) };
                }
            }
        }
        let mut rows = rhs.codes.part(0..rhs.codes.rows(), from..to).down();
        let mut pairs = units.iter();
        while let (Some(even), Some(pair)) = (rows.next(), pairs.next()) {
            // Where there is no other row, its factor is zero.
            let odd = rows.next().unwrap_or(even);
            let mut a = [s.splat_unit(I16x2(0)); M];
            for (a, &unit) in a.iter_mut().zip(pair) {
                *a = s.splat_unit(unit);
            }
            for v in 0..V {
                let b = if MASKED {
                    let mut staged = [[0; 16]; 2];
                    staged[0][..even.len()].copy_from_slice(even);
                    staged[1][..odd.len()].copy_from_slice(odd);
                    s.byte_pairs([&staged[0], &staged[1]], flip, less)
                } else {
                    s.byte_pairs([&even[v * lanes..], &odd[v * lanes..]], flip, less)
                };
                for (acc, &a) in acc.iter_mut().zip(&a) {
                    acc[v] = Dot::<I16x2>::dot(s, a, b, acc[v]);
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            let row = &mut dst.row(i)[from..to];
            for (v, &acc) in acc.iter().enumerate() {
                let row = &mut row[v * lanes..];
                if MASKED { s.store_first_n(row, row.len(), acc) } else { s.store(row, acc) }
            }
        }
    }
}
