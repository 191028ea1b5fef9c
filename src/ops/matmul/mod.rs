//! Matrix multiplication: batched, strided, broadcasting.

use std::sync::OnceLock;

use tile25_kernels::axis::{Axis, Dim, Window};
use tile25_kernels::epilogue::Along;
use tile25_kernels::format::{Element, Format, Words, WordsMut};
use tile25_kernels::mat::MatSpec;
use tile25_kernels::pack::{Side, Zero};
use tile25_kernels::registry::Kernel;

use crate::backend::dot_parts::DotParts;
use crate::backend::few_rows::FewRows;
use crate::backend::fork::worth;
use crate::backend::parts::Parts;
use crate::backend::reference::{self, Arithmetic, Output, Values};
use crate::backend::schedule::{Gemm, Reader, Schedule};
use crate::backend::tile::{Run, Source};
use crate::context::{Backend, Context, Threads};
use crate::epilogue::{Accum, Epilogue};
use crate::error::Error;
use crate::layout::{Layout, MAX_RANK, broadcast};
use crate::ops::operand::{
    check_accum, check_blocks, check_operand, check_zero, formats, grain, kernel, source,
};
use crate::plan::{Formats, Problem, TilePlan, matmul as planner};
use crate::view::{Spec, View, ViewMut};
use crate::workspace::{Scratch, Workspace};

mod packed;

pub use packed::{PackedRhs, Rhs};

const OP: &str = "matmul";

/// `out = lhs rhs`, planned and run once with the default [`Context`].
///
/// Shapes: lhs `[..., m, k]`, rhs `[..., k, n]`, out `[..., m, n]`; leading dims broadcast by numpy's rules. Any strides. Any two float formats, or
/// two of i8 and u8: see [`Matmul::new`].
///
/// # Errors
/// [`Error::Shape`] and the other refusals of [`Matmul::new`]; the output is then untouched.
pub fn matmul<A: Element, B: Element, C: Element>(
    lhs: View<'_, A>,
    rhs: View<'_, B>,
    out: ViewMut<'_, C>,
) -> Result<(), Error> {
    let plan = Matmul::new(lhs.spec(), rhs.spec(), out.spec())?.plan(&Context::default())?;
    plan.run(lhs, rhs, out, Epilogue::default(), &mut plan.workspace())
}

/// A matrix product of given shapes, strides and formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matmul {
    lhs: Spec,
    rhs: Spec,
    out: Spec,
    formats: Formats,
    accum: Accum,
    block_scaled: bool,
}

impl Matmul {
    /// Shapes: lhs `[..., m, k]`, rhs `[..., k, n]`, out `[..., m, n]`; the leading dims of lhs and rhs broadcast by numpy's
    /// rules to those of out. k may be 0.
    ///
    /// Formats: any two float formats give sums in f32 and a result in any format below f64, narrowed at the end; with f64 among them, sums and result are
    /// f64. i8 and u8 in any pairing give sums in i32 and a result in i32, or scaled in f32 and narrowed.
    ///
    /// # Errors
    /// [`Error::Rank`] below 2, [`Error::Shape`], [`Error::ZeroDim`] if out has no elements, [`Error::AliasedOutput`],
    /// [`Error::Format`] for formats that do not go together.
    pub fn new(lhs: Spec, rhs: Spec, out: Spec) -> Result<Self, Error> {
        for spec in [&lhs, &rhs, &out] {
            let (rank, dims) = (spec.layout.rank(), spec.dims().to_vec());
            if rank < 2 {
                return Err(Error::Rank { op: OP, rank, dims, low: 2, high: MAX_RANK });
            }
        }
        let formats = formats(OP, lhs.format, rhs.format, out.format)?;
        let (a, b, c) = (lhs.dims(), rhs.dims(), out.dims());
        let [m, k] = a[a.len() - 2..] else { unreachable!("rank checked") };
        let [k_rhs, n] = b[b.len() - 2..] else { unreachable!("rank checked") };
        if k != k_rhs {
            let problem = format!("lhs {a:?} has {k} columns, rhs {b:?} has {k_rhs} rows");
            return Err(Error::Shape { op: OP, problem });
        }
        let mut expected = broadcast(OP, &a[..a.len() - 2], &b[..b.len() - 2])?;
        expected.extend([m, n]);
        if c != expected {
            let problem = format!("lhs {a:?} and rhs {b:?} give {expected:?}, out is {c:?}");
            return Err(Error::Shape { op: OP, problem });
        }
        if out.layout.is_empty() {
            return Err(Error::ZeroDim { op: OP, operand: "out", dims: c.to_vec() });
        }
        if !out.layout.is_injective() {
            return Err(Error::AliasedOutput { dims: c.to_vec(), strides: out.layout.strides().to_vec() });
        }
        let macs = c.iter().try_fold(k, |product, &extent| product.checked_mul(extent));
        if macs.is_none_or(|macs| macs > isize::MAX as usize) {
            return Err(Error::SizeOverflow { dims: expected, strides: Vec::new() });
        }
        Ok(Matmul { lhs, rhs, out, formats, accum: Accum::Replace, block_scaled: false })
    }

