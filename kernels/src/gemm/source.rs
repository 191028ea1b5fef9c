//! The operands of a [`Product`](super::Product): where they lie, and how what is read often is kept as panels.

use std::ops::Range;

use crate::axis::{Axis, Window};
use crate::isa::Isa;
use crate::mat::{MatRef, Matrices};
use crate::pack::{Operand, Side, pack};
use crate::simd::{FloatLanes, Lanes, Simd};

use super::Real;

/// One operand of a [`Product`](super::Product).
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

/// What is kept: lanes over a segment, in panels of a width.
pub(super) struct Part<'r> {
    pub(super) side: Side,
    pub(super) batch: usize,
    pub(super) x: &'r Range<usize>,
    pub(super) k: &'r Range<usize>,
    pub(super) width: usize,
}

/// Panels that rows are copied to at once: those of a segment of 512 steps begin 16 KiB apart, in one set of the first-level cache. Zen 5, 1024 x 196 x 512 `tn` 79.5, 81 and 57.5 % of the peak by 4, 8 and 32.
const PANELS_AT_A_TIME: usize = 8;
/// Rows that are asked for before they are copied.
const STEPS_AHEAD: usize = 16;

impl<'a, T: Real> Source<'a, T> {
    #[inline(always)]
    pub(super) fn here(&self, batch: usize) -> Option<MatRef<'a, T>> {
        match self {
            Source::InPlace(matrices) => Some(matrices.matrix(batch)),
            _ => None,
        }
    }

    /// Its matrices where they lie, whether they are read there or packed.
    #[inline(always)]
    pub(super) fn matrices(&self) -> Option<Matrices<'a, T>> {
        match self {
            Source::InPlace(matrices) | Source::Pack { matrices: Some(matrices), .. } => Some(*matrices),
            _ => None,
        }
    }

    /// Product `batch` of it where it lies, whether it is read there or packed.
    #[inline(always)]
    pub(super) fn matrix(&self, batch: usize) -> Option<MatRef<'a, T>> {
        self.matrices().map(|matrices| matrices.matrix(batch))
    }

    /// Panel `panel` of `width` of `extent` lanes over a segment of `steps`, of panels packed before; a row is a step of k.
    #[inline(always)]
    pub(super) fn packed(
        &self,
        batch: usize,
        extent: usize,
        steps: usize,
        k: &Range<usize>,
        panel: usize,
        width: usize,
    ) -> Option<MatRef<'a, T>> {
        let elements = self.packed_elements(batch, extent, steps, k, panel, width)?;
        Some(MatRef::row_major(elements, k.len(), width))
    }

    /// The elements of [`Source::packed`].
    #[inline(always)]
    pub(super) fn packed_elements(
        &self,
        batch: usize,
        extent: usize,
        steps: usize,
        k: &Range<usize>,
        panel: usize,
        width: usize,
    ) -> Option<&'a [T]> {
        let Source::Panels { panels, batch: index } = self else { return None };
        let padded = extent.next_multiple_of(width);
        let at = index.offset(batch) as usize * padded * steps + padded * k.start + panel * width * k.len();
        Some(&panels[at..at + width * k.len()])
    }

    /// Makes the kept panels of lanes `x` over a segment: `[panel][k][lane]`.
    #[inline(always)]
    pub(super) fn keep<S: Simd + FloatLanes<T>>(&self, s: S, isa: Isa, part: Part<'_>, out: &mut [T]) {
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
                    return copy_rows(s, down, width, out);
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

/// Rows, a step of k each, as panels `[panel][k][width]`: step by step through some panels, for rows are read as they lie.
#[inline(always)]
fn copy_rows<T: Real, S: FloatLanes<T>>(s: S, rows: MatRef<'_, T>, width: usize, out: &mut [T]) {
    let (steps, lanes) = (rows.rows(), <S as Lanes<T>>::LANES);
    let together = PANELS_AT_A_TIME * width;
    for (first, out) in (0..rows.cols()).step_by(together).zip(out.chunks_mut(together * steps)) {
        let rows = rows.part(0..steps, first..rows.cols().min(first + together));
        for (step, row) in rows.down().enumerate() {
            rows.prefetch_row(step + STEPS_AHEAD);
            if let (8, (eights, [])) = (width, row.as_chunks::<8>()) {
                let mut at = step * 8;
                for eight in eights {
                    out[at..at + 8].copy_from_slice(eight);
                    at += 8 * steps;
                }
                continue;
            }
            for (panel, row) in row.chunks(width).enumerate() {
                let to = &mut out[(panel * steps + step) * width..][..width];
                for at in (0..width).step_by(lanes) {
                    let (n, room) = (row.len().saturating_sub(at).min(lanes), lanes.min(width - at));
                    let v = s.load_first_n(&row[at.min(row.len())..], n);
                    s.store_first_n(&mut to[at..], room, v);
                }
            }
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
