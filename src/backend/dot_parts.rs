//! Executes products of 8-bit integers and of bf16 in parts, as [`super::parts`] does those of f32: where the processor has a dot product of four bytes, or tiles of them (AMX), and one of two bf16. Convolutions whose rows
//! are several runs are [`super::dot_windows`] where there are no tiles.
//!
//! ```text
//! for each product of the batch, for each block of columns
//!   the rhs packed, unless it was before
//!   for each block of rows
//!     rows of the lhs in place, or copied; multiplied; of integers zero points made good; the epilogue
//! ```
//!
//! A k of more than [`K_BLOCK`] bytes is brought near a block of it at a time. Rows may be read through any window: those of a convolution are positions.

use std::ops::Range;

use bytemuck::Pod;
use tile25_kernels::axis::Window;
use tile25_kernels::epilogue::{Epilogue, Finish, FinishFrom};
use tile25_kernels::format::{Format, Words, WordsMut};
use tile25_kernels::gemm::{ByteKernel, Lies, Lines, Write};
use tile25_kernels::isa::is_amd_before_zen5;
use tile25_kernels::mat::{MatMut, Matrices, Places};
use tile25_kernels::pack::{Operand, Side, Zero, copy_pair_rows, pack_segments};
use tile25_kernels::registry::Kernel;

use crate::context::Threads;
use crate::epilogue::{Accum, OfKernel};
use crate::workspace::{Scratch, Workspace};

use super::dots::Dots;
use super::fork::{WORTH_ANOTHER_CUT, evenly_by, free_pair, within, worth};
use super::parts::{lies, places};
use super::schedule::{Gemm, Reader};
use super::sums::{Finishing, Place, Sums};
use super::tile::{Run, Source};
use super::windows::wide_panel;

/// Rows of a block at most: their sums are finished from a near cache. 128 or 256 with AMX on Granite Rapids: within 2 percent from 1024^3 to 4096^3.
const ROWS: usize = 128;
/// Bytes of k that are brought near at once.
const K_BLOCK: usize = 4096;
/// Bytes of the packed columns of a block: most of a second-level cache of 2 MiB. Rows of the lhs are read again for every block of columns. 1 or 1.5 MiB on Granite Rapids: 4096^3 within noise.
const RHS_BYTES: usize = 3 << 19;
/// Columns of a block at most, whose sums over the rows of a block take 384 KiB, and at least.
const COLS: [usize; 2] = [768, 192];

/// Rows of bf16 that share a least exponent: whole tiles of 8 and of 6 rows.
const LINE: usize = 48;
const LINES: usize = ROWS.div_ceil(LINE);

/// Codes from a copied row of bf16 to the next: an odd number of cache lines, so that rows spread over the sets of a cache.
fn pitch(k: usize) -> usize {
    const LINE: usize = 32;
    k.next_multiple_of(LINE) | LINE
}

/// Multiply-adds of bf16 up to which parts are faster than tickets, which share what they pack and keep more of k near. Zen 5, one thread, tickets and parts: 96 x 128 x 64 x 128 93 and 141 % of the f32 peak,
/// 128 x 128 x 128 113 and 138, 512 x 512 x 512 173 and 174, 1024 x 2304 x 768 176 and 172, 2048 x 2048 x 2048 171 and 166, 4096 x 4096 x 4096 173 and 143 (benches/record/2026-11-28-zen5.md).
const PAIR_MACS: u64 = 1 << 28;
/// Steps of k up to which parts are on AMD's before Zen 5 whatever there is to multiply. Zen 4, tickets and parts, one thread and two: 1024 x 768 x 768 177 and 182, 174 and 185, 1024 x 3072 x 768 168 and 173, 166 and 174; 1024 x 1024 x 1024 and 2048 x 2048 x 2048 the same, 1024 x 768 x 3072 179 and 163,
/// 4096 x 4096 x 4096 175 and 151.
const PAIR_STEPS: usize = 768;

