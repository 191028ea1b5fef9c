//! What happens to a result and its sum: accumulation, scale, bias, residual, activation (N5).

pub use tile25_kernels::math::Act;

use tile25_kernels::epilogue::{self as kernel, Along, Param, Residual};
use tile25_kernels::format::{Element, Format, Narrow, Target};
use tile25_kernels::mat::MatSpec;
use tile25_kernels::pack::Zero;

use crate::error::Error;
use crate::layout::Layout;
use crate::view::{Spec, View, zero_points};

/// What becomes of the output's old values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accum {
    /// They are never read: a NaN in them does not survive.
    #[default]
    Replace,
    /// The sum is added to them, segment by segment (N2), before the epilogue.
    Add,
}

/// The epilogue of one matrix product, in the arithmetic of its sums: one type for all formats of results, so that executors are compiled once, with this crate, and not anew for each format
/// that a user of it has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OfKernel<'a> {
    F32(kernel::Epilogue<'a, f32>),
    F64(kernel::Epilogue<'a, f64>),
}

impl<'a> OfKernel<'a> {
    fn new<P: Param>(epilogue: &kernel::Epilogue<'a, P>) -> Self {
        match size_of::<P>() {
            4 => OfKernel::F32(epilogue.cast()),
            _ => OfKernel::F64(epilogue.cast()),
        }
    }

    /// In `P`.
    ///
    /// # Panics
    /// If its arithmetic is another.
    pub(crate) fn cast<P: Param>(&self) -> kernel::Epilogue<'a, P> {
        match self {
            OfKernel::F32(epilogue) => epilogue.cast(),
            OfKernel::F64(epilogue) => epilogue.cast(),
        }
    }

    /// Whether the sum is the result but for its format.
    pub(crate) fn is_identity(&self) -> bool {
        match self {
            OfKernel::F32(epilogue) => epilogue.is_identity(),
            OfKernel::F64(epilogue) => epilogue.is_identity(),
        }
    }
}

/// Applied to each element `t` of the sum, in this order, each operation rounded once:
/// `act(t * scale * row_scale * channel_scale + bias + residual)`, then narrowed to the output's format.
///
/// Scales and biases are f32 for every output format but f64. With [`Accum::Add`] the sum includes the old value, so the scales scale that too;
/// for `scale * a b + c` pass `c` as the residual. A sum of integers becomes an f32 first, rounded to nearest; an output in i32 has no epilogue.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T: Element> {
    /// Multiplies the sum: the product of the per-tensor scales of both operands, say.
    pub scale: Option<T::Param>,
    /// One value a row of a matmul (shape `[m]`); a convolution has none.
    pub row_scales: Option<&'a [T::Param]>,
    /// One value a column of a matmul (shape `[n]`), one an output channel of a convolution (shape `[channels]`).
    pub channel_scales: Option<&'a [T::Param]>,
    /// As `channel_scales`.
    pub bias: Option<&'a [T::Param]>,
    /// Added element by element; the shape of the output, any strides. Of 8-bit integers, less its zero point.
    pub residual: Option<View<'a, T>>,
    /// The activation. f64 has [`Act::None`] and [`Act::Relu`].
    pub act: Act,
    /// How the result is narrowed.
    pub narrow: Narrow,
}

impl<T: Element> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue {
            scale: None,
            row_scales: None,
            channel_scales: None,
            bias: None,
            residual: None,
            act: Act::None,
            narrow: Narrow::default(),
        }
    }
}

/// What one element of the output meets.
pub(crate) struct Here<P> {
    pub(crate) row_scale: Option<P>,
    pub(crate) channel_scale: Option<P>,
    pub(crate) bias: Option<P>,
    pub(crate) residual: Option<P>,
}

impl<'a, T: Element> Epilogue<'a, T> {
    /// Whether it changes nothing but the format.
    #[inline(always)]
    pub(crate) fn is_identity(&self) -> bool {
        self.scale.is_none()
            && self.row_scales.is_none()
            && self.channel_scales.is_none()
            && self.bias.is_none()
            && self.residual.is_none()
            && self.act == Act::None
    }

    /// Checks the epilogue against the output; `rows` where the operation has them.
    #[inline(always)]
    pub(crate) fn check(
        &self,
        op: &'static str,
        out: &Spec,
        rows: Option<usize>,
        channels: usize,
    ) -> Result<(), Error> {
        if self.is_identity() { Ok(()) } else { self.check_fits(op, out, rows, channels) }
    }

