//! What becomes of the authentication server's answer: headers of the request, cookies of the
//! response, or the response itself.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, LOCATION, SET_COOKIE};
use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use regex::Regex;

use super::ForwardAuth;
use crate::exchange::body::FRAMING;
use crate::exchange::error::empty;
use crate::exchange::forwarded::remove_named_in_connection;
use crate::exchange::{Body, Response};
use crate::middleware::auth::remove_aliases;
use crate::middleware::redirect;
use crate::middleware::reference::resolve;

impl ForwardAuth {
    /// Puts what the answer says of the user into the request, in place of what the client says.
    pub(super) fn take_over(&self, from: &HeaderMap, to: &mut HeaderMap) {
        for name in &self.taken_over {
            remove_aliases(to, name);
            for value in from.get_all(name) {
                to.append(name, value.clone());
            }
        }
        let Some(pattern) = &self.pattern else { return };
        let matches = |name: &HeaderName| {
            let canonical = canonical(name.as_str());
            // A backend may read other punctuation as `-`.
            let dashed = || canonical_of_alias(name.as_str());
            !FRAMING.contains(name) && (pattern.is_match(&canonical) || pattern.is_match(&dashed()))
        };
        let gone: Vec<HeaderName> = to.keys().filter(|name| matches(name)).cloned().collect();
        for name in &gone {
            to.remove(name);
        }
        for name in from.keys().filter(|name| !FRAMING.contains(name)) {
            if pattern.is_match(&canonical(name.as_str())) {
                to.remove(name);
                for value in from.get_all(name) {
                    to.append(name, value.clone());
                }
            }
        }
    }

    /// The headers of an answer that are used when it lets a request pass, cookies aside.
    pub(super) fn used(&self, from: &HeaderMap) -> HeaderMap {
        let is_used = |name: &HeaderName| {
            let matches = |pattern: &Regex| pattern.is_match(&canonical(name.as_str()));
            self.taken_over.contains(name)
                || self.user_field.as_ref() == Some(name)
                || !FRAMING.contains(name) && self.pattern.as_ref().is_some_and(matches)
        };
        let mut used = HeaderMap::new();
        for (name, value) in from.iter().filter(|(name, _)| is_used(name)) {
            used.append(name, value.clone());
        }
        used
    }

    /// Gives the client the cookies that are listed, and not the backend's of those names.
    pub(super) fn add_cookies(&self, from: &HeaderMap, to: &mut HeaderMap) {
        if self.cookies.is_empty() || !from.get_all(SET_COOKIE).iter().any(|it| name(it).is_some())
        {
            return;
        }
        let listed = |line: &HeaderValue| {
            name(line).is_some_and(|name| self.cookies.iter().any(|it| it.as_bytes() == name))
        };
        let own: Vec<HeaderValue> =
            to.get_all(SET_COOKIE).iter().filter(|line| !listed(line)).cloned().collect();
        to.remove(SET_COOKIE);
        let theirs = from.get_all(SET_COOKIE).iter().filter(|line| listed(line)).cloned();
        for line in own.into_iter().chain(theirs) {
            to.append(SET_COOKIE, line);
        }
    }

    /// An answer that lets nobody pass, as the client gets it.
    pub(super) fn relay(&self, mut answer: Parts, body: Bytes) -> Response {
        if let Some(signin) = &self.signin
            && answer.status == StatusCode::UNAUTHORIZED
        {
            let mut response = empty(StatusCode::FOUND);
            response.headers_mut().insert(LOCATION, signin.clone());
            return response;
        }
        let headers = &mut answer.headers;
        match self.location(headers) {
            Ok(Some(location)) => drop(headers.insert(LOCATION, location)),
            Ok(None) => {}
            Err(()) => return empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
        remove_named_in_connection(headers, |_| false);
        for name in &FRAMING {
            // An answer to HEAD says how long its body would be.
            if *name != CONTENT_LENGTH || !body.is_empty() {
                headers.remove(name);
            }
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        response
    }

    fn location(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, ()> {
        let Some(value) = headers.get(LOCATION).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let text = str::from_utf8(value.as_bytes()).map_err(|_| ())?;
        let url = if self.keeps_location { text.to_owned() } else { resolve(&self.address, text) };
        let location = redirect::location(&url).ok_or(())?;
        HeaderValue::from_str(&location).map(Some).map_err(|_| ())
    }
}

/// The name of the cookie that a `Set-Cookie` line sets.
fn name(line: &HeaderValue) -> Option<&[u8]> {
    let pair = line.as_bytes().split(|&byte| byte == b';').next()?;
    let (name, _) = pair.split_at(memchr::memchr(b'=', pair)?);
    let name = name.trim_ascii();
    (!name.is_empty()).then_some(name)
}

/// A name as Go writes it: `X-Auth-User`.
fn canonical(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut starts = true;
    for character in name.chars() {
        out.push(if starts { character.to_ascii_uppercase() } else { character });
        starts = character == '-';
    }
    out
}

/// The same for a name whose punctuation is all read as `-`.
fn canonical_of_alias(name: &str) -> String {
    canonical(&name.replace(|character: char| !character.is_ascii_alphanumeric(), "-"))
}
