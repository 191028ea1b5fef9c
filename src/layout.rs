//! Dims and signed strides of up to six dims, kept inline; bounds and alias checks.

use crate::error::Error;

/// Largest rank of a tensor.
pub const MAX_RANK: usize = 6;

/// The shape of a tensor and where its elements lie, relative to the element at index 0.
#[derive(Clone, Copy, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Plain", into = "Plain")
)]
pub struct Layout {
    rank: usize,
    dims: [usize; MAX_RANK],
    strides: [isize; MAX_RANK],
}

/// A layout as data.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "Layout")]
struct Plain {
    dims: Vec<usize>,
    strides: Vec<isize>,
}

#[cfg(feature = "serde")]
impl From<Layout> for Plain {
    fn from(layout: Layout) -> Self {
        Plain { dims: layout.dims().to_vec(), strides: layout.strides().to_vec() }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Plain> for Layout {
    type Error = Error;

    fn try_from(Plain { dims, strides }: Plain) -> Result<Self, Error> {
        Layout::strided(&dims, &strides)
    }
}

// Written out: every run compares layouts, and whole arrays would be compared by calls of the system's library.
impl PartialEq for Layout {
    #[inline]
    fn eq(&self, other: &Layout) -> bool {
        let same = |d: usize| self.dims[d] == other.dims[d] && self.strides[d] == other.strides[d];
        self.rank == other.rank && (0..self.rank).all(same)
    }
}

impl std::hash::Hash for Layout {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.dims(), self.strides()).hash(state);
    }
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with strides {:?}", self.dims(), self.strides())
    }
}

impl Layout {
    /// Row-major, without gaps.
    ///
    /// # Errors
    /// [`Error::Rank`] above [`MAX_RANK`], [`Error::SizeOverflow`] where the product of the dims exceeds `isize`.
    pub fn contiguous(dims: &[usize]) -> Result<Self, Error> {
        let overflow = || Error::SizeOverflow { dims: dims.to_vec(), strides: Vec::new() };
        let mut layout = Self::empty(dims)?;
        let mut stride = 1isize;
        for d in (0..dims.len()).rev() {
            layout.strides[d] = stride;
            let extent = isize::try_from(dims[d].max(1)).map_err(|_| overflow())?;
            stride = stride.checked_mul(extent).ok_or_else(overflow)?;
        }
        Ok(layout)
    }

