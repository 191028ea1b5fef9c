//! What happens to a finished sum before it is a result (N5): scale, bias, residual, activation, in that order.

use bytemuck::Zeroable;

use crate::format::{self, Codec, Format, Target, Word, Words};
use crate::gemm::Acc;
use crate::isa::Isa;
use crate::mat::{CACHE_LINE, MatSpec, PANEL_COLS, Panel, Rect, TileMut};
use crate::math::{self, Act};
use crate::simd::{FloatLanes, Lanes, Scalar, Simd, Transpose, WithSimd};

/// Values over the rows or the columns of the matrix, the same in every matrix of the batch or others for each.
#[derive(Clone, Copy, Debug)]
pub enum Along<'a, P> {
    /// None.
    None,
    /// Element `batch * step + row` belongs to a row.
    Row(&'a [P], usize),
    /// Element `batch * step + col` belongs to a column.
    Col(&'a [P], usize),
}

/// A tensor that is added element by element.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Its codes.
    pub words: Words<'a>,
    /// Their format.
    pub format: Format,
    /// The code of zero of 8-bit integers; 0 for every other format.
    pub zero: i32,
    /// Where they lie.
    pub spec: MatSpec,
}

impl Residual<'_> {
    /// The value of code `i`, less the zero point.
    #[inline(always)]
    fn value(&self, i: usize) -> f64 {
        self.words.value(self.format, i) - f64::from(self.zero)
    }
}

/// The epilogue of one matrix product, in the kernel's orientation.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, P> {
    /// Multiplies the sum, if any.
    pub scale: Option<P>,
    /// Multiply it next, one after the other.
    pub scales: [Along<'a, P>; 2],
    /// Added next.
    pub bias: Along<'a, P>,
    /// Added next.
    pub residual: Option<Residual<'a>>,
    /// Applied next.
    pub act: Act,
    /// What the result becomes.
    pub target: Target,
    /// The index of each element for stochastic rounding: its offset in the row-major tensor.
    pub index: MatSpec,
}

impl<'a, P: Param> Epilogue<'a, P> {
    /// The same epilogue, its type said in another way.
    ///
    /// # Panics
    /// If `P` and `Q` differ in size.
    pub fn cast<Q: Param>(&self) -> Epilogue<'a, Q> {
        let along = |values| match values {
            Along::None => Along::None,
            Along::Row(values, step) => Along::Row(bytemuck::cast_slice(values), step),
            Along::Col(values, step) => Along::Col(bytemuck::cast_slice(values), step),
        };
        Epilogue {
            scale: self.scale.map(bytemuck::cast),
            scales: self.scales.map(along),
            bias: along(self.bias),
            residual: self.residual,
            act: self.act,
            target: self.target,
            index: self.index,
        }
    }

    /// Whether the sum is the result but for its format.
    pub fn is_identity(&self) -> bool {
        self.scale.is_none()
            && matches!(self.scales, [Along::None, Along::None])
            && matches!(self.bias, Along::None)
            && self.residual.is_none()
            && self.act == Act::None
    }
}

/// The arithmetic of an epilogue: f32 or f64.
pub trait Param: num_traits::Float + Acc + 'static {
    /// The activation in lanes; `None` where the format has no such function.
    fn activate<S: Simd + Lanes<Self>>(
        s: S,
        act: Act,
        v: <S as Lanes<Self>>::V,
    ) -> Option<<S as Lanes<Self>>::V>;
    /// The activation in one lane: the definition (N6).
    fn activate_one(self, act: Act) -> Option<Self>;
    /// From the value that every format fits.
    fn from_f64(value: f64) -> Self;
    /// Widens one row of a residual.
    fn widen_row(residual: &Residual<'_>, first: isize, rect: &Rect, col: usize, out: &mut [Self]);
}

/// Sums that an epilogue in `Self::Param` finishes.
pub trait Sums: Acc {
    /// What it computes in.
    type Param: Param;
    /// The sum as that; integers rounded to nearest, ties to even.
    fn param(self) -> Self::Param;
}

impl Sums for f32 {
    type Param = f32;
    #[inline(always)]
    fn param(self) -> f32 {
        self
    }
}
impl Sums for f64 {
    type Param = f64;
    #[inline(always)]
    fn param(self) -> f64 {
        self
    }
}
impl Sums for i32 {
    type Param = f32;
    #[inline(always)]
    fn param(self) -> f32 {
        self as f32
    }
}

