//! What the authentications share: lists of users, the realm, the refusal, and the headers that
//! tell a backend who somebody is, which nobody but us may set.

use std::path::Path;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::exchange::{Body, Outcome, Response};
use crate::values::{BuildError, Files, Secret};

/// Where a user stands.
pub(super) struct Place<'a> {
    /// The option.
    option: &'a str,
    /// The line of the users file.
    line: Option<usize>,
}

impl Place<'_> {
    /// A sentence about the user there.
    pub(super) fn say(&self, sentence: &str) -> BuildError {
        BuildError::at(
            self.option,
            match self.line {
                Some(line) => format!("line {line} of the users file: {sentence}"),
                None => sentence.to_owned(),
            },
        )
    }
}

/// Reads users, those of the file first. `add` gets the text of one and where it stands; it
/// returns `None` for what is no `form`.
pub(super) fn read_users(
    files: &dyn Files,
    (file, users): (&str, &[Secret]),
    (kind, form): (&str, &str),
    mut add: impl FnMut(&str, &Place<'_>) -> Option<()>,
) -> Result<(), BuildError> {
    if !file.is_empty() {
        let content = files.read(Path::new(file)).map_err(|error| {
            let message = format!("cannot read the users file `{file}`: {error}");
            BuildError::at("usersFile", message)
        })?;
        let lines = String::from_utf8_lossy(&content);
        for (index, line) in lines.lines().map(str::trim).enumerate() {
            if !line.is_empty() && !line.starts_with('#') {
                let place = Place { option: "usersFile", line: Some(index + 1) };
                add(line, &place).ok_or_else(|| {
                    let sentence = format!("error parsing {kind} in line {}", index + 1);
                    BuildError::at("usersFile", sentence)
                })?;
            }
        }
    }
    for (index, user) in users.iter().enumerate() {
        let option = format!("users[{index}]");
        if add(user.expose(), &Place { option: &option, line: None }).is_none() {
            return Err(BuildError::at(option, format!("error parsing {kind}: not `{form}`")));
        }
    }
    Ok(())
}

/// The realm as it stands between quotes in a challenge; the default is Traefik's.
pub(super) fn quoted_realm(configured: &str) -> Result<String, BuildError> {
    let realm = if configured.is_empty() { "traefik" } else { configured };
    if HeaderValue::from_bytes(realm.as_bytes()).is_err() {
        return Err(BuildError::at("realm", "a `realm` cannot contain control characters"));
    }
    Ok(realm.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The name of a header that an option holds; `None` when it is empty.
pub(super) fn header_name(at: &str, text: &str) -> Result<Option<HeaderName>, BuildError> {
    if text.is_empty() {
        return Ok(None);
    }
    let name =
        text.parse().map_err(|_| BuildError::at(at, format!("`{at}` is no name of a header")))?;
    Ok(Some(name))
}

/// Whether a request brings no credentials at all, as the first one of every client.
pub(super) fn is_first(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_none_or(HeaderValue::is_empty)
}

/// 401 with this challenge; `is_blameless`: nobody has guessed, see [`Outcome::challenge`].
pub(super) fn refusal(challenge: HeaderValue, is_blameless: bool) -> Response {
    let mut response = Response::new(Body::from_static(b"401 Unauthorized\n"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(WWW_AUTHENTICATE, challenge);
    Outcome::of(&mut response).challenge = is_blameless;
    response
}

/// Sets a header that only we may set: whatever a backend could read as the same name goes first
/// (CVE-2026-33433, CVE-2026-54763, CVE-2026-88011).
pub(super) fn set_identity(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    remove_aliases(headers, name);
    headers.insert(name, value.clone());
}

/// Removes a header and whatever a backend could read as it.
pub(super) fn remove_aliases(headers: &mut HeaderMap, name: &HeaderName) {
    let aliases: SmallVec<[HeaderName; 2]> =
        headers.keys().filter(|other| is_alias(other, name)).cloned().collect();
    for alias in &aliases {
        headers.remove(alias);
    }
}

/// Whether two names are the same when all punctuation is.
pub(super) fn is_alias(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| a == b || !a.is_ascii_alphanumeric() && !b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::FakeFiles;

    #[test]
    fn users_come_with_the_option_they_stand_in() {
        let files = FakeFiles([("/users".to_owned(), "# x\n\n a \r\nb".to_owned())].into());
        let users = [Secret::from("c".to_owned())];
        let read = |bad: &str| {
            let mut seen = Vec::new();
            let outcome = read_users(&files, ("/users", &users), ("U", "x"), |text, at| {
                let said = at.say("x");
                seen.push(format!("{text} {} {}", said.option, said.message));
                (text != bad).then_some(())
            });
            (seen, outcome.err().map(|error| (error.option, error.message)))
        };
        let (seen, error) = read("");
        assert_eq!(
            seen,
            [
                "a usersFile line 3 of the users file: x",
                "b usersFile line 4 of the users file: x",
                "c users[0] x",
            ]
        );
        assert_eq!(error, None);
        let at = |option: &str, message: &str| Some((option.to_owned(), message.to_owned()));
        assert_eq!(read("b").1, at("usersFile", "error parsing U in line 4"));
        assert_eq!(read("c").1, at("users[0]", "error parsing U: not `x`"));
    }

    #[test]
    fn a_realm_stays_between_its_quotes() {
        assert_eq!(quoted_realm("").unwrap(), "traefik");
        assert_eq!(quoted_realm("a \"b\" \\").unwrap(), "a \\\"b\\\" \\\\");
        assert_eq!(quoted_realm("a\r\nX: y").unwrap_err().option, "realm");
    }
}
