//! What a target's machines boot into.

use std::path::Path;

use preverify_vm::initramfs::Initramfs;

use crate::arch::Arch;
use crate::error::TargetError;
use crate::kernel::Kernel;
use crate::target::{Contents, GuestFile};

/// Modules that the port to the host needs where they are not built in.
const PORT_MODULES: [&str; 2] = ["virtio_pci", "virtio_console"];
/// The module of the PCI bus where the machine has no firmware that drives it.
const BUS_MODULE: &str = "pci_host_generic";
/// Where the agent finds the kernel's BTF if the kernel has none.
const BTF_PATH: &str = "/lib/preverify/kernel.btf";
/// The module of the network cards.
const NETWORK_MODULE: &str = "virtio_net";

/// The contents of an initial file system.
pub(crate) struct Guest<'a> {
    pub kernel: &'a Kernel,
    pub agent: &'a Path,
    /// The kernel part in its role, unless the kernel has it built in.
    pub part: Option<&'a Path>,
    pub network: bool,
    /// Further modules to insert at boot.
    pub modules: &'a [String],
    pub files: &'a [GuestFile],
}

impl Guest<'_> {
    /// The archive.
    pub(crate) fn archive(&self) -> Result<Vec<u8>, TargetError> {
        let mut guest = Initramfs::new();
        guest
            .character_device("/dev/console", 0o600, 5, 1)?
            .host_file("/init", 0o755, self.agent)?;
        self.put_modules(&mut guest)?;
        if let Some(part) = self.part {
            let name = part.file_name().unwrap_or_default().to_string_lossy();
            guest.host_file(&format!("/lib/preverify/{name}"), 0o644, part)?;
        }
        guest.file(
            &format!("/boot/config-{}", self.kernel.release()),
            0o644,
            self.kernel.config()?,
        )?;
        if let Some(btf) = self.kernel.given_btf() {
            guest.host_file(BTF_PATH, 0o644, &btf)?;
        }
        for GuestFile {
            path,
            mode,
            contents,
        } in self.files
        {
            match contents {
                Contents::Bytes(bytes) => guest.file(path, *mode, bytes.clone())?,
                Contents::HostFile(file) => guest.host_file(path, *mode, file)?,
            };
        }
        Ok(guest.archive()?)
    }

    /// Modules to insert first, and the lists that the agent finds others with.
    fn put_modules(&self, guest: &mut Initramfs) -> Result<(), TargetError> {
        let folder = self.kernel.module_folder();
        for list in ["modules.dep", "modules.builtin"] {
            let path = guest_path(self.kernel.release(), list);
            guest.host_file(&path, 0o644, &folder.join(list))?;
        }
        let mut names = Vec::new();
        if self.kernel.arch() != Arch::X86_64 {
            names.push(BUS_MODULE);
        }
        names.extend(PORT_MODULES);
        if self.network {
            names.push(NETWORK_MODULE);
        }
        names.extend(self.modules.iter().map(String::as_str));
        let files = self.kernel.modules()?.files(&names)?;
        for (index, file) in files.iter().enumerate() {
            // The agent inserts by name.
            let name = file.rsplit('/').next().unwrap_or(file);
            let path = format!("/lib/preverify/early/{index:03}-{name}");
            guest.host_file(&path, 0o644, &folder.join(file))?;
        }
        Ok(())
    }
}

/// Where the agent looks for a file of `/lib/modules`.
pub(crate) fn guest_path(release: &str, file: &str) -> String {
    format!("/lib/modules/{release}/{file}")
}
