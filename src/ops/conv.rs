//! Convolution in one, two and three dimensions: forward, both gradients, transposed.
//!
//! Shapes are PyTorch's: x `[n, c_in, spatial...]`, w `[c_out, c_in / groups, kernel...]`, y `[n, c_out, spatial...]`; channels-last
//! is the same shape with other strides. Along each spatial axis
//! `out = (in + pad_low + pad_high - dilation (kernel - 1) - 1) / stride + 1`, rounded down.
//!
//! Every direction is a matmul between two readers; what differs is the windows, built here:
//!
//! | direction | rows | columns | k |
//! |---|---|---|---|
//! | forward | c_out | batch, output position | kernel position, c_in |
//! | backward data, a phase at a time | c_in | batch, input position of the phase | kernel position of the phase, c_out |
//! | backward weights | c_out | c_in, kernel position | batch, output position |

use std::sync::OnceLock;

use tile25_kernels::axis::{Axis, Dim, NO_BOUND, NO_COORD, Window};
use tile25_kernels::epilogue::Along;
use tile25_kernels::format::{Element, Format};
use tile25_kernels::mat::MatSpec;
use tile25_kernels::pack::{Side, Zero};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::{Scan, ScanAxis};

use crate::backend::depthwise::{Depthwise, Sum};
use crate::backend::parts::Parts;
use crate::backend::reference::{self, Arithmetic, Output, Values};
use crate::backend::schedule::{Gemm, Reader, Schedule};
use crate::backend::tile::Run;
use crate::backend::windows::Windowed;
use crate::context::{Backend, Context};
use crate::epilogue::{Accum, Epilogue};
use crate::error::Error;
pub use crate::geometry::Conv;
use crate::geometry::Geometry;
use crate::layout::Layout;
use crate::ops::operand::{
    check_accum, check_blocks, check_operand, check_zero, formats, grain, kernel, source,
};
use crate::plan::matmul::ONE_DIE_MACS;
use crate::plan::{Formats, Problem, TilePlan, matmul as planner};
use crate::view::{Spec, View, ViewMut};
use crate::workspace::{Scratch, Workspace};

/// What one axis contributes to a window over the input: (dim of positions, dim of taps, origin, bound).
fn input_axis(g: &Geometry, d: usize, tensor_stride: isize) -> (Dim, Dim, isize, isize) {
    let (s, r) = (g.stride[d] as isize, g.dilation[d] as isize);
    let origin = -(g.padding[d].0 as isize);
    let last = g.input_position(d, g.output[d] - 1, g.kernel[d] - 1);
    let inside = origin >= 0 && last < g.input[d] as isize;
    window_axis(d, inside, (g.output[d], s), (g.kernel[d], r), tensor_stride, origin, g.input[d])
}

/// Two dims that move one coordinate; where it never leaves the tensor they are plain and can merge with their neighbours.
fn window_axis(
    d: usize,
    inside: bool,
    positions: (usize, isize),
    taps: (usize, isize),
    tensor_stride: isize,
    origin: isize,
    extent: usize,
) -> (Dim, Dim, isize, isize) {
    let along = if inside { NO_COORD } else { d };
    let dim = |(extent, step): (usize, isize)| Dim {
        extent,
        stride: step * tensor_stride,
        along,
        step: if inside { 0 } else { step },
    };
    let bound = if inside { NO_BOUND } else { extent as isize };
    (dim(positions), dim(taps), if inside { 0 } else { origin }, bound)
}

/// Strides of a tensor brought to rank 5: outer two, then three spatial.
fn strides5(layout: &Layout) -> [isize; 5] {
    let mut strides = [0; 5];
    let spatial = layout.rank() - 2;
    strides[..2].copy_from_slice(&layout.strides()[..2]);
    strides[5 - spatial..].copy_from_slice(&layout.strides()[2..]);
    strides
}

