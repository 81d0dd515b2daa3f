//! What was set between open and load, in words.

use preverify_protocol::{GlobalValue, Inputs, MapInputs, ProgramInputs};

/// One sentence for each setting.
pub fn words(inputs: &Inputs) -> Vec<String> {
    let globals = inputs.globals.iter().map(|(name, value)| match value {
        GlobalValue::Integer(value) => format!("{name} = {value}"),
        GlobalValue::Bytes(bytes) => format!("{name} = bytes {}", hex::encode(bytes)),
    });
    let maps = inputs
        .maps
        .iter()
        .flat_map(|(name, map)| map_words(name, map));
    let programs = inputs
        .programs
        .iter()
        .flat_map(|(name, program)| program_words(name, program));
    let kconfig = inputs
        .kconfig
        .iter()
        .map(|_| "kconfig of its own".to_owned());
    let modules = inputs.modules.iter().map(|name| format!("module {name}"));
    globals
        .chain(maps)
        .chain(programs)
        .chain(kconfig)
        .chain(modules)
        .collect()
}

fn map_words(name: &str, map: &MapInputs) -> Vec<String> {
    let MapInputs {
        max_entries,
        value_size,
        autocreate,
    } = map;
    let entries = max_entries.map(|entries| format!("map {name}: max-entries {entries}"));
    let value = value_size.map(|size| format!("map {name}: value-size {size}"));
    let created = autocreate.map(|created| match created {
        true => format!("map {name}: created"),
        false => format!("map {name}: left out"),
    });
    [entries, value, created].into_iter().flatten().collect()
}

fn program_words(name: &str, program: &ProgramInputs) -> Vec<String> {
    let ProgramInputs {
        autoload,
        attach_target,
    } = program;
    let loaded = autoload.map(|loaded| match loaded {
        true => format!("program {name}: loaded"),
        false => format!("program {name}: left out"),
    });
    let target = attach_target
        .as_ref()
        .map(|target| format!("program {name}: attaches to {target}"));
    [loaded, target].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_told() {
        let inputs = Inputs {
            maps: [(
                "stacks".to_owned(),
                MapInputs {
                    max_entries: Some(8),
                    value_size: Some(16),
                    autocreate: Some(false),
                },
            )]
            .into(),
            programs: [(
                "count".to_owned(),
                ProgramInputs {
                    autoload: Some(true),
                    attach_target: Some("do_unlinkat".to_owned()),
                },
            )]
            .into(),
            globals: [
                ("limit".to_owned(), GlobalValue::Integer(-1)),
                ("name".to_owned(), GlobalValue::Bytes(vec![1, 0xff])),
            ]
            .into(),
            kconfig: Some("CONFIG_X=y".to_owned()),
            modules: vec!["nf_conntrack".to_owned()],
        };
        assert_eq!(
            words(&inputs),
            [
                "limit = -1",
                "name = bytes 01ff",
                "map stacks: max-entries 8",
                "map stacks: value-size 16",
                "map stacks: left out",
                "program count: loaded",
                "program count: attaches to do_unlinkat",
                "kconfig of its own",
                "module nf_conntrack",
            ]
        );
    }
}
