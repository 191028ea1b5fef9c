//! Groups of 16 lines, by vectors of 64 bytes: squares of 16 x 16.

use crate::KC;
use crate::mat::{Band, MatRef};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken, prefetch_near};

use super::{IN_A_SET, LINE, ahead, comes_from_memory, take};
use crate::gemm::Write;

/// Lines of a group: the lanes of a vector.
pub(super) const GROUP: usize = 16;
/// Few rows, and few columns, up to which two groups are computed at a time, for the sums of one wait for each other; unless their lines share too few sets of the first-level cache, of 64 lines apart. On Zen 5
/// 1 x 256 x 256 12.5 % of the peak by one, 16.5 by two, 4 x 768 x 768 nt 36 and 28; 3136 x 4 x 256 30 and 35, 1000 x 3 x 1000 28 and 34; 1 x 1024 x 1024, whose columns share one set, 10.1 and 5.8.
const PAIRED: [usize; 2] = [2, 4];

/// The products of `M` of them, group by group, segment by segment.
#[inline(always)]
pub(super) fn groups<S: Simd, const M: usize, const COLUMNS: bool>(
    s: S,
    few: MatRef<'_, f32>,
    lines: MatRef<'_, f32>,
    dst: &mut Band<'_, f32>,
    add: bool,
) {
    let (n, k) = (lines.rows(), lines.cols());
    let from_memory = comes_from_memory(lines);
    let ahead = ahead(lines, GROUP, M);
    let by_two = M <= PAIRED[COLUMNS as usize] && !from_memory && lines.in_a_set(2 * GROUP) <= IN_A_SET;
    let mut j = 0;
    while j < n {
        let two = by_two && j + 2 * GROUP <= n;
        let mut first = 0;
        while first < k {
            let len = KC.min(k - first);
            let write = if first > 0 || add { Write::Add } else { Write::Replace };
            let steps = first..first + len;
            let (few, lines, dst) = (few.part(0..M, steps.clone()), lines.part(0..n, steps), &mut *dst);
            if two {
                s.apart(Groups::<M, 2, COLUMNS, false> {
                    few,
                    lines,
                    dst,
                    from: [j, j + GROUP],
                    write,
                    ahead,
                });
            } else if from_memory {
                s.apart(Groups::<M, 1, COLUMNS, true> { few, lines, dst, from: [j], write, ahead });
            } else {
                s.apart(Groups::<M, 1, COLUMNS, false> { few, lines, dst, from: [j], write, ahead });
            }
            first += len;
        }
        j += if two { 2 * GROUP } else { GROUP };
    }
}

/// The products of `M` rows, or columns, with `G` groups of lines over a segment, each `from` a line on. `AHEAD`: what is so many elements `ahead` in each line is asked for.
struct Groups<'a, 'b, 'c, const M: usize, const G: usize, const COLUMNS: bool, const AHEAD: bool> {
    few: MatRef<'a, f32>,
    lines: MatRef<'a, f32>,
    dst: &'b mut Band<'c, f32>,
    from: [usize; G],
    write: Write,
    ahead: isize,
}

impl<S: Simd, const M: usize, const G: usize, const COLUMNS: bool, const AHEAD: bool> WithToken<S>
    for Groups<'_, '_, '_, M, G, COLUMNS, AHEAD>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let (n, len) = (self.lines.rows(), self.lines.cols());
        let mut rows: [[&[f32]; GROUP]; G] = [[&[]; GROUP]; G];
        for (rows, from) in rows.iter_mut().zip(self.from) {
            for (lane, row) in rows.iter_mut().enumerate() {
                // Lanes beyond the last line repeat it.
                *row = self.lines.row((from + lane).min(n - 1));
            }
        }
        let whole = len / LINE * LINE;
        let mut acc = [[Lanes::<f32>::splat(s, 0.0); M]; G];
        for step in (0..whole).step_by(LINE) {
            // One by one, for a loop that is not unrolled would have its sums in memory.
            acc[0] = self.line(s, &rows[0], step, acc[0]);
            if G > 1 {
                acc[1] = self.line(s, &rows[1], step, acc[1]);
            }
        }
        for step in whole..len {
            for (rows, acc) in rows.iter().zip(&mut acc) {
                let mut b = [[0.0f32; GROUP]];
                for (b, row) in b[0].iter_mut().zip(rows) {
                    *b = row[step];
                }
                *acc = steps::<S, M>(s, self.few.part(0..M, step..step + 1), &b, *acc);
            }
        }
        for (acc, from) in acc.iter().zip(self.from) {
            let mut sums = [[0.0f32; GROUP]; M];
            for (sums, &acc) in sums.iter_mut().zip(acc) {
                Lanes::<f32>::store(s, sums, acc);
            }
            take::<S, M, GROUP, COLUMNS>(s, &sums, 0..GROUP.min(n - from), from, self.write, self.dst);
        }
    }
}

impl<const M: usize, const G: usize, const COLUMNS: bool, const AHEAD: bool>
    Groups<'_, '_, '_, M, G, COLUMNS, AHEAD>
{
    /// `acc` and a cache line's steps of a group from `step` on.
    #[inline(always)]
    fn line<S: Simd>(
        &self,
        s: S,
        rows: &[&[f32]; GROUP],
        step: usize,
        acc: [<S as Lanes<f32>>::V; M],
    ) -> [<S as Lanes<f32>>::V; M] {
        // Of each line its part at once: lines a power of two apart share a set of the first-level cache, which keeps eight or twelve of them.
        let mut parts: [&[f32; LINE]; GROUP] = [&[0.0; LINE]; GROUP];
        for (part, row) in parts.iter_mut().zip(rows) {
            *part = row[step..].first_chunk().expect("a part is left");
        }
        if AHEAD {
            for part in parts {
                prefetch_near(part.as_ptr().wrapping_offset(self.ahead));
            }
        }
        let b = s.transpose_16x16(parts);
        steps::<S, M>(s, self.few.part(0..M, step..step + LINE), &b, acc)
    }
}

/// `acc` and some steps of k of one group. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn steps<S: Simd, const M: usize>(
    s: S,
    few: MatRef<'_, f32>,
    b: &[[f32; GROUP]],
    mut acc: [<S as Lanes<f32>>::V; M],
) -> [<S as Lanes<f32>>::V; M] {
    for (a, b) in few.across::<M, false>().zip(b) {
        let b = Lanes::<f32>::load(s, b);
        for (row, acc) in acc.iter_mut().enumerate() {
            let a = Lanes::<f32>::splat(s, a.at(row));
            *acc = FloatLanes::<f32>::mul_add(s, a, b, *acc);
        }
    }
    acc
}
