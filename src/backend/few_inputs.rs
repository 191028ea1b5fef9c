//! Executes the gradient of the weights of few input channels: lanes are output channels, for the few input channels of a line of the kernel would leave some of a vector idle.
//!
//! Rows of the product are kernel positions and input channels, columns output channels, k goes over positions. The input of some positions is copied to a band with its padding, channels innermost, and
//! each row is a place of it from which k goes on position by position: neighbours of a line of the kernel lie side by side there. Of more rows than can be put in order ([`MOST_NEIGHBOURS`]) each is looked up. The gradient of the
//! output is read where it lies if its channels lie side by side in the format of sums, and otherwise packed panel by panel right before use; narrow formats are widened. Sums lie in a block of scratch unless the result's
//! output channels lie side by side.
//!
//! Scratch, for each thread: a panel of a segment, a band of about [`BAND_BYTES`](super::block::BAND_BYTES), or what whole lines of a segment take if that is more, up to [`MOST_BANDS`](super::block::MOST_BANDS) times as much; and a block of
//! at most [`SUMS_BYTES`] of sums.

use std::sync::RwLock;

use tile25_kernels::KC;
use tile25_kernels::axis::{Axis, COORDS, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{MOST_NEIGHBOURS, OutputGradient, Real, SideBySide, Weights, Windows};
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

/// Least rows side by side that tiles are made of. Not swept.
const LEAST_NEIGHBOURS: usize = 3;

/// Lanes for every one that counts, from which on input channels are rather rows where these are looked up one by one.
const LEAST_IDLE: f64 = 4.0 / 3.0;

/// A planned gradient of the weights of few input channels.
#[derive(Clone, Debug)]
pub(crate) struct FewInputs {
    kernel: Kernel,
    scan: Scan,
    groups: Axis,
    place: Place,
    slots: usize,
    /// Whether channels are the inner index of rows.
    channels_inside: bool,
    /// Whether tiles are of neighbours.
    side_by_side: bool,
    /// From a position to the next of a gradient of the output that is read where it lies.
    apart: Option<usize>,
    /// Columns of a panel, and of a strip.
    width: usize,
    lanes: usize,
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
        let neighbours = across * scan.channels.0;
        let side_by_side = m <= MOST_NEIGHBOURS && neighbours >= LEAST_NEIGHBOURS;
        // Lanes that either way computes for every one that counts. Zen 4, percent of the peak, lanes input channels and output channels: 8 to 64 channels 3 x 3 @56 69 and 93, planar 67 and 84; 3 to 32 5 x 5 @112 85 and 91,
        // planar 80 and 84; where there are as many, 16 to 64 @56 91 and 93, planar 91 and 89; where there are fewer, 20 to 20 @28 69 and 53.
        let [ours, others] = [n, neighbours].map(|n| n.next_multiple_of(lanes) as f64 / n as f64);
        if n < lanes || m < kernel.mr || others <= ours.max(if side_by_side { 1.0 } else { LEAST_IDLE }) {
            return None;
        }
        let Window { x: of_x, k: of_k, .. } = gemm.rhs.window;
        let close = of_x.dims().len() == 1 && of_x.inner().stride == 1 && n.is_multiple_of(lanes);
        let lies = close && of_k.dims().len() == 1 && formats.rhs == formats.sums;
        let apart = usize::try_from(of_k.inner().stride).ok().filter(|_| side_by_side && lies);
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
        let panel = if apart.is_some() { 0 } else { width * k.min(KC) };
        let grains = [kernel.mr, if side_by_side { lanes } else { width }];
        Some(FewInputs {
            kernel,
            scan,
            groups: gemm.lhs.batch,
            place: Place {
                places,
                here,
                counts: evenly(problem.batch, [m, n], grains, threads),
                grains: [1, grains[0], grains[1]],
            },
            slots: threads,
            channels_inside: columns == Columns::ChannelsInside,
            side_by_side,
            apart,
            width,
            lanes,
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
        let FewInputs {
            kernel, scan, groups, width, at_once, k, elements, side_by_side, apart, lanes, ..
        } = self.planned;
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
                            let add = first > 0 || self.finishing.accum == Accum::Add;
                            let (rows, cols, dst) = (rows.clone(), cols.clone(), &mut *dst);
                            if *side_by_side {
                                let rhs = match *apart {
                                    Some(apart) => {
                                        let (data, _) = self.run.rhs.own::<T>();
                                        let start = of_gradient.start
                                            + of_gradient.x.offset(cols.start)
                                            + of_gradient.k.offset(first);
                                        OutputGradient::Here { data, start, apart }
                                    }
                                    None => OutputGradient::Pack(&of_gradient, operand, &mut *panel),
                                };
                                // All there are where they lie; a part may be narrower than a panel.
                                let all = cols.len().next_multiple_of(*lanes);
                                let width = if apart.is_some() { all } else { all.min(*width) };
                                SideBySide {
                                    data: band,
                                    window,
                                    rows,
                                    k: positions,
                                    rhs,
                                    width,
                                    cols,
                                    dst,
                                    at,
                                    add,
                                }
                                .compute(kernel.isa);
                            } else {
                                Windows {
                                    data: band,
                                    window,
                                    padding: window,
                                    rows,
                                    k: positions,
                                    weights: Weights::Pack(&of_gradient, operand, &mut *panel),
                                    width: *width,
                                    cols,
                                    dst,
                                    at,
                                    add,
                                }
                                .compute(kernel.isa);
                            }
                        }
                    });
                }
            }
        }
    }
}