impl Param for f32 {
    #[inline(always)]
    fn activate<S: Simd>(s: S, act: Act, v: <S as Lanes<f32>>::V) -> Option<<S as Lanes<f32>>::V> {
        math::activate_f32(s, act, v)
    }
    fn activate_one(self, act: Act) -> Option<f32> {
        math::activate_f32(Scalar, act, self)
    }
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn widen_row(residual: &Residual<'_>, first: isize, rect: &Rect, col: usize, out: &mut [f32]) {
        let codec = Codec::of(residual.format);
        let cols = &residual.spec.cols;
        let mut cursor = cols.cursor(rect.cols.start + col);
        for out in out {
            let at = (first + cursor.offset) as usize;
            *out = match (residual.words, &codec) {
                (Words::F32(words), _) => words[at],
                (Words::U8(words), Some(codec)) => codec.widen(words[at].into()),
                (Words::U16(words), Some(codec)) => codec.widen(words[at].into()),
                _ => residual.value(at) as f32,
            };
            cols.advance(&mut cursor, 1);
        }
    }
}

impl Param for f64 {
    #[inline(always)]
    fn activate<S: Simd>(s: S, act: Act, v: <S as Lanes<f64>>::V) -> Option<<S as Lanes<f64>>::V> {
        activate_f64(s, act, v)
    }
    fn activate_one(self, act: Act) -> Option<f64> {
        activate_f64(Scalar, act, self)
    }
    fn from_f64(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn widen_row(residual: &Residual<'_>, first: isize, rect: &Rect, col: usize, out: &mut [f64]) {
        let cols = &residual.spec.cols;
        let mut cursor = cols.cursor(rect.cols.start + col);
        for out in out {
            *out = residual.value((first + cursor.offset) as usize);
            cols.advance(&mut cursor, 1);
        }
    }
}

/// f64 has the activation that is no approximation.
#[inline(always)]
fn activate_f64<S: FloatLanes<f64>>(s: S, act: Act, v: S::V) -> Option<S::V> {
    match act {
        Act::None => Some(v),
        Act::Relu => Some(s.max(s.splat(0.0), v)),
        _ => None,
    }
}

/// Words that finished values of `P` become.
pub trait Narrows<P>: Word {
    /// Narrows the first `n` values; `indices` are theirs where random bits are asked for.
    fn narrow<S: Simd>(
        s: S,
        target: &Target,
        values: &[P; PANEL_COLS],
        indices: &[u64; PANEL_COLS],
        out: &mut [Self; PANEL_COLS],
    );
}

impl Narrows<f32> for f32 {
    #[inline(always)]
    fn narrow<S: Simd>(
        _: S,
        _: &Target,
        values: &[f32; PANEL_COLS],
        _: &[u64; PANEL_COLS],
        out: &mut [f32; PANEL_COLS],
    ) {
        *out = *values;
    }
}
impl Narrows<f64> for f64 {
    #[inline(always)]
    fn narrow<S: Simd>(
        _: S,
        _: &Target,
        values: &[f64; PANEL_COLS],
        _: &[u64; PANEL_COLS],
        out: &mut [f64; PANEL_COLS],
    ) {
        *out = *values;
    }
}

macro_rules! narrows {
    ($t:ty) => {
        impl Narrows<f32> for $t {
            #[inline(always)]
            fn narrow<S: Simd>(
                s: S,
                target: &Target,
                values: &[f32; PANEL_COLS],
                indices: &[u64; PANEL_COLS],
                out: &mut [$t; PANEL_COLS],
            ) {
                format::narrow(s, target, values, indices, out);
            }
        }
    };
}
narrows!(u8);
narrows!(u16);

/// Rows that are asked for before they are needed: the parts of rows that a panel holds lie too far apart for the processor to foresee.
const ROWS_AHEAD: usize = 6;

/// Rows of a few columns: sums in, words out.
trait Rows<A, W> {
    /// Asks for a row to be in the cache soon.
    fn prefetch(&self, row: usize);
    fn load(&mut self, row: usize, out: &mut [A; PANEL_COLS]);
    fn store(&mut self, row: usize, words: &[W; PANEL_COLS]);
}

/// The sums lie where the result goes.
struct InPlace<'a, T>(Panel<'a, T>);

impl<T: Copy> Rows<T, T> for InPlace<'_, T> {
    #[inline(always)]
    fn prefetch(&self, row: usize) {
        self.0.prefetch(row);
    }
    #[inline(always)]
    fn load(&mut self, row: usize, out: &mut [T; PANEL_COLS]) {
        load_row(&mut self.0, row, out);
    }
    #[inline(always)]
    fn store(&mut self, row: usize, words: &[T; PANEL_COLS]) {
        store_row(&mut self.0, row, words);
    }
}

