//! Two convolutions and a linear layer, forward and backward; every sum of products is a planned run of tile25.
//!
//! ```text
//! x [n, 1, 8, 8] -> conv 3 x 3, 16 channels, relu -> conv 3 x 3, stride 2, 32 channels, relu -> linear, 10 classes -> softmax
//! ```
//!
//! Activations lie channels-last, so the linear layer reads them as they are and a bias gradient is one product with ones.

use tile25::conv::{Conv, ConvPlan, Convolution};
use tile25::math::{Function, map};
use tile25::{Act, Context, Epilogue, Error, Matmul, MatmulPlan, Tensor, View};

use crate::data::{CLASSES, Digits, SIDE, random};
use crate::meter::{Meter, Stage};

const C1: usize = 16;
const C2: usize = 32;
const HALF: usize = SIDE / 2;
const FLAT: usize = HALF * HALF * C2;

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
            w1: Tensor::zeros([C1, 1, 3, 3])?,
            b1: Tensor::zeros([1, C1])?,
            w2: Tensor::zeros([C2, C1, 3, 3])?,
            b2: Tensor::zeros([1, C2])?,
            w3: Tensor::zeros([FLAT, CLASSES])?,
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

/// The network planned for one batch size: plans, activations, gradients of activations.
pub(crate) struct Net<'p> {
    n: usize,
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
    /// The images; after each layer its output, and in the backward pass the gradient of that output.
    x: Tensor<f32>,
    a1: Tensor<f32>,
    d1: Tensor<f32>,
    a2: Tensor<f32>,
    d2: Tensor<f32>,
    /// Logits; in the backward pass their gradient.
    logits: Tensor<f32>,
    ones: Tensor<f32>,
}

impl<'p> Net<'p> {
    pub(crate) fn new(n: usize, context: &Context<'p>) -> Result<Net<'p>, Error> {
        let params = Params::zeros()?;
        let (w1, w2, w3) = (params.w1.view().spec(), params.w2.view().spec(), params.w3.view());
        let x = Tensor::zeros([n, SIDE, SIDE, 1])?;
        let a1 = Tensor::zeros([n, SIDE, SIDE, C1])?;
        let a2 = Tensor::zeros([n, HALF, HALF, C2])?;
        let logits = Tensor::zeros([n, CLASSES])?;
        let ones = Tensor::from_fn([n * SIDE * SIDE], |_| 1.0)?;
        let (x_image, a1_image, a2_image) = (image(&x)?.spec(), image(&a1)?.spec(), image(&a2)?.spec());
        let conv = |op: Convolution| Ok::<_, Error>(Stage::new(op.plan(context)?));
        let product = |lhs: View<'_, f32>, rhs: View<'_, f32>, out: View<'_, f32>| {
            Ok::<_, Error>(Stage::new(Matmul::new(lhs.spec(), rhs.spec(), out.spec())?.plan(context)?))
        };
        let flat = rows(&a2, FLAT)?;
        Ok(Net {
            n,
            forward1: conv(Convolution::forward(x_image, w1, a1_image, &CONV1)?)?,
            forward2: conv(Convolution::forward(a1_image, w2, a2_image, &CONV2)?)?,
            forward3: product(flat, w3, logits.view())?,
            weights3: product(flat.transpose()?, logits.view(), w3)?,
            bias3: product(sum_of(&ones, n)?, logits.view(), params.b3.view())?,
            data3: product(logits.view(), w3.transpose()?, flat)?,
            weights2: conv(Convolution::backward_weights(a1_image, a2_image, w2, &CONV2)?)?,
            bias2: product(sum_of(&ones, n * HALF * HALF)?, rows(&a2, C2)?, params.b2.view())?,
            data2: conv(Convolution::backward_data(a2_image, w2, a1_image, &CONV2)?)?,
            weights1: conv(Convolution::backward_weights(x_image, a1_image, w1, &CONV1)?)?,
            bias1: product(sum_of(&ones, n * SIDE * SIDE)?, rows(&a1, C1)?, params.b1.view())?,
            d1: a1.clone(),
            d2: a2.clone(),
            x,
            a1,
            a2,
            logits,
            ones,
        })
    }

    /// Images in this network's batch.
    pub(crate) fn batch(&self) -> usize {
        self.n
    }

    /// From images to logits, and from those to the score; the logits become their gradient.
    pub(crate) fn forward(&mut self, p: &Params, batch: &Digits, meter: &mut Meter) -> Result<Score, Error> {
        self.x.as_mut_slice().copy_from_slice(&batch.pixels);
        let relu = |bias| Epilogue { bias: Some(bias), act: Act::Relu, ..Epilogue::default() };
        let a1 = self.a1.view_mut().permute(&NCHW)?;
        self.forward1.run(meter, image(&self.x)?, p.w1.view(), a1, relu(p.b1.as_slice()))?;
        let a2 = self.a2.view_mut().permute(&NCHW)?;
        self.forward2.run(meter, image(&self.a1)?, p.w2.view(), a2, relu(p.b2.as_slice()))?;
        let bias = Epilogue { bias: Some(p.b3.as_slice()), ..Epilogue::default() };
        self.forward3.run(meter, rows(&self.a2, FLAT)?, p.w3.view(), self.logits.view_mut(), bias)?;
        Ok(softmax_cross_entropy(&mut self.logits, &batch.labels))
    }

    /// From the gradient of the logits to that of every parameter.
    pub(crate) fn backward(&mut self, p: &Params, grad: &mut Params, meter: &mut Meter) -> Result<(), Error> {
        let plain = Epilogue::default();
        let dy = self.logits.view();
        let flat = rows(&self.a2, FLAT)?;
        self.weights3.run(meter, flat.transpose()?, dy, grad.w3.view_mut(), plain)?;
        self.bias3.run(meter, sum_of(&self.ones, self.n)?, dy, grad.b3.view_mut(), plain)?;
        let d2 = tile25::ViewMut::new(self.d2.as_mut_slice(), [self.n, FLAT])?;
        self.data3.run(meter, dy, p.w3.view().transpose()?, d2, plain)?;
        through_relu(&mut self.d2, &self.a2);
        self.weights2.run(meter, image(&self.a1)?, image(&self.d2)?, grad.w2.view_mut(), plain)?;
        self.bias2.run(
            meter,
            sum_of(&self.ones, self.n * HALF * HALF)?,
            rows(&self.d2, C2)?,
            grad.b2.view_mut(),
            plain,
        )?;
        let d1 = self.d1.view_mut().permute(&NCHW)?;
        self.data2.run(meter, image(&self.d2)?, p.w2.view(), d1, plain)?;
        through_relu(&mut self.d1, &self.a1);
        self.weights1.run(meter, image(&self.x)?, image(&self.d1)?, grad.w1.view_mut(), plain)?;
        self.bias1.run(
            meter,
            sum_of(&self.ones, self.n * SIDE * SIDE)?,
            rows(&self.d1, C1)?,
            grad.b1.view_mut(),
            plain,
        )
    }
}

/// Channels-last memory as `[n, c, h, w]`.
fn image(t: &Tensor<f32>) -> Result<View<'_, f32>, Error> {
    t.view().permute(&NCHW)
}

/// The same memory as rows of `cols` values.
fn rows(t: &Tensor<f32>, cols: usize) -> Result<View<'_, f32>, Error> {
    View::new(t.as_slice(), [t.as_slice().len() / cols, cols])
}

/// A row of `n` ones: times a matrix, the sum of its rows.
fn sum_of(ones: &Tensor<f32>, n: usize) -> Result<View<'_, f32>, Error> {
    View::new(ones.as_slice(), [1, n])
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
