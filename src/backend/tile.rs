//! Executes a [`TilePlan`] on rayon's threads: the only place of the crate that knows threads.
//!
//! A plan becomes a [`Schedule`]: one list of tickets (pack an operand block, compute a task, add up partial sums) in which every
//! ticket depends only on earlier ones. One fork serves the whole run: each thread draws tickets in order, waits for what its
//! ticket needs, does it. There is no barrier, and packing for the next step is drawn in the middle of this one.
//!
//! Scratch: a panel for each operand block of two consecutive steps (one on a single thread), and a sum for each segment of a
//! k split of two steps. Nothing grows with the number of steps, so with a planned wave of at most 25 blocks the bound is
//! `2 (25 + 25) BLOCK_BYTES` for the panels whatever the problem; no im2col of a convolution is ever whole in memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::PoisonError;

use tile25_kernels::Isa;
use tile25_kernels::axis::{Axis, Window};
use tile25_kernels::epilogue::Epilogue;
use tile25_kernels::format::Element;
use tile25_kernels::gemm::{Block, Write, add_segment};
use tile25_kernels::mat::{Cut, MatMut, MatSpec, Rect, Tiles};
use tile25_kernels::pack::{pack, packed_len};
use tile25_kernels::registry::Kernel;

use crate::context::Threads;
use crate::ops::epilogue::Accum;
use crate::plan::{Problem, TilePlan};
use crate::workspace::{Scratch, Workspace};

/// How one operand is read: a window, moved by the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) window: Window,
    pub(crate) batch: Axis,
}

/// A batch of matrix products between two readers: what every operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gemm {
    pub(crate) problem: Problem,
    pub(crate) lhs: Reader,
    pub(crate) rhs: Reader,
    pub(crate) dst: MatSpec,
}

impl Gemm {
    /// The transposed product: the same bits at the same places, with the roles of rows and columns exchanged.
    pub(crate) fn transposed(self) -> Gemm {
        let Gemm { mut problem, lhs, rhs, mut dst } = self;
        (problem.m, problem.n) = (problem.n, problem.m);
        (dst.rows, dst.cols) = (dst.cols, dst.rows);
        Gemm { problem, lhs: rhs, rhs: lhs, dst }
    }

    /// Whether the transposed product writes along whole vectors and this one does not.
    pub(crate) fn prefers_transposed(&self) -> bool {
        let (rows, cols) = (self.dst.rows.inner(), self.dst.cols.inner());
        rows.stride == 1 && rows.extent > 1 && (cols.stride != 1 || cols.extent == 1)
    }
}

/// An operand at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a, T> {
    /// Elements; the window's offsets count from `start`.
    Plain { data: &'a [T], start: usize },
    /// Panels packed before, all of the operand.
    Packed { panels: &'a [T], batch: Axis },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Lhs,
    Rhs,
}

#[derive(Clone, Copy, Debug)]
enum Ticket {
    Pack(usize),
    Task(usize),
    Reduce(usize),
}

/// Packs one operand block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PackKey {
    step: usize,
    side: Side,
    batch: usize,
    range: Range<usize>,
    segments: Range<usize>,
}

#[derive(Clone, Debug)]
struct Pack {
    key: PackKey,
    panel: usize,
    ticket: usize,
}

/// Where the sum of a task goes.
#[derive(Clone, Debug)]
enum Sum {
    /// Into C, segment by segment.
    Tile,
    /// Each segment by itself, into a partial sum.
    Partial { slot: usize, cut: Cut, spec: MatSpec },
}

#[derive(Clone, Debug)]
struct Task {
    step: usize,
    lhs: usize,
    rhs: usize,
    tile: usize,
    segments: Range<usize>,
    sum: Sum,
    /// The ticket that wrote the tile last.
    after: Option<usize>,
    last: bool,
}

#[derive(Clone, Debug)]
struct Reduce {
    step: usize,
    tile: usize,
    /// The tickets that must be done.
    after: Vec<usize>,
    /// The partial sums in ascending order: slot, segments.
    partials: Vec<(usize, Range<usize>)>,
    last: bool,
}