/// The sums lie elsewhere.
struct Apart<'a, 'b, A, W>(Panel<'a, A>, Panel<'b, W>);

impl<A: Copy, W: Copy> Rows<A, W> for Apart<'_, '_, A, W> {
    #[inline(always)]
    fn prefetch(&self, row: usize) {
        self.0.prefetch(row);
        self.1.prefetch(row);
    }
    #[inline(always)]
    fn load(&mut self, row: usize, out: &mut [A; PANEL_COLS]) {
        load_row(&mut self.0, row, out);
    }
    #[inline(always)]
    fn store(&mut self, row: usize, words: &[W; PANEL_COLS]) {
        store_row(&mut self.1, row, words);
    }
}

#[inline(always)]
fn load_row<T: Copy>(panel: &mut Panel<'_, T>, row: usize, out: &mut [T; PANEL_COLS]) {
    match panel.row_slice(row) {
        Some(slice) => match <&[T; PANEL_COLS]>::try_from(&*slice) {
            Ok(slice) => *out = *slice,
            Err(_) => out[..slice.len()].copy_from_slice(slice),
        },
        None => panel.read_row(row, out),
    }
}

#[inline(always)]
fn store_row<T: Copy>(panel: &mut Panel<'_, T>, row: usize, words: &[T; PANEL_COLS]) {
    match panel.row_slice(row) {
        Some(slice) => match <&mut [T; PANEL_COLS]>::try_from(&mut *slice) {
            Ok(slice) => *slice = *words,
            Err(_) => {
                let n = slice.len();
                slice.copy_from_slice(&words[..n]);
            }
        },
        None => panel.write_row(row, words),
    }
}

/// The values that belong to `width` columns from `col` on, or `None` where one belongs to the whole row.
#[inline(always)]
fn along<P: Param, S: Simd + Lanes<P>>(
    s: S,
    values: Along<'_, P>,
    rect: &Rect,
    row: usize,
    col: usize,
    width: usize,
) -> Option<<S as Lanes<P>>::V> {
    match values {
        Along::None => None,
        Along::Row(values, step) => Some(s.splat(values[rect.batch * step + row])),
        Along::Col(values, step) => {
            let here = &values[rect.batch * step + col..];
            Some(s.load_first_n(here, <S as Lanes<P>>::LANES.min(width)))
        }
    }
}

/// Finishes `width` columns from `j` of the tile at `rect`.
#[inline(always)]
fn columns<A: Sums, W: Narrows<A::Param>, S: Simd + FloatLanes<A::Param>>(
    s: S,
    epilogue: &Epilogue<'_, A::Param>,
    rect: &Rect,
    j: usize,
    width: usize,
    mut rows: impl Rows<A, W>,
) {
    let zero = <A::Param as num_traits::Zero>::zero();
    let col = rect.cols.start + j;
    let identity = epilogue.is_identity();
    let mut residual = [zero; PANEL_COLS];
    let mut indices = [0u64; PANEL_COLS];
    let mut words = [W::zeroed(); PANEL_COLS];
    let mut sums = [A::zero(); PANEL_COLS];
    let mut values = [zero; PANEL_COLS];
    for i in 0..rect.rows.len() {
        if i + ROWS_AHEAD < rect.rows.len() {
            rows.prefetch(i + ROWS_AHEAD);
        }
        let row = rect.rows.start + i;
        if let Some(tensor) = &epilogue.residual {
            let first = tensor.spec.row_offset(rect.batch, row);
            A::Param::widen_row(tensor, first, rect, j, &mut residual[..width]);
        }
        rows.load(i, &mut sums);
        for (value, sum) in values.iter_mut().zip(sums) {
            *value = sum.param();
        }
        // The buffers are whole vectors long: lanes beyond `width` are computed and dropped.
        let vectors = if identity { 0..0 } else { 0..width };
        for at in vectors.step_by(<S as Lanes<A::Param>>::LANES) {
            let mut v = Lanes::<A::Param>::load(s, &values[at..]);
            if let Some(scale) = epilogue.scale {
                v = FloatLanes::<A::Param>::mul(s, v, Lanes::<A::Param>::splat(s, scale));
            }
            for scale in epilogue.scales {
                if let Some(scale) = along(s, scale, rect, row, col + at, width - at) {
                    v = FloatLanes::<A::Param>::mul(s, v, scale);
                }
            }
            if let Some(bias) = along(s, epilogue.bias, rect, row, col + at, width - at) {
                v = Lanes::<A::Param>::add(s, v, bias);
            }
            if epilogue.residual.is_some() {
                v = Lanes::<A::Param>::add(s, v, Lanes::<A::Param>::load(s, &residual[at..]));
            }
            v = A::Param::activate(s, epilogue.act, v)
                .expect("the plan refuses activations that the format lacks");
            Lanes::<A::Param>::store(s, &mut values[at..], v);
        }
        if epilogue.target.seed().is_some() {
            let first = epilogue.index.row_offset(rect.batch, row);
            let mut cursor = epilogue.index.cols.cursor(col);
            for index in &mut indices[..width] {
                *index = (first + cursor.offset) as u64;
                epilogue.index.cols.advance(&mut cursor, 1);
            }
        }
        W::narrow(s, &epilogue.target, &values, &indices, &mut words);
        rows.store(i, &words);
    }
}

