//! The result matrix, cut into tiles that threads write at the same time.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::axis::Axis;
use crate::simd::prefetch;

use super::requests::lines;
use super::{Band, Cut, MatMut, MatSpec, Rect};

/// Most columns of a [`Panel`]: at least the widest microkernel.
pub const PANEL_COLS: usize = 64;

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
    start: isize,
    spec: &'a MatSpec,
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
        let (data, start, spec) = mat.into_whole();
        let shape = [spec.batch.extent(), spec.rows.extent(), spec.cols.extent()];
        assert_eq!(shape, cut.shape(), "the cut is of a matrix of another shape");
        let claims = &mut claims.0[..cut.rects().len()];
        for claim in claims.iter_mut() {
            *claim.get_mut() = false; // a holder may have been leaked in an earlier run
        }
        Tiles { data, start, spec, cut, claims, owner: PhantomData }
    }

    /// Borrows tile `i`, or `None` while someone else has it.
    pub fn take(&self, i: usize) -> Option<TileMut<'_, T>> {
        let claim = &self.claims[i];
        if claim.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(TileMut {
            data: self.data,
            start: self.start,
            spec: self.spec,
            rect: self.cut.rects()[i].clone(),
            claim: Some(claim),
            owner: PhantomData,
        })
    }
}

/// One tile, borrowed.
#[derive(Debug)]
pub struct TileMut<'a, T> {
    /// The elements of `rect` are this value's alone: claimed from [`Tiles`], or borrowed from a [`MatMut`] that owns them.
    pub(super) data: *mut T,
    pub(super) start: isize,
    pub(super) spec: &'a MatSpec,
    pub(super) rect: Rect,
    pub(super) claim: Option<&'a AtomicBool>,
    pub(super) owner: PhantomData<&'a mut [T]>,
}

impl<T> Drop for TileMut<'_, T> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim {
            claim.store(false, Ordering::Release);
        }
    }
}

