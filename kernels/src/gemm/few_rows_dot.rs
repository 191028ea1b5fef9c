//! The products of `few_rows_bytes.rs` by dot products of four bytes.
//!
//! The instruction wants u8 by i8, so codes are moved by 128 where they are the other kind, and the zero points with them. Of values A and B with zero points a and b
//! the sum is `sum((A - a) B) - b sum(A - a)`: the lhs times B and a times B are added up side by side, the rest is one number a row.

use std::ops::Range;

use crate::mat::{Band, MatRef, WriteRows};
use crate::simd::x86::Avx512Dot;
use crate::simd::{Dot, I8x4, Lanes, Simd, WithToken};

use super::blocking::FEW_ROWS_COLS;
use super::few_rows_bytes::{Bytes, CHUNK, Work};

/// Columns of a strip.
const COLS: usize = 64;
const _: () = assert!(COLS <= FEW_ROWS_COLS);

/// Up to four rows.
pub(super) fn few_rows_dot(s: Avx512Dot, work: Work<'_, '_, '_>) {
    match work.dst.m() {
        1 => s.vectorize(Rows::<1>(work)),
        2 => s.vectorize(Rows::<2>(work)),
        3 => s.vectorize(Rows::<3>(work)),
        4 => s.vectorize(Rows::<4>(work)),
        rows => unreachable!("{rows} rows are not few"),
    }
}

struct Rows<'a, 'b, 'c, const M: usize>(Work<'a, 'b, 'c>);

impl<const M: usize> WithToken<Avx512Dot> for Rows<'_, '_, '_, M> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) {
        let Work { lhs, rhs, cols, dst, add } = self.0;
        for first in (0..rhs.codes.rows()).step_by(CHUNK) {
            let steps = first..rhs.codes.rows().min(first + CHUNK);
            let chunk = &Chunk::<M>::new(lhs, rhs, steps.clone());
            let keep = add || first > 0;
            for from in (0..cols.len()).step_by(COLS) {
                let own = from..cols.len().min(from + COLS);
                let end = cols.start + own.end;
                let codes = rhs.codes.part(steps.clone(), end - COLS..end);
                if chunk.zero[0] == I8x4(0) {
                    s.apart(Strip::<M, false> { chunk, codes, dst, keep, own });
                } else {
                    s.apart(Strip::<M, true> { chunk, codes, dst, keep, own });
                }
            }
        }
    }
}

/// Some steps of k of the lhs, in fours; what is missing in the last four is zero.
struct Chunk<const M: usize> {
    units: [[I8x4; M]; CHUNK / 4],
    /// The zero point of the lhs.
    zero: [I8x4; CHUNK / 4],
    /// Added to the sums of a row.
    more: [i32; M],
    /// What codes of the rhs are flipped by.
    flip: u8,
}

impl<const M: usize> Chunk<M> {
    #[inline(always)]
    fn new(lhs: Bytes<'_>, rhs: Bytes<'_>, steps: Range<usize>) -> Self {
        let (of_lhs, lhs_zero) = if lhs.signed { (0x80, lhs.zero + 128) } else { (0, lhs.zero) };
        let (flip, rhs_zero) = if rhs.signed { (0, rhs.zero) } else { (0x80, rhs.zero - 128) };
        let mut chunk =
            Chunk { units: [[I8x4(0); M]; CHUNK / 4], zero: [I8x4(0); CHUNK / 4], more: [0; M], flip };
        for (k, step) in steps.enumerate() {
            let shift = 8 * (k % 4);
            chunk.zero[k / 4].0 |= (lhs_zero as u32) << shift;
            for row in 0..M {
                let code = lhs.codes.at(row, step) ^ of_lhs;
                chunk.units[k / 4][row].0 |= u32::from(code) << shift;
                chunk.more[row] -= rhs_zero * (i32::from(code) - lhs_zero);
            }
        }
        chunk
    }
}

/// Columns of which the last are the result's `own`; `ZERO`: the lhs has a zero point.
struct Strip<'a, 'b, 'c, const M: usize, const ZERO: bool> {
    chunk: &'b Chunk<M>,
    codes: MatRef<'a, u8>,
    dst: &'b mut Band<'c, i32>,
    keep: bool,
    own: Range<usize>,
}

impl<const M: usize, const ZERO: bool> WithToken<Avx512Dot> for Strip<'_, '_, '_, M, ZERO> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) {
        let Strip { chunk, codes, dst, keep, own } = self;
        let none = Lanes::<i32>::splat(s, 0);
        let (mut acc, mut of_zero) = ([[none; 4]; M], [none; 4]);
        let mut rows = codes.down();
        let mut fours = 0..CHUNK / 4;
        while let (Some(a), Some(four)) = (rows.next(), fours.next()) {
            // Where there is no other row, its factor is zero.
            let b = rows.next().unwrap_or(a);
            let c = rows.next().unwrap_or(a);
            let d = rows.next().unwrap_or(a);
            let quads = s.byte_quads([a, b, c, d], chunk.flip);
            for (acc, &unit) in acc.iter_mut().zip(&chunk.units[four]) {
                let unit = s.splat_unit(unit);
                for (acc, &quad) in acc.iter_mut().zip(&quads) {
                    *acc = Dot::<I8x4>::dot(s, unit, quad, *acc);
                }
            }
            if ZERO {
                let zero = s.splat_unit(chunk.zero[four]);
                for (acc, &quad) in of_zero.iter_mut().zip(&quads) {
                    *acc = Dot::<I8x4>::dot(s, zero, quad, *acc);
                }
            }
        }
        let (zeros, others) = (in_order(s, of_zero), COLS - own.len());
        for (row, acc) in acc.iter().enumerate() {
            let sums = in_order(s, *acc);
            let more = chunk.more[row];
            let out = &mut dst.row(row)[own.clone()];
            for ((out, &sum), &zero) in out.iter_mut().zip(&sums[others..]).zip(&zeros[others..]) {
                let sum = sum.wrapping_sub(zero).wrapping_add(more);
                *out = if keep { out.wrapping_add(sum) } else { sum };
            }
        }
    }
}

/// Sums by quads of columns, as [`Avx512Dot::byte_quads`] has them, column by column.
#[inline(always)]
fn in_order(s: Avx512Dot, acc: [<Avx512Dot as Lanes<i32>>::V; 4]) -> [i32; COLS] {
    let mut out = [0; COLS];
    for (q, acc) in acc.into_iter().enumerate() {
        let mut lanes = [0; 16];
        Lanes::<i32>::store(s, &mut lanes, acc);
        for (l, four) in lanes.as_chunks::<4>().0.iter().enumerate() {
            out[16 * l + 4 * q..][..4].copy_from_slice(four);
        }
    }
    out
}
