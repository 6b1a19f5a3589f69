//! Tests of `digestAuth` by a client of their own.

use proptest::prelude::*;

use super::*;
use crate::exchange::Body;
use crate::middleware::retry::RetryConfig;
use crate::middleware::testing::{Bench, FakeFiles, Setting, body, build, get, with};

/// `test`, realm `traefik`, password `test`, as Traefik's documentation has it.
const TEST: &str = "test:traefik:a2688e031edb4be6a3797f3882655c05";
const TEST2: &str = "test2:traefik:518845800f9e2bfb1f1f740ec24f074e";

fn config(users: &[&str]) -> DigestAuthConfig {
    DigestAuthConfig {
        users: users.iter().map(|&user| Secret::from(user.to_owned())).collect(),
        ..DigestAuthConfig::default()
    }
}

fn bench(users: &[&str]) -> Bench {
    Bench::new(vec![build(&config(users)).unwrap()])
}

/// The value of one parameter of a challenge.
fn parameter(response: &Response, name: &str) -> String {
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    let (_, rest) = challenge.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

/// A client that answers challenges.
#[derive(Clone)]
struct Client {
    name: &'static str,
    hash: Hexadecimal,
    nonce: String,
    opaque: String,
    method: &'static str,
    /// What the proof is for, if not for the target.
    uri: Option<&'static str>,
    extra: &'static str,
}

impl Client {
    fn new(name: &'static str, password: &str, challenge: &Response) -> Self {
        let realm = parameter(challenge, "realm");
        Self {
            name,
            hash: md5(&[name.as_bytes(), realm.as_bytes(), password.as_bytes()]),
            nonce: parameter(challenge, "nonce"),
            opaque: parameter(challenge, "opaque"),
            method: "GET",
            uri: None,
            extra: ", algorithm=MD5, qop=auth",
        }
    }

    fn header(&self, target: &str, nc: &str) -> String {
        let uri = self.uri.unwrap_or(target);
        let asked = md5(&[self.method.as_bytes(), uri.as_bytes()]);
        let parts = [&self.hash[..], self.nonce.as_bytes(), nc.as_bytes(), b"c", b"auth", &asked];
        let proof = md5(&parts);
        let proof = str::from_utf8(&proof).unwrap();
        let Self { name, nonce, opaque, extra, .. } = self;
        format!(
            "Digest username=\"{name}\", realm=\"traefik\", nonce=\"{nonce}\", uri=\"{uri}\", \
             nc={nc}, cnonce=\"c\", response=\"{proof}\", opaque=\"{opaque}\"{extra}"
        )
    }

    fn ask(&self, target: &str, nc: &str) -> Request {
        with(get(target), "authorization", &self.header(target, nc))
    }
}

async fn challenged(bench: &Bench) -> Response {
    bench.send(get("/")).await
}

/// RP 7.3
#[tokio::test]
async fn the_refusal_is_traefiks() {
    let bench = bench(&[TEST]);
    let response = challenged(&bench).await;
    assert_eq!(response.status(), 401);
    let (nonce, opaque) = (parameter(&response, "nonce"), parameter(&response, "opaque"));
    let challenge = format!(
        "Digest realm=\"traefik\", nonce=\"{nonce}\", opaque=\"{opaque}\", algorithm=\"MD5\", \
         qop=\"auth\""
    );
    assert_eq!(response.headers()["www-authenticate"], challenge);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers().len(), 2);
    assert_eq!(body(response).await, "401 Unauthorized\n");
    assert_ne!(parameter(&challenged(&bench).await, "nonce"), nonce);
    assert_eq!(bench.calls(), 0);
}

#[tokio::test]
async fn only_right_credentials_pass() {
    let bench = bench(&[TEST, TEST2]);
    for (name, password, want) in [
        ("test", "test", 200),
        ("test2", "test2", 200),
        ("test", "test2", 401),
        ("Test", "test", 401),
        ("nobody", "test", 401),
        ("", "", 401),
    ] {
        let client = Client::new(name, password, &challenged(&bench).await);
        let response = bench.send(client.ask("/a?b=c", "00000001")).await;
        assert_eq!(response.status(), want, "{name} {password}");
        if want == 200 {
            let outcome = response.extensions().get::<Outcome>().unwrap();
            assert_eq!(outcome.user.as_deref(), Some(name));
            assert!(!response.headers().contains_key("authentication-info"));
        }
    }
}

