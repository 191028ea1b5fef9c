//! Executes the gradient of the input of a convolution with a stride of two, of a few channels: that of a first layer. All phases at once, lanes are positions of a line.
//!
//! Images are the batch, rows of the product channels, columns positions. The gradient of the output at a block of lines is copied to a band with its padding, a plane a channel, once for all phases
//! ([`FewChannels`]). The sums of two phases along a line, its even places and its odd ones, lie in scratch and are put together from there ([`InTurns`]): in the result, if its positions lie side by side and it is
//! in the format of sums, and else in a block of scratch.
//!
//! Scratch: the packed weights; for each thread a band of about [`BAND_BYTES`] and blocks of sums.

use std::sync::RwLock;

use tile25_kernels::axis::{Axis, COORDS, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{FEW_CHANNELS, FewChannels, InTurns, Real, SLACK, To};
use tile25_kernels::mat::{MatMut, MatSpec, Places, WriteRows};
use tile25_kernels::pack::{Form, Side, copy_band, pack};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::{Scan, ScanAxis};
use tile25_kernels::simd::Transpose;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::at_once::AtOnce;
use super::block::BAND_BYTES;
use super::few_channels::LEAST_INPUT;
use super::fork::{free_pair, worth};
use super::parts::OwnWords;
use super::schedule::Reader;
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use super::tile::Source;

/// The positions of a phase.
#[derive(Clone, Debug)]
struct Phase {
    /// The line and the place on it of the first.
    first: [usize; 2],
    /// Lines, and positions of each.
    positions: [usize; 2],
    /// Taps on each axis, and how many of the taps of all phases come before them.
    taps: [usize; 2],
    skipped: [usize; 2],
    /// How its weights are read, and where they begin among those packed, in steps of k.
    weights: Reader,
    from: usize,
}

/// A planned gradient.
#[derive(Clone, Debug)]
pub(crate) struct FewPhases {
    kernel: Kernel,
    /// Of all phases, with bands of planes.
    scan: Scan,
    /// Two along a line.
    phases: Vec<Phase>,
    /// How far lines of a phase are apart.
    down: usize,
    place: Place,
    /// Where results lie whose channels are innermost, with no room between positions: a row an image, if they are in the format of sums.
    inside: Option<Place>,
    channels: usize,
    /// Steps of k of all phases.
    k: usize,
    /// Places of a line of the result.
    width: usize,
    /// Lines of a phase in a block.
    block: usize,
    /// Elements of a band, of the sums of a phase along a line, and of a block of results that are not in the format of sums or apart.
    elements: [usize; 3],
}

/// The axis over which all phases go: the taps of each are among its own.
fn joined(axes: impl Iterator<Item = ScanAxis> + Clone) -> Option<ScanAxis> {
    let first = axes.clone().next()?;
    let alike = |axis: &ScanAxis| axis.step == 1 && (axis.taps == 1 || axis.tap_step == -1);
    if !axes.clone().all(|axis| alike(&axis)) {
        return None;
    }
    let highest = axes.clone().map(|axis| axis.origin).max()?;
    let lowest = axes.clone().map(|axis| axis.origin - axis.taps as isize + 1).min()?;
    let positions = axes.map(|axis| axis.positions).max()?;
    let taps = (highest - lowest) as usize + 1;
    Some(ScanAxis { positions, taps, tap_step: -1, origin: highest, ..first })
}

impl FewPhases {
    /// Plans what `all` is; `None` where phases are executed one by one.
    pub(crate) fn new(all: &AtOnce<'_>, kernel: Kernel, threads: usize) -> Option<FewPhases> {
        let &AtOnce { products, dst, lines, width, stride } = all;
        let &(first, scan, _) = products.first()?;
        let (problem, places, own) = (first.problem, Places::new(dst), kernel.form.sums());
        let [depth, ..] = scan.axes;
        if !matches!(kernel.form, Form::F32 | Form::F64)
            || !all.is_whole(own)
            || problem.batch != 1
            || stride[1] != 2
            // Places of a phase along a line lie side by side: two at least.
            || width < 4
            || (depth.positions, depth.taps) != (1, 1)
            || problem.m > FEW_CHANNELS.min(kernel.mr)
            || scan.channels.0 < LEAST_INPUT
        {
            return None;
        }
        let parts = worth(all.macs(), threads);
        let axis = |d: usize| joined(products.iter().map(move |(_, scan, _)| scan.axes[d]));
        let axes = [depth, axis(1)?, axis(2)?];
        let scan = Scan { pitch: 1, axes, apart: [false; COORDS], ..scan };
        let mut k = 0;
        let mut phases = Vec::with_capacity(products.len());
        for &(gemm, of_phase, first) in products {
            let of = [1, 2].map(|d| of_phase.axes[d]);
            phases.push(Phase {
                first,
                positions: of.map(|axis| axis.positions),
                taps: of.map(|axis| axis.taps),
                skipped: [0, 1].map(|d| (axes[d + 1].origin - of[d].origin) as usize),
                weights: gemm.lhs,
                from: k,
            });
            k += gemm.problem.k;
        }
        let (bytes, channels) = (own.bytes(), scan.channels.0);
        let band = |lines: usize| channels * scan.band_elements(lines, None) + SLACK;
        let all = axes[1].positions;
        let fits = |&lines: &usize| band(lines) * bytes <= BAND_BYTES;
        let block = std::iter::successors(Some(all), |&n| (n > 1).then_some(n.div_ceil(2))).find(fits)?;
        let here = problem.formats.out == own && places.columns_side_by_side();
        let images = dst.batch.extent();
        let along_images = if images >= parts { parts } else { 1 };
        let counts = [along_images, 1, (parts / along_images).min(all)];
        let apart = if here { 0 } else { problem.m * block * stride[0] * width };
        let place = Place { places, here, counts, grains: [1, problem.m, stride[0] * width] };
        let (m, n) = (problem.m, lines * width);
        let dense = dst.rows.inner().stride == 1 && dst.cols == Axis::strided(n, m as isize);
        let inside = (m > 1 && dense && problem.formats.out == own).then(|| Place {
            places: Places::new(MatSpec { rows: Axis::strided(1, 0), cols: Axis::strided(m * n, 1), ..dst }),
            here: true,
            counts,
            grains: [1, 1, stride[0] * width * m],
        });
        Some(FewPhases {
            kernel,
            scan,
            phases,
            down: stride[0],
            place,
            inside,
            channels: m,
            k,
            width,
            block,
            elements: [band(block), problem.m * block * axes[2].positions, apart],
        })
    }

    /// What a run needs: the packed weights, then a band and sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let [band, of_phase, apart] = self.elements;
        let pair = [band, 2 * of_phase + apart].map(|elements| elements * self.kernel.form.element_bytes());
        scratch(self.packed_bytes(), pair, self.place.counts.iter().product())
    }

    /// Bytes of the packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.k * self.kernel.mr * self.kernel.form.element_bytes()
    }

    /// Packs the weights of all phases: `[k][lane]`.
    pub(crate) fn pack_weights(&self, source: &Source<'_>, packed: &mut [u8]) {
        let kernel = self.kernel;
        let (operand, start) = source.operand().expect("weights are packed here");
        let mut rest = packed;
        for phase in &self.phases {
            let of = &phase.weights.window;
            let (k, now) = (of.k.extent(), &mut *rest);
            let (now, behind) = now.split_at_mut(k * kernel.mr * kernel.form.element_bytes());
            rest = behind;
            let window = Window { start: of.start + start as isize, ..*of };
            let channels = 0..self.channels;
            pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, channels, 0..k, kernel.mr, now);
        }
    }
}

