//! Packing: a window of an operand copied into panels, the order in which a microkernel reads it.
//!
//! ```text
//! panel p holds x = p W .. p W + W; in memory: [panel][unit of k][lane], then the tail; lanes beyond the last x count for nothing
//! ```
//!
//! Both operands have this form: `W` is MR for the lhs and NR for the rhs. Matrices, convolution inputs, output gradients and weights all come
//! through here; they differ in their [`Window`] and in what `convert` makes of their elements. `panel` walks one panel.

mod band;
mod code_band;
mod convert;
pub mod guard;
mod interleaved;
mod panel;
mod rows;
mod ways;

use std::marker::PhantomData;
use std::ops::Range;

use crate::axis::Window;
use crate::format::{Format, Widener, Words, table};
use crate::gemm::{Strip, Ukernel};
use crate::isa::Isa;
use crate::simd::{Bf16x2, I8x4, I16x2, Simd, Unit, WithSimd};
use crate::{BYTES_KC, KC};

pub use band::copy_band;
pub(crate) use band::interleave_planes;
pub use code_band::{copy_byte_band, copy_pair_band, copy_pair_rows, copy_wide_band};
use convert::{Convert, Double, PairBf16, PairI8, PairMini, QuadI8, Same, Widen};
use panel::pack_panel;
pub use rows::pack_rows;

/// Widest panel that can be packed.
pub const PANEL_WIDTH: usize = 64;

/// What panels hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Form {
    /// f32 values.
    F32,
    /// f64 values.
    F64,
    /// Pairs of bf16 ([`Bf16x2`]).
    Bf16x2,
    /// Pairs of i16 ([`I16x2`]).
    I16x2,
    /// Four bytes ([`I8x4`]).
    I8x4,
}

impl Form {
    /// Bytes of a unit, places of k in it, tail units of a lane.
    pub const fn unit(self) -> (usize, usize, usize) {
        const fn of<U: Unit>() -> (usize, usize, usize) {
            (size_of::<U>(), U::K, U::TAIL)
        }
        match self {
            Form::F32 => of::<f32>(),
            Form::F64 => of::<f64>(),
            Form::Bf16x2 => of::<Bf16x2>(),
            Form::I16x2 => of::<I16x2>(),
            Form::I8x4 => of::<I8x4>(),
        }
    }

    /// Segments of the steps `k`, which begin with one: each is packed on its own.
    pub fn segments(self, k: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (from, end) = (k.start, k.end);
        let len = if matches!(self, Form::I16x2 | Form::I8x4) { BYTES_KC } else { KC };
        (from..end).step_by(len).map(move |from| from..end.min(from + len))
    }

    /// Bytes of `x` lanes over steps `k` in panels of `width`, a segment behind the other.
    pub fn panel_bytes(self, x: usize, k: &Range<usize>, width: usize) -> usize {
        self.segments(k).map(|segment| self.packed_bytes(x, segment.len(), width)).sum()
    }

    /// Bytes that `x` values over `k` steps, at most a segment, take in panels of `width`. 0 without k.
    pub const fn packed_bytes(self, x: usize, k: usize, width: usize) -> usize {
        let (bytes, places, tail) = self.unit();
        if k == 0 { 0 } else { x.div_ceil(width) * width * (k.div_ceil(places) + tail) * bytes }
    }

    /// Bytes of one packed element.
    pub const fn element_bytes(self) -> usize {
        let (bytes, places, _) = self.unit();
        bytes / places
    }

    /// The format of sums of products.
    pub const fn sums(self) -> Format {
        match self {
            Form::F32 | Form::Bf16x2 => Format::F32,
            Form::F64 => Format::F64,
            Form::I16x2 | Form::I8x4 => Format::I32,
        }
    }
}

/// Which operand of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Side {
    /// The left one: its x index is the row.
    Lhs,
    /// The right one: its x index is the column.
    Rhs,
}

/// The code that stands for zero in an operand of 8-bit integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero<'a> {
    /// The same everywhere.
    Tensor(i32),
    /// One for each x.
    PerX(&'a [i32]),
}

/// Scales of blocks of an operand: element (x, k) means its value times `scales[x / at[0] * step[0] + k / at[1] * step[1]]`, rounded once to f32.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// One for each block.
    pub scales: &'a [f32],
    /// Extent of a block along x and along k.
    pub at: [usize; 2],
    /// From a block to the next along x and along k.
    pub step: [usize; 2],
}

