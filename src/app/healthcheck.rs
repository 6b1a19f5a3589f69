//! `doorward healthcheck`: one HEAD request for `/ping`, in clear text, within five seconds.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
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
    let status = head(&address).context("Error calling healthcheck")?;
    if status != 200 {
        bail!("Bad healthcheck status: {status}");
    }
    Ok(url)
}

fn head(address: &Address) -> anyhow::Result<u16> {
    let host = if address.host.is_empty() { "localhost" } else { &address.host };
    let mut last = None;
    for target in (host, address.port).to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&target, TIMEOUT) {
            Ok(stream) => stream,
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let request = format!(
            "HEAD /ping HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            address.host_port()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        return status.ok_or_else(|| anyhow!("the answer is not HTTP"));
    }
    Err(last.map_or_else(|| anyhow!("`{host}` has no address"), Into::into))
}
