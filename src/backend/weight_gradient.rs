//! Executes the gradient of the weights of a convolution with kernels of several elements: rows of the product are output channels, columns kernel positions and input channels, k goes over positions.
//!
//! Packed through its window, the input would be copied once for every kernel position. Here each element is copied once, to a band with its padding, and widened if its format is narrow; kernel
//! positions and channels are places of the band from which k goes on position by position. Where channels come in whole strips of a cache line, the band is one of strips, so that what
//! a strip takes over a segment lies in the first-level cache. The gradient of the output is read where it lies. Sums lie in the result, or in a block of scratch where its columns do not lie side by side.
//!
//! Scratch, for each thread: a band of about [`BAND_BYTES`](super::block::BAND_BYTES), or what whole lines of a segment take if that is more, up to [`MOST_BANDS`](super::block::MOST_BANDS) times as much; the sums of a strip; and
//! where sums lie apart, a block of about [`SUMS_BYTES`] of them, at least a tile high.

use std::ops::Range;
use std::sync::RwLock;

use tile25_kernels::axis::{Axis, COORDS, Dim, Window};
use tile25_kernels::buf::Buf;
use tile25_kernels::epilogue::FinishFrom;
use tile25_kernels::format::Format;
use tile25_kernels::gemm::{ByPosition, POSITION_SLACK, Real, position_sums};
use tile25_kernels::mat::{MatMut, MatSpec, Matrices, Places};
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
use super::schedule::{Gemm, Reader};
use super::sums::{Call, Execute, Finishing, Place, Sums, scratch};
use super::windows::SUMS_BYTES;

/// Kernel positions and positions from which on it pays, channels last. A tile of three vectors is full of one strip from three kernel positions on; 256 to 256 channels @14, 3 x 3, on Emerald Rapids 0.9 of the
/// speed of packed panels, 128 to 128 @28 1.0 to 1.1.
const LEAST: [usize; 2] = [3, 512];
/// The same of planes: three kernel positions 0.73 to 1.13, 256 to 256 @14, 3 x 3, 1.04 to 1.4, 512 to 512 @7 0.5.
const LEAST_OF_PLANES: [usize; 2] = [4, 128];

/// The order of columns: both lie in it in the input and the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// Kernel positions, then channels.
    ChannelsInside,
    /// Channels, then kernel positions.
    ChannelsOutside,
}

impl Columns {
    /// That of a reader of what `scan` goes over, `None` if it is another.
    pub(super) fn of(reader: &Reader, scan: &Scan) -> Option<Columns> {
        let (_, [a, b, c]) = scan.dims();
        let channels = Dim::plain(scan.channels.0, scan.channels.1);
        match reader.window.x {
            x if x == Axis::new(&[a, b, c, channels]) => Some(Columns::ChannelsInside),
            x if x == Axis::new(&[channels, a, b, c]) => Some(Columns::ChannelsOutside),
            _ => None,
        }
    }
}

/// A planned gradient of weights.
#[derive(Clone, Debug)]
pub(crate) struct WeightGradient {
    kernel: Kernel,
    /// With bands of strips, or of all channels.
    scan: Scan,
    groups: Axis,
    /// Where the gradient of the output lies, a matrix an image, and that of the next group.
    gradient: Places,
    of_group: Axis,
    place: Place,
    slots: usize,
    /// Whether channels are the inner index of columns.
    channels_inside: bool,
    /// Rows whose sums stand apart at once, strips and positions of a band.
    at_once: [usize; 3],
    /// Kernel positions, and positions.
    shape: [usize; 2],
    /// Elements of a band, of it and the sums of a strip, and of a block of sums.
    elements: [usize; 3],
}

