//! Bad input gets an error of the right kind that names operation and shapes, and the output stays untouched.

use tile25::conv::{Conv, Convolution};
use tile25::{Accum, Act, Context, Epilogue, Error, Format, Layout, Matmul, Spec, View, ViewMut, matmul};

const MARK: f32 = 7.25;

fn view<'a>(data: &'a [f32], dims: &[usize]) -> View<'a, f32> {
    View::new(data, dims).unwrap()
}

/// `matmul` of given shapes must fail and leave the output alone.
fn refuse(a: &[usize], b: &[usize], out: &[usize]) -> Error {
    let data = vec![1.0f32; 4096];
    let mut result = vec![MARK; 4096];
    let target = ViewMut::new(&mut result, out).unwrap();
    let error = matmul(view(&data, a), view(&data, b), target).expect_err("bad shapes");
    assert!(result.iter().all(|&value| value == MARK), "the output was touched");
    error
}

#[test]
fn shapes_that_do_not_multiply() {
    let error = refuse(&[2, 3], &[4, 5], &[2, 5]);
    assert_eq!(error.to_string(), "matmul: lhs [2, 3] has 3 columns, rhs [4, 5] has 4 rows");
    assert!(matches!(refuse(&[2, 3], &[3, 5], &[2, 6]), Error::Shape { op: "matmul", .. }));
    assert!(matches!(refuse(&[2, 3], &[3, 5], &[1, 2, 5]), Error::Shape { .. }));
    assert!(matches!(refuse(&[2, 4, 3], &[3, 3, 5], &[3, 4, 5]), Error::Shape { .. }));
    assert!(matches!(refuse(&[3], &[3, 5], &[1, 5]), Error::Rank { rank: 1, .. }));
}

#[test]
fn zero_dims_are_refused_but_an_empty_sum_is_zero() {
    assert!(matches!(refuse(&[0, 3], &[3, 5], &[0, 5]), Error::ZeroDim { .. }));
    assert!(matches!(refuse(&[0, 2, 3], &[3, 5], &[0, 2, 5]), Error::ZeroDim { .. }));
    let mut out = vec![f32::NAN; 6];
    matmul(view(&[], &[2, 0]), view(&[], &[0, 3]), ViewMut::new(&mut out, [2, 3]).unwrap()).unwrap();
    assert!(out.iter().all(|value| value.to_bits() == 0));
    let mut out = [1.5f32, -0.0];
    let target = ViewMut::new(&mut out, [1, 2]).unwrap();
    let (a, b) = (view(&[], &[1, 0]), view(&[], &[0, 2]));
    let plan = Matmul::new(a.spec(), b.spec(), target.spec())
        .unwrap()
        .accum(Accum::Add)
        .plan(&Context::default())
        .unwrap();
    plan.run(a, b, target, Epilogue::default(), &mut plan.workspace()).unwrap();
    assert_eq!(out.map(f32::to_bits), [1.5f32.to_bits(), (-0.0f32).to_bits()], "unchanged");
}

#[test]
fn sizes_that_overflow() {
    assert!(matches!(Layout::contiguous(&[usize::MAX / 2, 3]), Err(Error::SizeOverflow { .. })));
    assert!(matches!(Layout::contiguous(&[1 << 40, 1 << 40]), Err(Error::SizeOverflow { .. })));
    assert!(matches!(Layout::strided(&[3, 3], &[isize::MAX, isize::MAX]), Err(Error::SizeOverflow { .. })));
    let data = [0.0f32; 4];
    assert!(View::new(&data, [1 << 33, 1 << 33]).is_err());
    // A stride of 0 makes huge inputs possible; their product is not.
    let spec = |dims: &[usize], strides: &[isize]| Spec {
        format: Format::F32,
        layout: Layout::strided(dims, strides).unwrap(),
    };
    let (tall, wide) = (spec(&[1 << 40, 1 << 20], &[0, 0]), spec(&[1 << 20, 1 << 20], &[0, 1]));
    let out = spec(&[1 << 40, 1 << 20], &[1 << 20, 1]);
    assert!(matches!(Matmul::new(tall, wide, out), Err(Error::SizeOverflow { .. })));
}

