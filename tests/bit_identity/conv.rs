//! Convolutions: random ones, and of each way that one can be executed what random shapes are too small for.

use proptest::prelude::*;
use tile25::conv::{Conv, Convolution};
use tile25::{Act, Layout};

use crate::support::{self, Kind, Laid, Real, assert_same, config, fill, kind};
use crate::{Finish, compare, finish};

#[derive(Clone, Debug)]
struct ConvCase<const D: usize> {
    direction: usize,
    batch: usize,
    c_in: usize,
    c_out: usize,
    input: [usize; D],
    kernel: [usize; D],
    conv: Conv<D>,
    finish: Finish,
    kind: Kind,
    seed: u64,
}

fn conv_case<const D: usize>() -> impl Strategy<Value = ConvCase<D>> {
    let small = || prop_oneof![Just(1usize), 1usize..4, 1usize..20];
    let pad = || prop_oneof![6 => 0usize..7, 1 => 7usize..50];
    let dilation = prop_oneof![3 => 1usize..4, 1 => 4usize..30];
    let axis = (1usize..=(40 / (D * D)), 1usize..6, 1usize..4, (pad(), pad()), dilation);
    let channels = (1usize..4, small(), small(), 0usize..4);
    (0usize..4, 1usize..4, channels, prop::collection::vec(axis, D), finish(), kind(), any::<u64>())
        .prop_filter_map(
            "the kernel fits the padded input",
            |(direction, batch, (groups, c_in, c_out, depthwise), axes, finish, kind, seed)| {
                let (groups, c_in, c_out) =
                    if depthwise == 0 { (c_in, 1, c_out.min(3)) } else { (groups, c_in, c_out) };
                let conv = Conv {
                    stride: std::array::from_fn(|d| axes[d].2),
                    padding: std::array::from_fn(|d| axes[d].3),
                    dilation: std::array::from_fn(|d| axes[d].4),
                    groups,
                };
                let input = std::array::from_fn(|d| axes[d].0);
                let kernel = std::array::from_fn(|d| axes[d].1);
                let case = ConvCase {
                    direction,
                    batch,
                    c_in: c_in * groups,
                    c_out: c_out * groups,
                    input,
                    kernel,
                    conv,
                    finish,
                    kind,
                    seed,
                };
                let output = case.output()?;
                let work = batch
                    * c_out
                    * groups
                    * c_in
                    * output.iter().product::<usize>()
                    * kernel.iter().product::<usize>();
                (work < 2_000_000).then_some(case)
            },
        )
}

impl<const D: usize> ConvCase<D> {
    fn output(&self) -> Option<[usize; D]> {
        let mut output = [0; D];
        for (d, output) in output.iter_mut().enumerate() {
            let padded = self.input[d] + self.conv.padding[d].0 + self.conv.padding[d].1;
            *output = padded.checked_sub(self.conv.dilation[d] * (self.kernel[d] - 1) + 1)?
                / self.conv.stride[d]
                + 1;
        }
        Some(output)
    }
}

fn conv_is_the_same<T: Real, const D: usize>(case: &ConvCase<D>) {
    conv_laid_out::<T, D>(case, |dims, seed, input| Laid::new(dims, seed, input, case.kind));
}

fn conv_laid_out<T: Real, const D: usize>(case: &ConvCase<D>, laid: impl Fn(&[usize], u64, bool) -> Laid<T>) {
    let join = |a: usize, b: usize, spatial: &[usize]| -> Vec<usize> {
        [a, b].into_iter().chain(spatial.iter().copied()).collect()
    };
    let x = join(case.batch, case.c_in, &case.input);
    let w = join(case.c_out, case.c_in / case.conv.groups, &case.kernel);
    let y = join(case.batch, case.c_out, &case.output().unwrap());
    let (first, second, out, channels) = match case.direction {
        0 => (&x, &w, &y, case.c_out),
        1 | 3 => (&y, &w, &x, case.c_in),
        _ => (&x, &y, &w, case.c_out),
    };
    let a = laid(first, case.seed, true);
    let b = laid(second, case.seed ^ 1, true);
    let out = laid(out, case.seed ^ 2, false);
    let residual = laid(out.layout.dims(), case.seed ^ 3, true);
    let bias: Vec<T> = fill(&mut support::Rng::new(case.seed ^ 4), channels, case.kind);
    compare(&out, |context, out| {
        let (a_spec, b_spec, out_spec) = (a.view().spec(), b.view().spec(), out.view().spec());
        let op = match case.direction {
            0 => Convolution::forward(a_spec, b_spec, out_spec, &case.conv)?,
            1 => Convolution::backward_data(a_spec, b_spec, out_spec, &case.conv)?,
            2 => Convolution::backward_weights(a_spec, b_spec, out_spec, &case.conv)?,
            _ => Convolution::transposed(a_spec, b_spec, out_spec, &case.conv)?,
        };
        let plan = op.accum(case.finish.accum()).plan(context)?;
        for tile_plan in plan.tile_plans() {
            tile_plan.validate().expect("the planner keeps the laws");
        }
        let epilogue = case.finish.epilogue(&bias, &residual);
        let (mut ws, mut again) = (plan.workspace(), out.clone());
        plan.run(a.view(), b.view(), out.view_mut(), epilogue, &mut ws)?;
        if context.backend == tile25::Backend::Tile && case.direction != 2 {
            let packed = plan.pack_weights(b.view())?;
            plan.run(a.view(), &packed, again.view_mut(), epilogue, &mut ws)?;
            assert_same(&again.data, &out.data, || "packed weights".into());
        }
        Ok(())
    });
}

