#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
pub mod context;
pub mod epilogue;
pub mod error;
mod geometry;
pub mod layout;
pub mod machine;
pub mod numerics;
pub mod ops;
pub mod plan;
pub mod view;
pub mod workspace;

pub use context::{Backend, Context, Threads};
pub use error::Error;

pub use epilogue::{Accum, Act, Epilogue};
pub use layout::Layout;
pub use ops::matmul::{Matmul, MatmulPlan, PackedRhs, Rhs, matmul};
pub use ops::{bias, cast, conv, math};
pub use plan::TilePlan;
pub use tile25_kernels::Isa;
pub use tile25_kernels::format::{Element, Format};

/// Number formats: the types that hold their codes, and how values become codes.
pub mod format {
    pub use half::{bf16, f16};
    pub use tile25_kernels::format::{
        CFloat, CFloat8E4M3, CFloat8E5M2, CFloat16Shp, CFloat16Uhp, Element, Format, Fp8E4M3, Fp8E5M2,
        Narrow, Overflow, Rounding, Subnormals,
    };
}
pub use view::{Spec, Tensor, View, ViewMut};
pub use workspace::{Report, Workspace};
