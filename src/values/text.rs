//! Texts of bytes, written once: hexadecimal, the escapes of URLs, whole seconds. None of them guesses.

use std::fmt::Write as _;
use std::time::Duration;

/// Bytes in hexadecimal, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A text with its `%xx` read (RFC 3986, 2.1); `None` where an escape is broken, and when that is no UTF-8.
pub fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(if first == b'%' {
            let (digits, behind) = behind.split_at_checked(2)?;
            rest = behind;
            let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
            u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
        } else {
            first
        });
    }
    String::from_utf8(bytes).ok()
}

/// Seconds, rounded up, as `Retry-After` has them.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_seconds_as_texts() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
        for (text, want) in [
            ("a%40b+c", Some("a@b+c")),
            ("%C3%A9", Some("é")),
            ("%", None),
            ("%4", None),
            ("%+4", None),
            ("%zz", None),
            ("%ff", None),
        ] {
            assert_eq!(unescaped(text).as_deref(), want, "{text}");
        }
        let seconds = |nanos| whole_seconds(Duration::from_nanos(nanos));
        assert_eq!([0, 1, 1_000_000_000, 1_000_000_001].map(seconds), [0, 1, 1, 2]);
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }
}
