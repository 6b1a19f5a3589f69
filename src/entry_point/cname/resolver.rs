//! Asks the DNS servers of a `resolv.conf` for aliases, over UDP.
//!
//! Each question has a socket and a number of its own, so that a reply is hard to forge, and of an alias and its reply
//! nothing is so long that it would need TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::dns::{self, Answer};

const PORT: u16 = 53;
/// As many as the system's own resolver asks.
const MAX_SERVERS: usize = 3;
const MAX_DEPTH: usize = 16;
/// Of a reply that is longer, the beginning will do.
const LONGEST_REPLY: usize = 1232;

/// What became of a lookup.
pub(super) enum Found {
    /// The name is an alias; the time is that of the first in a row of them.
    Alias {
        of: String,
        ttl: Duration,
    },
    NoAlias,
    NoAnswer,
}

/// The servers, and how they are asked.
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    attempts: usize,
    depth: usize,
}

impl Resolver {
    /// Reads `resolv.conf(5)`; a port may be given as `[address]:port`.
    pub(super) fn read(file: &Path, depth: usize) -> io::Result<Self> {
        let text = std::fs::read_to_string(file)?;
        let mut this = Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            attempts: 2,
            depth: depth.min(MAX_DEPTH),
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => this.servers.extend(words.next().and_then(server)),
                Some("options") => words.for_each(|option| this.set(option)),
                _ => {}
            }
        }
        if this.servers.is_empty() {
            this.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        this.servers.truncate(MAX_SERVERS);
        Ok(this)
    }

    fn set(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u8>() else { return };
        match name {
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5).into(),
            _ => {}
        }
    }

    /// Follows the aliases that start at `name`.
    pub(super) async fn flatten(&self, name: &str) -> Found {
        let mut last: Option<(String, Duration)> = None;
        for _ in 0..self.depth {
            let (asked, kept) = match &last {
                Some((alias, ttl)) => (alias.as_str(), Some(*ttl)),
                None => (name, None),
            };
            match self.ask(asked).await {
                Answer::Alias { of, ttl } if !of.is_empty() => {
                    let ttl = kept.unwrap_or(Duration::from_secs(ttl.into()));
                    last = Some((of, ttl));
                }
                Answer::Failed if kept.is_none() => return Found::NoAnswer,
                _ => break,
            }
        }
        last.map_or(Found::NoAlias, |(of, ttl)| Found::Alias { of, ttl })
    }

    /// The first answer of a server that knows one.
    async fn ask(&self, name: &str) -> Answer {
        for _ in 0..self.attempts {
            for &server in &self.servers {
                match timeout(self.timeout, exchange(server, name)).await {
                    Ok(Ok(Answer::Failed)) | Err(_) => {}
                    Ok(Ok(answer)) => return answer,
                    Ok(Err(error)) => tracing::debug!(%server, %error, "no answer from DNS"),
                }
            }
        }
        Answer::Failed
    }
}

async fn exchange(server: SocketAddr, name: &str) -> io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(io::Error::other)?;
    let id = u16::from_be_bytes(id);
    let question = dns::question(id, name).ok_or(io::ErrorKind::InvalidInput)?;
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, so that only this server is heard.
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut reply = [0; LONGEST_REPLY];
    loop {
        let length = socket.recv(&mut reply).await?;
        if let Some(answer) = dns::read(reply.get(..length).unwrap_or_default(), id, name) {
            return Ok(answer);
        }
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return Some((address.parse::<IpAddr>().ok()?, port.parse().ok()?).into());
    }
    Some((text.parse::<IpAddr>().ok()?, PORT).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Resolver {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("resolv.conf");
        std::fs::write(&file, text).unwrap();
        Resolver::read(&file, 100).unwrap()
    }

    /// ST-12
    #[test]
    fn the_systems_file_is_read() {
        let resolver = read(
            "# comment\nsearch a.test\nnameserver 10.0.0.1\nnameserver fd00::1 ; second\nnameserver x\n\
             nameserver [10.0.0.3]:5353\nnameserver 10.0.0.4\noptions ndots:5 timeout:1 attempts:3 rotate\n",
        );
        let want = ["10.0.0.1:53", "[fd00::1]:53", "10.0.0.3:5353"];
        assert_eq!(resolver.servers, want.map(|one| one.parse().unwrap()));
        assert_eq!((resolver.timeout, resolver.attempts), (Duration::from_secs(1), 3));
        assert_eq!(resolver.depth, MAX_DEPTH);
        let resolver = read("");
        assert_eq!(resolver.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert!(Resolver::read(Path::new("/nonexistent/resolv.conf"), 5).is_err());
    }
}
