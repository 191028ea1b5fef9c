//! Columns of rows that lie one distance from each other, each read from a single address.

use std::marker::PhantomData;

use crate::simd::opaque;

/// Tallest column that is read by [`Across`].
const MOST_ROWS: usize = 16;

/// Bytes from row 0 to the rows 1, 3, 5, ... of a column. An address of x86 multiplies by 2, 4 or 8 at no cost, which reaches all other rows: a step of k then computes one address where
/// sums of strides take one for every other row, on the ports that multiply.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowSteps([isize; MOST_ROWS / 2]);

impl RowSteps {
    /// Of rows that are reached otherwise.
    pub(super) const NONE: RowSteps = RowSteps([0; MOST_ROWS / 2]);

    #[inline(always)]
    pub(super) fn new<T, const M: usize>(stride: isize) -> Self {
        const { assert!(M <= MOST_ROWS) };
        let stride = stride.wrapping_mul(size_of::<T>() as isize);
        let mut odd = [0; MOST_ROWS / 2];
        for (i, odd) in odd.iter_mut().enumerate().take(M / 2) {
            // Not seen as multiples of one stride, which the compiler would go back to.
            *odd = opaque(stride.wrapping_mul(2 * i as isize + 1));
        }
        RowSteps(odd)
    }

    /// Bytes to a row.
    #[inline(always)]
    pub(super) fn to(&self, row: usize) -> isize {
        match row {
            0 => 0,
            _ => self.0[(row >> row.trailing_zeros()) / 2] << row.trailing_zeros(),
        }
    }
}

/// Columns, one after the other, elements of a column side by side if `SIDE`; see [`MatRef::across`](super::MatRef::across).
#[derive(Clone, Debug)]
pub struct Across<'a, T, const M: usize, const SIDE: bool> {
    at: *const T,
    left: usize,
    step: isize,
    odd: RowSteps,
    owner: PhantomData<&'a [T]>,
}

impl<T, const M: usize, const SIDE: bool> Across<'_, T, M, SIDE> {
    /// `left` columns of `M` rows, `step` from one to the next, all in what is borrowed for as long, from row 0 of the first on.
    #[inline(always)]
    pub(super) fn new(at: *const T, left: usize, step: isize, odd: RowSteps) -> Self {
        Across { at, left, step, odd, owner: PhantomData }
    }
}

impl<'a, T: Copy, const M: usize, const SIDE: bool> Iterator for Across<'a, T, M, SIDE> {
    type Item = Column<'a, T, M, SIDE>;
    #[inline(always)]
    fn next(&mut self) -> Option<Column<'a, T, M, SIDE>> {
        self.left = self.left.checked_sub(1)?;
        // `at` is the first element of a column of the matrix, which has `M` rows; `left` columns follow.
        let column = Column { at: self.at, odd: self.odd, owner: PhantomData };
        self.at = self.at.wrapping_offset(self.step);
        Some(column)
    }
}

/// A column of `M` rows. Its elements are read when they are asked for: read at once, they would take a register each.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a, T, const M: usize, const SIDE: bool> {
    /// Row 0; the rows below are in the matrix as well: [`Across`] made it.
    at: *const T,
    odd: RowSteps,
    owner: PhantomData<&'a [T]>,
}

impl<T: Copy, const M: usize, const SIDE: bool> Column<'_, T, M, SIDE> {
    /// The element of a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn at(&self, row: usize) -> T {
        assert!(row < M);
        // SAFETY: the element is one of the matrix, all of which lie in the borrowed slice.
        unsafe {
            *if SIDE { self.at.wrapping_add(row) } else { self.at.wrapping_byte_offset(self.odd.to(row)) }
        }
    }
}

impl<'a, T: Copy, const M: usize, const SIDE: bool> Across<'a, T, M, SIDE> {
    /// The same of columns that lie `step` apart: a number that is known to the compiler becomes part of each address.
    ///
    /// # Panics
    /// If they do not.
    #[inline(always)]
    pub fn stepping(self, step: isize) -> Self {
        assert!(self.step == step);
        Across { step, ..self }
    }

    /// The next `N` columns, from one address; `None` if there are fewer.
    #[inline(always)]
    pub fn next_few<const N: usize>(&mut self) -> Option<Few<'a, T, M, SIDE, N>> {
        self.left = self.left.checked_sub(N)?;
        let few = Few { first: Column { at: self.at, odd: self.odd, owner: PhantomData }, step: self.step };
        self.at = self.at.wrapping_offset(self.step.wrapping_mul(N as isize));
        Some(few)
    }
}

/// `N` columns of `M` rows one after the other; see [`Across::next_few`].
#[derive(Clone, Copy, Debug)]
pub struct Few<'a, T, const M: usize, const SIDE: bool, const N: usize> {
    /// The others are in the matrix as well, `step` apart: [`Across`] made it.
    first: Column<'a, T, M, SIDE>,
    step: isize,
}

impl<'a, T: Copy, const M: usize, const SIDE: bool, const N: usize> Few<'a, T, M, SIDE, N> {
    /// Column `i` of them.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub fn column(&self, i: usize) -> Column<'a, T, M, SIDE> {
        assert!(i < N);
        Column { at: self.first.at.wrapping_offset(self.step.wrapping_mul(i as isize)), ..self.first }
    }
}

/// `W` columns at a time of `M` rows whose elements lie side by side; see [`MatRef::chunks`](super::MatRef::chunks).
#[derive(Debug)]
pub(crate) struct Chunks<'a, T, const M: usize, const W: usize> {
    at: *const T,
    left: usize,
    /// `W`. Not seen as such: the compiler would keep an address a row, of which tall tiles have more than there are registers.
    step: isize,
    odd: RowSteps,
    owner: PhantomData<&'a [T]>,
}

impl<T, const M: usize, const W: usize> Chunks<'_, T, M, W> {
    /// `left` times `W` columns of a matrix of `M` rows, which is borrowed for as long, from row 0 of the first on.
    #[inline(always)]
    pub(super) fn new(at: *const T, left: usize, odd: RowSteps) -> Self {
        Chunks { at, left, step: opaque(W as isize), odd, owner: PhantomData }
    }
}

impl<'a, T, const M: usize, const W: usize> Iterator for Chunks<'a, T, M, W> {
    type Item = Chunk<'a, T, M, W>;
    #[inline(always)]
    fn next(&mut self) -> Option<Chunk<'a, T, M, W>> {
        self.left = self.left.checked_sub(1)?;
        // `at` is the first of `W` columns of the matrix, which has `M` rows; `left` times `W` columns follow.
        let chunk = Chunk { at: self.at, odd: self.odd, owner: PhantomData };
        self.at = self.at.wrapping_offset(self.step);
        Some(chunk)
    }
}

/// `W` columns of `M` rows, side by side in each, read when they are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a, T, const M: usize, const W: usize> {
    /// Row 0; the rows below are in the matrix as well: [`Chunks`] made it.
    at: *const T,
    odd: RowSteps,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T, const M: usize, const W: usize> Chunk<'a, T, M, W> {
    /// The elements of a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize) -> &'a [T; W] {
        assert!(row < M);
        let at = self.at.wrapping_byte_offset(self.odd.to(row)).cast::<[T; W]>();
        // SAFETY: the `W` elements are those of a row of the matrix, all of which lie in the slice that is borrowed for `'a`.
        unsafe { &*at }
    }
}
