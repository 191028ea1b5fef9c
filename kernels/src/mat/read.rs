//! Matrices to read where they lie.

use std::marker::PhantomData;
use std::ops::Range;

use crate::simd::{prefetch, prefetch_near};

use super::CACHE_LINE;
use super::columns::{Across, Chunks, RowSteps};
use super::requests::lines;
use super::{Band, Places, Requests};

/// A batch of matrices with one stride for rows and one for columns, every element inside its slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrices<'a, T> {
    data: &'a [T],
    start: isize,
    strides: [isize; 2],
    places: &'a Places,
}

impl<'a, T: Copy> Matrices<'a, T> {
    /// Elements of `data` at `places`, all moved by `start`; `None` if one lies outside, there are none, or rows or columns take more than one stride.
    #[inline]
    pub fn new(data: &'a [T], start: isize, places: &'a Places) -> Option<Self> {
        let strides = places.strides.filter(|_| places.inside(start, data.len()))?;
        Some(Matrices { data, start: start + places.spec.start, strides, places })
    }

    /// Whether the elements of a column lie side by side.
    #[inline(always)]
    pub fn has_whole_columns(&self) -> bool {
        self.strides[0] == 1
    }

    /// One of them.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn matrix(&self, batch: usize) -> MatRef<'a, T> {
        let Places { spec, extents: [matrices, rows, cols], .. } = self.places;
        assert!(batch < *matrices);
        let [row_stride, col_stride] = self.strides;
        // `new` found that no offset overflows.
        let offset = if batch == 0 { 0 } else { spec.batch.offset(batch) };
        let first = self.data.as_ptr().wrapping_offset(self.start + offset);
        MatRef { first, rows: *rows, cols: *cols, row_stride, col_stride, owner: PhantomData }
    }

    /// The same part of some of them, one after the other.
    ///
    /// # Panics
    /// If there are not so many, or they are smaller.
    #[inline(always)]
    pub fn parts(&self, batch: Range<usize>, rows: Range<usize>, cols: Range<usize>) -> Parts<'a, T> {
        assert!(batch.end <= self.places.extents[0]);
        // The first product begins at offset 0 of the batch.
        let part = self.matrix(0).part(rows, cols);
        Parts { part, offsets: super::Offsets::new(&self.places.spec.batch, batch) }
    }
}

/// The same part of some matrices of a batch; see [`Matrices::parts`].
#[derive(Debug)]
pub struct Parts<'a, T> {
    part: MatRef<'a, T>,
    offsets: super::Offsets<'a>,
}

impl<'a, T: Copy> Iterator for Parts<'a, T> {
    type Item = MatRef<'a, T>;
    #[inline(always)]
    fn next(&mut self) -> Option<MatRef<'a, T>> {
        let offset = self.offsets.next()?;
        Some(MatRef { first: self.part.first.wrapping_offset(offset), ..self.part })
    }
}

impl<'a, T> Parts<'a, T> {
    /// Columns of each, and elements from a column to the next.
    #[inline(always)]
    pub(crate) fn columns(&self) -> (usize, isize) {
        (self.part.cols, self.part.col_stride)
    }
}

impl<'a, T> From<MatRef<'a, T>> for Parts<'a, T> {
    /// That matrix and no other.
    #[inline(always)]
    fn from(part: MatRef<'a, T>) -> Self {
        Parts { part, offsets: super::Offsets::of_one() }
    }
}

