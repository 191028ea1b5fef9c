//! Products of bf16 by the dot product of two: what an executor calls once it has packed both operands, or weights, and brought the input of a convolution to a band of pairs.

use std::ops::Range;

use crate::isa::Isa;
use crate::mat::MatMut;
use crate::pack::Form;
#[cfg(target_arch = "x86_64")]
use crate::pack::guard;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Bf16x2, Simd, WideBf16x2};

#[cfg(target_arch = "x86_64")]
use super::dot_rows::{Line, Panels, Rows};
use super::{Acc, Block, Lines, Write};

/// What multiplies pairs of bf16 by panels of [`Form::Bf16x2`] on an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct PairKernel {
    isa: Isa,
    mr: usize,
    nr: usize,
}

impl PairKernel {
    /// For tiles of `mr` x `nr` by the dot product of two bf16; `None` where the instruction set has none.
    pub fn new(isa: Isa, [mr, nr]: [usize; 2]) -> Option<Self> {
        isa.has_dots().then_some(PairKernel { isa, mr, nr })
    }

    /// Panels of rows by panels of columns over steps `k`, whose first is the first of a segment, into a block of `dst`; `lhs` and `rhs` give the panels of the block over a segment. Returns how many pairs of
    /// panels there were, and of how many exponents were too small for the dot product.
    ///
    /// # Panics
    /// If panels are shorter.
    pub fn multiply<'p>(
        &self,
        lhs: impl Fn(Range<usize>) -> &'p [u8],
        rhs: impl Fn(Range<usize>) -> &'p [u8],
        k: Range<usize>,
        (dst, batch, rows, cols): (&mut MatMut<'_, f32>, usize, Range<usize>, Range<usize>),
        mut write: Write,
    ) -> [usize; 2] {
        let pairs = rows.len().div_ceil(self.mr) * cols.len().div_ceil(self.nr);
        let mut counts = [0; 2];
        for segment in Form::Bf16x2.segments(&k) {
            let block =
                Block { lhs: lhs(segment.clone()), rhs: rhs(segment.clone()), kc: segment.len(), write };
            let mut tile = dst.tile(batch, rows.clone(), cols.clone());
            counts[0] += pairs;
            counts[1] += f32::multiply(self.isa, Form::Bf16x2, block, &mut tile);
            write = Write::Add;
        }
        counts
    }

    /// Units of some lines, whose least exponents are `least`, by the columns of panels of `width` into rows of `dst`, a line behind the other. A panel is `lines` rows of units, the last its tail; the
    /// runs, of whole units, meet those from row `from` on, and are a segment of k. Returns how many pairs of a line and a panel there were, and of how many exponents were too small for the dot
    /// product.
    ///
    /// # Panics
    /// If the instruction set has no dot products, a run leaves the data or the panel, or there are fewer rows or columns of `dst`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "the dot products are those of AVX-512")
    )]
    pub fn multiply_lines(
        &self,
        (lhs, least): (Lines<'_, '_>, &[i32]),
        (panels, width, lines, from): (&[u8], usize, usize, usize),
        (dst, batch, rows, cols): (&mut MatMut<'_, f32>, usize, Range<usize>, Range<usize>),
        write: Write,
    ) -> [usize; 2] {
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("the dot products are those of AVX-512");
        #[cfg(target_arch = "x86_64")]
        {
            let dots = self.isa.dots().expect("the kernel was made where there are dot products");
            let units: &[Bf16x2] = bytemuck::cast_slice(panels);
            let (of_panel, mut counts) = (lines * width, [0; 2]);
            let mut band = dst.band(batch, rows, cols.clone());
            // A panel at a time: what of it is met stays in a near cache while the lines pass.
            for (panel, col) in (0..cols.len()).step_by(width).enumerate() {
                let units = &units[panel * of_panel..][..of_panel];
                let (n, mut row) = (width.min(cols.len() - col), 0);
                for (&of_line, &least) in lhs.lines.iter().zip(least) {
                    let dst = &mut band.part(row..row + of_line.1, col..col + n);
                    let line = Line { lhs: lhs.rows(of_line), runs: lhs.runs };
                    row += of_line.1;
                    counts[0] += 1;
                    if guard::allows(least, units[of_panel - 1].0 as i32) {
                        let panels = Panels { units, width, lines, from };
                        dots.vectorize(Rows { line, panels, dst, write });
                    } else {
                        let units: &[WideBf16x2] = bytemuck::cast_slice(units);
                        let panels = Panels { units, width, lines, from };
                        dots.vectorize(Rows { line, panels, dst, write });
                        counts[1] += 1;
                    }
                }
            }
            counts
        }
    }
}
