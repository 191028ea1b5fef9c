//! The scalar definition of every operation. Never optimised; where it disagrees with a kernel, the kernel is wrong.
//!
//! Each operation names the terms of one output element in the order of the contract (N1, N11) and hands them to one function that adds.

use tile25_kernels::epilogue::Sums;
use tile25_kernels::format::{Element, Target, WordsMut};
use tile25_kernels::pack::Zero;

use crate::epilogue::{Accum, Epilogue, Here};
use crate::geometry::Geometry;
use crate::layout::Layout;
use crate::numerics::KC;
use crate::view::{BlockScales, View, ViewMut};

/// What sums of products are: f32 or f64, one rounding a step; i32 in two's complement (N1, N3, N4).
pub(crate) trait Arithmetic: Sums {
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn minus(self, b: Self) -> Self;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
}

macro_rules! float_arithmetic {
    ($t:ty) => {
        impl Arithmetic for $t {
            fn mul_add(self, b: $t, c: $t) -> $t {
                <$t>::mul_add(self, b, c)
            }
            fn minus(self, b: $t) -> $t {
                self - b
            }
            fn from_f64(value: f64) -> $t {
                value as $t
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
        }
    };
}
float_arithmetic!(f32);
float_arithmetic!(f64);

impl Arithmetic for i32 {
    fn mul_add(self, b: i32, c: i32) -> i32 {
        self.wrapping_mul(b).wrapping_add(c)
    }
    fn minus(self, b: i32) -> i32 {
        self - b
    }
    fn from_f64(value: f64) -> i32 {
        value as i32
    }
    fn to_f64(self) -> f64 {
        self.into()
    }
}

/// An operand, its codes read as the values they mean: exactly, for sums hold every value of the formats they are made of.
pub(crate) struct Values<'a, A> {
    values: Vec<A>,
    start: usize,
    layout: Layout,
    zero: Zero<'a>,
    blocks: Option<BlockScales<'a>>,
}

impl<'a, A: Arithmetic> Values<'a, A> {
    /// The elements of a view, in another layout.
    pub(crate) fn new<T: Element>(view: &View<'a, T>, layout: Layout) -> Self {
        let words = view.words();
        let values = (0..words.len()).map(|i| A::from_f64(words.value(view.format(), i))).collect();
        Values { values, start: view.start(), layout, zero: view.zero(), blocks: view.blocks() }
    }

    /// A value of a matrix, times the scale of its block, rounded once to f32.
    fn scaled(&self, value: A, row: usize, col: usize) -> A {
        let Some(BlockScales { scales, rows, cols }) = self.blocks else { return value };
        let across = self.dims()[self.dims().len() - 1].div_ceil(cols);
        A::from_f64((value.to_f64() as f32 * scales[row / rows * across + col / cols]).into())
    }

    fn dims(&self) -> &[usize] {
        self.layout.dims()
    }

    fn strides(&self) -> &[isize] {
        self.layout.strides()
    }

    /// The element `offset` from the element at index 0, of row, column or channel `x`, less its zero point.
    fn at(&self, offset: isize, x: usize) -> A {
        let value = self.values[(self.start as isize + offset) as usize];
        match self.zero {
            Zero::Tensor(0) => value,
            Zero::Tensor(zero) => value.minus(A::from_f64(zero.into())),
            Zero::PerX(zeros) => value.minus(A::from_f64(zeros[x].into())),
        }
    }
}

