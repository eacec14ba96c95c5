//! The description of the API in `/openapi.json`, made from the types of requests and answers and from the list of
//! operations.

mod operations;

use std::collections::BTreeMap;

use hyper::body::Bytes;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::caller::Access;
use super::errors;

/// The access that a route requires.
pub(super) struct RouteAccess {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) access: Access,
}

/// The document about these routes, as it is sent.
pub(super) fn text(routes: &[RouteAccess]) -> Bytes {
    document(routes).to_string().into()
}

const ABOUT: &str = "A decision is a 200, permit and forbid alike. An error is never a decision: a caller that gets one must \
                     not let the request through.";

fn document(routes: &[RouteAccess]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for operation in operations::all(&mut schemas) {
        let access = access(routes, &operation);
        let (path, method) = (operation.path, operation.method.to_lowercase());
        let described = operation.described(access, &mut schemas);
        if let Value::Object(methods) = paths.entry(path).or_insert_with(|| json!({})) {
            methods.insert(method, described);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The policy decision point for LLM gateways",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": ABOUT,
        },
        "paths": paths,
        "components": {
            "schemas": schemas.definitions(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A token, or a key." },
                "key": { "type": "apiKey", "in": "header", "name": "X-Api-Key" },
            },
        },
    })
}

/// The access that the route of an operation requires.
fn access(routes: &[RouteAccess], operation: &Operation) -> Access {
    let route = routes.iter().find(|route| (route.path, route.method) == (operation.path, operation.method));
    // INVARIANT: each operation has a route; a test compares them.
    route.map_or(Access::Itself, |route| route.access)
}

/// The schemas of requests and of answers. Both refer to one set of definitions.
struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    fn request<T: JsonSchema>(&mut self) -> Value {
        self.requests.subschema_for::<T>().to_value()
    }

    fn answer<T: JsonSchema>(&mut self) -> Value {
        let mut schema = self.answers.subschema_for::<T>().to_value();
        close(&mut schema);
        schema
    }

    fn error(&mut self) -> Value {
        self.answer::<errors::Wire>()
    }

    fn definitions(mut self) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(false);
        for (name, mut schema) in self.answers.take_definitions(false) {
            close(&mut schema);
            // A schema of both would describe two types by one name.
            debug_assert!(!all.contains_key(&name), "{name} describes a request and an answer");
            all.insert(name, schema);
        }
        all
    }
}

/// Makes the schema of an answer exact: an answer has no other members, and leaves an absent member out where it could
/// be null.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let required = members.get("required").cloned().unwrap_or_default();
            let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|one| one == name));
            if let Some(Value::Object(properties)) = members.get_mut("properties") {
                properties.iter_mut().filter(|(name, _)| !is_required(name)).for_each(|(_, schema)| not_null(schema));
                members.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Takes null from the types of a schema.
fn not_null(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = &**types {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = &**choices {
            let only = only.clone();
            members.remove("anyOf");
            members.extend(only);
        }
    }
}

/// The body of a request.
struct Body {
    is_required: bool,
    schema: Value,
    example: Value,
    /// Whether the body may also be a form with the same names.
    may_be_form: bool,
}

/// The answers with one status.
struct Reply {
    description: String,
    content_type: &'static str,
    schemas: Vec<Value>,
    headers: Map<String, Value>,
}

/// A path and a method.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    body: Option<Body>,
    replies: BTreeMap<u16, Reply>,
}

const JSON: &str = "application/json";

impl Operation {
    fn new(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self { method, path, id, summary, parameters: Vec::new(), body: None, replies: BTreeMap::new() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "schemas are made where they are passed")]
    fn parameter(mut self, name: &str, description: &str, schema: Value) -> Self {
        let within = if self.path.contains(&format!("{{{name}}}")) { "path" } else { "query" };
        let parameter = json!({
            "name": name, "in": within, "required": within == "path", "description": description, "schema": schema,
        });
        self.parameters.push(parameter);
        self
    }

    /// A parameter of the query that must be there.
    fn required_parameter(self, name: &str, description: &str, schema: Value) -> Self {
        let mut with = self.parameter(name, description, schema);
        if let Some(Value::Object(parameter)) = with.parameters.last_mut() {
            parameter.insert("required".to_owned(), true.into());
        }
        with
    }

    fn body(self, schema: Value, example: Value) -> Self {
        Self { body: Some(Body { is_required: true, schema, example, may_be_form: false }), ..self }
    }

    fn optional_body(self, schema: Value, example: Value) -> Self {
        Self { body: Some(Body { is_required: false, schema, example, may_be_form: false }), ..self }
    }

    fn or_form(mut self) -> Self {
        if let Some(body) = &mut self.body {
            body.may_be_form = true;
        }
        self
    }

    /// Adds answers with `status`, beside those that it has.
    fn reply(mut self, status: u16, description: &str, schema: Value) -> Self {
        let reply = self.replies.entry(status).or_insert_with(|| Reply {
            description: String::new(),
            content_type: JSON,
            schemas: Vec::new(),
            headers: Map::new(),
        });
        if !reply.description.is_empty() {
            reply.description.push_str(" Or: ");
        }
        reply.description.push_str(description);
        if !reply.schemas.contains(&schema) {
            reply.schemas.push(schema);
        }
        // Each answer with these statuses has it.
        if matches!(status, 429 | 503) && self.path != "/health/ready" {
            return self.header(status, "Retry-After", "Seconds after which to try again.");
        }
        self
    }

