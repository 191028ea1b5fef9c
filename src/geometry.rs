//! What a convolution is: its parameters, checked against the shapes, on three spatial axes; the phases of its gradient.

use crate::error::Error;
use crate::view::Spec;

/// The parameters of a convolution over `D` spatial axes.
///
/// ```
/// use tile25::conv::Conv;
/// let same = Conv { padding: [(1, 1); 2], ..Conv::<2>::default() };
/// assert_eq!((same.stride, same.dilation, same.groups), ([1, 1], [1, 1], 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv<const D: usize> {
    /// Positions from one output to the next, per axis.
    pub stride: [usize; D],
    /// Zeros before and after the input, per axis.
    pub padding: [(usize, usize); D],
    /// Positions from one kernel tap to the next, per axis.
    pub dilation: [usize; D],
    /// Channels are cut into this many groups that do not see each other.
    pub groups: usize,
}

impl<const D: usize> Default for Conv<D> {
    fn default() -> Self {
        Conv { stride: [1; D], padding: [(0, 0); D], dilation: [1; D], groups: 1 }
    }
}

/// A checked convolution, brought to three spatial axes (leading axes of extent 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) groups: usize,
    pub(crate) input: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) padding: [(usize, usize); 3],
    pub(crate) dilation: [usize; 3],
}

impl Geometry {
    pub(crate) fn c_in_per_group(&self) -> usize {
        self.c_in / self.groups
    }

    pub(crate) fn c_out_per_group(&self) -> usize {
        self.c_out / self.groups
    }

    /// Where kernel position `r` of output position `o` reads the input along axis `d`.
    pub(crate) fn input_position(&self, d: usize, o: usize, r: usize) -> isize {
        (o * self.stride[d] + r * self.dilation[d]) as isize - self.padding[d].0 as isize
    }

    /// Checks x, w and y of a forward convolution against each other.
    pub(crate) fn new<const D: usize>(
        op: &'static str,
        x: &Spec,
        w: &Spec,
        y: &Spec,
        conv: &Conv<D>,
    ) -> Result<Self, Error> {
        const { assert!(D >= 1 && D <= 3, "a convolution has one, two or three spatial axes") };
        for (operand, spec) in [("input", x), ("weights", w), ("output", y)] {
            let (rank, dims) = (spec.layout.rank(), spec.dims().to_vec());
            if rank != D + 2 {
                return Err(Error::Rank { op, rank, dims, low: D + 2, high: D + 2 });
            }
            if spec.layout.is_empty() {
                return Err(Error::ZeroDim { op, operand, dims });
            }
        }
        let shapes =
            || format!("input {:?}, weights {:?}, output {:?}, {conv:?}", x.dims(), w.dims(), y.dims());
        let refuse = |why: &str| Error::Shape { op, problem: format!("{why}: {}", shapes()) };
        let (xd, wd, yd) = (x.dims(), w.dims(), y.dims());
        if conv.groups == 0 || conv.stride.contains(&0) || conv.dilation.contains(&0) {
            return Err(refuse("stride, dilation and groups must not be 0"));
        }
        if xd[0] != yd[0] {
            return Err(refuse("input and output differ in batch"));
        }
        if wd[0] != yd[1] || !yd[1].is_multiple_of(conv.groups) {
            return Err(refuse("the output channels are not those of the weights, or not whole groups"));
        }
        if wd[1].checked_mul(conv.groups) != Some(xd[1]) {
            return Err(refuse("the input channels are not those of the weights times the groups"));
        }
        let mut geometry = Geometry {
            batch: xd[0],
            c_in: xd[1],
            c_out: yd[1],
            groups: conv.groups,
            input: [1; 3],
            kernel: [1; 3],
            output: [1; 3],
            stride: [1; 3],
            padding: [(0, 0); 3],
            dilation: [1; 3],
        };
        for d in 0..D {
            let (low, high) = conv.padding[d];
            let output = (|| {
                let padded = xd[d + 2].checked_add(low)?.checked_add(high)?;
                let reach = (wd[d + 2] - 1).checked_mul(conv.dilation[d])?.checked_add(1)?;
                isize::try_from(padded.checked_mul(conv.stride[d].max(2))?).ok()?;
                Some(padded.checked_sub(reach)? / conv.stride[d] + 1)
            })();
            if output != Some(yd[d + 2]) {
                let why = match output {
                    Some(output) => format!("spatial axis {d} of the output must be {output}"),
                    None => format!("the kernel does not fit the padded input along spatial axis {d}"),
                };
                return Err(refuse(&why));
            }
            let to = d + 3 - D;
            geometry.input[to] = xd[d + 2];
            geometry.kernel[to] = wd[d + 2];
            geometry.output[to] = yd[d + 2];
            geometry.stride[to] = conv.stride[d];
            geometry.padding[to] = conv.padding[d];
            geometry.dilation[to] = conv.dilation[d];
        }
        let far = || {
            let mut places = xd[0].checked_mul(xd[1].max(yd[1]))?.checked_mul(size_of::<f64>())?;
            let mut offsets = [0usize; 2];
            for d in 0..D {
                let (low, high) = conv.padding[d];
                let span = xd[d + 2] + low + high + (wd[d + 2] - 1) * conv.dilation[d] + yd[d + 2];
                places = places.checked_mul(span)?;
                for (offset, spec) in offsets.iter_mut().zip([x, y]) {
                    let stride = spec.layout.strides()[d + 2].unsigned_abs();
                    *offset = span.checked_mul(stride)?.checked_add(*offset)?;
                }
            }
            let most = offsets.into_iter().max()?.checked_mul(2)?.max(places);
            isize::try_from(most).ok()
        };
        if far().is_none() {
            return Err(refuse("with its padding the input has more elements than can be addressed"));
        }
        let terms = wd.iter().chain(&yd[2..]).chain(&yd[..1]).try_fold(1usize, |p, &e| p.checked_mul(e));
        if terms.is_none_or(|terms| terms > isize::MAX as usize) {
            return Err(Error::SizeOverflow { dims: yd.to_vec(), strides: Vec::new() });
        }
        Ok(geometry)
    }

