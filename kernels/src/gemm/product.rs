//! A batch of float products from start to end on one thread: all loops of a matmul around the microkernels of `in_place.rs`.
//!
//! ```text
//! for each product of the batch
//!   LOOP 5: columns in blocks, as many as the kept rhs has room for
//!     LOOP 4: k in segments of KC
//!       LOOP 3: rows in blocks whose lhs stays in a second-level cache
//!         LOOP 2: columns in panels of NR
//!           LOOP 1: rows in panels of MR: one microkernel
//! ```
//!
//! Loops 3 and 4 change places where a lhs comes from afar for a few columns; loops 1 and 2 where all panels of a block of columns stay near (`along_rows.rs`). An operand that lies well is read in place. One that is read often is kept as
//! panels when it is first read, by the microkernel itself. One that cannot be read in place (rows of an rhs that do not lie side by side, another format, a window)
//! is packed panel by panel right before its first use. Short products have loops of their own (`small.rs`). None of this changes a bit. [`Blocking`] decides, from shapes and strides alone.

use crate::KC;
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::mat::{MatMut, MatRef};
use crate::pack::Side;
use crate::simd::{Lanes, Simd, Unit};

use super::blocking::{ASK_FROM, Blocking, FEW_ROWS_COLS, Kept};
use super::few_rows::{self, FEW_ROWS_STREAMED};
use super::few_transposed::FEW_TRANSPOSED;
use super::source::{Part, Source};
use super::{InPlace, Later, Real, Ukernel, Write};

