//! One contender alone in its process: samples of the cases it is asked for, each beside the FMA peak.

use std::io::BufRead;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tile25::Isa;

use crate::contenders::{Contender, Libraries, Run};
use crate::driver::Driver;
use crate::sets::Case;
use crate::support::fma_peak;

/// Timed work of a case, at least; a single call may take longer.
const SAMPLE: Duration = Duration::from_millis(20);
/// Untimed work before it.
const WARM_UP: Duration = Duration::from_millis(8);
/// Untimed work before the first sample: pools start, cores wake.
const FIRST_WARM_UP: Duration = Duration::from_millis(500);
/// Bytes that no cache holds.
const BEYOND_CACHES: usize = 256 << 20;

/// What a child prints for a sample, a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub gflops: f64,
    pub peak: f64,
    /// GB/s of reading memory, of the same process.
    pub bandwidth: f64,
    pub kernel: String,
    /// Largest difference from f64 over some elements, as a part of the sum of magnitudes: a contender that computes something else is caught.
    pub error: f64,
}

/// The case at hand, which is asked for round after round.
struct Current {
    case: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    /// What the contender runs, unless it is measured in another language, and its kernel.
    ready: Option<(Run, String)>,
}

/// Prints a sample of each case whose number comes from the standard input, a line each.
pub fn run<C: Case + Sync>(
    contender: Contender,
    cases: &[C],
    threads: usize,
    isa: Isa,
    libraries: &Libraries,
) -> Result<(), String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())?;
    pool.install(|| {
        let (mut driver, mut bandwidth, mut current) = (None, None, None::<Current>);
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|e| e.to_string())?;
            let i: usize = line.trim().parse().map_err(|e| format!("{line:?}: {e}"))?;
            let case = cases.get(i).ok_or_else(|| format!("there is no case {i}"))?;
            let warm_up = if bandwidth.is_none() { FIRST_WARM_UP } else { WARM_UP };
            let bandwidth = *bandwidth.get_or_insert_with(|| read_bandwidth(threads));
            if current.as_ref().is_none_or(|current| current.case != i) {
                // What the last case took is free before the next is made.
                current = None;
            }
            let Current { a, b, c, ready, .. } = match &mut current {
                Some(current) => current,
                none => {
                    let format = case.format();
                    let [of_a, of_b, of_c] = case.lens();
                    let outside = contender == Contender::Onnxruntime;
                    let ready = match outside {
                        true => None,
                        false => Some(case.prepare(contender, threads, isa, libraries)?),
                    };
                    none.insert(Current {
                        case: i,
                        a: (0..of_a).map(|i| format.value(false, i)).collect(),
                        b: (0..of_b).map(|i| format.value(true, i + 77)).collect(),
                        c: vec![0f32; of_c],
                        ready,
                    })
                }
            };
            let before = fma_peak(isa, threads);
            let (taken, kernel) = match ready {
                Some((work, kernel)) => (timed(warm_up, || work(a, b, c)), kernel.clone()),
                None => {
                    let driver = match &mut driver {
                        Some(driver) => driver,
                        none => none.insert(Driver::start(libraries)?),
                    };
                    (case.outside(driver, threads, [warm_up, SAMPLE], [a, b], c)?, String::new())
                }
            };
            let peak = before.max(fma_peak(isa, threads));
            let (gflops, error) = (case.flops() / taken / 1e9, case.error(a, b, c));
            let sample = Sample { gflops, peak, bandwidth, kernel, error };
            println!("{}", serde_json::to_string(&sample).map_err(|e| e.to_string())?);
        }
        Ok(())
    })
}

/// Seconds that a call takes.
fn timed(warm_up: Duration, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0u32;
    while calls == 0 || start.elapsed() < warm_up {
        work();
        calls += 1;
    }
    let each = start.elapsed() / calls;
    let repeats = (SAMPLE.as_nanos() / each.as_nanos().max(1)).max(1) as u32;
    let start = Instant::now();
    for _ in 0..repeats {
        work();
    }
    start.elapsed().as_secs_f64() / f64::from(repeats)
}

/// GB/s of reading an array that no cache holds, the better of three.
fn read_bandwidth(threads: usize) -> f64 {
    let data = vec![1u64; BEYOND_CACHES / 8];
    let once = || {
        let start = Instant::now();
        rayon::scope(|scope| {
            for part in data.chunks(data.len() / threads) {
                scope.spawn(move |_| {
                    std::hint::black_box(part.iter().fold(0u64, |sum, &word| sum.wrapping_add(word)));
                });
            }
        });
        BEYOND_CACHES as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..3).map(|_| once()).fold(0.0, f64::max)
}
