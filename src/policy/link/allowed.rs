//! What a key of the bundle may be used for and from, as conditions in Cedar. They say what `gate::narrow` does of keys that
//! the server keeps: what a list needs and a request does not tell is outside of it.

use std::net::IpAddr;

use crate::model::{AllowedPath, Network, TWO_WAYS_AT_END, TWO_WAYS_WITHIN};
use crate::policy::cedar_text::quoted;

/// Holds where `context.path` is one of these, asked for with one of its methods.
pub(super) fn paths(paths: &[AllowedPath]) -> String {
    let (patterns, exact): (Vec<_>, Vec<_>) = paths.iter().partition(|allowed| allowed.beginning().is_some());
    let fits = |all: &[&AllowedPath]| all.iter().map(|allowed| fits(allowed)).collect::<Vec<_>>().join(" || ");
    let mut ways = Vec::new();
    if !exact.is_empty() {
        ways.push(fits(&exact));
    }
    if !patterns.is_empty() {
        ways.push(format!("(!({}) && ({}))", read_in_two_ways(), fits(&patterns)));
    }
    format!("context has path && ({})", ways.join(" || "))
}

fn fits(allowed: &AllowedPath) -> String {
    let path = match allowed.beginning() {
        Some(beginning) => {
            let beginning = quoted(beginning);
            format!("context.path like {}*\"", beginning.strip_suffix('"').unwrap_or(&beginning))
        }
        None => format!("context.path == {}", quoted(&allowed.path)),
    };
    match &*allowed.methods {
        [] => path,
        methods => {
            let methods: Vec<String> = methods.iter().map(|method| quoted(method)).collect();
            format!("({path} && context has method && [{}].contains(context.method))", methods.join(", "))
        }
    }
}

/// Holds where `context.path` is read in two ways. No request that is decided here has such a path
/// ([`RequestPath`](crate::model::RequestPath)); another engine that is handed the compiled rules takes any.
fn read_in_two_ways() -> String {
    let like = |(part, rest): (&str, &str)| {
        let part = quoted(part);
        let part = part.trim_matches('"');
        format!("context.path like \"*{part}{rest}\"")
    };
    let within = TWO_WAYS_WITHIN.map(|part| (part, "*"));
    let at_end = TWO_WAYS_AT_END.map(|end| (end, ""));
    within.into_iter().chain(at_end).map(like).collect::<Vec<_>>().join(" || ")
}

/// Holds where `context.ip` is in one of these.
pub(super) fn networks(networks: &[Network]) -> String {
    let holds = |network: &Network| match network.canonical() {
        // An address of a request that is IPv4-mapped is the IPv4 address by the time conditions see it.
        (IpAddr::V4(address), prefix) => format!("context.ip.isInRange(ip(\"{address}/{prefix}\"))"),
        (IpAddr::V6(address), prefix) => {
            // Written out: Cedar reads no IPv4 address within one of IPv6.
            let segments: Vec<String> = address.segments().iter().map(|segment| format!("{segment:x}")).collect();
            format!("context.ip.isInRange(ip(\"{}/{prefix}\"))", segments.join(":"))
        }
    };
    let holds: Vec<String> = networks.iter().map(holds).collect();
    format!("context has ip && ({})", holds.join(" || "))
}
