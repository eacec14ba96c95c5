//! From the path and method of a gateway's request to what is asked: an action, and where the name of its resource
//! stands. Pure. Paths are compared in their normal form ([`RequestPath`]); one that has none has no route.

use smol_str::{SmolStr, format_smolstr};

use crate::model::{EntityUid, Kind, PathError, RequestPath, normal_pattern};
use crate::policy::Snapshot;
use crate::policy::snapshot::ResourceName;

/// Most routes of a map.
pub const MAX_ROUTES: usize = 1_000;
/// The placeholder for the model's name in a path.
const MODEL: &str = "{model}";

/// What requests of a gateway ask for, the first route that fits first; what no route fits nobody may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMap {
    routes: Vec<(Option<PathPattern>, Mapped)>,
    /// Whether the routes were configured, and some of them charge limits.
    charges: bool,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// `/v1/chat/completions`; a `/*` at the end takes every rest of one segment or more. `{model}` stands for the name of
    /// a model, within one segment: `/v1beta/models/{model}:generateContent`. One that is no pattern fits nothing.
    pub path: SmolStr,
    /// Its method, in capitals; any, where none is said.
    pub method: Option<SmolStr>,
    /// The action.
    pub action: SmolStr,
    /// The resource.
    pub resource: Named,
    /// The account of models that are named without one, unless the name is an alias.
    pub account: Option<SmolStr>,
    /// How limits are counted.
    pub limits: RouteLimits,
}

/// Where the name of a resource stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A model, in this member of the parameters. Where the path names it too, both must name the same one.
    Param(SmolStr),
    /// Like `Param`, with a resource for requests whose parameters name none.
    ParamOr(SmolStr, EntityUid),
    /// Always this one.
    Fixed(EntityUid),
}

impl From<EntityUid> for Named {
    fn from(uid: EntityUid) -> Self {
        Self::Fixed(uid)
    }
}

/// How the limits that apply to a request of a gateway are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouteLimits {
    /// One request and the estimate are counted at once.
    #[default]
    Charge,
    /// Limits are checked but not charged.
    Check,
}

/// A path with at most one `{model}` in it, and perhaps any rest behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PathPattern {
    segments: Box<[Segment]>,
    /// Whether one segment or more follows.
    rest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Exact(SmolStr),
    /// A name with this before and that behind it.
    Model(SmolStr, SmolStr),
}

/// Why a text is no path of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No request has such a path.
    #[error("no request can have this path: {0}")]
    Path(#[from] PathError),
    /// A `*` elsewhere than in a `/*` at the end.
    #[error("a `*` is allowed only in a `/*` at the end of a path")]
    Wildcard,
    /// A `/` at the end.
    #[error("a path must not end with `/`; `/*` at its end matches every rest")]
    Slash,
    /// Something else in braces than one `{model}`.
    #[error("a path has at most one `{{model}}`, and nothing else in braces")]
    Template,
}

/// Why a request asks for nothing that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No route fits.
    #[error("no route is known for this path and method")]
    Unknown,
    /// The path could be read in two ways.
    #[error(transparent)]
    Ambiguous(#[from] PathError),
    /// The parameters do not name the model.
    #[error("the parameters name no model")]
    NoModel,
    /// The text is not a valid model name.
    #[error("the name of the model is not valid")]
    InvalidModel,
    /// The path names one model and the parameters another.
    #[error("the path names one model and the parameters name another")]
    TwoModels,
}

/// The action and resource of a request, before names are looked up in a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The action.
    pub action: SmolStr,
    /// How limits are counted.
    pub limits: RouteLimits,
    resource: FoundResource,
}

#[derive(Debug, Clone, PartialEq)]
enum FoundResource {
    Fixed(EntityUid),
    Model {
        name: SmolStr,
        /// The name in the parameters, if the path also names the model.
        also: Option<SmolStr>,
        account: Option<SmolStr>,
    },
}

impl Found {
    /// An action on a resource.
    #[must_use]
    pub fn fixed(action: SmolStr, resource: EntityUid) -> Self {
        Self { action, limits: RouteLimits::default(), resource: FoundResource::Fixed(resource) }
    }

