//! Panels, rows and bands hold what windows and scans say, on every instruction set. Apart from the library, which is then compiled once.

mod panels {
    use std::ops::Range;

    use tile25_kernels::axis::{Axis, COORDS, Dim, NO_BOUND, Window};
    use tile25_kernels::buf::Buf;
    use tile25_kernels::format::{Format, Words};
    use tile25_kernels::pack::{Form, Operand, Side, Zero, pack};

    const ZERO: i32 = 7;

    /// Where element (at, k) of the window lies, unless it is padding.
    fn place(window: &Window, at: usize, k: usize) -> Option<usize> {
        let (xc, kc) = (window.x.cursor(at), window.k.cursor(k));
        let inside = (0..COORDS).all(|d| {
            let coord = window.origin[d] + xc.coords[d] + kc.coords[d];
            (0..window.bounds[d]).contains(&coord)
        });
        inside.then(|| (window.start + xc.offset + kc.offset) as usize)
    }

    /// Every element of every panel of every kernel, looked up one by one.
    fn check(window: &Window, len: usize, x: Range<usize>, k: Range<usize>) {
        let floats: Vec<f32> = (1..=len).map(|i| i as f32).collect();
        let doubles: Vec<f64> = floats.iter().map(|&value| value.into()).collect();
        let codes16: Vec<u16> = (0..len).map(|i| (i * 37 + 0x3f80) as u16).collect();
        let codes8: Vec<u8> = (0..len).map(|i| (i * 37 + i / 256) as u8).collect();
        for kernel in tile25_kernels::registry::kernels() {
            let (words, format) = match kernel.form {
                Form::F32 => (Words::F32(&floats), Format::F32),
                Form::F64 => (Words::F64(&doubles), Format::F64),
                Form::Bf16x2 => (Words::U16(&codes16), Format::Bf16),
                Form::I16x2 | Form::I8x4 => (Words::U8(&codes8), Format::I8),
            };
            let operand = Operand { words, format, zero: Zero::Tensor(ZERO), blocks: None };
            for (side, width) in [(Side::Lhs, kernel.mr), (Side::Rhs, kernel.nr)] {
                let bytes = kernel.form.packed_bytes(x.len(), k.len(), width);
                let mut out = Buf::zeroed(bytes + 8);
                out.as_mut_slice::<u8>(bytes + 8).fill(0xa5);
                let slice = out.as_mut_slice::<u8>(bytes + 8);
                pack(kernel.isa, kernel.form, side, window, operand, x.clone(), k.clone(), width, slice);
                let slice = out.as_slice::<u8>(bytes + 8);
                assert!(slice[bytes..].iter().all(|&byte| byte == 0xa5), "wrote past the panels");
                let lines = bytes / (x.len().div_ceil(width) * width) / kernel.form.unit().0;
                let unit = |at: usize, step: usize| {
                    let lane = at - x.start;
                    ((lane / width) * lines + step / kernel.form.unit().1) * width + lane % width
                };
                for at in x.clone() {
                    for step in 0..k.len() {
                        let place = place(window, at, k.start + step);
                        let u = unit(at, step);
                        let code = |zero: u8| place.map_or(zero, |place| codes8[place]);
                        let same = match kernel.form {
                            Form::F32 => {
                                out.as_slice::<f32>(u + 1)[u] == place.map_or(0.0, |place| floats[place])
                            }
                            Form::F64 => {
                                out.as_slice::<f64>(u + 1)[u] == place.map_or(0.0, |place| doubles[place])
                            }
                            Form::Bf16x2 => {
                                let pair = out.as_slice::<u32>(u + 1)[u];
                                let got = if step % 2 == 0 { pair >> 16 } else { pair & 0xffff };
                                got == place.map_or(0, |place| codes16[place].into())
                            }
                            Form::I16x2 => {
                                let got = out.as_slice::<i16>(2 * u + 2)[2 * u + step % 2];
                                i32::from(got) == i32::from(code(ZERO as u8) as i8) - ZERO
                            }
                            Form::I8x4 => {
                                let got = out.as_slice::<u8>(4 * u + 4)[4 * u + step % 4];
                                got == code(ZERO as u8) ^ if side == Side::Lhs { 0x80 } else { 0 }
                            }
                        };
                        assert!(same, "{}: {side:?} element ({at}, {step}) of {window:?}", kernel.name);
                    }
                    // What fills the last unit counts as nothing.
                    let (_, places, _) = kernel.form.unit();
                    for step in k.len()..k.len().next_multiple_of(places) {
                        let u = unit(at, step);
                        let nothing = match kernel.form {
                            Form::I8x4 => out.as_slice::<u8>(4 * u + 4)[4 * u + step % 4] == 0,
                            Form::I16x2 => out.as_slice::<i16>(2 * u + 2)[2 * u + step % 2] == 0,
                            _ => out.as_slice::<u32>(u + 1)[u] & 0xffff == 0,
                        };
                        assert!(nothing, "{}: {side:?} filler ({at}, {step})", kernel.name);
                    }
                }
            }
        }
    }

