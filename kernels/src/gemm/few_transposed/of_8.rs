//! Groups of 8 lines, by vectors of 32 bytes or less: four steps of k at a time.
//!
//! What is computed at a time, a group of lines over a segment, is a chain: each of its sums waits for the one before. Two chains in turns fill the time: of two groups, or of two segments of one group.

use crate::KC;
use crate::mat::{Band, Chunk, Column, Few, MatRef};
use crate::simd::{FloatLanes, Lanes, Simd, WithToken, prefetch_near};

use super::{IN_A_SET, LINE, ahead, comes_from_memory, take};
use crate::gemm::Write;

/// Lines of a group.
const GROUP: usize = 8;
/// Steps of k at a time.
const FOUR: usize = 4;
/// Vectors of a group, where they are shortest.
const VECTORS: usize = 2;
/// Few rows, or columns, up to which two chains are computed in turns.
const PAIRED: usize = 2;

/// The products of `M` rows, or columns, with lines.
pub(super) struct Groups<'a, 'b, 'c, const M: usize, const COLUMNS: bool> {
    pub(super) few: MatRef<'a, f32>,
    pub(super) lines: MatRef<'a, f32>,
    pub(super) dst: &'b mut Band<'c, f32>,
    pub(super) add: bool,
    /// Whether lines from memory are asked for ahead.
    pub(super) asks: bool,
}

impl<const M: usize, const COLUMNS: bool> Groups<'_, '_, '_, M, COLUMNS> {
    /// Group by group, segment by segment.
    #[inline(always)]
    pub(super) fn all<S: Simd>(mut self, s: S) {
        let (n, k) = (self.lines.rows(), self.lines.cols());
        let from_memory = comes_from_memory(self.lines);
        let apart = self.lines.in_a_set(2 * GROUP) <= IN_A_SET;
        let paired = M <= PAIRED && S::TILES;
        let two_groups = paired && apart;
        // Where lines of two groups would share too few sets of the first-level cache.
        let two_segments = paired && !apart && !from_memory;
        let mut line = 0;
        while line < n {
            let groups = if two_groups && line + 2 * GROUP <= n { 2 } else { 1 };
            let mut step = 0;
            while step < k {
                let segments = if two_segments && step + 2 * KC <= k { 2 } else { 1 };
                let len = KC.min(k - step);
                let at = [line, step];
                if const { M <= PAIRED && S::TILES } && groups * segments > 1 {
                    let next = [line + (groups - 1) * GROUP, step + (segments - 1) * KC];
                    if from_memory && self.asks {
                        self.chains::<S, 2, true>(s, [at, next], len);
                    } else {
                        self.chains::<S, 2, false>(s, [at, next], len);
                    }
                } else if const { S::TILES } && from_memory && self.asks {
                    self.chains::<S, 1, true>(s, [at], len);
                } else {
                    self.chains::<S, 1, false>(s, [at], len);
                }
                step += segments * len;
            }
            line += groups * GROUP;
        }
    }

    /// Chains from a line and a step on, of so many steps.
    #[inline(always)]
    fn chains<S: Simd, const C: usize, const AHEAD: bool>(&mut self, s: S, at: [[usize; 2]; C], len: usize) {
        // The last group goes back to as many lines as it needs.
        let last = self.lines.rows().checked_sub(GROUP).expect("lines of a group");
        let chain = |[line, step]: [usize; 2]| {
            let from = line.min(last);
            let lines = self.lines.part(from..from + GROUP, step..step + len);
            let write = if step > 0 || self.add { Write::Add } else { Write::Replace };
            Chain { few: self.few.part(0..M, step..step + len), lines, done: line - from, to: line, write }
        };
        let ahead = ahead(self.lines, C * GROUP, M);
        let chains = at.map(chain);
        if self.few.columns_apart() == 1 {
            s.apart(Chains::<M, C, COLUMNS, AHEAD, true> { chains, dst: &mut *self.dst, ahead });
        } else {
            s.apart(Chains::<M, C, COLUMNS, AHEAD, false> { chains, dst: &mut *self.dst, ahead });
        }
    }
}

/// Products over a segment.
#[derive(Clone, Copy)]
struct Chain<'a> {
    few: MatRef<'a, f32>,
    /// Those of a group.
    lines: MatRef<'a, f32>,
    /// Lines that a group before took, and the first of the others.
    done: usize,
    to: usize,
    write: Write,
}

/// Chains in turns. `AHEAD`: what is so many elements `ahead` in each line is asked for. `SIDE`: few rows, or columns, each lie side by side.
struct Chains<
    'a,
    'b,
    'c,
    const M: usize,
    const C: usize,
    const COLUMNS: bool,
    const AHEAD: bool,
    const SIDE: bool,
