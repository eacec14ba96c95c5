//! `x-forwarded-client-cert`, as Envoy writes it: elements apart by commas, one a hop; in each, `Key=value` pairs apart
//! by semicolons; values with special characters in double quotes.
//!
//! Envoy writes a quote within quotes as `\"` and leaves every other backslash as it is. So a quote behind a backslash is
//! text, whatever stands before that backslash: to read `\\` as one backslash would let the holder of a certificate end
//! the quotes with a name of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;

use super::names::{Names, NamesError};
use crate::model::hex;

/// Longest header that is read.
const MAX_BYTES: usize = 32 * 1024;
/// Most hops, and most pairs of one.
const MAX_ELEMENTS: usize = 16;
const MAX_PAIRS: usize = 128;

/// Why a header says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`x-forwarded-client-cert` has not the form that proxies write: {0}")]
pub struct HeaderError(&'static str);

/// What a proxy says of its client's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// `Hash`: the SHA-256 of the certificate, in hex.
    pub hash: Option<String>,
    /// `Cert`: the certificate, in PEM, with percent signs.
    pub certificate: Option<String>,
    /// `URI`: URIs among its alternative names.
    pub uris: Vec<SmolStr>,
    /// `DNS`: DNS names among them.
    pub dns: Vec<SmolStr>,
}

/// What the last proxy said, which stands at the end; all of the header must be well formed.
///
/// # Errors
/// Where it is not.
pub fn last_element(header: &str) -> Result<Element, HeaderError> {
    if header.len() > MAX_BYTES {
        return Err(HeaderError("it is too long"));
    }
    let mut rest = Rest(header);
    for _ in 0..MAX_ELEMENTS {
        let element = element(&mut rest)?;
        match rest.next() {
            None => return Ok(element),
            Some(',') => rest.skip_spaces(),
            Some(_) => return Err(HeaderError("a value is followed by neither `;` nor `,`")),
        }
    }
    Err(HeaderError("it has too many elements"))
}

/// One element, up to its comma or the end.
fn element(rest: &mut Rest<'_>) -> Result<Element, HeaderError> {
    let mut element = Element::default();
    let (mut by_subject, mut chain) = (None, None);
    for _ in 0..MAX_PAIRS {
        let key = rest.key()?;
        let value = rest.value()?;
        match key.to_ascii_lowercase().as_str() {
            "hash" => once(&mut element.hash, value)?,
            "cert" => once(&mut element.certificate, value)?,
            "subject" => once(&mut by_subject, value)?,
            "chain" => once(&mut chain, value)?,
            // Envoy writes those of which there are none as empty.
            "uri" if !value.is_empty() => element.uris.push(value.into()),
            "dns" if !value.is_empty() => element.dns.push(value.to_ascii_lowercase().into()),
            "by" | "uri" | "dns" => {}
            _ => return Err(HeaderError("it has a key that is none")),
        }
        rest.skip_spaces();
        if !rest.take(';') {
            return Ok(element);
        }
    }
    Err(HeaderError("an element has too many values"))
}

fn once(place: &mut Option<String>, value: String) -> Result<(), HeaderError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(HeaderError("a key that is said once comes twice")),
    }
}

/// What is still to be read.
struct Rest<'h>(&'h str);

impl<'h> Rest<'h> {
    fn next(&mut self) -> Option<char> {
        let next = self.0.chars().next()?;
        self.0 = self.0.get(next.len_utf8()..).unwrap_or_default();
        Some(next)
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// What comes before the first character that `ends` takes.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'h str {
        let (before, after) = self.0.split_at(self.0.find(ends).unwrap_or(self.0.len()));
        self.0 = after;
        before
    }

    fn key(&mut self) -> Result<&'h str, HeaderError> {
        let key = self.until(|next| !next.is_ascii_alphabetic());
        if !key.is_empty() && self.take('=') { Ok(key) } else { Err(HeaderError("a value has no key")) }
    }

    fn value(&mut self) -> Result<String, HeaderError> {
        if !self.take('"') {
            let value = self.until(|next| matches!(next, ',' | ';'));
            let plain = |next: char| next.is_ascii_graphic() && !matches!(next, '"' | '=');
            let value = value.trim_end_matches([' ', '\t']);
            return if value.chars().all(plain) {
                Ok(value.to_owned())
            } else {
                Err(HeaderError("a value with special characters has no quotes"))
            };
        }
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err(HeaderError("a quote is not closed")),
                Some('"') if value.ends_with('\\') => {
                    value.pop();
                    value.push('"');
                }
                Some('"') => return Ok(value),
                Some(next) => value.push(next),
            }
        }
    }
}