/// How a product is cut.
#[derive(Clone, Debug)]
pub(crate) struct DotParts {
    kernel: Kernel,
    dots: Dots,
    formats: [Format; 2],
    k: usize,
    /// Rows and columns of a block.
    block: [usize; 2],
    /// Where the lhs lies, if its rows are read in place or copied as they are.
    lhs: Option<Places>,
    place: Place,
    slots: usize,
    scratch: Scratch,
}

impl DotParts {
    /// Cuts the products for `threads` threads; `None` where [`super::tile`] has to execute them.
    pub(crate) fn new(gemm: &Gemm, kernel: Kernel, threads: usize) -> Option<DotParts> {
        let (problem, dst) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        let here = formats.out == formats.sums;
        if problem.k == 0 || here && dst.band_stride().is_none() {
            return None;
        }
        let dots = Dots::new(kernel)?;
        let (mr, nr) = (dots.tiles().map_or(kernel.mr, |(_, rows)| rows), kernel.nr);
        let threads = worth(problem.macs(), threads);
        let extents = [problem.m, problem.n];
        let counts = evenly_by(problem.batch, extents, [mr, nr], threads, WORTH_ANOTHER_CUT, [0; 2]);
        let few = counts.iter().product::<usize>() < threads && problem.segments() >= 2;
        if few && dots.tiles().is_none() {
            return None; // k has to be split; AMX is faster without: 16 x 48 x 65536 on two threads 3 times (Granite Rapids)
        }
        let many = problem.macs() > PAIR_MACS * problem.batch as u64;
        let by_parts = is_amd_before_zen5() && problem.k <= PAIR_STEPS;
        if matches!(dots, Dots::Pairs(_)) && many && !by_parts {
            return None;
        }
        let bytes = kernel.form.element_bytes();
        let k_block = problem.k.min(K_BLOCK / bytes);
        let most = (RHS_BYTES / (k_block * bytes) / nr * nr).clamp(COLS[1], COLS[0]);
        let lies = lies(&gemm.lhs, formats.sums, formats.sums, Side::Lhs);
        let side_by_side = matches!(lies, Lies::Strided([_, 1]));
        let in_place = match dots {
            Dots::Bytes(bytes) => {
                bytes.reads_in_place(formats.lhs, problem.k) && (side_by_side || problem.k == 1)
            }
            // Copied, for the later of two neighbours would come first, but row by row.
            Dots::Pairs(_) => formats.lhs == Format::Bf16 && side_by_side,
            // [`super::parts`] has them.
            Dots::Floats(_) => return None,
        };
        let mut parts = DotParts {
            kernel,
            dots,
            formats: [formats.lhs, formats.rhs],
            k: problem.k,
            block: [problem.m.min(ROWS), problem.n.min(most)],
            lhs: if in_place { places(&gemm.lhs, lies, Side::Lhs) } else { None },
            place: Place { places: dst, here, counts, grains: [1, mr, nr] },
            slots: threads,
            scratch: Scratch::default(),
        };
        parts.scratch.panels = std::iter::repeat_n(parts.pair(), threads).flatten().collect();
        Some(parts)
    }

    /// Whether rows of bytes are read where they lie, or by AMX, which copies them through any window.
    pub(crate) fn reads_bytes(&self) -> bool {
        matches!(self.dots, Dots::Bytes(_)) && (self.dots.tiles().is_some() || self.lhs.is_some())
    }

    /// The kernel, by the name of its tiles.
    pub(crate) fn kernel(&self) -> Kernel {
        self.dots.tiles().map_or(self.kernel, |(name, mr)| Kernel { name, mr, ..self.kernel })
    }

    /// Bytes of a thread: copied rows and, if they lie apart, sums; packed columns and what is known of them.
    fn pair(&self) -> [usize; 2] {
        let [lhs, sums, rhs, tails] = self.sizes();
        [lhs + sums, rhs + tails]
    }

