//! Two convolutions and a linear layer, forward and backward; every sum of products is a planned run of tile25.
//!
//! ```text
//! x [n, 1, 8, 8] -> conv 3 x 3, 16 channels, relu -> conv 3 x 3, stride 2, 32 channels, relu -> linear, 10 classes -> softmax
//! ```
//!
//! Activations and weights are kept in one format, gradients in another; sums are f32, and so are the weights that the optimiser keeps. Gradients are
//! rounded stochastically. Activations lie channels-last, so the linear layer reads them as they are and a bias gradient is one product with ones.

use tile25::conv::{Conv, ConvPlan, Convolution};
use tile25::format::Rounding;
use tile25::math::{Function, map};
use tile25::{Act, Context, Element, Epilogue, Error, Matmul, MatmulPlan, Tensor, View, ViewMut};

use crate::data::{CLASSES, Digits, SIDE, random};
use crate::kept::Kept;
use crate::meter::{Meter, Stage};

const C1: usize = 16;
const C2: usize = 32;
const HALF: usize = SIDE / 2;
const FLAT: usize = HALF * HALF * C2;

/// Shapes of the weights.
const W1: [usize; 4] = [C1, 1, 3, 3];
const W2: [usize; 4] = [C2, C1, 3, 3];
const W3: [usize; 2] = [FLAT, CLASSES];

const CONV1: Conv<2> = Conv { stride: [1, 1], padding: [(1, 1); 2], dilation: [1, 1], groups: 1 };
const CONV2: Conv<2> = Conv { stride: [2, 2], ..CONV1 };

/// NHWC memory seen as the `[n, c, h, w]` that convolutions speak of.
const NCHW: [usize; 4] = [0, 3, 1, 2];

/// Parameters, or their gradients: weights and bias of each layer.
pub(crate) struct Params {
    pub(crate) w1: Tensor<f32>,
    pub(crate) b1: Tensor<f32>,
    pub(crate) w2: Tensor<f32>,
    pub(crate) b2: Tensor<f32>,
    pub(crate) w3: Tensor<f32>,
    pub(crate) b3: Tensor<f32>,
}

impl Params {
    pub(crate) fn zeros() -> Result<Params, Error> {
        Ok(Params {
            w1: Tensor::zeros(W1)?,
            b1: Tensor::zeros([1, C1])?,
            w2: Tensor::zeros(W2)?,
            b2: Tensor::zeros([1, C2])?,
            w3: Tensor::zeros(W3)?,
            b3: Tensor::zeros([1, CLASSES])?,
        })
    }

    /// He's initialisation, uniform: weights within +-sqrt(6 / fan-in), biases 0 (He et al., arXiv 1502.01852).
    pub(crate) fn init(seed: u64) -> Result<Params, Error> {
        let mut params = Self::zeros()?;
        let weights = [(&mut params.w1, 9), (&mut params.w2, 9 * C1), (&mut params.w3, FLAT)];
        for (stream, (weights, fan_in)) in (seed..).zip(weights) {
            let bound = (6.0 / fan_in as f32).sqrt();
            for (i, value) in (0..).zip(weights.as_mut_slice()) {
                // 24 random bits make a whole number that f32 holds exactly; it is brought to -1..1.
                *value = ((random(stream, i) >> 40) as f32 / (1 << 23) as f32 - 1.0) * bound;
            }
        }
        Ok(params)
    }

    /// All of them in a fixed order.
    pub(crate) fn all(&self) -> [&[f32]; 6] {
        [&self.w1, &self.b1, &self.w2, &self.b2, &self.w3, &self.b3].map(Tensor::as_slice)
    }

    /// All of them in the same order, to write.
    pub(crate) fn all_mut(&mut self) -> [&mut [f32]; 6] {
        [&mut self.w1, &mut self.b1, &mut self.w2, &mut self.b2, &mut self.w3, &mut self.b3]
            .map(Tensor::as_mut_slice)
    }
}

