//! Asks a proxy for a tunnel to a server: CONNECT (RFC 9110, 9.3.6), or SOCKS 5 (RFC 1928, RFC 1929).
//!
//! Not one byte behind the proxy's answer is read: it belongs to the server, which may speak first.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Authority, ForwardProxy};

/// The longest answer to CONNECT.
const MAX_HEAD: usize = 8 * 1024;

/// Opens a tunnel to `host` and `port` through a proxy that speaks HTTP.
pub async fn connect<S>(
    stream: &mut S,
    proxy: &ForwardProxy,
    host: &str,
    port: u16,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server = Authority(host, port);
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    loop {
        let status = status_of(&read_head(stream).await?)?;
        match status {
            200..=299 => return Ok(()),
            // Interim answers; 101 answers a question that nobody asked.
            100 | 102..=199 => {}
            _ => return Err(refused(&format!("the proxy answers CONNECT with status {status}"))),
        }
    }
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(invalid("the answer of the proxy is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn status_of(head: &[u8]) -> io::Result<u16> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut fields);
    match answer.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(invalid("the answer of the proxy is no HTTP")),
    }
    answer.code.ok_or_else(|| invalid("the answer of the proxy has no status"))
}

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;

/// Opens a tunnel to `host` and `port` through a SOCKS proxy, which also looks the name up.
pub async fn socks5<S>(
    stream: &mut S,
    proxy: &ForwardProxy,
    host: &str,
    port: u16,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let offer: &[u8] = match &proxy.credentials {
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, PASSWORD],
        None => &[VERSION, 1, NO_AUTHENTICATION],
    };
    stream.write_all(offer).await?;
    stream.flush().await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, &proxy.credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, PASSWORD], Some((name, password))) => {
            let mut message = vec![1];
            push_short(&mut message, name.expose().as_bytes())?;
            push_short(&mut message, password.expose().as_bytes())?;
            stream.write_all(&message).await?;
            stream.flush().await?;
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await?;
            if answer != [1, 0] {
                return Err(refused("the SOCKS proxy refuses user and password"));
            }
        }
        ([VERSION, _], _) => return Err(refused("the SOCKS proxy wants another authentication")),
        _ => return Err(invalid("the proxy does not speak SOCKS 5")),
    }
    let mut message = vec![VERSION, 1, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            message.push(1);
            message.extend_from_slice(&ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            message.push(4);
            message.extend_from_slice(&ip.octets());
        }
        Err(_) => {
            message.push(3);
            push_short(&mut message, host.as_bytes())?;
        }
    }
    message.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&message).await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    let [version, reply, _, kind] = answer;
    if version != VERSION {
        return Err(invalid("the proxy does not speak SOCKS 5"));
    }
    if reply != 0 {
        return Err(refused(&format!("the SOCKS proxy does not connect: reply {reply}")));
    }
    // The address that the proxy connects from, and its port.
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(invalid("the SOCKS proxy names an address of no known kind")),
    };
    let mut bound = [0; 255 + 2];
    let bound = bound.get_mut(..length + 2).unwrap_or_default();
    stream.read_exact(bound).await?;
    Ok(())
}

fn push_short(message: &mut Vec<u8>, text: &[u8]) -> io::Result<()> {
    let length = u8::try_from(text.len()).map_err(|_| invalid("too long a name for SOCKS"))?;
    message.push(length);
    message.extend_from_slice(text);
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, what)
}

#[cfg(test)]
mod tests {
    use super::super::Proxies;
    use super::*;
    use crate::upstream::Target;
    use tokio::io::duplex;

    fn proxy(url: &str) -> std::sync::Arc<ForwardProxy> {
        let variables = [("HTTP_PROXY".to_owned(), url.to_owned())];
        Proxies::read(&variables).unwrap().to(&Target::parse("http://a").unwrap()).unwrap()
    }

    /// What the proxy heard, what came of it, and what is left to read.
    async fn say(url: &str, host: &str, answer: &[u8]) -> (Vec<u8>, io::Result<()>, Vec<u8>) {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let proxy = proxy(url);
        let result = if url.starts_with("socks5") {
            socks5(&mut ours, &proxy, host, 8069).await
        } else {
            connect(&mut ours, &proxy, host, 8069).await
        };
        let mut left = Vec::new();
        ours.read_to_end(&mut left).await.unwrap();
        drop(ours);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        (heard, result, left)
    }

    #[tokio::test]
    async fn connect_leaves_to_the_server_what_is_the_servers() {
        let (heard, result, left) = say(
            "http://p",
            "odoo",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nA: b\r\n\r\nSETTINGS",
        )
        .await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(heard, b"CONNECT odoo:8069 HTTP/1.1\r\nHost: odoo:8069\r\n\r\n");
        assert_eq!(left, b"SETTINGS");
        let (heard, _, _) = say("http://u:p@p", "fd00::1", b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(
            String::from_utf8(heard).unwrap(),
            "CONNECT [fd00::1]:8069 HTTP/1.1\r\nHost: [fd00::1]:8069\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn what_is_no_tunnel_is_an_error() {
        for answer in [
            &b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 302 Found\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"",
        ] {
            assert!(say("http://p", "odoo", answer).await.1.is_err(), "{answer:?}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; 2 * MAX_HEAD]].concat();
        assert!(say("http://p", "odoo", &endless).await.1.is_err());
    }

    #[tokio::test]
    async fn socks_names_and_addresses() {
        let open = [5, 0, 5, 0, 0, 1, 10, 0, 0, 1, 0, 80, b'!'];
        let (heard, result, left) = say("socks5://p", "odoo", &open).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(heard, b"\x05\x01\x00\x05\x01\x00\x03\x04odoo\x1f\x85");
        assert_eq!(left, b"!");
        let named = [5, 0, 5, 0, 0, 3, 2, b'p', b'q', 0, 80];
        let (heard, result, _) = say("socks5://p", "10.0.0.2", &named).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(heard, b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x02\x1f\x85");
        let open = [5, 2, 1, 0, 5, 0, 0, 1, 10, 0, 0, 1, 0, 80];
        let (heard, result, _) = say("socks5://u:pw@p", "odoo", &open).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(heard, b"\x05\x02\x00\x02\x01\x01u\x02pw\x05\x01\x00\x03\x04odoo\x1f\x85");
    }

    #[tokio::test]
    async fn socks_refusals() {
        for answer in
            [&[5, 255][..], &[5, 2], &[4, 0], &[5, 0, 5, 5, 0, 1], &[5, 0, 4, 0, 0, 1], &[]]
        {
            assert!(say("socks5://p", "odoo", answer).await.1.is_err(), "{answer:?}");
        }
        assert!(say("socks5://u:p@p", "odoo", &[5, 2, 1, 1]).await.1.is_err());
    }
}
