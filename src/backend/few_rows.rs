//! Products of a few rows of bf16 or of 8-bit integers by a matrix, read in place: nothing is read twice that packing would pay for. Weights that were packed before,
//! and integers with a zero point for each row or column, take [`super::dot_parts`] or the tile plan.

use tile25_kernels::epilogue::Finish;
use tile25_kernels::format::{Format, Words, WordsMut};
use tile25_kernels::gemm::{
    Bytes, FEW_ROWS_BF16, FEW_ROWS_BYTES, FEW_ROWS_COLS, Lies, few_rows_bf16, few_rows_bytes,
};
use tile25_kernels::isa::Isa;
use tile25_kernels::mat::{MatMut, Matrices, Places};
use tile25_kernels::pack::Side;

use crate::context::Threads;
use crate::epilogue::{Accum, OfKernel};

use super::fork::{cut, split, within, worth};
use super::parts::{lies, places};
use super::schedule::Gemm;

/// Columns that a thread takes at once: whole strips of the kernels, and as many as these ask for.
const GRAIN: usize = 256;
const _: () = assert!(GRAIN >= FEW_ROWS_COLS);

/// What is known of such a product before it runs.
#[derive(Clone, Debug)]
pub(crate) struct FewRows {
    formats: [Format; 2],
    counts: [usize; 3],
    lhs: Places,
    rhs: Places,
    dst: Places,
}

/// Codes of an operand, where they start, and the code that stands for zero.
pub(crate) type Codes<'a> = (Words<'a>, usize, i32);

impl FewRows {
    /// `None` if the product is another one.
    pub(crate) fn new(gemm: &Gemm, threads: usize) -> Option<FewRows> {
        let (problem, dst) = (&gemm.problem, Places::new(gemm.dst));
        let formats = [problem.formats.lhs, problem.formats.rhs];
        let byte = |format| matches!(format, Format::I8 | Format::U8);
        let (most, sums) = match formats {
            [Format::Bf16, Format::Bf16] => (FEW_ROWS_BF16, Format::F32),
            [lhs, rhs] if byte(lhs) && byte(rhs) => (FEW_ROWS_BYTES, Format::I32),
            _ => return None,
        };
        let plain = [problem.formats.sums, problem.formats.out] == [sums; 2] && dst.band_stride().is_some();
        if !plain || problem.m > most || problem.n < FEW_ROWS_COLS || problem.k == 0 {
            return None;
        }
        let [lhs, rhs] = [(&gemm.lhs, Side::Lhs), (&gemm.rhs, Side::Rhs)]
            .map(|(reader, side)| (reader, lies(reader, sums, sums, side), side));
        if matches!(rhs.1, Lies::Transposed(_)) {
            return None;
        }
        let threads = worth(problem.weight(), threads);
        let counts = cut([problem.batch, 1, problem.n.div_ceil(GRAIN)], [problem.m, problem.n], threads);
        let (lhs, rhs) = (places(lhs.0, lhs.1, lhs.2)?, places(rhs.0, rhs.1, rhs.2)?);
        Some(FewRows { formats, counts, lhs, rhs, dst })
    }

    /// Computes the product into the elements of `dst` from `start` on; integers have no epilogue. Allocates nothing.
    ///
    /// # Panics
    /// If an operand or the result is not what the product was planned for; callers check.
    #[expect(clippy::too_many_arguments, reason = "three tensors and where they begin")]
    pub(crate) fn run(
        &self,
        isa: Isa,
        (lhs, lhs_start, lhs_zero): Codes<'_>,
        (rhs, rhs_start, rhs_zero): Codes<'_>,
        accum: Accum,
        epilogue: Option<&OfKernel<'_>>,
        (dst, start): (WordsMut<'_>, usize),
        threads: &Threads<'_>,
    ) {
        const CHECKED: &str = "the views were checked";
        let add = accum == Accum::Add;
        match (lhs, rhs, dst) {
            (Words::U16(lhs), Words::U16(rhs), WordsMut::F32(dst)) => {
                let lhs = Matrices::new(lhs, lhs_start as isize, &self.lhs).expect(CHECKED);
                let rhs = Matrices::new(rhs, rhs_start as isize, &self.rhs).expect(CHECKED);
                let epilogue = epilogue.map(|epilogue| epilogue.cast::<f32>());
                self.each(dst, start, threads, &|dst, batch| {
                    let (rows, cols) = (dst.rows(), dst.cols());
                    let (a, b) = (lhs.matrix(batch), rhs.matrix(batch));
                    let mut band = dst.band(batch, rows.clone(), cols.clone());
                    few_rows_bf16(isa, a, b, cols.clone(), &mut band, add);
                    if let Some(epilogue) = &epilogue {
                        f32::finish_in_place(isa, epilogue, &mut dst.tile(batch, rows, cols));
                    }
                });
            }
            (Words::U8(lhs), Words::U8(rhs), WordsMut::I32(dst)) => {
                let lhs = Matrices::new(lhs, lhs_start as isize, &self.lhs).expect(CHECKED);
                let rhs = Matrices::new(rhs, rhs_start as isize, &self.rhs).expect(CHECKED);
                let [lhs_signed, rhs_signed] = self.formats.map(|format| format == Format::I8);
                self.each(dst, start, threads, &|dst, batch| {
                    let (rows, cols) = (dst.rows(), dst.cols());
                    let (a, b) = (lhs.matrix(batch), rhs.matrix(batch));
                    let a = Bytes { codes: a, signed: lhs_signed, zero: lhs_zero };
                    let b = Bytes { codes: b, signed: rhs_signed, zero: rhs_zero };
                    few_rows_bytes(isa, a, b, cols.clone(), &mut dst.band(batch, rows, cols), add);
                });
            }
            _ => unreachable!("other operands than planned"),
        }
    }

    /// Does `work` for each product of each part of `dst`: all rows, some columns.
    fn each<T: Copy + Send + Sync>(
        &self,
        dst: &mut [T],
        start: usize,
        threads: &Threads<'_>,
        work: &(impl Fn(&mut MatMut<'_, T>, usize) + Sync),
    ) {
        let dst = MatMut::new(dst, start as isize, &self.dst).expect("the view was checked");
        let part = |mut dst: MatMut<'_, T>| {
            for batch in dst.batch() {
                work(&mut dst, batch);
            }
        };
        within(threads, self.counts, || split(dst, self.counts, [1, 1, GRAIN], &part));
    }
}
