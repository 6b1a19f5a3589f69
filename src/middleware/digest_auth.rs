//! `digestAuth`: a name and the proof of a password for every request (RFC 7616 with MD5 and `auth`).
//!
//! A proof is good once, for one method and one target. Who is not listed costs the same work and
//! is refused.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::digest_header::DigestHeader;
use super::nonces::{Nonces, Verdict};
use super::{Build, BuildContext, auth};
use crate::exchange::canonical::{
    normalize_path, rewrite_query_semicolons, routing_path, sanitize_path,
};
use crate::exchange::error::bare;
use crate::exchange::{
    Attempts, Context, Middleware, Next, Outcome, Request, Response, ResponseFuture, ready,
};
use crate::values::{BuildError, Profile, Secret, is_default};

/// Options of `digestAuth`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DigestAuthConfig {
    /// `name:realm:hash` each, as `htdigest` writes it. They override those of the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Secret>,
    /// A file with one user per line; blank lines and lines with `#` do not count.
    #[serde(skip_serializing_if = "is_default")]
    pub users_file: String,
    /// Do not pass `Authorization` on. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub remove_header: bool,
    /// Only users of this realm count. Default: traefik.
    #[serde(skip_serializing_if = "is_default")]
    pub realm: String,
    /// Header that tells the backend the name. Default: none.
    #[serde(skip_serializing_if = "is_default")]
    pub header_field: String,
}

impl Build for DigestAuthConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let quoted_realm = auth::quoted_realm(&self.realm)?;
        let header_field = auth::header_name("headerField", &self.header_field)?;
        let users = self.read_users(cx)?;
        if users.is_empty() {
            let sentence = "nobody can log in: no user of this realm is configured";
            cx.warnings.push(BuildError::at("realm", sentence));
        }
        let mut decoy = [0_u8; 16];
        rand::fill(&mut decoy).map_err(|_| BuildError::new("no randomness"))?;
        let nonces = Nonces::new()?;
        Ok(Arc::new(DigestAuth {
            users,
            decoy: hexadecimal(&decoy),
            nonces: cx.carry_over(&quoted_realm, || nonces),
            realm: quoted_realm,
            header_field,
            remove_header: self.remove_header,
            exact: cx.profile == Profile::Exact,
        }))
    }
}

impl DigestAuthConfig {
    fn read_users(
        &self,
        cx: &mut BuildContext<'_>,
    ) -> Result<HashMap<Box<[u8]>, User>, BuildError> {
        let realm = if self.realm.is_empty() { "traefik" } else { &self.realm };
        let mut users = HashMap::new();
        let (files, warnings) = (cx.files, &mut *cx.warnings);
        let sources = (&*self.users_file, &*self.users);
        auth::read_users(files, sources, ("DigestUser", "name:realm:hash"), |text, place| {
            let mut parts = text.split(':');
            let (name, of, hash) = (parts.next()?, parts.next()?, parts.next()?);
            let header = HeaderValue::from_bytes(name.as_bytes()).ok()?;
            if parts.next().is_some() {
                return None;
            }
            if of != realm {
                return Some(());
            }
            let Some(hash) = hash_of(hash) else {
                let sentence = "this hash is not 32 hexadecimal digits in lower case: it never \
                                matches";
                warnings.push(place.say(sentence));
                users.remove(name.as_bytes());
                return Some(());
            };
            users.insert(name.as_bytes().into(), User { name: name.into(), header, hash });
            Some(())
        })?;
        Ok(users)
    }
}

/// MD5 in hexadecimal digits, as it goes into the next hash.
type Hexadecimal = [u8; 32];

/// A hash as it can come out of MD5. Any other, above all an empty one, would be a password that
/// everybody knows.
fn hash_of(text: &str) -> Option<Hexadecimal> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.as_bytes().try_into().ok().filter(|_| digits)
}

fn hexadecimal(bytes: &[u8; 16]) -> Hexadecimal {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    let mut out = [0; 32];
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(*byte)];
    }
    out
}

/// MD5 of `parts` with colons between them.
fn md5(parts: &[&[u8]]) -> Hexadecimal {
    let mut hash = Md5::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    hexadecimal(&hash.finalize().into())
}

struct User {
    name: Arc<str>,
    header: HeaderValue,
    /// MD5 of `name:realm:password`.
    hash: Hexadecimal,
}

struct DigestAuth {
    /// By their names.
    users: HashMap<Box<[u8]>, User>,
    /// What an unknown name's proof is checked against.
    decoy: Hexadecimal,
    nonces: Arc<Nonces>,
    realm: String,
    header_field: Option<HeaderName>,
    remove_header: bool,
    /// As in Traefik, take a proof for a path for everything below it too, and call no nonce of
    /// another time stale.
    exact: bool,
}

/// What came of a request's credentials.
enum Found<'a> {
    User(&'a User),
    /// Right, but with a nonce that was overtaken, or is none of ours (any more).
    Stale,
    /// The same where that is not to be told.
    Untold,
    Nobody,
}

