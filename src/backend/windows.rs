//! Executes a convolution over a window of its input: rows of the product are positions, columns are channels, and no im2col is ever made.
//!
//! First the weights are packed, once for all threads; where there are so few positions that one block holds them, each thread packs
//! its columns instead, panel by panel right before use. Then C is cut into one part a thread, as in [`super::parts`]. A part goes over its positions
//! in blocks. The input of a block is read where it lies if its channels lie side by side; otherwise, or where there are few channels or codes of a narrow format, it is first copied to a
//! band with its padding and channels innermost, widened ([`Scan::band`]). Sums lie in the result if its channels lie side by side and it is in the format of
//! sums, and else in a block of scratch from which the result is written.
//!
//! Scratch: the packed weights, and for each thread a band of about [`BAND_BYTES`](super::block::BAND_BYTES) and a block of at most [`SUMS_BYTES`] of sums. A band is as large as it must be
//! for one line of positions or, where that is more, for [`LEAST_ACROSS`](super::block::LEAST_ACROSS) of its positions, or fewer that keep it within [`MOST_BANDS`](super::block::MOST_BANDS) times as much: nothing grows with the images, their number or a dilation.

use std::ops::Range;
use std::sync::RwLock;

use tile25_kernels::KC;
use tile25_kernels::axis::{Axis, Dim, NO_COORD, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{Real, WINDOW_ROWS, Weights, Windows};
use tile25_kernels::isa::is_amd;
use tile25_kernels::mat::Places;
use tile25_kernels::pack::{Form, Operand, Side, pack};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;
use tile25_kernels::simd::Transpose;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::block::Block;
use super::fork::{evenly, free_pair, share, worth};
use super::input::Input;
use super::parts::OwnWords;
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use super::tile::{Run, Source};

/// Most bytes of a block of sums.
pub(super) const SUMS_BYTES: usize = 512 * 1024;
/// Positions up to which they are one block, and weights are packed right before use: packed before, those of a layer with many channels would leave the
/// second-level cache before they are met.
const ONE_BLOCK: usize = 512;
/// Channels side by side from which on the input is read in place: a tile looks up its rows once a kernel position.
const IN_PLACE_FROM: usize = 16;

/// A planned convolution over a window.
#[derive(Clone, Debug)]
pub(crate) struct Windowed {
    kernel: Kernel,
    scan: Scan,
    window: Window,
    groups: Axis,
    place: Place,
    slots: usize,
    block: Block,
    /// Columns of a panel of weights.
    width: usize,
    /// Columns of a block, and positions of it whose sums stand apart at once.
    cols: usize,
    at_once: usize,
    /// Whether weights are packed right before use.
    packs_late: bool,
    /// Groups, positions, channels, k.
    shape: [usize; 4],
    /// Elements of the panel of weights that is packed late.
    panel: usize,
    /// Elements of a band, with the panel of weights that is packed late, and of a block of sums.
    elements: [usize; 2],
}

impl Windowed {
    /// Plans `gemm`, whose lhs reads what `scan` goes over; `None` where tickets have to execute it.
    pub(crate) fn new(gemm: &Gemm, scan: Scan, kernel: Kernel, threads: usize) -> Option<Windowed> {
        let (problem, places) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        if !matches!(kernel.form, Form::F32 | Form::F64) || problem.k == 0 {
            return None;
        }
        // Codes of narrow floats are widened on their way to a band.
        let widens = formats.lhs != formats.sums;
        if widens && (kernel.form != Form::F32 || formats.lhs.is_integer()) {
            return None;
        }
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let bytes = formats.sums.bytes();
        let threads = worth(problem.macs(), threads);
        let width = panel_width(n, kernel.nr);
        let counts = evenly(problem.batch, [m, n], [kernel.mr, width], threads);
        let window = scan.window();
        let inner = window.k.inner();
        let one_run = window.is_plain() && window.k.dims().len() == 1;
        let runs = inner.along == NO_COORD && inner.stride == 1 && inner.extent >= IN_PLACE_FROM;
        let here = formats.out == formats.sums && places.columns_side_by_side();
        let packs_late = m <= ONE_BLOCK && counts[1] == 1;
        let apart = Block::held_apart(&scan, 1, bytes);
        let copied = Block::copied(&apart, 1, bytes);
        // Planes are read anew by every panel of channels, a line for each step of k: rather from a band, if weights can be packed late all the same. 512 to 1024 channels @28, stride 2, on
        // Granite Rapids: 1.18 times as fast; 1024 to 2048 @14, whose positions take two bands, 0.70.
        let planes = one_run
            && inner.stride != 1
            && n > width
            && (!packs_late || copied.is_some_and(|(_, positions, _)| positions == m));
        let (scan, (block, rows, band)) = if !widens && ((one_run && !planes) || runs) {
            // Over several segments the input of a block is met again, and sums that stand apart are.
            let rows = if packs_late || (k <= KC && here) { m } else { WINDOW_ROWS };
            (scan, (Block::Rows(rows), m.min(rows), 0))
        } else {
            (apart, copied?)
        };
        let padded = n.next_multiple_of(width);
        let most = SUMS_BYTES / bytes;
        // A band of few channels has more positions than sums have room for.
        let at_once = if here { rows } else { rows.min(most / width) };
        let cols = if here { padded } else { (most / at_once / width * width).clamp(width, padded) };
        let packs_late = packs_late && rows == m;
        // Weights whose kernel positions lie inside their channels are packed all at once.
        let (lanes, weights) = (gemm.rhs.window.x.inner(), gemm.rhs.window.k);
        let inside = |dim: &Dim| dim.stride.abs() < weights.inner().stride.abs();
        let interleaved = lanes.stride != 1 && weights.dims().iter().any(inside);
        let panel = match packs_late {
            true => width * if interleaved { k } else { k.min(KC) },
            false => 0,
        };
        let sums = if here { 0 } else { at_once * cols };
        Some(Windowed {
            kernel,
            scan,
            window,
            groups: gemm.lhs.batch,
            place: Place { places, here, counts, grains: [1, kernel.mr, width] },
            slots: threads,
            block,
            width,
            cols,
            at_once,
            packs_late,
            shape: [problem.batch, m, n, k],
            panel,
            elements: [panel + band, sums],
        })
    }

    /// Whether the input is read where it lies.
    pub(crate) fn reads_in_place(&self) -> bool {
        matches!(self.block, Block::Rows(_))
    }

    /// Elements of the packed weights of a group.
    fn panel_elements(&self) -> usize {
        let [_, _, n, k] = self.shape;
        n.next_multiple_of(self.width) * k
    }

    /// Elements of the weights that a run packs before anything else.
    fn packed_elements(&self) -> usize {
        if self.packs_late { 0 } else { self.shape[0] * self.panel_elements() }
    }

    /// What a run needs: the packed weights, then a band and a block of sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let of = |elements: usize| elements * self.kernel.form.element_bytes();
        scratch(of(self.packed_elements()), self.elements.map(of), self.slots)
    }

    /// Bytes of the packed weights of all groups.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.shape[0] * self.panel_elements() * self.kernel.form.element_bytes()
    }

    /// Packs the weights of all groups, which `reader` reads: `[group][panel][k][lane]`.
    pub(crate) fn pack_weights(
        &self,
        reader: &Reader,
        source: &Source<'_>,
        threads: usize,
        panels: &mut [u8],
    ) {
        let [_, _, n, k] = self.shape;
        let (kernel, width) = (self.kernel, self.width);
        let of_group = n.div_ceil(width);
        let bytes = width * k * kernel.form.element_bytes();
        let pack_one = |unit: usize, out: &mut [u8]| {
            let (group, panel) = (unit / of_group, unit % of_group);
            let (window, operand) = weights(reader, source, group);
            let x = panel * width..n.min((panel + 1) * width);
            pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, x, 0..k, width, out);
        };
        share(0..panels.len() / bytes, panels, threads, bytes, &pack_one);
    }
}

