//! Tensors from one format to another.

use tile25_kernels::cast as kernel;
use tile25_kernels::format::{Element, Format, Narrow, Target};
use tile25_kernels::pack::Zero;

use crate::backend;
use crate::context::Context;
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::operand::{check_blocks, check_zero};
use crate::view::{View, ViewMut};

const OP: &str = "cast";

/// How codes become others. A value is rounded once, from its exact meaning to the new format (N7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cast {
    /// Rounding and overflow. Element `i` in row-major order has index `i` for stochastic rounding.
    pub narrow: Narrow,
    /// Of a source of 8-bit integers: it means `(code - zero_point) * from_scale`, in f32.
    pub from_scale: f32,
    /// Of a result of 8-bit integers: it is `value / to_scale` in f32, rounded, plus the zero point, clamped. A NaN becomes the zero point.
    pub to_scale: f32,
}

impl Default for Cast {
    fn default() -> Self {
        Cast { narrow: Narrow::default(), from_scale: 1.0, to_scale: 1.0 }
    }
}

impl Cast {
    /// Casts `src` to `dst`: tensors of one shape, each row-major without gaps. Any format but i32. f64 to 8-bit integers goes through an f32 rounded to odd.
    ///
    /// # Errors
    /// [`Error::Shape`] for shapes that differ or zero points that are none, [`Error::Unsupported`] for gaps, other orders and i32. The result is then
    /// untouched.
    ///
    /// ```
    /// use tile25::format::{CFloat, CFloat8E4M3, Format};
    /// use tile25::{Context, Tensor, cast::Cast};
    /// let x = Tensor::from_fn([2, 3], |i| i as f32 / 8.0)?;
    /// let format = Format::CFloat8E4M3(CFloat::new(11).expect("a bias of six bits"));
    /// let mut codes = Tensor::<CFloat8E4M3>::zeros([2, 3])?.with_format(format)?;
    /// Cast::default().run(x.view(), codes.view_mut(), &Context::default())?;
    /// let mut back = Tensor::<f32>::zeros([2, 3])?;
    /// Cast::default().run(codes.view(), back.view_mut(), &Context::default())?;
    /// assert_eq!(back.as_slice(), x.as_slice());
    /// # Ok::<(), tile25::Error>(())
    /// ```
    pub fn run<A: Element, B: Element>(
        &self,
        src: View<'_, A>,
        dst: ViewMut<'_, B>,
        context: &Context<'_>,
    ) -> Result<(), Error> {
        if src.dims() != dst.dims() {
            let problem = format!("source {:?} and result {:?} differ in shape", src.dims(), dst.dims());
            return Err(Error::Shape { op: OP, problem });
        }
        let row_major = Layout::contiguous(src.dims())?;
        for (name, layout) in [("source", src.layout()), ("result", dst.layout())] {
            if *layout != row_major && !layout.is_empty() {
                return Err(Error::Unsupported { op: OP, what: format!("a {name} of {layout:?}") });
            }
        }
        let (from, to) = (src.format(), dst.spec().format);
        if from == Format::I32 || to == Format::I32 {
            return Err(Error::Unsupported { op: OP, what: "i32".into() });
        }
        check_blocks(OP, "source", &src, false)?;
        check_zero(OP, "source", src.zero(), from, None)?;
        check_zero(OP, "result", Zero::Tensor(dst.zero()), to, None)?;
        let Zero::Tensor(zero) = src.zero() else { unreachable!("checked") };
        let (len, target) = (row_major.len(), Target::new(to, self.narrow, dst.zero()));
        let cast =
            kernel::Cast { from, from_scale: (self.from_scale, zero), target, to_scale: self.to_scale };
        let (first, to_first) = (src.start(), dst.start());
        let dst = &mut dst.into_data()[to_first..to_first + len];
        backend::cast::run(cast, context.isa, &src.data()[first..first + len], dst, &context.threads);
        Ok(())
    }
}

/// [`Cast::run`] with the default [`Cast`] and [`Context`]: to nearest, overflow as IEEE 754 has it.
///
/// # Errors
/// As there.
pub fn cast<A: Element, B: Element>(src: View<'_, A>, dst: ViewMut<'_, B>) -> Result<(), Error> {
    Cast::default().run(src, dst, &Context::default())
}
