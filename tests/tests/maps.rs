#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Maps of every kind, on a device: the loader creates them as the object wants them, and the programs find in
//! them, and leave in them, what they must.

use preverify_lab::{BUSYBOX, Device, LOADER, Lab, number, object, pinned};
use preverify_protocol::TestRunRequest;
use preverify_target::DeviceOptions;

const BUNDLE: &str = "/tmp/maps.pvb";
/// Wants another map where the first one pins its map.
const OTHER_BUNDLE: &str = "/tmp/shared.pvb";
const PINS: &str = "/sys/fs/bpf/maps";
/// Where the map `shared` wants to be pinned.
const SHARED: &str = "/sys/fs/bpf/shared";
/// What programs are loaded from.
const IMAGES: [&str; 2] = ["native", "bytecode"];

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// `enum finding` of the program.
enum Found {
    Queue,
    Stack,
    BloomMember,
    BloomStranger,
    InnerArray,
    InnerHash,
    Task,
    UnderCgroup,
    UserRing,
    Socket,
    Sockmap,
    Sockhash,
    Device,
    DeviceHash,
    Cpu,
    Xsk,
    Opened,
    Timer,
    Local,
}

#[test]
fn maps_of_every_kind() {
    let lab = Lab::new().unwrap();
    for image in IMAGES {
        let mut device = every_kind(&lab, 12, image);
        storages_of_cgroups(&lab, &mut device);
        device.healthy_log().unwrap();
    }
}

#[test]
fn maps_of_linux_6_1() {
    let lab = Lab::of("debian:6.1-cloud-amd64").unwrap();
    for image in IMAGES {
        every_kind(&lab, 1, image).healthy_log().unwrap();
    }
}

/// All that works on all versions of Linux 6: `minor` says which one it is.
fn every_kind(lab: &Lab, minor: u32, image: &str) -> Device {
    let mut device = lab
        .boot_for_probes(DeviceOptions {
            cpus: Some(2),
            ..DeviceOptions::default()
        })
        .unwrap();
    put_bundle(lab, &mut device, "maps", BUNDLE);
    put_bundle(lab, &mut device, "shared", OTHER_BUNDLE);
    load(&mut device, PINS, image);

    contents_before(&mut device);
    plain(&mut device, minor);
    timers(&mut device);
    sockets(&mut device);
    redirections(&mut device);
    tail_calls(&mut device);
    tracing(&mut device);
    inodes(&mut device);
    cgroup_locals(&mut device);
    contents_that_cannot_be_shown(&mut device);
    pinned_by_name(&mut device, image);

    device.run(&[LOADER, "unload", PINS]).unwrap();
    let pins = device.run(&[LOADER, "list"]).unwrap();
    assert_eq!(pins.lines().count(), 1, "{pins}");
    assert!(pins.contains(SHARED), "{pins}");
    device
}

fn put_bundle(lab: &Lab, device: &mut Device, name: &str, path: &str) {
    let verified = lab.verify(&object(name).unwrap()).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    device.put(path, 0o644, bundle.to_bytes()).unwrap();
}

fn load(device: &mut Device, pins: &str, image: &str) {
    let opened = "opened=verified";
    let sent = "sent=cgroup:/sys/fs/cgroup";
    device
        .run(&[
            LOADER, "load", BUNDLE, "--pin", pins, "--image", image, "--attach", opened,
            "--attach", sent,
        ])
        .unwrap();
}

/// What the object says that they hold.
fn contents_before(device: &mut Device) {
    assert_eq!(numbers(device, "maps_data"), [5]);
    assert_eq!(numbers(device, "maps_bss"), [0]);
    assert_eq!(numbers(device, "maps_rodata"), [3]);
    assert_eq!(numbers(device, "array"), [0, 0, 0, 0]);
    assert_eq!(entries(device, "hash"), []);
    let id = |device: &mut Device, name: &str| map_id(device, &path(name));
    let inner = id(device, "inner_of_array");
    assert_eq!(entries(device, "array_of_maps"), [(1, inner)]);
    let inner = id(device, "inner_of_hash");
    assert_eq!(entries(device, "hash_of_maps"), [(2, inner)]);
    let jumps = entries(device, "jumps");
    assert_eq!(
        jumps.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(),
        [1, 2]
    );
}

