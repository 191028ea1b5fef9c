//! The whole API on one screen.

use tile25::conv::{Conv, Convolution};
use tile25::format::{CFloat8E4M3, Element, Narrow, Overflow, Rounding, bf16};
use tile25::machine::D1_TILE;
use tile25::math::{Function, map};
use tile25::{
    Accum, Act, Backend, Context, Epilogue, Error, Isa, Matmul, Tensor, Threads, View, ViewMut, bias, cast,
    matmul,
};

#[test]
fn the_whole_api() -> Result<(), Error> {
    // One line.
    let (a, b, mut c) = ([1.0f32, 2.0, 3.0, 4.0], [5.0f32, 6.0, 7.0, 8.0], [0.0f32; 4]);
    matmul(View::new(&a, [2, 2])?, View::new(&b, [2, 2])?, ViewMut::new(&mut c, [2, 2])?)?;
    assert_eq!(c, [19.0, 22.0, 43.0, 50.0]);

    // Strides: the same matrix read backwards, and a row repeated.
    let backwards = View::strided(&a, 3, [2, 2], [-2, -1])?;
    matmul(backwards, View::new(&b[..2], [2, 1])?.broadcast_to([2, 2])?, ViewMut::new(&mut c, [2, 2])?)?;
    assert_eq!(c, [4.0 * 5.0 + 3.0 * 6.0, 38.0, 2.0 * 5.0 + 6.0, 16.0]);

    // Plan once, pack weights once, run often: here for one thread, a forced instruction set, added to what is there.
    let (x, w) =
        (Tensor::<f32>::from_fn([3, 64, 40], |i| i as f32)?, Tensor::<f32>::from_fn([40, 96], |_| 0.5)?);
    let mut y = Tensor::<f32>::zeros([3, 64, 96])?;
    let context = Context { isa: "portable".parse::<Isa>()?, threads: Threads::Seq, backend: Backend::Tile };
    let plan =
        Matmul::new(x.view().spec(), w.view().spec(), y.view().spec())?.accum(Accum::Add).plan(&context)?;
    let (packed, mut workspace) = (plan.pack_rhs(w.view())?, plan.workspace());
    let ones = [1.0; 96];
    let epilogue = Epilogue {
        scale: Some(2.0),
        bias: Some(&ones),
        residual: Some(x.view().permute(&[0, 1, 2])?),
        act: Act::Relu,
        ..Epilogue::default()
    };
    assert!(
        plan.run(x.view(), &packed, y.view_mut(), epilogue, &mut workspace).is_err(),
        "the residual has another shape"
    );
    plan.run(x.view(), &packed, y.view_mut(), Epilogue { residual: None, ..epilogue }, &mut workspace)?;
    assert_eq!(y.as_slice()[0], 2.0 * 0.5 * (0..40).sum::<i32>() as f32 + 1.0);

    // Look into the machine.
    plan.tile_plan().validate().expect("the planner keeps the laws");
    assert!(plan.tile_plan().render().starts_with("3 x (64 x 40) * (40 x 96) in f32"));
    assert!(plan.tile_plan().price(&D1_TILE).expect("a D1 multiplies f32").seconds > 0.0);

    // Convolutions: one, two or three dimensions by rank; forward, both gradients, transposed; any layout by strides.
    let conv = Conv { stride: [2], padding: [(1, 0)], ..Conv::<1>::default() };
    let (x, w) =
        (Tensor::<f64>::from_fn([1, 2, 8], |i| i as f64)?, Tensor::<f64>::from_fn([3, 2, 3], |_| 1.0)?);
    let (mut y, mut dx, mut dw) = (
        Tensor::<f64>::zeros([1, 3, 4])?,
        Tensor::<f64>::zeros([1, 2, 8])?,
        Tensor::<f64>::zeros([3, 2, 3])?,
    );
    tile25::conv::forward(x.view(), w.view(), y.view_mut(), &conv)?;
    assert_eq!(&y.as_slice()[..2], &[0.0 + 1.0 + 8.0 + 9.0, 1.0 + 2.0 + 3.0 + 9.0 + 10.0 + 11.0]);
    tile25::conv::backward_data(y.view(), w.view(), dx.view_mut(), &conv)?;
    tile25::conv::backward_weights(x.view(), y.view(), dw.view_mut(), &conv)?;
    let plan = Convolution::transposed(y.view().spec(), w.view().spec(), dx.view().spec(), &conv)?
        .plan(&Context::default())?;
    let want = dx.as_slice().to_vec();
    plan.run(y.view(), w.view(), dx.view_mut(), Epilogue::default(), &mut plan.workspace())?;
    assert_eq!(dx.as_slice(), want, "a transposed convolution is the gradient of the input");
    let packed = plan.pack_weights(w.view())?; // once, for any number of runs
    plan.run(y.view(), &packed, dx.view_mut(), Epilogue::default(), &mut plan.workspace())?;
    assert_eq!(dx.as_slice(), want);

    // Narrow formats: sums are f32 (i32 of integers), the result is narrowed at the end, here with random bits keyed by a seed and each element's index.
    let values = Tensor::<f32>::from_fn([4, 4], |i| i as f32 / 4.0 - 1.5)?;
    let format = bias::choose(CFloat8E4M3::FORMAT, values.as_slice(), bias::Criterion::LargestFits);
    let mut codes = Tensor::<CFloat8E4M3>::zeros([4, 4])?.with_format(format)?;
    cast::cast(values.view(), codes.view_mut())?;
    let mut halves = Tensor::<bf16>::zeros([4, 4])?;
    let plan = Matmul::new(codes.view().spec(), codes.view().spec(), halves.view().spec())?;
    let plan = plan.plan(&Context::default())?;
    let narrow = Narrow { rounding: Rounding::Stochastic { seed: 7 }, overflow: Overflow::Saturate };
    let epilogue = Epilogue { narrow, channel_scales: Some(&[1.0, 0.5, 0.25, 0.125]), ..Epilogue::default() };
    plan.run(codes.view(), codes.view(), halves.view_mut(), epilogue, &mut plan.workspace())?;

    // 8-bit integers with zero points, requantised: (130 - 128) 3 + (126 - 128) 5 = -4, times 0.5, plus 10.
    let (x, w, mut result) = ([130u8, 126], [3i8, 5], [0u8]);
    let x = View::new(&x, [1, 2])?.zero_point(128);
    let (w, y) = (View::new(&w, [2, 1])?, ViewMut::new(&mut result, [1, 1])?.zero_point(10));
    let plan = Matmul::new(x.spec(), w.spec(), y.spec())?.plan(&Context::default())?;
    plan.run(x, w, y, Epilogue { scale: Some(0.5), ..Epilogue::default() }, &mut plan.workspace())?;
    assert_eq!(result, [8]);

    // Functions with the same bits everywhere.
    let mut values = [0.0];
    map(Function::Sigmoid, &mut values);
    assert_eq!(values, [0.5]);
    Ok(())
}
