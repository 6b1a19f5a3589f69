//! The counters of one bound object, by status, method and protocol.
//!
//! Rows are found by scanning small blocks of packed keys and are never removed: counting takes
//! no lock and hashes nothing. Each row has a share per group of threads, added up at scrape.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use http::Method;

use crate::exchange::{Observation, Protocol};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Rows in one block: their keys fill one cache line.
const BLOCK: usize = 16;
/// Blocks of one object: what comes later is counted under the status `other`.
const MAX_BLOCKS: usize = 64;
/// Cells of a share in front of the buckets.
const FIXED: usize = 3;

/// Methods in the order of their number in a key; the last stands for all others.
const METHODS: [&str; 11] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PRI",
    "EXTENSION_METHOD",
];

/// Labels that every exchange has, packed. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(u32);

impl Key {
    const USED: u32 = 1 << 31;
    /// More than any status or gRPC status.
    const OTHER: u16 = u16::MAX;

    /// The key of an exchange.
    pub(super) fn of(exchange: &Observation<'_>) -> Self {
        let grpc = matches!(exchange.protocol, Protocol::Grpc | Protocol::GrpcWeb);
        let code = if grpc {
            // Unknown (2) is what a gRPC client makes of an answer without a status.
            exchange.grpc_status.unwrap_or(2)
        } else {
            exchange.status.as_u16()
        };
        Self::new(code, method_number(exchange.method), exchange.protocol)
    }

    fn new(code: u16, method: u32, protocol: Protocol) -> Self {
        let protocol = match protocol {
            Protocol::Http => 0,
            Protocol::Sse => 1,
            Protocol::WebSocket => 2,
            Protocol::Grpc => 3,
            Protocol::GrpcWeb => 4,
        };
        Self(Self::USED | protocol << 24 | method << 16 | u32::from(code))
    }

    fn with_other_code(self) -> Self {
        Self(self.0 | u32::from(Self::OTHER))
    }

    /// The `code` label.
    pub(super) fn code(self) -> String {
        let code = (self.0 & 0xffff) as u16;
        if code == Self::OTHER { "other".to_owned() } else { code.to_string() }
    }

    /// The `method` label.
    pub(super) fn method(self) -> &'static str {
        METHODS.get((self.0 >> 16 & 0xff) as usize).copied().unwrap_or("EXTENSION_METHOD")
    }

    /// The `protocol` label.
    pub(super) fn protocol(self) -> &'static str {
        let protocol = match self.0 >> 24 & 0x7f {
            1 => Protocol::Sse,
            2 => Protocol::WebSocket,
            3 => Protocol::Grpc,
            4 => Protocol::GrpcWeb,
            _ => Protocol::Http,
        };
        protocol.as_str()
    }
}

fn method_number(method: &Method) -> u32 {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::CONNECT => 6,
        Method::OPTIONS => 7,
        Method::TRACE => 8,
        _ if method.as_str() == "PRI" => 9,
        _ => 10,
    }
}

/// Upper bounds of a histogram, in ascending order.
#[derive(Debug)]
pub(super) struct Buckets {
    bounds: Vec<(u64, f64)>,
}

impl Buckets {
    /// The bounds in `seconds`; what is no bound is left out, and `+Inf` is always there.
    pub(super) fn new(seconds: &[f64]) -> Self {
        let mut seconds: Vec<f64> =
            seconds.iter().copied().filter(|bound| bound.is_finite() && *bound >= 0.0).collect();
        seconds.sort_unstable_by(f64::total_cmp);
        seconds.dedup();
        let bounds = seconds
            .into_iter()
            .filter_map(|bound| {
                let nanos = Duration::try_from_secs_f64(bound).ok()?.as_nanos();
                Some((u64::try_from(nanos).ok()?, bound))
            })
            .collect();
        Self { bounds }
    }

    /// The bounds in seconds.
    pub(super) fn seconds(&self) -> impl Iterator<Item = f64> {
        self.bounds.iter().map(|&(_, seconds)| seconds)
    }

    fn index(&self, nanos: u64) -> usize {
        self.bounds.iter().take_while(|&&(bound, _)| nanos > bound).count()
    }

