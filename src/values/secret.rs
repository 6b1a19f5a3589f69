//! Text that is never printed: what it is called, and what stands in its place.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// What stands in the place of a secret in what Traefik shows too.
pub const MASK: &str = "xxxx";
/// What stands in the place of a secret in what Doorward alone tells.
pub const HIDDEN: &str = "(hidden)";

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
        f.write_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// What a credential is called, wherever it stands. Every judgement by name is made of these lists.
const WORDS: [&str; 5] = ["authorization", "passwd", "password", "secret", "token"];
/// Further names of headers, parameters and fields of the log.
const OF_HEADERS: [&str; 3] = ["apikey", "cookie", "credential"];
/// Further names of options. There, `cookie` is a section and `accessControlAllowCredentials` a switch.
const OF_OPTIONS: [&str; 4] = ["hmac", "key", "set-cookie", "users"];
/// Further words in names of parameters of URLs. As a part of a longer word they say nothing.
const OF_PARAMETERS: [&str; 10] =
    ["auth", "code", "jwt", "nonce", "pass", "pwd", "session", "sid", "sig", "signature"];
/// What `errors` fills in, for what it is worth to see.
const PLACEHOLDERS: [&str; 3] = ["{originalStatus}", "{status}", "{url}"];

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

/// Whether the value of a parameter of this name must not be shown: in the query of a URL, or in its fragment.
pub fn is_secret_parameter(name: &str) -> bool {
    let is_secret_word =
        |word: &str| OF_PARAMETERS.iter().any(|one| one.eq_ignore_ascii_case(word));
    is_secret_name(name) || words(name).any(is_secret_word)
}

/// The words of a name, however they are put together: `auth_code`, `X-Amz-Signature`, `sessionId`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let parts = name.split(|one: char| !one.is_ascii_alphanumeric());
    parts.flat_map(|mut rest| {
        std::iter::from_fn(move || {
            let bytes = rest.as_bytes();
            let is_seam = |pair: &[u8]| {
                matches!(pair, [before, after] if !before.is_ascii_uppercase() && after.is_ascii_uppercase())
            };
            let end = bytes.windows(2).position(is_seam).map_or(rest.len(), |at| at + 1);
            let (word, after) = rest.split_at_checked(end)?;
            rest = after;
            (!word.is_empty()).then_some(word)
        })
    })
}

/// The URL of a server as it may be shown: in logs, labels and the API.
pub fn without_credentials(url: &str) -> Cow<'_, str> {
    let bare = match url.rsplit_once('@') {
        // Its scheme is missing, and what stands before the host is no name of an object.
        Some((_, host)) if !url.contains("://") => host.into(),
        _ => without_user(url),
    };
    match bare {
        Cow::Borrowed(url) => masked_url(url, MASK, is_secret_name),
        Cow::Owned(url) => masked_url(&url, MASK, is_secret_name).into_owned().into(),
    }
}

/// A URL without its user and password. Its scheme may be missing, if it looks like one all the same: names of objects
/// have an `@` too.
pub fn without_user(url: &str) -> Cow<'_, str> {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + "://".len()));
    let Some((user, after)) = end_of_user(rest).and_then(|at| rest.split_at_checked(at)) else {
        return url.into();
    };
    let bare = after.get(1..).unwrap_or_default();
    let host = bare.get(..end_of_authority(bare)).unwrap_or_default();
    if scheme.is_empty() && !(user.contains(':') && host.contains(['.', ':'])) {
        return url.into();
    }
    format!("{scheme}{bare}").into()
}

/// Where the `@` stands that ends the user and the password, in what follows `://`. A password may have in it, as it
/// is, what ends the host of a URL: then what looks like a port is no number.
pub fn end_of_user(rest: &str) -> Option<usize> {
    let authority = rest.get(..end_of_authority(rest)).unwrap_or_default();
    if let Some(at) = authority.rfind('@') {
        return Some(at);
    }
    let name = if authority.starts_with('[') { authority.find(']').unwrap_or(0) } else { 0 };
    let (_, port) = authority.get(name..)?.split_once(':')?;
    if port.parse::<u16>().is_ok() {
        return None;
    }
    let is_end = |one: char| one.is_whitespace() || "\"'`".contains(one);
    rest.get(..rest.find(is_end).unwrap_or(rest.len()))?.rfind('@')
}

fn end_of_authority(rest: &str) -> usize {
    rest.find(|end: char| end.is_whitespace() || "/?#".contains(end)).unwrap_or(rest.len())
}

