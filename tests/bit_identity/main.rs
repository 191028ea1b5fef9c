//! The signature: the tile gives the bits of the reference for every instruction set, thread count, layout, batch and epilogue.

#[path = "../support/mod.rs"]
mod support;

mod conv;
mod matmul;

use proptest::prelude::*;
use support::{Laid, Real, assert_same, float_contexts, pools, reference};
use tile25::numerics::KC;
use tile25::{Accum, Act, Context, Epilogue, Error};

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
