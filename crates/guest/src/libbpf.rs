//! libbpf's objects, as far as the agent needs them, behind safe functions.
//!
//! The `libbpf-rs` crate stops short of what loading for others needs: Kconfig text, logs of single
//! programs, templates of inner maps, maps that libbpf did not create. So this module stands
//! directly on its bindings.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;

use libbpf_sys as sys;

/// libbpf's version, as in `1.7.0`.
pub fn version() -> String {
    // SAFETY: libbpf returns a static string with its terminating zero.
    let version = unsafe { CStr::from_ptr(sys::libbpf_version_string()) };
    version.to_string_lossy().trim_start_matches('v').to_owned()
}

/// What to open an object with.
pub struct OpenOptions<'a> {
    /// The object's name.
    pub name: &'a str,
    /// Kconfig text that goes before the kernel's own.
    pub kconfig: Option<&'a str>,
    /// The file with the kernel's BTF, instead of the kernel's own.
    pub btf: Option<&'a CStr>,
}

/// The start of libbpf's `struct bpf_object_open_opts`. The bindings' own spells out the padding that it has where
/// pointers have 64 bits: elsewhere all that follows would be in a wrong place.
#[repr(C)]
struct OpenOpts {
    sz: sys::size_t,
    object_name: *const c_char,
    relaxed_maps: bool,
    pin_root_path: *const c_char,
    reserved: u32,
    kconfig: *const c_char,
    btf_custom_path: *const c_char,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    type Theirs = sys::bpf_object_open_opts;
    assert!(offset_of!(OpenOpts, object_name) == offset_of!(Theirs, object_name));
    assert!(offset_of!(OpenOpts, relaxed_maps) == offset_of!(Theirs, relaxed_maps));
    assert!(offset_of!(OpenOpts, pin_root_path) == offset_of!(Theirs, pin_root_path));
    assert!(offset_of!(OpenOpts, reserved) == offset_of!(Theirs, _bitfield_1));
    assert!(offset_of!(OpenOpts, kconfig) == offset_of!(Theirs, kconfig));
    assert!(offset_of!(OpenOpts, btf_custom_path) == offset_of!(Theirs, btf_custom_path));
};

/// A BPF object: opened, later loaded.
///
/// Programs and maps borrow it, and loading borrows it exclusively. Functions called in a state
/// that they do not fit return libbpf's errors.
pub struct Object {
    object: NonNull<sys::bpf_object>,
    /// The kernel writes here while the object is loaded. Dropped after the object.
    logs: Vec<LogBuffer>,
}

impl Object {
    /// Opens an ELF file in memory.
    pub fn open(elf: &[u8], options: &OpenOptions<'_>) -> io::Result<Self> {
        let name = CString::new(options.name)?;
        let kconfig = options.kconfig.map(CString::new).transpose()?;
        let options = OpenOpts {
            sz: size_of::<OpenOpts>() as sys::size_t,
            object_name: name.as_ptr(),
            relaxed_maps: false,
            pin_root_path: ptr::null(),
            reserved: 0,
            kconfig: kconfig.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
            btf_custom_path: options.btf.map_or(ptr::null(), CStr::as_ptr),
        };
        // SAFETY: libbpf reads the file and the options, of which it takes as many bytes as `sz` says, and copies
        // what it keeps.
        let object = unsafe {
            sys::bpf_object__open_mem(
                elf.as_ptr().cast(),
                elf.len() as sys::size_t,
                ptr::from_ref(&options).cast(),
            )
        };
        Ok(Self {
            object: NonNull::new(object).ok_or_else(io::Error::last_os_error)?,
            logs: Vec::new(),
        })
    }

