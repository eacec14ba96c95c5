//! Addresses of requests. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`, RFC 4291, section 2.5.5.2) is how a dual-stack
//! socket shows an IPv4 client, so that it counts as the IPv4 address wherever addresses are compared.

use std::net::IpAddr;

/// The address that `text` writes, an IPv4-mapped one as the IPv4 address; `None` for a range, a zone, a port or a name.
#[must_use]
pub fn request_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The IPv4 address or range that `text`, an address or a range, writes in IPv4-mapped form; `None` where it writes
/// another one.
#[must_use]
pub fn unmapped(text: &str) -> Option<String> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let IpAddr::V6(address) = address.parse().ok()? else { return None };
    let address = address.to_ipv4_mapped()?;
    match prefix {
        None => Some(address.to_string()),
        Some(prefix) => {
            let prefix = prefix.parse::<u8>().ok().filter(|prefix| *prefix <= 128)?.checked_sub(96)?;
            Some(format!("{address}/{prefix}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        for (text, address) in [
            ("169.254.1.1", Some("169.254.1.1")),
            ("::ffff:169.254.1.1", Some("169.254.1.1")),
            ("::FFFF:A9FE:101", Some("169.254.1.1")),
            ("0:0:0:0:0:ffff:a9fe:0101", Some("169.254.1.1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("10.0.0.0/8", None),
            ("::1/128", None),
            ("fe80::1%eth0", None),
            ("[::1]", None),
            ("10.1.2.3:80", None),
            ("010.1.2.3", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(request_address(text).map(|address| address.to_string()).as_deref(), address, "{text}");
        }
    }

    #[test]
    fn a_mapped_range_is_the_ipv4_range() {
        for (text, range) in [
            ("::ffff:a9fe:0/112", Some("169.254.0.0/16")),
            ("::ffff:a9fe:101", Some("169.254.1.1")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:0:0/95", None),
            ("::ffff:0:0/129", None),
            ("2001:db8::/32", None),
            ("10.0.0.0/8", None),
        ] {
            assert_eq!(unmapped(text).as_deref(), range, "{text}");
        }
    }
}
