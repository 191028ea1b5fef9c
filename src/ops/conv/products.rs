//! The directions of a convolution as products between two readers.
//!
//! | direction | rows | columns | k |
//! |---|---|---|---|
//! | forward | c_out | batch, output position | kernel position, c_in |
//! | backward data, a phase at a time | c_in | batch, input position of the phase | kernel position of the phase, c_out |
//! | backward weights | c_out | c_in, kernel position | batch, output position |

use tile25_kernels::axis::{Axis, COORDS, Dim, Window};
use tile25_kernels::mat::MatSpec;
use tile25_kernels::registry::Kernel;
use tile25_kernels::scan::{Scan, ScanAxis};

use crate::backend::at_once::AtOnce;
use crate::backend::depthwise::Phased;
use crate::backend::few_phases::FewPhases;
use crate::backend::planes::Planar;
use crate::backend::schedule::{Gemm, Reader};
use crate::context::Context;
use crate::epilogue::Accum;
use crate::layout::Layout;
use crate::plan::Problem;

use super::part::{How, of_lanes};
use super::{Convolution, Direction};

/// Strides of a tensor brought to rank 5: outer two, then three spatial.
pub(super) fn strides5(layout: &Layout) -> [isize; 5] {
    let mut strides = [0; 5];
    let spatial = layout.rank() - 2;
    strides[..2].copy_from_slice(&layout.strides()[..2]);
    strides[5 - spatial..].copy_from_slice(&layout.strides()[2..]);
    strides
}

/// A layout brought to rank 5.
pub(super) fn layout5(layout: &Layout) -> Layout {
    let spatial = layout.rank() - 2;
    let mut dims = [1; 5];
    dims[..2].copy_from_slice(&layout.dims()[..2]);
    dims[5 - spatial..].copy_from_slice(&layout.dims()[2..]);
    Layout::strided(&dims, &strides5(layout)).expect("the layout was checked, dims of extent 1 add nothing")
}

impl Convolution {
    /// Its products, each with how its input is gone over: one, or for a gradient of the input one a phase.
    pub(super) fn products(&self) -> Vec<(Gemm, Scan)> {
        match self.direction {
            Direction::Forward => vec![self.forward_gemm()],
            Direction::BackwardData | Direction::Transposed => self.backward_data_gemms(),
            Direction::BackwardWeights => vec![(self.backward_weights_gemm(), self.scan())],
        }
    }

    pub(super) fn problem(&self, batch: usize, m: usize, n: usize, k: usize) -> Problem {
        Problem { formats: self.formats, batch, m, n, k }
    }

    /// How a convolution and the gradient of its weights go over the input.
    pub(super) fn scan(&self) -> Scan {
        let (g, x) = (&self.geometry, strides5(&self.first.layout));
        Scan {
            start: 0,
            images: (g.batch, x[0]),
            channels: (g.c_in_per_group(), x[1]),
            pitch: g.c_in_per_group(),
            axes: std::array::from_fn(|d| ScanAxis {
                positions: g.output[d],
                step: g.stride[d] as isize,
                taps: g.kernel[d],
                tap_step: g.dilation[d] as isize,
                origin: -(g.padding[d].0 as isize),
                size: g.input[d],
                stride: x[d + 2],
            }),
            apart: [false; COORDS],
        }
    }

    pub(super) fn forward_gemm(&self) -> (Gemm, Scan) {
        let g = &self.geometry;
        let (x, w) = (strides5(&self.first.layout), strides5(&self.second.layout));
        let (c_in, c_out) = (g.c_in_per_group(), g.c_out_per_group());
        let scan = self.scan();
        let taps = |d: usize| Dim::plain(g.kernel[d], w[d + 2]);
        let gemm = Gemm {
            problem: self.problem(g.groups, c_out, g.batch * product(g.output), product(g.kernel) * c_in),
            lhs: Reader {
                window: Window::plain(
                    0,
                    Axis::strided(c_out, w[0]),
                    Axis::new(&[taps(0), taps(1), taps(2), Dim::plain(c_in, w[1])]),
                ),
                batch: Axis::strided(g.groups, c_out as isize * w[0]),
            },
            rhs: Reader { window: scan.window(), batch: Axis::strided(g.groups, c_in as isize * x[1]) },
            dst: self.dst(&self.out.layout, false),
        };
        (gemm, scan)
    }

