//! A convolution and both of its gradients, channels-last, by one-line calls.
//!
//! `cargo run --release --example convolution`

use tile25::conv::{self, Conv};
use tile25::{Error, Tensor};

fn main() -> Result<(), Error> {
    let geometry = Conv { stride: [2, 2], padding: [(0, 1); 2], ..Conv::<2>::default() };
    // NHWC memory; the permuted view has the shape [n, c, h, w] that convolutions speak of.
    let channels_last = [0, 3, 1, 2];
    let x = Tensor::<f32>::from_fn([2, 16, 16, 3], |i| (i % 11) as f32 / 11.0)?;
    let w = Tensor::<f32>::from_fn([8, 3, 3, 3], |i| (i % 7) as f32 / 7.0 - 0.5)?;
    let mut y = Tensor::<f32>::zeros([2, 8, 8, 8])?;
    conv::forward(
        x.view().permute(&channels_last)?,
        w.view(),
        y.view_mut().permute(&channels_last)?,
        &geometry,
    )?;
    println!("y[0, .., 0, 0] = {:?}", &y.as_slice()[..8]);

    // With y as its own gradient: the gradients of half the sum of its squares.
    let dy = y.view().permute(&channels_last)?;
    let (mut dx, mut dw) = (Tensor::<f32>::zeros([2, 16, 16, 3])?, Tensor::<f32>::zeros([8, 3, 3, 3])?);
    conv::backward_data(dy, w.view(), dx.view_mut().permute(&channels_last)?, &geometry)?;
    conv::backward_weights(x.view().permute(&channels_last)?, dy, dw.view_mut(), &geometry)?;
    println!("dx[0, .., 0, 0] = {:?}", &dx.as_slice()[..3]);
    println!("dw[0, 0] = {:?}", &dw.as_slice()[..9]);
    Ok(())
}
