//! Plans: which die computes which block of a matmul, in which step, and which bytes travel over which link.
//!
//! Plain data and pure functions. No closures, pointers or lifetimes; nothing here knows threads or backends. A plan speaks of
//! one batch of matrix products `C[m x n] = A[m x k] B[k x n]` as the kernel sees it: a convolution and its gradients are such
//! products, and an output that lies column-major is computed as its transpose.
//!
//! Four consumers, none knows another: [`validate`], [`cost`], [`render`], and the executor in `backend/tile.rs`.

pub mod cost;
pub mod matmul;
pub mod render;
pub mod validate;

use std::fmt;
use std::ops::Range;

use tile25_kernels::format::Format;

use crate::numerics::KC;
use tile25_kernels::BYTES_KC;

/// The formats of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Formats {
    /// Of A.
    pub lhs: Format,
    /// Of B.
    pub rhs: Format,
    /// Of sums of products: f32, f64 or i32.
    pub sums: Format,
    /// Of C.
    pub out: Format,
}

impl Formats {
    /// All of one float format, f32 or f64.
    pub const fn all(format: Format) -> Self {
        Formats { lhs: format, rhs: format, sums: format, out: format }
    }
}

impl std::fmt::Display for Formats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.lhs == self.rhs && self.lhs == self.out {
            write!(f, "{}", self.out)
        } else {
            write!(f, "{} x {} -> {}", self.lhs, self.rhs, self.out)
        }
    }
}

/// A batch of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Formats of operands, sums and result.
    pub formats: Formats,
    /// Number of products.
    pub batch: usize,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

/// Steps of k in a segment: KC for floats (N1). Sums of integers are exact wherever they are cut (N4): their segments are four times as long, which is
/// as many bytes as those of f32.
pub(crate) fn segment(sums: Format) -> usize {
    if sums.is_integer() { BYTES_KC } else { KC }
}

impl Problem {
    /// Steps of k in a segment.
    pub fn segment(&self) -> usize {
        segment(self.formats.sums)
    }

    /// Segments that k is cut into.
    pub fn segments(&self) -> usize {
        self.k.div_ceil(self.segment())
    }

    /// Steps of k in a range of segments.
    pub fn k_range(&self, segments: &Range<usize>) -> Range<usize> {
        let at = |segment: usize| (segment * self.segment()).min(self.k);
        at(segments.start)..at(segments.end)
    }

    /// Multiply-adds.
    pub fn macs(&self) -> u64 {
        [self.batch, self.m, self.n, self.k]
            .iter()
            .fold(1u64, |product, &extent| product.saturating_mul(extent as u64))
    }

    /// Multiply-adds, or so many as take the time of reading both operands once, if that is more: what a few rows or columns cost.
    pub fn weight(&self) -> u64 {
        let lhs = self.m.saturating_mul(self.formats.lhs.bytes());
        let rhs = self.n.saturating_mul(self.formats.rhs.bytes());
        let reads = lhs.saturating_add(rhs).saturating_mul(self.k).saturating_mul(self.batch);
        self.macs().max((reads as u64).saturating_mul(MACS_A_BYTE))
    }
}

/// Multiply-adds that take the time of reading a byte from a cache beyond the first: a row by 768 x 768 of f32 reads 42 GB/s on Granite Rapids, where large products do 85 to 100 G multiply-adds a second
/// (benches/record/2026-11-27-granite-rapids.md).
const MACS_A_BYTE: u64 = 2;

/// A rectangle of dies. The D1 training tile is 5 x 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    /// Rows of dies.
    pub rows: usize,
    /// Columns of dies.
    pub cols: usize,
}

impl Mesh {
    /// The training tile: 25 dies, 5 x 5.
    pub const TILE: Mesh = Mesh { rows: 5, cols: 5 };

    /// Number of dies.
    pub fn dies(&self) -> usize {
        self.rows * self.cols
    }

    /// The die of a row-major index.
    pub fn die(&self, index: usize) -> DieId {
        DieId { row: index / self.cols, col: index % self.cols }
    }

    /// Whether the mesh has this die.
    pub fn has(&self, die: DieId) -> bool {
        die.row < self.rows && die.col < self.cols
    }
}

/// A die by its place in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DieId {
    /// Row, from the north.
    pub row: usize,
    /// Column, from the west.
    pub col: usize,
}

impl fmt::Display for DieId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{})", self.row, self.col)
    }
}

/// Where a link begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// The interface processors at the west edge of the die's mesh row.
    West,
    /// The interface processors at the north edge of the die's mesh column.
    North,
    /// A neighbouring die.
    Die(DieId),
}

/// One direction of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Where it begins.
    pub from: Port,
    /// The die where it ends.
    pub to: DieId,
}

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payload {
    /// Rows of A over some segments.
    A {
        /// Which product.
        batch: usize,
        /// Rows.
        range: (usize, usize),
        /// Segments of k.
        segments: (usize, usize),
    },
    /// Columns of B over some segments.
    B {
        /// Which product.
        batch: usize,
        /// Columns.
        range: (usize, usize),
        /// Segments of k.
        segments: (usize, usize),
    },
    /// The sum of a block of C over all segments before `segment`, passed on to the die that adds the next.
    PartialC {
        /// Which product.
        batch: usize,
        /// Rows.
        rows: (usize, usize),
        /// Columns.
        cols: (usize, usize),
        /// The next segment.
        segment: usize,
    },
}

/// Some bytes over one link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// The link.
    pub link: Link,
    /// What travels.
    pub payload: Payload,
    /// How many bytes.
    pub bytes: u64,
}

