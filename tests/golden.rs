//! Hashes of results of every operation and format. A hash that changes without a new NUMERICS_VERSION is a broken promise.

mod support;

use support::Real;
use support::{Kind, Rng, fill};
use tile25::conv::{Conv, Convolution};
use tile25::numerics::{KC, NUMERICS_VERSION};
use tile25::{Act, Context, Epilogue, Format, Matmul, Spec, View, ViewMut};
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
    ("conv::backward_data f32", 0x275401298dbbea41),
    ("conv::backward_data f64", 0x60a5635da78d3fcd),
    ("conv::backward_weights f32", 0x3954d2763f0f2a94),
    ("conv::backward_weights f64", 0x354779cdeb4d8c8d),
    ("conv::transposed f32", 0x275401298dbbea41),
    ("conv::transposed f64", 0x60a5635da78d3fcd),
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

fn conv<T: Real>(context: &Context<'_>, direction: usize) -> u64 {
    let conv = Conv::<2> { stride: [2, 1], padding: [(1, 2), (0, 3)], dilation: [1, 2], groups: 2 };
    let dims = [vec![3, 6, 13, 11], vec![8, 3, 3, 2], vec![3, 8, 7, 12]];
    let mut rng = Rng::new(52);
    let data: [Vec<T>; 3] = std::array::from_fn(|i| fill(&mut rng, dims[i].iter().product(), Kind::Smooth));
    let [x, w, y] = std::array::from_fn(|i| Spec::contiguous(T::FORMAT, &dims[i]).unwrap());
    let (op, a, b, out) = match direction {
        0 => (Convolution::forward(x, w, y, &conv), 0, 1, 2),
        1 => (Convolution::backward_data(y, w, x, &conv), 2, 1, 0),
        2 => (Convolution::backward_weights(x, y, w, &conv), 0, 2, 1),
        _ => (Convolution::transposed(y, w, x, &conv), 2, 1, 0),
    };
    let plan = op.unwrap().plan(context).unwrap();
    let mut result = vec![T::zero(); data[out].len()];
    let view = |i: usize| View::new(&data[i], &dims[i]).unwrap();
    let target = ViewMut::new(&mut result, &dims[out]).unwrap();
    plan.run(view(a), view(b), target, Epilogue::default(), &mut plan.workspace()).unwrap();
    xxh3_64(bytemuck::cast_slice(&result))
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
    }
    let table: String =
        found.iter().map(|(name, hash)| format!("    (\"{name}\", 0x{hash:016x}),\n")).collect();
    let same =
        found.len() == GOLDEN.len() && found.iter().zip(GOLDEN).all(|(a, b)| (a.0.as_str(), a.1) == *b);
    assert!(same, "on {:?} the hashes are now\n{table}", context.backend);
}