/// A part of a batch of products, to be computed on one thread: `dst = epilogue(lhs rhs)`, or with `dst` added first.
#[derive(Debug)]
pub struct Product<'a, 'b, T> {
    /// The left operand of all products.
    pub lhs: &'b Source<'a, T>,
    /// The right operand.
    pub rhs: &'b Source<'a, T>,
    /// Steps of k, at least one.
    pub k: usize,
    /// The part of C.
    pub dst: MatMut<'b, T>,
    /// Whether its old values count.
    pub add: bool,
    /// What finishes a sum, if anything does.
    pub epilogue: Option<&'a Epilogue<'a, T>>,
    /// How.
    pub blocking: &'b Blocking,
    /// As much as [`Blocking::scratch`] says, for each operand.
    pub scratch: [&'b mut [T]; 2],
}

/// Columns of the next panel of `left`: `most`, but where one vector would be left over, two panels share what there is. A tile of one vector reads an element of the lhs for every
/// multiply-add. 3136 x 64 x 256 on Granite Rapids: 73 % of the peak by 48 + 16, 77 by 32 + 32.
#[inline(always)]
fn panel_width(left: usize, lanes: usize, most: usize) -> usize {
    let (vectors, most_vectors) = (left.div_ceil(lanes), most / lanes);
    if vectors == most_vectors + 1 { vectors.div_ceil(2) * lanes } else { most.min(vectors * lanes) }
}

/// Whether the next of `left` rows of a panel of the widest tile's columns make such a tile. Of what is left over the halves of the panel are computed one by one, by tiles as tall as others.
/// Fewer than four would wait for their sums.
#[inline(always)]
pub(super) fn is_widest(left: usize, rows: usize) -> bool {
    left >= rows + 4 || left == rows
}

/// Rows of the next tile of `left`: `tall`, or at most `most`, which is half of `tall` or more. Two tiles share what one does not hold: with one row, or two, sums wait for each other.
#[inline(always)]
pub(super) fn tile_rows(left: usize, tall: usize, most: usize) -> usize {
    match left {
        _ if left >= tall => tall,
        _ if left > most => left.div_ceil(2),
        _ => left,
    }
}

impl<T: Real + Unit<Acc = T>> Product<'_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa) {
        let small_k = self.blocking.small_k();
        let plain =
            self.blocking.lhs == Kept::Nothing && self.blocking.rhs == Kept::Nothing && self.k <= small_k;
        if self.dst.rows().len() <= FEW_ROWS_STREAMED && self.few_rows(s, isa) {
            return;
        }
        if self.dst.cols().len() <= FEW_TRANSPOSED && self.few_columns(isa) {
            return;
        }
        let asks_for_next =
            self.blocking.asks_for_next(self.dst.batch().len(), [self.dst.rows().len(), self.k]);
        if let (&Source::InPlace(lhs), &Source::InPlace(rhs), true) =
            (self.lhs, self.rhs, plain && !asks_for_next)
        {
            let batch = self.dst.batch();
            self.small(s, isa, batch.clone(), lhs, (rhs, batch), 0);
            return;
        }
        if self.blocking.brings && self.brought(s, isa) {
            return;
        }
        if self.blocking.one_panel && self.k <= small_k && self.one_panel(s, isa) {
            return;
        }
        for batch in self.dst.batch() {
            if self.blocking.along_rows {
                self.along_rows(s, isa, batch);
            } else {
                self.matrix(s, isa, batch, asks_for_next);
            }
        }
    }

    /// Products of so few rows that nothing is reused; false where the loops below do better or must.
    #[inline(always)]
    fn few_rows<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa) -> bool {
        let (rows, cols, m) = (self.dst.rows(), self.dst.cols(), self.dst.rows().len());
        let &Source::InPlace(lhs) = self.lhs else { return false };
        let rhs = match *self.rhs {
            Source::InPlace(rhs) if self.blocking.streams || few_rows::has_strips::<T, S>(m) => rhs,
            Source::Pack { matrices: Some(rhs), .. }
                if T::TRANSPOSES && m <= FEW_TRANSPOSED && rhs.matrix(0).transposed().has_whole_rows() =>
            {
                rhs
            }
            _ => return false,
        };
        if cols.len() < FEW_ROWS_COLS {
            return false;
        }
        for batch in self.dst.batch() {
            let lhs = lhs.matrix(batch).part(rows.clone(), 0..self.k);
            let rhs = rhs.matrix(batch).part(0..self.k, cols.clone());
            let mut band = self.dst.band(batch, rows.clone(), cols.clone());
            if self.blocking.streams {
                let from_memory = self.blocking.from_memory;
                few_rows::streamed(s, lhs, rhs, &mut band, self.add, from_memory, self.scratch[0]);
            } else if rhs.has_whole_rows() {
                few_rows::near(s, lhs, rhs, &mut band, self.add);
            } else {
                T::few_transposed::<false>(isa, lhs, rhs, &mut band, self.add);
            }
            if let Some(epilogue) = self.epilogue {
                let mut tile = self.dst.tile(batch, rows.clone(), cols.clone());
                T::finish_in_place(isa, epilogue, &mut tile);
            }
        }
        true
    }

    /// Products of a lhs whose rows lie side by side by so few columns; false where the loops below do better or must.
    #[inline(always)]
    fn few_columns(&mut self, isa: Isa) -> bool {
        let (rows, cols) = (self.dst.rows(), self.dst.cols());
        let (&Source::InPlace(lhs), Some(rhs)) = (self.lhs, self.rhs.matrices()) else { return false };
        if !T::takes_columns(lhs.matrix(0).part(rows.clone(), 0..self.k), cols.len()) {
            return false;
        }
        for batch in self.dst.batch() {
            let lhs = lhs.matrix(batch).part(rows.clone(), 0..self.k);
            let rhs = rhs.matrix(batch).part(0..self.k, cols.clone());
            T::few_transposed::<true>(
                isa,
                lhs,
                rhs,
                &mut self.dst.band(batch, rows.clone(), cols.clone()),
                self.add,
            );
            if let Some(epilogue) = self.epilogue {
                let mut tile = self.dst.tile(batch, rows.clone(), cols.clone());
                T::finish_in_place(isa, epilogue, &mut tile);
            }
        }
        true
    }

    /// One product of the batch. `asks_for_next`: for what the next one reads.
    #[inline(always)]
    fn matrix<S: Simd + InPlace<T> + Ukernel<T>>(
        &mut self,
        s: S,
        isa: Isa,
        batch: usize,
        asks_for_next: bool,
    ) {
        let Product { lhs, rhs, k: steps, dst, add, epilogue, blocking, scratch: [lhs_scratch, rhs_scratch] } =
            self;
        let (mr, nr, steps) = (<S as Ukernel<T>>::MR, <S as Ukernel<T>>::NR, *steps);
        let (rows, cols) = (dst.rows(), dst.cols());
        let [_, m, n] = dst.places().extents();
        // An operand that is kept is read in place to keep it, if it can be.
        let (lhs_here, rhs_here) = (lhs.here(batch), rhs.here(batch));
        let lhs_in_place = lhs_here.filter(|_| blocking.lhs == Kept::Nothing);
        let following = Some(batch + 1).filter(|&next| asks_for_next && next < dst.batch().end);
        let [lhs_following, rhs_following] = [&**lhs, &**rhs].map(|source| source.matrix(following?));
        const HERE: &str = "what is not kept lies in place";
        // LOOP 5: columns in blocks, as many as the kept rhs has room for.
        for jc in cols.clone().step_by(blocking.cols) {
            let block_cols = jc..cols.end.min(jc + blocking.cols);
            // LOOPS 4 and 3: k in segments of KC, rows in blocks whose lhs stays in a second-level cache; the other way round with few columns.
            let counts = [steps.div_ceil(KC), rows.len().div_ceil(blocking.rows)];
            for block in 0..counts[0] * counts[1] {
                let [segment, block] = if blocking.along_k {
                    [block % counts[0], block / counts[0]]
                } else {
                    [block / counts[1], block % counts[1]]
                };
                let first_step = segment * KC;
                let segment = first_step..steps.min(first_step + KC);
                let kc = segment.len();
                let write = if first_step > 0 || *add { Write::Add } else { Write::Replace };
                let ic = rows.start + block * blocking.rows;
                let block_rows = ic..rows.end.min(ic + blocking.rows);
                if blocking.lhs != Kept::Nothing {
                    let part = Part { side: Side::Lhs, batch, x: &block_rows, k: &segment, width: mr };
                    let len = block_rows.len().next_multiple_of(mr) * kc;
                    lhs.keep(s, isa, part, &mut lhs_scratch[..len]);
                }
                // LOOP 2: columns in panels of NR.
                let mut j = jc;
                while j < block_cols.end {
                    let [wide, widest] = <S as InPlace<T>>::widest();
                    let left_cols = (block_cols.end - j).next_multiple_of(<S as Lanes<T>>::LANES);
                    let width = match rhs_here {
                        // Panels of the lhs are as high as other tiles.
                        Some(_)
                            if left_cols == widest
                                && blocking.rhs == Kept::Nothing
                                && lhs_in_place.is_some() =>
                        {
                            widest
                        }
                        Some(_) => panel_width(left_cols, <S as Lanes<T>>::LANES, nr),
                        None => nr,
                    };
                    let panel_cols = j..block_cols.end.min(j + width);
                    let rhs_at = match blocking.rhs {
                        _ if blocking.along_k => nr * first_step,
                        Kept::Block => (j - jc) * kc,
                        _ => 0,
                    };
                    let rhs_kept = rhs_at..rhs_at + width * kc;
                    let rhs_first = blocking.rhs == Kept::Panel || ic == rows.start;
                    // The first microkernel keeps the panel, if panel and microkernel are full ones.
                    let copies = rhs_here.is_some() && panel_cols.len() == nr && block_rows.len() >= mr;
                    if rhs_first && blocking.rhs != Kept::Nothing && !copies {
                        let part = Part { side: Side::Rhs, batch, x: &panel_cols, k: &segment, width };
                        rhs.keep(s, isa, part, &mut rhs_scratch[rhs_kept.clone()]);
                    }
                    let tall = match lhs_in_place {
                        _ if width > nr => wide,
                        Some(_) if blocking.tall => <S as InPlace<T>>::tall(panel_cols.len()),
                        _ => mr,
                    };
                    let tiles = block_rows.len().div_ceil(tall);
                    // The panel of the rhs that is read next, if it comes from afar: in place, or one that was kept before.
                    let next_cols = panel_cols.end..block_cols.end.min(panel_cols.end + nr);
                    let reads_rhs = blocking.rhs == Kept::Nothing || rhs_first;
                    let kept_to = if blocking.rhs == Kept::Nothing { 0 } else { rhs_kept.end };
                    let (kept, kept_next) = rhs_scratch.split_at_mut(kept_to);
                    let asks = blocking.far[1] && (blocking.from_memory || tiles >= ASK_FROM);
                    let next = if !asks || next_cols.is_empty() {
                        None
                    } else if let Some(rhs) = rhs_here.filter(|_| reads_rhs) {
                        Some(rhs.part(segment.clone(), next_cols))
                    } else if blocking.rhs == Kept::Block && !rhs_first {
                        Some(MatRef::row_major(kept_next, kc, width.min(kept_next.len() / kc)))
                    } else if tiles > 1 && blocking.from_memory {
                        rhs.packed(batch, n, steps, &segment, next_cols.start / nr, nr)
                    } else {
                        // Panels packed before lie one behind the other, which the processor foresees: 1 x 2304 x 768 on Zen 5 20 % of the peak, asked for 12 %.
                        None
                    };
                    let reads_lhs = blocking.far[0] && j == jc && !blocking.along_k;
                    // LOOP 1: rows in panels of MR.
                    let (mut tile, mut i) = (0, block_rows.start);
                    while i < block_rows.end {
                        let left = block_rows.end - i;
                        let (height, cut) = match left {
                            _ if width > nr && is_widest(left, wide) => (wide, width),
                            _ if width > nr => (tile_rows(left, 2 * mr, mr), width / 2),
                            _ if lhs_in_place.is_some() => (tile_rows(left, tall, mr), width),
                            _ => (left.min(mr), width),
                        };
                        let panel_rows = i..i + height;
                        let next_rows = panel_rows.end..rows.end.min(panel_rows.end + mr);
                        // What is left over makes more tiles than the last of `tiles`.
                        let share = tile.min(tiles)..(tile + 1).min(tiles);
                        let of = |extent: usize| share.start * extent / tiles..share.end * extent / tiles;
                        tile += 1;
                        let keeps = copies && rhs_first && i == ic && blocking.rhs != Kept::Nothing;
                        let in_place = keeps || blocking.rhs == Kept::Nothing;
                        let later = Later {
                            near: !in_place || !blocking.far[1],
                            from_memory: blocking.from_memory && !matches!(rhs, Source::Panels { .. })
                                || rhs_following.is_some(),
                            lhs: if reads_lhs {
                                lhs_in_place.map(|lhs| lhs.part(next_rows, segment.clone()))
                            } else {
                                let following = lhs_following.filter(|_| j == jc);
                                following.map(|lhs| lhs.part(panel_rows.clone(), segment.clone()))
                            },
                            // Every tile asks for a share.
                            rhs: match (next, rhs_following) {
                                (Some(rhs), _) => Some(rhs.part(of(kc), 0..rhs.cols())),
                                (None, Some(rhs)) if rhs.has_whole_rows() => {
                                    let rhs = rhs.part(segment.clone(), panel_cols.clone());
                                    Some(rhs.part(of(kc), 0..rhs.cols()))
                                }
                                (None, Some(rhs)) => {
                                    let rhs = rhs.part(segment.clone(), panel_cols.clone()).transposed();
                                    Some(rhs.part(of(rhs.rows()), 0..kc))
                                }
                                (None, None) => None,
                            },
                        };
                        let a = if let Some(lhs) = lhs_in_place {
                            lhs.part(panel_rows.clone(), segment.clone())
                        } else {
                            let panel = lhs
                                .packed(batch, m, steps, &segment, i / mr, mr)
                                .unwrap_or_else(|| MatRef::row_major(&lhs_scratch[(i - ic) * kc..], kc, mr));
                            panel.part(0..kc, 0..panel_rows.len()).transposed()
                        };
                        i = panel_rows.end;
                        let mut band = dst.band(batch, panel_rows.clone(), panel_cols.clone());
                        let here = || rhs_here.expect(HERE).part(segment.clone(), panel_cols.clone());
                        let (b, keep) = match rhs.packed(batch, n, steps, &segment, j / nr, nr) {
                            Some(b) => (b, None),
                            None if blocking.rhs == Kept::Nothing => (here(), None),
                            None if keeps => (here(), Some(&mut kept[rhs_kept.clone()])),
                            None => (MatRef::row_major(&kept[rhs_kept.clone()], kc, width), None),
                        };
                        if cut < panel_cols.len() {
                            let halves = [0..cut, cut..panel_cols.len()];
                            for cols in halves {
                                let (b, mut band) = (b.part(0..kc, cols.clone()), band.part(0..height, cols));
                                s.in_place(a, b, &mut band, write, None, later);
                            }
                            continue;
                        }
                        s.in_place(a, b, &mut band, write, keep, later);
                    }
                    if let Some(epilogue) = epilogue.filter(|_| segment.end == steps) {
                        let mut tile = dst.tile(batch, block_rows.clone(), panel_cols);
                        T::finish_in_place(isa, epilogue, &mut tile);
                    }
                    j += width;
                }
            }
        }
    }
}
