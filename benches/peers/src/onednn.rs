//! oneDNN's primitives, called through its C interface (version 3): the few functions that convolutions and products take.

use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use bytemuck::Pod;
use libloading::Library;

use tile25::format::bf16;

use crate::contenders::{Run, kept, strides, symbol};
use crate::conv::{Convolve, Direction};
use crate::sets::{Gemm, Operands};

type Handle = *mut c_void;
/// A function of the library that writes a handle or a status; every one here returns 0 for success.
type Status = c_int;

// Values of the enumerations in dnnl_types.h.
const CPU: c_int = 1;
const IN_ORDER: u32 = 1;
const BF16: c_int = 2;
const F32: c_int = 3;
const S32: c_int = 4;
const S8: c_int = 5;
const U8: c_int = 6;
const TAG_ANY: c_int = 1;
const FORWARD_TRAINING: c_int = 64;
const FORWARD_INFERENCE: c_int = 96;
const CONVOLUTION_DIRECT: c_int = 1;
const QUERY: [[c_int; 3]; 3] = [[129, 131, 133], [130, 131, 134], [129, 132, 134]];
const ARGUMENT: [[c_int; 3]; 3] = [[1, 33, 17], [129, 33, 145], [1, 161, 145]];
const FROM: c_int = 1;
const TO: c_int = 17;
/// The library allocates.
const ALLOCATE: Handle = usize::MAX as Handle;

#[repr(C)]
#[derive(Clone, Copy)]
struct Argument {
    which: c_int,
    memory: Handle,
}

/// Which formats of memory the primitive sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// The caller's for activations, the library's own for weights, reordered in every call.
    Weights,
    /// The library's own for all tensors, reordered in every call.
    All,
    /// The library's own; reorders happened before and do not count.
    Before,
}

/// When the second operand of a product goes to the layout that the library chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reorder {
    Never,
    EachCall,
    /// In the first call, which does not count.
    Once,
}

/// Calls of each way, at least, before and while the fastest is chosen, and for how long.
const TRIALS: u32 = 3;
const TRIAL: Duration = Duration::from_millis(2);

/// The fastest of some ways to the same result, which the first call finds out.
pub fn fastest(mut ways: Vec<Run>) -> Run {
    Box::new(move |a, b, c| {
        if ways.len() > 1 {
            let mut each = |way: &mut Run| {
                let (start, mut calls) = (Instant::now(), 0);
                while calls < TRIALS || start.elapsed() < TRIAL {
                    way(a, b, c);
                    calls += 1;
                }
                start.elapsed() / calls
            };
            let times: Vec<Duration> = ways
                .iter_mut()
                .map(|way| {
                    each(way);
                    each(way)
                })
                .collect();
            let best = (0..times.len()).min_by_key(|&way| times[way]).unwrap_or(0);
            ways = vec![ways.swap_remove(best)];
        }
        ways[0](a, b, c);
    })
}

/// The library, an engine and a stream on it. All live as long as the process.
#[derive(Clone, Copy)]
pub struct Engine {
    library: &'static Library,
    engine: Handle,
    stream: Handle,
}

/// One operand: as the caller has it, and as the primitive takes it.
#[derive(Clone, Copy)]
struct Operand {
    outside: Handle,
    inside: Handle,
    /// From the caller's memory, or to it for a result; null where they are the same.
    reorder: Handle,
}

/// The functions that run primitives on the stream of an engine.
#[derive(Clone, Copy)]
struct Calls {
    stream: Handle,
    execute: unsafe extern "C" fn(Handle, Handle, c_int, *const Argument) -> Status,
    wait: unsafe extern "C" fn(Handle) -> Status,
    set: unsafe extern "C" fn(Handle, *mut c_void) -> Status,
}

impl Calls {
    fn go(self, primitive: Handle, arguments: &[Argument]) {
        let count = arguments.len() as c_int;
        // SAFETY: the handles live as long as the process, and the memory behind them for the call of the contender.
        let status = unsafe { (self.execute)(primitive, self.stream, count, arguments.as_ptr()) };
        assert_eq!(status, 0, "dnnl_primitive_execute");
    }

    fn reorder(self, reorder: Handle, from: Handle, to: Handle) {
        self.go(reorder, &[Argument { which: FROM, memory: from }, Argument { which: TO, memory: to }]);
    }

