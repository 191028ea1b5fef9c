//! What a code of a narrow float format means, and which code a value becomes. One branch-free form for all of them, so that a loop over it
//! becomes vector code under whatever features it is compiled with.
//!
//! ```text
//! code = sign | exponent | mantissa      value = +- 2^(exponent - bias) (1 + mantissa / 2^M)      exponent > 0
//!                                                +- unit mantissa                                  exponent = 0
//! ```
//!
//! `unit` is `2^(1 - bias - M)` as in IEEE 754, or `2^(-bias - M)` by the letter of Tesla's paper on configurable floating point formats:
//! then a hole lies below the least normal value.

use super::{CFloat, Format, Overflow, Subnormals};

/// Bits of an f32 beyond which it is a NaN.
const F32_INFINITY: u32 = 0x7f80_0000;

/// The numbers that describe a narrow float format.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    /// Mantissa bits that f32 has beyond this format.
    shift: u32,
    magnitude: u32,
    sign: u32,
    sign_shift: u32,
    /// What the exponent field gains in f32, in place.
    rebias: u32,
    unit: f32,
    inverse_unit: f32,
    first_normal: u32,
    least_normal: f32,
    /// The largest value below the least normal one, its code, the distance, and from where on values round up.
    below: f32,
    below_code: u32,
    gap: f32,
    middle: f32,
    /// From this code on: NaN, or Inf where it is `infinity`.
    first_special: u32,
    infinity: u32,
    nan: u32,
    largest: u32,
    overflow: u32,
}

/// How the values of a format lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ladder {
    /// As those of f32.
    F32,
    /// In even steps below the least normal value and above.
    Even,
    /// With a hole below the least normal value.
    Hole,
    /// With a hole, and nothing below zero.
    Unsigned,
}

/// No code.
const NONE: u32 = u32::MAX;

/// `2^e` for exponents of normal f32.
const fn exp2(e: i32) -> f32 {
    f32::from_bits(((e + 127) as u32) << 23)
}

impl Codec {
    /// Exponent and mantissa bits and a bias, every code a number.
    const fn new(exponent_bits: u32, mantissa_bits: u32, bias: i32, signed: bool) -> Self {
        let bits = exponent_bits + mantissa_bits;
        let magnitude = (1 << bits) - 1;
        let first_normal = 1 << mantissa_bits;
        let unit = exp2(1 - bias - mantissa_bits as i32);
        let least_normal = exp2(1 - bias);
        Codec {
            shift: 23 - mantissa_bits,
            magnitude,
            sign: if signed { 1 << bits } else { 0 },
            sign_shift: 31 - bits,
            rebias: ((127 - bias) as u32) << 23,
            unit,
            inverse_unit: 1.0 / unit,
            first_normal,
            least_normal,
            below: least_normal - unit,
            below_code: first_normal - 1,
            gap: unit,
            middle: least_normal - unit / 2.0,
            first_special: NONE,
            infinity: NONE,
            nan: magnitude,
            largest: magnitude,
            overflow: magnitude,
        }
    }

    /// Codes from `first` on are Inf (`infinity`) and NaN.
    const fn special(self, first: u32, infinity: u32, nan: u32) -> Self {
        let overflow = if infinity == NONE { nan } else { infinity };
        Codec { first_special: first, infinity, nan, largest: first - 1, overflow, ..self }
    }

    const fn subnormals(self, subnormals: Subnormals) -> Self {
        match subnormals {
            Subnormals::Ieee => self,
            Subnormals::Dojo => {
                let unit = self.unit / 2.0;
                let below = unit * self.below_code as f32;
                let gap = self.least_normal - below;
                let middle = below + gap / 2.0;
                Codec { unit, inverse_unit: 1.0 / unit, below, gap, middle, ..self }
            }
        }
    }

    const fn cfloat(self, cfloat: CFloat) -> Self {
        self.subnormals(cfloat.subnormals)
    }

    /// The codec of a float format below f32.
    pub const fn of(format: Format) -> Option<Self> {
        Some(match format {
            // The exponents of f32 itself: its subnormals need no care of their own.
            Format::Bf16 => Codec {
                first_normal: 0,
                least_normal: 0.0,
                rebias: 0,
                ..Codec::new(8, 7, 15, true).special(0x7f80, 0x7f80, 0x7fc0)
            },
            Format::F16 => Codec::new(5, 10, 15, true).special(0x7c00, 0x7c00, 0x7e00),
            Format::CFloat8E4M3(c) => Codec::new(4, 3, c.bias() as i32, true).cfloat(c),
            Format::CFloat8E5M2(c) => Codec::new(5, 2, c.bias() as i32, true).cfloat(c),
            Format::CFloat16Shp(c) => Codec::new(5, 10, c.bias() as i32, true).cfloat(c),
            Format::CFloat16Uhp => {
                let codec = Codec::new(6, 10, 31, false).special(0xfc00, 0xfc00, 0xfe00);
                // Subnormals are zero; what rounds to the least normal value at eleven bits becomes that.
                Codec { unit: 0.0, below: 0.0, below_code: 0, gap: codec.least_normal, ..codec }
            }
            Format::Fp8E4M3 => Codec::new(4, 3, 7, true).special(0x7f, NONE, 0x7f),
            Format::Fp8E5M2 => Codec::new(5, 2, 15, true).special(0x7c, 0x7c, 0x7e),
            Format::F32 | Format::F64 | Format::I8 | Format::U8 | Format::I32 => return None,
        })
    }