impl Element {
    /// The names of the certificate: those in it where it came along, else those that the proxy tells. What it tells
    /// besides must be so.
    ///
    /// # Errors
    /// Where the certificate cannot be read, or is not what the proxy tells of it.
    pub fn names(self) -> Result<Names, NamesError> {
        let Some(certificate) = &self.certificate else {
            return Ok(Names { uris: self.uris, dns: self.dns, ..Names::default() });
        };
        let certificate = pem(certificate).ok_or(NamesError::Form)?;
        let hash = hex::encode(&Sha256::digest(&certificate));
        let names = Names::of(&certificate)?;
        let told = self.hash.is_none_or(|told| told.eq_ignore_ascii_case(&hash))
            && self.uris.iter().all(|told| names.uris.contains(told))
            && self.dns.iter().all(|told| names.dns.contains(told));
        if told { Ok(names) } else { Err(NamesError::Names) }
    }
}

/// The first certificate of a PEM with percent signs.
fn pem(escaped: &str) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            text.push(digit(bytes.next())? << 4 | digit(bytes.next())?);
        } else {
            text.push(byte);
        }
    }
    let text = String::from_utf8(text).ok()?;
    let (_, body) =
        text.trim_start().split_once("-----BEGIN CERTIFICATE-----").filter(|(before, _)| before.is_empty())?;
    let (body, _) = body.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Envoy writes a value in quotes.
    fn quoted(text: &str) -> String {
        format!("\"{}\"", text.replace('"', "\\\""))
    }

    #[test]
    fn the_last_element_counts_and_every_one_is_read() {
        let read = |header: &str| last_element(header).map(|element| (element.uris.join(" "), element.dns.join(" ")));
        let ok = |uris: &str, dns: &str| Ok((uris.to_owned(), dns.to_owned()));
        for (header, expected) in [
            ("URI=spiffe://a/b", ok("spiffe://a/b", "")),
            (
                "By=spiffe://a/proxy;Hash=00ff;Subject=\"CN=x, O=\\\"y\\\"\";URI=spiffe://a/b;DNS=A.b;DNS=c",
                ok("spiffe://a/b", "a.b c"),
            ),
            ("URI=spiffe://a/b,URI=spiffe://a/c", ok("spiffe://a/c", "")),
            ("URI=spiffe://a/b, URI=spiffe://a/c", ok("spiffe://a/c", "")),
            ("uri=spiffe://a/b;By=", ok("spiffe://a/b", "")),
            ("URI=;DNS=", ok("", "")),
            ("Subject=\"a,URI=spiffe://a/evil\";URI=spiffe://a/b", ok("spiffe://a/b", "")),
            ("Subject=\"a\\\",URI=spiffe://a/evil\";URI=spiffe://a/b", ok("spiffe://a/b", "")),
            // The name ends with a quote, which RFC 2253 escapes before Envoy does.
            ("Subject=\"CN=a\\\\\",URI=spiffe://a/evil\";URI=spiffe://a/b", ok("spiffe://a/b", "")),
        ] {
            assert_eq!(read(header), expected, "{header}");
        }
        for wrong in [
            "",
            ",",
            "URI",
            "URI=a;",
            "URI=a,",
            ",URI=a",
            "=a",
            "URI=a b",
            "URI=\"a",
            "URI=\"a\"b",
            "URI=a\"b\"",
            "URI=a;;DNS=b",
            "User=a",
            "Hash=a;Hash=a",
            "Cert=\"a\";cert=\"b\"",
            "Subject=\"CN=a\\\";URI=spiffe://a/b",
            "URI=a=b",
            "broken=\",URI=spiffe://a/b",
            "URI=spiffe://a/b,broken",
            "URI=ä",
        ] {
            assert!(last_element(wrong).is_err(), "{wrong}");
        }
        assert!(last_element(&format!("URI=\"{}\"", "a".repeat(100 * 1024))).is_err());
        assert!(last_element(&vec!["URI=a"; 17].join(",")).is_err());
        assert!(last_element(&vec!["DNS=a"; 129].join(";")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(header in "(\\PC|[\"\\\\;,=]|URI=|Subject=\"|Cert=\"|%2){0,40}") {
            let _read = last_element(&header).map(Element::names);
        }

        /// Whatever stands in a subject, it stays in its quotes. A backslash at its end has none before Envoy's quote
        /// that belongs to it alone, so that header is refused.
        #[test]
        fn a_quoted_value_ends_where_it_was_ended(subject in "[a-c\"\\\\,;= ]{0,12}") {
            let header = format!("Subject={};URI=spiffe://a/b;DNS=x.y", quoted(&subject));
            match last_element(&header) {
                Ok(element) => {
                    prop_assert_eq!(element.uris, ["spiffe://a/b"]);
                    prop_assert_eq!(element.dns, ["x.y"]);
                }
                Err(_) => prop_assert!(subject.ends_with('\\')),
            }
        }
    }
}
