//! The instruction sets: one value a token, detected once, selectable by name.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "aarch64")]
use crate::simd::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::x86::{Amx, Avx2, Avx512, Avx512Dot};
use crate::simd::{Portable, Simd, WithSimd};

/// An instruction set that this machine has. A value of this type is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Vectors from the crate `wide`; on every machine.
    Portable(Portable),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// x86-64-v3: AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64-v4: AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// x86-64-v4 with the bf16 and int8 dot products.
    #[cfg(target_arch = "x86_64")]
    Avx512Dot(Avx512Dot),
    /// The same with AMX, whose tiles multiply 8-bit integers; everything else is as there.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

/// The asked-for instruction set is not on this machine, or is none that tile25 knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchIsa(pub String);

impl fmt::Display for NoSuchIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here: Vec<&str> = Isa::available().map(Isa::name).collect();
        write!(f, "no instruction set '{}' on this machine; it has {}", self.0, here.join(", "))
    }
}

impl std::error::Error for NoSuchIsa {}

/// Whether the processor is AMD's, by the feature that tells: SSE4a. What decides about time alone hangs on it here and there, by measurement of Zen 4, Zen 5, Emerald Rapids and Granite Rapids
/// (benches/record): there vectors that cross a cache line are read about as fast as others; the last-level cache is near, where Intel's is a mesh that all cores of a socket share;
/// `vdpbf16ps` starts every cycle or twice, where Intel's takes two cycles; and threads that wait for the next of many short pieces of work were still awake.
pub fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    let amd = std::arch::is_x86_feature_detected!("sse4a");
    #[cfg(not(target_arch = "x86_64"))]
    let amd = false;
    amd
}

/// Whether it is one of AMD's before Zen 5, by the feature that came with that: AVX-VNNI. Their first-level cache has 32 KiB in eight ways, later ones 48 KiB in twelve.
pub fn is_amd_before_zen5() -> bool {
    #[cfg(target_arch = "x86_64")]
    let earlier = is_amd() && !std::arch::is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    let earlier = false;
    earlier
}

impl Isa {
    /// Every instruction set of this machine, the widest last.
    pub fn available() -> impl Iterator<Item = Isa> {
        #[cfg(target_arch = "x86_64")]
        let native = [
            Avx2::new().map(Isa::Avx2),
            Avx512::new().map(Isa::Avx512),
            Avx512Dot::new().map(Isa::Avx512Dot),
            Amx::new().map(Isa::Amx),
        ];
        #[cfg(target_arch = "aarch64")]
        let native = [Neon::new().map(Isa::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let native: [Option<Isa>; 0] = [];
        std::iter::once(Isa::Portable(Portable)).chain(native.into_iter().flatten())
    }

    /// The widest instruction set of this machine.
    pub fn detect() -> Isa {
        Isa::available().last().expect("Portable is always there")
    }

    /// The lower-case name: `portable`, `neon`, `avx2`, `avx512`, `avx512dot`, `amx`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable(_) => "portable",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Dot(_) => "avx512dot",
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => "amx",
        }
    }

    /// Whether the dot products of AVX-512 are part of it.
    pub(crate) fn has_dots(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let has = self.dots().is_some();
        #[cfg(not(target_arch = "x86_64"))]
        let has = false;
        has
    }

    /// The token of the dot products, if they are part of it.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn dots(self) -> Option<Avx512Dot> {
        match self {
            Isa::Avx512Dot(token) => Some(token),
            Isa::Amx(token) => Some(token.dots()),
            _ => None,
        }
    }

    /// The instruction set with vectors of at most 32 bytes that is part of it.
    pub(crate) fn of_half_vectors(self) -> Isa {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => Isa::Avx2(token.halves()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Dot(token) => Isa::Avx2(token.floats().halves()),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(token) => Isa::Avx2(token.dots().floats().halves()),
            _ => self,
        }
    }

    /// Runs `op` compiled for this instruction set. Dispatch once per block of work, not inside loops.
    pub fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            Isa::Portable(token) => token.vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => token.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => token.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => token.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Dot(token) => token.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(token) => token.dots().vectorize(op),
        }
    }

    /// As [`Isa::dispatch`], for work that multiplies no pairs or fours: the dot products add nothing to it, so it is not compiled a second time for them.
    pub fn dispatch_but_dots<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            Isa::Portable(token) => token.vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => token.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => token.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => token.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Dot(token) => token.floats().vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(token) => token.dots().floats().vectorize(op),
        }
    }
}

impl FromStr for Isa {
    type Err = NoSuchIsa;
    fn from_str(name: &str) -> Result<Self, NoSuchIsa> {
        Isa::available().find(|isa| isa.name() == name).ok_or_else(|| NoSuchIsa(name.into()))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
