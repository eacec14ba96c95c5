//! `keys`: API keys of a running server, and keys for a bundle.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::asking::{Failure, encoded, read_credential};
use super::output::{self, Exit, shown};
use super::server::{self, Asked, NOTHING, ServerArguments};
use crate::edge::random;
use crate::model::{EntityUid, KeyText, bundle_key_hash, key_hash_text, key_text, strict_json};

const PATH_HELP: &str =
    r#"A path of the gateway that it may be used for; with methods as JSON: '{"path": "/v1/x", "methods": ["POST"]}'"#;
/// What may be taken back of a key.
const CLEARED: [&str; 12] = [
    "models",
    "routers",
    "actions",
    "paths",
    "networks",
    "limits",
    "tags",
    "roles",
    "metadata",
    "team",
    "expires_at",
    "note",
];

const EXAMPLE: &str = "\
Examples:
  export TOLLGATE_TOKEN=tg_…            the administrator's key, or one of your own
  tollgate keys create --owner 'Service::\"support-bot\"' --model 'openai-main/*' --expires-at 2027-01-01T00:00:00Z
  tollgate keys create --path /v1/models --path '{\"path\": \"/v1/chat/*\", \"methods\": [\"POST\"]}'
  tollgate keys rotate 3JxqPZ0aTn4L --grace-seconds 3600
  tollgate keys change 3JxqPZ0aTn4L --disable
  tollgate keys revoke 3JxqPZ0aTn4L --reason 'it was in a log'
  tollgate keys hash ci                 a key for a bundle in git, and its hash

Exit codes: 0 done, 1 the server refuses, 2 usage, or no server answers.";

/// Manage API keys
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct KeysArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key; it is printed once
    Create(CreateArguments),
    /// List keys
    List(ListArguments),
    /// Show a key
    Show(OneArguments),
    /// Change what a key is narrowed to, or what is said of it
    Change(ChangeArguments),
    /// End a key
    Revoke(RevokeArguments),
    /// Give a key a new secret; it is printed once
    Rotate(RotateArguments),
    /// Forget a key
    Delete(OneArguments),
    /// Make a key for a bundle, and the hash to commit; asks no server
    Hash(HashArguments),
}