struct FinishInPlace<'a, 'b, 't, P>(&'a Epilogue<'a, P>, &'b mut TileMut<'t, P>);

macro_rules! in_place {
    ($t:ty) => {
        impl WithSimd for FinishInPlace<'_, '_, '_, $t> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, s: S) {
                let FinishInPlace(epilogue, tile) = self;
                let rect = tile.rect().clone();
                for j in (0..tile.n()).step_by(PANEL_COLS) {
                    let width = PANEL_COLS.min(tile.n() - j);
                    columns::<$t, $t, S>(s, epilogue, &rect, j, width, InPlace(tile.panel(j, width)));
                }
            }
        }
        impl Finish for $t {
            fn finish_in_place(isa: Isa, epilogue: &Epilogue<'_, $t>, tile: &mut TileMut<'_, $t>) {
                if !epilogue.is_identity() {
                    isa.dispatch_but_dots(FinishInPlace(epilogue, tile));
                }
            }
        }
    };
}

/// Sums that are a result themselves.
pub trait Finish: Sums {
    /// Applies `epilogue` to every element of `tile`, whose words are the result's.
    ///
    /// # Panics
    /// If a bias, scale or residual is smaller than the matrix, or the format lacks the activation.
    fn finish_in_place(isa: Isa, epilogue: &Epilogue<'_, Self::Param>, tile: &mut TileMut<'_, Self>);
}
in_place!(f32);
in_place!(f64);

impl Finish for i32 {
    /// Only the identity: a sum in i32 is whole.
    fn finish_in_place(_: Isa, epilogue: &Epilogue<'_, f32>, _: &mut TileMut<'_, i32>) {
        assert!(epilogue.is_identity(), "the plan refuses an epilogue of i32");
    }
}

/// Words of f32 in a cache line.
const LINE: usize = CACHE_LINE / size_of::<f32>();

/// The rows of a block of 8 x 8.
const HALF: usize = LINE / 2;

/// Copies `sums` to a result of the same type that lies column by column, by blocks of a cache line of f32, or of 8 x 8.
#[inline(always)]
fn copy_to_planes<T: Transpose, S: Simd>(s: S, sums: &mut TileMut<'_, T>, tile: &mut TileMut<'_, T>) {
    let (m, n) = (tile.m(), tile.n());
    for j in (0..n).step_by(PANEL_COLS) {
        let width = PANEL_COLS.min(n - j);
        // Not as a pair, which would be copied.
        let mut from = sums.panel(j, width);
        let mut to = tile.panel(j, width);
        let mut row = 0;
        while row < m {
            let mut planes = to.planes(row);
            let len = planes.len();
            let band = from.band(row, len).expect("sums side by side, row behind row");
            let sums = band.to_read();
            let by_lines =
                if size_of::<T>() == size_of::<f32>() && len > HALF { width / LINE * LINE } else { 0 };
            let whole = width / HALF * HALF;
            let nothing = [T::zeroed(); LINE];
            for col in (0..by_lines).step_by(LINE) {
                for i in (0..len).step_by(LINE) {
                    // The last block begins early enough to be a whole one, if it can: what it repeats is the same.
                    let i = i.min(len.saturating_sub(LINE));
                    let rows = LINE.min(len - i);
                    let mut block = [&nothing; LINE];
                    for (r, line) in block[..rows].iter_mut().enumerate() {
                        *line = sums.row(i + r)[col..].first_chunk().expect("a whole line");
                    }
                    for (c, column) in T::transpose_16(s, block).iter().enumerate() {
                        if rows == LINE {
                            planes.put(col + c, i, column);
                        } else {
                            // By two halves that meet or overlap, of a size that the compiler knows.
                            planes.put(col + c, 0, &column[..HALF]);
                            planes.put(col + c, rows - HALF, &column[rows - HALF..][..HALF]);
                        }
                    }
                }
            }
            for col in (by_lines..whole).step_by(HALF) {
                for i in (0..len).step_by(HALF) {
                    let i = i.min(len.saturating_sub(HALF));
                    let rows = HALF.min(len - i);
                    let mut block = [[T::zeroed(); HALF]; HALF];
                    for (r, block) in block[..rows].iter_mut().enumerate() {
                        block.copy_from_slice(&sums.row(i + r)[col..col + HALF]);
                    }
                    for (c, column) in T::transpose(s, block).iter().enumerate() {
                        if rows == HALF {
                            planes.put(col + c, i, column);
                        } else {
                            planes.put(col + c, 0, &column[..rows]);
                        }
                    }
                }
            }
            for col in whole..width {
                for i in 0..len {
                    planes.put(col, i, &[sums.row(i)[col]]);
                }
            }
            row += len;
        }
    }
}