    /// The programs, in the object's order. Functions that programs call are none.
    pub fn programs(&self) -> impl Iterator<Item = Program<'_>> {
        let mut last = ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the object lives, and `last` is null or a program of it.
            last = unsafe { sys::bpf_object__next_program(self.object.as_ptr(), last) };
            NonNull::new(last).map(|program| Program {
                program,
                object: PhantomData,
            })
        })
    }

    /// The maps, in the object's order.
    pub fn maps(&self) -> impl Iterator<Item = Map<'_>> {
        let mut last = ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the object lives, and `last` is null or a map of it.
            last = unsafe { sys::bpf_object__next_map(self.object.as_ptr(), last) };
            NonNull::new(last).map(|map| Map {
                map,
                object: PhantomData,
            })
        })
    }

    /// A map by its name, or by its ELF section if that starts with a dot.
    pub fn map(&self, name: &str) -> Option<Map<'_>> {
        let name = CString::new(name).ok()?;
        // SAFETY: the object lives, and the name ends with its zero.
        let map = unsafe { sys::bpf_object__find_map_by_name(self.object.as_ptr(), name.as_ptr()) };
        NonNull::new(map).map(|map| Map {
            map,
            object: PhantomData,
        })
    }

    /// The global variables that the object's BTF places in sections.
    pub fn variables(&self) -> Vec<Variable> {
        // SAFETY: the object lives.
        let btf = unsafe { sys::bpf_object__btf(self.object.as_ptr()) };
        NonNull::new(btf).map_or_else(Vec::new, variables)
    }

    /// Brings the object's BTF into the kernel, before libbpf does.
    pub fn load_types(&self) -> io::Result<OwnedFd> {
        // SAFETY: the object lives; without BTF, it has null.
        let btf = unsafe { sys::bpf_object__btf(self.object.as_ptr()) };
        let btf = NonNull::new(btf).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        let mut size = 0;
        // SAFETY: the BTF lives as long as its object.
        let bytes = unsafe { sys::btf__raw_data(btf.as_ptr(), &mut size) };
        // A copy, since libbpf loads its own only once. SAFETY: there are so many bytes; where there are none,
        // libbpf says so.
        let copy = KernelBtf::new(unsafe { sys::btf__new(bytes, size) })?;
        // SAFETY: the copy lives.
        check(unsafe { sys::btf__load_into_kernel(copy.0.as_ptr()) })?;
        // SAFETY: the descriptor lives as long as the copy.
        let fd = unsafe { borrow_fd(sys::btf__fd(copy.0.as_ptr())) };
        fd.ok_or_else(io::Error::last_os_error)?
            .try_clone_to_owned()
    }

    /// Has every program's log kept: at this level, of this many bytes.
    pub fn keep_logs(
        &mut self,
        bytes: usize,
        mut level: impl FnMut(Program<'_>) -> u32,
    ) -> io::Result<()> {
        let mut logs = Vec::new();
        for program in self.programs() {
            let log = LogBuffer::new(bytes);
            // SAFETY: the buffer has that many bytes, and lives as long as the object.
            check(unsafe {
                sys::bpf_program__set_log_buf(
                    program.program.as_ptr(),
                    log.bytes.as_ptr().cast(),
                    bytes as sys::size_t,
                )
            })?;
            // SAFETY: the program lives.
            check(unsafe {
                sys::bpf_program__set_log_level(program.program.as_ptr(), level(program))
            })?;
            logs.push(log);
        }
        self.logs.extend(logs);
        Ok(())
    }

    /// Resolves everything, creates the maps, and loads the programs.
    pub fn load(&mut self) -> io::Result<()> {
        // SAFETY: the object lives, and nothing borrows it.
        check(unsafe { sys::bpf_object__load(self.object.as_ptr()) })
    }

    /// The object's BTF in the kernel.
    pub fn btf_fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the object lives, and its BTF's descriptor with it.
        unsafe { borrow_fd(sys::bpf_object__btf_fd(self.object.as_ptr())) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the object any more.
        unsafe { sys::bpf_object__close(self.object.as_ptr()) }
    }
}

/// A program of an object.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    program: NonNull<sys::bpf_program>,
    object: PhantomData<&'a Object>,
}

