//! Where a program is to be attached: what its ELF section says by libbpf's rules, or what a
//! person asks for.

use std::fmt;
use std::path::PathBuf;

use preverify_abi::kinds::{AttachType, ProgramType};

/// The forms of [`Plan::parse`], one a line.
pub const FORMS: &str = "\
xdp:IFACE  xdpdrv:IFACE  xdpgeneric:IFACE    a network interface, before the stack
ingress:IFACE  egress:IFACE                  a network interface, in the stack (tcx; tc before Linux 6.6)
cgroup:PATH                                  a cgroup (v2)
netns[:PATH]                                 a network name space; this one if none is given
socket[:IFACE]                               a packet socket that preverify-load keeps open
perf:HERTZ                                   the clock of every CPU
sockmap:MAP                                  a map of sockets of the same bundle
netfilter:FAMILY:HOOK:PRIORITY               as in netfilter:ipv4:input:0
iter[:MAP]                                   an iterator, over a map of the bundle if it needs one
verified                                     what the program was verified for (fentry, lsm, ...)
none                                         nowhere
any section name that says where, as in kprobe/vfs_read, uprobe//bin/sh:main, tp/sched/sched_switch";

/// Where to attach a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A network interface, before the stack.
    Xdp {
        /// Its name.
        interface: String,
        /// In the driver or behind it.
        mode: XdpMode,
    },
    /// A network interface, in the stack.
    Tcx {
        /// Its name.
        interface: String,
        /// For which packets.
        direction: Direction,
    },
    /// A cgroup of the unified hierarchy.
    Cgroup {
        /// Its folder.
        path: PathBuf,
    },
    /// A network name space.
    NetworkNamespace {
        /// Its file.
        path: PathBuf,
    },
    /// A packet socket.
    Socket {
        /// The interface whose packets it sees; all if none is named.
        interface: Option<String>,
    },
    /// The clock of every CPU.
    Sampling {
        /// How often a second.
        hertz: u64,
    },
    /// A map of sockets.
    Sockmap {
        /// The map's name in the bundle.
        map: String,
    },
    /// A netfilter hook.
    Netfilter {
        /// `NFPROTO_*`.
        family: u32,
        /// `NF_INET_*`.
        hook: u32,
        /// Smaller runs earlier.
        priority: i32,
    },
    /// An iterator: it runs when someone reads the pinned link.
    Iterator {
        /// The name, in the bundle, of the map that it walks through.
        map: Option<String>,
    },
    /// A kernel function.
    Kprobe {
        /// Its name.
        function: String,
        /// Bytes from its start.
        offset: u64,
        /// When.
        moment: Moment,
    },
    /// All kernel functions whose names match a pattern.
    KprobeMulti {
        /// With `*` and `?`.
        pattern: String,
        /// When.
        moment: Moment,
    },
    /// A system call's entry function.
    SystemCall {
        /// The system call's name.
        name: String,
        /// When.
        moment: Moment,
    },
    /// A function of a user program or library.
    Uprobe {
        /// The file, or a name to look for in the usual folders.
        file: String,
        /// The function; none if `offset` alone says where in the file.
        function: Option<String>,
        /// Bytes from its start.
        offset: u64,
        /// When.
        moment: Moment,
    },
    /// A tracepoint.
    Tracepoint {
        /// As under `/sys/kernel/tracing/events`.
        category: String,
        /// As under the category.
        name: String,
    },
    /// A tracepoint, with its raw arguments.
    RawTracepoint {
        /// Its name.
        name: String,
    },
    /// What the program was verified for.
    Verified,
    /// Nowhere.
    Nowhere,
}

/// Where in a network interface XDP runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver if it can, else behind it.
    Any,
    /// In the driver.
    Driver,
    /// Behind the driver.
    Generic,
}

/// A packet's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It comes in.
    Ingress,
    /// It goes out.
    Egress,
}

