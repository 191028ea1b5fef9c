//! Products of one column each, many side by side: a depthwise convolution with its channels in the lanes.
//!
//! ```text
//! sums by position                                    sums by tap (the gradient of the weights)
//!
//! acc[0..M] = +0.0                                    acc[0..R][0..C] = +0.0
//! for each tap:                                       for each position:
//!   b = its weights                                     b = its gradient
//!   acc[i] = fma(input of position i there, b, acc[i])  acc[r][c] = fma(input of tap r, c there, b, acc[r][c])
//! ```
//!
//! Channels come in strips of one cache line, [`Strip::LEN`] of them: whatever the number of channels, the lines of input that neighbouring positions share
//! stay in the first-level cache. A load feeds each multiply-add, and the loads of `b` are what a tall tile saves.

use std::ops::Range;

use crate::KC;
use crate::axis::Window;
use crate::isa::Isa;
use crate::mat::{CACHE_LINE, Comb, Down, LINES, Lines, MatMut, MatRef, Scattered, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::onto::Onto;
use super::windows::Stretch;
use super::{Real, Write};

/// How many channels are computed at a time.
pub trait Strip: Sized {
    /// As many as a cache line holds.
    const LEN: usize = CACHE_LINE / size_of::<Self>();
}

impl Strip for f32 {}
impl Strip for f64 {}

/// Most channels of a strip.
const WIDEST: usize = CACHE_LINE / size_of::<f32>();

/// Elements of a band, strip by strip of channels.
#[derive(Clone, Copy, Debug)]
pub struct Strips<'a, 'b, T> {
    /// The elements.
    pub data: &'a [T],
    /// Elements from a strip to the next.
    pub strip: usize,
    /// How those of a strip are read: x are positions, k are taps, nothing is padding.
    pub window: &'b Window,
}

/// Sums by position, to be computed on one thread: `dst = sums` or `dst += sums`.
#[derive(Debug)]
pub struct Positions<'a, 'b, 'c, T> {
    /// The input.
    pub data: Strips<'a, 'b, T>,
    /// Positions of the block.
    pub rows: Range<usize>,
    /// The weights: `[strip][tap][lane]`.
    pub weights: &'a [T],
    /// Where positions are rows of a result.
    pub onto: Onto,
    /// The result.
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which what the block is a part of begins there.
    pub at: [usize; 3],
    /// How many channels there are.
    pub channels: usize,
    /// Whether old values of the result count.
    pub add: bool,
}

/// The gradient of the output at the positions that are summed up.
#[derive(Clone, Copy, Debug)]
pub enum Gradient<'a, 'b, T> {
    /// Strips of a band: each position is a tap, one behind the other.
    Strips(Strips<'a, 'b, T>),
    /// Where it lies: a row a position, and the column of the first channel. All strips are whole ones.
    InPlace(MatRef<'a, T>, usize),
}

/// Sums by tap: `dst = sums` or `dst += sums`. Rows of the result are taps.
#[derive(Debug)]
pub struct Taps<'a, 'b, 'c, T> {
    /// The input.
    pub data: Strips<'a, 'b, T>,
    /// The gradient of the output.
    pub gradient: Gradient<'a, 'b, T>,
    /// The positions that are summed up, from a whole segment on.
    pub positions: Range<usize>,
    /// As in [`Positions`].
    pub dst: &'b mut MatMut<'c, T>,
    /// Which matrix of it, and the row and the column at which the sums begin there.
    pub at: [usize; 3],
    /// As in [`Positions`].
    pub channels: usize,
    /// As in [`Positions`].
    pub add: bool,
}

/// Positions that lie one distance apart, over a segment of taps.
#[derive(Clone, Copy)]
struct Line<'a, 'b, T> {
    data: &'a [T],
    /// The place of the first position at offset 0 of the taps.
    first: isize,
    /// From a position to the next.
    apart: isize,
    /// From a tap of a stretch to the next.
    step: isize,
    stretches: &'b [Stretch],
}

/// A strip of the input, over a segment of positions.
#[derive(Clone, Copy)]
struct Grid<'a, 'b, T> {
    data: &'a [T],
    window: &'b Window,
    stretches: &'b [Stretch],
}

/// Where sums by tap go.
struct Rows<'a, 'b, T> {
    lines: &'a mut Lines<'b, T>,
    /// The row of the first tap.
    row: usize,
    /// From a line of taps to the next.
    apart: usize,
    cols: Range<usize>,
    write: Write,
}

