//! `forwardAuth`: another server decides on every request.
//!
//! Only an answer of that server that says 2xx lets a request pass: no answer, a late one and one
//! that is too large do not. What the answer says of the user replaces what the client says.

mod address;
mod answer;
mod ask;
mod cache;
mod consult;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::EXPECT;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use regex::Regex;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use self::address::Address;
use self::answer::Signin;
use self::cache::{AuthCache, AuthCacheConfig};
use self::consult::{Told, Unread, read};
use super::{Build, BuildContext, auth, redirect};
use crate::exchange::body::FRAMING;
use crate::exchange::error::empty;
use crate::exchange::replay;
use crate::exchange::{
    Body, Context, Middleware, Next, Outcome, Request, Response, ResponseFuture,
};
use crate::upstream::{
    ClientCertificateConfig, Forwarder, ForwarderOptions, ServersTransport, ServersTransportConfig,
};
use crate::values::{BuildError, FileOrContent, Profile, go_regex, is_default};

/// Options of `forwardAuth`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ForwardAuthConfig {
    /// URL of the server that decides. Required.
    #[serde(serialize_with = "without_credentials")]
    pub address: String,
    /// How to speak TLS with it. Unset: the system's authorities, no certificate of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTlsConfig>,
    /// Deprecated. true: pass `X-Forwarded-*` on and add to them; false: write all of them anew.
    /// Default: write only For, Proto, Method, Host and Uri anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_forward_header: Option<bool>,
    /// Headers of the answer that replace those of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub auth_response_headers: Vec<String>,
    /// The same by a pattern, unanchored, for names in their canonical case.
    #[serde(skip_serializing_if = "is_default")]
    pub auth_response_headers_regex: String,
    /// Headers of the request that the server gets. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub auth_request_headers: Vec<String>,
    /// Longest body of an answer, in bytes; a longer one is 401. -1: any. Default: 16 MiB, in the
    /// hardened profile 64 KiB but for an answer that lets the request pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_response_body_size: Option<i64>,
    /// Cookies of the answer that the client gets, in place of the backend's of that name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_auth_cookies_to_response: Vec<String>,
    /// Header of the answer that names the user for the access log.
    #[serde(skip_serializing_if = "is_default")]
    pub header_field: String,
    /// Send the request's body too, which is read as a whole before. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub forward_body: bool,
    /// Longest body that is sent so, in bytes; a longer one is 401. Default: -1, any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_size: Option<i64>,
    /// Do not complete a relative `Location` by the server's address. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub preserve_location_header: bool,
    /// Ask with the request's method in place of GET. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub preserve_request_method: bool,
    /// Where clients are sent that the server answers 401. Default: they get its answer.
    #[serde(rename = "authSigninURL", skip_serializing_if = "is_default")]
    pub auth_signin_url: String,
    /// Doorward's own: remember for a short while what the server allows. Default: ask every time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<AuthCacheConfig>,
}

/// `tls`: TLS as a client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientTlsConfig {
    /// Authorities, in place of the system's.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub ca: FileOrContent,
    /// Certificate that we show.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub cert: FileOrContent,
    /// Its key.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub key: FileOrContent,
    /// Accept any certificate. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure_skip_verify: bool,
    /// Deprecated, without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_optional: Option<bool>,
}

/// The URL of the server without its user and password, for whoever looks at it.
fn without_credentials<S: Serializer>(address: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&Address::split(address).1)
}

/// Idle connections kept to the server: as many as to a backend of the default transport.
const MAX_IDLE: i64 = 200;
/// Longest body of an answer where nothing is configured, but in the exact profile.
const ANSWER_LIMIT: u64 = 16 << 20;
/// The same of a refusal in the hardened profile: it is kept in memory until it is whole.
const HARDENED_ANSWER_LIMIT: u64 = 64 << 10;
/// Longest body of a request where nothing is configured, in the hardened profile.
const HARDENED_BODY_LIMIT: u64 = 2 << 20;

impl Build for ForwardAuthConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let address = Address::parse(&self.address)?;
        let transport = self.transport(cx)?;
        let taken_over = self.taken_over(cx)?;
        let pattern = match self.auth_response_headers_regex.as_str() {
            "" => None,
            text => Some(
                go_regex::compile(text)
                    .map_err(|error| BuildError::at("authResponseHeadersRegex", error.message))?,
            ),
        };
        let passed = names("authRequestHeaders", &self.auth_request_headers)?;
        let cache = self.cache(&passed, cx)?;
        self.warn(cx);
        let hardened = cx.profile == Profile::Hardened;
        let exact = cx.profile == Profile::Exact;
        let refusal_limit = if hardened { HARDENED_ANSWER_LIMIT } else { ANSWER_LIMIT };
        let limit_of = |usual: u64| limit(self.max_response_body_size, (!exact).then_some(usual));
        Ok(Arc::new(ForwardAuth {
            forwarder: Forwarder::new(transport, address.target, ForwarderOptions::default()),
            address: address.text,
            path: address.path,
            authorization: address.authorization,
            trust: self.trust_forward_header,
            passed,
            taken_over,
            pattern,
            cookies: self.add_auth_cookies_to_response.clone(),
            user_field: auth::header_name("headerField", &self.header_field)?,
            forward_body: self.forward_body,
            body_limit: limit(self.max_body_size, hardened.then_some(HARDENED_BODY_LIMIT)),
            refusal_limit: limit_of(refusal_limit),
            yes_limit: limit_of(ANSWER_LIMIT),
            keeps_location: self.preserve_location_header,
            keeps_method: self.preserve_request_method,
            signin: self.signin()?,
            cache,
        }))
    }
}

