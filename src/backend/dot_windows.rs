//! Executes a convolution over a window of its input by a dot product, of four 8-bit integers or of two bf16, or by multiply-adds of f32 in the same loops: rows of the product are positions, columns are channels.
//!
//! ```text
//! the weights packed, unless they were before
//! for each block of lines of positions, for each group
//!   their input copied to a band: channels innermost, padded by what stands for zero; of bf16 pair by pair, and the least exponent noted
//!   for each segment of k, for each panel of weights, for each line: microkernels read the band where it is
//!   of integers zero points made good; the epilogue
//! ```
//!
//! What a row meets lies in runs: all channels of a line of the kernel, or of one kernel position where those lie apart. A run begins with a unit of its own in the panels
//! of weights. Of integers the last unit is filled up with zeros, so that channels may be any number; of bf16 there are whole units, for what stands behind a run may be a NaN.
//!
//! Scratch: the packed weights, and for each thread a band of some [`BAND_ELEMENTS`] and a block of sums, as [`super::windows`] has them.

use std::ops::Range;
use std::sync::RwLock;

use bytemuck::Pod;
use tile25_kernels::KC;
use tile25_kernels::axis::Axis;
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::{Finish, FinishFrom};
use tile25_kernels::format::{Format, Words, WordsMut};
use tile25_kernels::gemm::{Lines, Write};
use tile25_kernels::mat::{MatMut, Places};
use tile25_kernels::pack::{
    Operand, PANEL_WIDTH, Side, Zero, copy_band, copy_byte_band, copy_pair_band, pack,
};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::{Band, Scan};

use crate::epilogue::Accum;
use crate::workspace::{Progress, Scratch};

use super::block::Block;
use super::dot_parts::operand;
use super::dots::Dots;
use super::fork::{evenly, free_pair, share, worth};
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Finishing, Place, Sums, scratch};
use super::tile::{Run, Source};
use super::windows::wide_panel;

/// Elements of a band, about: as many as one of f32 has.
const BAND_ELEMENTS: usize = super::block::BAND_BYTES / 4;
/// Most bytes of a block of sums.
const SUMS_BYTES: usize = 256 * 1024;
/// Lines of positions that meet a panel of weights one after the other.
const LINES: usize = 64;
/// Positions of a line at once; a longer one counts as several.
const ACROSS: usize = 512;
/// Bytes of k of integers that do: of 48 columns they take 36 KiB of a first-level cache.
const SEGMENT: usize = 768;
/// Runs of a segment at most, with those that it has a part of.
const RUNS: usize = 32;
/// Bytes behind a band that the last unit of a run may read; the weights there are zeros.
const SLACK: usize = 4;
/// What lines of positions of a part meet of padding, in terms of all of k, from which on it is left out: the weights are read once more for it. Not swept.
const LEAST_LEFT_OUT: f64 = 16.0;
/// Rows whose sums are looked up at once.
const ROWS: usize = 128;

impl Dots {
    /// Segments of k, of `count` runs of `run` elements. Those of floats are what N1 says; sums of integers are exact in any order.
    fn segments(self, run: usize, count: usize) -> Option<Vec<Range<usize>>> {
        let k = run * count;
        let segments: Vec<_> = match self {
            Dots::Bytes(_) if run <= SEGMENT => {
                let each = (SEGMENT / run).min(RUNS) * run;
                (0..k).step_by(each).map(|from| from..k.min(from + each)).collect()
            }
            Dots::Bytes(_) => {
                let each = run.div_ceil(4).div_ceil(run.div_ceil(SEGMENT)) * 4;
                let of_run = |first: usize| {
                    (0..run).step_by(each).map(move |from| first + from..first + run.min(from + each))
                };
                (0..k).step_by(run).flat_map(of_run).collect()
            }
            Dots::Pairs(_) | Dots::Floats(_) => {
                (0..k).step_by(KC).map(|from| from..k.min(from + KC)).collect()
            }
        };
        let fits = |k: &Range<usize>| pieces(run, k.clone()).count() <= RUNS;
        segments.iter().all(fits).then_some(segments)
    }
}

/// The runs, of `run` elements each, of which steps `k` have a part: which run, from which of its elements on, and how many.
fn pieces(run: usize, k: Range<usize>) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = k.end;
    let next = move |from: usize| from + (run - from % run).min(end - from);
    let all = std::iter::successors(Some(k.start), move |&from| Some(next(from)));
    all.take_while(move |&from| from < end).map(move |from| (from / run, from % run, next(from) - from))
}