/// `acc` and the products of a comb. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn comb<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize>(
    s: S,
    mut comb: Comb<'_, T, M>,
    rows: &mut Down<'_, T>,
    mut acc: [[S::V; NV]; M],
) -> [[S::V; NV]; M] {
    while let Some(strips) = comb.next_strips() {
        let Some(b) = rows.next() else { break };
        for j in 0..NV {
            let b = s.load(&b[j * S::LANES..]);
            for (acc, strip) in acc.iter_mut().zip(strips) {
                acc[j] = s.mul_add(s.load(&strip[j * S::LANES..]), b, acc[j]);
            }
        }
    }
    acc
}

/// The same of several combs that go on together.
#[inline(always)]
fn combs<T: Real, S: FloatLanes<T>, const R: usize, const C: usize, const NV: usize>(
    s: S,
    mut combs: [Comb<'_, T, C>; R],
    rows: &mut Down<'_, T>,
    mut acc: [[[S::V; NV]; C]; R],
) -> [[[S::V; NV]; C]; R] {
    'columns: loop {
        let mut row = [s.splat(T::zeroed()); NV];
        for (r, (comb, acc)) in combs.iter_mut().zip(&mut acc).enumerate() {
            let Some(strips) = comb.next_strips() else { break 'columns };
            if r == 0 {
                let Some(b) = rows.next() else { break 'columns };
                for (j, row) in row.iter_mut().enumerate() {
                    *row = s.load(&b[j * S::LANES..]);
                }
            }
            for (acc, strip) in acc.iter_mut().zip(strips) {
                for (j, &b) in row.iter().enumerate() {
                    acc[j] = s.mul_add(s.load(&strip[j * S::LANES..]), b, acc[j]);
                }
            }
        }
    }
    acc
}

/// A tile of `R` lines of `C` taps, the lines one distance from each other and the taps of a line side by side: a position is read from one address.
struct CloseTaps<'a, 'b, 'c, 'd, T, const R: usize, const C: usize, const NV: usize> {
    data: &'a [T],
    /// The first tap at offset 0 of the positions.
    first: isize,
    /// From a line of taps to the next.
    apart: isize,
    /// From a position to the next.
    step: isize,
    stretches: &'a [Stretch],
    gradient: MatRef<'a, T>,
    to: &'b mut Rows<'c, 'd, T>,
}

/// `acc` and the products of positions one behind the other.
#[inline(always)]
fn close_taps<T: Real, S: FloatLanes<T>, const R: usize, const C: usize, const NV: usize>(
    s: S,
    mut taps: Comb<'_, T, R>,
    rows: &mut Down<'_, T>,
    mut acc: [[[S::V; NV]; C]; R],
) -> [[[S::V; NV]; C]; R] {
    while let Some(lines) = taps.next_strips() {
        let Some(b) = rows.next() else { break };
        for j in 0..NV {
            let b = s.load(&b[j * S::LANES..]);
            for (acc, line) in acc.iter_mut().zip(lines) {
                for (c, acc) in acc.iter_mut().enumerate() {
                    acc[j] = s.mul_add(s.load(&line[(c * NV + j) * S::LANES..]), b, acc[j]);
                }
            }
        }
    }
    acc
}

impl<T: Real, S: FloatLanes<T>, const R: usize, const C: usize, const NV: usize> WithToken<S>
    for CloseTaps<'_, '_, '_, '_, T, R, C, NV>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let CloseTaps { data, first, apart, step, stretches, gradient, to } = self;
        let mut acc = [[[s.splat(T::zeroed()); NV]; C]; R];
        let mut rows = gradient.down();
        for stretch in stretches {
            let (first, width) = (first + stretch.offset, C * NV * S::LANES);
            let taps = Comb::<T, R>::new(data, first, apart, stretch.len, step, width);
            acc = close_taps(s, taps, &mut rows, acc);
        }
        write_taps(s, &acc, to);
    }
}

/// Sums of lines of taps to rows of the result.
#[inline(always)]
fn write_taps<T: Real, S: FloatLanes<T>, const R: usize, const C: usize, const NV: usize>(
    s: S,
    acc: &[[[S::V; NV]; C]; R],
    to: &mut Rows<'_, '_, T>,
) {
    for (r, acc) in acc.iter().enumerate() {
        let row = to.row + r * to.apart;
        write_rows(s, acc, to.lines.part(row..row + C, to.cols.clone()), to.write);
    }
}

