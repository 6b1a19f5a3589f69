//! What the authentication server has allowed, and who asks it.

use std::time::Duration;

use http::HeaderMap;
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;

use crate::sync::Arc;

#[path = "../../../src/middleware/forward_auth/cache"]
mod cache {
    #[path = "memory.rs"]
    pub(super) mod memory;
}

use cache::memory::{Found, Memory};

/// How one who leads may go on.
#[derive(Clone, Copy)]
enum Way {
    /// Its client goes away.
    GivenUp,
    /// The answer is for nobody else.
    Alone,
    /// The answer allows all.
    Allowed,
}

async fn ask(memory: Arc<Memory>, way: Way, leading: Arc<AtomicUsize>) {
    match memory.find([7; 32]).await {
        Found::Allowed(headers) => assert_eq!(headers["x-user"], "ann"),
        Found::Alone => {}
        Found::Lead(flight) => {
            assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0, "two lead");
            yield_now().await;
            leading.fetch_sub(1, Ordering::SeqCst);
            match way {
                Way::GivenUp => drop(flight),
                Way::Alone => flight.alone(),
                Way::Allowed => {
                    let mut headers = HeaderMap::new();
                    headers.insert("x-user", "ann".parse().unwrap());
                    flight.allow(&Arc::new(headers), Instant::now() + Duration::from_secs(10));
                }
            }
        }
    }
}

pub(super) fn one_asks_for_all() {
    let memory = Arc::new(Memory::new(Duration::from_secs(10), 10));
    let leading = Arc::new(AtomicUsize::new(0));
    block_on(async move {
        let ways = [Way::GivenUp, Way::Alone, Way::Allowed];
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let way = ways[thread_rng().gen_range(0..ways.len())];
                spawn(ask(Arc::clone(&memory), way, Arc::clone(&leading)))
            })
            .collect();
        for one in asking {
            one.await.unwrap();
        }
    });
}

pub(super) fn what_is_forgotten_is_asked_again() {
    let memory = Arc::new(Memory::new(Duration::from_secs(10), 10));
    let asking = {
        let memory = Arc::clone(&memory);
        shuttle::thread::spawn(move || block_on(ask(memory, Way::Allowed, Arc::default())))
    };
    // The server has just refused the same.
    memory.forget(&[7; 32]);
    asking.join().unwrap();
    memory.forget(&[7; 32]);
    block_on(async {
        assert!(matches!(memory.find([7; 32]).await, Found::Lead(_)), "it is still allowed");
        assert!(matches!(memory.find([7; 32]).await, Found::Lead(_)), "nobody may ask");
    });
}
