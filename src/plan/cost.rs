//! What a plan would cost on a machine.
//!
//! A step takes the longer of its computation (the busiest die) and of its communication (the busiest link's bytes over its
//! bandwidth, plus the latency of the longest route); steps follow one another, but the transfers of a step overlap the
//! computation of the step before. That leaves out contention inside a die, the time to feed the mesh edges, and the drain of C.

use std::collections::BTreeMap;

use tile25_kernels::format::Format;

use super::{DieId, Formats, Link, TilePlan};
use crate::machine::Machine;

/// The price of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Seconds from the first transfer to the last multiply-add.
    pub seconds: f64,
    /// Seconds in which the busiest die of each step computes.
    pub compute_seconds: f64,
    /// Seconds in which the busiest link of each step carries, with latency.
    pub transfer_seconds: f64,
    /// Bytes over each link.
    pub link_bytes: BTreeMap<Link, u64>,
    /// Multiply-adds of each die.
    pub die_macs: BTreeMap<DieId, u64>,
}

impl TilePlan {
    /// The cost on `machine`; `None` if the machine cannot compute in the plan's formats. Operands that are bf16 or 8-bit floats go at the rate of
    /// bf16, other floats up to f32 at that of f32.
    pub fn price(&self, machine: &Machine) -> Option<Cost> {
        let Formats { lhs, rhs, sums, .. } = self.problem.formats;
        let rate = match sums {
            Format::F32 if lhs.fits_bf16() && rhs.fits_bf16() => machine.macs_bf16,
            Format::F32 => machine.macs_f32,
            Format::F64 => machine.macs_f64?,
            _ => return None,
        };
        let mut cost = Cost {
            seconds: 0.0,
            compute_seconds: 0.0,
            transfer_seconds: 0.0,
            link_bytes: BTreeMap::new(),
            die_macs: BTreeMap::new(),
        };
        let mut before = 0.0; // computation of the step before, which this step's transfers overlap
        for step in &self.steps {
            let mut macs: BTreeMap<DieId, u64> = BTreeMap::new();
            for task in &step.tasks {
                *macs.entry(task.die).or_default() += task.macs(&self.problem);
            }
            let mut bytes: BTreeMap<Link, u64> = BTreeMap::new();
            let mut hops: BTreeMap<&super::Payload, u64> = BTreeMap::new();
            for transfer in &step.transfers {
                *bytes.entry(transfer.link).or_default() += transfer.bytes;
                *hops.entry(&transfer.payload).or_default() += 1;
            }
            let longest = |map: &BTreeMap<_, u64>| map.values().copied().max().unwrap_or(0) as f64;
            let compute = macs.values().copied().max().unwrap_or(0) as f64 / rate;
            let reach =
                hops.values().copied().max().unwrap_or(0).min((self.mesh.rows + self.mesh.cols) as u64)
                    as f64;
            let transfer = longest(&bytes) / machine.link_bytes + reach * machine.link_latency;
            cost.seconds += transfer.max(before);
            cost.compute_seconds += compute;
            cost.transfer_seconds += transfer;
            before = compute;
            for (die, macs) in macs {
                *cost.die_macs.entry(die).or_default() += macs;
            }
            for (link, bytes) in bytes {
                *cost.link_bytes.entry(link).or_default() += bytes;
            }
        }
        cost.seconds += before;
        Some(cost)
    }
}
