//! The bias of a configurable float for a tensor.

use tile25_kernels::format::{CFloat, Codec, Format, Overflow};

/// What a bias is chosen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Criterion {
    /// The largest finite magnitude just fits: nothing is clamped, and no larger bias does that.
    #[default]
    LargestFits,
    /// The sum of squared rounding errors is least; of several such biases the largest. Outliers may be clamped.
    LeastSquares,
}

/// The same format with the bias that suits `values` best. NaN and Inf have no say; a tensor of zeros gets the largest bias. A format without a bias comes
/// back as it is.
///
/// ```
/// use tile25::bias::{Criterion, choose};
/// use tile25::format::{CFloat, CFloat8E4M3, Element, Format};
/// // 1.875 2^(15 - 15) = 1.875 is the largest value at bias 15.
/// let Format::CFloat8E4M3(chosen) = choose(CFloat8E4M3::FORMAT, &[0.1, -1.8], Criterion::LargestFits) else { unreachable!() };
/// assert_eq!(chosen.bias(), 15);
/// ```
pub fn choose(format: Format, values: &[f32], criterion: Criterion) -> Format {
    let with = |bias: u8| {
        let set =
            |old: CFloat| CFloat::new(bias).expect("a bias of six bits").with_subnormals(old.subnormals);
        match format {
            Format::CFloat8E4M3(old) => Some(Format::CFloat8E4M3(set(old))),
            Format::CFloat8E5M2(old) => Some(Format::CFloat8E5M2(set(old))),
            Format::CFloat16Shp(old) => Some(Format::CFloat16Shp(set(old))),
            _ => None,
        }
    };
    let codec = |format: Format| Codec::of(format).expect("a configurable float");
    let all = (0..=CFloat::MAX_BIAS).rev().filter_map(with);
    let chosen = match criterion {
        Criterion::LargestFits => {
            let finite = values.iter().map(|value| value.abs()).filter(|value| value.is_finite());
            let largest = finite.fold(0.0, f32::max);
            all.into_iter().find(|&format| codec(format).largest() >= largest).or_else(|| with(0))
        }
        Criterion::LeastSquares => {
            let error = |format: Format| -> f64 {
                let codec = codec(format);
                let top = codec.top(Overflow::Saturate);
                let one = |&value: &f32| f64::from(codec.widen(codec.nearest(value, top)) - value).powi(2);
                values.iter().filter(|value| value.is_finite()).map(one).sum()
            };
            let errors = all.map(|format| (error(format), format));
            errors.reduce(|best, next| if next.0 < best.0 { next } else { best }).map(|(_, format)| format)
        }
    };
    chosen.unwrap_or(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bias(format: Format) -> u8 {
        match format {
            Format::CFloat8E4M3(c) | Format::CFloat8E5M2(c) | Format::CFloat16Shp(c) => c.bias(),
            other => panic!("{other} has no bias"),
        }
    }

    #[test]
    fn the_largest_just_fits() {
        let format = Format::CFloat8E5M2(CFloat::new(0).unwrap());
        for (largest, want) in [(1.75, 31), (1.7500001, 30), (0.0, 63), (f32::MAX, 0), (1.75e-30, 63)] {
            assert_eq!(
                bias(choose(format, &[largest / 3.0, -largest, f32::NAN], Criterion::LargestFits)),
                want
            );
        }
    }

    #[test]
    fn least_squares_clamps_an_outlier() {
        let format = Format::CFloat8E4M3(CFloat::new(0).unwrap());
        let mut values: Vec<f32> = (0..5000).map(|i| (i as f32 / 5000.0 - 0.5) * 1e-3).collect();
        values.push(2.0);
        let fits = bias(choose(format, &values, Criterion::LargestFits));
        assert_eq!(fits, 14);
        assert!(bias(choose(format, &values[..5000], Criterion::LeastSquares)) > fits);
        assert_eq!(choose(Format::Bf16, &values, Criterion::LeastSquares), Format::Bf16);
    }
}