    /// Says where the elements of a memory are.
    ///
    /// # Safety
    /// - As many elements as its description says are there until the stream has waited.
    unsafe fn place(self, memory: Handle, place: *mut c_void) {
        // SAFETY: the caller's.
        assert_eq!(unsafe { (self.set)(memory, place) }, 0, "dnnl_memory_set_data_handle");
    }

    fn wait(self) {
        // SAFETY: the stream is the engine's, which lives as long as the process.
        assert_eq!(unsafe { (self.wait)(self.stream) }, 0, "dnnl_stream_wait");
    }
}

fn check(status: Status, what: &str) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("oneDNN: {what} failed with {status}")) }
}

impl Engine {
    pub fn new(library: &'static Library) -> Result<Engine, String> {
        let create: unsafe extern "C" fn(*mut Handle, c_int, usize) -> Status =
            symbol(library, &["dnnl_engine_create"])?;
        let stream_create: unsafe extern "C" fn(*mut Handle, Handle, u32) -> Status =
            symbol(library, &["dnnl_stream_create"])?;
        let (mut engine, mut stream) = (null_mut(), null_mut());
        // SAFETY: the signatures are those of dnnl.h; both write one handle.
        unsafe {
            check(create(&mut engine, CPU, 0), "dnnl_engine_create")?;
            check(stream_create(&mut stream, engine, IN_ORDER), "dnnl_stream_create")?;
        }
        Ok(Engine { library, engine, stream })
    }

    /// A description of memory; without strides the library chooses.
    fn describe(&self, dims: &[i64], strides: Option<&[i64]>, data: c_int) -> Result<Handle, String> {
        let by_strides: unsafe extern "C" fn(*mut Handle, c_int, *const i64, c_int, *const i64) -> Status =
            symbol(self.library, &["dnnl_memory_desc_create_with_strides"])?;
        let by_tag: unsafe extern "C" fn(*mut Handle, c_int, *const i64, c_int, c_int) -> Status =
            symbol(self.library, &["dnnl_memory_desc_create_with_tag"])?;
        let (mut description, rank) = (null_mut(), dims.len() as c_int);
        // SAFETY: as above; dims and strides have `rank` elements.
        let status = unsafe {
            match strides {
                Some(strides) => by_strides(&mut description, rank, dims.as_ptr(), data, strides.as_ptr()),
                None => by_tag(&mut description, rank, dims.as_ptr(), data, TAG_ANY),
            }
        };
        check(status, "a memory description")?;
        Ok(description)
    }

    fn memory(&self, description: Handle, at: Handle) -> Result<Handle, String> {
        let create: unsafe extern "C" fn(*mut Handle, Handle, Handle, Handle) -> Status =
            symbol(self.library, &["dnnl_memory_create"])?;
        let mut memory = null_mut();
        // SAFETY: as above.
        check(unsafe { create(&mut memory, description, self.engine, at) }, "dnnl_memory_create")?;
        Ok(memory)
    }

    fn calls(&self) -> Result<Calls, String> {
        Ok(Calls {
            stream: self.stream,
            execute: symbol(self.library, &["dnnl_primitive_execute"])?,
            wait: symbol(self.library, &["dnnl_stream_wait"])?,
            set: symbol(self.library, &["dnnl_memory_set_data_handle"])?,
        })
    }

    fn primitive(&self, description: Handle) -> Result<Handle, String> {
        let create: unsafe extern "C" fn(*mut Handle, Handle) -> Status =
            symbol(self.library, &["dnnl_primitive_create"])?;
        let mut primitive = null_mut();
        // SAFETY: as above.
        check(unsafe { create(&mut primitive, description) }, "dnnl_primitive_create")?;
        Ok(primitive)
    }

    fn reorder(&self, from: Handle, to: Handle) -> Result<Handle, String> {
        let create: unsafe extern "C" fn(
            *mut Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            *const c_void,
        ) -> Status = symbol(self.library, &["dnnl_reorder_primitive_desc_create"])?;
        let mut description = null_mut();
        // SAFETY: as above; no attributes.
        let status = unsafe { create(&mut description, from, self.engine, to, self.engine, null()) };
        check(status, "dnnl_reorder_primitive_desc_create")?;
        self.primitive(description)
    }