/// [`FinishFrom::finish_into`] of a result of the type of its sums that lies column by column, as planes do: the epilogue runs where the sums are. False if it does not lie so.
#[inline(always)]
fn by_planes<T: Sums<Param = T> + Narrows<T> + Transpose + Param, S: Simd + FloatLanes<T>>(
    s: S,
    epilogue: &Epilogue<'_, T>,
    sums: &mut TileMut<'_, T>,
    tile: &mut TileMut<'_, T>,
) -> bool {
    if !tile.is_planes() {
        return false;
    }
    let rect = tile.rect().clone();
    let of_epilogue = if epilogue.is_identity() { 0 } else { tile.n() };
    for j in (0..of_epilogue).step_by(PANEL_COLS) {
        let width = PANEL_COLS.min(of_epilogue - j);
        columns::<T, T, S>(s, epilogue, &rect, j, width, InPlace(sums.panel(j, width)));
    }
    copy_to_planes(s, sums, tile);
    true
}

struct FinishInto<'a, 'b, 'c, 's, 't, A: Sums, W>(
    &'a Epilogue<'a, A::Param>,
    &'b mut TileMut<'s, A>,
    &'c mut TileMut<'t, W>,
);

/// Words of a result whose sums of `A` lie in scratch.
pub trait FinishFrom<A: Sums>: Word {
    /// Copies the old values of `tile`, of a narrow float format, to `sums`.
    ///
    /// # Panics
    /// For other formats.
    fn widen_into(format: Format, tile: &mut TileMut<'_, Self>, sums: &mut TileMut<'_, A>);
    /// Applies `epilogue` to the elements of `sums`, a tile of the same size as `tile`, and writes them there.
    ///
    /// # Panics
    /// As [`Finish::finish_in_place`].
    fn finish_into(
        isa: Isa,
        epilogue: &Epilogue<'_, A::Param>,
        sums: &mut TileMut<'_, A>,
        tile: &mut TileMut<'_, Self>,
    );
}

macro_rules! finish_from {
    ($($a:ty => $w:ty, $widener:ident $(, $planes:ident)?;)*) => {$(
        impl WithSimd for FinishInto<'_, '_, '_, '_, '_, $a, $w> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, s: S) {
                let FinishInto(epilogue, sums, tile) = self;
                let rect = tile.rect().clone();
                $(
                    if $planes(s, epilogue, sums, tile) {
                        return;
                    }
                )?
                for j in (0..tile.n()).step_by(PANEL_COLS) {
                    let width = PANEL_COLS.min(tile.n() - j);
                    let rows = Apart(sums.panel(j, width), tile.panel(j, width));
                    columns::<$a, $w, S>(s, epilogue, &rect, j, width, rows);
                }
            }
        }
        impl FinishFrom<$a> for $w {
            fn widen_into(format: Format, tile: &mut TileMut<'_, $w>, sums: &mut TileMut<'_, $a>) {
                let widen = $widener(format);
                for j in (0..tile.n()).step_by(PANEL_COLS) {
                    let width = PANEL_COLS.min(tile.n() - j);
                    for i in 0..tile.m() {
                        let (mut old, mut values) = ([<$w>::zeroed(); PANEL_COLS], [<$a>::zeroed(); PANEL_COLS]);
                        tile.panel(j, width).read_row(i, &mut old);
                        for (value, old) in values.iter_mut().zip(old) {
                            *value = widen(old) as $a;
                        }
                        sums.panel(j, width).write_row(i, &values);
                    }
                }
            }
            fn finish_into(
                isa: Isa,
                epilogue: &Epilogue<'_, <$a as Sums>::Param>,
                sums: &mut TileMut<'_, $a>,
                tile: &mut TileMut<'_, $w>,
            ) {
                isa.dispatch_but_dots(FinishInto(epilogue, sums, tile));
            }
        }
    )*};
}

