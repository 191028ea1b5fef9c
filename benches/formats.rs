//! Square products of every format as a multiple of the f32 FMA peak that the same process reaches around each sample, and casts as a part of
//! the bandwidth of a copy.
//!
//! `cargo bench --bench formats` prints criterion's figures and then two tables; a filter such as `-- bf16/avx512dot` restricts both.

mod support;

use std::time::{Duration, Instant};

use comfy_table::Table;
use criterion::{BenchmarkId, Criterion, Throughput};
use support::{Samples, median};
use tile25::format::{CFloat, CFloat8E4M3, CFloat8E5M2, Fp8E4M3, Fp8E5M2, bf16, f16};
use tile25::{Backend, Context, Element, Epilogue, Format, Isa, Matmul, Tensor, Threads};

const SQUARES: [usize; 2] = [1024, 2048];
/// Elements of a cast: in the second-level cache, and beyond every cache.
const LENGTHS: [usize; 2] = [64 * 1024, 32 << 20];

/// A tensor of values between -1/2 and 1/2, rounded to `format`; 8-bit integers fill their range.
fn tensor<T: Element>(n: usize, format: Format) -> Tensor<T> {
    let wide = Tensor::from_fn([n, n], |i| (i % 97) as f32 / 97.0 - 0.5).expect("a small tensor");
    let mut narrow = Tensor::<T>::zeros([n, n]).and_then(|t| t.with_format(format)).expect("a small tensor");
    let how = tile25::cast::Cast { to_scale: 1.0 / 256.0, ..Default::default() };
    how.run(wide.view(), narrow.view_mut(), &Context::default()).expect("a cast of one shape");
    narrow
}

struct Bench {
    criterion: Criterion,
    table: Table,
}

impl Bench {
    /// Products of two operands of one format into `C`.
    fn matmul<T: Element, C: Element>(&mut self, format: Format) {
        for isa in Isa::available().filter(|isa| isa.name() != "portable") {
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                let mut group = self.criterion.benchmark_group(format!("{format}_{threads}"));
                for n in SQUARES {
                    let flops = 2.0 * (n as f64).powi(3);
                    let (a, b) = (tensor::<T>(n, format), tensor::<T>(n, format));
                    let mut c = Tensor::<C>::zeros([n, n]).expect("a small tensor");
                    let context = Context { isa, threads: Threads::Pool(&pool), backend: Backend::Tile };
                    let op = Matmul::new(a.view().spec(), b.view().spec(), c.view().spec())
                        .expect("square shapes");
                    let plan = op.plan(&context).expect("a plan of square shapes");
                    let mut ws = plan.workspace();
                    let mut samples = Samples::default();
                    group.throughput(Throughput::Elements(flops as u64));
                    group.bench_function(BenchmarkId::new(isa.name(), n), |bencher| {
                        bencher.iter_custom(|iters| {
                            pool.install(|| {
                                samples.sample(isa, threads, iters, flops, || {
                                    plan.run(a.view(), b.view(), c.view_mut(), Epilogue::default(), &mut ws)
                                        .expect("operands of the plan");
                                })
                            })
                        });
                    });
                    if samples.is_empty() {
                        continue; // filtered out
                    }
                    let (gflops, peak, ratio) = samples.medians();
                    self.table.add_row([
                        isa.name().to_string(),
                        format!("{format} to {}", C::FORMAT),
                        plan.kernel().name.to_string(),
                        n.to_string(),
                        threads.to_string(),
                        format!("{gflops:.1}"),
                        format!("{peak:.1}"),
                        format!("{ratio:.2}"),
                    ]);
                }
                group.finish();
            }
        }
    }
}

