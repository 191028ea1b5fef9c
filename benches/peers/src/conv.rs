//! Convolutions, and how each contender is called; `conv_sets.rs` has the shapes.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use tile25::conv::{Conv, Convolution, Weights};
use tile25::format::bf16;
use tile25::{Context, Element, Epilogue, Isa, Layout, Spec, Threads, View, ViewMut};

use crate::contenders::{Contender, Libraries, Run, kept, load};
use crate::driver::Driver;
use crate::onednn::{Blocking, Engine};
use crate::sets::{Case, Operands};

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Forward,
    BackwardData,
    BackwardWeights,
}

/// How activations and weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Channels innermost, of weights the input channels
    Nhwc,
    /// Positions innermost, of weights the kernel positions
    Nchw,
}

/// A convolution with one to three spatial axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Convolve {
    pub direction: Direction,
    pub order: Order,
    pub format: Operands,
    pub batch: usize,
    pub c_in: usize,
    pub c_out: usize,
    pub groups: usize,
    pub input: Vec<usize>,
    pub output: Vec<usize>,
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub low: Vec<usize>,
    pub high: Vec<usize>,
    pub dilation: Vec<usize>,
}

/// Dense strides of `dims`, with `last` innermost.
fn strides(dims: &[usize], last: usize) -> Vec<isize> {
    let order = (0..dims.len()).filter(|&d| d != last).chain([last]);
    let mut strides = vec![0; dims.len()];
    let mut step = 1;
    for d in order.collect::<Vec<_>>().into_iter().rev() {
        strides[d] = step;
        step *= dims[d] as isize;
    }
    strides
}

impl Convolve {
    /// Forward of an image of f32, of channels in and out and groups, padded so that a stride of 1 keeps the size.
    pub fn of(
        [c_in, c_out, groups]: [usize; 3],
        input: &[usize],
        kernel: &[usize],
        stride: &[usize],
        dilation: &[usize],
    ) -> Convolve {
        let reach: Vec<usize> = kernel.iter().zip(dilation).map(|(k, d)| (k - 1) * d).collect();
        Convolve {
            direction: Direction::Forward,
            order: Order::Nhwc,
            format: Operands::F32,
            batch: 1,
            c_in,
            c_out,
            groups,
            input: input.to_vec(),
            output: input.iter().zip(stride).map(|(size, stride)| (size - 1) / stride + 1).collect(),
            kernel: kernel.to_vec(),
            stride: stride.to_vec(),
            low: reach.iter().map(|reach| reach / 2).collect(),
            high: reach.iter().map(|reach| reach.div_ceil(2)).collect(),
            dilation: dilation.to_vec(),
        }
    }

    fn dims(&self) -> [Vec<usize>; 3] {
        let with =
            |outer: [usize; 2], spatial: &[usize]| outer.into_iter().chain(spatial.iter().copied()).collect();
        [
            with([self.batch, self.c_in], &self.input),
            with([self.c_out, self.c_in / self.groups], &self.kernel),
            with([self.batch, self.c_out], &self.output),
        ]
    }

    /// Dims and strides of x, w and y.
    pub fn tensors(&self) -> [(Vec<usize>, Vec<isize>); 3] {
        self.dims().map(|dims| {
            let last = if self.order == Order::Nhwc { 1 } else { dims.len() - 1 };
            let strides = strides(&dims, last);
            (dims, strides)
        })
    }

    /// Which of x, w, y are the first operand, the second one and the result.
    pub fn roles(&self) -> [usize; 3] {
        match self.direction {
            Direction::Forward => [0, 1, 2],
            Direction::BackwardData => [2, 1, 0],
            Direction::BackwardWeights => [0, 2, 1],
        }
    }

    fn ours<const D: usize>(&self, threads: usize, isa: Isa, packed: bool) -> Result<(Run, String), String> {
        match self.format {
            Operands::F32 => self.of_formats::<D, f32, f32, f32>(threads, isa, packed, |a| a, |b| b),
            Operands::Bf16 => {
                self.of_formats::<D, bf16, bf16, f32>(threads, isa, packed, bf16::from_f32, bf16::from_f32)
            }
            Operands::I8 => self.of_formats::<D, u8, i8, i32>(threads, isa, packed, |a| a as u8, |b| b as i8),
        }
    }