/// A planned convolution over a window, line by line.
#[derive(Clone, Debug)]
pub(crate) struct DotWindows {
    kernel: Kernel,
    dots: Dots,
    scan: Scan,
    groups: Axis,
    place: Place,
    slots: usize,
    block: Block,
    /// Columns of a panel.
    width: usize,
    /// Columns of a block, and the lines whose sums stand apart at once.
    cols: usize,
    lines: usize,
    /// Groups, channels, k.
    shape: [usize; 3],
    /// Elements of a run, and from a run's kernel position to the next run's.
    run: usize,
    taps: usize,
    segments: Vec<Range<usize>>,
    /// Whether lines of f32 leave out what is padding for all of them, if the weights are finite.
    leaves_out: bool,
    /// Bytes of a band, and of sums.
    pair: [usize; 2],
    /// Turns codes of i8 to those of u8.
    flip: u8,
}

impl DotWindows {
    /// Plans `gemm`, whose lhs reads what `scan` goes over; `None` where others have to execute it.
    pub(crate) fn new(gemm: &Gemm, scan: Scan, kernel: Kernel, threads: usize) -> Option<Self> {
        let (problem, places) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        let dots = Dots::new(kernel).filter(|_| problem.k > 0)?;
        match dots {
            Dots::Bytes(bytes) if bytes.tiles().is_some() => return None,
            Dots::Pairs(_) if formats.lhs != Format::Bf16 || !scan.channels.0.is_multiple_of(2) => {
                return None;
            }
            Dots::Floats(_) if formats.lhs != Format::F32 => return None,
            _ => {}
        }
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let threads = worth(problem.macs(), threads);
        let width = wide_panel(n, kernel.nr);
        let counts = evenly(problem.batch, [m, n], [kernel.mr, width], threads);
        let here = formats.out == formats.sums && places.band_stride().is_some();
        let scan = Scan { pitch: scan.channels.0, ..scan };
        let across = scan.axes[2];
        // The channels of kernel positions side by side lie one behind the other.
        let taps = if across.tap_step == 1 { across.taps } else { 1 };
        let run = taps * scan.channels.0;
        let segments = dots.segments(run, k / run)?;
        // As if it were one of several strips: a band is as much smaller.
        let strips = super::block::BAND_BYTES / BAND_ELEMENTS;
        let scan = Block::held_apart(&scan, strips, 1);
        let (block, _, bands) = Block::copied(&scan, strips, 1)?;
        let padded = n.next_multiple_of(width);
        let most = across.positions.min(ACROSS) * size_of::<i32>();
        let cols = match here {
            true => padded,
            false => (SUMS_BYTES / most / width * width).clamp(width, padded),
        };
        let lines = if here { LINES } else { (SUMS_BYTES / (most * cols)).clamp(1, LINES) };
        let sums = if here { 0 } else { lines * most * cols };
        Some(DotWindows {
            kernel,
            dots,
            scan,
            groups: gemm.lhs.batch,
            place: Place { places, here, counts, grains: [1, kernel.mr, width] },
            slots: threads,
            block,
            width,
            cols,
            lines,
            shape: [problem.batch, n, k],
            run,
            taps,
            segments,
            leaves_out: matches!(dots, Dots::Floats(_))
                && scan.padding_of_lines() * m as f64 > LEAST_LEFT_OUT * threads as f64,
            pair: [bands / strips * formats.lhs.bytes() + SLACK, sums],
            flip: if formats.lhs == Format::I8 { 0x80 } else { 0 },
        })
    }

    /// Elements of a unit.
    fn of_unit(&self) -> usize {
        self.kernel.form.unit().1
    }

    /// Bytes of an element.
    fn bytes(&self) -> usize {
        size_of::<u32>() / self.of_unit()
    }

    /// The row of units of a panel that step `k`, the first of a unit, meets.
    fn line_of(&self, k: usize) -> usize {
        k / self.run * self.run.div_ceil(self.of_unit()) + k % self.run / self.of_unit()
    }

    /// Rows of units of a panel: those of all runs, then its tail.
    fn panel_lines(&self) -> usize {
        let ([.., k], (_, _, tail)) = (self.shape, self.kernel.form.unit());
        self.line_of(k) + tail
    }

    fn panel_bytes(&self) -> usize {
        self.panel_lines() * self.width * size_of::<u32>()
    }

