//! A plan made executable for one kernel: one list of tickets, each depending only on earlier ones.
//!
//! A ticket packs an operand block, computes a task, or adds up partial sums. Blocks that tasks of a step share are packed once.
//! The panels of even and odd steps are different memory, so the packs of the next step can be drawn in the middle of this one.

use std::collections::HashMap;
use std::ops::Range;

use tile25_kernels::axis::{Axis, Window};
use tile25_kernels::mat::{Cut, MatSpec, Places, Rect};
use tile25_kernels::pack::Side;
use tile25_kernels::registry::Kernel;

use crate::plan::{Problem, Step, TilePlan};
use crate::workspace::Scratch;

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
        (problem.formats.lhs, problem.formats.rhs) = (problem.formats.rhs, problem.formats.lhs);
        (dst.rows, dst.cols) = (dst.cols, dst.rows);
        Gemm { problem, lhs: rhs, rhs: lhs, dst }
    }

    /// Whether the transposed product writes along whole vectors and this one does not.
    pub(crate) fn prefers_transposed(&self) -> bool {
        let (rows, cols) = (self.dst.rows.inner(), self.dst.cols.inner());
        rows.stride == 1 && rows.extent > 1 && (cols.stride != 1 || cols.extent == 1)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ticket {
    Pack(usize),
    Task(usize),
    Reduce(usize),
}

/// Packs one operand block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PackKey {
    pub(super) step: usize,
    pub(super) side: Side,
    pub(super) batch: usize,
    pub(super) range: Range<usize>,
    pub(super) segments: Range<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Pack {
    pub(super) key: PackKey,
    pub(super) panel: usize,
    pub(super) ticket: usize,
}

/// Where the sum of a task goes.
#[derive(Clone, Debug)]
pub(super) enum Sum {
    /// Into C, segment by segment.
    Tile,
    /// Each segment by itself, into a partial sum.
    Partial(Box<SumSlot>),
}

/// A slot of the workspace, and how sums lie in it: row-major matrices of the size of a tile, one after the other.
#[derive(Clone, Debug)]
pub(super) struct SumSlot {
    pub(super) slot: usize,
    pub(super) cut: Cut,
    pub(super) places: Places,
}

impl SumSlot {
    fn new(slot: usize, batch: usize, m: usize, n: usize) -> Self {
        let whole = |batch| Rect { batch, rows: 0..m, cols: 0..n };
        let cut =
            Cut::new(batch, m, n, (0..batch).map(whole).collect()).expect("whole matrices are disjoint");
        let spec = MatSpec {
            start: 0,
            batch: Axis::strided(batch, (m * n) as isize),
            rows: Axis::strided(m, n as isize),
            cols: Axis::strided(n, 1),
        };
        SumSlot { slot, cut, places: Places::new(spec) }
    }

    /// Elements of all its matrices.
    pub(super) fn len(&self) -> usize {
        self.cut.rects().iter().map(|rect| rect.rows.len() * rect.cols.len()).sum()
    }
}

/// Bytes of an operand block packed over some segments.
pub(super) fn packed_bytes(
    problem: &Problem,
    kernel: Kernel,
    segments: &Range<usize>,
    extent: usize,
    width: usize,
) -> usize {
    let segment = |segment: usize| {
        kernel.form.packed_bytes(extent, problem.k_range(&(segment..segment + 1)).len(), width)
    };
    segments.clone().map(segment).sum()
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) step: usize,
    pub(super) lhs: usize,
    pub(super) rhs: usize,
    pub(super) tile: usize,
    pub(super) segments: Range<usize>,
    pub(super) sum: Sum,
    /// The ticket that wrote the tile last.
    pub(super) after: Option<usize>,
    pub(super) last: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Reduce {
    pub(super) step: usize,
    pub(super) tile: usize,
    /// The tickets that must be done.
    pub(super) after: Vec<usize>,
    /// The partial sums in ascending order: slot, segments.
    pub(super) partials: Vec<(usize, Range<usize>)>,
    pub(super) last: bool,
}

/// The executable form of a plan for one kernel.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(super) problem: Problem,
    pub(super) kernel: Kernel,
    pub(super) threads: usize,
    pub(super) tickets: Vec<Ticket>,
    pub(super) packs: Vec<Pack>,
    pub(super) tasks: Vec<Task>,
    pub(super) reduces: Vec<Reduce>,
    pub(super) cut: Cut,
    pub(super) step_work: Vec<u32>,
    /// Where the sums of each tile lie, if they are of another format than C.
    pub(super) sums: Vec<SumSlot>,
    pub(super) scratch: Scratch,
}

impl Schedule {
    /// Turns a valid plan into tickets.
    pub(crate) fn new(plan: &TilePlan, kernel: Kernel, threads: usize) -> Schedule {
        // An empty step would count as done at once, and the step after it overwrite panels that the step before it still reads.
        let steps: Vec<&Step> = plan.steps.iter().filter(|step| !step.tasks.is_empty()).collect();
        Builder::new(plan, steps.len(), kernel, threads).build(&steps)
    }

    /// Whether sums lie apart from C.
    pub(super) fn sums_apart(&self) -> bool {
        self.problem.formats.sums != self.problem.formats.out
    }