    /// Ours of operands `A` and `B` into `C`, a type of four bytes.
    fn of_formats<const D: usize, A: Element, B: Element, C: Element>(
        &self,
        threads: usize,
        isa: Isa,
        packed: bool,
        to_a: impl Fn(f32) -> A + 'static,
        to_b: impl Fn(f32) -> B + 'static,
    ) -> Result<(Run, String), String> {
        let of = |values: &[usize]| std::array::from_fn::<usize, D, _>(|d| values[d]);
        let conv = Conv::<D> {
            stride: of(&self.stride),
            padding: std::array::from_fn(|d| (self.low[d], self.high[d])),
            dilation: of(&self.dilation),
            groups: self.groups,
        };
        let context = Context {
            isa,
            threads: if threads == 1 { Threads::Seq } else { Threads::Current },
            ..Context::default()
        };
        let text = |error: tile25::Error| error.to_string();
        let mut layouts = Vec::new();
        for (dims, strides) in self.tensors() {
            layouts.push(Layout::strided(&dims, &strides).map_err(text)?);
        }
        let layouts = self.roles().map(|role| layouts[role]);
        let formats = [A::FORMAT, B::FORMAT, C::FORMAT];
        let [first, second, out] =
            std::array::from_fn(|role| Spec { format: formats[role], layout: layouts[role] });
        let op = match self.direction {
            Direction::Forward => Convolution::forward(first, second, out, &conv),
            Direction::BackwardData => Convolution::backward_data(first, second, out, &conv),
            Direction::BackwardWeights => Convolution::backward_weights(first, second, out, &conv),
        };
        let plan = op.map_err(text)?.plan(&context).map_err(text)?;
        let ways = plan.ways().map(|way| way.to_string()).collect::<std::collections::BTreeSet<_>>();
        let kernel = format!("{}: {}", plan.kernel().name, ways.into_iter().collect::<Vec<_>>().join(", "));
        let mut workspace = plan.workspace();
        let packs = packed && self.direction != Direction::BackwardWeights;
        let (mut all_a, mut all_b, mut weights) = (Vec::new(), Vec::new(), None);
        let run: Run = Box::new(move |a, b, c| {
            let a = View::with_layout(kept(&mut all_a, a, &to_a), 0, layouts[0]).expect("planned");
            let b = View::with_layout(kept(&mut all_b, b, &to_b), 0, layouts[1]).expect("planned");
            let c = bytemuck::cast_slice_mut::<f32, C>(c);
            let c = ViewMut::with_layout(c, 0, layouts[2]).expect("planned");
            let b = if packs {
                // By the first call: the weights stay the same.
                Weights::Packed(weights.get_or_insert_with(|| plan.pack_weights(b).expect("planned")))
            } else {
                Weights::View(b)
            };
            plan.run(a, b, c, Epilogue::default(), &mut workspace).expect("planned");
        });
        Ok((run, kernel))
    }

    /// One element of the result in f64, and the sum of the magnitudes of its terms.
    fn element(&self, a: &[f32], b: &[f32], at: usize) -> (f64, f64) {
        let tensors = self.tensors();
        let [first, second, out] = self.roles();
        let mut index = Vec::new();
        let mut rest = at;
        for &extent in tensors[out].0.iter().rev() {
            index.insert(0, rest % extent);
            rest /= extent;
        }
        let offset = |tensor: usize, index: &[usize]| -> usize {
            index.iter().zip(&tensors[tensor].1).map(|(&i, &stride)| i * stride as usize).sum()
        };
        let (mut sum, mut size) = (0f64, 0f64);
        let (in_group, out_group) = (self.c_in / self.groups, self.c_out / self.groups);
        let mut term = |x: &[usize], w: &[usize], y: &[usize]| {
            let all = [x, w, y];
            let (a, b) = (a[offset(first, all[first])], b[offset(second, all[second])]);
            let term = f64::from(a) * f64::from(b);
            sum += term;
            size += term.abs();
        };
        // All triples of places that meet, with the one of the result fixed.
        let each = |extents: &[usize]| -> Vec<Vec<usize>> {
            extents.iter().fold(vec![vec![]], |all, &extent| {
                all.iter().flat_map(|head| (0..extent).map(|i| [&head[..], &[i]].concat())).collect()
            })
        };
        let meets = |position: &[usize], tap: &[usize]| -> Option<Vec<usize>> {
            (0..position.len())
                .map(|d| {
                    let at = position[d] * self.stride[d] + tap[d] * self.dilation[d];
                    at.checked_sub(self.low[d]).filter(|&at| at < self.input[d])
                })
                .collect()
        };
        match self.direction {
            Direction::Forward => {
                let (n, o, position) = (index[0], index[1], &index[2..]);
                for tap in each(&self.kernel) {
                    let Some(place) = meets(position, &tap) else { continue };
                    for c in 0..in_group {
                        let x = [&[n, o / out_group * in_group + c], &place[..]].concat();
                        term(&x, &[&[o, c], &tap[..]].concat(), &index);
                    }
                }
            }
            Direction::BackwardData => {
                let (n, c, place) = (index[0], index[1], &index[2..]);
                for tap in each(&self.kernel) {
                    let position: Option<Vec<usize>> = (0..place.len())
                        .map(|d| {
                            let at = (place[d] + self.low[d]).checked_sub(tap[d] * self.dilation[d])?;
                            (at % self.stride[d] == 0 && at / self.stride[d] < self.output[d])
                                .then(|| at / self.stride[d])
                        })
                        .collect();
                    let Some(position) = position else { continue };
                    for o in 0..out_group {
                        let o = c / in_group * out_group + o;
                        let y = [&[n, o], &position[..]].concat();
                        term(&index, &[&[o, c % in_group], &tap[..]].concat(), &y);
                    }
                }
            }
            Direction::BackwardWeights => {
                let (o, c, tap) = (index[0], index[1], &index[2..]);
                for position in each(&self.output) {
                    let Some(place) = meets(&position, tap) else { continue };
                    for n in 0..self.batch {
                        let x = [&[n, o / out_group * in_group + c], &place[..]].concat();
                        term(&x, &index, &[&[n, o], &position[..]].concat());
                    }
                }
            }
        }
        (sum, size)
    }
}

