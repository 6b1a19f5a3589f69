//! The subject of a client's certificate as one text, as Go's `pkix.Name.String` writes it: RFC 2253, in an order
//! of its own. Whatever is unknown comes last, as a number with the value's encoding.

use std::borrow::Cow;
use std::fmt::Write as _;

use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::AttributeTypeAndValue;

/// The attributes that have a name, in the order in which they stand.
const KNOWN: [(&str, &str); 9] = [
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.3", "CN"),
    ("2.5.4.11", "OU"),
    ("2.5.4.10", "O"),
    ("2.5.4.17", "POSTALCODE"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.6", "C"),
];

/// The subject of a certificate; `None` when it cannot be read.
pub(super) fn of(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let attributes: Vec<(String, &AttributeTypeAndValue<'_>)> = certificate
        .subject()
        .iter_attributes()
        .map(|attribute| (attribute.attr_type().to_id_string(), attribute))
        .collect();
    let mut parts = Vec::new();
    for (number, name) in KNOWN {
        let values = attributes.iter().filter(|(known, _)| known == number);
        // Of these two Go keeps one value, the last.
        let values: Vec<_> = if matches!(name, "CN" | "SERIALNUMBER") {
            values.rev().take(1).collect()
        } else {
            values.collect()
        };
        let texts = values.iter().map(|(_, one)| format!("{name}={}", escaped(&text(one))));
        let texts: Vec<_> = texts.collect();
        if !texts.is_empty() {
            parts.push(texts.join("+"));
        }
    }
    let unknown =
        attributes.iter().rev().filter(|(known, _)| KNOWN.iter().all(|(one, _)| one != known));
    parts.extend(unknown.map(|(number, one)| format!("{number}=#{}", encoded(&text(one)))));
    Some(parts.join(","))
}

fn text<'a>(attribute: &'a AttributeTypeAndValue<'_>) -> Cow<'a, str> {
    let value = attribute.attr_value();
    if value.header.tag() == Tag::BmpString {
        let units = value.data.chunks_exact(2).map(|pair| match pair {
            [high, low] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        });
        return char::decode_utf16(units)
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect::<String>()
            .into();
    }
    String::from_utf8_lossy(value.data)
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (position, character) in value.chars().enumerate() {
        let special = match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            '#' => position == 0,
            ' ' => position == 0 || position == last,
            _ => false,
        };
        if special {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The DER of a text, hexadecimal: a `PrintableString` when it can be one, else a `UTF8String`.
fn encoded(value: &str) -> String {
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    let mut der = if value.bytes().all(printable) { "13".to_owned() } else { "0c".to_owned() };
    // Writing to a string does not fail.
    let _ = match value.len() {
        length @ ..0x80 => write!(der, "{length:02x}"),
        length @ ..0x100 => write!(der, "81{length:02x}"),
        length => write!(der, "82{length:04x}"),
    };
    for byte in value.bytes() {
        let _ = write!(der, "{byte:02x}");
    }
    der
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    /// ACC-24: what Go makes of the same names.
    #[test]
    fn subjects_are_written_as_go_writes_them() {
        let of_names = |names: &[(&[u64], &str)]| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            for (kind, value) in names {
                let value = DnValue::Utf8String((*value).to_owned());
                params.distinguished_name.push(DnType::CustomDnType(kind.to_vec()), value);
            }
            let key = KeyPair::generate().unwrap();
            of(params.self_signed(&key).unwrap().der()).unwrap()
        };
        let all: [(&[u64], &str); 11] = [
            (&[2, 5, 4, 6], "BE"),
            (&[2, 5, 4, 10], "Acme, Inc."),
            (&[2, 5, 4, 11], "web+1"),
            (&[2, 5, 4, 7], "Ixelles"),
            (&[2, 5, 4, 9], "Rue 1"),
            (&[2, 5, 4, 17], "1050"),
            (&[2, 5, 4, 8], " Bru "),
            (&[2, 5, 4, 3], "#a\"b\\c<d>;é="),
            (&[2, 5, 4, 5], "77"),
            (&[0, 9, 2342, 19_200_300, 100, 1, 25], "test"),
            (&[1, 2, 840, 113_549, 1, 9, 1], "a@b.c"),
        ];
        assert_eq!(
            of_names(&all),
            "SERIALNUMBER=77,CN=\\#a\\\"b\\\\c\\<d\\>\\;é=,OU=web\\+1,O=Acme\\, Inc.,POSTALCODE=1050,STREET=Rue 1,\
             L=Ixelles,ST=\\ Bru\\ ,C=BE,1.2.840.113549.1.9.1=#0c056140622e63,\
             0.9.2342.19200300.100.1.25=#130474657374"
        );
        assert_eq!(of_names(&[(&[2, 5, 4, 3], "pod")]), "CN=pod");
        assert_eq!(of(b"no certificate"), None);
    }
}
