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
    ($(#[$doc:meta])* $name:ident, $features:literal, detect: $detect:expr $(, transpose_8x8: $transpose:path)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(());

        impl $name {
            /// The token, if the processor and the operating system have its features.
            pub fn new() -> Option<Self> {
                ($detect).then_some(Self(()))
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
            $(
                #[inline(always)]
                fn transpose_8x8(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
                    // SAFETY: as above; the function needs no more than this token's features.
                    unsafe { $transpose(block) }
                }
            )?
        }
    };
}

pub(crate) use {feature_fns, token};