    /// Bytes of the packed weights of all groups.
    pub(crate) fn packed_bytes(&self) -> usize {
        let [groups, n, _] = self.shape;
        groups * n.div_ceil(self.width) * self.panel_bytes()
    }

    /// What a run needs: the packed weights, then a band and a block of sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        scratch(self.packed_bytes(), self.pair, self.slots)
    }

    /// The steps of k before and after which all that a line of positions meets is padding.
    fn inside(&self, line: usize) -> Range<usize> {
        let (taps, across) = (self.scan.taps_inside(line), self.scan.axes[2].taps * self.scan.channels.0);
        taps.start * across..taps.end * across
    }

    /// Packs the weights of all groups, which `reader` reads: `[group][panel][unit][lane]`, behind the units of a panel its tail.
    pub(crate) fn pack_weights(
        &self,
        reader: &Reader,
        source: &Source<'_>,
        threads: usize,
        panels: &mut [u8],
    ) {
        let [_, n, k] = self.shape;
        let (kernel, width) = (self.kernel, self.width);
        let (of_group, bytes, line) = (n.div_ceil(width), self.panel_bytes(), width * size_of::<u32>());
        let whole = self.run.is_multiple_of(self.of_unit());
        let pack_one = |unit: usize, out: &mut [u8]| {
            let (group, panel) = (unit / of_group, unit % of_group);
            let (operand, window) = operand(source, reader, group).expect("weights are packed here");
            let x = panel * width..n.min((panel + 1) * width);
            if whole {
                return pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, x, 0..k, width, out);
            }
            // Integers: each run leaves its tail where the next begins.
            let (mut sums, mut at) = ([0i32; PANEL_WIDTH], 0);
            for from in (0..k).step_by(self.run) {
                let steps = from..from + self.run;
                let lines = steps.len().div_ceil(self.of_unit());
                let out = &mut out[at * line..];
                pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, x.clone(), steps, width, out);
                let tail: &[i32] = bytemuck::cast_slice(&out[(lines + 1) * line..][..line]);
                sums.iter_mut().zip(tail).for_each(|(sum, more)| *sum = sum.wrapping_add(*more));
                at += lines;
            }
            let tail: &mut [i32] = bytemuck::cast_slice_mut(&mut out[(at + 1) * line..][..line]);
            tail.copy_from_slice(&sums[..width]);
        };
        share(0..panels.len() / bytes, panels, threads, bytes, &pack_one);
    }

    /// Computes the product into `dst`. Allocates nothing.
    ///
    /// # Panics
    /// If an operand, the result or the workspace is not what this was planned for; callers check.
    pub(crate) fn run(&self, call: &Call<'_>, dst: WordsMut<'_>) {
        match (self.dots, dst) {
            (Dots::Bytes(_), WordsMut::I32(dst)) => self.typed::<i32, i32>(call, dst),
            (Dots::Bytes(_), WordsMut::F32(dst)) => self.typed::<i32, f32>(call, dst),
            (Dots::Bytes(_), WordsMut::U16(dst)) => self.typed::<i32, u16>(call, dst),
            (Dots::Bytes(_), WordsMut::U8(dst)) => self.typed::<i32, u8>(call, dst),
            (Dots::Pairs(_) | Dots::Floats(_), WordsMut::F32(dst)) => self.typed::<f32, f32>(call, dst),
            (Dots::Pairs(_) | Dots::Floats(_), WordsMut::U16(dst)) => self.typed::<f32, u16>(call, dst),
            (Dots::Pairs(_) | Dots::Floats(_), WordsMut::U8(dst)) => self.typed::<f32, u8>(call, dst),
            (dots, _) => unreachable!("no such result of {dots:?}"),
        }
    }

    fn typed<T: DotSum, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        let pack = |panels: &mut [u8]| {
            self.pack_weights(&run.gemm.rhs, &run.rhs, self.place.counts.iter().product(), panels);
        };
        let (bytes, scratch, progress) = (self.packed_bytes(), call.scratch(), &call.workspace.progress);
        self.place.execute(call, dst, &run.rhs, bytes, pack, |panels, part: Sums<'_, T, W>| {
            let panels = bytemuck::cast_slice(panels);
            Job { windows: self, run, panels, finishing, scratch, progress }.part(part);
        });
    }
}

/// Where a block of a result lies: its batch, rows and columns.
type To<'m, 'a, T> = (&'m mut MatMut<'a, T>, usize, Range<usize>, Range<usize>);

