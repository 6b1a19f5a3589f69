//! Where random requests come from: a grammar of good ones, and what may be done to them.

/// A small generator of random numbers (splitmix64): the same seed, the same requests.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    /// Once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// What is sent on one connection: bytes, and where they are cut into writes.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cuts: Vec<usize>,
    /// Requests that were put into it.
    pub(crate) requests: usize,
}

impl Case {
    pub(crate) fn pieces(&self) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for &cut in self.cuts.iter().chain([&self.bytes.len()]) {
            if cut > from && cut <= self.bytes.len() {
                pieces.push(self.bytes[from..cut].to_vec());
                from = cut;
            }
        }
        pieces
    }
}

/// A few requests for one connection.
pub(crate) fn case(random: &mut Random) -> Case {
    let requests = 1 + if random.once_in(2) { random.below(6) } else { 0 };
    let mut bytes = Vec::new();
    for number in 1..=requests {
        // One that closes the connection hides those behind it.
        let may_close = number == requests || random.once_in(20);
        bytes.extend(request(random, may_close));
    }
    if random.once_in(3) {
        mutate(random, &mut bytes);
    }
    let mut cuts: Vec<usize> = match random.below(4) {
        0 | 1 => Vec::new(),
        2 => (0..=random.below(6)).map(|_| random.below(bytes.len() + 1)).collect(),
        _ if bytes.len() < 400 && random.once_in(3) => (1..bytes.len()).collect(),
        _ => (0..=random.below(30)).map(|_| random.below(bytes.len() + 1)).collect(),
    };
    cuts.sort_unstable();
    Case { bytes, cuts, requests }
}

const METHODS: [&str; 12] = [
    "GET", "GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH",
    "M-SEARCH",
];

fn request(random: &mut Random, may_close: bool) -> Vec<u8> {
    let odd = random.once_in(3);
    let method = if odd && random.once_in(8) {
        random.pick(&["CONNECT", "get", "G(T", "", "GET\t", "TRACE", "PRI", " GET", "*"])
    } else {
        random.pick(&METHODS)
    };
    let version = match random.below(40) {
        0 if odd => random.pick(&[
            "HTTP/1.2",
            "HTTP/2.0",
            "http/1.1",
            "HTTP/0.9",
            "HTTP/1.1 ",
            "HTTP/11",
            "",
            "X",
        ]),
        1..=3 if may_close => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let mut out = Vec::new();
    if random.once_in(25) {
        out.extend(b"\r\n".repeat(1 + random.below(5)));
    }
    out.extend(method.bytes());
    out.extend(gap(random, odd).bytes());
    out.extend(target(random, method, odd));
    out.extend(gap(random, odd).bytes());
    out.extend(version.bytes());
    out.extend(line_end(random, odd).bytes());
    let mut lines: Vec<Vec<u8>> = Vec::new();
    hosts(random, odd, version, &mut lines);
    for _ in 0..random.below(6) {
        lines.push(field(random, odd));
    }
    if random.once_in(6) {
        connection(random, may_close, &mut lines);
    }
    let body = framing(random, method, odd, &mut lines);
    for at in (1..lines.len()).rev() {
        lines.swap(at, random.below(at + 1));
    }
    for line in lines {
        out.extend(line);
        out.extend(line_end(random, odd).bytes());
    }
    let odd_end = odd && random.once_in(3);
    out.extend(line_end(random, odd_end).bytes());
    out.extend(body);
    out
}

fn gap(random: &mut Random, odd: bool) -> &'static str {
    if odd && random.once_in(40) {
        random.pick(&["  ", "\t", "", " \t", "\r ", "\x0b"])
    } else {
        " "
    }
}

fn line_end(random: &mut Random, odd: bool) -> &'static str {
    if odd && random.once_in(40) {
        random
            .pick(&["\n", "\r", "\r\r\n", "\r\n ", "\r\n\t", "\n\r", " \r\n", "\r\n\r\n", "\0\r\n"])
    } else {
        "\r\n"
    }
}

const NAMES: [&str; 10] = [
    "a.test",
    "b.test",
    "A.Test",
    "a.test:80",
    "a.test:8443",
    "127.0.0.1",
    "[::1]:80",
    "a_b.test.",
    "a.test:",
    "x",
];
const ODD_NAMES: [&str; 16] = [
    "",
    "a.test, b.test",
    "a@b",
    "a/b",
    "a test",
    "a.test:99999",
    "a.test:+1",
    ":80",
    "[::1",
    "[x]",
    "::1",
    "a%2eb",
    "a\\b",
    "a:b:c",
    "a.test#",
    "[::1%25lo]",
];