#[test]
fn ranks_above_the_limit() {
    assert!(matches!(Layout::contiguous(&[1; 7]), Err(Error::Rank { rank: 7, high: 6, .. })));
    assert!(matches!(View::new(&[0.0f32], [1; 7]), Err(Error::Rank { .. })));
}

#[test]
fn views_that_leave_their_slice() {
    let mut data = vec![0.0f32; 12];
    assert!(matches!(View::new(&data, [3, 5]), Err(Error::OutOfBounds { len: 12, .. })));
    assert!(matches!(View::strided(&data, 2, [2, 3], [-3, 1]), Err(Error::OutOfBounds { .. })));
    assert!(matches!(View::strided(&data, 13, [1], [1]), Err(Error::OutOfBounds { .. })));
    assert!(View::strided(&data, 11, [3, 4], [-4, -1]).is_ok());
    assert!(ViewMut::strided(&mut data, 8, [3, 4], [-4, 1]).is_ok());
}

#[test]
fn outputs_that_alias_themselves() {
    let mut data = vec![MARK; 64];
    for strides in [[0, 1], [1, 0], [1, 1], [3, 1], [2, 4]] {
        assert!(
            matches!(ViewMut::strided(&mut data, 0, [4, 4], strides), Err(Error::AliasedOutput { .. })),
            "{strides:?}"
        );
    }
    let spec =
        |strides: &[isize]| Spec { format: Format::F32, layout: Layout::strided(&[4, 4], strides).unwrap() };
    assert!(matches!(
        Matmul::new(spec(&[4, 1]), spec(&[4, 1]), spec(&[0, 1])),
        Err(Error::AliasedOutput { .. })
    ));
}

#[test]
fn negative_and_zero_strides_are_legal_for_inputs() {
    let a = [1.0f32, 2.0, 3.0];
    let reversed = View::strided(&a, 2, [1, 3], [0, -1]).unwrap();
    let ones = View::strided(&a, 0, [3, 2], [0, 0]).unwrap();
    let mut out = [0.0f32; 2];
    matmul(reversed, ones, ViewMut::new(&mut out, [1, 2]).unwrap()).unwrap();
    assert_eq!(out, [6.0, 6.0]);
}

#[test]
fn slices_that_do_not_hold_what_was_planned() {
    let (a, b) = (vec![1.0f32; 600], vec![1.0f32; 1200]);
    let plan_of = |strides: [isize; 2]| {
        let (a, b) = (
            view(&a, &[20, 30]),
            Spec { layout: Layout::strided(&[30, 40], &strides).unwrap(), format: Format::F32 },
        );
        let out = Spec::contiguous(Format::F32, &[20, 40]).unwrap();
        Matmul::new(a.spec(), b, out).unwrap().plan(&Context::default()).unwrap()
    };
    // In place, and brought to rows.
    for strides in [[40, 1], [1, 30]] {
        let plan = plan_of(strides);
        let mut ws = plan.workspace();
        let mut out = vec![MARK; 800];
        let error = plan.run_slices(&a[1..], &b, &mut out, &mut ws).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { len: 599, .. }), "{error}");
        let error = plan.run_slices(&a, &b[1..], &mut out, &mut ws).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { len: 1199, .. }), "{error}");
        let error = plan.run_slices(&a, &b, &mut out[1..], &mut ws).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { len: 799, .. }), "{error}");
        let error = plan.run_slices(&a, &[1u8; 1200], &mut out, &mut ws).unwrap_err();
        assert!(matches!(error, Error::NotPlanned { operand: "rhs", .. }), "{error}");
        let error = plan.run_slices(&[1.0f64; 600], &b, &mut out, &mut ws).unwrap_err();
        assert!(matches!(error, Error::NotPlanned { operand: "lhs", .. }), "{error}");
        assert!(out.iter().all(|&value| value == MARK), "the output was touched");
        plan.run_slices(&a, &b, &mut out, &mut ws).unwrap();
        assert!(out.iter().all(|&value| value == 30.0));
    }
    // What lies before the first element is in no slice.
    let plan = plan_of([-40, 1]);
    let mut out = vec![MARK; 800];
    let error = plan.run_slices(&a, &b, &mut out, &mut plan.workspace()).unwrap_err();
    assert!(matches!(error, Error::OutOfBounds { .. }), "{error}");
    assert!(out.iter().all(|&value| value == MARK), "the output was touched");
}

