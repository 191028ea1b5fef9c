//! Rows of bytes: an lhs as tiles of AMX read it, each row's k side by side.
//!
//! ```text
//! row x at x pitch: the codes at k = 0, 1, .., of padding the zero point, then zeros up to a multiple of 4
//! ```

use std::ops::Range;

use crate::axis::{Lane, Window};
use crate::format::Words;
use crate::isa::Isa;
use crate::simd::{Simd, WithSimd};

use super::panel::valid_interval;
use super::{Operand, Zero};

/// Rows whose places are looked up at a time.
const AT_ONCE: usize = 16;

/// Codes that are copied at a time.
const LINE: usize = 64;

/// Steps of k that are turned at a time.
const TURNED: usize = 64;

/// Copies rows `x` over `k` of `window` over an operand of bytes to the front of `out`, one `pitch` behind the other; `pitch` is at least k, rounded up to a multiple of 4. The bits of `flip` are turned over in
/// each code.
///
/// # Panics
/// If `out` is shorter, the window leaves the operand where its coordinates are valid, or the operand is not of bytes.
#[expect(clippy::too_many_arguments, reason = "two ranges, two sides of a copy, and how")]
pub fn pack_rows(
    isa: Isa,
    window: &Window,
    operand: Operand<'_>,
    x: Range<usize>,
    k: Range<usize>,
    flip: u8,
    pitch: usize,
    out: &mut [u8],
) {
    let Words::U8(data) = operand.words else { panic!("rows of bytes of {}", operand.format) };
    let padded = k.len().next_multiple_of(4);
    assert!(pitch >= padded && out.len() >= x.len() * pitch);
    isa.dispatch_but_dots(Rows { window, data, zero: operand.zero, x, k, flip, pitch, out });
}

struct Rows<'a> {
    window: &'a Window,
    data: &'a [u8],
    zero: Zero<'a>,
    x: Range<usize>,
    k: Range<usize>,
    flip: u8,
    pitch: usize,
    out: &'a mut [u8],
}

impl WithSimd for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Rows { window, data, zero, x, k, flip, pitch, out } = self;
        let (of_x, of_k) = (window.x.inner(), window.k.inner());
        let one_run = window.is_plain() && window.x.dims().len() == 1 && window.k.dims().len() == 1;
        if one_run && of_k.stride == 1 {
            let first = window.start + k.start as isize;
            for (row, out) in x.zip(out.chunks_mut(pitch)) {
                let first = (first + row as isize * of_x.stride) as usize;
                copy_flipped(&data[first..first + k.len()], flip, out);
            }
            return;
        }
        let turns = one_run && of_x.stride == 1 && of_k.stride != 1;
        let whole = if turns { k.len() / TURNED * TURNED } else { 0 };
        if turns {
            let first = window.start + x.start as isize + k.start as isize * of_k.stride;
            turn(s, data, first, of_k.stride, whole, pitch, &mut out[..x.len() * pitch]);
        }
        let k = k.start + whole..k.end;
        let mut done = 0;
        while done < x.len() {
            let many = AT_ONCE.min(x.len() - done);
            let mut lanes = [Lane::default(); AT_ONCE];
            window.lanes(x.start + done, many, |i, lane| lanes[i] = lane);
            for (i, lane) in lanes[..many].iter().enumerate() {
                let code = match zero {
                    Zero::Tensor(zero) => zero as u8,
                    Zero::PerX(zeros) => zeros[x.start + done + i] as u8,
                };
                let row = &mut out[(done + i) * pitch..][..pitch][whole..];
                copy(window, data, lane, code, &k, row);
            }
            if flip != 0 {
                for code in &mut out[done * pitch..(done + many) * pitch] {
                    *code ^= flip;
                }
            }
            done += many;
        }
    }
}

/// A row whose codes lie side by side, the bits of `flip` turned over in each, and as many codes behind it as fill four.
#[inline(always)]
fn copy_flipped(row: &[u8], flip: u8, out: &mut [u8]) {
    let (out, behind) = out.split_at_mut(row.len());
    if let Some(last) = row.len().checked_sub(LINE) {
        for at in (0..row.len()).step_by(LINE) {
            // The last line may begin in the one before.
            let at = at.min(last);
            // Of a length that the compiler knows, for whole vectors.
            let from: &[u8; LINE] = row[at..].first_chunk().expect("a whole line");
            let to: &mut [u8; LINE] = out[at..].first_chunk_mut().expect("a whole line");
            for (to, code) in to.iter_mut().zip(from) {
                *to = code ^ flip;
            }
        }
    } else {
        for (to, code) in out.iter_mut().zip(row) {
            *to = code ^ flip;
        }
    }
    behind[..row.len().next_multiple_of(4) - row.len()].fill(flip);
}

/// One row over `k`, zeros behind it.
#[inline(always)]
fn copy(window: &Window, data: &[u8], lane: &Lane, code: u8, k: &Range<usize>, row: &mut [u8]) {
    let inner = window.k.inner();
    let (mut at, mut done) = (window.k.cursor(k.start), 0);
    while done < k.len() {
        let len = window.k.run(&at).min(k.len() - done);
        let (low, high) = valid_interval(window, lane, &at, len);
        let run = &mut row[done..done + len];
        if (low, high) != (0, len) {
            run.fill(code);
        }
        if low < high {
            let first = lane.offset + at.offset + low as isize * inner.stride;
            if inner.stride == 1 {
                run[low..high].copy_from_slice(&data[first as usize..][..high - low]);
            } else {
                for (i, to) in run[low..high].iter_mut().enumerate() {
                    *to = data[(first + i as isize * inner.stride) as usize];
                }
            }
        }
        window.k.advance(&mut at, len);
        done += len;
    }
    let padded = done.next_multiple_of(4).min(row.len());
    row[done..padded].fill(0);
}

/// `k` steps, whole blocks, of rows whose elements lie `stride` apart while rows lie side by side, the first at `first`.
#[inline(always)]
fn turn<S: Simd>(s: S, data: &[u8], first: isize, stride: isize, k: usize, pitch: usize, out: &mut [u8]) {
    let rows = out.len() / pitch;
    for step in (0..k).step_by(TURNED) {
        let line = |t: usize, row: usize| (first + (step + t) as isize * stride) as usize + row;
        for row in (0..rows).step_by(AT_ONCE) {
            if rows - row < AT_ONCE {
                for t in 0..TURNED {
                    let from = &data[line(t, row)..][..rows - row];
                    for (i, &code) in from.iter().enumerate() {
                        out[(row + i) * pitch + step + t] = code;
                    }
                }
                continue;
            }
            // Four steps of sixteen rows are a word for each row; sixteen such are turned.
            let mut fours = [[0f32; 16]; 16];
            for (q, four) in fours.iter_mut().enumerate() {
                let from = |t: usize| -> &[u8; 16] {
                    data[line(4 * q + t, row)..].first_chunk().expect("sixteen rows side by side")
                };
                let bytes = s.interleave_4([from(0), from(1), from(2), from(3)]);
                *four = bytemuck::must_cast(bytes);
            }
            let fours: [&[f32; 16]; 16] = std::array::from_fn(|q| &fours[q]);
            for (i, words) in s.transpose_16x16(fours).iter().enumerate() {
                out[(row + i) * pitch + step..][..TURNED].copy_from_slice(bytemuck::bytes_of(words));
            }
        }
    }
}