    /// Who executes all products at once, if someone does: of a depthwise convolution over planes, and of a strided gradient of the input that is depthwise or of few channels.
    pub(super) fn at_once(
        &self,
        products: &[(Gemm, Scan)],
        kernel: Kernel,
        context: &Context<'_>,
    ) -> Option<How> {
        let threads = context.threads.count();
        let g = &self.geometry;
        let (result, stride) = match self.direction {
            Direction::Forward => (g.output, [1; 3]),
            Direction::BackwardData | Direction::Transposed => (g.input, g.stride),
            Direction::BackwardWeights => return None,
        };
        if result[0] != 1 {
            return None;
        }
        let firsts = self.phases().map(|phase| match self.direction {
            Direction::Forward => [0; 2],
            _ => [1, 2].map(|d| g.phase_first(d, phase[d])),
        });
        let phases: Vec<_> =
            products.iter().zip(firsts).map(|(&(gemm, scan), first)| (gemm, scan, first)).collect();
        let all = AtOnce {
            products: &phases,
            dst: self.images_dst(&self.out.layout),
            lines: result[1],
            width: result[2],
            stride: [stride[1], stride[2]],
        };
        if g.groups > 1 {
            if let Some(planar) = Planar::new(&all, kernel, threads) {
                return Some(How::Planes(Box::new(planar)));
            }
            let adds = self.accum == Accum::Add;
            let phased = Phased::new(&all, adds, of_lanes(kernel, context), threads);
            return phased.map(|phased| How::Phased(Box::new(phased)));
        }
        FewPhases::new(&all, kernel, threads).map(|few| How::FewPhases(Box::new(few)))
    }

    /// One product a phase: the input positions that lie alike modulo the stride meet the same kernel positions.
    pub(super) fn backward_data_gemms(&self) -> Vec<(Gemm, Scan)> {
        let g = &self.geometry;
        let (dy, w) = (strides5(&self.first.layout), strides5(&self.second.layout));
        let (c_in, c_out) = (g.c_in_per_group(), g.c_out_per_group());
        self.phases()
            .map(|phase| {
                let mut start_w = 0;
                let mut taps_w = [Dim::plain(1, 0); 3];
                let axes: [_; 3] = std::array::from_fn(|d| {
                    let (taps, first, period) = g.phase_taps(d, phase[d]);
                    let shift = (g.phase_first(d, phase[d]) + g.padding[d].0) as isize
                        - (first * g.dilation[d]) as isize;
                    start_w += first as isize * w[d + 2];
                    taps_w[d] = Dim::plain(taps, period as isize * w[d + 2]);
                    ScanAxis {
                        positions: g.phase_extent(d, phase[d]),
                        step: 1,
                        // A phase without kernel positions has a k of 0, and nothing is read.
                        taps: taps.max(1),
                        tap_step: -((period * g.dilation[d] / g.stride[d]) as isize),
                        origin: shift.div_euclid(g.stride[d] as isize),
                        size: g.output[d],
                        stride: dy[d + 2],
                    }
                });
                let scan = Scan {
                    start: 0,
                    images: (g.batch, dy[0]),
                    channels: (c_out, dy[1]),
                    pitch: c_out,
                    axes,
                    apart: [false; COORDS],
                };
                let taps: usize = taps_w.iter().map(|dim| dim.extent).product();
                let gemm = Gemm {
                    problem: self.problem(g.groups, c_in, scan.rows(), taps * c_out),
                    lhs: Reader {
                        window: Window::plain(
                            start_w,
                            Axis::strided(c_in, w[1]),
                            Axis::new(&[taps_w[0], taps_w[1], taps_w[2], Dim::plain(c_out, w[0])]),
                        ),
                        batch: Axis::strided(g.groups, c_out as isize * w[0]),
                    },
                    rhs: Reader {
                        window: scan.window(),
                        batch: Axis::strided(g.groups, c_out as isize * dy[1]),
                    },
                    dst: self.phase_dst(phase, &self.out.layout, false),
                };
                (gemm, scan)
            })
            .collect()
    }

    /// The phases that have input positions.
    pub(super) fn phases(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let g = self.geometry;
        let [a, b, c] = [0, 1, 2].map(|d| g.phase_count(d));
        (0..a * b * c).map(move |i| [g.phase(0, i / (b * c)), g.phase(1, i / c % b), g.phase(2, i % c)])
    }

