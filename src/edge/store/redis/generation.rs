//! What a node remembers of a Redis: its epoch, and the highest sequence it saw. A Redis that comes back empty has no
//! epoch, one that comes back from an old copy has a lower sequence; either is noticed, and nobody gets a fresh budget.
//!
//! A sequence alone would not do: of many nodes, one that saw less may take it beyond what another saw before that one
//! asks again. So with each Redis process another epoch begins, and it is kept with which sequence (`lua/arrive.lua`).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::RedisError;
use super::eviction::Evicted;
use crate::edge::store::private;
use crate::gate::StoreError;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "meters-redis.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    prefix: String,
    epoch: String,
    sequence: u64,
    /// How many keys each process of the Redis had dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evicted: Option<Evicted>,
}

/// What was seen, in memory and on disk.
#[derive(Debug)]
pub(super) struct Generation {
    path: PathBuf,
    prefix: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    epoch: Option<Arc<str>>,
    sequence: u64,
    saved: u64,
    evicted: Option<Evicted>,
    lost: Option<Arc<str>>,
}

impl Generation {
    /// Reads what was seen before this start.
    pub(super) fn open(directory: &Path, prefix: &str) -> Result<(Self, Option<Evicted>), RedisError> {
        let path = directory.join(FILE_NAME);
        private::folder(directory).map_err(|error| RedisError::io(directory, &error))?;
        let generation = Self { path, prefix: prefix.to_owned(), state: Mutex::default() };
        let kept = match std::fs::read(&generation.path) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .map_err(|error| RedisError::Damaged { path: generation.path.clone(), reason: error.to_string() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((generation, None)),
            Err(error) => return Err(RedisError::io(&generation.path, &error)),
        };
        if kept.prefix != prefix {
            return Err(RedisError::OtherPrefix { path: generation.path.clone(), kept: kept.prefix });
        }
        let evicted = kept.evicted;
        *generation.lock() = State {
            epoch: Some(kept.epoch.into()),
            sequence: kept.sequence,
            saved: kept.sequence,
            evicted: evicted.clone(),
            lost: None,
        };
        Ok((generation, evicted))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Epoch and sequence; `None` where this Redis was never seen.
    pub(super) fn seen(&self) -> Result<Option<(Arc<str>, u64)>, StoreError> {
        let state = self.lock();
        match &state.lost {
            Some(lost) => Err(StoreError::Lost(Arc::clone(lost))),
            None => Ok(state.epoch.clone().map(|epoch| (epoch, state.sequence))),
        }
    }

    /// Takes in a Redis that was never seen before; on disk before anything is decided by it.
    pub(super) fn join(&self, epoch: &str, sequence: u64) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.epoch.is_none() {
            self.write(epoch, sequence, state.evicted.clone())?;
            state.epoch = Some(epoch.into());
            (state.sequence, state.saved) = (sequence, sequence);
        }
        Ok(())
    }

    /// Goes on to the next epoch, which has all that was seen.
    pub(super) fn enter(&self, before: &str, next: &str) {
        let mut state = self.lock();
        if state.epoch.as_deref() == Some(before) {
            state.epoch = Some(next.into());
        }
    }

    /// Notes a sequence that was seen.
    pub(super) fn advance(&self, sequence: u64) {
        let mut state = self.lock();
        state.sequence = state.sequence.max(sequence);
    }

    /// Notes that what was there is lost; nobody decides by it until an operator says so.
    pub(super) fn lose(&self, how: &str) -> StoreError {
        let mut state = self.lock();
        let lost = state.lost.get_or_insert_with(|| {
            format!(
                "{how}. Put back what it had; or, to go on with what it has, DEL `{{{}}}:generation` there and remove \
                 `{}` on every node",
                self.prefix,
                self.path.display()
            )
            .into()
        });
        StoreError::Lost(Arc::clone(lost))
    }

    /// Notes how many keys each process of the Redis has evicted. Changes are written with the next sequence.
    pub(super) fn note_evicted(&self, evicted: Option<Evicted>) {
        let mut state = self.lock();
        if state.evicted != evicted {
            state.evicted = evicted;
            state.saved = 0;
        }
    }

    /// Writes the last seen sequence. Returns true if an operator has accepted the lost state meanwhile.
    pub(super) fn keep(&self) -> Result<bool, StoreError> {
        let mut state = self.lock();
        if state.lost.is_some() {
            let is_let_in = !self.path.exists();
            if is_let_in {
                *state = State::default();
            }
            return Ok(is_let_in);
        }
        if let Some(epoch) = state.epoch.clone().filter(|_| state.sequence > state.saved) {
            let (sequence, evicted) = (state.sequence, state.evicted.clone());
            drop(state);
            self.write(&epoch, sequence, evicted)?;
            self.lock().saved = sequence;
        }
        Ok(false)
    }

    fn write(&self, epoch: &str, sequence: u64, evicted: Option<Evicted>) -> Result<(), StoreError> {
        let kept = Kept { prefix: self.prefix.clone(), epoch: epoch.to_owned(), sequence, evicted };
        let write = || -> std::io::Result<()> {
            let beside = self.path.with_extension("json.new");
            let mut file = private::open(&beside, |options| options.truncate(true))?;
            file.write_all(&serde_json::to_vec(&kept)?)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|error| StoreError::NotWritten(format!("`{}`: {error}", self.path.display()).into()))
    }
}
