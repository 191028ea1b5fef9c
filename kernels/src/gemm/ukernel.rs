//! The microkernels, written once over lanes and over what a lane of a panel holds.
//!
//! ```text
//! acc[0..m][0..nv] = +0.0
//! for each unit of k:   b[0..nv] = load the row of NR rhs units
//!                       for i in 0..m:  acc[i][..] = dot(splat(lhs[i]), b[..], acc[i][..])
//! dst = segment(acc)                (Replace)
//! dst = dst + segment(acc)          (Add)
//! ```
//!
//! For floats `dot` is one fma a place of k and `segment(acc)` is `acc + 0.0`: N1 and N2 of the contract. For integers both are exact, and `segment`
//! takes the zero points that are still in the products (N4). Any `m <= MR` and `n <= NR` is accepted:
//! rows are cut by choosing the kernel of that height, columns by whole vectors and one masked store.
//!
//! Register budgets:
//!
//! | ISA | registers | f32 tile | accumulators + rhs + lhs |
//! |---|---|---|---|
//! | AVX2 | 16 | 6 x 16 | 12 + 2 + 1 = 15 |
//! | AVX-512 | 32 | 8 x 48 | 24 + 3 + 1 = 28 |
//! | NEON | 32 | 8 x 12 | 24 + 3 + 1 = 28 |
//! | portable | - | 4 x 16 | the fma itself needs the registers |
//!
//! The dot products of AVX-512 have the f32 tile: the loop is the same with a pair of bf16 or four bytes where an f32 was.

use bytemuck::Zeroable;

use crate::mat::{Band, PANEL_COLS, Panel, WriteRows};
#[cfg(target_arch = "aarch64")]
use crate::simd::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::x86::{Avx2, Avx512, Avx512Dot};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Bf16x2, I8x4, WideBf16x2};
use crate::simd::{Dot, I16x2, Lanes, Portable, Unit, prefetch};

use super::in_place::NEAR;

/// What happens to the result that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is never read.
    Replace,
    /// The segment is added to it.
    Add,
}

/// Where a microkernel writes: rows `row..row + m` and the first `n` columns of a panel.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The first row.
    pub row: usize,
    /// Rows, at most MR.
    pub m: usize,
    /// Columns, all that the panel has, at most NR.
    pub n: usize,
}