    pub(super) fn backward_weights_gemm(&self) -> Gemm {
        let (g, scan) = (&self.geometry, self.scan());
        let dy = strides5(&self.second.layout);
        let (c_in, c_out) = (g.c_in_per_group(), g.c_out_per_group());
        let [images, channel] =
            [scan.images, scan.channels].map(|(extent, stride)| Dim::plain(extent, stride));
        let (positions, taps) = scan.dims();
        let cols = self.weight_order(channel, taps);
        let of_dy = |d: usize| Dim::plain(g.output[d], dy[d + 2]);
        Gemm {
            problem: self.problem(g.groups, c_out, c_in * product(g.kernel), g.batch * product(g.output)),
            lhs: Reader {
                window: Window::plain(
                    0,
                    Axis::strided(c_out, dy[1]),
                    Axis::new(&[Dim::plain(g.batch, dy[0]), of_dy(0), of_dy(1), of_dy(2)]),
                ),
                batch: Axis::strided(g.groups, c_out as isize * dy[1]),
            },
            rhs: Reader {
                window: scan.window_of(
                    Axis::new(&cols),
                    Axis::new(&[images, positions[0], positions[1], positions[2]]),
                ),
                batch: Axis::strided(g.groups, c_in as isize * channel.stride),
            },
            dst: self.weights_dst(&self.out.layout),
        }
    }

    /// Columns of the weight gradient in the order in which its output lies: channel innermost or kernel position innermost.
    pub(super) fn weight_order<A: Copy>(&self, channel: A, taps: [A; 3]) -> [A; 4] {
        let strides = strides5(&self.out.layout);
        let channel_inside =
            (2..5).all(|d| self.geometry.kernel[d - 2] == 1 || strides[1].abs() <= strides[d].abs());
        if channel_inside {
            [taps[0], taps[1], taps[2], channel]
        } else {
            [channel, taps[0], taps[1], taps[2]]
        }
    }

    /// Where the elements of an output lie: channels as rows, positions as columns. Groups are the batch and images a part of the columns or, of a
    /// single group, images are the batch.
    pub(super) fn dst(&self, layout: &Layout, by_image: bool) -> MatSpec {
        let (g, y) = (&self.geometry, strides5(layout));
        let spatial = std::array::from_fn(|d| Dim::plain(g.output[d], y[d + 2]));
        self.positions(0, g.c_out_per_group(), &y, spatial, by_image)
    }

    /// The same with images as the batch, channels of all groups as rows and the positions of all phases as columns.
    pub(super) fn images_dst(&self, layout: &Layout) -> MatSpec {
        let (g, y) = (&self.geometry, strides5(layout));
        let forward = self.direction == Direction::Forward;
        let (extents, channels) = if forward { (g.output, g.c_out) } else { (g.input, g.c_in) };
        let spatial = std::array::from_fn(|d| Dim::plain(extents[d], y[d + 2]));
        self.positions(0, channels, &y, spatial, true)
    }

    /// The same for the positions of a phase.
    pub(super) fn phase_dst(&self, phase: [usize; 3], layout: &Layout, by_image: bool) -> MatSpec {
        let (g, dx) = (&self.geometry, strides5(layout));
        let start = (0..3).map(|d| g.phase_first(d, phase[d]) as isize * dx[d + 2]).sum();
        let spatial = std::array::from_fn(|d| {
            Dim::plain(g.phase_extent(d, phase[d]), g.stride[d] as isize * dx[d + 2])
        });
        self.positions(start, g.c_in_per_group(), &dx, spatial, by_image)
    }

    pub(super) fn positions(
        &self,
        start: isize,
        channels: usize,
        strides: &[isize; 5],
        [a, b, c]: [Dim; 3],
        by_image: bool,
    ) -> MatSpec {
        let images = Dim::plain(self.geometry.batch, strides[0]);
        let (batch, outer) = match by_image {
            true => (Axis::new(&[images]), Dim::plain(1, 0)),
            false => (Axis::strided(self.geometry.groups, channels as isize * strides[1]), images),
        };
        MatSpec {
            start,
            batch,
            rows: Axis::strided(channels, strides[1]),
            cols: Axis::new(&[outer, a, b, c]),
        }
    }

    pub(super) fn weights_dst(&self, layout: &Layout) -> MatSpec {
        let (g, dw) = (&self.geometry, strides5(layout));
        let tap = |d: usize| Dim::plain(g.kernel[d], dw[d + 2]);
        let cols = self.weight_order(Dim::plain(g.c_in_per_group(), dw[1]), [tap(0), tap(1), tap(2)]);
        MatSpec {
            start: 0,
            batch: Axis::strided(g.groups, g.c_out_per_group() as isize * dw[0]),
            rows: Axis::strided(g.c_out_per_group(), dw[0]),
            cols: Axis::new(&cols),
        }
    }

    /// Channels of the output: what a bias has one value for.
    pub(super) fn channels(&self) -> usize {
        match self.direction {
            Direction::Forward | Direction::BackwardWeights => self.geometry.c_out,
            Direction::BackwardData | Direction::Transposed => self.geometry.c_in,
        }
    }
}

fn product(extents: [usize; 3]) -> usize {
    extents.iter().product()
}