    /// A convolution between tensors of the caller: the faster of the ways to bring them to the library, which the first call finds out.
    pub fn in_callers_layout(self, case: &Convolve) -> Result<Run, String> {
        let ways = [Blocking::Weights, Blocking::All].map(|blocking| self.convolution(case, blocking));
        let ways: Vec<Run> = ways.into_iter().filter_map(Result::ok).collect();
        if ways.is_empty() {
            return Err(format!("oneDNN has no way for {case:?}"));
        }
        Ok(fastest(ways))
    }

    /// A convolution or one of its gradients, ready to run.
    pub fn convolution(self, case: &Convolve, blocking: Blocking) -> Result<Run, String> {
        match case.format {
            Operands::F32 => self.convolves::<f32, f32>(case, blocking, [F32; 3], |a| a, |b| b),
            Operands::Bf16 => {
                self.convolves(case, blocking, [BF16, BF16, F32], bf16::from_f32, bf16::from_f32)
            }
            Operands::I8 => self.convolves(case, blocking, [U8, S8, S32], |a| a as u8, |b| b as i8),
        }
    }

    /// The same, of operands and a result of the types `data`.
    fn convolves<A: Pod, B: Pod>(
        self,
        case: &Convolve,
        blocking: Blocking,
        data: [c_int; 3],
        to_a: impl Fn(f32) -> A + 'static,
        to_b: impl Fn(f32) -> B + 'static,
    ) -> Result<Run, String> {
        let which = case.direction as usize;
        let mut of_tensor = [0; 3];
        for (role, tensor) in case.roles().into_iter().enumerate() {
            of_tensor[tensor] = data[role];
        }
        let rank = case.input.len();
        let plain: Vec<(Vec<i64>, Vec<i64>)> = case
            .tensors()
            .into_iter()
            .enumerate()
            .map(|(tensor, (dims, strides))| {
                let mut dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
                let mut strides: Vec<i64> = strides.iter().map(|&s| s as i64).collect();
                if tensor == 1 && case.groups > 1 {
                    // Weights of groups have one more dim.
                    let groups = case.groups as i64;
                    dims[0] /= groups;
                    strides.insert(0, strides[0] * dims[0]);
                    dims.insert(0, groups);
                }
                (dims, strides)
            })
            .collect();
        let mut outside = Vec::new();
        let (mut wanted, mut hinted) = (Vec::new(), Vec::new());
        for (tensor, (dims, strides)) in plain.iter().enumerate() {
            outside.push(self.describe(dims, Some(strides), of_tensor[tensor])?);
            let stays = blocking == Blocking::Weights && tensor != 1;
            wanted.push(self.describe(dims, stays.then_some(strides), of_tensor[tensor])?);
            // A gradient is asked for by its forward convolution, whose tensors are of one type.
            let forward = if case.direction == Direction::Forward { of_tensor[tensor] } else { data[0] };
            hinted.push(self.describe(dims, stays.then_some(strides), forward)?);
        }
        let of = |values: &[usize], less: i64| values.iter().map(|&v| v as i64 - less).collect::<Vec<_>>();
        let (strides, dilations) = (of(&case.stride, 0), of(&case.dilation, 1));
        let (low, high) = (of(&case.low, 0), of(&case.high, 0));
        assert_eq!(strides.len(), rank);
        type Forward = unsafe extern "C" fn(
            *mut Handle,
            Handle,
            c_int,
            c_int,
            Handle,
            Handle,
            Handle,
            Handle,
            *const i64,
            *const i64,
            *const i64,
            *const i64,
            *const c_void,
        ) -> Status;
        let forward: Forward = symbol(self.library, &["dnnl_convolution_forward_primitive_desc_create"])?;
        let mut description = null_mut();
        let kind = if case.direction == Direction::Forward { FORWARD_INFERENCE } else { FORWARD_TRAINING };
        // SAFETY: as above; the lists have one element a spatial axis, there is no bias and there are no attributes.
        let status = unsafe {
            forward(
                &mut description,
                self.engine,
                kind,
                CONVOLUTION_DIRECT,
                hinted[0],
                hinted[1],
                null_mut(),
                hinted[2],
                strides.as_ptr(),
                dilations.as_ptr(),
                low.as_ptr(),
                high.as_ptr(),
                null(),
            )
        };
        check(status, "dnnl_convolution_forward_primitive_desc_create")?;
        if case.direction != Direction::Forward {
            let hint = description;
            let lists = [strides.as_ptr(), dilations.as_ptr(), low.as_ptr(), high.as_ptr()];
            // SAFETY: as above; of the gradient of the weights the bias is left out.
            let status = unsafe {
                if case.direction == Direction::BackwardData {
                    type Data = unsafe extern "C" fn(
                        *mut Handle,
                        Handle,
                        c_int,
                        Handle,
                        Handle,
                        Handle,
                        *const i64,
                        *const i64,
                        *const i64,
                        *const i64,
                        Handle,
                        *const c_void,
                    ) -> Status;
                    let data: Data =
                        symbol(self.library, &["dnnl_convolution_backward_data_primitive_desc_create"])?;
                    data(
                        &mut description,
                        self.engine,
                        CONVOLUTION_DIRECT,
                        wanted[0],
                        wanted[1],
                        wanted[2],
                        lists[0],
                        lists[1],
                        lists[2],
                        lists[3],
                        hint,
                        null(),
                    )
                } else {
                    type Weights = unsafe extern "C" fn(
                        *mut Handle,
                        Handle,
                        c_int,
                        Handle,
                        Handle,
                        Handle,
                        Handle,
                        *const i64,
                        *const i64,
                        *const i64,
                        *const i64,
                        Handle,
                        *const c_void,
                    ) -> Status;
                    let weights: Weights =
                        symbol(self.library, &["dnnl_convolution_backward_weights_primitive_desc_create"])?;
                    weights(
                        &mut description,
                        self.engine,
                        CONVOLUTION_DIRECT,
                        wanted[0],
                        wanted[1],
                        null_mut(),
                        wanted[2],
                        lists[0],
                        lists[1],
                        lists[2],
                        lists[3],
                        hint,
                        null(),
                    )
                }
            };
            check(status, "the description of a gradient")?;
        }
        let query: unsafe extern "C" fn(Handle, c_int, c_int) -> Handle =
            symbol(self.library, &["dnnl_primitive_desc_query_md"])?;
        let equal: unsafe extern "C" fn(Handle, Handle) -> c_int =
            symbol(self.library, &["dnnl_memory_desc_equal"])?;
        let result = case.roles()[2];
        let mut operands = Vec::new();
        for tensor in 0..3 {
            // SAFETY: as above; the description outlives the primitive, nothing is freed.
            let inside = unsafe { query(description, QUERY[which][tensor], 0) };
            // SAFETY: two descriptions.
            let same = unsafe { equal(inside, outside[tensor]) } != 0;
            let memory = self.memory(outside[tensor], null_mut())?;
            operands.push(if same && blocking != Blocking::Before {
                Operand { outside: memory, inside: memory, reorder: null_mut() }
            } else {
                let (from, to) =
                    if tensor == result { (inside, outside[tensor]) } else { (outside[tensor], inside) };
                Operand {
                    outside: memory,
                    inside: self.memory(inside, ALLOCATE)?,
                    reorder: self.reorder(from, to)?,
                }
            });
        }
        let primitive = self.primitive(description)?;
        let calls = self.calls()?;
        let roles = case.roles();
        let arguments: Vec<Argument> = (0..3)
            .map(|tensor| Argument { which: ARGUMENT[which][tensor], memory: operands[tensor].inside })
            .collect();
        let reorder = move |operand: &Operand, to_inside: bool| {
            if operand.reorder.is_null() {
                return;
            }
            let (from, to) =
                if to_inside { (operand.outside, operand.inside) } else { (operand.inside, operand.outside) };
            calls.reorder(operand.reorder, from, to);
        };
        let (mut all_a, mut all_b, mut first) = (Vec::new(), Vec::new(), true);
        Ok(Box::new(move |a, b, c| {
            let (a, b) = (kept(&mut all_a, a, &to_a), kept(&mut all_b, b, &to_b));
            // With its own formats, operands are brought there in the first call, and the result out of there in it too.
            let counts = std::mem::take(&mut first) || blocking != Blocking::Before;
            let places: [*mut c_void; 3] =
                [a.as_ptr().cast_mut().cast(), b.as_ptr().cast_mut().cast(), c.as_mut_ptr().cast()];
            for (role, place) in roles.into_iter().zip(places) {
                // SAFETY: the slices have as many elements as the descriptions say; the operands are only read.
                unsafe { calls.place(operands[role].outside, place) };
            }
            if counts {
                roles[..2].iter().for_each(|&role| reorder(&operands[role], true));
            }
            calls.go(primitive, &arguments);
            if counts {
                reorder(&operands[roles[2]], false);
            }
            calls.wait();
        }))
    }