/// What sums of products of units are kept in, and what is done where units differ.
trait DotSum: Finish<Param = f32> + Pod {
    /// Copies what `place` is of to `band`. Returns what is to be known of it: of integers the code of padding, of bf16 the least exponent.
    fn copy(windows: &DotWindows, place: &Band, operand: Operand<'_>, start: isize, band: &mut [u8]) -> i32;

    /// Multiplies a segment of some lines, of which `known` is known, by panels, met from a row of units on; see [`multiply_lines`](tile25_kernels::gemm::PairKernel::multiply_lines).
    fn multiply_lines(
        windows: &DotWindows,
        lhs: (Lines<'_, '_>, i32),
        panels: (&[u8], usize),
        to: To<'_, '_, Self>,
        write: Write,
    ) -> [usize; 2];

    /// Completes the sums of the rows of `here` by the columns of `panels`.
    fn make_good(_windows: &DotWindows, _here: &Here<'_>, _panels: &[u8], _to: To<'_, '_, Self>) {}
}

impl DotSum for i32 {
    fn copy(windows: &DotWindows, place: &Band, operand: Operand<'_>, start: isize, band: &mut [u8]) -> i32 {
        let DotWindows { kernel, ref scan, flip, .. } = *windows;
        let Words::U8(data) = operand.words else { unreachable!("8-bit integers") };
        let Zero::Tensor(zero) = operand.zero else { unreachable!("an input has one zero point") };
        let pad = zero as u8 ^ flip;
        copy_byte_band(kernel.isa, scan, place, (data, start), [flip, pad], band);
        pad.into()
    }

    fn multiply_lines(
        windows: &DotWindows,
        (lhs, _): (Lines<'_, '_>, i32),
        (panels, at): (&[u8], usize),
        to: To<'_, '_, i32>,
        write: Write,
    ) -> [usize; 2] {
        let Dots::Bytes(bytes) = windows.dots else { unreachable!("sums of bytes") };
        bytes.multiply_lines(lhs, (panels, windows.width, windows.panel_lines(), at), to, write);
        [0; 2]
    }

    /// Zero points, by what the tails of panels say.
    fn make_good(
        windows: &DotWindows,
        here: &Here<'_>,
        panels: &[u8],
        (dst, batch, rows, cols): To<'_, '_, i32>,
    ) {
        let Dots::Bytes(bytes) = windows.dots else { unreachable!("sums of bytes") };
        let (of_panel, lines, width) = (windows.panel_bytes(), windows.panel_lines(), windows.width);
        for (panel, col) in cols.clone().step_by(width).enumerate() {
            let cols = col..cols.end.min(col + width);
            let panel: &[i32] = bytemuck::cast_slice(&panels[panel * of_panel..][..of_panel]);
            let (zeros, sums) = panel[(lines - 2) * width..].split_at(width);
            let (zeros, sums) = (&zeros[..cols.len()], &sums[..cols.len()]);
            let by_rows = zeros.iter().any(|&zero| zero != 0);
            if here.known == 0 && !by_rows {
                continue;
            }
            let mut first = rows.start;
            for &(start, count) in here.lines {
                for from in (0..count).step_by(ROWS) {
                    let count = ROWS.min(count - from);
                    let mut row_sums = [0; ROWS];
                    if by_rows {
                        let line = [(start + (from * here.apart) as isize, count)];
                        for segment in &windows.segments {
                            let mut runs = [(0, 0); RUNS];
                            let runs = windows.runs(here, segment, 1, &mut runs);
                            let lhs = Lines { data: here.data, lines: &line, apart: here.apart, runs };
                            bytes.add_line_sums(lhs, &mut row_sums[..count]);
                        }
                    }
                    let to = (&mut *dst, batch, first..first + count, cols.clone());
                    bytes.make_good(to, Zero::Tensor(here.known), &row_sums, zeros, sums);
                    first += count;
                }
            }
        }
    }
}

impl DotSum for f32 {
    fn copy(windows: &DotWindows, place: &Band, operand: Operand<'_>, start: isize, band: &mut [u8]) -> i32 {
        let (isa, scan) = (windows.kernel.isa, &windows.scan);
        match operand.words {
            Words::U16(data) => {
                copy_pair_band(isa, scan, place, (data, start), bytemuck::cast_slice_mut(band))
            }
            Words::F32(data) => {
                copy_band(isa, scan, place, data, start, bytemuck::cast_slice_mut(band));
                0
            }
            _ => unreachable!("bf16 or f32"),
        }
    }

    fn multiply_lines(
        windows: &DotWindows,
        (lhs, least): (Lines<'_, '_>, i32),
        (panels, at): (&[u8], usize),
        to: To<'_, '_, f32>,
        write: Write,
    ) -> [usize; 2] {
        let pairs = match windows.dots {
            Dots::Pairs(pairs) => pairs,
            Dots::Floats(floats) => {
                floats.multiply_lines(lhs, (panels, windows.width, windows.panel_lines(), at), to, write);
                return [0; 2];
            }
            Dots::Bytes(_) => unreachable!("sums of bytes are integers"),
        };
        let least = [least; LINES];
        let lhs = (lhs, &least[..lhs.lines.len()]);
        pairs.multiply_lines(lhs, (panels, windows.width, windows.panel_lines(), at), to, write)
    }
}

impl DotWindows {
    /// Where the runs of steps of a segment lie from the lowest on, in bytes, each as long as so many `grains` of bytes as hold it. `runs` has room for them.
    fn runs<'r>(
        &self,
        here: &Here<'_>,
        steps: &Range<usize>,
        grain: usize,
        runs: &'r mut [(usize, usize); RUNS],
    ) -> &'r [(usize, usize)] {
        let (bytes, mut count) = (self.bytes(), 0);
        for ((run, from, len), to) in pieces(self.run, steps.clone()).zip(&mut *runs) {
            let at = (here.taps.offset(run * self.taps) - here.lowest) as usize + from;
            *to = (at * bytes, (len * bytes).next_multiple_of(grain));
            count += 1;
        }
        &runs[..count]
    }
}

