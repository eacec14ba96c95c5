//! Environment variables that look like a Tollgate setting and are not one. Without a warning, a misspelt variable
//! would be ignored silently.

use std::ffi::OsString;

use super::SECRET_VARIABLE;
use super::sections::SECTIONS;
use super::table::VARIABLES;
use crate::policy::problem::nearest;

/// What all of them begin with.
const PREFIX: &str = "TOLLGATE_";
/// Those that name the config file, and those that commands read.
const OTHERS: [&str; 6] = [
    "TOLLGATE_CONFIG",
    "TOLLGATE_TOKEN",
    "TOLLGATE_SERVER",
    "TOLLGATE_CREDENTIALS",
    "TOLLGATE_ISSUER",
    "TOLLGATE_CLIENT_ID",
];

/// Every variable that is read.
fn known() -> impl Iterator<Item = &'static str> {
    let settings = VARIABLES.iter().map(|(name, _)| *name);
    let sections = SECTIONS.iter().map(|section| section.variable);
    settings.chain(sections).chain([SECRET_VARIABLE]).chain(OTHERS)
}

/// A warning for each of `variables` that begins with the prefix of Tollgate and is not read.
pub fn misspelt(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<String> {
    let ours = |(name, value): (OsString, OsString)| {
        let name = name.into_string().ok()?;
        let begins = name.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX));
        let is_passed_over = begins && known().all(|known| known != name) && !is_of_a_cluster(&name, &value);
        is_passed_over.then_some(name)
    };
    let mut names: Vec<String> = variables.into_iter().filter_map(ours).collect();
    names.sort();
    names.iter().map(|name| told(name)).collect()
}

fn told(name: &str) -> String {
    // All names share the prefix, so the prefix does not count for the distance.
    let rest = name.get(PREFIX.len()..).unwrap_or_default();
    let near = nearest(rest, known().filter_map(|known| known.strip_prefix(PREFIX)));
    let way_out = match near {
        Some(near) => format!("did you mean `{PREFIX}{near}`?"),
        None => format!("the variables are {}", known().collect::<Vec<_>>().join(", ")),
    };
    format!("the environment variable `{}` is unknown and is not read; {way_out}", name.escape_debug())
}

/// Whether Kubernetes puts such a variable in every container beside a service whose name begins with `tollgate`:
/// `TOLLGATE_SERVICE_HOST`, `TOLLGATE_SERVICE_PORT_HTTP`, `TOLLGATE_PORT=tcp://…`, `TOLLGATE_PORT_8181_TCP_ADDR`.
fn is_of_a_cluster(name: &str, value: &OsString) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_service = words.windows(2).any(|two| matches!(two, ["SERVICE", "HOST" | "PORT"]));
    let is_port = words.windows(3).any(|three| match three {
        ["PORT", number, protocol] => is_number(number) && matches!(*protocol, "TCP" | "UDP" | "SCTP"),
        _ => false,
    });
    // A number would be meant for `TOLLGATE_LISTEN`.
    let is_address = name.ends_with("_PORT") && !value.to_str().is_some_and(is_number);
    is_service || is_port || is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, value: &str) -> Vec<String> {
        misspelt([(OsString::from(name), OsString::from(value))])
    }

    #[test]
    fn a_misspelt_variable_is_told_with_the_nearest() {
        for (name, near) in [
            ("TOLLGATE_POLICIS", "TOLLGATE_POLICIES"),
            ("TOLLGATE_POLICY", "TOLLGATE_POLICIES"),
            ("TOLLGATE_LISTENER", "TOLLGATE_LISTEN"),
            ("TOLLGATE_REDIS_URI", "TOLLGATE_REDIS_URL"),
            ("tollgate_data", "TOLLGATE_DATA"),
            ("TOLLGATE_IDENTIY", "TOLLGATE_IDENTITY"),
        ] {
            let said = said(name, "s3cret");
            assert_eq!(said.len(), 1, "{name}");
            let said = &said[0];
            assert!(said.contains(name) && said.contains(&format!("did you mean `{near}`?")), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
        let said = said("TOLLGATE_WHATEVER", "x");
        assert!(said[0].contains("TOLLGATE_ALERTS_WEBHOOK_SECRET") && !said[0].contains("did you mean"), "{said:?}");
        assert_eq!(self::said("TOLLGATE_PORT", "8181").len(), 1);
    }

    #[test]
    fn what_is_read_and_what_a_cluster_adds_is_not_told() {
        for name in known() {
            assert_eq!(said(name, "x"), Vec::<String>::new());
        }
        for (name, value) in [
            ("TOLLGATE_SERVICE_HOST", "10.0.0.1"),
            ("TOLLGATE_SERVICE_PORT", "8181"),
            ("TOLLGATE_SERVICE_PORT_HTTP", "8181"),
            ("TOLLGATE_PORT", "tcp://10.0.0.1:8181"),
            ("TOLLGATE_PORT_8181_TCP", "tcp://10.0.0.1:8181"),
            ("TOLLGATE_PORT_8181_TCP_PROTO", "tcp"),
            ("TOLLGATE_PORT_8181_UDP_PORT", "8181"),
            ("TOLLGATE_PORT_8181_SCTP_ADDR", "10.0.0.1"),
            ("TOLLGATE_PDP_SERVICE_HOST", "10.0.0.1"),
            ("TOLLGATE_PDP_PORT", "tcp://10.0.0.1:8181"),
            ("TOLLGATE", "x"),
            ("TOLLGATES_X", "x"),
            ("PATH", "x"),
        ] {
            assert_eq!(said(name, value), Vec::<String>::new(), "{name}");
        }
    }
}
