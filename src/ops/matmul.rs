//! Matrix multiplication: batched, strided, broadcasting.

use tile25_kernels::axis::{Axis, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::Bias;
use tile25_kernels::format::{Element, Format};
use tile25_kernels::mat::{MatMut, MatSpec};
use tile25_kernels::pack::{pack, packed_len};
use tile25_kernels::registry::Kernel;

use crate::backend::reference;
use crate::backend::schedule::{Gemm, Reader, Schedule};
use crate::backend::tile::{Run, Source};
use crate::context::{Backend, Context, Threads};
use crate::epilogue::{Accum, Epilogue};
use crate::error::Error;
use crate::layout::{Layout, MAX_RANK, broadcast};
use crate::plan::matmul::{Grain, ONE_DIE_MACS};
use crate::plan::{Problem, TilePlan, matmul as planner};
use crate::view::{Spec, View, ViewMut};
use crate::workspace::Workspace;

const OP: &str = "matmul";

/// `out = lhs rhs`, planned and run once with the default [`Context`].
///
/// Shapes: lhs `[..., m, k]`, rhs `[..., k, n]`, out `[..., m, n]`; leading dims broadcast by numpy's rules. Any strides.
///
/// # Errors
/// [`Error::Shape`] and the other refusals of [`Matmul::new`]; the output is then untouched.
pub fn matmul<T: Element>(lhs: View<'_, T>, rhs: View<'_, T>, out: ViewMut<'_, T>) -> Result<(), Error> {
    let plan = Matmul::new(lhs.spec(), rhs.spec(), out.spec())?.plan(&Context::default())?;
    plan.run(lhs, rhs, out, Epilogue::default(), &mut plan.workspace())
}

/// A matrix product of given shapes, strides and format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matmul {
    lhs: Spec,
    rhs: Spec,
    out: Spec,
    accum: Accum,
}

impl Matmul {
    /// Shapes: lhs `[..., m, k]`, rhs `[..., k, n]`, out `[..., m, n]`; the leading dims of lhs and rhs broadcast by numpy's
    /// rules to those of out. k may be 0.
    ///
    /// # Errors
    /// [`Error::Rank`] below 2, [`Error::Shape`], [`Error::ZeroDim`] if out has no elements, [`Error::AliasedOutput`],
    /// [`Error::Format`] unless all three have one format.
    pub fn new(lhs: Spec, rhs: Spec, out: Spec) -> Result<Self, Error> {
        for spec in [&lhs, &rhs, &out] {
            let (rank, dims) = (spec.layout.rank(), spec.dims().to_vec());
            if rank < 2 {
                return Err(Error::Rank { op: OP, rank, dims, low: 2, high: MAX_RANK });
            }
        }
        if lhs.format != rhs.format || lhs.format != out.format {
            return Err(Error::Format { op: OP, formats: vec![lhs.format, rhs.format, out.format] });
        }
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
        Ok(Matmul { lhs, rhs, out, accum: Accum::Replace })
    }

    /// Whether the product replaces the output or is added to it.
    pub fn accum(self, accum: Accum) -> Self {
        Matmul { accum, ..self }
    }

    /// Plans the product for a context.
    ///
    /// # Errors
    /// None today; a later version may refuse what a context cannot do.
    pub fn plan<'p>(self, context: &Context<'p>) -> Result<MatmulPlan<'p>, Error> {
        let gemm = self.gemm()?;
        let transposed = gemm.prefers_transposed();
        let gemm = if transposed { gemm.transposed() } else { gemm };
        let kernel = kernel(self.out.format, context)?;
        let threads = if gemm.problem.macs() <= ONE_DIE_MACS { 1 } else { context.threads.count() };
        let grain = Grain { rows: kernel.mr, cols: kernel.nr };
        let tile_plan = planner::plan(gemm.problem, grain, threads);
        let schedule = Schedule::new(&tile_plan, kernel, threads);
        Ok(MatmulPlan { op: self, context: *context, gemm, transposed, kernel, tile_plan, schedule })
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
                format: self.out.format,
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

