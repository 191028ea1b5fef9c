//! The signature: the tile gives the bits of the reference for every instruction set, thread count, layout, batch and epilogue.

mod support;

use proptest::prelude::*;
use support::Real;
use support::{Kind, Laid, assert_same, config, fill, float_contexts, kind, pools, reference};
use tile25::conv::{Conv, Convolution};
use tile25::numerics::KC;
use tile25::{Accum, Act, Context, Epilogue, Error, Layout, Matmul};

/// Extents around the borders of tiles: 0 and 1 more or less than lanes and tiles, or anything small.
fn extent() -> impl Strategy<Value = usize> {
    prop_oneof![
        prop::sample::select(vec![1, 2, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33, 47, 48, 49, 96, 97]),
        1usize..80
    ]
}

fn depth() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => prop::sample::select(vec![0, 1, 2, 7, 8, 9, 33]),
        3 => prop::sample::select(vec![KC - 1, KC, KC + 1, 2 * KC, 2 * KC + 3]),
        2 => 1usize..200
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop::sample::select(vec![Act::None, Act::None, Act::Relu, Act::Gelu, Act::Silu, Act::Tanh, Act::Sigmoid])
}

#[derive(Clone, Debug)]
struct Finish {
    add: bool,
    scale: bool,
    bias: bool,
    residual: bool,
    act: Act,
}

fn finish() -> impl Strategy<Value = Finish> {
    let flag = || prop::bool::weighted(0.3);
    (flag(), flag(), flag(), flag(), act()).prop_map(|(add, scale, bias, residual, act)| Finish {
        add,
        scale,
        bias,
        residual,
        act,
    })
}

impl Finish {
    fn accum(&self) -> Accum {
        if self.add { Accum::Add } else { Accum::Replace }
    }

    fn epilogue<'a, T: Real>(&self, bias: &'a [T], residual: &'a Laid<T>) -> Epilogue<'a, T> {
        let f64_act = !matches!(self.act, Act::None | Act::Relu) && T::FORMAT == tile25::Format::F64;
        Epilogue {
            scale: self.scale.then(|| T::from(0.625).unwrap()),
            bias: self.bias.then_some(bias),
            residual: self.residual.then(|| residual.view()),
            act: if f64_act { Act::Relu } else { self.act },
            ..Epilogue::default()
        }
    }
}

/// Runs one operation by the reference, then in every context, and compares all of the output's memory.
fn compare<T: Real>(out: &Laid<T>, run: impl Fn(&Context<'_>, &mut Laid<T>) -> Result<(), Error>) {
    let mut want = out.clone();
    run(&reference(), &mut want).unwrap();
    let pools = pools();
    for context in float_contexts(&pools) {
        let mut got = out.clone();
        run(&context, &mut got).unwrap();
        assert_same(&got.data, &want.data, || {
            format!("{} on {} threads", context.isa, context.threads.count())
        });
    }
}

#[derive(Clone, Debug)]
struct MatmulCase {
    lead: Vec<(usize, u8)>,
    m: usize,
    n: usize,
    k: usize,
    finish: Finish,
    kind: Kind,
    seed: u64,
}

fn matmul_case() -> impl Strategy<Value = MatmulCase> {
    let lead = prop::collection::vec((1usize..4, 0u8..4), 0..3);
    (lead, extent(), extent(), depth(), finish(), kind(), any::<u64>())
        .prop_map(|(lead, m, n, k, finish, kind, seed)| MatmulCase { lead, m, n, k, finish, kind, seed })
        .prop_filter("small enough for the scalar reference", |case| {
            let batch: usize = case.lead.iter().map(|lead| lead.0).product();
            batch * case.m * case.n * case.k.max(1) < 4_000_000
        })
}

fn matmul_is_the_same<T: Real>(case: &MatmulCase) {
    let dims = |skip: u8, rows: usize, cols: usize| -> Vec<usize> {
        let lead = case.lead.iter().map(|&(extent, repeat)| if repeat == skip { 1 } else { extent });
        lead.chain([rows, cols]).collect()
    };
    let a = Laid::<T>::new(&dims(1, case.m, case.k), case.seed, true, case.kind);
    let b = Laid::<T>::new(&dims(2, case.k, case.n), case.seed ^ 1, true, case.kind);
    let out = Laid::<T>::new(&dims(9, case.m, case.n), case.seed ^ 2, false, case.kind);
    // Where both repeat, the output does not have the extent either.
    let residual = Laid::<T>::new(out.layout.dims(), case.seed ^ 3, true, case.kind);
    let bias: Vec<T> = fill(&mut support::Rng::new(case.seed ^ 4), case.n, case.kind);
    compare(&out, |context, out| {
        let plan = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec())?
            .accum(case.finish.accum())
            .plan(context)?;
        plan.tile_plan().validate().expect("the planner keeps the laws");
        let mut ws = plan.workspace();
        let epilogue = case.finish.epilogue(&bias, &residual);
        let before = out.clone();
        plan.run(a.view(), b.view(), out.view_mut(), epilogue, &mut ws)?;
        if context.backend == tile25::Backend::Tile {
            // Packed weights and a used workspace change nothing.
            let packed = plan.pack_rhs(b.view())?;
            let mut again = before;
            plan.run(a.view(), &packed, again.view_mut(), epilogue, &mut ws)?;
            assert_same(&again.data, &out.data, || "packed rhs".into());
        }
        Ok(())
    });
}

