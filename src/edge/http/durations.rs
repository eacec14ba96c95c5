//! The durations of requests by route.

use std::sync::Arc;

use hyper::Method;

use crate::edge::telemetry::metrics::{Metrics, RouteMetrics};

/// A method and the template of a path.
pub(super) type MethodAndPath = (&'static str, &'static str);

/// The series of each route.
pub(super) struct RouteDurations {
    routes: Box<[Arc<RouteMetrics>]>,
    /// The route of most requests, which need not look it up.
    most: Arc<RouteMetrics>,
    /// For requests that no route takes.
    other: Arc<RouteMetrics>,
}

impl RouteDurations {
    /// The series of these routes; `most` is the one with the most requests.
    pub(super) fn new(metrics: &Metrics, routes: impl IntoIterator<Item = MethodAndPath>, most: MethodAndPath) -> Self {
        let series = |(method, path)| metrics.route(method, path);
        let (most_requested, others) = (series(most), routes.into_iter().filter(|route| *route != most));
        Self { routes: others.map(series).collect(), most: most_requested, other: series(("other", "other")) }
    }

    /// The series of the route with the most requests.
    pub(super) fn most(&self) -> &RouteMetrics {
        &self.most
    }

    /// The series of the route with this method and path; `HEAD` is answered as `GET` is.
    pub(super) fn of(&self, method: &Method, path: Option<&str>) -> &RouteMetrics {
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let mut routes = self.routes.iter().chain([&self.most]);
        routes.find(|route| path.is_some_and(|path| route.is_of(method, path))).unwrap_or(&self.other)
    }
}
