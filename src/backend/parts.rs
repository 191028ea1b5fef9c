//! Executes a batch of float products in parts: each part of C by one thread from start to end, with scratch of its own.
//!
//! A tile plan shares what it packs between the dies, in steps; on a host that costs waiting, and memory traffic that nothing overlaps. Every valid plan
//! gives the same bits, so where a host is better served by it, the planner's own plan is not walked: C is cut into as many parts as there are threads, and no
//! part waits for another. The loops of a part are [`Product`]'s. [`super::tile`] executes everything else: plans handed in, products whose k is split among
//! threads, results that are narrower than their sums, dot products of bf16, what other executors of convolutions leave; 8-bit integers are [`super::dot_parts`].

use std::sync::RwLock;

use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::Epilogue;
use tile25_kernels::format::{Format, Words, WordsMut};
use tile25_kernels::gemm::{self, Blocking, Lies, Product, Real, Single};
use tile25_kernels::mat::{MatMut, MatSpec, Matrices, Places};
use tile25_kernels::pack::{Form, Operand, Side};
use tile25_kernels::registry::Kernel;

use crate::context::Threads;
use crate::epilogue::{Accum, OfKernel};
use crate::error::Error;
use crate::workspace::{Scratch, Workspace};

use super::fork::{PACKING_PRICE, WORTH_ANOTHER_CUT, evenly_by, free_pair, split, within, worth};
use super::schedule::{Gemm, Reader};
use super::tile::{Run, Source};

/// How C is cut: into how many parts along the batch, the rows and the columns.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    kernel: Kernel,
    counts: [usize; 3],
    slots: usize,
    /// Of the largest part.
    blocking: Blocking,
    /// Where elements lie, from the first of each tensor: of operands in the product's format with one stride an index, and of the result.
    lhs: Option<Places>,
    rhs: Option<Places>,
    /// Whether the rhs has to be packed all the same.
    packs_rhs: bool,
    dst: Places,
    /// Whether all that is decided before a product of operands in place is decided by the shape.
    single: bool,
}

impl Parts {
    /// Cuts the products for `threads` threads; `None` where [`super::tile`] has to execute them.
    pub(crate) fn new(gemm: &Gemm, kernel: Kernel, threads: usize) -> Option<Parts> {
        let (problem, dst) = (&gemm.problem, Places::new(gemm.dst));
        let floats =
            matches!(kernel.form, Form::F32 | Form::F64) && problem.formats.sums == problem.formats.out;
        if !floats || dst.band_stride().is_none() || problem.k == 0 {
            return None;
        }
        let (threads, busy) = (worth(problem.weight(), threads), worth(problem.macs(), threads));
        let formats = problem.formats;
        let (lhs, rhs) = (
            lies(&gemm.lhs, formats.lhs, formats.sums, Side::Lhs),
            lies(&gemm.rhs, formats.rhs, formats.sums, Side::Rhs),
        );
        // What is packed by one part is packed by no other where the cut goes along it.
        let price = |lies: Lies| if matches!(lies, Lies::Strided(_)) { 0 } else { PACKING_PRICE };
        let extents = [problem.m, problem.n];
        let grains = [kernel.mr, vector(kernel.nr)];
        let prices = [price(lhs), price(rhs)];
        let counts = evenly_by(problem.batch, extents, grains, threads, WORTH_ANOTHER_CUT, prices);
        if counts.iter().product::<usize>() < busy && problem.segments() >= 2 {
            return None; // k has to be split
        }
        // Of panels packed before a part has whole ones.
        let units = [problem.batch, problem.m.div_ceil(kernel.mr), problem.n.div_ceil(kernel.nr)];
        let largest =
            |d: usize, grain: usize, extent: usize| extent.min(units[d].div_ceil(counts[d]) * grain);
        let (m, n) = (largest(1, kernel.mr, problem.m), largest(2, kernel.nr, problem.n));
        let bytes = formats.sums.bytes();
        let blocking = Blocking::new([m, n, problem.k], bytes, [kernel.mr, kernel.nr], lhs, rhs);
        Some(Parts {
            kernel,
            counts,
            slots: threads,
            blocking,
            lhs: places(&gemm.lhs, lhs, Side::Lhs),
            rhs: places(&gemm.rhs, rhs, Side::Rhs),
            packs_rhs: matches!(rhs, Lies::Transposed(_)),
            dst,
            single: problem.batch == 1
                && counts == [1; 3]
                && blocking.is_single([problem.m, problem.n, problem.k]),
        })
    }

    /// Whether both operands lie as the kernels read them.
    pub(crate) fn reads_in_place(&self) -> bool {
        self.reads_lhs_in_place() && self.rhs.is_some() && !self.packs_rhs
    }

    /// Whether the lhs lies as the kernels read it.
    pub(crate) fn reads_lhs_in_place(&self) -> bool {
        self.lhs.is_some()
    }

