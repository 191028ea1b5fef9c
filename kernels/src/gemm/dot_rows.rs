//! Rows of four-byte units, multiplied where they lie: of four 8-bit integers or two bf16 by their dot product, of one f32.
//!
//! ```text
//! acc[0..M][0..NV] = 0
//! for each run of k, for each unit of it:
//!   b[0..NV] = load a row of units of the panel
//!   for i in 0..M:  acc[i][..] = dot(splat(the unit of row i), b[..], acc[i][..])
//! dst = acc + 0    (Replace)        dst = dst + (acc + 0)    (Add)
//! ```
//!
//! A row is a run of units, or several at the same distances in every row: the lines of a kernel over channels-last activations. Integers are multiplied as they are, u8 by i8; zero points are made
//! good in the sums afterwards ([`super::ByteKernel::make_good`]). Units of bf16 lie as in a panel, the earlier one in the upper half.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::isa::Isa;
use crate::mat::{Band, Chunks, Down, MatMut, MatRef, WriteRows};
use crate::simd::x86::Avx512Dot;
use crate::simd::{Bf16x2, Dot, I8x4, Lanes, Simd, Unit, WideBf16x2, WithToken};

use super::in_place::NEAR;
use super::{Lines, Write};

/// Bytes of a unit.
const UNIT: usize = 4;
/// Columns of a vector of sums.
const LANES: usize = 16;
/// Vectors of a panel: three or, of a panel of its own, four.
const VECTORS: [usize; 2] = [3, 4];

/// A vector of sums.
type Sum<U> = <Avx512Dot as Lanes<<U as Unit>::Acc>>::V;

/// Units that are read where they lie.
pub(super) trait InRows: Unit {
    /// Whether there are tiles of any height: others are four rows high, or one.
    const ANY_HEIGHT: bool = true;
}

impl InRows for I8x4 {}
impl InRows for Bf16x2 {}
impl InRows for f32 {}
impl InRows for WideBf16x2 {
    const ANY_HEIGHT: bool = false;
}

/// Some rows by the panels of a block: `dst = lhs rhs`, or that added to it.
pub(super) struct Rows<'a, 'b, 'c, U: Unit> {
    pub(super) line: Line<'a>,
    pub(super) panels: Panels<'a, U>,
    pub(super) dst: &'b mut Band<'c, U::Acc>,
    pub(super) write: Write,
}

/// Panels of an rhs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a, U> {
    pub(super) units: &'a [U],
    /// Columns of a panel: 48 or, of a single one, 64.
    pub(super) width: usize,
    /// Rows of units of a panel, and which of them meets the first run.
    pub(super) lines: usize,
    pub(super) from: usize,
}

/// Rows that are some runs of the rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) lhs: MatRef<'a, u8>,
    /// The bytes at which each run begins, and how many it has: a multiple of a unit's.
    pub(super) runs: &'a [(usize, usize)],
}

/// Rows of a tile of so many vectors at most: 24 sums, or as many rows as are read from one address.
const fn tallest(vectors: usize) -> usize {
    match vectors {
        1 => 16,
        2 => 12,
        3 => 8,
        _ => 6,
    }
}

/// Columns of a panel whose tiles have so many vectors.
const fn width(vectors: usize) -> usize {
    LANES * if vectors == VECTORS[1] { VECTORS[1] } else { VECTORS[0] }
}

/// `m` rows as tiles of two heights of at most `most`, one row apart; of units that have few heights, of four rows and of one.
fn heights<U: InRows>(m: usize, most: usize) -> [(Range<usize>, usize); 2] {
    if !U::ANY_HEIGHT {
        let whole = m / 4 * 4;
        return [(0..whole, 4), (whole..m, 1)];
    }
    let tiles = m.div_ceil(most).max(1);
    let (each, higher) = (m / tiles, m % tiles);
    let first = higher * (each + 1);
    [(0..first, each + 1), (first..m, each)]
}

impl<U: InRows> WithToken<Avx512Dot> for Rows<'_, '_, '_, U>
where
    Avx512Dot: Dot<U>,
{
    type Output = ();
    /// # Panics
    /// If the result has other rows than the lhs, a panel is shorter or of another width, or a run leaves the lhs.
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) {
        let Rows { line, panels: Panels { units, width, lines, from }, dst, write } = self;
        let whole = line.runs.iter().all(|run| run.1.is_multiple_of(UNIT));
        let count = line.runs.iter().map(|run| run.1 / UNIT).sum();
        let (m, n) = (line.lhs.rows(), dst.n());
        assert!(m == dst.m() && whole);
        for (panel, col) in (0..n).step_by(width).enumerate() {
            let rhs = &units[(panel * lines + from) * width..][..count * width];
            let rhs = MatRef::row_major(rhs, count, width);
            let cols = col..n.min(col + width);
            for (rows, height) in heights::<U>(m, tallest(cols.len().div_ceil(LANES))) {
                if !rows.is_empty() {
                    let mut dst = dst.part(rows.clone(), cols.clone());
                    tiles_of(s, height, line, rows, rhs, &mut dst, write);
                }
            }
        }
    }
}

