#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Every place that the loader attaches programs to: there they run until the loader ends, and not longer.

mod target;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use preverify_abi::kinds::Architecture;
use preverify_lab::{BUSYBOX, Device, LOADER, Lab};
use preverify_target::DeviceOptions;

/// How often each program has run: pinned by name, so that it outlives the programs.
const HITS: &str = "/sys/fs/bpf/hits";
/// The program that is probed.
const TARGET: &str = "/bin/target";
/// How long the slowest thing may take on an emulated device.
const LIMIT: Duration = Duration::from_secs(120);

/// Makes every program of the tables run, and some of them as often as the tables say.
const TRIGGER: &str = "
set -e
export PATH=/tmp/commands
sync
/bin/target
cat /dev/null /proc/sys/kernel/ostype
ping -q -c 1 -W 9 127.0.0.1
# What one card sends, the other one gets; nobody answers.
arping -q -c 2 -w 1 -I eth0 10.1.0.9 || true
arping -q -c 2 -w 1 -I eth1 10.2.0.9 || true
httpd -f -p 127.0.0.1:80 -h /tmp & server=$!
until wget -q -O /tmp/page http://127.0.0.1/trigger; do usleep 100000; done
kill $server
cmp /tmp/page /tmp/trigger
";

const PREPARE: &str = "
set -e
/bin/busybox mkdir /tmp/commands
/bin/busybox --install -s /tmp/commands
export PATH=/tmp/commands
ip addr add 10.1.0.1/24 dev eth0
ip addr add 10.2.0.1/24 dev eth1
ip link set eth0 up
ip link set eth1 up
";

/// How often a program runs each time.
enum Runs {
    Times(u64),
    AtLeastOnce,
}

use Runs::{AtLeastOnce, Times};

/// What the names of functions that do system calls start with, here and on each architecture.
const SYSCALL: &str = "SYSCALL_";

fn syscall_prefix(arch: Architecture) -> &'static str {
    match arch {
        Architecture::ARM64 => "__arm64_",
        _ => "__x64_",
    }
}

/// A program without its `on_`, where to attach it, and how often it runs.
type Row = (&'static str, &'static str, Runs);