/// When a probe of a function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When the function is called.
    Entry,
    /// When it returns.
    Return,
    /// At both, as one session.
    Session,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The section's kind needs a place that only the device's owner knows.
    #[error("section {section:?} does not say where: give --attach PROGRAM={form}")]
    NeedsPlace {
        /// The section.
        section: String,
        /// The form that says it.
        form: &'static str,
    },
    /// Programs of this kind are not attached by loaders like this one.
    #[error("section {section:?} is not attached by preverify-load: {instead}")]
    NotAttached {
        /// The section.
        section: String,
        /// How it is used instead.
        instead: &'static str,
    },
    /// libbpf does not know the section either.
    #[error(
        "section {section:?} does not say how to attach the program: give --attach PROGRAM=WHERE"
    )]
    UnknownSection {
        /// The section.
        section: String,
    },
    /// A known form with something wrong in it.
    #[error("{text:?}: expected {expected}")]
    Malformed {
        /// What was given.
        text: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// No form at all.
    #[error("{text:?} is no place to attach to; known are:\n{FORMS}")]
    UnknownForm {
        /// What was given.
        text: String,
    },
    /// The program cannot be attached so.
    #[error("{plan} takes a program of type {expected}, this one is of type {found}")]
    WrongType {
        /// Where.
        plan: String,
        /// The types that it takes.
        expected: &'static str,
        /// The program's.
        found: ProgramType,
    },
}

impl Plan {
    /// What a section's name says.
    pub fn from_section(section: &str) -> Result<Self, PlanError> {
        // A leading '?' only says that libbpf does not load the program by default.
        let section = section.strip_prefix('?').unwrap_or(section);
        let (kind, place) = section.split_once('/').unwrap_or((section, ""));
        let needs = |form| {
            Err(PlanError::NeedsPlace {
                section: section.to_owned(),
                form,
            })
        };
        let not_attached = |instead| {
            Err(PlanError::NotAttached {
                section: section.to_owned(),
                instead,
            })
        };
        match kind {
            "kprobe" if place.is_empty() => needs("kprobe/FUNCTION"),
            "kretprobe" if place.is_empty() => needs("kretprobe/FUNCTION"),
            "kprobe" => kprobe(section, place, Moment::Entry),
            "kretprobe" => kprobe(section, place, Moment::Return),
            "kprobe.multi" | "kretprobe.multi" | "kprobe.session" if place.is_empty() => {
                needs("kprobe.multi/PATTERN")
            }
            "kprobe.multi" => Ok(kprobe_multi(place, Moment::Entry)),
            "kretprobe.multi" => Ok(kprobe_multi(place, Moment::Return)),
            "kprobe.session" => Ok(kprobe_multi(place, Moment::Session)),
            "ksyscall" | "kretsyscall" if place.is_empty() => needs("ksyscall/NAME"),
            "ksyscall" => Ok(system_call(place, Moment::Entry)),
            "kretsyscall" => Ok(system_call(place, Moment::Return)),
            "uprobe" | "uprobe.s" | "uretprobe" | "uretprobe.s" if place.is_empty() => {
                needs("uprobe/FILE:FUNCTION")
            }
            "uprobe" | "uprobe.s" => uprobe(section, place, Moment::Entry),
            "uretprobe" | "uretprobe.s" => uprobe(section, place, Moment::Return),
            "uprobe.multi" | "uprobe.multi.s" | "uretprobe.multi" | "uretprobe.multi.s" => {
                needs("uprobe/FILE:FUNCTION")
            }
            "usdt" | "usdt.s" => {
                not_attached("its user space must tell it where the probe's arguments are")
            }
            "tracepoint" | "tp" if place.is_empty() => needs("tp/CATEGORY/NAME"),
            "tracepoint" | "tp" => tracepoint(section, place),
            "raw_tracepoint" | "raw_tp" | "raw_tracepoint.w" | "raw_tp.w" if place.is_empty() => {
                needs("raw_tp/NAME")
            }
            "raw_tracepoint" | "raw_tp" | "raw_tracepoint.w" | "raw_tp.w" => {
                Ok(Self::RawTracepoint {
                    name: place.to_owned(),
                })
            }
            "tp_btf" | "fentry" | "fentry.s" | "fexit" | "fexit.s" | "fmod_ret" | "fmod_ret.s"
            | "lsm" | "lsm.s" => Ok(Self::Verified),
            "lsm_cgroup" | "cgroup" | "cgroup_skb" | "sockops" => needs("cgroup:PATH"),
            "iter" | "iter.s" => Ok(Self::Iterator { map: None }),
            "xdp" | "xdp.frags" => match place {
                "devmap" | "cpumap" => not_attached("it is an entry of a device or CPU map"),
                _ => needs("xdp:IFACE"),
            },
            "tc" | "tcx" | "classifier" => match place {
                "egress" => needs("egress:IFACE"),
                _ => needs("ingress:IFACE"),
            },
            "action" => not_attached("tc action add bpf takes it from its pin"),
            "netkit" => not_attached("whoever creates the netkit device attaches it"),
            "perf_event" => needs("perf:HERTZ"),
            "sk_skb" | "sk_msg" => needs("sockmap:MAP"),
            "sk_lookup" | "flow_dissector" => Ok(Self::NetworkNamespace {
                path: OWN_NETWORK_NAMESPACE.into(),
            }),
            "netfilter" => needs("netfilter:FAMILY:HOOK:PRIORITY"),
            "lwt_in" | "lwt_out" | "lwt_xmit" | "lwt_seg6local" => {
                not_attached("ip route add ... encap bpf takes it from its pin")
            }
            "sk_reuseport" => not_attached("the server that owns the sockets attaches it"),
            "lirc_mode2" => not_attached("ir-keytable attaches it to its device"),
            "syscall" => not_attached("it is run, not attached"),
            "freplace" | "struct_ops" | "struct_ops.s" => not_attached("it is part of another"),
            // "socket" is matched whole, as libbpf does, and by prefix in older objects.
            _ if kind.starts_with("socket") => Ok(Self::Socket { interface: None }),
            _ => Err(PlanError::UnknownSection {
                section: section.to_owned(),
            }),
        }
    }

