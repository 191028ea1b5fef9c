//! Microkernels that read their operands where they lie, written once over lanes.
//!
//! ```text
//! acc[0..M][0..NV] = +0.0
//! for each k:   b[0..NV] = load row k of the rhs               (and store it, where a panel is kept)
//!               a[0..M]  = the elements of column k of the lhs
//!               acc[i][..] = fma(splat(a[i]), b[..], acc[i][..])
//! dst = acc + 0.0                                              (Replace)
//! dst = dst + (acc + 0.0)                                      (Add)
//! ```
//!
//! The lhs may have any two strides, for its elements are broadcast one by one; rows of the rhs and of the result must lie side by side. A packed panel is
//! such a matrix too. Why packing is a side effect here and not a pass of its own: the loads of a tile leave the store ports idle, and an operand
//! that comes from memory arrives while the tile computes (benches/record/2026-11-25-in-place.md).
//!
//! Registers are those of the packed kernels (`ukernel.rs`): M x NV sums, NV vectors of the rhs, one element of the lhs.

use bytemuck::Zeroable;

use crate::mat::{
    Band, Bands, CACHE_LINE, CacheLevel, Column, Down, MatRef, Parts, Requests, Run, RunColumns, Scattered,
    WriteRows,
};
#[cfg(target_arch = "aarch64")]
use crate::simd::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::x86::{Avx2, Avx512, Avx512Dot};
use crate::simd::{FloatLanes, Lanes, Portable, Simd, WithToken};

use super::{Sight, Write};

/// Steps of k between two looks ahead: a tile of AVX-512 computes some 770 cycles meanwhile, twice the latency of memory.
const STRIDE: usize = 32;

/// Steps of k of small products from which on four are computed at a time ([`accumulate`]). Zen 3, in turns with none: batches of 4 x 4 x 4 to 24 x 24 x 24 took 1.2 of the time in the one run there was, 64 x 64 x 64 and 128 x 128 x 128 0.95 and 0.9. Not swept between.
const FOURS_K: usize = 48;

/// Rows of the rhs that are asked for before they are read, into the first-level cache: a panel lies in the second. A processor that executes two multiply-adds
/// a cycle would wait for it (benches/record/2026-11-26-intel.md).
pub(super) const NEAR: usize = 8;

/// What will be read: by this tile soon, and by another tile from afar.
#[derive(Clone, Copy, Debug)]
pub struct Later<'a, T> {
    /// Whether the rhs of this tile lies in a cache.
    pub near: bool,
    /// A panel of the lhs.
    pub lhs: Option<MatRef<'a, T>>,
    /// Some steps of k of a panel of the rhs.
    pub rhs: Option<MatRef<'a, T>>,
    /// Whether the rhs comes from memory, row by row: it then is asked into the second-level cache, otherwise into the first.
    pub from_memory: bool,
}

/// What a tile asks for while it computes, a little at a time, so that the requests of no moment exceed what the processor can have under way: its place in the
/// result, and what another tile will read.
struct Ahead<T> {
    /// The tile's place in the result.
    dst: Requests<T>,
    /// Rows of a panel of the rhs, and where they are to wait.
    rhs: Requests<T>,
    rhs_into: CacheLevel,
    /// Columns of a panel of the lhs.
    lhs: Requests<T>,
    /// Whether the rhs of this tile lies in a cache.
    near: bool,
    /// Steps of k from a turn to the next.
    stride: usize,
}

impl<T: Copy> Ahead<T> {
    #[inline(always)]
    fn new(dst: &Band<'_, T>, later: Later<'_, T>, k: usize) -> Self {
        let far = later.lhs.is_some() || later.rhs.is_some();
        // The place in the result alone needs no more than two turns.
        let stride = if far { STRIDE } else { k.div_ceil(2).max(1) };
        let turns = if far { k.div_ceil(STRIDE) } else { 2 };
        Ahead {
            dst: dst.requests(turns),
            rhs: later.rhs.map_or(Requests::NONE, |rhs| rhs.requests(turns)),
            rhs_into: if later.from_memory { CacheLevel::Second } else { CacheLevel::First },
            lhs: later.lhs.map_or(Requests::NONE, |lhs| lhs.column_requests(turns, STRIDE)),
            near: later.near,
            stride,
        }
    }

    /// The share of one turn of a tile of at most `cols` columns.
    #[inline(always)]
    fn ask(&mut self, cols: usize) {
        self.dst.ask(cols, true, CacheLevel::First);
        self.rhs.ask(cols, true, self.rhs_into);
        // Rows along k go on in the next turn. A column of other lhs takes one or two lines.
        self.lhs.ask(STRIDE, false, CacheLevel::Second);
    }
}

