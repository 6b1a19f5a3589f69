//! Which encoding a response gets: what `Accept-Encoding` says (RFC 9110, 12.5.3) and in which
//! order the operator prefers.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// An encoding that can be made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Brotli,
    Zstd,
}

impl Encoding {
    /// The encoding with this name, as it is configured.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "gzip" => Some(Self::Gzip),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// What was chosen for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) encoding: Encoding,
    /// The client wrote the name; otherwise `*` or the default has led here.
    pub(super) by_name: bool,
}

/// The operator's side of the choice.
#[derive(Debug)]
pub(super) struct Choice {
    /// The first is the best.
    pub(super) encodings: Box<[Encoding]>,
    pub(super) default: Option<Encoding>,
}

/// Weights are in thousandths; 0 is "not acceptable".
type Weight = u16;

const FULL: Weight = 1000;

impl Choice {
    /// The encoding for the response to a request with these headers; `None`: none.
    pub(super) fn choose(&self, headers: &HeaderMap) -> Option<Chosen> {
        let mut lines = headers.get_all(ACCEPT_ENCODING).iter().peekable();
        if lines.peek().is_none() {
            let encoding = self.default?;
            return Some(Chosen { encoding, by_name: false });
        }
        let mut accepted = Accepted::default();
        for line in lines {
            for item in line.as_bytes().split(|&byte| byte == b',') {
                accepted.add(item);
            }
        }
        self.best(&accepted)
    }

    fn best(&self, accepted: &Accepted) -> Option<Chosen> {
        let mut best: Option<(Encoding, Weight)> = None;
        for &encoding in &self.encodings {
            let weight = accepted.weight(encoding);
            if weight > best.map_or(0, |(_, weight)| weight) {
                best = Some((encoding, weight));
            }
        }
        let (mut encoding, weight) = best?;
        if accepted.identity.is_some_and(|identity| identity > weight) {
            return None;
        }
        // `*` asks for what the operator likes best, which is the default if there is one.
        if let Some(default) = self.default
            && accepted.wildcard == Some(weight)
            && accepted.weight(default) == weight
        {
            encoding = default;
        }
        Some(Chosen { encoding, by_name: accepted.named(encoding).is_some() })
    }
}

/// What a request says of the encodings that matter here.
#[derive(Debug, Default)]
struct Accepted {
    gzip: Option<Weight>,
    brotli: Option<Weight>,
    zstd: Option<Weight>,
    identity: Option<Weight>,
    wildcard: Option<Weight>,
}

impl Accepted {
    fn add(&mut self, item: &[u8]) {
        let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let place = if name.eq_ignore_ascii_case(b"gzip") {
            &mut self.gzip
        } else if name.eq_ignore_ascii_case(b"br") {
            &mut self.brotli
        } else if name.eq_ignore_ascii_case(b"zstd") {
            &mut self.zstd
        } else if name.eq_ignore_ascii_case(b"identity") {
            &mut self.identity
        } else if name == b"*" {
            &mut self.wildcard
        } else {
            return;
        };
        let weight = parts.find_map(quality).unwrap_or(FULL);
        *place = Some(place.map_or(weight, |before| before.max(weight)));
    }

    fn named(&self, encoding: Encoding) -> Option<Weight> {
        match encoding {
            Encoding::Gzip => self.gzip,
            Encoding::Brotli => self.brotli,
            Encoding::Zstd => self.zstd,
        }
    }

    /// `*` stands for what is not named.
    fn weight(&self, encoding: Encoding) -> Weight {
        self.named(encoding).or(self.wildcard).unwrap_or(0)
    }
}

/// The weight that a parameter says; `None` when it says something else.
fn quality(parameter: &[u8]) -> Option<Weight> {
    let at = parameter.iter().position(|&byte| byte == b'=')?;
    let (name, value) = parameter.split_at(at);
    if !name.trim_ascii().eq_ignore_ascii_case(b"q") {
        return None;
    }
    Some(weight(value.get(1..).unwrap_or_default().trim_ascii()))
}

