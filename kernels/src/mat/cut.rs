//! Rectangles of a batch of matrices, checked once to be disjoint.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Refusal;

/// A rectangle of one matrix of the batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Which matrix.
    pub batch: usize,
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns.
    pub cols: Range<usize>,
}

/// Rectangles that do not overlap and lie within a batch of matrices.
#[derive(Clone, Debug)]
pub struct Cut {
    rects: Vec<Rect>,
    shape: [usize; 3],
}

impl Cut {
    /// Checks `rects` against a batch of `batch` matrices of `m x n`.
    pub fn new(batch: usize, m: usize, n: usize, rects: Vec<Rect>) -> Result<Self, Refusal> {
        // A sweep down the rows: the column intervals of the rectangles that are open at a row never meet.
        let mut events = Vec::with_capacity(2 * rects.len());
        for (i, rect) in rects.iter().enumerate() {
            let fits = rect.batch < batch && rect.rows.end <= m && rect.cols.end <= n;
            if !fits || rect.rows.is_empty() || rect.cols.is_empty() {
                return Err(Refusal::TilesOverlap);
            }
            events.push((rect.batch, rect.rows.start, true, i));
            events.push((rect.batch, rect.rows.end, false, i));
        }
        events.sort_unstable(); // at one row, false (close) before true (open)
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, _, opens, i) in events {
            let cols = &rects[i].cols;
            if !opens {
                open.remove(&cols.start);
                continue;
            }
            let left = open.range(..=cols.start).next_back().is_none_or(|(_, &end)| end <= cols.start);
            let right = open.range(cols.start..).next().is_none_or(|(&start, _)| cols.end <= start);
            if !left || !right {
                return Err(Refusal::TilesOverlap);
            }
            open.insert(cols.start, cols.end);
        }
        Ok(Cut { rects, shape: [batch, m, n] })
    }

    /// Matrices, rows, columns of the batch.
    pub(super) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The rectangles.
    pub fn rects(&self) -> &[Rect] {
        &self.rects
    }
}
