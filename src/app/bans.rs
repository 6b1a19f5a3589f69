//! `doorward bans`: asks a running proxy on this machine who is banned, over the socket of its admin
//! API, and ends or makes a ban.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

use crate::admin::{AdminConfig, Role};
use crate::config::static_config::StaticConfig;

/// What `doorward bans --help` prints.
pub const USAGE: &str = "usage: doorward bans [flags] list [MIDDLEWARE]\n\
    \x20      doorward bans [flags] remove MIDDLEWARE SOURCE\n\
    \x20      doorward bans [flags] add MIDDLEWARE SOURCE [DURATION [REASON]]\n\n\
    Asks a running proxy over the Unix socket of its admin API, which the static configuration\n\
    names: `admin.socket`. Flags, environment and files say where that is, as for the proxy itself;\n\
    `--admin.socket=PATH` is enough. MIDDLEWARE is `name@provider`, SOURCE an address or what\n\
    `list` shows, DURATION for example `1h`.\n";

const TIMEOUT: Duration = Duration::from_secs(10);

/// Carries the command out for the proxy that runs with `config`; returns what is to be printed.
pub fn command(config: &StaticConfig, words: &[&str]) -> anyhow::Result<String> {
    let admin = config.admin.as_ref().ok_or_else(|| anyhow!("there is no `admin.socket`"))?;
    if admin.socket.as_os_str().is_empty() {
        bail!("there is no `admin.socket`, and over TCP any HTTP client can ask");
    }
    match words {
        ["list"] => list(&ask(admin, "GET", "/v1/bans", None)?),
        ["list", middleware] => {
            let path = format!("/v1/bans?middleware={}", escaped(middleware));
            list(&ask(admin, "GET", &path, None)?)
        }
        ["remove", middleware, source] => {
            ask(admin, "DELETE", &path(middleware, source), None)?;
            Ok(format!("{source} is not banned any more\n"))
        }
        ["add", middleware, source, rest @ ..] if rest.len() <= 2 => {
            let mut order = json!({"reason": rest.get(1).copied().unwrap_or_default()});
            if let Some(duration) = rest.first() {
                order["duration"] = json!(duration);
            }
            list(&json!([ask(admin, "PUT", &path(middleware, source), Some(&order))?]))
        }
        _ => bail!("{USAGE}"),
    }
}

fn path(middleware: &str, source: &str) -> String {
    format!("/v1/bans/{}/{}", escaped(middleware), escaped(source))
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// One request; the body of an answer that is no refusal.
fn ask(
    admin: &AdminConfig,
    method: &str,
    target: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", host(admin));
    if let Some(token) = token(admin) {
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        let length = body.len();
        let _ = write!(head, "Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    let answer = exchange(&admin.socket, &format!("{head}\r\n{body}"))
        .with_context(|| format!("no answer from {}", admin.socket.display()))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("the answer is not HTTP"))?;
    let status: u16 = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| anyhow!("the answer is not HTTP"))?;
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    if !(200..300).contains(&status) {
        bail!("{status}: {}", body["message"].as_str().unwrap_or_default());
    }
    Ok(body)
}

fn exchange(socket: &Path, request: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn host(admin: &AdminConfig) -> &str {
    admin.hosts.first().map_or("localhost", String::as_str)
}

/// The first token that may write and whose file can be read by whoever runs this.
fn token(admin: &AdminConfig) -> Option<String> {
    let mut tokens = admin.tokens.iter().filter(|token| token.role == Role::Write);
    tokens.find_map(|token| {
        let text = std::fs::read_to_string(&token.token_file).ok()?;
        Some(text.trim_ascii().to_owned())
    })
}

fn list(bans: &Value) -> anyhow::Result<String> {
    let bans = bans.as_array().ok_or_else(|| anyhow!("the answer is no list"))?;
    let mut out = String::new();
    for ban in bans {
        let text = |name: &str| ban[name].as_str().unwrap_or_default();
        let number = |name: &str| ban[name].as_u64().unwrap_or_default();
        let (middleware, source, since, until) =
            (text("middleware"), text("source"), text("since"), text("until"));
        let (offences, level) = (number("offences"), number("level"));
        write!(out, "{middleware}  {source}  {since}  {until}  offences={offences} level={level}")?;
        // Whatever somebody has written, it is one line.
        for name in ["by", "reason"] {
            if !text(name).is_empty() {
                write!(out, " {name}={:?}", text(name))?;
            }
        }
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        let path = path("a b@file", "2001:db8::/64");
        assert_eq!(path, "/v1/bans/a%20b@file/2001:db8::%2F64");
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let ban = json!({"middleware": "a@file", "source": "::1", "since": "S", "until": "U",
            "offences": 3, "level": 1, "reason": "x\ny"});
        assert_eq!(
            list(&json!([ban])).unwrap(),
            "a@file  ::1  S  U  offences=3 level=1 reason=\"x\\ny\"\n"
        );
        assert_eq!(list(&json!([])).unwrap(), "");
    }

    #[test]
    fn without_a_socket_nobody_is_asked() {
        let mut config = StaticConfig::default();
        assert!(command(&config, &["list"]).is_err());
        config.admin = Some(AdminConfig { socket: "/nowhere/a".into(), ..AdminConfig::default() });
        let error = command(&config, &["list"]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/a"), "{error}");
        assert!(command(&config, &["lift"]).unwrap_err().to_string().starts_with("usage:"));
    }
}
