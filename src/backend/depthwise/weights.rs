//! The weights of a depthwise convolution, packed: `[strip][tap][lane]`.

use std::ops::Range;

use tile25_kernels::axis::{Axis, Dim, Window};
use tile25_kernels::format::{Format, Words};
use tile25_kernels::pack::{Form, Side, Zero, pack};

use bytemuck::Zeroable;

use crate::backend::tile::Source;

use super::Depthwise;
use super::phases::Phase;

/// Taps of a channel that are packed one by one, at most: of 3 x 3 one of two blocks that are transposed has one column. Zen 4, percent of the peak by blocks and one by one: 480 channels 3 x 3 @14 61 and 65, 1152 @7 46 and 51; of 5 x 5 76 and 67;
/// phases of 672 @14 of 5 x 5, stride 2, which leave out taps, 34 and 39.
pub(super) const ONE_BY_ONE: usize = 9;

/// From the lowest to the highest of the weights of a channel, less where the first lies.
fn reach(weights: &Window) -> (isize, isize) {
    let reach = |dim: &Dim| (dim.extent as isize - 1) * dim.stride;
    let dims = weights.k.dims();
    (dims.iter().map(|dim| reach(dim).min(0)).sum(), dims.iter().map(|dim| reach(dim).max(0)).sum())
}

/// Whether a block of so many weights of a channel is not much more than the `k` that are used, and channels are further apart.
fn is_little_more(span: usize, k: usize, weights: &Window) -> bool {
    span <= weights.x.inner().stride.unsigned_abs() && span <= 8 * k + 8
}

/// The block of weights over which those of a channel are spread, if channels are further apart, and it is not much more than what is used: a window that reads
/// element by element takes longer than the whole block.
pub(super) fn spread(weights: &Window) -> Option<(isize, usize)> {
    if weights.k.inner().stride == 1 && weights.k.dims().len() == 1 {
        return None;
    }
    let (low, high) = reach(weights);
    let span = (high - low) as usize + 1;
    is_little_more(span, weights.k.extent(), weights).then_some((low, span))
}

impl Depthwise {
    /// Bytes of the packed weights of all channels, with room to pack them.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.weights_bytes() + self.spread.map_or(0, |(_, span)| span * self.row())
    }

    /// Packs the weights of all channels: `[strip][tap][lane]`.
    pub(crate) fn pack_all_weights(&self, source: &Source<'_>, packed: &mut [u8]) {
        self.pack_weights(source, 0..self.shape[1], packed);
    }

    /// Packs the weights of some channels, from a whole strip on: `[strip][tap][lane]`.
    pub(super) fn pack_weights(&self, source: &Source<'_>, channels: Range<usize>, packed: &mut [u8]) {
        let (operand, start) = source.operand().expect("weights are packed here");
        let weights = Window { start: self.weights.start + start as isize, ..self.weights };
        let ([_, _, k], kernel, strip, row) = (self.shape, self.kernel, self.scan.pitch, self.row());
        if operand.format.is_integer() {
            return self.widen_weights(source, channels, bytemuck::cast_slice_mut(packed));
        }
        match (operand.words, kernel.form) {
            (Words::F32(data), Form::F32) if k <= ONE_BY_ONE => {
                return self.turn(data, weights.start, channels, bytemuck::cast_slice_mut::<_, f32>(packed));
            }
            (Words::F64(data), Form::F64) if k <= ONE_BY_ONE => {
                return self.turn(data, weights.start, channels, bytemuck::cast_slice_mut::<_, f64>(packed));
            }
            _ => {}
        }
        let (packed, spread) = packed.split_at_mut(channels.len().div_ceil(strip) * k * row);
        for (first, out) in channels.clone().step_by(strip).zip(packed.chunks_exact_mut(k * row)) {
            let x = first..channels.end.min(first + strip);
            let pack = |weights: &Window, steps: usize, out: &mut [u8]| {
                pack(kernel.isa, kernel.form, Side::Rhs, weights, operand, x, 0..steps, strip, out);
            };
            let Some((low, span)) = self.spread else {
                pack(&weights, k, out);
                continue;
            };
            let spread = &mut spread[..span * row];
            pack(&Window { start: weights.start + low, k: Axis::strided(span, 1), ..weights }, span, spread);
            for (step, out) in out.chunks_exact_mut(row).enumerate() {
                let at = (weights.k.offset(step) - low) as usize;
                out.copy_from_slice(&spread[at * row..][..row]);
            }
        }
    }
}

/// Weights of all phases of a gradient of the input, to be packed at once: a phase alone walks past those of the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct PhaseWeights {
    /// Where the lowest weight of a channel lies, and how many there are to the highest.
    low: isize,
    span: usize,
}

