//! Who competes, and how each is called for a product: every call computes `c = a b` for row-major `c`.

use std::any::TypeId;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use clap::ValueEnum;
use libloading::{Library, Symbol};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;
use serde::{Deserialize, Serialize};
use tile25::{Context, Element, Epilogue, Isa, Layout, Matmul, Spec, Threads, View, ViewMut, format::bf16};

use crate::onednn::{Engine, Reorder, fastest};
use crate::sets::{Gemm, Operands};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// This library
    Ours,
    /// This library, weights packed before (of a product the second operand); of their gradient, where there are none, as ours
    #[value(name = "ours-packed")]
    #[serde(rename = "ours-packed")]
    OursPacked,
    /// This library as another build of this program has it: see `--before`
    Before,
    /// The crate gemm
    Gemm,
    /// The crate faer
    Faer,
    /// The crate matrixmultiply
    Matrixmultiply,
    /// The crate rten-gemm
    Rten,
    /// OpenBLAS, if its shared library is there
    Openblas,
    /// oneDNN, if its shared library is there; with the reorders that the caller's layout takes, the fastest of its ways
    Onednn,
    /// oneDNN in its own layouts, reorders left out; of a product in that of the second operand
    #[value(name = "onednn-blocked")]
    #[serde(rename = "onednn-blocked")]
    OnednnBlocked,
    /// ONNX Runtime, if fetch.sh brought it: planar convolutions but the gradient of the weights, by a small driver in Python
    Onnxruntime,
    /// candle, if built with the feature of that name: planar convolutions of one and two dimensions, forward, padded evenly
    #[cfg(feature = "candle")]
    Candle,
}

/// Where the shared libraries are.
#[derive(Clone, Debug, clap::Args)]
pub struct Libraries {
    /// A shared library of OpenBLAS [default: the one that fetch.sh brought]
    #[arg(long)]
    pub openblas: Option<PathBuf>,
    /// A shared library of oneDNN [default: the one that fetch.sh brought]
    #[arg(long)]
    pub onednn: Option<PathBuf>,
    /// Another build of this program, whose ours competes as `before`
    #[arg(long)]
    pub before: Option<PathBuf>,
}

impl Libraries {
    /// The library of a contender that needs one, if there is one.
    pub fn path(&self, contender: Contender) -> Option<PathBuf> {
        let (given, fetched) = match contender {
            Contender::Openblas => (&self.openblas, "libscipy_openblas.so"),
            Contender::Onednn | Contender::OnednnBlocked => (&self.onednn, "libdnnl.so"),
            Contender::Onnxruntime => (&None, "python"),
            Contender::Before => return self.before.clone(),
            _ => return None,
        };
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib").join(fetched);
        given.clone().or_else(|| fetched.exists().then_some(fetched))
    }

    /// Whether a contender can compete.
    pub fn has(&self, contender: Contender) -> bool {
        use Contender::{Before, Onednn, OnednnBlocked, Onnxruntime, Openblas};
        !matches!(contender, Before | Openblas | Onednn | OnednnBlocked | Onnxruntime)
            || self.path(contender).is_some_and(|path| path.exists())
    }
}

/// One case, ready to run on `a`, `b`, `c`.
pub type Run = Box<dyn FnMut(&[f32], &[f32], &mut [f32])>;

/// Strides of row, column of a `rows` x `cols` matrix, stored so or transposed.
pub fn strides(rows: usize, cols: usize, transposed: bool) -> (isize, isize) {
    if transposed { (1, rows as isize) } else { (cols as isize, 1) }
}

/// A library that is called product by product, as a whole batch.
fn each(case: Gemm, mut one: impl FnMut(&[f32], &[f32], &mut [f32]) + 'static) -> Run {
    let Gemm { m, n, k, .. } = case;
    Box::new(move |a, b, c| {
        let products = a.chunks_exact(m * k).zip(b.chunks_exact(k * n)).zip(c.chunks_exact_mut(m * n));
        for ((a, b), c) in products {
            one(a, b, c);
        }
    })
}

impl Contender {
    /// What a process of this contender needs in its environment.
    pub fn environment(self, threads: usize) -> Vec<(&'static str, String)> {
        let names: &[&str] = match self {
            Contender::Matrixmultiply => &["MATMUL_NUM_THREADS"],
            Contender::Rten => &["RTEN_NUM_THREADS"],
            Contender::Openblas => &["OPENBLAS_NUM_THREADS"],
            Contender::Onednn | Contender::OnednnBlocked => &["OMP_NUM_THREADS"],
            _ => &[],
        };
        names.iter().map(|&name| (name, threads.to_string())).collect()
    }

