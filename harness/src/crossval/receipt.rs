//! Receipts: a report together with what it was computed from, so that anybody can compute it again.
//!
//! A receipt is one JSON file: the [`CrossvalReport`], the logits of both sides as base64 of little-endian f32, and a seal. To
//! check it, every figure that can be derived is derived again: distances, counts and divergences from the logits,
//! rates from times, the verdict from the sections. What is a measurement itself (times, versions, distances of steps,
//! whose values would be hundreds of megabytes) is covered by the seal alone: SHA-256 of the file's text with the seal
//! left blank. The seal finds an edit; it does not prove who wrote the file.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::bisect::diverges;
use super::compare::compare_logits;
use super::generation::{GenerationParity, fed, leads};
use super::performance::{Performance, Speed};
use super::reference::{Logits, Row};
use super::report::{CrossvalReport, LogitParity, PromptReport, SCHEMA, Section};
use super::run::BothLogits;
use super::tokens::first_difference;
use crate::atomic;

/// What the first field of a receipt says.
pub const KIND: &str = "bitnet.rs cross-validation";

/// Logits of one position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowData {
    pub position: usize,
    /// Ours, base64 of little-endian f32.
    pub ours: String,
    pub reference: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`KIND`].
    pub receipt: String,
    pub report: CrossvalReport,
    /// The logits of each prompt; empty for one whose logits were not compared.
    pub data: Vec<Vec<RowData>>,
    /// SHA-256 of the file's text with 64 zeros in this place.
    pub seal: String,
}

/// Why a receipt cannot be written or is not valid.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a receipt of schema {SCHEMA}: {problem}", path = path.display())]
    Malformed { path: PathBuf, problem: String },
    /// A figure does not follow from the data in the file.
    #[error("`{field}` says {stored}, but from the data in the file follows {derived}")]
    DoesNotFollow { field: String, stored: String, derived: String },
    /// Something is said to have run of which the file holds no trace.
    #[error("`{field}` cannot be: {problem}")]
    Impossible { field: String, problem: String },
    /// Everything that can be derived follows, but the text was changed.
    #[error(
        "`seal` does not fit: a measured value, a version or a name was changed after the receipt was written (sealed \
         {stored}, now {derived})"
    )]
    Seal { stored: String, derived: String },
    /// A file that the receipt is about is here and is another one.
    #[error("`{field}` says {stored}, but {path} has {found}", path = path.display())]
    OtherFile { field: String, stored: String, path: PathBuf, found: String },
}

/// What a check of a receipt found good.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verified {
    /// What was derived again and holds.
    pub checked: Vec<String>,
    /// What could not be checked here.
    pub not_checked: Vec<String>,
}

const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Receipt {
    /// Puts a report and the logits of its prompts together.
    pub fn new(report: CrossvalReport, data: &[Option<BothLogits>]) -> Self {
        let data = data.iter().map(|both| both.as_ref().map_or_else(Vec::new, rows)).collect();
        Self { receipt: KIND.to_owned(), report, data, seal: BLANK.to_owned() }
    }

    /// Writes it, sealed.
    pub fn write(&self, path: &Path) -> Result<(), ReceiptError> {
        let malformed =
            |e: serde_json::Error| ReceiptError::Malformed { path: path.to_owned(), problem: e.to_string() };
        let blank = Self { seal: BLANK.to_owned(), ..self.clone() };
        let text = serde_json::to_string_pretty(&blank).map_err(malformed)? + "\n";
        let sealed = with_seal(&text, &digest(&text));
        let io = |source| ReceiptError::Io { path: path.to_owned(), source };
        atomic::write(path, sealed.unwrap_or(text).as_bytes()).map_err(io)
    }
}

