//! What the dies did: a planned operation that counts its runs.

use std::time::{Duration, Instant};

use tile25::conv::ConvPlan;
use tile25::{Element, Epilogue, Error, MatmulPlan, TilePlan, View, ViewMut, Workspace};

/// Multiply-adds of each die, and the time of all runs.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) die_macs: [u64; 25],
    pub(crate) time: Duration,
}

impl Meter {
    /// Multiply-adds of all dies.
    pub(crate) fn macs(&self) -> u64 {
        self.die_macs.iter().sum()
    }

    pub(crate) fn gflops(&self) -> f64 {
        2.0 * self.macs() as f64 / self.time.as_secs_f64() / 1e9
    }
}

/// What matmul and convolution plans have in common.
pub(crate) trait Planned {
    fn tile_plans(&self) -> Vec<&TilePlan>;
    fn workspace(&self) -> Workspace;
    fn run<A: Element, B: Element>(
        &self,
        a: View<'_, A>,
        b: View<'_, B>,
        out: ViewMut<'_, f32>,
        epilogue: Epilogue<'_, f32>,
        workspace: &mut Workspace,
    ) -> Result<(), Error>;
}

macro_rules! planned {
    ($plan:ident, $self:ident => $plans:expr) => {
        impl Planned for $plan<'_> {
            fn tile_plans(&self) -> Vec<&TilePlan> {
                let $self = self;
                $plans
            }
            fn workspace(&self) -> Workspace {
                $plan::workspace(self)
            }
            fn run<A: Element, B: Element>(
                &self,
                a: View<'_, A>,
                b: View<'_, B>,
                out: ViewMut<'_, f32>,
                epilogue: Epilogue<'_, f32>,
                workspace: &mut Workspace,
            ) -> Result<(), Error> {
                $plan::run(self, a, b, out, epilogue, workspace)
            }
        }
    };
}
planned!(ConvPlan, plan => ConvPlan::tile_plans(plan).collect());
planned!(MatmulPlan, plan => vec![plan.tile_plan()]);

/// A planned operation with its scratch.
pub(crate) struct Stage<P> {
    plan: P,
    workspace: Workspace,
    /// What one run adds to the meter.
    die_macs: [u64; 25],
}

impl<P: Planned> Stage<P> {
    pub(crate) fn new(plan: P) -> Self {
        let mut die_macs = [0; 25];
        for tile_plan in plan.tile_plans() {
            for (sum, macs) in die_macs.iter_mut().zip(tile_plan.macs_per_die()) {
                *sum += macs;
            }
        }
        Stage { workspace: plan.workspace(), plan, die_macs }
    }

    pub(crate) fn run<A: Element, B: Element>(
        &mut self,
        meter: &mut Meter,
        a: View<'_, A>,
        b: View<'_, B>,
        out: ViewMut<'_, f32>,
        epilogue: Epilogue<'_, f32>,
    ) -> Result<(), Error> {
        let start = Instant::now();
        self.plan.run(a, b, out, epilogue, &mut self.workspace)?;
        meter.time += start.elapsed();
        for (sum, macs) in meter.die_macs.iter_mut().zip(&self.die_macs) {
            *sum += macs;
        }
        Ok(())
    }
}
