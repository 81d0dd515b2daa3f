//! Inserts kernel modules.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::{finit_module, uname};

use crate::error::AgentError;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks it.
const COMPRESSED: i32 = 4;

/// Inserts all modules of a folder, by name. A folder that does not exist has none.
pub fn insert_all(folder: &Path) -> Result<(), AgentError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(AgentError::file("read", folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(AgentError::file("read", folder))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    files.iter().try_for_each(|file| insert(file))
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

/// The files to insert for a module, from the text of `modules.dep`: those that it depends on
/// stand behind it, what needs others before those others.
fn insertion_order(modules_dep: &str, name: &str) -> Option<Vec<PathBuf>> {
    modules_dep.lines().find_map(|line| {
        let (module, needs) = line.split_once(':')?;
        (module_name(module) == normalised(name)).then(|| {
            let mut files: Vec<PathBuf> = needs.split_whitespace().map(Into::into).collect();
            files.reverse();
            files.push(module.into());
            files
        })
    })
}

fn is_built_in(modules_builtin: &str, name: &str) -> bool {
    modules_builtin
        .lines()
        .any(|line| module_name(line) == normalised(name))
}

/// `kernel/net/ipv4/tcp_bbr.ko.xz` is `tcp_bbr`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalised(file.split(".ko").next().unwrap_or(file))
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn normalised(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES_DEP: &str = "\
kernel/lib/libcrc32c.ko.xz:
kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz:
kernel/net/netfilter/nf_conntrack.ko.xz: kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/drivers/block/virtio-blk.ko:
";

    #[test]
    fn what_a_module_needs_is_inserted_before_it() {
        assert_eq!(
            insertion_order(MODULES_DEP, "nf_conntrack").unwrap(),
            [
                "kernel/lib/libcrc32c.ko.xz",
                "kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz",
                "kernel/net/netfilter/nf_conntrack.ko.xz",
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn hyphens_and_underscores_are_the_same() {
        let expected = Some(vec![PathBuf::from("kernel/drivers/block/virtio-blk.ko")]);
        assert_eq!(insertion_order(MODULES_DEP, "virtio_blk"), expected);
        assert_eq!(insertion_order(MODULES_DEP, "virtio-blk"), expected);
    }

    #[test]
    fn only_whole_names_count() {
        assert_eq!(insertion_order(MODULES_DEP, "nf_conn"), None);
        assert_eq!(insertion_order(MODULES_DEP, "conntrack"), None);
    }

    #[test]
    fn built_in_modules_are_known_by_name() {
        let list = "kernel/drivers/char/virtio_console.ko\nkernel/net/ipv4/tcp_cubic.ko\n";
        assert!(is_built_in(list, "tcp-cubic"));
        assert!(!is_built_in(list, "tcp"));
    }
}
