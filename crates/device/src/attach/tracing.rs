//! What the kernel can be traced at: the trace file system.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::AttachError;

/// The number of a tracepoint.
pub fn tracepoint_id(category: &str, name: &str) -> Result<u64, AttachError> {
    let path = root()?.join("events").join(category).join(name).join("id");
    let text = fs::read_to_string(&path).map_err(|source| AttachError::NoTracepoint {
        category: category.to_owned(),
        name: name.to_owned(),
        source,
    })?;
    text.trim().parse().map_err(|_| AttachError::File {
        path,
        source: std::io::Error::other(format!("expected a number, found {text:?}")),
    })
}

/// The traceable kernel functions whose names match a pattern with `*` and `?`.
pub fn functions(pattern: &str) -> Result<Vec<CString>, AttachError> {
    let none = || AttachError::NoFunctions {
        pattern: pattern.to_owned(),
    };
    if !pattern.contains(['*', '?']) {
        let function = CString::new(pattern).map_err(|_| none())?;
        return Ok(vec![function]);
    }
    let path = root()?.join("available_filter_functions");
    let fails = |source| AttachError::File {
        path: path.clone(),
        source,
    };
    let lines = BufReader::new(File::open(&path).map_err(fails)?).lines();
    let mut functions = Vec::new();
    for line in lines {
        let line = line.map_err(fails)?;
        if let Some(name) = function_name(&line).filter(|name| matches(pattern, name)) {
            functions.push(CString::new(name).map_err(|_| none())?);
        }
    }
    // The kernel takes each name once, however many functions have it.
    functions.sort_unstable();
    functions.dedup();
    if functions.is_empty() {
        return Err(none());
    }
    Ok(functions)
}

/// Lines are `name` or `name [module]`; names of functions that are gone are marked.
fn function_name(line: &str) -> Option<&str> {
    let name = line.split_whitespace().next()?;
    (!name.starts_with("__ftrace_invalid_address__")).then_some(name)
}

fn root() -> Result<PathBuf, AttachError> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(Path::new)
        .find(|root| root.join("events").is_dir())
        .map(Path::to_owned)
        .ok_or(AttachError::NoTraceFs)
}

/// Whether a pattern with `*` (any characters) and `?` (one character) matches a whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on if what follows the last star does not match.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, n));
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after_star, taken)) => {
                    p = after_star;
                    n = taken + 1;
                    retry = Some((after_star, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("tcp_*", "tcp_sendmsg", true),
            ("tcp_*", "__tcp_sendmsg", false),
            ("*send*", "tcp_sendmsg", true),
            ("*msg", "tcp_sendmsg_locked_msg", true),
            ("*msg", "tcp_sendmsg_locked", false),
            ("tcp_?endmsg", "tcp_sendmsg", true),
            ("tcp_?", "tcp_", false),
            ("*a*b*", "xxaxxb", true),
            ("*a*b*", "xxbxxa", false),
            ("**", "", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn modules_and_lost_functions() {
        assert_eq!(function_name("vfs_read"), Some("vfs_read"));
        assert_eq!(function_name("ext4_sync_fs [ext4]"), Some("ext4_sync_fs"));
        assert_eq!(function_name("__ftrace_invalid_address___32"), None);
        assert_eq!(function_name(""), None);
    }

    #[test]
    fn one_name_needs_no_list() {
        assert_eq!(functions("vfs_read").unwrap(), [c"vfs_read".to_owned()]);
    }
}
