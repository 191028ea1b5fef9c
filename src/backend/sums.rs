//! What the executors of convolutions share: the formats of a run, its packed weights, and where its sums lie.
//!
//! Sums lie in the result, if its columns lie side by side and it is in their format, and else in a block of scratch from which the result is written.

use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use tile25_kernels::Isa;
use tile25_kernels::axis::Axis;
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::{Epilogue, Finish, FinishFrom};
use tile25_kernels::format::{Format, WordsMut};
use tile25_kernels::gemm::Real;
use tile25_kernels::mat::{MatMut, MatSpec, Places};
use tile25_kernels::simd::Transpose;

use bytemuck::Pod;

use crate::context::Threads;
use crate::epilogue::{Accum, OfKernel};
use crate::workspace::{Scratch, Workspace};

use super::fork::{split, within};
use super::parts::OwnWords;
use super::tile::{Run, Source};

/// A run, but for its result.
pub(crate) struct Call<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) epilogue: &'a OfKernel<'a>,
    /// The element of the result at index 0.
    pub(crate) start: usize,
    pub(crate) threads: &'a Threads<'a>,
    pub(crate) workspace: &'a Workspace,
}

impl<'a> Call<'a> {
    /// The scratches of threads: all of the workspace behind the packed weights.
    pub(super) fn scratch(&self) -> &'a [RwLock<Buf>] {
        &self.workspace.panels[1..]
    }
}

/// What an executor needs, in bytes: packed weights, then two scratches for each thread.
pub(super) fn scratch(packed: usize, pair: [usize; 2], threads: usize) -> Scratch {
    let pairs = std::iter::repeat_n(pair, threads).flatten();
    Scratch { panels: std::iter::once(packed).chain(pairs).collect(), ..Scratch::default() }
}

/// An executor whose input is in the format of its sums, f32 or f64. The result is in that format or a narrower one.
pub(crate) trait Execute {
    /// The format of its sums.
    fn sums(&self) -> Format;

    /// [`Execute::run`] for sums of `T` and words of `W`.
    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]);

    /// Computes the product into `dst`. Allocates nothing.
    ///
    /// # Panics
    /// If an operand, the result or the workspace is not what this was planned for; callers check.
    fn run(&self, call: &Call<'_>, dst: WordsMut<'_>) {
        match (self.sums(), dst) {
            (Format::F32, WordsMut::F32(dst)) => self.typed::<f32, f32>(call, dst),
            (Format::F32, WordsMut::I32(dst)) => self.typed::<f32, i32>(call, dst),
            (Format::F32, WordsMut::U16(dst)) => self.typed::<f32, u16>(call, dst),
            (Format::F32, WordsMut::U8(dst)) => self.typed::<f32, u8>(call, dst),
            (Format::F64, WordsMut::F64(dst)) => self.typed::<f64, f64>(call, dst),
            (sums, _) => unreachable!("sums of {sums} of a convolution by windows"),
        }
    }
}

/// Where a result lies, and into how many parts it is cut.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) places: Places,
    /// Whether sums lie in the result.
    pub(super) here: bool,
    pub(super) counts: [usize; 3],
    /// What parts along each index are whole multiples of.
    pub(super) grains: [usize; 3],
}