impl<'a> Program<'a> {
    /// The name of its function.
    pub fn function(self) -> String {
        // SAFETY: the program lives, and its name with it.
        unsafe { text(sys::bpf_program__name(self.program.as_ptr())) }
    }

    /// The ELF section that it came from.
    pub fn section(self) -> String {
        // SAFETY: the program lives, and its section's name with it.
        unsafe { text(sys::bpf_program__section_name(self.program.as_ptr())) }
    }

    /// `BPF_F_*` flags that were set explicitly.
    pub fn flags(self) -> u32 {
        // SAFETY: the program lives.
        unsafe { sys::bpf_program__flags(self.program.as_ptr()) }
    }

    /// `enum bpf_prog_type`.
    pub fn prog_type(self) -> u32 {
        // SAFETY: the program lives.
        unsafe { sys::bpf_program__type(self.program.as_ptr()) }
    }

    /// Load it, or leave it out.
    pub fn set_autoload(self, autoload: bool) -> io::Result<()> {
        // SAFETY: the program lives.
        check(unsafe { sys::bpf_program__set_autoload(self.program.as_ptr(), autoload) })
    }

    /// Whether it is loaded with its object.
    pub fn autoload(self) -> bool {
        // SAFETY: the program lives.
        unsafe { sys::bpf_program__autoload(self.program.as_ptr()) }
    }

    /// The kernel function or hook to attach to.
    pub fn set_attach_target(self, target: &str) -> io::Result<()> {
        let target = CString::new(target)?;
        // SAFETY: the program lives, and the name ends with its zero. No program is the target.
        check(unsafe {
            sys::bpf_program__set_attach_target(self.program.as_ptr(), 0, target.as_ptr())
        })
    }

    /// What the kernel loaded, if it did.
    pub fn fd(self) -> Option<BorrowedFd<'a>> {
        // SAFETY: the object lives for 'a, and so does the program's descriptor.
        unsafe { borrow_fd(sys::bpf_program__fd(self.program.as_ptr())) }
    }

    /// The log that [`Object::keep_logs`] had kept, up to now.
    pub fn log(self) -> String {
        let mut size = 0;
        // SAFETY: the program lives.
        let log = unsafe { sys::bpf_program__log_buf(self.program.as_ptr(), &mut size) };
        if log.is_null() || size == 0 {
            return String::new();
        }
        // SAFETY: the buffer belongs to a `LogBuffer` of the object, whose bytes are initialised
        // and which nothing writes unless the object is being loaded, which borrows it exclusively.
        let bytes = unsafe { slice::from_raw_parts(log.cast::<u8>(), length(size)) };
        let end = bytes.iter().position(|&byte| byte == 0);
        String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
    }
}

/// A map of an object, or the template of its inner maps.
#[derive(Clone, Copy)]
pub struct Map<'a> {
    map: NonNull<sys::bpf_map>,
    object: PhantomData<&'a Object>,
}

impl<'a> Map<'a> {
    /// Its name.
    pub fn name(self) -> String {
        // SAFETY: the map lives, and its name with it.
        unsafe { text(sys::bpf_map__name(self.map.as_ptr())) }
    }

