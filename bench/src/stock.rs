//! A program loaded the kernel's own way, again and again: libbpf prepares it once, then only the
//! system call is repeated.

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use libbpf_sys as sys;

/// A program that libbpf has loaded once, so that its instructions are final.
pub struct StockProgram {
    object: NonNull<sys::bpf_object>,
    program: NonNull<sys::bpf_program>,
    attach_btf_id: u32,
    license: &'static CStr,
}

impl StockProgram {
    /// Opens an object, and loads one of its programs and no other.
    pub fn prepare(elf: &[u8], function: &str) -> io::Result<Self> {
        let function = CString::new(function)?;
        let size = elf.len().try_into().map_err(io::Error::other)?;
        // SAFETY: libbpf reads `size` bytes and copies what it keeps.
        let object = unsafe { sys::bpf_object__open_mem(elf.as_ptr().cast(), size, ptr::null()) };
        let object = NonNull::new(object).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the object is open, the name is terminated.
        let program =
            unsafe { sys::bpf_object__find_program_by_name(object.as_ptr(), function.as_ptr()) };
        let program = NonNull::new(program).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("the object has no program {}", function.to_string_lossy()),
            )
        })?;
        let mut stock = Self {
            object,
            program,
            attach_btf_id: 0,
            license: c"GPL",
        };
        stock.load_once()?;
        Ok(stock)
    }

    fn load_once(&mut self) -> io::Result<()> {
        let mut other = ptr::null_mut();
        loop {
            // SAFETY: the object is open, `other` is null or one of its programs.
            other = unsafe { sys::bpf_object__next_program(self.object.as_ptr(), other) };
            if other.is_null() {
                break;
            }
            let wanted = other == self.program.as_ptr();
            // SAFETY: a program of an object that is not loaded yet.
            check(unsafe { sys::bpf_program__set_autoload(other, wanted) })?;
        }
        // SAFETY: the object is open.
        check(unsafe { sys::bpf_object__load(self.object.as_ptr()) })?;
        let mut info = sys::bpf_prog_info::default();
        let mut size = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
        // SAFETY: the program is loaded; the kernel writes at most `size` bytes into `info`.
        check(unsafe {
            let fd = sys::bpf_program__fd(self.program.as_ptr());
            sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut size)
        })?;
        self.attach_btf_id = info.attach_btf_id;
        if info.gpl_compatible() == 0 {
            self.license = c"Proprietary";
        }
        Ok(())
    }

    /// Attaches it to a network interface, as XDP, for as long as the link is pinned.
    pub fn attach_xdp(&self, interface: &str, pin: &str) -> io::Result<()> {
        let (interface, pin) = (CString::new(interface)?, CString::new(pin)?);
        // SAFETY: the name is terminated.
        let index = unsafe { libc::if_nametoindex(interface.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let index = c_int::try_from(index).map_err(io::Error::other)?;
        // SAFETY: the program is loaded.
        let link = unsafe { sys::bpf_program__attach_xdp(self.program.as_ptr(), index) };
        let link = NonNull::new(link).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the link is there, the path is terminated.
        let pinned = check(unsafe { sys::bpf_link__pin(link.as_ptr(), pin.as_ptr()) });
        // SAFETY: nobody uses the link any more.
        unsafe { sys::bpf_link__destroy(link.as_ptr()) };
        pinned
    }

    /// `BPF_PROG_LOAD`, without a log.
    pub fn load(&self) -> io::Result<OwnedFd> {
        let program = self.program.as_ptr();
        // SAFETY: object and program live as long as `self`; libbpf keeps instructions and their
        // descriptions until the object is closed, and the options point to nothing else.
        let fd = unsafe {
            let options = LoadOpts {
                sz: size_of::<LoadOpts>() as sys::size_t,
                attempts: 0,
                expected_attach_type: sys::bpf_program__expected_attach_type(program),
                prog_btf_fd: u32::try_from(sys::bpf_object__btf_fd(self.object.as_ptr()))
                    .unwrap_or(0),
                prog_flags: sys::bpf_program__flags(program),
                prog_ifindex: 0,
                kern_version: 0,
                attach_btf_id: self.attach_btf_id,
                attach_prog_fd: 0,
                attach_btf_obj_fd: 0,
                fd_array: ptr::null(),
                func_info: sys::bpf_program__func_info(program).cast(),
                func_info_cnt: sys::bpf_program__func_info_cnt(program),
                func_info_rec_size: record_size::<sys::bpf_func_info>(),
                line_info: sys::bpf_program__line_info(program).cast(),
                line_info_cnt: sys::bpf_program__line_info_cnt(program),
                line_info_rec_size: record_size::<sys::bpf_line_info>(),
            };
            sys::bpf_prog_load(
                sys::bpf_program__type(program),
                sys::bpf_program__name(program),
                self.license.as_ptr(),
                sys::bpf_program__insns(program),
                sys::bpf_program__insn_cnt(program),
                ptr::from_ref(&options).cast_mut().cast(),
            )
        };
        check(fd)?;
        // SAFETY: a new file descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The start of libbpf's `struct bpf_prog_load_opts`. The bindings' own spells out the padding that it has where
/// pointers have 64 bits: elsewhere all that follows would be in a wrong place.
#[repr(C)]
struct LoadOpts {
    sz: sys::size_t,
    attempts: c_int,
    expected_attach_type: sys::bpf_attach_type,
    prog_btf_fd: u32,
    prog_flags: u32,
    prog_ifindex: u32,
    kern_version: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    attach_btf_obj_fd: u32,
    fd_array: *const c_int,
    func_info: *const c_void,
    func_info_cnt: u32,
    func_info_rec_size: u32,
    line_info: *const c_void,
    line_info_cnt: u32,
    line_info_rec_size: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    type Theirs = sys::bpf_prog_load_opts;
    assert!(offset_of!(LoadOpts, attach_btf_obj_fd) == offset_of!(Theirs, attach_btf_obj_fd));
    assert!(offset_of!(LoadOpts, fd_array) == offset_of!(Theirs, fd_array));
    assert!(offset_of!(LoadOpts, func_info_rec_size) == offset_of!(Theirs, func_info_rec_size));
    assert!(offset_of!(LoadOpts, line_info) == offset_of!(Theirs, line_info));
    assert!(offset_of!(LoadOpts, line_info_rec_size) == offset_of!(Theirs, line_info_rec_size));
};

impl Drop for StockProgram {
    fn drop(&mut self) {
        // SAFETY: the object is open, and nothing of it is used any more.
        unsafe { sys::bpf_object__close(self.object.as_ptr()) };
    }
}

const fn record_size<T>() -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a few bytes")]
    let size = size_of::<T>() as u32;
    size
}

/// libbpf returns negative error numbers.
fn check(returned: c_int) -> io::Result<()> {
    if returned < 0 {
        Err(io::Error::from_raw_os_error(-returned))
    } else {
        Ok(())
    }
}
