//! Durations as Go writes them: `1m30s`, `500ms`, or a bare integer of seconds.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A signed duration in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(i64);

/// A text that is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write seconds as an integer, or units as in `1m30s` or `500ms`")]
pub struct DurationError;

impl GoDuration {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A whole number of seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds.
    pub const fn nanoseconds(self) -> i64 {
        self.0
    }

    /// The duration when it is more than zero. Most of Traefik's options mean "off" by zero.
    pub fn positive(self) -> Option<Duration> {
        u64::try_from(self.0).ok().filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }

    /// The duration, with anything negative as zero.
    pub fn or_zero(self) -> Duration {
        self.positive().unwrap_or_default()
    }

    /// Whether it is less than zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if let Ok(seconds) = text.parse::<i64>() {
            return seconds.checked_mul(1_000_000_000).map(Self).ok_or(DurationError);
        }
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest.is_empty() {
            return Err(DurationError);
        }
        let mut total = 0_i64;
        while !rest.is_empty() {
            let (part, tail) = component(rest)?;
            total = total.checked_add(part).ok_or(DurationError)?;
            rest = tail;
        }
        Ok(Self(if negative { -total } else { total }))
    }
}

/// Reads one number and its unit; returns nanoseconds and what follows.
fn component(text: &str) -> Result<(i64, &str), DurationError> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(DurationError)?;
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(DurationError);
    }
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(unit_end);
    let scale: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(DurationError),
    };
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError)? };
    let mut nanos = whole.checked_mul(scale).ok_or(DurationError)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(place * i64::from(digit - b'0')).ok_or(DurationError)?;
    }
    Ok((nanos, tail))
}

impl fmt::Display for GoDuration {
    /// Writes what Go's `Duration.String` writes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_char('-')?;
        }
        let nanos = self.0.unsigned_abs();
        if nanos < 1_000 {
            return write!(f, "{nanos}ns");
        }
        if nanos < 1_000_000 {
            return decimal(f, nanos, 1_000, "µs");
        }
        if nanos < 1_000_000_000 {
            return decimal(f, nanos, 1_000_000, "ms");
        }
        let seconds = nanos / 1_000_000_000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        decimal(f, nanos % 60_000_000_000, 1_000_000_000, "s")
    }
}

fn decimal(f: &mut fmt::Formatter<'_>, nanos: u64, scale: u64, unit: &str) -> fmt::Result {
    write!(f, "{}", nanos / scale)?;
    let fraction = nanos % scale;
    if fraction > 0 {
        let width = scale.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))?;
    }
    f.write_str(unit)
}

impl fmt::Debug for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = GoDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `30s`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<GoDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<GoDuration, E> {
                Ok(GoDuration::from_secs(seconds))
            }

            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<GoDuration, E> {
                i64::try_from(seconds).map(GoDuration::from_secs).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_durations_and_bare_seconds() {
        for (text, nanos) in [
            ("30", 30_000_000_000),
            ("0", 0),
            ("-1", -1_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            ("-100ms", -100_000_000),
            ("1µs", 1_000),
            (".5s", 500_000_000),
        ] {
            assert_eq!(
                text.parse::<GoDuration>().map(GoDuration::nanoseconds),
                Ok(nanos),
                "{text}"
            );
        }
        for text in ["", "x", "1", "s", "1x", "1..5s", "-", "9999999999999h", "1 s"] {
            let parsed = text.parse::<GoDuration>();
            assert_eq!(parsed.is_ok(), text == "1", "{text}");
        }
    }

    #[test]
    fn writes_as_go_does() {
        for text in ["0s", "100ms", "1m30s", "1h0m0s", "1.5s", "87.5ms", "3s", "10m0s", "1µs"] {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), text);
        }
    }
}
