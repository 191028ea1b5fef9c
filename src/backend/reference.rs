//! The scalar definition of every operation. Never optimised; where it disagrees with a kernel, the kernel is wrong.
//!
//! Each operation names the terms of one output element in the order of the contract (N1, N11) and hands them to one function that adds.

use tile25_kernels::format::Element;

use crate::epilogue::{Accum, Epilogue};
use crate::geometry::Geometry;
use crate::numerics::KC;
use crate::view::{View, ViewMut};

/// N1 and N2: fma within a segment of KC, ascending from +0; each segment's sum plus +0 added to the total, ascending.
fn sum<T: Element>(terms: impl Iterator<Item = (T, T)>, old: Option<T>) -> T {
    let mut total = old;
    let mut terms = terms.peekable();
    while terms.peek().is_some() {
        let segment = terms.by_ref().take(KC).fold(T::zero(), |s, (a, b)| a.mul_add(b, s)) + T::zero();
        total = Some(total.map_or(segment, |t| t + segment));
    }
    total.unwrap_or(T::zero())
}

/// The element of every index over `dims`, row-major.
fn indices<const D: usize>(dims: [usize; D]) -> impl Iterator<Item = [usize; D]> {
    (0..dims.iter().product()).map(move |mut flat| {
        let mut index = [0; D];
        for d in (0..D).rev() {
            index[d] = flat % dims[d];
            flat /= dims[d];
        }
        index
    })
}

/// Where the element of an index lies, relative to the element at index 0.
fn offset(index: &[usize], strides: &[isize]) -> isize {
    index.iter().zip(strides).map(|(&i, &stride)| i as isize * stride).sum()
}

/// Writes one element: `terms` summed, then the epilogue.
fn write<T: Element>(
    out: &mut ViewMut<'_, T>,
    index: &[usize],
    channel: usize,
    accum: Accum,
    epilogue: &Epilogue<'_, T>,
    terms: impl Iterator<Item = (T, T)>,
) {
    let place = offset(index, out.layout().strides());
    let old = (accum == Accum::Add).then(|| *out.at_mut(place));
    let bias = epilogue.bias.map(|bias| bias[channel]);
    let residual = epilogue.residual.map(|view| view.at(offset(index, view.layout().strides())));
    *out.at_mut(place) = epilogue.apply(sum(terms, old), bias, residual);
}

/// `out[.., i, j] = sum over k of lhs[.., i, k] rhs[.., k, j]`; leading dims broadcast.
pub(crate) fn matmul<T: Element>(
    lhs: View<'_, T>,
    rhs: View<'_, T>,
    mut out: ViewMut<'_, T>,
    accum: Accum,
    epilogue: &Epilogue<'_, T>,
) {
    let rank = out.dims().len();
    let k = lhs.dims()[lhs.dims().len() - 1];
    let mut dims = [1; crate::layout::MAX_RANK];
    dims[..rank].copy_from_slice(out.dims());
    // An operand has the last dims of the batch; of those, extent 1 is repeated.
    let batch_offset = |view: &View<'_, T>, index: &[usize]| -> isize {
        let lead = view.dims().len() - 2;
        let own = view.dims()[..lead].iter().zip(view.layout().strides()).rev();
        own.zip(index[..rank - 2].iter().rev())
            .map(|((&extent, &s), &i)| if extent == 1 { 0 } else { i as isize * s })
            .sum()
    };
    for index in indices(dims) {
        let (i, j) = (index[rank - 2] as isize, index[rank - 1] as isize);
        let [.., a_row, a_col] = *lhs.layout().strides() else { unreachable!("rank 2 at least") };
        let [.., b_row, b_col] = *rhs.layout().strides() else { unreachable!("rank 2 at least") };
        let (a, b) = (batch_offset(&lhs, &index), batch_offset(&rhs, &index));
        let terms =
            (0..k as isize).map(|k| (lhs.at(a + i * a_row + k * a_col), rhs.at(b + k * b_row + j * b_col)));
        write(&mut out, &index[..rank], index[rank - 1], accum, epilogue, terms);
    }
}

