//! The flags of `doorward demo`. Every port that the demo will use is known and checked here, so
//! that two of them never fall together.

use std::time::Duration;

use crate::config::diagnostics::did_you_mean;
use crate::values::GoDuration;

/// What `doorward demo --help` prints.
pub const HELP: &str = "\
Usage: doorward demo [flags]

Runs Doorward in front of four small backends that behave like Odoo's pods, with two tenants over
TLS. Everything listens on the loopback address.

  --http-port PORT          plain HTTP, redirected to HTTPS (8080)
  --https-port PORT         HTTPS (8443)
  --admin-port PORT         API, health and metrics (8081)
  --backend-port-base PORT  first port of the backends (8069); they use PORT, PORT+3, PORT+100 ...
  --keep-alive              the backends keep connections open; Odoo's workers close after each reply
  --delay DURATION          how long a backend takes for a page (0s)
  --for DURATION            run a tour of requests and failures for this long, and say how it went
  --help                    this text
";

/// How the demo runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// The port of plain HTTP.
    pub http_port: u16,
    /// The port of HTTPS.
    pub https_port: u16,
    /// The port of the API, of health and of metrics.
    pub admin_port: u16,
    /// The first port of the backends.
    pub backend_port_base: u16,
    /// Whether the backends' web ports keep their connections.
    pub keep_alive: bool,
    /// How long a backend takes for a page.
    pub delay: Duration,
    /// For how long the tour runs; without it the demo is interactive.
    pub tour: Option<Duration>,
    /// Only print [`HELP`].
    pub help: bool,
}

/// A flag that cannot be used, in words for the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(String);

/// One backend: its name and its two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodPorts {
    pub(super) name: &'static str,
    pub(super) http: u16,
    pub(super) bus: u16,
}

/// The names of the backends, in the order of their ports.
pub(super) const PODS: [&str; 4] = ["north-1", "north-2", "south-1", "south-standby"];

/// How far the last port of the backends is from the first.
const PORT_SPAN: u16 = 303;

const FLAGS: [&str; 8] = [
    "--http-port",
    "--https-port",
    "--admin-port",
    "--backend-port-base",
    "--keep-alive",
    "--delay",
    "--for",
    "--help",
];

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            http_port: 8080,
            https_port: 8443,
            admin_port: 8081,
            backend_port_base: 8069,
            keep_alive: false,
            delay: Duration::ZERO,
            tour: None,
            help: false,
        }
    }
}

impl DemoOptions {
    /// Reads the arguments that follow `demo`; values stand after a space or an equals sign.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (flag, attached) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (&*argument, None),
            };
            let mut value = || {
                let value = attached.clone().or_else(|| arguments.next());
                value.ok_or_else(|| OptionError(format!("`{flag}` needs a value")))
            };
            match flag {
                "--http-port" => options.http_port = port(flag, &value()?)?,
                "--https-port" => options.https_port = port(flag, &value()?)?,
                "--admin-port" => options.admin_port = port(flag, &value()?)?,
                "--backend-port-base" => options.backend_port_base = port(flag, &value()?)?,
                "--delay" => options.delay = duration(flag, &value()?)?.or_zero(),
                "--for" => {
                    let length = duration(flag, &value()?)?.positive();
                    let length = length.ok_or_else(|| {
                        OptionError(format!("`{flag}` needs more than no time, such as `30s`"))
                    })?;
                    options.tour = Some(length);
                }
                "--keep-alive" => options.keep_alive = switch(flag, attached.as_deref())?,
                "--help" | "-h" => options.help = true,
                _ => return Err(unknown(flag)),
            }
        }
        options.check_ports()?;
        Ok(options)
    }

    /// The backends with their ports.
    pub(super) fn pods(&self) -> impl Iterator<Item = PodPorts> + use<> {
        let ports = (self.backend_port_base..).step_by(100);
        PODS.into_iter().zip(ports).map(|(name, http)| PodPorts { name, http, bus: http + 3 })
    }

    fn check_ports(&self) -> Result<(), OptionError> {
        if self.backend_port_base > u16::MAX - PORT_SPAN {
            let most = u16::MAX - PORT_SPAN;
            let message =
                format!("`--backend-port-base` leaves no room for 4 pods: {most} at most");
            return Err(OptionError(message));
        }
        let mut ports = vec![
            (self.http_port, "`--http-port`".to_owned()),
            (self.https_port, "`--https-port`".to_owned()),
            (self.admin_port, "`--admin-port`".to_owned()),
        ];
        for pod in self.pods() {
            ports.push((pod.http, format!("the backend {}", pod.name)));
            ports.push((pod.bus, format!("the bus of the backend {}", pod.name)));
        }
        ports.sort_by_key(|(port, _)| *port);
        for pair in ports.windows(2) {
            if let [(first, one), (second, other)] = pair
                && first == second
            {
                let message = format!("port {first} is meant for {one} and for {other}");
                return Err(OptionError(message));
            }
        }
        Ok(())
    }
}

