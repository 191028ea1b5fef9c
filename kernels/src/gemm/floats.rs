//! Convolutions of f32 from a band, whose rows lie at one distance: what an executor calls where that is faster than to look up every row (`windows.rs`).

use std::ops::Range;

use crate::isa::Isa;
use crate::mat::MatMut;
#[cfg(target_arch = "x86_64")]
use crate::simd::Simd;

#[cfg(target_arch = "x86_64")]
use super::dot_rows::multiply_lines;
#[cfg(target_arch = "x86_64")]
use super::real::AllFinite;
use super::{Lines, Write};

/// What multiplies lines of f32 by panels of [`Form::F32`](crate::pack::Form::F32) on an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct FloatKernel {
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the kernels are those of AVX-512"))]
    isa: Isa,
}

impl FloatKernel {
    /// `None` where the instruction set has no such kernels: they are compiled with the dot products, whose loops they have.
    pub fn new(isa: Isa) -> Option<Self> {
        isa.has_dots().then_some(FloatKernel { isa })
    }

    /// Whether none of whole panels of f32 is infinite or a NaN.
    ///
    /// # Panics
    /// If the instruction set has no such kernels.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "the dot products are those of AVX-512")
    )]
    pub fn all_finite(&self, panels: &[u8]) -> bool {
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("the dot products are those of AVX-512");
        #[cfg(target_arch = "x86_64")]
        {
            let dots = self.isa.dots().expect("the kernel was made where there are dot products");
            dots.vectorize(AllFinite::<f32>(bytemuck::cast_slice(panels)))
        }
    }

    /// Elements of some lines by the columns of panels of `width` into rows of `dst`, a line behind the other. A panel is `lines` rows; the runs meet those from row `from` on, and are a segment of k.
    ///
    /// # Panics
    /// If the instruction set has no such kernels, a run leaves the data or the panel, or there are fewer rows or columns of `dst`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "the dot products are those of AVX-512")
    )]
    pub fn multiply_lines(
        &self,
        lhs: Lines<'_, '_>,
        panels: (&[u8], usize, usize, usize),
        to: (&mut MatMut<'_, f32>, usize, Range<usize>, Range<usize>),
        write: Write,
    ) {
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("the dot products are those of AVX-512");
        #[cfg(target_arch = "x86_64")]
        multiply_lines::<f32>(self.isa, lhs, panels, to, write);
    }
}
