//! `preverify-bench`: runs on the device and loads one program both ways, alternating.

mod memory;
mod stock;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use preverify_bench::Measurement;
use preverify_bundle::Reader;
use preverify_device::{Device, Selection};

use stock::StockProgram;

/// How often the two ways take turns.
const TURNS: usize = 20;
/// How often memory is watched: the greatest fall counts.
const MEMORY_RUNS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let measured = match arguments.as_slice() {
        [object, bundle, program, stock_runs, load_runs] => {
            measure(object, bundle, program, stock_runs, load_runs)
        }
        _ => Err("usage: preverify-bench OBJECT BUNDLE PROGRAM STOCK-RUNS LOAD-RUNS".into()),
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

fn measure(
    object: &str,
    bundle: &str,
    program: &str,
    stock_runs: &str,
    load_runs: &str,
) -> Result<String, Box<dyn Error>> {
    let (stock_runs, load_runs): (usize, usize) = (stock_runs.parse()?, load_runs.parse()?);
    let stock = StockProgram::prepare(&fs::read(object)?, program)?;
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
    let image = opened.image(index)?;
    let used: Vec<_> = opened.target().programs[index]
        .maps
        .iter()
        .map(|&map| maps.get(map as usize).ok_or("a map was not created"))
        .collect::<Result<_, _>>()?;
    let mut second = Reader::open(Path::new(bundle))?;

    let mut measurement = Measurement {
        program: program.into(),
        stock_ns: Vec::with_capacity(stock_runs),
        open_ns: Vec::with_capacity(load_runs),
        load_ns: Vec::with_capacity(load_runs),
        stock_peak: 0,
        load_peak: 0,
        image_bytes: image.size(),
    };
    // In turns: after a load of its own, which may take seconds, the machine's caches hold nothing of ours, and that
    // would be measured if the ways alternated one by one.
    let turns = stock_runs.clamp(1, TURNS);
    for turn in 0..turns {
        for _ in share(stock_runs, turn, turns) {
            measurement.stock_ns.push(timed(|| stock.load())?);
        }
        for _ in share(load_runs, turn, turns) {
            let open = || device.open_bundle(&mut second).map(drop);
            measurement.open_ns.push(timed(open)?);
            let load = || opened.load_image(&image, &used);
            measurement.load_ns.push(timed(load)?);
        }
    }
    for _ in 0..MEMORY_RUNS {
        let (loaded, fell) = memory::peak(|| stock.load())?;
        loaded?;
        measurement.stock_peak = measurement.stock_peak.max(fell);
        let (loaded, fell) = memory::peak(|| -> Result<(), Box<dyn Error>> {
            device.open_bundle(&mut second)?;
            opened.load_image(&image, &used)?;
            Ok(())
        })?;
        loaded?;
        measurement.load_peak = measurement.load_peak.max(fell);
    }
    Ok(serde_json::to_string(&measurement)?)
}

/// Which of `count` runs belong to a turn.
fn share(count: usize, turn: usize, turns: usize) -> std::ops::Range<usize> {
    turn * count / turns..(turn + 1) * count / turns
}

/// How long it takes; what it returns is dropped after the clock has stopped.
fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<u64, E> {
    let start = Instant::now();
    let result = work();
    let elapsed = start.elapsed();
    result.map(|_| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}
