//! Certificates made while tests run: an authority, who it vouches for, and a client that shows what it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::Value;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::DEADLINE;

/// Who vouches for others.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
    pub pem: String,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Leaf {
    pub certificate: Vec<u8>,
    pub pem: String,
    pub key: Vec<u8>,
    pub key_pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = certificate.pem();
        Self { issuer: Issuer::new(params, key), certificate: certificate.der().clone(), pem }
    }

    /// A certificate with these names, further changed by `change`.
    pub fn vouch_for(&self, names: &[SanType], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.to_vec();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf::of(certificate.der(), certificate.pem(), &key)
    }

    /// A server's, for `127.0.0.1`.
    pub fn server(&self) -> Leaf {
        self.vouch_for(&[SanType::IpAddress("127.0.0.1".parse().unwrap())], |_| {})
    }
}

impl Leaf {
    /// One that nobody vouches for.
    pub fn self_signed(names: &[SanType]) -> Self {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::of(certificate.der(), certificate.pem(), &key)
    }

    fn of(certificate: &CertificateDer<'_>, pem: String, key: &KeyPair) -> Self {
        Self { certificate: certificate.to_vec(), pem, key: key.serialize_der(), key_pem: key.serialize_pem() }
    }

    /// As `<name>.pem` and `<name>.key` in `directory`.
    pub fn write(&self, directory: &Path, name: &str) {
        std::fs::write(directory.join(format!("{name}.key")), &self.key_pem).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), &self.pem).unwrap();
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).unwrap())
}

pub fn email(text: &str) -> SanType {
    SanType::Rfc822Name(Ia5String::try_from(text).unwrap())
}

/// A connection that trusts `authority` and shows `client`.
pub struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    pub fn connect(address: SocketAddr, authority: &Authority, client: Option<&Leaf>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(leaf) => {
                let (certificate, key) = (CertificateDer::from(leaf.certificate.clone()), leaf.key.clone());
                config.with_client_auth_cert(vec![certificate], PrivatePkcs8KeyDer::from(key).into()).unwrap()
            }
        };
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        }
        Ok(Self(stream))
    }

    /// A request on this connection; that a certificate is refused may be told no earlier than by its answer.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> Result<(u16, Value), String> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
        for header in headers {
            text += header;
            text += "\r\n";
        }
        let sent = self.0.write_all(format!("{text}\r\n{body}").as_bytes());
        sent.and_then(|()| self.0.flush()).map_err(|error| error.to_string())?;
        let mut read = Vec::new();
        loop {
            let mut more = [0; 4096];
            let count = self.0.read(&mut more).map_err(|error| error.to_string())?;
            if count == 0 {
                return Err("the connection is closed".to_owned());
            }
            read.extend_from_slice(&more[..count]);
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap() {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)));
            }
        }
    }
}