/// The executable form of a plan for one kernel.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    problem: Problem,
    kernel: Kernel,
    threads: usize,
    tickets: Vec<Ticket>,
    packs: Vec<Pack>,
    tasks: Vec<Task>,
    reduces: Vec<Reduce>,
    cut: Cut,
    step_work: Vec<u32>,
    scratch: Scratch,
}

impl Schedule {
    /// Turns a valid plan into tickets.
    pub(crate) fn new(plan: &TilePlan, kernel: Kernel, threads: usize) -> Schedule {
        Builder::new(plan, kernel, threads).build(plan)
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Whether every block of the side starts at a whole panel, as packed operands need.
    pub(crate) fn starts_at_panels(&self, lhs: bool) -> bool {
        let width = if lhs { self.kernel.mr } else { self.kernel.nr };
        self.cut.rects().iter().all(|rect| {
            let range = if lhs { &rect.rows } else { &rect.cols };
            range.start % width == 0
        })
    }
}

struct Builder {
    schedule: Schedule,
    pack_index: HashMap<PackKey, usize>,
    rects: Vec<Rect>,
    tile_index: HashMap<Rect, usize>,
    writer: HashMap<usize, usize>,
    panel_bytes: Vec<usize>,
    partial_bytes: Vec<(usize, usize)>,
}

impl Builder {
    fn new(plan: &TilePlan, kernel: Kernel, threads: usize) -> Self {
        let problem = plan.problem;
        let empty = Cut::new(problem.batch, problem.m, problem.n, Vec::new()).expect("no rectangles, no overlap");
        let schedule = Schedule {
            problem,
            kernel,
            threads,
            tickets: Vec::new(),
            packs: Vec::new(),
            tasks: Vec::new(),
            reduces: Vec::new(),
            cut: empty,
            step_work: vec![0; plan.steps.len()],
            scratch: Scratch::default(),
        };
        Builder {
            schedule,
            pack_index: HashMap::new(),
            rects: Vec::new(),
            tile_index: HashMap::new(),
            writer: HashMap::new(),
            panel_bytes: Vec::new(),
            partial_bytes: Vec::new(),
        }
    }

    fn build(mut self, plan: &TilePlan) -> Schedule {
        // On one thread nothing overlaps: each step packs, then computes, and one set of panels is enough.
        let ahead = self.schedule.threads > 1;
        let steps = plan.steps.len();
        let packs: Vec<Vec<usize>> = (0..steps).map(|step| self.packs_of(plan, step, ahead)).collect();
        if steps > 0 {
            self.draw_packs(&packs[0]);
        }
        for step in 0..steps {
            let work = self.work_of(plan, step, ahead);
            let middle = if ahead { work.len() / 2 } else { work.len() };
            for (i, ticket) in work.iter().enumerate() {
                if i == middle && step + 1 < steps {
                    self.draw_packs(&packs[step + 1]);
                }
                self.draw_work(*ticket, step);
            }
            if middle >= work.len() && step + 1 < steps {
                self.draw_packs(&packs[step + 1]);
            }
        }
        let problem = self.schedule.problem;
        self.schedule.cut =
            Cut::new(problem.batch, problem.m, problem.n, self.rects).expect("a valid plan's blocks are disjoint");
        self.schedule.scratch = Scratch {
            panels: self.panel_bytes,
            partials: self.partial_bytes,
            tiles: self.schedule.cut.rects().len(),
            tickets: self.schedule.tickets.len(),
            steps,
        };
        self.schedule
    }

