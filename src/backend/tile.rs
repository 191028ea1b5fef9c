//! Executes a [`TilePlan`] on rayon's threads, ticket by ticket. Beside it [`super::parts`] executes float products, and [`super::dot_parts`] those of 8-bit integers, that no plan was handed in for.
//!
//! A plan becomes a [`Schedule`]: one list of tickets (pack an operand block, compute a task, add up partial sums) in which every
//! ticket depends only on earlier ones. One fork serves the whole run: each thread draws tickets in order, waits for what its
//! ticket needs, does it. There is no barrier, and packing for the next step is drawn in the middle of this one.
//!
//! Scratch: a panel for each operand block of two consecutive steps (one on a single thread), and a sum for each segment of a
//! k split of two steps. Nothing grows with the number of steps: a planned wave packs at most `WAVE_BYTES` of each operand, so four times
//! that bounds the panels whatever the problem, and no im2col of a convolution is ever whole in memory.

use std::ops::Range;
use std::sync::PoisonError;

use tile25_kernels::Isa;
use tile25_kernels::axis::Axis;
use tile25_kernels::epilogue::{Epilogue, Finish, FinishFrom, Sums};
use tile25_kernels::format::{Format, Words, WordsMut};
use tile25_kernels::gemm::{Block, Write, add_segment};
use tile25_kernels::mat::{MatMut, MatSpec, Places, TileMut, Tiles};
use tile25_kernels::pack::{Form, Operand, Side, Zero, pack};

use crate::context::Threads;
use crate::epilogue::{Accum, OfKernel};
use crate::workspace::{Partial, Workspace};

use super::parts::OwnWords;
use super::schedule::{
    Gemm, Pack, PackKey, Reader, Reduce, Schedule, Sum, SumSlot, Task, Ticket, packed_bytes,
};

