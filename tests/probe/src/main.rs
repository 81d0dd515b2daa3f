//! `preverify-probe CASES ANSWERS`: reads cases from one file, writes the answers into another.
//! `preverify-probe classic`: tries classic filters.
//! `preverify-probe code PIN FILE`: writes a pinned program's machine code into a file.

mod capabilities;
mod classic;

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use preverify_abi::ioctl::DEVICE_PATH;
use preverify_device::sys::bpf::{MapCreate, machine_code, map_create, object_get};
use preverify_device::sys::ioctl;
use preverify_device::sys::map::MapHandle;
use preverify_probe::{Answer, Case, Load, Map, Refusal};
use preverify_protocol::frame;
use zerocopy::FromZeros;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [only, pin, file] if only == "code" => code(pin.as_ref(), file.as_ref()),
        [cases, answers] => answer_all(cases.as_ref(), answers.as_ref()),
        [only] if only == "classic" => classic::classic(),
        _ => Err("usage: preverify-probe CASES ANSWERS\n       \
                  preverify-probe classic\n       \
                  preverify-probe code PIN FILE"
            .into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("preverify-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer_all(cases: &Path, answers: &Path) -> Result<(), Box<dyn Error>> {
    let cases: Vec<Case> = frame::receive(&mut File::open(cases)?)?;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE_PATH)?;
    let device = OwnedFd::from(device);
    let mut given = Vec::with_capacity(cases.len());
    for case in &cases {
        // Capabilities are a thread's own: what one case gives up, the next one has again.
        let answer = thread::scope(|scope| scope.spawn(|| answer(device.as_fd(), case)).join());
        given.push(answer.map_err(|_| "a case panicked")??);
    }
    let mut text = Vec::new();
    frame::send(&mut text, &given)?;
    Ok(fs::write(answers, text)?)
}

fn code(pin: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let program = object_get(pin)?;
    Ok(fs::write(file, machine_code(program.as_fd())?)?)
}

fn answer(device: BorrowedFd<'_>, case: &Case) -> io::Result<Answer> {
    let maps = match &case.load {
        None => Vec::new(),
        Some(load) => match maps(load) {
            Ok(maps) => maps,
            Err(error) => return Ok(Answer::NoMap(error.raw_os_error().unwrap_or(0))),
        },
    };
    // Creating maps is not what the case is about.
    capabilities::give_up(&case.without)?;
    let mut answer = Answer::Done;
    for _ in 0..case.times.max(1) {
        answer = once(device, case, &maps);
    }
    Ok(answer)
}

fn once(device: BorrowedFd<'_>, case: &Case, maps: &[MapHandle]) -> Answer {
    let mut open: preverify_abi::ioctl::Open = FromZeros::new_zeroed();
    let bundle = match ioctl::open(device, &case.manifest, &case.signature, &mut open) {
        Ok(bundle) => bundle,
        Err(error) => return Answer::NotOpened(refusal(&error, &open.reason)),
    };
    let Some(load) = &case.load else {
        return Answer::Opened {
            fit: open.fit,
            reason: sentence(&open.reason),
        };
    };
    let mut argument: preverify_abi::ioctl::Load = FromZeros::new_zeroed();
    argument.program = load.program;
    argument.kind = load.kind;
    let maps: Vec<_> = maps.iter().map(AsFd::as_fd).collect();
    match ioctl::load(
        bundle.as_fd(),
        &load.image,
        &load.symbols,
        &maps,
        &mut argument,
    ) {
        Ok(_program) => Answer::Done,
        Err(error) => Answer::NotLoaded(refusal(&error, &argument.reason)),
    }
}

fn maps(load: &Load) -> io::Result<Vec<MapHandle>> {
    let mut handles: Vec<MapHandle> = Vec::new();
    for map in &load.maps {
        let handle = create(map, &handles)?;
        handles.push(handle);
    }
    Ok(handles)
}

fn create(map: &Map, before: &[MapHandle]) -> io::Result<MapHandle> {
    let inner = map.inner.and_then(|inner| before.get(inner));
    let inner = inner.map_or(0, |inner| {
        use std::os::fd::AsRawFd;
        inner.as_fd().as_raw_fd()
    });
    let handle = MapHandle::new(map_create(&mut MapCreate {
        map_type: map.map_type,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        map_flags: map.map_flags,
        map_extra: map.map_extra,
        inner_map_fd: u32::try_from(inner).map_err(io::Error::other)?,
        ..MapCreate::default()
    })?)?;
    if let Some(contents) = &map.contents {
        handle.update(&0_u32.to_ne_bytes(), contents)?;
    }
    if map.frozen {
        handle.freeze()?;
    }
    Ok(handle)
}

fn refusal(error: &io::Error, reason: &[u8]) -> Refusal {
    Refusal {
        errno: error.raw_os_error().unwrap_or(0),
        reason: sentence(reason),
    }
}

fn sentence(reason: &[u8]) -> String {
    let end = reason.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&reason[..end.unwrap_or(reason.len())]).into_owned()
}
