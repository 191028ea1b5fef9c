//! AVX-512: 32 registers of 16 f32 or 8 f64, edges by mask registers.

use std::arch::x86_64::*;

use crate::simd::token::{feature_fns, token};
use crate::simd::{Dot, FloatLanes, I16x2, Lanes, MathLanes};

use super::Avx2;
use super::avx2::in_blocks;

token! {
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    Avx512, "avx2,fma,f16c,bmi1,bmi2,lzcnt,movbe,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl",
    detect: Avx2::new().is_some()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl"),
    transpose_8x8: super::avx2::transpose_8x8, super::avx2::transpose_8x4,
    transpose_16x16: transpose_16x16,
    f16: super::avx2::widen_f16, super::avx2::narrow_f16,
    bf16: narrow_bf16,
    byte_pairs: byte_pairs => __m512i,
    look_up: look_up, look_up_f32, interleave, interleave_4, least_half, copy_pairs
}

impl Avx512 {
    /// The token of vectors of half the length.
    pub fn halves(self) -> Avx2 {
        // SAFETY: this token was made only after all features of that one were detected.
        unsafe { Avx2::assume() }
    }
}

/// [`crate::simd::Simd::byte_pairs`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn byte_pairs(rows: [&[u8]; 2], flip: u8, less: i16) -> __m512i {
    let [even, odd] = rows.map(|row| {
        assert!(row.len() >= 16);
        // SAFETY: sixteen bytes are there.
        _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(row.as_ptr().cast()) })
    });
    let codes = _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd));
    let values = _mm512_xor_si512(codes, _mm512_set1_epi16(flip.into()));
    _mm512_sub_epi16(values, _mm512_set1_epi16(less))
}

/// [`crate::simd::Simd::transpose_16x16`]: four pairs of half rows at a time within their quarters, then the quarters: 48 shuffles, where whole rows would take 64.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn transpose_16x16(rows: [&[f32; 16]; 16]) -> [[f32; 16]; 16] {
    let pairs = |a: __m512, b: __m512| {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        (_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
    };
    // `quads[e][h][c]`: of rows 8 e to 8 e + 7 and half h; quarters 0 and 2 are column 8 h + c, quarters 1 and 3 column 8 h + 4 + c.
    let mut quads = [[[_mm512_setzero_ps(); 4]; 2]; 2];
    for (rows, quads) in rows.as_chunks::<8>().0.iter().zip(&mut quads) {
        // Halves of rows i and i + 4 in one vector: the upper one comes from memory to its place, which takes no shuffle. Both halves of a row at once: rows a power of two apart share a set of
        // the first-level cache.
        let mut halves = [[_mm512_setzero_ps(); 4]; 2];
        for i in 0..4 {
            for (h, halves) in halves.iter_mut().enumerate() {
                // SAFETY: a row has two times eight elements.
                let (low, high) = unsafe {
                    (
                        _mm256_loadu_ps(rows[i].as_ptr().add(8 * h)),
                        _mm256_loadu_ps(rows[i + 4].as_ptr().add(8 * h)),
                    )
                };
                halves[i] = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high);
            }
        }
        for (&[a, b, c, d], quads) in halves.iter().zip(quads) {
            (quads[0], quads[1]) = pairs(_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
            (quads[2], quads[3]) = pairs(_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
        }
    }
    let mut out = [[0.0; 16]; 16];
    for h in 0..2 {
        for c in 0..4 {
            let (a, b) = (quads[0][h][c], quads[1][h][c]);
            // SAFETY: a row of the result has sixteen elements.
            unsafe {
                _mm512_storeu_ps(out[8 * h + c].as_mut_ptr(), _mm512_shuffle_f32x4::<0x88>(a, b));
                _mm512_storeu_ps(out[8 * h + 4 + c].as_mut_ptr(), _mm512_shuffle_f32x4::<0xdd>(a, b));
            }
        }
    }
    out
}

/// [`crate::simd::Simd::narrow_bf16`], 32 at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn narrow_bf16(values: &[f32], out: &mut [u16]) {
    // The upper words of two vectors.
    let upper = _mm512_add_epi16(
        _mm512_set1_epi16(1),
        _mm512_slli_epi16::<1>(_mm512_cvtepu8_epi16(_mm256_setr_epi8(
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
            27, 28, 29, 30, 31,
        ))),
    );
    let round = |values: __m512| {
        let bits = _mm512_castps_si512(values);
        let last = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), last);
        let nans = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        _mm512_mask_mov_epi32(rounded, nans, _mm512_set1_epi32(0x7fc0_0000))
    };
    in_blocks(values, out, |values: &[f32; 32], out: &mut [u16; 32]| {
        // SAFETY: both arrays have 32 elements.
        unsafe {
            let low = round(_mm512_loadu_ps(values.as_ptr()));
            let high = round(_mm512_loadu_ps(values.as_ptr().add(16)));
            let words = _mm512_permutex2var_epi16(low, upper, high);
            _mm512_storeu_epi16(out.as_mut_ptr().cast(), words);
        }
    });
}

