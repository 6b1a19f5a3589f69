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
use crate::config::diagnostics::Diagnostic;
use crate::config::loader;
use crate::config::static_config::StaticConfig;
use crate::values::Files;

/// What `doorward bans --help` prints.
pub const USAGE: &str = "usage: doorward bans [flags] list [MIDDLEWARE]\n\
    \x20      doorward bans [flags] remove MIDDLEWARE SOURCE\n\
    \x20      doorward bans [flags] add MIDDLEWARE SOURCE [DURATION [REASON]]\n\n\
    Asks a running proxy over the Unix socket of its admin API, which the static configuration\n\
    names: `admin.socket`. Flags, environment and files say where that is, as for the proxy itself;\n\
    `--admin.socket=PATH` is enough, and counts also where there is a file. MIDDLEWARE is `name@provider`, SOURCE an address or what\n\
    `list` shows, DURATION for example `1h`.\n";

const VERBS: [&str; 3] = ["add", "list", "remove"];
/// `add`, the middleware, the source and the duration.
const BEFORE_REASON: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for, and the flags that say of which proxy.
#[derive(Debug, PartialEq)]
pub struct Command {
    flags: Vec<String>,
    order: Order,
}

#[derive(Debug, PartialEq)]
enum Order {
    List(Option<String>),
    Remove { middleware: String, source: String },
    Add { middleware: String, source: String, duration: Option<String>, reason: String },
}

