//! Looks into a plan: which die computes what, what travels over the links, what it would cost on a D1 training tile.
//!
//! `cargo run --release --example plan_and_price`

use tile25::machine::D1_TILE;
use tile25::{Context, Error, Format, Matmul, Spec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = |dims: &[usize]| -> Result<Spec, Error> { Spec::contiguous(Format::F32, dims) };
    let plan = Matmul::new(spec(&[2048, 4096])?, spec(&[4096, 1536])?, spec(&[2048, 1536])?)?
        .plan(&Context::default())?;
    println!("kernel {}, scratch {} KiB", plan.kernel().name, plan.workspace().bytes() / 1024);
    println!("{}", plan.tile_plan().render());
    plan.tile_plan().validate()?;
    let cost = plan.tile_plan().price(&D1_TILE).ok_or("a D1 multiplies f32")?;
    println!(
        "on a D1 tile: {:.0} us, of which {:.0} us computing and {:.0} us of transfers that may overlap it",
        1e6 * cost.seconds,
        1e6 * cost.compute_seconds,
        1e6 * cost.transfer_seconds
    );
    Ok(())
}
