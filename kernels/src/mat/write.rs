//! A batch of matrices to write, split into parts that each have one owner.

use std::marker::PhantomData;
use std::ops::Range;

use crate::simd::prefetch;

use super::requests::lines;
use super::{MatRef, MatSpec, Offsets, Places, Rect, Refusal, Requests, TileMut};

/// An index of a batch of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Which matrix.
    Batch,
    /// Its row.
    Row,
    /// Its column.
    Col,
}

/// A batch of matrices to write, or a part of one: some matrices, of each the same rows and columns.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    /// Of the slice that holds every element; the elements of the part are this value's alone while `'a` lasts.
    data: *mut T,
    start: isize,
    places: &'a Places,
    batch: Range<usize>,
    rows: Range<usize>,
    cols: Range<usize>,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a part owns its elements as `&mut [T]` would: the spec is injective, and `split` gives disjoint indices.
unsafe impl<T: Send> Send for MatMut<'_, T> {}

impl<'a, T: Copy> MatMut<'a, T> {
    /// Elements of `data` at `places`, all moved by `start`.
    #[inline]
    pub fn new(data: &'a mut [T], start: isize, places: &'a Places) -> Result<Self, Refusal> {
        if !places.inside(start, data.len()) {
            return Err(Refusal::OutOfBounds);
        }
        if !places.injective {
            return Err(Refusal::Aliases);
        }
        let [batch, rows, cols] = places.extents.map(|extent| 0..extent);
        // That no offset overflows is part of `inside`.
        let start = start + places.spec.start;
        Ok(MatMut { data: data.as_mut_ptr(), start, places, batch, rows, cols, owner: PhantomData })
    }

    /// The parts before and from index value `at` on.
    ///
    /// # Panics
    /// If the part does not reach from below `at` to `at`.
    pub fn split(self, index: Index, at: usize) -> (Self, Self) {
        let cut = |range: &Range<usize>| {
            assert!(range.start <= at && at <= range.end, "{range:?} is not split at {at}");
            (range.start..at, at..range.end)
        };
        let MatMut { data, start, places, batch, rows, cols, owner } = self;
        let part = |batch, rows, cols| MatMut { data, start, places, batch, rows, cols, owner };
        match index {
            Index::Batch => {
                let (first, second) = cut(&batch);
                (part(first, rows.clone(), cols.clone()), part(second, rows, cols))
            }
            Index::Row => {
                let (first, second) = cut(&rows);
                (part(batch.clone(), first, cols.clone()), part(batch, second, cols))
            }
            Index::Col => {
                let (first, second) = cut(&cols);
                (part(batch.clone(), rows.clone(), first), part(batch, rows, second))
            }
        }
    }

    /// Its matrices.
    pub fn batch(&self) -> Range<usize> {
        self.batch.clone()
    }

    /// Its rows.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Its columns.
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// Where the elements of all the matrices lie, but for where the first is.
    pub fn places(&self) -> &Places {
        self.places
    }

    /// The whole batch as a pointer, where its first element is, and a spec, for [`super::Tiles`].
    pub(super) fn into_whole(self) -> (*mut T, isize, &'a MatSpec) {
        let ranges = [&self.batch, &self.rows, &self.cols].map(|range| (range.start, range.end));
        assert_eq!(ranges, self.places.extents.map(|extent| (0, extent)), "a part is no whole");
        (self.data, self.start, &self.places.spec)
    }

    /// Whether the part has a rectangle.
    #[inline(always)]
    fn has(&self, batch: usize, rows: &Range<usize>, cols: &Range<usize>) -> bool {
        self.batch.contains(&batch) && self.has_area(rows, cols)
    }

    /// Whether its matrices have a rectangle.
    #[inline(always)]
    fn has_area(&self, rows: &Range<usize>, cols: &Range<usize>) -> bool {
        let inside = |own: &Range<usize>, part: &Range<usize>| {
            own.start <= part.start && part.start <= part.end && part.end <= own.end
        };
        inside(&self.rows, rows) && inside(&self.cols, cols)
    }

