//! What a packer does to elements on their way into a panel: nothing, widen them, or put neighbours along k together.

use crate::format::{Code, LOOK_UP, Widener};
use crate::simd::{Bf16x2, I8x4, I16x2, Lanes, Simd, Unit, transpose_scalar};

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
    /// The word of lane `w` that counts as nothing in a unit.
    #[inline(always)]
    fn nothing(&self, w: usize) -> Self::Word {
        self.pad(w)
    }
    /// The unit of lane `w` from its first `n` words; those beyond count as nothing.
    fn unit(&self, w: usize, words: [Self::Word; 4], n: usize) -> Self::Out;
    /// The units of lanes side by side: `rows[j][w]` is place `j` of lane `w`, `K` places.
    #[inline(always)]
    fn beside<S: Simd>(&self, _: S, rows: [&[Self::Word]; 4], out: &mut [Self::Out]) {
        let [first, second, third, fourth] = rows;
        for (w, out) in out.iter_mut().enumerate() {
            *out = self.unit(w, [first[w], second[w], third[w], fourth[w]], Self::K);
        }
    }
    /// The units of a few lanes side by side, of one place each, the first of them lane `w`; as many as `words` has.
    #[inline(always)]
    fn few<S: Simd>(&self, _: S, w: usize, words: &[Self::Word], out: &mut [Self::Out]) {
        for (j, (out, &word)) in out.iter_mut().zip(words).enumerate() {
            *out = self.unit(w + j, [word; 4], 1);
        }
    }
    /// Eight units of lane `w`, from `8 K` words.
    #[inline(always)]
    fn along<S: Simd>(&self, _: S, w: usize, words: &[Self::Word]) -> [Self::Out; 8] {
        std::array::from_fn(|u| {
            self.unit(w, std::array::from_fn(|j| words[u * Self::K + j.min(Self::K - 1)]), Self::K)
        })
    }
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
    ($t:ty, $transpose:ident $(, few: $few:item)?) => {
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
            #[inline(always)]
            fn beside<S: Simd>(&self, _: S, rows: [&[$t]; 4], out: &mut [$t]) {
                out.copy_from_slice(rows[0]);
            }
            #[inline(always)]
            fn along<S: Simd>(&self, _: S, _: usize, words: &[$t]) -> [$t; 8] {
                words.try_into().expect("eight units of one word")
            }
            $($few)?
            $transpose!();
        }
    };
}
same!(f32, transpose_as_f32, few:
    #[inline(always)]
    fn few<S: Simd>(&self, s: S, _: usize, words: &[f32], out: &mut [f32]) {
        let lanes = <S as Lanes<f32>>::LANES;
        for at in (0..words.len()).step_by(lanes) {
            let n = lanes.min(words.len() - at);
            let v = s.load_first_n(&words[at..], n);
            s.store_first_n(&mut out[at..], n, v);
        }
    }
);
same!(f64, transpose_plainly);
same!(u16, transpose_plainly);
same!(u8, transpose_plainly);

/// A narrow float, widened to f32.
#[derive(Clone, Copy)]
pub(super) struct Widen<'a, W>(pub(super) Widener<'a>, pub(super) std::marker::PhantomData<W>);

impl<W: Code> Convert for Widen<'_, W> {
    type Word = W;
    type Out = f32;
    const K: usize = 1;
    #[inline(always)]
    fn pad(&self, _: usize) -> W {
        W::zeroed()
    }
    #[inline(always)]
    fn unit(&self, _: usize, words: [W; 4], _: usize) -> f32 {
        self.0.one(words[0])
    }
    #[inline(always)]
    fn beside<S: Simd>(&self, s: S, rows: [&[W]; 4], out: &mut [f32]) {
        self.0.widen(s, rows[0], out);
    }
    #[inline(always)]
    fn along<S: Simd>(&self, s: S, _: usize, words: &[W]) -> [f32; 8] {
        let mut out = [0.0; 8];
        self.0.widen(s, words, &mut out);
        out
    }
    transpose_as_f32!();
}

/// Any word that is widened to f32, widened on to f64.
#[derive(Clone, Copy)]
pub(super) struct Double<C>(pub(super) C);

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

/// Two 16-bit words of memory, the earlier one up.
#[inline(always)]
fn first_up(pair: u32) -> u32 {
    if cfg!(target_endian = "little") { pair.rotate_left(16) } else { pair }
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
    #[inline(always)]
    fn beside<S: Simd>(&self, _: S, [first, second, ..]: [&[u16]; 4], out: &mut [Bf16x2]) {
        for ((out, &first), &second) in out.iter_mut().zip(first).zip(second) {
            *out = Bf16x2(u32::from(first) << 16 | u32::from(second));
        }
    }
    #[inline(always)]
    fn along<S: Simd>(&self, _: S, _: usize, words: &[u16]) -> [Bf16x2; 8] {
        let words: [u16; 16] = words.try_into().expect("eight pairs");
        // The earlier word of a pair goes to the upper half, wherever the machine has its lower one.
        bytemuck::must_cast::<_, [u32; 8]>(words).map(|pair| Bf16x2(first_up(pair)))
    }
    transpose_as_f32!();
}

/// Two 8-bit floats side by side as bf16, which hold them exactly.
#[derive(Clone, Copy)]
pub(super) struct PairMini<'a>(pub(super) Widener<'a>);

