//! Blocks of a product of 8-bit integers by a packed rhs: what an executor calls once it has brought the rows of the lhs where the kernel reads them.
//!
//! AMX multiplies codes as they are, whole rows in place, and zero points are made good in the sums afterwards; so do the dot products with rows of u8 (`dot_rows.rs`), those of i8 are turned to u8 on
//! their way. Sums of integers are exact in any order (N4), so both have the same bits.

use std::ops::Range;

use crate::axis::Window;
use crate::format::Format;
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::mat::Band;
use crate::mat::{MatMut, MatRef, WriteRows};
#[cfg(target_arch = "x86_64")]
use crate::pack::Form;
use crate::pack::{Operand, Zero, pack_rows};
#[cfg(target_arch = "x86_64")]
use crate::simd::x86::TILE_COLS;
use crate::simd::{I8x4, Simd, Unit, WithSimd};

#[cfg(target_arch = "x86_64")]
use super::dot_rows::{Line, Panels, Rows, multiply_lines};
use super::{Lines, Write};

/// What multiplies bytes by panels of [`Form::I8x4`] on an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct ByteKernel {
    isa: Isa,
}

impl ByteKernel {
    /// By the dot products, or AMX; `None` where the instruction set has neither.
    pub fn new(isa: Isa) -> Option<Self> {
        isa.has_dots().then_some(ByteKernel { isa })
    }

    /// Its name and the rows of its tile, where it is not the one of the registry.
    pub fn tiles(&self) -> Option<(&'static str, usize)> {
        #[cfg(target_arch = "x86_64")]
        if let Isa::Amx(_) = self.isa {
            return Some(("i8_gemm_16x48c4__amx", crate::simd::x86::TILE_ROWS));
        }
        None
    }

    /// Whether rows of `format` whose k is `k` bytes side by side are read where they are. Dot products are of u8 by i8.
    pub fn reads_in_place(&self, format: Format, k: usize) -> bool {
        (self.tiles().is_some() || format == Format::U8) && k.is_multiple_of(4)
    }

    /// From a row to the next where rows are copied: an odd number of cache lines, so that rows spread over the sets of a cache.
    fn pitch(k: usize) -> usize {
        k.next_multiple_of(64) | 64
    }

    /// Bytes of a copy of `m` rows over `k` steps.
    pub fn row_bytes(m: usize, k: usize) -> usize {
        m * Self::pitch(k)
    }

    /// What turns codes of `format` to those of u8 where rows are copied: dot products are of u8 by i8.
    pub fn flip(&self, format: Format) -> u8 {
        if format == Format::I8 && self.tiles().is_none() { 0x80 } else { 0 }
    }