    /// The resource. A model that is named without an account is resolved as an alias, or else belongs to the account
    /// of its route.
    ///
    /// # Errors
    /// Returns an error if the text is not a valid model name, or if two models are named.
    pub fn resource(&self, snapshot: &Snapshot) -> Result<EntityUid, RouteError> {
        let (name, also, account) = match &self.resource {
            FoundResource::Fixed(uid) => return Ok(uid.clone()),
            FoundResource::Model { name, also, account } => (name, also.as_ref(), account.as_ref()),
        };
        let qualified = |name: &SmolStr| match account {
            Some(account) if !name.contains('/') && matches!(snapshot.model(name), ResourceName::Unknown) => {
                format_smolstr!("{account}/{name}")
            }
            _ => name.clone(),
        };
        let real = |name: &SmolStr| match snapshot.model(name) {
            ResourceName::Resource(subject) | ResourceName::Disabled(subject) => {
                snapshot.store.name_of(&subject).1.clone()
            }
            ResourceName::Unknown => name.clone(),
        };
        let name = qualified(name);
        let uid = Kind::MODEL.uid(name.clone()).map_err(|_| RouteError::InvalidModel)?;
        match also.map(qualified) {
            Some(also) if real(&also) != real(&name) => Err(RouteError::TwoModels),
            _ => Ok(uid),
        }
    }
}

/// A path that fits a pattern.
struct Fitting<'p> {
    /// The model that it names, where the pattern has a place for one.
    model: Option<&'p str>,
}

impl PathPattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let (text, rest) = match text.strip_suffix("/*") {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if rest && text.is_empty() {
            return Ok(Self { segments: Box::default(), rest });
        }
        let path = normal_pattern(text, false)?;
        if path.contains('*') {
            return Err(PatternError::Wildcard);
        }
        if path.len() > 1 && path.ends_with('/') {
            return Err(PatternError::Slash);
        }
        let braces = |text: &str| text.bytes().filter(|byte| matches!(byte, b'{' | b'}')).count();
        let is_template = path.contains(MODEL);
        // Braces that were decoded from an escape are not part of a template either.
        if braces(&path) != braces(text) || braces(&path) != usize::from(is_template) * 2 {
            return Err(PatternError::Template);
        }
        let segment = |segment: &str| match segment.split_once(MODEL) {
            Some((before, behind)) => Segment::Model(before.into(), behind.into()),
            None => Segment::Exact(segment.into()),
        };
        Ok(Self { segments: path.split('/').skip(1).map(segment).collect(), rest })
    }

    /// Matches `path` against this pattern.
    fn fits<'p>(&self, path: &'p str) -> Option<Fitting<'p>> {
        let mut parts = path.split('/').skip(1);
        let mut model = None;
        for segment in &self.segments {
            let part = parts.next()?;
            match segment {
                Segment::Exact(exact) if exact == part => {}
                Segment::Exact(_) => return None,
                Segment::Model(before, behind) => {
                    let name = part.strip_prefix(before.as_str())?.strip_suffix(behind.as_str())?;
                    model = Some(Some(name).filter(|name| !name.is_empty())?);
                }
            }
        }
        let more = parts.next();
        // A path has an empty segment only at its end, so no segment of the rest is empty.
        let ends = if self.rest { more.is_some() && !path.ends_with('/') } else { more.is_none() };
        ends.then_some(Fitting { model })
    }
}

/// Whether a text may be the path of a route.
///
/// # Errors
/// Returns an error that describes the problem.
pub fn check_route_path(path: &str) -> Result<bool, PatternError> {
    let pattern = PathPattern::parse(path)?;
    Ok(pattern.segments.iter().any(|segment| matches!(segment, Segment::Model(..))))
}

impl RouteMap {
    /// Of these, the first that fits first.
    #[must_use]
    pub fn new(routes: Vec<Mapped>) -> Self {
        let charges = routes.iter().any(|route| route.limits == RouteLimits::Charge);
        Self {
            routes: routes.into_iter().map(|route| (PathPattern::parse(&route.path).ok(), route)).collect(),
            charges,
        }
    }