/// A read of a padded tensor: zero outside.
fn padded<T: Element>(view: &View<'_, T>, outer: [usize; 2], at: [isize; 3], bounds: [usize; 3]) -> T {
    if (0..3).any(|d| at[d] < 0 || at[d] >= bounds[d] as isize) {
        return T::zero();
    }
    view.at(offset(
        &[outer[0], outer[1], at[0] as usize, at[1] as usize, at[2] as usize],
        view.layout().strides(),
    ))
}

/// `y[n, co, o] = sum over kernel position r, then input channel c of the group, of x[n, c, o stride + r dilation - pad] w[co, c, r]`.
pub(crate) fn forward<T: Element>(
    g: &Geometry,
    x: View<'_, T>,
    w: View<'_, T>,
    mut y: ViewMut<'_, T>,
    accum: Accum,
    epilogue: &Epilogue<'_, T>,
) {
    for index @ [n, co, o @ ..] in indices([g.batch, g.c_out, g.output[0], g.output[1], g.output[2]]) {
        let group = co / g.c_out_per_group();
        let terms =
            indices([g.kernel[0], g.kernel[1], g.kernel[2], g.c_in_per_group()]).map(|[r0, r1, r2, c]| {
                let r = [r0, r1, r2];
                let at = std::array::from_fn(|d| g.input_position(d, o[d], r[d]));
                let value = padded(&x, [n, group * g.c_in_per_group() + c], at, g.input);
                (value, w.at(offset(&[co, c, r0, r1, r2], w.layout().strides())))
            });
        write(&mut y, &index, co, accum, epilogue, terms);
    }
}

/// `dx[n, ci, i] = sum over the kernel positions r that meet i (o stride + r dilation - pad = i for a whole o), then output
/// channel co of the group, of dy[n, co, o] w[co, ci, r]`; an `o` outside the output is a padded tap.
pub(crate) fn backward_data<T: Element>(
    g: &Geometry,
    dy: View<'_, T>,
    w: View<'_, T>,
    mut dx: ViewMut<'_, T>,
    accum: Accum,
    epilogue: &Epilogue<'_, T>,
) {
    for index @ [n, ci, i @ ..] in indices([g.batch, g.c_in, g.input[0], g.input[1], g.input[2]]) {
        let (group, c) = (ci / g.c_in_per_group(), ci % g.c_in_per_group());
        let steps =
            move |r: [usize; 3], d: usize| (i[d] + g.padding[d].0) as isize - (r[d] * g.dilation[d]) as isize;
        let terms = indices(g.kernel)
            .filter(move |&r| (0..3).all(|d| steps(r, d).rem_euclid(g.stride[d] as isize) == 0))
            .flat_map(move |r| (0..g.c_out_per_group()).map(move |co| (r, group * g.c_out_per_group() + co)))
            .map(|(r, co)| {
                let at = std::array::from_fn(|d| steps(r, d).div_euclid(g.stride[d] as isize));
                let value = padded(&dy, [n, co], at, g.output);
                (value, w.at(offset(&[co, c, r[0], r[1], r[2]], w.layout().strides())))
            });
        write(&mut dx, &index, ci, accum, epilogue, terms);
    }
}

/// `dw[co, c, r] = sum over batch n, then output position o, of dy[n, co, o] x[n, c, o stride + r dilation - pad]`.
pub(crate) fn backward_weights<T: Element>(
    g: &Geometry,
    x: View<'_, T>,
    dy: View<'_, T>,
    mut dw: ViewMut<'_, T>,
    accum: Accum,
    epilogue: &Epilogue<'_, T>,
) {
    for index @ [co, c, r @ ..] in
        indices([g.c_out, g.c_in_per_group(), g.kernel[0], g.kernel[1], g.kernel[2]])
    {
        let channel = co / g.c_out_per_group() * g.c_in_per_group() + c;
        let terms = indices([g.batch, g.output[0], g.output[1], g.output[2]]).map(|[n, o0, o1, o2]| {
            let o = [o0, o1, o2];
            let at = std::array::from_fn(|d| g.input_position(d, o[d], r[d]));
            let gradient = dy.at(offset(&[n, co, o0, o1, o2], dy.layout().strides()));
            (gradient, padded(&x, [n, channel], at, g.input))
        });
        write(&mut dw, &index, co, accum, epilogue, terms);
    }
}
