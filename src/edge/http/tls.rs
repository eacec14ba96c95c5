//! TLS on the listener. Certificate, key and the authorities of client certificates are files that others renew: they
//! are looked at every second and taken whole or not at all, so that a half written or broken one changes nothing.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// What is seen of files that cannot be read: once they can be, they are new.
const UNREAD: [u8; 32] = [0; 32];

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    Off,
    /// They are, and who has none gets in too; one that nobody vouches for ends the handshake.
    Optional,
    /// Who has none does not get in.
    Required,
}

impl ClientCertificates {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Optional, Self::Required];

    /// As the configuration has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// Where TLS finds what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// The server's certificate and those that lead to its authority, in PEM.
    pub certificate_file: PathBuf,
    /// The certificate's key, in PEM.
    pub key_file: PathBuf,
    /// Who vouches for clients, in PEM, and whether every client needs a certificate; none where clients are not asked.
    pub clients: Option<(PathBuf, ClientCertificates)>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} holds {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// They do not go together.
    #[error("the certificate and its key cannot be used: {0}")]
    Pair(String),
    /// Nobody of these can vouch for clients.
    #[error("{} cannot vouch for clients: {message}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// TLS as it is now.
pub struct Tls {
    options: TlsOptions,
    current: ArcSwap<ServerConfig>,
    /// The digest of the files that were read last, whether they could be used or not.
    seen: Mutex<[u8; 32]>,
    /// How often new files were taken.
    taken: watch::Sender<u64>,
}

/// The content of the files.
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    authorities: Vec<u8>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where TLS cannot be had from them.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let files = Files::read(&options)?;
        let config = files.config(&options)?;
        let seen = Mutex::new(files.digest());
        Ok(Self { options, current: ArcSwap::from_pointee(config), seen, taken: watch::channel(0).0 })
    }

    /// Shakes hands; `None` where that fails, or takes longer than `within`.
    pub(super) async fn accept(&self, stream: TcpStream, within: Duration) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        timeout(within, acceptor.accept(stream)).await.ok()?.ok()
    }

    /// Tells when other files are taken: who vouched for a client may vouch no longer, so its connection ends.
    pub(super) fn taken(&self) -> watch::Receiver<u64> {
        self.taken.subscribe()
    }

    /// Looks at the files until nobody serves any longer.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = Arc::clone(&self);
            // Where the thread ends by a panic, the panic is logged.
            let _looked = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Loads changed files. Broken files are logged once.
    fn look(&self) {
        let stays = |error: &TlsError| tracing::warn!(target: "tollgate::tls", "TLS stays as it is: {error}");
        let files = match Files::read(&self.options) {
            Ok(files) => files,
            Err(error) if self.is_new(UNREAD) => return stays(&error),
            Err(_) => return,
        };
        if !self.is_new(files.digest()) {
            return;
        }
        match files.config(&self.options) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                self.taken.send_modify(|times| *times += 1);
                let message = "TLS files reloaded: certificate, key and authorities are in use";
                tracing::info!(target: "tollgate::tls", "{message}");
            }
            Err(error) => stays(&error),
        }
    }

    /// Notes what is seen, and whether that is something else than before.
    fn is_new(&self, digest: [u8; 32]) -> bool {
        let mut seen = self.seen.lock();
        std::mem::replace(&mut *seen, digest) != digest
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Files {
    fn read(options: &TlsOptions) -> Result<Self, TlsError> {
        let authorities = options.clients.as_ref().map(|(path, _)| read(path)).transpose()?.unwrap_or_default();
        let key = Zeroizing::new(read(&options.key_file)?);
        Ok(Self { certificate: read(&options.certificate_file)?, key, authorities })
    }

    fn digest(&self) -> [u8; 32] {
        let mut whole = Sha256::new();
        for part in [&self.certificate, &*self.key, &self.authorities] {
            whole.update(Sha256::digest(part));
        }
        whole.finalize().into()
    }

    fn config(&self, options: &TlsOptions) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = certificates(&options.certificate_file, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Content { path: options.key_file.clone(), what: "no private key in PEM" })?;
        let pair = |error: tokio_rustls::rustls::Error| TlsError::Pair(error.to_string());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = config.map_err(pair)?;
        let config = match self.verifier(options, provider)? {
            Some(verifier) => config.with_client_cert_verifier(verifier),
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_single_cert(certificates, key).map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(
        &self,
        options: &TlsOptions,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let Some((path, wanted)) = options.clients.as_ref().filter(|(_, wanted)| *wanted != ClientCertificates::Off)
        else {
            return Ok(None);
        };
        let wrong = |message: String| TlsError::Authorities { path: path.clone(), message };
        let mut roots = RootCertStore::empty();
        for authority in certificates(path, &self.authorities)? {
            roots.add(authority).map_err(|error| wrong(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier =
            if *wanted == ClientCertificates::Optional { verifier.allow_unauthenticated() } else { verifier };
        verifier.build().map(Some).map_err(|error| wrong(error.to_string()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::Unreadable { path: path.to_owned(), error };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(TlsError::Content { path: path.to_owned(), what: "more than a file of certificates has" });
    }
    Ok(text)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |what| TlsError::Content { path: path.to_owned(), what };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|_| content("a certificate that is not PEM"))?;
    if certificates.is_empty() { Err(content("no certificate in PEM")) } else { Ok(certificates) }
}
