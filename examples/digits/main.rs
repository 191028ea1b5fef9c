//! Trains a small convolutional network on real handwritten digits, forward and backward, on the 25-die tile.
//!
//! `cargo run --release --example digits` ends with a fingerprint of the weights. It is the same whatever the threads, the instruction set
//! and the backend: compare it with the README's.

mod adam;
mod data;
mod kept;
mod meter;
mod net;

use std::error::Error;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use tile25::format::{CFloat8E4M3, CFloat8E5M2, bf16, f16};
use tile25::{Backend, Context, Element, Isa, Threads};
use xxhash_rust::xxh3::Xxh3Default;

use adam::Adam;
use data::Digits;
use meter::Meter;
use net::{Net, Params, Score};

const BATCH: usize = 64;
const SEED: u64 = 25;

/// Train a small convolutional network on the UCI handwritten digits.
#[derive(Parser)]
struct Args {
    /// Threads that play the dies [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Instruction set: portable, neon, avx2, avx512, avx512dot [default: the widest of this machine]
    #[arg(long)]
    isa: Option<Isa>,
    /// Who computes
    #[arg(long, value_enum, default_value_t = BackendArg::Tile)]
    backend: BackendArg,
    /// What activations, weights and gradients are stored in; the optimiser keeps f32 weights
    #[arg(long, value_enum, default_value_t = FormatArg::F32)]
    format: FormatArg,
    /// Passes over the training images
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum BackendArg {
    /// The scalar definition, slow
    Reference,
    /// The tile
    Tile,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum FormatArg {
    /// Single precision
    F32,
    /// bfloat16
    Bf16,
    /// IEEE half precision
    F16,
    /// Dojo's CFloat8: 1_4_3 for activations and weights, 1_5_2 for gradients, a bias for each tensor
    Cfloat8,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0)).build()?;
    let context = Context {
        isa: args.isa.unwrap_or_else(Isa::detect),
        threads: Threads::Pool(&pool),
        backend: match args.backend {
            BackendArg::Reference => Backend::Reference,
            BackendArg::Tile => Backend::Tile,
        },
    };
    // From inside the pool: a run then starts on the thread that asks for it.
    let trained = pool.install(|| {
        let result = match args.format {
            FormatArg::F32 => train::<f32, f32>(&context, args.epochs),
            FormatArg::Bf16 => train::<bf16, bf16>(&context, args.epochs),
            FormatArg::F16 => train::<f16, f16>(&context, args.epochs),
            FormatArg::Cfloat8 => train::<CFloat8E4M3, CFloat8E5M2>(&context, args.epochs),
        };
        result.map_err(|e| e.to_string())
    })?;
    report(&context, &trained);
    Ok(())
}

/// The format without the bias, which belongs to each tensor.
fn name<T: Element>() -> String {
    let name = T::FORMAT.to_string();
    name.split('(').next().unwrap_or_default().to_string()
}

struct Trained {
    params: Params,
    meter: Meter,
    last: Score,
    taken: Duration,
}

/// Activations and weights in `T`, gradients in `G`.
fn train<T: Element, G: Element>(context: &Context<'_>, epochs: u64) -> Result<Trained, Box<dyn Error>> {
    let start = Instant::now();
    let (train, test) = Digits::load()?.split();
    let mut net = Net::<T, G>::new(BATCH, context)?;
    let mut judge = Net::<T, G>::new(test.len(), context)?;
    let mut params = Params::init(SEED)?;
    let mut gradient = Params::zeros()?;
    let mut adam = Adam::new()?;
    let mut meter = Meter::default();
    let mut last = Score::default();
    println!(
        "{} images to learn from, {} held out; activations in {}, gradients in {}; {} on {} threads",
        train.len(),
        test.len(),
        name::<T>(),
        name::<G>(),
        context.isa,
        context.threads.count()
    );

    let batches = (train.len() / net.batch()) as u64;
    // indicatif draws on a terminal only.
    let bar = ProgressBar::new(epochs * batches);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} batches, {eta} left")?);
    for epoch in 1..=epochs {
        let mut learnt = Score::default();
        // The few images that do not fill a batch wait for the next epoch's order.
        for indices in train.shuffled(epoch).chunks_exact(net.batch()) {
            let batch = train.gather(indices);
            learnt.add(net.forward(&params, &batch, &mut meter)?);
            net.backward(&mut gradient, &mut meter)?;
            adam.step(&mut params, &gradient);
            bar.inc(1);
        }
        last = judge.forward(&params, &test, &mut meter)?;
        bar.suspend(|| {
            println!(
                "epoch {epoch:>3}: loss {:.4}, accuracy {:6.2} % | held out: loss {:.4}, accuracy {:6.2} %",
                learnt.mean_loss(),
                learnt.accuracy(),
                last.mean_loss(),
                last.accuracy()
            );
        });
    }
    bar.finish_and_clear();
    Ok(Trained { params, meter, last, taken: start.elapsed() })
}

fn report(context: &Context<'_>, trained: &Trained) {
    let Trained { params, meter, last, taken } = trained;
    println!(
        "\n{:.2} % of the held-out digits told right after {:.1} s",
        last.accuracy(),
        taken.as_secs_f64()
    );
    if context.backend == Backend::Tile {
        let total = meter.macs() as f64;
        println!(
            "share of the 25 dies in {:.2} G multiply-adds ({:.1} GFLOP/s while running):",
            total / 1e9,
            meter.gflops()
        );
        let mut table = Table::new();
        table.load_style(presets::ASCII_FULL_CONDENSED);
        for row in meter.die_macs.chunks(5) {
            table.add_row(row.iter().map(|&macs| format!("{:.2} %", 100.0 * macs as f64 / total)));
        }
        println!("{table}");
    } else {
        println!(
            "{:.2} G multiply-adds by the scalar reference ({:.2} GFLOP/s while running)",
            meter.macs() as f64 / 1e9,
            meter.gflops()
        );
    }
    let mut hash = Xxh3Default::new();
    for values in params.all() {
        for value in values {
            hash.update(&value.to_le_bytes());
        }
    }
    println!("fingerprint: {:016x}", hash.digest());
}
