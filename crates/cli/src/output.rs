//! What the command says: colours where someone sees them, and errors with their causes.

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

/// What stands out: headings, names.
pub const STRONG: Style = Style::new().bold();
/// What is there for completeness.
pub const FAINT: Style = Style::new().dimmed();
/// What holds.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What does not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What nobody has checked.
pub const OPEN: Style = AnsiColor::Yellow.on_default();

/// Writes to standard output, without colours if that is no terminal. Whoever stops reading early
/// (`| head`) has seen enough: that is no error.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// A text that may come from strangers, without power over the terminal: what would move the
/// cursor or change colours is shown as what it is.
pub fn shown(text: &str) -> Cow<'_, str> {
    let harmless = |character: char| !character.is_control() || character == '\n';
    if text.chars().all(harmless) {
        return text.into();
    }
    let mut cleaned = String::new();
    for character in text.chars() {
        match harmless(character) {
            true => cleaned.push(character),
            false => cleaned.extend(character.escape_default()),
        }
    }
    cleaned.into()
}

/// Says why the command failed, on standard error.
pub fn complain(error: &dyn Error) {
    let mut text = format!("{BAD}error:{BAD:#} {}", shown(&error.to_string()));
    for cause in causes(error) {
        text.push_str("\n  caused by: ");
        text.push_str(&shown(&cause));
    }
    anstream::eprintln!("{text}");
}

/// The causes of an error, without those that the message before has told already.
fn causes(error: &dyn Error) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !told.contains(&message) {
            told.clone_from(&message);
            causes.push(message);
        }
        next = cause.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Layer {
        message: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(messages: &[&'static str]) -> Option<Box<Layer>> {
        let (message, inner) = messages.split_first()?;
        Some(Box::new(Layer {
            message,
            source: layers(inner),
        }))
    }

    #[test]
    fn strangers_do_not_control_the_terminal() {
        assert_eq!(shown("plain, größer\n"), "plain, größer\n");
        assert_eq!(shown("a\x1b[31m\rb\u{9b}c"), "a\\u{1b}[31m\\rb\\u{9b}c");
    }

    #[test]
    fn causes_are_told_once() {
        let told = |messages: &[&'static str]| causes(&*layers(messages).expect("not empty"));
        assert_eq!(told(&["one"]), [""; 0]);
        assert_eq!(told(&["one", "two", "three"]), ["two", "three"]);
        assert_eq!(told(&["one: two", "two", "three"]), ["three"]);
    }
}