/// A matrix to read.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    /// Element (0, 0). Every element lies in a slice that is borrowed for `'a`: [`Matrices::new`] and the constructors below checked it.
    pub(super) first: *const T,
    rows: usize,
    cols: usize,
    pub(super) row_stride: isize,
    col_stride: isize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy> MatRef<'a, T> {
    /// The elements of a band, row by row.
    #[inline(always)]
    pub(super) fn of_band(band: &'a Band<'_, T>) -> Self {
        // The band owns them and is borrowed.
        let Band { at, stride, m, n, .. } = *band;
        MatRef { first: at, rows: m, cols: n, row_stride: stride, col_stride: 1, owner: PhantomData }
    }

    /// The first `rows * cols` elements of `data`, row by row.
    ///
    /// # Panics
    /// If `data` is shorter.
    #[inline(always)]
    pub fn row_major(data: &'a [T], rows: usize, cols: usize) -> Self {
        let data = &data[..rows * cols];
        MatRef {
            first: data.as_ptr(),
            rows,
            cols,
            row_stride: cols as isize,
            col_stride: 1,
            owner: PhantomData,
        }
    }

    /// Rows as columns.
    #[inline(always)]
    pub fn transposed(self) -> Self {
        let MatRef { first, rows, cols, row_stride, col_stride, owner } = self;
        MatRef { first, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride, owner }
    }

    /// Some rows and columns of it.
    ///
    /// # Panics
    /// If it has fewer.
    #[inline(always)]
    pub fn part(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        assert!(
            rows.start <= rows.end
                && rows.end <= self.rows
                && cols.start <= cols.end
                && cols.end <= self.cols
        );
        let offset = rows.start as isize * self.row_stride + cols.start as isize * self.col_stride;
        // An empty part may begin beyond the last element; nothing is read from it.
        MatRef { first: self.first.wrapping_offset(offset), rows: rows.len(), cols: cols.len(), ..self }
    }

    /// Number of rows.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[inline(always)]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether the elements of a row lie side by side.
    #[inline(always)]
    pub fn has_whole_rows(&self) -> bool {
        self.col_stride == 1 || self.cols <= 1
    }

    /// One element.
    ///
    /// # Panics
    /// If it is outside.
    #[inline(always)]
    pub fn at(&self, row: usize, col: usize) -> T {
        assert!(row < self.rows && col < self.cols);
        let offset = row as isize * self.row_stride + col as isize * self.col_stride;
        // SAFETY: the element is one of the matrix, all of which lie in the borrowed slice.
        unsafe { *self.first.offset(offset) }
    }

    /// A row.
    ///
    /// # Panics
    /// If it is outside or its elements do not lie side by side.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.rows && self.has_whole_rows());
        // SAFETY: the row's elements are elements of the matrix and lie side by side.
        unsafe { std::slice::from_raw_parts(self.first.offset(row as isize * self.row_stride), self.cols) }
    }

    /// Elements from a row to the one `rows` below it.
    #[inline(always)]
    pub fn down_by(&self, rows: usize) -> isize {
        self.row_stride.wrapping_mul(rows as isize)
    }

    /// Asks for the lines of a row to come near; a row that is none is no mistake.
    #[inline(always)]
    pub fn prefetch_row(&self, row: usize) {
        let first = self.first.wrapping_offset(row as isize * self.row_stride);
        lines(first, self.cols, true, prefetch_near);
    }

    /// The rows, to be asked for in so many turns.
    #[inline(always)]
    pub fn requests(&self, turns: usize) -> Requests<T> {
        Requests::of_rows(self.first, self.row_stride, self.rows, turns)
    }

    /// Its columns, to be asked for in so many turns; `on` of them in each, if its rows lie side by side.
    #[inline(always)]
    pub fn column_requests(&self, turns: usize, on: usize) -> Requests<T> {
        if self.has_whole_rows() {
            Requests::of_columns(self.first, self.row_stride, self.rows, on)
        } else {
            Requests::of_rows(self.first, self.col_stride, self.cols, turns)
        }
    }

    /// The rows, from the first to the last.
    ///
    /// # Panics
    /// If the elements of a row do not lie side by side.
    #[inline(always)]
    pub fn down(self) -> Down<'a, T> {
        assert!(self.has_whole_rows());
        Down {
            at: self.first,
            left: self.rows,
            width: self.cols,
            stride: self.row_stride,
            owner: PhantomData,
        }
    }

    /// Whether rows lie one right behind the other, each `width` elements side by side.
    #[inline(always)]
    pub fn is_close(&self, width: usize) -> bool {
        self.has_whole_rows() && self.cols == width && self.row_stride == width as isize
    }

    /// The same as [`MatRef::down`], of rows that lie so.
    ///
    /// # Panics
    /// If they do not.
    #[inline(always)]
    pub fn down_close(self, width: usize) -> Down<'a, T> {
        assert!(self.is_close(width));
        Down { width, stride: width as isize, ..self.down() }
    }

    /// [`in_a_set`] of its rows.
    #[inline(always)]
    pub(crate) fn in_a_set(&self, rows: usize) -> usize {
        in_a_set(self.row_stride.unsigned_abs().wrapping_mul(size_of::<T>()), rows)
    }

    /// Elements from a column to the next.
    #[inline(always)]
    pub fn columns_apart(&self) -> isize {
        self.col_stride
    }

    /// Whether the elements of a column lie side by side, as those of a panel do.
    #[inline(always)]
    pub fn has_whole_columns(&self) -> bool {
        self.row_stride == 1
    }

    /// The columns of a matrix of `M` rows, from the first to the last. With `SIDE` their elements lie side by side: no address but the first is then computed.
    ///
    /// # Panics
    /// If it has another number of rows, or the elements of a column do not lie so.
    #[inline(always)]
    pub fn across<const M: usize, const SIDE: bool>(self) -> Across<'a, T, M, SIDE> {
        assert!(self.rows == M && (!SIDE || self.has_whole_columns()));
        // Every column of the matrix is inside.
        Across::new(self.first, self.cols, self.col_stride, RowSteps::new::<T, M>(self.row_stride))
    }
}

