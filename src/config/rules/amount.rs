//! Percentages, durations, sizes, rates and counts: numbers with their units.
//!
//! Each answers `None` for what it cannot read; who asked says what is wrong.

use std::time::Duration;

/// `10%`, `0.25%` in hundredths of a percent, at most 10,000.
pub(super) fn percent(text: &str) -> Option<u32> {
    let share = hundredths(text.strip_suffix('%')?)?;
    (share <= 10_000).then_some(share)
}

/// A number with up to two decimals, in hundredths.
pub(super) fn hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !digits(whole, 7) || !digits(fraction, 2) {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<2}").parse().ok()?;
    Some(whole.parse::<u32>().ok()? * 100 + fraction)
}

/// `500ms`, `5s`, `2m`, `1h`, `1d`; more than nothing, at most a year.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let total = number.checked_mul(milliseconds)?;
    (1..=365 * 86_400_000).contains(&total).then(|| Duration::from_millis(total))
}

/// `10MiB`, `64KB` in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes = match unit {
        "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// `20/s`, `100/m`: how many in which time.
pub(super) fn rate(text: &str) -> Option<(u32, Duration)> {
    let (number, unit) = text.split_once('/')?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some((count(number)?, Duration::from_secs(seconds)))
}

/// A whole number from 1.
pub(super) fn count(text: &str) -> Option<u32> {
    digits(text, 9).then(|| text.parse().ok()).flatten().filter(|count| *count > 0)
}

/// Three digits.
pub(super) fn code(text: &str) -> Option<u16> {
    (text.len() == 3 && digits(text, 3)).then(|| text.parse().ok()).flatten()
}

fn digits(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at_checked(text.find(|letter: char| !letter.is_ascii_digit())?)?;
    digits(number, 12).then(|| number.parse().ok()).flatten().map(|number| (number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_with_their_units() {
        assert_eq!(percent("10%"), Some(1000));
        assert_eq!(percent("0.5%"), Some(50));
        assert_eq!(percent("99.99%"), Some(9999));
        assert_eq!(percent("100%"), Some(10_000));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(rate("20/s"), Some((20, Duration::from_secs(1))));
    }

    #[test]
    fn refuses_bare_numbers_and_what_is_out_of_bounds() {
        for text in ["10", "100.01%", "1.234%", "%", ".5%", "5.%", "-1%", "+1%", "99999999999%"] {
            assert_eq!(percent(text), None, "{text}");
        }
        for text in ["5", "0s", "s", "5 s", "5x", "366d", "999999999999999d", "\u{0665}s"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(size("999999999999GiB"), None);
        assert_eq!(rate("0/s"), None);
        assert_eq!(code("42"), None);
        assert_eq!(code("+42"), None);
    }
}
