//! What kind of content the first bytes of a body look like: the WHATWG's algorithm as Go's
//! `http.DetectContentType` has it.

/// Bytes that are looked at.
const LOOKED_AT: usize = 512;

/// The type that `data` looks like; `application/octet-stream` when it looks like nothing.
pub(super) fn sniff(data: &[u8]) -> &'static str {
    let data = data.get(..LOOKED_AT).unwrap_or(data);
    let blanks = data.iter().take_while(|&&byte| is_white_space(byte)).count();
    let text = data.get(blanks..).unwrap_or_default();
    if is_html(text) {
        return "text/html; charset=utf-8";
    }
    if text.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    let known = SIGNATURES.iter().find(|signature| signature.matches(data));
    if let Some(signature) = known {
        return signature.kind;
    }
    if is_mp4(data) {
        return "video/mp4";
    }
    if let Some(signature) = AFTER_MP4.iter().find(|signature| signature.matches(data)) {
        return signature.kind;
    }
    if text.iter().any(|&byte| is_binary(byte)) {
        "application/octet-stream"
    } else {
        "text/plain; charset=utf-8"
    }
}

/// Bytes at places.
struct Signature {
    kind: &'static str,
    /// Each part and where it stands.
    parts: &'static [(usize, &'static [u8])],
    /// How long the content must be at least.
    length: usize,
}

