//! Products of bytes by the tiles of AMX, which read and write sixteen rows of a matrix at once.

use crate::simd::I8x4;
use crate::simd::x86::{Amx, Operands, Registers, STEP, TILE_COLS, TILE_ROWS};

use super::{Band, MatRef, WriteRows};

/// Columns of a tile.
const LANES: usize = TILE_COLS / 3;

impl Band<'_, i32> {
    /// `self = lhs rhs`, or that added to it, in tiles. Rows of `lhs` are codes, i8 or u8, side by side; `panels` are of 48 columns of i8 each, `len` units apart, and those that the lhs meets
    /// begin `from` units into each.
    ///
    /// # Panics
    /// If there are other rows than of the lhs, k is no multiple of 4, the lhs does not have whole rows, or a panel is shorter.
    pub(crate) fn multiply_bytes(
        &mut self,
        token: Amx,
        lhs: MatRef<'_, u8>,
        signed: bool,
        (panels, len, from): (&[I8x4], usize, usize),
        add: bool,
    ) {
        let (m, cols, k) = (lhs.rows(), self.n(), lhs.cols());
        assert!(m == self.m() && k.is_multiple_of(4) && lhs.has_whole_rows());
        // SAFETY: nothing below but this function and the instructions it stands for runs before the end of `registers`.
        let mut registers = unsafe { Registers::new(token) };
        for (panel, col) in (0..cols).step_by(TILE_COLS).enumerate() {
            let rhs = &panels[panel * len + from..][..k / 4 * TILE_COLS];
            let mut panel = self.part(0..m, col..cols.min(col + TILE_COLS));
            panel.multiply_panel(&mut registers, lhs, signed, rhs, add);
        }
    }

    /// One panel, of up to 48 columns.
    fn multiply_panel(
        &mut self,
        registers: &mut Registers,
        lhs: MatRef<'_, u8>,
        signed: bool,
        rhs: &[I8x4],
        add: bool,
    ) {
        let (m, n, k) = (lhs.rows(), self.n(), lhs.cols());
        assert!(m == self.m() && n <= TILE_COLS && rhs.len() == k / 4 * TILE_COLS);
        let (steps, rest) = (k / 4 / STEP, k / 4 % STEP);
        let (whole, tiles) = (m / TILE_ROWS * TILE_ROWS, n.div_ceil(LANES));
        for (rows, each) in [(0..whole, TILE_ROWS), (whole..m, m - whole)] {
            if rows.is_empty() {
                continue;
            }
            registers.shape(each, rest);
            for row in rows.step_by(each) {
                let lhs = lhs.part(row..row + each, 0..k);
                let mut dst = self.part(row..row + each, 0..n);
                let mut operands = Operands {
                    lhs: lhs.first,
                    lhs_stride: lhs.row_stride,
                    next: lhs.first.wrapping_offset(each as isize * lhs.row_stride),
                    rhs: rhs.as_ptr(),
                    steps,
                    rest,
                    dst: dst.at,
                    dst_stride: dst.stride * size_of::<i32>() as isize,
                    add,
                };
                if n.is_multiple_of(LANES) {
                    // SAFETY: the shapes are of `each` rows and `rest` units; the part of the lhs has these rows of `k` bytes side by side, `rhs` as many units; `dst` has
                    // these rows of whole tiles, and owns them.
                    unsafe { registers.tiles(tiles, signed, &operands) };
                    continue;
                }
                let mut sums = [[0i32; TILE_COLS]; TILE_ROWS];
                if add {
                    for (i, sums) in sums[..each].iter_mut().enumerate() {
                        sums[..n].copy_from_slice(dst.row(i));
                    }
                }
                operands.dst = sums.as_flattened_mut().as_mut_ptr();
                operands.dst_stride = size_of::<[i32; TILE_COLS]>() as isize;
                // SAFETY: as above; `sums` has sixteen rows as wide as any tiles.
                unsafe { registers.tiles(tiles, signed, &operands) };
                for (i, sums) in sums[..each].iter().enumerate() {
                    dst.row(i).copy_from_slice(&sums[..n]);
                }
            }
        }
    }
}