    /// A rectangle whose rows lie side by side element by element.
    ///
    /// # Panics
    /// If the part does not have it, or rows or columns take more than one stride or columns another one than 1.
    #[inline(always)]
    pub fn band(&mut self, batch: usize, rows: Range<usize>, cols: Range<usize>) -> Band<'_, T> {
        assert!(self.has(batch, &rows, &cols));
        let stride = self.places.band_stride().expect("columns side by side");
        // As its columns lie side by side (or there is one), an index of a column is an offset.
        let offset = if batch == 0 { 0 } else { self.places.spec.batch.offset(batch) };
        let offset = self.start + offset + rows.start as isize * stride + cols.start as isize;
        Band {
            at: self.data.wrapping_offset(offset),
            stride,
            m: rows.len(),
            n: cols.len(),
            owner: PhantomData,
        }
    }

    /// [`MatMut::band`] of every matrix of the part, one after the other.
    ///
    /// # Panics
    /// As there.
    #[inline(always)]
    pub fn bands(&mut self, batch: Range<usize>, rows: Range<usize>, cols: Range<usize>) -> Bands<'_, T> {
        assert!(
            self.batch.start <= batch.start && batch.end <= self.batch.end && self.has_area(&rows, &cols)
        );
        let stride = self.places.band_stride().expect("columns side by side");
        let offset = self.start + rows.start as isize * stride + cols.start as isize;
        let offsets = Offsets::new(&self.places.spec.batch, batch);
        Bands {
            at: self.data.wrapping_offset(offset),
            stride,
            m: rows.len(),
            n: cols.len(),
            offsets,
            owner: PhantomData,
        }
    }

    /// Rows from one on, from each to the next `apart`, the elements of each side by side: of up to `most` as many as lie at one distance, one at least.
    ///
    /// # Panics
    /// If the part does not have these rows and columns, or its columns do not lie side by side.
    #[inline(always)]
    pub fn evenly(
        &mut self,
        batch: usize,
        row: usize,
        apart: usize,
        most: usize,
        cols: Range<usize>,
    ) -> Band<'_, T> {
        assert!(self.places.columns_side_by_side());
        let axis = &self.places.spec.rows;
        let at = axis.cursor(row);
        let m = axis.run(&at).div_ceil(apart).min(most);
        // They are among those of one run of the axis, from `row` to the last.
        assert!(m > 0 && self.has(batch, &(row..row + (m - 1) * apart + 1), &cols));
        let offset = self.start + self.places.spec.batch.offset(batch) + at.offset + cols.start as isize;
        let stride = apart as isize * axis.inner().stride;
        Band { at: self.data.wrapping_offset(offset), stride, m, n: cols.len(), owner: PhantomData }
    }

    /// Some rows, each anywhere, the elements of each side by side.
    ///
    /// # Panics
    /// If the part does not have the rectangle, it has more than [`LINES`] rows or its columns do not lie side by side.
    #[inline(always)]
    pub fn lines(&mut self, batch: usize, rows: Range<usize>, cols: Range<usize>) -> Lines<'_, T> {
        assert!(self.has(batch, &rows, &cols) && rows.len() <= LINES);
        assert!(self.places.columns_side_by_side());
        let (axis, mut offsets) = (&self.places.spec.rows, [0; LINES]);
        let (mut at, mut done) = (axis.cursor(rows.start), 0);
        while done < rows.len() {
            let len = axis.run(&at).min(rows.len() - done);
            for (i, offset) in offsets[done..done + len].iter_mut().enumerate() {
                *offset = at.offset + i as isize * axis.inner().stride;
            }
            axis.advance(&mut at, len);
            done += len;
        }
        let first = self.start + self.places.spec.batch.offset(batch) + cols.start as isize;
        let at = self.data.wrapping_offset(first);
        Lines { at, offsets, m: rows.len(), n: cols.len(), owner: PhantomData }
    }

    /// A rectangle.
    ///
    /// # Panics
    /// If the part does not have it.
    pub fn tile(&mut self, batch: usize, rows: Range<usize>, cols: Range<usize>) -> TileMut<'_, T> {
        assert!(self.has(batch, &rows, &cols));
        let (data, start, spec) = (self.data, self.start, &self.places.spec);
        TileMut { data, start, spec, rect: Rect { batch, rows, cols }, claim: None, owner: PhantomData }
    }
}

/// Most rows that [`MatMut::lines`] looks up at once. Zen 4, convolutions through windows in blocks of 144 rows and of 240, percent of the peak: 128 to 128 channels 3 x 3 @6 x 12 102 and 105, 64 to 64 @56 90 and 91.5.
pub const LINES: usize = 240;

/// Rows of a matrix to write, each anywhere, the elements of each side by side: their places are looked up.
#[derive(Debug)]
pub struct Lines<'a, T> {
    /// Column 0 of a row at offset 0.
    at: *mut T,
    offsets: [isize; LINES],
    m: usize,
    n: usize,
    owner: PhantomData<&'a mut [T]>,
}

