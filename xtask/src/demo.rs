//! `cargo xtask demo`: three real programs, from objects to what they see on a device of an architecture.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use preverify_bench::{Image, Measurement, median};
use preverify_bundle::Signer;
use preverify_lab::{BUSYBOX, Device, LOADER, Lab, file};
use preverify_target::{
    AddRequest, Contents, DeviceOptions, GuestFile, Store, Target, default_cache,
};

use crate::arch::Arch;
use crate::paths::target_dir;
use crate::run::run_command;
use crate::{artifacts, bpf, corpus, setup};

const BENCH: &str = "/bin/preverify-bench";
const CERTIFICATE: &str = "/etc/preverify/signer.x509";
const PINS: &str = "/sys/fs/bpf";

/// A program of the demo.
struct Subject {
    name: &'static str,
    object: PathBuf,
    bundle: PathBuf,
    /// What `preverify build` gets beside object, target and key.
    inputs: &'static [&'static str],
    /// What `preverify-load run` gets beside the bundle.
    attach: &'static [&'static str],
    /// The program that is measured.
    measured: &'static str,
}

/// Runs the demo.
pub fn demo(arch: Arch) -> Result<(), Box<dyn Error>> {
    headline("What is needed");
    setup::setup()?;
    let binaries = artifacts::binaries(&[arch])?;
    let preverify = artifacts::command_to_try(&binaries)?;
    let bench = artifacts::bench(arch)?;
    let folder = target_dir().join("demo").join(arch.to_string());
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let subjects = subjects(arch, &folder)?;

    headline(&format!(
        "The target: the kernel that {arch} devices run, from Debian's packages"
    ));
    let command = |arguments: &[&str]| run_command(Command::new(&preverify).args(arguments));
    command(&["target", "add", arch.target()])?;
    let target = added_target(arch)?;

    headline("The signer");
    let key = folder.join("signer.pem");
    command(&["key", "generate", "--out", &text(&key)])?;

    headline("Verify, prove, sign: off the device, by its own kernel in two virtual machines");
    for subject in &subjects {
        let (object, bundle, key) = (text(&subject.object), text(&subject.bundle), text(&key));
        let mut arguments = vec!["build", &object, "--target", target.name()];
        arguments.extend(["--key", &key, "-o", &bundle]);
        arguments.extend(subject.inputs);
        command(&arguments)?;
    }
    let first = text(&subjects[0].bundle);
    command(&[
        "inspect",
        &first,
        "--trust",
        &text(&key.with_extension("x509")),
    ])?;

    headline(&format!(
        "The device: another boot of that kernel on an emulated {arch} board ({}), with the kernel part and \
         preverify-load",
        target.hardware().cpu
    ));
    let lab = Lab::on(target, Signer::open(&key)?, binaries.folder());
    let mut device = boot(&lab, &key, &bench, &subjects)?;
    tell_layouts(&lab, &mut device)?;
    show(&mut device, &[LOADER, "trust", CERTIFICATE])?;
    for subject in &subjects {
        start(&mut device, subject)?;
    }
    let readers = [
        Reader::start(&mut device, "xdp_count/maps/events", 1)?,
        Reader::start(&mut device, "execsnoop/maps/events", 3)?,
    ];

    headline("Packets, files and processes");
    let network = Network::between_cards(&mut device)?;
    network.ping(&mut device)?;
    work(&mut device)?;

    headline("What the programs saw");
    for map in ["xdp_count/maps/sources", "vfsstat/maps/vfsstat_bss"] {
        show(
            &mut device,
            &[LOADER, "map", "dump", &format!("{PINS}/{map}")],
        )?;
    }
    for reader in &readers {
        reader.finish(&mut device)?;
    }
    show(&mut device, &[LOADER, "list"])?;

    headline("What loading costs on that device: the kernel's own way, and the pre-verified ones");
    let measurements = subjects
        .iter()
        .map(|subject| measure(&mut device, subject))
        .collect::<Result<Vec<_>, _>>()?;
    println!("{}", table(&measurements));
    device.healthy_log()?;
    device.power_off()?;
    println!(
        "\nThe device's kernel log is clean. Bundles and key are in {}.",
        folder.display()
    );
    Ok(())
}

/// The target that the command has just added, under whatever release the kernel has today.
fn added_target(arch: Arch) -> Result<Target, Box<dyn Error>> {
    let request = AddRequest::debian(arch.target().parse()?, None);
    let store = Store::open(&default_cache()?)?;
    Ok(store.add(&request, &mut |_| {})?.target)
}

