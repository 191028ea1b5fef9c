//! A depthwise convolution whose channels lie side by side, its input read where it lies: line by line of positions, a vector of channels at a time.
//!
//! ```text
//! for each line of positions, for each vector of channels, for each M positions of the line:
//!   acc[0..M] = +0.0
//!   for each line of taps:        w[0..TAPS] = their weights
//!     for each place j of the line of input that these positions meet there, in the direction of the taps:
//!       x = its channels, or zeros beyond the ends of the line
//!       for each tap t that meets it from a position i (j = i STEP + t):   acc[i] = fma(x, w[t], acc[i])
//! ```
//!
//! A vector of input is loaded once for all the taps of a line, so loads are a third of the multiply-adds or less and nothing has to be copied for them. The order
//! of the sum of a position is that of its taps: places come in the order of taps, and one place meets a position at one tap. Where lines of taps lie outside the
//! tensor, they are left out if all weights are finite (N11), and else read zeros.

use std::ops::Range;

use crate::KC;
use crate::isa::Isa;
use crate::mat::{Band, Beads, Cols, MatMut, WriteRows};
use crate::scan::{Scan, ScanAxis};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::for_each::for_each;
use super::onto::Onto;
use super::per_channel::tile_of_line;
use super::real::all_finite;
use super::{Real, Strip, Write};

/// Most lines of taps: those of kernels of 16 x 16 or 4 x 4 x 4.
const LINES_OF_TAPS: usize = 16;

/// A block of such a convolution, to be computed on one thread: `dst = sums` or `dst += sums`.
#[derive(Debug)]
pub struct ByLine<'a, 'b, 'c, T> {
    /// The input, and where its element at index 0 is.
    pub data: (&'a [T], isize),
    /// How it is read; its channels lie side by side.
    pub scan: &'b Scan,
    /// Positions of the block.
    pub rows: Range<usize>,
    /// Channels of the block, whole strips.
    pub cols: Range<usize>,
    /// Their weights: `[strip][tap][lane]`.
    pub weights: &'a [T],
    /// Where positions are rows of a result.
    pub onto: Onto,
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which what the block is a part of begins there.
    pub at: [usize; 3],
    /// Whether old values of the result count.
    pub add: bool,
}

/// A line of taps, met from a line of positions.
#[derive(Clone, Copy)]
struct OfTaps {
    /// Coordinate 0 of the line of input that it meets, `None` for padding.
    line: Option<isize>,
    /// The first of its taps.
    tap: usize,
}

/// `M` positions of a line, all channels of a block; `N` is how many places they meet there.
struct Tile<'a, 'b, 'c, T, const M: usize, const TAPS: usize, const STEP: usize, const N: usize> {
    data: &'a [T],
    /// Channel 0 of the block: what it adds to an offset.
    channel: isize,
    of_taps: &'b [OfTaps],
    width: &'b ScanAxis,
    /// The first position.
    at: usize,
    /// The weights of the block: `[strip][tap][lane]`.
    weights: &'a [T],
    dst: Band<'c, T>,
    write: Write,
}

