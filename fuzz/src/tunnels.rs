//! `tunnels`: lines that name a proxy, who is exempt from it and a server, and behind them what the proxy answers when
//! it is asked for a tunnel. No byte behind its answer is read, and no password is told.

use doorward::upstream::proxy::{ForwardProxy, connect, socks5};
use doorward::upstream::{Proxies, Target};

use super::pieces::{Pieces, wait};

/// Reads the environment, and both kinds of handshake.
pub fn run(data: &[u8]) {
    let mut lines = data.splitn(4, |&byte| byte == b'\n');
    let mut text = || str::from_utf8(lines.next().unwrap_or_default()).ok();
    let (Some(url), Some(exempt), Some(server)) = (text(), text(), text()) else { return };
    let answer = lines.next().unwrap_or_default();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let variables =
        [variable("HTTP_PROXY", url), variable("https_proxy", url), variable("NO_PROXY", exempt)];
    let proxies = match Proxies::read(&variables) {
        Ok(proxies) => proxies,
        Err(error) => return assert_no_password(url, exempt, &error.message),
    };
    assert_no_password(url, exempt, &proxies.notice().unwrap_or_default());
    assert_no_password(url, exempt, &format!("{proxies:?}"));
    let Ok(target) = Target::parse(server) else { return };
    let Some(proxy) = proxies.to(&target) else { return };
    assert!(target.ip().is_none_or(|ip| !ip.is_loopback()), "{server} through a proxy");
    for socks in [false, true] {
        let whole = Tunnel::open(&proxy, &target, socks, answer, usize::MAX);
        let pieces = Tunnel::open(&proxy, &target, socks, answer, 3);
        assert_eq!(whole, pieces, "the tunnel depends on how the answer was split");
        whole.check(answer, socks);
    }
}

/// Nothing of what stands before the host, where that is long enough to be told from anything else.
fn assert_no_password(url: &str, exempt: &str, told: &str) {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let Some((user, _)) = authority.rsplit_once('@') else { return };
    let Some((_, password)) = user.split_once(':') else { return };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_word = password.bytes().all(plain) && password.bytes().any(|it| it.is_ascii_digit());
    let lower = password.to_ascii_lowercase();
    let is_elsewhere =
        exempt.to_ascii_lowercase().contains(&lower) || url.matches(password).count() > 1;
    if password.len() >= 6 && is_word && !is_elsewhere {
        assert!(!told.contains(password), "{told:?} tells {password:?}");
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Tunnel {
    result: Result<(), String>,
    asked: Vec<u8>,
    left: usize,
}

impl Tunnel {
    fn open(
        proxy: &ForwardProxy,
        target: &Target,
        socks: bool,
        answer: &[u8],
        piece: usize,
    ) -> Self {
        let mut stream = Pieces::new(answer, piece);
        let (host, port) = (target.host(), target.port());
        let result = wait(async {
            if socks {
                socks5(&mut stream, proxy, host, port).await
            } else {
                connect(&mut stream, proxy, host, port).await
            }
        });
        let result = result.map_err(|error| error.to_string());
        Self { result, left: stream.rest.len(), asked: stream.heard }
    }

    fn check(&self, answer: &[u8], socks: bool) {
        let read = answer.get(..answer.len() - self.left).unwrap_or_default();
        if socks {
            assert!(matches!(*self.asked, [5, 1, 0, ..] | [5, 2, 0, 2, ..]), "{:?}", self.asked);
            assert!(self.result.is_err() || matches!(*read, [5, 0 | 2, ..]), "{read:?}");
            return;
        }
        let mut fields = [httparse::EMPTY_HEADER; 4];
        let mut asked = httparse::Request::new(&mut fields);
        let whole = Ok(httparse::Status::Complete(self.asked.len()));
        assert_eq!(asked.parse(&self.asked), whole, "{}", self.asked.escape_ascii());
        assert_eq!(asked.method, Some("CONNECT"));
        assert!(asked.headers.len() <= 2, "{} was added", self.asked.escape_ascii());
        if self.result.is_ok() {
            assert!(read.ends_with(b"\r\n\r\n"), "{} is not over", read.escape_ascii());
        }
    }
}
