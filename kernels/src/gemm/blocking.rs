//! How a part of C is computed, from shapes and strides alone: what is read in place, what is kept, in which order the loops run. No choice changes a bit.

use crate::KC;
use crate::isa::is_amd;
use crate::mat::{CACHE_LINE, in_a_set};

use super::few_rows::{FEW_ROWS_STREAMED, streamed_elements};
use super::few_transposed::FEW_TRANSPOSED;
use super::small::BROUGHT_GRAIN;

// Where no figure stands beside a threshold, benches/record/2026-11-25-in-place.md has it. None of them changes a bit.

/// Bytes of the rows of an lhs over one segment that make a block of loop 3: with what passes through, it stays in a second-level cache of 1 MiB.
const LHS_BYTES: usize = 256 * 1024;
/// The same of an lhs that is kept, whose lines share no sets.
const LHS_KEPT_BYTES: usize = 512 * 1024;
/// An lhs whose rows lie side by side along k is kept if it takes more bytes than this over one segment, for [`KEEP_LHS_COLS`] columns or more: its rows, each on a page of its own, come back with
/// every panel of the rhs. Granite Rapids, 2047 x 2047 x 2047: 80 % of the peak in place, 87 kept; 2048 79 and 85; 1536 87 and 86; with 128 columns 86 and 82
/// (benches/record/2026-11-27-granite-rapids.md).
const LHS_LIES_WELL_BYTES: usize = 3 * 1024 * 1024;
/// See [`LHS_LIES_WELL_BYTES`].
const KEEP_LHS_COLS: usize = 1024;
/// Most bytes of a kept rhs over one segment.
const RHS_BYTES: usize = 4 * 1024 * 1024;
/// An operand that takes no more bytes than this over one segment, gaps between its rows included, stays in the second-level cache, or nearly.
const NEAR_CACHE_BYTES: usize = 1200 * 1024;
/// A matrix of no more bytes than this comes from the last-level cache. 768 x 2304 and 3072 x 768 by strips 90 to 110 GB/s, streamed 75 to 105; 2048 x 2048 the other way round, 55 and 64
/// with three rows (benches/record/2026-11-27-zen5.md).
const LAST_CACHE_BYTES_AMD: usize = 12 * 1024 * 1024;
/// The same on other processors: 3 x 768 x 3072 on Granite Rapids by strips 11.5 % of the peak, streamed 16.7; 3 x 384 x 1536 23.8 and 23.0.
const LAST_CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a matrix from which on a few rows go along its rows, with up to [`FEW_IN_CACHE`] rows and with more, where panels have one cache line (AVX2, NEON): it need not come from memory for that. Zen 3, undisturbed, along its rows and else, percent of the peak:
/// 1, 4, 6 and 12 rows by 128 x 128 28, 50, 56, 54 and 34, 58, 77, 82; 1, 2, 4, 8 and 16 by 256 x 256 38, 47, 72, 68, 51 and 38, 58, 58, 67, 46; 12 x 384 x 384 61 and 71; 1, 4, 6, 12 and 16 by 768 x 768 30, 65, 65, 64, 66 and 33, 50, 55, 68, 52
/// (benches/record/2026-12-01-zen3.md).
const ALONG_FEW_BYTES: [usize; 2] = [256 * 1024, 1024 * 1024];
/// See [`ALONG_FEW_BYTES`].
const FEW_IN_CACHE: usize = 8;
/// An rhs that takes no more bytes than this is read in place however often: a kept panel begins on a cache line, an operand of a caller rarely does, and loads that cross lines cost
/// some processors with two multiply-adds a cycle up to a fifth (benches/record/2026-11-26-intel.md).
/// Squares on Emerald Rapids, in place and kept: 96 88 and 83 % of the peak, 128 81 and 84 (benches/record/2026-11-28-attention.md).
const LIES_WELL_BYTES: usize = 40 * 1024;
/// The same on AMD's. Zen 5, squares, in place and kept: 128 93 and 87 % of the peak, 256 95 and 91, 384 91 and 93.
const LIES_WELL_BYTES_AMD: usize = 300 * 1024;
/// The same there of panels of one cache line, those of AVX2, of which each row of the rhs is on another. Zen 4, percent of the peak, in place and kept: 192 x 192 x 192 89 both, 1024 x 200 x 200 92 and 88, 224 x 224 x 224 91 and 89,
/// 255 x 255 x 255 82.6 and 88, 256 x 256 x 256 84 and 89.5, 272 x 272 x 272 79 and 89; but 32 x 256 x 256 89 and 85.
const LIES_WELL_BYTES_NARROW: usize = 200 * 1024;
/// A panel of no more bytes than this stays in the first-level cache while a few tiles pass, and is not kept on AMD's. Zen 5, in place and kept: 64 x 3136 x 64 89 and 82 % of the peak, 128 x 784 x 128 94 and 89,
/// 96 x 3136 x 96 92 and 86; but 64 x 3136 x 256, of 48 KiB, 87.5 and 88, and 256 x 3136 x 64 91.5 and 93.
const NEAR_PANEL_BYTES: usize = 24 * 1024;
/// See [`NEAR_PANEL_BYTES`]: most tiles down the rows.
const NEAR_PANEL_ROWS: usize = 16;
/// See [`NEAR_PANEL_BYTES`]: rows of it that may begin in one set of the first-level cache.
const NEAR_PANEL_IN_A_SET: usize = 8;
/// Bytes from a column of an lhs that comes from memory to the next from which on it is asked for. The gradient of the weights of 64 to 256 channels @56, eight images, on Emerald Rapids: 42 % of the
/// peak asked for, 30 not; not swept below.
const COLUMNS_APART: usize = 1024;
/// Panels of the other operand from which on it is worth keeping one that does not lie well.
const KEEP_FROM: usize = 3;

