//! One product of a convolution, and who executes it.

use std::sync::OnceLock;

use tile25_kernels::axis::Axis;
use tile25_kernels::format::Format;
use tile25_kernels::isa::is_amd;
use tile25_kernels::pack::Form;
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;

use crate::backend::block::{LANES_AT_MOST, fills_lanes};
use crate::backend::depthwise::{Depthwise, Phased, Sum};
use crate::backend::dot_parts::DotParts;
use crate::backend::dot_windows::DotWindows;
use crate::backend::few_channels::Few;
use crate::backend::few_inputs::FewInputs;
use crate::backend::few_phases::FewPhases;
use crate::backend::fork::worth;
use crate::backend::parts::Parts;
use crate::backend::planes::Planar;
use crate::backend::schedule::{Gemm, Schedule};
use crate::backend::weight_gradient::WeightGradient;
use crate::backend::whole_planes::OfWholePlanes;
use crate::backend::windows::Windowed;
use crate::context::Context;
use crate::epilogue::Accum;
use crate::ops::operand::{grain, kernel};
use crate::plan::{Problem, TilePlan, matmul as planner};
use crate::workspace::Scratch;

use super::Direction;

/// Who executes a product.
#[derive(Clone, Debug)]
pub(super) enum How {
    Parts(Box<Parts>),
    Windows(Box<Windowed>),
    Depthwise(Box<Depthwise>),
    Phased(Box<Phased>),
    Planes(Box<Planar>),
    FewPhases(Box<FewPhases>),
    /// With the first, which computes all phases.
    WithFirst,
    FewChannels(Box<Few>),
    WholePlanes(Box<OfWholePlanes>),
    WeightGradient(Box<WeightGradient>),
    FewInputs(Box<FewInputs>),
    Bytes(Box<DotParts>),
    DotWindows(Box<DotWindows>),
    Tickets(Box<Schedule>),
}

/// How a product of a convolution is executed. All ways have the same bits; shapes and layouts decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// A matmul, operands in place: planar 1 x 1 image by image, and the gradient of the weights of kernels of one element or over few positions, whose input is packed through the window.
    Matmul,
    /// Positions are rows, read in place through the window: channels last.
    Windows,
    /// The same from a band of some lines, channels innermost: planar, with few channels, or of narrow floats.
    WindowsOfBands,
    /// Lanes are channels, the input read in place: depthwise, whole strips of channels side by side.
    Depthwise,
    /// The same from a band of some strips of channels, as f32 where the input is narrow.
    DepthwiseOfBands,
    /// Lanes are positions along a line, a plane at a time: depthwise of f32, positions side by side.
    DepthwiseOfPlanes,
    /// Lanes are positions along a line: a result of few channels.
    FewChannels,
    /// Lanes are positions, the input read in place: planar, kernels of one element within a plane, such as those over time.
    WholePlanes,
    /// The gradient of the weights, kernels of several elements: k goes over positions of a band, from which kernel positions and channels are read.
    WeightGradient,
    /// 8-bit integers, a part of the result a thread: rows read in place or, with AMX, copied through the window, columns packed.
    Bytes,
    /// 8-bit integers, bf16 or f32 line by line from a band: positions are rows, the distance from one to the next is known. The dot products of AVX-512 have it.
    DotWindows,
    /// A phase of a gradient of the input that is computed with the first.
    WithFirst,
    /// Along a tile plan, ticket by ticket: what the others leave, such as gradients of the weights of narrow formats.
    Tickets,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Way::Matmul => "matmul",
            Way::Windows => "windows",
            Way::WindowsOfBands => "windows of bands",
            Way::Depthwise => "depthwise",
            Way::DepthwiseOfBands => "depthwise of bands",
            Way::DepthwiseOfPlanes => "depthwise of planes",
            Way::FewChannels => "few channels",
            Way::WholePlanes => "whole planes",
            Way::WeightGradient => "weight gradient",
            Way::Bytes => "bytes",
            Way::DotWindows => "dot windows",
            Way::WithFirst => "with the first",
            Way::Tickets => "tickets",
        })
    }
}

/// What the indices of a product are that is executed. As it is made, groups are the batch, channels rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    AsMade,
    /// Rows and columns exchanged.
    Transposed,
    /// One group: images are the batch.
    ByImage,
    /// One channel a group: columns are rows, groups are columns.
    ByChannel,
    /// All phases at once: images are the batch, channels of all groups rows, the positions of all phases columns.
    AllPhases,
    /// The same, rows and columns exchanged.
    AllPhasesByChannel,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) gemm: Gemm,
    pub(super) turn: Turn,
    kernel: Kernel,
    threads: usize,
    pub(super) how: How,
    /// Made when first asked for, unless it is walked.
    tile_plan: OnceLock<TilePlan>,
}

