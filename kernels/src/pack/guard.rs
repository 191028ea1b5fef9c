//! The exponent guard: where the bf16 dot product is two f32 fmas, bit for bit.
//!
//! `vdpbf16ps` counts subnormal inputs as zero and makes subnormal results zero; otherwise it is two fmas. A product of two bf16 with exponents
//! `ea` and `eb` is a multiple of `2^(ea + eb - 14)`, for each has 8 significant bits. If for the least exponents of two panels, no element being
//! subnormal, `ea + eb - 14 >= -126`, then every product, every exact partial sum, and every rounded one is a multiple of 2^-126, the
//! least normal f32: no result is subnormal, nothing is ever flushed.

use crate::simd::Simd;

/// The least exponent of a panel of zeros.
pub(super) const ALL_ZERO: i32 = 1 << 20;
/// The least exponent of a panel with a subnormal element.
const HAS_SUBNORMAL: i32 = -(1 << 20);

/// Whether two panels of these least exponents may be multiplied by the dot product. Panels that were read from a file may hold anything.
#[inline(always)]
pub fn allows(lhs: i32, rhs: i32) -> bool {
    lhs.saturating_add(rhs) >= 14 - 126
}

/// The least exponent among the nonzero bf16 of a panel of pairs.
#[inline(always)]
pub(super) fn least_exponent<S: Simd>(s: S, panel: &[u32]) -> i32 {
    exponent(s.least_half(panel))
}

/// The exponent of the least of codes without their sign, less one.
#[inline(always)]
pub(super) fn exponent(least: u16) -> i32 {
    match least {
        u16::MAX => ALL_ZERO,
        least if least + 1 < 0x80 => HAS_SUBNORMAL,
        least => i32::from((least + 1) >> 7) - 127,
    }
}