fn port(flag: &str, text: &str) -> Result<u16, OptionError> {
    text.parse().ok().filter(|&port| port > 0).ok_or_else(|| {
        OptionError(format!("`{flag}`: `{text}` is no port: write a number from 1 to 65535"))
    })
}

fn duration(flag: &str, text: &str) -> Result<GoDuration, OptionError> {
    let duration = text.parse::<GoDuration>();
    duration.map_err(|error| OptionError(format!("`{flag}`: `{text}` is {error}")))
}

fn switch(flag: &str, value: Option<&str>) -> Result<bool, OptionError> {
    match value {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(OptionError(format!("`{flag}` is `true` or `false`"))),
    }
}

fn unknown(flag: &str) -> OptionError {
    OptionError(match did_you_mean(flag, FLAGS) {
        Some(meant) => format!("the demo has no flag `{flag}`: did you mean `{meant}`?"),
        None => format!("the demo has no flag `{flag}`: it has {}", FLAGS.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<DemoOptions, String> {
        let arguments = line.split_whitespace().map(str::to_owned);
        DemoOptions::parse(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(parse("").unwrap(), DemoOptions::default());
    }

    #[test]
    fn values_stand_after_a_space_or_an_equals_sign() {
        let options = parse(
            "--http-port 80 --https-port=443 --admin-port 9000 --backend-port-base=18069 \
             --keep-alive --delay 20ms --for 1m30s",
        );
        let expected = DemoOptions {
            http_port: 80,
            https_port: 443,
            admin_port: 9000,
            backend_port_base: 18069,
            keep_alive: true,
            delay: Duration::from_millis(20),
            tour: Some(Duration::from_secs(90)),
            help: false,
        };
        assert_eq!(options.unwrap(), expected);
        assert!(parse("-h").unwrap().help);
        assert!(!parse("--keep-alive=false").unwrap().keep_alive);
    }

    #[test]
    fn errors_name_the_flag() {
        for (line, words) in [
            ("--htps-port 1", "did you mean `--https-port`?"),
            ("north", "the demo has no flag `north`: it has --http-port"),
            ("--http-port", "`--http-port` needs a value"),
            ("--http-port 0", "`--http-port`: `0` is no port"),
            ("--admin-port 70000", "`--admin-port`: `70000` is no port"),
            ("--for soon", "`--for`: `soon` is not a duration"),
            ("--for 0s", "`--for` needs more than no time"),
            ("--keep-alive=perhaps", "`--keep-alive` is `true` or `false`"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn ports_never_fall_together() {
        let error = parse("--https-port 8172").unwrap_err();
        assert!(error.starts_with("port 8172 is meant for"), "{error}");
        assert!(error.contains("the bus of the backend north-2"), "{error}");
        assert!(parse("--http-port 8443").unwrap_err().contains("`--https-port`"));
        assert!(parse("--backend-port-base 65300").unwrap_err().contains("65232 at most"));
        assert!(parse("--backend-port-base 65232").is_ok());
    }

    #[test]
    fn pods_have_odoos_ports_a_hundred_apart() {
        let pods: Vec<_> = DemoOptions::default().pods().collect();
        let ports: Vec<_> = pods.iter().map(|pod| (pod.name, pod.http, pod.bus)).collect();
        let expected = [
            ("north-1", 8069, 8072),
            ("north-2", 8169, 8172),
            ("south-1", 8269, 8272),
            ("south-standby", 8369, 8372),
        ];
        assert_eq!(ports, expected);
    }
}
