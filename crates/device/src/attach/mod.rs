//! Attaching programs: links that the kernel cuts when their last descriptor and pin are gone,
//! and the few things that have no link.

mod elf;
mod filter;
pub mod plan;
mod probe;
mod tracing;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use preverify_abi::kinds::{AttachType, MapType, ProgramType};
use preverify_bundle::{Program, Target};

use crate::maps::MapSet;
use crate::sys::bpf::{self, LinkInfo, LinkOptions, LinkTarget};
use crate::sys::{cpus, net, perf};
use filter::Filter;
use plan::{Direction, Moment, Plan, PlanError, XdpMode};

/// A loaded program to attach.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The program as the bundle describes it.
    pub program: &'a Program,
    /// The program itself.
    pub descriptor: BorrowedFd<'a>,
    /// The target that it belongs to.
    pub target: &'a Target,
    /// Its maps, and those that a plan may name.
    pub maps: &'a MapSet,
}

/// An attached program. It is detached when this is dropped, unless its links are pinned or
/// [`Attachment::keep`] was called.
#[derive(Debug)]
pub struct Attachment {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Link(OwnedFd),
    /// A socket with a filter, which lives as long as the socket.
    Socket {
        _socket: OwnedFd,
    },
    Map(MapAttachment),
    Filter {
        _filter: Filter,
    },
}

impl Attachment {
    /// Attaches a program where `plan` says: everywhere, or nowhere.
    pub fn new(subject: Subject<'_>, plan: &Plan) -> Result<Self, AttachError> {
        let Program {
            prog_type,
            expected_attach_type,
            ..
        } = subject.program;
        plan.check(ProgramType(*prog_type), AttachType(*expected_attach_type))?;
        let parts = subject.attach(plan)?;
        Ok(Self { parts })
    }

    /// Its links.
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Link(link) => Some(link.as_fd()),
            _ => None,
        })
    }

    /// The kernel's numbers of its links.
    pub fn link_ids(&self) -> io::Result<Vec<u32>> {
        self.links()
            .map(|link| Ok(bpf::info::<LinkInfo>(link)?.id))
            .collect()
    }

    /// Why it cannot outlive this process: neither with its links pinned, nor by itself.
    pub fn ends_with_process(&self) -> Option<&'static str> {
        self.parts.iter().find_map(|part| match part {
            Part::Link(_) | Part::Map(_) => None,
            Part::Socket { .. } => {
                Some("a packet socket lasts only as long as the process that holds it")
            }
            // It could stay, but nobody would find it to remove it.
            Part::Filter { .. } => {
                Some("before Linux 6.6, traffic control has no links that could be pinned")
            }
        })
    }

    /// Leaves attached what has no link. Links are kept by pinning them.
    pub fn keep(self) {
        for part in self.parts {
            if let Part::Map(attachment) = part {
                attachment.keep();
            }
        }
    }
}

