//! `credentials`: with an even first byte a users file, and behind an empty line the `Authorization` of a request that
//! only who is in the file may pass with; with an odd one a certificate or a key. Nothing of either is told.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::exchange::{Body, Handler as _};
use doorward::middleware::MiddlewareConfig;
use doorward::tls::LoadedCertificate;
use doorward::values::{BuildError, Profile};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use serde_json::json;

use super::pieces::wait;
use super::shelf::{self, Origin};

const CERTIFICATE: &[u8] = include_bytes!("../../certs/development-only-leaf.pem");
const KEY: &[u8] = include_bytes!("../../certs/development-only-leaf.key.pem");
static PROVIDER: LazyLock<CryptoProvider> = LazyLock::new(aws_lc_rs::default_provider);

/// Reads users and tries to pass, or reads a PEM.
pub fn run(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    if kind & 1 == 1 {
        return pem(text);
    }
    let at = text.windows(2).position(|two| two == b"\n\n").unwrap_or(text.len());
    let users = text.get(..at).unwrap_or_default();
    let header = text.get(at + 2..).unwrap_or_default();
    // bcrypt and MD5-crypt take their time, which is what they are for.
    if users.contains(&b'$') {
        return;
    }
    pass(users, header, "basicAuth");
    pass(users, header, "digestAuth");
}

fn pass(users: &[u8], header: &[u8], kind: &str) {
    let config = serde_json::from_value::<MiddlewareConfig>(json!({kind: {"usersFile": "users"}}));
    let Ok(config) = config else { return };
    let origin = Arc::new(Origin::default());
    let chain = match shelf::build(&config, users, Profile::Safe, origin.clone()) {
        Ok(chain) => chain,
        Err(error) => return assert_not_told(users, &error),
    };
    let mut request = http::Request::new(Body::empty());
    let Ok(value) = HeaderValue::from_bytes(header) else { return };
    request.headers_mut().insert(AUTHORIZATION, value);
    let cx = shelf::context("a.test");
    let response = wait(chain.handle(&cx, request));
    if origin.seen().is_empty() {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers().contains_key(WWW_AUTHENTICATE), "nobody is asked");
        return;
    }
    assert_eq!(kind, "basicAuth", "a nonce that nobody has given");
    let behind = header.get(6..).unwrap_or_default();
    assert!(header.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic ")));
    let pair = STANDARD.decode(behind.trim_ascii());
    let Ok(pair) = pair else { panic!("{} is no base64", behind.escape_ascii()) };
    let name = pair.split(|&byte| byte == b':').next().unwrap_or_default();
    let known = users.split(|&byte| byte == b'\n').any(|line| {
        let line = line.trim_ascii();
        line.starts_with(name) && line.get(name.len()) == Some(&b':')
    });
    assert!(known, "{} is in no line", name.escape_ascii());
}

fn pem(text: &[u8]) {
    for (certificate, key) in [(text, KEY), (CERTIFICATE, text), (text, text)] {
        match LoadedCertificate::from_pem(certificate, key, &PROVIDER) {
            Ok(loaded) => {
                assert_eq!(loaded.info.cert_fingerprint.len(), 64);
                assert!(loaded.identifiers.is_sorted());
            }
            Err(error) => assert_not_told(text, &error),
        }
    }
}

/// No line of the file is in the message, where it can be told from our own words.
fn assert_not_told(file: &[u8], error: &BuildError) {
    assert!(error.message.len() > 4, "an error says nothing");
    let Ok(text) = str::from_utf8(file) else { return };
    let is_word = |line: &&str| line.len() >= 20 && !line.contains([' ', '`', '-']);
    for line in text.lines().filter(is_word) {
        assert!(!error.message.contains(line), "{:?} tells {line:?}", error.message);
        if let Some((_, hash)) = line.rsplit_once(':').filter(|(_, hash)| hash.len() >= 20) {
            assert!(!error.message.contains(hash), "{:?} tells {hash:?}", error.message);
        }
    }
}
