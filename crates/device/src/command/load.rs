//! `load` and `run`.

use std::io::{Read, Seek, Write};

use preverify_abi::kinds::{AttachType, ProgramType};
use preverify_bundle::{Reader, SlotContent, Target};
use preverify_device::attach::plan::{Plan, PlanError};
use preverify_device::attach::{Attachment, Subject};
use preverify_device::pins::Place;
use preverify_device::sys::bpf::{self, ProgramInfo};
use preverify_device::sys::signals::Termination;
use preverify_device::{Device, Loaded, OpenBundle, Selection, program_named};

use super::CommandError;
use crate::arguments::{self, Attach};

/// Loads, pins, and leaves it all there.
pub fn load(arguments: &arguments::Load, out: &mut dyn Write) -> Result<(), CommandError> {
    let place = arguments.pin.as_deref().map(Place::new).transpose()?;
    let mut reader = Reader::open(&arguments.bundle)?;
    let mut bundle = Device::open()?.open_bundle(&mut reader)?;
    bundle.choose_images(arguments.image);
    let target = bundle.target().clone();
    let plans = requested(&target, &arguments.attach)?;
    let selection = if arguments.programs.is_empty() {
        Selection::all(&target)
    } else {
        select(&target, &arguments.programs, &plans)?
    };
    if arguments.stock_limits {
        selection
            .programs()
            .try_for_each(|program| target.programs[program].demand_stock_limits())?;
    }
    let mut loaded = Loaded::load(&mut bundle, &selection)?;
    let attachments = attach(&target, &loaded, &plans)?;
    for (program, attachment) in &attachments {
        if let Some(why) = attachment.ends_with_process() {
            return Err(CommandError::CannotStay {
                program: target.programs[*program].function.clone(),
                why,
            });
        }
    }
    let pins = place
        .map(|place| place.pin(&target, &loaded, &attachments))
        .transpose()?;
    tell(&bundle, &loaded, &plans, &attachments, out)?;
    match (pins, &arguments.pin) {
        (Some(pins), Some(folder)) => {
            writeln!(out, "pinned in {}", folder.display())?;
            out.flush()?;
            pins.keep();
            loaded.maps.keep_pins();
            attachments
                .into_iter()
                .for_each(|(_, attachment)| attachment.keep());
        }
        _ => writeln!(out, "the bundle loads; nothing stays without --pin")?,
    }
    Ok(())
}

/// Loads, attaches, waits, and takes it all away.
pub fn run(arguments: &arguments::Run, out: &mut dyn Write) -> Result<(), CommandError> {
    // A signal that comes early waits until all is there, and then ends it in order.
    let termination = Termination::hold().map_err(CommandError::Signals)?;
    let place = arguments.pin.as_deref().map(Place::new).transpose()?;
    let mut reader = Reader::open(&arguments.bundle)?;
    let mut bundle = Device::open()?.open_bundle(&mut reader)?;
    bundle.choose_images(arguments.image);
    let target = bundle.target().clone();
    let (plans, selection) = if arguments.attach.is_empty() {
        (by_section(&target, out)?, Selection::all(&target))
    } else {
        let plans = requested(&target, &arguments.attach)?;
        let selection = select(&target, &[], &plans)?;
        (plans, selection)
    };
    if arguments.stock_limits {
        selection
            .programs()
            .try_for_each(|program| target.programs[program].demand_stock_limits())?;
    }
    let mut loaded = Loaded::load(&mut bundle, &selection)?;
    let attachments = attach(&target, &loaded, &plans)?;
    let pins = place
        .map(|place| place.pin(&target, &loaded, &attachments))
        .transpose()?;
    tell(&bundle, &loaded, &plans, &attachments, out)?;
    out.flush()?;
    // Maps that the object wants pinned at a path of their own are there to outlive it.
    loaded.maps.keep_pins();

    termination.wait().map_err(CommandError::Signals)?;
    drop(pins);
    drop(attachments);
    writeln!(out, "detached")?;
    Ok(())
}

/// A program, and where to attach it.
struct Planned {
    program: usize,
    plan: Plan,
}

impl Planned {
    fn function<'a>(&self, target: &'a Target) -> &'a str {
        &target.programs[self.program].function
    }
}

/// What the command line asks for.
fn requested(target: &Target, requests: &[Attach]) -> Result<Vec<Planned>, CommandError> {
    requests
        .iter()
        .map(|request| {
            let program = match (&request.program, &target.programs[..]) {
                (Some(name), _) => program_named(target, name)?,
                (None, [_]) => 0,
                (None, programs) => {
                    return Err(CommandError::WhichProgram {
                        count: programs.len(),
                        example: programs
                            .first()
                            .map_or("PROGRAM", |program| &program.function)
                            .to_owned(),
                    });
                }
            };
            let plan = request.plan.clone();
            check(target, program, &plan)?;
            Ok(Planned { program, plan })
        })
        .collect()
}

