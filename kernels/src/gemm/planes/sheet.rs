//! Planes with their padding, as tiles read them.

use std::ops::Range;

use crate::scan::{Scan, ScanAxis};
use crate::simd::{FloatLanes, Lanes, WithToken};

use super::super::Real;
use super::tile::MOST_TAPS;
use super::{LANES_TO_FOLD, Phase};

/// Most phases: those of a stride of two on both axes.
pub(super) const MOST_PHASES: usize = 4;

/// Elements of the weights of a channel in a phase: line by line of taps.
pub(super) const OF_PHASE: usize = MOST_TAPS * MOST_TAPS;

/// Elements behind a sheet that a tile reads: it takes whole vectors.
const BEHIND: usize = 64;

/// Bytes of sheets and weights of channels that are computed together: half a first-level cache of 32 KiB. What is read from a sheet was written a while before.
const TOGETHER: usize = 16 * 1024;

/// Most channels that are computed together.
const MOST_TOGETHER: usize = 16;

/// Times the size of an image, and places more, that a sheet may have along an axis. What pads more is no image.
const MOST_PADDED: [usize; 2] = [2, 64];

/// Positions along a line from which on even and odd coordinates are brought apart. Zen 4, strips of channels and planes: 672 channels 5 x 5 @14 with a stride of two 13.8 and 12.2 % of the peak, 576 of 3 x 3 7.2 and 6.8; 240 of 3 x 3 @28 8.8 and 12.9.
const LEAST_APART: usize = 8;

/// How the planes of a convolution are brought to sheets.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// Coordinates along a line that lie side by side: every one, or the even and the odd apart.
    pub(super) step: usize,
    /// The lowest line that positions of line 0 meet, and how many more those of another line of the same place in its phase do.
    pub(super) low: isize,
    reach: usize,
    /// Lines from a line of positions to the next.
    pub(super) down: usize,
    /// Places of zeros before the first of a line.
    before: usize,
    /// Places from a line to the next.
    pub(super) pitch: usize,
    /// Elements from the even coordinates to the odd ones.
    plane: usize,
    /// How many phases there are, and how many of them along a line.
    pub(super) phases: usize,
    pub(super) along: usize,
    /// Whether taps go backward.
    pub(super) back: bool,
}

impl Sheet {
    /// The sheet of planes that `phases` go over, of which so many are `along` a line, for up to so many lines of `positions` of each; `None` where they are not what there are tiles for.
    pub fn new(phases: &[Phase], along: usize, positions: usize) -> Option<Sheet> {
        let scan = phases.first()?.scan;
        let [depth, height, width] = &scan.axes;
        let one_plane =
            depth.positions == 1 && depth.taps == 1 && (0..depth.size as isize).contains(&depth.origin);
        let alike = |phase: &Phase| {
            let [_, y, x] = &phase.scan.axes;
            phase.weights.k.extent() == y.taps * x.taps
                && phase.weights.x.dims().len() == 1
                && (y.step, y.size, x.size) == (height.step, height.size, width.size)
        };
        if !one_plane || width.stride != 1 || !phases.iter().all(alike) {
            return None;
        }
        let back = along > 1 || phases.iter().any(|phase| goes_back(&phase.scan));
        if !there_are_tiles(phases, along, back) {
            return None;
        }
        let step = width.step as usize;
        if step > 1 && width.positions < LEAST_APART {
            return None;
        }
        let lines = || phases.iter().map(|phase| &phase.scan.axes[1]);
        let low = lines().map(ScanAxis::low).min()?;
        let reach = lines().map(|axis| axis.low() - low + axis.reach() as isize).max()? as usize;
        let shifts = || {
            phases.iter().flat_map(move |phase| {
                let axis = phase.scan.axes[2];
                (0..axis.taps).map(move |tap| (shift(&axis, tap).1, axis.positions as isize))
            })
        };
        let inside = width.size.div_ceil(step);
        let before = shifts().map(|(by, _)| -by).max()?.max(0) as usize;
        let behind = shifts().map(|(by, positions)| by + positions - inside as isize).max()?.max(0) as usize;
        let [times, more] = MOST_PADDED;
        let much = |padded: usize, size: usize| padded > times * size + more;
        let high = lines().map(|axis| axis.positions).max()? * height.step as usize + reach;
        if much(before + inside + behind, inside) || much(high, height.size) {
            return None;
        }
        let down = height.step as usize;
        let pitch = inside + before.max(behind);
        let sheet =
            Sheet { step, low, reach, down, before, pitch, plane: 0, phases: phases.len(), along, back };
        Some(Sheet { plane: before + sheet.lines(positions) * pitch + BEHIND, ..sheet })
    }

    /// Lines of the sheet that so many lines of positions of a phase meet.
    pub(super) fn lines(&self, positions: usize) -> usize {
        (positions - 1) * self.down + self.reach + 1
    }