proptest! {
    #![proptest_config(config("matmul", 192))]
    #[test]
    fn matmul_f32(case in matmul_case()) {
        matmul_is_the_same::<f32>(&case);
    }

    #[test]
    fn matmul_f64(case in matmul_case()) {
        matmul_is_the_same::<f64>(&case);
    }
}

/// All m and n up to two tiles and one, for every kernel, at the borders of a segment; the output starts as NaN and Replace must
/// not read it.
#[test]
fn every_edge_of_every_kernel() {
    fn check<T: Real>() {
        for kernel in tile25_kernels::registry::kernels().filter(|kernel| kernel.form == T::SUMS) {
            let (most_m, most_n) = (2 * kernel.mr + 1, 2 * kernel.nr + 1);
            let mut rng = support::Rng::new(7);
            let a: Vec<T> = fill(&mut rng, most_m * (KC + 1), Kind::Smooth);
            let b: Vec<T> = fill(&mut rng, most_n * (KC + 1), Kind::Smooth);
            let context = Context { isa: kernel.isa, threads: tile25::Threads::Seq, ..Context::default() };
            // Short k at every size; the long ones at one row and column of edges.
            for k in [0, 1, KC - 1, KC, KC + 1] {
                // An rhs that is packed, because its columns lie side by side, and one that is read in place. A column keeps its place whatever n is.
                for strides in [[1, k as isize], [most_n as isize, 1]] {
                    let mut want = vec![T::nan(); most_m * most_n];
                    product(&reference(), &a, (&b, strides), &mut want, [most_m, most_n, k]);
                    for m in 1..=most_m {
                        for n in 1..=most_n {
                            if k > 1 && m % kernel.mr > 1 && n % kernel.nr > 1 && (m * n) % 7 != 0 {
                                continue;
                            }
                            let mut got = vec![T::nan(); m * n];
                            product(&context, &a, (&b, strides), &mut got, [m, n, k]);
                            for (i, &got) in got.iter().enumerate() {
                                let want = want[i / n * most_n + i % n]; // N10: m and n change no element
                                let same = support::same(got, want);
                                assert!(same, "{} {m} x {n} x {k} {strides:?}, element {i}", kernel.name);
                            }
                        }
                    }
                }
            }
        }
    }
    fn product<T: Real>(
        context: &Context<'_>,
        a: &[T],
        (b, strides): (&[T], [isize; 2]),
        out: &mut [T],
        [m, n, k]: [usize; 3],
    ) {
        let a = tile25::View::new(a, [m, k]).unwrap();
        let b = tile25::View::strided(b, 0, [k, n], strides).unwrap();
        let out = tile25::ViewMut::new(out, [m, n]).unwrap();
        let plan = Matmul::new(a.spec(), b.spec(), out.spec()).unwrap().plan(context).unwrap();
        plan.run(a, b, out, Epilogue::default(), &mut plan.workspace()).unwrap();
    }
    check::<f32>();
    check::<f64>();
}