fn name(random: &mut Random, odd: bool) -> &'static str {
    if odd && random.once_in(6) { random.pick(&ODD_NAMES) } else { random.pick(&NAMES) }
}

fn hosts(random: &mut Random, odd: bool, version: &str, lines: &mut Vec<Vec<u8>>) {
    let count = match random.below(30) {
        0 if odd => 2,
        1 if odd || version == "HTTP/1.0" => 0,
        _ => 1,
    };
    for _ in 0..count {
        let label = random.pick(&["Host", "Host", "host", "HOST"]);
        let colon = colon(random, odd);
        lines.push([label, colon, name(random, odd)].concat().into_bytes());
    }
}

fn colon(random: &mut Random, odd: bool) -> &'static str {
    if odd && random.once_in(30) {
        random.pick(&[" :", "\t:", ":\r\n ", ":\x0b", "", ": \0", "\0:", ":\r"])
    } else {
        random.pick(&[": ", ": ", ": ", ":", ":\t ", ":  "])
    }
}

/// Parts of paths and queries: what is resolved, what is decoded, and what is neither.
const PATHS: [&str; 32] = [
    "/",
    "/",
    "//",
    "/a",
    "/b.c",
    "/private",
    "/..",
    "/.",
    "/../",
    "/%2e%2e",
    "/%2E",
    "%2f",
    "%2F",
    "%5c",
    "%61",
    "%7e",
    "%00",
    "%20",
    "%c3%a9",
    "%25",
    "%252e",
    ";a=b",
    "..;",
    ":@",
    "!$&'()*+,=",
    "[x]",
    "|",
    "{}",
    "^",
    "\\",
    "-._~",
    "*",
];
const ODD_PATHS: [&str; 12] =
    ["#", "#/../x", "%", "%zz", "%2", "<", ">", "`", "\u{e9}", "\x7f", "\x01", "\""];
const QUERIES: [&str; 16] = [
    "a=b", "&", ";", "=", "%2e%2e", "/../", "?", "%", "{}", "|", "\\", "[]", "^", "`", "c;d",
    "http://x",
];

fn target(random: &mut Random, method: &str, odd: bool) -> Vec<u8> {
    let mut out = String::new();
    match random.below(24) {
        0 if odd => {
            out += random.pick(&[
                "*",
                "a.test:80",
                "ftp://a/x",
                "x",
                "?",
                "http:/x",
                "http:///x",
                "",
                "https:",
                "http://",
                "//",
            ]);
        }
        1 if method == "OPTIONS" => return b"*".to_vec(),
        2 | 3 => {
            out += random.pick(&["http://", "http://", "https://", "HTTP://"]);
            out += name(random, odd);
            if random.once_in(4) {
                out += random.pick(&["", "?", "?q", "/?"]);
                return out.into_bytes();
            }
        }
        _ => {}
    }
    out += "/";
    for _ in 0..random.below(8) {
        out +=
            if odd && random.once_in(30) { random.pick(&ODD_PATHS) } else { random.pick(&PATHS) };
    }
    if random.once_in(3) {
        out += "?";
        for _ in 0..random.below(5) {
            out += if odd && random.once_in(30) {
                random.pick(&ODD_PATHS)
            } else {
                random.pick(&QUERIES)
            };
        }
    }
    out.into_bytes()
}

/// Names that mean something to a proxy or to its backends, and others.
pub(crate) const FIELD_NAMES: [&str; 44] = [
    "Accept",
    "Accept",
    "Accept-Encoding",
    "User-Agent",
    "Cookie",
    "Cookie",
    "Cookie",
    "X-A",
    "X-A",
    "x-b",
    "X_Under",
    "X.Dot",
    "X-Forwarded-For",
    "X-Forwarded-For",
    "x_forwarded_for",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
    "X-Forwarded-Prefix",
    "X.Forwarded.Uri",
    "X-Real-Ip",
    "X~Real-Ip",
    "X-Scheme",
    "Forwarded",
    "Proxy",
    "Te",
    "Trailer",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "HTTP2-Settings",
    "Authorization",
    "Referer",
    "Range",
    "If-None-Match",
    "Content-Type",
    "Content_Length",
    "Transfer_Encoding",
    "Origin",
    "!#$%&'*+.^`|~",
    "Date",
    "X-Forwarded-Method",
];
pub(crate) const VALUES: [&str; 18] = [
    "",
    "a",
    "b, c",
    "6.6.6.6",
    "trailers",
    "trailers, deflate",
    "gzip",
    "http",
    "a=b",
    "c=d; e=f",
    "a\tb",
    "\u{e9}",
    "chunked",
    "0",
    "close",
    ":",
    "\"x\"",
    "keep-alive",
];

