//! How a value becomes a code: rounding and overflow (N7).

use super::{Codec, Format};

/// Which of the two neighbouring codes a value becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The nearer one; of two equally near ones the even one.
    #[default]
    Nearest,
    /// The upper one with the probability of the value's place between the two. The random bits are those of [`random_bits`] for the seed
    /// and the element's row-major index in the tensor that is written: the same on every machine, for every partition.
    Stochastic {
        /// Another seed gives other bits.
        seed: u64,
    },
}

/// What becomes of values beyond the largest finite one. Formats without Inf and NaN (Dojo's, but for UHP) always saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// What rounds beyond the largest value becomes Inf, or NaN where the format has no Inf (OCP's E4M3FN).
    #[default]
    Ieee,
    /// The largest finite value, from Inf too. A NaN stays a NaN where the format has one.
    Saturate,
}

/// How results are narrowed to a format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Narrow {
    /// To which neighbour.
    pub rounding: Rounding,
    /// Beyond the largest.
    pub overflow: Overflow,
}

/// Beyond this every 8-bit integer saturates, whatever its zero point; no sum with one overflows.
const LIMIT: f32 = 65_536.0;
/// Adding this to an f32 of at most 2^22 leaves the nearest whole number in the mantissa, in two's complement.
const TO_WHOLE: f32 = 12_582_912.0;

/// A format to write, and how values get there.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    format: Format,
    codec: Option<Codec>,
    top: u32,
    rounding: Rounding,
    /// Of 8-bit integers: bounds, and the code of zero.
    low: i32,
    high: i32,
    zero: i32,
}

impl Target {
    /// Writes `format` as `narrow` says; `zero` is the zero point of 8-bit integers.
    pub fn new(format: Format, narrow: Narrow, zero: i32) -> Self {
        let codec = Codec::of(format);
        let (low, high) = match format {
            Format::I8 => (i8::MIN.into(), i8::MAX.into()),
            Format::U8 => (0, u8::MAX.into()),
            _ => (0, 0),
        };
        let top = codec.map_or(0, |codec| codec.top(narrow.overflow));
        Target { format, codec, top, rounding: narrow.rounding, low, high, zero }
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether random bits are asked for.
    #[inline(always)]
    pub fn seed(&self) -> Option<u64> {
        match self.rounding {
            Rounding::Nearest => None,
            Rounding::Stochastic { seed } => Some(seed),
        }
    }

    /// How narrow floats are read, if the format is one.
    #[inline(always)]
    pub(crate) fn codec(&self) -> Option<(Codec, u32)> {
        self.codec.map(|codec| (codec, self.top))
    }

    /// The 8-bit integer that is `x` rounded, plus the zero point, clamped; NaN becomes the zero point.
    #[inline(always)]
    pub(crate) fn integer(&self, x: f32, random: Option<u32>) -> u32 {
        // Comparisons and additions only: a loop over this becomes vector code.
        let x = if x.is_nan() { 0.0 } else { x };
        let x = if x < LIMIT { x } else { LIMIT };
        let x = if x > -LIMIT { x } else { -LIMIT };
        let nearest = (x + TO_WHOLE) - TO_WHOLE;
        let rounded = match random {
            None => nearest,
            Some(random) => {
                let floor = if nearest > x { nearest - 1.0 } else { nearest };
                let up = ((random >> 8) as i32 as f32) < (x - floor) * 16_777_216.0;
                if up { floor + 1.0 } else { floor }
            }
        };
        let whole = (rounded + TO_WHOLE).to_bits().wrapping_sub(TO_WHOLE.to_bits()) as i32;
        (whole + self.zero).clamp(self.low, self.high) as u8 as u32
    }

    /// The code of one value; of f32 and wider formats there is none.
    #[inline(always)]
    pub fn code(&self, x: f32, index: u64) -> Option<u32> {
        let random = self.seed().map(|seed| random_bits(seed, index));
        match (self.codec(), self.format) {
            (Some((codec, top)), _) => Some(match random {
                None => codec.nearest(x, top),
                Some(random) => codec.stochastic(x, top, random),
            }),
            (None, Format::I8 | Format::U8) => Some(self.integer(x, random)),
            _ => None,
        }
    }
}

/// The random bits of element `index`: output `index` of SplitMix64 from `seed` (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", OOPSLA 2014), upper half. A counter, not a state: any element's bits at any time.
#[inline(always)]
pub fn random_bits(seed: u64, index: u64) -> u32 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}

/// f64 to f32, an inexact value to that neighbour whose last bit is one. Rounded again to a format with at least two bits less, the result is
/// that of one rounding (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers 57(4), 2008).
#[inline(always)]
pub fn round_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || x.is_nan() {
        return nearest;
    }
    let beyond = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(beyond)) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bits_are_those_of_splitmix64() {
        // Vigna's splitmix64.c started from 1234567 prints these; the upper halves are ours.
        let first = [6457827717110365317u64, 3203168211198807973, 9817491932198370423];
        for (i, want) in first.into_iter().enumerate() {
            assert_eq!(random_bits(1234567, i as u64), (want >> 32) as u32);
        }
    }

    #[test]
    fn odd_rounding_keeps_what_a_second_rounding_needs() {
        for x in [1.0 + 2f64.powi(-30), 1e300, -1e300, 1e-60, f64::INFINITY, 0.1, 3.0, -0.0] {
            let y = round_to_odd(x);
            assert!(f64::from(y) == x || y.to_bits() & 1 == 1, "{x} became {y}");
            let between = f64::from(y.next_down()) < x && x < f64::from(y.next_up());
            assert!(f64::from(y) == x || between, "{y} is no neighbour of {x}");
        }
        assert!(round_to_odd(f64::NAN).is_nan());
        assert_eq!(round_to_odd(1e300), f32::MAX);
    }
}
