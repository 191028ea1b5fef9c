//! Executes a convolution over a window of its input: rows of the product are positions, columns are channels, and no im2col is ever made.
//!
//! First the weights are packed, once for all threads; where there are so few positions that one block holds them, each thread packs
//! its columns instead, panel by panel right before use. Then C is cut into one part a thread, as in [`super::parts`]. A part goes over its positions
//! in blocks. The input of a block is read where it lies if its channels lie side by side; otherwise, or where there are few channels, it is first copied to a
//! band with its padding and channels innermost ([`Scan::band`]). Sums lie in the result if its channels lie side by side and it is in the format of
//! sums, and else in a block of scratch from which the result is written.
//!
//! Scratch: the packed weights, and for each thread a band of about [`BAND_BYTES`] and a block of at most [`SUMS_BYTES`] of sums. A band is as large as it must be
//! for one line of positions or, where that is more, for [`LEAST_ACROSS`] of its positions: nothing grows with the images or their number.

use std::ops::Range;
use std::sync::PoisonError;

use tile25_kernels::KC;
use tile25_kernels::axis::{Axis, Dim, NO_COORD, Window};
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

use super::fork::{PART_MACS, evenly, free_pair, share, split};
use super::parts::OwnWords;
use super::schedule::Gemm;
use super::tile::{Run, Source};

/// Bytes of a band: half of a second-level cache of 1 MiB.
const BAND_BYTES: usize = 512 * 1024;
/// Most bytes of a block of sums.
const SUMS_BYTES: usize = 512 * 1024;
/// Least positions of a block in one line.
const LEAST_ACROSS: usize = 48;
/// Positions up to which they are one block, and weights are packed right before use: packed before, those of a layer with many channels would leave the
/// second-level cache before they are met.
const ONE_BLOCK: usize = 512;
/// Channels side by side from which on the input is read in place: a tile looks up its rows once a kernel position.
const IN_PLACE_FROM: usize = 16;

/// How positions are cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// So many, read in place.
    Rows(usize),
    /// Those of so many lines, copied.
    Lines(usize),
    /// So many in one line, copied.
    Across(usize),
}

impl Block {
    /// Blocks of positions whose input is copied to a band of elements of `bytes`; the most positions of one, and elements of its band.
    pub(super) fn copied(scan: &Scan, bytes: usize) -> (Block, usize, usize) {
        let (most, width) = (BAND_BYTES / bytes, scan.axes[2].positions);
        let all = scan.rows() / width;
        let doubled = |first: usize, end: usize| (0..).map(move |i| first << i).take_while(move |&n| n < end);
        let lines = doubled(1, 2 * all).take_while(|&lines| scan.band_elements(lines, None) <= most).last();
        if let Some(lines) = lines {
            let rows = scan.rows().min(lines * width);
            return (Block::Lines(lines), rows, scan.band_elements(lines, None));
        }
        let fits = |&across: &usize| scan.band_elements(1, Some(across)) <= most;
        let across = doubled(LEAST_ACROSS, width).take_while(fits).last().unwrap_or(LEAST_ACROSS).min(width);
        (Block::Across(across), across, scan.band_elements(1, Some(across)))
    }

    /// Where the block ends that begins at position `row`, of those up to `end`.
    pub(super) fn end(self, scan: &Scan, row: usize, end: usize) -> usize {
        let width = scan.axes[2].positions;
        let line = row / width;
        end.min(match self {
            Block::Rows(rows) => row + rows,
            Block::Lines(lines) => (line + lines) * width,
            Block::Across(positions) => ((line + 1) * width).min(row + positions),
        })
    }
}

/// A planned convolution over a window.
#[derive(Clone, Debug)]
pub(crate) struct Windowed {
    kernel: Kernel,
    scan: Scan,
    window: Window,
    groups: Axis,
    counts: [usize; 3],
    slots: usize,
    block: Block,
    /// Columns of a block.
    cols: usize,
    /// Whether sums lie in the result.
    here: bool,
    /// Whether weights are packed right before use.
    packs_late: bool,
    dst: Places,
    shape: [usize; 4],
    /// Elements of the panel of weights that is packed late.
    panel: usize,
    /// Elements of a band, with the panel of weights that is packed late, and of a block of sums.
    elements: [usize; 2],
}

