//! Codes by the slice: the loops that packers, epilogues and casts share. Where an instruction set has instructions for a format they are used; their
//! results are those of [`Codec`], code by code.

use crate::simd::Simd;

use super::codec::Ladder;
use super::round::{Target, random_bits};
use super::{Codec, Format, Overflow};

/// A word that holds the codes of narrow floats.
pub(crate) trait Code: bytemuck::Pod {
    fn get(self) -> u32;
    /// The low bits.
    fn cut(code: u32) -> Self;
    /// The slice, if the words have 8 bits.
    fn bytes(codes: &[Self]) -> Option<&[u8]>;
    /// The slices, if the words have 16 bits.
    fn halves(codes: &[Self]) -> Option<&[u16]>;
    /// The slice, if the words have 16 bits.
    fn halves_mut(codes: &mut [Self]) -> Option<&mut [u16]>;
}

impl Code for u8 {
    #[inline(always)]
    fn get(self) -> u32 {
        self.into()
    }
    #[inline(always)]
    fn cut(code: u32) -> u8 {
        code as u8
    }
    #[inline(always)]
    fn bytes(codes: &[u8]) -> Option<&[u8]> {
        Some(codes)
    }
    #[inline(always)]
    fn halves(_: &[u8]) -> Option<&[u16]> {
        None
    }
    #[inline(always)]
    fn halves_mut(_: &mut [u8]) -> Option<&mut [u16]> {
        None
    }
}

impl Code for u16 {
    #[inline(always)]
    fn get(self) -> u32 {
        self.into()
    }
    #[inline(always)]
    fn cut(code: u32) -> u16 {
        code as u16
    }
    #[inline(always)]
    fn bytes(_: &[u16]) -> Option<&[u8]> {
        None
    }
    #[inline(always)]
    fn halves(codes: &[u16]) -> Option<&[u16]> {
        Some(codes)
    }
    #[inline(always)]
    fn halves_mut(codes: &mut [u16]) -> Option<&mut [u16]> {
        Some(codes)
    }
}

/// Codes that a [`Table`] is looked up for at a time.
pub(crate) const LOOK_UP: usize = 32;

/// Of an 8-bit float format: the upper half of the f32 that each magnitude is. The lower half is zero.
pub(crate) type Table = [u16; 128];

/// The table of a format; of no use for those without 8 bits.
#[inline(always)]
pub(crate) fn table(format: Format) -> Table {
    let mut table = [0; 128];
    if let (Some(codec), 1) = (Codec::of(format), format.bytes()) {
        for (code, value) in (0u32..).zip(&mut table) {
            *value = (codec.widen(code).to_bits() >> 16) as u16;
        }
    }
    table
}

/// A narrow float format, made ready to be widened.
#[derive(Clone, Copy)]
pub(crate) struct Widener<'a> {
    codec: Codec,
    format: Format,
    table: &'a Table,
}

impl<'a> Widener<'a> {
    /// For a narrow float format and its table; `None` for any other format.
    #[inline(always)]
    pub(crate) fn new(format: Format, table: &'a Table) -> Option<Self> {
        Some(Widener { codec: Codec::of(format)?, format, table })
    }

    /// The upper halves of the values of 8-bit codes.
    #[inline(always)]
    pub(crate) fn look_up<S: Simd>(&self, s: S, codes: &[u8; LOOK_UP]) -> [u16; LOOK_UP] {
        s.look_up(self.table, codes)
    }

    /// The value of one code.
    #[inline(always)]
    pub(crate) fn one<W: Code>(&self, code: W) -> f32 {
        self.codec.widen(code.get())
    }

    /// The values of codes. The slices have one length.
    #[inline(always)]
    pub(crate) fn widen<S: Simd, W: Code>(&self, s: S, codes: &[W], out: &mut [f32]) {
        match (W::bytes(codes), W::halves(codes)) {
            (Some(codes), _) if S::LOOKS_UP => s.look_up_f32(self.table, codes, out),
            (_, Some(codes)) if self.format == Format::Bf16 => {
                for (out, &code) in out.iter_mut().zip(codes) {
                    *out = f32::from_bits(u32::from(code) << 16);
                }
            }
            (_, Some(codes)) if S::F16 && self.format == Format::F16 => s.widen_f16(codes, out),
            _ => {
                for (out, &code) in out.iter_mut().zip(codes) {
                    *out = self.codec.widen(code.get());
                }
            }
        }
    }
}

/// The codes of `values`. `indices` are theirs where random bits are asked for. The loops are apart, so that each becomes vector code.
#[inline(always)]
pub(crate) fn narrow<S: Simd, W: Code>(
    s: S,
    target: &Target,
    values: &[f32],
    indices: &[u64],
    out: &mut [W],
) {
    match (target.codec(), target.seed()) {
        (Some((codec, top)), None) => match (codec.ladder(), W::halves_mut(out)) {
            (Ladder::F32, Some(out)) if S::BF16 && top == codec.top(Overflow::Ieee) => {
                s.narrow_bf16(values, out);
            }
            (Ladder::F32, _) => {
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = W::cut(codec.nearest_bf16(value, top));
                }
            }
            (_, Some(out))
                if S::F16 && target.format() == Format::F16 && top == codec.top(Overflow::Ieee) =>
            {
                s.narrow_f16(values, out);
            }
            (Ladder::Even, _) => {
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = W::cut(codec.nearest_low::<false, true>(value, top));
                }
            }
            (Ladder::Unsigned, _) => {
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = W::cut(codec.nearest_low::<true, false>(value, top));
                }
            }
            (Ladder::Hole, _) => {
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = W::cut(codec.nearest_low::<true, true>(value, top));
                }
            }
        },
        (Some((codec, top)), Some(seed)) => {
            for ((out, &value), &index) in out.iter_mut().zip(values).zip(indices) {
                *out = W::cut(codec.stochastic(value, top, random_bits(seed, index)));
            }
        }
        (None, None) => {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = W::cut(target.integer(value, None));
            }
        }
        (None, Some(seed)) => {
            for ((out, &value), &index) in out.iter_mut().zip(values).zip(indices) {
                *out = W::cut(target.integer(value, Some(random_bits(seed, index))));
            }
        }
    }
}