impl<T: Copy> TileMut<'_, T> {
    /// Where the tile lies in the matrix.
    pub fn rect(&self) -> &Rect {
        &self.rect
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

    /// Whether it is better written column by column: elements of a column lie closer together than those of a row. A single row is not.
    pub fn is_planes(&self) -> bool {
        self.m() > 1 && self.spec.rows.inner().stride.abs() < self.spec.cols.inner().stride.abs()
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
        let step = cols.inner().stride;
        if cols.run(&cursor) >= n {
            contiguous = step == 1 || n < 2;
            // Of columns side by side only the first, until others are asked for.
            for (j, offset) in offsets[..if contiguous { 1 } else { n }].iter_mut().enumerate() {
                *offset = first + j as isize * step;
            }
        } else {
            for (j, offset) in offsets[..n].iter_mut().enumerate() {
                *offset = cursor.offset;
                contiguous &= cursor.offset == first + j as isize;
                cols.advance(&mut cursor, 1);
            }
        }
        let base = self.start + self.spec.batch.offset(self.rect.batch);
        Panel {
            data: self.data,
            base,
            rows: &self.spec.rows,
            rect: &self.rect,
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

    /// Asks for a row to be in the cache, where its columns lie side by side.
    #[inline]
    pub fn prefetch(&self, row: usize) {
        if self.contiguous {
            lines(self.data.wrapping_offset(self.row_offset(row) + self.offsets[0]), self.n, true, prefetch);
        }
    }

    /// Rows `row..row + m` as a band, where the columns lie side by side and the rows one distance apart.
    ///
    /// # Panics
    /// If there are no such rows.
    #[inline(always)]
    pub fn band(&mut self, row: usize, m: usize) -> Option<Band<'_, T>> {
        assert!(row + m <= self.rect.rows.len());
        let cursor = self.rows.cursor(self.rect.rows.start + row);
        if !self.contiguous || self.rows.run(&cursor) < m {
            return None;
        }
        let at = self.data.wrapping_offset(self.base + cursor.offset + self.offsets[0]);
        // All rows and columns are inside the tile, see `row_slice`.
        Some(Band { at, stride: self.rows.inner().stride, m, n: self.n, owner: PhantomData })
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

    /// The rows from `row` on that lie one distance apart.
    #[inline]
    pub fn planes(&mut self, row: usize) -> Planes<'_, T> {
        let at = self.row_offset(row);
        let run = self.rows.run(&self.rows.cursor(self.rect.rows.start + row));
        let (len, apart) = (run.min(self.rect.rows.len() - row), self.rows.inner().stride);
        if self.contiguous {
            // Until now only the first was looked up.
            for col in 1..self.n {
                self.offsets[col] = self.offsets[0] + col as isize;
            }
        }
        let offsets = &self.offsets[..self.n];
        Planes { at: self.data.wrapping_offset(at), offsets, len, apart, owner: PhantomData }
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

/// Some rows of a [`Panel`] that lie one distance apart, to be written column by column.
#[derive(Debug)]
pub struct Planes<'a, T> {
    at: *mut T,
    offsets: &'a [isize],
    len: usize,
    apart: isize,
    owner: PhantomData<&'a mut [T]>,
}

impl<T: Copy> Planes<'_, T> {
    /// How many rows, at least one.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes `values` to a column, from row `first` of these on.
    ///
    /// # Panics
    /// If there are no such rows or no such column.
    #[inline(always)]
    pub fn put(&mut self, col: usize, first: usize, values: &[T]) {
        assert!(first <= self.len && values.len() <= self.len - first);
        let at = self.at.wrapping_offset(self.offsets[col] + first as isize * self.apart);
        // SAFETY: `MatMut::new` found every element inside the slice; `Panel::planes` found that the rows are inside the tile and `apart` from each other, and the
        // columns are the panel's, so all places are elements of the tile, which is borrowed exclusively and by nobody who lent `values`.
        unsafe {
            if self.apart == 1 {
                // Of a size that the compiler knows.
                match (<&[T; 16]>::try_from(values), <&[T; 8]>::try_from(values)) {
                    (Ok(values), _) => at.cast::<[T; 16]>().write_unaligned(*values),
                    (_, Ok(values)) => at.cast::<[T; 8]>().write_unaligned(*values),
                    _ => at.copy_from_nonoverlapping(values.as_ptr(), values.len()),
                }
                return;
            }
            for (i, &value) in values.iter().enumerate() {
                *at.offset(i as isize * self.apart) = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    use super::super::{Places, Refusal};
    use crate::axis::Dim;

    fn rect(rows: Range<usize>, cols: Range<usize>) -> Rect {
        Rect { batch: 0, rows, cols }
    }

    fn spec(rows: Axis, cols: Axis) -> MatSpec {
        MatSpec { start: 0, batch: Axis::strided(1, 0), rows, cols }
    }

    #[test]
    fn planes_of_columns_side_by_side_are_the_rows() {
        let mut data = vec![0u8; 40];
        let places =
            Places::new(spec(Axis::strided(2, 20), Axis::new(&[Dim::plain(2, 10), Dim::plain(9, 1)])));
        let mut whole = MatMut::new(&mut data, 0, &places).unwrap();
        let mut tile = whole.tile(0, 0..1, 9..18);
        assert!(!tile.is_planes());
        let mut panel = tile.panel(0, 9);
        let mut planes = panel.planes(0);
        for col in 0..9 {
            planes.put(col, 0, &[col as u8 + 1]);
        }
        drop(tile);
        assert_eq!(data[10..20], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
        assert!(data[..10].iter().chain(&data[20..]).all(|&value| value == 0));
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
        assert!(
            MatMut::new(&mut data, 0, &Places::new(spec(Axis::strided(3, 4), Axis::strided(4, 1)))).is_ok()
        );
        let shared = spec(Axis::strided(3, 3), Axis::strided(4, 1));
        assert_eq!(MatMut::new(&mut data, 0, &Places::new(shared)).err(), Some(Refusal::Aliases));
        let outside = spec(Axis::strided(4, 4), Axis::strided(4, 1));
        assert_eq!(MatMut::new(&mut data, 0, &Places::new(outside)).err(), Some(Refusal::OutOfBounds));
        let negative = spec(Axis::strided(3, -4), Axis::strided(4, 1));
        assert_eq!(MatMut::new(&mut data, 0, &Places::new(negative)).err(), Some(Refusal::OutOfBounds));
        assert!(MatMut::new(&mut data, 8, &Places::new(negative)).is_ok());
    }

    #[test]
    fn columns_of_neighbouring_rows_are_slices() {
        let mut data = vec![0u8; 40];
        // Two lines of five rows, with a gap; two columns 16 apart.
        let spec = spec(Axis::new(&[Dim::plain(2, 7), Dim::plain(5, 1)]), Axis::strided(2, 16));
        let places = Places::new(spec);
        let mut mat = MatMut::new(&mut data, 3, &places).unwrap();
        let mut tile = mat.tile(0, 1..9, 0..2);
        let mut panel = tile.panel(0, 2);
        assert_eq!([0, 3, 4, 7].map(|row| panel.planes(row).len()), [4, 1, 4, 1]);
        panel.planes(4).put(1, 0, &[9; 3]);
        drop(tile);
        assert_eq!((0..40).filter(|&i| data[i] == 9).collect::<Vec<_>>(), [26, 27, 28]);
    }

    #[test]
    fn a_tile_is_lent_once_and_rows_land_where_the_spec_says() {
        let mut data = vec![0.0f32; 24];
        let spec = spec(Axis::strided(3, 1), Axis::new(&[Dim::plain(2, 12), Dim::plain(2, 3)]));
        let cut = Cut::new(1, 3, 4, vec![rect(0..3, 0..3), rect(0..3, 3..4)]).unwrap();
        let mut claims = Claims::new(2);
        let places = Places::new(spec);
        let tiles = Tiles::new(MatMut::new(&mut data, 0, &places).unwrap(), &cut, &mut claims);
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
