//! AMX: registers that are tiles of 16 rows of 64 bytes, and products of 8-bit integers between them.
//!
//! `tdpbssd` and `tdpbusd` add products of i8 by i8 and of u8 by i8 to sums in i32 without saturation: exact, and so the bits of every other kernel (N4). The tile that it multiplies
//! by has the rows of an rhs panel of [`I8x4`]: four neighbours along k in each lane. Its other formats are not used: `tdpbf16ps` adds the even and the odd steps of k apart and flushes
//! subnormals, which is not N1.
//!
//! Shapes of tiles are state of a thread, set before a product and released after it; Linux gives a process the registers when it asks for them, which it does once.
//! Facts from Intel's "Architecture Instruction Set Extensions Programming Reference", chapter 3, and the kernel's Documentation/arch/x86/xstate.rst.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use crate::simd::I8x4;

use super::Avx512Dot;

/// AMX with its 8-bit integers, above AVX-512 with the dot products, which all other work is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amx(Avx512Dot);

/// Rows of a tile of sums.
pub(crate) const TILE_ROWS: usize = 16;

/// Lanes of an rhs panel: three tiles of 16.
pub(crate) const TILE_COLS: usize = 48;

/// Bytes of a row of a tile.
const ROW: usize = 64;

/// Units of k that a tile of the lhs holds.
pub(crate) const STEP: usize = ROW / size_of::<I8x4>();

/// Shapes of the eight registers.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Sums of `m` rows in registers 0 to 2, an lhs of as many in 3, an rhs in 4 and 5; in 6 and 7 an lhs and an rhs of the last `rest` units of k.
    fn new(m: usize, rest: usize) -> Self {
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut set = |register: usize, rows: usize, bytes: usize| {
            (shapes.rows[register], shapes.row_bytes[register]) = (rows as u8, bytes as u16);
        };
        (0..=3).for_each(|register| set(register, m, ROW));
        (4..=5).for_each(|register| set(register, STEP, ROW));
        if rest > 0 {
            set(6, m, rest * size_of::<I8x4>());
            set(7, rest, ROW);
        }
        shapes
    }
}

/// What tiles are computed from and where they go.
pub(crate) struct Operands {
    pub(crate) lhs: *const u8,
    /// From a row to the next, in bytes.
    pub(crate) lhs_stride: isize,
    /// The rows that come next, to be asked for.
    pub(crate) next: *const u8,
    pub(crate) rhs: *const I8x4,
    /// Whole steps of k, 64 each.
    pub(crate) steps: usize,
    /// Units of k behind them.
    pub(crate) rest: usize,
    pub(crate) dst: *mut i32,
    /// From a row to the next, in bytes.
    pub(crate) dst_stride: isize,
    /// Whether what is there counts.
    pub(crate) add: bool,
}