/// Maps that a program reads and writes as such, and global variables.
fn plain(device: &mut Device, minor: u32) {
    const RUNS: u64 = 3;
    for _ in 0..RUNS {
        let version = run(device, "plain", 64);
        // `LINUX_KERNEL_VERSION`, from .kconfig.
        assert_eq!(version >> 8, (6 << 8) | minor, "{version:#x}");
    }
    let constants = device.entries(&path("maps_kconfig")).unwrap();
    let version = number(&constants[0].values[0][..4]);
    assert_eq!(version >> 8, (6 << 8) | u64::from(minor), "{version:#x}");
    assert_eq!(numbers(device, "maps_data"), [5 + 3 * RUNS]);
    assert_eq!(numbers(device, "maps_bss"), [RUNS]);
    assert_eq!(numbers(device, "array"), [0, 2 * RUNS, 0, 0]);
    assert_eq!(device.numbers(SHARED).unwrap(), [RUNS]);

    let hash = device.entries(&path("hash")).unwrap();
    let [entry] = &hash[..] else {
        panic!("{hash:?}")
    };
    let value = &entry.values[0];
    assert_eq!(entry.index(), 1);
    assert_eq!(
        (number(&value[..4]), number(&value[8..])),
        (RUNS, 77 * RUNS)
    );

    assert_eq!(numbers(device, "percpu_array"), [0, 7 * RUNS]);
    let percpu = device.entries(&path("percpu_hash")).unwrap();
    assert_eq!(percpu.len(), 1);
    // Each run may have been on another CPU; on each, the value is nine.
    let each = percpu[0].values.iter().map(|value| number(value));
    let each: Vec<_> = each.filter(|&value| value != 0).collect();
    assert!(!each.is_empty() && each.iter().all(|&value| value == 9));
    assert_eq!(entries(device, "lru"), [(1, 0x1122_3344_5566_7788)]);
    let lru = device.entries(&path("lru_percpu")).unwrap();
    assert!(
        lru[0]
            .values
            .contains(&0x1122_3344_5566_7788_u64.to_le_bytes().to_vec())
    );

    let prefixes = device.entries(&path("prefixes")).unwrap();
    let mut prefixes: Vec<_> = prefixes
        .iter()
        .map(|entry| {
            (
                number(&entry.key[..4]),
                entry.key[4..].to_vec(),
                entry.sum(),
            )
        })
        .collect();
    prefixes.sort();
    assert_eq!(
        prefixes,
        [
            (8, vec![10, 0, 0, 0], 8),
            (16, vec![10, 1, 0, 0], 16 + 100 * RUNS)
        ]
    );

    assert_eq!(found(device, Found::Queue), 11);
    assert_eq!(found(device, Found::Stack), 22);
    assert_eq!(found(device, Found::BloomMember), 1);
    assert_eq!(found(device, Found::BloomStranger), 0);
    assert_eq!(found(device, Found::InnerArray), 1);
    assert_eq!(found(device, Found::InnerHash), 1);
    assert_eq!(numbers(device, "inner_of_array"), [0, 41 * RUNS]);
    assert_eq!(numbers(device, "inner_of_hash"), [42 * RUNS, 0]);
}

/// The kernel calls back into the program's code.
fn timers(device: &mut Device) {
    assert_eq!(run(device, "later", 64), 0);
    device.run(&[BUSYBOX, "sleep", "0.2"]).unwrap();
    assert_eq!(found(device, Found::Timer), 1);
    let timers = device.entries(&path("timers")).unwrap();
    let value = &timers[0].values[0];
    assert_eq!(number(&value[value.len() - 8..]), 1);
}

fn sockets(device: &mut Device) {
    run(device, "sockets", 64);
    assert_eq!(found(device, Found::Socket), 55);
    assert_eq!(found(device, Found::Sockmap), 1);
    assert_eq!(found(device, Found::Sockhash), 1);
    assert_eq!(entries(device, "sockhash"), []);
}

fn redirections(device: &mut Device) {
    assert_eq!(run(device, "redirect", 64), XDP_PASS);
    for (finding, action) in [
        (Found::Device, XDP_PASS),
        (Found::DeviceHash, XDP_TX),
        (Found::Cpu, XDP_DROP),
        (Found::Xsk, XDP_PASS),
    ] {
        assert_eq!(found(device, finding), u64::from(action));
    }
}

/// Through a slot that is known when it is compiled and through one that is not.
fn tail_calls(device: &mut Device) {
    assert_eq!(run(device, "first", 64), XDP_TX);
    assert_eq!(numbers(device, "array")[2], 101);
    assert_eq!(run(device, "first", 128), XDP_DROP);
    assert_eq!(numbers(device, "array")[2], 101 + 10101);
}

fn tracing(device: &mut Device) {
    run(device, "traced", 0);
    run(device, "traced", 0);
    assert_eq!(found(device, Found::UserRing), 0);
    assert_eq!(found(device, Found::UnderCgroup), 1);
    // Both runs were in the same task.
    assert_eq!(found(device, Found::Task), 2);
    let stacks = device.entries(&path("stacks")).unwrap();
    assert!(!stacks.is_empty());
    let innermost = number(&stacks[0].values[0][..8]);
    assert!(innermost >> 63 == 1, "{innermost:#x} is no kernel address");
    let ring = path("ring");
    let events = [LOADER, "events", &ring, "--count", "2", "--timeout", "10"];
    let text = device.run(&events).unwrap();
    assert_eq!(text.matches("a message.").count(), 2, "{text}");
}

fn inodes(device: &mut Device) {
    const TIMES: usize = 40;
    device.put("/tmp/opened", 0o644, b"x".to_vec()).unwrap();
    let before = found(device, Found::Opened);
    let mut cat = vec![BUSYBOX, "cat"];
    cat.extend(["/tmp/opened"; TIMES]);
    assert_eq!(device.run(&cat).unwrap().len(), TIMES);
    let after = found(device, Found::Opened);
    assert!(after >= TIMES as u64 && after > before, "{before}, {after}");
}

