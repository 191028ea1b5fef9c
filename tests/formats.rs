//! Every format: the tile gives the bits of the reference for each pair with a kernel of its own and for a sample of the others, narrowed in every way.

mod support;

use num_traits::NumCast;
use proptest::prelude::*;
use support::{Draw, Laid, Rng, assert_same_codes, config, contexts, draw, pools, reference};
use tile25::conv::{Conv, Convolution};
use tile25::format::{
    CFloat, CFloat8E4M3, CFloat8E5M2, CFloat16Shp, CFloat16Uhp, Element, Format, Fp8E4M3, Fp8E5M2, Narrow,
    Overflow, Rounding, Subnormals, bf16, f16,
};
use tile25::numerics::KC;
use tile25::{Accum, Act, Context, Epilogue, Error, Matmul, Report, View, ViewMut};
use tile25_kernels::format::Target;
use tile25_kernels::pack::Form;

/// The format of `T`, its parameters drawn.
fn tuned<T: Element>(rng: &mut Rng) -> Format {
    let subnormals = if rng.below(2) == 0 { Subnormals::Dojo } else { Subnormals::Ieee };
    let c = CFloat::new(rng.below(64) as u8).unwrap().with_subnormals(subnormals);
    match T::FORMAT {
        Format::CFloat8E4M3(_) => Format::CFloat8E4M3(c),
        Format::CFloat8E5M2(_) => Format::CFloat8E5M2(c),
        Format::CFloat16Shp(_) => Format::CFloat16Shp(c),
        other => other,
    }
}

/// Runs one operation by the reference, then in every context, and compares all of the output's memory.
fn compare<T: Element>(out: &Laid<T>, run: impl Fn(&Context<'_>, &mut Laid<T>) -> Result<(), Error>) {
    let mut want = out.clone();
    run(&reference(), &mut want).unwrap();
    let pools = pools();
    for context in contexts(&pools) {
        let mut got = out.clone();
        run(&context, &mut got).unwrap();
        let what = || format!("{} on {} threads", context.isa, context.threads.count());
        assert_same_codes(&got.data, &want.data, what);
    }
}

#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    draw: Draw,
    add: bool,
    scaled: [bool; 3],
    bias: bool,
    residual: bool,
    act: Act,
    narrow: Narrow,
    zeros: [u8; 2],
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let extent = || prop_oneof![prop::sample::select(vec![1usize, 6, 8, 9, 16, 17, 48, 49, 97]), 1usize..70];
    let depth = prop_oneof![
        2 => prop::sample::select(vec![0usize, 1, 2, 3, 4, 5, 31, 33]),
        2 => prop::sample::select(vec![KC - 1, KC, KC + 3, 2 * KC + 1, 4 * KC - 1, 4 * KC + 2]),
        1 => 1usize..200
    ];
    let draw = prop_oneof![3 => Just(Draw::Smooth), 2 => Just(Draw::Wide), 1 => Just(Draw::Codes)];
    let flag = || prop::bool::weighted(0.3);
    let act = prop::sample::select(vec![Act::None, Act::None, Act::Relu, Act::Gelu, Act::Silu]);
    let rounding =
        prop_oneof![Just(Rounding::Nearest), any::<u64>().prop_map(|seed| Rounding::Stochastic { seed })];
    let overflow = prop_oneof![Just(Overflow::Ieee), Just(Overflow::Saturate)];
    let narrow = (rounding, overflow).prop_map(|(rounding, overflow)| Narrow { rounding, overflow });
    let shape = (1usize..3, extent(), extent(), depth);
    let flags = (flag(), [flag(), flag(), flag()], flag(), flag());
    (shape, draw, flags, act, narrow, [0u8..3, 0u8..3], any::<u64>())
        .prop_map(|((batch, m, n, k), draw, (add, scaled, bias, residual), act, narrow, zeros, seed)| Case {
            batch,
            m,
            n,
            k,
            draw,
            add,
            scaled,
            bias,
            residual,
            act,
            narrow,
            zeros,
            seed,
        })
        .prop_filter("small enough for the scalar reference", |case| {
            case.batch * case.m * case.n * case.k.max(1) < 1_000_000
        })
}