    /// A batch of products by the library's matmul, ready to run.
    pub fn matmul(self, case: Gemm, when: Reorder) -> Result<Run, String> {
        match case.format {
            Operands::F32 => self.products::<f32, f32>(case, when, [F32; 3], |a| a, |b| b),
            Operands::Bf16 => self.products(case, when, [BF16, BF16, F32], bf16::from_f32, bf16::from_f32),
            Operands::I8 => self.products(case, when, [U8, S8, S32], |a| a as u8, |b| b as i8),
        }
    }

    fn products<A: Pod, B: Pod>(
        self,
        case: Gemm,
        when: Reorder,
        data: [c_int; 3],
        to_a: impl Fn(f32) -> A + 'static,
        to_b: impl Fn(f32) -> B + 'static,
    ) -> Result<Run, String> {
        let Gemm { batch, m, n, k, ta, tb, .. } = case;
        // A single product has two dims: with three, some ways of the library are not open to it.
        let skip = usize::from(batch == 1);
        let describe = |[rows, cols]: [usize; 2], t: bool, data: c_int, own: bool| {
            let (row, col) = strides(rows, cols, t);
            let (dims, steps) =
                ([batch, rows, cols].map(|d| d as i64), [(rows * cols) as i64, row as i64, col as i64]);
            self.describe(&dims[skip..], (!own).then_some(&steps[skip..]), data)
        };
        let outside = [
            describe([m, k], ta, data[0], false)?,
            describe([k, n], tb, data[1], false)?,
            describe([m, n], false, data[2], false)?,
        ];
        let own = when != Reorder::Never;
        let weights = describe([k, n], tb, data[1], own)?;
        type Create = unsafe extern "C" fn(
            *mut Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            *const c_void,
        ) -> Status;
        let create: Create = symbol(self.library, &["dnnl_matmul_primitive_desc_create"])?;
        let mut description = null_mut();
        // SAFETY: as in `new`; there is no bias and there are no attributes.
        let status = unsafe {
            create(&mut description, self.engine, outside[0], weights, null_mut(), outside[2], null())
        };
        check(status, "dnnl_matmul_primitive_desc_create")?;
        let query: unsafe extern "C" fn(Handle, c_int, c_int) -> Handle =
            symbol(self.library, &["dnnl_primitive_desc_query_md"])?;
        // SAFETY: as above; the description is never freed.
        let inside = unsafe { query(description, QUERY[0][1], 0) };
        let memories = [
            self.memory(outside[0], null_mut())?,
            self.memory(outside[1], null_mut())?,
            self.memory(outside[2], null_mut())?,
        ];
        let own = if own {
            Some((self.memory(inside, ALLOCATE)?, self.reorder(outside[1], inside)?))
        } else {
            None
        };
        let primitive = self.primitive(description)?;
        let calls = self.calls()?;
        let arguments = [
            Argument { which: ARGUMENT[0][0], memory: memories[0] },
            Argument { which: ARGUMENT[0][1], memory: own.map_or(memories[1], |(memory, _)| memory) },
            Argument { which: ARGUMENT[0][2], memory: memories[2] },
        ];
        let (mut all_a, mut all_b, mut first) = (Vec::new(), Vec::new(), true);
        Ok(Box::new(move |a, b, c| {
            let (a, b) = (kept(&mut all_a, a, &to_a), kept(&mut all_b, b, &to_b));
            let places: [*mut c_void; 3] =
                [a.as_ptr().cast_mut().cast(), b.as_ptr().cast_mut().cast(), c.as_mut_ptr().cast()];
            for (memory, place) in memories.into_iter().zip(places) {
                // SAFETY: the slices have as many elements as the descriptions say; the operands are only read.
                unsafe { calls.place(memory, place) };
            }
            let now = std::mem::take(&mut first) || when == Reorder::EachCall;
            if let (Some((memory, reorder)), true) = (own, now) {
                calls.reorder(reorder, memories[1], memory);
            }
            calls.go(primitive, &arguments);
            calls.wait();
        }))
    }
}