    #[test]
    fn panels_hold_what_the_window_says() {
        let len = 2000;
        {
            let rows = Window::plain(3, Axis::strided(30, 40), Axis::strided(37, 1));
            let cols = Window::plain(0, Axis::strided(50, 1), Axis::strided(33, 50));
            let backwards = Window::plain(1900, Axis::strided(30, -41), Axis::strided(37, -1));
            for window in [rows, cols, backwards] {
                check(&window, len, 0..30, 0..33);
                check(&window, len, 5..29, 7..8);
            }
            // A padded, strided, dilated 2-D window, and the same with the indices exchanged.
            for (stride, dilation, pad) in [(1, 1, 1), (2, 1, 3), (1, 3, 2), (3, 2, 7), (1, -1, -2)] {
                let (c, h, w) = (5isize, 9isize, 11isize);
                let dim = |extent, stride, along, step| Dim { extent, stride, along, step };
                let positions = Axis::new(&[dim(4, stride * w, 0, stride), dim(6, stride, 1, stride)]);
                let taps = Axis::new(&[
                    dim(3, dilation * w, 0, dilation),
                    dim(2, dilation, 1, dilation),
                    Dim::plain(c as usize, h * w),
                ]);
                let start = -pad * w - pad;
                let forward = Window {
                    start,
                    x: positions,
                    k: taps,
                    origin: [-pad, -pad, 0],
                    bounds: [h, w, NO_BOUND],
                };
                check(&forward, len, 0..24, 0..30);
                check(&forward, len, 3..20, 4..29);
                let weights = Window { x: taps, k: positions, ..forward };
                check(&weights, len, 0..30, 0..24);
                check(&weights, len, 1..29, 5..23);
            }
        }
    }

    /// All of k of weights whose kernel positions lie inside their channels: as planar networks have them, and of the phases of their gradients; the last word is the last of all.
    #[test]
    fn panels_of_planar_weights_hold_what_the_window_says() {
        let (of_x, of_y) = (70, 50);
        for taps in [
            &[(9, 1)][..],
            &[(2, 6), (2, 2)],
            &[(2, 3)],
            &[],
            &[(27, 1)],
            &[(3, 1), (3, 3)],
            &[(2, 2), (3, 1)],
            &[(3, 9), (3, 3), (2, 1)],
            &[(4, 14), (4, 2)],
        ] {
            let reach = 1 + taps.iter().map(|&(extent, stride)| (extent - 1) * stride).sum::<isize>();
            let dims: Vec<_> =
                taps.iter().map(|&(extent, stride)| Dim::plain(extent as usize, stride)).collect();
            let count: usize = dims.iter().map(|dim| dim.extent).product();
            for (x, channels) in
                [((of_x, reach), (of_y / 5, of_x as isize * reach)), ((of_y, 7 * reach), (7, reach))]
            {
                let k = [&dims[..], &[Dim::plain(channels.0, channels.1)]].concat();
                let window = Window::plain(0, Axis::strided(x.0, x.1), Axis::new(&k));
                let last = (x.0 as isize - 1) * x.1 + (channels.0 as isize - 1) * channels.1 + reach;
                check(&window, last as usize, 0..x.0, 0..count * channels.0);
                check(&window, last as usize, 3..x.0 - 1, 0..count * channels.0);
            }
        }
    }
}

