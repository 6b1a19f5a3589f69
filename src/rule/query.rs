//! Query strings read as Go's `url.ParseQuery` reads them, one value at a time.
//!
//! Nothing is decoded before its key is known to be the wanted one, and comparing needs no copy.

use std::borrow::Cow;

/// The values of one key in a raw query, in order. A pair with a semicolon or a broken percent
/// escape is as if it were not there.
pub(super) fn values<'q>(query: Option<&'q str>, key: &'q str) -> impl Iterator<Item = Value<'q>> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(move |(name, _)| Value(name).equals(key))
        .map(|(_, value)| Value(value))
}

/// A value as it stands in the query, still encoded.
#[derive(Clone, Copy)]
pub(super) struct Value<'q>(&'q str);

impl<'q> Value<'q> {
    /// Whether the decoded value is this text.
    pub(super) fn equals(self, text: &str) -> bool {
        let mut wanted = text.bytes();
        for byte in self.bytes() {
            if byte.is_none() || byte != wanted.next() {
                return false;
            }
        }
        wanted.next().is_none()
    }

    /// The decoded bytes; `None` if an escape is broken.
    pub(super) fn decode(self) -> Option<Cow<'q, [u8]>> {
        if self.0.bytes().any(|b| matches!(b, b'%' | b'+')) {
            self.bytes().collect::<Option<Vec<u8>>>().map(Cow::Owned)
        } else {
            Some(self.0.as_bytes().into())
        }
    }

    /// The decoded bytes one by one; a broken escape is `None`.
    fn bytes(self) -> impl Iterator<Item = Option<u8>> {
        let mut raw = self.0.bytes();
        std::iter::from_fn(move || {
            Some(match raw.next()? {
                b'+' => Some(b' '),
                b'%' => hex(raw.next()).zip(hex(raw.next())).map(|(high, low)| high << 4 | low),
                byte => Some(byte),
            })
        })
    }
}

fn hex(digit: Option<u8>) -> Option<u8> {
    char::from(digit?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::values;

    fn decoded(query: &str, key: &str) -> Vec<String> {
        values(Some(query), key)
            .filter_map(super::Value::decode)
            .map(|value| String::from_utf8_lossy(&value).into_owned())
            .collect()
    }

    #[test]
    fn reads_like_go() {
        assert_eq!(decoded("a=1&b=2&a=3", "a"), ["1", "3"]);
        assert_eq!(decoded("a", "a"), [""]);
        assert_eq!(decoded("a=&a==b=c", "a"), ["", "=b=c"]);
        assert_eq!(decoded("a=x+y%20z%2b", "a"), ["x y z+"]);
        assert_eq!(decoded("%61+b=1", "a b"), ["1"]);
        assert_eq!(decoded("A=1", "a"), Vec::<String>::new());
        assert_eq!(
            decoded("=1&&", ""),
            ["1"],
            "an empty key has a value if there is an equals sign"
        );
        assert_eq!(values(None, "a").count(), 0);
    }

    #[test]
    fn drops_pairs_that_go_drops() {
        assert_eq!(decoded("a=1;b=2&a=3", "a"), ["3"]);
        assert_eq!(decoded("a=%zz&a=%4&a=%&a=ok", "a"), ["ok"]);
        assert_eq!(decoded("%zz=1&a=2", "a"), ["2"]);
        assert!(!values(Some("a=x%zz"), "a").any(|value| value.equals("x")));
    }

    #[test]
    fn comparing_sees_the_decoded_value() {
        let any = |query, wanted| values(Some(query), "k").any(|value| value.equals(wanted));
        assert!(any("k=a%20b", "a b") && any("k=%E2%82%AC", "€") && any("k=1&k=2", "2"));
        assert!(!any("k=abc", "ab") && !any("k=ab", "abc") && !any("k=a%20b", "a%20b"));
    }
}
