//! The same for HTTP/2: frames and header blocks written by hand, since no client library lets anything wrong out, and
//! what the backend gets of them over HTTP/1.1.

use std::fmt;

use crate::generate::{FIELD_NAMES, Random, VALUES};
use crate::reference::{Fields, Message, check_request, outgoing};
use crate::sockets::{Client, Lane};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Line = (Vec<u8>, Vec<u8>);

/// One request: its header list, what follows, and in how many frames.
#[derive(Clone)]
pub(crate) struct Stream {
    lines: Vec<Line>,
    data: Vec<u8>,
    trailers: Option<Vec<Line>>,
    /// Where header block and body are cut.
    cut: usize,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.lines.iter().chain(self.trailers.iter().flatten()) {
            write!(f, "[{}: {}] ", name.escape_ascii(), value.escape_ascii())?;
        }
        write!(f, "\"{}\" cut at {}", self.data.escape_ascii(), self.cut)
    }
}

/// What ought to come of a request.
#[derive(Debug)]
enum Fate {
    Good(Message),
    /// Refused before anything is forwarded.
    Bad,
    /// Something behind the head is wrong, which the backend may have got by then, and all of the body too.
    Late(Message),
}

/// A client connection, and streams on it.
pub(crate) struct Connection<'a> {
    lane: &'a Lane,
    open: Option<(Client, u32)>,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(lane: &'a Lane) -> Self {
        Self { lane, open: None }
    }

    /// What the two readers disagree on, if they do; whether the request was a good one.
    pub(crate) fn check(&mut self, stream: &Stream) -> Result<bool, String> {
        let fate = fate(stream);
        let answered = self.send(stream).map_err(|error| error.to_string())?;
        let outgoing = |message: &Message| vec![outgoing(message, &self.lane.arrival(true))];
        let (whole, part) = match &fate {
            Fate::Good(message) => (outgoing(message), Vec::new()),
            Fate::Bad => (Vec::new(), Vec::new()),
            Fate::Late(message) => (Vec::new(), outgoing(message)),
        };
        self.lane.compare(&whole, &part)?;
        let good = !whole.is_empty();
        if good && !answered {
            return Err("the request reached the backend and has no answer".to_owned());
        }
        Ok(good)
    }

    /// Sends one request and waits for what comes of it; whether that is an answer, and no reset.
    fn send(&mut self, stream: &Stream) -> std::io::Result<bool> {
        let (mut client, number) = match self.open.take() {
            Some((client, number)) if number < 200 => (client, number + 2),
            _ => {
                let mut client = Client::connect(self.lane.web)?;
                let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                hello.extend(frame(SETTINGS, 0, 0, &[]));
                client.send(&[hello]);
                (client, 1)
            }
        };
        client.send(&[encode(stream, number)]);
        loop {
            let Some(head) = client.take(9)? else { return Ok(false) };
            let length = head[..3].iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
            let payload = client.take(length)?.unwrap_or_default();
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                SETTINGS if head[4] & 1 == 0 => client.send(&[frame(SETTINGS, 1, 0, &[])]),
                PING if head[4] & 1 == 0 => client.send(&[frame(PING, 1, 0, &payload)]),
                GOAWAY => return Ok(false),
                RST_STREAM if of == number && payload != [0; 4] => {
                    self.open = Some((client, number));
                    return Ok(false);
                }
                HEADERS | DATA if of == number && head[4] & END_STREAM != 0 => {
                    self.open = Some((client, number));
                    return Ok(true);
                }
                _ => {}
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// RFC 7541 5.1, with a prefix of seven bits.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        out.push(u8::try_from(length).unwrap());
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        out.push(u8::try_from(length).unwrap());
    }
    out.extend(text);
}

/// RFC 7541 6.2.2: literal, with its name, in no table.
fn block(lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in lines {
        out.push(0);
        string(name, &mut out);
        string(value, &mut out);
    }
    out
}