    /// Whether the product replaces the output or is added to it.
    pub fn accum(self, accum: Accum) -> Self {
        Matmul { accum, ..self }
    }

    /// Operands may have [block scales](View::block_scales): they are widened to f32 and scaled while they are packed, so the dot products of bf16 have no part.
    pub fn block_scaled(self) -> Self {
        Matmul { block_scaled: true, ..self }
    }

    /// Plans the product for a context.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for [`Accum::Add`] to an output whose format cannot be added to: 8-bit integers, or other than i32 for integer operands; for block
    /// scales where sums are not f32.
    pub fn plan<'p>(self, context: &Context<'p>) -> Result<MatmulPlan<'p>, Error> {
        check_accum(OP, self.formats, self.accum)?;
        let gemm = self.gemm()?;
        let transposed = gemm.prefers_transposed();
        let gemm = if transposed { gemm.transposed() } else { gemm };
        let kernel = match (self.block_scaled, self.formats.sums) {
            (false, _) => kernel(context, self.lhs.format, self.rhs.format),
            (true, Format::F32) => kernel(context, Format::F32, Format::F32),
            (true, sums) => {
                let what = format!("block scales with sums in {sums}");
                return Err(Error::Unsupported { op: OP, what });
            }
        };
        let threads = |work: u64| worth(work, context.threads.count());
        let (threads, readers) = (threads(gemm.problem.macs()), threads(gemm.problem.weight()));
        let parts = Parts::new(&gemm, kernel, readers);
        let dots = DotParts::new(&gemm, kernel, threads);
        let few_rows = FewRows::new(&gemm, readers).filter(|_| !self.block_scaled);
        let mut plan = MatmulPlan {
            op: self,
            context: *context,
            gemm,
            transposed,
            kernel,
            threads,
            parts,
            dots,
            few_rows,
            lengths: [&self.lhs, &self.rhs, &self.out].map(|spec| match spec.layout.span() {
                Some((0, high)) => Some(high as usize + 1),
                _ => None,
            }),
            tile_plan: OnceLock::new(),
            schedule: OnceLock::new(),
        };
        if plan.parts.is_none() && (plan.dots.is_none() || transposed) {
            let scratch = plan.schedule().scratch().clone();
            if let Some(dots) = &mut plan.dots {
                dots.also(&scratch);
            }
        }
        Ok(plan)
    }

    fn gemm(&self) -> Result<Gemm, Error> {
        let out = &self.out.layout;
        let lead = out.rank() - 2;
        let batch_of = |layout: &Layout| -> Result<Axis, Error> {
            let mut dims = out.dims()[..lead].to_vec();
            dims.extend_from_slice(&layout.dims()[layout.rank() - 2..]);
            let layout = layout.broadcast_to(&dims)?;
            Ok(plain_axis(&layout, 0..lead))
        };
        let matrix = |layout: &Layout| {
            let d = layout.rank() - 2;
            (plain_axis(layout, d..d + 1), plain_axis(layout, d + 1..d + 2))
        };
        let (lhs_rows, lhs_k) = matrix(&self.lhs.layout);
        let (rhs_k, rhs_cols) = matrix(&self.rhs.layout);
        Ok(Gemm {
            problem: Problem {
                formats: self.formats,
                batch: out.dims()[..lead].iter().product(),
                m: out.dims()[lead],
                n: out.dims()[lead + 1],
                k: lhs_k.extent(),
            },
            lhs: Reader { window: Window::plain(0, lhs_rows, lhs_k), batch: batch_of(&self.lhs.layout)? },
            rhs: Reader { window: Window::plain(0, rhs_cols, rhs_k), batch: batch_of(&self.rhs.layout)? },
            dst: out_spec(out),
        })
    }
}

