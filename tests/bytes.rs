//! Products of 8-bit integers by every way: several blocks, operands in place, copied, turned and packed, and sums that wrap.

mod support;

use num_traits::NumCast;
use support::{Draw, Rng, assert_same_codes, contexts, draw, pools, reference};
use tile25::format::{Element, Format};
use tile25::numerics::KC;
use tile25::{Accum, Context, Epilogue, Matmul, View, ViewMut};

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
