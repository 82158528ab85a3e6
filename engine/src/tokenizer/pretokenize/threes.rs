//! Numbers in groups of three from the right, which need to see the end of a number first.

use super::super::unicode::{NUMBER, class_at, decode, in_ranges};
use super::rules::Pass;

/// Where `text` is cut, ascending; neither its start nor its end.
pub(super) fn cuts(text: &[u8], pass: Pass) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let len = length(text, at);
        if !is_digit(text, at, pass) {
            at += len;
            continue;
        }
        // Every digit of the number: some of them are longer than a byte.
        let mut starts = Vec::new();
        while at < text.len() && is_digit(text, at, pass) {
            starts.push(at);
            at += length(text, at);
        }
        let whole = match pass {
            // A boundary of words must end the number.
            Pass::Threes => at == text.len() || !decode(text, at).is_some_and(|(c, _)| in_ranges("w", c)),
            _ => true,
        };
        if !whole {
            continue;
        }
        let threes = (0..starts.len()).filter(|i| (starts.len() - i).is_multiple_of(3)).map(|i| starts[i]);
        // The number itself is apart, unless the expression only cuts in front of threes.
        match pass {
            Pass::CutThrees => cuts.extend(threes),
            _ => {
                cuts.push(starts[0]);
                cuts.extend(threes);
                cuts.push(at);
            }
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts.retain(|&cut| cut > 0 && cut < text.len());
    cuts
}

fn length(text: &[u8], at: usize) -> usize {
    class_at(text, at).1
}

fn is_digit(text: &[u8], at: usize, pass: Pass) -> bool {
    let number = class_at(text, at).0 & NUMBER != 0;
    match pass {
        Pass::NumbersInThrees => number,
        _ => number && (text[at].is_ascii_digit() || decode(text, at).is_some_and(|(c, _)| in_ranges("d", c))),
    }
}
