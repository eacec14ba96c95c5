//! The command line: one file a command.

pub mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The open, gateway-neutral policy decision point for LLM gateways.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArguments),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    match CommandLine::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
    }
}
