//! What Jinja with the extensions of `transformers` reads and minijinja does not, rewritten before it is compiled.
//!
//! - `{% generation %}` marks the assistant's text for training. It only opens a scope, so it becomes `{% with %}`.
//! - `text % values` is Python's formatting. minijinja knows `%` for numbers alone, so `a % b` becomes `__mod(a, b)`.
//! - `\r\n` and `\r` are `\n`, everywhere.
//!
//! Text, comments and raw blocks are kept as they are, and so are line numbers.

/// A template is untrusted: no more tokens are rewritten in a tag, and no more `%` in all, so that the work stays small.
const MOST_TOKENS: usize = 8192;
const MOST_OPERATORS: usize = 1000;

/// A part of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Name,
    Number,
    Text,
    Operator,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.kind != Kind::Text && self.text == text
    }
}

/// The same template for minijinja. What is malformed is left as it is, for minijinja to complain about.
pub(super) fn rewrite(template: &str) -> String {
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(template.len());
    let mut rest = template.as_str();
    let mut budget = MOST_OPERATORS;
    while let Some(at) = opening(rest) {
        let (text, tag) = rest.split_at(at);
        out.push_str(text);
        let (open, body) = tag.split_at(2);
        out.push_str(open);
        rest = match open {
            "{#" => copy_until(body, "#}", &mut out),
            "{{" => expression(body, "}}", &mut out, &mut budget),
            _ => match raw_block(body) {
                Some(length) => {
                    out.push_str(&body[..length]);
                    &body[length..]
                }
                None => expression(body, "%}", &mut out, &mut budget),
            },
        };
    }
    out + rest
}

/// Where the next tag begins.
fn opening(text: &str) -> Option<usize> {
    let is_tag = |at: &usize| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    text.match_indices('{').map(|(at, _)| at).find(is_tag)
}

fn copy_until<'a>(text: &'a str, end: &str, out: &mut String) -> &'a str {
    let at = text.find(end).map_or(text.len(), |at| at + end.len());
    out.push_str(&text[..at]);
    &text[at..]
}

/// Bytes from behind `{%` to behind the `{% endraw %}` of a raw block, or to the end if it has none.
fn raw_block(body: &str) -> Option<usize> {
    let begun = tag(body, "raw")?;
    let ends = |(at, open): (usize, &str)| {
        let inside = begun + at + open.len();
        Some(inside + tag(&body[inside..], "endraw")?)
    };
    Some(body[begun..].match_indices("{%").find_map(ends).unwrap_or(body.len()))
}

/// Bytes to behind the `%}` of a tag that consists of `name` alone.
fn tag(body: &str, name: &str) -> Option<usize> {
    let rest = body.trim_start_matches(['-', '+']).trim_start().strip_prefix(name)?;
    let rest = rest.trim_start().trim_start_matches(['-', '+']).strip_prefix("%}")?;
    Some(body.len() - rest.len())
}

/// Copies an expression or statement up to and with `end`, rewritten.
fn expression<'a>(body: &'a str, end: &str, out: &mut String, budget: &mut usize) -> &'a str {
    let Some((mut tokens, rest)) = tokens(body, end) else {
        out.push_str(body);
        return "";
    };
    for (from, to) in [("generation", "with"), ("endgeneration", "endwith")] {
        let mut words = tokens.iter_mut().filter(|t| t.kind != Kind::Space && !matches!(&*t.text, "-" | "+"));
        if end == "%}"
            && let (Some(word), None) = (words.next(), words.next())
            && word.is(from)
        {
            to.clone_into(&mut word.text);
        }
    }
    let mut from = if tokens.len() > MOST_TOKENS { tokens.len() } else { 0 };
    while let Some(at) = (from..tokens.len()).find(|&i| tokens[i].is("%")) {
        from = at + 1;
        if let (Some(start), Some(stop)) = (operand_before(&tokens, at), operand_after(&tokens, at)) {
            let Some(left) = budget.checked_sub(1) else { break };
            *budget = left;
            tokens[at] = Token { kind: Kind::Operator, text: ",".into() };
            tokens.insert(stop, Token { kind: Kind::Operator, text: ")".into() });
            tokens.insert(start, Token { kind: Kind::Operator, text: "(".into() });
            tokens.insert(start, Token { kind: Kind::Name, text: "__mod".into() });
        }
    }
    out.extend(tokens.iter().map(|t| t.text.as_str()));
    out.push_str(end);
    rest
}

