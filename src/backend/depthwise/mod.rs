//! Executes a depthwise convolution, a channel a group: lanes are channels, and every channel is a product of its own.
//!
//! Of a convolution or its gradient of the input, rows are positions, columns channels and k is taps; of the gradient of the weights, rows are taps and
//! k is positions. Where whole strips of channels lie side by side, the input of the first two is read in place ([`ByLine`]). Else the input of a block of positions is copied to a band with its padding ([`Scan::band`]), strip by strip of channels ([`Strip`]), and narrow numbers as f32: it is then read once for each
//! tap, mostly from the first-level cache. Sums lie in the result if its channels lie side by side and it is in the format of sums.
//!
//! Every part packs the weights that it reads: those of another thread would come from its cache.
//!
//! Scratch for each thread: the packed weights; a band of about [`BAND_BYTES`], or what a line of positions takes if that is more, and a block of sums; for the
//! gradient of the weights also the gradient of the output in a block of whole segments.

mod phases;
mod weights;

use std::ops::Range;
use std::sync::RwLock;

use tile25_kernels::axis::{Axis, COORDS, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{ByLine, Gradient, Onto, Positions, Real, Strips, Taps, TapsByLine};
use tile25_kernels::mat::{MatMut, MatRef, MatSpec, Places};
use tile25_kernels::pack::Form;
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::{Scan, ScanAxis};
use tile25_kernels::simd::Transpose;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::block::{BAND_BYTES, Block, Segments, strip_of};
use super::fork::{PACKING_PRICE, free_pair, worth};
use super::input::Input;
use super::parts::OwnWords;
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use super::tile::Source;

pub(crate) use phases::Phased;
use weights::spread;

/// What k is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// Of a convolution over its input: taps.
    Taps,
    /// Of the gradient of its weights: positions.
    Positions,
}

/// Strips that are copied together where the input of a block would exceed [`BAND_BYTES`] with more: lines of cache side by side are read in one go.
const LEAST_STRIPS: usize = 4;

/// What a line of cache that two parts write costs in multiply-adds, within a wide range: 400 of 32 channels @112, 8000 of 480 @14. Zen 4, two threads, percent of their peak by strips and by lines: 480 channels 3 x 3 @14 13 and 33, 32 @112 17 and 31, 96 @112, stride 2, 19 and 23.
const SHARED_LINE: usize = 2000;

/// Products of 8-bit integers less their zero points, at most 255 each way, whose sums f32 holds exactly: 2^24 / 255^2.
const EXACT_PRODUCTS: usize = 258;

/// A planned depthwise convolution.
#[derive(Clone, Debug)]
pub(crate) struct Depthwise {
    kernel: Kernel,
    sum: Sum,
    /// Over all channels, in strips.
    scan: Scan,
    /// Of the gradient of the weights: over the gradient of the output, a position a tap.
    gradient: Scan,
    block: Block,
    /// Channels that are copied at a time.
    at_a_time: usize,
    place: Place,
    /// How the weights are read: x are channels.
    weights: Window,
    /// Where those of a channel begin and end that are spread over a block, which is packed as a whole.
    spread: Option<(isize, usize)>,
    /// Whether the input is read where it lies.
    in_place: bool,
    /// Rows, channels, k.
    shape: [usize; 3],
    /// Elements of the packed weights of a part, of the gradient of the output in a block unless it is read in place, of that with a band, of a block of sums.
    elements: [usize; 4],
}

/// A reader of one group turned to one whose x are the groups.
pub(super) fn by_channel(reader: &Reader) -> Window {
    Window { x: reader.batch, ..reader.window }
}

/// Goes over the k of a window without padding, whose x are channels.
fn over_steps(window: &Window, pitch: usize) -> Scan {
    let mut dims = [Dim::plain(1, 0); 4];
    let steps = window.k.dims();
    dims[4 - steps.len()..].copy_from_slice(steps);
    let [images, axes @ ..] = dims;
    Scan {
        start: window.start,
        images: (images.extent, images.stride),
        channels: (window.x.extent(), window.x.inner().stride),
        pitch,
        axes: axes.map(|dim| ScanAxis {
            positions: dim.extent,
            step: 1,
            taps: 1,
            tap_step: 1,
            origin: 0,
            size: dim.extent,
            stride: dim.stride,
        }),
        apart: [false; COORDS],
    }
}

