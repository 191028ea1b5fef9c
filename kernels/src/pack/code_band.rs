//! Copies the part of a convolution's input of codes that some positions need, and changes them on the way: narrow numbers to f32, bytes to what the dot products take. Channels innermost, padding
//! written out.

use bytemuck::{Pod, Zeroable};

use crate::format::{Code, Format, Widener, Words, table};
use crate::isa::Isa;
use crate::mat::MatRef;
use crate::scan::{Band, Line, Scan};
use crate::simd::{Simd, WithSimd};

use super::band::fill_ends;
use super::panel::first_words;
use super::{Operand, Zero, guard};

/// Codes of a plane that are changed at a time.
const AT_ONCE: usize = 64;

/// What becomes of codes on their way.
trait Change<W>: Copy {
    type Out: Pod;
    /// What stands for padding.
    fn pad(&self) -> Self::Out;
    /// What codes become. The slices have one length.
    fn change<S: Simd>(&self, s: S, codes: &[W], out: &mut [Self::Out]);
}

/// The values of narrow floats.
impl<W: Code> Change<W> for Widener<'_> {
    type Out = f32;
    #[inline(always)]
    fn pad(&self) -> f32 {
        self.one(W::zeroed())
    }
    #[inline(always)]
    fn change<S: Simd>(&self, s: S, codes: &[W], out: &mut [f32]) {
        self.widen(s, codes, out);
    }
}

/// Integers, less their zero point, in f32.
#[derive(Clone, Copy)]
struct Less {
    signed: bool,
    zero: i32,
}

impl Change<u8> for Less {
    type Out = f32;
    #[inline(always)]
    fn pad(&self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn change<S: Simd>(&self, _: S, codes: &[u8], out: &mut [f32]) {
        if self.signed {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = (i32::from(code as i8) - self.zero) as f32;
            }
        } else {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = (i32::from(code) - self.zero) as f32;
            }
        }
    }
}

/// Bytes as they are, but for the bits of `flip`, which are turned over.
#[derive(Clone, Copy)]
struct Flip {
    flip: u8,
    pad: u8,
}

impl Change<u8> for Flip {
    type Out = u8;
    #[inline(always)]
    fn pad(&self) -> u8 {
        self.pad
    }
    #[inline(always)]
    fn change<S: Simd>(&self, _: S, codes: &[u8], out: &mut [u8]) {
        if self.flip == 0 {
            return out.copy_from_slice(codes);
        }
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = code ^ self.flip;
        }
    }
}

/// Codes as they are.
#[derive(Clone, Copy)]
struct Same;

impl Change<u16> for Same {
    type Out = u16;
    #[inline(always)]
    fn pad(&self) -> u16 {
        0
    }
    #[inline(always)]
    fn change<S: Simd>(&self, _: S, codes: &[u16], out: &mut [u16]) {
        out.copy_from_slice(codes);
    }
}

struct CopyChanged<'a, W, C: Change<W>> {
    scan: &'a Scan,
    band: &'a Band,
    data: &'a [W],
    start: isize,
    codes: C,
    out: &'a mut [C::Out],
}

/// [`super::copy_band`] of the values of an operand of narrow floats or 8-bit integers, which lies from `start` on.
///
/// # Panics
/// If `out` is shorter than [`Band::len`] of each strip, the operand is of another kind or has several zero points, or a code lies outside it.
pub fn copy_wide_band(
    isa: Isa,
    scan: &Scan,
    band: &Band,
    operand: Operand<'_>,
    start: isize,
    out: &mut [f32],
) {
    let table = table(operand.format);
    match (operand.words, Widener::new(operand.format, &table), operand.zero) {
        (Words::U8(data), Some(codes), _) => {
            isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes, out });
        }
        (Words::U16(data), Some(codes), _) => {
            isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes, out });
        }
        (Words::U8(data), None, Zero::Tensor(zero)) => {
            let codes = Less { signed: operand.format == Format::I8, zero };
            isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes, out });
        }
        _ => panic!("{} is not widened, nor with several zero points", operand.format),
    }
}

/// [`super::copy_band`] of bytes, which lie in `data` from `start` on: the bits of `flip` are turned over in each, padding becomes `pad`.
///
/// # Panics
/// If `out` is shorter than [`Band::len`] of each strip or a byte lies outside `data`.
pub fn copy_byte_band(
    isa: Isa,
    scan: &Scan,
    band: &Band,
    (data, start): (&[u8], isize),
    [flip, pad]: [u8; 2],
    out: &mut [u8],
) {
    isa.dispatch_but_dots(CopyChanged { scan, band, data, start, codes: Flip { flip, pad }, out });
}

