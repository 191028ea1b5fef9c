//! The two innermost loops of a matmul: one block of packed lhs by one block of packed rhs, one segment of k.

use crate::mat::{PANEL_COLS, TileMut};

use super::{Place, Ukernel, Write};

/// One segment of both operands, packed for the kernel that reads them.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a, T> {
    /// Panels of the tile's rows: `[ceil(m / MR)][kc][MR]`.
    pub lhs: &'a [T],
    /// Panels of the tile's columns: `[ceil(n / NR)][kc][NR]`.
    pub rhs: &'a [T],
    /// Length of the segment.
    pub kc: usize,
    /// Whether the tile's old values count.
    pub write: Write,
}

/// Multiplies `block` into `dst`.
///
/// # Panics
/// If the panels are shorter than the tile needs.
#[inline(always)]
pub fn macro_kernel<T: Copy, S: Ukernel<T>>(s: S, block: Block<'_, T>, dst: &mut TileMut<'_, T>) {
    let (mr, nr, kc) = (S::MR, S::NR, block.kc);
    let (m, n) = (dst.m(), dst.n());
    // LOOP 2: columns in panels of NR. The rhs panel stays in the first-level cache, or streams from the second.
    for j in (0..n).step_by(nr) {
        let width = nr.min(n - j);
        let rhs = &block.rhs[j * kc..][..kc * nr];
        let mut panel = dst.panel(j, width);
        // LOOP 1: rows in panels of MR.
        for i in (0..m).step_by(mr) {
            let lhs = &block.lhs[i * kc..][..kc * mr];
            s.tile(lhs, rhs, &mut panel, Place { row: i, m: mr.min(m - i), n: width }, block.write);
        }
    }
}

/// Adds the sum of one segment to the tile (N2). `sums` is row-major, without gaps.
///
/// # Panics
/// If `sums` has fewer elements than the tile.
pub fn add_segment<T: num_traits::Float>(sums: &[T], dst: &mut TileMut<'_, T>) {
    let (m, n) = (dst.m(), dst.n());
    for j in (0..n).step_by(PANEL_COLS) {
        let width = PANEL_COLS.min(n - j);
        let mut panel = dst.panel(j, width);
        for i in 0..m {
            let mut row = [T::zero(); PANEL_COLS];
            panel.read_row(i, &mut row);
            for (value, &sum) in row[..width].iter_mut().zip(&sums[i * n + j..]) {
                *value = *value + sum;
            }
            panel.write_row(i, &row);
        }
    }
}
