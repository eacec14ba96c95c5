//! `decision_log:`, which decisions are recorded and where, as written and then as meant.
//!
//! ```yaml
//! decision_log:
//!   level: { sample: 0.01 }   # or all, forbids, off
//!   file: {}                  # or stdout: {}
//!   max_bytes: 1GiB
//!   keep_days: 14
//!   on_full: drop             # or wait
//!   mask: [context.ip, context.end_user, context.metadata]
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, de};

use super::checkpoints::{self, CheckpointSettings};
use super::faults::NodeError;
use super::scalars::ConfigPath;
use crate::edge::decision_log::{DecisionLogOptions, Destination, Level, Mask, OnFull, SampleRate};
use crate::policy::syntax::{Located, Place};

/// The folder below the data directory where files are kept.
pub(crate) const FOLDER: &str = "decisions";
/// The smallest and the largest file.
const LEAST_BYTES: u64 = 64 * 1024;
const MOST_BYTES: u64 = 1 << 40;
const MOST_DAYS: u32 = 3_650;
const MOST_MASKS: usize = 100;

/// Which decisions are recorded, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionLogSettings {
    /// Whether the log was configured explicitly. If so, the server does not start when it cannot be opened.
    pub is_wanted: bool,
    /// Which decisions.
    pub level: Level,
    /// Whether they go to standard output and not to files.
    pub to_stdout: bool,
    /// The directory of the files. The default is a directory below the data directory.
    pub directory: Option<PathBuf>,
    /// Longest file.
    pub max_bytes: u64,
    /// For how many days files are kept.
    pub keep_days: u32,
    /// How to handle a record for which the queue has no room.
    pub on_full: OnFull,
    /// Members that are left out of every record.
    pub mask: Mask,
    /// Where copies of the checkpoints are stored.
    pub checkpoints: CheckpointSettings,
}

impl Default for DecisionLogSettings {
    fn default() -> Self {
        let usual = DecisionLogOptions::new(Destination::Stdout);
        Self {
            is_wanted: false,
            level: usual.level,
            to_stdout: false,
            directory: None,
            max_bytes: usual.max_bytes,
            keep_days: usual.keep_days,
            on_full: usual.on_full,
            mask: usual.mask,
            checkpoints: CheckpointSettings::default(),
        }
    }
}

impl DecisionLogSettings {
    /// The settings of the section.
    ///
    /// # Errors
    /// The first setting that is wrong, with its place.
    pub(super) fn checked(section: Located<Raw>) -> Result<Self, NodeError> {
        let Located { value: raw, place } = section;
        let wrong = |place: Place, message: String| NodeError::of_setting("decision_log", place, message);
        let usual = Self::default();
        if let (Some(_), Some(stdout)) = (&raw.file, &raw.stdout) {
            return Err(wrong(stdout.place, "the log goes to `file` or to `stdout`, not to both".to_owned()));
        }
        let Located { value: Bytes(max_bytes), place: of_bytes } =
            raw.max_bytes.unwrap_or(Located::new(Bytes(usual.max_bytes), place));
        if !(LEAST_BYTES..=MOST_BYTES).contains(&max_bytes) {
            return Err(wrong(of_bytes, "a file is 64KiB to 1024GiB long".to_owned()));
        }
        let keep_days = raw.keep_days.unwrap_or(Located::new(usual.keep_days, place));
        if !(1..=MOST_DAYS).contains(&keep_days.value) {
            return Err(wrong(keep_days.place, format!("files are kept for 1 to {MOST_DAYS} days")));
        }
        let mask = match raw.mask {
            None => usual.mask,
            Some(paths) if paths.value.len() > MOST_MASKS => {
                return Err(wrong(paths.place, format!("at most {MOST_MASKS} paths are allowed")));
            }
            Some(paths) => {
                let mut mask = Mask::default();
                for path in &paths.value {
                    mask.add(path).map_err(|error| wrong(paths.place, error.to_string()))?;
                }
                mask
            }
        };
        Ok(Self {
            is_wanted: true,
            level: raw.level.map_or(usual.level, |level| level.0),
            to_stdout: raw.stdout.is_some(),
            directory: raw.file.and_then(|file| file.directory).map(|path| path.0),
            max_bytes,
            keep_days: keep_days.value,
            on_full: raw.on_full.map_or(usual.on_full, RawOnFull::checked),
            mask,
            checkpoints: raw.checkpoints.map_or(Ok(usual.checkpoints), CheckpointSettings::checked)?,
        })
    }

