//! The URL of the authentication server, which may hold a user and a password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

use crate::upstream::Target;
use crate::values::BuildError;

/// `address`, read.
pub(super) struct Address {
    pub(super) target: Target,
    /// Without user, password and fragment.
    pub(super) text: Box<str>,
    pub(super) path: PathAndQuery,
    /// Of the URL's user and password.
    pub(super) authorization: Option<HeaderValue>,
}

impl Address {
    /// Reads an address; what is wrong with it does not repeat it.
    pub(super) fn parse(address: &str) -> Result<Self, BuildError> {
        let wrong = |why: String| BuildError::at("address", why);
        if address.is_empty() {
            return Err(wrong("the address of the authentication server is required".to_owned()));
        }
        let (credentials, text) = Self::split(address);
        // What is no URL is not repeated: it may hold a password.
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            return Err(wrong("the address must start with http:// or https://".to_owned()));
        }
        let target = Target::parse(&text).map_err(|error| wrong(error.message))?;
        let uri: Uri = text.parse().map_err(|_| wrong("this is no URL".to_owned()))?;
        let path = match uri.query() {
            Some(query) => format!("{}?{query}", uri.path()),
            None => uri.path().to_owned(),
        };
        let path = path.parse().map_err(|_| wrong("its path cannot be sent".to_owned()))?;
        let authorization = credentials
            .map(|credentials| {
                let mut pair = percent_decoded(credentials);
                if !credentials.contains(':') {
                    pair.push(b':');
                }
                HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
            })
            .transpose()
            .map_err(|_| wrong("its credentials cannot be sent".to_owned()))?;
        Ok(Self { target, text: text.into(), path, authorization })
    }

    /// The credentials of a URL, and the URL without them and its fragment.
    pub(super) fn split(address: &str) -> (Option<&str>, String) {
        let address = address.split_once('#').map_or(address, |(before, _)| before);
        if let Some((scheme, rest)) = address.split_once("://") {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if let Some((credentials, host)) = authority.rsplit_once('@') {
                return (Some(credentials), format!("{scheme}://{host}{path}"));
            }
        }
        // No URL, but somebody may have meant one.
        match address.rsplit_once('@') {
            Some((credentials, host)) if !address.contains("://") => {
                (Some(credentials), host.to_owned())
            }
            _ => (None, address.to_owned()),
        }
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let escape = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let escape = escape.and_then(|digits| str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if first == b'%' => {
                out.push(value);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = behind;
            }
        }
    }
    out
}
