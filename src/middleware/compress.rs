//! `compress`: compresses responses for clients that accept it.
//!
//! A response is compressed once at most, and only as a whole: what is a range, is encoded already or
//! has no body goes through as it is. Bytes never wait here: see `body`.

mod accept;
mod body;
mod encoder;
mod media_type;

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use self::accept::{Choice, Chosen, Encoding};
use self::body::Compressed;
use self::media_type::{is_well_formed, media_type};
use super::at_hand::Begun;
use super::{Build, BuildContext};
use crate::exchange::forwarded::tokens;
use crate::exchange::{Body, Context, Middleware, Next, Request, Response, ResponseFuture};
use crate::values::{BuildError, Profile, is_default};

/// Options of `compress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CompressConfig {
    /// Media types of requests and responses that are left alone. Default: none; `application/grpc`
    /// always is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_content_types: Vec<String>,
    /// The only media types of responses that are compressed. Default: all. Not together with
    /// `excludedContentTypes`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included_content_types: Vec<String>,
    /// Shorter responses are left alone, unless the backend sends them piece by piece. Default: 1024;
    /// so are 0 and less.
    #[serde(skip_serializing_if = "is_default")]
    pub min_response_body_bytes: i64,
    /// `gzip`, `br`, `zstd`: what may be used; the first is taken of those that the client likes
    /// best. Default: all three in this order.
    pub encodings: Vec<String>,
    /// For clients that send no `Accept-Encoding`, or `*`. Default: none, these get no encoding, or
    /// the first of `encodings`.
    #[serde(skip_serializing_if = "is_default")]
    pub default_encoding: String,
}

impl Default for CompressConfig {
    fn default() -> Self {
        Self {
            excluded_content_types: Vec::new(),
            included_content_types: Vec::new(),
            min_response_body_bytes: 0,
            encodings: ["gzip", "br", "zstd"].map(str::to_owned).to_vec(),
            default_encoding: String::new(),
        }
    }
}

const LEAST: u64 = 1024;

impl Build for CompressConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if !self.excluded_content_types.is_empty() && !self.included_content_types.is_empty() {
            return Err(BuildError::at(
                "includedContentTypes",
                "excludedContentTypes and includedContentTypes options are mutually exclusive",
            ));
        }
        let encodings = self.encodings.iter().enumerate().map(|(at, name)| {
            Encoding::named(name).ok_or_else(|| {
                let message = format!("unsupported encoding: {name} (write gzip, br or zstd)");
                BuildError::at(format!("encodings[{at}]"), message)
            })
        });
        let encodings: Box<[Encoding]> = encodings.collect::<Result<_, _>>()?;
        if encodings.is_empty() {
            return Err(BuildError::at("encodings", "at least one encoding must be specified"));
        }
        let default = match &*self.default_encoding {
            "" => None,
            name => {
                let found = Encoding::named(name).filter(|default| encodings.contains(default));
                Some(found.ok_or_else(|| {
                    let message = format!("unsupported default encoding: {name}");
                    BuildError::at("defaultEncoding", message)
                })?)
            }
        };
        Ok(Arc::new(Compress {
            choice: Choice { encodings, default },
            excluded: media_types("excludedContentTypes", &self.excluded_content_types)?,
            included: media_types("includedContentTypes", &self.included_content_types)?,
            least: match u64::try_from(self.min_response_body_bytes) {
                Ok(0) | Err(_) => LEAST,
                Ok(least) => least,
            },
            exact: cx.profile == Profile::Exact,
        }))
    }
}

fn media_types(option: &str, list: &[String]) -> Result<Box<[Box<str>]>, BuildError> {
    let parse = |(at, text): (usize, &String)| match media_type(text) {
        // Parameters count for nothing in Traefik either.
        Some(name) if is_well_formed(text) => Ok(name.to_ascii_lowercase().into()),
        _ => {
            let message = format!("{text:?} is no media type");
            Err(BuildError::at(format!("{option}[{at}]"), message))
        }
    };
    list.iter().enumerate().map(parse).collect()
}

struct Compress {
    choice: Choice,
    /// In lower case.
    excluded: Box<[Box<str>]>,
    included: Box<[Box<str>]>,
    least: u64,
    exact: bool,
}

impl Middleware for Compress {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let head = *request.method() == Method::HEAD;
        if head && self.exact || self.excludes(request.headers()) {
            return next.run(cx, request);
        }
        let Some(chosen) = self.choice.choose(request.headers()) else {
            return next.run(cx, request);
        };
        // Traefik's gzip looks at the header once more, and knows neither `*` nor the default.
        let vary_only = self.exact && chosen.encoding == Encoding::Gzip && !chosen.by_name;
        let known: SmallVec<[HeaderValue; 1]> = if self.exact {
            SmallVec::new()
        } else {
            request.headers().get_all(IF_NONE_MATCH).iter().cloned().collect()
        };
        Box::pin(async move {
            let mut response = next.run(cx, request).await;
            if response.status().is_informational() {
                return response;
            }
            vary(response.headers_mut());
            if !self.exact && response.status() == StatusCode::NOT_MODIFIED {
                weaken_unless_known(response.headers_mut(), &known);
            }
            if vary_only || !self.is_fit(&response) {
                return response;
            }
            if head {
                self.announce(&mut response, chosen.encoding);
                return response;
            }
            self.compress(response, chosen).await
        })
    }
}

