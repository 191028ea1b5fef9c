//! Executes a depthwise convolution, a channel a group: lanes are channels, and every channel is a product of its own.
//!
//! Of a convolution or its gradient of the input, rows are positions, columns channels and k is taps; of the gradient of the weights, rows are taps and
//! k is positions. The input of a block is read where it lies if its channels lie side by side and it has no padding; otherwise it is
//! copied to a band first, channels innermost ([`Scan::band`]). Sums lie in the result if its channels lie side by side and it is in the format of sums.
//!
//! Scratch of a thread: a band as in [`super::windows`], or for the gradient of the weights of one segment of positions; a block of sums; a panel.

use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use tile25_kernels::KC;
use tile25_kernels::axis::{Axis, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::{FinishFrom, Param};
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{Real, WINDOW_ROWS, Weights, Windows};
use tile25_kernels::mat::{MatMut, MatSpec, Places};
use tile25_kernels::pack::{Bands, Form, Operand, Side, copy_band, pack};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::fork::{PART_MACS, free_pair, within};
use super::parts::OwnWords;
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Execute, Finishing, Place, Sums};
use super::tile::Source;
use super::windows::Block;

/// What k is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// Of a convolution over its input: taps.
    Taps,
    /// Of the gradient of its weights: positions.
    Positions,
}

/// A planned depthwise convolution.
#[derive(Clone, Debug)]
pub(crate) struct Depthwise {
    kernel: Kernel,
    sum: Sum,
    /// Over all channels.
    scan: Scan,
    block: Block,
    place: Place,
    /// How the weights, or the gradient of the output, are read: x are channels.
    weights: Window,
    /// Rows, channels, k.
    shape: [usize; 3],
    /// Elements of the weights packed before, of a band with a panel, of a block of sums.
    elements: [usize; 3],
}

/// A reader of one group turned to one whose x are the groups.
fn by_channel(reader: &Reader) -> Window {
    Window { x: reader.batch, ..reader.window }
}

impl Depthwise {
    /// Plans `gemm`, a product a channel whose rhs reads what `scan` goes over: as columns of positions, or of taps for the gradient of the weights. `None`
    /// where it is not depthwise or tickets have to execute it.
    pub(crate) fn new(
        gemm: &Gemm,
        scan: &Scan,
        sum: Sum,
        kernel: Kernel,
        threads: usize,
    ) -> Option<Depthwise> {
        let problem = &gemm.problem;
        let formats = problem.formats;
        let floats = matches!(kernel.form, Form::F32 | Form::F64) && formats.rhs == formats.sums;
        if problem.batch < 2 || problem.m != 1 || scan.channels.0 != 1 || problem.k == 0 || !floats {
            return None;
        }
        let taps: usize = scan.axes.iter().map(|axis| axis.taps).product();
        let (rows, channels, k) = (problem.n, problem.batch, problem.k);
        let scan = Scan { channels: (channels, gemm.rhs.batch.inner().stride), ..*scan };
        let spec =
            MatSpec { batch: Axis::strided(1, 0), rows: gemm.dst.cols, cols: gemm.dst.batch, ..gemm.dst };
        let places = Places::new(spec);
        let here = formats.out == formats.sums && places.band_stride().is_some();
        let bytes = formats.sums.bytes();
        let useful = usize::try_from(problem.macs() / PART_MACS).unwrap_or(usize::MAX).max(1);
        let parts = threads.min(useful);
        let counts = match sum {
            Sum::Taps => [1, parts.min(rows.div_ceil(kernel.mr)), 1],
            Sum::Positions => [1, 1, parts.min(channels.div_ceil(kernel.nr))],
        };
        let window = scan.window();
        let in_place = window.is_plain() && scan.channels.1 == 1;
        let (block, most, band) = match sum {
            Sum::Taps if in_place => (Block::Rows(WINDOW_ROWS), rows.min(WINDOW_ROWS), 0),
            Sum::Taps => Block::copied(&scan, bytes),
            Sum::Positions if in_place => (Block::Rows(KC), taps, 0),
            Sum::Positions => {
                // A segment may begin and end in the middle of a line.
                let lines = KC.div_ceil(scan.axes[2].positions) + 1;
                (Block::Rows(KC), taps, scan.band_elements(lines, None))
            }
        };
        let padded = channels.next_multiple_of(kernel.nr);
        let (packed, panel) = match sum {
            Sum::Taps => (padded * k, 0),
            Sum::Positions => (0, kernel.nr * k.min(KC)),
        };
        let sums = if here { 0 } else { most * padded };
        Some(Depthwise {
            kernel,
            sum,
            scan,
            block,
            place: Place { places, here, counts, grains: [1, kernel.mr, kernel.nr] },
            weights: by_channel(&gemm.lhs),
            shape: [rows, channels, k],
            elements: [packed, panel + band, sums],
        })
    }

    /// What a run needs: the packed weights, then a band and sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let [packed, band, sums] = self.elements.map(|elements| elements * self.kernel.form.element_bytes());
        let pairs = std::iter::repeat_n([band, sums], self.place.counts.iter().product()).flatten();
        Scratch { panels: std::iter::once(packed).chain(pairs).collect(), ..Scratch::default() }
    }
}

