//! The gradient of the weights of a convolution: k goes over positions, lanes are neighbours in a band of the input.
//!
//! ```text
//! acc[0..M][0..NV] = +0.0
//! for each position:   b[0..NV] = what lies there at NV vectors of kernel positions and channels
//!                      acc[i][..] = fma(splat(gradient of output channel i there), b[..], acc[i][..])
//! dst = dst + (acc + 0.0)
//! ```
//!
//! The vectors of a strip of channels share the lines of a band that neighbouring kernel positions share: a strip over a segment stays in the first-level cache while all output channels meet it.
//! The gradient of the output is read where it lies, element by element. Sums of a strip pass through a block of scratch that also fits there, for results have other orders than bands.

use std::ops::Range;

use crate::KC;
use crate::axis::Window;
use crate::isa::Isa;
use crate::mat::{Across, FixedRows, MatMut, Matrices, StripRun, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::Real;
use super::per_channel::Strip;
use super::windows::Stretch;

/// Most elements behind the last of a band that a tile reads: it loads whole vectors.
pub const POSITION_SLACK: usize = 64;

/// Most rows of a tile.
const POSITION_ROWS: usize = 8;

/// Rows and columns of the blocks in which sums are turned.
const BLOCK: usize = 8;

/// Elements of scratch for the sums of a strip of so many places: of a tile of rows, and of one turned.
pub const fn position_sums(of_strip: usize) -> usize {
    (POSITION_ROWS + 1) * of_strip + BLOCK
}

/// Part of such a gradient, to be computed on one thread: `dst = sums` or `dst += sums`. Rows of the result are output channels, columns kernel positions and input channels.
#[derive(Debug)]
pub struct ByPosition<'a, 'b, 'c, T> {
    /// The gradient of the output: a matrix an image, rows are channels, columns positions.
    pub gradient: Matrices<'a, T>,
    /// The elements of a band, [`POSITION_SLACK`] more than it takes.
    pub data: &'a [T],
    /// How they are read: x are the kernel positions and then the channels of a strip, k positions; nothing is padding.
    pub window: &'b Window,
    /// Elements from a strip to the next.
    pub strip: usize,
    /// Kernel positions, and channels of a strip.
    pub shape: [usize; 2],
    /// Whether channels are the inner index of columns; then how many there are.
    pub channels_inside: Option<usize>,
    /// Rows of the part, as the gradient counts them.
    pub rows: Range<usize>,
    /// Strips of the band, as columns count them from the first of the block.
    pub strips: Range<usize>,
    /// Positions that are summed up, from a whole segment on.
    pub positions: Range<usize>,
    /// Positions of an image.
    pub of_image: usize,
    /// Room for the sums of a strip, [`position_sums`] elements.
    pub sums: &'b mut [T],
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which the block begins there.
    pub at: [usize; 3],
    /// Whether its old values count.
    pub add: bool,
}

/// Positions side by side in the band, of one image.
#[derive(Clone, Copy)]
struct Piece {
    image: usize,
    /// The first, as the image counts.
    first: usize,
    /// Of the first, in the band.
    offset: isize,
    len: usize,
}

/// What rows meet: a strip over a segment.
#[derive(Clone, Copy)]
struct Place<'a, 'b, T> {
    gradient: Matrices<'a, T>,
    data: &'a [T],
    pieces: &'b [Piece],
    /// From a position of a piece to the next.
    step: isize,
}

/// Sums of `M` rows by `NV` vectors of a strip. `SIDE`: rows of the gradient lie side by side.
struct Tile<'a, 'b, T, const M: usize, const NV: usize, const SIDE: bool> {
    place: Place<'a, 'b, T>,
    row: usize,
    /// Where the vectors begin in the band, for a position at offset 0.
    first: [isize; NV],
    /// Where their sums go: element of a row, and how many.
    to: [(usize, usize); NV],
    sums: &'b mut [T],
    /// From a row of sums to the next.
    apart: usize,
}