    /// Copies rows `x` of an lhs over steps `k`, the bits of `flip` turned over in each code; each row has as many columns as k, rounded up to a multiple of 4. What stands behind k meets zeros.
    ///
    /// # Panics
    /// As [`pack_rows`].
    pub fn keep<'o>(
        &self,
        window: &Window,
        operand: Operand<'_>,
        x: Range<usize>,
        k: Range<usize>,
        flip: u8,
        out: &'o mut [u8],
    ) -> MatRef<'o, u8> {
        let (m, len, pitch) = (x.len(), k.len(), Self::pitch(k.len()));
        let out = &mut out[..m * pitch];
        pack_rows(self.isa, window, operand, x, k, flip, pitch, out);
        MatRef::row_major(out, m, pitch).part(0..m, 0..len.next_multiple_of(4))
    }

    /// Codes of rows of `format`, side by side, by panels of `width` columns, of steps `k`, whose first is the first of a segment, into a block of `dst`; `rhs` gives the panels of the block's columns over
    /// a segment.
    ///
    /// # Panics
    /// If an operand is smaller than the block, rows are of i8 without AMX, or with it panels are of others than 48 columns.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "the dot products are those of AVX-512")
    )]
    pub fn multiply<'r>(
        &self,
        (lhs, format): (MatRef<'_, u8>, Format),
        (rhs, width): (impl Fn(Range<usize>) -> &'r [u8], usize),
        k: Range<usize>,
        (dst, batch, rows, cols): (&mut MatMut<'_, i32>, usize, Range<usize>, Range<usize>),
        write: Write,
    ) {
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("the dot products are those of AVX-512");
        #[cfg(target_arch = "x86_64")]
        {
            let (m, mut write) = (rows.len(), write);
            for segment in Form::I8x4.segments(&k) {
                let (kc, first) = (segment.len(), segment.start - k.start);
                let units: &[I8x4] = bytemuck::cast_slice(rhs(segment));
                let lines = kc.div_ceil(4) + I8x4::TAIL;
                let mut band = dst.band(batch, rows.clone(), cols.clone());
                let Isa::Amx(token) = self.isa else {
                    assert!(format == Format::U8, "rows are of u8 without AMX");
                    let lhs = lhs.part(0..m, first..first + kc.next_multiple_of(4));
                    let panels = Panels { units, width, lines, from: 0 };
                    self.dot_rows(lhs, &[(0, lhs.cols())], panels, &mut band, write);
                    write = Write::Add;
                    continue;
                };
                assert!(width == TILE_COLS, "panels of {width} columns");
                // So many steps of a panel at a time stay in a first-level cache while all rows pass.
                for from in (0..kc).step_by(crate::KC) {
                    let end = kc.min(from + crate::KC).next_multiple_of(4);
                    let lhs = lhs.part(0..m, first + from..first + end);
                    let panels = (units, lines * TILE_COLS, from / 4 * TILE_COLS);
                    band.multiply_bytes(token, lhs, format == Format::I8, panels, write == Write::Add);
                    write = Write::Add;
                }
            }
        }
    }

    /// Codes of some lines by the columns of panels of `width` into rows of `dst`, a line behind the other. A panel is `lines` rows of units, the last two its tail; the runs, of whole units,
    /// meet those from row `from` on.
    ///
    /// # Panics
    /// If the instruction set has no dot products, a run leaves the data or the panel, or there are fewer rows or columns of `dst`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "the dot products are those of AVX-512")
    )]
    pub fn multiply_lines(
        &self,
        lhs: Lines<'_, '_>,
        (panels, width, lines, from): (&[u8], usize, usize, usize),
        (dst, batch, rows, cols): (&mut MatMut<'_, i32>, usize, Range<usize>, Range<usize>),
        write: Write,
    ) {
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("the dot products are those of AVX-512");
        #[cfg(target_arch = "x86_64")]
        multiply_lines::<I8x4>(self.isa, lhs, (panels, width, lines, from), (dst, batch, rows, cols), write);
    }

    /// Runs of rows by panels, by the dot products.
    #[cfg(target_arch = "x86_64")]
    fn dot_rows(
        &self,
        lhs: MatRef<'_, u8>,
        runs: &[(usize, usize)],
        panels: Panels<'_, I8x4>,
        dst: &mut Band<'_, i32>,
        write: Write,
    ) {
        let rows = Rows { line: Line { lhs, runs }, panels, dst, write };
        self.isa.dots().expect("the kernel was made where there are dot products").vectorize(rows);
    }

    /// Adds to `sums` the sum of the codes of each row of some lines, of the whole of each run.
    pub fn add_line_sums(&self, lhs: Lines<'_, '_>, sums: &mut [i32]) {
        let mut row = 0;
        for &line in lhs.lines {
            let (rows, sums) = (lhs.rows(line), &mut sums[row..row + line.1]);
            row += line.1;
            for &(run, len) in lhs.runs {
                self.add_row_sums(rows.part(0..line.1, run..run + len), Format::U8, sums);
            }
        }
    }

    /// Adds what the tails of the panels of a segment of `kc` steps say, panels of `width` columns: zero points to `zeros`, sums to `sums`, one a column.
    pub fn add_tails(&self, (panels, width): (&[u8], usize), kc: usize, zeros: &mut [i32], sums: &mut [i32]) {
        let lines = kc.div_ceil(4) + I8x4::TAIL;
        let panels = bytemuck::cast_slice::<u8, i32>(panels).chunks_exact(lines * width);
        let columns = zeros.chunks_mut(width).zip(sums.chunks_mut(width));
        for (panel, (zeros, sums)) in panels.zip(columns) {
            let (of_zeros, of_sums) = panel[(lines - I8x4::TAIL) * width..].split_at(width);
            zeros.copy_from_slice(&of_zeros[..zeros.len()]);
            for (sum, more) in sums.iter_mut().zip(of_sums) {
                *sum = sum.wrapping_add(*more);
            }
        }
    }

    /// Adds to `sums` the sum of the codes of each row.
    pub fn add_row_sums(&self, rows: MatRef<'_, u8>, format: Format, sums: &mut [i32]) {
        self.isa.dispatch_but_dots(RowSums { rows, signed: format == Format::I8, sums });
    }

    /// Takes zero points from the sums of a block (N4): `sum - row zero * column sum - column zero * row sum`, where column sums are of values less their zero point and row
    /// sums of codes. All begin with the block.
    pub fn make_good(
        &self,
        (dst, batch, rows, cols): (&mut MatMut<'_, i32>, usize, Range<usize>, Range<usize>),
        row_zero: Zero<'_>,
        row_sums: &[i32],
        col_zeros: &[i32],
        col_sums: &[i32],
    ) {
        let by_rows = row_zero != Zero::Tensor(0);
        let by_cols = col_zeros.iter().any(|&zero| zero != 0);
        if by_rows || by_cols {
            let zero = |i: usize| match row_zero {
                Zero::Tensor(zero) => zero,
                Zero::PerX(zeros) => zeros[i],
            };
            let mut band = dst.band(batch, rows.clone(), cols);
            for (i, &row_sum) in row_sums[..rows.len()].iter().enumerate() {
                let dst = band.row(i);
                let row_sum = if by_cols { row_sum } else { 0 };
                self.isa.dispatch_but_dots(MakeGood { dst, zero: zero(i), row_sum, col_zeros, col_sums });
            }
        }
    }
}

struct RowSums<'a> {
    rows: MatRef<'a, u8>,
    signed: bool,
    sums: &'a mut [i32],
}

impl WithSimd for RowSums<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, sum) in self.sums[..self.rows.rows()].iter_mut().enumerate() {
            let codes = self.rows.row(row);
            let more: i32 = if self.signed {
                codes.iter().map(|&code| i32::from(code as i8)).fold(0, i32::wrapping_add)
            } else {
                codes.iter().map(|&code| i32::from(code)).fold(0, i32::wrapping_add)
            };
            *sum = sum.wrapping_add(more);
        }
    }
}

struct MakeGood<'a> {
    dst: &'a mut [i32],
    zero: i32,
    row_sum: i32,
    col_zeros: &'a [i32],
    col_sums: &'a [i32],
}

impl WithSimd for MakeGood<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let MakeGood { dst, zero, row_sum, col_zeros, col_sums } = self;
        for ((sum, &col_zero), &col_sum) in dst.iter_mut().zip(col_zeros).zip(col_sums) {
            let excess = zero.wrapping_mul(col_sum).wrapping_add(col_zero.wrapping_mul(row_sum));
            *sum = sum.wrapping_sub(excess);
        }
    }
}
