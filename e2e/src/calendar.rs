//! Dates and times of SQL replies, which count days and microseconds since 1970, as people read them.

/// Year, month and day of a count of days since 1970-01-01 (Gregorian).
///
/// Years begin in March here, so that the leap day is the last of its year; 400 such years have 146,097 days.
pub fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// `2013-02-08`.
pub fn date(days: i64) -> String {
    let (year, month, day) = civil_date(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2013-02-08 20:00:00`, with the microseconds cut off.
pub fn time(microseconds: i64) -> String {
    let seconds = microseconds.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    format!("{} {:02}:{:02}:{:02}", date(days), second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::{date, time};

    #[test]
    fn days_and_microseconds_become_dates_and_times() {
        assert_eq!((date(0), date(-1), date(15_744)), ("1970-01-01".into(), "1969-12-31".into(), "2013-02-08".into()));
        assert_eq!(time(1_360_353_600_000_000), "2013-02-08 20:00:00");
        assert_eq!(time(951_782_400_000_001), "2000-02-29 00:00:00");
    }
}