/// Parameters of an epilogue.
struct Params<P> {
    scale: P,
    rows: Vec<P>,
    channels: Vec<P>,
    bias: Vec<P>,
}

impl<P: NumCast> Params<P> {
    fn new(rng: &mut Rng, rows: usize, channels: usize) -> Self {
        let mut value = || P::from((rng.next() >> 40) as f64 / (1u64 << 23) as f64 - 1.0).unwrap();
        Params {
            scale: value(),
            rows: (0..rows).map(|_| value()).collect(),
            channels: (0..channels).map(|_| value()).collect(),
            bias: (0..channels).map(|_| value()).collect(),
        }
    }
}

impl Case {
    /// The epilogue, as far as the output's format has one.
    fn epilogue<'a, T: Element>(
        &self,
        params: &'a Params<T::Param>,
        residual: View<'a, T>,
        with_rows: bool,
    ) -> Epilogue<'a, T> {
        if T::FORMAT == Format::I32 {
            return Epilogue { narrow: self.narrow, ..Epilogue::default() };
        }
        let act = if T::FORMAT == Format::F64 && self.act != Act::None { Act::Relu } else { self.act };
        Epilogue {
            scale: self.scaled[0].then_some(params.scale),
            row_scales: (self.scaled[1] && with_rows).then_some(&params.rows),
            channel_scales: self.scaled[2].then_some(&params.channels),
            bias: self.bias.then_some(&params.bias),
            residual: self.residual.then_some(residual),
            act,
            narrow: self.narrow,
        }
    }

    fn accum(&self, lhs: Format, out: Format) -> Accum {
        let can = if lhs.is_integer() { out == Format::I32 } else { !out.is_integer() };
        if self.add && can { Accum::Add } else { Accum::Replace }
    }
}

/// Zero points of `n` rows, columns or channels.
fn zeros(rng: &mut Rng, format: Format, n: usize) -> Vec<i32> {
    let low = if format == Format::I8 { -128 } else { 0 };
    (0..n).map(|_| low + rng.below(256) as i32).collect()
}

/// The view with no zero point, one, or one for each.
fn with_zeros<'a, T: Element>(view: View<'a, T>, zeros: &'a [i32], how: u8) -> View<'a, T> {
    match how {
        _ if !view.format().is_integer() => view,
        0 => view,
        1 => view.zero_point(zeros[0]),
        _ => view.zero_points(zeros),
    }
}

