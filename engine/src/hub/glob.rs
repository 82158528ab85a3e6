//! Patterns of file names as HuggingFace's tools read them (Python's `fnmatch`): `*` any characters, `/` too, `?` one, `[a-c]` one
//! of these, `[!a-c]` one of the others. Upper and lower case differ.

enum Piece {
    Star,
    Any,
    Char(char),
    Set { except: bool, ranges: Vec<(char, char)> },
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Piece::Star | Piece::Any => true,
            Piece::Char(own) => *own == c,
            Piece::Set { except, ranges } => ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *except,
        }
    }
}

/// Whether a text is a pattern and not the name of one file.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a name matches a pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pieces, name) = (pieces(pattern), name.chars().collect::<Vec<_>>());
    // where the last star stands and how far it reaches: only the last one ever needs to take more
    let (mut p, mut n, mut star) = (0, 0, None);
    while let Some(&c) = name.get(n) {
        match pieces.get(p) {
            Some(Piece::Star) => {
                star = Some((p, n));
                p += 1;
            }
            Some(piece) if piece.takes(c) => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = &mut star else { return false };
                *from += 1;
                (p, n) = (*at + 1, *from);
            }
        }
    }
    pieces.iter().skip(p).all(|piece| matches!(piece, Piece::Star))
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        out.push(match c {
            '*' => Piece::Star,
            '?' => Piece::Any,
            '[' => match set(rest) {
                Some((piece, after)) => {
                    rest = after;
                    piece
                }
                None => Piece::Char('['), // never closed: the character itself
            },
            c => Piece::Char(c),
        });
    }
    out
}

fn set(text: &str) -> Option<(Piece, &str)> {
    let (except, inside) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    // a bracket in the first place belongs to the set
    let first = inside.chars().next()?.len_utf8();
    let end = first + inside.get(first..)?.find(']')?;
    let chars: Vec<char> = inside.get(..end)?.chars().collect();
    let (mut ranges, mut i) = (Vec::new(), 0);
    while let Some(&a) = chars.get(i) {
        match (chars.get(i + 1), chars.get(i + 2)) {
            (Some('-'), Some(&b)) => {
                ranges.push((a, b));
                i += 3;
            }
            _ => {
                ranges.push((a, a));
                i += 1;
            }
        }
    }
    Some((Piece::Set { except, ranges }, inside.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_pythons_fnmatch() {
        // python3 -c "from fnmatch import fnmatchcase as f; print(f('Q8_0/model-00001.gguf', '*.gguf'))"
        for (pattern, name, wanted) in [
            ("*.gguf", "Q8_0/model-00001.gguf", true),
            ("*.gguf", "model.gguf.json", false),
            ("*", "", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbX", false),
            ("?.json", "ü.json", true),
            ("?.json", ".json", false),
            ("m[0-9]", "m7", true),
            ("m[!0-9]", "m7", false),
            ("m[]x]", "m]", true),
            ("m[x", "m[x", true),
            ("*[", "a[", true),
            ("Q4*", "q4_0", false),
            ("**/**", "a/b", true),
            ("m[a-c0-2]x", "mbx", true),
            ("m[a-c0-2]x", "m2x", true),
            ("m[a-c0-2]x", "m3x", false),
            ("m[ab]", "mb", true),
            ("m[a-]", "m-", true),
            ("m[a-]", "mb", false),
            ("[!]x]", "y", true),
            ("[!]x]", "]", false),
            ("[]", "[]", true),
            ("[ü]b", "üb", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
        assert!(is_glob("*.gguf") && is_glob("a?") && is_glob("[a]") && !is_glob("model.gguf"));
    }
}
