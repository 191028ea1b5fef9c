//! AVX2 with FMA: 16 registers of 8 f32 or 4 f64.

use std::arch::x86_64::*;

use crate::simd::token::{feature_fns, token};
use crate::simd::{Dot, FloatLanes, I16x2, Lanes, MathLanes};

token! {
    /// x86-64-v3: AVX2, FMA, F16C, BMI.
    Avx2, "avx2,fma,f16c,bmi1,bmi2,lzcnt,movbe,popcnt",
    detect: is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("popcnt"),
    transpose_8x8: transpose_8x8, transpose_8x4,
    f16: widen_f16, narrow_f16,
    byte_pairs: byte_pairs => __m256i
}

/// [`crate::simd::Simd::byte_pairs`].
#[inline]
#[target_feature(enable = "avx2")]
fn byte_pairs(rows: [&[u8]; 2], flip: u8, less: i16) -> __m256i {
    let [even, odd] = rows.map(|row| {
        assert!(row.len() >= 8);
        // SAFETY: eight bytes are there.
        _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(row.as_ptr().cast()) })
    });
    let codes = _mm256_or_si256(even, _mm256_slli_epi32::<16>(odd));
    let values = _mm256_xor_si256(codes, _mm256_set1_epi16(flip.into()));
    _mm256_sub_epi16(values, _mm256_set1_epi16(less))
}

/// Halves of rows i and i + 4 come to one vector from memory, which takes no shuffle; then neighbours and pairs.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose_8x8(block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    let mut out = [[0.0; 8]; 8];
    for (h, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let mut rows = [&[0.0; 4]; 8];
        for (row, block) in rows.iter_mut().zip(&block) {
            *row = &block.as_chunks().0[h];
        }
        *out = transpose_8x4(rows);
    }
    out
}

/// [`crate::simd::Simd::transpose_8x4`]: what lies four rows apart is put together as it is loaded, so that no shuffle crosses the halves of a vector.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose_8x4(rows: [&[f32; 4]; 8]) -> [[f32; 8]; 4] {
    let mut r = [_mm256_setzero_ps(); 4];
    for (i, r) in r.iter_mut().enumerate() {
        // SAFETY: a row has four elements.
        let (low, high) = unsafe { (_mm_loadu_ps(rows[i].as_ptr()), _mm_loadu_ps(rows[i + 4].as_ptr())) };
        *r = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high);
    }
    let (a, b) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
    let (c, d) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
    let columns = [
        _mm256_shuffle_ps::<0x44>(a, c),
        _mm256_shuffle_ps::<0xee>(a, c),
        _mm256_shuffle_ps::<0x44>(b, d),
        _mm256_shuffle_ps::<0xee>(b, d),
    ];
    let mut out = [[0.0; 8]; 4];
    for (out, column) in out.iter_mut().zip(columns) {
        // SAFETY: a row of the result has eight elements.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), column) };
    }
    out
}

/// [`crate::simd::Simd::widen_f16`], eight at a time.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn widen_f16(codes: &[u16], out: &mut [f32]) {
    let eight = |codes: &[u16; 8], out: &mut [f32; 8]| {
        // SAFETY: both arrays have eight elements.
        unsafe {
            let values = _mm256_cvtph_ps(_mm_loadu_si128(codes.as_ptr().cast()));
            // The payload of a NaN goes: only its sign is kept.
            let nans = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
            let sign = _mm256_and_ps(values, _mm256_set1_ps(-0.0));
            let nan = _mm256_or_ps(sign, _mm256_set1_ps(f32::NAN));
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_blendv_ps(values, nan, nans));
        }
    };
    in_blocks(codes, out, eight);
}

/// [`crate::simd::Simd::narrow_f16`], eight at a time.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn narrow_f16(values: &[f32], out: &mut [u16]) {
    let eight = |values: &[f32; 8], out: &mut [u16; 8]| {
        // SAFETY: both arrays have eight elements.
        unsafe {
            let values = _mm256_loadu_ps(values.as_ptr());
            let nans = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
            let values = _mm256_blendv_ps(values, _mm256_set1_ps(f32::NAN), nans);
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values));
        }
    };
    in_blocks(values, out, eight);
}