    /// Any strides, in elements; negative and zero strides are legal. Those that no step takes may be anything: of an axis of one element a stride is brought within what all elements span, of a
    /// layout without elements strides are those of [`Layout::contiguous`].
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::SizeOverflow`] as above; [`Error::Shape`] where there are not as many strides as dims.
    pub fn strided(dims: &[usize], strides: &[isize]) -> Result<Self, Error> {
        if dims.len() != strides.len() {
            let problem = format!("shape {dims:?} and strides {strides:?} differ in rank");
            return Err(Error::Shape { op: "layout", problem });
        }
        let mut layout = Self::contiguous(dims)?;
        if layout.is_empty() {
            return Ok(layout);
        }
        layout.strides[..strides.len()].copy_from_slice(strides);
        let (low, high) = layout.span().ok_or_else(|| layout.overflows())?;
        let spanned = high.saturating_sub(low).saturating_add(1);
        for d in (0..dims.len()).filter(|&d| dims[d] == 1) {
            layout.strides[d] = strides[d].clamp(-spanned, spanned);
        }
        Ok(layout)
    }

    fn empty(dims: &[usize]) -> Result<Self, Error> {
        if dims.len() > MAX_RANK {
            let rank = dims.len();
            return Err(Error::Rank { op: "layout", rank, dims: dims.to_vec(), low: 0, high: MAX_RANK });
        }
        let mut layout = Layout { rank: dims.len(), dims: [1; MAX_RANK], strides: [0; MAX_RANK] };
        layout.dims[..dims.len()].copy_from_slice(dims);
        Ok(layout)
    }

    fn overflows(&self) -> Error {
        Error::SizeOverflow { dims: self.dims().to_vec(), strides: self.strides().to_vec() }
    }

    /// The extents.
    #[inline]
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Elements from one index value to the next, per dim.
    #[inline]
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.rank]
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.dims().contains(&0)
    }

    /// The dims in another order.
    ///
    /// # Errors
    /// [`Error::Shape`] if `order` is no permutation of the dims.
    pub fn permute(&self, order: &[usize]) -> Result<Self, Error> {
        let mut seen = [false; MAX_RANK];
        for &d in order {
            if d < self.rank {
                seen[d] = true;
            }
        }
        if order.len() != self.rank || seen[..self.rank].contains(&false) {
            let problem =
                format!("{order:?} is no permutation of the {} dims of {:?}", self.rank, self.dims());
            return Err(Error::Shape { op: "permute", problem });
        }
        let mut layout = *self;
        for (to, &from) in order.iter().enumerate() {
            layout.dims[to] = self.dims[from];
            layout.strides[to] = self.strides[from];
        }
        Ok(layout)
    }

    /// The last two dims exchanged.
    ///
    /// # Errors
    /// [`Error::Rank`] below rank 2.
    pub fn transpose(&self) -> Result<Self, Error> {
        if self.rank < 2 {
            let dims = self.dims().to_vec();
            return Err(Error::Rank { op: "transpose", rank: self.rank, dims, low: 2, high: MAX_RANK });
        }
        let mut layout = *self;
        layout.dims.swap(self.rank - 2, self.rank - 1);
        layout.strides.swap(self.rank - 2, self.rank - 1);
        Ok(layout)
    }

    /// The layout repeated to `dims` by numpy's rules: missing leading dims and dims of extent 1 get stride 0.
    ///
    /// # Errors
    /// [`Error::Shape`] where another extent than 1 would change.
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Self, Error> {
        let mut layout = Self::contiguous(dims)?;
        let refuse = || Error::Shape {
            op: "broadcast",
            problem: format!("shape {:?} does not broadcast to {dims:?}", self.dims()),
        };
        let lead = dims.len().checked_sub(self.rank).ok_or_else(refuse)?;
        for (d, &extent) in dims.iter().enumerate() {
            layout.strides[d] = match d.checked_sub(lead) {
                Some(own) if self.dims[own] == extent => self.strides[own],
                Some(own) if self.dims[own] != 1 => return Err(refuse()),
                _ => 0,
            };
        }
        Ok(layout)
    }

    /// The least and the greatest offset of an element; `None` if there are no elements or an offset overflows.
    #[inline]
    pub fn span(&self) -> Option<(isize, isize)> {
        let (mut low, mut high) = (0isize, 0isize);
        for (&extent, &stride) in self.dims().iter().zip(self.strides()) {
            let reach = isize::try_from(extent.checked_sub(1)?).ok()?.checked_mul(stride)?;
            if reach < 0 {
                low = low.checked_add(reach)?;
            } else {
                high = high.checked_add(reach)?;
            }
        }
        Some((low, high))
    }

    /// Whether no two elements share a place: ordered by stride, each dim steps over all that the smaller ones span. Layouts whose dims interleave may be
    /// refused although no two do.
    #[inline]
    pub fn is_injective(&self) -> bool {
        // Most layouts are in order as they come: each dim steps over the ones after it.
        let mut spanned = 0usize;
        for (&extent, &stride) in self.dims().iter().zip(self.strides()).rev() {
            if extent > 1 {
                let stride = stride.unsigned_abs();
                let reach = stride.checked_mul(extent - 1).and_then(|reach| spanned.checked_add(reach));
                match reach.filter(|_| stride > spanned) {
                    Some(reach) => spanned = reach,
                    None => return self.is_injective_in_some_order(),
                }
            }
        }
        true
    }

    fn is_injective_in_some_order(&self) -> bool {
        let mut dims = [(0usize, 0usize); MAX_RANK];
        let mut rank = 0;
        for (&extent, &stride) in self.dims().iter().zip(self.strides()).rev().filter(|dim| *dim.0 > 1) {
            let dim = (stride.unsigned_abs(), extent);
            let at = dims[..rank].iter().rposition(|&other| other <= dim).map_or(0, |last| last + 1);
            dims.copy_within(at..rank, at + 1);
            dims[at] = dim;
            rank += 1;
        }
        let mut spanned = 0usize;
        for &(stride, extent) in &dims[..rank] {
            if stride <= spanned {
                return false;
            }
            match stride.checked_mul(extent - 1).and_then(|reach| spanned.checked_add(reach)) {
                Some(reach) => spanned = reach,
                None => return false,
            }
        }
        true
    }
}

/// The shape that `a` and `b` broadcast to by numpy's rules.
pub(crate) fn broadcast(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>, Error> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], d: usize| (d + dims.len()).checked_sub(rank).map_or(1, |own| dims[own]);
    (0..rank)
        .map(|d| match (at(a, d), at(b, d)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(Error::Shape { op, problem: format!("batch dims {a:?} and {b:?} do not broadcast") }),
        })
        .collect()
}