impl Execute for Windowed {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let input = Input::new(&run.lhs);
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        let bytes = self.packed_elements() * size_of::<T>();
        let pack = |panels: &mut [u8]| {
            self.pack_weights(&run.gemm.rhs, &run.rhs, self.place.counts.iter().product(), panels);
        };
        let scratch = call.scratch();
        self.place.execute(call, dst, &run.rhs, bytes, pack, |panels, part: Sums<'_, T, W>| {
            Job { windowed: self, input, run, panels, finishing, scratch }.part(part);
        });
    }
}

/// Columns of a panel, of a kernel whose full panels have `nr`. Where those are three vectors, four make one panel of tiles of fewer rows: not 48 + 16, whose tiles would wait for
/// loads, nor 32 + 32, of which tiles of 8 rows have 16 sums (64 to 64 channels, 3 x 3 @56 on Granite Rapids: 73 % of the peak by 32 + 32, 78 by 64). More columns in such panels lose 2 to 6 percent there:
/// each tile reads more of the rhs. Otherwise two vectors, if as many panels of these hold all `n`.
pub(super) fn panel_width(n: usize, nr: usize) -> usize {
    match wide_panel(n, nr) {
        width if width == nr && nr.is_multiple_of(3) && n <= n.div_ceil(nr) * (nr / 3 * 2) => nr / 3 * 2,
        width => width,
    }
}

