//! The account of one HTTP/2 connection: what its client sends besides requests, and what that is worth.
//!
//! It follows the heads of frames (RFC 9113, 4.1) in bytes that pass anyway, and changes none of them but small parts of
//! a body that come together. What brings work and no request costs; answers that are delivered, and time, pay. A turn of
//! the connection's task brings a bounded amount, so that requests are taken up before more of them are decoded.

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
/// Frames of a body that carry less are what calls are made of. In one turn each counts.
const SMALL_DATA: usize = 256;
/// The largest frame that we take (RFC 9113, 6.5.2).
const MAX_FRAME: usize = 16_384;
/// Further parts of a header block that are smaller have been cut up on purpose.
const SMALL_PART: usize = 1024;

const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

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

    fn write(self, head: &mut [u8; HEAD]) {
        let [_, length @ ..] = u32::try_from(self.length).unwrap_or_default().to_be_bytes();
        let [a, b, c, _, flags, ..] = head;
        ([*a, *b, *c], *flags) = (length, self.flags);
    }

    fn is_small_data(self) -> bool {
        self.kind == 0 && (1..SMALL_DATA).contains(&self.length)
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it costs, measured by the work that it makes.
    fn cost(self) -> u32 {
        match self.kind {
            // DATA without anything
            0 if self.length == 0 && !self.has(END_STREAM) => 10,
            // DATA and HEADERS, and what has an account of its own
            0 | 1 | RST_STREAM => 0,
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
#[derive(Clone, Copy, Default)]
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

    /// Where in bytes that continue them the first frame begins.
    fn first_frame(&self, bytes: &[u8]) -> Option<usize> {
        if self.begun == 0 {
            return Some(self.left);
        }
        let (mut head, rest) = (self.head, bytes.get(..HEAD - self.begun)?);
        head.iter_mut().skip(self.begun).zip(rest).for_each(|(place, byte)| *place = *byte);
        Some(rest.len() + Frame::read(head).length)
    }

    fn is_between_frames(&self) -> bool {
        self.begun == 0 && self.left == 0
    }
}

/// Makes one frame of small frames of a body that stand behind each other, from the first frame of `bytes` on. Returns
/// how many bytes are left.
///
/// A part that waits costs the codec as much as 256 bytes of it would, so it takes some thousands of them for an attack
/// (`too_many_data_frames`); calls are made of such parts, and the server may be slower than the client for a moment.
fn gather(bytes: &mut [u8], first: usize) -> usize {
    let (mut from, mut to) = (first, first);
    // The last frame that was kept, and where it is.
    let mut open: Option<(Frame, usize)> = None;
    while let Some(head) = bytes.get(from..).and_then(<[u8]>::first_chunk::<HEAD>) {
        let frame = Frame::read(*head);
        let end = from + HEAD + frame.length;
        if end > bytes.len() {
            break;
        }
        let small = frame.is_small_data() && frame.flags & !END_STREAM == 0;
        match &mut open {
            Some((run, at))
                if small
                    && frame.stream == run.stream
                    && run.length + frame.length <= MAX_FRAME =>
            {
                bytes.copy_within(from + HEAD..end, to);
                to += frame.length;
                run.length += frame.length;
                run.flags |= frame.flags;
                if let Some(head) = bytes.get_mut(*at..).and_then(<[u8]>::first_chunk_mut) {
                    run.write(head);
                }
            }
            _ => {
                open = small.then_some((frame, to));
                bytes.copy_within(from..end, to);
                to += end - from;
            }
        }
        // Nothing belongs behind the end of a body.
        open = open.filter(|(run, _)| !run.has(END_STREAM));
        from = end;
    }
    bytes.copy_within(from.., to);
    to + bytes.len() - from
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
    /// Small parts of bodies that came last.
    small: usize,
    /// Whether a header block is open, and whether a part of one is what came last.
    block: bool,
    part: bool,
    /// Since when a header block is coming in, where that counts.
    head_since: Option<Instant>,
    times_heads: bool,
    last_stream: u32,
    spent: Option<Limit>,
}

impl Ledger {
    pub(super) fn new(limits: &Limits, conversation: &Arc<Conversation>) -> Self {
        let entry_point = &conversation.door.entry_point;
        let streams = entry_point.http2_max_concurrent_streams;
        // Whoever speaks for others brings what all of them do, and ends with all of them.
        let counts = !entry_point.trusted.names(conversation.connection.peer_ip);
        let resets = limits.resets.filter(|_| counts);
        let resets = resets.map(|allowance| Allowance {
            burst: allowance.burst.max(streams.saturating_mul(2)),
            ..allowance
        });
        Self {
            conversation: Arc::clone(conversation),
            incoming: Walk { left: PREFACE, ..Walk::default() },
            outgoing: Walk::default(),
            free: true,
            frames: limits.frames.filter(|_| counts).map(Bucket::new),
            resets: resets.map(Bucket::new),
            delivered: 0,
            paid: 0,
            bombs: 0,
            turn: 0,
            turn_heads: 0,
            small: 0,
            block: false,
            part: false,
            head_since: None,
            times_heads: limits.head.is_some(),
            last_stream: 0,
            spent: None,
        }
    }

    /// Takes account of what the client has sent, and puts its small parts together. Returns how many bytes are left;
    /// `None` when it was too much.
    #[inline]
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let before = self.incoming;
        self.small = 0;
        if !self.arrived(bytes) {
            return None;
        }
        let first = if self.small > 1 { before.first_frame(bytes) } else { None };
        Some(first.map_or(bytes.len(), |first| gather(bytes, first)))
    }

    /// Takes account of what the client has sent. `false` when it was too much.
    #[inline]
    fn arrived(&mut self, bytes: &[u8]) -> bool {
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.follow(bytes, |frame| self.charge(frame));
        self.incoming = incoming;
        if self.times_heads {
            if self.block || (self.part && self.incoming.left > 0) {
                self.head_since.get_or_insert_with(Instant::now);
            } else {
                self.head_since = None;
            }
        }
        self.spent.is_none()
    }

    /// Since when a header block is coming in, where that counts.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// The head that is coming in has its time again: it could not be read for a while.
    pub(super) fn restart_head(&mut self) {
        self.head_since = self.head_since.map(|_| Instant::now());
    }

    fn charge(&mut self, frame: Frame) {
        self.part = matches!(frame.kind, 1 | 9);
        if self.part {
            self.block = !frame.has(END_HEADERS);
            if frame.kind == 1 {
                self.head_since = None;
            }
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
        } else if frame.is_small_data() {
            self.turn += 1;
            self.small += 1;
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
        self.conversation.delivered.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether this turn has brought enough.
    pub(super) fn has_enough(&self) -> bool {
        self.turn >= TURN || self.turn_heads >= TURN_HEADS
    }

    /// The turn is over.
    pub(super) fn next_turn(&mut self) {
        (self.turn, self.turn_heads) = (0, 0);
    }

    /// The client has come to this limit.
    pub(super) fn spend(&mut self, limit: Limit) {
        self.spent = Some(limit);
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

    /// Whatever frames there are and however they are cut up, what they say stays the same, and small parts of one body
    /// become few.
    #[tokio::test(start_paused = true)]
    async fn small_parts_of_a_body_are_put_together() {
        let part = |stream, flags, text: &str| {
            let mut frame = frame(text.len(), 0, flags, stream);
            frame.splice(HEAD.., text.bytes());
            frame
        };
        let mut bytes = Vec::new();
        for at in 0..3000_u32 {
            bytes.extend(part(1, 0, &format!("{at},")));
            match at % 700 {
                100 => bytes.extend(frame(300, 0, 0, 1)),
                200 => bytes.extend(frame(8, 6, 0, 0)),
                300 => bytes.extend(part(3, 0, "other")),
                400 => bytes.extend(part(1, 0x8, "\x01padded.")),
                500 => bytes.extend(frame(0, 0, 0, 1)),
                600 => {
                    bytes.extend([part(5, 0, "en"), part(5, 1, "d"), part(5, 0, "late")].concat());
                }
                _ => {}
            }
        }
        // What is said, in its order: bodies of each stream byte by byte, everything else as it is.
        let said = |bytes: &[u8]| {
            let (mut said, mut rest, mut frames) = (Vec::new(), bytes, 0);
            while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
                let frame = Frame::read(*head);
                let (payload, behind) = behind.split_at(frame.length);
                if frame.kind == 0 && !frame.has(0x8) && frame.length > 0 {
                    said.extend(payload.iter().map(|byte| (0, 0, frame.stream, vec![*byte])));
                    if frame.has(END_STREAM) {
                        said.push((0, END_STREAM, frame.stream, Vec::new()));
                    }
                } else {
                    said.push((frame.kind, frame.flags, frame.stream, payload.to_vec()));
                }
                (rest, frames) = (behind, frames + 1);
            }
            assert!(rest.is_empty());
            (said, frames)
        };
        for cut in [7, 10, 100, 1000, 8192, bytes.len()] {
            let mut ledger = opened(1000, 10);
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                let mut piece = piece.to_vec();
                let left = ledger.take(&mut piece).unwrap();
                got.extend_from_slice(&piece[..left]);
            }
            let ((want, all), (got, frames)) = (said(&bytes), said(&got));
            assert!(want == got, "{cut}");
            assert!(frames <= all.min(3 * bytes.len() / cut + 60), "{cut}: {frames} of {all}");
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
            frame(1, 0, 0, 1),
            frame(100, 0, 0x8, 1),
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
        ledger.next_turn();
        assert!(ledger.arrived(&frame(7, 0, 0, 1).repeat(250)) && ledger.has_enough());
    }
    #[tokio::test(start_paused = true)]
    async fn who_speaks_for_others_has_no_account() {
        let limits = Limits {
            frames: Some(Allowance { burst: 1, per_second: 0 }),
            resets: Some(Allowance { burst: 1, per_second: 0 }),
            ..Limits::default()
        };
        let flood = [frame(4, 3, 0, 1), frame(8, 6, 0, 0)].concat().repeat(1000);
        for (everybody, ranges, spared) in [
            (false, "192.0.2.0/24", true),
            (false, "198.51.100.0/24", false),
            (true, "::/0", false),
        ] {
            let ranges = [ranges.parse().unwrap()];
            let door = door_with(|entry_point| {
                entry_point.trusted =
                    crate::exchange::forwarded::TrustedSources::new(everybody, &ranges);
            });
            let conversation = Conversation::new(&door, connection(&door), None, None, 0);
            let mut ledger = Ledger::new(&limits, &conversation);
            assert!(ledger.arrived(&[b'x'; PREFACE]));
            assert_eq!(ledger.arrived(&flood), spared, "{everybody} {ranges:?}");
            assert!(ledger.has_enough(), "turns are for everybody");
        }
    }

    /// G-35: the time of a head begins with its first byte, and only a head that is not whole has one.
    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_head_is_taken() {
        let door = door_with(|_| {});
        let conversation = Conversation::new(&door, connection(&door), None, None, 0);
        let limits = Limits { head: Some(Duration::from_secs(10)), ..Limits::default() };
        let mut ledger = Ledger::new(&limits, &conversation);
        let start = Instant::now();
        let mut says = |bytes: &[u8]| {
            assert!(ledger.arrived(bytes));
            ledger.head_since().map(|since| (since - start).as_secs())
        };
        assert_eq!(says(&[b'x'; PREFACE]), None);
        let whole = frame(100, 1, 4, 1);
        assert_eq!(says(&whole), None);
        let second = Duration::from_secs(1);
        tokio::time::advance(second).await;
        assert_eq!(says(&whole[..50]), Some(1), "a part of a frame");
        tokio::time::advance(second).await;
        assert_eq!(says(&whole[50..80]), Some(1));
        // Its end, and the beginning of another one.
        assert_eq!(says(&[&whole[80..], &whole[..20]].concat()), Some(2));
        assert_eq!(says(&whole[20..]), None);
        tokio::time::advance(second).await;
        assert_eq!(says(&frame(100, 1, 0, 3)), Some(3), "a frame, and more to come");
        tokio::time::advance(second).await;
        assert_eq!(says(&frame(2000, 9, 0, 3)), Some(3));
        assert_eq!(says(&frame(2000, 9, 4, 3)), None);
        assert_eq!(says(&frame(2000, 0, 0, 3)[..70]), None, "a body has its own time");
    }
}