    /// What a run needs.
    pub(crate) fn scratch(&self) -> Scratch {
        let bytes = self.blocking.scratch().map(|elements| elements * self.kernel.form.element_bytes());
        let slots = if bytes == [0, 0] { 0 } else { self.slots };
        Scratch { panels: std::iter::repeat_n(bytes, slots).flatten().collect(), ..Scratch::default() }
    }

    /// Checks that a workspace serves the parts; allocates nothing where it does.
    #[inline(always)]
    pub(crate) fn check(&self, op: &'static str, workspace: &Workspace) -> Result<(), Error> {
        if self.blocking.scratch() == [0, 0] {
            return Ok(());
        }
        let bytes = self.blocking.scratch().map(|elements| elements * self.kernel.form.element_bytes());
        let slots = self.slots;
        if workspace.has_panels(slots, bytes) { Ok(()) } else { workspace.check(op, &self.scratch()) }
    }

    /// Computes all parts into the elements of `dst` from `start` on. Allocates nothing.
    ///
    /// # Panics
    /// If an operand, the result or the workspace is not what the parts were made for; callers check.
    pub(crate) fn run(
        &self,
        run: &Run<'_>,
        epilogue: Option<&OfKernel<'_>>,
        dst: WordsMut<'_>,
        start: usize,
        threads: &Threads<'_>,
        workspace: &Workspace,
    ) {
        let out = Out { add: run.accum == Accum::Add, k: run.gemm.problem.k, start, threads, workspace };
        match dst {
            WordsMut::F32(dst) => self.sources::<f32>(run, epilogue, dst, &out),
            WordsMut::F64(dst) => self.sources::<f64>(run, epilogue, dst, &out),
            _ => unreachable!("the parts of a product are sums"),
        }
    }

    /// [`run`](Self::run) of f32 operands that are read in place, without an epilogue: what small products spend is mostly the way there. False if one is not.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "three tensors and where they begin")]
    pub(crate) fn run_in_place(
        &self,
        (lhs, lhs_start): (Words<'_>, usize),
        (rhs, rhs_start): (Words<'_>, usize),
        accum: Accum,
        k: usize,
        dst: &mut WordsMut<'_>,
        start: usize,
        threads: &Threads<'_>,
        workspace: &Workspace,
    ) -> bool {
        let (Words::F32(lhs), Words::F32(rhs), WordsMut::F32(dst)) = (lhs, rhs, dst) else { return false };
        let (Some(of_lhs), Some(of_rhs), false) = (&self.lhs, &self.rhs, self.packs_rhs) else {
            return false;
        };
        let here = |data, start: usize, places| {
            Matrices::new(data, start as isize, places).expect("the view was checked")
        };
        let (lhs, rhs) = (here(lhs, lhs_start, of_lhs), here(rhs, rhs_start, of_rhs));
        let add = accum == Accum::Add;
        if self.single {
            let mut dst = self.result(dst, start);
            let dst = dst.band(0, dst.rows(), dst.cols());
            let mut single = Single { lhs: lhs.matrix(0), rhs: rhs.matrix(0), dst, add };
            f32::single(self.kernel.isa, &mut single);
            return true;
        }
        let out = Out { add, k, start, threads, workspace };
        self.typed::<f32>(&gemm::Source::InPlace(lhs), &gemm::Source::InPlace(rhs), None, dst, &out);
        true
    }

    /// The whole result.
    #[inline(always)]
    fn result<'a, T: Real>(&'a self, dst: &'a mut [T], start: usize) -> MatMut<'a, T> {
        MatMut::new(dst, start as isize, &self.dst).expect("the view and the plan were checked")
    }

    fn sources<T: Real + OwnWords>(
        &self,
        run: &Run<'_>,
        epilogue: Option<&OfKernel<'_>>,
        dst: &mut [T],
        out: &Out<'_>,
    ) {
        let epilogue = epilogue.map(|epilogue| epilogue.cast());
        let lhs = operand(&run.lhs, &run.gemm.lhs, &self.lhs, false);
        let rhs = operand(&run.rhs, &run.gemm.rhs, &self.rhs, self.packs_rhs);
        self.typed(&lhs, &rhs, epilogue.as_ref(), dst, out);
    }

    fn typed<T: Real>(
        &self,
        lhs: &gemm::Source<'_, T>,
        rhs: &gemm::Source<'_, T>,
        epilogue: Option<&Epilogue<'_, T>>,
        dst: &mut [T],
        out: &Out<'_>,
    ) {
        let Out { add, k, start, threads, workspace } = *out;
        let dst = self.result(dst, start);
        let job = Job { parts: self, k, lhs, rhs, add, epilogue, panels: &workspace.panels };
        if self.counts == [1; 3] {
            return job.part(dst);
        }
        // Panels that were packed before are not cut.
        let (mut counts, mut grains) = (self.counts, [1, self.kernel.mr, vector(self.kernel.nr)]);
        if let gemm::Source::Panels { .. } = rhs {
            grains[2] = self.kernel.nr;
            counts[2] = counts[2].min(self.dst.extents()[2].div_ceil(grains[2]));
        }
        within(threads, counts, || split(dst, counts, grains, &|dst| job.part(dst)));
    }
}

/// Columns of a vector, of a panel of `nr`: parts begin at one.
fn vector(nr: usize) -> usize {
    if nr.is_multiple_of(3) { nr / 3 } else { nr / 2 }
}

/// What every kind of run has.
struct Out<'a> {
    add: bool,
    k: usize,
    start: usize,
    threads: &'a Threads<'a>,
    workspace: &'a Workspace,
}

/// Words that are the elements themselves.
pub(crate) trait OwnWords: Sized {
    fn own<'a>(words: Words<'a>) -> Option<&'a [Self]>;
}

