//! Packed operands as data (feature `serde`): written and read, they serve as before; what is none of this plan's is refused, whatever it holds.

mod support;

use proptest::prelude::*;
use serde::Serialize;
use tile25::conv::{Conv, ConvPlan, Convolution, PackedWeights};
use tile25::format::{CFloat, CFloat8E4M3, bf16};
use tile25::{
    Context, Element, Epilogue, Error, Format, Isa, Matmul, MatmulPlan, PackedRhs, Spec, View, ViewMut,
};
use xxhash_rust::xxh3::xxh3_64;

use support::{Rng, pools};

fn store(packed: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(packed).unwrap()
}

/// Codes whose upper two bits are zero: floats without NaN, subnormals among them.
fn codes<T: Element>(len: usize, seed: u64) -> Vec<T> {
    let mut rng = Rng::new(seed);
    let mut all = vec![T::zeroed(); len];
    bytemuck::must_cast_slice_mut::<T, u8>(&mut all).fill_with(|| rng.next() as u8 & 0x3f);
    all
}

/// What a product of an operand that was packed, written and read gives, and what it gives of the operand itself.
fn both_ways<T: Element, C: Element>(
    plan: &MatmulPlan<'_>,
    lhs: View<'_, T>,
    rhs: View<'_, T>,
    out: usize,
    dims: &[usize],
) -> [Vec<u8>; 2] {
    let packed = store(&plan.pack_rhs(rhs).unwrap());
    let packed: PackedRhs<T> = postcard::from_bytes(&packed).unwrap();
    plan.check_packed(&packed).unwrap();
    [true, false].map(|stored| {
        let mut c = vec![C::zeroed(); out];
        let dst = ViewMut::new(&mut c, dims).unwrap();
        let mut workspace = plan.workspace();
        if stored {
            plan.run(lhs, &packed, dst, Epilogue::default(), &mut workspace).unwrap();
        } else {
            plan.run(lhs, rhs, dst, Epilogue::default(), &mut workspace).unwrap();
        }
        bytemuck::must_cast_slice::<C, u8>(&c).to_vec()
    })
}

fn matmul_of<T: Element, C: Element>(context: &Context<'_>, format: Format, zeros: bool) {
    for (batch, m, n, k) in [(1, 5, 70, 530), (3, 17, 33, 40), (1, 2, 100, 2100)] {
        let dims = [[batch, m, k], [batch, k, n], [batch, m, n]];
        let specs: Vec<_> = dims
            .iter()
            .zip([format, format, C::FORMAT])
            .map(|(dims, format)| Spec::contiguous(format, dims).unwrap())
            .collect();
        let plan = Matmul::new(specs[0], specs[1], specs[2]).unwrap().plan(context).unwrap();
        let (a, b) = (codes::<T>(batch * m * k, 1), codes::<T>(batch * k * n, 2));
        let points: Vec<i32> = (0..n as i32).map(|i| i % 7).collect();
        let lhs = View::new(&a, dims[0]).unwrap().with_format(format).unwrap();
        let rhs = View::new(&b, dims[1]).unwrap().with_format(format).unwrap();
        let rhs = if zeros { rhs.zero_points(&points) } else { rhs };
        let [stored, direct] = both_ways::<T, C>(&plan, lhs, rhs, batch * m * n, &dims[2]);
        assert!(stored == direct, "{dims:?} of {format} on {}", context.isa);
    }
}

#[test]
fn a_stored_rhs_serves_as_the_operand_does() {
    for context in support::contexts(&pools()) {
        matmul_of::<bf16, f32>(&context, Format::Bf16, false);
        matmul_of::<u8, i32>(&context, Format::U8, false);
        matmul_of::<i8, i32>(&context, Format::I8, true);
        let cfloat = Format::CFloat8E4M3(CFloat::new(21).unwrap());
        matmul_of::<CFloat8E4M3, f32>(&context, cfloat, false);
    }
}

fn conv_plan(
    context: &Context<'static>,
    [channels, groups, size]: [usize; 3],
    format: Format,
) -> ConvPlan<'static> {
    let conv = Conv::<2> { padding: [(1, 1); 2], groups, ..Conv::default() };
    let x = Spec::contiguous(format, &[1, channels, size, size]).unwrap();
    let w = Spec::contiguous(format, &[channels, channels / groups, 3, 3]).unwrap();
    let sums = if format.is_integer() { Format::I32 } else { Format::F32 };
    let y = Spec { format: sums, ..x };
    Convolution::forward(x, w, y, &conv).unwrap().plan(context).unwrap()
}