    fn cells(&self) -> usize {
        FIXED + self.bounds.len() + 1
    }
}

/// One cache line of counters.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

/// Counters that are kept once per share.
pub(super) struct Shared {
    lines: Box<[Line]>,
    stride: usize,
}

impl Shared {
    /// `cells` counters in each of `shares`.
    pub(super) fn new(cells: usize, shares: usize) -> Self {
        let stride = cells.div_ceil(8).max(1);
        let lines = std::iter::repeat_with(Line::default).take(stride * shares.max(1)).collect();
        Self { lines, stride }
    }

    /// Adds `value` to the counter `cell` of this thread's share.
    pub(super) fn add(&self, cell: usize, value: u64) {
        let shares = self.lines.len() / self.stride;
        let line = (share() % shares) * self.stride + cell / 8;
        if let Some(counter) = self.lines.get(line).and_then(|line| line.0.get(cell % 8)) {
            counter.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// The counter `cell` of all shares.
    pub(super) fn sum(&self, cell: usize) -> u64 {
        self.lines
            .iter()
            .skip(cell / 8)
            .step_by(self.stride)
            .filter_map(|line| line.0.get(cell % 8))
            .fold(0, |sum, counter| sum.wrapping_add(counter.load(Ordering::Relaxed)))
    }
}

/// A number for this thread; neighbours in time have different ones.
fn share() -> usize {
    use std::sync::atomic::AtomicUsize;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    SHARE.try_with(Cell::get).unwrap_or(0)
}

/// What was counted under one key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The labels.
    pub(super) key: Key,
    /// Sum of the durations, in nanoseconds.
    pub(super) nanos: u64,
    /// Payload bytes received.
    pub(super) request_bytes: u64,
    /// Payload bytes sent.
    pub(super) response_bytes: u64,
    /// How many exchanges each bucket has, the last one without a bound; not cumulative.
    pub(super) buckets: Vec<u64>,
}

impl Row {
    /// How many exchanges there were.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The rows of one object.
pub(super) struct Table {
    first: Block,
    shares: usize,
}

#[derive(Default)]
struct Block {
    keys: [AtomicU32; BLOCK],
    rows: [OnceLock<Shared>; BLOCK],
    next: OnceLock<Box<Block>>,
}

impl Table {
    /// An empty table whose rows have so many `shares`.
    pub(super) fn new(shares: usize) -> Self {
        Self { first: Block::default(), shares }
    }

    /// Counts one exchange; returns the key that it was counted under.
    pub(super) fn count(&self, exchange: &Observation<'_>, buckets: &Buckets) -> Option<Key> {
        let mut key = Key::of(exchange);
        let row = self.row(key, buckets, MAX_BLOCKS).or_else(|| {
            key = key.with_other_code();
            // At most one row for each method and protocol is left for these.
            self.row(key, buckets, MAX_BLOCKS + METHODS.len() * 5 / BLOCK + 1)
        })?;
        let nanos = u64::try_from(exchange.duration.as_nanos()).unwrap_or(u64::MAX);
        row.add(FIXED + buckets.index(nanos), 1);
        row.add(0, nanos);
        if exchange.request_bytes > 0 {
            row.add(1, exchange.request_bytes);
        }
        if exchange.response_bytes > 0 {
            row.add(2, exchange.response_bytes);
        }
        Some(key)
    }

    /// The row of `key`, made when it is new and there is room.
    fn row(&self, key: Key, buckets: &Buckets, blocks: usize) -> Option<&Shared> {
        let mut block = &self.first;
        for left in (0..blocks).rev() {
            for (slot, row) in block.keys.iter().zip(&block.rows) {
                let mut found = slot.load(Ordering::Acquire);
                if found == 0 {
                    let taken =
                        slot.compare_exchange(0, key.0, Ordering::AcqRel, Ordering::Acquire);
                    found = taken.err().unwrap_or(key.0);
                }
                if found == key.0 {
                    return Some(row.get_or_init(|| Shared::new(buckets.cells(), self.shares)));
                }
            }
            if left == 0 {
                return None;
            }
            block = block.next.get_or_init(Box::default);
        }
        None
    }