mod rows_of_bytes {
    use std::ops::Range;

    use tile25_kernels::Isa;
    use tile25_kernels::axis::{Axis, COORDS, Dim, NO_BOUND, Window};
    use tile25_kernels::format::{Format, Words};
    use tile25_kernels::pack::{Operand, Zero, pack_rows};

    fn check(window: &Window, data: &[u8], x: Range<usize>, k: Range<usize>) {
        let zeros: Vec<i32> = (0..x.end as i32).map(|i| 3 + i % 50).collect();
        let pitch = k.len().next_multiple_of(4) + 4;
        for isa in Isa::available() {
            let operand = Operand {
                words: Words::U8(data),
                format: Format::U8,
                zero: Zero::PerX(&zeros),
                blocks: None,
            };
            let mut out = vec![0xee; x.len() * pitch];
            pack_rows(isa, window, operand, x.clone(), k.clone(), 0, pitch, &mut out);
            for (row, out) in x.clone().zip(out.chunks(pitch)) {
                for (step, &code) in k.clone().zip(out) {
                    let (xc, kc) = (window.x.cursor(row), window.k.cursor(step));
                    let inside = (0..COORDS).all(|d| {
                        (0..window.bounds[d]).contains(&(window.origin[d] + xc.coords[d] + kc.coords[d]))
                    });
                    let place = (window.start + xc.offset + kc.offset) as usize;
                    let want = if inside { data[place] } else { zeros[row] as u8 };
                    assert_eq!(code, want, "row {row}, k {step} on {isa}");
                }
                let padded = k.len().next_multiple_of(4);
                assert!(out[k.len()..padded].iter().all(|&code| code == 0));
                assert!(out[padded..].iter().all(|&code| code == 0xee), "written beyond a row");
            }
        }
    }

    #[test]
    fn each_code_is_in_its_row() {
        let data: Vec<u8> = (0..70_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let plain = |x, k| Window::plain(5, x, k);
        check(&plain(Axis::strided(37, 300), Axis::strided(299, 1)), &data, 3..37, 0..299);
        check(&plain(Axis::strided(37, 1), Axis::strided(203, 40)), &data, 0..37, 0..203);
        check(&plain(Axis::strided(70, 1), Axis::strided(131, 70)), &data, 1..66, 2..131);
        check(&plain(Axis::strided(19, 3), Axis::strided(66, 70)), &data, 0..19, 0..66);
        // A convolution of 3 x 3 taps over 9 x 7 positions of 20 channels, padded by 1.
        let along = |extent, stride, along| Dim { extent, stride, along, step: 1 };
        let mut window = Window::plain(
            -(7 * 20 + 20),
            Axis::new(&[along(9, 7 * 20, 0), along(7, 20, 1)]),
            Axis::new(&[along(3, 7 * 20, 0), along(3, 20, 1), Dim::plain(20, 1)]),
        );
        (window.origin, window.bounds) = ([0; COORDS], [NO_BOUND; COORDS]);
        (window.origin[0], window.origin[1]) = (-1, -1);
        (window.bounds[0], window.bounds[1]) = (9, 7);
        check(&window, &data, 0..63, 0..180);
        check(&window, &data, 5..50, 7..150);
    }
}

mod bands {
    use tile25_kernels::Isa;
    use tile25_kernels::pack::copy_band;
    use tile25_kernels::scan::{Scan, ScanAxis};

