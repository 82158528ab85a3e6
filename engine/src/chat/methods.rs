//! Python's methods of str, list and dict that templates call, where minijinja's own set lacks them or differs; and `%`.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// A method that a value does not have by itself.
pub(super) fn unknown(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => text(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq => list(value, method, args)?,
        ValueKind::Map if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    match found {
        Some(found) => Ok(found),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// `a % b`: the remainder of numbers with the divisor's sign, or Python's formatting of a text.
pub(super) fn modulo(a: &Value, b: &Value) -> Result<Value, Error> {
    if let Some(text) = a.as_str() {
        let mut values: Vec<Value> = match b.kind() {
            ValueKind::Seq if b.is_tuple() => b.try_iter()?.collect(),
            _ => vec![b.clone()],
        };
        return printf(&represent(text, &mut values), &values).map(Value::from);
    }
    match (a.is_number() && b.is_number(), i64::try_from(a.clone()), i64::try_from(b.clone())) {
        (true, Ok(a), Ok(b)) if b != 0 => {
            let (a, b) = (i128::from(a), i128::from(b));
            Ok(Value::from(((a % b + b) % b) as i64))
        }
        (true, ..) => {
            let (a, b) = (f64::try_from(a.clone())?, f64::try_from(b.clone())?);
            let rest = a - b * (a / b).floor();
            if b == 0.0 { Err(wrong("division by zero")) } else { Ok(Value::from(rest)) }
        }
        _ => Err(wrong(format!("`%` is not defined for {} and {}", a.kind(), b.kind()))),
    }
}

/// Python's formatting with `%`; also the filter `format`.
pub(super) fn printf(text: &str, values: &[Value]) -> Result<String, Error> {
    narrow(text)?;
    format(FormatStyle::Printf, text, values)
}

/// A format must not ask for more memory than there is: widths have five digits at most.
fn narrow(format: &str) -> Result<(), Error> {
    let long = format.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 5);
    if long { Err(wrong("a width of the format is too large")) } else { Ok(()) }
}

/// `%r` is `%s` of how Python writes the value.
fn represent(format: &str, values: &mut [Value]) -> String {
    let mut out = String::with_capacity(format.len());
    let mut values = values.iter_mut();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        out.push(c);
        if c != '%' {
            continue;
        }
        // Flags, width and precision.
        let code = loop {
            match chars.next() {
                Some(c) if "#0- +.123456789".contains(c) => out.push(c),
                other => break other,
            }
        };
        match code {
            Some('%') => out.push('%'),
            Some('r') => {
                out.push('s');
                if let Some(value) = values.next() {
                    *value = Value::from(format!("{value:?}"));
                }
            }
            Some(c) => {
                out.push(c);
                values.next();
            }
            None => {}
        }
    }
    out
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// `str.isspace` of Python: Rust's white space and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `str.strip` with its argument; also the filter `trim`.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right { text.trim_end_matches(drop) } else { text }
}

/// Bytes of the part from the `start`th to before the `end`th character, as Python's slices count them.
fn part(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    let count = text.chars().count() as i64;
    let at = |i: i64| if i < 0 { (i + count).max(0) } else { i.min(count) } as usize;
    let byte = |i: usize| text.char_indices().nth(i).map_or(text.len(), |(at, _)| at);
    let (from, to) = (at(start.unwrap_or(0)), at(end.unwrap_or(count)));
    if start.is_some_and(|s| s > count) || from > to { (usize::MAX, "") } else { (from, &text[byte(from)..byte(to)]) }
}

fn tuple(parts: [&str; 3]) -> Value {
    Value::from(Tuple::from(parts.map(Value::from)))
}

/// The character that a text is filled up with.
fn fill(args: &[Value]) -> Result<(usize, char), Error> {
    let (width, with): (i64, Option<&str>) = from_args(args)?;
    let mut chars = with.unwrap_or(" ").chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if width <= 1 << 16 => Ok((width.max(0) as usize, c)),
        (Some(_), None) => Err(wrong("the width is too large")),
        _ => Err(wrong("the fill character must be exactly one character long")),
    }
}

fn filled(text: &str, before: usize, after: usize, c: char) -> String {
    let some = |n| std::iter::repeat_n(c, n).collect::<String>();
    some(before) + text + &some(after)
}

/// Of `n` missing characters so many go in front of a centred text, as CPython divides them.
fn half(n: usize, width: usize) -> usize {
    n / 2 + (n & width & 1)
}

/// The filter `center`.
pub(super) fn center(text: &str, width: usize) -> Result<String, Error> {
    let (width, c) = fill(&[Value::from(width)])?;
    let n = width.saturating_sub(text.chars().count());
    Ok(filled(text, half(n, width), n - half(n, width), c))
}

