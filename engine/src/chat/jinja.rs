//! Jinja templates as `transformers` renders them, in minijinja.
//!
//! The reference is `apply_chat_template`: Jinja's sandbox with `trim_blocks`, `lstrip_blocks`, loop controls and
//! `{% generation %}`; `tools` and `documents` are none unless given; `tojson`, `raise_exception` and `strftime_now`
//! are its own.
//!
//! A template comes with a file and is untrusted. It runs with a limit on work (fuel), on nesting and on the size of
//! its output, and has no access to anything but the conversation. What is not limited is the memory of intermediate
//! values: a template that doubles a string forty times can exhaust it.

use super::clock::Clock;
use super::{json, methods, syntax};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Value};
use std::collections::BTreeMap;

/// Instructions that a template may execute; real ones need some thousands.
const FUEL: u64 = 1_000_000;
const RECURSION: usize = 64;
/// Longest template and longest output, in bytes.
pub(super) const MAX_TEMPLATE: usize = 1 << 20;
const MAX_OUTPUT: usize = 1 << 24;

/// What a template sees.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The variables: `messages`, and what else is given (`tools`, `bos_token`, ...). `tools` and `documents` are none
    /// and `add_generation_prompt` is true where they are not given.
    pub variables: BTreeMap<String, Value>,
    /// What `strftime_now` says.
    pub clock: Clock,
}

/// Renders a template.
///
/// # Errors
/// The message of what fails, with its causes: syntax, an exception that the template raises, a limit.
pub fn render(template: &str, inputs: &Inputs) -> Result<String, String> {
    // A filter that is asked for an impossible width panics inside of the template engine.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unguarded(template, inputs))) {
        Ok(result) => result.map_err(|error| causes(&error)),
        Err(_) => Err("it makes the template engine panic".to_owned()),
    }
}

/// Reads a template without rendering it.
///
/// # Errors
/// What is wrong with its syntax.
pub fn check(template: &str) -> Result<(), String> {
    environment(&syntax::rewrite(template), Clock::pinned()).map(drop).map_err(|error| causes(&error))
}

fn unguarded(template: &str, inputs: &Inputs) -> Result<String, Error> {
    if template.len() > MAX_TEMPLATE {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("it is {} bytes long", template.len())));
    }
    let source = syntax::rewrite(template);
    let env = environment(&source, inputs.clock)?;
    let mut variables = inputs.variables.clone();
    for (name, value) in
        [("tools", Value::from(())), ("documents", Value::from(())), ("add_generation_prompt", true.into())]
    {
        variables.entry(name.to_owned()).or_insert(value);
    }
    let mut out = Bounded { bytes: Vec::new() };
    env.get_template("chat")?.render_captured_to(Value::from(variables), &mut out)?;
    String::from_utf8(out.bytes).map_err(|_| Error::new(ErrorKind::BadSerialization, "the output is not UTF-8"))
}

fn environment(source: &str, clock: Clock) -> Result<Environment<'_>, Error> {
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_unknown_method_callback(methods::unknown);
    env.add_function("__mod", |a: &Value, b: &Value| methods::modulo(a, b));
    env.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
    });
    env.add_function("strftime_now", move |format: &str| clock.strftime(format));
    env.add_filter("tojson", |value: &Value, args: Rest<Value>, kwargs: Kwargs| json::tojson(value, &args, kwargs));
    env.add_filter("trim", |value: &Value, chars: Option<&str>| -> Value {
        Value::from(methods::strip(&value.to_string(), chars, true, true))
    });
    env.add_filter("format", |text: &str, values: Rest<ValueOrKwargs>| methods::printf(text, &values.into_values()));
    env.add_filter("indent", methods::indent);
    env.add_filter("center", |text: &str, width: Option<usize>| methods::center(text, width.unwrap_or(80)));
    env.add_filter("wordcount", |text: &str| {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count()
    });
    env.add_test("iterable", |v: &Value| !v.is_none() && v.try_iter().is_ok());
    // In Python a text and a mapping have a length and items too.
    let sequence = |v: &Value| matches!(v.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map);
    env.add_test("sequence", sequence);
    env.add_template("chat", source)?;
    Ok(env)
}

/// A buffer that refuses to grow without end.
struct Bounded {
    bytes: Vec<u8>,
}

impl std::io::Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + buf.len() > MAX_OUTPUT {
            return Err(std::io::Error::other(format!("its output is longer than {MAX_OUTPUT} bytes")));
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
