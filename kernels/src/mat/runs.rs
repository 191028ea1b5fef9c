//! Rows that lie anywhere, read a column at a time.

use std::marker::PhantomData;
use std::ops::Range;

/// Some columns of `M` rows: each row begins at a place of its own, and all go on by one step.
#[derive(Debug)]
pub struct Run<'a, T, const M: usize> {
    /// Where the offsets of each row count from. All columns lie in slices that are borrowed for `'a`: `new`, or [`FixedRows::run`], checked it.
    rows: [*const T; M],
    /// Of the next column.
    offset: isize,
    left: usize,
    step: isize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy, const M: usize> Run<'a, T, M> {
    /// The place of a row that is not in `data`: it reads `zeros`.
    pub const ZEROS: isize = isize::MIN;

    /// `len` columns of rows that begin at `first` of `data` or, for [`Run::ZEROS`], with `zeros`.
    ///
    /// # Panics
    /// If an element lies outside.
    #[inline(always)]
    pub fn new(data: &'a [T], zeros: &'a [T], first: [isize; M], len: usize, step: isize) -> Self {
        let last = (len.max(1) as isize - 1).checked_mul(step).expect("an offset");
        let (low, high) = (last.min(0), last.max(0));
        // Of a slice of at most isize::MAX bytes: no difference overflows. A first element is inside if both ends of its row are.
        let places = |slice: &[T]| (slice.len() as isize - high).saturating_add(low).max(0) as usize;
        let (of_data, of_zeros) = (places(data), places(zeros));
        let mut inside = true;
        let mut rows = [zeros.as_ptr(); M];
        for (row, first) in rows.iter_mut().zip(first) {
            let padding = first == Self::ZEROS;
            let lowest = if padding { low } else { first.wrapping_add(low) };
            inside &= (lowest as usize) < if padding { of_zeros } else { of_data };
            *row = if padding { *row } else { data.as_ptr().wrapping_offset(first) };
        }
        assert!(inside, "a row lies outside");
        Run { rows, offset: 0, left: len, step, owner: PhantomData }
    }

    /// The next `N` columns; `None` if there are fewer.
    #[inline(always)]
    pub fn next_few<const N: usize>(&mut self) -> Option<RunColumns<'a, T, M, N>> {
        self.left = self.left.checked_sub(N)?;
        let columns =
            RunColumns { rows: self.rows, offset: self.offset, step: self.step, owner: PhantomData };
        self.offset = self.offset.wrapping_add(self.step.wrapping_mul(N as isize));
        Some(columns)
    }

    /// The same, of rows whose columns lie side by side: the step is then known to the compiler.
    ///
    /// # Panics
    /// If they do not.
    #[inline(always)]
    pub fn close(self) -> Self {
        assert!(self.step == 1);
        Run { step: 1, ..self }
    }
}

/// `N` columns of a [`Run`], whose elements are read when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct RunColumns<'a, T, const M: usize, const N: usize> {
    /// As in [`Run`], whose next `N` columns these are.
    rows: [*const T; M],
    offset: isize,
    step: isize,
    owner: PhantomData<&'a [T]>,
}

impl<T: Copy, const M: usize, const N: usize> RunColumns<'_, T, M, N> {
    /// The element of a row in a column.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub fn at(&self, row: usize, column: usize) -> T {
        assert!(row < M && column < N);
        let at = self.rows[row].wrapping_offset(self.offset);
        // SAFETY: who made the run found all columns of every row inside its slice.
        unsafe { *at.wrapping_offset(self.step.wrapping_mul(column as isize)) }
    }
}

