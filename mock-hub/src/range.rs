//! `Range` and `If-Range` (RFC 9110, sections 14 and 13.1.5), as far as a download needs them: one range of bytes.

/// What a request with a `Range` header gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// No (valid, applicable) range: 200 with everything.
    Whole,
    /// 206 with bytes `start..end`.
    Part { start: usize, end: usize },
    /// 416.
    Unsatisfiable,
}

/// Decides the range of a file of `len` bytes whose (strong, unquoted) ETag is `etag`.
pub(crate) fn slice(range: Option<&str>, if_range: Option<&str>, etag: &str, len: usize) -> Slice {
    let Some(spec) = range.and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Slice::Whole;
    };
    // If-Range compares strongly: another ETag, a weak one or a date means "send me everything"
    if if_range.is_some_and(|condition| condition.trim() != format!("\"{etag}\"")) {
        return Slice::Whole;
    }
    let Some((first, last)) = spec.split_once('-').filter(|(_, last)| !last.contains(',')) else {
        return Slice::Whole;
    };
    let (start, end) = match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(len)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, len),
        (Err(_), Ok(last)) if first.trim().is_empty() => (len.saturating_sub(last), len),
        _ => return Slice::Whole,
    };
    if start >= len { Slice::Unsatisfiable } else { Slice::Part { start, end } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |start, end| Slice::Part { start, end };
        for (range, if_range, wanted) in [
            (None, None, Slice::Whole),
            (Some("bytes=0-"), None, part(0, 10)),
            (Some("bytes=4-"), None, part(4, 10)),
            (Some("bytes=4-5"), None, part(4, 6)),
            (Some("bytes=4-99"), None, part(4, 10)),
            (Some("bytes=-3"), None, part(7, 10)),
            (Some("bytes=10-"), None, Slice::Unsatisfiable),
            (Some("bytes=5-4"), None, Slice::Whole),
            (Some("bytes=1-2,4-5"), None, Slice::Whole),
            (Some("lines=1-2"), None, Slice::Whole),
            (Some("bytes=4-"), Some("\"e\""), part(4, 10)),
            (Some("bytes=4-"), Some("\"other\""), Slice::Whole),
            (Some("bytes=4-"), Some("W/\"e\""), Slice::Whole),
        ] {
            assert_eq!(slice(range, if_range, "e", 10), wanted, "{range:?} {if_range:?}");
        }
    }
}