/// Loss and hits, summed over images.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    pub(crate) loss: f64,
    pub(crate) right: usize,
    pub(crate) images: usize,
}

impl Score {
    pub(crate) fn add(&mut self, other: Score) {
        self.loss += other.loss;
        self.right += other.right;
        self.images += other.images;
    }

    pub(crate) fn mean_loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    /// Percent told right.
    pub(crate) fn accuracy(&self) -> f64 {
        100.0 * self.right as f64 / self.images as f64
    }
}

/// The network planned for one batch size: plans, activations and weights in `T`, gradients in `G`.
pub(crate) struct Net<'p, T, G> {
    n: usize,
    context: Context<'p>,
    forward1: Stage<ConvPlan<'p>>,
    forward2: Stage<ConvPlan<'p>>,
    forward3: Stage<MatmulPlan<'p>>,
    weights3: Stage<MatmulPlan<'p>>,
    bias3: Stage<MatmulPlan<'p>>,
    data3: Stage<MatmulPlan<'p>>,
    weights2: Stage<ConvPlan<'p>>,
    bias2: Stage<MatmulPlan<'p>>,
    data2: Stage<ConvPlan<'p>>,
    weights1: Stage<ConvPlan<'p>>,
    bias1: Stage<MatmulPlan<'p>>,
    w1: Kept<T>,
    w2: Kept<T>,
    w3: Kept<T>,
    /// The images; after each layer its output, and in the backward pass the gradient of that output.
    x: Kept<T>,
    a1: Kept<T>,
    d1: Kept<G>,
    a2: Kept<T>,
    d2: Kept<G>,
    /// Logits; in the backward pass their gradient.
    logits: Kept<G>,
    ones: Kept<T>,
    /// Gradients of the weights on their way to the optimiser.
    g1: Kept<G>,
    g2: Kept<G>,
    g3: Kept<G>,
    /// Stochastic roundings so far: each has a seed of its own.
    roundings: u64,
}

