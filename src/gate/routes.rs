//! From the path and method of a gateway's request to what is asked: an action, and where the name of its resource
//! stands. Pure. Paths are compared as they are sent; one that could be read in two ways has no route.

use smol_str::SmolStr;

use crate::model::{EntityUid, is_read_in_two_ways};

/// Longest path.
const MAX_PATH_BYTES: usize = 2_048;

/// Most routes of a map.
pub const MAX_ROUTES: usize = 1_000;

/// What requests of a gateway ask for, the first route that fits first; what no route fits nobody may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMap {
    routes: Vec<Mapped>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// `/v1/chat/completions`; a `/*` at the end takes every rest of one part or more.
    pub path: SmolStr,
    /// Its method, in capitals; any, where none is said.
    pub method: Option<SmolStr>,
    /// The action.
    pub action: SmolStr,
    /// The resource.
    pub resource: Named,
}

/// Where the name of a resource stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A model, in this member of the parameters.
    Param(SmolStr),
    /// Always this one.
    Fixed(EntityUid),
}

impl From<EntityUid> for Named {
    fn from(uid: EntityUid) -> Self {
        Self::Fixed(uid)
    }
}

/// Why a request asks for nothing that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No route fits.
    #[error("no route is known for this path and method")]
    Unknown,
    /// The path could be read in two ways.
    #[error("a path has no `..`, no `//`, no `%` and no `\\`")]
    Ambiguous,
    /// The parameters do not name the model.
    #[error("the parameters name no model")]
    NoModel,
}

impl RouteMap {
    /// Of these, the first that fits first.
    #[must_use]
    pub fn new(routes: Vec<Mapped>) -> Self {
        Self { routes }
    }

    /// That fits nothing yet.
    #[must_use]
    pub const fn empty() -> Self {
        Self { routes: Vec::new() }
    }

    /// With a route behind the others: requests with this method for this path ask for `action` on `resource`.
    #[must_use]
    pub fn on(
        mut self,
        method: impl Into<SmolStr>,
        path: impl Into<SmolStr>,
        action: impl Into<SmolStr>,
        resource: impl Into<Named>,
    ) -> Self {
        let method = Some(method.into());
        self.routes.push(Mapped { path: path.into(), method, action: action.into(), resource: resource.into() });
        self
    }

    /// What a request asks for; `param` finds a parameter by its name. Without a method, that of the first route whose
    /// path fits is meant. A path is compared as it was sent, byte for byte.
    ///
    /// # Errors
    /// Where that is nothing that is known.
    pub fn find<'p>(
        &self,
        path: &str,
        method: Option<&str>,
        param: impl Fn(&str) -> Option<&'p str>,
    ) -> Result<(SmolStr, EntityUid), RouteError> {
        let ambiguous = |path: &str| {
            !path.starts_with('/')
                || path.len() > MAX_PATH_BYTES
                || path.bytes().any(|byte| byte.is_ascii_control())
                || (path.ends_with('/') && path != "/")
                || is_read_in_two_ways(path)
        };
        if ambiguous(path) {
            return Err(RouteError::Ambiguous);
        }
        let fits = |route: &&Mapped| {
            let fits = |wanted: &SmolStr| method.is_none_or(|method| method == wanted);
            route.method.as_ref().is_none_or(fits)
                && match route.path.strip_suffix('*').filter(|beginning| beginning.ends_with('/')) {
                    Some(beginning) => path.strip_prefix(beginning).is_some_and(|rest| !rest.is_empty()),
                    None => path == route.path,
                }
        };
        let route = self.routes.iter().find(fits).ok_or(RouteError::Unknown)?;
        let resource = match &route.resource {
            Named::Fixed(uid) => uid.clone(),
            Named::Param(name) => {
                let name = param(name).ok_or(RouteError::NoModel)?;
                EntityUid::new("Model", name).map_err(|_| RouteError::NoModel)?
            }
        };
        Ok((route.action.clone(), resource))
    }
}

impl Default for RouteMap {
    /// Those of OpenAI and Anthropic.
    fn default() -> Self {
        let posts = [
            ("/v1/chat/completions", "chat"),
            ("/v1/responses", "chat"),
            ("/v1/messages", "chat"),
            ("/v1/completions", "complete"),
            ("/v1/embeddings", "embed"),
            ("/v1/images/*", "image"),
            ("/v1/audio/*", "audio"),
            ("/v1/rerank", "rerank"),
            ("/v1/moderations", "moderate"),
        ];
        let post = |(path, action): (&'static str, &'static str)| Mapped {
            path: SmolStr::new_static(path),
            method: Some(SmolStr::new_static("POST")),
            action: SmolStr::new_static(action),
            resource: Named::Param(SmolStr::new_static("model")),
        };
        let models = EntityUid::new("Router", "models").map(|router| Mapped {
            path: SmolStr::new_static("/v1/models"),
            method: Some(SmolStr::new_static("GET")),
            action: SmolStr::new_static("list"),
            resource: Named::Fixed(router),
        });
        Self { routes: posts.into_iter().map(post).chain(models).collect() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_method_say_what_is_asked() {
        let routes = RouteMap::default();
        let model = |name: &str| (name == "model").then_some("openai-main/gpt-4o");
        let found = |path: &str, method: Option<&str>| {
            routes.find(path, method, model).map(|(action, resource)| format!("{action} {resource}"))
        };
        let chat = Ok("chat Model::\"openai-main/gpt-4o\"".to_owned());
        assert_eq!(found("/v1/chat/completions", None), chat);
        assert_eq!(found("/v1/chat/completions", Some("POST")), chat);
        assert_eq!(found("/v1/messages", Some("POST")), chat);
        assert_eq!(found("/v1/audio/speech", None).unwrap(), "audio Model::\"openai-main/gpt-4o\"");
        assert_eq!(found("/v1/models", Some("GET")).unwrap(), "list Router::\"models\"");
        for (path, method, error) in [
            ("/v1/chat/completions", Some("GET"), RouteError::Unknown),
            ("/v1/chat/completions", Some("post"), RouteError::Unknown),
            ("/V1/chat/completions", None, RouteError::Unknown),
            ("/v1/chat/completions2", None, RouteError::Unknown),
            ("/v1/images/", None, RouteError::Ambiguous),
            ("/v1/images", None, RouteError::Unknown),
            ("/v1/chat/completions/", None, RouteError::Ambiguous),
            ("//v1/chat/completions", None, RouteError::Ambiguous),
            ("/v1/audio/../chat/completions", None, RouteError::Ambiguous),
            ("/v1/chat%2fcompletions", None, RouteError::Ambiguous),
            ("/v1/chat/completions?x", None, RouteError::Ambiguous),
            ("v1/chat/completions", None, RouteError::Ambiguous),
            ("", None, RouteError::Ambiguous),
            ("/", None, RouteError::Unknown),
        ] {
            assert_eq!(found(path, method), Err(error), "{path}");
        }
        assert_eq!(routes.find("/v1/messages", None, |_| None), Err(RouteError::NoModel));
    }
}
