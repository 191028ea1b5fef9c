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
//! Loops 3 and 4 change places where a lhs comes from afar for a few columns. An operand that lies well is read in place. One that is read often is kept as
//! panels when it is first read, by the microkernel itself. One that cannot be read in place (rows of an rhs that do not lie side by side, another format, a window)
//! is packed panel by panel right before its first use. None of this changes a bit. [`Blocking`] decides, from shapes and strides alone.

use std::ops::Range;

use crate::KC;
use crate::axis::{Axis, Window};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::mat::{MatMut, MatRef, Matrices};
use crate::pack::{Operand, Side, pack};
use crate::simd::{FloatLanes, Lanes, Simd, Unit};

use super::blocking::{ASK_FROM, Blocking, FEW_ROWS_COLS, Kept, SMALL_K, SMALL_NEAR_K};
use super::few_rows::{self, FEW_ROWS_STREAMED};
use super::few_rows_transposed::FEW_ROWS_TRANSPOSED;
use super::{InPlace, Later, Real, Ukernel, Write};

/// One operand of a [`Product`].
#[derive(Clone, Copy, Debug)]
pub enum Source<'a, T> {
    /// Elements where they lie: of an lhs m x k, of an rhs k x n.
    InPlace(Matrices<'a, T>),
    /// What must be packed: x by k through a window.
    Pack {
        /// Where the elements of product 0 lie, from `start` on.
        window: &'a Window,
        /// Added to every offset.
        start: isize,
        /// How far from there the other products are.
        batch: &'a Axis,
        /// The elements.
        operand: Operand<'a>,
        /// The same as matrices, where they are floats of the product's own format with one stride an index.
        matrices: Option<Matrices<'a, T>>,
    },
    /// Panels packed before: `[product][segment][panel][k][lane]`.
    Panels {
        /// All of them.
        panels: &'a [T],
        /// Which product of them each product reads.
        batch: Axis,
    },
}

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
    pub blocking: Blocking,
    /// As much as [`Blocking::scratch`] says, for each operand.
    pub scratch: [&'b mut [T]; 2],
}

impl<'a, T: Real> Source<'a, T> {
    #[inline(always)]
    fn here(&self, batch: usize) -> Option<MatRef<'a, T>> {
        match self {
            Source::InPlace(matrices) => Some(matrices.matrix(batch)),
            _ => None,
        }
    }

    /// Panel `panel` of `width` of `extent` lanes over a segment of `steps`, of panels packed before; a row is a step of k.
    #[inline(always)]
    fn packed(
        &self,
        batch: usize,
        extent: usize,
        steps: usize,
        k: &Range<usize>,
        panel: usize,
        width: usize,
    ) -> Option<MatRef<'a, T>> {
        let Source::Panels { panels, batch: index } = self else { return None };
        let padded = extent.next_multiple_of(width);
        let at = index.offset(batch) as usize * padded * steps + padded * k.start + panel * width * k.len();
        Some(MatRef::row_major(&panels[at..], k.len(), width))
    }

    /// Makes the kept panels of lanes `x` over a segment: `[panel][k][lane]`.
    #[inline(always)]
    fn keep<S: Simd + FloatLanes<T>>(&self, s: S, isa: Isa, part: Part<'_>, out: &mut [T]) {
        let Part { side, batch, x, k, width } = part;
        match *self {
            Source::Pack { window, start, batch: index, operand, .. } => {
                let window = Window { start: window.start + start + index.offset(batch), ..*window };
                let out = bytemuck::cast_slice_mut(out);
                pack(isa, T::FORM, side, &window, operand, x.clone(), k.clone(), width, out);
            }
            Source::InPlace(matrices) => {
                let matrix = matrices.matrix(batch);
                let down =
                    if side == Side::Lhs { matrix.transposed() } else { matrix }.part(k.clone(), x.clone());
                if down.has_whole_rows() {
                    // Step by step through all panels: rows are read as they lie.
                    for (step, row) in down.down().enumerate() {
                        down.prefetch_row(step + STEPS_AHEAD);
                        for (panel, lanes) in row.chunks(width).enumerate() {
                            let to = &mut out[panel * width * k.len() + step * width..][..width];
                            for at in (0..width).step_by(<S as Lanes<T>>::LANES) {
                                let (n, room) = (
                                    lanes.len().saturating_sub(at).min(<S as Lanes<T>>::LANES),
                                    <S as Lanes<T>>::LANES.min(width - at),
                                );
                                let v = s.load_first_n(&lanes[at.min(lanes.len())..], n);
                                s.store_first_n(&mut to[at..], room, v);
                            }
                        }
                    }
                    return;
                }
                for (panel, out) in out.chunks_exact_mut(width * k.len()).enumerate() {
                    let lanes = panel * width..down.cols().min((panel + 1) * width);
                    let along = down.transposed().part(lanes.clone(), 0..k.len());
                    if width == 8 && lanes.len() == 8 && along.has_whole_rows() {
                        turn_rows::<T, S>(s, along, out);
                        continue;
                    }
                    for (step, lanes) in out.chunks_exact_mut(width).enumerate() {
                        for (x, value) in (panel * width..).zip(lanes) {
                            *value = if x < down.cols() { down.at(step, x) } else { T::zero() };
                        }
                    }
                }
            }
            Source::Panels { .. } => {}
        }
    }
}

