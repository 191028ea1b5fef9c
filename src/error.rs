//! What can be wrong with a call. Every message is a sentence that names the operation and the shapes.

use thiserror::Error;

use tile25_kernels::format::Format;
use tile25_kernels::isa::NoSuchIsa;

/// Why an operation was refused. The output is untouched.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes that do not belong together.
    #[error("{op}: {problem}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit, with the shapes.
        problem: String,
    },
    /// More dims than [`MAX_RANK`](crate::layout::MAX_RANK), or than the operation takes.
    #[error("{op}: rank {rank} of shape {dims:?} is outside {low}..={high}")]
    Rank {
        /// The operation.
        op: &'static str,
        /// The rank given.
        rank: usize,
        /// The shape given.
        dims: Vec<usize>,
        /// Smallest rank accepted.
        low: usize,
        /// Largest rank accepted.
        high: usize,
    },
    /// The number of elements, or an offset, exceeds `isize`.
    #[error("a tensor of shape {dims:?} with strides {strides:?} exceeds the address space")]
    SizeOverflow {
        /// The shape.
        dims: Vec<usize>,
        /// The strides, in elements; empty for a contiguous tensor.
        strides: Vec<isize>,
    },
    /// A dim of extent zero where there must be elements.
    #[error("{op}: {operand} of shape {dims:?} has no elements")]
    ZeroDim {
        /// The operation.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// Its shape.
        dims: Vec<usize>,
    },
    /// A view that leaves its slice.
    #[error(
        "a view of shape {dims:?} with strides {strides:?} from element {start} leaves its slice of {len} elements"
    )]
    OutOfBounds {
        /// The shape.
        dims: Vec<usize>,
        /// The strides, in elements.
        strides: Vec<isize>,
        /// The element at index 0.
        start: usize,
        /// Length of the slice.
        len: usize,
    },
    /// An output in which two elements may share a place.
    #[error("an output of shape {dims:?} with strides {strides:?} may alias itself")]
    AliasedOutput {
        /// The shape.
        dims: Vec<usize>,
        /// The strides, in elements.
        strides: Vec<isize>,
    },
    /// An operand that is not what the plan was made for.
    #[error("{op}: {operand} is {got}, the plan was made for {planned}")]
    NotPlanned {
        /// The operation.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// What was given.
        got: String,
        /// What was planned.
        planned: String,
    },
    /// A workspace made for a plan that needs less.
    #[error("{op}: the workspace belongs to another plan: it has {got}, this plan needs {needed}")]
    Workspace {
        /// The operation.
        op: &'static str,
        /// What the workspace has.
        got: String,
        /// What the plan needs.
        needed: String,
    },
    /// A packed operand made by a plan of another kernel or shape.
    #[error("{op}: the packed operand is {got}, this plan reads {needed}")]
    Packed {
        /// The operation.
        op: &'static str,
        /// What was given.
        got: String,
        /// What the plan reads.
        needed: String,
    },
    /// A format that the operation does not have, or a mix of formats.
    #[error("{op}: {} by {} to {} is not supported", formats[0], formats[1], formats[2])]
    Format {
        /// The operation.
        op: &'static str,
        /// The formats of lhs, rhs and output.
        formats: [Format; 3],
    },
    /// Something that this version does not do.
    #[error("{op}: {what} is not supported")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What was asked for.
        what: String,
    },
    /// A tile plan that breaks a law; `TilePlan::validate` gives the law as a value.
    #[error("{op}: invalid tile plan: {broken}")]
    Plan {
        /// The operation.
        op: &'static str,
        /// The law that is broken.
        broken: String,
    },
    /// An instruction set that is not there.
    #[error(transparent)]
    Isa(#[from] NoSuchIsa),
}
