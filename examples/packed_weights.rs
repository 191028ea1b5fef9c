//! A layer that runs often: planned once, its weights packed once and stored for the next process (feature `serde`), bias and activation in the epilogue, no allocation in the loop.
//!
//! `cargo run --release --example packed_weights`

use std::error::Error;

use tile25::{Act, Context, Epilogue, Matmul, PackedRhs, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let x = Tensor::<f32>::from_fn([128, 768], |i| (i % 13) as f32 / 13.0)?;
    let weights = Tensor::<f32>::from_fn([768, 3072], |i| (i % 17) as f32 / 17.0)?;
    let bias = vec![0.1f32; 3072];
    let mut y = Tensor::<f32>::zeros([128, 3072])?;

    let plan =
        Matmul::new(x.view().spec(), weights.view().spec(), y.view().spec())?.plan(&Context::default())?;
    // As a file would keep them, in whatever format serde writes. The next process checks whether its plan reads such panels, and packs anew if not.
    let stored = postcard::to_stdvec(&plan.pack_rhs(weights.view())?)?;
    let read: PackedRhs<f32> = postcard::from_bytes(&stored)?;
    let packed = if plan.check_packed(&read).is_ok() { read } else { plan.pack_rhs(weights.view())? };

    let mut workspace = plan.workspace();
    for _ in 0..10 {
        let epilogue = Epilogue { bias: Some(&bias), act: Act::Gelu, ..Epilogue::default() };
        plan.run(x.view(), &packed, y.view_mut(), epilogue, &mut workspace)?;
    }
    println!("{} bytes of weights, packed and stored", stored.len());
    println!("{} wrote {:?} ...", plan.kernel().name, &y.as_slice()[..4]);
    Ok(())
}
