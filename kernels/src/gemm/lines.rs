//! Rows of a product that are some runs of bytes, at the same distances in every row: what the dot products read where it lies.

use crate::mat::MatRef;

/// Lines of positions over channels-last codes: rows that are some runs of bytes, at the same distances in every row.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a, 'b> {
    /// The codes.
    pub data: &'a [u8],
    /// Where the first row of each line begins, and how many rows it has.
    pub lines: &'b [(isize, usize)],
    /// Bytes from a row of a line to the next.
    pub apart: usize,
    /// Where each run begins, from where its row does, and how many bytes it has.
    pub runs: &'b [(usize, usize)],
}

impl<'a> Lines<'a, '_> {
    /// The rows of a line, from their start to the end of the last run.
    pub(super) fn rows(&self, (start, rows): (isize, usize)) -> MatRef<'a, u8> {
        let reach = self.runs.iter().map(|run| run.0 + run.1).max().unwrap_or(0);
        MatRef::spread(self.data, start, rows, reach, self.apart)
    }
}
