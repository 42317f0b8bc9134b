//! The time of day as text, worked out once a second.

/// The texts of one second, kept until the next: both forms of the log need the calendar, and a
/// busy worker writes many thousands of lines in a second.
#[derive(Debug, Clone)]
pub struct ClockText {
    second: u64,
    /// `2026-11-20T10:00:47` (RFC 3339 §5.6, without fraction and zone).
    date_time: [u8; 19],
    /// `20/Nov/2026:10:00:47`, as the common log format has it.
    common: [u8; 20],
}

/// The last second of the year 9999, behind which RFC 3339 has no words.
const LAST: u64 = 253_402_300_799;
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

impl Default for ClockText {
    fn default() -> ClockText {
        ClockText { second: 0, date_time: *b"1970-01-01T00:00:00", common: *b"01/Jan/1970:00:00:00" }
    }
}

impl ClockText {
    /// Appends `2026-11-20T10:00:47.123Z`.
    #[inline]
    pub(super) fn rfc3339(&mut self, unix_ms: u64, out: &mut Vec<u8>) {
        self.turn(unix_ms / 1000);
        let ms = (unix_ms % 1000) as u16;
        out.extend_from_slice(&self.date_time);
        let digit = |n: u16| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }

    /// Appends `20/Nov/2026:10:00:47 +0000`.
    #[inline]
    pub(super) fn common(&mut self, unix_ms: u64, out: &mut Vec<u8>) {
        self.turn(unix_ms / 1000);
        out.extend_from_slice(&self.common);
        out.extend_from_slice(b" +0000");
    }

    #[inline]
    fn turn(&mut self, second: u64) {
        if second != self.second {
            self.write(second);
        }
    }

    #[cold]
    fn write(&mut self, second: u64) {
        self.second = second;
        let second = second.min(LAST);
        let (year, month, day) = civil(second / 86_400);
        let of_day = second % 86_400;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);

        two(&mut self.date_time, 0, year / 100);
        two(&mut self.date_time, 2, year % 100);
        two(&mut self.date_time, 5, month);
        two(&mut self.date_time, 8, day);
        two(&mut self.date_time, 11, hour);
        two(&mut self.date_time, 14, minute);
        two(&mut self.date_time, 17, second);

        two(&mut self.common, 0, day);
        self.common[3..6].copy_from_slice(MONTHS[(month - 1) as usize]);
        two(&mut self.common, 7, year / 100);
        two(&mut self.common, 9, year % 100);
        two(&mut self.common, 12, hour);
        two(&mut self.common, 15, minute);
        two(&mut self.common, 18, second);
    }
}

fn two(text: &mut [u8], at: usize, number: u64) {
    text[at] = b'0' + (number / 10 % 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

/// Year, month and day of a day counted from 1970-01-01 in the Gregorian calendar. Years are counted
/// from March, so that the leap day is the last of its year.
fn civil(day: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    const FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    let day = day + FROM_MARCH_OF_YEAR_0;
    let (era, of_era) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(clock: &mut ClockText, unix_ms: u64) -> (String, String) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        clock.rfc3339(unix_ms, &mut a);
        clock.common(unix_ms, &mut b);
        (String::from_utf8(a).unwrap(), String::from_utf8(b).unwrap())
    }

    #[test]
    fn known_moments() {
        let mut clock = ClockText::default();
        for (ms, time, common) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z", "28/Feb/2000:23:59:59 +0000"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000"),
            (1_795_168_847_012, "2026-11-20T10:00:47.012Z", "20/Nov/2026:10:00:47 +0000"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
            (u64::MAX, "9999-12-31T23:59:59.615Z", "31/Dec/9999:23:59:59 +0000"),
        ] {
            assert_eq!(texts(&mut clock, ms), (time.to_owned(), common.to_owned()));
        }
    }

    proptest::proptest! {
        /// An independent calendar agrees on every second up to the year 9999.
        #[test]
        fn agrees_with_httpdate(second in 0..=LAST) {
            let theirs = httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(second));
            let (time, common) = texts(&mut ClockText::default(), second * 1000);
            // Sun, 06 Nov 1994 08:49:37 GMT
            let (day, month, year, clock) = (&theirs[5..7], &theirs[8..11], &theirs[12..16], &theirs[17..25]);
            proptest::prop_assert_eq!(common, format!("{day}/{month}/{year}:{clock} +0000"));
            proptest::prop_assert_eq!(&time[0..4], year);
            proptest::prop_assert_eq!(&time[8..19], format!("{day}T{clock}"));
        }
    }
}