/// The microkernels of one float format on one instruction set.
pub trait InPlace<T>: FloatLanes<T> {
    /// `dst = lhs rhs` or `dst += lhs rhs` over one segment of k; any n up to NR and any m up to MR, or [`InPlace::tall`] of n, or the rows of [`InPlace::widest`] with as many vectors. A tile of
    /// MR x NR leaves a copy of the rhs in `keep`, a panel `[k][NR]`. The place in the result and what will be read `later` are asked for meanwhile.
    ///
    /// # Panics
    /// If the operands do not fit each other and the result, or a row of the rhs does not lie side by side.
    fn in_place(
        self,
        lhs: MatRef<'_, T>,
        rhs: MatRef<'_, T>,
        dst: &mut Band<'_, T>,
        write: Write,
        keep: Option<&mut [T]>,
        later: Later<'_, T>,
    );

    /// `dst = lhs rhs` or `dst += lhs rhs` for MR rows over one segment of k, the rhs panels `[panel][k][NR]`, the result as many whole panels wide. The lhs of the `next` rows is
    /// asked for meanwhile.
    ///
    /// # Panics
    /// If the operands do not fit each other and the result.
    fn along_panels(
        self,
        lhs: MatRef<'_, T>,
        panels: &[T],
        dst: &mut Band<'_, T>,
        write: Write,
        next: Option<MatRef<'_, T>>,
    );

    /// `dst = lhs rhs` or `dst += lhs rhs` over one segment of k, the rhs a panel `[k][n or more]`, each row of the lhs in a place of its own; one row or
    /// [`InPlace::window_rows`] of n, any n up to NR or, where a tile is that wide, 4/3 NR.
    ///
    /// # Panics
    /// If the operands do not fit each other and the result.
    fn through_window(
        self,
        lhs: Sight<'_, '_, T>,
        rhs: MatRef<'_, T>,
        dst: &mut Scattered<'_, T>,
        write: Write,
    );

    /// Rows of a tile through a window of so many columns.
    fn window_rows(cols: usize) -> usize;

    /// Whether tiles through a window of one row less are there as well.
    fn has_shorter() -> bool;

    /// Rows of the tallest tile for a result of so many columns, at most NR: the narrower, the taller, so that sums enough are
    /// under way.
    fn tall(cols: usize) -> usize;

    /// Rows and columns of the widest tile: as many sums as MR x NR, with more columns where a tile is that wide.
    fn widest() -> [usize; 2];

    /// The same tiles of many small products, one product after the other: the choice of the microkernel is made once. The result is cut into tiles of `m` rows, up to
    /// MR or [`InPlace::tall`] of its columns, or those of [`InPlace::widest`]; what is left over is left alone.
    ///
    /// # Panics
    /// If there is no such tile, or the operands do not fit each other and the result, or a row of the rhs does not lie side by side.
    fn in_place_batch(
        self,
        lhs: Parts<'_, T>,
        rhs: Parts<'_, T>,
        dst: Bands<'_, T>,
        shape: [usize; 2],
        write: Write,
    );
}

/// The sums of a tile. `MASKED`: the last vector of the rhs is not a whole one. `AHEAD`: it asks for what comes. `KEEP`: it leaves a copy of the rhs. `SIDE`: elements of a
/// column of the lhs lie side by side. `FOURS`: four steps at a time from one address of each operand, whose columns of the lhs lie as those of a panel do or along k; `CLOSE`: and so do rows of the rhs.
/// With 16 registers a tile of 12 sums takes 26 instructions a step otherwise, 22 with both: a processor that shares its core with another thread decodes half as many.
/// Zen 3, 512 x 512 x 512: 84 to 88 % of the peak, beside a neighbour 60 to 73 (benches/record/2026-11-30-zen3.md).
#[inline(always)]
fn accumulate<
    T: Zeroable + Copy,
    S: FloatLanes<T>,
    const M: usize,
    const NV: usize,
    const MASKED: bool,
    const AHEAD: bool,
    const KEEP: bool,
    const SIDE: bool,
    const FOURS: bool,
    const CLOSE: bool,
