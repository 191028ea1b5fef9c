//! All products of a convolution, for executors that compute them at once: a phase of a gradient of the input alone would read all its operands and write with gaps.

use tile25_kernels::format::Format;
use tile25_kernels::mat::MatSpec;
use tile25_kernels::scan::Scan;

use super::schedule::Gemm;

/// The one product of a convolution, or the phases of its gradient of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce<'a> {
    /// Each with how it goes over its input, and the line and the place on it of its first position.
    pub(crate) products: &'a [(Gemm, Scan, [usize; 2])],
    /// Where the result of all lies: images, channels of all groups, positions.
    pub(crate) dst: MatSpec,
    /// Of the result: lines of an image, and places of each.
    pub(crate) lines: usize,
    pub(crate) width: usize,
    /// Lines and places from a position of a phase to its next ones.
    pub(crate) stride: [usize; 2],
}

impl AtOnce<'_> {
    /// Whether every position belongs to a phase, and every phase meets kernel positions.
    pub(super) fn has_every_phase(&self) -> bool {
        let phases = self.stride[0].min(self.lines) * self.stride[1].min(self.width);
        self.products.len() == phases && self.products.iter().all(|(gemm, ..)| gemm.problem.k > 0)
    }

    /// [`AtOnce::has_every_phase`] with operands in the format of sums, `own`.
    pub(super) fn is_whole(&self, own: Format) -> bool {
        let whole = |(gemm, ..): &(Gemm, Scan, [usize; 2])| {
            let formats = gemm.problem.formats;
            [formats.lhs, formats.rhs, formats.sums] == [own; 3]
        };
        self.has_every_phase() && self.products.iter().all(whole)
    }

    /// Multiply-adds.
    pub(super) fn macs(&self) -> u64 {
        self.products.iter().map(|(gemm, ..)| gemm.problem.macs()).sum()
    }
}
