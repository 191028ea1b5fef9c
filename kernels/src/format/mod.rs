//! Number formats: what a code means, how a value becomes a code, and the Rust types that hold codes.
//!
//! Every float format below f32 is widened exactly to f32 ([`Codec::widen`]); a result is narrowed once, at the end ([`Codec::nearest`],
//! [`Codec::stochastic`]).

mod codec;
mod element;
mod round;
mod slices;
#[cfg(test)]
mod tests;
mod words;

pub use codec::Codec;
pub use element::{
    CFloat, CFloat8E4M3, CFloat8E5M2, CFloat16Shp, CFloat16Uhp, Element, Format, Fp8E4M3, Fp8E5M2, Subnormals,
};
pub use round::{Narrow, Overflow, Rounding, Target, random_bits, round_to_odd};
pub(crate) use slices::{Code, LOOK_UP, Widener, narrow, table};
pub use words::{Word, Words, WordsMut};
