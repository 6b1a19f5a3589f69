//! `/api/support-dump`: configuration and version in an archive that may be sent to somebody.
//!
//! Traefik hides secrets in the static configuration only; here no file of the archive has any. What may be one is
//! hidden also where the other views show it: every value of a configured header, every credential in a URL or a rule.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::redact::{HEADERS, hide_in_rule, hide_pattern};
use crate::values::secret::{MASK, is_credential_header, masked_url};

/// Size of a record of a tar archive.
const RECORD: usize = 512;

/// The files in an archive, without their secrets.
pub(super) fn archive<const N: usize>(files: [(&str, Value); N]) -> io::Result<Vec<u8>> {
    let mut archive = GzEncoder::new(Vec::new(), Compression::default());
    for (name, mut content) in files {
        hide(&mut content);
        let content = content.to_string();
        archive.write_all(&header(name, content.len()))?;
        archive.write_all(content.as_bytes())?;
        let padding = content.len().next_multiple_of(RECORD) - content.len();
        archive.write_all(&vec![0; padding])?;
    }
    archive.write_all(&[0; 2 * RECORD])?;
    archive.finish()
}

/// A header in the format `ustar` (POSIX.1-1988).
fn header(name: &str, size: usize) -> Vec<u8> {
    let since = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let mut header = Vec::with_capacity(RECORD);
    let mut field = |text: &str, width: usize| {
        let end = header.len() + width;
        header.extend_from_slice(text.as_bytes());
        header.resize(end, 0);
    };
    field(name, 100);
    field("0000600", 8);
    field("0000000", 8);
    field("0000000", 8);
    field(&format!("{size:011o}"), 12);
    field(&format!("{since:011o}"), 12);
    // The sum is taken with spaces in its own place.
    field("        ", 8);
    field("0", 1);
    field("", 100);
    field("ustar\u{0}00", 8);
    field("", RECORD - 265);
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    let sum = format!("{sum:06o}\u{0} ");
    header.splice(148..156, sum.into_bytes());
    header
}

fn hide(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(entries) => {
            // The middleware `headers` has options, and stands beside its status.
            let is_middleware = entries.contains_key("status");
            for (key, value) in entries {
                hide_pattern(key, value);
                let headers =
                    HEADERS.contains(&key.as_str()) && !(is_middleware && key == "headers");
                match value {
                    Value::Object(named) if headers => named.values_mut().for_each(hide_whole),
                    Value::Array(items) if key == "users" => items.iter_mut().for_each(hide_whole),
                    Value::String(text) => hide_text(key, text),
                    other => hide(other),
                }
            }
        }
        Value::String(text) => hide_text("", text),
        _ => {}
    }
}

/// An empty text says that a header is deleted.
fn hide_whole(value: &mut Value) {
    if value.as_str().is_none_or(|text| !text.is_empty()) {
        *value = json!(MASK);
    }
}

fn hide_text(key: &str, text: &mut String) {
    // Names of files and header fields end in such words, and are no secrets.
    let names_a_place = ["File", "Field", "Header", "Name"].iter().any(|end| key.ends_with(end));
    if is_credential_header(key) && !names_a_place && !text.is_empty() {
        MASK.clone_into(text);
        return;
    }
    if text.contains("://") || text.starts_with('/') {
        *text = masked_url(text, MASK, |_| true).into_owned();
    }
    if let Cow::Owned(hidden) = hide_in_rule(text, |_| true) {
        *text = hidden;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn hidden(mut value: Value) -> Value {
        hide(&mut value);
        value
    }

    #[test]
    fn whatever_may_be_a_secret_is_hidden() {
        let shown = hidden(json!({
            "a": {"headers": {"customRequestHeaders": {"X-Tenant": "t1", "Cookie": ""}, "publicKey": "pin"},
                  "status": "enabled"},
            "b": {"basicAuth": {"users": ["u:h"], "usersFile": "/etc/users", "headerField": "X-Token"}},
            "c": {"loadBalancer": {"servers": [{"url": "http://u:p@h:1/x?key=k&b=c#f"}],
                                   "healthCheck": {"headers": {"A": "b"}, "path": "/h?token=t"}}},
            "d": {"rule": "Host(`h`) && Header(`X-Token`, `tok`) && Header(`X-A`, `b`) && Query(`q`, `v`)"},
            "e": {"token": "t", "password": "p", "keyFile": "/k.pem", "secretAccessKey": "s", "address": ":80"},
            "f": "(?P<a>x)=y",
            "g": {"conditions": [{"header": {"name": "X-Token", "regex": "^s3cret$"}}]},
            "h": {"headers": {"sslProxyHeaders": {"X-Any": "s"}}, "status": "enabled"},
        }));
        let wanted = json!({
            "a": {"headers": {"customRequestHeaders": {"X-Tenant": "xxxx", "Cookie": ""}, "publicKey": "pin"},
                  "status": "enabled"},
            "b": {"basicAuth": {"users": ["xxxx"], "usersFile": "/etc/users", "headerField": "X-Token"}},
            "c": {"loadBalancer": {"servers": [{"url": "http://xxxx@h:1/x?key=xxxx&b=xxxx#f"}],
                                   "healthCheck": {"headers": {"A": "xxxx"}, "path": "/h?token=xxxx"}}},
            "d": {"rule": "Host(`h`) && Header(`X-Token`, `xxxx`) && Header(`X-A`, `b`) && Query(`q`, `xxxx`)"},
            "e": {"token": "xxxx", "password": "xxxx", "keyFile": "/k.pem", "secretAccessKey": "xxxx", "address": ":80"},
            "f": "(?P<a>x)=y",
            "g": {"conditions": [{"header": {"name": "X-Token", "regex": "xxxx"}}]},
            "h": {"headers": {"sslProxyHeaders": {"X-Any": "xxxx"}}, "status": "enabled"},
        });
        assert_eq!(shown, wanted, "{shown:#}");
    }

    #[test]
    fn the_archive_is_read_by_others() {
        let archive =
            archive([("one.json", json!({"a": 1})), ("two.json", json!("b".repeat(600)))]).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(&archive[..]).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() % RECORD, 0);
        assert_eq!(&bytes[257..265], b"ustar\x0000");
        let sum = std::str::from_utf8(&bytes[148..154]).unwrap();
        let mut counted = bytes[..RECORD].to_vec();
        counted[148..156].fill(b' ');
        let counted: u32 = counted.iter().copied().map(u32::from).sum();
        assert_eq!(u32::from_str_radix(sum, 8).unwrap(), counted);
        assert_eq!(&bytes[RECORD..RECORD + 7], br#"{"a":1}"#);
        assert_eq!(&bytes[2 * RECORD..2 * RECORD + 8], b"two.json");
    }
}
