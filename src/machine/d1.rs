//! The D1 die and the training tile of 25 of them.
//!
//! Published numbers (Hot Chips 34, 2022; IEEE Micro 43(3), 2023) and arithmetic on them. No measured matmul on a D1 is public:
//! prices on this machine can be checked against these identities only.

use super::Machine;

/// Nodes in use on a die (Hot Chips 34).
pub const NODES: u64 = 354;
/// Clock in Hz (Hot Chips 34).
pub const CLOCK: f64 = 2.0e9;
/// Multiply-adds of a node per clock in 32-bit floats: the 64-byte SIMD unit (derived: 32 FLOP a clock).
pub const NODE_MACS_F32: f64 = 16.0;
/// Multiply-adds of a node per clock in bf16 and CFloat8: the 8 x 8 x 4 matmul unit (Hot Chips 34).
pub const NODE_MACS_BF16: f64 = 256.0;
/// SRAM of a node in bytes (Hot Chips 34).
pub const NODE_SRAM_BYTES: u64 = 1_250_000;
/// SRAM of a die in bytes: 354 nodes, published as 440 MB (Hot Chips 34).
pub const DIE_SRAM_BYTES: u64 = NODES * NODE_SRAM_BYTES;
/// Bytes a second over one edge of a die, one way (Hot Chips 34).
pub const EDGE_BYTES: f64 = 2.0e12;
/// Seconds from die to die (Hot Chips 34).
pub const DIE_LATENCY: f64 = 100.0e-9;

/// A training tile: 362.5 TFLOP/s a die in BF16 and CFloat8, 22.66 in FP32. The die has no 64-bit float unit.
pub const D1_TILE: Machine = Machine {
    name: "Dojo D1 training tile",
    macs_bf16: NODES as f64 * CLOCK * NODE_MACS_BF16,
    macs_f32: NODES as f64 * CLOCK * NODE_MACS_F32,
    macs_f64: None,
    link_bytes: EDGE_BYTES,
    link_latency: DIE_LATENCY,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_give_the_published_totals() {
        assert_eq!((2.0 * D1_TILE.macs_bf16 / 1e11).round(), 3625.0);
        let die_teraflops = 2.0 * D1_TILE.macs_f32 / 1e12;
        assert_eq!((die_teraflops * 100.0).round() / 100.0, 22.66);
        assert_eq!((25.0 * die_teraflops).round(), 566.0);
        assert_eq!(DIE_SRAM_BYTES / 10_000_000, 44);
    }
}