/// What is said of a key.
#[derive(Debug, Args)]
struct SaidArguments {
    /// A model that it may use, an alias, account/*; say it again for more
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// A router that it may use
    #[arg(long = "router", value_name = "ROUTER")]
    routers: Vec<String>,
    /// An action that it may do
    #[arg(long = "action", value_name = "ACTION")]
    actions: Vec<String>,
    #[arg(long = "path", value_name = "PATH", value_parser = path, help = PATH_HELP)]
    paths: Vec<Value>,
    /// A network that it may be used from
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// A tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A role of Tollgate's: tollgate:gateway, tollgate:monitor, tollgate:administrator
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Its own limits, as JSON: '[{"budget": {"usd": 5, "every": "month"}}]'
    #[arg(long, value_name = "JSON")]
    limits: Option<String>,
    /// The team that pays
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// When it ends, in RFC 3339
    #[arg(long, value_name = "INSTANT")]
    expires_at: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// What a gateway is told as metadata, name=value
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct CreateArguments {
    /// Whose it is: User::"alice", Service::"bot", Team::"research", Org::"acme" [default: who asks]
    #[arg(long, value_name = "UID")]
    owner: Option<EntityUid>,
    #[command(flatten)]
    said: SaidArguments,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Only of this owner
    #[arg(long, value_name = "UID")]
    owner: Option<EntityUid>,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct OneArguments {
    /// The key's public id
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct ChangeArguments {
    /// The key's public id
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// What is taken back
    #[arg(long, value_name = "MEMBER", value_parser = PossibleValuesParser::new(CLEARED))]
    clear: Vec<String>,
    /// Pause the key: it authenticates no request until it is enabled again
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Lift the pause
    #[arg(long)]
    enable: bool,
    #[command(flatten)]
    said: SaidArguments,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct RevokeArguments {
    /// The key's public id
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct RotateArguments {
    /// The key's public id
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// For how long the secret before works too
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    grace_seconds: u64,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct HashArguments {
    /// The key's id in the bundle
    #[arg(value_name = "ID")]
    id: String,
    /// The file of a key that there is already, whose hash is printed
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

fn id(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_id = (1..=128).contains(&text.len()) && text.bytes().all(plain);
    if is_id {
        Ok(text.to_owned())
    } else {
        Err("the id of a key is what stands between `tg_` and the last `_`".to_owned())
    }
}

/// A path, or the JSON of one with its methods.
fn path(text: &str) -> Result<Value, String> {
    if !text.starts_with('{') {
        return Ok(text.into());
    }
    strict_json::from_slice(text.as_bytes()).map_err(|error| format!("what begins with a brace is JSON: {error}"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "expected name=value".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

pub(super) fn run(arguments: &KeysArguments) -> ExitCode {
    let done = match &arguments.command {
        Command::Hash(arguments) => return hash(arguments),
        Command::Create(create) => {
            let mut body = create.said.body();
            if let (Ok(body), Some(owner)) = (&mut body, &create.owner) {
                body.members.insert("owner".to_owned(), owner.to_string().into());
            }
            body.and_then(|body| create.server.ask(Method::POST, "/v1/keys", Some(&body)))
        }
        Command::List(list) => list.pages(),
        Command::Show(one) => one.server.ask(Method::GET, &format!("/v1/keys/{}", one.id), NOTHING),
        Command::Change(change) => {
            let body = change.said.body().map(|mut body| {
                body.members.extend(change.clear.iter().map(|member| (member.clone(), Value::Null)));
                if change.disable || change.enable {
                    body.members.insert("disabled".to_owned(), change.disable.into());
                }
                body
            });
            body.and_then(|body| change.server.ask(Method::PATCH, &format!("/v1/keys/{}", change.id), Some(&body)))
        }
        Command::Revoke(revoke) => {
            let members = revoke.reason.iter().map(|reason| ("reason".to_owned(), json!(reason))).collect();
            let body = Body { members, limits: None };
            revoke.server.ask(Method::POST, &format!("/v1/keys/{}/revoke", revoke.id), Some(&body))
        }
        Command::Rotate(rotate) => {
            let body = Body::of("grace_seconds", json!(rotate.grace_seconds));
            rotate.server.ask(Method::POST, &format!("/v1/keys/{}/rotate", rotate.id), Some(&body))
        }
        Command::Delete(one) => one.server.ask(Method::DELETE, &format!("/v1/keys/{}", one.id), NOTHING),
    };
    server::told(done, text)
}

/// What is sent.
#[derive(Serialize)]
struct Body {
    #[serde(flatten)]
    members: Map<String, Value>,
    /// As they were written: no number of them goes through a float.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Box<RawValue>>,
}

impl Body {
    fn of(name: &str, value: Value) -> Self {
        Self { members: Map::from_iter([(name.to_owned(), value)]), limits: None }
    }
}

impl SaidArguments {
    fn body(&self) -> Result<Body, Failure> {
        let mut body = Map::new();
        let lists = [
            ("models", &self.models),
            ("routers", &self.routers),
            ("actions", &self.actions),
            ("networks", &self.networks),
            ("tags", &self.tags),
            ("roles", &self.roles),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            body.insert(name.to_owned(), json!(list));
        }
        if !self.paths.is_empty() {
            body.insert("paths".to_owned(), json!(self.paths));
        }
        let texts = [("team", &self.team), ("expires_at", &self.expires_at), ("note", &self.note)];
        for (name, text) in texts {
            body.extend(text.as_ref().map(|text| (name.to_owned(), Value::from(text.as_str()))));
        }
        let wrong = |error| Failure::NoServer(format!("--limits is no JSON: {error}"));
        let limits = self.limits.as_deref().map(serde_json::from_str).transpose().map_err(wrong)?;
        if !self.metadata.is_empty() {
            let texts = self.metadata.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            body.insert("metadata".to_owned(), Value::Object(texts.collect()));
        }
        Ok(Body { members: body, limits })
    }
}

impl ListArguments {
    /// All pages as one.
    fn pages(&self) -> Asked {
        let owner = self.owner.as_ref().map(|owner| format!("&owner={}", encoded(&owner.to_string())));
        let owner = owner.unwrap_or_default();
        self.server.waited(async {
            let bearer = self.server.bearer().await?;
            let (mut keys, mut after) = (Vec::new(), String::new());
            loop {
                let path = format!("/v1/keys?page_size=1000{owner}{after}");
                let mut page = self.server.exchange(&bearer, Method::GET, &path, NOTHING).await?;
                if let Some(Value::Array(more)) = page.get_mut("keys").map(Value::take) {
                    keys.extend(more);
                }
                match page.get("next").and_then(Value::as_str) {
                    Some(next) => after = format!("&after={}", encoded(next)),
                    None => return Ok(json!({ "keys": keys })),
                }
            }
        })
    }
}

/// For people.
fn text(told: &Value) -> String {
    if let Some(keys) = told.get("keys").and_then(Value::as_array) {
        if keys.is_empty() {
            return "no keys\n".to_owned();
        }
        return keys.iter().map(|key| row(key) + "\n").collect();
    }
    if told.get("deleted").is_some() {
        return format!("{} is gone\n", shown(told.get("id").and_then(Value::as_str).unwrap_or_default()));
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (name, value) in told.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let value = match (value, uid(value)) {
            (_, Some(uid)) => uid,
            (Value::String(text), _) => text.clone(),
            (other, _) => other.to_string(),
        };
        let _ = writeln!(text, "{:<14} {}", name.replace('_', " "), shown(&value));
    }
    if told.get("key").is_some() {
        text.push_str("the key is shown this once\n");
    }
    text
}

fn row(key: &Value) -> String {
    let part = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let owner = key.get("owner").and_then(uid).unwrap_or_default();
    let used = format!("used {}", part("last_used_at"));
    shown(&format!("{:<12}  {:<8}  {owner}  {used}  {}", part("id"), part("state"), part("note")).replace("  -", ""))
}

fn uid(value: &Value) -> Option<String> {
    let part = |name: &str| value.get(name)?.as_str();
    Some(format!("{}::\"{}\"", part("type")?, part("id")?.escape_debug()))
}

/// A key for a bundle: the key on stdout's first line, what to commit behind it.
fn hash(arguments: &HashArguments) -> ExitCode {
    let text = match &arguments.key_file {
        Some(path) => match read_credential(path) {
            Ok(text) => text,
            Err(error) => return output::fail(format_args!("{}: {error}", path.display()), Exit::Usage),
        },
        None => {
            let mut secret = zeroize::Zeroizing::new([0; 32]);
            random::fill(&mut *secret);
            match key_text(&arguments.id, *secret) {
                Ok(text) => text,
                Err(_) => return output::fail("a key's id is a name of 1 to 128 bytes", Exit::Usage),
            }
        }
    };
    let key = match KeyText::parse(text.expose()) {
        Ok(key) if key.id == arguments.id => key,
        Ok(key) => return output::fail(format_args!("that is the key of `{}`", key.id), Exit::Usage),
        Err(error) => return output::fail(error, Exit::Usage),
    };
    let hash = key_hash_text(&bundle_key_hash(&key));
    let made = if arguments.key_file.is_none() { format!("key   {}\n", key.expose()) } else { String::new() };
    output::data(&format!("{made}hash  {hash}\n"), Exit::Fine, Exit::Usage)
}