    /// What a person asks for, in one of the [`FORMS`].
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let (kind, place) = match text.split_once(':') {
            // A colon may also stand in a section name, behind the first slash.
            Some((kind, place)) if !kind.contains('/') => (kind, Some(place)),
            _ => (text, None),
        };
        let malformed = |expected| PlanError::Malformed {
            text: text.to_owned(),
            expected,
        };
        let named = |expected| {
            place
                .filter(|place| !place.is_empty())
                .map(ToOwned::to_owned)
                .ok_or_else(|| malformed(expected))
        };
        let xdp = |mode, expected| {
            Ok(Self::Xdp {
                interface: named(expected)?,
                mode,
            })
        };
        let tcx = |direction, expected| {
            Ok(Self::Tcx {
                interface: named(expected)?,
                direction,
            })
        };
        match kind {
            "xdp" => xdp(XdpMode::Any, "xdp:IFACE"),
            "xdpdrv" => xdp(XdpMode::Driver, "xdpdrv:IFACE"),
            "xdpgeneric" => xdp(XdpMode::Generic, "xdpgeneric:IFACE"),
            "ingress" => tcx(Direction::Ingress, "ingress:IFACE"),
            "egress" => tcx(Direction::Egress, "egress:IFACE"),
            "cgroup" => Ok(Self::Cgroup {
                path: named("cgroup:PATH")?.into(),
            }),
            "netns" => Ok(Self::NetworkNamespace {
                path: place.unwrap_or(OWN_NETWORK_NAMESPACE).into(),
            }),
            "socket" => Ok(Self::Socket {
                interface: place.map(ToOwned::to_owned),
            }),
            "perf" => match named("perf:HERTZ")?.parse() {
                Ok(hertz) if hertz > 0 => Ok(Self::Sampling { hertz }),
                _ => Err(malformed("perf:HERTZ, a number above zero")),
            },
            "sockmap" => Ok(Self::Sockmap {
                map: named("sockmap:MAP")?,
            }),
            "netfilter" => {
                netfilter(&named(NETFILTER_FORM)?).ok_or_else(|| malformed(NETFILTER_FORM))
            }
            "iter" => Ok(Self::Iterator {
                map: place.map(ToOwned::to_owned),
            }),
            "verified" => Ok(Self::Verified),
            "none" => Ok(Self::Nowhere),
            _ => match Self::from_section(text) {
                Err(PlanError::UnknownSection { .. }) => Err(PlanError::UnknownForm {
                    text: text.to_owned(),
                }),
                other => other,
            },
        }
    }

    /// The name of the map that it attaches to or walks through.
    pub fn map(&self) -> Option<&str> {
        match self {
            Self::Sockmap { map } | Self::Iterator { map: Some(map) } => Some(map),
            _ => None,
        }
    }

    /// Checks that a program of this type can be attached so.
    pub fn check(&self, found: ProgramType, attach: AttachType) -> Result<(), PlanError> {
        use ProgramType as P;
        let (fits, expected) = match self {
            Self::Xdp { .. } => (found == P::XDP, "xdp"),
            Self::Tcx { .. } => (found == P::SCHED_CLS, "sched_cls"),
            Self::Cgroup { .. } => (
                found.is_cgroup() || attach == AttachType::LSM_CGROUP,
                "cgroup_*, sock_ops or lsm (per cgroup)",
            ),
            Self::NetworkNamespace { .. } => (
                [P::SK_LOOKUP, P::FLOW_DISSECTOR].contains(&found),
                "sk_lookup or flow_dissector",
            ),
            Self::Socket { .. } => (found == P::SOCKET_FILTER, "socket_filter"),
            Self::Sampling { .. } => (found == P::PERF_EVENT, "perf_event"),
            Self::Sockmap { .. } => ([P::SK_SKB, P::SK_MSG].contains(&found), "sk_skb or sk_msg"),
            Self::Netfilter { .. } => (found == P::NETFILTER, "netfilter"),
            Self::Iterator { .. } => (
                found == P::TRACING && attach == AttachType::TRACE_ITER,
                "tracing (iterator)",
            ),
            Self::Kprobe { .. }
            | Self::KprobeMulti { .. }
            | Self::SystemCall { .. }
            | Self::Uprobe { .. } => (found == P::KPROBE, "kprobe"),
            Self::Tracepoint { .. } => (found == P::TRACEPOINT, "tracepoint"),
            Self::RawTracepoint { .. } => (
                [P::RAW_TRACEPOINT, P::RAW_TRACEPOINT_WRITABLE].contains(&found),
                "raw_tracepoint",
            ),
            Self::Verified => (
                (found == P::TRACING && attach != AttachType::TRACE_ITER)
                    || (found == P::LSM && attach != AttachType::LSM_CGROUP),
                "tracing or lsm",
            ),
            Self::Nowhere => (true, ""),
        };
        if fits {
            Ok(())
        } else {
            Err(PlanError::WrongType {
                plan: self.to_string(),
                expected,
                found,
            })
        }
    }
}