/// `M` rows in places that are theirs for several runs of columns, each column some elements side by side.
#[derive(Debug)]
pub struct FixedRows<'a, T, const M: usize> {
    /// Column 0 of each row.
    rows: [*const T; M],
    /// Offsets from there at which `width` elements lie in the slice, which is borrowed for `'a`, for every row.
    inside: Range<isize>,
    width: usize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy, const M: usize> FixedRows<'a, T, M> {
    /// Rows that begin at `first` of `data`, whether there is such an element or not; a column is `width` elements wide, at least one.
    #[inline(always)]
    pub fn new(data: &'a [T], first: [isize; M], width: usize) -> Self {
        let (mut low, mut high) = (isize::MAX, isize::MIN);
        for first in first {
            (low, high) = (low.min(first), high.max(first));
        }
        let width = width.max(1);
        // Where a number would overflow, no offset is inside.
        let from = 0isize.checked_sub(low).unwrap_or(isize::MAX);
        let end =
            high.checked_add_unsigned(width - 1).and_then(|last| (data.len() as isize).checked_sub(last));
        let rows = first.map(|first| data.as_ptr().wrapping_offset(first));
        FixedRows { rows, inside: from..end.unwrap_or(isize::MIN), width, owner: PhantomData }
    }

    /// `len` columns of all rows, the first `offset` behind column 0: the first element of each.
    ///
    /// # Panics
    /// If an element lies outside.
    #[inline(always)]
    pub fn run(&self, offset: isize, len: usize, step: isize) -> Run<'a, T, M> {
        let last = (len.max(1) as isize - 1).checked_mul(step).and_then(|last| last.checked_add(offset));
        let last = last.expect("an offset");
        assert!(self.inside.contains(&offset) && self.inside.contains(&last), "a row lies outside");
        Run { rows: self.rows, offset, left: len, step, owner: PhantomData }
    }

    /// The same, all elements of each.
    ///
    /// # Panics
    /// If an element lies outside.
    #[inline(always)]
    pub fn strips(&self, offset: isize, len: usize, step: isize) -> StripRun<'a, T, M> {
        StripRun { run: self.run(offset, len, step), width: self.width }
    }
}

/// Columns of [`FixedRows`] with all of their elements.
#[derive(Debug)]
pub struct StripRun<'a, T, const M: usize> {
    /// Whose columns are `width` wide: [`FixedRows::strips`] made it.
    run: Run<'a, T, M>,
    width: usize,
}

impl<'a, T: Copy, const M: usize> StripRun<'a, T, M> {
    /// The next column of every row.
    #[inline(always)]
    pub fn next_strips(&mut self) -> Option<[&'a [T]; M]> {
        let (run, width) = (&mut self.run, self.width);
        run.left = run.left.checked_sub(1)?;
        let offset = run.offset;
        run.offset = offset.wrapping_add(run.step);
        // SAFETY: `FixedRows::run` found all columns of every row, `width` elements each, inside the slice, and each call takes the next.
        Some(run.rows.map(|row| unsafe { std::slice::from_raw_parts(row.wrapping_offset(offset), width) }))
    }
}

impl<T: Copy, const M: usize> Iterator for Run<'_, T, M> {
    type Item = [T; M];
    #[inline(always)]
    fn next(&mut self) -> Option<[T; M]> {
        self.left = self.left.checked_sub(1)?;
        let mut column = std::mem::MaybeUninit::<[T; M]>::uninit();
        let to = column.as_mut_ptr().cast::<T>();
        for (i, row) in self.rows.iter().enumerate() {
            // SAFETY: who made the run found all columns of every row inside its slice, and each call takes the next; `to` has room for `M` elements.
            unsafe { to.add(i).write(*row.offset(self.offset)) };
        }
        self.offset = self.offset.wrapping_add(self.step);
        // SAFETY: the loop wrote all `M` elements.
        Some(unsafe { column.assume_init() })
    }
}

