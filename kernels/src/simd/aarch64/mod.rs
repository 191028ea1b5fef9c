//! Tokens of aarch64: `Neon`, which every such processor has.

mod neon;

pub use neon::Neon;
