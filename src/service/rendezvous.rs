//! Rendezvous hashing as Traefik does it: the same client gets the same member from either proxy.
//!
//! Each member has a score of its own for each client, so a member that goes takes only its own
//! clients along, and they come back with it.

/// Who is chosen among, with what their scores are made of.
pub(super) struct Rendezvous(Box<[Member]>);

struct Member {
    name: Box<[u8]>,
    /// Zero is never picked.
    weight: u64,
}

impl Rendezvous {
    /// A choice among members with these names and weights.
    pub(super) fn new<'a>(members: impl Iterator<Item = (&'a str, u64)>) -> Self {
        let member = |(name, weight): (&str, u64)| Member { name: name.as_bytes().into(), weight };
        Self(members.map(member).collect())
    }

    /// Picks the `available` member with the highest score for `client`; the first of equals.
    pub(super) fn pick(&self, client: &[u8], available: impl Fn(usize) -> bool) -> Option<usize> {
        let hash = fnv1a(OFFSET, client);
        let mut best: Option<(usize, f64)> = None;
        for (at, member) in self.0.iter().enumerate() {
            if member.weight == 0 || !available(at) {
                continue;
            }
            let score = score(fnv1a(hash, &member.name), member.weight);
            if best.is_none_or(|(_, highest)| score > highest) {
                best = Some((at, score));
            }
        }
        best.map(|(at, _)| at)
    }
}

#[expect(clippy::cast_precision_loss, reason = "Traefik's scores are made of floats as well")]
fn score(hash: u64, weight: u64) -> f64 {
    const RANGE: f64 = 18_446_744_073_709_551_616.0;
    weight as f64 / -(hash as f64 / RANGE).ln()
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits, from where `hash` has come to.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: usize) -> bool {
        true
    }

    fn clients() -> impl Iterator<Item = String> {
        (0..4000).map(|n| format!("10.1.{}.{}", n / 250, n % 250))
    }

    /// RP-5.3: the published vectors of FNV-1a, and scores from its formula.
    #[test]
    fn scores_are_traefiks() {
        assert_eq!(fnv1a(OFFSET, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(fnv1a(fnv1a(OFFSET, b"foo"), b"bar"), fnv1a(OFFSET, b"foobar"));
        // One half: 3 / -ln(0.5).
        assert!((score(1 << 63, 3) - 3.0 / std::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn shares_follow_the_weights() {
        let servers = [("http://10.0.0.1:8069", 3), ("http://10.0.0.2:8069", 1), ("never", 0)];
        let choice = Rendezvous::new(servers.into_iter());
        let mut counts = [0_u32; 3];
        for client in clients() {
            counts[choice.pick(client.as_bytes(), all).unwrap()] += 1;
        }
        assert!((2800..3200).contains(&counts[0]), "{counts:?}");
        assert_eq!((counts[0] + counts[1], counts[2]), (4000, 0));
    }

    /// A weakness of Traefik's hash: the last character hardly moves the score, so that of two
    /// names that differ in nothing else the heavier one gets everybody.
    #[test]
    fn names_that_differ_at_their_end_only_do_not_share_by_weight() {
        let equal = Rendezvous::new([("app-1", 1), ("app-2", 1)].into_iter());
        let first = |choice: &Rendezvous| {
            clients().filter(|client| choice.pick(client.as_bytes(), all) == Some(0)).count()
        };
        assert!((1500..2500).contains(&first(&equal)), "{}", first(&equal));
        let unequal = Rendezvous::new([("app-1", 3), ("app-2", 1)].into_iter());
        assert_eq!(first(&unequal), 4000);
    }

    #[test]
    fn who_goes_takes_only_its_own_clients_along() {
        let choice = Rendezvous::new([("a", 1), ("b", 1), ("c", 1)].into_iter());
        for client in clients() {
            let client = client.as_bytes();
            let before = choice.pick(client, all).unwrap();
            assert_eq!(choice.pick(client, all), Some(before));
            let after = choice.pick(client, |at| at != 1).unwrap();
            assert!(if before == 1 { after != 1 } else { after == before });
        }
    }

    #[test]
    fn whoever_is_left_is_picked_and_nobody_is_an_answer() {
        let choice = Rendezvous::new([("a", 0), ("b", 1)].into_iter());
        assert_eq!(choice.pick(b"", |at| at == 1), Some(1));
        assert_eq!(choice.pick(b"", |at| at == 0), None);
        assert_eq!(Rendezvous::new(std::iter::empty()).pick(b"::1", all), None);
        // The extremes of the hash have scores as well.
        assert!(score(0, 1) >= 0.0 && !score(u64::MAX, 1).is_nan());
    }
}