impl Subject<'_> {
    fn attach(self, plan: &Plan) -> Result<Vec<Part>, AttachError> {
        let refused = |source| AttachError::Refused {
            program: self.program.function.clone(),
            plan: plan.clone(),
            source,
        };
        let attach_type = self.attach_type();
        let link = |target, options| {
            bpf::link_create(self.descriptor, target, attach_type.0, 0, options)
                .map(|link| vec![Part::Link(link)])
                .map_err(refused)
        };
        match plan {
            Plan::Xdp { interface, mode } => {
                let flags = match mode {
                    XdpMode::Any => 0,
                    XdpMode::Generic => XDP_FLAGS_SKB_MODE,
                    XdpMode::Driver => XDP_FLAGS_DRV_MODE,
                };
                bpf::link_create(
                    self.descriptor,
                    LinkTarget::Interface(interface_index(interface)?),
                    AttachType::XDP.0,
                    flags,
                    LinkOptions::None,
                )
                .map(|link| vec![Part::Link(link)])
                .map_err(refused)
            }
            Plan::Tcx {
                interface,
                direction,
            } => {
                let attach_type = match direction {
                    Direction::Ingress => AttachType::TCX_INGRESS,
                    Direction::Egress => AttachType::TCX_EGRESS,
                };
                let interface = interface_index(interface)?;
                let link = bpf::link_create(
                    self.descriptor,
                    LinkTarget::Interface(interface),
                    attach_type.0,
                    0,
                    LinkOptions::None,
                );
                match link {
                    Err(error) if too_old((6, 6), &error).is_some() => {
                        self.attach_filter(interface, *direction)
                    }
                    link => link.map(Part::Link),
                }
                .map(|part| vec![part])
                .map_err(|source| match source.raw_os_error() {
                    Some(libc::ENOENT) => AttachError::NoTrafficControl,
                    _ => refused(source),
                })
            }
            Plan::Cgroup { path } | Plan::NetworkNamespace { path } => {
                let place = open(path)?;
                link(LinkTarget::Descriptor(place.as_fd()), LinkOptions::None)
            }
            Plan::Netfilter {
                family,
                hook,
                priority,
            } => {
                let options = LinkOptions::Netfilter {
                    family: *family,
                    hook: *hook,
                    priority: *priority,
                };
                bpf::link_create(
                    self.descriptor,
                    LinkTarget::Implied,
                    AttachType::NETFILTER.0,
                    0,
                    options,
                )
                .map(|link| vec![Part::Link(link)])
                .map_err(|source| match too_old((6, 4), &source) {
                    Some(running) => AttachError::TooOld {
                        what: "netfilter links",
                        needed: "6.4",
                        running,
                    },
                    None => refused(source),
                })
            }
            Plan::Iterator { map: None } => link(LinkTarget::Implied, LinkOptions::None),
            Plan::Iterator { map: Some(map) } => {
                link(LinkTarget::Implied, LinkOptions::IterMap(self.map(map)?))
            }
            Plan::Socket { interface } => {
                let interface = interface.as_deref().map(interface_index).transpose()?;
                let socket = net::packet_socket(interface).map_err(refused)?;
                net::attach_filter(socket.as_fd(), self.descriptor).map_err(refused)?;
                Ok(vec![Part::Socket { _socket: socket }])
            }
            Plan::Sockmap { map } => {
                MapAttachment::new(self.descriptor, self.map(map)?, attach_type)
                    .map(|attachment| vec![Part::Map(attachment)])
                    .map_err(refused)
            }
            Plan::Sampling { hertz } => cpus::online()
                .and_then(|cpus| {
                    cpus.into_iter()
                        .map(|cpu| self.attach_to_event(perf::cpu_clock(cpu, *hertz)?))
                        .collect()
                })
                .map_err(refused),
            Plan::Kprobe {
                function,
                offset,
                moment,
            } => probe::kernel(function, *offset, *moment)
                .and_then(|event| self.attach_to_event(event))
                .map(|part| vec![part])
                .map_err(refused),
            Plan::SystemCall { name, moment } => probe::system_call(name, *moment)
                .and_then(|event| self.attach_to_event(event))
                .map(|part| vec![part])
                .map_err(refused),
            Plan::Uprobe {
                file,
                function,
                offset,
                moment,
            } => {
                let file = elf::find(file)?;
                let start = match function {
                    Some(function) => elf::offset_of(&file, function)?,
                    None => 0,
                };
                probe::user(&file, start.wrapping_add(*offset), *moment)
                    .and_then(|event| self.attach_to_event(event))
                    .map(|part| vec![part])
                    .map_err(refused)
            }
            Plan::KprobeMulti { pattern, moment } => {
                let functions = tracing::functions(pattern)?;
                let options = LinkOptions::KprobeMulti {
                    on_return: *moment == Moment::Return,
                    functions: &functions,
                };
                link(LinkTarget::Implied, options).map_err(|error| match error {
                    AttachError::Refused { source, .. }
                        if source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
                    {
                        AttachError::NoMultiKprobes
                    }
                    error => error,
                })
            }
            Plan::Tracepoint { category, name } => {
                let id = tracing::tracepoint_id(category, name)?;
                perf::tracepoint(id)
                    .and_then(|event| self.attach_to_event(event))
                    .map(|part| vec![part])
                    .map_err(refused)
            }
            Plan::RawTracepoint { name } => CString::new(name.as_str())
                .map_err(io::Error::from)
                .and_then(|name| bpf::raw_tracepoint_open(self.descriptor, Some(&name)))
                .map(|link| vec![Part::Link(link)])
                .map_err(refused),
            Plan::Verified => bpf::raw_tracepoint_open(self.descriptor, None)
                .map(|link| vec![Part::Link(link)])
                .map_err(refused),
            Plan::Nowhere => Ok(Vec::new()),
        }
    }

    fn attach_filter(self, interface: u32, direction: Direction) -> io::Result<Part> {
        let name = &self.program.function;
        Filter::attach(self.descriptor, name, interface, direction)
            .map(|filter| Part::Filter { _filter: filter })
    }

    /// The link keeps the event, once it is there.
    fn attach_to_event(self, event: OwnedFd) -> io::Result<Part> {
        bpf::link_create(
            self.descriptor,
            LinkTarget::Descriptor(event.as_fd()),
            AttachType::PERF_EVENT.0,
            0,
            LinkOptions::None,
        )
        .map(Part::Link)
    }

    /// What the program was verified for. Zero is also what loaders give that give nothing: then
    /// the type says it, where it can.
    fn attach_type(self) -> AttachType {
        match (
            AttachType(self.program.expected_attach_type),
            ProgramType(self.program.prog_type),
        ) {
            (AttachType(0), ProgramType::SOCK_OPS) => AttachType::CGROUP_SOCK_OPS,
            (AttachType(0), ProgramType::CGROUP_DEVICE) => AttachType::CGROUP_DEVICE,
            (AttachType(0), ProgramType::CGROUP_SYSCTL) => AttachType::CGROUP_SYSCTL,
            (AttachType(0), ProgramType::FLOW_DISSECTOR) => AttachType::FLOW_DISSECTOR,
            (AttachType(0), ProgramType::SK_MSG) => AttachType::SK_MSG_VERDICT,
            (AttachType(0), ProgramType::SK_SKB) => AttachType::SK_SKB_STREAM_VERDICT,
            (expected, _) => expected,
        }
    }

    fn map(&self, name: &str) -> Result<BorrowedFd<'_>, AttachError> {
        let maps = &self.target.maps;
        let index = maps.iter().position(|map| map.full_name == name);
        index
            .and_then(|index| self.maps.get(index))
            .ok_or_else(|| AttachError::NoMap {
                name: name.to_owned(),
                known: self
                    .maps
                    .iter()
                    .map(|(index, _)| {
                        let map = &maps[index];
                        format!("{} ({})", map.full_name, MapType(map.map_type))
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// A program of a map of sockets, which no link stands for on all kernels.
#[derive(Debug)]
struct MapAttachment {
    program: OwnedFd,
    map: OwnedFd,
    attach_type: AttachType,
    keep: bool,
}

impl MapAttachment {
    fn new(
        program: BorrowedFd<'_>,
        map: BorrowedFd<'_>,
        attach_type: AttachType,
    ) -> io::Result<Self> {
        let (program, map) = (program.try_clone_to_owned()?, map.try_clone_to_owned()?);
        bpf::program_attach(program.as_fd(), map.as_fd(), attach_type.0)?;
        Ok(Self {
            program,
            map,
            attach_type,
            keep: false,
        })
    }

    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for MapAttachment {
    fn drop(&mut self) {
        if !self.keep {
            // It fails only if somebody else has already taken the program away.
            let _ = bpf::program_detach(self.program.as_fd(), self.map.as_fd(), self.attach_type.0);
        }
    }
}

fn interface_index(name: &str) -> Result<u32, AttachError> {
    net::interface_index(name).map_err(|source| AttachError::NoInterface {
        name: name.to_owned(),
        source,
    })
}

fn open(path: &Path) -> Result<File, AttachError> {
    File::open(path).map_err(|source| AttachError::File {
        path: path.to_owned(),
        source,
    })
}

/// The running kernel's release, if a refusal is explained by its age.
fn too_old(needed: (u32, u32), error: &io::Error) -> Option<String> {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return None;
    }
    let running = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let running = running.trim();
    (release(running)? < needed).then(|| running.to_owned())
}

/// The first two numbers of `uname -r`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Why a program is not attached. It is attached nowhere, then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no plan, or not for this program.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused.
    #[error("cannot attach program {program} to {plan}")]
    Refused {
        /// The program.
        program: String,
        /// Where.
        plan: Plan,
        /// Why not.
        source: io::Error,
    },
    /// No such network interface.
    #[error("there is no network interface {name:?}")]
    NoInterface {
        /// What was asked for.
        name: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// No such map in the bundle.
    #[error("the bundle has no map {name:?}; it has: {known}")]
    NoMap {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that it takes cannot be read.
    #[error("cannot open {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel cannot do it.
    #[error("{what} need Linux {needed}, this is {running}")]
    TooOld {
        /// What is missing.
        what: &'static str,
        /// The first version that has it.
        needed: &'static str,
        /// This kernel's.
        running: String,
    },
    /// The kernel was built without them.
    #[error(
        "this kernel has no multi-kprobes (CONFIG_FPROBE): build the program with SEC(\"kprobe/FUNCTION\") for it"
    )]
    NoMultiKprobes,
    /// The kernel has no clsact or no cls_bpf.
    #[error(
        "this kernel has no traffic control for BPF programs: modprobe sch_ingress, modprobe cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)"
    )]
    NoTrafficControl,
    /// No trace file system.
    #[error("no trace file system is mounted: mount -t tracefs tracefs /sys/kernel/tracing")]
    NoTraceFs,
    /// No such tracepoint.
    #[error("this kernel has no tracepoint {category}/{name}")]
    NoTracepoint {
        /// What was asked for.
        category: String,
        /// What was asked for.
        name: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// No function has such a name.
    #[error("this kernel has no traceable function that matches {pattern:?}")]
    NoFunctions {
        /// What was asked for.
        pattern: String,
    },
    /// The user program is not where programs and libraries are.
    #[error("{name} is neither in {searched}: give its whole path")]
    NoFile {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        searched: String,
    },
    /// The user program is no ELF file, or a damaged one.
    #[error("{path} is not a readable ELF file")]
    Elf {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: object::Error,
    },
    /// The user program has no such function.
    #[error(
        "{path} has no symbol for a function {function:?}: give its offset in the file instead"
    )]
    NoSymbol {
        /// Which.
        path: PathBuf,
        /// What was asked for.
        function: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{program, target};

    #[test]
    fn releases_are_read() {
        assert_eq!(release("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(release("6.1.0-50-amd64"), Some((6, 1)));
        assert_eq!(release("7.0-rc1"), Some((7, 0)));
        assert_eq!(release("next"), None);
    }

    #[test]
    fn age_explains_only_what_old_kernels_answer() {
        let invalid = io::Error::from_raw_os_error(libc::EINVAL);
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        assert!(too_old((999, 0), &invalid).is_some());
        assert!(too_old((999, 0), &denied).is_none());
        assert!(too_old((1, 0), &invalid).is_none());
    }

    #[test]
    fn attach_types_that_were_not_given() {
        let target = target(Vec::new(), Vec::new());
        let maps = MapSet::create(&target, &crate::Selection::all(&target), &mut |_| {
            unreachable!("no section")
        })
        .unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut program = program("f", &[]);
        let mut found = |kind: ProgramType, expected: u32| {
            program.prog_type = kind.0;
            program.expected_attach_type = expected;
            Subject {
                program: &program,
                descriptor: null.as_fd(),
                target: &target,
                maps: &maps,
            }
            .attach_type()
        };
        assert_eq!(found(ProgramType::SOCK_OPS, 0), AttachType::CGROUP_SOCK_OPS);
        assert_eq!(
            found(ProgramType::CGROUP_SKB, 0),
            AttachType::CGROUP_INET_INGRESS
        );
        assert_eq!(found(ProgramType::SK_SKB, 4), AttachType(4));
    }
}
