//! The fused multiply-add without hardware, correctly rounded.

/// `a * b + c` in f32, rounded once, from f64 arithmetic alone.
///
/// 1. The product of two 24-bit significands fits in 53 bits: `p` is exact, and never subnormal in f64.
/// 2. TwoSum (Knuth) gives `s + err = p + c` exactly.
/// 3. `s` is rounded to odd: where `err` is not zero and the last bit of `s` is even, step one unit towards `err`.
///    53 >= 2 * 24 + 2, so the cast to f32 rounds as if from the exact sum (Boldo and Melquiond, "Emulation of FMA and
///    correctly rounded sums: proved algorithms using rounding to odd", IEEE TC 57(4), 2008), in the subnormal range too.
///
/// Inf and NaN need no branch: `err` is then a NaN, and no comparison with it holds.
#[inline(always)]
#[expect(clippy::double_comparisons, reason = "a NaN is unequal to 0, but neither above nor below")]
pub fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    let p = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let s = p + c;
    let p_part = s - c;
    let err = (p - p_part) + (c - (s - p_part));
    let bits = s.to_bits();
    let towards = u64::from((err > 0.0) == (s > 0.0));
    let inexact = u64::from(err > 0.0 || err < 0.0);
    // One unit away from zero (+1) where err has the sign of s, towards zero (-1) where not; only from an even last bit.
    let step = (towards.wrapping_mul(2).wrapping_sub(1)).wrapping_mul(inexact & !bits & 1);
    f64::from_bits(bits.wrapping_add(step)) as f32
}

#[cfg(test)]
mod tests {
    use super::fma_f32;

    fn same(a: f32, b: f32, c: f32) {
        let (ours, std) = (fma_f32(a, b, c), a.mul_add(b, c));
        assert!(
            ours.to_bits() == std.to_bits() || (ours.is_nan() && std.is_nan()),
            "fma({a:e}, {b:e}, {c:e}) = {ours:e}, std {std:e}"
        );
    }

    #[test]
    fn rounds_once_on_special_values() {
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            1.0 + f32::EPSILON,
            1.0 - f32::EPSILON / 2.0,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
            f32::from_bits(0x007f_ffff),
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            3.0,
            0.1,
            1.5e-23,
        ];
        for a in special {
            for b in special {
                for c in special {
                    same(a, b, c);
                }
            }
        }
    }

    #[test]
    fn rounds_once_on_random_bits_and_near_cancellation() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32
        };
        for _ in 0..1_000_000 {
            let (a, b) = (f32::from_bits(next()), f32::from_bits(next()));
            same(a, b, f32::from_bits(next()));
            // An addend next to the product: cancellation, halfway cases, results in the subnormal range.
            let near = f32::from_bits((-(a * b)).to_bits().wrapping_add(next() % 5).wrapping_sub(2));
            same(a, b, near);
            // Few significant bits: exact halfway cases are common.
            let few = |x: u32| f32::from_bits(x & 0xff80_f000);
            same(few(next()), few(next()), few(next()));
        }
    }
}