    /// How many phases along axis `d` have input positions.
    pub(crate) fn phase_count(&self, d: usize) -> usize {
        self.stride[d].min(self.input[d])
    }

    /// Of these in ascending order the one at `i`: they are neighbours from that of position 0 on, and the phase 0 follows the last of all.
    pub(crate) fn phase(&self, d: usize, i: usize) -> usize {
        let first = self.padding[d].0 % self.stride[d];
        let wrapped = (first + self.phase_count(d)).saturating_sub(self.stride[d]);
        if i < wrapped { i } else { first + i - wrapped }
    }

    /// The first input position of a phase: `(i + pad_low) mod stride = phase`.
    pub(crate) fn phase_first(&self, d: usize, phase: usize) -> usize {
        (phase as isize - self.padding[d].0 as isize).rem_euclid(self.stride[d] as isize) as usize
    }

    /// Input positions of a phase.
    pub(crate) fn phase_extent(&self, d: usize, phase: usize) -> usize {
        self.input[d].saturating_sub(self.phase_first(d, phase)).div_ceil(self.stride[d])
    }

    /// Kernel positions of a phase (`r dilation mod stride = phase`): how many, the first, the distance between them.
    pub(crate) fn phase_taps(&self, d: usize, phase: usize) -> (usize, usize, usize) {
        let (stride, dilation) = (self.stride[d], self.dilation[d]);
        let period = stride / gcd(stride, dilation);
        let meets = |r: &usize| (r % period) * (dilation % stride) % stride == phase;
        match (0..period.min(self.kernel[d])).find(meets) {
            Some(first) => ((self.kernel[d] - first).div_ceil(period), first, period),
            None => (0, 0, period),
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_those_with_input_positions() {
        for (stride, padding, input) in
            [(1, 0, 5), (3, 0, 5), (3, 4, 2), (5, 3, 4), (7, 6, 1), (7, 20, 7), (4, 3, 2)]
        {
            let geometry = Geometry {
                batch: 1,
                c_in: 1,
                c_out: 1,
                groups: 1,
                input: [input; 3],
                kernel: [1; 3],
                output: [1; 3],
                stride: [stride; 3],
                padding: [(padding, 0); 3],
                dilation: [1; 3],
            };
            let listed: Vec<usize> = (0..geometry.phase_count(1)).map(|i| geometry.phase(1, i)).collect();
            let met: Vec<usize> = (0..stride).filter(|&phase| geometry.phase_extent(1, phase) > 0).collect();
            assert_eq!(listed, met, "stride {stride}, padding {padding}, input {input}");
        }
    }
}
