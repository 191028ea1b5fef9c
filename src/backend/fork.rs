//! How work is divided among the threads of the current pool: parts of a result, each with one owner, and scratch for each.

use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard, TryLockError};

use tile25_kernels::buf::Buf;
use tile25_kernels::format::Element;
use tile25_kernels::isa::is_amd;
use tile25_kernels::mat::{Index, MatMut};

use crate::context::Threads;

/// Multiply-adds that a part should have at least: below, a fork costs more than it saves. A worker that sleeps is there after 15 to 20 us, when who called has done the work alone, and sleeps
/// again before the next call. On Granite Rapids with one and two threads, in us: 128 x 128 x 128 28 and 40, 144 x 144 x 144 38 and 57, 160 x 160 x 160 51 and 33, 256 x 256 x 256 192 and 140
/// (benches/record/2026-11-27-along-rows.md).
const PART_MACS: u64 = 152 * 152 * 152 / 2;
/// Multiply-adds from which on two threads share them on AMD's: a worker is awake there when the next product of a row of them comes. Zen 5, percent of the peak of two threads by one and by two: 72 x 72 x 72 42 and
/// 58, 96 x 96 x 96 47 and 77, 128 x 128 x 128 49 and 68; 64 x 64 x 64 44 and 44 (benches/record/2026-11-28-zen5.md). More threads were not measured: they take parts of [`PART_MACS`].
const PAIR_MACS_AMD: u64 = 72 * 72 * 72;

/// Threads that so many multiply-adds are worth, of those there are.
pub(crate) fn worth(macs: u64, threads: usize) -> usize {
    let least = if is_amd() && macs >= PAIR_MACS_AMD { 2 } else { 1 };
    threads.min(usize::try_from(macs / PART_MACS).unwrap_or(usize::MAX).max(least))
}

/// How much smaller the largest part of a matrix must be for another cut than the one that reads least. Zen 5, two threads, the columns of 256 x 256 x 256 cut into 144 and 112 and its rows into 128 and 128: 84 and 97 %
/// of the peak; 512 x 512 x 512, 288 and 224 or 256 and 256: 82 and 93 (benches/record/2026-11-28-zen5.md).
pub(super) const WORTH_ANOTHER_CUT: f64 = 0.97;

/// What packing an element costs in multiply-adds: 1024 to 256 channels @14 of 1 x 1, whose weights are packed for 196 positions, takes a tenth more time than with weights that lie well on Zen 5.
pub(super) const PACKING_PRICE: usize = 20;