/// A layout brought to rank 5.
fn layout5(layout: &Layout) -> Layout {
    let spatial = layout.rank() - 2;
    let mut dims = [1; 5];
    dims[..2].copy_from_slice(&layout.dims()[..2]);
    dims[5 - spatial..].copy_from_slice(&layout.dims()[2..]);
    Layout::strided(&dims, &strides5(layout)).expect("the layout was checked, dims of extent 1 add nothing")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let gemms = match self.direction {
            Direction::Forward => vec![self.forward_gemm()],
            Direction::BackwardData | Direction::Transposed => self.backward_data_gemms(),
            Direction::BackwardWeights => vec![(self.backward_weights_gemm(), self.scan())],
        };
        let mut scratch = Scratch::default();
        let parts = gemms.into_iter().map(|(gemm, scan)| {
            let part = Part::new(gemm, &scan, self.direction, kernel, context);
            scratch.merge(&part.scratch());
            part
        });
        let parts = parts.collect();
        Ok(ConvPlan { op: self, context: *context, kernel, parts, scratch })
    }

    fn problem(&self, batch: usize, m: usize, n: usize, k: usize) -> Problem {
        Problem { formats: self.formats, batch, m, n, k }
    }

    /// How a convolution and the gradient of its weights go over the input.
    fn scan(&self) -> Scan {
        let (g, x) = (&self.geometry, strides5(&self.first.layout));
        Scan {
            start: 0,
            images: (g.batch, x[0]),
            channels: (g.c_in_per_group(), x[1]),
            axes: std::array::from_fn(|d| ScanAxis {
                positions: g.output[d],
                step: g.stride[d] as isize,
                taps: g.kernel[d],
                tap_step: g.dilation[d] as isize,
                origin: -(g.padding[d].0 as isize),
                size: g.input[d],
                stride: x[d + 2],
            }),
        }
    }

    fn forward_gemm(&self) -> (Gemm, Scan) {
        let g = &self.geometry;
        let (x, w) = (strides5(&self.first.layout), strides5(&self.second.layout));
        let (c_in, c_out) = (g.c_in_per_group(), g.c_out_per_group());
        let scan = self.scan();
        let taps = |d: usize| Dim::plain(g.kernel[d], w[d + 2]);
        let gemm = Gemm {
            problem: self.problem(g.groups, c_out, g.batch * product(g.output), product(g.kernel) * c_in),
            lhs: Reader {
                window: Window::plain(
                    0,
                    Axis::strided(c_out, w[0]),
                    Axis::new(&[taps(0), taps(1), taps(2), Dim::plain(c_in, w[1])]),
                ),
                batch: Axis::strided(g.groups, c_out as isize * w[0]),
            },
            rhs: Reader { window: scan.window(), batch: Axis::strided(g.groups, c_in as isize * x[1]) },
            dst: self.dst(&self.out.layout, false),
        };
        (gemm, scan)
    }

    /// One product a phase: the input positions that lie alike modulo the stride meet the same kernel positions.
    fn backward_data_gemms(&self) -> Vec<(Gemm, Scan)> {
        let g = &self.geometry;
        let (dy, w) = (strides5(&self.first.layout), strides5(&self.second.layout));
        let (c_in, c_out) = (g.c_in_per_group(), g.c_out_per_group());
        self.phases()
            .map(|phase| {
                let mut start_w = 0;
                let mut taps_w = [Dim::plain(1, 0); 3];
                let axes: [_; 3] = std::array::from_fn(|d| {
                    let (taps, first, period) = g.phase_taps(d, phase[d]);
                    let shift = (g.phase_first(d, phase[d]) + g.padding[d].0) as isize
                        - (first * g.dilation[d]) as isize;
                    start_w += first as isize * w[d + 2];
                    taps_w[d] = Dim::plain(taps, period as isize * w[d + 2]);
                    ScanAxis {
                        positions: g.phase_extent(d, phase[d]),
                        step: 1,
                        // A phase without kernel positions has a k of 0, and nothing is read.
                        taps: taps.max(1),
                        tap_step: -((period * g.dilation[d] / g.stride[d]) as isize),
                        origin: shift.div_euclid(g.stride[d] as isize),
                        size: g.output[d],
                        stride: dy[d + 2],
                    }
                });
                let scan = Scan { start: 0, images: (g.batch, dy[0]), channels: (c_out, dy[1]), axes };
                let taps: usize = taps_w.iter().map(|dim| dim.extent).product();
                let gemm = Gemm {
                    problem: self.problem(g.groups, c_in, scan.rows(), taps * c_out),
                    lhs: Reader {
                        window: Window::plain(
                            start_w,
                            Axis::strided(c_in, w[1]),
                            Axis::new(&[taps_w[0], taps_w[1], taps_w[2], Dim::plain(c_out, w[0])]),
                        ),
                        batch: Axis::strided(g.groups, c_out as isize * w[0]),
                    },
                    rhs: Reader {
                        window: scan.window(),
                        batch: Axis::strided(g.groups, c_out as isize * dy[1]),
                    },
                    dst: self.phase_dst(phase, &self.out.layout, false),
                };
                (gemm, scan)
            })
            .collect()
    }

    /// The phases that have input positions.
    fn phases(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let g = self.geometry;
        let all = (0..g.stride[0])
            .flat_map(move |a| (0..g.stride[1]).flat_map(move |b| (0..g.stride[2]).map(move |c| [a, b, c])));
        all.filter(move |phase| (0..3).all(|d| g.phase_extent(d, phase[d]) > 0))
    }

    fn backward_weights_gemm(&self) -> Gemm {
        let g = &self.geometry;
        let (x, dy) = (strides5(&self.first.layout), strides5(&self.second.layout));
        let (c_in, c_out) = (g.c_in_per_group(), g.c_out_per_group());
        let axes: [_; 3] = std::array::from_fn(|d| input_axis(g, d, x[d + 2]));
        let start = (0..3).map(|d| -(g.padding[d].0 as isize) * x[d + 2]).sum();
        let positions = |d: usize| Dim::plain(g.output[d], dy[d + 2]);
        let channel = Dim::plain(c_in, x[1]);
        let taps = axes.map(|axis| axis.1);
        let cols = self.weight_order(channel, taps);
        Gemm {
            problem: self.problem(g.groups, c_out, c_in * product(g.kernel), g.batch * product(g.output)),
            lhs: Reader {
                window: Window::plain(
                    0,
                    Axis::strided(c_out, dy[1]),
                    Axis::new(&[Dim::plain(g.batch, dy[0]), positions(0), positions(1), positions(2)]),
                ),
                batch: Axis::strided(g.groups, c_out as isize * dy[1]),
            },
            rhs: Reader {
                window: Window {
                    start,
                    x: Axis::new(&cols),
                    k: Axis::new(&[Dim::plain(g.batch, x[0]), axes[0].0, axes[1].0, axes[2].0]),
                    origin: axes.map(|axis| axis.2),
                    bounds: axes.map(|axis| axis.3),
                },
                batch: Axis::strided(g.groups, c_in as isize * x[1]),
            },
            dst: self.weights_dst(&self.out.layout),
        }
    }

    /// Columns of the weight gradient in the order in which its output lies: channel innermost or kernel position innermost.
    fn weight_order<A: Copy>(&self, channel: A, taps: [A; 3]) -> [A; 4] {
        let strides = strides5(&self.out.layout);
        let channel_inside =
            (2..5).all(|d| self.geometry.kernel[d - 2] == 1 || strides[1].abs() <= strides[d].abs());
        if channel_inside {
            [taps[0], taps[1], taps[2], channel]
        } else {
            [channel, taps[0], taps[1], taps[2]]
        }
    }

    /// Where the elements of an output lie: channels as rows, positions as columns. Groups are the batch and images a part of the columns or, of a
    /// single group, images are the batch.
    fn dst(&self, layout: &Layout, by_image: bool) -> MatSpec {
        let (g, y) = (&self.geometry, strides5(layout));
        let spatial = std::array::from_fn(|d| Dim::plain(g.output[d], y[d + 2]));
        self.positions(0, g.c_out_per_group(), &y, spatial, by_image)
    }

    /// The same for the positions of a phase.
    fn phase_dst(&self, phase: [usize; 3], layout: &Layout, by_image: bool) -> MatSpec {
        let (g, dx) = (&self.geometry, strides5(layout));
        let start = (0..3).map(|d| g.phase_first(d, phase[d]) as isize * dx[d + 2]).sum();
        let spatial = std::array::from_fn(|d| {
            Dim::plain(g.phase_extent(d, phase[d]), g.stride[d] as isize * dx[d + 2])
        });
        self.positions(start, g.c_in_per_group(), &dx, spatial, by_image)
    }

    fn positions(
        &self,
        start: isize,
        channels: usize,
        strides: &[isize; 5],
        [a, b, c]: [Dim; 3],
        by_image: bool,
    ) -> MatSpec {
        let images = Dim::plain(self.geometry.batch, strides[0]);
        let (batch, outer) = match by_image {
            true => (Axis::new(&[images]), Dim::plain(1, 0)),
            false => (Axis::strided(self.geometry.groups, channels as isize * strides[1]), images),
        };
        MatSpec {
            start,
            batch,
            rows: Axis::strided(channels, strides[1]),
            cols: Axis::new(&[outer, a, b, c]),
        }
    }

    fn weights_dst(&self, layout: &Layout) -> MatSpec {
        let (g, dw) = (&self.geometry, strides5(layout));
        let tap = |d: usize| Dim::plain(g.kernel[d], dw[d + 2]);
        let cols = self.weight_order(Dim::plain(g.c_in_per_group(), dw[1]), [tap(0), tap(1), tap(2)]);
        MatSpec {
            start: 0,
            batch: Axis::strided(g.groups, g.c_out_per_group() as isize * dw[0]),
            rows: Axis::strided(g.c_out_per_group(), dw[0]),
            cols: Axis::new(&cols),
        }
    }

    /// Channels of the output: what a bias has one value for.
    fn channels(&self) -> usize {
        match self.direction {
            Direction::Forward | Direction::BackwardWeights => self.geometry.c_out,
            Direction::BackwardData | Direction::Transposed => self.geometry.c_in,
        }
    }
}

