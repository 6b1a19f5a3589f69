//! What a resource is asked, and what it answers. No sockets, no credentials: those are dealt with
//! before a call is made.

use std::net::SocketAddr;
use std::pin::Pin;

use http::header::ALLOW;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What somebody may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    #[default]
    Read,
    /// Look and change.
    Write,
}

/// How somebody has shown who he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// By a token.
    Token,
    /// By a certificate.
    Certificate,
    /// By being a user of this machine.
    User,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Another socket.
    Address(SocketAddr),
    /// A process of this user, over a socket of the file system.
    User(u32),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::User(user) => write!(f, "uid {user}"),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Name of the token or the certificate, or `uid 0`.
    pub name: String,
    /// How that is known.
    pub via: Via,
    /// What he may do.
    pub role: Role,
}

/// One question, or one change.
#[derive(Debug, Clone)]
pub struct Call {
    /// `GET` also stands for `HEAD`.
    pub method: Method,
    /// Steps of the path behind the resource's name, unescaped.
    pub path: Vec<String>,
    /// The query, unescaped.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Option<Value>,
    /// Who asks.
    pub who: Who,
}

impl Call {
    /// The first value of a name in the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as a type that refuses what it does not know, or what is wrong with it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        let Some(body) = &self.body else {
            return Err(Reply::error(StatusCode::BAD_REQUEST, "a body is required"));
        };
        T::deserialize(body)
            .map_err(|error| Reply::error(StatusCode::BAD_REQUEST, &error.to_string()))
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body; null is none.
    pub body: Value,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// What was asked for.
    pub fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body, headers: Vec::new() }
    }

    /// It was done, and there is nothing to say.
    pub fn done() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: Value::Null, headers: Vec::new() }
    }

    /// Why it is not answered.
    pub fn error(status: StatusCode, message: &str) -> Self {
        Self { status, body: json!({"message": message}), headers: Vec::new() }
    }

    /// There is nothing of this name.
    pub fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "there is nothing at this path")
    }

    /// There are other methods here.
    pub fn not_allowed(allow: &'static str) -> Self {
        let reply = Self::error(StatusCode::METHOD_NOT_ALLOWED, "this method means nothing here");
        reply.with(ALLOW, HeaderValue::from_static(allow))
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An answer to come.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// One kind of thing that can be looked at and changed, at `/v1/` and its name.
///
/// The caller's role is already checked: whoever asks by another method than `GET` may write.
pub trait Resource: Send + Sync {
    /// The first step of its paths.
    fn name(&self) -> &'static str;
    /// What it is, in a sentence.
    fn about(&self) -> &'static str;
    /// What the audit log says of a change besides who makes it and its path; never a secret.
    fn told(&self, call: &Call) -> Value;
    /// Answers. A change that has begun is ended, also if the client goes away.
    fn answer<'a>(&'a self, call: &'a Call) -> Answer<'a>;
}
