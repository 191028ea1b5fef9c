//! Who computes: the scalar definition, and the tile that executes plans on rayon's threads.

pub(crate) mod cast;
pub(crate) mod parts;
pub(crate) mod reference;
pub(crate) mod schedule;
pub(crate) mod tile;
