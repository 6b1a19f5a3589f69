//! Counters bound to an entry point, a router or a service, and who keeps them alive.
//!
//! Whoever compiles a table holds the bound object; the registry holds its counters and a weak
//! reference. What no table holds any more is shown once more and then forgotten.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use hashbrown::HashMap;
use http::header::HOST;
use http::{HeaderMap, HeaderName};

use super::series::{Buckets, Key, Shared, Table};
use crate::exchange::{Observation, Observer};
use crate::sync::atomic::{AtomicI64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// TLS versions and cipher suites of one object; rustls knows nine pairs.
const TLS_KINDS: usize = 16;
/// Combinations of header labels of one object; what comes later is counted with empty labels.
const MAX_HEADER_ROWS: usize = 1_000;
/// Longest value of a header label.
const MAX_HEADER_VALUE: usize = 128;

/// What all objects of a registry have in common.
pub(super) struct Setup {
    pub(super) buckets: Buckets,
    /// Label and header, in the order of the labels.
    pub(super) header_labels: Vec<(String, HeaderName)>,
}

/// What is counted of an entry point, a router or a service.
pub(super) struct Counters {
    pub(super) setup: Arc<Setup>,
    pub(super) table: Table,
    tls: OnceLock<Box<[OnceLock<TlsRow>; TLS_KINDS]>>,
    by_header: Mutex<HashMap<HeaderRow, u64>>,
    retries: Shared,
    shares: usize,
}

struct TlsRow {
    version: &'static str,
    cipher: &'static str,
    count: Shared,
}

/// Labels of `requests_total` when headers are among them.
type HeaderRow = (Key, Vec<Box<str>>);

impl Counters {
    pub(super) fn new(setup: &Arc<Setup>, shares: usize) -> Self {
        Self {
            setup: Arc::clone(setup),
            table: Table::new(shares),
            tls: OnceLock::new(),
            by_header: Mutex::default(),
            retries: Shared::new(1, 1),
            shares,
        }
    }

    fn count_tls(&self, version: &'static str, cipher: &'static str) {
        let rows = self.tls.get_or_init(Box::default);
        for row in &**rows {
            let row =
                row.get_or_init(|| TlsRow { version, cipher, count: Shared::new(1, self.shares) });
            if row.version == version && row.cipher == cipher {
                row.count.add(0, 1);
                return;
            }
        }
    }

    fn count_headers(&self, key: Key, headers: &HeaderMap) {
        let values = self.setup.header_labels.iter().map(|(_, name)| {
            let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            let mut value = value.unwrap_or_default().into_owned();
            value.truncate(value.floor_char_boundary(MAX_HEADER_VALUE));
            value.into_boxed_str()
        });
        let row = (key, values.collect::<Vec<_>>());
        let mut rows = lock(&self.by_header);
        if let Some(count) = rows.get_mut(&row) {
            *count += 1;
        } else if rows.len() < MAX_HEADER_ROWS {
            rows.insert(row, 1);
        } else {
            let none = vec![Box::default(); self.setup.header_labels.len()];
            *rows.entry((key, none)).or_default() += 1;
        }
    }

    /// TLS version, cipher suite and count, in their order.
    pub(super) fn tls_rows(&self) -> Vec<(&'static str, &'static str, u64)> {
        let rows = self.tls.get().into_iter().flat_map(|rows| rows.iter());
        let mut rows: Vec<_> = rows
            .filter_map(OnceLock::get)
            .map(|row| (row.version, row.cipher, row.count.sum(0)))
            .collect();
        rows.sort_unstable();
        rows
    }

    /// The rows of `requests_total` when headers are among its labels.
    pub(super) fn header_rows(&self) -> Vec<(HeaderRow, u64)> {
        let mut rows: Vec<_> =
            lock(&self.by_header).iter().map(|(row, &count)| (row.clone(), count)).collect();
        rows.sort_unstable();
        rows
    }

    /// How often a request was sent again.
    pub(super) fn retries(&self) -> u64 {
        self.retries.sum(0)
    }
}

/// Counts the exchanges of one entry point, router or service.
pub struct ExchangeMetrics {
    counters: Arc<Counters>,
}

impl ExchangeMetrics {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { counters }
    }
}

