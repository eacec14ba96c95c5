//! The words: plain values that the two ways share. No I/O, no async, no clock, no wire format.

pub mod address;
pub mod amount;
pub mod decision;
pub mod facts;
pub mod hex;
pub mod identity;
pub mod json_text;
pub mod key;
pub mod kind;
pub mod limit;
pub mod mask;
pub mod password;
pub mod path;
pub mod period;
pub mod request;
pub mod secret;
pub mod standing;
pub mod strict_json;
pub mod told;
pub mod uid;

pub use address::{request_address, unmapped};
pub use amount::{Amount, AmountError, Unit};
pub use decision::{CandidateDecision, Decision, DecisionCode, Effect, EvaluationError, Outcome, RuleReference};
pub use facts::{AuthMethod, Budget, Facts, LimitFacts, Rate, Timestamp};
pub use identity::{
    ADMINISTRATOR, AllowedPath, CredentialMark, GATEWAY, Identity, MONITOR, Narrowed, Network, RESERVED_ROLE_PREFIX,
    Refusal, RefusalReason, Said, UNAVAILABLE_RETRY_SECONDS, source_of,
};
pub use key::{
    Inherited, KEY_PREFIX, KeyDetails, KeyHash, KeyRecord, KeyText, NotAKey, Pause, REFRESH_TOKEN_PREFIX, Revocation,
    bundle_key_hash, key_hash_text, key_id, key_text, parse_key_hash,
};
pub use kind::{Container, Kind};
pub use limit::{Each, KeyLimit};
pub use mask::{masked, starred_keys, without_credentials};
pub use password::{Argon2id, PasswordHash, PasswordHashError, PasswordRecord};
pub use path::{MAX_PATH_BYTES, PathError, RequestPath, TWO_WAYS_AT_END, TWO_WAYS_WITHIN, normal_pattern};
pub use period::{Every, Period, Window};
pub use request::{CandidatesRequest, Request, RequestError, RequestErrorCode};
pub use secret::SecretText;
pub use standing::{LimitStanding, Reserved, Shortage};
pub use told::{Member, Told};
pub use uid::{EntityUid, NameError, UidError, check_model_name, check_name};
