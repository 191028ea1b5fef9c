//! A few rows by a matrix that lies in a cache, a small one with vectors of less than 64 bytes: strips of columns, each down all of k.

use bytemuck::Zeroable;

use crate::KC;
use crate::isa::is_amd_before_zen5;
use crate::mat::{Band, CacheLevel, MatRef, WriteRows};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken};

use super::super::Write;
use super::super::in_place::{NEAR, write_out};
use super::{Asking, accumulate, is_wide, strips};

/// Most rows with vectors of 64 bytes, those of the tallest tile, and with others.
const ROWS: [usize; 2] = [8, 4];

/// A matrix of no more bytes than this lies in a second-level cache of Zen 4.
const SECOND_CACHE_BYTES: usize = 1024 * 1024;

/// Rows up to which what is read soon ([`NEAR`]) is asked for: the fewer, the less there is to compute meanwhile. Zen 5, asked for and not: 1 x 768 x 768 20 and 16 % of the peak, 3 x 768 x 768 54 and 40, 3 x 768 x 3072
/// 55 and 46, 4 x 768 x 3072 69 and 56; 8 x 512 x 512 79 and 82. Rows that share a set of the first-level cache do not stay there until they are read: 4 x 3072 x 768 51 and 55. With vectors of less
/// than a line, which ask for each twice, one row alone: 1 x 768 x 768 44 and 39 % of the peak of AVX2, 3 x 768 x 768 45 and 52.
const ASKING_ROWS: usize = 4;
/// Bytes of a matrix from which on it is. 1 x 128 x 128 26 and 28 %, 1 x 256 x 256 20.8 both.
const ASKING_FROM: usize = 128 * 1024;

/// What is asked for with `m` rows. One alone has strips of 24 lines, two of 12; Zen 4, by 8 rows and by 4: 1 x 1152 x 384 28.3 and 34.2 % of the peak, 1 x 2304 x 768 26.5 and 29.0, 1 x 3072 x 768 26.8 and 25.0; 3 x 768 x 3072 76 and 66; 2 x 512 x 512 49 and 61, 2 x 384 x 384 78 and 82, but 2 x 768 x 3072, from the last-level cache, 55 and 51.
#[inline(always)]
fn asking(m: usize, bytes: usize) -> Asking {
    let by_four = m == 1 || m == 2 && bytes <= SECOND_CACHE_BYTES;
    let rows = if by_four && is_amd_before_zen5() { NEAR / 2 } else { NEAR };
    Asking { bytes: 0, into: CacheLevel::First, rows }
}

/// Whether [`near`] takes so many rows.
pub(in super::super) const fn has_strips<T, S: Lanes<T>>(m: usize) -> bool {
    m <= ROWS[!is_wide::<T, S>() as usize]
}

/// `dst = lhs rhs` or `dst += lhs rhs` for an rhs that lies in a cache, and as many rows as [`has_strips`] of.
#[inline(always)]
pub(in super::super) fn near<T: Zeroable + Copy, S: Simd + FloatLanes<T>>(
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
        let asking = asking(M, (rhs.rows() * rhs.cols()).saturating_mul(size_of::<T>()));
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
