//! `tollgate serve`: the one place that wires bundle, engine and server together.

mod decision_log;
mod identity;
mod keys;
mod linking;
mod meters;
mod metrics;
mod signals;
mod tokens;
mod webhooks;

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use self::signals::{Ends, follow_hangups};
use self::webhooks::{Background, Sending};
use super::output::{self, Exit};
use crate::config::{Flags, Settings};
use crate::edge::clock::SystemClock;
use crate::edge::decision_log::Recorder;
use crate::edge::http::{Server, ServerObserver, Services, Stopped, Tls};
use crate::edge::telemetry::metrics::Metrics;
use crate::edge::telemetry::{self, LogFormat, LogLevel, LogOptions};
use crate::engine::Engine;
use crate::gate::{Clock as _, DecisionLog};
use crate::model::Unit;
use crate::pdp::events;
use crate::policy::live::Live;

/// Cedar wants much stack for deep conditions; with this much it never has to look for more.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// For which the first load is waited for, before it listens.
const FIRST_LOAD_WAIT: Duration = Duration::from_secs(3);
/// How often it is looked whether reservations have expired.
const TICK: Duration = Duration::from_millis(100);

const EXAMPLE: &str = "Example:
  tollgate serve --policies policies
  curl -s http://127.0.0.1:8181/is_authorized -H 'Content-Type: application/json' \\
    -d '{\"principal\": \"User::\\\"alice\\\"\", \"action\": \"chat\", \"resource\": \"Model::\\\"openai-main/gpt-4o\\\"\"}'";

/// Serves decisions over HTTP.
///
/// Settings come from flags, then the environment (`TOLLGATE_POLICIES`, `TOLLGATE_LISTEN`, …), then tollgate.yaml.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLE}\n\n{}", crate::config::variables_help()))]
pub struct ServeArguments {
    /// The directory of the bundle [default: policies]
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes any that is free [default: 127.0.0.1:8181]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where what must last is kept [default: tollgate-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The config file [default: tollgate.yaml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let whoever reaches the server ask and reload without a credential; managing keys still takes one
    #[arg(long)]
    insecure: bool,
    /// Take warnings about the bundle for errors
    #[arg(long)]
    strict: bool,
    /// The form of log lines: text or json [default: text on a terminal, json elsewhere]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// The least severe level that is logged: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

/// Serves until the process is told to end.
#[must_use]
pub fn run(arguments: ServeArguments) -> ExitCode {
    let flags = Flags {
        config: arguments.config,
        policies: arguments.policies,
        listen: arguments.listen,
        data: arguments.data,
        insecure: arguments.insecure,
        strict: arguments.strict,
        log_format: arguments.log_format,
        log_level: arguments.log_level,
    };
    let settings = match Settings::load(&flags) {
        Ok(settings) => settings,
        // Logging is not configured yet.
        Err(error) => return output::fail(&error, Exit::Usage),
    };
    telemetry::install(log_options(&settings), Arc::new(SystemClock));
    for warning in crate::config::misspelt_variables() {
        tracing::warn!(target: "tollgate::config", "{warning}");
    }
    tell_missing(&settings.policies);
    match settings.check_secret_files() {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!(target: "tollgate::server", "{warning}")),
        Err(error) => return usage(&error),
    }
    // On a thread of its own, since nobody knows how much stack the first one has.
    let serving = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || serve(&settings));
    match serving.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(_panicked)) => ExitCode::FAILURE,
        Err(error) => usage(&error),
    }
}

fn usage(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(target: "tollgate::server", "{error}");
    Exit::Usage.into()
}

fn log_options(settings: &Settings) -> LogOptions {
    let stderr = std::io::stderr();
    let usual = if stderr.is_terminal() { LogFormat::Text } else { LogFormat::Json };
    LogOptions {
        format: settings.log.format.unwrap_or(usual),
        level: settings.log.level,
        colour: output::coloured(&stderr),
    }
}

/// Logs, before anything else, that the bundle's directory does not exist and how the server continues.
fn tell_missing(policies: &Path) {
    let absolute = std::path::absolute(policies).unwrap_or_else(|_| policies.to_path_buf());
    let (why, way_out) = match std::fs::metadata(policies) {
        Ok(found) if found.is_dir() => return,
        Ok(_) => ("is not a directory", "name the directory of the file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            ("does not exist", "name another with --policies, or create one with `tollgate init`")
        }
        // The first load reports every other problem with the directory.
        Err(_) => return,
    };
    tracing::warn!(
        target: "tollgate::bundle",
        "the bundle's directory `{}` {why}. The server starts, answers every question with 503 (`no_bundle`) and serves the bundle \
         as soon as it is there; {way_out}",
        absolute.display()
    );
}