/// Rows so far apart that operands do not lie well: the panels that microkernels keep for later, rows and columns asked for ahead, the kernels of few rows.
#[test]
fn operands_from_afar_are_the_same() {
    fn check<T: Real>() {
        const AFAR: usize = 1301;
        let pools = pools();
        let long = KC + 35;
        let mut rng = support::Rng::new(11);
        let data = [0, 1].map(|_| fill::<T>(&mut rng, AFAR * long, Kind::Smooth));
        let bias: Vec<T> = fill(&mut rng, AFAR, Kind::Smooth);
        let shapes = [
            [1, 500, long],
            [2, 70, long],
            [3, 65, 40],
            [4, 130, long],
            [6, 33, long],
            [9, 97, long],
            [29, 150, long],
            [277, 100, long],
        ];
        for [m, n, k] in shapes {
            // (rows, k) of the lhs, (k, columns) of the rhs: side by side, or AFAR from one to the next, or neither.
            for (lhs, rhs) in [
                ([AFAR, 1], [AFAR, 1]),
                ([1, AFAR], [AFAR, 1]),
                ([AFAR, 1], [1, AFAR]),
                ([1, AFAR], [1, AFAR]),
                ([2, AFAR], [AFAR, 2]),
            ] {
                let needs = |[x, y]: [usize; 2], [a, b]: [usize; 2]| (a - 1) * x + (b - 1) * y < AFAR * long;
                if !needs(lhs, [m, k]) || !needs(rhs, [k, n]) {
                    continue;
                }
                let signed = |strides: [usize; 2]| strides.map(|stride| stride as isize);
                let a = tile25::View::strided(&data[0], 0, [m, k], signed(lhs)).unwrap();
                let b = tile25::View::strided(&data[1], 0, [k, n], signed(rhs)).unwrap();
                let run = |context: &Context<'_>, accum: Accum| {
                    let mut out = vec![T::from(0.5).unwrap(); m * n];
                    let view = tile25::ViewMut::new(&mut out, [m, n]).unwrap();
                    let op = Matmul::new(a.spec(), b.spec(), view.spec()).unwrap().accum(accum);
                    let plan = op.plan(context).unwrap();
                    let epilogue = Epilogue { bias: Some(&bias[..n]), act: Act::Relu, ..Epilogue::default() };
                    plan.run(a, b, view, epilogue, &mut plan.workspace()).unwrap();
                    out
                };
                for accum in [Accum::Replace, Accum::Add] {
                    let want = run(&reference(), accum);
                    for context in float_contexts(&pools) {
                        // The scalar fma of the portable token needs a second for a large one.
                        if context.isa.name() == "portable" && m * n > 10_000 {
                            continue;
                        }
                        assert_same(&run(&context, accum), &want, || {
                            let threads = context.threads.count();
                            format!("{m} x {n} x {k} {lhs:?} {rhs:?} on {} and {threads}", context.isa)
                        });
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_row_of_a_batch_is_the_row_alone() {
    let (m, n, k) = (130, 70, KC + 40);
    let a = Laid::<f32>::new(&[m, k], 2, false, Kind::Smooth);
    let b = Laid::<f32>::new(&[k, n], 4, false, Kind::Smooth);
    let mut whole = vec![0f32; m * n];
    tile25::matmul(a.view(), b.view(), tile25::ViewMut::new(&mut whole, [m, n]).unwrap()).unwrap();
    for row in [0, 1, 63, 129] {
        let strides = a.layout.strides().to_vec();
        let start = (a.start as isize + row as isize * strides[0]) as usize;
        let one = tile25::View::strided(&a.data, start, [1, k], strides).unwrap();
        let mut alone = vec![0f32; n];
        tile25::matmul(one, b.view(), tile25::ViewMut::new(&mut alone, [1, n]).unwrap()).unwrap();
        assert_same(&alone, &whole[row * n..][..n], || format!("row {row}"));
    }
}

/// Larger products, through many waves, steps and the chain along k.
#[test]
fn large_products_are_the_same() {
    for (batch, m, n, k) in [
        (1, 300, 1100, 40),
        (1, 37, 29, 40 * KC + 5),
        (3, 64, 20, 9 * KC),
        (40, 30, 50, 33),
        (1, 1, 3000, 700),
    ] {
        let a = Laid::<f32>::new(&[batch, m, k], 6, false, Kind::Smooth);
        let b = Laid::<f32>::new(&[batch, k, n], 8, false, Kind::Smooth);
        let out = Laid::<f32>::new(&[batch, m, n], 10, false, Kind::Smooth);
        for accum in [Accum::Replace, Accum::Add] {
            compare(&out, |context, out| {
                let op = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec())?.accum(accum);
                let plan = op.plan(context)?;
                plan.tile_plan().validate().expect("the planner keeps the laws");
                plan.run(a.view(), b.view(), out.view_mut(), Epilogue::default(), &mut plan.workspace())
            });
        }
    }
}

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
            conv_laid_out::<T, D>(&case, |dims, seed, _| {
                let rest = (0..dims.len()).filter(|&d| d != order);
                let mut strides = vec![0isize; dims.len()];
                let mut span = 1;
                for d in rest.chain([order]).collect::<Vec<_>>().into_iter().rev() {
                    strides[d] = span as isize;
                    span *= dims[d];
                }
                let data = fill(&mut support::Rng::new(seed), span, kind);
                Laid { data, start: 0, layout: Layout::strided(dims, &strides).unwrap() }
            });
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
