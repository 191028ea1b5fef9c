//! tile25 beside its peers: one process a contender, their samples of a case in turns, medians.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- matmul` (or `conv`) prints a table; `--json` one object a line.

#[cfg(feature = "candle")]
mod candle;
mod child;
mod contenders;
mod conv;
mod conv_sets;
mod driver;
mod onednn;
mod sets;
#[allow(dead_code, unreachable_pub, reason = "shared with the criterion benches, which use all of it")]
#[path = "../../support/mod.rs"]
mod support;
mod turns;

use std::collections::BTreeMap;
use std::error::Error;

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;
use tile25::Isa;

use child::Sample;
use contenders::{Contender, Libraries};
use sets::{Case, Operands, Set, Transpose};
use support::median;
use turns::Peer;

/// A result whose relative error exceeds this is no such product.
const SANE: f64 = 1e-4;

/// tile25 beside its peers.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Op,
}

#[derive(Subcommand)]
enum Op {
    /// Products
    Matmul {
        /// The shapes
        #[arg(long, value_enum, default_value_t = Set::Squares)]
        set: Set,
        /// Shapes of your own in place of a set: m x n x k or batch x m x n x k, such as 128x768x3072
        #[arg(long, value_delimiter = ',', value_parser = sets::parse_shape)]
        shape: Vec<sets::Gemm>,
        /// How operands are stored [default: as the set says]
        #[arg(long, value_enum)]
        transpose: Option<Transpose>,
        /// What operands are; others than f32 are multiplied by ours and by oneDNN
        #[arg(long, value_enum, default_value_t = Operands::F32)]
        format: Operands,
        #[command(flatten)]
        options: Options,
    },
    /// Convolutions
    Conv {
        /// The shapes
        #[arg(long, value_enum, default_value_t = conv_sets::Set::Resnet50)]
        set: conv_sets::Set,
        /// Shapes of your own in place of a set, as the tables name them, such as "64-128 @56x56 k3x3 s2x2"; padded so that a stride of 1 keeps the size
        #[arg(long, value_delimiter = ',', value_parser = conv_sets::parse_shape)]
        shape: Vec<conv::Convolve>,
        /// What is computed
        #[arg(long, value_enum, default_value_t = conv::Direction::Forward)]
        direction: conv::Direction,
        /// How tensors lie
        #[arg(long, value_enum, default_value_t = conv::Order::Nhwc)]
        layout: conv::Order,
        /// Images, where the set does not say
        #[arg(long, default_value_t = 1)]
        batch: usize,
        /// What operands are; i8 forward only, others than f32 by ours and by oneDNN
        #[arg(long, value_enum, default_value_t = Operands::F32)]
        format: Operands,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args, Clone)]
struct Options {
    /// Only shapes whose name contains this, such as "1024 x 1024"
    #[arg(long)]
    only: Option<String>,
    /// Only shapes of at most so many operations, in 10^9: the largest of DeepBench take half a minute a product
    #[arg(long)]
    most_gflop: Option<f64>,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Who competes [default: all that are there]
    #[arg(long, value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Our instruction set, and that of the peak [default: the widest]; built with --no-default-features, gemm has no AVX-512 either
    #[arg(long)]
    isa: Option<Isa>,
    /// One JSON object a line instead of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    libraries: Libraries,
    /// Measure one contender in this process (the parent says so)
    #[arg(long, value_enum, hide = true)]
    child: Option<Contender>,
}

/// What is known of a case.
#[derive(Serialize)]
struct Row {
    op: &'static str,
    format: Operands,
    #[serde(flatten)]
    shape: Value,
    #[serde(skip)]
    name: String,
    threads: usize,
    ours_gflops: f64,
    peers: BTreeMap<Contender, f64>,
    /// How many times as fast as each we are.
    ours_over: BTreeMap<Contender, f64>,
    /// GFLOP/s of each contender, round by round.
    #[serde(skip)]
    rounds: BTreeMap<Contender, Vec<f64>>,
    peak_gflops: f64,
    roofline_gflops: f64,
    isa: String,
    kernel: String,
}

