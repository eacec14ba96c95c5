//! What HTTP and JSON cost alone: the same server library reads the same request and gives a constant answer of the
//! same size. `benches/http.sh` measures Tollgate beside it; `floor --listen 127.0.0.1:8182` runs it by hand.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value};
use tower_service::Service;

/// A request as `POST /is_authorized` has it.
#[derive(Deserialize)]
#[expect(dead_code, reason = "it is read, and nothing is done with it")]
struct Asked {
    principal: Uid,
    action: String,
    resource: Uid,
    #[serde(default)]
    context: Map<String, Value>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is read, and nothing is done with it")]
struct Uid {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// As long as a permit of Tollgate's.
const ANSWER: &str = concat!(
    r#"{"decision":"permit","id":"01JD0000000000000000000000","revision":"0123456789abcdef","#,
    r#""principal":{"type":"User","id":"user-123456"},"action":"chat","#,
    r#""resource":{"type":"Model","id":"account-123/model-12345"},"#,
    r#""rules":[{"id":"rule-123456","effect":"permit","file":"units/unit-0123.yaml","line":1234}],"#,
    r#""code":"permitted","message":"permitted by rule-123456 (units/unit-0123.yaml:1234)","errors":[]}"#,
);

async fn answer(body: Bytes) -> impl IntoResponse {
    match serde_json::from_slice::<Asked>(&body) {
        Ok(_) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], ANSWER),
        Err(_) => (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/json")], "{}"),
    }
}

fn main() {
    let address = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    // `cargo bench` and `cargo test` start every bench; this one waits for its script.
    let Some(address) = address else { return };
    let address: SocketAddr = address.parse().expect("--listen ADDRESS:PORT");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free");
        let router = Router::new().route("/is_authorized", post(answer));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let router = router.clone();
            tokio::spawn(async move {
                stream.set_nodelay(true).ok();
                let service = service_fn(|request| router.clone().call(request.map(Body::new)));
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
}
