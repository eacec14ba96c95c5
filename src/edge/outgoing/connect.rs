//! How outgoing connections are made: directly or through a proxy, with TLS above either, and kept for the next request.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tower_service::Service;

use super::client::{ProxyFailure, TlsConfigs};
use super::proxy::Proxy;

/// How long a connection is kept without a request. Servers and the proxies before them close idle connections after a
/// minute and more; a shorter time avoids requests on a connection that is about to be closed.
const IDLE: Duration = Duration::from_secs(20);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client whose clones share their connections.
pub(super) type Connections = legacy::Client<HttpsConnector<Route>, Full<Bytes>>;

/// Makes a client that keeps up to `kept` idle connections to each server.
pub(super) fn connections(tls: TlsConfigs, proxy: Proxy, kept: usize) -> Connections {
    let route = Route::new(tls.proxy, proxy);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls.server).https_or_http().enable_http1();
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(kept)
        .build(connector.wrap_connector(route))
}

/// Opens the connection below TLS.
#[derive(Clone)]
pub(super) struct Route {
    direct: HttpConnector,
    /// For `http://`: only to this machine, whatever a name resolves to.
    here: HttpConnector<LoopbackResolver>,
    /// To the proxy itself, which may be reached with TLS too.
    to_proxy: HttpsConnector<HttpConnector>,
    proxy: Proxy,
}

impl Route {
    fn new(tls: ClientConfig, proxy: Proxy) -> Self {
        let (mut direct, mut here) = (HttpConnector::new(), HttpConnector::new_with_resolver(LoopbackResolver::new()));
        direct.enforce_http(false);
        direct.set_nodelay(true);
        here.set_nodelay(true);
        let to_proxy = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let to_proxy = to_proxy.wrap_connector(direct.clone());
        Self { direct, here, to_proxy, proxy }
    }
}

impl Service<Uri> for Route {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The connectors below are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        if to.scheme_str() != Some("https") {
            let connecting = self.here.call(to);
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        }
        let Some(proxy) = self.proxy.of(&to) else {
            let connecting = self.direct.call(to);
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        let connecting = tunnel(&proxy, self.to_proxy.clone()).call(to);
        Box::pin(async move {
            let connected = connecting.await;
            connected.map_err(|error| ProxyFailure::of(proxy.uri(), &error).into())
        })
    }
}

fn tunnel(proxy: &Intercept, to_proxy: HttpsConnector<HttpConnector>) -> Tunnel<HttpsConnector<HttpConnector>> {
    let tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
    match proxy.basic_auth() {
        Some(credentials) => tunnel.with_auth(credentials.clone()),
        None => tunnel,
    }
}

/// Resolves names, and keeps only addresses of this machine.
#[derive(Clone)]
struct LoopbackResolver(GaiResolver);

impl LoopbackResolver {
    fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for LoopbackResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async move {
            let here: Vec<_> = resolving.await?.filter(|address| address.ip().is_loopback()).collect();
            if here.is_empty() {
                return Err(std::io::Error::other("its name has no address that may be used"));
            }
            Ok(here.into_iter())
        })
    }
}
