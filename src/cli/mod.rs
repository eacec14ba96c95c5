//! The command line: one file a command. Data goes to stdout, messages to stderr; a reader who closes the pipe early is
//! no error.
//!
//! Exit codes: 0 fine, or permit; 1 a bundle or request that is wrong; 2 a command line that is wrong (for `check`, files
//! that cannot be read as well; for `limits`, `keys` and `password`, no server); 3 forbid.

#![allow(
    clippy::disallowed_methods,
    reason = "commands are where files are written, and where the terminal's environment is asked"
)]

mod answer;
mod asking;
mod assume;
mod bundle;
mod check;
mod compile;
mod completions;
mod decide;
mod explain;
mod init;
mod keys;
mod limits;
mod limits_of;
mod load;
mod log;
mod login;
mod output;
mod panics;
mod password;
mod progress;
mod question;
mod schema;
mod serve;
mod server;
mod session;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Exit;
pub use panics::tell_only_where;

const EXAMPLE: &str = "\
Examples:
  tollgate serve                serve policies/ on 127.0.0.1:8181
  tollgate init                 write a bundle to begin with, in policies/
  tollgate check                tell everything that is wrong with policies/
  tollgate decide --principal 'User::\"alice\"' --action chat \\
    --resource 'Model::\"openai-main/gpt-4o\"'

Directories default to policies/, or to what TOLLGATE_POLICIES says.";

/// Decides who may use which model through an LLM gateway.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, after_help = EXAMPLE, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArguments),
    Check(check::CheckArguments),
    Decide(decide::DecideArguments),
    Explain(explain::ExplainArguments),
    Limits(limits::LimitsArguments),
    Keys(keys::KeysArguments),
    Log(log::LogArguments),
    Compile(compile::CompileArguments),
    Schema(schema::SchemaArguments),
    Init(init::InitArguments),
    Bundle(bundle::BundleArguments),
    Login(login::LoginArguments),
    Token(login::TokenArguments),
    Logout(login::LogoutArguments),
    Password(password::PasswordArguments),
    Completions(completions::CompletionsArguments),
    /// Print the version
    #[command(after_help = "Example:\n  tollgate version")]
    Version,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    tell_only_where();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help goes to stdout, mistakes to stderr; whoever has closed either does not want to be told.
            let _unread = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() };
        }
    };
    // A server writes them to its log.
    if !matches!(command, Command::Version | Command::Completions(_) | Command::Serve(_)) {
        for warning in crate::config::misspelt_variables() {
            output::note(format_args!("warning: {warning}"));
        }
    }
    match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Decide(arguments) => decide::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Limits(arguments) => limits::run(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Compile(arguments) => compile::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Bundle(arguments) => bundle::run(&arguments),
        Command::Login(arguments) => login::login(&arguments),
        Command::Token(arguments) => login::token(&arguments),
        Command::Logout(arguments) => login::logout(&arguments),
        Command::Password(arguments) => password::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Version => {
            output::data(concat!("tollgate ", env!("CARGO_PKG_VERSION"), "\n"), Exit::Fine, Exit::Error)
        }
    }
}
