//! What every operation asks of its operands: that their formats go together, that they are those of the plan, that zero points are values.

use tile25_kernels::format::{Element, Format, Words};
use tile25_kernels::pack::{Blocks, Operand, Side, Zero};
use tile25_kernels::registry::{self, Kernel};

use crate::backend::tile::Source;
use crate::context::Context;
use crate::epilogue::Accum;
use crate::error::Error;
use crate::layout::Layout;
use crate::plan::Formats;
use crate::plan::matmul::Grain;
use crate::view::{BlockScales, Spec, View, zero_points};

/// The formats of an operation, if it has them: any two float formats with a float result (f64 with f64 only as result), i8 and u8 in any
/// pairing with a result in i32, in f32 or in a narrower format.
pub(crate) fn formats(op: &'static str, lhs: Format, rhs: Format, out: Format) -> Result<Formats, Error> {
    let bytes = |format: Format| matches!(format, Format::I8 | Format::U8);
    let float = |format: Format| !format.is_integer();
    let sums = if lhs == Format::F64 || rhs == Format::F64 { Format::F64 } else { Format::F32 };
    let sums = match (bytes(lhs) && bytes(rhs), float(lhs) && float(rhs)) {
        (true, _) if out != Format::F64 => Format::I32,
        (_, true) if sums == Format::F64 && out == Format::F64 => sums,
        (_, true) if sums == Format::F32 && out != Format::F64 && out != Format::I32 => sums,
        _ => return Err(Error::Format { op, formats: [lhs, rhs, out] }),
    };
    Ok(Formats { lhs, rhs, sums, out })
}

/// The old values of a result can be added to where they are sums, or floats that widen to sums.
pub(crate) fn check_accum(op: &'static str, formats: Formats, accum: Accum) -> Result<(), Error> {
    let adds = formats.out == formats.sums || formats.sums == Format::F32 && !formats.out.is_integer();
    if accum == Accum::Add && !adds {
        let what = format!("adding sums in {} to an output in {}", formats.sums, formats.out);
        return Err(Error::Unsupported { op, what });
    }
    Ok(())
}

/// The kernel of a context for operands of two formats.
pub(crate) fn kernel(context: &Context<'_>, lhs: Format, rhs: Format) -> Kernel {
    registry::kernel(context.isa, lhs, rhs).expect("every token has kernels for formats that go together")
}

/// What the planner needs to know of a kernel.
pub(crate) fn grain(kernel: Kernel) -> Grain {
    Grain { rows: kernel.mr, cols: kernel.nr, bytes: kernel.form.element_bytes() }
}

/// Checks an operand against the plan: the same layout and kind of format. Parameters of a format that are chosen per tensor, such as a bias, are those
/// of the run.
#[inline(always)]
pub(crate) fn check_operand(
    op: &'static str,
    operand: &'static str,
    layout: &Layout,
    format: Format,
    planned: &Spec,
) -> Result<(), Error> {
    if *layout == planned.layout && format.same_kind(planned.format) {
        return Ok(());
    }
    Err(not_planned(op, operand, layout, format, planned))
}

#[cold]
fn not_planned(
    op: &'static str,
    operand: &'static str,
    layout: &Layout,
    format: Format,
    planned: &Spec,
) -> Error {
    let got = format!("{layout:?} of {format}");
    let planned = format!("{:?} of {}", planned.layout, planned.format);
    Error::NotPlanned { op, operand, got, planned }
}

/// Checks the zero points of an operand; `per` says what has one each, and how many, where that may be.
#[inline(always)]
pub(crate) fn check_zero(
    op: &'static str,
    operand: &'static str,
    zero: Zero<'_>,
    format: Format,
    per: Option<(&'static str, usize)>,
) -> Result<(), Error> {
    if matches!(zero, Zero::Tensor(0)) { Ok(()) } else { check_zeros(op, operand, zero, format, per) }
}

#[inline(never)]
fn check_zeros(
    op: &'static str,
    operand: &'static str,
    zero: Zero<'_>,
    format: Format,
    per: Option<(&'static str, usize)>,
) -> Result<(), Error> {
    let range = zero_points(format);
    let zeros = match zero {
        Zero::Tensor(ref zero) => std::slice::from_ref(zero),
        Zero::PerX(zeros) => zeros,
    };
    match (zero, per) {
        (Zero::PerX(_), None) => {
            let what = format!("more than one zero point of {operand}");
            return Err(Error::Unsupported { op, what });
        }
        (Zero::PerX(zeros), Some((what, extent))) if zeros.len() != extent => {
            let problem = format!("{operand} has {} zero points and {extent} {what}", zeros.len());
            return Err(Error::Shape { op, problem });
        }
        _ => {}
    }
    if let Some(zero) = zeros.iter().find(|zero| !range.contains(zero)) {
        let problem = format!("{zero} is no zero point of {operand}, which is in {format}");
        return Err(Error::Shape { op, problem });
    }
    Ok(())
}

/// Checks the block scales of an operand; `scaled` where the plan takes them.
#[inline(always)]
pub(crate) fn check_blocks<T: Element>(
    op: &'static str,
    operand: &'static str,
    view: &View<'_, T>,
    scaled: bool,
) -> Result<(), Error> {
    match view.blocks() {
        Some(blocks) => check_scales(op, operand, view.dims(), view.format(), &blocks, scaled),
        None => Ok(()),
    }
}

#[inline(never)]
fn check_scales(
    op: &'static str,
    operand: &'static str,
    dims: &[usize],
    format: Format,
    blocks: &BlockScales<'_>,
    scaled: bool,
) -> Result<(), Error> {
    if !scaled || format.is_integer() || format.bytes() > 2 {
        let what = if scaled {
            format!("block scales of {operand} in {format}")
        } else {
            format!("block scales of {operand} here")
        };
        return Err(Error::Unsupported { op, what });
    }
    let [.., rows, cols] = *dims else { unreachable!("rank checked") };
    let needed = match (blocks.rows, blocks.cols) {
        (0, _) | (_, 0) => 0,
        (r, c) => rows.div_ceil(r) * cols.div_ceil(c),
    };
    if needed != blocks.scales.len() || blocks.rows == 0 || blocks.cols == 0 {
        let problem = format!(
            "{operand} of {rows} x {cols} in blocks of {} x {} has {needed} scales, not {}",
            blocks.rows,
            blocks.cols,
            blocks.scales.len()
        );
        return Err(Error::Shape { op, problem });
    }
    Ok(())
}

/// An operand of a run: what it holds. `side` says which index of its matrix is x.
#[inline]
pub(crate) fn operand<'a, T: Element>(view: &View<'a, T>, side: Side) -> Operand<'a> {
    let blocks = view.blocks().map(|BlockScales { scales, rows, cols }| {
        let across = view.dims()[view.dims().len() - 1].div_ceil(cols);
        match side {
            Side::Lhs => Blocks { scales, at: [rows, cols], step: [across, 1] },
            Side::Rhs => Blocks { scales, at: [cols, rows], step: [1, across] },
        }
    });
    Operand { words: view.words(), format: view.format(), zero: view.zero(), blocks }
}

/// An operand of a run.
#[inline]
pub(crate) fn source<'a, T: Element>(view: &View<'a, T>, side: Side, zero_step: usize) -> Source<'a> {
    let (words, start) = (view.words(), view.start());
    match words {
        Words::F32(_) | Words::F64(_) if view.blocks().is_none() => Source::Floats { words, start },
        _ => Source::Coded { operand: operand(view, side), start, zero_step },
    }
}