/// Reads a `qvalue`. What is none is 0: nobody is sent what he may not understand.
fn weight(text: &[u8]) -> Weight {
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, &b""[..]),
    };
    let digits = whole.iter().chain(fraction);
    if (whole.is_empty() && fraction.is_empty()) || !digits.clone().all(u8::is_ascii_digit) {
        return 0;
    }
    if whole.iter().any(|&digit| digit != b'0') {
        return FULL;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| Weight::from(digit - b'0'));
    digit(0) * 100 + digit(1) * 10 + digit(2)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn choice(encodings: &[Encoding], default: Option<Encoding>) -> Choice {
        Choice { encodings: encodings.into(), default }
    }

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    #[test]
    fn the_highest_weight_wins_and_the_operators_order_breaks_ties() {
        use Encoding::{Brotli, Gzip, Zstd};
        for (encodings, default, lines, want) in [
            (&ALL[..], None, &["gzip, deflate, br, zstd"][..], Some(Gzip)),
            (&[Zstd, Brotli, Gzip], None, &["gzip, deflate, br, zstd"], Some(Zstd)),
            (&ALL, None, &["br;q=0.9, gzip;q=0.8"], Some(Brotli)),
            (&ALL, None, &["br;q=0.9", "gzip;q=0.8", "zstd"], Some(Zstd)),
            (&ALL, None, &["GZIP ; Q=0.5"], Some(Gzip)),
            (&ALL, None, &["gzip;q=0, br;q=0.001"], Some(Brotli)),
            (&ALL, None, &["gzip;q=0"], None),
            (&ALL, None, &["gzip;q=nonsense"], None),
            (&ALL, None, &["gzip;q=-1, br;q=1.5"], Some(Brotli)),
            (&ALL, None, &["deflate, compress, x-gzip"], None),
            (&ALL, None, &[""], None),
            (&ALL, Some(Brotli), &[""], None),
            (&ALL, None, &[], None),
            (&ALL, Some(Brotli), &[], Some(Brotli)),
            (&ALL, Some(Brotli), &["gzip, br"], Some(Gzip)),
            (&ALL, None, &["*"], Some(Gzip)),
            (&ALL, Some(Zstd), &["*"], Some(Zstd)),
            (&ALL, Some(Zstd), &["gzip, *"], Some(Zstd)),
            (&ALL, Some(Zstd), &["gzip, *;q=0.5"], Some(Gzip)),
            (&ALL, None, &["gzip;q=0, *"], Some(Brotli)),
            (&ALL, Some(Gzip), &["gzip;q=0, *"], Some(Brotli)),
            (&ALL, None, &["*;q=0"], None),
            (&ALL, None, &["identity"], None),
            (&ALL, None, &["identity, gzip"], Some(Gzip)),
            (&ALL, None, &["identity, gzip;q=0.5"], None),
            (&ALL, None, &["identity;q=0.5, *;q=0.1"], None),
            (&[Brotli], None, &["gzip, *;q=0.1"], Some(Brotli)),
            (&[Brotli], None, &["gzip, zstd"], None),
        ] {
            let chosen = choice(encodings, default).choose(&headers(lines));
            assert_eq!(chosen.map(|chosen| chosen.encoding), want, "{lines:?} {default:?}");
        }
    }

    #[test]
    fn who_asked_by_name_is_known() {
        let choice = choice(&ALL, Some(Encoding::Gzip));
        for (lines, by_name) in
            [(&["gzip"][..], true), (&["*"], false), (&[], false), (&["gzip, *"], true)]
        {
            assert_eq!(choice.choose(&headers(lines)).unwrap().by_name, by_name, "{lines:?}");
        }
    }

    proptest! {
        /// Whatever comes, nothing is chosen that the client has refused or never heard of.
        #[test]
        fn nobody_gets_what_he_refuses(
            items in proptest::collection::vec(
                ("(gzip|br|zstd|identity|deflate|\\*)", 0..=1000_u16), 0..6,
            ),
        ) {
            let line: Vec<_> = items
                .iter()
                .map(|(name, q)| format!("{name};q={}.{:03}", q / 1000, q % 1000))
                .collect();
            let chosen = choice(&ALL, None).choose(&headers(&[&line.join(", ")]));
            let highest = |name: &str| {
                items.iter().filter(|(known, _)| known == name).map(|&(_, q)| q).max()
            };
            let star = highest("*").unwrap_or(0);
            let of = |name| highest(name).unwrap_or(star);
            let best = ["gzip", "br", "zstd"].into_iter().map(of).max().unwrap_or(0);
            match chosen {
                None => prop_assert!(best == 0 || highest("identity").is_some_and(|q| q > best)),
                Some(chosen) => prop_assert_eq!(of(chosen.encoding.name()), best),
            }
        }

        #[test]
        fn any_bytes_are_read(line in proptest::collection::vec(b' '..=b'~', 0..64)) {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_bytes(&line).unwrap());
            let text = String::from_utf8(line).unwrap().to_ascii_lowercase();
            if let Some(chosen) = choice(&ALL, None).choose(&headers) {
                prop_assert!(text.contains(chosen.encoding.name()) || text.contains('*'));
            }
        }
    }
}
