//! Aligned memory that holds elements of any format.

use aligned_vec::{AVec, ConstAlign};

/// Alignment of a buffer: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// Zeroed bytes, aligned to [`ALIGN`], read and written as elements of any plain type.
#[derive(Clone, Debug)]
pub struct Buf(AVec<u8, ConstAlign<ALIGN>>);

impl Buf {
    /// A zeroed buffer of at least `bytes` bytes.
    pub fn zeroed(bytes: usize) -> Self {
        Buf(aligned_vec::avec![[ALIGN]| 0u8; bytes.next_multiple_of(ALIGN)])
    }

    /// Its size in bytes, a multiple of [`ALIGN`].
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The first `len` elements.
    ///
    /// # Panics
    /// If the buffer is smaller.
    pub fn as_slice<T: bytemuck::Pod>(&self, len: usize) -> &[T] {
        bytemuck::cast_slice(&self.0[..len * size_of::<T>()])
    }

    /// The first `len` elements, to write.
    ///
    /// # Panics
    /// If the buffer is smaller.
    pub fn as_mut_slice<T: bytemuck::Pod>(&mut self, len: usize) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.0[..len * size_of::<T>()])
    }
}