    /// Every layout gives the band that its elements say, on every instruction set.
    #[test]
    fn a_band_has_every_element_in_its_place() {
        let (images, depth, height, width) = (2, 2, 4, 13);
        let value = |at: [usize; 5]| at.iter().fold(1usize, |value, at| value * 16 + at) as f32;
        let axis = |positions, taps, origin, size, stride| ScanAxis {
            positions,
            step: 1,
            taps,
            tap_step: 1,
            origin,
            size,
            stride,
        };
        // Channels, elements from one to the next, those of the three axes, places of a band.
        for (channels, down, strides, pitch) in [
            (19, 1, [4 * 13 * 19, 13 * 19, 19], 19),
            (19, 1, [4 * 13 * 21, 13 * 21, 21], 19),
            (16, 1, [4 * 13 * 21, 13 * 21, 21], 16),
            (5, 1, [4 * 13 * 21, 13 * 21, 21], 16),
            (21, 1, [4 * 13 * 21, 13 * 21, 21], 16),
            (37, 2 * 4 * 13, [4 * 13, 13, 1], 16),
            (19, 1, [4 * 13 * 21, 13 * 21, 21], 1),
            (5, 2 * 4 * 13, [4 * 13, 13, 1], 1),
            (19, 2 * 4 * 13, [4 * 13, 13, 1], 19),
            (16, 2 * 4 * 13, [4 * 13, 13, 1], 16),
            (1, 2 * 4 * 13, [4 * 13, 13, 1], 1),
            (2, 2 * 4 * 13, [4 * 13, 13, 1], 2),
            (3, 2 * 4 * 13, [4 * 13, 13, 1], 3),
            (4, 2 * 4 * 13, [4 * 13, 13, 1], 4),
            (19, 2 * 4 * 13, [4, 1, 8], 24),
        ] {
            let image = 2 * 4 * 13 * 40;
            let mut data = vec![0.0f32; images * image];
            let scan = Scan {
                start: 0,
                images: (images, image as isize),
                channels: (channels, down),
                pitch,
                axes: [
                    axis(depth, 1, 0, depth, strides[0]),
                    axis(height, 3, -1, height, strides[1]),
                    axis(width, 3, -1, width, strides[2]),
                ],
                apart: [false, down != 1, false],
            };
            let place = |at: [usize; 5]| {
                at[0] * image
                    + at[1] * strides[0] as usize
                    + at[2] * strides[1] as usize
                    + at[3] * strides[2] as usize
                    + at[4] * down as usize
            };
            let all = (0..images * depth * height * width * channels).map(|i| {
                [
                    i / (depth * height * width * channels),
                    i / (height * width * channels) % depth,
                    i / (width * channels) % height,
                    i / channels % width,
                    i % channels,
                ]
            });
            for at in all.clone() {
                data[place(at)] = value(at);
            }
            for rows in [0..scan.rows(), 3..9, width - 2..width + 3] {
                for isa in Isa::available() {
                    let band = scan.band(rows.clone());
                    let strip = band.len(pitch);
                    let mut out = vec![f32::NAN; channels.div_ceil(pitch) * strip];
                    copy_band(isa, &scan, &band, &data, 0, &mut out);
                    for line in scan.lines(&band) {
                        for x in 0..band.across.len() {
                            for c in 0..channels {
                                let expected = if line.inside.contains(&x) {
                                    let at = (x - line.inside.start) as isize;
                                    data[(line.offset + at * strides[2] + c as isize * down) as usize]
                                } else {
                                    0.0
                                };
                                let place = (line.place * band.across.len() + x) * pitch;
                                let got = out[c / pitch * strip + place + c % pitch];
                                assert_eq!(got, expected, "{rows:?} {strides:?} {isa}");
                            }
                        }
                    }
                }
            }
        }
    }
}

mod bands_of_codes {
    use tile25_kernels::Isa;
    use tile25_kernels::format::{Codec, Format, Words};
    use tile25_kernels::pack::{Operand, Zero, copy_band, copy_byte_band, copy_wide_band};
    use tile25_kernels::scan::{Scan, ScanAxis};

