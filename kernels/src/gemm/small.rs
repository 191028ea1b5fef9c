//! Float products over a short k: tiles one below the other, with no more around them than they need.
//!
//! ```text
//! for some products of the batch, as many as stay in a first-level cache
//!   for each panel of columns
//!     for each height of tiles: all of them, one product after the other
//! ```
//!
//! Operands are read where they lie. An rhs whose columns lie side by side is brought to rows first, one of one panel that lies otherwise to a panel.

use std::ops::Range;

use crate::axis::Axis;
use crate::isa::Isa;
use crate::mat::{Band, Bands, MatMut, MatRef, MatSpec, Matrices, Parts, Places, WriteRows};
use crate::pack::Side;
use crate::simd::{Lanes, Simd, Transpose, Unit, WithToken};

use super::product::{is_widest, tile_rows};
use super::source::{Part, Source};
use super::{InPlace, Product, Real, Ukernel, Write};

/// Columns that lines are brought to rows by: no vector is longer, and a row's last ones have room.
pub(super) const BROUGHT_GRAIN: usize = 16;

/// Lines, and elements of each, that are transposed together.
const SQUARE: usize = 8;

/// Lines of elements side by side that become columns of rows, one `pitch` behind the other.
struct Bring<'a, 'b, T> {
    lines: MatRef<'a, T>,
    rows: &'b mut [T],
    pitch: usize,
}

impl<S: Simd, T: Transpose> WithToken<S> for Bring<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn with_token(self, s: S) {
        let Bring { lines, rows, pitch } = self;
        let (n, k) = (lines.rows(), lines.cols());
        if k < SQUARE {
            for j in 0..n {
                for (&x, row) in lines.row(j).iter().zip(rows.chunks_exact_mut(pitch)) {
                    row[j] = x;
                }
            }
            return;
        }
        for j in (0..n).step_by(SQUARE) {
            // Lines beyond the last repeat it.
            let mut some: [&[T]; SQUARE] = [&[]; SQUARE];
            for (i, line) in some.iter_mut().enumerate() {
                *line = lines.row((j + i).min(n - 1));
            }
            for t in (0..k).step_by(SQUARE) {
                // The last square may begin inside the one before.
                let t = t.min(k - SQUARE);
                let mut square = [[T::zeroed(); SQUARE]; SQUARE];
                for (square, line) in square.iter_mut().zip(some) {
                    *square = *line[t..].first_chunk().expect("a square is left");
                }
                for (i, row) in T::transpose(s, square).iter().enumerate() {
                    *rows[(t + i) * pitch + j..].first_chunk_mut().expect("a row has room") = *row;
                }
            }
        }
    }
}

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
            batch: Axis::ONE,
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
            self.small(s, isa, batch..batch + 1, lhs, (rhs, 0..1), cols.start);
        }
        self.scratch[1] = scratch;
        true
    }

    /// Products by an rhs whose columns lie side by side: of some products at a time it is brought to rows, which the short loops read. False if it does not lie so.
    #[inline(always)]
    pub(super) fn brought<S: Simd + InPlace<T> + Ukernel<T>>(&mut self, s: S, isa: Isa) -> bool {
        let (&Source::InPlace(lhs), &Source::Pack { matrices: Some(rhs), .. }) = (self.lhs, self.rhs) else {
            return false;
        };
        let (cols, k, all) = (self.dst.cols(), self.k, self.dst.batch());
        if !rhs.has_whole_columns() {
            return false;
        }
        let (pitch, at_a_time) = (cols.len().next_multiple_of(BROUGHT_GRAIN), self.blocking.products);
        let axis = |extent, stride: usize| Axis::strided(extent, stride as isize);
        let places = Places::new(MatSpec {
            start: 0,
            batch: axis(at_a_time, k * pitch),
            rows: axis(k, pitch),
            cols: axis(cols.len(), 1),
        });
        let scratch = std::mem::take(&mut self.scratch[1]);
        let mut first = all.start;
        while first < all.end {
            let batch = first..all.end.min(first + at_a_time);
            for (product, rows) in batch.clone().zip(scratch.chunks_exact_mut(k * pitch)) {
                let lines = rhs.matrix(product).part(0..k, cols.clone()).transposed();
                s.apart(Bring { lines, rows, pitch });
            }
            let rows = Matrices::new(scratch, 0, &places).expect("the scratch has so many places");
            first = batch.end;
            self.small(s, isa, batch.clone(), lhs, (rows, 0..batch.len()), cols.start);
        }
        self.scratch[1] = scratch;
        true
    }

    /// The loops of some products that are read in place over a short k: they should not pay for more. The rhs is as many matrices and begins at column `from` of the results.
    #[inline(always)]
    pub(super) fn small<S: InPlace<T> + Ukernel<T>>(
        &mut self,
        s: S,
        isa: Isa,
        all: Range<usize>,
        lhs: Matrices<'_, T>,
        (rhs, of_rhs): (Matrices<'_, T>, Range<usize>),
        from: usize,
    ) {
        let (rows, cols, k) = (self.dst.rows(), self.dst.cols(), self.k);
        let write = if self.add { Write::Add } else { Write::Replace };
        // As many products at a time as stay in a first-level cache until their last tile.
        let at_a_time = self.blocking.products;
        let mut first = all.start;
        while first < all.end {
            let batch = first..all.end.min(first + at_a_time);
            let rhs_batch = of_rhs.start + first - all.start..of_rhs.start + batch.end - all.start;
            let dst = &mut self.dst;
            let mut several = Several { lhs, rhs, rhs_batch, from, dst, batch: batch.clone(), k };
            panels(s, &mut several, rows.clone(), cols.clone(), write);
            if let Some(epilogue) = self.epilogue {
                for product in batch.clone() {
                    let mut tile = self.dst.tile(product, rows.clone(), cols.clone());
                    T::finish_in_place(isa, epilogue, &mut tile);
                }
            }
            first = batch.end;
        }
    }
}