    /// The options for this data directory and machine; `None` if decisions are not recorded.
    #[must_use]
    pub fn options(&self, data: &Path, node: String) -> Option<DecisionLogOptions> {
        if self.level == Level::Off {
            return None;
        }
        let folder = || self.directory.clone().unwrap_or_else(|| data.join(FOLDER));
        Some(DecisionLogOptions {
            level: self.level,
            destination: if self.to_stdout { Destination::Stdout } else { Destination::Folder(folder()) },
            max_bytes: self.max_bytes,
            keep_days: self.keep_days,
            on_full: self.on_full,
            mask: self.mask.clone(),
            checkpoint_file: self.checkpoints.file.clone(),
            node,
        })
    }
}

/// The section as it is written in the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Which decisions are recorded. Default: forbids.
    level: Option<RawLevel>,
    /// Files that take turns. This is the default.
    file: Option<RawFile>,
    /// Standard output, instead of files.
    stdout: Option<Located<RawStdout>>,
    /// Longest file, in bytes or with KiB, MiB or GiB. Default: 1GiB.
    max_bytes: Option<Located<Bytes>>,
    /// For how many days a file is kept after its last record. Default: 14.
    keep_days: Option<Located<u32>>,
    /// How to handle a record when the queue is full: drop it, or let the decision wait. Default: drop.
    on_full: Option<RawOnFull>,
    /// Members that are left out of every record. Default: `context.ip`, `context.end_user` and `context.metadata`.
    mask: Option<Located<Vec<String>>>,
    /// Where copies of the checkpoints are stored, out of reach of this server. Default: only the server's log repeats some.
    checkpoints: Option<Located<checkpoints::Raw>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawFile {
    /// The folder. Default: `decisions` below the data directory.
    directory: Option<ConfigPath>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawStdout {}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum RawOnFull {
    Drop,
    Wait,
}

impl RawOnFull {
    const fn checked(self) -> OnFull {
        match self {
            Self::Drop => OnFull::Drop,
            Self::Wait => OnFull::Wait,
        }
    }
}

#[derive(Debug)]
struct RawLevel(Level);

impl<'de> Deserialize<'de> for RawLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Written {
            All,
            Forbids,
            Off,
            Sample(Rate),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::All => Level::All,
            Written::Forbids => Level::Forbids,
            Written::Off => Level::Off,
            Written::Sample(rate) => Level::Sample(rate.0),
        }))
    }
}

impl JsonSchema for RawLevel {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DecisionLogLevel".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "enum": ["all", "forbids", "off"] },
                {
                    "type": "object", "additionalProperties": false, "required": ["sample"],
                    "properties": { "sample": { "type": "number", "exclusiveMinimum": 0, "maximum": 1 } }
                }
            ]
        })
    }
}

/// A share above 0 and at most 1.
#[derive(Debug)]
struct Rate(SampleRate);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_any(Written("a decimal such as 0.01"))?;
        let wrong = || D::Error::custom("this must be a decimal above 0 and at most 1, such as 0.01");
        SampleRate::parse(&text).map(Self).ok_or_else(wrong)
    }
}

/// A number of bytes.
#[derive(Debug)]
struct Bytes(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_any(Written("a number of bytes such as 1GiB"))?;
        let wrong = || D::Error::custom("this must be a number of bytes, such as 268435456, 256MiB or 1GiB");
        bytes(&text).map(Self).ok_or_else(wrong)
    }
}

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit: u64 = match unit.trim_start() {
        "" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

impl JsonSchema for Bytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": LEAST_BYTES, "maximum": MOST_BYTES },
                { "type": "string", "pattern": "^[0-9]+ ?(KiB|MiB|GiB)?$" }
            ]
        })
    }
}

/// A number or a text, as it is written.
struct Written(&'static str);

impl Visitor<'_> for Written {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        let good = [("1", 1), ("64KiB", 65_536), ("256 MiB", 268_435_456), ("1GiB", 1 << 30)];
        for (text, number) in good {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for text in ["", "GiB", "1GB", "1.5GiB", "-1", "1TiB", "99999999999999999999", "18446744073709551615KiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
