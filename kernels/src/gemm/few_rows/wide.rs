//! A few rows by a matrix that comes from memory, with vectors of 64 bytes.

use bytemuck::Zeroable;

use crate::isa::is_amd_before_zen5;
use crate::mat::{Band, CacheLevel, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::super::Write;
use super::sums::{load, store, take_out, tiles};
use super::{Asking, accumulate, strips};

/// Steps of k that are read side by side, from left to right. Swept with 4 to 64: benches/record/2026-11-27-zen5.md.
const CHUNK: usize = 16;
/// Rows up to which what lies [`CHUNK`] rows below is asked for, and bytes of a chunk up to which it is: longer rows, and more, are asked for to the right. Zen 4, percent of the peak, to the right and below: 1, 2, 4, 8 and 16
/// rows by 4096 x 4096 9.5, 19.2, 33, 57, 61 and 12.3, 22.2, 38, 58, 60; 1 and 4 x 3000 x 3000 12.2, 42 and 16, 53; 1 x 1024 x 16384 6.5 and 11.7; 1 x 8192 x 8192 9.2 and 9.7, 4 x 32000 x 4096 28 and 26. Chunks of 8 rows, below: 8 x 4096 x 4096 44.
/// Zen 5: 0.65 to 0.9 of it (benches/record/2026-11-27-zen5.md).
const BELOW: usize = 4;
const CHUNK_BYTES: usize = 512 * 1024;

/// Rows of the tallest tile.
const ROWS: usize = 8;

/// What is asked for with `m` rows of so many columns. [`CHUNK`] rows a multiple of a page apart share a set of the first-level cache. Zen 4, where it has eight ways, to the right, percent of the peak with 1, 2, 4, 8 and 16 rows by 4096 x 4096: into
/// the first-level cache, 1 KiB ahead 5.5, 13.6, 24, 45, 58; into the second, 512 bytes 7.7, 18.8, 33.8, 53.9, 61.0, 1 KiB 7.8, 20.2, 33.6, 52.1, 57.7, 2 KiB 10.2, 20.8, 33.0, 50.5, 56.5 (benches/record/2026-11-29-zen4.md). Others have twelve
/// ways; the second-level cache was not tried there.
#[inline(always)]
fn asking<T: Copy>(m: usize, columns: usize, rhs: MatRef<'_, T>) -> Asking {
    let below = m <= BELOW && CHUNK * columns * size_of::<T>() <= CHUNK_BYTES;
    let (bytes, into) = match is_amd_before_zen5() {
        true if below => (rhs.down_by(CHUNK).wrapping_mul(size_of::<T>() as isize), CacheLevel::Second),
        true if m <= 4 => (2048, CacheLevel::Second),
        true => (512, CacheLevel::Second),
        false => (1024, CacheLevel::First),
    };
    Asking { bytes, into, rows: 0 }
}

/// A segment of a block of columns, of at most `columns`.
#[inline(always)]
pub(super) fn segment<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    dst: &mut Band<'_, T>,
    write: Write,
    columns: usize,
    sums: &mut [T],
) {
    let (m, n, k) = (dst.m(), rhs.cols(), rhs.rows());
    let asking = asking(m, columns, rhs);
    for step in (0..k).step_by(CHUNK) {
        let steps = step..k.min(step + CHUNK);
        chunk(s, lhs.part(0..m, steps.clone()), rhs.part(steps, 0..n), sums, step == 0, asking);
    }
    take_out(s, sums, 0..m, dst, write);
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
            for (tile, rows) in tiles(m, ROWS).enumerate() {
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
    match m {
        1 => strips!(lanes, n, chunk, [24 8 1], (1, true, 0..1)),
        2 => strips!(lanes, n, chunk, [8 1], (2, true, 0..2)),
        3 => strips!(lanes, n, chunk, [8 1], (3, true, 0..3)),
        4 => strips!(lanes, n, chunk, [6 2 1], (4, true, 0..4)),
        _ => strips!(lanes, n, tiled, [3 1], (4 5 6 7 8)),
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
        let acc = load(s, sums, m, first);
        let acc = accumulate::<T, S, M, V, MASKED, AHEAD, false>(s, lhs, rhs, acc, asking);
        store(s, &acc, sums, m);
    }
}