struct Job<'a> {
    windows: &'a DotWindows,
    run: &'a Run<'a>,
    panels: &'a [u8],
    finishing: Finishing<'a, f32>,
    scratch: &'a [RwLock<Buf>],
    progress: &'a Progress,
}

/// Where rows of a band begin and how far its runs lie from there.
struct Here<'a> {
    data: &'a [u8],
    /// What is known of the band.
    known: i32,
    /// Where the lowest run of each line of rows begins, and how many rows it has, in bytes; from a row to the next.
    lines: &'a [(isize, usize)],
    /// The steps of k of each line before and after which all of it is padding; only such as may be left out.
    inside: &'a [Range<usize>],
    apart: usize,
    taps: &'a Axis,
    /// Where the lowest run begins, from where its row does.
    lowest: isize,
}

impl Job<'_> {
    /// Whether no weight of a group is infinite or a NaN, if weights are f32.
    fn is_finite(&self, group: usize) -> bool {
        let [_, n, _] = self.windows.shape;
        let bytes = n.div_ceil(self.windows.width) * self.windows.panel_bytes();
        match self.windows.dots {
            Dots::Floats(floats) => floats.all_finite(&self.panels[group * bytes..][..bytes]),
            _ => false,
        }
    }

    fn part<T: DotSum, W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let DotWindows { ref scan, groups, block, cols: at_a_time, lines, pair, run, taps, .. } =
            *self.windows;
        let (bytes, [.., k]) = (self.windows.bytes(), self.windows.shape);
        let (operand, first) = self.run.lhs.operand().expect("the input was not packed before");
        let [of_groups, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch, self.windows.slots);
        let (band, sums) = (band.as_mut_slice::<u8>(pair[0]), sums.as_mut_slice::<u8>(pair[1]));
        let sums: &mut [T] = bytemuck::cast_slice_mut(sums);
        let width = scan.axes[2].positions;
        for group in of_groups {
            let start = first as isize + groups.offset(group);
            let leaves_out = self.windows.leaves_out && self.is_finite(group);
            let mut row = rows.start;
            while row < rows.end {
                let of_band = row..block.end(scan, row, rows.end);
                let place = scan.band(of_band.clone());
                let known = T::copy(self.windows, &place, operand, start, band);
                // Lines are counted from the lowest of their runs.
                let lowest = (0..k / run).map(|i| place.taps.offset(i * taps)).min().unwrap_or(0);
                while row < of_band.end {
                    let (mut begins, mut count) = ([(0, 0); LINES], 0);
                    let mut inside = [const { 0..0 }; LINES];
                    let from = row;
                    while row < of_band.end && count < lines {
                        let end = of_band.end.min((row / width + 1) * width).min(row + ACROSS);
                        let begin = place.window.start + place.window.x.offset(row) + lowest;
                        begins[count] = (begin * bytes as isize, end - row);
                        inside[count] = if leaves_out { self.windows.inside(row / width) } else { 0..k };
                        (row, count) = (end, count + 1);
                    }
                    let here = Here {
                        data: band,
                        known,
                        lines: &begins[..count],
                        inside: &inside[..count],
                        apart: scan.axes[2].step as usize * scan.pitch * bytes,
                        taps: &place.taps,
                        lowest,
                    };
                    for j in cols.clone().step_by(at_a_time) {
                        let (rows, cols) = (from..row, j..cols.end.min(j + at_a_time));
                        let to = (rows.len(), cols.clone());
                        part.block(group, rows, cols, self.finishing, sums, |dst, at| {
                            self.block(group, &here, to, dst, at);
                        });
                    }
                }
            }
        }
    }

    /// Some lines by some columns into `dst`, where they begin `at`.
    fn block<T: DotSum>(
        &self,
        group: usize,
        here: &Here<'_>,
        (m, cols): (usize, Range<usize>),
        dst: &mut MatMut<'_, T>,
        [batch, row, col]: [usize; 3],
    ) {
        let DotWindows { width, shape: [_, n, _], ref segments, .. } = *self.windows;
        let (of_group, panels) = (n.div_ceil(width), cols.len().div_ceil(width));
        let of_panel = self.windows.panel_bytes();
        let at = (group * of_group + cols.start / width) * of_panel;
        let panels_here = &self.panels[at..at + panels * of_panel];
        let (to_rows, to_cols) = (row..row + m, col..col + cols.len());
        let mut write = if self.finishing.accum == Accum::Add { Write::Add } else { Write::Replace };
        for segment in segments {
            // Lines that leave out the same padding go together.
            let (mut first, mut row) = (0, to_rows.start);
            for together in here.inside.chunk_by(|a, b| a == b) {
                let lines = &here.lines[first..first + together.len()];
                let rows = row..row + lines.iter().map(|line| line.1).sum::<usize>();
                (first, row) = (first + together.len(), rows.end);
                let Range { start, end } = together[0];
                let steps =
                    segment.start.max(start).min(segment.end)..segment.end.min(end).max(segment.start);
                let mut runs = [(0, 0); RUNS];
                let runs = self.windows.runs(here, &steps, size_of::<u32>(), &mut runs);
                let lhs = Lines { data: here.data, lines, apart: here.apart, runs };
                let of_segment = (panels_here, self.windows.line_of(steps.start));
                let to = (&mut *dst, batch, rows, to_cols.clone());
                let [pairs, widened] =
                    T::multiply_lines(self.windows, (lhs, here.known), of_segment, to, write);
                self.progress.count(pairs, widened);
            }
            write = Write::Add;
        }
        T::make_good(self.windows, here, panels_here, (dst, batch, to_rows, to_cols));
    }
}

