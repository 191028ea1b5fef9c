//! How a convolution goes over its input, and the part of the input that some output positions need.
//!
//! Forward, output position `p` and kernel position `t` meet the input coordinate `p step + t tap_step + origin` on each axis. Backward data is the same over the
//! gradient of the output, phase by phase, with taps that go backward. What lies outside the tensor is zero.

use std::ops::Range;

use crate::axis::{Axis, COORDS, Dim, NO_BOUND, Window};

/// One spatial axis of a [`Scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScanAxis {
    /// Number of positions.
    pub positions: usize,
    /// Coordinates from a position to the next, at least 1.
    pub step: isize,
    /// Number of taps, at least 1.
    pub taps: usize,
    /// Coordinates from a tap to the next.
    pub tap_step: isize,
    /// The coordinate of position 0 and tap 0.
    pub origin: isize,
    /// Coordinates of the tensor: `0..size`.
    pub size: usize,
    /// Elements from a coordinate to the next.
    pub stride: isize,
}

impl ScanAxis {
    /// How far taps reach beyond a position's lowest coordinate.
    pub fn reach(&self) -> usize {
        (self.taps - 1) * self.tap_step.unsigned_abs()
    }

    /// The lowest coordinate that is met.
    pub(crate) fn low(&self) -> isize {
        self.origin + (self.taps as isize - 1) * self.tap_step.min(0)
    }

    /// Coordinates from the lowest to the highest that are met.
    fn extent(&self) -> usize {
        (self.positions - 1) * self.step as usize + self.reach() + 1
    }

    /// Whether all of them are the tensor's.
    fn is_inside(&self) -> bool {
        self.low() >= 0 && self.low() + self.extent() as isize <= self.size as isize
    }

    /// Whether each position meets the coordinate of its own alone, and all coordinates are met so.
    pub fn is_whole(&self) -> bool {
        self.taps == 1 && self.step == 1 && self.origin == 0 && self.positions == self.size
    }

    /// The share of positions and taps that meet a coordinate of the tensor.
    fn share_inside(&self) -> f64 {
        let of_tap = |tap: usize| {
            let first = self.origin + tap as isize * self.tap_step;
            // Positions up to the first that is not negative, and those up to the first beyond the end.
            let up_to = |end: isize| (end.max(0) as usize).div_ceil(self.step as usize).min(self.positions);
            up_to(self.size as isize - first) - up_to(-first)
        };
        let inside: usize = (0..self.taps).map(of_tap).sum();
        inside as f64 / (self.positions * self.taps) as f64
    }

    /// Whether the coordinate `low + at` is met.
    fn meets(&self, at: usize) -> bool {
        let step = self.step as usize;
        self.reach() + 1 >= step
            || (0..self.taps).any(|tap| {
                let tap = tap * self.tap_step.unsigned_abs();
                at >= tap && (at - tap).is_multiple_of(step)
            })
    }
}

/// How a convolution goes over one group of its input. Positions are ordered image first, then axis by axis; taps axis by axis, then the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// Offset of coordinate 0 on every axis, in the first image and channel.
    pub start: isize,
    /// Number of images, and elements from one to the next.
    pub images: (usize, isize),
    /// Number of channels, and elements from one to the next.
    pub channels: (usize, isize),
    /// Elements from a place of a band to the next: as many as channels, or more; or fewer, for a band a strip of channels.
    pub pitch: usize,
    /// Depth, height, width.
    pub axes: [ScanAxis; COORDS],
    /// Axes whose taps a band holds apart: what positions meet at the first, then what they meet at the next. Where taps are far from each other that is less than all that lies between them.
    pub apart: [bool; COORDS],
}

/// A part of the input, brought to lie channels innermost and padded: `[tap that is held apart][line][coordinate across][channel]`. A line is a pair of coordinates on
/// the first two axes in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// Lines of one of the taps that are held apart, counted from the lowest coordinates that are met, image by image.
    pub lines: Range<usize>,
    /// Of these the ones that are read, by their place on the second axis: all, unless the band is of one depth of positions.
    used: Range<usize>,
    /// The number of taps that are held apart.
    parts: usize,
    /// Coordinates on the last axis, counted from the lowest that is met.
    pub across: Range<usize>,
    /// Reads the band as [`Scan::window`] reads the tensor, for its rows.
    pub window: Window,
    /// The taps alone, in the order of k.
    pub taps: Axis,
}