impl WeightGradient {
    /// Plans `gemm`, whose rhs reads what `scan` goes over, positions along k; `None` where another executor serves it better.
    pub(crate) fn new(gemm: &Gemm, scan: &Scan, kernel: Kernel, threads: usize) -> Option<WeightGradient> {
        let (problem, places) = (&gemm.problem, Places::new(gemm.dst));
        let formats = problem.formats;
        let lanes = strip_of(kernel.form)?;
        let widens = formats.rhs != formats.sums;
        if problem.k == 0
            || formats.lhs != formats.sums
            || (widens && (kernel.form != Form::F32 || formats.rhs.is_integer()))
        {
            return None;
        }
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let all = scan.channels.0;
        let taps = n / all;
        let [least_taps, least] = if gemm.lhs.window.x.inner().stride == 1 { LEAST } else { LEAST_OF_PLANES };
        if taps < least_taps || k < least {
            return None;
        }
        let gradient = by_image(&gemm.lhs, m, scan.images.0)?;
        let columns = Columns::of(&gemm.rhs, scan)?;
        let pitch = if all.is_multiple_of(lanes) { lanes } else { all };
        let scan = Scan { pitch, ..*scan };
        let of_strip = taps * pitch;
        let bytes = formats.sums.bytes();
        let threads = worth(problem.macs(), threads);
        let scan = Segments::held_apart(&scan, k, all / pitch, bytes);
        let segments = Segments::new(&scan, k, all / pitch, bytes);
        if !segments.pay(&scan, k, bytes) {
            return None;
        }
        let Segments { positions, strips, .. } = segments;
        let band = strips * segments.band + POSITION_SLACK;
        let here = formats.out == formats.sums && places.columns_side_by_side();
        let rows = if here {
            m
        } else {
            (SUMS_BYTES / bytes / n / kernel.mr * kernel.mr).clamp(kernel.mr, m.max(kernel.mr))
        };
        let sums = if here { 0 } else { rows * n };
        // Strips are not side by side where channels are inside.
        let channels_inside = columns == Columns::ChannelsInside;
        let grain = if channels_inside { n } else { of_strip };
        let counts = evenly(problem.batch, [m, n], [kernel.mr, grain], threads);
        // Others cut columns as finely as they like.
        if counts.iter().product::<usize>() < threads {
            return None;
        }
        Some(WeightGradient {
            kernel,
            scan,
            groups: gemm.rhs.batch,
            gradient,
            of_group: gemm.lhs.batch,
            place: Place { places, here, counts, grains: [1, kernel.mr, grain] },
            slots: threads,
            channels_inside,
            at_once: [rows, strips, positions],
            shape: [taps, k],
            elements: [band, band + position_sums(of_strip), sums],
        })
    }

    /// What a run needs: a band and the sums of a strip, and a block of sums, for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        let [_, band, sums] = self.elements.map(|elements| elements * self.kernel.form.element_bytes());
        scratch(0, [band, sums], self.slots)
    }

    /// How a strip is read from a band: x are kernel positions and then channels, k positions.
    fn window(&self, band: &Band) -> Window {
        let mut dims = [Dim::plain(1, 0); COORDS + 1];
        dims[..band.taps.dims().len()].copy_from_slice(band.taps.dims());
        dims[COORDS] = Dim::plain(self.scan.pitch, 1);
        Window { x: Axis::new(&dims), k: band.window.x, ..band.window }
    }
}

/// Where the gradient of the output lies, image by image: rows are channels, columns positions. `None` if it takes more than one stride.
fn by_image(reader: &Reader, channels: usize, images: usize) -> Option<Places> {
    let k = &reader.window.k;
    let (of_images, cols) = match *k.dims() {
        [one] => {
            let of_image = one.extent / images;
            (one.stride.checked_mul(of_image as isize)?, Axis::strided(of_image, one.stride))
        }
        [outer, inner] if outer.extent == images => (outer.stride, Axis::strided(inner.extent, inner.stride)),
        _ => return None,
    };
    let batch = Axis::strided(images, of_images);
    let rows = reader.window.x;
    let one_stride = rows.dims().len() == 1 && rows.extent() == channels;
    one_stride.then(|| Places::new(MatSpec { start: reader.window.start, batch, rows, cols }))
}

impl Execute for WeightGradient {
    fn sums(&self) -> Format {
        self.kernel.form.sums()
    }

