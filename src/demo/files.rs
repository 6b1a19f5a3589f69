//! The files of a running demo: the configuration of `config/demo` with its ports put in, and the
//! development certificate, in a directory of their own that goes with the demo.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::options::DemoOptions;

const STATIC: &str = include_str!("../../config/demo/static.yml");
const DYNAMIC: &str = include_str!("../../config/demo/dynamic.yml");
const LEAF: &str = include_str!("../../certs/development-only-leaf.pem");
const LEAF_KEY: &str = include_str!("../../certs/development-only-leaf.key.pem");

/// The authority that a client of the demo trusts.
pub(super) const AUTHORITY: &str = include_str!("../../certs/development-only-ca.pem");

/// The demo's directory; it is removed when this is dropped.
pub(super) struct Files {
    directory: PathBuf,
    static_text: String,
}

impl Files {
    /// Writes them all into a new directory that only this user can read.
    pub(super) fn write(options: &DemoOptions) -> io::Result<Self> {
        let mut files = Self { directory: new_directory()?, static_text: String::new() };
        let directory = files.directory.clone();
        fs::create_dir(directory.join("certs"))?;
        fs::create_dir(directory.join("dynamic"))?;
        fs::write(directory.join("certs/development-only-ca.pem"), AUTHORITY)?;
        fs::write(directory.join("certs/development-only-leaf.pem"), LEAF)?;
        fs::write(directory.join("certs/development-only-leaf.key.pem"), LEAF_KEY)?;
        let place = directory.display().to_string();
        let paths = |text: &str| {
            text.replace("\"certs/", &format!("\"{place}/certs/"))
                .replace("\"config/demo/dynamic.yml\"", &format!("\"{place}/dynamic/demo.yml\""))
        };
        fs::write(files.dynamic_file(), paths(&with_ports(DYNAMIC, options)))?;
        files.static_text = paths(&with_ports(STATIC, options));
        fs::write(files.static_file(), &files.static_text)?;
        Ok(files)
    }

    /// The static configuration.
    pub(super) fn static_text(&self) -> &str {
        &self.static_text
    }

    /// The file of the static configuration.
    pub(super) fn static_file(&self) -> PathBuf {
        self.directory.join("doorward.yml")
    }

    /// The directory of the dynamic configuration.
    pub(super) fn dynamic_directory(&self) -> PathBuf {
        self.directory.join("dynamic")
    }

    /// The file of the dynamic configuration.
    pub(super) fn dynamic_file(&self) -> PathBuf {
        self.directory.join("dynamic/demo.yml")
    }