/// Whether the positions of a scan are the rows of a dense matrix.
fn is_rows(scan: &Scan) -> bool {
    let Scan { channels: (channels, down), axes: [depth, height, width], images, .. } = *scan;
    down == 1
        && [images.0, depth.positions, height.positions] == [1; 3]
        && (width.positions == 1 || width.stride == channels as isize)
}

/// The part of a scan that is over some channels.
fn of_channels(scan: &Scan, channels: &Range<usize>) -> Scan {
    let first = channels.start as isize * scan.channels.1;
    Scan { start: scan.start + first, channels: (channels.len(), scan.channels.1), ..*scan }
}

impl Depthwise {
    /// Plans `gemm`, whose result `adds` to what is there or not, a product a channel whose rhs reads what `scan` goes over: as columns of positions, or of taps for the gradient of the weights. `None`
    /// where it is not depthwise or tickets have to execute it.
    pub(crate) fn new(
        gemm: &Gemm,
        scan: &Scan,
        sum: Sum,
        adds: bool,
        kernel: Kernel,
        threads: usize,
    ) -> Option<Depthwise> {
        let problem = &gemm.problem;
        let formats = problem.formats;
        let integers = formats.sums.is_integer();
        // Sums of so few products of 8-bit integers are whole numbers that f32 holds, all the way.
        let exact = problem.k <= EXACT_PRODUCTS && !adds;
        let widens = formats.rhs != kernel.form.sums();
        let strip = strip_of(kernel.form)?;
        if problem.batch < 2
            || problem.m != 1
            || scan.channels.0 != 1
            || problem.k == 0
            || (widens && (sum == Sum::Positions || kernel.form != Form::F32))
            || (integers && !exact)
            || (sum == Sum::Positions && formats.lhs != formats.sums)
        {
            return None;
        }
        let (rows, channels, k) = (problem.n, problem.batch, problem.k);
        let scan = Scan { channels: (channels, gemm.rhs.batch.inner().stride), pitch: strip, ..*scan };
        let spec =
            MatSpec { batch: Axis::strided(1, 0), rows: gemm.dst.cols, cols: gemm.dst.batch, ..gemm.dst };
        let places = Places::new(spec);
        let here = formats.out == kernel.form.sums() && places.columns_side_by_side();
        let parts = worth(problem.macs(), threads);
        let width = scan.axes[2].positions;
        let bytes = kernel.form.sums().bytes();
        // Along lines of positions or strips of channels, whichever makes the largest part cheaper; sums over positions only along channels.
        let (lines, strips) = (rows / width, channels.div_ceil(strip));
        let largest = |units: usize| units.div_ceil(parts) as f64 / units as f64;
        let (macs, packing) = (problem.macs() as f64, (PACKING_PRICE * channels * k) as f64);
        let by_lines = macs * largest(lines) + packing;
        let by_strips = (macs + packing) * largest(strips) + (SHARED_LINE * rows) as f64;
        let (counts, grain) = match sum {
            Sum::Taps if by_lines < by_strips => ([1, parts.min(lines), 1], width),
            Sum::Taps if strips < parts => ([1, parts.min(rows.div_ceil(kernel.mr)), 1], kernel.mr),
            _ => ([1, 1, parts.min(strips)], 1),
        };
        // Strips of the widest part.
        let strips = strips.div_ceil(counts[2]);
        let weights = by_channel(&gemm.lhs);
        let (gradient, spread) = (over_steps(&weights, strip), spread(&weights));
        let in_place = !widens
            && match (sum, kernel.form) {
                (Sum::Taps, Form::F32) => ByLine::<f32>::serves(&scan),
                (Sum::Taps, _) => ByLine::<f64>::serves(&scan),
                (Sum::Positions, Form::F32) => is_rows(&gradient) && TapsByLine::<f32>::serves(&scan),
                (Sum::Positions, _) => is_rows(&gradient) && TapsByLine::<f64>::serves(&scan),
            };
        let of_weights = strips * strip * k + spread.map_or(0, |(_, span)| span * strip);
        let scan = match sum {
            _ if in_place => scan,
            Sum::Taps => Block::held_apart(&scan, strips.min(LEAST_STRIPS), bytes),
            Sum::Positions => Segments::held_apart(&scan, k, strips, bytes),
        };
        let (block, at_a_time, elements, most_rows) = match sum {
            Sum::Taps if in_place => {
                let lines = (BAND_BYTES / (width * strips * strip * bytes)).clamp(1, rows / width);
                let block = if here { rows } else { lines * width };
                (Block::Rows(block), strips, [of_weights, 0, 0], block)
            }
            Sum::Taps => {
                let whole = scan.band_elements(rows / width, None);
                let of = |strips: usize| Block::copied(&scan, strips, bytes);
                // What a block copies again of its neighbours' lines is little: the fewer strips, the less.
                let is_little = |&strips: &usize| {
                    of(strips).is_some_and(|(_, positions, band)| {
                        band / strips * rows.div_ceil(positions) <= whole + whole / 2
                    })
                };
                let halves = std::iter::successors(Some(strips), |&strips| Some(strips.div_ceil(2)));
                let few = strips.min(LEAST_STRIPS);
                let strips = halves.take_while(|&strips| strips > few).find(is_little).unwrap_or(few);
                let (block, positions, band) = of(strips)?;
                (block, strips, [of_weights, 0, band], positions)
            }
            Sum::Positions if in_place => (Block::Rows(k), strips, [0; 3], rows),
            Sum::Positions => {
                let Segments { positions, strips, band } = Segments::new(&scan, k, strips, bytes);
                // Whole strips of a matrix, a row a position, are read where they lie.
                let in_place = is_rows(&gradient) && channels.is_multiple_of(strip);
                let of_gradient =
                    if in_place { 0 } else { strips * Segments::elements(&gradient, positions) };
                (Block::Rows(positions), strips, [0, of_gradient, of_gradient + strips * band], rows)
            }
        };
        let sums = if here { 0 } else { most_rows * strips * strip };
        let [packed, of_gradient, with_band] = elements;
        Some(Depthwise {
            kernel,
            sum,
            scan,
            gradient,
            block,
            at_a_time: at_a_time * strip,
            place: Place { places, here, counts, grains: [1, grain, strip] },
            weights,
            spread,
            in_place,
            shape: [rows, channels, k],
            elements: [packed, of_gradient, with_band, sums],
        })
    }