    /// Whether the configuration has routes that charge limits. The default routes charge too, for callers that ask for
    /// it.
    #[must_use]
    pub const fn charges(&self) -> bool {
        self.charges
    }

    /// That fits nothing yet.
    #[must_use]
    pub const fn empty() -> Self {
        Self { routes: Vec::new(), charges: false }
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
        let (path, method, action, resource) = (path.into(), Some(method.into()), action.into(), resource.into());
        let (account, limits) = (None, RouteLimits::default());
        let pattern = PathPattern::parse(&path).ok();
        self.routes.push((pattern, Mapped { path, method, action, resource, account, limits }));
        self
    }

    /// The action and resource of a request without a bundle to resolve aliases; see [`RouteMap::look_up`].
    ///
    /// # Errors
    /// Where that is nothing that is known.
    pub fn find<'p>(
        &self,
        path: &str,
        method: Option<&str>,
        param: impl Fn(&str) -> Option<&'p str>,
    ) -> Result<(SmolStr, EntityUid), RouteError> {
        let found = self.look_up(path, method, param)?;
        let resource = match found.resource {
            FoundResource::Fixed(uid) => uid,
            FoundResource::Model { name, account, .. } => {
                let account = account.filter(|_| !name.contains('/'));
                let name = account.map_or_else(|| name.clone(), |account| format_smolstr!("{account}/{name}"));
                Kind::MODEL.uid(name).map_err(|_| RouteError::InvalidModel)?
            }
        };
        Ok((found.action, resource))
    }

    /// The action and resource of a request; `param` finds a parameter by its name. Without a method, the first route
    /// with a matching path applies.
    ///
    /// # Errors
    /// Returns an error if no route matches.
    pub fn look_up<'p>(
        &self,
        path: &str,
        method: Option<&str>,
        param: impl Fn(&str) -> Option<&'p str>,
    ) -> Result<Found, RouteError> {
        let path = RequestPath::parse(path)?;
        let fits = |(pattern, route): &(Option<PathPattern>, Mapped)| {
            let fits = |wanted: &SmolStr| method.is_none_or(|method| method == wanted);
            let model = pattern.as_ref()?.fits(path.as_str())?.model.map(SmolStr::new);
            route.method.as_ref().is_none_or(fits).then(|| (route.clone(), model))
        };
        let (route, in_path) = self.routes.iter().find_map(fits).ok_or(RouteError::Unknown)?;
        let said = |name: &SmolStr| param(name).map(SmolStr::new);
        let model = |name, also| FoundResource::Model { name, also, account: route.account.clone() };
        let resource = match (in_path, &route.resource) {
            (_, Named::Fixed(uid)) => FoundResource::Fixed(uid.clone()),
            (Some(name), Named::Param(also) | Named::ParamOr(also, _)) => model(name, said(also)),
            (None, Named::Param(name)) => model(said(name).ok_or(RouteError::NoModel)?, None),
            (None, Named::ParamOr(name, otherwise)) => match said(name) {
                Some(name) => model(name, None),
                None => FoundResource::Fixed(otherwise.clone()),
            },
        };
        Ok(Found { action: route.action, limits: route.limits, resource })
    }
}

/// The paths of OpenAI and Anthropic, of Azure, Gemini and Bedrock, and the actions that they ask for with POST.
const USUAL: [(&str, &str); 21] = [
    ("/v1/chat/completions", "chat"),
    ("/v1/responses", "chat"),
    ("/v1/messages", "chat"),
    ("/v1/completions", "complete"),
    ("/v1/embeddings", "embed"),
    ("/v1/images/*", "image"),
    ("/v1/audio/*", "audio"),
    ("/v1/rerank", "rerank"),
    ("/v1/moderations", "moderate"),
    ("/openai/deployments/{model}/chat/completions", "chat"),
    ("/openai/deployments/{model}/completions", "complete"),
    ("/openai/deployments/{model}/embeddings", "embed"),
    ("/openai/deployments/{model}/images/*", "image"),
    ("/openai/deployments/{model}/audio/*", "audio"),
    ("/v1beta/models/{model}:generateContent", "chat"),
    ("/v1beta/models/{model}:streamGenerateContent", "chat"),
    ("/v1beta/models/{model}:embedContent", "embed"),
    ("/model/{model}/converse", "chat"),
    ("/model/{model}/converse-stream", "chat"),
    ("/model/{model}/invoke", "chat"),
    ("/model/{model}/invoke-with-response-stream", "chat"),
];

