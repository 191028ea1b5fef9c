//! What happens to a result and its sum: accumulation, scale, bias, residual, activation (N5).

pub use tile25_kernels::epilogue::Act;

use tile25_kernels::epilogue as kernel;
use tile25_kernels::mat::{MatRef, MatSpec};

use crate::error::Error;
use crate::layout::Layout;
use crate::view::{Spec, View};
use tile25_kernels::format::Element;

/// What becomes of the output's old values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accum {
    /// They are never read: a NaN in them does not survive.
    #[default]
    Replace,
    /// The sum is added to them, segment by segment (N2), before the epilogue.
    Add,
}

/// Applied to each element `t` of the sum, in this order: `act(t * scale + bias + residual)`, each operation rounded once.
///
/// With [`Accum::Add`] the sum includes the old value, so `scale` scales that too; for `scale * a b + c` pass `c` as the residual.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// Multiplies the sum.
    pub scale: Option<T>,
    /// One value a column of a matmul (shape `[n]`), one an output channel of a convolution (shape `[channels]`).
    pub bias: Option<&'a [T]>,
    /// Added element by element; the shape of the output, any strides.
    pub residual: Option<View<'a, T>>,
    /// The activation. f64 has [`Act::None`] and [`Act::Relu`].
    pub act: Act,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue { scale: None, bias: None, residual: None, act: Act::None }
    }
}

impl<'a, T: Element> Epilogue<'a, T> {
    /// Checks the epilogue against the output.
    pub(crate) fn check(&self, op: &'static str, out: &Spec, channels: usize) -> Result<(), Error> {
        if let Some(bias) = self.bias.filter(|bias| bias.len() != channels) {
            let problem = format!(
                "bias has {} values, the output {:?} has {channels} channels",
                bias.len(),
                out.dims()
            );
            return Err(Error::Shape { op, problem });
        }
        if let Some(residual) = self.residual.filter(|residual| residual.dims() != out.dims()) {
            let problem =
                format!("residual {:?} and output {:?} differ in shape", residual.dims(), out.dims());
            return Err(Error::Shape { op, problem });
        }
        if T::zero().activate(self.act).is_none() {
            return Err(Error::Unsupported { op, what: format!("activation {} in {}", self.act, T::FORMAT) });
        }
        Ok(())
    }

    /// The epilogue in the kernel's orientation.
    pub(crate) fn for_kernel(
        &self,
        spec_of: impl Fn(&Layout) -> MatSpec,
        bias: impl FnOnce(&'a [T]) -> kernel::Bias<'a, T>,
    ) -> kernel::Epilogue<'a, T> {
        let residual = self.residual.map(|view| {
            let mut spec = spec_of(view.layout());
            spec.start += view.start() as isize;
            MatRef::new(view.data(), spec).expect("a view lies inside its slice")
        });
        kernel::Epilogue {
            scale: self.scale,
            bias: self.bias.map_or(kernel::Bias::None, bias),
            residual,
            act: self.act,
        }
    }

    /// The definition for one element: `t` is the sum, `bias` and `residual` what belongs to its place.
    pub(crate) fn apply(&self, t: T, bias: Option<T>, residual: Option<T>) -> T {
        let t = self.scale.map_or(t, |scale| t * scale);
        let t = bias.map_or(t, |bias| t + bias);
        let t = residual.map_or(t, |residual| t + residual);
        t.activate(self.act).expect("checked when the run began")
    }
}