impl<'a, T> MatRef<'a, T> {
    /// `rows` rows of `cols` elements side by side, the first at `start` of `data`, each `apart` behind the one before; they may overlap.
    ///
    /// # Panics
    /// If an element lies outside.
    #[inline(always)]
    pub(crate) fn spread(data: &'a [T], start: isize, rows: usize, cols: usize, apart: usize) -> Self {
        let reach = rows.saturating_sub(1).checked_mul(apart).and_then(|reach| reach.checked_add(cols));
        let end = reach.and_then(|reach| start.checked_add_unsigned(reach)).expect("an offset");
        assert!(start >= 0 && end <= data.len() as isize, "a row lies outside");
        let first = data.as_ptr().wrapping_offset(start);
        MatRef { first, rows, cols, row_stride: apart as isize, col_stride: 1, owner: PhantomData }
    }

    /// Strips of `width` columns from the first row to the last, from left to right, rows of each `N` at a time; columns that fill none are left out.
    ///
    /// # Panics
    /// If `width` is 0, or rows do not lie side by side.
    #[inline(always)]
    pub(crate) fn strips<const N: usize>(self, width: usize) -> Strips<'a, T, N> {
        assert!(self.col_stride == 1 || self.cols <= 1);
        let rows =
            Down { at: self.first, left: self.rows, width, stride: self.row_stride, owner: PhantomData };
        Strips { rows, left: self.cols / width, steps: RowSteps::new::<T, N>(self.row_stride) }
    }

    /// The columns of a matrix of `M` rows, `W` at a time, from the first `W` to the last.
    ///
    /// # Panics
    /// If it has another number of rows, rows that do not lie side by side, or columns that are no multiple of `W`.
    #[inline(always)]
    pub(crate) fn chunks<const M: usize, const W: usize>(self) -> Chunks<'a, T, M, W> {
        // None of no columns, whose distance says nothing.
        assert!(self.rows == M && (self.col_stride == 1 || self.cols == 0) && self.cols.is_multiple_of(W));
        Chunks::new(self.first, self.cols / W, RowSteps::new::<T, M>(self.row_stride))
    }
}

/// How many of `rows` rows, so many bytes apart, begin in one set of a first-level cache of 64 sets, at most. Rows that are no multiple of a line apart are rounded down.
#[inline(always)]
pub(crate) fn in_a_set(apart: usize, rows: usize) -> usize {
    const SETS: usize = 64;
    rows.div_ceil(SETS >> (apart / CACHE_LINE).trailing_zeros().min(SETS.ilog2()))
}

/// Rows as slices; see [`MatRef::down`].
#[derive(Debug)]
pub struct Down<'a, T> {
    at: *const T,
    left: usize,
    width: usize,
    stride: isize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy> Iterator for Down<'a, T> {
    type Item = &'a [T];
    #[inline(always)]
    fn next(&mut self) -> Option<&'a [T]> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: `at` is the first element of a row of the matrix, `left` rows follow; a row's `width` elements lie side by side.
        let row = unsafe { std::slice::from_raw_parts(self.at, self.width) };
        self.at = self.at.wrapping_offset(self.stride);
        Some(row)
    }
}

impl<'a, T: Copy> Down<'a, T> {
    /// The next `N` rows, which are [`close`](MatRef::down_close); `None` if there are fewer.
    #[inline(always)]
    pub fn next_few<const N: usize>(&mut self) -> Option<NextRows<'a, T, N, true>> {
        self.take_few(RowSteps::NONE)
    }

    #[inline(always)]
    fn take_few<const N: usize, const CLOSE: bool>(
        &mut self,
        steps: RowSteps,
    ) -> Option<NextRows<'a, T, N, CLOSE>> {
        self.left = self.left.checked_sub(N)?;
        let Down { at, width, stride, .. } = *self;
        self.at = at.wrapping_offset(stride.wrapping_mul(N as isize));
        Some(NextRows { at, width, stride, steps, owner: PhantomData })
    }

    /// The rows `N` at a time; what is left over is left out. `CLOSE`: they are [`close`](MatRef::down_close).
    #[inline(always)]
    pub fn by_few<const N: usize, const CLOSE: bool>(self) -> ByFew<'a, T, N, CLOSE> {
        let steps = if CLOSE { RowSteps::NONE } else { RowSteps::new::<T, N>(self.stride) };
        ByFew { rows: self, steps }
    }
}

