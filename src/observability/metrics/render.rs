//! The text format of Prometheus, version 0.0.4, written without a registry in between.

use std::fmt::Write as _;

use super::bound::{Counters, Named};
use super::series::Key;

/// Appends the head of one metric.
pub(super) fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// Appends one sample with an integer.
pub(super) fn sample(out: &mut String, name: &str, labels: &str, value: impl itoa::Integer) {
    out.push_str(name);
    if !labels.is_empty() {
        out.push('{');
        out.push_str(labels);
        out.push('}');
    }
    out.push(' ');
    out.push_str(itoa::Buffer::new().format(value));
    out.push('\n');
}

/// Labels as they stand between the braces, in the order of their names.
pub(super) fn labels(pairs: &mut [(&str, &str)]) -> String {
    pairs.sort_unstable();
    let mut out = String::with_capacity(96);
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out
}

/// How the metrics of one level are called and explained.
pub(super) struct Level {
    /// `entrypoint`, `router` or `service`: the part of the names, and the first label.
    pub(super) name: &'static str,
    /// The second label, for routers.
    pub(super) second: Option<&'static str>,
    /// Help of the counts, of those with TLS, the durations and the bytes in and out.
    pub(super) help: [&'static str; 5],
}

pub(super) const ENTRY_POINT: Level = Level {
    name: "entrypoint",
    second: None,
    help: [
        "How many HTTP requests processed on an entrypoint, partitioned by status code, protocol, and method.",
        "How many HTTP requests with TLS processed on an entrypoint, partitioned by TLS Version and TLS cipher Used.",
        "How long it took to process the request on an entrypoint, partitioned by status code, protocol, and method.",
        "The total size of requests in bytes handled by an entrypoint, partitioned by status code, protocol, and method.",
        "The total size of responses in bytes handled by an entrypoint, partitioned by status code, protocol, and method.",
    ],
};

pub(super) const ROUTER: Level = Level {
    name: "router",
    second: Some("service"),
    help: [
        "How many HTTP requests are processed on a router, partitioned by service, status code, protocol, and method.",
        "How many HTTP requests with TLS are processed on a router, partitioned by service, TLS Version, and TLS cipher Used.",
        "How long it took to process the request on a router, partitioned by service, status code, protocol, and method.",
        "The total size of requests in bytes handled by a router, partitioned by service, status code, protocol, and method.",
        "The total size of responses in bytes handled by a router, partitioned by service, status code, protocol, and method.",
    ],
};

pub(super) const SERVICE: Level = Level {
    name: "service",
    second: None,
    help: [
        "How many HTTP requests processed on a service, partitioned by status code, protocol, and method.",
        "How many HTTP requests with TLS processed on a service, partitioned by TLS version and TLS cipher.",
        "How long it took to process the request on a service, partitioned by status code, protocol, and method.",
        "The total size of requests in bytes received by a service, partitioned by status code, protocol, and method.",
        "The total size of responses in bytes returned by a service, partitioned by status code, protocol, and method.",
    ],
};

/// Appends the five metrics of a level.
pub(super) fn level(out: &mut String, level: &Level, objects: &[Named<Counters>]) {
    let mut count = String::new();
    let mut tls = String::new();
    let mut duration = String::new();
    let mut bytes_in = String::new();
    let mut bytes_out = String::new();
    let name = |what: &str| format!("traefik_{}_{what}", level.name);
    let [count_name, tls_name, duration_name, in_name, out_name] = [
        name("requests_total"),
        name("requests_tls_total"),
        name("request_duration_seconds"),
        name("requests_bytes_total"),
        name("responses_bytes_total"),
    ];
    let histogram = Histogram::new(&duration_name);
    for ((first, second), counters) in objects {
        let own = [(level.name, &**first), (level.second.unwrap_or_default(), &**second)];
        let own = own.get(..if level.second.is_some() { 2 } else { 1 }).unwrap_or(&own);
        for row in counters.table.rows(&counters.setup.buckets) {
            let labels = row_labels(own, row.key, &[]);
            if counters.setup.header_labels.is_empty() {
                sample(&mut count, &count_name, &labels, row.count());
            }
            histogram.row(&mut duration, &labels, counters, &row);
            sample(&mut bytes_in, &in_name, &labels, row.request_bytes);
            sample(&mut bytes_out, &out_name, &labels, row.response_bytes);
        }
        for ((key, values), value) in counters.header_rows() {
            let header_labels = counters.setup.header_labels.iter();
            let extra: Vec<(&str, &str)> = header_labels
                .zip(&values)
                .map(|((label, _), value)| (&**label, &**value))
                .collect();
            sample(&mut count, &count_name, &row_labels(own, key, &extra), value);
        }
        for (version, cipher, value) in counters.tls_rows() {
            let mut pairs = own.to_vec();
            pairs.extend([("tls_version", version), ("tls_cipher", cipher)]);
            sample(&mut tls, &tls_name, &labels(&mut pairs), value);
        }
    }
    let [count_help, tls_help, duration_help, in_help, out_help] = level.help;
    for (name, kind, help, text) in [
        (&duration_name, "histogram", duration_help, duration),
        (&in_name, "counter", in_help, bytes_in),
        (&tls_name, "counter", tls_help, tls),
        (&count_name, "counter", count_help, count),
        (&out_name, "counter", out_help, bytes_out),
    ] {
        if !text.is_empty() {
            family(out, name, kind, help);
            out.push_str(&text);
        }
    }
}

fn row_labels(own: &[(&str, &str)], key: Key, extra: &[(&str, &str)]) -> String {
    let code = key.code();
    let mut pairs = Vec::with_capacity(own.len() + extra.len() + 3);
    pairs.extend([("code", &*code), ("method", key.method()), ("protocol", key.protocol())]);
    pairs.extend_from_slice(own);
    pairs.extend_from_slice(extra);
    labels(&mut pairs)
}

struct Histogram {
    bucket: String,
    sum: String,
    count: String,
}

impl Histogram {
    fn new(name: &str) -> Self {
        Self {
            bucket: format!("{name}_bucket"),
            sum: format!("{name}_sum"),
            count: format!("{name}_count"),
        }
    }

    fn row(&self, out: &mut String, labels: &str, counters: &Counters, row: &super::series::Row) {
        let mut seconds = counters.setup.buckets.seconds();
        let mut cumulative = 0;
        for count in &row.buckets {
            cumulative += count;
            let _ = match seconds.next() {
                Some(bound) => write!(out, "{}{{{labels},le=\"{bound}\"}} ", self.bucket),
                None => write!(out, "{}{{{labels},le=\"+Inf\"}} ", self.bucket),
            };
            out.push_str(itoa::Buffer::new().format(cumulative));
            out.push('\n');
        }
        let (whole, rest) = (row.nanos / 1_000_000_000, row.nanos % 1_000_000_000);
        let _ = write!(out, "{}{{{labels}}} {whole}", self.sum);
        if rest > 0 {
            let digits = format!("{rest:09}");
            let _ = write!(out, ".{}", digits.trim_end_matches('0'));
        }
        out.push('\n');
        sample(out, &self.count, labels, cumulative);
    }
}
