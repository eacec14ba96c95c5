//! `login`, `token`, `logout`: a session at a server, for a person's shell and the tools in it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::asking::read_own_credential;
use super::output::{self, Exit};
use super::session::{Session, SessionArguments, SessionError, SessionIssuer, Sessions};
use crate::client::{DeviceLogin, Exchange, Grant, Issuer, OAuthError};
use crate::edge::outgoing::{Address, Client, ClientOptions, Outgoing, Proxy};
use crate::model::SecretText;

/// For a server to say whether it takes a session.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer to that.
const MOST_PROBE_BYTES: usize = 64 * 1024;

const EXAMPLE: &str = "\
Examples:
  tollgate login --issuer https://login.acme.example --client-id tollgate
  tollgate login --api-key-file key.txt      exchange a key for tokens that renew themselves
  export OPENAI_API_KEY=$(tollgate token)

Exit codes: 0 signed in, 1 refused, 2 usage, or nobody answers.";

/// Sign in at a server, with the company's identity provider or a key
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct LoginArguments {
    #[command(flatten)]
    session: SessionArguments,
    /// The identity provider, exactly as it calls itself
    #[arg(
        long,
        value_name = "URL",
        env = "TOLLGATE_ISSUER",
        hide_env_values = true,
        required_unless_present = "api_key_file"
    )]
    issuer: Option<String>,
    /// What Tollgate is called there
    #[arg(long, value_name = "ID", env = "TOLLGATE_CLIENT_ID", hide_env_values = true, default_value = "tollgate")]
    client_id: String,
    /// What is asked for, with spaces between
    #[arg(long, default_value = "openid profile email offline_access")]
    scope: String,
    /// Show the server the ID token instead of the access token
    #[arg(long)]
    id_token: bool,
    /// Exchange the key in this file for tokens of the server's own; - reads stdin
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// Print a fresh token, alone
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  curl -H \"Authorization: Bearer $(tollgate token)\" https://gateway.acme.example/v1/models

Exit codes: 0 told, 1 nobody is signed in or the session has ended, 2 usage, or nobody answers.")]
pub(super) struct TokenArguments {
    #[command(flatten)]
    session: SessionArguments,
}

/// Forget the session at a server
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tollgate logout --server https://tollgate.acme.example")]
pub(super) struct LogoutArguments {
    #[command(flatten)]
    session: SessionArguments,
}

pub(super) fn login(arguments: &LoginArguments) -> ExitCode {
    let signed_in = match &arguments.api_key_file {
        Some(path) => by_key(arguments, path),
        None => by_device(arguments),
    };
    let kept = signed_in.and_then(|session| {
        // The server accepts tokens that it issued itself, so only other tokens are checked.
        if arguments.api_key_file.is_none() {
            check_taken(&arguments.session.server, &session)?;
        }
        Sessions::open(&arguments.session)?.set(&arguments.session.server, Some(session))?;
        Ok(())
    });
    match kept {
        Ok(()) => {
            output::note(format_args!("signed in at {}", arguments.session.server));
            Exit::Fine.into()
        }
        Err(error) => failed(&error),
    }
}

pub(super) fn token(arguments: &TokenArguments) -> ExitCode {
    let told = Sessions::open(&arguments.session)
        .and_then(|mut sessions| waited(async { sessions.token(&arguments.session.server).await })?);
    match told {
        Ok(token) => output::data(&format!("{}\n", token.expose()), Exit::Fine, Exit::Usage),
        Err(error) => failed(&error),
    }
}

pub(super) fn logout(arguments: &LogoutArguments) -> ExitCode {
    let forgotten =
        Sessions::open(&arguments.session).and_then(|mut sessions| sessions.set(&arguments.session.server, None));
    match forgotten {
        Ok(true) => {
            output::note(format_args!("signed out at {}", arguments.session.server));
            Exit::Fine.into()
        }
        Ok(false) => {
            output::note(format_args!("nobody was signed in at {}", arguments.session.server));
            Exit::Fine.into()
        }
        Err(error) => failed(&error),
    }
}

