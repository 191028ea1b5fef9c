//! Loops written out.

/// A loop written out. The compiler does not do it for a body of this size, and sums that are indexed by a variable lie in memory.
macro_rules! for_each {
    ($i:ident in [$($n:literal)*] $body:block) => {
        $({
            let $i: usize = $n;
            $body
        })*
    };
}

pub(super) use for_each;
