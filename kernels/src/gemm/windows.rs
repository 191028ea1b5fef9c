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
use crate::axis::{Axis, COORDS, Lane, NO_COORD, Window};
use crate::isa::Isa;
use crate::mat::{FixedRows, LINES, MatMut, MatRef, Run};
use crate::pack::{Operand, Side, pack};
use crate::simd::{Lanes, Unit};

use super::real::all_finite;
use super::{InPlace, Real, Ukernel, Write};

/// Rows of a block of loop 3, a multiple of every MR.
pub const WINDOW_ROWS: usize = LINES;

/// What the rows of a block contribute to their elements: see [`Window::lanes`].
struct Rows {
    offsets: [isize; WINDOW_ROWS],
    coords: [[isize; WINDOW_ROWS]; COORDS],
    /// Whether a row is nowhere padding, over a segment.
    clear: [bool; WINDOW_ROWS],
}

impl Rows {
    const NONE: Rows =
        Rows { offsets: [0; WINDOW_ROWS], coords: [[0; WINDOW_ROWS]; COORDS], clear: [true; WINDOW_ROWS] };

    /// Finds out what the first `len` rows of a `window` are, whose stretches `reach` so far.
    #[inline(always)]
    fn look(&mut self, len: usize, window: &Window, reach: &[[isize; 2]; COORDS]) {
        if !window.is_plain() {
            self.clear = [true; WINDOW_ROWS];
            for ((coords, bound), [low, high]) in self.coords.iter().zip(window.bounds).zip(reach) {
                // With unsigned numbers, what is negative is beyond the bound.
                for (clear, &lane) in self.clear[..len].iter_mut().zip(coords) {
                    *clear &=
                        ((lane + low) as usize) < bound as usize && ((lane + high) as usize) < bound as usize;
                }
            }
        }
    }

    /// Whether some rows are nowhere padding.
    #[inline(always)]
    fn are_clear(&self, rows: &Range<usize>) -> bool {
        self.clear[rows.clone()].iter().fold(true, |all, &clear| all & clear)
    }

    /// Whether eight neighbours of the first `len` rows, or the last few, lie outside together along an axis at an end of its `reach`.
    #[inline(always)]
    fn any_outside(&self, len: usize, window: &Window, reach: &[[isize; 2]; COORDS]) -> bool {
        if self.are_clear(&(0..len)) {
            return false;
        }
        self.coords.iter().zip(window.bounds).zip(reach).any(|((coords, bound), [low, high])| {
            coords[..len].chunks(8).any(|rows| {
                let (first, last) =
                    rows.iter().fold((isize::MAX, isize::MIN), |(a, b), &x| (a.min(x), b.max(x)));
                last + low < 0 || first + high >= bound
            })
        })
    }
}

/// Steps of k that lie one after the other in every row: what they contribute to their elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) offset: isize,
    coords: [isize; COORDS],
    pub(super) len: usize,
}

impl Stretch {
    pub(super) const NONE: Stretch = Stretch { offset: 0, coords: [0; COORDS], len: 0 };