/// A name without a hash is none with an empty hash: everybody can compute that one's proof.
#[tokio::test]
async fn an_unknown_name_has_no_empty_secret() {
    let bench = bench(&[TEST, "empty:traefik:"]);
    for name in ["nobody", "empty"] {
        let client = Client::new(name, "", &challenged(&bench).await);
        let asked = md5(&[b"GET", b"/"]);
        let nonce = client.nonce.as_bytes();
        let proof = md5(&[b"", nonce, b"00000001", b"c", b"auth", &asked]);
        let header = client.header("/", "00000001");
        let (start, rest) = header.split_once("response=\"").unwrap();
        let (_, rest) = rest.split_once('"').unwrap();
        let header = format!("{start}response=\"{}\"{rest}", str::from_utf8(&proof).unwrap());
        let request = with(get("/"), "authorization", &header);
        assert_eq!(bench.status(request).await, 401, "{name}");
    }
    assert_eq!(bench.calls(), 0);
}

#[tokio::test]
async fn a_proof_is_good_once() {
    let bench = bench(&[TEST]);
    let client = Client::new("test", "test", &challenged(&bench).await);
    for (nc, status, stale) in [
        ("00000000", 401, false),
        ("00000001", 200, false),
        ("00000001", 401, false),
        ("0000000a", 200, false),
        ("00000002", 401, true),
        ("0000000b", 200, false),
        ("", 401, false),
        ("+c", 401, false),
        ("0x0c", 401, false),
        ("10000000000000000", 401, false),
    ] {
        let mut response = bench.send(client.ask("/", nc)).await;
        assert_eq!(response.status(), status, "{nc}");
        assert_eq!(Outcome::of(&mut response).challenge, stale, "{nc}");
        let challenge = response.headers().get("www-authenticate");
        let says = challenge.is_some_and(|it| it.to_str().unwrap().contains(", stale=\"true\", "));
        assert_eq!(says, stale, "{nc}");
    }
    let mut again = client.clone();
    again.nonce = parameter(&challenged(&bench).await, "nonce");
    assert_eq!(bench.status(again.ask("/", "00000001")).await, 200);
}

/// RP-7.3.28, RFC 7616, 3.3: the password was right, so nobody has to be asked for it again.
#[tokio::test]
async fn a_nonce_of_another_time_is_stale() {
    let before = bench(&[TEST]);
    for (profile, password, want) in [
        (Profile::Safe, "test", true),
        (Profile::Safe, "wrong", false),
        (Profile::Exact, "test", false),
    ] {
        let setting = Setting { profile, ..Setting::default() };
        let after = Bench::new(vec![setting.build(&config(&[TEST])).unwrap().0]);
        let client = Client::new("test", password, &challenged(&before).await);
        let mut made_up = client.clone();
        made_up.nonce = "x".into();
        for client in [client, made_up] {
            let mut response = after.send(client.ask("/", "00000001")).await;
            assert_eq!(response.status(), 401);
            assert_eq!(Outcome::of(&mut response).challenge, password == "test");
            let challenge = response.headers()["www-authenticate"].to_str().unwrap();
            assert_eq!(challenge.contains(", stale=\"true\", "), want, "{profile:?} {password}");
            assert_eq!(after.calls(), 0);
        }
        let response = after.send(client_of(&before).await).await;
        let again = Client::new("test", "test", &response);
        assert_eq!(after.status(again.ask("/", "00000001")).await, 200);
    }
}

async fn client_of(bench: &Bench) -> Request {
    Client::new("test", "test", &challenged(bench).await).ask("/", "00000001")
}

#[tokio::test]
async fn a_proof_is_good_for_its_request() {
    let bench = bench(&[TEST]);
    for (target, uri, method, want) in [
        ("/a?b", None, "GET", 200),
        ("/a?b", None, "POST", 401),
        ("/a?b", Some("/a"), "GET", 401),
        ("/a?b", Some("/a?c"), "GET", 401),
        ("/a/b", Some("/a"), "GET", 401),
        ("/a/b", Some("/"), "GET", 401),
        ("/a", Some("/a/b"), "GET", 401),
        ("/a?b", Some("http://a.test/a?b"), "GET", 200),
        ("/", Some("http://a.test"), "GET", 200),
        // As the entry point has changed them.
        ("/~a/b", Some("/%7ea//./b"), "GET", 200),
        ("/a?b&c", Some("/a?b;c"), "GET", 200),
        ("/a", Some("a"), "GET", 401),
        ("/a", Some("/%zz"), "GET", 401),
    ] {
        let mut client = Client::new("test", "test", &challenged(&bench).await);
        (client.uri, client.method) = (uri, method);
        let status = bench.status(client.ask(target, "00000001")).await;
        assert_eq!(status, want, "{target} {uri:?} {method}");
    }
}

