//! Packing: a window of an operand copied into panels, the order in which a microkernel reads it.
//!
//! ```text
//! panel p holds x = p W .. p W + W; in memory: [panel][k][lane], lanes beyond the last x are zero
//! ```
//!
//! Both operands have this form: `W` is MR for the lhs and NR for the rhs. Matrices, convolution inputs, output gradients and
//! weights all come through here; they differ in their [`Window`] alone. Along k the packer walks runs of the innermost
//! k dim. Within a run each lane is valid on one interval (coordinates are affine), and each lane is copied by the best of
//! three ways:
//!
//! 1. lanes side by side in memory (a row-major rhs, channels-last activations): copy lanes together, k by k;
//! 2. k side by side in memory (a row-major lhs, channels-last weights): transpose;
//! 3. neither: gather, lane by lane.

use std::ops::Range;

use crate::axis::{COORDS, Window};
use crate::format::Element;
use crate::isa::Isa;
use crate::simd::{Simd, WithSimd};

/// Widest panel that can be packed.
pub const PANEL_WIDTH: usize = 64;

/// Elements that `x` values over `k` steps take in panels of `width`.
pub fn packed_len(x: usize, k: usize, width: usize) -> usize {
    x.div_ceil(width) * width * k
}

/// Packs `x` by `k` of `window` over `data` into panels of `width` lanes at the front of `out`.
///
/// # Panics
/// If `out` is shorter than [`packed_len`], or the window leaves `data` where its coordinates are valid.
pub fn pack<T: Element>(
    isa: Isa,
    window: &Window,
    data: &[T],
    x: Range<usize>,
    k: Range<usize>,
    width: usize,
    out: &mut [T],
) {
    assert!(width <= PANEL_WIDTH);
    let out = &mut out[..packed_len(x.len(), k.len(), width)];
    isa.dispatch(Pack { window, data, x, k, width, out });
}

struct Pack<'a, T> {
    window: &'a Window,
    data: &'a [T],
    x: Range<usize>,
    k: Range<usize>,
    width: usize,
    out: &'a mut [T],
}

impl<T: Element> WithSimd for Pack<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let kc = self.k.len();
        if kc == 0 {
            return;
        }
        let panels = self.out.chunks_exact_mut(kc * self.width);
        let starts = self.x.clone().step_by(self.width);
        for (panel, x0) in panels.zip(starts) {
            let lanes = self.x.end.min(x0 + self.width) - x0;
            // The widths that microkernels have, as constants: the lane loops unroll.
            match self.width {
                4 => pack_panel::<T, S, 4>(s, self.window, self.data, x0, lanes, self.k.clone(), panel),
                6 => pack_panel::<T, S, 6>(s, self.window, self.data, x0, lanes, self.k.clone(), panel),
                8 => pack_panel::<T, S, 8>(s, self.window, self.data, x0, lanes, self.k.clone(), panel),
                12 => pack_panel::<T, S, 12>(s, self.window, self.data, x0, lanes, self.k.clone(), panel),
                16 => pack_panel::<T, S, 16>(s, self.window, self.data, x0, lanes, self.k.clone(), panel),
                24 => pack_panel::<T, S, 24>(s, self.window, self.data, x0, lanes, self.k.clone(), panel),
                48 => pack_panel::<T, S, 48>(s, self.window, self.data, x0, lanes, self.k.clone(), panel),
                width => unreachable!("no microkernel reads panels of {width} lanes"),
            }
        }
    }
}

/// What the x index of one lane contributes.
#[derive(Clone, Copy, Default)]
struct Lane {
    offset: isize,
    coords: [isize; COORDS],
}

