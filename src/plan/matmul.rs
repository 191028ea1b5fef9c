//! The planner: cuts a batch of matrix products into waves of blocks for the dies.
//!
//! A wave is a part of C that the dies compute together, a block each; over one wave k advances a segment a step. Blocks are
//! sized so that both packed operands of a block over one segment fit a second-level cache, so a wave bounds the scratch.

use std::ops::Range;

use super::{BlockTask, Mesh, Problem, Step, TilePlan};

/// What block borders are multiples of: the tile of the kernel. Only the last block of a row or column then has an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// Rows of a microkernel tile.
    pub rows: usize,
    /// Columns of a microkernel tile.
    pub cols: usize,
    /// Bytes of a packed element.
    pub bytes: usize,
}

/// Most bytes of a task's packed A over one segment: it stays in a second-level cache of 1 MiB while panels of B pass by.
const BLOCK_BYTES: usize = 448 * 1024;
/// Most bytes of a wave's packed A over one segment, and of its packed B: all tasks of the wave share them, through the last-level cache.
const WAVE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a wave's sums where they lie apart from C and C has fewer rows or columns than [`NARROW`]: there are then more sums than operands, and they bound the wave. At 4 MiB scratch stays below 2 MiB a thread
/// (tests/scratch.rs); speed was not swept.
const SUMS_BYTES: usize = 4 * 1024 * 1024;
/// See [`SUMS_BYTES`]. Waves of other results are wide enough for what they pack.
const NARROW: usize = 256;
/// Below this many multiply-adds one die does it all: a ticket costs more than it saves. How many threads a product is worth is `backend::fork`'s.
/// A fork and join of rayon takes 5 to 20 us here, 64^3 takes 2 us on one thread (benches/record/2026-11-24-blocks.md).
const ONE_DIE_MACS: u64 = 96 * 96 * 96;
/// Tasks that one thread should find at least, so that the last one does not wait long for the other threads.
const TASKS_PER_THREAD: usize = 12;
/// A product with fewer rows and columns than this is split along k when its blocks cannot feed the threads.
const SPLIT_K_EXTENT: usize = 128;

/// Plans `problem` for blocks of `grain` and for `threads` threads on the training tile.
pub fn plan(problem: Problem, grain: Grain, threads: usize) -> TilePlan {
    let mesh = Mesh::TILE;
    let mut plan = TilePlan { mesh, problem, steps: Vec::new() };
    if problem.macs() <= ONE_DIE_MACS {
        let tasks = (0..problem.batch).map(|batch| BlockTask {
            die: mesh.die(0),
            batch,
            rows: 0..problem.m,
            cols: 0..problem.n,
            segments: 0..problem.segments(),
        });
        plan.steps.push(Step { transfers: Vec::new(), tasks: tasks.collect() });
        plan.route();
        return plan;
    }
    let grid = Grid::choose(&problem, grain, mesh, threads);
    let segments = problem.segments();
    for batch in split(problem.batch, problem.batch.div_ceil(grid.batch), 1) {
        for wave_rows in &grid.waves_m {
            for wave_cols in &grid.waves_n {
                let blocks = grid.blocks(mesh, &batch, wave_rows, wave_cols, grain);
                // One segment a step, or one a die along the chain of a k split; a product without k still has its one step.
                for first in (0..segments.max(1)).step_by(grid.chain) {
                    let chain = first..(first + grid.chain).min(segments);
                    plan.steps.push(Step { transfers: Vec::new(), tasks: blocks.tasks(mesh, chain) });
                }
            }
        }
    }
    plan.route();
    plan
}

/// How many dies share what.
struct Grid {
    /// Products computed side by side.
    batch: usize,
    /// Dies along the rows of a product.
    rows: usize,
    /// Dies along its columns.
    cols: usize,
    /// Dies along k.
    chain: usize,
    /// Pieces that a die's block is cut into, along rows and along columns.
    pieces: (usize, usize),
    waves_m: Vec<Range<usize>>,
    waves_n: Vec<Range<usize>>,
}