impl<T: Real + Strip> ByLine<'_, '_, '_, T> {
    /// Whether such a convolution can be computed so: its kernel is one of those that there are tiles for.
    pub fn serves(scan: &Scan) -> bool {
        let [depth, height, width] = &scan.axes;
        let tiles = matches!((width.taps, width.step), (1 | 2 | 3 | 5 | 7, 1) | (3 | 5, 2));
        let lines = depth.taps * height.taps;
        tiles
            && width.tap_step.unsigned_abs() == 1
            && lines <= LINES_OF_TAPS
            && lines * width.taps <= KC
            && scan.channels.1 == 1
            && scan.channels.0.is_multiple_of(T::LEN)
    }

    #[inline(always)]
    pub(super) fn run<S: FloatLanes<T> + Simd>(&mut self, s: S, _: Isa) {
        // Sums of a tile, the weights of a line of taps and a vector of input fill the registers: 32 of AVX-512 and NEON, whose strips are one vector and four.
        // Images of networks are multiples of 7 wide.
        let width = &self.scan.axes[2];
        // Tiles of so many positions, and the places of a line that they meet.
        macro_rules! tiles {
            ($tall:literal, $low:literal: $(($taps:literal, $step:literal))*) => {
                match (width.taps, width.step) {
                    $(($taps, $step) => self.lines::<
                        S,
                        $taps,
                        $step,
                        $tall,
                        { ($tall - 1) * $step + $taps },
                        $low,
                        { ($low - 1) * $step + $taps },
                    >(s),)*
                    taps => unreachable!("no tile of {taps:?} taps and steps"),
                }
            };
            ($tall:literal, $low:literal) => {
                tiles!($tall, $low: (1, 1) (2, 1) (3, 1) (5, 1) (7, 1) (3, 2) (5, 2))
            };
        }
        // What an instruction set has no use for is not compiled for it.
        if const { !S::TILES } {
            tiles!(1, 1)
        } else if const { matches!(T::LEN / <S as Lanes<T>>::LANES, 1 | 4) } {
            tiles!(14, 7)
        } else {
            tiles!(7, 3)
        }
    }

    /// By tiles of `TALL` positions, `LOW` or one, which meet `NT`, `NL` and `TAPS` places.
    #[inline(always)]
    fn lines<
        S: FloatLanes<T> + Simd,
        const TAPS: usize,
        const STEP: usize,
        const TALL: usize,
        const NT: usize,
        const LOW: usize,
        const NL: usize,
    >(
        &mut self,
        s: S,
    ) {
        let (scan, onto, (data, start)) = (self.scan, self.onto, self.data);
        let [_, height, width] = &scan.axes;
        let of_strip = TAPS * height.taps * scan.axes[0].taps * T::LEN;
        let weights = &self.weights[..self.cols.len().div_ceil(T::LEN) * of_strip];
        let skips = all_finite(s, weights);
        let (write, channel) =
            (if self.add { Write::Add } else { Write::Replace }, start + self.cols.start as isize);
        let [batch, first_row, first_col] = self.at;
        let cols = first_col..first_col + self.cols.len();
        let mut of_taps = [OfTaps { line: None, tap: 0 }; LINES_OF_TAPS];
        let (mut row, apart) = (self.rows.start, onto.apart());
        while row < self.rows.end {
            let line = row / width.positions;
            let count = lines_of_taps(scan, line, skips, &mut of_taps);
            let of_taps = &of_taps[..count];
            let most = self.rows.end.min((line + 1) * width.positions) - row;
            let mut rows = self.dst.evenly(batch, first_row + onto.row(row), apart, most, cols.clone());
            let (mut next, len) = (0, rows.m());
            while next < len {
                let tile = tile_of_line(next, len, TALL, LOW, write);
                next = tile.end;
                let (at, height) = (row - line * width.positions + tile.start, tile.len());
                let dst = rows.part(tile, 0..self.cols.len());
                if height == TALL {
                    let tile = Tile { data, channel, of_taps, width, at, weights, dst, write };
                    s.apart::<Tile<'_, '_, '_, T, TALL, TAPS, STEP, NT>>(tile);
                } else if height == LOW {
                    let tile = Tile { data, channel, of_taps, width, at, weights, dst, write };
                    s.apart::<Tile<'_, '_, '_, T, LOW, TAPS, STEP, NL>>(tile);
                } else {
                    let tile = Tile { data, channel, of_taps, width, at, weights, dst, write };
                    s.apart::<Tile<'_, '_, '_, T, 1, TAPS, STEP, TAPS>>(tile);
                }
            }
            row += len;
        }
    }
}

/// The lines of taps that a line of positions meets, but for those outside if it `skips` them; how many there are.
#[inline(always)]
fn lines_of_taps(scan: &Scan, line: usize, skips: bool, out: &mut [OfTaps; LINES_OF_TAPS]) -> usize {
    let [depth, height, width] = &scan.axes;
    let (plane, y) = (line / height.positions, line % height.positions);
    let (image, z) = (plane / depth.positions, plane % depth.positions);
    let met = |axis: &ScanAxis, position: usize, tap: usize| {
        let at = position as isize * axis.step + tap as isize * axis.tap_step + axis.origin;
        (0..axis.size as isize).contains(&at).then_some(at * axis.stride)
    };
    let start = scan.start + image as isize * scan.images.1;
    let mut count = 0;
    for tap_z in 0..depth.taps {
        let z = met(depth, z, tap_z);
        for tap_y in 0..height.taps {
            let line = z.zip(met(height, y, tap_y)).map(|(z, y)| start + z + y);
            if line.is_some() || !skips {
                out[count] = OfTaps { line, tap: (tap_z * height.taps + tap_y) * width.taps };
                count += 1;
            }
        }
    }
    count
}