impl Middleware for DigestAuth {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let user = match self.authenticate(&request) {
            Found::User(user) => user,
            Found::Stale => return ready(self.refusal(true, true)),
            Found::Untold => return ready(self.refusal(false, true)),
            Found::Nobody => {
                let is_first = auth::is_first(request.headers());
                return ready(self.refusal(false, is_first));
            }
        };
        if let Some(name) = &self.header_field {
            auth::set_identity(request.headers_mut(), name, &user.header);
        }
        if self.remove_header {
            request.headers_mut().remove(AUTHORIZATION);
        }
        Box::pin(async move {
            let mut response = next.run(cx, request).await;
            Outcome::of(&mut response).user.get_or_insert_with(|| Arc::clone(&user.name));
            response
        })
    }
}

impl DigestAuth {
    fn authenticate(&self, request: &Request) -> Found<'_> {
        let header = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        header
            .and_then(DigestHeader::parse)
            .and_then(|header| self.check(request, &header))
            .unwrap_or(Found::Nobody)
    }

    /// `None` for whatever is missing or wrong.
    fn check(&self, request: &Request, header: &DigestHeader<'_>) -> Option<Found<'_>> {
        // Some clients leave the algorithm out.
        let algorithm = header.algorithm.as_deref().unwrap_or(b"MD5");
        let uri = header.uri.as_deref()?;
        if !algorithm.eq_ignore_ascii_case(b"MD5")
            || header.qop.as_deref() != Some(b"auth")
            || !self.means(str::from_utf8(uri).ok()?, request.uri())
        {
            return None;
        }
        let (nonce, nc) = (header.nonce.as_deref()?, header.nc.as_deref()?);
        let user = self.users.get(header.username.as_deref()?);
        let hash = user.map_or(&self.decoy, |user| &user.hash);
        let asked = md5(&[request.method().as_str().as_bytes(), uri]);
        let proof = md5(&[hash, nonce, nc, header.cnonce.as_deref()?, b"auth", &asked]);
        verify_slices_are_equal(&proof, header.response.as_deref()?).ok()?;
        let (user, count) = (user?, count(nc)?);
        if !self.nonces.is_ours(nonce) {
            // The password is right (RFC 7616, 3.3): who has a nonce of before a restart, or of
            // another instance, is not asked for it again.
            return Some(if self.exact { Found::Untold } else { Found::Stale });
        }
        if header.opaque.as_deref() != Some(self.nonces.opaque().as_bytes()) {
            return None;
        }
        // A proof is good once, and each attempt of one request brings the same one.
        let checker = std::ptr::from_ref(self).addr();
        let attempts = Attempts::of(request);
        let written = request.headers().get(AUTHORIZATION)?;
        if attempts.is_some_and(|attempts| attempts.has_proven(checker, written)) {
            return Some(Found::User(user));
        }
        let verdict = self.nonces.take(nonce, count);
        if let (Verdict::Fresh, Some(attempts)) = (verdict, attempts) {
            attempts.prove(checker, written);
        }
        Some(match verdict {
            Verdict::Fresh => Found::User(user),
            Verdict::Stale => Found::Stale,
            Verdict::Refused => Found::Nobody,
        })
    }

    /// Whether `uri`, as a client has put it into its proof, means the target that it asks for.
    fn means(&self, uri: &str, target: &Uri) -> bool {
        if target.path_and_query().is_some_and(|written| written.as_str() == uri) {
            return true;
        }
        let uri = match uri.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
                rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/")
            }
            _ => uri,
        };
        let (path, query) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (uri, None),
        };
        // The target has come through the same two on its way in.
        let Ok(path) = normalize_path(path) else { return false };
        if self.exact {
            return routing_path(target.path()).starts_with(&*routing_path(&path));
        }
        let separated = |query: Option<&str>| {
            query.map(|query| rewrite_query_semicolons(query, false).into_owned())
        };
        (*path == *target.path() || *sanitize_path(&path) == *target.path())
            && separated(query) == separated(target.query())
    }

    fn refusal(&self, stale: bool, is_blameless: bool) -> Response {
        let (realm, nonce, opaque) = (&self.realm, self.nonces.issue(), self.nonces.opaque());
        let stale = if stale { "stale=\"true\", " } else { "" };
        let challenge = format!(
            "Digest realm=\"{realm}\", nonce=\"{nonce}\", opaque=\"{opaque}\", \
             {stale}algorithm=\"MD5\", qop=\"auth\""
        );
        match HeaderValue::from_bytes(challenge.as_bytes()) {
            Ok(challenge) => auth::refusal(challenge, is_blameless),
            // The realm was checked, so this cannot be.
            Err(_) => bare(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// A nonce's count: hexadecimal digits, as Go's `ParseUint` takes them.
fn count(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit);
    let text = str::from_utf8(text).ok().filter(|_| digits)?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests;
