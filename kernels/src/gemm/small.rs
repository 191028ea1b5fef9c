//! Float products over a short k: tiles one below the other, with no more around them than they need.
//!
//! ```text
//! for some products of the batch, as many as stay in a first-level cache
//!   for each panel of columns
//!     for each height of tiles: all of them, one product after the other
//! ```
//!
//! Operands are read where they lie. An rhs of one panel that does not lie so is brought to one first.

use std::ops::Range;

use crate::axis::Axis;
use crate::isa::Isa;
use crate::mat::{MatSpec, Matrices, Places};
use crate::pack::Side;
use crate::simd::{Lanes, Simd, Unit};

use super::product::{is_widest, tile_rows};
use super::source::{Part, Source};
use super::{InPlace, Product, Real, Ukernel, Write};

/// Columns in as few panels of at most `most` as hold them, of as many vectors each as the others or one more.
#[inline(always)]
fn evenly(cols: Range<usize>, lanes: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let vectors = cols.len().div_ceil(lanes);
    let panels = if cols.len() <= most { 1 } else { cols.len().div_ceil(most) };
    let from = move |panel: usize| match panel {
        // A single panel pays for no division.
        0 => cols.start,
        _ if panel == panels => cols.end,
        _ => cols.start + (panel * vectors).div_ceil(panels) * lanes,
    };
    (0..panels).map(move |panel| from(panel)..from(panel + 1))
}

impl<T: Real + Unit<Acc = T>> Product<'_, '_, T> {
    /// Products by an rhs of one panel that cannot be read in place: it is brought to one, which can. False if one is read where it lies.
    #[inline(always)]
    pub(super) fn one_panel<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa) -> bool {
        let &Source::InPlace(lhs) = self.lhs else { return false };
        let (nr, [_, widest]) = (<S as Ukernel<T>>::NR, <S as InPlace<T>>::widest());
        let (cols, k) = (self.dst.cols(), self.k);
        let [_, _, all] = self.dst.places().extents();
        let width = if cols.len() <= nr { nr } else { widest };
        let fits = match self.rhs {
            Source::InPlace(_) => false,
            Source::Pack { .. } => cols.len() <= width,
            Source::Panels { .. } => cols.len() <= nr,
        };
        if !fits {
            return false;
        }
        let axis = |extent, stride: usize| Axis::strided(extent, stride as isize);
        // Every product of the batch has its rhs there in turn.
        let places = Places::new(MatSpec {
            start: 0,
            batch: axis(self.dst.batch().end, 0),
            rows: axis(k, width),
            cols: axis(cols.len(), 1),
        });
        let scratch = std::mem::take(&mut self.scratch[1]);
        for batch in self.dst.batch() {
            let panel = match self.rhs.packed_elements(batch, all, k, &(0..k), cols.start / nr, nr) {
                Some(panel) => panel,
                None => {
                    let part = Part { side: Side::Rhs, batch, x: &cols, k: &(0..k), width };
                    self.rhs.keep(s, isa, part, &mut scratch[..width * k]);
                    &scratch[..width * k]
                }
            };
            let rhs = Matrices::new(panel, 0, &places).expect("a panel has so many places");
            self.small(s, isa, batch..batch + 1, lhs, (rhs, cols.start));
        }
        self.scratch[1] = scratch;
        true
    }

    /// The loops of some products that are read in place over a short k: they should not pay for more. The rhs begins at a column of the result.
    #[inline(always)]
    pub(super) fn small<S: InPlace<T> + Ukernel<T>>(
        &mut self,
        s: S,
        isa: Isa,
        all: Range<usize>,
        lhs: Matrices<'_, T>,
        rhs: (Matrices<'_, T>, usize),
    ) {
        let (nr, lanes, [wide, widest]) = (<S as Ukernel<T>>::NR, <S as Lanes<T>>::LANES, S::widest());
        let (rows, cols) = (self.dst.rows(), self.dst.cols());
        let nr = if cols.len().next_multiple_of(lanes) == widest { widest } else { nr };
        // As many products at a time as stay in a first-level cache until their last tile.
        let at_a_time = self.blocking.products;
        let mut first = all.start;
        while first < all.end {
            let batch = first..all.end.min(first + at_a_time);
            for panel_cols in evenly(cols.clone(), lanes, nr) {
                if panel_cols.len() <= <S as Ukernel<T>>::NR {
                    self.column(s, lhs, rhs, batch.clone(), rows.clone(), panel_cols);
                    continue;
                }
                let mut end = rows.start;
                while is_widest(rows.end - end, wide) {
                    end += wide;
                }
                let half = panel_cols.start + widest / 2;
                for (rows, cols) in [
                    (rows.start..end, panel_cols.clone()),
                    (end..rows.end, panel_cols.start..half),
                    (end..rows.end, half..panel_cols.end),
                ] {
                    self.column(s, lhs, rhs, batch.clone(), rows, cols);
                }
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

    /// A panel of columns of small products: tiles as tall as there are, then lower ones; of the widest panel, rows of whole tiles.
    #[inline(always)]
    fn column<S: InPlace<T> + Ukernel<T>>(
        &mut self,
        s: S,
        lhs: Matrices<'_, T>,
        (rhs, from): (Matrices<'_, T>, usize),
        batch: Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let write = if self.add { Write::Add } else { Write::Replace };
        let mut i = rows.start;
        while i < rows.end {
            let left = rows.end - i;
            let m = if cols.len() > <S as Ukernel<T>>::NR {
                S::widest()[0]
            } else {
                tile_rows(left, S::tall(cols.len()), <S as Ukernel<T>>::MR)
            };
            let tiles = i..i + left / m * m;
            let a = lhs.parts(batch.clone(), tiles.clone(), 0..self.k);
            let b = rhs.parts(batch.clone(), 0..self.k, cols.start - from..cols.end - from);
            i = tiles.end;
            let bands = self.dst.bands(batch.clone(), tiles, cols.clone());
            s.in_place_batch(a, b, bands, [m, cols.len()], write);
        }
    }
}