impl Default for RouteMap {
    /// Those of OpenAI, Anthropic, Azure, Gemini and Bedrock.
    fn default() -> Self {
        let post = |map: Self, (path, action): (&'static str, &'static str)| {
            let model = Named::Param(SmolStr::new_static("model"));
            map.on("POST", SmolStr::new_static(path), SmolStr::new_static(action), model)
        };
        let map = USUAL.into_iter().fold(Self::empty(), post);
        match Kind::ROUTER.uid("models") {
            Ok(router) => map.on("GET", "/v1/models", "list", router),
            Err(_) => map,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::{Bundle, SourceFile};

    fn snapshot() -> Arc<Snapshot> {
        let text = "provider_accounts: [{ id: az, models: [{ name: gpt, aliases: [best] }] }]\n\
                    authz_rules: [{ users: [a], models: \"*\" }]\n";
        let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
        crate::policy::load::load(&bundle).unwrap().snapshot
    }

    fn asked(routes: &RouteMap, path: &str, method: Option<&str>, model: Option<&str>) -> Result<String, RouteError> {
        let found = routes.look_up(path, method, |name| model.filter(|_| name == "model"))?;
        Ok(format!("{} {}", found.action, found.resource(&snapshot())?))
    }

    #[test]
    fn a_path_and_a_method_say_what_is_asked() {
        let routes = RouteMap::default();
        let found = |path: &str, method| asked(&routes, path, method, Some("openai-main/gpt-4o"));
        let chat = Ok("chat Model::\"openai-main/gpt-4o\"".to_owned());
        assert_eq!(found("/v1/chat/completions", None), chat);
        assert_eq!(found("/v1/chat/completions", Some("POST")), chat);
        assert_eq!(found("/v1/chat/completions?api-version=1", Some("POST")), chat);
        assert_eq!(found("/v1/%63hat/completions", Some("POST")), chat);
        assert_eq!(found("/v1/messages", Some("POST")), chat);
        assert_eq!(found("/v1/audio/speech", None).unwrap(), "audio Model::\"openai-main/gpt-4o\"");
        assert_eq!(found("/v1/models", Some("GET")).unwrap(), "list Router::\"models\"");
        for (path, method, error) in [
            ("/v1/chat/completions", Some("GET"), RouteError::Unknown),
            ("/v1/chat/completions", Some("post"), RouteError::Unknown),
            ("/V1/chat/completions", None, RouteError::Unknown),
            ("/v1/chat/completions2", None, RouteError::Unknown),
            ("/v1/images/", None, RouteError::Unknown),
            ("/v1/images/x/", None, RouteError::Unknown),
            ("/v1/images", None, RouteError::Unknown),
            ("/v1/chat/completions/", None, RouteError::Unknown),
            ("/", None, RouteError::Unknown),
            ("//v1/chat/completions", None, PathError::EmptySegment.into()),
            ("/v1/audio/../chat/completions", None, PathError::DotSegment.into()),
            ("/v1/chat%2fcompletions", None, PathError::Escape.into()),
            ("/v1/chat/completions\n", None, PathError::Control.into()),
            ("/v1/chat/completions;x", None, PathError::Delimiter.into()),
            ("v1/chat/completions", None, PathError::Relative.into()),
            ("", None, PathError::Relative.into()),
        ] {
            assert_eq!(found(path, method), Err(error), "{path}");
        }
        assert_eq!(routes.find("/v1/messages", None, |_| None), Err(RouteError::NoModel));
    }

    #[test]
    fn a_path_may_name_the_model() {
        let mut route = Mapped {
            path: "/openai/deployments/{model}/chat/completions".into(),
            method: None,
            action: "chat".into(),
            resource: Named::Param("model".into()),
            account: Some("az".into()),
            limits: RouteLimits::Charge,
        };
        let azure = RouteMap::new(vec![route.clone()]);
        let found = |name: &str, also| {
            let path = format!("/openai/deployments/{name}/chat/completions?api-version=2024-10-21");
            asked(&azure, &path, Some("POST"), also)
        };
        assert_eq!(found("gpt", None).unwrap(), "chat Model::\"az/gpt\"");
        assert_eq!(found("best", None).unwrap(), "chat Model::\"best\"");
        assert_eq!(found("gpt-5", None).unwrap(), "chat Model::\"az/gpt-5\"");
        for same in ["gpt", "az/gpt", "best", "az/best"] {
            assert_eq!(found("gpt", Some(same)).unwrap(), "chat Model::\"az/gpt\"", "{same}");
        }
        assert_eq!(found("gpt", Some("other")), Err(RouteError::TwoModels));
        assert_eq!(found("gpt", Some("other/gpt")), Err(RouteError::TwoModels));
        assert_eq!(found("a%2Fb", None), Err(PathError::Escape.into()));
        assert_eq!(found("a/b", None), Err(RouteError::Unknown));
        route.path = "/x/{model}/*".into();
        let below = RouteMap::new(vec![route]);
        assert_eq!(asked(&below, "/x/gpt/y/z", None, None).unwrap(), "chat Model::\"az/gpt\"");
        assert_eq!(asked(&below, "/x/gpt", None, None), Err(RouteError::Unknown));
        let usual = RouteMap::default();
        for (path, expected) in [
            ("/openai/deployments/best/embeddings", "embed Model::\"best\""),
            ("/v1beta/models/best:generateContent", "chat Model::\"best\""),
            ("/v1beta/models/best:streamGenerateContent?alt=sse", "chat Model::\"best\""),
            ("/model/best/converse", "chat Model::\"best\""),
            ("/model/eu.anthropic.claude-v1%3A0/invoke", "chat Model::\"eu.anthropic.claude-v1:0\""),
        ] {
            assert_eq!(asked(&usual, path, Some("POST"), None).unwrap(), expected, "{path}");
        }
        assert_eq!(asked(&usual, "/v1beta/models/:generateContent", None, None), Err(RouteError::Unknown));
    }

    #[test]
    fn a_router_stands_where_no_model_is_named() {
        let router: EntityUid = "Router::\"ogx\"".parse().unwrap();
        let routes = RouteMap::empty().on("POST", "/v1/*", "chat", Named::ParamOr("model".into(), router));
        assert_eq!(asked(&routes, "/v1/x", None, None).unwrap(), "chat Router::\"ogx\"");
        assert_eq!(asked(&routes, "/v1/x", None, Some("a/b")).unwrap(), "chat Model::\"a/b\"");
    }

    #[test]
    fn a_path_of_a_route_is_one_that_a_request_can_have() {
        for (path, names_model) in
            [("/", false), ("/*", false), ("/v1/x", false), ("/a/{model}", true), ("/a/x{model}y/*", true)]
        {
            assert_eq!(check_route_path(path), Ok(names_model), "{path}");
        }
        for (path, error) in [
            ("v1", PatternError::Path(PathError::Relative)),
            ("*", PatternError::Path(PathError::Relative)),
            ("/v1*", PatternError::Wildcard),
            ("/a/*/b", PatternError::Wildcard),
            ("/a/%2A", PatternError::Wildcard),
            ("/a/", PatternError::Slash),
            ("/a?b", PatternError::Path(PathError::Delimiter)),
            ("/a/../b", PatternError::Path(PathError::DotSegment)),
            ("/{model}/{model}", PatternError::Template),
            ("/{name}", PatternError::Template),
            ("/{model", PatternError::Template),
            ("/%7Bmodel%7D", PatternError::Template),
        ] {
            assert_eq!(check_route_path(path), Err(error), "{path}");
        }
    }
}