#[inline(always)]
fn pack_panel<T: Element, S: Simd, const W: usize>(
    s: S,
    window: &Window,
    data: &[T],
    x0: usize,
    lanes: usize,
    k: Range<usize>,
    panel: &mut [T],
) {
    let mut lane = [Lane::default(); W];
    let mut cursor = window.x.cursor(x0);
    for lane in &mut lane[..lanes] {
        lane.offset = window.start + cursor.offset;
        lane.coords = std::array::from_fn(|d| window.origin[d] + cursor.coords[d]);
        window.x.advance(&mut cursor, 1);
    }
    let side_by_side = (1..lanes).all(|w| lane[w].offset == lane[0].offset + w as isize);
    let inner = window.k.inner();
    let mut at = window.k.cursor(k.start);
    let mut done = 0;
    while done < k.len() {
        let len = window.k.run(&at).min(k.len() - done);
        let out = &mut panel[done * W..(done + len) * W];
        let mut valid = [(0usize, 0usize); W];
        let mut all = lanes == W;
        for (lane, valid) in lane[..lanes].iter().zip(&mut valid) {
            *valid = valid_interval(window, lane, &at, len);
            all &= *valid == (0, len);
        }
        // Each way reads `data` by checked slices; a run never leaves the operand where its interval is valid.
        if all && side_by_side {
            for (t, out) in out.chunks_exact_mut(W).enumerate() {
                let first = (lane[0].offset + at.offset + t as isize * inner.stride) as usize;
                out.copy_from_slice(&data[first..first + W]);
            }
        } else if all && inner.stride == 1 {
            let rows: [&[T]; W] = std::array::from_fn(|w| {
                let first = (lane[w].offset + at.offset) as usize;
                &data[first..first + len]
            });
            transpose(s, &rows, out);
        } else {
            gather(data, &lane[..lanes], &valid[..lanes], at.offset, inner.stride, out, W);
        }
        window.k.advance(&mut at, len);
        done += len;
    }
}

/// The steps `t` of a run at which a lane is inside the operand.
#[inline(always)]
fn valid_interval(window: &Window, lane: &Lane, at: &crate::axis::Cursor, len: usize) -> (usize, usize) {
    if window.is_plain() {
        return (0, len);
    }
    let inner = window.k.inner();
    let (mut low, mut high) = (0isize, len as isize);
    for d in 0..COORDS {
        let coord = lane.coords[d] + at.coords[d];
        let bound = window.bounds[d];
        if inner.along == d && inner.step != 0 {
            // 0 <= coord + t step < bound
            let (first, last) =
                if inner.step > 0 { (-coord, bound - coord) } else { (coord - bound + 1, coord + 1) };
            let step = inner.step.abs();
            let ceil = |a: isize| a.div_euclid(step) + isize::from(a.rem_euclid(step) != 0);
            low = low.max(ceil(first));
            high = high.min(ceil(last));
        } else if coord < 0 || coord >= bound {
            return (0, 0);
        }
    }
    if low < high { (low as usize, high as usize) } else { (0, 0) }
}

/// `out[t][w] = rows[w][t]`, in blocks of 8 by 8 that stay in registers.
#[inline(always)]
fn transpose<T: Element, S: Simd, const W: usize>(s: S, rows: &[&[T]; W], out: &mut [T]) {
    let len = rows[0].len();
    let whole = len - len % 8;
    for t in (0..whole).step_by(8) {
        for w in (0..W).step_by(8) {
            let lanes = (W - w).min(8);
            let mut block = [[T::default(); 8]; 8];
            for (block, row) in block.iter_mut().zip(&rows[w..w + lanes]) {
                block.copy_from_slice(&row[t..t + 8]);
            }
            let block = T::transpose_8x8(s, block);
            let out = &mut out[t * W + w..];
            if lanes == 8 || (W < 8 && out.len() >= 7 * W + 8) {
                // Narrow panels: what a whole store writes past its row is overwritten by the next row.
                for (step, block) in block.iter().enumerate() {
                    out[step * W..step * W + 8].copy_from_slice(block);
                }
            } else {
                for (step, block) in block.iter().enumerate() {
                    out[step * W..step * W + lanes].copy_from_slice(&block[..lanes]);
                }
            }
        }
    }
    for t in whole..len {
        for w in 0..W {
            out[t * W + w] = rows[w][t];
        }
    }
}

