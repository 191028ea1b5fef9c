//! Products: random ones, every edge of every tile, operands from afar, rows of a batch.

use proptest::prelude::*;
use tile25::numerics::KC;
use tile25::{Accum, Act, Context, Epilogue, Matmul};

use crate::support::{
    self, Kind, Laid, Real, assert_same, config, fill, float_contexts, kind, pools, reference,
};
use crate::{Finish, compare, depth, extent, finish};

#[derive(Clone, Debug)]
struct MatmulCase {
    lead: Vec<(usize, u8)>,
    m: usize,
    n: usize,
    k: usize,
    finish: Finish,
    kind: Kind,
    seed: u64,
}

fn matmul_case() -> impl Strategy<Value = MatmulCase> {
    let lead = prop::collection::vec((1usize..4, 0u8..4), 0..3);
    (lead, extent(), extent(), depth(), finish(), kind(), any::<u64>())
        .prop_map(|(lead, m, n, k, finish, kind, seed)| MatmulCase { lead, m, n, k, finish, kind, seed })
        .prop_filter("small enough for the scalar reference", |case| {
            let batch: usize = case.lead.iter().map(|lead| lead.0).product();
            batch * case.m * case.n * case.k.max(1) < 4_000_000
        })
}

fn matmul_is_the_same<T: Real>(case: &MatmulCase) {
    let dims = |skip: u8, rows: usize, cols: usize| -> Vec<usize> {
        let lead = case.lead.iter().map(|&(extent, repeat)| if repeat == skip { 1 } else { extent });
        lead.chain([rows, cols]).collect()
    };
    let a = Laid::<T>::new(&dims(1, case.m, case.k), case.seed, true, case.kind);
    let b = Laid::<T>::new(&dims(2, case.k, case.n), case.seed ^ 1, true, case.kind);
    let out = Laid::<T>::new(&dims(9, case.m, case.n), case.seed ^ 2, false, case.kind);
    // Where both repeat, the output does not have the extent either.
    let residual = Laid::<T>::new(out.layout.dims(), case.seed ^ 3, true, case.kind);
    let bias: Vec<T> = fill(&mut support::Rng::new(case.seed ^ 4), case.n, case.kind);
    compare(&out, |context, out| {
        let plan = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec())?
            .accum(case.finish.accum())
            .plan(context)?;
        plan.tile_plan().validate().expect("the planner keeps the laws");
        let mut ws = plan.workspace();
        let epilogue = case.finish.epilogue(&bias, &residual);
        let before = out.clone();
        plan.run(a.view(), b.view(), out.view_mut(), epilogue, &mut ws)?;
        if context.backend == tile25::Backend::Tile {
            // Packed weights and a used workspace change nothing.
            let packed = plan.pack_rhs(b.view())?;
            let mut again = before;
            plan.run(a.view(), &packed, again.view_mut(), epilogue, &mut ws)?;
            assert_same(&again.data, &out.data, || "packed rhs".into());
        }
        Ok(())
    });
}

proptest! {
    #![proptest_config(config("matmul", 192))]
    #[test]
    fn matmul_f32(case in matmul_case()) {
        matmul_is_the_same::<f32>(&case);
    }

    #[test]
    fn matmul_f64(case in matmul_case()) {
        matmul_is_the_same::<f64>(&case);
    }
}