    fn text(self, content_type: &'static str, description: &str) -> Self {
        let mut with = self.reply(200, description, json!({ "type": "string" }));
        if let Some(reply) = with.replies.get_mut(&200) {
            reply.content_type = content_type;
        }
        with
    }

    fn header(mut self, status: u16, name: &str, description: &str) -> Self {
        let kind = if name == "Retry-After" { "integer" } else { "string" };
        if let Some(reply) = self.replies.get_mut(&status) {
            reply.headers.insert(name.to_owned(), json!({ "description": description, "schema": { "type": kind } }));
        }
        self
    }

    /// The operation with the errors that follow from its body and from the right that it takes.
    fn described(self, access: Access, schemas: &mut Schemas) -> Value {
        let has_body = self.body.is_some();
        let error = schemas.error();
        let mut with = self.reply(400, "The request is invalid; `param` names its member.", error.clone());
        if has_body {
            with = with.reply(408, "The body did not arrive in time.", error.clone());
            with = with.reply(413, "The body or the batch exceeds its limit.", error.clone());
        }
        let unauthenticated = "The caller must prove itself and has not.";
        if access != Access::Everybody || with.path == "/v1/token" {
            with = with.reply(401, unauthenticated, error.clone());
            with = with.header(401, "WWW-Authenticate", "A challenge for each kind of credential that is taken.");
            with = with.reply(403, "The caller may not do this.", error.clone());
            with = with.reply(429, "Too many credentials of this source were refused.", error.clone());
            with = with.reply(503, "There is no bundle, or a store or the provider of the credential is away.", error);
        }
        with.written(access)
    }

    fn written(self, access: Access) -> Value {
        let replies: Map<String, Value> =
            self.replies.into_iter().map(|(status, reply)| (status.to_string(), reply.written())).collect();
        let mut operation = Map::new();
        let mut put = |name: &str, value: Value| operation.insert(name.to_owned(), value);
        put("operationId", self.id.into());
        put("summary", self.summary.into());
        put("description", right(access).into());
        put("responses", replies.into());
        if !self.parameters.is_empty() {
            put("parameters", self.parameters.into());
        }
        if let Some(body) = self.body {
            put("requestBody", body.written());
        }
        let (bearer, key) = (json!({ "bearer": [] }), json!({ "key": [] }));
        match access {
            Access::Everybody => None,
            Access::Itself => put("security", json!([bearer, key])),
            _ => put("security", json!([bearer, key, {}])),
        };
        operation.into()
    }
}

impl Body {
    fn written(self) -> Value {
        let mut content = Map::new();
        if self.may_be_form {
            content.insert("application/x-www-form-urlencoded".to_owned(), json!({ "schema": self.schema }));
        }
        content.insert(JSON.to_owned(), json!({ "schema": self.schema, "example": self.example }));
        json!({ "required": self.is_required, "content": content })
    }
}

impl Reply {
    fn written(mut self) -> Value {
        let schema = match (self.schemas.pop(), self.schemas.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                self.schemas.extend(last);
                json!({ "anyOf": self.schemas })
            }
        };
        json!({
            "description": self.description, "headers": self.headers,
            "content": { self.content_type: { "schema": schema } },
        })
    }
}

/// The right that a route takes, for people.
fn right(access: Access) -> &'static str {
    match access {
        Access::Everybody => "Open to every caller.",
        Access::Check => {
            "For gateways, which may ask about any principal; other callers may ask about themselves. On a server that is \
             open, as on loopback, no credential is needed."
        }
        Access::Gateway => "For gateways. On a server that is open, as on loopback, no credential is needed.",
        Access::Standing => {
            "For gateways, and for callers that may view the usage of the `principal`. On a server that is open, as on \
             loopback, no credential is needed."
        }
        Access::Usage => {
            "For monitors, and for callers that may view the usage of the `principal`. On a server that is open, as on \
             loopback, no credential is needed."
        }
        Access::Monitor => "For monitors. On a server that is open, as on loopback, no credential is needed.",
        Access::Administrator => {
            "For administrators. On a server that is open, as on loopback, no credential is needed."
        }
        Access::Itself => "Always with a credential; policy decides what its principal may manage.",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_lists_exactly_the_routes() {
        let described: BTreeSet<(&str, &str)> =
            operations::all(&mut Schemas::new()).iter().map(|one| (one.path, one.method)).collect();
        assert_eq!(described, crate::edge::http::routes().collect());
    }

    #[test]
    fn references_lead_to_schemas_and_each_schema_is_used() {
        let document = document(&[]);
        let mut referenced = BTreeSet::new();
        references(&document, &mut referenced);
        let known = document["components"]["schemas"].as_object().unwrap();
        assert_eq!(referenced, known.keys().map(|name| format!("#/components/schemas/{name}")).collect());
    }

    /// schemars numbers the definitions of different types that have one name.
    #[test]
    fn each_type_has_a_name_of_its_own() {
        let schemas = document(&[])["components"]["schemas"].take();
        let numbered = |name: &&String| name.ends_with(|last: char| last.is_ascii_digit());
        assert_eq!(schemas.as_object().unwrap().keys().find(numbered), None);
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
}
