//! A depthwise convolution whose positions lie side by side, a plane a channel: lanes are positions along a line, a tile is some lines of a plane.
//!
//! ```text
//! for each channel:
//!   sheet = its plane with padding; along a line the coordinates a step apart side by side
//!   for each M lines of positions, for each NV vectors of them along a line:
//!     acc[0..M][0..NV] = +0.0
//!     for each line i of the sheet that these positions meet there, in the direction of the taps, for each tap t along it:
//!       b[0..NV] = what neighbouring positions meet there
//!       for each line of taps u that meets it from a line of positions j (i = j STEP + u):   acc[j][..] = fma(splat(weight of u, t), b[..], acc[j][..])
//! ```
//!
//! A vector of the sheet is loaded once for all the lines of taps, so loads are a third of the multiply-adds or a little more. The order of the sum of a position is that of its taps.
//! Of the gradient of the input of a strided convolution a tile is of two phases: the even places of its lines and the odd, a vector of each put together in registers.

mod sheet;
mod tile;

use std::ops::Range;

use crate::axis::Window;
use crate::isa::Isa;
use crate::mat::{Band, MatMut};
use crate::scan::Scan;
use crate::simd::{FloatLanes, Lanes, Simd};

use super::per_channel::{Strip, tile_of_line};
use super::{Real, Write};

pub use sheet::Sheet;
use sheet::{Bring, Fill, OF_PHASE, Weights};
use tile::{Folded, FoldedPair, OfPhase, OfTile, Pair, Tile};

/// Lines of a tall tile. Images of networks are multiples of 7 high.
pub const PLANE_LINES: usize = 7;

/// Lines of a tall tile of an instruction set.
const fn tall<S: Simd>() -> usize {
    if S::TILES { PLANE_LINES } else { 1 }
}

/// Lanes of vectors that hold two lines of images 7 wide: those of AVX-512.
const LANES_TO_FOLD: usize = 16;

/// Vectors of a tall tile whose lines are two in a vector.
const FOLDED: usize = PLANE_LINES.div_ceil(2);

/// Most vectors of a tile along a line.
const WIDE: usize = 2;

/// Positions that meet the same taps: all of a convolution, or a phase of its gradient of the input.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// How they go over the input, a channel a group.
    pub scan: Scan,
    /// The line and the place on it of the first.
    pub first: [usize; 2],
    /// How the weights are read: x are channels, k taps.
    pub weights: Window,
}

impl Phase {
    /// The lines of its positions that are some lines of a result, in which they are so many `down` from one to the next.
    fn lines(&self, down: usize, lines: &Range<usize>) -> Range<usize> {
        let of = |line: usize| line.saturating_sub(self.first[0]).div_ceil(down);
        let end = of(lines.end).min(self.scan.axes[1].positions);
        of(lines.start).min(end)..end
    }
}

/// Some planes of a depthwise convolution, or some lines of them, to be computed on one thread: `dst = sums` or `dst += sums`. Rows of the result are channels, columns positions.
#[derive(Debug)]
pub struct Planes<'a, 'b, 'c, T> {
    /// The input, and where its element at index 0 is.
    pub data: (&'a [T], isize),
    /// The weights, and where the element at index 0 is.
    pub weights: (&'a [T], isize),
    /// What goes over the input: those whose places share lines after each other.
    pub phases: &'b [Phase],
    /// Lines from a line of positions of a phase to the next.
    pub down: usize,
    /// How planes are brought to sheets.
    pub sheet: &'b Sheet,
    /// Of the result: places of a line.
    pub width: usize,
    /// Which image.
    pub image: usize,
    /// Channels of the block.
    pub channels: Range<usize>,
    /// Lines of the block.
    pub lines: Range<usize>,
    /// [`Sheet::elements`]; zeros, or what other planes left: if all lines are computed, those of which all were.
    pub room: &'b mut [T],
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which the block begins there.
    pub at: [usize; 3],
    /// Whether old values of the result count.
    pub add: bool,
}

/// Lines of positions of some channels that were brought to sheets.
struct SomeLines<'a, 'b, 'c, T> {
    sheet: &'a Sheet,
    /// The phases whose places they are.
    phases: &'a [Phase],
    of_phases: [OfPhase; 2],
    /// How many there are.
    count: usize,
    of: OfTile<'a, T>,
    dst: &'b mut Band<'c, T>,
}

