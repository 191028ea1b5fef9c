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
mod transpose;
mod unit;
#[cfg(target_arch = "x86_64")]
pub mod x86;

pub use portable::Portable;
pub use scalar::Scalar;
pub use transpose::Transpose;
pub(crate) use transpose::transpose_scalar;
pub use unit::{Bf16x2, I8x4, I16x2, Unit, WideBf16x2};

use crate::gemm::{InPlace, Ukernel};

/// A computation that is generic over the instruction set.
///
/// Mark `with_simd` and what it calls `#[inline(always)]`: only what is inlined is compiled with the token's features.
pub trait WithSimd {
    /// What the computation returns.
    type Output;
    /// Runs with the instructions of `S`.
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output;
}

/// A computation for the instruction sets that `S` stands for: all of them, through [`WithSimd`], or a single one.
pub trait WithToken<S> {
    /// What the computation returns.
    type Output;
    /// Runs with the instructions of `S`. Mark it `#[inline(always)]`.
    fn with_token(self, simd: S) -> Self::Output;
}

impl<S: Simd, Op: WithSimd> WithToken<S> for Op {
    type Output = Op::Output;
    #[inline(always)]
    fn with_token(self, simd: S) -> Op::Output {
        self.with_simd(simd)
    }
}

/// A token: proof that the processor has the features of one instruction set.
pub trait Simd:
    MathLanes
    + FloatLanes<f64>
    + Ukernel<f32>
    + Ukernel<f64>
    + Ukernel<I16x2>
    + InPlace<f32>
    + InPlace<f64>
    + Send
    + Sync
    + 'static
{
    /// Whether tiles are to fill the registers. Where they need not, the smallest of each kind will do: the rest takes long to compile, and bits are the same.
    const TILES: bool = true;
    /// Runs `op` in a function compiled with this token's features.
    fn vectorize<Op: WithToken<Self>>(self, op: Op) -> Op::Output;
    /// The same in a function of its own, whatever calls it: what a loop needs then stays in registers, of which the loops around it take none.
    fn apart<Op: WithToken<Self>>(self, op: Op) -> Op::Output;
    /// `result[i][j] = block[j][i]`: how packing turns rows of k into panels.
    #[inline(always)]
    fn transpose_8x8(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        transpose_scalar(block)
    }

    /// `result[i][j] = rows[j][i]`: how one whose columns lie side by side is multiplied by a few rows with shorter vectors.
    #[inline(always)]
    fn transpose_8x4(self, rows: [&[f32; 4]; 8]) -> [[f32; 8]; 4] {
        std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
    }

    /// `result[i][j] = rows[j][i]`: how a matrix whose columns lie side by side is multiplied by a few rows.
    #[inline(always)]
    fn transpose_16x16(self, rows: [&[f32; 16]; 16]) -> [[f32; 16]; 16] {
        let mut out = [[0.0; 16]; 16];
        for from in [0, 8] {
            for half in [0, 8] {
                let mut block = [[0.0; 8]; 8];
                for (block, row) in block.iter_mut().zip(&rows[from..]) {
                    block.copy_from_slice(&row[half..half + 8]);
                }
                for (out, block) in out[half..].iter_mut().zip(self.transpose_8x8(block)) {
                    out[from..from + 8].copy_from_slice(&block);
                }
            }
        }
        out
    }

    /// Whether there are instructions between binary16 and binary32: [`Simd::widen_f16`] and [`Simd::narrow_f16`] may then be called.
    const F16: bool = false;
    /// The values of binary16 codes; a NaN becomes 0x7fc00000 with its sign. The slices have one length.
    fn widen_f16(self, _codes: &[u16], _out: &mut [f32]) {
        unreachable!("no instructions for binary16");
    }
    /// The codes of the nearest binary16, ties to even; a NaN becomes 0x7e00. The slices have one length.
    fn narrow_f16(self, _values: &[f32], _out: &mut [u16]) {
        unreachable!("no instructions for binary16");
    }

    /// Whether [`Simd::narrow_bf16`] has instructions of its own and may be called.
    const BF16: bool = false;
    /// The codes of the nearest bf16, ties to even; a NaN becomes 0x7fc0. The slices have one length.
    fn narrow_bf16(self, _values: &[f32], _out: &mut [u16]) {
        unreachable!("no instructions for bf16");
    }

    /// Whether a table of 128 words fits the registers: [`Simd::look_up`] and [`Simd::look_up_f32`] are then faster than arithmetic.
    const LOOKS_UP: bool = false;
    /// For each code the word of its lower seven bits, its eighth bit put in as the sign.
    #[inline(always)]
    fn look_up(self, table: &[u16; 128], codes: &[u8; 32]) -> [u16; 32] {
        codes.map(|code| table[usize::from(code & 0x7f)] | u16::from(code & 0x80) << 8)
    }
    /// The same words as the upper halves of f32. The slices have one length.
    #[inline(always)]
    fn look_up_f32(self, table: &[u16; 128], codes: &[u8], out: &mut [f32]) {
        for (out, &code) in out.iter_mut().zip(codes) {
            let upper = table[usize::from(code & 0x7f)] | u16::from(code & 0x80) << 8;
            *out = f32::from_bits(u32::from(upper) << 16);
        }
    }
    /// `even` and `odd` in turns.
    #[inline(always)]
    fn interleave(self, even: &[u8; 16], odd: &[u8; 16]) -> [u8; 32] {
        std::array::from_fn(|i| if i % 2 == 0 { even[i / 2] } else { odd[i / 2] })
    }
    /// Neighbours along k for as many columns as sums have lanes: the first bytes of two rows in turns, each with the bits of `flip` turned over, as u8, less `less`.
    ///
    /// # Panics
    /// If there are fewer bytes.
    #[inline(always)]
    fn byte_pairs(self, rows: [&[u8]; 2], flip: u8, less: i16) -> <Self as Dot<I16x2>>::P {
        let lanes = <Self as Lanes<i32>>::LANES;
        let mut units = [I16x2(0); 16];
        for ((unit, &even), &odd) in units.iter_mut().zip(&rows[0][..lanes]).zip(&rows[1][..lanes]) {
            let value = |code: u8| u32::from((i16::from(code ^ flip).wrapping_sub(less)) as u16);
            *unit = I16x2(value(even) | value(odd) << 16);
        }
        self.load_units(&units)
    }
    /// A byte of each row in turns.
    #[inline(always)]
    fn interleave_4(self, rows: [&[u8; 16]; 4]) -> [u8; 64] {
        std::array::from_fn(|i| rows[i % 4][i / 4])
    }
    /// The least of the 16-bit halves of some words, each without its highest bit and less one, so that zero is the largest.
    #[inline(always)]
    fn least_half(self, words: &[u32]) -> u16 {
        let halves = words.iter().flat_map(|word| [*word as u16, (word >> 16) as u16]);
        halves.fold(u16::MAX, |least, half| least.min((half & 0x7fff).wrapping_sub(1)))
    }
    /// Copies codes two by two, the earlier one of each pair to the upper half of a word, a zero behind an odd number; `least` and what [`Simd::least_half`] says of them, in any lane.
    ///
    /// # Panics
    /// If there are other words than the codes fill.
    #[inline(always)]
    fn copy_pairs(self, codes: &[u16], words: &mut [u32], mut least: [u16; 32]) -> [u16; 32] {
        assert!(words.len() == codes.len().div_ceil(2));
        for (word, pair) in words.iter_mut().zip(codes.chunks(2)) {
            *word = u32::from(pair[0]) << 16 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
        least[0] = least[0].min(self.least_half(words));
        least
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
    /// `a + b`; of floats rounded once, of integers in two's complement.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
}

/// Arithmetic of float lanes.
pub trait FloatLanes<T>: Lanes<T> {
    /// `a * b`, rounded once.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded ONCE.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }` in each lane (the meaning of `maxps`: the second operand where one is a NaN).
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lanes of `a` and `b` in turns: the first half of them, and the second.
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    /// The even lanes of `a` and then of `b`, and the odd ones: what [`FloatLanes::zip`] put together.
    fn unzip(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    /// `v`, computed before what follows: a sum that is used behind a branch alone would be computed there, one after the other, and what it is made of spilled.
    #[inline(always)]
    fn settle(self, v: Self::V) -> Self::V {
        v
    }
    /// Lanes without `count` of them from `at` on: those behind move down, and what the last are is not said.
    #[inline(always)]
    fn leave_out(self, v: Self::V, at: usize, count: usize) -> Self::V
    where
        T: bytemuck::Zeroable + Copy,
    {
        let mut lanes = [T::zeroed(); 16];
        self.store(&mut lanes, v);
        lanes.copy_within(at + count.., at);
        self.load(&lanes)
    }
    /// Lanes with `count` zeros before the one that was `at`: those behind move up, the last of them out.
    #[inline(always)]
    fn put_zeros(self, v: Self::V, at: usize, count: usize) -> Self::V
    where
        T: bytemuck::Zeroable + Copy,
    {
        let mut lanes = [T::zeroed(); 16];
        self.store(&mut lanes, v);
        lanes.copy_within(at..16 - count, at + count);
        lanes[at..at + count].fill(T::zeroed());
        self.load(&lanes)
    }
}

/// Products of units, added to sums: what a microkernel is made of.
pub trait Dot<U: Unit>: Lanes<U::Acc> {
    /// A vector of units, one for each lane of the sums.
    type P: Copy;
    /// All lanes equal to `unit`.
    fn splat_unit(self, unit: U) -> Self::P;
    /// The first units of `src`, one a lane.
    fn load_units(self, src: &[U]) -> Self::P;
    /// `sum` plus the products of each lane's values, k ascending; of floats each step rounded once.
    fn dot(self, a: Self::P, b: Self::P, sum: Self::V) -> Self::V;
    /// The value of a segment (N1: no -0 leaves it; N4: zero points taken), from its sum and the tails of its row and its columns.
    fn segment(self, sum: Self::V, row: [U::Acc; 2], cols: [Self::V; 2]) -> Self::V;
}

macro_rules! dot_is_fma {
    ($t:ty) => {
        impl<S: FloatLanes<$t>> Dot<$t> for S {
            type P = <S as Lanes<$t>>::V;
            #[inline(always)]
            fn splat_unit(self, unit: $t) -> Self::P {
                self.splat(unit)
            }
            #[inline(always)]
            fn load_units(self, src: &[$t]) -> Self::P {
                self.load(src)
            }
            #[inline(always)]
            fn dot(self, a: Self::P, b: Self::P, sum: <S as Lanes<$t>>::V) -> <S as Lanes<$t>>::V {
                self.mul_add(a, b, sum)
            }
            #[inline(always)]
            fn segment(
                self,
                sum: <S as Lanes<$t>>::V,
                _row: [$t; 2],
                _cols: [<S as Lanes<$t>>::V; 2],
            ) -> <S as Lanes<$t>>::V {
                self.add(sum, self.splat(0.0))
            }
        }
    };
}
dot_is_fma!(f32);
dot_is_fma!(f64);

/// What the functions of [`crate::math`] need of f32 lanes beyond [`FloatLanes`].
pub trait MathLanes: FloatLanes<f32> {
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
    /// The values of the first `2 * LANES` bf16 codes: of those at even places, and of those at odd ones.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    fn bf16_pairs(self, codes: &[u16]) -> [Self::V; 2] {
        let mut halves = [[0.0f32; 16]; 2];
        for (i, pair) in codes[..2 * Self::LANES].as_chunks::<2>().0.iter().enumerate() {
            for (half, code) in halves.iter_mut().zip(pair) {
                half[i] = f32::from_bits(u32::from(*code) << 16);
            }
        }
        [self.load(&halves[0]), self.load(&halves[1])]
    }
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

/// Asks for the cache line of an address to come near: into the second-level cache, where it waits without taking part of the first. It holds none of the few
/// requests that the first level can have under way, which a stream from memory exhausts (benches/record/2026-11-25-in-place.md).
#[inline(always)]
pub(crate) fn prefetch_near<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// `x`, of which the compiler knows nothing.
#[inline(always)]
pub(crate) fn opaque(x: isize) -> isize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    let x = {
        let mut x = x;
        // SAFETY: no instruction at all: `x` stays in the register it is in.
        unsafe { std::arch::asm!("/* {} */", inout(reg) x, options(pure, nomem, nostack, preserves_flags)) };
        x
    };
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    struct InTurns;

    impl WithSimd for InTurns {
        type Output = ();
        fn with_simd<S: Simd>(self, s: S) {
            fn check<T: bytemuck::Zeroable + Copy + PartialEq + std::fmt::Debug, S: FloatLanes<T>>(
                s: S,
                value: fn(u8) -> T,
            ) {
                let values: [T; 32] = std::array::from_fn(|i| value(i as u8));
                let (n, mut got) = (S::LANES, [value(99); 64]);
                let (a, b) = (s.load(&values), s.load(&values[n..]));
                let [low, high] = s.zip(a, b);
                let [even, odd] = s.unzip(a, b);
                let [again, as_well] = s.unzip(low, high);
                s.store(&mut got, s.leave_out(a, 1, 2));
                for (lane, &got) in got[..n.saturating_sub(2)].iter().enumerate() {
                    assert_eq!(got, value(if lane < 1 { lane } else { lane + 2 } as u8), "lane {lane}");
                }
                s.store(&mut got, s.put_zeros(a, 1, 1));
                for (lane, &got) in got[..n].iter().enumerate() {
                    assert_eq!(
                        got,
                        [value(0), T::zeroed(), value(lane as u8 - lane.min(1) as u8)][lane.min(2)]
                    );
                }
                for (i, v) in [low, high, even, odd, again, as_well].into_iter().enumerate() {
                    s.store(&mut got, v);
                    for (lane, &got) in got[..n].iter().enumerate() {
                        let at = [lane, n + lane, 2 * lane, 2 * lane + 1, lane, n + lane][i];
                        let from = if i < 2 { at % 2 * n + at / 2 } else { at };
                        assert_eq!(got, value(from as u8), "lane {lane} of vector {i}");
                    }
                }
            }
            check::<f32, S>(s, f32::from);
            check::<f64, S>(s, f64::from);
        }
    }

    #[test]
    fn lanes_take_turns_and_part() {
        Isa::available().for_each(|isa| isa.dispatch_but_dots(InTurns));
    }
}