impl PairMini<'_> {
    /// The units of pairs of codes, of each pair the later code first.
    #[inline(always)]
    fn pairs<S: Simd>(self, s: S, codes: &[u8; LOOK_UP]) -> [Bf16x2; LOOK_UP / 2] {
        let words = self.0.look_up(s, codes);
        if cfg!(target_endian = "little") {
            return bytemuck::must_cast(words);
        }
        std::array::from_fn(|u| Bf16x2(u32::from(words[2 * u + 1]) << 16 | u32::from(words[2 * u])))
    }
}

impl Convert for PairMini<'_> {
    type Word = u8;
    type Out = Bf16x2;
    const K: usize = 2;
    #[inline(always)]
    fn pad(&self, _: usize) -> u8 {
        0
    }
    #[inline(always)]
    fn unit(&self, _: usize, words: [u8; 4], n: usize) -> Bf16x2 {
        let first = self.0.one(words[0]).to_bits();
        let second = if n > 1 { self.0.one(words[1]).to_bits() >> 16 } else { 0 };
        Bf16x2(first | second)
    }
    #[inline(always)]
    fn beside<S: Simd>(&self, s: S, [first, second, ..]: [&[u8]; 4], out: &mut [Bf16x2]) {
        let firsts = first.chunks(LOOK_UP / 2).zip(second.chunks(LOOK_UP / 2));
        for ((first, second), out) in firsts.zip(out.chunks_mut(LOOK_UP / 2)) {
            let (mut upper, mut lower) = ([0u8; LOOK_UP / 2], [0u8; LOOK_UP / 2]);
            upper[..first.len()].copy_from_slice(first);
            lower[..second.len()].copy_from_slice(second);
            let pairs = self.pairs(s, &s.interleave(&lower, &upper));
            out.copy_from_slice(&pairs[..out.len()]);
        }
    }
    #[inline(always)]
    fn along<S: Simd>(&self, s: S, _: usize, words: &[u8]) -> [Bf16x2; 8] {
        let words: [u8; 16] = words.try_into().expect("eight pairs");
        let codes = std::array::from_fn(|i| if i < 16 { words[i ^ 1] } else { 0 });
        let pairs = self.pairs(s, &codes);
        std::array::from_fn(|u| pairs[u])
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

impl PairI8 {
    /// A word less the zero point of its lane, cut to 16 bits.
    #[inline(always)]
    fn value(&self, word: u8, zero: u8) -> u32 {
        u16::from(word ^ self.flip).wrapping_sub(zero.into()).into()
    }
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
        let second = if n > 1 { self.value(words[1], self.zero[w]) } else { 0 };
        I16x2(self.value(words[0], self.zero[w]) | second << 16)
    }
    #[inline(always)]
    fn beside<S: Simd>(&self, _: S, [first, second, ..]: [&[u8]; 4], out: &mut [I16x2]) {
        for (((out, &first), &second), &zero) in out.iter_mut().zip(first).zip(second).zip(&self.zero) {
            *out = I16x2(self.value(first, zero) | self.value(second, zero) << 16);
        }
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

/// Units whose bytes can be added in pairs in 16 bits.
const UNITS_IN_16_BITS: usize = 0xffff / (2 * 0xff);

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
        // As u8, an i8 128 too large; sums of two bytes of 16 bits a unit, for as many units as cannot overflow.
        let flip = if side == Side::Rhs { 0x8080_8080 } else { 0 };
        for units in units.chunks(UNITS_IN_16_BITS * W) {
            let mut halves = [0u32; W];
            for row in units.chunks_exact(W) {
                for (half, unit) in halves.iter_mut().zip(row) {
                    let bytes = unit.0 ^ flip;
                    *half += (bytes & 0x00ff_00ff) + (bytes >> 8 & 0x00ff_00ff);
                }
            }
            let excess = if side == Side::Rhs { 4 * 128 * (units.len() / W) as i32 } else { 0 };
            for (sum, half) in sums.iter_mut().zip(halves) {
                *sum += (half & 0xffff) as i32 + (half >> 16) as i32 - excess;
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
    #[inline(always)]
    fn nothing(&self, _: usize) -> u8 {
        self.flip
    }
    #[inline(always)]
    fn beside<S: Simd>(&self, s: S, rows: [&[u8]; 4], out: &mut [I8x4]) {
        let flip = u32::from(self.flip) * 0x0101_0101;
        let [first, second, third, fourth] = rows;
        let len = out.len();
        if len < 16 {
            for (w, out) in out.iter_mut().enumerate() {
                *out = self.unit(w, [first[w], second[w], third[w], fourth[w]], 4);
            }
            return;
        }
        for w in (0..len).step_by(16) {
            // The last sixteen may begin among those before.
            let w = w.min(len - 16);
            let sixteen =
                |row: &[u8]| -> [u8; 16] { *row[w..].first_chunk().expect("sixteen lanes are left") };
            let units =
                s.interleave_4([&sixteen(first), &sixteen(second), &sixteen(third), &sixteen(fourth)]);
            let units: [u32; 16] = bytemuck::must_cast(units);
            for (out, unit) in out[w..w + 16].iter_mut().zip(units) {
                *out = I8x4(u32::from_le(unit) ^ flip);
            }
        }
    }
    #[inline(always)]
    fn along<S: Simd>(&self, _: S, _: usize, words: &[u8]) -> [I8x4; 8] {
        let words: [u8; 32] = words.try_into().expect("eight units of four bytes");
        let flip = u32::from(self.flip) * 0x0101_0101;
        bytemuck::must_cast::<_, [u32; 8]>(words).map(|unit| I8x4(u32::from_le(unit) ^ flip))
    }
    transpose_as_f32!();
}