/// Sums of a strip to rows of the result.
#[inline(always)]
fn write_rows<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize>(
    s: S,
    acc: &[[S::V; NV]; M],
    mut dst: Scattered<'_, T>,
    write: Write,
) {
    // N1: no -0 leaves a segment.
    let zero = s.splat(T::zeroed());
    assert!(dst.m() == M);
    if dst.n() == NV * S::LANES {
        for (i, acc) in acc.iter().enumerate() {
            let row = dst.row(i);
            for (j, &acc) in acc.iter().enumerate() {
                let (at, segment) = (&mut row[j * S::LANES..], s.add(acc, zero));
                let sum = if write == Write::Add { s.add(s.load(at), segment) } else { segment };
                s.store(at, sum);
            }
        }
        return;
    }
    for (i, acc) in acc.iter().enumerate() {
        let row = dst.row(i);
        let mut sums = [T::zeroed(); WIDEST];
        sums[..row.len()].copy_from_slice(row);
        for (j, &acc) in acc.iter().enumerate() {
            let (at, segment) = (&mut sums[j * S::LANES..], s.add(acc, zero));
            let sum = if write == Write::Add { s.add(s.load(at), segment) } else { segment };
            s.store(at, sum);
        }
        row.copy_from_slice(&sums[..row.len()]);
    }
}

/// `APART`: strips from a position to the next, where that is known, else 0.
#[inline(always)]
fn positions_tile<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize, const APART: usize>(
    s: S,
    line: Line<'_, '_, T>,
    weights: MatRef<'_, T>,
    dst: Scattered<'_, T>,
    write: Write,
) {
    let Line { data, first, apart, step, stretches } = line;
    let width = NV * S::LANES;
    let apart = if APART > 0 { (APART * width) as isize } else { apart };
    let mut acc = [[s.splat(T::zeroed()); NV]; M];
    let mut rows = weights.down();
    for stretch in stretches {
        let of_stretch = Comb::<T, M>::new(data, first + stretch.offset, apart, stretch.len, step, width);
        acc = comb(s, of_stretch, &mut rows, acc);
    }
    write_rows(s, &acc, dst, write);
}

/// The tile that goes on from position `next` of `len` on a line, of `tall` positions, `low` or one. The last tile begins early enough to be a whole one, if what it repeats
/// does not count twice. Else positions are taken one by one.
#[inline(always)]
pub(super) fn tile_of_line(next: usize, len: usize, tall: usize, low: usize, write: Write) -> Range<usize> {
    let left = len - next;
    if left >= tall {
        next..next + tall
    } else if left >= low {
        next..next + low
    } else if write == Write::Replace && len >= low {
        len - low..len
    } else {
        next..next + 1
    }
}

