//! The kernels of this machine, a row each: what the planner chooses from, what tests and benches walk.

use crate::format::Format;
use crate::gemm::Ukernel;
use crate::isa::{Isa, is_amd};
use crate::pack::Form;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Bf16x2, I8x4, x86::Avx512Dot};
use crate::simd::{I16x2, Simd, Unit, WithSimd};

/// A matmul kernel: its name and the panels that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `<format>_gemm_<MR>x<NR>c<K>__<isa>`, without `c1`.
    pub name: &'static str,
    /// The instruction set it runs on.
    pub isa: Isa,
    /// What its panels hold.
    pub form: Form,
    /// Rows of its tile.
    pub mr: usize,
    /// Columns of its tile.
    pub nr: usize,
}

impl Kernel {
    fn of<U: Unit, S: Ukernel<U>>(isa: Isa, form: Form) -> Self {
        Kernel { name: S::NAME, isa, form, mr: S::MR, nr: S::NR }
    }
}

struct Everywhere(Isa);

impl WithSimd for Everywhere {
    type Output = [Kernel; 3];
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [Kernel; 3] {
        let isa = self.0;
        [
            Kernel::of::<f32, S>(isa, Form::F32),
            Kernel::of::<f64, S>(isa, Form::F64),
            Kernel::of::<I16x2, S>(isa, Form::I16x2),
        ]
    }
}

/// The kernels of one instruction set, the fastest of a format last.
pub fn kernels_of(isa: Isa) -> impl Iterator<Item = Kernel> {
    #[cfg(target_arch = "x86_64")]
    let dot = isa.dots().map(|_| {
        [Kernel::of::<Bf16x2, Avx512Dot>(isa, Form::Bf16x2), Kernel::of::<I8x4, Avx512Dot>(isa, Form::I8x4)]
    });
    #[cfg(not(target_arch = "x86_64"))]
    let dot: Option<[Kernel; 0]> = None;
    isa.dispatch(Everywhere(isa)).into_iter().chain(dot.into_iter().flatten())
}

/// Every kernel of this machine.
pub fn kernels() -> impl Iterator<Item = Kernel> {
    Isa::available().flat_map(kernels_of)
}

/// The kernel for operands of two formats; `None` if none multiplies them.
pub fn kernel(isa: Isa, lhs: Format, rhs: Format) -> Option<Kernel> {
    let both = |test: fn(Format) -> bool| test(lhs) && test(rhs);
    let holds = |form: Form| match form {
        Form::F32 => both(|format| !format.is_integer() && format != Format::F64),
        Form::F64 => both(|format| !format.is_integer()) && (lhs == Format::F64 || rhs == Format::F64),
        // Elsewhere the dot product takes two cycles: multiply-adds of f32 reach twice as much.
        Form::Bf16x2 => is_amd() && both(Format::fits_bf16),
        Form::I16x2 | Form::I8x4 => both(|format| matches!(format, Format::I8 | Format::U8)),
    };
    kernels_of(isa).filter(|kernel| holds(kernel.form)).last()
}
