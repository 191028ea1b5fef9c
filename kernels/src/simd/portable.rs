//! Vectors for every target, over the crate `wide`, which picks its instructions at build time.
//!
//! `wide`'s own `mul_add` rounds once or twice depending on build flags. It is used only where it rounds once; elsewhere
//! f32 takes [`super::fma`] and f64 the standard library's `mul_add`, which is specified to round once.

use wide::{f32x8, f64x4, i16x16, i32x8};

use super::{Dot, FloatLanes, I16x2, Lanes, MathLanes, Simd, WithToken};

/// The token that every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portable;

impl Simd for Portable {
    const TILES: bool = false;
    #[inline(always)]
    fn vectorize<Op: WithToken<Self>>(self, op: Op) -> Op::Output {
        op.with_token(self)
    }
    #[inline(never)]
    fn apart<Op: WithToken<Self>>(self, op: Op) -> Op::Output {
        op.with_token(self)
    }
}

macro_rules! portable_lanes {
    ($t:ty, $v:ty, $n:literal, $fma:expr) => {
        impl Lanes<$t> for Portable {
            type V = $v;
            const LANES: usize = $n;
            #[inline(always)]
            fn splat(self, value: $t) -> $v {
                <$v>::splat(value)
            }
            #[inline(always)]
            fn load(self, src: &[$t]) -> $v {
                <$v>::new(*src.first_chunk::<$n>().expect("a whole vector to load"))
            }
            #[inline(always)]
            fn load_first_n(self, src: &[$t], n: usize) -> $v {
                let mut lanes = [0.0; $n];
                lanes[..n].copy_from_slice(&src[..n]);
                <$v>::new(lanes)
            }
            #[inline(always)]
            fn store(self, dst: &mut [$t], v: $v) {
                *dst.first_chunk_mut::<$n>().expect("room for a whole vector") = v.to_array();
            }
            #[inline(always)]
            fn store_first_n(self, dst: &mut [$t], n: usize, v: $v) {
                dst[..n].copy_from_slice(&v.to_array()[..n]);
            }
            #[inline(always)]
            fn add(self, a: $v, b: $v) -> $v {
                a + b
            }
        }

        impl FloatLanes<$t> for Portable {
            #[inline(always)]
            fn mul(self, a: $v, b: $v) -> $v {
                a * b
            }
            #[inline(always)]
            fn mul_add(self, a: $v, b: $v, c: $v) -> $v {
                #[cfg(target_feature = "fma")]
                {
                    a.mul_add(b, c)
                }
                #[cfg(not(target_feature = "fma"))]
                {
                    let (a, b, c) = (a.to_array(), b.to_array(), c.to_array());
                    let fma: fn($t, $t, $t) -> $t = $fma;
                    <$v>::new(std::array::from_fn(|i| fma(a[i], b[i], c[i])))
                }
            }
            #[inline(always)]
            fn max(self, a: $v, b: $v) -> $v {
                b.simd_lt(a).select(a, b)
            }
            #[inline(always)]
            fn zip(self, a: $v, b: $v) -> [$v; 2] {
                let lanes = [a.to_array(), b.to_array()];
                [0, $n / 2].map(|from| <$v>::new(std::array::from_fn(|i| lanes[i % 2][from + i / 2])))
            }
            #[inline(always)]
            fn unzip(self, a: $v, b: $v) -> [$v; 2] {
                let lanes = [a.to_array(), b.to_array()];
                let lane = |i: usize| lanes[i / $n][i % $n];
                [0, 1].map(|odd| <$v>::new(std::array::from_fn(|i| lane(2 * i + odd))))
            }
        }
    };
}
portable_lanes!(f32, f32x8, 8, super::fma::fma_f32);
portable_lanes!(f64, f64x4, 4, f64::mul_add);

impl Lanes<i32> for Portable {
    type V = i32x8;
    const LANES: usize = 8;
    #[inline(always)]
    fn splat(self, value: i32) -> i32x8 {
        i32x8::splat(value)
    }
    #[inline(always)]
    fn load(self, src: &[i32]) -> i32x8 {
        i32x8::new(*src.first_chunk::<8>().expect("a whole vector to load"))
    }
    #[inline(always)]
    fn load_first_n(self, src: &[i32], n: usize) -> i32x8 {
        let mut lanes = [0; 8];
        lanes[..n].copy_from_slice(&src[..n]);
        i32x8::new(lanes)
    }
    #[inline(always)]
    fn store(self, dst: &mut [i32], v: i32x8) {
        *dst.first_chunk_mut::<8>().expect("room for a whole vector") = v.to_array();
    }
    #[inline(always)]
    fn store_first_n(self, dst: &mut [i32], n: usize, v: i32x8) {
        dst[..n].copy_from_slice(&v.to_array()[..n]);
    }
    #[inline(always)]
    fn add(self, a: i32x8, b: i32x8) -> i32x8 {
        a + b
    }
}

impl Dot<I16x2> for Portable {
    type P = i16x16;
    #[inline(always)]
    fn splat_unit(self, unit: I16x2) -> i16x16 {
        bytemuck::cast([unit; 8])
    }
    #[inline(always)]
    fn load_units(self, src: &[I16x2]) -> i16x16 {
        bytemuck::cast(*src.first_chunk::<8>().expect("a whole vector to load"))
    }
    #[inline(always)]
    fn dot(self, a: i16x16, b: i16x16, sum: i32x8) -> i32x8 {
        sum + a.dot(b)
    }
    #[inline(always)]
    fn segment(self, sum: i32x8, _row: [i32; 2], _cols: [i32x8; 2]) -> i32x8 {
        sum
    }
}

impl MathLanes for Portable {
    type Mask = f32x8;
    #[inline(always)]
    fn sub(self, a: f32x8, b: f32x8) -> f32x8 {
        a - b
    }
    #[inline(always)]
    fn div(self, a: f32x8, b: f32x8) -> f32x8 {
        a / b
    }
    #[inline(always)]
    fn min(self, a: f32x8, b: f32x8) -> f32x8 {
        a.simd_lt(b).select(a, b)
    }
    #[inline(always)]
    fn abs(self, a: f32x8) -> f32x8 {
        a.abs()
    }
    #[inline(always)]
    fn xor_sign(self, a: f32x8, b: f32x8) -> f32x8 {
        a ^ (b & f32x8::splat(-0.0))
    }
    #[inline(always)]
    fn less(self, a: f32x8, b: f32x8) -> f32x8 {
        a.simd_lt(b)
    }
    #[inline(always)]
    fn select(self, mask: f32x8, a: f32x8, b: f32x8) -> f32x8 {
        mask.select(a, b)
    }
    #[inline(always)]
    fn exp2_int(self, n: f32x8) -> f32x8 {
        let biased: i32x8 = n.fast_trunc_int() + i32x8::splat(127);
        bytemuck::cast(biased << 23)
    }
}
