//! The laws of a plan. A plan that keeps them yields the bits of the reference, whatever else it does: this is the hypothesis
//! of the bit-identity theorem, and the executor takes no other plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use thiserror::Error;
use tile25_kernels::mat::{Cut, Rect};

use super::{BlockTask, DieId, Link, Mesh, Payload, Port, TilePlan, payload_bytes};
use crate::machine::d1;

/// The tasks of each block of C, with their steps.
type Chains<'p> = HashMap<Rect, Vec<(usize, &'p BlockTask)>>;

/// The law that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A task without rows or columns, or without segments where k is not 0.
    #[error("step {step}: a task of die {die} has no work")]
    EmptyTask {
        /// The step.
        step: usize,
        /// The die.
        die: DieId,
    },
    /// A die that the mesh does not have.
    #[error("step {step}: there is no die {die}")]
    NoSuchDie {
        /// The step.
        step: usize,
        /// The die.
        die: DieId,
    },
    /// A task beyond the problem's batch, rows, columns or segments.
    #[error("step {step}: a task of die {die} leaves the problem")]
    OutsideProblem {
        /// The step.
        step: usize,
        /// The die.
        die: DieId,
    },
    /// Two blocks of C that overlap without being the same.
    #[error("two blocks of C overlap without being the same")]
    BlocksOverlap,
    /// A part of C that no task computes.
    #[error("{missing} elements of C are computed by no task")]
    NotCovered {
        /// How many elements.
        missing: u64,
    },
    /// The segments of a block are not each computed once, in ascending order over the steps.
    #[error(
        "batch {batch}, rows {rows:?}, columns {cols:?}: segment {expected} must come next, found {found}"
    )]
    SegmentOrder {
        /// Which product.
        batch: usize,
        /// Rows of the block.
        rows: Range<usize>,
        /// Its columns.
        cols: Range<usize>,
        /// The segment that is due.
        expected: usize,
        /// The segment that comes.
        found: usize,
    },
    /// A link between dies that are no neighbours, or from an edge that the die does not touch.
    #[error("step {step}: there is no link {link:?}")]
    NoSuchLink {
        /// The step.
        step: usize,
        /// The link.
        link: Link,
    },
    /// A transfer whose size is not that of its payload.
    #[error("step {step}: a transfer of {bytes} bytes carries a payload of {expected}")]
    WrongBytes {
        /// The step.
        step: usize,
        /// As planned.
        bytes: u64,
        /// The payload's size.
        expected: u64,
    },
    /// A die passes on what it does not have.
    #[error("step {step}: the source of link {link:?} does not have what it sends")]
    NothingToSend {
        /// The step.
        step: usize,
        /// The link.
        link: Link,
    },
    /// An operand, or the partial sum of the segments before, does not reach the die that needs it.
    #[error("step {step}: die {die} lacks {payload:?}")]
    NotDelivered {
        /// The step.
        step: usize,
        /// The die.
        die: DieId,
        /// What it lacks.
        payload: Payload,
    },
    /// More than the die's memory holds.
    #[error("step {step}: die {die} needs {bytes} bytes, it has {available}")]
    SramOverflow {
        /// The step.
        step: usize,
        /// The die.
        die: DieId,
        /// What it needs.
        bytes: u64,
        /// What it has.
        available: u64,
    },
}

