//! A product whose lhs is read through a window, in place: a convolution without im2col.
//!
//! ```text
//! LOOP 4: k in segments of KC
//!   LOOP 3: rows (positions) in blocks whose input stays in a second-level cache
//!     LOOP 2: columns in panels of NR, packed before
//!       LOOP 1: rows in panels of MR: one microkernel
//! ```
//!
//! Each row of a tile has a place of its own. The channels of a kernel position lie side by side, so a tile goes over k run by run, a run a kernel
//! position; a row whose position is padding there reads zeros.

use std::ops::Range;

use crate::KC;
use crate::axis::{COORDS, Lane, NO_COORD, Window};
use crate::isa::Isa;
use crate::mat::{MatMut, MatRef, Run};
use crate::pack::{Operand, Side, pack};
use crate::simd::Unit;

use super::{InPlace, Real, Ukernel, Write};

/// Rows of a block of loop 3, a multiple of every MR.
pub const WINDOW_ROWS: usize = 144;

/// What the rows of a block contribute to their elements: see [`Window::lanes`].
struct Rows {
    offsets: [isize; WINDOW_ROWS],
    coords: [[isize; WINDOW_ROWS]; COORDS],
}

/// Steps of k that lie one after the other in every row: what they contribute to their elements.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    offset: isize,
    coords: [isize; COORDS],
    len: usize,
}

impl Stretch {
    const NONE: Stretch = Stretch { offset: 0, coords: [0; COORDS], len: 0 };

    /// Those of a segment; how many there are.
    fn all(window: &Window, k: &Range<usize>, out: &mut [Stretch; KC]) -> usize {
        let (mut at, mut left, mut count) = (window.k.cursor(k.start), k.len(), 0);
        while left > 0 {
            let len = window.k.run(&at).min(left);
            let coords = std::array::from_fn(|d| at.coords[d]);
            out[count] = Stretch { offset: at.offset, coords, len };
            window.k.advance(&mut at, len);
            (left, count) = (left - len, count + 1);
        }
        count
    }
}

/// A tile of rows of a window over an operand, over a segment.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a, 'b, T> {
    data: &'a [T],
    zeros: &'a [T],
    bounds: Option<[isize; COORDS]>,
    step: isize,
    /// Added to every offset.
    shift: isize,
    offsets: &'b [isize],
    coords: [&'b [isize]; COORDS],
    stretches: &'b [Stretch],
}

impl<'a, T: Copy> Sight<'a, '_, T> {
    /// Number of rows.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Number of stretches of k.
    #[inline(always)]
    pub(super) fn stretches(&self) -> usize {
        self.stretches.len()
    }

    /// The columns of a stretch of all `M` rows, `width` elements side by side each.
    #[inline(always)]
    pub(super) fn run<const M: usize>(&self, stretch: usize, width: usize) -> Run<'a, T, M> {
        let Sight { data, zeros, bounds, step, shift, offsets, coords, stretches } = *self;
        let Stretch { offset, coords: here, len } = stretches[stretch];
        let offsets: &[isize; M] = offsets.try_into().expect("a tile of M rows");
        let mut first = offsets.map(|lane| lane + offset + shift);
        if let Some(bounds) = bounds {
            let mut inside = [true; M];
            for d in 0..COORDS {
                let coords: &[isize; M] = coords[d].try_into().expect("a tile of M rows");
                for (inside, lane) in inside.iter_mut().zip(coords) {
                    *inside &= ((lane + here[d]) as usize) < bounds[d] as usize;
                }
            }
            for (first, inside) in first.iter_mut().zip(inside) {
                *first = if inside { *first } else { Run::<T, M>::ZEROS };
            }
        }
        Run::wide(data, zeros, first, len, step, width)
    }
}

