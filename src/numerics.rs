//! The constants of the numerics contract, NUMERICS.md.

/// Length of a k segment (N1). Frozen: another value gives other bits.
pub use tile25_kernels::KC;

/// Moves when, and only when, some result changes its bits.
pub const NUMERICS_VERSION: u32 = 1;
