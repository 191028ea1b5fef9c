//! The reference against exact arithmetic: the only tolerance of the project, and where it comes from.
//!
//! N1 and N2 give each product at most `min(k, KC)` roundings inside its segment and one for each segment added after that. With
//! u = 2^-24 and c = min(k, KC) + segments, |result - exact| <= gamma_c sum |a| |b|, gamma_c = c u / (1 - c u) (Higham, Accuracy and
//! Stability of Numerical Algorithms, section 3.1). f64 products of f32 values are exact, and f64 sums err 2^29 times less.

mod support;

use support::{Kind, Laid, fill, reference};
use tile25::conv::{Conv, Convolution};
use tile25::numerics::KC;
use tile25::{Epilogue, Matmul, View, ViewMut};

fn gamma(k: usize) -> f64 {
    let c = (k.min(KC) + k.div_ceil(KC)) as f64;
    let u = 2f64.powi(-24);
    c * u / (1.0 - c * u) + c * 2f64.powi(-52)
}

#[test]
fn matmul_is_within_the_bound_of_the_contract() {
    for (seed, k) in [1, 2, 17, KC - 1, KC, KC + 1, 3 * KC + 5].into_iter().enumerate() {
        let (m, n) = (9, 11);
        let a = Laid::<f32>::new(&[m, k], 10 + seed as u64, false, Kind::Wide);
        let b = Laid::<f32>::new(&[k, n], 90 + seed as u64, false, Kind::Smooth);
        let mut out = vec![0f32; m * n];
        let view = ViewMut::new(&mut out, [m, n]).unwrap();
        let plan =
            Matmul::new(a.view().spec(), b.view().spec(), view.spec()).unwrap().plan(&reference()).unwrap();
        plan.run(a.view(), b.view(), view, Epilogue::default(), &mut plan.workspace()).unwrap();
        let at = |laid: &Laid<f32>, i: usize, j: usize| {
            let s = laid.layout.strides();
            f64::from(laid.data[(laid.start as isize + i as isize * s[0] + j as isize * s[1]) as usize])
        };
        for i in 0..m {
            for j in 0..n {
                let products: Vec<f64> = (0..k).map(|p| at(&a, i, p) * at(&b, p, j)).collect();
                let exact: f64 = products.iter().sum();
                let size: f64 = products.iter().map(|p| p.abs()).sum();
                let error = (f64::from(out[i * n + j]) - exact).abs();
                assert!(error <= gamma(k) * size, "k = {k}: error {error:e}, bound {:e}", gamma(k) * size);
            }
        }
    }
}

/// `<conv(x, w), y> = <x, backward_data(y, w)> = <w, backward_weights(x, y)>`: the three directions are one trilinear form. Each gradient is also that of
/// central differences, whose step may be 1: the form is linear in each operand.
#[test]
fn the_directions_of_a_convolution_are_adjoint() {
    let (mut rng, mut entries) = (support::Rng::new(3), support::Rng::new(4));
    for _ in 0..60 {
        let mut below = |n: usize| rng.below(n);
        let groups = 1 + below(3);
        let (batch, c_in, c_out) = (1 + below(3), groups * (1 + below(4)), groups * (1 + below(4)));
        let conv = Conv::<2> {
            stride: [1 + below(3), 1 + below(3)],
            padding: [(below(4), below(4)), (below(4), below(4))],
            dilation: [1 + below(3), 1 + below(3)],
            groups,
        };
        let kernel = [1 + below(3), 1 + below(4)];
        let input = [1 + below(9), 1 + below(9)];
        let Some(output) = (0..2)
            .map(|d| {
                let padded = input[d] + conv.padding[d].0 + conv.padding[d].1;
                Some(padded.checked_sub(conv.dilation[d] * (kernel[d] - 1) + 1)? / conv.stride[d] + 1)
            })
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let x_dims = [batch, c_in, input[0], input[1]];
        let w_dims = [c_out, c_in / groups, kernel[0], kernel[1]];
        let y_dims = [batch, c_out, output[0], output[1]];
        let len = |dims: &[usize; 4]| dims.iter().product::<usize>();
        let x: Vec<f64> = fill(&mut rng, len(&x_dims), Kind::Smooth);
        let w: Vec<f64> = fill(&mut rng, len(&w_dims), Kind::Smooth);
        let dy: Vec<f64> = fill(&mut rng, len(&y_dims), Kind::Smooth);
        let view = |data, dims| View::<f64>::new(data, dims).unwrap();
        let run = |op: Convolution, a: View<'_, f64>, b: View<'_, f64>, dims: [usize; 4]| {
            let mut out = vec![0.0; len(&dims)];
            let plan = op.plan(&reference()).unwrap();
            let target = ViewMut::new(&mut out, dims).unwrap();
            plan.run(a, b, target, Epilogue::default(), &mut plan.workspace()).unwrap();
            out
        };
        let (xv, wv, dv) = (view(&x, x_dims), view(&w, w_dims), view(&dy, y_dims));
        let y = run(Convolution::forward(xv.spec(), wv.spec(), dv.spec(), &conv).unwrap(), xv, wv, y_dims);
        let dx =
            run(Convolution::backward_data(dv.spec(), wv.spec(), xv.spec(), &conv).unwrap(), dv, wv, x_dims);
        let dw = run(
            Convolution::backward_weights(xv.spec(), dv.spec(), wv.spec(), &conv).unwrap(),
            xv,
            dv,
            w_dims,
        );
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let size = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum() };
        let forms = [dot(&y, &dy), dot(&x, &dx), dot(&w, &dw)];
        // Every entry is a sum of products below 1 in size: at most `terms` roundings of each term in each of two nested sums.
        let terms = (len(&w_dims) * len(&x_dims) * len(&y_dims)) as f64;
        let bound = 2f64.powi(-53) * terms * (1.0 + size(&y, &dy));
        for form in forms {
            assert!(
                (form - forms[0]).abs() <= bound,
                "{forms:?} differ by more than {bound:e}: {conv:?} {x_dims:?} {w_dims:?}"
            );
        }
        let forward = |x: &[f64], w: &[f64]| {
            let (xv, wv) = (View::new(x, x_dims).unwrap(), View::new(w, w_dims).unwrap());
            let op = Convolution::forward(xv.spec(), wv.spec(), dv.spec(), &conv).unwrap();
            dot(&run(op, xv, wv, y_dims), &dy)
        };
        for _ in 0..3 {
            let (i, j) = (entries.below(x.len()), entries.below(w.len()));
            let moved = |values: &[f64], at: usize, by: f64| {
                let mut values = values.to_vec();
                values[at] += by;
                values
            };
            let of_x = (forward(&moved(&x, i, 1.0), &w) - forward(&moved(&x, i, -1.0), &w)) / 2.0;
            let of_w = (forward(&x, &moved(&w, j, 1.0)) - forward(&x, &moved(&w, j, -1.0))) / 2.0;
            for (difference, gradient) in [(of_x, dx[i]), (of_w, dw[j])] {
                // The moved entry is at most 2 in size: four times as many roundings of the form.
                assert!(
                    (difference - gradient).abs() <= 4.0 * bound,
                    "{difference} is not {gradient}: {conv:?}"
                );
            }
        }
    }
}
