//! Loads objects as libbpf does, and tells everything about them.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use libbpf_sys as sys;
use preverify_protocol::{
    Limits, LoadReply, LoadRequest, Loaded, LoadedMap, LoadedProgram, LoadedSlot, Rejection,
    SlotContent, Stage,
};

use crate::descriptors::{
    BtfOwner, SlotKind, SlotMap, btf_bytes, btf_owner, global_data, map_info, program_info,
};
use crate::error::AgentError;
use crate::export::Exporter;
use crate::inputs;
use crate::libbpf::{KernelBtf, Map, Object, OpenOptions, Program};
use crate::modules::modprobe;
use crate::statistics;

/// `BPF_LOG_LEVEL1`: what the verifier saw on the path to its objection.
const LOG_PATH: u32 = 1;
/// `BPF_LOG_STATS`: statistics, and objections without the path to them.
const LOG_STATISTICS: u32 = 4;

/// Bytes of every program's log. The kernel refuses a program whose log does not fit, so the
/// statistics must fit together with a line for each call of a global function, of which there
/// can be as many as the verifier has patience; memory that is not written costs nothing.
const STATISTICS_LOG_SIZE: usize = 64 << 20;
/// Bytes of a rejected program's full log; the kernel keeps its end.
const FULL_LOG_SIZE: usize = 16 << 20;

/// Bytes of all programs' logs together. They cost address space, of which 32 bits have little: an object with many
/// programs gets smaller logs there.
const LOGS_SIZE: usize = match usize::BITS {
    32 => 1 << 30,
    _ => usize::MAX,
};

/// Bytes of values of a map that has a double. Where larger ones lie, the kernel finds room elsewhere.
const LARGEST_DOUBLE: u64 = 4 << 20;

/// The BTF of the kernel, if it was built without and the host has given some.
fn given_btf() -> Option<&'static CStr> {
    const GIVEN: &CStr = c"/lib/preverify/kernel.btf";
    let own = Path::new("/sys/kernel/btf/vmlinux");
    let given = Path::new(OsStr::from_bytes(GIVEN.to_bytes()));
    (given.exists() && !own.exists()).then_some(GIVEN)
}

/// Loads an object. Its verdict may take as long again as the verification: when the verifier
/// rejects a program, that is told to `rejected` at once, and then the full log is produced.
pub fn load(
    request: &LoadRequest,
    handle: u32,
    limits: Limits,
    messages: &mut Messages,
    rejected: &mut dyn FnMut(&Rejection) -> Result<(), AgentError>,
) -> Result<(LoadReply, Option<Object>), AgentError> {
    request
        .inputs
        .modules
        .iter()
        .try_for_each(|name| modprobe(name))?;
    // Before the work, not after it.
    let exporter = match request.export {
        true => Some(Exporter::open().map_err(AgentError::from)?),
        false => None,
    };
    match attempt(request, messages, STATISTICS_LOG_SIZE, |_| LOG_STATISTICS)? {
        Ok(opened) => match opened.describe(handle, limits, exporter.as_ref(), messages)? {
            Ok(loaded) => Ok((LoadReply::Accepted(Box::new(loaded)), Some(opened.object))),
            Err(rejection) => Ok((LoadReply::Rejected(rejection), None)),
        },
        Err(rejection) => {
            rejected(&rejection)?;
            let rejection = with_full_log(request, messages, rejection)?;
            Ok((LoadReply::Rejected(rejection), None))
        }
    }
}

/// Has the verifier reject the same program again, this time with its full log: to log what every
/// accepted program's verification saw would take several times as long as to verify it.
fn with_full_log(
    request: &LoadRequest,
    messages: &mut Messages,
    mut rejection: Rejection,
) -> Result<Rejection, AgentError> {
    if rejection.stage != Stage::Verify {
        return Ok(rejection);
    }
    let again = attempt(request, messages, FULL_LOG_SIZE, |program| {
        match rejection.program == Some(program.function()) {
            true => LOG_PATH | LOG_STATISTICS,
            false => 0,
        }
    })?;
    match again {
        Err(again) if again.program == rejection.program => {
            rejection.verifier_log = again.verifier_log;
        }
        // The first verdict stands, with the log that it has.
        _ => {}
    }
    Ok(rejection)
}

