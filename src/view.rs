//! Tensors as callers have them: borrowed views with strides, and an owned aligned tensor.

use tile25_kernels::buf::Buf;
use tile25_kernels::format::{Element, Format, Words};
use tile25_kernels::pack::Zero;

use crate::error::Error;
use crate::layout::Layout;

/// Format and layout of an operand: all that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The element format.
    pub format: Format,
    /// Shape and strides.
    pub layout: Layout,
}

impl Spec {
    /// A contiguous operand of shape `dims`.
    ///
    /// # Errors
    /// As [`Layout::contiguous`].
    pub fn contiguous(format: Format, dims: &[usize]) -> Result<Self, Error> {
        Ok(Spec { format, layout: Layout::contiguous(dims)? })
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.layout.dims()
    }
}

/// A tensor to read: a slice, where its first element is, and a layout. Strides may be zero or negative. A view of configurable floats carries their
/// bias, a view of 8-bit integers their zero point.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    data: &'a [T],
    start: usize,
    layout: Layout,
    format: Format,
    zero: Zero<'a>,
    blocks: Option<BlockScales<'a>>,
}

/// Scales of the blocks of a matrix; see [`View::block_scales`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockScales<'a> {
    pub(crate) scales: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// The codes that can stand for zero in a format: those of 8-bit integers, 0 in any other.
pub(crate) fn zero_points(format: Format) -> std::ops::RangeInclusive<i32> {
    match format {
        Format::I8 => i8::MIN.into()..=i8::MAX.into(),
        Format::U8 => 0..=u8::MAX.into(),
        _ => 0..=0,
    }
}

/// Checks that codes of type `T` may be read as `format`.
fn check_format<T: Element>(format: Format) -> Result<(), Error> {
    if format.same_kind(T::FORMAT) {
        return Ok(());
    }
    let what = format!("{format} in a tensor of {}", T::FORMAT);
    Err(Error::Unsupported { op: "view", what })
}

/// Checks that every element of `layout` from `start` is in a slice of `len` elements.
#[inline]
fn check_bounds(layout: &Layout, start: usize, len: usize) -> Result<(), Error> {
    let inside = layout.span().and_then(|(low, high)| {
        let start = isize::try_from(start).ok()?;
        let (low, high) = (start.checked_add(low)?, start.checked_add(high)?);
        Some(low >= 0 && (high as usize) < len)
    });
    if inside == Some(true) || layout.is_empty() { Ok(()) } else { Err(out_of_bounds(layout, start, len)) }
}

#[cold]
fn out_of_bounds(layout: &Layout, start: usize, len: usize) -> Error {
    Error::OutOfBounds { dims: layout.dims().to_vec(), strides: layout.strides().to_vec(), start, len }
}

impl<'a, T: Element> View<'a, T> {
    /// A row-major tensor of shape `dims` at the front of `data`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if `data` is too short; [`Error::Rank`], [`Error::SizeOverflow`].
    pub fn new(data: &'a [T], dims: impl AsRef<[usize]>) -> Result<Self, Error> {
        Self::with_layout(data, 0, Layout::contiguous(dims.as_ref())?)
    }

    /// A tensor of shape `dims` with `strides` in elements, its element at index 0 at `data[start]`.
    ///
    /// # Errors
    /// As [`View::new`]; [`Error::Shape`] where dims and strides differ in rank.
    pub fn strided(
        data: &'a [T],
        start: usize,
        dims: impl AsRef<[usize]>,
        strides: impl AsRef<[isize]>,
    ) -> Result<Self, Error> {
        Self::with_layout(data, start, Layout::strided(dims.as_ref(), strides.as_ref())?)
    }

    /// A tensor with a given layout.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    #[inline]
    pub fn with_layout(data: &'a [T], start: usize, layout: Layout) -> Result<Self, Error> {
        check_bounds(&layout, start, data.len())?;
        Ok(View { data, start, layout, format: T::FORMAT, zero: Zero::Tensor(0), blocks: None })
    }

