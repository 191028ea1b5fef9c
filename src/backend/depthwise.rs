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
use tile25_kernels::epilogue::{Epilogue, FinishFrom, Param};
use tile25_kernels::format::{Format, WordsMut};
use tile25_kernels::gemm::{Real, WINDOW_ROWS, Weights, Windows};
use tile25_kernels::mat::{MatMut, MatSpec, Places};
use tile25_kernels::pack::{Bands, Form, Operand, Side, copy_band, pack};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;

use crate::context::Threads;
use crate::epilogue::Accum;
use crate::workspace::{Scratch, Workspace};

use super::fork::{PART_MACS, free_pair, split};
use super::parts::OwnWords;
use super::schedule::{Gemm, Reader};
use super::tile::{Run, Source};
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
    parts: usize,
    /// Whether sums lie in the result.
    here: bool,
    dst: Places,
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
        let floats = kernel.form == Form::F32 && formats.rhs == formats.sums;
        if problem.batch < 2 || problem.m != 1 || scan.channels.0 != 1 || problem.k == 0 || !floats {
            return None;
        }
        let taps: usize = scan.axes.iter().map(|axis| axis.taps).product();
        let (rows, channels, k) = (problem.n, problem.batch, problem.k);
        let scan = Scan { channels: (channels, gemm.rhs.batch.inner().stride), ..*scan };
        let spec =
            MatSpec { batch: Axis::strided(1, 0), rows: gemm.dst.cols, cols: gemm.dst.batch, ..gemm.dst };
        let dst = Places::new(spec);
        let here = formats.out == formats.sums && dst.band_stride().is_some();
        let bytes = formats.sums.bytes();
        let useful = usize::try_from(problem.macs() / PART_MACS).unwrap_or(usize::MAX).max(1);
        let units = match sum {
            Sum::Taps => rows.div_ceil(kernel.mr),
            Sum::Positions => channels.div_ceil(kernel.nr),
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
            parts: threads.min(useful).min(units),
            here,
            dst,
            weights: by_channel(&gemm.lhs),
            shape: [rows, channels, k],
            elements: [packed, panel + band, sums],
        })
    }

    /// What a run needs: the packed weights, then a band and sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let [packed, band, sums] = self.elements.map(|elements| elements * self.kernel.form.element_bytes());
        let pairs = std::iter::repeat_n([band, sums], self.parts).flatten();
        Scratch { panels: std::iter::once(packed).chain(pairs).collect(), ..Scratch::default() }
    }

    /// Computes the convolution into the elements of `dst` from `start` on. Allocates nothing.
    ///
    /// # Panics
    /// If an operand, the result or the workspace is not what this was planned for; callers check.
    pub(crate) fn run<P: Param>(
        &self,
        run: &Run<'_>,
        epilogue: &Epilogue<'_, P>,
        dst: WordsMut<'_>,
        start: usize,
        threads: &Threads<'_>,
        workspace: &Workspace,
    ) {
        match (self.kernel.form.sums(), dst) {
            (Format::F32, WordsMut::F32(dst)) => {
                self.typed::<f32, f32, P>(run, epilogue, dst, start, threads, workspace)
            }
            (Format::F32, WordsMut::U16(dst)) => {
                self.typed::<f32, u16, P>(run, epilogue, dst, start, threads, workspace)
            }
            (Format::F32, WordsMut::U8(dst)) => {
                self.typed::<f32, u8, P>(run, epilogue, dst, start, threads, workspace)
            }
            (sums, _) => unreachable!("sums of {sums} of a depthwise convolution"),
        }
    }

    fn typed<T: Real + Bands + OwnWords, W: FinishFrom<T>, P: Param>(
        &self,
        run: &Run<'_>,
        epilogue: &Epilogue<'_, P>,
        dst: &mut [W],
        start: usize,
        threads: &Threads<'_>,
        workspace: &Workspace,
    ) {
        let epilogue = epilogue.cast();
        let Source::Floats { words, start: first } = run.rhs else {
            unreachable!("an input in the format of sums")
        };
        let data = T::own(words).expect("an input in the format of sums");
        let (operand, of_weights) = match run.lhs {
            Source::Floats { words, start } => (Operand::floats(words), start),
            Source::Coded { operand, start, .. } => (operand, start),
            Source::Packed { .. } => unreachable!("weights are packed here"),
        };
        let weights = Window { start: self.weights.start + of_weights as isize, ..self.weights };
        let (packed, scratch) = workspace.panels.split_first().expect("room for the weights");
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
            data,
            start: first as isize,
            weights: &weights,
            operand,
            packed,
            add: run.accum == Accum::Add,
            epilogue: &epilogue,
            scratch,
        };
        let (counts, grains) = match self.sum {
            Sum::Taps => ([1, self.parts, 1], [1, kernel.mr, 1]),
            Sum::Positions => ([1, 1, self.parts], [1, 1, nr]),
        };
        const CHECKED: &str = "the view and the plan were checked";
        let mut work = || {
            if self.here {
                let dst = bytemuck::cast_slice_mut(dst);
                let dst = MatMut::new(dst, start as isize, &self.dst).expect(CHECKED);
                split(dst, counts, grains, &|dst| job.part_here(dst));
            } else {
                let dst = MatMut::new(dst, start as isize, &self.dst).expect(CHECKED);
                split(dst, counts, grains, &|dst| job.part_apart::<W>(dst));
            }
        };
        match threads {
            Threads::Pool(pool) if self.parts > 1 => pool.install(work),
            _ => work(),
        }
    }
}

