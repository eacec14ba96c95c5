//! Asks whatever address it is given, for providers of identities: each request over a connection of its own.

use std::sync::{Arc, OnceLock};

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use smol_str::SmolStr;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::client::{self, Client, ClientError, Outgoing};
use crate::gate::{Ask, Fetch, FetchError, Later, Reply};

/// Asks others, trusting whom the machine trusts.
#[derive(Default)]
pub struct Fetcher {
    /// Made when it is first needed: reading the machine's authorities takes a while.
    tls: Arc<OnceLock<TlsConnector>>,
}

impl Fetch for Fetcher {
    fn fetch(&self, ask: Ask) -> Later<Result<Reply, FetchError>> {
        let tls = Arc::clone(&self.tls);
        Later::pending(async move {
            let address = Address::parse(&ask.url).map_err(|error| FetchError::Address(error.to_string().into()))?;
            let tls = if address.is_tls() { Some(trusting(&tls).map_err(away)?) } else { None };
            let client = Client::with(address, tls, ask.timeout, ask.most_bytes);
            let reply = client.send(outgoing(ask)?).await.map_err(away)?;
            let text = |(name, value): (&HeaderName, &HeaderValue)| {
                Some((SmolStr::new(name.as_str()), SmolStr::new(value.to_str().ok()?)))
            };
            let headers = reply.headers.iter().filter_map(text).collect();
            Ok(Reply { status: reply.status.as_u16(), headers, body: reply.body.to_vec() })
        })
    }
}

fn trusting(known: &OnceLock<TlsConnector>) -> Result<TlsConnector, ClientError> {
    match known.get() {
        Some(known) => Ok(known.clone()),
        None => {
            let made = client::connector()?;
            Ok(known.get_or_init(|| made).clone())
        }
    }
}

fn outgoing(ask: Ask) -> Result<Outgoing, FetchError> {
    let unfit = |name: &str| FetchError::Address(format!("`{name}` is no header that can be sent").into());
    let mut headers = Vec::with_capacity(ask.headers.len() + 1);
    for (name, value) in &ask.headers {
        let mut secret = HeaderValue::from_str(value.expose()).map_err(|_| unfit(name))?;
        secret.set_sensitive(true);
        headers.push((HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit(name))?, secret));
    }
    let Some((kind, body)) = ask.body else { return Ok(Outgoing { method: Method::GET, headers, body: Bytes::new() }) };
    headers.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
    Ok(Outgoing { method: Method::POST, headers, body: Bytes::copy_from_slice(body.expose().as_bytes()) })
}

fn away(error: ClientError) -> FetchError {
    FetchError::Away(error.to_string().into())
}
