//! The formats by name, and the Rust types that hold their codes.

use std::fmt;

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use super::{Word, Words, WordsMut};
use crate::epilogue::Param;

/// What exponent 0 of a configurable float means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Subnormals {
    /// `(-1)^s 2^(-bias) 0.m`, by the letter of Tesla's paper: below the least normal value there is a hole.
    #[default]
    Dojo,
    /// `(-1)^s 2^(1 - bias) 0.m`, as in IEEE 754, without a hole.
    Ieee,
}

/// The run-time half of a configurable float: its exponent bias, and how it reads exponent 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "Unchecked"))]
pub struct CFloat {
    bias: u8,
    /// What exponent 0 means.
    pub subnormals: Subnormals,
}

/// A configurable float as it was read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    bias: u8,
    subnormals: Subnormals,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for CFloat {
    type Error = String;

    fn try_from(Unchecked { bias, subnormals }: Unchecked) -> Result<Self, String> {
        let cfloat =
            CFloat::new(bias).ok_or_else(|| format!("a bias of {bias}, above {}", CFloat::MAX_BIAS))?;
        Ok(cfloat.with_subnormals(subnormals))
    }
}

impl CFloat {
    /// Largest bias: it has six bits.
    pub const MAX_BIAS: u8 = 63;

    /// A bias of `0..=63`, with subnormals by the letter of the paper; `None` for another bias.
    pub const fn new(bias: u8) -> Option<Self> {
        if bias <= Self::MAX_BIAS { Some(CFloat { bias, subnormals: Subnormals::Dojo }) } else { None }
    }

    /// The same with another reading of exponent 0.
    pub const fn with_subnormals(self, subnormals: Subnormals) -> Self {
        CFloat { subnormals, ..self }
    }

    /// The bias.
    pub const fn bias(self) -> u8 {
        self.bias
    }
}

/// A number format, named at run time, with the parameters that are chosen per tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Format {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// bfloat16: 1, 8, 7 bits of sign, exponent, mantissa.
    Bf16,
    /// IEEE binary16: 1, 5, 10.
    F16,
    /// Dojo's CFloat8_1_4_3: every code a number, overflow clamps.
    CFloat8E4M3(CFloat),
    /// Dojo's CFloat8_1_5_2.
    CFloat8E5M2(CFloat),
    /// Dojo's CFloat16, signed half precision: 1, 5, 10, every code a number.
    CFloat16Shp(CFloat),
    /// Dojo's CFloat16, unsigned half precision: 0, 6, 10, bias 31, Inf and NaN, subnormals flushed.
    CFloat16Uhp,
    /// OCP E4M3 (FN): bias 7, NaN, no Inf.
    Fp8E4M3,
    /// OCP E5M2: bias 15, Inf and NaN.
    Fp8E5M2,
    /// Two's complement, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// Two's complement, 32 bits: sums of products of 8-bit integers.
    I32,
}