/// A line of a band that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which line of the band it is.
    pub place: usize,
    /// The places across that are not padding.
    pub inside: Range<usize>,
    /// Offset in the tensor of the first of these, if there is one.
    pub offset: isize,
}

/// The next odd number, if it is not one.
fn odd(places: usize) -> usize {
    places | 1
}

impl Band {
    /// Elements that it takes, or one of its strips: an odd number of places, so that the same place of many strips is in many sets of a cache.
    pub fn len(&self, pitch: usize) -> usize {
        odd(self.parts * self.lines.len() * self.across.len()) * pitch
    }
}

impl Scan {
    /// Number of positions in all images.
    pub fn rows(&self) -> usize {
        self.images.0 * self.axes.iter().map(|axis| axis.positions).product::<usize>()
    }

    /// The share of what positions meet that is padding.
    pub fn padding(&self) -> f64 {
        1.0 - self.axes.iter().map(ScanAxis::share_inside).product::<f64>()
    }

    /// The same of the first two axes alone: of lines of positions.
    pub fn padding_of_lines(&self) -> f64 {
        1.0 - self.axes[..2].iter().map(ScanAxis::share_inside).product::<f64>()
    }

    /// Of the taps on the first two axes, in the order of k, those from the first to the last that meet the tensor in some line of positions.
    pub fn taps_inside(&self, line: usize) -> Range<usize> {
        let [depth, height, _] = &self.axes;
        let (plane, row) = (line / height.positions % depth.positions, line % height.positions);
        let meets = |axis: &ScanAxis, position: usize, tap: usize| {
            let at = axis.origin + position as isize * axis.step + tap as isize * axis.tap_step;
            (0..axis.size as isize).contains(&at)
        };
        let inside =
            |tap: &usize| meets(depth, plane, tap / height.taps) && meets(height, row, tap % height.taps);
        let mut taps = 0..depth.taps * height.taps;
        let Some(first) = taps.clone().find(inside) else { return 0..0 };
        first..taps.rfind(inside).map_or(first, |last| last + 1)
    }

    /// The window that reads the tensor itself: x are positions, k taps and then the channel.
    pub fn window(&self) -> Window {
        let [images, channels] =
            [self.images, self.channels].map(|(extent, stride)| Dim::plain(extent, stride));
        let (positions, taps) = self.dims();
        let [x, k] =
            [[images, positions[0], positions[1], positions[2]], [taps[0], taps[1], taps[2], channels]];
        self.window_of(Axis::new(&x), Axis::new(&k))
    }

    /// Positions and taps as dims of a window.
    pub fn dims(&self) -> ([Dim; COORDS], [Dim; COORDS]) {
        // Where coordinates never leave the tensor, dims are plain and can merge with their neighbours.
        let dim = |d: usize, extent: usize, step: isize| {
            let (axis, stride) = (&self.axes[d], step * self.axes[d].stride);
            match axis.is_inside() {
                true => Dim::plain(extent, stride),
                false => Dim { extent, stride, along: d, step },
            }
        };
        (
            std::array::from_fn(|d| dim(d, self.axes[d].positions, self.axes[d].step)),
            std::array::from_fn(|d| dim(d, self.axes[d].taps, self.axes[d].tap_step)),
        )
    }

    /// A window over the tensor with other indices, made of [`Scan::dims`], images and the channel.
    pub fn window_of(&self, x: Axis, k: Axis) -> Window {
        let (origin, bounds) = (
            self.axes.map(|axis| if axis.is_inside() { 0 } else { axis.origin }),
            self.axes.map(|axis| if axis.is_inside() { NO_BOUND } else { axis.size as isize }),
        );
        let start = self.start + self.axes.iter().map(|axis| axis.origin * axis.stride).sum::<isize>();
        Window { start, x, k, origin, bounds }
    }

    /// Lines of one image.
    fn lines_of_image(&self) -> usize {
        self.axes[0].extent() * self.axes[1].extent()
    }