>(
    s: S,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    keep: &mut [T],
    ahead: &mut Ahead<T>,
) -> [[S::V; NV]; M] {
    let last = rhs.cols() - (NV - 1) * S::LANES;
    let mut to = keep.chunks_exact_mut(NV * S::LANES);
    let mut acc = [[s.splat(T::zeroed()); NV]; M];
    let (kc, near) = (rhs.rows(), if ahead.near { NEAR } else { 0 });
    let mut k = 0;
    while k < kc {
        let now = if AHEAD { k..kc.min(k + ahead.stride) } else { 0..kc };
        if AHEAD {
            ahead.ask(NV * S::LANES);
        }
        k = now.end;
        let now = if FOURS {
            let fours = now.start..now.end - now.len() % 4;
            let rows = rhs.part(fours.clone(), 0..rhs.cols());
            let rows = if CLOSE { rows.down_close(NV * S::LANES) } else { rows.down() };
            let mut columns =
                lhs.part(0..M, fours.clone()).across::<M, SIDE>().stepping(if SIDE { M as isize } else { 1 });
            for b in rows.by_few::<4, CLOSE>() {
                let Some(a) = columns.next_few::<4>() else { break };
                macro_rules! one {
                    ($($u:literal)*) => {$(
                        if AHEAD {
                            for j in 0..NV {
                                if begins_line::<T>(j * S::LANES) {
                                    b.prefetch($u, if CLOSE { NEAR } else { near }, j * S::LANES);
                                }
                            }
                        }
                        let mut row = [s.splat(T::zeroed()); NV];
                        for (j, row) in row.iter_mut().enumerate() {
                            let b = &b.row($u)[j * S::LANES..];
                            *row = if MASKED && j + 1 == NV { s.load_first_n(b, last) } else { s.load(b) };
                        }
                        if KEEP {
                            let to = to.next().expect("room for every row");
                            for (j, &row) in row.iter().enumerate() {
                                s.store(&mut to[j * S::LANES..], row);
                            }
                        }
                        step(s, &a.column($u), &row, &mut acc);
                    )*};
                }
                one!(0 1 2 3);
            }
            fours.end..now.end
        } else {
            now
        };
        let mut rows = rhs.part(now.clone(), 0..rhs.cols()).down();
        let mut columns = lhs.part(0..M, now).across::<M, SIDE>();
        while let Some(b) = rows.next() {
            if AHEAD {
                for j in 0..NV {
                    if begins_line::<T>(j * S::LANES) {
                        rows.prefetch(near, j * S::LANES);
                    }
                }
            }
            let mut row = [s.splat(T::zeroed()); NV];
            for (j, row) in row.iter_mut().enumerate() {
                let b = &b[j * S::LANES..];
                *row = if MASKED && j + 1 == NV { s.load_first_n(b, last) } else { s.load(b) };
            }
            if KEEP {
                let to = to.next().expect("room for every row");
                for (j, &row) in row.iter().enumerate() {
                    s.store(&mut to[j * S::LANES..], row);
                }
            }
            // Read last: what may panic before would keep all of them in registers, of which there are not so many.
            let Some(a) = columns.next() else { break };
            step(s, &a, &row, &mut acc);
        }
    }
    acc
}

/// Whether element `at` of a row that begins with a cache line begins one.
const fn begins_line<T>(at: usize) -> bool {
    (at * size_of::<T>()).is_multiple_of(CACHE_LINE)
}

/// The elements of a column of the lhs.
trait Elements<T> {
    fn element(&self, row: usize) -> T;
}

impl<T: Copy, const M: usize> Elements<T> for [T; M] {
    #[inline(always)]
    fn element(&self, row: usize) -> T {
        self[row]
    }
}

impl<T: Copy, const M: usize, const SIDE: bool> Elements<T> for Column<'_, T, M, SIDE> {
    #[inline(always)]
    fn element(&self, row: usize) -> T {
        self.at(row)
    }
}

#[inline(always)]
fn step<T: Copy, S: FloatLanes<T>, const M: usize, const NV: usize>(
    s: S,
    a: &impl Elements<T>,
    b: &[S::V; NV],
    acc: &mut [[S::V; NV]; M],
) {
    for (i, acc) in acc.iter_mut().enumerate() {
        let a = s.splat(a.element(i));
        for (acc, &b) in acc.iter_mut().zip(b) {
            *acc = s.mul_add(a, b, *acc);
        }
    }
}

