//! Hashes of results of every operation and format. A hash that changes without a new NUMERICS_VERSION is a broken promise.

mod support;

use support::Real;
use support::{Draw, Kind, Rng, draw, fill};
use tile25::conv::{Conv, Convolution};
use tile25::format::{
    CFloat8E4M3, CFloat8E5M2, CFloat16Shp, CFloat16Uhp, Fp8E4M3, Fp8E5M2, Narrow, Rounding, bf16, f16,
};
use tile25::numerics::{KC, NUMERICS_VERSION};
use tile25::{Act, Context, Element, Epilogue, Format, Matmul, Spec, View, ViewMut};
use xxhash_rust::xxh3::xxh3_64;

const GOLDEN_VERSION: u32 = 1;

/// (name, hash), when the version was frozen.
#[rustfmt::skip]
const GOLDEN: &[(&str, u64)] = &[
    ("matmul f32 none", 0x05c24ca08fcbeb62),
    ("matmul f32 relu", 0x8ac1b9d11e2a558d),
    ("matmul f32 gelu", 0x14b48a5aa5f249ae),
    ("matmul f32 silu", 0xfd311a51fe71f5e9),
    ("matmul f32 tanh", 0xe3d8747fb3f51abc),
    ("matmul f32 sigmoid", 0xe5de1b768c18a65e),
    ("matmul f64 none", 0xfffc6cf6a451a574),
    ("conv::forward f32", 0x796b14fda9b2da2e),
    ("conv::forward f64", 0x63778d713ffd3dee),
    ("conv::forward bf16", 0xd4a94f4bdcfccec4),
    ("conv::forward fp8_e4m3fn", 0x85fdb994f4abeebf),
    ("conv::backward_data f32", 0x275401298dbbea41),
    ("conv::backward_data f64", 0x60a5635da78d3fcd),
    ("conv::backward_data bf16", 0x9e55ee7e14c0970e),
    ("conv::backward_data fp8_e4m3fn", 0xcd749df56d4f0544),
    ("conv::backward_weights f32", 0x3954d2763f0f2a94),
    ("conv::backward_weights f64", 0x354779cdeb4d8c8d),
    ("conv::backward_weights bf16", 0x2df12c1ccafbb22d),
    ("conv::backward_weights fp8_e4m3fn", 0x190a7f36cbc78fe3),
    ("conv::transposed f32", 0x275401298dbbea41),
    ("conv::transposed f64", 0x60a5635da78d3fcd),
    ("conv::transposed bf16", 0x9e55ee7e14c0970e),
    ("conv::transposed fp8_e4m3fn", 0xcd749df56d4f0544),
    ("matmul bf16 -> bf16", 0x6a1670cf1bef69c2),
    ("matmul f16 -> f16", 0x4ecb75b09ac05c67),
    ("matmul cfloat8 -> cfloat8", 0x4e3dd3e267d8d6a6),
    ("matmul fp8 -> f32", 0x86fe7930d50c3265),
    ("matmul cfloat16 -> uhp", 0x69d992d9be4b7d14),
    ("matmul u8 x i8 -> i8", 0x5bbc939bd242ba8d),
    ("matmul i8 -> i32", 0x1f4a78d61da2e46d),
];

fn matmul<T: Real>(context: &Context<'_>, act: Act) -> u64 {
    let (m, n, k) = (61, 83, 2 * KC + 77);
    let mut rng = Rng::new(25);
    let a: Vec<T> = fill(&mut rng, m * k, if act == Act::None { Kind::Wide } else { Kind::Smooth });
    let b: Vec<T> = fill(&mut rng, k * n, Kind::Smooth);
    let bias: Vec<T> = fill(&mut rng, n, Kind::Smooth);
    let mut out = vec![T::zero(); m * n];
    let (a, b) = (View::new(&a, [m, k]).unwrap(), View::new(&b, [k, n]).unwrap());
    let target = ViewMut::new(&mut out, [m, n]).unwrap();
    let plan = Matmul::new(a.spec(), b.spec(), target.spec()).unwrap().plan(context).unwrap();
    let scale = T::from(if act == Act::None { 1.0 } else { 0.25 });
    plan.run(
        a,
        b,
        target,
        Epilogue { scale, bias: Some(&bias), act, ..Epilogue::default() },
        &mut plan.workspace(),
    )
    .unwrap();
    xxh3_64(bytemuck::cast_slice(&out))
}

/// Values about -1..1; those of f32 and f64 as they were before there were other formats.
fn data_of<T: Element>(rng: &mut Rng, len: usize) -> Vec<T> {
    match T::FORMAT {
        Format::F32 => bytemuck::cast_slice(&fill::<f32>(rng, len, Kind::Smooth)).to_vec(),
        Format::F64 => bytemuck::cast_slice(&fill::<f64>(rng, len, Kind::Smooth)).to_vec(),
        format => (0..len).map(|_| draw(rng, format, Draw::Smooth)).collect(),
    }
}

