//! exp, tanh, erf and the activations as fixed sequences of fma (N6): the same bits in every lane of every token.
//!
//! Written once over [`MathLanes`]; with [`Scalar`](crate::simd::Scalar) they are the definition. Each is a range reduction
//! and a polynomial whose coefficients `kernels/tools/fit_math.py` prints (interpolation at Chebyshev nodes, rounded to f32).
//! The measured error of each over all 2^32 inputs is stated at the function and kept by the tests in this file: the dense
//! sample runs always, the whole range with `cargo test --release -p tile25-kernels -- --ignored`.

use std::fmt;

use crate::isa::Isa;
use crate::simd::{Lanes, MathLanes, Simd, WithSimd};

/// An activation function. Formulas and errors: the module's page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Act {
    /// The identity.
    #[default]
    None,
    /// `max(0, x)`; a NaN stays, -0 stays.
    Relu,
    /// `x (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `x sigmoid(x)`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::None => "none",
            Act::Relu => "relu",
            Act::Gelu => "gelu",
            Act::Silu => "silu",
            Act::Tanh => "tanh",
            Act::Sigmoid => "sigmoid",
        })
    }
}

/// `1.5 * 2^23`: added and subtracted, it rounds a small float to a whole number, ties to even.
const ROUND: f32 = 12_582_912.0;
/// The high bits of ln 2, exact in 17 bits, so that a multiple of it below 2^7 is exact.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// Horner's rule, coefficients highest first, one fma a step.
#[inline(always)]
fn poly<S: MathLanes, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = s.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        sum = s.mul_add(sum, x, s.splat(c));
    }
    sum
}

/// `e^x`. At most 1 ulp; subnormal results are kept, +Inf from 88.72284 on, 0 below -103.97.
#[inline(always)]
pub fn exp<S: MathLanes>(s: S, x: S::V) -> S::V {
    // Beyond these the result is Inf or 0 anyway; a NaN passes (it is the second operand).
    let x = s.max(s.splat(-105.0), s.min(s.splat(90.0), x));
    // x = n ln 2 + r, |r| <= ln 2 / 2
    let n = s.sub(s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND)), s.splat(ROUND));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    // e^r = 1 + (r + r^2 q(r))
    let q = poly(s, r, [0.000_198_911_03, 0.001_393_375_1, 0.008_333_31, 0.041_666_463, 0.166_666_67, 0.5]);
    let p = s.add(s.mul_add(s.mul(r, r), q, r), s.splat(1.0));
    // 2^n in two factors: the first product is exact, the second rounds once, into Inf or the subnormals if need be.
    let half = s.sub(s.mul_add(n, s.splat(0.5), s.splat(ROUND)), s.splat(ROUND));
    let rest = s.sub(n, half);
    s.mul(s.mul(p, s.exp2_int(half)), s.exp2_int(rest))
}

/// The hyperbolic tangent. At most 2 ulp.
#[inline(always)]
pub fn tanh<S: MathLanes>(s: S, x: S::V) -> S::V {
    let a = s.abs(x);
    let u = s.mul(a, a);
    let q = poly(
        s,
        u,
        [0.002_292_744_8, -0.008_343_945, 0.021_768_918, -0.053_959_258, 0.133_333_04, -0.333_333_34],
    );
    let small = s.mul_add(s.mul(a, u), q, a);
    // tanh a = 1 - 2 / (e^2a + 1)
    let e = exp(s, s.add(a, a));
    let large = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    s.xor_sign(s.select(s.less(a, s.splat(0.625)), small, large), x)
}

/// The error function. At most 2 ulp.
#[inline(always)]
pub fn erf<S: MathLanes>(s: S, x: S::V) -> S::V {
    let a = s.abs(x);
    let u = s.mul(a, a);
    let q = poly(
        s,
        u,
        [
            7.875_874e-5,
            -0.000_801_686_4,
            0.005_189_087,
            -0.026_854_211,
            0.112_835_94,
            -0.376_126_26,
            0.128_379_17,
        ],
    );
    let small = s.mul_add(a, q, a);
    // erf a = 1 - e^(ln erfc a), a polynomial in the exponent; from 4 on erf is 1.
    let t = s.sub(s.min(s.splat(4.0), a), s.splat(2.0));
    let ln_erfc = poly(
        s,
        t,
        [
            1.637_151_4e-6,
            -1.986_362e-5,
            0.000_135_353_98,
            -0.000_733_360_5,
            0.003_570_868_2,
            -0.016_464_675,
            -0.923_750_9,
            -4.418_161,
            -5.364_941,
        ],
    );
    let large = s.sub(s.splat(1.0), exp(s, ln_erfc));
    s.xor_sign(s.select(s.less(a, s.splat(1.0)), small, large), x)
}