const OWN_NETWORK_NAMESPACE: &str = "/proc/self/ns/net";
const NETFILTER_FORM: &str = "netfilter:FAMILY:HOOK:PRIORITY, with the families ipv4 and ipv6, the \
     hooks prerouting, input, forward, output and postrouting, and a number";

/// `FUNCTION[+OFFSET]`
fn kprobe(section: &str, place: &str, moment: Moment) -> Result<Plan, PlanError> {
    let (function, offset) = with_offset(place).ok_or_else(|| PlanError::Malformed {
        text: section.to_owned(),
        expected: "kprobe/FUNCTION[+OFFSET]",
    })?;
    if moment == Moment::Return && offset != 0 {
        return Err(PlanError::Malformed {
            text: section.to_owned(),
            expected: "kretprobe/FUNCTION: a function returns as a whole, not at an offset",
        });
    }
    Ok(Plan::Kprobe {
        function: function.to_owned(),
        offset,
        moment,
    })
}

fn kprobe_multi(place: &str, moment: Moment) -> Plan {
    Plan::KprobeMulti {
        pattern: place.to_owned(),
        moment,
    }
}

fn system_call(place: &str, moment: Moment) -> Plan {
    Plan::SystemCall {
        name: place.to_owned(),
        moment,
    }
}