/// `block` for every whole block of `N`, and once more for what is left.
#[inline(always)]
pub(super) fn in_blocks<A: Copy + Default, B: Copy + Default, const N: usize>(
    src: &[A],
    dst: &mut [B],
    block: impl Fn(&[A; N], &mut [B; N]),
) {
    assert_eq!(src.len(), dst.len());
    let (src, src_rest) = src.as_chunks::<N>();
    let (dst, dst_rest) = dst.as_chunks_mut::<N>();
    for (src, dst) in src.iter().zip(dst) {
        block(src, dst);
    }
    if !src_rest.is_empty() {
        let (mut a, mut b) = ([A::default(); N], [B::default(); N]);
        a[..src_rest.len()].copy_from_slice(src_rest);
        block(&a, &mut b);
        dst_rest.copy_from_slice(&b[..dst_rest.len()]);
    }
}

/// Slides over to give a mask of the first `n` lanes: start at `8 - n` (f32) or, in pairs, at `8 - 2 n` (f64).
static FIRST_N: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `n` lanes of `8 / words`, each `words` 32-bit words wide.
#[inline]
#[target_feature(enable = "avx2")]
fn first_n(n: usize, words: usize) -> __m256i {
    assert!(n * words <= 8, "more lanes than a vector has");
    // SAFETY: the offset is 0..=8, so eight words are left of the sixteen.
    unsafe { _mm256_loadu_si256(FIRST_N.as_ptr().add(8 - n * words).cast()) }
}

impl Lanes<f32> for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    feature_fns! { "avx2,fma";
        fn splat(value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn load(src: &[f32]) -> __m256 {
            assert!(src.len() >= 8);
            // SAFETY: eight elements are there.
            unsafe { _mm256_loadu_ps(src.as_ptr()) }
        }
        fn load_first_n(src: &[f32], n: usize) -> __m256 {
            assert!(src.len() >= n);
            // SAFETY: only the first n lanes are read, and they are there.
            unsafe { _mm256_maskload_ps(src.as_ptr(), first_n(n, 1)) }
        }
        fn store(dst: &mut [f32], v: __m256) {
            assert!(dst.len() >= 8);
            // SAFETY: eight elements are there.
            unsafe { _mm256_storeu_ps(dst.as_mut_ptr(), v) }
        }
        fn store_first_n(dst: &mut [f32], n: usize, v: __m256) {
            assert!(dst.len() >= n);
            // SAFETY: only the first n lanes are written, and they are there.
            unsafe { _mm256_maskstore_ps(dst.as_mut_ptr(), first_n(n, 1), v) }
        }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
    }
}

