//! What the processes of Sopwith tell each other: the frozen plan, the runner's reports, snapshots and cassettes.
//!
//! Shapes here are versioned by `VERSION`; a process that meets another version says so and stops.

pub mod cassette;
pub mod commits;
pub mod delta;
pub mod incremental;
pub mod memory;
pub mod plan;
pub mod report;
pub mod snapshot;
pub mod trail;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// Version of every shape in this module.
pub const VERSION: u32 = 1;

/// A SHA-256 digest, written as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// A string that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a digest: expected sha256: and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError(String);

impl Digest {
    /// Digest of bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(format!(
            "sha256:{}",
            hex::encode(Sha256::digest(bytes.as_ref()))
        ))
    }

    /// Digest of the canonical JSON (RFC 8785) of a value. A value that is no JSON has the digest of nothing;
    /// none of the types here can be one.
    pub fn of_json(value: &impl Serialize) -> Self {
        Self::of(serde_json_canonicalizer::to_vec(value).unwrap_or_default())
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or_default()
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() == 64 && hex.bytes().all(lower) {
            Ok(Self(format!("sha256:{hex}")))
        } else {
            Err(ParseDigestError(text.to_owned()))
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Reads JSON and says where it is wrong.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}