#[tokio::test]
async fn the_exact_profile_takes_a_proof_for_what_is_below_too() {
    let setting = Setting { profile: Profile::Exact, ..Setting::default() };
    let bench = Bench::new(vec![setting.build(&config(&[TEST])).unwrap().0]);
    for (target, uri, want) in
        [("/a/b?x", "/a", 200), ("/a?x", "/a?y", 200), ("/a", "/a/b", 401), ("/a", "/b", 401)]
    {
        let mut client = Client::new("test", "test", &challenged(&bench).await);
        client.uri = Some(uri);
        assert_eq!(bench.status(client.ask(target, "1")).await, want, "{target} {uri}");
    }
}

#[tokio::test]
async fn only_md5_with_auth_is_spoken() {
    let bench = bench(&[TEST]);
    for (extra, want) in [
        (", qop=auth", 200),
        (", qop=\"auth\", algorithm=\"MD5\"", 200),
        (", qop=auth, algorithm=md5", 200),
        (", qop=auth, algorithm=MD5-sess", 401),
        (", qop=auth, algorithm=SHA-256", 401),
        (", qop=auth-int", 401),
        ("", 401),
        (", qop=auth, username=\"test\"", 401),
    ] {
        let mut client = Client::new("test", "test", &challenged(&bench).await);
        client.extra = extra;
        assert_eq!(bench.status(client.ask("/", "00000001")).await, want, "{extra}");
    }
    let mut client = Client::new("test", "test", &challenged(&bench).await);
    client.opaque = "x".into();
    assert_eq!(bench.status(client.ask("/", "00000001")).await, 401);
    for header in ["Basic dGVzdDp0ZXN0", "Digest", "Digest ", "é"] {
        assert_eq!(bench.status(with(get("/"), "authorization", header)).await, 401, "{header}");
    }
}

#[tokio::test]
async fn the_backend_gets_one_identity() {
    let config = DigestAuthConfig {
        header_field: "X-Auth-User".into(),
        remove_header: true,
        ..config(&[TEST])
    };
    let bench = Bench::new(vec![build(&config).unwrap()]);
    let client = Client::new("test", "test", &challenged(&bench).await);
    let mut request = client.ask("/", "00000001");
    for name in ["x-auth-user", "x_auth_user", "x.auth.user"] {
        request = with(request, name, "admin");
    }
    bench.send(request).await;
    let seen = bench.seen();
    assert!(seen.headers.get_all("x-auth-user").iter().eq(["test"]));
    assert_eq!(seen.headers.keys().filter(|name| name.as_str().contains("user")).count(), 1);
    assert!(!seen.headers.contains_key(AUTHORIZATION));
}

#[tokio::test]
async fn users_override_those_of_the_file_and_other_realms_do_not_count() {
    let hash = |password: &str| {
        let hash = md5(&[b"a", b"odoo", password.as_bytes()]);
        String::from_utf8(hash.to_vec()).unwrap()
    };
    let file = format!("# users\n\n a:odoo:{} \r\n{TEST}\n", hash("old"));
    let setting =
        Setting { files: FakeFiles([("/users".to_owned(), file)].into()), ..Setting::default() };
    let own = format!("a:odoo:{}", hash("new"));
    let config =
        DigestAuthConfig { users_file: "/users".into(), realm: "odoo".into(), ..config(&[&own]) };
    let bench = Bench::new(vec![setting.build(&config).unwrap().0]);
    for (name, password, want) in [("a", "new", 200), ("a", "old", 401), ("test", "test", 401)] {
        let client = Client::new(name, password, &challenged(&bench).await);
        assert_eq!(bench.status(client.ask("/", "00000001")).await, want, "{name} {password}");
    }
    let missing = DigestAuthConfig { users_file: "/none".into(), ..config };
    assert_eq!(setting.build(&missing).err().unwrap().option, "usersFile");
}

#[tokio::test]
async fn a_reload_keeps_who_is_logged_in() {
    let setting = Setting::default();
    let old = Bench::new(vec![setting.build(&config(&[TEST])).unwrap().0]);
    let client = Client::new("test", "test", &challenged(&old).await);
    assert_eq!(old.status(client.ask("/", "00000001")).await, 200);
    let new = Bench::new(vec![setting.build(&config(&[TEST, TEST2])).unwrap().0]);
    assert_eq!(new.status(client.ask("/", "00000001")).await, 401);
    assert_eq!(new.status(client.ask("/", "00000002")).await, 200);
    let without = Bench::new(vec![setting.build(&config(&[TEST2])).unwrap().0]);
    assert_eq!(without.status(client.ask("/", "00000003")).await, 401);
}