    /// Whether the input is read where it lies.
    pub(crate) fn reads_in_place(&self) -> bool {
        self.in_place
    }

    /// What a run needs: for each thread the packed weights with a band, and sums.
    pub(crate) fn scratch(&self) -> Scratch {
        let of = |elements: usize| elements * self.kernel.form.element_bytes();
        let [packed, _, band, sums] = self.elements.map(of);
        scratch(0, [packed + band, sums], self.place.counts.iter().product())
    }
}

impl Execute for Depthwise {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let data = Input::new(&run.rhs);
        let gradient = if self.sum == Sum::Positions { run.lhs.own::<T>() } else { (&[][..], 0) };
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        let (weights, scratch) = (&run.lhs, call.scratch());
        self.place.run(call, dst, |part: Sums<'_, T, W>| {
            Job { depthwise: self, data, gradient, weights, finishing, scratch }.part(part);
        });
    }
}

struct Job<'a, T> {
    depthwise: &'a Depthwise,
    data: Input<'a, T>,
    /// The gradient of the output and where it starts, if that of the weights is computed.
    gradient: (&'a [T], isize),
    weights: &'a Source<'a>,
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

/// Positions of some channels, in a block.
struct Part<'a, T> {
    data: Input<'a, T>,
    rows: Range<usize>,
    cols: &'a Range<usize>,
    onto: Onto,
    /// Of these channels.
    weights: &'a [T],
    band: &'a mut [T],
    add: bool,
}

impl Depthwise {
    /// Copies what some positions need to `out`; the elements of a strip, and the window that reads them, with positions as x and taps as k.
    fn copy<T: Transpose + OwnWords>(
        &self,
        scan: &Scan,
        data: Input<'_, T>,
        positions: Range<usize>,
        out: &mut [T],
    ) -> (usize, Window) {
        let place = scan.band(positions);
        data.copy(self.kernel.isa, scan, &place, 0, out);
        (place.len(scan.pitch), Window { k: place.taps, ..place.window })
    }

    /// The sums of some positions into `dst` at `at`.
    fn positions<T: Real + Transpose + OwnWords>(
        &self,
        part: Part<'_, T>,
        dst: &mut MatMut<'_, T>,
        at: [usize; 3],
    ) {
        let Part { data, rows, cols, onto, weights, band, add } = part;
        let (kernel, scan) = (self.kernel, &self.scan);
        if let (Input::Own(data, start), true) = (data, self.in_place) {
            let data = (data, start);
            ByLine { data, scan, rows, cols: cols.clone(), weights, onto, dst, at, add }.compute(kernel.isa);
            return;
        }
        let (strip, window) = self.copy(&of_channels(scan, cols), data, rows.clone(), band);
        let data = Strips { data: band, strip, window: &window };
        Positions { data, rows, weights, onto, dst, at, channels: cols.len(), add }.compute(kernel.isa);
    }
}

