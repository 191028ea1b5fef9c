//! Rows to ask for, some at a time. Only hints: no row is read, and one that is none is no mistake.

use crate::simd::{prefetch, prefetch_near};

use super::CACHE_LINE;

/// Rows that are asked for in turns, the same number in each turn but the last.
#[derive(Clone, Copy, Debug)]
pub struct Requests<T> {
    at: *const T,
    stride: isize,
    left: usize,
    each: usize,
}

impl<T> Requests<T> {
    /// None at all.
    pub const NONE: Self = Requests { at: std::ptr::null(), stride: 0, left: 0, each: 0 };

    #[inline(always)]
    pub(super) fn new(at: *const T, stride: isize, rows: usize, turns: usize) -> Self {
        // In 32 bits, for a 64-bit division takes as long as a step of k on some processors. A cut number is a hint too.
        let each = (rows as u32).div_ceil((turns as u32).max(1));
        Requests { at, stride, left: rows, each: each as usize }
    }

    /// Asks for the first `cols` elements of the rows of a turn: into the first-level cache, or into the second, where they wait without taking part of the first.
    /// With `cols` known to the compiler no loop over lines is left.
    #[inline(always)]
    pub fn ask(&mut self, cols: usize, into_second: bool) {
        let rows = self.each.min(self.left);
        self.left -= rows;
        if into_second {
            self.ask_by(rows, cols, prefetch_near);
        } else {
            self.ask_by(rows, cols, prefetch);
        }
    }

    #[inline(always)]
    fn ask_by(&mut self, rows: usize, cols: usize, ask: impl Fn(*const T)) {
        for _ in 0..rows {
            for line in (0..cols).step_by(CACHE_LINE / size_of::<T>()) {
                ask(self.at.wrapping_add(line));
            }
            // The row may begin in the middle of a line.
            ask(self.at.wrapping_add(cols.saturating_sub(1)));
            self.at = self.at.wrapping_offset(self.stride);
        }
    }
}
