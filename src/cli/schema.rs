//! `schema`: what policies are checked against, and what editors complete the YAML with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use cedar_policy::SchemaFragment;
use clap::Args;
use serde_json::Value;

use super::load::{self, Directory};
use super::output::{self, Exit};
use crate::gate::ADMIN_POLICIES;
use crate::policy::schema::{BundleSchema, TOLLGATE_SCHEMA};
use crate::policy::{FileKind, LimitNames, Problem, SourceFile};

/// The JSON Schema of a bundle's YAML files.
pub(super) const YAML_SCHEMA: &str = include_str!("../../schema/rules.schema.json");

const DEFAULT_DIRECTORY: &str = "policies";

const EXAMPLE: &str = "\
Examples:
  tollgate schema policies > policies.cedarschema
  tollgate schema --yaml > .rules.schema.json
  tollgate schema --admin

Editors complete a YAML file that begins with
  # yaml-language-server: $schema=.rules.schema.json";

/// Print the Cedar schema of a bundle, or the JSON Schema of what people write
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct SchemaArguments {
    #[command(flatten)]
    bundle: Directory,
    /// The JSON Schema of the YAML files
    #[arg(long, conflicts_with = "config")]
    yaml: bool,
    /// The JSON Schema of the configuration file
    #[arg(long)]
    config: bool,
    /// The Cedar policies that say who may manage keys and members and see usage where the bundle says nothing of it
    #[arg(long, conflicts_with_all = ["yaml", "config"])]
    admin: bool,
}

pub(super) fn run(arguments: &SchemaArguments) -> ExitCode {
    if arguments.yaml {
        return output::data(YAML_SCHEMA, Exit::Fine, Exit::Error);
    }
    if arguments.config {
        return output::data(&crate::config::schema_json(), Exit::Fine, Exit::Error);
    }
    if arguments.admin {
        return output::data(ADMIN_POLICIES, Exit::Fine, Exit::Error);
    }
    let text = match arguments.bundle.named() {
        Some(directory) => of(&directory),
        None if Path::new(DEFAULT_DIRECTORY).is_dir() => of(Path::new(DEFAULT_DIRECTORY)),
        None => Ok(TOLLGATE_SCHEMA.to_owned()),
    };
    match text {
        Ok(text) => output::data(&text, Exit::Fine, Exit::Error),
        Err(problems) => output::fail_with(&problems),
    }
}

/// The Cedar schema of the bundle in `directory`: Tollgate's own and what the bundle's fragments add.
///
/// # Errors
/// What is wrong with the directory or the fragments. The rest of the bundle may be as it will.
pub(super) fn of(directory: &Path) -> Result<String, Vec<Problem>> {
    let reading = load::reading(directory)?;
    let fragments: Vec<&SourceFile> =
        reading.bundle.files().iter().filter(|file| file.kind == FileKind::Schema).collect();
    let limits = LimitNames::of_bundle(&reading.bundle);
    let own = limits.schema();
    BundleSchema::load(&fragments, limits)?;
    let mut text = own.clone();
    for file in &fragments {
        let fragment = String::from_utf8_lossy(&file.bytes);
        let fragment = fragment.strip_prefix('\u{FEFF}').unwrap_or(&fragment);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n// ---- {} ----\n\n{}", output::shown(&file.path), fragment.trim_end());
    }
    // Two fragments may both have a part of one namespace; one text may not.
    if SchemaFragment::from_cedarschema_str(&text).is_ok() {
        Ok(text)
    } else {
        Ok(merged(&own, &fragments).unwrap_or(text))
    }
}

/// All fragments as one, namespace by namespace; without their comments.
fn merged(own: &str, fragments: &[&SourceFile]) -> Option<String> {
    let texts = fragments.iter().map(|file| String::from_utf8_lossy(&file.bytes));
    let mut namespaces: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for text in std::iter::once(own.into()).chain(texts) {
        let (fragment, _) = SchemaFragment::from_cedarschema_str(text.trim_start_matches('\u{FEFF}')).ok()?;
        let Value::Object(parts) = fragment.to_json_value().ok()? else { return None };
        for (namespace, sections) in parts {
            let Value::Object(sections) = sections else { return None };
            let known = namespaces.entry(namespace).or_default();
            for (section, members) in sections {
                let Value::Object(members) = members else { return None };
                let all = known.entry(section).or_insert_with(|| Value::Object(serde_json::Map::new()));
                all.as_object_mut()?.extend(members);
            }
        }
    }
    let whole = serde_json::to_value(namespaces).ok()?;
    SchemaFragment::from_json_value(whole).ok()?.to_cedarschema().ok()
}
