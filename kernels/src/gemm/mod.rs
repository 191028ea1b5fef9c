//! Matrix multiplication of packed panels.

mod macro_kernel;
mod ukernel;

pub use macro_kernel::{Acc, Block, add_segment};
pub use ukernel::{Place, Ukernel, Write};