#[tokio::test]
async fn nobody_configured_is_nobody_let_in() {
    let (middleware, warnings) = Setting::default().build(&config(&[])).unwrap();
    assert_eq!(warnings.len(), 1);
    let bench = Bench::new(vec![middleware]);
    let client = Client::new("test", "test", &challenged(&bench).await);
    assert_eq!(bench.status(client.ask("/", "00000001")).await, 401);
}

#[test]
fn options_are_checked_and_hashes_never_shown() {
    for (users, option) in [(&[TEST, "a:b"][..], "users[1]"), (&["a:b:c:d"], "users[0]")] {
        let error = build(&config(users)).err().unwrap();
        assert_eq!(error.option, option);
        assert!(error.message.contains("error parsing DigestUser"), "{error}");
        assert!(!error.message.contains("a:b:c"));
    }
    let (_, warnings) = Setting::default().build(&config(&[TEST, "a:traefik:ABC"])).unwrap();
    assert_eq!(warnings[0].option, "users[1]");
    let bad = DigestAuthConfig { header_field: "a b".into(), ..config(&[TEST]) };
    assert_eq!(build(&bad).err().unwrap().option, "headerField");
    let bad = DigestAuthConfig { realm: "a\nb".into(), ..config(&[TEST]) };
    assert_eq!(build(&bad).err().unwrap().option, "realm");
    assert_eq!(serde_json::to_string(&config(&[TEST])).unwrap(), r#"{"users":["xxxx"]}"#);
}

/// The example of RFC 2617, 3.5.
#[test]
fn the_proof_of_the_rfc() {
    let hash = md5(&[b"Mufasa", b"testrealm@host.com", b"Circle Of Life"]);
    let asked = md5(&[b"GET", b"/dir/index.html"]);
    let nonce = b"dcd98b7102dd2f0e8b11d0f600bfb0c093";
    let proof = md5(&[&hash, nonce, b"00000001", b"0a4f113b", b"auth", &asked]);
    assert_eq!(&proof, b"6629fae49393a05397450978507c4ef1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a client writes without knowing the hash: nobody comes in.
    #[test]
    fn no_header_lets_a_stranger_in(
        name in "(test|nobody|)", nc in "[0-9a-f]{0,9}", proof in "[0-9a-f]{0,32}",
        extra in "(, qop=auth|, qop=\"auth\"|, algorithm=MD5|,|=|\"| ){0,3}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bench = bench(&[TEST]);
        runtime.block_on(async {
            let challenge = challenged(&bench).await;
            let (nonce, opaque) = (parameter(&challenge, "nonce"), parameter(&challenge, "opaque"));
            let header = format!(
                "Digest username={name}, nonce=\"{nonce}\", uri=\"/\", nc={nc}, cnonce=\"c\", \
                 response=\"{proof}\", opaque=\"{opaque}\"{extra}"
            );
            let request = http::Request::get("/")
                .header("authorization", header)
                .body(Body::empty())
                .unwrap();
            bench.send(request).await;
        });
        prop_assert_eq!(bench.calls(), 0);
    }
}

/// RP-7.3, RP-7.6: a proof is good for all attempts of the request that brought it, and for no
/// other request.
#[tokio::test]
async fn a_proof_is_good_for_each_attempt_of_its_request() {
    let again = RetryConfig { attempts: 3, status: vec!["503".into()], ..RetryConfig::default() };
    for (profile, want) in [(Profile::Safe, 200), (Profile::Hardened, 200), (Profile::Exact, 401)] {
        let setting = Setting { profile, ..Setting::default() };
        let middlewares =
            vec![setting.build(&again).unwrap().0, setting.build(&config(&[TEST])).unwrap().0];
        let bench = Bench::answering(middlewares, |call, _| match call {
            1 | 2 => bare(StatusCode::SERVICE_UNAVAILABLE),
            _ => Response::new(Body::empty()),
        });
        let client = Client::new("test", "test", &challenged(&bench).await);
        assert_eq!(bench.status(client.ask("/", "00000001")).await, want, "{profile:?}");
        assert_eq!(bench.calls(), if want == 200 { 3 } else { 1 });
        assert_eq!(bench.status(client.ask("/", "00000001")).await, 401, "a replay is one");
        assert_eq!(
            bench.status(client.ask("/", "00000002")).await,
            if want == 200 { 200 } else { 401 }
        );
    }
}
