//! Executes a convolution to a few channels: lanes are positions of a line. The gradient of the input of a first layer, and the last layer of what draws an image.
//!
//! Rows of the product are channels, columns positions. The input of a block of positions is copied to a band with its padding, a plane a channel ([`Scan::band`] with a pitch of 1), whatever its layout.
//! Sums lie in the result if its positions lie side by side and it is in the format of sums, and else in a block of scratch.
//!
//! Scratch: the packed weights; for each thread a band of about [`BAND_BYTES`](super::block::BAND_BYTES), or what a line of positions takes if that is more, and a block of sums.

use std::sync::RwLock;

use tile25_kernels::axis::{Axis, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{FEW_CHANNELS, FewChannels, Real, SLACK};
use tile25_kernels::mat::Places;
use tile25_kernels::pack::{Form, Side, copy_band, pack};
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;
use tile25_kernels::simd::Transpose;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::block::{Block, LEAST_ACROSS};
use super::fork::{free_pair, worth};
use super::parts::OwnWords;
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use super::tile::Source;

/// Channels of the input from which on a line of each is worth its copy.
pub(super) const LEAST_INPUT: usize = 8;

/// A planned convolution to a few channels.
#[derive(Clone, Debug)]
pub(crate) struct Few {
    kernel: Kernel,
    /// With bands of planes.
    scan: Scan,
    block: Block,
    place: Place,
    /// Channels, k.
    shape: [usize; 2],
    /// Elements of a band, and of a block of sums.
    elements: [usize; 2],
}

impl Few {
    /// Plans `gemm`, whose rows are channels and whose rhs reads what `scan` goes over; `None` where another executor serves it better.
    pub(crate) fn new(gemm: &Gemm, scan: &Scan, kernel: Kernel, threads: usize) -> Option<Few> {
        let (problem, places) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        let floats = matches!(kernel.form, Form::F32 | Form::F64) && formats.rhs == formats.sums;
        let side_by_side = scan.axes[2].step == 1 && scan.axes[2].positions > 1;
        if !floats || !side_by_side || problem.batch != 1 || problem.k == 0 {
            return None;
        }
        let (m, n, k) = (problem.m, problem.n, problem.k);
        if m > FEW_CHANNELS.min(kernel.mr) || scan.channels.0 < LEAST_INPUT {
            return None;
        }
        let bytes = formats.sums.bytes();
        let scan = Scan { pitch: 1, ..*scan };
        let scan = Block::held_apart(&scan, scan.channels.0, bytes);
        let (block, positions, band) = Block::copied(&scan, scan.channels.0, bytes)?;
        let here = formats.out == formats.sums && places.columns_side_by_side();
        // Whole lines, if there are enough.
        let (width, parts) = (scan.axes[2].positions, worth(problem.macs(), threads));
        let grain = if n / width >= parts { width } else { LEAST_ACROSS };
        let counts = [1, 1, parts.min(n.div_ceil(grain))];
        let sums = if here { 0 } else { m * positions };
        Some(Few {
            kernel,
            scan,
            block,
            place: Place { places, here, counts, grains: [1, m, grain] },
            shape: [m, k],
            elements: [band + SLACK, sums],
        })
    }

    /// What a run needs: the packed weights, then a band and a block of sums for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let pair = self.elements.map(|elements| elements * self.kernel.form.element_bytes());
        scratch(self.packed_bytes(), pair, self.place.counts.iter().product())
    }

    /// Bytes of the packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.shape[1] * self.kernel.mr * self.kernel.form.element_bytes()
    }

    /// Packs the weights: `[k][lane]`.
    pub(crate) fn pack_weights(&self, reader: &Reader, source: &Source<'_>, packed: &mut [u8]) {
        let ([m, k], kernel) = (self.shape, self.kernel);
        let (operand, start) = source.operand().expect("weights are packed here");
        let window = Window { start: reader.window.start + start as isize, ..reader.window };
        pack(kernel.isa, kernel.form, Side::Rhs, &window, operand, 0..m, 0..k, kernel.mr, packed);
    }
}

impl Execute for Few {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let (data, start) = run.rhs.own::<T>();
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        let (bytes, scratch) = (self.packed_bytes(), call.scratch());
        let pack = |packed: &mut [u8]| self.pack_weights(&run.gemm.lhs, &run.lhs, packed);
        self.place.execute(call, dst, &run.lhs, bytes, pack, |weights, part: Sums<'_, T, W>| {
            Job { few: self, data, start, weights, finishing, scratch }.part(part);
        });
    }
}

struct Job<'a, T> {
    few: &'a Few,
    data: &'a [T],
    start: isize,
    weights: &'a [T],
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real + Transpose> Job<'_, T> {
    /// Goes over the positions of a part in blocks.
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let Few { kernel, scan, block, shape: [channels, _], elements, .. } = self.few;
        let [batches, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch, self.few.place.counts.iter().product());
        let (band, sums) = (band.as_mut_slice::<T>(elements[0]), sums.as_mut_slice::<T>(elements[1]));
        let mut col = cols.start;
        while col < cols.end {
            let now = col..block.end(scan, col, cols.end);
            col = now.end;
            let place = scan.band(now.clone());
            copy_band(kernel.isa, scan, &place, self.data, self.start, band);
            // The channel is the innermost step of k: a plane further.
            let mut k = [Dim::plain(1, 0); 4];
            let taps = place.taps.dims();
            k[..taps.len()].copy_from_slice(taps);
            k[3] = Dim::plain(scan.channels.0, place.len(1) as isize);
            let window = &Window { k: Axis::new(&k), ..place.window };
            let (data, add) = (&*band, self.finishing.accum == Accum::Add);
            let (weights, width, channels) = (self.weights, kernel.mr, *channels);
            part.block(batches.start, rows.clone(), now.clone(), self.finishing, sums, |dst, at| {
                FewChannels { data, window, weights, width, channels, cols: now, dst, at, add }
                    .compute(kernel.isa);
            });
        }
    }
}