fn matmul_is_the_same<A: Element, B: Element, C: Element>(case: &Case) {
    let rng = &mut Rng::new(case.seed);
    let (fa, fb, fc) = (tuned::<A>(rng), tuned::<B>(rng), tuned::<C>(rng));
    let Case { batch, m, n, k, .. } = *case;
    let a = Laid::<A>::drawn(&[batch, m, k], case.seed, true, |rng| draw(rng, fa, case.draw));
    let b = Laid::<B>::drawn(&[batch, k, n], case.seed ^ 1, true, |rng| draw(rng, fb, case.draw));
    let out = Laid::<C>::drawn(&[batch, m, n], case.seed ^ 2, false, |rng| draw(rng, fc, case.draw));
    let residual = Laid::<C>::drawn(&[batch, m, n], case.seed ^ 3, true, |rng| draw(rng, fc, case.draw));
    let params = Params::<C::Param>::new(rng, m, n);
    let (za, zb, zc) = (zeros(rng, fa, m), zeros(rng, fb, n), zeros(rng, fc, 1));
    compare(&out, |context, out| {
        let lhs = with_zeros(a.view().with_format(fa)?, &za, case.zeros[0]);
        let rhs = with_zeros(b.view().with_format(fb)?, &zb, case.zeros[1]);
        let residual = with_zeros(residual.view().with_format(fc)?, &zc, (fc != Format::I32) as u8);
        let epilogue = case.epilogue(&params, residual, true);
        let target = |out: &mut Laid<C>, run: &mut dyn FnMut(ViewMut<'_, C>) -> Result<(), Error>| {
            let view = out.view_mut().with_format(fc)?;
            run(if fc.is_integer() && fc != Format::I32 { view.zero_point(zc[0]) } else { view })
        };
        // Planned for the default bias, run with another: it belongs to the tensor.
        let op = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec())?.accum(case.accum(fa, fc));
        let plan = op.plan(context)?;
        plan.tile_plan().validate().expect("the planner keeps the laws");
        let mut ws = plan.workspace();
        let mut again = out.clone();
        target(out, &mut |out| plan.run(lhs, rhs, out, epilogue, &mut ws))?;
        if context.backend == tile25::Backend::Tile {
            let packed = plan.pack_rhs(rhs)?;
            target(&mut again, &mut |out| plan.run(lhs, &packed, out, epilogue, &mut ws))?;
            assert_same_codes(&again.data, &out.data, || "packed rhs".into());
        }
        Ok(())
    });
}

/// One test a pair: lhs, rhs, result.
macro_rules! matmuls {
    ($($name:ident: $a:ty, $b:ty => $c:ty;)*) => {
        proptest! {
            #![proptest_config(config("formats", 40))]
            $(#[test]
            fn $name(case in case()) {
                matmul_is_the_same::<$a, $b, $c>(&case);
            })*
        }
    };
}

matmuls! {
    // With a kernel of their own.
    bf16_to_f32: bf16, bf16 => f32;
    bf16_to_bf16: bf16, bf16 => bf16;
    cfloat8_to_cfloat8: CFloat8E4M3, CFloat8E5M2 => CFloat8E4M3;
    fp8_to_bf16: Fp8E4M3, Fp8E5M2 => bf16;
    bf16_by_fp8_to_fp8: bf16, Fp8E4M3 => Fp8E4M3;
    fp8_by_cfloat8_to_f32: Fp8E5M2, CFloat8E4M3 => f32;
    i8_to_i32: i8, i8 => i32;
    u8_by_i8_to_i8: u8, i8 => i8;
    i8_by_u8_to_f32: i8, u8 => f32;
    u8_to_u8: u8, u8 => u8;
    i8_to_bf16: i8, i8 => bf16;
    // Widened to f32 or f64.
    f16_to_f16: f16, f16 => f16;
    f32_by_bf16_to_f32: f32, bf16 => f32;
    f32_to_cfloat8: f32, f32 => CFloat8E5M2;
    f32_to_fp8: f32, f32 => Fp8E5M2;
    f16_by_f32_to_bf16: f16, f32 => bf16;
    shp_by_f16_to_shp: CFloat16Shp, f16 => CFloat16Shp;
    uhp_by_cfloat8_to_uhp: CFloat16Uhp, CFloat8E5M2 => CFloat16Uhp;
    f64_by_bf16_to_f64: f64, bf16 => f64;
    cfloat8_by_f64_to_f64: CFloat8E4M3, f64 => f64;
}

