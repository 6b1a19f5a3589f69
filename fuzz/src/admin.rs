//! `admin`: what is sent to the admin address: the head that is kept beside the HTTP library, whole and in pieces as the
//! first byte says.

use doorward::admin::head::Head;
use tokio::io::AsyncReadExt as _;

use super::pieces::{Pieces, wait};

/// The fields that are asked for, and some more.
const FIELDS: [&str; 4] = ["content-length", "transfer-encoding", "host", "x"];

/// Listens to one stream whole and in pieces.
pub fn run(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let whole = fields(stream, usize::MAX);
    assert_eq!(whole, fields(stream, usize::from(seed) + 1), "it depends on the pieces");
    let Some((head, _)) = independent(stream) else { return };
    let lines: Vec<&[u8]> = head.split(|&byte| byte == b'\n').skip(1).collect();
    for (field, has) in FIELDS.iter().zip(whole) {
        let found = lines.iter().any(|line| {
            let colon = line.iter().position(|&byte| byte == b':');
            let name = colon.and_then(|at| line.get(..at)).unwrap_or_default();
            colon.is_some() && name.trim_ascii().eq_ignore_ascii_case(field.as_bytes())
        });
        assert_eq!(has, found, "{field} in {}", head.escape_ascii());
    }
}

fn fields(stream: &[u8], piece: usize) -> [bool; 4] {
    let head = Head::default();
    let mut listened = head.of(Pieces::new(stream, piece));
    let mut all = Vec::new();
    let read = wait(listened.read_to_end(&mut all));
    assert_eq!(read.ok(), Some(stream.len()));
    assert_eq!(all, stream, "what is listened to is not changed");
    FIELDS.map(|field| head.has(field))
}

/// The head up to its empty line, without empty lines before it.
fn independent(stream: &[u8]) -> Option<(&[u8], usize)> {
    let before = stream.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let stream = stream.get(before..)?;
    let ends = [&b"\n\r\n"[..], b"\n\n"];
    let end = ends.iter().filter_map(|end| stream.windows(end.len()).position(|at| at == *end));
    let end = end.min()?;
    Some((stream.get(..end)?, end))
}
