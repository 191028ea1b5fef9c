//! What users call: matmul and convolution.

pub mod conv;
pub mod math;
pub mod matmul;