#[inline(always)]
pub(super) fn write_out<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const NV: usize>(
    s: S,
    acc: &[[S::V; NV]; M],
    dst: &mut impl WriteRows<T>,
    write: Write,
) {
    let last = dst.n() - (NV - 1) * S::LANES;
    // N1: no -0 leaves a segment. All of them before the first is written: the loop below is not always unrolled and then reads what it writes from memory, where the sums
    // themselves would lie from run to run.
    let mut segments = [[s.splat(T::zeroed()); NV]; M];
    for (segments, acc) in segments.iter_mut().zip(acc) {
        for (segment, &acc) in segments.iter_mut().zip(acc) {
            *segment = s.add(acc, s.splat(T::zeroed()));
        }
    }
    for (i, segments) in segments.iter().enumerate() {
        let row = dst.row(i);
        for (j, &segment) in segments.iter().enumerate() {
            let at = &mut row[j * S::LANES..];
            if j + 1 < NV || last == S::LANES {
                let sum = if write == Write::Add { s.add(s.load(at), segment) } else { segment };
                s.store(at, sum);
            } else {
                let sum =
                    if write == Write::Add { s.add(s.load_first_n(at, last), segment) } else { segment };
                s.store_first_n(at, last, sum);
            }
        }
    }
}

/// A tile whose operands are read in place. `MASKED`, `KEEP`, `SIDE`, `FOURS`, `CLOSE`: see [`accumulate`].
struct Tile<
    'a,
    'b,
    'c,
    T,
    const M: usize,
    const NV: usize,
    const MASKED: bool,
    const KEEP: bool,
    const SIDE: bool,
    const FOURS: bool,
    const CLOSE: bool,
> {
    lhs: MatRef<'a, T>,
    rhs: MatRef<'a, T>,
    dst: &'b mut Band<'c, T>,
    write: Write,
    keep: &'b mut [T],
    later: Later<'a, T>,
}

impl<
    T,
    S,
    const M: usize,
    const NV: usize,
    const MASKED: bool,
    const KEEP: bool,
    const SIDE: bool,
    const FOURS: bool,
    const CLOSE: bool,
> WithToken<S> for Tile<'_, '_, '_, T, M, NV, MASKED, KEEP, SIDE, FOURS, CLOSE>
where
    T: Zeroable + Copy,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tile { lhs, rhs, dst, write, keep, later } = self;
        let ahead = &mut Ahead::new(dst, later, rhs.rows());
        let acc = accumulate::<T, S, M, NV, MASKED, true, KEEP, SIDE, FOURS, CLOSE>(s, lhs, rhs, keep, ahead);
        write_out(s, &acc, dst, write);
    }
}

/// A column of several that are read from the same addresses.
struct OfRun<'a, 'b, T, const M: usize>(&'b RunColumns<'a, T, M, 4>, usize);

impl<T: Copy, const M: usize> Elements<T> for OfRun<'_, '_, T, M> {
    #[inline(always)]
    fn element(&self, row: usize) -> T {
        self.0.at(row, self.1)
    }
}

/// `acc` and the products of a run. By value: sums behind a reference would go through memory with every step. `FOURS`: four steps at a time, of rows of the rhs that are close.
#[inline(always)]
fn over_run<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const NV: usize, const FOURS: bool>(
    s: S,
    mut run: Run<'_, T, M>,
    rows: &mut Down<'_, T>,
    mut acc: [[S::V; NV]; M],
) -> [[S::V; NV]; M] {
    if FOURS {
        while let Some(a) = run.next_few::<4>() {
            let Some(b) = rows.next_few::<4>() else { return acc };
            macro_rules! one {
                ($($u:literal)*) => {$(
                    let mut row = [s.splat(T::zeroed()); NV];
                    for (j, row) in row.iter_mut().enumerate() {
                        if begins_line::<T>(j * S::LANES) {
                            b.prefetch($u, NEAR, j * S::LANES);
                        }
                        *row = s.load(&b.row($u)[j * S::LANES..]);
                    }
                    step(s, &OfRun(&a, $u), &row, &mut acc);
                )*};
            }
            one!(0 1 2 3);
        }
    }
    for a in run {
        let Some(b) = rows.next() else { break };
        let mut row = [s.splat(T::zeroed()); NV];
        for (j, row) in row.iter_mut().enumerate() {
            // What a single vector reads over a segment lies in the first-level cache.
            if NV > 1 && begins_line::<T>(j * S::LANES) {
                rows.prefetch(NEAR, j * S::LANES);
            }
            *row = s.load(&b[j * S::LANES..]);
        }
        step(s, &a, &row, &mut acc);
    }
    acc
}

