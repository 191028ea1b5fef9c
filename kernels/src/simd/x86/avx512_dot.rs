//! AVX-512 with the dot-product instructions. Its float lanes are those of [`super::Avx512`]; the dot products enter with
//! the kernels that call them.

use std::arch::x86_64::*;

use crate::simd::token::{feature_fns, token};
use crate::simd::{Lanes, MathLanes};

use super::Avx512;
use super::avx512::avx512_lanes;

token! {
    /// x86-64-v4 with AVX512-BF16 and AVX512-VNNI.
    Avx512Dot,
    "avx2,fma,f16c,bmi1,bmi2,lzcnt,movbe,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx512vnni",
    detect: Avx512::new().is_some()
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512vnni"),
    transpose_8x8: super::avx2::transpose_8x8
}

avx512_lanes!(Avx512Dot);
