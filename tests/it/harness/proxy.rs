//! A whole proxy in this process, with its files in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use doorward::app::App;
use doorward::config::loader;
use doorward::values::Disk;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, Ask, Client, until};

/// A running proxy: entry points `web`, `websecure` and `traefik`, one dynamic file.
pub(crate) struct Proxy {
    app: Option<App>,
    directory: TempDir,
}

/// A proxy to be, with other static options than usual.
pub(crate) struct Setup {
    options: Value,
    directory: TempDir,
}

impl Proxy {
    /// Starts with this dynamic configuration.
    pub(crate) fn start(text: &str) -> Self {
        Self::with(json!({})).start(text)
    }

    /// Changes the static configuration: `options` are laid over the usual ones.
    pub(crate) fn with(options: Value) -> Setup {
        Setup { options, directory: TempDir::new().unwrap() }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// Takes the app out, to see it stop.
    pub(crate) fn into_app(mut self) -> App {
        self.app.take().unwrap()
    }

    pub(crate) fn address(&self, entry_point: &str) -> SocketAddr {
        self.app().address(entry_point).unwrap()
    }

    /// The dynamic file.
    pub(crate) fn file(&self) -> PathBuf {
        dynamic_file(self.directory.path())
    }

    /// A connection to the entry point `web`.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address("web")).unwrap()
    }

    /// One request over a connection of its own.
    pub(crate) fn send(&self, ask: &Ask) -> Answer {
        self.client().send(ask).unwrap_or_else(|error| panic!("{ask:?}: {error}"))
    }

    pub(crate) fn get(&self, place: &str) -> Answer {
        self.send(&Ask::get(place))
    }

    /// The status and the origin that answered, which is what most stories are about.
    pub(crate) fn who(&self, place: &str) -> (u16, String) {
        let answer = self.get(place);
        (answer.status, answer.origin().to_owned())
    }

    /// A GET at the entry point `traefik`.
    pub(crate) fn inside(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.address("traefik")).unwrap();
        client.send(&Ask::get(&format!("127.0.0.1{path}"))).unwrap()
    }

    /// What the API says there, as JSON.
    pub(crate) fn api(&self, path: &str) -> Value {
        let answer = self.inside(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The value of one line of the metrics; 0 when it is not there.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.app().metrics();
        let found = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Reloads so far, those that went wrong too.
    pub(crate) fn reloads(&self) -> f64 {
        self.metric("traefik_config_reloads_total")
            + self.metric("traefik_config_reloads_failure_total")
    }

    /// Puts this text into the dynamic file and waits until it counts.
    pub(crate) fn reload(&self, text: &str) {
        let before = self.reloads();
        self.write(text);
        until("the reload is counted", || self.reloads() > before);
    }

    /// Replaces the dynamic file in one step.
    pub(crate) fn write(&self, text: &str) {
        write_dynamic(self.directory.path(), text);
    }
}

impl Setup {
    /// The directory that the proxy will have, to put files into beforehand.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sets one section of the static configuration.
    pub(crate) fn set(&mut self, section: &str, value: &Value) {
        lay_over(&mut self.options, &json!({section: value}));
    }

    pub(crate) fn start(self, text: &str) -> Proxy {
        let file = self.files(text);
        let loaded = loader::load_file(&file, &Disk).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(|one| one.render(false)).collect::<String>())
        });
        let app = App::start(&loaded.config, BTreeMap::new()).unwrap();
        Proxy { app: Some(app), directory: self.directory }
    }

    /// Writes the static and the dynamic file and returns the path of the static one.
    pub(crate) fn files(&self, text: &str) -> PathBuf {
        let directory = self.directory.path();
        fs::create_dir_all(directory.join("dynamic")).unwrap();
        write_dynamic(directory, text);
        let mut options = json!({
            "core": {"workers": 2},
            "entryPoints": {
                "web": {"address": "127.0.0.1:0"},
                "websecure": {"address": "127.0.0.1:0"},
                "traefik": {"address": "127.0.0.1:0"},
            },
            "ping": {},
            "api": {"insecure": true},
            "metrics": {"prometheus": {"addRoutersLabels": true}},
            "providers": {
                "providersThrottleDuration": "20ms",
                "file": {"directory": directory.join("dynamic")},
            },
        });
        lay_over(&mut options, &self.options);
        let file = directory.join("static.json");
        fs::write(&file, options.to_string()).unwrap();
        file
    }
}

fn dynamic_file(directory: &Path) -> PathBuf {
    directory.join("dynamic/config.yml")
}

/// Renamed into place, so that nobody reads half of it.
pub(super) fn write_dynamic(directory: &Path, text: &str) {
    let fresh = directory.join("fresh.yml");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, dynamic_file(directory)).unwrap();
}

fn lay_over(base: &mut Value, options: &Value) {
    match (base, options) {
        (Value::Object(base), Value::Object(options)) => {
            for (key, value) in options {
                lay_over(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, options) => *base = options.clone(),
    }
}