fn encode(stream: &Stream, number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let ends = stream.data.is_empty() && stream.trailers.is_none();
    let headers = |lines: &[Line], ends: bool, out: &mut Vec<u8>| {
        let block = block(lines);
        let flags = if ends { END_STREAM } else { 0 };
        let (first, rest) = block.split_at(stream.cut.min(block.len()));
        if rest.is_empty() || stream.cut == 0 {
            out.extend(frame(HEADERS, flags | END_HEADERS, number, &block));
        } else {
            out.extend(frame(HEADERS, flags, number, first));
            out.extend(frame(CONTINUATION, END_HEADERS, number, rest));
        }
    };
    headers(&stream.lines, ends, &mut out);
    if !stream.data.is_empty() {
        let (first, rest) = stream.data.split_at(stream.cut.min(stream.data.len()));
        out.extend(frame(DATA, 0, number, first));
        let flags = if stream.trailers.is_none() { END_STREAM } else { 0 };
        out.extend(frame(DATA, flags, number, rest));
    }
    if let Some(trailers) = &stream.trailers {
        headers(trailers, true, &mut out);
    }
    // Answers are small, but there are many.
    out.extend(frame(WINDOW_UPDATE, 0, 0, &4096_u32.to_be_bytes()));
    out
}

/// RFC 9113 8.2.1.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte)
        })
}

fn is_value(value: &[u8]) -> bool {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        && !space(value.first())
        && !space(value.last())
}

/// RFC 9113 8.2.2.
fn is_for_a_stream(name: &[u8], value: &[u8]) -> bool {
    const BANNED: [&[u8]; 5] =
        [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];
    !BANNED.contains(&name) && (name != b"te" || value == b"trailers")
}

/// RFC 9113 8.1 to 8.3, and Doorward's rules of hosts and paths.
fn fate(stream: &Stream) -> Fate {
    let mut pseudo: [Option<&[u8]>; 4] = [None; 4];
    let mut fields = Fields::new();
    for (name, value) in &stream.lines {
        let known = [b":method".as_slice(), b":scheme", b":path", b":authority"];
        if let Some(at) = known.iter().position(|known| known == name) {
            if !fields.is_empty() || pseudo[at].replace(value).is_some() {
                return Fate::Bad;
            }
            continue;
        }
        if !is_name(name) || !is_value(value) || !is_for_a_stream(name, value) {
            return Fate::Bad;
        }
        let name = String::from_utf8(name.clone()).unwrap();
        fields.entry(name).or_default().push(value.clone());
    }
    let [Some(method), Some(scheme), Some(path), authority] = pseudo else { return Fate::Bad };
    // The library keeps no scheme where there is no authority.
    let alone = authority.is_none() && scheme.iter().all(u8::is_ascii_alphanumeric);
    if !(alone || matches!(scheme, b"http" | b"https")) || !(path.starts_with(b"/") || path == b"*")
    {
        return Fate::Bad;
    }
    let mut lengths = fields.get("content-length").into_iter().flatten();
    let length = lengths.next().cloned();
    if lengths.next().is_some() {
        return Fate::Bad;
    }
    if let Some(authority) = authority {
        // The line is checked before it loses.
        let mut both = fields.clone();
        both.entry("host".to_owned()).or_insert_with(|| vec![authority.to_vec()]);
        if check_request(method, path, both).is_none() || authority.is_empty() {
            return Fate::Bad;
        }
        fields.insert("host".to_owned(), vec![authority.to_vec()]);
    }
    let Some(mut message) = check_request(method, path, fields) else { return Fate::Bad };
    message.body.clone_from(&stream.data);
    let good_trailers = stream.trailers.as_ref().is_none_or(|trailers| {
        trailers
            .iter()
            .all(|(name, value)| is_name(name) && is_value(value) && is_for_a_stream(name, value))
    });
    let right = length.as_ref().is_none_or(|length| {
        let length = str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok());
        length == Some(stream.data.len())
    });
    if right && good_trailers { Fate::Good(message) } else { Fate::Late(message) }
}