/// One product over a short k and no more: what [`Product`] asks before it computes was asked before. See [`Blocking::is_single`](super::Blocking::is_single).
#[derive(Debug)]
pub struct Single<'a, 'b, T> {
    /// The left operand.
    pub lhs: MatRef<'a, T>,
    /// The right operand, elements of a row side by side.
    pub rhs: MatRef<'a, T>,
    /// The result.
    pub dst: Band<'b, T>,
    /// Whether its old values count.
    pub add: bool,
}

impl<T: Real + Unit<Acc = T>> Single<'_, '_, T> {
    #[inline(always)]
    pub(super) fn run<S: InPlace<T> + Ukernel<T>>(&mut self, s: S, _: Isa) {
        let (rows, cols) = (0..self.dst.m(), 0..self.dst.n());
        let write = if self.add { Write::Add } else { Write::Replace };
        panels(s, self, rows, cols, write);
    }
}

/// What makes some rows and columns of some results, and where these are.
type Operands<'a, 'b, T> = (Parts<'a, T>, Parts<'a, T>, Bands<'b, T>);

/// Products of one shape, of which tiles at one place are computed one after the other.
trait Tiled<'a, T> {
    /// Some rows and columns of the results.
    fn operands(&mut self, rows: Range<usize>, cols: Range<usize>) -> Operands<'a, '_, T>;
}

/// Products of a batch; the rhs begins at column `from` of the results.
struct Several<'a, 'b, 'c, T> {
    lhs: Matrices<'a, T>,
    rhs: Matrices<'a, T>,
    rhs_batch: Range<usize>,
    from: usize,
    dst: &'c mut MatMut<'b, T>,
    batch: Range<usize>,
    k: usize,
}

impl<'a, T: Copy> Tiled<'a, T> for Several<'a, '_, '_, T> {
    #[inline(always)]
    fn operands(&mut self, rows: Range<usize>, cols: Range<usize>) -> Operands<'a, '_, T> {
        let Several { lhs, rhs, rhs_batch, from, dst, batch, k } = self;
        let lhs = lhs.parts(batch.clone(), rows.clone(), 0..*k);
        let rhs = rhs.parts(rhs_batch.clone(), 0..*k, cols.start - *from..cols.end - *from);
        (lhs, rhs, dst.bands(batch.clone(), rows, cols))
    }
}

impl<'a, T: Copy> Tiled<'a, T> for Single<'a, '_, T> {
    #[inline(always)]
    fn operands(&mut self, rows: Range<usize>, cols: Range<usize>) -> Operands<'a, '_, T> {
        let lhs = self.lhs.part(rows.clone(), 0..self.lhs.cols());
        let rhs = self.rhs.part(0..self.rhs.rows(), cols.clone());
        (lhs.into(), rhs.into(), self.dst.part(rows, cols).into())
    }
}

/// All panels of columns.
#[inline(always)]
fn panels<'a, T: Unit, S: InPlace<T> + Ukernel<T>>(
    s: S,
    of: &mut impl Tiled<'a, T>,
    rows: Range<usize>,
    cols: Range<usize>,
    write: Write,
) {
    let (nr, lanes, [wide, widest]) = (<S as Ukernel<T>>::NR, <S as Lanes<T>>::LANES, S::widest());
    let most = if cols.len().next_multiple_of(lanes) == widest { widest } else { nr };
    for panel_cols in evenly(cols, lanes, most) {
        if panel_cols.len() <= nr {
            column(s, of, rows.clone(), panel_cols, write);
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
            column(s, of, rows, cols, write);
        }
    }
}

/// A panel of columns: tiles as tall as there are, then lower ones; of the widest panel, rows of whole tiles.
#[inline(always)]
fn column<'a, T: Unit, S: InPlace<T> + Ukernel<T>>(
    s: S,
    of: &mut impl Tiled<'a, T>,
    rows: Range<usize>,
    cols: Range<usize>,
    write: Write,
) {
    let mut i = rows.start;
    while i < rows.end {
        let left = rows.end - i;
        let m = if cols.len() > <S as Ukernel<T>>::NR {
            S::widest()[0]
        } else {
            tile_rows(left, S::tall(cols.len()), <S as Ukernel<T>>::MR)
        };
        let tiles = i..i + left / m * m;
        i = tiles.end;
        let (lhs, rhs, dst) = of.operands(tiles, cols.clone());
        s.in_place_batch(lhs, rhs, dst, [m, cols.len()], write);
    }
}
