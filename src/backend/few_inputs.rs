//! Executes the gradient of the weights of a first layer: lanes are output channels, for the few input channels of a line of the kernel would leave many of a vector idle.
//!
//! Rows of the product are kernel positions and input channels, columns output channels, k goes over positions. The input of some positions is copied to a band with its padding, channels innermost, and
//! each row is a place of it from which k goes on position by position. The gradient of the output is packed panel by panel right before use, both are widened where they are narrow. Sums
//! lie in a block of scratch unless the result's output channels lie side by side.
//!
//! Scratch, for each thread: a panel of a segment, a band of about [`BAND_BYTES`](super::block::BAND_BYTES), or what whole lines of a segment take if that is more, up to [`MOST_BANDS`](super::block::MOST_BANDS) times as much; and a block of
//! at most [`SUMS_BYTES`] of sums.

use std::sync::RwLock;

use tile25_kernels::KC;
use tile25_kernels::axis::{Axis, COORDS, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{Real, Weights, Windows};
use tile25_kernels::mat::Places;
use tile25_kernels::pack::Form;
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::{Band, Scan};
use tile25_kernels::simd::Transpose;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::block::{Segments, strip_of};
use super::fork::{evenly, free_pair, within, worth};
use super::input::Input;
use super::parts::OwnWords;
use super::schedule::Gemm;
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use super::tile::Run;
use super::weight_gradient::Columns;
use super::windows::{SUMS_BYTES, panel_width, weights};

/// A planned gradient of the weights of a first layer.
#[derive(Clone, Debug)]
pub(crate) struct FewInputs {
    kernel: Kernel,
    scan: Scan,
    groups: Axis,
    place: Place,
    slots: usize,
    /// Whether channels are the inner index of rows.
    channels_inside: bool,
    /// Columns of a panel.
    width: usize,
    /// Rows, columns and positions of a block.
    at_once: [usize; 3],
    k: usize,
    /// Elements of a panel, of it and a band, and of a block of sums.
    elements: [usize; 3],
}

impl FewInputs {
    /// Plans `gemm`, whose lhs reads what `scan` goes over, positions along k; `None` where another executor serves it better.
    pub(crate) fn new(gemm: &Gemm, scan: &Scan, kernel: Kernel, threads: usize) -> Option<FewInputs> {
        let (problem, places) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        let lanes = strip_of(kernel.form)?;
        if problem.k == 0
            || formats.lhs.is_integer()
            || (formats.lhs != formats.sums && kernel.form != Form::F32)
        {
            return None;
        }
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let scan = Scan { pitch: scan.channels.0, ..*scan };
        let columns = Columns::of(&gemm.lhs, &scan)?;
        // Neighbours across a line of the kernel lie side by side in the band.
        let across = if scan.axes[2].tap_step == 1 { scan.axes[2].taps } else { 1 };
        let side_by_side = across * scan.channels.0;
        if n < lanes || m < kernel.mr || side_by_side * 4 >= side_by_side.next_multiple_of(lanes) * 3 {
            return None;
        }
        let scan = Segments::held_apart(&scan, k, 1, formats.sums.bytes());
        let segments = Segments::new(&scan, k, 1, formats.sums.bytes());
        if !segments.pay(&scan, k, formats.sums.bytes()) {
            return None;
        }
        let threads = worth(problem.macs(), threads);
        let width = panel_width(n, kernel.nr);
        let most = SUMS_BYTES / formats.sums.bytes();
        let rows = m.min((most / width / kernel.mr).max(1) * kernel.mr);
        let here = formats.out == formats.sums && places.columns_side_by_side();
        let padded = n.next_multiple_of(width);
        let cols = if here { padded } else { (most / rows / width * width).clamp(width, padded) };
        let sums = if here { 0 } else { rows * cols };
        let panel = width * k.min(KC);
        Some(FewInputs {
            kernel,
            scan,
            groups: gemm.lhs.batch,
            place: Place {
                places,
                here,
                counts: evenly(problem.batch, [m, n], [kernel.mr, width], threads),
                grains: [1, kernel.mr, width],
            },
            slots: threads,
            channels_inside: columns == Columns::ChannelsInside,
            width,
            at_once: [rows, cols, segments.positions],
            k,
            elements: [panel, panel + segments.band, sums],
        })
    }

    /// What a run needs: a band with a panel, and a block of sums, for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let [_, band, sums] = self.elements.map(|elements| elements * self.kernel.form.element_bytes());
        scratch(0, [band, sums], self.slots)
    }

    /// How rows are read from a band: x are rows, k positions.
    fn window(&self, band: &Band) -> Window {
        let channels = [Dim::plain(self.scan.channels.0, 1)];
        let (outer, inner) = match self.channels_inside {
            true => (band.taps.dims(), &channels[..]),
            false => (&channels[..], band.taps.dims()),
        };
        let mut dims = [Dim::plain(1, 0); COORDS + 1];
        for (to, dim) in dims.iter_mut().zip(outer.iter().chain(inner)) {
            *to = *dim;
        }
        Window { x: Axis::new(&dims), k: band.window.x, ..band.window }
    }
}

impl Execute for FewInputs {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue, scratch) = (call.run, call.epilogue.cast(), call.scratch());
        let input = Input::new(&run.lhs);
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        within(call.threads, self.place.counts, || {
            self.place.parts(dst, call.start, &|part: Sums<'_, T, W>| {
                Job { planned: self, input, run, finishing, scratch }.part(part);
            });
        });
    }
}

struct Job<'a, T> {
    planned: &'a FewInputs,
    input: Input<'a, T>,
    run: &'a Run<'a>,
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real + Transpose + OwnWords> Job<'_, T> {
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let FewInputs { kernel, scan, groups, width, at_once, k, elements, .. } = self.planned;
        let [of_groups, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch, self.planned.slots);
        let (panel, band) = band.as_mut_slice::<T>(elements[1]).split_at_mut(elements[0]);
        let sums = sums.as_mut_slice::<T>(elements[2]);
        for group in of_groups {
            let (of_gradient, operand) = weights(&self.run.gemm.rhs, &self.run.rhs, group);
            for row in rows.clone().step_by(at_once[0]) {
                let rows = row..rows.end.min(row + at_once[0]);
                for col in cols.clone().step_by(at_once[1]) {
                    let cols = col..cols.end.min(col + at_once[1]);
                    part.block(group, rows.clone(), cols.clone(), self.finishing, sums, |dst, at| {
                        for first in (0..*k).step_by(at_once[2]) {
                            let positions = first..(*k).min(first + at_once[2]);
                            let place = scan.band(positions.clone());
                            self.input.copy(kernel.isa, scan, &place, groups.offset(group), band);
                            let window = &self.planned.window(&place);
                            Windows {
                                data: band,
                                window,
                                padding: window,
                                rows: rows.clone(),
                                k: positions,
                                weights: Weights::Pack(&of_gradient, operand, &mut *panel),
                                width: *width,
                                cols: cols.clone(),
                                dst: &mut *dst,
                                at,
                                add: first > 0 || self.finishing.accum == Accum::Add,
                            }
                            .compute(kernel.isa);
                        }
                    });
                }
            }
        }
    }
}