/// A tile whose lhs is read run by run. `SIDE`: elements of a row of the lhs lie side by side; a step of unknown length takes an addition for each row. `CLOSE`: so do rows of the rhs,
/// which are as wide as the tile. Each takes a register less. `FOURS`: see [`over_run`].
struct ThroughWindow<
    'a,
    'b,
    'c,
    T,
    const M: usize,
    const NV: usize,
    const SIDE: bool,
    const CLOSE: bool,
    const FOURS: bool,
> {
    lhs: Sight<'a, 'b, T>,
    rhs: MatRef<'a, T>,
    dst: &'b mut Scattered<'c, T>,
    write: Write,
}

impl<T, S, const M: usize, const NV: usize, const SIDE: bool, const CLOSE: bool, const FOURS: bool>
    WithToken<S> for ThroughWindow<'_, '_, '_, T, M, NV, SIDE, CLOSE, FOURS>
where
    T: Zeroable + Copy,
    S: FloatLanes<T>,
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let ThroughWindow { lhs, rhs, dst, write } = self;
        for row in 0..M {
            dst.prefetch(row, NV * S::LANES);
        }
        let mut acc = [[s.splat(T::zeroed()); NV]; M];
        let mut rows = if CLOSE { rhs.down_close(NV * S::LANES) } else { rhs.down() };
        // Rows without padding are looked up once a tile, others once a stretch.
        let fixed = lhs.fixed::<M>();
        for stretch in 0..lhs.stretches() {
            let run = match &fixed {
                Some(rows) => lhs.run_of(rows, stretch),
                None => lhs.run::<M>(stretch),
            };
            rows.leave_out(lhs.gap(stretch));
            acc = over_run::<T, S, M, NV, FOURS>(s, if SIDE { run.close() } else { run }, &mut rows, acc);
        }
        write_out(s, &acc, dst, write);
    }
}

/// Tiles of small products, those of a product one below the other. `FOURS`: see [`accumulate`].
struct Tiles<'a, T, const M: usize, const NV: usize, const FOURS: bool> {
    lhs: Parts<'a, T>,
    rhs: Parts<'a, T>,
    dst: Bands<'a, T>,
    write: Write,
}

impl<T: Zeroable + Copy, S: FloatLanes<T>, const M: usize, const NV: usize, const FOURS: bool> WithToken<S>
    for Tiles<'_, T, M, NV, FOURS>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Tiles { mut lhs, mut rhs, mut dst, write } = self;
        // Not zipped: the zip's own `next` would be compiled without the features.
        while let (Some(lhs), Some(rhs), Some(mut dst)) = (lhs.next(), rhs.next(), dst.next()) {
            for i in (M..=dst.m()).step_by(M) {
                let (lhs, mut dst) = (lhs.part(i - M..i, 0..lhs.cols()), dst.part(i - M..i, 0..rhs.cols()));
                let ahead = &mut Ahead::new(
                    &dst,
                    Later { near: true, lhs: None, rhs: None, from_memory: false },
                    rhs.rows(),
                );
                let acc = if rhs.cols() >= NV * S::LANES {
                    accumulate::<T, S, M, NV, false, false, false, false, FOURS, false>(
                        s,
                        lhs,
                        rhs,
                        &mut [],
                        ahead,
                    )
                } else {
                    accumulate::<T, S, M, NV, true, false, false, false, FOURS, false>(
                        s,
                        lhs,
                        rhs,
                        &mut [],
                        ahead,
                    )
                };
                write_out(s, &acc, &mut dst, write);
            }
        }
    }
}

/// Tiles side by side along panels of the rhs, with a lhs that stays in the first-level cache. `FOURS`: see [`accumulate`].
struct AlongPanels<'a, 'b, 'c, T, const M: usize, const NV: usize, const SIDE: bool, const FOURS: bool> {
    lhs: MatRef<'a, T>,
    panels: &'a [T],
    dst: &'b mut Band<'c, T>,
    write: Write,
    next: Option<MatRef<'a, T>>,
}

impl<
    T: Zeroable + Copy,
    S: FloatLanes<T>,
    const M: usize,
    const NV: usize,
    const SIDE: bool,
    const FOURS: bool,
