//! The account of one HTTP/2 connection: what its client sends besides requests, and what that is worth.
//!
//! It follows the heads of frames (RFC 9113, 4.1) in bytes that pass anyway, and copies none of them. What brings
//! work and no request costs; answers that are delivered, and time, pay. A turn of the connection's task brings a
//! bounded amount, so that requests are taken up before more of them are decoded.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::guard::Limit;
use super::http::Conversation;
use crate::config::limits::{Allowance, Limits};

const HEAD: usize = 9;
/// Sent by the client before its first frame.
const PREFACE: usize = 24;
/// Bytes of answers that allow one frame more. A window of one byte, and a frame that is answered by another one, pay
/// for less than they cost.
const WORTH: u64 = 32;
/// What one turn may cost.
const TURN: u32 = 250;
/// Bytes of header blocks in one turn: one of them may stand for 4 KiB of header fields.
const TURN_HEADS: usize = 16 * 1024;
/// A head counts like so many bytes at least.
const SMALL_HEAD: usize = 128;
/// What a head costs that was decoded in vain, because it has too many fields.
const BOMB: u64 = 200;
/// Frames of a body that carry less are hardly worth their heads.
const SMALL_DATA: usize = 16;
/// Further parts of a header block that are smaller have been cut up on purpose.
const SMALL_PART: usize = 1024;

const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// The head of a frame.
#[derive(Clone, Copy)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn read(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it costs, measured by the work that it makes.
    fn cost(self) -> u32 {
        match self.kind {
            // DATA
            0 if self.has(END_STREAM) => 0,
            0 if self.length == 0 => 10,
            0 => u32::from(self.length < SMALL_DATA || self.has(PADDED)),
            // HEADERS, and what has an account of its own
            1 | RST_STREAM => 0,
            // SETTINGS: answered, and applied to every open stream
            4 if !self.has(ACK) => 10,
            // PING: answered
            6 if !self.has(ACK) => 2,
            // CONTINUATION
            9 if !self.has(END_HEADERS) && self.length < SMALL_PART => 100,
            // GOAWAY
            7 => 10,
            // PRIORITY, WINDOW_UPDATE, and what this protocol does not know
            _ => 1,
        }
    }
}

/// Where a stream of frames is.
#[derive(Default)]
struct Walk {
    head: [u8; HEAD],
    /// Bytes of a head that has begun.
    begun: usize,
    /// Bytes of a payload that are still to come.
    left: usize,
}

impl Walk {
    /// Follows the frames through bytes that continue them.
    #[inline]
    fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        loop {
            let Some(rest) = bytes.get(self.left..) else {
                self.left -= bytes.len();
                return;
            };
            self.left = 0;
            if rest.is_empty() {
                return;
            }
            let frame = match rest.split_first_chunk::<HEAD>() {
                Some((head, payload)) if self.begun == 0 => {
                    bytes = payload;
                    Frame::read(*head)
                }
                _ => {
                    let wanted = (HEAD - self.begun).min(rest.len());
                    let (part, payload) = rest.split_at(wanted);
                    for (place, byte) in self.head.iter_mut().skip(self.begun).zip(part) {
                        *place = *byte;
                    }
                    self.begun += wanted;
                    if self.begun < HEAD {
                        return;
                    }
                    self.begun = 0;
                    bytes = payload;
                    Frame::read(self.head)
                }
            };
            self.left = frame.length;
            each(frame);
        }
    }

    fn is_between_frames(&self) -> bool {
        self.begun == 0 && self.left == 0
    }
}

struct Bucket {
    allowance: Allowance,
    left: u32,
    since: Instant,
}

impl Bucket {
    fn new(allowance: Allowance) -> Self {
        Self { allowance, left: allowance.burst, since: Instant::now() }
    }

