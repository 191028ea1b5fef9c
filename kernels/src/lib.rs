//! The kernels of tile25: SIMD tokens, packing, microkernels, epilogue and float functions.
//!
//! No threads, no plans, no I/O. All unsafe code of the project is here, in `simd/`, `mat/` and `buf.rs`. The crate is an
//! implementation detail of `tile25`; its items may change with any release.
//!
//! Arrows point down: `simd` <- `format`, `axis`, `scan`, `mat`, `buf` <- `pack` <- `gemm` <- `registry`.

pub mod axis;
pub mod buf;
pub mod cast;
pub mod epilogue;
pub mod format;
pub mod gemm;
pub mod isa;
pub mod mat;
pub mod math;
pub mod pack;
pub mod registry;
pub mod scan;
pub mod simd;

pub use isa::Isa;

/// Length of a k segment: the unit of the numerics contract (N1), the same for every format, kernel and machine.
pub const KC: usize = 512;

/// The length of a segment of 8-bit integers, whose sums are exact in any order: as many bytes as one of f32.
pub const BYTES_KC: usize = 4 * KC;
