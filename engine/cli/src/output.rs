//! The last step before a terminal.
//!
//! Names and texts of a model file are its author's, and a terminal obeys what it is sent: an escape sequence in a tensor's
//! name could hide a line, set the window's title or the clipboard. So everything that is printed for people goes through
//! [`plain`] here, once; generated text and `--format` documents for programs are results and stay what they are.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;

/// Whether a terminal acts on it instead of showing it: control characters of both sets, separators of lines, marks that turn
/// the direction of text around.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let spoils = |c: char| acts(c) && !stays(c);
    if !text.contains(spoils) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if spoils(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// The text with `\u{1b}` where a terminal would act. Line breaks and tabs stay.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// A name for one line: line breaks and tabs do not stay either.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// A number of things: `1 turn`, `2 turns`.
pub(crate) fn counted(count: impl Display + PartialEq + From<u8>, thing: &str) -> String {
    let s = if count == 1.into() { "" } else { "s" };
    format!("{count} {thing}{s}")
}

/// A line on stderr. That nobody can read it (closed, or the disk is full) changes nothing of what a command does.
pub(crate) fn say(text: impl Display) {
    murmur(format_args!("{}\n", plain(&text.to_string())));
}

/// A text on stderr, as [`say`].
pub(crate) fn murmur(text: impl Display) {
    let _unread = write!(std::io::stderr(), "{text}");
}

/// An error with its causes. Many texts name their cause already; it is added only where they do not.
pub fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// JSON in which no character acts on a terminal; serde_json leaves those beyond ASCII as they are.
pub(crate) fn json(document: &str) -> Cow<'_, str> {
    let beyond = |c: char| acts(c) && c >= '\u{7f}';
    if !document.contains(beyond) {
        return Cow::Borrowed(document);
    }
    // Beyond ASCII a document has only the characters of its strings, and all of these fit into four digits.
    let write = |c: char| if beyond(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(document.chars().map(write).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_shown() {
        assert_eq!(plain("a\u{1b}]0;t\u{7}b\r\n\tc"), "a\\u{1b}]0;t\\u{7}b\\u{d}\n\tc");
        assert_eq!(plain("\u{9b}31m\u{7f}\u{202e}x"), "\\u{9b}31m\\u{7f}\\u{202e}x");
        assert_eq!(line("a\nb"), "a\\u{a}b");
        assert_eq!(plain(&plain("\u{1b}")), plain("\u{1b}"), "twice is once");
        for fine in ["", "plain", "ünïcödé 日本 \\u{1b}", "a\n\tb"] {
            assert!(matches!(plain(fine), Cow::Borrowed(text) if text == fine));
        }
    }

    #[test]
    fn json_stays_the_same_document() {
        let value = serde_json::json!({"k\u{9b}": "a\u{1b}\u{7f}\u{202e}ü"});
        let text = value.to_string();
        let shown = json(&text);
        assert!(!shown.chars().any(acts), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