impl Grid {
    fn choose(problem: &Problem, grain: Grain, mesh: Mesh, threads: usize) -> Grid {
        let line = grain.bytes * problem.k.clamp(1, problem.segment());
        let most_rows = ((BLOCK_BYTES / line) / grain.rows).max(1) * grain.rows;
        // Blocks of two tiles at least, so that packing is worth its while.
        let useful = |extent: usize, grain: usize| extent.div_ceil(2 * grain);
        let (units_m, units_n) = (useful(problem.m, grain.rows), useful(problem.n, grain.cols));
        // Square where both sides allow it; a narrow side lends its dies to the long one.
        let (mut rows, mut cols) = (units_m.min(mesh.rows), units_n.min(mesh.cols));
        if rows < mesh.rows {
            cols = units_n.min(mesh.dies() / rows);
        } else if cols < mesh.cols {
            rows = units_m.min(mesh.dies() / cols);
        }
        let waves = |extent: usize, across: usize, grain: usize| {
            let formats = &problem.formats;
            if formats.sums == formats.out || across >= NARROW {
                return split(extent, (extent * line).div_ceil(WAVE_BYTES), grain);
            }
            let bytes = line.max(across * formats.sums.bytes());
            // All but the last of one size: scratch then does not depend on how many there are.
            let most = (SUMS_BYTES / bytes / grain).max(1) * grain;
            (0..extent.max(1)).step_by(most).map(|first| first..extent.min(first + most)).collect()
        };
        let waves_m = waves(problem.m, problem.n, grain.rows);
        let waves_n = waves(problem.n, problem.m, grain.cols);
        let batch = (mesh.dies() / (rows * cols)).clamp(1, problem.batch);

        // Enough pieces for the threads: first finer blocks, then, for a small C under a long k, a chain along k.
        let segments = problem.segments().max(1);
        let waves = waves_m.len() * waves_n.len() * problem.batch.div_ceil(batch);
        let mut pieces = (problem.m.div_ceil(rows * waves_m.len() * most_rows), 1);
        let mut chain = 1;
        if threads > 1 {
            let tasks = |pieces: (usize, usize)| waves * segments * batch * rows * cols * pieces.0 * pieces.1;
            let blocks = |pieces: (usize, usize)| batch * rows * cols * pieces.0 * pieces.1;
            let small = problem.m <= SPLIT_K_EXTENT && problem.n <= SPLIT_K_EXTENT;
            if small && segments >= 2 * threads && batch * rows * cols < TASKS_PER_THREAD * threads {
                // The chain needs the dies: one block a product, all dies along k.
                let batch = problem.batch.min(mesh.dies() / (2 * threads).min(mesh.dies())).max(1);
                let chain = segments.min(mesh.dies() / batch);
                let (waves_m, waves_n) = (split(problem.m, 1, grain.rows), split(problem.n, 1, grain.cols));
                return Grid { batch, rows: 1, cols: 1, chain, pieces, waves_m, waves_n };
            }
            while tasks(pieces) < TASKS_PER_THREAD * threads || blocks(pieces) < 2 * threads {
                let room_m = problem.m / (rows * pieces.0 * waves_m.len()) >= 2 * grain.rows;
                let room_n = problem.n / (cols * pieces.1 * waves_n.len()) >= 2 * grain.cols;
                match (room_m, room_n) {
                    (true, _) if pieces.0 <= pieces.1 || !room_n => pieces.0 += 1,
                    (_, true) => pieces.1 += 1,
                    _ => break,
                }
            }
            if blocks(pieces) < threads {
                chain = segments.min(mesh.dies() / (batch * rows * cols)).max(1);
            }
        }
        Grid { batch, rows, cols, chain, pieces, waves_m, waves_n }
    }

    fn blocks(
        &self,
        mesh: Mesh,
        batch: &Range<usize>,
        rows: &Range<usize>,
        cols: &Range<usize>,
        grain: Grain,
    ) -> Blocks {
        let cut =
            |range: &Range<usize>, dies: usize, pieces: usize, grain: usize| -> Vec<(usize, Range<usize>)> {
                let shift = |part: Range<usize>, by: usize| part.start + by..part.end + by;
                split(range.len(), dies, grain)
                    .into_iter()
                    .enumerate()
                    .flat_map(|(die, part)| {
                        let at = range.start + part.start;
                        split(part.len(), pieces, grain).into_iter().map(move |piece| (die, shift(piece, at)))
                    })
                    .collect()
            };
        let (rows, cols) = (
            cut(rows, self.rows, self.pieces.0, grain.rows),
            cut(cols, self.cols, self.pieces.1, grain.cols),
        );
        let square = self.rows <= mesh.rows && self.cols <= mesh.cols && self.batch == 1 && self.chain == 1;
        let mut blocks = Vec::new();
        for (b, batch) in batch.clone().enumerate() {
            for (r, rows) in &rows {
                for (c, cols) in &cols {
                    // A square grid keeps the places of the mesh; any other runs along the dies row by row.
                    let die = if square {
                        r * mesh.cols + c
                    } else {
                        ((b * self.rows + r) * self.cols + c) * self.chain
                    };
                    blocks.push((die, batch, rows.clone(), cols.clone()));
                }
            }
        }
        Blocks(blocks)
    }
}

/// The blocks of a wave: first die of the chain, product, rows, columns.
struct Blocks(Vec<(usize, usize, Range<usize>, Range<usize>)>);

impl Blocks {
    fn tasks(&self, mesh: Mesh, chain: Range<usize>) -> Vec<BlockTask> {
        let one = |link: usize, segments: Range<usize>| {
            self.0.iter().map(move |(die, batch, rows, cols)| BlockTask {
                die: mesh.die(die + link),
                batch: *batch,
                rows: rows.clone(),
                cols: cols.clone(),
                segments: segments.clone(),
            })
        };
        if chain.is_empty() {
            return one(0, 0..0).collect();
        }
        chain.enumerate().flat_map(|(link, segment)| one(link, segment..segment + 1)).collect()
    }
}

/// Cuts `0..extent` into at most `parts` ranges with borders at multiples of `grain`, as even as the grain allows.
fn split(extent: usize, parts: usize, grain: usize) -> Vec<Range<usize>> {
    let units = extent.div_ceil(grain);
    let parts = parts.clamp(1, units.max(1));
    (0..parts)
        .map(|part| {
            let border = |part: usize| (part * units / parts * grain).min(extent);
            border(part)..border(part + 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_covers_and_keeps_the_grain() {
        for extent in 1..200 {
            for parts in 1..9 {
                for grain in [1, 6, 16] {
                    let ranges = split(extent, parts, grain);
                    assert!(ranges.len() <= parts && ranges.iter().all(|range| !range.is_empty()));
                    assert_eq!((ranges[0].start, ranges.last().unwrap().end), (0, extent));
                    assert!(
                        ranges
                            .windows(2)
                            .all(|pair| pair[0].end == pair[1].start && pair[0].end % grain == 0)
                    );
                }
            }
        }
    }
}