#[test]
fn what_belongs_to_another_plan() {
    let data = vec![1.0f32; 40_000];
    let plan_of = |m: usize, k: usize, n: usize| {
        let (a, b) = (view(&data, &[m, k]), view(&data, &[k, n]));
        let out = Spec::contiguous(Format::F32, &[m, n]).unwrap();
        (a, b, Matmul::new(a.spec(), b.spec(), out).unwrap().plan(&Context::default()).unwrap())
    };
    let (a, b, plan) = plan_of(20, 30, 40);
    let (small_a, small_b, other) = plan_of(5, 6, 7);
    let mut result = vec![MARK; 800];
    let mut ws = plan.workspace();
    let mut small_ws = other.workspace();
    let mut out = ViewMut::new(&mut result, [20, 40]).unwrap();
    let none = Epilogue::default();
    // Where nothing is packed, a workspace of any plan serves; a transposed rhs is packed.
    plan.run(a, b, out.rb_mut(), none, &mut small_ws).unwrap();
    let columns = View::strided(&data, 0, [30, 40], [1, 30]).unwrap();
    let packing =
        Matmul::new(a.spec(), columns.spec(), out.spec()).unwrap().plan(&Context::default()).unwrap();
    let error = packing.run(a, columns, out.rb_mut(), none, &mut small_ws).unwrap_err();
    assert!(matches!(error, Error::Workspace { op: "matmul", .. }), "{error}");
    for value in &mut result {
        assert_ne!(std::mem::replace(value, MARK), MARK);
    }
    let mut out = ViewMut::new(&mut result, [20, 40]).unwrap();
    let packed = other.pack_rhs(small_b).unwrap();
    let error = plan.run(a, &packed, out.rb_mut(), none, &mut ws).unwrap_err();
    assert!(matches!(error, Error::Packed { .. }), "{error}");
    assert!(matches!(plan.pack_rhs(small_b), Err(Error::NotPlanned { operand: "rhs", .. })));
    assert!(matches!(
        plan.run(small_a, b, out.rb_mut(), none, &mut ws),
        Err(Error::NotPlanned { operand: "lhs", .. })
    ));
    assert!(matches!(
        plan.run(a, small_b, out.rb_mut(), none, &mut ws),
        Err(Error::NotPlanned { operand: "rhs", .. })
    ));
    let short = [0.0; 39];
    let bias = Epilogue { bias: Some(&short), ..none };
    assert!(matches!(plan.run(a, b, out.rb_mut(), bias, &mut ws), Err(Error::Shape { .. })));
    let residual = Epilogue { residual: Some(small_a), ..none };
    assert!(matches!(plan.run(a, b, out.rb_mut(), residual, &mut ws), Err(Error::Shape { .. })));
    let doubles = vec![1.0f64; 1200];
    let doubles = View::new(&doubles, [20, 30]).unwrap();
    let mut wrong = vec![0.0f64; 800];
    let wrong = ViewMut::new(&mut wrong, [20, 40]).unwrap();
    assert!(matches!(
        plan.run(doubles, doubles, wrong, Epilogue::default(), &mut ws),
        Err(Error::NotPlanned { operand: "lhs", .. })
    ));
    assert!(result.iter().all(|&value| value == MARK), "the output was touched");
}

