//! Products and convolutions of bf16 by every way: where there is a dot product of two, pairs of channels, and what its exponent guard makes of them. Convolutions of f32 that have the same loops.

mod support;

use support::{Draw, Rng, assert_same_codes, contexts, draw, pools, reference};
use tile25::conv::{Conv, Convolution, Weights};
use tile25::format::{Element, Format, bf16};
use tile25::numerics::KC;
use tile25::{Accum, Context, Epilogue, Layout, Matmul, Report, Spec, View, ViewMut};
use tile25_kernels::pack::Form;

/// One convolution: batch, channels in and out, groups, size of the image, of the kernel, stride, dilation, padding.
type Shape = ([usize; 4], [usize; 2], [usize; 2], usize, usize, usize);

/// Channels innermost, or positions.
fn layout([n, c, h, w]: [usize; 4], planar: bool) -> Layout {
    let strides = if planar { [c * h * w, h * w, w, 1] } else { [h * w * c, 1, w * c, c] };
    Layout::strided(&[n, c, h, w], &strides.map(|stride| stride as isize)).unwrap()
}

fn len(layout: &Layout) -> usize {
    layout.dims().iter().product()
}

/// Whether bf16 is multiplied by its dot product.
fn has_pairs(context: &Context<'_>) -> bool {
    let spec = Spec { format: Format::Bf16, layout: Layout::contiguous(&[8, 8]).unwrap() };
    Matmul::new(spec, spec, spec).unwrap().plan(context).unwrap().kernel().form == Form::Bf16x2
}

/// Runs of pairs of every kind: one line of the kernel, several, pieces at both ends of a segment of k, an odd number of channels, more runs than a segment takes; panels of 48 and of 64 columns;
/// lines of many heights; groups; input and weights channels first and last; forward and transposed; values of all exponents.
#[test]
fn convolutions_of_pairs() {
    const SHAPES: [Shape; 11] = [
        ([1, 3, 20, 1], [15, 16], [7, 7], 2, 1, 3),
        ([2, 64, 50, 1], [9, 9], [3, 3], 1, 1, 1),
        ([1, 64, 64, 1], [6, 20], [3, 3], 2, 1, 1),
        ([1, 34, 17, 1], [5, 30], [5, 2], 1, 1, 2),
        ([1, 300, 20, 1], [4, 5], [3, 3], 2, 1, 1),
        ([1, 1100, 49, 1], [3, 3], [1, 1], 1, 1, 0),
        ([3, 64, 100, 2], [9, 11], [3, 3], 1, 2, 2),
        ([2, 24, 24, 1], [6, 6], [1, 1], 2, 1, 0),
        ([1, 6, 3, 1], [1, 150], [1, 40], 1, 1, 19),
        ([1, 2, 20, 1], [20, 21], [7, 7], 1, 2, 6),
        ([2, 12, 20, 1], [14, 19], [3, 3], 1, 6, 6),
    ];
    fn check<A: Element, C: Element>() {
        let pools = pools();
        let mut rng = Rng::new(31);
        for ([batch, c_in, c_out, groups], image, kernel, stride, dilation, pad) in SHAPES {
            let conv =
                Conv::<2> { stride: [stride; 2], padding: [(pad, pad); 2], dilation: [dilation; 2], groups };
            let size = |d: usize| (image[d] + 2 * pad - (kernel[d] - 1) * dilation - 1) / stride + 1;
            let (x, w) = ([batch, c_in, image[0], image[1]], [c_out, c_in / groups, kernel[0], kernel[1]]);
            let y = [batch, c_out, size(0), size(1)];
            for how in 0..8 {
                let (planar, turned, wide) = (how & 1 != 0, how & 2 != 0, how & 4 != 0);
                // What a transposed convolution gives has the size of x only where the stride divides it.
                let sized = (0..2)
                    .all(|d| (size(d) - 1) * stride + (kernel[d] - 1) * dilation + 1 == image[d] + 2 * pad);
                if turned && !sized {
                    continue;
                }
                // Turned, y is brought back to the size of x by the convolution transposed.
                let (first, out) = if turned { (y, x) } else { (x, y) };
                let (first, weights, out) = (layout(first, planar), layout(w, planar), layout(out, planar));
                let how_drawn = if wide { Draw::Wide } else { Draw::Smooth };
                let mut of =
                    |n: usize| -> Vec<A> { (0..n).map(|_| draw(&mut rng, A::FORMAT, how_drawn)).collect() };
                let (a, b) = (of(len(&first)), of(len(&weights)));
                let old: Vec<C> = (0..len(&out)).map(|_| draw(&mut rng, C::FORMAT, Draw::Smooth)).collect();
                let run = |context: &Context<'_>, packed: bool| {
                    let mut result = old.clone();
                    let a = View::with_layout(&a, 0, first).unwrap();
                    let b = View::with_layout(&b, 0, weights).unwrap();
                    let c = ViewMut::with_layout(&mut result, 0, out).unwrap();
                    let (of_a, of_b, of_c) = (a.spec(), b.spec(), Spec { format: C::FORMAT, layout: out });
                    let op = if turned { Convolution::transposed } else { Convolution::forward };
                    let accum = if planar { Accum::Replace } else { Accum::Add };
                    let plan = op(of_a, of_b, of_c, &conv).unwrap().accum(accum).plan(context).unwrap();
                    let mut ws = plan.workspace();
                    if packed {
                        let packed = plan.pack_weights(b).unwrap();
                        plan.run(a, &packed, c, Epilogue::default(), &mut ws).unwrap();
                    } else {
                        plan.run(a, Weights::View(b), c, Epilogue::default(), &mut ws).unwrap();
                    }
                    result
                };
                let want = run(&reference(), false);
                for context in contexts(&pools).filter(|context| context.threads.count() != 2) {
                    assert_same_codes(&run(&context, planar), &want, || {
                        let threads = context.threads.count();
                        format!("{x:?} by {w:?}, {how}, on {} and {threads}", context.isa)
                    });
                }
            }
        }
    }
    check::<bf16, f32>();
    check::<bf16, bf16>();
    check::<f32, f32>();
}

