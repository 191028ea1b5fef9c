//! A planned run allocates nothing, on any thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tile25::conv::{Conv, Convolution};
use tile25::{Accum, Act, Context, Epilogue, Matmul, Tensor};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's obligations are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; `ptr` came from the system allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn tensor(dims: &[usize]) -> Tensor<f32> {
    Tensor::from_fn(dims, |i| (i * 37 % 101) as f32 / 50.0 - 1.0).unwrap()
}

#[test]
fn a_planned_run_allocates_nothing() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    // From inside the pool: what rayon itself needs to let an outside thread in is not a run's doing.
    pool.install(|| {
        for (m, n, k, accum) in [
            (20, 30, 40, Accum::Replace),
            (300, 200, 1100, Accum::Add),
            (17, 19, 9000, Accum::Replace),
            (1, 700, 2000, Accum::Replace),
        ] {
            let (a, b, mut out) = (tensor(&[m, k]), tensor(&[k, n]), tensor(&[m, n]));
            let bias = vec![0.5f32; n];
            let op = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec()).unwrap().accum(accum);
            let plan = op.plan(&Context::default()).unwrap();
            let packed = plan.pack_rhs(b.view()).unwrap();
            let mut ws = plan.workspace();
            let epilogue = Epilogue { bias: Some(&bias), act: Act::Gelu, ..Epilogue::default() };
            for _ in 0..3 {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                plan.run(a.view(), b.view(), out.view_mut(), epilogue, &mut ws).unwrap();
                plan.run(a.view(), &packed, out.view_mut(), epilogue, &mut ws).unwrap();
                assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "matmul {m} x {n} x {k}");
            }
        }
        let conv = Conv::<2> { stride: [2, 2], padding: [(1, 1); 2], ..Conv::default() };
        let (x, w, y) = (tensor(&[4, 16, 28, 28]), tensor(&[32, 16, 3, 3]), tensor(&[4, 32, 14, 14]));
        let (xs, wsp, ys) = (x.view().spec(), w.view().spec(), y.view().spec());
        let cases = [
            (Convolution::forward(xs, wsp, ys, &conv).unwrap(), &x, &w, &y),
            (Convolution::backward_data(ys, wsp, xs, &conv).unwrap(), &y, &w, &x),
            (Convolution::backward_weights(xs, ys, wsp, &conv).unwrap(), &x, &y, &w),
        ];
        for (op, a, b, out) in cases {
            let plan = op.plan(&Context::default()).unwrap();
            let mut ws = plan.workspace();
            let mut out = out.clone();
            for _ in 0..3 {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                plan.run(a.view(), b.view(), out.view_mut(), Epilogue::default(), &mut ws).unwrap();
                assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{op:?}");
            }
        }
    });
}