fn block_scaled_is_the_same<A: Element, B: Element, C: Element>(case: &Case, blocks: [usize; 4]) {
    let rng = &mut Rng::new(case.seed);
    let Case { batch, m, n, k, .. } = *case;
    let a = Laid::<A>::drawn(&[batch, m, k], case.seed, true, |rng| draw(rng, A::FORMAT, case.draw));
    let b = Laid::<B>::drawn(&[batch, k, n], case.seed ^ 1, true, |rng| draw(rng, B::FORMAT, case.draw));
    let out = Laid::<C>::drawn(&[batch, m, n], case.seed ^ 2, false, |rng| draw(rng, C::FORMAT, case.draw));
    let mut scales = |rows: usize, cols: usize, [r, c]: [usize; 2]| -> Vec<f32> {
        (0..rows.div_ceil(r) * cols.div_ceil(c)).map(|_| draw(rng, Format::F32, Draw::Wide)).collect()
    };
    let [ar, ac, br, bc] = blocks;
    let (sa, sb) = (scales(m, k, [ar, ac]), scales(k, n, [br, bc]));
    compare(&out, |context, out| {
        let lhs = a.view().block_scales(&sa, ar, ac);
        // One scaled operand by a plain one, or both.
        let rhs = if B::FORMAT == Format::F32 { b.view() } else { b.view().block_scales(&sb, br, bc) };
        let op = Matmul::new(lhs.spec(), rhs.spec(), out.view().spec())?.block_scaled();
        let plan = op.accum(case.accum(A::FORMAT, C::FORMAT)).plan(context)?;
        let mut ws = plan.workspace();
        let mut again = out.clone();
        let epilogue = Epilogue { narrow: case.narrow, ..Epilogue::default() };
        plan.run(lhs, rhs, out.view_mut(), epilogue, &mut ws)?;
        if context.backend == tile25::Backend::Tile {
            let packed = plan.pack_rhs(rhs)?;
            plan.run(lhs, &packed, again.view_mut(), epilogue, &mut ws)?;
            assert_same_codes(&again.data, &out.data, || "packed rhs".into());
        }
        Ok(())
    });
}

/// Extents of the blocks of both operands.
fn blocks() -> impl Strategy<Value = [usize; 4]> {
    let extent = || prop_oneof![Just(1usize), Just(32usize), Just(128usize), 1usize..300];
    [extent(), extent(), extent(), extent()]
}

proptest! {
    #![proptest_config(config("formats", 40))]
    #[test]
    fn block_scaled_fp8(case in case(), blocks in blocks()) {
        block_scaled_is_the_same::<Fp8E4M3, Fp8E5M2, bf16>(&case, blocks);
    }

    #[test]
    fn block_scaled_cfloat8_by_f32(case in case(), blocks in blocks()) {
        block_scaled_is_the_same::<CFloat8E4M3, f32, f32>(&case, blocks);
    }
}

