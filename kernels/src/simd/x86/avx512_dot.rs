//! AVX-512 with the dot-product instructions. Its float lanes are those of [`super::Avx512`].
//!
//! `vdpbf16ps` is two fused steps, the upper element of each pair first, each rounded once to nearest even, whatever the control word
//! says; subnormal inputs count as zero and subnormal results become zero. `vpdpbusd` adds four products of u8 by i8 exactly, without saturation.

use std::arch::x86_64::*;

use crate::simd::token::{feature_fns, token};
use crate::simd::{Bf16x2, Dot, FloatLanes, I8x4, I16x2, Lanes, MathLanes, WideBf16x2};

use super::Avx512;
use super::avx512::avx512_lanes;

token! {
    /// x86-64-v4 with AVX512-BF16 and AVX512-VNNI.
    Avx512Dot,
    "avx2,fma,f16c,bmi1,bmi2,lzcnt,movbe,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx512vnni",
    detect: Avx512::new().is_some()
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512vnni"),
    transpose_8x8: super::avx2::transpose_8x8, super::avx2::transpose_8x4,
    transpose_16x16: super::avx512::transpose_16x16,
    f16: super::avx2::widen_f16, super::avx2::narrow_f16,
    bf16: super::avx512::narrow_bf16,
    byte_pairs: super::avx512::byte_pairs => __m512i,
    look_up: super::avx512::look_up, super::avx512::look_up_f32, super::avx512::interleave, super::avx512::interleave_4, super::avx512::least_half, super::avx512::copy_pairs
}

avx512_lanes!(Avx512Dot);

impl Avx512Dot {
    /// The token of the float instructions alone.
    pub fn floats(self) -> Avx512 {
        // SAFETY: this token was made only after all features of that one were detected.
        unsafe { Avx512::assume() }
    }

    /// Neighbours along k of 64 columns: the first bytes of four rows in turns, each with the bits of `flip` turned over. Lane `4 l + e` of vector `q` is column
    /// `16 l + 4 q + e`.
    ///
    /// # Panics
    /// If there are fewer bytes.
    #[inline(always)]
    pub fn byte_quads(self, rows: [&[u8]; 4], flip: u8) -> [<Self as Dot<I8x4>>::P; 4] {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn with_features(rows: [&[u8]; 4], flip: u8) -> [__m512i; 4] {
            let [a, b, c, d] = rows;
            assert!(a.len() >= 64 && b.len() >= 64 && c.len() >= 64 && d.len() >= 64);
            // SAFETY: sixty-four bytes of each are there.
            let (a, b, c, d) = unsafe {
                (
                    _mm512_loadu_si512(a.as_ptr().cast()),
                    _mm512_loadu_si512(b.as_ptr().cast()),
                    _mm512_loadu_si512(c.as_ptr().cast()),
                    _mm512_loadu_si512(d.as_ptr().cast()),
                )
            };
            let (first, second) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (third, fourth) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            let flip = _mm512_set1_epi8(flip as i8);
            [
                _mm512_xor_si512(flip, _mm512_unpacklo_epi16(first, third)),
                _mm512_xor_si512(flip, _mm512_unpackhi_epi16(first, third)),
                _mm512_xor_si512(flip, _mm512_unpacklo_epi16(second, fourth)),
                _mm512_xor_si512(flip, _mm512_unpackhi_epi16(second, fourth)),
            ]
        }
        // SAFETY: a token of this type is made only after its features were detected.
        unsafe { with_features(rows, flip) }
    }
}

/// Units are broadcast and loaded alike, whatever they hold.
macro_rules! units {
    ($unit:ty) => {
        feature_fns! { "avx512f";
            fn splat_unit(unit: $unit) -> __m512i { _mm512_set1_epi32(unit.0 as i32) }
            fn load_units(src: &[$unit]) -> __m512i {
                assert!(src.len() >= 16);
                // SAFETY: sixteen units are there.
                unsafe { _mm512_loadu_epi32(src.as_ptr().cast()) }
            }
        }
    };
}

impl Dot<Bf16x2> for Avx512Dot {
    type P = __m512i;
    units!(Bf16x2);
    feature_fns! { "avx512f,avx512bf16";
        fn dot(a: __m512i, b: __m512i, sum: __m512) -> __m512 {
            // SAFETY: 512 bits are 512 bits.
            let pairs = |units: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(units) };
            _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
        }
        fn segment(sum: __m512, _row: [f32; 2], _cols: [__m512; 2]) -> __m512 {
            _mm512_add_ps(sum, _mm512_setzero_ps())
        }
    }
}

impl Dot<WideBf16x2> for Avx512Dot {
    type P = __m512i;
    units!(WideBf16x2);
    feature_fns! { "avx512f";
        fn dot(a: __m512i, b: __m512i, sum: __m512) -> __m512 {
            let upper = |units| _mm512_castsi512_ps(_mm512_and_epi32(units, _mm512_set1_epi32(0xffff_0000u32 as i32)));
            let lower = |units| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(units));
            let sum = _mm512_fmadd_ps(upper(a), upper(b), sum);
            _mm512_fmadd_ps(lower(a), lower(b), sum)
        }
        fn segment(sum: __m512, _row: [f32; 2], _cols: [__m512; 2]) -> __m512 {
            _mm512_add_ps(sum, _mm512_setzero_ps())
        }
    }
}

impl Dot<I8x4> for Avx512Dot {
    type P = __m512i;
    units!(I8x4);
    feature_fns! { "avx512f,avx512vnni";
        fn dot(a: __m512i, b: __m512i, sum: __m512i) -> __m512i { _mm512_dpbusd_epi32(sum, a, b) }
        fn segment(sum: __m512i, row: [i32; 2], cols: [__m512i; 2]) -> __m512i {
            // (a - za)(b - zb) summed = ab - zb (sum of a) - za (sum of b - k zb)
            let a_sum = _mm512_mullo_epi32(_mm512_set1_epi32(row[0]), cols[0]);
            let b_sum = _mm512_mullo_epi32(_mm512_set1_epi32(row[1]), cols[1]);
            _mm512_sub_epi32(sum, _mm512_add_epi32(a_sum, b_sum))
        }
    }
}
