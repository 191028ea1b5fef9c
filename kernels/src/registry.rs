//! The kernels of this machine, a row each: what the planner chooses from, what tests and benches walk.

use crate::format::{Element, Format};
use crate::gemm::Ukernel;
use crate::isa::Isa;

/// A matmul kernel: its name and the panels that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `<format>_gemm_<MR>x<NR>__<isa>`.
    pub name: &'static str,
    /// The instruction set it runs on.
    pub isa: Isa,
    /// The format of its operands.
    pub format: Format,
    /// Rows of its tile.
    pub mr: usize,
    /// Columns of its tile.
    pub nr: usize,
}

impl Kernel {
    /// The row of `S` for `T`.
    pub(crate) fn of<T: Element, S: Ukernel<T>>(isa: Isa) -> Self {
        Kernel { name: S::NAME, isa, format: T::FORMAT, mr: S::MR, nr: S::NR }
    }
}

/// Every kernel of this machine.
pub fn kernels() -> impl Iterator<Item = Kernel> {
    Isa::available().flat_map(|isa| [f32::kernel(isa), f64::kernel(isa)])
}
