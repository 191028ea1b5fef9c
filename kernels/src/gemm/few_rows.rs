//! Products of a few rows: a vector, or a handful, times a matrix whose rows lie side by side. Nothing is reused but the rows themselves, so all that counts is to
//! read the rhs as it lies in memory, once.
//!
//! ```text
//! near (an rhs that lies in a cache):                       streamed (one that comes from memory):
//!   for each strip of V vectors of columns                    for each block of columns
//!     for each segment of k                                     for each segment of k
//!       acc[0..M][0..V] = +0.0                                    for each CHUNK steps of k
//!       for each k:                                                 for each strip of V vectors of columns
//!         acc[i][..] = fma(a[i][k], b[k][..], acc[i][..])             acc[0..M][0..V] = s[strip], +0.0 in the first chunk
//!       dst = acc + 0.0, or dst += acc + 0.0                          acc[i][..] = fma(a[i][k], b[k][..], acc[i][..]), CHUNK times
//!                                                                     s[strip] = acc
//!                                                                 dst = s + 0.0, or dst += s + 0.0
//! ```
//!
//! The first form keeps sums in registers over a segment, but touches as many pages as k has steps before it moves on to the right. The second reads CHUNK rows
//! from left to right, which the processor foresees and which this code asks for besides; its sums stay in a second-level cache.

use bytemuck::Zeroable;

use crate::KC;
use crate::isa::is_amd_before_zen5;
use crate::mat::{Band, CacheLevel, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken, prefetch, prefetch_near};

use super::Write;
use super::in_place::{NEAR, write_out};

/// Most rows that the first form takes with vectors of 64 bytes, those of the tallest tile, and with others.
const NEAR_ROWS: [usize; 2] = [8, 4];
/// Most rows that the second form takes: 16 x 4096 x 4096 49 % of the peak, by tiles 42; 32 rows 56 and 62.
pub(super) const FEW_ROWS_STREAMED: usize = 16;

/// Steps of k that are read side by side, from left to right. Swept with 4 to 64: benches/record/2026-11-27-zen5.md.
const CHUNK: usize = 16;
/// Rows up to which the second form asks for what lies [`CHUNK`] rows below, with vectors of 64 bytes and with others, and bytes of a chunk up to which it does: longer rows, and more, are asked for to the right. Zen 4, percent of the peak, to the right and below: 1, 2, 4, 8 and 16
/// rows by 4096 x 4096 9.5, 19.2, 33, 57, 61 and 12.3, 22.2, 38, 58, 60; 1 and 4 x 3000 x 3000 12.2, 42 and 16, 53; 1 x 1024 x 16384 6.5 and 11.7; 1 x 8192 x 8192 9.2 and 9.7, 4 x 32000 x 4096 28 and 26. Chunks of 8 rows, below: 8 x 4096 x 4096 44. AVX2: 1 and 4 x 4096 x 4096 10.6, 25.7 and 12.5, 22; 2 13.4 and 11.4.
/// Zen 5: 0.65 to 0.9 of it (benches/record/2026-11-27-zen5.md).
const BELOW: [usize; 2] = [4, 1];
const CHUNK_BYTES: usize = 512 * 1024;

/// A matrix of no more bytes than this lies in a second-level cache of Zen 4.
const SECOND_CACHE_BYTES: usize = 1024 * 1024;

/// How far ahead is asked for what comes: from each place, into which cache; and rows that follow, into the first.
#[derive(Clone, Copy)]
struct Asking {
    bytes: isize,
    into: CacheLevel,
    rows: usize,
}

