//! A client for one request at a time, on hyper's own: connect, ask, read what little there is to read. Nothing is kept
//! open, and no redirect is followed, so that what is sent goes where the address says and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::Address;

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The machine names nobody that is trusted.
    #[error(
        "no certificate authority of this machine can be read; install its package (ca-certificates), or name a file \
         with SSL_CERT_FILE"
    )]
    NoAuthorities,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// It cannot be reached.
    #[error("it cannot be reached: {0}")]
    Connect(std::io::Error),
    /// What it answers is no HTTP, or ends early.
    #[error("its answer cannot be read: {0}")]
    Http(String),
    /// It took too long.
    #[error("it did not answer within {0} ms")]
    Late(u128),
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// GET, POST, PATCH or DELETE.
    pub method: Method,
    /// Besides `Host`, `User-Agent` and `Connection`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for none.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Sends to one address, each time anew.
#[derive(Clone)]
pub struct Client {
    address: Address,
    tls: Option<TlsConnector>,
    timeout: Duration,
    /// Longest body that is read.
    most_bytes: usize,
}

impl Client {
    /// For `address`. Each request has `timeout` from its first step to the last byte of the answer, which has
    /// `most_bytes` at most.
    ///
    /// # Errors
    /// Where TLS is needed and cannot be had.
    pub fn new(address: Address, timeout: Duration, most_bytes: usize) -> Result<Self, ClientError> {
        let tls = if address.is_tls() { Some(connector()?) } else { None };
        Ok(Self::with(address, tls, timeout, most_bytes))
    }

    pub(super) fn with(address: Address, tls: Option<TlsConnector>, timeout: Duration, most_bytes: usize) -> Self {
        Self { address, tls, timeout, most_bytes }
    }

    /// Sends, and waits for the answer.
    ///
    /// # Errors
    /// Where there is none in time.
    pub async fn send(&self, what: Outgoing) -> Result<Reply, ClientError> {
        let late = |_| ClientError::Late(self.timeout.as_millis());
        tokio::time::timeout(self.timeout, self.exchange(what)).await.map_err(late)?
    }

    async fn exchange(&self, what: Outgoing) -> Result<Reply, ClientError> {
        let stream = self.connect().await.map_err(ClientError::Connect)?;
        match &self.tls {
            None => self.ask(stream, what).await,
            Some(tls) => {
                let name = ServerName::try_from(self.address.host().to_owned());
                let name = name.map_err(|error| ClientError::Tls(error.to_string()))?;
                let stream = tls.connect(name, stream).await.map_err(ClientError::Connect)?;
                self.ask(stream, what).await
            }
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let found = tokio::net::lookup_host((self.address.host(), self.address.port())).await?;
        let mut last = None;
        // What is not encrypted stays here, whatever a name resolves to.
        for address in found.filter(|address| self.tls.is_some() || address.ip().is_loopback()) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| std::io::Error::other("its name has no address that may be used")))
    }

    async fn ask<S>(&self, stream: S, what: Outgoing) -> Result<Reply, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let unread = |error: hyper::Error| ClientError::Http(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unread)?;
        let _driving = Driving(tokio::spawn(connection));
        let request = self.request(what).map_err(|error| ClientError::Http(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(unread)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), self.most_bytes).collect().await;
        let body = body.map_err(|error| ClientError::Http(error.to_string()))?.to_bytes();
        Ok(Reply { status, headers, body })
    }

    fn request(&self, what: Outgoing) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(what.method)
            .uri(self.address.path())
            .header(HOST, self.address.authority())
            .header(USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        for (name, value) in what.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(what.body))
    }
}

/// Ends a connection with whoever waits for its answer, however that ends.
struct Driving(JoinHandle<hyper::Result<()>>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

pub(super) fn connector() -> Result<TlsConnector, ClientError> {
    let mut roots = RootCertStore::empty();
    // What of them cannot be read is passed over; that none is left is told.
    let (read, _passed_over) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if read == 0 {
        return Err(ClientError::NoAuthorities);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Tls(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into())
}
