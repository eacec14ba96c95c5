//! `compile`: the Cedar that the rules become.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cedar_policy_formatter::{Config, policies_str_to_pretty};
use clap::Args;
use serde_json::Value;

use super::load::{self, Directory};
use super::output::{self, Exit};
use super::progress::Progress;
use super::schema;
use crate::gate::ADMIN_POLICIES;
use crate::policy::{Snapshot, parallel};

const EXAMPLE: &str = "\
Examples:
  tollgate compile policies
  tollgate compile policies --out cedar/

Each policy carries its rule's id, file and line as annotations. As a .cedar file beside the same people and models the
output decides the same. --out writes what another Cedar engine needs: the policies, with the refusals that Tollgate
makes before it asks a rule (disabled, expired, switched off), the schema and the entities. One difference is left: a
forbid that raises an error forbids in Tollgate, and is skipped by Cedar.";

/// The heading that is printed above the built-in policies.
const SHIPPED: &str = "// The built-in policies of Tollgate (tollgate schema --admin).";
/// Above this many rules the output is printed as it is: formatting takes some twenty times as long as loading.
const FORMATTED: usize = 20_000;
/// A longer policy is left as it is: the formatter's time grows with the square of a policy's length.
const MOST_BYTES: usize = 32 * 1024;

/// Print the Cedar that the rules become
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct CompileArguments {
    #[command(flatten)]
    bundle: Directory,
    /// Write policies.cedar, schema.cedarschema and entities.json into this directory instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leave out the policies that ship, as a server with `identity.admin_policies: off` does
    #[arg(long)]
    no_admin_policies: bool,
}

pub(super) fn run(arguments: &CompileArguments) -> ExitCode {
    let directory = &arguments.bundle.path();
    let snapshot = match load::load(directory, false) {
        Ok(loaded) => loaded.snapshot,
        Err(problems) => return output::fail_with(&problems),
    };
    let mut policies = formatted(&snapshot);
    if !arguments.no_admin_policies {
        policies.push(format!("{SHIPPED}\n\n{}", ADMIN_POLICIES.trim_end()));
    }
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
    let refusals = parallel::on_large_stack(|| format_one(&refusals)).unwrap_or(refusals);
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
    let numbers: Vec<usize> = snapshot.printed().collect();
    let count = numbers.len();
    let plain = |number: usize| snapshot.policy_text(number).unwrap_or_default();
    if count > FORMATTED {
        output::note(format_args!("{count} policies are too many to format; they are printed as they are"));
        return numbers.iter().copied().map(plain).collect();
    }
    let _progress = Progress::of(format!("formatting {count} policies"));
    let work = || parallel::each(&numbers, |number| format_one(&plain(*number)));
    // Where no thread is to be had the policies stay as they are; they mean the same.
    parallel::on_large_stack(work).unwrap_or_else(|| numbers.iter().copied().map(plain).collect())
}

/// A policy, formatted; as it is where the formatter would take too long, or does not vouch for what it made.
fn format_one(text: &str) -> String {
    if text.len() > MOST_BYTES {
        return text.to_owned();
    }
    let config = Config { line_width: 100, indent_width: 2 };
    policies_str_to_pretty(text, &config).unwrap_or_else(|_| text.to_owned())
}