/// N1 and N2: fma within a segment of KC, ascending from +0; each segment's sum plus +0 added to the total, ascending.
fn sum<A: Arithmetic>(terms: impl Iterator<Item = (A, A)>, old: Option<A>) -> A {
    let mut total = old;
    let mut terms = terms.peekable();
    while terms.peek().is_some() {
        let segment = terms.by_ref().take(KC).fold(A::zero(), |s, (a, b)| a.mul_add(b, s)).plus(A::zero());
        total = Some(total.map_or(segment, |t| t.plus(segment)));
    }
    total.unwrap_or(A::zero())
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

/// Where results go: the words of the output, and what values become there.
pub(crate) struct Output<'a, 'e, T: Element> {
    words: WordsMut<'a>,
    start: usize,
    layout: Layout,
    target: Target,
    accum: Accum,
    epilogue: &'e Epilogue<'e, T>,
    residual: Option<Values<'e, f64>>,
}

impl<'a, 'e, T: Element> Output<'a, 'e, T> {
    /// `layout_of` brings the layouts of the output and the residual to the operation's rank.
    pub(crate) fn new(
        out: ViewMut<'a, T>,
        accum: Accum,
        epilogue: &'e Epilogue<'e, T>,
        layout_of: impl Fn(&Layout) -> Layout,
    ) -> Self {
        let target = epilogue.target(&out.spec(), out.zero());
        let (start, layout) = (out.start(), layout_of(out.layout()));
        let residual = epilogue.residual.as_ref().map(|view| Values::new(view, layout_of(view.layout())));
        Output { words: T::words_mut(out.into_data()), start, layout, target, accum, epilogue, residual }
    }

    /// Writes one element: `terms` summed, the epilogue, narrowed. `element` is its row-major index.
    fn write<A: Arithmetic>(
        &mut self,
        index: &[usize],
        element: usize,
        row: usize,
        channel: usize,
        terms: impl Iterator<Item = (A, A)>,
    ) {
        let place = (self.start as isize + offset(index, self.layout.strides())) as usize;
        let old = || A::from_f64(self.words.as_words().value(self.target.format(), place));
        let sum = sum(terms, (self.accum == Accum::Add).then(old));
        if let WordsMut::I32(words) = &mut self.words {
            words[place] = sum.to_f64() as i32;
            return;
        }
        let residual = self.residual.as_ref().map(|values| values.at(offset(index, values.strides()), 0));
        let param = <T::Param as tile25_kernels::epilogue::Param>::from_f64;
        let here = Here {
            row_scale: self.epilogue.row_scales.map(|scales| scales[row]),
            channel_scale: self.epilogue.channel_scales.map(|scales| scales[channel]),
            bias: self.epilogue.bias.map(|bias| bias[channel]),
            residual: residual.map(param),
        };
        // A sum in i32 becomes an f32 first, rounded to nearest, ties to even (N5).
        let value = self.epilogue.apply(param(sum.to_f64()), here);
        let value = num_traits::ToPrimitive::to_f64(&value).expect("a float");
        match &mut self.words {
            WordsMut::F64(words) => words[place] = value,
            WordsMut::F32(words) => words[place] = value as f32,
            WordsMut::U16(words) => {
                words[place] =
                    self.target.code(value as f32, element as u64).expect("a narrow format") as u16;
            }
            WordsMut::U8(words) => {
                words[place] = self.target.code(value as f32, element as u64).expect("a narrow format") as u8;
            }
            WordsMut::I32(_) => unreachable!("written above"),
        }
    }
}

/// `out[.., i, j] = sum over k of lhs[.., i, k] rhs[.., k, j]`; leading dims broadcast.
pub(crate) fn matmul<A: Arithmetic, T: Element>(
    lhs: &Values<'_, A>,
    rhs: &Values<'_, A>,
    mut out: Output<'_, '_, T>,
) {
    let rank = out.layout.rank();
    let k = lhs.dims()[lhs.dims().len() - 1];
    let mut dims = [1; crate::layout::MAX_RANK];
    dims[..rank].copy_from_slice(out.layout.dims());
    // An operand has the last dims of the batch; of those, extent 1 is repeated.
    let batch_offset = |values: &Values<'_, A>, index: &[usize]| -> isize {
        let lead = values.dims().len() - 2;
        let own = values.dims()[..lead].iter().zip(values.strides()).rev();
        own.zip(index[..rank - 2].iter().rev())
            .map(|((&extent, &s), &i)| if extent == 1 { 0 } else { i as isize * s })
            .sum()
    };
    let [.., a_row, a_col] = *lhs.strides() else { unreachable!("rank 2 at least") };
    let [.., b_row, b_col] = *rhs.strides() else { unreachable!("rank 2 at least") };
    for (element, index) in indices(dims).enumerate() {
        let (i, j) = (index[rank - 2], index[rank - 1]);
        let a = batch_offset(lhs, &index) + i as isize * a_row;
        let b = batch_offset(rhs, &index) + j as isize * b_col;
        let terms = (0..k).map(|k| {
            let (from_a, from_b) = (a + k as isize * a_col, b + k as isize * b_row);
            (lhs.scaled(lhs.at(from_a, i), i, k), rhs.scaled(rhs.at(from_b, j), k, j))
        });
        out.write(&index[..rank], element, i, j, terms);
    }
}