/// Some columns of `M` rows that lie the same distance apart, each a few elements side by side.
#[derive(Debug)]
pub struct Comb<'a, T, const M: usize> {
    /// Column 0 of row 0. All columns of all rows lie in a slice that is borrowed for `'a`: `new` checked it.
    first: *const T,
    /// From a row to the next.
    apart: isize,
    /// From column 0 to the next that is read.
    offset: isize,
    left: usize,
    step: isize,
    width: usize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy, const M: usize> Comb<'a, T, M> {
    /// `len` columns, `width` elements side by side each: row 0 begins at `first` of `data`, the next `apart` behind it.
    ///
    /// # Panics
    /// If an element lies outside.
    #[inline(always)]
    pub fn new(data: &'a [T], first: isize, apart: isize, len: usize, step: isize, width: usize) -> Self {
        let reach = |count: usize, step: isize| (count.max(1) as isize - 1).checked_mul(step);
        let (of_rows, of_columns) = (reach(M, apart), reach(len, step));
        let (of_rows, of_columns) = of_rows.zip(of_columns).expect("an offset");
        let low = first.checked_add(of_rows.min(0)).and_then(|low| low.checked_add(of_columns.min(0)));
        let high = first.checked_add(of_rows.max(0)).and_then(|high| high.checked_add(of_columns.max(0)));
        let end = high.and_then(|high| high.checked_add_unsigned(width.max(1)));
        let (low, end) = low.zip(end).expect("an offset");
        assert!(low >= 0 && end <= data.len() as isize, "a row lies outside");
        let first = data.as_ptr().wrapping_offset(first);
        Comb { first, apart, offset: 0, left: len, step, width, owner: PhantomData }
    }

    /// The next column of every row.
    #[inline(always)]
    pub fn next_strips(&mut self) -> Option<[&'a [T]; M]> {
        self.left = self.left.checked_sub(1)?;
        let first = self.first.wrapping_offset(self.offset);
        // SAFETY: `new` found columns 0 to `left` of every row, `width` elements each, inside the slice, and each call takes the next.
        let strip = |row: usize| unsafe {
            std::slice::from_raw_parts(first.wrapping_offset(row as isize * self.apart), self.width)
        };
        let strips = std::array::from_fn(strip);
        self.offset = self.offset.wrapping_add(self.step);
        Some(strips)
    }
}

/// `N` places the same distance apart, some columns side by side at each; those beyond the ends are padding.
#[derive(Clone, Copy, Debug)]
pub struct Beads<'a, T, const N: usize> {
    /// Column 0 of place 0. All columns of the places from `from` on, `len` of them, lie in a slice that is borrowed for `'a`: `new` checked it.
    first: *const T,
    apart: isize,
    from: usize,
    len: usize,
    width: usize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy, const N: usize> Beads<'a, T, N> {
    /// No place but padding.
    pub const NONE: Self =
        Beads { first: std::ptr::null(), apart: 0, from: 0, len: 0, width: 0, owner: PhantomData };

    /// Place 0 is `first` of `data`, the next `apart` behind it, whether there are such elements or not; those `inside` are, with `width` columns each.
    ///
    /// # Panics
    /// If an element of a place inside lies outside, or there are no such places.
    #[inline(always)]
    pub fn new(data: &'a [T], first: isize, apart: isize, inside: Range<usize>, width: usize) -> Self {
        let (from, len) = (inside.start, inside.len());
        assert!(inside.end <= N || len == 0);
        if len > 0 {
            let place =
                |i: usize| (i as isize).checked_mul(apart).and_then(|offset| offset.checked_add(first));
            let ends = place(from).zip(place(from + len - 1));
            let (low, high) = ends.map(|(a, b)| (a.min(b), a.max(b))).expect("an offset");
            let end = high.checked_add_unsigned(width).expect("an offset");
            assert!(low >= 0 && end <= data.len() as isize, "a place lies outside");
        }
        let first = data.as_ptr().wrapping_offset(first);
        Beads { first, apart, from, len, width, owner: PhantomData }
    }

    /// Whether no places are padding but some of the first `ends` and of the last `ends`.
    #[inline(always)]
    pub fn is_whole_between(&self, ends: usize) -> bool {
        self.from <= ends && self.from + self.len + ends >= N
    }

    /// Some columns of all places, the first and the last `ENDS` of which may be padding.
    ///
    /// # Panics
    /// If one between is padding, or there are no such columns.
    #[inline(always)]
    pub fn cols<const ENDS: usize>(&self, col: usize, n: usize) -> Cols<'a, T, N, ENDS> {
        assert!(self.is_whole_between(ENDS) && (self.len == 0 || (n <= self.width && col <= self.width - n)));
        let Beads { first, apart, from, len, .. } = *self;
        Cols { first: first.wrapping_add(col), apart, from, len, width: n, owner: PhantomData }
    }
}