#[test]
fn formats_do_not_mix_and_f64_has_no_gelu() {
    let spec = |format| Spec::contiguous(format, &[2, 2]).unwrap();
    let error = Matmul::new(spec(Format::F32), spec(Format::F64), spec(Format::F32)).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    let data = [1.0f64; 4];
    let a = View::new(&data, [2, 2]).unwrap();
    let plan = Matmul::new(a.spec(), a.spec(), a.spec()).unwrap().plan(&Context::default()).unwrap();
    let mut out = [0.5f64; 4];
    let gelu = Epilogue { act: Act::Gelu, ..Epilogue::default() };
    let error =
        plan.run(a, a, ViewMut::new(&mut out, [2, 2]).unwrap(), gelu, &mut plan.workspace()).unwrap_err();
    assert_eq!(error.to_string(), "matmul: activation gelu in f64 is not supported");
    assert_eq!(out, [0.5; 4]);
}

#[test]
fn convolutions_that_do_not_fit() {
    let spec = |dims: &[usize]| Spec::contiguous(Format::F32, dims).unwrap();
    let plain = Conv::<2>::default();
    let forward = |x: &[usize], w: &[usize], y: &[usize], conv: &Conv<2>| {
        Convolution::forward(spec(x), spec(w), spec(y), conv).err()
    };
    assert_eq!(forward(&[1, 2, 5, 5], &[3, 2, 3, 3], &[1, 3, 3, 3], &plain), None);
    let shape = |error: Option<Error>| matches!(error, Some(Error::Shape { op: "conv::forward", .. }));
    assert!(shape(forward(&[1, 2, 5, 5], &[3, 2, 3, 3], &[1, 3, 4, 3], &plain)));
    assert!(shape(forward(&[1, 2, 2, 5], &[3, 2, 3, 3], &[1, 3, 1, 3], &plain)));
    assert!(shape(forward(&[1, 4, 5, 5], &[3, 2, 3, 3], &[1, 3, 3, 3], &plain)));
    assert!(shape(forward(&[2, 2, 5, 5], &[3, 2, 3, 3], &[1, 3, 3, 3], &plain)));
    for bad in [
        Conv { stride: [0, 1], ..plain },
        Conv { dilation: [1, 0], ..plain },
        Conv { groups: 0, ..plain },
        Conv { groups: 2, ..plain },
        Conv { padding: [(usize::MAX, 1), (0, 0)], ..plain },
        Conv { dilation: [usize::MAX, 1], ..plain },
        Conv { stride: [usize::MAX, 1], ..plain },
        // Each axis alone could be addressed.
        Conv { dilation: [1 << 40; 2], padding: [(1 << 40, 1 << 40); 2], ..plain },
    ] {
        assert!(shape(forward(&[1, 2, 5, 5], &[3, 2, 3, 3], &[1, 3, 3, 3], &bad)), "{bad:?}");
    }
    let rank = Convolution::forward(spec(&[1, 2, 5]), spec(&[3, 2, 3, 3]), spec(&[1, 3, 3, 3]), &plain);
    assert!(matches!(rank, Err(Error::Rank { rank: 3, .. })));
    let zero = forward(&[1, 0, 5, 5], &[3, 0, 3, 3], &[1, 3, 3, 3], &plain);
    assert!(matches!(zero, Some(Error::ZeroDim { .. })));
    let error =
        Convolution::backward_data(spec(&[1, 3, 4, 3]), spec(&[3, 2, 3, 3]), spec(&[1, 2, 5, 5]), &plain)
            .unwrap_err();
    assert!(
        error.to_string().starts_with("conv::backward_data: spatial axis 0 of the output must be 3"),
        "{error}"
    );
}

