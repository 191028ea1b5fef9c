//! What a packer does to elements on their way into a panel: nothing, widen them, or put neighbours along k together.

use crate::format::Codec;
use crate::simd::{Bf16x2, I8x4, I16x2, Simd, Unit, transpose_scalar};

use super::{PANEL_WIDTH, Side};

/// From the words of an operand to the units of a panel.
pub(super) trait Convert: Copy {
    /// Words of the operand.
    type Word: bytemuck::Pod;
    /// Units of the panel.
    type Out: bytemuck::Pod;
    /// Words in one unit.
    const K: usize;
    /// The word of a padded tap in lane `w`.
    fn pad(&self, w: usize) -> Self::Word;
    /// The unit of lane `w` from its first `n` words; those beyond count as nothing.
    fn unit(&self, w: usize, words: [Self::Word; 4], n: usize) -> Self::Out;
    /// `result[i][j] = block[j][i]`.
    fn transpose<S: Simd>(s: S, block: [[Self::Out; 8]; 8]) -> [[Self::Out; 8]; 8];
}

macro_rules! transpose_as_f32 {
    () => {
        #[inline(always)]
        fn transpose<S: Simd>(s: S, block: [[Self::Out; 8]; 8]) -> [[Self::Out; 8]; 8] {
            bytemuck::must_cast(s.transpose_8x8(bytemuck::must_cast(block)))
        }
    };
}

macro_rules! transpose_plainly {
    () => {
        #[inline(always)]
        fn transpose<S: Simd>(_: S, block: [[Self::Out; 8]; 8]) -> [[Self::Out; 8]; 8] {
            transpose_scalar(block)
        }
    };
}

/// Words as they are: f32 and f64 panels, and the staging of everything else.
#[derive(Clone, Copy)]
pub(super) struct Same<W>(pub(super) W);

macro_rules! same {
    ($t:ty, $transpose:ident) => {
        impl Convert for Same<$t> {
            type Word = $t;
            type Out = $t;
            const K: usize = 1;
            #[inline(always)]
            fn pad(&self, _: usize) -> $t {
                self.0
            }
            #[inline(always)]
            fn unit(&self, _: usize, words: [$t; 4], _: usize) -> $t {
                words[0]
            }
            $transpose!();
        }
    };
}
same!(f32, transpose_as_f32);
same!(f64, transpose_plainly);
same!(u16, transpose_plainly);
same!(u8, transpose_plainly);

/// A narrow float, widened to f32.
#[derive(Clone, Copy)]
pub(super) struct Widen<W>(pub(super) Codec, pub(super) std::marker::PhantomData<W>);

/// A bf16, widened to f32.
#[derive(Clone, Copy)]
pub(super) struct WidenBf16;

/// Any word that is widened to f32, widened on to f64.
#[derive(Clone, Copy)]
pub(super) struct Double<C>(pub(super) C);

macro_rules! widen {
    ($t:ty) => {
        impl Convert for Widen<$t> {
            type Word = $t;
            type Out = f32;
            const K: usize = 1;
            #[inline(always)]
            fn pad(&self, _: usize) -> $t {
                0
            }
            #[inline(always)]
            fn unit(&self, _: usize, words: [$t; 4], _: usize) -> f32 {
                self.0.widen(words[0].into())
            }
            transpose_as_f32!();
        }
    };
}
widen!(u8);
widen!(u16);

impl Convert for WidenBf16 {
    type Word = u16;
    type Out = f32;
    const K: usize = 1;
    #[inline(always)]
    fn pad(&self, _: usize) -> u16 {
        0
    }
    #[inline(always)]
    fn unit(&self, _: usize, words: [u16; 4], _: usize) -> f32 {
        f32::from_bits(u32::from(words[0]) << 16)
    }
    transpose_as_f32!();
}

impl<C: Convert<Out = f32>> Convert for Double<C> {
    type Word = C::Word;
    type Out = f64;
    const K: usize = 1;
    #[inline(always)]
    fn pad(&self, w: usize) -> C::Word {
        self.0.pad(w)
    }
    #[inline(always)]
    fn unit(&self, w: usize, words: [C::Word; 4], n: usize) -> f64 {
        self.0.unit(w, words, n).into()
    }
    transpose_plainly!();
}

/// Two bf16 side by side.
#[derive(Clone, Copy)]
pub(super) struct PairBf16;

