//! What `doorward explain` is asked: the request, and the configuration that it is put to.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::app::flag::{Flag, is_json, unknown};
use crate::exchange::Scheme;
use crate::values::Profile;

/// The command line.
pub(super) struct Options {
    pub(super) ask: Ask,
    /// Name of the entry point, if one is named.
    pub(super) entry_point: Option<String>,
    pub(super) json: bool,
    /// Print every router.
    pub(super) all: bool,
    pub(super) source: Source,
}

/// Where the configuration is.
pub(super) enum Source {
    /// In files as `check` takes them.
    Files(Vec<PathBuf>),
    /// Where the server would look, given these flags.
    Server(Vec<String>),
    /// At the API of a running instance.
    Api {
        url: String,
        headers: HeaderMap,
        /// The profile that it runs with, if that is said.
        profile: Option<Profile>,
    },
}

/// A request, before anybody has made it canonical.
#[derive(Clone)]
pub(in crate::app) struct Ask {
    /// The URL as it was written, with a scheme.
    pub(in crate::app) url: String,
    pub(in crate::app) scheme: Scheme,
    /// Host and perhaps port, as the client writes them.
    pub(in crate::app) authority: String,
    pub(in crate::app) port: Option<u16>,
    /// Path and query.
    pub(in crate::app) target: String,
    pub(in crate::app) method: Method,
    /// All headers, `Host` among them.
    pub(in crate::app) headers: HeaderMap,
    pub(in crate::app) client: IpAddr,
    /// Whether the client's address was only assumed.
    pub(in crate::app) is_client_assumed: bool,
}

impl Ask {
    /// A GET for `url`, which is `http` when it has no scheme.
    pub(in crate::app) fn get(url: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = match url.split_once("://") {
            None => (Scheme::Http, url),
            Some(("http" | "ws", rest)) => (Scheme::Http, rest),
            Some(("https" | "wss", rest)) => (Scheme::Https, rest),
            Some((other, _)) => bail!("`{other}` is not a scheme of HTTP: write http or https"),
        };
        // No client sends a fragment.
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.is_empty() {
            bail!("`{url}` has no host: write it as https://host/path");
        }
        if authority.contains('@') {
            bail!("leave user and password out of the URL: give them with -H 'Authorization: …'");
        }
        let parsed: Authority =
            authority.parse().with_context(|| format!("`{authority}` is not a host"))?;
        if target.contains(char::is_whitespace) {
            bail!("`{url}` has a blank in it: write %20");
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, HeaderValue::from_str(authority)?);
        Ok(Self {
            url: format!("{}://{rest}", scheme.as_str()),
            scheme,
            authority: authority.to_owned(),
            port: parsed.port_u16(),
            target,
            method: Method::GET,
            headers,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            is_client_assumed: true,
        })
    }

    /// The port that the client connects to.
    pub(in crate::app) fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        })
    }
}

const FLAGS: [&str; 10] = [
    "--all",
    "--api",
    "--api-header",
    "--client-ip",
    "--configFile",
    "--entry-point",
    "--format",
    "--header",
    "--method",
    "--profile",
];

impl Options {
    pub(super) fn read(args: &[String]) -> anyhow::Result<Self> {
        let mut url = None;
        let (mut headers, mut api_headers) = (Vec::new(), HeaderMap::new());
        let (mut method, mut client, mut entry_point, mut api) = (None, None, None, None);
        let (mut json, mut all, mut profile) = (false, false, None);
        let (mut files, mut flags) = (Vec::new(), Vec::new());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut flag = Flag::read(arg);
            let name = flag.name;
            let mut value = || flag.value(&mut args);
            match name {
                "-H" | "--header" => headers.push(header(&value()?)?),
                "-X" | "--method" => {
                    let text = value()?;
                    let read = Method::from_bytes(text.as_bytes());
                    method = Some(read.with_context(|| format!("`{text}` is not a method"))?);
                }
                "--client-ip" => {
                    let text = value()?;
                    let read: Result<IpAddr, _> = text.parse();
                    client = Some(read.with_context(|| format!("`{text}` is not an address"))?);
                }
                "--entry-point" => entry_point = Some(value()?),
                "--format" => json = is_json(&value()?)?,
                "--all" => all = true,
                "--api" => api = Some(value()?),
                "--profile" => {
                    profile = Some(match &*value()? {
                        "safe" => Profile::Safe,
                        "exact" => Profile::Exact,
                        "hardened" => Profile::Hardened,
                        other => bail!("unknown profile `{other}`: write safe, exact or hardened"),
                    });
                }
                "--api-header" => api_headers.extend([header(&value()?)?]),
                flag if flag.eq_ignore_ascii_case("--configfile") => {
                    flags.push(format!("--configFile={}", value()?));
                }
                // What else begins with dashes is an option of the server.
                flag if flag.starts_with("--") && arg.contains('=') => flags.push(arg.clone()),
                flag if flag.starts_with('-') => return Err(unknown(flag, FLAGS)),
                _ if url.is_none() => url = Some(arg.clone()),
                _ => files.push(PathBuf::from(arg)),
            }
        }
        let mut ask = Ask::get(&url.context("name a URL")?)?;
        // The first one is put in the place of that of the URL; a second one is sent too, and refused.
        if headers.iter().any(|(name, _)| name == http::header::HOST) {
            ask.headers.remove(http::header::HOST);
        }
        for (name, value) in headers {
            ask.headers.append(name, value);
        }
        ask.method = method.unwrap_or(Method::GET);
        ask.is_client_assumed = client.is_none();
        ask.client = client.unwrap_or(ask.client).to_canonical();
        if profile.is_some() && api.is_none() {
            bail!("`--profile` goes with `--api`: files say it as `core.profile`");
        }
        let source = match (api, files.is_empty(), flags.is_empty()) {
            (Some(url), true, true) => Source::Api { url, headers: api_headers, profile },
            (Some(_), ..) => bail!("give either `--api` or files, not both"),
            (None, true, _) => Source::Server(flags),
            (None, false, true) => Source::Files(files),
            (None, false, false) => bail!("give either files or flags of the server, not both"),
        };
        Ok(Self { ask, entry_point, json, all, source })
    }
}

fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text
        .split_once(':')
        .with_context(|| format!("`{text}` is not a header: write it as 'Name: value'"))?;
    let name = HeaderName::from_bytes(name.trim().as_bytes())
        .with_context(|| format!("`{name}` is not the name of a header"))?;
    let value = HeaderValue::from_str(value.trim())
        .with_context(|| format!("`{name}` has a value that no header can have"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> anyhow::Result<Options> {
        Options::read(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, expected) in [
            ("https://a.test/x?y#z", ("https", "a.test", 443, "/x?y")),
            ("a.test:8080", ("http", "a.test:8080", 8080, "/")),
            ("http://[::1]:81?q", ("http", "[::1]:81", 81, "/?q")),
        ] {
            let ask = Ask::get(url).unwrap();
            let got = (ask.scheme.as_str(), &*ask.authority, ask.port(), &*ask.target);
            assert_eq!(got, expected, "{url}");
        }
        for url in ["ftp://a.test/", "/x", "https://", "http://u:p@a.test/", "http://a b/"] {
            assert!(Ask::get(url).is_err(), "{url}");
        }
    }

    #[test]
    fn flags_are_read() {
        let read = options(&[
            "https://a.test/",
            "-H",
            "X-A: 1",
            "--header=Host: b.test",
            "--method",
            "POST",
            "--client-ip=::ffff:10.0.0.1",
            "--all",
            "--format=json",
            "routes.yml",
        ]);
        let read = read.unwrap();
        assert_eq!(read.ask.headers["host"], "b.test");
        assert_eq!(
            (&read.ask.headers["x-a"], read.ask.method),
            (&HeaderValue::from_static("1"), Method::POST)
        );
        assert_eq!(read.ask.client.to_string(), "10.0.0.1");
        assert!(read.json && read.all);
        assert!(matches!(&read.source, Source::Files(files) if files.len() == 1));
        let server = options(&["a.test", "--configFile", "x.yml"]).unwrap();
        assert!(
            matches!(&server.source, Source::Server(flags) if *flags == ["--configFile=x.yml"])
        );
        let api = options(&["a.test", "--api=http://127.0.0.1:8080"]).unwrap();
        assert!(matches!(
            &api.source,
            Source::Api { url, profile: None, .. } if url == "http://127.0.0.1:8080"
        ));
        let exact = options(&["a.test", "--api=http://x", "--profile", "exact"]).unwrap();
        assert!(matches!(&exact.source, Source::Api { profile: Some(Profile::Exact), .. }));
        let hosts = options(&["a.test", "-H", "Host: b.test", "-H", "host: c.test"]).unwrap();
        assert_eq!(hosts.ask.headers.get_all("host").iter().count(), 2);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (words, says) in [
            (&[][..], "name a URL"),
            (&["a.test", "--entrypoint"], "did you mean `--entry-point`"),
            (&["a.test", "--api"], "`--api` needs a value"),
            (&["a.test", "--api=http://x", "f.yml"], "either `--api` or files"),
            (&["a.test", "-H", "nonsense"], "write it as 'Name: value'"),
            (&["a.test", "--format=xml"], "write text or json"),
            (&["a.test/x y"], "has a blank in it: write %20"),
            (&["a.test", "--profile=safe"], "goes with `--api`"),
            (&["a.test", "--api=http://x", "--profile=best"], "write safe, exact or hardened"),
        ] {
            let error = options(words).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