/// `acc` and the products of a line of taps, whose first and last `ENDS` places may be padding.
#[inline(always)]
fn line_of_taps<
    T: Real,
    S: FloatLanes<T>,
    const M: usize,
    const TAPS: usize,
    const STEP: usize,
    const N: usize,
    const ENDS: usize,
>(
    s: S,
    w: [S::V; TAPS],
    places: Cols<'_, T, N, ENDS>,
    mut acc: [S::V; M],
) -> [S::V; M] {
    const { assert!(N == (M - 1) * STEP + TAPS && N <= 31) };
    for_each!(j in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30] {
        if j < N {
            let x = if j >= ENDS && j + ENDS < N {
                s.load(places.between(j))
            } else if let Some(channels) = places.at(j) {
                s.load(channels)
            } else {
                s.splat(T::zero())
            };
            for (t, &w) in w.iter().enumerate() {
                if j >= t && (j - t).is_multiple_of(STEP) && (j - t) / STEP < M {
                    let i = (j - t) / STEP;
                    acc[i] = s.mul_add(x, w, acc[i]);
                }
            }
        }
    });
    acc
}

impl<T, S, const M: usize, const TAPS: usize, const STEP: usize, const N: usize> WithToken<S>
    for Tile<'_, '_, '_, T, M, TAPS, STEP, N>
where
    T: Real + Strip,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tile { data, channel, of_taps, width, at, weights, mut dst, write } = self;
        let channels = dst.n();
        assert!(dst.m() == M);
        // Taps that go backward are met forward by positions that do.
        let forward = width.tap_step > 0;
        let nearest = if forward { at } else { at + M - 1 };
        let first = nearest as isize * width.step + width.origin;
        let (apart, size) = (width.stride, width.size as isize);
        let (apart, from, to) =
            if forward { (apart, -first, size - first) } else { (-apart, first - size + 1, first + 1) };
        let clamp = |place: isize| place.clamp(0, N as isize) as usize;
        let inside = clamp(from)..clamp(to).max(clamp(from));
        let mut lines = [(Beads::<T, N>::NONE, 0); LINES_OF_TAPS];
        // Whether padding is more than the taps reach beyond an end, as in narrow images.
        let mut near = false;
        for (beads, of_taps) in lines.iter_mut().zip(of_taps) {
            *beads = match of_taps.line {
                Some(line) => {
                    let begin = line + channel + first * width.stride;
                    (Beads::new(data, begin, apart, inside.clone(), channels), of_taps.tap)
                }
                None => (Beads::NONE, of_taps.tap),
            };
            near |= !beads.0.is_whole_between(TAPS);
        }
        let lines = &lines[..of_taps.len()];
        let of_strip = weights.len() / channels.div_ceil(T::LEN);
        let zero = s.splat(T::zero());
        for col in (0..channels).step_by(S::LANES) {
            let weights = &weights[col / T::LEN * of_strip..][..of_strip];
            let mut acc = [zero; M];
            for (beads, tap) in lines {
                let weights = &weights[tap * T::LEN + col % T::LEN..];
                let mut w = [zero; TAPS];
                for (t, w) in w.iter_mut().enumerate() {
                    *w = s.load(&weights[t * T::LEN..]);
                }
                acc = if near {
                    line_of_taps::<T, S, M, TAPS, STEP, N, N>(s, w, beads.cols(col, S::LANES), acc)
                } else {
                    line_of_taps::<T, S, M, TAPS, STEP, N, TAPS>(s, w, beads.cols(col, S::LANES), acc)
                };
            }
            for (i, &acc) in acc.iter().enumerate() {
                let row = &mut dst.row(if forward { i } else { M - 1 - i })[col..];
                // N1: no -0 leaves a segment.
                let segment = s.add(acc, zero);
                let sum = if write == Write::Add { s.add(s.load(row), segment) } else { segment };
                s.store(row, sum);
            }
        }
    }
}

impl<T: Real> ByLine<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side; unless [`ByLine::serves`].
    pub fn compute(&mut self, isa: Isa) {
        T::by_line(isa, self);
    }
}