fn subjects(arch: Arch, folder: &Path) -> Result<Vec<Subject>, Box<dyn Error>> {
    let xdp_count = bpf::example(arch, "xdp_count")?;
    let [execsnoop, vfsstat] =
        corpus::debian_objects(arch, "libbpf-tools", ["execsnoop", "vfsstat"])?;
    Ok(vec![
        Subject {
            name: "xdp_count",
            object: xdp_count,
            bundle: folder.join("xdp_count.pvb"),
            inputs: &[],
            attach: &["--attach", "xdp_count=xdpdrv:eth0"],
            measured: "xdp_count",
        },
        Subject {
            name: "execsnoop",
            object: execsnoop,
            bundle: folder.join("execsnoop.pvb"),
            inputs: &["--set", "ignore_failed=false"],
            attach: &[],
            measured: "tracepoint__syscalls__sys_enter_execve",
        },
        // Each of its functions is there twice, for kernels with fentry and for those without:
        // its user space would leave one half out.
        Subject {
            name: "vfsstat",
            object: vfsstat,
            bundle: folder.join("vfsstat.pvb"),
            inputs: &[
                "--no-autoload",
                "kprobe_vfs_read",
                "--no-autoload",
                "kprobe_vfs_write",
                "--no-autoload",
                "kprobe_vfs_fsync",
                "--no-autoload",
                "kprobe_vfs_open",
                "--no-autoload",
                "kprobe_vfs_create",
            ],
            attach: &[],
            measured: "fentry_vfs_read",
        },
    ])
}

fn boot(
    lab: &Lab,
    key: &Path,
    bench: &Path,
    subjects: &[Subject],
) -> Result<Device, Box<dyn Error>> {
    let mut files = vec![
        file(BUSYBOX, 0o755, &lab.busybox()?),
        file(BENCH, 0o755, bench),
        file(CERTIFICATE, 0o644, &key.with_extension("x509")),
        GuestFile {
            path: "/root/hello".into(),
            mode: 0o644,
            contents: Contents::Bytes(b"hello\n".to_vec()),
        },
    ];
    for subject in subjects {
        files.push(file(&guest_bundle(subject), 0o644, &subject.bundle));
        files.push(file(&guest_object(subject), 0o644, &subject.object));
    }
    Ok(lab.boot_untrusting(DeviceOptions {
        cpus: Some(2),
        network: true,
        files,
        ..DeviceOptions::default()
    })?)
}

/// That this is another boot than those that verified: its kernel lies elsewhere.
fn tell_layouts(lab: &Lab, device: &mut Device) -> Result<(), Box<dyn Error>> {
    let text = |symbols: &str| {
        let line = symbols.lines().find(|line| line.ends_with(" _text"));
        line.and_then(|line| line.split(' ').next())
            .unwrap_or("?")
            .to_owned()
    };
    for layout in 0..lab.target.layouts() {
        let symbols = lab.target.symbols(layout)?;
        println!(
            "kernel of verifier VM {}: _text at {}",
            layout + 1,
            text(&symbols)
        );
    }
    println!(
        "kernel of the device:      _text at {}",
        text(&device.symbols()?)
    );
    Ok(())
}

/// Loads and attaches a bundle on the device: it stays until its process ends.
fn start(device: &mut Device, subject: &Subject) -> Result<(), Box<dyn Error>> {
    let (bundle, pins) = (guest_bundle(subject), format!("{PINS}/{}", subject.name));
    let mut command = vec![LOADER, "run", &bundle, "--pin", &pins];
    command.extend(subject.attach);
    let output = format!("/tmp/{}.out", subject.name);
    background(device, &command, &output)?;
    // It pins last.
    for _ in 0..PATIENCE {
        if device.try_run(&[LOADER, "list", &pins])?.status == 0 {
            print!("{}", text_of(device, &output)?);
            return Ok(());
        }
        device.run(&[BUSYBOX, "sleep", "0.2"])?;
    }
    Err(format!("{bundle} is not pinned: {}", text_of(device, &output)?).into())
}

/// What prints a buffer's events while they come.
struct Reader {
    output: String,
    count: usize,
}

impl Reader {
    fn start(device: &mut Device, buffer: &str, count: usize) -> Result<Self, Box<dyn Error>> {
        let (path, wanted) = (format!("{PINS}/{buffer}"), count.to_string());
        let output = format!("/tmp/{}", buffer.replace('/', "-"));
        let command = [
            LOADER,
            "events",
            &path,
            "--count",
            &wanted,
            "--timeout",
            "60",
        ];
        background(device, &command, &output)?;
        // Perf buffers are open only while somebody reads.
        device.run(&[BUSYBOX, "sleep", "1"])?;
        Ok(Self { output, count })
    }

    fn finish(&self, device: &mut Device) -> Result<(), Box<dyn Error>> {
        for _ in 0..PATIENCE {
            let text = text_of(device, &self.output)?;
            if text.lines().count() >= self.count {
                print!("{text}");
                return Ok(());
            }
            device.run(&[BUSYBOX, "sleep", "0.2"])?;
        }
        Err(format!("{}: fewer than {} events came", self.output, self.count).into())
    }
}

/// Waits of a fifth of a second.
const PATIENCE: usize = 150;

/// Runs a command beside others, with its output in a file of the device.
fn background(device: &mut Device, command: &[&str], output: &str) -> Result<(), Box<dyn Error>> {
    let command = command.join(" ");
    println!("device# {} &", command.replace("/bin/", ""));
    device.put(output, 0o644, Vec::new())?;
    let script = format!("exec {command} > {output} 2>&1");
    device.start(&[BUSYBOX, "sh", "-c", &script])?;
    Ok(())
}