    #[inline(never)]
    fn check_fits(
        &self,
        op: &'static str,
        out: &Spec,
        rows: Option<usize>,
        channels: usize,
    ) -> Result<(), Error> {
        let wrong = |name: &str, values: &[T::Param], needed: usize, of: &str| {
            let dims = out.dims();
            let problem =
                format!("{name} has {} values, the output {dims:?} has {needed} {of}", values.len());
            Err(Error::Shape { op, problem })
        };
        for (name, values) in [("bias", self.bias), ("channel_scales", self.channel_scales)] {
            if let Some(values) = values.filter(|values| values.len() != channels) {
                return wrong(name, values, channels, "channels");
            }
        }
        match (self.row_scales, rows) {
            (Some(values), Some(rows)) if values.len() != rows => {
                return wrong("row_scales", values, rows, "rows");
            }
            (Some(_), None) => {
                return Err(Error::Unsupported { op, what: "an epilogue with row_scales".into() });
            }
            _ => {}
        }
        if let Some(residual) = self.residual.as_ref().filter(|residual| residual.dims() != out.dims()) {
            let problem =
                format!("residual {:?} and output {:?} differ in shape", residual.dims(), out.dims());
            return Err(Error::Shape { op, problem });
        }
        if let Some(residual) = &self.residual {
            let what = match (residual.zero(), residual.blocks()) {
                (_, Some(_)) => Some("block scales".to_string()),
                (Zero::PerX(_), _) => Some("more than one zero point".to_string()),
                (Zero::Tensor(zero), _) => {
                    (!zero_points(residual.format()).contains(&zero)).then(|| format!("zero point {zero}"))
                }
            };
            if let Some(what) = what {
                let what = format!("{what} of the residual, which is in {}", residual.format());
                return Err(Error::Unsupported { op, what });
            }
        }
        if self.act != Act::None && <T::Param as num_traits::Zero>::zero().activate_one(self.act).is_none() {
            return Err(Error::Unsupported { op, what: format!("activation {} in {}", self.act, T::FORMAT) });
        }
        if out.format == Format::I32 {
            return Err(Error::Unsupported { op, what: "an epilogue of an output in i32".into() });
        }
        Ok(())
    }

    /// What a value becomes in the output.
    pub(crate) fn target(&self, out: &Spec, zero: i32) -> Target {
        Target::new(out.format, self.narrow, zero)
    }

    /// The epilogue in the kernel's orientation: `spec_of` says where the elements of a layout of the output's shape lie, `row` and `channel` make
    /// values of the output's rows and channels those of the kernel's rows or columns.
    pub(crate) fn for_kernel(
        &self,
        out: &Spec,
        zero: i32,
        spec_of: impl Fn(&Layout) -> MatSpec,
        row: impl Fn(&'a [T::Param]) -> Along<'a, T::Param>,
        channel: impl Fn(&'a [T::Param]) -> Along<'a, T::Param>,
    ) -> OfKernel<'a> {
        let residual = self.residual.map(|view| {
            let mut spec = spec_of(view.layout());
            spec.start += view.start() as isize;
            let Zero::Tensor(zero) = view.zero() else { unreachable!("checked") };
            Residual { words: view.words(), format: view.format(), zero, spec }
        });
        let index = Layout::contiguous(out.dims()).expect("the output has these dims");
        OfKernel::new(&kernel::Epilogue {
            scale: self.scale,
            scales: [
                self.row_scales.map_or(Along::None, row),
                self.channel_scales.map_or(Along::None, &channel),
            ],
            bias: self.bias.map_or(Along::None, channel),
            residual,
            act: self.act,
            target: self.target(out, zero),
            index: spec_of(&index),
        })
    }

    /// The definition for one element: `t` is the sum.
    pub(crate) fn apply(&self, t: T::Param, here: Here<T::Param>) -> T::Param {
        let t = self.scale.map_or(t, |scale| t * scale);
        let t = here.row_scale.map_or(t, |scale| t * scale);
        let t = here.channel_scale.map_or(t, |scale| t * scale);
        let t = here.bias.map_or(t, |bias| t + bias);
        let t = here.residual.map_or(t, |residual| t + residual);
        t.activate_one(self.act).expect("checked when the run began")
    }
}