/// Eight rows as a panel `[k][8]`.
#[inline(always)]
fn turn_rows<T: Real, S: Simd>(s: S, rows: MatRef<'_, T>, panel: &mut [T]) {
    let steps = rows.cols();
    let whole = steps / 8 * 8;
    let at: [&[T]; 8] = [
        rows.row(0),
        rows.row(1),
        rows.row(2),
        rows.row(3),
        rows.row(4),
        rows.row(5),
        rows.row(6),
        rows.row(7),
    ];
    let (turned, rest) = panel[..steps * 8].split_at_mut(whole * 8);
    for (block, out) in turned.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let mut lines = [[T::zero(); 8]; 8];
        for (line, row) in lines.iter_mut().zip(&at) {
            line.copy_from_slice(&row[block * 8..][..8]);
        }
        let lines = T::transpose(s, lines);
        for (to, line) in out.as_chunks_mut::<8>().0.iter_mut().zip(&lines) {
            *to = *line;
        }
    }
    for (step, lanes) in rest.chunks_exact_mut(8).enumerate() {
        for (to, row) in lanes.iter_mut().zip(&at) {
            *to = row[whole + step];
        }
    }
}

/// Columns in as few panels of at most `most` as hold them, of as many vectors each as the others or one more.
#[inline(always)]
fn evenly(cols: Range<usize>, lanes: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (vectors, panels) = (cols.len().div_ceil(lanes), cols.len().div_ceil(most));
    let from = move |panel: usize| cols.end.min(cols.start + (panel * vectors).div_ceil(panels) * lanes);
    (0..panels).map(move |panel| from(panel)..from(panel + 1))
}

/// Columns of the next panel of `left`: `most`, but where one vector would be left over, two panels share what there is. A tile of one vector reads an element of the lhs for every
/// multiply-add. 3136 x 64 x 256 on Granite Rapids: 73 % of the peak by 48 + 16, 77 by 32 + 32.
#[inline(always)]
fn panel_width(left: usize, lanes: usize, most: usize) -> usize {
    let (vectors, most_vectors) = (left.div_ceil(lanes), most / lanes);
    if vectors == most_vectors + 1 { vectors.div_ceil(2) * lanes } else { most.min(vectors * lanes) }
}

/// Rows that are asked for before they are copied.
const STEPS_AHEAD: usize = 16;

/// What is kept: lanes over a segment, in panels of a width.
struct Part<'r> {
    side: Side,
    batch: usize,
    x: &'r Range<usize>,
    k: &'r Range<usize>,
    width: usize,
}