/// A table in four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn quarters(table: &[u16; 128]) -> [__m512i; 4] {
    std::array::from_fn(|i| {
        // SAFETY: a quarter of the table is 32 words.
        unsafe { _mm512_loadu_epi16(table.as_ptr().add(32 * i).cast()) }
    })
}

/// The words of 32 codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(quarters: &[__m512i; 4], codes: &[u8; 32]) -> __m512i {
    // SAFETY: there are 32 codes.
    let codes = _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) });
    // The permutation reads the lower six bits.
    let low = _mm512_permutex2var_epi16(quarters[0], codes, quarters[1]);
    let high = _mm512_permutex2var_epi16(quarters[2], codes, quarters[3]);
    let upper_half = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40));
    let magnitude = _mm512_mask_blend_epi16(upper_half, low, high);
    let sign = _mm512_and_si512(_mm512_slli_epi16::<8>(codes), _mm512_set1_epi16(i16::MIN));
    _mm512_or_si512(magnitude, sign)
}

/// [`crate::simd::Simd::look_up`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn look_up(table: &[u16; 128], codes: &[u8; 32]) -> [u16; 32] {
    let mut out = [0; 32];
    // SAFETY: there are 32 words.
    unsafe { _mm512_storeu_epi16(out.as_mut_ptr().cast(), words(&quarters(table), codes)) };
    out
}

/// [`crate::simd::Simd::look_up_f32`], 32 at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn look_up_f32(table: &[u16; 128], codes: &[u8], out: &mut [f32]) {
    let quarters = quarters(table);
    let wide = |words| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)));
    in_blocks(codes, out, |codes: &[u8; 32], out: &mut [f32; 32]| {
        let words = words(&quarters, codes);
        // SAFETY: there are 32 values.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), wide(_mm512_castsi512_si256(words)));
            _mm512_storeu_ps(out.as_mut_ptr().add(16), wide(_mm512_extracti64x4_epi64::<1>(words)));
        }
    });
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

/// `least` or the halves, each without its highest bit and less one, whichever are smaller.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn least_halves(least: __m512i, halves: __m512i) -> __m512i {
    let magnitudes = _mm512_and_si512(halves, _mm512_set1_epi16(0x7fff));
    _mm512_min_epu16(least, _mm512_sub_epi16(magnitudes, _mm512_set1_epi16(1)))
}

/// [`crate::simd::Simd::least_half`]: sixteen words at a time, then half and half.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn least_half(words: &[u32]) -> u16 {
    let mut least = _mm512_set1_epi16(-1);
    let (wide, rest) = words.as_chunks::<16>();
    for words in wide {
        // SAFETY: there are sixteen words.
        least = least_halves(least, unsafe { _mm512_loadu_si512(words.as_ptr().cast()) });
    }
    if !rest.is_empty() {
        let mask = (1u16 << rest.len()) - 1;
        // SAFETY: the mask has a bit for each word there is. Others are zeros, which do not count.
        least = least_halves(least, unsafe { _mm512_maskz_loadu_epi32(mask, rest.as_ptr().cast()) });
    }
    let half = _mm256_min_epu16(_mm512_castsi512_si256(least), _mm512_extracti64x4_epi64::<1>(least));
    let quarter = _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    _mm_extract_epi16::<0>(_mm_minpos_epu16(quarter)) as u16
}

