//! The floats that are multiplied as they are, and the way from each kind of work on them to an instruction set.

use crate::KC;
use crate::epilogue::{Finish, Param};
use crate::isa::Isa;
use crate::mat::{Band, MatRef};
use crate::pack::Form;
use crate::simd::{FloatLanes, Simd, Transpose, WithSimd, WithToken};

use super::{
    Acc, ByLine, ByPosition, FewChannels, InTurns, Planes, Positions, Product, SideBySide, Single, Taps,
    TapsByLine, WholePlanes, Windows, few_transposed,
};

/// Floats that are multiplied as they are: f32 and f64.
pub trait Real: Acc + Transpose + Param + Finish<Param = Self> {
    /// What their panels are.
    const FORM: Form;
    /// A segment of zeros.
    const ZEROS: &'static [Self];
    /// Whether a few rows can be multiplied by a matrix whose columns lie side by side without packing it, and such a matrix the other way round by a few columns.
    const TRANSPOSES: bool = false;
    /// Whether a matrix is multiplied so by as many columns faster than by tiles.
    #[inline(always)]
    fn takes_columns(_lhs: MatRef<'_, Self>, _columns: usize) -> bool {
        false
    }
    /// Multiplies a few rows by such a matrix, or with `COLUMNS` a matrix whose rows lie side by side by a few columns.
    ///
    /// # Panics
    /// Unless [`Real::TRANSPOSES`].
    fn few_transposed<const COLUMNS: bool>(
        _isa: Isa,
        _lhs: MatRef<'_, Self>,
        _rhs: MatRef<'_, Self>,
        _dst: &mut Band<'_, Self>,
        _add: bool,
    ) {
        unreachable!("it is packed");
    }
    /// Computes `product` with the instructions of `isa`.
    fn product(isa: Isa, product: &mut Product<'_, '_, Self>);
    /// Computes `single` with the instructions of `isa`.
    fn single(isa: Isa, single: &mut Single<'_, '_, Self>);
    /// Computes `windows` with the instructions of `isa`.
    fn windows(isa: Isa, windows: &mut Windows<'_, '_, '_, Self>);
    /// Computes `positions` with the instructions of `isa`.
    fn positions(isa: Isa, positions: &mut Positions<'_, '_, '_, Self>);
    /// Computes `by_line` with the instructions of `isa`.
    fn by_line(isa: Isa, by_line: &mut ByLine<'_, '_, '_, Self>);
    /// Computes `planes` with the instructions of `isa`.
    ///
    /// # Panics
    /// Unless of f32: the tiles of others are not compiled.
    fn planes(_isa: Isa, _planes: &mut Planes<'_, '_, '_, Self>) {
        unreachable!("it goes by strips of channels");
    }
    /// Computes `planes` with the instructions of `isa`.
    ///
    /// # Panics
    /// Unless of f32, as [`Real::planes`].
    fn whole_planes(_isa: Isa, _planes: &mut WholePlanes<'_, '_, '_, Self>) {
        unreachable!("it goes through a window");
    }
    /// Computes `by_position` with the instructions of `isa`.
    fn by_position(isa: Isa, by_position: &mut ByPosition<'_, '_, '_, Self>);
    /// Computes `taps` with the instructions of `isa`.
    fn taps(isa: Isa, taps: &mut Taps<'_, '_, '_, Self>);
    /// Computes `taps` with the instructions of `isa`.
    fn taps_by_line(isa: Isa, taps: &mut TapsByLine<'_, '_, '_, Self>);
    /// Computes `few` with the instructions of `isa`.
    fn few_channels(isa: Isa, few: &mut FewChannels<'_, '_, '_, Self>);
    /// Computes `rows` with the instructions of `isa`.
    fn side_by_side(isa: Isa, rows: &mut SideBySide<'_, '_, '_, Self>);
    /// Computes `lines` with the instructions of `isa`.
    fn in_turns(isa: Isa, lines: &mut InTurns<'_, Self>);
}

/// Work on one thread, and the instruction set that is to do it.
struct Job<'p, W>(Isa, &'p mut W);

macro_rules! jobs {
    ($($work:ty,)*) => {$(
        impl WithSimd for Job<'_, $work> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, s: S) {
                self.1.run(s, self.0);
            }
        }
    )*};
}

/// What [`few_transposed::few_by_lines`] takes.
struct FewByLines<'a, 'b, 'c, const COLUMNS: bool> {
    few: MatRef<'a, f32>,
    lines: MatRef<'a, f32>,
    dst: &'b mut Band<'c, f32>,
    add: bool,
    asks: bool,
}

impl<const COLUMNS: bool> WithSimd for FewByLines<'_, '_, '_, COLUMNS> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        few_transposed::few_by_lines::<S, COLUMNS>(s, self.few, self.lines, self.dst, self.add, self.asks);
    }
}

macro_rules! real {
    ($t:ty, $form:ident, { $($few:item)* }) => {
        jobs! {
            Product<'_, '_, $t>,
            Single<'_, '_, $t>,
            Windows<'_, '_, '_, $t>,
            Positions<'_, '_, '_, $t>,
            ByLine<'_, '_, '_, $t>,
            ByPosition<'_, '_, '_, $t>,
            Taps<'_, '_, '_, $t>,
            TapsByLine<'_, '_, '_, $t>,
            FewChannels<'_, '_, '_, $t>,
            SideBySide<'_, '_, '_, $t>,
            InTurns<'_, $t>,
        }
        impl Real for $t {
            const FORM: Form = Form::$form;
            const ZEROS: &'static [$t] = &[0.0; KC];
            $($few)*
            fn product(isa: Isa, product: &mut Product<'_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, product));
            }
            fn single(isa: Isa, single: &mut Single<'_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, single));
            }
            fn windows(isa: Isa, windows: &mut Windows<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, windows));
            }
            fn positions(isa: Isa, positions: &mut Positions<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, positions));
            }
            fn by_line(isa: Isa, by_line: &mut ByLine<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, by_line));
            }
            fn by_position(isa: Isa, by_position: &mut ByPosition<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, by_position));
            }
            fn taps(isa: Isa, taps: &mut Taps<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, taps));
            }
            fn taps_by_line(isa: Isa, taps: &mut TapsByLine<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, taps));
            }
            fn few_channels(isa: Isa, few: &mut FewChannels<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, few));
            }
            fn side_by_side(isa: Isa, rows: &mut SideBySide<'_, '_, '_, $t>) {
                isa.dispatch_but_dots(Job(isa, rows));
            }
            fn in_turns(isa: Isa, lines: &mut InTurns<'_, $t>) {
                isa.dispatch_but_dots(Job(isa, lines));
            }
        }
    };
}
real!(f32, F32, {
    const TRANSPOSES: bool = true;
    #[inline(always)]
    fn takes_columns(lhs: MatRef<'_, f32>, columns: usize) -> bool {
        few_transposed::takes_columns(lhs, columns)
    }
    fn few_transposed<const COLUMNS: bool>(
        isa: Isa,
        lhs: MatRef<'_, f32>,
        rhs: MatRef<'_, f32>,
        dst: &mut Band<'_, f32>,
        add: bool,
    ) {
        let (few, lines) = if COLUMNS { (rhs.transposed(), lhs) } else { (lhs, rhs.transposed()) };
        // Zen 3, which has no longer vectors, foresees eight lines and is only delayed: in a loop of its own percent of the peak asked for and not: 1, 2 and 4 rows by 4096 x 4096 7.7, 11.7, 14.7 and 10.6, 18.1, 22.9.
        let asks = isa.of_half_vectors() != isa;
        let isa =
            if few_transposed::by_half_vectors(lines, few.rows()) { isa.of_half_vectors() } else { isa };
        isa.dispatch_but_dots(FewByLines::<COLUMNS> { few, lines, dst, add, asks });
    }
    fn planes(isa: Isa, planes: &mut Planes<'_, '_, '_, f32>) {
        isa.dispatch_but_dots(Job(isa, planes));
    }
    fn whole_planes(isa: Isa, planes: &mut WholePlanes<'_, '_, '_, f32>) {
        isa.dispatch_but_dots(Job(isa, planes));
    }
});
real!(f64, F64, {});
jobs! {
    Planes<'_, '_, '_, f32>,
    WholePlanes<'_, '_, '_, f32>,
}

