//! `hello`: what a TLS client says first, whole and in pieces, with a part of it read before. The first byte says how
//! it is split.

use std::time::Duration;

use bytes::Bytes;
use doorward::tls::{MAX_HELLO, read_hello};
use tokio::time::Instant;

use super::pieces::{Pieces, wait};

/// Reads one hello whole and in pieces.
pub fn run(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let whole = Read::of(stream, stream.len(), usize::MAX);
    let prefix = usize::from(seed >> 5).min(stream.len());
    let pieces = Read::of(stream, prefix, usize::from(seed & 31) + 1);
    assert_eq!(whole, pieces, "what is read depends on how the stream was split");
    if let Some(name) = whole.outcome.ok().flatten() {
        assert!(!name.contains(|c: char| c.is_ascii_uppercase() || c.is_control()), "{name:?}");
        assert!(!name.ends_with('.'), "{name:?}");
    }
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// The server's name, or why there is no hello.
    outcome: Result<Option<Box<str>>, &'static str>,
    protocols: [bool; 2],
    answer: Vec<u8>,
}

impl Read {
    fn of(stream: &[u8], prefix: usize, piece: usize) -> Self {
        let (prefix, rest) = stream.split_at(prefix);
        let mut source = Pieces::new(rest, piece);
        let outcome = wait(async {
            let deadline = Instant::now() + Duration::from_hours(1);
            read_hello(&mut source, Bytes::copy_from_slice(prefix), deadline).await
        });
        let answer = std::mem::take(&mut source.heard);
        match outcome {
            Ok(hello) => {
                assert!(answer.is_empty(), "an answer before anything is decided");
                let name = hello.server_name().map(Box::from);
                let protocols = [&b"h2"[..], b"http/1.1"].map(|one| hello.offers(one));
                let kept = [&*hello.into_raw(), source.rest].concat();
                assert_eq!(kept, stream, "bytes are lost for who passes them through");
                Self { outcome: Ok(name), protocols, answer }
            }
            Err(error) => {
                let whole_alert = matches!(*answer, [21, 3, _, 0, 2, 2, _]);
                assert!(answer.is_empty() || whole_alert, "{answer:?} is no alert");
                assert!(stream.len() - source.rest.len() <= MAX_HELLO, "it reads on and on");
                Self { outcome: Err(error.reason()), protocols: [false; 2], answer }
            }
        }
    }
}
