//! What one lane of a packed panel holds for one step of a microkernel: one value, or several neighbours along k.

use bytemuck::{Pod, Zeroable};

/// A lane's values at [`Unit::K`] neighbouring places of k.
pub trait Unit: Pod + Send + Sync + std::fmt::Debug {
    /// What sums of products are.
    type Acc: Pod + Send + Sync + std::fmt::Debug;
    /// Places of k in one unit.
    const K: usize;
    /// Units that follow the k units of each lane: what is to be known about them.
    const TAIL: usize;
    /// The unit of zeros.
    const ZERO: Self;
}

impl Unit for f32 {
    type Acc = f32;
    const K: usize = 1;
    const TAIL: usize = 0;
    const ZERO: Self = 0.0;
}

impl Unit for f64 {
    type Acc = f64;
    const K: usize = 1;
    const TAIL: usize = 0;
    const ZERO: Self = 0.0;
}

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $acc:ty, $k:literal, $tail:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub u32);
        impl Unit for $name {
            type Acc = $acc;
            const K: usize = $k;
            const TAIL: usize = $tail;
            const ZERO: Self = $name(0);
        }
    };
}

unit! {
    /// Two bf16, the earlier one in the upper half: `vdpbf16ps` adds the upper product first, and so in ascending k. The tail is the least
    /// exponent of the panel, in every lane.
    Bf16x2, f32, 2, 1
}
unit! {
    /// The same memory as [`Bf16x2`], multiplied in f32: for panels whose exponents the dot product cannot take.
    WideBf16x2, f32, 2, 1
}
unit! {
    /// Two i16: 8-bit integers from which their zero point is already taken.
    I16x2, i32, 2, 0
}
unit! {
    /// Four bytes: u8 in lhs panels, i8 in rhs panels, zero points not yet taken. Two tail units a lane say what that makes good: in an lhs
    /// panel the sum over k and the zero point, in an rhs panel the zero point and the sum over k less the zero point at each k.
    I8x4, i32, 4, 2
}