    fn typed<T: Real + Transpose + OwnWords, W: FinishFrom<T>>(&self, call: &Call<'_>, dst: &mut [W]) {
        let (run, epilogue, scratch) = (call.run, call.epilogue.cast(), call.scratch());
        let (gradient, input) = (run.lhs.own::<T>(), Input::new(&run.rhs));
        let finishing = Finishing { isa: self.kernel.isa, accum: run.accum, epilogue: &epilogue };
        within(call.threads, self.place.counts, || {
            self.place.parts(dst, call.start, &|part: Sums<'_, T, W>| {
                Job { planned: self, gradient, input, finishing, scratch }.part(part);
            });
        });
    }
}

struct Job<'a, T> {
    planned: &'a WeightGradient,
    /// The gradient of the output, and where it starts.
    gradient: (&'a [T], isize),
    input: Input<'a, T>,
    finishing: Finishing<'a, T>,
    scratch: &'a [RwLock<Buf>],
}

impl<T: Real + Transpose + OwnWords> Job<'_, T> {
    fn part<W: FinishFrom<T>>(&self, mut part: Sums<'_, T, W>) {
        let WeightGradient { gradient, of_group, channels_inside, at_once, shape, elements, .. } =
            self.planned;
        let [of_groups, rows, cols] = part.ranges();
        let (mut band, mut sums) = free_pair(self.scratch, self.planned.slots);
        let (band, of_strip) = band.as_mut_slice::<T>(elements[1]).split_at_mut(elements[0]);
        let sums = sums.as_mut_slice::<T>(elements[2]);
        let pitch = self.planned.scan.pitch;
        let first_strip = if *channels_inside { 0 } else { cols.start / (shape[0] * pitch) };
        let strips = first_strip..first_strip + cols.len() / (shape[0] * pitch);
        for group in of_groups {
            let (data, start) = self.gradient;
            let gradient = Matrices::new(data, start + of_group.offset(group), gradient);
            let gradient = gradient.expect("the view and the plan were checked");
            for row in rows.clone().step_by(at_once[0]) {
                let rows = row..rows.end.min(row + at_once[0]);
                part.block(group, rows.clone(), cols.clone(), self.finishing, sums, |dst, at| {
                    let of_block = strips.clone().step_by(at_once[1]);
                    for strips in of_block.map(|strip| strip..strips.end.min(strip + at_once[1])) {
                        let block = Block { group, rows: rows.clone(), strips, first_strip };
                        self.block(&block, gradient, band, of_strip, dst, at);
                    }
                });
            }
        }
    }

    /// Some rows of some strips, over all positions.
    fn block(
        &self,
        block: &Block,
        gradient: Matrices<'_, T>,
        band: &mut [T],
        sums: &mut [T],
        dst: &mut MatMut<'_, T>,
        at: [usize; 3],
    ) {
        let WeightGradient { kernel, scan, groups, channels_inside, at_once, shape: [taps, k], .. } =
            self.planned;
        let Block { group, rows, strips, first_strip } = block;
        let first = groups.offset(*group) + (strips.start * scan.pitch) as isize * scan.channels.1;
        let of_strips = Scan { channels: (strips.len() * scan.pitch, scan.channels.1), ..*scan };
        for first_position in (0..*k).step_by(at_once[2]) {
            let positions = first_position..(*k).min(first_position + at_once[2]);
            let place = scan.band(positions.clone());
            self.input.copy(kernel.isa, &of_strips, &place, first, band);
            ByPosition {
                gradient,
                data: band,
                window: &self.planned.window(&place),
                strip: place.len(scan.pitch),
                shape: [*taps, scan.pitch],
                channels_inside: channels_inside.then_some(scan.channels.0),
                rows: rows.clone(),
                strips: strips.start - first_strip..strips.end - first_strip,
                positions,
                of_image: k / scan.images.0,
                sums: &mut *sums,
                dst: &mut *dst,
                at,
                add: first_position > 0 || self.finishing.accum == Accum::Add,
            }
            .compute(kernel.isa);
        }
    }
}

/// Rows and strips of a group, and the first strip of the part they are of.
struct Block {
    group: usize,
    rows: Range<usize>,
    strips: Range<usize>,
    first_strip: usize,
}