    /// Makes a product ready. The caller is inside a rayon pool of `threads`.
    pub fn matmul(
        self,
        case: Gemm,
        threads: usize,
        isa: Isa,
        libraries: &Libraries,
    ) -> Result<(Run, String), String> {
        let Gemm { m, n, k, ta, tb, .. } = case;
        let (a_row, a_col) = strides(m, k, ta);
        let (b_row, b_col) = strides(k, n, tb);
        let run: Run = match self {
            Contender::Ours | Contender::OursPacked => {
                let context = Context {
                    isa,
                    threads: if threads == 1 { Threads::Seq } else { Threads::Current },
                    ..Context::default()
                };
                let packed = self == Contender::OursPacked;
                return match case.format {
                    Operands::F32 => ours::<f32, f32, f32>(case, context, packed, |a| a, |b| b),
                    Operands::Bf16 => {
                        ours::<bf16, bf16, f32>(case, context, packed, bf16::from_f32, bf16::from_f32)
                    }
                    Operands::I8 => ours::<u8, i8, i32>(case, context, packed, |a| a as u8, |b| b as i8),
                };
            }
            Contender::Gemm => {
                let parallelism =
                    if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
                each(case, move |a, b, c| {
                    // SAFETY: the slices have the sizes that shape and strides say.
                    unsafe {
                        gemm::gemm(
                            m,
                            n,
                            k,
                            c.as_mut_ptr(),
                            1,
                            n as isize,
                            false,
                            a.as_ptr(),
                            a_col,
                            a_row,
                            b.as_ptr(),
                            b_col,
                            b_row,
                            0.0,
                            1.0,
                            false,
                            false,
                            false,
                            parallelism,
                        );
                    }
                })
            }
            Contender::Faer => {
                use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
                let par = if threads == 1 { Par::Seq } else { Par::rayon(threads) };
                fn matrix(data: &[f32], rows: usize, cols: usize, transposed: bool) -> MatRef<'_, f32> {
                    if transposed {
                        MatRef::from_column_major_slice(data, rows, cols)
                    } else {
                        MatRef::from_row_major_slice(data, rows, cols)
                    }
                }
                each(case, move |a, b, c| {
                    let c = MatMut::from_row_major_slice_mut(c, m, n);
                    matmul(c, Accum::Replace, matrix(a, m, k, ta), matrix(b, k, n, tb), 1.0, par);
                })
            }
            Contender::Matrixmultiply => each(case, move |a, b, c| {
                // SAFETY: the slices have the sizes that shape and strides say.
                unsafe {
                    matrixmultiply::sgemm(
                        m,
                        k,
                        n,
                        1.0,
                        a.as_ptr(),
                        a_row,
                        a_col,
                        b.as_ptr(),
                        b_row,
                        b_col,
                        0.0,
                        c.as_mut_ptr(),
                        n as isize,
                        1,
                    );
                }
            }),
            Contender::Rten => {
                let executor = GemmExecutor::<f32>::new();
                each(case, move |a, b, c| {
                    let a = NdTensorView::from_data(if ta { [k, m] } else { [m, k] }, a);
                    let b = NdTensorView::from_data(if tb { [n, k] } else { [k, n] }, b);
                    let a = if ta { a.transposed() } else { a };
                    let b = if tb { b.transposed() } else { b };
                    let options = GemmOptions::default();
                    executor
                        .gemm(c, GemmInputA::Unpacked(a), GemmInputB::Unpacked(b), options)
                        .expect("shapes that multiply");
                })
            }
            Contender::Openblas => openblas(case, threads, &load(self, libraries)?)?,
            Contender::Onednn => {
                let library = load(self, libraries)?;
                let engine = Engine::new(library)?;
                let mut ways =
                    vec![engine.matmul(case, Reorder::Never)?, engine.matmul(case, Reorder::EachCall)?];
                if case.format == Operands::F32 {
                    ways.push(onednn(case, &library)?);
                }
                fastest(ways)
            }
            Contender::OnednnBlocked => Engine::new(load(self, libraries)?)?.matmul(case, Reorder::Once)?,
            other => return Err(format!("{other:?} has no products")),
        };
        Ok((run, String::new()))
    }
}

/// The operands as they are in a format: made of the first values that are seen, which stay the same.
pub fn kept<'a, T: Pod>(kept: &'a mut Vec<T>, values: &'a [f32], to: impl Fn(f32) -> T) -> &'a [T] {
    if TypeId::of::<T>() == TypeId::of::<f32>() {
        return bytemuck::cast_slice(values);
    }
    if kept.is_empty() {
        kept.extend(values.iter().map(|&value| to(value)));
    }
    kept
}

