//! The two messages that a lookup takes (RFC 1035, 4.1): a question for a `CNAME`, and its answer.
//!
//! What comes back may be anything: it is read with bounds, and only what answers the question counts.

const CNAME: u16 = 5;
const INTERNET: u16 = 1;
const HEADER: usize = 12;
/// The longest name, and the most labels and pointers that one is put together of.
const MAX_NAME: usize = 253;
const MAX_STEPS: usize = 128;

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name is an alias, for so many seconds.
    Alias {
        /// The name that it stands for, in lower case.
        of: String,
        /// How long that is so, in seconds.
        ttl: u32,
    },
    /// It is none, or does not exist.
    NoAlias,
    /// The server does not know (`SERVFAIL`, `REFUSED` and so on).
    Failed,
}

/// The question; `None` for what is no name.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend_from_slice(&id.to_be_bytes());
    // Recursion is wanted, and there is one question.
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&CNAME.to_be_bytes());
    message.extend_from_slice(&INTERNET.to_be_bytes());
    Some(message)
}

/// Reads the answer to a question; `None` for what is no answer to it.
pub fn read(message: &[u8], id: u16, name: &str) -> Option<Answer> {
    let flags = message.get(2..4)?;
    // An answer, to an ordinary query.
    if number(message, 0)? != id || flags.first()? & 0xf8 != 0x80 || number(message, 4)? != 1 {
        return None;
    }
    let (asked, mut at) = read_name(message, HEADER)?;
    if asked != name || number(message, at)? != CNAME || number(message, at + 2)? != INTERNET {
        return None;
    }
    at += 4;
    match flags.get(1)? & 0x0f {
        0 => {}
        // The name does not exist.
        3 => return Some(Answer::NoAlias),
        _ => return Some(Answer::Failed),
    }
    for _ in 0..number(message, 6)? {
        // An answer that breaks off is as good as none.
        let Some((record, behind)) = read_record(message, at, name) else { break };
        if let Some(alias) = record {
            return Some(alias);
        }
        at = behind;
    }
    // Cut off (TC): whatever was in it is not here.
    if flags.first()? & 0x02 != 0 {
        return Some(Answer::Failed);
    }
    Some(Answer::NoAlias)
}

/// The record at `at`, if it is the alias of `name`, and where the next one is.
fn read_record(message: &[u8], at: usize, name: &str) -> Option<(Option<Answer>, usize)> {
    let (owner, at) = read_name(message, at)?;
    let (kind, class) = (number(message, at)?, number(message, at + 2)?);
    let ttl = message.get(at + 4..at + 8)?.try_into().ok().map(u32::from_be_bytes)?;
    let data = at + 10;
    let behind = data + usize::from(number(message, at + 8)?);
    message.get(data..behind)?;
    if (kind, class) != (CNAME, INTERNET) || owner != name {
        return Some((None, behind));
    }
    let (of, _) = read_name(message, data)?;
    // RFC 2181, 8: what looks negative is nothing.
    let ttl = if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl };
    Some((Some(Answer::Alias { of, ttl }), behind))
}