impl Blocks<'_> {
    /// Multiplies panels of `width` lanes, of `x` over `k`.
    fn multiply(&self, x: &Range<usize>, k: &Range<usize>, width: usize, panels: &mut [f32]) {
        for (x0, panel) in x.clone().step_by(width).zip(panels.chunks_exact_mut(width * k.len())) {
            let lanes = width.min(x.end - x0);
            let mut rows = panel.chunks_exact_mut(width);
            let mut at = k.start;
            while at < k.end {
                let block = at / self.at[1];
                let end = k.end.min((block + 1) * self.at[1]);
                let mut scales = [1.0; PANEL_WIDTH];
                for (w, scale) in scales[..lanes].iter_mut().enumerate() {
                    *scale = self.scales[(x0 + w) / self.at[0] * self.step[0] + block * self.step[1]];
                }
                for row in rows.by_ref().take(end - at) {
                    for (value, scale) in row.iter_mut().zip(&scales) {
                        *value *= scale;
                    }
                }
                at = end;
            }
        }
    }
}

/// What a panel is of.
struct Part {
    x0: usize,
    lanes: usize,
    k: Range<usize>,
}

/// An operand: its codes and what they mean.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The codes.
    pub words: Words<'a>,
    /// Their format.
    pub format: Format,
    /// The zero point of 8-bit integers, a value of their format; no other format has one.
    pub zero: Zero<'a>,
    /// Scales of narrow floats that become f32.
    pub blocks: Option<Blocks<'a>>,
}

impl<'a> Operand<'a> {
    /// f32 or f64 as they are.
    #[inline]
    pub fn floats(words: Words<'a>) -> Self {
        let format = if let Words::F64(_) = words { Format::F64 } else { Format::F32 };
        Operand { words, format, zero: Zero::Tensor(0), blocks: None }
    }
}

/// Packs `x` by `k` of `window` over `operand` into panels of `width` lanes at the front of `out`. `k` lies within one segment, unless there is but one panel
/// and its form has no tail.
///
/// # Panics
/// If `out` is shorter than [`Form::packed_bytes`], the window leaves the operand where its coordinates are valid, or the form
/// cannot hold the operand's format.
#[expect(clippy::too_many_arguments, reason = "two ranges, two sides of a copy, and how")]
pub fn pack(
    isa: Isa,
    form: Form,
    side: Side,
    window: &Window,
    operand: Operand<'_>,
    x: Range<usize>,
    k: Range<usize>,
    width: usize,
    out: &mut [u8],
) {
    packed(isa, form, side, window, operand, x, k, width, false, out);
}

/// [`pack`] of one panel after which more of the same lanes comes, the steps behind `k`: these are asked for meanwhile.
///
/// # Panics
/// As [`pack`].
#[expect(clippy::too_many_arguments, reason = "as pack")]
pub fn pack_along(
    isa: Isa,
    form: Form,
    side: Side,
    window: &Window,
    operand: Operand<'_>,
    x: Range<usize>,
    k: Range<usize>,
    width: usize,
    out: &mut [u8],
) {
    packed(isa, form, side, window, operand, x, k, width, true, out);
}

