//! The two innermost loops of a matmul: one block of packed lhs by one block of packed rhs, one segment of k.

use crate::isa::Isa;
use crate::mat::{PANEL_COLS, Panel, TileMut};
use crate::pack::Form;
#[cfg(target_arch = "x86_64")]
use crate::pack::guard;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Bf16x2, I8x4, WideBf16x2, WithToken, x86::Avx512Dot};
use crate::simd::{Simd, Unit, WithSimd};

use super::{Place, Ukernel, Write};

/// One segment of both operands, packed for the kernel that reads them.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Panels of the tile's rows as [`crate::pack::pack`] wrote them: `[ceil(m / MR)][units of k, then the tail][MR]`.
    pub lhs: &'a [u8],
    /// Panels of the tile's columns: `[ceil(n / NR)][units of k, then the tail][NR]`.
    pub rhs: &'a [u8],
    /// Length of the segment.
    pub kc: usize,
    /// Whether the tile's old values count.
    pub write: Write,
}

/// What sums are kept in.
pub trait Acc: num_traits::Zero + bytemuck::Pod + Send + Sync + std::fmt::Debug {
    /// `self + other`; of floats rounded once, of integers in two's complement.
    fn plus(self, other: Self) -> Self;
    /// Multiplies `block`, packed as `form`, into `dst`. Returns how many pairs of panels took the widening kernel because of their exponents
    /// (see [`crate::pack::guard`]).
    ///
    /// # Panics
    /// If sums of `form` are of another type, the instruction set lacks its kernel, or the panels are shorter than the tile needs.
    fn multiply(isa: Isa, form: Form, block: Block<'_>, dst: &mut TileMut<'_, Self>) -> usize;
}

struct Run<'a, 'b, 't, U: Unit> {
    lhs: &'a [U],
    rhs: &'a [U],
    block: Block<'a>,
    dst: &'b mut TileMut<'t, U::Acc>,
}

impl<'a, 'b, 't, U: Unit> Run<'a, 'b, 't, U> {
    fn new(block: Block<'a>, dst: &'b mut TileMut<'t, U::Acc>) -> Self {
        let (lhs, rhs) = (bytemuck::cast_slice(block.lhs), bytemuck::cast_slice(block.rhs));
        Run { lhs, rhs, block, dst }
    }

    #[inline(always)]
    fn run<S: Ukernel<U>, G: Guard<U, S>>(self, s: S, guard: G) -> usize {
        let Run { lhs, rhs, block, dst } = self;
        let (mr, nr, lines) = (S::MR, S::NR, block.kc.div_ceil(U::K) + U::TAIL);
        let (m, n) = (dst.m(), dst.n());
        let mut wide = 0;
        // LOOP 2: columns in panels of NR. The rhs panel stays in the first-level cache, or streams from the second.
        for j in (0..n).step_by(nr) {
            let width = nr.min(n - j);
            let rhs = &rhs[j * lines..][..lines * nr];
            let mut panel = dst.panel(j, width);
            // LOOP 1: rows in panels of MR.
            for i in (0..m).step_by(mr) {
                let lhs = &lhs[i * lines..][..lines * mr];
                let at = Place { row: i, m: mr.min(m - i), n: width };
                if guard.wide(s, lhs, rhs, &mut panel, at, block.write) {
                    wide += 1;
                } else {
                    s.tile(lhs, rhs, &mut panel, at, block.write);
                }
            }
        }
        wide
    }
}

