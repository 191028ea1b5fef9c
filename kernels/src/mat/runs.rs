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
    /// Elements side by side that a column is of.
    width: usize,
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
        Self::wide(data, zeros, first, len, step, 1)
    }

    /// The same of columns that are `width` elements side by side each.
    ///
    /// # Panics
    /// As there.
    #[inline(always)]
    pub fn wide(
        data: &'a [T],
        zeros: &'a [T],
        first: [isize; M],
        len: usize,
        step: isize,
        width: usize,
    ) -> Self {
        let last = (len.max(1) as isize - 1).checked_mul(step).expect("an offset");
        let (low, high) = (last.min(0), last.max(0).saturating_add_unsigned(width.max(1) - 1));
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
        Run { rows, offset: 0, left: len, step, width, owner: PhantomData }
    }

    /// The next column, as slices.
    #[inline(always)]
    pub fn next_strips(&mut self) -> Option<[&'a [T]; M]> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: `wide` found columns 0 to `left` of every row, `width` elements each, inside its slice, and each call takes the next.
        let strips = self
            .rows
            .map(|row| unsafe { std::slice::from_raw_parts(row.wrapping_offset(self.offset), self.width) });
        self.offset = self.offset.wrapping_add(self.step);
        Some(strips)
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
    fn strips_lie_side_by_side() {
        let data: Vec<i32> = (0..20).collect();
        let mut run = Run::wide(&data, &[0; 4], [4, Run::<i32, 3>::ZEROS, 16], 1, 9, 4);
        assert_eq!(run.next_strips(), Some([&data[4..8], &[0; 4], &data[16..20]]));
        assert_eq!(run.next_strips(), None);
        let refused = |first| std::panic::catch_unwind(|| Run::wide(&data, &[0; 4], first, 2, 9, 4)).is_err();
        assert!(!refused([7]) && refused([8]) && refused([-1]) && refused([Run::<i32, 1>::ZEROS]));
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