impl<T: Real + Transpose + OwnWords> Job<'_, T> {
    /// The sums of all taps of some channels into `dst` at `at`.
    fn of_taps(&self, cols: &Range<usize>, scratch: &mut [T], dst: &mut MatMut<'_, T>, at: [usize; 3]) {
        let depthwise = self.depthwise;
        let Depthwise { kernel, scan, gradient, block, in_place, shape: [_, _, k], elements, .. } = depthwise;
        if let (Input::Own(data, start), true) = (self.data, *in_place) {
            let ((of, first), width) = (self.gradient, gradient.channels.0);
            let rows = &of[(first + gradient.start) as usize..][..k * width];
            let gradient = MatRef::row_major(rows, *k, width);
            let (data, cols, add) = ((data, start), cols.clone(), self.finishing.accum == Accum::Add);
            TapsByLine { data, scan, gradient, cols, dst, at, add }.compute(kernel.isa);
            return;
        }
        let &Block::Rows(positions) = block else { unreachable!("blocks of whole segments") };
        let (of_gradient, band) = scratch.split_at_mut(elements[1]);
        for first in (0..*k).step_by(positions) {
            let positions = first..(*k).min(first + positions);
            let data = depthwise.copy(&of_channels(scan, cols), self.data, positions.clone(), band);
            let of = &of_channels(gradient, cols);
            let window;
            let gradient = if of_gradient.is_empty() {
                let ((data, start), width) = (self.gradient, gradient.channels.0);
                let from = (start + gradient.start) as usize + positions.start * width;
                let rows = &data[from..][..positions.len() * width];
                Gradient::InPlace(MatRef::row_major(rows, positions.len(), width), cols.start)
            } else {
                let strip;
                let (data, start) = self.gradient;
                (strip, window) = depthwise.copy(of, Input::Own(data, start), positions.clone(), of_gradient);
                Gradient::Strips(Strips { data: of_gradient, strip, window: &window })
            };
            let (channels, add) = (cols.len(), first > 0 || self.finishing.accum == Accum::Add);
            let data = Strips { data: band, strip: data.0, window: &data.1 };
            Taps { data, gradient, positions, dst: &mut *dst, at, channels, add }.compute(kernel.isa);
        }
    }

    /// Goes over a part strips by strips, over the rows of each in blocks.
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let depthwise = self.depthwise;
        let &Depthwise { sum, ref scan, block, at_a_time, elements, shape: [_, _, k], .. } = depthwise;
        let [of_weights, _, of_band, of_sums] = elements;
        let [_, rows, cols] = part.ranges();
        let (mut first, mut sums) = free_pair(self.scratch, depthwise.place.counts.iter().product());
        let (packed, band) = first.as_mut_slice::<T>(of_weights + of_band).split_at_mut(of_weights);
        let sums = sums.as_mut_slice::<T>(of_sums);
        let weights: &[T] = match (sum, self.weights) {
            (Sum::Taps, Source::Packed { panels, .. }) => &bytemuck::cast_slice(panels)[cols.start * k..],
            (Sum::Taps, weights) => {
                depthwise.pack_weights(weights, cols.clone(), bytemuck::cast_slice_mut(packed));
                packed
            }
            (Sum::Positions, _) => &[],
        };
        let (data, onto, add) = (self.data, Onto::rows(scan), self.finishing.accum == Accum::Add);
        for col in cols.clone().step_by(at_a_time) {
            let some = col..cols.end.min(col + at_a_time);
            let mut row = rows.start;
            while row < rows.end {
                let end = match sum {
                    Sum::Taps => block.end(scan, row, rows.end),
                    Sum::Positions => rows.end,
                };
                let now = row..end;
                row = end;
                part.block(0, now.clone(), some.clone(), self.finishing, sums, |dst, at| match sum {
                    Sum::Taps => {
                        let weights = &weights[(col - cols.start) * k..];
                        let (onto, rows, cols, band) = (onto.from(now.start), now, &some, &mut *band);
                        depthwise.positions(Part { data, rows, cols, onto, weights, band, add }, dst, at);
                    }
                    Sum::Positions => self.of_taps(&some, band, dst, at),
                });
            }
        }
    }
}