fn rows(both: &BothLogits) -> Vec<RowData> {
    let encode = |row: Option<&Row>| match row {
        Some(Row::Full(values)) => STANDARD.encode(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
        // Empty: the check of the receipt will find that there is nothing to derive from.
        _ => String::new(),
    };
    let positions = &both.reference.positions;
    positions
        .iter()
        .map(|&position| RowData {
            position,
            ours: encode(both.ours.row(position)),
            reference: encode(both.reference.row(position)),
        })
        .collect()
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// The text with another seal; `None` if it has none. The seal is the last thing in the file.
fn with_seal(text: &str, seal: &str) -> Option<String> {
    let start = text.rfind("\"seal\"")?;
    let open = start + 6 + text.get(start + 6..)?.find('"')? + 1;
    let close = open + text.get(open..)?.find('"')?;
    Some(format!("{}{seal}{}", &text[..open], &text[close..]))
}

/// Reads a receipt and derives everything again. `model` is the model's file, if it lies elsewhere than the receipt
/// says.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(path: &Path, model: Option<&Path>) -> Result<(Receipt, Verified), ReceiptError> {
    let text = std::fs::read_to_string(path).map_err(|source| ReceiptError::Io { path: path.to_owned(), source })?;
    let malformed = |problem: String| ReceiptError::Malformed { path: path.to_owned(), problem };
    let receipt: Receipt = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
    if receipt.receipt != KIND || receipt.report.schema != SCHEMA {
        return Err(malformed(format!("it is a `{}` of schema {}", receipt.receipt, receipt.report.schema)));
    }
    let derived = derive(&receipt)?;
    if let Some(error) = compare(&receipt.report, &derived).map_err(|e| malformed(e.to_string()))? {
        return Err(error);
    }
    let found = with_seal(&text, BLANK).map(|blank| digest(&blank)).unwrap_or_default();
    if found != receipt.seal {
        return Err(ReceiptError::Seal { stored: receipt.seal, derived: found });
    }
    let mut verified = Verified {
        checked: vec![
            format!(
                "figures of {} prompts, from {} rows of logits",
                receipt.data.len(),
                receipt.data.iter().map(Vec::len).sum::<usize>()
            ),
            format!("the verdict: {}", receipt.report.verdict.name()),
            "the seal".to_owned(),
        ],
        not_checked: Vec::new(),
    };
    files(&receipt.report, model, &mut verified)?;
    Ok((receipt, verified))
}

fn files(report: &CrossvalReport, model: Option<&Path>, verified: &mut Verified) -> Result<(), ReceiptError> {
    let facts = [
        ("report.model", Some(&report.model), model),
        ("report.reference_model", report.reference_model.as_ref(), None),
    ];
    for (field, facts, elsewhere) in facts {
        let Some(facts) = facts else { continue };
        let path = elsewhere.map_or_else(|| PathBuf::from(&facts.path), Path::to_owned);
        let Ok(bytes) = std::fs::read(&path) else {
            verified.not_checked.push(format!("{field}: {} is not here", path.display()));
            continue;
        };
        let found = hex::encode(Sha256::digest(&bytes));
        if found != facts.sha256 {
            let field = format!("{field}.sha256");
            return Err(ReceiptError::OtherFile { field, stored: facts.sha256.clone(), path, found });
        }
        verified.checked.push(format!("{field}: {} is the file", path.display()));
    }
    Ok(())
}

/// The report as it follows from the data in the file.
fn derive(receipt: &Receipt) -> Result<CrossvalReport, ReceiptError> {
    let mut report = receipt.report.clone();
    let impossible = |field: String, problem: &str| ReceiptError::Impossible { field, problem: problem.to_owned() };
    if receipt.data.len() != report.prompts.len() {
        return Err(impossible("data".to_owned(), "it must have one entry a prompt"));
    }
    let live = report.reference.ran().is_some_and(|facts| !facts.version.is_null());
    let anything = report.prompts.iter().any(|p| p.tokens.ran().is_some())
        || report.tokenizer_parity.ran().is_some()
        || report.performance.ran().is_some();
    if anything && !live {
        return Err(impossible("report.reference".to_owned(), "something ran, and the reference did not"));
    }
    let limits = report.limits.clone();
    if let Section::Ran(parity) = &mut report.tokenizer_parity {
        for text in &mut parity.texts {
            text.tokens.first_difference = first_difference(&text.tokens.ours, &text.tokens.reference);
            text.tokens.equal = text.tokens.first_difference.is_none();
        }
        parity.differing = parity.texts.iter().filter(|t| !t.tokens.equal).count();
    }
    let asked = report.asked.clone();
    for (at, (prompt, data)) in report.prompts.iter_mut().zip(&receipt.data).enumerate() {
        let field = |name: &str| format!("report.prompts[{at}].{name}");
        chain(prompt, &field)?;
        if let Section::Ran(tokens) = &mut prompt.tokens {
            tokens.first_difference = first_difference(&tokens.ours, &tokens.reference);
            tokens.equal = tokens.first_difference.is_none();
        }
        if let Section::Ran(logits) = &mut prompt.logits {
            let both = decode(data).map_err(|problem| impossible(format!("data[{at}]"), &problem))?;
            if asked.positions.is_none() && !both.ours.positions.iter().copied().eq(0..logits.sequence.len()) {
                return Err(impossible(format!("data[{at}]"), "it does not hold every position of the sequence"));
            }
            logits.comparison = compare_logits(&logits.sequence, &both.ours, &both.reference, &limits);
        }
        let positions = prompt.logits.ran().map_or_else(Vec::new, |l| l.comparison.positions.clone());
        let prompt_len = prompt.tokens.ran().map_or(0, |t| t.ours.len());
        if let Section::Ran(g) = &mut prompt.generation {
            let sides = (g.ours.clone(), g.reference.clone());
            *g = GenerationParity::of(
                g.max_tokens,
                sides,
                g.text.clone(),
                prompt_len,
                &leads(&positions),
                limits.clear_gap,
            );
        }
        if let Section::Ran(trace) = &mut prompt.trace {
            for step in &mut trace.steps {
                step.diverges = diverges(&step.step, &step.whole, step.own.as_ref(), &limits);
            }
            let first = trace.steps.iter().find(|step| step.diverges).map(|step| step.step.clone());
            trace.agrees = !trace.steps.is_empty() && first.is_none();
            let stored = trace.first.as_ref().map(|f| f.step.clone());
            if first != stored {
                return Err(ReceiptError::DoesNotFollow {
                    field: field("trace.first.step"),
                    stored: format!("{stored:?}"),
                    derived: format!("{first:?}"),
                });
            }
        }
    }
    if let Section::Ran(p) = &mut report.performance {
        let again = |s: &Speed| Speed::of(s.prefill_s.clone(), s.generate_s.clone(), s.generated, p.prompt_tokens);
        let timed = [&p.ours, &p.reference].iter().all(|s| !s.prefill_s.is_empty() && !s.generate_s.is_empty());
        if !timed {
            return Err(impossible("report.performance".to_owned(), "it ran, and there are no times"));
        }
        *p = Performance::of(p.prompt_tokens, p.max_tokens, again(&p.ours), again(&p.reference));
    }
    Ok(report.judged())
}

/// What ran must have had its input from what ran before.
fn chain(prompt: &PromptReport, field: &dyn Fn(&str) -> String) -> Result<(), ReceiptError> {
    let impossible =
        |name: &str, problem: &str| Err(ReceiptError::Impossible { field: field(name), problem: problem.to_owned() });
    let gate = prompt.tokens.ran().filter(|tokens| tokens.ours == tokens.reference);
    let later = [
        ("logits", prompt.logits.ran().is_some()),
        ("generation", prompt.generation.ran().is_some()),
        ("trace", prompt.trace.ran().is_some()),
    ];
    if let (None, Some((name, _))) = (gate, later.iter().find(|(_, ran)| *ran)) {
        return impossible(name, "it ran, and the tokens were not the same");
    }
    let (Some(tokens), Some(LogitParity { sequence, prompt_tokens, .. })) = (gate, prompt.logits.ran()) else {
        return Ok(());
    };
    let fed = prompt.generation.ran().map_or(&[][..], |g| fed(&g.reference));
    if *prompt_tokens != tokens.ours.len() || *sequence != [&tokens.ours[..], fed].concat() {
        return impossible("logits.sequence", "it is not the prompt and the reference's continuation");
    }
    match prompt.trace.ran() {
        Some(trace) if trace.tokens != sequence.len() => impossible("trace.tokens", "another sequence was traced"),
        _ => Ok(()),
    }
}

fn decode(data: &[RowData]) -> Result<BothLogits, String> {
    let row = |text: &str| -> Result<Row, String> {
        let bytes = STANDARD.decode(text).map_err(|e| e.to_string())?;
        let (values, rest) = bytes.as_chunks::<4>();
        if values.is_empty() || !rest.is_empty() {
            return Err("a row has no logits, or half of one".to_owned());
        }
        Ok(Row::Full(values.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    };
    let side = |pick: fn(&RowData) -> &str| -> Result<Logits, String> {
        let rows = data.iter().map(|r| row(pick(r))).collect::<Result<Vec<_>, _>>()?;
        let vocab = rows.iter().map(|r| if let Row::Full(v) = r { v.len() } else { 0 }).max().unwrap_or(0);
        Ok(Logits { positions: data.iter().map(|r| r.position).collect(), vocab, rows })
    };
    if !data.is_sorted_by(|a, b| a.position < b.position) {
        return Err("its positions do not ascend".to_owned());
    }
    Ok(BothLogits { ours: side(|r| &r.ours)?, reference: side(|r| &r.reference)? })
}

/// The first field in which two reports differ.
fn compare(stored: &CrossvalReport, derived: &CrossvalReport) -> Result<Option<ReceiptError>, serde_json::Error> {
    let (stored, derived) = (serde_json::to_value(stored)?, serde_json::to_value(derived)?);
    Ok(difference("report", &stored, &derived))
}

fn difference(field: &str, stored: &Value, derived: &Value) -> Option<ReceiptError> {
    match (stored, derived) {
        (Value::Object(a), Value::Object(b)) => {
            let missing = a.keys().chain(b.keys()).find(|key| a.contains_key(*key) != b.contains_key(*key));
            if let Some(key) = missing {
                return Some(follows(&format!("{field}.{key}"), &stored[key], &derived[key]));
            }
            // What is inside first: sums and verdicts follow from it.
            let (deep, flat): (Vec<_>, Vec<_>) = a.iter().partition(|(_, value)| value.is_object() || value.is_array());
            deep.into_iter().chain(flat).find_map(|(key, value)| difference(&format!("{field}.{key}"), value, &b[key]))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(&format!("{field}[{i}]"), a, b))
        }
        (Value::Number(a), Value::Number(b)) => {
            // Logarithms of another machine's library may differ in their last bits.
            let (x, y) = (a.as_f64()?, b.as_f64()?);
            let same = x == y || (x - y).abs() <= 1e-9 * x.abs().max(y.abs());
            (!same).then(|| follows(field, stored, derived))
        }
        _ => (stored != derived).then(|| follows(field, stored, derived)),
    }
}

fn follows(field: &str, stored: &Value, derived: &Value) -> ReceiptError {
    ReceiptError::DoesNotFollow { field: field.to_owned(), stored: stored.to_string(), derived: derived.to_string() }
}
