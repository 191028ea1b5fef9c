//! Executes products of 8-bit integers in parts, as [`super::parts`] does those of floats: where the processor has a dot product of four bytes, or tiles of them (AMX). Convolutions whose rows are several
//! runs of bytes are [`super::dot_windows`] where there are no tiles.
//!
//! ```text
//! for each product of the batch, for each block of columns
//!   the rhs packed, unless it was before
//!   for each block of rows
//!     rows of the lhs in place, or copied; multiplied; zero points made good; the epilogue
//! ```
//!
//! A k of more than [`K_BLOCK`] steps is brought near a block of it at a time. Rows may be read through any window: those of a convolution are positions.

use std::ops::Range;

use tile25_kernels::BYTES_KC;
use tile25_kernels::axis::Window;
use tile25_kernels::epilogue::{Epilogue, FinishFrom};
use tile25_kernels::format::{Format, Words, WordsMut};
use tile25_kernels::gemm::{ByteKernel, ByteRows, Lies, Write, panel_bytes};
use tile25_kernels::mat::{MatMut, Matrices, Places};
use tile25_kernels::pack::{Form, Operand, Side, Zero};
use tile25_kernels::registry::Kernel;

use crate::context::Threads;
use crate::epilogue::{Accum, OfKernel};
use crate::workspace::{Scratch, Workspace};

use super::fork::{cut, free_pair, within, worth};
use super::parts::{lies, places};
use super::schedule::{Gemm, Reader};
use super::sums::{Finishing, Place, Sums};
use super::tile::{Run, Source};

/// Rows of a block at most: their sums are finished from a near cache. 128 or 256 with AMX on Granite Rapids: within 2 percent from 1024^3 to 4096^3.
const ROWS: usize = 128;
/// Steps of k that are brought near at once.
const K_BLOCK: usize = 2 * BYTES_KC;
/// Bytes of the packed columns of a block: most of a second-level cache of 2 MiB. Rows of the lhs are read again for every block of columns. 1 or 1.5 MiB on Granite Rapids: 4096^3 within noise.
const RHS_BYTES: usize = 3 << 19;
/// Columns of a block at most, whose sums over the rows of a block take 384 KiB, and at least.
const COLS: [usize; 2] = [768, 192];

/// How a product of bytes is cut.
#[derive(Clone, Debug)]
pub(crate) struct ByteParts {
    kernel: Kernel,
    bytes: ByteKernel,
    formats: [Format; 2],
    k: usize,
    /// Rows and columns of a block.
    block: [usize; 2],
    /// Where the lhs lies, if its rows are read in place.
    lhs: Option<Places>,
    place: Place,
    scratch: Scratch,
}

impl ByteParts {
    /// Cuts the products for `threads` threads; `None` where [`super::tile`] has to execute them.
    pub(crate) fn new(gemm: &Gemm, kernel: Kernel, threads: usize) -> Option<ByteParts> {
        let (problem, dst) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        let here = formats.out == formats.sums;
        if kernel.form != Form::I8x4 || problem.k == 0 || here && dst.band_stride().is_none() {
            return None;
        }
        let bytes = ByteKernel::new(kernel.isa, [kernel.mr, kernel.nr])?;
        let (mr, nr) = (bytes.tiles().map_or(kernel.mr, |(_, rows)| rows), kernel.nr);
        let threads = worth(problem.macs(), threads);
        let units = [problem.batch, problem.m.div_ceil(mr), problem.n.div_ceil(nr)];
        let counts = cut(units, [problem.m, problem.n], threads);
        let few = counts.iter().product::<usize>() < threads && problem.segments() >= 2;
        if few && bytes.tiles().is_none() {
            return None; // k has to be split; AMX is faster without: 16 x 48 x 65536 on two threads 3 times (Granite Rapids)
        }
        let k_block = problem.k.min(K_BLOCK);
        let most = (RHS_BYTES / k_block / nr * nr).clamp(COLS[1], COLS[0]);
        let lies = lies(&gemm.lhs, formats.sums, formats.sums, Side::Lhs);
        let side_by_side = matches!(lies, Lies::Strided([_, 1]));
        let in_place = bytes.reads_in_place(formats.lhs, problem.k) && (side_by_side || problem.k == 1);
        let mut parts = ByteParts {
            kernel,
            bytes,
            formats: [formats.lhs, formats.rhs],
            k: problem.k,
            block: [problem.m.min(ROWS), problem.n.min(most)],
            lhs: if in_place { places(&gemm.lhs, lies, Side::Lhs) } else { None },
            place: Place { places: dst, here, counts, grains: [1, mr, nr] },
            scratch: Scratch::default(),
        };
        parts.scratch.panels = std::iter::repeat_n(parts.pair(), threads).flatten().collect();
        Some(parts)
    }

