//! The right-hand operand, packed once for any number of runs.

use std::ops::Range;

use tile25_kernels::axis::{Axis, Dim};
use tile25_kernels::buf::Buf;
use tile25_kernels::format::{Element, Format};
use tile25_kernels::pack::{Form, Side, pack};

use crate::backend::schedule::Reader;
use crate::context::Backend;
use crate::error::Error;
use crate::layout::MAX_RANK;
use crate::ops::operand::{check_blocks, check_operand, check_zero, operand};
use crate::plan::segment;
use crate::view::View;

use super::{MatmulPlan, OP, plain_axis};

/// The right-hand operand of a run: elements, or panels packed by [`MatmulPlan::pack_rhs`].
#[derive(Clone, Copy, Debug)]
pub enum Rhs<'a, T> {
    /// Elements.
    View(View<'a, T>),
    /// Panels.
    Packed(&'a PackedRhs<T>),
}

impl<'a, T> From<View<'a, T>> for Rhs<'a, T> {
    #[inline]
    fn from(view: View<'a, T>) -> Self {
        Rhs::View(view)
    }
}

impl<'a, T> From<&'a PackedRhs<T>> for Rhs<'a, T> {
    fn from(packed: &'a PackedRhs<T>) -> Self {
        Rhs::Packed(packed)
    }
}

/// A right-hand operand in the panels of a kernel. It depends on that operand and on the panel width alone: it serves every plan
/// with the same `[..., k, n]` whose kernel reads panels of that width. With the feature `serde` it is data: see [`MatmulPlan::check_packed`] for what was read.
#[derive(Clone, Debug)]
pub struct PackedRhs<T> {
    panels: Buf,
    bytes: usize,
    form: PackedForm,
    element: std::marker::PhantomData<T>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct PackedForm {
    dims: Vec<usize>,
    format: Format,
    side: Side,
    form: Form,
    width: usize,
}

impl std::fmt::Display for PackedForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} of {} in {:?} panels of {} {:?}",
            self.dims, self.format, self.side, self.width, self.form
        )
    }
}

impl PackedForm {
    /// Steps of k of each segment of panels.
    fn segments(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (k, segment) = (self.dims[self.dims.len() - 2], segment(self.form.sums()));
        (0..k).step_by(segment).map(move |from| from..k.min(from + segment))
    }

    /// Bytes of the panels over one segment of one product.
    fn segment_bytes(&self, k: &Range<usize>) -> usize {
        self.form.packed_bytes(self.dims[self.dims.len() - 1], k.len(), self.width)
    }
}

impl<T> PackedRhs<T> {
    pub(super) fn panels(&self) -> &[u8] {
        self.panels.as_slice(self.bytes)
    }
}

