//! Square f32 matmul as percent of the FMA peak that the same process reaches around each sample.
//!
//! `cargo bench --bench matmul` prints criterion's figures and then one table; a filter such as `-- avx512/1024` restricts both.

mod support;

use std::time::Duration;

use comfy_table::Table;
use criterion::{BenchmarkId, Criterion, Throughput};
use support::Samples;
use tile25::numerics::KC;
use tile25::{Backend, Context, Epilogue, Isa, Matmul, Tensor, Threads};

const SQUARES: [usize; 8] = [64, 128, 256, 512, 768, 1024, 1536, 2048];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .without_plots()
        .configure_from_args();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["isa", "kernel", "n", "threads", "GFLOP/s", "FMA peak", "% of peak"]);
    // The portable token is for correctness: where the build has no fma, each of its fmas is a dozen operations.
    for isa in Isa::available().filter(|isa| isa.name() != "portable") {
        for threads in [1, 2] {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of two threads");
            let mut group = criterion.benchmark_group(format!("f32_square_{threads}"));
            for n in SQUARES {
                let flops = 2.0 * (n as f64).powi(3);
                let value = |i: usize| (i % 97) as f32 / 97.0 - 0.5;
                let (a, b) =
                    (Tensor::from_fn([n, n], value).unwrap(), Tensor::from_fn([n, n], value).unwrap());
                let mut c = Tensor::<f32>::zeros([n, n]).unwrap();
                let context = Context { isa, threads: Threads::Pool(&pool), backend: Backend::Tile };
                let op = Matmul::new(a.view().spec(), b.view().spec(), c.view().spec()).unwrap();
                let plan = op.plan(&context).unwrap();
                let mut workspace = plan.workspace();
                let mut samples = Samples::default();
                group.throughput(Throughput::Elements(flops as u64));
                group.bench_function(BenchmarkId::new(isa.name(), n), |bencher| {
                    bencher.iter_custom(|iters| {
                        pool.install(|| {
                            samples.sample(isa, threads, iters, flops, || {
                                plan.run(
                                    a.view(),
                                    b.view(),
                                    c.view_mut(),
                                    Epilogue::default(),
                                    &mut workspace,
                                )
                                .unwrap();
                            })
                        })
                    });
                });
                if samples.is_empty() {
                    continue; // filtered out
                }
                let (gflops, peak, ratio) = samples.medians();
                let kernel = plan.kernel().name.to_string();
                table.add_row([
                    isa.name().to_string(),
                    kernel,
                    n.to_string(),
                    threads.to_string(),
                    format!("{gflops:.1}"),
                    format!("{peak:.1}"),
                    format!("{:.1}", 100.0 * ratio),
                ]);
            }
            group.finish();
        }
    }
    criterion.final_summary();
    println!("\nKC = {KC}; medians of the samples, each beside its own peak\n{table}");
}
