//! What the README and the help texts tell people to type is understood.

use clap::{CommandFactory, Parser};

use crate::{Arguments, WIDTH};

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn the_readme_is_understood() {
    let readme = include_str!("../../../README.md");
    let synopsis = readme.split("## Synopsis").nth(1).expect("a synopsis");
    let synopsis = synopsis.split("\n## ").next().expect("a section");
    assert!(check(synopsis) >= 5);
}

#[test]
fn the_help_is_understood() {
    let mut command = Arguments::command();
    command.build();
    assert!(check_help(&command) >= 12);
}

fn check_help(command: &clap::Command) -> usize {
    let texts = [command.get_after_help(), command.get_after_long_help()];
    let own: usize = texts
        .into_iter()
        .flatten()
        .map(|text| {
            let text = text.to_string();
            // Nobody could type what is broken.
            for line in text.lines().filter(|line| line.starts_with("  ")) {
                let columns = line.chars().count();
                assert!(columns <= WIDTH, "{columns} columns are broken up: {line}");
            }
            check(&text)
        })
        .sum();
    own + command.get_subcommands().map(check_help).sum::<usize>()
}

/// Parses every indented command line in a text; returns how many there are.
fn check(text: &str) -> usize {
    let joined = text.replace("\\\n", " ");
    let lines = joined
        .lines()
        .filter(|line| line.trim_start().starts_with("preverify "));
    let indented: Vec<_> = lines.filter(|line| line.starts_with("  ")).collect();
    for line in &indented {
        let command = line.split(" | ").next().unwrap_or_default();
        if let Err(error) = Arguments::try_parse_from(words(command)) {
            panic!("{line}: {error}");
        }
    }
    indented.len()
}

/// The words of a command line, as a shell finds them, if it has no quotes but single ones.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        match number % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}
