//! The result matrix, cut into tiles that threads write at the same time. The only raw-pointer view of the project.
//!
//! A [`MatSpec`] says where element (batch, row, col) lies. [`MatMut`] checks once that no two elements share a place and
//! all lie in the slice. A [`Cut`] is a list of rectangles, checked once to be disjoint. [`Tiles`] lends each rectangle
//! to one holder at a time. Nothing here needs unsafe code of its callers.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::axis::{Axis, Dim};
use crate::simd::prefetch;

/// Bytes that a cache moves at a time.
pub(crate) const CACHE_LINE: usize = 64;

/// Most columns of a [`Panel`]: at least the widest microkernel.
pub const PANEL_COLS: usize = 64;

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

/// A batch of matrices to write.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    spec: MatSpec,
}

impl<'a, T: Copy> MatMut<'a, T> {
    /// Elements of `data` laid out as `spec`.
    pub fn new(data: &'a mut [T], spec: MatSpec) -> Result<Self, Refusal> {
        match spec.span() {
            Some((low, high)) if low >= 0 && (high as usize) < data.len() => {}
            _ => return Err(Refusal::OutOfBounds),
        }
        if !spec.is_injective() {
            return Err(Refusal::Aliases);
        }
        Ok(MatMut { data, spec })
    }
}

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

    /// The rectangles.
    pub fn rects(&self) -> &[Rect] {
        &self.rects
    }
}

/// Which tiles are lent out; scratch of a run, kept by the caller between runs.
#[derive(Debug, Default)]
pub struct Claims(Vec<AtomicBool>);

impl Claims {
    /// Room for `tiles` tiles.
    pub fn new(tiles: usize) -> Self {
        Claims((0..tiles).map(|_| AtomicBool::new(false)).collect())
    }

    /// For how many tiles there is room.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is room for none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A matrix that lends its tiles to threads, each tile to one holder at a time.
#[derive(Debug)]
pub struct Tiles<'a, T> {
    data: *mut T,
    spec: MatSpec,
    cut: &'a Cut,
    claims: &'a [AtomicBool],
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared `Tiles` hands out elements only through `take`, which lends each place to one holder at a time (the
// claim is set with Acquire, cleared with Release), so it is no more than `&mut [T]` moved between threads piecewise.
unsafe impl<T: Send> Sync for Tiles<'_, T> {}

impl<'a, T: Copy> Tiles<'a, T> {
    /// Cuts `mat`.
    ///
    /// # Panics
    /// If the cut is of a matrix of another shape or the claims have too little room.
    pub fn new(mat: MatMut<'a, T>, cut: &'a Cut, claims: &'a mut Claims) -> Self {
        let shape = [mat.spec.batch.extent(), mat.spec.rows.extent(), mat.spec.cols.extent()];
        assert_eq!(shape, cut.shape, "the cut is of a matrix of another shape");
        let claims = &mut claims.0[..cut.rects.len()];
        for claim in claims.iter_mut() {
            *claim.get_mut() = false; // a holder may have been leaked in an earlier run
        }
        Tiles { data: mat.data.as_mut_ptr(), spec: mat.spec, cut, claims, owner: PhantomData }
    }

    /// Borrows tile `i`, or `None` while someone else has it.
    pub fn take(&self, i: usize) -> Option<TileMut<'_, T>> {
        let claim = &self.claims[i];
        if claim.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(TileMut {
            data: self.data,
            spec: &self.spec,
            rect: &self.cut.rects[i],
            claim,
            owner: PhantomData,
        })
    }
}

/// One tile, borrowed.
#[derive(Debug)]
pub struct TileMut<'a, T> {
    data: *mut T,
    spec: &'a MatSpec,
    rect: &'a Rect,
    claim: &'a AtomicBool,
    owner: PhantomData<&'a mut [T]>,
}

impl<T> Drop for TileMut<'_, T> {
    fn drop(&mut self) {
        self.claim.store(false, Ordering::Release);
    }
}