impl MatmulPlan<'_> {
    /// Whether runs of this plan read `packed`, which another plan may have packed, or another process.
    ///
    /// # Errors
    /// [`Error::Packed`] where they do not: pack the operand anew then. [`Error::Unsupported`] on the reference backend, which reads elements only.
    pub fn check_packed<T>(&self, packed: &PackedRhs<T>) -> Result<(), Error> {
        let (side, width) = self.rhs_side();
        let form = &packed.form;
        let fits = (form.side, form.width, form.form) == (side, width, self.kernel.form)
            && form.format.same_kind(self.op.rhs.format)
            && form.dims == self.op.rhs.dims()
            && (self.parts.is_some()
                || self.dots.is_some() && !self.transposed
                || self.schedule().starts_at_panels(self.transposed));
        if fits && self.context.backend == Backend::Reference {
            let what = "a packed operand on the reference backend".to_string();
            return Err(Error::Unsupported { op: OP, what });
        }
        if fits {
            return Ok(());
        }
        let (got, needed) = (packed.form.to_string(), self.packed_form().to_string());
        Err(Error::Packed { op: OP, got, needed })
    }

    fn packed_form(&self) -> PackedForm {
        let (side, width) = self.rhs_side();
        PackedForm {
            dims: self.op.rhs.dims().to_vec(),
            format: self.op.rhs.format,
            side,
            form: self.kernel.form,
            width,
        }
    }

    /// The kernel's operand that our rhs is, and its panels' width.
    fn rhs_side(&self) -> (Side, usize) {
        if self.transposed { (Side::Lhs, self.kernel.mr) } else { (Side::Rhs, self.kernel.nr) }
    }

    fn rhs_reader(&self) -> &Reader {
        if self.transposed { &self.gemm.lhs } else { &self.gemm.rhs }
    }

    /// Packs the right-hand operand once, for any number of runs; its zero points with it.
    ///
    /// # Errors
    /// [`Error::NotPlanned`] if `rhs` is not what the plan was made for; [`Error::Shape`] for zero points that are none.
    pub fn pack_rhs<T: Element>(&self, rhs: View<'_, T>) -> Result<PackedRhs<T>, Error> {
        const OP: &str = "pack_rhs";
        check_operand(OP, "rhs", rhs.layout(), rhs.format(), &self.op.rhs)?;
        let n = self.rhs_reader().window.x.extent();
        check_zero(OP, "rhs", rhs.zero(), rhs.format(), Some(("columns", n)))?;
        let form = self.packed_form();
        let own = rhs.layout();
        let batch = plain_axis(own, 0..own.rank() - 2);
        let product: usize = form.segments().map(|k| form.segment_bytes(&k)).sum();
        let bytes = product * batch.extent();
        let mut panels = Buf::zeroed(bytes);
        check_blocks(OP, "rhs", &rhs, self.op.block_scaled)?;
        let operand = operand(&rhs, Side::Rhs);
        if product > 0 {
            for (b, mut out) in panels.as_mut_slice::<u8>(bytes).chunks_exact_mut(product).enumerate() {
                let mut window = self.rhs_reader().window;
                window.start += rhs.start() as isize + batch.offset(b);
                for k in form.segments() {
                    let (now, rest) = out.split_at_mut(form.segment_bytes(&k));
                    pack(self.context.isa, form.form, form.side, &window, operand, 0..n, k, form.width, now);
                    out = rest;
                }
            }
        }
        Ok(PackedRhs { panels, bytes, form, element: std::marker::PhantomData })
    }

    /// Which packed product each product of the batch reads.
    pub(super) fn packed_batch(&self) -> Axis {
        let out = self.op.out.dims();
        let rhs = self.op.rhs.dims();
        let lead = out.len() - 2;
        let mut dims = [Dim::plain(1, 0); MAX_RANK];
        let mut stride = 1;
        for d in (0..lead).rev() {
            let own = (d + rhs.len()).checked_sub(out.len()).map_or(1, |own| rhs[own]);
            dims[d] = Dim::plain(out[d], if own == 1 { 0 } else { stride as isize });
            stride *= own;
        }
        Axis::new(&dims[..lead])
    }
}

#[cfg(feature = "serde")]
mod as_data {
    use std::borrow::Cow;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tile25_kernels::pack::PANEL_WIDTH;

    use super::*;
    use crate::ops::stored::{Bytes, Lie};

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "PackedRhs")]
    struct Stored<'a> {
        lie: Lie,
        form: Cow<'a, PackedForm>,
        #[serde(borrow)]
        panels: Bytes<'a>,
    }

    impl<T> Serialize for PackedRhs<T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let (form, panels) = (Cow::Borrowed(&self.form), Bytes(self.panels().into()));
            Stored { lie: Lie::here(), form, panels }.serialize(serializer)
        }
    }

    /// Refuses panels of another version, of another type than `T`, and what are no panels of the shape they say.
    impl<'de, T: Element> Deserialize<'de> for PackedRhs<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Stored { lie, form, panels } = Stored::deserialize(deserializer)?;
            lie.check().map_err(D::Error::custom)?;
            let bytes = panels.0.len();
            form.check(T::FORMAT, bytes).map_err(D::Error::custom)?;
            let (panels, form) = (panels.to_buf(), form.into_owned());
            Ok(PackedRhs { panels, bytes, form, element: std::marker::PhantomData })
        }
    }

    impl PackedForm {
        /// Whether panels of `bytes` bytes can be of this form and of elements in `format`, in words.
        fn check(&self, format: Format, bytes: usize) -> Result<(), String> {
            if !self.format.same_kind(format) {
                return Err(format!("a packed operand of {}, to be read as one of {format}", self.format));
            }
            let sound = (2..=MAX_RANK).contains(&self.dims.len()) && (1..=PANEL_WIDTH).contains(&self.width);
            if sound && self.bytes(bytes) == Some(bytes) {
                return Ok(());
            }
            Err(format!("{bytes} bytes are no panels of {self}"))
        }

        /// Bytes of all panels, unless they are more than `most`.
        fn bytes(&self, most: usize) -> Option<usize> {
            // Elements take a byte at least; where they are no more than `most`, nothing below overflows.
            let elements =
                self.dims.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
            if elements == 0 || elements > most {
                return (elements == 0).then_some(0);
            }
            let product: usize = self.segments().map(|k| self.segment_bytes(&k)).sum();
            product.checked_mul(self.dims[..self.dims.len() - 2].iter().product())
        }
    }
}
