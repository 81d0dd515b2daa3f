//! `preverify-bench`: runs on the device and loads one program in all ways, in turns.

mod memory;
mod stock;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use preverify_bench::{Image, Loads, Measurement};
use preverify_bundle::Reader;
use preverify_device::{Device, DeviceError, ImageChoice, Selection};

use stock::StockProgram;

/// How often the ways take turns.
const TURNS: usize = 20;
/// How often memory is watched: the greatest fall counts.
const MEMORY_RUNS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = match arguments.as_slice() {
        ["stock", object, program] => stock_once(object, program),
        ["attach", object, program, interface, pin] => attach(object, program, interface, pin),
        ["all", object, bundle, program, stock_runs, load_runs] => {
            all(Some(object), bundle, program, stock_runs, load_runs)
        }
        ["bundle", bundle, program, load_runs] => all(None, bundle, program, "0", load_runs),
        _ => Err("usage: preverify-bench stock OBJECT PROGRAM\n       \
                  preverify-bench attach OBJECT PROGRAM INTERFACE LINK-PIN\n       \
                  preverify-bench all OBJECT BUNDLE PROGRAM STOCK-RUNS LOAD-RUNS\n       \
                  preverify-bench bundle BUNDLE PROGRAM LOAD-RUNS"
            .into()),
    };
    match measured {
        Ok(measurement) => {
            println!("{measurement}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("preverify-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One load of the kernel's own, for machines that may not have the memory for a second.
fn stock_once(object: &str, program: &str) -> Result<String, Box<dyn Error>> {
    let elf = fs::read(object)?;
    let (stock, peak) = memory::peak(|| {
        let start = Instant::now();
        StockProgram::prepare(&elf, program).map(|_| elapsed(start))
    })?;
    let loads = Loads {
        ns: vec![stock?],
        peak,
    };
    Ok(serde_json::to_string(&loads)?)
}

/// What a device does that loads the kernel's own way: measured is the boot that it belongs to.
fn attach(
    object: &str,
    program: &str,
    interface: &str,
    pin: &str,
) -> Result<String, Box<dyn Error>> {
    let stock = StockProgram::prepare(&fs::read(object)?, program)?;
    stock.attach_xdp(interface, pin)?;
    Ok(format!("{program} is attached to {interface}"))
}

fn all(
    object: Option<&str>,
    bundle: &str,
    program: &str,
    stock_runs: &str,
    load_runs: &str,
) -> Result<String, Box<dyn Error>> {
    let (stock_runs, load_runs): (usize, usize) = (stock_runs.parse()?, load_runs.parse()?);
    let stock = object
        .map(|object| -> Result<_, Box<dyn Error>> {
            Ok(StockProgram::prepare(&fs::read(object)?, program)?)
        })
        .transpose()?;
    let device = Device::open()?;
    let mut reader = Reader::open(Path::new(bundle))?;
    let mut opened = device.open_bundle(&mut reader)?;
    let index = opened
        .target()
        .programs
        .iter()
        .position(|described| described.function == program)
        .ok_or_else(|| format!("the bundle has no program {program}"))?;
    let selection = Selection::of(opened.target(), &[program])?;
    let maps = opened.create_maps(&selection)?;
    let mut images = Vec::new();
    for choice in [ImageChoice::Native, ImageChoice::Bytecode] {
        opened.choose_images(choice);
        match opened.image(index) {
            Ok(image) => images.push((choice, image, Loads::default())),
            // A program need not have both.
            Err(DeviceError::Image(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let used: Vec<_> = opened.target().programs[index]
        .maps
        .iter()
        .map(|&map| maps.get(map as usize).ok_or("a map was not created"))
        .collect::<Result<_, _>>()?;
    let mut second = Reader::open(Path::new(bundle))?;

    let mut stock_loads = Loads::default();
    let mut open_ns = Vec::with_capacity(load_runs);
    // In turns: after a load of its own, which may take seconds, the machine's caches hold nothing of ours, and that
    // would be measured if the ways alternated one by one.
    for turn in 0..TURNS {
        if let Some(stock) = &stock {
            for _ in share(stock_runs, turn) {
                stock_loads.ns.push(timed(|| stock.load())?);
            }
        }
        for _ in share(load_runs, turn) {
            open_ns.push(timed(|| device.open_bundle(&mut second).map(drop))?);
        }
        for (_, image, loads) in &mut images {
            for _ in share(load_runs, turn) {
                loads.ns.push(timed(|| opened.load_image(image, &used))?);
            }
        }
    }
    for _ in 0..MEMORY_RUNS {
        if let Some(stock) = &stock {
            let (loaded, fell) = memory::peak(|| stock.load())?;
            loaded?;
            stock_loads.peak = stock_loads.peak.max(fell);
        }
        for (_, image, loads) in &mut images {
            let (loaded, fell) = memory::peak(|| -> Result<(), DeviceError> {
                device.open_bundle(&mut second)?;
                opened.load_image(image, &used)?;
                Ok(())
            })?;
            loaded?;
            loads.peak = loads.peak.max(fell);
        }
    }
    let mut measurement = Measurement {
        program: program.into(),
        stock: stock_loads,
        open_ns,
        native: None,
        bytecode: None,
    };
    for (choice, image, loads) in images {
        let bytes = image.size();
        let image = Some(Image { bytes, loads });
        match choice {
            ImageChoice::Bytecode => measurement.bytecode = image,
            _ => measurement.native = image,
        }
    }
    Ok(serde_json::to_string(&measurement)?)
}

/// Which of `count` runs belong to a turn.
fn share(count: usize, turn: usize) -> std::ops::Range<usize> {
    turn * count / TURNS..(turn + 1) * count / TURNS
}

/// How long it takes; what it returns is dropped after the clock has stopped.
fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<u64, E> {
    let start = Instant::now();
    let result = work();
    let elapsed = elapsed(start);
    result.map(|_| elapsed)
}

fn elapsed(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
