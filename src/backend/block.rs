//! Blocks of positions of a convolution: what is copied to a band, or read in place, before the next.

use tile25_kernels::KC;
use tile25_kernels::axis::COORDS;
use tile25_kernels::gemm::Strip;
use tile25_kernels::pack::Form;
use tile25_kernels::scan::Scan;

/// Bytes of a band: half of a second-level cache of 1 MiB, for results and weights pass through it too.
pub(super) const BAND_BYTES: usize = 512 * 1024;
/// Least positions of a block in one line.
pub(super) const LEAST_ACROSS: usize = 48;

/// Bands' worth of bytes that a band may take where fewer positions in a line would be too few, or lines of a segment take more than one.
pub(super) const MOST_BANDS: usize = 4;

/// Lanes of the widest vector.
pub(crate) const LANES_AT_MOST: usize = 16;

/// Whether so many positions leave an eighth of the lanes idle at most.
pub(crate) fn fills_lanes(positions: usize) -> bool {
    positions.next_multiple_of(LANES_AT_MOST) * 8 <= positions * 9
}

/// Channels of a strip of a cache line; `None` of kernels of other formats than f32 and f64.
pub(super) fn strip_of(form: Form) -> Option<usize> {
    match form {
        Form::F32 => Some(f32::LEN),
        Form::F64 => Some(f64::LEN),
        _ => None,
    }
}

/// How positions are cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// So many, read in place.
    Rows(usize),
    /// Those of so many lines, copied.
    Lines(usize),
    /// So many in one line, copied.
    Across(usize),
}

/// Of the ways to hold taps apart ([`Scan::apart`]) that are further from each other than neighbours, the one that `cost` gives least; of equals the one that holds fewest apart.
fn held_apart(scan: &Scan, cost: impl Fn(&Scan) -> Option<f64>) -> Scan {
    let dilated = scan.axes.map(|axis| axis.taps > 1 && axis.tap_step.abs() > 1);
    if dilated == [false; COORDS] {
        return *scan;
    }
    let ways = (0usize..1 << COORDS)
        .map(|set| (set.count_ones(), std::array::from_fn(|d| set >> d & 1 == 1)))
        .filter(|(_, apart)| (0..COORDS).all(|d| dilated[d] || !apart[d]))
        .map(|(count, apart)| (count, Scan { apart, ..*scan }))
        .map(|(count, way)| (cost(&way).unwrap_or(f64::INFINITY), count, way));
    let least = ways.min_by(|(a, m, _), (b, n, _)| a.total_cmp(b).then(m.cmp(n)));
    least.map_or(*scan, |(.., way)| way)
}

impl Block {
    /// How to hold taps apart so that [`Block::copied`] copies least for each position.
    pub(super) fn held_apart(scan: &Scan, strips: usize, bytes: usize) -> Scan {
        held_apart(scan, |way| {
            Block::copied(way, strips, bytes).map(|(_, positions, band)| band as f64 / positions as f64)
        })
    }

    /// Blocks of positions whose input is copied to a band of elements of `bytes`, `strips` of them at a time; the most positions of one, and elements of its band. `None` if that of a position
    /// takes more than [`MOST_BANDS`].
    pub(super) fn copied(scan: &Scan, strips: usize, bytes: usize) -> Option<(Block, usize, usize)> {
        let (most, width) = (BAND_BYTES / bytes / strips, scan.axes[2].positions);
        let all = scan.rows() / width;
        let doubled = |first: usize, end: usize| (0..).map(move |i| first << i).take_while(move |&n| n < end);
        let lines = doubled(1, 2 * all).take_while(|&lines| scan.band_elements(lines, None) <= most).last();
        if let Some(lines) = lines {
            let rows = scan.rows().min(lines * width);
            return Some((Block::Lines(lines), rows, strips * scan.band_elements(lines, None)));
        }
        let fits = |&across: &usize| scan.band_elements(1, Some(across)) <= most;
        let across = doubled(LEAST_ACROSS, width).take_while(fits).last().or_else(|| {
            let mut fewer = std::iter::successors(Some(LEAST_ACROSS), |&n| (n > 1).then_some(n / 2));
            fewer.find(|&n| scan.band_elements(1, Some(n)) <= MOST_BANDS * most)
        })?;
        let across = across.min(width);
        Some((Block::Across(across), across, strips * scan.band_elements(1, Some(across))))
    }

    /// Where the block ends that begins at position `row`, of those up to `end`.
    pub(super) fn end(self, scan: &Scan, row: usize, end: usize) -> usize {
        let width = scan.axes[2].positions;
        let line = row / width;
        end.min(match self {
            Block::Rows(rows) => row + rows,
            Block::Lines(lines) => (line + lines) * width,
            Block::Across(positions) => ((line + 1) * width).min(row + positions),
        })
    }
}

/// Positions that are summed up from one band: whole segments, which may begin and end in the middle of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segments {
    pub(super) positions: usize,
    /// Strips of channels that are copied together, and elements of a band of one.
    pub(super) strips: usize,
    pub(super) band: usize,
}

impl Segments {
    /// How to hold taps apart so that bands hold least for each position.
    pub(super) fn held_apart(scan: &Scan, k: usize, strips: usize, bytes: usize) -> Scan {
        held_apart(scan, |way| {
            let segments = Segments::new(way, k, strips, bytes);
            Some(segments.band as f64 / segments.positions as f64)
        })
    }

    /// Of `k` positions of up to `strips` strips: as many as keep all of these within [`BAND_BYTES`], at least a segment, and then as many strips as do.
    pub(super) fn new(scan: &Scan, k: usize, strips: usize, bytes: usize) -> Segments {
        let most = BAND_BYTES / bytes;
        let fits = |&positions: &usize| strips * Self::elements(scan, positions) <= most;
        let segments = (0..).map(|i| KC << i).take_while(|&positions| positions < 2 * k);
        let positions = segments.take_while(fits).last().unwrap_or(KC);
        let band = Self::elements(scan, positions);
        Segments { positions, strips: (most / band).clamp(1, strips), band }
    }

    /// The most elements that a strip of a band of so many positions takes.
    pub(super) fn elements(scan: &Scan, positions: usize) -> usize {
        let width = scan.axes[2].positions;
        let across = Some(positions).filter(|_| scan.rows() == width);
        scan.band_elements(positions.div_ceil(width) + 1, across)
    }

    /// Whether bands take no more than [`MOST_BANDS`], and hold little that their neighbours hold as well.
    pub(super) fn pay(&self, scan: &Scan, k: usize, bytes: usize) -> bool {
        let whole = scan.band_elements(scan.rows() / scan.axes[2].positions, None);
        self.strips * self.band <= MOST_BANDS * BAND_BYTES / bytes
            && self.band * k.div_ceil(self.positions) <= 2 * whole
    }
}
