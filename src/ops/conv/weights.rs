//! Weights packed once, for any number of runs.

use tile25_kernels::axis::Axis;
use tile25_kernels::buf::Buf;
use tile25_kernels::format::{Element, Format};
use tile25_kernels::pack::{Form, Side, Zero};

use crate::backend::tile::Source;
use crate::context::Backend;
use crate::error::Error;
use crate::geometry::Geometry;
use crate::layout::Layout;
use crate::ops::operand::{check_blocks, check_operand, check_zero, source};
use crate::view::View;

use super::part::{How, Part};
use super::{ConvPlan, Direction};

/// The second operand of a run: elements, or weights packed by [`ConvPlan::pack_weights`].
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a, T> {
    /// Elements: of the weights or, for their gradient, of the output's.
    View(View<'a, T>),
    /// Packed weights.
    Packed(&'a PackedWeights<T>),
}

impl<'a, T> From<View<'a, T>> for Weights<'a, T> {
    fn from(view: View<'a, T>) -> Self {
        Weights::View(view)
    }
}

impl<'a, T> From<&'a PackedWeights<T>> for Weights<'a, T> {
    fn from(packed: &'a PackedWeights<T>) -> Self {
        Weights::Packed(packed)
    }
}

/// The weights of a convolution as a plan's kernels read them. They serve every plan of the same direction, weights and parameters whose kernel reads the same panels: batch
/// and size of the image may be others. Where a product reads weights as they are (planar 1 x 1, and depthwise), or packs them block by block (integers and narrow floats), a copy of the elements is kept.
/// With the feature `serde` they are data: see [`ConvPlan::check_packed`] for what was read.
#[derive(Clone, Debug)]
pub struct PackedWeights<T> {
    form: PackedForm,
    /// Of each part of the plan.
    parts: Vec<Option<Buf>>,
    /// The elements, if a part reads them.
    elements: Option<Elements<T>>,
}

#[derive(Clone, Debug)]
struct Elements<T> {
    data: Vec<T>,
    start: usize,
    layout: Layout,
    zeros: Vec<i32>,
}

/// What packed weights are of.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct PackedForm {
    direction: Direction,
    dims: Vec<usize>,
    format: Format,
    stride: [usize; 3],
    padding: [(usize, usize); 3],
    dilation: [usize; 3],
    groups: usize,
    form: Form,
    width: usize,
    /// Bytes of the panels of each part; none where it reads elements.
    bytes: Vec<Option<usize>>,
    /// Whether panels of a part are of whole planes.
    planes: Vec<bool>,
    /// Where the elements lie, if a part reads them.
    layout: Option<Layout>,
}

impl std::fmt::Display for PackedForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PackedForm { direction, dims, format, stride, padding, dilation, groups, form, width, .. } = self;
        write!(
            f,
            "w {dims:?} of {format} for {}, stride {stride:?}, padding {padding:?}, dilation {dilation:?}, {groups} groups, in panels of {width} {form:?}",
            direction.op()
        )?;
        let panels = self.bytes.iter().flatten().count();
        if panels < self.bytes.len() {
            write!(f, " for {panels} of {} products", self.bytes.len())?;
        }
        Ok(())
    }
}

impl Part {
    /// Whether its panels are narrower than those of a window that takes as many bytes.
    fn is_of_planes(&self) -> bool {
        matches!(self.how, How::WholePlanes(_))
    }

    /// Bytes of its packed weights, if it takes any.
    fn packed_bytes(&self) -> Option<usize> {
        match &self.how {
            How::Windows(windowed) => Some(windowed.packed_bytes()),
            How::Depthwise(depthwise) => Some(depthwise.packed_bytes()),
            How::Phased(phased) => Some(phased.packed_bytes()),
            How::FewChannels(few) => Some(few.packed_bytes()),
            How::WholePlanes(planes) => Some(planes.packed_bytes()),
            How::DotWindows(windows) => Some(windows.packed_bytes()),
            How::FewPhases(few) => Some(few.packed_bytes()),
            How::WithFirst => Some(0),
            How::Parts(_)
            | How::Planes(_)
            | How::WeightGradient(_)
            | How::FewInputs(_)
            | How::Bytes(_)
            | How::Tickets(_) => None,
        }
    }

