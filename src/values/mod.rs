//! Values as Traefik writes them: durations, names with a provider, files or contents, secrets.
//!
//! Every type here reads from the text of a scalar and writes back what Traefik's API shows.

pub mod duration;
pub mod files;
pub mod go_regex;
pub mod name;
pub mod pem;
pub mod secret;
pub mod status;
pub mod text;

pub use duration::GoDuration;
pub use files::{Disk, FileOrContent, Files};
pub use name::QualifiedName;
pub use pem::pem_error;
pub use secret::Secret;
pub use status::StatusRanges;
pub use text::{hex, unescaped, whole_seconds};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How far Doorward may differ from Traefik (`core.profile`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Traefik's behaviour, also where it is unsafe.
    Exact,
    /// Traefik's behaviour, except where it is unsafe.
    #[default]
    Safe,
    /// As `safe`, and what an edge of a hospital should refuse besides.
    Hardened,
}

/// An option that exists in Traefik and is not served yet: whatever its value, building what
/// names it is an error that says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsupported;

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Serialize for Unsupported {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

/// Why an object of the configuration cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// The option at fault, as a path inside the object (`sourceRange[1]`); empty for the whole.
    pub option: String,
    /// A sentence without a capital or a full stop.
    pub message: String,
}

impl BuildError {
    /// An error of the whole object.
    pub fn new(message: impl Into<String>) -> Self {
        Self { option: String::new(), message: message.into() }
    }

    /// An error of one option of the object.
    pub fn at(option: impl Into<String>, message: impl Into<String>) -> Self {
        Self { option: option.into(), message: message.into() }
    }

    /// The error for an option that Traefik has and Doorward does not serve yet.
    pub fn unsupported(option: impl Into<String>) -> Self {
        let option = option.into();
        let message = format!("`{option}` is not supported yet");
        Self { option, message }
    }
}

/// Whether a value is its type's default; for `skip_serializing_if`.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
