//! A planned run allocates nothing, on any thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use tile25::conv::{Conv, Convolution};
use tile25::format::{Narrow, Rounding, bf16};
use tile25::{Accum, Act, Context, Epilogue, Format, Matmul, Spec, Tensor, View, ViewMut};

struct Counting;

thread_local! {
    /// Whether this is a thread of the pool: what the test harness allocates meanwhile is its own affair.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
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
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(3).start_handler(|_| COUNTED.set(true)).build().unwrap();
    // Every thread has started and looked for work: what that allocates is not a run's doing.
    pool.broadcast(|_| ());
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
            assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0, "what a plan allocates is counted");
            for _ in 0..3 {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                plan.run(a.view(), b.view(), out.view_mut(), epilogue, &mut ws).unwrap();
                plan.run(a.view(), &packed, out.view_mut(), epilogue, &mut ws).unwrap();
                assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "matmul {m} x {n} x {k}");
            }
        }
        // Sums apart from the result, the exponent guard, zero points, random bits.
        let (m, n, k) = (130, 200, 1100);
        let (a, b) = (tensor(&[m, k]), tensor(&[k, n]));
        let cast = |t: &Tensor<f32>| {
            let mut narrow = Tensor::<bf16>::zeros(t.dims()).unwrap();
            tile25::cast::cast(t.view(), narrow.view_mut()).unwrap();
            narrow
        };
        let (a16, b16, mut c16) = (cast(&a), cast(&b), Tensor::<bf16>::zeros([m, n]).unwrap());
        let plan = Matmul::new(a16.view().spec(), b16.view().spec(), c16.view().spec()).unwrap();
        let plan = plan.plan(&Context::default()).unwrap();
        let mut ws = plan.workspace();
        let narrow = Narrow { rounding: Rounding::Stochastic { seed: 1 }, ..Narrow::default() };
        let bytes = |len: usize| (0..len).map(|i| (i * 29) as u8).collect::<Vec<u8>>();
        let (a8, b8, mut c8) = (bytes(m * k), bytes(k * n), vec![0i8; m * n]);
        let zeros: Vec<i32> = (0..n as i32).collect();
        let a8 = View::new(&a8, [m, k]).unwrap().zero_point(7);
        let b8 = View::new(&b8, [k, n]).unwrap().zero_points(&zeros);
        let c8_spec = Spec::contiguous(Format::I8, &[m, n]).unwrap();
        let plan8 = Matmul::new(a8.spec(), b8.spec(), c8_spec).unwrap().plan(&Context::default()).unwrap();
        let mut ws8 = plan8.workspace();
        for _ in 0..3 {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let epilogue = Epilogue { narrow, act: Act::Silu, ..Epilogue::default() };
            plan.run(a16.view(), b16.view(), c16.view_mut(), epilogue, &mut ws).unwrap();
            let epilogue = Epilogue { scale: Some(1e-4), narrow, ..Epilogue::default() };
            let c8 = ViewMut::new(&mut c8, [m, n]).unwrap();
            plan8.run(a8, b8, c8, epilogue, &mut ws8).unwrap();
            assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "bf16 and u8");
        }
        let conv = Conv::<2> { stride: [2, 2], padding: [(1, 1); 2], ..Conv::default() };
        let (x, w, y) = (tensor(&[4, 16, 28, 28]), tensor(&[32, 16, 3, 3]), tensor(&[4, 32, 14, 14]));
        let (xs, wsp, ys) = (x.view().spec(), w.view().spec(), y.view().spec());
        let cases = [
            (Convolution::forward(xs, wsp, ys, &conv).unwrap(), &x, &w, &y),
            (Convolution::backward_data(ys, wsp, xs, &conv).unwrap(), &y, &w, &x),
            (Convolution::backward_weights(xs, ys, wsp, &conv).unwrap(), &x, &y, &w),
        ];
        // Of one kernel position, so that three of four phases are cleared with all of the result.
        let one = Conv::<2> { stride: [2, 2], ..Conv::default() };
        let (w1, wide) = (tensor(&[32, 64, 1, 1]), tensor(&[4, 64, 28, 28]));
        let spec = wide.view().spec();
        let cleared = Convolution::backward_data(ys, w1.view().spec(), spec, &one).unwrap();
        // All phases at once, of planes, of strips of channels (there are no tiles of planes for 4 x 4) and of few channels.
        let depthwise = Conv::<2> { groups: 32, ..conv };
        let (w32, planes) = (tensor(&[32, 1, 3, 3]), tensor(&[4, 32, 28, 28]));
        let w4 = tensor(&[32, 1, 4, 4]);
        let (w3, few) = (tensor(&[32, 3, 3, 3]), tensor(&[4, 3, 28, 28]));
        let gradient = |w: &Tensor<f32>, x: &Tensor<f32>, conv| {
            Convolution::backward_data(ys, w.view().spec(), x.view().spec(), conv).unwrap()
        };
        let at_once = [
            (gradient(&w32, &planes, &depthwise), &y, &w32, &planes),
            (gradient(&w4, &planes, &depthwise), &y, &w4, &planes),
            (gradient(&w3, &few, &conv), &y, &w3, &few),
        ];
        for (op, a, b, out) in cases.into_iter().chain([(cleared, &y, &w1, &wide)]).chain(at_once) {
            let plan = op.plan(&Context::default()).unwrap();
            let mut ws = plan.workspace();
            let mut out = out.clone();
            for _ in 0..3 {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                plan.run(a.view(), b.view(), out.view_mut(), Epilogue::default(), &mut ws).unwrap();
                assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{op:?}");
            }
            let Ok(packed) = plan.pack_weights(b.view()) else { continue };
            for _ in 0..3 {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                plan.run(a.view(), &packed, out.view_mut(), Epilogue::default(), &mut ws).unwrap();
                assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{op:?} of packed weights");
            }
        }
    });
}