fn product(extents: [usize; 3]) -> usize {
    extents.iter().product()
}

/// Lanes of the widest vector. Images whose positions leave an eighth of them idle are not multiplied one by one.
const LANES_AT_MOST: usize = 16;

/// Who executes a product.
#[derive(Clone, Debug)]
enum How {
    Parts(Box<Parts>),
    Windows(Box<Windowed>),
    Depthwise(Box<Depthwise>),
    Tickets(Box<Schedule>),
}

/// What the indices of a product are that is executed. As it is made, groups are the batch, channels rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    AsMade,
    /// Rows and columns exchanged.
    Transposed,
    /// One group: images are the batch.
    ByImage,
    /// One channel a group: columns are rows, groups are columns.
    ByChannel,
}

#[derive(Clone, Debug)]
struct Part {
    gemm: Gemm,
    turn: Turn,
    kernel: Kernel,
    threads: usize,
    how: How,
    /// Made when first asked for, unless it is walked.
    tile_plan: OnceLock<TilePlan>,
}

impl Part {
    /// Plans a product that goes over its input as `scan` says.
    fn new(gemm: Gemm, scan: &Scan, direction: Direction, kernel: Kernel, context: &Context<'_>) -> Self {
        let threads = if gemm.problem.macs() <= ONE_DIE_MACS { 1 } else { context.threads.count() };
        let part = |gemm, turn, how| Part { gemm, turn, kernel, threads, how, tile_plan: OnceLock::new() };
        let of_weights = direction == Direction::BackwardWeights;
        let sum = if of_weights { Sum::Positions } else { Sum::Taps };
        if let Some(depthwise) = Depthwise::new(&gemm, scan, sum, kernel, threads) {
            return part(gemm, Turn::ByChannel, How::Depthwise(Box::new(depthwise)));
        }
        if of_weights {
            if let Some(parts) = Parts::new(&gemm, kernel, threads) {
                return part(gemm, Turn::AsMade, How::Parts(Box::new(parts)));
            }
        } else {
            if let Some((gemm, parts)) = Self::of_images(&gemm, kernel, threads) {
                let turn = if gemm.problem.batch > 1 { Turn::ByImage } else { Turn::AsMade };
                return part(gemm, turn, How::Parts(Box::new(parts)));
            }
            let of_positions = gemm.transposed();
            if let Some(windowed) = Windowed::new(&of_positions, *scan, kernel, threads) {
                return part(of_positions, Turn::Transposed, How::Windows(Box::new(windowed)));
            }
        }
        let (gemm, turn) = match gemm.prefers_transposed() {
            true => (gemm.transposed(), Turn::Transposed),
            false => (gemm, Turn::AsMade),
        };
        let tile_plan = planner::plan(gemm.problem, grain(kernel), threads);
        let how = How::Tickets(Box::new(Schedule::new(&tile_plan, kernel, threads)));
        Part { gemm, turn, kernel, threads, how, tile_plan: tile_plan.into() }
    }

