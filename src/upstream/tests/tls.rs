//! TLS: whom we believe, and what we speak.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::values::FileOrContent;

struct Identity {
    ca: String,
    certificate: String,
    key: String,
}

fn identity(names: &[&str], uri: Option<&str>) -> Identity {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if let Some(uri) = uri {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    Identity { ca: ca_pem, certificate, key: key.serialize_pem() }
}

/// A server behind TLS that answers with the protocol it was asked to speak.
async fn tls_server(identity: &Identity, protocols: &[&[u8]]) -> SocketAddr {
    let chain = vec![
        rustls_pki_types::CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap(),
    ];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (address, _) = server(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request: http::Request<_>| async move {
                let _: http::Request<hyper::body::Incoming> = request;
                Ok::<_, std::convert::Infallible>(http::Response::new(Body::from_static(b"ok")))
            });
            let _ =
                hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .await;
        }
    })
    .await;
    address
}

fn believing(identity: &Identity) -> ServersTransportConfig {
    ServersTransportConfig {
        root_cas: vec![FileOrContent::from(identity.ca.as_str())],
        ..ServersTransportConfig::default()
    }
}

#[tokio::test(flavor = "local")]
async fn who_is_believed() {
    const URI: &str = "spiffe://fleet/odoo";
    let identity = identity(&["odoo.internal", "127.0.0.1"], Some(URI));
    let other = self::identity(&["127.0.0.1"], None);
    let address = tls_server(&identity, &[b"http/1.1"]).await;
    let cx = context();
    let believing = believing(&identity);
    let anyone =
        ServersTransportConfig { insecure_skip_verify: true, ..ServersTransportConfig::default() };
    let named =
        |name: &str| ServersTransportConfig { server_name: name.into(), ..believing.clone() };
    let uri = |uri: &str, base: &ServersTransportConfig| ServersTransportConfig {
        peer_cert_uri: uri.into(),
        ..base.clone()
    };
    for (what, config, accepted) in [
        ("own CA", believing.clone(), true),
        ("another CA", self::believing(&other), false),
        ("the system's CAs", ServersTransportConfig::default(), false),
        ("right name", named("odoo.internal"), true),
        ("wrong name", named("other.internal"), false),
        ("anyone", anyone.clone(), true),
        ("right URI", uri(URI, &believing), true),
        ("wrong URI", uri("spiffe://fleet/other", &believing), false),
        ("anyone with the right URI", uri(URI, &anyone), true),
        ("anyone with a wrong URI", uri("spiffe://fleet/other", &anyone), false),
    ] {
        let forwarder = forwarder_with(&format!("https://{address}"), &config);
        for _ in 0..2 {
            let response = forwarder.forward(&cx, get("/")).await;
            if accepted {
                assert_eq!(response.status(), StatusCode::OK, "{what}");
                assert_eq!(text(response).await, "ok");
            } else {
                assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{what}");
                assert_eq!(outcome(&response).error, Some(ProxyError::TlsFailed));
                assert!(!outcome(&response).sent);
            }
        }
    }
}

#[tokio::test(flavor = "local")]
async fn http2_is_spoken_when_both_want_it() {
    let identity = identity(&["127.0.0.1"], None);
    let address = tls_server(&identity, &[b"h2", b"http/1.1"]).await;
    let cx = context();
    for disable_http2 in [false, true] {
        let config = ServersTransportConfig { disable_http2, ..believing(&identity) };
        let forwarder = forwarder_with(&format!("https://{address}"), &config);
        let one = || async {
            let response = forwarder.forward(&cx, get("/")).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(text(response).await, "ok");
        };
        tokio::join!(one(), one(), one());
        one().await;
        assert_eq!(pool::speaks_http2(forwarder.origin()), !disable_http2);
    }
}

#[tokio::test(flavor = "local")]
async fn clear_text_on_a_tls_port() {
    let (address, _) = server(|_, mut stream| async move {
        let mut hello = [0; 16];
        let _ = stream.read(&mut hello).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let response = forwarder(&format!("https://{address}")).forward(&context(), get("/")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(outcome(&response).error, Some(ProxyError::TlsFailed));
}

/// RP-6.2.1, RP-14.24, RP-15.8
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_handshake_has_ten_seconds() {
    let (address, _) = server(|_, mut stream| async move {
        let mut hello = Vec::new();
        let _ = stream.read_to_end(&mut hello).await;
    })
    .await;
    let start = Instant::now();
    let response = forwarder(&format!("https://{address}")).forward(&context(), get("/")).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(outcome(&response).error, Some(ProxyError::ConnectTimeout));
    assert_eq!(start.elapsed().as_secs(), 10);
}
