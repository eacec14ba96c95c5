//! Sends requests to any address, for providers of identities.

use std::sync::{Arc, OnceLock};

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use smol_str::SmolStr;

use super::address::Address;
use super::client::{self, Bounds, Client, ClientError, ClientTls, Outgoing};
use super::connect::{self, Connections};
use super::proxy::Proxy;
use crate::gate::{Ask, Fetch, FetchError, Later, Reply};

/// How many idle connections to each server are kept: key sets come one at a time, questions about tokens many.
const KEPT: usize = 8;

/// Sends requests, trusting the authorities of the machine.
#[derive(Default)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    proxy: Proxy,
    plain: OnceLock<Connections>,
    /// Made when it is first needed, since reading the authorities of the machine takes a while.
    tls: OnceLock<Connections>,
}

impl Fetcher {
    /// Sends requests through `proxy`.
    #[must_use]
    pub fn through(proxy: Proxy) -> Self {
        Self { inner: Arc::new(Inner { proxy, ..Inner::default() }) }
    }
}

impl Inner {
    fn connections(&self, is_tls: bool) -> Result<Connections, ClientError> {
        let known = if is_tls { &self.tls } else { &self.plain };
        if let Some(known) = known.get() {
            return Ok(known.clone());
        }
        let tls = if is_tls { client::trusting(&ClientTls::default())? } else { client::trusting_nobody()? };
        Ok(known.get_or_init(|| connect::connections(tls, self.proxy.clone(), KEPT)).clone())
    }
}

impl Fetch for Fetcher {
    fn fetch(&self, ask: Ask) -> Later<Result<Reply, FetchError>> {
        let inner = Arc::clone(&self.inner);
        Later::pending(async move {
            let address = Address::parse(&ask.url).map_err(|error| FetchError::Address(error.to_string().into()))?;
            let bounds = Bounds { timeout: ask.timeout, most_bytes: ask.most_bytes, keeps: true };
            let client = Client::over(inner.connections(address.is_tls()).map_err(away)?, address, bounds);
            let reply = client.send(outgoing(ask)?).await.map_err(away)?;
            let text = |(name, value): (&HeaderName, &HeaderValue)| {
                Some((SmolStr::new(name.as_str()), SmolStr::new(value.to_str().ok()?)))
            };
            let headers = reply.headers.iter().filter_map(text).collect();
            Ok(Reply { status: reply.status.as_u16(), headers, body: reply.body.to_vec() })
        })
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

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn away(error: ClientError) -> FetchError {
    FetchError::Away(error.to_string().into())
}
