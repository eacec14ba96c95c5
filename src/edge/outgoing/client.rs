//! A client on hyper's own: connect, ask, read what little there is to read. No redirect is followed, so that what is sent
//! goes where the address says and nowhere else. Connections are kept only where somebody asks for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
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

/// Whom a client trusts, and who it is, where TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities, in PEM; those of the machine where nothing is said.
    pub authorities: Option<PathBuf>,
    /// Its own certificate and key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Sends to one server.
#[derive(Clone)]
pub struct Client {
    address: Address,
    tls: Option<TlsConnector>,
    timeout: Duration,
    /// Longest body that is read.
    most_bytes: usize,
    /// Connections that wait for the next request.
    idle: Option<Arc<Idle>>,
}

/// Connections that are kept, as many as there may be.
struct Idle {
    most: usize,
    waiting: Mutex<Vec<Connection>>,
}

/// An open connection.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driving: Driving,
}

impl Client {
    /// For `address`. Each request has `timeout` from its first step to the last byte of the answer, which has
    /// `most_bytes` at most.
    ///
    /// # Errors
    /// Where TLS is needed and cannot be had.
    pub fn new(address: Address, timeout: Duration, most_bytes: usize) -> Result<Self, ClientError> {
        Self::with_tls(address, timeout, most_bytes, &ClientTls::default())
    }

    /// The same, trusting others or with a certificate of its own.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_tls(
        address: Address,
        timeout: Duration,
        most_bytes: usize,
        tls: &ClientTls,
    ) -> Result<Self, ClientError> {
        let tls = if address.is_tls() { Some(connector(tls)?) } else { None };
        Ok(Self::with(address, tls, timeout, most_bytes))
    }

    pub(super) fn with(address: Address, tls: Option<TlsConnector>, timeout: Duration, most_bytes: usize) -> Self {
        Self { address, tls, timeout, most_bytes, idle: None }
    }

    /// Keeps up to `most` connections for the next requests.
    #[must_use]
    pub fn keeping(self, most: usize) -> Self {
        Self { idle: Some(Arc::new(Idle { most, waiting: Mutex::default() })), ..self }
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
        let late = |_| ClientError::Late(self.timeout.as_millis());
        tokio::time::timeout(self.timeout, self.exchange(path, what)).await.map_err(late)?
    }

    async fn exchange(&self, path: &str, what: Outgoing) -> Result<Reply, ClientError> {
        let mut request = self.request(path, what).map_err(|error| ClientError::Http(error.to_string()))?;
        while let Some(mut kept) = self.kept() {
            match kept.sender.try_send_request(request).await {
                Ok(response) => return self.read(kept, response).await,
                // What was not sent is sent anew; what may have been is not.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(ClientError::Http(error.into_error().to_string())),
                },
            }
        }
        let mut connection = self.open().await?;
        let response = connection.sender.send_request(request).await;
        let response = response.map_err(|error| ClientError::Http(error.to_string()))?;
        self.read(connection, response).await
    }

    /// A connection that waits, and is still open.
    fn kept(&self) -> Option<Connection> {
        let mut waiting = self.idle.as_ref()?.waiting.lock();
        std::iter::from_fn(|| waiting.pop()).find(|connection| connection.sender.is_ready())
    }

    fn keep(&self, connection: Connection) {
        let Some(idle) = &self.idle else { return };
        let mut waiting = idle.waiting.lock();
        if waiting.len() < idle.most {
            waiting.push(connection);
        }
    }

    async fn open(&self) -> Result<Connection, ClientError> {
        let stream = self.connect().await.map_err(ClientError::Connect)?;
        match &self.tls {
            None => shake(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.address.host().to_owned());
                let name = name.map_err(|error| ClientError::Tls(error.to_string()))?;
                shake(tls.connect(name, stream).await.map_err(ClientError::Connect)?).await
            }
        }
    }

    async fn read(&self, connection: Connection, response: Response<Incoming>) -> Result<Reply, ClientError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), self.most_bytes).collect().await;
        let body = body.map_err(|error| ClientError::Http(error.to_string()))?.to_bytes();
        self.keep(connection);
        Ok(Reply { status, headers, body })
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

    fn request(&self, path: &str, what: Outgoing) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(what.method)
            .uri(path)
            .header(HOST, self.address.authority())
            .header(USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")));
        if self.idle.is_none() {
            request = request.header(CONNECTION, "close");
        }
        for (name, value) in what.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(what.body))
    }
}

async fn shake<S>(stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| ClientError::Http(error.to_string()))?;
    Ok(Connection { sender, _driving: Driving(tokio::spawn(connection)) })
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

pub(super) fn connector(tls: &ClientTls) -> Result<TlsConnector, ClientError> {
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
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    let config = match &tls.certificate {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate).map_err(|error| wrong(certificate, &error))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|_| wrong(key, &"no private key in PEM"))?;
            config.with_client_auth_cert(chain, private).map_err(|error| wrong(certificate, &error))?
        }
    };
    Ok(Arc::new(config).into())
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| error.to_string())
}
