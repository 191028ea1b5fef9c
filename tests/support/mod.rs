//! What the test files share: data, layouts, contexts, comparison of bits.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tile25::format::Narrow;
use tile25::{Backend, Context, Element, Format, Isa, Layout, Threads, View, ViewMut};
use tile25_kernels::format::Target;
use tile25_kernels::pack::Form;

/// A proptest configuration whose failing seeds go to `proptest-regressions/<name>.txt`.
pub fn config(name: &'static str, cases: u32) -> ProptestConfig {
    let path: &'static str = match name {
        "matmul" => "proptest-regressions/matmul.txt",
        "conv" => "proptest-regressions/conv.txt",
        "conv_layers" => "proptest-regressions/conv_layers.txt",
        "formats" => "proptest-regressions/formats.txt",
        "stored" => "proptest-regressions/stored.txt",
        "plan_laws" => "proptest-regressions/plan_laws.txt",
        other => panic!("name a regression file for {other}"),
    };
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(path))),
        ..ProptestConfig::default()
    }
}

/// Pools of 1, 2, 3 and 7 threads.
pub fn pools() -> Vec<rayon::ThreadPool> {
    [1, 2, 3, 7].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).into()
}

/// Every instruction set of the machine on every pool.
pub fn contexts(pools: &[rayon::ThreadPool]) -> impl Iterator<Item = Context<'_>> {
    Isa::available().flat_map(move |isa| {
        pools.iter().map(move |pool| Context { isa, threads: Threads::Pool(pool), backend: Backend::Tile })
    })
}

/// The same for floats, of which AMX multiplies none: with it they take the very code of the set below it.
pub fn float_contexts(pools: &[rayon::ThreadPool]) -> impl Iterator<Item = Context<'_>> {
    contexts(pools).filter(|context| context.isa.name() != "amx")
}

pub fn reference() -> Context<'static> {
    Context { backend: Backend::Reference, ..Context::default() }
}

/// xorshift64*: the same data on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
}

/// The formats whose codes are their values.
pub trait Real: Element<Param = Self> + num_traits::Float {
    const SUMS: Form;
}
impl Real for f32 {
    const SUMS: Form = Form::F32;
}
impl Real for f64 {
    const SUMS: Form = Form::F64;
}

/// Values of a test: how rough they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// About -1..1.
    Smooth,
    /// Every exponent; zeros of both signs, subnormals, huge values, infinities and NaN among them.
    Wild,
    /// Exponents over the whole finite range, no specials.
    Wide,
}

pub fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![4 => Just(Kind::Smooth), 1 => Just(Kind::Wild), 2 => Just(Kind::Wide)]
}

pub fn fill<T: Real>(rng: &mut Rng, len: usize, kind: Kind) -> Vec<T> {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::from(f32::MIN_POSITIVE) / 8.0,
        1e-45,
        3e38,
        -3e38,
        f64::INFINITY,
        f64::NAN,
    ];
    let mut value = || {
        let unit = (rng.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        match kind {
            Kind::Smooth => unit,
            Kind::Wide => unit * 2f64.powi(rng.below(120) as i32 - 60),
            Kind::Wild if rng.below(24) == 0 => special[rng.below(special.len())],
            Kind::Wild => unit * 2f64.powi(rng.below(250) as i32 - 130),
        }
    };
    (0..len).map(|_| T::from(value()).unwrap()).collect()
}

/// What the codes of a test in any format are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Draw {
    /// Values about -1..1, integers of every size.
    Smooth,
    /// Values of every exponent that the format has.
    Wide,
    /// Any codes: NaN, Inf, subnormals; of integers the extremes.
    Codes,
}

