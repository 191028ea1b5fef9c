//! A plan as text: the mesh, a die a cell.

use std::fmt::Write;

use super::{Payload, TilePlan};

impl TilePlan {
    /// The problem, the mesh with each die's share of the multiply-adds, and what travels.
    pub fn render(&self) -> String {
        let problem = &self.problem;
        let mut text = String::new();
        let macs = self.macs_per_die();
        let total: u64 = macs.iter().sum::<u64>().max(1);
        let tasks = self.tasks().count();
        let dies = macs.iter().filter(|&&macs| macs > 0).count();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} x ({} x {}) * ({} x {}) in {}, k in {} segments of {}",
            problem.batch,
            problem.m,
            problem.k,
            problem.k,
            problem.n,
            problem.formats,
            problem.segments(),
            problem.segment(),
        );
        let _ = writeln!(
            text,
            "{} steps, {tasks} tasks on {dies} of {} dies",
            self.steps.len(),
            self.mesh.dies()
        );
        let rule = format!("+{}", "--------+".repeat(self.mesh.cols));
        let _ = writeln!(text, "{rule}");
        for row in macs.chunks(self.mesh.cols) {
            let cells = row.iter().map(|&macs| match macs {
                0 => "   -    |".to_string(),
                _ => format!(" {:5.2}% |", 100.0 * macs as f64 / total as f64),
            });
            let _ = writeln!(text, "|{}", cells.collect::<String>());
            let _ = writeln!(text, "{rule}");
        }
        let mut bytes = [0u64; 3];
        for transfer in self.steps.iter().flat_map(|step| &step.transfers) {
            let kind = match transfer.payload {
                Payload::A { .. } => 0,
                Payload::B { .. } => 1,
                Payload::PartialC { .. } => 2,
            };
            bytes[kind] += transfer.bytes;
        }
        let _ = writeln!(text, "bytes over links: A {}, B {}, partial C {}", bytes[0], bytes[1], bytes[2]);
        text
    }
}
