//! All phases of the gradient of the input of a depthwise convolution with a stride: block by block of lines of the result, so that what they read and where they write is in a cache.
//!
//! Images are the batch, rows positions of all phases, columns channels. Each phase is a [`Depthwise`] of its own, but for where it writes.
//!
//! Scratch for each thread: the packed weights of all phases, a band as [`Depthwise`] takes, and a block of sums.

use std::sync::RwLock;

use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{Onto, Real};
use tile25_kernels::mat::{MatSpec, Places};
use tile25_kernels::registry::Kernel;
use tile25_kernels::simd::Transpose;

use crate::backend::at_once::AtOnce;
use crate::backend::block::Block;
use crate::backend::fork::{free_pair, worth};
use crate::backend::input::Input;
use crate::backend::parts::OwnWords;
use crate::backend::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use crate::backend::tile::Source;
use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::weights::{ONE_BY_ONE, PhaseWeights};
use super::{Depthwise, Part, Sum};

/// Bytes of results, at least, that are computed before the next block, if the input is read in place.
const BLOCK_BYTES: usize = 128 * 1024;

/// A phase, and where its positions are in the result.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) depthwise: Depthwise,
    onto: Onto,
}

/// A planned gradient.
#[derive(Clone, Debug)]
pub(crate) struct Phased {
    phases: Vec<Phase>,
    /// How the weights of all phases are packed at once, if they are.
    together: Option<PhaseWeights>,
    place: Place,
    /// Lines of an image of the result, and places of each.
    result: [usize; 2],
    /// Lines of it in a block.
    block: usize,
    /// Channels that are copied at a time.
    at_a_time: usize,
    /// Elements of the packed weights of all phases with room to pack them, of a band, and of a block of sums.
    elements: [usize; 3],
}

impl Phased {
    /// Plans what `all` is, whose result `adds` to what is there or not; `None` where phases are executed one by one.
    pub(crate) fn new(all: &AtOnce<'_>, adds: bool, kernel: Kernel, threads: usize) -> Option<Phased> {
        let &AtOnce { products, dst, lines, width, stride } = all;
        if products.len() < 2 || !all.has_every_phase() {
            return None;
        }
        let phases = products.iter().map(|(gemm, scan, first)| {
            let depthwise = Depthwise::new(gemm, scan, Sum::Taps, adds, kernel, 1)?;
            Some(Phase { depthwise, onto: Onto::phase(scan, [lines, width], *first, stride) })
        });
        let phases = phases.collect::<Option<Vec<_>>>()?;
        let first = &phases[0].depthwise;
        let (channels, strip, bytes) = (first.shape[1], first.scan.pitch, kernel.form.sums().bytes());
        // What the smallest block of a phase holds, all have.
        let (mut block, mut at_a_time) = (lines.div_ceil(stride[0]), channels.next_multiple_of(strip));
        for Phase { depthwise, .. } in &phases {
            at_a_time = at_a_time.min(depthwise.at_a_time);
            match depthwise.block {
                Block::Lines(lines) => block = block.min(lines),
                Block::Rows(_) => {}
                Block::Across(_) => return None,
            }
        }
        if phases.iter().all(|phase| phase.depthwise.in_place) {
            block = block.min(BLOCK_BYTES.div_ceil(stride[0].min(lines) * width * channels * bytes));
        }
        let block = lines.min(block * stride[0]);
        let images = dst.batch.extent();
        let places = Places::new(MatSpec { rows: dst.cols, cols: dst.rows, ..dst });
        let here = first.place.here && places.columns_side_by_side();
        let parts = worth(all.macs(), threads);
        let along_images = if images >= parts { parts } else { 1 };
        let counts = [along_images, (parts / along_images).min(lines), 1];
        let formats = products[0].0.problem.formats;
        let few = phases.iter().all(|phase| phase.depthwise.shape[2] <= ONE_BY_ONE);
        let alone = formats.lhs.is_integer() || formats.lhs == formats.sums && few;
        let together = if alone { None } else { PhaseWeights::new(&phases) };
        let each = phases.iter().map(|phase| phase.depthwise.elements[0]);
        let of_weights = match &together {
            Some(together) => {
                let whole: usize = phases.iter().map(|phase| phase.depthwise.weights_bytes()).sum();
                (whole + together.room(first)) / kernel.form.element_bytes()
            }
            None => each.sum(),
        };
        let of_band = phases.iter().map(|phase| phase.depthwise.elements[2]).max()?;
        let sums = if here { 0 } else { block * width * at_a_time };
        Some(Phased {
            phases,
            together,
            place: Place { places, here, counts, grains: [1, width, strip] },
            result: [lines, width],
            block,
            at_a_time,
            elements: [of_weights, of_band, sums],
        })
    }

