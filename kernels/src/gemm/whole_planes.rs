//! A convolution whose kernel has one element within a plane, over time or down the lines of an image: each plane of the result is a sum of whole planes of the input.
//!
//! ```text
//! for each run of positions, for each segment of k, for each strip of positions, for each few channels:
//!   acc[0..M][0..NV] = +0.0
//!   for each k (a tap, an input channel):   b[0..NV] = what neighbouring positions have there
//!                                           acc[i][..] = fma(splat(weight of channel i), b[..], acc[i][..])
//! ```
//!
//! Lanes are positions, read where they lie: nothing is copied. Taps whose planes are padding are left out if the weights are finite, and read zeros otherwise (N11).

use std::ops::Range;

use crate::KC;
use crate::axis::{COORDS, Cursor, NO_COORD, Window};
use crate::isa::Isa;
use crate::mat::{Band, Comb, Down, MatMut, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken, prefetch_near};

use super::in_place::write_out;
use super::real::AllFinite;
use super::windows::Stretch;
use super::{Real, Write};

/// Lanes of a panel of weights: channels of the result, of which there are whole halves.
pub const PANEL_CHANNELS: usize = 16;

/// Least channels of the input.
pub const LEAST_PLANES: usize = 8;

/// Rows of a tile of few registers.
const FEW: usize = 4;
/// Rows of a tile of many.
const MANY: usize = 8;
/// Vectors of positions of a tile at most.
const VECTORS: usize = 3;

/// Most taps that have a part in a segment.
const TAPS: usize = KC / LEAST_PLANES + 2;

/// A block of such a convolution, to be computed on one thread: `dst = sums` or `dst += sums`. Rows of the result are channels, columns positions.
#[derive(Debug)]
pub struct WholePlanes<'a, 'b, 'c, T> {
    /// The elements of the input.
    pub data: &'a [T],
    /// How they are read: x are positions, side by side along the innermost dim, k taps and then at least [`LEAST_PLANES`] channels; neither of these two dims moves a coordinate.
    pub window: &'b Window,
    /// The weights: `[panel][k][lane]`, [`PANEL_CHANNELS`] lanes a panel.
    pub weights: &'a [T],
    /// How many channels there are, a multiple of 8.
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

/// The channels of a tap over a segment, for neighbouring positions.
#[derive(Clone, Copy)]
struct Tap {
    /// Of the first channel and position; `None` of padding.
    first: Option<isize>,
    /// Steps of k that are left out before it.
    gap: usize,
    len: usize,
}

/// Channels by positions over a segment.
struct Tile<'a, 'b, 'c, T, const M: usize, const NV: usize, const MASKED: bool> {
    data: &'a [T],
    taps: &'b [Tap],
    /// From a channel to the next.
    step: isize,
    /// Elements into the planes, and from there to what is asked for.
    into: isize,
    ahead: isize,
    weights: MatRef<'a, T>,
    dst: Band<'c, T>,
    write: Write,
}

