//! Passwords against the hashes that `htpasswd` writes: bcrypt, MD5-crypt and `{SHA}`.
//!
//! Comparing takes the same time wherever two hashes differ.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use sha1::Sha1;

/// Nobody types more; hashing it a thousand times would be work that a client can order.
const LONGEST: usize = 1024;

/// A stored hash, read.
#[derive(Clone)]
pub(super) enum StoredHash {
    /// `$2a$`, `$2b$`, `$2x$`, `$2y$`
    Bcrypt(Arc<str>),
    /// `$apr1$`, `$1$`
    Md5Crypt {
        /// The prefix, with both `$`.
        magic: &'static str,
        /// At most eight characters.
        salt: Arc<str>,
        /// What follows the salt.
        digest: Arc<str>,
    },
    /// `{SHA}`
    Sha1(Arc<str>),
    /// Any other form, which no password matches.
    Unknown,
}

impl StoredHash {
    /// Reads a hash.
    pub(super) fn parse(text: &str) -> Self {
        if let Some(digest) = text.strip_prefix("{SHA}") {
            return Self::Sha1(digest.into());
        }
        for magic in ["$apr1$", "$1$"] {
            if let Some((salt, digest)) =
                text.strip_prefix(magic).and_then(|rest| rest.split_once('$'))
            {
                return Self::Md5Crypt { magic, salt: cut(salt).into(), digest: digest.into() };
            }
        }
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            return Self::Bcrypt(text.into());
        }
        Self::Unknown
    }

    /// Whether there can be a password that it is the hash of.
    pub(super) fn can_match(&self) -> bool {
        match self {
            Self::Bcrypt(text) => {
                let cost = text.get(4..6).and_then(|cost| cost.parse::<u32>().ok());
                cost.is_some_and(|cost| (4..=31).contains(&cost))
                    && text.parse::<bcrypt::HashParts>().is_ok()
            }
            Self::Md5Crypt { digest, .. } => {
                digest.len() == 22 && digest.bytes().all(|byte| ALPHABET.contains(&byte))
            }
            Self::Sha1(digest) => STANDARD.decode(&**digest).is_ok_and(|sum| sum.len() == 20),
            Self::Unknown => false,
        }
    }

    /// How much work a check is, roughly, in powers of two of the cheapest.
    pub(super) fn cost(&self) -> u32 {
        match self {
            Self::Bcrypt(text) => {
                20 + text.get(4..6).and_then(|cost| cost.parse().ok()).unwrap_or(0)
            }
            Self::Md5Crypt { .. } => 10,
            Self::Sha1(_) => 1,
            Self::Unknown => 0,
        }
    }

    /// Whether this is the password.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let typed = password.get(..LONGEST).unwrap_or(password);
        let equal = match self {
            Self::Bcrypt(hash) => bcrypt::verify(typed, hash).unwrap_or(false),
            Self::Md5Crypt { magic, salt, digest } => {
                let made = md5_crypt(typed, salt.as_bytes(), magic.as_bytes());
                verify_slices_are_equal(&made, digest.as_bytes()).is_ok()
            }
            Self::Sha1(digest) => {
                let made = STANDARD.encode(Sha1::digest(typed));
                verify_slices_are_equal(made.as_bytes(), digest.as_bytes()).is_ok()
            }
            Self::Unknown => false,
        };
        equal && typed.len() == password.len()
    }
}

fn cut(salt: &str) -> &str {
    salt.get(..8).unwrap_or(salt)
}

/// Poul-Henning Kamp's MD5-crypt, and Apache's variant of it, which differs in the prefix alone.
fn md5_crypt(password: &[u8], salt: &[u8], magic: &[u8]) -> [u8; 22] {
    let mut inner = Md5::new();
    for part in [password, salt, password] {
        inner.update(part);
    }
    let mut digest = inner.finalize();
    let mut outer = Md5::new();
    for part in [password, magic, salt] {
        outer.update(part);
    }
    for chunk in password.chunks(16) {
        outer.update(digest.get(..chunk.len()).unwrap_or_default());
    }
    let mut length = password.len();
    while length > 0 {
        // The original meant another byte here; every implementation keeps the slip.
        outer.update(if length & 1 == 1 { &[0] } else { password.get(..1).unwrap_or_default() });
        length >>= 1;
    }
    digest = outer.finalize();
    for round in 0..1000 {
        let odd = round & 1 == 1;
        let mut next = Md5::new();
        next.update(if odd { password } else { &digest[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest[..] } else { password });
        digest = next.finalize();
    }
    encode(&digest[..])
}

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes the digest in the alphabet and order of `crypt`.
fn encode(digest: &[u8]) -> [u8; 22] {
    const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let byte = |at: usize| u32::from(digest.get(at).copied().unwrap_or_default());
    let mut groups = [0_u32; 6];
    for (group, [high, middle, low]) in groups.iter_mut().zip(ORDER) {
        *group = byte(high) << 16 | byte(middle) << 8 | byte(low);
    }
    groups[5] = byte(11);
    let mut out = [b'.'; 22];
    for (at, place) in out.iter_mut().enumerate() {
        let group = groups.get(at / 4).copied().unwrap_or_default();
        let digit = (group >> (6 * (at % 4))) & 0x3f;
        *place = ALPHABET.get(digit as usize).copied().unwrap_or(b'.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes_match_their_password_only() {
        for (password, hash) in [
            ("test", "$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"),
            ("test2", "$apr1$d9hr9HBB$4HxwgUir3HP4EsggP/QNo0"),
            ("test", "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="),
            ("test", "$1$abcdefgh$irWbblnpmw.5z7wgBnprh0"),
        ] {
            let stored = StoredHash::parse(hash);
            assert!(stored.matches(password.as_bytes()), "{hash}");
            assert!(stored.can_match(), "{hash}");
            for wrong in ["", "Test", "test\0", "testtesttesttesttest"] {
                assert!(!stored.matches(wrong.as_bytes()), "{hash} {wrong}");
            }
        }
    }

    #[test]
    fn bcrypt_matches_under_every_prefix() {
        let hash = bcrypt::hash("pä", 4).unwrap();
        for prefix in ["$2a$", "$2b$", "$2x$", "$2y$"] {
            let stored = StoredHash::parse(&format!("{prefix}{}", &hash[4..]));
            assert_eq!(stored.cost(), 24);
            assert!(stored.can_match());
            assert!(stored.matches("pä".as_bytes()));
            assert!(!stored.matches(b"pa"));
        }
    }

    #[test]
    fn other_forms_never_match() {
        for hash in [
            "",
            "test",
            "$5$salt$x",
            "$6$salt$x",
            "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
            "$2z$04$x",
            "$2y$",
            "$2y$10$abcdefghijklmnopqrstuu",
            "$2y$99$abcdefghijklmnopqrstuuW3p0Yw7mBdKQ8HhX2v9zN1sT4rLkJmC",
            "$apr1$",
            "$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8w",
            "{SHA}",
            "{SHA}qUqP5cyxm6YcTAhz05Hph5gv",
            "{sha}x",
        ] {
            let stored = StoredHash::parse(hash);
            assert!(!stored.can_match(), "{hash}");
            for password in ["", "test", hash] {
                assert!(!stored.matches(password.as_bytes()), "{hash} {password}");
            }
        }
    }

    #[test]
    fn a_password_that_is_too_long_never_matches() {
        let long = vec![b'x'; LONGEST];
        let stored = StoredHash::Sha1(STANDARD.encode(Sha1::digest(&long)).into());
        assert!(stored.matches(&long));
        assert!(!stored.matches(&[&long[..], b"x"].concat()));
    }
}