    /// Whether the input is read where it lies.
    pub(crate) fn reads_in_place(&self) -> bool {
        self.phases.iter().all(|phase| phase.depthwise.in_place)
    }

    fn kernel(&self) -> Kernel {
        self.phases[0].depthwise.kernel
    }

    /// What a run needs: for each thread the packed weights with a band, and sums.
    pub(crate) fn scratch(&self) -> Scratch {
        let [packed, band, sums] = self.elements.map(|n| n * self.kernel().form.element_bytes());
        scratch(0, [packed + band, sums], self.place.counts.iter().product())
    }

    /// Bytes of the packed weights of all phases, with room to pack them.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.elements[0] * self.kernel().form.element_bytes()
    }

    /// Packs the weights, a phase after the other: `[strip][tap][lane]` of each.
    pub(crate) fn pack_weights(&self, source: &Source<'_>, packed: &mut [u8]) {
        if let Some(together) = &self.together {
            return together.pack(&self.phases, source, packed);
        }
        // Each has its own room right behind it, which the next takes.
        let mut rest = packed;
        for Phase { depthwise, .. } in &self.phases {
            depthwise.pack_all_weights(source, rest);
            rest = &mut rest[depthwise.weights_bytes()..];
        }
    }
}

impl Execute for Phased {
    fn sums(&self) -> Format {
        self.kernel().form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let (data, weights, scratch) = (Input::new(&run.rhs), &run.lhs, call.scratch());
        let finishing = Finishing { isa: self.kernel().isa, accum: run.accum, epilogue: &epilogue };
        self.place.run(call, dst, |part: Sums<'_, T, W>| {
            Job { phased: self, data, weights, finishing, scratch }.part(part);
        });
    }
}

struct Job<'a, T> {
    phased: &'a Phased,
    data: Input<'a, T>,
    weights: &'a Source<'a>,
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real + Transpose + OwnWords> Job<'_, T> {
    /// Goes over a part strips by strips, over the lines of each in blocks, phase by phase.
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let &Phased { ref phases, ref place, result: [lines, width], block, at_a_time, elements, .. } =
            self.phased;
        let [images, rows, cols] = part.ranges();
        let (mut first, mut sums) = free_pair(self.scratch, place.counts.iter().product());
        let [of_weights, of_band, of_sums] = elements;
        let (packed, band) = first.as_mut_slice::<T>(of_weights + of_band).split_at_mut(of_weights);
        let sums = sums.as_mut_slice::<T>(of_sums);
        let packed: &[T] = match self.weights {
            Source::Packed { panels, .. } => bytemuck::cast_slice(panels),
            weights => {
                self.phased.pack_weights(weights, bytemuck::cast_slice_mut(packed));
                packed
            }
        };
        let (data, add) = (self.data, self.finishing.accum == Accum::Add);
        for image in images {
            for col in cols.clone().step_by(at_a_time) {
                let cols = col..cols.end.min(col + at_a_time);
                for line in (rows.start / width..rows.end / width).step_by(block) {
                    let end = (line + block).min(rows.end / width);
                    let from = line * width..end * width;
                    part.block(image, from.clone(), cols.clone(), self.finishing, sums, |dst, at| {
                        let mut packed = packed;
                        for Phase { depthwise, onto } in phases {
                            let [_, channels, k] = depthwise.shape;
                            let (rows, weights) = (onto.within(image, line, end), &packed[col * k..]);
                            packed = &packed[channels.next_multiple_of(depthwise.scan.pitch) * k..];
                            let (onto, cols) = (onto.from(image * lines * width + from.start), &cols);
                            let band = &mut *band;
                            depthwise.positions(Part { data, rows, cols, onto, weights, band, add }, dst, at);
                        }
                    });
                }
            }
        }
    }
}