impl<'p, T: Element, G: Element> Net<'p, T, G> {
    pub(crate) fn new(n: usize, context: &Context<'p>) -> Result<Self, Error> {
        let (w1, w2, w3) = (Kept::<T>::zeros(&W1)?, Kept::<T>::zeros(&W2)?, Kept::<T>::zeros(&W3)?);
        let (g1, g2, g3) = (Kept::<G>::zeros(&W1)?, Kept::<G>::zeros(&W2)?, Kept::<G>::zeros(&W3)?);
        let (first, second) = ([n, SIDE, SIDE, C1], [n, HALF, HALF, C2]);
        let x = Kept::<T>::zeros(&[n, SIDE, SIDE, 1])?;
        let (a1, a2) = (Kept::<T>::zeros(&first)?, Kept::<T>::zeros(&second)?);
        let (d1, d2) = (Kept::<G>::zeros(&first)?, Kept::<G>::zeros(&second)?);
        let logits = Kept::<G>::zeros(&[n, CLASSES])?;
        let mut ones = Kept::<T>::zeros(&[n * SIDE * SIDE])?;
        ones.wide.as_mut_slice().fill(1.0);
        ones.keep(Rounding::Nearest, context)?;
        let conv = |op: Convolution| Ok::<_, Error>(Stage::new(op.plan(context)?));
        let product = |op: Matmul| Ok::<_, Error>(Stage::new(op.plan(context)?));
        let (x_image, a1_image) = (image(&x)?.spec(), image(&a1)?.spec());
        let (d1_image, d2_image) = (image(&d1)?.spec(), image(&d2)?.spec());
        // Every result is f32.
        let (a1_out, a2_out) = (wide_image(&a1)?.spec(), wide_image(&a2)?.spec());
        let d1_out = wide_image(&d1)?.spec();
        let (w1_out, w2_out, w3_out) = (g1.wide.view().spec(), g2.wide.view().spec(), g3.wide.view().spec());
        let (flat, dy) = (a2.rows(FLAT)?, logits.view()?.spec());
        let flat_out = View::new(d2.wide.as_slice(), [n, FLAT])?.spec();
        let sums = |len: usize, gradient: View<'_, G>, channels: usize| {
            let out = Tensor::<f32>::zeros([1, channels])?;
            product(Matmul::new(sum_of(&ones, len)?.spec(), gradient.spec(), out.view().spec())?)
        };
        Ok(Net {
            n,
            context: *context,
            forward1: conv(Convolution::forward(x_image, w1.view()?.spec(), a1_out, &CONV1)?)?,
            forward2: conv(Convolution::forward(a1_image, w2.view()?.spec(), a2_out, &CONV2)?)?,
            forward3: product(Matmul::new(flat.spec(), w3.view()?.spec(), logits.wide.view().spec())?)?,
            weights3: product(Matmul::new(flat.transpose()?.spec(), dy, w3_out)?)?,
            bias3: sums(n, logits.view()?, CLASSES)?,
            data3: product(Matmul::new(dy, w3.view()?.transpose()?.spec(), flat_out)?)?,
            weights2: conv(Convolution::backward_weights(a1_image, d2_image, w2_out, &CONV2)?)?,
            bias2: sums(n * HALF * HALF, d2.rows(C2)?, C2)?,
            data2: conv(Convolution::backward_data(d2_image, w2.view()?.spec(), d1_out, &CONV2)?)?,
            weights1: conv(Convolution::backward_weights(x_image, d1_image, w1_out, &CONV1)?)?,
            bias1: sums(n * SIDE * SIDE, d1.rows(C1)?, C1)?,
            w1,
            w2,
            w3,
            g1,
            g2,
            g3,
            x,
            a1,
            d1,
            a2,
            d2,
            logits,
            ones,
            roundings: 0,
        })
    }

    /// Images in this network's batch.
    pub(crate) fn batch(&self) -> usize {
        self.n
    }

    /// From images to logits, and from those to the score; the logits become their gradient.
    pub(crate) fn forward(&mut self, p: &Params, batch: &Digits, meter: &mut Meter) -> Result<Score, Error> {
        let (nearest, context) = (Rounding::Nearest, self.context);
        for (kept, values) in [(&mut self.w1, &p.w1), (&mut self.w2, &p.w2), (&mut self.w3, &p.w3)]
            .map(|(kept, w)| (kept, w.as_slice()))
        {
            kept.wide.as_mut_slice().copy_from_slice(values);
            kept.keep(nearest, &context)?;
        }
        self.x.wide.as_mut_slice().copy_from_slice(&batch.pixels);
        self.x.keep(nearest, &context)?;
        let relu = |bias| Epilogue { bias: Some(bias), act: Act::Relu, ..Epilogue::default() };
        let a1 = self.a1.wide.view_mut().permute(&NCHW)?;
        self.forward1.run(meter, image(&self.x)?, self.w1.view()?, a1, relu(p.b1.as_slice()))?;
        self.a1.keep(nearest, &context)?;
        let a2 = self.a2.wide.view_mut().permute(&NCHW)?;
        self.forward2.run(meter, image(&self.a1)?, self.w2.view()?, a2, relu(p.b2.as_slice()))?;
        self.a2.keep(nearest, &context)?;
        let bias = Epilogue { bias: Some(p.b3.as_slice()), ..Epilogue::default() };
        let logits = self.logits.wide.view_mut();
        self.forward3.run(meter, self.a2.rows(FLAT)?, self.w3.view()?, logits, bias)?;
        Ok(softmax_cross_entropy(&mut self.logits.wide, &batch.labels))
    }

    /// From the gradient of the logits to that of every parameter.
    pub(crate) fn backward(&mut self, grad: &mut Params, meter: &mut Meter) -> Result<(), Error> {
        let (plain, context, n) = (Epilogue::default(), self.context, self.n);
        let mut roundings = self.roundings;
        let mut stochastic = || {
            roundings += 1;
            Rounding::Stochastic { seed: roundings }
        };
        self.logits.keep(stochastic(), &context)?;
        let (dy, flat) = (self.logits.view()?, self.a2.rows(FLAT)?);
        self.weights3.run(meter, flat.transpose()?, dy, self.g3.wide.view_mut(), plain)?;
        self.bias3.run(meter, sum_of(&self.ones, n)?, dy, grad.b3.view_mut(), plain)?;
        let d2 = ViewMut::new(self.d2.wide.as_mut_slice(), [n, FLAT])?;
        self.data3.run(meter, dy, self.w3.view()?.transpose()?, d2, plain)?;
        through_relu(&mut self.d2.wide, &self.a2.wide);
        self.d2.keep(stochastic(), &context)?;
        self.weights2.run(meter, image(&self.a1)?, image(&self.d2)?, self.g2.wide.view_mut(), plain)?;
        let ones = sum_of(&self.ones, n * HALF * HALF)?;
        self.bias2.run(meter, ones, self.d2.rows(C2)?, grad.b2.view_mut(), plain)?;
        let d1 = self.d1.wide.view_mut().permute(&NCHW)?;
        self.data2.run(meter, image(&self.d2)?, self.w2.view()?, d1, plain)?;
        through_relu(&mut self.d1.wide, &self.a1.wide);
        self.d1.keep(stochastic(), &context)?;
        self.weights1.run(meter, image(&self.x)?, image(&self.d1)?, self.g1.wide.view_mut(), plain)?;
        let ones = sum_of(&self.ones, n * SIDE * SIDE)?;
        self.bias1.run(meter, ones, self.d1.rows(C1)?, grad.b1.view_mut(), plain)?;
        let gradients =
            [(&mut self.g1, &mut grad.w1), (&mut self.g2, &mut grad.w2), (&mut self.g3, &mut grad.w3)];
        for (kept, gradient) in gradients {
            kept.keep(stochastic(), &context)?;
            gradient.as_mut_slice().copy_from_slice(kept.wide.as_slice());
        }
        self.roundings = roundings;
        Ok(())
    }
}