/// Some dims of a layout as one index.
fn plain_axis(layout: &Layout, dims: std::ops::Range<usize>) -> Axis {
    let mut all = [Dim::plain(1, 0); MAX_RANK];
    let rank = dims.len();
    for (to, d) in dims.enumerate() {
        all[to] = Dim::plain(layout.dims()[d], layout.strides()[d]);
    }
    Axis::new(&all[..rank])
}

/// The last two dims as matrix, the leading ones as batch.
fn out_spec(layout: &Layout) -> MatSpec {
    let lead = layout.rank() - 2;
    MatSpec {
        start: 0,
        batch: plain_axis(layout, 0..lead),
        rows: plain_axis(layout, lead..lead + 1),
        cols: plain_axis(layout, lead + 1..lead + 2),
    }
}

/// A planned product: descriptor, tile plan, kernel. Plan once, run often.
#[derive(Clone, Debug)]
pub struct MatmulPlan<'p> {
    op: Matmul,
    context: Context<'p>,
    gemm: Gemm,
    transposed: bool,
    kernel: Kernel,
    threads: usize,
    /// Where the host does not walk the tile plan.
    parts: Option<Parts>,
    /// The same of 8-bit integers and of bf16, by dot products; but a lhs that was packed before takes the tile plan, as an rhs does whose product is transposed.
    dots: Option<DotParts>,
    /// A few rows of narrow formats, which are multiplied where they lie unless the rhs was packed before.
    few_rows: Option<FewRows>,
    /// Least lengths of slices that begin with the first element of lhs, rhs and output, where nothing lies before it.
    lengths: [Option<usize>; 3],
    /// Made when first asked for.
    tile_plan: OnceLock<TilePlan>,
    /// Of the tile plan; made with the plan where there are no parts.
    schedule: OnceLock<Schedule>,
}

