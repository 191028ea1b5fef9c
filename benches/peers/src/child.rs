//! One contender alone in its process: every case once, each beside the FMA peak.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tile25::Isa;

use crate::contenders::{Contender, Libraries};
use crate::driver::Driver;
use crate::sets::Case;
use crate::support::fma_peak;

/// Timed work of a case, at least; a single call may take longer.
const SAMPLE: Duration = Duration::from_millis(40);
/// Untimed work before it.
const WARM_UP: Duration = Duration::from_millis(15);
/// Untimed work before the first case: pools start, cores wake.
const FIRST_WARM_UP: Duration = Duration::from_millis(500);
/// Bytes that no cache holds.
const BEYOND_CACHES: usize = 256 << 20;

/// What a child prints for a case, a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub case: usize,
    pub gflops: f64,
    pub peak: f64,
    /// GB/s of reading memory, of the same process.
    pub bandwidth: f64,
    pub kernel: String,
    /// Largest difference from f64 over some elements, as a part of the sum of magnitudes: a contender that computes something else is caught.
    pub error: f64,
}

/// Measures every case and prints the samples.
pub fn run<C: Case + Sync>(
    contender: Contender,
    cases: &[C],
    threads: usize,
    isa: Isa,
    libraries: &Libraries,
) -> Result<(), String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())?;
    pool.install(|| {
        let bandwidth = read_bandwidth(threads);
        let mut driver = None;
        for (i, case) in cases.iter().enumerate() {
            let format = case.format();
            let [of_a, of_b, of_c] = case.lens();
            let a: Vec<f32> = (0..of_a).map(|i| format.value(false, i)).collect();
            let b: Vec<f32> = (0..of_b).map(|i| format.value(true, i + 77)).collect();
            let mut c = vec![0f32; of_c];
            let before = fma_peak(isa, threads);
            let (taken, kernel) = if contender == Contender::Onnxruntime {
                let driver = match &mut driver {
                    Some(driver) => driver,
                    none => none.insert(Driver::start(libraries)?),
                };
                let warm_up = if i == 0 { FIRST_WARM_UP } else { WARM_UP };
                (case.outside(driver, threads, [warm_up, SAMPLE], [&a, &b], &mut c)?, String::new())
            } else {
                let (mut work, kernel) = case.prepare(contender, threads, isa, libraries)?;
                let warm_up = if i == 0 { FIRST_WARM_UP } else { WARM_UP };
                (timed(warm_up, || work(&a, &b, &mut c)), kernel)
            };
            let peak = before.max(fma_peak(isa, threads));
            let error = case.error(&a, &b, &c);
            let sample =
                Sample { case: i, gflops: case.flops() / taken / 1e9, peak, bandwidth, kernel, error };
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
