//! Handlers whose clients go away while they wait, and work that panics on another thread or in another task.

#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, Semaphore};

use super::app::App;
use super::errors::{ApiError, ErrorCode};
use super::options::HttpOptions;
use super::run::{run_blocking, run_blocking_with, run_uncancelled};
use super::services::Services;
use super::{metrics, spending, validate};
use crate::edge::identity::{StaticProvider, StaticSecret};
use crate::edge::store::Memory;
use crate::engine::{Engine, EngineBuilder};
use crate::gate::{Authenticator, CloseError, HoldError, Later, Look, Meters, Presented, Reserve, StoreError, Verdict};
use crate::meter::{Alert, Charge, Closed, Held, Hold, Reservation, ReservationId, Usage};
use crate::model::{Amount, Request, SecretText, Timestamp};
use crate::policy::{Bundle, Snapshot, SourceFile};

const RULES: &str = "authz_rules: [{ users: [a], models: \"*\" }]\nlimits: [{ id: few, users: [a], budget: { input_tokens: 100, \
                     every: total }, warn_at: [50] }]\n";

fn engine() -> EngineBuilder {
    Engine::builder().bundle(Bundle::new(SourceFile::new("rules.yaml", RULES.as_bytes()).into_iter().collect()))
}

fn app(engine: Engine) -> Arc<App> {
    Arc::new(App::new(Services::new(engine), &HttpOptions::default()))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn has_counted(app: &App, panics: u64) -> bool {
    let metrics = metrics::answer(app, &HeaderMap::new()).into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&metrics).contains(&format!("\ntollgate_panics_total {panics}\n"))
}

#[test]
fn work_that_goes_on_without_its_client_holds_its_permit() {
    runtime().block_on(client_goes_away());
}

async fn client_goes_away() {
    let app = app(engine().build().unwrap());
    let pool = Arc::new(Semaphore::new(1));
    let ((started, has_started), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
    let client = {
        let (app, pool) = (Arc::clone(&app), Arc::clone(&pool));
        tokio::spawn(async move {
            let work = move |_: &App| {
                started.send(()).unwrap();
                let _ = ended.recv();
            };
            run_blocking_with(&app, &pool, work).await
        })
    };
    has_started.recv().unwrap();
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert_eq!(pool.available_permits(), 0, "the work still runs");
    end.send(()).unwrap();
    drop(pool.acquire().await.unwrap());
}

#[test]
fn a_panic_on_another_thread_or_in_another_task_is_counted_once() {
    runtime().block_on(work_panics());
}

async fn work_panics() {
    let app = app(engine().build().unwrap());
    let message = "no decision could be made; the server's log says why";
    let on_thread = run_blocking::<(), _>(&app, |_| panic!("on a thread")).await;
    assert_eq!(on_thread.unwrap_err(), ApiError::new(ErrorCode::Unavailable, message));
    assert!(has_counted(&app, 1).await);
    let in_task = run_uncancelled::<(), _>(&app, |_| async {
        tokio::task::yield_now().await;
        panic!("in a task")
    });
    assert_eq!(in_task.await.unwrap_err(), ApiError::new(ErrorCode::Unavailable, message));
    assert!(has_counted(&app, 2).await);
}

/// Meters whose settlements are in effect at once, and durable once `synced` is notified.
struct SlowDisk {
    meters: Memory,
    synced: Arc<Notify>,
}

impl Meters for SlowDisk {
    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        let (closed, synced) = (self.meters.settle(id, usage, now), Arc::clone(&self.synced));
        Later::pending(async move {
            synced.notified().await;
            closed.await
        })
    }

    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        self.meters.look(charges, now)
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        self.meters.hold(hold, now)
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.meters.record(hold, usage, now)
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        self.meters.settle_unknown(id, charged, now)
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.meters.release(id, now)
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        self.meters.warn(charges, now)
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        self.meters.extend(id, ttl_ms, now)
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.meters.reservation(id, now)
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.meters.named(key, now)
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        self.meters.answered(id, answer)
    }

    fn tick(&self, now: Timestamp) {
        self.meters.tick(now);
    }
}

#[test]
fn an_alert_of_a_settlement_is_reported_if_the_client_goes_away() {
    let synced = Arc::new(Notify::new());
    let (alerts, reported) = mpsc::channel();
    let engine = engine()
        .meters(Arc::new(SlowDisk { meters: Memory::default(), synced: Arc::clone(&synced) }))
        .on_alert(move |notice| alerts.send(notice.alert.percent).unwrap())
        .build()
        .unwrap();
    let request = Request::new("User::\"a\"".parse().unwrap(), "chat", "Model::\"b/c\"".parse().unwrap());
    let amounts = Reserve { input_tokens: Some(1), output_tokens: Some(0), ..Reserve::default() };
    let reservation = engine.reserve(&request, amounts).unwrap().reservation.unwrap().id;
    let app = app(engine);
    let usage = r#"{"input_tokens": 60, "output_tokens": 0}"#;
    let body = format!(r#"{{"reservation": "{reservation}", "usage": {usage}}}"#);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        {
            // The handler waits for the disk when its client goes away.
            let answering = pin!(spending::settle(&app, body.as_bytes()));
            assert!(answering.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        synced.notify_one();
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(reported.try_iter().collect::<Vec<_>>(), [50]);
}

const TOKEN: &str = "a-token-of-16-bytes-or-more";

/// A provider that answers once it is notified.
struct Slow {
    provider: StaticProvider,
    answers: Arc<Notify>,
}

impl Authenticator for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let (verdict, answers) = (self.provider.authenticate(presented, snapshot, now), Arc::clone(&self.answers));
        Later::pending(async move {
            answers.notified().await;
            verdict.await
        })
    }
}

#[test]
fn a_client_that_goes_away_before_it_is_authenticated_is_not_charged() {
    let principal = "User::\"a\"".parse().unwrap();
    let secret = StaticSecret { token: SecretText::new(TOKEN), principal, roles: Vec::new() };
    let answers = Arc::new(Notify::new());
    let provider = Slow { provider: StaticProvider::new(vec![secret]).unwrap(), answers: Arc::clone(&answers) };
    let engine = engine().authenticator(Arc::new(provider)).build().unwrap();
    let app = app(engine.clone());
    let request = json!({ "path": "/v1/chat/completions", "method": "POST", "params": { "model": "b/c" },
        "headers": { "content-length": "40" } });
    let body = json!({ "api_key": TOKEN, "authorize": true, "request": request }).to_string();
    let question = Request::new("User::\"a\"".parse().unwrap(), "chat", "Model::\"b/c\"".parse().unwrap());
    let used = || engine.is_authorized(&question).unwrap().limits[0].used.get();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        {
            let answering = pin!(validate::answer(&app, body.as_bytes()));
            assert!(answering.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        answers.notify_one();
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        assert_eq!(used(), 0);
        answers.notify_one();
        assert_eq!(validate::answer(&app, body.as_bytes()).await.unwrap().status(), StatusCode::OK);
        assert_eq!(used(), 10);
    });
}