proptest! {
    #![proptest_config(config("conv", 128))]
    #[test]
    fn conv_1d(case in conv_case::<1>()) {
        conv_is_the_same::<f32, 1>(&case);
    }

    #[test]
    fn conv_2d(case in conv_case::<2>()) {
        conv_is_the_same::<f32, 2>(&case);
    }

    #[test]
    fn conv_2d_f64(case in conv_case::<2>()) {
        conv_is_the_same::<f64, 2>(&case);
    }

    #[test]
    fn conv_3d(case in conv_case::<3>()) {
        conv_is_the_same::<f32, 3>(&case);
    }
}

/// Layers as networks have them, channels last or positions last: few channels on one side, as many groups as channels, or neither; strides of one and two. Random strides and geometry seldom meet the ways
/// that serve these. Of some operands lines or images lie back to front.
fn layer() -> impl Strategy<Value = (usize, [usize; 4], ConvCase<2>)> {
    let few = || 1usize..5;
    let channels = prop_oneof![
        // Whole strips of channels, and others.
        prop_oneof![(1usize..5).prop_map(|strips| 16 * strips), 1usize..70].prop_map(|c| [c, c, c]),
        (few(), 1usize..70).prop_map(|(few, c)| [few, c, 1]),
        (few(), 1usize..70).prop_map(|(few, c)| [c, few, 1]),
        (1usize..40, 1usize..40).prop_map(|(c_in, c_out)| [c_in, c_out, 1]),
    ];
    let back = prop_oneof![Just([0; 4]), prop::array::uniform4(0usize..3)];
    let kernel = prop_oneof![2 => Just(3usize), 1 => Just(5), 2 => 1usize..8];
    let axis = (prop_oneof![1usize..10, 1usize..40], kernel, 1usize..3, 0usize..4, 0usize..4);
    (0usize..4, 1usize..3, channels, [axis.clone(), axis], (0usize..2, back), finish(), kind(), any::<u64>())
        .prop_filter_map(
            "the kernel fits the padded input",
            |(direction, batch, [c_in, c_out, groups], axes, (order, back), finish, kind, seed)| {
                let (input, kernel) = (axes.map(|axis| axis.0), axes.map(|axis| axis.1));
                let padding = axes.map(|(.., low, high)| (low, high));
                let conv = Conv { stride: axes.map(|axis| axis.2), padding, groups, ..Conv::default() };
                let case =
                    ConvCase { direction, batch, c_in, c_out, input, kernel, conv, finish, kind, seed };
                let positions = case.output()?.iter().product::<usize>();
                let work = batch * c_out * (c_in / groups) * positions * kernel.iter().product::<usize>();
                (work < 2_000_000).then_some(([1, 3][order], back, case))
            },
        )
}

proptest! {
    #![proptest_config(config("conv_layers", 128))]
    #[test]
    fn layers_in_both_orders((order, back, case) in layer()) {
        conv_laid_out::<f32, 2>(&case, |dims, seed, _| {
            let Laid { data, start, layout } = in_order(dims, seed, order, case.kind);
            // Axis 2 or 3 of it, from its last element to its first.
            let back = back[(seed ^ case.seed) as usize];
            let mut strides = layout.strides().to_vec();
            let start = if back > 0 { start + (dims[back + 1] - 1) * strides[back + 1] as usize } else { start };
            if back > 0 {
                strides[back + 1] = -strides[back + 1];
            }
            Laid { data, start, layout: Layout::strided(dims, &strides).unwrap() }
        });
    }
}

