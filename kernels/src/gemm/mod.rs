//! Matrix multiplication: microkernels over packed panels and over operands in place, and the loops around them.

mod along_rows;
mod blocking;
mod by_line;
mod by_position;
mod bytes;
#[cfg(target_arch = "x86_64")]
mod dot_rows;
mod few_channels;
mod few_rows;
mod few_rows_bf16;
mod few_rows_bytes;
#[cfg(target_arch = "x86_64")]
mod few_rows_dot;
mod few_transposed;
mod floats;
mod for_each;
mod in_place;
mod in_turns;
mod lines;
mod macro_kernel;
mod onto;
mod pairs;
mod per_channel;
mod planes;
mod product;
mod real;
mod small;
mod source;
mod taps_by_line;
mod ukernel;
mod whole_planes;
mod windows;

pub use blocking::{Blocking, FEW_ROWS_COLS, Lies};
pub use by_line::ByLine;
pub use by_position::{ByPosition, POSITION_SLACK, position_sums};
pub use bytes::ByteKernel;
pub use few_channels::{FEW_CHANNELS, FewChannels, SLACK};
pub use few_rows_bf16::{FEW_ROWS_BF16, few_rows_bf16};
pub use few_rows_bytes::{Bytes, FEW_ROWS_BYTES, few_rows_bytes};
pub use floats::FloatKernel;
pub use in_place::{InPlace, Later};
pub use in_turns::{InTurns, To};
pub use lines::Lines;
pub use macro_kernel::{Acc, Block, add_segment};
pub use onto::Onto;
pub use pairs::PairKernel;
pub use per_channel::{Gradient, Positions, Strip, Strips, Taps};
pub use planes::{PLANE_LINES, Phase, Planes, Sheet};
pub use product::Product;
pub use real::Real;
pub use small::Single;
pub use source::Source;
pub use taps_by_line::TapsByLine;
pub use ukernel::{Place, Ukernel, Write};
pub use whole_planes::{LEAST_PLANES, PANEL_CHANNELS, WholePlanes};
pub use windows::{Sight, WINDOW_ROWS, Weights, Windows};
