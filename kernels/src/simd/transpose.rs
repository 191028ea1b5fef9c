//! Blocks of 8 x 8 and 16 x 16 whose rows become columns.

use super::Simd;

/// Elements whose blocks are transposed.
pub trait Transpose: bytemuck::Pod {
    /// `result[i][j] = block[j][i]`.
    fn transpose<S: Simd>(s: S, block: [[Self; 8]; 8]) -> [[Self; 8]; 8];

    /// The same of 16 rows of 16.
    #[inline(always)]
    fn transpose_16<S: Simd>(_: S, rows: [&[Self; 16]; 16]) -> [[Self; 16]; 16] {
        std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
    }
}

impl Transpose for f32 {
    #[inline(always)]
    fn transpose<S: Simd>(s: S, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        s.transpose_8x8(block)
    }

    #[inline(always)]
    fn transpose_16<S: Simd>(s: S, rows: [&[f32; 16]; 16]) -> [[f32; 16]; 16] {
        s.transpose_16x16(rows)
    }
}

impl Transpose for f64 {
    #[inline(always)]
    fn transpose<S: Simd>(_: S, block: [[f64; 8]; 8]) -> [[f64; 8]; 8] {
        transpose_scalar(block)
    }
}

/// [`Simd::transpose_8x8`] element by element.
#[inline(always)]
pub(crate) fn transpose_scalar<T: Copy>(block: [[T; 8]; 8]) -> [[T; 8]; 8] {
    std::array::from_fn(|i| std::array::from_fn(|j| block[j][i]))
}