fn conv<T: Element>(context: &Context<'_>, direction: usize) -> u64 {
    let conv = Conv::<2> { stride: [2, 1], padding: [(1, 2), (0, 3)], dilation: [1, 2], groups: 2 };
    let dims = [vec![3, 6, 13, 11], vec![8, 3, 3, 2], vec![3, 8, 7, 12]];
    let mut rng = Rng::new(52);
    let data: [Vec<T>; 3] = std::array::from_fn(|i| data_of(&mut rng, dims[i].iter().product()));
    let [x, w, y] = std::array::from_fn(|i| Spec::contiguous(T::FORMAT, &dims[i]).unwrap());
    let (op, a, b, out) = match direction {
        0 => (Convolution::forward(x, w, y, &conv), 0, 1, 2),
        1 => (Convolution::backward_data(y, w, x, &conv), 2, 1, 0),
        2 => (Convolution::backward_weights(x, y, w, &conv), 0, 2, 1),
        _ => (Convolution::transposed(y, w, x, &conv), 2, 1, 0),
    };
    let plan = op.unwrap().plan(context).unwrap();
    let mut result: Vec<T> = vec![bytemuck::Zeroable::zeroed(); data[out].len()];
    let view = |i: usize| View::new(&data[i], &dims[i]).unwrap();
    let target = ViewMut::new(&mut result, &dims[out]).unwrap();
    plan.run(view(a), view(b), target, Epilogue::default(), &mut plan.workspace()).unwrap();
    xxh3_64(bytemuck::cast_slice(&result))
}

/// A product in narrow formats, scaled by column and narrowed stochastically; integers with zero points.
fn narrow<A: Element, B: Element, C: Element>(context: &Context<'_>) -> u64 {
    let (m, n, k) = (61, 83, 2 * KC + 77);
    let mut rng = Rng::new(9);
    let a: Vec<A> = (0..m * k).map(|_| draw(&mut rng, A::FORMAT, Draw::Smooth)).collect();
    let b: Vec<B> = (0..k * n).map(|_| draw(&mut rng, B::FORMAT, Draw::Smooth)).collect();
    let scale = |i: usize| <C::Param as num_traits::NumCast>::from(0.02 + i as f64 / 1000.0).unwrap();
    let scales: Vec<C::Param> = (0..n).map(scale).collect();
    let mut out: Vec<C> = vec![bytemuck::Zeroable::zeroed(); m * n];
    let (a, b) = (View::new(&a, [m, k]).unwrap(), View::new(&b, [k, n]).unwrap());
    let (a, b) = if A::FORMAT.is_integer() { (a.zero_point(3), b.zero_point(5)) } else { (a, b) };
    let target = ViewMut::new(&mut out, [m, n]).unwrap();
    let plan = Matmul::new(a.spec(), b.spec(), target.spec()).unwrap().plan(context).unwrap();
    let epilogue = if C::FORMAT == Format::I32 {
        Epilogue::default()
    } else {
        let narrow = Narrow { rounding: Rounding::Stochastic { seed: 4 }, ..Narrow::default() };
        Epilogue { channel_scales: Some(&scales), act: Act::Silu, narrow, ..Epilogue::default() }
    };
    plan.run(a, b, target, epilogue, &mut plan.workspace()).unwrap();
    xxh3_64(bytemuck::cast_slice(&out))
}

#[test]
fn results_have_the_bits_of_their_version() {
    assert_eq!(
        NUMERICS_VERSION, GOLDEN_VERSION,
        "new numerics: record the hashes anew, with a CHANGELOG line"
    );
    for context in [Context::default(), support::reference()] {
        check(&context);
    }
}

fn check(context: &Context<'_>) {
    let mut found: Vec<(String, u64)> = Vec::new();
    for act in [Act::None, Act::Relu, Act::Gelu, Act::Silu, Act::Tanh, Act::Sigmoid] {
        found.push((format!("matmul {} {act}", Format::F32), matmul::<f32>(context, act)));
    }
    found.push((format!("matmul {} none", Format::F64), matmul::<f64>(context, Act::None)));
    for (direction, name) in
        ["forward", "backward_data", "backward_weights", "transposed"].into_iter().enumerate()
    {
        found.push((format!("conv::{name} {}", Format::F32), conv::<f32>(context, direction)));
        found.push((format!("conv::{name} {}", Format::F64), conv::<f64>(context, direction)));
        found.push((format!("conv::{name} {}", Format::Bf16), conv::<bf16>(context, direction)));
        found.push((format!("conv::{name} {}", Format::Fp8E4M3), conv::<Fp8E4M3>(context, direction)));
    }
    found.push(("matmul bf16 -> bf16".into(), narrow::<bf16, bf16, bf16>(context)));
    found.push(("matmul f16 -> f16".into(), narrow::<f16, f16, f16>(context)));
    found
        .push(("matmul cfloat8 -> cfloat8".into(), narrow::<CFloat8E4M3, CFloat8E5M2, CFloat8E4M3>(context)));
    found.push(("matmul fp8 -> f32".into(), narrow::<Fp8E4M3, Fp8E5M2, f32>(context)));
    found.push(("matmul cfloat16 -> uhp".into(), narrow::<CFloat16Shp, CFloat16Shp, CFloat16Uhp>(context)));
    found.push(("matmul u8 x i8 -> i8".into(), narrow::<u8, i8, i8>(context)));
    found.push(("matmul i8 -> i32".into(), narrow::<i8, i8, i32>(context)));
    let table: String =
        found.iter().map(|(name, hash)| format!("    (\"{name}\", 0x{hash:016x}),\n")).collect();
    let same =
        found.len() == GOLDEN.len() && found.iter().zip(GOLDEN).all(|(a, b)| (a.0.as_str(), a.1) == *b);
    assert!(same, "on {:?} the hashes are now\n{table}", context.backend);
}