    fn sizes(&self) -> [usize; 4] {
        let ([m, n], k, Kernel { form, mr, nr, .. }) =
            (self.block, 0..self.k.min(self.k_block()), self.kernel);
        let (lhs, tails) = match self.dots {
            Dots::Bytes(_) if self.lhs.is_some() => (0, 2 * n),
            Dots::Bytes(_) => (ByteKernel::row_bytes(m, k.len()), 2 * n),
            Dots::Pairs(_) if self.lhs.is_some() => (m * pitch(k.len()) * form.element_bytes(), 0),
            _ => (form.panel_bytes(m, &k, mr), 0),
        };
        let sums = if self.place.here { 0 } else { m * n };
        let word = size_of::<i32>();
        let rhs = form.panel_bytes(n, &k, nr).max(form.panel_bytes(n, &k, self.own_width(n)));
        let sizes = [lhs, sums * word, rhs, tails * word];
        sizes.map(|bytes| bytes.next_multiple_of(64))
    }

    /// Columns of a panel of the rhs, for a block of `n`: those of the registry, unless it is packed here and rows meet it.
    fn width(&self, rhs: &Source<'_>, n: usize) -> usize {
        if matches!(rhs, Source::Packed { .. }) { self.kernel.nr } else { self.own_width(n) }
    }

    fn own_width(&self, n: usize) -> usize {
        match self.dots {
            Dots::Bytes(bytes) if bytes.tiles().is_none() => wide_panel(n, self.kernel.nr),
            Dots::Pairs(_) if self.lhs.is_some() => wide_panel(n, self.kernel.nr),
            _ => self.kernel.nr,
        }
    }

    /// Steps of k that are brought near at once: whole segments.
    fn k_block(&self) -> usize {
        K_BLOCK / self.kernel.form.element_bytes()
    }

    /// What a run needs.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Lets a workspace serve `other` as well.
    pub(crate) fn also(&mut self, other: &Scratch) {
        self.scratch.merge(other);
    }

    /// Computes all parts into the elements of `dst` from `start` on. Allocates nothing.
    ///
    /// # Panics
    /// If an operand, the result or the workspace is not what the parts were made for, or the lhs was packed before; callers check.
    pub(crate) fn run(
        &self,
        run: &Run<'_>,
        epilogue: &OfKernel<'_>,
        dst: WordsMut<'_>,
        start: usize,
        threads: &Threads<'_>,
        workspace: &Workspace,
    ) {
        let epilogue = epilogue.cast();
        macro_rules! typed {
            ($sums:ty, $dst:ident) => {
                self.typed::<$sums, _>(run, &epilogue, $dst, start, threads, workspace)
            };
        }
        match (self.dots, dst) {
            (Dots::Bytes(_), WordsMut::I32(dst)) => typed!(i32, dst),
            (Dots::Bytes(_), WordsMut::F32(dst)) => typed!(i32, dst),
            (Dots::Bytes(_), WordsMut::U16(dst)) => typed!(i32, dst),
            (Dots::Bytes(_), WordsMut::U8(dst)) => typed!(i32, dst),
            (Dots::Pairs(_), WordsMut::F32(dst)) => typed!(f32, dst),
            (Dots::Pairs(_), WordsMut::U16(dst)) => typed!(f32, dst),
            (Dots::Pairs(_), WordsMut::U8(dst)) => typed!(f32, dst),
            (dots, _) => unreachable!("no such result of {dots:?}"),
        }
    }

    fn typed<T: PartSum, W: FinishFrom<T>>(
        &self,
        run: &Run<'_>,
        epilogue: &Epilogue<'_, f32>,
        dst: &mut [W],
        start: usize,
        threads: &Threads<'_>,
        workspace: &Workspace,
    ) {
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue };
        let job = Job { parts: self, run, finishing, workspace };
        within(threads, self.place.counts, || {
            self.place.parts(dst, start, &|sums: Sums<'_, T, W>| job.part(sums));
        });
    }
}

struct Job<'a> {
    parts: &'a DotParts,
    run: &'a Run<'a>,
    finishing: Finishing<'a, f32>,
    workspace: &'a Workspace,
}

/// Memory for a block of a part; of integers what is known of its columns.
struct Scratches<'s> {
    lhs: &'s mut [u8],
    rhs: &'s mut [u8],
    zeros: &'s mut [i32],
    sums: &'s mut [i32],
}

/// Where a product of the batch and some of its columns lie: of which the scratch holds the panels.
type Columns = (isize, Range<usize>);