fn field(random: &mut Random, odd: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if odd && random.once_in(30) {
        let broken = [
            "",
            ":x",
            " X: y",
            "X Y: z",
            "(X): y",
            "X",
            "X\u{e9}: y",
            "GET / HTTP/1.1",
            "\0: x",
            "X\r: y",
            "X\n: y",
        ];
        out.extend(random.pick(&broken).bytes());
        return out;
    }
    out.extend(random.pick(&FIELD_NAMES).bytes());
    out.extend(colon(random, odd).bytes());
    if random.once_in(60) {
        out.extend(vec![b'v'; random.below(9000)]);
    }
    out.extend(random.pick(&VALUES).bytes());
    if odd && random.once_in(25) {
        out.extend(
            random.pick(&["\0", "\x7f", "\rX: y", "\nX: y", "\r\n folded", "\x0b", "\x1b"]).bytes(),
        );
    }
    if random.once_in(10) {
        out.extend(random.pick(&[" ", "\t", " \t ", ","]).bytes());
    }
    out
}

const OPTIONS: [&str; 16] = [
    "keep-alive",
    "X-A",
    "x-b",
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "X-Forwarded-For",
    "X-Real-Ip",
    "Cookie",
    "te",
    "TE",
    "Authorization",
    "",
    "\u{e9}",
    "x_forwarded_for",
    "upgrade",
];

fn connection(random: &mut Random, may_close: bool, lines: &mut Vec<Vec<u8>>) {
    for _ in 0..=random.below(2) {
        let mut options = Vec::new();
        for _ in 0..random.below(4) {
            options.push(random.pick(&OPTIONS));
        }
        if may_close && random.once_in(3) {
            options.push(random.pick(&["close", "Close", "close "]));
        }
        if random.once_in(4) {
            options.push("Upgrade");
            let name = random.pick(&[
                "websocket",
                "WebSocket",
                "h2c",
                "foo, bar",
                "foo/2",
                "HTTP/2.0",
                "x , h2c",
                "tls/1.2,http/1.1",
                "",
            ]);
            lines.push(format!("Upgrade: {name}").into_bytes());
        }
        let separator = random.pick(&[",", ", ", " ,\t"]);
        lines.push(format!("Connection: {}", options.join(separator)).into_bytes());
    }
}

/// Adds what frames the body, and returns the body.
fn framing(random: &mut Random, method: &str, odd: bool, lines: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let likely = matches!(method, "POST" | "PUT" | "PATCH");
    if random.once_in(40) {
        lines.push(b"Expect: 100-continue".to_vec());
    }
    let payload = payload(random);
    if odd && random.once_in(5) {
        return odd_framing(random, payload, lines);
    }
    match random.below(if likely { 2 } else { 12 }) {
        0 => {
            let label = random.pick(&["Content-Length", "content-length", "CONTENT-LENGTH"]);
            let zeros = if random.once_in(10) { "00" } else { "" };
            lines.push(format!("{label}: {zeros}{}", payload.len()).into_bytes());
            payload
        }
        1 => {
            lines.push(
                format!("Transfer-Encoding: {}", random.pick(&["chunked", "chunked", "Chunked"]))
                    .into_bytes(),
            );
            chunked(random, &payload, odd)
        }
        _ => Vec::new(),
    }
}

/// Bodies that would like to be requests, among others.
fn payload(random: &mut Random) -> Vec<u8> {
    match random.below(6) {
        0 => Vec::new(),
        1 => b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
        2 => b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
        3 => vec![b'p'; random.below(3000)],
        _ => vec![b'p'; random.below(30)],
    }
}

