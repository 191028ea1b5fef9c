//! Number formats: what an element is and which kernels it has.

mod element;

pub use element::{Element, Format};