    /// The distinct operand blocks of a step, each with a panel of its own.
    fn packs_of(&mut self, plan: &TilePlan, step: usize, ahead: bool) -> Vec<usize> {
        let schedule = &mut self.schedule;
        let kernel = schedule.kernel;
        let mut packs = Vec::new();
        let parity = if ahead { step % 2 } else { 0 };
        for task in plan.steps[step].tasks.iter().filter(|task| !task.segments.is_empty()) {
            for (side, range, width) in
                [(Side::Lhs, &task.rows, kernel.mr), (Side::Rhs, &task.cols, kernel.nr)]
            {
                let key = PackKey { step, side, batch: task.batch, range: range.clone(), segments: task.segments.clone() };
                if self.pack_index.contains_key(&key) {
                    continue;
                }
                // Panels alternate between even and odd steps.
                let stride = if ahead { 2 } else { 1 };
                let panel = packs.len() * stride + parity;
                let k = schedule.problem.k_range(&key.segments).len();
                let bytes = packed_len(key.range.len(), k, width) * kernel.format.bytes();
                if self.panel_bytes.len() <= panel {
                    self.panel_bytes.resize(panel + 1, 0);
                }
                self.panel_bytes[panel] = self.panel_bytes[panel].max(bytes);
                self.pack_index.insert(key.clone(), schedule.packs.len());
                packs.push(schedule.packs.len());
                schedule.packs.push(Pack { key, panel, ticket: usize::MAX });
            }
        }
        packs
    }

    fn draw_packs(&mut self, packs: &[usize]) {
        for &pack in packs {
            self.schedule.packs[pack].ticket = self.schedule.tickets.len();
            self.schedule.tickets.push(Ticket::Pack(pack));
        }
    }

    /// The tasks of a step and the reductions that follow them.
    fn work_of(&mut self, plan: &TilePlan, step: usize, ahead: bool) -> Vec<Ticket> {
        let problem = self.schedule.problem;
        let format = self.schedule.kernel.format;
        let tasks = &plan.steps[step].tasks;
        let mut tiles: HashMap<usize, Vec<usize>> = HashMap::new();
        for (i, task) in tasks.iter().enumerate() {
            let rect = Rect { batch: task.batch, rows: task.rows.clone(), cols: task.cols.clone() };
            let rects = &mut self.rects;
            let tile = *self.tile_index.entry(rect.clone()).or_insert_with(|| {
                rects.push(rect);
                rects.len() - 1
            });
            tiles.entry(tile).or_default().push(i);
        }
        let mut partials = 0;
        let mut work = Vec::new();
        let mut reduces = Vec::new();
        let mut seen: HashMap<usize, usize> = HashMap::new();
        for task in tasks {
            let rect = Rect { batch: task.batch, rows: task.rows.clone(), cols: task.cols.clone() };
            let tile = self.tile_index[&rect];
            let first = tiles[&tile].iter().all(|&other| tasks[other].segments.start >= task.segments.start);
            let sum = if first {
                Sum::Tile
            } else {
                let stride = if ahead { 2 } else { 1 };
                let slot = partials * stride + if ahead { step % 2 } else { 0 };
                partials += 1;
                let (m, n, batch) = (task.rows.len(), task.cols.len(), task.segments.len());
                if self.partial_bytes.len() <= slot {
                    self.partial_bytes.resize(slot + 1, (0, 0));
                }
                let needed = &mut self.partial_bytes[slot];
                *needed = (needed.0.max(m * n * batch * format.bytes()), needed.1.max(batch));
                let whole = |batch| Rect { batch, rows: 0..m, cols: 0..n };
                let cut = Cut::new(batch, m, n, (0..batch).map(whole).collect()).expect("whole matrices are disjoint");
                let spec = MatSpec {
                    start: 0,
                    batch: Axis::strided(batch, (m * n) as isize),
                    rows: Axis::strided(m, n as isize),
                    cols: Axis::strided(n, 1),
                };
                Sum::Partial { slot, cut, spec }
            };
            let index = self.schedule.tasks.len();
            let key = |side, range: &Range<usize>| PackKey {
                step,
                side,
                batch: task.batch,
                range: range.clone(),
                segments: task.segments.clone(),
            };
            let pack = |key| self.pack_index.get(&key).copied().unwrap_or(usize::MAX);
            self.schedule.tasks.push(Task {
                step,
                lhs: pack(key(Side::Lhs, &task.rows)),
                rhs: pack(key(Side::Rhs, &task.cols)),
                tile,
                segments: task.segments.clone(),
                sum,
                after: None,
                last: task.segments.end == problem.segments(),
            });
            work.push(Ticket::Task(index));
            if tiles[&tile].len() > 1 {
                let reduce = *seen.entry(tile).or_insert_with(|| {
                    let reduce = Reduce { step, tile, after: Vec::new(), partials: Vec::new(), last: false };
                    self.schedule.reduces.push(reduce);
                    reduces.push(Ticket::Reduce(self.schedule.reduces.len() - 1));
                    self.schedule.reduces.len() - 1
                });
                let reduce = &mut self.schedule.reduces[reduce];
                reduce.after.push(index | TASK); // a task for now, its ticket once drawn
                reduce.last |= self.schedule.tasks[index].last;
                if let Sum::Partial { slot, .. } = &self.schedule.tasks[index].sum {
                    reduce.partials.push((*slot, task.segments.clone()));
                }
            }
        }
        for reduce in &reduces {
            if let Ticket::Reduce(i) = *reduce {
                let reduce = &mut self.schedule.reduces[i];
                reduce.partials.sort_by_key(|(_, segments)| segments.start);
                // The reduction, not the task that writes the tile, finishes it.
                for &task in &reduce.after {
                    self.schedule.tasks[task & !TASK].last = false;
                }
            }
        }
        work.extend(reduces);
        work
    }