impl Compress {
    /// Whether the type of a request keeps its response from being compressed.
    fn excludes(&self, request: &HeaderMap) -> bool {
        let Some(value) = request.get(CONTENT_TYPE) else { return false };
        let kind = value.to_str().ok().and_then(media_type);
        kind.is_some_and(|kind| is_grpc(kind) || is_in(&self.excluded, kind))
    }

    /// Whether a response may be compressed, whatever its length.
    fn is_fit(&self, response: &Response) -> bool {
        let headers = response.headers();
        !matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
        ) && headers.get(CONTENT_ENCODING).is_none_or(HeaderValue::is_empty)
            && !headers.contains_key(CONTENT_RANGE)
            && self.is_fit_type(headers.get(CONTENT_TYPE))
            && (self.exact || !forbids_transforming(headers))
    }

    /// A response that does not say its type may be compressed; one that says nothing readable not.
    fn is_fit_type(&self, value: Option<&HeaderValue>) -> bool {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return true };
        let Ok(text) = value.to_str() else { return false };
        match media_type(text).filter(|_| is_well_formed(text)) {
            None => false,
            Some(kind) => {
                !is_grpc(kind)
                    && !is_in(&self.excluded, kind)
                    && (self.included.is_empty() || is_in(&self.included, kind))
            }
        }
    }

    async fn compress(&self, mut response: Response, chosen: Chosen) -> Response {
        let length = response.body().size_hint().exact();
        if length.is_some_and(|length| length < self.least) {
            return response;
        }
        let body = std::mem::take(response.body_mut());
        let source = match length {
            Some(_) => Begun::nothing_of(body),
            None => Begun::look(body, self.least).await,
        };
        if source.is_over() {
            // It is here, and it is short.
            *response.body_mut() = Body::boxed(source);
            return response;
        }
        let compressed = Compressed::new(source, chosen.encoding, length.is_none());
        *response.body_mut() = Body::boxed(compressed);
        self.describe(response.headers_mut(), chosen.encoding);
        response
    }

    /// Makes the headers of an answer to HEAD those that GET would get, as far as that is known.
    fn announce(&self, response: &mut Response, encoding: Encoding) {
        let headers = response.headers_mut();
        let length = headers.get(CONTENT_LENGTH);
        match length.map(|length| length.to_str().ok().and_then(|text| text.parse::<u64>().ok())) {
            Some(Some(length)) if length >= self.least => self.describe(headers, encoding),
            Some(_) => {}
            // It may become a compressed one: a weak tag is right for both.
            None => weaken(headers),
        }
    }

    /// Makes the headers of a response those of its compressed form.
    fn describe(&self, headers: &mut HeaderMap, encoding: Encoding) {
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        if !self.exact || encoding == Encoding::Gzip {
            // A range would be one of the other form.
            headers.remove(ACCEPT_RANGES);
        }
        if !self.exact {
            weaken(headers);
        }
    }
}

/// Says that the response depends on what the client accepts.
fn vary(headers: &mut HeaderMap) {
    let said = headers
        .get_all(VARY)
        .iter()
        .flat_map(tokens)
        .any(|name| name == "*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str()));
    if !said {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

fn forbids_transforming(headers: &HeaderMap) -> bool {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .flat_map(tokens)
        .any(|directive| directive.eq_ignore_ascii_case("no-transform"))
}

fn weaken(headers: &mut HeaderMap) {
    if let Some(weak) = headers.get(ETAG).and_then(weakened) {
        headers.insert(ETAG, weak);
    }
}

/// A 304 has the tag of the form that the client has (RFC 9110, 15.4.5), which is the compressed one
/// unless the client named the strong tag.
fn weaken_unless_known(headers: &mut HeaderMap, known: &[HeaderValue]) {
    let Some(tag) = headers.get(ETAG) else { return };
    let tag = tag.as_bytes();
    let is_known = known.iter().map(HeaderValue::as_bytes).any(|list| {
        let mut found = memchr::memmem::find_iter(list, tag);
        found.any(|at| !list.get(..at).is_some_and(|before| before.ends_with(b"W/")))
    });
    if !is_known {
        weaken(headers);
    }
}

/// A strong tag promises the same bytes, which the two forms have not (RFC 9110, 8.8.1).
fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    if !tag.as_bytes().starts_with(b"\"") {
        return None;
    }
    let mut weak = BytesMut::with_capacity(tag.len() + 2);
    weak.extend_from_slice(b"W/");
    weak.extend_from_slice(tag.as_bytes());
    HeaderValue::from_maybe_shared(weak.freeze()).ok()
}

/// gRPC frames and compresses its messages itself. `application/grpc-web` is another type.
fn is_grpc(kind: &str) -> bool {
    const GRPC: &str = "application/grpc";
    let (start, rest) = kind.split_at_checked(GRPC.len()).unwrap_or((kind, ""));
    start.eq_ignore_ascii_case(GRPC) && (rest.is_empty() || rest.starts_with('+'))
}

fn is_in(list: &[Box<str>], kind: &str) -> bool {
    list.iter().any(|listed| listed.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests;