/// A layer over time, operands and the result planar or channels last: kernels of one element within a plane, as a rule.
fn over_time() -> impl Strategy<Value = ([usize; 2], ConvCase<3>)> {
    let axis = (1usize..9, 1usize..5, 1usize..3, (0usize..5, 0usize..5), 1usize..4);
    let channels = (
        prop_oneof![8usize..20, 8usize..90, 170usize..190],
        prop_oneof![(1usize..4).prop_map(|c| 8 * c), 5usize..20],
    );
    let middle = prop_oneof![3 => Just((1usize, 0usize)), 1 => (1usize..4, 0usize..2)];
    let parts = (0usize..4, 1usize..3, channels, axis, (1usize..7, middle), 1usize..70);
    ([0usize..2, 0usize..2], parts, finish(), kind(), any::<u64>()).prop_filter_map(
        "the kernel fits the padded input",
        |(
            order,
            (
                direction,
                batch,
                (c_in, c_out),
                (depth, taps, stride, pad, dilation),
                (lines, (down, of_lines)),
                width,
            ),
            finish,
            kind,
            seed,
        )| {
            let conv = Conv {
                stride: [stride, 1, 1],
                padding: [pad, (of_lines, of_lines), (0, 0)],
                dilation: [dilation, 1, 1],
                groups: 1,
            };
            let (input, kernel) = ([depth, lines, width], [taps, down, 1]);
            let (c_in, c_out) = if direction == 0 { (c_in, c_out) } else { (c_out, c_in) };
            let case = ConvCase { direction, batch, c_in, c_out, input, kernel, conv, finish, kind, seed };
            let positions = case.output()?.iter().product::<usize>();
            let work = batch * c_out * c_in * positions * taps * down;
            (work < 1_000_000).then_some((order.map(|order| [1, 4][order]), case))
        },
    )
}

proptest! {
    #![proptest_config(config("conv_layers", 64))]
    #[test]
    fn layers_over_time_in_both_orders(([order, of_result], case) in over_time()) {
        conv_laid_out::<f32, 3>(&case, |dims, seed, input| {
            in_order(dims, seed, if input { order } else { of_result }, case.kind)
        });
    }
}

/// With the axis of channels at place `order` of the dims, and no room between elements.
fn in_order<T: Real>(dims: &[usize], seed: u64, order: usize, kind: Kind) -> Laid<T> {
    let rest = (0..dims.len()).filter(|&d| d != order);
    let mut strides = vec![0isize; dims.len()];
    let mut span = 1;
    for d in rest.chain([order]).collect::<Vec<_>>().into_iter().rev() {
        strides[d] = span as isize;
        span *= dims[d];
    }
    let data = fill(&mut support::Rng::new(seed), span, kind);
    Laid { data, start: 0, layout: Layout::strided(dims, &strides).unwrap() }
}

/// Channels last and positions last, with several blocks of positions, panels of channels and segments of k: every way that a convolution can take, where random
/// shapes are too small for most of them.
fn conv_in_both_orders<const D: usize>(
    batch: usize,
    channels: [usize; 2],
    input: [usize; D],
    kernel: [usize; D],
    conv: Conv<D>,
) {
    directions_in_both_orders::<f32, D>(0..3, batch, channels, input, kernel, conv);
}

fn directions_in_both_orders<T: Real, const D: usize>(
    directions: std::ops::Range<usize>,
    batch: usize,
    [c_in, c_out]: [usize; 2],
    input: [usize; D],
    kernel: [usize; D],
    conv: Conv<D>,
) {
    for direction in directions {
        for (order, kind) in [(1, Kind::Smooth), (D + 1, Kind::Smooth), (1, Kind::Wild), (D + 1, Kind::Wild)]
        {
            let plain = Finish { add: false, scale: false, bias: false, residual: false, act: Act::None };
            let all = Finish { add: true, scale: true, bias: direction != 2, residual: true, act: Act::Relu };
            let finish = if kind == Kind::Wild { all } else { plain };
            let seed = 77 + order as u64;
            let case = ConvCase { direction, batch, c_in, c_out, input, kernel, conv, finish, kind, seed };
            conv_laid_out::<T, D>(&case, |dims, seed, _| in_order(dims, seed, order, kind));
        }
    }
}