/// Several blocks of rows, of columns and of k; rows copied side by side and packed, of an even and an odd number of elements; panels of 48 columns and of 64, packed once.
#[test]
fn products_of_pairs() {
    fn check<C: Element>(draws: Draw) {
        let pools = pools();
        let mut rng = Rng::new(37);
        for [batch, m, n, k] in [
            [1, 150, 800, 64],
            [1, 17, 50, 3 * KC + 4],
            [3, 33, 49, KC + 63],
            [2, 100, 64, 2 * KC + 2],
            [2, 5, 16, 1],
            [1, 60, 70, 8 * KC + 6],
        ] {
            let mut of =
                |n: usize| -> Vec<bf16> { (0..n).map(|_| draw(&mut rng, Format::Bf16, draws)).collect() };
            let (a, b) = (of(batch * m * k), of(k * n));
            let old: Vec<C> = (0..batch * m * n).map(|_| draw(&mut rng, C::FORMAT, Draw::Smooth)).collect();
            for how in 0..4 {
                let (turned, packed) = (how & 1 != 0, how & 2 != 0);
                let run = |context: &Context<'_>, packed: bool| {
                    let mut out = old.clone();
                    let strides = if turned { [m * k, 1, m] } else { [m * k, k, 1] };
                    let a = View::strided(&a, 0, [batch, m, k], strides.map(|x| x as isize)).unwrap();
                    let b = View::new(&b, [k, n]).unwrap();
                    let c = ViewMut::new(&mut out, [batch, m, n]).unwrap();
                    let accum = if turned { Accum::Replace } else { Accum::Add };
                    let op = Matmul::new(a.spec(), b.spec(), c.spec()).unwrap().accum(accum);
                    let plan = op.plan(context).unwrap();
                    let mut ws = plan.workspace();
                    if packed {
                        plan.run(a, &plan.pack_rhs(b).unwrap(), c, Epilogue::default(), &mut ws).unwrap();
                    } else {
                        plan.run(a, b, c, Epilogue::default(), &mut ws).unwrap();
                    }
                    out
                };
                let want = run(&reference(), false);
                for context in contexts(&pools).filter(|context| context.threads.count() != 2) {
                    assert_same_codes(&run(&context, packed), &want, || {
                        let threads = context.threads.count();
                        format!("{batch} x {m} x {n} x {k}, {how}, on {} and {threads}", context.isa)
                    });
                }
            }
        }
    }
    check::<f32>(Draw::Smooth);
    check::<bf16>(Draw::Wide);
}

