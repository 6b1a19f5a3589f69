//! Bytes that a gate has read and not passed on yet: an incomplete head, or what waits behind a decision.
//! The invariant: the `ready` bytes at the front are validated, the others are never given away.

use bytes::{Bytes, BytesMut};
use tokio::io::ReadBuf;

#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: BytesMut,
    ready: usize,
}

impl Held {
    pub(super) fn new(prefix: Bytes) -> Self {
        Self { bytes: prefix.into(), ready: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes that are not validated.
    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.ready..).unwrap_or_default()
    }

    /// Takes in further bytes behind the others.
    pub(super) fn keep(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Moves `count` waiting bytes to the validated ones.
    pub(super) fn approve(&mut self, count: usize) {
        self.ready = self.bytes.len().min(self.ready + count);
    }

    /// Drops what is not validated.
    pub(super) fn drop_waiting(&mut self) {
        self.bytes.truncate(self.ready);
    }

    /// Puts validated bytes in the place of what was not.
    pub(super) fn replace_waiting(&mut self, with: &[u8]) {
        self.drop_waiting();
        self.keep(with);
        self.ready = self.bytes.len();
    }

    /// Hands out validated bytes as far as `buf` has room. `false` when there are none.
    pub(super) fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.ready == 0 {
            return false;
        }
        let count = self.ready.min(buf.remaining());
        buf.put_slice(&self.bytes.split_to(count));
        self.ready -= count;
        if self.bytes.is_empty() {
            // An idle connection keeps no buffer.
            self.bytes = BytesMut::new();
        }
        true
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}
