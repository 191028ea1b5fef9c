//! The input of a convolution as its executors copy it to bands: as it is, or widened on the way.

use tile25_kernels::Isa;
use tile25_kernels::pack::{Operand, copy_band, copy_wide_band};
use tile25_kernels::scan::{Band, Scan};
use tile25_kernels::simd::Transpose;

use super::parts::OwnWords;
use super::tile::Source;

/// An input, and where it starts.
#[derive(Clone, Copy)]
pub(super) enum Input<'a, T> {
    /// In the format of sums.
    Own(&'a [T], isize),
    /// Of narrow floats or 8-bit integers; sums are f32.
    Codes(Operand<'a>, isize),
}

impl<'a, T: OwnWords + Transpose> Input<'a, T> {
    /// What a run reads.
    pub(super) fn new(source: &Source<'a>) -> Self {
        match *source {
            Source::Coded { operand, start, .. } => Input::Codes(operand, start as isize),
            _ => {
                let (data, start) = source.own::<T>();
                Input::Own(data, start)
            }
        }
    }

    /// Copies what `band` is of, moved by `by`, to the front of `out`.
    ///
    /// # Panics
    /// As [`copy_band`] and [`copy_wide_band`], or if codes are to be widened to another type than f32.
    pub(super) fn copy(&self, isa: Isa, scan: &Scan, band: &Band, by: isize, out: &mut [T]) {
        match *self {
            Input::Own(data, start) => copy_band(isa, scan, band, data, start + by, out),
            Input::Codes(operand, start) => {
                assert!(size_of::<T>() == size_of::<f32>(), "codes become f32");
                copy_wide_band(isa, scan, band, operand, start + by, bytemuck::cast_slice_mut(out));
            }
        }
    }
}
