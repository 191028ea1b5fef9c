//! A product whose rows of the lhs are neighbours in memory: the gradient of the weights of few input channels. Lanes are channels of the output, k goes over positions.
//!
//! ```text
//! for each segment of k, for each panel of channels, for each strip of vectors, for each few neighbours:
//!   acc[0..M][0..NV] = +0.0
//!   for each position:   b[0..NV] = the gradient of the output there
//!                        acc[i][..] = fma(splat(element i of the input there), b[..], acc[i][..])
//! ```
//!
//! All rows of a tile are read from one address, so that a tile may be as tall as there are registers for its sums, and as tall as leaves no row over: a line of a kernel of 3 with 3 channels is 9 rows.

use std::ops::Range;

use crate::KC;
use crate::axis::Window;
use crate::isa::Isa;
use crate::mat::{Down, LINES, MatMut, MatRef, Scattered, WriteRows};
use crate::pack::{Operand, Side, pack_along};
use crate::simd::{FloatLanes, Lanes, Simd, Unit, WithToken};

use super::in_place::{NEAR, write_out};
use super::windows::Stretch;
use super::{Real, Ukernel, Write};

/// Most rows of a product, which are put in order of where they lie.
pub const MOST_NEIGHBOURS: usize = LINES;

/// Rows of the tallest tile of 16 registers: sums, two vectors of the rhs and one element of the lhs.
const FEW: usize = 6;
/// The same of 32 registers.
const MANY: usize = 14;

/// Whether a token has as many registers: as its packed kernel has sums for.
const fn has_many<T: Unit, S: Ukernel<T> + Lanes<T>>() -> bool {
    <S as Ukernel<T>>::MR * <S as Ukernel<T>>::NR >= 24 * <S as Lanes<T>>::LANES
}

/// The rhs of such a product: k by columns.
#[derive(Debug)]
pub enum OutputGradient<'a, 'b, T> {
    /// Read where it lies, the columns of a row side by side, whole vectors of them.
    Here {
        /// The elements.
        data: &'a [T],
        /// Where the block's first row and column are.
        start: isize,
        /// From a row to the next.
        apart: usize,
    },
    /// Packed here, panel by panel of a segment: what a window reads of an operand, into scratch of one panel.
    Pack(&'b Window, Operand<'a>, &'b mut [T]),
}

/// A block of such a product, to be computed on one thread: `dst = lhs rhs`, or `dst += lhs rhs`.
#[derive(Debug)]
pub struct SideBySide<'a, 'b, 'c, T> {
    /// The elements of the input.
    pub data: &'a [T],
    /// How they are read: x are rows, k positions, which lie one behind the other along its innermost dim. Nothing is padding.
    pub window: &'b Window,
    /// Rows of the block, at most [`MOST_NEIGHBOURS`].
    pub rows: Range<usize>,
    /// Which part of k is summed up, from a whole segment on.
    pub k: Range<usize>,
    /// The gradient of the output.
    pub rhs: OutputGradient<'a, 'b, T>,
    /// Columns of a panel of it: whole vectors.
    pub width: usize,
    /// Columns of the block, from a whole panel on.
    pub cols: Range<usize>,
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which the block begins there.
    pub at: [usize; 3],
    /// Whether its old values count.
    pub add: bool,
}

/// Rows side by side in `data`, by a strip of the rhs, over a segment.
struct Tile<'a, 'b, T, const M: usize, const NV: usize> {
    data: &'a [T],
    /// Row 0 at offset 0 of k.
    first: isize,
    /// From a position to the next.
    step: usize,
    positions: &'b [Stretch],
    rhs: MatRef<'a, T>,
    dst: Scattered<'b, T>,
    write: Write,
}

/// `acc` and the products of neighbouring positions. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn over_line<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize>(
    s: S,
    lhs: Down<'_, T>,
    rhs: &mut Down<'_, T>,
    mut acc: [[S::V; NV]; M],
) -> [[S::V; NV]; M] {
    for a in lhs {
        let Some(b) = rhs.next() else { break };
        let mut row = [s.splat(T::zeroed()); NV];
        for (j, row) in row.iter_mut().enumerate() {
            rhs.prefetch(NEAR, j * S::LANES);
            *row = s.load(&b[j * S::LANES..]);
        }
        for (acc, &a) in acc.iter_mut().zip(&a[..M]) {
            let a = s.splat(a);
            for (acc, &b) in acc.iter_mut().zip(&row) {
                *acc = s.mul_add(a, b, *acc);
            }
        }
    }
    acc
}

