//! Every operation, with its request and its answers.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{Operation, Schemas};
use crate::edge::http::answers::{
    AnyAnswer, BatchAnswer, Bundle, CedarAgentAnswer, Deleted, KeySet, Live, Ready, ValidateAnswer, Version,
};
use crate::edge::http::wire::schema::{
    AuthorizationRequest, BatchRequest, CedarAgentRequest, ChangeKeyRequest, ExtendRequest, NewKeyRequest,
    PasswordRequest, ReleaseRequest, ReloadRequest, RevokeRequest, RotateRequest, SettleRequest, TokenRequest,
    UsageRequestSchema, ValidateRequest,
};
use crate::edge::http::{books, errors, keys, passwords, spending, standing, tokens};

/// Every operation.
pub(super) fn all(schemas: &mut Schemas) -> Vec<Operation> {
    let mut all = Vec::new();
    all.extend(decisions(schemas));
    all.extend(reservations(schemas));
    all.extend(reports(schemas));
    all.extend(server(schemas));
    all.extend(listed_keys(schemas));
    all.extend(one_key(schemas));
    all.extend(passwords_of_users(schemas));
    all.extend(own_tokens(schemas));
    all
}

const TAKEN: &str =
    "The `idempotency_key` names another request, or one that is being answered (`idempotency_conflict`).";
const CEDAR_UID: &str = "Only of this one, as a Cedar uid.";

fn string() -> Value {
    json!({ "type": "string" })
}

fn decisions(schemas: &mut Schemas) -> [Operation; 4] {
    let (decision, error) = (schemas.answer::<AnyAnswer>(), schemas.error());
    let asked = json!({
        "principal": { "type": "User", "id": "alice" }, "action": "chat",
        "resource": { "type": "Model", "id": "openai-main/gpt-4o" }, "context": { "ip": "10.1.2.3" },
    });
    let as_texts =
        json!({ "principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"" });
    let budget = "A forbid for a budget, with `?status=map` and `decisions.budget_status: 402`; any other status from 400 to \
                  499 as configured, 403 unless configured.";
    let map = json!({ "type": "string", "enum": ["map"] });
    let delegated = json!({
        "api_key": "tg_…",
        "request": { "path": "/v1/chat/completions", "headers": {}, "params": { "model": "openai-main/gpt-4o" } },
    });
    let of_delegated = "A forbid, with `authorize`.";
    [
        Operation::new(
            "POST",
            "/is_authorized",
            "isAuthorized",
            "Whether a principal may do an action with a resource",
        )
        .parameter("status", "`map` gives a forbid a status of its own, with the same body.", map)
        .body(schemas.request::<AuthorizationRequest>(), asked)
        .reply(200, "A decision.", decision.clone())
        .reply(401, "A forbid for the credential, with `?status=map`.", decision.clone())
        .reply(402, budget, decision.clone())
        .reply(403, "A forbid, with `?status=map`.", decision.clone())
        .reply(409, TAKEN, error.clone())
        .reply(429, "A forbid for a rate or a concurrency, with `?status=map`.", decision.clone())
        .reply(503, "A forbid because a provider or store is away, with `?status=map`.", decision.clone()),
        Operation::new("POST", "/is_authorized/batch", "isAuthorizedBatch", "Many decisions of one revision, in order")
            .body(schemas.request::<BatchRequest>(), json!({ "requests": [as_texts] }))
            .reply(200, "The decisions.", schemas.answer::<BatchAnswer>())
            .reply(409, TAKEN, error),
        Operation::new("POST", "/v1/is_authorized", "cedarAgentIsAuthorized", "A decision in the form of cedar-agent")
            .body(schemas.request::<CedarAgentRequest>(), as_texts)
            .reply(200, "A decision.", schemas.answer::<CedarAgentAnswer>())
            .header(200, "X-Tollgate-Id", "The id of the decision."),
        Operation::new(
            "POST",
            "/v1/auth/validate",
            "validate",
            "The principal that a credential proves, for services that delegate authentication",
        )
        .body(schemas.request::<ValidateRequest>(), delegated)
        .reply(200, "The principal and its attributes.", schemas.answer::<ValidateAnswer>())
        .header(200, "X-Tollgate-Id", "The id of the decision, with `authorize`.")
        .reply(401, of_delegated, decision.clone())
        .reply(403, of_delegated, decision.clone())
        .reply(429, of_delegated, decision.clone())
        .reply(503, of_delegated, decision),
    ]
}

fn reservations(schemas: &mut Schemas) -> [Operation; 4] {
    let (closed, error) = (schemas.answer::<spending::Outcome>(), schemas.error());
    let unknown = "No reservation has this id (`reservation_unknown`).";
    let conflict = "It was closed otherwise before (`conflict`).";
    let id = "r-019ab6f0c2de7c3f9a4b5d6e7f801234";
    let usage = json!({ "input_tokens": 870, "output_tokens": 312 });
    let report = json!({
        "principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"", "usage": usage,
        "idempotency_key": "call-4711",
    });
    let of_reservation =
        |operation: Operation| operation.reply(404, unknown, error.clone()).reply(409, conflict, error.clone());
    [
        of_reservation(Operation::new(
            "POST",
            "/settle",
            "settle",
            "Charges what a reservation used, and gives back the rest",
        ))
        .body(schemas.request::<SettleRequest>(), json!({ "reservation": id, "usage": usage }))
        .reply(200, "The charge.", closed.clone()),
        of_reservation(Operation::new("POST", "/release", "release", "Gives back what a reservation held"))
            .body(schemas.request::<ReleaseRequest>(), json!({ "reservation": id }))
            .reply(200, "The reservation, released.", closed),
        of_reservation(Operation::new("POST", "/extend", "extend", "Lets a reservation live longer"))
            .body(schemas.request::<ExtendRequest>(), json!({ "reservation": id, "ttl_seconds": 600 }))
            .reply(200, "The new end of the reservation.", schemas.answer::<spending::Extended>()),
        Operation::new("POST", "/usage", "usage", "Charges what was spent without a reservation, in full")
            .body(schemas.request::<UsageRequestSchema>(), report)
            .reply(200, "The charge; of many reports, each by itself, in order.", schemas.answer::<UsageAnswer>())
            .reply(409, TAKEN, error.clone()),
    ]
}

/// An operation whose answer has pages.
fn paged(operation: Operation) -> Operation {
    let size = json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 });
    operation.parameter("page_size", "How many items a page has.", size).parameter(
        "after",
        "`next` of the page before.",
        string(),
    )
}