impl Asking {
    /// Of the second form with `m` rows of so many columns. [`CHUNK`] rows a multiple of a page apart share a set of the first-level cache. Zen 4, where it has eight ways, to the right, percent of the peak with 1, 2, 4, 8 and 16 rows by 4096 x 4096: into
    /// the first-level cache, 1 KiB ahead 5.5, 13.6, 24, 45, 58; into the second, 512 bytes 7.7, 18.8, 33.8, 53.9, 61.0, 1 KiB 7.8, 20.2, 33.6, 52.1, 57.7, 2 KiB 10.2, 20.8, 33.0, 50.5, 56.5 (benches/record/2026-11-29-zen4.md). Others have twelve
    /// ways; the second-level cache was not tried there.
    #[inline(always)]
    fn streamed<T: Copy, S: Lanes<T>>(m: usize, columns: usize, rhs: MatRef<'_, T>) -> Self {
        let below = m <= const { BELOW[!is_wide::<T, S>() as usize] }
            && CHUNK * columns * size_of::<T>() <= CHUNK_BYTES;
        let (bytes, into) = match is_amd_before_zen5() {
            true if below => (rhs.down_by(CHUNK).wrapping_mul(size_of::<T>() as isize), CacheLevel::Second),
            true if m <= 4 => (2048, CacheLevel::Second),
            true => (512, CacheLevel::Second),
            false => (1024, CacheLevel::First),
        };
        Asking { bytes, into, rows: 0 }
    }

    /// Of the first form with `m` rows. One alone has strips of 24 lines, two of 12; Zen 4, by 8 rows and by 4: 1 x 1152 x 384 28.3 and 34.2 % of the peak, 1 x 2304 x 768 26.5 and 29.0, 1 x 3072 x 768 26.8 and 25.0; 3 x 768 x 3072 76 and 66; 2 x 512 x 512 49 and 61, 2 x 384 x 384 78 and 82, but 2 x 768 x 3072, from the last-level cache, 55 and 51.
    #[inline(always)]
    fn down(m: usize, bytes: usize) -> Self {
        let by_four = m == 1 || m == 2 && bytes <= SECOND_CACHE_BYTES;
        let rows = if by_four && is_amd_before_zen5() { NEAR / 2 } else { NEAR };
        Asking { bytes: 0, into: CacheLevel::First, rows }
    }
}

/// Rows up to which the first form asks for what it reads soon ([`NEAR`]): the fewer, the less there is to compute meanwhile. Zen 5, asked for and not: 1 x 768 x 768 20 and 16 % of the peak, 3 x 768 x 768 54 and 40, 3 x 768 x 3072
/// 55 and 46, 4 x 768 x 3072 69 and 56; 8 x 512 x 512 79 and 82. Rows that share a set of the first-level cache do not stay there until they are read: 4 x 3072 x 768 51 and 55. With vectors of less
/// than a line, which ask for each twice, one row alone: 1 x 768 x 768 44 and 39 % of the peak of AVX2, 3 x 768 x 768 45 and 52.
const ASKING_ROWS: usize = 4;
/// Bytes of a matrix from which on it does. 1 x 128 x 128 26 and 28 %, 1 x 256 x 256 20.8 both.
const ASKING_FROM: usize = 128 * 1024;
/// Bytes of sums of a block of columns: the longer the rows that are read, the nearer to the bandwidth of memory.
const SUMS_BYTES: usize = 256 * 1024;
/// Columns of a block are a multiple of these, which every strip divides.
const BLOCK_GRAIN: usize = 384;

/// Columns of a block of the second form, of at most `n` columns.
pub(super) fn streamed_columns([m, n]: [usize; 2], bytes: usize) -> usize {
    let most = SUMS_BYTES / (m.max(1) * bytes) / BLOCK_GRAIN * BLOCK_GRAIN;
    n.next_multiple_of(BLOCK_GRAIN).min(most.max(BLOCK_GRAIN))
}

/// Whether a vector has 64 bytes: there are then twice as many registers too. Known when compiling: no processor gets the strips of another.
const fn is_wide<T, S: Lanes<T>>() -> bool {
    S::LANES * size_of::<T>() == 64
}

/// Goes through `$cols` columns by strips of each of so many vectors of `$lanes` columns in turn, the widest first, and at last by a part of one: `$strip!` of the vectors,
/// whether the last is a part, the columns from and to, and `$args`.
macro_rules! strips {
    ($lanes:expr, $cols:expr, $strip:ident, [$($v:literal)*], $args:tt) => {{
        let mut from = 0;
        $(
            let width = $v * $lanes;
            while $cols - from >= width {
                $strip!($v, false, from, from + width, $args);
                from += width;
            }
        )*
        if from < $cols {
            $strip!(1, true, from, $cols, $args);
        }
    }};
}
pub(super) use strips;

