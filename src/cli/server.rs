//! A running server that is told what to do, with a credential.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::output::{self, Exit, Format};
use crate::edge::outgoing::{Address, Client, Outgoing};
use crate::model::SecretText;

/// For the server to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Longest file that a credential is read from.
const MOST_TOKEN_BYTES: u64 = 16 * 1024;

/// No body.
pub(super) const NOTHING: Option<&Value> = None;

/// Which server, and who asks.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// The server
    #[arg(long, value_name = "URL", env = "TOLLGATE_SERVER", default_value = "http://127.0.0.1:8181", hide_env_values = true, value_parser = server)]
    server: Address,
    /// The file of the credential; else TOLLGATE_TOKEN has it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn server(text: &str) -> Result<Address, String> {
    let address = Address::parse(text).map_err(|error| error.to_string())?;
    if address.is_bare() {
        Ok(address)
    } else {
        Err("expected an address alone, such as http://127.0.0.1:8181".to_owned())
    }
}

/// Why there is nothing to tell.
pub(super) enum Failure {
    NoServer(String),
    Refused(String),
}

/// What the server told, and how that is to be written.
pub(super) type Asked = Result<(Value, Format), Failure>;

impl ServerArguments {
    /// What the server answers.
    pub(super) fn ask(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Asked {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::NoServer(error.to_string()))?;
        Ok((runtime.block_on(self.exchange(method, path, body))?, self.format))
    }

    fn token(&self) -> Result<SecretText, Failure> {
        let usage = |message: String| Failure::NoServer(message);
        if let Some(path) = &self.token_file {
            let unread = |error| usage(format!("{}: {error}", path.display()));
            if std::fs::metadata(path).map_err(unread)?.len() > MOST_TOKEN_BYTES {
                return Err(usage(format!("{}: it is too long for a credential", path.display())));
            }
            return Ok(SecretText::new(std::fs::read_to_string(path).map_err(unread)?.trim()));
        }
        let token = crate::config::token().filter(|token| !token.expose().is_empty());
        token
            .ok_or_else(|| usage("this is done with a credential: set TOLLGATE_TOKEN, or name --token-file".to_owned()))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Value, Failure> {
        let server = &self.server;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token()?.expose()))
            .map_err(|_| Failure::NoServer("the credential is none that a header can hold".to_owned()))?;
        bearer.set_sensitive(true);
        let mut headers = vec![(AUTHORIZATION, bearer)];
        if body.is_some() {
            headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        let no_server = |error| Failure::NoServer(format!("no answer from {server}: {error}"));
        let client = Client::new(server.at(path), TIMEOUT, MOST_BYTES).map_err(no_server)?;
        let text = body.map(serde_json::to_vec).transpose();
        let body = Bytes::from(text.map_err(|error| Failure::NoServer(error.to_string()))?.unwrap_or_default());
        let reply = client.send(Outgoing { method, headers, body }).await.map_err(no_server)?;
        let told: Option<Value> = serde_json::from_slice(&reply.body).ok();
        match (reply.status, told) {
            (StatusCode::OK | StatusCode::CREATED, Some(told @ Value::Object(_))) => Ok(told),
            (StatusCode::OK | StatusCode::CREATED, _) => {
                Err(Failure::NoServer(format!("what answers at {server} is not Tollgate")))
            }
            (status, told) => {
                let part = |name| told.as_ref().and_then(|told| told.pointer(name)?.as_str());
                let message = part("/error/message").map(str::to_owned);
                let message = message.unwrap_or_else(|| format!("{server} answered with {}", status.as_u16()));
                let param = part("/error/param").map(|param| format!("{param}: ")).unwrap_or_default();
                Err(Failure::Refused(format!("{param}{message}")))
            }
        }
    }
}

/// Prints what the server told; `text` is for people.
pub(super) fn told(asked: Asked, text: impl Fn(&Value) -> String) -> ExitCode {
    match asked {
        Ok((told, Format::Json)) => output::data(&format!("{told:#}\n"), Exit::Fine, Exit::Usage),
        Ok((told, Format::Text)) => output::data(&text(&told), Exit::Fine, Exit::Usage),
        Err(Failure::NoServer(message)) => output::fail(message, Exit::Usage),
        Err(Failure::Refused(message)) => output::fail(message, Exit::Error),
    }
}
