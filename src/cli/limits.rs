//! `limits`: where a caller stands, as a running server tells it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use super::asking::{AskingArguments, Failure, encoded};
use super::output::{self, Exit, Format, Paint, number, shown};
use crate::client::{Client, ClientError, Credentials};
use crate::model::EntityUid;

/// For the server to answer a page.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most pages: who has more meters than fit these asks the server page by page.
const MOST_PAGES: usize = 100;

const EXAMPLE: &str = "\
Example:
  tollgate limits --principal 'User::\"alice\"'

Exit codes: 0 told, 1 the server refuses the question or has no bundle, 2 usage, or no server answers.";

/// Tell where a caller stands with a running server
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct LimitsArguments {
    /// Whose limits, as a Cedar uid: User::"alice"
    #[arg(long, value_name = "UID")]
    principal: EntityUid,
    #[command(flatten)]
    asking: AskingArguments,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(arguments: &LimitsArguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(error, Exit::Usage),
    };
    match runtime.block_on(asked(arguments)) {
        Ok(told) => {
            let text = match arguments.format {
                Format::Text => text(&told, Paint::of(&std::io::stdout())),
                // The alternate form of a JSON value is its indented text.
                Format::Json => format!("{:#}\n", Value::Object(told)),
            };
            output::data(&text, Exit::Fine, Exit::Usage)
        }
        Err(failure) => failure.told(),
    }
}

/// Asks with a credential, if there is one: where decisions are open, nobody needs any.
async fn asked(arguments: &LimitsArguments) -> Result<Map<String, Value>, Failure> {
    let credential = arguments.asking.credential().await?;
    let proxy = crate::config::proxy().map_err(|error| Failure::NoServer(error.to_string()))?;
    let mut client = Client::builder(arguments.asking.server().to_string()).timeout(TIMEOUT).proxy(proxy);
    if let Some(token) = &credential {
        client = client.credentials(Credentials::bearer(token));
    }
    let failed = |error| match error {
        ClientError::Refused { status: 401, message, .. } if credential.is_none() => {
            Failure::Refused(format!("{message}; {}", arguments.asking.ways_to_a_credential()))
        }
        ClientError::Refused { message, .. } => Failure::Refused(message),
        error => Failure::NoServer(error.to_string()),
    };
    let client = client.build().map_err(failed)?;
    ask(arguments, &client, failed).await
}

/// All pages as one.
async fn ask(
    arguments: &LimitsArguments,
    client: &Client,
    failed: impl Fn(ClientError) -> Failure,
) -> Result<Map<String, Value>, Failure> {
    let principal = encoded(&arguments.principal.to_string());
    let (mut whole, mut limits) = (Map::new(), Vec::new());
    let mut after = String::new();
    for _ in 0..MOST_PAGES {
        let path = format!("/limits?principal={principal}&page_size=1000{after}");
        let mut page = match client.get(&path).await {
            Ok(Value::Object(page)) if page.contains_key("limits") => page,
            Ok(_) => return Err(failed(ClientError::NotTollgate(arguments.asking.server().to_string()))),
            Err(error) => return Err(failed(error)),
        };
        if let Some(Value::Array(more)) = page.remove("limits") {
            limits.extend(more);
        }
        let next = page.remove("next");
        if whole.is_empty() {
            whole = page;
        }
        match next {
            Some(Value::String(next)) => after = format!("&after={}", encoded(&next)),
            _ => {
                whole.insert("limits".to_owned(), Value::Array(limits));
                return Ok(whole);
            }
        }
    }
    let most = MOST_PAGES * 1000;
    Err(Failure::Refused(format!("there are more than {most} meters; ask GET /limits for them page by page")))
}

const HEAD: [&str; 8] = ["limit", "meter", "used", "held", "of", "left", "resets", "declared"];

/// For people: one meter a line.
fn text(told: &Map<String, Value>, paint: Paint) -> String {
    let part = |name| told.get("principal").and_then(|principal| principal.get(name)?.as_str()).unwrap_or_default();
    let principal = shown(&format!("{}::\"{}\"", part("type"), part("id").escape_debug()));
    let limits = told.get("limits").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if limits.is_empty() {
        return format!("no limit can bind {principal}\n");
    }
    let rows: Vec<[String; 8]> = limits.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        cells.chain(HEAD.get(column).copied()).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |cells: &[&str]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        format!("  {}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = format!("{} of {principal}:\n{}\n", number(rows.len(), "meter"), paint.dim(&line(&HEAD)));
    for row in &rows {
        text += &line(&row.each_ref().map(String::as_str));
        text.push('\n');
    }
    text
}

fn row(one: &Value) -> [String; 8] {
    let said = |name: &str| one.get(name).and_then(Value::as_str).map(shown);
    let cell = |name| said(name).unwrap_or_default();
    let line = one.get("line").and_then(Value::as_u64).unwrap_or_default();
    let only_told = if cell("mode") == "warn" { " (only told)" } else { "" };
    [
        cell("id"),
        said("meter").unwrap_or_else(|| "shared by all".to_owned()),
        cell("used"),
        cell("held"),
        format!("{} {}{only_told}", cell("limit"), cell("unit").replace('_', " ")),
        cell("remaining"),
        said("resets_at").unwrap_or_else(|| "-".to_owned()),
        format!("{}:{line}", cell("file")),
    ]
}
