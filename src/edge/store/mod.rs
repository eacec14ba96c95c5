//! Where meters are kept: in memory, or in a file that outlives the process. Each passes one contract suite.

#[cfg(feature = "sqlite")]
pub mod embedded;
pub mod memory;

#[cfg(feature = "sqlite")]
pub use embedded::{Embedded, OpenError};
pub use memory::Memory;

use crate::gate::Look;
use crate::meter::{Charge, Ledger};
use crate::model::Timestamp;

/// How many reservations may expire while somebody waits.
const EXPIRE_AT_ONCE: usize = 256;

fn looks(ledger: &Ledger, charges: &[Charge], now: Timestamp) -> Vec<Look> {
    let shortfalls = ledger.shortfalls(charges, now);
    let lack = |index: usize| shortfalls.iter().find(|short| short.charge == index).map(|short| short.lack);
    let standings = ledger.standings(charges, now).into_iter().enumerate();
    standings.map(|(index, standing)| Look { standing, lack: lack(index) }).collect()
}