    /// The dims in another order; see [`Layout::permute`].
    ///
    /// # Errors
    /// [`Error::Shape`] if `order` is no permutation.
    pub fn permute(self, order: &[usize]) -> Result<Self, Error> {
        Ok(View { layout: self.layout.permute(order)?, ..self })
    }

    /// The last two dims exchanged.
    ///
    /// # Errors
    /// [`Error::Rank`] below rank 2.
    pub fn transpose(self) -> Result<Self, Error> {
        Ok(View { layout: self.layout.transpose()?, ..self })
    }

    /// The view repeated to `dims`; see [`Layout::broadcast_to`].
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn broadcast_to(self, dims: impl AsRef<[usize]>) -> Result<Self, Error> {
        Ok(View { layout: self.layout.broadcast_to(dims.as_ref())?, ..self })
    }

    /// The same codes in a format that differs in parameters chosen per tensor: the bias of a configurable float.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if `T` does not hold codes of that format.
    pub fn with_format(self, format: Format) -> Result<Self, Error> {
        check_format::<T>(format)?;
        Ok(View { format, ..self })
    }

    /// The code that stands for zero in a tensor of 8-bit integers; 0 unless said otherwise. An operation refuses what is no value of the format.
    pub fn zero_point(self, zero: i32) -> Self {
        View { zero: Zero::Tensor(zero), ..self }
    }

    /// A zero point for each row of a matmul's lhs, each column of its rhs, or each output channel of a convolution's weights.
    pub fn zero_points(self, zeros: &'a [i32]) -> Self {
        View { zero: Zero::PerX(zeros), ..self }
    }

    /// Scales of blocks of `rows` by `cols` elements of a matmul's operand, row-major, `ceil(R / rows)` by `ceil(C / cols)` of them for a matrix of R by C, the
    /// same for every matrix of a batch: an element means its value times its block's scale, rounded once to f32. For narrow floats, in plans of
    /// [`Matmul::block_scaled`](crate::Matmul::block_scaled). A scale of the whole tensor, of rows or of columns belongs to the epilogue: it is faster there.
    pub fn block_scales(self, scales: &'a [f32], rows: usize, cols: usize) -> Self {
        View { blocks: Some(BlockScales { scales, rows, cols }), ..self }
    }

    /// Format and layout.
    pub fn spec(&self) -> Spec {
        Spec { format: self.format, layout: self.layout }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.layout.dims()
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }

    pub(crate) fn words(&self) -> Words<'a> {
        T::words(self.data)
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn zero(&self) -> Zero<'a> {
        self.zero
    }

    pub(crate) fn blocks(&self) -> Option<BlockScales<'a>> {
        self.blocks
    }
}

