//! Lines of two phases put together: even and odd places in turns.

use crate::isa::Isa;
use crate::pack::interleave_planes;
use crate::simd::{FloatLanes, Lanes, Simd};

use super::Real;

/// Lines of some channels whose even places come from one matrix and whose odd ones from another.
#[derive(Debug)]
pub struct InTurns<'a, T> {
    /// The even places of lines and the odd ones, line by line and channel by channel: of `width` places the first has half, rounded up.
    pub halves: [&'a [T]; 2],
    /// Channels, lines, places of a line.
    pub shape: [usize; 3],
    /// Elements from a line of the result to the next.
    pub down: usize,
    /// Where they go.
    pub to: To<'a, T>,
}

/// Where lines go.
#[derive(Debug)]
pub enum To<'a, T> {
    /// To planes: those of the only channel.
    Plane(&'a mut [T]),
    /// Channels innermost; and room for a line of each channel.
    Inside(&'a mut [T], &'a mut [T]),
}

/// A line.
#[inline(always)]
fn in_turns<T: Real, S: FloatLanes<T>>(s: S, even: &[T], odd: &[T], to: &mut [T]) {
    let lanes = <S as Lanes<T>>::LANES;
    let (even, odd) = (&even[..to.len().div_ceil(2)], &odd[..to.len() / 2]);
    let mut at = 0;
    while at + lanes <= odd.len() {
        let [low, high] = s.zip(s.load(&even[at..]), s.load(&odd[at..]));
        s.store(&mut to[2 * at..], low);
        s.store(&mut to[2 * at + lanes..], high);
        at += lanes;
    }
    let (even, odd, to) = (&even[at..], &odd[at..], &mut to[2 * at..]);
    let [low, high] = s.zip(s.load_first_n(even, even.len()), s.load_first_n(odd, odd.len()));
    let (first, second) = (to.len().min(lanes), to.len().saturating_sub(lanes));
    s.store_first_n(to, first, low);
    s.store_first_n(&mut to[first..], second, high);
}

impl<T: Real> InTurns<'_, T> {
    #[inline(always)]
    pub(super) fn run<S: FloatLanes<T> + Simd>(&mut self, s: S, _: Isa) {
        let &mut InTurns { halves: [even, odd], shape: [channels, lines, width], down, ref mut to } = self;
        let pitches = [width.div_ceil(2), width / 2];
        let of = |channel: usize, line: usize| {
            let [even, odd] = [(even, pitches[0]), (odd, pitches[1])]
                .map(|(half, pitch)| &half[(channel * lines + line) * pitch..][..pitch]);
            (even, odd)
        };
        for line in 0..lines {
            match to {
                To::Plane(plane) => {
                    let (even, odd) = of(0, line);
                    in_turns(s, even, odd, &mut plane[line * down..][..width]);
                }
                To::Inside(out, room) => {
                    for (channel, room) in room.chunks_exact_mut(width).take(channels).enumerate() {
                        let (even, odd) = of(channel, line);
                        in_turns(s, even, odd, room);
                    }
                    let out = &mut out[line * down..][..width * channels];
                    interleave_planes(|c| &room[c * width..][..width], channels, out);
                }
            }
        }
    }

    /// Writes the lines with the instructions of `isa`.
    ///
    /// # Panics
    /// If there are fewer elements, or several channels of a plane or more than four inside.
    pub fn write(&mut self, isa: Isa) {
        T::in_turns(isa, self);
    }
}
