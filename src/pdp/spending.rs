//! After the call: reservations are settled, released or extended, and usage without a reservation is recorded.

use std::pin::pin;
use std::sync::Arc;

use smol_str::SmolStr;

use super::call::sha256;
use super::{PdpError, Pinned};
use crate::gate::{self, Books, BooksPage, BooksWish, ClientKey, ReportedUsage, Spent, Standings, StandingsOf, Stated};
use crate::meter::{Closed, ReservationId, Usage};
use crate::model::{EntityUid, Request, Timestamp};

/// Usage that nothing was reserved for.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageReport {
    /// The request that was made, as for a decision.
    pub request: Request,
    /// What it used.
    pub usage: ReportedUsage,
    /// A key of 1 to 255 bytes that the caller chose. The same report with the same key is charged once.
    pub idempotency_key: SmolStr,
}

impl UsageReport {
    // INVARIANT: reports that an earlier version stored have digests of exactly this text, so it must not change.
    fn key(&self) -> ClientKey {
        let request = Request { identity: None, ..self.request.clone() };
        // Before keys were scoped to principals, an absent amount in a usage was stored as zero.
        let before = Usage { requests: self.usage.requests.unwrap_or(0), ..self.usage.usage() };
        ClientKey {
            text: self.idempotency_key.clone(),
            digest: sha256(&(&request, &self.usage)),
            unscoped_digest: Some(sha256(&(&request, &before))),
        }
    }
}

impl Pinned<'_> {
    /// Charges what a reservation used and releases the rest. `resource` names the permitted resource that was used, if
    /// it is not the one that the reservation is for. The same settlement again changes nothing.
    ///
    /// # Errors
    /// If the reservation is unknown or was closed otherwise, if its usage or cost is unknown, or if the store fails.
    pub async fn settle(
        &self,
        reservation: ReservationId,
        usage: impl Into<Stated>,
        resource: Option<&EntityUid>,
    ) -> Result<Closed, PdpError> {
        let usage = usage.into();
        let work = pin!(async { Ok(gate::settle(self.env(), reservation, usage, resource).await?) });
        let closed = self.isolated(work).await?;
        self.alert(&closed.alerts);
        Ok(closed)
    }

    /// Releases what a reservation holds. The same release again changes nothing.
    ///
    /// # Errors
    /// If the reservation is unknown or was settled, or if the store fails.
    pub async fn release(&self, reservation: ReservationId) -> Result<Closed, PdpError> {
        self.isolated(pin!(async { Ok(gate::release(self.env(), reservation).await?) })).await
    }

    /// Extends a reservation so that it expires `ttl_ms` milliseconds from now, and returns that instant.
    ///
    /// # Errors
    /// If the reservation is unknown or closed, or if the store fails.
    pub async fn extend(&self, reservation: ReservationId, ttl_ms: i64) -> Result<Timestamp, PdpError> {
        self.isolated(pin!(async { Ok(gate::extend(self.env(), reservation, ttl_ms).await?) })).await
    }

    /// Charges usage that nothing was reserved for, in full, since it has happened already.
    ///
    /// # Errors
    /// If the usage lacks an amount that a limit counts, if the key names another report, or if the store fails.
    pub async fn record_usage(&self, report: &UsageReport) -> Result<Closed, PdpError> {
        let UsageReport { request, usage, .. } = report;
        let spent = Spent { request: request.clone(), usage: *usage, key: self.known_key(report.key()) };
        let id = self.pdp.reservation_id();
        let closed = self.isolated(pin!(async { Ok(gate::record(self.env(), id, &spent).await?) })).await?;
        self.alert(&closed.alerts);
        Ok(closed)
    }

    /// The limits that bind a principal, with their meters; a page. It can read every meter of a limit, so it belongs on a
    /// thread that may work for milliseconds.
    ///
    /// # Errors
    /// If the principal has a type that the bundle lacks, or if the store fails.
    pub async fn standing<'s>(&'s self, of: StandingsOf<'s, '_>) -> Result<Standings<'s>, PdpError> {
        self.isolated(pin!(async { Ok(gate::standings(self.env(), of).await?) })).await
    }
}

/// The recorded usage, summed by day, month, principal, resource or limit. Reading it can take seconds, so it belongs on
/// a thread that may wait.
#[derive(Clone)]
pub struct UsageReports(Arc<dyn Books>);

impl UsageReports {
    pub(super) fn new(books: Arc<dyn Books>) -> Self {
        Self(books)
    }

    /// A page of sums.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub fn page(&self, query: &BooksWish) -> Result<BooksPage, PdpError> {
        Ok(self.0.report(query)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Amount, hex};

    /// Reports that were stored before keys were scoped must still be found, so these digests must not change.
    #[test]
    fn the_digest_of_an_unscoped_key_stays() {
        let request = Request::new("User::\"alice\"".parse().unwrap(), "chat", "Model::\"a/b\"".parse().unwrap());
        let usd = Some(Amount::from_usd("0.01").unwrap());
        let usage = ReportedUsage { input_tokens: Some(5), usd, ..ReportedUsage::default() };
        let report = UsageReport { request, usage, idempotency_key: "k".into() };
        let digest = report.key().unscoped_digest.unwrap();
        assert_eq!(hex::encode(&digest), "ba81847edbb301229627aef9c2a92ac35a3bbe591d7c3d5bf904b9ee4513bfe1");
    }
}
