//! Tokens of x86-64: `Avx2` (x86-64-v3), `Avx512` (v4), `Avx512Dot` (v4 with the bf16 and int8 dot products), `Amx` (tiles of 8-bit integers besides).

mod amx;
mod avx2;
mod avx512;
mod avx512_dot;

pub use amx::Amx;
pub(crate) use amx::{Operands, Registers, STEP, TILE_COLS, TILE_ROWS};
pub use avx2::Avx2;
pub use avx512::Avx512;
pub use avx512_dot::Avx512Dot;