impl<T: Copy> Lines<'_, T> {
    /// Some of them, and of each some columns.
    ///
    /// # Panics
    /// If there are no such rows or columns.
    #[inline(always)]
    pub fn part(&mut self, rows: Range<usize>, cols: Range<usize>) -> Scattered<'_, T> {
        self.every(rows, 1, cols)
    }

    /// Puts the rows in another order, each the one at a place of the old.
    ///
    /// # Panics
    /// If there is no row at one of the places, or not a place for each.
    #[inline(always)]
    pub fn arrange(&mut self, order: &[u8]) {
        assert!(order.len() == self.m);
        let offsets = self.offsets;
        for (offset, &from) in self.offsets.iter_mut().zip(order) {
            *offset = offsets[..self.m][from as usize];
        }
    }

    /// Some of them, from each to the next `apart`, and of each some columns: `rows` counts those that are taken.
    ///
    /// # Panics
    /// If there are no such rows or columns.
    #[inline(always)]
    pub fn every(&mut self, rows: Range<usize>, apart: usize, cols: Range<usize>) -> Scattered<'_, T> {
        assert!(cols.start <= cols.end && cols.end <= self.n);
        let m = rows.len();
        let rows = if m == 0 { 0..0 } else { rows.start * apart..(rows.end - 1) * apart + 1 };
        assert!(rows.end <= self.m);
        Scattered {
            at: self.at.wrapping_add(cols.start),
            offsets: &self.offsets[rows],
            apart,
            m,
            n: cols.len(),
            owner: PhantomData,
        }
    }
}

/// A part of [`Lines`].
#[derive(Debug)]
pub struct Scattered<'a, T> {
    at: *mut T,
    offsets: &'a [isize],
    /// Offsets from a row to the next.
    apart: usize,
    m: usize,
    n: usize,
    owner: PhantomData<&'a mut [T]>,
}

impl<T> Scattered<'_, T> {
    /// Asks for the first and the last element of every row: of a strip of a cache line all that it touches.
    #[inline(always)]
    pub fn prefetch_all(&self) {
        for &offset in self.offsets.iter().step_by(self.apart) {
            let first = self.at.wrapping_offset(offset);
            prefetch(first);
            prefetch(first.wrapping_add(self.n.saturating_sub(1)));
        }
    }
}

/// Rows to write, the elements of each side by side.
pub trait WriteRows<T> {
    /// Number of rows.
    fn m(&self) -> usize;

    /// Number of columns.
    fn n(&self) -> usize;

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    fn row(&mut self, row: usize) -> &mut [T];

    /// Asks for the lines of `cols` elements of a row, and for that of its last one. With `cols` known to the compiler no loop is left.
    fn prefetch(&self, row: usize, cols: usize);
}

/// See [`WriteRows::prefetch`]: of a row of `n` elements.
#[inline(always)]
fn prefetch_row<T>(first: *const T, n: usize, cols: usize) {
    lines(first, cols, false, prefetch);
    prefetch(first.wrapping_add(n.saturating_sub(1)));
}

impl<T: Copy> WriteRows<T> for Scattered<'_, T> {
    #[inline(always)]
    fn m(&self) -> usize {
        self.m
    }

    #[inline(always)]
    fn n(&self) -> usize {
        self.n
    }

    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [T] {
        // SAFETY: `MatMut::new` found every element inside its slice; `MatMut::lines` found the rectangle in a part that owns its elements and is borrowed from
        // exclusively, and its columns with stride 1; `Lines::every` took a part of that.
        unsafe { std::slice::from_raw_parts_mut(self.at.offset(self.offsets[row * self.apart]), self.n) }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, cols: usize) {
        prefetch_row(self.at.wrapping_offset(self.offsets[row * self.apart]), self.n, cols);
    }
}

/// The same rectangle of some matrices; see [`MatMut::bands`].
#[derive(Debug)]
pub struct Bands<'a, T> {
    at: *mut T,
    stride: isize,
    m: usize,
    n: usize,
    offsets: Offsets<'a>,
    owner: PhantomData<&'a mut [T]>,
}

impl<'a, T: Copy> Iterator for Bands<'a, T> {
    type Item = Band<'a, T>;
    #[inline(always)]
    fn next(&mut self) -> Option<Band<'a, T>> {
        // Each matrix comes once and no two share a place, so the bands are apart although all of them borrow the part.
        let at = self.at.wrapping_offset(self.offsets.next()?);
        Some(Band { at, stride: self.stride, m: self.m, n: self.n, owner: PhantomData })
    }
}

impl<'a, T> From<Band<'a, T>> for Bands<'a, T> {
    /// That band and no other.
    #[inline(always)]
    fn from(Band { at, stride, m, n, owner }: Band<'a, T>) -> Self {
        Bands { at, stride, m, n, offsets: Offsets::of_one(), owner }
    }
}

/// Rows of a matrix to write, the elements of each side by side.
#[derive(Debug)]
pub struct Band<'a, T> {
    pub(super) at: *mut T,
    pub(super) stride: isize,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) owner: PhantomData<&'a mut [T]>,
}

impl<'a, T> Band<'a, T> {
    /// Rows of `n` elements, one behind the other.
    ///
    /// # Panics
    /// If `data` holds less than `m` of them.
    #[inline(always)]
    pub fn row_major(data: &'a mut [T], m: usize, n: usize) -> Self {
        let data = &mut data[..m * n];
        Band { at: data.as_mut_ptr(), stride: n as isize, m, n, owner: PhantomData }
    }
}