    /// A product for each image, where all of one lie in memory as matrices that are read and written in place.
    fn of_images(gemm: &Gemm, kernel: Kernel, threads: usize) -> Option<(Gemm, Parts)> {
        let mut gemm = *gemm;
        if gemm.problem.batch > 1 {
            return None;
        }
        if let (&[of_x, x], &[of_y, y]) = (gemm.rhs.window.x.dims(), gemm.dst.cols.dims()) {
            let images = of_x.extent;
            if of_y.extent != images {
                return None;
            }
            (gemm.problem.batch, gemm.problem.n) = (images, gemm.problem.n / images);
            gemm.lhs.batch = Axis::strided(images, 0);
            gemm.rhs.batch = Axis::strided(images, of_x.stride);
            gemm.dst.batch = Axis::strided(images, of_y.stride);
            (gemm.rhs.window.x, gemm.dst.cols) = (Axis::new(&[x]), Axis::new(&[y]));
        }
        let n = gemm.problem.n;
        if n.next_multiple_of(LANES_AT_MOST) * 8 > n * 9 {
            return None;
        }
        let parts = Parts::new(&gemm, kernel, threads)?;
        parts.reads_in_place().then_some((gemm, parts))
    }

    fn scratch(&self) -> Scratch {
        match &self.how {
            How::Parts(parts) => parts.scratch(),
            How::Windows(windowed) => windowed.scratch(),
            How::Depthwise(depthwise) => depthwise.scratch(),
            How::Tickets(schedule) => schedule.scratch().clone(),
        }
    }

