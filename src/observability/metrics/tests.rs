//! Scrapes as a Prometheus server reads them.

#![expect(clippy::float_cmp, reason = "what is counted here has an exact value")]

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};

use super::*;
use crate::exchange::{ClientTls, Ending, Observation, Observer, Protocol};

fn metrics(json: &str) -> Metrics {
    Metrics::new(&serde_json::from_str(json).unwrap()).unwrap()
}

fn observe(observer: &dyn Observer, status: u16, millis: u64, headers: &HeaderMap) {
    let tls =
        ClientTls { version: "1.3", cipher: "TLS_AES_128_GCM_SHA256", ..ClientTls::default() };
    observer.observe(&Observation {
        status: StatusCode::from_u16(status).unwrap(),
        grpc_status: None,
        method: &Method::GET,
        headers,
        protocol: Protocol::Http,
        tls: Some(&tls),
        duration: Duration::from_millis(millis),
        request_bytes: 3,
        response_bytes: 1_000,
        ending: Ending::Complete,
        error: None,
    });
}

/// Reads a scrape: each sample once, each under its own HELP and TYPE.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut current = String::new();
    let mut seen = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split(' ').next().unwrap().to_owned();
            assert!(!seen.contains(&current), "{current} twice");
            seen.push(current.clone());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            assert!(["counter", "gauge", "histogram"].contains(&kind));
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&current), "{name} under {current}");
            let old = samples.insert(name.to_owned(), value.parse().unwrap());
            assert!(old.is_none(), "{name} twice");
        }
    }
    samples
}

