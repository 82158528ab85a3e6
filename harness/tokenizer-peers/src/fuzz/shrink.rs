//! A smaller text that still shows what a text shows.

use std::time::{Duration, Instant};

/// How often the question may be asked, and for how long: the answers for a million characters take a while.
const LIMIT: usize = 4000;
const TIME: Duration = Duration::from_secs(30);

/// Takes away stretches of characters, from halves down to single ones, as long as `shows` holds.
pub(super) fn shrink(text: &str, shows: &dyn Fn(&str) -> bool) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let (mut size, mut asked, start) = (chars.len().div_ceil(2), 0, Instant::now());
    let more = |asked: usize| asked < LIMIT && start.elapsed() < TIME;
    while size > 0 && more(asked) {
        let (mut at, before) = (0, chars.len());
        while at < chars.len() && more(asked) {
            let end = (at + size).min(chars.len());
            let rest: String = chars.iter().take(at).chain(chars.iter().skip(end)).collect();
            asked += 1;
            if shows(&rest) {
                chars.drain(at..end);
            } else {
                at = end;
            }
        }
        if size == 1 && chars.len() == before {
            break;
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
    chars.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn what_matters_is_left() {
        let text = format!("{}ä{}ö{}", "x".repeat(1000), "y".repeat(333), "z".repeat(5000));
        assert_eq!(shrink(&text, &|t| t.contains('ä') && t.contains('ö')), "äö");
        assert_eq!(shrink("abc", &|t| t.len() == 3), "abc");
        assert_eq!(shrink("", &|_| true), "");
    }
}
