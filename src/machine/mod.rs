//! Machines as numbers, no algorithms: what the cost model is priced on.

pub mod d1;

pub use d1::D1_TILE;

/// A mesh of equal dies. Every field can be changed by the caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Name for reports.
    pub name: &'static str,
    /// Multiply-adds a second of one die in bf16 and 8-bit floats.
    pub macs_bf16: f64,
    /// Multiply-adds a second of one die in 32-bit floats.
    pub macs_f32: f64,
    /// Multiply-adds a second of one die in 64-bit floats; `None` where the machine has no such unit.
    pub macs_f64: Option<f64>,
    /// Bytes a second over one die-to-die link, one way.
    pub link_bytes: f64,
    /// Seconds from one die to the next.
    pub link_latency: f64,
}