    /// `enum bpf_map_type`.
    pub fn map_type(self) -> u32 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__type(self.map.as_ptr()) }
    }

    /// Bytes of a key.
    pub fn key_size(self) -> u32 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__key_size(self.map.as_ptr()) }
    }

    /// Bytes of a value.
    pub fn value_size(self) -> u32 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__value_size(self.map.as_ptr()) }
    }

    /// The most entries.
    pub fn max_entries(self) -> u32 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__max_entries(self.map.as_ptr()) }
    }

    /// `BPF_F_*` flags.
    pub fn map_flags(self) -> u32 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__map_flags(self.map.as_ptr()) }
    }

    /// The map type's extra attribute.
    pub fn map_extra(self) -> u64 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__map_extra(self.map.as_ptr()) }
    }

    /// BTF type id of the key, or zero.
    pub fn btf_key_type_id(self) -> u32 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__btf_key_type_id(self.map.as_ptr()) }
    }

    /// BTF type id of the value, or zero.
    pub fn btf_value_type_id(self) -> u32 {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__btf_value_type_id(self.map.as_ptr()) }
    }

    /// Whether libbpf made it for a section of global data.
    pub fn is_global_data(self) -> bool {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__is_internal(self.map.as_ptr()) }
    }

    /// The template of the inner maps of a map of maps. There is none once the map was created.
    pub fn inner(self) -> Option<Map<'a>> {
        // SAFETY: the map lives, and so does its template until the object is loaded, which
        // borrows it exclusively.
        let map = unsafe { sys::bpf_map__inner_map(self.map.as_ptr()) };
        NonNull::new(map).map(|map| Self {
            map,
            object: PhantomData,
        })
    }

    /// The map in the kernel, if it was created.
    pub fn fd(self) -> Option<BorrowedFd<'a>> {
        // SAFETY: the object lives for 'a, and so does the map's descriptor.
        unsafe { borrow_fd(sys::bpf_map__fd(self.map.as_ptr())) }
    }

    /// Whether it is to be created.
    pub fn autocreate(self) -> bool {
        // SAFETY: the map lives.
        unsafe { sys::bpf_map__autocreate(self.map.as_ptr()) }
    }

    /// Create it, or leave it out.
    pub fn set_autocreate(self, autocreate: bool) -> io::Result<()> {
        // SAFETY: the map lives.
        check(unsafe { sys::bpf_map__set_autocreate(self.map.as_ptr(), autocreate) })
    }

    /// The most entries that it has in the kernel: libbpf fills in what an object leaves out.
    pub fn final_max_entries(self) -> io::Result<u32> {
        match (self.map_type(), self.max_entries()) {
            (sys::BPF_MAP_TYPE_PERF_EVENT_ARRAY, 0) => possible_cpus(),
            (_, given) => Ok(given),
        }
    }

    /// Sets the most entries.
    pub fn set_max_entries(self, max_entries: u32) -> io::Result<()> {
        // SAFETY: the map lives.
        check(unsafe { sys::bpf_map__set_max_entries(self.map.as_ptr(), max_entries) })
    }

    /// Sets the bytes of a value.
    pub fn set_value_size(self, value_size: u32) -> io::Result<()> {
        // SAFETY: the map lives.
        check(unsafe { sys::bpf_map__set_value_size(self.map.as_ptr(), value_size) })
    }

    /// Creates a map that takes the same room in the kernel, before the map itself is created: without types, or with
    /// those of the object. The kernel refuses that for kinds that need more.
    pub fn create_double(self, types: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
        create_map(&MapShape {
            map_type: match self.map_type() {
                // They are what these are, and want to know a map of those that they will hold.
                sys::BPF_MAP_TYPE_ARRAY_OF_MAPS => sys::BPF_MAP_TYPE_ARRAY,
                sys::BPF_MAP_TYPE_HASH_OF_MAPS => sys::BPF_MAP_TYPE_HASH,
                other => other,
            },
            key_size: self.key_size(),
            value_size: self.value_size(),
            max_entries: self.final_max_entries()?,
            map_flags: self.map_flags(),
            map_extra: self.map_extra(),
            types: types.map(|btf| MapTypes {
                btf,
                key: self.btf_key_type_id(),
                value: self.btf_value_type_id(),
            }),
        })
    }

    /// Where the object wants it pinned. From here on, it is not to be pinned.
    pub fn take_pin_path(self) -> io::Result<Option<String>> {
        // SAFETY: the map lives.
        let path = unsafe { sys::bpf_map__pin_path(self.map.as_ptr()) };
        if path.is_null() {
            return Ok(None);
        }
        // SAFETY: the path lives until it is set anew, below.
        let path = unsafe { text(path) };
        // SAFETY: the map lives, and no path is a path that libbpf takes.
        check(unsafe { sys::bpf_map__set_pin_path(self.map.as_ptr(), ptr::null()) })?;
        Ok(Some(path))
    }

    /// The initial value of a map of global data, before it is created.
    pub fn initial_value(self) -> Option<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the map lives.
        let value = unsafe { sys::bpf_map__initial_value(self.map.as_ptr(), &mut size) };
        if value.is_null() || !self.is_global_data() {
            return None;
        }
        // SAFETY: libbpf's memory has `size` bytes, and nobody writes into it meanwhile.
        Some(unsafe { slice::from_raw_parts(value.cast::<u8>(), length(size)) }.to_vec())
    }

    /// Writes into the initial value of a map of global data, before it is created.
    pub fn write_initial_value(self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut size = 0;
        // SAFETY: the map lives.
        let value = unsafe { sys::bpf_map__initial_value(self.map.as_ptr(), &mut size) };
        let end = offset.checked_add(bytes.len());
        if value.is_null() || end.is_none_or(|end| end > length(size)) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: libbpf's memory has `size` writable bytes, and nobody has a reference on it.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), value.cast::<u8>().add(offset), bytes.len());
        }
        Ok(())
    }
}