/// As many parts as threads, where the products have so many: more parts would pack and read more, and took a tenth more time. Along the batch as far as that
/// divides evenly, then rows by columns such that a part reads least; of cuts that read as much the one along most rows, for parts side by side share a line of cache in every row of the result. Zen 4, two threads, percent of
/// their peak by columns and by rows: 96 x 96 x 96 77 and 83, 384 x 384 x 384 90 and 95, 4096 x 4096 x 8 46 and 51. More rows than that lost (32 x 4096 x 4096 74 and 60).
pub(super) fn cut(units: [usize; 3], [m, n]: [usize; 2], threads: usize) -> [usize; 3] {
    let along_batch = if units[0] >= 8 * threads { threads } else { gcd(units[0], threads) };
    let rest = threads / along_batch;
    let cuts = (1..=rest).map(|rows| [along_batch, rows.min(units[1]), (rest / rows).min(units[2])]);
    let reads = |&[_, rows, cols]: &[usize; 3]| m.div_ceil(rows) + n.div_ceil(cols);
    // The most parts, then the least to read.
    cuts.min_by_key(|cut| (usize::MAX - cut.iter().product::<usize>(), reads(cut), cut[2])).unwrap_or([1; 3])
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// As [`cut`], but along the index of a group that gives the smallest largest part: with few positions or channels a panel more or less is a difference.
pub(super) fn evenly(groups: usize, [m, n]: [usize; 2], grains: [usize; 2], threads: usize) -> [usize; 3] {
    evenly_by(groups, [m, n], grains, threads, 1.0, [0; 2])
}

/// As [`evenly`] where that makes the largest part cheaper than so many `times` that of [`cut`]: of that the parts read least, and may pack least. A step of k of a row of a part, and one of a column, cost as much besides as so many
/// `prices` multiply-adds.
pub(super) fn evenly_by(
    groups: usize,
    [m, n]: [usize; 2],
    [mr, nr]: [usize; 2],
    threads: usize,
    times: f64,
    prices: [usize; 2],
) -> [usize; 3] {
    let counts = cut([groups, m.div_ceil(mr), n.div_ceil(nr)], [m, n], threads);
    let parts = counts[1] * counts[2];
    let largest = |extent: usize, grain: usize, parts: usize| {
        extent.min(extent.div_ceil(grain).div_ceil(parts) * grain)
    };
    let cost = |&[_, rows, cols]: &[usize; 3]| {
        let (rows, cols) = (largest(m, mr, rows), largest(n, nr, cols));
        rows * cols + prices[0] * rows + prices[1] * cols
    };
    let most = cost(&counts) as f64 * times;
    let others = (1..=parts).filter(|rows| parts.is_multiple_of(*rows));
    let others = others.map(|rows| [counts[0], rows, parts / rows]);
    others.filter(|counts| (cost(counts) as f64) < most).min_by_key(cost).unwrap_or(counts)
}

/// Does `work` for every unit, each with its own `len` elements of `out`, on up to `threads` threads.
pub(super) fn share<T: Send>(
    units: Range<usize>,
    out: &mut [T],
    threads: usize,
    len: usize,
    work: &(impl Fn(usize, &mut [T]) + Sync),
) {
    if threads > 1 && units.len() > 1 {
        let middle = units.start + units.len() / 2;
        let (first, second) = out.split_at_mut((middle - units.start) * len);
        rayon::join(
            || share(units.start..middle, first, threads / 2, len, work),
            || share(middle..units.end, second, threads - threads / 2, len, work),
        );
        return;
    }
    for (unit, out) in units.zip(out.chunks_exact_mut(len)) {
        work(unit, out);
    }
}

/// Elements that are worth another thread to clear them. Not swept.
const CLEARED_ALONE: usize = 64 * 1024;

/// Sets elements to zero.
pub(crate) fn clear<T: Element>(data: &mut [T], threads: &Threads<'_>) {
    fn halves<T: Element>(data: &mut [T], parts: usize) {
        if parts <= 1 {
            return data.fill(T::zeroed());
        }
        let (first, second) = data.split_at_mut(data.len() / 2);
        rayon::join(|| halves(first, parts / 2), || halves(second, parts - parts / 2));
    }
    let parts = threads.count().min(data.len() / CLEARED_ALONE).max(1);
    within(threads, [1, 1, parts], || halves(data, parts));
}

/// Does `work` in the pool that `threads` names, if it is cut into several parts.
pub(super) fn within<R: Send>(
    threads: &Threads<'_>,
    counts: [usize; 3],
    work: impl FnOnce() -> R + Send,
) -> R {
    match threads {
        Threads::Pool(pool) if counts != [1; 3] => pool.install(work),
        _ => work(),
    }
}

/// Cuts `dst` into `counts` parts at multiples of `grains` along each index, and computes them on the threads of the current pool.
pub(super) fn split<T: Copy + Send>(
    dst: MatMut<'_, T>,
    counts: [usize; 3],
    grains: [usize; 3],
    part: &(impl Fn(MatMut<'_, T>) + Sync),
) {
    let Some(d) = (0..3).find(|&d| counts[d] > 1) else { return part(dst) };
    let (index, range) =
        [(Index::Batch, dst.batch()), (Index::Row, dst.rows()), (Index::Col, dst.cols())][d].clone();
    let (first, units) = (counts[d] / 2, range.len().div_ceil(grains[d]));
    let at = range.start + (units * first / counts[d] * grains[d]).min(range.len());
    let (left, right) = dst.split(index, at);
    let (mut of_left, mut of_right) = (counts, counts);
    (of_left[d], of_right[d]) = (first, counts[d] - first);
    rayon::join(|| split(left, of_left, grains, part), || split(right, of_right, grains, part));
}

/// One of the first `slots` pairs of scratches, one that nobody uses: the thread's own, whose lines lie in its caches, or else another. There are as many as threads: one is free unless the pool has grown since the
/// plan was made. A panic in an earlier run broke no scratch.
pub(super) fn free_pair(
    panels: &[RwLock<Buf>],
    slots: usize,
) -> (RwLockWriteGuard<'_, Buf>, RwLockWriteGuard<'_, Buf>) {
    // Those behind are of another part of a plan, which may need less.
    let pairs = &panels.as_chunks::<2>().0[..slots];
    let own = rayon::current_thread_index().unwrap_or(0) % pairs.len();
    let (before, from) = pairs.split_at(own);
    let free = from.iter().chain(before).find_map(|pair| match pair[0].try_write() {
        Ok(first) => Some((first, pair)),
        Err(TryLockError::Poisoned(first)) => Some((first.into_inner(), pair)),
        Err(TryLockError::WouldBlock) => None,
    });
    let (first, pair) =
        free.unwrap_or_else(|| (pairs[own][0].write().unwrap_or_else(PoisonError::into_inner), &pairs[own]));
    (first, pair[1].write().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn every_thread_has_a_part_where_there_are_so_many() {
        for (units, threads, parts) in [
            ([1, 128, 22], 2, [1, 2, 1]),
            ([1, 16, 86], 2, [1, 1, 2]),
            ([1, 128, 128], 6, [1, 3, 2]),
            ([1, 128, 22], 7, [1, 7, 1]),
            ([1, 1, 86], 7, [1, 1, 7]),
            ([1, 2, 2], 7, [1, 2, 2]),
            ([96, 16, 3], 2, [2, 1, 1]),
            ([3, 16, 3], 2, [1, 2, 1]),
            ([1000, 1, 1], 7, [7, 1, 1]),
            ([1, 1, 1], 3, [1, 1, 1]),
        ] {
            assert_eq!(cut(units, [8 * units[1], 8 * units[2]], threads), parts, "{units:?} on {threads}");
        }
    }
}