/// Positions from which on kernels of one element are a product of matrices, whose weights are kept for all of them. Granite Rapids, through a window and
/// as matrices: 256 to 128 channels @56 76 and 83 % of the peak, 1024 to 256 @14 74 and 77; of 49 positions, 2048 to 512 @7, 58 and 54.
const MATRIX_FROM: usize = 128;

/// The share of padding from which on a window that leaves it out is faster than lines that multiply it. Zen 4, percent of the peak, by lines and by windows, channels last and planar: 128 to 128
/// channels 3 x 3 @6 x 12 (0.16) 94 and 104, 90 and 99; 512 to 512 @14, stride 2 (0.09) 68 and 73, 70 and 74; 256 to 256 @14 (0.09) 92 both, 89 and 91; 64 to 64 @13 x 24 (0.08) 94 and 92, 86 and 85; 128 to 128 @28
/// (0.05) 95 and 94, 93.5 and 92.5.
const PADDING_FROM: f64 = 1.0 / 12.0;

/// The kernel of a depthwise product, whose channels are lanes: neighbours along k have no dot product there.
pub(super) fn of_lanes(kernel: Kernel, context: &Context<'_>) -> Kernel {
    match kernel.form {
        Form::F32 | Form::F64 => kernel,
        _ => self::kernel(context, Format::F32, Format::F32),
    }
}

impl Part {
    /// Plans a product that goes over its input as `scan` says.
    pub(super) fn new(
        gemm: Gemm,
        scan: &Scan,
        direction: Direction,
        accum: Accum,
        kernel: Kernel,
        context: &Context<'_>,
    ) -> Self {
        let threads = worth(gemm.problem.macs(), context.threads.count());
        let part = |gemm, turn, how| Part { gemm, turn, kernel, threads, how, tile_plan: OnceLock::new() };
        let of_weights = direction == Direction::BackwardWeights;
        let sum = if of_weights { Sum::Positions } else { Sum::Taps };
        let of_lanes = of_lanes(kernel, context);
        let adds = accum == Accum::Add;
        if let Some(depthwise) = Depthwise::new(&gemm, scan, sum, adds, of_lanes, threads) {
            return part(gemm, Turn::ByChannel, How::Depthwise(Box::new(depthwise)));
        }
        if of_weights {
            let of_inputs = gemm.transposed();
            if let Some(few) = FewInputs::new(&of_inputs, scan, kernel, threads) {
                return part(of_inputs, Turn::Transposed, How::FewInputs(Box::new(few)));
            }
            if let Some(gradient) = WeightGradient::new(&gemm, scan, kernel, threads) {
                return part(gemm, Turn::AsMade, How::WeightGradient(Box::new(gradient)));
            }
            if let Some(parts) = Parts::new(&gemm, kernel, threads) {
                return part(gemm, Turn::AsMade, How::Parts(Box::new(parts)));
            }
        } else {
            if let Some((gemm, parts)) = Self::of_images(&gemm, scan.images.0, kernel, threads) {
                let turn = if gemm.problem.batch > 1 { Turn::ByImage } else { Turn::AsMade };
                return part(gemm, turn, How::Parts(Box::new(parts)));
            }
            if let Some(few) = Few::new(&gemm, scan, kernel, threads) {
                return part(gemm, Turn::AsMade, How::FewChannels(Box::new(few)));
            }
            if let Some(by_image) = Self::by_image(&gemm, scan.images.0).filter(|_| gemm.problem.batch == 1)
                && let Some(planes) = OfWholePlanes::new(&by_image, scan, kernel, threads)
            {
                let turn = if by_image.problem.batch > 1 { Turn::ByImage } else { Turn::AsMade };
                return part(by_image, turn, How::WholePlanes(Box::new(planes)));
            }
            let of_positions = gemm.transposed();
            let plain = of_positions.problem.m >= MATRIX_FROM && of_positions.lhs.window.is_plain();
            let parts = if plain { Parts::new(&of_positions, kernel, threads) } else { None };
            if let Some(parts) = parts.filter(Parts::reads_lhs_in_place) {
                return part(of_positions, Turn::Transposed, How::Parts(Box::new(parts)));
            }
            // A narrow input is widened on its way to a band, each element once: kernels of one element read it once anyway, and as matrices they took 0.8 to 1.0 of the time where there are positions
            // enough (Emerald Rapids, bf16, ResNet-50); 3 x 3 the band 0.6 to 0.95.
            let formats = of_positions.problem.formats;
            let matrices = formats.lhs != formats.sums
                && of_positions.problem.m >= MATRIX_FROM
                && scan.axes.iter().all(|axis| axis.taps == 1);
            if Self::lines_pay(&of_positions, scan, kernel)
                && let Some(windows) = DotWindows::new(&of_positions, *scan, kernel, threads)
            {
                return part(of_positions, Turn::Transposed, How::DotWindows(Box::new(windows)));
            }
            if !matrices && let Some(windowed) = Windowed::new(&of_positions, *scan, kernel, threads) {
                return part(of_positions, Turn::Transposed, How::Windows(Box::new(windowed)));
            }
        }
        let made = gemm;
        let (gemm, turn) = match gemm.prefers_transposed() {
            true => (gemm.transposed(), Turn::Transposed),
            false => (gemm, Turn::AsMade),
        };
        // The gradient of the weights has positions for k: its rows are not side by side. Few rows or columns a group leave most of a tile idle. In panels of both sides
        // parts were 0.73 to 1.13 times as fast as tickets with kernels of 3 x 3, 0.97 to 1.17 times of one element (Granite Rapids held to the dot product).
        if !of_weights
            && gemm.problem.m.min(gemm.problem.n) >= LANES_AT_MOST
            && let Some(bytes) = DotParts::new(&gemm, kernel, threads).filter(DotParts::reads_bytes)
        {
            return part(gemm, turn, How::Bytes(Box::new(bytes)));
        }
        // Of many groups of few channels most of a panel would be idle. Planes are turned byte by byte on their way to a band, which kernels of one element do not pay back: ResNet-50 on Emerald
        // Rapids 0.23 to 0.97 times as fast as tickets, 3 x 3 1.3 to 2.5 times.
        let pays = scan.channels.1 == 1 || scan.axes.iter().any(|axis| axis.taps > 1);
        let of_positions = if turn == Turn::Transposed { gemm } else { gemm.transposed() };
        if !of_weights
            && pays
            && (of_positions.problem.batch == 1 || of_positions.problem.n >= LANES_AT_MOST)
            && let Some(windows) = DotWindows::new(&of_positions, *scan, kernel, threads)
        {
            return part(of_positions, Turn::Transposed, How::DotWindows(Box::new(windows)));
        }
        // What is left of bf16, such as an odd number of channels, is rather widened on its way to a band, each element once, than packed once a kernel position. ResNet-50 on Zen 5, the first layer 88 % of the
        // f32 peak, by tickets 17; 64 to 64 channels 3 x 3 @56 91 and 47.
        if !of_weights && kernel.form == Form::Bf16x2 && scan.axes.iter().any(|axis| axis.taps > 1) {
            return Part::new(made, scan, direction, accum, of_lanes, context);
        }
        let tile_plan = planner::plan(gemm.problem, grain(kernel), threads);
        let how = How::Tickets(Box::new(Schedule::new(&tile_plan, kernel, threads)));
        Part { gemm, turn, kernel, threads, how, tile_plan: tile_plan.into() }
    }

