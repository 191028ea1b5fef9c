//! Every code of every format at every bias; nearest codes against an exact oracle; stochastic rounding against its probabilities.

use super::*;

/// Every narrow float format, configurable ones at each bias and reading.
fn formats(biases: impl Iterator<Item = u8> + Clone) -> Vec<Format> {
    let mut all = vec![Format::Bf16, Format::F16, Format::CFloat16Uhp, Format::Fp8E4M3, Format::Fp8E5M2];
    for bias in biases {
        for subnormals in [Subnormals::Dojo, Subnormals::Ieee] {
            let c = CFloat::new(bias).unwrap().with_subnormals(subnormals);
            all.extend([Format::CFloat8E4M3(c), Format::CFloat8E5M2(c), Format::CFloat16Shp(c)]);
        }
    }
    all
}

/// Mantissa bits, bias, exponent code of specials, written down apart from the codec.
fn description(format: Format) -> (u32, i32, Option<u32>) {
    match format {
        Format::Bf16 => (7, 127, Some(255)),
        Format::F16 => (10, 15, Some(31)),
        Format::CFloat8E4M3(c) => (3, c.bias().into(), None),
        Format::CFloat8E5M2(c) => (2, c.bias().into(), None),
        Format::CFloat16Shp(c) => (10, c.bias().into(), None),
        Format::CFloat16Uhp => (10, 31, Some(63)),
        Format::Fp8E4M3 => (3, 7, None),
        Format::Fp8E5M2 => (2, 15, Some(31)),
        other => panic!("{other} is no narrow float"),
    }
}

fn codes(format: Format) -> std::ops::Range<u32> {
    0..1 << (8 * format.bytes())
}

fn sign_of(format: Format) -> u32 {
    if format == Format::CFloat16Uhp { 0 } else { 1 << (8 * format.bytes() - 1) }
}

/// The meaning of a code, by the definition and in f64.
fn meaning(format: Format, code: u32) -> f64 {
    let (mantissa_bits, bias, special) = description(format);
    let magnitude = code & !sign_of(format);
    let (e, m) = (magnitude >> mantissa_bits, f64::from(magnitude & ((1 << mantissa_bits) - 1)));
    let fraction = m / f64::from(1 << mantissa_bits);
    let sign = if code & sign_of(format) != 0 { -1.0 } else { 1.0 };
    if format == Format::Fp8E4M3 && magnitude == 0x7f || special == Some(e) && m > 0.0 {
        return f64::NAN;
    }
    if special == Some(e) {
        return sign * f64::INFINITY;
    }
    let letter = match format {
        Format::CFloat8E4M3(c) | Format::CFloat8E5M2(c) | Format::CFloat16Shp(c) => {
            c.subnormals == Subnormals::Dojo
        }
        _ => false,
    };
    match e {
        0 if format == Format::CFloat16Uhp => 0.0,
        0 if letter => sign * fraction * 2f64.powi(-bias),
        0 => sign * fraction * 2f64.powi(1 - bias),
        e => sign * (1.0 + fraction) * 2f64.powi(e as i32 - bias),
    }
}

#[test]
fn every_code_means_what_the_definition_says_and_comes_back() {
    for format in formats(0..=CFloat::MAX_BIAS) {
        let codec = Codec::of(format).unwrap();
        let top = codec.top(Overflow::Ieee);
        for code in codes(format) {
            let (got, want) = (f64::from(codec.widen(code)), meaning(format, code));
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "{format} {code:#x}: {got} {want}");
            let back = codec.nearest(got as f32, top);
            let flushed = format == Format::CFloat16Uhp && code < 0x400;
            if got.is_nan() {
                assert!(meaning(format, back).is_nan());
            } else if !flushed {
                assert_eq!(back, code, "{format} {got}");
                assert_eq!(codec.stochastic(got as f32, top, u32::MAX), code, "{format} {got}");
            }
        }
    }
}

/// Nonnegative finite values with their codes, ascending.
fn ladder(format: Format) -> Vec<(f64, u32)> {
    let flushed = |code| format == Format::CFloat16Uhp && (1..0x400).contains(&code);
    codes(format)
        .filter(|code| code & sign_of(format) == 0 && !flushed(*code))
        .map(|code| (meaning(format, code), code))
        .filter(|(value, _)| value.is_finite())
        .collect()
}