impl Case for Convolve {
    const OP: &'static str = "conv";

    fn name(&self) -> String {
        let join = |values: &[usize]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let same = |values: &[usize], value: usize| values.iter().all(|&v| v == value);
        let mut name = format!("{}-{} @{} k{}", self.c_in, self.c_out, join(&self.input), join(&self.kernel));
        for (what, values, usual) in [("s", &self.stride, 1), ("d", &self.dilation, 1)] {
            if !same(values, usual) {
                name += &format!(" {what}{}", join(values));
            }
        }
        if self.groups > 1 {
            name += &format!(" g{}", self.groups);
        }
        format!("{name} n{}", self.batch)
    }

    fn flops(&self) -> f64 {
        let [_, w, y] = self.dims();
        2.0 * (y.iter().product::<usize>() * w[1..].iter().product::<usize>()) as f64
    }

    fn lens(&self) -> [usize; 3] {
        let lens = self.dims().map(|dims| dims.iter().product());
        self.roles().map(|role| lens[role])
    }

    fn takes(&self, contender: Contender) -> bool {
        use Contender::{Before, Onednn, OnednnBlocked, Onnxruntime, Ours, OursPacked};
        match contender {
            Ours | OursPacked | Before | Onednn | OnednnBlocked => true,
            Onnxruntime => {
                self.format == Operands::F32
                    && self.order == Order::Nchw
                    && self.direction != Direction::BackwardWeights
            }
            #[cfg(feature = "candle")]
            Contender::Candle => self.format == Operands::F32 && crate::candle::takes(self),
            _ => false,
        }
    }

    fn outside(
        &self,
        driver: &mut Driver,
        threads: usize,
        [warm_up, sample]: [Duration; 2],
        operands: [&[f32]; 2],
        c: &mut [f32],
    ) -> Result<f64, String> {
        let dims = self.dims();
        let [first, weights, result] = self.roles().map(|role| &dims[role]);
        let case = json!({
            "direction": self.direction, "first": first, "weights": weights, "result": result, "kernel": self.kernel,
            "stride": self.stride, "pad": self.low, "pad_r": self.high, "dilation": self.dilation, "groups": self.groups,
            "threads": threads, "warm_up": warm_up.as_secs_f64(), "sample": sample.as_secs_f64(),
        });
        driver.time(&case, operands, c)
    }

    fn prepare(
        &self,
        contender: Contender,
        threads: usize,
        isa: Isa,
        libraries: &Libraries,
    ) -> Result<(Run, String), String> {
        let engine = || Engine::new(load(Contender::Onednn, libraries)?);
        let run = match contender {
            Contender::Ours | Contender::OursPacked => {
                let packed = contender == Contender::OursPacked;
                return match self.input.len() {
                    1 => self.ours::<1>(threads, isa, packed),
                    2 => self.ours::<2>(threads, isa, packed),
                    _ => self.ours::<3>(threads, isa, packed),
                };
            }
            #[cfg(feature = "candle")]
            Contender::Candle => crate::candle::convolution(self)?,
            Contender::Onednn => engine()?.in_callers_layout(self)?,
            Contender::OnednnBlocked => engine()?.convolution(self, Blocking::Before)?,
            other => return Err(format!("{other:?} has no convolution")),
        };
        Ok((run, String::new()))
    }

    fn error(&self, a: &[f32], b: &[f32], c: &[f32]) -> f64 {
        let tensors = self.tensors();
        let (dims, strides) = &tensors[self.roles()[2]];
        let mut worst = 0f64;
        for sample in 0..6 {
            let at = sample * 7919 % c.len();
            let (sum, size) = self.element(a, b, at);
            let (mut rest, mut place) = (at, 0);
            for (&extent, &stride) in dims.iter().zip(strides).rev() {
                place += rest % extent * stride as usize;
                rest /= extent;
            }
            worst = worst.max((sum - self.format.result(c[place])).abs() / size.max(1e-30));
        }
        worst
    }

    fn format(&self) -> Operands {
        self.format
    }

    fn fields(&self) -> Value {
        json!({
            "direction": self.direction, "layout": self.order, "n": self.batch, "c_in": self.c_in, "c_out": self.c_out,
            "groups": self.groups, "in": self.input, "out": self.output, "kernel_size": self.kernel, "stride": self.stride,
            "pad": self.low, "pad_r": self.high, "dilation": self.dilation,
        })
    }
}