    /// The first of products that are computed at once, or another.
    pub(super) fn of_all(gemm: Gemm, how: How, kernel: Kernel, context: &Context<'_>) -> Self {
        let threads = worth(gemm.problem.macs(), context.threads.count());
        let turn = if matches!(how, How::Phased(_)) { Turn::AllPhasesByChannel } else { Turn::AllPhases };
        Part { gemm, turn, kernel, threads, how, tile_plan: OnceLock::new() }
    }

    /// Whether f32 is multiplied line by line from a band rather than through a window that looks up every row ([`Windowed`]). Of few channels rows are short, and of few columns tiles are taller. Zen 5, percent of the
    /// peak, by windows and by lines: 3 to 32 channels 3 x 3 s2 @224 50 and 64, 3 to 64 7 x 7 s2 87 and 92; others, measured there alone: 256 to 256 3 x 3 @14 82 and 86, planar 78 and 83, 64 to 32 of 1 x 3 x 3 77
    /// and 86; but of 49 positions, 512 to 512 @7, 64 and 60, and channels last of single taps 82 and 70 (benches/record/2026-11-28-zen5.md). Taps that go backward, channels last, since lines leave out padding, Zen 4: 64 to 64 1 x 3 x 3
    /// @13 x 24 90 and 97, 128 to 128 @28 95 and 94.5.
    fn lines_pay(of_positions: &Gemm, scan: &Scan, kernel: Kernel) -> bool {
        let Problem { batch, m, n, .. } = of_positions.problem;
        let (channels, across) = (scan.channels, scan.axes[2]);
        let (few, narrow) = (channels.0 < LANES_AT_MOST, n <= LANES_AT_MOST);
        let taps = channels.1 != 1 || across.taps >= 3 && across.tap_step.abs() == 1;
        kernel.form == Form::F32
            && (batch == 1 || n >= LANES_AT_MOST)
            && (few || narrow || is_amd() && taps && m >= MATRIX_FROM && scan.padding() < PADDING_FROM)
    }

