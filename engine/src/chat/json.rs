//! The filter `tojson` of `transformers`: `json.dumps` with its arguments, and without the escapes of HTML.

use super::methods::wrong;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// How to write.
struct Style {
    ascii: bool,
    /// What a level of depth is begun with; none for all in one line.
    indent: Option<String>,
    item: String,
    key: String,
    sort: bool,
}

/// `json.dumps(value, ensure_ascii, indent, separators, sort_keys)`; arguments by position or by name.
///
/// # Errors
/// Arguments of a wrong type, and values that JSON does not have.
pub(super) fn tojson(value: &Value, args: &[Value], kwargs: Kwargs) -> Result<Value, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if args.len() > NAMES.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut given = Vec::new();
    for (i, name) in NAMES.iter().enumerate() {
        let named: Option<Value> = kwargs.get(name)?;
        given.push(args.get(i).cloned().or(named).unwrap_or_default());
    }
    kwargs.assert_all_used()?;
    let indent = match &given[1] {
        v if v.is_none() || v.is_undefined() => None,
        v => Some(match v.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let spaces = i64::try_from(v.clone())?.clamp(0, 64);
                " ".repeat(spaces as usize)
            }
        }),
    };
    let (item, key) = match &given[2] {
        v if v.is_none() || v.is_undefined() => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        v => {
            let parts: Vec<Value> = v.try_iter()?.collect();
            match &parts[..] {
                [item, key] => (item.to_string(), key.to_string()),
                _ => return Err(wrong("tojson: separators are two texts")),
            }
        }
    };
    let style = Style { ascii: given[0].is_true(), indent, item, key, sort: given[3].is_true() };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

/// Deeper values are an error: a template can nest without end.
const DEPTH: usize = 128;

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(wrong("tojson: the value is nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.all('[', ']', items.len(), depth, out, &mut |i, out| self.write(&items[i], depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    let name = match key.kind() {
                        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                        ValueKind::None => "null".to_owned(),
                        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
                        ValueKind::Number => number(&key),
                        _ => return Err(wrong("tojson: keys must be text, numbers, booleans or none")),
                    };
                    pairs.push((name, value.get_item(&key)?));
                }
                if self.sort {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.all('{', '}', pairs.len(), depth, out, &mut |i, out| {
                    self.text(&pairs[i].0, out);
                    out.push_str(&self.key);
                    self.write(&pairs[i].1, depth + 1, out)
                })?;
            }
            kind => return Err(wrong(format!("tojson: a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn all(
        &self,
        open: char,
        close: char,
        count: usize,
        depth: usize,
        out: &mut String,
        one: &mut dyn FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(open);
        for i in 0..count {
            if i > 0 {
                out.push_str(&self.item);
            }
            line(depth + 1, out);
            one(i, out)?;
        }
        if count > 0 {
            line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A number as Python writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(number) = f64::try_from(value.clone()) else { return value.to_string() };
    float(number)
}

/// `float.__repr__`: the shortest digits that come back, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number.is_sign_positive() { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let plain = number.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}