impl<T: Real + Unit<Acc = T>> Product<'_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa) {
        let small_k = if self.blocking.far == [false; 2] { SMALL_NEAR_K } else { SMALL_K };
        let plain =
            self.blocking.lhs == Kept::Nothing && self.blocking.rhs == Kept::Nothing && self.k <= small_k;
        if self.dst.rows().len() <= FEW_ROWS_STREAMED && self.few_rows(s, isa) {
            return;
        }
        if let (&Source::InPlace(lhs), &Source::InPlace(rhs), true) = (self.lhs, self.rhs, plain) {
            self.small(s, isa, lhs, rhs);
            return;
        }
        for batch in self.dst.batch() {
            if self.blocking.along_rows {
                self.along_rows(s, isa, batch);
            } else {
                self.matrix(s, isa, batch);
            }
        }
    }

    /// The loops of a product that is read in place over a short k: it should not pay for more.
    #[inline(always)]
    fn small<S: InPlace<T> + Ukernel<T>>(
        &mut self,
        s: S,
        isa: Isa,
        lhs: Matrices<'_, T>,
        rhs: Matrices<'_, T>,
    ) {
        let nr = <S as Ukernel<T>>::NR;
        let (rows, cols) = (self.dst.rows(), self.dst.cols());
        // As many products at a time as stay in a first-level cache until their last tile.
        let at_a_time = self.blocking.products;
        let all = self.dst.batch();
        let mut first = all.start;
        while first < all.end {
            let batch = first..all.end.min(first + at_a_time);
            for panel_cols in evenly(cols.clone(), <S as Lanes<T>>::LANES, nr) {
                self.column(s, lhs, rhs, batch.clone(), rows.clone(), panel_cols);
            }
            if let Some(epilogue) = self.epilogue {
                for product in batch.clone() {
                    let mut tile = self.dst.tile(product, rows.clone(), cols.clone());
                    T::finish_in_place(isa, epilogue, &mut tile);
                }
            }
            first = batch.end;
        }
    }

    /// A panel of columns of small products: tiles as tall as there are, then lower ones.
    #[inline(always)]
    fn column<S: InPlace<T> + Ukernel<T>>(
        &mut self,
        s: S,
        lhs: Matrices<'_, T>,
        rhs: Matrices<'_, T>,
        batch: Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let write = if self.add { Write::Add } else { Write::Replace };
        let b = |batch| rhs.parts(batch, 0..self.k, cols.clone());
        let mut i = rows.start;
        while i < rows.end {
            let left = rows.end - i;
            let [tall, most] = [S::tall(cols.len()), <S as Ukernel<T>>::MR];
            let m = if left >= tall { tall } else { left.min(most) };
            let tiles = i..i + left / m * m;
            let a = lhs.parts(batch.clone(), tiles.clone(), 0..self.k);
            i = tiles.end;
            let bands = self.dst.bands(batch.clone(), tiles, cols.clone());
            s.in_place_batch(a, b(batch.clone()), bands, [m, cols.len()], write);
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
                if T::TRANSPOSES
                    && m <= FEW_ROWS_TRANSPOSED
                    && rhs.matrix(0).transposed().has_whole_rows() =>
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
                few_rows::streamed(s, lhs, rhs, &mut band, self.add, self.scratch[0]);
            } else if rhs.has_whole_rows() {
                few_rows::near(s, lhs, rhs, &mut band, self.add);
            } else {
                T::few_rows_transposed(isa, lhs, rhs, &mut band, self.add);
            }
            if let Some(epilogue) = self.epilogue {
                let mut tile = self.dst.tile(batch, rows.clone(), cols.clone());
                T::finish_in_place(isa, epilogue, &mut tile);
            }
        }
        true
    }

    /// The loops with those over tiles the other way round: MR rows of the lhs, which stay in the first-level cache, meet all panels of a block of columns, which stay in the second.
    /// The result is written along its rows, in long runs.
    #[inline(always)]
    fn along_rows<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa, batch: usize) {
        let Product { lhs, rhs, k: steps, dst, add, epilogue, blocking, scratch: [lhs_scratch, rhs_scratch] } =
            self;
        let (mr, nr, steps) = (<S as Ukernel<T>>::MR, <S as Ukernel<T>>::NR, *steps);
        let (rows, cols) = (dst.rows(), dst.cols());
        let [_, m, n] = dst.places().extents();
        let (lhs_here, rhs_here) = (lhs.here(batch), rhs.here(batch));
        let lhs_in_place = lhs_here.filter(|_| blocking.lhs == Kept::Nothing);
        for jc in cols.clone().step_by(blocking.cols) {
            let block_cols = jc..cols.end.min(jc + blocking.cols);
            // Columns of whole panels.
            let whole = block_cols.len() / nr * nr;
            for first_step in (0..steps).step_by(KC) {
                let segment = first_step..steps.min(first_step + KC);
                let kc = segment.len();
                let write = if first_step > 0 || *add { Write::Add } else { Write::Replace };
                for ic in rows.clone().step_by(blocking.rows) {
                    let block_rows = ic..rows.end.min(ic + blocking.rows);
                    if blocking.lhs != Kept::Nothing {
                        let part = Part { side: Side::Lhs, batch, x: &block_rows, k: &segment, width: mr };
                        let len = block_rows.len().next_multiple_of(mr) * kc;
                        lhs.keep(s, isa, part, &mut lhs_scratch[..len]);
                    }
                    for i in block_rows.clone().step_by(mr) {
                        let tile_rows = i..block_rows.end.min(i + mr);
                        let tall = tile_rows.len() == mr;
                        let a = if let Some(lhs) = lhs_in_place {
                            lhs.part(tile_rows.clone(), segment.clone())
                        } else {
                            let panel = lhs
                                .packed(batch, m, steps, &segment, i / mr, mr)
                                .unwrap_or_else(|| MatRef::row_major(&lhs_scratch[(i - ic) * kc..], kc, mr));
                            panel.part(0..kc, 0..tile_rows.len()).transposed()
                        };
                        let mut band = dst.band(batch, tile_rows.clone(), block_cols.clone());
                        let mut from = 0;
                        if i == rows.start && !matches!(rhs, Source::Panels { .. }) {
                            // The first rows keep the panels, where they can read them in place.
                            let kept = &mut rhs_scratch[..block_cols.len().next_multiple_of(nr) * kc];
                            if let Some(rhs) = rhs_here.filter(|_| tall) {
                                let place = |j| rhs.part(segment.clone(), jc + j..jc + j + nr);
                                while from < whole {
                                    let next = (from + nr < whole).then(|| place(from + nr));
                                    let mut tile = band.part(0..mr, from..from + nr);
                                    let keep = Some(&mut kept[from * kc..(from + nr) * kc]);
                                    let later =
                                        Later { near: false, lhs: None, rhs: next, from_memory: false };
                                    s.in_place(a, place(from), &mut tile, write, keep, later);
                                    from += nr;
                                }
                            }
                            let x = &(jc + from..block_cols.end);
                            let part = Part { side: Side::Rhs, batch, x, k: &segment, width: nr };
                            rhs.keep(s, isa, part, &mut kept[from * kc..]);
                        }
                        let panels = if let &Source::Panels { panels, batch: index } = *rhs {
                            let padded = n.next_multiple_of(nr);
                            let product = index.offset(batch) as usize * padded * steps;
                            &panels[product + padded * first_step + jc * kc..]
                        } else {
                            &*rhs_scratch
                        };
                        if tall && from < whole {
                            let next = tile_rows.end..rows.end.min(tile_rows.end + mr);
                            let next = lhs_in_place.map(|lhs| lhs.part(next, segment.clone()));
                            let mut tiles = band.part(0..mr, from..whole);
                            s.along_panels(a, &panels[from * kc..], &mut tiles, write, next);
                            from = whole;
                        }
                        for j in (from..block_cols.len()).step_by(nr) {
                            let b = MatRef::row_major(&panels[j * kc..], kc, nr);
                            let mut tile = band.part(0..tile_rows.len(), j..block_cols.len().min(j + nr));
                            let later = Later { near: true, lhs: None, rhs: None, from_memory: false };
                            s.in_place(a, b, &mut tile, write, None, later);
                        }
                        if let Some(epilogue) = epilogue.filter(|_| segment.end == steps) {
                            let mut tile = dst.tile(batch, tile_rows, block_cols.clone());
                            T::finish_in_place(isa, epilogue, &mut tile);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn matrix<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa, batch: usize) {
        let Product { lhs, rhs, k: steps, dst, add, epilogue, blocking, scratch: [lhs_scratch, rhs_scratch] } =
            self;
        let (mr, nr, steps) = (<S as Ukernel<T>>::MR, <S as Ukernel<T>>::NR, *steps);
        let (rows, cols) = (dst.rows(), dst.cols());
        let [_, m, n] = dst.places().extents();
        // An operand that is kept is read in place to keep it, if it can be.
        let (lhs_here, rhs_here) = (lhs.here(batch), rhs.here(batch));
        let lhs_in_place = lhs_here.filter(|_| blocking.lhs == Kept::Nothing);
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
                    let width = if rhs_here.is_some() {
                        panel_width(block_cols.end - j, <S as Lanes<T>>::LANES, nr)
                    } else {
                        nr
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
                    let tall = if lhs_in_place.is_some() && blocking.tall {
                        <S as InPlace<T>>::tall(panel_cols.len())
                    } else {
                        mr
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
                        let panel_rows = i..i + if left >= tall { tall } else { left.min(mr) };
                        let next_rows = panel_rows.end..rows.end.min(panel_rows.end + mr);
                        // What is left over makes more tiles than the last of `tiles`.
                        let share = tile.min(tiles)..(tile + 1).min(tiles);
                        tile += 1;
                        let keeps = copies && rhs_first && i == ic && blocking.rhs != Kept::Nothing;
                        let in_place = keeps || blocking.rhs == Kept::Nothing;
                        let later = Later {
                            near: !in_place || !blocking.far[1],
                            from_memory: blocking.from_memory && !matches!(rhs, Source::Panels { .. }),
                            lhs: lhs_in_place
                                .filter(|_| reads_lhs)
                                .map(|lhs| lhs.part(next_rows, segment.clone())),
                            // Every tile asks for a share.
                            rhs: next.map(|rhs| {
                                rhs.part(share.start * kc / tiles..share.end * kc / tiles, 0..rhs.cols())
                            }),
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
                        let mut band = dst.band(batch, panel_rows, panel_cols.clone());
                        let here = || rhs_here.expect(HERE).part(segment.clone(), panel_cols.clone());
                        let (b, keep) = match rhs.packed(batch, n, steps, &segment, j / nr, nr) {
                            Some(b) => (b, None),
                            None if blocking.rhs == Kept::Nothing => (here(), None),
                            None if keeps => (here(), Some(&mut kept[rhs_kept.clone()])),
                            None => (MatRef::row_major(&kept[rhs_kept.clone()], kc, width), None),
                        };
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

#[cfg(test)]
mod tests {
    use super::super::blocking::Lies;
    use super::*;
    use crate::mat::{MatSpec, Places};

    /// `lhs rhs` with the lhs read in place, or kept.
    fn product<T: Real>(isa: Isa, [m, n, k]: [usize; 3], data: [&[T]; 2], keeps: bool) -> Vec<T> {
        let row_major = |rows: usize, cols: usize, stride: usize| {
            let (rows, cols) = (Axis::strided(rows, stride as isize), Axis::strided(cols, 1));
            Places::new(MatSpec { start: 0, batch: Axis::strided(1, 0), rows, cols })
        };
        let [lhs_places, rhs_places, dst_places] =
            [row_major(m, k, k + 3), row_major(k, n, n), row_major(m, n, n)];
        let [lhs, rhs] = [(data[0], &lhs_places), (data[1], &rhs_places)]
            .map(|(data, places)| Source::InPlace(Matrices::new(data, 0, places).expect("in bounds")));
        let mut out = vec![T::zero(); m * n];
        let kernel =
            crate::registry::kernels_of(isa).find(|kernel| kernel.form == T::FORM).expect("a kernel");
        let (mr, nr) = (kernel.mr, kernel.nr);
        let (lhs_lies, rhs_lies) = (Lies::Strided([k as isize + 3, 1]), Lies::Strided([1, n as isize]));
        let mut blocking = Blocking::new([m, n, k], size_of::<T>(), [mr, nr], lhs_lies, rhs_lies);
        if keeps {
            blocking.lhs = Kept::Block;
            blocking.scratch[0] = m.min(blocking.rows).next_multiple_of(mr) * KC;
        }
        let mut scratch = blocking.scratch().map(|elements| vec![T::zero(); elements]);
        let [lhs_scratch, rhs_scratch] = &mut scratch;
        let dst = MatMut::new(&mut out, 0, &dst_places).expect("no two elements share a place");
        let scratch = [&mut lhs_scratch[..], &mut rhs_scratch[..]];
        let (lhs, rhs) = (&lhs, &rhs);
        T::product(isa, &mut Product { lhs, rhs, k, dst, add: false, epilogue: None, blocking, scratch });
        out
    }

    #[test]
    fn a_kept_lhs_gives_what_one_in_place_gives() {
        fn check<T: Real>(of: impl Fn(usize) -> T) {
            for shape @ [m, n, k] in [[29, 100, KC + 13], [16, 48, 24], [8, 7, 9], [203, 20, KC]] {
                let data: Vec<T> = (0..(m * (k + 3)).max(k * n)).map(&of).collect();
                for isa in Isa::available() {
                    let [in_place, kept] =
                        [false, true].map(|keeps| product(isa, shape, [&data, &data], keeps));
                    let [in_place, kept]: [&[u8]; 2] =
                        [bytemuck::cast_slice(&in_place), bytemuck::cast_slice(&kept)];
                    assert!(in_place == kept, "{shape:?} on {isa}");
                }
            }
        }
        check(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5);
        check(|i| ((i * 7919) % 1009) as f64 / 1009.0 - 0.5);
    }
}
