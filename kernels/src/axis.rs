//! One index of a matmul laid over several dims of a tensor, and the affine window through which operands are read.
//!
//! A convolution is a matmul whose operand is read through a window. Everything about that window is affine: an element
//! has an offset and up to three coordinates, each the sum of a part that comes from the x index (row or column of the
//! matmul) and a part that comes from the k index. Outside `0..bound` an element is padding and reads as zero.

/// Most dims that one index of a matmul spans: batch and three spatial dims, or three kernel dims and the channel.
pub const AXIS_RANK: usize = 4;
/// Spatial coordinates that a window checks.
pub const COORDS: usize = 3;
/// The value of [`Dim::along`] for a dim that moves no coordinate.
pub const NO_COORD: usize = COORDS;

/// One dim of an [`Axis`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    /// Number of index values.
    pub extent: usize,
    /// Elements from one index value to the next.
    pub stride: isize,
    /// The coordinate that this dim moves, or [`NO_COORD`].
    pub along: usize,
    /// How far it moves that coordinate.
    pub step: isize,
}

impl Dim {
    /// A dim that moves no coordinate.
    pub const fn plain(extent: usize, stride: isize) -> Self {
        Dim { extent, stride, along: NO_COORD, step: 0 }
    }
}

/// An index over up to [`AXIS_RANK`] dims, the last one innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    rank: usize,
    dims: [Dim; AXIS_RANK],
}

impl Axis {
    /// An axis of one index value.
    pub const ONE: Axis = Axis { rank: 1, dims: [Dim::plain(1, 0); AXIS_RANK] };

    /// An axis over `dims`, merged where two neighbours step as one.
    ///
    /// # Panics
    /// If more than [`AXIS_RANK`] dims remain after dims of extent 1 are dropped.
    pub fn new(dims: &[Dim]) -> Self {
        let mut axis = Axis { rank: 0, dims: [Dim::plain(1, 0); AXIS_RANK] };
        for &dim in dims.iter().filter(|dim| dim.extent != 1) {
            if let Some(outer) = axis.rank.checked_sub(1).map(|last| &mut axis.dims[last]) {
                let plain = outer.along == NO_COORD && dim.along == NO_COORD;
                if plain && dim.stride.checked_mul(dim.extent as isize) == Some(outer.stride) {
                    *outer = Dim::plain(outer.extent * dim.extent, dim.stride);
                    continue;
                }
            }
            axis.dims[axis.rank] = dim;
            axis.rank += 1;
        }
        axis.rank = axis.rank.max(1);
        axis
    }

    /// An axis over one plain dim.
    pub fn strided(extent: usize, stride: isize) -> Self {
        Axis::new(&[Dim::plain(extent, stride)])
    }

    /// The dims, outermost first.
    pub fn dims(&self) -> &[Dim] {
        &self.dims[..self.rank]
    }

    /// The innermost dim.
    #[inline]
    pub fn inner(&self) -> Dim {
        self.dims[self.rank - 1]
    }

    /// Number of index values.
    pub fn extent(&self) -> usize {
        self.dims().iter().map(|dim| dim.extent).product()
    }

    /// The offset of index `i`, in elements.
    #[inline]
    pub fn offset(&self, mut i: usize) -> isize {
        if self.rank == 1 {
            return i as isize * self.dims[0].stride;
        }
        let mut offset = 0;
        for dim in self.dims().iter().rev() {
            offset += (i % dim.extent) as isize * dim.stride;
            i /= dim.extent;
        }
        offset
    }

    /// A cursor at index `i`.
    #[inline]
    pub fn cursor(&self, mut i: usize) -> Cursor {
        let mut cursor = Cursor { offset: 0, coords: [0; COORDS + 1], index: [0; AXIS_RANK] };
        for (d, dim) in self.dims().iter().enumerate().rev() {
            let at = if d == 0 { i } else { i % dim.extent };
            i /= dim.extent.max(1);
            cursor.index[d] = at;
            cursor.offset += at as isize * dim.stride;
            cursor.coords[dim.along] += at as isize * dim.step;
        }
        cursor
    }