    /// The file of the authority, for `curl --cacert`.
    pub(super) fn authority_file(&self) -> PathBuf {
        self.directory.join("certs/development-only-ca.pem")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Nobody is left to be told, and the system clears its directory of temporary files.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Creates a directory that was not there: its name can be guessed, so another's is never used.
fn new_directory() -> io::Result<PathBuf> {
    let parent = std::env::temp_dir();
    let process = std::process::id();
    for attempt in 0..100 {
        let directory = parent.join(format!("doorward-demo-{process}-{attempt}"));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return fs::canonicalize(&directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(in_directory(&parent, &error)),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many demos have left their files"))
}

fn in_directory(parent: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", parent.display()))
}

/// Puts the chosen ports in place of the default ones, all in one pass: a chosen port may be
/// another one's default.
fn with_ports(text: &str, options: &DemoOptions) -> String {
    let default = DemoOptions::default();
    let mut ports = vec![
        (default.http_port, options.http_port),
        (default.https_port, options.https_port),
        (default.admin_port, options.admin_port),
    ];
    for (from, to) in default.pods().zip(options.pods()) {
        ports.extend([(from.http, to.http), (from.bus, to.bus)]);
    }
    let mut written = String::with_capacity(text.len() + 64);
    for (index, part) in text.split("127.0.0.1:").enumerate() {
        if index > 0 {
            written.push_str("127.0.0.1:");
        }
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = part.split_at(digits);
        let chosen = ports.iter().find(|(from, _)| index > 0 && number == from.to_string());
        match chosen {
            Some((_, to)) => written.push_str(&to.to_string()),
            None => written.push_str(number),
        }
        written.push_str(rest);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::tree::{Format, Node, Source, parse};

    fn read(name: &str, text: &str) -> Node {
        let format = Format::of_path(Path::new(name)).unwrap();
        parse(&Source::new(name, text, format)).unwrap()
    }

    fn example(name: &str) -> Node {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        read(name, &fs::read_to_string(path).unwrap())
    }

    fn names(node: &Node, section: &str) -> BTreeSet<String> {
        node.at_path(section).entries().iter().map(|entry| entry.key.to_string()).collect()
    }

    /// Every list of names and every single name under `key`, anywhere below `node`.
    fn mentioned(node: &Node, keys: &[&str], found: &mut BTreeSet<String>) {
        for entry in node.entries() {
            if keys.contains(&&*entry.key) {
                let items = entry.value.items().iter().chain([&entry.value]);
                found.extend(items.filter_map(Node::text).map(str::to_owned));
            }
            mentioned(&entry.value, keys, found);
        }
    }

    #[test]
    fn what_the_dynamic_examples_mention_exists_and_is_used() {
        for file in ["dynamic/tenants.yml", "dynamic/limits.yml", "demo/dynamic.yml"] {
            let http = example(file).get("http").unwrap().clone();
            let mut middlewares = BTreeSet::new();
            mentioned(&http, &["middlewares"], &mut middlewares);
            assert_eq!(middlewares, names(&http, "middlewares"), "{file}");
            let mut services = BTreeSet::new();
            mentioned(&http, &["service", "fallback"], &mut services);
            assert_eq!(services, names(&http, "services"), "{file}");
        }
        assert!(!example("dynamic/tls.yml").get("tls").unwrap().is_empty());
    }

    #[test]
    fn the_two_static_examples_say_the_same() {
        let (yaml, toml) = (example("doorward.yml"), example("doorward.toml"));
        assert_eq!(flat(&yaml), flat(&toml));
        assert!(flat(&yaml).len() > 15);
    }

    /// Every path with its text, without order and quotes; an empty section is a path as well.
    fn flat(node: &Node) -> BTreeSet<String> {
        fn walk(node: &Node, path: &str, found: &mut BTreeSet<String>) {
            if node.is_empty() || node.text().is_some() {
                found.insert(format!("{path} = {}", node.text().unwrap_or_default()));
            }
            for entry in node.entries() {
                walk(&entry.value, &format!("{path}.{}", entry.key), found);
            }
            for item in node.items() {
                walk(item, path, found);
            }
        }
        let mut found = BTreeSet::new();
        walk(node, "", &mut found);
        found
    }

    #[test]
    fn the_demo_has_its_own_ports_and_paths_and_cleans_up() {
        // Two ports change places: replaced one after the other, they would be the same.
        let options = DemoOptions {
            http_port: 8443,
            https_port: 8080,
            admin_port: 9001,
            backend_port_base: 18069,
            ..DemoOptions::default()
        };
        let files = Files::write(&options).unwrap();
        let statics = read("static.yml", files.static_text());
        let address = |name: &str| {
            statics.at_path(&format!("entryPoints.{name}.address")).text().unwrap().to_owned()
        };
        assert_eq!(address("web"), "127.0.0.1:8443");
        assert_eq!(address("websecure"), "127.0.0.1:8080");
        assert_eq!(address("traefik"), "127.0.0.1:9001");
        let dynamic = statics.at_path("providers.file.filename").text().unwrap();
        assert_eq!(Path::new(dynamic), files.dynamic_file());
        let dynamic = read("dynamic.yml", &fs::read_to_string(dynamic).unwrap());
        let url = dynamic.at_path("http.services.south-bus-standby.loadBalancer.servers[0].url");
        assert_eq!(url.text(), Some("http://127.0.0.1:18372"));
        for name in ["certFile", "keyFile"] {
            let path = dynamic.at_path("tls.certificates").items()[0].get(name).unwrap();
            assert!(fs::read_to_string(path.text().unwrap()).unwrap().starts_with("-----BEGIN"));
        }
        let other = Files::write(&options).unwrap();
        assert_ne!(other.static_file(), files.static_file());
        let directory = files.directory.clone();
        assert!(directory.exists());
        drop(files);
        assert!(!directory.exists());
        assert!(other.static_file().exists());
    }

    #[test]
    fn without_changed_ports_the_text_stays() {
        for text in [STATIC, DYNAMIC] {
            assert_eq!(with_ports(text, &DemoOptions::default()), text);
        }
    }
}
