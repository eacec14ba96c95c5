//! A running server that is told what to do, with a credential.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::asking::{AskingArguments, Failure};
use super::output::{self, Exit, Format};
use crate::edge::outgoing::{Client, ClientOptions, Outgoing};

/// For the server to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// No body.
pub(super) const NOTHING: Option<&Value> = None;

/// Which server, who asks, and how the answer is written.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    #[command(flatten)]
    asking: AskingArguments,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What the server told, and how that is to be written.
pub(super) type Asked = Result<(Value, Format), Failure>;

impl ServerArguments {
    /// What the server answers.
    pub(super) fn ask(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Asked {
        self.waited(async { self.exchange(&self.bearer().await?, method, path, body).await })
    }

    /// Whether the credential is read from stdin.
    pub(super) fn reads_stdin(&self) -> bool {
        self.asking.reads_stdin()
    }

    /// What comes of several exchanges.
    pub(super) fn waited(&self, work: impl Future<Output = Result<Value, Failure>>) -> Asked {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::NoServer(error.to_string()))?;
        Ok((runtime.block_on(work)?, self.format))
    }

    /// What the server is shown. A command asks for it once: it may be read from stdin, or renewed.
    pub(super) async fn bearer(&self) -> Result<HeaderValue, Failure> {
        let token = self.asking.credential().await?.ok_or_else(|| {
            let ways = self.asking.ways_to_a_credential();
            Failure::NoServer(format!("this is done with a credential: {ways}"))
        })?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| Failure::NoServer("the credential is none that a header can hold".to_owned()))?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }

    /// One exchange.
    pub(super) async fn exchange(
        &self,
        bearer: &HeaderValue,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Value, Failure> {
        let server = self.asking.server();
        let mut headers = vec![(AUTHORIZATION, bearer.clone())];
        if body.is_some() {
            headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        let no_server = |error| Failure::NoServer(format!("no answer from {server}: {error}"));
        let proxy = crate::config::proxy().map_err(|error| Failure::NoServer(error.to_string()))?;
        let options = ClientOptions::new(TIMEOUT, MOST_BYTES).through(&proxy);
        let client = Client::new(server.at(path), options).map_err(no_server)?;
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
        Err(failure) => failure.told(),
    }
}
