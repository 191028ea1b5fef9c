//! Executes a convolution of 8-bit integers over a window of its input by the dot product of four bytes: rows of the product are positions, columns are channels.
//!
//! ```text
//! the weights packed, unless they were before
//! for each block of lines of positions, for each group
//!   their input copied to a band: channels innermost, padded by the zero point
//!   for each segment of k, for each panel of weights, for each line: microkernels read the band where it is
//!   zero points made good; the epilogue
//! ```
//!
//! The bytes that a row meets lie in runs: all channels of a line of the kernel, or of one kernel position where those lie apart. A run begins with four bytes of its own in the panels
//! of weights, whose last unit is filled up with zeros, so that channels may be any number.
//!
//! Scratch: the packed weights, and for each thread a band of some [`BAND_BYTES`] and a block of sums, as [`super::windows`] has them.

use std::ops::Range;
use std::sync::RwLock;

use tile25_kernels::axis::Axis;
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::{Format, Words, WordsMut};
use tile25_kernels::gemm::{ByteKernel, ByteLines, Write};
use tile25_kernels::mat::{MatMut, Places};
use tile25_kernels::pack::{Form, Side, Zero, copy_byte_band, pack};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::block::Block;
use super::bytes::operand;
use super::fork::{evenly, free_pair, share, worth};
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Finishing, Place, Sums, scratch};
use super::tile::{Run, Source};

/// Bytes of a band, about: a quarter of what one of floats takes, with as many lines.
const BAND_BYTES: usize = super::block::BAND_BYTES / 4;
/// Most bytes of a block of sums.
const SUMS_BYTES: usize = 256 * 1024;
/// Lines of positions that meet a panel of weights one after the other.
const LINES: usize = 64;
/// Positions of a line at once; a longer one counts as several.
const ACROSS: usize = 512;
/// Bytes of k that do: of 48 columns they take 36 KiB of a first-level cache.
const SEGMENT: usize = 768;
/// Runs of a segment at most.
const RUNS: usize = 32;
/// Bytes behind a band that the last unit of a run may read; the weights there are zeros.
const SLACK: usize = 4;
/// Rows whose sums are looked up at once.
const ROWS: usize = 128;

/// Runs of k, or a piece of one, that a microkernel goes through together.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Which runs.
    first: usize,
    count: usize,
    /// Which bytes of each.
    from: usize,
    len: usize,
    /// The row of units of a panel that they meet first.
    at: usize,
}

/// A planned convolution of bytes over a window.
#[derive(Clone, Debug)]
pub(crate) struct ByteWindows {
    kernel: Kernel,
    bytes: ByteKernel,
    scan: Scan,
    groups: Axis,
    place: Place,
    slots: usize,
    block: Block,
    /// Columns of a block, and the lines whose sums stand apart at once.
    cols: usize,
    lines: usize,
    /// Groups, channels, k.
    shape: [usize; 3],
    /// Bytes of a run, and from a run's kernel position to the next run's.
    run: usize,
    taps: usize,
    segments: Vec<Segment>,
    /// Bytes of a band, and of sums.
    pair: [usize; 2],
    /// Turns codes of i8 to those of u8.
    flip: u8,
}