impl<T: Real + Strip> Positions<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: FloatLanes<T>>(&mut self, s: S, _: Isa) {
        // Sums of a tile and one vector of weights for each vector of a strip fill the registers: those of AVX-512 are a strip each. Images of networks are
        // multiples of 7 wide.
        match const { T::LEN / S::LANES } {
            1 => self.tall::<S, 1, 14, 7>(s),
            2 => self.tall::<S, 2, 7, 7>(s),
            4 => self.tall::<S, 4, 4, 4>(s),
            vectors => unreachable!("strips of {vectors} vectors"),
        }
    }

    /// By tiles of `TALL` positions, `LOW` or one.
    #[inline(always)]
    fn tall<S: FloatLanes<T>, const NV: usize, const TALL: usize, const LOW: usize>(&mut self, s: S) {
        assert!(self.data.window.is_plain());
        let taps = self.data.window.k.extent();
        let mut stretches = [Stretch::NONE; KC];
        for first in (0..taps).step_by(KC) {
            let segment = first..taps.min(first + KC);
            let count = Stretch::all(&self.data.window.k, &segment, &mut stretches);
            let write = if first > 0 || self.add { Write::Add } else { Write::Replace };
            let mut row = self.rows.start;
            while row < self.rows.end {
                let rows = row..self.onto.end(row, self.rows.end);
                row = rows.end;
                self.rows::<S, NV, TALL, LOW>(s, &stretches[..count], segment.clone(), rows, write);
            }
        }
    }

    /// Positions whose rows are looked up at once, all strips.
    #[inline(always)]
    fn rows<S: FloatLanes<T>, const NV: usize, const TALL: usize, const LOW: usize>(
        &mut self,
        s: S,
        stretches: &[Stretch],
        segment: Range<usize>,
        rows: Range<usize>,
        write: Write,
    ) {
        let (x, taps, [batch, first_row, col]) = (&self.data.window.x, self.data.window.k.extent(), self.at);
        let (to, every) = (first_row + self.onto.row(rows.start), self.onto.apart());
        let to_rows = to..to + (rows.len() - 1) * every + 1;
        let mut lines = self.dst.lines(batch, to_rows, col..col + self.channels);
        let (begin, apart) = (x.cursor(rows.start), x.inner().stride);
        for (strip, channel) in (0..self.channels).step_by(T::LEN).enumerate() {
            let cols = channel..self.channels.min(channel + T::LEN);
            let data = &self.data.data[strip * self.data.strip..][..self.data.strip];
            let weights = &self.weights[(strip * taps + segment.start) * T::LEN..][..segment.len() * T::LEN];
            let weights = MatRef::row_major(weights, segment.len(), T::LEN);
            let (mut at, mut done) = (begin, 0);
            while done < rows.len() {
                let len = x.run(&at).min(rows.len() - done);
                let mut next = 0;
                while next < len {
                    let tile = tile_of_line(next, len, TALL, LOW, write);
                    next = tile.end;
                    let line = Line {
                        data,
                        first: self.data.window.start + at.offset + tile.start as isize * apart,
                        apart,
                        step: self.data.window.k.inner().stride,
                        stretches,
                    };
                    // The place of the tile after this.
                    let then = done + tile.end..rows.len().min(done + tile.end + TALL);
                    lines.every(then, every, cols.clone()).prefetch_all();
                    let height = tile.len();
                    let dst = lines.every(done + tile.start..done + tile.end, every, cols.clone());
                    let strip = T::LEN as isize;
                    if height == TALL && apart == strip {
                        positions_tile::<T, S, TALL, NV, 1>(s, line, weights, dst, write);
                    } else if height == TALL && apart == 2 * strip {
                        positions_tile::<T, S, TALL, NV, 2>(s, line, weights, dst, write);
                    } else if height == TALL {
                        positions_tile::<T, S, TALL, NV, 0>(s, line, weights, dst, write);
                    } else if height == LOW && apart == strip {
                        positions_tile::<T, S, LOW, NV, 1>(s, line, weights, dst, write);
                    } else if height == LOW && apart == 2 * strip {
                        positions_tile::<T, S, LOW, NV, 2>(s, line, weights, dst, write);
                    } else if height == LOW {
                        positions_tile::<T, S, LOW, NV, 0>(s, line, weights, dst, write);
                    } else {
                        positions_tile::<T, S, 1, NV, 0>(s, line, weights, dst, write);
                    }
                }
                x.advance(&mut at, len);
                done += len;
            }
        }
    }
}

/// A tile of `R` lines of `C` taps that begins `at` a line and a tap; its shape.
#[inline(always)]
fn taps_tile<T: Real, S: Simd + FloatLanes<T>, const R: usize, const C: usize, const NV: usize>(
    s: S,
    grid: Grid<'_, '_, T>,
    [line, tap]: [usize; 2],
    gradient: MatRef<'_, T>,
    to: &mut Rows<'_, '_, T>,
) -> [usize; 2] {
    let Grid { data, window, stretches } = grid;
    let (taps, step) = (window.k.inner(), window.x.inner().stride);
    let first: [isize; R] =
        std::array::from_fn(|r| window.start + window.k.offset((line + r) * taps.extent + tap));
    let apart = if R > 1 { first[1] - first[0] } else { 0 };
    let even = first.iter().enumerate().all(|(r, &line)| line == first[0] + r as isize * apart);
    if even && taps.stride == (NV * <S as Lanes<T>>::LANES) as isize {
        let first = first[0];
        s.apart(CloseTaps::<T, R, C, NV> { data, first, apart, step, stretches, gradient, to });
        return [R, C];
    }
    let mut acc = [[[s.splat(T::zeroed()); NV]; C]; R];
    let mut rows = gradient.down();
    for stretch in stretches {
        let of_line = |first: isize| {
            let first = first + stretch.offset;
            Comb::<T, C>::new(data, first, taps.stride, stretch.len, step, NV * <S as Lanes<T>>::LANES)
        };
        acc = combs(s, first.map(of_line), &mut rows, acc);
    }
    write_taps(s, &acc, to);
    [R, C]
}