/// The rhs of such a product.
#[derive(Debug)]
pub enum Weights<'a, 'b, T> {
    /// Packed before: `[panel][k][lane]`, over the part of k.
    Packed(&'a [T]),
    /// Packed here, panel by panel: what a window reads of an operand, into scratch of one panel, over a segment or the part of k as long as it is. For blocks that
    /// hold all rows there are.
    Pack(&'b Window, Operand<'a>, &'b mut [T]),
}

/// A block of such a product, to be computed on one thread: `dst = lhs rhs`, or `dst += lhs rhs`.
#[derive(Debug)]
pub struct Windows<'a, 'b, 'c, T> {
    /// The elements of the lhs.
    pub data: &'a [T],
    /// How they are read: x are rows. Along its innermost dim k moves no coordinate, and by one element where there is padding.
    pub window: &'b Window,
    /// Rows of the block.
    pub rows: Range<usize>,
    /// Which part of k is summed up, from a whole segment on.
    pub k: Range<usize>,
    /// Whether every column is a product of its own: the elements of column `cols.start + j` lie `j` behind those that the window names.
    pub by_column: bool,
    /// The rhs.
    pub weights: Weights<'a, 'b, T>,
    /// Those of the block, from a whole panel on.
    pub cols: Range<usize>,
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which the block begins there.
    pub at: [usize; 3],
    /// Whether its old values count.
    pub add: bool,
}

impl<T: Real + Unit<Acc = T>> Windows<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: InPlace<T> + Ukernel<T>, const BY_COLUMN: bool>(&mut self, s: S, isa: Isa) {
        let (nr, k) = (<S as Ukernel<T>>::NR, self.k.clone());
        assert!(self.window.is_plain() || self.window.k.inner().along == NO_COORD);
        let segments = k.clone().step_by(KC).map(|first| first..k.end.min(first + KC));
        let mut stretches = [Stretch::NONE; KC];
        if let Weights::Packed(_) = self.weights {
            for segment in segments {
                let count = Stretch::all(self.window, &segment, &mut stretches);
                for i in self.rows.clone().step_by(WINDOW_ROWS) {
                    let rows = i..self.rows.end.min(i + WINDOW_ROWS);
                    self.block::<S, BY_COLUMN>(s, &stretches[..count], &segment, rows, self.cols.clone());
                }
            }
            return;
        }
        // What is packed here is used up at once.
        for j in self.cols.clone().step_by(nr) {
            let cols = j..self.cols.end.min(j + nr);
            for segment in segments.clone() {
                if let Weights::Pack(window, operand, panel) = &mut self.weights {
                    let all = panel.len() >= nr * k.len();
                    let now = if all { k.clone() } else { segment.clone() };
                    if !all || segment.start == k.start {
                        let panel = bytemuck::cast_slice_mut(&mut panel[..nr * now.len()]);
                        pack(isa, T::FORM, Side::Rhs, window, *operand, cols.clone(), now, nr, panel);
                    }
                }
                let count = Stretch::all(self.window, &segment, &mut stretches);
                self.block::<S, BY_COLUMN>(s, &stretches[..count], &segment, self.rows.clone(), cols.clone());
            }
        }
    }

    /// Some rows by some columns over a segment.
    #[inline(always)]
    fn block<S: InPlace<T> + Ukernel<T>, const BY_COLUMN: bool>(
        &mut self,
        s: S,
        stretches: &[Stretch],
        segment: &Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let (mr, nr, kc) = (<S as Ukernel<T>>::MR, <S as Ukernel<T>>::NR, segment.len());
        let write = if segment.start > self.k.start || self.add { Write::Add } else { Write::Replace };
        let (window, k) = (self.window, self.k.len());
        let of_panel = (segment.start - self.k.start) * nr;
        let [batch, first_row, first_col] = self.at;
        let mut of_rows = Rows { offsets: [0; WINDOW_ROWS], coords: [[0; WINDOW_ROWS]; COORDS] };
        for i in rows.clone().step_by(WINDOW_ROWS) {
            let block = i..rows.end.min(i + WINDOW_ROWS);
            window.lanes(i, block.len(), |lane, Lane { offset, coords }| {
                of_rows.offsets[lane] = offset;
                for (to, coord) in of_rows.coords.iter_mut().zip(coords) {
                    to[lane] = coord;
                }
            });
            for j in cols.clone().step_by(nr) {
                let cols = j..cols.end.min(j + nr);
                let panel = match &self.weights {
                    Weights::Packed(panels) => &panels[j * k + of_panel..],
                    Weights::Pack(_, _, panel) if panel.len() >= nr * k => &panel[of_panel..],
                    Weights::Pack(_, _, panel) => &**panel,
                };
                let panel = MatRef::row_major(panel, kc, nr);
                let to_cols = first_col + j - self.cols.start..first_col + cols.end - self.cols.start;
                let mut next = 0;
                while next < block.len() {
                    let (at, left) = (next, block.len() - next);
                    // Rows that fill no tile are taken one by one: there are few among positions or taps, and every further height of a tile is compiled
                    // for each width, format and instruction set.
                    next += if left < mr { 1 } else { mr };
                    let tile = at..next;
                    let row = first_row + (i - self.rows.start) + at;
                    let mut band = self.dst.band(batch, row..row + tile.len(), to_cols.clone());
                    let lhs = Sight {
                        data: self.data,
                        zeros: T::ZEROS,
                        bounds: (!window.is_plain()).then_some(window.bounds),
                        step: window.k.inner().stride,
                        shift: if BY_COLUMN { (j - self.cols.start) as isize } else { 0 },
                        offsets: &of_rows.offsets[tile.clone()],
                        coords: of_rows.coords.each_ref().map(|coords| &coords[tile.clone()]),
                        stretches,
                    };
                    // The only call of each: what they inline is large.
                    if BY_COLUMN {
                        s.column_by_column(lhs, panel, &mut band, write);
                    } else {
                        s.through_window(lhs, panel, &mut band, write);
                    }
                }
            }
        }
    }
}

impl<T: Real> Windows<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side.
    pub fn compute(&mut self, isa: Isa) {
        T::windows(isa, self);
    }
}