fn conv_of<T: Element, C: Element>(context: &Context<'static>, shape: [usize; 3], zeros: bool) {
    let [channels, groups, size] = shape;
    let plan = conv_plan(context, shape, T::FORMAT);
    let x = codes::<T>(channels * size * size, 3);
    let w = codes::<T>(channels * channels / groups * 9, 4);
    let points: Vec<i32> = (0..channels as i32).map(|i| i % 5).collect();
    let x = View::new(&x, [1, channels, size, size]).unwrap();
    let w = View::new(&w, [channels, channels / groups, 3, 3]).unwrap();
    let w = if zeros { w.zero_points(&points) } else { w };
    let packed = store(&plan.pack_weights(w).unwrap());
    let packed: PackedWeights<T> = postcard::from_bytes(&packed).unwrap();
    plan.check_packed(&packed).unwrap();
    let mut out = [vec![C::zeroed(); channels * size * size], vec![C::zeroed(); channels * size * size]];
    for (out, stored) in out.iter_mut().zip([true, false]) {
        let dst = ViewMut::new(out, [1, channels, size, size]).unwrap();
        let mut workspace = plan.workspace();
        if stored {
            plan.run(x, &packed, dst, Epilogue::default(), &mut workspace).unwrap();
        } else {
            plan.run(x, w, dst, Epilogue::default(), &mut workspace).unwrap();
        }
    }
    let [stored, direct] = out.map(|out| bytemuck::must_cast_slice::<C, u8>(&out).to_vec());
    assert!(stored == direct, "{shape:?} of {} on {}", T::FORMAT, context.isa);
}

#[test]
fn stored_weights_serve_as_the_weights_do() {
    for isa in Isa::available() {
        let context = Context { isa, ..Context::default() };
        for shape in [[16, 1, 9], [16, 16, 9], [24, 2, 5]] {
            conv_of::<bf16, f32>(&context, shape, false);
            conv_of::<i8, i32>(&context, shape, true);
        }
    }
}

fn refusal(result: postcard::Result<impl Sized>) -> bool {
    result.is_err()
}

#[test]
fn a_stored_operand_of_another_kind_is_refused() {
    let context = Context { isa: "portable".parse().unwrap(), ..Context::default() };
    let specs = [[4, 6], [6, 9], [4, 9]].map(|dims| Spec::contiguous(Format::F32, &dims).unwrap());
    let [a, b, c] = specs;
    let plan = Matmul::new(a, b, c).unwrap().plan(&context).unwrap();
    let rhs = vec![1f32; 54];
    let packed = plan.pack_rhs(View::new(&rhs, [6, 9]).unwrap()).unwrap();
    let good = store(&packed);
    assert!(refusal(postcard::from_bytes::<PackedRhs<f64>>(&good)), "another type");
    let mut other = good.clone();
    other[0] += 1;
    assert!(refusal(postcard::from_bytes::<PackedRhs<f32>>(&other)), "another version");
    assert!(refusal(postcard::from_bytes::<PackedRhs<f32>>(&good[..good.len() - 1])), "too short");
    // Of another shape: read, and refused by the plan.
    let wider = Matmul::new(
        a,
        Spec::contiguous(Format::F32, &[6, 90]).unwrap(),
        Spec::contiguous(Format::F32, &[4, 90]).unwrap(),
    );
    let wider = wider.unwrap().plan(&context).unwrap();
    let packed: PackedRhs<f32> = postcard::from_bytes(&good).unwrap();
    assert!(matches!(wider.check_packed(&packed), Err(Error::Packed { .. })));
    // The reference reads elements only, and says so before a run does.
    let plan =
        Matmul::new(a, b, c).unwrap().plan(&Context { isa: context.isa, ..support::reference() }).unwrap();
    assert!(matches!(plan.check_packed(&packed), Err(Error::Unsupported { .. })));
}

