//! AVX-512: 32 registers of 16 f32 or 8 f64, edges by mask registers.

use std::arch::x86_64::*;

use crate::simd::token::{feature_fns, token};
use crate::simd::{Dot, FloatLanes, I16x2, Lanes, MathLanes};

use super::Avx2;

token! {
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    Avx512, "avx2,fma,f16c,bmi1,bmi2,lzcnt,movbe,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl",
    detect: Avx2::new().is_some()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl"),
    transpose_8x8: super::avx2::transpose_8x8,
    f16: super::avx2::widen_f16, super::avx2::narrow_f16,
    look_up: look_up, interleave
}

/// [`crate::simd::Simd::look_up`]: the table in four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn look_up(table: &[u16; 128], codes: &[u8; 32]) -> [u16; 32] {
    // SAFETY: a quarter of the table is 32 words, and there are 32 codes.
    let (quarters, codes) = unsafe {
        let quarter = |i: usize| _mm512_loadu_epi16(table.as_ptr().add(32 * i).cast());
        ([quarter(0), quarter(1), quarter(2), quarter(3)], _mm256_loadu_si256(codes.as_ptr().cast()))
    };
    let codes = _mm512_cvtepu8_epi16(codes);
    // The permutation reads the lower six bits.
    let low = _mm512_permutex2var_epi16(quarters[0], codes, quarters[1]);
    let high = _mm512_permutex2var_epi16(quarters[2], codes, quarters[3]);
    let upper_half = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40));
    let magnitude = _mm512_mask_blend_epi16(upper_half, low, high);
    let sign = _mm512_and_si512(_mm512_slli_epi16::<8>(codes), _mm512_set1_epi16(i16::MIN));
    let mut words = [0; 32];
    // SAFETY: there are 32 words.
    unsafe { _mm512_storeu_epi16(words.as_mut_ptr().cast(), _mm512_or_si512(magnitude, sign)) };
    words
}

/// [`crate::simd::Simd::interleave`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn interleave(even: &[u8; 16], odd: &[u8; 16]) -> [u8; 32] {
    let mut bytes = [0; 32];
    // SAFETY: both halves have sixteen bytes, the result twice as many.
    unsafe {
        let (even, odd) = (_mm_loadu_si128(even.as_ptr().cast()), _mm_loadu_si128(odd.as_ptr().cast()));
        let both = _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
        _mm256_storeu_si256(bytes.as_mut_ptr().cast(), both);
    }
    bytes
}