#[test]
fn every_level_has_traefiks_names_and_labels() {
    let metrics = metrics(r#"{"prometheus":{"addRoutersLabels":true}}"#);
    let entry_point = metrics.entry_point("web").unwrap();
    let router = metrics.router("r@file", "s@file").unwrap();
    let service = metrics.service("s@file").unwrap();
    let headers = HeaderMap::new();
    for (status, millis) in [(200, 50), (200, 100), (200, 250), (200, 9_000), (404, 1)] {
        for observer in [&entry_point, &router, &service] {
            observe(&**observer, status, millis, &headers);
        }
    }
    service.retried();
    let samples = parse(&metrics.render());
    let own = [
        ("entrypoint", "entrypoint=\"web\",method=\"GET\",protocol=\"http\"", "entrypoint=\"web\""),
        (
            "router",
            "method=\"GET\",protocol=\"http\",router=\"r@file\",service=\"s@file\"",
            "router=\"r@file\",service=\"s@file\"",
        ),
        ("service", "method=\"GET\",protocol=\"http\",service=\"s@file\"", "service=\"s@file\""),
    ];
    for (level, labels, name) in own {
        let get = |what: &str, labels: &str| {
            let key = format!("traefik_{level}_{what}{{{labels}}}");
            *samples.get(&key).unwrap_or_else(|| panic!("no {key} in {samples:#?}"))
        };
        let ok = format!("code=\"200\",{labels}");
        assert_eq!(get("requests_total", &ok), 4.0);
        assert_eq!(get("requests_total", &format!("code=\"404\",{labels}")), 1.0);
        assert_eq!(get("requests_bytes_total", &ok), 12.0);
        assert_eq!(get("responses_bytes_total", &ok), 4_000.0);
        for (bound, count) in [("0.1", 2.0), ("0.3", 3.0), ("1.2", 3.0), ("5", 3.0), ("+Inf", 4.0)]
        {
            let labels = format!("{ok},le=\"{bound}\"");
            assert_eq!(get("request_duration_seconds_bucket", &labels), count, "{bound}");
        }
        assert_eq!(get("request_duration_seconds_sum", &ok), 9.4);
        assert_eq!(get("request_duration_seconds_count", &ok), 4.0);
        let tls = format!("{name},tls_cipher=\"TLS_AES_128_GCM_SHA256\",tls_version=\"1.3\"");
        assert_eq!(get("requests_tls_total", &tls), 5.0);
    }
    assert_eq!(samples["traefik_service_retries_total{service=\"s@file\"}"], 1.0);
}

#[test]
fn levels_that_are_off_count_nothing() {
    let off = metrics("{}");
    assert!(off.entry_point("web").is_none() && off.service("s").is_none());
    let default = metrics(r#"{"prometheus":{}}"#);
    assert!(default.router("r", "s").is_none());
    assert!(default.entry_point("web").is_some() && default.server("s", "u").is_some());
    let config = serde_json::from_str(r#"{"influxDB2":{"token":"x"}}"#).unwrap();
    assert!(Metrics::new(&config).is_err());
}

#[test]
fn what_is_gone_is_shown_once_more() {
    let metrics = metrics(r#"{"prometheus":{}}"#);
    let shown = |metrics: &Metrics| {
        let samples = parse(&metrics.render());
        samples.get("traefik_service_requests_total{code=\"200\",method=\"GET\",protocol=\"http\",service=\"s\"}").copied()
    };
    let headers = HeaderMap::new();
    let first = metrics.service("s").unwrap();
    observe(&*first, 200, 1, &headers);
    let second = metrics.service("s").unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    drop((first, second));
    let third = metrics.service("s").unwrap();
    observe(&*third, 200, 1, &headers);
    assert_eq!(shown(&metrics), Some(2.0), "counters go on with the next table");
    assert_eq!(shown(&metrics), Some(2.0));
    drop(third);
    assert_eq!(shown(&metrics), Some(2.0));
    assert_eq!(shown(&metrics), None);
}

#[test]
fn servers_are_shown_while_they_are_watched() {
    let metrics = metrics(r#"{"prometheus":{}}"#);
    let name = "traefik_service_server_up{service=\"s\",url=\"http://a\"}";
    let gauge = metrics.server("s", "http://a").unwrap();
    assert!(!parse(&metrics.render()).contains_key(name));
    gauge.set(false);
    assert_eq!(parse(&metrics.render())[name], 0.0);
    metrics.server("s", "http://a").unwrap().set(true);
    assert_eq!(parse(&metrics.render())[name], 1.0);
    drop(gauge);
    assert_eq!(parse(&metrics.render())[name], 1.0);
    assert!(!parse(&metrics.render()).contains_key(name));
}

#[test]
fn header_labels_are_on_requests_total_only() {
    let metrics = metrics(
        r#"{"prometheus":{"headerLabels":{"agent":"User-Agent","tenant":"X-Tenant","code":"X","0":"Y"}}}"#,
    );
    let service = metrics.service("s").unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", "a \"b\\".parse().unwrap());
    headers.insert("authorization", "secret".parse().unwrap());
    let captured = metrics.capture(&headers);
    assert_eq!(captured.len(), 1);
    observe(&*service, 200, 1, &captured);
    observe(&*service, 200, 1, &captured);
    observe(&*service, 200, 1, &HeaderMap::new());
    for turn in 0..2_000 {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", turn.into());
        observe(&*service, 200, 1, &headers);
    }
    let samples = parse(&metrics.render());
    let rest = "method=\"GET\",protocol=\"http\",service=\"s\"";
    let one = format!(
        "traefik_service_requests_total{{agent=\"a \\\"b\\\\\",code=\"200\",{rest},tenant=\"\"}}"
    );
    assert_eq!(samples[&one], 2.0);
    let rows =
        samples.iter().filter(|(name, _)| name.starts_with("traefik_service_requests_total"));
    let (rows, total) = rows.fold((0, 0.0), |(rows, sum), (_, value)| (rows + 1, sum + value));
    assert_eq!((rows, total), (1_000, 2_003.0));
    let count = format!("traefik_service_request_duration_seconds_count{{code=\"200\",{rest}}}");
    assert_eq!(samples[&count], 2_003.0);
}

#[test]
fn the_rest_of_the_scrape() {
    let metrics = metrics(r#"{"prometheus":{}}"#);
    let open = metrics.connections("web").opened();
    let closed = metrics.connections("web").opened();
    drop(closed);
    metrics.reload_succeeded();
    metrics.reload_succeeded();
    metrics.reload_failed();
    let certificate = CertificateMetric {
        cn: "a.example".to_owned(),
        serial: "7".to_owned(),
        sans: "a.example,b.example".to_owned(),
        not_after: 1_900_000_000,
    };
    metrics.set_certificates(vec![certificate.clone(), certificate]);
    metrics.watch_access_log(Arc::new(AtomicU64::new(4)));
    let samples = parse(&metrics.render());
    assert_eq!(samples["traefik_open_connections{entrypoint=\"web\",protocol=\"TCP\"}"], 1.0);
    assert_eq!(samples["traefik_config_reloads_total"], 2.0);
    assert_eq!(samples["traefik_config_reloads_failure_total"], 1.0);
    assert!(samples["traefik_config_last_reload_success"] > 1.7e9);
    assert!(samples["traefik_config_last_reload_failure"] > 1.7e9);
    let certificate =
        "traefik_tls_certs_not_after{cn=\"a.example\",sans=\"a.example,b.example\",serial=\"7\"}";
    assert_eq!(samples[certificate], 1.9e9);
    assert_eq!(samples["doorward_access_log_dropped_total"], 4.0);
    assert!(samples.contains_key("process_open_fds"));
    drop(open);
}