impl Execute for Depthwise {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Bands + OwnWords, W: FinishFrom<T>, P: Param>(
        &self,
        call: &Call<'_, P>,
        dst: &mut [W],
    ) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let Source::Floats { words, start } = run.rhs else { unreachable!("an input in the format of sums") };
        let (operand, of_weights) = run.lhs.operand().expect("weights are packed here");
        let weights = Window { start: self.weights.start + of_weights as isize, ..self.weights };
        let (packed, scratch) = call.workspace.panels.split_first().expect("room for the weights");
        let [_, channels, k] = self.shape;
        let mut packed = packed.write().unwrap_or_else(PoisonError::into_inner);
        let packed = packed.as_mut_slice::<T>(self.elements[0]);
        let (kernel, nr) = (self.kernel, self.kernel.nr);
        for (panel, out) in packed.chunks_exact_mut(nr * k).enumerate() {
            let x = panel * nr..channels.min((panel + 1) * nr);
            let out = bytemuck::cast_slice_mut(out);
            pack(kernel.isa, kernel.form, Side::Rhs, &weights, operand, x, 0..k, nr, out);
        }
        let job = Job {
            depthwise: self,
            data: T::own(words).expect("an input in the format of sums"),
            start: start as isize,
            weights: &weights,
            operand,
            packed,
            finishing: Finishing { isa: kernel.isa, accum: run.accum, epilogue: &epilogue },
            scratch,
        };
        let work = || self.place.parts(dst, call.start, &|part: Sums<'_, T, W>| job.part(part));
        within(call.threads, self.place.counts, work);
    }
}

struct Job<'a, T> {
    depthwise: &'a Depthwise,
    data: &'a [T],
    start: isize,
    weights: &'a Window,
    operand: Operand<'a>,
    packed: &'a [T],
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real + Bands> Job<'_, T> {
    /// Reads what some positions need of the channels of `scan`: `work` gets the elements, and the window with positions as x and taps as k.
    fn read<R>(
        &self,
        scan: &Scan,
        positions: Range<usize>,
        band: &mut [T],
        work: impl FnOnce(&[T], Window) -> R,
    ) -> R {
        let Depthwise { kernel, sum, block, .. } = self.depthwise;
        if matches!((sum, block), (Sum::Taps, Block::Rows(_))) || band.is_empty() {
            let taps = scan.axes.map(|axis| Dim::plain(axis.taps, axis.tap_step * axis.stride));
            let window = scan.window();
            return work(
                self.data,
                Window { start: window.start + self.start, k: Axis::new(&taps), ..window },
            );
        }
        let place = scan.band(positions);
        copy_band(kernel.isa, scan, &place, self.data, self.start, band);
        work(band, Window { k: place.taps, ..place.window })
    }

    /// The sums of `rows` by `cols` into `dst` at `at`.
    fn sums(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &mut [T],
        dst: &mut MatMut<'_, T>,
        at: [usize; 3],
    ) {
        let Depthwise { kernel, sum, scan, shape: [_, _, k], elements, .. } = self.depthwise;
        match sum {
            Sum::Taps => self.read(scan, rows.clone(), scratch, |data, window| {
                let weights = Weights::Packed(self.packed);
                let (window, k) = (&window, 0..*k);
                let by_column = true;
                let add = self.finishing.accum == Accum::Add;
                Windows { data, window, rows, k, by_column, weights, cols, dst, at, add }.compute(kernel.isa);
            }),
            Sum::Positions => {
                // The channels of this part alone.
                let first = cols.start as isize * scan.channels.1;
                let scan =
                    Scan { start: scan.start + first, channels: (cols.len(), scan.channels.1), ..*scan };
                let panel = kernel.nr * KC.min(*k);
                let (panel, band) = scratch[..elements[1]].split_at_mut(panel);
                for first in (0..*k).step_by(KC) {
                    let segment = first..(*k).min(first + KC);
                    self.read(&scan, segment.clone(), band, |data, window| {
                        let window = &Window { x: window.k, k: window.x, ..window };
                        let weights = Weights::Pack(self.weights, self.operand, panel);
                        let (rows, cols, k) = (rows.clone(), cols.clone(), segment);
                        let (by_column, add) = (true, first > 0 || self.finishing.accum == Accum::Add);
                        Windows { data, window, rows, k, by_column, weights, cols, dst, at, add }
                            .compute(kernel.isa);
                    });
                }
            }
        }
    }

    /// Goes over the rows of a part in blocks, all its columns at a time.
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let Depthwise { sum, scan, block, elements: [_, of_band, of_sums], .. } = self.depthwise;
        let [_, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch);
        let (band, sums) = (band.as_mut_slice::<T>(*of_band), sums.as_mut_slice::<T>(*of_sums));
        let mut row = rows.start;
        while row < rows.end {
            let end = match sum {
                Sum::Taps => block.end(scan, row, rows.end),
                Sum::Positions => rows.end,
            };
            let rows = row..end;
            part.block(0, rows.clone(), cols.clone(), self.finishing, sums, |dst, at| {
                self.sums(rows, cols.clone(), band, dst, at);
            });
            row = end;
        }
    }
}