/// Channels-last memory as `[n, c, h, w]`.
fn image<T: Element>(kept: &Kept<T>) -> Result<View<'_, T>, Error> {
    kept.view()?.permute(&NCHW)
}

/// The same of what was computed.
fn wide_image<T: Element>(kept: &Kept<T>) -> Result<View<'_, f32>, Error> {
    kept.wide.view().permute(&NCHW)
}

/// A row of `n` ones: times a matrix, the sum of its rows.
fn sum_of<T: Element>(ones: &Kept<T>, n: usize) -> Result<View<'_, T>, Error> {
    ones.first(n)
}

/// The gradient passes where the activation was positive.
fn through_relu(gradient: &mut Tensor<f32>, activation: &Tensor<f32>) {
    for (gradient, &activation) in gradient.as_mut_slice().iter_mut().zip(activation.as_slice()) {
        if activation <= 0.0 {
            *gradient = 0.0;
        }
    }
}

/// Cross entropy of the softmax; the logits become its gradient, `(softmax - one hot) / n`.
fn softmax_cross_entropy(logits: &mut Tensor<f32>, labels: &[usize]) -> Score {
    let mut score = Score { images: labels.len(), ..Score::default() };
    let scale = 1.0 / labels.len() as f32;
    for (row, &label) in logits.as_mut_slice().chunks_exact_mut(CLASSES).zip(labels) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let first = row.iter().position(|&v| v == most);
        score.right += usize::from(first == Some(label));
        row.iter_mut().for_each(|v| *v -= most);
        let shifted = row[label];
        map(Function::Exp, row);
        let sum: f32 = row.iter().sum();
        score.loss += f64::from(sum).ln() - f64::from(shifted);
        row.iter_mut().for_each(|v| *v = *v / sum * scale);
        row[label] -= scale;
    }
    score
}
