//! Query strings: parameters that are known, each said once, percent-encoded as forms are.

use smol_str::SmolStr;

use super::errors::ApiError;
use crate::model::EntityUid;
use crate::policy::problem::nearest;

/// Longest query that is read.
const MAX_QUERY_BYTES: usize = 8 * 1024;
/// How many items a page has where nobody says.
const USUAL_PAGE: usize = 100;

/// What a query says.
#[derive(Debug)]
pub(super) struct Query {
    said: Vec<(&'static str, String)>,
}

impl Query {
    /// Reads `query`, of which `known` are the parameters.
    pub(super) fn read(query: Option<&str>, known: &[&'static str]) -> Result<Self, ApiError> {
        let query = query.unwrap_or_default();
        if query.len() > MAX_QUERY_BYTES {
            return Err(ApiError::invalid("", format!("a query may be {MAX_QUERY_BYTES} bytes long at most")));
        }
        let mut said: Vec<(&'static str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name)?;
            let Some(name) = known.iter().copied().find(|known| *known == name) else {
                return Err(unknown(&name, known));
            };
            if said.iter().any(|(before, _)| *before == name) {
                return Err(ApiError::invalid(name, format!("the parameter `{name}` stands twice")));
            }
            let value = decoded(value).map_err(|error| error.within(name))?;
            said.push((name, value));
        }
        Ok(Self { said })
    }

    /// What a parameter says.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.said.iter().find(|(said, _)| *said == name).map(|(_, value)| value.as_str())
    }

    /// A uid in Cedar's form.
    pub(super) fn uid(&self, name: &'static str) -> Result<Option<EntityUid>, ApiError> {
        let uid =
            self.get(name).map(|text| text.parse::<EntityUid>().map_err(|error| ApiError::from(error).within(name)));
        uid.transpose()
    }

    /// How many items a page has.
    pub(super) fn page_size(&self, most: usize) -> Result<usize, ApiError> {
        let Some(text) = self.get("page_size") else { return Ok(USUAL_PAGE.min(most)) };
        let number = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|text| text.parse().ok()).filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| ApiError::invalid("page_size", format!("a page has 1 to {most} items")))
    }
}

/// The `principal` of a query, where it says one once.
pub(super) fn principal(query: Option<&str>) -> Option<EntityUid> {
    let mut said = query?.split('&').filter_map(|pair| pair.strip_prefix("principal="));
    let (Some(text), None) = (said.next(), said.next()) else { return None };
    form_decoded(text)?.parse().ok()
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let help = match nearest(&shown, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the parameters are {}", known.join(", ")),
    };
    ApiError::invalid(shown.clone(), format!("no parameter is called `{shown}`; {help}"))
}

fn decoded(text: &str) -> Result<String, ApiError> {
    let wrong = || ApiError::invalid("", "a query is percent-encoded UTF-8, as `curl --data-urlencode` writes it");
    form_decoded(text).ok_or_else(wrong)
}

/// `%41` and `+` as what they stand for in queries and forms.
pub(super) fn form_decoded(text: &str) -> Option<String> {
    percent_decoded(&text.replace('+', " "))
}

/// `%41` as what it stands for.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(next) = rest.next() {
        bytes.push(match next {
            b'%' => digit(rest.next()?)? * 16 + digit(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Where a page ended, as one word that means nothing to its reader.
pub(super) fn cursor(parts: &impl serde::Serialize) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(serde_json::to_vec(parts).unwrap_or_default())
}

/// Reads what [`cursor`] wrote.
pub(super) fn read_cursor<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    use base64::Engine as _;
    let read = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok();
    let read = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    read.ok_or_else(|| ApiError::invalid("after", "it is not what `next` of the page before said"))
}

/// A text of a cursor.
pub(super) type Part = Option<SmolStr>;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_said_once() {
        let read = |text| Query::read(Some(text), &["principal", "after"]);
        let query = read("principal=User%3A%3A%22al+ice%22&&after=").unwrap();
        assert_eq!(query.uid("principal").unwrap().unwrap().id(), "al ice");
        assert_eq!(query.get("after"), Some(""));
        assert_eq!(
            read("prinzipal=x").unwrap_err().message,
            "no parameter is called `prinzipal`; did you mean `principal`?"
        );
        for bad in ["after=a&after=b", "after=%4", "after=%zz", "after=%ff", "after=%+1", "x", "%61fter=a&after=b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let parts: (SmolStr, Part) = ("a/b".into(), Some("User::\"x\"".into()));
        let text = cursor(&parts);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_eq!(read_cursor::<(SmolStr, Part)>(&text).unwrap(), parts);
        assert!(read_cursor::<(SmolStr, Part)>("x").is_err());
    }
}