fn text_of(device: &mut Device, file: &str) -> Result<String, Box<dyn Error>> {
    Ok(String::from_utf8_lossy(&device.get(file)?).into_owned())
}

/// Two cards on one cable; the second one lives in a network name space of its own, as if in another machine.
struct Network {
    neighbour: String,
}

impl Network {
    fn between_cards(device: &mut Device) -> Result<Self, Box<dyn Error>> {
        let process = device.start(&[BUSYBOX, "unshare", "-n", BUSYBOX, "sleep", "1000"])?;
        let network = Self {
            neighbour: process.to_string(),
        };
        // It must have left our name space before the card is given to it.
        device.run(&[BUSYBOX, "sleep", "0.5"])?;
        let ip = |arguments: &str| format!("ip {arguments}");
        for command in [
            ip("addr add 192.0.2.1/24 dev eth0"),
            ip("link set eth0 up"),
            ip(&format!("link set eth1 netns {process}")),
        ] {
            busybox_run(device, &command)?;
        }
        for command in [ip("addr add 192.0.2.2/24 dev eth1"), ip("link set eth1 up")] {
            network.there(device, &command)?;
        }
        Ok(network)
    }

    fn ping(&self, device: &mut Device) -> Result<(), Box<dyn Error>> {
        print!("{}", self.there(device, "ping -c 5 -i 0.2 192.0.2.1")?);
        Ok(())
    }

    fn there(&self, device: &mut Device, command: &str) -> Result<String, Box<dyn Error>> {
        busybox_run(
            device,
            &format!("nsenter -t {} -n {BUSYBOX} {command}", self.neighbour),
        )
    }
}

/// Work that the tracing programs see.
fn work(device: &mut Device) -> Result<(), Box<dyn Error>> {
    for command in [
        "cat /root/hello",
        "cp /root/hello /tmp/copy",
        "rm /tmp/copy",
    ] {
        println!("device# {command}");
        print!("{}", busybox_run(device, command)?);
    }
    Ok(())
}

fn busybox_run(device: &mut Device, command: &str) -> Result<String, Box<dyn Error>> {
    let words: Vec<_> = [BUSYBOX].into_iter().chain(command.split(' ')).collect();
    Ok(device.run(&words)?)
}

fn measure(device: &mut Device, subject: &Subject) -> Result<Measurement, Box<dyn Error>> {
    let (object, bundle) = (guest_object(subject), guest_bundle(subject));
    let text = device.run(&[
        BENCH,
        "all",
        &object,
        &bundle,
        subject.measured,
        "100",
        "200",
    ])?;
    Ok(serde_json::from_str(&text)?)
}

fn table(measurements: &[Measurement]) -> String {
    let mut text = format!(
        "{:40} {:>13} {:>9} {:>7} {:>9} {:>7} {:>9} {:>24}\n",
        "medians of 100 and 200, in us",
        "BPF_PROG_LOAD",
        "native",
        "faster",
        "bytecode",
        "faster",
        "signature",
        "kernel memory, kB"
    );
    for measured in measurements {
        let stock = median(&measured.stock.ns);
        let load = |image: &Option<Image>| image.as_ref().map(|image| median(&image.loads.ns));
        let time = |image| load(image).map_or("-".into(), |load| format!("{:.1}", micros(load)));
        let faster = |image| {
            load(image).map_or("-".into(), |load| {
                format!("{:.1}x", micros(stock) / micros(load))
            })
        };
        let kilobytes = |image: &Option<Image>| {
            let peak = image.as_ref().map(|image| image.loads.peak / 1024);
            peak.map_or("-".into(), |kilobytes| kilobytes.to_string())
        };
        let Measurement {
            native, bytecode, ..
        } = measured;
        text.push_str(&format!(
            "{:40} {:>13.1} {:>9} {:>7} {:>9} {:>7} {:>9.1} {:>24}\n",
            measured.program,
            micros(stock),
            time(native),
            faster(native),
            time(bytecode),
            faster(bytecode),
            micros(median(&measured.open_ns)),
            format!(
                "{} / {} / {}",
                measured.stock.peak / 1024,
                kilobytes(native),
                kilobytes(bytecode)
            ),
        ));
    }
    text.push_str(
        "native: machine code that was made and proved off the device. bytecode: verified, and compiled by the device.\n\
         signature: checked once a bundle, whatever number of programs it has. Kernel memory: the most that was taken\n\
         while loading, the kernel's own way / native / bytecode; 0 is what fits into the pages that each CPU has at hand.",
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "microseconds to show")]
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

fn guest_bundle(subject: &Subject) -> String {
    format!("/root/{}.pvb", subject.name)
}

fn guest_object(subject: &Subject) -> String {
    format!("/root/{}.bpf.o", subject.name)
}

fn show(device: &mut Device, command: &[&str]) -> Result<(), Box<dyn Error>> {
    println!("device# {}", command.join(" ").replace("/bin/", ""));
    print!("{}", device.run(command)?);
    Ok(())
}

fn headline(text: &str) {
    println!("\n== {text}\n");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