/// Taps beyond both ends of the input, and steps as far: nothing but the middle tap meets it, and nothing is as large as what lies between.
#[test]
fn taps_and_steps_that_reach_far() {
    const FAR: usize = 1 << 36;
    let x: Vec<f32> = (0..50).map(|i| i as f32).collect();
    let w: Vec<f32> = (0..54).map(|i| (i % 7) as f32).collect();
    let dilated = Conv { dilation: [FAR, 1], padding: [(FAR, FAR), (1, 1)], ..Conv::<2>::default() };
    let strided = Conv { stride: [1 << 28, 1], padding: [(1, 1 << 28), (1, 1)], ..Conv::<2>::default() };
    let reference = Context { backend: tile25::Backend::Reference, ..Context::default() };
    for (conv, y) in [(dilated, [1, 3, 5, 5]), (strided, [1, 3, 2, 5])] {
        let y = Spec::contiguous(Format::F32, &y).unwrap();
        let (x_spec, w_spec) = (view(&x, &[1, 2, 5, 5]).spec(), view(&w, &[3, 2, 3, 3]).spec());
        let len = y.dims().iter().product::<usize>();
        let dy = vec![0.5f32; len];
        let ops = [
            (Convolution::forward(x_spec, w_spec, y, &conv), &x, x_spec, &w, w_spec, y),
            (Convolution::backward_data(y, w_spec, x_spec, &conv), &dy, y, &w, w_spec, x_spec),
            (Convolution::backward_weights(x_spec, y, w_spec, &conv), &x, x_spec, &dy, y, w_spec),
        ];
        for (op, a, of_a, b, of_b, of_out) in ops {
            let run = |context: &Context<'_>| {
                let mut out = vec![MARK; of_out.dims().iter().product()];
                let plan = op.as_ref().unwrap().plan(context).unwrap();
                let (a, b) = (view(a, of_a.dims()), view(b, of_b.dims()));
                let to = ViewMut::new(&mut out, of_out.dims()).unwrap();
                plan.run(a, b, to, Epilogue::default(), &mut plan.workspace()).unwrap();
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(run(&Context::default()), run(&reference));
        }
    }
}

/// Zero times infinity is NaN whichever operand has the zero, padding included (N11).
#[test]
fn no_zero_is_skipped() {
    let mut out = [0.0f32];
    let (zero, inf) = ([0.0f32], [f32::INFINITY]);
    matmul(view(&zero, &[1, 1]), view(&inf, &[1, 1]), ViewMut::new(&mut out, [1, 1]).unwrap()).unwrap();
    assert!(out[0].is_nan());
    let conv = Conv::<1> { padding: [(1, 1)], ..Conv::default() };
    let weights = [f32::INFINITY, 1.0, 1.0];
    let mut y = [0.0f32; 3];
    let (x, w) = (view(&[1.0, 2.0, 3.0], &[1, 1, 3]), view(&weights, &[1, 1, 3]));
    tile25::conv::forward(x, w, ViewMut::new(&mut y, [1, 1, 3]).unwrap(), &conv).unwrap();
    assert!(y[0].is_nan() && y[1].is_infinite());
}

/// Formats that do not go together, and zero points that are none.
#[test]
fn formats_and_zero_points_that_do_not_fit() {
    let spec = |format: Format, dims: &[usize]| Spec::contiguous(format, dims).unwrap();
    let new =
        |a: Format, b: Format, c: Format| Matmul::new(spec(a, &[2, 3]), spec(b, &[3, 4]), spec(c, &[2, 4]));
    for (a, b, c) in [
        (Format::I8, Format::F32, Format::F32),
        (Format::Bf16, Format::U8, Format::Bf16),
        (Format::I32, Format::I32, Format::I32),
        (Format::Bf16, Format::Bf16, Format::I32),
        (Format::Bf16, Format::Bf16, Format::F64),
        (Format::F64, Format::Bf16, Format::F32),
        (Format::I8, Format::I8, Format::F64),
    ] {
        let error = new(a, b, c).expect_err("formats that do not go together");
        assert!(matches!(error, Error::Format { op: "matmul", .. }), "{error}");
        assert!(error.to_string().contains(&a.to_string()), "{error}");
    }
    let add = new(Format::I8, Format::I8, Format::I8).unwrap().accum(Accum::Add).plan(&Context::default());
    assert!(matches!(add, Err(Error::Unsupported { op: "matmul", .. })));

    let (a, b) = ([1u8; 6], [1i8; 12]);
    let run = |za: i32, zb: &[i32], zc: i32, scales: usize| {
        let mut out = [99i8; 8];
        let (a, b) = (View::new(&a, [2, 3]).unwrap().zero_point(za), View::new(&b, [3, 4]).unwrap());
        let b = b.zero_points(zb);
        let c = ViewMut::new(&mut out, [2, 4]).unwrap().zero_point(zc);
        let plan = Matmul::new(a.spec(), b.spec(), c.spec()).unwrap().plan(&Context::default()).unwrap();
        let scales = vec![1.0f32; scales];
        let epilogue = Epilogue { row_scales: Some(&scales), ..Epilogue::default() };
        let result = plan.run(a, b, c, epilogue, &mut plan.workspace());
        assert!(result.is_ok() || out == [99; 8], "the output was touched");
        result.map_err(|error| error.to_string())
    };
    assert_eq!(run(0, &[0; 4], 0, 2), Ok(()));
    for (result, words) in [
        (run(-1, &[0; 4], 0, 2), "-1 is no zero point of lhs, which is in u8"),
        (run(0, &[0, 0, 128, 0], 0, 2), "128 is no zero point of rhs, which is in i8"),
        (run(0, &[0; 3], 0, 2), "rhs has 3 zero points and 4 columns"),
        (run(0, &[0; 4], -129, 2), "-129 is no zero point of out"),
        (run(0, &[0; 4], 0, 3), "row_scales has 3 values"),
    ] {
        let error = result.expect_err(words);
        assert!(error.contains(words) && error.starts_with("matmul"), "{error}");
    }
    let values = [0.5f32; 6];
    assert!(matches!(
        View::new(&values, [6]).unwrap().with_format(Format::Bf16),
        Err(Error::Unsupported { .. })
    ));
}

