//! `strftime_now`: the date in a prompt.

use chrono::{Datelike, Local, NaiveDate, NaiveDateTime, Timelike};

/// What time it is for a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock(Option<NaiveDateTime>);

impl Clock {
    /// The local time, whenever a template asks.
    pub const NOW: Self = Self(None);

    /// Always the same second: prompts of runs that must repeat. The first of January 2025, 00:00.
    pub fn pinned() -> Self {
        Self::at(2025, 1, 1, 0, 0, 0).unwrap_or(Self::NOW)
    }

    /// A second of the local calendar; none if there is no such one.
    pub fn at(year: i32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<Self> {
        NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second).map(|time| Self(Some(time)))
    }

    /// `datetime.now().strftime(format)` of Python in the C locale, with glibc's flags (`%-d`, `%_H`, `%^a`, `%010Y`).
    /// A code that does not exist stays as it is written, as with glibc.
    pub fn strftime(self, format: &str) -> String {
        let time = self.0.unwrap_or_else(|| Local::now().naive_local());
        let mut out = String::new();
        write(&time, format, &mut out);
        out
    }
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Widths beyond this are not asked for in earnest.
const WIDEST: usize = 1000;

fn write(time: &NaiveDateTime, format: &str, out: &mut String) {
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = &rest[at + 1..];
        let flags = code.len() - code.trim_start_matches(['-', '_', '0', '^', '#']).len();
        let (flags, behind) = code.split_at(flags);
        let digits = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (width, behind) = behind.split_at(digits);
        let behind = behind.strip_prefix(['E', 'O']).unwrap_or(behind);
        let written = behind.chars().next().and_then(|c| Some((c.len_utf8(), one(time, c)?)));
        let Some((length, field)) = written else {
            // Not a code: as it stands.
            let length = (code.len() - behind.len()) + behind.chars().next().map_or(0, char::len_utf8);
            out.push('%');
            out.push_str(&code[..length]);
            rest = &code[length..];
            continue;
        };
        out.push_str(&field.written(flags, width.parse().ok()));
        rest = &behind[length..];
    }
    out.push_str(rest);
}

/// The value of a code.
enum Field {
    /// A number with its usual width and padding.
    Number(i64, usize, char),
    Text(String),
}

impl Field {
    fn written(self, flags: &str, width: Option<usize>) -> String {
        let flag = flags.chars().rev().find(|c| matches!(c, '-' | '_' | '0'));
        let (text, usual, padding) = match self {
            Self::Number(n, usual, padding) => {
                let padding = match flag {
                    Some('0') => '0',
                    Some('_') => ' ',
                    _ => padding,
                };
                (n.to_string(), if flag == Some('-') { 0 } else { usual }, padding)
            }
            Self::Text(text) => (text, 0, if flag == Some('0') { '0' } else { ' ' }),
        };
        let width = width.unwrap_or(usual).min(WIDEST);
        let text = if flags.contains('^') { text.to_uppercase() } else { text };
        let missing = width.saturating_sub(text.chars().count());
        let padding: String = std::iter::repeat_n(padding, missing).collect();
        padding + &text
    }
}

fn one(time: &NaiveDateTime, code: char) -> Option<Field> {
    let zeros = |n: i64, width| Some(Field::Number(n, width, '0'));
    let blanks = |n: i64, width| Some(Field::Number(n, width, ' '));
    let text = |s: &str| Some(Field::Text(s.to_owned()));
    let day = DAYS.get(time.weekday().num_days_from_sunday() as usize)?;
    let month = MONTHS.get(time.month0() as usize)?;
    let twelve = i64::from(time.hour12().1);
    let noon = if time.hour() < 12 { "AM" } else { "PM" };
    let formatted = |format: &str| {
        let mut out = String::new();
        write(time, format, &mut out);
        Some(Field::Text(out))
    };
    // Weeks since the first Sunday (Monday) of the year.
    let week = |from: u32| i64::from((time.ordinal0() + 7 - from) / 7);
    let iso = time.iso_week();
    match code {
        'a' => text(&day[..3]),
        'A' => text(day),
        'b' | 'h' => text(&month[..3]),
        'B' => text(month),
        'c' => formatted("%a %b %e %H:%M:%S %Y"),
        'C' => zeros(i64::from(time.year().div_euclid(100)), 2),
        'd' => zeros(i64::from(time.day()), 2),
        'D' | 'x' => formatted("%m/%d/%y"),
        'e' => blanks(i64::from(time.day()), 2),
        'f' => zeros(i64::from(time.nanosecond() / 1000), 6),
        'F' => formatted("%Y-%m-%d"),
        'g' => zeros(i64::from(iso.year().rem_euclid(100)), 2),
        'G' => zeros(i64::from(iso.year()), 1),
        'H' => zeros(i64::from(time.hour()), 2),
        'I' => zeros(twelve, 2),
        'j' => zeros(i64::from(time.ordinal()), 3),
        'k' => blanks(i64::from(time.hour()), 2),
        'l' => blanks(twelve, 2),
        'm' => zeros(i64::from(time.month()), 2),
        'M' => zeros(i64::from(time.minute()), 2),
        'n' => text("\n"),
        'p' => text(noon),
        'P' => text(&noon.to_lowercase()),
        'r' => formatted("%I:%M:%S %p"),
        'R' => formatted("%H:%M"),
        's' => zeros(time.and_local_timezone(Local).earliest()?.timestamp(), 1),
        'S' => zeros(i64::from(time.second()), 2),
        't' => text("\t"),
        'T' | 'X' => formatted("%H:%M:%S"),
        'u' => zeros(i64::from(time.weekday().number_from_monday()), 1),
        'U' => zeros(week(time.weekday().num_days_from_sunday()), 2),
        'V' => zeros(i64::from(iso.week()), 2),
        'w' => zeros(i64::from(time.weekday().num_days_from_sunday()), 1),
        'W' => zeros(week(time.weekday().num_days_from_monday()), 2),
        'y' => zeros(i64::from(time.year().rem_euclid(100)), 2),
        'Y' => zeros(i64::from(time.year()), 1),
        // Python's now() knows no zone.
        'z' | 'Z' => text(""),
        '%' => text("%"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_have_six_digits() {
        let time = NaiveDate::from_ymd_opt(2025, 1, 1).and_then(|day| day.and_hms_nano_opt(0, 0, 0, 12_345_678));
        let mut out = String::new();
        write(&time.expect("a time"), "%f", &mut out);
        assert_eq!(out, "012345");
    }
}