    fn pack(&self, weights: &Source<'_>) -> Option<Buf> {
        let bytes = self.packed_bytes()?;
        let mut buf = Buf::zeroed(bytes);
        let panels = buf.as_mut_slice(bytes);
        match &self.how {
            How::Windows(windowed) => windowed.pack_weights(&self.gemm.rhs, weights, 1, panels),
            How::Depthwise(depthwise) => depthwise.pack_all_weights(weights, panels),
            How::Phased(phased) => phased.pack_weights(weights, panels),
            How::FewChannels(few) => few.pack_weights(&self.gemm.lhs, weights, panels),
            How::WholePlanes(planes) => planes.pack_weights(&self.gemm.lhs, weights, panels),
            How::DotWindows(windows) => windows.pack_weights(&self.gemm.rhs, weights, 1, panels),
            How::FewPhases(few) => few.pack_weights(weights, panels),
            How::WithFirst => {}
            How::Parts(_)
            | How::Planes(_)
            | How::WeightGradient(_)
            | How::FewInputs(_)
            | How::Bytes(_)
            | How::Tickets(_) => unreachable!("no packed weights"),
        }
        Some(buf)
    }
}

impl<T: Element> PackedWeights<T> {
    /// The weights of a part; rows of the product are `rows`.
    pub(super) fn source(&self, part: usize, rows: usize) -> Source<'_> {
        if let (Some(panels), Some(bytes)) = (&self.parts[part], self.form.bytes[part]) {
            return Source::Packed { panels: panels.as_slice(bytes), batch: Axis::strided(1, 0) };
        }
        source(&self.view(), Side::Lhs, rows)
    }

    /// The elements.
    fn view(&self) -> View<'_, T> {
        let Elements { data, start, layout, zeros } =
            self.elements.as_ref().expect("kept where they are read");
        let view = View::with_layout(data, *start, *layout).expect("all of them were copied");
        let view = view.with_format(self.form.format).expect("the format was checked");
        match zeros[..] {
            [zero] => view.zero_point(zero),
            _ => view.zero_points(zeros),
        }
    }
}

impl ConvPlan<'_> {
    fn packed_form(&self) -> PackedForm {
        let Geometry { stride, padding, dilation, groups, .. } = self.op.geometry;
        let bytes: Vec<_> = self.parts.iter().map(Part::packed_bytes).collect();
        PackedForm {
            direction: self.op.direction,
            dims: self.op.second.dims().to_vec(),
            format: self.op.second.format,
            stride,
            padding,
            dilation,
            groups,
            form: self.kernel.form,
            width: self.kernel.nr,
            layout: bytes.contains(&None).then_some(self.op.second.layout),
            bytes,
            planes: self.parts.iter().map(Part::is_of_planes).collect(),
        }
    }

    /// Packs the weights once, for any number of runs; their zero points with them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the gradient of the weights, which has none; [`Error::NotPlanned`] if `w` is not what the plan was made for; [`Error::Shape`] for zero points
    /// that are none.
    pub fn pack_weights<T: Element>(&self, w: View<'_, T>) -> Result<PackedWeights<T>, Error> {
        const OP: &str = "conv::pack_weights";
        if self.op.direction == Direction::BackwardWeights {
            let what = "packing the second operand of conv::backward_weights".to_string();
            return Err(Error::Unsupported { op: OP, what });
        }
        check_operand(OP, "w", w.layout(), w.format(), &self.op.second)?;
        check_zero(OP, "w", w.zero(), w.format(), self.zeros_of_weights())?;
        check_blocks(OP, "w", &w, false)?;
        let source = |part: &Part| source(&w, Side::Lhs, part.channels());
        let parts = self.parts.iter().map(|part| part.pack(&source(part))).collect();
        let form = PackedForm { format: w.format(), ..self.packed_form() };
        let elements = form.layout.map(|layout| {
            let (low, high) = layout.span().expect("the view was checked");
            let first = w.start().wrapping_add_signed(low);
            let data = w.data()[first..=w.start().wrapping_add_signed(high)].to_vec();
            let zeros = match w.zero() {
                Zero::Tensor(zero) => vec![zero],
                Zero::PerX(zeros) => zeros.to_vec(),
            };
            Elements { data, start: low.unsigned_abs(), layout, zeros }
        });
        Ok(PackedWeights { form, parts, elements })
    }

    /// Whether runs of this plan read `packed`, which another plan may have packed, or another process.
    ///
    /// # Errors
    /// [`Error::Packed`] where they do not: pack the weights anew then. [`Error::Unsupported`] on the reference backend, which reads elements only.
    pub fn check_packed<T>(&self, packed: &PackedWeights<T>) -> Result<(), Error> {
        let op = self.op.direction.op();
        let (form, g, second) = (&packed.form, &self.op.geometry, &self.op.second);
        let fits = form.direction == self.op.direction
            && form.dims == second.dims()
            && form.format.same_kind(second.format)
            && (form.stride, form.padding, form.dilation) == (g.stride, g.padding, g.dilation)
            && form.groups == g.groups
            && (form.form, form.width) == (self.kernel.form, self.kernel.nr)
            && form.bytes.iter().copied().eq(self.parts.iter().map(Part::packed_bytes))
            && form.planes.iter().copied().eq(self.parts.iter().map(Part::is_of_planes))
            && form.layout.is_none_or(|layout| layout == second.layout);
        if fits && self.context.backend == Backend::Reference {
            let what = "packed weights on the reference backend".to_string();
            return Err(Error::Unsupported { op, what });
        }
        if fits {
            return Ok(());
        }
        Err(Error::Packed { op, got: form.to_string(), needed: self.packed_form().to_string() })
    }
}