/// What sums of products are kept in, and how a block is summed up.
trait PartSum: Finish<Param = f32> + Pod {
    /// Sums of a block into `dst`, whose block begins `at`. `packed` says of which columns the scratch holds the panels and what their tails say.
    #[expect(clippy::too_many_arguments, reason = "a block of three indices, and where it goes")]
    fn block(
        job: &Job<'_>,
        batch: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        dst: &mut MatMut<'_, Self>,
        at: [usize; 3],
        packed: &mut Option<Columns>,
        scratch: &mut Scratches<'_>,
    );
}

impl Job<'_> {
    /// Computes a part with the first scratch that nobody uses.
    fn part<T: PartSum, W: FinishFrom<T>>(&self, mut dst: Sums<'_, T, W>) {
        let [lhs, sums, rhs, tails] = self.parts.sizes();
        let (mut first, mut second) = free_pair(&self.workspace.panels, self.parts.slots);
        let (lhs, apart) = first.as_mut_slice::<u8>(lhs + sums).split_at_mut(lhs);
        let (rhs, tails) = second.as_mut_slice::<u8>(rhs + tails).split_at_mut(rhs);
        let apart: &mut [T] = bytemuck::cast_slice_mut(apart);
        let tails: &mut [i32] = bytemuck::cast_slice_mut(tails);
        let [batches, rows, cols] = dst.ranges();
        let [most_rows, most_cols] = self.parts.block;
        let mut packed = None;
        for batch in batches {
            for col in cols.clone().step_by(most_cols) {
                let cols = col..cols.end.min(col + most_cols);
                let (zeros, sums) = tails.split_at_mut(tails.len() / 2);
                let known = cols.len().min(zeros.len());
                let mut scratch =
                    Scratches { lhs, rhs, zeros: &mut zeros[..known], sums: &mut sums[..known] };
                for row in rows.clone().step_by(most_rows) {
                    let rows = row..rows.end.min(row + most_rows);
                    let (block_rows, block_cols) = (rows.clone(), cols.clone());
                    dst.block(batch, rows, cols.clone(), self.finishing, apart, |dst, at| {
                        T::block(self, batch, block_rows, block_cols, dst, at, &mut packed, &mut scratch);
                    });
                }
            }
        }
    }

    /// Where the rhs of a product of the batch begins. Products of one rhs, such as a batch by one matrix of weights, find it packed.
    fn place_of_rhs(&self, batch: usize, here: Option<&Window>) -> isize {
        match (&self.run.rhs, here) {
            (Source::Packed { batch: index, .. }, _) => index.offset(batch),
            (Source::Floats { .. } | Source::Coded { zero_step: 0, .. }, Some(window)) => window.start,
            _ => batch as isize,
        }
    }

    /// The panels of some columns over a segment: of an rhs that was packed before, or of what `room` holds from step `from` on.
    fn panels<'p>(
        &'p self,
        batch: usize,
        cols: &Range<usize>,
        (room, from): (&'p [u8], usize),
        width: usize,
        segment: Range<usize>,
    ) -> &'p [u8] {
        let DotParts { k, kernel: Kernel { form, .. }, .. } = *self.parts;
        let (panels, product, extent, col, first) = match self.run.rhs {
            Source::Packed { panels, batch: ref index } => {
                let extent = self.run.gemm.problem.n;
                let product = form.panel_bytes(extent, &(0..k), width) * index.offset(batch) as usize;
                (panels, product, extent, cols.start, 0)
            }
            _ => (room, 0, cols.len(), 0, from),
        };
        let segment_bytes = |x: usize| form.packed_bytes(x, segment.len(), width);
        let at = product + form.panel_bytes(extent, &(first..segment.start), width) + segment_bytes(col);
        &panels[at..at + segment_bytes(cols.len())]
    }
}