#[cfg(test)]
mod tests {
    use tile25_kernels::registry::kernels_of;

    use super::*;

    #[test]
    fn segments_hold_every_element_once() {
        let isa = tile25_kernels::Isa::detect();
        for (run, count) in [(1, 1), (21, 7), (192, 3), (768, 3), (770, 2), (1536, 3), (4, 1000), (5000, 1)] {
            for dots in kernels_of(isa).filter_map(Dots::new) {
                if matches!(dots, Dots::Pairs(_)) && run % 2 != 0 {
                    continue; // no whole pairs: not asked for
                }
                let Some(segments) = dots.segments(run, count) else {
                    assert!(!matches!(dots, Dots::Bytes(_)) && run < KC / (RUNS - 1));
                    continue;
                };
                let (unit, most, mut end) = match dots {
                    Dots::Bytes(_) => (4, SEGMENT + 4, 0),
                    Dots::Pairs(_) => (2, KC, 0),
                    Dots::Floats(_) => (1, KC, 0),
                };
                for segment in segments {
                    assert_eq!(segment.start, end);
                    for (i, from, len) in pieces(run, segment.clone()) {
                        assert_eq!(i * run + from, end);
                        assert!(from.is_multiple_of(unit) && len > 0 && from + len <= run);
                        end += len;
                    }
                    assert_eq!(segment.end, end);
                    assert!(segment.len() <= most);
                }
                assert_eq!(end, run * count);
            }
        }
    }
}