fn conv_is_the_same<A: Element, B: Element, C: Element>(case: &Case) {
    let rng = &mut Rng::new(case.seed ^ 77);
    let (fa, fb, fc) = (tuned::<A>(rng), tuned::<B>(rng), tuned::<C>(rng));
    let mut pick = |n: usize| rng.below(n);
    let direction = pick(4);
    // A third of them depthwise.
    let (groups, c_in, c_out) = match pick(3) {
        0 => (19, 19, 19),
        groups => (groups, groups * (1 + pick(9)), groups * (1 + pick(20))),
    };
    let conv = Conv::<2> {
        stride: [1 + pick(2), 1 + pick(3)],
        padding: [(pick(3), pick(3)), (pick(3), pick(3))],
        dilation: [1 + pick(2), 1 + pick(2)],
        groups,
    };
    let kernel = [1 + pick(3), 1 + pick(4)];
    let input = [8 + pick(6), 9 + pick(7)];
    let output: [usize; 2] = std::array::from_fn(|d| {
        let padded = input[d] + conv.padding[d].0 + conv.padding[d].1;
        (padded - conv.dilation[d] * (kernel[d] - 1) - 1) / conv.stride[d] + 1
    });
    let x = [case.batch, c_in, input[0], input[1]];
    let w = [c_out, c_in / groups, kernel[0], kernel[1]];
    let y = [case.batch, c_out, output[0], output[1]];
    let (first, second, out, channels) = match direction {
        0 => (x, w, y, c_out),
        1 | 3 => (y, w, x, c_in),
        _ => (x, y, w, c_out),
    };
    let a = Laid::<A>::drawn(&first, case.seed, true, |rng| draw(rng, fa, case.draw));
    let b = Laid::<B>::drawn(&second, case.seed ^ 1, true, |rng| draw(rng, fb, case.draw));
    let out = Laid::<C>::drawn(&out, case.seed ^ 2, false, |rng| draw(rng, fc, case.draw));
    let residual = Laid::<C>::drawn(out.layout.dims(), case.seed ^ 3, true, |rng| draw(rng, fc, case.draw));
    let params = Params::<C::Param>::new(rng, 1, channels);
    let (za, zb, zc) = (zeros(rng, fa, 1), zeros(rng, fb, c_out), zeros(rng, fc, 1));
    compare(&out, |context, out| {
        let lhs = with_zeros(a.view().with_format(fa)?, &za, case.zeros[0].min(1));
        // One zero point an output channel belongs to the weights of a forward convolution.
        let most = if direction == 0 { 2 } else { 1 };
        let rhs = with_zeros(b.view().with_format(fb)?, &zb, case.zeros[1].min(most));
        let residual = with_zeros(residual.view().with_format(fc)?, &zc, (fc != Format::I32) as u8);
        let epilogue = case.epilogue(&params, residual, false);
        let (a, b) = (lhs.spec(), rhs.spec());
        let c = tile25::Spec { format: fc, layout: out.layout };
        let op = match direction {
            0 => Convolution::forward(a, b, c, &conv)?,
            1 => Convolution::backward_data(a, b, c, &conv)?,
            2 => Convolution::backward_weights(a, b, c, &conv)?,
            _ => Convolution::transposed(a, b, c, &conv)?,
        };
        let plan = op.accum(case.accum(fa, fc)).plan(context)?;
        let view = out.view_mut().with_format(fc)?;
        let view = if fc.is_integer() && fc != Format::I32 { view.zero_point(zc[0]) } else { view };
        plan.run(lhs, rhs, view, epilogue, &mut plan.workspace())
    });
}

/// One test a pair of formats, every direction in it.
macro_rules! convolutions {
    ($($name:ident: $a:ty, $b:ty => $c:ty;)*) => {
        proptest! {
            #![proptest_config(config("formats", 40))]
            $(#[test]
            fn $name(case in case()) {
                conv_is_the_same::<$a, $b, $c>(&case);
            })*
        }
    };
}

convolutions! {
    conv_bf16_to_bf16: bf16, bf16 => bf16;
    conv_cfloat8_to_cfloat8: CFloat8E4M3, CFloat8E5M2 => CFloat8E5M2;
    conv_fp8_by_bf16_to_f32: Fp8E5M2, bf16 => f32;
    conv_f32_by_bf16_to_f32: f32, bf16 => f32;
    conv_u8_by_i8_to_u8: u8, i8 => u8;
    conv_i8_to_i32: i8, i8 => i32;
    conv_f16_to_f16: f16, f16 => f16;
}

/// bf16 values of one exponent, signs and mantissas drawn; `f` changes some of them.
fn of_exponent(exponent: i32, len: usize, seed: u64, f: impl Fn(usize, u16) -> u16) -> Vec<bf16> {
    let mut rng = Rng::new(seed);
    (0..len)
        .map(|i| {
            let code =
                ((exponent + 127) as u16) << 7 | (rng.next() & 0x7f) as u16 | (rng.next() as u16 & 0x8000);
            bf16::from_bits(f(i, code))
        })
        .collect()
}

