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
//! The dot products of bf16 want two rows in turns and operands without subnormals: packing gives both, which a few rows do not pay for. A code is the upper half of
//! an f32, so a shift and a mask widen a vector, and what is computed is N1 to the letter.

use crate::KC;
use crate::isa::Isa;
use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithSimd, WithToken};

use super::Write;
use super::few_rows::finish;

/// Most rows.
pub const FEW_ROWS_BF16: usize = 4;

/// `dst = lhs rhs` or `dst += lhs rhs` of bf16 codes, for an rhs whose rows lie side by side and up to [`FEW_ROWS_BF16`] rows.
///
/// # Panics
/// If there are more, the operands do not fit each other and the result, or a row of the rhs does not lie side by side.
pub fn few_rows_bf16(
    isa: Isa,
    lhs: MatRef<'_, u16>,
    rhs: MatRef<'_, u16>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    assert!(lhs.rows() == dst.m() && rhs.cols() == dst.n() && lhs.cols() == rhs.rows());
    let write = if add { Write::Add } else { Write::Replace };
    isa.dispatch_but_dots(Rows { lhs, rhs, dst, write });
}

struct Rows<'a, 'b, 'c> {
    lhs: MatRef<'a, u16>,
    rhs: MatRef<'a, u16>,
    dst: &'b mut Band<'c, f32>,
    write: Write,
}

impl WithSimd for Rows<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Rows { lhs, rhs, dst, write } = self;
        // Vectors of pairs of a strip: first as many as there are registers for sums.
        macro_rules! strips {
            ($m:literal, $($v:literal)*) => {{
                let mut from = 0;
                $(
                    let width = $v * 2 * <S as Lanes<f32>>::LANES;
                    while rhs.cols() - from >= width {
                        s.apart(Strip::<$m, $v, false> { lhs, rhs, dst, write, from, to: from + width });
                        from += width;
                    }
                )*
                if from < rhs.cols() {
                    s.apart(Strip::<$m, 1, true> { lhs, rhs, dst, write, from, to: rhs.cols() });
                }
            }};
        }
        if const { <S as Lanes<f32>>::LANES == 16 } {
            match dst.m() {
                1 => strips!(1, 8 4 1),
                2 => strips!(2, 6 2 1),
                3 => strips!(3, 4 2 1),
                4 => strips!(4, 3 1),
                rows => unreachable!("{rows} rows are not few"),
            }
        } else {
            match dst.m() {
                1 => strips!(1, 4 1),
                2 => strips!(2, 2 1),
                3 => strips!(3, 2 1),
                4 => strips!(4, 1),
                rows => unreachable!("{rows} rows are not few"),
            }
        }
    }
}

/// `V` vectors of pairs of columns, `from..to`; of a `MASKED` one the last may be missing.
struct Strip<'a, 'b, 'c, const M: usize, const V: usize, const MASKED: bool> {
    lhs: MatRef<'a, u16>,
    rhs: MatRef<'a, u16>,
    dst: &'b mut Band<'c, f32>,
    write: Write,
    from: usize,
    to: usize,
}

impl<S: Simd, const M: usize, const V: usize, const MASKED: bool> WithToken<S>
    for Strip<'_, '_, '_, M, V, MASKED>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Strip { lhs, rhs, dst, mut write, from, to } = self;
        let pair = 2 * <S as Lanes<f32>>::LANES;
        let zero = Lanes::<f32>::splat(s, 0.0);
        for first in (0..rhs.rows()).step_by(KC) {
            let segment = first..rhs.rows().min(first + KC);
            let mut acc = [[[zero; 2]; V]; M];
            let mut rows = rhs.part(segment.clone(), from..to).down();
            let mut columns = lhs.part(0..M, segment).across::<M, false>();
            while let (Some(row), Some(column)) = (rows.next(), columns.next()) {
                let mut a = [zero; M];
                for (i, a) in a.iter_mut().enumerate() {
                    *a = Lanes::<f32>::splat(s, f32::from_bits(u32::from(column.at(i)) << 16));
                }
                for v in 0..V {
                    let [even, odd] = if MASKED {
                        let mut codes = [0; 32];
                        codes[..row.len()].copy_from_slice(row);
                        s.bf16_pairs(&codes)
                    } else {
                        s.bf16_pairs(&row[v * pair..])
                    };
                    for (acc, &a) in acc.iter_mut().zip(&a) {
                        acc[v][0] = FloatLanes::<f32>::mul_add(s, a, even, acc[v][0]);
                        acc[v][1] = FloatLanes::<f32>::mul_add(s, a, odd, acc[v][1]);
                    }
                }
            }
            for (i, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    let at = from + v * pair;
                    let row = &mut dst.row(i)[at..to.min(at + pair)];
                    let mut halves = [[0.0f32; 16]; 2];
                    Lanes::<f32>::store(s, &mut halves[0], acc[0]);
                    Lanes::<f32>::store(s, &mut halves[1], acc[1]);
                    let mut sums = [0.0f32; 32];
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = halves[i % 2][i / 2];
                    }
                    finish(s, &sums[..row.len()], row, write);
                }
            }
            write = Write::Add;
        }
    }
}