/// Tiles down the rows of a block from which on the next panel of an rhs that no second-level cache holds is asked for; one from memory always is. 16 x 2304 x 768 (two tiles) on Zen 5: 75 % of the
/// peak asked for, 90 not; 24 x 2304 x 768 79 and 75.
pub(super) const ASK_FROM: usize = 3;

/// Bytes after which addresses share a set of the first-level cache.
const PAGE: usize = 4096;

/// Panels of rows that go through all of k together: 4096 x 16 x 4096 on Zen 5 39, 41, 43, 52, 54, 47 and 48 % of the peak with 1, 2, 4, 8, 16, 32 and 64.
const ALONG_K_ROWS_AMD: usize = 16;
/// The same on other processors: on Granite Rapids 4096 x 2 to 32 x 4096 take 0.55 to 0.7 of the time with 1 or 2 that they take with 8, with 4 0.6 to 0.7.
const ALONG_K_ROWS: usize = 2;

/// Columns from which on the kernels for few rows are taken. Not swept.
pub const FEW_ROWS_COLS: usize = 64;

/// Steps of k up to which a product that is read in place takes the short loops: a tile then takes less time than what it would ask for ahead.
/// Not swept.
const SMALL_K: usize = 64;
/// The same where both operands lie in a cache, so that nothing is worth asking for. 96 x 128 x 64 x 128 on Zen 5: 92 % of the peak, by the long loops 80.
const SMALL_NEAR_K: usize = 256;

/// Columns of an rhs up to which it is brought to rows where its columns lie side by side: rows of more share sets of the first-level cache. Not swept.
const BROUGHT_COLS: usize = 256;

/// Bytes of the panels of an rhs that stay in the second-level cache while rows of the lhs pass along them ([`Blocking::along_rows`]), of which it has 2 MiB. On Granite Rapids against the other order
/// of loops, in turns: 1024 x 1024 x 1024 1.047, with 700 KiB 1.022, 1300 KiB 1.032; 4096 x 4096 x 16 1.80, 1.79, 1.74 (benches/record/2026-11-27-along-rows.md).
const ALONG_ROWS_BYTES: usize = 1024 * 1024;
/// The same where it has 1 MiB. Not measured.
const ALONG_ROWS_BYTES_AMD: usize = 512 * 1024;
/// The same of panels of one cache line, those of AVX2, on any processor: one that has no more often has 512 KiB or less. Zen 3, percent of the peak with 512 and 256 KiB: 256 x 256 x 256 88.2 and 88.9, 1024 x 1024 x 1024 85.7 and 86.3,
/// 1023 x 1023 x 1023 84.9 and 84.8.
const ALONG_ROWS_BYTES_NARROW: usize = 256 * 1024;
/// Steps of k up to which a result that leaves the caches is written in this order whatever the processor and the lhs: the other one writes it in pieces of a panel, each on a page of its own.
/// Not measured on AMD's.
const ALONG_ROWS_SHORT_K: usize = 128;
/// Rows from which on processors other than AMD's take it for any k, with an rhs of more than [`ALONG_ROWS_FROM_BYTES`] over one segment, whatever the size of the result, unless the lhs has to be kept (2048 x 2048 x 2048 tn 0.93): 256 x 256 x 256 0.98, 384 x 384 x 384 1.03,
/// 128 x 768 x 768 0.97, 1024 x 1152 x 384 1.05.
const ALONG_ROWS_FROM: usize = 256;
/// See [`ALONG_ROWS_FROM`].
const ALONG_ROWS_FROM_BYTES: usize = 256 * 1024;

