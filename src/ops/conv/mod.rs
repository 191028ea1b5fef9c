//! Convolution in one, two and three dimensions: forward, both gradients, transposed.
//!
//! Shapes are PyTorch's: x `[n, c_in, spatial...]`, w `[c_out, c_in / groups, kernel...]`, y `[n, c_out, spatial...]`; channels-last
//! is the same shape with other strides. Along each spatial axis
//! `out = (in + pad_low + pad_high - dilation (kernel - 1) - 1) / stride + 1`, rounded down.
//!
//! Every direction is a matmul between two readers (`products`), each executed as its shape and layouts say (`part`). Weights can be packed once (`weights`).

mod part;
mod products;
mod weights;

use tile25_kernels::axis::Axis;
use tile25_kernels::epilogue::Along;
use tile25_kernels::format::{Element, Format};
use tile25_kernels::mat::MatSpec;
use tile25_kernels::pack::{Side, Zero};
use tile25_kernels::registry::Kernel;

use crate::backend::fork::clear;
use crate::backend::reference::{self, Arithmetic, Output, Values};
use crate::backend::sums::{Call, Execute};
use crate::backend::tile::Run;
use crate::context::{Backend, Context};
use crate::epilogue::{Accum, Epilogue};
use crate::error::Error;
pub use crate::geometry::Conv;
use crate::geometry::Geometry;
use crate::layout::Layout;
use crate::ops::operand::{check_accum, check_blocks, check_operand, check_zero, formats, kernel, source};
use crate::plan::{Formats, TilePlan};
use crate::view::{Spec, View, ViewMut};
use crate::workspace::{Scratch, Workspace};

pub use part::Way;
use part::{How, Part, Turn};
use products::layout5;
pub use weights::{PackedWeights, Weights};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Direction {
    Forward,
    BackwardData,
    BackwardWeights,
    Transposed,
}

impl Direction {
    fn op(self) -> &'static str {
        match self {
            Direction::Forward => "conv::forward",
            Direction::BackwardData => "conv::backward_data",
            Direction::BackwardWeights => "conv::backward_weights",
            Direction::Transposed => "conv::transposed",
        }
    }
}

/// A convolution of given direction, shapes, strides and formats. Which formats go together: as in [`Matmul::new`](crate::Matmul::new).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    direction: Direction,
    geometry: Geometry,
    first: Spec,
    second: Spec,
    out: Spec,
    /// Those of the product: its rows come from the second operand.
    formats: Formats,
    accum: Accum,
}

impl Convolution {
    /// `y = conv(x, w)`.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::ZeroDim`], [`Error::Format`], [`Error::Shape`] where the shapes do not belong together,
    /// [`Error::AliasedOutput`].
    pub fn forward<const D: usize>(x: Spec, w: Spec, y: Spec, conv: &Conv<D>) -> Result<Self, Error> {
        let geometry = Geometry::new(Direction::Forward.op(), &x, &w, &y, conv)?;
        Self::new(Direction::Forward, geometry, x, w, y)
    }

    /// `dx`, the gradient of the input, from `dy`, the gradient of the output, and the weights.
    ///
    /// # Errors
    /// As [`Convolution::forward`] of `dx`, `w`, `dy`.
    pub fn backward_data<const D: usize>(dy: Spec, w: Spec, dx: Spec, conv: &Conv<D>) -> Result<Self, Error> {
        let geometry = Geometry::new(Direction::BackwardData.op(), &dx, &w, &dy, conv)?;
        Self::new(Direction::BackwardData, geometry, dy, w, dx)
    }

    /// `dw`, the gradient of the weights, from the input and `dy`, the gradient of the output.
    ///
    /// # Errors
    /// As [`Convolution::forward`] of `x`, `dw`, `dy`.
    pub fn backward_weights<const D: usize>(
        x: Spec,
        dy: Spec,
        dw: Spec,
        conv: &Conv<D>,
    ) -> Result<Self, Error> {
        let geometry = Geometry::new(Direction::BackwardWeights.op(), &x, &dw, &dy, conv)?;
        Self::new(Direction::BackwardWeights, geometry, x, dy, dw)
    }

    /// `y = conv_transposed(x, w)`: x `[n, c_in, spatial...]`, w `[c_in, c_out / groups, kernel...]`, y `[n, c_out, spatial...]`, the
    /// parameters those of the convolution that takes y's shape to x's. Where several shapes of y give x's, y's own shape
    /// decides (PyTorch's output padding).
    ///
    /// # Errors
    /// As [`Convolution::forward`] of `y`, `w`, `x`.
    pub fn transposed<const D: usize>(x: Spec, w: Spec, y: Spec, conv: &Conv<D>) -> Result<Self, Error> {
        let geometry = Geometry::new(Direction::Transposed.op(), &y, &w, &x, conv)?;
        Self::new(Direction::Transposed, geometry, x, w, y)
    }

