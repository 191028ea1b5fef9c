//! Where and how a plan runs: instruction set, threads, backend. Never part of what the result is.

use rayon::ThreadPool;
use tile25_kernels::Isa;

/// Which threads run a plan.
#[derive(Clone, Copy, Debug, Default)]
pub enum Threads<'p> {
    /// Those of the rayon pool that the caller is in (rayon's global pool outside of any).
    #[default]
    Current,
    /// The calling thread alone.
    Seq,
    /// Those of this pool.
    Pool(&'p ThreadPool),
}

impl Threads<'_> {
    /// How many there are now.
    pub fn count(&self) -> usize {
        match self {
            Threads::Current => rayon::current_num_threads(),
            Threads::Seq => 1,
            Threads::Pool(pool) => pool.current_num_threads(),
        }
    }
}

/// Who computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The emulated training tile: the fast one.
    #[default]
    Tile,
    /// The scalar definition, on the calling thread.
    Reference,
}

/// Instruction set, threads and backend of a plan. The default is the widest instruction set, the current rayon pool, the tile.
#[derive(Clone, Copy, Debug)]
pub struct Context<'p> {
    /// The instruction set of the kernels.
    pub isa: Isa,
    /// The threads that play the dies.
    pub threads: Threads<'p>,
    /// Tile or reference.
    pub backend: Backend,
}

impl Default for Context<'_> {
    fn default() -> Self {
        Context { isa: Isa::detect(), threads: Threads::default(), backend: Backend::default() }
    }
}
