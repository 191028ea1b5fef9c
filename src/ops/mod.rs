//! What users call: matmul, convolution, casts between formats.

pub mod bias;
pub mod cast;
pub mod conv;
pub mod math;
pub mod matmul;
mod operand;
#[cfg(feature = "serde")]
mod stored;
