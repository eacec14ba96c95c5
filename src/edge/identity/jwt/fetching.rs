//! Fetches the keys of an issuer: its discovery document, the set that it names, or files. Addresses come from the
//! configuration and from what the issuer itself publishes over TLS, never from a token.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use smol_str::{SmolStr, format_smolstr};

use super::issuer::{IssuerSettings, KeySource};
use crate::edge::identity::jose::{KeySet, shown};
use crate::gate::{Ask, Fetch, Reply};
use crate::model::{SecretText, strict_json};

/// For each of the two exchanges.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest document that is read.
const MOST_BYTES: usize = 1024 * 1024;

/// Keys that were found.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    /// The digest of what they were read from.
    pub(super) content: [u8; 32],
    /// For how long they are good, where whoever publishes them says so.
    pub(super) max_age: Option<Duration>,
}

/// The keys of an issuer, as they are now.
pub(super) async fn keys(settings: &IssuerSettings, fetch: &dyn Fetch) -> Result<Fetched, String> {
    match &settings.keys {
        KeySource::Secret(secret) => {
            let keys = KeySet::of_secret(secret.expose().as_bytes()).map_err(|error| error.to_string())?;
            Ok(Fetched { keys, content: [0; 32], max_age: None })
        }
        KeySource::Files(files) => of_files(files),
        KeySource::Remote { jwks_url, bearer_file } => {
            let bearer = bearer_file.as_deref().map(bearer).transpose()?;
            let url = match jwks_url {
                Some(url) => url.clone(),
                None => discovered(&settings.checks.issuer, bearer.as_ref(), fetch).await?,
            };
            let reply = got(&url, bearer.as_ref(), fetch).await?;
            let keys = KeySet::of_jwks(&reply.body).map_err(|error| format!("{url}: {error}"))?;
            let max_age = reply.header("cache-control").and_then(max_age);
            Ok(Fetched { keys, content: Sha256::digest(&reply.body).into(), max_age })
        }
    }
}

/// The address of the key set, by OpenID Connect Discovery 1.0: the document must be the issuer's own.
async fn discovered(issuer: &SmolStr, bearer: Option<&SecretText>, fetch: &dyn Fetch) -> Result<SmolStr, String> {
    let url = format_smolstr!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let reply = got(&url, bearer, fetch).await?;
    let document = strict_json::from_slice(&reply.body).map_err(|_| format!("{url}: it is no JSON"))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        let said = text("issuer").map_or_else(|| "no text".to_owned(), shown);
        return Err(format!(
            "{url}: its `issuer` is {said}, and the configured one is `{issuer}`; they have to be the same, a `/` at \
             the end \
             included"
        ));
    }
    let keys = text("jwks_uri").ok_or_else(|| format!("{url}: it has no `jwks_uri`"))?;
    if !may_name(issuer, keys) {
        return Err(format!("{url}: its `jwks_uri` leads to this machine or its links, or is not encrypted"));
    }
    Ok(keys.into())
}

/// Whether an issuer's own document may name where its keys are. One that is elsewhere names nothing that is meant for this
/// machine alone (RFC 1122, section 3.2.1.3; RFC 3927): whoever writes its document would have this server ask there.
fn may_name(issuer: &str, keys: &str) -> bool {
    let Some(host) = keys.strip_prefix("https://").and_then(host) else {
        // Without encryption the issuer is on this machine itself.
        return !issuer.starts_with("https://");
    };
    // An address in another form (127.1, 0x7f000001) is none that an issuer names.
    let is_number = |label: &str| label.starts_with("0x") || label.bytes().all(|byte| byte.is_ascii_digit());
    let is_here = |host: &str| match host.trim_end_matches('.').parse::<IpAddr>().map(|address| address.to_canonical())
    {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified(),
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            host.rsplit('.').next().is_some_and(|last| last == "localhost" || is_number(last)) && !host.contains(':')
        }
    };
    !is_here(host) || issuer.strip_prefix("https://").and_then(self::host).is_none_or(is_here)
}

/// The host of an address behind its scheme (RFC 3986, section 3.2.2).
fn host(rest: &str) -> Option<&str> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let behind = authority.rsplit('@').next()?;
    match behind.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => behind.split(':').next(),
    }
}

async fn got(url: &SmolStr, bearer: Option<&SecretText>, fetch: &dyn Fetch) -> Result<Reply, String> {
    let mut headers = vec![("accept".into(), SecretText::new("application/json"))];
    headers.extend(bearer.map(|token| ("authorization".into(), token.clone())));
    let ask = Ask { url: url.clone(), body: None, headers, timeout: TIMEOUT, most_bytes: MOST_BYTES };
    let reply = fetch.fetch(ask).await.map_err(|error| format!("{url}: {error}"))?;
    if reply.status == 200 { Ok(reply) } else { Err(format!("{url}: it answers with {}", reply.status)) }
}

fn bearer(path: &Path) -> Result<SecretText, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(SecretText::new(format!("Bearer {}", text.trim())))
}

fn of_files(files: &[std::path::PathBuf]) -> Result<Fetched, String> {
    let mut keys = KeySet::default();
    let mut content = Sha256::new();
    for path in files {
        let wrong = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        if text.len() > MOST_BYTES {
            return Err(wrong("it is too long".to_owned()));
        }
        let read = KeySet::of_file(&text).and_then(|read| std::mem::take(&mut keys).and(read));
        keys = read.map_err(|error| wrong(error.to_string()))?;
        content.update(Sha256::digest(&text));
    }
    Ok(Fetched { keys, content: content.finalize().into(), max_age: None })
}

/// What `Cache-Control` says of how long an answer is good.
fn max_age(value: &str) -> Option<Duration> {
    let said = value.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
    said.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_elsewhere_names_nothing_of_this_machine() {
        let issuer = "https://idp.example.com/realm";
        for keys in ["https://idp.example.com/k", "https://10.0.0.1:6443/openid/v1/jwks", "https://[fd00::1]/k"] {
            assert!(may_name(issuer, keys), "{keys}");
        }
        for keys in [
            "http://idp.example.com/k",
            "http://127.0.0.1/k",
            "https://127.0.0.1:8443/k",
            "https://x@127.9.9.9/k",
            "https://169.254.169.254/latest",
            "https://[::1]:1/k",
            "https://[::ffff:127.0.0.1]/k",
            "https://[fe80::1]/k",
            "https://0.0.0.0/k",
            "https://LOCALHOST:1/k",
            "https://localhost./k",
            "https://a.localhost/k",
            "https://127.1/k",
            "https://2130706433/k",
            "https://0x7f000001/k",
            "ftp://idp.example.com/k",
        ] {
            assert!(!may_name(issuer, keys), "{keys}");
        }
        assert!(may_name("http://127.0.0.1:5556/dex", "http://127.0.0.1:5556/dex/keys"));
        assert!(may_name("https://127.0.0.1:5556/dex", "https://127.0.0.1:5557/keys"));
    }
}
