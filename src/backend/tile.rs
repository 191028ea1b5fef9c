//! Executes a [`TilePlan`] on rayon's threads: the only place of the crate that knows threads.
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
use tile25_kernels::epilogue::Epilogue;
use tile25_kernels::format::Element;
use tile25_kernels::gemm::{Block, Write, add_segment};
use tile25_kernels::mat::{MatMut, Tiles};
use tile25_kernels::pack::{pack, packed_len};

use crate::context::Threads;
use crate::epilogue::Accum;
use crate::workspace::Workspace;

use super::schedule::{Gemm, Pack, PackKey, PartialSum, Reader, Reduce, Schedule, Side, Sum, Task, Ticket};

/// An operand at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a, T> {
    /// Elements; the window's offsets count from `start`.
    Plain { data: &'a [T], start: usize },
    /// Panels packed before, all of the operand.
    Packed { panels: &'a [T], batch: Axis },
}

/// What a run works on.
pub(crate) struct Run<'a, T> {
    pub(crate) gemm: &'a Gemm,
    pub(crate) lhs: Source<'a, T>,
    pub(crate) rhs: Source<'a, T>,
    pub(crate) accum: Accum,
    pub(crate) epilogue: Epilogue<'a, T>,
}

impl Schedule {
    /// Runs the schedule into `dst`. Allocates nothing.
    ///
    /// # Panics
    /// If the workspace or an operand is not what the schedule was made for; callers check.
    pub(crate) fn run<T: Element>(
        &self,
        run: &Run<'_, T>,
        dst: MatMut<'_, T>,
        threads: &Threads<'_>,
        ws: &mut Workspace,
    ) {
        let Workspace { panels, partials, claims, progress, .. } = ws;
        progress.reset(&self.step_work, self.tickets.len());
        let tiles = Tiles::new(dst, &self.cut, claims);
        let worker = Worker { schedule: self, run, tiles: &tiles, panels, partials, progress };
        let forks = self.threads.min(self.tickets.len());
        match threads {
            _ if forks <= 1 => worker.work(),
            Threads::Pool(pool) => pool.install(|| fork(forks, &|| worker.work())),
            _ => fork(forks, &|| worker.work()),
        }
    }
}

/// Runs `work` on up to `n` threads of the current pool. `join` keeps its job on the stack: nothing is allocated.
fn fork(n: usize, work: &(impl Fn() + Sync)) {
    if n <= 1 {
        work();
    } else {
        rayon::join(|| fork(n / 2, work), || fork(n - n / 2, work));
    }
}

struct Worker<'a, T> {
    schedule: &'a Schedule,
    run: &'a Run<'a, T>,
    tiles: &'a Tiles<'a, T>,
    panels: &'a [std::sync::RwLock<tile25_kernels::buf::Buf>],
    partials: &'a [std::sync::RwLock<crate::workspace::Partial>],
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