/// Any lanes: zeros first, then each group of lanes that lie side by side with one interval.
#[inline(always)]
fn gather<T: Copy + Default>(
    data: &[T],
    lane: &[Lane],
    valid: &[(usize, usize)],
    k_offset: isize,
    k_stride: isize,
    out: &mut [T],
    width: usize,
) {
    out.fill(T::default());
    let mut w = 0;
    while w < lane.len() {
        let mut end = w + 1;
        while end < lane.len()
            && lane[end].offset == lane[w].offset + (end - w) as isize
            && valid[end] == valid[w]
        {
            end += 1;
        }
        let base = lane[w].offset + k_offset;
        for t in valid[w].0..valid[w].1 {
            let first = (base + t as isize * k_stride) as usize;
            if end - w == 1 {
                out[t * width + w] = data[first];
            } else {
                out[t * width + w..t * width + end].copy_from_slice(&data[first..first + (end - w)]);
            }
        }
        w = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axis::{Axis, Dim, NO_BOUND};

    /// Every element of every panel, looked up one by one.
    fn check(window: &Window, data: &[f32], x: Range<usize>, k: Range<usize>, width: usize) {
        let len = packed_len(x.len(), k.len(), width);
        let mut out = vec![f32::NAN; len + 3];
        for isa in Isa::available() {
            pack(isa, window, data, x.clone(), k.clone(), width, &mut out);
            for (i, &got) in out[..len].iter().enumerate() {
                let lane = i % width;
                let step = i / width % k.len();
                let at = x.start + i / width / k.len() * width + lane;
                let want = if at < x.end {
                    let (xc, kc) = (window.x.cursor(at), window.k.cursor(k.start + step));
                    let inside = (0..COORDS).all(|d| {
                        let coord = window.origin[d] + xc.coords[d] + kc.coords[d];
                        (0..window.bounds[d]).contains(&coord)
                    });
                    if inside { data[(window.start + xc.offset + kc.offset) as usize] } else { 0.0 }
                } else {
                    0.0
                };
                assert_eq!(got, want, "panel element {i} of {window:?}");
            }
            assert!(out[len..].iter().all(|v| v.is_nan()), "wrote past the panels");
        }
    }

    #[test]
    fn panels_hold_what_the_window_says() {
        let data: Vec<f32> = (1..2000).map(|i| i as f32).collect();
        for width in [4, 6, 8, 12, 16, 24, 48] {
            let rows = Window::plain(3, Axis::strided(30, 40), Axis::strided(37, 1));
            let cols = Window::plain(0, Axis::strided(50, 1), Axis::strided(33, 50));
            let backwards = Window::plain(1900, Axis::strided(30, -41), Axis::strided(37, -1));
            for window in [rows, cols, backwards] {
                check(&window, &data, 0..30, 0..33, width);
                check(&window, &data, 5..29, 7..8, width);
            }
            // A padded, strided, dilated 2-D window, and the same with the indices exchanged.
            for (stride, dilation, pad) in [(1, 1, 1), (2, 1, 3), (1, 3, 2), (3, 2, 7), (1, -1, -2)] {
                let (c, h, w) = (5isize, 9isize, 11isize);
                let dim = |extent, stride, along, step| Dim { extent, stride, along, step };
                let positions = Axis::new(&[dim(4, stride * w, 0, stride), dim(6, stride, 1, stride)]);
                let taps = Axis::new(&[
                    dim(3, dilation * w, 0, dilation),
                    dim(2, dilation, 1, dilation),
                    Dim::plain(c as usize, h * w),
                ]);
                let start = -pad * w - pad;
                let forward = Window {
                    start,
                    x: positions,
                    k: taps,
                    origin: [-pad, -pad, 0],
                    bounds: [h, w, NO_BOUND],
                };
                check(&forward, &data, 0..24, 0..30, width);
                check(&forward, &data, 3..20, 4..29, width);
                let weights = Window { x: taps, k: positions, ..forward };
                check(&weights, &data, 0..30, 0..24, width);
                check(&weights, &data, 1..29, 5..23, width);
            }
        }
    }
}