/// Bytes of small products that are computed tile by tile, all their first tiles first. A thousand of 32 x 32 x 32: 76.6 % of the peak, with 128 KiB 67.6.
const NEAR_BYTES: usize = 16 * 1024;

/// Rows and steps of k of a product from which on it asks for the next of its batch: below, its tiles take too little time for that. On Emerald Rapids, batches of 1000 that no second-level cache
/// holds, asked for and not: 64 x 64 x 64 70 and 36 % of the peak, 56 x 56 x 56 61 and 38, 48 x 48 x 48 63 and 60, 40 x 40 x 40 49 and 52, 128 x 32 x 32 50 and 63, 9 x 64 x 64 30 and 34
/// (benches/record/2026-11-28-attention.md).
const ASK_FOR_NEXT_FROM: [usize; 2] = [16, 48];
/// Bytes of a product up to which it does so on AMD's. Zen 5, asked for and not: 1000 x 64 x 64 x 64 73 and 65 % of the peak; 96 x 128 x 64 x 128, of twice as many bytes, 89 and 94, by the short loops
/// (benches/record/2026-11-28-zen5.md).
const ASK_FOR_NEXT_BYTES_AMD: usize = 64 * 1024;

/// What is kept of an operand over one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing: it is read where it lies.
    Nothing,
    /// The panel in use.
    Panel,
    /// All that a block of loop 3 or 5 reads.
    Block,
}

/// How a part of C is computed: block sizes, and what is kept of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Rows of a block of loop 3.
    pub(super) rows: usize,
    /// Columns of a block of loop 5.
    pub(super) cols: usize,
    /// What is kept of the lhs: nothing or a block.
    pub(super) lhs: Kept,
    /// What is kept of the rhs.
    pub(super) rhs: Kept,
    /// Whether an operand that is read in place is asked for before it is.
    pub(super) far: [bool; 2],
    /// Small products that are computed together.
    pub(super) products: usize,
    /// Bytes of a product: of its operands and its result.
    pub(super) bytes: usize,
    /// Whether tiles go along the rows of the result, all panels of a block of columns near.
    pub(super) along_rows: bool,
    /// Whether the rhs is one panel, or would be one if it were brought to one.
    pub(super) one_panel: bool,
    /// Whether an rhs whose columns lie side by side is brought to rows, all of it.
    pub(super) brings: bool,
    /// Whether a block of rows goes through all of k before the next.
    pub(super) along_k: bool,
    /// Whether tiles of few columns may be taller than others.
    pub(super) tall: bool,
    /// Whether the rhs is too large for any cache.
    pub(super) from_memory: bool,
    /// Whether a few rows are multiplied by an rhs that comes from memory: scratch of the lhs then is for sums.
    pub(super) streams: bool,
    /// Elements of scratch.
    pub(super) scratch: [usize; 2],
}

/// What [`Blocking::new`] asks of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// In memory, readable in place: elements from one row or column of C, and from one step of k, to the next.
    Strided([isize; 2]),
    /// In memory with these strides, but so that rows of an rhs do not lie side by side.
    Transposed([isize; 2]),
    /// So that it must be packed.
    Otherwise,
}

impl Blocking {
    /// The same with blocks of the lhs kept, of `m` rows in panels of `mr`. Shapes decide it otherwise; no bit depends on it.
    pub fn keeping_lhs(mut self, m: usize, mr: usize) -> Self {
        self.lhs = Kept::Block;
        self.scratch[0] = m.min(self.rows).next_multiple_of(mr) * KC;
        self
    }