/// Rows `N` at a time; see [`Down::by_few`].
#[derive(Debug)]
pub struct ByFew<'a, T, const N: usize, const CLOSE: bool> {
    rows: Down<'a, T>,
    steps: RowSteps,
}

impl<'a, T: Copy, const N: usize, const CLOSE: bool> Iterator for ByFew<'a, T, N, CLOSE> {
    type Item = NextRows<'a, T, N, CLOSE>;
    #[inline(always)]
    fn next(&mut self) -> Option<NextRows<'a, T, N, CLOSE>> {
        self.rows.take_few(self.steps)
    }
}

impl<'a, T, const N: usize, const CLOSE: bool> ByFew<'a, T, N, CLOSE> {
    /// What is left, fewer than `N` rows after the last of them.
    #[inline(always)]
    pub fn rest(self) -> Down<'a, T> {
        self.rows
    }
}

/// Strips of a matrix, from left to right; see [`MatRef::strips`].
#[derive(Debug)]
pub(crate) struct Strips<'a, T, const N: usize> {
    /// Of the next strip, if one is left.
    rows: Down<'a, T>,
    left: usize,
    steps: RowSteps,
}

impl<'a, T, const N: usize> Iterator for Strips<'a, T, N> {
    type Item = ByFew<'a, T, N, false>;
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // All of the strip's columns are the matrix's: it has `left` strips more.
        let Down { at, left, width, stride, owner } = self.rows;
        self.rows.at = at.wrapping_add(width);
        Some(ByFew { rows: Down { at, left, width, stride, owner }, steps: self.steps })
    }
}

/// `N` rows, all reached from one address: by sums with a constant if `CLOSE`, otherwise by few steps.
#[derive(Clone, Copy, Debug)]
pub struct NextRows<'a, T, const N: usize, const CLOSE: bool> {
    /// Row 0; all of them are in the matrix, `width` elements side by side: [`Down`] made it.
    at: *const T,
    width: usize,
    stride: isize,
    steps: RowSteps,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy, const N: usize, const CLOSE: bool> NextRows<'a, T, N, CLOSE> {
    /// Where a row begins.
    #[inline(always)]
    fn place(&self, row: usize) -> *const T {
        if CLOSE {
            self.at.wrapping_offset(self.stride.wrapping_mul(row as isize))
        } else {
            self.at.wrapping_byte_offset(self.steps.to(row))
        }
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < N);
        let at = self.place(row);
        // SAFETY: the row is one of the matrix, all of which lie in the borrowed slice.
        unsafe { std::slice::from_raw_parts(at, self.width) }
    }

    /// Asks for what lies `bytes` behind element `col` of a row, whatever it is, to be in the first-level cache.
    #[inline(always)]
    pub(crate) fn prefetch_behind(&self, row: usize, col: usize, bytes: isize) {
        let from = NextRows { at: self.at.wrapping_byte_offset(bytes), ..*self };
        prefetch(from.place(row).wrapping_add(col));
    }

    /// Asks for element `col` of the row that comes `rows` behind `row`, whether there is one or not, to be in the first-level cache.
    #[inline(always)]
    pub fn prefetch(&self, row: usize, rows: usize, col: usize) {
        prefetch(self.place(row).wrapping_offset(self.stride.wrapping_mul(rows as isize)).wrapping_add(col));
    }
}

