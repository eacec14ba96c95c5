//! Sends requests and reads what little there is to read. No redirect is followed, so that what is sent goes where the
//! address says and nowhere else. Connections are kept only where that is asked for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::Uri;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::address::Address;
use super::connect::{self, Connections};
use super::proxy::Proxy;

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
    /// The proxy is the reason.
    #[error(transparent)]
    Proxy(#[from] ProxyFailure),
    /// What it answers is no HTTP, or ends early.
    #[error("its answer cannot be read: {0}")]
    Http(String),
    /// It took too long.
    #[error("it did not answer within {0} ms")]
    Late(u128),
}

/// Why a proxy did not connect. Each text ends in a code that stays the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFailure {
    /// No connection to the proxy can be made, or it ends early.
    #[error("the proxy {proxy} cannot be reached: {reason} (proxy_unreachable)")]
    Unreachable {
        /// Its URL, without credentials.
        proxy: String,
        /// The reason.
        reason: String,
    },
    /// It answered with status 407.
    #[error(
        "the proxy {proxy} accepts no request without credentials, or not these; they are part of its URL \
         (proxy_authentication_required)"
    )]
    Credentials {
        /// Its URL, without credentials.
        proxy: String,
    },
    /// It answered with another status than 200.
    #[error("the proxy {proxy} refused to connect (proxy_refused)")]
    Refused {
        /// Its URL, without credentials.
        proxy: String,
    },
}

impl ProxyFailure {
    /// Takes what hyper-util's tunnel returns, whose type has no name. Failures of the connection have a source there, and
    /// answers of the proxy have none.
    pub(super) fn of(proxy: &Uri, error: &(dyn std::error::Error + 'static)) -> Self {
        let proxy = proxy.to_string().trim_end_matches('/').to_owned();
        let text = error.to_string();
        if error.source().is_some() || text.contains("end of file") {
            return Self::Unreachable { proxy, reason: root(error).to_string() };
        }
        if text.contains("authorization required") { Self::Credentials { proxy } } else { Self::Refused { proxy } }
    }
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

/// Whom a client trusts, and who it is, where TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities, in PEM; those of the machine where nothing is said.
    pub authorities: Option<PathBuf>,
    /// Its own certificate and key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// How a client connects, and the bounds of each exchange.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// From the first step of a request to the last byte of its answer.
    pub timeout: Duration,
    /// The longest body that is read.
    pub most_bytes: usize,
    /// TLS, for `https://`.
    pub tls: ClientTls,
    /// The proxy of requests that are not for this machine.
    pub proxy: Proxy,
    /// How many idle connections are kept for the next requests; without any, each request has its own.
    pub kept: usize,
}

impl ClientOptions {
    /// Options with these bounds, the authorities of the machine, no proxy, and no connection that is kept.
    #[must_use]
    pub fn new(timeout: Duration, most_bytes: usize) -> Self {
        Self { timeout, most_bytes, tls: ClientTls::default(), proxy: Proxy::none(), kept: 0 }
    }

    /// The same with this proxy.
    #[must_use]
    pub fn through(self, proxy: &Proxy) -> Self {
        Self { proxy: proxy.clone(), ..self }
    }
}

/// Sends to one server.
#[derive(Clone)]
pub struct Client {
    address: Address,
    connections: Connections,
    bounds: Bounds,
}

/// The bounds of an exchange, and whether its connection is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) timeout: Duration,
    pub(super) most_bytes: usize,
    pub(super) keeps: bool,
}

impl Client {
    /// For `address`.
    ///
    /// # Errors
    /// Where TLS is needed and cannot be had.
    pub fn new(address: Address, options: ClientOptions) -> Result<Self, ClientError> {
        let bounds = Bounds { timeout: options.timeout, most_bytes: options.most_bytes, keeps: options.kept > 0 };
        let tls = if address.is_tls() { trusting(&options.tls)? } else { trusting_nobody()? };
        Ok(Self::over(connect::connections(tls, options.proxy, options.kept), address, bounds))
    }

