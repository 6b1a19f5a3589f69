//! Requests through a whole proxy in this process to a backend in this process: one keep-alive
//! connection, replies of 1 KiB, with HTTP/1.1 and HTTP/2.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use criterion::Criterion;
use doorward::app::App;
use doorward::config::loader::{Origin, from_tree};
use doorward::config::tree::{Format, Source, parse};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// The proxy with one router to the backend.
fn start(backend: SocketAddr) -> (App, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let dynamic = folder.path().join("dynamic.yml");
    let routes = format!(
        "http:\n  routers:\n    r: {{rule: Host(`a.example.com`), service: s}}\n  services:\n    \
         s: {{loadBalancer: {{servers: [{{url: 'http://{backend}'}}]}}}}\n"
    );
    std::fs::write(&dynamic, routes).unwrap();
    let text = format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\ncore: {{workers: 1}}\nproviders: {{file: \
         {{filename: '{}', watch: false}}}}\n",
        dynamic.display()
    );
    let tree = parse(&Source::new("bench.yml", text, Format::Yaml)).unwrap();
    let config = from_tree(tree, Origin::Defaults).unwrap().config;
    let app = App::start(&config, BTreeMap::new()).unwrap();
    let address = app.address("web").unwrap();
    (app, address, folder)
}

fn request(uri: String) -> http::Request<Empty<Bytes>> {
    let request = http::Request::get(uri).header("user-agent", "bench");
    request.body(Empty::new()).unwrap()
}

async fn read(response: http::Response<hyper::body::Incoming>) {
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1024);
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (app, address, _folder) = start(support::backend());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("end to end");
    let mut http1 = runtime.block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    });
    group.bench_function("http", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut request = request("/web/login".to_owned());
                let host = http::HeaderValue::from_static("a.example.com");
                request.headers_mut().insert(http::header::HOST, host);
                http1.ready().await.unwrap();
                read(http1.send_request(request).await.unwrap()).await;
            });
        });
    });
    let mut http2 = runtime.block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    });
    group.bench_function("h2", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let request = request("http://a.example.com/web/login".to_owned());
                http2.ready().await.unwrap();
                read(http2.send_request(request).await.unwrap()).await;
            });
        });
    });
    group.finish();
    criterion.final_summary();
    app.cut();
    app.finish();
}