    fn draw_work(&mut self, work: Ticket, step: usize) {
        let ticket = self.schedule.tickets.len();
        self.schedule.tickets.push(work);
        self.schedule.step_work[step] += 1;
        match work {
            Ticket::Task(index) => {
                let task = &mut self.schedule.tasks[index];
                if matches!(task.sum, Sum::Tile) {
                    task.after = self.writer.insert(task.tile, ticket);
                }
                for reduce in self.schedule.reduces.iter_mut().rev().take_while(|reduce| reduce.step == step) {
                    for after in reduce.after.iter_mut().filter(|after| **after == (index | TASK)) {
                        *after = ticket;
                    }
                }
            }
            Ticket::Reduce(index) => {
                self.writer.insert(self.schedule.reduces[index].tile, ticket);
            }
            Ticket::Pack(_) => unreachable!("packs are drawn by draw_packs"),
        }
    }
}

/// Marks an entry of [`Reduce::after`] that still names a task and not its ticket.
const TASK: usize = 1 << (usize::BITS - 1);

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
    pub(crate) fn run<T: Element>(&self, run: &Run<'_, T>, dst: MatMut<'_, T>, threads: &Threads<'_>, ws: &mut Workspace) {
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
        if self.schedule.threads > 1 && step >= 2 && !self.progress.wait(|| self.progress.step_is_done(step - 2)) {
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
                let mut tile = self.tiles.take(task.tile).expect("tickets of one tile run one after the other");
                for segment in task.segments.clone() {
                    let replace = segment == 0 && self.run.accum == Accum::Replace;
                    let write = if replace { Write::Replace } else { Write::Add };
                    T::gemm_block(self.isa(), block(segment, write), &mut tile);
                }
                if task.last {
                    T::finish_tile(self.isa(), &self.run.epilogue, &mut tile);
                }
            }
            Sum::Partial { slot, cut, spec } => {
                let mut partial = self.partials[*slot].write().unwrap_or_else(PoisonError::into_inner);
                let crate::workspace::Partial { buf, claims } = &mut *partial;
                let len = rect.rows.len() * rect.cols.len() * task.segments.len();
                let mat = MatMut::new(buf.as_mut_slice::<T>(len), *spec).expect("a row-major matrix fits its buffer");
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
                let product = packed_len(extent, self.schedule.problem.k, width) * index.offset(batch) as usize;
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
