//! Who computes: the scalar definition; the tile that executes plans on rayon's threads; and, where a host needs no plan, parts, a thread each: of matrices, of 8-bit integers, and of
//! convolutions by windows, in strips of channels or plane by plane (depthwise) and along lines (few channels). Only `tile`, `fork` and `cast` know threads.

pub(crate) mod at_once;
pub(crate) mod block;
pub(crate) mod cast;
pub(crate) mod depthwise;
pub(crate) mod dot_parts;
pub(crate) mod dot_windows;
mod dots;
pub(crate) mod few_channels;
pub(crate) mod few_inputs;
pub(crate) mod few_phases;
pub(crate) mod few_rows;
pub(crate) mod fork;
mod input;
pub(crate) mod parts;
pub(crate) mod planes;
pub(crate) mod reference;
pub(crate) mod schedule;
pub(crate) mod sums;
pub(crate) mod tile;
pub(crate) mod weight_gradient;
pub(crate) mod whole_planes;
pub(crate) mod windows;
