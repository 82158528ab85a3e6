//! Small templates, each against what Python and Jinja make of it.

use bitnet_engine::chat::jinja::{Inputs, render};
use bitnet_engine::chat::prompt::begun;
use bitnet_engine::chat::{Clock, Origin, transcript};
use bitnet_engine::tokenizer::SpecialTokens;
use minijinja::Value;
use std::collections::BTreeMap;

fn with(template: &str, variables: &[(&str, Value)]) -> Result<String, String> {
    let variables: BTreeMap<String, Value> = variables.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    render(template, &Inputs { variables, clock: Clock::pinned() })
}

fn is(expression: &str, expected: &str) {
    assert_eq!(with(&format!("{{{{ {expression} }}}}"), &[]).as_deref(), Ok(expected), "{expression}");
}

fn fails(expression: &str, words: &str) {
    let error = with(&format!("{{{{ {expression} }}}}"), &[]).expect_err(expression);
    assert!(error.contains(words), "{expression}: {error}");
}

#[test]
fn remainders_have_the_sign_of_the_divisor() {
    is("(0 - 7) % 3", "2");
    is("7 % (0 - 3)", "-2");
    is("(0 - 7.5) % 2", "0.5");
    is("7 % 3", "1");
    fails("7 % 0", "division by zero");
    fails("7.5 % 0", "division by zero");
    fails("1 % 'a'", "`%` is not defined for number and string");
}

#[test]
fn formats_are_written_as_wide_as_they_say() {
    is("'%5r|' % 12", "   12|");
    is("'%-5r|' % 12", "12   |");
    is("('%10000d' % 1)|length", "10000");
    fails("'%100000d' % 1", "too large");
}

#[test]
fn places_in_a_text() {
    for (expression, expected) in [
        ("'abcabc'.find('a', -3)", "3"),
        ("'abcabc'.find('a', 1)", "3"),
        ("'abcabc'.find('b', 1)", "1"),
        ("'abcabc'.find('a', -9)", "0"),
        ("'abcabc'.rfind('a', 0, -1)", "3"),
        ("'abc'.find('', 3)", "3"),
        ("'abc'.find('', 4)", "-1"),
        ("'abc'.find('', 5)", "-1"),
        ("'abc'.find('c', 2, 1)", "-1"),
        ("'abc'.count('')", "4"),
        ("'abc'.count('', 4)", "0"),
        ("'abcabc'.count('a', 1)", "1"),
        ("'aéa'.find('a', 1)", "2"),
    ] {
        is(expression, expected);
    }
}

#[test]
fn kinds_of_texts() {
    for (text, decimal, identifier) in [
        ("12", true, false),
        ("", false, false),
        ("1a", false, false),
        ("a1", false, true),
        ("_b", false, true),
        ("a b", false, false),
        ("é", false, true),
        ("-", false, false),
    ] {
        let written = |yes| if yes { "True" } else { "False" };
        is(&format!("'{text}'.isdecimal()"), written(decimal));
        is(&format!("'{text}'.isidentifier()"), written(identifier));
    }
    is("'Straße'.casefold()", "strasse");
}

/// The separators of ASCII are white space in Python, and ends of lines.
#[test]
fn pieces_of_texts() {
    let of = |template: &str, text: &str| with(template, &[("v", Value::from(text))]).expect(template);
    assert_eq!(of("[{{ v.strip() }}]", "\u{1c}a\u{1f} "), "[a]");
    assert_eq!(of("{{ v.splitlines()|join('|') }}", "a\u{b}b\u{1c}c\u{85}d\r\ne"), "a|b|c|d|e");
    assert_eq!(of("{{ v.split()|join('|') }}", " a \u{1d} b  c "), "a|b|c");
    assert_eq!(of("{{ v.split(none, 1)|join('|') }}", " a  b  c "), "a|b  c ");
    assert_eq!(of("{{ v.rsplit(none, 1)|join('|') }}", " a  b  c "), " a  b|c");
    assert_eq!(of("{{ v.split(',')|length }}", "a,b,,c"), "4");
    assert_eq!(of("{{ v.rsplit(',', 1)|join('|') }}", "a,b,c"), "a,b|c");
    assert_eq!(of("{{ v.split()|length }}", "  "), "0");
    fails("'a'.split('')", "separator");
    is("', '.join(['a', 'b'])", "a, b");
    fails("', '.join([1])", "expected a text, found number");
}

