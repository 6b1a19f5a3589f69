//! `basicAuth`: a name and a password for every request.
//!
//! How long a refusal takes says nothing about which names exist: an unknown name costs a check
//! against a real hash, the dearest there is. Checks run on a few blocking threads; a success is
//! remembered for minutes, under a keyed hash.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::password::StoredHash;
use super::{Build, BuildContext, auth};
use crate::exchange::{Context, Middleware, Next, Outcome, Request, ResponseFuture};
use crate::values::{BuildError, Secret, is_default};

/// Options of `basicAuth`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BasicAuthConfig {
    /// `name:hash` each, as `htpasswd` writes it. They override those of the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Secret>,
    /// A file with one user per line; blank lines and lines with `#` do not count.
    #[serde(skip_serializing_if = "is_default")]
    pub users_file: String,
    /// Default: traefik.
    #[serde(skip_serializing_if = "is_default")]
    pub realm: String,
    /// Do not pass `Authorization` on. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub remove_header: bool,
    /// Header that tells the backend the name. Default: none.
    #[serde(skip_serializing_if = "is_default")]
    pub header_field: String,
}

impl Build for BasicAuthConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let users = self.read_users(cx)?;
        let Some(dearest) = users.values().max_by_key(|user| user.hash.cost()) else {
            return Err(BuildError::new("no users are configured"));
        };
        let dearest = dearest.hash.clone();
        let challenge = format!("Basic realm=\"{}\"", auth::quoted_realm(&self.realm)?);
        let challenge = HeaderValue::from_bytes(challenge.as_bytes())
            .map_err(|_| BuildError::at("realm", "a `realm` cannot contain control characters"))?;
        let header_field = auth::header_name("headerField", &self.header_field)?;
        Ok(Arc::new(BasicAuth {
            users,
            dearest,
            challenge,
            header_field,
            remove_header: self.remove_header,
            known: Known::new()?,
        }))
    }
}

impl BasicAuthConfig {
    fn read_users(&self, cx: &mut BuildContext<'_>) -> Result<HashMap<String, User>, BuildError> {
        let mut users = HashMap::new();
        let (files, warnings) = (cx.files, &mut *cx.warnings);
        let sources = (&*self.users_file, &*self.users);
        auth::read_users(files, sources, ("BasicUser", "name:hash"), |text, place| {
            let (name, user) = read_user(text)?;
            if !user.hash.can_match() {
                let sentence = "this user can never log in: the hash is cut off or of a kind that \
                                is not known here; write bcrypt (`$2y$`), MD5-crypt (`$apr1$`, \
                                `$1$`) or `{SHA}`, as `htpasswd` does";
                warnings.push(place.say(sentence));
            }
            users.insert(name, user);
            Some(())
        })?;
        Ok(users)
    }
}

struct User {
    name: Arc<str>,
    header: HeaderValue,
    hash: StoredHash,
}

/// Reads `name:hash`. A name that cannot stand in a header is refused too.
fn read_user(text: &str) -> Option<(String, User)> {
    let (name, hash) = text.split_once(':').filter(|(_, hash)| !hash.contains(':'))?;
    let header = HeaderValue::from_bytes(name.as_bytes()).ok()?;
    let user = User { name: name.into(), header, hash: StoredHash::parse(hash) };
    Some((name.to_owned(), user))
}

/// How long a success is remembered.
const REMEMBERED: Duration = Duration::from_mins(5);
/// How many successes are remembered.
const REMEMBERED_AT_MOST: usize = 4096;

/// Checks of passwords at one time, in the whole process: each is a processor at full load.
static CHECKS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Semaphore::new(processors.div_ceil(2))
});

/// Credentials that were right a short while ago, as a hash under a key that only this middleware
/// has. Right credentials stay right as long as it lives, since users are read when it is built.
struct Known {
    key: hmac::Key,
    tags: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Known {
    fn new() -> Result<Self, BuildError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        rand::fill(&mut *key).map_err(|_| BuildError::new("no randomness"))?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &*key), tags: Mutex::default() })
    }

    fn tag(&self, credentials: &[u8]) -> [u8; 32] {
        let mut tag = [0_u8; 32];
        let made = hmac::sign(&self.key, credentials);
        for (to, from) in tag.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        tag
    }

    fn has(&self, tag: &[u8; 32]) -> bool {
        let tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.get(tag).is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn add(&self, tag: [u8; 32]) {
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.len() >= REMEMBERED_AT_MOST {
            tags.retain(|_, since| since.elapsed() < REMEMBERED);
            if tags.len() >= REMEMBERED_AT_MOST {
                tags.clear();
            }
        }
        tags.insert(tag, Instant::now());
    }
}