impl PhaseWeights {
    /// Of phases of floats; `None` if each has to be packed alone.
    pub(super) fn new(phases: &[Phase]) -> Option<PhaseWeights> {
        let first = phases.first()?.depthwise.weights;
        let reach = |phase: &Phase| {
            let weights = &phase.depthwise.weights;
            let (low, high) = reach(weights);
            (weights.start + low, weights.start + high)
        };
        let low = phases.iter().map(|phase| reach(phase).0).min()?;
        let high = phases.iter().map(|phase| reach(phase).1).max()?;
        let k = phases.iter().map(|phase| phase.depthwise.shape[2]).sum();
        let span = (high - low) as usize + 1;
        is_little_more(span, k, &first).then_some(PhaseWeights { low, span })
    }

    /// Bytes of room to pack them.
    pub(super) fn room(&self, first: &Depthwise) -> usize {
        self.span * first.row()
    }

    /// Packs the weights of each phase as it does itself, one after the other.
    pub(super) fn pack(&self, phases: &[Phase], source: &Source<'_>, packed: &mut [u8]) {
        let Some(Phase { depthwise: first, .. }) = phases.first() else { return };
        let (operand, start) = source.operand().expect("weights are packed here");
        let ([_, channels, _], kernel, strip, row) =
            (first.shape, first.kernel, first.scan.pitch, first.row());
        let of_phases = phases.iter().map(|phase| phase.depthwise.weights_bytes());
        let (packed, room) = packed.split_at_mut(of_phases.sum());
        let room = &mut room[..self.span * row];
        let block =
            Window { start: self.low + start as isize, k: Axis::strided(self.span, 1), ..first.weights };
        for i in 0..channels.div_ceil(strip) {
            let x = i * strip..channels.min((i + 1) * strip);
            pack(kernel.isa, kernel.form, Side::Rhs, &block, operand, x, 0..self.span, strip, room);
            let mut rest = &mut *packed;
            for Phase { depthwise: phase, .. } in phases {
                let out;
                (out, rest) = rest.split_at_mut(phase.weights_bytes());
                let (weights, k) = (&phase.weights, phase.shape[2]);
                for (step, out) in out[i * k * row..][..k * row].chunks_exact_mut(row).enumerate() {
                    let at = (weights.start + weights.k.offset(step) - self.low) as usize;
                    out.copy_from_slice(&room[at * row..][..row]);
                }
            }
        }
    }
}

impl Depthwise {
    /// Bytes of a packed tap of a strip.
    fn row(&self) -> usize {
        self.scan.pitch * self.kernel.form.element_bytes()
    }

    /// Bytes of the packed weights.
    pub(crate) fn weights_bytes(&self) -> usize {
        let [_, channels, k] = self.shape;
        channels.div_ceil(self.scan.pitch) * k * self.row()
    }

    /// Packs the weights of some channels that are in the format of sums and begin at `start`, one by one.
    fn turn<T: Copy + Zeroable>(&self, data: &[T], start: isize, channels: Range<usize>, packed: &mut [T]) {
        let ([_, _, k], strip, lanes) = (self.shape, self.scan.pitch, &self.weights.x);
        let apart = lanes.inner().stride;
        let mut taps = [0; ONE_BY_ONE];
        for (step, tap) in taps.iter_mut().enumerate().take(k) {
            *tap = self.weights.k.offset(step);
        }
        for (first, out) in channels.clone().step_by(strip).zip(packed.chunks_exact_mut(k * strip)) {
            let (n, first) = (strip.min(channels.end - first), start + lanes.offset(first));
            for (out, tap) in out.chunks_exact_mut(strip).zip(taps) {
                let (out, rest) = out.split_at_mut(n);
                for (lane, out) in out.iter_mut().enumerate() {
                    *out = data[(first + tap + lane as isize * apart) as usize];
                }
                rest.fill(T::zeroed());
            }
        }
    }

    /// Packs the weights of 8-bit integers, less their zero points.
    fn widen_weights(&self, source: &Source<'_>, channels: Range<usize>, packed: &mut [f32]) {
        let (operand, start) = source.operand().expect("weights are packed here");
        let Words::U8(data) = operand.words else { unreachable!("8-bit integers") };
        let ([_, _, k], strip) = (self.shape, self.scan.pitch);
        let first = self.weights.start + start as isize;
        let value = |offset: isize, channel: usize| {
            let zero = match operand.zero {
                Zero::Tensor(zero) => zero,
                Zero::PerX(zeros) => zeros[channel],
            };
            let code = data[offset as usize];
            let code = if operand.format == Format::I8 { i32::from(code as i8) } else { i32::from(code) };
            (code - zero) as f32
        };
        for (begin, out) in channels.clone().step_by(strip).zip(packed.chunks_exact_mut(k * strip)) {
            for (step, out) in out.chunks_exact_mut(strip).enumerate() {
                let (of_step, lanes) = (first + self.weights.k.offset(step), begin..channels.end);
                for (out, channel) in out.iter_mut().zip(lanes) {
                    *out = value(of_step + self.weights.x.offset(channel), channel);
                }
            }
        }
    }
}