    fn new(
        direction: Direction,
        geometry: Geometry,
        first: Spec,
        second: Spec,
        out: Spec,
    ) -> Result<Self, Error> {
        if !out.layout.is_injective() {
            let (dims, strides) = (out.dims().to_vec(), out.layout.strides().to_vec());
            return Err(Error::AliasedOutput { dims, strides });
        }
        let formats = formats(direction.op(), second.format, first.format, out.format)?;
        Ok(Convolution { direction, geometry, first, second, out, formats, accum: Accum::Replace })
    }

    /// Whether the result replaces the output or is added to it.
    pub fn accum(self, accum: Accum) -> Self {
        Convolution { accum, ..self }
    }

    /// Plans the convolution for a context.
    ///
    /// # Errors
    /// As [`Matmul::plan`](crate::Matmul::plan).
    pub fn plan<'p>(self, context: &Context<'p>) -> Result<ConvPlan<'p>, Error> {
        check_accum(self.direction.op(), self.formats, self.accum)?;
        let kernel = kernel(context, self.first.format, self.second.format);
        let mut scratch = Scratch::default();
        let products = self.products();
        let mut of_first = self.at_once(&products, kernel, context);
        let at_once = of_first.is_some();
        let parts = products.into_iter().map(|(gemm, scan)| {
            let part = match of_first.take() {
                Some(how) => Part::of_all(gemm, how, kernel, context),
                None if at_once => Part::of_all(gemm, How::WithFirst, kernel, context),
                None => Part::new(gemm, &scan, self.direction, self.accum, kernel, context),
            };
            scratch.merge(&part.scratch());
            part
        });
        let parts: Vec<Part> = parts.collect();
        let empty = parts.len() > 1 && parts.iter().any(Part::is_empty);
        let (layout, whole) = (&self.out.layout, self.out.layout.span());
        let dense = whole.is_some_and(|(low, high)| high.wrapping_sub(low) as usize == layout.len() - 1);
        let clears = empty && dense && self.accum == Accum::Replace && !self.formats.out.is_integer();
        Ok(ConvPlan { op: self, context: *context, kernel, parts, scratch, clears })
    }
}

/// A planned convolution. The gradient of the input of a strided convolution has one part a phase, run one after the other, or all with the first ([`Way::WithFirst`]).
#[derive(Clone, Debug)]
pub struct ConvPlan<'p> {
    op: Convolution,
    context: Context<'p>,
    kernel: Kernel,
    parts: Vec<Part>,
    scratch: Scratch,
    /// Whether phases that no kernel position meets are cleared with all the output, unless an epilogue makes something of them: a phase alone is written element by element.
    clears: bool,
}

