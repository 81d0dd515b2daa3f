#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Events: what programs send through a ring buffer or a perf buffer comes out of `preverify-load events`, all of
//! it, as it was sent, and in order.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use preverify_lab::{BUSYBOX, Device, Event, LOADER, Lab, events, number, object};
use preverify_target::DeviceOptions;

const BUNDLE: &str = "/tmp/events.pvb";
const PINS: &str = "/sys/fs/bpf/events";
const RING: &str = "/sys/fs/bpf/events/maps/ring";
const PERF: &str = "/sys/fs/bpf/events/maps/perf";
/// What the kernel took, for each buffer and CPU.
const SENT: &str = "/sys/fs/bpf/events/maps/sent";
const CPUS: usize = 2;
/// How often each CPU sends its records.
const ROUNDS: usize = 6;
/// How many records a CPU sends each time.
const RECORDS: u64 = 20;
/// A record has fewer bytes behind its header.
const BYTES: u64 = 64;
/// How long it may take until events arrive.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn events_arrive_complete() {
    let lab = Lab::new().unwrap();
    let verified = lab.verify(&object("events").unwrap()).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    let mut device = lab
        .boot_for_probes(DeviceOptions {
            cpus: Some(u32::try_from(CPUS).unwrap()),
            ..DeviceOptions::default()
        })
        .unwrap();
    device.put(BUNDLE, 0o644, bundle.to_bytes()).unwrap();
    // Its section says where.
    let loader = device
        .start(&[LOADER, "run", BUNDLE, "--pin", PINS])
        .unwrap();
    wait_for(&mut device, loader, |said| said.contains("attached"));

    no_events(&mut device);
    let ring = device.start(&[LOADER, "events", RING, "--json"]).unwrap();
    let perf = device.start(&[LOADER, "events", PERF, "--json"]).unwrap();
    reader_is_there(&mut device);
    for _ in 0..ROUNDS {
        for cpu in 0..CPUS {
            send(&mut device, cpu);
        }
    }
    let [ring_sent, perf_sent] = sent(&mut device);
    let records = arrived(&mut device, ring, &ring_sent);
    check(&records, &ring_sent, |record, size| record.len() == size);
    let records = arrived(&mut device, perf, &perf_sent);
    // Behind four bytes that say its size, a record fills multiples of eight bytes.
    check(&records, &perf_sent, |record, size| {
        record.len() == (size + 4).next_multiple_of(8) - 4
    });
    device.run(&[BUSYBOX, "kill", &loader.to_string()]).unwrap();
    wait_for(&mut device, loader, |said| said.contains("detached"));
    device.healthy_log().unwrap();
}

/// Whoever waits for events that do not come is told.
fn no_events(device: &mut Device) {
    let command = [LOADER, "events", RING, "--count", "1", "--timeout", "1"];
    let reply = device.try_run(&command).unwrap();
    let complaint = String::from_utf8_lossy(&reply.stderr).into_owned();
    assert_eq!(reply.status, 1, "{complaint}");
    assert!(complaint.contains(RING), "{complaint}");
    let reply = device.try_run(&[LOADER, "events", SENT]).unwrap();
    assert_eq!(reply.status, 1, "an array sends no events");
}

/// Sends until the kernel takes events of every CPU: a perf buffer does not exist before its reader.
fn reader_is_there(device: &mut Device) {
    let start = Instant::now();
    for cpu in 0..CPUS {
        while sent(device)[1][cpu] == 0 {
            assert!(start.elapsed() < LIMIT, "there is no perf buffer");
            send(device, cpu);
            sleep(Duration::from_millis(100));
        }
    }
}

fn send(device: &mut Device, cpu: usize) {
    let mask = format!("{:x}", 1 << cpu);
    device
        .run(&[BUSYBOX, "taskset", &mask, BUSYBOX, "sync"])
        .unwrap();
}

/// How many the kernel took: through the ring and through the perf buffer, on each CPU.
fn sent(device: &mut Device) -> [Vec<u64>; 2] {
    let entries = device.entries(SENT).unwrap();
    let [ring, perf] = &entries[..] else {
        panic!("{entries:?}")
    };
    // The kernel is ready for more CPUs than there are.
    [ring, perf].map(|entry| {
        entry.values[..CPUS]
            .iter()
            .map(|value| number(value))
            .collect()
    })
}

/// Waits for so many events; then there are no more.
fn arrived(device: &mut Device, reader: i32, sent: &[u64]) -> Vec<Event> {
    let expected = usize::try_from(sent.iter().sum::<u64>()).unwrap();
    wait_for(device, reader, |said| said.lines().count() >= expected);
    sleep(Duration::from_millis(300));
    let said = said(device, reader, "stdout");
    device.run(&[BUSYBOX, "kill", &reader.to_string()]).unwrap();
    let events = events(&said).unwrap();
    assert_eq!(events.len(), expected);
    events
}

fn check(events: &[Event], sent: &[u64], has_size: impl Fn(&[u8], usize) -> bool) {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for Event { cpu, bytes } in events {
        let (on, serial) = (number(&bytes[..4]), number(&bytes[4..8]));
        assert!(cpu.is_none_or(|cpu| cpu == on), "{cpu:?} is not {on}");
        let next = next.entry(on).or_default();
        assert_eq!(serial, *next, "on CPU {on}");
        *next += 1;
        let size = 8 + usize::try_from(serial % BYTES).unwrap();
        assert!(has_size(bytes, size), "{} for {size}", bytes.len());
        let [lowest, ..] = serial.to_le_bytes();
        assert!(bytes[8..size].iter().all(|&byte| byte == lowest));
    }
    for (cpu, &count) in (0..).zip(sent) {
        assert_eq!(next.get(&cpu).copied().unwrap_or(0), count, "CPU {cpu}");
    }
    let (fewest, rounds) = (sent.iter().min().unwrap(), ROUNDS as u64);
    assert!(
        *fewest >= RECORDS * rounds,
        "only {fewest} records were sent"
    );
}

/// Waits until a command in the background says something.
fn wait_for(device: &mut Device, process: i32, heard: impl Fn(&str) -> bool) {
    let start = Instant::now();
    while !heard(&said(device, process, "stdout")) {
        let complaint = said(device, process, "stderr");
        assert!(complaint.is_empty(), "{complaint}");
        let so_far = said(device, process, "stdout").lines().count();
        assert!(start.elapsed() < LIMIT, "only {so_far} lines came");
        sleep(Duration::from_millis(100));
    }
}

fn said(device: &mut Device, process: i32, stream: &str) -> String {
    let path = format!("/run/exec/{process}.{stream}");
    String::from_utf8(device.get(&path).unwrap()).unwrap()
}
