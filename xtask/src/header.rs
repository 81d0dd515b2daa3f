//! `cargo xtask header`: the kernel part's C header, generated from `crates/abi`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};
use preverify_abi::{container, export, image, ioctl, manifest};

/// Where the header lies in the repository.
const HEADER: &str = "kernel/include/preverified.h";

/// The sources that the header is made from, in the order of their records' use.
const SOURCES: [&str; 6] = ["lib", "image", "manifest", "export", "ioctl", "container"];

/// The header could not be made, or is stale.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// A file could not be read or written.
    #[error("cannot access {path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// cbindgen did not understand the sources.
    #[error("cbindgen cannot translate crates/abi: {0}")]
    Translate(cbindgen::Error),
    /// The committed header is not what the sources give.
    #[error("{HEADER} is stale: run `cargo xtask header`")]
    Stale,
}

/// Writes the header, or with `check` compares the committed one.
pub fn header(check: bool) -> Result<(), HeaderError> {
    let text = generate()?;
    let path = workspace().join(HEADER);
    if check {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        return if committed == text {
            Ok(())
        } else {
            Err(HeaderError::Stale)
        };
    }
    fs::write(&path, text).map_err(|cause| HeaderError::File { path, cause })
}

/// The root of the repository.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

fn generate() -> Result<String, HeaderError> {
    let folder = workspace().join("crates/abi/src");
    let files = SOURCES.map(|source| folder.join(source).with_extension("rs"));
    let mut layouts = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).map_err(|cause| HeaderError::File {
            path: file.clone(),
            cause,
        })?;
        layouts.extend(parse_layouts(&text));
    }

    let mut text = String::from(
        "/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT */\n\
         /* Generated from crates/abi by `cargo xtask header`: do not edit. */\n\
         #ifndef PREVERIFIED_H\n#define PREVERIFIED_H\n\n\
         #include <linux/ioctl.h>\n#include <linux/types.h>\n\n",
    );
    text.push_str(kernel_style(&translate(&files, &layouts)?).trim_end());
    text.push('\n');
    write_strings(&mut text);
    write_ioctls(&mut text);
    write_assertions(&mut text, &layouts);
    text.push_str("\n#endif /* PREVERIFIED_H */\n");
    Ok(text)
}

/// One record and its size, as `assert_layout!` has them.
struct Layout {
    record: String,
    size: String,
}

/// Reads the `assert_layout!` blocks of a source file: `Record { field @ offset, ... } = size;`.
/// The Rust compiler has checked them.
fn parse_layouts(source: &str) -> Vec<Layout> {
    let mut layouts = Vec::new();
    for block in source.split("\nassert_layout! {").skip(1) {
        let block = block.split("\n}").next().unwrap_or_default();
        for entry in block.split(';') {
            let (Some((record, _)), Some((_, size))) =
                (entry.split_once('{'), entry.split_once('='))
            else {
                continue;
            };
            layouts.push(Layout {
                record: record.trim().into(),
                size: size.trim().into(),
            });
        }
    }
    layouts
}

/// The records and numeric constants, as cbindgen writes them.
fn translate(files: &[PathBuf], layouts: &[Layout]) -> Result<String, HeaderError> {
    let mut config = Config {
        language: Language::C,
        style: Style::Tag,
        documentation_style: DocumentationStyle::Doxy,
        no_includes: true,
        ..Config::default()
    };
    config.export.prefix = Some("PV_".into());
    config.export.include = layouts.iter().map(|layout| layout.record.clone()).collect();
    let builder = files
        .iter()
        .fold(Builder::new().with_config(config), |builder, file| {
            builder.with_src(file)
        });
    let mut output = Vec::new();
    builder
        .generate()
        .map_err(HeaderError::Translate)?
        .write(&mut output);
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Turns cbindgen's style into the kernel's: tabs, short comments on one line, the kernel's names.
fn kernel_style(text: &str) -> String {
    let mut output = String::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut comment_indent = "";
    let mut after_blank = true;
    for line in text.lines() {
        let body = line.trim_start();
        let indent = if line.len() > body.len() { "\t" } else { "" };
        if body == "/**" {
            comment_indent = indent;
        } else if body.starts_with("* ") || body == "*" {
            comment.push(body);
        } else if body == "*/" {
            write_comment(&mut output, comment_indent, &comment);
            comment.clear();
            after_blank = false;
        } else if !(body.is_empty() && after_blank) {
            output.push_str(indent);
            output.push_str(&rename(body, true));
            output.push('\n');
            after_blank = body.is_empty();
        }
    }
    output
}

fn write_comment(output: &mut String, indent: &str, lines: &[&str]) {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| rename(&plain_links(line.trim_start_matches('*').trim()), false))
        .collect();
    if let [line] = &lines[..]
        && line.len() <= 80
    {
        let _ = writeln!(output, "{indent}/* {line} */");
        return;
    }
    let _ = writeln!(output, "{indent}/*");
    for line in &lines {
        let _ = writeln!(output, "{}", format!("{indent} * {line}").trim_end());
    }
    let _ = writeln!(output, "{indent} */");
}