impl OwnWords for f32 {
    fn own<'a>(words: Words<'a>) -> Option<&'a [f32]> {
        if let Words::F32(data) = words { Some(data) } else { None }
    }
}

impl OwnWords for f64 {
    fn own<'a>(words: Words<'a>) -> Option<&'a [f64]> {
        if let Words::F64(data) = words { Some(data) } else { None }
    }
}

/// Where a reader's elements lie, from the first of its tensor; `None` if they have to be packed.
pub(super) fn places(reader: &Reader, lies: Lies, side: Side) -> Option<Places> {
    let (x, k) = (reader.window.x, reader.window.k);
    let (rows, cols) = if side == Side::Lhs { (x, k) } else { (k, x) };
    let spec = MatSpec { start: reader.window.start, batch: reader.batch, rows, cols };
    (lies != Lies::Otherwise).then(|| Places::new(spec))
}

/// How a reader's elements lie in a product of `sums`.
pub(super) fn lies(reader: &Reader, own: Format, sums: Format, side: Side) -> Lies {
    let window = &reader.window;
    let strided = window.is_plain() && window.x.dims().len() == 1 && window.k.dims().len() == 1;
    let (across, down) = (window.x.inner(), window.k.inner());
    match side {
        _ if !strided || own != sums => Lies::Otherwise,
        Side::Rhs if across.stride != 1 && across.extent > 1 => {
            Lies::Transposed([across.stride, down.stride])
        }
        _ => Lies::Strided([across.stride, down.stride]),
    }
}

/// An operand of a run as a product reads it: in place, if it has `places` and need not be packed.
fn operand<'a, T: Real + OwnWords>(
    source: &Source<'a>,
    reader: &'a Reader,
    places: &'a Option<Places>,
    packs: bool,
) -> gemm::Source<'a, T> {
    let (operand, start, matrices) = match *source {
        Source::Packed { panels, batch } => {
            return gemm::Source::Panels { panels: bytemuck::cast_slice(panels), batch };
        }
        Source::Floats { words, start } => {
            let data = T::own(words).zip(places.as_ref());
            let matrices = data.map(|(data, places)| {
                Matrices::new(data, start as isize, places).expect("the view was checked")
            });
            match matrices {
                Some(matrices) if !packs => return gemm::Source::InPlace(matrices),
                _ => (Operand::floats(words), start, matrices),
            }
        }
        Source::Coded { operand, start, .. } => (operand, start, None),
    };
    let Reader { window, batch } = reader;
    gemm::Source::Pack { window, start: start as isize, batch, operand, matrices }
}

struct Job<'a, T> {
    parts: &'a Parts,
    k: usize,
    lhs: &'a gemm::Source<'a, T>,
    rhs: &'a gemm::Source<'a, T>,
    add: bool,
    epilogue: Option<&'a Epilogue<'a, T>>,
    panels: &'a [RwLock<Buf>],
}

impl<T: Real> Job<'_, T> {
    /// Computes a part with the first scratch that nobody uses.
    fn part(&self, dst: MatMut<'_, T>) {
        let blocking = &self.parts.blocking;
        let [lhs, rhs] = blocking.scratch();
        if [lhs, rhs] == [0, 0] {
            return self.multiply(dst, blocking, [&mut [], &mut []]);
        }
        let (mut first, mut second) = free_pair(self.panels, self.parts.slots);
        self.multiply(dst, blocking, [first.as_mut_slice(lhs), second.as_mut_slice(rhs)]);
    }

    fn multiply(&self, dst: MatMut<'_, T>, blocking: &Blocking, scratch: [&mut [T]; 2]) {
        let Job { k, add, epilogue, .. } = *self;
        let (lhs, rhs) = (self.lhs, self.rhs);
        let mut product = Product { lhs, rhs, k, dst, add, epilogue, blocking, scratch };
        T::product(self.parts.kernel.isa, &mut product);
    }
}