impl<T: Copy> Band<'_, T> {
    /// Some of its rows and columns.
    ///
    /// # Panics
    /// If there are no such rows or columns.
    #[inline(always)]
    pub fn part(&mut self, rows: Range<usize>, cols: Range<usize>) -> Band<'_, T> {
        assert!(rows.start <= rows.end && rows.end <= self.m);
        assert!(cols.start <= cols.end && cols.end <= self.n);
        let at = self.at.wrapping_offset(rows.start as isize * self.stride + cols.start as isize);
        Band { at, stride: self.stride, m: rows.len(), n: cols.len(), owner: PhantomData }
    }

    /// Its elements, to be read.
    #[inline(always)]
    pub fn to_read(&self) -> MatRef<'_, T> {
        MatRef::of_band(self)
    }

    /// Its rows, to be asked for in so many turns.
    #[inline(always)]
    pub fn requests(&self, turns: usize) -> Requests<T> {
        Requests::of_rows(self.at, self.stride, self.m, turns)
    }
}

impl<T: Copy> WriteRows<T> for Band<'_, T> {
    #[inline(always)]
    fn m(&self) -> usize {
        self.m
    }

    #[inline(always)]
    fn n(&self) -> usize {
        self.n
    }

    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.m);
        // SAFETY: `MatMut::new` found every element inside its slice; the rows are those of a part that owns its elements (`MatMut::band`, `bands` and `evenly`
        // checked it) and is borrowed from it exclusively; its columns have stride 1.
        unsafe { std::slice::from_raw_parts_mut(self.at.offset(row as isize * self.stride), self.n) }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, cols: usize) {
        prefetch_row(self.at.wrapping_offset(row as isize * self.stride), self.n, cols);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axis::{Axis, Dim};

    #[test]
    fn parts_are_apart() {
        let mut data = vec![0u8; 60];
        let spec = MatSpec {
            start: 0,
            batch: Axis::strided(2, 30),
            rows: Axis::strided(5, 6),
            cols: Axis::strided(6, 1),
        };
        let places = Places::new(spec);
        let whole = MatMut::new(&mut data, 0, &places).unwrap();
        let (first, second) = whole.split(Index::Batch, 1);
        let (mut left, mut right) = first.split(Index::Col, 2);
        let (mut upper, mut lower) = second.split(Index::Row, 4);
        let fill = |part: &mut MatMut<'_, u8>, value: u8| {
            for batch in part.batch() {
                let mut band = part.band(batch, part.rows(), part.cols());
                for row in 0..band.m() {
                    band.row(row).fill(value);
                }
            }
        };
        for (part, value) in [(&mut left, 1), (&mut right, 2), (&mut upper, 3), (&mut lower, 4)] {
            fill(part, value);
        }
        assert!((0..60).all(|i| {
            let (batch, row, col) = (i / 30, i % 30 / 6, i % 6);
            data[i] == if batch == 0 { 1 + u8::from(col >= 2) } else { 3 + u8::from(row == 4) }
        }));
    }

    #[test]
    fn lines_are_the_rows_wherever_they_lie() {
        let mut data = vec![0u8; 80];
        let rows = Axis::new(&[Dim::plain(3, 24), Dim::plain(4, 5)]);
        let spec = MatSpec { start: 1, batch: Axis::strided(1, 0), rows, cols: Axis::strided(3, 1) };
        let places = Places::new(spec);
        assert!(places.columns_side_by_side() && places.band_stride().is_none());
        let (_, mut part) = MatMut::new(&mut data, 2, &places).unwrap().split(Index::Row, 2);
        let mut lines = part.lines(0, 2..11, 1..3);
        let mut some = lines.part(1..9, 1..2);
        assert_eq!((some.m(), some.n()), (8, 1));
        (0..8).for_each(|row| some.row(row)[0] = row as u8 + 1);
        let expected = |i: usize| (3..11).position(|row| i == 5 + rows.offset(row) as usize);
        assert!((0..80).all(|i| usize::from(data[i]) == expected(i).map_or(0, |row| row + 1)));
    }

    #[test]
    #[should_panic(expected = "has")]
    fn a_part_has_no_rectangle_of_another() {
        let mut data = vec![0u8; 12];
        let spec = MatSpec {
            start: 0,
            batch: Axis::strided(1, 0),
            rows: Axis::strided(3, 4),
            cols: Axis::strided(4, 1),
        };
        let places = Places::new(spec);
        let (mut upper, _) = MatMut::new(&mut data, 0, &places).unwrap().split(Index::Row, 1);
        let _ = upper.band(0, 0..2, 0..4);
    }
}