/// The values of codes of a narrow float format.
fn codes<W: Into<u32>>(format: Format) -> impl Fn(W) -> f32 {
    let codec = Codec::of(format).expect("the plan refuses to add to any but floats");
    move |code| codec.widen(code.into())
}

/// The values themselves.
fn themselves<W>(_: Format) -> impl Fn(W) -> W {
    |value| value
}

finish_from! {
    f32 => u8, codes;
    f32 => u16, codes;
    f32 => f32, themselves, by_planes;
    f64 => f64, themselves, by_planes;
    i32 => u8, codes;
    i32 => u16, codes;
    i32 => f32, themselves;
}

/// Sums in i32 are results as they are, which only have to be brought to where they lie.
impl FinishFrom<i32> for i32 {
    fn widen_into(_: Format, tile: &mut TileMut<'_, i32>, sums: &mut TileMut<'_, i32>) {
        copy_rows(tile, sums);
    }
    fn finish_into(
        _: Isa,
        epilogue: &Epilogue<'_, f32>,
        sums: &mut TileMut<'_, i32>,
        tile: &mut TileMut<'_, i32>,
    ) {
        assert!(epilogue.is_identity(), "the plan refuses an epilogue of i32");
        copy_rows(sums, tile);
    }
}

/// Sums of integers that f32 holds exactly, such as those of few products of 8-bit integers.
impl FinishFrom<f32> for i32 {
    fn widen_into(_: Format, _: &mut TileMut<'_, i32>, _: &mut TileMut<'_, f32>) {
        unreachable!("f32 does not hold every i32");
    }
    fn finish_into(
        isa: Isa,
        epilogue: &Epilogue<'_, f32>,
        sums: &mut TileMut<'_, f32>,
        tile: &mut TileMut<'_, i32>,
    ) {
        assert!(epilogue.is_identity(), "the plan refuses an epilogue of i32");
        isa.dispatch_but_dots(WholeNumbers(sums, tile));
    }
}

/// Sums that are whole numbers, to a result of integers.
struct WholeNumbers<'a, 'b, 'c>(&'c mut TileMut<'a, f32>, &'c mut TileMut<'b, i32>);

impl WithSimd for WholeNumbers<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let WholeNumbers(sums, tile) = self;
        for j in (0..tile.n()).step_by(PANEL_COLS) {
            let width = PANEL_COLS.min(tile.n() - j);
            let (m, mut row) = (tile.m(), [0; PANEL_COLS]);
            let (mut sums, mut tile) = (sums.panel(j, width), tile.panel(j, width));
            for i in 0..m {
                let values = sums.row_slice(i).expect("sums side by side");
                match tile.row_slice(i) {
                    Some(row) => to_integers(values, row),
                    None => {
                        to_integers(values, &mut row[..width]);
                        tile.write_row(i, &row);
                    }
                }
            }
        }
    }
}

/// Whole numbers as integers. Added to 1.5 x 2^52, they stand in the low bits of the mantissa: a cast that minds NaN and what i32 does not hold would go lane by lane.
#[inline(always)]
fn to_integers(values: &[f32], out: &mut [i32]) {
    const SHIFTED: f64 = 1.5 * (1u64 << 52) as f64;
    for (out, &value) in out.iter_mut().zip(values) {
        *out = (f64::from(value) + SHIFTED).to_bits() as i32;
    }
}

/// Copies a tile to another of the same size.
fn copy_rows(from: &mut TileMut<'_, i32>, to: &mut TileMut<'_, i32>) {
    for j in (0..to.n()).step_by(PANEL_COLS) {
        let width = PANEL_COLS.min(to.n() - j);
        let (m, mut row) = (to.m(), [0; PANEL_COLS]);
        let (from, mut to) = (from.panel(j, width), to.panel(j, width));
        for i in 0..m {
            from.read_row(i, &mut row);
            to.write_row(i, &row);
        }
    }
}
