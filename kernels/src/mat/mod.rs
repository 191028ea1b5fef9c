//! Matrices in memory, to read and to write. The only raw-pointer views of the project; nothing here needs unsafe code of its callers.
//!
//! A [`MatSpec`] says where element (batch, row, col) lies. What is read ([`Matrices`], [`MatRef`]) was found to lie in its slice; what is written
//! ([`MatMut`]) also to have no two elements in one place. A result goes to threads in one of two ways: split into parts that each have one owner
//! ([`MatMut::split`]), or cut by a list of disjoint rectangles, a [`Cut`], into [`Tiles`] that are lent to one holder at a time.

mod columns;
mod cut;
mod read;
mod requests;
mod runs;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod tiles_of_bytes;
mod write;

pub(crate) use columns::Chunk;
#[cfg(target_arch = "x86_64")]
pub(crate) use columns::Chunks;
pub use columns::{Across, Column, Few};
pub use cut::{Cut, Rect};
pub(crate) use read::in_a_set;
pub use read::{Down, MatRef, Matrices, Parts};
pub use requests::{CacheLevel, Requests};
pub use runs::{Beads, Cols, Comb, FixedRows, Run, RunColumns, StripRun};
pub use tiles::{Claims, PANEL_COLS, Panel, Planes, TileMut, Tiles};
pub use write::{Band, Bands, Index, LINES, Lines, MatMut, Scattered, WriteRows};

use crate::axis::{Axis, Dim};

/// Bytes that a cache moves at a time.
pub(crate) const CACHE_LINE: usize = 64;

/// Where the elements of a batch of matrices lie in a slice. Plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatSpec {
    /// Offset of element (0, 0, 0).
    pub start: isize,
    /// The batch index.
    pub batch: Axis,
    /// The row index.
    pub rows: Axis,
    /// The column index.
    pub cols: Axis,
}

/// Why a [`MatSpec`] or a [`Cut`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An element lies outside the slice, or an offset overflows.
    OutOfBounds,
    /// Two elements may share a place.
    Aliases,
    /// Two rectangles overlap, or one leaves the matrix.
    TilesOverlap,
}

impl MatSpec {
    fn dims(&self) -> impl Iterator<Item = &Dim> {
        [&self.batch, &self.rows, &self.cols].into_iter().flat_map(Axis::dims)
    }

    /// The offsets of the first and the last place that elements take; `None` on overflow or if there are no elements.
    pub fn span(&self) -> Option<(isize, isize)> {
        let (mut low, mut high) = (self.start, self.start);
        for dim in self.dims() {
            let reach = isize::try_from(dim.extent.checked_sub(1)?).ok()?.checked_mul(dim.stride)?;
            if reach < 0 {
                low = low.checked_add(reach)?;
            } else {
                high = high.checked_add(reach)?;
            }
        }
        Some((low, high))
    }

    /// Whether no two elements share a place: ordered by stride, each dim steps over all that the smaller ones span.
    pub fn is_injective(&self) -> bool {
        let mut dims = [(0usize, 0usize); 3 * crate::axis::AXIS_RANK];
        let mut rank = 0;
        for dim in self.dims().filter(|dim| dim.extent > 1) {
            dims[rank] = (dim.stride.unsigned_abs(), dim.extent);
            rank += 1;
        }
        let dims = &mut dims[..rank];
        dims.sort_unstable();
        let mut spanned = 0usize;
        for &mut (stride, extent) in dims {
            if stride <= spanned {
                return false;
            }
            match stride.checked_mul(extent - 1).and_then(|reach| spanned.checked_add(reach)) {
                Some(reach) => spanned = reach,
                None => return false,
            }
        }
        true
    }

    /// The offset of the place at column offset 0 of a row.
    #[inline]
    pub fn row_offset(&self, batch: usize, row: usize) -> isize {
        self.start + self.batch.offset(batch) + self.rows.offset(row)
    }
}

/// A [`MatSpec`], and what every run would ask of it, found out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    spec: MatSpec,
    span: Option<(isize, isize)>,
    injective: bool,
    /// Number of matrices, of rows, of columns.
    extents: [usize; 3],
    /// From a row to the next and from a column to the next, if each index takes one stride.
    strides: Option<[isize; 2]>,
}

impl Places {
    /// The places that `spec` names.
    pub fn new(spec: MatSpec) -> Self {
        let one_stride = |axis: &Axis| (axis.dims().len() == 1).then(|| axis.inner().stride);
        Places {
            spec,
            span: spec.span(),
            injective: spec.is_injective(),
            extents: [&spec.batch, &spec.rows, &spec.cols].map(Axis::extent),
            strides: one_stride(&spec.rows).zip(one_stride(&spec.cols)).map(|(rows, cols)| [rows, cols]),
        }
    }

    /// Where they are, from wherever a run has its element (0, 0, 0).
    #[inline]
    pub fn spec(&self) -> &MatSpec {
        &self.spec
    }

    /// Number of matrices, of rows, of columns.
    #[inline]
    pub fn extents(&self) -> [usize; 3] {
        self.extents
    }

    /// From a row to the next, where columns lie side by side.
    #[inline]
    pub fn band_stride(&self) -> Option<isize> {
        self.strides.and_then(|[rows, cols]| (cols == 1 || self.extents[2] == 1).then_some(rows))
    }

    /// Whether the elements of a row lie side by side.
    #[inline]
    pub fn columns_side_by_side(&self) -> bool {
        let dims = self.spec.cols.dims();
        self.extents[2] == 1 || (dims.len() == 1 && dims[0].stride == 1)
    }

    /// Whether all of them, moved by `start`, are among `len` elements.
    #[inline]
    fn inside(&self, start: isize, len: usize) -> bool {
        let Some((low, high)) = self.span else { return false };
        match (low.checked_add(start), high.checked_add(start)) {
            (Some(low), Some(high)) => low >= 0 && (high as usize) < len,
            _ => false,
        }
    }
}

/// Where the matrices of a batch begin.
#[derive(Debug)]
struct Offsets<'a> {
    axis: &'a Axis,
    batch: std::ops::Range<usize>,
    /// From one to the next, where that is always the same.
    step: Option<isize>,
    next: isize,
}

impl<'a> Offsets<'a> {
    #[inline(always)]
    fn new(axis: &'a Axis, batch: std::ops::Range<usize>) -> Self {
        let step = (axis.dims().len() == 1).then(|| axis.inner().stride);
        // The first is asked for most often, of products that are not a batch.
        let next = if batch.is_empty() || batch.start == 0 { 0 } else { axis.offset(batch.start) };
        Offsets { axis, batch, step, next }
    }

    /// Of a single matrix.
    #[inline(always)]
    fn of_one() -> Self {
        static ONE: Axis = Axis::ONE;
        Offsets { axis: &ONE, batch: 0..1, step: Some(0), next: 0 }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<isize> {
        if self.batch.start >= self.batch.end {
            return None;
        }
        self.batch.start += 1;
        let now = self.next;
        self.next = match self.step {
            Some(step) => now.wrapping_add(step),
            None if self.batch.start < self.batch.end => self.axis.offset(self.batch.start),
            None => now,
        };
        Some(now)
    }
}
