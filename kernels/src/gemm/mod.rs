//! Matrix multiplication of packed panels.

mod macro_kernel;
mod ukernel_f;

pub use macro_kernel::{Block, add_segment, macro_kernel};
pub use ukernel_f::{Place, Ukernel, Write};