    /// Gives each tile a slot for its sums from its first ticket to its last, where they lie apart from C. Returns the bytes of each slot. A slot goes to
    /// another tile some tickets after its last use, so that hardly anyone waits for it.
    fn place_sums(&mut self) -> Vec<usize> {
        let mut bytes: Vec<usize> = Vec::new();
        if !self.sums_apart() {
            return bytes;
        }
        let tiles = self.cut.rects().len();
        // The first task of each tile, and the first and last ticket.
        let mut life = vec![(usize::MAX, usize::MAX, 0); tiles];
        for (at, ticket) in self.tickets.iter().enumerate() {
            let (tile, task) = match *ticket {
                Ticket::Pack(_) => continue,
                Ticket::Task(task) if matches!(self.tasks[task].sum, Sum::Partial(_)) => continue,
                Ticket::Task(task) => (self.tasks[task].tile, task),
                Ticket::Reduce(reduce) => (self.reduces[reduce].tile, usize::MAX),
            };
            let life = &mut life[tile];
            if life.1 == usize::MAX {
                (life.0, life.1) = (task, at);
            }
            life.2 = at;
        }
        let mut order: Vec<usize> = (0..tiles).collect();
        order.sort_unstable_by_key(|&tile| life[tile].1);
        let mut slots = vec![0; tiles];
        let mut free: std::collections::VecDeque<(usize, usize)> = std::collections::VecDeque::new();
        for tile in order {
            let (first_task, first, last) = life[tile];
            let rect = &self.cut.rects()[tile];
            let needed = rect.rows.len() * rect.cols.len() * self.problem.formats.sums.bytes();
            let reuse = free.iter().position(|&(until, _)| until + 4 * self.threads < first);
            let slot = if let Some((until, slot)) = reuse.and_then(|at| free.remove(at)) {
                self.tasks[first_task].after = Some(until);
                slot
            } else {
                bytes.push(0);
                bytes.len() - 1
            };
            bytes[slot] = bytes[slot].max(needed);
            slots[tile] = slot;
            free.push_back((last, slot));
        }
        let place = |(rect, slot): (&Rect, usize)| SumSlot::new(slot, 1, rect.rows.len(), rect.cols.len());
        self.sums = self.cut.rects().iter().zip(slots).map(place).collect();
        bytes
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
    fn new(plan: &TilePlan, steps: usize, kernel: Kernel, threads: usize) -> Self {
        let problem = plan.problem;
        let empty =
            Cut::new(problem.batch, problem.m, problem.n, Vec::new()).expect("no rectangles, no overlap");
        let schedule = Schedule {
            problem,
            kernel,
            threads,
            tickets: Vec::new(),
            packs: Vec::new(),
            tasks: Vec::new(),
            reduces: Vec::new(),
            cut: empty,
            step_work: vec![0; steps],
            sums: Vec::new(),
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

    fn build(mut self, steps: &[&Step]) -> Schedule {
        // On one thread nothing overlaps: each step packs, then computes, and one set of panels is enough.
        let ahead = self.schedule.threads > 1;
        let packs: Vec<Vec<usize>> =
            steps.iter().enumerate().map(|(i, step)| self.packs_of(step, i, ahead)).collect();
        if let Some(first) = packs.first() {
            self.draw_packs(first);
        }
        for (step, &now) in steps.iter().enumerate() {
            let work = self.work_of(now, step, ahead);
            let middle = if ahead { work.len() / 2 } else { work.len() };
            for (i, ticket) in work.iter().enumerate() {
                if i == middle && step + 1 < steps.len() {
                    self.draw_packs(&packs[step + 1]);
                }
                self.draw_work(*ticket, step);
            }
            if middle >= work.len() && step + 1 < steps.len() {
                self.draw_packs(&packs[step + 1]);
            }
        }
        let problem = self.schedule.problem;
        self.schedule.cut = Cut::new(problem.batch, problem.m, problem.n, self.rects)
            .expect("a valid plan's blocks are disjoint");
        let sums = self.schedule.place_sums();
        self.schedule.scratch = Scratch {
            panels: self.panel_bytes,
            partials: self.partial_bytes,
            sums,
            tiles: self.schedule.cut.rects().len(),
            tickets: self.schedule.tickets.len(),
            steps: steps.len(),
        };
        self.schedule
    }

    /// The distinct operand blocks of a step, each with a panel of its own.
    fn packs_of(&mut self, now: &Step, step: usize, ahead: bool) -> Vec<usize> {
        let schedule = &mut self.schedule;
        let kernel = schedule.kernel;
        let mut packs = Vec::new();
        let parity = if ahead { step % 2 } else { 0 };
        for task in now.tasks.iter().filter(|task| !task.segments.is_empty()) {
            for (side, range, width) in
                [(Side::Lhs, &task.rows, kernel.mr), (Side::Rhs, &task.cols, kernel.nr)]
            {
                let key = PackKey {
                    step,
                    side,
                    batch: task.batch,
                    range: range.clone(),
                    segments: task.segments.clone(),
                };
                if self.pack_index.contains_key(&key) {
                    continue;
                }
                // Panels alternate between even and odd steps.
                let stride = if ahead { 2 } else { 1 };
                let panel = packs.len() * stride + parity;
                let bytes = packed_bytes(&schedule.problem, kernel, &key.segments, key.range.len(), width);
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
    fn work_of(&mut self, now: &Step, step: usize, ahead: bool) -> Vec<Ticket> {
        let problem = self.schedule.problem;
        let format = problem.formats.sums;
        let tasks = &now.tasks;
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
                Sum::Partial(Box::new(SumSlot::new(slot, batch, m, n)))
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
                if let Sum::Partial(sum) = &self.schedule.tasks[index].sum {
                    reduce.partials.push((sum.slot, task.segments.clone()));
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
                for reduce in self.schedule.reduces.iter_mut().rev().take_while(|reduce| reduce.step == step)
                {
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