/// [`super::copy_band`] of bf16, which lie in `data` from `start` on, two channels a unit as panels hold them: the earlier one in the upper half. Returns the least exponent
/// ([`guard`](super::guard)).
///
/// # Panics
/// If `out` is shorter than [`Band::len`], there is an odd number of channels or a place holds others than all of them, or a code lies outside `data`.
pub fn copy_pair_band(
    isa: Isa,
    scan: &Scan,
    band: &Band,
    (data, start): (&[u16], isize),
    out: &mut [u16],
) -> i32 {
    assert!(scan.pitch == scan.channels.0 && scan.pitch.is_multiple_of(2), "whole places of pairs");
    isa.dispatch_but_dots(CopyPairs(CopyChanged { scan, band, data, start, codes: Same, out }))
}

struct CopyPairs<'a>(CopyChanged<'a, u16, Same>);

impl WithSimd for CopyPairs<'_> {
    type Output = i32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> i32 {
        let CopyPairs(mut copy) = self;
        let (scan, len) = (copy.scan, copy.band.across.len() * copy.scan.pitch);
        let planes = scan.axes[2].stride == 1 && scan.channels.1 != 1;
        let mut least = guard::ALL_ZERO;
        for line in scan.lines(copy.band) {
            copy.ends(&line);
            if planes {
                copy.turned_planes(s, &line);
            } else {
                copy.inside(s, &line);
            }
            let units: &mut [u32] = bytemuck::cast_slice_mut(&mut copy.out[line.place * len..][..len]);
            least = least.min(guard::least_exponent(s, units));
            if !planes {
                for unit in units {
                    *unit = unit.rotate_left(16);
                }
            }
        }
        least
    }
}

/// Copies rows of bf16, whose elements lie side by side, to rows of `out` that begin `pitch` codes apart: pair by pair as [`copy_pair_band`] does, a zero behind an odd number. Returns the least exponent.
///
/// # Panics
/// If elements of a row do not lie side by side, or `out` is shorter.
pub fn copy_pair_rows(isa: Isa, rows: MatRef<'_, u16>, out: &mut [u16], pitch: usize) -> i32 {
    isa.dispatch_but_dots(CopyPairRows { rows, out, pitch })
}

struct CopyPairRows<'a> {
    rows: MatRef<'a, u16>,
    out: &'a mut [u16],
    pitch: usize,
}

impl WithSimd for CopyPairRows<'_> {
    type Output = i32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> i32 {
        let CopyPairRows { rows, out, pitch } = self;
        let (k, mut least) = (rows.cols().next_multiple_of(2), [u16::MAX; 32]);
        for row in 0..rows.rows() {
            let words: &mut [u32] = bytemuck::cast_slice_mut(&mut out[row * pitch..][..k]);
            least = s.copy_pairs(rows.row(row), words, least);
        }
        guard::exponent(least.iter().fold(u16::MAX, |least, &lane| least.min(lane)))
    }
}

/// Positions and pairs of channels of a block that is transposed.
const BLOCK: usize = 16;

impl CopyChanged<'_, u16, Same> {
    /// What of a line is not padding, of planes: pairs of channels in blocks of 16 by 16 positions.
    #[inline(always)]
    fn turned_planes<S: Simd>(&mut self, s: S, line: &Line) {
        let ((channels, down), pitch) = (self.scan.channels, self.scan.pitch);
        let first = self.start + line.offset;
        let plane = |c: usize| (first + c as isize * down) as usize;
        let (len, pairs) = (line.inside.len(), channels / 2);
        let to = line.place * self.band.across.len() * pitch + line.inside.start * pitch;
        let out: &mut [f32] = bytemuck::cast_slice_mut(&mut self.out[to..][..len * pitch]);
        for pair in (0..pairs).step_by(BLOCK) {
            let wide = BLOCK.min(pairs - pair);
            for x in (0..len).step_by(BLOCK) {
                let long = BLOCK.min(len - x);
                let mut block = [[0f32; BLOCK]; BLOCK];
                for (i, row) in block[..wide].iter_mut().enumerate() {
                    let c = 2 * (pair + i);
                    let earlier = first_words::<_, BLOCK>(&self.data[plane(c) + x..], long, 0);
                    let later = first_words::<_, BLOCK>(&self.data[plane(c + 1) + x..], long, 0);
                    for ((unit, earlier), later) in row.iter_mut().zip(earlier).zip(later) {
                        *unit = f32::from_bits(u32::from(earlier) << 16 | u32::from(later));
                    }
                }
                let mut rows = [&[0f32; BLOCK]; BLOCK];
                for (row, block) in rows.iter_mut().zip(&block) {
                    *row = block;
                }
                let turned = s.transpose_16x16(rows);
                for (i, units) in turned[..long].iter().enumerate() {
                    let to = &mut out[(x + i) * pairs + pair..][..wide];
                    match <&mut [f32; BLOCK]>::try_from(&mut *to) {
                        Ok(to) => *to = *units,
                        Err(_) => to.copy_from_slice(&units[..wide]),
                    }
                }
            }
        }
    }
}