/// The headers that an option lists.
fn names(option: &str, names: &[String]) -> Result<Vec<HeaderName>, BuildError> {
    let read = |(index, name): (usize, &String)| {
        let at = format!("{option}[{index}]");
        auth::header_name(&at, name)?.ok_or_else(|| {
            let sentence = format!("`{at}` is empty: a name of a header is missing");
            BuildError::at(at, sentence)
        })
    };
    names.iter().enumerate().map(read).collect()
}

/// What is configured, in which a negative number is no limit, or else `default`.
fn limit(configured: Option<i64>, default: Option<u64>) -> Option<u64> {
    configured.map_or(default, |bytes| u64::try_from(bytes).ok())
}

impl ForwardAuthConfig {
    fn taken_over(&self, cx: &mut BuildContext<'_>) -> Result<Vec<HeaderName>, BuildError> {
        let mut names = names("authResponseHeaders", &self.auth_response_headers)?;
        for (index, name) in names.iter().enumerate().filter(|(_, name)| FRAMING.contains(name)) {
            let sentence = format!(
                "`authResponseHeaders`: `{name}` belongs to a message or a connection, it is not \
                 taken over"
            );
            cx.warnings.push(BuildError::at(format!("authResponseHeaders[{index}]"), sentence));
        }
        names.retain(|name| !FRAMING.contains(name));
        Ok(names)
    }

    fn signin(&self) -> Result<Option<Signin>, BuildError> {
        let url = &self.auth_signin_url;
        if url.is_empty() {
            return Ok(None);
        }
        let location = redirect::location(url);
        let location = location.and_then(|text| HeaderValue::from_str(&text).ok());
        let location =
            location.ok_or_else(|| BuildError::at("authSigninURL", "`authSigninURL` is no URL"))?;
        Ok(Some(Signin { location, page: Signin::page(url) }))
    }

    fn warn(&self, cx: &mut BuildContext<'_>) {
        let mut warn = |option: &str, sentence: &str| {
            cx.warnings.push(BuildError::at(option, sentence));
        };
        if self.tls.as_ref().is_some_and(|tls| tls.ca_optional.is_some()) {
            warn(
                "tls.caOptional",
                "`caOptional` is deprecated and has no effect, please remove it",
            );
        }
        if self.trust_forward_header.is_none() {
            warn(
                "trustForwardHeader",
                "`trustForwardHeader` is not set: some `X-Forwarded-*` headers are written anew and \
                 others are passed on; false writes all of them anew, true trusts all",
            );
        }
        for (option, bytes) in [
            ("maxBodySize", self.max_body_size),
            ("maxResponseBodySize", self.max_response_body_size),
        ] {
            if let Some(bytes @ ..-1) = bytes {
                warn(option, &format!("`{option}` is {bytes}, which means -1: there is no limit"));
            }
        }
        if self.forward_body && self.max_body_size.is_none() && cx.profile != Profile::Hardened {
            warn(
                "maxBodySize",
                "`maxBodySize` is not set with `forwardBody`: bodies of any size are kept in memory",
            );
        }
    }

    /// What is remembered of the server's answers, as long as the options stay the same.
    fn cache(
        &self,
        passed: &[HeaderName],
        cx: &mut BuildContext<'_>,
    ) -> Result<Option<Arc<AuthCache>>, BuildError> {
        let Some(config) = &self.cache else { return Ok(None) };
        let cache = config.build(passed, cx.warnings)?;
        if self.forward_body {
            let sentence = "`cache` has no effect with `forwardBody`: what the server says of one \
                            body is not asked for another";
            cx.warnings.push(BuildError::at("cache", sentence));
            return Ok(None);
        }
        let mut hash = Sha256::new();
        hash.update(format!("{self:?}"));
        hash.update(self.identity(cx)?);
        Ok(Some(cx.carry_over(&STANDARD.encode(hash.finalize()), || cache)))
    }

    /// Whom we believe, and who we are, to the server.
    fn identity(&self, cx: &BuildContext<'_>) -> Result<[u8; 32], BuildError> {
        let tls = self.tls.clone().unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update([u8::from(tls.insecure_skip_verify)]);
        for (option, entry) in [("tls.ca", &tls.ca), ("tls.cert", &tls.cert), ("tls.key", &tls.key)]
        {
            let content = if entry.is_empty() {
                Arc::default()
            } else {
                entry.read(cx.files).map_err(|error| {
                    BuildError::at(option, format!("cannot read {entry:?}: {error}"))
                })?
            };
            hash.update(content.len().to_be_bytes());
            hash.update(&content);
        }
        Ok(hash.finalize().into())
    }