fn reports(schemas: &mut Schemas) -> [Operation; 2] {
    let day = || json!({ "type": "string", "format": "date" });
    let who = "A principal as a Cedar uid, percent-encoded: `User::\"alice\"`.";
    [
        paged(Operation::new("GET", "/usage", "usageReport", "What was spent, in days of UTC"))
            .parameter("from", "The first day. The default is the first of the month of `to`.", day())
            .parameter("to", "The last day. The default is today.", day())
            .parameter("by", "Comma-separated: `day` or `month`, `subject`, `model`, `limit`.", string())
            .parameter("principal", CEDAR_UID, string())
            .parameter("resource", "Only of this model or router, as a Cedar uid.", string())
            .parameter("limit", "Only what the limit of this id counted.", string())
            .reply(200, "One page.", schemas.answer::<books::Told>()),
        paged(Operation::new("GET", "/limits", "limits", "Where a principal's limits stand"))
            .required_parameter("principal", who, string())
            .reply(200, "One page.", schemas.answer::<standing::Told>()),
    ]
}

fn server(schemas: &mut Schemas) -> [Operation; 8] {
    let (ready, bundle, error) = (schemas.answer::<Ready>(), schemas.answer::<Bundle>(), schemas.error());
    let held = "It did not load (`reload_failed`) or waits to be acknowledged (`reload_held`); the bundle before goes on \
                deciding.";
    [
        Operation::new("GET", "/health/live", "live", "Whether the process answers").reply(
            200,
            "It does.",
            schemas.answer::<Live>(),
        ),
        Operation::new("GET", "/health/ready", "ready", "Whether a bundle decides")
            .reply(200, "A bundle is active; `degraded` and `reasons` report problems.", ready.clone())
            .reply(503, "There is no bundle yet.", ready),
        Operation::new("GET", "/metrics", "metrics", "Metrics in the text format of Prometheus")
            .text("text/plain", "The metrics."),
        Operation::new("GET", "/bundle", "bundle", "The bundle that decides, and the last load that failed").reply(
            200,
            "The bundle.",
            bundle.clone(),
        ),
        Operation::new("POST", "/bundle/reload", "reload", "Reads the directory now")
            .optional_body(schemas.request::<ReloadRequest>(), json!({ "acknowledge": "0123456789abcdef" }))
            .reply(200, "The files in the directory decide.", bundle.clone())
            .reply(202, "They are still being read.", bundle)
            .reply(409, held, error),
        Operation::new("GET", "/openapi.json", "openApi", "This description").reply(
            200,
            "The description.",
            json!({ "type": "object" }),
        ),
        Operation::new("GET", "/docs", "docs", "A page that shows this description").text("text/html", "The page."),
        Operation::new("GET", "/version", "version", "The version").reply(
            200,
            "The version.",
            schemas.answer::<Version>(),
        ),
    ]
}

fn strict(operation: Operation) -> Operation {
    let about = "Whether a model or router that the bundle does not know is an error instead of a warning.";
    operation.parameter("strict", about, json!({ "type": "boolean", "default": false }))
}

const NO_KEY: &str = "There is no such key, or none that the caller may manage, or the server keeps no keys.";