impl Observer for ExchangeMetrics {
    fn observe(&self, exchange: &Observation<'_>) {
        let counters = &*self.counters;
        let key = counters.table.count(exchange, &counters.setup.buckets);
        if let Some(tls) = exchange.tls {
            counters.count_tls(tls.version, tls.cipher);
        }
        if let Some(key) = key
            && !counters.setup.header_labels.is_empty()
        {
            counters.count_headers(key, exchange.headers);
        }
    }

    fn retried(&self) {
        self.counters.retries.add(0, 1);
    }
}

/// Says whether one server of a service is up.
pub struct ServerGauge {
    value: Arc<AtomicI64>,
}

impl ServerGauge {
    /// Not known yet: the gauge is not shown.
    pub(super) const UNKNOWN: i64 = -1;

    pub(super) fn new(value: Arc<AtomicI64>) -> Self {
        Self { value }
    }

    /// Takes note of the server's state.
    pub fn set(&self, up: bool) {
        self.value.store(up.into(), Ordering::Relaxed);
    }
}

/// Name of an object: a router's with its service's, otherwise with nothing.
type Name = (Box<str>, Box<str>);

/// What was counted of one object, with its name.
pub(super) type Named<C> = (Name, Arc<C>);

/// Objects of one kind: their names, what is counted, and whether somebody still holds them.
pub(super) struct Kept<C, B> {
    entries: Mutex<BTreeMap<Name, Entry<C, B>>>,
}

struct Entry<C, B> {
    counters: Arc<C>,
    bound: Weak<B>,
}

impl<C, B> Default for Kept<C, B> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<C, B> Kept<C, B> {
    /// The object of that name. Its counters go on as long as they have not been forgotten.
    pub(super) fn bind(
        &self,
        name: (&str, &str),
        make: impl FnOnce() -> C,
        wrap: impl FnOnce(Arc<C>) -> B,
    ) -> Arc<B> {
        let mut entries = lock(&self.entries);
        let name = (Box::from(name.0), Box::from(name.1));
        let entry = entries
            .entry(name)
            .or_insert_with(|| Entry { counters: Arc::new(make()), bound: Weak::new() });
        if let Some(bound) = entry.bound.upgrade() {
            return bound;
        }
        let bound = Arc::new(wrap(Arc::clone(&entry.counters)));
        entry.bound = Arc::downgrade(&bound);
        bound
    }

    /// All counters with their names; those that nobody holds are forgotten after this.
    pub(super) fn scrape(&self) -> Vec<Named<C>> {
        let mut entries = lock(&self.entries);
        let all = entries
            .iter()
            .map(|(name, entry)| (name.clone(), Arc::clone(&entry.counters)))
            .collect();
        entries.retain(|_, entry| entry.bound.strong_count() > 0);
        all
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Headers that labels are taken from, `Host` among them when it is named.
pub(super) fn label_headers<'a>(
    labels: impl Iterator<Item = (&'a String, &'a String)>,
) -> Vec<(String, HeaderName)> {
    labels
        .filter_map(|(label, header)| {
            let name = if header.eq_ignore_ascii_case("host") { Ok(HOST) } else { header.parse() };
            match name {
                Ok(name) if is_label(label) => Some((label.clone(), name)),
                _ => {
                    tracing::error!(label = %label, header = %header, "Header label cannot be served");
                    None
                }
            }
        })
        .collect()
}

/// Whether Prometheus takes `name` for a label that is not its own or ours.
pub fn is_label(name: &str) -> bool {
    const OURS: [&str; 6] = ["code", "method", "protocol", "entrypoint", "router", "service"];
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with("__")
        && !OURS.contains(&name)
}