#[cfg(feature = "serde")]
mod as_data {
    use std::borrow::Cow;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::*;
    use crate::ops::stored::{Bytes, Lie};
    use crate::view::zero_points;

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "PackedWeights")]
    struct Stored<'a> {
        lie: Lie,
        form: Cow<'a, PackedForm>,
        #[serde(borrow)]
        parts: Vec<Option<Bytes<'a>>>,
        #[serde(borrow)]
        elements: Option<StoredElements<'a>>,
    }

    /// The layout is in the form.
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Elements")]
    struct StoredElements<'a> {
        #[serde(borrow)]
        data: Bytes<'a>,
        start: usize,
        zeros: Vec<i32>,
    }

    impl<T: Element> Serialize for PackedWeights<T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let elements = self.elements.as_ref().map(|Elements { data, start, zeros, .. }| StoredElements {
                data: Bytes(bytemuck::must_cast_slice::<T, u8>(data).into()),
                start: *start,
                zeros: zeros.clone(),
            });
            let mut parts = Vec::new();
            for (part, bytes) in self.parts.iter().zip(&self.form.bytes) {
                parts.push(
                    part.as_ref().zip(*bytes).map(|(part, bytes)| Bytes(part.as_slice::<u8>(bytes).into())),
                );
            }
            Stored { lie: Lie::here(), form: Cow::Borrowed(&self.form), parts, elements }
                .serialize(serializer)
        }
    }

    /// Refuses weights of another version, of another type than `T`, and what are no weights of the shape they say.
    impl<'de, T: Element> Deserialize<'de> for PackedWeights<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Stored { lie, form, parts, elements } = Stored::deserialize(deserializer)?;
            lie.check().map_err(D::Error::custom)?;
            let form = form.into_owned();
            if !form.format.same_kind(T::FORMAT) {
                let (own, asked) = (form.format, T::FORMAT);
                return Err(D::Error::custom(format!("packed weights of {own}, to be read as of {asked}")));
            }
            let lengths = parts.iter().map(|part| part.as_ref().map(|part| part.0.len()));
            let elements = match (elements, form.layout) {
                (None, None) => Ok(None),
                (Some(stored), Some(layout)) => stored.elements(layout, &form).map(Some),
                _ => Err("elements without a layout, or the other way round".to_string()),
            };
            match elements {
                Ok(elements) if lengths.eq(form.bytes.iter().copied()) => {
                    let parts = parts.iter().map(|part| part.as_ref().map(Bytes::to_buf)).collect();
                    Ok(PackedWeights { form, parts, elements })
                }
                Ok(_) => Err(D::Error::custom(format!("panels of other sizes than {form} has"))),
                Err(problem) => Err(D::Error::custom(format!("{form}: {problem}"))),
            }
        }
    }

    impl StoredElements<'_> {
        /// Checked against the form; what is wrong in words.
        fn elements<T: Element>(self, layout: Layout, form: &PackedForm) -> Result<Elements<T>, String> {
            let StoredElements { data, start, zeros } = self;
            if layout.dims() != form.dims {
                return Err(format!("elements of shape {:?}", layout.dims()));
            }
            if !data.0.len().is_multiple_of(size_of::<T>()) {
                return Err(format!("{} bytes of elements of {}", data.0.len(), form.format));
            }
            let mut own = vec![T::zeroed(); data.0.len() / size_of::<T>()];
            bytemuck::must_cast_slice_mut::<T, u8>(&mut own).copy_from_slice(&data.0);
            let view = View::with_layout(&own, start, layout).map_err(|error| error.to_string())?;
            let view = view.with_format(form.format).map_err(|error| error.to_string())?;
            let (range, channels) = (zero_points(view.format()), form.dims.first());
            // A single zero point is that of the tensor; only forward has one a channel.
            let per_channel = form.direction == Direction::Forward && Some(&zeros.len()) == channels;
            if !(zeros.len() == 1 || per_channel) || zeros.iter().any(|zero| !range.contains(zero)) {
                return Err(format!("{zeros:?} are no zero points"));
            }
            Ok(Elements { data: own, start, layout, zeros })
        }
    }
}