/// The microkernel of one kind of panel on one instruction set.
pub trait Ukernel<U: Unit>: Dot<U> {
    /// Rows of the tile: lanes of an lhs panel.
    const MR: usize;
    /// Columns of the tile: lanes of an rhs panel.
    const NR: usize;
    /// `<format>_gemm_<MR>x<NR>c<K>__<isa>`, without `c1`.
    const NAME: &'static str;
    /// Multiplies one lhs panel by one rhs panel into a place of `dst`.
    fn tile(self, lhs: &[U], rhs: &[U], dst: &mut Panel<'_, U::Acc>, at: Place, write: Write);
}

/// The accumulators of a tile of `M` rows and `NV` vectors, from panels of `MR` and `FULL` vectors without their tails.
#[inline(always)]
fn accumulate<U: Unit, S: Dot<U>, const MR: usize, const FULL: usize, const M: usize, const NV: usize>(
    s: S,
    lhs: &[U],
    rhs: &[U],
) -> [[S::V; NV]; M] {
    let mut acc = [[s.splat(U::Acc::zeroed()); NV]; M];
    for (a, b) in lhs.chunks_exact(MR).zip(rhs.chunks_exact(FULL * S::LANES)) {
        let mut row = [s.splat_unit(U::ZERO); NV];
        for (j, row) in row.iter_mut().enumerate() {
            prefetch(b.as_ptr().wrapping_add((NEAR * FULL + j) * S::LANES));
            *row = s.load_units(&b[j * S::LANES..]);
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = s.splat_unit(a[i]);
            for (acc, &b) in acc.iter_mut().zip(&row) {
                *acc = s.dot(a, b, *acc);
            }
        }
    }
    acc
}

#[inline(always)]
fn tile<U: Unit, S: Dot<U>, const MR: usize, const FULL: usize, const M: usize, const NV: usize>(
    s: S,
    lhs: &[U],
    rhs: &[U],
    dst: &mut Panel<'_, U::Acc>,
    at: Place,
    write: Write,
) {
    let Place { row, n, .. } = at;
    if let Some(band) = dst.band(row, M) {
        for row in 0..M {
            band.prefetch(row, NV * <S as Lanes<U::Acc>>::LANES);
        }
    }
    let zero = U::Acc::zeroed();
    let (lhs, row_tail) = lhs.split_at(lhs.len() - U::TAIL * MR);
    let (rhs, col_tail) = rhs.split_at(rhs.len() - U::TAIL * FULL * S::LANES);
    let mut tails = Tails { rows: [[zero; 2]; M], cols: [[s.splat(zero); 2]; NV] };
    if U::TAIL == 2 {
        let (row_tail, col_tail): (&[U::Acc], &[U::Acc]) =
            (bytemuck::cast_slice(row_tail), bytemuck::cast_slice(col_tail));
        for (i, row) in tails.rows.iter_mut().enumerate() {
            *row = [row_tail[i], row_tail[MR + i]];
        }
        for (j, cols) in tails.cols.iter_mut().enumerate() {
            let at = j * S::LANES;
            *cols = [s.load(&col_tail[at..]), s.load(&col_tail[FULL * S::LANES + at..])];
        }
    }
    let acc = accumulate::<U, S, MR, FULL, M, NV>(s, lhs, rhs);
    if let Some(mut band) = dst.band(row, M) {
        write_out::<U, S, M, NV>(s, &acc, &tails, &mut band, write);
        return;
    }
    let mut copy = [[zero; PANEL_COLS]; M];
    if write == Write::Add {
        for (i, copy) in copy.iter_mut().enumerate() {
            dst.read_row(row + i, copy);
        }
    }
    let mut band = Band::row_major(copy.as_flattened_mut(), M, PANEL_COLS);
    write_out::<U, S, M, NV>(s, &acc, &tails, &mut band.part(0..M, 0..n), write);
    for (i, copy) in copy.iter().enumerate() {
        dst.write_row(row + i, copy);
    }
}

/// What the tails of both panels say of rows and columns.
struct Tails<A, V, const M: usize, const NV: usize> {
    rows: [[A; 2]; M],
    cols: [[V; 2]; NV],
}

/// Sums into their place in the result. With one way through each row, all of it is unrolled and no sum goes through memory.
/// Not one function with that of `in_place.rs`: sharing its rows cost int8 products of 64 to 256 2 to 5 percent, both ways that were tried.
#[inline(always)]
fn write_out<U: Unit, S: Dot<U>, const M: usize, const NV: usize>(
    s: S,
    acc: &[[S::V; NV]; M],
    tails: &Tails<U::Acc, S::V, M, NV>,
    dst: &mut Band<'_, U::Acc>,
    write: Write,
) {
    let last = dst.n() - (NV - 1) * S::LANES;
    for (i, acc) in acc.iter().enumerate() {
        let row = dst.row(i);
        for (j, &acc) in acc.iter().enumerate() {
            let segment = s.segment(acc, tails.rows[i], tails.cols[j]);
            let at = &mut row[j * S::LANES..];
            if j + 1 < NV || last == S::LANES {
                let sum = if write == Write::Add { s.add(s.load(at), segment) } else { segment };
                s.store(at, sum);
            } else {
                let sum =
                    if write == Write::Add { s.add(s.load_first_n(at, last), segment) } else { segment };
                s.store_first_n(at, last, sum);
            }
        }
    }
}

/// One row of the kernel table: the tile of `$mr` rows and `$nv` vectors, and all its edges.
macro_rules! ukernel {
    ($t:ty, $token:ty, $name:literal, $mr:literal x $nv:literal, rows: $($m:literal)*, vectors: $vectors:tt) => {
        impl Ukernel<$t> for $token {
            const MR: usize = $mr;
            const NR: usize = $nv * <$token as Lanes<<$t as Unit>::Acc>>::LANES;
            const NAME: &'static str = $name;
            #[inline(always)]
            fn tile(self, lhs: &[$t], rhs: &[$t], dst: &mut Panel<'_, <$t as Unit>::Acc>, at: Place, write: Write) {
                let vectors = at.n.div_ceil(<$token as Lanes<<$t as Unit>::Acc>>::LANES);
                $(ukernel!(@row $t, $token, $mr, $nv, $m, $vectors, self, vectors, lhs, rhs, dst, at, write);)*
                unreachable!("no tile for {at:?}");
            }
        }
    };
    (@row $t:ty, $token:ty, $mr:literal, $nv:literal, $m:literal, [$($v:literal)*],
     $s:ident, $lanes:ident, $lhs:ident, $rhs:ident, $dst:ident, $at:ident, $write:ident) => {$(
        if $at.m == $m && $lanes == $v {
            return tile::<$t, $token, $mr, $nv, $m, $v>($s, $lhs, $rhs, $dst, $at, $write);
        }
    )*};
}

ukernel!(f32, Portable, "f32_gemm_4x16__portable", 4 x 2, rows: 4 3 2 1, vectors: [2 1]);
ukernel!(f64, Portable, "f64_gemm_4x8__portable", 4 x 2, rows: 4 3 2 1, vectors: [2 1]);
#[cfg(target_arch = "aarch64")]
ukernel!(f32, Neon, "f32_gemm_8x12__neon", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "aarch64")]
ukernel!(f64, Neon, "f64_gemm_8x6__neon", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(f32, Avx2, "f32_gemm_6x16__avx2", 6 x 2, rows: 6 5 4 3 2 1, vectors: [2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(f64, Avx2, "f64_gemm_6x8__avx2", 6 x 2, rows: 6 5 4 3 2 1, vectors: [2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(f32, Avx512, "f32_gemm_8x48__avx512", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(f64, Avx512, "f64_gemm_8x24__avx512", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(f32, Avx512Dot, "f32_gemm_8x48__avx512dot", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(f64, Avx512Dot, "f64_gemm_8x24__avx512dot", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
ukernel!(I16x2, Portable, "i8_gemm_4x16c2__portable", 4 x 2, rows: 4 3 2 1, vectors: [2 1]);
#[cfg(target_arch = "aarch64")]
ukernel!(I16x2, Neon, "i8_gemm_8x12c2__neon", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(I16x2, Avx2, "i8_gemm_6x16c2__avx2", 6 x 2, rows: 6 5 4 3 2 1, vectors: [2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(I16x2, Avx512, "i8_gemm_8x48c2__avx512", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(I16x2, Avx512Dot, "i8_gemm_8x48c2__avx512dot", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(I8x4, Avx512Dot, "i8_gemm_8x48c4__avx512dot", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(Bf16x2, Avx512Dot, "bf16_gemm_8x48c2__avx512dot", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
#[cfg(target_arch = "x86_64")]
ukernel!(WideBf16x2, Avx512Dot, "bf16_gemm_8x48c2wide__avx512dot", 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [3 2 1]);
