//! Executes a convolution of planes whose kernel has one element within a plane: over time, or down the lines of an image. Lanes are positions, read where they lie.
//!
//! Images are the batch, rows channels, columns positions. A part goes over some positions of a plane, of all its planes one after the other, before the next: what several taps read is then read from
//! memory once. Sums lie in the result if it is in the format of sums, and else in a block of scratch.
//!
//! Scratch: the packed weights, and for each thread a block of at most [`SUMS_BYTES`] of sums, or what [`LEAST_ACROSS`] positions take.

use std::ops::Range;
use std::sync::RwLock;

use tile25_kernels::axis::{NO_COORD, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{LEAST_PLANES, PANEL_CHANNELS, Real, WholePlanes};
use tile25_kernels::mat::Places;
use tile25_kernels::pack::{Form, Side, pack};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;
use tile25_kernels::simd::Transpose;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::block::{BAND_BYTES, LANES_AT_MOST, fills_lanes};
use super::fork::{free_pair, worth};
use super::parts::OwnWords;
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use super::tile::Source;
use super::windows::SUMS_BYTES;

/// Least positions of a plane that are gone over at once: some lines of a cache of each plane. Not swept.
const LEAST_ACROSS: usize = 6 * LANES_AT_MOST;

/// Positions that fill vectors well, however they are cut. Zen 4, planes of 72, 128 to 64 channels 3 x 1 x 1, percent of the peak: one plane at a time 84, as many as this 95.
const ENOUGH: usize = 40 * LANES_AT_MOST;

/// A planned convolution over whole planes.
#[derive(Clone, Debug)]
pub(crate) struct OfWholePlanes {
    kernel: Kernel,
    /// Reads an image.
    window: Window,
    place: Place,
    /// Channels, k.
    shape: [usize; 2],
    /// Positions of a plane.
    plane: usize,
    /// Planes that are gone over at once, and positions of a plane if it is one.
    at_once: [usize; 2],
    /// Elements of a block of sums.
    sums: usize,
}

impl OfWholePlanes {
    /// Plans `gemm`, of which a batch is the images, whose rows are channels and whose rhs reads what `scan` goes over; `None` where another executor serves it better.
    pub(crate) fn new(gemm: &Gemm, scan: &Scan, kernel: Kernel, threads: usize) -> Option<Self> {
        let (problem, places) = (&gemm.problem, Places::new(gemm.dst));
        let (formats, images) = (problem.formats, scan.images.0);
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let window = Scan { images: (1, 0), ..*scan }.window();
        let (positions, channels) = (window.x.inner(), window.k.inner());
        let side_by_side = positions.stride == 1 && positions.along == NO_COORD;
        // Of a single tap planes are a matrix, which others serve.
        let several = channels.along == NO_COORD && scan.channels.0 >= LEAST_PLANES && k > scan.channels.0;
        let plane = positions.extent;
        let fits =
            kernel.form == Form::F32 && formats.rhs == formats.sums && m.is_multiple_of(PANEL_CHANNELS / 2);
        if !side_by_side || !several || !fills_lanes(plane) || !fits || problem.batch != images || k == 0 {
            return None;
        }
        let here = formats.out == formats.sums && places.band_stride().is_some();
        // Planes between the first that a position meets and the last.
        let [outer, middle, _] = scan.axes;
        let of_outer = if middle.is_whole() { 1 } else { middle.size };
        let live = outer.reach() * of_outer + if of_outer > 1 { middle.reach() } else { 0 } + 1;
        let bytes = formats.sums.bytes();
        let most_sums = if here { usize::MAX } else { SUMS_BYTES / (bytes * m) };
        let most = (BAND_BYTES / (bytes * scan.channels.0 * live)).min(most_sums);
        let vectors = plane.div_ceil(LANES_AT_MOST);
        let pieces = vectors.div_ceil((most.max(LEAST_ACROSS) / LANES_AT_MOST).min(vectors));
        let across = vectors.div_ceil(pieces) * LANES_AT_MOST;
        // Planes behind each other fill vectors together.
        let planes =
            if pieces == 1 { ENOUGH.div_ceil(plane).min(n / plane).min(most_sums / plane).max(1) } else { 1 };
        let parts = worth(problem.macs(), threads);
        if !images.is_multiple_of(parts) && n / plane < parts {
            return None;
        }
        let along = if images.is_multiple_of(parts) { [parts, 1] } else { [1, parts.min(n / plane)] };
        Some(OfWholePlanes {
            kernel,
            window,
            place: Place { places, here, counts: [along[0], 1, along[1]], grains: [1, m, plane] },
            shape: [m, k],
            plane,
            at_once: [planes, across],
            sums: if here { 0 } else { m * if planes > 1 { planes * plane } else { across } },
        })
    }

    /// What a run needs: the packed weights, and a block of sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let pair = [0, self.sums * self.kernel.form.element_bytes()];
        scratch(self.packed_bytes(), pair, self.place.counts.iter().product())
    }

    /// Bytes of the packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        let [m, k] = self.shape;
        m.next_multiple_of(PANEL_CHANNELS) * k * self.kernel.form.element_bytes()
    }

    /// Packs the weights: `[panel][k][lane]`.
    pub(crate) fn pack_weights(&self, reader: &Reader, source: &Source<'_>, packed: &mut [u8]) {
        let ([m, k], kernel) = (self.shape, self.kernel);
        let (operand, start) = source.operand().expect("weights are packed here");
        let window = Window { start: reader.window.start + start as isize, ..reader.window };
        let panels = packed.chunks_exact_mut(PANEL_CHANNELS * k * kernel.form.element_bytes());
        for (first, panel) in (0..m).step_by(PANEL_CHANNELS).zip(panels) {
            let x = first..m.min(first + PANEL_CHANNELS);
            pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, x, 0..k, PANEL_CHANNELS, panel);
        }
    }
}