#[test]
fn block_scales_that_do_not_fit() {
    let (a, b) = ([tile25::format::Fp8E4M3(0); 6], [1.0f32; 12]);
    let run = |scaled: bool, scales: &[f32], rows: usize, cols: usize| {
        let mut out = [MARK; 8];
        let a = View::new(&a, [2, 3]).unwrap().block_scales(scales, rows, cols);
        let b = View::new(&b, [3, 4]).unwrap();
        let c = ViewMut::new(&mut out, [2, 4]).unwrap();
        let op = Matmul::new(a.spec(), b.spec(), c.spec()).unwrap();
        let plan = if scaled { op.block_scaled() } else { op }.plan(&Context::default()).unwrap();
        let result = plan.run(a, b, c, Epilogue::default(), &mut plan.workspace());
        assert!(result.is_ok() || out == [MARK; 8], "the output was touched");
        result.map_err(|error| error.to_string())
    };
    assert_eq!(run(true, &[1.0; 4], 1, 2), Ok(()));
    for (result, words) in [
        (run(false, &[1.0; 4], 1, 2), "block scales of lhs here"),
        (run(true, &[1.0; 3], 1, 2), "lhs of 2 x 3 in blocks of 1 x 2 has 4 scales, not 3"),
        (run(true, &[], 0, 2), "blocks of 0 x 2"),
    ] {
        let error = result.expect_err(words);
        assert!(error.contains(words) && error.starts_with("matmul"), "{error}");
    }
    // Nothing that reads a tensor passes them over.
    let mut wide = [MARK; 6];
    let source = View::new(&a, [2, 3]).unwrap().block_scales(&[1.0], 2, 3);
    let refused = tile25::cast::cast(source, ViewMut::new(&mut wide, [2, 3]).unwrap());
    assert!(matches!(refused, Err(Error::Unsupported { op: "cast", .. })) && wide == [MARK; 6]);
    let mut out = [MARK; 4];
    let ones = [1.0f32; 4];
    let (x, c) = (View::new(&ones, [2, 2]).unwrap(), ViewMut::new(&mut out, [2, 2]).unwrap());
    let plan = Matmul::new(x.spec(), x.spec(), c.spec()).unwrap().plan(&Context::default()).unwrap();
    let mut c = c;
    for residual in [x.block_scales(&[1.0], 2, 2), x.zero_point(1), x.zero_points(&[0, 0])] {
        let epilogue = Epilogue { residual: Some(residual), ..Epilogue::default() };
        let refused = plan.run(x, x, c.rb_mut(), epilogue, &mut plan.workspace());
        assert!(matches!(refused, Err(Error::Unsupported { op: "matmul", .. })), "{refused:?}");
    }
    assert!(out == [MARK; 4], "the output was touched");
    let i8s = Spec::contiguous(Format::I8, &[2, 2]).unwrap();
    let sums = Spec::contiguous(Format::I32, &[2, 2]).unwrap();
    let plan = Matmul::new(i8s, i8s, sums).unwrap().block_scaled().plan(&Context::default());
    assert!(matches!(plan, Err(Error::Unsupported { op: "matmul", .. })));
}