/// What stands between a pair of panels and their kernel.
trait Guard<U: Unit, S>: Copy {
    /// Multiplies the pair by another kernel, if it must be.
    fn wide(self, s: S, lhs: &[U], rhs: &[U], dst: &mut Panel<'_, U::Acc>, at: Place, write: Write) -> bool;
}

#[derive(Clone, Copy)]
struct NeverWide;

impl<U: Unit, S> Guard<U, S> for NeverWide {
    #[inline(always)]
    fn wide(self, _: S, _: &[U], _: &[U], _: &mut Panel<'_, U::Acc>, _: Place, _: Write) -> bool {
        false
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct WideWhereGuarded;

#[cfg(target_arch = "x86_64")]
impl Guard<Bf16x2, Avx512Dot> for WideWhereGuarded {
    #[inline(always)]
    fn wide(
        self,
        s: Avx512Dot,
        lhs: &[Bf16x2],
        rhs: &[Bf16x2],
        dst: &mut Panel<'_, f32>,
        at: Place,
        write: Write,
    ) -> bool {
        let least = |panel: &[Bf16x2]| panel[panel.len() - 1].0 as i32;
        if guard::allows(least(lhs), least(rhs)) {
            return false;
        }
        let (lhs, rhs): (&[WideBf16x2], &[WideBf16x2]) =
            (bytemuck::cast_slice(lhs), bytemuck::cast_slice(rhs));
        s.tile(lhs, rhs, dst, at, write);
        true
    }
}

/// The units that every token multiplies.
macro_rules! everywhere {
    ($($unit:ty),*) => {$(
        impl WithSimd for Run<'_, '_, '_, $unit> {
            type Output = usize;
            #[inline(always)]
            fn with_simd<S: Simd>(self, s: S) -> usize {
                self.run(s, NeverWide)
            }
        }
    )*};
}
everywhere!(f32, f64, crate::simd::I16x2);

#[cfg(target_arch = "x86_64")]
impl WithToken<Avx512Dot> for Run<'_, '_, '_, I8x4> {
    type Output = usize;
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) -> usize {
        self.run(s, NeverWide)
    }
}

#[cfg(target_arch = "x86_64")]
impl WithToken<Avx512Dot> for Run<'_, '_, '_, Bf16x2> {
    type Output = usize;
    #[inline(always)]
    fn with_token(self, s: Avx512Dot) -> usize {
        self.run(s, WideWhereGuarded)
    }
}

/// The token of panels of pairs and fours.
#[cfg(target_arch = "x86_64")]
fn dots(isa: Isa) -> Avx512Dot {
    isa.dots().expect("the registry has no dot products elsewhere")
}

impl Acc for f32 {
    #[inline(always)]
    fn plus(self, other: f32) -> f32 {
        self + other
    }
    fn multiply(isa: Isa, form: Form, block: Block<'_>, dst: &mut TileMut<'_, f32>) -> usize {
        match form {
            Form::F32 => isa.dispatch_but_dots(Run::<f32>::new(block, dst)),
            #[cfg(target_arch = "x86_64")]
            Form::Bf16x2 => dots(isa).vectorize(Run::<Bf16x2>::new(block, dst)),
            _ => unreachable!("the registry has no f32 kernel for {form:?} on {isa}"),
        }
    }
}

impl Acc for f64 {
    #[inline(always)]
    fn plus(self, other: f64) -> f64 {
        self + other
    }
    fn multiply(isa: Isa, form: Form, block: Block<'_>, dst: &mut TileMut<'_, f64>) -> usize {
        assert_eq!(form, Form::F64, "f64 sums come from f64 panels");
        isa.dispatch_but_dots(Run::<f64>::new(block, dst))
    }
}

impl Acc for i32 {
    #[inline(always)]
    fn plus(self, other: i32) -> i32 {
        self.wrapping_add(other)
    }
    fn multiply(isa: Isa, form: Form, block: Block<'_>, dst: &mut TileMut<'_, i32>) -> usize {
        match form {
            Form::I16x2 => isa.dispatch(Run::<crate::simd::I16x2>::new(block, dst)),
            #[cfg(target_arch = "x86_64")]
            Form::I8x4 => dots(isa).vectorize(Run::<I8x4>::new(block, dst)),
            _ => unreachable!("the registry has no i32 kernel for {form:?} on {isa}"),
        }
    }
}

/// Adds the sum of one segment to the tile (N2). `sums` is row-major, without gaps.
///
/// # Panics
/// If `sums` has fewer elements than the tile.
pub fn add_segment<T: Acc>(sums: &[T], dst: &mut TileMut<'_, T>) {
    let (m, n) = (dst.m(), dst.n());
    for j in (0..n).step_by(PANEL_COLS) {
        let width = PANEL_COLS.min(n - j);
        let mut panel = dst.panel(j, width);
        for i in 0..m {
            let mut row = [T::zero(); PANEL_COLS];
            panel.read_row(i, &mut row);
            for (value, &sum) in row[..width].iter_mut().zip(&sums[i * n + j..]) {
                *value = value.plus(sum);
            }
            panel.write_row(i, &row);
        }
    }
}
