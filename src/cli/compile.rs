//! `compile`: the Cedar that the rules become.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cedar_policy_formatter::{Config, policies_str_to_pretty};
use clap::Args;
use serde_json::Value;

use super::load::{self, Directory};
use super::output::{self, Exit};
use super::progress::Progress;
use super::schema;
use crate::policy::Snapshot;

const EXAMPLE: &str = "\
Examples:
  tollgate compile policies
  tollgate compile policies --out cedar/

Each policy carries its rule's id, file and line as annotations. As a .cedar file beside the same people and models the
output decides the same. --out writes what another Cedar engine needs: the policies, with the refusals that Tollgate
makes before it asks a rule (disabled, expired, switched off), the schema and the entities. One difference is left: a
forbid that raises an error forbids in Tollgate, and is skipped by Cedar.";

/// Above this many rules the output is printed as it is: formatting takes some twenty times as long as loading.
const FORMATTED: usize = 20_000;
/// A longer policy is left as it is: the formatter's time grows with the square of a policy's length.
const MOST_BYTES: usize = 32 * 1024;
/// The formatter recurses over a policy's expressions.
const STACK_BYTES: usize = 256 * 1024 * 1024;

/// Print the Cedar that the rules become
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct CompileArguments {
    #[command(flatten)]
    bundle: Directory,
    /// Write policies.cedar, schema.cedarschema and entities.json into this directory instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &CompileArguments) -> ExitCode {
    let directory = &arguments.bundle.directory;
    let snapshot = match load::load(directory, false) {
        Ok(loaded) => loaded.snapshot,
        Err(problems) => return output::fail_with(&problems),
    };
    let policies = formatted(&snapshot);
    match &arguments.out {
        None => {
            let mut stdout = BufWriter::new(io::stdout().lock());
            let written = write_policies(&mut stdout, &policies).and_then(|()| stdout.flush());
            output::end(written, Exit::Fine, Exit::Error)
        }
        Some(out) => match write_all(directory, out, &snapshot, &policies) {
            Ok(()) => {
                output::note(format_args!(
                    "wrote policies.cedar, schema.cedarschema and entities.json to {}",
                    out.display()
                ));
                Exit::Fine.into()
            }
            Err(message) => output::fail(message, Exit::Error),
        },
    }
}

fn write_policies(to: &mut impl Write, policies: &[String]) -> io::Result<()> {
    for (number, policy) in policies.iter().enumerate() {
        let gap = if number == 0 { "" } else { "\n" };
        writeln!(to, "{gap}{}", policy.trim_end())?;
    }
    Ok(())
}

/// Writes what any Cedar engine needs into `out`.
fn write_all(directory: &Path, out: &Path, snapshot: &Snapshot, policies: &[String]) -> Result<(), String> {
    let schema = schema::of(directory).map_err(|_| "the bundle changed while it was compiled; try again".to_owned())?;
    let refusals = snapshot.refusals_to_cedar();
    let refusals = on_large_stack(|| format_one(&refusals)).unwrap_or(refusals);
    let failed = |path: &Path, error: io::Error| format!("{} cannot be written: {error}", path.display());
    fs::create_dir_all(out).map_err(|error| failed(out, error))?;
    let write = |name: &str, fill: &dyn Fn(&mut BufWriter<fs::File>) -> io::Result<()>| {
        let path = out.join(name);
        let file = fs::File::create(&path).map_err(|error| failed(&path, error))?;
        let mut file = BufWriter::new(file);
        fill(&mut file).and_then(|()| file.flush()).map_err(|error| failed(&path, error))
    };
    write("policies.cedar", &|file| {
        write_policies(file, policies)?;
        if refusals.is_empty() {
            return Ok(());
        }
        writeln!(file, "\n// What Tollgate refuses before it asks a rule.\n\n{}", refusals.trim_end())
    })?;
    write("schema.cedarschema", &|file| file.write_all(schema.as_bytes()))?;
    let entities = snapshot.entities_json()?;
    write("entities.json", &|file| write_entities(file, &entities))
}

/// One entity a line, so that two versions can be compared.
fn write_entities(to: &mut impl Write, entities: &[Value]) -> io::Result<()> {
    write!(to, "[")?;
    for (number, entity) in entities.iter().enumerate() {
        write!(to, "{}\n  {entity}", if number == 0 { "" } else { "," })?;
    }
    writeln!(to, "\n]")
}

/// Every rule as a policy, in the order of the bundle. Each on its own: the formatter's time for a text as a whole grows
/// with the square of its length.
fn formatted(snapshot: &Snapshot) -> Vec<String> {
    let count = snapshot.counts().rules;
    let plain = |number: usize| snapshot.policy_text(number).unwrap_or_default();
    if count > FORMATTED {
        output::note(format_args!("{count} policies are too many to format; they are printed as they are"));
        return (0..count).map(plain).collect();
    }
    let _progress = Progress::of(format!("formatting {count} policies"));
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = count.div_ceil(cores).max(1);
    let format_share = |first: usize| {
        let numbers = first..count.min(first + share);
        numbers.map(|number| format_one(&plain(number))).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let builder = || std::thread::Builder::new().name("format".to_owned()).stack_size(STACK_BYTES);
        let format_share = &format_share;
        let threads: Vec<_> = (0..count)
            .step_by(share)
            .map(|first| (first, builder().spawn_scoped(scope, move || format_share(first))))
            .collect();
        let mut all = Vec::with_capacity(count);
        for (first, thread) in threads {
            let done = thread.ok().and_then(|thread| thread.join().ok());
            // Where no thread is to be had the policies stay as they are; they mean the same.
            all.extend(done.unwrap_or_else(|| (first..count.min(first + share)).map(plain).collect()));
        }
        all
    })
}

/// A policy, formatted; as it is where the formatter would take too long, or does not vouch for what it made.
fn format_one(text: &str) -> String {
    if text.len() > MOST_BYTES {
        return text.to_owned();
    }
    let config = Config { line_width: 100, indent_width: 2 };
    policies_str_to_pretty(text, &config).unwrap_or_else(|_| text.to_owned())
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("format".to_owned()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}