fn by_device(arguments: &LoginArguments) -> Result<Session, SessionError> {
    let name = arguments.issuer.clone().unwrap_or_default();
    let proxy = crate::config::proxy()?;
    let tokens = waited(async {
        let issuer = Issuer::discover_through(&name, &proxy).await?;
        let login = DeviceLogin::begin(issuer, &arguments.client_id, &arguments.scope).await?;
        let place = output::shown(&login.verification_uri);
        output::note(format_args!("open {place} and type {}", output::shown(&login.user_code)));
        if let Some(whole) = &login.verification_uri_complete {
            output::note(format_args!("or open {}", output::shown(whole)));
        }
        login.wait().await
    })??;
    if arguments.id_token && tokens.identity.is_none() {
        let description = "no ID token came; ask for the scope `openid`".to_owned();
        return Err(OAuthError::Refused { by: name, code: "no_id_token".to_owned(), description }.into());
    }
    let client_id = arguments.client_id.clone();
    let issuer = SessionIssuer { name, client_id, sends_id_token: arguments.id_token };
    Ok(Session::new(Some(issuer), &tokens))
}

/// Asks the server whether it accepts the session. Only a definite refusal is an error: a server that cannot answer now
/// may accept the session later.
fn check_taken(server: &Address, session: &Session) -> Result<(), SessionError> {
    let Some(token) = session.shown() else { return Ok(()) };
    let proxy = crate::config::proxy()?;
    match waited(async { probe(server, &token, &proxy).await })? {
        Probed::Taken => Ok(()),
        Probed::NotTaken(message) => Err(SessionError::NotTaken { server: server.to_string(), message }),
        Probed::Unknown(why) => {
            output::note(format_args!("warning: cannot verify that {server} accepts this sign-in: {why}"));
            Ok(())
        }
    }
}

/// The server's answer to a token.
enum Probed {
    Taken,
    NotTaken(String),
    Unknown(String),
}

/// Sends the token to a server both as the caller's credential and as the `credential` of a question. If the server
/// requires authentication, the first one counts; if it is open, the second one does.
async fn probe(server: &Address, token: &SecretText, proxy: &Proxy) -> Probed {
    let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {}", token.expose())) else {
        return Probed::Unknown("the token contains characters that a header cannot hold".to_owned());
    };
    bearer.set_sensitive(true);
    let headers = vec![(AUTHORIZATION, bearer), (CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let body = Bytes::from(json!({ "api_key": token.expose() }).to_string());
    let asked =
        Client::new(server.at("/v1/auth/validate"), ClientOptions::new(PROBE_TIMEOUT, MOST_PROBE_BYTES).through(proxy));
    let reply = match asked {
        Ok(client) => client.send(Outgoing { method: Method::POST, headers, body }).await,
        Err(error) => Err(error),
    };
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return Probed::Unknown(format!("no answer ({error})")),
    };
    let told: Option<Value> = serde_json::from_slice(&reply.body).ok();
    let message = told.as_ref().and_then(|told| told.pointer("/error/message")?.as_str());
    match (reply.status, message) {
        (StatusCode::OK, _) if told.as_ref().is_some_and(|told| told.get("principal").is_some()) => Probed::Taken,
        // The caller may not ask about others, or the key is narrowed. Either way the server has accepted the token.
        (StatusCode::FORBIDDEN, Some(_)) => Probed::Taken,
        (StatusCode::UNAUTHORIZED, Some(message)) => Probed::NotTaken(output::shown(message)),
        (status, _) => Probed::Unknown(format!("it answers with {}", status.as_u16())),
    }
}

fn by_key(arguments: &LoginArguments, path: &Path) -> Result<Session, SessionError> {
    let key = read_own_credential(path).map_err(|message| SessionError::File { path: path.to_owned(), message })?;
    let server = arguments.session.server.to_string();
    let exchange = Exchange::through(&server, Grant::ApiKey(key), &crate::config::proxy()?)?;
    Ok(Session::new(None, &waited(async { exchange.first().await })??))
}

/// Waits for what asks elsewhere.
pub(super) fn waited<T>(work: impl Future<Output = T>) -> Result<T, SessionError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |error: std::io::Error| SessionError::File { path: PathBuf::new(), message: error.to_string() };
    Ok(runtime.map_err(failed)?.block_on(work))
}

/// Told on stderr.
fn failed(error: &SessionError) -> ExitCode {
    output::fail(error, error.exit())
}
