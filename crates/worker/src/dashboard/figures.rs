//! Figures as people read them: tokens, money, durations, sizes, times of day.

use std::time::Duration;

use protocol::Timestamp;

/// `0`, `940`, `1.9k`, `374.5k`, `2.1M`.
pub(crate) fn short(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{}.{}k", count / 1_000, count % 1_000 / 100),
        _ => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
    }
}

/// `18,204`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `$3.18`; three decimals below ten cents.
pub(crate) fn dollars(amount: f64) -> String {
    if amount > 0.0 && amount < 0.1 { format!("${amount:.3}") } else { format!("${:.2}", amount.max(0.0)) }
}

/// `41 ms`, `9.4 s`, `1:14`, `41:07`, `3 h 12`.
pub(crate) fn duration(duration: Duration) -> String {
    let (ms, s) = (duration.as_millis(), duration.as_secs());
    match s {
        0 if ms < 100 => format!("{ms} ms"),
        0..60 => format!("{}.{} s", s, ms % 1_000 / 100),
        60..3_600 => format!("{}:{:02}", s / 60, s % 60),
        _ => format!("{} h {:02}", s / 3_600, s % 3_600 / 60),
    }
}

/// `48 B`, `1.2 KB`, `3.4 MB`.
pub(crate) fn bytes(count: usize) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{}.{} KB", count / 1_000, count % 1_000 / 100),
        _ => format!("{}.{} MB", count / 1_000_000, count % 1_000_000 / 100_000),
    }
}

/// `17:31:08`, in UTC: the page module puts the reader's own time in its place.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    time.to_string().get(11..19).unwrap_or_default().to_owned()
}

/// `1 file`, `3 files`.
pub(crate) fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_in_the_pages() {
        assert_eq!([0, 940, 1_949, 374_500, 2_100_000].map(short), ["0", "940", "1.9k", "374.5k", "2.1M"]);
        assert_eq!([7, 1_204, 18_204, 1_000_000].map(grouped), ["7", "1,204", "18,204", "1,000,000"]);
        assert_eq!([0.0, 0.011, 3.18, 18.4].map(dollars), ["$0.00", "$0.011", "$3.18", "$18.40"]);
        assert_eq!([48, 1_200, 3_400_000].map(bytes), ["48 B", "1.2 KB", "3.4 MB"]);
        let ms = |ms| duration(Duration::from_millis(ms));
        assert_eq!(
            [41, 580, 9_400, 74_000, 2_467_000, 11_520_000].map(ms),
            ["41 ms", "0.5 s", "9.4 s", "1:14", "41:07", "3 h 12"]
        );
        assert_eq!(time_of_day(Timestamp::from_unix_ms(1_795_198_984_413)), "18:23:04");
    }
}
