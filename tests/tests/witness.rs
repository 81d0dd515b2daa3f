#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! A second witness for machine code that no device can make: the same kernel build with its JIT compiler left in
//! compiles the verified bytecode, and what it writes is what the kernel that verifies wrote, but for addresses of maps and
//! jumps that the kernel patches.

use preverify_abi::image::Poke;
use preverify_image::image::{Image, Reloc, Target};
use preverify_image::symbols::KernelSymbols;
use preverify_image::{Addresses, MapAddresses, Relinked, relink};
use preverify_lab::{Device, LOADER, Lab, PROBE};
use preverify_target::DeviceOptions;

const OBJECTS: [&str; 6] = [
    "refusals",
    "maps",
    "maps_new",
    "events",
    "attach",
    "attach_new",
];
const BUNDLE: &str = "/tmp/b.pvb";
const PINS: &str = "/sys/fs/bpf/b";
/// Where no map is told to lie: fields with addresses of maps are not compared. Three instructions set it on arm64.
const NO_MAP: MapAddresses = MapAddresses {
    map: 0xffff_1234_5678_9abc,
    values: Some(0xffff_1234_5678_9abc),
};

#[test]
#[ignore = "needs a kernel of its own: `cargo xtask test --kernels x86_64` builds it and runs this"]
fn devices_with_a_compiler_write_the_same_machine_code() {
    let lab = Lab::of_compiler_kernel().unwrap();
    let mut device = lab.boot_for_probes(DeviceOptions::default()).unwrap();
    let mut compared = 0;
    for object in OBJECTS {
        let verified = lab.verify(&lab.object(object).unwrap()).unwrap();
        let bundle = lab.bundle(&verified).unwrap();
        device.put(BUNDLE, 0o644, bundle.to_bytes()).unwrap();
        let load = [LOADER, "load", BUNDLE, "--image", "bytecode", "--pin", PINS];
        device.run(&load).unwrap();
        let symbols = with_bounds(&lab, device.symbols().unwrap());
        for program in &bundle.manifest().targets[0].programs {
            let code = machine_code(&mut device, &program.function);
            let what = format!("{object}: {}", program.function);
            let native = program.native.expect(&what);
            let section = |id| bundle.section(id).expect(&what);
            let image = section(native.image);
            let image = Image::parse(image, section(native.symbols.expect(&what))).unwrap();
            assert_same(&image, program.maps.len(), &code, &symbols, &what);
            compared += 1;
        }
        device.run(&[LOADER, "unload", PINS]).unwrap();
    }
    println!("{compared} programs are the same");
    device.healthy_log().unwrap();
}

/// The kernel's symbols, with those of its start and end: a kernel that tells of functions alone does not tell them.
fn with_bounds(lab: &Lab, kallsyms: String) -> String {
    let known = lab.target.device().unwrap().load().unwrap().symbols;
    let told = |name: &str| {
        let is_it = |line: &&str| line.split_whitespace().nth(2) == Some(name);
        let line = kallsyms.lines().find(is_it)?;
        u64::from_str_radix(line.split_whitespace().next()?, 16).ok()
    };
    let offset = |name: &str| known.get(name).unwrap().offset;
    let text = told("_stext").unwrap() - offset("_stext");
    // What is behind the last variable, programs do not use.
    let bounds = [("_text", "_text"), ("_end", "__bss_stop")];
    let lines: String = bounds
        .into_iter()
        .filter(|(name, _)| told(name).is_none())
        .map(|(name, like)| format!("{:x} T {name}\n", text + offset(like)))
        .collect();
    lines + &kallsyms
}

fn machine_code(device: &mut Device, program: &str) -> Vec<u8> {
    const FILE: &str = "/tmp/code";
    let pin = format!("{PINS}/{program}");
    device.run(&[PROBE, "code", &pin, FILE]).unwrap();
    device.get(FILE).unwrap()
}

/// Links the native image with the addresses that the device has, and compares.
fn assert_same(image: &Image, maps: usize, code: &[u8], kallsyms: &str, what: &str) {
    let addresses = Addresses {
        functions: addresses_of(image, kallsyms, what),
        maps: vec![NO_MAP; maps],
        prog_aux: NO_MAP.map,
        symbols: &KernelSymbols::parse(kallsyms).unwrap(),
    };
    let Relinked { functions } = relink(image, &addresses).unwrap();
    let mut rest = code;
    for (index, (mut expected, function)) in functions.into_iter().zip(&image.functions).enumerate()
    {
        let (found, others) = rest.split_at(expected.len().min(rest.len()));
        let mut found = found.to_vec();
        rest = others;
        let fields = function.relocs.iter().filter(|reloc| is_not_told(reloc));
        let fields = fields.map(|reloc| (reloc.offset as usize, reloc.form.size()));
        for (start, size) in fields.chain(patched_jumps(image, index)) {
            found[start..start + size].fill(0);
            expected[start..start + size].fill(0);
        }
        if let Some(place) = found.iter().zip(&expected).position(|(a, b)| a != b) {
            let around = place.saturating_sub(16)..expected.len().min(place + 16);
            let relocs = function.relocs.iter();
            let near: Vec<_> = relocs
                .filter(|reloc| around.contains(&(reloc.offset as usize)))
                .collect();
            panic!(
                "{what}, function {index}: other code at {place}: {:02x?}, expected {:02x?}, with {near:?}",
                &found[around.clone()],
                &expected[around]
            );
        }
    }
    assert!(rest.is_empty(), "{what}: {} bytes more", rest.len());
}

/// Where the kernel patches jumps when entries of prog arrays change.
fn patched_jumps(image: &Image, function: usize) -> impl Iterator<Item = (usize, usize)> {
    const JUMP: usize = 5;
    let of_function = move |poke: &&Poke| poke.function.get() as usize == function;
    image
        .pokes
        .iter()
        .filter(of_function)
        .flat_map(|poke| [poke.target, poke.bypass])
        .map(|start| (start.get() as usize, JUMP))
}

/// What the kernel tells nobody where it is.
fn is_not_told(reloc: &Reloc) -> bool {
    matches!(
        reloc.target,
        Target::Map(_) | Target::MapValue(_) | Target::ProgAux
    )
}

/// Where the program's functions are: the kernel calls each by its tag.
fn addresses_of(image: &Image, kallsyms: &str, what: &str) -> Vec<u64> {
    let lines: Vec<(u64, &str)> = kallsyms
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((address, words.nth(1)?.strip_prefix("bpf_prog_")?))
        })
        .collect();
    let address = |tag: &[u8; 8]| {
        let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut found = lines.iter().filter(|(_, name)| name.starts_with(&tag));
        let (address, _) = found.next().unwrap_or_else(|| panic!("{what}: no {tag}"));
        assert!(found.next().is_none(), "{what}: {tag} more than once");
        *address
    };
    image
        .functions
        .iter()
        .map(|function| address(&function.tag))
        .collect()
}