impl<W: Code, C: Change<W>> CopyChanged<'_, W, C> {
    /// Elements of a strip.
    fn strip(&self) -> usize {
        self.band.len(self.scan.pitch)
    }

    /// The places of a line that are padding.
    #[inline(always)]
    fn ends(&mut self, line: &Line) {
        let (pitch, strip) = (self.scan.pitch, self.strip());
        let len = self.band.across.len() * pitch;
        let all = self.scan.channels.0.div_ceil(pitch) * strip;
        let places = line.place * len..(line.place + 1) * len;
        fill_ends(&mut self.out[..all], strip, places, &line.inside, pitch, self.codes.pad());
    }

    /// What of a line is not padding.
    #[inline(always)]
    fn inside<S: Simd>(&mut self, s: S, line: &Line) {
        let strip = self.strip();
        let CopyChanged { scan, band, data, start, codes, ref mut out } = *self;
        let ((channels, down), pitch) = (scan.channels, scan.pitch);
        let to = (line.place * band.across.len() + line.inside.start) * pitch;
        let (stride, len, first) = (scan.axes[2].stride, line.inside.len(), start + line.offset);
        let place = |x: usize, c: usize| (first + x as isize * stride + c as isize * down) as usize;
        if len == 0 {
            return;
        }
        if down == 1 && pitch == channels && (stride == channels as isize || len == 1) {
            codes.change(s, &data[place(0, 0)..][..len * channels], &mut out[to..][..len * channels]);
        } else if down == 1 {
            for x in 0..len {
                let (mut from, mut to) = (&data[place(x, 0)..][..channels], to + x * pitch);
                while !from.is_empty() {
                    let (now, rest) = from.split_at(pitch.min(from.len()));
                    codes.change(s, now, &mut out[to..][..now.len()]);
                    (from, to) = (rest, to + strip);
                }
            }
        } else {
            for c in 0..channels {
                let to = to + c / pitch * strip + c % pitch;
                for x in (0..len).step_by(AT_ONCE) {
                    let (mut some, mut values) = ([W::zeroed(); AT_ONCE], [C::Out::zeroed(); AT_ONCE]);
                    let n = AT_ONCE.min(len - x);
                    for (i, code) in some[..n].iter_mut().enumerate() {
                        *code = data[place(x + i, c)];
                    }
                    codes.change(s, &some, &mut values);
                    for (i, &value) in values[..n].iter().enumerate() {
                        out[to + (x + i) * pitch] = value;
                    }
                }
            }
        }
    }
}

impl<W: Code, C: Change<W>> WithSimd for CopyChanged<'_, W, C> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        for line in self.scan.lines(self.band) {
            self.ends(&line);
            self.inside(s, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_pair_by_pair_whatever_their_length() {
        // Zeros of both signs, subnormals, every exponent.
        let code = |i: usize| ((i * 40503) >> 3) as u16;
        for isa in Isa::available() {
            for k in 1..70 {
                let codes: Vec<u16> = (0..3 * k).map(code).collect();
                // Each place has the least one once, but for zero, which is none.
                for (at, least_at) in (0..3 * k).zip([0x8000, 0x0001, 0x0080, 0x3f80].into_iter().cycle()) {
                    let greater =
                        |code: &u16| if code & 0x7fff <= least_at & 0x7fff { 0x7f00 } else { *code };
                    let mut row: Vec<u16> = codes.iter().map(greater).collect();
                    row[at] = least_at;
                    let (pitch, mut out) = (k.next_multiple_of(2) + 2, vec![7u16; 3 * (k + 3)]);
                    let least = copy_pair_rows(isa, MatRef::row_major(&row, 3, k), &mut out, pitch);
                    let exponent = |code: u16| match code & 0x7fff {
                        0 => None,
                        1..0x80 => Some(i32::MIN),
                        code => Some(i32::from(code >> 7) - 127),
                    };
                    let want = row.iter().filter_map(|&code| exponent(code)).min();
                    match want {
                        None => assert_eq!(least, guard::ALL_ZERO),
                        Some(i32::MIN) => assert!(!guard::allows(least, 127)),
                        Some(want) => assert_eq!(least, want, "{isa} {k}"),
                    }
                    for (i, codes) in row.chunks(k).enumerate() {
                        let words: &[u32] = bytemuck::cast_slice(&out[i * pitch..][..k.next_multiple_of(2)]);
                        for (word, pair) in words.iter().zip(codes.chunks(2)) {
                            let later = pair.get(1).copied().unwrap_or(0);
                            assert_eq!(
                                *word,
                                u32::from(pair[0]) << 16 | u32::from(later),
                                "{isa} {k} row {i}"
                            );
                        }
                        assert_eq!(out[i * pitch + k.next_multiple_of(2)..(i + 1) * pitch], [7, 7]);
                    }
                }
            }
        }
    }
}