/// Columns of a panel of units of the dot products: of four vectors, where they hold all `n`, for the reason of [`panel_width`]. On AMD's also where they leave no column over and three do: one thread is as fast, but two have columns for equal
/// parts and read no panels that the other has packed. Zen 5, 256 to 256 channels 3 x 3 @14 line by line 57 and 73 % of the peak, stride 2 @28 55 and 76, bf16 100 and 141; bf16 512 to 512 @14, stride 2, on one thread 130 and 121. Panels of both widths
/// never have as many bytes: a plan for one refuses the other's.
pub(super) fn wide_panel(n: usize, nr: usize) -> usize {
    let wide = nr / 3 * 4;
    let even = is_amd() && n.is_multiple_of(wide) && !n.is_multiple_of(nr);
    if nr.is_multiple_of(3) && (n.div_ceil(nr / 3) == 4 || even) { wide } else { nr }
}

/// How the weights of a group are read.
pub(super) fn weights<'a>(reader: &Reader, source: &Source<'a>, group: usize) -> (Window, Operand<'a>) {
    let (operand, start) = source.operand().expect("weights are packed here");
    let mut window = reader.window;
    window.start += start as isize + reader.batch.offset(group);
    (window, operand)
}

struct Job<'a, T> {
    windowed: &'a Windowed,
    input: Input<'a, T>,
    run: &'a Run<'a>,
    panels: &'a [T],
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real + Transpose + OwnWords> Job<'_, T> {
    /// Goes over positions block by block: `work` gets each with the elements and the window that read it.
    fn blocks(
        &self,
        group: usize,
        rows: Range<usize>,
        band: &mut [T],
        mut work: impl FnMut(&[T], &Window, Range<usize>),
    ) {
        let Windowed { kernel, scan, window, groups, block, .. } = self.windowed;
        let first = groups.offset(group);
        let mut row = rows.start;
        while row < rows.end {
            let now = row..block.end(scan, row, rows.end);
            row = now.end;
            match self.input {
                Input::Own(data, start) if matches!(block, Block::Rows(_)) => {
                    work(data, &Window { start: window.start + start + first, ..*window }, now);
                    continue;
                }
                _ => {}
            }
            let place = scan.band(now.clone());
            self.input.copy(kernel.isa, scan, &place, first, band);
            work(band, &place.window, now);
        }
    }

    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let Windowed { kernel, width, packs_late, shape: [.., k], panel, elements, .. } = *self.windowed;
        let Windowed { cols: at_a_time, at_once, window: ref padding, .. } = *self.windowed;
        let [groups, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch, self.windowed.slots);
        let (panel, band) = band.as_mut_slice::<T>(elements[0]).split_at_mut(panel);
        let sums = sums.as_mut_slice::<T>(elements[1]);
        for group in groups {
            let given = matches!(self.run.rhs, Source::Packed { .. });
            let of_group = (!given && packs_late).then(|| weights(&self.run.gemm.rhs, &self.run.rhs, group));
            self.blocks(group, rows.clone(), band, |data, window, of_block| {
                for row in of_block.clone().step_by(at_once) {
                    let rows = row..of_block.end.min(row + at_once);
                    for j in cols.clone().step_by(at_a_time) {
                        let cols = j..cols.end.min(j + at_a_time);
                        let weights = match &of_group {
                            Some((window, operand)) => Weights::Pack(window, *operand, &mut *panel),
                            None => {
                                let len = self.windowed.panel_elements();
                                let panels = &self.panels[group * len..][..len];
                                Weights::Packed { panels, once: packs_late }
                            }
                        };
                        let add = self.finishing.accum == Accum::Add;
                        let (block, k) = ((rows.clone(), cols.clone()), 0..k);
                        let (of_rows, of_cols) = block.clone();
                        part.block(group, of_rows, of_cols, self.finishing, sums, |dst, at| {
                            let (rows, cols) = block;
                            Windows { data, window, padding, rows, k, weights, width, cols, dst, at, add }
                                .compute(kernel.isa);
                        });
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_amd, panel_width};

    #[test]
    fn panels_have_two_three_or_four_vectors() {
        for (n, widths) in
            [(1, [32, 8]), (12, [32, 12]), (16, [32, 16]), (33, [48, 12]), (63, [64, 12]), (65, [48, 12])]
        {
            assert_eq!([48, 12].map(|nr| panel_width(n, nr)), widths, "{n}");
            assert_eq!(panel_width(n, 16), 16);
        }
        let even = if is_amd() { 64 } else { 48 };
        assert_eq!([128, 192, 256].map(|n| panel_width(n, 48)), [even, 48, even]);
    }
}