/// A global variable of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The ELF section that it lies in, as `.rodata`.
    pub section: String,
    /// Its name.
    pub name: String,
    /// Its place in the section.
    pub offset: u32,
    /// Its bytes.
    pub size: u32,
}

fn variables(btf: NonNull<sys::btf>) -> Vec<Variable> {
    let mut found = Vec::new();
    // SAFETY: the BTF lives as long as its object, whose caller holds it.
    let count = unsafe { sys::btf__type_cnt(btf.as_ptr()) };
    for id in 1..count {
        // SAFETY: libbpf returns null, or a type in the BTF's memory.
        let Some(section) = (unsafe { sys::btf__type_by_id(btf.as_ptr(), id).as_ref() }) else {
            continue;
        };
        if kind(section) != sys::BTF_KIND_DATASEC {
            continue;
        }
        let entries = ptr::from_ref(section).wrapping_add(1).cast();
        // SAFETY: libbpf has checked that so many entries follow a section.
        let entries: &[sys::btf_var_secinfo] =
            unsafe { slice::from_raw_parts(entries, (section.info & 0xffff) as usize) };
        for entry in entries {
            // SAFETY: as above.
            let variable = unsafe { sys::btf__type_by_id(btf.as_ptr(), entry.type_).as_ref() };
            let Some(variable) = variable.filter(|of| kind(of) == sys::BTF_KIND_VAR) else {
                continue;
            };
            found.push(Variable {
                section: btf_name(btf, section),
                name: btf_name(btf, variable),
                offset: entry.offset,
                size: entry.size,
            });
        }
    }
    found
}

const fn kind(of: &sys::btf_type) -> u32 {
    of.info >> 24 & 0x1f
}

fn btf_name(btf: NonNull<sys::btf>, of: &sys::btf_type) -> String {
    // SAFETY: libbpf returns null, or a string in the BTF's memory.
    unsafe { text(sys::btf__name_by_offset(btf.as_ptr(), of.name_off)) }
}

/// The kernel's BTF, for the names of what programs attach to.
pub struct KernelBtf(NonNull<sys::btf>);

impl KernelBtf {
    /// That of the kernel itself.
    pub fn of_kernel() -> io::Result<Self> {
        // SAFETY: no arguments.
        Self::new(unsafe { sys::btf__load_vmlinux_btf() })
    }

    /// Another one by its id: a module's stands on the kernel's, a program's on none.
    pub fn by_id(id: u32, base: Option<&Self>) -> io::Result<Self> {
        let base = base.map_or(ptr::null_mut(), |base| base.0.as_ptr());
        // SAFETY: the base is null, or lives longer than the call; names are looked up in the
        // result only while the caller has both.
        Self::new(unsafe { sys::btf__load_from_kernel_by_id_split(id, base) })
    }