/// `FILE:FUNCTION[+OFFSET]` or `FILE:OFFSET`
fn uprobe(section: &str, place: &str, moment: Moment) -> Result<Plan, PlanError> {
    let malformed = || PlanError::Malformed {
        text: section.to_owned(),
        expected: "uprobe/FILE:FUNCTION[+OFFSET]",
    };
    let (file, rest) = place.rsplit_once(':').ok_or_else(malformed)?;
    if file.is_empty() {
        return Err(malformed());
    }
    let (function, offset) = match number(rest) {
        Some(offset) => (None, offset),
        None => {
            let (function, offset) = with_offset(rest).ok_or_else(malformed)?;
            (Some(function.to_owned()), offset)
        }
    };
    Ok(Plan::Uprobe {
        file: file.to_owned(),
        function,
        offset,
        moment,
    })
}

fn tracepoint(section: &str, place: &str) -> Result<Plan, PlanError> {
    match place.split_once('/') {
        Some((category, name)) if !category.is_empty() && !name.is_empty() => {
            Ok(Plan::Tracepoint {
                category: category.to_owned(),
                name: name.to_owned(),
            })
        }
        _ => Err(PlanError::Malformed {
            text: section.to_owned(),
            expected: "tp/CATEGORY/NAME",
        }),
    }
}

/// `FAMILY:HOOK:PRIORITY`
fn netfilter(place: &str) -> Option<Plan> {
    let mut parts = place.split(':');
    let family = match parts.next()? {
        "ipv4" => 2,
        "ipv6" => 10,
        _ => return None,
    };
    let hook = match parts.next()? {
        "prerouting" => 0,
        "input" => 1,
        "forward" => 2,
        "output" => 3,
        "postrouting" => 4,
        _ => return None,
    };
    let priority = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(Plan::Netfilter {
        family,
        hook,
        priority,
    })
}

