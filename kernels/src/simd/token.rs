//! The macro that holds the only unsafe calls into feature-gated code.

/// Methods of a token, each body compiled with `$features` and entered through one unsafe call.
macro_rules! feature_fns {
    ($features:literal; $(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) $(-> $ret)? {
            #[inline]
            #[target_feature(enable = $features)]
            fn with_features($($arg: $ty),*) $(-> $ret)? $body
            // SAFETY: a token of this type is made only after its features were detected.
            unsafe { with_features($($arg),*) }
        }
    )*};
}

/// A token type: detection, `vectorize`, and the name of its feature cluster.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $features:literal, detect: $detect:expr
     $(, transpose_8x8: $transpose:path, $transpose_4:path)? $(, transpose_16x16: $transpose_16:path)? $(, f16: $widen_f16:path, $narrow_f16:path)? $(, bf16: $narrow_bf16:path)? $(, byte_pairs: $byte_pairs:path => $p:ty)? $(, look_up: $look_up:path, $look_up_f32:path, $interleave:path, $interleave_4:path, $least_half:path, $copy_pairs:path)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(());

        impl $name {
            /// The token, if the processor and the operating system have its features.
            pub fn new() -> Option<Self> {
                ($detect).then_some(Self(()))
            }

            /// The token, without detection.
            ///
            /// # Safety
            /// - The processor and the operating system have its features.
            #[allow(dead_code, reason = "for tokens that a wider one stands above")]
            pub(in crate::simd) unsafe fn assume() -> Self {
                Self(())
            }
        }

        impl $crate::simd::Simd for $name {
            #[inline(always)]
            fn vectorize<Op: $crate::simd::WithToken<Self>>(self, op: Op) -> Op::Output {
                #[target_feature(enable = $features)]
                fn with_features<Op: $crate::simd::WithToken<$name>>(token: $name, op: Op) -> Op::Output {
                    op.with_token(token)
                }
                // SAFETY: a token of this type is made only after its features were detected.
                unsafe { with_features(self, op) }
            }
            #[inline(always)]
            fn apart<Op: $crate::simd::WithToken<Self>>(self, op: Op) -> Op::Output {
                #[inline(never)]
                #[target_feature(enable = $features)]
                fn with_features<Op: $crate::simd::WithToken<$name>>(token: $name, op: Op) -> Op::Output {
                    op.with_token(token)
                }
                // SAFETY: as above.
                unsafe { with_features(self, op) }
            }
            $(
                #[inline(always)]
                fn transpose_8x8(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
                    // SAFETY: as above; the function needs no more than this token's features.
                    unsafe { $transpose(block) }
                }
                #[inline(always)]
                fn transpose_8x4(self, rows: [&[f32; 4]; 8]) -> [[f32; 8]; 4] {
                    // SAFETY: as above.
                    unsafe { $transpose_4(rows) }
                }
            )?
            $(
                #[inline(always)]
                fn transpose_16x16(self, rows: [&[f32; 16]; 16]) -> [[f32; 16]; 16] {
                    // SAFETY: as above.
                    unsafe { $transpose_16(rows) }
                }
            )?
            $(
                const F16: bool = true;
                #[inline(always)]
                fn widen_f16(self, codes: &[u16], out: &mut [f32]) {
                    // SAFETY: as above.
                    unsafe { $widen_f16(codes, out) }
                }
                #[inline(always)]
                fn narrow_f16(self, values: &[f32], out: &mut [u16]) {
                    // SAFETY: as above.
                    unsafe { $narrow_f16(values, out) }
                }
            )?
            $(
                const BF16: bool = true;
                #[inline(always)]
                fn narrow_bf16(self, values: &[f32], out: &mut [u16]) {
                    // SAFETY: as above.
                    unsafe { $narrow_bf16(values, out) }
                }
            )?
            $(
                #[inline(always)]
                fn byte_pairs(self, rows: [&[u8]; 2], flip: u8, less: i16) -> $p {
                    // SAFETY: as above.
                    unsafe { $byte_pairs(rows, flip, less) }
                }
            )?
            $(
                const LOOKS_UP: bool = true;
                #[inline(always)]
                fn look_up(self, table: &[u16; 128], codes: &[u8; 32]) -> [u16; 32] {
                    // SAFETY: as above.
                    unsafe { $look_up(table, codes) }
                }
                #[inline(always)]
                fn look_up_f32(self, table: &[u16; 128], codes: &[u8], out: &mut [f32]) {
                    // SAFETY: as above.
                    unsafe { $look_up_f32(table, codes, out) }
                }
                #[inline(always)]
                fn interleave(self, even: &[u8; 16], odd: &[u8; 16]) -> [u8; 32] {
                    // SAFETY: as above.
                    unsafe { $interleave(even, odd) }
                }
                #[inline(always)]
                fn interleave_4(self, rows: [&[u8; 16]; 4]) -> [u8; 64] {
                    // SAFETY: as above.
                    unsafe { $interleave_4(rows) }
                }
                #[inline(always)]
                fn least_half(self, words: &[u32]) -> u16 {
                    // SAFETY: as above.
                    unsafe { $least_half(words) }
                }
                #[inline(always)]
                fn copy_pairs(self, codes: &[u16], words: &mut [u32], least: [u16; 32]) -> [u16; 32] {
                    // SAFETY: as above.
                    unsafe { $copy_pairs(codes, words, least) }
                }
            )?
        }
    };
}

pub(crate) use {feature_fns, token};