    /// A product for each image, where all of one lie in memory as matrices that are read and written in place.
    fn of_images(gemm: &Gemm, images: usize, kernel: Kernel, threads: usize) -> Option<(Gemm, Parts)> {
        let mut gemm = *gemm;
        if gemm.problem.batch > 1 {
            return None;
        }
        if let (&[_, _], &[_, _]) = (gemm.rhs.window.x.dims(), gemm.dst.cols.dims()) {
            // Rows of an image that lie apart are not images.
            gemm = Self::by_image(&gemm, images).filter(|_| images > 1)?;
        }
        if !fills_lanes(gemm.problem.n) {
            return None;
        }
        let parts = Parts::new(&gemm, kernel, threads)?;
        parts.reads_in_place().then_some((gemm, parts))
    }

    /// The same of one group, images the batch; `None` if a result or an input of several lies otherwise.
    fn by_image(gemm: &Gemm, images: usize) -> Option<Gemm> {
        if images == 1 {
            return Some(*gemm);
        }
        let (&[of_x, ref x @ ..], &[of_y, ref y @ ..]) = (gemm.rhs.window.x.dims(), gemm.dst.cols.dims())
        else {
            return None;
        };
        if [of_x.extent, of_y.extent] != [images; 2] || x.is_empty() || y.is_empty() {
            return None;
        }
        let mut by_image = *gemm;
        (by_image.problem.batch, by_image.problem.n) = (images, gemm.problem.n / images);
        by_image.lhs.batch = Axis::strided(images, 0);
        by_image.rhs.batch = Axis::strided(images, of_x.stride);
        by_image.dst.batch = Axis::strided(images, of_y.stride);
        (by_image.rhs.window.x, by_image.dst.cols) = (Axis::new(x), Axis::new(y));
        Some(by_image)
    }

    pub(super) fn scratch(&self) -> Scratch {
        match &self.how {
            How::Parts(parts) => parts.scratch(),
            How::Windows(windowed) => windowed.scratch(),
            How::Depthwise(depthwise) => depthwise.scratch(),
            How::Phased(phased) => phased.scratch(),
            How::Planes(planes) => planes.scratch(),
            How::FewPhases(few) => few.scratch(),
            How::WithFirst => Scratch::default(),
            How::FewChannels(few) => few.scratch(),
            How::WholePlanes(planes) => planes.scratch(),
            How::WeightGradient(gradient) => gradient.scratch(),
            How::FewInputs(few) => few.scratch(),
            How::Bytes(bytes) => bytes.scratch().clone(),
            How::DotWindows(windows) => windows.scratch(),
            How::Tickets(schedule) => schedule.scratch().clone(),
        }
    }

    /// Whether its sums are of nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.gemm.problem.k == 0
    }

    /// Output channels of a group: rows of the product as it was made.
    pub(super) fn channels(&self) -> usize {
        if self.turn == Turn::Transposed { self.gemm.problem.n } else { self.gemm.problem.m }
    }

    pub(super) fn way(&self) -> Way {
        match &self.how {
            How::Parts(_) => Way::Matmul,
            How::Windows(windowed) if windowed.reads_in_place() => Way::Windows,
            How::Windows(_) => Way::WindowsOfBands,
            How::Depthwise(depthwise) if depthwise.reads_in_place() => Way::Depthwise,
            How::Depthwise(_) => Way::DepthwiseOfBands,
            How::Phased(phased) if phased.reads_in_place() => Way::Depthwise,
            How::Phased(_) => Way::DepthwiseOfBands,
            How::Planes(_) => Way::DepthwiseOfPlanes,
            How::FewPhases(_) => Way::FewChannels,
            How::WithFirst => Way::WithFirst,
            How::FewChannels(_) => Way::FewChannels,
            How::WholePlanes(_) => Way::WholePlanes,
            How::WeightGradient(_) | How::FewInputs(_) => Way::WeightGradient,
            How::Bytes(_) => Way::Bytes,
            How::DotWindows(_) => Way::DotWindows,
            How::Tickets(_) => Way::Tickets,
        }
    }

    pub(super) fn tile_plan(&self) -> &TilePlan {
        self.tile_plan.get_or_init(|| planner::plan(self.gemm.problem, grain(self.kernel), self.threads))
    }
}
