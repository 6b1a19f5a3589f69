//! A name for each request, by which logs, backends and clients tell which one they mean.
//!
//! It names, and guards nothing: whoever knows it may do nothing that others may not.

use std::cell::Cell;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use http::HeaderValue;

/// Longest name that a trusted peer may have given.
const MAX_LENGTH: usize = 128;

/// A new name: 128 random bits in hexadecimal.
pub fn new() -> HeaderValue {
    let (high, low) = RANDOM.with(|random| {
        let mut state = random.get().unwrap_or_else(seed);
        let bits = (next(&mut state), next(&mut state));
        random.set(Some(state));
        bits
    });
    let mut text = [0; 32];
    for (digits, byte) in
        text.as_chunks_mut().0.iter_mut().zip([high, low].map(u64::to_be_bytes).as_flattened())
    {
        *digits = hexadecimal(*byte);
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Whether a name that a peer has given can be kept: it stands on one line, in logs as well.
pub fn is_sane(name: &HeaderValue) -> bool {
    let bytes = name.as_bytes();
    (1..=MAX_LENGTH).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

thread_local! {
    /// Each worker draws its own numbers, and asks the system for none but the first.
    static RANDOM: Cell<Option<[u64; 4]>> = const { Cell::new(None) };
}

/// Four random words, not all of them zero.
fn seed() -> [u64; 4] {
    let mut bytes = [[0; 8]; 4];
    if aws_lc_rs::rand::fill(bytes.as_flattened_mut()).is_err() {
        // The hasher's seed is another one for each thread of each process.
        let random = RandomState::default();
        return [1, 2, 3, 4].map(|word: u64| random.hash_one(word) | 1);
    }
    let mut words = bytes.map(u64::from_ne_bytes);
    if words == [0; 4] {
        words[0] = 1;
    }
    words
}

/// The next number (xoshiro256++, by Blackman and Vigna).
fn next(state: &mut [u64; 4]) -> u64 {
    let [a, b, c, d] = *state;
    let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
    let (c, d) = (c ^ a, d ^ b);
    *state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
    result
}

fn hexadecimal(byte: u8) -> [u8; 2] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    [digit(byte >> 4), digit(byte & 15)]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_requests_have_one_name() {
        let draw = || (0..10_000).map(|_| new()).collect::<Vec<_>>();
        let other = std::thread::spawn(draw);
        let names: HashSet<_> = draw().into_iter().chain(other.join().unwrap()).collect();
        assert_eq!(names.len(), 20_000);
        let digits = |name: &HeaderValue| {
            name.len() == 32 && name.as_bytes().iter().all(|b| b"0123456789abcdef".contains(b))
        };
        assert!(names.iter().all(|name| digits(name) && is_sane(name)));
        // Every digit of every place is drawn.
        for place in 0..32 {
            let drawn: HashSet<_> = names.iter().map(|name| name.as_bytes()[place]).collect();
            assert_eq!(drawn.len(), 16, "{place}");
        }
    }

    /// The first numbers of the reference implementation with the seed 1, 2, 3, 4.
    #[test]
    fn numbers_are_drawn_as_published() {
        let mut state = [1, 2, 3, 4];
        let drawn = [(); 3].map(|()| next(&mut state));
        assert_eq!(drawn, [41_943_041, 58_720_359, 3_588_806_011_781_223]);
    }

    #[test]
    fn names_from_others_must_be_sane() {
        for (name, sane) in [
            ("a", true),
            ("2f1d-~!{}", true),
            ("", false),
            ("a b", false),
            ("a\tb", false),
            ("\u{e4}", false),
        ] {
            assert_eq!(is_sane(&HeaderValue::from_bytes(name.as_bytes()).unwrap()), sane, "{name}");
        }
        let long = |length| HeaderValue::from_str(&"a".repeat(length)).unwrap();
        assert!(is_sane(&long(128)) && !is_sane(&long(129)));
    }
}
