//! Executes a depthwise convolution, a channel a group, whose positions lie side by side: lanes are positions along a line. All phases of a gradient of the input at once.
//!
//! Images are the batch, rows channels, columns positions. The plane of a channel is brought to a sheet with its padding ([`Sheet`]), as a whole or in blocks of lines. Weights are read where they lie. Sums lie in
//! the result if it is in the format of sums, and else in a block of scratch.
//!
//! Scratch: for each thread a sheet of about [`BAND_BYTES`], and a block of sums.

use std::sync::RwLock;

use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{PLANE_LINES, Phase, Planes, Real, Sheet};
use tile25_kernels::mat::Places;
use tile25_kernels::pack::Form;
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::Scan;
use tile25_kernels::simd::Transpose;

use crate::epilogue::Accum;
use crate::workspace::Scratch;

use super::at_once::AtOnce;
use super::block::BAND_BYTES;
use super::depthwise::by_channel;
use super::fork::{free_pair, worth};
use super::parts::OwnWords;
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};

/// Bytes of a sheet that holds more lines than a tile: what the first-level cache holds beside results.
const SHEET_BYTES: usize = 16 * 1024;

/// Bytes of results that are computed between two looks at what comes after the sums.
const BLOCK_BYTES: usize = 32 * 1024;

/// A planned depthwise convolution over planes.
#[derive(Clone, Debug)]
pub(crate) struct Planar {
    kernel: Kernel,
    phases: Vec<Phase>,
    /// Lines from a line of a phase to the next.
    down: usize,
    sheet: Sheet,
    place: Place,
    /// Places of a line of the result.
    width: usize,
    /// Channels, and lines, of a block.
    block: [usize; 2],
    /// Elements of a block of sums.
    sums: usize,
}

impl Planar {
    /// Plans what `all` is; `None` where another executor serves it better.
    pub(crate) fn new(all: &AtOnce<'_>, kernel: Kernel, threads: usize) -> Option<Planar> {
        let &AtOnce { products, dst, lines, width, stride } = all;
        let &(first, scan, _) = products.first()?;
        let (formats, places) = (first.problem.formats, Places::new(dst));
        let (images, channels, own) = (dst.batch.extent(), dst.rows.extent(), kernel.form.sums());
        let parts = worth(all.macs(), threads);
        if kernel.form != Form::F32
            || !all.is_whole(own)
            || first.problem.batch < 2
            || [scan.channels.0, first.problem.m] != [1; 2]
            || !places.columns_side_by_side()
            || places.band_stride().is_none()
            || images * channels < parts
        {
            return None;
        }
        let phases = products.iter().map(|(gemm, scan, first)| Phase {
            scan: Scan { channels: (channels, gemm.rhs.batch.inner().stride), ..*scan },
            first: *first,
            weights: by_channel(&gemm.lhs),
        });
        let phases: Vec<Phase> = phases.collect();
        let (bytes, along) = (own.bytes(), stride[1].min(width));
        let all = lines.div_ceil(stride[0]);
        let most = Sheet::new(&phases, along, all)?.most_positions(SHEET_BYTES / bytes);
        // Whole tiles, unless all fit.
        let tiles = (most / PLANE_LINES * PLANE_LINES).max(PLANE_LINES);
        let at_once = if most < all { tiles.min(all) } else { all };
        let sheet = Sheet::new(&phases, along, at_once)?;
        if sheet.bytes(bytes) > BAND_BYTES {
            return None;
        }
        let here = formats.out == own;
        let of_block = lines.min(at_once * stride[0]);
        let of_channels =
            if at_once < all { 1 } else { (BLOCK_BYTES / (of_block * width * bytes)).clamp(1, channels) };
        let along_images = if images >= parts { parts } else { 1 };
        Some(Planar {
            kernel,
            phases,
            down: stride[0],
            sheet,
            place: Place { places, here, counts: [along_images, parts / along_images, 1], grains: [1, 1, 1] },
            width,
            block: [of_channels, of_block],
            sums: if here { 0 } else { of_channels * of_block * width },
        })
    }

    /// What a run needs: for each thread a sheet and sums.
    pub(crate) fn scratch(&self) -> Scratch {
        let pair = [self.sheet.elements(self.kernel.form.element_bytes()), self.sums]
            .map(|elements| elements * self.kernel.form.element_bytes());
        scratch(0, pair, self.place.counts.iter().product())
    }
}

impl Execute for Planar {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue) = (call.run, call.epilogue.cast());
        let (data, weights) = (run.rhs.own::<T>(), run.lhs.own::<T>());
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        self.place.run(call, dst, |part: Sums<'_, T, W>| {
            Job { planar: self, data, weights, finishing, scratch: call.scratch() }.part(part);
        });
    }
}

struct Job<'a, T> {
    planar: &'a Planar,
    data: (&'a [T], isize),
    weights: (&'a [T], isize),
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real> Job<'_, T> {
    /// Goes over the planes of a part.
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let &Planar { kernel, ref phases, down, ref sheet, width, block: [channels, lines], sums, .. } =
            self.planar;
        let [images, rows, cols] = part.ranges();
        let (mut room, mut of_sums) = free_pair(self.scratch, self.planar.place.counts.iter().product());
        let (room, of_sums) =
            (room.as_mut_slice::<T>(sheet.elements(size_of::<T>())), of_sums.as_mut_slice::<T>(sums));
        room.fill(T::zeroed());
        let (data, weights, add) = (self.data, self.weights, self.finishing.accum == Accum::Add);
        for image in images {
            for channel in rows.clone().step_by(channels) {
                let channels = channel..rows.end.min(channel + channels);
                for line in (0..cols.len() / width).step_by(lines) {
                    let lines = line..(cols.len() / width).min(line + lines);
                    let cols = lines.start * width..lines.end * width;
                    part.block(image, channels.clone(), cols, self.finishing, of_sums, |dst, at| {
                        let (channels, room) = (channels.clone(), &mut *room);
                        Planes {
                            data,
                            weights,
                            phases,
                            down,
                            sheet,
                            width,
                            image,
                            channels,
                            lines,
                            room,
                            dst,
                            at,
                            add,
                        }
                        .compute(kernel.isa);
                    });
                }
            }
        }
    }
}