/// All m and n up to two tiles and one, for every kernel, at the borders of a segment; the output starts as NaN and Replace must
/// not read it.
#[test]
fn every_edge_of_every_kernel() {
    fn check<T: Real>() {
        for kernel in tile25_kernels::registry::kernels().filter(|kernel| kernel.form == T::SUMS) {
            let (most_m, most_n) = (2 * kernel.mr + 1, 2 * kernel.nr + 1);
            let mut rng = support::Rng::new(7);
            let a: Vec<T> = fill(&mut rng, most_m * (KC + 1), Kind::Smooth);
            let b: Vec<T> = fill(&mut rng, most_n * (KC + 1), Kind::Smooth);
            let context = Context { isa: kernel.isa, threads: tile25::Threads::Seq, ..Context::default() };
            // Short k at every size; the long ones at one row and column of edges.
            for k in [0, 1, KC - 1, KC, KC + 1] {
                // An rhs that is packed, because its columns lie side by side, and one that is read in place. A column keeps its place whatever n is.
                for strides in [[1, k as isize], [most_n as isize, 1]] {
                    let mut want = vec![T::nan(); most_m * most_n];
                    product(&reference(), &a, (&b, strides), &mut want, [most_m, most_n, k]);
                    for m in 1..=most_m {
                        for n in 1..=most_n {
                            if k > 1 && m % kernel.mr > 1 && n % kernel.nr > 1 && (m * n) % 7 != 0 {
                                continue;
                            }
                            let mut got = vec![T::nan(); m * n];
                            product(&context, &a, (&b, strides), &mut got, [m, n, k]);
                            for (i, &got) in got.iter().enumerate() {
                                let want = want[i / n * most_n + i % n]; // N10: m and n change no element
                                let same = support::same(got, want);
                                assert!(same, "{} {m} x {n} x {k} {strides:?}, element {i}", kernel.name);
                            }
                        }
                    }
                }
            }
        }
    }
    fn product<T: Real>(
        context: &Context<'_>,
        a: &[T],
        (b, strides): (&[T], [isize; 2]),
        out: &mut [T],
        [m, n, k]: [usize; 3],
    ) {
        let a = tile25::View::new(a, [m, k]).unwrap();
        let b = tile25::View::strided(b, 0, [k, n], strides).unwrap();
        let out = tile25::ViewMut::new(out, [m, n]).unwrap();
        let plan = Matmul::new(a.spec(), b.spec(), out.spec()).unwrap().plan(context).unwrap();
        plan.run(a, b, out, Epilogue::default(), &mut plan.workspace()).unwrap();
    }
    check::<f32>();
    check::<f64>();
}

/// A product whose operands lie with these strides, rows and columns of one matrix after the other, by the tile and the reference.
fn strided<T: Real>(
    pools: &[rayon::ThreadPool],
    [first, second, bias]: [&[T]; 3],
    [m, n, k]: [usize; 3],
    lhs: [usize; 2],
    rhs: [usize; 2],
) {
    let signed = |strides: [usize; 2]| strides.map(|stride| stride as isize);
    let a = tile25::View::strided(first, 0, [m, k], signed(lhs)).unwrap();
    let b = tile25::View::strided(second, 0, [k, n], signed(rhs)).unwrap();
    let run = |context: &Context<'_>, accum: Accum| {
        let mut out = vec![T::from(0.5).unwrap(); m * n];
        let view = tile25::ViewMut::new(&mut out, [m, n]).unwrap();
        let op = Matmul::new(a.spec(), b.spec(), view.spec()).unwrap().accum(accum);
        let plan = op.plan(context).unwrap();
        let epilogue = Epilogue { bias: Some(&bias[..n]), act: Act::Relu, ..Epilogue::default() };
        plan.run(a, b, view, epilogue, &mut plan.workspace()).unwrap();
        out
    };
    for accum in [Accum::Replace, Accum::Add] {
        let want = run(&reference(), accum);
        for context in float_contexts(pools) {
            // The scalar fma of the portable token needs a second for a large one.
            if context.isa.name() == "portable" && m * n > 10_000 {
                continue;
            }
            assert_same(&run(&context, accum), &want, || {
                let threads = context.threads.count();
                format!("{m} x {n} x {k} {lhs:?} {rhs:?} on {} and {threads}", context.isa)
            });
        }
    }
}

/// Lines along k a multiple of a page apart, which share a set of the first-level cache, by a few rows or columns: two segments at a time, and a rest; as many lines as fill no group.
#[test]
fn lines_a_page_apart_are_the_same() {
    const APART: usize = 2048;
    let (k, lines, pools) = (2 * KC + 19, 70, pools());
    let mut rng = support::Rng::new(13);
    let matrix: Vec<f32> = fill(&mut rng, lines * APART, Kind::Smooth);
    let few: Vec<f32> = fill(&mut rng, 8 * k, Kind::Smooth);
    let bias: Vec<f32> = fill(&mut rng, lines, Kind::Smooth);
    for count in [1, 2, 3, 4, 5, 8] {
        for lies in [[k, 1], [1, count]] {
            strided(&pools, [&few, &matrix, &bias], [count, lines, k], lies, [1, APART]);
            let [column, step] = lies;
            strided(&pools, [&matrix, &few, &bias], [lines, count, k], [APART, 1], [step, column]);
        }
    }
    // One step, whose distance to the next says nothing.
    for count in [1, 2, 4] {
        strided(&pools, [&few, &matrix, &bias], [count, lines, 1], [1, 8], [7, APART]);
        strided(&pools, [&matrix, &few, &bias], [lines, count, 1], [APART, 7], [5, 1]);
    }
    // A row whose elements lie apart.
    strided(&pools, [&few, &matrix, &bias], [1, lines, k], [1, 8], [1, APART]);
}