    pub(super) fn over(connections: Connections, address: Address, bounds: Bounds) -> Self {
        Self { address, connections, bounds }
    }

    /// Where it sends to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends to its address, and waits for the answer.
    ///
    /// # Errors
    /// Where there is none in time.
    pub async fn send(&self, what: Outgoing) -> Result<Reply, ClientError> {
        self.send_to(self.address.path(), what).await
    }

    /// Sends to another path of the same server.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_to(&self, path: &str, what: Outgoing) -> Result<Reply, ClientError> {
        let late = |_| ClientError::Late(self.bounds.timeout.as_millis());
        tokio::time::timeout(self.bounds.timeout, self.exchange(path, what)).await.map_err(late)?
    }

    async fn exchange(&self, path: &str, what: Outgoing) -> Result<Reply, ClientError> {
        let request = self.request(path, what).map_err(|error| ClientError::Http(error.to_string()))?;
        let response = self.connections.request(request).await;
        self.read(response.map_err(|error| failed(&error))?).await
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Reply, ClientError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), self.bounds.most_bytes).collect().await;
        let body = body.map_err(|error| ClientError::Http(error.to_string()))?.to_bytes();
        Ok(Reply { status, headers, body })
    }

    fn request(&self, path: &str, what: Outgoing) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let scheme = if self.address.is_tls() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(self.address.authority()).path_and_query(path).build()?;
        let mut request = Request::builder()
            .method(what.method)
            .uri(uri)
            .header(HOST, self.address.authority())
            .header(USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")));
        if !self.bounds.keeps {
            request = request.header(CONNECTION, "close");
        }
        for (name, value) in what.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(what.body))
    }
}

fn failed(error: &legacy::Error) -> ClientError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(failure) = cause.downcast_ref::<ProxyFailure>() {
            return failure.clone().into();
        }
        next = cause.source();
    }
    let root = root(error);
    if !error.is_connect() {
        return ClientError::Http(root.to_string());
    }
    let kind = root.downcast_ref::<std::io::Error>().map_or(std::io::ErrorKind::Other, std::io::Error::kind);
    ClientError::Connect(std::io::Error::new(kind, root.to_string()))
}

/// The cause at the end of the chain, which is what a reader can act on.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

/// TLS to a server, and to a proxy before it, which is not shown the certificate of the client.
#[derive(Clone)]
pub(super) struct TlsConfigs {
    pub(super) server: ClientConfig,
    pub(super) proxy: ClientConfig,
}

/// TLS that trusts the authorities of the machine, or those that `tls` names.
pub(super) fn trusting(tls: &ClientTls) -> Result<TlsConfigs, ClientError> {
    let wrong =
        |path: &PathBuf, error: &dyn std::fmt::Display| ClientError::Tls(format!("{}: {error}", path.display()));
    let mut roots = RootCertStore::empty();
    let trusted = match &tls.authorities {
        None => rustls_native_certs::load_native_certs().certs,
        Some(path) => certificates(path).map_err(|error| wrong(path, &error))?,
    };
    // What of them cannot be read is passed over; that none is left is told.
    let (read, _passed_over) = roots.add_parsable_certificates(trusted);
    if read == 0 {
        return Err(ClientError::NoAuthorities);
    }
    let roots = Arc::new(roots);
    let config = verifying(Arc::clone(&roots))?;
    let server = match &tls.certificate {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate).map_err(|error| wrong(certificate, &error))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|_| wrong(key, &"no private key in PEM"))?;
            config.with_client_auth_cert(chain, private).map_err(|error| wrong(certificate, &error))?
        }
    };
    Ok(TlsConfigs { server, proxy: verifying(roots)?.with_no_client_auth() })
}

/// TLS for clients that do not use it: it accepts no certificate, and reads no file.
pub(super) fn trusting_nobody() -> Result<TlsConfigs, ClientError> {
    let config = verifying(Arc::new(RootCertStore::empty()))?.with_no_client_auth();
    Ok(TlsConfigs { server: config.clone(), proxy: config })
}

fn verifying(roots: Arc<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, ClientError> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| error.to_string())
}
