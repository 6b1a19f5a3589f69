//! The proxy's own log: `tracing` events as lines that look like Traefik's.
//!
//! What other crates say below WARN is left out at every level: it is theirs to change, and some
//! of it would show headers. Fields that carry credentials are masked by name.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::StartError;
use super::rotate::{Limits, RotatingFile};
use super::text::{self, Moment, Style};
use super::writer::{LineWriter, Stdout};
use crate::values::secret::is_credential_header;
use crate::values::{BuildError, Unsupported};

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;
/// Longest message or value.
const MAX_VALUE: usize = 8 << 10;
/// `log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogConfig {
    /// `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` (default), `FATAL` or `PANIC`.
    pub level: String,
    /// `common` (default) or `json`.
    pub format: String,
    /// Path of the file. Empty: standard output.
    pub file_path: String,
    /// No colours, not even on a terminal.
    pub no_color: bool,
    /// Megabytes in one file. 0: 100.
    pub max_size: u64,
    /// Days to keep rotated files. 0: for ever.
    pub max_age: u64,
    /// How many rotated files to keep. 0: all.
    pub max_backups: usize,
    /// Accepted without effect, as in Traefik: rotated files are always compressed.
    pub compress: bool,
    /// OpenTelemetry, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Unsupported>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "ERROR".to_owned(),
            format: "common".to_owned(),
            file_path: String::new(),
            no_color: false,
            max_size: 0,
            max_age: 0,
            max_backups: 0,
            compress: false,
            otlp: None,
        }
    }
}

/// Target of what the admin API changes: it is written at every level of the log.
pub const AUDIT: &str = "doorward::audit";

/// Writes what is left of the log when it is dropped.
pub struct LogGuard {
    writer: Arc<LineWriter>,
}

impl LogGuard {
    /// How many lines were dropped, shared with the metrics.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.writer.dropped()
    }

    /// Waits until all lines are written. Blocks the thread.
    pub fn flush(&self) {
        self.writer.flush();
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.writer.close();
    }
}

/// Starts the log for the whole process. Only the first call can.
pub fn init(config: &LogConfig) -> Result<LogGuard, StartError> {
    if config.otlp.is_some() {
        return Err(BuildError::unsupported("otlp").into());
    }
    let level = level_named(&config.level);
    let writer = Arc::new(open(config)?);
    let terminal = config.file_path.is_empty() && io::stdout().is_terminal();
    let style = match config.format.as_str() {
        "json" => Look::Json,
        _ => Look::Console { colors: terminal && !config.no_color },
    };
    let level_or_default = level.unwrap_or(LevelFilter::ERROR);
    let layer = Lines {
        output: Output::Queue(Arc::clone(&writer)),
        format: Format {
            look: style,
            caller: level_or_default >= LevelFilter::DEBUG,
            zone: TimeZone::system(),
        },
        level: level_or_default,
    };
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| StartError::Twice)?;
    if level.is_none() {
        tracing::error!(
            logLevel = %config.level,
            "Unspecified or invalid log level, setting the level to default (ERROR)"
        );
    }
    Ok(LogGuard { writer })
}

/// Logs errors of this thread as JSON on standard error until the returned value is dropped:
/// what there is to say before the configuration is read.
pub fn early() -> tracing::subscriber::DefaultGuard {
    let layer = Lines {
        output: Output::Stderr,
        format: Format { look: Look::Json, caller: false, zone: TimeZone::system() },
        level: LevelFilter::ERROR,
    };
    tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
}

/// The filter for one of Traefik's level names. FATAL and PANIC have no counterpart: what would
/// be said there is said as an error here.
fn level_named(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        _ => return None,
    })
}

fn open(config: &LogConfig) -> Result<LineWriter, StartError> {
    let writer = if config.file_path.is_empty() {
        LineWriter::start("log", Stdout, QUEUE, complain)
    } else {
        let path = Path::new(&config.file_path);
        let megabytes = if config.max_size == 0 { 100 } else { config.max_size };
        let limits = Limits {
            bytes: megabytes.saturating_mul(1 << 20),
            backups: config.max_backups,
            age: Duration::from_secs(config.max_age.saturating_mul(86_400)),
        };
        let file = RotatingFile::open(path, limits)
            .map_err(|source| StartError::Open { path: path.to_owned(), source })?;
        LineWriter::start("log", file, QUEUE, complain)
    };
    writer.map_err(StartError::Thread)
}

/// The log cannot say that it cannot be written: standard error is what is left.
fn complain(error: &io::Error) {
    let _ = writeln!(io::stderr(), "the log cannot be written: {error}");
}

enum Output {
    Queue(Arc<LineWriter>),
    Stderr,
}