    /// For parts of at most `m` x `n` with `k` steps, elements of `bytes`, microkernels of `mr` x `nr`.
    pub fn new([m, n, k]: [usize; 3], bytes: usize, [mr, nr]: [usize; 2], lhs: Lies, rhs: Lies) -> Self {
        let kc = k.clamp(1, KC);
        let area = |a: usize, b: usize| a.saturating_mul(b).saturating_mul(bytes);
        // One panel of the rhs for all of k, which stays in the second-level cache while rows of the lhs come from afar, each in one long run.
        let along_k = matches!(lhs, Lies::Strided([_, 1]))
            && n <= nr
            && area(m, k) > NEAR_CACHE_BYTES
            && area(nr, k) <= LHS_BYTES * 4;
        // Rows a multiple of a page apart share a set of the first-level cache: 128 x 16 x 1024 65 % of the peak by tiles of 8 rows, 44 by 16; 1760 x 16 x 1760 68 and 77.
        let shares_sets = |across: isize| across.unsigned_abs().wrapping_mul(bytes).is_multiple_of(PAGE);
        let tall = !matches!(lhs, Lies::Strided([across, _]) if shares_sets(across));
        let exceeds = |lies: Lies, x: usize, most: usize| match lies {
            Lies::Strided([across, down]) | Lies::Transposed([across, down]) => {
                // A layout may reach further than any memory: nothing is allocated for it.
                let taken =
                    x.saturating_mul(across.unsigned_abs()).max(kc.saturating_mul(down.unsigned_abs()));
                taken.saturating_mul(bytes) > most
            }
            Lies::Otherwise => true,
        };
        let far = [exceeds(lhs, m, NEAR_CACHE_BYTES), exceeds(rhs, n, NEAR_CACHE_BYTES)];
        // A lhs that has to be kept would be kept anew for every block of columns.
        let lhs_lies_well = match lhs {
            Lies::Strided([_, 1]) => true,
            Lies::Strided(_) => !far[0],
            Lies::Transposed(_) | Lies::Otherwise => false,
        };
        let large = area(m, n) > NEAR_CACHE_BYTES && m.div_ceil(mr) >= KEEP_FROM;
        // The short loops, which AMD's take up to here, went along the rows of a large result as well.
        let near_on_amd = is_amd() && far == [false; 2] && k <= SMALL_NEAR_K;
        // The widest tile has four thirds of a panel's columns.
        let one_panel = n <= nr / 3 * 4;
        let narrow = nr * bytes <= CACHE_LINE;
        let lies_well = match is_amd() {
            true if narrow => LIES_WELL_BYTES_NARROW,
            true => LIES_WELL_BYTES_AMD,
            false => LIES_WELL_BYTES,
        };
        let along_rows = !along_k
            && !one_panel
            && match k <= ALONG_ROWS_SHORT_K || near_on_amd {
                true if large => true,
                _ if !lhs_lies_well => false,
                // A segment of a narrow panel fills the first-level cache, one of a panel of the lhs a third. Zen 3, percent of the peak, against the other order of loops: 256 x 256 x 256
                // 89 and 84, 1023 x 1023 x 1023 85 and 80, 128 x 768 x 768 70 and 60, 3136 x 64 x 256 80 and 66; 32 x 768 x 768 64 and 60.
                _ if narrow => m.div_ceil(mr) >= KEEP_FROM && exceeds(rhs, n, lies_well),
                _ if is_amd() => false,
                _ => large || m >= ALONG_ROWS_FROM && area(n, kc) > ALONG_ROWS_FROM_BYTES,
            };
        let keep_lhs = match lhs {
            Lies::Strided([_, 1]) if along_rows => false,
            // Streams along k that the processor foresees.
            Lies::Strided([_, 1]) => n >= KEEP_LHS_COLS && area(m, kc) > LHS_LIES_WELL_BYTES,
            Lies::Strided(_) => far[0] && n.div_ceil(nr) >= KEEP_FROM,
            Lies::Transposed(_) | Lies::Otherwise => true,
        };
        let block = if keep_lhs && !along_rows { LHS_KEPT_BYTES } else { LHS_BYTES };
        let along_k_rows = if is_amd() { ALONG_K_ROWS_AMD } else { ALONG_K_ROWS };
        let rows = if along_k { along_k_rows } else { (block / (kc * bytes) / mr).max(1) } * mr;
        let last_cache = if is_amd() { LAST_CACHE_BYTES_AMD } else { LAST_CACHE_BYTES };
        let from_memory = area(n, k) > last_cache;
        let streams = matches!((keep_lhs, rhs), (false, Lies::Strided(_)))
            && m <= FEW_ROWS_STREAMED
            && n >= FEW_ROWS_COLS
            && (from_memory || narrow && area(n, k) > ALONG_FEW_BYTES[(m > FEW_IN_CACHE) as usize]);
        let sums = if streams { streamed_elements([m, n, k], bytes) } else { 0 };
        // Rows of one panel, one behind the other: copied they would lie no better.
        let is_panel = |down: isize| one_panel && down.unsigned_abs() <= nr / 3 * 4;
        let keep_rhs = match rhs {
            _ if along_rows => true,
            Lies::Strided([_, down]) if !along_k && is_panel(down) => false,
            Lies::Strided([_, down])
                if is_amd()
                    && m <= NEAR_PANEL_ROWS * mr
                    && kc * nr * bytes <= NEAR_PANEL_BYTES
                    && in_a_set(down.unsigned_abs().wrapping_mul(bytes), kc) <= NEAR_PANEL_IN_A_SET =>
            {
                false
            }
            Lies::Strided(_) => !streams && exceeds(rhs, n, lies_well) && m.div_ceil(mr) >= KEEP_FROM,
            Lies::Transposed(_) | Lies::Otherwise => true,
        };
        // Of a lhs that comes from memory column by column, a tile reads a line of each: the processor does not foresee them from here on.
        let columns_from_memory = match lhs {
            Lies::Strided([1, down]) => {
                down.unsigned_abs().saturating_mul(bytes) >= COLUMNS_APART
                    && k > kc
                    && area(m, k) > last_cache
            }
            _ => false,
        };
        let far = [far[0] || columns_from_memory, far[1]];
        let (lhs, lhs_panels) =
            if keep_lhs { (Kept::Block, m.min(rows).div_ceil(mr)) } else { (Kept::Nothing, 0) };
        let whole = n.next_multiple_of(nr);
        // What cannot be read in place is read once, into a panel as wide as it.
        let one_panel = one_panel && !along_k && !keep_lhs;
        let rhs_lies = rhs;
        let (rhs, cols, rhs_panels) = match keep_rhs {
            false => (Kept::Nothing, whole, 0),
            // One panel, read by every block of rows.
            true if along_k => (Kept::Block, whole, 1),
            true if along_rows => {
                let most = match is_amd() {
                    _ if narrow => ALONG_ROWS_BYTES_NARROW,
                    true => ALONG_ROWS_BYTES_AMD,
                    false => ALONG_ROWS_BYTES,
                };
                let most = (most / (kc * bytes) / nr).max(1) * nr;
                let cols = n.div_ceil(n.div_ceil(most)).next_multiple_of(nr);
                (Kept::Block, cols, n.min(cols).div_ceil(nr))
            }
            true if one_panel => (Kept::Block, whole, n.div_ceil(nr)),
            // Each panel is read by one block of rows only.
            true if m <= rows => (Kept::Panel, whole, 1),
            true => {
                let cols = ((RHS_BYTES / (kc * bytes)) / nr).max(1) * nr;
                (Kept::Block, cols, n.min(cols).div_ceil(nr))
            }
        };
        let kept_steps = if along_k { k } else { kc };
        let all = area(m, k).saturating_add(area(k, n)).saturating_add(area(m, n));
        let products = (NEAR_BYTES / all.max(1)).max(1);
        let brings = matches!(rhs_lies, Lies::Transposed(_))
            && lhs == Kept::Nothing
            && far == [false; 2]
            && k <= SMALL_NEAR_K
            && n <= BROUGHT_COLS
            && !along_rows
            && !along_k;
        let brought = if brings { products * k * n.next_multiple_of(BROUGHT_GRAIN) } else { 0 };
        Blocking {
            rows,
            cols,
            lhs,
            rhs,
            far,
            products,
            bytes: all,
            along_rows,
            along_k,
            one_panel,
            brings,
            tall,
            streams,
            from_memory,
            scratch: [sums.max(lhs_panels * mr * kc), brought.max(rhs_panels * nr * kept_steps)],
        }
    }

