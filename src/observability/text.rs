//! Text for log lines: escaping that keeps one record one line, and times.
//!
//! Whatever a client sends, what is written here holds no control character, is valid UTF-8, and
//! is at most as long as the caller allows.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// What is written at the end of a text that was cut.
pub(super) const CUT: &str = "[cut]";

/// How a text is escaped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Inside the quotes of a JSON string.
    Json,
    /// A field of a Common Log Format line: `\"`, `\\` and `\xhh`.
    Clf,
    /// Free text on a terminal: control characters only.
    Message,
}

/// Bytes that no style escapes.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x20_usize;
    while byte < 0x7f {
        table[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    table
};

/// Appends `value`, escaped, as at most `limit` bytes and `CUT`.
pub(super) fn escaped(out: &mut Vec<u8>, value: &[u8], style: Style, limit: usize) {
    let end = out.len().saturating_add(limit);
    for chunk in value.utf8_chunks() {
        let mut rest = chunk.valid();
        while !rest.is_empty() {
            let plain = rest.bytes().position(|byte| !PLAIN[usize::from(byte)]);
            let (run, tail) = rest.split_at(plain.unwrap_or(rest.len()));
            let room = end.saturating_sub(out.len());
            if run.len() > room {
                // The run is ASCII: every place in it is a boundary.
                out.extend_from_slice(run.as_bytes().get(..room).unwrap_or_default());
                out.extend_from_slice(CUT.as_bytes());
                return;
            }
            out.extend_from_slice(run.as_bytes());
            let mut chars = tail.chars();
            if let Some(character) = chars.next()
                && !special(out, character, style, end)
            {
                return;
            }
            rest = chars.as_str();
        }
        for &byte in chunk.invalid() {
            if out.len() + 4 > end {
                out.extend_from_slice(CUT.as_bytes());
                return;
            }
            match style {
                Style::Clf => hex_byte(out, byte),
                Style::Json | Style::Message => out.extend_from_slice("\u{fffd}".as_bytes()),
            }
        }
    }
}

/// Appends a character that may need an escape; false when there is no room for it.
fn special(out: &mut Vec<u8>, character: char, style: Style, end: usize) -> bool {
    if out.len() + 8 > end {
        out.extend_from_slice(CUT.as_bytes());
        return false;
    }
    match character {
        '"' | '\\' if style == Style::Message => out.push(character as u8),
        '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // C1 controls move a terminal's cursor as C0 ones do; the separators end lines in some
        // viewers, and the overrides turn what follows around.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => match style {
            Style::Clf => {
                let mut utf8 = [0; 4];
                for byte in character.encode_utf8(&mut utf8).bytes() {
                    hex_byte(out, byte);
                }
            }
            Style::Json | Style::Message => hex_char(out, character),
        },
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            hex_char(out, character);
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
    true
}

const HEX: [u8; 16] = *b"0123456789abcdef";

fn digit(value: u32) -> u8 {
    HEX[(value & 15) as usize]
}

fn hex_byte(out: &mut Vec<u8>, byte: u8) {
    let byte = u32::from(byte);
    out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
}

fn hex_char(out: &mut Vec<u8>, character: char) {
    let code = u32::from(character);
    let digits = [digit(code >> 12), digit(code >> 8), digit(code >> 4), digit(code)];
    out.extend_from_slice(b"\\u");
    out.extend_from_slice(&digits);
}

/// Appends an integer.
pub(super) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A moment in a time zone, ready to be written.
pub(super) struct Moment {
    civil: DateTime,
    offset: i32,
}

impl Moment {
    /// `time` in UTC.
    pub(super) fn utc(time: SystemTime) -> Self {
        let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { civil: Offset::UTC.to_datetime(time), offset: 0 }
    }

    /// `time` in `zone`.
    pub(super) fn local(time: SystemTime, zone: &TimeZone) -> Self {
        let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
        let offset = zone.to_offset(time);
        Self { civil: offset.to_datetime(time), offset: offset.seconds() }
    }

    /// RFC 3339 to the second.
    pub(super) fn rfc3339(&self, out: &mut Vec<u8>) {
        self.date_time(out);
        self.zone(out);
    }

    /// RFC 3339 with as much of the second as there is.
    pub(super) fn rfc3339_nano(&self, out: &mut Vec<u8>) {
        self.date_time(out);
        let nanos = self.civil.subsec_nanosecond();
        if nanos > 0 {
            out.push(b'.');
            let mut place = 100_000_000;
            let mut rest = nanos;
            while rest > 0 {
                out.push(decimal(rest / place));
                rest %= place;
                place /= 10;
            }
        }
        self.zone(out);
    }

    /// `02/Jan/2006:15:04:05 -0700`.
    pub(super) fn clf(&self, out: &mut Vec<u8>) {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        two(out, self.civil.day().into());
        out.push(b'/');
        let month = usize::try_from(self.civil.month() - 1).unwrap_or_default();
        out.extend_from_slice(MONTHS.get(month).copied().unwrap_or("???").as_bytes());
        out.push(b'/');
        four(out, self.civil.year().into());
        out.push(b':');
        self.clock(out);
        out.push(b' ');
        self.sign_and_hours(out);
        two(out, self.offset.abs() / 60 % 60);
    }

    fn date_time(&self, out: &mut Vec<u8>) {
        four(out, self.civil.year().into());
        out.push(b'-');
        two(out, self.civil.month().into());
        out.push(b'-');
        two(out, self.civil.day().into());
        out.push(b'T');
        self.clock(out);
    }

    fn clock(&self, out: &mut Vec<u8>) {
        two(out, self.civil.hour().into());
        out.push(b':');
        two(out, self.civil.minute().into());
        out.push(b':');
        two(out, self.civil.second().into());
    }

    fn zone(&self, out: &mut Vec<u8>) {
        if self.offset == 0 {
            out.push(b'Z');
            return;
        }
        self.sign_and_hours(out);
        out.push(b':');
        two(out, self.offset.abs() / 60 % 60);
    }

    fn sign_and_hours(&self, out: &mut Vec<u8>) {
        out.push(if self.offset < 0 { b'-' } else { b'+' });
        two(out, self.offset.abs() / 3600);
    }
}

fn decimal(value: i32) -> u8 {
    HEX[value.rem_euclid(10).unsigned_abs() as usize]
}

fn two(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&[decimal(value / 10), decimal(value)]);
}

