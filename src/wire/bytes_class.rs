//! Which bytes may stand where in an HTTP/1 message, as lookup tables and bulk scans.
//! The scans return the place of the first byte outside the class; every caller decides what that byte means.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;

const CLASS: [u8; 256] = build();

const fn build() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= TOKEN;
        }
        if b == b'\t' || (b >= 0x20 && b != 0x7f) {
            class |= VALUE;
        }
        // A `#` never belongs into a request target: what follows it would be read differently by different parsers.
        // `http::Uri` holds no angle brackets.
        if b > 0x20 && b < 0x7f && !matches!(b, b'#' | b'<' | b'>') {
            class |= TARGET;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

const fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

/// Whether the byte may stand in a token (RFC 9110 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Whether the byte may stand in a field value: no control character but the tab (RFC 9110 5.5).
pub(super) const fn is_value(byte: u8) -> bool {
    is(byte, VALUE)
}

/// Where the token at the start of `data` ends, `None` when `data` ends first.
pub(super) fn token_end(data: &[u8]) -> Option<usize> {
    data.iter().position(|&b| !is(b, TOKEN))
}

/// Where the request target at the start of `data` ends, `None` when `data` ends first.
pub(super) fn target_end(data: &[u8]) -> Option<usize> {
    data.iter().position(|&b| !is(b, TARGET))
}

/// Where the field value at the start of `data` ends, `None` when `data` ends first.
pub(super) fn value_end(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(eight) = data.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        if has_control(u64::from_le_bytes(*eight))
            && let Some(found) = eight.iter().position(|&b| !is(b, VALUE))
        {
            return Some(at + found);
        }
        at += 8;
    }
    let tail = data.get(at..).unwrap_or_default();
    tail.iter().position(|&b| !is(b, VALUE)).map(|found| at + found)
}

/// Whether one of the eight bytes is below 0x20 or 0x7f. May say yes for a byte next to such a one, never wrongly no.
const fn has_control(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    let without_del = word ^ (ONES * 0x7f);
    let del = without_del.wrapping_sub(ONES) & !without_del;
    (low | del) & HIGHS != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_scan_agrees_with_the_table_at_every_place() {
        for bad in 0..=255u8 {
            for at in 0..20 {
                let mut data = vec![b'a'; 20];
                data[at] = bad;
                let want = data.iter().position(|&b| !is_value(b));
                assert_eq!(value_end(&data), want, "byte {bad} at {at}");
            }
        }
        assert_eq!(value_end(b""), None);
        assert_eq!(value_end(&[0xff; 9]), None);
    }

    #[test]
    fn classes_are_those_of_the_rfc() {
        let tokens: Vec<u8> = (0..=255).filter(|&b| is_token(b)).collect();
        assert_eq!(tokens.len(), 26 * 2 + 10 + 15);
        assert!(!is_token(b'(') && !is_token(b' ') && !is_token(b':') && !is_token(0x80));
        assert_eq!(target_end(b"/a?b=%20#c"), Some(8));
        assert_eq!(target_end(b"/a\x7f"), Some(2));
    }
}