#[test]
fn lists_and_mappings() {
    is("[1, 2, 3, 1].index(1, 1)", "3");
    is("[1, 2].index(1, 0, 1)", "0");
    fails("[1, 2].index(2, 0, 1)", "is not in the list");
    fails("[1, 2].index(1, 1)", "is not in the list");
    is("[1, 2].copy()|tojson", "[1, 2]");
    is("{'a': 1}.copy()|tojson", "{\"a\": 1}");
}

#[test]
fn json_as_python_writes_it() {
    is("{none: 1, true: 2, false: 3, 4: 5}|tojson", r#"{"null": 1, "true": 2, "false": 3, "4": 5}"#);
    is("[1, 'é']|tojson(true, none, none, false)", r#"[1, "\u00e9"]"#);
    fails("1|tojson(true, none, none, false, 1)", "too many arguments");
    for (number, text) in [(f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity"), (f64::NAN, "NaN")] {
        assert_eq!(with("{{ v|tojson }}", &[("v", Value::from(number))]).as_deref(), Ok(text));
    }
    let nested = |times: usize| (0..times).fold(Value::from(1), |inner, _| Value::from(vec![inner]));
    assert!(with("{{ v|tojson }}", &[("v", nested(128))]).is_ok());
    assert!(with("{{ v|tojson }}", &[("v", nested(129))]).is_err_and(|error| error.contains("nested too deeply")));
}

/// Up to the end of the block, and no further.
#[test]
fn a_raw_block_stays_as_it_is() {
    for (template, text) in [
        ("{% raw %}{{7%4}}{{7%4}}{% endraw %}{{7%4}}", "{{7%4}}{{7%4}}3"),
        ("{%- raw -%} {{ 7 % 4 }} {%+ endraw +%}{{ 'a%s' % 7 }}", "{{ 7 % 4 }} a7"),
        ("{% raw %}{% set a = 7 % 4 %}{%endraw%}{% if 7 % 4 %}b{% endif %}", "{% set a = 7 % 4 %}b"),
    ] {
        assert_eq!(with(template, &[]).as_deref(), Ok(text), "{template}");
    }
}

#[test]
fn limits_are_met_to_the_byte() {
    let long = " ".repeat(1 << 20);
    assert_eq!(with(&long, &[]).as_deref(), Ok(&*long));
    assert!(with(&(long + " "), &[]).is_err_and(|error| error.contains("1048577 bytes")));
    assert_eq!(with("{{ 'x' * 16777216 }}", &[]).map(|text| text.len()), Ok(1 << 24));
    for more in ["{{ 'x' * 16777217 }}", "a{{ 'x' * 16777216 }}", "{{ 'x' * 16777215 }}ab"] {
        assert!(with(more, &[]).is_err_and(|error| error.contains("longer than 16777216")), "{more}");
    }
}

#[test]
fn an_end_token_alone_is_kept() {
    let special =
        SpecialTokens { eos: Some(2), bos: Some(1), add_eos: true, add_bos: true, ..SpecialTokens::default() };
    assert_eq!(begun(vec![2], &special, true), [2]);
    assert_eq!(begun(vec![1], &special, true), [1]);
    assert_eq!(begun(vec![1, 1, 7, 2], &special, true), [1, 7]);
    assert_eq!(begun(vec![1, 1, 7, 2], &special, false), [1, 1, 7]);
}

#[test]
fn files_of_messages_have_a_longest_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("messages.json");
    let file = std::fs::File::create(&path).unwrap();
    for (bytes, words) in [(64 << 20, "not a JSON list"), ((64 << 20) + 1, "67108865 bytes, more than 67108864")] {
        // Without blocks on the disk.
        file.set_len(bytes).unwrap();
        let error = transcript::read(&path).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn sources_have_names() {
    let file = Origin::File("a\nb.jinja".into());
    for (origin, name, shown) in [
        (Origin::Gguf, "gguf", "the model's metadata"),
        (Origin::Corrected, "bitnet-2b-4t", "BitNet-2B-4T"),
        (file, "file", "a\\nb.jinja"),
    ] {
        assert_eq!((origin.name(), origin.to_string().as_str()), (name, shown));
    }
}