impl MatmulPlan<'_> {
    /// The kernel that multiplies. A few rows that are read in place have kernels of their own, which the registry does not name.
    pub fn kernel(&self) -> Kernel {
        self.dots.as_ref().map_or(self.kernel, DotParts::kernel)
    }

    /// Which die computes what. The plan is of the transposed product where the output lies column-major. Float products whose result is
    /// as wide as their sums, and those of 8-bit integers and smaller ones of bf16 by a dot product, have the same bits by any plan, and a host runs them in other pieces, faster: their plan is made when first asked for, and walked only
    /// where it was handed in by [`with_tile_plan`](Self::with_tile_plan).
    pub fn tile_plan(&self) -> &TilePlan {
        self.tile_plan.get_or_init(|| planner::plan(self.gemm.problem, grain(self.kernel), self.threads))
    }

    fn schedule(&self) -> &Schedule {
        self.schedule.get_or_init(|| Schedule::new(self.tile_plan(), self.kernel, self.threads))
    }

    fn scratch(&self) -> Scratch {
        match (&self.parts, &self.dots) {
            (Some(parts), _) => parts.scratch(),
            (_, Some(dots)) => dots.scratch().clone(),
            _ => self.schedule().scratch().clone(),
        }
    }

    /// Replaces the tile plan by another of the same problem.
    ///
    /// # Errors
    /// [`Error::Plan`] if it breaks a law; [`Error::Shape`] if it is of another problem.
    pub fn with_tile_plan(mut self, tile_plan: TilePlan) -> Result<Self, Error> {
        if tile_plan.problem != self.gemm.problem {
            let problem =
                format!("the tile plan is of {:?}, not of {:?}", tile_plan.problem, self.gemm.problem);
            return Err(Error::Shape { op: OP, problem });
        }
        tile_plan.validate().map_err(|law| Error::Plan { op: OP, broken: law.to_string() })?;
        self.threads = self.context.threads.count();
        (self.parts, self.dots, self.few_rows) = (None, None, None);
        self.schedule = Schedule::new(&tile_plan, self.kernel, self.threads).into();
        self.tile_plan = tile_plan.into();
        Ok(self)
    }

    /// Scratch for [`run`](Self::run).
    pub fn workspace(&self) -> Workspace {
        Workspace::new(self.scratch())
    }

    /// `out = act(scale (lhs rhs) + bias + residual)`, or with `out` added into the sum (see [`Accum`] and [`Epilogue`]). Allocates nothing.
    ///
    /// # Errors
    /// [`Error::NotPlanned`] if an operand has another shape, stride or kind of format than planned (the bias of a configurable float may be another in
    /// each run); [`Error::Packed`],
    /// [`Error::Workspace`] for those of another plan; [`Error::Shape`], [`Error::Unsupported`] for an epilogue or zero points that do not fit.
    /// The output is then untouched.
    #[inline]
    pub fn run<'a, A: Element, B: Element, C: Element>(
        &self,
        lhs: View<'a, A>,
        rhs: impl Into<Rhs<'a, B>>,
        mut out: ViewMut<'_, C>,
        epilogue: Epilogue<'a, C>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        self.run_on(&lhs, &rhs.into(), &mut out, &epilogue, workspace)
    }

    /// [`run`](Self::run) without an epilogue on operands that lie as planned, each from the first element of its slice on. Of small products views take a good part of the time.
    /// Shapes are those of [`Matmul::new`]. Allocates nothing.
    ///
    /// # Errors
    /// As [`run`](Self::run), [`Error::NotPlanned`] for elements of another kind of format; [`Error::OutOfBounds`] for a slice that is too short, or of a layout that reaches before its first element. The output is then untouched.
    #[inline]
    pub fn run_slices<A: Element, B: Element, C: Element>(
        &self,
        lhs: &[A],
        rhs: &[B],
        out: &mut [C],
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let Matmul { lhs: of_lhs, rhs: of_rhs, out: of_out, .. } = &self.op;
        let formats = [(A::FORMAT, of_lhs.format), (B::FORMAT, of_rhs.format), (C::FORMAT, of_out.format)];
        let planned = formats.iter().all(|(format, planned)| format.same_kind(*planned));
        let lengths = [lhs.len(), rhs.len(), out.len()];
        let inside = (0..3).all(|i| self.lengths[i].is_some_and(|needed| needed <= lengths[i]));
        if let (true, true, Some(parts)) = (planned, inside, &self.parts) {
            parts.check(OP, workspace)?;
            let (left, right) = ((A::words(lhs), 0), (B::words(rhs), 0));
            if self.run_in_place(left, right, (C::words_mut(out), 0), workspace) {
                return Ok(());
            }
        }
        check_operand(OP, "lhs", &of_lhs.layout, A::FORMAT, of_lhs)?;
        check_operand(OP, "rhs", &of_rhs.layout, B::FORMAT, of_rhs)?;
        check_operand(OP, "out", &of_out.layout, C::FORMAT, of_out)?;
        let lhs = View::with_layout(lhs, 0, of_lhs.layout)?.with_format(of_lhs.format)?;
        let rhs = View::with_layout(rhs, 0, of_rhs.layout)?.with_format(of_rhs.format)?;
        let out = ViewMut::with_layout(out, 0, of_out.layout)?.with_format(of_out.format)?;
        self.run(lhs, rhs, out, Epilogue::default(), workspace)
    }

    /// A run of f32 operands of the planned layouts that are read in place, without an epilogue: what small products spend is mostly the way there. False if it is none.
    #[inline(always)]
    fn run_in_place(
        &self,
        lhs: (Words<'_>, usize),
        rhs: (Words<'_>, usize),
        (mut out, start): (WordsMut<'_>, usize),
        workspace: &mut Workspace,
    ) -> bool {
        let (Some(parts), Backend::Tile, false) = (&self.parts, self.context.backend, self.op.block_scaled)
        else {
            return false;
        };
        let (lhs, rhs) = if self.transposed { (rhs, lhs) } else { (lhs, rhs) };
        let (k, threads) = (self.gemm.problem.k, &self.context.threads);
        let done = parts.run_in_place(lhs, rhs, self.op.accum, k, &mut out, start, threads, workspace);
        if done {
            workspace.progress.clear_report();
        }
        done
    }

    /// [`run`](Self::run), its views not copied another time: small products notice that.
    fn run_on<'a, A: Element, B: Element, C: Element>(
        &self,
        lhs: &View<'a, A>,
        rhs: &Rhs<'a, B>,
        out: &mut ViewMut<'_, C>,
        epilogue: &Epilogue<'a, C>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        check_operand(OP, "lhs", lhs.layout(), lhs.format(), &self.op.lhs)?;
        check_operand(OP, "out", out.layout(), out.format(), &self.op.out)?;
        let [.., m, n] = *self.op.out.dims() else { unreachable!("rank checked") };
        check_zero(OP, "lhs", lhs.zero(), lhs.format(), Some(("rows", m)))?;
        check_zero(OP, "out", Zero::Tensor(out.zero()), out.format(), None)?;
        check_blocks(OP, "lhs", lhs, self.op.block_scaled)?;
        epilogue.check(OP, &self.op.out, Some(m), n)?;
        match (&self.parts, &self.dots) {
            (Some(parts), _) => parts.check(OP, workspace)?,
            (_, Some(dots)) => workspace.check(OP, dots.scratch())?,
            _ => workspace.check(OP, self.schedule().scratch())?,
        }
        let right = match *rhs {
            Rhs::View(ref view) => {
                check_operand(OP, "rhs", view.layout(), view.format(), &self.op.rhs)?;
                check_zero(OP, "rhs", view.zero(), view.format(), Some(("columns", n)))?;
                check_blocks(OP, "rhs", view, self.op.block_scaled)?;
                if self.context.backend == Backend::Reference {
                    let out = Output::new(out.rb_mut(), self.op.accum, epilogue, Layout::clone);
                    match self.op.formats.sums {
                        Format::F64 => reference_matmul::<f64, A, B, C>(lhs, view, out),
                        Format::I32 => reference_matmul::<i32, A, B, C>(lhs, view, out),
                        _ => reference_matmul::<f32, A, B, C>(lhs, view, out),
                    }
                    return Ok(());
                }
                let (left, right) = ((lhs.words(), lhs.start()), (view.words(), view.start()));
                let start = out.start();
                if epilogue.is_identity()
                    && self.run_in_place(left, right, (C::words_mut(out.data_mut()), start), workspace)
                {
                    return Ok(());
                }
                source(view, Side::Rhs, 0)
            }
            Rhs::Packed(packed) => {
                self.check_packed(packed)?;
                Source::Packed { panels: packed.panels(), batch: self.packed_batch() }
            }
        };
        let left = source(lhs, Side::Lhs, 0);
        let transposed = self.transposed;
        let (first, second) = if transposed { (right, left) } else { (left, right) };
        let orient = |layout: &Layout| {
            let mut spec = out_spec(layout);
            if transposed {
                std::mem::swap(&mut spec.rows, &mut spec.cols);
            }
            spec
        };
        let (row, channel) = (
            |values| if transposed { Along::Col(values, 0) } else { Along::Row(values, 0) },
            |values| if transposed { Along::Row(values, 0) } else { Along::Col(values, 0) },
        );
        let run = Run { gemm: &self.gemm, lhs: first, rhs: second, accum: self.op.accum };
        let finish = || epilogue.for_kernel(&out.spec(), out.zero(), orient, row, channel);
        let threads = &self.context.threads;
        workspace.progress.clear_report();
        if let (Some(few_rows), Rhs::View(view), Zero::Tensor(zero)) = (&self.few_rows, rhs, lhs.zero())
            && let Zero::Tensor(rhs_zero) = view.zero()
        {
            let epilogue = (!epilogue.is_identity()).then(finish);
            let (left, right) = ((lhs.words(), lhs.start(), zero), (view.words(), view.start(), rhs_zero));
            let (left, right) = if transposed { (right, left) } else { (left, right) };
            let (isa, accum, start) = (self.context.isa, self.op.accum, out.start());
            let dst = (C::words_mut(out.data_mut()), start);
            few_rows.run(isa, left, right, accum, epilogue.as_ref(), dst, threads);
        } else if let Some(parts) = &self.parts {
            // Sums in the format of the result that nothing changes need no epilogue: small products notice one.
            let epilogue = (!epilogue.is_identity()).then(finish);
            let start = out.start();
            parts.run(&run, epilogue.as_ref(), C::words_mut(out.data_mut()), start, threads, workspace);
        } else if let Some(dots) = self.dots.as_ref().filter(|_| run.lhs.operand().is_some()) {
            let start = out.start();
            dots.run(&run, &finish(), C::words_mut(out.data_mut()), start, threads, workspace);
        } else {
            let epilogue = finish();
            let dst = MatSpec { start: out.start() as isize, ..self.gemm.dst };
            self.schedule().run(&run, &epilogue, C::words_mut(out.data_mut()), dst, threads, workspace);
        }
        Ok(())
    }

    /// The threads that runs use.
    pub fn threads(&self) -> &Threads<'_> {
        &self.context.threads
    }
}

fn reference_matmul<S: Arithmetic, A: Element, B: Element, C: Element>(
    lhs: &View<'_, A>,
    rhs: &View<'_, B>,
    out: Output<'_, '_, C>,
) {
    let (lhs, rhs) = (Values::<S>::new(lhs, *lhs.layout()), Values::<S>::new(rhs, *rhs.layout()));
    reference::matmul(&lhs, &rhs, out);
}
