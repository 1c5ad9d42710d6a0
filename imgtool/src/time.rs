//! Times as image-spec writes them: RFC 3339, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

const DAY: i64 = 86_400;
/// 1 January of the years 0 and 10000, between which RFC 3339 has times.
const RANGE: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    // Before the epoch no clock is right.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs() as i64)
}

/// Seconds since the epoch, as text.
pub(crate) fn format(seconds: i64) -> Result<String> {
    if !RANGE.contains(&seconds) {
        return Err(Error::new(format!("time {seconds} out of range: years are 0 to 9999")));
    }
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// The same time in UTC, with the digits of the second's fraction that count.
pub(crate) fn normalize(text: &str) -> Result<String> {
    let form = || Error::new("expected a time of RFC 3339, as 2020-01-02T03:04:05Z");
    let (clock, rest) = text.split_at_checked(19).ok_or_else(form)?;
    let seconds = clock_seconds(clock.as_bytes()).ok_or_else(form)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?),
    };
    if rest.starts_with('.') && !(1..=9).contains(&fraction.len()) {
        return Err(form());
    }
    let mut shown = format(seconds - offset(zone.as_bytes()).ok_or_else(form)?)?;
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        shown.insert_str(19, &format!(".{fraction}"));
    }
    Ok(shown)
}

/// `YYYY-MM-DDThh:mm:ss`, as if in UTC; a leap second is the one before it.
fn clock_seconds(text: &[u8]) -> Option<i64> {
    let separated = text[4] == b'-' && text[7] == b'-' && text[13] == b':' && text[16] == b':';
    if !separated || !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = number(&text[..4], 0..=9999)?;
    let (month, day) = (number(&text[5..7], 1..=12)?, number(&text[8..10], 1..=31)?);
    let days = days(year, month, day);
    let (hour, minute) = (number(&text[11..13], 0..=23)?, number(&text[14..16], 0..=59)?);
    let second = number(&text[17..], 0..=60)?.min(59);
    // A day that the month does not have is another month's.
    (date(days) == (year, month, day)).then_some(days * DAY + hour * 3600 + minute * 60 + second)
}

/// `Z` or `+hh:mm`, in seconds.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] if rest.len() == 5 && rest[2] == b':' => {
            let seconds = number(&rest[..2], 0..=23)? * 3600 + number(&rest[3..], 0..=59)? * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn number(digits: &[u8], range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let digit = |d: &u8| d.is_ascii_digit().then(|| i64::from(d - b'0'));
    let number = digits.iter().try_fold(0, |n, d| Some(n * 10 + digit(d)?))?;
    range.contains(&number).then_some(number)
}

/// Days from the epoch to a date of the Gregorian calendar. Years begin in March here, so that the
/// leap day is the last of them, and 400 of them have 146097 days.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Five months from March or August on have 153 days. 719468 days before the epoch is 1 March 0.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date so many days after the epoch: year, month, day.
fn date(since: i64) -> (i64, i64, i64) {
    // The year is this one or, around its ends, one next to it.
    let guess = 1970 + (since * 400).div_euclid(146_097);
    let year = (guess - 1..=guess + 1).rev().find(|y| days(*y, 1, 1) <= since).unwrap_or(guess - 1);
    let month = (1..=12).rev().find(|m| days(year, *m, 1) <= since).unwrap_or(1);
    (year, month, since - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(RANGE.start / DAY - 1);
        assert_eq!(before, (-1, 12, 31));
        for day in RANGE.start / DAY..RANGE.end / DAY {
            let now = date(day);
            let (y, m, d) = before;
            let leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
            let last = match m {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let next = match (m, d == last) {
                (12, true) => (y + 1, 1, 1),
                (_, true) => (y, m + 1, 1),
                _ => (y, m, d + 1),
            };
            assert_eq!((now, days(now.0, now.1, now.2)), (next, day));
            before = now;
        }
        assert_eq!(before, (9999, 12, 31));
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (RANGE.start, "0000-01-01T00:00:00Z"),
            (RANGE.end - 1, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(format(seconds).unwrap(), text);
            assert_eq!(normalize(text).unwrap(), text);
        }
        assert!(format(RANGE.end).is_err() && format(RANGE.start - 1).is_err());
        assert!(format(i64::MAX).is_err() && format(i64::MIN).is_err());
        assert!(now() > 1_700_000_000);
    }

    #[test]
    fn times_of_elsewhere_become_utc() {
        for (given, utc) in [
            ("2020-01-01T01:30:00+02:00", "2019-12-31T23:30:00Z"),
            ("2020-01-01t01:30:00.500-00:30", "2020-01-01T02:00:00.5Z"),
            ("2020-01-01 01:30:00.000z", "2020-01-01T01:30:00Z"),
            ("2016-12-31T23:59:60.123456789Z", "2016-12-31T23:59:59.123456789Z"),
        ] {
            assert_eq!(normalize(given).unwrap(), utc);
        }
        for bad in [
            "",
            "yesterday",
            "2020-01-01",
            "2020-01-01T00:00:00",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00.0123456789Z",
            "2020-01-01T00:00:00.5",
            "2021-02-29T00:00:00Z",
            "2020-13-01T00:00:00Z",
            "2020-01-01T24:00:00Z",
            "2020-01-01T00:00:61Z",
            "2020-01-01T00:00:00+24:00",
            "2020-01-01T00:00:00+0100",
            "2020-01-01T00:00:00Zx",
            "+020-01-01T00:00:00Z",
            "0000-01-01T00:00:00+00:01",
            "2020-01-01T00:00:0éZ",
        ] {
            assert!(normalize(bad).is_err(), "{bad}");
        }
    }
}
