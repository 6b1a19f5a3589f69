//! `doorward healthcheck`: one HEAD request for `/ping`, in clear text, within five seconds.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use crate::config::entry_points::Address;
use crate::config::static_config::StaticConfig;

/// What `doorward healthcheck --help` prints.
pub const USAGE: &str = "usage: doorward healthcheck [flags]\n\n\
    Asks a running proxy on this machine for `/ping`, at the entry point that `ping.entryPoint` of\n\
    the static configuration names. Flags, environment and files say where that is, as for the\n\
    proxy itself: --configFile, --ping.entrypoint, --entrypoints.<name>.address. Exit code: 0 when\n\
    it answers 200 within five seconds, else 1.\n";

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the proxy that runs with `config`. Returns the URL that answered 200.
pub fn ask(config: &StaticConfig) -> anyhow::Result<String> {
    let ping =
        config.ping.as_ref().ok_or_else(|| anyhow!("please enable `ping` to use health check"))?;
    let entry_point = config
        .entry_points
        .get(&ping.entry_point)
        .ok_or_else(|| anyhow!("ping: missing `{}` entry point", ping.entry_point))?;
    let address: Address = entry_point.address.parse()?;
    let url = format!("http://{}/ping", address.host_port());
    let host = if address.host.is_empty() { "localhost" } else { &address.host };
    judge(head((host, address.port), &address.host_port()))?;
    Ok(url)
}

/// Asks the entry point that listens there.
pub fn ask_at(address: SocketAddr) -> anyhow::Result<()> {
    judge(head(address, &address.to_string()))
}

fn judge(status: anyhow::Result<u16>) -> anyhow::Result<()> {
    match status.context("Error calling healthcheck")? {
        200 => Ok(()),
        status => bail!("Bad healthcheck status: {status}"),
    }
}

fn head(place: impl ToSocketAddrs, host: &str) -> anyhow::Result<u16> {
    let mut last = None;
    for target in place.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&target, TIMEOUT) {
            Ok(stream) => stream,
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let request = format!("HEAD /ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        // The first line is all that is needed, and not everybody closes behind the head.
        let mut answer = Vec::new();
        BufReader::new(stream.take(4096)).read_until(b'\n', &mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        return status.ok_or_else(|| anyhow!("the answer is not HTTP"));
    }
    Err(last.map_or_else(|| anyhow!("it has no address"), Into::into))
}