    /// The band of the codes is that of their values.
    #[test]
    fn a_band_has_the_value_of_every_code() {
        let (height, width) = (4, 70);
        for (channels, down, strides, pitch) in [
            (5, 1, [70 * 5, 5], 5),
            (5, 1, [70 * 6, 6], 5),
            (3, 4 * 70, [70, 1], 3),
            (1, 1, [71, 1], 1),
            (21, 1, [70 * 21, 21], 8),
            (11, 4 * 70, [70, 1], 8),
        ] {
            // No NaN, whose payload the codec does not keep.
            let codes: Vec<u32> = (0..7000u32).map(|i| i.wrapping_mul(2_654_435_761) >> 18).collect();
            let axis = |positions, step, taps, origin, size, stride| ScanAxis {
                positions,
                step,
                taps,
                tap_step: 1,
                origin,
                size,
                stride,
            };
            let scan = Scan {
                start: 0,
                images: (1, 0),
                channels: (channels, down),
                pitch,
                axes: [
                    axis(1, 1, 1, 0, 1, 0),
                    axis(height, 1, 3, -1, height, strides[0]),
                    axis(35, 2, 3, -1, width, strides[1]),
                ],
                apart: [false; 3],
            };
            for format in [Format::Bf16, Format::F16, Format::Fp8E5M2, Format::I8, Format::U8] {
                let (halves, bytes): (Vec<u16>, Vec<u8>) =
                    codes.iter().map(|&code| (code as u16, code as u8 & 0x7b)).unzip();
                let (zero, codec) = (i32::from(format.is_integer()) * 77, Codec::of(format));
                let words = if format.bytes() == 2 { Words::U16(&halves) } else { Words::U8(&bytes) };
                let value = |(&half, &byte): (&u16, &u8)| match codec {
                    None => (i32::from(byte) - zero) as f32,
                    Some(codec) if format.bytes() == 1 => codec.widen(byte.into()),
                    Some(codec) => codec.widen(half.into()),
                };
                let values: Vec<f32> = halves.iter().zip(&bytes).map(value).collect();
                let operand = Operand { words, format, zero: Zero::Tensor(zero), blocks: None };
                for (isa, rows) in Isa::available().flat_map(|isa| [(isa, 0..scan.rows()), (isa, 40..47)]) {
                    let band = scan.band(rows);
                    let len = channels.div_ceil(pitch) * band.len(pitch);
                    let mut out = [vec![7.0f32; len], vec![7.0f32; len]];
                    copy_wide_band(isa, &scan, &band, operand, 2, &mut out[0]);
                    copy_band(isa, &scan, &band, &values, 2, &mut out[1]);
                    let same = out[0].iter().zip(&out[1]).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{format}, strides {strides:?} on {isa}");
                    if let (Words::U8(data), None) = (words, codec) {
                        // The same codes, flipped: what was value v is v + zero, padding another byte.
                        let mut flipped = vec![0xee; len];
                        copy_byte_band(isa, &scan, &band, (data, 2), [0x80, 17], &mut flipped);
                        let want = |&value: &f32| (value as i32 + zero) as u8 ^ 0x80;
                        let padding = |i: usize| out[0][i] == 0.0 && flipped[i] == 17;
                        let unread = |i: usize| out[0][i].to_bits() == 7.0f32.to_bits() && flipped[i] == 0xee;
                        let all = out[0].iter().enumerate();
                        let mut wrong =
                            all.filter(|&(i, value)| flipped[i] != want(value) && !padding(i) && !unread(i));
                        assert_eq!(wrong.next(), None, "strides {strides:?} on {isa}");
                    }
                }
            }
        }
    }
}
