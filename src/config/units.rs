//! Values with units, as text: durations, sizes, shares, ranges of status codes.
//!
//! Each parser says what is wrong and, where that can be guessed, how it is written here.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The longest time that can be configured. Nothing waits for ever.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
pub const DURATION_UNITS: [&str; 5] = ["ms", "s", "m", "h", "d"];
pub const SIZE_UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "KB", "MB"];

/// Why a text is not a value of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Continues "... is": `not a duration`.
    pub why: String,
    /// The text that was probably meant.
    pub better: Option<String>,
}

impl Wrong {
    fn new(why: impl Into<String>) -> Wrong {
        Wrong { why: why.into(), better: None }
    }

    fn or(mut self, better: Option<String>) -> Wrong {
        self.better = better;
        self
    }
}

/// `250ms`, `1.5s`, `10m`, `1h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let (number, unit) = split(text);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if !number.is_empty() => {
            let better = decimal(number, 1_000).is_some().then(|| format!("{number}s"));
            return Err(Wrong::new("a duration without its unit").or(better));
        }
        _ => return Err(Wrong::new("not a duration").or(other_duration(text))),
    };
    let milliseconds = decimal(number, scale).ok_or_else(|| Wrong::new("not a duration").or(other_duration(text)))?;
    let time = Duration::from_millis(milliseconds);
    if time > LONGEST { Err(Wrong::new("longer than 365d")) } else { Ok(time) }
}

/// How a duration is written in the configuration, in the largest unit that holds it whole.
pub fn duration_text(time: Duration) -> String {
    let milliseconds = time.as_millis();
    for (unit, scale) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds != 0 && milliseconds.is_multiple_of(scale) {
            return format!("{}{unit}", milliseconds / scale);
        }
    }
    format!("{milliseconds}ms")
}

/// A duration as other programs write it: `3sec`, `10 minutes`, `1h30m`, `1w`.
fn other_duration(text: &str) -> Option<String> {
    let mut rest = text.trim();
    let mut total = 0u64;
    while !rest.is_empty() {
        let (number, tail) = split(rest);
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(end);
        let scale = match unit.to_lowercase().as_str() {
            "ms" | "msec" | "msecs" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            "w" | "week" | "weeks" => 7 * 86_400_000,
            _ => return None,
        };
        total = total.checked_add(decimal(number, scale)?)?;
        rest = after.trim_start();
    }
    let time = Duration::from_millis(total);
    (!text.trim().is_empty() && time <= LONGEST).then(|| duration_text(time))
}

/// `64KiB`, `256B`, `10MB`, in bytes.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let (number, unit) = split(text);
    let scale = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" if !number.is_empty() => {
            let better = decimal(number, 1).is_some().then(|| format!("{number}B"));
            return Err(Wrong::new("a size without its unit").or(better));
        }
        _ => return Err(Wrong::new("not a size").or(other_size(number, unit))),
    };
    decimal(number, scale).ok_or_else(|| Wrong::new("not a size"))
}

/// How a size is written in the configuration.
pub fn size_text(bytes: u64) -> String {
    for (unit, scale) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes != 0 && bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    format!("{bytes}B")
}

fn other_size(number: &str, unit: &str) -> Option<String> {
    let unit = match unit.trim().to_lowercase().as_str() {
        "b" | "byte" | "bytes" => "B",
        "k" | "kib" | "kb" => "KiB",
        "m" | "mib" | "mb" => "MiB",
        "g" | "gib" | "gb" => "GiB",
        _ => return None,
    };
    decimal(number, 1).map(|_| format!("{number}{unit}"))
}

/// `20%`, `0.5%`, in hundredths of a percent: 0 to 10,000.
pub fn percent(text: &str) -> Result<u32, Wrong> {
    let (number, unit) = split(text);
    let hundredths = decimal(number, 100).and_then(|value| u32::try_from(value).ok());
    match (hundredths, unit) {
        (Some(share), "%") if share <= 10_000 => Ok(share),
        (Some(_), "%") => Err(Wrong::new("more than 100%")),
        (Some(share), "" | " %" | "percent" | " percent") if share <= 10_000 => {
            Err(Wrong::new("not a share in percent").or(Some(format!("{number}%"))))
        }
        _ => Err(Wrong::new("not a share in percent")),
    }
}