/// Of whatever cgroup a program runs in.
fn storages_of_cgroups(lab: &Lab, device: &mut Device) {
    put_bundle(lab, device, "maps_new", BUNDLE);
    device
        .run(&[LOADER, "load", BUNDLE, "--pin", PINS])
        .unwrap();
    run(device, "traced", 0);
    run(device, "traced", 0);
    assert_eq!(numbers(device, "maps_new_bss"), [2]);
    device.run(&[LOADER, "unload", PINS]).unwrap();
}

/// Of the cgroup that a program is attached to.
fn cgroup_locals(device: &mut Device) {
    let ping = [BUSYBOX, "ping", "-c", "2", "-W", "5", "127.0.0.1"];
    device.run(&ping).unwrap();
    assert!(found(device, Found::Local) >= 2);
    let sum = |device: &mut Device, name| device.numbers(&path(name)).unwrap().iter().sum::<u64>();
    let (local, percpu) = (sum(device, "local"), sum(device, "local_percpu"));
    assert!(local >= 2, "{local}");
    assert_eq!(percpu, local);
}

/// The loader says why.
fn contents_that_cannot_be_shown(device: &mut Device) {
    for name in [
        "queue",
        "stack",
        "bloom",
        "of_task",
        "of_inode",
        "of_socket",
        "ring",
        "user_ring",
        "perf",
    ] {
        let reply = device.try_run(&[LOADER, "map", "dump", &path(name)]);
        let reply = reply.unwrap();
        let complaint = String::from_utf8_lossy(&reply.stderr).into_owned();
        assert_eq!(reply.status, 1, "{name}: {complaint}");
        assert!(complaint.contains(name), "{complaint}");
    }
}

/// The next load takes the map that is there; an object that wants another one is told.
fn pinned_by_name(device: &mut Device, image: &str) {
    const SECOND: &str = "/sys/fs/bpf/second";
    let id = map_id(device, SHARED);
    let before = device.numbers(SHARED).unwrap()[0];
    load(device, SECOND, image);
    assert_eq!(map_id(device, &format!("{SECOND}/maps/shared")), id);
    assert_ne!(
        map_id(device, &format!("{SECOND}/maps/array")),
        map_id(device, &path("array"))
    );
    device
        .test_run(TestRunRequest {
            program: pinned(&format!("{SECOND}/plain")),
            data_in: Some(vec![0; 64]),
            ..request()
        })
        .unwrap();
    assert_eq!(device.numbers(SHARED).unwrap(), [before + 1]);
    assert_eq!(device.numbers(&path("shared")).unwrap(), [before + 1]);
    device.run(&[LOADER, "unload", SECOND]).unwrap();

    let reply = device.try_run(&[LOADER, "load", OTHER_BUNDLE]).unwrap();
    let complaint = String::from_utf8_lossy(&reply.stderr).into_owned();
    assert_eq!(reply.status, 1, "{complaint}");
    assert!(
        complaint.contains("number of entries 1, expected 2"),
        "{complaint}"
    );
    assert_eq!(device.numbers(SHARED).unwrap(), [before + 1]);
}

fn path(map: &str) -> String {
    format!("{PINS}/maps/{map}")
}

fn numbers(device: &mut Device, map: &str) -> Vec<u64> {
    device.numbers(&path(map)).unwrap()
}

/// Keys and values that are numbers.
fn entries(device: &mut Device, map: &str) -> Vec<(u64, u64)> {
    let entries = device.entries(&path(map)).unwrap();
    let mut entries: Vec<_> = entries.iter().map(|e| (e.index(), e.sum())).collect();
    entries.sort_unstable();
    entries
}

fn found(device: &mut Device, finding: Found) -> u64 {
    numbers(device, "found")[finding as usize]
}

/// The kernel's number of a pinned map.
fn map_id(device: &mut Device, path: &str) -> u64 {
    let folder = &path[..path.rfind('/').unwrap()];
    let text = device.run(&[LOADER, "list", folder, "--json"]).unwrap();
    let pins: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut pins = pins.as_array().unwrap().iter();
    let pin = pins.find(|pin| pin["path"] == path);
    pin.unwrap()["id"].as_u64().unwrap()
}

/// Runs a program on a packet of zeroes, if it takes one; returns what it returns.
fn run(device: &mut Device, program: &str, size: usize) -> u32 {
    let reply = device
        .test_run(TestRunRequest {
            program: pinned(&format!("{PINS}/{program}")),
            data_in: (size > 0).then(|| vec![0; size]),
            ..request()
        })
        .unwrap();
    assert_eq!(reply.errno, 0, "{program}");
    reply.return_value
}

fn request() -> TestRunRequest {
    TestRunRequest {
        program: pinned(""),
        data_in: None,
        context_in: None,
        repeat: 0,
        flags: 0,
        data_out_size: 0,
    }
}
