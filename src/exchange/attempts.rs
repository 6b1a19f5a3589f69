//! What the attempts of one client request share: the servers that were tried, and what was proven.
//!
//! Whoever may send a request again puts it into the request's extensions before the first attempt;
//! where nobody does, nobody takes notes and nothing is paid.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use smallvec::SmallVec;

use super::Request;

/// In the extensions of a request: see the module.
#[derive(Clone, Default)]
pub struct Attempts(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    /// URLs of servers, the last one at the end.
    tried: Servers,
    /// URLs of servers that could not be reached when they were tried last.
    lost: Servers,
    /// `tried` is only the last server of a round that is over.
    round_is_over: bool,
    proven: SmallVec<[(usize, HeaderValue); 1]>,
}

type Servers = SmallVec<[Arc<str>; 4]>;

/// More servers than anybody tries; who tries more may meet the first of them again.
const MOST_SERVERS: usize = 32;

impl Attempts {
    /// Makes attempts at this request share something, if they do not yet.
    pub fn begin(request: &mut Request) {
        request.extensions_mut().get_or_insert_default::<Self>();
    }

    /// What the attempts at this request share, if it may be sent again.
    pub fn of(request: &Request) -> Option<&Self> {
        request.extensions().get()
    }

    /// Takes note of the server that this attempt goes to, by its URL.
    pub fn note(&self, server: &Arc<str>) {
        self.with(|notes| {
            if std::mem::take(&mut notes.round_is_over) {
                notes.tried.clear();
            }
            notes.tried.retain(|tried| tried != server);
            if notes.tried.len() >= MOST_SERVERS {
                notes.tried.remove(0);
            }
            notes.tried.push(Arc::clone(server));
            notes.lost.retain(|lost| lost != server);
        });
    }

    /// Takes note that the server of this attempt could not be reached.
    pub fn lose(&self, server: &Arc<str>) {
        self.with(|notes| {
            if notes.lost.len() < MOST_SERVERS && !notes.lost.contains(server) {
                notes.lost.push(Arc::clone(server));
            }
        });
    }

    /// The servers that could not be reached when they were tried last.
    pub fn lost(&self) -> SmallVec<[Arc<str>; 4]> {
        self.with(|notes| notes.lost.clone())
    }

    /// What `pick` finds when it is told whom to avoid: servers that were tried. When there are no
    /// others, a new round begins, and only the last one is avoided while there is another.
    pub fn pick<T>(attempts: Option<&Self>, pick: impl Fn(&[Arc<str>]) -> Option<T>) -> Option<T> {
        let tried = attempts.map(|attempts| attempts.with(|notes| notes.tried.clone()));
        let (Some(attempts), Some([_, ..])) = (attempts, tried.as_deref()) else {
            return pick(&[]);
        };
        pick(tried.as_deref().unwrap_or_default()).or_else(|| {
            let last = attempts.with(|notes| {
                notes.round_is_over = true;
                notes.tried.drain(..notes.tried.len().saturating_sub(1));
                notes.tried.clone()
            });
            pick(&last).or_else(|| pick(&[]))
        })
    }

    /// Takes note that `checker` was convinced by `proof`, which may be good only once.
    pub fn prove(&self, checker: usize, proof: &HeaderValue) {
        self.with(|notes| notes.proven.push((checker, proof.clone())));
    }

    /// Whether an attempt before this one has convinced `checker` by the same proof.
    pub fn has_proven(&self, checker: usize, proof: &HeaderValue) -> bool {
        self.with(|notes| notes.proven.iter().any(|(by, what)| *by == checker && what == proof))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Notes) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Body;

    fn server(name: &str) -> Arc<str> {
        name.into()
    }

    /// The first of `servers` that is not avoided.
    fn pick(attempts: &Attempts, servers: &[&str]) -> Option<String> {
        Attempts::pick(Some(attempts), |avoid| {
            let free = |name: &&&str| avoid.iter().all(|avoided| **avoided != ***name);
            servers.iter().find(free).map(ToString::to_string)
        })
    }

    #[test]
    fn attempts_go_round() {
        let mut request = Request::new(Body::empty());
        assert!(Attempts::of(&request).is_none());
        Attempts::begin(&mut request);
        let attempts = Attempts::of(&request).unwrap().clone();
        // Whoever begins again, and whatever copy is made, has the same notes.
        Attempts::begin(&mut request);
        let picked: Vec<_> = (0..7)
            .map(|_| {
                let picked = pick(Attempts::of(&request).unwrap(), &["a", "b", "c"]).unwrap();
                attempts.note(&server(&picked));
                picked
            })
            .collect();
        assert_eq!(picked, ["a", "b", "c", "a", "b", "c", "a"]);
        assert_eq!(pick(&attempts, &["a"]).as_deref(), Some("a"), "nobody else is up");
        assert_eq!(pick(&attempts, &[]), None);
        assert_eq!(Attempts::pick(None, |avoid| Some(avoid.len())), Some(0));
    }

    #[test]
    fn notes_have_a_bound() {
        let attempts = Attempts::default();
        for number in 0..100 {
            attempts.note(&server(&number.to_string()));
            attempts.note(&server("last"));
        }
        assert_eq!(Attempts::pick(Some(&attempts), |avoid| Some(avoid.len())), Some(MOST_SERVERS));
        for number in 0..100 {
            attempts.lose(&server(&number.to_string()));
        }
        assert_eq!(attempts.lost().len(), MOST_SERVERS);
    }

    #[test]
    fn who_is_tried_again_is_not_lost_yet() {
        let attempts = Attempts::default();
        let (a, b) = (server("a"), server("b"));
        for one in [&a, &b, &a] {
            attempts.note(one);
            attempts.lose(one);
        }
        assert_eq!(attempts.lost()[..], [b.clone(), a.clone()]);
        attempts.note(&b);
        assert_eq!(attempts.lost()[..], [a]);
    }

    #[test]
    fn a_proof_is_known_to_whom_it_convinced() {
        let attempts = Attempts::default();
        let proof = HeaderValue::from_static("Digest 1");
        attempts.prove(1, &proof);
        assert!(attempts.has_proven(1, &proof));
        assert!(!attempts.has_proven(2, &proof));
        assert!(!attempts.has_proven(1, &HeaderValue::from_static("Digest 2")));
    }
}
