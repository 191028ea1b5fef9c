//! exp, tanh, erf and the activations by themselves, with the bits that epilogues have (N6).

pub use tile25_kernels::math::Function;

use tile25_kernels::Isa;

/// Replaces each value `x` by `function(x)`, on the calling thread. Formulas and errors stand at the [`Function`]s.
///
/// ```
/// use tile25::math::{Function, map};
/// let mut values = [0.0, 1.0, f32::NEG_INFINITY];
/// map(Function::Exp, &mut values);
/// assert_eq!(values, [1.0, std::f32::consts::E, 0.0]);
/// ```
pub fn map(function: Function, values: &mut [f32]) {
    tile25_kernels::math::map(Isa::detect(), function, values);
}
