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

/// Whether a header of this name carries a credential, as far as the name tells.
pub fn is_credential_header(name: &str) -> bool {
    const WORDS: [&str; 8] = [
        "authorization",
        "cookie",
        "credential",
        "passwd",
        "password",
        "secret",
        "token",
        "apikey",
    ];
    let name = name.to_ascii_lowercase().replace('_', "-");
    name.ends_with("-key") || WORDS.iter().any(|word| name.contains(word))
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
    fn a_secret_is_not_printed() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "xxxx");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"xxxx\"");
        assert_eq!(secret.expose(), "hunter2");
    }
}