fn with_offset(place: &str) -> Option<(&str, u64)> {
    let (function, offset) = match place.split_once('+') {
        Some((function, offset)) => (function, number(offset)?),
        None => (place, 0),
    };
    (!function.is_empty()).then_some((function, offset))
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// In the forms that [`Plan::parse`] reads, where there is one.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xdp { interface, mode } => {
                let kind = match mode {
                    XdpMode::Any => "xdp",
                    XdpMode::Driver => "xdpdrv",
                    XdpMode::Generic => "xdpgeneric",
                };
                write!(f, "{kind}:{interface}")
            }
            Self::Tcx {
                interface,
                direction: Direction::Ingress,
            } => write!(f, "ingress:{interface}"),
            Self::Tcx {
                interface,
                direction: Direction::Egress,
            } => write!(f, "egress:{interface}"),
            Self::Cgroup { path } => write!(f, "cgroup:{}", path.display()),
            Self::NetworkNamespace { path } => write!(f, "netns:{}", path.display()),
            Self::Socket { interface: None } => f.write_str("socket"),
            Self::Socket {
                interface: Some(interface),
            } => write!(f, "socket:{interface}"),
            Self::Sampling { hertz } => write!(f, "perf:{hertz}"),
            Self::Sockmap { map } => write!(f, "sockmap:{map}"),
            Self::Netfilter {
                family,
                hook,
                priority,
            } => {
                let family = if *family == 2 { "ipv4" } else { "ipv6" };
                let hook = ["prerouting", "input", "forward", "output", "postrouting"]
                    .get(*hook as usize)
                    .unwrap_or(&"?");
                write!(f, "netfilter:{family}:{hook}:{priority}")
            }
            Self::Iterator { map: None } => f.write_str("iter"),
            Self::Iterator { map: Some(map) } => write!(f, "iter:{map}"),
            Self::Kprobe {
                function,
                offset,
                moment,
            } => {
                f.write_str(if *moment == Moment::Return {
                    "kretprobe/"
                } else {
                    "kprobe/"
                })?;
                f.write_str(function)?;
                write_offset(f, *offset)
            }
            Self::KprobeMulti { pattern, moment } => match moment {
                Moment::Entry => write!(f, "kprobe.multi/{pattern}"),
                Moment::Return => write!(f, "kretprobe.multi/{pattern}"),
                Moment::Session => write!(f, "kprobe.session/{pattern}"),
            },
            Self::SystemCall { name, moment } => {
                f.write_str(if *moment == Moment::Return {
                    "kretsyscall/"
                } else {
                    "ksyscall/"
                })?;
                f.write_str(name)
            }
            Self::Uprobe {
                file,
                function,
                offset,
                moment,
            } => {
                f.write_str(if *moment == Moment::Return {
                    "uretprobe/"
                } else {
                    "uprobe/"
                })?;
                match function {
                    Some(function) => {
                        write!(f, "{file}:{function}")?;
                        write_offset(f, *offset)
                    }
                    None => write!(f, "{file}:{offset:#x}"),
                }
            }
            Self::Tracepoint { category, name } => write!(f, "tp/{category}/{name}"),
            Self::RawTracepoint { name } => write!(f, "raw_tp/{name}"),
            Self::Verified => f.write_str("verified"),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