impl<T: Element> Worker<'_, T> {
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

    fn side(&self, side: Side) -> (&Source<'_, T>, &Reader, usize) {
        let kernel = &self.schedule.kernel;
        match side {
            Side::Lhs => (&self.run.lhs, &self.run.gemm.lhs, kernel.mr),
            Side::Rhs => (&self.run.rhs, &self.run.gemm.rhs, kernel.nr),
        }
    }

    fn pack(&self, item: &Pack) -> Option<()> {
        let PackKey { step, side, batch, ref range, ref segments } = item.key;
        let (source, reader, width) = self.side(side);
        let Source::Plain { data, start } = *source else { return Some(()) };
        // The panel was last read two steps ago; on one thread every earlier ticket is done.
        if self.schedule.threads > 1
            && step >= 2
            && !self.progress.wait(|| self.progress.step_is_done(step - 2))
        {
            return None;
        }
        let mut window = reader.window;
        window.start += start as isize + reader.batch.offset(batch);
        let problem = &self.schedule.problem;
        let len = packed_len(range.len(), problem.k_range(segments).len(), width);
        let mut panel = self.panels[item.panel].write().unwrap_or_else(PoisonError::into_inner);
        let mut out = panel.as_mut_slice::<T>(len);
        for segment in segments.clone() {
            let k = problem.k_range(&(segment..segment + 1));
            let (now, rest) = out.split_at_mut(packed_len(range.len(), k.len(), width));
            pack(self.isa(), &window, data, range.clone(), k, width, now);
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
        let first_k = problem.k_range(&task.segments).start;
        let block = |segment: usize, write: Write| {
            let k = problem.k_range(&(segment..segment + 1));
            Block {
                lhs: self.panels_of(Side::Lhs, &lhs_guard, rect.batch, &rect.rows, first_k, k.clone()),
                rhs: self.panels_of(Side::Rhs, &rhs_guard, rect.batch, &rect.cols, first_k, k.clone()),
                kc: k.len(),
                write,
            }
        };
        match &task.sum {
            Sum::Tile => {
                let mut tile =
                    self.tiles.take(task.tile).expect("tickets of one tile run one after the other");
                for segment in task.segments.clone() {
                    let replace = segment == 0 && self.run.accum == Accum::Replace;
                    let write = if replace { Write::Replace } else { Write::Add };
                    T::gemm_block(self.isa(), block(segment, write), &mut tile);
                }
                if task.last {
                    T::finish_tile(self.isa(), &self.run.epilogue, &mut tile);
                }
            }
            Sum::Partial(sum) => {
                let PartialSum { slot, ref cut, spec } = **sum;
                let mut partial = self.partials[slot].write().unwrap_or_else(PoisonError::into_inner);
                let crate::workspace::Partial { buf, claims } = &mut *partial;
                let len = rect.rows.len() * rect.cols.len() * task.segments.len();
                let mat = MatMut::new(buf.as_mut_slice::<T>(len), spec)
                    .expect("a row-major matrix fits its buffer");
                let sums = Tiles::new(mat, cut, claims);
                for (i, segment) in task.segments.clone().enumerate() {
                    let mut sum = sums.take(i).expect("each sum is taken once");
                    T::gemm_block(self.isa(), block(segment, Write::Replace), &mut sum);
                }
            }
        }
        Some(())
    }

    /// The panels of one operand of a task for one segment.
    fn panels_of<'b>(
        &'b self,
        side: Side,
        panel: &'b tile25_kernels::buf::Buf,
        batch: usize,
        range: &Range<usize>,
        first_k: usize,
        k: Range<usize>,
    ) -> &'b [T] {
        let (source, reader, width) = self.side(side);
        let len = packed_len(range.len(), k.len(), width);
        match *source {
            Source::Plain { .. } => {
                let at = packed_len(range.len(), k.start - first_k, width);
                &panel.as_slice::<T>(at + len)[at..]
            }
            Source::Packed { panels, batch: index } => {
                let extent = reader.window.x.extent();
                let product =
                    packed_len(extent, self.schedule.problem.k, width) * index.offset(batch) as usize;
                let at = product + packed_len(extent, k.start, width) + range.start * k.len();
                &panels[at..at + len]
            }
        }
    }

    /// k is 0: the sum is empty.
    fn clear_and_finish(&self, tile: usize) {
        let mut tile = self.tiles.take(tile).expect("tickets of one tile run one after the other");
        if self.run.accum == Accum::Replace {
            let nothing = Block { lhs: &[], rhs: &[], kc: 0, write: Write::Replace };
            T::gemm_block(self.isa(), nothing, &mut tile);
        }
        T::finish_tile(self.isa(), &self.run.epilogue, &mut tile);
    }

    fn reduce(&self, reduce: &Reduce) -> Option<()> {
        if !self.progress.wait(|| reduce.after.iter().all(|&ticket| self.progress.is_done(ticket))) {
            return None;
        }
        let mut tile = self.tiles.take(reduce.tile).expect("tickets of one tile run one after the other");
        let area = tile.m() * tile.n();
        for (slot, segments) in &reduce.partials {
            let partial = self.partials[*slot].read().unwrap_or_else(PoisonError::into_inner);
            for sums in partial.buf.as_slice::<T>(area * segments.len()).chunks_exact(area) {
                add_segment(sums, &mut tile);
            }
        }
        if reduce.last {
            T::finish_tile(self.isa(), &self.run.epilogue, &mut tile);
        }
        Some(())
    }
}