    /// The value of a code, exactly.
    #[inline(always)]
    pub fn widen(&self, code: u32) -> f32 {
        let magnitude = code & self.magnitude;
        let sign = (code & self.sign) << self.sign_shift;
        let normal = (magnitude << self.shift).wrapping_add(self.rebias);
        let subnormal = (magnitude as i32 as f32 * self.unit).to_bits();
        let bits = if magnitude < self.first_normal { subnormal } else { normal };
        let quiet = if magnitude == self.infinity { 0 } else { 0x40_0000 };
        let bits = if magnitude >= self.first_special { F32_INFINITY | quiet } else { bits };
        f32::from_bits(bits | sign)
    }

    /// The code that values beyond the largest become.
    pub fn top(&self, overflow: Overflow) -> u32 {
        match overflow {
            Overflow::Ieee => self.overflow,
            Overflow::Saturate => self.largest,
        }
    }

    /// The largest finite value.
    pub fn largest(&self) -> f32 {
        self.widen(self.largest)
    }

    /// Puts NaN and the sign in.
    #[inline(always)]
    fn complete<const SIGNED: bool>(&self, x: u32, code: u32) -> u32 {
        // Without a sign, what is below zero becomes zero.
        let code = if SIGNED {
            code | ((x >> self.sign_shift) & self.sign)
        } else {
            code & !(((x as i32) >> 31) as u32)
        };
        if (x & 0x7fff_ffff) > F32_INFINITY { self.nan } else { code }
    }

    /// The code of the nearest value, ties to even; `top` from [`Codec::top`].
    #[inline(always)]
    pub fn nearest(&self, x: f32, top: u32) -> u32 {
        let code = match self.ladder() {
            Ladder::F32 => self.nearest_bf16(x, top),
            Ladder::Even => self.nearest_low::<false, true>(x, top),
            Ladder::Hole => self.nearest_low::<true, true>(x, top),
            Ladder::Unsigned => self.nearest_low::<true, false>(x, top),
        };
        code & (self.magnitude | self.sign)
    }

    /// How the values lie: which form of rounding to nearest serves.
    #[inline(always)]
    pub(super) fn ladder(&self) -> Ladder {
        match (self.first_normal, self.sign, self.gap == self.unit) {
            (0, ..) => Ladder::F32,
            (_, 0, _) => Ladder::Unsigned,
            (_, _, true) => Ladder::Even,
            (_, _, false) => Ladder::Hole,
        }
    }

    /// [`Codec::nearest`] by one addition; bits above the code's are of no meaning. For a value of exponent `e`, one ulp of `2^(e + shift)` is one step of
    /// the format, so adding that rounds to nearest even and leaves the number of steps in the lower bits.
    #[inline(always)]
    pub(super) fn nearest_low<const HOLE: bool, const SIGNED: bool>(&self, x: f32, top: u32) -> u32 {
        let x = x.to_bits();
        // Beyond the top: the top, as if it were one more finite value.
        let size = (x & 0x7fff_ffff).min((top << self.shift) + self.rebias);
        let least = self.least_normal.to_bits();
        let (size, exponent, step) = if HOLE {
            // Values in the hole go to its nearer side before they are rounded.
            let to_side =
                if size < self.middle.to_bits() { size.min(self.below.to_bits()) } else { size.max(least) };
            let unit = (self.unit.to_bits() & F32_INFINITY) + ((23 - self.shift) << 23);
            let step = (to_side & F32_INFINITY).max(unit);
            (to_side, step.max(least), step)
        } else {
            let step = (size & F32_INFINITY).max(least);
            (size, step, step)
        };
        // What `exponent` adds for the least normal value is taken off here, in whole steps: an even number, which no tie notices.
        let off = (least >> self.shift).wrapping_neg() & 0xffff;
        let magic = step + ((self.shift << 23) | off);
        let sum = f32::from_bits(size) + f32::from_bits(magic);
        self.complete::<SIGNED>(x, sum.to_bits() + (exponent >> self.shift))
    }

    /// [`Codec::nearest`] of bf16, whose exponents are those of f32.
    #[inline(always)]
    pub(super) fn nearest_bf16(&self, x: f32, top: u32) -> u32 {
        let bits = x.to_bits();
        let size = bits & 0x7fff_ffff;
        let rounded = ((size + 0x7fff + ((size >> 16) & 1)) >> 16).min(top);
        self.complete::<true>(bits, rounded)
    }

    /// One of the two neighbouring codes, the upper one where `random` lies below the value's place between them.
    #[inline(always)]
    pub fn stochastic(&self, x: f32, top: u32, random: u32) -> u32 {
        let x = x.to_bits();
        let bits = x & 0x7fff_ffff;
        let value = f32::from_bits(bits);
        let rounded = (bits + (random & ((1u32 << self.shift) - 1))) >> self.shift;
        // An infinity must not become a NaN's code by carrying.
        let rounded = if bits == F32_INFINITY { bits >> self.shift } else { rounded };
        let normal = rounded.wrapping_sub(self.rebias >> self.shift);
        let scaled = if value < self.below { value * self.inverse_unit } else { 0.0 };
        let whole = scaled as i32;
        let at_edge = value >= self.below;
        let place = if at_edge { (value - self.below) / self.gap } else { scaled - whole as f32 };
        // 24 bits: the upper ones, so that they are others than those of the normal range at equal seed.
        let up = ((random >> 8) as i32 as f32) < place * 16_777_216.0;
        let low = if at_edge { self.below_code } else { whole as u32 };
        let high = if at_edge { self.first_normal } else { whole as u32 + 1 };
        let subnormal = if up { high } else { low };
        let magnitude = if value < self.least_normal { subnormal } else { normal };
        let code = magnitude.min(top);
        if self.sign == 0 { self.complete::<false>(x, code) } else { self.complete::<true>(x, code) }
    }
}