fn write_offset(f: &mut fmt::Formatter<'_>, offset: u64) -> fmt::Result {
    match offset {
        0 => Ok(()),
        offset => write!(f, "+{offset:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_that_say_where() {
        for (section, shown) in [
            ("kprobe/do_unlinkat", "kprobe/do_unlinkat"),
            ("?kprobe/vfs_read+0x10", "kprobe/vfs_read+0x10"),
            ("kretprobe/vfs_read", "kretprobe/vfs_read"),
            ("kprobe.multi/tcp_*", "kprobe.multi/tcp_*"),
            ("kretprobe.multi/tcp_*", "kretprobe.multi/tcp_*"),
            ("kprobe.session/tcp_*", "kprobe.session/tcp_*"),
            ("ksyscall/openat", "ksyscall/openat"),
            ("kretsyscall/openat", "kretsyscall/openat"),
            ("uprobe//bin/sh:main", "uprobe//bin/sh:main"),
            ("uprobe.s/libc.so.6:malloc+4", "uprobe/libc.so.6:malloc+0x4"),
            ("uretprobe//bin/sh:0x100", "uretprobe//bin/sh:0x100"),
            ("tracepoint/sched/sched_switch", "tp/sched/sched_switch"),
            (
                "tp/syscalls/sys_enter_openat",
                "tp/syscalls/sys_enter_openat",
            ),
            ("raw_tp/sys_enter", "raw_tp/sys_enter"),
            ("raw_tracepoint.w/sys_enter", "raw_tp/sys_enter"),
            ("tp_btf/sched_switch", "verified"),
            ("fentry.s/vfs_read", "verified"),
            ("lsm/file_open", "verified"),
            ("iter/task", "iter"),
            ("sk_lookup", "netns:/proc/self/ns/net"),
            ("socket", "socket"),
            ("socket1", "socket"),
        ] {
            let plan = Plan::from_section(section).unwrap();
            assert_eq!(plan.to_string(), shown, "{section}");
            if !["verified", "iter", "socket", "netns:/proc/self/ns/net"].contains(&shown) {
                assert_eq!(Plan::parse(shown), Ok(plan), "{shown}");
            }
        }
    }

    #[test]
    fn sections_that_need_a_place_name_the_form() {
        for (section, expected) in [
            ("xdp", "xdp:IFACE"),
            ("xdp.frags", "xdp:IFACE"),
            ("xdp/some_name", "xdp:IFACE"),
            ("tc", "ingress:IFACE"),
            ("tcx/egress", "egress:IFACE"),
            ("cgroup_skb/egress", "cgroup:PATH"),
            ("cgroup/connect4", "cgroup:PATH"),
            ("sockops", "cgroup:PATH"),
            ("lsm_cgroup/socket_bind", "cgroup:PATH"),
            ("perf_event", "perf:HERTZ"),
            ("sk_skb/stream_verdict", "sockmap:MAP"),
            ("sk_msg", "sockmap:MAP"),
            ("netfilter", "netfilter:FAMILY:HOOK:PRIORITY"),
            ("kprobe", "kprobe/FUNCTION"),
        ] {
            match Plan::from_section(section) {
                Err(PlanError::NeedsPlace { form, .. }) => assert_eq!(form, expected, "{section}"),
                other => panic!("{section}: {other:?}"),
            }
        }
    }

    #[test]
    fn sections_that_are_not_attached() {
        for section in [
            "xdp/cpumap",
            "xdp.frags/devmap",
            "syscall",
            "lwt_in",
            "sk_reuseport",
        ] {
            assert!(
                matches!(
                    Plan::from_section(section),
                    Err(PlanError::NotAttached { .. })
                ),
                "{section}"
            );
        }
        assert!(matches!(
            Plan::from_section(".text"),
            Err(PlanError::UnknownSection { .. })
        ));
    }

    #[test]
    fn what_people_ask_for() {
        for text in [
            "xdp:eth0",
            "xdpdrv:eth0",
            "xdpgeneric:eth0.7",
            "ingress:eth0",
            "egress:eth0",
            "cgroup:/sys/fs/cgroup/a",
            "netns:/run/netns/x",
            "socket:lo",
            "perf:99",
            "sockmap:sock_map",
            "netfilter:ipv6:output:-100",
            "iter:counts",
            "verified",
            "none",
        ] {
            assert_eq!(Plan::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_requests_are_refused() {
        for text in [
            "xdp",
            "xdp:",
            "perf:0",
            "perf:often",
            "netfilter:ipv4:input",
            "netfilter:arp:input:0",
            "netfilter:ipv4:input:0:1",
            "kretprobe/f+8",
            "kprobe/+8",
            "kprobe/f+x",
            "tp/sched",
            "tp/sched/",
            "uprobe//bin/sh",
            "uprobe/:main",
        ] {
            assert!(
                matches!(Plan::parse(text), Err(PlanError::Malformed { .. })),
                "{text}: {:?}",
                Plan::parse(text)
            );
        }
        assert!(matches!(
            Plan::parse("nonsense:1"),
            Err(PlanError::UnknownForm { .. })
        ));
    }

    #[test]
    fn types_are_checked() {
        let plan = Plan::parse("xdp:eth0").unwrap();
        assert_eq!(plan.check(ProgramType::XDP, AttachType::XDP), Ok(()));
        assert_eq!(
            plan.check(ProgramType::KPROBE, AttachType(0))
                .unwrap_err()
                .to_string(),
            "xdp:eth0 takes a program of type xdp, this one is of type kprobe"
        );
        let plan = Plan::Verified;
        assert_eq!(plan.check(ProgramType::LSM, AttachType::LSM_MAC), Ok(()));
        assert!(
            plan.check(ProgramType::LSM, AttachType::LSM_CGROUP)
                .is_err()
        );
        assert!(
            plan.check(ProgramType::TRACING, AttachType::TRACE_ITER)
                .is_err()
        );
    }
}