impl Signature {
    const fn start(kind: &'static str, parts: &'static [(usize, &'static [u8])]) -> Self {
        Self { kind, parts, length: 0 }
    }

    fn matches(&self, data: &[u8]) -> bool {
        data.len() >= self.length
            && self
                .parts
                .iter()
                .all(|(at, part)| data.get(*at..).is_some_and(|rest| rest.starts_with(part)))
    }
}

const SIGNATURES: [Signature; 20] = [
    Signature::start("application/pdf", &[(0, b"%PDF-")]),
    Signature::start("application/postscript", &[(0, b"%!PS-Adobe-")]),
    // Byte order marks count from four bytes on.
    Signature { kind: "text/plain; charset=utf-16be", parts: &[(0, b"\xfe\xff")], length: 4 },
    Signature { kind: "text/plain; charset=utf-16le", parts: &[(0, b"\xff\xfe")], length: 4 },
    Signature { kind: "text/plain; charset=utf-8", parts: &[(0, b"\xef\xbb\xbf")], length: 4 },
    Signature::start("image/x-icon", &[(0, b"\x00\x00\x01\x00")]),
    Signature::start("image/x-icon", &[(0, b"\x00\x00\x02\x00")]),
    Signature::start("image/bmp", &[(0, b"BM")]),
    Signature::start("image/gif", &[(0, b"GIF87a")]),
    Signature::start("image/gif", &[(0, b"GIF89a")]),
    Signature::start("image/webp", &[(0, b"RIFF"), (8, b"WEBPVP")]),
    Signature::start("image/png", &[(0, b"\x89PNG\r\n\x1a\n")]),
    Signature::start("image/jpeg", &[(0, b"\xff\xd8\xff")]),
    Signature::start("audio/aiff", &[(0, b"FORM"), (8, b"AIFF")]),
    Signature::start("audio/mpeg", &[(0, b"ID3")]),
    Signature::start("application/ogg", &[(0, b"OggS\0")]),
    Signature::start("audio/midi", &[(0, b"MThd\x00\x00\x00\x06")]),
    Signature::start("video/avi", &[(0, b"RIFF"), (8, b"AVI ")]),
    Signature::start("audio/wave", &[(0, b"RIFF"), (8, b"WAVE")]),
    Signature::start("video/webm", &[(0, b"\x1a\x45\xdf\xa3")]),
];

const AFTER_MP4: [Signature; 11] = [
    Signature::start("application/vnd.ms-fontobject", &[(34, b"LP")]),
    Signature::start("font/ttf", &[(0, b"\x00\x01\x00\x00")]),
    Signature::start("font/otf", &[(0, b"OTTO")]),
    Signature::start("font/collection", &[(0, b"ttcf")]),
    Signature::start("font/woff", &[(0, b"wOFF")]),
    Signature::start("font/woff2", &[(0, b"wOF2")]),
    Signature::start("application/x-gzip", &[(0, b"\x1f\x8b\x08")]),
    Signature::start("application/zip", &[(0, b"PK\x03\x04")]),
    Signature::start("application/x-rar-compressed", &[(0, b"Rar!\x1a\x07\x00")]),
    Signature::start("application/x-rar-compressed", &[(0, b"Rar!\x1a\x07\x01\x00")]),
    Signature::start("application/wasm", &[(0, b"\x00asm")]),
];

/// Tags that make a page; letters count in either case, and a blank or `>` follows.
const TAGS: [&[u8]; 17] = [
    b"<!DOCTYPE HTML",
    b"<HTML",
    b"<HEAD",
    b"<SCRIPT",
    b"<IFRAME",
    b"<H1",
    b"<DIV",
    b"<FONT",
    b"<TABLE",
    b"<A",
    b"<STYLE",
    b"<TITLE",
    b"<B",
    b"<BODY",
    b"<BR",
    b"<P",
    b"<!--",
];

fn is_html(text: &[u8]) -> bool {
    TAGS.iter().any(|tag| {
        text.split_at_checked(tag.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(tag) && matches!(rest.first(), Some(b' ' | b'>'))
        })
    })
}

/// Whether the first box is `ftyp` and lists a brand that starts with `mp4`.
fn is_mp4(data: &[u8]) -> bool {
    let Some((size, rest)) = data.split_first_chunk::<4>() else { return false };
    let size = u32::from_be_bytes(*size) as usize;
    if data.len() < 12 || !size.is_multiple_of(4) || data.len() < size || !rest.starts_with(b"ftyp")
    {
        return false;
    }
    let words = data.get(..size).unwrap_or_default().chunks_exact(4).enumerate().skip(2);
    // The fourth word is a version.
    words.filter(|(at, _)| *at != 3).any(|(_, word)| word.starts_with(b"mp4"))
}

fn is_white_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_beginnings() {
        let table: [(&[u8], &str); 34] = [
            (b"<!doctype html>", "text/html; charset=utf-8"),
            (b" \n\t<HtMl ", "text/html; charset=utf-8"),
            (b"<!-- x", "text/html; charset=utf-8"),
            (b"<p>", "text/html; charset=utf-8"),
            (b"<pre>", "text/plain; charset=utf-8"),
            (b"<html", "text/plain; charset=utf-8"),
            (b"\n<?xml version", "text/xml; charset=utf-8"),
            (b"<?XML", "text/plain; charset=utf-8"),
            (b"{\"a\": 1}", "text/plain; charset=utf-8"),
            (b"", "text/plain; charset=utf-8"),
            (b"caf\xc3\xa9 \x1b[0m", "text/plain; charset=utf-8"),
            (b"a\x00b", "application/octet-stream"),
            (b"\xfe\xff\x00a", "text/plain; charset=utf-16be"),
            (b"\xff\xfea\x00", "text/plain; charset=utf-16le"),
            (b"\xef\xbb\xbf\x00", "text/plain; charset=utf-8"),
            (b"%PDF-1.7\n\x00", "application/pdf"),
            (b"%!PS-Adobe-3.0", "application/postscript"),
            (b"\x00\x00\x01\x00\x01", "image/x-icon"),
            (b"BM", "image/bmp"),
            (b"GIF89a\x01", "image/gif"),
            (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
            (b"\x89PNG\r\n\x1a\n\x00", "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"FORM\x00\x00\x00\x00AIFF", "audio/aiff"),
            (b"ID3\x03", "audio/mpeg"),
            (b"RIFF....AVI ", "video/avi"),
            (b"RIFF....WAVE", "audio/wave"),
            (b"\x1a\x45\xdf\xa3", "video/webm"),
            (b"wOF2\x00", "font/woff2"),
            (b"\x1f\x8b\x08\x00", "application/x-gzip"),
            (b"PK\x03\x04\x14", "application/zip"),
            (b"Rar!\x1a\x07\x01\x00", "application/x-rar-compressed"),
            (b"\x00asm\x01", "application/wasm"),
            (b"..................................LP", "application/vnd.ms-fontobject"),
        ];
        for (data, want) in table {
            assert_eq!(sniff(data), want, "{}", data.escape_ascii());
        }
    }

    #[test]
    fn an_mp4_says_so_in_its_first_box() {
        let file = |size: u8, brands: &str| {
            [&[0, 0, 0, size], b"ftyp".as_slice(), brands.as_bytes(), &[0; 8]].concat()
        };
        assert_eq!(sniff(&file(24, "isom....mp41avc1")), "video/mp4");
        assert_eq!(sniff(&file(16, "mp42....")), "video/mp4");
        // The version does not count, nor what stands behind the box.
        assert_eq!(sniff(&file(16, "isommp42")), "application/octet-stream");
        assert_eq!(sniff(&file(16, "isom....mp41")), "application/octet-stream");
        assert_eq!(sniff(&file(18, "mp42....")), "application/octet-stream");
        assert_eq!(sniff(&file(200, "mp42....")), "application/octet-stream");
        assert_eq!(sniff(b"\x00\x00\x00\x0cftypmp4"), "application/octet-stream");
    }

    #[test]
    fn only_the_beginning_is_looked_at() {
        let long = [&[b'a'; LOOKED_AT][..], b"\0"].concat();
        assert_eq!(sniff(&long), "text/plain; charset=utf-8");
        assert_eq!(sniff(&long[1..]), "application/octet-stream");
    }
}
