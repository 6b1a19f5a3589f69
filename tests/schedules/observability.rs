//! Metrics, and lines on their way to the disk.

use std::io;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread::spawn;

use crate::runner::{Scenario, each};
use crate::sync::{Arc, Mutex};

#[path = "../../src/observability/writer.rs"]
mod writer;

mod metrics;

use writer::{LineWriter, Sink};

pub(crate) const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "observability::nothing_counted_is_lost",
        by_chance: false,
        holds: "what threads count adds up, under one row for each status, while others read",
        run: metrics::nothing_counted_is_lost,
    },
    Scenario {
        name: "observability::who_is_bound_is_shown",
        by_chance: false,
        holds: "all who bind one name at the same time count in one place, which is shown while somebody holds it",
        run: metrics::who_is_bound_is_shown,
    },
    Scenario {
        name: "observability::every_line_is_written_or_counted",
        by_chance: false,
        holds: "a line is written once, behind those of its thread before it, or it counts as dropped",
        run: every_line_is_written_or_counted,
    },
    Scenario {
        name: "observability::a_flush_waits_for_its_lines",
        by_chance: false,
        holds: "when a flush returns, what was handed over before is written, and it always returns",
        run: a_flush_waits_for_its_lines,
    },
    Scenario {
        name: "observability::a_failing_disk_holds_nobody_up",
        by_chance: false,
        holds: "lines that the disk does not take are counted, and closing returns",
        run: a_failing_disk_holds_nobody_up,
    },
];

#[derive(Clone, Default)]
struct Paper {
    written: Arc<Mutex<Vec<u8>>>,
    torn: bool,
}

impl Sink for Paper {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            return Err(io::Error::other("torn"));
        }
        self.written.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }
}

impl Paper {
    fn of(&self, thread: char) -> Vec<String> {
        let written = String::from_utf8(self.written.lock().unwrap().clone()).unwrap();
        written.lines().filter(|line| line.starts_with(thread)).map(str::to_owned).collect()
    }
}

fn start(paper: &Paper, max_lines: usize) -> Arc<LineWriter> {
    Arc::new(LineWriter::start("writer", paper.clone(), max_lines, |_| {}).unwrap())
}

fn every_line_is_written_or_counted() {
    let paper = Paper::default();
    let writer = start(&paper, 2);
    let shared = Arc::clone(&writer);
    each(2, move |thread| {
        for line in 0..2 {
            shared.push(format!("{}{line}\n", ['a', 'b'][thread]).as_bytes());
        }
    });
    writer.close();
    let dropped = writer.dropped().load(Ordering::SeqCst);
    let (a, b) = (paper.of('a'), paper.of('b'));
    assert_eq!(u64::try_from(a.len() + b.len()).unwrap() + dropped, 4);
    assert!(a.is_sorted() && b.is_sorted(), "{a:?} {b:?}");
}

fn a_flush_waits_for_its_lines() {
    let paper = Paper::default();
    let writer = start(&paper, 100);
    let (shared, seen) = (Arc::clone(&writer), paper.clone());
    each(2, move |thread| {
        let name = ['a', 'b'][thread];
        shared.push(format!("{name}0\n").as_bytes());
        if thread == 0 {
            shared.reopen();
        }
        shared.flush();
        assert_eq!(seen.of(name).len(), 1, "not written yet");
    });
    writer.close();
    writer.push(b"late\n");
    writer.flush();
    assert_eq!(writer.dropped().load(Ordering::SeqCst), 1);
}

fn a_failing_disk_holds_nobody_up() {
    let paper = Paper { torn: true, ..Paper::default() };
    let writer = start(&paper, 100);
    let shared = Arc::clone(&writer);
    each(2, move |_| {
        shared.push(b"line\n");
        shared.flush();
    });
    writer.close();
    assert_eq!(writer.dropped().load(Ordering::SeqCst), 2);
}