impl<T: Real + Strip> SomeLines<'_, '_, '_, T> {
    #[inline(always)]
    fn compute<S: FloatLanes<T> + Simd>(&mut self, s: S) {
        let taps = |phase: &Phase| [phase.scan.axes[1].taps, phase.scan.axes[2].taps];
        if let [one, other] = self.phases {
            let ([height, a], [_, b]) = (taps(one), taps(other));
            // The phase of the even places first.
            let (even, odd) = if one.first[1] == 0 { (a, b) } else { (b, a) };
            if one.first[1] != 0 {
                self.of_phases.swap(0, 1);
            }
            return match (height, even, odd) {
                (1, 1, 1) => self.pairs::<S, 1, 1, 1>(s),
                (1, 1, 2) => self.pairs::<S, 1, 1, 2>(s),
                (1, 2, 1) => self.pairs::<S, 1, 2, 1>(s),
                (2, 1, 2) => self.pairs::<S, 2, 1, 2>(s),
                (2, 2, 1) => self.pairs::<S, 2, 2, 1>(s),
                (2, 2, 3) => self.pairs::<S, 2, 2, 3>(s),
                (2, 3, 2) => self.pairs::<S, 2, 3, 2>(s),
                (3, 2, 3) => self.pairs::<S, 3, 2, 3>(s),
                (3, 3, 2) => self.pairs::<S, 3, 3, 2>(s),
                taps => unreachable!("no tile of {taps:?} taps"),
            };
        }
        match (taps(&self.phases[0]), self.sheet.step, self.sheet.back) {
            ([3, 3], 1, false) => self.tiles::<S, 3, 3, 1, false>(s),
            ([5, 5], 1, false) => self.tiles::<S, 5, 5, 1, false>(s),
            ([7, 7], 1, false) => self.tiles::<S, 7, 7, 1, false>(s),
            ([3, 3], 2, false) => self.tiles::<S, 3, 3, 2, false>(s),
            ([5, 5], 2, false) => self.tiles::<S, 5, 5, 2, false>(s),
            ([3, 3], 1, true) => self.tiles::<S, 3, 3, 1, true>(s),
            ([5, 5], 1, true) => self.tiles::<S, 5, 5, 1, true>(s),
            ([7, 7], 1, true) => self.tiles::<S, 7, 7, 1, true>(s),
            taps => unreachable!("no tile of {taps:?} taps, step and direction"),
        }
    }

    /// Tiles along lines.
    #[inline(always)]
    fn tiles<
        S: FloatLanes<T> + Simd,
        const KY: usize,
        const KX: usize,
        const STEP: usize,
        const BACK: bool,
    >(
        &mut self,
        s: S,
    ) {
        let lanes = <S as Lanes<T>>::LANES;
        let (mut of, phase, dst) = (self.of, self.of_phases[0], &mut *self.dst);
        // Two lines of positions in a vector, the second behind the first.
        if const { S::TILES && STEP == 1 && KY <= 5 && <S as Lanes<T>>::LANES == LANES_TO_FOLD }
            && self.count == PLANE_LINES
            && of.apart == of.len
            && of.pitch.unsigned_abs() + of.len <= lanes
        {
            let count = self.count;
            return s.apart(Folded::<T, KY, KX, BACK, FOLDED> { of, phase, count, dst });
        }
        let mut left = of.len;
        while left > 0 {
            let tall = self.count > 1;
            let wide = const { S::TILES && matches!(T::LEN / <S as Lanes<T>>::LANES, 1 | 4) }
                && tall
                && left > lanes;
            of.len = left.min(if wide { WIDE * lanes } else { lanes });
            if const { S::TILES && matches!(T::LEN / <S as Lanes<T>>::LANES, 1 | 4) } && wide {
                s.apart(Tile::<T, KY, KX, STEP, BACK, PLANE_LINES, WIDE> { of, phase, dst });
            } else if const { S::TILES } && tall {
                s.apart(Tile::<T, KY, KX, STEP, BACK, PLANE_LINES, 1> { of, phase, dst });
            } else {
                s.apart(Tile::<T, KY, KX, STEP, BACK, 1, 1> { of, phase, dst });
            }
            (left, of.at, of.first) = (left - of.len, of.at + of.len, of.first + of.len as isize);
        }
    }

    /// Tiles of two phases along lines.
    #[inline(always)]
    fn pairs<S: FloatLanes<T> + Simd, const KY: usize, const EVEN: usize, const ODD: usize>(&mut self, s: S) {
        let lanes = <S as Lanes<T>>::LANES;
        let (mut of, phases, dst) = (self.of, self.of_phases, &mut *self.dst);
        if const { S::TILES && <S as Lanes<T>>::LANES == LANES_TO_FOLD }
            && self.count == PLANE_LINES
            && of.len <= lanes
            && of.pitch.unsigned_abs() >= lanes / 2
            && of.pitch.unsigned_abs() + of.len.div_ceil(2) <= lanes
        {
            let count = self.count;
            return s.apart(FoldedPair::<T, KY, EVEN, ODD, FOLDED> { of, phases, count, dst });
        }
        let mut left = of.len;
        while left > 0 {
            of.len = left.min(2 * lanes);
            if const { S::TILES } && self.count > 1 {
                s.apart(Pair::<T, KY, EVEN, ODD, PLANE_LINES> { of, phases, dst });
            } else {
                s.apart(Pair::<T, KY, EVEN, ODD, 1> { of, phases, dst });
            }
            (left, of.at, of.first) = (left - of.len, of.at + of.len, of.first + lanes as isize);
        }
    }
}