impl ConvPlan<'_> {
    /// The kernel that multiplies.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// How each product is executed, part by part.
    pub fn ways(&self) -> impl Iterator<Item = Way> {
        self.parts.iter().map(Part::way)
    }

    /// Which die computes what, part by part. A plan is of the product as it runs: transposed where positions are its rows. Products of floats have the same
    /// bits by any plan and a host runs them in other pieces, faster: their plans are made when first asked for.
    pub fn tile_plans(&self) -> impl Iterator<Item = &TilePlan> {
        self.parts.iter().map(Part::tile_plan)
    }

    /// Scratch for [`run`](Self::run).
    pub fn workspace(&self) -> Workspace {
        Workspace::new(self.scratch.clone())
    }

    /// Runs the convolution on its two operands, in the order of the constructor; weights may be packed before ([`pack_weights`](Self::pack_weights)). Allocates nothing. A padded tap is a zero; of 8-bit integers it is the
    /// zero point. Forward, the weights may have a zero point for each output channel.
    ///
    /// # Errors
    /// [`Error::NotPlanned`] if an operand has another shape, stride or kind of format than planned; [`Error::Packed`] for weights packed by another kind of plan, [`Error::Workspace`] for the
    /// workspace of another; [`Error::Shape`], [`Error::Unsupported`] for an epilogue or zero points that do not fit, or packed weights
    /// on the reference backend. The output is then untouched.
    pub fn run<'a, A: Element, B: Element, C: Element>(
        &self,
        first: View<'a, A>,
        second: impl Into<Weights<'a, B>>,
        mut out: ViewMut<'_, C>,
        epilogue: Epilogue<'a, C>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let second = second.into();
        let op = self.op.direction.op();
        let names = match self.op.direction {
            Direction::Forward | Direction::Transposed => ["x", "w", "y"],
            Direction::BackwardData => ["dy", "w", "dx"],
            Direction::BackwardWeights => ["x", "dy", "dw"],
        };
        check_operand(op, names[0], first.layout(), first.format(), &self.op.first)?;
        check_operand(op, names[2], out.layout(), out.format(), &self.op.out)?;
        check_zero(op, names[0], first.zero(), first.format(), None)?;
        match &second {
            Weights::View(second) => {
                check_operand(op, names[1], second.layout(), second.format(), &self.op.second)?;
                check_zero(op, names[1], second.zero(), second.format(), self.zeros_of_weights())?;
                check_blocks(op, names[1], second, false)?;
            }
            Weights::Packed(packed) => self.check_packed(packed)?,
        }
        check_zero(op, names[2], Zero::Tensor(out.zero()), out.spec().format, None)?;
        check_blocks(op, names[0], &first, false)?;
        epilogue.check(op, &self.op.out, None, self.op.channels())?;
        workspace.check(op, &self.scratch)?;
        if self.context.backend == Backend::Reference {
            let Weights::View(second) = second else { unreachable!("check_packed refuses") };
            let out = Output::new(out, self.op.accum, &epilogue, layout5);
            match self.op.formats.sums {
                Format::F64 => self.reference::<f64, A, B, C>(&first, &second, out),
                Format::I32 => self.reference::<i32, A, B, C>(&first, &second, out),
                _ => self.reference::<f32, A, B, C>(&first, &second, out),
            }
            return Ok(());
        }
        workspace.progress.clear_report();
        let clears = self.clears && epilogue.is_identity();
        if clears {
            let (low, high) = self.op.out.layout.span().expect("it has elements");
            let [from, to] = [low, high].map(|offset| out.start().wrapping_add_signed(offset));
            clear(&mut out.data_mut()[from..=to], &self.context.threads);
        }
        let phases = self.op.phases();
        for (i, (part, phase)) in self.parts.iter().zip(phases.chain(std::iter::repeat([0; 3]))).enumerate() {
            if clears && part.is_empty() || matches!(part.how, How::WithFirst) {
                continue;
            }
            let (transposed, rows) = (part.turn == Turn::Transposed, part.channels());
            // The rows come from the second operand in every direction: the weights, or dy in their gradient.
            let x = source(&first, Side::Rhs, 0);
            let w = match &second {
                Weights::View(second) => source(second, Side::Lhs, rows),
                Weights::Packed(packed) => packed.source(i, rows),
            };
            let (lhs, rhs) = if transposed { (x, w) } else { (w, x) };
            let by_image = part.turn == Turn::ByImage;
            let all_phases = matches!(part.turn, Turn::AllPhases | Turn::AllPhasesByChannel);
            let spec_of = |layout: &Layout| {
                let exchanged = |spec: MatSpec| MatSpec { rows: spec.cols, cols: spec.rows, ..spec };
                let spec = match self.op.direction {
                    _ if all_phases => self.op.images_dst(layout),
                    Direction::Forward => self.op.dst(layout, by_image),
                    Direction::BackwardWeights => self.op.weights_dst(layout),
                    Direction::BackwardData | Direction::Transposed => {
                        self.op.phase_dst(phase, layout, by_image)
                    }
                };
                match part.turn {
                    Turn::AsMade | Turn::ByImage | Turn::AllPhases => spec,
                    Turn::Transposed | Turn::AllPhasesByChannel => exchanged(spec),
                    Turn::ByChannel => {
                        MatSpec { batch: Axis::strided(1, 0), rows: spec.cols, cols: spec.batch, ..spec }
                    }
                }
            };
            // The values of channels begin anew with each group.
            let channel = |values| match part.turn {
                Turn::AsMade => Along::Row(values, rows),
                Turn::Transposed => Along::Col(values, rows),
                Turn::ByImage | Turn::AllPhases => Along::Row(values, 0),
                Turn::ByChannel | Turn::AllPhasesByChannel => Along::Col(values, 0),
            };
            let run = Run { gemm: &part.gemm, lhs, rhs, accum: self.op.accum };
            let epilogue = epilogue.for_kernel(&out.spec(), out.zero(), spec_of, channel, channel);
            let (start, threads) = (out.start(), &self.context.threads);
            let words = C::words_mut(out.rb_mut().into_data());
            let call = Call { run: &run, epilogue: &epilogue, start, threads, workspace };
            match &part.how {
                How::Parts(parts) => {
                    let epilogue = Some(&epilogue).filter(|epilogue| !epilogue.is_identity());
                    parts.run(&run, epilogue, words, start, threads, workspace);
                }
                How::Depthwise(depthwise) => depthwise.run(&call, words),
                How::Phased(phased) => phased.run(&call, words),
                How::Planes(planes) => planes.run(&call, words),
                How::FewPhases(few) => few.run(&call, words),
                How::WithFirst => {}
                How::FewChannels(few) => few.run(&call, words),
                How::WholePlanes(planes) => planes.run(&call, words),
                How::Windows(windowed) => windowed.run(&call, words),
                How::WeightGradient(gradient) => gradient.run(&call, words),
                How::FewInputs(few) => few.run(&call, words),
                How::DotWindows(windows) => windows.run(&call, words),
                How::Bytes(bytes) => bytes.run(&run, &epilogue, words, start, threads, workspace),
                How::Tickets(schedule) => {
                    let mut dst = part.gemm.dst;
                    dst.start += start as isize;
                    schedule.run(&run, &epilogue, words, dst, threads, workspace);
                }
            }
        }
        Ok(())
    }

    /// Of what the weights have a zero point each, where they may have several.
    fn zeros_of_weights(&self) -> Option<(&'static str, usize)> {
        let forward = self.op.direction == Direction::Forward;
        forward.then_some(("output channels", self.op.channels()))
    }

    fn reference<S: Arithmetic, A: Element, B: Element, C: Element>(
        &self,
        first: &View<'_, A>,
        second: &View<'_, B>,
        out: Output<'_, '_, C>,
    ) {
        let g = &self.op.geometry;
        let a = Values::<S>::new(first, layout5(first.layout()));
        let b = Values::<S>::new(second, layout5(second.layout()));
        match self.op.direction {
            Direction::Forward => reference::forward(g, &a, &b, out),
            Direction::BackwardWeights => reference::backward_weights(g, &a, &b, out),
            Direction::BackwardData | Direction::Transposed => reference::backward_data(g, &a, &b, out),
        }
    }
}