/// What the programs' sections say. A program that other programs call through a prog array need
/// not be attached, and a section may say that it never is.
fn by_section(target: &Target, out: &mut dyn Write) -> Result<Vec<Planned>, CommandError> {
    let mut plans = Vec::new();
    for (index, program) in target.programs.iter().enumerate() {
        let is_called = target.slots.iter().any(
            |slot| matches!(slot.content, SlotContent::Program(program) if program as usize == index),
        );
        match Plan::from_section(&program.elf_section) {
            Ok(plan) => {
                check(target, index, &plan)?;
                plans.push(Planned {
                    program: index,
                    plan,
                });
            }
            Err(PlanError::NeedsPlace { .. } | PlanError::UnknownSection { .. }) if is_called => {
                writeln!(out, "{}: called by others, not attached", program.function)?;
            }
            Err(reason @ PlanError::NotAttached { .. }) => {
                writeln!(out, "{}: {reason}", program.function)?;
            }
            Err(source) => {
                return Err(CommandError::Plan {
                    program: program.function.clone(),
                    source,
                });
            }
        }
    }
    Ok(plans)
}

/// The named programs and those that are attached, with the maps that they are attached to.
fn select(
    target: &Target,
    programs: &[String],
    plans: &[Planned],
) -> Result<Selection, CommandError> {
    let attached = plans.iter().map(|planned| planned.function(target));
    let functions: Vec<&str> = programs
        .iter()
        .map(String::as_str)
        .chain(attached)
        .collect();
    let mut selection = Selection::of(target, &functions)?;
    for map in plans.iter().filter_map(|planned| planned.plan.map()) {
        selection.add_map(target, map);
    }
    Ok(selection)
}

fn check(target: &Target, program: usize, plan: &Plan) -> Result<(), CommandError> {
    let program = &target.programs[program];
    plan.check(
        ProgramType(program.prog_type),
        AttachType(program.expected_attach_type),
    )
    .map_err(|source| CommandError::Plan {
        program: program.function.clone(),
        source,
    })
}

fn attach(
    target: &Target,
    loaded: &Loaded,
    plans: &[Planned],
) -> Result<Vec<(usize, Attachment)>, CommandError> {
    let mut attachments = Vec::new();
    for planned in plans {
        // All that is planned was selected.
        if let Some(descriptor) = loaded.program(planned.program) {
            let subject = Subject {
                program: &target.programs[planned.program],
                descriptor,
                target,
                maps: &loaded.maps,
            };
            let attachment = Attachment::new(subject, &planned.plan)?;
            attachments.push((planned.program, attachment));
        }
    }
    Ok(attachments)
}

fn tell<R: Read + Seek>(
    bundle: &OpenBundle<'_, R>,
    loaded: &Loaded,
    plans: &[Planned],
    attachments: &[(usize, Attachment)],
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let target = bundle.target();
    for (index, map) in loaded.maps.iter() {
        writeln!(
            out,
            "map {}: id {}",
            target.maps[index].full_name,
            map.info().id
        )?;
    }
    for (index, program) in loaded.programs() {
        let info: ProgramInfo = bpf::info(program)?;
        let function = &target.programs[index].function;
        write!(out, "program {function}: id {}", info.id)?;
        if let Some(image) = loaded.image(index) {
            write!(out, ", {image}")?;
        }
        writeln!(out, ", {} bytes of code", info.jited_size)?;
    }
    let reason = &bundle.fit().reason;
    if !reason.is_empty() {
        writeln!(out, "native images do not fit this machine: {reason}")?;
    }
    for (planned, (_, attachment)) in plans.iter().zip(attachments) {
        let function = planned.function(target);
        let section = &target.programs[planned.program].elf_section;
        let place = match &planned.plan {
            Plan::Nowhere => {
                writeln!(out, "{function}: not attached, as asked")?;
                continue;
            }
            Plan::Verified => format!("what it was verified for, {section}"),
            plan => plan.to_string(),
        };
        let ids = attachment.link_ids()?;
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        match &ids[..] {
            [] => writeln!(out, "attached {function} to {place}")?,
            ids => writeln!(
                out,
                "attached {function} to {place}: link {}",
                ids.join(", ")
            )?,
        }
    }
    Ok(())
}