impl<T: Copy> TileMut<'_, T> {
    /// Where the tile lies in the matrix.
    pub fn rect(&self) -> &Rect {
        self.rect
    }

    /// Rows of the tile.
    #[inline]
    pub fn m(&self) -> usize {
        self.rect.rows.len()
    }

    /// Columns of the tile.
    #[inline]
    pub fn n(&self) -> usize {
        self.rect.cols.len()
    }

    /// Sets every element.
    pub fn fill(&mut self, value: T) {
        for col in (0..self.n()).step_by(PANEL_COLS) {
            let mut panel = self.panel(col, PANEL_COLS.min(self.n() - col));
            for row in 0..panel.rect.rows.len() {
                panel.write_row(row, &[value; PANEL_COLS]);
            }
        }
    }

    /// Columns `col..col + n` of the tile, their places looked up.
    ///
    /// # Panics
    /// If the tile has fewer columns or `n` exceeds [`PANEL_COLS`].
    #[inline]
    pub fn panel(&mut self, col: usize, n: usize) -> Panel<'_, T> {
        assert!(n <= PANEL_COLS && col + n <= self.n());
        let cols = &self.spec.cols;
        let mut offsets = [0isize; PANEL_COLS];
        let mut cursor = cols.cursor(self.rect.cols.start + col);
        let first = cursor.offset;
        let mut contiguous = true;
        if cols.run(&cursor) >= n && cols.inner().stride == 1 {
            offsets[0] = first;
        } else {
            for (j, offset) in offsets[..n].iter_mut().enumerate() {
                *offset = cursor.offset;
                contiguous &= cursor.offset == first + j as isize;
                cols.advance(&mut cursor, 1);
            }
        }
        let base = self.spec.start + self.spec.batch.offset(self.rect.batch);
        Panel {
            data: self.data,
            base,
            rows: &self.spec.rows,
            rect: self.rect,
            offsets,
            n,
            contiguous,
            owner: PhantomData,
        }
    }
}

/// A few columns of a tile.
#[derive(Debug)]
pub struct Panel<'a, T> {
    data: *mut T,
    base: isize,
    rows: &'a Axis,
    rect: &'a Rect,
    offsets: [isize; PANEL_COLS],
    n: usize,
    contiguous: bool,
    owner: PhantomData<&'a mut [T]>,
}

