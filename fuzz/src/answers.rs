//! `answers`: the two binary answers that are read by hand. With an even first byte a name server's (two bytes are the
//! number of the question, a line its name), with an odd one a server's to a gRPC health check.

use doorward::entry_point::cname::dns::{Answer, question, read};
use doorward::service::health::grpc::serving_status;

/// Reads one answer.
pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((&kind, [high, low, rest @ ..])) if kind & 1 == 0 => {
            let mut parts = rest.splitn(2, |&byte| byte == b'\n');
            let Ok(name) = str::from_utf8(parts.next().unwrap_or_default()) else { return };
            look_up(u16::from_be_bytes([*high, *low]), name, parts.next().unwrap_or_default());
        }
        Some((_, frame)) => health(frame),
        None => {}
    }
}

/// What stands behind the question in `records` is an answer's rest; without a question it is a whole answer.
fn look_up(id: u16, name: &str, records: &[u8]) {
    look_at(read(records, id, name), id);
    let Some(asked) = question(id, name) else { return };
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
    let is_name = name.len() <= 253 && name.bytes().all(plain);
    let mut reply = asked.clone();
    if let Some(flags) = reply.get_mut(2..4) {
        flags.copy_from_slice(&[0x81, 0x80]);
    }
    assert_eq!(read(&reply, id, name), is_name.then_some(Answer::NoAlias), "{name:?}");
    assert_eq!(read(&reply, !id, name), None, "the answer to another question");
    // The numbers of records come first, so that a short input has some.
    for (at, byte) in [(6, 0), (7, 9)] {
        if let Some(count) = reply.get_mut(at) {
            *count = byte;
        }
    }
    reply.extend_from_slice(records);
    look_at(read(&reply, id, name), id);
    assert_eq!(read(&asked, id, name), None, "a question is no answer");
}

fn look_at(answer: Option<Answer>, id: u16) {
    let Some(Answer::Alias { of, ttl }) = answer else { return };
    assert!(ttl <= i32::MAX.unsigned_abs(), "{ttl}");
    assert!(of.len() <= 253, "{of:?}");
    assert_eq!(of, of.to_ascii_lowercase());
    if !of.is_empty() {
        assert!(question(id, &of).is_some(), "{of:?} is no name");
    }
}

fn health(frame: &[u8]) {
    if serving_status(frame).is_some() {
        assert_eq!(serving_status(&[frame, &[0]].concat()), None, "longer than it says");
    }
    // The same bytes as instructions for a message that is right.
    let mut message = Vec::new();
    let mut status = 0;
    for pair in frame.chunks_exact(2).take(64) {
        let [kind, value] = *pair else { return };
        let field = kind >> 3 & 15;
        match kind & 7 {
            0 => {
                message.extend_from_slice(&[field << 3, value | 0x80, 1]);
                if field == 1 {
                    status = 0x80 | u64::from(value & 0x7f);
                }
            }
            1 => message.extend_from_slice(&[field << 3 | 1, value, 0, 0, 0, 0, 0, 0, value]),
            2 => {
                message.extend_from_slice(&[field << 3 | 2, value & 15]);
                message.resize(message.len() + usize::from(value & 15), value);
            }
            _ => message.extend_from_slice(&[field << 3 | 5, value, 8, 1, value]),
        }
    }
    let size = u32::try_from(message.len()).unwrap_or_default();
    let whole = [&[0], &size.to_be_bytes()[..], &message].concat();
    assert_eq!(serving_status(&whole), Some(status), "{message:?}");
}