impl<T: Real + Strip> Taps<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: Simd + FloatLanes<T>>(&mut self, s: S, _: Isa) {
        match const { T::LEN / <S as Lanes<T>>::LANES } {
            1 => self.segments::<S, 1>(s),
            2 => self.segments::<S, 2>(s),
            4 => self.segments::<S, 4>(s),
            vectors => unreachable!("strips of {vectors} vectors"),
        }
    }

    #[inline(always)]
    fn segments<S: Simd + FloatLanes<T>, const NV: usize>(&mut self, s: S) {
        assert!(self.data.window.is_plain());
        let mut stretches = [Stretch::NONE; KC];
        for first in self.positions.clone().step_by(KC) {
            let segment = first..self.positions.end.min(first + KC);
            let count = Stretch::all(&self.data.window.x, &segment, &mut stretches);
            let write = if first > self.positions.start || self.add { Write::Add } else { Write::Replace };
            let taps = &self.data.window.k;
            let of_line = taps.inner().extent;
            // Rectangles of taps whose rows of the result are neighbours.
            let across = of_line.min(LINES);
            let down = if across == of_line { LINES / of_line } else { 1 };
            let lines = taps.extent() / of_line;
            for line in (0..lines).step_by(down) {
                let lines = line..lines.min(line + down);
                for tap in (0..of_line).step_by(across) {
                    let taps = tap..of_line.min(tap + across);
                    self.taps::<S, NV>(s, lines.clone(), taps, &stretches[..count], segment.clone(), write);
                }
            }
        }
    }

    /// Some taps, all strips.
    #[inline(always)]
    fn taps<S: Simd + FloatLanes<T>, const NV: usize>(
        &mut self,
        s: S,
        lines: Range<usize>,
        taps: Range<usize>,
        stretches: &[Stretch],
        segment: Range<usize>,
        write: Write,
    ) {
        let ([batch, row, col], of_line) = (self.at, self.data.window.k.inner().extent);
        let row = row + lines.start * of_line + taps.start;
        let mut dst = self.dst.lines(batch, row..row + lines.len() * taps.len(), col..col + self.channels);
        let Strips { data, strip: of_strip, window } = self.data;
        let gradient = self.gradient;
        for (strip, channel) in (0..self.channels).step_by(T::LEN).enumerate() {
            let b = match gradient {
                Gradient::Strips(Strips { data, strip: of_strip, window }) => {
                    let from = (window.start + window.x.offset(segment.start)) as usize;
                    let data = &data[strip * of_strip + from..][..segment.len() * T::LEN];
                    MatRef::row_major(data, segment.len(), T::LEN)
                }
                Gradient::InPlace(rows, first) => {
                    let (at, col) = (segment.start - self.positions.start, first + channel);
                    rows.part(at..at + segment.len(), col..col + T::LEN)
                }
            };
            let of_strip = Grid { data: &data[strip * of_strip..][..of_strip], window, stretches };
            let cols = channel..self.channels.min(channel + T::LEN);
            let mut tap = taps.start;
            while tap < taps.end {
                let left = taps.end - tap;
                let (mut line, mut across) = (lines.start, 1);
                while line < lines.end {
                    // As many sums as there are registers for; the kernels of networks are 3, 5 or 7 wide.
                    let at = [line, tap];
                    let row = (line - lines.start) * taps.len() + tap - taps.start;
                    let mut to = Rows { lines: &mut dst, row, apart: taps.len(), cols: cols.clone(), write };
                    let down;
                    [down, across] = match lines.end - line {
                        5.. if NV == 1 && left == 5 => {
                            taps_tile::<T, S, 5, 5, NV>(s, of_strip, at, b, &mut to)
                        }
                        3.. if NV == 1 && left == 3 => {
                            taps_tile::<T, S, 3, 3, NV>(s, of_strip, at, b, &mut to)
                        }
                        _ if NV <= 2 && left >= 7 => taps_tile::<T, S, 1, 7, NV>(s, of_strip, at, b, &mut to),
                        _ if left >= 5 => taps_tile::<T, S, 1, 5, NV>(s, of_strip, at, b, &mut to),
                        _ if left >= 3 => taps_tile::<T, S, 1, 3, NV>(s, of_strip, at, b, &mut to),
                        _ => taps_tile::<T, S, 1, 1, NV>(s, of_strip, at, b, &mut to),
                    };
                    line += down;
                }
                tap += across;
            }
        }
    }
}

impl<T: Real> Positions<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side.
    pub fn compute(&mut self, isa: Isa) {
        T::positions(isa, self);
    }
}

impl<T: Real> Taps<'_, '_, '_, T> {
    /// Computes the sums with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side.
    pub fn compute(&mut self, isa: Isa) {
        T::taps(isa, self);
    }
}