    /// Elements of a sheet.
    pub(super) fn len(&self) -> usize {
        self.step * self.plane
    }

    /// Bytes of a sheet of elements of so many.
    pub fn bytes(&self, of_element: usize) -> usize {
        self.len() * of_element
    }

    /// Lines of positions of a phase whose sheet takes no more than so many elements.
    pub fn most_positions(&self, elements: usize) -> usize {
        let lines = (elements / self.step).saturating_sub(self.before + BEHIND) / self.pitch;
        (lines + self.down).saturating_sub(self.reach + 1) / self.down
    }

    /// Elements of the weights of a channel.
    pub(super) fn weights(&self) -> usize {
        self.phases * OF_PHASE
    }

    /// Channels that are computed together.
    pub(super) fn together(&self, bytes: usize) -> usize {
        (TOGETHER / ((self.len() + self.weights()) * bytes)).clamp(1, MOST_TOGETHER)
    }

    /// Elements of room for the channels that are computed together, of so many bytes each.
    pub fn elements(&self, bytes: usize) -> usize {
        self.together(bytes) * (self.len() + self.weights())
    }

    /// Where along a line positions from the first on meet a tap.
    pub(super) fn shift(&self, axis: &ScanAxis, tap: usize) -> usize {
        let (odd, by) = shift(axis, tap);
        odd * self.plane + (self.before as isize + by) as usize
    }
}

/// Whether a tap is met at even or odd places, and how many places further than position 0 lies.
fn shift(axis: &ScanAxis, tap: usize) -> (usize, isize) {
    let at = axis.origin + tap as isize * axis.tap_step;
    (at.rem_euclid(axis.step) as usize, at.div_euclid(axis.step))
}

/// Whether taps go backward; a single one does either.
fn goes_back(scan: &Scan) -> bool {
    scan.axes.iter().any(|axis| axis.taps > 1 && axis.tap_step < 0)
}

/// Whether there are tiles for the taps of phases.
fn there_are_tiles(phases: &[Phase], along: usize, back: bool) -> bool {
    let taps = |phase: &Phase| [phase.scan.axes[1].taps, phase.scan.axes[2].taps];
    let steps = |phase: &Phase| [phase.scan.axes[1].step, phase.scan.axes[2].step];
    let each = |phase: &Phase| {
        let along = |axis: &ScanAxis| axis.taps == 1 || axis.tap_step == if back { -1 } else { 1 };
        phase.scan.axes[1..].iter().all(along)
    };
    let tiles = |of_line: &[Phase]| match of_line {
        [one] if along == 1 => match steps(one) {
            [1, 1] => matches!(taps(one), [3, 3] | [5, 5] | [7, 7]),
            [2, 2] => matches!(taps(one), [3, 3] | [5, 5]) && !back,
            _ => false,
        },
        [one, other] => {
            let ([height, a], [of_other, b]) = (taps(one), taps(other));
            let firsts = [one.first[1], other.first[1]];
            height == of_other
                && matches!((height, a.min(b), a.max(b)), (1, 1, 1) | (1 | 2, 1, 2) | (2 | 3, 2, 3))
                && matches!(firsts, [0, 1] | [1, 0])
                && steps(one) == [1, 1]
                && one.first[0] == other.first[0]
        }
        _ => false,
    };
    matches!(along, 1 | 2)
        && phases.len() <= MOST_PHASES
        && phases.iter().all(each)
        && phases.chunks(along).all(tiles)
}

/// Brings lines of the planes of some channels of an image to sheets.
pub(super) struct Fill<'a, T> {
    pub(super) sheet: &'a Sheet,
    pub(super) scan: &'a Scan,
    /// The input, and where its element at index 0 is.
    pub(super) data: (&'a [T], isize),
    pub(super) image: usize,
    pub(super) channels: Range<usize>,
    pub(super) lines: Range<isize>,
    /// Whether these are all lines, and were whenever something was brought there.
    pub(super) whole: bool,
    /// Zeros, or what other planes left.
    pub(super) out: &'a mut [T],
}

/// Zeros to `len` places, and to those behind them that fill the last vector.
#[inline(always)]
fn zeros<T: Real, S: FloatLanes<T>>(s: S, out: &mut [T], len: usize) {
    for at in (0..len).step_by(S::LANES) {
        s.store(&mut out[at..], s.splat(T::zero()));
    }
}