    /// Connections to the server: those of every middleware that believes and shows the same.
    fn transport(&self, cx: &BuildContext<'_>) -> Result<Arc<ServersTransport>, BuildError> {
        let tls = self.tls.clone().unwrap_or_default();
        if tls.cert.is_empty() != tls.key.is_empty() {
            let missing = if tls.cert.is_empty() { "tls.cert" } else { "tls.key" };
            return Err(BuildError::at(missing, "both TLS cert and key must be defined"));
        }
        let key = format!("forwardAuth|{}", STANDARD.encode(self.identity(cx)?));
        // Certificates are read once, and not for every router.
        cx.state.try_carry_over(&key, || {
            let given = |entry: &FileOrContent| (!entry.is_empty()).then(|| entry.clone());
            let certificate = ClientCertificateConfig { cert_file: tls.cert, key_file: tls.key };
            let shown = given(&certificate.cert_file).map(|_| certificate);
            let config = ServersTransportConfig {
                insecure_skip_verify: tls.insecure_skip_verify,
                root_cas: given(&tls.ca).into_iter().collect(),
                certificates: shown.into_iter().collect(),
                max_idle_conns_per_host: MAX_IDLE,
                ..ServersTransportConfig::default()
            };
            let mut left_out = Vec::new();
            // Never the exact profile's way, which forgets TLS options that it cannot read.
            let built = ServersTransport::build(
                "forwardAuth",
                &config,
                cx.files,
                Profile::Safe,
                &mut left_out,
            );
            let built = left_out.into_iter().next().map_or(built, Err);
            let built = built.map(|built| built.through(cx.proxies));
            built.map_err(|error| {
                let in_ca = error.option.starts_with("rootCAs");
                BuildError::at(if in_ca { "tls.ca" } else { "tls.cert" }, error.message)
            })
        })
    }
}

struct ForwardAuth {
    forwarder: Forwarder,
    address: Box<str>,
    path: PathAndQuery,
    authorization: Option<HeaderValue>,
    trust: Option<bool>,
    /// Headers that the server gets; none: all.
    passed: Vec<HeaderName>,
    /// Headers of the answer that go into the request.
    taken_over: Vec<HeaderName>,
    pattern: Option<Regex>,
    cookies: Vec<String>,
    user_field: Option<HeaderName>,
    forward_body: bool,
    body_limit: Option<u64>,
    /// Bytes that the answer may have that the client gets.
    refusal_limit: Option<u64>,
    /// And one of 2xx, of which nothing is kept.
    yes_limit: Option<u64>,
    keeps_location: bool,
    keeps_method: bool,
    signin: Option<Signin>,
    cache: Option<Arc<AuthCache>>,
}

impl Middleware for ForwardAuth {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        Box::pin(self.run(cx, request, next))
    }
}

impl ForwardAuth {
    async fn run<'a>(&'a self, cx: &'a Context, request: Request, next: Next<'a>) -> Response {
        let (mut request, body) = match self.split_body(request).await {
            Ok(split) => split,
            Err(refusal) => return refusal,
        };
        let told = match self.learn(cx, self.question(cx, &request, body)).await {
            Ok(told) => told,
            Err(status) => return empty(status),
        };
        let headers = match &told {
            Told::Before(headers) => headers,
            Told::Now(answer, _) => &answer.headers,
        };
        let user = self.user_field.as_ref().and_then(|name| headers.get(name));
        let user: Option<Arc<str>> =
            user.map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        let mut response = match told {
            Told::Now(answer, body) if !answer.status.is_success() => {
                self.relay(answer, body, request.method())
            }
            Told::Before(_) | Told::Now(..) => {
                self.take_over(headers, request.headers_mut());
                let mut response = next.run(cx, request).await;
                self.add_cookies(headers, response.headers_mut());
                response
            }
        };
        if let Some(user) = user {
            Outcome::of(&mut response).user.get_or_insert(user);
        }
        response
    }

    /// The request, and its body once more if the server gets it too.
    async fn split_body(&self, request: Request) -> Result<(Request, Bytes), Response> {
        if !self.forward_body || request.body().is_end_stream() {
            return Ok((request, Bytes::new()));
        }
        let (mut parts, body) = request.into_parts();
        // The client is told to go on by being read from.
        parts.headers.remove(EXPECT);
        match read(body, self.body_limit, true).await {
            Ok(body) => Ok((Request::from_parts(parts, Body::from(body.clone())), body)),
            Err(Unread::TooLarge) => Err(empty(StatusCode::UNAUTHORIZED)),
            Err(Unread::Failed(error)) => Err(replay::refusal(&error).into_response()),
        }
    }
}

#[cfg(test)]
mod tests;