/// The tokens before `end` and what comes behind it; none if there is no end.
fn tokens<'a>(body: &'a str, end: &str) -> Option<(Vec<Token>, &'a str)> {
    let mut out = Vec::new();
    let mut depth = 0usize;
    // A sign right behind the opening is about white space.
    let mut rest = body.strip_prefix(['-', '+']).unwrap_or(body);
    if rest.len() < body.len() {
        out.push(Token { kind: Kind::Space, text: body[..1].to_owned() });
    }
    loop {
        if depth == 0 && rest.starts_with(end) {
            return Some((out, &rest[end.len()..]));
        }
        let first = rest.chars().next()?;
        let run = |keep: &dyn Fn(char) -> bool| rest.find(|c| !keep(c)).unwrap_or(rest.len());
        let (kind, length) = match first {
            c if c.is_whitespace() => (Kind::Space, run(&char::is_whitespace)),
            c if c.is_alphabetic() || c == '_' => (Kind::Name, run(&|c| c.is_alphanumeric() || c == '_')),
            c if c.is_ascii_digit() => (Kind::Number, run(&|c| c.is_ascii_alphanumeric() || c == '_')),
            '\'' | '"' => (Kind::Text, text_length(rest, first)?),
            c => {
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                let double = ["**", "//", "==", "!=", "<=", ">="].iter().any(|op| rest.starts_with(op));
                (Kind::Operator, if double { 2 } else { c.len_utf8() })
            }
        };
        let (text, behind) = rest.split_at(length);
        out.push(Token { kind, text: text.to_owned() });
        rest = behind;
    }
}

