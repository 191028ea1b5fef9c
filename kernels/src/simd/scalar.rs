//! One lane, plain Rust: what the reference backend and the definition of [`crate::math`] run on.

use super::{FloatLanes, Lanes, MathLanes};

/// The token of one lane. It needs no feature and is the meaning of every other token's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar;

macro_rules! scalar_lanes {
    ($t:ty) => {
        impl Lanes<$t> for Scalar {
            type V = $t;
            const LANES: usize = 1;
            #[inline(always)]
            fn splat(self, value: $t) -> $t {
                value
            }
            #[inline(always)]
            fn load(self, src: &[$t]) -> $t {
                src[0]
            }
            #[inline(always)]
            fn load_first_n(self, src: &[$t], n: usize) -> $t {
                if n == 0 { 0.0 } else { src[0] }
            }
            #[inline(always)]
            fn store(self, dst: &mut [$t], v: $t) {
                dst[0] = v;
            }
            #[inline(always)]
            fn store_first_n(self, dst: &mut [$t], n: usize, v: $t) {
                if n > 0 {
                    dst[0] = v;
                }
            }
            #[inline(always)]
            fn add(self, a: $t, b: $t) -> $t {
                a + b
            }
        }

        impl FloatLanes<$t> for Scalar {
            #[inline(always)]
            fn mul(self, a: $t, b: $t) -> $t {
                a * b
            }
            #[inline(always)]
            fn mul_add(self, a: $t, b: $t, c: $t) -> $t {
                a.mul_add(b, c)
            }
            #[inline(always)]
            fn max(self, a: $t, b: $t) -> $t {
                if a > b { a } else { b }
            }
            #[inline(always)]
            fn zip(self, a: $t, b: $t) -> [$t; 2] {
                [a, b]
            }
            #[inline(always)]
            fn unzip(self, a: $t, b: $t) -> [$t; 2] {
                [a, b]
            }
        }
    };
}
scalar_lanes!(f32);
scalar_lanes!(f64);

impl MathLanes for Scalar {
    type Mask = bool;
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn abs(self, a: f32) -> f32 {
        a.abs()
    }
    #[inline(always)]
    fn xor_sign(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits() ^ (b.to_bits() & 0x8000_0000))
    }
    #[inline(always)]
    fn less(self, a: f32, b: f32) -> bool {
        a < b
    }
    #[inline(always)]
    fn select(self, mask: bool, a: f32, b: f32) -> f32 {
        if mask { a } else { b }
    }
    #[inline(always)]
    fn exp2_int(self, n: f32) -> f32 {
        f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)
    }
}
