//! A plan for the calling thread alone starts no thread pool, not even rayon's global one. A process of its own: other tests start it.

use tile25::conv::{Conv, Convolution};
use tile25::format::bf16;
use tile25::{Backend, Context, Epilogue, Isa, Matmul, Tensor, Threads};

fn tensor(dims: &[usize]) -> Tensor<f32> {
    Tensor::from_fn(dims, |i| (i * 37 % 101) as f32 / 50.0 - 1.0).unwrap()
}

#[test]
fn one_thread_starts_no_other() {
    let isa = Isa::available().last().unwrap();
    let context = Context { isa, threads: Threads::Seq, backend: Backend::Tile };
    for (m, n, k) in [(20, 30, 40), (300, 200, 1100), (17, 19, 9000), (1, 700, 2000)] {
        let (a, b, mut out) = (tensor(&[m, k]), tensor(&[k, n]), tensor(&[m, n]));
        let op = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec()).unwrap();
        let plan = op.plan(&context).unwrap();
        plan.run(a.view(), b.view(), out.view_mut(), Epilogue::default(), &mut plan.workspace()).unwrap();
        let (a16, b16) = (Tensor::<bf16>::zeros([m, k]).unwrap(), Tensor::<bf16>::zeros([k, n]).unwrap());
        let op = Matmul::new(a16.view().spec(), b16.view().spec(), out.view().spec()).unwrap();
        let plan = op.plan(&context).unwrap();
        plan.run(a16.view(), b16.view(), out.view_mut(), Epilogue::default(), &mut plan.workspace()).unwrap();
    }
    for kernel in [1, 3] {
        let pad = kernel / 2;
        let conv = Conv::<2> { stride: [2, 2], padding: [(pad, pad); 2], ..Conv::default() };
        let (x, w, y) =
            (tensor(&[4, 32, 28, 28]), tensor(&[32, 32, kernel, kernel]), tensor(&[4, 32, 14, 14]));
        let (xs, ws, ys) = (x.view().spec(), w.view().spec(), y.view().spec());
        for (op, a, b, out) in [
            (Convolution::forward(xs, ws, ys, &conv).unwrap(), &x, &w, &y),
            (Convolution::backward_data(ys, ws, xs, &conv).unwrap(), &y, &w, &x),
            (Convolution::backward_weights(xs, ys, ws, &conv).unwrap(), &x, &y, &w),
        ] {
            let (plan, mut out) = (op.plan(&context).unwrap(), out.clone());
            plan.run(a.view(), b.view(), out.view_mut(), Epilogue::default(), &mut plan.workspace()).unwrap();
        }
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .expect("nobody started rayon's global pool");
}