/// A read of a padded tensor of values: zero outside.
fn padded<A: Arithmetic>(values: &Values<'_, A>, outer: [usize; 2], at: [isize; 3], bounds: [usize; 3]) -> A {
    if (0..3).any(|d| at[d] < 0 || at[d] >= bounds[d] as isize) {
        return A::zero();
    }
    let index = [outer[0], outer[1], at[0] as usize, at[1] as usize, at[2] as usize];
    values.at(offset(&index, values.strides()), 0)
}

/// `y[n, co, o] = sum over kernel position r, then input channel c of the group, of x[n, c, o stride + r dilation - pad] w[co, c, r]`.
pub(crate) fn forward<A: Arithmetic, T: Element>(
    g: &Geometry,
    x: &Values<'_, A>,
    w: &Values<'_, A>,
    mut y: Output<'_, '_, T>,
) {
    let all = indices([g.batch, g.c_out, g.output[0], g.output[1], g.output[2]]);
    for (element, index @ [n, co, o @ ..]) in all.enumerate() {
        let group = co / g.c_out_per_group();
        let terms =
            indices([g.kernel[0], g.kernel[1], g.kernel[2], g.c_in_per_group()]).map(|[r0, r1, r2, c]| {
                let r = [r0, r1, r2];
                let at = std::array::from_fn(|d| g.input_position(d, o[d], r[d]));
                let value = padded(x, [n, group * g.c_in_per_group() + c], at, g.input);
                (value, w.at(offset(&[co, c, r0, r1, r2], w.strides()), co))
            });
        y.write(&index, element, 0, co, terms);
    }
}

/// `dx[n, ci, i] = sum over the kernel positions r that meet i (o stride + r dilation - pad = i for a whole o), then output
/// channel co of the group, of dy[n, co, o] w[co, ci, r]`; an `o` outside the output is a padded tap.
pub(crate) fn backward_data<A: Arithmetic, T: Element>(
    g: &Geometry,
    dy: &Values<'_, A>,
    w: &Values<'_, A>,
    mut dx: Output<'_, '_, T>,
) {
    let all = indices([g.batch, g.c_in, g.input[0], g.input[1], g.input[2]]);
    for (element, index @ [n, ci, i @ ..]) in all.enumerate() {
        let (group, c) = (ci / g.c_in_per_group(), ci % g.c_in_per_group());
        let steps =
            move |r: [usize; 3], d: usize| (i[d] + g.padding[d].0) as isize - (r[d] * g.dilation[d]) as isize;
        let terms = indices(g.kernel)
            .filter(move |&r| (0..3).all(|d| steps(r, d).rem_euclid(g.stride[d] as isize) == 0))
            .flat_map(move |r| (0..g.c_out_per_group()).map(move |co| (r, group * g.c_out_per_group() + co)))
            .map(|(r, co)| {
                let at = std::array::from_fn(|d| steps(r, d).div_euclid(g.stride[d] as isize));
                let value = padded(dy, [n, co], at, g.output);
                (value, w.at(offset(&[co, c, r[0], r[1], r[2]], w.strides()), co))
            });
        dx.write(&index, element, 0, ci, terms);
    }
}

/// `dw[co, c, r] = sum over batch n, then output position o, of dy[n, co, o] x[n, c, o stride + r dilation - pad]`.
pub(crate) fn backward_weights<A: Arithmetic, T: Element>(
    g: &Geometry,
    x: &Values<'_, A>,
    dy: &Values<'_, A>,
    mut dw: Output<'_, '_, T>,
) {
    let all = indices([g.c_out, g.c_in_per_group(), g.kernel[0], g.kernel[1], g.kernel[2]]);
    for (element, index @ [co, c, r @ ..]) in all.enumerate() {
        let channel = co / g.c_out_per_group() * g.c_in_per_group() + c;
        let terms = indices([g.batch, g.output[0], g.output[1], g.output[2]]).map(|[n, o0, o1, o2]| {
            let o = [o0, o1, o2];
            let at = std::array::from_fn(|d| g.input_position(d, o[d], r[d]));
            let gradient = dy.at(offset(&[n, co, o0, o1, o2], dy.strides()), 0);
            (gradient, padded(x, [n, channel], at, g.input))
        });
        dw.write(&index, element, 0, co, terms);
    }
}