/// An operand at run time; the window's offsets count from `start`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// f32 or f64 as they are.
    Floats { words: Words<'a>, start: usize },
    /// Elements of any format; the zero points of a product of the batch begin at `batch zero_step`.
    Coded { operand: Operand<'a>, start: usize, zero_step: usize },
    /// Panels packed before, all of the operand.
    Packed { panels: &'a [u8], batch: Axis },
}

impl<'a> Source<'a> {
    /// The elements and where they start; none of panels packed before.
    pub(crate) fn operand(&self) -> Option<(Operand<'a>, usize)> {
        match *self {
            Source::Floats { words, start } => Some((Operand::floats(words), start)),
            Source::Coded { operand, start, .. } => Some((operand, start)),
            Source::Packed { .. } => None,
        }
    }

    /// The elements and where they start.
    ///
    /// # Panics
    /// If they are not of `T`.
    pub(super) fn own<T: OwnWords>(&self) -> (&'a [T], isize) {
        let Source::Floats { words, start } = *self else { unreachable!("elements as they are") };
        (T::own(words).expect("an operand in the format of sums"), start as isize)
    }
}

/// What a run works on.
pub(crate) struct Run<'a> {
    pub(crate) gemm: &'a Gemm,
    pub(crate) lhs: Source<'a>,
    pub(crate) rhs: Source<'a>,
    pub(crate) accum: Accum,
}

impl Schedule {
    /// Runs the schedule into the elements of `dst` at `spec`. Allocates nothing.
    ///
    /// # Panics
    /// If the workspace, an operand or the result is not what the schedule was made for; callers check.
    pub(crate) fn run(
        &self,
        run: &Run<'_>,
        epilogue: &OfKernel<'_>,
        dst: WordsMut<'_>,
        spec: MatSpec,
        threads: &Threads<'_>,
        ws: &mut Workspace,
    ) {
        match (self.problem.formats.sums, dst) {
            (Format::F32, WordsMut::F32(dst)) => {
                self.typed::<f32, f32>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (Format::F32, WordsMut::U16(dst)) => {
                self.typed::<f32, u16>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (Format::F32, WordsMut::U8(dst)) => {
                self.typed::<f32, u8>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (Format::F64, WordsMut::F64(dst)) => {
                self.typed::<f64, f64>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (Format::I32, WordsMut::I32(dst)) => {
                self.typed::<i32, i32>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (Format::I32, WordsMut::F32(dst)) => {
                self.typed::<i32, f32>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (Format::I32, WordsMut::U16(dst)) => {
                self.typed::<i32, u16>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (Format::I32, WordsMut::U8(dst)) => {
                self.typed::<i32, u8>(run, &epilogue.cast(), dst, spec, threads, ws)
            }
            (sums, _) => unreachable!("sums of {sums} are not narrowed to {}", self.problem.formats.out),
        }
    }

    fn typed<A: Finish, W: FinishFrom<A>>(
        &self,
        run: &Run<'_>,
        epilogue: &Epilogue<'_, A::Param>,
        dst: &mut [W],
        spec: MatSpec,
        threads: &Threads<'_>,
        ws: &mut Workspace,
    ) {
        let Workspace { panels, partials, sums, claims, progress, .. } = ws;
        progress.reset(&self.step_work, self.tickets.len());
        let places = Places::new(spec);
        let dst = if self.sums_apart() {
            let mat = MatMut::new(dst, 0, &places).expect("the view and the plan were checked");
            Dst::Apart(Tiles::new(mat, &self.cut, claims), sums)
        } else {
            let mat = MatMut::new(bytemuck::cast_slice_mut(dst), 0, &places)
                .expect("the view and the plan were checked");
            Dst::Here(Tiles::new(mat, &self.cut, claims))
        };
        let worker = Worker { schedule: self, run, epilogue, dst: &dst, panels, partials, progress };
        let forks = self.threads.min(self.tickets.len());
        match threads {
            _ if forks <= 1 => worker.work(),
            Threads::Pool(pool) => pool.install(|| fork(forks, &|| worker.work())),
            _ => fork(forks, &|| worker.work()),
        }
    }
}

/// Where sums go.
enum Dst<'a, A, W> {
    /// Into C.
    Here(Tiles<'a, A>),
    /// Into slots of the workspace, and narrowed from there into C.
    Apart(Tiles<'a, W>, &'a [std::sync::Mutex<Partial>]),
}

/// Runs `work` on up to `n` threads of the current pool. `join` keeps its job on the stack: nothing is allocated.
fn fork(n: usize, work: &(impl Fn() + Sync)) {
    if n <= 1 {
        work();
    } else {
        rayon::join(|| fork(n / 2, work), || fork(n - n / 2, work));
    }
}

struct Worker<'a, A: Sums, W> {
    schedule: &'a Schedule,
    run: &'a Run<'a>,
    epilogue: &'a Epilogue<'a, A::Param>,
    dst: &'a Dst<'a, A, W>,
    panels: &'a [std::sync::RwLock<tile25_kernels::buf::Buf>],
    partials: &'a [std::sync::RwLock<Partial>],
    progress: &'a crate::workspace::Progress,
}

/// Tells the waiting threads if this one unwinds.
struct OnPanic<'a>(&'a crate::workspace::Progress);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail();
        }
    }
}

impl<A: Finish, W: FinishFrom<A>> Worker<'_, A, W> {
    fn isa(&self) -> Isa {
        self.schedule.kernel.isa
    }

    /// Draws tickets until there are none.
    fn work(&self) {
        let _guard = OnPanic(self.progress);
        while let Some(ticket) = {
            let drawn = self.progress.draw();
            (drawn < self.schedule.tickets.len()).then_some(drawn)
        } {
            let (done, step) = match self.schedule.tickets[ticket] {
                Ticket::Pack(pack) => (self.pack(&self.schedule.packs[pack]), None),
                Ticket::Task(task) => {
                    let task = &self.schedule.tasks[task];
                    (self.compute(task), Some(task.step))
                }
                Ticket::Reduce(reduce) => {
                    let reduce = &self.schedule.reduces[reduce];
                    (self.reduce(reduce), Some(reduce.step))
                }
            };
            if done.is_none() {
                return; // another thread panicked; its panic reaches the caller through the join
            }
            self.progress.finish(ticket, step);
        }
    }

    fn side(&self, side: Side) -> (&Source<'_>, &Reader, usize) {
        let kernel = &self.schedule.kernel;
        match side {
            Side::Lhs => (&self.run.lhs, &self.run.gemm.lhs, kernel.mr),
            Side::Rhs => (&self.run.rhs, &self.run.gemm.rhs, kernel.nr),
        }
    }

    fn pack(&self, item: &Pack) -> Option<()> {
        let PackKey { step, side, batch, ref range, ref segments } = item.key;
        let (source, reader, width) = self.side(side);
        let (mut operand, start, zero_step) = match *source {
            Source::Floats { words, start } => (Operand::floats(words), start, 0),
            Source::Coded { operand, start, zero_step } => (operand, start, zero_step),
            Source::Packed { .. } => return Some(()),
        };
        // The panel was last read two steps ago; on one thread every earlier ticket is done.
        if self.schedule.threads > 1
            && step >= 2
            && !self.progress.wait(|| self.progress.step_is_done(step - 2))
        {
            return None;
        }
        if let Zero::PerX(zeros) = operand.zero {
            operand.zero = Zero::PerX(&zeros[batch * zero_step..]);
        }
        let mut window = reader.window;
        window.start += start as isize + reader.batch.offset(batch);
        let (problem, kernel) = (&self.schedule.problem, self.schedule.kernel);
        let bytes = packed_bytes(problem, kernel, segments, range.len(), width);
        let mut panel = self.panels[item.panel].write().unwrap_or_else(PoisonError::into_inner);
        let mut out = panel.as_mut_slice::<u8>(bytes);
        for segment in segments.clone() {
            let k = problem.k_range(&(segment..segment + 1));
            let (now, rest) = out.split_at_mut(kernel.form.packed_bytes(range.len(), k.len(), width));
            pack(kernel.isa, kernel.form, side, &window, operand, range.clone(), k, width, now);
            out = rest;
        }
        Some(())
    }

    fn compute(&self, task: &Task) -> Option<()> {
        let problem = &self.schedule.problem;
        let packed = |pack: usize| match self.schedule.packs.get(pack) {
            Some(pack) => self.progress.is_done(pack.ticket),
            None => true,
        };
        let free = || task.after.is_none_or(|ticket| self.progress.is_done(ticket));
        if !self.progress.wait(|| packed(task.lhs) && packed(task.rhs) && free()) {
            return None;
        }
        let rect = &self.schedule.cut.rects()[task.tile];
        if problem.k == 0 {
            self.clear_and_finish(task.tile);
            return Some(());
        }
        let guard = |pack: usize| {
            self.panels[self.schedule.packs[pack].panel].read().unwrap_or_else(PoisonError::into_inner)
        };
        let lhs_guard = guard(task.lhs);
        let rhs_guard = guard(task.rhs);
        let first = task.segments.start;
        let block = |segment: usize, write: Write| Block {
            lhs: self.panels_of(Side::Lhs, &lhs_guard, rect.batch, &rect.rows, first, segment),
            rhs: self.panels_of(Side::Rhs, &rhs_guard, rect.batch, &rect.cols, first, segment),
            kc: problem.k_range(&(segment..segment + 1)).len(),
            write,
        };
        match &task.sum {
            Sum::Tile => self.on_sums(task.tile, task.segments.start == 0, task.last, |tile| {
                for segment in task.segments.clone() {
                    let replace = segment == 0 && self.run.accum == Accum::Replace;
                    self.multiply(block(segment, if replace { Write::Replace } else { Write::Add }), tile);
                }
            }),
            Sum::Partial(sum) => {
                let mut partial = self.partials[sum.slot].write().unwrap_or_else(PoisonError::into_inner);
                let sums = tiles_of::<A>(sum, &mut partial);
                for (i, segment) in task.segments.clone().enumerate() {
                    let mut sum = sums.take(i).expect("each sum is taken once");
                    self.multiply(block(segment, Write::Replace), &mut sum);
                }
            }
        }
        Some(())
    }

    /// One segment of one tile.
    fn multiply(&self, block: Block<'_>, tile: &mut TileMut<'_, A>) {
        let kernel = self.schedule.kernel;
        let widened = A::multiply(self.isa(), kernel.form, block, tile);
        if kernel.form == Form::Bf16x2 {
            let pairs = tile.m().div_ceil(kernel.mr) * tile.n().div_ceil(kernel.nr);
            self.progress.count(pairs, widened);
        }
    }

    /// Works on the sums of a tile of C, wherever they lie; brings the old values there before the `first` segment and finishes the tile
    /// after the `last`.
    fn on_sums(&self, tile: usize, first: bool, last: bool, work: impl FnOnce(&mut TileMut<'_, A>)) {
        const ONE: &str = "tickets of one tile run one after the other";
        match self.dst {
            Dst::Here(tiles) => {
                let mut tile = tiles.take(tile).expect(ONE);
                work(&mut tile);
                if last {
                    A::finish_in_place(self.isa(), self.epilogue, &mut tile);
                }
            }
            Dst::Apart(tiles, slots) => {
                let place = &self.schedule.sums[tile];
                let mut sums = slots[place.slot].lock().unwrap_or_else(PoisonError::into_inner);
                let sums = tiles_of::<A>(place, &mut sums);
                let mut sums = sums.take(0).expect("the slot is this thread's");
                if first && self.run.accum == Accum::Add {
                    let mut tile = tiles.take(tile).expect(ONE);
                    W::widen_into(self.epilogue.target.format(), &mut tile, &mut sums);
                }
                work(&mut sums);
                if last {
                    let mut tile = tiles.take(tile).expect(ONE);
                    W::finish_into(self.isa(), self.epilogue, &mut sums, &mut tile);
                }
            }
        }
    }

    /// The panels of one operand of a task for one segment; a block packed for this step begins with segment `first`.
    fn panels_of<'b>(
        &'b self,
        side: Side,
        panel: &'b tile25_kernels::buf::Buf,
        batch: usize,
        range: &Range<usize>,
        first: usize,
        segment: usize,
    ) -> &'b [u8] {
        let (source, reader, width) = self.side(side);
        let (problem, kernel) = (&self.schedule.problem, self.schedule.kernel);
        let bytes = |segments: Range<usize>, extent| packed_bytes(problem, kernel, &segments, extent, width);
        let len = bytes(segment..segment + 1, range.len());
        match *source {
            Source::Floats { .. } | Source::Coded { .. } => {
                let at = bytes(first..segment, range.len());
                &panel.as_slice::<u8>(at + len)[at..]
            }
            Source::Packed { panels, batch: index } => {
                let extent = reader.window.x.extent();
                let product = bytes(0..problem.segments(), extent) * index.offset(batch) as usize;
                // A block begins at a whole panel.
                let at = product + bytes(0..segment, extent) + bytes(segment..segment + 1, range.start);
                &panels[at..at + len]
            }
        }
    }

    /// k is 0: the sum is empty.
    fn clear_and_finish(&self, tile: usize) {
        self.on_sums(tile, true, true, |tile| {
            if self.run.accum == Accum::Replace {
                tile.fill(<A as num_traits::Zero>::zero());
            }
        });
    }

    fn reduce(&self, reduce: &Reduce) -> Option<()> {
        if !self.progress.wait(|| reduce.after.iter().all(|&ticket| self.progress.is_done(ticket))) {
            return None;
        }
        self.on_sums(reduce.tile, false, reduce.last, |tile| {
            let area = tile.m() * tile.n();
            for (slot, segments) in &reduce.partials {
                let partial = self.partials[*slot].read().unwrap_or_else(PoisonError::into_inner);
                for sums in partial.buf.as_slice::<A>(area * segments.len()).chunks_exact(area) {
                    add_segment(sums, tile);
                }
            }
        });
        Some(())
    }
}

/// The tiles of a slot.
fn tiles_of<'a, A: Sums>(place: &'a SumSlot, partial: &'a mut Partial) -> Tiles<'a, A> {
    let Partial { buf, claims } = partial;
    let mat = MatMut::new(buf.as_mut_slice(place.len()), 0, &place.places)
        .expect("row-major matrices fit their slot");
    Tiles::new(mat, &place.cut, claims)
}
