//! Aligned memory that holds elements of any format.
//!
//! Large buffers lie in huge pages where the system has them. With small pages a packed block that should stay in a second-level cache
//! lies at the system's whim: that cache is indexed by physical addresses, and the same program ran between 80 and 100 GFLOP/s
//! from one start to the next (benches/record/2026-11-24-pages.md).

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use aligned_vec::{AVec, ConstAlign};
use memmap2::MmapMut;

/// Alignment of a buffer: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// A huge page of x86-64, and of aarch64 with small pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// From this size on, memory is asked for in huge pages.
const HUGE_FROM: usize = 512 << 10;

/// What owns the bytes of buffers. Never read through: the buffers have the only pointers into it.
enum Memory {
    Heap(#[expect(dead_code, reason = "keeps the memory")] AVec<u8, ConstAlign<ALIGN>>),
    Pages(#[expect(dead_code, reason = "keeps the memory")] MmapMut),
}

/// Zeroed bytes, aligned to [`ALIGN`], read and written as elements of any plain type.
pub struct Buf {
    start: NonNull<u8>,
    bytes: usize,
    #[expect(dead_code, reason = "keeps the memory")]
    memory: Arc<Memory>,
}

// SAFETY: a buffer owns the bytes from `start`, which no other pointer reaches, as a `Vec<u8>` owns its bytes.
unsafe impl Send for Buf {}
// SAFETY: as above; `&Buf` gives `&[T]` only.
unsafe impl Sync for Buf {}

impl Buf {
    /// A zeroed buffer of at least `bytes` bytes.
    pub fn zeroed(bytes: usize) -> Self {
        Self::carve(&[bytes]).pop().expect("one size, one buffer")
    }

    /// Zeroed buffers of at least these sizes that lie side by side in one piece of memory.
    ///
    /// # Panics
    /// If the sum of the sizes exceeds the address space.
    pub fn carve(sizes: &[usize]) -> Vec<Self> {
        let total = sizes
            .iter()
            .try_fold(0usize, |sum, &bytes| sum.checked_add(bytes.checked_next_multiple_of(ALIGN)?));
        let total = total
            .filter(|&total| total <= isize::MAX as usize - HUGE_PAGE)
            .expect("sizes within the address space");
        let (memory, mut start) = allocate(total);
        let memory = Arc::new(memory);
        let carve = |&bytes: &usize| {
            let bytes = bytes.next_multiple_of(ALIGN);
            let buf = Buf { start, bytes, memory: Arc::clone(&memory) };
            // SAFETY: the parts add up to `total` bytes, which `allocate` has from `start`; the last step ends at the end.
            start = unsafe { start.add(bytes) };
            buf
        };
        sizes.iter().map(carve).collect()
    }

    /// Its size in bytes, a multiple of [`ALIGN`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn all(&self) -> &[u8] {
        // SAFETY: the bytes are this buffer's alone (`carve` gives each part once), initialised (zeroed when allocated),
        // and live as long as `memory`; `&self` allows reading.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `all`; `&mut self` excludes every other access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// The first `len` elements.
    ///
    /// # Panics
    /// If the buffer is smaller.
    pub fn as_slice<T: bytemuck::Pod>(&self, len: usize) -> &[T] {
        bytemuck::cast_slice(&self.all()[..len * size_of::<T>()])
    }

    /// The first `len` elements, to write.
    ///
    /// # Panics
    /// If the buffer is smaller.
    pub fn as_mut_slice<T: bytemuck::Pod>(&mut self, len: usize) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.all_mut()[..len * size_of::<T>()])
    }
}

/// Zeroed memory of `bytes` bytes from an address that is a multiple of [`ALIGN`].
fn allocate(bytes: usize) -> (Memory, NonNull<u8>) {
    if bytes >= HUGE_FROM
        && let Ok(mut pages) = MmapMut::map_anon(bytes.next_multiple_of(HUGE_PAGE) + HUGE_PAGE)
    {
        // A refusal costs speed only.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        let skip = pages.as_ptr().align_offset(HUGE_PAGE);
        let start = NonNull::from(&mut pages[skip..]).cast();
        return (Memory::Pages(pages), start);
    }
    let mut heap: AVec<u8, ConstAlign<ALIGN>> = aligned_vec::avec![[ALIGN]| 0u8; bytes];
    let start = NonNull::from(heap.as_mut_slice()).cast();
    (Memory::Heap(heap), start)
}

impl Clone for Buf {
    fn clone(&self) -> Self {
        let mut buf = Self::zeroed(self.bytes);
        buf.all_mut().copy_from_slice(self.all());
        buf
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf of {} bytes", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_zeroed_and_apart() {
        for sizes in [vec![0, 1, 64, 65, 1000], vec![HUGE_FROM, 3, HUGE_PAGE - 64, 5 * HUGE_PAGE + 1], vec![]]
        {
            let mut parts = Buf::carve(&sizes);
            assert_eq!(parts.len(), sizes.len());
            for (i, (part, &size)) in parts.iter_mut().zip(&sizes).enumerate() {
                assert!(part.bytes() >= size && part.as_slice::<u8>(0).as_ptr().addr().is_multiple_of(ALIGN));
                assert!(part.as_slice::<u8>(part.bytes()).iter().all(|&byte| byte == 0));
                let bytes = part.bytes();
                part.as_mut_slice::<u8>(bytes).fill(i as u8 + 1);
            }
            let copies = parts.clone();
            drop(parts.pop());
            for (i, part) in parts.iter().chain(copies.last()).enumerate() {
                assert!(part.as_slice::<u8>(part.bytes()).iter().all(|&byte| byte == i as u8 + 1));
            }
        }
    }
}