> {
    chains: [Chain<'a>; C],
    dst: &'b mut Band<'c, f32>,
    ahead: isize,
}

/// The sums of a group, of as many vectors as it has.
type Sums<S, const M: usize> = [[<S as Lanes<f32>>::V; M]; VECTORS];

impl<S: Simd, const M: usize, const C: usize, const COLUMNS: bool, const AHEAD: bool, const SIDE: bool>
    WithToken<S> for Chains<'_, '_, '_, M, C, COLUMNS, AHEAD, SIDE>
{
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let len = self.chains[0].lines.cols();
        let whole = len / LINE * LINE;
        let [first, second] = [0, C - 1].map(|c| self.chains[c]);
        let [mut lines, mut others] =
            [first, second].map(|chain| chain.lines.part(0..GROUP, 0..whole).chunks::<GROUP, LINE>());
        let [mut few, mut other_few] = [first, second].map(|chain| {
            let few = chain.few.part(0..M, 0..whole).across::<M, false>();
            if SIDE { few.stepping(1) } else { few }
        });
        let mut acc = [[[Lanes::<f32>::splat(s, 0.0); M]; VECTORS]; C];
        'lines: while let (Some(line), Some(other)) = (lines.next(), others.next()) {
            if AHEAD {
                ask_for(&line, self.ahead);
                if C > 1 {
                    ask_for(&other, self.ahead);
                }
            }
            // One by one, for a loop that is not unrolled would have its sums in memory; in turns, for both chains are to be under way.
            macro_rules! four {
                ($($at:literal)*) => {$(
                    let Some(a) = few.next_few::<FOUR>() else { break 'lines };
                    acc[0] = steps::<S, M>(s, &a, &line, $at, acc[0]);
                    if C > 1 {
                        let Some(a) = other_few.next_few::<FOUR>() else { break 'lines };
                        acc[1] = steps::<S, M>(s, &a, &other, $at, acc[1]);
                    }
                )*};
            }
            four!(0 4 8 12);
        }
        for step in whole..len {
            for (chain, acc) in self.chains.iter().zip(&mut acc) {
                let mut b = [0.0; GROUP];
                for (lane, b) in b.iter_mut().enumerate() {
                    *b = chain.lines.row(lane)[step];
                }
                for a in chain.few.part(0..M, step..step + 1).across::<M, false>() {
                    *acc = add::<S, M>(s, &a, &b, *acc);
                }
            }
        }
        for (chain, acc) in self.chains.iter().zip(&acc) {
            let mut sums = [[0.0f32; GROUP]; M];
            for (vector, acc) in acc[..GROUP / <S as Lanes<f32>>::LANES].iter().enumerate() {
                for (sums, &acc) in sums.iter_mut().zip(acc) {
                    Lanes::<f32>::store(s, &mut sums[vector * <S as Lanes<f32>>::LANES..], acc);
                }
            }
            take::<S, M, GROUP, COLUMNS>(s, &sums, chain.done..GROUP, chain.to, chain.write, self.dst);
        }
    }
}

/// Asks for what lies `ahead` of a part of each line.
#[inline(always)]
fn ask_for(lines: &Chunk<'_, f32, GROUP, LINE>, ahead: isize) {
    for lane in 0..GROUP {
        prefetch_near(lines.at(lane).as_ptr().wrapping_offset(ahead));
    }
}

/// `acc` and four steps, which begin `at` elements into the part of each line. By value: sums behind a reference would go through memory with every step.
#[inline(always)]
fn steps<S: Simd, const M: usize>(
    s: S,
    few: &Few<'_, f32, M, false, FOUR>,
    lines: &Chunk<'_, f32, GROUP, LINE>,
    at: usize,
    mut acc: Sums<S, M>,
) -> Sums<S, M> {
    let mut rows = [&[0.0; FOUR]; GROUP];
    for (lane, row) in rows.iter_mut().enumerate() {
        *row = lines.at(lane)[at..].first_chunk().expect("steps of a line");
    }
    let b = s.transpose_8x4(rows);
    acc = add::<S, M>(s, &few.column(0), &b[0], acc);
    acc = add::<S, M>(s, &few.column(1), &b[1], acc);
    acc = add::<S, M>(s, &few.column(2), &b[2], acc);
    add::<S, M>(s, &few.column(3), &b[3], acc)
}

/// `acc` and a step.
#[inline(always)]
fn add<S: Simd, const M: usize>(
    s: S,
    few: &Column<'_, f32, M, false>,
    b: &[f32; GROUP],
    mut acc: Sums<S, M>,
) -> Sums<S, M> {
    for (sums, at) in acc.iter_mut().zip((0..GROUP).step_by(<S as Lanes<f32>>::LANES)) {
        let b = Lanes::<f32>::load(s, &b[at..]);
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = FloatLanes::<f32>::mul_add(s, Lanes::<f32>::splat(s, few.at(row)), b, *sum);
        }
    }
    acc
}