#[expect(clippy::too_many_arguments, reason = "as pack")]
fn packed(
    isa: Isa,
    form: Form,
    side: Side,
    window: &Window,
    operand: Operand<'_>,
    x: Range<usize>,
    k: Range<usize>,
    width: usize,
    goes_on: bool,
    out: &mut [u8],
) {
    assert!(width <= PANEL_WIDTH);
    let bytes = form.packed_bytes(x.len(), k.len(), width);
    if bytes == 0 {
        return;
    }
    let goes_on = goes_on && k.end < window.k.extent();
    let job = Job { window, x: x.clone(), k: k.clone(), width, goes_on, out: &mut out[..bytes] };
    let table = table(operand.format);
    if let Some(blocks) = operand.blocks {
        match (form, operand.words, Widener::new(operand.format, &table)) {
            (Form::F32, Words::U16(data), Some(widener)) => {
                job.run(isa, data, Plain(Widen(widener, PhantomData)))
            }
            (Form::F32, Words::U8(data), Some(widener)) => {
                job.run(isa, data, Plain(Widen(widener, PhantomData)))
            }
            _ => panic!("panels of {form:?} do not take block scales of {}", operand.format),
        }
        return blocks.multiply(&x, &k, width, bytemuck::cast_slice_mut(&mut out[..bytes]));
    }
    match (form, operand.words, Widener::new(operand.format, &table)) {
        (Form::F32, Words::F32(data), _) => job.run(isa, data, Plain(Same(0.0f32))),
        (Form::F32, Words::U16(data), Some(widener)) => {
            job.run(isa, data, Plain(Widen(widener, PhantomData)))
        }
        (Form::F32, Words::U8(data), Some(widener)) => job.run(isa, data, Plain(Widen(widener, PhantomData))),
        (Form::F64, Words::F64(data), _) => job.run(isa, data, Plain(Same(0.0f64))),
        (Form::F64, Words::F32(data), _) => job.run(isa, data, Plain(Double(Same(0.0f32)))),
        (Form::F64, Words::U16(data), Some(widener)) => {
            job.run(isa, data, Plain(Double(Widen(widener, PhantomData))));
        }
        (Form::F64, Words::U8(data), Some(widener)) => {
            job.run(isa, data, Plain(Double(Widen(widener, PhantomData))));
        }
        (Form::Bf16x2, Words::U16(data), _) if operand.format == Format::Bf16 => {
            job.run(isa, data, Exponents(PairBf16));
        }
        (Form::Bf16x2, Words::U8(data), Some(widener)) => job.run(isa, data, Exponents(PairMini(widener))),
        (Form::I16x2, Words::U8(data), None) => {
            let signed = operand.format == Format::I8;
            job.run(isa, data, ZeroPairs { signed, zero: operand.zero });
        }
        (Form::I8x4, Words::U8(data), None) => {
            let signed = operand.format == Format::I8;
            job.run(isa, data, ZeroQuads { signed, side, zero: operand.zero });
        }
        _ => panic!("panels of {form:?} cannot hold {}", operand.format),
    }
}

/// [`pack`] of steps `k`, whose first is the first of a segment: a segment behind the other.
///
/// # Panics
/// As [`pack`].
#[expect(clippy::too_many_arguments, reason = "as pack")]
pub fn pack_segments(
    isa: Isa,
    form: Form,
    side: Side,
    window: &Window,
    operand: Operand<'_>,
    x: Range<usize>,
    k: Range<usize>,
    width: usize,
    mut out: &mut [u8],
) {
    for segment in form.segments(&k) {
        let (now, rest) = out.split_at_mut(form.packed_bytes(x.len(), segment.len(), width));
        pack(isa, form, side, window, operand, x.clone(), segment, width, now);
        out = rest;
    }
}

/// A conversion, made ready panel by panel.
trait PerPanel: Copy {
    type Convert: Convert;
    /// Whether dot products meet their panels with rows where these lie.
    const IN_ROWS: bool = false;
    /// For one panel.
    fn convert(&self, part: &Part) -> Self::Convert;
    /// Completes a panel of `W` lanes whose units are there: writes its tail.
    fn complete<S: Simd, const W: usize>(
        &self,
        s: S,
        convert: &Self::Convert,
        part: &Part,
        panel: &mut [<Self::Convert as Convert>::Out],
    );
}

/// The same for every panel, without a tail.
#[derive(Clone, Copy)]
struct Plain<C>(C);

impl<C: Convert> PerPanel for Plain<C> {
    type Convert = C;
    #[inline(always)]
    fn convert(&self, _: &Part) -> C {
        self.0
    }
    #[inline(always)]
    fn complete<S: Simd, const W: usize>(&self, _: S, _: &C, _: &Part, _: &mut [C::Out]) {}
}

/// Pairs of bf16; the tail is the least exponent.
#[derive(Clone, Copy)]
struct Exponents<C>(C);

impl<C: Convert<Out = Bf16x2>> PerPanel for Exponents<C> {
    type Convert = C;
    const IN_ROWS: bool = true;
    #[inline(always)]
    fn convert(&self, _: &Part) -> C {
        self.0
    }
    #[inline(always)]
    fn complete<S: Simd, const W: usize>(&self, s: S, _: &C, _: &Part, panel: &mut [Bf16x2]) {
        let (units, tail) = panel.split_at_mut(panel.len() - Bf16x2::TAIL * W);
        tail.fill(Bf16x2(guard::least_exponent(s, bytemuck::cast_slice(units)) as u32));
    }
}

/// Integers with zero points taken while packing.
#[derive(Clone, Copy)]
struct ZeroPairs<'a> {
    signed: bool,
    zero: Zero<'a>,
}

/// Integers whose zero points the tail takes.
#[derive(Clone, Copy)]
struct ZeroQuads<'a> {
    signed: bool,
    side: Side,
    zero: Zero<'a>,
}

