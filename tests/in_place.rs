//! Products of operands that are read where they lie, or copied on the way: shapes and strides around every border between the ways to do it.

mod support;

use support::Real;
use support::{Kind, assert_same, fill, float_contexts, pools, reference};
use tile25::numerics::KC;
use tile25::{Accum, Context, Epilogue, Matmul};

/// Operands that lie well: tiles as tall as few columns allow, columns cut evenly into panels, strips of a few rows, blocks of sums, a lhs through all of k.
#[test]
fn products_read_in_place_are_the_same() {
    fn check<T: Real>() {
        let pools = pools();
        let mut rng = support::Rng::new(13);
        for [batch, m, n, k] in [
            [1, 29, 130, 33],
            [3, 16, 16, 16],
            [1, 47, 64, 64],
            [2, 33, 80, 7],
            [1, 12, 31, 20],
            [5, 20, 20, 20],
            [1, 100, 17, 40],
            [40, 13, 23, 5],
            [1, 1, 500, KC + 44],
            [1, 2, 333, 40],
            [2, 3, 200, KC + 1],
            [1, 4, 611, 260],
            [1, 7, 149, KC + 3],
            // The widest tile, and the halves of its panel below: without a copy of the rhs, in small products.
            [1, 6, 64, 300],
            [1, 23, 61, KC + 9],
            [1, 35, 128, 300],
            [3, 11, 64, 20],
            [3, 17, 52, 20],
            // An rhs of one panel, which is brought to one where it does not lie so: of each width, in parts of its columns.
            [1, 20, 100, 40],
            [2, 40, 64, 100],
            [1, 130, 61, 200],
            [3, 70, 30, 33],
            [2, 65, 16, 256],
            // Products that ask for the next one.
            [30, 29, 64, 100],
            [20, 40, 100, 90],
            // Rows of the lhs that come from afar, to a few columns.
            [1, 611, 20, KC + 45],
            [1, 650, 5, KC + 3],
            // A few columns, whose lhs is transposed: over one and two segments, of rows that share sets of the first-level cache, from memory.
            [1, 77, 1, KC + 40],
            [1, 77, 2, KC + 41],
            [3, 50, 3, 67],
            [1, 67, 4, 2 * KC + 5],
            [1, 70, 7, 2 * KC],
            [2, 33, 8, 2 * KC],
            [1, 4100, 2, KC + 3],
            // Panels of a lhs that is kept, more than go together, the last of them not whole.
            [1, 699, 130, KC + 9],
            // Along the rows of the result: in one block of columns, in two.
            [1, 611, 520, 9],
            [1, 261, 570, KC + 20],
            // A few rows by an rhs that comes from memory.
            [1, 1, 6113, KC + 5],
            [1, 5, 6200, KC + 9],
            [1, 13, 6150, KC + 20],
        ] {
            let a = fill::<T>(&mut rng, batch * m * k, Kind::Smooth);
            // The rhs row by row, with gaps that no cache of a segment holds, and column by column.
            let gap = 200;
            let b = fill::<T>(&mut rng, batch * k * (n + gap), Kind::Smooth);
            let lies = [[k * n, n, 1], [k * (n + gap), n + gap, 1], [k * n, 1, k]];
            let lies = if m * n * k < 10_000_000 { &lies[..] } else { &lies[..1] };
            let bias = fill::<T>(&mut rng, n, Kind::Smooth);
            // The lhs row by row, or column by column.
            let run = |context: &Context<'_>, accum: Accum, lies: [usize; 3], packed: bool, columns: bool| {
                let strides = if columns { [m * k, 1, m] } else { [m * k, k, 1] };
                let strides = strides.map(|stride| stride as isize);
                let (of_a, of_b) = (&a[..], &b[..]);
                let a = tile25::View::strided(of_a, 0, [batch, m, k], strides).unwrap();
                let strides = lies.map(|stride| stride as isize);
                let b = tile25::View::strided(of_b, 0, [batch, k, n], strides).unwrap();
                let mut out = vec![T::from(0.5).unwrap(); batch * m * n];
                let view = tile25::ViewMut::new(&mut out, [batch, m, n]).unwrap();
                let op = Matmul::new(a.spec(), b.spec(), view.spec()).unwrap().accum(accum);
                let plan = op.plan(context).unwrap();
                let mut workspace = plan.workspace();
                if packed {
                    let (b, bias) = (plan.pack_rhs(b).unwrap(), Some(&bias[..]));
                    plan.run(a, &b, view, Epilogue { bias, ..Epilogue::default() }, &mut workspace).unwrap();
                } else {
                    plan.run(a, b, view, Epilogue::default(), &mut workspace).unwrap();
                    if m * n * k < 100_000 {
                        let mut again = vec![T::from(0.5).unwrap(); batch * m * n];
                        plan.run_slices(of_a, of_b, &mut again, &mut workspace).unwrap();
                        assert_same(&again, &out, || format!("{batch} x {m} x {n} x {k} {lies:?} by slices"));
                    }
                }
                out
            };
            // What packed panels and a bias give.
            let biased = |accum: Accum| {
                let mut out = vec![T::from(0.5).unwrap(); batch * m * n];
                let (a, b) = (
                    tile25::View::new(&a, [batch, m, k]).unwrap(),
                    tile25::View::new(&b[..batch * k * n], [batch, k, n]).unwrap(),
                );
                let view = tile25::ViewMut::new(&mut out, [batch, m, n]).unwrap();
                let op = Matmul::new(a.spec(), b.spec(), view.spec()).unwrap().accum(accum);
                let plan = op.plan(&reference()).unwrap();
                let epilogue = Epilogue { bias: Some(&bias[..]), ..Epilogue::default() };
                plan.run(a, b, view, epilogue, &mut plan.workspace()).unwrap();
                out
            };
            for (accum, &lies) in [Accum::Replace, Accum::Add]
                .into_iter()
                .flat_map(|accum| lies.iter().map(move |lies| (accum, lies)))
            {
                let want = run(&reference(), accum, lies, false, false);
                let columns = (lies == [k * n, n, 1]).then(|| run(&reference(), accum, lies, false, true));
                let packed = (lies == [k * n, n, 1]).then(|| biased(accum));
                for context in float_contexts(&pools) {
                    // The scalar fma of the portable token needs a second for a large one.
                    if context.isa.name() == "portable" && m * n * k > 3_000_000 {
                        continue;
                    }
                    let what = || {
                        let threads = context.threads.count();
                        format!("{batch} x {m} x {n} x {k} {lies:?} on {} and {threads}", context.isa)
                    };
                    assert_same(&run(&context, accum, lies, false, false), &want, what);
                    if let Some(columns) = &columns {
                        let what = || format!("columns, {}", what());
                        assert_same(&run(&context, accum, lies, false, true), columns, what);
                    }
                    if let Some(packed) = &packed {
                        let what = || format!("packed, {}", what());
                        assert_same(&run(&context, accum, lies, true, false), packed, what);
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}