/// `dst = lhs rhs` or `dst += lhs rhs` for an rhs that lies in a cache, and as many rows as [`has_strips`] of.
#[inline(always)]
pub(super) fn near<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    add: bool,
) {
    let write = if add { Write::Add } else { Write::Replace };
    let lanes = <S as Lanes<T>>::LANES;
    let bytes = (rhs.rows() * rhs.cols()).saturating_mul(size_of::<T>());
    let asks = dst.m() <= ASKING_ROWS && bytes >= ASKING_FROM && rhs.in_a_set(NEAR) <= NEAR / 2;
    macro_rules! strip {
        ($v:literal, $masked:literal, $from:expr, $to:expr, ($m:literal)) => {
            if const { $m <= ASKING_ROWS && ($m == 1 || is_wide::<T, S>()) } && asks {
                s.apart(Strip::<T, $m, $v, $masked, { $m <= ASKING_ROWS }> {
                    lhs,
                    rhs,
                    dst,
                    write,
                    from: $from,
                    to: $to,
                })
            } else {
                s.apart(Strip::<T, $m, $v, $masked, false> { lhs, rhs, dst, write, from: $from, to: $to })
            }
        };
    }
    if const { is_wide::<T, S>() } {
        match dst.m() {
            1 => strips!(lanes, rhs.cols(), strip, [24 8 4 2 1], (1)),
            2 => strips!(lanes, rhs.cols(), strip, [12 4 2 1], (2)),
            3 => strips!(lanes, rhs.cols(), strip, [8 4 2 1], (3)),
            4 => strips!(lanes, rhs.cols(), strip, [6 3 2 1], (4)),
            5 => strips!(lanes, rhs.cols(), strip, [4 1], (5)),
            6 => strips!(lanes, rhs.cols(), strip, [4 1], (6)),
            7 => strips!(lanes, rhs.cols(), strip, [3 1], (7)),
            8 => strips!(lanes, rhs.cols(), strip, [3 1], (8)),
            rows => unreachable!("no strip of {rows} rows"),
        }
    } else {
        match dst.m() {
            1 => strips!(lanes, rhs.cols(), strip, [8 4 2 1], (1)),
            2 => strips!(lanes, rhs.cols(), strip, [4 2 1], (2)),
            3 => strips!(lanes, rhs.cols(), strip, [2 1], (3)),
            4 => strips!(lanes, rhs.cols(), strip, [2 1], (4)),
            rows => unreachable!("no strip of {rows} rows"),
        }
    }
}

/// Whether [`near`] takes so many rows.
pub(super) const fn has_strips<T, S: Lanes<T>>(m: usize) -> bool {
    m <= NEAR_ROWS[!is_wide::<T, S>() as usize]
}

/// `acc` and the products of all steps of a strip; `MASKED`: its only vector is a part of one; `AHEAD`: asks for what follows in each row; `ASKS`: for rows that follow. By value: sums
/// behind a reference would go through memory with every step.
#[inline(always)]
fn accumulate<
    T: Zeroable + Copy,
    S: FloatLanes<T>,
    const M: usize,
    const V: usize,
    const MASKED: bool,
    const AHEAD: bool,
    const ASKS: bool,