    /// Those of some index values of an axis, of a segment at most; how many there are.
    pub(super) fn all(axis: &Axis, range: &Range<usize>, out: &mut [Stretch; KC]) -> usize {
        let (mut at, mut left, mut count) = (axis.cursor(range.start), range.len(), 0);
        while left > 0 {
            let len = axis.run(&at).min(left);
            let coords = std::array::from_fn(|d| at.coords[d]);
            out[count] = Stretch { offset: at.offset, coords, len };
            axis.advance(&mut at, len);
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
    offsets: &'b [isize],
    coords: [&'b [isize]; COORDS],
    stretches: &'b [Stretch],
    /// Whether no row is padding in any stretch.
    clear: bool,
}

impl<'a, T: Copy> Sight<'a, '_, T> {
    /// Number of rows.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Whether elements of a row lie side by side within a stretch.
    #[inline(always)]
    pub(super) fn is_close(&self) -> bool {
        self.step == 1
    }

    /// Number of stretches of k.
    #[inline(always)]
    pub(super) fn stretches(&self) -> usize {
        self.stretches.len()
    }

    /// The rows, if none is padding in any stretch.
    #[inline(always)]
    pub(super) fn fixed<const M: usize>(&self) -> Option<FixedRows<'a, T, M>> {
        let offsets: &[isize; M] = self.offsets.try_into().expect("a tile of M rows");
        self.clear.then(|| FixedRows::new(self.data, *offsets, 1))
    }

    /// The columns of a stretch of rows that are [`Sight::fixed`].
    #[inline(always)]
    pub(super) fn run_of<const M: usize>(&self, rows: &FixedRows<'a, T, M>, stretch: usize) -> Run<'a, T, M> {
        let Stretch { offset, len, .. } = self.stretches[stretch];
        rows.run(offset, len, self.step)
    }

    /// The stretches but those at both ends in which all rows are padding, and the steps of k before them.
    #[inline(always)]
    fn without_padding(self) -> (Self, usize) {
        let Some(bounds) = self.bounds.filter(|_| !self.clear) else { return (self, 0) };
        let meets = |stretch: &Stretch| {
            (0..self.offsets.len()).any(|row| {
                (0..COORDS).all(|d| ((self.coords[d][row] + stretch.coords[d]) as usize) < bounds[d] as usize)
            })
        };
        let first = self.stretches.iter().position(meets).unwrap_or(self.stretches.len());
        let end = self.stretches.iter().rposition(meets).map_or(first, |last| last + 1);
        let before = self.stretches[..first].iter().map(|stretch| stretch.len).sum();
        (Sight { stretches: &self.stretches[first..end], ..self }, before)
    }

    /// The columns of a stretch of all `M` rows.
    #[inline(always)]
    pub(super) fn run<const M: usize>(&self, stretch: usize) -> Run<'a, T, M> {
        let Sight { data, zeros, bounds, step, offsets, coords, stretches, .. } = *self;
        let Stretch { offset, coords: here, len } = stretches[stretch];
        let offsets: &[isize; M] = offsets.try_into().expect("a tile of M rows");
        let mut first = offsets.map(|lane| lane + offset);
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
        Run::new(data, zeros, first, len, step)
    }
}

/// The rhs of such a product.
#[derive(Debug)]
pub enum Weights<'a, 'b, T> {
    /// Packed before: `[panel][k][lane]`, over the part of k.
    Packed {
        /// The panels.
        panels: &'a [T],
        /// Whether the block holds all rows there are: a panel is then used up before the next is met.
        once: bool,
    },
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
    /// The rhs.
    pub weights: Weights<'a, 'b, T>,
    /// Columns of a panel of it: whole vectors, at most NR, or 4/3 NR where tiles are that wide ([`InPlace::window_rows`]).
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

impl<T: Real + Unit<Acc = T>> Windows<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa) {
        let (width, k) = (self.width, self.k.clone());
        assert!(3 * width <= 4 * <S as Ukernel<T>>::NR && width.is_multiple_of(<S as Lanes<T>>::LANES));
        assert!(self.window.is_plain() || self.window.k.inner().along == NO_COORD);
        let segments = k.clone().step_by(KC).map(|first| first..k.end.min(first + KC));
        let mut stretches = [Stretch::NONE; KC];
        if let Weights::Packed { once: false, .. } = self.weights {
            for segment in segments {
                let count = Stretch::all(&self.window.k, &segment, &mut stretches);
                for i in self.rows.clone().step_by(WINDOW_ROWS) {
                    let rows = i..self.rows.end.min(i + WINDOW_ROWS);
                    self.block(s, &stretches[..count], &segment, rows, self.cols.clone());
                }
            }
            return;
        }
        for j in self.cols.clone().step_by(width) {
            let cols = j..self.cols.end.min(j + width);
            for segment in segments.clone() {
                if let Weights::Pack(window, operand, panel) = &mut self.weights {
                    let all = panel.len() >= width * k.len();
                    let now = if all { k.clone() } else { segment.clone() };
                    if !all || segment.start == k.start {
                        let panel = bytemuck::cast_slice_mut(&mut panel[..width * now.len()]);
                        pack(isa, T::FORM, Side::Rhs, window, *operand, cols.clone(), now, width, panel);
                    }
                }
                let count = Stretch::all(&self.window.k, &segment, &mut stretches);
                self.block(s, &stretches[..count], &segment, self.rows.clone(), cols.clone());
            }
        }
    }

