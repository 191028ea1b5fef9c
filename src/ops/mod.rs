//! What users call: matmul, convolution, and what may follow them.

pub mod conv;
pub mod epilogue;
pub mod matmul;