fn chunked(random: &mut Random, payload: &[u8], odd: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(1 + random.below(rest.len().min(700)));
        rest = behind;
        let size = match random.below(4) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("{:04x}", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        out.extend(if odd && random.once_in(25) {
            odd_size(random, &size)
        } else {
            size.into_bytes()
        });
        out.extend(extension(random).bytes());
        out.extend(line_end(random, odd).bytes());
        out.extend(chunk);
        out.extend(
            if odd && random.once_in(40) {
                random.pick(&["", "\n", "\r", "XX", "x\r\n"])
            } else {
                "\r\n"
            }
            .bytes(),
        );
    }
    out.extend(random.pick(&["0", "0", "0", "000", "0;last"]).bytes());
    out.extend(line_end(random, odd).bytes());
    if random.once_in(5) {
        for _ in 0..random.below(3) {
            out.extend(field(random, odd));
            out.extend(line_end(random, odd).bytes());
        }
    }
    out.extend(line_end(random, odd).bytes());
    out
}

fn extension(random: &mut Random) -> &'static str {
    if random.once_in(6) {
        random.pick(&[";a=b", ";", ";a", ";a=\"b;c\"", "; x = y ", ";;\t"])
    } else {
        ""
    }
}

fn odd_size(random: &mut Random, size: &str) -> Vec<u8> {
    match random.below(10) {
        0 => format!("0x{size}"),
        1 => format!("+{size}"),
        2 => format!(" {size}"),
        3 => format!("{size} "),
        4 => "FFFFFFFFFFFFFFFF".to_owned(),
        5 => "10000000000000001".to_owned(),
        6 => format!("00000000000000000{size}"),
        7 => "-1".to_owned(),
        8 => "7fffffffffffffff".to_owned(),
        _ => String::new(),
    }
    .into_bytes()
}

fn odd_framing(random: &mut Random, payload: Vec<u8>, lines: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let length = payload.len();
    let encoded = chunked(random, &payload, true);
    let mut add = |line: &str| lines.push(line.as_bytes().to_vec());
    match random.below(22) {
        0 => {
            (add("Transfer-Encoding: chunked"), add(&format!("Content-Length: {length}")), encoded)
                .2
        }
        1 => {
            (add(&format!("Content-Length: {length}")), add("Transfer-Encoding: chunked"), payload)
                .2
        }
        2 => {
            (
                add(&format!("Content-Length: {length}")),
                add(&format!("Content-Length: {length}")),
                payload,
            )
                .2
        }
        3 => (add(&format!("Content-Length: {length}, {length}")), payload).1,
        4 => (add(&format!("Content-Length: +{length}")), payload).1,
        5 => (add(&format!("Content-Length: {length} 0")), payload).1,
        6 => (add(&format!("Content-Length: 0x{length}")), payload).1,
        7 => (add("Content-Length: 9223372036854775808"), payload).1,
        8 => (add("Content-Length: 9223372036854775807"), payload).1,
        9 => (add("Content-Length: "), payload).1,
        10 => (add("Transfer-Encoding: chunked, chunked"), encoded).1,
        11 => (add("Transfer-Encoding: gzip, chunked"), encoded).1,
        12 => (add("Transfer-Encoding: identity"), payload).1,
        13 => (add("Transfer-Encoding: xchunked"), encoded).1,
        14 => (add("Transfer-Encoding : chunked"), encoded).1,
        15 => (add("Transfer-Encoding: \x0bchunked"), encoded).1,
        16 => (add("Transfer-Encoding: chunked"), add("Transfer-Encoding: chunked"), encoded).2,
        17 => (add("Transfer-Encoding:\r\n chunked"), encoded).1,
        18 => (add("Transfer-Encoding: \"chunked\""), encoded).1,
        19 => (add("Transfer-Encoding: chunked;q=1"), encoded).1,
        20 => (add(&format!("Content-Length: {}", length + 7)), payload).1,
        _ => (add(&format!("Content-Length: {}", length.saturating_sub(3))), payload).1,
    }
}

/// Changes a few bytes, wherever they are.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const BYTES: &[u8] = b"\r\n\0 \t:;,/%?#.0aF\x7f\x80\"";
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let length = (1 + random.below(12)).min(bytes.len() - at);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = BYTES[random.below(BYTES.len())],
            2 => bytes.insert(at, BYTES[random.below(BYTES.len())]),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let copy = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => bytes.truncate(at + 1),
            6 => bytes[at] = bytes[at].to_ascii_uppercase(),
            _ => {
                let other = random.below(bytes.len());
                bytes.swap(at, other);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
}
