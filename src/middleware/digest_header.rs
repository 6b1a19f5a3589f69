//! What an `Authorization: Digest …` header says (RFC 7616, 3.4).
//!
//! A header that two readers could understand differently is none: a parameter given twice, text
//! behind a quoted value, a quote that does not end.

use std::borrow::Cow;

use crate::wire::is_token;

/// A value without its quotes and the backslashes in it.
type Value<'a> = Cow<'a, [u8]>;

/// The parameters that a check needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DigestHeader<'a> {
    pub(super) username: Option<Value<'a>>,
    pub(super) nonce: Option<Value<'a>>,
    pub(super) uri: Option<Value<'a>>,
    pub(super) response: Option<Value<'a>>,
    pub(super) algorithm: Option<Value<'a>>,
    pub(super) opaque: Option<Value<'a>>,
    pub(super) qop: Option<Value<'a>>,
    pub(super) nc: Option<Value<'a>>,
    pub(super) cnonce: Option<Value<'a>>,
}

impl<'a> DigestHeader<'a> {
    /// Reads a header's value.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let (scheme, mut rest) = value.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"digest ") {
            return None;
        }
        let mut header = Self::default();
        loop {
            rest = rest.trim_ascii_start();
            match rest {
                [] => return Some(header),
                // Lists may have empty elements (RFC 9110, 5.6.1).
                [b',', behind @ ..] => {
                    rest = behind;
                    continue;
                }
                _ => {}
            }
            let (name, behind) = rest.split_at(memchr::memchr(b'=', rest)?);
            let name = name.trim_ascii_end();
            if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
                return None;
            }
            let (value, behind) = read_value(behind.get(1..)?.trim_ascii_start())?;
            rest = behind.trim_ascii_start();
            if !matches!(rest, [] | [b',', ..]) {
                return None;
            }
            if let Some(slot) = header.slot(name)
                && slot.replace(value).is_some()
            {
                return None;
            }
        }
    }

    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Value<'a>>> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"username" => &mut self.username,
            b"nonce" => &mut self.nonce,
            b"uri" => &mut self.uri,
            b"response" => &mut self.response,
            b"algorithm" => &mut self.algorithm,
            b"opaque" => &mut self.opaque,
            b"qop" => &mut self.qop,
            b"nc" => &mut self.nc,
            b"cnonce" => &mut self.cnonce,
            _ => return None,
        })
    }
}

/// Reads a quoted string, or what stands before the next comma; returns what follows with it.
fn read_value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let (value, rest) = text.split_at(memchr::memchr(b',', text).unwrap_or(text.len()));
        let value = value.trim_ascii_end();
        return (!value.contains(&b'"')).then_some((Cow::Borrowed(value), rest));
    };
    let mut plain = Vec::new();
    let mut escaped = false;
    let mut at = 0;
    loop {
        match *quoted.get(at)? {
            b'"' => break,
            b'\\' => {
                if !escaped {
                    plain.extend_from_slice(quoted.get(..at)?);
                    escaped = true;
                }
                at += 1;
                plain.push(*quoted.get(at)?);
            }
            byte if escaped => plain.push(byte),
            _ => {}
        }
        at += 1;
    }
    let rest = quoted.get(at + 1..)?;
    let value = if escaped { Cow::Owned(plain) } else { Cow::Borrowed(quoted.get(..at)?) };
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn username(value: &str) -> Option<Vec<u8>> {
        let header = DigestHeader::parse(value.as_bytes())?;
        Some(header.username.unwrap_or_default().into_owned())
    }

    #[test]
    fn the_header_of_rfc_7616_is_read() {
        let text = "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                    uri=\"/dir/index.html\", algorithm=MD5, \
                    nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                    cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
                    response=\"8ca523f5e9506fed4657c9700eebdbec\", \
                    opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let header = DigestHeader::parse(text.as_bytes()).unwrap();
        let text = |value: Option<Value<'_>>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        assert_eq!(text(header.username), "Mufasa");
        assert_eq!(text(header.uri), "/dir/index.html");
        assert_eq!(text(header.nc), "00000001");
        assert_eq!(text(header.qop), "auth");
        assert_eq!(text(header.algorithm), "MD5");
        assert_eq!(text(header.response), "8ca523f5e9506fed4657c9700eebdbec");
    }

    #[test]
    fn spelling_is_free_and_structure_is_not() {
        for (text, want) in [
            ("digest USERNAME=a", Some("a")),
            ("DIGEST  username = \"a\" ,, nc=1,", Some("a")),
            ("Digest username=\"a,b=c\"", Some("a,b=c")),
            ("Digest username=\"a\\\"b\\\\c\\d\"", Some("a\"b\\cd")),
            ("Digest username=\"\"", Some("")),
            ("Digest ", Some("")),
            ("Digest username*=UTF-8''a, nc=1", Some("")),
            ("Digest username=a, username=b", None),
            ("Digest username=a, USERNAME=a", None),
            ("Digest username=\"a", None),
            ("Digest username=\"a\\", None),
            ("Digest username=\"a\\\"", None),
            ("Digest username=\"a\"b", None),
            ("Digest username=a\"b\"", None),
            ("Digest username", None),
            ("Digest =a", None),
            ("Digest user name=a", None),
            ("Digest", None),
            ("Basic username=a", None),
            ("", None),
        ] {
            assert_eq!(username(text).as_deref(), want.map(str::as_bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(
            name in proptest::collection::vec(any::<u8>(), 0..20),
            before in "([a-z]{1,5}=(\"[a-z,= ]{0,5}\"|[a-z]{1,5})[ ,]{0,2},){0,3}",
        ) {
            let mut text = format!("Digest {before} username=\"").into_bytes();
            for byte in &name {
                if matches!(byte, b'"' | b'\\') {
                    text.push(b'\\');
                }
                text.push(*byte);
            }
            text.extend_from_slice(b"\", nc=00000001");
            // A name of a parameter may be drawn twice.
            if let Some(header) = DigestHeader::parse(&text) {
                prop_assert_eq!(header.username.as_deref(), Some(&*name));
                prop_assert_eq!(header.nc.as_deref(), Some(&b"00000001"[..]));
            } else {
                prop_assert!(!before.is_empty());
            }
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..60), tail in "[a-z=\", \\\\]{0,30}") {
            let _ = DigestHeader::parse(&text);
            let _ = DigestHeader::parse(&[b"Digest ", tail.as_bytes()].concat());
        }
    }
}
