//! `forwardAuth`: another server decides on every request.
//!
//! Only an answer of that server that says 2xx lets a request pass: no answer, a late one and one
//! that is too large do not. What the answer says of the user replaces what the client says.

mod answer;
mod ask;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use regex::Regex;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{Build, BuildContext, auth, redirect};
use crate::exchange::body::FRAMING;
use crate::exchange::error::empty;
use crate::exchange::replay;
use crate::exchange::{
    Body, BodyError, Context, Middleware, Next, Outcome, Request, Response, ResponseFuture,
};
use crate::upstream::{
    ClientCertificateConfig, Forwarder, ForwarderOptions, ServersTransport, ServersTransportConfig,
    Target,
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
    /// Longest body of an answer, in bytes; a longer one is 401. -1: any. Default: 16 MiB.
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
/// How long the whole exchange with the server may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest body of an answer where nothing is configured, but in the exact profile.
const ANSWER_LIMIT: u64 = 16 << 20;
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
        self.warn(cx);
        let hardened = cx.profile == Profile::Hardened;
        let exact = cx.profile == Profile::Exact;
        Ok(Arc::new(ForwardAuth {
            forwarder: Forwarder::new(transport, address.target, ForwarderOptions::default()),
            address: address.text,
            path: address.path,
            authorization: address.authorization,
            trust: self.trust_forward_header,
            passed: names("authRequestHeaders", &self.auth_request_headers)?,
            taken_over,
            pattern,
            cookies: self.add_auth_cookies_to_response.clone(),
            user_field: auth::header_name("headerField", &self.header_field)?,
            forward_body: self.forward_body,
            body_limit: limit(self.max_body_size, hardened.then_some(HARDENED_BODY_LIMIT)),
            answer_limit: limit(self.max_response_body_size, (!exact).then_some(ANSWER_LIMIT)),
            keeps_location: self.preserve_location_header,
            keeps_method: self.preserve_request_method,
            signin: self.signin()?,
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

    fn signin(&self) -> Result<Option<HeaderValue>, BuildError> {
        if self.auth_signin_url.is_empty() {
            return Ok(None);
        }
        let location = redirect::location(&self.auth_signin_url);
        let location = location.and_then(|text| HeaderValue::from_str(&text).ok());
        location
            .map(Some)
            .ok_or_else(|| BuildError::at("authSigninURL", "`authSigninURL` is no URL"))
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
        if self.forward_body && self.max_body_size.is_none() && cx.profile != Profile::Hardened {
            warn(
                "maxBodySize",
                "`maxBodySize` is not set with `forwardBody`: bodies of any size are kept in memory",
            );
        }
    }

    /// Connections to the server: those of every middleware that believes and shows the same.
    fn transport(&self, cx: &BuildContext<'_>) -> Result<Arc<ServersTransport>, BuildError> {
        let tls = self.tls.clone().unwrap_or_default();
        if tls.cert.is_empty() != tls.key.is_empty() {
            let missing = if tls.cert.is_empty() { "tls.cert" } else { "tls.key" };
            return Err(BuildError::at(missing, "both TLS cert and key must be defined"));
        }
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
        let given = |entry: &FileOrContent| (!entry.is_empty()).then(|| entry.clone());
        let certificate = ClientCertificateConfig { cert_file: tls.cert, key_file: tls.key };
        let config = ServersTransportConfig {
            insecure_skip_verify: tls.insecure_skip_verify,
            root_cas: given(&tls.ca).into_iter().collect(),
            certificates: given(&certificate.cert_file).map(|_| certificate).into_iter().collect(),
            max_idle_conns_per_host: MAX_IDLE,
            ..ServersTransportConfig::default()
        };
        let mut left_out = Vec::new();
        // Never the exact profile's way, which forgets TLS options that it cannot read.
        let built =
            ServersTransport::build("forwardAuth", &config, cx.files, Profile::Safe, &mut left_out);
        let built = match left_out.into_iter().next() {
            Some(error) => Err(error),
            None => built,
        };
        let built = built.map_err(|error| {
            let option = if error.option.starts_with("rootCAs") { "tls.ca" } else { "tls.cert" };
            BuildError::at(option, error.message)
        })?;
        let built = built.through(cx.proxies);
        let key = format!("forwardAuth|{}", STANDARD.encode(hash.finalize()));
        Ok(cx.state.carry_over(&key, || built))
    }
}

/// `address`, read.
struct Address {
    target: Target,
    /// Without user, password and fragment.
    text: Box<str>,
    path: PathAndQuery,
    /// Of the URL's user and password.
    authorization: Option<HeaderValue>,
}

impl Address {
    fn parse(address: &str) -> Result<Self, BuildError> {
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
    fn split(address: &str) -> (Option<&str>, String) {
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
    answer_limit: Option<u64>,
    keeps_location: bool,
    keeps_method: bool,
    signin: Option<HeaderValue>,
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
        let question = self.question(cx, &request, body);
        let (answer, body) = match self.consult(question).await {
            Ok(answer) => answer,
            Err(status) => return empty(status),
        };
        let user = self.user_field.as_ref().and_then(|name| answer.headers.get(name));
        let user: Option<Arc<str>> =
            user.map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        let mut response = if answer.status.is_success() {
            self.take_over(&answer.headers, request.headers_mut());
            let mut response = next.run(cx, request).await;
            self.add_cookies(&answer.headers, response.headers_mut());
            response
        } else {
            self.relay(answer, body)
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
        match read(body, self.body_limit).await {
            Ok(body) => Ok((Request::from_parts(parts, Body::from(body.clone())), body)),
            Err(Unread::TooLarge) => Err(empty(StatusCode::UNAUTHORIZED)),
            Err(Unread::Failed(error)) => Err(replay::refusal(&error).into_response()),
        }
    }

    /// What the server says, or the status that stands for its silence.
    async fn consult(&self, question: Request) -> Result<(Parts, Bytes), StatusCode> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(address = &*self.address, %error, "the authentication server failed");
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let exchange = async {
            let answer = self.forwarder.send(question).await.map_err(|error| failed(&error))?;
            if answer.status().is_informational() {
                return Err(failed(&"it switched protocols unasked"));
            }
            let (parts, body) = answer.into_parts();
            match read(body, self.answer_limit).await {
                Ok(body) => Ok((parts, body)),
                Err(Unread::TooLarge) => {
                    failed(&"its answer is too large");
                    Err(StatusCode::UNAUTHORIZED)
                }
                Err(Unread::Failed(error)) => Err(failed(&error)),
            }
        };
        match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed(&"it did not answer in time")),
        }
    }
}

/// Why a body is not there.
enum Unread {
    TooLarge,
    Failed(BodyError),
}

/// Reads a body of at most `limit` bytes.
async fn read(mut body: Body, limit: Option<u64>) -> Result<Bytes, Unread> {
    let fits = |length: u64| limit.is_none_or(|limit| length <= limit);
    if !fits(body.size_hint().lower()) {
        return Err(Unread::TooLarge);
    }
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::Failed)?.into_data() else { continue };
        if whole.is_empty() && pieces.is_empty() {
            whole = data;
        } else {
            if pieces.is_empty() {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
            }
            pieces.extend_from_slice(&data);
        }
        if !fits((whole.len() + pieces.len()) as u64) {
            return Err(Unread::TooLarge);
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}

#[cfg(test)]
mod tests;
