//! Whole requests through `compress`, and its options.

use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::encoder::decode;
use super::*;
use crate::middleware::testing::{Bench, Setting, body, build, get, with};

const LONG: &str = "All work and no play makes Jack a dull boy. ";

fn long() -> String {
    LONG.repeat(100)
}

/// A response with these headers and a text of known length.
fn answer(headers: &[(&'static str, &'static str)], text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    for (name, value) in headers {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response
}

fn bench(
    config: &CompressConfig,
    profile: Profile,
    answer: impl Fn() -> Response + Send + Sync + 'static,
) -> Bench {
    let setting = Setting { profile, ..Setting::default() };
    Bench::answering(vec![setting.build(config).unwrap().0], move |_, _| answer())
}

fn accepting(line: &str) -> Request {
    with(get("/"), "accept-encoding", line)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn bytes(response: Response) -> bytes::Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// RP 7.7: encodings, `Content-Encoding`, `Vary`, `Content-Length`.
#[tokio::test]
async fn each_encoding_can_be_read_back() {
    for (line, encoding) in
        [("gzip", Encoding::Gzip), ("br", Encoding::Brotli), ("zstd", Encoding::Zstd)]
    {
        let bench = bench(&CompressConfig::default(), Profile::Safe, || {
            answer(&[("content-length", "4500"), ("content-type", "text/html")], long())
        });
        let response = bench.send(accepting(line)).await;
        assert_eq!(header(&response, "content-encoding"), Some(line));
        assert_eq!(header(&response, "vary"), Some("Accept-Encoding"));
        assert_eq!(header(&response, "content-length"), None);
        let bytes = bytes(response).await;
        assert!(bytes.len() < 500);
        assert_eq!(decode::whole(encoding, &bytes).unwrap(), long().as_bytes());
    }
}

type Make = fn() -> Response;

#[tokio::test]
async fn what_is_not_to_be_compressed_goes_through() {
    fn status(code: u16) -> Response {
        let mut response = answer(&[], long());
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        response
    }
    let table: [(&str, Make); 13] = [
        ("short", || answer(&[], "short".into())),
        ("empty", || answer(&[], String::new())),
        ("encoded", || answer(&[("content-encoding", "br")], long())),
        ("range", || answer(&[("content-range", "bytes 0-1/2")], long())),
        ("206", || status(206)),
        ("204", || status(204)),
        ("304", || status(304)),
        ("grpc", || answer(&[("content-type", "application/grpc")], long())),
        ("grpc+proto", || answer(&[("content-type", "Application/gRPC+proto")], long())),
        ("excluded", || answer(&[("content-type", "TEXT/csv; charset=utf-8")], long())),
        ("unreadable", || answer(&[("content-type", "text/html; charset")], long())),
        ("no type", || answer(&[("content-type", "/")], long())),
        ("no-transform", || answer(&[("cache-control", "private, No-Transform")], long())),
    ];
    let config = CompressConfig {
        excluded_content_types: vec!["text/CSV; header=absent".into()],
        ..CompressConfig::default()
    };
    for (name, make) in table {
        let response = bench(&config, Profile::Safe, make).send(accepting("gzip")).await;
        assert_eq!(header(&response, "vary"), Some("Accept-Encoding"), "{name}");
        let (parts, had) = response.into_parts();
        let wanted = make();
        let encoding = wanted.headers().get("content-encoding");
        assert_eq!(parts.headers.get("content-encoding"), encoding, "{name}");
        let text = body(wanted).await;
        assert_eq!(had.collect().await.unwrap().to_bytes(), text.as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn requests_that_are_left_alone() {
    let config = CompressConfig {
        excluded_content_types: vec!["text/event-stream".into()],
        ..CompressConfig::default()
    };
    let bench = bench(&config, Profile::Safe, || answer(&[], long()));
    for request in [
        get("/"),
        accepting(""),
        accepting("identity"),
        accepting("deflate"),
        with(accepting("gzip"), "content-type", "application/grpc"),
        with(accepting("gzip"), "content-type", "text/event-stream; charset"),
    ] {
        let response = bench.send(request).await;
        assert_eq!(header(&response, "content-encoding"), None);
        assert_eq!(header(&response, "vary"), None);
        assert_eq!(body(response).await, long());
    }
}

const TAG: (&str, &str) = ("etag", "\"a\"");

/// RP-7.7.8, RFC 9110, 9.3.2: an answer to HEAD says what GET would say.
#[tokio::test]
async fn head_is_told_what_get_is_told() {
    let head = |line| {
        let mut request = accepting(line);
        *request.method_mut() = Method::HEAD;
        request
    };
    for (profile, headers, encoding, length, etag, vary) in [
        (Profile::Safe, &[TAG, ("content-length", "4500")][..], true, None, "W/\"a\"", true),
        (Profile::Safe, &[TAG, ("content-length", "100")], false, Some("100"), "\"a\"", true),
        (Profile::Safe, &[TAG], false, None, "W/\"a\"", true),
        (
            Profile::Safe,
            &[TAG, ("content-length", "4500"), ("cache-control", "no-transform")],
            false,
            Some("4500"),
            "\"a\"",
            true,
        ),
        (Profile::Exact, &[TAG, ("content-length", "4500")], false, Some("4500"), "\"a\"", false),
    ] {
        let bench =
            bench(&CompressConfig::default(), profile, move || answer(headers, String::new()));
        let response = bench.send(head("gzip")).await;
        assert_eq!(header(&response, "content-encoding").is_some(), encoding, "{headers:?}");
        assert_eq!(header(&response, "content-length"), length, "{headers:?}");
        assert_eq!(header(&response, "etag"), Some(etag), "{headers:?}");
        assert_eq!(header(&response, "vary").is_some(), vary, "{headers:?}");
        let response = bench.send(head("identity")).await;
        assert_eq!((header(&response, "vary"), header(&response, "etag")), (None, Some("\"a\"")));
    }
}

/// RP-7.7.8, RFC 9110, 15.4.5: a 304 has the tag and the `Vary` that a 200 would have had.
#[tokio::test]
async fn a_304_is_about_what_the_client_has() {
    let not_modified = || {
        let mut response = answer(&[("etag", "\"a\"")], String::new());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    };
    for (profile, known, etag) in [
        (Profile::Safe, Some("W/\"a\""), "W/\"a\""),
        (Profile::Safe, Some("\"b\", W/\"a\""), "W/\"a\""),
        (Profile::Safe, Some("\"a\""), "\"a\""),
        (Profile::Safe, Some("W/\"a\", \"a\""), "\"a\""),
        (Profile::Safe, Some("*"), "W/\"a\""),
        (Profile::Safe, None, "W/\"a\""),
        (Profile::Exact, None, "\"a\""),
    ] {
        let bench = bench(&CompressConfig::default(), profile, not_modified);
        let request = accepting("gzip");
        let request = match known {
            Some(known) => with(request, "if-none-match", known),
            None => request,
        };
        let response = bench.send(request).await;
        assert_eq!(header(&response, "etag"), Some(etag), "{known:?}");
        assert_eq!(header(&response, "vary"), Some("Accept-Encoding"));
    }
}

#[tokio::test]
async fn an_upgrade_is_not_touched() {
    let bench = bench(&CompressConfig::default(), Profile::Safe, || {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
    });
    let response = bench.send(accepting("gzip")).await;
    assert!(response.headers().is_empty());
}

#[tokio::test]
async fn lists_of_types() {
    let included = CompressConfig {
        included_content_types: vec!["text/html".into(), "application/json".into()],
        ..CompressConfig::default()
    };
    for (kind, compressed) in [
        ("text/html; charset=utf-8", true),
        ("Application/JSON", true),
        ("text/plain", false),
        ("application/grpc", false),
        ("", true),
    ] {
        let bench =
            bench(&included, Profile::Safe, move || answer(&[("content-type", kind)], long()));
        let response = bench.send(accepting("br")).await;
        assert_eq!(header(&response, "content-encoding").is_some(), compressed, "{kind}");
    }
}

/// RP 7.7: smaller than the least is left alone.
#[tokio::test]
async fn the_least_length() {
    for (configured, length, compressed) in
        [(0, 1023, false), (0, 1024, true), (-5, 1023, false), (10, 9, false), (10, 10, true)]
    {
        let config =
            CompressConfig { min_response_body_bytes: configured, ..CompressConfig::default() };
        let bench = bench(&config, Profile::Safe, move || answer(&[], "x".repeat(length)));
        let response = bench.send(accepting("gzip")).await;
        assert_eq!(header(&response, "content-encoding").is_some(), compressed, "{length}");
    }
}

fn pieces(texts: Vec<String>) -> impl futures_util::Stream<Item = Piece> {
    stream::iter(texts.into_iter().map(|text| Ok(Frame::data(text.into()))))
}

type Piece = Result<Frame<bytes::Bytes>, crate::exchange::BodyError>;

#[tokio::test]
async fn a_short_body_of_unknown_length_is_left_alone_if_it_is_here() {
    let bench = bench(&CompressConfig::default(), Profile::Safe, || {
        Response::new(Body::boxed(StreamBody::new(pieces(vec!["one".into(), "two".into()]))))
    });
    let response = bench.send(accepting("gzip")).await;
    assert_eq!(header(&response, "content-encoding"), None);
    assert_eq!(response.body().size_hint().exact(), Some(6));
    assert_eq!(body(response).await, "onetwo");
}

/// RP 7.7: what is sent piece by piece is compressed, however short.
#[tokio::test]
async fn a_stream_is_compressed_from_its_first_byte() {
    let bench = bench(&CompressConfig::default(), Profile::Safe, || {
        let events = pieces(vec!["data: one\n\n".into()]).chain(stream::pending());
        let mut response = Response::new(Body::boxed(StreamBody::new(events)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    });
    let response = bench.send(accepting("zstd")).await;
    assert_eq!(header(&response, "content-encoding"), Some("zstd"));
    let frame = response.into_body().frame().await.unwrap().unwrap();
    let text = decode::part(Encoding::Zstd, &frame.into_data().unwrap());
    assert_eq!(text, b"data: one\n\n");
}

/// RP 7.7: gzip drops `Accept-Ranges`, the tag stays; RFC 9110 wants more.
#[tokio::test]
async fn validators_and_ranges() {
    let headers = [("etag", "\"v1\""), ("accept-ranges", "bytes")];
    for (profile, line, tag, ranges) in [
        (Profile::Safe, "gzip", "W/\"v1\"", None),
        (Profile::Safe, "br", "W/\"v1\"", None),
        (Profile::Exact, "gzip", "\"v1\"", None),
        (Profile::Exact, "br", "\"v1\"", Some("bytes")),
    ] {
        let bench = bench(&CompressConfig::default(), profile, move || answer(&headers, long()));
        let response = bench.send(accepting(line)).await;
        assert_eq!(header(&response, "etag"), Some(tag));
        assert_eq!(header(&response, "accept-ranges"), ranges);
    }
    let bench = bench(&CompressConfig::default(), Profile::Safe, || {
        answer(&[("etag", "W/\"v1\"")], long())
    });
    let response = bench.send(accepting("gzip")).await;
    assert_eq!(header(&response, "etag"), Some("W/\"v1\""));
}

/// RP 17, 11.
#[tokio::test]
async fn gzip_that_nobody_named() {
    let config = CompressConfig { default_encoding: "gzip".into(), ..CompressConfig::default() };
    for (profile, encoding) in [(Profile::Exact, None), (Profile::Safe, Some("gzip"))] {
        for request in [get("/"), accepting("*")] {
            let bench = bench(&config, profile, || answer(&[], long()));
            let response = bench.send(request).await;
            assert_eq!(header(&response, "content-encoding"), encoding);
            assert_eq!(header(&response, "vary"), Some("Accept-Encoding"));
        }
    }
}

#[tokio::test]
async fn no_transform_is_heeded_unless_traefik_is_wanted() {
    let bench = bench(&CompressConfig::default(), Profile::Exact, || {
        answer(&[("cache-control", "no-transform")], long())
    });
    let response = bench.send(accepting("gzip")).await;
    assert_eq!(header(&response, "content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn vary_is_said_once() {
    for (said, want) in [
        ("Origin", &["Origin", "Accept-Encoding"][..]),
        ("Cookie, accept-encoding", &["Cookie, accept-encoding"]),
        ("*", &["*"]),
    ] {
        let bench = bench(&CompressConfig::default(), Profile::Safe, move || {
            answer(&[("vary", said)], long())
        });
        let response = bench.send(accepting("gzip")).await;
        assert!(response.headers().get_all("vary").iter().eq(want), "{said}");
    }
}

#[test]
fn options_are_checked() {
    let list = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
    let both = CompressConfig {
        excluded_content_types: list(&["text/html"]),
        included_content_types: list(&["text/plain"]),
        ..CompressConfig::default()
    };
    let excluded = CompressConfig {
        excluded_content_types: list(&["text/html", "text/"]),
        ..CompressConfig::default()
    };
    let included = CompressConfig {
        included_content_types: list(&["text/html; x"]),
        ..CompressConfig::default()
    };
    let unknown =
        CompressConfig { encodings: list(&["gzip", "deflate"]), ..CompressConfig::default() };
    let none = CompressConfig { encodings: Vec::new(), ..CompressConfig::default() };
    let default = CompressConfig {
        encodings: list(&["gzip"]),
        default_encoding: "br".into(),
        ..CompressConfig::default()
    };
    for (config, option) in [
        (both, "includedContentTypes"),
        (excluded, "excludedContentTypes[1]"),
        (included, "includedContentTypes[0]"),
        (unknown, "encodings[1]"),
        (none, "encodings"),
        (default, "defaultEncoding"),
    ] {
        assert_eq!(build(&config).err().unwrap().option, option);
    }
    let config: CompressConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config.encodings, ["gzip", "br", "zstd"]);
    assert_eq!(serde_json::to_string(&config).unwrap(), r#"{"encodings":["gzip","br","zstd"]}"#);
}