impl PartSum for i32 {
    fn block(
        job: &Job<'_>,
        batch: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        dst: &mut MatMut<'_, i32>,
        [at_batch, at_row, at_col]: [usize; 3],
        packed: &mut Option<Columns>,
        scratch: &mut Scratches<'_>,
    ) {
        let DotParts { dots, formats, k, ref lhs, kernel: Kernel { isa, form, .. }, .. } = *job.parts;
        let Dots::Bytes(bytes) = dots else { unreachable!("sums of bytes") };
        let Run { gemm, lhs: ref left, rhs: ref right, .. } = *job.run;
        let Scratches { lhs: lhs_room, rhs: rhs_room, zeros, sums } = scratch;
        let (to_rows, to_cols) = (at_row..at_row + rows.len(), at_col..at_col + cols.len());
        let left = operand(left, &gemm.lhs, batch).expect("the lhs was not packed before");
        let right_here = operand(right, &gemm.rhs, batch);
        let k_block = job.parts.k_block();
        let own = (job.place_of_rhs(batch, right_here.as_ref().map(|here| &here.1)), cols.clone());
        let fresh = k > k_block || packed.as_ref() != Some(&own);
        let mut write = if job.finishing.accum == Accum::Add { Write::Add } else { Write::Replace };
        let mut row_sums = [0i32; ROWS];
        let width = job.parts.width(right, cols.len());
        let flip = if lhs.is_some() { 0 } else { bytes.flip(formats[0]) };
        let format = if flip == 0 { formats[0] } else { Format::U8 };
        if fresh {
            zeros.fill(0);
            sums.fill(0);
        }
        for from in (0..k).step_by(k_block) {
            let steps = from..k.min(from + k_block);
            if let (Some((operand, window)), true) = (&right_here, fresh) {
                let (x, k) = (cols.clone(), steps.clone());
                pack_segments(isa, form, Side::Rhs, window, *operand, x, k, width, rhs_room);
            }
            let panels = |segment: Range<usize>| job.panels(batch, &cols, (rhs_room, from), width, segment);
            if fresh {
                for segment in form.segments(&steps) {
                    bytes.add_tails((panels(segment.clone()), width), segment.len(), zeros, sums);
                }
            }
            let (operand, window) = &left;
            let here = match (operand.words, lhs) {
                (Words::U8(data), Some(places)) => {
                    let (_, start) = job.run.lhs.operand().expect("as above");
                    let matrices = Matrices::new(data, start as isize, places).expect("the view was checked");
                    matrices.matrix(batch).part(rows.clone(), steps.clone())
                }
                _ => bytes.keep(window, *operand, rows.clone(), steps.clone(), flip, lhs_room),
            };
            if zeros.iter().any(|&zero| zero != 0) {
                let codes = here.part(0..rows.len(), 0..steps.len());
                bytes.add_row_sums(codes, format, &mut row_sums[..rows.len()]);
            }
            let to = (&mut *dst, at_batch, to_rows.clone(), to_cols.clone());
            bytes.multiply((here, format), (panels, width), steps, to, write);
            write = Write::Add;
        }
        // Turned over, a code and its zero point are greater by as much.
        let (mut of_rows, more) = ([0i32; ROWS], i32::from(flip));
        let zero = match left.0.zero {
            Zero::Tensor(zero) => Zero::Tensor(zero + more),
            Zero::PerX(all) => {
                let of_rows = &mut of_rows[..rows.len()];
                of_rows.iter_mut().zip(&all[rows]).for_each(|(row, zero)| *row = zero + more);
                Zero::PerX(of_rows)
            }
        };
        bytes.make_good((dst, at_batch, to_rows, to_cols), zero, &row_sums, zeros, sums);
        *packed = Some(own);
    }
}