impl<T: Copy> Panel<'_, T> {
    #[inline]
    fn row_offset(&self, row: usize) -> isize {
        assert!(row < self.rect.rows.len());
        self.base + self.rows.offset(self.rect.rows.start + row)
    }

    /// Asks for rows `row..row + m` to be in the cache, where their columns lie side by side.
    #[inline]
    pub fn prefetch(&self, row: usize, m: usize) {
        if !self.contiguous {
            return;
        }
        for row in row..row + m {
            let first = self.data.wrapping_offset(self.row_offset(row) + self.offsets[0]);
            for line in (0..self.n).step_by(CACHE_LINE / size_of::<T>()) {
                prefetch(first.wrapping_add(line));
            }
            // The row may begin in the middle of a line.
            prefetch(first.wrapping_add(self.n - 1));
        }
    }

    /// The row as a slice, where its columns lie side by side.
    #[inline]
    pub fn row_slice(&mut self, row: usize) -> Option<&mut [T]> {
        if !self.contiguous {
            return None;
        }
        let at = self.row_offset(row) + self.offsets[0];
        // SAFETY: `MatMut::new` found every element inside the slice; row and columns are inside the tile (asserted here
        // and in `panel`), so all `n` places from `at` are elements of this tile, which the panel borrows exclusively
        // through its `TileMut`: other tiles are disjoint rectangles and the spec is injective.
        Some(unsafe { std::slice::from_raw_parts_mut(self.data.offset(at), self.n) })
    }

    /// Copies the row out.
    #[inline]
    pub fn read_row(&self, row: usize, out: &mut [T]) {
        let at = self.row_offset(row);
        for (j, value) in out[..self.n].iter_mut().enumerate() {
            let offset = if self.contiguous { self.offsets[0] + j as isize } else { self.offsets[j] };
            // SAFETY: as in `row_slice`, element by element.
            *value = unsafe { *self.data.offset(at + offset) };
        }
    }

    /// Copies `values` into the row.
    #[inline]
    pub fn write_row(&mut self, row: usize, values: &[T]) {
        let at = self.row_offset(row);
        for (j, value) in values[..self.n].iter().enumerate() {
            let offset = if self.contiguous { self.offsets[0] + j as isize } else { self.offsets[j] };
            // SAFETY: as in `row_slice`, element by element.
            unsafe { *self.data.offset(at + offset) = *value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(rows: Range<usize>, cols: Range<usize>) -> Rect {
        Rect { batch: 0, rows, cols }
    }

    fn spec(rows: Axis, cols: Axis) -> MatSpec {
        MatSpec { start: 0, batch: Axis::strided(1, 0), rows, cols }
    }

    #[test]
    fn overlapping_rectangles_are_refused() {
        let good = vec![rect(0..2, 0..3), rect(0..4, 3..5), rect(2..4, 0..3)];
        assert!(Cut::new(1, 4, 5, good).is_ok());
        for bad in [
            vec![rect(0..2, 0..3), rect(1..3, 2..4)],
            vec![rect(0..4, 1..2), rect(2..3, 0..5)],
            vec![rect(0..1, 0..2), rect(0..1, 0..2)],
            vec![rect(0..5, 0..1)],
            vec![rect(1..1, 0..1)],
        ] {
            assert_eq!(Cut::new(1, 4, 5, bad).err(), Some(Refusal::TilesOverlap));
        }
    }

    #[test]
    fn aliasing_and_out_of_bounds_specs_are_refused() {
        let mut data = vec![0.0f32; 12];
        assert!(MatMut::new(&mut data, spec(Axis::strided(3, 4), Axis::strided(4, 1))).is_ok());
        let shared = spec(Axis::strided(3, 3), Axis::strided(4, 1));
        assert_eq!(MatMut::new(&mut data, shared).err(), Some(Refusal::Aliases));
        let outside = spec(Axis::strided(4, 4), Axis::strided(4, 1));
        assert_eq!(MatMut::new(&mut data, outside).err(), Some(Refusal::OutOfBounds));
        let negative = spec(Axis::strided(3, -4), Axis::strided(4, 1));
        assert_eq!(MatMut::new(&mut data, negative).err(), Some(Refusal::OutOfBounds));
        assert!(MatMut::new(&mut data, MatSpec { start: 8, ..negative }).is_ok());
    }

    #[test]
    fn a_tile_is_lent_once_and_rows_land_where_the_spec_says() {
        let mut data = vec![0.0f32; 24];
        let spec = spec(Axis::strided(3, 1), Axis::new(&[Dim::plain(2, 12), Dim::plain(2, 3)]));
        let cut = Cut::new(1, 3, 4, vec![rect(0..3, 0..3), rect(0..3, 3..4)]).unwrap();
        let mut claims = Claims::new(2);
        let tiles = Tiles::new(MatMut::new(&mut data, spec).unwrap(), &cut, &mut claims);
        let mut tile = tiles.take(0).unwrap();
        assert!(tiles.take(0).is_none());
        tile.panel(1, 2).write_row(2, &[5.0, 7.0]);
        let mut back = [0.0; 2];
        tile.panel(1, 2).read_row(2, &mut back);
        assert_eq!(back, [5.0, 7.0]);
        drop(tile);
        assert!(tiles.take(0).is_some());
        assert_eq!((data[2 + 3], data[2 + 12]), (5.0, 7.0));
    }
}