>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    mut acc: [[S::V; V]; M],
    asking: Asking,
) -> [[S::V; V]; M] {
    let last = rhs.cols() - (V - 1) * S::LANES;
    let mut rows = rhs.down();
    let mut columns = lhs.across::<M, false>();
    while let (Some(row), Some(column)) = (rows.next(), columns.next()) {
        if ASKS {
            for v in 0..V {
                rows.prefetch(asking.rows, v * S::LANES);
            }
        }
        let row = &row[..(V - 1) * S::LANES + if MASKED { last } else { S::LANES }];
        // What is fewer stays in registers over a step: the vectors of the row, or the elements of the column.
        if M <= 4 {
            let mut a = [s.splat(T::zeroed()); M];
            for (i, a) in a.iter_mut().enumerate() {
                *a = s.splat(column.at(i));
            }
            for v in 0..V {
                let b = vector::<T, S, MASKED, AHEAD>(s, &row[v * S::LANES..], last, asking);
                for (acc, &a) in acc.iter_mut().zip(&a) {
                    acc[v] = s.mul_add(a, b, acc[v]);
                }
            }
        } else {
            let mut b = [s.splat(T::zeroed()); V];
            for (v, b) in b.iter_mut().enumerate() {
                *b = vector::<T, S, MASKED, AHEAD>(s, &row[v * S::LANES..], last, asking);
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = s.splat(column.at(i));
                for (acc, &b) in acc.iter_mut().zip(&b) {
                    *acc = s.mul_add(a, b, *acc);
                }
            }
        }
    }
    acc
}

/// A vector of a row, or the `last` elements of one.
#[inline(always)]
fn vector<T, S: Lanes<T>, const MASKED: bool, const AHEAD: bool>(
    s: S,
    row: &[T],
    last: usize,
    asking: Asking,
) -> S::V {
    if AHEAD {
        let at = row.as_ptr().wrapping_byte_offset(asking.bytes);
        match asking.into {
            CacheLevel::First => prefetch(at),
            CacheLevel::Second => prefetch_near(at),
        }
    }
    if MASKED { s.load_first_n(row, last) } else { s.load(row) }
}

/// `V` vectors of columns, `from..to`, over all of k; see [`accumulate`].
struct Strip<'a, 'b, 'c, T, const M: usize, const V: usize, const MASKED: bool, const ASKS: bool> {
    lhs: MatRef<'a, T>,
    rhs: MatRef<'a, T>,
    dst: &'b mut Band<'c, T>,
    write: Write,
    from: usize,
    to: usize,
}

impl<T, S, const M: usize, const V: usize, const MASKED: bool, const ASKS: bool> WithToken<S>
    for Strip<'_, '_, '_, T, M, V, MASKED, ASKS>
where
    T: Zeroable + Copy,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Strip { lhs, rhs, dst, mut write, from, to } = self;
        let asking = Asking::down(M, (rhs.rows() * rhs.cols()).saturating_mul(size_of::<T>()));
        for first in (0..rhs.rows()).step_by(KC) {
            let segment = first..rhs.rows().min(first + KC);
            let acc = [[s.splat(T::zeroed()); V]; M];
            let (a, b) = (lhs.part(0..M, segment.clone()), rhs.part(segment, from..to));
            let acc = accumulate::<T, S, M, V, MASKED, false, ASKS>(s, a, b, acc, asking);
            write_out(s, &acc, &mut dst.part(0..M, from..to), write);
            write = Write::Add;
        }
    }
}

/// `dst = lhs rhs` or `dst += lhs rhs` for an rhs that comes from memory, and up to [`FEW_ROWS_STREAMED`] rows; `sums` has room for
/// as many rows of [`streamed_columns`].
#[inline(always)]
pub(super) fn streamed<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    add: bool,
    sums: &mut [T],
) {
    let (m, n, k) = (dst.m(), rhs.cols(), rhs.rows());
    let block = (sums.len() / m / BLOCK_GRAIN * BLOCK_GRAIN).max(1);
    let asking = Asking::streamed::<T, S>(m, n.min(block), rhs);
    for j in (0..n).step_by(block) {
        let cols = j..n.min(j + block);
        for first_step in (0..k).step_by(KC) {
            let segment = first_step..k.min(first_step + KC);
            for step in segment.clone().step_by(CHUNK) {
                let steps = step..segment.end.min(step + CHUNK);
                let (a, b) = (lhs.part(0..m, steps.clone()), rhs.part(steps, cols.clone()));
                chunk(s, a, b, sums, step == first_step, asking);
            }
            let write = if first_step > 0 || add { Write::Add } else { Write::Replace };
            take_out(s, sums, &mut dst.part(0..m, cols.clone()), write);
        }
    }
}