/// Some columns of [`Beads`].
#[derive(Clone, Copy, Debug)]
pub struct Cols<'a, T, const N: usize, const ENDS: usize> {
    /// As in [`Beads`], whose places and columns these are. All places but the first and the last `ENDS` are inside: [`Beads::cols`] checked it.
    first: *const T,
    apart: isize,
    from: usize,
    len: usize,
    width: usize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T: Copy, const N: usize, const ENDS: usize> Cols<'a, T, N, ENDS> {
    /// The columns of a place, `None` for padding.
    #[inline(always)]
    pub fn at(&self, place: usize) -> Option<&'a [T]> {
        if place.wrapping_sub(self.from) >= self.len {
            return None;
        }
        let at = (place as isize).wrapping_mul(self.apart);
        // SAFETY: the place is inside, and `Beads::new` found all columns of such places in the slice.
        Some(unsafe { std::slice::from_raw_parts(self.first.wrapping_offset(at), self.width) })
    }

    /// The columns of a place between the ends, which is looked up without a question.
    ///
    /// # Panics
    /// If it is one of the ends.
    #[inline(always)]
    pub fn between(&self, place: usize) -> &'a [T] {
        assert!(place >= ENDS && place + ENDS < N);
        let at = (place as isize).wrapping_mul(self.apart);
        // SAFETY: as above; `Beads::cols` found all places between the ends inside.
        unsafe { std::slice::from_raw_parts(self.first.wrapping_offset(at), self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_one_after_the_other() {
        let data: Vec<i32> = (0..20).collect();
        let zeros = [0; 3];
        let run = Run::new(&data, &zeros, [4, Run::<i32, 3>::ZEROS, 10], 3, 1);
        assert_eq!(run.collect::<Vec<_>>(), [[4, 0, 10], [5, 0, 11], [6, 0, 12]]);
        let mut run = Run::new(&data, &zeros, [4, Run::<i32, 3>::ZEROS, 10], 3, 1).close();
        let two = run.next_few::<2>().unwrap();
        assert_eq!([two.at(0, 1), two.at(1, 1), two.at(2, 0)], [5, 0, 10]);
        assert!(run.next_few::<2>().is_none() && run.next() == Some([6, 0, 12]));
        let back = Run::new(&data, &zeros, [19, 4], 3, -2);
        assert_eq!(back.collect::<Vec<_>>(), [[19, 4], [17, 2], [15, 0]]);
    }

    #[test]
    fn teeth_of_a_comb_are_one_distance_apart() {
        let data: Vec<i32> = (0..20).collect();
        let mut comb = Comb::<_, 3>::new(&data, 14, -5, 2, 3, 3);
        assert_eq!(comb.next_strips(), Some([&data[14..17], &data[9..12], &data[4..7]]));
        assert_eq!(comb.next_strips(), Some([&data[17..20], &data[12..15], &data[7..10]]));
        assert_eq!(comb.next_strips(), None);
        let refused = |first, apart, len, step| {
            std::panic::catch_unwind(|| Comb::<_, 3>::new(&[0; 20], first, apart, len, step, 3)).is_err()
        };
        assert!(
            !refused(14, -7, 2, 3) && refused(14, -8, 2, 3) && refused(15, -7, 2, 3) && refused(-1, 0, 1, 0)
        );
        assert!(refused(0, isize::MAX, 1, 0) && refused(isize::MAX, 1, 2, 1) && refused(0, 0, 2, isize::MIN));
    }

    #[test]
    fn fixed_rows_go_on_together() {
        let data: Vec<i32> = (0..20).collect();
        let rows = FixedRows::new(&data, [-3, 5], 2);
        assert_eq!(rows.run(4, 2, 3).collect::<Vec<_>>(), [[1, 9], [4, 12]]);
        let mut run = rows.strips(4, 2, 3);
        assert_eq!(run.next_strips(), Some([&data[1..3], &data[9..11]]));
        assert_eq!(run.next_strips(), Some([&data[4..6], &data[12..14]]));
        assert_eq!(run.next_strips(), None);
        let refused = |first: [isize; 2], offset, len, step| {
            let run = || FixedRows::new(&[0; 20], first, 2).strips(offset, len, step);
            std::panic::catch_unwind(|| _ = run()).is_err()
        };
        assert!(!refused([-3, 5], 3, 1, 0) && refused([-3, 5], 2, 1, 0));
        assert!(!refused([-3, 5], 13, 11, -1) && refused([-3, 5], 14, 1, 0) && refused([-3, 5], 13, 12, -1));
        assert!(refused([isize::MIN, 0], 0, 1, 0) && refused([0, isize::MAX], 0, 1, 0));
        assert!(refused([0, 0], 1, 2, isize::MAX) && refused([0, 0], 0, 3, isize::MAX));
        assert!(refused([isize::MIN; 2], isize::MAX, 1, 0));
    }

    #[test]
    fn beads_beyond_the_ends_are_padding() {
        let data: Vec<i32> = (1..=20).collect();
        let beads = Beads::<_, 6>::new(&data, -4, 5, 1..5, 3);
        let cols = beads.cols::<1>(1, 2);
        let some = |from: usize| Some(&data[from..from + 2]);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|i| cols.at(i)),
            [None, some(2), some(7), some(12), some(17), None]
        );
        let back = Beads::<_, 5>::new(&data, 17, -5, 0..4, 3);
        assert_eq!([0, 3, 4].map(|i| back.cols::<3>(0, 2).at(i)), [some(17), some(2), None]);
        assert!(back.is_whole_between(1) && !back.is_whole_between(0));
        assert_eq!(Beads::<i32, 4>::NONE.cols::<4>(3, 8).at(2), None);
        let panics = |work: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
        let refused = |first, apart, inside: Range<usize>, width| {
            panics(&|| _ = Beads::<_, 6>::new(&[0; 20], first, apart, inside.clone(), width))
        };
        assert!(!refused(-4, 5, 1..5, 4) && refused(-4, 5, 0..5, 3) && refused(-4, 5, 1..5, 5));
        assert!(refused(22, -5, 0..4, 3) && refused(0, isize::MAX, 2..3, 1) && refused(0, 1, 5..7, 1));
        assert!(!refused(isize::MAX, isize::MAX, 0..0, 5));
        assert!(panics(&|| _ = back.cols::<0>(0, 1)) && panics(&|| _ = beads.cols::<1>(2, 2)));
        assert_eq!((cols.between(1), cols.between(4)), (&data[2..4], &data[17..19]));
        assert!(panics(&|| _ = cols.between(0)) && panics(&|| _ = cols.between(5)));
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let data = [0u8; 20];
        let refused = |first: isize, len: usize, step: isize| {
            std::panic::catch_unwind(|| Run::new(&data, &[0; 3], [0, first], len, step).count()).is_err()
        };
        assert!(!refused(15, 5, 1) && refused(16, 5, 1) && refused(-1, 1, 1) && refused(3, 3, -2));
        assert!(refused(Run::<u8, 2>::ZEROS, 4, 1) && refused(0, 3, isize::MAX) && refused(isize::MAX, 1, 1));
    }
}
