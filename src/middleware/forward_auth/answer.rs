//! What becomes of the authentication server's answer: headers of the request, cookies of the
//! response, or the response itself.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, SET_COOKIE};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

use super::ForwardAuth;
use crate::exchange::body::FRAMING;
use crate::exchange::error::empty;
use crate::exchange::forwarded::remove_named_in_connection;
use crate::exchange::{Body, Response};
use crate::middleware::auth::remove_aliases;
use crate::middleware::redirect;
use crate::middleware::reference::resolve;

/// Where clients log in.
pub(super) struct Signin {
    /// For `Location`.
    pub(super) location: HeaderValue,
    /// For those who do not follow it.
    pub(super) page: Bytes,
}

impl Signin {
    /// The page of Go's `http.Redirect`.
    pub(super) fn page(url: &str) -> Bytes {
        let mut page = String::from("<a href=\"");
        for character in url.chars() {
            match character {
                '&' => page.push_str("&amp;"),
                '<' => page.push_str("&lt;"),
                '>' => page.push_str("&gt;"),
                '"' => page.push_str("&#34;"),
                '\'' => page.push_str("&#39;"),
                other => page.push(other),
            }
        }
        page.push_str("\">Found</a>.\n\n");
        page.into()
    }

    /// Sends the client there. As in Go, only GET gets the page, and HEAD its type.
    fn redirect(&self, method: &Method) -> Response {
        let get = *method == Method::GET;
        let body = if get { Body::from(self.page.clone()) } else { Body::empty() };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::FOUND;
        let headers = response.headers_mut();
        headers.insert(LOCATION, self.location.clone());
        if get || *method == Method::HEAD {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        }
        response
    }
}

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
        let gone: Vec<HeaderName> =
            to.keys().filter(|name| could_match(pattern, name)).cloned().collect();
        for name in &gone {
            to.remove(name);
        }
        let taken = || from.keys().filter(|name| !FRAMING.contains(name) && matches(pattern, name));
        for name in taken() {
            remove_aliases(to, name);
        }
        for name in taken() {
            for value in from.get_all(name) {
                to.append(name, value.clone());
            }
        }
    }

    /// The headers of an answer that are used when it lets a request pass, cookies aside.
    pub(super) fn used(&self, from: &HeaderMap) -> HeaderMap {
        let is_used = |name: &HeaderName| {
            self.taken_over.contains(name)
                || self.user_field.as_ref() == Some(name)
                || !FRAMING.contains(name)
                    && self.pattern.as_ref().is_some_and(|pattern| matches(pattern, name))
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
    pub(super) fn relay(&self, mut answer: Parts, body: Bytes, method: &Method) -> Response {
        if let Some(signin) = &self.signin
            && answer.status == StatusCode::UNAUTHORIZED
        {
            return signin.redirect(method);
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

/// Whether a pattern means a header of the answer, as in Traefik.
fn matches(pattern: &Regex, name: &HeaderName) -> bool {
    pattern.is_match(&canonical(name.as_str()))
}

/// Whether a backend could read a client's header as one that the pattern means. All punctuation may
/// be the same to it, in the header and in the pattern's author's mind: `X_Auth` or `X_auth`.
fn could_match(pattern: &Regex, name: &HeaderName) -> bool {
    if FRAMING.contains(name) {
        return false;
    }
    let name = name.as_str();
    let with = |mark: &str| name.replace(|one: char| !one.is_ascii_alphanumeric(), mark);
    let dashed = canonical(&with("-"));
    pattern.is_match(&canonical(name))
        || pattern.is_match(&dashed)
        || pattern.is_match(&canonical(&with("_")))
        || pattern.is_match(&dashed.replace('-', "_"))
}
