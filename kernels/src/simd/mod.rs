//! The portable SIMD abstraction: a token per instruction set, one trait for lanes, one for the float functions.
//!
//! A token is zero-sized and proves that the processor has its features: it is made only after detection. A kernel is
//! written once over `S: Simd` and entered through [`Simd::vectorize`], which compiles it with the token's features.
//! Every method gives the same bits for the same lanes on every token; `mul_add` rounds once on all of them.

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
pub mod fma;
mod portable;
mod scalar;
mod token;
#[cfg(target_arch = "x86_64")]
pub mod x86;

pub use portable::Portable;
pub use scalar::Scalar;

use crate::gemm::Ukernel;

/// A computation that is generic over the instruction set.
///
/// Mark `with_simd` and what it calls `#[inline(always)]`: only what is inlined is compiled with the token's features.
pub trait WithSimd {
    /// What the computation returns.
    type Output;
    /// Runs with the instructions of `S`.
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output;
}

/// A token: proof that the processor has the features of one instruction set.
pub trait Simd: MathLanes + Lanes<f64> + Ukernel<f32> + Ukernel<f64> + Send + Sync + 'static {
    /// Runs `op` in a function compiled with this token's features.
    fn vectorize<Op: WithSimd>(self, op: Op) -> Op::Output;
    /// `result[i][j] = block[j][i]`: how packing turns rows of k into panels.
    #[inline(always)]
    fn transpose_8x8(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        transpose_scalar(block)
    }
}

/// Vectors of `T` and the arithmetic that kernels ask of them. Slices shorter than the lanes named panic.
pub trait Lanes<T>: Copy {
    /// A vector register of `T`.
    type V: Copy;
    /// Lanes in one vector.
    const LANES: usize;
    /// All lanes equal to `value`.
    fn splat(self, value: T) -> Self::V;
    /// The first [`Lanes::LANES`] elements of `src`.
    fn load(self, src: &[T]) -> Self::V;
    /// The first `n` elements of `src`, zeros above; element `n` and beyond are never touched.
    fn load_first_n(self, src: &[T], n: usize) -> Self::V;
    /// Writes all lanes to the front of `dst`.
    fn store(self, dst: &mut [T], v: Self::V);
    /// Writes the first `n` lanes to the front of `dst`; element `n` and beyond are never touched.
    fn store_first_n(self, dst: &mut [T], n: usize, v: Self::V);
    /// `a + b`, rounded once.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`, rounded once.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded ONCE.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }` in each lane (the meaning of `maxps`: the second operand where one is a NaN).
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
}

/// What the functions of [`crate::math`] need of f32 lanes beyond [`Lanes`].
pub trait MathLanes: Lanes<f32> {
    /// One truth value a lane.
    type Mask: Copy;
    /// `a - b`, rounded once.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`, rounded once.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }` in each lane (the meaning of `minps`).
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The sign bit cleared.
    fn abs(self, a: Self::V) -> Self::V;
    /// `a` with the sign bit of `b` put in by exclusive or: a copysign where `a` is not negative.
    fn xor_sign(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a < b`, false where one is a NaN.
    fn less(self, a: Self::V, b: Self::V) -> Self::Mask;
    /// `a` where the mask is true, `b` elsewhere.
    fn select(self, mask: Self::Mask, a: Self::V, b: Self::V) -> Self::V;
    /// `2^n` for whole `n` in -126..=127.
    fn exp2_int(self, n: Self::V) -> Self::V;
}

/// Asks for the cache line of an address, to be written soon. A hint: it never faults, and does nothing where there is no such instruction.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program sees and faults at no address; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// [`Simd::transpose_8x8`] element by element.
#[inline(always)]
pub(crate) fn transpose_scalar<T: Copy>(block: [[T; 8]; 8]) -> [[T; 8]; 8] {
    std::array::from_fn(|i| std::array::from_fn(|j| block[j][i]))
}
