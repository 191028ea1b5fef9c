//! A few rows by a matrix from a cache or from memory, with vectors of less than 64 bytes: rows of it in fours, and few enough at a time that the processor foresees each.
//!
//! ```text
//! for each R steps of k
//!   for each group of columns, of all columns with a single tile
//!     for each tile of M rows
//!       for each strip of V vectors of columns
//!         acc[0..M][0..V] = s[strip], +0.0 in the first R steps
//!         for each four steps:  acc[i][..] = fma(a[k][i], b[k][..], acc[i][..])
//!         s[strip] = acc
//! ```

use bytemuck::Zeroable;

use crate::mat::{Band, CACHE_LINE, Column, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::super::Write;
use super::sums::{load, store, take_out, tiles};
use super::{Asking, accumulate};

/// Steps of k that are read side by side: where more rows than [`IN_A_SET`] share a set of the first-level cache, where fewer do, and with more rows of the lhs than [`TILED`], which compute so long that
/// the way of the sums counts. So few streams the processor foresees, and nothing is asked for but with so many rows of the lhs, or where a row of the rhs ends before they are foreseen ([`SHORT_ROW`]).
/// Zen 3, a loop of its own, percent of the peak with 6, 8, 12 and 24 steps: 1 x 4096 x 4096 12.6, 11.7, 10.3, 7.5; 4 x 3000 x 3000 29, 33, 40, 14; 3 x 2304 x 768 54.5, 56, 66, 52; 18 x 3000 x 3000, asked for 512 bytes ahead, 54, 57, 65, 71, not asked for 56, 59, 64, 35;
/// 1 x 4096 x 4096 so 11.2, 10.4, 9.7, 7.2 (benches/record/2026-12-01-zen3.md).
const STEPS: [usize; 3] = [8, 12, 24];
/// See [`STEPS`]; of as many rows as the last of them.
const IN_A_SET: usize = 8;
/// See [`STEPS`].
const TILED: usize = 2 * ROWS;
/// Bytes of a row of a matrix from memory up to which the rows of the next steps are asked for: a page. Zen 3, eight steps, percent of the peak, asked for and not: 4 x 768 x 8192 38 and 28, 4 x 1000 x 16384 35 and 25, 4 x 2000 x 8192 38 and 36;
/// from a cache 4 x 768 x 768 55 and 64.
const SHORT_ROW: usize = 4096;
/// How far ahead in a row is asked for else, if anything is: 18 x 4096 x 4096 55.4, 54.5 and 53.6 % of the peak with 512 bytes, 1 and 2 KiB.
const BYTES_AHEAD: isize = 512;

/// Rows of the tallest tile, of two vectors: 12 sums of 16 registers.
const ROWS: usize = 6;
/// Bytes of the rhs that all tiles go through before the next: half a first-level cache. Not swept.
const GROUP_BYTES: usize = 16 * 1024;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Nothing,
    /// What comes in the same row.
    Right,
    /// What comes so many bytes behind.
    Below(isize),
}

/// A segment of a block of columns. `copy` has room for the lhs.
#[inline(always)]
pub(super) fn segment<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    write: Write,
    from_memory: bool,
    [copy, sums]: [&mut [T]; 2],
) {
    let (m, n, k) = (dst.m(), rhs.cols(), rhs.rows());
    let [sharing, few, most] = STEPS;
    let short = from_memory && n * size_of::<T>() <= SHORT_ROW;
    let at_once = match m > TILED {
        _ if rhs.in_a_set(most) > IN_A_SET => sharing,
        true => most,
        // Those below have to stay as well.
        false if short => sharing,
        false => few,
    };
    let asks = match m > TILED {
        _ if short => Asks::Below(rhs.down_by(at_once).wrapping_mul(size_of::<T>() as isize)),
        true => Asks::Right,
        false => Asks::Nothing,
    };
    let lhs = if lhs.columns_apart() == 1 { lhs } else { by_rows(lhs, copy) };
    // Elements of the sums of a row: those of whole vectors.
    let pitch = n.next_multiple_of(<S as Lanes<T>>::LANES);
    if m <= ROWS {
        Tile { lhs, rhs, sums, at_once, first: true, asks }.run(s);
    } else {
        let group = (GROUP_BYTES / (at_once * size_of::<T>())).next_multiple_of(2 * <S as Lanes<T>>::LANES);
        for step in (0..k).step_by(at_once) {
            let steps = step..k.min(step + at_once);
            for from in (0..n).step_by(group) {
                let rhs = rhs.part(steps.clone(), from..n.min(from + group));
                for tile in tiles(m, ROWS) {
                    let sums = &mut sums[tile.start * pitch..tile.end * pitch][from * tile.len()..];
                    // The first tile asks for all.
                    let asks = if tile.start == 0 { asks } else { Asks::Nothing };
                    let lhs = lhs.part(tile, steps.clone());
                    Tile { lhs, rhs, sums, at_once, first: step == 0, asks }.run(s);
                }
            }
        }
    }
    for tile in tiles(m, ROWS) {
        take_out(s, &sums[tile.start * pitch..tile.end * pitch], tile, dst, write);
    }
}

/// A lhs copied row by row.
fn by_rows<'a, T: Copy>(lhs: MatRef<'_, T>, copy: &'a mut [T]) -> MatRef<'a, T> {
    let (m, k) = (lhs.rows(), lhs.cols());
    for (i, row) in copy[..m * k].chunks_exact_mut(k).enumerate() {
        for (step, x) in row.iter_mut().enumerate() {
            *x = lhs.at(i, step);
        }
    }
    MatRef::row_major(copy, m, k)
}