    /// Some rows by some columns over a segment.
    #[inline(always)]
    fn block<S: InPlace<T> + Ukernel<T>>(
        &mut self,
        s: S,
        stretches: &[Stretch],
        segment: &Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let (width, kc) = (self.width, segment.len());
        let write = if segment.start > self.k.start || self.add { Write::Add } else { Write::Replace };
        let (window, k) = (self.window, self.k.len());
        let of_panel = (segment.start - self.k.start) * width;
        let [batch, first_row, first_col] = self.at;
        let mut reach = [[isize::MAX, isize::MIN]; COORDS];
        for stretch in stretches {
            for ([low, high], coord) in reach.iter_mut().zip(stretch.coords) {
                (*low, *high) = ((*low).min(coord), (*high).max(coord));
            }
        }
        let mut of_rows = Rows::NONE;
        for i in rows.clone().step_by(WINDOW_ROWS) {
            let block = i..rows.end.min(i + WINDOW_ROWS);
            window.lanes(i, block.len(), |lane, Lane { offset, coords }| {
                of_rows.offsets[lane] = offset;
                for (to, coord) in of_rows.coords.iter_mut().zip(coords) {
                    to[lane] = coord;
                }
            });
            of_rows.look(block.len(), window, &reach);
            let to_rows = first_row + i - self.rows.start;
            let to_cols = first_col + cols.start - self.cols.start;
            let to_cols = to_cols..to_cols + cols.len();
            let mut lines = self.dst.lines(batch, to_rows..to_rows + block.len(), to_cols);
            let skipped = of_rows.any_outside(block.len(), window, &reach);
            for j in cols.clone().step_by(width) {
                let of_cols = j - cols.start..cols.end.min(j + width) - cols.start;
                let panel = match &self.weights {
                    Weights::Packed { panels, .. } => &panels[j * k + of_panel..],
                    Weights::Pack(_, _, panel) if panel.len() >= width * k => &panel[of_panel..],
                    Weights::Pack(_, _, panel) => &**panel,
                };
                let skips = skipped && all_finite(s, &panel[..kc * width]);
                let panel = MatRef::row_major(panel, kc, width);
                let mr = S::window_rows(of_cols.len());
                let mut next = 0;
                while next < block.len() {
                    let (at, left) = (next, block.len() - next);
                    // Rows that fill no tile are taken one by one: there are few among positions or taps, and every further height of a tile is compiled
                    // for each width, format and instruction set.
                    next += if left < mr { 1 } else { mr };
                    let tile = at..next;
                    let mut dst = lines.part(tile.clone(), of_cols.clone());
                    let lhs = Sight {
                        data: self.data,
                        zeros: T::ZEROS,
                        bounds: (!window.is_plain()).then_some(window.bounds),
                        step: window.k.inner().stride,
                        offsets: &of_rows.offsets[tile.clone()],
                        coords: of_rows.coords.each_ref().map(|coords| &coords[tile.clone()]),
                        stretches,
                        clear: of_rows.are_clear(&tile),
                    };
                    // Zeros times finite numbers are nothing (N11), and no sum leaves a segment as -0 (N1).
                    let (lhs, before) = if skips { lhs.without_padding() } else { (lhs, 0) };
                    s.through_window(lhs, panel.part(before..kc, 0..width), &mut dst, write);
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