impl<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize> WithToken<S> for Tile<'_, '_, T, M, NV> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tile { data, first, step, positions, rhs, mut dst, write } = self;
        for row in 0..M {
            dst.prefetch(row, NV * S::LANES);
        }
        let mut acc = [[s.splat(T::zeroed()); NV]; M];
        let mut rows = rhs.down();
        for line in positions {
            let lhs = MatRef::spread(data, first + line.offset, line.len, M, step).down();
            acc = over_line(s, lhs, &mut rows, acc);
        }
        write_out(s, &acc, &mut dst, write);
    }
}

impl<T: Real + Unit> SideBySide<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: Simd + FloatLanes<T> + Ukernel<T>>(&mut self, s: S, isa: Isa) {
        let (m, lanes) = (self.rows.len(), <S as Lanes<T>>::LANES);
        assert!(m <= MOST_NEIGHBOURS && self.window.is_plain() && self.width.is_multiple_of(lanes));
        let step = usize::try_from(self.window.k.inner().stride).expect("positions one behind the other");
        let (mut offsets, mut order) = ([0; MOST_NEIGHBOURS], [0; MOST_NEIGHBOURS]);
        self.window.lanes(self.rows.start, m, |row, lane| offsets[row] = lane.offset);
        for (row, place) in order.iter_mut().enumerate() {
            *place = row as u8;
        }
        order[..m].sort_unstable_by_key(|&row| offsets[usize::from(row)]);
        let mut stretches = [Stretch::NONE; KC];
        for first in self.k.clone().step_by(KC) {
            let segment = first..self.k.end.min(first + KC);
            let count = Stretch::all(&self.window.k, &segment, &mut stretches);
            let write = if first > self.k.start || self.add { Write::Add } else { Write::Replace };
            for col in self.cols.clone().step_by(self.width) {
                let cols = col..self.cols.end.min(col + self.width);
                let rhs = match &mut self.rhs {
                    OutputGradient::Here { data, start, apart } => {
                        let into = (first - self.k.start) * *apart + col - self.cols.start;
                        let start = *start + into as isize;
                        MatRef::spread(data, start, segment.len(), cols.len(), *apart)
                    }
                    OutputGradient::Pack(window, operand, panel) => {
                        let panel = &mut panel[..self.width * segment.len()];
                        let (bytes, now) = (bytemuck::cast_slice_mut(panel), segment.clone());
                        pack_along(
                            isa,
                            T::FORM,
                            Side::Rhs,
                            window,
                            *operand,
                            cols.clone(),
                            now,
                            self.width,
                            bytes,
                        );
                        MatRef::row_major(panel, segment.len(), self.width)
                    }
                };
                let to_rows = self.at[1]..self.at[1] + m;
                let to_col = self.at[2] + col - self.cols.start;
                let mut lines = self.dst.lines(self.at[0], to_rows, to_col..to_col + cols.len());
                lines.arrange(&order[..m]);
                for strip in (0..cols.len()).step_by(2 * lanes) {
                    let of_strip = strip..cols.len().min(strip + 2 * lanes);
                    let vectors = of_strip.len().div_ceil(lanes);
                    let rhs = rhs.part(0..segment.len(), strip..strip + vectors * lanes);
                    let most = if const { has_many::<T, S>() } { MANY } else { FEW };
                    let mut row = 0;
                    while row < m {
                        let first = offsets[usize::from(order[row])];
                        let beside = |i: usize| offsets[usize::from(order[row + i])] == first + i as isize;
                        let len = (1..m - row).find(|&i| !beside(i)).unwrap_or(m - row);
                        // Tiles of as equal a height as can be.
                        let tiles = len.div_ceil(most);
                        for tile in 0..tiles {
                            let of_tile = row + tile * len / tiles..row + (tile + 1) * len / tiles;
                            let (data, positions) = (self.data, &stretches[..count]);
                            let first = first + (of_tile.start - row) as isize;
                            let (height, dst) = (of_tile.len(), lines.part(of_tile, of_strip.clone()));
                            macro_rules! tile {
                                ($nv:literal: $($m:literal)*) => {
                                    match height {
                                        $($m => s.apart(Tile::<T, $m, $nv> { data, first, step, positions, rhs, dst, write }),)*
                                        _ => unreachable!("no tile of {height} rows"),
                                    }
                                };
                            }
                            match (const { has_many::<T, S>() }, vectors) {
                                (true, 1) => tile!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                                (true, _) => tile!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                                (false, 1) => tile!(1: 1 2 3 4 5 6),
                                (false, _) => tile!(2: 1 2 3 4 5 6),
                            }
                        }
                        row += len;
                    }
                }
            }
        }
    }
}

impl<T: Real> SideBySide<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side.
    pub fn compute(&mut self, isa: Isa) {
        T::side_by_side(isa, self);
    }
}
