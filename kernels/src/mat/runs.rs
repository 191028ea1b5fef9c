//! Rows that lie anywhere, read a column at a time.

use std::marker::PhantomData;

/// Some columns of `M` rows: each row begins at a place of its own, and all go on by one step.
#[derive(Debug)]
pub struct Run<'a, T, const M: usize> {
    /// Column 0 of each row. All columns lie in slices that are borrowed for `'a`: `new` checked it.
    rows: [*const T; M],
    /// From column 0 to the next.
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
}

impl<T: Copy, const M: usize> Iterator for Run<'_, T, M> {
    type Item = [T; M];
    #[inline(always)]
    fn next(&mut self) -> Option<[T; M]> {
        self.left = self.left.checked_sub(1)?;
        let mut column = std::mem::MaybeUninit::<[T; M]>::uninit();
        let to = column.as_mut_ptr().cast::<T>();
        for (i, row) in self.rows.iter().enumerate() {
            // SAFETY: `new` found columns 0 to `left` of every row inside its slice, and each call takes the next; `to` has room for `M` elements.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_one_after_the_other() {
        let data: Vec<i32> = (0..20).collect();
        let zeros = [0; 3];
        let run = Run::new(&data, &zeros, [4, Run::<i32, 3>::ZEROS, 10], 3, 1);
        assert_eq!(run.collect::<Vec<_>>(), [[4, 0, 10], [5, 0, 11], [6, 0, 12]]);
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
    fn what_lies_outside_is_refused() {
        let data = [0u8; 20];
        let refused = |first: isize, len: usize, step: isize| {
            std::panic::catch_unwind(|| Run::new(&data, &[0; 3], [0, first], len, step).count()).is_err()
        };
        assert!(!refused(15, 5, 1) && refused(16, 5, 1) && refused(-1, 1, 1) && refused(3, 3, -2));
        assert!(refused(Run::<u8, 2>::ZEROS, 4, 1) && refused(0, 3, isize::MAX) && refused(isize::MAX, 1, 1));
    }
}
