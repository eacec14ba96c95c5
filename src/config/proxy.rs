//! The proxy of outgoing requests, from the variables that other programs read too.

use crate::edge::outgoing::{Proxy, ProxyError};

/// Why the variables name no proxy. The value may contain a password, so it is not part of the message.
#[derive(Debug, thiserror::Error)]
pub enum ProxyVariableError {
    /// The value of a variable is not the URL of a proxy.
    #[error("{variable}: {error}")]
    Value {
        /// The variable.
        variable: &'static str,
        /// The reason.
        error: ProxyError,
    },
    /// The value of a variable is not text.
    #[error("{0}: the value is not UTF-8")]
    NotText(&'static str),
}

/// Reads `HTTPS_PROXY` and `NO_PROXY`, or `https_proxy` and `no_proxy` where those are not set.
///
/// # Errors
/// Returns an error if a value cannot be used: requests must not go around a proxy because its URL is misspelt.
pub fn proxy() -> Result<Proxy, ProxyVariableError> {
    from(|name| std::env::var_os(name))
}

fn from(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Proxy, ProxyVariableError> {
    let first = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, variable(name)?)));
        let Some((name, value)) = found else { return Ok(None) };
        let value = value.into_string().map_err(|_| ProxyVariableError::NotText(name))?;
        Ok(Some((name, value)).filter(|(_, value)| !value.is_empty()))
    };
    let Some((variable, url)) = first(["HTTPS_PROXY", "https_proxy"])? else { return Ok(Proxy::none()) };
    let exceptions = first(["NO_PROXY", "no_proxy"])?.map(|(_, list)| list).unwrap_or_default();
    Proxy::new(&url, &exceptions).map_err(|error| ProxyVariableError::Value { variable, error })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Proxy, ProxyVariableError> {
        from(|name| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).into()))
    }

    fn shown(variables: &[(&str, &str)]) -> String {
        match of(variables) {
            Ok(proxy) => format!("{proxy:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn proxy_variables_are_read_in_either_case() {
        let (none, some) = ("Proxy { configured: false }", "Proxy { configured: true }");
        assert_eq!(shown(&[]), none);
        assert_eq!(shown(&[("HTTPS_PROXY", "")]), none);
        assert_eq!(shown(&[("HTTPS_PROXY", ""), ("https_proxy", "http://proxy:3128")]), none);
        assert_eq!(shown(&[("HTTPS_PROXY", "http://proxy:3128"), ("https_proxy", "nonsense://")]), some);
        assert_eq!(shown(&[("https_proxy", "http://proxy:3128"), ("no_proxy", "*")]), some);
        let wrong = shown(&[("https_proxy", "socks5://me:secret@proxy:1080")]);
        assert_eq!(wrong, "https_proxy: only proxies with http:// and https:// are supported");
    }
}