/// Turns rustdoc's links into the C names of what they mean.
fn plain_links(text: &str) -> String {
    let mut output = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        let (path, after) = link.split_once("`]").unwrap_or((link, ""));
        let name = path.rsplit("::").next().unwrap_or(path);
        let tag = match name.chars().any(char::is_lowercase) {
            true if name.chars().any(char::is_uppercase) => "struct PV_",
            true => "",
            false => "PV_",
        };
        output.push_str(before);
        output.push_str(tag);
        output.push_str(name);
        rest = after;
    }
    output.push_str(rest);
    output
}

/// Replaces names by the kernel's, word by word; in comments only those with our prefix.
fn rename(text: &str, code: bool) -> String {
    let mut output = String::new();
    let mut word = String::new();
    for letter in text.chars().chain(['\n']) {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            word.push(letter);
            continue;
        }
        output.push_str(&kernel_word(&word, code));
        word.clear();
        output.push(letter);
    }
    output.pop();
    output
}

fn kernel_word(word: &str, code: bool) -> String {
    let known = match word {
        "PV_U16" => "__le16",
        "PV_U32" | "PV_I32" => "__le32",
        "PV_U64" | "PV_I64" => "__le64",
        "uint8_t" => "__u8",
        "uint32_t" => "__u32",
        "int32_t" => "__s32",
        "uint64_t" => "__u64",
        "UINT32_MAX" => "0xffffffffU",
        _ => "",
    };
    if code && !known.is_empty() {
        return known.into();
    }
    match word.strip_prefix("PV_") {
        // Not the plural of a constant, as in `NONEs`.
        Some(record) if record.chars().nth(1).is_some_and(char::is_lowercase) => {
            record_name(record)
        }
        _ => word.into(),
    }
}

/// `ImageHeader` is `pv_image_header`.
fn record_name(record: &str) -> String {
    if record == "Info" {
        // x86 has a `struct pv_info` of its own, about paravirtualisation.
        return "pv_machine_info".into();
    }
    let mut name = String::from("pv");
    for letter in record.chars() {
        if letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn write_strings(text: &mut String) {
    let magics = [
        ("IMAGE", image::IMAGE_MAGIC),
        ("SYMBOLS", image::SYMBOLS_MAGIC),
        ("MANIFEST", manifest::MANIFEST_MAGIC),
        ("EXPORT", export::EXPORT_MAGIC),
        ("CONTAINER", container::CONTAINER_MAGIC),
    ];
    text.push_str("\n/* The first bytes of each kind of record, without a terminating zero. */\n");
    for (name, magic) in magics {
        let _ = writeln!(
            text,
            "#define PV_{name}_MAGIC \"{}\"",
            String::from_utf8_lossy(&magic)
        );
    }
    text.push_str("\n/* Where user space meets the kernel part. */\n");
    let names = [
        ("DEVICE_PATH", ioctl::DEVICE_PATH),
        ("EXPORT_DEVICE_PATH", ioctl::EXPORT_DEVICE_PATH),
        ("KEYRING_NAME", ioctl::KEYRING_NAME),
    ];
    for (name, value) in names {
        let _ = writeln!(text, "#define PV_{name} \"{value}\"");
    }
}

fn write_ioctls(text: &mut String) {
    let calls = [
        ("INFO", ioctl::IOC_INFO, "Info"),
        ("OPEN", ioctl::IOC_OPEN, "Open"),
        ("LOAD", ioctl::IOC_LOAD, "Load"),
        ("EXPORT", ioctl::IOC_EXPORT, "Export"),
    ];
    text.push_str("\n/* The calls. */\n");
    for (name, number, record) in calls {
        let macro_name = if number >> 30 == 2 { "_IOR" } else { "_IOWR" };
        let _ = writeln!(
            text,
            "#define PV_IOC_{name} {macro_name}('p', {:#04x}, struct {})",
            number & 0xff,
            record_name(record),
        );
    }
    text.push('\n');
    for (name, number, _) in calls {
        let _ = writeln!(
            text,
            "_Static_assert(PV_IOC_{name} == {number:#x}, \"as crates/abi has it\");"
        );
    }
}

fn write_assertions(text: &mut String, layouts: &[Layout]) {
    text.push('\n');
    for Layout { record, size } in layouts {
        let record = record_name(record);
        let _ = writeln!(
            text,
            "_Static_assert(sizeof(struct {record}) == {size}, \"{record}\");"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_header_is_current() {
        header(true).unwrap();
    }

    #[test]
    fn layouts_are_read() {
        let layouts = parse_layouts(
            "x\nassert_layout! {\n    A { b @ 0,\n        c_d @ 4,\n    } = 8;\n    E { f @ 0 } = 16;\n}\n",
        );
        let names: Vec<_> = layouts
            .iter()
            .map(|l| (l.record.as_str(), l.size.as_str()))
            .collect();
        assert_eq!(names, [("A", "8"), ("E", "16")]);
    }

    #[test]
    fn names_become_the_kernels() {
        assert_eq!(kernel_word("PV_ImageHeader", true), "pv_image_header");
        assert_eq!(kernel_word("PV_ABI_VERSION", true), "PV_ABI_VERSION");
        assert_eq!(kernel_word("PV_RELOC_SYMBOLs", false), "PV_RELOC_SYMBOLs");
        assert_eq!(kernel_word("PV_Info", true), "pv_machine_info");
        assert_eq!(kernel_word("PV_U64", true), "__le64");
        assert_eq!(
            plain_links("a [`crate::image::Reloc`] or [`NONE`]"),
            "a struct PV_Reloc or PV_NONE"
        );
    }
}