    /// Takes `cost` out; when there is not so much, `earned` comes in, with what time has added. `false` when even
    /// then it is too little.
    fn take(&mut self, cost: u32, earned: impl FnOnce() -> u64) -> bool {
        if cost > self.left {
            let now = Instant::now();
            let time = now.saturating_duration_since(self.since).as_secs_f64();
            self.since = now;
            let time = (time * f64::from(self.allowance.per_second)).round();
            let more = earned().saturating_add(whole(time));
            let left = more.saturating_add(self.left.into()).min(self.allowance.burst.into());
            self.left = u32::try_from(left).unwrap_or(u32::MAX);
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of frames, and casts saturate"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// What a client may still send.
pub(super) struct Ledger {
    conversation: Arc<Conversation>,
    incoming: Walk,
    outgoing: Walk,
    /// Whether the next stream that we reset is free.
    free: bool,
    frames: Option<Bucket>,
    resets: Option<Bucket>,
    /// Bytes of answers that have paid for nothing yet.
    delivered: u64,
    /// Requests that have paid for a reset.
    paid: u64,
    /// Heads in vain that were paid for.
    bombs: u64,
    turn: u32,
    turn_heads: usize,
    last_stream: u32,
    spent: Option<Limit>,
}

impl Ledger {
    pub(super) fn new(limits: &Limits, conversation: &Arc<Conversation>) -> Self {
        let streams = conversation.door.entry_point.http2_max_concurrent_streams;
        let resets = limits.resets.map(|allowance| Allowance {
            burst: allowance.burst.max(streams.saturating_mul(2)),
            ..allowance
        });
        Self {
            conversation: Arc::clone(conversation),
            incoming: Walk { left: PREFACE, ..Walk::default() },
            outgoing: Walk::default(),
            free: true,
            frames: limits.frames.map(Bucket::new),
            resets: resets.map(Bucket::new),
            delivered: 0,
            paid: 0,
            bombs: 0,
            turn: 0,
            turn_heads: 0,
            last_stream: 0,
            spent: None,
        }
    }

    /// Takes account of what the client has sent. `false` when it was too much.
    #[inline]
    pub(super) fn arrived(&mut self, bytes: &[u8]) -> bool {
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.follow(bytes, |frame| self.charge(frame));
        self.incoming = incoming;
        self.spent.is_none()
    }

    fn charge(&mut self, frame: Frame) {
        if matches!(frame.kind, 1 | 9) {
            self.turn_heads += frame.length.max(SMALL_HEAD);
            self.last_stream = self.last_stream.max(frame.stream);
        }
        let bombs = self.conversation.bombs.load(Relaxed);
        let bombs = bombs - std::mem::replace(&mut self.bombs, bombs);
        let cost = frame.cost() + u32::try_from(bombs * BOMB).unwrap_or(u32::MAX >> 1);
        if cost > 0 {
            self.turn += cost;
            let delivered = &mut self.delivered;
            let earned = || std::mem::take(delivered) / WORTH;
            if self.frames.as_mut().is_some_and(|frames| !frames.take(cost, earned)) {
                self.spent = Some(Limit::Frames);
            }
        } else if frame.kind == RST_STREAM {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.turn += 1;
        let (paid, conversation) = (&mut self.paid, &self.conversation);
        let earned = || {
            let answered = conversation.answered.load(Relaxed);
            answered - std::mem::replace(paid, answered)
        };
        if self.resets.as_mut().is_some_and(|resets| !resets.take(1, earned)) {
            self.spent = Some(Limit::Resets);
        }
    }

    /// Takes account of what is written for the client: two streams that we have to reset are as good as one that it has
    /// reset (CVE-2025-8671). Whoever does not know yet how many it may open is told by such resets too.
    #[inline]
    pub(super) fn leaves(&mut self, bytes: &[u8]) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        outgoing.follow(bytes, |frame| {
            if frame.kind == RST_STREAM {
                self.free = !self.free;
                if self.free {
                    self.reset();
                }
            }
        });
        self.outgoing = outgoing;
    }

    /// Takes account of bytes that the client has got.
    pub(super) fn delivered(&mut self, bytes: usize) {
        self.delivered += bytes as u64;
    }

    /// Whether this turn has brought enough.
    pub(super) fn has_enough(&self) -> bool {
        self.turn >= TURN || self.turn_heads >= TURN_HEADS
    }

    /// The turn is over.
    pub(super) fn next_turn(&mut self) {
        (self.turn, self.turn_heads) = (0, 0);
    }

    /// What the client has used up.
    pub(super) fn spent(&self) -> Option<Limit> {
        self.spent
    }

    /// GOAWAY with `ENHANCE_YOUR_CALM` (RFC 9113, 6.8), where a frame can begin.
    pub(super) fn farewell(&self) -> Option<[u8; HEAD + 8]> {
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
        let last = self.last_stream.to_be_bytes();
        for (place, byte) in frame.iter_mut().skip(HEAD).zip(last) {
            *place = byte;
        }
        self.outgoing.is_between_frames().then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{connection, door_with};
    use super::*;

    fn frame(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let mut frame = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.resize(HEAD + length, 0xff);
        frame
    }

    fn opened(frames: u32, resets: u32) -> Ledger {
        let allowance = |burst| Some(Allowance { burst, per_second: 100 });
        let limits =
            Limits { frames: allowance(frames), resets: allowance(resets), ..Limits::default() };
        let door = door_with(|entry_point| entry_point.http2_max_concurrent_streams = 1);
        let conversation = Conversation::new(&door, connection(&door), None, None, 0);
        let mut ledger = Ledger::new(&limits, &conversation);
        assert!(ledger.arrived(&[b'x'; PREFACE]));
        ledger
    }

    /// Frames are followed however they are cut up.
    #[test]
    fn every_cut_gives_the_same_frames() {
        let mut bytes = Vec::new();
        for (at, length) in [0, 1, 8, 9, 300, 16_384, 70_000].into_iter().enumerate() {
            bytes.extend(frame(length, u8::try_from(at).unwrap(), 1, 3));
        }
        for cut in [1, 2, 5, 9, 10, 100, 4096, bytes.len()] {
            let (mut walk, mut seen) = (Walk::default(), Vec::new());
            for part in bytes.chunks(cut) {
                walk.follow(part, |frame| seen.push((frame.kind, frame.length, frame.stream)));
            }
            let expected = [0, 1, 8, 9, 300, 16_384, 70_000].into_iter().enumerate();
            let expected: Vec<_> =
                expected.map(|(at, length)| (u8::try_from(at).unwrap(), length, 3)).collect();
            assert_eq!(seen, expected, "{cut}");
            assert!(walk.is_between_frames());
        }
    }

    /// G-25
    #[tokio::test(start_paused = true)]
    async fn frames_without_use_are_paid_by_time_and_by_answers() {
        let update = frame(4, 8, 0, 0);
        let mut ledger = opened(1000, 10);
        assert!(ledger.arrived(&update.repeat(1000)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(ledger.arrived(&update.repeat(200)));
        ledger.delivered(32 * 300);
        assert!(ledger.arrived(&update.repeat(300)));
        assert!(!ledger.arrived(&update));
        assert_eq!(ledger.spent(), Some(Limit::Frames));
        for (frame, most) in [
            (frame(0, 4, 0, 0), 100),
            (frame(8, 6, 0, 0), 500),
            (frame(5, 2, 0, 1), 1000),
            (frame(0, 0, 0, 1), 100),
            (frame(1, 0, 0, 1), 1000),
            (frame(1, 9, 0, 1), 10),
            (frame(9, 0x10, 0, 0), 1000),
        ] {
            let mut ledger = opened(1000, 10);
            assert!(ledger.arrived(&frame.repeat(most)), "{frame:?}");
            assert!(!ledger.arrived(&frame), "{frame:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_brings_something_is_free() {
        let mut ledger = opened(10, 10);
        for frame in [
            frame(100, 1, 5, 1),
            frame(100, 0, 0, 1),
            frame(16_384, 0, 0, 1),
            frame(0, 0, 1, 1),
            frame(1, 0, 1, 1),
        ] {
            assert!(ledger.arrived(&frame.repeat(1000)));
        }
        assert_eq!(ledger.farewell().unwrap()[HEAD..], [0, 0, 0, 1, 0, 0, 0, 0xb]);
        ledger.leaves(&frame(100, 0, 0, 1)[..50]);
        assert!(ledger.farewell().is_none(), "it would be taken for the body");
    }

    /// V-19: a reset costs, and a request that was answered pays for it.
    #[tokio::test(start_paused = true)]
    async fn resets_are_paid_by_answers() {
        let reset = frame(4, 3, 0, 1);
        let mut ledger = opened(10, 10);
        assert!(ledger.arrived(&reset.repeat(6)));
        ledger.leaves(&reset.repeat(8));
        ledger.conversation.answered.store(7, Relaxed);
        assert!(ledger.arrived(&reset.repeat(7)));
        assert!(!ledger.arrived(&reset));
        assert_eq!(ledger.spent(), Some(Limit::Resets));
    }

    /// V-24
    #[tokio::test(start_paused = true)]
    async fn heads_in_vain_are_paid_with_the_next_frame() {
        let head = frame(100, 1, 5, 1);
        let mut ledger = opened(1000, 10);
        ledger.conversation.bombs.store(5, Relaxed);
        assert!(ledger.arrived(&head.repeat(100)));
        ledger.conversation.bombs.store(6, Relaxed);
        assert!(!ledger.arrived(&head));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_has_an_end() {
        let mut ledger = opened(100_000, 10);
        assert!(ledger.arrived(&frame(5000, 1, 4, 1).repeat(3)) && !ledger.has_enough());
        assert!(ledger.arrived(&frame(16_384, 9, 4, 1)) && ledger.has_enough());
        ledger.next_turn();
        assert!(!ledger.has_enough());
        assert!(ledger.arrived(&frame(4, 8, 0, 0).repeat(250)) && ledger.has_enough());
    }
}
