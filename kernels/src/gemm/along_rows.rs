//! Loops of a product whose inner ones go along the rows of the result.
//!
//! ```text
//! for columns in blocks whose panels stay in a second-level cache
//!   for k in segments of KC
//!     for rows in panels of MR, whose lhs stays in the first-level cache
//!       for the columns in panels of NR: one microkernel
//! ```
//!
//! [`Blocking`](super::Blocking) says where.

use crate::KC;
use crate::isa::Isa;
use crate::mat::MatRef;
use crate::pack::Side;
use crate::simd::{Simd, Unit};

use super::blocking::Kept;
use super::source::{Part, Source};
use super::{InPlace, Later, Product, Real, Ukernel, Write};

impl<T: Real + Unit<Acc = T>> Product<'_, '_, T> {
    /// One product of the batch.
    #[inline(always)]
    pub(super) fn along_rows<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa, batch: usize) {
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
                            &rhs_scratch[..]
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
}