impl PartSum for f32 {
    fn block(
        job: &Job<'_>,
        batch: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        dst: &mut MatMut<'_, f32>,
        [at_batch, at_row, at_col]: [usize; 3],
        packed: &mut Option<Columns>,
        scratch: &mut Scratches<'_>,
    ) {
        let DotParts { dots, k, ref lhs, kernel: Kernel { isa, form, mr, .. }, .. } = *job.parts;
        let Dots::Pairs(pairs) = dots else { unreachable!("sums of pairs") };
        let Run { gemm, lhs: ref left, rhs: ref right, .. } = *job.run;
        let Scratches { lhs: lhs_room, rhs: rhs_room, .. } = scratch;
        let (left, window) = operand(left, &gemm.lhs, batch).expect("the lhs was not packed before");
        let right_here = operand(right, &gemm.rhs, batch);
        let k_block = job.parts.k_block();
        let own = (job.place_of_rhs(batch, right_here.as_ref().map(|here| &here.1)), cols.clone());
        let fresh = k > k_block || packed.as_ref() != Some(&own);
        let width = job.parts.width(right, cols.len());
        let (to_rows, to_cols) = (at_row..at_row + rows.len(), at_col..at_col + cols.len());
        let mut write = if job.finishing.accum == Accum::Add { Write::Add } else { Write::Replace };
        for from in (0..k).step_by(k_block) {
            let steps = from..k.min(from + k_block);
            if let (Some((right, window)), true) = (&right_here, fresh) {
                let (x, k) = (cols.clone(), steps.clone());
                pack_segments(isa, form, Side::Rhs, window, *right, x, k, width, rhs_room);
            }
            if let (Words::U16(data), Some(places)) = (left.words, lhs) {
                let (_, start) = job.run.lhs.operand().expect("as above");
                let matrices = Matrices::new(data, start as isize, places).expect("the view was checked");
                let matrix = matrices.matrix(batch).part(rows.clone(), steps.clone());
                let (pitch, bytes) = (pitch(steps.len()), form.element_bytes());
                let (mut lines, mut count) = ([(0, 0); LINES], 0);
                for row in (0..rows.len()).step_by(LINE) {
                    lines[count] = ((row * pitch * bytes) as isize, LINE.min(rows.len() - row));
                    count += 1;
                }
                for segment in form.segments(&steps) {
                    let here = segment.start - from..segment.end - from;
                    let mut least = [0; LINES];
                    for (line, least) in least[..count].iter_mut().enumerate() {
                        let rows = line * LINE..rows.len().min((line + 1) * LINE);
                        let codes: &mut [u16] = bytemuck::cast_slice_mut(lhs_room);
                        let to = &mut codes[rows.start * pitch + here.start..];
                        *least = copy_pair_rows(isa, matrix.part(rows, here.clone()), to, pitch);
                    }
                    let runs = [(here.start * bytes, here.len().next_multiple_of(2) * bytes)];
                    let lines =
                        Lines { data: lhs_room, lines: &lines[..count], apart: pitch * bytes, runs: &runs };
                    let panels = job.panels(batch, &cols, (rhs_room, from), width, segment.clone());
                    let panels = (panels, width, segment.len().div_ceil(2) + 1, 0);
                    let to = (&mut *dst, at_batch, to_rows.clone(), to_cols.clone());
                    let [multiplied, widened] =
                        pairs.multiply_lines((lines, &least[..count]), panels, to, write);
                    job.workspace.progress.count(multiplied, widened);
                    write = Write::Add;
                }
                continue;
            }
            pack_segments(isa, form, Side::Lhs, &window, left, rows.clone(), steps.clone(), mr, lhs_room);
            let of_rows = |segment: Range<usize>| {
                let at = form.panel_bytes(rows.len(), &(from..segment.start), mr);
                &lhs_room[at..at + form.packed_bytes(rows.len(), segment.len(), mr)]
            };
            let of_cols = |segment: Range<usize>| job.panels(batch, &cols, (rhs_room, from), width, segment);
            let to = (&mut *dst, at_batch, to_rows.clone(), to_cols.clone());
            let [multiplied, widened] = pairs.multiply(of_rows, of_cols, steps, to, write);
            job.workspace.progress.count(multiplied, widened);
            write = Write::Add;
        }
        *packed = Some(own);
    }
}

/// The elements of a product of the batch, with its own zero points, and its window over them; `None` of panels packed before.
pub(super) fn operand<'a>(
    source: &Source<'a>,
    reader: &Reader,
    batch: usize,
) -> Option<(Operand<'a>, Window)> {
    let (mut operand, start) = source.operand()?;
    if let (Source::Coded { zero_step, .. }, Zero::PerX(zeros)) = (source, operand.zero) {
        operand.zero = Zero::PerX(&zeros[batch * zero_step..]);
    }
    let mut window = reader.window;
    window.start += start as isize + reader.batch.offset(batch);
    Some((operand, window))
}