impl ByteWindows {
    /// Plans `gemm`, whose lhs reads what `scan` goes over; `None` where others have to execute it.
    pub(crate) fn new(gemm: &Gemm, scan: Scan, kernel: Kernel, threads: usize) -> Option<Self> {
        let (problem, places) = (&gemm.problem, Places::new(gemm.dst));
        let bytes = ByteKernel::new(kernel.isa, [kernel.mr, kernel.nr])?;
        if kernel.form != Form::I8x4 || bytes.tiles().is_some() || problem.k == 0 {
            return None;
        }
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let threads = worth(problem.macs(), threads);
        let counts = evenly(problem.batch, [m, n], [kernel.mr, kernel.nr], threads);
        let formats = problem.formats;
        let here = formats.out == formats.sums && places.band_stride().is_some();
        let scan = Scan { pitch: scan.channels.0, ..scan };
        let width = scan.axes[2];
        // The channels of kernel positions side by side lie one behind the other.
        let taps = if width.tap_step == 1 { width.taps } else { 1 };
        let run = taps * scan.channels.0;
        // As if it were one of several strips: a band is as much smaller.
        let strips = super::block::BAND_BYTES / BAND_BYTES;
        let scan = Block::held_apart(&scan, strips, 1);
        let (block, _, bands) = Block::copied(&scan, strips, 1)?;
        let padded = n.next_multiple_of(kernel.nr);
        let most = width.positions.min(ACROSS) * size_of::<i32>();
        let cols = match here {
            true => padded,
            false => (SUMS_BYTES / most / kernel.nr * kernel.nr).clamp(kernel.nr, padded),
        };
        let lines = if here { LINES } else { (SUMS_BYTES / (most * cols)).clamp(1, LINES) };
        let sums = if here { 0 } else { lines * most * cols };
        Some(ByteWindows {
            kernel,
            bytes,
            scan,
            groups: gemm.lhs.batch,
            place: Place { places, here, counts, grains: [1, kernel.mr, kernel.nr] },
            slots: threads,
            block,
            cols,
            lines,
            shape: [problem.batch, n, k],
            run,
            taps,
            segments: segments(run, k / run),
            pair: [bands / strips + SLACK, sums],
            flip: if formats.lhs == Format::I8 { 0x80 } else { 0 },
        })
    }

    /// Rows of units of a panel: those of all runs, then the zero point and the sum of each column.
    fn panel_lines(&self) -> usize {
        let [_, _, k] = self.shape;
        k / self.run * self.run.div_ceil(4) + 2
    }

    fn panel_bytes(&self) -> usize {
        self.panel_lines() * self.kernel.nr * size_of::<i32>()
    }

    /// Bytes of the packed weights of all groups.
    pub(crate) fn packed_bytes(&self) -> usize {
        let [groups, n, _] = self.shape;
        groups * n.div_ceil(self.kernel.nr) * self.panel_bytes()
    }

    /// What a run needs: the packed weights, then a band and a block of sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        scratch(self.packed_bytes(), self.pair, self.slots)
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
        let (kernel, nr) = (self.kernel, self.kernel.nr);
        let (of_group, bytes, line) = (n.div_ceil(nr), self.panel_bytes(), nr * size_of::<i32>());
        let whole = self.run.is_multiple_of(4);
        let pack_one = |unit: usize, out: &mut [u8]| {
            let (group, panel) = (unit / of_group, unit % of_group);
            let (operand, window) = operand(source, reader, group).expect("weights are packed here");
            let x = panel * nr..n.min((panel + 1) * nr);
            // Each piece leaves its tail where the next begins.
            let (mut sums, mut at) = ([0i32; 64], 0);
            for from in (0..k).step_by(if whole { k } else { self.run }) {
                let steps = from..if whole { k } else { from + self.run };
                let lines = steps.len().div_ceil(4);
                let out = &mut out[at * line..];
                pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, x.clone(), steps, nr, out);
                let tail: &[i32] = bytemuck::cast_slice(&out[(lines + 1) * line..][..line]);
                sums.iter_mut().zip(tail).for_each(|(sum, more)| *sum = sum.wrapping_add(*more));
                at += lines;
            }
            let tail: &mut [i32] = bytemuck::cast_slice_mut(&mut out[(at + 1) * line..][..line]);
            tail.copy_from_slice(&sums[..nr]);
        };
        share(0..panels.len() / bytes, panels, threads, bytes, &pack_one);
    }

    /// Computes the product into `dst`. Allocates nothing.
    ///
    /// # Panics
    /// If an operand, the result or the workspace is not what this was planned for; callers check.
    pub(crate) fn run(&self, call: &Call<'_>, dst: WordsMut<'_>) {
        match dst {
            WordsMut::I32(dst) => self.typed(call, dst),
            WordsMut::F32(dst) => self.typed(call, dst),
            WordsMut::U16(dst) => self.typed(call, dst),
            WordsMut::U8(dst) => self.typed(call, dst),
            WordsMut::F64(_) => unreachable!("sums in i32 are not narrowed to f64"),
        }
    }

    fn typed<W: FinishFrom<i32>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        let pack = |panels: &mut [u8]| {
            self.pack_weights(&run.gemm.rhs, &run.rhs, self.place.counts.iter().product(), panels);
        };
        let (bytes, scratch) = (self.packed_bytes(), call.scratch());
        self.place.execute(call, dst, &run.rhs, bytes, pack, |panels, part: Sums<'_, i32, W>| {
            let panels = bytemuck::cast_slice(panels);
            Job { windows: self, run, panels, finishing, scratch }.part(part);
        });
    }
}

