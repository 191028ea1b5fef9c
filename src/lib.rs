#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod backend;
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
pub use ops::{conv, math};
pub use plan::TilePlan;
pub use tile25_kernels::Isa;
pub use tile25_kernels::format::{Element, Format};
pub use view::{Spec, Tensor, View, ViewMut};
pub use workspace::Workspace;