> WithToken<S> for AlongPanels<'_, '_, '_, T, M, NV, SIDE, FOURS>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let AlongPanels { lhs, mut panels, dst, write, mut next } = self;
        let (k, width) = (lhs.cols(), NV * S::LANES);
        let mut col = 0;
        while col < dst.n() {
            let (panel, rest) = panels.split_at(k * width);
            let (rhs, end) = (MatRef::row_major(panel, k, width), col + width);
            // The first tile asks for the lhs that comes; each for the place of the next tile, for its own may be written before it is there.
            let later = Later { near: true, lhs: next.take(), rhs: None, from_memory: false };
            let place = if end < dst.n() { end..end + width } else { col..end };
            let ahead = &mut Ahead::new(&dst.part(0..M, place), later, k);
            let acc = accumulate::<T, S, M, NV, false, true, false, SIDE, FOURS, FOURS>(
                s,
                lhs,
                rhs,
                &mut [],
                ahead,
            );
            write_out(s, &acc, &mut dst.part(0..M, col..end), write);
            (panels, col) = (rest, end);
        }
    }
}

/// `tall`, `wide`: tiles of more rows or more vectors. `short`: rows of a shorter tile through a window, where there are 16 registers and instructions are to be few.
macro_rules! in_place {
    ($t:ty, $token:ty, $mr:literal x $nv:literal, rows: $($m:literal)*, vectors: $vectors:tt, tall: $($tall:literal x $tall_nv:tt)* $(, wide: $wide:literal x $wide_nv:literal)? $(, short: $short:literal)?) => {
        impl InPlace<$t> for $token {
            #[inline(always)]
            fn in_place(
                self,
                lhs: MatRef<'_, $t>,
                rhs: MatRef<'_, $t>,
                dst: &mut Band<'_, $t>,
                write: Write,
                keep: Option<&mut [$t]>,
                later: Later<'_, $t>,
            ) {
                assert!(lhs.cols() == rhs.rows() && lhs.rows() == dst.m() && dst.n() <= rhs.cols());
                let vectors = dst.n().div_ceil(<$token as Lanes<$t>>::LANES);
                if dst.m() == $mr && vectors == $nv && rhs.cols() == $nv * <$token as Lanes<$t>>::LANES {
                    // Most of the work.
                    $(if $short > 0 && lhs.columns_apart() == if lhs.has_whole_columns() { $mr } else { 1 } {
                        if keep.is_none() && later.near && rhs.is_close($nv * <$token as Lanes<$t>>::LANES) {
                            return if lhs.has_whole_columns() {
                                self.apart(Tile::<$t, $mr, $nv, false, false, true, true, true> { lhs, rhs, dst, write, keep: &mut [], later })
                            } else {
                                self.apart(Tile::<$t, $mr, $nv, false, false, false, true, true> { lhs, rhs, dst, write, keep: &mut [], later })
                            };
                        }
                        return in_place!(@full $t, $mr, $nv, true, self, lhs, rhs, dst, write, keep, later);
                    })?
                    return in_place!(@full $t, $mr, $nv, false, self, lhs, rhs, dst, write, keep, later);
                }
                const FEW: bool = in_place!(@few $($short)?);
                $(if vectors == $wide_nv {
                    in_place!(@row $t, $token, false, $wide, [$wide_nv], self, vectors, lhs, rhs, dst, write, later);
                })?
                $(in_place!(@row $t, $token, FEW, $tall, $tall_nv, self, vectors, lhs, rhs, dst, write, later);)*
                $(in_place!(@row $t, $token, FEW, $m, $vectors, self, vectors, lhs, rhs, dst, write, later);)*
                unreachable!("no tile of {} rows", dst.m());
            }

            #[inline(always)]
            fn along_panels(
                self,
                lhs: MatRef<'_, $t>,
                panels: &[$t],
                dst: &mut Band<'_, $t>,
                write: Write,
                next: Option<MatRef<'_, $t>>,
            ) {
                let width = $nv * <$token as Lanes<$t>>::LANES;
                assert!(lhs.rows() == $mr && dst.m() == $mr && dst.n().is_multiple_of(width));
                assert!(panels.len() >= lhs.cols() * dst.n());
                $(if $short > 0 && lhs.columns_apart() == if lhs.has_whole_columns() { $mr } else { 1 } {
                    return if lhs.has_whole_columns() {
                        self.apart(AlongPanels::<$t, $mr, $nv, true, true> { lhs, panels, dst, write, next })
                    } else {
                        self.apart(AlongPanels::<$t, $mr, $nv, false, true> { lhs, panels, dst, write, next })
                    };
                })?
                if lhs.has_whole_columns() {
                    self.apart(AlongPanels::<$t, $mr, $nv, true, false> { lhs, panels, dst, write, next });
                } else {
                    self.apart(AlongPanels::<$t, $mr, $nv, false, false> { lhs, panels, dst, write, next });
                }
            }

            #[inline(always)]
            fn through_window(
                self,
                lhs: Sight<'_, '_, $t>,
                rhs: MatRef<'_, $t>,
                dst: &mut Scattered<'_, $t>,
                write: Write,
            ) {
                assert!(lhs.rows() == dst.m() && dst.n() <= rhs.cols());
                let (m, vectors) = (dst.m(), dst.n().div_ceil(<$token as Lanes<$t>>::LANES));
                $(
                    in_place!(@window $t, $token, false, $wide, [$wide_nv], self, m, vectors, lhs, rhs, dst, write);
                    in_place!(@window $t, $token, false, 1, [$wide_nv], self, m, vectors, lhs, rhs, dst, write);
                )?
                $(
                    in_place!(@window $t, $token, true, $mr, $vectors, self, m, vectors, lhs, rhs, dst, write);
                    in_place!(@window $t, $token, true, $short, $vectors, self, m, vectors, lhs, rhs, dst, write);
                )?
                in_place!(@window $t, $token, false, $mr, $vectors, self, m, vectors, lhs, rhs, dst, write);
                in_place!(@window $t, $token, false, 1, $vectors, self, m, vectors, lhs, rhs, dst, write);
                unreachable!("no tile of {m} rows through a window");
            }

            #[inline(always)]
            fn window_rows(cols: usize) -> usize {
                let _vectors = cols.div_ceil(<$token as Lanes<$t>>::LANES);
                $(if _vectors == $wide_nv { return $wide; })?
                $mr
            }

            #[inline(always)]
            fn has_shorter() -> bool {
                $(const { assert!($short + 1 == $mr) };)?
                in_place!(@few $($short)?)
            }

            #[inline(always)]
            fn tall(cols: usize) -> usize {
                let vectors = cols.div_ceil(<$token as Lanes<$t>>::LANES);
                $(if $tall_nv.contains(&vectors) { return $tall; })*
                $mr
            }

            #[inline(always)]
            fn widest() -> [usize; 2] {
                let _widest = [$mr, $nv * <$token as Lanes<$t>>::LANES];
                $(let _widest = [$wide, $wide_nv * <$token as Lanes<$t>>::LANES];)?
                _widest
            }

            #[inline(always)]
            fn in_place_batch(
                self,
                lhs: Parts<'_, $t>,
                rhs: Parts<'_, $t>,
                dst: Bands<'_, $t>,
                [m, n]: [usize; 2],
                write: Write,
            ) {
                let vectors = n.div_ceil(<$token as Lanes<$t>>::LANES);
                $(if vectors == $wide_nv {
                    in_place!(@batch $t, false, $wide, [$wide_nv], self, m, vectors, lhs, rhs, dst, write);
                })?
                const FEW: bool = in_place!(@few $($short)?);
                $(in_place!(@batch $t, FEW, $tall, $tall_nv, self, m, vectors, lhs, rhs, dst, write);)*
                $(in_place!(@batch $t, FEW, $m, $vectors, self, m, vectors, lhs, rhs, dst, write);)*
                unreachable!("no tile of {m} rows");
            }
        }
    };
    (@full $t:ty, $mr:literal, $nv:literal, $few:literal,
     $s:ident, $lhs:ident, $rhs:ident, $dst:ident, $write:ident, $keep:ident, $later:ident) => {{
        let (lhs, rhs, dst, write, later) = ($lhs, $rhs, $dst, $write, $later);
        match ($keep, lhs.has_whole_columns()) {
            (Some(keep), true) => $s.apart(Tile::<$t, $mr, $nv, false, true, true, $few, false> { lhs, rhs, dst, write, keep, later }),
            (Some(keep), false) => $s.apart(Tile::<$t, $mr, $nv, false, true, false, $few, false> { lhs, rhs, dst, write, keep, later }),
            (None, true) => $s.apart(Tile::<$t, $mr, $nv, false, false, true, $few, false> { lhs, rhs, dst, write, keep: &mut [], later }),
            (None, false) => $s.apart(Tile::<$t, $mr, $nv, false, false, false, $few, false> { lhs, rhs, dst, write, keep: &mut [], later }),
        }
    }};
    (@few) => { false };
    (@few $short:literal) => { true };
    (@batch $t:ty, $few:expr, $m:literal, [$($v:literal)*],
     $s:ident, $rows:ident, $lanes:ident, $lhs:ident, $rhs:ident, $dst:ident, $write:ident) => {
        if $rows == $m {
            let (lhs, rhs, dst, write) = ($lhs, $rhs, $dst, $write);
            let (k, apart) = lhs.columns();
            match $lanes {
                $($v if $few && k >= FOURS_K && apart == 1 => {
                    return $s.apart(Tiles::<$t, $m, $v, { $few }> { lhs, rhs, dst, write });
                }
                $v => return $s.apart(Tiles::<$t, $m, $v, false> { lhs, rhs, dst, write }),)*
                _ => unreachable!("no tile of {} vectors", $lanes),
            }
        }
    };
    (@window $t:ty, $token:ty, $few:literal, $m:literal, [$($v:literal)*],
     $s:ident, $rows:ident, $lanes:ident, $lhs:ident, $rhs:ident, $dst:ident, $write:ident) => {$(
        if $rows == $m && $lanes == $v {
            let (lhs, rhs, dst, write) = ($lhs, $rhs, $dst, $write);
            if $m > 1 && lhs.is_close() {
                // No panel is a single vector wide.
                if $v > 1 && rhs.is_close($v * <$token as Lanes<$t>>::LANES) {
                    return $s.apart(ThroughWindow::<$t, $m, $v, { $m > 1 }, { $m > 1 && $v > 1 }, { $few && $m > 1 && $v > 1 }> { lhs, rhs, dst, write });
                }
                return $s.apart(ThroughWindow::<$t, $m, $v, { $m > 1 }, false, false> { lhs, rhs, dst, write });
            }
            return $s.apart(ThroughWindow::<$t, $m, $v, false, false, false> { lhs, rhs, dst, write });
        }
    )*};
    (@row $t:ty, $token:ty, $few:expr, $m:literal, [$($v:literal)*],
     $s:ident, $lanes:ident, $lhs:ident, $rhs:ident, $dst:ident, $write:ident, $later:ident) => {
        if $dst.m() == $m {
            let (lhs, rhs, dst, write, keep, later) = ($lhs, $rhs, $dst, $write, &mut [][..], $later);
            match $lanes {
                $($v if $few && lhs.columns_apart() == 1 && rhs.cols() >= $v * <$token as Lanes<$t>>::LANES => {
                    return $s.apart(Tile::<$t, $m, $v, false, false, false, { $few }, false> { lhs, rhs, dst, write, keep, later });
                }
                $v if rhs.cols() >= $v * <$token as Lanes<$t>>::LANES => {
                    return $s.apart(Tile::<$t, $m, $v, false, false, false, false, false> { lhs, rhs, dst, write, keep, later });
                }
                $v => return $s.apart(Tile::<$t, $m, $v, true, false, false, false, false> { lhs, rhs, dst, write, keep, later }),)*
                _ => unreachable!("no tile of {} vectors", $lanes),
            }
        }
    };
}