/// Lines that lie apart in x and y, of one image: no batch of images, though strides look like one.
#[test]
fn lines_that_lie_apart_are_no_images() {
    for batch in [1, 2] {
        for direction in 0..3 {
            let finish =
                Finish { add: true, scale: true, bias: direction != 2, residual: true, act: Act::Relu };
            let (conv, kind) = (padded(1, 0, 1), Kind::Smooth);
            let (c_in, c_out, input, kernel) = (20, 9, [6, 32], [1, 1]);
            let case = ConvCase { direction, batch, c_in, c_out, input, kernel, conv, finish, kind, seed: 3 };
            conv_laid_out::<f32, 2>(&case, |dims, seed, _| {
                let [_, channels, height, width] = *dims else { unreachable!("two spatial axes") };
                let line = width + if width > 1 { 3 } else { 0 };
                let strides =
                    [channels * height * line, height * line, line, 1].map(|stride| stride as isize);
                let len = dims[0] * strides[0] as usize;
                let data = fill(&mut support::Rng::new(seed), len, kind);
                Laid { data, start: 0, layout: Layout::strided(dims, &strides).unwrap() }
            });
        }
    }
}

fn padded<const D: usize>(stride: usize, padding: usize, groups: usize) -> Conv<D> {
    Conv { stride: [stride; D], padding: [(padding, padding); D], groups, ..Conv::default() }
}

#[test]
fn many_channels_in_both_orders() {
    conv_in_both_orders(2, [70, 52], [6, 11], [3, 3], padded(1, 1, 1));
    conv_in_both_orders(1, [17, 50], [25, 26], [3, 3], padded(1, 1, 1));
    conv_in_both_orders(2, [33, 49], [9, 10], [1, 1], padded(1, 0, 1));
    conv_in_both_orders(1, [40, 24], [13, 14], [3, 2], padded(2, 1, 2));
    // Kernels of one element in groups, over many positions; a panel of four whole vectors.
    conv_in_both_orders(1, [36, 66], [12, 13], [1, 1], padded(1, 0, 3));
    conv_in_both_orders(1, [24, 64], [10, 13], [3, 3], padded(1, 1, 1));
}

#[test]
fn few_channels_in_both_orders() {
    conv_in_both_orders(2, [3, 50], [30, 23], [7, 7], padded(2, 3, 1));
    conv_in_both_orders(1, [2, 9], [5, 8, 9], [3, 3, 3], padded(1, 1, 1));
    conv_in_both_orders(1, [20, 5], [8, 7, 9], [3, 1, 2], padded(1, 1, 1));
}

#[test]
fn to_few_channels_in_both_orders() {
    conv_in_both_orders(2, [70, 3], [6, 61], [3, 3], padded(1, 1, 1));
    conv_in_both_orders(1, [3, 40], [33, 34], [5, 5], padded(2, 2, 1));
    conv_in_both_orders(1, [1, 9], [5, 8, 9], [3, 3, 3], padded(1, 1, 1));
    conv_in_both_orders(1, [12, 4], [20000], [3], padded(1, 1, 1));
    // All phases of a stride of two at once, in one block of lines and in several.
    conv_in_both_orders(2, [3, 20], [17, 41], [3, 3], padded(2, 1, 1));
    conv_in_both_orders(1, [4, 9], [40, 38], [7, 7], padded(2, 3, 1));
    conv_in_both_orders(1, [2, 9], [5, 80], [2, 3], padded(2, 0, 1));
    directions_in_both_orders::<f32, 2>(1..2, 1, [3, 64], [100, 86], [3, 3], padded(2, 1, 1));
    let conv = Conv { padding: [(0, 2), (3, 0)], stride: [1, 2], ..Conv::default() };
    directions_in_both_orders::<f32, 2>(1..2, 1, [3, 9], [12, 35], [3, 5], conv);
    directions_in_both_orders::<f32, 1>(1..2, 1, [3, 9], [31], [4], padded(2, 1, 1));
    // Lines with one place of a phase, or none.
    for width in 1..5 {
        directions_in_both_orders::<f32, 2>(1..2, 1, [3, 9], [4, width], [3, 3], padded(2, 1, 1));
    }
}