impl Windowed {
    /// Plans `gemm`, whose lhs reads what `scan` goes over; `None` where tickets have to execute it.
    pub(crate) fn new(gemm: &Gemm, scan: Scan, kernel: Kernel, threads: usize) -> Option<Windowed> {
        let (problem, dst) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        if kernel.form != Form::F32 || formats.lhs != formats.sums || problem.k == 0 {
            return None;
        }
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let bytes = formats.sums.bytes();
        let useful = usize::try_from(problem.macs() / PART_MACS).unwrap_or(usize::MAX).max(1);
        let threads = threads.min(useful);
        let counts = evenly(problem.batch, [m, n], [kernel.mr, kernel.nr], threads);
        let window = scan.window();
        let inner = window.k.inner();
        let one_run = window.is_plain() && window.k.dims().len() == 1;
        let runs = inner.along == NO_COORD && inner.stride == 1 && inner.extent >= IN_PLACE_FROM;
        let here = formats.out == formats.sums && dst.band_stride().is_some();
        let packs_late = m <= ONE_BLOCK && counts[1] == 1;
        let (block, rows, band) = if one_run || runs {
            let rows = if packs_late { m } else { WINDOW_ROWS };
            (Block::Rows(rows), m.min(rows), 0)
        } else {
            Block::copied(&scan, bytes)
        };
        let padded = n.next_multiple_of(kernel.nr);
        let cols = if here {
            padded
        } else {
            (SUMS_BYTES / (rows * bytes) / kernel.nr * kernel.nr).clamp(kernel.nr, padded)
        };
        let packs_late = packs_late && rows == m;
        // Weights whose kernel positions lie inside their channels are packed all at once.
        let (lanes, weights) = (gemm.rhs.window.x.inner(), gemm.rhs.window.k);
        let inside = |dim: &Dim| dim.stride.abs() < weights.inner().stride.abs();
        let interleaved = lanes.stride != 1 && weights.dims().iter().any(inside);
        let panel = match packs_late {
            true => kernel.nr * if interleaved { k } else { k.min(KC) },
            false => 0,
        };
        let sums = if here { 0 } else { rows * cols };
        Some(Windowed {
            kernel,
            scan,
            window,
            groups: gemm.lhs.batch,
            counts,
            slots: threads,
            block,
            cols,
            here,
            packs_late,
            dst,
            shape: [problem.batch, m, n, k],
            panel,
            elements: [panel + band, sums],
        })
    }

    /// Elements of the weights of a group that are packed before.
    fn panel_elements(&self) -> usize {
        if self.packs_late {
            return 0;
        }
        let [_, _, n, k] = self.shape;
        n.next_multiple_of(self.kernel.nr) * k
    }

    /// What a run needs: the packed weights, then a band and a block of sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let of = |elements: usize| elements * self.kernel.form.element_bytes();
        let pair = self.elements.map(of);
        let pairs = std::iter::repeat_n(pair, self.slots).flatten();
        let panels = std::iter::once(of(self.shape[0] * self.panel_elements())).chain(pairs).collect();
        Scratch { panels, ..Scratch::default() }
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
            (sums, _) => unreachable!("sums of {sums} through windows"),
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
        let Source::Floats { words, start: first } = run.lhs else {
            unreachable!("an input in the format of sums")
        };
        let data = T::own(words).expect("an input in the format of sums");
        let (packed, scratch) = workspace.panels.split_first().expect("room for the weights");
        let mut work = || {
            let mut packed = packed.write().unwrap_or_else(PoisonError::into_inner);
            let panels = packed.as_mut_slice::<T>(self.shape[0] * self.panel_elements());
            if !self.packs_late {
                self.pack_weights(run, panels);
            }
            let job = Job {
                windowed: self,
                data,
                start: first as isize,
                run,
                panels,
                add: run.accum == Accum::Add,
                epilogue: &epilogue,
                scratch,
            };
            let grains = [1, self.kernel.mr, self.kernel.nr];
            const CHECKED: &str = "the view and the plan were checked";
            if self.here {
                let dst = bytemuck::cast_slice_mut(dst);
                let dst = MatMut::new(dst, start as isize, &self.dst).expect(CHECKED);
                split(dst, self.counts, grains, &|dst| job.part_here(dst));
            } else {
                let dst = MatMut::new(dst, start as isize, &self.dst).expect(CHECKED);
                split(dst, self.counts, grains, &|dst| job.part_apart::<W>(dst));
            }
        };
        match threads {
            Threads::Pool(pool) if self.counts != [1; 3] => pool.install(work),
            _ => work(),
        }
    }

    /// Packs the weights of all groups: `[group][panel][k][lane]`.
    fn pack_weights<T: bytemuck::Pod + Send>(&self, run: &Run<'_>, panels: &mut [T]) {
        let [groups, _, n, k] = self.shape;
        let (kernel, of_group) = (self.kernel, n.div_ceil(self.kernel.nr));
        let pack_one = |unit: usize, out: &mut [T]| {
            let (group, panel) = (unit / of_group, unit % of_group);
            let (window, operand) = weights(run, group);
            let x = panel * kernel.nr..n.min((panel + 1) * kernel.nr);
            let out = bytemuck::cast_slice_mut(out);
            pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, x, 0..k, kernel.nr, out);
        };
        share(0..groups * of_group, panels, self.counts.iter().product(), kernel.nr * k, &pack_one);
    }
}

/// How the weights of a group are read.
fn weights<'a>(run: &Run<'a>, group: usize) -> (Window, Operand<'a>) {
    let (operand, start) = match run.rhs {
        Source::Floats { words, start } => (Operand::floats(words), start),
        Source::Coded { operand, start, .. } => (operand, start),
        Source::Packed { .. } => unreachable!("weights are packed here"),
    };
    let mut window = run.gemm.rhs.window;
    window.start += start as isize + run.gemm.rhs.batch.offset(group);
    (window, operand)
}

