//! What multiplies in the executors of dot products, whose loops f32 has too.

use tile25_kernels::gemm::{ByteKernel, FloatKernel, PairKernel};
use tile25_kernels::pack::Form;
use tile25_kernels::registry::Kernel;

/// What multiplies units of several neighbours along k.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dots {
    /// Four 8-bit integers; sums are i32.
    Bytes(ByteKernel),
    /// Two bf16; sums are f32.
    Pairs(PairKernel),
    /// One f32, which has their loops over lines.
    Floats(FloatKernel),
}

impl Dots {
    /// For panels of `kernel`.
    pub(super) fn new(kernel: Kernel) -> Option<Dots> {
        match kernel.form {
            Form::I8x4 => ByteKernel::new(kernel.isa).map(Dots::Bytes),
            Form::F32 => FloatKernel::new(kernel.isa).map(Dots::Floats),
            Form::Bf16x2 => PairKernel::new(kernel.isa, [kernel.mr, kernel.nr]).map(Dots::Pairs),
            _ => None,
        }
    }

    /// The name and the rows of the tile, where it is not the one of the registry.
    pub(super) fn tiles(self) -> Option<(&'static str, usize)> {
        match self {
            Dots::Bytes(bytes) => bytes.tiles(),
            Dots::Pairs(_) | Dots::Floats(_) => None,
        }
    }
}