    /// The name of a type.
    pub fn name(&self, type_id: u32) -> Option<String> {
        // SAFETY: libbpf returns null, or a type in the BTF's memory.
        let of = unsafe { sys::btf__type_by_id(self.0.as_ptr(), type_id).as_ref() }?;
        Some(btf_name(self.0, of))
    }

    fn new(btf: *mut sys::btf) -> io::Result<Self> {
        NonNull::new(btf)
            .map(Self)
            .ok_or_else(io::Error::last_os_error)
    }
}

impl Drop for KernelBtf {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the BTF any more.
        unsafe { sys::btf__free(self.0.as_ptr()) }
    }
}

/// CPUs that the kernel is ready for.
fn possible_cpus() -> io::Result<u32> {
    // SAFETY: no arguments.
    let count = unsafe { sys::libbpf_num_possible_cpus() };
    check(count)?;
    Ok(count.unsigned_abs())
}

/// Zeroed memory that C code writes to. Pages that it does not touch cost nothing.
struct LogBuffer {
    bytes: NonNull<u8>,
    size: usize,
}

impl LogBuffer {
    fn new(size: usize) -> Self {
        let bytes: &mut [u8] = Box::leak(vec![0; size].into_boxed_slice());
        Self {
            bytes: NonNull::from(bytes).cast(),
            size,
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        let bytes = ptr::slice_from_raw_parts_mut(self.bytes.as_ptr(), self.size);
        // SAFETY: the box that `new` leaked.
        drop(unsafe { Box::from_raw(bytes) });
    }
}

/// A size that libbpf tells: of something in memory, so it fits.
const fn length(size: sys::size_t) -> usize {
    const { assert!(size_of::<sys::size_t>() == size_of::<usize>()) };
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let length = size as usize;
    length
}

/// What a map without a name is created with.
pub struct MapShape<'a> {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub map_extra: u64,
    pub types: Option<MapTypes<'a>>,
}

/// The types of a map's keys and values.
pub struct MapTypes<'a> {
    /// The BTF in the kernel that has them.
    pub btf: BorrowedFd<'a>,
    pub key: u32,
    pub value: u32,
}

/// Creates a map that belongs to no object.
pub fn create_map(shape: &MapShape<'_>) -> io::Result<OwnedFd> {
    // They end with the last one that is set. Behind the last one of all, libbpf wants zeroes, and where pointers have
    // 32 bits, the bindings have padding there, of any contents.
    const SIZE: usize = offset_of!(sys::bpf_map_create_opts, map_extra) + size_of::<u64>();
    let mut options = sys::bpf_map_create_opts {
        sz: SIZE as sys::size_t,
        map_flags: shape.map_flags,
        map_extra: shape.map_extra,
        ..Default::default()
    };
    if let Some(types) = &shape.types {
        options.btf_fd = types.btf.as_raw_fd().cast_unsigned();
        options.btf_key_type_id = types.key;
        options.btf_value_type_id = types.value;
    }
    // SAFETY: no name is a name that libbpf takes, and the options live until it returns.
    let fd = unsafe {
        sys::bpf_map_create(
            shape.map_type,
            ptr::null(),
            shape.key_size,
            shape.value_size,
            shape.max_entries,
            &options,
        )
    };
    check(fd)?;
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// libbpf returns a negative errno.
fn check(result: c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

/// # Safety
///
/// The pointer is null, or to a string with its terminating zero.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(string) }
        .to_string_lossy()
        .into_owned()
}

/// # Safety
///
/// The descriptor is negative, or open for `'a`.
unsafe fn borrow_fd<'a>(fd: c_int) -> Option<BorrowedFd<'a>> {
    // SAFETY: as the caller promises.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}
