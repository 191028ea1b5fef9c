//! A tensor as training keeps it: computed in f32, stored in a format of fewer bits.

use tile25::bias::{Criterion, choose};
use tile25::cast::Cast;
use tile25::format::{Narrow, Rounding};
use tile25::{Context, Element, Error, Format, Tensor, View};

/// The codes, with the bias that suits them, and the values that they mean.
pub(crate) struct Kept<T> {
    /// What was computed; once kept, what the codes mean.
    pub(crate) wide: Tensor<f32>,
    codes: Tensor<T>,
    format: Format,
}

impl<T: Element> Kept<T> {
    pub(crate) fn zeros(dims: &[usize]) -> Result<Self, Error> {
        Ok(Kept { wide: Tensor::zeros(dims)?, codes: Tensor::zeros(dims)?, format: T::FORMAT })
    }

    /// Chooses the bias, where the format has one, and rounds what was computed.
    pub(crate) fn keep(&mut self, rounding: Rounding, context: &Context<'_>) -> Result<(), Error> {
        self.format = choose(T::FORMAT, self.wide.as_slice(), Criterion::LargestFits);
        let cast = Cast { narrow: Narrow { rounding, ..Narrow::default() }, ..Cast::default() };
        cast.run(self.wide.view(), self.codes.view_mut().with_format(self.format)?, context)?;
        Cast::default().run(self.codes.view().with_format(self.format)?, self.wide.view_mut(), context)
    }

    /// The codes.
    pub(crate) fn view(&self) -> Result<View<'_, T>, Error> {
        self.codes.view().with_format(self.format)
    }

    /// The first `n` codes as a row.
    pub(crate) fn first(&self, n: usize) -> Result<View<'_, T>, Error> {
        View::new(&self.codes.as_slice()[..n], [1, n])?.with_format(self.format)
    }

    /// The same memory as rows of `cols` codes.
    pub(crate) fn rows(&self, cols: usize) -> Result<View<'_, T>, Error> {
        let codes = self.codes.as_slice();
        View::new(codes, [codes.len() / cols, cols])?.with_format(self.format)
    }
}