/// The name at `at` in lower case, and what is behind it. Only names of hosts are read.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut behind = None;
    for _ in 0..MAX_STEPS {
        let length = *message.get(at)?;
        match length {
            0 => return Some((name, behind.unwrap_or(at + 1))),
            1..64 => {
                let end = at + 1 + usize::from(length);
                let label = message.get(at + 1..end)?;
                let usable = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
                if !label.iter().all(usable) || name.len() + label.len() >= MAX_NAME {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                at = end;
            }
            // A pointer to the rest.
            192.. => {
                behind = behind.or(Some(at + 2));
                at = usize::from(number(message, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
    None
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The name that a question asks for.
    pub(in crate::entry_point::cname) fn asked_name(question: &[u8]) -> String {
        read_name(question, HEADER).unwrap().0
    }

    /// The reply to a question, with records for the name that was asked for.
    pub(in crate::entry_point::cname) fn reply(
        question: &[u8],
        code: u8,
        records: &[u8],
    ) -> Vec<u8> {
        let mut reply = [question, records].concat();
        reply[2] = 0x81;
        reply[3] = 0x80 | code;
        reply[7] = u8::from(!records.is_empty());
        reply
    }

    /// A record whose owner is the name that was asked for.
    pub(in crate::entry_point::cname) fn cname(of: &str, ttl: u32) -> Vec<u8> {
        let name = question(0, of).unwrap();
        let name = &name[HEADER..name.len() - 4];
        let mut record = vec![0xc0, 12, 0, 5, 0, 1];
        record.extend_from_slice(&ttl.to_be_bytes());
        record.extend_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
        record.extend_from_slice(name);
        record
    }

    fn alias(of: &str, ttl: u32) -> Answer {
        Answer::Alias { of: of.to_owned(), ttl }
    }

    #[test]
    fn answers() {
        let asked = question(7, "www.a.test").unwrap();
        assert_eq!(
            asked,
            b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x01a\x04test\x00\x00\x05\x00\x01"
        );
        let read = |message: &[u8]| read(message, 7, "www.a.test");
        assert_eq!(read(&reply(&asked, 0, &cname("B.Test", 60))), Some(alias("b.test", 60)));
        assert_eq!(read(&reply(&asked, 0, &cname("b.test", u32::MAX))), Some(alias("b.test", 0)));
        assert_eq!(read(&reply(&asked, 0, &[])), Some(Answer::NoAlias));
        assert_eq!(read(&reply(&asked, 3, &[])), Some(Answer::NoAlias));
        assert_eq!(read(&reply(&asked, 2, &[])), Some(Answer::Failed));
        // `b`, and a pointer to `a.test` in the question.
        let mut short = reply(&asked, 0, &cname("b", 60));
        let end = short.len();
        short.splice(end - 3.., [1, b'b', 0xc0, 16]);
        short[end - 4] = 4;
        assert_eq!(read(&short), Some(alias("b.a.test", 60)));
        // Cut off: only what is in it is known.
        let cut = |mut message: Vec<u8>| {
            message[2] |= 0x02;
            message
        };
        assert_eq!(read(&cut(reply(&asked, 0, &[]))), Some(Answer::Failed));
        assert_eq!(read(&cut(reply(&asked, 0, &cname("b.test", 60)))), Some(alias("b.test", 60)));
        // Another record stands before it.
        let mut address = vec![0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1];
        address.extend(cname("b.test", 60));
        let mut second = reply(&asked, 0, &address);
        second[7] = 2;
        assert_eq!(read(&second), Some(alias("b.test", 60)));
    }

    /// T-12
    #[test]
    fn what_does_not_answer_the_question_counts_for_nothing() {
        let asked = question(7, "www.a.test").unwrap();
        let good = reply(&asked, 0, &cname("b.test", 60));
        assert_eq!(read(&good, 8, "www.a.test"), None);
        assert_eq!(read(&good, 7, "www.b.test"), None);
        assert_eq!(read(&asked, 7, "www.a.test"), None);
        assert_eq!(
            read(&reply(&asked, 0, &cname("b c.test", 60)), 7, "www.a.test"),
            Some(Answer::NoAlias)
        );
        // A name that points at itself.
        let mut endless = good.clone();
        let at = asked.len();
        endless.truncate(at);
        endless.extend_from_slice(&[0xc0, u8::try_from(at).unwrap(), 0, 5]);
        assert_eq!(read(&endless, 7, "www.a.test"), Some(Answer::NoAlias));
        for length in 0..asked.len() {
            assert_eq!(read(&good[..length], 7, "www.a.test"), None, "{length}");
        }
        for no_name in ["", "a..b", &"a".repeat(64)] {
            assert_eq!(question(7, no_name), None, "{no_name}");
        }
    }

    proptest! {
        /// T-12
        #[test]
        fn whatever_comes_is_read_without_a_panic(
            tail in prop::collection::vec(any::<u8>(), 0..80),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let asked = question(7, "www.a.test").unwrap();
            let mut message = reply(&asked, 0, &tail);
            let at = at.index(message.len());
            message[at] = byte;
            let _ = read(&message, 7, "www.a.test");
            let _ = read(&tail, 7, "www.a.test");
        }
    }
}
