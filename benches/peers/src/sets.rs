//! What is measured: a trait for all operations, and the shapes of products by class of use.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tile25::Isa;

use crate::contenders::{Contender, Libraries, Run};
use crate::driver::Driver;

/// One shape of an operation with two operands and a result.
pub trait Case {
    /// The operation's name.
    const OP: &'static str;
    fn name(&self) -> String;
    fn flops(&self) -> f64;
    /// Elements of both operands and of the result.
    fn lens(&self) -> [usize; 3];
    /// Whether a contender has it.
    fn takes(&self, contender: Contender) -> bool;
    /// Makes a contender ready: what it runs, and the kernel if that is known. The caller is inside a rayon pool of `threads`.
    fn prepare(
        &self,
        contender: Contender,
        threads: usize,
        isa: Isa,
        libraries: &Libraries,
    ) -> Result<(Run, String), String>;
    /// For a contender that is measured in another language: computes `c` there, after a warm-up, in a sample of some length; the seconds that a call takes.
    fn outside(
        &self,
        _driver: &mut Driver,
        _threads: usize,
        _times: [Duration; 2],
        _operands: [&[f32]; 2],
        _c: &mut [f32],
    ) -> Result<f64, String> {
        Err("not measured elsewhere".to_string())
    }
    /// Largest difference of some elements from f64, as a part of the sum of magnitudes.
    fn error(&self, a: &[f32], b: &[f32], c: &[f32]) -> f64;
    /// What a record says of the shape.
    fn fields(&self) -> Value;

    /// What the operands are.
    fn format(&self) -> Operands {
        Operands::F32
    }

    /// Bytes of both operands and the result, each once.
    fn bytes(&self) -> f64 {
        let [a, b, c] = self.lens();
        (self.format().bytes() * (a + b) + 4 * c) as f64
    }
}

/// What operands are; the result is f32, or i32 of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operands {
    F32,
    Bf16,
    /// u8 by i8
    I8,
}

impl Operands {
    fn bytes(self) -> usize {
        match self {
            Operands::F32 => 4,
            Operands::Bf16 => 2,
            Operands::I8 => 1,
        }
    }

    /// Value `i` of the first operand or the second, which the format holds exactly.
    pub fn value(self, second: bool, i: usize) -> f32 {
        match self {
            Operands::F32 => ((i * 7919) % 1009) as f32 / 1009.0 - 0.5,
            Operands::Bf16 => ((i * 7919) % 1009 % 128) as f32 / 128.0 - 0.5,
            Operands::I8 if second => ((i * 7919) % 1009 % 256) as f32 - 128.0,
            Operands::I8 => ((i * 7919) % 1009 % 256) as f32,
        }
    }

    /// An element of a result, of which a contender wrote the four bytes.
    pub fn result(self, bits: f32) -> f64 {
        match self {
            Operands::I8 => f64::from(bits.to_bits() as i32),
            _ => f64::from(bits),
        }
    }

    /// Multiplications in the time of one of f32, by the dot products of the instruction set.
    pub fn rate(self, isa: Isa) -> f64 {
        let dots = isa.name() == "avx512dot";
        match self {
            Operands::Bf16 if dots => 2.0,
            Operands::I8 if dots => 4.0,
            Operands::I8 => 2.0,
            _ => 1.0,
        }
    }
}

/// A batch of row-major products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gemm {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// A is stored k x m.
    pub ta: bool,
    /// B is stored n x k.
    pub tb: bool,
    pub format: Operands,
}

impl Gemm {
    fn new(batch: usize, [m, n, k]: [usize; 3]) -> Self {
        Gemm { batch, m, n, k, ta: false, tb: false, format: Operands::F32 }
    }
}

impl Case for Gemm {
    const OP: &'static str = "matmul";

    fn name(&self) -> String {
        let t = |t: bool| if t { "t" } else { "n" };
        let batch = if self.batch == 1 { String::new() } else { format!("{} x ", self.batch) };
        format!("{batch}{} x {} x {} {}{}", self.m, self.n, self.k, t(self.ta), t(self.tb))
    }

    fn flops(&self) -> f64 {
        2.0 * (self.batch * self.m * self.n * self.k) as f64
    }

    fn lens(&self) -> [usize; 3] {
        [self.m * self.k, self.k * self.n, self.m * self.n].map(|len| self.batch * len)
    }

    fn takes(&self, contender: Contender) -> bool {
        use Contender::{
            Before, Faer, Gemm, Matrixmultiply, Onednn, OnednnBlocked, Openblas, Ours, OursPacked, Rten,
        };
        match contender {
            Ours | OursPacked | Before | Onednn | OnednnBlocked => true,
            Gemm | Faer | Matrixmultiply | Rten | Openblas => self.format == Operands::F32,
            _ => false,
        }
    }

    fn prepare(
        &self,
        contender: Contender,
        threads: usize,
        isa: Isa,
        libraries: &Libraries,
    ) -> Result<(Run, String), String> {
        contender.matmul(*self, threads, isa, libraries)
    }

