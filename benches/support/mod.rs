//! The machine's own FMA peak, measured beside the kernels, and how a case is measured against it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tile25_kernels::Isa;
use tile25_kernels::simd::{FloatLanes, Lanes, Simd, WithSimd};

/// Independent accumulators: enough to hide the latency of an fma on two pipes.
const CHAINS: usize = 12;
/// Vector fma steps of one burst, a quarter of a millisecond or so.
const STEPS: usize = 40_000;

/// Untimed work before each sample.
const WARM_UP: Duration = Duration::from_millis(60);

struct Chains(f32);

impl WithSimd for Chains {
    type Output = f32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> f32 {
        let a = Lanes::<f32>::splat(s, self.0);
        let mut acc = [Lanes::<f32>::splat(s, 1.0); CHAINS];
        for _ in 0..STEPS {
            for acc in &mut acc {
                *acc = FloatLanes::<f32>::mul_add(s, *acc, a, a);
            }
        }
        let mut sum = acc[0];
        for &acc in &acc[1..] {
            sum = Lanes::<f32>::add(s, sum, acc);
        }
        let mut lanes = [0.0; 64];
        Lanes::<f32>::store(s, &mut lanes, sum);
        lanes[0]
    }
}

struct Width;

impl WithSimd for Width {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        <S as Lanes<f32>>::LANES
    }
}

/// GFLOP/s of f32 fma on `threads` threads of the current pool, once.
pub(crate) fn fma_burst(isa: Isa, threads: usize) -> f64 {
    let flops = (2 * isa.dispatch(Width) * CHAINS * STEPS * threads) as f64;
    let start = Instant::now();
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| {
                black_box(isa.dispatch(Chains(black_box(0.5))));
            });
        }
        black_box(isa.dispatch(Chains(black_box(0.5))));
    });
    flops / start.elapsed().as_secs_f64() / 1e9
}

/// The better of two bursts: one may wake a sleeping thread first.
pub(crate) fn fma_peak(isa: Isa, threads: usize) -> f64 {
    fma_burst(isa, threads).max(fma_burst(isa, threads))
}

/// Samples of one case: GFLOP/s, and the FMA peak around it.
#[derive(Default)]
pub(crate) struct Samples {
    gflops: Vec<f64>,
    peaks: Vec<f64>,
}

impl Samples {
    /// Runs `work` (of `flops` operations) `iters` times between two bursts of the peak. The first [`WARM_UP`] is not timed: threads that
    /// slept may wake on one core and need some milliseconds to spread.
    pub(crate) fn sample(
        &mut self,
        isa: Isa,
        threads: usize,
        iters: u64,
        flops: f64,
        mut work: impl FnMut(),
    ) -> Duration {
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            work();
        }
        let before = fma_peak(isa, threads);
        let start = Instant::now();
        for _ in 0..iters {
            work();
        }
        let taken = start.elapsed();
        let after = fma_peak(isa, threads);
        self.gflops.push(flops * iters as f64 / taken.as_secs_f64() / 1e9);
        self.peaks.push(before.max(after));
        taken
    }

    /// Whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.gflops.is_empty()
    }

    /// Medians: GFLOP/s, peak, and the ratio of each sample to its own peak.
    pub(crate) fn medians(&self) -> (f64, f64, f64) {
        let ratios = self.gflops.iter().zip(&self.peaks).map(|(g, p)| g / p).collect();
        (median(self.gflops.clone()), median(self.peaks.clone()), median(ratios))
    }
}

/// The median; of an even number of values the upper one of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
