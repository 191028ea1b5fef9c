//! NEON: 32 registers of 4 f32 or 2 f64. No masked memory access: edges go through a small array.

use std::arch::aarch64::*;

use crate::simd::token::{feature_fns, token};
use crate::simd::{Dot, FloatLanes, I16x2, Lanes, MathLanes};

token! {
    /// Advanced SIMD of armv8-a.
    Neon, "neon", detect: std::arch::is_aarch64_feature_detected!("neon")
}

impl Lanes<f32> for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    feature_fns! { "neon";
        fn splat(value: f32) -> float32x4_t { vdupq_n_f32(value) }
        fn load(src: &[f32]) -> float32x4_t {
            assert!(src.len() >= 4);
            // SAFETY: four elements are there.
            unsafe { vld1q_f32(src.as_ptr()) }
        }
        fn load_first_n(src: &[f32], n: usize) -> float32x4_t {
            let mut lanes = [0.0; 4];
            lanes[..n].copy_from_slice(&src[..n]);
            // SAFETY: the array has four elements.
            unsafe { vld1q_f32(lanes.as_ptr()) }
        }
        fn store(dst: &mut [f32], v: float32x4_t) {
            assert!(dst.len() >= 4);
            // SAFETY: four elements are there.
            unsafe { vst1q_f32(dst.as_mut_ptr(), v) }
        }
        fn store_first_n(dst: &mut [f32], n: usize, v: float32x4_t) {
            let mut lanes = [0.0; 4];
            // SAFETY: the array has four elements.
            unsafe { vst1q_f32(lanes.as_mut_ptr(), v) }
            dst[..n].copy_from_slice(&lanes[..n]);
        }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
    }
}

impl FloatLanes<f32> for Neon {
    feature_fns! { "neon";
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        fn zip(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] { [vzip1q_f32(a, b), vzip2q_f32(a, b)] }
        fn unzip(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] { [vuzp1q_f32(a, b), vuzp2q_f32(a, b)] }
    }
}

impl Lanes<f64> for Neon {
    type V = float64x2_t;
    const LANES: usize = 2;
    feature_fns! { "neon";
        fn splat(value: f64) -> float64x2_t { vdupq_n_f64(value) }
        fn load(src: &[f64]) -> float64x2_t {
            assert!(src.len() >= 2);
            // SAFETY: two elements are there.
            unsafe { vld1q_f64(src.as_ptr()) }
        }
        fn load_first_n(src: &[f64], n: usize) -> float64x2_t {
            let mut lanes = [0.0; 2];
            lanes[..n].copy_from_slice(&src[..n]);
            // SAFETY: the array has two elements.
            unsafe { vld1q_f64(lanes.as_ptr()) }
        }
        fn store(dst: &mut [f64], v: float64x2_t) {
            assert!(dst.len() >= 2);
            // SAFETY: two elements are there.
            unsafe { vst1q_f64(dst.as_mut_ptr(), v) }
        }
        fn store_first_n(dst: &mut [f64], n: usize, v: float64x2_t) {
            let mut lanes = [0.0; 2];
            // SAFETY: the array has two elements.
            unsafe { vst1q_f64(lanes.as_mut_ptr(), v) }
            dst[..n].copy_from_slice(&lanes[..n]);
        }
        fn add(a: float64x2_t, b: float64x2_t) -> float64x2_t { vaddq_f64(a, b) }
    }
}

impl FloatLanes<f64> for Neon {
    feature_fns! { "neon";
        fn mul(a: float64x2_t, b: float64x2_t) -> float64x2_t { vmulq_f64(a, b) }
        fn mul_add(a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t { vfmaq_f64(c, a, b) }
        fn max(a: float64x2_t, b: float64x2_t) -> float64x2_t { vbslq_f64(vcgtq_f64(a, b), a, b) }
        fn zip(a: float64x2_t, b: float64x2_t) -> [float64x2_t; 2] { [vzip1q_f64(a, b), vzip2q_f64(a, b)] }
        fn unzip(a: float64x2_t, b: float64x2_t) -> [float64x2_t; 2] { [vuzp1q_f64(a, b), vuzp2q_f64(a, b)] }
    }
}

impl Lanes<i32> for Neon {
    type V = int32x4_t;
    const LANES: usize = 4;
    feature_fns! { "neon";
        fn splat(value: i32) -> int32x4_t { vdupq_n_s32(value) }
        fn load(src: &[i32]) -> int32x4_t {
            assert!(src.len() >= 4);
            // SAFETY: four elements are there.
            unsafe { vld1q_s32(src.as_ptr()) }
        }
        fn load_first_n(src: &[i32], n: usize) -> int32x4_t {
            let mut lanes = [0; 4];
            lanes[..n].copy_from_slice(&src[..n]);
            // SAFETY: the array has four elements.
            unsafe { vld1q_s32(lanes.as_ptr()) }
        }
        fn store(dst: &mut [i32], v: int32x4_t) {
            assert!(dst.len() >= 4);
            // SAFETY: four elements are there.
            unsafe { vst1q_s32(dst.as_mut_ptr(), v) }
        }
        fn store_first_n(dst: &mut [i32], n: usize, v: int32x4_t) {
            let mut lanes = [0; 4];
            // SAFETY: the array has four elements.
            unsafe { vst1q_s32(lanes.as_mut_ptr(), v) }
            dst[..n].copy_from_slice(&lanes[..n]);
        }
        fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
    }
}

impl Dot<I16x2> for Neon {
    type P = int16x8_t;
    feature_fns! { "neon";
        fn splat_unit(unit: I16x2) -> int16x8_t { vreinterpretq_s16_u32(vdupq_n_u32(unit.0)) }
        fn load_units(src: &[I16x2]) -> int16x8_t {
            assert!(src.len() >= 4);
            // SAFETY: four units are there.
            unsafe { vld1q_s16(src.as_ptr().cast()) }
        }
        fn dot(a: int16x8_t, b: int16x8_t, sum: int32x4_t) -> int32x4_t {
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            let high = vmull_high_s16(a, b);
            vaddq_s32(sum, vpaddq_s32(low, high))
        }
        fn segment(sum: int32x4_t, _row: [i32; 2], _cols: [int32x4_t; 2]) -> int32x4_t { sum }
    }
}

impl MathLanes for Neon {
    type Mask = uint32x4_t;
    feature_fns! { "neon";
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        fn abs(a: float32x4_t) -> float32x4_t { vabsq_f32(a) }
        fn xor_sign(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            let sign = vandq_u32(vreinterpretq_u32_f32(b), vdupq_n_u32(0x8000_0000));
            vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), sign))
        }
        fn less(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vcltq_f32(a, b) }
        fn select(mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(mask, a, b) }
        fn exp2_int(n: float32x4_t) -> float32x4_t {
            let biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        }
    }
}
