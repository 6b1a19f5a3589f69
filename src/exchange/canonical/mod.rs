//! The one canonical request: how an entry point turns what a client sent into what everything else sees.
//!
//! Rules, middlewares, logs and backends read the result and nothing else, so no two of them can disagree about
//! the path, the host or a header name. All functions here are pure and borrow when nothing has to change.

mod characters;
mod fields;
mod host;
mod http2;
mod path;
mod target;

pub use characters::{EncodedCharacters, EncodedCharactersConfig};
pub use fields::{FieldLimits, UnderscoreStrategy};
pub use host::{HostError, canonical_host, canonicalize_host, is_valid_host};
pub use http2::malformed_http2;
pub use path::{
    PathError, has_disguised_dots, is_clean, normalize_path, rewrite_query_semicolons,
    routing_path, sanitize_path,
};
pub use target::{TargetError, TargetRules};