/// The exponent guard from both sides: where the least exponents allow it the dot product multiplies, elsewhere the widening kernel, with the bits of
/// the reference on both.
#[test]
fn the_exponent_guard_keeps_the_bits() {
    let (m, n, k) = (37, 100, KC + 70);
    type Change = fn(usize, u16) -> u16;
    let plain: Change = |_, code| code;
    let with_zeros: Change = |i, code| if i % 3 == 0 { code & 0x8000 } else { code };
    let one_subnormal: Change = |i, code| if i == 777 { 0x0003 } else { code };
    let all_subnormal: Change = |i, code| if i % 2 == 0 { code & 0x807f } else { code };
    let one_tiny: Change = |i, code| if i == 40 * KC { 0x0080 } else { code };
    let infinite: Change = |i, code| if i % 501 == 0 { 0x7f80 } else { code };
    // Exponents of both operands, what changes in the lhs, and which pairs of panels are widened: none, some, all.
    let cases = [
        (-56, -56, plain, 0),
        (-56, -57, plain, 2),
        (0, 0, with_zeros, 0),
        (-100, -12, with_zeros, 0),
        (-100, -13, with_zeros, 2),
        (0, 0, one_subnormal, 1),
        (126, 0, all_subnormal, 2),
        (0, 0, one_tiny, 1),
        (100, 50, plain, 0),
        (127, -1, infinite, 0),
        (-126, 14, plain, 0),
        (-126, 13, plain, 2),
    ];
    for (at, (ea, eb, change, widened)) in cases.into_iter().enumerate() {
        let a = of_exponent(ea, m * k, at as u64, change);
        let b = of_exponent(eb, k * n, at as u64 + 99, plain);
        let run = |context: &Context<'_>| -> (Vec<f32>, Report, Form) {
            let mut out = vec![0f32; m * n];
            let (a, b) = (View::new(&a, [m, k]).unwrap(), View::new(&b, [k, n]).unwrap());
            let c = ViewMut::new(&mut out, [m, n]).unwrap();
            let plan = Matmul::new(a.spec(), b.spec(), c.spec()).unwrap().plan(context).unwrap();
            let mut ws = plan.workspace();
            plan.run(a, b, c, Epilogue::default(), &mut ws).unwrap();
            (out, ws.report(), plan.kernel().form)
        };
        let (want, _, _) = run(&reference());
        let pools = pools();
        for context in contexts(&pools) {
            let (got, report, form) = run(&context);
            assert_same_codes(&got, &want, || format!("case {at} on {}", context.isa));
            let expected = match (form, widened) {
                (Form::Bf16x2, 0) => report.panel_pairs > 0 && report.widened_pairs == 0,
                (Form::Bf16x2, 1) => (1..report.panel_pairs).contains(&report.widened_pairs),
                (Form::Bf16x2, _) => report.panel_pairs > 0 && report.widened_pairs == report.panel_pairs,
                _ => report == Report::default(),
            };
            assert!(expected, "case {at} on {}: {report:?}", context.isa);
        }
    }
}