/// [`crate::simd::Simd::copy_pairs`]: sixteen words at a time, their halves exchanged.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn copy_pairs(codes: &[u16], words: &mut [u32], least: [u16; 32]) -> [u16; 32] {
    assert!(words.len() == codes.len().div_ceil(2));
    // SAFETY: 64 bytes.
    let mut least = unsafe { _mm512_loadu_si512(least.as_ptr().cast()) };
    let (wide, rest) = codes.as_chunks::<32>();
    let (wide_words, rest_words) = words.split_at_mut(16 * wide.len());
    for (codes, words) in wide.iter().zip(wide_words.as_chunks_mut::<16>().0) {
        // SAFETY: there are 32 codes.
        let pairs = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
        least = least_halves(least, pairs);
        // SAFETY: there are sixteen words.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), _mm512_rol_epi32::<16>(pairs)) };
    }
    if !rest.is_empty() {
        // SAFETY: the mask has a bit for each code there is. Others are zeros, which do not count.
        let pairs = unsafe { _mm512_maskz_loadu_epi16((1u32 << rest.len()) - 1, rest.as_ptr().cast()) };
        least = least_halves(least, pairs);
        let mask = ((1u32 << rest_words.len()) - 1) as u16;
        // SAFETY: the mask has a bit for each word there is.
        unsafe {
            _mm512_mask_storeu_epi32(rest_words.as_mut_ptr().cast(), mask, _mm512_rol_epi32::<16>(pairs))
        };
    }
    let mut lanes = [0; 32];
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), least) };
    lanes
}

/// [`crate::simd::Simd::interleave_4`]: a quarter of the register a row, then four bytes of each row to each quarter, then their bytes in turns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn interleave_4(rows: [&[u8; 16]; 4]) -> [u8; 64] {
    let [a, b, c, d] = rows.map(|row| {
        // SAFETY: a row has sixteen bytes.
        unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
    });
    let rows = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
    let rows = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(rows, c), d);
    let words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let turns = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let mut quarters = rows;
    // SAFETY: one instruction of AVX-512 on registers, which the compiler would take apart into six.
    unsafe {
        std::arch::asm!(
            "vpermd {rows}, {words}, {rows}",
            rows = inout(zmm_reg) quarters,
            words = in(zmm_reg) words,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    let bytes = _mm512_shuffle_epi8(quarters, turns);
    let mut out = [0; 64];
    // SAFETY: the result has 64 bytes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), bytes) };
    out
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
                fn zip(a: __m512, b: __m512) -> [__m512; 2] {
                    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                    let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
                    [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
                }
                fn unzip(a: __m512, b: __m512) -> [__m512; 2] {
                    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
                    [_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)]
                }
                fn settle(v: __m512) -> __m512 {
                    #[cfg(not(miri))]
                    let v = {
                        let mut v = v;
                        // SAFETY: no instruction at all: `v` stays in the register it is in.
                        unsafe {
                            std::arch::asm!("/* {} */", inout(zmm_reg) v, options(nomem, nostack, preserves_flags));
                        }
                        v
                    };
                    v
                }
                fn leave_out(v: __m512, at: usize, count: usize) -> __m512 {
                    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                    let behind = _mm512_cmpge_epi32_mask(lanes, _mm512_set1_epi32(at as i32));
                    let from = _mm512_mask_add_epi32(lanes, behind, lanes, _mm512_set1_epi32(count as i32));
                    _mm512_permutexvar_ps(from, v)
                }
                fn put_zeros(v: __m512, at: usize, count: usize) -> __m512 {
                    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                    let (at, count) = (_mm512_set1_epi32(at as i32), _mm512_set1_epi32(count as i32));
                    let behind = _mm512_cmpge_epi32_mask(lanes, _mm512_add_epi32(at, count));
                    let from = _mm512_mask_sub_epi32(lanes, behind, lanes, count);
                    _mm512_maskz_permutexvar_ps(behind | _mm512_cmplt_epi32_mask(lanes, at), from, v)
                }
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
                fn zip(a: __m512d, b: __m512d) -> [__m512d; 2] {
                    let low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
                    let high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
                    [_mm512_permutex2var_pd(a, low, b), _mm512_permutex2var_pd(a, high, b)]
                }
                fn unzip(a: __m512d, b: __m512d) -> [__m512d; 2] {
                    let even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
                    let odd = _mm512_add_epi64(even, _mm512_set1_epi64(1));
                    [_mm512_permutex2var_pd(a, even, b), _mm512_permutex2var_pd(a, odd, b)]
                }
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
                fn bf16_pairs(codes: &[u16]) -> [__m512; 2] {
                    assert!(codes.len() >= 32);
                    // SAFETY: thirty-two codes are there.
                    let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
                    let even = _mm512_slli_epi32::<16>(codes);
                    let odd = _mm512_and_si512(codes, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                    [_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)]
                }
            }
        }
    };
}
pub(super) use avx512_lanes;

avx512_lanes!(Avx512);