impl Place {
    /// Does `work` with every part of a result on the threads of `call`, and with its weights: packed ones as they were given, or what `pack` makes of others in `bytes`.
    pub(super) fn execute<T: Finish + Pod, W: FinishFrom<T>>(
        &self,
        call: &Call<'_>,
        dst: &mut [W],
        weights: &Source<'_>,
        bytes: usize,
        pack: impl FnOnce(&mut [u8]) + Send,
        work: impl Fn(&[T], Sums<'_, T, W>) + Sync,
    ) {
        let (room, start) = (&call.workspace.panels[0], call.start);
        within(call.threads, self.counts, || {
            let mut room = room.write().unwrap_or_else(PoisonError::into_inner);
            let weights = match weights {
                Source::Packed { panels, .. } => bytemuck::cast_slice(panels),
                _ => {
                    let room = room.as_mut_slice::<u8>(bytes);
                    pack(room);
                    bytemuck::cast_slice(room)
                }
            };
            self.parts(dst, start, &|part| work(weights, part));
        });
    }

    /// Does `work` with every part of a result on the threads of `call`; weights are read where they lie.
    pub(super) fn run<T: Finish, W: FinishFrom<T>>(
        &self,
        call: &Call<'_>,
        dst: &mut [W],
        work: impl Fn(Sums<'_, T, W>) + Sync,
    ) {
        within(call.threads, self.counts, || self.parts(dst, call.start, &work));
    }

    /// Does `work` with every part of `dst`, whose element at index 0 is `start`, on the threads of the current pool.
    pub(super) fn parts<T: Finish, W: FinishFrom<T>>(
        &self,
        dst: &mut [W],
        start: usize,
        work: &(impl Fn(Sums<'_, T, W>) + Sync),
    ) {
        const CHECKED: &str = "the view and the plan were checked";
        if self.here {
            let dst = bytemuck::cast_slice_mut(dst);
            let dst = MatMut::new(dst, start as isize, &self.places).expect(CHECKED);
            split(dst, self.counts, self.grains, &|dst| work(Sums::Here(dst)));
        } else {
            let dst = MatMut::new(dst, start as isize, &self.places).expect(CHECKED);
            split(dst, self.counts, self.grains, &|dst| work(Sums::Apart(dst)));
        }
    }
}

/// A part of a result, by where its sums lie.
pub(super) enum Sums<'a, T, W> {
    Here(MatMut<'a, T>),
    Apart(MatMut<'a, W>),
}

/// What makes results of sums.
#[derive(Clone, Copy)]
pub(super) struct Finishing<'a, P> {
    pub(super) isa: Isa,
    pub(super) accum: Accum,
    pub(super) epilogue: &'a Epilogue<'a, P>,
}

impl<T: Finish, W: FinishFrom<T>> Sums<'_, T, W> {
    /// Its matrices, rows and columns.
    pub(super) fn ranges(&self) -> [Range<usize>; 3] {
        match self {
            Sums::Here(dst) => [dst.batch(), dst.rows(), dst.cols()],
            Sums::Apart(dst) => [dst.batch(), dst.rows(), dst.cols()],
        }
    }

    /// A block from the first sum to its results. `compute` gets a matrix to write sums to and where the block begins there; old values are there before if
    /// they count. `scratch` has room for the block where sums lie apart.
    pub(super) fn block(
        &mut self,
        batch: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        finishing: Finishing<'_, T::Param>,
        scratch: &mut [T],
        compute: impl FnOnce(&mut MatMut<'_, T>, [usize; 3]),
    ) {
        let Finishing { isa, accum, epilogue } = finishing;
        match self {
            Sums::Here(dst) => {
                compute(dst, [batch, rows.start, cols.start]);
                T::finish_in_place(isa, epilogue, &mut dst.tile(batch, rows, cols));
            }
            Sums::Apart(dst) => {
                let (m, n) = (rows.len(), cols.len());
                let places = Places::new(MatSpec {
                    start: 0,
                    batch: Axis::strided(1, 0),
                    rows: Axis::strided(m, n as isize),
                    cols: Axis::strided(n, 1),
                });
                let mut sums = MatMut::new(scratch, 0, &places).expect("room for a block of sums");
                let mut tile = dst.tile(batch, rows, cols);
                if accum == Accum::Add {
                    W::widen_into(epilogue.target.format(), &mut tile, &mut sums.tile(0, 0..m, 0..n));
                }
                compute(&mut sums, [0; 3]);
                W::finish_into(isa, epilogue, &mut sums.tile(0, 0..m, 0..n), &mut tile);
            }
        }
    }
}