/// `$name`: a tile of sums for each column offset, by `$dot`.
macro_rules! tiles {
    ($name:ident, $dot:literal, $($sums:literal = $rhs:literal at $at:literal),*) => {
        /// # Safety
        /// As [`Registers::tiles`].
        unsafe fn $name(operands: &Operands) {
            let &Operands { lhs, lhs_stride, next, rhs, steps, rest, dst, dst_stride, add } = operands;
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    "test {add}, {add}",
                    "jnz 2f",
                    $(concat!("tilezero ", $sums),)*
                    "jmp 3f",
                    "2:",
                    $(concat!("tileloadd ", $sums, ", [{dst} + {dst_stride} * 1 + ", $at, "]"),)*
                    "3:",
                    "test {steps}, {steps}",
                    "jz 5f",
                    "4:",
                    "tileloadd tmm3, [{lhs} + {lhs_stride} * 1]",
                    "mov {row}, {next}",
                    "mov {left}, 4",
                    $(
                        concat!("tileloadd ", $rhs, ", [{rhs} + {rhs_stride} * 1 + ", $at, "]"),
                        concat!($dot, " ", $sums, ", tmm3, ", $rhs),
                    )*
                    "7:",
                    "prefetcht0 [{row}]",
                    "prefetcht0 [{row} + {lhs_stride}]",
                    "lea {row}, [{row} + {lhs_stride} * 2]",
                    "prefetcht0 [{row}]",
                    "prefetcht0 [{row} + {lhs_stride}]",
                    "lea {row}, [{row} + {lhs_stride} * 2]",
                    "dec {left}",
                    "jnz 7b",
                    "add {next}, 64",
                    "add {lhs}, 64",
                    "add {rhs}, 3072",
                    "dec {steps}",
                    "jnz 4b",
                    "5:",
                    "test {rest}, {rest}",
                    "jz 6f",
                    "tileloadd tmm6, [{lhs} + {lhs_stride} * 1]",
                    $(
                        concat!("tileloadd tmm7, [{rhs} + {rhs_stride} * 1 + ", $at, "]"),
                        concat!($dot, " ", $sums, ", tmm6, tmm7"),
                    )*
                    "6:",
                    $(concat!("tilestored [{dst} + {dst_stride} * 1 + ", $at, "], ", $sums),)*
                    add = in(reg) usize::from(add),
                    lhs = inout(reg) lhs => _,
                    lhs_stride = in(reg) lhs_stride,
                    next = inout(reg) next => _,
                    row = out(reg) _,
                    left = out(reg) _,
                    rhs = inout(reg) rhs => _,
                    rhs_stride = in(reg) TILE_COLS * size_of::<I8x4>(),
                    steps = inout(reg) steps => _,
                    rest = in(reg) rest,
                    dst = in(reg) dst,
                    dst_stride = in(reg) dst_stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

const _: () = assert!(STEP * TILE_COLS * size_of::<I8x4>() == 3072);

tiles!(signed_1, "tdpbssd", "tmm0" = "tmm4" at 0);
tiles!(signed_2, "tdpbssd", "tmm0" = "tmm4" at 0, "tmm1" = "tmm5" at 64);
tiles!(signed_3, "tdpbssd", "tmm0" = "tmm4" at 0, "tmm1" = "tmm5" at 64, "tmm2" = "tmm4" at 128);
tiles!(unsigned_1, "tdpbusd", "tmm0" = "tmm4" at 0);
tiles!(unsigned_2, "tdpbusd", "tmm0" = "tmm4" at 0, "tmm1" = "tmm5" at 64);
tiles!(unsigned_3, "tdpbusd", "tmm0" = "tmm4" at 0, "tmm1" = "tmm5" at 64, "tmm2" = "tmm4" at 128);

impl Amx {
    /// The token, if the processor has AMX and the operating system lets this process use it: asked for once, as detection is.
    pub fn new() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        let dots = Avx512Dot::new()?;
        ALLOWED.get_or_init(|| is_there() && ask()).then_some(Amx(dots))
    }

    /// The token of all other work.
    pub fn dots(self) -> Avx512Dot {
        self.0
    }
}

/// The registers while they have shapes. Loading shapes waits for all that goes before, so it is done when they change.
#[derive(Debug)]
pub(crate) struct Registers {
    shape: Option<[usize; 2]>,
}

impl Registers {
    /// Of no shape yet.
    ///
    /// # Safety
    /// - While it lives its thread has no other, and nothing else of the thread uses the registers.
    pub(crate) unsafe fn new(_: Amx) -> Self {
        Registers { shape: None }
    }

    /// Gives them shapes for tiles of `m` rows and `rest` units of k behind whole steps.
    ///
    /// # Panics
    /// If there are more than [`TILE_ROWS`] rows or no fewer than [`STEP`] units.
    #[inline(always)]
    pub(crate) fn shape(&mut self, m: usize, rest: usize) {
        assert!((1..=TILE_ROWS).contains(&m) && rest < STEP);
        if self.shape != Some([m, rest]) {
            let shapes = Shapes::new(m, rest);
            // SAFETY: a token was there when this was made, so there are such registers; the shapes are 64 bytes of palette 1, none larger than 16 rows of 64 bytes.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(readonly, nostack, preserves_flags)) };
            self.shape = Some([m, rest]);
        }
    }

    /// A row of up to three tiles of sums, 16 columns each.
    ///
    /// # Safety
    /// - They have shapes, of `operands.rest` units.
    /// - `lhs` has their rows, `lhs_stride` bytes apart, each of `64 steps + 4 rest` bytes; `rhs` has `16 steps + rest` rows of 48 units.
    /// - `dst` has their rows, `dst_stride` bytes apart, each as wide as the tiles, and is the caller's to write.
    #[inline(always)]
    pub(crate) unsafe fn tiles(&self, tiles: usize, signed: bool, operands: &Operands) {
        let tiles: unsafe fn(&Operands) = match (signed, tiles) {
            (true, 1) => signed_1,
            (true, 2) => signed_2,
            (true, _) => signed_3,
            (false, 1) => unsigned_1,
            (false, 2) => unsigned_2,
            (false, _) => unsigned_3,
        };
        // SAFETY: the caller's promise.
        unsafe { tiles(operands) };
    }
}

impl Drop for Registers {
    /// They become what they were before: of no shape, and nothing that the system has to save.
    fn drop(&mut self) {
        // SAFETY: a token was there when this was made, so there are such registers; nothing else of the thread uses them (`new`).
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// Whether the processor has tiles and multiplies 8-bit integers by them.
fn is_there() -> bool {
    const TILES_AND_BYTES: u32 = 0b11 << 24;
    #[allow(unused_unsafe, reason = "safe in newer compilers")]
    // SAFETY: AVX-512, which was found before, is named in leaf 7.
    let features = unsafe { __cpuid_count(7, 0) };
    features.edx & TILES_AND_BYTES == TILES_AND_BYTES
}

/// Asks the operating system for the registers; true if this process may use them.
fn ask() -> bool {
    #[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
    {
        const ARCH_PRCTL: isize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const TILE_DATA: usize = 18;
        let result: isize;
        // SAFETY: `arch_prctl` with this request changes nothing but whether the process may use the registers; `syscall` overwrites rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack)
            );
        }
        result == 0
    }
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64", not(miri))))]
    false
}