/// The nearest value by search. All halves of neighbouring values are exact in f64.
fn oracle(format: Format, ladder: &[(f64, u32)], x: f32, overflow: Overflow) -> f64 {
    let (largest, previous) = (ladder[ladder.len() - 1], ladder[ladder.len() - 2]);
    let clamps = matches!(format, Format::CFloat8E4M3(_) | Format::CFloat8E5M2(_) | Format::CFloat16Shp(_));
    if x.is_nan() {
        return if clamps { largest.0 } else { f64::NAN };
    }
    let negative = x.is_sign_negative();
    if negative && sign_of(format) == 0 {
        return 0.0;
    }
    let size = f64::from(x.abs());
    let middle_above = largest.0 + (largest.0 - previous.0) / 2.0;
    let beyond = size > middle_above || size == middle_above && largest.1 % 2 == 1;
    let value = if beyond && !clamps && overflow == Overflow::Ieee {
        if format == Format::Fp8E4M3 { f64::NAN } else { f64::INFINITY }
    } else if size >= largest.0 {
        largest.0
    } else {
        let above = ladder.partition_point(|&(value, _)| value <= size);
        let ((low, low_code), (high, _)) = (ladder[above - 1], ladder[above]);
        let flushes = format == Format::CFloat16Uhp && low == 0.0;
        // What is flushed is flushed after rounding to eleven bits.
        let middle = if flushes { high - 2f64.powi(-41) } else { low + (high - low) / 2.0 };
        if size > middle || size == middle && (low_code % 2 == 1 || flushes) { high } else { low }
    };
    if negative { -value } else { value }
}

#[test]
fn nearest_is_nearest() {
    for format in formats([0, 1, 7, 15, 31, 62, 63].into_iter()) {
        let codec = Codec::of(format).unwrap();
        let ladder = ladder(format);
        let check = |x: f32| {
            for overflow in [Overflow::Ieee, Overflow::Saturate] {
                let code = codec.nearest(x, codec.top(overflow));
                let (got, want) = (meaning(format, code), oracle(format, &ladder, x, overflow));
                let same = got == want && got.is_sign_negative() == want.is_sign_negative();
                assert!(same || got.is_nan() && want.is_nan(), "{format} of {x:e}: {got:e}, not {want:e}");
            }
        };
        // Every value, every halfway point, and the f32 beside them.
        for pair in ladder.windows(2) {
            for point in [pair[0].0, pair[0].0 + (pair[1].0 - pair[0].0) / 2.0, pair[1].0] {
                let x = point as f32;
                for x in [x.next_down(), x, x.next_up()] {
                    check(x);
                    check(-x);
                }
            }
        }
        let top = ladder[ladder.len() - 1].0 as f32;
        for factor in [1.01, 1.03125, 1.0625, 1.125, 2.0, f32::MAX, f32::INFINITY, f32::NAN] {
            check(top * factor);
            check(-top * factor);
        }
        // A dense sample of all f32: every exponent, both signs.
        for bits in (0..=u32::MAX).step_by(40_009) {
            check(f32::from_bits(bits));
        }
    }
}

#[test]
fn half_floats_are_those_of_the_crate_half() {
    let (f16, bf16) = (Codec::of(Format::F16).unwrap(), Codec::of(Format::Bf16).unwrap());
    for bits in (0..=u32::MAX).step_by(977) {
        let x = f32::from_bits(bits);
        if x.is_nan() {
            continue;
        }
        assert_eq!(f16.nearest(x, f16.top(Overflow::Ieee)), half::f16::from_f32(x).to_bits().into(), "{x:e}");
        let want = half::bf16::from_f32(x).to_bits();
        assert_eq!(bf16.nearest(x, bf16.top(Overflow::Ieee)), want.into(), "{x:e}");
    }
}

/// With `n` draws at fixed seeds the share of upper codes lies within five standard deviations of the value's place between its neighbours:
/// at most 0.018 off.
#[test]
fn stochastic_rounding_is_unbiased() {
    let n = 20_000u32;
    for format in formats([0, 7, 15, 63].into_iter()) {
        let codec = Codec::of(format).unwrap();
        let top = codec.top(Overflow::Ieee);
        let ladder = ladder(format);
        let step = (ladder.len() / 60).max(1);
        for (at, pair) in ladder.windows(2).enumerate().filter(|(at, _)| at % step == 0 || *at < 4) {
            let ((low, low_code), (high, high_code)) = (pair[0], pair[1]);
            for place in [0.125, 0.3, 0.5, 0.9] {
                let x = (low + (high - low) * place) as f32;
                let place = (f64::from(x) - low) / (high - low);
                let mut up = 0;
                for i in 0..n {
                    let code = codec.stochastic(x, top, random_bits(at as u64, i.into()));
                    assert!(code == low_code || code == high_code, "{format}: {x:e} became {code:#x}");
                    up += u32::from(code == high_code);
                }
                let share = f64::from(up) / f64::from(n);
                let deviation = (place * (1.0 - place) / f64::from(n)).sqrt();
                assert!((share - place).abs() <= 5.0 * deviation, "{format} {x:e}: {share}, not {place}");
            }
        }
    }
}