impl<T> Down<'_, T> {
    /// Leaves out the next `rows`, or all there are.
    #[inline(always)]
    pub fn leave_out(&mut self, rows: usize) {
        let rows = rows.min(self.left);
        self.left -= rows;
        self.at = self.at.wrapping_offset(self.stride.wrapping_mul(rows as isize));
    }

    /// Asks for element `col` of the row that comes `rows` after the next, whether there is one or not, to be in the first-level cache.
    #[inline(always)]
    pub fn prefetch(&self, rows: usize, col: usize) {
        prefetch(self.at.wrapping_offset((rows as isize).wrapping_mul(self.stride)).wrapping_add(col));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axis::Axis;
    use crate::mat::MatSpec;

    #[test]
    fn rows_and_columns_are_those_of_the_spec() {
        let data: Vec<usize> = (0..60).collect();
        let spec = MatSpec {
            start: 3,
            batch: Axis::strided(2, 24),
            rows: Axis::strided(3, 7),
            cols: Axis::strided(4, 1),
        };
        let places = Places::new(spec);
        let all = Matrices::new(&data, 0, &places).unwrap();
        let part = all.matrix(1).part(1..3, 1..4);
        assert_eq!((part.rows(), part.cols(), part.at(1, 2)), (2, 3, 3 + 24 + 14 + 3));
        assert_eq!(
            part.down().map(<[usize]>::to_vec).collect::<Vec<_>>(),
            [vec![35, 36, 37], vec![42, 43, 44]]
        );
        let columns: Vec<_> = part.across::<2, false>().map(|column| [0, 1].map(|i| column.at(i))).collect();
        assert_eq!(columns, [[35, 42], [36, 43], [37, 44]]);
        let turned = part.transposed();
        assert!(turned.has_whole_columns() && !part.has_whole_columns());
        let columns: Vec<_> =
            turned.across::<3, true>().map(|column| [0, 1, 2].map(|i| column.at(i))).collect();
        assert_eq!(columns, [[35, 36, 37], [42, 43, 44]]);
        assert!(std::panic::catch_unwind(|| part.across::<2, true>().count()).is_err());
        assert_eq!(part.row(1), [42, 43, 44]);
        assert_eq!(part.part(2..2, 0..3).down().count(), 0);
    }

    #[test]
    fn few_rows_and_columns_come_from_one_address() {
        let data: Vec<usize> = (0..60).collect();
        let whole = MatRef::row_major(&data, 10, 6);
        let part = whole.part(1..10, 2..5);
        let by_step: Vec<_> =
            part.down().by_few::<4, false>().map(|rows| [0, 1, 2, 3].map(|i| rows.row(i).to_vec())).collect();
        let rows = |first: usize| [0, 1, 2, 3].map(|i| part.row(first + i).to_vec());
        assert_eq!(by_step, [rows(0), rows(4)]);
        let close: Vec<_> = whole
            .down_close(6)
            .by_few::<4, true>()
            .map(|rows| [0, 1, 2, 3].map(|i| rows.row(i).to_vec()))
            .collect();
        assert_eq!(close.concat().concat(), data[..48]);
        let mut columns = part.across::<9, false>().stepping(1);
        let two = columns.next_few::<2>().unwrap();
        assert_eq!((two.column(0).at(8), two.column(1).at(3)), (part.at(8, 0), part.at(3, 1)));
        assert!(columns.next_few::<2>().is_none());
        assert_eq!(columns.next().map(|column| column.at(1)), Some(part.at(1, 2)));
        assert!(std::panic::catch_unwind(|| _ = part.across::<9, false>().stepping(2)).is_err());
    }

    #[test]
    fn columns_of_any_height_are_read_by_odd_steps() {
        let data: Vec<usize> = (0..16 * 7).collect();
        let whole = MatRef::row_major(&data, 16, 7);
        let column: Vec<_> =
            whole.across::<16, false>().map(|column| std::array::from_fn(|i| column.at(i))).collect();
        assert!(column.iter().enumerate().all(|(k, column): (usize, &[usize; 16])| {
            column.iter().enumerate().all(|(i, &x)| x == i * 7 + k)
        }));
        // A stride of any size is a number like others where there is one row.
        assert_eq!(MatRef { row_stride: isize::MAX, rows: 1, ..whole }.across::<1, false>().count(), 7);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn chunks_are_neighbours_of_each_row() {
        let data: Vec<u8> = (0..60).collect();
        let rows = MatRef::spread(&data, 2, 5, 8, 12);
        let chunks: Vec<_> = rows.chunks::<5, 4>().map(|chunk| *chunk.at(4)).collect();
        assert_eq!(chunks, [[50, 51, 52, 53], [54, 55, 56, 57]]);
        let refused = |start, rows, cols, apart| {
            std::panic::catch_unwind(|| _ = MatRef::spread(&[0; 60], start, rows, cols, apart)).is_err()
        };
        assert!(!refused(0, 5, 12, 12) && refused(1, 5, 12, 12) && refused(-1, 1, 4, 0));
        assert!(refused(0, usize::MAX, 4, 2) && refused(isize::MAX, 1, 4, 0) && refused(0, 2, 4, usize::MAX));
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let data = [0f32; 12];
        let fits = |start, rows: isize, cols: isize| {
            let (batch, rows, cols) = (Axis::strided(1, 0), Axis::strided(3, rows), Axis::strided(4, cols));
            let places = Places::new(MatSpec { start: 0, batch, rows, cols });
            Matrices::new(&data, start, &places).is_some()
        };
        assert!(fits(0, 4, 1) && fits(11, -4, -1) && fits(3, 0, 0));
        for (start, rows, cols) in
            [(1, 4, 1), (0, 5, 1), (0, -4, 1), (-1, 4, 1), (0, isize::MAX, 1), (isize::MAX, 4, 1)]
        {
            assert!(!fits(start, rows, cols));
        }
    }
}