#[test]
fn weights_packed_for_another_convolution() {
    let spec = |dims: &[usize]| Spec::contiguous(Format::F32, dims).unwrap();
    let plan = |stride: usize, batch: usize| {
        let conv = Conv::<2> { stride: [stride; 2], padding: [(1, 1); 2], ..Conv::default() };
        let size = 7 / stride + 1;
        let (x, y) = (spec(&[batch, 16, 8, 8]), spec(&[batch, 8, size, size]));
        Convolution::forward(x, spec(&[8, 16, 3, 3]), y, &conv).unwrap().plan(&Context::default()).unwrap()
    };
    let w = vec![0.5f32; 8 * 16 * 9];
    let w = View::new(&w, [8, 16, 3, 3]).unwrap();
    let (one, strided, batch) = (plan(1, 1), plan(2, 1), plan(1, 3));
    let packed = one.pack_weights(w).unwrap();
    let x = vec![1.0f32; 3 * 16 * 64];
    let none = Epilogue::default();
    let mut y = vec![-1.0f32; 3 * 8 * 64];
    let run = |plan: &tile25::conv::ConvPlan<'_>, batch: usize, size: usize, y: &mut [f32]| {
        let x = View::new(&x, [batch, 16, 8, 8]).unwrap();
        let y = ViewMut::new(y, [batch, 8, size, size]).unwrap();
        plan.run(x, &packed, y, none, &mut plan.workspace())
    };
    let error = run(&strided, 1, 4, &mut y).unwrap_err();
    assert!(error.to_string().starts_with("conv::forward: the packed operand is w [8, 16, 3, 3]"), "{error}");
    assert!(y.iter().all(|&y| y == -1.0));
    // Another batch is no other convolution.
    run(&batch, 3, 8, &mut y).unwrap();
    assert!(y.iter().all(|&y| y > 0.0));
    let short = vec![0.5f32; 8 * 16];
    let error = one.pack_weights(View::new(&short, [8, 16, 1, 1]).unwrap()).unwrap_err();
    assert!(matches!(error, Error::NotPlanned { op: "conv::pack_weights", operand: "w", .. }), "{error}");
    let of_weights = Convolution::backward_weights(
        spec(&[1, 16, 8, 8]),
        spec(&[1, 8, 6, 6]),
        spec(&[8, 16, 3, 3]),
        &Conv::<2>::default(),
    );
    let of_weights = of_weights.unwrap().plan(&Context::default()).unwrap();
    let dy = vec![0.0f32; 8 * 36];
    let refused = of_weights.pack_weights(View::new(&dy, [1, 8, 6, 6]).unwrap());
    assert!(matches!(refused, Err(Error::Unsupported { op: "conv::pack_weights", .. })));
}

/// What no step takes says nothing, and overflows nothing.
#[test]
fn strides_of_single_elements_and_of_none_may_be_anything() {
    let strides =
        |dims: &[usize], strides: &[isize]| Layout::strided(dims, strides).unwrap().strides().to_vec();
    assert_eq!(strides(&[1, 5, 1], &[isize::MIN, 2, isize::MAX]), [-9, 2, 9]);
    assert_eq!(strides(&[1, 5], &[5, 1]), [5, 1]);
    assert_eq!(strides(&[3, 0, 2], &[isize::MAX, isize::MIN, 7]), [2, 2, 1]);
    assert!(Layout::strided(&[2, 1], &[isize::MAX, 1]).is_ok());
    assert!(Layout::strided(&[3, 1], &[isize::MAX, 1]).is_err());
}