/// The filter `indent`: `width` is a number of spaces or the text itself.
pub(super) fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = width.or(kwargs.get("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let by = match width.as_str() {
        Some(by) => by.to_owned(),
        None => " ".repeat(fill(&[width])?.0),
    };
    let mut out = String::new();
    for (i, line) in pieces(&format!("{text}\n"), false).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn text(s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let missing = |width: usize| width.saturating_sub(s.chars().count());
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(s, chars, method != "rstrip", method != "lstrip"))
        }
        "removeprefix" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(s.strip_prefix(what).unwrap_or(s))
        }
        "removesuffix" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(s.strip_suffix(what).unwrap_or(s))
        }
        "partition" | "rpartition" => {
            let (what,): (&str,) = from_args(args)?;
            if what.is_empty() {
                return Err(wrong("empty separator"));
            }
            let (found, none) = match method {
                "partition" => (s.split_once(what), [s, "", ""]),
                _ => (s.rsplit_once(what), ["", "", s]),
            };
            tuple(found.map_or(none, |(a, b)| [a, what, b]))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (from, inside) = part(s, start, end);
            let at = if from == usize::MAX {
                None
            } else if method.starts_with('r') {
                inside.rfind(what)
            } else {
                inside.find(what)
            };
            match at {
                Some(at) => Value::from(from + inside[..at].chars().count()),
                None if method.ends_with("index") => return Err(wrong("substring not found")),
                None => Value::from(-1),
            }
        }
        "count" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (from, inside) = part(s, start, end);
            Value::from(if from == usize::MAX {
                0
            } else if what.is_empty() {
                inside.chars().count() + 1
            } else {
                inside.matches(what).count()
            })
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let (width, _) = fill(&[Value::from(width)])?;
            let sign = s.len() - s.strip_prefix(['+', '-']).unwrap_or(s).len();
            Value::from(format!("{}{}", &s[..sign], filled(&s[sign..], missing(width), 0, '0')))
        }
        "ljust" | "rjust" | "center" => {
            let (width, c) = fill(args)?;
            let n = missing(width);
            let before = match method {
                "ljust" => 0,
                "rjust" => n,
                _ => half(n, width),
            };
            Value::from(filled(s, before, n - before, c))
        }
        "split" | "rsplit" => {
            let (sep, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let sep = sep.or(named.get("sep")?).filter(|v| !v.is_none());
            let most = most.or(named.get("maxsplit")?).unwrap_or(-1);
            named.assert_all_used()?;
            let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
            split(s, sep.as_ref(), most, method == "rsplit")?
        }
        "splitlines" => {
            let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            Value::from(pieces(s, keep).into_iter().map(Value::from).collect::<Vec<_>>())
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Value::from(s.chars().map(swap).collect::<String>())
        }
        "title" => {
            let () = from_args(args)?;
            let mut out = String::new();
            let mut inside = false;
            for c in s.chars() {
                if inside {
                    out.extend(c.to_lowercase())
                } else {
                    out.extend(c.to_uppercase())
                }
                inside = c.is_uppercase() || c.is_lowercase();
            }
            Value::from(out)
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(s.to_lowercase().replace('ß', "ss"))
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(!s.is_empty() && s.chars().all(|c| c.is_ascii_digit()))
        }
        "isidentifier" => {
            let () = from_args(args)?;
            let first = s.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
            Value::from(first && s.chars().all(|c| c.is_alphanumeric() || c == '_'))
        }
        "join" => {
            // Python joins texts only; a number is an error there and not a text.
            let (values,): (&Value,) = from_args(args)?;
            let mut parts = Vec::new();
            for value in values.try_iter()? {
                let part =
                    value.as_str().ok_or_else(|| wrong(format!("join: expected a text, found {}", value.kind())))?;
                parts.push(part.to_owned());
            }
            Value::from(parts.join(s))
        }
        "format" => {
            narrow(s)?;
            return Ok(None);
        }
        _ => return Ok(None),
    }))
}

fn split(s: &str, sep: Option<&Value>, most: usize, from_right: bool) -> Result<Value, Error> {
    let mut parts: Vec<&str> = match sep {
        Some(sep) => {
            let sep = sep
                .as_str()
                .filter(|s| !s.is_empty())
                .ok_or_else(|| wrong("split: the separator is an empty text or none"))?;
            if from_right { s.rsplitn(most + 1, sep).collect() } else { s.splitn(most + 1, sep).collect() }
        }
        None => {
            let mut parts = Vec::new();
            // The end that splitting comes from; the other one keeps its white space where splitting stops.
            let mut rest = strip(s, None, !from_right, from_right);
            while !rest.is_empty() {
                let at = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(at) = at.filter(|_| parts.len() < most) else {
                    parts.push(rest);
                    break;
                };
                let space = rest[at..].chars().next().map_or(1, char::len_utf8);
                let (left, right) = (&rest[..at], &rest[at + space..]);
                parts.push(if from_right { right } else { left });
                rest = if from_right { strip(left, None, false, true) } else { strip(right, None, true, false) };
            }
            parts
        }
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `str.splitlines`.
fn pieces(s: &str, keep: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut out = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(is_end) {
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        out.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        out.push(rest);
    }
    out
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "index" => {
            let (what, start, end): (&Value, Option<usize>, Option<usize>) = from_args(args)?;
            let (start, end) = (start.unwrap_or(0), end.unwrap_or(usize::MAX));
            let at = value.try_iter()?.enumerate().position(|(i, v)| i >= start && i < end && v == *what);
            Value::from(at.ok_or_else(|| wrong(format!("{what} is not in the list")))?)
        }
        "copy" => {
            let () = from_args(args)?;
            value.clone()
        }
        _ => return Ok(None),
    }))
}