/// Plans with the default context and runs once.
fn once<A: Element, B: Element, C: Element>(
    op: Convolution,
    a: View<'_, A>,
    b: View<'_, B>,
    out: ViewMut<'_, C>,
) -> Result<(), Error> {
    let plan = op.plan(&Context::default())?;
    plan.run(a, b, out, Epilogue::default(), &mut plan.workspace())
}

/// `y = conv(x, w)`; see [`Convolution::forward`] for shapes and errors.
///
/// # Errors
/// As there; the output is then untouched.
pub fn forward<A: Element, B: Element, C: Element, const D: usize>(
    x: View<'_, A>,
    w: View<'_, B>,
    y: ViewMut<'_, C>,
    conv: &Conv<D>,
) -> Result<(), Error> {
    once(Convolution::forward(x.spec(), w.spec(), y.spec(), conv)?, x, w, y)
}

/// `dx` from `dy` and `w`; see [`Convolution::backward_data`] for shapes and errors.
///
/// # Errors
/// As there; the output is then untouched.
pub fn backward_data<A: Element, B: Element, C: Element, const D: usize>(
    dy: View<'_, A>,
    w: View<'_, B>,
    dx: ViewMut<'_, C>,
    conv: &Conv<D>,
) -> Result<(), Error> {
    once(Convolution::backward_data(dy.spec(), w.spec(), dx.spec(), conv)?, dy, w, dx)
}

/// `dw` from `x` and `dy`; see [`Convolution::backward_weights`] for shapes and errors.
///
/// # Errors
/// As there; the output is then untouched.
pub fn backward_weights<A: Element, B: Element, C: Element, const D: usize>(
    x: View<'_, A>,
    dy: View<'_, B>,
    dw: ViewMut<'_, C>,
    conv: &Conv<D>,
) -> Result<(), Error> {
    once(Convolution::backward_weights(x.spec(), dy.spec(), dw.spec(), conv)?, x, dy, dw)
}

/// `y = conv_transposed(x, w)`; see [`Convolution::transposed`] for shapes and errors.
///
/// # Errors
/// As there; the output is then untouched.
pub fn transposed<A: Element, B: Element, C: Element, const D: usize>(
    x: View<'_, A>,
    w: View<'_, B>,
    y: ViewMut<'_, C>,
    conv: &Conv<D>,
) -> Result<(), Error> {
    once(Convolution::transposed(x.spec(), w.spec(), y.spec(), conv)?, x, w, y)
}