/// The codes of zero of a panel's lanes, two's complement cut to 8 bits.
#[inline(always)]
fn zero_codes(zero: Zero<'_>, part: &Part) -> [u8; PANEL_WIDTH] {
    let mut codes = [0; PANEL_WIDTH];
    match zero {
        Zero::Tensor(zero) => codes.fill(zero as u8),
        Zero::PerX(zeros) => {
            for (code, &zero) in codes.iter_mut().zip(&zeros[part.x0..part.x0 + part.lanes]) {
                *code = zero as u8;
            }
        }
    }
    codes
}

impl PerPanel for ZeroPairs<'_> {
    type Convert = PairI8;
    #[inline(always)]
    fn convert(&self, part: &Part) -> PairI8 {
        let flip = if self.signed { 0x80 } else { 0 };
        PairI8 { flip, zero: zero_codes(self.zero, part).map(|code| code ^ flip) }
    }
    #[inline(always)]
    fn complete<S: Simd, const W: usize>(&self, _: S, _: &PairI8, _: &Part, _: &mut [I16x2]) {}
}

impl PerPanel for ZeroQuads<'_> {
    type Convert = QuadI8;
    const IN_ROWS: bool = true;
    #[inline(always)]
    fn convert(&self, part: &Part) -> QuadI8 {
        QuadI8::new(self.signed, self.side, zero_codes(self.zero, part))
    }
    #[inline(always)]
    fn complete<S: Simd, const W: usize>(&self, _: S, convert: &QuadI8, part: &Part, panel: &mut [I8x4]) {
        convert.tail::<W>(self.side, part.k.len(), panel);
    }
}

struct Job<'a> {
    window: &'a Window,
    x: Range<usize>,
    k: Range<usize>,
    width: usize,
    /// Whether more of the same lanes is packed next.
    goes_on: bool,
    out: &'a mut [u8],
}

impl Job<'_> {
    fn run<P: PerPanel>(self, isa: Isa, data: &[<P::Convert as Convert>::Word], convert: P) {
        isa.dispatch_but_dots(Pack { job: self, data, convert });
    }
}

struct Pack<'a, P: PerPanel> {
    job: Job<'a>,
    data: &'a [<P::Convert as Convert>::Word],
    convert: P,
}

/// Whether a kernel of this token reads panels of `width` lanes that `P` makes: tiles, of which the dot products have those of f32; for convolutions through a window also four thirds of a
/// tile, of floats two thirds as well, and strips of channels.
const fn reads<S: Simd, P: PerPanel>(width: usize) -> bool {
    let ([mr, nr], strip) = if size_of::<<P::Convert as Convert>::Out>() == 8 {
        ([<S as Ukernel<f64>>::MR, <S as Ukernel<f64>>::NR], f64::LEN)
    } else {
        ([<S as Ukernel<f32>>::MR, <S as Ukernel<f32>>::NR], f32::LEN)
    };
    let wide = 3 * width == 4 * nr;
    width == mr
        || width == nr
        || P::Convert::K == 1 && (width == strip || 3 * width == 2 * nr || wide)
        || P::IN_ROWS && wide
}

impl<P: PerPanel> Pack<'_, P> {
    #[inline(always)]
    fn panels<S: Simd, const W: usize>(self, s: S) {
        let Pack { job, data, convert } = self;
        let out: &mut [<P::Convert as Convert>::Out] = bytemuck::cast_slice_mut(job.out);
        let panel_len = out.len() / job.x.len().div_ceil(W);
        let kc = job.k.len();
        let body = kc.div_ceil(P::Convert::K) * W;
        for (panel, x0) in out.chunks_exact_mut(panel_len).zip(job.x.clone().step_by(W)) {
            let lanes = job.x.end.min(x0 + W) - x0;
            let part = Part { x0, lanes, k: job.k.clone() };
            let converted = convert.convert(&part);
            pack_panel::<S, P::Convert, W>(
                s,
                &converted,
                job.window,
                data,
                x0,
                lanes,
                job.k.clone(),
                job.goes_on,
                &mut panel[..body],
            );
            convert.complete::<S, W>(s, &converted, &part, panel);
        }
    }
}

impl<P: PerPanel> WithSimd for Pack<'_, P> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        // The widths that this token's microkernels have, as constants: the lane loops unroll, and no other width is compiled.
        macro_rules! by_width {
            ($($width:literal)*) => {$(
                if const { reads::<S, P>($width) } {
                    if self.job.width == $width {
                        return self.panels::<S, $width>(s);
                    }
                }
            )*};
        }
        by_width!(4 6 8 12 16 24 32 48 64);
        unreachable!("no kernel reads panels of {} lanes", self.job.width);
    }
}
