//! `log`: the decision log, read back.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, Exit, number, shown};
use crate::config::DECISION_LOG_FOLDER;
use crate::edge::decision_log::{Kept, ReadError, Verified, find, prove, verify};

const EXAMPLE: &str = "\
Examples:
  tollgate log show 8f3a2c1d9e4b7a60-12
  tollgate log verify --checkpoint /mnt/elsewhere/checkpoints.jsonl
  tollgate log prove 8f3a2c1d9e4b7a60-12 > proof.json

Exit codes: 0 found, or whole; 1 not found, or damaged; 2 a log that cannot be read.";

/// Read the decision log: find a decision, or verify that the log is whole
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct LogArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the record of a decision
    Show {
        /// The id of the decision, as its answer has it
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// Verify that no record was changed, removed, added or put elsewhere
    Verify {
        /// Checkpoints that were kept elsewhere, one a line: only they show that the end of the log was cut off
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Print a proof that a record stands in the log, without the other records
    Prove {
        /// The id of the decision, as its answer has it
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the log is.
#[derive(Debug, Args)]
struct Place {
    /// The folder of the log, or one file of it [default: decisions in the data directory]
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// The data directory of the server [default: tollgate-data]
    #[arg(long, value_name = "DIR", env = "TOLLGATE_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
}

impl Place {
    fn path(&self) -> PathBuf {
        let data = || self.data.clone().unwrap_or_else(|| PathBuf::from("tollgate-data"));
        self.log.clone().unwrap_or_else(|| data().join(DECISION_LOG_FOLDER))
    }
}

pub(super) fn run(arguments: &LogArguments) -> ExitCode {
    let outcome = match &arguments.command {
        Command::Show { id, place } => show(&place.path(), id),
        Command::Verify { checkpoint, place } => whole(&place.path(), checkpoint.as_deref()),
        Command::Prove { id, place } => proof(&place.path(), id),
    };
    outcome.unwrap_or_else(|error| output::fail(error, Exit::Usage))
}

fn show(log: &Path, id: &str) -> Result<ExitCode, ReadError> {
    match find(log, id)? {
        // The alternate form of a JSON value is its indented text.
        Some(record) => Ok(output::data(&format!("{record:#}\n"), Exit::Fine, Exit::Error)),
        None => Ok(not_found(log, id)),
    }
}

fn proof(log: &Path, id: &str) -> Result<ExitCode, ReadError> {
    let Some(proof) = prove(log, id)? else {
        if find(log, id)?.is_some() {
            let message = "no checkpoint follows this record yet; try again in a second";
            return Ok(output::fail(message, Exit::Error));
        }
        return Ok(not_found(log, id));
    };
    let proof = json!({
        "line": proof.line, "index": proof.index, "path": proof.path, "checkpoint": proof.checkpoint,
    });
    Ok(output::data(&format!("{proof:#}\n"), Exit::Fine, Exit::Error))
}

fn not_found(log: &Path, id: &str) -> ExitCode {
    let message = format!(
        "no decision `{id}` is recorded in {}: `decision_log.level` may exclude it, or its file was removed \
         (`keep_days`)",
        log.display()
    );
    output::fail(message, Exit::Error)
}

fn whole(log: &Path, checkpoint: Option<&Path>) -> Result<ExitCode, ReadError> {
    let kept = checkpoint.map(Kept::read).transpose()?.unwrap_or_default();
    let verified = verify(log, &kept)?;
    let told = summary(&verified);
    match &verified.damage {
        None => Ok(output::data(&told, Exit::Fine, Exit::Error)),
        Some(damage) => {
            let _told = output::data(&told, Exit::Error, Exit::Error);
            Ok(output::fail(damage, Exit::Error))
        }
    }
}

/// Summarizes the part of the log that was verified.
fn summary(verified: &Verified) -> String {
    let Some((first, last)) = verified.lines else { return "the log is empty\n".to_owned() };
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut text = format!(
        "records {first} to {last} are intact: {}, {}\n",
        number(count(verified.decisions), "decision"),
        number(count(verified.checkpoints), "checkpoint"),
    );
    if first > 1 {
        text.push_str("earlier records were removed, by `keep_days` or by hand\n");
    }
    if verified.missing > 0 {
        let missing = number(count(verified.missing), "record");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{missing} could not be written, according to the log itself");
    }
    if verified.unchecked > 0 {
        let unchecked = number(count(verified.unchecked), "record");
        let _ = writeln!(text, "{unchecked} follow the last checkpoint");
    }
    shown(&text)
}
