//! What commands say, and where: data on stdout, messages on stderr, colours on a terminal only.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;

use crate::policy::problem::Problem;
use crate::policy::report;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// As wished.
    Fine = 0,
    /// The bundle or the request is wrong.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The decision is forbid.
    Forbid = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Prints `text` on stdout and ends with `exit`; with `failed` where stdout cannot be written.
pub(super) fn data(text: &str, exit: Exit, failed: Exit) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    end(written, exit, failed)
}

/// Ends with `exit` once stdout was written; with `failed` where it could not be. A reader that has seen enough and
/// closed the pipe is no failure.
pub(super) fn end(written: io::Result<()>, exit: Exit, failed: Exit) -> ExitCode {
    match written {
        Ok(()) => exit.into(),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit.into(),
        Err(error) => fail(format_args!("the output cannot be written: {error}"), failed),
    }
}

/// Tells on stderr why the command ends with `exit`.
pub(super) fn fail(message: impl Display, exit: Exit) -> ExitCode {
    let paint = Paint::of(&io::stderr());
    note(format_args!("{} {}", paint.red("error:"), shown(&message.to_string())));
    exit.into()
}

/// Tells what is wrong with a bundle that something else was wanted of.
pub(super) fn fail_with(problems: &[Problem]) -> ExitCode {
    let colour = coloured(&io::stderr());
    let mut stderr = io::stderr().lock();
    // Where stderr is closed there is nobody left to tell.
    let _untold = stderr.write_all(report::text(problems, colour).as_bytes());
    Exit::Error.into()
}

/// One line for the reader.
pub(super) fn note(message: impl Display) {
    let _untold = writeln!(io::stderr().lock(), "{message}");
}

/// Whether colours are wanted on `stream`.
pub(super) fn coloured(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `1 rule`, `2 rules`.
pub(super) fn number(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `text` with nothing in it that a terminal would act upon; its lines stay.
pub(super) fn shown(text: &str) -> String {
    text.split('\n').map(report::shown).collect::<Vec<_>>().join("\n")
}

/// Colours, or none of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn of(stream: &impl IsTerminal) -> Self {
        Self(coloured(stream))
    }

    pub(super) fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.with("1;32", text)
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