/// A URL, or a part, a pattern or a template of one, with `mask` in the place of its user and password, and of the values
/// of those parameters that are named like secrets, or that `is_secret` names: of its query, and of its fragment, where
/// tokens are handed over. What holds no URL stays as it is.
pub fn masked_url<'t>(text: &'t str, mask: &str, is_secret: impl Fn(&str) -> bool) -> Cow<'t, str> {
    let hides = |name: &str, value: &str| {
        !value.is_empty()
            && (is_secret(name) || is_secret_parameter(name) && !PLACEHOLDERS.contains(&value))
    };
    let users = mask_users(text, mask);
    let mut is_masked = users.is_some();
    let shown = users.as_deref().unwrap_or(text);
    let (before, mut rest) = shown.split_at(shown.find(['?', '#']).unwrap_or(shown.len()));
    let mut out = before.to_owned();
    // Each piece begins with what separates it from the one before.
    while let Some(first) = rest.chars().next() {
        let inner = rest.get(first.len_utf8()..).unwrap_or_default();
        let end = inner.find(['&', '#', ';']).map_or(rest.len(), |end| end + first.len_utf8());
        let (piece, after) = rest.split_at(end);
        match piece.split_once('=') {
            Some((name, value)) if hides(parameter(name), value) => {
                is_masked = true;
                out.extend([name, "=", mask]);
            }
            _ => out.push_str(piece),
        }
        rest = after;
    }
    if is_masked { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// The text with `mask` in the place of every user with a password, if there is one.
fn mask_users(text: &str, mask: &str) -> Option<String> {
    let mut out = String::new();
    let (mut rest, mut is_masked) = (text, false);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        out.push_str(before);
        rest = after;
        if let Some(at) = end_of_user(after) {
            out.push_str(mask);
            rest = after.get(at..).unwrap_or_default();
            is_masked = true;
        }
    }
    out.push_str(rest);
    is_masked.then_some(out)
}

/// The name of a parameter, without what a pattern may have before it.
fn parameter(name: &str) -> &str {
    let is_around = |one: char| !one.is_alphanumeric() && !"-_.[]%~".contains(one);
    name.rsplit(is_around).next().unwrap_or_default()
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
    fn urls_show_no_credentials() {
        for (url, expected) in [
            ("https://a/x?page=1&token=s&b", "https://a/x?page=1&token=xxxx&b"),
            ("h2c://u:p@ss@a:1/x@y?z#w", "h2c://xxxx@a:1/x@y?z#w"),
            (
                "https://token@a?api_key=s#access_token=t&x=1",
                "https://xxxx@a?api_key=xxxx#access_token=xxxx&x=1",
            ),
            ("`http://a` of x: y@file, https://u:p@b", "`http://a` of x: y@file, https://xxxx@b"),
            ("${1}?a=b;secret=${2}", "${1}?a=b;secret=xxxx"),
            ("^/a(\\?|&)token=s$", "^/a(\\?|&)token=xxxx"),
            ("http://u:pa/ss@host:80/x", "http://xxxx@host:80/x"),
            ("http://u:pa?s=s@host:80, http://b/@x", "http://xxxx@host:80, http://b/@x"),
            ("http://u:1x#a@b@host", "http://xxxx@host"),
        ] {
            let shown = masked_url(url, MASK, is_secret_name);
            assert_eq!(shown, expected);
            assert_eq!(masked_url(&shown, MASK, is_secret_name), expected);
        }
        for url in [
            "/?token=&a=b",
            "a@b/token=x",
            "auth@file",
            "in a tree: one@file",
            "a:b@file",
            "(?P<token>x)=y",
            "(?:key|x)=y",
            "https://a/?q=token",
            "http://host:80/a@b",
            "http://host/@user",
            "http://[::1]/@user",
            "http://[::1]:80/a@b",
            "http://host:x/a, b@c",
            "/?code={status}&passage=x&barcode=y&author=z",
            "",
        ] {
            assert!(
                matches!(masked_url(url, MASK, is_secret_name), Cow::Borrowed(same) if same == url)
            );
        }
        assert_eq!(masked_url("/?a=b&c", MASK, |_| true), "/?a=xxxx&c");
    }

    #[test]
    fn secret_parameters_by_the_words_of_their_names() {
        for name in [
            "auth",
            "pwd",
            "pass",
            "sig",
            "signature",
            "jwt",
            "session",
            "sid",
            "code",
            "nonce",
            "AUTH",
            "auth_code",
            "X-Amz-Signature",
            "sessionId",
            "user[pass]",
            "api_key",
            "oauthCode",
        ] {
            assert!(is_secret_parameter(name), "{name}");
            let url = format!("http://a/?{name}=S&page=1");
            let shown = format!("http://a/?{name}=xxxx&page=1");
            assert_eq!(masked_url(&url, MASK, is_secret_name), shown);
        }
        for name in ["", "author", "passage", "design", "barcode", "side", "page", "sessions"] {
            assert!(!is_secret_parameter(name), "{name}");
        }
        assert_eq!(words("aBCd-e__fG").collect::<Vec<_>>(), ["a", "BCd", "e", "f", "G"]);
    }

    #[test]
    fn urls_lose_their_users() {
        for (url, expected) in [
            ("http://u:p@s@a:1/x@y", "http://a:1/x@y"),
            ("u:p@a:1?x@y", "a:1?x@y"),
            ("http://a/?x=u:p@b", "http://a/?x=u:p@b"),
            ("a:1", "a:1"),
            ("a:b@file", "a:b@file"),
            ("one@file", "one@file"),
            ("http://u:pa/ss@host:80", "http://host:80"),
            ("u:pa#s?s@host:80/x", "host:80/x"),
            ("http://host:80/a@b", "http://host:80/a@b"),
            ("http://host/@user", "http://host/@user"),
            ("a:b/c@file", "a:b/c@file"),
        ] {
            assert_eq!(without_user(url), expected);
        }
        for (url, expected) in [
            ("u:p@localhost?token=x", "localhost?token=xxxx"),
            ("http://u:p@a/?token=x&b=@", "http://a/?token=xxxx&b=@"),
            ("http://a/@", "http://a/@"),
        ] {
            assert_eq!(without_credentials(url), expected);
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