/// The lanes of a token that has at least the features of [`Avx512`].
macro_rules! avx512_lanes {
    ($token:ty) => {
        impl Lanes<f32> for $token {
            type V = __m512;
            const LANES: usize = 16;
            feature_fns! { "avx512f,avx512dq";
                fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
                fn load(src: &[f32]) -> __m512 {
                    assert!(src.len() >= 16);
                    // SAFETY: sixteen elements are there.
                    unsafe { _mm512_loadu_ps(src.as_ptr()) }
                }
                fn load_first_n(src: &[f32], n: usize) -> __m512 {
                    assert!(n <= 16 && src.len() >= n);
                    // SAFETY: only the first n lanes are read, and they are there.
                    unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as __mmask16, src.as_ptr()) }
                }
                fn store(dst: &mut [f32], v: __m512) {
                    assert!(dst.len() >= 16);
                    // SAFETY: sixteen elements are there.
                    unsafe { _mm512_storeu_ps(dst.as_mut_ptr(), v) }
                }
                fn store_first_n(dst: &mut [f32], n: usize, v: __m512) {
                    assert!(n <= 16 && dst.len() >= n);
                    // SAFETY: only the first n lanes are written, and they are there.
                    unsafe { _mm512_mask_storeu_ps(dst.as_mut_ptr(), ((1u32 << n) - 1) as __mmask16, v) }
                }
                fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
            }
        }

        impl FloatLanes<f32> for $token {
            feature_fns! { "avx512f,avx512dq";
                fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
                fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
                fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
            }
        }

        impl Lanes<f64> for $token {
            type V = __m512d;
            const LANES: usize = 8;
            feature_fns! { "avx512f,avx512dq";
                fn splat(value: f64) -> __m512d { _mm512_set1_pd(value) }
                fn load(src: &[f64]) -> __m512d {
                    assert!(src.len() >= 8);
                    // SAFETY: eight elements are there.
                    unsafe { _mm512_loadu_pd(src.as_ptr()) }
                }
                fn load_first_n(src: &[f64], n: usize) -> __m512d {
                    assert!(n <= 8 && src.len() >= n);
                    // SAFETY: only the first n lanes are read, and they are there.
                    unsafe { _mm512_maskz_loadu_pd(((1u32 << n) - 1) as __mmask8, src.as_ptr()) }
                }
                fn store(dst: &mut [f64], v: __m512d) {
                    assert!(dst.len() >= 8);
                    // SAFETY: eight elements are there.
                    unsafe { _mm512_storeu_pd(dst.as_mut_ptr(), v) }
                }
                fn store_first_n(dst: &mut [f64], n: usize, v: __m512d) {
                    assert!(n <= 8 && dst.len() >= n);
                    // SAFETY: only the first n lanes are written, and they are there.
                    unsafe { _mm512_mask_storeu_pd(dst.as_mut_ptr(), ((1u32 << n) - 1) as __mmask8, v) }
                }
                fn add(a: __m512d, b: __m512d) -> __m512d { _mm512_add_pd(a, b) }
            }
        }

        impl FloatLanes<f64> for $token {
            feature_fns! { "avx512f,avx512dq";
                fn mul(a: __m512d, b: __m512d) -> __m512d { _mm512_mul_pd(a, b) }
                fn mul_add(a: __m512d, b: __m512d, c: __m512d) -> __m512d { _mm512_fmadd_pd(a, b, c) }
                fn max(a: __m512d, b: __m512d) -> __m512d { _mm512_max_pd(a, b) }
            }
        }

        impl Lanes<i32> for $token {
            type V = __m512i;
            const LANES: usize = 16;
            feature_fns! { "avx512f,avx512bw";
                fn splat(value: i32) -> __m512i { _mm512_set1_epi32(value) }
                fn load(src: &[i32]) -> __m512i {
                    assert!(src.len() >= 16);
                    // SAFETY: sixteen elements are there.
                    unsafe { _mm512_loadu_epi32(src.as_ptr()) }
                }
                fn load_first_n(src: &[i32], n: usize) -> __m512i {
                    assert!(n <= 16 && src.len() >= n);
                    // SAFETY: only the first n lanes are read, and they are there.
                    unsafe { _mm512_maskz_loadu_epi32(((1u32 << n) - 1) as __mmask16, src.as_ptr()) }
                }
                fn store(dst: &mut [i32], v: __m512i) {
                    assert!(dst.len() >= 16);
                    // SAFETY: sixteen elements are there.
                    unsafe { _mm512_storeu_epi32(dst.as_mut_ptr(), v) }
                }
                fn store_first_n(dst: &mut [i32], n: usize, v: __m512i) {
                    assert!(n <= 16 && dst.len() >= n);
                    // SAFETY: only the first n lanes are written, and they are there.
                    unsafe { _mm512_mask_storeu_epi32(dst.as_mut_ptr(), ((1u32 << n) - 1) as __mmask16, v) }
                }
                fn add(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
            }
        }

        impl Dot<I16x2> for $token {
            type P = __m512i;
            feature_fns! { "avx512f,avx512bw";
                fn splat_unit(unit: I16x2) -> __m512i { _mm512_set1_epi32(unit.0 as i32) }
                fn load_units(src: &[I16x2]) -> __m512i {
                    assert!(src.len() >= 16);
                    // SAFETY: sixteen units are there.
                    unsafe { _mm512_loadu_epi32(src.as_ptr().cast()) }
                }
                fn dot(a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
                    _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
                }
                fn segment(sum: __m512i, _row: [i32; 2], _cols: [__m512i; 2]) -> __m512i { sum }
            }
        }

        impl MathLanes for $token {
            type Mask = __mmask16;
            feature_fns! { "avx512f,avx512dq";
                fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
                fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
                fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
                fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
                fn xor_sign(a: __m512, b: __m512) -> __m512 {
                    _mm512_xor_ps(a, _mm512_and_ps(b, _mm512_set1_ps(-0.0)))
                }
                fn less(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
                fn select(mask: __mmask16, a: __m512, b: __m512) -> __m512 { _mm512_mask_blend_ps(mask, b, a) }
                fn exp2_int(n: __m512) -> __m512 {
                    let biased = _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
                }
            }
        }
    };
}
pub(super) use avx512_lanes;

avx512_lanes!(Avx512);