/// `acc` and the products of a piece. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn over_piece<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize, const SIDE: bool>(
    s: S,
    columns: &mut Across<'_, T, M, SIDE>,
    mut run: StripRun<'_, T, NV>,
    mut acc: [[S::V; NV]; M],
) -> [[S::V; NV]; M] {
    while let Some(strips) = run.next_strips() {
        let mut b = [s.splat(T::zeroed()); NV];
        for (b, strip) in b.iter_mut().zip(strips) {
            *b = s.load(strip);
        }
        let Some(a) = columns.next() else { break };
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = s.splat(a.at(i));
            for (acc, &b) in acc.iter_mut().zip(&b) {
                *acc = s.mul_add(a, b, *acc);
            }
        }
    }
    acc
}

impl<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize, const SIDE: bool> WithToken<S>
    for Tile<'_, '_, T, M, NV, SIDE>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tile { place: Place { gradient, data, mut pieces, step }, row, first, to, sums, apart } = self;
        let vectors = FixedRows::new(data, first, S::LANES);
        let mut acc = [[s.splat(T::zeroed()); NV]; M];
        while let Some(&Piece { image, first, .. }) = pieces.first() {
            let matrix = gradient.matrix(image);
            let mut columns = matrix.part(row..row + M, first..matrix.cols()).across::<M, SIDE>();
            while let Some((piece, rest)) = pieces.split_first()
                && piece.image == image
            {
                acc = over_piece(s, &mut columns, vectors.strips(piece.offset, piece.len, step), acc);
                pieces = rest;
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            for (&acc, (at, len)) in acc.iter().zip(to) {
                s.store_first_n(&mut sums[i * apart + at..], len, acc);
            }
        }
    }
}

impl<T: Real + Strip> ByPosition<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: Simd + FloatLanes<T>>(&mut self, s: S, _: Isa) {
        // One vector a strip has 32 registers of 512 bits, two 16, four 32.
        match (T::LEN / <S as Lanes<T>>::LANES, self.gradient.has_whole_columns()) {
            (1, true) => self.segments::<S, 8, 3, true>(s),
            (1, false) => self.segments::<S, 8, 3, false>(s),
            (2, true) => self.segments::<S, 6, 2, true>(s),
            (2, false) => self.segments::<S, 6, 2, false>(s),
            (4, true) => self.segments::<S, 8, 3, true>(s),
            (4, false) => self.segments::<S, 8, 3, false>(s),
            (vectors, _) => unreachable!("strips of {vectors} vectors"),
        }
    }

    #[inline(always)]
    fn segments<S: Simd + FloatLanes<T>, const M: usize, const NV: usize, const SIDE: bool>(&mut self, s: S) {
        assert!(self.window.is_plain() && M <= POSITION_ROWS);
        let mut stretches = [Stretch::NONE; KC];
        let mut pieces = [Piece { image: 0, first: 0, offset: 0, len: 0 }; KC];
        for first in self.positions.clone().step_by(KC) {
            let segment = first..self.positions.end.min(first + KC);
            let count = Stretch::all(&self.window.k, &segment, &mut stretches);
            let step = self.window.k.inner().stride;
            let (mut position, mut pieced) = (segment.start, 0);
            for stretch in &stretches[..count] {
                let (mut offset, end) = (stretch.offset, position + stretch.len);
                while position < end {
                    let (image, first) = (position / self.of_image, position % self.of_image);
                    let len = (end - position).min(self.of_image - first);
                    pieces[pieced] = Piece { image, first, offset, len };
                    (position, pieced) = (position + len, pieced + 1);
                    offset += len as isize * step;
                }
            }
            let add = self.add || first > self.positions.start;
            for strip in self.strips.clone() {
                let from = (strip - self.strips.start) * self.strip;
                let data = &self.data[from..];
                let place = Place { gradient: self.gradient, data, pieces: &pieces[..pieced], step };
                let mut row = self.rows.start;
                while row < self.rows.end {
                    let m = if self.rows.end - row < M { 1 } else { M };
                    if m == M {
                        self.strip::<S, M, NV, SIDE>(s, place, row);
                    } else {
                        self.strip::<S, 1, NV, SIDE>(s, place, row);
                    }
                    self.finish(s, row..row + m, strip, add);
                    row += m;
                }
            }
        }
    }

    /// All sums of a strip of `M` rows.
    #[inline(always)]
    fn strip<S: Simd + FloatLanes<T>, const M: usize, const NV: usize, const SIDE: bool>(
        &mut self,
        s: S,
        place: Place<'_, '_, T>,
        row: usize,
    ) {
        let [taps, channels] = self.shape;
        let (x, apart, lanes) = (&self.window.x, taps * channels, <S as Lanes<T>>::LANES);
        let (mut first, mut to, mut count) = ([0; NV], [(0, 0); NV], 0);
        let (mut at, mut done) = (x.cursor(0), 0);
        while done < apart {
            // A single channel leaves kernel positions side by side, or apart.
            let len = if x.inner().stride == 1 { x.run(&at) } else { 1 };
            for part in (0..len).step_by(lanes) {
                first[count] = self.window.start + at.offset + part as isize;
                to[count] = (done + part, lanes.min(len - part));
                count += 1;
                if count == NV {
                    count = 0;
                    s.apart(Tile::<T, M, NV, SIDE> { place, row, first, to, sums: &mut *self.sums, apart });
                }
            }
            x.advance(&mut at, len);
            done += len;
        }
        for (first, to) in first.into_iter().zip(to).take(count) {
            s.apart(Tile::<T, M, 1, SIDE> {
                place,
                row,
                first: [first],
                to: [to],
                sums: &mut *self.sums,
                apart,
            });
        }
    }

    /// Sums of a strip to their place in the result.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, s: S, rows: Range<usize>, strip: usize, add: bool) {
        let ([taps, channels], [batch, row, col]) = (self.shape, self.at);
        let of_strip = taps * channels;
        let to_rows = row + rows.start - self.rows.start..row + rows.end - self.rows.start;
        let (col, width, of_tap) = match self.channels_inside {
            Some(all) => (col + strip * channels, (taps - 1) * all + channels, all),
            None => (col + strip * of_strip, of_strip, channels),
        };
        let m = rows.len();
        let mut lines = self.dst.lines(batch, to_rows, col..col + width);
        let mut dst = lines.part(0..m, 0..width);
        let (sums, turned) = self.sums.split_at_mut(POSITION_ROWS * of_strip);
        for (i, sums) in sums.chunks_exact(of_strip).take(m).enumerate() {
            let dst = dst.row(i);
            if self.channels_inside.is_some() {
                // Of a single strip all lie side by side.
                let side_by_side = if of_tap == channels { of_strip } else { channels };
                for (dst, sums) in
                    dst.chunks_mut(of_tap.max(side_by_side)).zip(sums.chunks_exact(side_by_side))
                {
                    put(&mut dst[..side_by_side], sums, add);
                }
            } else {
                turn(s, sums, self.shape, turned);
                put(dst, &turned[..of_strip], add);
            }
        }
    }
}