/// A few rows by a matrix that lies well are multiplied where they lie: strips of every width, the last a part of a vector, an odd k, rows of every number.
#[test]
fn a_few_rows_read_in_place_are_the_same() {
    fn check<A: Element, B: Element, C: Element<Param = f32>>(draws: [Draw; 2]) {
        let pools = pools();
        let mut rng = Rng::new(17);
        for [batch, m, n, k] in [
            [1, 1, 700, 70],
            [1, 2, 901, KC + 3],
            [2, 3, 443, 2 * KC + 1],
            [1, 4, 375, 33],
            [3, 5, 90, 20],
            [1, 3, 7, 1],
            [1, 2, 64, 9],
            [1, 4, 95, 300],
            // Parts of columns for threads, the last of them narrow.
            [1, 3, 257, 3 * KC],
            [1, 4, 1030, 2 * KC],
        ] {
            let a: Vec<A> = (0..batch * m * k).map(|_| draw(&mut rng, A::FORMAT, draws[0])).collect();
            let b: Vec<B> = (0..batch * k * n).map(|_| draw(&mut rng, B::FORMAT, draws[1])).collect();
            let old: Vec<C> = (0..batch * m * n).map(|_| draw(&mut rng, C::FORMAT, Draw::Smooth)).collect();
            let bias: Vec<f32> = (0..n).map(|i| i as f32 / 64.0 - 2.0).collect();
            let (za, zb) = (3, if B::FORMAT == Format::U8 { 7 } else { -7 });
            let per_column = vec![zb; n];
            for how in 0..4 {
                let run = |context: &Context<'_>| {
                    let mut out = old.clone();
                    let a = View::new(&a, [batch, m, k]).unwrap();
                    let b = View::new(&b, [batch, k, n]).unwrap();
                    let (a, b) = match how {
                        _ if !A::FORMAT.is_integer() => (a, b),
                        0 => (a, b),
                        1 => (a.zero_point(za), b),
                        2 => (a.zero_point(za), b.zero_point(zb)),
                        _ => (a, b.zero_points(&per_column)),
                    };
                    let c = ViewMut::new(&mut out, [batch, m, n]).unwrap();
                    let accum = if how % 2 == 1 { Accum::Add } else { Accum::Replace };
                    let plan = Matmul::new(a.spec(), b.spec(), c.spec())
                        .unwrap()
                        .accum(accum)
                        .plan(context)
                        .unwrap();
                    let biased = how >= 2 && !A::FORMAT.is_integer();
                    let epilogue = Epilogue { bias: biased.then_some(&bias[..]), ..Epilogue::default() };
                    plan.run(a, b, c, epilogue, &mut plan.workspace()).unwrap();
                    out
                };
                let want = run(&reference());
                for context in contexts(&pools) {
                    assert_same_codes(&run(&context), &want, || {
                        let threads = context.threads.count();
                        format!("{batch} x {m} x {n} x {k}, {how}, on {} and {threads}", context.isa)
                    });
                }
            }
        }
    }
    for draw in [Draw::Smooth, Draw::Wide, Draw::Codes] {
        check::<bf16, bf16, f32>([draw; 2]);
    }
    check::<i8, i8, i32>([Draw::Codes; 2]);
    check::<u8, i8, i32>([Draw::Codes; 2]);
    check::<i8, u8, i32>([Draw::Codes; 2]);
}

/// What is not a number, infinite or too large becomes what the format has for it.
#[test]
fn specials_become_what_the_format_has() {
    fn one<T: Element>(value: f32, overflow: Overflow) -> u32 {
        let mut out = [T::zeroed_code(); 1];
        let (a, b) = ([value], [1.0f32]);
        let (a, b) = (View::new(&a, [1, 1]).unwrap(), View::new(&b, [1, 1]).unwrap());
        let c = ViewMut::new(&mut out, [1, 1]).unwrap();
        let plan = Matmul::new(a.spec(), b.spec(), c.spec()).unwrap().plan(&Context::default()).unwrap();
        let narrow = Narrow { overflow, ..Narrow::default() };
        plan.run(a, b, c, Epilogue { narrow, ..Epilogue::default() }, &mut plan.workspace()).unwrap();
        let mut bytes = [0; 4];
        bytes[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&out[0]));
        u32::from_le_bytes(bytes)
    }
    trait Zeroed: Sized {
        fn zeroed_code() -> Self;
    }
    impl<T: Element> Zeroed for T {
        fn zeroed_code() -> T {
            bytemuck::Zeroable::zeroed()
        }
    }
    let inf = f32::INFINITY;
    // NaN, +Inf, -Inf, beyond the largest; each as IEEE 754 has it and saturated.
    let of = |one: fn(f32, Overflow) -> u32, values: [f32; 4]| {
        values.map(|value| (one(value, Overflow::Ieee), one(value, Overflow::Saturate)))
    };
    let values = [f32::NAN, inf, -inf, -3e38];
    let got = of(one::<bf16>, values);
    assert_eq!(got[..3], [(0x7fc0, 0x7fc0), (0x7f80, 0x7f7f), (0xff80, 0xff7f)]);
    assert_eq!(
        of(one::<f16>, values),
        [(0x7e00, 0x7e00), (0x7c00, 0x7bff), (0xfc00, 0xfbff), (0xfc00, 0xfbff)]
    );
    assert_eq!(of(one::<Fp8E4M3>, values), [(0x7f, 0x7f), (0x7f, 0x7e), (0xff, 0xfe), (0xff, 0xfe)]);
    assert_eq!(of(one::<Fp8E5M2>, values), [(0x7e, 0x7e), (0x7c, 0x7b), (0xfc, 0xfb), (0xfc, 0xfb)]);
    assert_eq!(of(one::<CFloat8E4M3>, values), [(0x7f, 0x7f), (0x7f, 0x7f), (0xff, 0xff), (0xff, 0xff)]);
    assert_eq!(of(one::<CFloat16Uhp>, values), [(0xfe00, 0xfe00), (0xfc00, 0xfbff), (0, 0), (0, 0)]);
}