fn serve(settings: &Settings) -> ExitCode {
    let metrics = Arc::new(Metrics::default());
    let (meters, leases) = match meters::open(settings, &metrics) {
        Ok(meters) => meters,
        Err(error) => return usage(&*error),
    };
    let alerts = match webhooks::alerts(&settings.webhook, &metrics) {
        Ok(alerts) => alerts,
        Err(error) => return usage(&*error),
    };
    let tls = match settings.tls_options().map(Tls::load).transpose() {
        Ok(tls) => tls,
        Err(error) => return usage(&error),
    };
    let providers = match identity::providers(settings, &metrics) {
        Ok(providers) => providers,
        Err(error) => return usage(&*error),
    };
    keys::warn_where_left_out(settings);
    let (recorder, checkpoints) = match decision_log::open(settings, &metrics) {
        Ok(log) => (log.recorder, log.checkpoints),
        Err(error) => return usage(&*error),
    };
    let (loaded, first_load) = std::sync::mpsc::sync_channel(1);
    let mut builder = Engine::builder().observer(Arc::new(ServerObserver::new(Arc::clone(&metrics))));
    builder = builder.failures(settings.identity.failures.clone());
    for provider in providers.asked {
        builder = builder.authenticator(provider);
    }
    if let Some(recorder) = &recorder {
        metrics::recorder(&metrics, recorder);
        builder = builder.decision_log(Arc::clone(recorder) as Arc<dyn DecisionLog>);
    }
    if let Some(alerts) = &alerts {
        let outbox = Arc::clone(&alerts.outbox);
        builder = builder.on_alert(move |notice| drop(outbox.put(notice.clone())));
    }
    let (identity, warned) = (settings.identity.clone(), std::sync::Once::new());
    let charges = settings.http.validate_authorizes || settings.http.routes.charges();
    let built = builder
        .policies(&settings.policies)
        .data(&settings.data)
        .meters(meters)
        .open_reservations_per_principal(settings.most_open)
        .watch(true)
        .first_must_load(false)
        .strict(settings.strict)
        .admin_policies(settings.identity.admin_policies)
        .guarded(settings.guard)
        .watch_options(settings.watch_options())
        .on_load(move |live| {
            if charges {
                warn_of_uncharged(live);
            }
            if let Some(snapshot) = live.current() {
                warned.call_once(|| linking::warn(&identity, &snapshot));
            }
            // Only the first is waited for.
            let _ = loaded.try_send(());
        })
        .build();
    let engine = match built {
        Ok(engine) => engine,
        Err(error) => {
            events::problems(&error.problems);
            return Exit::Usage.into();
        }
    };
    // Who asks as soon as it listens should find a bundle; one that takes longer is waited for by /health/ready.
    let _ = first_load.recv_timeout(FIRST_LOAD_WAIT);
    let mut background = providers.running;
    let (outbox, sending_alerts) = alerts.map(Sending::into_parts).unzip();
    let (checkpoints, sending_checkpoints) = checkpoints.map(Sending::into_parts).unzip();
    background.extend(sending_alerts.into_iter().chain(sending_checkpoints));
    let services = Services {
        metrics,
        keys: providers.keys,
        passwords: providers.passwords,
        outbox,
        checkpoints,
        tokens: providers.tokens,
        ..Services::new(engine)
    };
    let code = Serving { services, background, tls, recorder }.run(settings);
    if let Some(leases) = leases {
        pollster::block_on(leases.give_back(SystemClock.now()));
    }
    code
}

/// The parts of a server that is ready to listen.
struct Serving {
    services: Services,
    /// Tasks that run until the server stops.
    background: Vec<Background>,
    tls: Option<Tls>,
    recorder: Option<Arc<Recorder>>,
}

impl Serving {
    /// Serves until the process is told to stop, and ends the decision log.
    fn run(self, settings: &Settings) -> ExitCode {
        let Self { services, background, tls, recorder } = self;
        let close = || recorder.iter().for_each(|recorder| recorder.close());
        let runtime = match runtime(settings.workers) {
            Ok(runtime) => runtime,
            Err(error) => {
                close();
                return usage(&error);
            }
        };
        let checkpoints = services.checkpoints.clone();
        let code = runtime.block_on(async {
            background.into_iter().for_each(|task| drop(tokio::spawn(task)));
            listen(services, settings, tls).await
        });
        close();
        // The log ends with a checkpoint, which is still delivered.
        if let Some(checkpoints) = checkpoints {
            runtime.block_on(webhooks::finish_checkpoints(&checkpoints));
        }
        code
    }
}

/// The machine's name.
fn machine() -> String {
    let names = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let name = names.into_iter().find_map(|path| std::fs::read_to_string(path).ok());
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "tollgate".to_owned())
}

/// Lets expire what is due, also while nobody asks.
async fn follow_time(engine: Engine) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        engine.meters().tick(SystemClock.now());
    }
}

