//! `response`: what a backend sends, through the decoder. The first byte says what was asked and how the stream is
//! split; a head that is accepted is read again by an independent parser.

use bytes::{Bytes, BytesMut};
use doorward::wire::{HeadLimits, Part, ResponseBody, ResponseDecoder, Scanned, response_fields};
use http::{HeaderMap, Method};

const LIMITS: HeadLimits =
    HeadLimits { max_head_bytes: 2048, max_header_fields: 24, close_on_noise: false };

/// Decodes one stream whole and in pieces.
pub fn run(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let method = match seed & 3 {
        0 => Method::HEAD,
        1 => Method::CONNECT,
        _ => Method::GET,
    };
    let upgrade = seed & 7 == 7;
    let whole = Decoded::of(stream, usize::MAX, &method, upgrade);
    let pieces = Decoded::of(stream, usize::from(seed >> 3) + 1, &method, upgrade);
    whole.check(stream);
    if whole != pieces {
        // Only a long line that has not ended may be judged later in pieces. When it ends, both agree.
        let ended = [stream, b"\r\n"].concat();
        let whole = Decoded::of(&ended, usize::MAX, &method, upgrade);
        let pieces = Decoded::of(&ended, usize::from(seed >> 3) + 1, &method, upgrade);
        assert_eq!(whole, pieces, "the verdict depends on how the stream was split");
    }
}

/// What came out of the decoder.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decoded {
    /// Where the final head begins and ends in the stream.
    head: Option<(usize, usize)>,
    status: u16,
    fields: HeaderMap,
    payload: BytesMut,
    trailers: Option<HeaderMap>,
    over: bool,
    broken: Option<&'static str>,
    /// Bytes that belong to the response, while nothing is wrong with it.
    used: usize,
}

impl Decoded {
    fn of(stream: &[u8], piece: usize, method: &Method, upgrade: bool) -> Self {
        let mut this = Self::default();
        let mut decoder = ResponseDecoder::new(method, upgrade, LIMITS);
        let mut body = None;
        let (mut start, mut end) = (0, 0);
        while body.is_none() && end < stream.len() {
            end = end.saturating_add(piece).min(stream.len());
            while let Some(data @ [_, ..]) = stream.get(start..end) {
                match decoder.scan(data) {
                    Ok(Scanned::Partial) => break,
                    Ok(Scanned::Interim { len, status }) => {
                        assert!(len <= data.len() && (100..200).contains(&status.as_u16()));
                        start += len;
                    }
                    Ok(Scanned::Final(head)) => {
                        this.head = Some((start, start + head.len));
                        this.status = head.status.as_u16();
                        let whole = data.get(..head.len).unwrap_or_default();
                        assert_eq!(whole.len(), head.len, "a head is in its bytes");
                        this.fields = response_fields(&Bytes::copy_from_slice(whole));
                        start += head.len;
                        body = Some(head.body);
                        break;
                    }
                    Err(reason) => {
                        this.broken = Some(reason);
                        return this;
                    }
                }
            }
        }
        this.used = start;
        if let Some(body) = body {
            this.body(body, stream, start, end, piece);
        }
        this
    }

    fn body(
        &mut self,
        mut body: ResponseBody,
        stream: &[u8],
        from: usize,
        to: usize,
        piece: usize,
    ) {
        let mut at = from;
        let mut end = to;
        loop {
            let mut raw = Bytes::copy_from_slice(stream.get(at..end).unwrap_or_default());
            loop {
                let announced = body.left();
                match body.take(&mut raw) {
                    Ok(Part::Data(data)) => {
                        assert!(!data.is_empty(), "an empty part");
                        assert!(announced.is_none_or(|left| data.len() as u64 <= left));
                        self.payload.extend_from_slice(&data);
                    }
                    Ok(Part::Trailers(trailers)) => self.trailers = Some(trailers),
                    Ok(Part::End) => {
                        assert!(body.is_over());
                        self.over = true;
                        self.used = end - raw.len();
                        return;
                    }
                    Ok(Part::More) => break,
                    Err(reason) => {
                        self.broken = Some(reason);
                        self.used = 0;
                        return;
                    }
                }
            }
            at = end;
            self.used = end;
            if end == stream.len() {
                return;
            }
            end = end.saturating_add(piece).min(stream.len());
        }
    }

    /// Compares the head with what `httparse` makes of it.
    fn check(&self, stream: &[u8]) {
        let Some((start, end)) = self.head else { return };
        let head = stream.get(start..end).unwrap_or_default();
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut other = httparse::Response::new(&mut fields);
        assert_eq!(other.parse(head), Ok(httparse::Status::Complete(head.len())));
        assert_eq!(other.code, Some(self.status));
        assert_eq!(other.headers.len(), self.fields.len());
        for name in self.fields.keys() {
            let ours = self.fields.get_all(name).iter().map(|value| value.as_bytes().to_vec());
            let named =
                other.headers.iter().filter(|it| it.name.eq_ignore_ascii_case(name.as_str()));
            let theirs = named.map(|it| it.value.trim_ascii().to_vec());
            assert!(ours.eq(theirs), "{name}");
        }
    }
}
