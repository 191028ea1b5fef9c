//! The gradient of the weights of a depthwise convolution of 3 x 3 whose channels lie side by side, its input read where it lies: line by line of positions, a vector of channels at a time.
//!
//! ```text
//! for each segment of positions, for each vector of channels:
//!   acc[0..3][0..3] = +0.0
//!   for each line of positions:   w[0..3] = the first columns of input that its first position meets, three lines of taps each
//!     for each position:          b = its gradient;   w[..] moves on by a step, and its last columns are loaded
//!                                 acc[r][t] = fma(w[t] of line r, b, acc[r][t])
//!   dst = dst + (acc + 0.0)
//! ```
//!
//! What neighbouring positions share stays in registers: with a step of one, four loads feed nine multiply-adds. Lines and columns of taps outside the tensor are zeros.

use std::ops::Range;

use crate::KC;
use crate::isa::Isa;
use crate::mat::{MatMut, MatRef, Scattered, WriteRows};
use crate::scan::Scan;
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::{Real, Strip, Write};

/// Taps along an axis.
const TAPS: usize = 3;

/// Such sums, to be computed on one thread: `dst = sums` or `dst += sums`. Rows of the result are taps, columns channels.
#[derive(Debug)]
pub struct TapsByLine<'a, 'b, 'c, T> {
    /// The input, and where its element at index 0 is.
    pub data: (&'a [T], isize),
    /// How it is read; its channels lie side by side.
    pub scan: &'b Scan,
    /// The gradient of the output: a row a position, a column a channel.
    pub gradient: MatRef<'a, T>,
    /// Channels, whole strips.
    pub cols: Range<usize>,
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which these sums begin there.
    pub at: [usize; 3],
    /// Whether old values of the result count.
    pub add: bool,
}

/// A vector of channels over a segment.
struct Tile<'a, 'b, T, const STEP: usize> {
    data: &'a [T],
    scan: &'b Scan,
    /// What the first channel adds to an offset.
    channel: isize,
    /// The first position of the segment.
    first: usize,
    gradient: MatRef<'a, T>,
    dst: Scattered<'b, T>,
    write: Write,
}

impl<T: Real + Strip> TapsByLine<'_, '_, '_, T> {
    /// Whether such a convolution can be computed so.
    pub fn serves(scan: &Scan) -> bool {
        let [depth, height, width] = &scan.axes;
        [depth.taps, height.taps, width.taps] == [1, TAPS, TAPS]
            && [height.tap_step, width.tap_step] == [1; 2]
            && matches!(width.step, 1 | 2)
            && width.stride >= 0
            && scan.channels.1 == 1
            && scan.channels.0.is_multiple_of(T::LEN)
    }

    #[inline(always)]
    pub(super) fn run<S: FloatLanes<T> + Simd>(&mut self, s: S, _: Isa) {
        match self.scan.axes[2].step {
            1 => self.segments::<S, 1>(s),
            _ => self.segments::<S, 2>(s),
        }
    }

    #[inline(always)]
    fn segments<S: FloatLanes<T> + Simd, const STEP: usize>(&mut self, s: S) {
        let ([batch, row, col], (data, start), scan) = (self.at, self.data, self.scan);
        let taps = TAPS * TAPS;
        let mut lines = self.dst.lines(batch, row..row + taps, col..col + self.cols.len());
        let positions = self.gradient.rows();
        for first in (0..positions).step_by(KC) {
            let segment = first..positions.min(first + KC);
            let write = if first > 0 || self.add { Write::Add } else { Write::Replace };
            for from in (0..self.cols.len()).step_by(<S as Lanes<T>>::LANES) {
                let (to, channel) = (from + <S as Lanes<T>>::LANES, self.cols.start + from);
                let gradient = self.gradient.part(segment.clone(), channel..channel + <S as Lanes<T>>::LANES);
                let channel = start + channel as isize;
                let dst = lines.part(0..taps, from..to);
                s.apart(Tile::<T, STEP> { data, scan, channel, first, gradient, dst, write });
            }
        }
    }
}