impl<T: Real + Strip> Planes<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: FloatLanes<T> + Simd>(&mut self, s: S, _: Isa) {
        let (sheet, width, down, phases) = (self.sheet, self.width, self.down, self.phases);
        let positions = phases.iter().map(|phase| phase.lines(down, &self.lines));
        let (from, to) = positions
            .filter(|lines| !lines.is_empty())
            .fold((usize::MAX, 0), |(from, to), lines| (from.min(lines.start), to.max(lines.end)));
        if from >= to {
            return;
        }
        let low = sheet.low + (from * sheet.down) as isize;
        let met = low..low + sheet.lines(to - from) as isize;
        let whole = from == 0 && phases.iter().all(|phase| phase.scan.axes[1].positions <= to);
        let of_weights = &Weights::new(phases);
        let in_place = of_weights.in_place(phases.len());
        let [batch, first_row, first_col] = self.at;
        let cols = first_col..first_col + self.lines.len() * width;
        let mut band = self.dst.band(batch, first_row..first_row + self.channels.len(), cols.clone());
        let together = sheet.together(size_of::<T>());
        let (sheets, weights) = self.room.split_at_mut(together * sheet.len());
        let write = if self.add { Write::Add } else { Write::Replace };
        for first in (0..self.channels.len()).step_by(together) {
            let now = first..self.channels.len().min(first + together);
            let channels = self.channels.start + now.start..self.channels.start + now.end;
            let scan = &phases[0].scan;
            let (data, image, of_channel) = (self.data, self.image, sheet.weights());
            let out = &mut sheets[..now.len() * sheet.len()];
            s.apart(Fill {
                sheet,
                scan,
                data,
                image,
                channels: channels.clone(),
                lines: met.clone(),
                whole,
                out,
            });
            let of_channels = match in_place {
                Some((first, apart)) => {
                    let first = self.weights.1 + first + (channels.start * apart) as isize;
                    (&self.weights.0[first as usize..], apart)
                }
                None => {
                    let (weights, out) = (of_weights, &mut weights[..now.len() * of_channel]);
                    s.apart(Bring { weights, data: self.weights, channels, of_channel, out });
                    (&*out, of_channel)
                }
            };
            let dst = &mut band.part(now, 0..cols.len());
            for (i, phases) in phases.chunks(sheet.along).enumerate() {
                let of_phase = |x: usize| {
                    let axis = &phases[x.min(phases.len() - 1)].scan.axes[2];
                    let lowest = if sheet.back { axis.taps - 1 } else { 0 };
                    let next = if sheet.back { lowest.saturating_sub(1) } else { 1 };
                    OfPhase {
                        weights: (i * sheet.along + x) * OF_PHASE,
                        shifts: [lowest, next].map(|tap| sheet.shift(axis, tap)),
                    }
                };
                let of_phases = [0, 1].map(of_phase);
                let (height, lines) = (&phases[0].scan.axes[1], phases[0].lines(down, &self.lines));
                let mut next = 0;
                while next < lines.len() {
                    let tile =
                        tile_of_line(next, lines.len(), const { tall::<S>() }, const { tall::<S>() }, write);
                    next = tile.end;
                    let (count, tile) = (tile.len(), lines.start + tile.start..lines.start + tile.end);
                    // Taps that go backward are met forward by positions that do.
                    let nearest = (if sheet.back { tile.end - 1 } else { tile.start }) as isize;
                    let pitch = sheet.pitch as isize;
                    let of = OfTile {
                        sheets: (sheets, sheet.len()),
                        weights: of_channels,
                        first: (nearest * height.step + height.origin - low) * pitch,
                        pitch: if sheet.back { -pitch } else { pitch },
                        at: (phases[0].first[0] + tile.start * down - self.lines.start) * width,
                        apart: down * width,
                        len: width,
                        write,
                    };
                    SomeLines { sheet, phases, of_phases, count, of, dst: &mut *dst }.compute(s);
                }
            }
        }
    }
}

impl<T: Real> Planes<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side; unless of f32.
    pub fn compute(&mut self, isa: Isa) {
        T::planes(isa, self);
    }
}