/// The layer that makes lines of events.
struct Lines {
    output: Output,
    format: Format,
    level: LevelFilter,
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(512));
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        if metadata.target() == AUDIT {
            return true;
        }
        let ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        let most = if ours { self.level } else { self.level.min(LevelFilter::WARN) };
        *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // The audit log speaks at this level.
        Some(self.level.max(LevelFilter::INFO))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        LINE.with(|line| {
            // An event from inside the formatting of another one has no line of its own.
            let Ok(mut line) = line.try_borrow_mut() else { return };
            line.clear();
            self.format.line(&mut line, event, SystemTime::now());
            match &self.output {
                Output::Queue(writer) => writer.push(&line),
                Output::Stderr => drop(io::stderr().lock().write_all(&line)),
            }
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Json,
    Console { colors: bool },
}

struct Format {
    look: Look,
    caller: bool,
    zone: TimeZone,
}

impl Format {
    fn line(&self, out: &mut Vec<u8>, event: &Event<'_>, now: SystemTime) {
        let time = Moment::local(now, &self.zone);
        let mut parts = Parts { look: self.look, message: String::new(), fields: Vec::new() };
        event.record(&mut parts);
        if self.caller
            && let (Some(file), Some(line)) = (event.metadata().file(), event.metadata().line())
        {
            parts.text("caller", &format!("{file}:{line}"));
        }
        match self.look {
            Look::Json => json(out, *event.metadata().level(), &time, &parts),
            Look::Console { colors } => {
                console(out, *event.metadata().level(), &time, &parts, colors);
            }
        }
        out.push(b'\n');
    }
}

fn json(out: &mut Vec<u8>, level: Level, time: &Moment, parts: &Parts) {
    let level: &[u8] = match level {
        Level::TRACE => b"trace",
        Level::DEBUG => b"debug",
        Level::INFO => b"info",
        Level::WARN => b"warn",
        Level::ERROR => b"error",
    };
    out.extend_from_slice(b"{\"level\":\"");
    out.extend_from_slice(level);
    out.extend_from_slice(b"\",\"time\":\"");
    time.rfc3339(out);
    out.extend_from_slice(b"\",\"message\":\"");
    text::escaped(out, parts.message.as_bytes(), Style::Json, MAX_VALUE);
    out.push(b'"');
    out.extend_from_slice(&parts.fields);
    out.push(b'}');
}

fn console(out: &mut Vec<u8>, level: Level, time: &Moment, parts: &Parts, colors: bool) {
    let (color, level): (&[u8], &[u8]) = match level {
        Level::TRACE => (b"\x1b[34m", b"TRC"),
        Level::DEBUG => (b"", b"DBG"),
        Level::INFO => (b"\x1b[32m", b"INF"),
        Level::WARN => (b"\x1b[33m", b"WRN"),
        Level::ERROR => (b"\x1b[31m", b"ERR"),
    };
    let color = if colors { color } else { b"" };
    if colors {
        out.extend_from_slice(b"\x1b[90m");
    }
    time.rfc3339(out);
    if colors {
        out.extend_from_slice(b"\x1b[0m");
    }
    out.push(b' ');
    out.extend_from_slice(color);
    out.extend_from_slice(level);
    if !color.is_empty() {
        out.extend_from_slice(b"\x1b[0m");
    }
    out.push(b' ');
    text::escaped(out, parts.message.as_bytes(), Style::Message, MAX_VALUE);
    out.extend_from_slice(&parts.fields);
}

/// The message of an event and its other fields, ready for the line.
struct Parts {
    look: Look,
    message: String,
    fields: Vec<u8>,
}

impl Parts {
    fn key(&mut self, name: &str) {
        match self.look {
            Look::Json => {
                self.fields.extend_from_slice(b",\"");
                text::escaped(&mut self.fields, name.as_bytes(), Style::Json, MAX_VALUE);
                self.fields.extend_from_slice(b"\":");
            }
            Look::Console { colors } => {
                self.fields.extend_from_slice(if colors { b" \x1b[36m" } else { b" " });
                text::escaped(&mut self.fields, name.as_bytes(), Style::Json, MAX_VALUE);
                self.fields.extend_from_slice(if colors { b"=\x1b[0m" } else { b"=" });
            }
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        // The bridge from the `log` crate adds where a line came from as `log.file` and so on.
        if name.starts_with("log.") {
            return;
        }
        self.key(name);
        let value = if is_credential_header(name) { "***" } else { value };
        let quoted = self.look == Look::Json || needs_quotes(value);
        if quoted {
            self.fields.push(b'"');
        }
        text::escaped(&mut self.fields, value.as_bytes(), Style::Json, MAX_VALUE);
        if quoted {
            self.fields.push(b'"');
        }
    }

    fn literal(&mut self, name: &str, value: impl fmt::Display) {
        if name.starts_with("log.") {
            return;
        }
        self.key(name);
        let _ = write!(self.fields, "{value}");
    }
}

/// Whether a value on the console would not be read as one word.
fn needs_quotes(value: &str) -> bool {
    value.is_empty()
        || value.chars().any(|c| c == '"' || c == '\\' || c == '=' || c <= ' ' || c.is_control())
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.text(field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.text(field.name(), &format!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.text(field.name(), &text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.literal(field.name(), value);
        } else {
            self.text(field.name(), &value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::registry::Registry;

    use super::*;

    #[derive(Default)]
    struct Captured(Mutex<Vec<String>>);

    /// Formats events at a fixed time into memory.
    struct Capture {
        lines: Lines,
        captured: Arc<Captured>,
    }

    impl<S: Subscriber> Layer<S> for Capture {
        fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
            self.lines.enabled(metadata, context)
        }

        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut out = Vec::new();
            let now = SystemTime::UNIX_EPOCH + Duration::from_hours(498_680);
            self.lines.format.line(&mut out, event, now);
            self.captured.0.lock().unwrap().push(String::from_utf8(out).unwrap());
        }
    }

    fn lines(look: Look, level: &str, what: impl FnOnce()) -> Vec<String> {
        let captured = Arc::new(Captured::default());
        let layer = Capture {
            lines: Lines {
                output: Output::Stderr,
                format: Format { look, caller: false, zone: TimeZone::UTC },
                level: level_named(level).unwrap(),
            },
            captured: Arc::clone(&captured),
        };
        tracing::subscriber::with_default(Registry::default().with(layer), what);
        captured.0.lock().unwrap().clone()
    }

    #[test]
    fn console_lines() {
        let seen = lines(Look::Console { colors: false }, "Info", || {
            tracing::error!(entryPointName = "web", error = "it broke", tries = 3, "message \"x\"");
            tracing::info!(rule = "Host(`a`)", "two\nlines\x1b[2J");
            tracing::debug!("not shown");
        });
        assert_eq!(
            seen,
            [
                "2026-11-21T08:00:00Z ERR message \"x\" entryPointName=web error=\"it broke\" tries=3\n",
                "2026-11-21T08:00:00Z INF two\\nlines\\u001b[2J rule=Host(`a`)\n",
            ]
        );
        let colored = lines(Look::Console { colors: true }, "PANIC", || {
            tracing::error!(a = 1, "x");
            tracing::warn!("not shown");
        });
        assert_eq!(
            colored,
            ["\x1b[90m2026-11-21T08:00:00Z\x1b[0m \x1b[31mERR\x1b[0m x \x1b[36ma=\x1b[0m1\n"]
        );
    }

    #[test]
    fn json_lines_parse_whatever_is_in_them() {
        let seen = lines(Look::Json, "trace", || {
            tracing::warn!(
                routerName = "a\"\r\n\u{7}",
                ratio = f64::NAN,
                ok = true,
                "say \"hi\"\n"
            );
        });
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
        assert!(seen[0].starts_with(
            "{\"level\":\"warn\",\"time\":\"2026-11-21T08:00:00Z\",\"message\":\"say "
        ));
        assert_eq!(value["message"], "say \"hi\"\n");
        assert_eq!(value["routerName"], "a\"\r\n\u{7}");
        assert_eq!(value["ratio"], "NaN");
        assert_eq!(value["ok"], true);
    }

    #[test]
    fn errors_are_shown_with_their_causes() {
        let error = StartError::Open { path: "/x".into(), source: io::Error::other("denied") };
        let seen = lines(Look::Json, "error", || {
            tracing::error!(error = &error as &dyn std::error::Error, "no");
        });
        assert!(seen[0].contains("cannot open the log file `/x`: denied"), "{}", seen[0]);
    }

    #[test]
    fn credentials_and_other_crates_chatter_are_not_shown() {
        let seen = lines(Look::Json, "trace", || {
            tracing::trace!(authorization = "mark", X_Api_Key = "mark", cookie = ?"mark", "x");
            tracing::debug!(target: "h2::codec", headers = "mark", "frame");
            tracing::warn!(target: "h2::codec", "shown");
        });
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|line| !line.contains("mark")), "{seen:?}");
    }

    #[test]
    fn levels_are_named_as_in_traefik() {
        for (name, level) in [
            ("TRACE", LevelFilter::TRACE),
            ("debug", LevelFilter::DEBUG),
            ("Warn", LevelFilter::WARN),
            ("FATAL", LevelFilter::ERROR),
            ("panic", LevelFilter::ERROR),
        ] {
            assert_eq!(level_named(name), Some(level));
        }
        assert_eq!(level_named("loud"), None);
    }

    #[test]
    fn lines_reach_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.log");
        let config =
            LogConfig { file_path: path.to_str().unwrap().to_owned(), ..LogConfig::default() };
        let writer = Arc::new(open(&config).unwrap());
        let guard = LogGuard { writer: Arc::clone(&writer) };
        let layer = Lines {
            output: Output::Queue(writer),
            format: Format { look: Look::Json, caller: true, zone: TimeZone::UTC },
            level: LevelFilter::DEBUG,
        };
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            tracing::debug!("hello");
        });
        drop(guard);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"message\":\"hello\"") && text.contains("log.rs:"), "{text}");
    }

    #[test]
    fn options_have_traefiks_names_and_defaults() {
        let config: LogConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, LogConfig::default());
        assert_eq!((config.level.as_str(), config.format.as_str()), ("ERROR", "common"));
        let config: LogConfig = serde_json::from_str(r#"{"otlp":{}}"#).unwrap();
        assert!(matches!(init(&config), Err(StartError::Option(_))));
    }
}