/// `1 / (1 + e^-x)`. At most 3 ulp from -87 up; below, the result is under 2^-125 and flushes to 0 from -88.73 down.
#[inline(always)]
pub fn sigmoid<S: MathLanes>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// `x sigmoid(x)`. At most 4 ulp from -87 up.
#[inline(always)]
pub fn silu<S: MathLanes>(s: S, x: S::V) -> S::V {
    s.mul(x, sigmoid(s, x))
}

/// `x (1 + erf(x / sqrt 2)) / 2`, the exact form. Within 4 ulp for x >= 0; within 2^-22 of the true value for x < 0, where the
/// sum cancels.
#[inline(always)]
pub fn gelu<S: MathLanes>(s: S, x: S::V) -> S::V {
    let phi = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(x, s.mul_add(phi, s.splat(0.5), s.splat(0.5)))
}

/// An activation in f32: never `None`.
#[inline(always)]
pub(crate) fn activate_f32<S: MathLanes>(s: S, act: Act, v: S::V) -> Option<S::V> {
    Some(match act {
        Act::None => v,
        Act::Relu => s.max(s.splat(0.0), v),
        Act::Gelu => gelu(s, v),
        Act::Silu => silu(s, v),
        Act::Tanh => tanh(s, v),
        Act::Sigmoid => sigmoid(s, v),
    })
}

/// A function of one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// [`exp`]
    Exp,
    /// [`tanh`]
    Tanh,
    /// [`erf`]
    Erf,
    /// [`sigmoid`]
    Sigmoid,
    /// [`silu`]
    Silu,
    /// [`gelu`]
    Gelu,
}

impl Function {
    #[inline(always)]
    fn eval<S: MathLanes>(self, s: S, x: S::V) -> S::V {
        match self {
            Function::Exp => exp(s, x),
            Function::Tanh => tanh(s, x),
            Function::Erf => erf(s, x),
            Function::Sigmoid => sigmoid(s, x),
            Function::Silu => silu(s, x),
            Function::Gelu => gelu(s, x),
        }
    }
}

struct Map<'a>(Function, &'a mut [f32]);

impl WithSimd for Map<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        for chunk in self.1.chunks_mut(<S as Lanes<f32>>::LANES) {
            let n = chunk.len();
            let v = Lanes::<f32>::load_first_n(s, chunk, n);
            Lanes::<f32>::store_first_n(s, chunk, n, self.0.eval(s, v));
        }
    }
}

