//! What a run needs besides its tensors is bounded by the blocks in flight: no im2col, and nothing that grows with the images.

use tile25::conv::{Conv, Convolution};
use tile25::{Context, Format, Layout, Spec};

/// Dense, channels last or positions last.
fn spec(dims: [usize; 4], channels_last: bool) -> Spec {
    let [_, c, h, w] = dims.map(|extent| extent as isize);
    let strides = if channels_last { [h * w * c, 1, w * c, c] } else { [c * h * w, h * w, w, 1] };
    Spec { format: Format::F32, layout: Layout::strided(&dims, &strides).unwrap() }
}

/// Bytes of scratch of the three directions, with `images` of `size` x `size`.
fn scratch(images: usize, size: usize, channels: usize, groups: usize, channels_last: bool) -> [usize; 3] {
    let conv = Conv::<2> { padding: [(1, 1); 2], groups, ..Conv::default() };
    let x = spec([images, channels, size, size], channels_last);
    let w = spec([channels, channels / groups, 3, 3], channels_last);
    let ops = [
        Convolution::forward(x, w, x, &conv),
        Convolution::backward_data(x, w, x, &conv),
        Convolution::backward_weights(x, x, w, &conv),
    ];
    ops.map(|op| op.unwrap().plan(&Context::default()).unwrap().workspace().bytes())
}

#[test]
fn a_convolution_needs_no_more_for_more_images() {
    for channels_last in [true, false] {
        for groups in [1, 64] {
            let (few, many) =
                (scratch(4, 56, 64, groups, channels_last), scratch(64, 56, 64, groups, channels_last));
            assert_eq!(few, many, "groups {groups}, channels last {channels_last}");
        }
    }
}

/// Long lines of bytes and of halves, results that are narrowed: sums stand apart.
#[test]
fn a_long_line_needs_no_more_than_a_band() {
    for format in [Format::U8, Format::F16] {
        let long = |length: usize| {
            let conv = Conv::<1> { padding: [(1, 1)], ..Conv::default() };
            let x = Spec::contiguous(format, &[1, 2, length]).unwrap();
            let w = Spec::contiguous(format, &[40, 2, 3]).unwrap();
            let y = Spec::contiguous(format, &[1, 40, length]).unwrap();
            let plan = Convolution::forward(x, w, y, &conv).unwrap().plan(&Context::default()).unwrap();
            plan.workspace().bytes()
        };
        let threads = rayon::current_num_threads();
        assert_eq!(long(2_000_000), long(1_000_000), "{format}");
        assert!(long(1_000_000) <= threads * (2 << 20), "{format}: {} bytes", long(1_000_000));
    }
}

/// Kernels whose taps lie far apart, dense and depthwise: a band holds the taps, not what lies between them.
#[test]
fn a_dilated_convolution_needs_no_more_than_bands() {
    let threads = rayon::current_num_threads();
    for groups in [1, 64] {
        for dilation in [1000, 100_000] {
            let conv = Conv::<2> {
                padding: [(dilation, dilation); 2],
                dilation: [dilation; 2],
                groups,
                ..Conv::default()
            };
            let x = Spec::contiguous(Format::F32, &[2, 64, 40, 40]).unwrap();
            let w = Spec::contiguous(Format::F32, &[64, 64 / groups, 3, 3]).unwrap();
            for op in [
                Convolution::forward(x, w, x, &conv),
                Convolution::backward_data(x, w, x, &conv),
                Convolution::backward_weights(x, x, w, &conv),
            ] {
                let bytes = op.unwrap().plan(&Context::default()).unwrap().workspace().bytes();
                assert!(
                    bytes <= (threads + 1) * (4 << 20),
                    "{groups} groups, dilation {dilation}: {bytes} bytes"
                );
            }
        }
    }
}

/// The gradient of the weights, of few and of many channels.
#[test]
fn a_gradient_of_weights_needs_no_more_for_more_positions() {
    for channels in [3, 64] {
        let bytes = |images: usize, size: usize| {
            let conv = Conv::<2> { padding: [(1, 1); 2], ..Conv::default() };
            let x = Spec::contiguous(Format::F32, &[images, channels, size, size]).unwrap();
            let dy = Spec::contiguous(Format::F32, &[images, 40, size, size]).unwrap();
            let dw = Spec::contiguous(Format::F32, &[40, channels, 3, 3]).unwrap();
            let plan = Convolution::backward_weights(x, dy, dw, &conv).unwrap();
            plan.plan(&Context::default()).unwrap().workspace().bytes()
        };
        let threads = rayon::current_num_threads();
        assert_eq!(bytes(2, 500), bytes(8, 500), "{channels} channels");
        assert!(bytes(8, 500) <= threads * (4 << 20), "{channels} channels: {} bytes", bytes(8, 500));
    }
}

#[test]
fn a_convolution_makes_no_im2col() {
    const MIB: usize = 1 << 20;
    let threads = rayon::current_num_threads();
    for channels_last in [true, false] {
        for (size, channels, groups) in [(224usize, 16usize, 1), (224, 16, 16), (112, 64, 1)] {
            let im2col = size * size * channels * 9 * 4;
            let weights = channels * channels * 9 * 4;
            // A band, a block of sums or a kept lhs, and panels, for each thread.
            let bound = weights.next_multiple_of(MIB) + threads * 2 * MIB;
            for bytes in scratch(1, size, channels, groups, channels_last) {
                assert!(
                    bytes <= bound,
                    "{bytes} bytes for {size} x {size} x {channels}, im2col has {im2col}"
                );
            }
        }
    }
}
