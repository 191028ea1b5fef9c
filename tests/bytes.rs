//! Products of 8-bit integers by every way: several blocks, operands in place, copied, turned and packed, and sums that wrap.

mod support;

use num_traits::NumCast;
use support::{Draw, Rng, assert_same_codes, contexts, draw, pools, reference};
use tile25::conv::{Conv, Convolution, Weights};
use tile25::format::{Element, Format};
use tile25::numerics::KC;
use tile25::{Accum, Context, Epilogue, Layout, Matmul, Spec, View, ViewMut};

/// Several blocks of rows, of columns and of k; rows in place, copied, and turned; columns packed once.
#[test]
fn bytes_in_many_blocks() {
    fn check<A: Element, B: Element, C: Element>(narrow: bool) {
        let pools = pools();
        let mut rng = Rng::new(23);
        for [batch, m, n, k] in
            [[1, 150, 800, 64], [1, 17, 50, 9 * KC + 3], [3, 33, 49, 4 * KC + 62], [2, 5, 16, 1]]
        {
            let a: Vec<A> = (0..batch * m * k).map(|_| draw(&mut rng, A::FORMAT, Draw::Codes)).collect();
            let b: Vec<B> = (0..k * n).map(|_| draw(&mut rng, B::FORMAT, Draw::Codes)).collect();
            let old: Vec<C> = (0..batch * m * n).map(|_| draw(&mut rng, C::FORMAT, Draw::Codes)).collect();
            let zeros = |len: usize, format: Format| -> Vec<i32> {
                let low = if format == Format::I8 { -128 } else { 0 };
                (0..len as i32).map(|i| low + i * 37 % 256).collect()
            };
            let (of_rows, of_columns) = (zeros(m, A::FORMAT), zeros(n, B::FORMAT));
            for how in 0..8 {
                let (turned, packed, with_zeros) = (how & 1 != 0, how & 2 != 0, how & 4 != 0);
                let run = |context: &Context<'_>, packed: bool| {
                    let mut out = old.clone();
                    let strides = if turned { [m * k, 1, m] } else { [m * k, k, 1] };
                    let a = View::strided(&a, 0, [batch, m, k], strides.map(|x| x as isize)).unwrap();
                    let b = View::new(&b, [k, n]).unwrap();
                    let (a, b) = if with_zeros {
                        (a.zero_points(&of_rows), b.zero_points(&of_columns))
                    } else {
                        (a, b)
                    };
                    let c = ViewMut::new(&mut out, [batch, m, n]).unwrap();
                    let accum = if narrow || turned { Accum::Replace } else { Accum::Add };
                    let op = Matmul::new(a.spec(), b.spec(), c.spec()).unwrap().accum(accum);
                    let plan = op.plan(context).unwrap();
                    let scale = narrow.then(|| <C::Param as NumCast>::from(0.01).unwrap());
                    let epilogue = Epilogue { scale, ..Epilogue::default() };
                    let mut ws = plan.workspace();
                    if packed {
                        plan.run(a, &plan.pack_rhs(b).unwrap(), c, epilogue, &mut ws).unwrap();
                    } else {
                        plan.run(a, b, c, epilogue, &mut ws).unwrap();
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
    check::<i8, i8, i32>(false);
    check::<u8, i8, i32>(false);
    check::<i8, u8, f32>(true);
    check::<u8, u8, u8>(true);
}

/// One convolution: batch, channels in and out, groups, size of the image, of the kernel, stride, dilation, padding.
type Shape = ([usize; 4], [usize; 2], [usize; 2], usize, usize, usize);

/// Depthwise; and runs of channels of every kind: one line of the kernel, several, a piece of one, of a length that fills no unit; lines of many heights; channels first and last; forward and transposed.
#[test]
fn convolutions_of_bytes() {
    const SHAPES: [Shape; 12] = [
        ([1, 3, 64, 1], [20, 23], [7, 7], 2, 1, 3),
        ([2, 64, 50, 1], [7, 9], [3, 3], 1, 1, 1),
        ([1, 33, 17, 1], [5, 30], [5, 2], 1, 1, 2),
        ([1, 300, 20, 1], [4, 5], [3, 3], 2, 1, 1),
        ([1, 900, 49, 1], [3, 3], [1, 1], 1, 1, 0),
        ([3, 8, 40, 2], [9, 11], [3, 3], 1, 2, 2),
        ([2, 24, 24, 1], [6, 6], [1, 1], 2, 1, 0),
        ([1, 5, 3, 1], [1, 150], [1, 40], 1, 1, 19),
        ([1, 8, 20, 1], [1, 700], [1, 5], 1, 1, 2),
        ([2, 12, 20, 1], [14, 19], [3, 3], 1, 6, 6),
        ([2, 40, 40, 40], [9, 8], [3, 3], 1, 1, 1),
        ([1, 17, 17, 17], [33, 33], [17, 17], 2, 1, 8),
    ];
    fn check<A: Element, B: Element, C: Element>(narrow: bool) {
        let pools = pools();
        let mut rng = Rng::new(29);
        for ([batch, c_in, c_out, groups], image, kernel, stride, dilation, pad) in SHAPES {
            let conv =
                Conv::<2> { stride: [stride; 2], padding: [(pad, pad); 2], dilation: [dilation; 2], groups };
            let size = |d: usize| (image[d] + 2 * pad - (kernel[d] - 1) * dilation - 1) / stride + 1;
            let (x, w) = ([batch, c_in, image[0], image[1]], [c_out, c_in / groups, kernel[0], kernel[1]]);
            let y = [batch, c_out, size(0), size(1)];
            for how in 0..8 {
                let (planar, turned, with_zeros) = (how & 1 != 0, how & 2 != 0, how & 4 != 0);
                let layout = |[n, c, h, w]: [usize; 4], planar: bool| {
                    let strides = if planar { [c * h * w, h * w, w, 1] } else { [h * w * c, 1, w * c, c] };
                    Layout::strided(&[n, c, h, w], &strides.map(|stride| stride as isize)).unwrap()
                };
                // Turned, y is brought back to the size of x by the convolution transposed.
                let (first, out) = if turned { (y, x) } else { (x, y) };
                let (first, weights, out) = (layout(first, planar), layout(w, false), layout(out, planar));
                let len = |layout: &Layout| layout.dims().iter().product::<usize>();
                let a: Vec<A> = (0..len(&first)).map(|_| draw(&mut rng, A::FORMAT, Draw::Codes)).collect();
                let b: Vec<B> = (0..len(&weights)).map(|_| draw(&mut rng, B::FORMAT, Draw::Codes)).collect();
                let old: Vec<C> = (0..len(&out)).map(|_| draw(&mut rng, C::FORMAT, Draw::Codes)).collect();
                let low = |format: Format| if format == Format::I8 { -128 } else { 0 };
                let zeros: Vec<i32> = (0..c_out as i32).map(|i| low(B::FORMAT) + i * 37 % 256).collect();
                let run = |context: &Context<'_>, packed: bool| {
                    let mut result = old.clone();
                    let a = View::with_layout(&a, 0, first).unwrap();
                    let b = View::with_layout(&b, 0, weights).unwrap();
                    let (a, b) = match (with_zeros, turned) {
                        (false, _) => (a, b),
                        (true, false) => (a.zero_point(low(A::FORMAT) + 77), b.zero_points(&zeros)),
                        (true, true) => (a.zero_point(low(A::FORMAT) + 77), b.zero_point(zeros[1])),
                    };
                    let c = ViewMut::with_layout(&mut result, 0, out).unwrap();
                    let (of_a, of_b, of_c) = (a.spec(), b.spec(), Spec { format: C::FORMAT, layout: out });
                    let op = if turned { Convolution::transposed } else { Convolution::forward };
                    let accum = if narrow || planar { Accum::Replace } else { Accum::Add };
                    let plan = op(of_a, of_b, of_c, &conv).unwrap().accum(accum).plan(context).unwrap();
                    let scale = narrow.then(|| <C::Param as NumCast>::from(0.01).unwrap());
                    let epilogue = Epilogue { scale, ..Epilogue::default() };
                    let mut ws = plan.workspace();
                    if packed {
                        plan.run(a, &plan.pack_weights(b).unwrap(), c, epilogue, &mut ws).unwrap();
                    } else {
                        plan.run(a, Weights::View(b), c, epilogue, &mut ws).unwrap();
                    }
                    result
                };
                // What a transposed convolution gives has the size of x only where the stride divides it.
                let sized = (0..2)
                    .all(|d| (size(d) - 1) * stride + (kernel[d] - 1) * dilation + 1 == image[d] + 2 * pad);
                if turned && !sized {
                    continue;
                }
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
    check::<i8, i8, i32>(false);
    check::<u8, i8, i32>(false);
    check::<u8, u8, f32>(true);
    check::<i8, i8, i8>(true);
}

/// Sums of integers wrap: the extremes over a long k, every pairing, with zero points at the other end.
#[test]
fn integer_sums_wrap_in_two_s_complement() {
    fn check<A: Element, B: Element>(a: A, b: B, za: i32, zb: i32, term: i64) {
        // 33026 (255^2) is beyond 2^31.
        let (m, n, k) = (3, 17, 33_100);
        let (a, b) = (vec![a; m * k], vec![b; k * n]);
        for isa in tile25::Isa::available() {
            let context = Context { isa, ..Context::default() };
            let mut out = vec![0i32; m * n];
            let a = View::new(&a, [m, k]).unwrap().zero_point(za);
            let b = View::new(&b, [k, n]).unwrap().zero_point(zb);
            let c = ViewMut::new(&mut out, [m, n]).unwrap();
            let plan = Matmul::new(a.spec(), b.spec(), c.spec()).unwrap().plan(&context).unwrap();
            plan.run(a, b, c, Epilogue::default(), &mut plan.workspace()).unwrap();
            let want = (term * k as i64) as i32;
            assert!(out.iter().all(|&got| got == want), "{isa}: {} for {want}", out[0]);
        }
    }
    check(255u8, 255u8, 0, 0, 255 * 255);
    check(0u8, 255u8, 255, 0, -255 * 255);
    check(-128i8, 127i8, 127, -128, -255 * 255);
    check(-128i8, -128i8, 0, 0, 128 * 128);
    check(-128i8, 255u8, 127, 0, -255 * 255);
    check(0u8, -128i8, 255, 127, 255 * 255);
}