/// The kernel of a format on the context's instruction set.
pub(crate) fn kernel(format: Format, context: &Context<'_>) -> Result<Kernel, Error> {
    match format {
        Format::F32 => Ok(f32::kernel(context.isa)),
        Format::F64 => Ok(f64::kernel(context.isa)),
        other => Err(Error::Format { op: OP, formats: vec![other] }),
    }
}

/// The right-hand operand of a run: elements, or panels packed by [`MatmulPlan::pack_rhs`].
#[derive(Clone, Copy, Debug)]
pub enum Rhs<'a, T> {
    /// Elements.
    View(View<'a, T>),
    /// Panels.
    Packed(&'a PackedRhs<T>),
}

impl<'a, T> From<View<'a, T>> for Rhs<'a, T> {
    fn from(view: View<'a, T>) -> Self {
        Rhs::View(view)
    }
}

impl<'a, T> From<&'a PackedRhs<T>> for Rhs<'a, T> {
    fn from(packed: &'a PackedRhs<T>) -> Self {
        Rhs::Packed(packed)
    }
}

/// A right-hand operand in the panels of a kernel. It depends on that operand and on the panel width alone: it serves every plan
/// with the same `[..., k, n]` whose kernel reads panels of that width.
#[derive(Clone, Debug)]
pub struct PackedRhs<T> {
    panels: Buf,
    len: usize,
    form: PackedForm,
    element: std::marker::PhantomData<T>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PackedForm {
    dims: Vec<usize>,
    width: usize,
    format: Format,
}

impl std::fmt::Display for PackedForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in {} panels of {}", self.dims, self.format, self.width)
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
    tile_plan: TilePlan,
    schedule: Schedule,
}