/// Bytes of the string that `rest` begins with, its quotes included.
fn text_length(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

/// Words that are not operands.
const KEYWORDS: &[&str] = &["if", "elif", "else", "in", "is", "not", "and", "or", "set", "for", "recursive"];

fn is_operand(token: &Token) -> bool {
    token.kind != Kind::Operator && !(token.kind == Kind::Name && KEYWORDS.contains(&&*token.text))
}

/// Where the operand before `tokens[at]` begins; none where another operator binds it first, which numbers alone have.
fn operand_before(tokens: &[Token], at: usize) -> Option<usize> {
    let before = |i: usize| (0..i).rev().find(|&i| tokens[i].kind != Kind::Space);
    let mut i = before(at)?;
    loop {
        while tokens[i].is(")") || tokens[i].is("]") {
            let mut depth = 0;
            i = (0..=i).rev().find(|&i| {
                depth += i32::from([")", "]", "}"].iter().any(|b| tokens[i].is(b)));
                depth -= i32::from(["(", "[", "{"].iter().any(|b| tokens[i].is(b)));
                depth == 0
            })?;
            // A bracket without something to call or to index is the operand itself.
            match before(i) {
                Some(j) if is_operand(&tokens[j]) || tokens[j].is(")") || tokens[j].is("]") => i = j,
                other => return not_bound(tokens, other).then_some(i),
            }
        }
        if !is_operand(&tokens[i]) {
            return None;
        }
        match before(i) {
            Some(j) if tokens[j].is(".") || tokens[j].is("|") => i = before(j)?,
            other => return not_bound(tokens, other).then_some(i),
        }
    }
}

/// Whether the token before an operand leaves it alone.
fn not_bound(tokens: &[Token], before: Option<usize>) -> bool {
    before.is_none_or(|i| !["*", "/", "//", "%", "**", "-", "is"].iter().any(|op| tokens[i].is(op)))
}

/// Behind the operand that follows `tokens[at]`.
fn operand_after(tokens: &[Token], at: usize) -> Option<usize> {
    let after = |i: usize| (i + 1..tokens.len()).find(|&i| tokens[i].kind != Kind::Space);
    let mut i = after(at)?;
    if tokens[i].is("-") || tokens[i].is("+") {
        i = after(i)?;
    }
    loop {
        if ["(", "[", "{"].iter().any(|b| tokens[i].is(b)) {
            i = closing(tokens, i)?;
        } else if !is_operand(&tokens[i]) {
            return None;
        }
        match after(i) {
            Some(j) if tokens[j].is("(") || tokens[j].is("[") => i = closing(tokens, j)?,
            Some(j) if tokens[j].is(".") || tokens[j].is("|") => {
                i = after(j)?;
                continue;
            }
            Some(j) if tokens[j].is("is") || tokens[j].is("**") => return None,
            _ => return Some(i + 1),
        }
        // Behind a closed bracket: further calls, fields and filters.
        while let Some(j) = after(i) {
            if tokens[j].is("(") || tokens[j].is("[") {
                i = closing(tokens, j)?;
            } else {
                break;
            }
        }
        match after(i) {
            Some(j) if tokens[j].is(".") || tokens[j].is("|") => i = after(j)?,
            Some(j) if tokens[j].is("is") || tokens[j].is("**") => return None,
            _ => return Some(i + 1),
        }
    }
}

fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0;
    (open..tokens.len()).find(|&i| {
        depth += i32::from(["(", "[", "{"].iter().any(|b| tokens[i].is(b)));
        depth -= i32::from([")", "]", "}"].iter().any(|b| tokens[i].is(b)));
        depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn only_what_minijinja_lacks_is_changed() {
        for same in [
            "plain { text % } }}",
            "{# a % b {% generation %} #}",
            "{% raw %}{{ a % b }}{% generation %}{%- endraw -%}",
            "{{ '100 % sure' }}{{ \"it's %}\" }}",
            "{{ a * b % c }}{{ -a % 2 }}{{ a % b is odd }}",
            "{{ generation }}{% set generation = 1 %}",
            "{{ {'a': {'b': 1}} }}",
            "{% if x",
            "{% raw %}{{ a % b }}",
            "{%- raw +%}{{ a % b }}{% endraw x %}{%endraw%}{{ c }}",
            "{{ 'never closed }}",
        ] {
            assert_eq!(rewrite(same), same);
        }
        for (given, expected) in [
            ("{%- generation -%}x{%+ endgeneration %}", "{%- with -%}x{%+ endwith %}"),
            ("a\r\nb\rc", "a\nb\nc"),
            ("{{ '%s-%d' % (a, 2) }}", "{{ __mod('%s-%d' , (a, 2)) }}"),
            ("{{ f(x)['a'].b|upper % c.d(1)|e + 'z' }}", "{{ __mod(f(x)['a'].b|upper , c.d(1)|e) + 'z' }}"),
            ("{{- a % b -}}", "{{- __mod(a , b) -}}"),
            ("{% if loop.index0 % 2 == 0 %}", "{% if __mod(loop.index0 , 2) == 0 %}"),
            ("{{ 'a' if (x + 1) % -2 else y % [1][0] }}", "{{ 'a' if __mod((x + 1) , -2) else __mod(y , [1][0]) }}"),
            ("{{ a % b % c }}", "{{ __mod(__mod(a , b) , c) }}"),
        ] {
            assert_eq!(rewrite(given), expected);
        }
    }

    /// Text that would be a tag, were it not in a comment or raw.
    #[test]
    fn comments_and_raw_blocks_end_where_they_end() {
        for (given, expected) in [
            ("{# {{#} {{ a % b }}", "{# {{#} {{ __mod(a , b) }}"),
            (
                "{% raw %}{% x %}{{ a % b }}{% endraw %}{{ c % d }}",
                "{% raw %}{% x %}{{ a % b }}{% endraw %}{{ __mod(c , d) }}",
            ),
            ("{% raw %}{%{% endraw %}{{ c % d }}", "{% raw %}{%{% endraw %}{{ __mod(c , d) }}"),
            ("{% raw %}{{%{%-endraw-%}{{ c % d }}{% raw %}x", "{% raw %}{{%{%-endraw-%}{{ __mod(c , d) }}{% raw %}x"),
        ] {
            assert_eq!(rewrite(given), expected);
        }
    }

    /// What belongs to an operand, and what ends a tag.
    #[test]
    fn operands_are_whole() {
        for same in ["{{ a % f(x) is odd }}", "{{ a % f(x) ** 2 }}", "{{ a % b ** 2 }}", "{{ a % f(x)[1] is odd }}"] {
            assert_eq!(rewrite(same), same);
        }
        for (given, expected) in [
            ("{{ a % f(x)['k'].d(1)|e(2) }}", "{{ __mod(a , f(x)['k'].d(1)|e(2)) }}"),
            ("{{ a % b.c.d[0](1) }}", "{{ __mod(a , b.c.d[0](1)) }}"),
            ("{{ a % [1, 2][0] + 1 }}", "{{ __mod(a , [1, 2][0]) + 1 }}"),
            ("{{ {'a': {'b': 1}}['a'] and a % b }}", "{{ {'a': {'b': 1}}['a'] and __mod(a , b) }}"),
            (r"{{ 'it\'s }}' ~ a % b }}", r"{{ 'it\'s }}' ~ __mod(a , b) }}"),
        ] {
            assert_eq!(rewrite(given), expected);
        }
    }

    /// A tag of 8192 tokens is rewritten, a longer one is left to minijinja.
    #[test]
    fn long_tags_are_left_alone() {
        let tag = |more: &str| format!("{{{{ a % b{}{more}}}}}", "+1".repeat(4093));
        assert!(rewrite(&tag("")).starts_with("{{ __mod(a , b)+1"));
        for more in [" ", " +1"] {
            assert_eq!(rewrite(&tag(more)), tag(more));
        }
    }

    #[test]
    fn hostile_templates_take_no_time() {
        let started = std::time::Instant::now();
        for unit in ["{% raw %}", "{%", "{{ a % b }}", "a % ", "{{ '", "{{ (", "{% raw %}{% endraw", "{{ a % (b)[c] }}"]
        {
            let times = (1 << 18) / unit.len();
            for template in [unit.repeat(times), format!("{{{{{}}}}}", unit.repeat(times))] {
                assert!(rewrite(&template).len() >= template.len());
            }
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
