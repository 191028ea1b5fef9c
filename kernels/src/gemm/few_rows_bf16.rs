//! Products of a few rows of bf16 by a matrix of bf16 whose rows lie side by side, read in place.
//!
//! ```text
//! for each strip of V vectors of pairs of columns
//!   for each segment of k
//!     acc[0..M][0..V][even, odd] = +0.0
//!     for each k:   [even, odd] = the values of a row's codes
//!                   acc[i][..] = fma(a[i][k], [even, odd], acc[i][..])
//!     dst = acc + 0.0, or dst += acc + 0.0, even and odd columns in turns
//! ```
//!
//! The last strip ends where the rhs does and begins among columns of the one before; it writes its own only.
//!
//! The dot products of bf16 want two rows in turns and operands without subnormals: packing gives both, which a few rows do not pay for. A code is the upper half of
//! an f32, so a shift and a mask widen a vector, and what is computed is N1 to the letter.

use std::ops::Range;

use crate::KC;
use crate::isa::Isa;
use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithSimd, WithToken};

use super::Write;
use super::blocking::FEW_ROWS_COLS;
use super::few_rows::{finish, strips};

/// Most rows.
pub const FEW_ROWS_BF16: usize = 4;

/// Columns `cols` of `lhs rhs`, or these added to `dst`: bf16 codes, an rhs of [`FEW_ROWS_COLS`] columns or more whose rows lie side by side, and up to [`FEW_ROWS_BF16`] rows.
///
/// # Panics
/// If there are more rows or fewer columns up to the last, the operands do not fit each other and the result, or a row of the rhs does not lie side by side.
pub fn few_rows_bf16(
    isa: Isa,
    lhs: MatRef<'_, u16>,
    rhs: MatRef<'_, u16>,
    cols: Range<usize>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    assert!(lhs.rows() == dst.m() && cols.len() == dst.n() && lhs.cols() == rhs.rows());
    assert!(cols.end >= FEW_ROWS_COLS && cols.end <= rhs.cols());
    let write = if add { Write::Add } else { Write::Replace };
    isa.dispatch_but_dots(Rows { lhs, rhs, cols, dst, write });
}

struct Rows<'a, 'b, 'c> {
    lhs: MatRef<'a, u16>,
    rhs: MatRef<'a, u16>,
    cols: Range<usize>,
    dst: &'b mut Band<'c, f32>,
    write: Write,
}

impl WithSimd for Rows<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Rows { lhs, rhs, cols, dst, write } = self;
        let pair = 2 * <S as Lanes<f32>>::LANES;
        let n = cols.len();
        macro_rules! strip {
            ($v:literal, $masked:literal, $from:expr, $to:expr, $m:literal) => {{
                let end = cols.start + $to;
                let rhs = rhs.part(0..rhs.rows(), end - $v * pair..end);
                s.apart(Strip::<$m, $v> { lhs, rhs, dst, write, own: $from..$to })
            }};
        }
        // Vectors of pairs of a strip: first as many as there are registers for sums.
        if const { <S as Lanes<f32>>::LANES == 16 } {
            match dst.m() {
                1 => strips!(pair, n, strip, [8 4 1], 1),
                2 => strips!(pair, n, strip, [6 2 1], 2),
                3 => strips!(pair, n, strip, [4 2 1], 3),
                4 => strips!(pair, n, strip, [3 1], 4),
                rows => unreachable!("{rows} rows are not few"),
            }
        } else {
            match dst.m() {
                1 => strips!(pair, n, strip, [4 1], 1),
                2 => strips!(pair, n, strip, [2 1], 2),
                3 => strips!(pair, n, strip, [2 1], 3),
                4 => strips!(pair, n, strip, [1], 4),
                rows => unreachable!("{rows} rows are not few"),
            }
        }
    }
}

/// `V` vectors of pairs of columns, the last of which are those of the result that are its `own`.
struct Strip<'a, 'b, 'c, const M: usize, const V: usize> {
    lhs: MatRef<'a, u16>,
    rhs: MatRef<'a, u16>,
    dst: &'b mut Band<'c, f32>,
    write: Write,
    own: Range<usize>,
}

impl<S: Simd, const M: usize, const V: usize> WithToken<S> for Strip<'_, '_, '_, M, V> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Strip { lhs, rhs, dst, mut write, own } = self;
        let pair = 2 * <S as Lanes<f32>>::LANES;
        let zero = Lanes::<f32>::splat(s, 0.0);
        for first in (0..rhs.rows()).step_by(KC) {
            let segment = first..rhs.rows().min(first + KC);
            let mut acc = [[[zero; 2]; V]; M];
            let mut rows = rhs.part(segment.clone(), 0..rhs.cols()).down();
            let mut columns = lhs.part(0..M, segment).across::<M, false>();
            while let (Some(row), Some(column)) = (rows.next(), columns.next()) {
                let mut a = [zero; M];
                for (i, a) in a.iter_mut().enumerate() {
                    *a = Lanes::<f32>::splat(s, f32::from_bits(u32::from(column.at(i)) << 16));
                }
                for v in 0..V {
                    let [even, odd] = s.bf16_pairs(&row[v * pair..]);
                    for (acc, &a) in acc.iter_mut().zip(&a) {
                        acc[v][0] = FloatLanes::<f32>::mul_add(s, a, even, acc[v][0]);
                        acc[v][1] = FloatLanes::<f32>::mul_add(s, a, odd, acc[v][1]);
                    }
                }
            }
            // A whole strip has none but its own.
            let others = V * pair - own.len();
            for (i, acc) in acc.iter().enumerate() {
                let out = &mut dst.row(i)[own.clone()];
                for (v, acc) in acc.iter().enumerate() {
                    let mut halves = [[0.0f32; 16]; 2];
                    Lanes::<f32>::store(s, &mut halves[0], acc[0]);
                    Lanes::<f32>::store(s, &mut halves[1], acc[1]);
                    let mut sums = [0.0f32; 32];
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = halves[i % 2][i / 2];
                    }
                    let at = (v * pair).saturating_sub(others);
                    finish(
                        s,
                        &sums[..pair][others.min(pair)..],
                        &mut out[at..(v + 1) * pair - others],
                        write,
                    );
                }
            }
            write = Write::Add;
        }
    }
}
