//! What nearly every command begins with: a directory becomes a bundle, and the bundle a snapshot.

use std::path::{Path, PathBuf};

use clap::Args;

use super::progress::Progress;
use crate::config;
use crate::edge::files::{ManifestPolicy, ReadLimits, Reading, manifest, read};
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::{Loaded, Loader, report};

/// The bundle of a command.
#[derive(Debug, Args)]
pub(super) struct Directory {
    /// The bundle's directory; otherwise TOLLGATE_POLICIES names it [default: policies]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The bundle's directory, as an option
    // The environment is asked below and not by clap, for which a variable would conflict with the argument that beats it.
    #[arg(long, value_name = "DIR", conflicts_with = "directory")]
    policies: Option<PathBuf>,
}

impl Directory {
    /// The directory that is named, by an argument or by the environment.
    pub(super) fn named(&self) -> Option<PathBuf> {
        self.directory.clone().or_else(|| self.policies.clone()).or_else(config::policies)
    }

    /// The directory.
    pub(super) fn path(&self) -> PathBuf {
        self.named().unwrap_or_else(|| PathBuf::from("policies"))
    }
}

/// Reads a bundle once: whoever runs a command has finished writing.
///
/// # Errors
/// Everything that is wrong with the directory and its files; what is in the files is not looked at.
pub(super) fn reading(directory: &Path) -> Result<Reading, Vec<Problem>> {
    let _progress = Progress::of("reading the bundle");
    read(directory, &ReadLimits::default())
}

/// Loads a bundle as the server would: a manifest that lies beside it must fit.
///
/// # Errors
/// Everything that is wrong with it, sorted.
pub(super) fn load(directory: &Path, strict: bool) -> Result<Loaded, Vec<Problem>> {
    load_with(directory, strict, true)
}

/// Like [`load`]. `admin_policies` decides whether the built-in policies apply, like `identity.admin_policies` on a
/// server.
///
/// # Errors
/// Returns the same errors as [`load`].
pub(super) fn load_with(directory: &Path, strict: bool, admin_policies: bool) -> Result<Loaded, Vec<Problem>> {
    let reading = reading(directory)?;
    let mut unfit = manifest::verify(&reading.bundle, reading.manifest.as_ref(), &ManifestPolicy::default());
    let _progress = Progress::of("compiling the bundle");
    match Loader::new(strict).admin_policies(admin_policies).load(&reading.bundle) {
        Ok(loaded) if unfit.is_empty() => Ok(loaded),
        Ok(Loaded { mut problems, .. }) | Err(mut problems) => {
            problems.append(&mut unfit);
            report::sorted(&mut problems);
            Err(problems)
        }
    }
}

/// Whether files could not be read, rather than said something wrong.
pub(super) fn unreadable(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.code == ProblemCode::FileUnreadable)
}