/// What all kernels since 6.1 have, whatever their configuration.
const EVERYWHERE: &[Row] = &[
    ("kprobe", "kprobe/SYSCALL_sys_sync", Times(1)),
    ("kretprobe", "kretprobe/SYSCALL_sys_sync", Times(1)),
    ("ksyscall", "ksyscall/sync", Times(1)),
    ("kretsyscall", "kretsyscall/sync", Times(1)),
    (
        "uprobe",
        "uprobe//bin/target:target_function",
        Times(target::CALLS),
    ),
    (
        "uretprobe",
        "uretprobe//bin/target:target_function",
        Times(target::CALLS),
    ),
    (
        "uprobe_offset",
        "uprobe//bin/target:0x98",
        Times(target::CALLS),
    ),
    ("tracepoint", "tp/syscalls/sys_enter_sync", Times(1)),
    ("raw_tracepoint", "raw_tp/sys_enter", AtLeastOnce),
    ("tp_btf", "verified", AtLeastOnce),
    ("fentry", "verified", Times(1)),
    ("fexit", "verified", Times(1)),
    ("fmod_ret", "verified", AtLeastOnce),
    ("lsm", "verified", AtLeastOnce),
    ("lsm_sleeps", "verified", AtLeastOnce),
    ("perf", "perf:50", AtLeastOnce),
    ("xdp_native", "xdpdrv:eth1", AtLeastOnce),
    ("xdp_generic", "xdpgeneric:eth0", AtLeastOnce),
    ("socket", "socket:lo", AtLeastOnce),
    ("sk_lookup", "netns", AtLeastOnce),
    ("flow_dissector", "netns:/proc/self/ns/net", AtLeastOnce),
    ("skb_ingress", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("skb_egress", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("sock_create", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("post_bind", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("bind", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("connect", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("setsockopt", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("device", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("sysctl", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("sockops", "cgroup:/sys/fs/cgroup", AtLeastOnce),
    ("sk_msg", "sockmap:socks", AtLeastOnce),
    ("sk_parser", "sockmap:socks", AtLeastOnce),
    ("sk_verdict", "sockmap:socks", AtLeastOnce),
    // Three elements, and once more at the end.
    ("iter_map", "iter:walked", Times(4)),
    ("iter_task", "iter", AtLeastOnce),
];

/// What Debian's 6.12 has beside that.
const MULTI_KPROBES: &[Row] = &[
    ("multi", "kprobe.multi/ksys_syn*", Times(1)),
    ("retmulti", "kretprobe.multi/SYSCALL_sys_sync", Times(1)),
];

/// Links since Linux 6.6, filters of traffic control before that.
const PACKETS: &[Row] = &[
    ("tc_ingress", "ingress:lo", AtLeastOnce),
    ("tc_egress", "egress:lo", AtLeastOnce),
];

/// Programs that older kernels do not have.
const NEW: &[Row] = &[("netfilter", "netfilter:ipv4:input:5", AtLeastOnce)];

/// The same, for kernels that have [`MULTI_KPROBES`].
const SESSIONS: &[Row] = &[("session", "kprobe.session/SYSCALL_sys_sync", Times(2))];

#[test]
fn every_place() {
    let mut subject = Subject::new(Lab::new().unwrap(), &["attach", "attach_new"]);
    let tables = [EVERYWHERE, MULTI_KPROBES, PACKETS];
    subject.run_until_terminated(&[("attach", &tables), ("attach_new", &[NEW, SESSIONS])]);
}

#[test]
fn places_of_linux_6_1() {
    let lab = Lab::of("debian:6.1-cloud-amd64").unwrap();
    let mut subject = Subject::new(lab, &["attach"]);
    subject.run_until_terminated(&[("attach", &[EVERYWHERE, PACKETS])]);
    subject.filters_do_not_stay();
}

/// There, what functions and hooks are like is in the bundle.
#[test]
fn places_of_a_kernel_without_verifier_and_btf() {
    let lab = Lab::of_device_kernel().unwrap();
    // Probes on many functions need return hooks, which Linux 6.12 has not for arm64.
    let multi = lab.architecture() != Architecture::ARM64;
    let mut subject = Subject::new(lab, &["attach", "attach_new"]);
    if multi {
        let tables = [EVERYWHERE, MULTI_KPROBES, PACKETS];
        subject.run_until_terminated(&[("attach", &tables), ("attach_new", &[NEW, SESSIONS])]);
    } else {
        let tables = [EVERYWHERE, PACKETS];
        subject.run_until_terminated(&[("attach", &tables), ("attach_new", &[NEW])]);
    }
}

struct Subject {
    device: Device,
    arch: Architecture,
}

impl Subject {
    /// A device with two network cards and the bundles of these objects.
    fn new(lab: Lab, objects: &[&str]) -> Self {
        let arch = lab.architecture();
        let mut device = lab
            .boot_for_probes(DeviceOptions {
                cpus: Some(2),
                network: true,
                modules: ["sch_ingress", "cls_bpf"].map(str::to_owned).to_vec(),
                ..DeviceOptions::default()
            })
            .unwrap();
        for name in objects {
            let verified = lab.verify(&lab.object(name).unwrap()).unwrap();
            let bundle = lab.bundle(&verified).unwrap().to_bytes();
            device.put(&bundle_path(name), 0o644, bundle).unwrap();
        }
        device.put(TARGET, 0o755, target::program(arch)).unwrap();
        device.put("/tmp/trigger", 0o644, TRIGGER.into()).unwrap();
        device.put("/tmp/prepare", 0o644, PREPARE.into()).unwrap();
        device.run(&[BUSYBOX, "sh", "/tmp/prepare"]).unwrap();
        Self { device, arch }
    }

    /// Attaches the programs of each object: they run, also a second time, and do not when their loaders have ended.
    fn run_until_terminated(&mut self, objects: &[(&str, &[&[Row]])]) {
        let loaders: Vec<_> = objects
            .iter()
            .map(|(object, tables)| self.start(object, tables))
            .collect();
        let before = self.hits();
        self.trigger(objects);
        let after = self.hits();
        let rows = objects
            .iter()
            .flat_map(|(_, tables)| tables.iter().copied().flatten());
        let wrong: Vec<_> = rows
            .filter_map(|(name, place, runs)| {
                let of = |hits: &BTreeMap<String, u64>| hits.get(*name).copied().unwrap_or(0);
                let found = of(&after) - of(&before);
                match runs {
                    Times(times) if found == *times => None,
                    AtLeastOnce if found > 0 => None,
                    Times(times) => Some(format!("{name} at {place}: {found} instead of {times}")),
                    AtLeastOnce => Some(format!("{name} at {place}: never")),
                }
            })
            .collect();
        assert!(wrong.is_empty(), "ran:\n{}", wrong.join("\n"));

        for loader in loaders {
            self.stop(loader);
        }
        let last = self.hits();
        self.trigger(&[]);
        assert_eq!(self.hits(), last, "detached programs run");
        let pins = self.device.run(&[LOADER, "list"]).unwrap();
        assert!(
            pins.lines().count() == 1 && pins.starts_with(HITS),
            "{pins}"
        );
        self.device.healthy_log().unwrap();
    }

    /// Nothing would say which filter is to be removed.
    fn filters_do_not_stay(&mut self) {
        let (bundle, pins) = (bundle_path("attach"), pins("attach"));
        let place = "on_tc_ingress=ingress:lo";
        let command = [LOADER, "load", &bundle, "--pin", &pins, "--attach", place];
        let reply = self.device.try_run(&command).unwrap();
        let complaint = String::from_utf8_lossy(&reply.stderr).into_owned();
        assert_eq!(reply.status, 1, "{complaint}");
        assert!(complaint.contains("before Linux 6.6"), "{complaint}");
        let last = self.hits();
        self.trigger(&[]);
        assert_eq!(self.hits(), last, "a refused filter runs");
    }

    /// Starts a loader; returns its process id when it has attached all.
    fn start(&mut self, object: &str, tables: &[&[Row]]) -> i32 {
        let rows: Vec<_> = tables.iter().copied().flatten().collect();
        let places: Vec<_> = rows
            .iter()
            .map(|(name, place, _)| {
                let place = place.replace(SYSCALL, syscall_prefix(self.arch));
                format!("on_{name}={place}")
            })
            .collect();
        let (bundle, pins) = (bundle_path(object), pins(object));
        let mut command = vec![LOADER, "run", &bundle, "--pin", &pins];
        for place in &places {
            command.extend(["--attach", place]);
        }
        let process = self.device.start(&command).unwrap();
        let attached = format!("attached on_{}", rows.last().unwrap().0);
        self.wait_for(process, &attached);
        process
    }

    fn stop(&mut self, process: i32) {
        self.device
            .run(&[BUSYBOX, "kill", &process.to_string()])
            .unwrap();
        self.wait_for(process, "detached");
    }

    /// Waits until a loader says something.
    fn wait_for(&mut self, process: i32, words: &str) {
        let start = Instant::now();
        let mut read = |stream| {
            let path = format!("/run/exec/{process}.{stream}");
            String::from_utf8(self.device.get(&path).unwrap()).unwrap()
        };
        loop {
            let (said, complaint) = (read("stdout"), read("stderr"));
            if said.contains(words) {
                return;
            }
            assert!(complaint.is_empty(), "{complaint}");
            assert!(start.elapsed() < LIMIT, "no {words:?} in {said:?}");
            sleep(Duration::from_millis(100));
        }
    }

    fn trigger(&mut self, objects: &[(&str, &[&[Row]])]) {
        self.device.run(&[BUSYBOX, "sh", "/tmp/trigger"]).unwrap();
        for (object, tables) in objects {
            let iterators = tables.iter().copied().flatten();
            for (name, ..) in iterators.filter(|(name, ..)| name.starts_with("iter")) {
                let link = format!("{}/links/on_{name}", pins(object));
                let text = self.device.run(&[BUSYBOX, "cat", &link]).unwrap();
                let expected = match *name {
                    "iter_map" => "element 0\nelement 1\nelement 2\n",
                    _ => "task 1\n",
                };
                assert!(text.starts_with(expected), "{text}");
            }
        }
    }

    fn hits(&mut self) -> BTreeMap<String, u64> {
        let entries = self.device.entries(HITS).unwrap();
        let name = |key: &[u8]| {
            String::from_utf8(key.split(|&byte| byte == 0).next().unwrap().to_vec()).unwrap()
        };
        entries
            .iter()
            .map(|entry| (name(&entry.key), entry.sum()))
            .collect()
    }
}

fn bundle_path(object: &str) -> String {
    format!("/tmp/{object}.pvb")
}

fn pins(object: &str) -> String {
    format!("/sys/fs/bpf/{object}")
}