/// The exponent guard looks at the band of some lines and at a panel of weights: one small value widens what it meets and nothing else.
#[test]
fn small_exponents_are_widened_where_they_are() {
    let of_exponent = |exponent: i32, seed: u64, len: usize| -> Vec<bf16> {
        let mut rng = Rng::new(seed);
        let code = |bits: u64| ((exponent + 127) as u16) << 7 | (bits & 0x807f) as u16;
        (0..len).map(|_| bf16::from_bits(code(rng.next()))).collect()
    };
    let (x, w, y) = ([1, 256, 40, 12], [66, 256, 3, 3], [1, 66, 40, 12]);
    let conv = Conv::<2> { padding: [(1, 1); 2], ..Conv::default() };
    let [x, w, y] = [x, w, y].map(|dims| layout(dims, false));
    // Exponents of the input and of the weights, a code at one place of each, and how many pairs of a band and a panel are widened: none, some, all.
    let small = Some(bf16::from_bits(0x0003));
    for (at, (of_x, of_w, in_x, in_w, widened)) in [
        (-56, -56, None, None, 0),
        (-56, -57, None, None, 2),
        (0, 0, small, None, 1),
        (0, 0, None, small, 1),
        (0, 0, Some(bf16::ZERO), Some(bf16::ZERO), 0),
        (-100, -12, None, None, 0),
        (-100, -13, None, None, 2),
        (100, 50, None, None, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut a, mut b) = (of_exponent(of_x, 7, len(&x)), of_exponent(of_w, 8, len(&w)));
        a[1000] = in_x.unwrap_or(a[1000]);
        b[2000] = in_w.unwrap_or(b[2000]);
        let run = |context: &Context<'_>| -> (Vec<f32>, Report) {
            let mut result = vec![0f32; len(&y)];
            let (a, b) = (View::with_layout(&a, 0, x).unwrap(), View::with_layout(&b, 0, w).unwrap());
            let c = ViewMut::with_layout(&mut result, 0, y).unwrap();
            let op = Convolution::forward(a.spec(), b.spec(), c.spec(), &conv).unwrap();
            let plan = op.plan(context).unwrap();
            let mut ws = plan.workspace();
            plan.run(a, Weights::View(b), c, Epilogue::default(), &mut ws).unwrap();
            (result, ws.report())
        };
        let (want, _) = run(&reference());
        let pools = pools();
        for context in contexts(&pools).filter(|context| context.threads.count() != 2) {
            let (got, report) = run(&context);
            assert_same_codes(&got, &want, || format!("case {at} on {}", context.isa));
            let expected = match (has_pairs(&context), widened) {
                (true, 0) => report.panel_pairs > 0 && report.widened_pairs == 0,
                (true, 1) => (1..report.panel_pairs).contains(&report.widened_pairs),
                (true, _) => report.panel_pairs > 0 && report.widened_pairs == report.panel_pairs,
                (false, _) => report == Report::default(),
            };
            assert!(expected, "case {at} on {}: {report:?}", context.isa);
        }
    }
}