/// Slices through every instruction set: the codes of the codec, one by one; a cast of everything to everything.
#[test]
fn casts_are_the_same_everywhere() {
    fn check<A: Element, B: Element>() {
        let mut rng = Rng::new(11);
        for (len, how) in
            [(1usize, Draw::Codes), (4099, Draw::Codes), (70_001, Draw::Wide), (5003, Draw::Smooth)]
        {
            let (from, to) = (tuned::<A>(&mut rng), tuned::<B>(&mut rng));
            let src: Vec<A> = (0..len).map(|_| draw(&mut rng, from, how)).collect();
            let seed = rng.next();
            for rounding in [Rounding::Nearest, Rounding::Stochastic { seed }] {
                for overflow in [Overflow::Ieee, Overflow::Saturate] {
                    let narrow = Narrow { rounding, overflow };
                    let how = tile25::cast::Cast { narrow, from_scale: 0.75, to_scale: 0.3 };
                    let run = |context: &Context<'_>| {
                        let mut dst: Vec<B> = vec![bytemuck::Zeroable::zeroed(); len];
                        let src = View::new(&src, [len]).unwrap().with_format(from).unwrap();
                        let out = ViewMut::new(&mut dst, [len]).unwrap().with_format(to).unwrap();
                        how.run(src, out, context).unwrap();
                        dst
                    };
                    let portable = "portable".parse().unwrap();
                    let want =
                        run(&Context { isa: portable, threads: tile25::Threads::Seq, ..Context::default() });
                    let pools = pools();
                    for context in contexts(&pools).filter(|context| context.threads.count() != 2) {
                        let what = || format!("{from} to {to} {narrow:?} on {}", context.isa);
                        assert_same_codes(&run(&context), &want, what);
                    }
                    // The scalar definition, value by value: what every other format goes through.
                    if A::FORMAT == Format::F32 && !to.is_integer() {
                        let target = Target::new(to, narrow, 0);
                        for (i, (src, &got)) in src.iter().zip(&want).enumerate() {
                            let x: f32 = bytemuck::pod_read_unaligned(bytemuck::bytes_of(src));
                            let Some(code) = target.code(x, i as u64) else { continue };
                            let code = &code.to_le_bytes()[..size_of::<B>()];
                            assert_eq!(bytemuck::bytes_of(&got), code, "{x:e} to {to}, {narrow:?}");
                        }
                    }
                }
            }
        }
    }
    fn from<A: Element>() {
        check::<A, f32>();
        check::<A, f64>();
        check::<A, bf16>();
        check::<A, f16>();
        check::<A, CFloat8E4M3>();
        check::<A, CFloat8E5M2>();
        check::<A, CFloat16Uhp>();
        check::<A, Fp8E4M3>();
        check::<A, i8>();
        check::<A, u8>();
    }
    from::<f32>();
    from::<f64>();
    from::<bf16>();
    from::<f16>();
    from::<CFloat8E4M3>();
    from::<CFloat16Shp>();
    from::<Fp8E5M2>();
    from::<i8>();
}