/// A request, two in three of which have nothing wrong.
pub(crate) fn request(random: &mut Random) -> Stream {
    let odd = random.once_in(3);
    let text = |text: &str| text.as_bytes().to_vec();
    let method = if odd && random.once_in(10) {
        random.pick(&["CONNECT", "G T", "", "get", "GET\r\n"])
    } else {
        random.pick(&["GET", "GET", "POST", "PUT", "DELETE", "OPTIONS"])
    };
    let scheme = if odd && random.once_in(15) {
        random.pick(&["ftp", "", "ht tp", "http\r\n"])
    } else {
        "http"
    };
    let mut lines = vec![
        (text(":method"), text(method)),
        (text(":scheme"), text(scheme)),
        (text(":path"), path(random, odd)),
    ];
    const HOSTS: [&str; 6] =
        ["a.test", "b.test:8443", "[::1]", "A.Test", "127.0.0.1:80", "a_b.test."];
    const ODD_HOSTS: [&str; 9] =
        ["", "a@b", "a/b", "a b", "a.test, b.test", "a:99999", "a\r\nX: y", "[::1", ":80"];
    let host = |random: &mut Random| {
        if odd && random.once_in(8) { random.pick(&ODD_HOSTS) } else { random.pick(&HOSTS) }
    };
    if !random.once_in(12) {
        lines.push((text(":authority"), text(host(random))));
    }
    for at in (1..lines.len()).rev() {
        lines.swap(at, random.below(at + 1));
    }
    let pseudo = lines.len();
    if random.once_in(6) {
        lines.push((text("host"), text(host(random))));
    }
    for _ in 0..random.below(7) {
        lines.push(field(random, odd));
    }
    let data = match random.below(5) {
        0 => b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
        1 => b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
        2 => vec![b'd'; 1 + random.below(2000)],
        _ => Vec::new(),
    };
    if random.once_in(3) {
        let length = data.len();
        let length = match random.below(24) {
            0 if odd => format!("{}", length + 1),
            1 if odd => format!("{}", length.saturating_sub(1)),
            2 if odd => "0".to_owned(),
            3 if odd => random.pick(&["x", "-1", "1, 1", "99999999999999999999", ""]).to_owned(),
            _ => length.to_string(),
        };
        for _ in 0..if odd && random.once_in(12) { 2 } else { 1 } {
            lines.push((text("content-length"), text(&length)));
        }
    }
    if odd && random.once_in(8) {
        // A line again, or in another place.
        let line = lines[random.below(lines.len())].clone();
        let at = random.below(lines.len() + 1);
        lines.insert(at, line);
    }
    if odd && random.once_in(12) {
        lines.remove(random.below(pseudo));
    }
    let trailers = random.once_in(10).then(|| {
        let mut trailers = vec![(text("x-sum"), text("1"))];
        if odd {
            trailers.push(field(random, odd));
        }
        trailers
    });
    // The library forgets what was wrong in a part of a header block that ends inside a field, or has a field without a
    // name: it leaves that field out.
    let nameless = lines.iter().any(|(name, _)| name.is_empty());
    let cut = match random.below(4) {
        0 if odd && !nameless => block(&lines[..=random.below(lines.len())]).len(),
        0 | 1 if !odd => 1 + random.below(60),
        _ => 0,
    };
    Stream { lines, data, trailers, cut }
}

fn field(random: &mut Random, odd: bool) -> Line {
    let text = |text: &str| text.as_bytes().to_vec();
    if odd && random.once_in(6) {
        let (name, value) = [
            ("connection", "keep-alive"),
            ("connection", "x-a"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            ("X-A", "upper"),
            ("x-a", "a\r\nX-B: c"),
            ("x-a", "a\nb"),
            ("x-a", "a\0b"),
            ("x-a", " padded"),
            ("x-a", "padded\t"),
            ("x-a\r\nx-b", "c"),
            ("x a", "b"),
            ("x-a:", "b"),
            ("", "b"),
            (":status", "200"),
            (":unknown", "x"),
            (":path", "/other"),
        ][random.below(21)];
        return (text(name), text(value));
    }
    loop {
        let name = random.pick(&FIELD_NAMES).to_ascii_lowercase();
        let value = random.pick(&VALUES);
        if is_for_a_stream(name.as_bytes(), value.as_bytes()) {
            return (text(&name), text(value));
        }
    }
}

fn path(random: &mut Random, odd: bool) -> Vec<u8> {
    const PARTS: [&str; 20] = [
        "/", "//", "/a", "/private", "/..", "/./", "%2e%2e", "%2f", "%5c", "%61", "%00", "%c3%a9",
        ";a=b", "..;", "[x]", "|", "^", "-._~", "?a=b", "?;&",
    ];
    const ODD: [&str; 10] =
        ["%", "%zz", " ", "\r\nX: y", "\0", "<", "\x7f", "\t", " HTTP/1.1\r\n", "\\"];
    if odd && random.once_in(15) {
        return random.pick(&["", "*", "?x", "x", "http://a.test/", "//", " /"]).bytes().collect();
    }
    let mut out = "/".to_owned();
    for _ in 0..random.below(6) {
        out += if odd && random.once_in(20) { random.pick(&ODD) } else { random.pick(&PARTS) };
    }
    out.into_bytes()
}