impl FloatLanes<f32> for Avx2 {
    feature_fns! { "avx2,fma";
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn settle(v: __m256) -> __m256 {
            #[cfg(not(miri))]
            let v = {
                let mut v = v;
                // SAFETY: no instruction at all: `v` stays in the register it is in.
                unsafe {
                    std::arch::asm!("/* {} */", inout(ymm_reg) v, options(nomem, nostack, preserves_flags));
                }
                v
            };
            v
        }
        fn zip(a: __m256, b: __m256) -> [__m256; 2] {
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
        }
        fn unzip(a: __m256, b: __m256) -> [__m256; 2] {
            let (low, high) = (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
            [_mm256_shuffle_ps::<0x88>(low, high), _mm256_shuffle_ps::<0xdd>(low, high)]
        }
    }
}

impl Lanes<f64> for Avx2 {
    type V = __m256d;
    const LANES: usize = 4;
    feature_fns! { "avx2,fma";
        fn splat(value: f64) -> __m256d { _mm256_set1_pd(value) }
        fn load(src: &[f64]) -> __m256d {
            assert!(src.len() >= 4);
            // SAFETY: four elements are there.
            unsafe { _mm256_loadu_pd(src.as_ptr()) }
        }
        fn load_first_n(src: &[f64], n: usize) -> __m256d {
            assert!(src.len() >= n);
            // SAFETY: only the first n lanes are read, and they are there.
            unsafe { _mm256_maskload_pd(src.as_ptr(), first_n(n, 2)) }
        }
        fn store(dst: &mut [f64], v: __m256d) {
            assert!(dst.len() >= 4);
            // SAFETY: four elements are there.
            unsafe { _mm256_storeu_pd(dst.as_mut_ptr(), v) }
        }
        fn store_first_n(dst: &mut [f64], n: usize, v: __m256d) {
            assert!(dst.len() >= n);
            // SAFETY: only the first n lanes are written, and they are there.
            unsafe { _mm256_maskstore_pd(dst.as_mut_ptr(), first_n(n, 2), v) }
        }
        fn add(a: __m256d, b: __m256d) -> __m256d { _mm256_add_pd(a, b) }
    }
}

impl FloatLanes<f64> for Avx2 {
    feature_fns! { "avx2,fma";
        fn mul(a: __m256d, b: __m256d) -> __m256d { _mm256_mul_pd(a, b) }
        fn mul_add(a: __m256d, b: __m256d, c: __m256d) -> __m256d { _mm256_fmadd_pd(a, b, c) }
        fn max(a: __m256d, b: __m256d) -> __m256d { _mm256_max_pd(a, b) }
        fn zip(a: __m256d, b: __m256d) -> [__m256d; 2] {
            let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
            [_mm256_permute2f128_pd::<0x20>(low, high), _mm256_permute2f128_pd::<0x31>(low, high)]
        }
        fn unzip(a: __m256d, b: __m256d) -> [__m256d; 2] {
            let (low, high) = (_mm256_permute2f128_pd::<0x20>(a, b), _mm256_permute2f128_pd::<0x31>(a, b));
            [_mm256_unpacklo_pd(low, high), _mm256_unpackhi_pd(low, high)]
        }
    }
}

impl Lanes<i32> for Avx2 {
    type V = __m256i;
    const LANES: usize = 8;
    feature_fns! { "avx2";
        fn splat(value: i32) -> __m256i { _mm256_set1_epi32(value) }
        fn load(src: &[i32]) -> __m256i {
            assert!(src.len() >= 8);
            // SAFETY: eight elements are there.
            unsafe { _mm256_loadu_si256(src.as_ptr().cast()) }
        }
        fn load_first_n(src: &[i32], n: usize) -> __m256i {
            assert!(src.len() >= n);
            // SAFETY: only the first n lanes are read, and they are there.
            unsafe { _mm256_maskload_epi32(src.as_ptr(), first_n(n, 1)) }
        }
        fn store(dst: &mut [i32], v: __m256i) {
            assert!(dst.len() >= 8);
            // SAFETY: eight elements are there.
            unsafe { _mm256_storeu_si256(dst.as_mut_ptr().cast(), v) }
        }
        fn store_first_n(dst: &mut [i32], n: usize, v: __m256i) {
            assert!(dst.len() >= n);
            // SAFETY: only the first n lanes are written, and they are there.
            unsafe { _mm256_maskstore_epi32(dst.as_mut_ptr(), first_n(n, 1), v) }
        }
        fn add(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
    }
}

impl Dot<I16x2> for Avx2 {
    type P = __m256i;
    feature_fns! { "avx2";
        fn splat_unit(unit: I16x2) -> __m256i { _mm256_set1_epi32(unit.0 as i32) }
        fn load_units(src: &[I16x2]) -> __m256i {
            assert!(src.len() >= 8);
            // SAFETY: eight units are there.
            unsafe { _mm256_loadu_si256(src.as_ptr().cast()) }
        }
        fn dot(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
            _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
        }
        fn segment(sum: __m256i, _row: [i32; 2], _cols: [__m256i; 2]) -> __m256i { sum }
    }
}

impl MathLanes for Avx2 {
    type Mask = __m256;
    feature_fns! { "avx2,fma";
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn xor_sign(a: __m256, b: __m256) -> __m256 { _mm256_xor_ps(a, _mm256_and_ps(b, _mm256_set1_ps(-0.0))) }
        fn less(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
        fn select(mask: __m256, a: __m256, b: __m256) -> __m256 { _mm256_blendv_ps(b, a, mask) }
        fn exp2_int(n: __m256) -> __m256 {
            let biased = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
        fn bf16_pairs(codes: &[u16]) -> [__m256; 2] {
            assert!(codes.len() >= 16);
            // SAFETY: sixteen codes are there.
            let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
            let even = _mm256_slli_epi32::<16>(codes);
            let odd = _mm256_and_si256(codes, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            [_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd)]
        }
    }
}