struct Job<'a, T> {
    windowed: &'a Windowed,
    data: &'a [T],
    start: isize,
    run: &'a Run<'a>,
    panels: &'a [T],
    add: bool,
    epilogue: &'a Epilogue<'a, T>,
    scratch: &'a [std::sync::RwLock<tile25_kernels::buf::Buf>],
}

impl<'a, T: Real + Bands> Job<'a, T> {
    /// Goes over positions block by block: `block` gets each with the elements and the window that read it.
    fn blocks(
        &self,
        group: usize,
        rows: Range<usize>,
        band: &mut [T],
        mut block: impl FnMut(&[T], &Window, Range<usize>),
    ) {
        let Windowed { kernel, scan, window, groups, block: how, .. } = self.windowed;
        let start = self.start + groups.offset(group);
        let mut row = rows.start;
        while row < rows.end {
            let now = row..how.end(scan, row, rows.end);
            row = now.end;
            if let Block::Rows(_) = how {
                block(self.data, &Window { start: window.start + start, ..*window }, now);
            } else {
                let place = scan.band(now.clone());
                copy_band(kernel.isa, scan, &place, self.data, start, band);
                block(band, &place.window, now);
            }
        }
    }

    /// The weights of a group: packed before, or to be packed as `late` says into its panel.
    fn weights<'b>(
        &'b self,
        group: usize,
        late: &'b mut (Window, Operand<'a>, &mut [T]),
    ) -> Weights<'b, 'b, T> {
        if self.windowed.packs_late {
            return Weights::Pack(&late.0, late.1, &mut *late.2);
        }
        let len = self.windowed.panel_elements();
        Weights::Packed(&self.panels[group * len..][..len])
    }

    /// The panel of weights in the scratch of a part, and the band.
    fn divide<'b>(&self, band: &'b mut Buf) -> (&'b mut [T], &'b mut [T]) {
        band.as_mut_slice(self.windowed.elements[0]).split_at_mut(self.windowed.panel)
    }

    fn part_here(&self, mut dst: MatMut<'_, T>) {
        let (rows, cols, isa) = (dst.rows(), dst.cols(), self.windowed.kernel.isa);
        let (mut band, _sums) = free_pair(self.scratch);
        let (panel, band) = self.divide(&mut band);
        for group in dst.batch() {
            let (window, operand) = weights(self.run, group);
            let late = &mut (window, operand, &mut *panel);
            self.blocks(group, rows.clone(), band, |data, window, rows| {
                let at = [group, rows.start, cols.start];
                let mut windows = Windows {
                    data,
                    window,
                    rows: rows.clone(),
                    k: 0..self.windowed.shape[3],
                    by_column: false,
                    weights: self.weights(group, late),
                    cols: cols.clone(),
                    dst: &mut dst,
                    at,
                    add: self.add,
                };
                windows.compute(isa);
                T::finish_in_place(isa, self.epilogue, &mut dst.tile(group, rows, cols.clone()));
            });
        }
    }

    fn part_apart<W: FinishFrom<T>>(&self, mut dst: MatMut<'_, W>) {
        let (rows, cols, isa) = (dst.rows(), dst.cols(), self.windowed.kernel.isa);
        let (mut band, mut sums) = free_pair(self.scratch);
        let sums = sums.as_mut_slice::<T>(self.windowed.elements[1]);
        let (panel, band) = self.divide(&mut band);
        for group in dst.batch() {
            let (window, operand) = weights(self.run, group);
            let late = &mut (window, operand, &mut *panel);
            self.blocks(group, rows.clone(), band, |data, window, rows| {
                for j in cols.clone().step_by(self.windowed.cols) {
                    let cols = j..cols.end.min(j + self.windowed.cols);
                    let (m, n) = (rows.len(), cols.len());
                    let places = Places::new(MatSpec {
                        start: 0,
                        batch: Axis::strided(1, 0),
                        rows: Axis::strided(m, n as isize),
                        cols: Axis::strided(n, 1),
                    });
                    let mut sums = MatMut::new(&mut *sums, 0, &places).expect("room for a block of sums");
                    let mut tile = dst.tile(group, rows.clone(), cols.clone());
                    if self.add {
                        let format = self.epilogue.target.format();
                        W::widen_into(format, &mut tile, &mut sums.tile(0, 0..m, 0..n));
                    }
                    let mut windows = Windows {
                        data,
                        window,
                        rows: rows.clone(),
                        k: 0..self.windowed.shape[3],
                        by_column: false,
                        weights: self.weights(group, late),
                        cols,
                        dst: &mut sums,
                        at: [0; 3],
                        add: self.add,
                    };
                    windows.compute(isa);
                    W::finish_into(isa, self.epilogue, &mut sums.tile(0, 0..m, 0..n), &mut tile);
                }
            });
        }
    }
}