impl Command {
    /// Reads the words behind `bans`; `None` when they are no command.
    pub fn read(args: &[String]) -> Option<Self> {
        let (mut flags, mut words) = (Vec::new(), Vec::new());
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            // What a reason begins with is nobody's business.
            if words.len() >= BEFORE_REASON || !arg.starts_with('-') {
                words.push(arg.clone());
                continue;
            }
            if matches!(arg.as_str(), "-h" | "-help" | "--help") {
                return None;
            }
            flags.push(arg.clone());
            // Its value may be a word of its own.
            if !arg.contains('=')
                && let Some(value) =
                    args.next_if(|next| !next.starts_with('-') && !VERBS.contains(&next.as_str()))
            {
                flags.push(value.clone());
            }
        }
        let order = match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["list"] => Order::List(None),
            ["list", middleware] => Order::List(Some((*middleware).to_owned())),
            ["remove", middleware, source] => {
                Order::Remove { middleware: (*middleware).to_owned(), source: (*source).to_owned() }
            }
            ["add", middleware, source, rest @ ..] if rest.len() <= 2 => Order::Add {
                middleware: (*middleware).to_owned(),
                source: (*source).to_owned(),
                duration: rest.first().map(|&duration| duration.to_owned()),
                reason: rest.get(1).map(|&reason| reason.to_owned()).unwrap_or_default(),
            },
            _ => return None,
        };
        Some(Self { flags, order })
    }

    /// The proxy's static configuration, or all that is wrong with it. A socket that a flag names
    /// counts whatever a file says; the file's tokens are for the file's socket only.
    pub fn load(
        &self,
        variables: &[(String, String)],
        files: &dyn Files,
    ) -> Result<StaticConfig, Vec<Diagnostic>> {
        let loaded = loader::load(&self.flags, variables, files).map(|loaded| loaded.config);
        let names_socket = |flag: &String| {
            let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
            name.eq_ignore_ascii_case("admin.socket")
        };
        if !self.flags.iter().any(names_socket) {
            return loaded;
        }
        let flags = loader::load_flags(&self.flags)?.config;
        let socket = |config: &StaticConfig| config.admin.as_ref().map(|one| one.socket.clone());
        match loaded {
            Ok(loaded) if socket(&loaded) == socket(&flags) => Ok(loaded),
            _ => Ok(flags),
        }
    }

    /// Carries it out for the proxy that runs with `config`; returns what is to be printed.
    pub fn carry_out(&self, config: &StaticConfig) -> anyhow::Result<String> {
        let admin = config.admin.as_ref().ok_or_else(|| anyhow!("there is no `admin.socket`"))?;
        if admin.socket.as_os_str().is_empty() {
            bail!("there is no `admin.socket`, and over TCP any HTTP client can ask");
        }
        match &self.order {
            Order::List(None) => list(&ask(admin, "GET", "/v1/bans", None)?),
            Order::List(Some(middleware)) => {
                let path = format!("/v1/bans?middleware={}", escaped(middleware));
                list(&ask(admin, "GET", &path, None)?)
            }
            Order::Remove { middleware, source } => {
                ask(admin, "DELETE", &path(middleware, source), None)?;
                Ok(format!("{source} is not banned any more\n"))
            }
            Order::Add { middleware, source, duration, reason } => {
                let mut order = json!({"reason": reason});
                if let Some(duration) = duration {
                    order["duration"] = json!(duration);
                }
                list(&json!([ask(admin, "PUT", &path(middleware, source), Some(&order))?]))
            }
        }
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
    let role = if method == "GET" { Role::Read } else { Role::Write };
    if let Some(token) = token(admin, role) {
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

/// The first token that may do that and whose file can be read by whoever runs this.
fn token(admin: &AdminConfig, role: Role) -> Option<String> {
    let mut tokens = admin.tokens.iter().filter(|token| token.role >= role);
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
        let list = read(&["list"]).unwrap();
        assert!(list.carry_out(&config).is_err());
        config.admin = Some(AdminConfig { socket: "/nowhere/a".into(), ..AdminConfig::default() });
        let error = list.carry_out(&config).unwrap_err();
        assert!(error.to_string().contains("/nowhere/a"), "{error}");
    }

    fn read(words: &[&str]) -> Option<Command> {
        Command::read(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_have_their_values_and_reasons_any_beginning() {
        for (words, flags, order) in [
            (&["--configFile", "k.yml", "list"][..], &["--configFile", "k.yml"][..], "None"),
            (&["-configFile=k.yml", "list", "a@file"], &["-configFile=k.yml"], "a@file"),
            (&["list", "--admin.socket", "/a"], &["--admin.socket", "/a"], "None"),
            (&["--api.insecure", "list"], &["--api.insecure"], "None"),
            (&["add", "a@file", "::1", "1h", "-- scans"], &[], "-- scans"),
            (&["add", "a@file", "::1", "1h", "-h"], &[], "-h"),
            (&["add", "--admin.socket=/a", "a@file", "::1"], &["--admin.socket=/a"], "a@file"),
            (&["remove", "a@file", "::1"], &[], "::1"),
        ] {
            let command = read(words).unwrap();
            assert_eq!(command.flags, flags, "{words:?}");
            assert!(format!("{:?}", command.order).contains(order), "{words:?}");
        }
        for words in [
            &[][..],
            &["lift", "a@file", "::1"],
            &["list", "a", "b"],
            &["remove", "a@file"],
            &["add", "a@file", "::1", "1h", "two", "words"],
            &["list", "--help"],
        ] {
            assert_eq!(read(words), None, "{words:?}");
        }
    }

    #[test]
    fn a_socket_that_a_flag_names_wins() {
        let file = "admin: {socket: /run/a, tokens: [{name: r, tokenFile: /t}]}\n";
        let files = [("/k.yml".to_owned(), file.to_owned())].into();
        let files = crate::middleware::testing::FakeFiles(files);
        let admin = |words: &[&str]| {
            let config = read(words).unwrap().load(&[], &files).unwrap();
            let admin = config.admin.unwrap();
            (admin.socket.display().to_string(), admin.tokens.len())
        };
        let file = "--configFile=/k.yml";
        assert_eq!(admin(&[file, "list"]), ("/run/a".to_owned(), 1));
        assert_eq!(admin(&[file, "--admin.socket=/run/a", "list"]), ("/run/a".to_owned(), 1));
        assert_eq!(admin(&[file, "--admin.socket", "/run/b", "list"]), ("/run/b".to_owned(), 0));
    }

    #[test]
    fn who_only_looks_needs_no_token_that_writes() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("r"), "reads\n").unwrap();
        let admin = |writer: &str| -> AdminConfig {
            let tokens = json!([
                {"name": "w", "role": "write", "tokenFile": at(writer)},
                {"name": "r", "tokenFile": at("r")},
            ]);
            serde_json::from_value(json!({"socket": "/a", "tokens": tokens})).unwrap()
        };
        assert_eq!(token(&admin("none"), Role::Read).as_deref(), Some("reads"));
        assert_eq!(token(&admin("none"), Role::Write), None);
        assert_eq!(token(&admin("r"), Role::Write).as_deref(), Some("reads"));
    }
}