/// Kernels of one element within a plane: over time, and down the lines of an image.
#[test]
fn kernels_over_time_in_both_orders() {
    fn over<const D: usize>(padding: (usize, usize), stride: usize, dilation: usize) -> Conv<D> {
        let first = |value: usize, other: usize| std::array::from_fn(|d| if d == 0 { value } else { other });
        let padding = std::array::from_fn(|d| if d == 0 { padding } else { (0, 0) });
        Conv { padding, stride: first(stride, 1), dilation: first(dilation, 1), groups: 1 }
    }
    // Of planes in one piece, several at once, the last vector not whole; some of their channels fill no panel.
    conv_in_both_orders(2, [20, 24], [9, 5, 12], [3, 1, 1], over((1, 1), 1, 1));
    conv_in_both_orders(1, [16, 8], [12, 31], [3, 1], over((2, 4), 1, 2));
    conv_in_both_orders(1, [9, 40], [12, 3, 16], [4, 1, 1], over((3, 0), 2, 1));
    // Over several segments, in pieces of a plane, every tap padding somewhere, and all of them.
    conv_in_both_orders(1, [174, 8], [3, 4, 15], [3, 1, 1], over((2, 2), 1, 2));
    conv_in_both_orders(1, [40, 8], [3, 14, 14], [2, 1, 1], over((20, 2), 1, 16));
    conv_in_both_orders(1, [8, 16], [5, 6, 32], [3, 3, 1], over((1, 1), 1, 1));
}

/// Over several segments of positions: strips of channels and others, rows that fill no tile, groups, images that end within a segment, bands of some of the strips.
#[test]
fn gradients_of_weights_in_both_orders() {
    fn check<const D: usize>(
        batch: usize,
        channels: [usize; 2],
        input: [usize; D],
        kernel: [usize; D],
        conv: Conv<D>,
    ) {
        directions_in_both_orders::<f32, D>(2..3, batch, channels, input, kernel, conv);
    }
    check(1, [32, 20], [25, 26], [3, 3], padded(1, 1, 1));
    check(3, [17, 9], [14, 15], [3, 4], padded(1, 2, 1));
    check(2, [48, 24], [40, 41], [3, 3], padded(2, 1, 3));
    check(1, [256, 8], [24, 24], [3, 1], padded(1, 0, 1));
    check(2, [16, 8], [5, 9, 10], [2, 3, 3], padded(1, 1, 1));
    let dilated = Conv { padding: [(4, 0)], dilation: [3], ..Conv::default() };
    check(1, [32, 17], [2000], [5], dilated);
    // Few input channels.
    check(2, [3, 40], [30, 31], [5, 5], padded(2, 2, 1));
    check(1, [2, 33], [5, 12, 13], [3, 3, 3], padded(1, 1, 1));
}

/// Taps far from each other, along every axis: a band holds them apart.
#[test]
fn dilated_kernels_in_both_orders() {
    fn dilated<const D: usize>(dilation: [usize; D], stride: usize, groups: usize) -> Conv<D> {
        Conv { padding: dilation.map(|d| (d, d)), dilation, stride: [stride; D], groups }
    }
    conv_in_both_orders(2, [20, 34], [13, 14], [3, 3], dilated([6, 5], 1, 1));
    conv_in_both_orders(1, [9, 17], [13, 40], [3, 3], dilated([2, 18], 2, 1));
    conv_in_both_orders(1, [20, 18], [9, 5, 6], [3, 3, 1], dilated([4, 1, 1], 1, 1));
    conv_in_both_orders(1, [24, 40], [3000], [2], dilated([512], 1, 1));
    conv_in_both_orders(2, [40, 40], [21, 22], [3, 3], dilated([7, 9], 1, 40));
    conv_in_both_orders(1, [20, 3], [20, 61], [3, 3], dilated([5, 11], 1, 1));
    conv_in_both_orders(1, [3, 20], [20, 61], [3, 3], dilated([5, 11], 1, 1));
}

#[test]
fn a_long_sequence_in_both_orders() {
    let conv = Conv { padding: [(4, 0)], dilation: [2], ..Conv::default() };
    conv_in_both_orders(1, [24, 6], [6000], [3], conv);
    conv_in_both_orders(1, [5, 6], [600], [9], padded(3, 4, 1));
}

