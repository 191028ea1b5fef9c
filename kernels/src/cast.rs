//! Slices from one format to another.

use crate::format::{self, Code, Format, Target, Widener, Words, WordsMut, random_bits, round_to_odd};
use crate::isa::Isa;
use crate::simd::{Simd, WithSimd};

/// Values that go through a buffer at a time: it stays in a first-level cache.
const CHUNK: usize = 1024;

/// Codes of one format as codes of another. A value is rounded once, whatever the formats; element `i` of the slice has index `first + i`
/// for stochastic rounding. 8-bit integers are read as `(code - zero) scale` in f32, and written as `x / scale` rounded, plus the zero point.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// The format of the source.
    pub from: Format,
    /// Of a source of 8-bit integers: scale and zero point.
    pub from_scale: (f32, i32),
    /// The target; its zero point is that of the result.
    pub target: Target,
    /// Of a target of 8-bit integers.
    pub to_scale: f32,
}

impl Cast {
    /// Casts `src` to `dst`.
    ///
    /// # Panics
    /// If the slices differ in length or do not hold words of their formats.
    pub fn run(self, isa: Isa, src: Words<'_>, dst: WordsMut<'_>, first: u64) {
        isa.dispatch_but_dots(Run { cast: self, src, dst, first });
    }
}

struct Run<'a> {
    cast: Cast,
    src: Words<'a>,
    dst: WordsMut<'a>,
    first: u64,
}

impl WithSimd for Run<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Run { cast, src, dst, first } = self;
        let table = format::table(cast.from);
        let widener = Widener::new(cast.from, &table);
        match dst {
            WordsMut::F64(dst) => to_f64(s, cast, widener, src, dst),
            WordsMut::F32(dst) => {
                assert_eq!(src.len(), dst.len());
                if let (Words::F64(src), Some(seed)) = (src, cast.target.seed()) {
                    for (i, (dst, &src)) in dst.iter_mut().zip(src).enumerate() {
                        *dst = stochastic_f32(src, random_bits(seed, first + i as u64));
                    }
                    return;
                }
                let mut at = 0;
                while at < dst.len() {
                    let end = dst.len().min(at + CHUNK);
                    widen(s, cast, widener, src, at, &mut dst[at..end], false);
                    at = end;
                }
            }
            WordsMut::U16(dst) => narrow(s, cast, widener, src, dst, first),
            WordsMut::U8(dst) => narrow(s, cast, widener, src, dst, first),
            WordsMut::I32(_) => unreachable!("nothing is cast to i32"),
        }
    }
}

/// The upper of two neighbouring f32 with the probability of the value's place, in 29 bits of the mantissa that f64 has beyond; values that are
/// subnormal or too large in f32 are rounded to nearest.
#[inline(always)]
fn stochastic_f32(x: f64, random: u32) -> f32 {
    let size = x.abs();
    if !(f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&size) {
        return x as f32;
    }
    let bits = x.to_bits() + u64::from(random >> 3);
    f64::from_bits(bits & !0x1fff_ffff) as f32
}

/// Codes from `at` on as f32. `odd`: what does not fit is rounded to odd, for a second rounding.
#[inline(always)]
fn widen<S: Simd>(
    s: S,
    cast: Cast,
    widener: Option<Widener<'_>>,
    src: Words<'_>,
    at: usize,
    dst: &mut [f32],
    odd: bool,
) {
    let range = at..at + dst.len();
    match (src, widener) {
        (Words::F32(src), _) => dst.copy_from_slice(&src[range]),
        (Words::F64(src), _) if odd => {
            for (dst, &src) in dst.iter_mut().zip(&src[range]) {
                *dst = round_to_odd(src);
            }
        }
        (Words::F64(src), _) => {
            for (dst, &src) in dst.iter_mut().zip(&src[range]) {
                *dst = src as f32;
            }
        }
        (Words::U16(src), Some(widener)) => widener.widen(s, &src[range], dst),
        (Words::U8(src), Some(widener)) => widener.widen(s, &src[range], dst),
        (Words::U8(src), None) => {
            let (scale, zero) = cast.from_scale;
            let (flip, base) = if cast.from == Format::I8 { (0x80, zero + 128) } else { (0, zero) };
            for (dst, &src) in dst.iter_mut().zip(&src[range]) {
                *dst = (i32::from(src ^ flip) - base) as f32 * scale;
            }
        }
        (src, _) => unreachable!("{} in {} words", cast.from, src.len()),
    }
}

#[inline(always)]
fn to_f64<S: Simd>(s: S, cast: Cast, widener: Option<Widener<'_>>, src: Words<'_>, dst: &mut [f64]) {
    assert_eq!(src.len(), dst.len());
    if let Words::F64(src) = src {
        dst.copy_from_slice(src);
        return;
    }
    let mut buffer = [0.0; CHUNK];
    for (chunk, dst) in dst.chunks_mut(CHUNK).enumerate() {
        let buffer = &mut buffer[..dst.len()];
        widen(s, cast, widener, src, chunk * CHUNK, buffer, false);
        for (dst, &value) in dst.iter_mut().zip(&*buffer) {
            *dst = value.into();
        }
    }
}

#[inline(always)]
fn narrow<S: Simd, W: Code>(
    s: S,
    cast: Cast,
    widener: Option<Widener<'_>>,
    src: Words<'_>,
    dst: &mut [W],
    first: u64,
) {
    assert_eq!(src.len(), dst.len());
    let target = cast.target;
    let mut buffer = [0.0; CHUNK];
    let mut indices = [0; CHUNK];
    for (chunk, dst) in dst.chunks_mut(CHUNK).enumerate() {
        let (at, len) = (chunk * CHUNK, dst.len());
        let scaled = target.format().is_integer() && cast.to_scale != 1.0;
        let values = match src {
            Words::F32(src) if !scaled => &src[at..at + len],
            _ => {
                let buffer = &mut buffer[..len];
                widen(s, cast, widener, src, at, buffer, true);
                if scaled {
                    for value in &mut *buffer {
                        *value /= cast.to_scale;
                    }
                }
                buffer
            }
        };
        if target.seed().is_some() {
            for (index, i) in indices[..len].iter_mut().zip(first + at as u64..) {
                *index = i;
            }
        }
        format::narrow(s, &target, values, &indices, dst);
    }
}
