//! The theorem behind the promise: every plan that `validate` accepts gives the bits of the reference; every plan that breaks a
//! law is refused for that law.

mod support;

use proptest::prelude::*;
use support::{Kind, Laid, Rng, assert_same, config, float_contexts, pools, reference};
use tile25::conv::{Conv, Convolution, Way};
use tile25::numerics::KC;
use tile25::plan::matmul::{Grain, plan};
use tile25::plan::validate::Invalid;
use tile25::plan::{BlockTask, DieId, Formats, Link, Mesh, Payload, Port, Problem, Step, TilePlan};
use tile25::{Accum, Context, Epilogue, Format, Layout, Matmul, Spec};
use tile25_kernels::pack::Form;

/// Borders that cut `0..extent` at random.
fn borders(rng: &mut Rng, extent: usize, most: usize) -> Vec<std::ops::Range<usize>> {
    let mut cuts: Vec<usize> =
        (0..rng.below(most)).map(|_| rng.below(extent + 1)).chain([0, extent]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// Any valid plan: random rectangles, dies, groups of segments, chains within a step, order.
fn random_plan(problem: Problem, seed: u64) -> TilePlan {
    let mut rng = Rng::new(seed);
    let mesh = Mesh::TILE;
    let mut steps: Vec<Step> = Vec::new();
    for batch in 0..problem.batch {
        for rows in borders(&mut rng, problem.m, 4) {
            // Columns are cut anew in each band of rows: blocks need not form a grid.
            for cols in borders(&mut rng, problem.n, 4) {
                let mut step = rng.below(3);
                let parts = match problem.segments() {
                    0 => std::iter::once(0..0).collect(),
                    segments => borders(&mut rng, segments, 5),
                };
                for segments in parts {
                    let die = mesh.die(rng.below(mesh.dies()));
                    if steps.len() <= step {
                        steps.resize_with(step + 1, Step::default);
                    }
                    steps[step].tasks.push(BlockTask {
                        die,
                        batch,
                        rows: rows.clone(),
                        cols: cols.clone(),
                        segments,
                    });
                    step += rng.below(3);
                }
            }
        }
    }
    for step in &mut steps {
        for i in (1..step.tasks.len()).rev() {
            step.tasks.swap(i, rng.below(i + 1));
        }
    }
    let mut plan = TilePlan { mesh, problem, steps };
    plan.route();
    plan
}

fn problem() -> impl Strategy<Value = Problem> {
    let k = prop::sample::select(vec![0, 1, 100, KC, KC + 1, 3 * KC, 5 * KC + 7, 9 * KC]);
    (1usize..3, 1usize..60, 1usize..60, k).prop_map(|(batch, m, n, k)| Problem {
        formats: Formats::all(Format::F32),
        batch,
        m,
        n,
        k,
    })
}

proptest! {
    #![proptest_config(config("plan_laws", 96))]

    #[test]
    fn every_valid_plan_gives_the_bits_of_the_reference(problem in problem(), seed in any::<u64>(), add in any::<bool>()) {
        let tile_plan = random_plan(problem, seed);
        prop_assert_eq!(tile_plan.validate(), Ok(()));
        let Problem { batch, m, n, k, .. } = problem;
        let a = Laid::<f32>::new(&[batch, m, k], 2, false, Kind::Wide);
        let b = Laid::<f32>::new(&[batch, k, n], 4, false, Kind::Wide);
        let out = Laid::<f32>::new(&[batch, m, n], 5, false, Kind::Wide);
        let accum = if add { Accum::Add } else { Accum::Replace };
        let op = Matmul::new(a.view().spec(), b.view().spec(), out.view().spec()).unwrap().accum(accum);
        let mut want = out.clone();
        let plan = op.plan(&reference()).unwrap();
        plan.run(a.view(), b.view(), want.view_mut(), Epilogue::default(), &mut plan.workspace()).unwrap();
        let pools = pools();
        for context in float_contexts(&pools) {
            let mut got = out.clone();
            let plan = op.plan(&context).unwrap();
            // The random plan is of the product as written; a transposed kernel takes none of it.
            let Ok(plan) = plan.with_tile_plan(tile_plan.clone()) else { continue };
            plan.run(a.view(), b.view(), got.view_mut(), Epilogue::default(), &mut plan.workspace()).unwrap();
            assert_same(&got.data, &want.data, || format!("{} on {} threads", context.isa, context.threads.count()));
        }
    }

    #[test]
    fn the_planner_keeps_every_law(problem in problem(), threads in 1usize..9, scale in 1usize..40) {
        let problem = Problem { m: problem.m * scale, n: problem.n * (41 - scale), ..problem };
        for grain in [Grain { rows: 6, cols: 16, bytes: 4 }, Grain { rows: 8, cols: 48, bytes: 4 }, Grain { rows: 4, cols: 8, bytes: 4 }] {
            let plan = plan(problem, grain, threads);
            prop_assert_eq!(plan.validate(), Ok(()));
            let total: u64 = plan.macs_per_die().iter().sum();
            prop_assert_eq!(total, problem.macs());
            for task in plan.tasks() {
                prop_assert!(task.rows.start % grain.rows == 0 && task.cols.start % grain.cols == 0);
            }
        }
    }

    #[test]
    fn the_price_counts_the_bytes_of_the_plan(problem in problem(), seed in any::<u64>()) {
        let plan = random_plan(problem, seed);
        let cost = plan.price(&tile25::machine::D1_TILE).unwrap();
        let planned: u64 = plan.steps.iter().flat_map(|step| &step.transfers).map(|transfer| transfer.bytes).sum();
        prop_assert_eq!(cost.link_bytes.values().sum::<u64>(), planned);
        prop_assert_eq!(cost.die_macs.values().sum::<u64>(), problem.macs());
        prop_assert!(cost.seconds >= cost.compute_seconds && cost.seconds <= cost.compute_seconds + cost.transfer_seconds + 1e-15);
    }
}

fn sample() -> TilePlan {
    let problem = Problem { formats: Formats::all(Format::F32), batch: 2, m: 200, n: 300, k: 3 * KC };
    let plan = plan(problem, Grain { rows: 6, cols: 16, bytes: 4 }, 2);
    assert_eq!(plan.validate(), Ok(()));
    plan
}

#[test]
fn each_broken_law_is_named() {
    let broken = |edit: &dyn Fn(&mut TilePlan)| {
        let mut plan = sample();
        edit(&mut plan);
        plan.validate().expect_err("the edit breaks a law")
    };
    let nowhere = DieId { row: 5, col: 0 };
    assert!(matches!(broken(&|p| p.steps[1].tasks[0].die = nowhere), Invalid::NoSuchDie { step: 1, .. }));
    assert!(matches!(broken(&|p| p.steps[0].tasks[0].rows = 0..0), Invalid::EmptyTask { .. }));
    assert!(matches!(broken(&|p| p.steps[0].tasks[0].segments = 0..0), Invalid::EmptyTask { .. }));
    assert!(matches!(broken(&|p| p.steps[0].tasks[0].cols.end = 301), Invalid::OutsideProblem { .. }));
    assert!(matches!(broken(&|p| p.steps[0].tasks[0].batch = 2), Invalid::OutsideProblem { .. }));
    assert!(matches!(broken(&|p| p.steps[0].tasks[0].rows.end += 1), Invalid::BlocksOverlap));
    let first = sample().steps[0].tasks[0].clone();
    let without = move |p: &mut TilePlan| {
        for step in &mut p.steps {
            step.tasks.retain(|task| {
                (task.batch, &task.rows, &task.cols) != (first.batch, &first.rows, &first.cols)
            });
        }
    };
    assert!(matches!(broken(&without), Invalid::NotCovered { .. }));
    let twice = |p: &mut TilePlan| {
        let task = p.steps[0].tasks[0].clone();
        p.steps[0].tasks.push(task);
    };
    assert!(matches!(broken(&twice), Invalid::SegmentOrder { .. }));
    assert!(matches!(broken(&|p| p.steps.swap(0, 1)), Invalid::SegmentOrder { .. }));
    assert!(matches!(
        broken(&|p| {
            p.steps[2].tasks.pop();
        }),
        Invalid::SegmentOrder { .. }
    ));
    assert!(matches!(broken(&|p| p.steps[0].transfers[0].bytes += 1), Invalid::WrongBytes { step: 0, .. }));
    assert!(matches!(
        broken(&|p| p.steps[0].transfers[0].link.to = DieId { row: 3, col: 3 }),
        Invalid::NoSuchLink { .. }
    ));
    assert!(matches!(
        broken(&|p| {
            p.steps[0].transfers.pop();
        }),
        Invalid::NotDelivered { .. }
    ));
    let late = |p: &mut TilePlan| p.steps[0].transfers.reverse();
    assert!(matches!(broken(&late), Invalid::NothingToSend { .. }));
    assert!(matches!(broken(&|p| p.steps[0].transfers.clear()), Invalid::NotDelivered { .. }));
}

#[test]
fn a_die_must_hold_what_its_step_needs() {
    let problem = Problem { formats: Formats::all(Format::F32), batch: 1, m: 20_000, n: 20_000, k: KC };
    let task = BlockTask {
        die: DieId { row: 0, col: 0 },
        batch: 0,
        rows: 0..20_000,
        cols: 0..20_000,
        segments: 0..1,
    };
    let mut plan = TilePlan {
        mesh: Mesh::TILE,
        problem,
        steps: vec![Step { transfers: Vec::new(), tasks: vec![task] }],
    };
    plan.route();
    assert!(matches!(plan.validate(), Err(Invalid::SramOverflow { .. })));
}

#[test]
fn a_partial_sum_travels_to_the_die_that_adds_to_it() {
    let problem = Problem { formats: Formats::all(Format::F32), batch: 1, m: 8, n: 8, k: 2 * KC };
    let task = |die, segments| BlockTask { die, batch: 0, rows: 0..8, cols: 0..8, segments };
    let step = |task| Step { transfers: Vec::new(), tasks: vec![task] };
    let (near, far) = (DieId { row: 0, col: 0 }, DieId { row: 1, col: 1 });
    let mut plan =
        TilePlan { mesh: Mesh::TILE, problem, steps: vec![step(task(near, 0..1)), step(task(far, 1..2))] };
    plan.route();
    assert_eq!(plan.validate(), Ok(()));
    let partial: Vec<Link> = plan.steps[1]
        .transfers
        .iter()
        .filter(|transfer| matches!(transfer.payload, Payload::PartialC { .. }))
        .map(|transfer| transfer.link)
        .collect();
    let corner = DieId { row: 0, col: 1 };
    assert_eq!(
        partial,
        [Link { from: Port::Die(near), to: corner }, Link { from: Port::Die(corner), to: far }]
    );
    plan.steps[1].transfers.retain(|transfer| !matches!(transfer.payload, Payload::PartialC { .. }));
    assert!(matches!(plan.validate(), Err(Invalid::NotDelivered { .. })));
}

#[test]
fn a_plan_of_another_problem_is_refused() {
    let (a, b) = (vec![0.0f32; 64], vec![0.0f32; 64]);
    let (a, b) = (tile25::View::new(&a, [8, 8]).unwrap(), tile25::View::new(&b, [8, 8]).unwrap());
    let plan = Matmul::new(a.spec(), b.spec(), a.spec()).unwrap().plan(&Context::default()).unwrap();
    assert!(plan.clone().with_tile_plan(sample()).is_err());
    let mut broken = plan.tile_plan().clone();
    broken.steps[0].transfers.clear();
    assert!(matches!(plan.with_tile_plan(broken), Err(tile25::Error::Plan { .. })));
}

#[test]
fn a_plan_renders_as_text() {
    let text = sample().render();
    assert!(text.contains("2 x (200 x 1536) * (1536 x 300) in f32, k in 3 segments of 512"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with('+')).count(), 6, "{text}");
    assert!(text.lines().filter(|line| line.starts_with('|')).all(|line| line.len() == 46), "{text}");
}

/// Step 3 of the plan is empty. Were it to count as done at once, step 5 would overwrite the panel of B that step 1 still reads: its
/// last task waits for a tall block of A to be packed while the other threads have nothing left to do but go on.
#[test]
fn an_empty_step_keeps_panels_alive() {
    let (m, n, k) = (2048, 16, 4 * KC);
    let problem = Problem { formats: Formats::all(Format::F32), batch: 1, m, n, k };
    let (a, b) =
        (Laid::<f32>::new(&[m, k], 2, false, Kind::Wide), Laid::<f32>::new(&[k, n], 4, false, Kind::Wide));
    let mut plan = TilePlan { mesh: Mesh::TILE, problem, steps: vec![Step::default(); 7] };
    for (step, segments) in [(0, 0..1), (1, 1..2), (5, 2..3), (6, 3..4)] {
        for (block, rows) in [0..8, 8..16, 16..24, 24..m].into_iter().enumerate() {
            let die = Mesh::TILE.die(block);
            plan.steps[step].tasks.push(BlockTask {
                die,
                batch: 0,
                rows,
                cols: 0..n,
                segments: segments.clone(),
            });
        }
    }
    plan.route();
    assert_eq!(plan.validate(), Ok(()));
    let out = vec![f32::NAN; m * n];
    let op = Matmul::new(a.view().spec(), b.view().spec(), tile25::View::new(&out, [m, n]).unwrap().spec())
        .unwrap();
    let run = |planned: &tile25::MatmulPlan<'_>| {
        let mut out = out.clone();
        let view = tile25::ViewMut::new(&mut out, [m, n]).unwrap();
        planned.run(a.view(), b.view(), view, Epilogue::default(), &mut planned.workspace()).unwrap();
        out
    };
    let want = run(&op.plan(&Context::default()).unwrap());
    let pools = pools();
    for context in float_contexts(&pools).filter(|context| context.threads.count() > 2) {
        let planned = op.plan(&context).unwrap().with_tile_plan(plan.clone()).unwrap();
        for _ in 0..10 {
            assert_same(&run(&planned), &want, || {
                format!("{} on {} threads", context.isa, context.threads.count())
            });
        }
    }
}

/// Each way that a convolution is executed, by a shape and a layout that take it: else its kernels could rest while tickets give the same bits.
#[test]
fn shape_and_layout_decide_the_way() {
    let spec = |dims: [usize; 4], channels_last: bool, format: Format| {
        let [_, c, h, w] = dims.map(|extent| extent as isize);
        let strides = if channels_last { [h * w * c, 1, w * c, c] } else { [c * h * w, h * w, w, 1] };
        Spec { format, layout: Layout::strided(&dims, &strides).unwrap() }
    };
    let ways = |[c_in, c_out, kernel, groups]: [usize; 4], last: bool, format: Format| {
        let same = (kernel / 2, kernel / 2);
        let conv = Conv::<2> { padding: [same; 2], groups, ..Conv::default() };
        let x = spec([2, c_in, 16, 16], last, format);
        let w = spec([c_out, c_in / groups, kernel, kernel], last, format);
        let y = spec([2, c_out, 16, 16], last, format);
        let ops = [
            Convolution::forward(x, w, y, &conv),
            Convolution::backward_data(y, w, x, &conv),
            Convolution::backward_weights(x, y, w, &conv),
        ];
        ops.map(|op| op.unwrap().plan(&Context::default()).unwrap().ways().next().unwrap())
    };
    let (f32, isa) = (Format::F32, tile25::Isa::detect());
    for (last, windows) in [(true, Way::Windows), (false, Way::WindowsOfBands)] {
        assert_eq!(ways([32, 24, 3, 1], last, Format::F64), [windows, windows, Way::WeightGradient]);
    }
    assert_eq!(ways([32, 24, 1, 1], false, f32), [Way::Matmul; 3]);
    for (last, planar) in [(true, Way::Windows), (false, Way::WholePlanes)] {
        let conv = Conv::<2> { padding: [(1, 1), (0, 0)], ..Conv::default() };
        let [x, w, y] = [[2, 32, 20, 16], [24, 32, 3, 1], [2, 24, 20, 16]].map(|dims| spec(dims, last, f32));
        let over_lines = Convolution::forward(x, w, y, &conv).unwrap();
        let way = over_lines.plan(&Context::default()).unwrap().ways().next().unwrap();
        assert_eq!(way, planar);
    }
    // The loops over lines are compiled with the dot products.
    let of_few =
        if matches!(isa.name(), "avx512dot" | "amx") { Way::DotWindows } else { Way::WindowsOfBands };
    for (format, of_few) in [(f32, of_few), (Format::F64, Way::WindowsOfBands)] {
        assert_eq!(ways([3, 24, 3, 1], true, format), [of_few, Way::FewChannels, Way::WeightGradient]);
    }
    for format in [f32, Format::F64] {
        let (here, of_bands) = (Way::Depthwise, Way::DepthwiseOfBands);
        assert_eq!(ways([32, 32, 3, 32], true, format), [here; 3]);
        assert_eq!(ways([32, 32, 5, 32], true, format), [here, here, of_bands]);
        let of_planes = if format == f32 { Way::DepthwiseOfPlanes } else { of_bands };
        assert_eq!(ways([32, 32, 3, 32], false, format), [of_planes, of_planes, of_bands]);
        assert_eq!(ways([32, 32, 9, 32], false, format), [of_bands; 3]);
        assert_eq!(ways([33, 33, 3, 33], true, format), [of_bands; 3]);
        assert_eq!(ways([32, 32, 9, 32], true, format), [of_bands; 3]);
    }
    // Where there is a dot product of bf16, pairs of channels meet it.
    let bf16 = Spec { format: Format::Bf16, layout: Layout::contiguous(&[8, 8]).unwrap() };
    let matmul = Matmul::new(bf16, bf16, bf16).unwrap().plan(&Context::default()).unwrap();
    let of_pairs = matmul.kernel().form == Form::Bf16x2;
    let of_bf16 = if of_pairs { Way::DotWindows } else { Way::WindowsOfBands };
    let of_bytes = match isa.name() {
        "amx" => Way::Bytes,
        "avx512dot" => Way::DotWindows,
        _ => Way::Tickets,
    };
    for last in [true, false] {
        assert_eq!(ways([32, 24, 3, 1], last, Format::Bf16), [of_bf16, of_bf16, Way::Tickets]);
        // No whole pairs.
        let odd = ways([33, 23, 3, 1], last, Format::Bf16);
        assert_eq!(odd, [Way::WindowsOfBands, Way::WindowsOfBands, Way::Tickets]);
        assert_eq!(ways([32, 24, 3, 1], last, Format::F16)[0], Way::WindowsOfBands);
        assert_eq!(ways([32, 24, 1, 1], last, Format::F16)[0], Way::Tickets);
        assert_eq!(ways([32, 24, 3, 1], last, Format::I8), [of_bytes, of_bytes, Way::Tickets]);
        for format in [Format::I8, Format::Bf16] {
            let of_bands = Way::DepthwiseOfBands;
            assert_eq!(ways([32, 32, 3, 32], last, format), [of_bands, of_bands, Way::Tickets]);
            // More products than f32 has room for the sum of, if they are integers.
            let large = if format == Format::I8 { Way::Tickets } else { of_bands };
            assert_eq!(ways([32, 32, 17, 32], last, format)[0], large);
        }
    }
    let in_place = if of_bytes == Way::Tickets { Way::Tickets } else { Way::Bytes };
    assert_eq!(ways([32, 24, 1, 1], true, Format::U8)[..2], [in_place; 2]);
    if of_bytes == Way::DotWindows {
        assert_eq!(ways([32, 24, 1, 1], true, Format::I8)[..2], [Way::DotWindows; 2]);
        assert_eq!(ways([32, 24, 1, 1], false, Format::I8), [Way::Tickets; 3]);
    }
}