impl Execute for FewPhases {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let data = run.rhs.own::<T>();
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        let (bytes, scratch) = (self.packed_bytes(), call.scratch());
        let pack = |packed: &mut [u8]| self.pack_weights(&run.lhs, packed);
        // What an epilogue makes of sums, or what they are added to, is of planes.
        let plain = epilogue.is_identity() && run.accum == Accum::Replace;
        let inside = self.inside.as_ref().filter(|_| plain);
        let place = inside.unwrap_or(&self.place);
        place.execute(call, dst, &run.lhs, bytes, pack, |weights, part: Sums<'_, T, W>| {
            let of_place = if inside.is_some() { self.channels } else { 1 };
            Job { few: self, data, weights, finishing, scratch, of_place }.part(part);
        });
    }
}

struct Job<'a, T> {
    few: &'a FewPhases,
    data: (&'a [T], isize),
    weights: &'a [T],
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
    /// Columns of the result to a place: its channels, if they are inside.
    of_place: usize,
}

impl<T: Real + Transpose> Job<'_, T> {
    /// Goes over the lines of a part in blocks.
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let &FewPhases { kernel, ref scan, down, width, block, elements, .. } = self.few;
        let [images, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch, self.few.place.counts.iter().product());
        let [of_band, of_phase, apart] = elements;
        let band = band.as_mut_slice::<T>(of_band);
        let (halves, results) = sums.as_mut_slice::<T>(2 * of_phase + apart).split_at_mut(2 * of_phase);
        let (even, odd) = halves.split_at_mut(of_phase);
        let width = width * self.of_place;
        let lines = cols.start / width..cols.end / width;
        let all = scan.axes[1].positions;
        for image in images {
            for first in (lines.start..lines.end).step_by(block * down) {
                let lines = first..lines.end.min(first + block * down);
                // The lines of each phase that are among these.
                let of_phases = first / down..all.min(lines.end.div_ceil(down));
                let places = scan.axes[2].positions;
                let from = (image * all + of_phases.start) * places;
                let place = scan.band(from..from + of_phases.len() * places);
                copy_band(kernel.isa, scan, &place, self.data.0, self.data.1, band);
                let at = place.window.start + place.window.x.offset(from);
                let of_band =
                    OfBand { data: band, at, line: place.across.len() as isize, plane: place.len(1) };
                let cols = lines.start * width..lines.end * width;
                let mut of_lines = |line: &mut [T], dst: &mut MatMut<'_, T>, to| {
                    for of_line in self.few.phases.chunks(2) {
                        let room = Room { halves: [&mut *even, &mut *odd], line: &mut *line };
                        self.of_line(of_line, [first, lines.end], &of_band, room, dst, to);
                    }
                };
                if let (Sums::Here(dst), true) = (&mut part, self.of_place > 1) {
                    of_lines(results, dst, [image, 0, cols.start]);
                    continue;
                }
                part.block(image, rows.clone(), cols, self.finishing, results, |dst, to| {
                    of_lines(&mut [], dst, to);
                });
            }
        }
    }

    /// The sums of two phases along lines `first` to `end`.
    fn of_line(
        &self,
        phases: &[Phase],
        [first, end]: [usize; 2],
        band: &OfBand<'_, T>,
        room: Room<'_, T>,
        dst: &mut MatMut<'_, T>,
        [batch, row, col]: [usize; 3],
    ) {
        let &FewPhases { kernel, down, channels, width, .. } = self.few;
        let top = phases[0].first[0];
        let from = first / down;
        let count = phases[0].positions[0].min(end.saturating_sub(top).div_ceil(down)).saturating_sub(from);
        if count == 0 {
            return;
        }
        let line_of = |j: usize| top + (from + j) * down - first;
        let add = self.finishing.accum == Accum::Add;
        let Room { mut halves, line: room } = room;
        for (phase, half) in phases.iter().zip(&mut halves) {
            let places = phase.positions[1];
            let n = count * places;
            if add {
                for (c, half) in half.chunks_exact_mut(n).enumerate().take(channels) {
                    for (j, half) in half.chunks_exact_mut(places).enumerate() {
                        let at = col + line_of(j) * width;
                        let mut line = dst.band(batch, row + c..row + c + 1, at..at + width);
                        let old = line.row(0)[phase.first[1]..].iter().step_by(2);
                        half.iter_mut().zip(old).for_each(|(half, &old)| *half = old);
                    }
                }
            }
            let spec = MatSpec {
                start: 0,
                batch: Axis::strided(1, 0),
                rows: Axis::strided(channels, n as isize),
                cols: Axis::strided(n, 1),
            };
            let spec = Places::new(spec);
            let mut sums = MatMut::new(half, 0, &spec).expect("room for the sums of a phase");
            let window = &band.window(phase, count, self.few.scan.channels.0);
            let weights = &self.weights[phase.from * kernel.mr..];
            let (data, width) = (band.data, kernel.mr);
            FewChannels {
                data,
                window,
                weights,
                width,
                channels,
                cols: 0..n,
                dst: &mut sums,
                at: [0; 3],
                add,
            }
            .compute(kernel.isa);
        }
        let even = usize::from(phases[0].first[1] != 0);
        let halves = [even, 1 - even].map(|x| &*halves[x]);
        let places = [even, 1 - even].map(|x| phases[x].positions[1]);
        if self.of_place > 1 {
            let at = col + line_of(0) * width * channels;
            let mut lines =
                dst.band(batch, row..row + 1, at..at + ((count - 1) * down + 1) * width * channels);
            let (shape, to) = ([channels, count, width], To::Inside(lines.row(0), room));
            InTurns { halves, shape, down: down * width * channels, to }.write(kernel.isa);
            return;
        }
        for c in 0..channels {
            let halves = [0, 1].map(|x| &halves[x][c * count * places[x]..][..count * places[x]]);
            let at = col + line_of(0) * width;
            let mut lines = dst.band(batch, row + c..row + c + 1, at..at + ((count - 1) * down + 1) * width);
            let (shape, to) = ([1, count, width], To::Plane(lines.row(0)));
            InTurns { halves, shape, down: down * width, to }.write(kernel.isa);
        }
    }
}

/// Scratch of two phases along lines.
struct Room<'a, T> {
    /// For the sums of each.
    halves: [&'a mut [T]; 2],
    /// For a line of each channel of a result with channels innermost.
    line: &'a mut [T],
}

/// A band of planes.
struct OfBand<'a, T> {
    data: &'a [T],
    /// Where its first position meets the first of the taps of all phases.
    at: isize,
    /// From a line to the next, and from a plane to the next.
    line: isize,
    plane: usize,
}

impl<T> OfBand<'_, T> {
    /// How a phase reads it, of which so many lines are computed.
    fn window(&self, phase: &Phase, lines: usize, channels: usize) -> Window {
        let [_, places] = phase.positions;
        let skipped = phase.skipped[0] as isize * self.line + phase.skipped[1] as isize;
        Window::plain(
            self.at - skipped,
            Axis::new(&[Dim::plain(lines, self.line), Dim::plain(places, 1)]),
            Axis::new(&[
                Dim::plain(phase.taps[0], -self.line),
                Dim::plain(phase.taps[1], -1),
                Dim::plain(channels, self.plane as isize),
            ]),
        )
    }
}