fn four(out: &mut Vec<u8>, value: i32) {
    two(out, value / 100);
    two(out, value % 100);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(value: &[u8], style: Style, limit: usize) -> String {
        let mut out = Vec::new();
        escaped(&mut out, value, style, limit);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn controls_quotes_and_bad_bytes_are_escaped() {
        let hostile = b"a\"b\\c\r\n\x1b[31m\x7f\xff\xc2\x9b\xc3\xa9";
        assert_eq!(
            text(hostile, Style::Clf, 100),
            "a\\\"b\\\\c\\r\\n\\x1b[31m\\x7f\\xff\\xc2\\x9b\u{e9}"
        );
        let json = format!("\"{}\"", text(hostile, Style::Json, 100));
        let parsed: String = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed, "a\"b\\c\r\n\x1b[31m\x7f\u{fffd}\u{9b}\u{e9}");
        assert!(json.bytes().all(|byte| byte >= 0x20));
        assert_eq!(text(b"say \"hi\"\n", Style::Message, 100), "say \"hi\"\\n");
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        assert_eq!(text(&[b'x'; 50], Style::Json, 10), format!("{}[cut]", "x".repeat(10)));
        for limit in 0..40 {
            let cut = text("\n\u{e9}\u{1f600}\u{7}".repeat(20).as_bytes(), Style::Json, limit);
            assert!(cut.len() <= limit + CUT.len());
            serde_json::from_str::<String>(&format!("\"{cut}\"")).unwrap();
        }
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_460_556_859, 120_000_000);
        let zone = TimeZone::fixed(Offset::from_seconds(-7 * 3600).unwrap());
        let write = |f: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            f(&mut out);
            String::from_utf8(out).unwrap()
        };
        let utc = Moment::utc(time);
        let local = Moment::local(time, &zone);
        assert_eq!(write(&|out| utc.rfc3339_nano(out)), "2016-04-13T14:14:19.12Z");
        assert_eq!(write(&|out| utc.rfc3339(out)), "2016-04-13T14:14:19Z");
        assert_eq!(write(&|out| local.rfc3339(out)), "2016-04-13T07:14:19-07:00");
        assert_eq!(write(&|out| local.clf(out)), "13/Apr/2016:07:14:19 -0700");
        assert_eq!(write(&|out| utc.clf(out)), "13/Apr/2016:14:14:19 +0000");
    }
}