    fn error(&self, a: &[f32], b: &[f32], c: &[f32]) -> f64 {
        let Gemm { batch, m, n, k, ta, tb, format } = *self;
        let mut worst = 0f64;
        for sample in 0..8 {
            let (p, i, j) = (sample * 31 % batch, sample * 13 % m, sample * 17 % n);
            let at = |t: bool, base: usize, rows: usize, cols: usize, row: usize, col: usize| {
                base * rows * cols + if t { col * rows + row } else { row * cols + col }
            };
            let (mut sum, mut size) = (0f64, 0f64);
            for l in 0..k {
                let term = f64::from(a[at(ta, p, m, k, i, l)]) * f64::from(b[at(tb, p, k, n, l, j)]);
                sum += term;
                size += term.abs();
            }
            worst = worst.max((sum - format.result(c[at(false, p, m, n, i, j)])).abs() / size.max(1e-30));
        }
        worst
    }

    fn format(&self) -> Operands {
        self.format
    }

    fn fields(&self) -> Value {
        let flag = |t: bool| if t { 't' } else { 'n' };
        let transpose: String = [flag(self.ta), flag(self.tb)].iter().collect();
        json!({ "m": self.m, "n": self.n, "k": self.k, "batch": self.batch, "transpose": transpose })
    }
}

/// Classes of shapes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Set {
    /// 16 to 4096, and one less than powers of two
    Squares,
    /// Every GEMM of DeepBench, training and inference
    Deepbench,
    /// The layers of GPT-2 and MiniLM at 1, 3, 128 and 1024 rows; attention
    Transformer,
    /// 1 to 32 rows or columns by 4096 x 4096
    Skinny,
    /// A thousand products of 4^3 to 32^3
    Tiny,
    /// One row or column
    Gemv,
}

/// How operands are stored.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Transpose {
    Nn,
    Nt,
    Tn,
    Tt,
}

#[derive(Deserialize)]
struct DeepBench {
    sets: std::collections::BTreeMap<String, Vec<DeepBenchGemm>>,
}

#[derive(Deserialize)]
struct DeepBenchGemm {
    m: usize,
    n: usize,
    k: usize,
    a_t: bool,
    b_t: bool,
}

impl Set {
    /// The cases; see [`stored`].
    pub fn cases(self) -> Vec<Gemm> {
        match self {
            Set::Squares => [
                16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 127, 255, 511,
                1023, 2047,
            ]
            .map(|n| Gemm::new(1, [n; 3]))
            .into(),
            Set::Deepbench => {
                let file: DeepBench = serde_json::from_str(include_str!("../../shapes/deepbench_gemm.json"))
                    .expect("the file is ours");
                // Its matrices lie column by column; row by row, these are the transposed operands of the transposed product.
                let gemms = file.sets.into_values().flatten();
                gemms.map(|g| Gemm { ta: g.b_t, tb: g.a_t, ..Gemm::new(1, [g.n, g.m, g.k]) }).collect()
            }
            Set::Transformer => {
                // Hidden sizes and their four products: q, k, v together, out, up, down.
                let layers =
                    [768, 384].into_iter().flat_map(|h| [[3 * h, h], [h, h], [4 * h, h], [h, 4 * h]]);
                let layers = layers.flat_map(|[n, k]| [1, 3, 128, 1024].map(|m| Gemm::new(1, [m, n, k])));
                let scores = Gemm { tb: true, ..Gemm::new(96, [128, 128, 64]) };
                layers.chain([scores, Gemm::new(96, [128, 64, 128])]).collect()
            }
            Set::Skinny => [1, 2, 4, 8, 16, 32]
                .into_iter()
                .flat_map(|few| [[few, 4096, 4096], [4096, few, 4096], [4096, 4096, few]])
                .map(|shape| Gemm::new(1, shape))
                .collect(),
            Set::Tiny => [4, 8, 12, 16, 17, 24, 32].map(|n| Gemm::new(1000, [n; 3])).into(),
            Set::Gemv => [256, 1024, 4096, 8192]
                .into_iter()
                .flat_map(|n| {
                    [
                        Gemm::new(1, [1, n, n]),
                        Gemm { tb: true, ..Gemm::new(1, [1, n, n]) },
                        Gemm::new(1, [n, 1, n]),
                    ]
                })
                .collect(),
        }
    }
}

/// `cases` with operands of `format`, each once; `transpose` overrides how they are stored.
pub fn stored(mut cases: Vec<Gemm>, transpose: Option<Transpose>, format: Operands) -> Vec<Gemm> {
    if let Some(transpose) = transpose {
        for case in &mut cases {
            case.ta = matches!(transpose, Transpose::Tn | Transpose::Tt);
            case.tb = matches!(transpose, Transpose::Nt | Transpose::Tt);
        }
    }
    for case in &mut cases {
        case.format = format;
    }
    let mut seen = std::collections::HashSet::new();
    cases.retain(|case| seen.insert(*case));
    cases
}

/// `96x128x128x64`: batch, m, n, k; the batch may be left out.
pub fn parse_shape(text: &str) -> Result<Gemm, String> {
    let extents: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
    match extents.as_deref() {
        Ok(extents) if extents.contains(&0) => Err("a shape with nothing in it".into()),
        Ok(&[m, n, k]) => Ok(Gemm::new(1, [m, n, k])),
        Ok(&[batch, m, n, k]) => Ok(Gemm::new(batch, [m, n, k])),
        _ => Err("a shape is m x n x k or batch x m x n x k, such as 128x768x3072".into()),
    }
}