/// Rows of a tile of the second form: `m` in as few tiles as can be, as high as each other or one more.
#[inline(always)]
fn tiles<T, S: Lanes<T>>(m: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let count = m.div_ceil(const { NEAR_ROWS[!is_wide::<T, S>() as usize] });
    (0..count).map(move |tile| tile * m / count..(tile + 1) * m / count)
}

/// Some steps of k of all columns of a block. The sums of a vector of columns lie row by row, vector behind vector.
#[inline(always)]
fn chunk<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    sums: &mut [T],
    first: bool,
    asking: Asking,
) {
    let (m, k, n) = (lhs.rows(), lhs.cols(), rhs.cols());
    let lanes = <S as Lanes<T>>::LANES;
    macro_rules! chunk {
        ($v:literal, $masked:literal, $from:expr, $to:expr, ($m:literal, $ahead:literal, $rows:expr)) => {{
            let (lhs, rhs) = (lhs.part($rows, 0..k), rhs.part(0..k, $from..$to));
            let sums = &mut sums[$from * m + $rows.start * lanes..];
            s.apart(Chunk::<T, $m, $v, $masked, $ahead> { lhs, rhs, sums, m, first, asking });
        }};
    }
    // A strip through all tiles, the first of which asks for what comes.
    macro_rules! tiled {
        ($v:literal, $masked:literal, $from:expr, $to:expr, ($($m:literal)*)) => {
            for (tile, rows) in tiles::<T, S>(m).enumerate() {
                match (tile, rows.len()) {
                    $(
                        (0, $m) => chunk!($v, $masked, $from, $to, ($m, true, rows.clone())),
                        (_, $m) => chunk!($v, $masked, $from, $to, ($m, false, rows.clone())),
                    )*
                    _ => unreachable!("no tile of {rows:?}"),
                }
            }
        };
    }
    if const { is_wide::<T, S>() } {
        match m {
            1 => strips!(lanes, n, chunk, [24 8 1], (1, true, 0..1)),
            2 => strips!(lanes, n, chunk, [8 1], (2, true, 0..2)),
            3 => strips!(lanes, n, chunk, [8 1], (3, true, 0..3)),
            4 => strips!(lanes, n, chunk, [6 2 1], (4, true, 0..4)),
            _ => strips!(lanes, n, tiled, [3 1], (4 5 6 7 8)),
        }
    } else {
        match m {
            1 => strips!(lanes, n, chunk, [8 1], (1, true, 0..1)),
            _ => strips!(lanes, n, tiled, [2 1], (2 3 4)),
        }
    }
}

/// Some steps of k of a strip and the rows of a tile; see [`accumulate`].
struct Chunk<'a, 'b, T, const M: usize, const V: usize, const MASKED: bool, const AHEAD: bool> {
    lhs: MatRef<'a, T>,
    rhs: MatRef<'a, T>,
    /// From the first row and the first vector on.
    sums: &'b mut [T],
    /// Rows of all tiles.
    m: usize,
    /// Whether the sums begin with this chunk.
    first: bool,
    asking: Asking,
}

impl<T, S, const M: usize, const V: usize, const MASKED: bool, const AHEAD: bool> WithToken<S>
    for Chunk<'_, '_, T, M, V, MASKED, AHEAD>
where
    T: Zeroable + Copy,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Chunk { lhs, rhs, sums, m, first, asking } = self;
        let mut acc = [[s.splat(T::zeroed()); V]; M];
        if !first {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = s.load(&sums[(v * m + i) * S::LANES..]);
                }
            }
        }
        let acc = accumulate::<T, S, M, V, MASKED, AHEAD, false>(s, lhs, rhs, acc, asking);
        for (i, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                s.store(&mut sums[(v * m + i) * S::LANES..], acc);
            }
        }
    }
}

/// The sums of a segment into the result.
#[inline(always)]
fn take_out<T: Zeroable + Copy, S: FloatLanes<T>>(
    s: S,
    sums: &[T],
    dst: &mut impl WriteRows<T>,
    write: Write,
) {
    let m = dst.m();
    for i in 0..m {
        for (vector, out) in dst.row(i).chunks_mut(S::LANES).enumerate() {
            let at = (vector * m + i) * S::LANES;
            finish(s, &sums[at..at + out.len()], out, write);
        }
    }
}

