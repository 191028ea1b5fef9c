//! The element types that operands and results may have.

use std::fmt;

use crate::epilogue::{self, Act, Epilogue};
use crate::gemm::{self, Block};
use crate::isa::Isa;
use crate::mat::TileMut;
use crate::math;
use crate::registry::Kernel;
use crate::simd::{Lanes, Scalar, Simd, WithSimd, transpose_scalar};

/// A number format, named at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl Format {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F64 => 8,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::F32 => "f32",
            Format::F64 => "f64",
        })
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A Rust type that tensors may hold. Sealed: the formats are those of the contract.
pub trait Element:
    sealed::Sealed + num_traits::Float + bytemuck::Pod + Default + fmt::Debug + Send + Sync + 'static
{
    /// The format of this type.
    const FORMAT: Format;
    /// The activation in one lane: the definition (N6). `None` where the format has no such function.
    fn activate(self, act: Act) -> Option<Self>;
    /// `result[i][j] = block[j][i]`.
    fn transpose_8x8<S: Simd>(simd: S, block: [[Self; 8]; 8]) -> [[Self; 8]; 8];
    /// The matmul kernel of an instruction set.
    fn kernel(isa: Isa) -> Kernel;
    /// Multiplies packed panels into a tile.
    fn gemm_block(isa: Isa, block: Block<'_, Self>, tile: &mut TileMut<'_, Self>);
    /// Applies an epilogue to a finished tile.
    fn finish_tile(isa: Isa, epilogue: &Epilogue<'_, Self>, tile: &mut TileMut<'_, Self>);
}

struct RunBlock<'a, 'b, 't, T>(Block<'a, T>, &'b mut TileMut<'t, T>);
struct RunEpilogue<'a, 'b, 't, T>(&'a Epilogue<'a, T>, &'b mut TileMut<'t, T>);
struct Describe<T>(Isa, std::marker::PhantomData<T>);

macro_rules! element {
    ($t:ty, $format:expr, $activate:path, $transpose:expr) => {
        impl WithSimd for RunBlock<'_, '_, '_, $t> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                gemm::macro_kernel::<$t, S>(simd, self.0, self.1);
            }
        }
        impl WithSimd for RunEpilogue<'_, '_, '_, $t> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                epilogue::apply::<$t, S>(simd, self.0, self.1, $activate);
            }
        }
        impl WithSimd for Describe<$t> {
            type Output = Kernel;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Kernel {
                Kernel::of::<$t, S>(self.0)
            }
        }
        impl Element for $t {
            const FORMAT: Format = $format;
            fn activate(self, act: Act) -> Option<Self> {
                $activate(Scalar, act, self)
            }
            #[inline(always)]
            fn transpose_8x8<S: Simd>(simd: S, block: [[Self; 8]; 8]) -> [[Self; 8]; 8] {
                $transpose(simd, block)
            }
            fn kernel(isa: Isa) -> Kernel {
                isa.dispatch(Describe::<$t>(isa, std::marker::PhantomData))
            }
            fn gemm_block(isa: Isa, block: Block<'_, Self>, tile: &mut TileMut<'_, Self>) {
                isa.dispatch(RunBlock(block, tile));
            }
            fn finish_tile(isa: Isa, epilogue: &Epilogue<'_, Self>, tile: &mut TileMut<'_, Self>) {
                isa.dispatch(RunEpilogue(epilogue, tile));
            }
        }
    };
}
element!(f32, Format::F32, math::activate_f32, S::transpose_8x8);
element!(f64, Format::F64, activate_f64, |_, block| transpose_scalar(block));

/// f64 has the activation that is no approximation.
#[inline(always)]
fn activate_f64<S: Lanes<f64>>(s: S, act: Act, v: S::V) -> Option<S::V> {
    match act {
        Act::None => Some(v),
        Act::Relu => Some(s.max(s.splat(0.0), v)),
        _ => None,
    }
}