/// Rows so far apart that operands do not lie well: the panels that microkernels keep for later, rows and columns asked for ahead, the kernels of few rows.
#[test]
fn operands_from_afar_are_the_same() {
    fn check<T: Real>() {
        const AFAR: usize = 1301;
        let pools = pools();
        let long = KC + 35;
        let mut rng = support::Rng::new(11);
        let data = [0, 1].map(|_| fill::<T>(&mut rng, AFAR * long, Kind::Smooth));
        let bias: Vec<T> = fill(&mut rng, AFAR, Kind::Smooth);
        let shapes = [
            [1, 500, long],
            [2, 70, long],
            [3, 65, 40],
            [4, 130, long],
            [6, 33, long],
            [9, 97, long],
            [29, 150, long],
            [277, 100, long],
        ];
        for [m, n, k] in shapes {
            // (rows, k) of the lhs, (k, columns) of the rhs: side by side, or AFAR from one to the next, or neither.
            for (lhs, rhs) in [
                ([AFAR, 1], [AFAR, 1]),
                ([1, AFAR], [AFAR, 1]),
                ([AFAR, 1], [1, AFAR]),
                ([1, AFAR], [1, AFAR]),
                ([2, AFAR], [AFAR, 2]),
            ] {
                let needs = |[x, y]: [usize; 2], [a, b]: [usize; 2]| (a - 1) * x + (b - 1) * y < AFAR * long;
                if !needs(lhs, [m, k]) || !needs(rhs, [k, n]) {
                    continue;
                }
                strided(&pools, [&data[0], &data[1], &bias], [m, n, k], lhs, rhs);
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_row_of_a_batch_is_the_row_alone() {
    let (m, n, k) = (130, 70, KC + 40);
    let a = Laid::<f32>::new(&[m, k], 2, false, Kind::Smooth);
    let b = Laid::<f32>::new(&[k, n], 4, false, Kind::Smooth);
    let mut whole = vec![0f32; m * n];
    tile25::matmul(a.view(), b.view(), tile25::ViewMut::new(&mut whole, [m, n]).unwrap()).unwrap();
    for row in [0, 1, 63, 129] {
        let strides = a.layout.strides().to_vec();
        let start = (a.start as isize + row as isize * strides[0]) as usize;
        let one = tile25::View::strided(&a.data, start, [1, k], strides).unwrap();
        let mut alone = vec![0f32; n];
        tile25::matmul(one, b.view(), tile25::ViewMut::new(&mut alone, [1, n]).unwrap()).unwrap();
        assert_same(&alone, &whole[row * n..][..n], || format!("row {row}"));
    }
}

/// Larger products, through many waves, steps and the chain along k.
#[test]
fn large_products_are_the_same() {
    for (batch, m, n, k) in [
        (1, 300, 1100, 40),
        (1, 37, 29, 40 * KC + 5),
        (3, 64, 20, 9 * KC),
        (40, 30, 50, 33),
        (1, 1, 3000, 700),
    ] {
        let a = Laid::<f32>::new(&[batch, m, k], 6, false, Kind::Smooth);
        let b = Laid::<f32>::new(&[batch, k, n], 8, false, Kind::Smooth);
        let out = Laid::<f32>::new(&[batch, m, n], 10, false, Kind::Smooth);
        for accum in [Accum::Replace, Accum::Add] {
            compare(&out, |context, out| {
                let op = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec())?.accum(accum);
                let plan = op.plan(context)?;
                plan.tile_plan().validate().expect("the planner keeps the laws");
                plan.run(a.view(), b.view(), out.view_mut(), Epilogue::default(), &mut plan.workspace())
            });
        }
    }
}
