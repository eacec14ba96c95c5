//! `tollgate password`: what is kept of a password, to be put in a bundle or an htpasswd file, and passwords that are set on
//! a running server.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::asking::encoded;
use super::output::{self, Exit, shown};
use super::server::{self, NOTHING, ServerArguments};
use crate::edge::identity::hash;
use crate::model::KeyText;
use crate::model::SecretText;

/// Longest password.
const MAX_BYTES: u64 = 1024;

const EXAMPLE: &str = "\
Examples:
  tollgate password hash                for a bundle in git
  export TOLLGATE_TOKEN=tg_…            the administrator's key, or one of your own
  tollgate password set alice
  tollgate password remove alice

Exit codes: 0 done, 1 the server refuses, 2 usage, or no server answers.";

/// Make what is kept of a password, or set one on a running server
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
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
    /// Set the password of a user
    ///
    /// The password is asked for without being shown; where stdin is no terminal, its first line is the password.
    Set(SetArguments),
    /// Take the password of a user away
    Remove(UserArguments),
}

#[derive(Debug, Args)]
struct UserArguments {
    /// The user's id in the bundle
    #[arg(value_name = "USER")]
    user: String,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct SetArguments {
    /// Also ask for the current password (the first line of stdin if stdin is not a terminal). It is required to set
    /// your own password when you are signed in with a token
    #[arg(long)]
    current: bool,
    #[command(flatten)]
    user: UserArguments,
}

impl UserArguments {
    fn path(&self) -> String {
        format!("/v1/users/{}/password", encoded(&self.user))
    }
}

/// Does what is asked with a password.
#[must_use]
pub(super) fn run(arguments: &PasswordArguments) -> ExitCode {
    match &arguments.command {
        PasswordCommand::Hash => hashed(),
        PasswordCommand::Set(arguments) => set(arguments),
        PasswordCommand::Remove(user) => server::told(user.server.ask(Method::DELETE, &user.path(), NOTHING), text),
    }
}

/// Prints the hash of a password.
fn hashed() -> ExitCode {
    let password = match passwords(false) {
        Ok((_, password)) => password,
        Err(message) => return output::fail(message, Exit::Usage),
    };
    match hash(&password) {
        Some(hash) => output::data(&format!("{}\n", hash.expose()), Exit::Fine, Exit::Error),
        None => output::fail("the system has no random numbers", Exit::Error),
    }
}

/// Has the server hash it, which knows what it takes.
fn set(SetArguments { current, user }: &SetArguments) -> ExitCode {
    if user.server.reads_stdin() {
        return output::fail(
            "stdin is where the password comes from; put the credential in a file, or in TOLLGATE_TOKEN",
            Exit::Usage,
        );
    }
    let (current, password) = match passwords(*current) {
        Ok(passwords) => passwords,
        Err(message) => return output::fail(message, Exit::Usage),
    };
    if KeyText::is_meant(password.expose()) {
        return output::fail(
            "this is a key, and no password: a key that asks is in TOLLGATE_TOKEN or --token-file",
            Exit::Usage,
        );
    }
    let body = match &current {
        Some(current) => json!({ "password": password.expose(), "current_password": current.expose() }),
        None => json!({ "password": password.expose() }),
    };
    server::told(user.server.ask(Method::PUT, &user.path(), Some(&body)), text)
}

/// For people.
fn text(told: &Value) -> String {
    let user = shown(told.get("user").and_then(Value::as_str).unwrap_or_default());
    match told.get("kept_in").and_then(Value::as_str) {
        Some("store") => format!("the password of {user} is set\n"),
        Some(place) => format!("the password of {user} that was set is gone; the one of the {} counts\n", shown(place)),
        None => format!("{user} has no password\n"),
    }
}

/// The current password, where it is wanted, and the new one.
fn passwords(with_current: bool) -> Result<(Option<SecretText>, SecretText), String> {
    let (current, new) = if std::io::stdin().is_terminal() { typed(with_current)? } else { piped(with_current)? };
    current.as_ref().map(check).transpose()?;
    check(&new)?;
    Ok((current, new))
}

fn check(password: &SecretText) -> Result<(), String> {
    let text = password.expose();
    match u64::try_from(text.len()) {
        Ok(0) => Err("the password is empty".to_owned()),
        Ok(length) if length <= MAX_BYTES && !text.contains('\0') => Ok(()),
        _ => Err(format!("a password has {MAX_BYTES} bytes at most, and no NUL among them")),
    }
}

fn typed(with_current: bool) -> Result<(Option<SecretText>, SecretText), String> {
    let ask = |prompt: &str| {
        let text =
            rpassword::prompt_password(prompt).map_err(|error| format!("the terminal cannot be read: {error}"))?;
        Ok::<_, String>(SecretText::new(text))
    };
    let current = with_current.then(|| ask("Current password: ")).transpose()?;
    let password = ask("Password: ")?;
    let again = ask("Once more: ")?;
    if password.is(&again) { Ok((current, password)) } else { Err("the two are not the same".to_owned()) }
}

/// Reads the first line, or the first two. A password with line breaks in it could not be typed at a prompt.
fn piped(with_current: bool) -> Result<(Option<SecretText>, SecretText), String> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(2 * MAX_BYTES + 6).read_to_string(&mut text);
    read.map_err(|error| format!("stdin cannot be read as UTF-8: {error}"))?;
    let line = |text: &str| SecretText::new(text.strip_suffix('\r').unwrap_or(text));
    let all = text.strip_suffix('\n').unwrap_or(&text);
    match (with_current, all.split_once('\n')) {
        (false, None) => Ok((None, line(all))),
        (true, Some((current, new))) if !new.contains('\n') => Ok((Some(line(current)), line(new))),
        (false, Some(_)) => Err("stdin holds more than one line".to_owned()),
        (true, _) => Err("stdin holds two lines: the current password, and the new one".to_owned()),
    }
}