    /// All rows, in the order of their keys.
    pub(super) fn rows(&self, buckets: &Buckets) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut block = Some(&self.first);
        while let Some(current) = block {
            for (slot, row) in current.keys.iter().zip(&current.rows) {
                if let (key @ 1.., Some(row)) = (slot.load(Ordering::Acquire), row.get()) {
                    rows.push(Row {
                        key: Key(key),
                        nanos: row.sum(0),
                        request_bytes: row.sum(1),
                        response_bytes: row.sum(2),
                        buckets: (FIXED..buckets.cells()).map(|cell| row.sum(cell)).collect(),
                    });
                }
            }
            block = current.next.get().map(|next| &**next);
        }
        rows.sort_unstable_by_key(|row| row.key);
        rows
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::exchange::Ending;

    pub(in super::super) fn observation<'a>(
        status: u16,
        method: &'a Method,
        headers: &'a HeaderMap,
        millis: u64,
    ) -> Observation<'a> {
        Observation {
            status: StatusCode::from_u16(status).unwrap(),
            grpc_status: None,
            method,
            headers,
            protocol: Protocol::Http,
            tls: None,
            duration: Duration::from_millis(millis),
            request_bytes: 10,
            response_bytes: 100,
            ending: Ending::Complete,
            error: None,
        }
    }

    #[test]
    fn four_threads_add_up() {
        let buckets = Buckets::new(&[0.1, 0.3, 1.2, 5.0]);
        let table = Table::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4_u16 {
                let (table, buckets) = (&table, &buckets);
                scope.spawn(move || {
                    let headers = HeaderMap::new();
                    for turn in 0..10_000_u16 {
                        let status = 200 + (turn + thread) % 40;
                        table.count(&observation(status, &Method::GET, &headers, 1), buckets);
                    }
                });
            }
        });
        let rows = table.rows(&buckets);
        assert_eq!(rows.len(), 40);
        for row in rows {
            assert_eq!(row.count(), 1_000);
            assert_eq!(row.nanos, 1_000_000_000);
            assert_eq!((row.request_bytes, row.response_bytes), (10_000, 100_000));
            assert_eq!(row.buckets, [1_000, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn bounds_belong_to_their_bucket() {
        let buckets = Buckets::new(&[5.0, 0.1, f64::NAN, 0.1, f64::INFINITY, -1.0]);
        assert_eq!(buckets.seconds().collect::<Vec<_>>(), [0.1, 5.0]);
        let ms = 1_000_000;
        for (nanos, index) in
            [(0, 0), (100 * ms, 0), (100 * ms + 1, 1), (5_000 * ms, 1), (u64::MAX, 2)]
        {
            assert_eq!(buckets.index(nanos), index, "{nanos}");
        }
    }

    #[test]
    fn a_flood_of_labels_is_bounded() {
        let buckets = Buckets::new(&[]);
        let table = Table::new(1);
        let headers = HeaderMap::new();
        for status in 100..1000 {
            for method in [Method::GET, Method::POST] {
                table.count(&observation(status, &method, &headers, 1), &buckets).unwrap();
            }
        }
        let rows = table.rows(&buckets);
        assert_eq!(rows.iter().map(Row::count).sum::<u64>(), 1_800);
        assert_eq!(rows.len(), BLOCK * MAX_BLOCKS + 2);
        assert_eq!(rows.iter().filter(|row| row.key.code() == "other").count(), 2);
    }

    #[test]
    fn labels_are_traefiks() {
        let headers = HeaderMap::new();
        let odd = Method::from_bytes(b"BREW").unwrap();
        let key = Key::of(&observation(404, &odd, &headers, 0));
        assert_eq!(
            (key.code().as_str(), key.method(), key.protocol()),
            ("404", "EXTENSION_METHOD", "http")
        );
        let mut grpc = observation(200, &Method::POST, &headers, 0);
        grpc.protocol = Protocol::Grpc;
        assert_eq!(Key::of(&grpc).code(), "2");
        grpc.grpc_status = Some(14);
        let key = Key::of(&grpc);
        assert_eq!((key.code().as_str(), key.method(), key.protocol()), ("14", "POST", "grpc"));
    }
}
