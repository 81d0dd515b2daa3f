//! Embeds the kernel part's sources, so that the one binary can build it for any target.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel");
    let mut files = Vec::new();
    collect(&folder, &mut files);
    files.sort();
    let mut code = String::from("const SOURCES: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&folder).expect("lies in the folder");
        println!("cargo::rerun-if-changed={}", file.display());
        writeln!(code, "    ({name:?}, include_bytes!({file:?})),")
            .expect("a string can be written to");
    }
    code.push_str("];\n");
    println!("cargo::rerun-if-changed={}", folder.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("sources.rs"), code).expect("cargo's folder can be written to");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the kernel part lies beside the crates");
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if is_source(&path) {
            files.push(path);
        }
    }
}

/// What a build in the tree leaves behind is not embedded.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let source = matches!(&*name, "Kbuild" | "Kbuild.include" | "Makefile")
        || name.ends_with(".h")
        || name.ends_with(".c")
        || name.ends_with(".S");
    source && !name.starts_with('.') && !name.ends_with(".mod.c")
}