#[test]
fn depthwise_in_both_orders() {
    conv_in_both_orders(2, [53, 53], [23, 30], [3, 3], padded(1, 1, 53));
    conv_in_both_orders(1, [100, 100], [15, 14], [5, 5], padded(2, 2, 100));
    conv_in_both_orders(2, [9, 9], [700], [4], padded(1, 0, 9));
    conv_in_both_orders(1, [18, 36], [9, 9], [3, 3], padded(1, 1, 18));
    conv_in_both_orders(1, [40, 40], [16, 15], [7, 7], padded(1, 3, 40));
    conv_in_both_orders(1, [20, 20], [700], [520], padded(1, 0, 20));
    // As many positions as taps.
    conv_in_both_orders(1, [50, 50], [5, 5], [3, 3], padded(1, 0, 50));
}

/// Of whole strips of channels: those are read where they lie, channels last.
#[test]
fn depthwise_in_strips_in_both_orders() {
    conv_in_both_orders(2, [48, 48], [9, 30], [3, 3], padded(1, 1, 48));
    conv_in_both_orders(1, [32, 32], [7, 7], [5, 5], padded(1, 2, 32));
    conv_in_both_orders(1, [32, 32], [15, 37], [3, 3], padded(2, 1, 32));
    conv_in_both_orders(1, [16, 16], [14, 12], [5, 5], padded(2, 2, 16));
    conv_in_both_orders(1, [16, 16], [50, 47], [3, 3], padded(2, 1, 16));
    conv_in_both_orders(2, [16, 16], [8, 21], [7, 7], padded(1, 3, 16));
    conv_in_both_orders(1, [32, 32], [3, 4, 16], [3, 3, 3], padded(1, 1, 32));
    // Three lines of taps that lie at two distances.
    conv_in_both_orders(1, [16, 16], [3, 5, 9], [2, 2, 3], padded(1, 1, 16));
    conv_in_both_orders(1, [16, 16], [300], [2], padded(1, 1, 16));
    // Taps that lie outside from every position, and images narrower than every tile.
    conv_in_both_orders(1, [16, 16], [2, 2], [5, 5], padded(1, 3, 16));
    conv_in_both_orders(1, [16, 16], [4, 1], [3, 3], padded(1, 1, 16));
}

/// Of planes: narrower than a vector and wider than two, higher than a block of lines, of more channels than are brought to sheets at once.
#[test]
fn depthwise_in_planes() {
    fn planes(channels: usize, input: [usize; 2], kernel: [usize; 2], conv: Conv<2>) {
        directions_in_both_orders::<f32, 2>(0..2, 1, [channels; 2], input, kernel, conv);
    }
    planes(35, [7, 7], [3, 3], padded(1, 1, 35));
    // Two lines of 7 in a vector: of one tile, of several, without padding between, of two phases.
    planes(18, [7, 7], [5, 5], padded(1, 2, 18));
    planes(5, [16, 6], [5, 5], padded(1, 2, 5));
    planes(5, [17, 7], [3, 3], padded(1, 0, 5));
    planes(19, [14, 14], [5, 5], padded(2, 2, 19));
    planes(5, [29, 15], [3, 3], padded(2, 1, 5));
    planes(18, [16, 15], [5, 5], padded(1, 2, 18));
    planes(3, [25, 70], [7, 7], padded(1, 3, 3));
    planes(3, [71, 83], [3, 3], padded(1, 1, 3));
    planes(20, [14, 15], [5, 5], padded(2, 2, 20));
    planes(3, [33, 71], [3, 3], padded(2, 1, 3));
    planes(2, [90, 131], [5, 5], padded(2, 2, 2));
    planes(4, [20, 18], [2, 2], padded(2, 0, 4));
    let padding = [(0, 1), (3, 0)];
    planes(5, [18, 21], [3, 3], Conv { padding, stride: [2; 2], groups: 5, ..Conv::default() });
    planes(5, [18, 21], [5, 5], Conv { padding, groups: 5, ..Conv::default() });
    // A line, a column, and taps that all lie outside.
    planes(4, [1, 40], [3, 3], padded(2, 1, 4));
    planes(4, [40, 1], [5, 5], padded(2, 2, 4));
    planes(4, [8, 8], [3, 3], padded(1, 3, 4));
    // Vectors of f64 have half the lanes.
    for (stride, kernel) in [(1, 5), (2, 3)] {
        let conv = padded(stride, kernel / 2, 8);
        directions_in_both_orders::<f64, 2>(0..3, 1, [8; 2], [17, 22], [kernel; 2], conv);
    }
    directions_in_both_orders::<f64, 2>(1..2, 1, [3, 9], [12, 35], [3, 3], padded(2, 1, 1));
}
