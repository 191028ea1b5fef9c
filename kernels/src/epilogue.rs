//! What happens to a finished sum before it is a result (N5): scale, bias, residual, activation, in that order.

use std::fmt;

use crate::format::Element;
use crate::mat::{MatRef, PANEL_COLS, TileMut};
use crate::simd::Lanes;

/// An activation function. Formulas and errors: [`crate::math`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Act {
    /// The identity.
    #[default]
    None,
    /// `max(0, x)`; a NaN stays, -0 stays.
    Relu,
    /// `x (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `x sigmoid(x)`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::None => "none",
            Act::Relu => "relu",
            Act::Gelu => "gelu",
            Act::Silu => "silu",
            Act::Tanh => "tanh",
            Act::Sigmoid => "sigmoid",
        })
    }
}

/// A bias over the rows or the columns of the matrix, the same in every matrix of the batch or one for each.
#[derive(Clone, Copy, Debug)]
pub enum Bias<'a, T> {
    /// None.
    None,
    /// Element `batch * step + row` is added to a row.
    Row(&'a [T], usize),
    /// Element `batch * step + col` is added to a column.
    Col(&'a [T], usize),
}

/// The epilogue of one matrix product, in the kernel's orientation.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// Multiplies the sum, if any.
    pub scale: Option<T>,
    /// Added next.
    pub bias: Bias<'a, T>,
    /// Added next, element by element.
    pub residual: Option<MatRef<'a, T>>,
    /// Applied last.
    pub act: Act,
}

impl<T> Epilogue<'_, T> {
    /// Whether the sum is the result.
    pub fn is_identity(&self) -> bool {
        self.scale.is_none()
            && matches!(self.bias, Bias::None)
            && self.residual.is_none()
            && self.act == Act::None
    }
}

/// Applies `epilogue` to every element of `tile`.
///
/// # Panics
/// If the bias or the residual is smaller than the matrix, or the format lacks the activation.
#[inline(always)]
pub fn apply<T: Element, S: Lanes<T>>(
    s: S,
    epilogue: &Epilogue<'_, T>,
    tile: &mut TileMut<'_, T>,
    activate: impl Fn(S, Act, S::V) -> Option<S::V> + Copy,
) {
    if epilogue.is_identity() {
        return;
    }
    let rect = tile.rect().clone();
    let (m, n) = (tile.m(), tile.n());
    for j in (0..n).step_by(PANEL_COLS) {
        let width = PANEL_COLS.min(n - j);
        let col = rect.cols.start + j;
        let mut panel = tile.panel(j, width);
        for i in 0..m {
            let row = rect.rows.start + i;
            let mut residual = [T::zero(); PANEL_COLS];
            if let Some(view) = &epilogue.residual {
                view.read_row(rect.batch, row, col, &mut residual[..width]);
            }
            let mut values = [T::zero(); PANEL_COLS];
            match panel.row_slice(i) {
                Some(slice) => values[..width].copy_from_slice(slice),
                None => panel.read_row(i, &mut values),
            }
            // The buffers are whole vectors long: lanes beyond `width` are computed and dropped.
            for at in (0..width).step_by(S::LANES) {
                let mut v = s.load(&values[at..]);
                if let Some(scale) = epilogue.scale {
                    v = s.mul(v, s.splat(scale));
                }
                v = match epilogue.bias {
                    Bias::None => v,
                    Bias::Row(bias, step) => s.add(v, s.splat(bias[rect.batch * step + row])),
                    Bias::Col(bias, step) => {
                        let here = &bias[rect.batch * step + col + at..];
                        s.add(v, s.load_first_n(here, S::LANES.min(width - at)))
                    }
                };
                if epilogue.residual.is_some() {
                    v = s.add(v, s.load(&residual[at..]));
                }
                v = activate(s, epilogue.act, v).expect("the plan refuses activations that the format lacks");
                s.store(&mut values[at..], v);
            }
            match panel.row_slice(i) {
                Some(slice) => slice.copy_from_slice(&values[..width]),
                None => panel.write_row(i, &values),
            }
        }
    }
}
