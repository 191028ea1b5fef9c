use tile25::*;
use std::time::Instant;
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let t: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(t).build().unwrap();
    let a = Tensor::<f32>::from_fn([n, n], |i| ((i * 7919 % 1013) as f32 - 500.0) / 300.0).unwrap();
    let b = Tensor::<f32>::from_fn([n, n], |i| ((i * 104729 % 1009) as f32 - 500.0) / 300.0).unwrap();
    let mut c = Tensor::<f32>::zeros([n, n]).unwrap();
    pool.install(|| {
        let plan = Matmul::new(a.view().spec(), b.view().spec(), c.view().spec()).unwrap().plan(&Context::default()).unwrap();
        if n <= 512 { println!("{}", plan.tile_plan().render()); plan.tile_plan().validate().unwrap(); }
        let mut ws = plan.workspace();
        let mut best = f64::MAX;
        for _ in 0..(8_000_000_000usize / (n*n*n)).clamp(5, 3000) {
            let s = Instant::now();
            plan.run(a.view(), b.view(), c.view_mut(), Epilogue::default(), &mut ws).unwrap();
            best = best.min(s.elapsed().as_secs_f64());
        }
        println!("{n} x{t}: {:.1} GFLOP/s", 2.0 * (n as f64).powi(3) / best / 1e9);
    });
    if n <= 256 {
        let mut r = Tensor::<f32>::zeros([n, n]).unwrap();
        let ctx = Context { backend: Backend::Reference, ..Default::default() };
        let plan = Matmul::new(a.view().spec(), b.view().spec(), c.view().spec()).unwrap().plan(&ctx).unwrap();
        plan.run(a.view(), b.view(), r.view_mut(), Epilogue::default(), &mut plan.workspace()).unwrap();
        println!("same: {}", r.as_slice() == c.as_slice());
    }
}