    /// The lowest line that a line of output positions meets.
    fn first_line(&self, output_line: usize) -> usize {
        let [depth, height, _] = self.axes;
        let (plane, row) = (output_line / height.positions, output_line % height.positions);
        let (image, plane) = (plane / depth.positions, plane % depth.positions);
        image * self.lines_of_image()
            + plane * depth.step as usize * height.extent()
            + row * height.step as usize
    }

    /// Lines beyond the lowest that a line of output positions meets.
    fn lines_beyond(&self) -> usize {
        self.axes[0].reach() * self.axes[1].extent() + self.axes[1].reach()
    }

    /// The taps that a band holds apart.
    fn parts(&self) -> usize {
        (0..COORDS).filter(|&d| self.apart[d]).map(|d| self.axes[d].taps).product()
    }

    /// How one of the taps that are held apart goes over the input.
    fn of_taps(&self, mut part: usize) -> Scan {
        let mut scan = Scan { apart: [false; COORDS], ..*self };
        for d in (0..COORDS).rev().filter(|&d| self.apart[d]) {
            let axis = &mut scan.axes[d];
            axis.origin += (part % axis.taps) as isize * axis.tap_step;
            (part, axis.taps) = (part / axis.taps, 1);
        }
        scan
    }

    /// The band of some positions, at least one.
    pub fn band(&self, rows: Range<usize>) -> Band {
        let together = self.of_taps(0);
        let [_, height, width] = together.axes;
        let (first, last) = (rows.start / width.positions, (rows.end - 1) / width.positions);
        let lines = together.first_line(first)..together.first_line(last) + together.lines_beyond() + 1;
        let one_plane = first / height.positions == last / height.positions;
        let used = if one_plane {
            let at = |line: usize| line % height.positions * height.step as usize;
            at(first)..at(last) + height.reach() + 1
        } else {
            0..height.extent()
        };
        let at = |row: usize| row % width.positions * width.step as usize;
        let across = if first == last {
            at(rows.start)..at(rows.end - 1) + width.reach() + 1
        } else {
            0..width.extent()
        };
        let strides = {
            let pitch = self.pitch as isize;
            let line = across.len() as isize * pitch;
            [height.extent() as isize * line, line, pitch]
        };
        let plain = |d: usize, extent: usize, step: isize| Dim::plain(extent, step * strides[d]);
        let axes = together.axes;
        // Taps that go backward begin at the far end.
        let start = (0..COORDS).map(|d| (axes[d].origin - axes[d].low()) * strides[d]).sum::<isize>()
            - lines.start as isize * strides[1]
            - across.start as isize * strides[2];
        let mut taps: [Dim; COORDS] = std::array::from_fn(|d| plain(d, axes[d].taps, axes[d].tap_step));
        let mut parts = 1;
        for d in (0..COORDS).rev().filter(|&d| self.apart[d]) {
            taps[d] = Dim::plain(self.axes[d].taps, parts as isize * lines.len() as isize * strides[1]);
            parts *= self.axes[d].taps;
        }
        let [a, b, c] = axes;
        let window = Window::plain(
            start,
            Axis::new(&[
                Dim::plain(self.images.0, together.lines_of_image() as isize * strides[1]),
                plain(0, a.positions, a.step),
                plain(1, b.positions, b.step),
                plain(2, c.positions, c.step),
            ]),
            Axis::new(&[taps[0], taps[1], taps[2], Dim::plain(self.channels.0, 1)]),
        );
        Band { lines, parts, used, across, window, taps: Axis::new(&taps) }
    }

    /// The most elements that a strip of the band of `lines` neighbouring lines of positions takes, or of `across` positions in one line.
    pub fn band_elements(&self, lines: usize, across: Option<usize>) -> usize {
        let together = self.of_taps(0);
        let width = &together.axes[2];
        let across = across.map_or(width.extent(), |positions| {
            (positions.min(width.positions) - 1) * width.step as usize + width.reach() + 1
        });
        let all = self.images.0 * self.axes[0].positions * self.axes[1].positions;
        let lines = lines.min(all);
        // Where a band begins repeats image by image.
        let first = 0..(all / self.images.0).min(all - lines + 1);
        let longest =
            first.map(|first| together.first_line(first + lines - 1) - together.first_line(first)).max();
        odd(self.parts() * (longest.unwrap_or(0) + together.lines_beyond() + 1) * across) * self.pitch
    }

