//! The shapes, by class of use.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A batch of row-major products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Case {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// A is stored k x m.
    pub ta: bool,
    /// B is stored n x k.
    pub tb: bool,
}

impl Case {
    fn new(batch: usize, [m, n, k]: [usize; 3]) -> Self {
        Case { batch, m, n, k, ta: false, tb: false }
    }

    pub fn flops(&self) -> f64 {
        2.0 * (self.batch * self.m * self.n * self.k) as f64
    }

    /// Bytes of both operands and the result in f32, each once.
    pub fn bytes(&self) -> f64 {
        4.0 * (self.batch * (self.m * self.k + self.k * self.n + self.m * self.n)) as f64
    }

    pub fn name(&self) -> String {
        let t = |t: bool| if t { "t" } else { "n" };
        let batch = if self.batch == 1 { String::new() } else { format!("{} x ", self.batch) };
        format!("{batch}{} x {} x {} {}{}", self.m, self.n, self.k, t(self.ta), t(self.tb))
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
    sets: std::collections::BTreeMap<String, Vec<Gemm>>,
}

#[derive(Deserialize)]
struct Gemm {
    m: usize,
    n: usize,
    k: usize,
    a_t: bool,
    b_t: bool,
}

impl Set {
    /// The cases, each once; `transpose` overrides how operands are stored.
    pub fn cases(self, transpose: Option<Transpose>) -> Vec<Case> {
        let mut cases: Vec<Case> = match self {
            Set::Squares => [
                16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 127, 255, 511,
                1023, 2047,
            ]
            .map(|n| Case::new(1, [n; 3]))
            .into(),
            Set::Deepbench => {
                let file: DeepBench = serde_json::from_str(include_str!("../../shapes/deepbench_gemm.json"))
                    .expect("the file is ours");
                let gemms = file.sets.into_values().flatten();
                gemms.map(|g| Case { batch: 1, m: g.m, n: g.n, k: g.k, ta: g.a_t, tb: g.b_t }).collect()
            }
            Set::Transformer => {
                // Hidden sizes and their four products: q, k, v together, out, up, down.
                let layers =
                    [768, 384].into_iter().flat_map(|h| [[3 * h, h], [h, h], [4 * h, h], [h, 4 * h]]);
                let layers = layers.flat_map(|[n, k]| [1, 3, 128, 1024].map(|m| Case::new(1, [m, n, k])));
                let scores = Case { tb: true, ..Case::new(96, [128, 128, 64]) };
                layers.chain([scores, Case::new(96, [128, 64, 128])]).collect()
            }
            Set::Skinny => [1, 2, 4, 8, 16, 32]
                .into_iter()
                .flat_map(|few| [[few, 4096, 4096], [4096, few, 4096], [4096, 4096, few]])
                .map(|shape| Case::new(1, shape))
                .collect(),
            Set::Tiny => [4, 8, 12, 16, 17, 24, 32].map(|n| Case::new(1000, [n; 3])).into(),
            Set::Gemv => [256, 1024, 4096, 8192]
                .into_iter()
                .flat_map(|n| {
                    [
                        Case::new(1, [1, n, n]),
                        Case { tb: true, ..Case::new(1, [1, n, n]) },
                        Case::new(1, [n, 1, n]),
                    ]
                })
                .collect(),
        };
        if let Some(transpose) = transpose {
            for case in &mut cases {
                case.ta = matches!(transpose, Transpose::Tn | Transpose::Tt);
                case.tb = matches!(transpose, Transpose::Nt | Transpose::Tt);
            }
        }
        let mut seen = std::collections::HashSet::new();
        cases.retain(|case| seen.insert(*case));
        cases
    }
}