/// A code of `format`.
pub fn draw<T: Element>(rng: &mut Rng, format: Format, how: Draw) -> T {
    let unit = (rng.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let x = if how == Draw::Wide { unit * 2f32.powi(rng.below(160) as i32 - 80) } else { unit };
    let x = if format.is_integer() { 300.0 * unit } else { x };
    let code = match (format, Target::new(format, Narrow::default(), 0).code(x, 0)) {
        (Format::I8 | Format::U8, _) if how == Draw::Codes => [0, 0x7f, 0x80, 0xff][rng.below(4)],
        (_, Some(code)) if how != Draw::Codes => code.into(),
        (Format::F32, _) if how != Draw::Codes => x.to_bits().into(),
        (Format::F64, _) if how != Draw::Codes => <f64 as From<f32>>::from(x).to_bits(),
        _ => rng.next() >> 8,
    };
    bytemuck::pod_read_unaligned(&code.to_le_bytes()[..size_of::<T>()])
}

/// Equal bits; NaN of f32 and f64 as a class (N9), those of narrow formats have one code.
pub fn same_codes<T: Element>(a: &T, b: &T) -> bool {
    let nan = |value: &T| match T::FORMAT {
        Format::F32 => bytemuck::pod_read_unaligned::<f32>(bytemuck::bytes_of(value)).is_nan(),
        Format::F64 => bytemuck::pod_read_unaligned::<f64>(bytemuck::bytes_of(value)).is_nan(),
        _ => false,
    };
    bytemuck::bytes_of(a) == bytemuck::bytes_of(b) || nan(a) && nan(b)
}

pub fn assert_same_codes<T: Element>(got: &[T], want: &[T], what: impl FnOnce() -> String) {
    if let Some(i) = (0..want.len()).find(|&i| !same_codes(&got[i], &want[i])) {
        panic!("{}: element {i} is {:?}, the reference has {:?}", what(), got[i], want[i]);
    }
}

/// Equal bits, NaN compared as a class (N9).
pub fn same<T: Real>(a: T, b: T) -> bool {
    (a.is_nan() && b.is_nan()) || bytemuck::bytes_of(&a) == bytemuck::bytes_of(&b)
}

pub fn assert_same<T: Real>(got: &[T], want: &[T], what: impl FnOnce() -> String) {
    if let Some(i) = (0..want.len()).find(|&i| !same(got[i], want[i])) {
        panic!("{}: element {i} is {:?}, the reference has {:?}", what(), got[i], want[i]);
    }
    assert_eq!(got.len(), want.len());
}

/// How a tensor of given dims lies in memory, drawn at random: order of the dims, gaps, direction, and for inputs repetition.
#[derive(Clone, Debug)]
pub struct Lie {
    pub seed: u64,
    pub input: bool,
}

/// Length of the slice, element at index 0, strides.
pub fn lay(dims: &[usize], lie: &Lie) -> (usize, usize, Layout) {
    let mut rng = Rng::new(lie.seed);
    let mut order: Vec<usize> = (0..dims.len()).collect();
    // The plain row-major layout half of the time.
    let plain = rng.below(2) == 0;
    let mut strides = vec![0isize; dims.len()];
    let mut low = 0usize;
    let mut span = 1usize;
    if !plain {
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i + 1));
        }
    }
    for &d in order.iter().rev() {
        let gap = if !plain && rng.below(4) == 0 { 1 + rng.below(3) } else { 0 };
        let stride = span + gap;
        if lie.input && !plain && rng.below(8) == 0 {
            strides[d] = 0;
            continue;
        }
        let reach = stride * dims[d].saturating_sub(1);
        if !plain && rng.below(5) == 0 {
            strides[d] = -(stride as isize);
            low += reach;
        } else {
            strides[d] = stride as isize;
        }
        span += reach + gap;
    }
    // A single element is never stepped over, so its stride may be anything; half of the time it is what it would be.
    let mut rng_of_single = Rng::new(lie.seed ^ 0x51);
    for (stride, _) in strides.iter_mut().zip(dims).filter(|(_, dim)| **dim == 1) {
        let any = [0, 1, -1, 3, 64, 4096, isize::MAX, isize::MIN];
        *stride = any.get(rng_of_single.below(2 * any.len())).copied().unwrap_or(*stride);
    }
    let margin = if plain { 0 } else { rng.below(3) };
    (span + 2 * margin, low + margin, Layout::strided(dims, &strides).unwrap())
}

/// A tensor of a test: its memory and how it lies there.
#[derive(Clone, Debug)]
pub struct Laid<T> {
    pub data: Vec<T>,
    pub start: usize,
    pub layout: Layout,
}

impl<T: Real> Laid<T> {
    pub fn new(dims: &[usize], seed: u64, input: bool, kind: Kind) -> Self {
        let (len, start, layout) = lay(dims, &Lie { seed, input });
        Laid { data: fill(&mut Rng::new(seed ^ 0xabcd), len, kind), start, layout }
    }
}

impl<T: Element> Laid<T> {
    /// Elements drawn by `draw`.
    pub fn drawn(dims: &[usize], seed: u64, input: bool, mut draw: impl FnMut(&mut Rng) -> T) -> Self {
        let (len, start, layout) = lay(dims, &Lie { seed, input });
        let mut rng = Rng::new(seed ^ 0xabcd);
        Laid { data: (0..len).map(|_| draw(&mut rng)).collect(), start, layout }
    }

    pub fn view(&self) -> View<'_, T> {
        View::with_layout(&self.data, self.start, self.layout).unwrap()
    }

    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::with_layout(&mut self.data, self.start, self.layout).unwrap()
    }
}
