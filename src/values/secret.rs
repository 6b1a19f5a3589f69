//! Text that is never printed.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A password, token or hash. `Debug` and `Serialize` say `xxxx`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("xxxx")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("xxxx")
    }
}

/// What a credential is called, wherever it stands. Every judgement by name is made of these lists.
const WORDS: [&str; 5] = ["authorization", "passwd", "password", "secret", "token"];
/// Further names of headers, parameters and fields of the log.
const OF_HEADERS: [&str; 3] = ["apikey", "cookie", "credential"];
/// Further names of options. There, `cookie` is a section and `accessControlAllowCredentials` a switch.
const OF_OPTIONS: [&str; 4] = ["hmac", "key", "set-cookie", "users"];

/// Whether a header of this name carries a credential, as far as the name tells.
pub fn is_credential_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    name.ends_with("-key") || WORDS.iter().chain(&OF_HEADERS).any(|word| name.contains(word))
}

/// Whether the value of an option of this name must not appear in messages or excerpts.
pub fn is_secret_option(key: &str) -> bool {
    // A header as it is written.
    if key == "Cookie" {
        return true;
    }
    let key = key.to_ascii_lowercase();
    // The path of a file is none, but a `keyFile` may hold the key itself.
    if key.ends_with("file") && !key.ends_with("keyfile") {
        return false;
    }
    WORDS.iter().chain(&OF_OPTIONS).any(|word| key.contains(word))
}

/// Whether a name ends in what is nearly the word for a secret: a misspelt password is a password.
pub fn is_secret_misspelt(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| {
        let lengths = [word.len() - 1, word.len(), word.len() + 1];
        let ends = lengths.iter().filter_map(|length| name.get(name.len().checked_sub(*length)?..));
        ends.into_iter().any(|end| strsim::damerau_levenshtein(end, word) == 1)
    })
}

/// Whether the value of a header, a parameter of a query or an option of this name must not be shown.
pub fn is_secret_name(name: &str) -> bool {
    is_secret_option(name) || is_credential_header(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_by_their_names() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "Set-Cookie",
            "X-Auth-Token",
            "X_API_KEY",
            "ApiKey",
            "X-Client-Secret",
            "X-Odoo-Master-Password",
        ] {
            assert!(is_credential_header(name), "{name}");
        }
        for name in ["X-Tenant", "Host", "X-Forwarded-Proto", "Content-Security-Policy", "Keyboard"]
        {
            assert!(!is_credential_header(name), "{name}");
        }
    }

    #[test]
    fn secret_options_by_their_names() {
        for name in ["password", "clientSecret", "ACCESSTOKEN", "keyFile", "users", "hmacEncoded"] {
            assert!(is_secret_option(name) && is_secret_name(name), "{name}");
        }
        for header in ["Authorization", "Cookie", "X-Api-Key", "Set-Cookie"] {
            assert!(is_secret_option(header) && is_secret_name(header), "{header}");
        }
        for name in ["address", "cookie", "usersFile", "accessControlAllowCredentials"] {
            assert!(!is_secret_option(name), "{name}");
        }
    }

    #[test]
    fn a_misspelt_password_is_a_password() {
        for name in ["toke", "passwor", "clientSecrte", "apiTokn", "PASWORD"] {
            assert!(is_secret_misspelt(name), "{name}");
        }
        for name in ["", "to", "user", "secure", "address", "rootKey"] {
            assert!(!is_secret_misspelt(name), "{name}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "xxxx");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"xxxx\"");
        assert_eq!(secret.expose(), "hunter2");
    }
}