    /// Moves a cursor on by `n` index values that lie within the innermost dim, carrying at its end.
    #[inline]
    pub fn advance(&self, cursor: &mut Cursor, n: usize) {
        let mut d = self.rank - 1;
        let mut n = n;
        loop {
            let dim = self.dims[d];
            cursor.index[d] += n;
            cursor.offset += n as isize * dim.stride;
            cursor.coords[dim.along] += n as isize * dim.step;
            if cursor.index[d] < dim.extent || d == 0 {
                return;
            }
            cursor.offset -= dim.extent as isize * dim.stride;
            cursor.coords[dim.along] -= dim.extent as isize * dim.step;
            cursor.index[d] = 0;
            n = 1;
            d -= 1;
        }
    }

    /// Index values from the cursor to the end of its innermost dim.
    #[inline]
    pub fn run(&self, cursor: &Cursor) -> usize {
        self.inner().extent - cursor.index[self.rank - 1]
    }
}

/// A place on an [`Axis`].
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Elements from index 0.
    pub offset: isize,
    /// What the index adds to each coordinate; the last entry belongs to no coordinate.
    pub coords: [isize; COORDS + 1],
    index: [usize; AXIS_RANK],
}

/// How one operand of a matmul lies in its tensor, as a (k, x) matrix read through a window. Plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Offset of element (k = 0, x = 0); it may lie in the padding, outside the tensor.
    pub start: isize,
    /// The row or column index of the matmul.
    pub x: Axis,
    /// The summation index.
    pub k: Axis,
    /// Coordinates of element (0, 0).
    pub origin: [isize; COORDS],
    /// Coordinates are valid in `0..bound`.
    pub bounds: [isize; COORDS],
}

/// What one x index contributes to the elements of a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane {
    /// Their offset, less what k contributes.
    pub offset: isize,
    /// Their coordinates, less what k contributes.
    pub coords: [isize; COORDS],
}

/// The bound of a coordinate that no dim moves.
pub const NO_BOUND: isize = isize::MAX;

impl Window {
    /// A window without padding.
    pub fn plain(start: isize, x: Axis, k: Axis) -> Self {
        Window { start, x, k, origin: [0; COORDS], bounds: [NO_BOUND; COORDS] }
    }

    /// What `count` x indices from `first` on contribute, one after the other.
    #[inline]
    pub fn lanes(&self, first: usize, count: usize, mut lane: impl FnMut(usize, Lane)) {
        let (inner, mut cursor) = (self.x.inner(), self.x.cursor(first));
        let mut steps = [0; COORDS + 1];
        steps[inner.along] = inner.step;
        let mut done = 0;
        while done < count {
            let len = self.x.run(&cursor).min(count - done);
            for i in 0..len {
                let at = i as isize;
                let coords = std::array::from_fn(|d| self.origin[d] + cursor.coords[d] + at * steps[d]);
                lane(done + i, Lane { offset: self.start + cursor.offset + at * inner.stride, coords });
            }
            self.x.advance(&mut cursor, len);
            done += len;
        }
    }

    /// Whether no element can be padding.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.bounds == [NO_BOUND; COORDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_step_as_one_are_merged() {
        let axis = Axis::new(&[Dim::plain(3, 20), Dim::plain(1, 7), Dim::plain(4, 5), Dim::plain(5, 1)]);
        assert_eq!(axis.dims(), &[Dim::plain(60, 1)]);
        assert_eq!(Axis::new(&[Dim::plain(1, 9)]).dims(), &[Dim::plain(1, 0)]);
    }

    #[test]
    fn cursor_offset_and_advance_agree() {
        let axis = Axis::new(&[
            Dim { extent: 2, stride: 100, along: 0, step: 3 },
            Dim { extent: 3, stride: -7, along: 1, step: -2 },
            Dim::plain(4, 2),
        ]);
        let mut walking = axis.cursor(0);
        for i in 0..axis.extent() {
            let at = axis.cursor(i);
            assert_eq!(at.offset, axis.offset(i));
            assert_eq!((walking.offset, walking.coords), (at.offset, at.coords));
            axis.advance(&mut walking, 1);
        }
    }
}
