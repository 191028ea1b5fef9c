//! Who computes: the scalar definition; the tile that executes plans on rayon's threads; parts, a thread each, where a host needs no plan, of
//! matrices and of windows. Only `tile`, `fork` and `cast` know threads.

pub(crate) mod cast;
pub(crate) mod depthwise;
mod fork;
pub(crate) mod parts;
pub(crate) mod reference;
pub(crate) mod schedule;
pub(crate) mod sums;
pub(crate) mod tile;
pub(crate) mod windows;
