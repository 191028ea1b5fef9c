//! Products give the same bits by other kernels and other operands kept, on every instruction set that has them. Apart from the library, which is then compiled once.

mod dots {
    use tile25_kernels::axis::{Axis, Window};
    use tile25_kernels::buf::Buf;
    use tile25_kernels::format::{Format, Words};
    use tile25_kernels::gemm::{Acc, Block, Write};
    use tile25_kernels::mat::{MatMut, MatSpec, Places};
    use tile25_kernels::pack::{Form, Operand, Side, Zero, pack};
    use tile25_kernels::registry::kernels_of;
    use tile25_kernels::{Isa, KC};

    /// Sums of `m` x `n` of bf16 by the kernel of `form`, columns of the result `apart`, and how many pairs of panels were widened.
    fn sums(
        isa: Isa,
        form: Form,
        [m, n, k]: [usize; 3],
        codes: [&[u16]; 2],
        apart: usize,
        write: Write,
    ) -> (Vec<f32>, usize) {
        let kernel = kernels_of(isa).find(|kernel| kernel.form == form).expect("a kernel");
        let panels = [(Side::Lhs, m, kernel.mr, codes[0]), (Side::Rhs, n, kernel.nr, codes[1])].map(
            |(side, x, width, codes)| {
                let window = Window::plain(0, Axis::strided(x, k as isize), Axis::strided(k, 1));
                let words = Words::U16(codes);
                let operand = Operand { words, format: Format::Bf16, zero: Zero::Tensor(0), blocks: None };
                let bytes = form.packed_bytes(x, k, width);
                let mut out = Buf::zeroed(bytes);
                pack(isa, form, side, &window, operand, 0..x, 0..k, width, out.as_mut_slice(bytes));
                out
            },
        );
        let spec = MatSpec {
            start: 0,
            batch: Axis::strided(1, 0),
            rows: Axis::strided(m, (n * apart) as isize),
            cols: Axis::strided(n, apart as isize),
        };
        let mut out = vec![0.25f32; m * n * apart];
        let places = Places::new(spec);
        let mut whole = MatMut::new(&mut out, 0, &places).expect("no two elements share a place");
        let block = Block {
            lhs: panels[0].as_slice(panels[0].bytes()),
            rhs: panels[1].as_slice(panels[1].bytes()),
            kc: k,
            write,
        };
        let wide = f32::multiply(isa, form, block, &mut whole.tile(0, 0..m, 0..n));
        (out, wide)
    }

    /// Whatever a plan takes on this processor.
    #[test]
    fn dot_products_of_bf16_are_two_multiply_adds() {
        let dots = |isa: &Isa| kernels_of(*isa).any(|kernel| kernel.form == Form::Bf16x2);
        let Some(isa) = Isa::available().find(dots) else { return };
        let shape @ [m, n, k] = [19, 70, KC - 3];
        for (exponent, all) in [(0, false), (-80, true)] {
            let code = |i: usize| {
                let value =
                    ((i * 7919) % 255 + 128) as f32 / 256.0 * if i.is_multiple_of(3) { -1.0 } else { 1.0 };
                ((value * 2f32.powi(exponent)).to_bits() >> 16) as u16
            };
            let codes: Vec<u16> = (0..m.max(n) * k).map(code).collect();
            for (apart, write) in [(1, Write::Replace), (1, Write::Add), (3, Write::Replace), (3, Write::Add)]
            {
                let [(want, _), (got, wide)] = [Form::F32, Form::Bf16x2]
                    .map(|form| sums(isa, form, shape, [&codes, &codes], apart, write));
                let same = want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "2^{exponent}, {apart} apart, {write:?}");
                assert_eq!(wide > 0, all, "2^{exponent}");
            }
        }
    }
}

mod kept {
    use tile25_kernels::axis::Axis;
    use tile25_kernels::gemm::{Blocking, Lies, Product, Real, Source};
    use tile25_kernels::mat::{MatMut, MatSpec, Matrices, Places};
    use tile25_kernels::{Isa, KC};

    /// `lhs rhs` with the lhs read in place, or kept.
    fn product<T: Real>(isa: Isa, [m, n, k]: [usize; 3], data: [&[T]; 2], keeps: bool) -> Vec<T> {
        let row_major = |rows: usize, cols: usize, stride: usize| {
            let (rows, cols) = (Axis::strided(rows, stride as isize), Axis::strided(cols, 1));
            Places::new(MatSpec { start: 0, batch: Axis::strided(1, 0), rows, cols })
        };
        let [lhs_places, rhs_places, dst_places] =
            [row_major(m, k, k + 3), row_major(k, n, n), row_major(m, n, n)];
        let [lhs, rhs] = [(data[0], &lhs_places), (data[1], &rhs_places)]
            .map(|(data, places)| Source::InPlace(Matrices::new(data, 0, places).expect("in bounds")));
        let mut out = vec![T::zero(); m * n];
        let kernel = tile25_kernels::registry::kernels_of(isa)
            .find(|kernel| kernel.form == T::FORM)
            .expect("a kernel");
        let (mr, nr) = (kernel.mr, kernel.nr);
        let (lhs_lies, rhs_lies) = (Lies::Strided([k as isize + 3, 1]), Lies::Strided([1, n as isize]));
        let mut blocking = Blocking::new([m, n, k], size_of::<T>(), [mr, nr], lhs_lies, rhs_lies);
        if keeps {
            blocking = blocking.keeping_lhs(m, mr);
        }
        let mut scratch = blocking.scratch().map(|elements| vec![T::zero(); elements]);
        let [lhs_scratch, rhs_scratch] = &mut scratch;
        let dst = MatMut::new(&mut out, 0, &dst_places).expect("no two elements share a place");
        let scratch = [&mut lhs_scratch[..], &mut rhs_scratch[..]];
        let (lhs, rhs) = (&lhs, &rhs);
        T::product(
            isa,
            &mut Product { lhs, rhs, k, dst, add: false, epilogue: None, blocking: &blocking, scratch },
        );
        out
    }

    #[test]
    fn a_kept_lhs_gives_what_one_in_place_gives() {
        fn check<T: Real>(of: impl Fn(usize) -> T) {
            for shape @ [m, n, k] in [[29, 100, KC + 13], [16, 48, 24], [8, 7, 9], [203, 20, KC]] {
                let data: Vec<T> = (0..(m * (k + 3)).max(k * n)).map(&of).collect();
                for isa in Isa::available() {
                    let [in_place, kept] =
                        [false, true].map(|keeps| product(isa, shape, [&data, &data], keeps));
                    let [in_place, kept]: [&[u8]; 2] =
                        [bytemuck::cast_slice(&in_place), bytemuck::cast_slice(&kept)];
                    assert!(in_place == kept, "{shape:?} on {isa}");
                }
            }
        }
        check(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5);
        check(|i| ((i * 7919) % 1009) as f64 / 1009.0 - 0.5);
    }
}