impl Convert for PairBf16 {
    type Word = u16;
    type Out = Bf16x2;
    const K: usize = 2;
    #[inline(always)]
    fn pad(&self, _: usize) -> u16 {
        0
    }
    #[inline(always)]
    fn unit(&self, _: usize, words: [u16; 4], n: usize) -> Bf16x2 {
        let second = if n > 1 { words[1] } else { 0 };
        Bf16x2(u32::from(words[0]) << 16 | u32::from(second))
    }
    transpose_as_f32!();
}

/// Two 8-bit floats side by side as bf16, which hold them exactly.
#[derive(Clone, Copy)]
pub(super) struct PairMini(pub(super) Codec);

impl Convert for PairMini {
    type Word = u8;
    type Out = Bf16x2;
    const K: usize = 2;
    #[inline(always)]
    fn pad(&self, _: usize) -> u8 {
        0
    }
    #[inline(always)]
    fn unit(&self, _: usize, words: [u8; 4], n: usize) -> Bf16x2 {
        let first = self.0.widen(words[0].into()).to_bits();
        let second = if n > 1 { self.0.widen(words[1].into()).to_bits() >> 16 } else { 0 };
        Bf16x2(first | second)
    }
    transpose_as_f32!();
}

/// 8-bit integers less their zero points, in pairs of i16: at most 255 either way.
#[derive(Clone, Copy)]
pub(super) struct PairI8 {
    /// Added to the sign bit of an i8 to make it a u8.
    pub(super) flip: u8,
    /// The zero point of each lane, as that u8.
    pub(super) zero: [u8; PANEL_WIDTH],
}

impl Convert for PairI8 {
    type Word = u8;
    type Out = I16x2;
    const K: usize = 2;
    #[inline(always)]
    fn pad(&self, w: usize) -> u8 {
        self.zero[w] ^ self.flip
    }
    #[inline(always)]
    fn unit(&self, w: usize, words: [u8; 4], n: usize) -> I16x2 {
        let value = |word: u8| u16::from(word ^ self.flip).wrapping_sub(self.zero[w].into());
        let second = if n > 1 { u32::from(value(words[1])) } else { 0 };
        I16x2(u32::from(value(words[0])) | second << 16)
    }
    transpose_as_f32!();
}

/// Four 8-bit integers, as u8 for an lhs and as i8 for an rhs.
#[derive(Clone, Copy)]
pub(super) struct QuadI8 {
    /// 0x80 where the operand's signedness is not the side's.
    pub(super) flip: u8,
    /// The code of zero of each lane, as the operand has it.
    pub(super) zero: [u8; PANEL_WIDTH],
}

impl QuadI8 {
    /// For an operand of signed or unsigned integers on a side.
    pub(super) fn new(signed: bool, side: Side, zero: [u8; PANEL_WIDTH]) -> Self {
        let wants_signed = side == Side::Rhs;
        QuadI8 { flip: if signed == wants_signed { 0 } else { 0x80 }, zero }
    }

    /// The tail of a panel of `W` lanes whose units stand before it.
    #[inline(always)]
    pub(super) fn tail<const W: usize>(&self, side: Side, kc: usize, panel: &mut [I8x4]) {
        let (units, tail) = panel.split_at_mut(panel.len() - I8x4::TAIL * W);
        let mut sums = [0i32; W];
        for row in units.chunks_exact(W) {
            for (sum, unit) in sums.iter_mut().zip(row) {
                let [a, b, c, d] = unit.0.to_le_bytes();
                *sum += match side {
                    Side::Lhs => i32::from(a) + i32::from(b) + i32::from(c) + i32::from(d),
                    Side::Rhs => {
                        i32::from(a as i8) + i32::from(b as i8) + i32::from(c as i8) + i32::from(d as i8)
                    }
                };
            }
        }
        for (w, sum) in sums.into_iter().enumerate() {
            let code = self.zero[w] ^ self.flip;
            let (first, second) = match side {
                Side::Lhs => (sum, i32::from(code)),
                Side::Rhs => (i32::from(code as i8), sum - kc as i32 * i32::from(code as i8)),
            };
            (tail[w], tail[W + w]) = (I8x4(first as u32), I8x4(second as u32));
        }
    }
}

impl Convert for QuadI8 {
    type Word = u8;
    type Out = I8x4;
    const K: usize = 4;
    #[inline(always)]
    fn pad(&self, w: usize) -> u8 {
        self.zero[w]
    }
    #[inline(always)]
    fn unit(&self, _: usize, words: [u8; 4], n: usize) -> I8x4 {
        let flip = u32::from(self.flip) * 0x0101_0101;
        let here = if n < 4 { (1u32 << (8 * n)) - 1 } else { u32::MAX };
        I8x4((u32::from_le_bytes(words) ^ flip) & here)
    }
    transpose_as_f32!();
}