/// Some lines by the columns of panels of `width` into rows of `dst`, a line behind the other; see [`super::ByteKernel::multiply_lines`].
pub(super) fn multiply_lines<U: InRows>(
    isa: Isa,
    lhs: Lines<'_, '_>,
    (panels, width, lines, from): (&[u8], usize, usize, usize),
    (dst, batch, rows, cols): (&mut MatMut<'_, U::Acc>, usize, Range<usize>, Range<usize>),
    write: Write,
) where
    Avx512Dot: Dot<U>,
{
    let dots = isa.dots().expect("the kernel was made where there are dot products");
    let units: &[U] = bytemuck::cast_slice(panels);
    let mut band = dst.band(batch, rows, cols.clone());
    // A panel at a time: what of it is met stays in the first-level cache while the lines pass.
    for (panel, col) in (0..cols.len()).step_by(width).enumerate() {
        let (n, mut row) = (width.min(cols.len() - col), 0);
        let units = &units[panel * lines * width..][..lines * width];
        for &line in lhs.lines {
            let dst = &mut band.part(row..row + line.1, col..col + n);
            row += line.1;
            let panels = Panels { units, width, lines, from };
            dots.vectorize(Rows { line: Line { lhs: lhs.rows(line), runs: lhs.runs }, panels, dst, write });
        }
    }
}

/// `acc` and the products of a run. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn over_run<U: Unit, const M: usize, const NV: usize>(
    s: Avx512Dot,
    quads: Chunks<'_, u8, M, 4>,
    units: &mut Down<'_, U>,
    mut acc: [[Sum<U>; NV]; M],
) -> [[Sum<U>; NV]; M]
where
    Avx512Dot: Dot<U>,
{
    for quad in quads {
        let Some(b) = units.next() else { break };
        let mut row = [s.splat_unit(U::ZERO); NV];
        for (j, row) in row.iter_mut().enumerate() {
            units.prefetch(NEAR, j * LANES);
            *row = s.load_units(&b[j * LANES..]);
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = s.splat_unit(bytemuck::cast::<[u8; 4], U>(*quad.at(i)));
            for (acc, &b) in acc.iter_mut().zip(&row) {
                *acc = s.dot(a, b, *acc);
            }
        }
    }
    acc
}

/// Tiles one below the other, in a function of its own: a short k should not pay for a call a tile.
struct Tiles<'a, 'b, 'c, U: Unit, const M: usize, const NV: usize> {
    line: Line<'a>,
    rows: Range<usize>,
    rhs: MatRef<'a, U>,
    dst: &'b mut Band<'c, U::Acc>,
    write: Write,
}

impl<U: InRows, const M: usize, const NV: usize> WithToken<Avx512Dot> for Tiles<'_, '_, '_, U, M, NV>
where
    Avx512Dot: Dot<U>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) {
        let Tiles { line, rows, rhs, dst, write } = self;
        let mut row = rows.start;
        while row < rows.end {
            let (at, end) = (row - rows.start, row + M);
            let mut dst = dst.part(at..at + M, 0..dst.n());
            for row in 0..M {
                dst.prefetch(row, NV * LANES);
            }
            let mut acc = [[s.splat(U::Acc::zeroed()); NV]; M];
            let mut units = rhs.down_close(const { width(NV) });
            for &(from, len) in line.runs {
                let quads = line.lhs.part(row..end, from..from + len).chunks::<M, 4>();
                acc = over_run::<U, M, NV>(s, quads, &mut units, acc);
            }
            write_out::<U, M, NV>(s, &acc, &mut dst, write);
            row = end;
        }
    }
}

#[inline(always)]
fn write_out<U: Unit, const M: usize, const NV: usize>(
    s: Avx512Dot,
    acc: &[[Sum<U>; NV]; M],
    dst: &mut Band<'_, U::Acc>,
    write: Write,
) where
    Avx512Dot: Dot<U>,
{
    // All segments before the first is written: else sums would go through memory from run to run. No -0 leaves one of floats (N1); to integers it is nothing.
    let mut segments = *acc;
    for sums in &mut segments {
        for sum in sums {
            *sum = s.add(*sum, s.splat(U::Acc::zeroed()));
        }
    }
    let last = dst.n() - (NV - 1) * LANES;
    for (i, segments) in segments.iter().enumerate() {
        let row = dst.row(i);
        for (j, &segment) in segments.iter().enumerate() {
            let at = &mut row[j * LANES..];
            let n = if j + 1 < NV { LANES } else { last };
            let mut sum = segment;
            if write == Write::Add {
                let old = if n == LANES { s.load(at) } else { s.load_first_n(at, n) };
                sum = s.add(old, sum);
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
    ($($vectors:tt: $($m:literal)*;)*) => {
        /// Tiles of `m` rows each and of up to a panel's columns.
        #[inline(always)]
        fn tiles_of<U: InRows>(
            s: Avx512Dot,
            m: usize,
            line: Line<'_>,
            rows: Range<usize>,
            rhs: MatRef<'_, U>,
            dst: &mut Band<'_, U::Acc>,
            write: Write,
        ) where
            Avx512Dot: Dot<U>,
        {
            let vectors = dst.n().div_ceil(LANES);
            $($(tiles!(@row $m, $vectors, U, s, m, vectors, line, rows, rhs, dst, write);)*)*
            unreachable!("no tile of {m} rows and {vectors} vectors");
        }
    };
    (@row $m:literal, [$($nv:literal)*], $u:ident, $s:ident, $height:ident, $vectors:ident, $line:ident, $rows:ident, $rhs:ident, $dst:ident, $write:ident) => {$(
        if const { $u::ANY_HEIGHT || $m == 4 || $m == 1 } {
            if $height == $m && $vectors == $nv {
                let (line, rows, rhs, dst, write) = ($line, $rows, $rhs, $dst, $write);
                return $s.apart(Tiles::<$u, $m, $nv> { line, rows, rhs, dst, write });
            }
        }
    )*};
}
tiles!([3 2 1]: 8 7 6 5 4 3 2 1; [4]: 6 5 4 3 2 1; [2 1]: 12 11 10 9; [1]: 16 15 14 13;);