/// Our product of `A` and `B` into `C`, a type of four bytes; `packed` with the second operand packed by the first call.
fn ours<A: Element, B: Element, C: Element>(
    case: Gemm,
    context: Context<'static>,
    packed: bool,
    to_a: impl Fn(f32) -> A + 'static,
    to_b: impl Fn(f32) -> B + 'static,
) -> Result<(Run, String), String> {
    let Gemm { batch, m, n, k, ta, tb, .. } = case;
    let text = |error: tile25::Error| error.to_string();
    let layout = |rows: usize, cols: usize, t: bool| {
        let (row, col) = strides(rows, cols, t);
        Layout::strided(&[batch, rows, cols], &[(rows * cols) as isize, row, col]).map_err(text)
    };
    let (a, b, c) = (layout(m, k, ta)?, layout(k, n, tb)?, layout(m, n, false)?);
    let (of_a, of_b) = (Spec { format: A::FORMAT, layout: a }, Spec { format: B::FORMAT, layout: b });
    let of_c = Spec { format: C::FORMAT, layout: c };
    let plan = Matmul::new(of_a, of_b, of_c).map_err(text)?.plan(&context).map_err(text)?;
    let kernel = plan.kernel().name.to_string();
    let mut workspace = plan.workspace();
    let (mut all_a, mut all_b, mut panels) = (Vec::new(), Vec::new(), None);
    let run: Run = Box::new(move |in_a, in_b, in_c| {
        let (in_a, in_b) = (kept(&mut all_a, in_a, &to_a), kept(&mut all_b, in_b, &to_b));
        let in_c = bytemuck::cast_slice_mut::<f32, C>(in_c);
        if !packed {
            return plan.run_slices(in_a, in_b, in_c, &mut workspace).expect("planned");
        }
        let in_a = View::with_layout(in_a, 0, a).expect("planned");
        let in_c = ViewMut::with_layout(in_c, 0, c).expect("planned");
        let in_b = panels.get_or_insert_with(|| {
            plan.pack_rhs(View::with_layout(in_b, 0, b).expect("planned")).expect("planned")
        });
        plan.run(in_a, &*in_b, in_c, Epilogue::default(), &mut workspace).expect("planned");
    });
    Ok((run, kernel))
}

/// A shared library, for as long as the process lives.
pub fn load(contender: Contender, libraries: &Libraries) -> Result<&'static Library, String> {
    let path = libraries.path(contender).ok_or("no shared library: run fetch.sh")?;
    // SAFETY: the library is one that the user named or fetch.sh brought; its initialisers are its own affair.
    let library = unsafe { Library::new(&path) }.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Box::leak(Box::new(library)))
}

pub fn symbol<T: Copy + 'static>(library: &'static Library, names: &[&str]) -> Result<T, String> {
    for name in names {
        // SAFETY: the callers' types are those of the C headers.
        let found: Result<Symbol<'static, T>, _> = unsafe { library.get(name.as_bytes()) };
        if let Ok(found) = found {
            return Ok(*found);
        }
    }
    Err(format!("none of {names:?} in the library"))
}

type CblasSgemm = unsafe extern "C" fn(
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    *const f32,
    i32,
    *const f32,
    i32,
    f32,
    *mut f32,
    i32,
);

fn openblas(case: Gemm, threads: usize, library: &&'static Library) -> Result<Run, String> {
    let Gemm { m, n, k, ta, tb, .. } = case;
    let sgemm: CblasSgemm = symbol(library, &["scipy_cblas_sgemm", "cblas_sgemm"])?;
    let set_threads: unsafe extern "C" fn(i32) =
        symbol(library, &["scipy_openblas_set_num_threads", "openblas_set_num_threads"])?;
    // SAFETY: it takes any positive number.
    unsafe { set_threads(threads as i32) };
    const ROW_MAJOR: i32 = 101;
    let flag = |transposed: bool| if transposed { 112 } else { 111 };
    let (lda, ldb) = (if ta { m } else { k } as i32, if tb { k } else { n } as i32);
    Ok(each(case, move |a, b, c| {
        // SAFETY: the slices have the sizes that shape and leading dimensions say.
        unsafe {
            sgemm(
                ROW_MAJOR,
                flag(ta),
                flag(tb),
                m as i32,
                n as i32,
                k as i32,
                1.0,
                a.as_ptr(),
                lda,
                b.as_ptr(),
                ldb,
                0.0,
                c.as_mut_ptr(),
                n as i32,
            );
        }
    }))
}

type DnnlSgemm = unsafe extern "C" fn(
    i8,
    i8,
    i64,
    i64,
    i64,
    f32,
    *const f32,
    i64,
    *const f32,
    i64,
    f32,
    *mut f32,
    i64,
) -> i32;

fn onednn(case: Gemm, library: &&'static Library) -> Result<Run, String> {
    let Gemm { m, n, k, ta, tb, .. } = case;
    let sgemm: DnnlSgemm = symbol(library, &["dnnl_sgemm"])?;
    let flag = |transposed: bool| if transposed { b'T' } else { b'N' } as i8;
    let (lda, ldb) = (if ta { m } else { k } as i64, if tb { k } else { n } as i64);
    Ok(each(case, move |a, b, c| {
        // SAFETY: the slices have the sizes that shape and leading dimensions say.
        let status = unsafe {
            sgemm(
                flag(ta),
                flag(tb),
                m as i64,
                n as i64,
                k as i64,
                1.0,
                a.as_ptr(),
                lda,
                b.as_ptr(),
                ldb,
                0.0,
                c.as_mut_ptr(),
                n as i64,
            )
        };
        assert_eq!(status, 0, "dnnl_sgemm refused {case:?}");
    }))
}