/// The sums of a segment into a row of the result (N1, N2).
#[inline(always)]
pub(super) fn finish<T: Zeroable + Copy, S: FloatLanes<T>>(s: S, sums: &[T], row: &mut [T], write: Write) {
    let zero = s.splat(T::zeroed());
    for (sums, row) in sums.chunks(S::LANES).zip(row.chunks_mut(S::LANES)) {
        let n = row.len();
        let segment = s.add(s.load_first_n(sums, n), zero);
        let sum = if write == Write::Add { s.add(s.load_first_n(row, n), segment) } else { segment };
        s.store_first_n(row, n, sum);
    }
}

#[cfg(test)]
mod tests {
    use crate::axis::Axis;
    use crate::isa::Isa;
    use crate::mat::{MatMut, MatRef, MatSpec, Places};
    use crate::simd::{Simd, WithSimd};

    use super::*;

    /// One run of either form, over an rhs with a gap between its rows.
    struct Run<'a> {
        shape: [usize; 3],
        operands: [&'a [f32]; 2],
        out: &'a mut [f32],
        streamed: bool,
        add: bool,
    }

    impl WithSimd for Run<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let Run { shape: [m, n, k], operands: [a, b], out, streamed: streams, add } = self;
            let lhs = MatRef::row_major(a, m, k);
            let rhs = MatRef::row_major(b, k, n + 3).part(0..k, 1..n + 1);
            let axis = |extent, stride| Axis::strided(extent, stride);
            let spec = MatSpec { start: 0, batch: axis(1, 0), rows: axis(m, n as isize), cols: axis(n, 1) };
            let places = Places::new(spec);
            let mut dst = MatMut::new(out, 0, &places).unwrap();
            let mut band = dst.band(0, 0..m, 0..n);
            if streams {
                let mut sums = vec![f32::NAN; m * streamed_columns([m, n], 4)];
                streamed(s, lhs, rhs, &mut band, add, &mut sums);
            } else if has_strips::<f32, S>(m) {
                near(s, lhs, rhs, &mut band, add);
            } else {
                // Blocks narrower than the rhs.
                streamed(s, lhs, rhs, &mut band, add, &mut vec![f32::NAN; m * BLOCK_GRAIN]);
            }
        }
    }

    #[test]
    fn both_forms_are_the_scalar_sums() {
        for isa in Isa::available() {
            for m in 1..=FEW_ROWS_STREAMED {
                for (n, k) in [(1, 3), (70, 17), (403, KC + 21), (800, 30)] {
                    let value = |i: usize| ((i * 7919) % 1009) as f32 / 331.0 - 1.5;
                    let a: Vec<f32> = (0..m * k).map(value).collect();
                    let b: Vec<f32> = (0..k * (n + 3)).map(value).collect();
                    for add in [false, true] {
                        let mut want = vec![0.75f32; m * n];
                        for (at, want) in want.iter_mut().enumerate() {
                            let (i, j) = (at / n, at % n);
                            for first in (0..k).step_by(KC) {
                                let sum = (first..k.min(first + KC)).fold(0.0f32, |sum, step| {
                                    a[i * k + step].mul_add(b[step * (n + 3) + j + 1], sum)
                                }) + 0.0;
                                *want = if first > 0 || add { *want + sum } else { sum };
                            }
                        }
                        for streamed in [false, true] {
                            let mut out = vec![0.75f32; m * n];
                            isa.dispatch(Run {
                                shape: [m, n, k],
                                operands: [&a, &b],
                                out: &mut out,
                                streamed,
                                add,
                            });
                            let same = out.iter().zip(&want).all(|(x, y)| x.to_bits() == y.to_bits());
                            assert!(same, "{m} x {n} x {k} on {isa}, streamed: {streamed}, add: {add}");
                        }
                    }
                }
            }
        }
    }
}