fn listed_keys(schemas: &mut Schemas) -> [Operation; 2] {
    let error = schemas.error();
    let example = json!({ "owner": "User::\"alice\"", "models": ["openai-main/*"], "note": "notebook" });
    [
        paged(Operation::new(
            "GET",
            "/v1/keys",
            "listKeys",
            "Keys by id: all for administrators, else the caller's own",
        ))
        .parameter("owner", CEDAR_UID, string())
        .reply(200, "One page.", schemas.answer::<keys::Page>())
        .reply(404, NO_KEY, error.clone()),
        strict(Operation::new("POST", "/v1/keys", "createKey", "Makes a key; only this answer contains its secret"))
            .optional_body(schemas.request::<NewKeyRequest>(), example)
            .reply(201, "The key.", schemas.answer::<keys::Told>())
            .reply(404, NO_KEY, error.clone())
            .reply(409, "The owner has as many keys as it may have.", error),
    ]
}

fn one_key(schemas: &mut Schemas) -> [Operation; 5] {
    let (key, error) = (schemas.answer::<keys::Told>(), schemas.error());
    let new = |method, path, id, summary| {
        Operation::new(method, path, id, summary).parameter("id", "The id of the key.", string()).reply(
            404,
            NO_KEY,
            error.clone(),
        )
    };
    let conflict = "The key was changed at the same time, or has ended.";
    [
        new("GET", "/v1/keys/{id}", "showKey", "A key").reply(200, "The key.", key.clone()),
        strict(new("PATCH", "/v1/keys/{id}", "changeKey", "Changes members of a key; null takes one back"))
            .optional_body(schemas.request::<ChangeKeyRequest>(), json!({ "disabled": true, "note": null }))
            .reply(200, "The key.", key.clone())
            .reply(409, conflict, error.clone()),
        new("DELETE", "/v1/keys/{id}", "deleteKey", "Deletes a key")
            .reply(200, "It is deleted.", schemas.answer::<Deleted>())
            .reply(409, conflict, error.clone()),
        new("POST", "/v1/keys/{id}/revoke", "revokeKey", "Ends a key, on every node within a second")
            .optional_body(schemas.request::<RevokeRequest>(), json!({ "reason": "it leaked" }))
            .reply(200, "The key.", key.clone())
            .reply(409, conflict, error.clone()),
        new("POST", "/v1/keys/{id}/rotate", "rotateKey", "Gives a key a new secret; only this answer contains it")
            .optional_body(schemas.request::<RotateRequest>(), json!({ "grace_seconds": 3600 }))
            .reply(200, "The key.", key)
            .reply(409, conflict, error.clone()),
    ]
}

fn passwords_of_users(schemas: &mut Schemas) -> [Operation; 3] {
    let (password, error) = (schemas.answer::<passwords::Told>(), schemas.error());
    let path = "/v1/users/{user}/password";
    let unknown = "There is no such user, or none that the caller may manage, or the server keeps no passwords.";
    let new = |method, id, summary| {
        Operation::new(method, path, id, summary)
            .parameter("user", "The id of the user, percent-encoded.", string())
            .reply(200, "Whether the user has a password.", password.clone())
            .reply(404, unknown, error.clone())
    };
    let elsewhere = "The password is set in the bundle or in an htpasswd file.";
    [
        new("GET", "showPassword", "Whether a user has a password"),
        new("PUT", "setPassword", "Sets the password of a user")
            .body(schemas.request::<PasswordRequest>(), json!({ "password": "correct horse battery staple" }))
            .reply(409, elsewhere, error.clone()),
        new("DELETE", "removePassword", "Removes the password of a user that was set here").reply(
            409,
            elsewhere,
            error.clone(),
        ),
    ]
}

fn own_tokens(schemas: &mut Schemas) -> [Operation; 2] {
    let error = schemas.error();
    let none = "This server issues no tokens.";
    let example = json!({ "grant_type": "refresh_token", "refresh_token": "tgr_…" });
    [
        Operation::new("POST", "/v1/token", "token", "Exchanges a credential for tokens of Tollgate's own")
            .optional_body(schemas.request::<TokenRequest>(), example)
            .or_form()
            .reply(200, "The tokens.", schemas.answer::<tokens::Wire>())
            .header(200, "Cache-Control", "`no-store`.")
            .reply(404, none, error.clone()),
        Operation::new("GET", "/.well-known/jwks.json", "keys_of_tokens", "The keys that verify Tollgate's own tokens")
            .reply(200, "A JSON Web Key Set.", schemas.answer::<KeySet>())
            .header(200, "Cache-Control", "For how long the keys may be cached.")
            .reply(404, none, error),
    ]
}

/// The charge of one report of usage, or of many.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes an answer")]
#[schemars(untagged, inline)]
enum UsageAnswer {
    /// The charge of one report.
    One(#[schemars(with = "spending::Outcome")] ()),
    Many(UsageAnswers),
}

/// The charges of many reports, in their order.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes an answer")]
#[schemars(inline)]
struct UsageAnswers {
    responses: Vec<UsageItem>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes an answer")]
#[schemars(untagged, inline)]
enum UsageItem {
    Charged(#[schemars(with = "spending::Outcome")] ()),
    Refused(#[schemars(with = "errors::Wire")] ()),
}
