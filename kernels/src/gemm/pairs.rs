//! Lines of a convolution of bf16 by packed weights: what an executor calls once it has brought its input to a band of pairs.

use std::ops::Range;

use crate::isa::Isa;
use crate::mat::MatMut;
#[cfg(target_arch = "x86_64")]
use crate::pack::guard;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Bf16x2, Simd, WideBf16x2};

#[cfg(target_arch = "x86_64")]
use super::dot_rows::{InRows, Line, Panels, Rows};
use super::{Lines, Write};

/// What multiplies pairs of bf16 by panels of [`Form::Bf16x2`](crate::pack::Form::Bf16x2) on an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct PairKernel {
    isa: Isa,
}

impl PairKernel {
    /// By the dot product of two bf16; `None` where the instruction set has none.
    pub fn new(isa: Isa) -> Option<Self> {
        isa.has_dots().then_some(PairKernel { isa })
    }

    /// Units of some lines, whose least exponent is `least`, by the columns of panels of `width` into rows of `dst`, a line behind the other. A panel is `lines` rows of units, the last its tail; the
    /// runs, of whole units, meet those from row `from` on, and are a segment of k. Returns of how many panels exponents were too small for the dot product.
    ///
    /// # Panics
    /// If the instruction set has no dot products, a run leaves the data or the panel, or there are fewer rows or columns of `dst`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "the dot products are those of AVX-512")
    )]
    pub fn multiply_lines(
        &self,
        (lhs, least): (Lines<'_, '_>, i32),
        (panels, width, lines, from): (&[u8], usize, usize, usize),
        (dst, batch, rows, cols): (&mut MatMut<'_, f32>, usize, Range<usize>, Range<usize>),
        write: Write,
    ) -> usize {
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("the dot products are those of AVX-512");
        #[cfg(target_arch = "x86_64")]
        {
            let units: &[Bf16x2] = bytemuck::cast_slice(panels);
            let (of_panel, mut wide) = (lines * width, 0);
            for (panel, col) in cols.clone().step_by(width).enumerate() {
                let units = &units[panel * of_panel..][..of_panel];
                let to = (&mut *dst, batch, rows.clone(), col..cols.end.min(col + width));
                if guard::allows(least, units[of_panel - 1].0 as i32) {
                    self.panel(lhs, Panels { units, width, lines, from }, to, write);
                } else {
                    let units: &[WideBf16x2] = bytemuck::cast_slice(units);
                    self.panel(lhs, Panels { units, width, lines, from }, to, write);
                    wide += 1;
                }
            }
            wide
        }
    }

    /// All lines by one panel: what of it is met stays in a near cache while they pass.
    #[cfg(target_arch = "x86_64")]
    fn panel<U: InRows<Acc = f32>>(
        &self,
        lhs: Lines<'_, '_>,
        panels: Panels<'_, U>,
        (dst, batch, rows, cols): (&mut MatMut<'_, f32>, usize, Range<usize>, Range<usize>),
        write: Write,
    ) where
        crate::simd::x86::Avx512Dot: crate::simd::Dot<U>,
    {
        let dots = self.isa.dots().expect("the kernel was made where there are dot products");
        let (n, mut row) = (cols.len(), 0);
        let mut band = dst.band(batch, rows, cols);
        for &line in lhs.lines {
            let mut dst = band.part(row..row + line.1, 0..n);
            row += line.1;
            let line = Line { lhs: lhs.rows(line), runs: lhs.runs };
            dots.vectorize(Rows { line, panels, dst: &mut dst, write });
        }
    }
}
