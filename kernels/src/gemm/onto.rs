//! Which rows of a result the positions of a convolution are: every one, or those of a phase of a gradient of the input.

use crate::mat::LINES;
use crate::scan::Scan;

/// Where the positions of a [`Scan`] are among the rows of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Onto {
    /// Lines of a plane of positions, and places of each.
    positions: [usize; 2],
    /// Those of the result.
    result: [usize; 2],
    /// The line and the place on it of the first position.
    first: [usize; 2],
    /// Lines, and places of a line, from one to the next.
    stride: [usize; 2],
    /// The row of all at which that part of the result begins that is written.
    from: usize,
}

impl Onto {
    /// Every position is a row.
    pub fn rows(scan: &Scan) -> Onto {
        let [_, height, width] = &scan.axes;
        let positions = [height.positions, width.positions];
        Onto { positions, result: positions, first: [0; 2], stride: [1; 2], from: 0 }
    }

    /// Positions begin at a line and a place on it of `result`, which has so many of both in every plane, and are so many apart.
    pub fn phase(scan: &Scan, result: [usize; 2], first: [usize; 2], stride: [usize; 2]) -> Onto {
        Onto { result, first, stride, ..Onto::rows(scan) }
    }

    /// The same of a part of the result that begins at a row of it.
    pub fn from(self, from: usize) -> Onto {
        Onto { from, ..self }
    }

    /// The positions of plane `plane` whose rows are in lines `begin` to `end` of it.
    pub fn within(&self, plane: usize, begin: usize, end: usize) -> std::ops::Range<usize> {
        let [lines, width] = self.positions;
        let before = |line: usize| lines.min(line.saturating_sub(self.first[0]).div_ceil(self.stride[0]));
        (plane * lines + before(begin)) * width..(plane * lines + before(end)) * width
    }

    /// The row that a position is.
    #[inline(always)]
    pub(super) fn row(&self, position: usize) -> usize {
        let ([lines, width], [of_plane, of_line]) = (self.positions, self.result);
        let (line, x) = (position / width, position % width);
        let (plane, y) = (line / lines, line % lines);
        let line = plane * of_plane + self.first[0] + y * self.stride[0];
        line * of_line + self.first[1] + x * self.stride[1] - self.from
    }

    /// Rows from a position to the next on a line.
    #[inline(always)]
    pub(super) fn apart(&self) -> usize {
        self.stride[1]
    }

    /// The most positions of a line whose rows can be looked up at once.
    #[inline(always)]
    pub(super) fn at_once(&self) -> usize {
        (LINES / self.stride[1]).max(1)
    }

    /// Where the positions end that can be looked up at once, of those from `position` up to `end`.
    #[inline(always)]
    pub(super) fn end(&self, position: usize, end: usize) -> usize {
        let in_a_row = self.positions == self.result && self.stride == [1; 2];
        let end =
            if in_a_row { end } else { end.min((position / self.positions[1] + 1) * self.positions[1]) };
        end.min(position + self.at_once())
    }
}