fn runtime(workers: usize) -> std::io::Result<Runtime> {
    let workers = match workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let mut builder = if workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    builder.thread_stack_size(STACK_BYTES).thread_name("tollgate").enable_all().build()
}

async fn listen(services: Services, settings: &Settings, tls: Option<Tls>) -> ExitCode {
    let (engine, outbox) = (services.engine.clone(), services.outbox.clone());
    let mut server = match Server::bind(services, settings.http_options()).await {
        Ok(server) => server,
        Err(error) => {
            let address = settings.http.listen;
            tracing::error!(target: "tollgate::server", %address, "cannot listen on {address}: {error}");
            return Exit::Usage.into();
        }
    };
    if let Some(health) = settings.listen_health {
        server = match server.with_health(health).await {
            Ok(server) => server,
            Err(error) => {
                let address = health;
                tracing::error!(target: "tollgate::server", %address, "cannot listen on {address} (listen_health): {error}");
                return Exit::Usage.into();
            }
        };
        if let Some(address) = server.health_address() {
            tracing::info!(
                target: "tollgate::server",
                %address,
                "health checks are answered at http://{address}/health/ready too"
            );
        }
    }
    let (ends, reloads) = match (Ends::new(), signal(SignalKind::hangup())) {
        (Ok(ends), Ok(reloads)) => (ends, reloads),
        (Err(error), _) | (_, Err(error)) => return usage(&error),
    };
    match server.address() {
        Ok(address) => tell_start(address, settings),
        Err(error) => return usage(&error),
    }
    if let Some(tls) = tls {
        server = server.with_tls(tls);
    }
    tokio::spawn(follow_time(engine.clone()));
    tokio::spawn(follow_hangups(engine, reloads));
    let stopped = server.run(ends.wait()).await;
    if let Some(outbox) = &outbox {
        webhooks::finish_alerts(outbox).await;
    }
    match stopped {
        Stopped::Finished => {
            tracing::info!(target: "tollgate::server", "stopped; every request was answered");
            ExitCode::SUCCESS
        }
        Stopped::Cut => {
            tracing::warn!(target: "tollgate::server", "stopped; some requests took too long and were cut off");
            ExitCode::FAILURE
        }
    }
}

fn tell_start(address: SocketAddr, settings: &Settings) {
    let (open, credential) = if settings.insecure {
        ("--insecure: whoever reaches this address may ask and reload", "")
    } else if settings.http_options().open {
        ("on loopback decisions are open: every process of this machine may ask and reload", "")
    } else {
        let shown = " -H \"Authorization: Bearer $TOLLGATE_TOKEN\"";
        ("callers prove themselves: in `Authorization`, or with a key in a header of its own", shown)
    };
    let is_encrypted = settings.tls_options().is_some();
    let scheme = if is_encrypted { "https" } else { "http" };
    if !is_encrypted && !address.ip().is_loopback() && !settings.identity.providers.is_empty() {
        tracing::warn!(
            target: "tollgate::server",
            %address,
            "{address} speaks plain HTTP, so that credentials can be read on the way; set tls.certificate_file and \
             tls.key_file, or let something in front of it end TLS",
        );
    }
    let (version, url, policies) =
        (env!("CARGO_PKG_VERSION"), format!("{scheme}://{address}"), settings.policies.display());
    tracing::info!(
        target: "tollgate::server",
        version,
        url,
        %policies,
        "tollgate {version} listens on {url}, serving {policies}",
    );
    tracing::info!(target: "tollgate::server", "{open}");
    let reached = reached_at(address);
    tracing::info!(
        target: "tollgate::server",
        "try: curl -s {scheme}://{reached}/is_authorized{credential} -H 'Content-Type: application/json' \
         -d '{{\"principal\": \"User::\\\"alice\\\"\", \"action\": \"chat\", \"resource\": \"Model::\\\"openai-main/gpt-4o\\\"\"}}'",
    );
}

/// Where this machine reaches what listens on `address`: every address is none to connect to.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(every) if every.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(every) if every.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        one => one,
    };
    SocketAddr::new(ip, address.port())
}

/// A warning about each limit that `/v1/auth/validate` does not charge.
fn warn_of_uncharged(live: &Live) {
    let Some(snapshot) = live.current() else { return };
    let limits = snapshot.limits().all().iter().map(|bound| &bound.limit).filter(|limit| limit.unit() == Unit::Places);
    for limit in limits {
        let limit = limit.id.as_str();
        tracing::warn!(
            target: "tollgate::limits",
            limit,
            "`{limit}` limits concurrent requests, and POST /v1/auth/validate takes no place of it, since it never \
             learns when a request ends; use `reserve` in POST /is_authorized instead"
        );
    }
}