/// `acc` and the products of a tap. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn over_tap<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize, const MASKED: bool>(
    s: S,
    mut planes: Comb<'_, T, 1>,
    weights: &mut Down<'_, T>,
    last: usize,
    ahead: isize,
    mut acc: [[S::V; NV]; M],
) -> [[S::V; NV]; M] {
    while let Some([b]) = planes.next_strips() {
        let Some(a) = weights.next() else { break };
        let mut row = [s.splat(T::zeroed()); NV];
        for (j, row) in row.iter_mut().enumerate() {
            prefetch_near(b.as_ptr().wrapping_offset(ahead).wrapping_add(j * S::LANES));
            let b = &b[j * S::LANES..];
            *row = if MASKED && j + 1 == NV { s.load_first_n(b, last) } else { s.load(b) };
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

impl<T: Real, S: FloatLanes<T>, const M: usize, const NV: usize, const MASKED: bool> WithToken<S>
    for Tile<'_, '_, '_, T, M, NV, MASKED>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tile { data, taps, step, into, ahead, weights, mut dst, write } = self;
        for row in 0..M {
            dst.prefetch(row, NV * S::LANES);
        }
        let width = if MASKED { dst.n() } else { NV * S::LANES };
        let last = dst.n() - (NV - 1) * S::LANES;
        let mut acc = [[s.splat(T::zeroed()); NV]; M];
        let mut rows = weights.down();
        for tap in taps {
            rows.leave_out(tap.gap);
            let planes = match tap.first {
                Some(first) => Comb::new(data, first + into, 0, tap.len, step, width),
                None => Comb::new(T::ZEROS, 0, 0, tap.len, 0, width),
            };
            acc = over_tap::<T, S, M, NV, MASKED>(s, planes, &mut rows, last, ahead, acc);
        }
        write_out(s, &acc, &mut dst, write);
    }
}

impl<T: Real> WholePlanes<'_, '_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: Simd + FloatLanes<T>>(&mut self, s: S, _: Isa) {
        // Eight lanes are those of 16 registers, or of a portable set.
        if const { <S as Lanes<T>>::LANES == MANY } {
            self.runs::<S, FEW>(s);
        } else {
            self.runs::<S, MANY>(s);
        }
    }

    #[inline(always)]
    fn runs<S: Simd + FloatLanes<T>, const M: usize>(&mut self, s: S) {
        let Window { x, k: of_k, origin, bounds, .. } = self.window;
        let (inner, channel) = (x.inner(), of_k.inner());
        assert!(inner.stride == 1 && inner.along == NO_COORD);
        assert!(
            channel.along == NO_COORD && channel.extent >= LEAST_PLANES && self.channels.is_multiple_of(M)
        );
        // From a plane to the next of the same channel.
        let plane = if let [.., outer, _] = x.dims() { outer.stride } else { 0 };
        let (k, mut finite) = (of_k.extent(), None);
        let (mut at, mut col) = (x.cursor(self.cols.start), self.cols.start);
        let mut stretches = [Stretch::NONE; KC];
        while col < self.cols.end {
            // Planes without padding that lie one behind the other are one run.
            let (start, mut len) = (at, 0);
            loop {
                let more = x.run(&at).min(self.cols.end - col - len);
                x.advance(&mut at, more);
                len += more;
                let follows = at.offset == start.offset + len as isize;
                if !(follows && col + len < self.cols.end && self.is_clear(&start) && self.is_clear(&at)) {
                    break;
                }
            }
            for first in (0..k).step_by(KC) {
                let segment = first..k.min(first + KC);
                let count = Stretch::all(of_k, &segment, &mut stretches);
                let (mut taps, mut taken, mut gap) = ([Tap { first: None, gap: 0, len: 0 }; TAPS], 0, 0);
                for stretch in &stretches[..count] {
                    let mut inside = true;
                    for (d, &bound) in bounds.iter().enumerate() {
                        let here = origin[d] + start.coords[d] + stretch.coord(d);
                        inside &= (here as usize) < bound as usize;
                    }
                    if !inside && *finite.get_or_insert_with(|| s.apart(AllFinite(self.weights))) {
                        gap += stretch.len;
                        continue;
                    }
                    let of_tap = inside.then_some(self.window.start + start.offset + stretch.offset);
                    taps[taken] = Tap { first: of_tap, gap, len: stretch.len };
                    (taken, gap) = (taken + 1, 0);
                }
                let write = if first > 0 || self.add { Write::Add } else { Write::Replace };
                self.strips::<S, M>(s, &taps[..taken], &segment, col, len, plane, write);
            }
            col += len;
        }
    }

    /// Whether no tap is padding at a position.
    fn is_clear(&self, position: &Cursor) -> bool {
        let Window { k, origin, bounds, .. } = self.window;
        let (mut low, mut high) = ([0; COORDS + 1], [0; COORDS + 1]);
        for dim in k.dims() {
            let reach = (dim.extent as isize - 1) * dim.step;
            low[dim.along] += reach.min(0);
            high[dim.along] += reach.max(0);
        }
        (0..COORDS).all(|d| {
            let here = origin[d] + position.coords[d];
            here + low[d] >= 0 && here + high[d] < bounds[d]
        })
    }

    /// All channels of `len` neighbouring positions from `col` on, over a segment.
    #[expect(clippy::too_many_arguments, reason = "one call, inlined")]
    #[inline(always)]
    fn strips<S: Simd + FloatLanes<T>, const M: usize>(
        &mut self,
        s: S,
        taps: &[Tap],
        segment: &Range<usize>,
        col: usize,
        len: usize,
        plane: isize,
        write: Write,
    ) {
        let (of_k, lanes) = (&self.window.k, <S as Lanes<T>>::LANES);
        let ([batch, row, first_col], step, k) = (self.at, of_k.inner().stride, of_k.extent());
        // Strips of as equal a width as can be.
        let vectors = len.div_ceil(lanes);
        let strips = vectors.div_ceil(VECTORS);
        let mut from = 0;
        for strip in 0..strips {
            let count = (vectors - from / lanes).div_ceil(strips - strip);
            let n = (count * lanes).min(len - from);
            let cols = first_col + col - self.cols.start + from;
            for channel in (0..self.channels).step_by(M) {
                let (panel, lane) = (channel / PANEL_CHANNELS, channel % PANEL_CHANNELS);
                let weights = &self.weights[(panel * k + segment.start) * PANEL_CHANNELS..];
                let weights = MatRef::row_major(
                    &weights[..segment.len() * PANEL_CHANNELS],
                    segment.len(),
                    PANEL_CHANNELS,
                );
                let weights = weights.part(0..segment.len(), lane..lane + M);
                let (data, into) = (self.data, from as isize);
                // The next plane of the same channel: of the last tap it comes from afar.
                let ahead = if channel == 0 { plane } else { 0 };
                let dst = self.dst.band(batch, row + channel..row + channel + M, cols..cols + n);
                macro_rules! tile {
                    ($nv:literal) => {
                        if n == $nv * lanes {
                            s.apart(Tile::<T, M, $nv, false> {
                                data,
                                taps,
                                step,
                                into,
                                ahead,
                                weights,
                                dst,
                                write,
                            });
                        } else {
                            s.apart(Tile::<T, M, $nv, true> {
                                data,
                                taps,
                                step,
                                into,
                                ahead,
                                weights,
                                dst,
                                write,
                            });
                        }
                    };
                }
                match count {
                    1 => tile!(1),
                    2 => tile!(2),
                    _ => tile!(3),
                }
            }
            from += count * lanes;
        }
    }
}

impl<T: Real> WholePlanes<'_, '_, '_, T> {
    /// Computes the block with the instructions of `isa`.
    ///
    /// # Panics
    /// If the operands do not fit each other or the result, whose columns must lie side by side.
    pub fn compute(&mut self, isa: Isa) {
        T::whole_planes(isa, self);
    }
}
