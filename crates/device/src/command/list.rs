//! `list`.

use std::io::Write;
use std::path::Path;

use preverify_abi::kinds::{MapType, ProgramType};
use preverify_device::pins::{self, LinkType, Object, Pin};

use super::{CommandError, kernel_name};
use crate::json;

/// Shows what is pinned.
pub fn list(folder: &Path, json: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    let pins = pins::walk(folder)?;
    if json {
        writeln!(out, "{}", json::array(pins.iter().map(as_json)))?;
        return Ok(());
    }
    let width = pins
        .iter()
        .map(|pin| pin.path.display().to_string().chars().count())
        .max()
        .unwrap_or(0);
    for pin in &pins {
        let path = pin.path.display().to_string();
        writeln!(out, "{path:width$}  {}", as_text(pin))?;
    }
    Ok(())
}

fn as_text(pin: &Pin) -> String {
    match &pin.object {
        Object::Map(map) => format!(
            "map {}: {} {}, key {}, value {}, {} entries",
            map.id,
            MapType(map.map_type),
            kernel_name(&map.name),
            map.key_size,
            map.value_size,
            map.max_entries
        ),
        Object::Program(program) => format!(
            "program {}: {} {}, {}{} bytes of code",
            program.id,
            ProgramType(program.prog_type),
            kernel_name(&program.name),
            pin.image
                .map_or_else(String::new, |image| format!("{image}, ")),
            program.jited_size
        ),
        Object::Link(link) => format!(
            "link {}: {} of program {}",
            link.id,
            LinkType(link.link_type),
            link.program_id
        ),
    }
}

fn as_json(pin: &Pin) -> String {
    let object = json::Object::default().text("path", &pin.path.to_string_lossy());
    match &pin.object {
        Object::Map(map) => object
            .text("kind", "map")
            .number("id", map.id)
            .text("type", &MapType(map.map_type).to_string())
            .text("name", &kernel_name(&map.name))
            .number("key_size", map.key_size)
            .number("value_size", map.value_size)
            .number("max_entries", map.max_entries),
        Object::Program(program) => {
            let object = object
                .text("kind", "program")
                .number("id", program.id)
                .text("type", &ProgramType(program.prog_type).to_string())
                .text("name", &kernel_name(&program.name))
                .number("jited_size", program.jited_size);
            match pin.image {
                Some(image) => object.text("image", &image.to_string()),
                None => object,
            }
        }
        Object::Link(link) => object
            .text("kind", "link")
            .number("id", link.id)
            .text("type", &LinkType(link.link_type).to_string())
            .number("program_id", link.program_id),
    }
    .finish()
}

#[cfg(test)]
mod tests {
    use preverify_device::ImageKind;
    use preverify_device::sys::bpf::{LinkInfo, MapInfo, ProgramInfo};

    use super::*;

    #[test]
    fn objects_as_text_and_json() {
        let mut map = MapInfo {
            map_type: 6,
            id: 3,
            key_size: 4,
            value_size: 8,
            max_entries: 5,
            ..MapInfo::default()
        };
        map.name[..6].copy_from_slice(b"counts");
        let link = LinkInfo {
            link_type: 6,
            id: 9,
            program_id: 7,
            ..LinkInfo::default()
        };
        let program = ProgramInfo {
            prog_type: 6,
            id: 7,
            jited_size: 99,
            ..ProgramInfo::default()
        };
        for (object, image, text, json) in [
            (
                Object::Map(map),
                None,
                "map 3: percpu_array counts, key 4, value 8, 5 entries",
                r#"{"path":"/p","kind":"map","id":3,"type":"percpu_array","name":"counts","key_size":4,"value_size":8,"max_entries":5}"#,
            ),
            (
                Object::Link(link),
                None,
                "link 9: xdp of program 7",
                r#"{"path":"/p","kind":"link","id":9,"type":"xdp","program_id":7}"#,
            ),
            (
                Object::Program(program),
                Some(ImageKind::Bytecode),
                "program 7: xdp , bytecode, 99 bytes of code",
                r#"{"path":"/p","kind":"program","id":7,"type":"xdp","name":"","jited_size":99,"image":"bytecode"}"#,
            ),
            (
                Object::Program(program),
                None,
                "program 7: xdp , 99 bytes of code",
                r#"{"path":"/p","kind":"program","id":7,"type":"xdp","name":"","jited_size":99}"#,
            ),
        ] {
            let pin = Pin {
                path: "/p".into(),
                object,
                image,
            };
            assert_eq!(as_text(&pin), text);
            assert_eq!(as_json(&pin), json);
        }
    }
}