/// Cuts `count` runs of `run` bytes.
fn segments(run: usize, count: usize) -> Vec<Segment> {
    let (units, mut all) = (run.div_ceil(4), Vec::new());
    if run <= SEGMENT {
        let each = (SEGMENT / run).min(RUNS);
        for first in (0..count).step_by(each) {
            all.push(Segment { first, count: each.min(count - first), from: 0, len: run, at: first * units });
        }
        return all;
    }
    let each = units.div_ceil(run.div_ceil(SEGMENT)) * 4;
    for first in 0..count {
        for from in (0..run).step_by(each) {
            let len = each.min(run - from);
            all.push(Segment { first, count: 1, from, len, at: first * units + from / 4 });
        }
    }
    all
}

struct Job<'a> {
    windows: &'a ByteWindows,
    run: &'a Run<'a>,
    panels: &'a [u8],
    finishing: Finishing<'a, f32>,
    scratch: &'a [RwLock<Buf>],
}

/// Where rows of a band begin and how far its runs lie from there.
struct Rows<'a> {
    data: &'a [u8],
    begins: &'a [(isize, usize)],
    taps: &'a Axis,
}

impl Job<'_> {
    fn part<W: FinishFrom<i32>>(&self, mut part: Sums<'_, i32, W>) {
        let ByteWindows { kernel, ref scan, groups, block, cols: at_a_time, lines, pair, flip, .. } =
            *self.windows;
        let (operand, first) = self.run.lhs.operand().expect("the input was not packed before");
        let Words::U8(data) = operand.words else { unreachable!("8-bit integers") };
        let Zero::Tensor(zero) = operand.zero else { unreachable!("an input has one zero point") };
        let pad = zero as u8 ^ flip;
        let [of_groups, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch);
        let (band, sums) = (band.as_mut_slice::<u8>(pair[0]), sums.as_mut_slice::<u8>(pair[1]));
        let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
        let width = scan.axes[2].positions;
        for group in of_groups {
            let start = first as isize + groups.offset(group);
            let mut row = rows.start;
            while row < rows.end {
                let of_band = row..block.end(scan, row, rows.end);
                let place = scan.band(of_band.clone());
                copy_byte_band(kernel.isa, scan, &place, (data, start), [flip, pad], band);
                while row < of_band.end {
                    let (mut begins, mut count) = ([(0, 0); LINES], 0);
                    let from = row;
                    while row < of_band.end && count < lines {
                        let end = of_band.end.min((row / width + 1) * width).min(row + ACROSS);
                        begins[count] = (place.window.start + place.window.x.offset(row), end - row);
                        (row, count) = (end, count + 1);
                    }
                    let here = Rows { data: band, begins: &begins[..count], taps: &place.taps };
                    for j in cols.clone().step_by(at_a_time) {
                        let (rows, cols) = (from..row, j..cols.end.min(j + at_a_time));
                        let to = (rows.len(), cols.clone());
                        part.block(group, rows, cols, self.finishing, sums, |dst, at| {
                            self.block(group, &here, i32::from(pad), to, dst, at);
                        });
                    }
                }
            }
        }
    }

    /// Some lines by some columns into `dst`, where they begin `at`.
    fn block(
        &self,
        group: usize,
        here: &Rows<'_>,
        zero: i32,
        (m, cols): (usize, Range<usize>),
        dst: &mut MatMut<'_, i32>,
        [batch, row, col]: [usize; 3],
    ) {
        let ByteWindows { kernel, bytes, ref scan, shape: [_, n, k], run, taps, ref segments, .. } =
            *self.windows;
        let (lines, of_panel) = (self.windows.panel_lines(), self.windows.panel_bytes());
        let panels = &self.panels[(group * n.div_ceil(kernel.nr) + cols.start / kernel.nr) * of_panel..];
        let (to_rows, to_cols) = (row..row + m, col..col + cols.len());
        let apart = scan.axes[2].step as usize * scan.pitch;
        // Runs begin behind the lowest of them, from which lines are counted.
        let lowest = (0..k / run).map(|i| here.taps.offset(i * taps)).min().unwrap_or(0);
        let mut moved = [(0, 0); LINES];
        for (moved, line) in moved.iter_mut().zip(here.begins) {
            *moved = (line.0 + lowest, line.1);
        }
        let moved = &moved[..here.begins.len()];
        let runs_of = |segment: &Segment| -> [usize; RUNS] {
            let mut runs = [0; RUNS];
            for (i, run) in runs[..segment.count].iter_mut().enumerate() {
                *run = (here.taps.offset((segment.first + i) * taps) - lowest) as usize + segment.from;
            }
            runs
        };
        let mut write = if self.finishing.accum == Accum::Add { Write::Add } else { Write::Replace };
        for segment in segments {
            let runs = &runs_of(segment)[..segment.count];
            let lhs = ByteLines { data: here.data, lines: moved, apart, runs, len: segment.len };
            let to = (&mut *dst, batch, to_rows.clone(), to_cols.clone());
            bytes.multiply_lines(lhs, (panels, lines, segment.at), to, write);
            write = Write::Add;
        }
        // Zero points and sums of the columns: the tails of their panels.
        for (panel, j) in (0..cols.len()).step_by(kernel.nr).enumerate() {
            let width = kernel.nr.min(cols.len() - j);
            let panel: &[i32] = bytemuck::cast_slice(&panels[panel * of_panel..][..of_panel]);
            let (zeros, sums) = panel[(lines - 2) * kernel.nr..].split_at(kernel.nr);
            let (zeros, sums) = (&zeros[..width], &sums[..width]);
            let by_rows = zeros.iter().any(|&zero| zero != 0);
            if zero == 0 && !by_rows {
                continue;
            }
            let mut first = row;
            for &(start, count) in moved {
                for from in (0..count).step_by(ROWS) {
                    let count = ROWS.min(count - from);
                    let mut row_sums = [0; ROWS];
                    if by_rows {
                        let line = [(start + (from * apart) as isize, count)];
                        for segment in segments {
                            let runs = &runs_of(segment)[..segment.count];
                            let (data, lines, len) = (here.data, &line[..], segment.len);
                            let lhs = ByteLines { data, lines, apart, runs, len };
                            bytes.add_line_sums(lhs, &mut row_sums[..count]);
                        }
                    }
                    let to = (&mut *dst, batch, first..first + count, col + j..col + j + width);
                    bytes.make_good(to, Zero::Tensor(zero), &row_sums, zeros, sums);
                    first += count;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_hold_every_byte_once() {
        for (run, count) in [(1, 1), (21, 7), (192, 3), (768, 3), (770, 2), (1536, 3), (4, 1000), (5000, 1)] {
            let (mut bytes, mut at) = (0, 0);
            for segment in segments(run, count) {
                assert!(segment.count <= RUNS && segment.count * segment.len <= SEGMENT.max(segment.len));
                assert!(segment.len <= SEGMENT + 4 && segment.from.is_multiple_of(4));
                assert_eq!((segment.first * run + segment.from, segment.at), (bytes, at));
                (bytes, at) =
                    (bytes + segment.count * segment.len, at + segment.count * segment.len.div_ceil(4));
            }
            assert_eq!((bytes, at), (run * count, count * run.div_ceil(4)));
        }
    }
}