impl Execute for OfWholePlanes {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let (data, start) = run.rhs.own::<T>();
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        let (bytes, scratch) = (self.packed_bytes(), call.scratch());
        let pack = |packed: &mut [u8]| self.pack_weights(&run.gemm.lhs, &run.lhs, packed);
        self.place.execute(call, dst, &run.lhs, bytes, pack, |weights, part: Sums<'_, T, W>| {
            let job = Job { planned: self, data, weights, finishing, scratch };
            job.part(part, |image| start + run.gemm.rhs.batch.offset(image));
        });
    }
}

struct Job<'a, T> {
    planned: &'a OfWholePlanes,
    data: &'a [T],
    weights: &'a [T],
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real + Transpose> Job<'_, T> {
    /// Goes over the planes of a part, which is some whole ones of each image, some positions of each at a time. `start`: where an image begins.
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>, start: impl Fn(usize) -> isize) {
        let OfWholePlanes { kernel, window, shape: [channels, _], plane, at_once: [planes, across], .. } =
            *self.planned;
        let [images, rows, cols] = part.ranges();
        let (_held, mut sums) = free_pair(self.scratch, self.planned.place.counts.iter().product());
        let sums = sums.as_mut_slice::<T>(self.planned.sums);
        let add = self.finishing.accum == Accum::Add;
        for image in images {
            let window = &Window { start: window.start + start(image), ..window };
            for first in (0..plane).step_by(across) {
                let of_plane = first..plane.min(first + across);
                for at in cols.clone().step_by(planes * plane) {
                    let end = if planes > 1 { at + planes * plane } else { at + of_plane.end };
                    let now: Range<usize> = at + of_plane.start..end.min(cols.end);
                    part.block(image, rows.clone(), now.clone(), self.finishing, sums, |dst, at| {
                        let (data, weights) = (self.data, self.weights);
                        WholePlanes { data, window, weights, channels, cols: now, dst, at, add }
                            .compute(kernel.isa);
                    });
                }
            }
        }
    }
}