/// `200`, `200-299`, `200-299,301`.
pub fn status_ranges(text: &str) -> Result<Vec<RangeInclusive<u16>>, Wrong> {
    text.split(',').map(|part| status_range(part.trim())).collect()
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let better = matches!(class, "1" | "2" | "3" | "4" | "5").then(|| format!("{class}00-{class}99"));
        return Err(Wrong::new("not a status code").or(better));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(first), Some(last)) => {
            Err(Wrong::new("a range that ends before it begins").or(Some(format!("{last}-{first}"))))
        }
        _ => {
            let better = match (status(first.trim()), status(last.trim_start_matches(['-', '.', ' ']))) {
                (Some(first), Some(last)) if first <= last => Some(format!("{first}-{last}")),
                _ => None,
            };
            Err(Wrong::new("not a status code from 100 to 599").or(better))
        }
    }
}

/// A status code (RFC 9110 §15): three digits, the first of them 1 to 5.
pub fn status(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|code| (100..=599).contains(code))
}

/// The number a text begins with, and what stands behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// A decimal number times a scale; what the scale does not make whole is no number here.
fn decimal(number: &str, scale: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let dotted = number.contains('.');
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || (dotted && part.is_empty()) || part.len() > 9 || !digits(whole) || !digits(part) {
        return None;
    }
    let mut value = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if dotted {
        let power = 10u64.checked_pow(u32::try_from(part.len()).ok()?)?;
        let scaled = part.parse::<u64>().ok()?.checked_mul(scale)?;
        if !scaled.is_multiple_of(power) {
            return None;
        }
        value = value.checked_add(scaled / power)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn better(wrong: Result<impl std::fmt::Debug, Wrong>) -> Option<String> {
        wrong.unwrap_err().better
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("1ms", 1),
            ("250ms", 250),
            ("3s", 3_000),
            ("1.5s", 1_500),
            ("10m", 600_000),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for (text, meant) in [
            ("3sec", Some("3s")),
            ("3 s", Some("3s")),
            ("3", Some("3s")),
            ("10 minutes", Some("10m")),
            ("1h30m", Some("90m")),
            ("1w", Some("7d")),
            ("3S", Some("3s")),
            ("", None),
            ("s", None),
            ("-3s", None),
            ("1.s", None),
            ("0.0001s", None),
            ("366d", None),
            ("99999999999999999999s", None),
            ("3us", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(better(duration(text)).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0ms", "1ms", "1500ms", "3s", "90m", "1h", "7d"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0B", 0), ("256B", 256), ("64KiB", 65_536), ("1.5MiB", 1_572_864), ("10KB", 10_000), ("1GiB", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, meant) in [
            ("64", Some("64B")),
            ("64k", Some("64KiB")),
            ("64kb", Some("64KiB")),
            ("64 KiB", Some("64KiB")),
            ("1m", Some("1MiB")),
            ("KiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(better(size(text)).as_deref(), meant, "{text}");
        }
        for bytes in [0, 1, 1_024, 65_536, 1 << 20, 1_000] {
            assert_eq!(size(&size_text(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn shares() {
        assert_eq!(percent("20%"), Ok(2_000));
        assert_eq!(percent("0%"), Ok(0));
        assert_eq!(percent("0.25%"), Ok(25));
        assert_eq!(percent("100%"), Ok(10_000));
        assert_eq!(better(percent("20")).as_deref(), Some("20%"));
        assert_eq!(better(percent("20 %")).as_deref(), Some("20%"));
        assert!(percent("101%").is_err() && percent("0.001%").is_err() && percent("%").is_err());
    }

    #[test]
    fn status_codes() {
        assert_eq!(status_ranges("200-299"), Ok(vec![200..=299]));
        assert_eq!(status_ranges("200, 301-302"), Ok(vec![200..=200, 301..=302]));
        assert_eq!(better(status_ranges("2xx")).as_deref(), Some("200-299"));
        assert_eq!(better(status_ranges("299-200")).as_deref(), Some("200-299"));
        assert_eq!(better(status_ranges("200 - 299")).as_deref(), Some("200-299"));
        assert_eq!(better(status_ranges("200..299")), None);
        assert!(status_ranges("").is_err() && status_ranges("99").is_err() && status_ranges("600").is_err());
    }
}
