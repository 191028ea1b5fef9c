//! Arrows point down: who may import whom, and where unsafe code may stand. Prints the offending line.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the main crate by floor. A module imports its own floor's and lower ones.
const FLOORS: [&[&str]; 4] = [
    &["error", "layout", "numerics", "machine", "view"],
    &["plan", "epilogue", "geometry", "context", "workspace"],
    &["backend"],
    &["ops", "lib"],
];

/// Modules of the kernel crate, lowest first.
const KERNEL_FLOORS: [&[&str]; 4] = [
    &["simd", "isa"],
    &["axis", "scan", "buf", "mat", "math", "format"],
    &["pack", "gemm", "epilogue", "cast"],
    &["registry", "lib"],
];

/// The imports that point up, each with its reason in ARCHITECTURE.md.
const KERNEL_EXCEPTIONS: [(&str, &str); 2] = [
    ("simd", "gemm"), // Simd: Ukernel<..>, the bound that lets one dispatch reach every kernel
    ("format", "epilogue"), // Element::Param names the type of an epilogue's scales
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files
}

/// The top-level module that a file belongs to.
fn module(root: &Path, file: &Path) -> String {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_string()
}

fn check(root: &str, floors: &[&[&str]], exceptions: &[(&str, &str)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in sources(&root) {
        let own = module(&root, &file);
        let own_floor =
            floor(&own).unwrap_or_else(|| panic!("{} has no floor in tests/layering.rs", file.display()));
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if line == "#[cfg(test)]" {
                break; // unit tests stand last and may look at anything
            }
            if line.trim_start().starts_with("//") {
                continue;
            }
            for part in line.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(other) = floor(&name) else { continue };
                seen += 1;
                if other > own_floor && !exceptions.contains(&(own.as_str(), name.as_str())) {
                    wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(seen > 20, "the check reads nothing");
    assert!(wrong.is_empty(), "imports that point up:\n{}", wrong.join("\n"));
}

#[test]
fn the_main_crate_imports_downwards() {
    check("src", &FLOORS, &[]);
}

#[test]
fn the_kernel_crate_imports_downwards() {
    check("kernels/src", &KERNEL_FLOORS, &KERNEL_EXCEPTIONS);
}

#[test]
fn threads_are_known_to_the_backend_and_the_context_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in sources(&root.join("src")).into_iter().chain(sources(&root.join("kernels/src"))) {
        let allowed = file.ends_with("backend/tile.rs")
            || file.ends_with("backend/fork.rs")
            || file.ends_with("backend/cast.rs")
            || file.ends_with("src/context.rs");
        for line in
            fs::read_to_string(&file).unwrap().lines().filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(allowed || !line.contains("rayon::"), "{}: {line}", file.display());
            let hidden = ["std::env::", "thread_local!", "static mut"];
            assert!(!hidden.iter().any(|word| line.contains(word)), "{}: {line}", file.display());
        }
    }
}

#[test]
fn unsafe_code_has_few_addresses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
    for file in sources(&root.join("kernels/src")) {
        let path = file.strip_prefix(root.join("kernels/src")).unwrap();
        if path.starts_with("simd") || path.starts_with("mat") || path == Path::new("buf.rs") {
            continue;
        }
        for line in
            fs::read_to_string(&file).unwrap().lines().filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(!line.contains("unsafe "), "{}: {line}", file.display());
        }
    }
}