impl TilePlan {
    /// Checks every law.
    ///
    /// # Errors
    /// The first law found broken.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.check_tasks()?;
        let tiles = self.check_cover()?;
        self.check_segments(&tiles)?;
        self.check_transfers()
    }

    fn check_tasks(&self) -> Result<(), Invalid> {
        let problem = &self.problem;
        for (step, task) in
            self.steps.iter().enumerate().flat_map(|(s, step)| step.tasks.iter().map(move |t| (s, t)))
        {
            let die = task.die;
            if !self.mesh.has(die) {
                return Err(Invalid::NoSuchDie { step, die });
            }
            let inside = task.batch < problem.batch
                && task.rows.end <= problem.m
                && task.cols.end <= problem.n
                && task.segments.end <= problem.segments();
            if !inside {
                return Err(Invalid::OutsideProblem { step, die });
            }
            if task.rows.is_empty() || task.cols.is_empty() || (task.segments.is_empty() && problem.k != 0) {
                return Err(Invalid::EmptyTask { step, die });
            }
        }
        Ok(())
    }

    /// The blocks of C, each once: disjoint, and together all of C.
    fn check_cover(&self) -> Result<Chains<'_>, Invalid> {
        let mut tiles = Chains::new();
        for (s, step) in self.steps.iter().enumerate() {
            for task in &step.tasks {
                let rect = Rect { batch: task.batch, rows: task.rows.clone(), cols: task.cols.clone() };
                tiles.entry(rect).or_default().push((s, task));
            }
        }
        let rects = tiles.keys().cloned().collect();
        let problem = &self.problem;
        let cut = Cut::new(problem.batch, problem.m, problem.n, rects).map_err(|_| Invalid::BlocksOverlap)?;
        let area = |rect: &Rect| (rect.rows.len() * rect.cols.len()) as u64;
        let covered: u64 = cut.rects().iter().map(area).sum();
        let whole = (problem.batch * problem.m * problem.n) as u64;
        if covered != whole {
            return Err(Invalid::NotCovered { missing: whole - covered });
        }
        Ok(tiles)
    }

    fn check_segments(&self, tiles: &HashMap<Rect, Vec<(usize, &BlockTask)>>) -> Result<(), Invalid> {
        for (rect, tasks) in tiles {
            let mut order = tasks.clone();
            order.sort_by_key(|(step, task)| (*step, task.segments.start));
            let mut expected = 0;
            let wrong = |expected, found| Invalid::SegmentOrder {
                batch: rect.batch,
                rows: rect.rows.clone(),
                cols: rect.cols.clone(),
                expected,
                found,
            };
            for (_, task) in &order {
                if task.segments.start != expected {
                    return Err(wrong(expected, task.segments.start));
                }
                expected = task.segments.end;
            }
            if expected != self.problem.segments() || (self.problem.k == 0 && order.len() > 1) {
                return Err(wrong(expected, self.problem.segments()));
            }
        }
        Ok(())
    }

    fn check_transfers(&self) -> Result<(), Invalid> {
        let mut holder: HashMap<(usize, Range<usize>, Range<usize>), DieId> = HashMap::new();
        for (step, work) in self.steps.iter().enumerate() {
            // Who holds which partial sum when the step begins is known from the tasks, in segment order.
            let mut chain: Vec<&BlockTask> = work.tasks.iter().collect();
            chain.sort_by_key(|task| task.segments.start);
            let mut has: BTreeSet<(Payload, DieId)> = BTreeSet::new();
            let mut needs: Vec<(Payload, DieId)> = Vec::new();
            for task in &chain {
                let tile = (task.batch, task.rows.clone(), task.cols.clone());
                let partial = Payload::PartialC {
                    batch: task.batch,
                    rows: (task.rows.start, task.rows.end),
                    cols: (task.cols.start, task.cols.end),
                    segment: task.segments.start,
                };
                if let Some(from) = holder.insert(tile, task.die).filter(|&from| from != task.die) {
                    has.insert((partial.clone(), from));
                    needs.push((partial, task.die));
                }
                let operands =
                    task.operands().into_iter().filter(|payload| payload_bytes(&self.problem, payload) > 0);
                needs.extend(operands.map(|payload| (payload, task.die)));
            }
            for transfer in &work.transfers {
                let link = transfer.link;
                if !link_exists(self.mesh, link) {
                    return Err(Invalid::NoSuchLink { step, link });
                }
                let expected = payload_bytes(&self.problem, &transfer.payload);
                if transfer.bytes != expected {
                    return Err(Invalid::WrongBytes { step, bytes: transfer.bytes, expected });
                }
                let from_edge = !matches!(transfer.payload, Payload::PartialC { .. });
                let can_send = match link.from {
                    Port::West | Port::North => from_edge,
                    Port::Die(from) => has.contains(&(transfer.payload.clone(), from)),
                };
                if !can_send {
                    return Err(Invalid::NothingToSend { step, link });
                }
                has.insert((transfer.payload.clone(), link.to));
            }
            for (payload, die) in needs {
                let key = (payload, die);
                if !has.contains(&key) {
                    return Err(Invalid::NotDelivered { step, die, payload: key.0 });
                }
            }
            // Everything that arrives, and the blocks of C that are computed, must lie on the die at once.
            let mut bytes: BTreeMap<DieId, u64> = BTreeMap::new();
            for transfer in &work.transfers {
                *bytes.entry(transfer.link.to).or_default() += transfer.bytes;
            }
            for task in &work.tasks {
                let c = (task.rows.len() * task.cols.len() * self.problem.formats.sums.bytes()) as u64;
                *bytes.entry(task.die).or_default() += c;
            }
            let available = d1::DIE_SRAM_BYTES;
            if let Some((&die, &bytes)) = bytes.iter().find(|(_, bytes)| **bytes > available) {
                return Err(Invalid::SramOverflow { step, die, bytes, available });
            }
        }
        Ok(())
    }
}

fn link_exists(mesh: Mesh, link: Link) -> bool {
    let to = link.to;
    mesh.has(to)
        && match link.from {
            Port::West => to.col == 0,
            Port::North => to.row == 0,
            Port::Die(from) => mesh.has(from) && from.row.abs_diff(to.row) + from.col.abs_diff(to.col) == 1,
        }
}
