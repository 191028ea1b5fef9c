#[path = "../benches/support/mod.rs"]
mod support;
fn main(){ for isa in tile25::Isa::available() { println!("{isa} {:.1} {:.1}", support::fma_peak(isa,1,20), support::fma_peak(isa,2,20)); } }