/// Opens an object and loads it.
fn attempt(
    request: &LoadRequest,
    messages: &mut Messages,
    log_size: usize,
    log_level: impl FnMut(Program<'_>) -> u32,
) -> Result<Result<Opened, Rejection>, AgentError> {
    let mut opened = match Opened::open(request, messages)? {
        Ok(opened) => opened,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let programs = opened.object.programs().count().max(1);
    opened
        .object
        .keep_logs(log_size.min(LOGS_SIZE / programs), log_level)
        .map_err(AgentError::system("keep the verifier's logs"))?;
    opened.create_doubles(request.doubles);
    let Err(error) = opened.object.load() else {
        return Ok(Ok(opened));
    };
    let libbpf_log = messages.take()?;
    let (stage, program) = point_of_failure(&libbpf_log);
    let log = opened
        .object
        .programs()
        .find(|candidate| Some(candidate.function()) == program)
        .map(Program::log);
    Ok(Err(Rejection {
        stage,
        program,
        errno: error.raw_os_error().unwrap_or(0),
        verifier_log: log.unwrap_or_default(),
        libbpf_log,
    }))
}

/// How far libbpf came, and with which program, from its own words: it has no other way to tell.
fn point_of_failure(libbpf_log: &str) -> (Stage, Option<String>) {
    let last = libbpf_log.lines().rev().find_map(|line| {
        let (name, what) = line.strip_prefix("libbpf: prog '")?.split_once("': ")?;
        // libbpf says that after the reason.
        (!what.starts_with("failed to load: ")).then_some((name, what))
    });
    match last {
        Some((name, what)) if what.starts_with("BPF program load failed: ") => {
            (Stage::Verify, Some(name.into()))
        }
        Some((name, _)) => (Stage::Prepare, Some(name.into())),
        None => (Stage::Prepare, None),
    }
}

/// An object, and what libbpf forgets when it loads it. By map, in the object's order.
struct Opened {
    object: Object,
    pin_paths: Vec<Option<String>>,
    initial_values: Vec<Option<Vec<u8>>>,
    templates: Vec<Option<LoadedMap>>,
    /// They take the places in memory that the maps would have had.
    doubles: Vec<OwnedFd>,
}

impl Opened {
    fn open(
        request: &LoadRequest,
        messages: &mut Messages,
    ) -> Result<Result<Self, Rejection>, AgentError> {
        let options = OpenOptions {
            name: &request.name,
            kconfig: request.inputs.kconfig.as_deref(),
            btf: given_btf(),
        };
        let opened = Object::open(&request.object, &options)
            .map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                (errno, format!("libbpf cannot open the object: {error}\n"))
            })
            .and_then(|object| {
                let applied = inputs::apply(&object, &request.inputs);
                let applied = applied.and_then(|()| match request.share {
                    Some(share) => inputs::leave(&object, share),
                    None => Ok(()),
                });
                match applied {
                    Ok(()) => Ok(object),
                    Err(error) => Err((libc::EINVAL, format!("{error}\n"))),
                }
            });
        let object = match opened {
            Ok(object) => object,
            Err((errno, message)) => {
                return Ok(Err(Rejection {
                    stage: Stage::Open,
                    program: None,
                    errno,
                    verifier_log: String::new(),
                    libbpf_log: messages.take()? + &message,
                }));
            }
        };
        let pin_paths = object
            .maps()
            .map(Map::take_pin_path)
            .collect::<Result<_, _>>()
            .map_err(AgentError::system("ask where maps are pinned"))?;
        let templates = object
            .maps()
            .map(|map| map.inner().map(template).transpose())
            .collect::<Result<_, _>>()?;
        let initial_values = object.maps().map(Map::initial_value).collect();
        Ok(Ok(Self {
            object,
            pin_paths,
            initial_values,
            templates,
            doubles: Vec::new(),
        }))
    }

    /// Creates doubles of the maps, as far as that is possible without ado. Where there is none, the host
    /// finds the map at an address that it may not be able to tell from a constant, and refuses.
    fn create_doubles(&mut self, count: u32) {
        let is_small = |map: &Map<'_>| {
            u64::from(map.value_size()) * u64::from(map.max_entries()) <= LARGEST_DOUBLE
        };
        // Local storages are not to be had without types; other maps need none in the kernel.
        let types = LazyCell::new(|| self.object.load_types());
        let double = |map: Map<'_>| {
            let untyped = map.create_double(None).ok();
            untyped.or_else(|| map.create_double(Some(types.as_ref().ok()?.as_fd())).ok())
        };
        for _ in 0..count {
            let maps = self.object.maps();
            let maps = maps.filter(|map| map.autocreate()).filter(is_small);
            self.doubles.extend(maps.filter_map(double));
        }
    }

    /// What the kernel made of the object.
    fn describe(
        &self,
        handle: u32,
        limits: Limits,
        exporter: Option<&Exporter>,
        messages: &mut Messages,
    ) -> Result<Result<Loaded, Rejection>, AgentError> {
        let maps = self.maps()?;
        let mut programs = Vec::new();
        let mut names = AttachNames::default();
        for program in self.object.programs() {
            if let Some(fd) = program.fd() {
                programs.push((fd, describe_program(program, fd, &mut names)?));
            }
        }
        let slots = self.slots(&maps, &programs)?;
        if exporter.is_some()
            && let Some(map) = hidden_slots(&maps)?
        {
            return Ok(Err(Rejection {
                stage: Stage::Export,
                program: None,
                errno: libc::EOPNOTSUPP,
                verifier_log: String::new(),
                libbpf_log: format!(
                    "the array `{map}` holds programs or maps from the start, and kernels of 32 bits do not show \
                     which: leave it empty in the object, and fill it on the device\n"
                ),
            }));
        }
        if let Some(exporter) = exporter
            && let Err(mut rejection) = self.export(exporter, &maps, &mut programs, &slots)?
        {
            rejection.libbpf_log.insert_str(0, &messages.take()?);
            return Ok(Err(rejection));
        }
        let btf = self.object.btf_fd().map(btf_bytes).transpose();
        Ok(Ok(Loaded {
            handle,
            programs: programs.into_iter().map(|(_, program)| program).collect(),
            slots,
            limits,
            btf: btf.map_err(AgentError::system("read the object's BTF"))?,
            warnings: messages.take()?,
            maps: maps.into_iter().map(|map| map.description).collect(),
        }))
    }

    /// The maps that were created, then the templates of theirs.
    fn maps(&self) -> Result<Vec<DescribedMap<'_>>, AgentError> {
        let mut maps = Vec::new();
        let mut templates = Vec::new();
        let forgotten = self.pin_paths.iter().zip(&self.initial_values);
        for ((map, (pin_path, initial)), template) in
            self.object.maps().zip(forgotten).zip(&self.templates)
        {
            let Some(fd) = map.fd().filter(|_| map.autocreate()) else {
                continue;
            };
            let description = describe_map(map, fd, pin_path.clone(), initial.as_deref())?;
            if let Some(template) = template {
                templates.push((maps.len(), template.clone()));
            }
            maps.push(DescribedMap {
                fd: Some(fd),
                description,
            });
        }
        for (outer, template) in templates {
            maps[outer].description.inner = Some(index(maps.len())?);
            maps.push(DescribedMap {
                fd: None,
                description: template,
            });
        }
        Ok(maps)
    }

    /// What prog arrays and maps of maps hold, if it is shown. Nothing ran yet, so it is what the object says.
    fn slots(
        &self,
        maps: &[DescribedMap<'_>],
        programs: &[(BorrowedFd<'_>, LoadedProgram)],
    ) -> Result<Vec<LoadedSlot>, AgentError> {
        let action = "read the entries of a map";
        let mut program_ids = BTreeMap::new();
        for (at, (fd, _)) in programs.iter().enumerate() {
            let info = program_info(*fd).map_err(AgentError::system("ask about a program"))?;
            program_ids.insert(info.id, index(at)?);
        }
        let mut map_ids = BTreeMap::new();
        for (at, map) in maps.iter().enumerate() {
            map_ids.insert(map.description.id, index(at)?);
        }
        let mut slots = Vec::new();
        for (at, map) in maps.iter().enumerate() {
            let Some(slot_map) = map.slots()?.filter(|map| map.is_shown()) else {
                continue;
            };
            let contents = slot_map.contents().map_err(AgentError::system(action))?;
            for (key, id) in contents {
                let content = match slot_map.kind() {
                    SlotKind::Programs => program_ids.get(&id).copied().map(SlotContent::Program),
                    SlotKind::ArrayOfMaps | SlotKind::HashOfMaps => {
                        map_ids.get(&id).copied().map(SlotContent::Map)
                    }
                };
                slots.push(LoadedSlot {
                    map: index(at)?,
                    key,
                    content: content.ok_or_else(|| AgentError::ForeignSlot {
                        map: map.description.full_name.clone(),
                        key,
                    })?,
                });
            }
        }
        Ok(slots)
    }

    /// Exports the programs while the prog arrays are empty: direct tail calls then are as the
    /// compiler made them. Afterwards they are filled again, so that programs run as they should.
    fn export(
        &self,
        exporter: &Exporter,
        maps: &[DescribedMap<'_>],
        programs: &mut [(BorrowedFd<'_>, LoadedProgram)],
        slots: &[LoadedSlot],
    ) -> Result<Result<(), Rejection>, AgentError> {
        let mut tail_calls = Vec::new();
        for slot in slots {
            if let SlotContent::Program(program) = slot.content
                && let Some(map) = maps[slot.map as usize].slots()?
            {
                tail_calls.push((map, slot.key, programs[program as usize].0));
            }
        }
        for &(map, key, _) in &tail_calls {
            map.clear(key)
                .map_err(AgentError::system("empty a prog array"))?;
        }
        for (fd, program) in programs {
            match exporter.export(*fd) {
                Ok(export) => program.export = Some(export),
                Err(error) => {
                    return Ok(Err(Rejection {
                        stage: Stage::Export,
                        program: Some(program.function.clone()),
                        errno: error.errno(),
                        verifier_log: String::new(),
                        libbpf_log: format!("{error}\n"),
                    }));
                }
            }
        }
        for &(map, key, program) in &tail_calls {
            map.set(key, program)
                .map_err(AgentError::system("fill a prog array"))?;
        }
        Ok(Ok(()))
    }
}

/// A map whose slots hold what the kernel does not show. They are empty afterwards.
fn hidden_slots<'a>(maps: &'a [DescribedMap<'_>]) -> Result<Option<&'a str>, AgentError> {
    for map in maps {
        if let Some(slots) = map.slots()?.filter(|slots| !slots.is_shown())
            && slots
                .empty()
                .map_err(AgentError::system("empty the slots of a map"))?
        {
            return Ok(Some(&map.description.full_name));
        }
    }
    Ok(None)
}

struct DescribedMap<'a> {
    /// A template has none.
    fd: Option<BorrowedFd<'a>>,
    description: LoadedMap,
}

impl<'a> DescribedMap<'a> {
    fn slots(&self) -> Result<Option<SlotMap<'a>>, AgentError> {
        match self.fd {
            Some(fd) => SlotMap::new(fd).map_err(AgentError::system("ask about a map")),
            None => Ok(None),
        }
    }
}

fn describe_map(
    map: Map<'_>,
    fd: BorrowedFd<'_>,
    pin_path: Option<String>,
    initial: Option<&[u8]>,
) -> Result<LoadedMap, AgentError> {
    let info = map_info(fd).map_err(AgentError::system("ask about a map"))?;
    let contents = match (map.is_global_data(), initial) {
        (false, _) => None,
        // In the kernel, list heads and trees hold pointers by now.
        (true, Some(initial)) if !map.name().ends_with(KCONFIG) => Some(initial.to_vec()),
        (true, _) => Some(global_data(fd).map_err(AgentError::system("read global data"))?),
    };
    Ok(LoadedMap {
        full_name: map.name(),
        name: name(&info.name),
        id: info.id,
        map_type: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        map_flags: info.map_flags,
        map_extra: info.map_extra,
        btf_key_type_id: info.btf_key_type_id,
        btf_value_type_id: info.btf_value_type_id,
        contents,
        inner: None,
        pin_path,
        template: false,
    })
}

/// The section whose values libbpf finds out while it loads the object.
const KCONFIG: &str = ".kconfig";

/// Map types that libbpf creates without BTF.
const WITHOUT_BTF: [u32; 14] = [
    sys::BPF_MAP_TYPE_PERF_EVENT_ARRAY,
    sys::BPF_MAP_TYPE_CGROUP_ARRAY,
    sys::BPF_MAP_TYPE_STACK_TRACE,
    sys::BPF_MAP_TYPE_ARRAY_OF_MAPS,
    sys::BPF_MAP_TYPE_HASH_OF_MAPS,
    sys::BPF_MAP_TYPE_DEVMAP,
    sys::BPF_MAP_TYPE_DEVMAP_HASH,
    sys::BPF_MAP_TYPE_CPUMAP,
    sys::BPF_MAP_TYPE_XSKMAP,
    sys::BPF_MAP_TYPE_SOCKMAP,
    sys::BPF_MAP_TYPE_SOCKHASH,
    sys::BPF_MAP_TYPE_QUEUE,
    sys::BPF_MAP_TYPE_STACK,
    sys::BPF_MAP_TYPE_ARENA,
];

/// libbpf creates a template, gives it to the kernel and forgets it, so this is what it will
/// create it from, as it will change it.
fn template(map: Map<'_>) -> Result<LoadedMap, AgentError> {
    let map_type = map.map_type();
    let full_name = map.name();
    let with_btf = |id| match WITHOUT_BTF.contains(&map_type) {
        true => 0,
        false => id,
    };
    Ok(LoadedMap {
        name: full_name
            .chars()
            .take(sys::BPF_OBJ_NAME_LEN as usize - 1)
            .collect(),
        full_name,
        id: 0,
        map_type,
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map
            .final_max_entries()
            .map_err(AgentError::system("count the CPUs"))?,
        map_flags: map.map_flags(),
        map_extra: map.map_extra(),
        btf_key_type_id: with_btf(map.btf_key_type_id()),
        btf_value_type_id: with_btf(map.btf_value_type_id()),
        contents: None,
        inner: None,
        pin_path: None,
        template: true,
    })
}

fn describe_program(
    program: Program<'_>,
    fd: BorrowedFd<'_>,
    names: &mut AttachNames,
) -> Result<LoadedProgram, AgentError> {
    let info = program_info(fd).map_err(AgentError::system("ask about a program"))?;
    let function = program.function();
    let elf_section = program.section();
    let log = program.log();
    Ok(LoadedProgram {
        prog_flags: program.flags() | section_flags(&elf_section, program.prog_type()),
        attach_name: names
            .name(info.attach_btf_obj_id, info.attach_btf_id)
            .map_err(AgentError::system(
                "read the BTF of what a program attaches to",
            ))?,
        statistics: statistics::parse(&log).ok_or_else(|| AgentError::NoStatistics {
            program: function.clone(),
            log,
        })?,
        export: None,
        function,
        elf_section,
    })
}

/// The flags that libbpf adds for the names of sections: it passes them to the kernel without
/// keeping them.
fn section_flags(section: &str, prog_type: u32) -> u32 {
    let kind = section.split('/').next().unwrap_or("");
    if prog_type == sys::BPF_PROG_TYPE_XDP && kind == "xdp.frags" {
        sys::BPF_F_XDP_HAS_FRAGS
    } else if kind.ends_with(".s") || kind == "syscall" {
        sys::BPF_F_SLEEPABLE
    } else {
        0
    }
}

/// The names of what programs attach to.
#[derive(Default)]
struct AttachNames {
    /// Half of an object's load time, so only when it is needed, and then once.
    kernel: Option<KernelBtf>,
}

impl AttachNames {
    fn name(&mut self, btf_id: u32, type_id: u32) -> io::Result<Option<String>> {
        if btf_id == 0 || type_id == 0 {
            return Ok(None);
        }
        match btf_owner(btf_id)? {
            BtfOwner::Kernel => Ok(self.kernel()?.name(type_id)),
            BtfOwner::Module => Ok(KernelBtf::by_id(btf_id, Some(self.kernel()?))?.name(type_id)),
            BtfOwner::Program => Ok(KernelBtf::by_id(btf_id, None)?.name(type_id)),
        }
    }

    fn kernel(&mut self) -> io::Result<&KernelBtf> {
        match &mut self.kernel {
            Some(btf) => Ok(btf),
            kernel => Ok(kernel.insert(KernelBtf::of_kernel()?)),
        }
    }
}

/// What libbpf writes to this process's standard error, which is a file.
pub struct Messages {
    file: File,
    taken: u64,
}

impl Messages {
    /// Opens it anew, so that reading does not move where libbpf writes.
    pub fn open() -> Result<Self, AgentError> {
        const STANDARD_ERROR: &str = "/proc/self/fd/2";
        let file = File::open(STANDARD_ERROR).map_err(AgentError::file("open", STANDARD_ERROR))?;
        Ok(Self { file, taken: 0 })
    }

    /// What was written since the last call.
    pub fn take(&mut self) -> Result<String, AgentError> {
        let read = |taken| {
            let size = self.file.metadata()?.len();
            let mut bytes = vec![0; usize::try_from(size - taken).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, taken)?;
            Ok((String::from_utf8_lossy(&bytes).into_owned(), size))
        };
        let (text, size) =
            read(self.taken).map_err(AgentError::system::<io::Error>("read libbpf's messages"))?;
        self.taken = size;
        Ok(text)
    }
}

fn name(characters: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = characters
        .iter()
        .map(|character| character.to_ne_bytes()[0])
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn index(at: usize) -> Result<u32, AgentError> {
    u32::try_from(at)
        .map_err(io::Error::other)
        .map_err(AgentError::system("number so many maps and programs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_program_is_found_in_the_messages() {
        let log = "\
libbpf: prog 'first': failed to bind map '.rodata': -EPERM
libbpf: prog 'second': BPF program load failed: -EACCES
libbpf: prog 'second': failed to load: -EACCES
libbpf: failed to load object 'x'
";
        assert_eq!(
            point_of_failure(log),
            (Stage::Verify, Some("second".into()))
        );
    }

    #[test]
    fn what_the_kernel_never_saw_failed_before_it() {
        let log = "\
libbpf: prog 'on_exec': failed to find kernel BTF type ID of 'no_such_function': -ESRCH
libbpf: prog 'on_exec': failed to prepare load attributes: -ESRCH
libbpf: prog 'on_exec': failed to load: -ESRCH
libbpf: failed to load object 'x'
";
        assert_eq!(
            point_of_failure(log),
            (Stage::Prepare, Some("on_exec".into()))
        );
        assert_eq!(
            point_of_failure("libbpf: map 'm': failed to create: -EINVAL\n"),
            (Stage::Prepare, None)
        );
    }

    #[test]
    fn flags_come_from_sections() {
        let of = |section| section_flags(section, sys::BPF_PROG_TYPE_TRACING);
        assert_eq!(of("fentry.s/do_unlinkat"), sys::BPF_F_SLEEPABLE);
        assert_eq!(of("lsm.s/file_open"), sys::BPF_F_SLEEPABLE);
        assert_eq!(of("uprobe.multi.s"), sys::BPF_F_SLEEPABLE);
        assert_eq!(of("syscall"), sys::BPF_F_SLEEPABLE);
        assert_eq!(of("fentry/some.s"), 0);
        let of = |section| section_flags(section, sys::BPF_PROG_TYPE_XDP);
        assert_eq!(of("xdp.frags/cpumap"), sys::BPF_F_XDP_HAS_FRAGS);
        assert_eq!(of("xdp"), 0);
        assert_eq!(section_flags("xdp.frags", sys::BPF_PROG_TYPE_SCHED_CLS), 0);
    }
}
