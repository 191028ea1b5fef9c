//! candle as a contender.

use candle_core::{Device, Tensor};

use crate::contenders::Run;
use crate::conv::{Convolve, Direction, Order};

/// What candle has: planar, forward, one number of padding, stride and dilation for all axes.
pub fn takes(case: &Convolve) -> bool {
    let one = |values: &[usize]| values.iter().all(|value| *value == values[0]);
    let even =
        case.low == case.high && [&case.low, &case.stride, &case.dilation].map(|v| one(v)) == [true; 3];
    case.direction == Direction::Forward && case.order == Order::Nchw && case.input.len() < 3 && even
}

/// Its convolution. Tensors are made by the first call, which also copies the result out: neither is candle's to pay for.
pub fn convolution(case: &Convolve) -> Result<Run, String> {
    let [(x_dims, _), (w_dims, _), _] = case.tensors();
    let (padding, stride, dilation, groups) = (case.low[0], case.stride[0], case.dilation[0], case.groups);
    let planar = case.input.len() == 2;
    let mut tensors = None;
    Ok(Box::new(move |x, w, y| {
        let tensor = |data: &[f32], dims: &[usize]| {
            Tensor::from_slice(data, dims, &Device::Cpu).expect("as many elements as the shape has")
        };
        let first = tensors.is_none();
        let (x, w) = tensors.get_or_insert_with(|| (tensor(x, &x_dims), tensor(w, &w_dims)));
        let result = if planar {
            x.conv2d(w, padding, stride, dilation, groups)
        } else {
            x.conv1d(w, padding, stride, dilation, groups)
        };
        let result = std::hint::black_box(result.expect("a convolution that it has"));
        if first {
            let values = result.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
            y.copy_from_slice(&values.expect("f32"));
        }
    }))
}
