//! Sums of some lines of a plane, a vector of positions or two along each.

use crate::mat::{Band, WriteRows};
use crate::simd::{FloatLanes, WithToken, opaque};

use super::super::for_each::for_each;
use super::super::{Real, Write};

/// Most lines of taps, and most taps along a line.
pub(super) const MOST_TAPS: usize = 7;

/// Taps along a line that are written out: the weights of 3 x 3 stay in registers. Of more the compiler would read first all that a tile multiplies, and spill it.
const WRITTEN_OUT: usize = 3;

/// Where a tile is.
#[derive(Clone, Copy)]
pub(super) struct OfTile<'a, T> {
    /// The sheets of the channels, and how many elements there are of each.
    pub(super) sheets: (&'a [T], usize),
    /// The weights of all phases of the channels, line by line of taps, and elements from a channel to the next.
    pub(super) weights: (&'a [T], usize),
    /// Where in a sheet the first line begins that is met, and from there to the next.
    pub(super) first: isize,
    pub(super) pitch: isize,
    /// Of the result: the first element of the first line, and from a line to the next.
    pub(super) at: usize,
    pub(super) apart: usize,
    /// Places that are written.
    pub(super) len: usize,
    pub(super) write: Write,
}

impl<'a, T> OfTile<'a, T> {
    /// The sheet and the weights of a channel.
    #[inline(always)]
    fn channel(&self, channel: usize) -> (&'a [T], &'a [T]) {
        let ((sheets, len), (weights, apart)) = (self.sheets, self.weights);
        (&sheets[channel * len..][..len], &weights[channel * apart..])
    }
}

/// What a phase adds to that.
#[derive(Clone, Copy)]
pub(super) struct OfPhase {
    /// Where its weights begin in those of a channel.
    pub(super) weights: usize,
    /// Where along a line the lowest tap is met, and the one after it.
    pub(super) shifts: [usize; 2],
}

/// `M` lines of positions of some channels, `NV` vectors of each, whose taps go backward on both axes or forward.
pub(super) struct Tile<
    'a,
    'b,
    T,
    const KY: usize,
    const KX: usize,
    const STEP: usize,
    const BACK: bool,
    const M: usize,
    const NV: usize,
> {
    pub(super) of: OfTile<'a, T>,
    pub(super) phase: OfPhase,
    pub(super) dst: &'a mut Band<'b, T>,
}

/// `M` lines of two phases, whose places are the even and the odd, a vector of each; taps go backward.
pub(super) struct Pair<'a, 'b, T, const KY: usize, const EVEN: usize, const ODD: usize, const M: usize> {
    pub(super) of: OfTile<'a, T>,
    pub(super) phases: [OfPhase; 2],
    pub(super) dst: &'a mut Band<'b, T>,
}

/// `2 M` lines of positions of some channels, or one less, two in a vector: so short that the second lies in the lanes behind the first.
pub(super) struct Folded<'a, 'b, T, const KY: usize, const KX: usize, const BACK: bool, const M: usize> {
    pub(super) of: OfTile<'a, T>,
    pub(super) phase: OfPhase,
    /// How many lines there are.
    pub(super) count: usize,
    pub(super) dst: &'a mut Band<'b, T>,
}

/// The same of two phases, whose places are the even and the odd; taps go backward.
pub(super) struct FoldedPair<'a, 'b, T, const KY: usize, const EVEN: usize, const ODD: usize, const M: usize>
{
    pub(super) of: OfTile<'a, T>,
    pub(super) phases: [OfPhase; 2],
    /// How many lines there are.
    pub(super) count: usize,
    pub(super) dst: &'a mut Band<'b, T>,
}

/// The sums of a channel, of `M` lines that are `DOWN` from each other in the sheet.
#[inline(always)]
fn sums<
    T: Real,
    S: FloatLanes<T>,
    const KY: usize,
    const KX: usize,
    const STEP: usize,
    const DOWN: usize,
    const BACK: bool,
    const M: usize,
    const NV: usize,
>(
    s: S,
    sheet: &[T],
    weights: &[T],
    of: &OfTile<'_, T>,
    phase: OfPhase,
) -> [[S::V; NV]; M] {
    const {
        assert!((M - 1) * DOWN + KY <= 17 && KX <= MOST_TAPS && M <= 7 && NV <= 2 && (STEP == 1 || !BACK));
    };
    let weights = &weights[phase.weights..][..KY * KX];
    let mut acc = [[s.splat(T::zero()); NV]; M];
    for_each!(i in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16] {
        if i < (M - 1) * DOWN + KY {
            let first = (of.first + i as isize * of.pitch) as usize;
            let line = |shift: usize| &sheet[first + shift..][..(KX - 1) / STEP + NV * S::LANES];
            let lines = if STEP == 1 { [line(phase.shifts[0]); 2] } else { phase.shifts.map(line) };
            for x in 0..if KX > WRITTEN_OUT { opaque(KX as isize) as usize } else { KX } {
                // The weights of this tap of each line.
                let weights = &weights[x..][..(KY - 1) * KX + 1];
                let places = &lines[x % STEP][if BACK { KX - 1 - x } else { x / STEP }..];
                let mut b = [s.splat(T::zero()); NV];
                for (v, b) in b.iter_mut().enumerate() {
                    *b = s.load(&places[v * S::LANES..]);
                }
                for (j, acc) in acc.iter_mut().enumerate() {
                    if i >= j * DOWN && i - j * DOWN < KY {
                        let w = s.splat(weights[(i - j * DOWN) * KX]);
                        for (acc, &b) in acc.iter_mut().zip(&b) {
                            *acc = s.mul_add(w, b, *acc);
                        }
                    }
                }
            }
        }
    });
    for acc in &mut acc {
        for acc in acc {
            *acc = s.settle(*acc);
        }
    }
    acc
}

