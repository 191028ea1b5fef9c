//! Casts on rayon's threads: a slice is halved until its parts are small.

use tile25_kernels::Isa;
use tile25_kernels::cast::Cast;
use tile25_kernels::format::Element;

use crate::context::Threads;

/// Elements up to which one thread casts alone: waking a second one takes 20 to 50 us here, in which one thread casts as many
/// (benches/record/2026-11-25-formats.md).
const ALONE: usize = 512 * 1024;

/// Casts `src` to `dst`; results do not depend on how the work is cut.
pub(crate) fn run<A: Element, B: Element>(
    cast: Cast,
    isa: Isa,
    src: &[A],
    dst: &mut [B],
    threads: &Threads<'_>,
) {
    match threads {
        Threads::Seq => cast.run(isa, A::words(src), B::words_mut(dst), 0),
        Threads::Pool(pool) if src.len() > ALONE => pool.install(|| halve(cast, isa, src, dst, 0)),
        _ => halve(cast, isa, src, dst, 0),
    }
}

fn halve<A: Element, B: Element>(cast: Cast, isa: Isa, src: &[A], dst: &mut [B], first: u64) {
    if src.len() <= ALONE || rayon::current_num_threads() == 1 {
        cast.run(isa, A::words(src), B::words_mut(dst), first);
        return;
    }
    let middle = src.len() / 2;
    let ((a, b), (c, d)) = (src.split_at(middle), dst.split_at_mut(middle));
    rayon::join(|| halve(cast, isa, a, c, first), || halve(cast, isa, b, d, first + middle as u64));
}