impl<T: Real, S: FloatLanes<T>, const STEP: usize> WithToken<S> for Tile<'_, '_, T, STEP> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tile { data, scan, channel, first, gradient, mut dst, write } = self;
        let [depth, height, width] = &scan.axes;
        let zero = s.splat(T::zero());
        let zeros = MatRef::spread(T::ZEROS, 0, width.size, S::LANES, 0);
        let (mut acc, mut row) = ([[zero; TAPS]; TAPS], 0);
        let (line, mut x) = (first / width.positions, first % width.positions);
        let (plane, mut y) = (line / height.positions, line % height.positions);
        let (mut image, mut z) = (plane / depth.positions, plane % depth.positions);
        // Lines of the input lie one behind the other: all of a plane are one matrix.
        let dense = height.stride == width.size as isize * width.stride;
        while row < gradient.rows() {
            let depth_at = z as isize * depth.step + depth.origin;
            let of_plane = channel + scan.start + image as isize * scan.images.1 + depth_at * depth.stride;
            let inside = (0..depth.size as isize).contains(&depth_at);
            let spread = |first: isize, columns: usize| {
                MatRef::spread(data, first, columns, S::LANES, width.stride as usize)
            };
            let lines = if inside && dense { height.size } else { 0 };
            let plane = if lines > 0 { spread(of_plane, lines * width.size) } else { zeros };
            let line_at = |at: isize| {
                if !inside || !(0..height.size as isize).contains(&at) {
                    zeros
                } else if dense {
                    plane.part(at as usize * width.size..(at as usize + 1) * width.size, 0..S::LANES)
                } else {
                    spread(of_plane + at * height.stride, width.size)
                }
            };
            while y < height.positions && row < gradient.rows() {
                let at = y as isize * height.step + height.origin;
                let lines = [line_at(at), line_at(at + 1), line_at(at + 2)];
                let column = |at: isize| {
                    let mut column = [zero; TAPS];
                    if (0..width.size as isize).contains(&at) {
                        for (column, line) in column.iter_mut().zip(&lines) {
                            *column = s.load(line.row(at as usize));
                        }
                    }
                    column
                };
                let len = (width.positions - x).min(gradient.rows() - row);
                let at = x as isize * STEP as isize + width.origin;
                let mut w = [column(at), column(at + 1), [zero; TAPS]];
                let gradients = gradient.part(row..row + len, 0..S::LANES).down();
                for (i, b) in gradients.enumerate() {
                    let at = at + (i * STEP) as isize;
                    if STEP == 2 {
                        w[1] = column(at + 1);
                    }
                    w[2] = column(at + 2);
                    let b = s.load(b);
                    for r in 0..TAPS {
                        for t in 0..TAPS {
                            acc[r][t] = s.mul_add(w[t][r], b, acc[r][t]);
                        }
                    }
                    w = if STEP == 2 { [w[2], w[1], w[2]] } else { [w[1], w[2], w[2]] };
                }
                (row, x, y) = (row + len, 0, y + 1);
            }
            (y, z) = (0, z + 1);
            if z == depth.positions {
                (z, image) = (0, image + 1);
            }
        }
        for (i, &acc) in acc.as_flattened().iter().enumerate() {
            let row = dst.row(i);
            // N1: no -0 leaves a segment.
            let segment = s.add(acc, zero);
            let sum = if write == Write::Add { s.add(s.load(row), segment) } else { segment };
            s.store(row, sum);
        }
    }
}

impl<T: Real> TapsByLine<'_, '_, '_, T> {
    /// Computes the sums with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side; unless [`TapsByLine::serves`].
    pub fn compute(&mut self, isa: Isa) {
        T::taps_by_line(isa, self);
    }
}
