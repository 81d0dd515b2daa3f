//! Inserts kernel modules.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use preverify_protocol::modules::{insertion_order, is_built_in};
use rustix::io::Errno;
use rustix::system::{finit_module, uname};

use crate::error::AgentError;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks it.
const COMPRESSED: i32 = 4;

/// Inserts all modules of a folder, by name. A folder that does not exist has none; other files may lie there, too.
pub fn insert_all(folder: &Path) -> Result<(), AgentError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(AgentError::file("read", folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(AgentError::file("read", folder))?.path();
        if is_module(&path) {
            files.push(path);
        }
    }
    files.sort();
    files.iter().try_for_each(|file| insert(file))
}

/// Whether a file is a module, packed or not.
fn is_module(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let end = name.rsplit_once(".ko").map(|(_, end)| end);
    matches!(end, Some("" | ".xz" | ".gz" | ".zst"))
}

/// Inserts a module of this kernel, after those that it depends on.
pub fn modprobe(name: &str) -> Result<(), AgentError> {
    let folder = Path::new("/lib/modules").join(uname().release().to_string_lossy().as_ref());
    let read = |file: &str| match fs::read_to_string(folder.join(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(AgentError::file("read", folder.join(file))),
    };
    match insertion_order(&read("modules.dep")?, name) {
        Some(files) => files.iter().try_for_each(|file| insert(&folder.join(file))),
        None if is_built_in(&read("modules.builtin")?, name) => Ok(()),
        None => Err(AgentError::NoModule {
            name: name.into(),
            folder,
        }),
    }
}

fn insert(path: &Path) -> Result<(), AgentError> {
    let file = File::open(path).map_err(AgentError::file("open", path))?;
    let flags = match path.extension().and_then(OsStr::to_str) {
        Some("xz" | "gz" | "zst") => COMPRESSED,
        _ => 0,
    };
    match finit_module(&file, c"", flags) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(AgentError::file("insert the kernel module", path)(
            errno.into(),
        )),
    }
}
