//! The access log: one line per exchange, in Traefik's three formats.
//!
//! A line is formatted on the thread that finished the exchange and handed to one writer thread.
//! Where Traefik writes synchronously (`bufferingSize: 0`) lines wait in a queue of
//! `DEFAULT_QUEUE` lines here; a full queue drops lines and counts them
//! (`doorward_access_log_dropped_total`), because a disk that hangs must not hang requests.

mod config;
mod fields;
mod format;
mod record;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use jiff::tz::TimeZone;

pub use config::{
    AccessLogConfig, AccessLogFields, AccessLogFilters, FieldHeaders, FieldQueryParameters,
};
pub use fields::FIELDS;
pub use record::AccessRecord;

use fields::{Filter, Policy};
use format::Format;

use super::StartError;
use super::rotate::PlainFile;
use super::writer::{LineWriter, Stdout};
use crate::values::BuildError;

/// Lines that may wait when `bufferingSize` does not say.
pub const DEFAULT_QUEUE: usize = 16_384;
/// Lines that may wait, whatever `bufferingSize` says.
const MAX_QUEUE: usize = 1 << 20;

thread_local! {
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

/// The access log, started.
pub struct AccessLog {
    output: Option<Output>,
    requests: AtomicU64,
}

struct Output {
    writer: LineWriter,
    format: Format,
    policy: Policy,
    filter: Filter,
    zone: TimeZone,
    add_internals: bool,
}

impl AccessLog {
    /// An access log that nothing is written to.
    pub fn off() -> Self {
        Self { output: None, requests: AtomicU64::new(0) }
    }

    /// Opens the output and starts the writer.
    pub fn start(config: &AccessLogConfig) -> Result<Self, StartError> {
        if config.otlp.is_some() {
            return Err(BuildError::unsupported("otlp").into());
        }
        let queue = usize::try_from(config.buffering_size).unwrap_or(0);
        let queue = if queue == 0 { DEFAULT_QUEUE } else { queue.min(MAX_QUEUE) };
        let writer = if config.file_path.is_empty() {
            LineWriter::start("access-log", Stdout, queue, report)
        } else {
            let path = Path::new(&config.file_path);
            let file = PlainFile::open(path)
                .map_err(|source| StartError::Open { path: path.to_owned(), source })?;
            LineWriter::start("access-log", file, queue, report)
        };
        let output = Output {
            writer: writer.map_err(StartError::Thread)?,
            format: Format::named(&config.format),
            policy: Policy::new(&config.fields),
            filter: Filter::new(&config.filters),
            zone: TimeZone::system(),
            add_internals: config.add_internals,
        };
        Ok(Self { output: Some(output), requests: AtomicU64::new(0) })
    }

    /// Whether anything is written at all.
    pub fn enabled(&self) -> bool {
        self.output.is_some()
    }

    /// Whether exchanges with `@internal` services are written (`addInternals`).
    pub fn add_internals(&self) -> bool {
        self.output.as_ref().is_some_and(|output| output.add_internals)
    }

    /// Number of the next request, from 1: `RequestCount`.
    pub fn count_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the filters let an exchange through. Any one of them is enough.
    pub fn wants(&self, status: u16, retries: u32, duration: Duration) -> bool {
        self.output.as_ref().is_some_and(|output| output.filter.wants(status, retries, duration))
    }

    /// A copy of those headers that will be written, for a record that is made later.
    /// `None` when none is: the usual case.
    pub fn capture(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        let policy = &self.output.as_ref()?.policy;
        if policy.drops_all_headers() {
            return None;
        }
        let mut kept = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| policy.keeps_header(name)) {
            kept.append(name.clone(), value.clone());
        }
        (!kept.is_empty()).then_some(kept)
    }

    /// Writes `record`. Filters are not asked: see `wants`.
    pub fn write(&self, record: &AccessRecord<'_>) {
        let Some(output) = &self.output else { return };
        LINE.with(|line| {
            let Ok(mut line) = line.try_borrow_mut() else { return };
            line.clear();
            output.format.line(&mut line, record, &output.policy, &output.zone);
            output.writer.push(&line);
        });
    }

    /// Opens the file again, behind the lines written so far (SIGUSR1). Returns at once.
    pub fn reopen(&self) {
        if let Some(output) = &self.output {
            output.writer.reopen();
        }
    }

    /// Waits until all lines written so far are in the file. Blocks the thread.
    pub fn flush(&self) {
        if let Some(output) = &self.output {
            output.writer.flush();
        }
    }

    /// How many lines were dropped, shared with the metrics.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.output.as_ref().map(|output| output.writer.dropped()).unwrap_or_default()
    }
}

fn report(error: &io::Error) {
    tracing::error!(%error, "Access log lines cannot be written");
}

#[cfg(test)]
mod tests {
    use super::record::tests::Sample;
    use super::*;

    #[test]
    fn a_renamed_file_is_reopened_without_losing_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/access.log");
        let moved = folder.path().join("deep/access.log.1");
        let config = AccessLogConfig {
            file_path: path.to_str().unwrap().to_owned(),
            format: "json".to_owned(),
            ..AccessLogConfig::default()
        };
        let log = Arc::new(AccessLog::start(&config).unwrap());
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let log = Arc::clone(&log);
                std::thread::spawn(move || {
                    let sample = Sample::default();
                    for _ in 0..500 {
                        let mut record = sample.record();
                        record.request_count = log.count_request();
                        log.write(&record);
                    }
                })
            })
            .collect();
        log.flush();
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.flush();
        assert!(path.exists());
        for writer in writers {
            writer.join().unwrap();
        }
        let mut last = Sample::default().record().request_count;
        last += log.count_request();
        let sample = Sample::default();
        log.write(&AccessRecord { request_count: last, ..sample.record() });
        drop(Arc::into_inner(log).unwrap());
        let lines = [&moved, &path].map(|path| std::fs::read_to_string(path).unwrap());
        assert!(lines[1].contains(&format!("\"RequestCount\":{last},")), "the new file is in use");
        let mut counts: Vec<u64> = lines
            .iter()
            .flat_map(|text| text.lines())
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["RequestCount"].as_u64().unwrap()
            })
            .collect();
        counts.sort_unstable();
        let mut expected: Vec<u64> = (1..=2000).collect();
        expected.push(last);
        assert_eq!(counts, expected);
    }

    #[test]
    fn only_kept_headers_are_captured() {
        let mut config = AccessLogConfig::default();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "x".parse().unwrap());
        headers.insert("authorization", "secret".parse().unwrap());
        let log = |config: &AccessLogConfig| AccessLog {
            output: AccessLog::start(config).unwrap().output,
            requests: AtomicU64::new(0),
        };
        assert!(log(&config).capture(&headers).is_none());
        config.fields.headers.names.insert("user-Agent".to_owned(), "keep".to_owned());
        let kept = log(&config).capture(&headers).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept["user-agent"], "x");
    }

    #[test]
    fn otlp_is_refused_and_off_is_off() {
        let config: AccessLogConfig = serde_json::from_str(r#"{"otlp":{"http":{}}}"#).unwrap();
        assert!(matches!(AccessLog::start(&config), Err(StartError::Option(_))));
        assert!(!AccessLog::off().wants(500, 0, Duration::ZERO));
    }
}