impl<T: Real, S: FloatLanes<T>> WithToken<S> for Fill<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Fill { sheet, scan, data: (data, start), image, channels, lines, whole, out } = self;
        let [depth, height, width] = &scan.axes;
        let &Sheet { before, pitch, plane, step, .. } = sheet;
        let start = start + scan.start + image as isize * scan.images.1 + depth.origin * depth.stride;
        let (width, stride) = (width.size, height.stride);
        let inside = lines.start.max(0)..lines.end.min(height.size as isize);
        let folds = step == 1 && stride == width as isize && pitch + width <= S::LANES;
        let mut rest = out;
        for channel in channels {
            let out;
            (out, rest) = rest.split_at_mut(sheet.len());
            let first = start + channel as isize * scan.channels.1;
            let (even, odd) = out.split_at_mut(plane);
            let at = |line: isize| before + (line - lines.start) as usize * pitch;
            // Of whole planes the same lines lie outside every time, and hold zeros.
            for line in lines.clone().filter(|line| !whole && !inside.contains(line)) {
                zeros(s, &mut even[at(line)..], width.div_ceil(step));
                if step > 1 {
                    zeros(s, &mut odd[at(line)..], width / 2);
                }
            }
            if const { S::LANES == LANES_TO_FOLD } && folds {
                // Two lines at once, zeros between them and behind.
                for line in inside.clone().step_by(2) {
                    let n = (inside.end - line).min(2) as usize * width;
                    let lines = s.load_first_n(&data[(first + line * stride) as usize..], n);
                    s.store(&mut even[at(line)..], s.put_zeros(lines, width, pitch - width));
                }
                continue;
            }
            for line in inside.clone() {
                // Whole vectors: zeros behind the last place are padding, or what the next line writes over.
                let at = at(line);
                if step == 1 {
                    let (mut from, mut out) =
                        (&data[(first + line * stride) as usize..][..width], &mut even[at..]);
                    while from.len() >= S::LANES {
                        s.store(out, s.load(from));
                        (from, out) = (&from[S::LANES..], &mut out[S::LANES..]);
                    }
                    if !from.is_empty() {
                        s.store(out, s.load_first_n(from, from.len()));
                    }
                } else {
                    let (mut from, mut at) = (&data[(first + line * stride) as usize..][..width], at);
                    while !from.is_empty() {
                        let (now, rest) = from.split_at(from.len().min(2 * S::LANES));
                        let [of_even, of_odd] = if now.len() == 2 * S::LANES {
                            s.unzip(s.load(now), s.load(&now[S::LANES..]))
                        } else {
                            let (low, high) = now.split_at(now.len().min(S::LANES));
                            s.unzip(s.load_first_n(low, low.len()), s.load_first_n(high, high.len()))
                        };
                        s.store(&mut even[at..], of_even);
                        s.store(&mut odd[at..], of_odd);
                        (from, at) = (rest, at + S::LANES);
                    }
                }
            }
        }
    }
}

/// Where each weight of a channel lies, less where that of the first channel does at offset 0, and where it goes.
pub(super) struct Weights {
    places: [(isize, usize); MOST_TAPS * MOST_TAPS],
    count: usize,
    /// From a channel to the next.
    apart: isize,
}

impl Weights {
    /// Those of all phases: each belongs to one.
    pub(super) fn new(phases: &[Phase]) -> Weights {
        let apart = phases.first().map_or(0, |phase| phase.weights.x.inner().stride);
        let mut weights = Weights { places: [(0, 0); MOST_TAPS * MOST_TAPS], count: 0, apart };
        for (i, phase) in phases.iter().enumerate() {
            let of = &phase.weights;
            let mut at = of.k.cursor(0);
            for tap in 0..of.k.extent() {
                weights.places[weights.count] = (of.start + at.offset, i * OF_PHASE + tap);
                weights.count += 1;
                of.k.advance(&mut at, 1);
            }
        }
        weights
    }
}

impl Weights {
    /// Where those of channel 0 begin and elements to the next, if there is one phase whose weights lie as they are brought together.
    pub(super) fn in_place(&self, phases: usize) -> Option<(isize, usize)> {
        let places = &self.places[..self.count];
        let (first, _) = *places.first()?;
        let dense = places.iter().zip(first..).all(|(&(at, _), dense)| at == dense);
        let apart = usize::try_from(self.apart).ok()?;
        (phases == 1 && dense).then_some((first, apart))
    }
}

/// Brings the weights of some channels together.
pub(super) struct Bring<'a, T> {
    pub(super) weights: &'a Weights,
    /// The weights, and where the element at index 0 is.
    pub(super) data: (&'a [T], isize),
    pub(super) channels: Range<usize>,
    /// Elements of a channel.
    pub(super) of_channel: usize,
    pub(super) out: &'a mut [T],
}

impl<T: Real, S: Lanes<T>> WithToken<S> for Bring<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, _: S) {
        let Bring { weights, data: (data, start), channels, of_channel, out } = self;
        let places = &weights.places[..weights.count];
        let mut rest = out;
        for channel in channels {
            let out;
            (out, rest) = rest.split_at_mut(of_channel);
            let first = start + channel as isize * weights.apart;
            for &(offset, to) in places {
                out[to] = data[(first + offset) as usize];
            }
        }
    }
}
