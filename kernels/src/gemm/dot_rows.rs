//! Rows of bytes, multiplied where they lie by the dot product of four bytes.
//!
//! ```text
//! acc[0..M][0..NV] = 0
//! for each run of k, for each four bytes of it:
//!   b[0..NV] = load 48 units of the panel
//!   for i in 0..M:  acc[i][..] = dot(splat(four bytes of row i), b[..], acc[i][..])
//! dst = acc    (Replace)        dst = dst + acc    (Add)
//! ```
//!
//! A row is a run of bytes, or several at the same distances in every row: the lines of a kernel over channels-last activations. Codes are multiplied as they are, u8 by i8; zero points are made good in
//! the sums afterwards ([`super::ByteKernel::make_good`]).

use std::ops::Range;

use crate::mat::{Band, Down, MatRef, Quads, WriteRows};
use crate::simd::x86::Avx512Dot;
use crate::simd::{Dot, I8x4, Lanes, Simd, Unit, WithToken};

use super::Write;
use super::in_place::NEAR;

/// Rows of a tile at most.
const MR: usize = 8;
/// Columns of a panel.
const NR: usize = 48;
/// Columns of a vector of sums.
const LANES: usize = <Avx512Dot as Lanes<i32>>::LANES;

/// A vector of sums.
type Sum = <Avx512Dot as Lanes<i32>>::V;

/// Some rows of bytes by the panels of a block: `dst = lhs rhs`, or that added to it.
pub(super) struct Rows<'a, 'b, 'c> {
    pub(super) line: Line<'a>,
    /// Panels of 48 columns of i8.
    pub(super) panels: &'a [I8x4],
    /// Rows of units of a panel, and which of them meets the first run.
    pub(super) lines: usize,
    pub(super) from: usize,
    pub(super) dst: &'b mut Band<'c, i32>,
    pub(super) write: Write,
}

/// Rows that are some runs of the rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) lhs: MatRef<'a, u8>,
    /// The column at which each run begins.
    pub(super) runs: &'a [usize],
    /// Bytes of a run, a multiple of 4.
    pub(super) len: usize,
}

impl WithToken<Avx512Dot> for Rows<'_, '_, '_> {
    type Output = ();
    /// # Panics
    /// If the result has other rows than the lhs, a panel is shorter, or a run leaves the lhs.
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) {
        let Rows { line, panels, lines, from, dst, write } = self;
        let (m, n, units) = (line.lhs.rows(), dst.n(), line.runs.len() * (line.len / 4));
        assert!(m == dst.m() && line.len.is_multiple_of(4));
        for (panel, col) in (0..n).step_by(NR).enumerate() {
            let rhs = &panels[(panel * lines + from) * NR..][..units * NR];
            let rhs = MatRef::row_major(rhs, units, NR);
            let cols = col..n.min(col + NR);
            // Tiles as high as each other, or one row higher.
            let tiles = m.div_ceil(MR).max(1);
            let (each, higher) = (m / tiles, m % tiles);
            let first = higher * (each + 1);
            for (rows, height) in [(0..first, each + 1), (first..m, each)] {
                if !rows.is_empty() {
                    let mut dst = dst.part(rows.clone(), cols.clone());
                    tiles_of(s, height, line, rows, rhs, &mut dst, write);
                }
            }
        }
    }
}

/// `acc` and the products of a run. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn over_run<const M: usize, const NV: usize>(
    s: Avx512Dot,
    quads: Quads<'_, M>,
    units: &mut Down<'_, I8x4>,
    mut acc: [[Sum; NV]; M],
) -> [[Sum; NV]; M] {
    for quad in quads {
        let Some(b) = units.next() else { break };
        let mut row = [Dot::<I8x4>::splat_unit(s, I8x4::ZERO); NV];
        for (j, row) in row.iter_mut().enumerate() {
            units.prefetch(NEAR, j * LANES);
            *row = Dot::<I8x4>::load_units(s, &b[j * LANES..]);
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = Dot::<I8x4>::splat_unit(s, quad.at(i));
            for (acc, &b) in acc.iter_mut().zip(&row) {
                *acc = Dot::<I8x4>::dot(s, a, b, *acc);
            }
        }
    }
    acc
}

/// Tiles one below the other, in a function of its own: a short k should not pay for a call a tile.
struct Tiles<'a, 'b, 'c, const M: usize, const NV: usize> {
    line: Line<'a>,
    rows: Range<usize>,
    rhs: MatRef<'a, I8x4>,
    dst: &'b mut Band<'c, i32>,
    write: Write,
}

impl<const M: usize, const NV: usize> WithToken<Avx512Dot> for Tiles<'_, '_, '_, M, NV> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) {
        let Tiles { line, rows, rhs, dst, write } = self;
        let mut row = rows.start;
        while row < rows.end {
            let (at, end) = (row - rows.start, row + M);
            let mut dst = dst.part(at..at + M, 0..dst.n());
            for row in 0..M {
                dst.prefetch(row);
            }
            let mut acc = [[Lanes::<i32>::splat(s, 0); NV]; M];
            let mut units = rhs.down_close(NR);
            for &from in line.runs {
                let quads = line.lhs.part(row..end, from..from + line.len).quads::<M>();
                acc = over_run(s, quads, &mut units, acc);
            }
            write_out(s, &acc, &mut dst, write);
            row = end;
        }
    }
}

#[inline(always)]
fn write_out<const M: usize, const NV: usize>(
    s: Avx512Dot,
    acc: &[[Sum; NV]; M],
    dst: &mut Band<'_, i32>,
    write: Write,
) {
    let last = dst.n() - (NV - 1) * LANES;
    for (i, acc) in acc.iter().enumerate() {
        let row = dst.row(i);
        for (j, &acc) in acc.iter().enumerate() {
            let at = &mut row[j * LANES..];
            let n = if j + 1 < NV { LANES } else { last };
            let mut sum = acc;
            if write == Write::Add {
                let old: Sum = if n == LANES { s.load(at) } else { s.load_first_n(at, n) };
                sum = Lanes::<i32>::add(s, old, acc);
            }
            if n == LANES {
                s.store(at, sum);
            } else {
                s.store_first_n(at, n, sum);
            }
        }
    }
}

macro_rules! tiles {
    ($($m:literal)*, $vectors:tt) => {
        /// Tiles of `m` rows each and of up to [`NR`] columns.
        #[inline(always)]
        fn tiles_of(
            s: Avx512Dot,
            m: usize,
            line: Line<'_>,
            rows: Range<usize>,
            rhs: MatRef<'_, I8x4>,
            dst: &mut Band<'_, i32>,
            write: Write,
        ) {
            let vectors = dst.n().div_ceil(LANES);
            $(tiles!(@row $m, $vectors, s, m, vectors, line, rows, rhs, dst, write);)*
            unreachable!("no tile of {m} rows and {vectors} vectors");
        }
    };
    (@row $m:literal, [$($nv:literal)*], $s:ident, $height:ident, $vectors:ident, $line:ident, $rows:ident, $rhs:ident, $dst:ident, $write:ident) => {$(
        if $height == $m && $vectors == $nv {
            return $s.apart(Tiles::<$m, $nv> { line: $line, rows: $rows, rhs: $rhs, dst: $dst, write: $write });
        }
    )*};
}
tiles!(8 7 6 5 4 3 2 1, [3 2 1]);