/// A vector, or the first of one, to its place.
#[inline(always)]
fn put<T: Real, S: FloatLanes<T>>(s: S, to: &mut [T], sum: S::V, write: Write) {
    // N1: no -0 leaves a segment.
    let sum = s.add(sum, s.splat(T::zero()));
    if to.len() >= S::LANES {
        let sum = if write == Write::Add { s.add(s.load(to), sum) } else { sum };
        s.store(to, sum);
    } else if !to.is_empty() {
        let n = to.len();
        let sum = if write == Write::Add { s.add(s.load_first_n(to, n), sum) } else { sum };
        s.store_first_n(to, n, sum);
    }
}

impl<
    T,
    S,
    const KY: usize,
    const KX: usize,
    const STEP: usize,
    const BACK: bool,
    const M: usize,
    const NV: usize,
> WithToken<S> for Tile<'_, '_, T, KY, KX, STEP, BACK, M, NV>
where
    T: Real,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tile { of, phase, dst } = self;
        for channel in 0..dst.m() {
            let (sheet, of_channel) = of.channel(channel);
            let acc = sums::<T, S, KY, KX, STEP, STEP, BACK, M, NV>(s, sheet, of_channel, &of, phase);
            let dst = &mut dst.row(channel)[of.at..];
            for_each!(j in [0 1 2 3 4 5 6] {
                if j < M {
                    let line = &mut dst[if BACK { M - 1 - j } else { j } * of.apart..][..of.len];
                    for_each!(v in [0 1] {
                        if v < NV {
                            let from = (v * S::LANES).min(of.len);
                            put(s, &mut line[from..of.len.min(from + S::LANES)], acc[j][v], of.write);
                        }
                    });
                }
            });
        }
    }
}

impl<T, S, const KY: usize, const EVEN: usize, const ODD: usize, const M: usize> WithToken<S>
    for Pair<'_, '_, T, KY, EVEN, ODD, M>
where
    T: Real,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Pair { of, phases: [even, odd], dst } = self;
        for channel in 0..dst.m() {
            let (sheet, of_channel) = of.channel(channel);
            let even = sums::<T, S, KY, EVEN, 1, 1, true, M, 1>(s, sheet, of_channel, &of, even);
            let odd = sums::<T, S, KY, ODD, 1, 1, true, M, 1>(s, sheet, of_channel, &of, odd);
            let dst = &mut dst.row(channel)[of.at..];
            for_each!(j in [0 1 2 3 4 5 6] {
                if j < M {
                    let line = &mut dst[(M - 1 - j) * of.apart..][..of.len];
                    let (low, high) = line.split_at_mut(of.len.min(S::LANES));
                    let [of_low, of_high] = s.zip(even[j][0], odd[j][0]);
                    put(s, low, of_low, of.write);
                    put(s, high, of_high, of.write);
                }
            });
        }
    }
}

impl<T, S, const KY: usize, const KX: usize, const BACK: bool, const M: usize> WithToken<S>
    for Folded<'_, '_, T, KY, KX, BACK, M>
where
    T: Real,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Folded { of, phase, count, dst } = self;
        // Places from a line of the sheet to the next, and those between two lines of positions.
        let between = of.pitch.unsigned_abs() - of.len;
        for channel in 0..dst.m() {
            let (sheet, of_channel) = of.channel(channel);
            let acc = sums::<T, S, KY, KX, 1, 2, BACK, M, 1>(s, sheet, of_channel, &of, phase);
            // Lines of these phases follow each other.
            let dst = &mut dst.row(channel)[of.at..][..count * of.len];
            for_each!(j in [0 1 2 3 4 5 6] {
                if j < M {
                    let line = if BACK { count - 1 - 2 * j } else { 2 * j };
                    let end = dst.len().min((line + 2) * of.len);
                    put(s, &mut dst[line * of.len..end], s.leave_out(acc[j][0], of.len, between), of.write);
                }
            });
        }
    }
}

impl<T, S, const KY: usize, const EVEN: usize, const ODD: usize, const M: usize> WithToken<S>
    for FoldedPair<'_, '_, T, KY, EVEN, ODD, M>
where
    T: Real,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let FoldedPair { of, phases: [even, odd], count, dst } = self;
        // Places of the second line before those that the second vector of both begins with.
        let before = 2 * (of.pitch.unsigned_abs() - S::LANES / 2);
        for channel in 0..dst.m() {
            let (sheet, of_channel) = of.channel(channel);
            let even = sums::<T, S, KY, EVEN, 1, 2, true, M, 1>(s, sheet, of_channel, &of, even);
            let odd = sums::<T, S, KY, ODD, 1, 2, true, M, 1>(s, sheet, of_channel, &of, odd);
            let dst = &mut dst.row(channel)[of.at..];
            for_each!(j in [0 1 2 3 4 5 6] {
                if j < M {
                    let line = count - 1 - 2 * j;
                    let [first, second] = s.zip(even[j][0], odd[j][0]);
                    put(s, &mut dst[line * of.apart..][..of.len], first, of.write);
                    if line + 1 < count {
                        let second = s.leave_out(second, 0, before);
                        put(s, &mut dst[(line + 1) * of.apart..][..of.len], second, of.write);
                    }
                }
            });
        }
    }
}
