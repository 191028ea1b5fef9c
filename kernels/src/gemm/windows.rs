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
//! position; a row whose position is padding there reads zeros. Rows of a block are taken in order of what is padding, so that tiles have rows of the same
//! padding and leave it out, where the panel is finite.

use std::ops::Range;

use crate::KC;
use crate::axis::{Axis, COORDS, Lane, NO_COORD, Window};
use crate::isa::Isa;
use crate::mat::{FixedRows, LINES, MatMut, MatRef, Run};
use crate::pack::{Operand, Side, pack_along};
use crate::simd::{Lanes, Unit};

use super::real::all_finite;
use super::{InPlace, Real, Ukernel, Write};

/// Rows of a block of loop 3, a multiple of every MR. Their order takes a byte a row.
pub const WINDOW_ROWS: usize = LINES;
const _: () = assert!(WINDOW_ROWS <= 1 << u8::BITS);

/// Most stretches of a segment of which any is left out.
const MOST_LEFT_OUT: usize = 56;

/// Padding is left out if it is no less than one such part of what a block of rows meets over a segment: to put rows in order costs a few percent of a block of one panel. Zen 4, 64 to 64 channels 3 x 3 @56
/// (a fortieth), gradient of the input, channels last: always 93 % of the peak, so 94.
const LEAST_PADDING: usize = 32;

/// Least channels of a kernel position for which a band is read position by position, to leave out padding, rather than in stretches as long as lie side by side. Not swept.
const LEAST_STRETCH: usize = 16;

/// What the rows of a block contribute to their elements, in the order in which tiles take them: see [`Window::lanes`].
struct Rows {
    offsets: [isize; WINDOW_ROWS],
    coords: [[isize; WINDOW_ROWS]; COORDS],
    /// The stretches of a segment, one a bit, that are padding; the last bit stands for all there is no bit for.
    outside: [u64; WINDOW_ROWS],
    /// The places of the rows in the block, where tiles take them in another order to leave out padding.
    order: Option<[u8; WINDOW_ROWS]>,
}

impl Rows {
    const NONE: Rows = Rows {
        offsets: [0; WINDOW_ROWS],
        coords: [[0; WINDOW_ROWS]; COORDS],
        outside: [0; WINDOW_ROWS],
        order: None,
    };

    /// Finds out what `len` rows of a `window` from `first` on are. If there is enough `padding` over some `stretches`, rows where it is the same become neighbours, so that tiles can leave it out.
    #[inline(always)]
    fn look(&mut self, first: usize, len: usize, window: &Window, padding: &Window, stretches: &[Stretch]) {
        window.lanes(first, len, |row, Lane { offset, .. }| self.offsets[row] = offset);
        self.order = None;
        if padding.is_plain() {
            return;
        }
        padding.lanes(first, len, |row, Lane { coords, .. }| {
            for (to, coord) in self.coords.iter_mut().zip(coords) {
                to[row] = coord;
            }
        });
        let mut clear = [true; WINDOW_ROWS];
        for (d, bound) in padding.bounds.into_iter().enumerate() {
            let (mut low, mut high) = (isize::MAX, isize::MIN);
            for stretch in stretches {
                (low, high) = (low.min(stretch.coords[d]), high.max(stretch.coords[d]));
            }
            // With unsigned numbers, what is negative is beyond the bound.
            for (clear, &lane) in clear[..len].iter_mut().zip(&self.coords[d]) {
                *clear &=
                    ((lane + low) as usize) < bound as usize && ((lane + high) as usize) < bound as usize;
            }
        }
        let (mut keys, mut count, mut padded) = ([0; WINDOW_ROWS], 0, 0);
        for (row, clear) in clear[..len].iter().enumerate() {
            self.outside[row] = 0;
            if !clear {
                let outside = self.outside(row, padding, stretches);
                self.outside[row] = outside;
                (keys[count], count) = (outside << u8::BITS | row as u64, count + 1);
                padded += outside.count_ones() as usize;
            }
        }
        if stretches.len() <= MOST_LEFT_OUT && padded * LEAST_PADDING >= len * stretches.len() {
            self.sort(&mut keys[..count], &clear[..len]);
        }
    }

    /// The stretches that are padding in a row.
    fn outside(&self, row: usize, padding: &Window, stretches: &[Stretch]) -> u64 {
        let mut outside = 0;
        for (i, stretch) in stretches.iter().enumerate() {
            for ((coords, bound), here) in self.coords.iter().zip(padding.bounds).zip(stretch.coords) {
                if (coords[row] + here) as usize >= bound as usize {
                    outside |= 1 << i.min(MOST_LEFT_OUT - 1);
                }
            }
        }
        outside
    }