/// Casts of `A` to `B` and copies of as many bytes, read and written, in turns on one thread: GB/s of both and the median ratio.
fn cast<A: Element, B: Element>(table: &mut Table, from: Format, to: Format) {
    let name = format!("{from} to {to}");
    if std::env::args()
        .skip(1)
        .any(|arg| !arg.starts_with('-') && !"cast".contains(&arg) && !name.contains(&arg))
    {
        return;
    }
    for isa in Isa::available().filter(|isa| isa.name() != "portable") {
        for len in LENGTHS {
            let side = (len as f64).sqrt() as usize;
            let src = tensor::<A>(side, from);
            let mut dst = Tensor::<B>::zeros([side, side]).and_then(|t| t.with_format(to)).expect("a tensor");
            let bytes = side * side * (size_of::<A>() + size_of::<B>());
            let (copy_from, mut copy_to) = (vec![1u8; bytes / 2], vec![0u8; bytes / 2]);
            let context = Context { isa, threads: Threads::Seq, backend: Backend::Tile };
            let mut run = || {
                tile25::cast::Cast::default().run(src.view(), dst.view_mut(), &context).expect("one shape");
            };
            let mut copy =
                || std::hint::black_box(&mut copy_to).copy_from_slice(std::hint::black_box(&copy_from));
            let rounds = (64 << 20) / bytes + 1;
            let time = |work: &mut dyn FnMut()| {
                let start = Instant::now();
                (0..rounds).for_each(|_| work());
                start.elapsed().as_secs_f64() / rounds as f64
            };
            let pairs: Vec<(f64, f64)> = (0..11).map(|_| (time(&mut run), time(&mut copy))).collect();
            let rate = |times: Vec<f64>| bytes as f64 / median(times) / 1e9;
            table.add_row([
                isa.name().to_string(),
                name.clone(),
                len.to_string(),
                format!("{:.1}", rate(pairs.iter().map(|pair| pair.0).collect())),
                format!("{:.1}", rate(pairs.iter().map(|pair| pair.1).collect())),
                format!("{:.2}", median(pairs.iter().map(|(cast, copy)| copy / cast).collect())),
            ]);
        }
    }
}

fn main() {
    let criterion = Criterion::default()
        .sample_size(11)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    let bias = |bias| CFloat::new(bias).expect("six bits");
    let (e4m3, e5m2) = (Format::CFloat8E4M3(bias(11)), Format::CFloat8E5M2(bias(20)));
    let mut products = Table::new();
    products.load_style(comfy_table::presets::ASCII_MARKDOWN);
    products.set_header(["isa", "formats", "kernel", "n", "threads", "GFLOP/s", "f32 FMA peak", "of peak"]);
    let mut bench = Bench { criterion, table: products };
    bench.matmul::<f32, f32>(Format::F32);
    bench.matmul::<bf16, f32>(Format::Bf16);
    bench.matmul::<bf16, bf16>(Format::Bf16);
    bench.matmul::<f16, f16>(Format::F16);
    bench.matmul::<CFloat8E4M3, f32>(e4m3);
    bench.matmul::<CFloat8E5M2, bf16>(e5m2);
    bench.matmul::<Fp8E4M3, f32>(Format::Fp8E4M3);
    bench.matmul::<Fp8E5M2, f32>(Format::Fp8E5M2);
    bench.matmul::<i8, i32>(Format::I8);
    bench.matmul::<u8, i32>(Format::U8);
    bench.criterion.final_summary();

    let mut casts = Table::new();
    casts.load_style(comfy_table::presets::ASCII_MARKDOWN);
    casts.set_header(["isa", "cast", "elements", "GB/s", "copy GB/s", "of copy"]);
    cast::<f32, bf16>(&mut casts, Format::F32, Format::Bf16);
    cast::<bf16, f32>(&mut casts, Format::Bf16, Format::F32);
    cast::<f32, f16>(&mut casts, Format::F32, Format::F16);
    cast::<f16, f32>(&mut casts, Format::F16, Format::F32);
    cast::<f32, CFloat8E4M3>(&mut casts, Format::F32, e4m3);
    cast::<CFloat8E4M3, f32>(&mut casts, e4m3, Format::F32);
    cast::<f32, Fp8E5M2>(&mut casts, Format::F32, Format::Fp8E5M2);
    cast::<Fp8E5M2, f32>(&mut casts, Format::Fp8E5M2, Format::F32);
    cast::<f32, i8>(&mut casts, Format::F32, Format::I8);
    cast::<i8, f32>(&mut casts, Format::I8, Format::F32);
    println!(
        "\nmedians of the samples, each beside its own peak\n{}\n\none thread, medians of 11 interleaved pairs\n{casts}",
        bench.table
    );
}
