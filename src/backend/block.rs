//! Blocks of positions of a convolution: what is copied to a band, or read in place, before the next.

use tile25_kernels::scan::Scan;

/// Bytes of a band: half of a second-level cache of 1 MiB, for results and weights pass through it too.
pub(super) const BAND_BYTES: usize = 512 * 1024;
/// Least positions of a block in one line.
pub(super) const LEAST_ACROSS: usize = 48;

/// How positions are cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// So many, read in place.
    Rows(usize),
    /// Those of so many lines, copied.
    Lines(usize),
    /// So many in one line, copied.
    Across(usize),
}

impl Block {
    /// Blocks of positions whose input is copied to a band of elements of `bytes`, `strips` of them at a time; the most positions of one, and elements of its band.
    pub(super) fn copied(scan: &Scan, strips: usize, bytes: usize) -> (Block, usize, usize) {
        let (most, width) = (BAND_BYTES / bytes / strips, scan.axes[2].positions);
        let all = scan.rows() / width;
        let doubled = |first: usize, end: usize| (0..).map(move |i| first << i).take_while(move |&n| n < end);
        let lines = doubled(1, 2 * all).take_while(|&lines| scan.band_elements(lines, None) <= most).last();
        if let Some(lines) = lines {
            let rows = scan.rows().min(lines * width);
            return (Block::Lines(lines), rows, strips * scan.band_elements(lines, None));
        }
        let fits = |&across: &usize| scan.band_elements(1, Some(across)) <= most;
        let across = doubled(LEAST_ACROSS, width).take_while(fits).last().unwrap_or(LEAST_ACROSS).min(width);
        (Block::Across(across), across, strips * scan.band_elements(1, Some(across)))
    }

    /// Where the block ends that begins at position `row`, of those up to `end`.
    pub(super) fn end(self, scan: &Scan, row: usize, end: usize) -> usize {
        let width = scan.axes[2].positions;
        let line = row / width;
        end.min(match self {
            Block::Rows(rows) => row + rows,
            Block::Lines(lines) => (line + lines) * width,
            Block::Across(positions) => ((line + 1) * width).min(row + positions),
        })
    }
}