/// A block of C over some segments of k, computed by one die. k is cut in whole segments only: the type has no other cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockTask {
    /// Who computes.
    pub die: DieId,
    /// Which product.
    pub batch: usize,
    /// Rows of C.
    pub rows: Range<usize>,
    /// Columns of C.
    pub cols: Range<usize>,
    /// Segments of k; empty only where k is 0.
    pub segments: Range<usize>,
}

impl BlockTask {
    /// The operands of the task, as payloads.
    pub fn operands(&self) -> [Payload; 2] {
        let pair = |range: &Range<usize>| (range.start, range.end);
        let segments = pair(&self.segments);
        [
            Payload::A { batch: self.batch, range: pair(&self.rows), segments },
            Payload::B { batch: self.batch, range: pair(&self.cols), segments },
        ]
    }

    /// Multiply-adds.
    pub fn macs(&self, problem: &Problem) -> u64 {
        (self.rows.len() * self.cols.len()) as u64 * problem.k_range(&self.segments).len() as u64
    }
}

/// Work that may run at the same time, and what must arrive for it. Transfers may overlap the tasks of the step before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Step {
    /// What travels, along each route in order.
    pub transfers: Vec<Transfer>,
    /// What is computed.
    pub tasks: Vec<BlockTask>,
}

/// A plan: the problem, the mesh, the steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TilePlan {
    /// The dies.
    pub mesh: Mesh,
    /// What is computed.
    pub problem: Problem,
    /// In which order.
    pub steps: Vec<Step>,
}

impl TilePlan {
    /// All tasks, in order.
    pub fn tasks(&self) -> impl Iterator<Item = &BlockTask> {
        self.steps.iter().flat_map(|step| &step.tasks)
    }

    /// Multiply-adds of each die, row-major.
    pub fn macs_per_die(&self) -> Vec<u64> {
        let mut macs = vec![0; self.mesh.dies()];
        for task in self.tasks() {
            macs[task.die.row * self.mesh.cols + task.die.col] += task.macs(&self.problem);
        }
        macs
    }

    /// Fills in the transfers that the tasks of every step need: A enters at the west edge of each mesh row that reads it and
    /// runs east, B enters at the north edge of each mesh column that reads it and runs south, a partial C runs along its mesh row
    /// and then its column to the die that adds the next segment. C stays on the die that finished it.
    pub fn route(&mut self) {
        let mut holder = std::collections::HashMap::new();
        let problem = self.problem;
        for step in &mut self.steps {
            step.transfers.clear();
            // How far each payload must run in each mesh row (A) or column (B).
            let mut reach: std::collections::BTreeMap<(Payload, usize), usize> = Default::default();
            for task in &step.tasks {
                let [a, b] = task.operands();
                let east = reach.entry((a, task.die.row)).or_default();
                *east = (*east).max(task.die.col);
                let south = reach.entry((b, task.die.col)).or_default();
                *south = (*south).max(task.die.row);
            }
            for ((payload, lane), last) in reach {
                let bytes = payload_bytes(&problem, &payload);
                if bytes == 0 {
                    continue;
                }
                for at in 0..=last {
                    let (die, before, edge) = match payload {
                        Payload::A { .. } => (
                            DieId { row: lane, col: at },
                            DieId { row: lane, col: at.wrapping_sub(1) },
                            Port::West,
                        ),
                        _ => (
                            DieId { row: at, col: lane },
                            DieId { row: at.wrapping_sub(1), col: lane },
                            Port::North,
                        ),
                    };
                    let from = if at == 0 { edge } else { Port::Die(before) };
                    step.transfers.push(Transfer {
                        link: Link { from, to: die },
                        payload: payload.clone(),
                        bytes,
                    });
                }
            }
            let mut chain: Vec<&BlockTask> = step.tasks.iter().collect();
            chain.sort_by_key(|task| task.segments.start);
            for task in chain {
                let tile = (task.batch, task.rows.clone(), task.cols.clone());
                if let Some(from) = holder.insert(tile, task.die).filter(|&from| from != task.die) {
                    let payload = Payload::PartialC {
                        batch: task.batch,
                        rows: (task.rows.start, task.rows.end),
                        cols: (task.cols.start, task.cols.end),
                        segment: task.segments.start,
                    };
                    let bytes = payload_bytes(&problem, &payload);
                    step.transfers.extend(path(from, task.die).map(|link| Transfer {
                        link,
                        payload: payload.clone(),
                        bytes,
                    }));
                }
            }
        }
    }
}

/// The size of a payload. Operands travel as they are stored, partial sums as they are added.
pub fn payload_bytes(problem: &Problem, payload: &Payload) -> u64 {
    let Formats { lhs, rhs, sums, .. } = problem.formats;
    let elements = |range: &(usize, usize), segments: &(usize, usize), format: Format| {
        (range.1 - range.0) * problem.k_range(&(segments.0..segments.1)).len() * format.bytes()
    };
    let bytes = match payload {
        Payload::A { range, segments, .. } => elements(range, segments, lhs),
        Payload::B { range, segments, .. } => elements(range, segments, rhs),
        Payload::PartialC { rows, cols, .. } => (rows.1 - rows.0) * (cols.1 - cols.0) * sums.bytes(),
    };
    bytes as u64
}

/// The links from one die to another: along the mesh row first, then along the column.
fn path(from: DieId, to: DieId) -> impl Iterator<Item = Link> {
    let towards = |at: usize, goal: usize| if at < goal { at + 1 } else { at - 1 };
    let mut at = from;
    std::iter::from_fn(move || {
        let before = at;
        if at.col != to.col {
            at.col = towards(at.col, to.col);
        } else if at.row != to.row {
            at.row = towards(at.row, to.row);
        } else {
            return None;
        }
        Some(Link { from: Port::Die(before), to: at })
    })
}