struct Job<'a, T> {
    depthwise: &'a Depthwise,
    data: &'a [T],
    start: isize,
    weights: &'a Window,
    operand: Operand<'a>,
    packed: &'a [T],
    add: bool,
    epilogue: &'a Epilogue<'a, T>,
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
                let add = self.add;
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
                        let (by_column, add) = (true, self.add || first > 0);
                        Windows { data, window, rows, k, by_column, weights, cols, dst, at, add }
                            .compute(kernel.isa);
                    });
                }
            }
        }
    }

    /// Goes over the rows of a part, all its columns at a time.
    fn blocks(&self, rows: Range<usize>, mut work: impl FnMut(Range<usize>)) {
        let Depthwise { sum, scan, block, .. } = self.depthwise;
        let mut row = rows.start;
        while row < rows.end {
            let end = match sum {
                Sum::Taps => block.end(scan, row, rows.end),
                Sum::Positions => rows.end,
            };
            work(row..end);
            row = end;
        }
    }

    fn part_here(&self, mut dst: MatMut<'_, T>) {
        let (cols, isa) = (dst.cols(), self.depthwise.kernel.isa);
        let (mut band, _sums) = free_pair(self.scratch);
        let band = band.as_mut_slice(self.depthwise.elements[1]);
        self.blocks(dst.rows(), |rows| {
            let at = [0, rows.start, cols.start];
            self.sums(rows.clone(), cols.clone(), band, &mut dst, at);
            T::finish_in_place(isa, self.epilogue, &mut dst.tile(0, rows, cols.clone()));
        });
    }

    fn part_apart<W: FinishFrom<T>>(&self, mut dst: MatMut<'_, W>) {
        let (cols, isa) = (dst.cols(), self.depthwise.kernel.isa);
        let (mut band, mut sums) = free_pair(self.scratch);
        let [_, band_elements, sum_elements] = self.depthwise.elements;
        let (band, sums) = (band.as_mut_slice(band_elements), sums.as_mut_slice::<T>(sum_elements));
        self.blocks(dst.rows(), |rows| {
            let (m, n) = (rows.len(), cols.len());
            let places = Places::new(MatSpec {
                start: 0,
                batch: Axis::strided(1, 0),
                rows: Axis::strided(m, n as isize),
                cols: Axis::strided(n, 1),
            });
            let mut sums = MatMut::new(&mut *sums, 0, &places).expect("room for a block of sums");
            let mut tile = dst.tile(0, rows.clone(), cols.clone());
            if self.add {
                let format = self.epilogue.target.format();
                W::widen_into(format, &mut tile, &mut sums.tile(0, 0..m, 0..n));
            }
            self.sums(rows, cols.clone(), band, &mut sums, [0; 3]);
            W::finish_into(isa, self.epilogue, &mut sums.tile(0, 0..m, 0..n), &mut tile);
        });
    }
}