/// Replaces each value `x` by `function(x)`: the same bits on every instruction set.
pub fn map(isa: Isa, function: Function, values: &mut [f32]) {
    isa.dispatch_but_dots(Map(function, values));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    type Real = fn(f64) -> f64;

    /// Each function, its definition in f64, its stated bound: ulp of the result and an absolute allowance.
    const FUNCTIONS: [(&str, Real, f64, Real); 6] = [
        ("exp", f64::exp, 1.0, |_| 0.0),
        ("tanh", f64::tanh, 2.0, |_| 0.0),
        ("erf", libm::erf, 2.0, |_| 0.0),
        ("sigmoid", |x| 1.0 / (1.0 + (-x).exp()), 3.0, |x| if x < -87.0 { 2f64.powi(-125) } else { 0.0 }),
        ("silu", |x| x / (1.0 + (-x).exp()), 4.0, |x| if x < -87.0 { 2f64.powi(-118) } else { 0.0 }),
        (
            "gelu",
            |x| 0.5 * x * libm::erfc(-x / 2f64.sqrt()),
            4.0,
            |x| if x < 0.0 { 2f64.powi(-22) } else { 0.0 },
        ),
    ];

    const ORDER: [Function; 6] =
        [Function::Exp, Function::Tanh, Function::Erf, Function::Sigmoid, Function::Silu, Function::Gelu];

    /// The distance between neighbours of f32 at `y`.
    fn ulp(y: f64) -> f64 {
        let exponent = if y == 0.0 { -149 } else { (y.abs().log2().floor() as i32).max(-126) - 23 };
        2f64.powi(exponent.max(-149))
    }

    /// Checks inputs of the given bit patterns; returns the worst error of each function in ulp beyond its allowance.
    fn check(bits: impl Iterator<Item = u32> + Clone) -> [f64; 6] {
        let mut worst = [0.0f64; 6];
        for (f, &(name, wanted, bound, allowance)) in FUNCTIONS.iter().enumerate() {
            let mut iter = bits.clone().map(f32::from_bits).peekable();
            while iter.peek().is_some() {
                let inputs: Vec<f32> = iter.by_ref().take(4096).collect();
                let defined: Vec<f32> = inputs.iter().map(|&x| ORDER[f].eval(Scalar, x)).collect();
                for isa in Isa::available() {
                    let mut got = inputs.clone();
                    map(isa, ORDER[f], &mut got);
                    for ((x, got), want) in inputs.iter().zip(&got).zip(&defined) {
                        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                        assert!(
                            same,
                            "{name}({x:e}) on {isa}: {got:e}, the scalar definition gives {want:e}"
                        );
                    }
                }
                for (&x, &got) in inputs.iter().zip(&defined) {
                    let want = wanted(f64::from(x));
                    if want.is_nan() || x.is_nan() {
                        assert!(got.is_nan() || f >= 3, "{name}({x:e}) = {got:e}");
                        continue;
                    }
                    if x.is_infinite() {
                        continue; // the limits have a test of their own
                    }
                    if want.abs() > f64::from(f32::MAX) {
                        let rounds_up = want.abs() >= 2f64.powi(128) - 2f64.powi(103);
                        assert!(got.is_infinite() || !rounds_up, "{name}({x:e}) = {got:e}");
                        continue;
                    }
                    let error =
                        ((f64::from(got) - want).abs() - allowance(f64::from(x))).max(0.0) / ulp(want);
                    assert!(error <= bound, "{name}({x:e}) = {got:e}, want {want:e}: {error} ulp");
                    worst[f] = worst[f].max(error);
                }
            }
        }
        worst
    }

    #[test]
    fn dense_sample_is_the_same_everywhere_and_within_the_stated_error() {
        // A step prime to 2^32: every exponent, both signs.
        let worst = check((0..1u64 << 32).step_by(20_011).map(|bits| bits as u32));
        println!("worst error in ulp: {worst:.3?}");
        // The ranges where the functions bend, more finely.
        check((0x3000_0000u32..0x4300_0000).step_by(1009));
        check((0xb000_0000u32..0xc300_0000).step_by(1009));
    }

    #[test]
    #[ignore = "all 2^32 inputs take minutes"]
    fn every_input_is_the_same_everywhere_and_within_the_stated_error() {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()) as u64;
        let share = (1u64 << 32) / threads;
        let worst = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads)
                .map(|t| {
                    let end = if t + 1 == threads { 1 << 32 } else { (t + 1) * share };
                    scope.spawn(move || check((t * share..end).map(|bits| bits as u32)))
                })
                .collect();
            parts
                .into_iter()
                .map(|part| part.join().unwrap())
                .fold([0.0f64; 6], |worst, part| std::array::from_fn(|f| worst[f].max(part[f])))
        });
        println!("worst error in ulp: {worst:.3?}");
    }

    #[test]
    fn limits_and_signs() {
        let eval = |f: usize, x| ORDER[f].eval(Scalar, x);
        assert_eq!(eval(0, f32::INFINITY), f32::INFINITY);
        assert_eq!(eval(0, f32::NEG_INFINITY), 0.0);
        for f in [1, 2] {
            assert_eq!(eval(f, f32::INFINITY), 1.0);
            assert_eq!(eval(f, f32::NEG_INFINITY), -1.0);
            assert_eq!(eval(f, -0.0).to_bits(), (-0.0f32).to_bits());
        }
        assert_eq!((eval(3, f32::INFINITY), eval(3, f32::NEG_INFINITY)), (1.0, 0.0));
        for f in 0..6 {
            assert!(eval(f, f32::NAN).is_nan());
        }
    }
}
