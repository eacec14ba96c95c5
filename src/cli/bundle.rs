//! `bundle`: the manifest that says which files a bundle has, and who says so.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::load::{self, Directory};
use super::output::{self, Exit, number};
use crate::edge::files::walk::{MANIFEST, SIGNATURE};
use crate::edge::files::{ManifestPolicy, PublicKey, SigningKey, manifest};
use crate::policy::report;

/// Write, sign and verify the manifest of a bundle
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tollgate bundle keygen signing.key\n  tollgate bundle manifest policies --sign signing.key"
)]
pub(super) struct BundleArguments {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Write manifest.json, which names every file with its size and digest; run it last, when the files are written
    #[command(
        after_help = "Examples:\n  tollgate bundle manifest policies\n  tollgate bundle manifest policies --sequence 42 --sign signing.key"
    )]
    Manifest {
        #[command(flatten)]
        bundle: Directory,
        /// A number that only grows; by default one more than that of the manifest before
        #[arg(long, value_name = "N")]
        sequence: Option<u64>,
        /// Sign the manifest with the private key in this file
        #[arg(long, value_name = "KEYFILE")]
        sign: Option<PathBuf>,
    },
    /// Make a key to sign with: the private key goes into a file, the public key to stdout
    #[command(after_help = "Example:\n  tollgate bundle keygen signing.key > signing.pub")]
    Keygen {
        /// Where the private key goes; the file must not be there yet
        #[arg(value_name = "KEYFILE", default_value = "tollgate-signing.key")]
        file: PathBuf,
    },
    /// Check that a bundle is the one that its manifest names
    #[command(
        after_help = "Examples:\n  tollgate bundle verify policies\n  tollgate bundle verify policies --key \"$(cat signing.pub)\"\n\nExit codes: 0 it is, 1 it is not, 2 usage, or files that cannot be read."
    )]
    Verify {
        #[command(flatten)]
        bundle: Directory,
        /// A public key, as keygen prints it, that may have signed the manifest; may be given several times
        #[arg(long = "key", value_name = "PUBLIC KEY", value_parser = PublicKey::parse)]
        keys: Vec<PublicKey>,
        /// The lowest sequence that is taken
        #[arg(long, value_name = "N", default_value_t = 0)]
        minimum_sequence: u64,
    },
}

pub(super) fn run(arguments: &BundleArguments) -> ExitCode {
    let done = match &arguments.command {
        BundleCommand::Manifest { bundle, sequence, sign } => write(&bundle.path(), *sequence, sign.as_deref()),
        BundleCommand::Keygen { file } => keygen(file),
        BundleCommand::Verify { bundle, keys, minimum_sequence } => {
            return verify(&bundle.path(), keys, *minimum_sequence);
        }
    };
    done.unwrap_or_else(|message| output::fail(message, Exit::Error))
}

fn write(directory: &Path, sequence: Option<u64>, sign: Option<&Path>) -> Result<ExitCode, String> {
    let reading = match load::reading(directory) {
        Ok(reading) => reading,
        Err(problems) => return Ok(output::fail_with(&problems)),
    };
    let key = sign.map(signing_key).transpose()?;
    let before = reading.manifest.as_ref();
    if key.is_none() && before.is_some_and(|before| before.signature.is_some()) {
        return Err(format!("the manifest is signed; sign the new one with --sign, or remove {SIGNATURE} first"));
    }
    let sequence = match (sequence, before) {
        (Some(sequence), _) => sequence,
        (None, None) => 1,
        (None, Some(before)) => {
            manifest::sequence(before).and_then(|before| before.checked_add(1)).ok_or_else(|| {
                format!("{MANIFEST} has no sequence to go on from; say which one this is with --sequence")
            })?
        }
    };
    let text = manifest::create(&reading.bundle, sequence);
    let signature =
        key.map(|key| manifest::sign(text.as_bytes(), &key)).transpose().map_err(|error| error.to_string())?;
    if let Some(signature) = &signature {
        replace(directory, SIGNATURE, signature)?;
    }
    replace(directory, MANIFEST, &text)?;
    let signed = if signature.is_some() { ", signed" } else { "" };
    let skipped = reading.bundle.skipped_problems();
    if !skipped.is_empty() {
        // They are not in the manifest either.
        output::note(report::text(&skipped, output::coloured(&io::stderr())).trim_end());
    }
    let count = number(reading.bundle.files().len(), "file");
    output::note(output::shown(&format!(
        "{}: {count}, sequence {sequence}{signed}",
        directory.join(MANIFEST).display()
    )));
    Ok(Exit::Fine.into())
}

/// Puts a file in its place at once, so that no reader finds half of it.
fn replace(directory: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = directory.join(name);
    // Hidden, so that it is no part of the bundle meanwhile.
    let new = directory.join(format!(".{name}.new"));
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn signing_key(path: &Path) -> Result<SigningKey, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    SigningKey::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn keygen(path: &Path) -> Result<ExitCode, String> {
    let failed = |error: io::Error| format!("{} cannot be written: {error}", path.display());
    let private = manifest::generate_key().map_err(|error| error.to_string())?;
    let public = SigningKey::parse(&private).and_then(|key| key.public_key()).map_err(|error| error.to_string())?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(failed)?;
    writeln!(file, "{private}").and_then(|()| file.sync_all()).map_err(failed)?;
    output::note(output::shown(&format!(
        "the private key is in {}; keep it from the bundle and from git. The public key:",
        path.display()
    )));
    Ok(output::data(&format!("{public}\n"), Exit::Fine, Exit::Error))
}

fn verify(directory: &Path, keys: &[PublicKey], minimum_sequence: u64) -> ExitCode {
    let policy = ManifestPolicy { required: true, public_keys: keys.to_vec(), minimum_sequence };
    let reading = load::reading(directory);
    let (problems, said) = match &reading {
        Ok(reading) => {
            let sequence = reading.manifest.as_ref().and_then(manifest::sequence).unwrap_or_default();
            let problems = manifest::verify(&reading.bundle, reading.manifest.as_ref(), &policy);
            let signed = if keys.is_empty() { "its signature was not looked at" } else { "signed by a key that may" };
            let count = number(reading.bundle.files().len(), "file");
            (problems, format!("{count} as the manifest says, sequence {sequence}; {signed}"))
        }
        Err(problems) => (problems.clone(), String::new()),
    };
    let colour = output::coloured(&io::stdout());
    if problems.is_empty() {
        output::note(output::shown(&format!("{}: {said}", directory.display())));
        return Exit::Fine.into();
    }
    let exit = if load::unreadable(&problems) { Exit::Usage } else { Exit::Error };
    output::data(&report::text(&problems, colour), exit, Exit::Usage)
}