    /// Puts the rows that are `clear` of padding first, and then the others, each a key of what is outside and of its place, in order of that.
    fn sort(&mut self, keys: &mut [u64], clear: &[bool]) {
        keys.sort_unstable();
        let (mut order, mut count) = ([0; WINDOW_ROWS], 0);
        for (row, &clear) in clear.iter().enumerate() {
            order[count] = row as u8;
            count += clear as usize;
        }
        for (place, &key) in order[count..].iter_mut().zip(&*keys) {
            *place = key as u8;
        }
        let (offsets, coords) = (self.offsets, self.coords);
        for (to, &from) in order[..clear.len()].iter().enumerate() {
            self.offsets[to] = offsets[from as usize];
            for (to_coords, coords) in self.coords.iter_mut().zip(&coords) {
                to_coords[to] = coords[from as usize];
            }
        }
        self.outside[..count].fill(0);
        for (outside, &key) in self.outside[count..].iter_mut().zip(&*keys) {
            *outside = key >> u8::BITS;
        }
        self.order = Some(order);
    }

    /// The stretches that are padding in some rows, and in all of them.
    #[inline(always)]
    fn of_tile(&self, rows: &Range<usize>) -> (u64, u64) {
        self.outside[rows.clone()].iter().fold((0, !0), |(any, all), &row| (any | row, all & row))
    }

    /// The stretches that tiles of `mr` of the first `len` rows can leave out.
    #[inline(always)]
    fn left_out(&self, len: usize, mr: usize, shorter: bool) -> u64 {
        let mut union = 0;
        if self.order.is_some() {
            for tile in tiles(len, mr, shorter) {
                union |= self.of_tile(&tile).1;
            }
        }
        union
    }
}

/// Tiles of `mr` rows and, with `shorter`, of one row less, where the two make up all rows. Otherwise rows that fill no tile are taken one by one: there are few among positions or taps, and every further
/// height of a tile is compiled for each width, format and instruction set.
#[inline(always)]
fn tiles(len: usize, mr: usize, shorter: bool) -> impl Iterator<Item = Range<usize>> {
    let count = len.div_ceil(mr);
    let short = count * mr - len;
    let [whole, short, single] =
        if shorter && short <= count { [count - short, short, 0] } else { [len / mr, 0, len % mr] };
    (0..whole + short + single).map(move |i| {
        if i < whole {
            i * mr..(i + 1) * mr
        } else if single > 0 {
            let first = whole * (mr - 1) + i;
            first..first + 1
        } else {
            let first = whole + i * (mr - 1);
            first..first + mr - 1
        }
    })
}

/// Steps of k that lie one after the other in every row: what they contribute to their elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) offset: isize,
    coords: [isize; COORDS],
    /// Steps that are left out before it.
    gap: usize,
    pub(super) len: usize,
}

impl Stretch {
    pub(super) const NONE: Stretch = Stretch { offset: 0, coords: [0; COORDS], gap: 0, len: 0 };

    /// What they contribute to a coordinate.
    #[inline(always)]
    pub(super) fn coord(&self, d: usize) -> isize {
        self.coords[d]
    }

    /// Those of some index values of an axis, of a segment at most; how many there are.
    pub(super) fn all(axis: &Axis, range: &Range<usize>, out: &mut [Stretch; KC]) -> usize {
        Self::of_both(axis, axis, range, out)
    }

