//! What to ask for ahead, some at a time. Only hints: nothing is read, and what is none is no mistake.

use crate::simd::{opaque, prefetch, prefetch_near};

use super::CACHE_LINE;

/// The cache that something is asked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheLevel {
    /// The first-level cache.
    First,
    /// The second, where it waits without taking part of the first, nor of the few requests that the first can have under way.
    Second,
}

/// Asks for a line at a time of `n` elements, and for the line of the last if they are `all`: the first may lie in the middle of a line.
#[inline(always)]
pub(super) fn lines<T>(first: *const T, n: usize, all: bool, ask: impl Fn(*const T)) {
    for line in (0..n).step_by(CACHE_LINE / size_of::<T>()) {
        ask(first.wrapping_add(line));
    }
    if all {
        ask(first.wrapping_add(n.saturating_sub(1)));
    }
}

/// Elements that are asked for in turns.
#[derive(Clone, Copy, Debug)]
pub struct Requests<T> {
    /// The first row of the next turn.
    at: *const T,
    stride: isize,
    /// Rows of a turn.
    each: usize,
    /// Rows of all turns to come.
    left: usize,
    /// From the first row of a turn to that of the next.
    on: isize,
}

impl<T> Requests<T> {
    /// None at all.
    pub const NONE: Self = Requests { at: std::ptr::null(), stride: 0, each: 0, left: 0, on: 0 };

    /// Some rows in each turn until there are none.
    #[inline(always)]
    pub(super) fn of_rows(at: *const T, stride: isize, rows: usize, turns: usize) -> Self {
        // In 32 bits, for a 64-bit division takes as long as a step of k on some processors. A cut number is a hint too.
        let each = (rows as u32).div_ceil((turns as u32).max(1)) as usize;
        Requests { at, stride, each, left: rows, on: stride.wrapping_mul(each as isize) }
    }

    /// Some elements of every row in each turn, each `on` after those of the turn before.
    #[inline(always)]
    pub(super) fn of_columns(at: *const T, stride: isize, rows: usize, on: usize) -> Self {
        Requests { at, stride, each: rows, left: usize::MAX, on: on as isize }
    }

    /// Asks for lines of `cols` elements from the first of each row of a turn on, and for the one of the last element if they are `all`: a row may begin in the middle of a line.
    /// With `cols` known to the compiler no loop over lines is left.
    #[inline(always)]
    pub fn ask(&mut self, cols: usize, all: bool, into: CacheLevel) {
        let rows = self.each.min(self.left);
        self.left -= rows;
        match into {
            CacheLevel::First => self.ask_rows(rows, cols, all, prefetch),
            CacheLevel::Second => self.ask_rows(rows, cols, all, prefetch_near),
        }
        self.at = self.at.wrapping_offset(self.on);
    }

    #[inline(always)]
    fn ask_rows(&self, rows: usize, cols: usize, all: bool, ask: impl Fn(*const T)) {
        let (mut at, mut rows) = (self.at, rows as isize);
        while rows > 0 {
            lines(at, cols, all, &ask);
            at = at.wrapping_offset(self.stride);
            // Unrolled, these loops would be most of a microkernel and take its registers.
            rows = opaque(rows - 1);
        }
    }
}
