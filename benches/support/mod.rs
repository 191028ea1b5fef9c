//! The machine's own FMA peak, measured where the kernels are measured.

use std::hint::black_box;
use std::time::Instant;

use tile25_kernels::Isa;
use tile25_kernels::simd::{Lanes, Simd, WithSimd};

/// Independent accumulators: enough to hide the latency of an fma on two pipes.
const CHAINS: usize = 12;
/// Vector fma steps of one measurement, a millisecond or so.
const STEPS: usize = 200_000;

struct Chains(f32);

impl WithSimd for Chains {
    type Output = f32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> f32 {
        let a = Lanes::<f32>::splat(s, self.0);
        let mut acc = [Lanes::<f32>::splat(s, 1.0); CHAINS];
        for _ in 0..STEPS {
            for acc in &mut acc {
                *acc = Lanes::<f32>::mul_add(s, *acc, a, a);
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

/// GFLOP/s of f32 fma on `threads` threads of the current pool, the best of `rounds`.
pub fn fma_peak(isa: Isa, threads: usize, rounds: usize) -> f64 {
    let flops = (2 * isa.dispatch(Width) * CHAINS * STEPS * threads) as f64;
    let once = || {
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
    };
    (0..rounds).map(|_| once()).fold(0.0, f64::max)
}