impl Format {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Format::F64 => 8,
            Format::F32 | Format::I32 => 4,
            Format::Bf16 | Format::F16 | Format::CFloat16Shp(_) | Format::CFloat16Uhp => 2,
            _ => 1,
        }
    }

    /// Whether its values are whole numbers, added without rounding.
    pub const fn is_integer(self) -> bool {
        matches!(self, Format::I8 | Format::U8 | Format::I32)
    }

    /// Whether every value is a bf16: those formats can use bf16 dot products.
    pub const fn fits_bf16(self) -> bool {
        self.bytes() == 1 && !self.is_integer() || matches!(self, Format::Bf16)
    }

    /// Whether it differs from `other` at most in parameters chosen per tensor.
    #[inline]
    pub fn same_kind(self, other: Format) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, cfloat) = match *self {
            Format::F32 => ("f32", None),
            Format::F64 => ("f64", None),
            Format::Bf16 => ("bf16", None),
            Format::F16 => ("f16", None),
            Format::CFloat8E4M3(c) => ("cfloat8_1_4_3", Some(c)),
            Format::CFloat8E5M2(c) => ("cfloat8_1_5_2", Some(c)),
            Format::CFloat16Shp(c) => ("cfloat16_shp", Some(c)),
            Format::CFloat16Uhp => ("cfloat16_uhp", None),
            Format::Fp8E4M3 => ("fp8_e4m3fn", None),
            Format::Fp8E5M2 => ("fp8_e5m2", None),
            Format::I8 => ("i8", None),
            Format::U8 => ("u8", None),
            Format::I32 => ("i32", None),
        };
        f.write_str(name)?;
        match cfloat {
            Some(CFloat { bias, subnormals: Subnormals::Dojo }) => write!(f, "(bias {bias})"),
            Some(CFloat { bias, subnormals: Subnormals::Ieee }) => write!(f, "(bias {bias}, ieee)"),
            None => Ok(()),
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that tensors may hold. Sealed: the formats are those of the contract.
pub trait Element: sealed::Sealed + Pod + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// What scales and biases of a result of this type are: f64 for f64, f32 for all others.
    type Param: Param;
    /// The word that holds a code.
    type Word: Word;
    /// The format, with the bias that IEEE 754 would give where it is chosen per tensor.
    const FORMAT: Format;
    /// The codes.
    fn words(slice: &[Self]) -> Words<'_>;
    /// The codes, to write.
    fn words_mut(slice: &mut [Self]) -> WordsMut<'_>;
}

macro_rules! element {
    ($t:ty, $param:ty, $word:ty, $variant:ident, $format:expr) => {
        impl sealed::Sealed for $t {}
        impl Element for $t {
            type Param = $param;
            type Word = $word;
            const FORMAT: Format = $format;
            #[inline]
            fn words(slice: &[Self]) -> Words<'_> {
                Words::$variant(bytemuck::cast_slice(slice))
            }
            #[inline]
            fn words_mut(slice: &mut [Self]) -> WordsMut<'_> {
                WordsMut::$variant(bytemuck::cast_slice_mut(slice))
            }
        }
    };
}

macro_rules! code {
    ($(#[$doc:meta])* $name:ident($word:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub $word);
    };
}

code! {
    /// A code of [`Format::CFloat8E4M3`]. Its value depends on the bias, which belongs to the tensor.
    CFloat8E4M3(u8)
}
code! {
    /// A code of [`Format::CFloat8E5M2`]. Its value depends on the bias, which belongs to the tensor.
    CFloat8E5M2(u8)
}
code! {
    /// A code of [`Format::CFloat16Shp`]. Its value depends on the bias, which belongs to the tensor.
    CFloat16Shp(u16)
}
code! {
    /// A code of [`Format::CFloat16Uhp`].
    CFloat16Uhp(u16)
}
code! {
    /// A code of [`Format::Fp8E4M3`].
    Fp8E4M3(u8)
}
code! {
    /// A code of [`Format::Fp8E5M2`].
    Fp8E5M2(u8)
}

/// The bias that IEEE 754 would give.
const fn ieee_bias(bias: u8) -> CFloat {
    CFloat { bias, subnormals: Subnormals::Dojo }
}

element!(f32, f32, f32, F32, Format::F32);
element!(f64, f64, f64, F64, Format::F64);
element!(bf16, f32, u16, U16, Format::Bf16);
element!(f16, f32, u16, U16, Format::F16);
element!(CFloat8E4M3, f32, u8, U8, Format::CFloat8E4M3(ieee_bias(7)));
element!(CFloat8E5M2, f32, u8, U8, Format::CFloat8E5M2(ieee_bias(15)));
element!(CFloat16Shp, f32, u16, U16, Format::CFloat16Shp(ieee_bias(15)));
element!(CFloat16Uhp, f32, u16, U16, Format::CFloat16Uhp);
element!(Fp8E4M3, f32, u8, U8, Format::Fp8E4M3);
element!(Fp8E5M2, f32, u8, U8, Format::Fp8E5M2);
element!(i8, f32, u8, U8, Format::I8);
element!(u8, f32, u8, U8, Format::U8);
element!(i32, f32, i32, I32, Format::I32);