    /// Whether rows of the lhs are multiplied as they are, and not in panels.
    pub(crate) fn multiplies_rows(&self) -> bool {
        self.bytes.tiles().is_some() || self.lhs.is_some()
    }

    /// The kernel, by the name of its tiles.
    pub(crate) fn kernel(&self) -> Kernel {
        self.bytes.tiles().map_or(self.kernel, |(name, mr)| Kernel { name, mr, ..self.kernel })
    }

    /// Bytes of a thread: copied rows and, if they lie apart, sums; packed columns and what is known of them.
    fn pair(&self) -> [usize; 2] {
        let [lhs, sums, rhs, tails] = self.sizes();
        [lhs + sums, rhs + tails]
    }

    fn sizes(&self) -> [usize; 4] {
        let ([m, n], k) = (self.block, 0..self.k.min(K_BLOCK));
        let lhs = if self.lhs.is_some() { 0 } else { self.bytes.row_bytes(m, &k) };
        let sums = if self.place.here { 0 } else { m * n * size_of::<i32>() };
        let sizes = [lhs, sums, panel_bytes(n, &k, self.kernel.nr), 2 * n * size_of::<i32>()];
        sizes.map(|bytes| bytes.next_multiple_of(64))
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
        match dst {
            WordsMut::I32(dst) => self.typed(run, &epilogue, dst, start, threads, workspace),
            WordsMut::F32(dst) => self.typed(run, &epilogue, dst, start, threads, workspace),
            WordsMut::U16(dst) => self.typed(run, &epilogue, dst, start, threads, workspace),
            WordsMut::U8(dst) => self.typed(run, &epilogue, dst, start, threads, workspace),
            WordsMut::F64(_) => unreachable!("sums in i32 are not narrowed to f64"),
        }
    }

    fn typed<W: FinishFrom<i32>>(
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
            self.place.parts(dst, start, &|sums: Sums<'_, i32, W>| job.part(sums));
        });
    }
}

struct Job<'a> {
    parts: &'a ByteParts,
    run: &'a Run<'a>,
    finishing: Finishing<'a, f32>,
    workspace: &'a Workspace,
}

/// A block of a part, and memory for it.
struct Scratches<'s> {
    lhs: &'s mut [u8],
    rhs: &'s mut [u8],
    zeros: &'s mut [i32],
    sums: &'s mut [i32],
}