/// Steps of k of the rows of a tile.
struct Tile<'a, 'b, T> {
    /// Rows that lie side by side.
    lhs: MatRef<'a, T>,
    rhs: MatRef<'a, T>,
    /// Vector by vector, row by row.
    sums: &'b mut [T],
    /// Steps from left to right at once.
    at_once: usize,
    /// Whether the sums begin here.
    first: bool,
    asks: Asks,
}

impl<T: Zeroable + Copy> Tile<'_, '_, T> {
    #[inline(always)]
    fn run<S: Simd + FloatLanes<T>>(self, s: S) {
        match self.lhs.rows() {
            1 => self.asking::<S, 1, 8>(s),
            2 => self.asking::<S, 2, 4>(s),
            3 => self.asking::<S, 3, 4>(s),
            4 => self.asking::<S, 4, 2>(s),
            5 => self.asking::<S, 5, 2>(s),
            6 => self.asking::<S, 6, 2>(s),
            rows => unreachable!("no tile of {rows} rows"),
        }
    }

    #[inline(always)]
    fn asking<S: Simd + FloatLanes<T>, const M: usize, const V: usize>(self, s: S) {
        match self.asks {
            Asks::Nothing => s.apart(Strips::<T, M, V, 0>(self, 0)),
            Asks::Right => s.apart(Strips::<T, M, V, 1>(self, BYTES_AHEAD)),
            Asks::Below(bytes) => s.apart(Strips::<T, M, V, 2>(self, bytes)),
        }
    }
}

/// A tile of `M` rows by strips of `V` vectors, and by what is left. `ASKS`: for nothing, [`BYTES_AHEAD`], or so many bytes behind.
struct Strips<'a, 'b, T, const M: usize, const V: usize, const ASKS: usize>(Tile<'a, 'b, T>, isize);

impl<T, S, const M: usize, const V: usize, const ASKS: usize> WithToken<S> for Strips<'_, '_, T, M, V, ASKS>
where
    T: Zeroable + Copy,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Strips(Tile { lhs, rhs, sums, at_once, mut first, .. }, bytes) = self;
        let (k, n) = (rhs.rows(), rhs.cols());
        let (wide, whole) = (n - n % (V * S::LANES), n - n % S::LANES);
        for step in (0..k).step_by(at_once) {
            let steps = step..k.min(step + at_once);
            let (lhs, rhs) = (lhs.part(0..M, steps.clone()), rhs.part(steps, 0..n));
            let (of_wide, rest) = sums.split_at_mut(wide * M);
            let (of_whole, of_last) = rest.split_at_mut((whole - wide) * M);
            let steps = 0..rhs.rows();
            strips::<T, S, M, V, ASKS>(s, lhs, rhs, of_wide, first, bytes);
            if whole > wide {
                let rhs = rhs.part(steps.clone(), wide..whole);
                strips::<T, S, M, 1, 0>(s, lhs, rhs, of_whole, first, 0);
            }
            if n > whole {
                let acc: [[S::V; 1]; M] = load(s, of_last, M, first);
                let rhs = rhs.part(steps, whole..n);
                let acc = accumulate::<T, S, M, 1, true, false, false>(s, lhs, rhs, acc, Asking::NOTHING);
                store(s, &acc, of_last, M);
            }
            first = false;
        }
    }
}

/// Some steps of k of whole strips of `V` vectors.
#[inline(always)]
fn strips<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const V: usize, const ASKS: usize>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    sums: &mut [T],
    first: bool,
    bytes: isize,
) {
    let bytes = if ASKS == 1 { BYTES_AHEAD } else { bytes };
    let columns = lhs.across::<M, false>().stepping(1);
    for (mut rows, sums) in rhs.strips::<4>(V * S::LANES).zip(sums.chunks_exact_mut(M * V * S::LANES)) {
        let mut columns = columns.clone();
        let mut acc: [[S::V; V]; M] = load(s, sums, M, first);
        while let (Some(b), Some(a)) = (rows.next(), columns.next_few::<4>()) {
            macro_rules! one {
                ($($u:literal)*) => {$(
                    for v in 0..V {
                        let begins_line = (v * S::LANES * size_of::<T>()).is_multiple_of(CACHE_LINE);
                        if ASKS > 0 && begins_line {
                            b.prefetch_behind($u, v * S::LANES, bytes);
                        }
                    }
                    multiply(s, &a.column($u), b.row($u), &mut acc);
                )*};
            }
            one!(0 1 2 3);
        }
        for (row, a) in rows.rest().zip(columns) {
            multiply(s, &a, row, &mut acc);
        }
        store(s, &acc, sums, M);
    }
}

/// A step of k of a strip.
#[inline(always)]
fn multiply<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const V: usize>(
    s: S,
    column: &Column<'_, T, M, false>,
    row: &[T],
    acc: &mut [[S::V; V]; M],
) {
    // What is fewer stays in registers: the vectors of the row, or the elements of the column.
    if M <= V {
        let mut a = [s.splat(T::zeroed()); M];
        for (i, a) in a.iter_mut().enumerate() {
            *a = s.splat(column.at(i));
        }
        for v in 0..V {
            let b = s.load(&row[v * S::LANES..]);
            for (acc, &a) in acc.iter_mut().zip(&a) {
                acc[v] = s.mul_add(a, b, acc[v]);
            }
        }
    } else {
        let mut b = [s.splat(T::zeroed()); V];
        for (v, b) in b.iter_mut().enumerate() {
            *b = s.load(&row[v * S::LANES..]);
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = s.splat(column.at(i));
            for (acc, &b) in acc.iter_mut().zip(&b) {
                *acc = s.mul_add(a, b, *acc);
            }
        }
    }
}
