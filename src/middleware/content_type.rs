//! `contentType`: gives answers that do not say what they are the type that their first bytes look
//! like, as Go's server does.
//!
//! An answer that says what it is, or that is encoded, stays as it is.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use super::sniff::sniff;
use super::{Build, BuildContext};
use crate::exchange::replay::Begun;
use crate::exchange::{Body, Context, Middleware, Next, Request, Response, ResponseFuture};
use crate::values::BuildError;

/// Options of `contentType`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContentTypeConfig {
    /// Deprecated: leave the middleware out in place of `false`. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_detect: Option<bool>,
}

impl Build for ContentTypeConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.auto_detect.is_some() {
            let sentence = "`autoDetect` is deprecated, `contentType` is only meant to be used to \
                            enable the detection, please remove any usage of this option";
            cx.warnings.push(BuildError::at("autoDetect", sentence));
        }
        Ok(Arc::new(ContentType { detects: self.auto_detect != Some(false) }))
    }
}

/// How long the head of an answer waits for its first bytes: then it goes out without a type, so that nobody takes a
/// long poll for a server that does not answer.
const PATIENCE: Duration = Duration::from_millis(100);

struct ContentType {
    detects: bool,
}

impl Middleware for ContentType {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if !self.detects || *request.method() == Method::HEAD {
            return next.run(cx, request);
        }
        Box::pin(async move {
            let response = next.run(cx, request).await;
            if needs_type(&response) { with_type(response).await } else { response }
        })
    }
}

fn needs_type(response: &Response) -> bool {
    let headers = response.headers();
    let status = response.status();
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let encoded = headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.is_empty());
    !bodiless && !encoded && !headers.contains_key(CONTENT_TYPE) && !response.body().is_end_stream()
}

async fn with_type(mut response: Response) -> Response {
    // A frame that is not there yet is not lost: the body is only asked again later.
    let frame = response.body_mut().frame();
    let Ok(frame) = tokio::time::timeout(PATIENCE, frame).await else { return response };
    let kind = match &frame {
        Some(Ok(frame)) => frame.data_ref().filter(|data| !data.is_empty()).map(|data| sniff(data)),
        _ => None,
    };
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(frame) = frame {
        let rest = std::mem::take(response.body_mut());
        *response.body_mut() = Body::boxed(Begun { first: Some(frame), rest });
    }
    response
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::exchange::BodyError;
    use crate::middleware::testing::{Bench, Setting, body, build, get};

    const PAGE: &[u8] = b"<!DOCTYPE html><p>Odoo";

    fn bench(make: impl Fn() -> Response + Send + Sync + 'static) -> Bench {
        let config = ContentTypeConfig::default();
        Bench::answering(vec![build(&config).unwrap()], move |_, _| make())
    }

    fn page() -> Response {
        Response::new(Body::from_static(PAGE))
    }

    fn kind(response: &Response) -> Option<&str> {
        response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap())
    }

    /// RP 7.7
    #[tokio::test]
    async fn an_answer_gets_the_type_of_its_first_bytes() {
        let response = bench(page).send(get("/")).await;
        assert_eq!(kind(&response), Some("text/html; charset=utf-8"));
        assert_eq!(response.body().size_hint().exact(), Some(PAGE.len() as u64));
        assert_eq!(body(response).await.as_bytes(), PAGE);
    }

    #[tokio::test]
    async fn answers_that_need_no_type_are_left_alone() {
        let with = |name: &'static str, value: &'static str| {
            move || {
                let mut response = page();
                response.headers_mut().insert(name, HeaderValue::from_static(value));
                response
            }
        };
        let status = |code: u16| {
            move || {
                let mut response = page();
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                response
            }
        };
        let own = bench(with("content-type", "a/b")).send(get("/")).await;
        assert_eq!(kind(&own), Some("a/b"));
        let empty = bench(with("content-type", "")).send(get("/")).await;
        assert_eq!(kind(&empty), Some(""));
        for bench in [
            bench(with("content-encoding", "gzip")),
            bench(status(204)),
            bench(status(304)),
            bench(status(101)),
            bench(|| Response::new(Body::empty())),
        ] {
            assert_eq!(kind(&bench.send(get("/")).await), None);
        }
        let head = http::Request::head("/").body(Body::empty()).unwrap();
        assert_eq!(kind(&bench(page).send(head).await), None);
    }

    #[tokio::test]
    async fn the_rest_of_a_stream_follows_with_its_trailers() {
        let bench = bench(|| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("7"));
            let frames = [
                Frame::data(Bytes::from_static(b"%PDF-")),
                Frame::data(Bytes::from_static(b"1.7")),
                Frame::trailers(trailers),
            ];
            Response::new(Body::boxed(StreamBody::new(stream::iter(frames.map(Ok)))))
        });
        let response = bench.send(get("/")).await;
        assert_eq!(kind(&response), Some("application/pdf"));
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
        assert_eq!(collected.to_bytes(), "%PDF-1.7");
    }

    #[tokio::test]
    async fn a_body_that_fails_still_fails() {
        let bench = bench(|| {
            let frames: [Result<Frame<Bytes>, _>; 1] = [Err(BodyError::Malformed("x"))];
            Response::new(Body::boxed(StreamBody::new(stream::iter(frames))))
        });
        let response = bench.send(get("/")).await;
        assert_eq!(kind(&response), None);
        assert!(response.into_body().collect().await.is_err());
    }

    /// A body of known length whose bytes come late.
    struct Late(Bytes, std::pin::Pin<Box<tokio::time::Sleep>>);

    impl http_body::Body for Late {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            task: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            std::task::ready!(self.1.as_mut().poll(task));
            let data = std::mem::take(&mut self.0);
            std::task::Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(self.0.len() as u64)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_does_not_wait_for_ever() {
        let late = |time: Duration| {
            move || {
                Response::new(Body::boxed(Late(PAGE.into(), Box::pin(tokio::time::sleep(time)))))
            }
        };
        let response = bench(late(Duration::from_millis(50))).send(get("/")).await;
        assert!(kind(&response).is_some());
        let response = bench(late(Duration::from_secs(5))).send(get("/")).await;
        assert_eq!(kind(&response), None);
        assert_eq!(body(response).await.as_bytes(), PAGE);
        // Without a length it is the same.
        let bench = bench(|| {
            let frames = stream::once(tokio::time::sleep(Duration::from_secs(5)))
                .map(|()| Ok(Frame::data(Bytes::from_static(PAGE))));
            Response::new(Body::boxed(StreamBody::new(frames)))
        });
        let response = bench.send(get("/")).await;
        assert_eq!(kind(&response), None);
        assert_eq!(body(response).await.as_bytes(), PAGE);
    }

    #[tokio::test]
    async fn the_deprecated_option_is_warned_of() {
        for (auto_detect, typed) in [(true, true), (false, false)] {
            let config = ContentTypeConfig { auto_detect: Some(auto_detect) };
            let (middleware, warnings) = Setting::default().build(&config).unwrap();
            assert_eq!(warnings[0].option, "autoDetect");
            let bench = Bench::answering(vec![middleware], |_, _| page());
            assert_eq!(kind(&bench.send(get("/")).await).is_some(), typed);
        }
    }
}