/// Segments to their places.
#[inline(always)]
fn put<T: Real>(dst: &mut [T], sums: &[T], add: bool) {
    // N1: no -0 leaves a segment.
    if add {
        for (dst, &sum) in dst.iter_mut().zip(sums) {
            *dst = *dst + (sum + T::zero());
        }
    } else {
        for (dst, &sum) in dst.iter_mut().zip(sums) {
            *dst = sum + T::zero();
        }
    }
}

/// `turned[j][i] = sums[i][j]` for `m` rows of `n`, with [`BLOCK`] elements of room behind, by blocks of 8 x 8.
#[inline(always)]
fn turn<T: Real, S: Simd>(s: S, sums: &[T], [m, n]: [usize; 2], turned: &mut [T]) {
    let cols = n / BLOCK * BLOCK;
    for j in (0..cols).step_by(BLOCK) {
        // What the last rows, which fill no block, leave behind them the others write over.
        let tail = m / BLOCK * BLOCK..m.next_multiple_of(BLOCK);
        for i in tail.chain(0..m / BLOCK * BLOCK).step_by(BLOCK) {
            let mut block = [[T::zeroed(); BLOCK]; BLOCK];
            for (block, row) in block.iter_mut().zip(sums[i * n..].chunks_exact(n)) {
                block.copy_from_slice(&row[j..j + BLOCK]);
            }
            for (c, column) in T::transpose(s, block).iter().enumerate() {
                turned[(j + c) * m + i..][..BLOCK].copy_from_slice(column);
            }
        }
    }
    for (i, row) in sums.chunks_exact(n).take(m).enumerate() {
        for j in cols..n {
            turned[j * m + i] = row[j];
        }
    }
}

impl<T: Real> ByPosition<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side.
    pub fn compute(&mut self, isa: Isa) {
        T::by_position(isa, self);
    }
}
