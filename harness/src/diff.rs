//! A line difference for failure messages.
//!
//! Golden values are short lists of ids and figures; what a person wants is the first place where they
//! part. So: the common head and tail are cut to a little context, and what lies between is shown as
//! removed and added, at most a screenful of each.

const CONTEXT: usize = 2;
const MOST: usize = 20;

/// The lines of `old` that are not in `new` and the other way round, with line numbers of `old`.
pub(crate) fn lines(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let old_changed = &old_rest[..old_rest.len() - tail];
    let new_changed = &new_rest[..new_rest.len() - tail];
    let mut out = vec![format!("  first difference in line {}", head + 1)];
    out.extend(old[head.saturating_sub(CONTEXT)..head].iter().map(|line| format!("    {line}")));
    push(&mut out, '-', old_changed);
    push(&mut out, '+', new_changed);
    let after = &old_rest[old_rest.len() - tail..];
    out.extend(after.iter().take(CONTEXT).map(|line| format!("    {line}")));
    out.join("\n")
}

fn push(out: &mut Vec<String>, sign: char, lines: &[&str]) {
    out.extend(lines.iter().take(MOST).map(|line| format!("  {sign} {line}")));
    if lines.len() > MOST {
        out.push(format!("  {sign} ... {} more lines", lines.len() - MOST));
    }
}

/// The first lines of a text, indented.
pub(crate) fn head(text: &str) -> String {
    let all: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    push(&mut out, '+', &all);
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_first_difference_with_context() {
        let text = lines("1\n2\n3\n4\n5\n6", "1\n2\n3\nx\n5\n6");
        assert_eq!(text, "  first difference in line 4\n    2\n    3\n  - 4\n  + x\n    5\n    6");
    }

    #[test]
    fn insertions_and_repeats_do_not_overlap() {
        assert_eq!(lines("a\na", "a\na\na"), "  first difference in line 3\n    a\n    a\n  + a");
        assert_eq!(lines("", "a"), "  first difference in line 1\n  + a");
    }

    #[test]
    fn long_differences_are_cut() {
        let long: String = (0..50).map(|i| format!("{i}\n")).collect();
        assert!(lines(&long, "x").contains("... 30 more lines"));
        assert!(head(&long).contains("... 30 more lines"));
    }
}
