//! Environment variables. Each one sets a member of `tollgate.yaml`, and is read as a file that has this member alone.
//!
//! A variable that looks like a Tollgate setting and is not one gets a warning, since a misspelt variable would be ignored
//! silently otherwise.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::faults::NodeError;
use super::raw::Raw;
use super::{ConfigError, SECRET_VARIABLE, Settings, file, node};
use crate::policy::problem::{Problem, nearest};
use crate::policy::syntax::{Place, TextLayout};
use crate::policy::yaml::{self, Key, Kind, Node, Scalar, Style};

/// The variables that set a scalar, and the settings.
const SCALARS: [(&str, &str); 15] = [
    ("TOLLGATE_POLICIES", "policies"),
    ("TOLLGATE_LISTEN", "listen"),
    ("TOLLGATE_LISTEN_HEALTH", "listen_health"),
    ("TOLLGATE_DATA", "data"),
    ("TOLLGATE_TLS_CERTIFICATE_FILE", "tls.certificate_file"),
    ("TOLLGATE_TLS_KEY_FILE", "tls.key_file"),
    ("TOLLGATE_TLS_CLIENT_CA_FILE", "tls.client_ca_file"),
    ("TOLLGATE_TLS_CLIENT_CERTIFICATES", "tls.client_certificates"),
    ("TOLLGATE_REDIS_URL", "meters.redis.url"),
    ("TOLLGATE_STRICT", "strict"),
    ("TOLLGATE_INSECURE", "insecure"),
    ("TOLLGATE_WORKERS", "server.workers"),
    ("TOLLGATE_LOG_FORMAT", "log.format"),
    ("TOLLGATE_LOG_LEVEL", "log.level"),
    ("TOLLGATE_ALERTS_WEBHOOK_URL", "alerts.webhook.url"),
];
/// The variables that set a whole section, in YAML or JSON.
const SECTIONS: [(&str, &str); 3] =
    [("TOLLGATE_DECISION_LOG", "decision_log"), ("TOLLGATE_IDENTITY", "identity"), ("TOLLGATE_ROUTES", "routes")];
const CONFIG_VARIABLE: &str = "TOLLGATE_CONFIG";
/// The variables that commands read.
const OF_COMMANDS: [&str; 5] =
    ["TOLLGATE_TOKEN", "TOLLGATE_SERVER", "TOLLGATE_CREDENTIALS", "TOLLGATE_ISSUER", "TOLLGATE_CLIENT_ID"];
/// The beginning of all names.
const PREFIX: &str = "TOLLGATE_";

/// Applies the variables to `settings`.
///
/// # Errors
/// The first variable with a wrong value.
pub(super) fn apply(
    environment: &impl Fn(&str) -> Option<OsString>,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    for (name, setting) in SCALARS {
        let Some(text) = text_of(environment, name)? else { continue };
        let root = nested(setting, scalar(&text));
        // A relative path begins at the working directory.
        let (raw, mut errors): (Raw, Vec<NodeError>) = node::read(&root, Path::new(""), |_| false);
        errors.extend(raw.apply(settings));
        if let Some(error) = errors.first() {
            return Err(ConfigError::Variable { name, message: file::brief(error) });
        }
    }
    for (name, section) in SECTIONS {
        let Some(text) = text_of(environment, name)? else { continue };
        let file: Arc<str> = name.into();
        let reading = yaml::read(&file, &text);
        let mut problems = reading.problems;
        if !problems.iter().any(Problem::is_error)
            && let Some(root) = reading.root
        {
            problems.extend(file::apply_node(&file, &nested(section, root), Path::new(""), settings));
        }
        if problems.iter().any(Problem::is_error) {
            let message = crate::policy::report::text(&problems, false).trim_end().to_owned();
            return Err(ConfigError::Variable { name, message });
        }
    }
    Ok(())
}

fn text_of(environment: &impl Fn(&str) -> Option<OsString>, name: &'static str) -> Result<Option<String>, ConfigError> {
    let is_not_text = |_| ConfigError::Variable { name, message: "the value is not UTF-8".to_owned() };
    environment(name).map(|value| value.into_string().map_err(is_not_text)).transpose()
}

/// The text of a variable as it would stand in a file without quotes.
fn scalar(text: &str) -> Node {
    let start = Place { line: 1, column: 1, length: 1 };
    let scalar = Scalar { text: text.into(), style: Style::Plain, layout: TextLayout::Inline, start };
    Node { place: start, kind: Kind::Scalar(scalar) }
}

/// A mapping that has `value` as the member `setting`, whose name has a dot between section and key.
fn nested(setting: &str, value: Node) -> Node {
    setting.rsplit('.').fold(value, |value, name| {
        let key = Key { text: name.into(), place: value.place };
        Node { place: value.place, kind: Kind::Mapping(vec![(key, value)]) }
    })
}

/// Every variable that `tollgate serve` reads, and the setting that it sets.
pub(crate) fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    let others = [(SECRET_VARIABLE, "the secret of alerts.webhook"), (CONFIG_VARIABLE, "the config file")];
    SCALARS.into_iter().chain(SECTIONS).chain(others)
}

/// The list of the variables, for `tollgate serve --help`.
#[must_use]
pub fn variables_help() -> String {
    let mut help = "Environment variables, and the settings of tollgate.yaml that they beat:\n".to_owned();
    for (name, setting) in variables() {
        // Writing to a String cannot fail.
        let _ = writeln!(help, "  {name:<34}{setting}");
    }
    help
}

/// Every variable that is read.
fn known() -> impl Iterator<Item = &'static str> {
    variables().map(|(name, _)| name).chain(OF_COMMANDS)
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