    /// Most steps of k of the short loops.
    pub(super) fn small_k(&self) -> usize {
        if self.far == [false; 2] { SMALL_NEAR_K } else { SMALL_K }
    }

    /// Whether a product of `m` x `n` with `k` steps whose operands both lie in place, with no epilogue, takes the short loops and no other: it can be computed as a [`Single`](super::Single).
    pub fn is_single(&self, [m, n, k]: [usize; 3]) -> bool {
        [self.lhs, self.rhs] == [Kept::Nothing; 2]
            && k <= self.small_k()
            && (m > FEW_ROWS_STREAMED || n < FEW_ROWS_COLS)
            && n > FEW_TRANSPOSED
    }

    /// Whether, while one of `batch` products with `m` rows and `k` steps is computed, what the next one reads is asked for: together they leave the second-level cache,
    /// two of them do not.
    pub(super) fn asks_for_next(&self, batch: usize, [m, k]: [usize; 2]) -> bool {
        let most = if is_amd() { ASK_FOR_NEXT_BYTES_AMD } else { NEAR_CACHE_BYTES / 2 };
        m >= ASK_FOR_NEXT_FROM[0]
            && k >= ASK_FOR_NEXT_FROM[1]
            && self.products == 1
            && !self.along_k
            && self.bytes <= most
            && self.bytes.saturating_mul(batch) > NEAR_CACHE_BYTES
    }

    /// Elements of scratch for the lhs and for the rhs.
    pub fn scratch(&self) -> [usize; 2] {
        self.scratch
    }
}
