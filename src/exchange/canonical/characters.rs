//! Which escaped characters a path may carry: the `encodedCharacters` option of entry points and middlewares.
//!
//! The check reads the escaped path only; queries are never looked at.

use serde::{Deserialize, Serialize};

/// Traefik's `encodedCharacters` block as written; what is left out takes the default of where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EncodedCharactersConfig {
    /// `%2F`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_encoded_slash: Option<bool>,
    /// `%5C`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_encoded_back_slash: Option<bool>,
    /// `%00`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_encoded_null_character: Option<bool>,
    /// `%3B`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_encoded_semicolon: Option<bool>,
    /// `%25`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_encoded_percent: Option<bool>,
    /// `%3F`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_encoded_question_mark: Option<bool>,
    /// `%23`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_encoded_hash: Option<bool>,
}

impl EncodedCharactersConfig {
    /// The check this block stands for; an entry point's default is to allow, a middleware's is to deny.
    pub fn resolve(&self, default: bool) -> EncodedCharacters {
        EncodedCharacters {
            allow_slash: self.allow_encoded_slash.unwrap_or(default),
            allow_back_slash: self.allow_encoded_back_slash.unwrap_or(default),
            allow_null_character: self.allow_encoded_null_character.unwrap_or(default),
            allow_semicolon: self.allow_encoded_semicolon.unwrap_or(default),
            allow_percent: self.allow_encoded_percent.unwrap_or(default),
            allow_question_mark: self.allow_encoded_question_mark.unwrap_or(default),
            allow_hash: self.allow_encoded_hash.unwrap_or(default),
        }
    }
}

/// The compiled check of escaped characters in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedCharacters {
    /// `%2F` may pass.
    pub allow_slash: bool,
    /// `%5C` may pass.
    pub allow_back_slash: bool,
    /// `%00` may pass.
    pub allow_null_character: bool,
    /// `%3B` may pass.
    pub allow_semicolon: bool,
    /// `%25` may pass.
    pub allow_percent: bool,
    /// `%3F` may pass.
    pub allow_question_mark: bool,
    /// `%23` may pass.
    pub allow_hash: bool,
}

impl EncodedCharacters {
    /// Every escaped character may pass.
    pub const ALLOW_ALL: Self = Self::all(true);
    /// None of the seven may pass.
    pub const DENY_ALL: Self = Self::all(false);

    const fn all(allow: bool) -> Self {
        Self {
            allow_slash: allow,
            allow_back_slash: allow,
            allow_null_character: allow,
            allow_semicolon: allow,
            allow_percent: allow,
            allow_question_mark: allow,
            allow_hash: allow,
        }
    }

    /// Whether the path carries a character that is not allowed (the answer is 400 with an empty body).
    pub fn denied(&self, escaped_path: &str) -> bool {
        let bytes = escaped_path.as_bytes();
        *self != Self::ALLOW_ALL
            && memchr::memchr_iter(b'%', bytes).any(|at| {
                match bytes.get(at + 1..at + 3) {
                    Some([b'2', b'F' | b'f']) => !self.allow_slash,
                    Some([b'5', b'C' | b'c']) => !self.allow_back_slash,
                    Some([b'0', b'0']) => !self.allow_null_character,
                    Some([b'3', b'B' | b'b']) => !self.allow_semicolon,
                    Some([b'2', b'5']) => !self.allow_percent,
                    Some([b'3', b'F' | b'f']) => !self.allow_question_mark,
                    Some([b'2', b'3']) => !self.allow_hash,
                    Some(_) => false,
                    // A cut escape cannot come out of normalising; a middleware's result may have one.
                    None => true,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_governs_its_character() {
        let table = [
            ("allowEncodedSlash", "/a%2Fb"),
            ("allowEncodedBackSlash", "/a%5cb"),
            ("allowEncodedNullCharacter", "/private%00"),
            ("allowEncodedSemicolon", "/a%3b"),
            ("allowEncodedPercent", "/x/%252e%252e/"),
            ("allowEncodedQuestionMark", "/a%3f"),
            ("allowEncodedHash", "/a%23"),
        ];
        for (key, path) in table {
            let only_denied: EncodedCharactersConfig =
                serde_json::from_str(&format!("{{\"{key}\": false}}")).unwrap();
            let only_allowed: EncodedCharactersConfig =
                serde_json::from_str(&format!("{{\"{key}\": true}}")).unwrap();
            for (other, probe) in table {
                assert_eq!(only_denied.resolve(true).denied(probe), key == other, "{key} {probe}");
                assert_eq!(
                    only_allowed.resolve(false).denied(probe),
                    key != other,
                    "{key} {probe}"
                );
            }
            assert!(!EncodedCharacters::ALLOW_ALL.denied(path));
            assert!(EncodedCharacters::DENY_ALL.denied(&path.to_uppercase()));
        }
    }

    #[test]
    fn other_paths_pass() {
        for path in ["/", "/a/b;c", "/%20%C3%A9%2E"] {
            assert!(!EncodedCharacters::DENY_ALL.denied(path), "{path}");
        }
        assert!(EncodedCharacters::DENY_ALL.denied("/a%2"));
    }
}
