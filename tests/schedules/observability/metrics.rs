//! Counters of objects.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use shuttle::thread::spawn;

use crate::exchange::{Ending, Observation, Observer as _, Protocol};
use crate::runner::each;
use crate::sync::Arc;

#[path = "../../../src/observability/metrics/bound.rs"]
mod bound;
#[path = "../../../src/observability/metrics/series.rs"]
mod series;

use bound::{Counters, ExchangeMetrics, Kept, Setup};
use series::{Buckets, Row, Table};

fn observation<'a>(status: u16, method: &'a Method, headers: &'a HeaderMap) -> Observation<'a> {
    Observation {
        status: StatusCode::from_u16(status).unwrap(),
        grpc_status: None,
        method,
        headers,
        protocol: Protocol::Http,
        tls: None,
        duration: Duration::from_millis(1),
        request_bytes: 0,
        response_bytes: 10,
        ending: Ending::Complete,
        error: None,
    }
}

pub(super) fn nothing_counted_is_lost() {
    let (table, buckets) = (Arc::new(Table::new(2)), Arc::new(Buckets::new(&[])));
    let shared = (Arc::clone(&table), Arc::clone(&buckets));
    each(3, move |thread| {
        let (table, buckets) = &shared;
        let headers = HeaderMap::new();
        // The same ones, in another order.
        let statuses: [u16; 2] = if thread == 0 { [200, 404] } else { [404, 200] };
        for status in statuses {
            table.count(&observation(status, &Method::GET, &headers), buckets).unwrap();
        }
        let so_far: u64 = table.rows(buckets).iter().map(Row::count).sum();
        assert!((1..=6).contains(&so_far), "{so_far}");
    });
    let rows = table.rows(&buckets);
    let counts: Vec<_> = rows.iter().map(|row| (row.key.code(), row.count())).collect();
    assert_eq!(counts, [("200".to_owned(), 3), ("404".to_owned(), 3)]);
    assert!(rows.iter().all(|row| row.response_bytes == 30));
}

pub(super) fn who_is_bound_is_shown() {
    let setup = Arc::new(Setup { buckets: Buckets::new(&[]), header_labels: Vec::new() });
    let kept: Arc<Kept<Counters, ExchangeMetrics>> = Arc::default();
    let bind = move |kept: &Kept<Counters, ExchangeMetrics>| {
        kept.bind(("odoo", ""), || Counters::new(&setup, 1), ExchangeMetrics::new)
    };
    let count = |kept: &Kept<Counters, ExchangeMetrics>| -> u64 {
        let all = kept.scrape();
        let rows = |counters: &Counters| counters.table.rows(&counters.setup.buckets);
        all.iter().flat_map(|(_, counters)| rows(counters)).map(|row| row.count()).sum()
    };
    let running = bind(&kept);
    let shared = Arc::clone(&kept);
    each(2, move |_| {
        let one = bind(&shared);
        one.observe(&observation(200, &Method::GET, &HeaderMap::new()));
        assert!(count(&shared) >= 1, "what is held is not shown");
    });
    assert_eq!(count(&kept), 2);
    drop(running);
    assert_eq!(count(&kept), 2, "shown once more");
    assert_eq!(count(&kept), 0);
}
