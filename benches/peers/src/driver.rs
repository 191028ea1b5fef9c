//! ONNX Runtime as a contender: a Python program beside this process, which gets each convolution through a pipe and times it by the same rules.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::contenders::{Contender, Libraries};

/// The program, ready for its next case.
pub struct Driver {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    seconds: f64,
}

impl Driver {
    /// Starts it.
    pub fn start(libraries: &Libraries) -> Result<Self, String> {
        let packages = libraries.path(Contender::Onnxruntime).ok_or("fetch.sh brings ONNX Runtime")?;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnxruntime_conv.py");
        let mut child = Command::new("python3")
            .arg(program)
            .env("PYTHONPATH", packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Ok(Driver { child, to, from: BufReader::new(from.expect("piped")) })
    }

    /// Has a case computed into `c`; the seconds that a call takes.
    pub fn time(&mut self, case: &Value, operands: [&[f32]; 2], c: &mut [f32]) -> Result<f64, String> {
        let text = |error: std::io::Error| format!("the driver of ONNX Runtime: {error}");
        let to = self.to.as_mut().expect("open until the end");
        writeln!(to, "{case}").map_err(text)?;
        for operand in operands {
            to.write_all(bytemuck::cast_slice(operand)).map_err(text)?;
        }
        to.flush().map_err(text)?;
        let mut line = String::new();
        self.from.read_line(&mut line).map_err(text)?;
        let Answer { seconds } = serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}"))?;
        self.from.read_exact(bytemuck::cast_slice_mut(c)).map_err(text)?;
        Ok(seconds)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Its input at an end, it ends.
        self.to = None;
        let _ = self.child.wait();
    }
}