/// A tensor to write. No two of its elements share a place.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    data: &'a mut [T],
    start: usize,
    layout: Layout,
    format: Format,
    zero: i32,
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// A row-major tensor of shape `dims` at the front of `data`.
    ///
    /// # Errors
    /// As [`View::new`].
    pub fn new(data: &'a mut [T], dims: impl AsRef<[usize]>) -> Result<Self, Error> {
        Self::with_layout(data, 0, Layout::contiguous(dims.as_ref())?)
    }

    /// A tensor of shape `dims` with `strides` in elements, its element at index 0 at `data[start]`.
    ///
    /// # Errors
    /// As [`View::strided`]; [`Error::AliasedOutput`] where two elements may share a place.
    pub fn strided(
        data: &'a mut [T],
        start: usize,
        dims: impl AsRef<[usize]>,
        strides: impl AsRef<[isize]>,
    ) -> Result<Self, Error> {
        Self::with_layout(data, start, Layout::strided(dims.as_ref(), strides.as_ref())?)
    }

    /// A tensor with a given layout.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`], [`Error::AliasedOutput`].
    #[inline]
    pub fn with_layout(data: &'a mut [T], start: usize, layout: Layout) -> Result<Self, Error> {
        check_bounds(&layout, start, data.len())?;
        if !layout.is_injective() {
            return Err(Error::AliasedOutput {
                dims: layout.dims().to_vec(),
                strides: layout.strides().to_vec(),
            });
        }
        Ok(ViewMut { data, start, layout, format: T::FORMAT, zero: 0 })
    }

    /// The dims in another order; see [`Layout::permute`].
    ///
    /// # Errors
    /// [`Error::Shape`] if `order` is no permutation.
    pub fn permute(self, order: &[usize]) -> Result<Self, Error> {
        let layout = self.layout.permute(order)?;
        Ok(ViewMut { layout, ..self })
    }

    /// As [`View::with_format`].
    ///
    /// # Errors
    /// As there.
    pub fn with_format(self, format: Format) -> Result<Self, Error> {
        check_format::<T>(format)?;
        Ok(ViewMut { format, ..self })
    }

    /// As [`View::zero_point`].
    pub fn zero_point(self, zero: i32) -> Self {
        ViewMut { zero, ..self }
    }

    /// Format and layout.
    pub fn spec(&self) -> Spec {
        Spec { format: self.format, layout: self.layout }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.layout.dims()
    }

    /// The same view, borrowed for a shorter time.
    pub fn rb_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut {
            data: self.data,
            start: self.start,
            layout: self.layout,
            format: self.format,
            zero: self.zero,
        }
    }

    /// The same tensor to read.
    pub fn rb(&self) -> View<'_, T> {
        View {
            data: self.data,
            start: self.start,
            layout: self.layout,
            format: self.format,
            zero: Zero::Tensor(self.zero),
            blocks: None,
        }
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn into_data(self) -> &'a mut [T] {
        self.data
    }

    /// All elements, without a copy of the view: small products notice one.
    pub(crate) fn data_mut(&mut self) -> &mut [T] {
        self.data
    }

    pub(crate) fn zero(&self) -> i32 {
        self.zero
    }
}

/// An owned row-major tensor, aligned to 64 bytes.
#[derive(Clone, Debug)]
pub struct Tensor<T> {
    buf: Buf,
    layout: Layout,
    format: Format,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Tensor<T> {
    /// Zeros of shape `dims`.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::SizeOverflow`].
    pub fn zeros(dims: impl AsRef<[usize]>) -> Result<Self, Error> {
        let layout = Layout::contiguous(dims.as_ref())?;
        let bytes =
            layout.len().checked_mul(size_of::<T>()).filter(|&bytes| bytes < isize::MAX as usize - 64);
        let overflow = || Error::SizeOverflow { dims: dims.as_ref().to_vec(), strides: Vec::new() };
        Ok(Tensor {
            buf: Buf::zeroed(bytes.ok_or_else(overflow)?),
            layout,
            format: T::FORMAT,
            element: std::marker::PhantomData,
        })
    }

    /// A tensor of shape `dims` whose elements in row-major order are `f(0), f(1), ...`.
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    pub fn from_fn(dims: impl AsRef<[usize]>, mut f: impl FnMut(usize) -> T) -> Result<Self, Error> {
        let mut tensor = Self::zeros(dims)?;
        for (i, value) in tensor.as_mut_slice().iter_mut().enumerate() {
            *value = f(i);
        }
        Ok(tensor)
    }

    /// As [`View::with_format`].
    ///
    /// # Errors
    /// As there.
    pub fn with_format(self, format: Format) -> Result<Self, Error> {
        check_format::<T>(format)?;
        Ok(Tensor { format, ..self })
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.layout.dims()
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The elements in row-major order.
    pub fn as_slice(&self) -> &[T] {
        self.buf.as_slice(self.layout.len())
    }

    /// The elements in row-major order, to write.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.buf.as_mut_slice(self.layout.len())
    }

    /// A view of all elements.
    pub fn view(&self) -> View<'_, T> {
        View {
            data: self.as_slice(),
            start: 0,
            layout: self.layout,
            format: self.format,
            zero: Zero::Tensor(0),
            blocks: None,
        }
    }

    /// A view of all elements, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { layout: self.layout, start: 0, format: self.format, zero: 0, data: self.as_mut_slice() }
    }
}