struct BasicAuth {
    users: HashMap<String, User>,
    /// What an unknown name's password is checked against.
    dearest: StoredHash,
    challenge: HeaderValue,
    header_field: Option<HeaderName>,
    remove_header: bool,
    known: Known,
}

impl Middleware for BasicAuth {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        Box::pin(async move {
            let Some(user) = self.authenticate(request.headers()).await else {
                let is_first = auth::is_first(request.headers());
                return auth::refusal(self.challenge.clone(), is_first);
            };
            if let Some(name) = &self.header_field {
                auth::set_identity(request.headers_mut(), name, &user.header);
            }
            if self.remove_header {
                request.headers_mut().remove(AUTHORIZATION);
            }
            let mut response = next.run(cx, request).await;
            Outcome::of(&mut response).user.get_or_insert_with(|| Arc::clone(&user.name));
            response
        })
    }
}

impl BasicAuth {
    /// The user whose name and password the request carries.
    async fn authenticate(&self, headers: &HeaderMap) -> Option<&User> {
        let credentials = credentials(headers)?;
        let colon = memchr::memchr(b':', &credentials)?;
        let user = credentials
            .get(..colon)
            .and_then(|name| str::from_utf8(name).ok())
            .and_then(|name| self.users.get(name));
        let tag = self.known.tag(&credentials);
        if self.known.has(&tag) {
            return user;
        }
        let hash = user.map(|user| user.hash.clone());
        let dearest = self.dearest.clone();
        let check = move || {
            let password = credentials.get(colon + 1..).unwrap_or_default();
            let found = hash.as_ref().is_some_and(|hash| hash.matches(password));
            if !found && needs_decoy(hash.as_ref(), &dearest) {
                std::hint::black_box(dearest.matches(password));
            }
            found
        };
        let right = if self.dearest.cost() <= 1 {
            check()
        } else {
            let permit = CHECKS.acquire().await.ok()?;
            // The permit goes along: a client that leaves does not stop the work.
            let work = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                check()
            });
            work.await.unwrap_or(false)
        };
        if !right {
            return None;
        }
        self.known.add(tag);
        user
    }
}

/// Whether a refusal would come too fast without another check: who has a cheaper hash than the
/// dearest, or none, must not be refused any faster.
fn needs_decoy(hash: Option<&StoredHash>, dearest: &StoredHash) -> bool {
    hash.is_none_or(|hash| hash.cost() < dearest.cost())
}

