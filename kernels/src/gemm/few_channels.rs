//! A convolution to a few channels: lanes are positions of a line, for the channels would leave most of a vector idle.
//!
//! ```text
//! acc[0..M][0..NV] = +0.0
//! for each k (a tap, an input channel):   b[0..NV] = what neighbouring positions have there
//!                                         acc[i][..] = fma(splat(weight of channel i), b[..], acc[i][..])
//! ```
//!
//! The input is a band of planes, one a channel: neighbours on a line lie side by side.

use std::ops::Range;

use crate::KC;
use crate::axis::Window;
use crate::isa::Isa;
use crate::mat::{Comb, MatMut, MatRef, Scattered};
use crate::simd::FloatLanes;

use super::in_place::write_out;
use super::windows::Stretch;
use super::{Real, Write};

/// Channels up to which there are tiles.
pub const FEW_CHANNELS: usize = 4;

/// Vectors of positions of a tile.
const VECTORS: usize = 3;

/// Most elements behind the last position of a band that a tile reads: it loads whole vectors.
pub const SLACK: usize = 64;

/// A block of such a convolution, to be computed on one thread: `dst = sums` or `dst += sums`. Rows of the result are channels, columns positions.
#[derive(Debug)]
pub struct FewChannels<'a, 'b, 'c, T> {
    /// The elements of the band, [`SLACK`] more than it takes.
    pub data: &'a [T],
    /// How they are read: x are positions, side by side or a step apart along a line, k taps and then the channel; nothing is padding.
    pub window: &'b Window,
    /// The weights: `[k][lane]`, a lane a channel of the result.
    pub weights: &'a [T],
    /// Lanes of the weights.
    pub width: usize,
    /// How many channels there are, up to [`FEW_CHANNELS`].
    pub channels: usize,
    /// Positions of the block.
    pub cols: Range<usize>,
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which the block begins there.
    pub at: [usize; 3],
    /// Whether its old values count.
    pub add: bool,
}

/// `M` channels of `NV` vectors of positions over a segment.
#[inline(always)]
fn tile<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize>(
    s: S,
    (data, first, step): (&[T], isize, isize),
    stretches: &[Stretch],
    weights: MatRef<'_, T>,
    mut dst: Scattered<'_, T>,
    write: Write,
) {
    let mut acc = [[s.splat(T::zeroed()); NV]; M];
    let mut rows = weights.down();
    for stretch in stretches {
        let mut comb = Comb::<T, 1>::new(data, first + stretch.offset, 0, stretch.len, step, NV * S::LANES);
        while let Some([b]) = comb.next_strips() {
            let Some(a) = rows.next() else { break };
            let mut row = [s.splat(T::zeroed()); NV];
            for (j, row) in row.iter_mut().enumerate() {
                *row = s.load(&b[j * S::LANES..]);
            }
            for (acc, &a) in acc.iter_mut().zip(&a[..M]) {
                let a = s.splat(a);
                for (acc, &b) in acc.iter_mut().zip(&row) {
                    *acc = s.mul_add(a, b, *acc);
                }
            }
        }
    }
    write_out(s, &acc, &mut dst, write);
}

impl<T: Real> FewChannels<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: FloatLanes<T>>(&mut self, s: S, _: Isa) {
        match self.channels {
            1 => self.channels::<S, 1>(s),
            2 => self.channels::<S, 2>(s),
            3 => self.channels::<S, 3>(s),
            4 => self.channels::<S, 4>(s),
            channels => unreachable!("no tile of {channels} channels"),
        }
    }

    #[inline(always)]
    fn channels<S: FloatLanes<T>, const M: usize>(&mut self, s: S) {
        let (window, [batch, row, first_col]) = (self.window, self.at);
        assert!(window.is_plain() && window.x.inner().stride == 1 && M <= self.width);
        let k = window.k.extent();
        let mut stretches = [Stretch::NONE; KC];
        for first in (0..k).step_by(KC) {
            let segment = first..k.min(first + KC);
            let count = Stretch::all(&window.k, &segment, &mut stretches);
            let (stretches, step) = (&stretches[..count], window.k.inner().stride);
            let write = if first > 0 || self.add { Write::Add } else { Write::Replace };
            let weights = &self.weights[first * self.width..][..segment.len() * self.width];
            let weights = MatRef::row_major(weights, segment.len(), self.width);
            let (mut at, mut col) = (window.x.cursor(self.cols.start), self.cols.start);
            while col < self.cols.end {
                let len = window.x.run(&at).min(self.cols.end - col).min(VECTORS * S::LANES);
                let to = first_col + col - self.cols.start;
                let mut lines = self.dst.lines(batch, row..row + M, to..to + len);
                let dst = lines.part(0..M, 0..len);
                let from = (self.data, window.start + at.offset, step);
                match len.div_ceil(S::LANES) {
                    1 => tile::<T, S, M, 1>(s, from, stretches, weights, dst, write),
                    2 => tile::<T, S, M, 2>(s, from, stretches, weights, dst, write),
                    _ => tile::<T, S, M, VECTORS>(s, from, stretches, weights, dst, write),
                }
                window.x.advance(&mut at, len);
                col += len;
            }
        }
    }
}

impl<T: Real> FewChannels<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side.
    pub fn compute(&mut self, isa: Isa) {
        T::few_channels(isa, self);
    }
}