in_place!(f32, Portable, 4 x 2, rows: 4 3 2 1, vectors: [1 2], tall: 8 x [1]);
in_place!(f64, Portable, 4 x 2, rows: 4 3 2 1, vectors: [1 2], tall: 8 x [1]);
#[cfg(target_arch = "aarch64")]
in_place!(f32, Neon, 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [1 2 3], tall: 16 x [1] 12 x [2], wide: 6 x 4);
#[cfg(target_arch = "aarch64")]
in_place!(f64, Neon, 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [1 2 3], tall: 16 x [1] 12 x [2], wide: 6 x 4);
#[cfg(target_arch = "x86_64")]
in_place!(f32, Avx2, 6 x 2, rows: 6 5 4 3 2 1, vectors: [1 2], tall: 12 x [1], short: 5);
#[cfg(target_arch = "x86_64")]
in_place!(f64, Avx2, 6 x 2, rows: 6 5 4 3 2 1, vectors: [1 2], tall: 12 x [1], short: 5);
#[cfg(target_arch = "x86_64")]
in_place!(f32, Avx512, 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [1 2 3], tall: 16 x [1] 12 x [2], wide: 6 x 4);
#[cfg(target_arch = "x86_64")]
in_place!(f64, Avx512, 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [1 2 3], tall: 16 x [1] 12 x [2], wide: 6 x 4);
#[cfg(target_arch = "x86_64")]
in_place!(f32, Avx512Dot, 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [1 2 3], tall: 16 x [1] 12 x [2], wide: 6 x 4);
#[cfg(target_arch = "x86_64")]
in_place!(f64, Avx512Dot, 8 x 3, rows: 8 7 6 5 4 3 2 1, vectors: [1 2 3], tall: 16 x [1] 12 x [2], wide: 6 x 4);