    fn tile_plan(&self) -> &TilePlan {
        self.tile_plan.get_or_init(|| planner::plan(self.gemm.problem, grain(self.kernel), self.threads))
    }
}

/// A planned convolution. The gradient of the input of a strided convolution has one part a phase, run one after the other.
#[derive(Clone, Debug)]
pub struct ConvPlan<'p> {
    op: Convolution,
    context: Context<'p>,
    kernel: Kernel,
    parts: Vec<Part>,
    scratch: Scratch,
}

impl ConvPlan<'_> {
    /// The kernel that multiplies.
    pub fn kernel(&self) -> Kernel {
        self.kernel
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

    /// Runs the convolution on its two operands, in the order of the constructor. Allocates nothing. A padded tap is a zero; of 8-bit integers it is the
    /// zero point. Forward, the weights may have a zero point for each output channel.
    ///
    /// # Errors
    /// [`Error::NotPlanned`] if an operand has another shape, stride or kind of format than planned; [`Error::Workspace`] for that of
    /// another plan; [`Error::Shape`], [`Error::Unsupported`] for an epilogue or zero points that do not fit. The output is then untouched.
    pub fn run<'a, A: Element, B: Element, C: Element>(
        &self,
        first: View<'a, A>,
        second: View<'a, B>,
        mut out: ViewMut<'_, C>,
        epilogue: Epilogue<'a, C>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let op = self.op.direction.op();
        let names = match self.op.direction {
            Direction::Forward | Direction::Transposed => ["x", "w", "y"],
            Direction::BackwardData => ["dy", "w", "dx"],
            Direction::BackwardWeights => ["x", "dy", "dw"],
        };
        check_operand(op, names[0], first.layout(), first.format(), &self.op.first)?;
        check_operand(op, names[1], second.layout(), second.format(), &self.op.second)?;
        check_operand(op, names[2], out.layout(), out.format(), &self.op.out)?;
        let forward = self.op.direction == Direction::Forward;
        let per_channel = forward.then_some(("output channels", self.op.channels()));
        check_zero(op, names[0], first.zero(), first.format(), None)?;
        check_zero(op, names[1], second.zero(), second.format(), per_channel)?;
        check_zero(op, names[2], Zero::Tensor(out.zero()), out.spec().format, None)?;
        check_blocks(op, names[0], &first, false)?;
        check_blocks(op, names[1], &second, false)?;
        epilogue.check(op, &self.op.out, None, self.op.channels())?;
        workspace.check(op, &self.scratch)?;
        if self.context.backend == Backend::Reference {
            let out = Output::new(out, self.op.accum, &epilogue, layout5);
            match self.op.formats.sums {
                Format::F64 => self.reference::<f64, A, B, C>(&first, &second, out),
                Format::I32 => self.reference::<i32, A, B, C>(&first, &second, out),
                _ => self.reference::<f32, A, B, C>(&first, &second, out),
            }
            return Ok(());
        }
        workspace.progress.clear_report();
        let phases = self.op.phases();
        for (part, phase) in self.parts.iter().zip(phases.chain(std::iter::repeat([0; 3]))) {
            let transposed = part.turn == Turn::Transposed;
            let rows = if transposed { part.gemm.problem.n } else { part.gemm.problem.m };
            // The rows come from the second operand in every direction: the weights, or dy in their gradient.
            let (x, w) = (source(&first, Side::Rhs, 0), source(&second, Side::Lhs, rows));
            let (lhs, rhs) = if transposed { (x, w) } else { (w, x) };
            let by_image = part.turn == Turn::ByImage;
            let spec_of = |layout: &Layout| {
                let spec = match self.op.direction {
                    Direction::Forward => self.op.dst(layout, by_image),
                    Direction::BackwardWeights => self.op.weights_dst(layout),
                    Direction::BackwardData | Direction::Transposed => {
                        self.op.phase_dst(phase, layout, by_image)
                    }
                };
                match part.turn {
                    Turn::AsMade | Turn::ByImage => spec,
                    Turn::Transposed => MatSpec { rows: spec.cols, cols: spec.rows, ..spec },
                    Turn::ByChannel => {
                        MatSpec { batch: Axis::strided(1, 0), rows: spec.cols, cols: spec.batch, ..spec }
                    }
                }
            };
            // The values of channels begin anew with each group.
            let channel = |values| match part.turn {
                Turn::AsMade => Along::Row(values, rows),
                Turn::Transposed => Along::Col(values, rows),
                Turn::ByImage => Along::Row(values, 0),
                Turn::ByChannel => Along::Col(values, 0),
            };
            let run = Run { gemm: &part.gemm, lhs, rhs, accum: self.op.accum };
            let epilogue = epilogue.for_kernel(&out.spec(), out.zero(), spec_of, channel, channel);
            let (start, threads) = (out.start(), &self.context.threads);
            let words = C::words_mut(out.rb_mut().into_data());
            match &part.how {
                How::Parts(parts) => {
                    let epilogue = Some(&epilogue).filter(|epilogue| !epilogue.is_identity());
                    parts.run(&run, epilogue, words, start, threads, workspace);
                }
                How::Depthwise(depthwise) => depthwise.run(&run, &epilogue, words, start, threads, workspace),
                How::Windows(windowed) => windowed.run(&run, &epilogue, words, start, threads, workspace),
                How::Tickets(schedule) => {
                    let mut dst = part.gemm.dst;
                    dst.start += start as isize;
                    schedule.run(&run, &epilogue, words, dst, threads, workspace);
                }
            }
        }
        Ok(())
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