/// The decoded `name:password` of an `Authorization: Basic` header.
fn credentials(headers: &HeaderMap) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD.decode(encoded).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{Bench, FakeFiles, Setting, body, build, get, with};

    const TEST: &str = "test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/";
    const TEST2: &str = "test2:$apr1$d9hr9HBB$4HxwgUir3HP4EsggP/QNo0";

    fn config(users: &[&str]) -> BasicAuthConfig {
        BasicAuthConfig {
            users: users.iter().map(|&user| Secret::from(user.to_owned())).collect(),
            ..BasicAuthConfig::default()
        }
    }

    fn login(credentials: &str) -> Request {
        with(get("/"), "authorization", &format!("Basic {}", STANDARD.encode(credentials)))
    }

    #[tokio::test]
    async fn only_right_credentials_pass() {
        let bcrypt = format!("b:{}", bcrypt::hash("p:w", 4).unwrap());
        let sha = "s:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=";
        let bench = Bench::new(vec![build(&config(&[TEST, TEST2, &bcrypt, sha, "n:x"])).unwrap()]);
        for _ in 0..2 {
            for (credentials, want) in [
                ("test:test", 200),
                ("test2:test2", 200),
                ("b:p:w", 200),
                ("s:test", 200),
                ("test:test2", 401),
                ("Test:test", 401),
                ("nobody:test", 401),
                ("test", 401),
                ("test:", 401),
                ("n:x", 401),
                ("", 401),
            ] {
                assert_eq!(bench.status(login(credentials)).await, want, "{credentials}");
            }
        }
        for header in ["Bearer x", "Basic", "Basic !", "Basic dGVzdDp0ZXN0=", "é"] {
            let request = with(get("/"), "authorization", header);
            assert_eq!(bench.status(request).await, 401, "{header}");
        }
        let lower = with(get("/"), "authorization", "basic dGVzdDp0ZXN0");
        assert_eq!(bench.status(lower).await, 200);
    }

    #[tokio::test]
    async fn the_refusal_asks_for_credentials() {
        let bench = Bench::new(vec![build(&config(&[TEST])).unwrap()]);
        let response = bench.send(get("/")).await;
        assert_eq!(response.headers()["www-authenticate"], "Basic realm=\"traefik\"");
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.headers().len(), 2);
        assert_eq!(body(response).await, "401 Unauthorized\n");
        assert_eq!(bench.calls(), 0);
        let realm = BasicAuthConfig { realm: "a \"b\"".into(), ..config(&[TEST]) };
        let response = Bench::new(vec![build(&realm).unwrap()]).send(get("/")).await.into_parts().0;
        assert_eq!(response.headers["www-authenticate"], "Basic realm=\"a \\\"b\\\"\"");
    }

    #[tokio::test]
    async fn only_who_brings_credentials_has_guessed() {
        let bench = Bench::new(vec![build(&config(&[TEST])).unwrap()]);
        for (header, blameless) in
            [(None, true), (Some(""), true), (Some("Basic x"), false), (Some("Bearer x"), false)]
        {
            let request = header.map_or(get("/"), |value| with(get("/"), "authorization", value));
            let mut response = bench.send(request).await;
            assert_eq!(response.status(), 401);
            assert_eq!(Outcome::of(&mut response).challenge, blameless, "{header:?}");
        }
        let mut response = bench.send(login("test:wrong")).await;
        assert!(!Outcome::of(&mut response).challenge);
    }

    /// T-36
    #[tokio::test]
    async fn the_backend_gets_one_identity() {
        let config = BasicAuthConfig {
            header_field: "x-auth-user".into(),
            remove_header: true,
            ..config(&[TEST])
        };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        let mut request = login("test:test");
        for name in ["X-Auth-User", "x_auth_user", "X.Auth.User", "x~auth~user", "X-Auth_User"] {
            request = with(request, name, "admin");
        }
        let response = bench.send(with(request, "x-authxuser", "kept")).await;
        assert_eq!(response.extensions().get::<Outcome>().unwrap().user.as_deref(), Some("test"));
        let seen = bench.seen();
        let values: Vec<_> = seen.headers.get_all("x-auth-user").iter().collect();
        assert_eq!(values, ["test"]);
        assert_eq!(seen.headers.keys().filter(|name| name.as_str().contains("user")).count(), 2);
        assert!(!seen.headers.contains_key(AUTHORIZATION));
    }

    #[tokio::test]
    async fn users_override_those_of_the_file() {
        let file = format!("# users\n\n  {TEST2}\r\n{}\n", TEST.replace('H', "h"));
        let setting = Setting {
            files: FakeFiles([("/users".to_owned(), file)].into()),
            ..Setting::default()
        };
        let config = BasicAuthConfig { users_file: "/users".into(), ..config(&[TEST]) };
        let bench = Bench::new(vec![setting.build(&config).unwrap().0]);
        assert_eq!(bench.status(login("test:test")).await, 200);
        assert_eq!(bench.status(login("test2:test2")).await, 200);
        let missing = BasicAuthConfig { users_file: "/none".into(), ..config };
        assert_eq!(setting.build(&missing).err().unwrap().option, "usersFile");
    }

    #[test]
    fn users_are_checked_and_never_shown() {
        for (users, option) in
            [(&[][..], ""), (&[TEST, "test"], "users[1]"), (&["a:b:c"], "users[0]")]
        {
            let error = build(&config(users)).err().unwrap();
            assert_eq!(error.option, option);
            assert!(!error.message.contains("a:b:c"));
        }
        let shown = serde_json::to_string(&config(&[TEST])).unwrap();
        assert_eq!(shown, r#"{"users":["xxxx"]}"#);
    }

    /// T-41, T-66
    #[tokio::test]
    async fn unknown_names_cost_a_real_check() {
        let hash = bcrypt::hash("right", 9).unwrap();
        let sha = "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=";
        let users = [&*format!("b:{hash}"), &*format!("s:{sha}"), "n:x"];
        let bench = Bench::new(vec![build(&config(&users)).unwrap()]);
        for credentials in ["b:wrong", "nobody:wrong", "s:wrong", "n:wrong"] {
            let start = Instant::now();
            assert_eq!(bench.status(login(credentials)).await, 401);
            // A load on the machine makes this longer, never shorter.
            assert!(start.elapsed() > Duration::from_millis(5), "{credentials}");
        }
        let (dear, cheap) = (StoredHash::parse(&hash), StoredHash::parse(sha));
        assert!(needs_decoy(None, &dear) && needs_decoy(Some(&cheap), &dear));
        assert!(!needs_decoy(Some(&dear), &dear) && !needs_decoy(Some(&cheap), &cheap));
    }
}
