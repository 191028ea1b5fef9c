//! tile25 beside its peers: one process a contender, their rounds in turns, medians.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- matmul` prints a table; `--json` one object a line.

mod child;
mod contenders;
mod sets;
#[allow(dead_code, unreachable_pub, reason = "shared with the criterion benches, which use all of it")]
#[path = "../../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::Command;

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;
use tile25::Isa;

use child::Sample;
use contenders::{Contender, Libraries};
use sets::{Case, Set, Transpose};
use support::median;

/// A result whose relative error exceeds this is no f32 product.
const SANE: f64 = 1e-4;

/// tile25 beside its peers.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Op,
}

#[derive(Subcommand)]
enum Op {
    /// Products in f32
    Matmul(Options),
}

#[derive(Args, Clone)]
struct Options {
    /// The shapes
    #[arg(long, value_enum, default_value_t = Set::Squares)]
    set: Set,
    /// How operands are stored [default: as the set says]
    #[arg(long, value_enum)]
    transpose: Option<Transpose>,
    /// Only shapes whose name contains this, such as "1024 x 1024"
    #[arg(long)]
    only: Option<String>,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Who competes [default: all that are there]
    #[arg(long, value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Our instruction set, and that of the peak [default: the widest]
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
    format: &'static str,
    m: usize,
    n: usize,
    k: usize,
    batch: usize,
    transpose: String,
    threads: usize,
    ours_gflops: f64,
    peers: BTreeMap<Contender, f64>,
    peak_gflops: f64,
    roofline_gflops: f64,
    isa: String,
    kernel: String,
}

impl Row {
    fn best(&self) -> Option<(&Contender, f64)> {
        self.peers.iter().map(|(name, &gflops)| (name, gflops)).max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Ours over the best peer.
    fn ratio(&self) -> Option<f64> {
        self.best().map(|(_, best)| self.ours_gflops / best)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Op::Matmul(options) = Cli::parse().command;
    let isa = options.isa.unwrap_or_else(Isa::detect);
    let mut cases = options.set.cases(options.transpose);
    if let Some(part) = &options.only {
        cases.retain(|case| case.name().contains(part));
    }
    if cases.is_empty() {
        return Err("no shape has such a name".into());
    }
    if let Some(contender) = options.child {
        return Ok(child::run(contender, &cases, options.threads[0], isa, &options.libraries)?);
    }
    let mut contenders = options.contenders.clone();
    if contenders.is_empty() {
        contenders =
            Contender::value_variants().iter().copied().filter(|&c| options.libraries.has(c)).collect();
    }
    for &threads in &options.threads {
        let rows = measure(&options, &contenders, &cases, threads, isa)?;
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

/// All rounds of all contenders on `threads` threads.
fn measure(
    options: &Options,
    contenders: &[Contender],
    cases: &[Case],
    threads: usize,
    isa: Isa,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut samples: BTreeMap<(Contender, usize), Vec<Sample>> = BTreeMap::new();
    for round in 0..options.rounds {
        for &contender in contenders {
            eprintln!("round {} of {}: {contender:?} on {threads} threads", round + 1, options.rounds);
            for sample in spawn(options, contender, threads, isa)? {
                if sample.error > SANE {
                    return Err(format!(
                        "{contender:?} at {}: error {:e}",
                        cases[sample.case].name(),
                        sample.error
                    )
                    .into());
                }
                samples.entry((contender, sample.case)).or_default().push(sample);
            }
        }
    }
    let of = |contender: Contender, case: usize, what: fn(&Sample) -> f64| {
        median(samples[&(contender, case)].iter().map(what).collect())
    };
    let rows = cases.iter().enumerate().map(|(i, case)| {
        let all = || samples.iter().filter(|((_, at), _)| *at == i).flat_map(|(_, samples)| samples);
        let peak = median(all().map(|sample| sample.peak).collect());
        let bandwidth = median(all().map(|sample| sample.bandwidth).collect());
        let flag = |t: bool| if t { 't' } else { 'n' };
        let ours = contenders.contains(&Contender::Ours);
        Row {
            op: "matmul",
            format: "f32",
            m: case.m,
            n: case.n,
            k: case.k,
            batch: case.batch,
            transpose: [flag(case.ta), flag(case.tb)].iter().collect(),
            threads,
            ours_gflops: if ours { of(Contender::Ours, i, |sample| sample.gflops) } else { f64::NAN },
            peers: contenders
                .iter()
                .filter(|&&contender| contender != Contender::Ours)
                .map(|&contender| (contender, of(contender, i, |sample| sample.gflops)))
                .collect(),
            peak_gflops: peak,
            roofline_gflops: peak.min(case.flops() / case.bytes() * bandwidth),
            isa: isa.to_string(),
            kernel: all()
                .map(|sample| &sample.kernel)
                .find(|kernel| !kernel.is_empty())
                .cloned()
                .unwrap_or_default(),
        }
    });
    Ok(rows.collect())
}

/// A process of one contender: its samples.
fn spawn(
    options: &Options,
    contender: Contender,
    threads: usize,
    isa: Isa,
) -> Result<Vec<Sample>, Box<dyn Error>> {
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().map(|value| value.get_name().to_string()).unwrap_or_default()
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("matmul").args(["--child", &name(&|| contender.to_possible_value())]);
    command.args(["--set", &name(&|| options.set.to_possible_value()), "--isa", isa.name()]);
    command.args(["--threads", &threads.to_string()]);
    if let Some(transpose) = options.transpose {
        command.args(["--transpose", &name(&|| transpose.to_possible_value())]);
    }
    if let Some(part) = &options.only {
        command.args(["--only", part]);
    }
    for (flag, path) in [("--openblas", &options.libraries.openblas), ("--onednn", &options.libraries.onednn)]
    {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
    // What tunes OpenBLAS for another machine stays out.
    command.env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE");
    command.envs(contender.environment(threads)).stderr(std::process::Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("the process of {contender:?} ended with {}", output.status).into());
    }
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn print_table(rows: &[Row], contenders: &[Contender], threads: usize) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let peers: Vec<Contender> = contenders.iter().copied().filter(|&c| c != Contender::Ours).collect();
    let mut header = vec!["m x n x k".to_string(), "ours".into()];
    header.extend(peers.iter().map(|peer| format!("{peer:?}").to_lowercase()));
    header.extend(["ours / best peer", "ours, % of roofline", "peak GFLOP/s"].map(String::from));
    table.set_header(header);
    let percent = |gflops: f64, of: f64| format!("{:.1}", 100.0 * gflops / of);
    for row in rows {
        let case = Case {
            batch: row.batch,
            m: row.m,
            n: row.n,
            k: row.k,
            ta: row.transpose.starts_with('t'),
            tb: row.transpose.ends_with('t'),
        };
        let mut cells = vec![case.name(), percent(row.ours_gflops, row.peak_gflops)];
        cells.extend(peers.iter().map(|peer| percent(row.peers[peer], row.peak_gflops)));
        cells.push(row.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")));
        cells.push(percent(row.ours_gflops, row.roofline_gflops));
        cells.push(format!("{:.1}", row.peak_gflops));
        table.add_row(cells);
    }
    let ratios: Vec<f64> = rows.iter().filter_map(Row::ratio).collect();
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    println!("\n{threads} threads: percent of the FMA peak, medians over the rounds\n{table}");
    println!("ours / best peer: geometric mean {mean:.2}, least {least:.2}");
}