    /// The lines of a band that are read.
    pub fn lines<'s>(&self, band: &'s Band) -> impl Iterator<Item = Line> + 's {
        let scan = *self;
        (0..band.parts).flat_map(move |part| {
            let first = part * band.lines.len();
            scan.of_taps(part).lines_of_part(band).map(move |line| Line { place: first + line.place, ..line })
        })
    }

    /// Those of a tap that is held apart.
    fn lines_of_part(self, band: &Band) -> impl Iterator<Item = Line> + '_ {
        let [depth, height, width] = self.axes;
        let (at, across) = self.across(band);
        band.lines.clone().filter_map(move |line| {
            let (image, of_image) = (line / self.lines_of_image(), line % self.lines_of_image());
            let (plane, row) = (of_image / height.extent(), of_image % height.extent());
            if !band.used.contains(&row) || !depth.meets(plane) || !height.meets(row) {
                return None;
            }
            let place = line - band.lines.start;
            let (z, y) = (depth.low() + plane as isize, height.low() + row as isize);
            if !(0..depth.size as isize).contains(&z) || !(0..height.size as isize).contains(&y) {
                let all = band.across.len();
                return Some(Line { place, inside: all..all, offset: 0 });
            }
            let of_line = self.start + image as isize * self.images.1 + z * depth.stride + y * height.stride;
            let offset = of_line + across.start as isize * width.stride;
            Some(Line { place, inside: at..at + across.len(), offset })
        })
    }

    /// Which coordinates of the last axis the places across a band are: the first of its places that is one of the tensor, and these coordinates.
    fn across(&self, band: &Band) -> (usize, Range<usize>) {
        let width = &self.axes[2];
        let first = width.low() + band.across.start as isize;
        let inside = |coordinate: isize| coordinate.clamp(0, width.size as isize);
        let (from, to) = (inside(first), inside(first + band.across.len() as isize));
        // Without any of the tensor's, all places are before the first.
        let at = if from < to { from - first } else { band.across.len() as isize };
        (at as usize, from as usize..to as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(axes: [(usize, isize, usize, isize, isize, usize); 3]) -> Scan {
        let mut stride = 2;
        let mut axes = axes.map(|(positions, step, taps, tap_step, origin, size)| ScanAxis {
            positions,
            step,
            taps,
            tap_step,
            origin,
            size,
            stride: 0,
        });
        for axis in axes.iter_mut().rev() {
            axis.stride = stride;
            stride *= axis.size as isize;
        }
        Scan { start: 0, images: (2, stride), channels: (2, 1), pitch: 2, axes, apart: [false; COORDS] }
    }

    #[test]
    fn padding_is_what_lies_outside() {
        for axis in [
            (7, 1, 3, 1, -1, 7),
            (7, 2, 3, 1, -1, 14),
            (4, 1, 5, -2, 3, 2),
            (3, 3, 2, 1, -9, 5),
            (1, 1, 1, 1, 4, 2),
        ] {
            let scan = scan([(1, 1, 1, 1, 0, 1), (2, 1, 1, 1, 0, 2), axis]);
            let ScanAxis { positions, step, taps, tap_step, origin, size, .. } = scan.axes[2];
            let all = (0..positions)
                .flat_map(|p| (0..taps).map(move |t| p as isize * step + t as isize * tap_step));
            let outside = all.filter(|at| !(0..size as isize).contains(&(at + origin))).count();
            let share = outside as f64 / (positions * taps) as f64;
            assert!((scan.padding() - share).abs() < 1e-12, "{axis:?}: {} {share}", scan.padding());
        }
    }

    #[test]
    fn lines_meet_the_taps_that_are_inside() {
        // Two planes of three lines, padded by one before and two behind; two taps by three.
        let scan = scan([(2, 1, 2, 1, -1, 2), (3, 1, 3, 1, -1, 2), (2, 1, 1, 1, 0, 2)]);
        let taps: Vec<_> = (0..12).map(|line| scan.taps_inside(line)).collect();
        assert_eq!(taps[..6], [4..6, 3..5, 3..4, 1..6, 0..5, 0..4]);
        assert_eq!(taps[6..], taps[..6]);
        // Taps that go backward, and none.
        let back = Scan {
            axes: [scan.axes[0], ScanAxis { tap_step: -1, origin: 1, ..scan.axes[1] }, scan.axes[2]],
            ..scan
        };
        assert_eq!([0, 2].map(|line| back.taps_inside(line)), [3..5, 5..6]);
        let none =
            Scan { axes: [ScanAxis { origin: -5, ..scan.axes[0] }, scan.axes[1], scan.axes[2]], ..scan };
        assert_eq!(none.taps_inside(0), 0..0);
    }

    /// Every element of every row of a band is that of the tensor's window, or padding.
    #[test]
    fn a_band_reads_what_the_window_reads() {
        for axes in [
            [(1, 1, 1, 1, 0, 1), (4, 1, 3, 1, -1, 4), (5, 1, 3, 1, -1, 5)],
            [(1, 1, 1, 1, 0, 1), (3, 2, 3, 1, -1, 6), (3, 2, 2, 2, -1, 5)],
            [(2, 1, 2, 1, 0, 3), (3, 1, 3, -1, 1, 3), (4, 1, 2, -2, 1, 4)],
            [(2, 3, 1, 1, 0, 4), (2, 2, 1, 1, 0, 4), (7, 1, 1, 1, 0, 7)],
            [(1, 1, 1, 1, 0, 1), (1, 1, 1, 1, 0, 1), (9, 2, 5, 3, -4, 21)],
        ] {
            for apart in 0..8 {
                let scan = Scan { apart: [0, 1, 2].map(|d| apart >> d & 1 == 1), ..scan(axes) };
                let window = scan.window();
                let tensor: Vec<u32> = (1..=scan.images.0 as u32 * scan.images.1 as u32).collect();
                for rows in (0..scan.rows()).flat_map(|from| (from + 1..=scan.rows()).map(move |to| from..to))
                {
                    let band = scan.band(rows.clone());
                    let mut data = vec![u32::MAX; band.len(2)];
                    for line in scan.lines(&band) {
                        let width = band.across.len() * 2;
                        let to = &mut data[line.place * width..][..width];
                        to.fill(0);
                        for (i, place) in line.inside.enumerate() {
                            let from = (line.offset + i as isize * scan.axes[2].stride) as usize;
                            to[place * 2..][..2].copy_from_slice(&tensor[from..from + 2]);
                        }
                    }
                    for row in rows {
                        let (x, of_band) = (window.x.cursor(row), band.window.x.offset(row));
                        for k in 0..window.k.extent() {
                            let at = window.k.cursor(k);
                            let inside = (0..COORDS).all(|d| {
                                (0..window.bounds[d])
                                    .contains(&(window.origin[d] + x.coords[d] + at.coords[d]))
                            });
                            let value = if inside {
                                tensor[(window.start + x.offset + at.offset) as usize]
                            } else {
                                0
                            };
                            let here = (band.window.start + of_band + band.window.k.offset(k)) as usize;
                            assert_eq!(data[here], value, "row {row} of {band:?}, k {k}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_band_takes_more_than_the_most() {
        for apart in 0..8 {
            let axes = [(3, 1, 2, 1, 0, 4), (4, 2, 3, 1, -1, 8), (5, 1, 3, 1, -1, 5)];
            let scan = Scan { apart: [0, 1, 2].map(|d| apart >> d & 1 == 1), ..scan(axes) };
            for lines in 1..20 {
                let bands = (0..scan.rows() / 5).map(|line| {
                    let end = (line + lines).min(scan.rows() / 5) * 5;
                    scan.band(line * 5..end).len(2)
                });
                assert_eq!(bands.max(), Some(scan.band_elements(lines, None)));
            }
            assert_eq!(scan.band(1..3).len(2), scan.band_elements(1, Some(2)));
        }
    }
}