    /// The same, where offsets are those of one axis and coordinates those of another.
    fn of_both(axis: &Axis, other: &Axis, range: &Range<usize>, out: &mut [Stretch; KC]) -> usize {
        let (mut at, mut place) = (axis.cursor(range.start), other.cursor(range.start));
        let (mut before, mut count) = (0, 0);
        while before < range.len() {
            let len = axis.run(&at).min(other.run(&place)).min(range.len() - before);
            let coords = std::array::from_fn(|d| place.coords[d]);
            out[count] = Stretch { offset: at.offset, coords, gap: 0, len };
            axis.advance(&mut at, len);
            other.advance(&mut place, len);
            (before, count) = (before + len, count + 1);
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

    /// The steps of k between a stretch and the one before it.
    #[inline(always)]
    pub(super) fn gap(&self, stretch: usize) -> usize {
        self.stretches[stretch].gap
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

    /// The columns of a stretch of all `M` rows.
    #[inline(always)]
    pub(super) fn run<const M: usize>(&self, stretch: usize) -> Run<'a, T, M> {
        let Sight { data, zeros, bounds, step, offsets, coords, stretches, .. } = *self;
        let Stretch { offset, coords: here, len, .. } = stretches[stretch];
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
    /// What of them is padding: the same window, or the one that a band was copied through, whose padding is written out.
    pub padding: &'b Window,
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
        let inner = self.padding.k.inner();
        if self.padding.is_plain() || inner.along != NO_COORD || inner.extent < LEAST_STRETCH {
            self.padding = self.window;
        }
        assert!(self.window.is_plain() || self.window.bounds == self.padding.bounds);
        let apart = &self.padding.k;
        let segments = k.clone().step_by(KC).map(|first| first..k.end.min(first + KC));
        let mut stretches = [Stretch::NONE; KC];
        if let Weights::Packed { once: false, .. } = self.weights {
            for segment in segments {
                let count = Stretch::of_both(&self.window.k, apart, &segment, &mut stretches);
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
                        pack_along(
                            isa,
                            T::FORM,
                            Side::Rhs,
                            window,
                            *operand,
                            cols.clone(),
                            now,
                            width,
                            panel,
                        );
                    }
                }
                let count = Stretch::of_both(&self.window.k, apart, &segment, &mut stretches);
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
        let (window, padding, k) = (self.window, self.padding, self.k.len());
        let of_panel = (segment.start - self.k.start) * width;
        let [batch, first_row, first_col] = self.at;
        let (mut of_rows, mut kept) = (Rows::NONE, [Stretch::NONE; MOST_LEFT_OUT]);
        for i in rows.clone().step_by(WINDOW_ROWS) {
            let block = i..rows.end.min(i + WINDOW_ROWS);
            of_rows.look(i, block.len(), window, padding, stretches);
            let to_rows = first_row + i - self.rows.start;
            let to_cols = first_col + cols.start - self.cols.start;
            let to_cols = to_cols..to_cols + cols.len();
            let mut lines = self.dst.lines(batch, to_rows..to_rows + block.len(), to_cols);
            if let Some(order) = &of_rows.order {
                lines.arrange(&order[..block.len()]);
            }
            for j in cols.clone().step_by(width) {
                let of_cols = j - cols.start..cols.end.min(j + width) - cols.start;
                let panel = match &self.weights {
                    Weights::Packed { panels, .. } => &panels[j * k + of_panel..],
                    Weights::Pack(_, _, panel) if panel.len() >= width * k => &panel[of_panel..],
                    Weights::Pack(_, _, panel) => &**panel,
                };
                let panel = &panel[..kc * width];
                let (mr, shorter) = (S::window_rows(of_cols.len()), S::has_shorter());
                // Zeros times finite numbers are nothing (N11), and no sum leaves a segment as -0 (N1).
                let mut left_out = of_rows.left_out(block.len(), mr, shorter);
                if left_out != 0 {
                    let mut rest = panel;
                    for (i, stretch) in stretches.iter().enumerate() {
                        let weights;
                        (weights, rest) = rest.split_at(stretch.len * width);
                        if left_out >> i & 1 == 1 && !all_finite(s, weights) {
                            left_out = 0;
                        }
                    }
                }
                let panel = MatRef::row_major(panel, kc, width);
                for tile in tiles(block.len(), mr, shorter) {
                    let (any, all) = of_rows.of_tile(&tile);
                    let mut count = 0;
                    let out = all & left_out;
                    if out != 0 {
                        let mut gap = 0;
                        for (i, stretch) in stretches.iter().enumerate() {
                            if out >> i & 1 == 1 {
                                gap += stretch.len;
                            } else {
                                kept[count] = Stretch { gap, ..*stretch };
                                (gap, count) = (0, count + 1);
                            }
                        }
                    }
                    let mut dst = lines.part(tile.clone(), of_cols.clone());
                    let lhs = Sight {
                        data: self.data,
                        zeros: T::ZEROS,
                        bounds: (!window.is_plain()).then_some(window.bounds),
                        step: window.k.inner().stride,
                        offsets: &of_rows.offsets[tile.clone()],
                        coords: of_rows.coords.each_ref().map(|coords| &coords[tile.clone()]),
                        stretches: if out != 0 { &kept[..count] } else { stretches },
                        clear: window.is_plain() || any & !out == 0,
                    };
                    s.through_window(lhs, panel, &mut dst, write);
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

#[cfg(test)]
mod tests {
    use super::tiles;

    #[test]
    fn tiles_make_up_all_rows() {
        for len in 0..=240 {
            for (mr, shorter) in [(6, true), (6, false), (8, false)] {
                let all: Vec<_> = tiles(len, mr, shorter).collect();
                assert_eq!(all.iter().cloned().flatten().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
                assert!(all.iter().all(|tile| {
                    let rows = tile.len();
                    rows == mr || rows == 1 && !(shorter && len >= 30) || shorter && rows == mr - 1
                }));
            }
        }
    }
}