/// [`all_finite`] as a function of its own.
pub(super) struct AllFinite<'a, T>(pub(super) &'a [T]);

impl<T: Real, S: FloatLanes<T>> WithToken<S> for AllFinite<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn with_token(self, s: S) -> bool {
        all_finite(s, self.0)
    }
}

/// Whether no weight of whole vectors is infinite or a NaN.
#[inline(always)]
pub(super) fn all_finite<T: Real, S: FloatLanes<T>>(s: S, weights: &[T]) -> bool {
    debug_assert!(weights.len().is_multiple_of(S::LANES));
    let zero = s.splat(T::zero());
    let mut products = [zero; 4];
    let mut blocks = weights.chunks_exact(4 * S::LANES);
    for block in blocks.by_ref() {
        for (i, product) in products.iter_mut().enumerate() {
            *product = s.mul_add(s.load(&block[i * S::LANES..]), zero, *product);
        }
    }
    // Zero times a finite number is a zero, and NaN otherwise.
    let rest = blocks.remainder().chunks_exact(S::LANES);
    let mut sum = s.add(s.add(products[0], products[1]), s.add(products[2], products[3]));
    for rest in rest {
        sum = s.mul_add(s.load(rest), zero, sum);
    }
    let mut lanes = [T::zero(); 64];
    s.store(&mut lanes, sum);
    lanes.iter().all(|&lane| lane == T::zero())
}