impl Job<'_> {
    /// Computes a part with the first scratch that nobody uses.
    fn part<W: FinishFrom<i32>>(&self, mut dst: Sums<'_, i32, W>) {
        let [lhs, sums, rhs, tails] = self.parts.sizes();
        let (mut first, mut second) = free_pair(&self.workspace.panels);
        let (lhs, apart) = first.as_mut_slice::<u8>(lhs + sums).split_at_mut(lhs);
        let (rhs, tails) = second.as_mut_slice::<u8>(rhs + tails).split_at_mut(rhs);
        let apart: &mut [i32] = bytemuck::cast_slice_mut(apart);
        let tails: &mut [i32] = bytemuck::cast_slice_mut(tails);
        let [batches, rows, cols] = dst.ranges();
        let [most_rows, most_cols] = self.parts.block;
        let mut packed = None;
        for batch in batches {
            for col in cols.clone().step_by(most_cols) {
                let cols = col..cols.end.min(col + most_cols);
                let (zeros, sums) = tails.split_at_mut(tails.len() / 2);
                let mut scratch =
                    Scratches { lhs, rhs, zeros: &mut zeros[..cols.len()], sums: &mut sums[..cols.len()] };
                for row in rows.clone().step_by(most_rows) {
                    let rows = row..rows.end.min(row + most_rows);
                    let (block_rows, block_cols) = (rows.clone(), cols.clone());
                    dst.block(batch, rows, cols.clone(), self.finishing, apart, |dst, at| {
                        self.block(batch, block_rows, block_cols, dst, at, &mut packed, &mut scratch);
                    });
                }
            }
        }
    }

    /// Sums of a block into `dst`, whose block begins `at`. `packed` says of which columns the scratch holds the panels and what their tails say.
    #[expect(clippy::too_many_arguments, reason = "a block of three indices, and where it goes")]
    fn block(
        &self,
        batch: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        dst: &mut MatMut<'_, i32>,
        at: [usize; 3],
        packed: &mut Option<(isize, Range<usize>)>,
        scratch: &mut Scratches<'_>,
    ) {
        let ByteParts { bytes, formats, k, ref lhs, kernel, .. } = *self.parts;
        let Run { gemm, lhs: ref left, rhs: ref right, .. } = *self.run;
        let Scratches { lhs: lhs_room, rhs: rhs_room, zeros, sums } = scratch;
        let [at_batch, at_row, at_col] = at;
        let (to_rows, to_cols) = (at_row..at_row + rows.len(), at_col..at_col + cols.len());
        let left = operand(left, &gemm.lhs, batch).expect("the lhs was not packed before");
        let right_here = operand(right, &gemm.rhs, batch);
        let whole = k <= K_BLOCK;
        // Products of one rhs, such as a batch by one matrix of weights, find it packed.
        let place = match (right, &right_here) {
            (Source::Packed { batch: index, .. }, _) => index.offset(batch),
            (Source::Coded { zero_step: 0, .. }, Some((_, window))) => window.start,
            _ => batch as isize,
        };
        let own = (place, cols.clone());
        let fresh = !whole || packed.as_ref() != Some(&own);
        let mut write = if self.finishing.accum == Accum::Add { Write::Add } else { Write::Replace };
        let mut row_sums = [0i32; ROWS];
        let made_good = self.parts.multiplies_rows();
        if fresh && made_good {
            zeros.fill(0);
            sums.fill(0);
        }
        for from in (0..k).step_by(K_BLOCK) {
            let steps = from..k.min(from + K_BLOCK);
            if let (Some((operand, window)), true) = (&right_here, fresh) {
                bytes.pack_rhs(window, *operand, cols.clone(), steps.clone(), rhs_room);
            }
            let panels = |segment: Range<usize>| -> &[u8] {
                let (panels, product, extent, col, first) = match *right {
                    Source::Packed { panels, batch: index } => {
                        let extent = gemm.problem.n;
                        let product = panel_bytes(extent, &(0..k), kernel.nr) * index.offset(batch) as usize;
                        (panels, product, extent, cols.start, 0)
                    }
                    _ => (&**rhs_room, 0, cols.len(), 0, from),
                };
                let segment_bytes = |x: usize| kernel.form.packed_bytes(x, segment.len(), kernel.nr);
                let at =
                    product + panel_bytes(extent, &(first..segment.start), kernel.nr) + segment_bytes(col);
                &panels[at..at + segment_bytes(cols.len())]
            };
            if fresh && made_good {
                for segment in steps.clone().step_by(BYTES_KC) {
                    let segment = segment..steps.end.min(segment + BYTES_KC);
                    bytes.add_tails(panels(segment.clone()), segment.len(), zeros, sums);
                }
            }
            let (operand, window) = &left;
            let here = match (operand.words, lhs) {
                (Words::U8(data), Some(places)) => {
                    let (_, start) = self.run.lhs.operand().expect("as above");
                    let matrices = Matrices::new(data, start as isize, places).expect("the view was checked");
                    ByteRows::Rows(matrices.matrix(batch).part(rows.clone(), steps.clone()))
                }
                _ => bytes.keep(window, *operand, rows.clone(), steps.clone(), lhs_room),
            };
            if let (ByteRows::Rows(codes), true) = (here, zeros.iter().any(|&zero| zero != 0)) {
                bytes.add_row_sums(codes, formats[0], &mut row_sums[..rows.len()]);
            }
            let to = (&mut *dst, at_batch, to_rows.clone(), to_cols.clone());
            bytes.multiply(here, formats[0], panels, steps, to, write);
            write = Write::Add;
        }
        if made_good {
            let zero = match left.0.zero {
                Zero::PerX(all) => Zero::PerX(&all[rows]),
                zero => zero,
            };
            bytes.make_good((dst, at_batch, to_rows, to_cols), zero, &row_sums, zeros, sums);
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
