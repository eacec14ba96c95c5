//! `completions`: what a shell needs to complete commands and options.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::output::{self, Exit};

const EXAMPLE: &str = "\
Examples:
  tollgate completions bash > /etc/bash_completion.d/tollgate
  tollgate completions zsh > \"${fpath[1]}/_tollgate\"
  tollgate completions fish > ~/.config/fish/completions/tollgate.fish";

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments) -> ExitCode {
    let mut script = Vec::new();
    // Written to memory first: the generator panics where it cannot write.
    clap_complete::generate(arguments.shell, &mut Cli::command(), "tollgate", &mut script);
    output::data(&String::from_utf8_lossy(&script), Exit::Fine, Exit::Error)
}
