//! `init`: a small bundle to begin with, which decides at once.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::output::{self, Exit};

const FILES: [(&str, &str); 3] = [
    ("people.yaml", include_str!("init/people.yaml")),
    ("models.yaml", include_str!("init/models.yaml")),
    ("rules.yaml", include_str!("init/rules.yaml")),
];

const EXAMPLE: &str = "\
Examples:
  tollgate init
  tollgate init /etc/tollgate/policies

Nothing is ever overwritten: the directory must be empty, or not there yet.";

/// Write a small bundle to begin with
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct InitArguments {
    /// Where to; it must be empty or not there
    #[arg(value_name = "DIR", env = "TOLLGATE_POLICIES", default_value = "policies", hide_env_values = true)]
    directory: PathBuf,
}

pub(super) fn run(arguments: &InitArguments) -> ExitCode {
    let directory = &arguments.directory;
    if let Err(message) = write(directory) {
        return output::fail(message, Exit::Error);
    }
    let written = FILES.map(|(name, _)| directory.join(name).display().to_string() + "\n");
    let code = output::data(&output::shown(&written.concat()), Exit::Fine, Exit::Error);
    let shown = output::shown(&directory.display().to_string());
    output::note(format_args!(
        "Next:\n  tollgate check {shown}\n  tollgate decide --policies {shown} --principal 'User::\"bob\"' --action chat --resource 'Model::\"mini\"'"
    ));
    code
}

fn write(directory: &Path) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("{} cannot be written: {error}", path.display());
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(format!("{} is not empty; nothing was written", directory.display()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
        }
        Err(error) => return Err(failed(directory, error)),
    }
    for (name, text) in FILES {
        let path = directory.join(name);
        // Somebody else may have been quicker than the look above.
        let mut file = fs::File::create_new(&path).map_err(|error| failed(&path, error))?;
        file.write_all(text.as_bytes()).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}
