//! `tollgate password hash`: what is kept of a password, to be put in a bundle or an htpasswd file.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::{self, Exit};
use crate::edge::identity::hash;
use crate::model::SecretText;

/// Longest password.
const MAX_BYTES: u64 = 1024;

/// Make what is kept of a password
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tollgate password hash")]
pub(super) struct PasswordArguments {
    #[command(subcommand)]
    command: PasswordCommand,
}

#[derive(Debug, Subcommand)]
enum PasswordCommand {
    /// Print the argon2id hash of a password
    ///
    /// The password is asked for without being shown; where stdin is no terminal, its first line is the password. The hash
    /// is what `password_hash` of a user or service takes.
    #[command(after_help = "Examples:
  tollgate password hash
  tollgate password hash < password.txt")]
    Hash,
}

/// Prints the hash of a password.
#[must_use]
pub(super) fn run(arguments: &PasswordArguments) -> ExitCode {
    let PasswordCommand::Hash = arguments.command;
    let password = match password() {
        Ok(password) => password,
        Err(message) => return output::fail(message, Exit::Usage),
    };
    match hash(&password) {
        Some(hash) => output::data(&format!("{}\n", hash.expose()), Exit::Fine, Exit::Error),
        None => output::fail("the system has no random numbers", Exit::Error),
    }
}

fn password() -> Result<SecretText, String> {
    let password = if std::io::stdin().is_terminal() { typed()? } else { piped()? };
    let text = password.expose();
    match u64::try_from(text.len()) {
        Ok(0) => Err("the password is empty".to_owned()),
        Ok(length) if length <= MAX_BYTES && !text.contains('\0') => Ok(password),
        _ => Err(format!("a password has {MAX_BYTES} bytes at most, and no NUL among them")),
    }
}

fn typed() -> Result<SecretText, String> {
    let ask = |prompt: &str| {
        let text =
            rpassword::prompt_password(prompt).map_err(|error| format!("the terminal cannot be read: {error}"))?;
        Ok::<_, String>(SecretText::new(text))
    };
    let password = ask("Password: ")?;
    let again = ask("Once more: ")?;
    if password.is(&again) { Ok(password) } else { Err("the two are not the same".to_owned()) }
}

/// The first line; what follows it would be a password that nobody can type.
fn piped() -> Result<SecretText, String> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(MAX_BYTES + 3).read_to_string(&mut text);
    read.map_err(|error| format!("stdin cannot be read as UTF-8: {error}"))?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&text);
    if line.contains('\n') {
        return Err("stdin holds more than one line".to_owned());
    }
    Ok(SecretText::new(line))
}