impl Row {
    /// Ours over a peer, both with weights as the library likes them.
    fn packed_ratio(&self, peer: Contender) -> Option<f64> {
        self.over(Contender::OursPacked, peer)
    }

    /// Ours over the best of those who get and leave operands as we do.
    fn ratio(&self) -> Option<f64> {
        let others =
            [Contender::OursPacked, Contender::Before, Contender::OnednnBlocked, Contender::Onnxruntime];
        let alike = self.ours_over.iter().filter(|(name, _)| !others.contains(name));
        alike.map(|(_, &ratio)| ratio).min_by(f64::total_cmp)
    }

    /// How many times as fast as `b` a contender is: the median over the rounds, each of which met them within a second of each other. A quotient of their medians
    /// would compare two moments of a shared machine.
    fn over(&self, a: Contender, b: Contender) -> Option<f64> {
        let (a, b) = (self.rounds.get(&a)?, self.rounds.get(&b)?);
        Some(median(a.iter().zip(b).map(|(a, b)| a / b).collect()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match Cli::parse().command {
        Op::Matmul { set, shape, transpose, format, options } => {
            let cases = if shape.is_empty() { set.cases() } else { shape };
            compare(&options, sets::stored(cases, transpose, format))
        }
        Op::Conv { direction, format: Operands::I8, .. } if direction != conv::Direction::Forward => {
            Err("gradients of 8-bit integers are nobody's: --direction forward".into())
        }
        Op::Conv { set, shape, direction, layout, batch, format, options } => {
            let cases = if shape.is_empty() { set.cases() } else { shape };
            compare(&options, conv_sets::stored(cases, direction, layout, format, batch))
        }
    }
}

/// Measures the cases as one contender, or all contenders by processes of their own.
fn compare<C: Case + Sync>(options: &Options, mut cases: Vec<C>) -> Result<(), Box<dyn Error>> {
    let isa = options.isa.unwrap_or_else(Isa::detect);
    if let Some(part) = &options.only {
        cases.retain(|case| case.name().contains(part));
    }
    if let Some(most) = options.most_gflop {
        cases.retain(|case| case.flops() <= most * 1e9);
    }
    if cases.is_empty() {
        return Err("no such shape".into());
    }
    if let Some(contender) = options.child {
        return Ok(child::run(contender, &cases, options.threads[0], isa, &options.libraries)?);
    }
    let mut contenders = options.contenders.clone();
    if contenders.is_empty() {
        let all = Contender::value_variants().iter().copied();
        contenders = all.filter(|&c| options.libraries.has(c)).collect();
    }
    contenders.retain(|&contender| cases.iter().all(|case| case.takes(contender)));
    for &threads in &options.threads {
        let rows = measure(options, &contenders, &cases, threads, isa)?;
        if options.json {
            for row in &rows {
                println!("{}", serde_json::to_string(row)?);
            }
        } else {
            print_table(&rows, &contenders, threads);
        }
    }
    Ok(())
}

/// All rounds of all contenders on `threads` threads: case by case, so that what is compared was measured within seconds.
fn measure<C: Case>(
    options: &Options,
    contenders: &[Contender],
    cases: &[C],
    threads: usize,
    isa: Isa,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut samples: BTreeMap<(Contender, usize), Vec<Sample>> = BTreeMap::new();
    let mut peers = Vec::new();
    for &contender in contenders {
        let other = options.libraries.path(contender).filter(|_| contender == Contender::Before);
        let program = other.map_or_else(std::env::current_exe, Ok)?;
        peers.push((contender, Peer::start(&program, contender, threads)?));
    }
    for (i, case) in cases.iter().enumerate() {
        eprintln!("{} of {} on {threads} threads: {}", i + 1, cases.len(), case.name());
        for _ in 0..options.rounds {
            for (contender, peer) in &mut peers {
                let sample = peer.sample(i)?;
                if sample.error > SANE {
                    return Err(format!("{contender:?} at {}: error {:e}", case.name(), sample.error).into());
                }
                samples.entry((*contender, i)).or_default().push(sample);
            }
        }
    }
    drop(peers);
    let rows = cases.iter().enumerate().map(|(i, case)| {
        let all = || samples.iter().filter(|((_, at), _)| *at == i).flat_map(|(_, samples)| samples);
        let peak = median(all().map(|sample| sample.peak).collect());
        let bandwidth = median(all().map(|sample| sample.bandwidth).collect());
        let of = |&contender: &Contender| -> (Contender, Vec<f64>) {
            (contender, samples[&(contender, i)].iter().map(|sample| sample.gflops).collect())
        };
        let rounds: BTreeMap<_, _> = contenders.iter().map(of).collect();
        let mut peers: BTreeMap<_, _> =
            rounds.iter().map(|(&contender, rounds)| (contender, median(rounds.clone()))).collect();
        let mut row = Row {
            op: C::OP,
            format: case.format(),
            shape: case.fields(),
            name: case.name(),
            threads,
            ours_gflops: peers.remove(&Contender::Ours).unwrap_or(f64::NAN),
            peers,
            ours_over: BTreeMap::new(),
            rounds,
            peak_gflops: peak,
            roofline_gflops: (peak * case.format().rate(isa)).min(case.flops() / case.bytes() * bandwidth),
            isa: isa.to_string(),
            kernel: all()
                .map(|sample| &sample.kernel)
                .find(|kernel| !kernel.is_empty())
                .cloned()
                .unwrap_or_default(),
        };
        let over = |&peer: &Contender| Some((peer, row.over(Contender::Ours, peer)?));
        row.ours_over = row.peers.keys().filter_map(over).collect();
        row
    });
    Ok(rows.collect())
}

fn print_table(rows: &[Row], contenders: &[Contender], threads: usize) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let peers: Vec<Contender> = contenders.iter().copied().filter(|&c| c != Contender::Ours).collect();
    let mut header = vec!["shape".to_string(), "ours".into()];
    header.extend(peers.iter().map(|peer| format!("{peer:?}").to_lowercase()));
    header.extend(["ours / best peer", "ours, % of roofline", "peak GFLOP/s"].map(String::from));
    table.set_header(header);
    let percent = |gflops: f64, of: f64| format!("{:.1}", 100.0 * gflops / of);
    for row in rows {
        let mut cells = vec![row.name.clone(), percent(row.ours_gflops, row.peak_gflops)];
        cells.extend(peers.iter().map(|peer| percent(row.peers[peer], row.peak_gflops)));
        cells.push(row.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")));
        cells.push(percent(row.ours_gflops, row.roofline_gflops));
        cells.push(format!("{:.1}", row.peak_gflops));
        table.add_row(cells);
    }
    println!("\n{threads} threads: percent of the FMA peak, medians over the rounds\n{table}");
    let change = |row: &Row| row.over(Contender::Ours, Contender::Before);
    print_ratios("ours / ours of the other build", rows.iter().filter_map(change).collect());
    print_ratios("ours / best peer", rows.iter().filter_map(Row::ratio).collect());
    for (peer, name) in [(Contender::OnednnBlocked, "oneDNN"), (Contender::Onnxruntime, "ONNX Runtime")] {
        let ratios = rows.iter().filter_map(|row| row.packed_ratio(peer)).collect();
        print_ratios(&format!("packed, ours / {name}"), ratios);
    }
}

fn print_ratios(what: &str, ratios: Vec<f64>) {
    if ratios.is_empty() {
        return;
    }
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{what}: geometric mean {mean:.2}, least {least:.2}");
}