impl MatmulPlan<'_> {
    /// The kernel that multiplies.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Which die computes what. The plan is of the transposed product where the output lies column-major.
    pub fn tile_plan(&self) -> &TilePlan {
        &self.tile_plan
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
        self.schedule = Schedule::new(&tile_plan, self.kernel, self.context.threads.count());
        self.tile_plan = tile_plan;
        Ok(self)
    }

    /// Scratch for [`run`](Self::run).
    pub fn workspace(&self) -> Workspace {
        Workspace::new(self.schedule.scratch().clone())
    }

    fn packed_form(&self) -> PackedForm {
        let width = if self.transposed { self.kernel.mr } else { self.kernel.nr };
        PackedForm { dims: self.op.rhs.dims().to_vec(), width, format: self.op.rhs.format }
    }

    fn rhs_reader(&self) -> &Reader {
        if self.transposed { &self.gemm.lhs } else { &self.gemm.rhs }
    }

    /// Packs the right-hand operand once, for any number of runs.
    ///
    /// # Errors
    /// [`Error::NotPlanned`] if `rhs` is not what the plan was made for.
    pub fn pack_rhs<T: Element>(&self, rhs: View<'_, T>) -> Result<PackedRhs<T>, Error> {
        check_operand("pack_rhs", "rhs", &rhs.spec(), &self.op.rhs)?;
        let form = self.packed_form();
        let width = form.width;
        let (n, k) = (self.rhs_reader().window.x.extent(), self.gemm.problem.k);
        let own = rhs.layout();
        let batch = plain_axis(own, 0..own.rank() - 2);
        let product = packed_len(n, k, width);
        let len = product * batch.extent();
        let mut panels = Buf::zeroed(len * size_of::<T>());
        let window = self.rhs_reader().window;
        let isa = self.context.isa;
        if product > 0 {
            let products = panels.as_mut_slice::<T>(len).chunks_exact_mut(product);
            for (b, mut out) in products.enumerate() {
                let mut window = window;
                window.start += rhs.start() as isize + batch.offset(b);
                for segment in 0..self.gemm.problem.segments() {
                    let k = self.gemm.problem.k_range(&(segment..segment + 1));
                    let (now, rest) = out.split_at_mut(packed_len(n, k.len(), width));
                    pack(isa, &window, rhs.data(), 0..n, k, width, now);
                    out = rest;
                }
            }
        }
        Ok(PackedRhs { panels, len, form, element: std::marker::PhantomData })
    }

    /// `out = act(scale (lhs rhs) + bias + residual)`, or with `out` added into the sum (see [`Accum`]). Allocates nothing.
    ///
    /// # Errors
    /// [`Error::NotPlanned`] if an operand has another shape, stride or format than planned; [`Error::Packed`],
    /// [`Error::Workspace`] for those of another plan; [`Error::Shape`], [`Error::Unsupported`] for an epilogue that does not fit.
    /// The output is then untouched.
    pub fn run<'a, T: Element>(
        &self,
        lhs: View<'a, T>,
        rhs: impl Into<Rhs<'a, T>>,
        out: ViewMut<'_, T>,
        epilogue: Epilogue<'a, T>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let rhs = rhs.into();
        check_operand(OP, "lhs", &lhs.spec(), &self.op.lhs)?;
        check_operand(OP, "out", &out.spec(), &self.op.out)?;
        let n = self.op.out.dims()[self.op.out.layout.rank() - 1];
        epilogue.check(OP, &self.op.out, n)?;
        workspace.check(OP, self.schedule.scratch())?;
        let right = match rhs {
            Rhs::View(view) => {
                check_operand(OP, "rhs", &view.spec(), &self.op.rhs)?;
                if self.context.backend == Backend::Reference {
                    reference::matmul(lhs, view, out, self.op.accum, &epilogue);
                    return Ok(());
                }
                Source::Plain { data: view.data(), start: view.start() }
            }
            Rhs::Packed(packed) => {
                let needed_width = if self.transposed { self.kernel.mr } else { self.kernel.nr };
                let fits = packed.form.width == needed_width
                    && packed.form.format == T::FORMAT
                    && packed.form.dims == self.op.rhs.dims()
                    && self.schedule.starts_at_panels(self.transposed);
                if !fits {
                    let (got, needed) = (packed.form.to_string(), self.packed_form().to_string());
                    return Err(Error::Packed { op: OP, got, needed });
                }
                if self.context.backend == Backend::Reference {
                    let what = "a packed operand on the reference backend".to_string();
                    return Err(Error::Unsupported { op: OP, what });
                }
                Source::Packed { panels: packed.panels.as_slice(packed.len), batch: self.packed_batch() }
            }
        };
        let left = Source::Plain { data: lhs.data(), start: lhs.start() };
        let (first, second) = if self.transposed { (right, left) } else { (left, right) };
        let transposed = self.transposed;
        let orient = |layout: &Layout| {
            let mut spec = out_spec(layout);
            if transposed {
                std::mem::swap(&mut spec.rows, &mut spec.cols);
            }
            spec
        };
        let bias = |values| if transposed { Bias::Row(values, 0) } else { Bias::Col(values, 0) };
        let run = Run {
            gemm: &self.gemm,
            lhs: first,
            rhs: second,
            accum: self.op.accum,
            epilogue: epilogue.for_kernel(orient, bias),
        };
        let mut dst = self.gemm.dst;
        dst.start = out.start() as isize;
        let dst = MatMut::new(out.into_data(), dst).expect("the view and the plan were checked");
        self.schedule.run(&run, dst, &self.context.threads, workspace);
        Ok(())
    }

    /// Which packed product each product of the batch reads.
    fn packed_batch(&self) -> Axis {
        let out = self.op.out.dims();
        let rhs = self.op.rhs.dims();
        let lead = out.len() - 2;
        let mut dims = [Dim::plain(1, 0); MAX_RANK];
        let mut stride = 1;
        for d in (0..lead).rev() {
            let own = (d + rhs.len()).checked_sub(out.len()).map_or(1, |own| rhs[own]);
            dims[d] = Dim::plain(out[d], if own == 1 { 0 } else { stride as isize });
            stride *= own;
        }
        Axis::new(&dims[..lead])
    }

    /// The threads that runs use.
    pub fn threads(&self) -> &Threads<'_> {
        &self.context.threads
    }
}

/// Checks an operand against the plan.
pub(crate) fn check_operand(
    op: &'static str,
    operand: &'static str,
    got: &Spec,
    planned: &Spec,
) -> Result<(), Error> {
    if got == planned {
        return Ok(());
    }
    let text = |spec: &Spec| format!("{:?} of {}", spec.layout, spec.format);
    Err(Error::NotPlanned { op, operand, got: text(got), planned: text(planned) })
}