proptest! {
    #![proptest_config(support::config("stored", 400))]
    /// Whatever a file holds: it is refused, or it runs without a panic, to whatever result.
    #[test]
    fn any_bytes_are_refused_or_run(at in any::<prop::sample::Index>(), to in any::<u8>(), head in any::<bool>(), conv in any::<bool>(), integers in any::<bool>()) {
        let context = Context::default();
        if conv && integers {
            change_weights::<i8, i32>(&context, at, to, head);
        } else if conv {
            change_weights::<bf16, f32>(&context, at, to, head);
        } else if integers {
            change_rhs::<i8, i32>(&context, at, to, head);
        } else {
            change_rhs::<bf16, f32>(&context, at, to, head);
        }
    }
}

/// One byte becomes another: any, or of what stands before the panels.
fn change(data: &mut [u8], at: prop::sample::Index, to: u8, head: bool) {
    let len = if head { data.len().min(40) } else { data.len() };
    data[at.index(len)] = to;
}

fn change_rhs<T: Element, C: Element>(
    context: &Context<'static>,
    at: prop::sample::Index,
    to: u8,
    head: bool,
) {
    let specs = [[4, 6], [6, 9]].map(|dims| Spec::contiguous(T::FORMAT, &dims).unwrap());
    let out = Spec::contiguous(C::FORMAT, &[4, 9]).unwrap();
    let plan = Matmul::new(specs[0], specs[1], out).unwrap().plan(context).unwrap();
    let (a, b) = (codes::<T>(24, 5), codes::<T>(54, 6));
    let mut data = store(&plan.pack_rhs(View::new(&b, [6, 9]).unwrap()).unwrap());
    change(&mut data, at, to, head);
    let Ok(packed) = postcard::from_bytes::<PackedRhs<T>>(&data) else { return };
    let mut c = vec![C::zeroed(); 36];
    let dst = ViewMut::new(&mut c, [4, 9]).unwrap();
    let _ =
        plan.run(View::new(&a, [4, 6]).unwrap(), &packed, dst, Epilogue::default(), &mut plan.workspace());
}

fn change_weights<T: Element, C: Element>(
    context: &Context<'static>,
    at: prop::sample::Index,
    to: u8,
    head: bool,
) {
    let plan = conv_plan(context, [4, 1, 5], T::FORMAT);
    let (x, w) = (codes::<T>(100, 7), codes::<T>(144, 8));
    let mut data = store(&plan.pack_weights(View::new(&w, [4, 4, 3, 3]).unwrap()).unwrap());
    change(&mut data, at, to, head);
    let Ok(packed) = postcard::from_bytes::<PackedWeights<T>>(&data) else { return };
    let mut y = vec![C::zeroed(); 100];
    let dst = ViewMut::new(&mut y, [1, 4, 5, 5]).unwrap();
    let x = View::new(&x, [1, 4, 5, 5]).unwrap();
    let _ = plan.run(x, &packed, dst, Epilogue::default(), &mut plan.workspace());
}

/// How panels lie on the portable set. Where one of these changes, `PANELS` in `src/ops/stored.rs` must move.
#[test]
fn panels_lie_as_their_version_says() {
    fn rhs<T: Element, C: Element>(context: &Context<'static>) -> u64 {
        let specs = [[4, 530], [530, 40]].map(|dims| Spec::contiguous(T::FORMAT, &dims).unwrap());
        let out = Spec::contiguous(C::FORMAT, &[4, 40]).unwrap();
        let plan = Matmul::new(specs[0], specs[1], out).unwrap().plan(context).unwrap();
        let b = codes::<T>(530 * 40, 9);
        xxh3_64(&store(&plan.pack_rhs(View::new(&b, [530, 40]).unwrap()).unwrap()))
    }
    fn weights(context: &Context<'static>, [channels, groups]: [usize; 2]) -> u64 {
        let plan = conv_plan(context, [channels, groups, 6], Format::Bf16);
        let w = codes::<bf16>(channels * channels / groups * 9, 10);
        xxh3_64(&store(
            &plan.pack_weights(View::new(&w, [channels, channels / groups, 3, 3]).unwrap()).unwrap(),
        ))
    }
    let context = Context { isa: "portable".parse().unwrap(), ..Context::default() };
    let got = [
        rhs::<bf16, f32>(&context),
        rhs::<i8, i32>(&context),
        weights(&context, [16, 1]),
        weights(&context, [16, 16]),
    ];
    let want = [0xc361fbdd0bad360e, 0x8087dc411a2c149d, 0x3677309365c69d47, 0x9b80364a8bc63e81];
    assert_eq!(got, want, "{got:016x?}");
}
