//! Which file of a repository is the model.
//!
//! A reference that names a file or a quantization has decided. Otherwise the first quantization of [`ORDER`] that a file name has
//! decides: what this engine computes best (ternary, exact) before what only approximates a model, smaller before larger. Where that
//! leaves several models, none is guessed. All parts of a split model come together. Projectors and importance matrices
//! (`mmproj`, `imatrix` in the name) are not models.

use std::collections::HashSet;
use std::path::Path;

use super::checkpoints::{convert_command, is_checkpoint};
use super::error::HubError;
use super::reference::{ModelRef, Pick};
use crate::gguf::split::PartName;

/// Quantizations in file names, the preferred one first: I2_S, other ternary formats, four bits, more bits, floats, and last what
/// keeps less than four bits of a model that is not ternary.
pub const ORDER: [&str; 32] = [
    "i2_s", "tl2", "tl1", "tq2_0", "tq1_0", "iq2_bn", "iq1_bn", "q2_0", "q1_0", "q4_k_m", "q4_k_s", "q4_k", "q4_0",
    "q4_1", "iq4_nl", "mxfp4", "q5_k_m", "q5_k_s", "q5_k", "q5_0", "q5_1", "q6_k", "q8_0", "bf16", "f16", "fp16",
    "f32", "q3_k_l", "q3_k_m", "q3_k_s", "q3_k", "q2_k",
];

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Paths in the repository: one, or the parts of a split model in their order.
    pub files: Vec<String>,
    /// Why this one.
    pub why: String,
    /// The first files of the other models there.
    pub others: Vec<String>,
}

impl Choice {
    /// The file to open.
    pub fn first(&self) -> &str {
        self.files.first().map_or("", String::as_str)
    }
}

/// The model that a reference means among these paths.
///
/// # Errors
/// There is none, there are several, or a part is missing; with what there is.
pub fn choose(reference: &ModelRef, files: &[String]) -> Result<Choice, HubError> {
    let mut models = candidates(files);
    let none = |wanted: String| {
        let there: Vec<String> = files.iter().filter(|file| file.ends_with(".gguf")).cloned().collect();
        let checkpoint = reference.with(Pick::Auto).to_string();
        let remedy = if there.is_empty() && is_checkpoint(files) {
            format!(
                "; it is a checkpoint, of which a GGUF is made by: {}",
                convert_command(Path::new(&checkpoint), true)
            )
        } else {
            String::new()
        };
        HubError::NoModel { reference: reference.to_string(), wanted, there, remedy }
    };
    let (at, why) = match &reference.pick {
        Pick::File(path) => {
            let first = all_parts(path).into_iter().next().unwrap_or_default();
            let is = |model: &Candidate| model.files.contains(path) || model.name() == first;
            let at = models.iter().position(is).filter(|_| files.contains(path));
            (at.ok_or_else(|| none(format!("file {path}")))?, "it was named".to_owned())
        }
        Pick::Quant(quant) => {
            let tag = quant.to_ascii_lowercase();
            let at = only(reference, &models, |model| model.has(&tag))?;
            (at.ok_or_else(|| none(format!("GGUF of quantization {quant}")))?, format!("{quant} was asked for"))
        }
        Pick::Auto => {
            let mut found = None;
            for tag in ORDER {
                if let Some(at) = only(reference, &models, |model| model.has(tag))? {
                    found = Some((at, format!("{tag} comes first")));
                    break;
                }
            }
            match found {
                Some(found) => found,
                None => {
                    let at = only(reference, &models, |model| !model.is_extra())?;
                    (at.ok_or_else(|| none("GGUF of a model".to_owned()))?, "it is the only one".to_owned())
                }
            }
        }
    };
    let chosen = models.remove(at);
    if let Some(missing) = chosen.missing {
        let file = chosen.files.into_iter().next().unwrap_or_default();
        return Err(HubError::NoPart { reference: reference.to_string(), file, missing });
    }
    let others = models.iter().filter(|model| !model.is_extra()).filter_map(|model| model.files.first().cloned());
    Ok(Choice { files: chosen.files, why, others: others.collect() })
}

/// All parts of the split model that a path is a part of; the path alone if it is none.
pub fn all_parts(path: &str) -> Vec<String> {
    PartName::parse(Path::new(path)).map_or_else(|| vec![path.to_owned()], |name| parts(&name).collect())
}

struct Candidate {
    files: Vec<String>,
    /// A part that is not there.
    missing: Option<String>,
}

impl Candidate {
    fn name(&self) -> &str {
        self.files.first().map_or("", String::as_str)
    }

    /// Not a language model.
    fn is_extra(&self) -> bool {
        let name = self.name().to_ascii_lowercase();
        name.contains("mmproj") || name.contains("imatrix")
    }

    /// Whether a part of the path is this quantization (in lower case), and not the beginning or end of another one.
    fn has(&self, tag: &str) -> bool {
        let path = self.name().to_ascii_lowercase();
        let path = path.strip_suffix(".gguf").unwrap_or(&path);
        !self.is_extra()
            && path.match_indices(tag).any(|(at, _)| {
                let before = path[..at].chars().next_back();
                let after = path[at + tag.len()..].chars().next();
                before.is_none_or(|c| !c.is_alphanumeric()) && after.is_none_or(|c| "-./".contains(c))
            })
    }
}

fn candidates(files: &[String]) -> Vec<Candidate> {
    let there: HashSet<&str> = files.iter().map(String::as_str).collect();
    let mut seen: HashSet<String> = HashSet::new();
    let mut out = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".gguf")) {
        let name = PartName::parse(Path::new(file));
        let first = name.as_ref().map_or_else(|| file.clone(), |name| part(name, 1));
        if !seen.insert(first.clone()) {
            continue;
        }
        let missing = name.iter().flat_map(parts).find(|part| !there.contains(part.as_str()));
        let files = match (&missing, name) {
            (None, Some(name)) => parts(&name).collect(),
            _ => vec![if there.contains(first.as_str()) { first } else { file.clone() }],
        };
        out.push(Candidate { files, missing });
    }
    out.sort_by(|a, b| a.name().cmp(b.name()));
    out
}

/// A part's path. A repository's paths have slashes on every system.
fn part(name: &PartName, number: u32) -> String {
    name.path(number).to_string_lossy().replace('\\', "/")
}

fn parts(name: &PartName) -> impl Iterator<Item = String> {
    (1..=name.count).map(|number| part(name, number))
}

/// The place of the only candidate of a kind.
fn only(
    reference: &ModelRef,
    models: &[Candidate],
    is: impl Fn(&Candidate) -> bool,
) -> Result<Option<usize>, HubError> {
    let found: Vec<usize> = models.iter().enumerate().filter(|(_, model)| is(model)).map(|(at, _)| at).collect();
    match found.as_slice() {
        [] => Ok(None),
        [at] => Ok(Some(*at)),
        several => Err(HubError::SeveralModels {
            reference: reference.to_string(),
            choices: several
                .iter()
                .filter_map(|at| models.get(*at))
                .map(|model| reference.with(Pick::File(model.name().to_owned())).to_string())
                .collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(reference: &str, files: &[&str]) -> Result<Choice, String> {
        let files: Vec<String> = files.iter().map(ToString::to_string).collect();
        choose(&reference.parse().unwrap(), &files).map_err(|error| error.to_string())
    }

    #[test]
    fn the_order_decides_and_a_name_decides_before_it() {
        let files = [
            "README.md",
            "m-f16.gguf",
            "m-Q4_K_M.gguf",
            "m-Q8_0.gguf",
            "ggml-model-i2_s.gguf",
            "m-TQ2_0.gguf",
            "mmproj-m-f16.gguf",
            "bf16/m-bf16.gguf",
        ];
        let first = |reference: &str, files: &[&str]| pick(reference, files).unwrap().files.remove(0);
        assert_eq!(first("hf:o/n", &files), "ggml-model-i2_s.gguf");
        let without = |no: &[&str]| files.into_iter().filter(|file| !no.contains(file)).collect::<Vec<_>>();
        let mut gone = vec!["ggml-model-i2_s.gguf"];
        for next in ["m-TQ2_0.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "bf16/m-bf16.gguf", "m-f16.gguf"] {
            assert_eq!(first("hf:o/n", &without(&gone)), next);
            gone.push(next);
        }
        assert!(pick("hf:o/n", &without(&gone)).unwrap_err().contains("GGUF of a model"), "a projector is not one");
        for (quant, file) in [("q8_0", "m-Q8_0.gguf"), ("Q4_K_M", "m-Q4_K_M.gguf"), ("f16", "m-f16.gguf")] {
            assert_eq!(first(&format!("hf:o/n:{quant}"), &files), file);
        }
        assert_eq!(first("hf:o/n:m-f16.gguf", &files), "m-f16.gguf");
        assert_eq!(first("hf:o/n", &["what.gguf", "x.bin"]), "what.gguf");
        let choice = pick("hf:o/n", &["a-q4_0.gguf", "a-q8_0.gguf"]).unwrap();
        assert_eq!((choice.why.as_str(), choice.others), ("q4_0 comes first", vec!["a-q8_0.gguf".to_owned()]));
    }

    #[test]
    fn what_cannot_be_chosen_says_what_there_is() {
        let fails = |reference: &str, files: &[&str], words: &[&str]| {
            let error = pick(reference, files).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        fails("hf:o/n:q4_k", &["m-Q4_K_M.gguf"], &["q4_k", "m-Q4_K_M.gguf"]);
        fails("hf:o/n:x.gguf", &["m.gguf"], &["x.gguf", "m.gguf"]);
        fails("hf:o/n", &["config.json"], &["no GGUF"]);
        let checkpoint = ["config.json", "model.safetensors"];
        fails("hf:o/n:q4_0", &checkpoint, &["it is a checkpoint", "bitnet convert hf:o/n --auto-download"]);
        for (reference, files) in
            [("hf:o/n", &["config.json"][..]), ("hf:o/n:q4_0", &[&checkpoint[..], &["m.gguf"]].concat())]
        {
            let error = pick(reference, files).unwrap_err();
            assert!(!error.contains("checkpoint"), "{error}");
        }
        fails("hf:o/n@v1", &["a-i2_s.gguf", "b-i2_s.gguf"], &["hf:o/n@v1:a-i2_s.gguf", "hf:o/n@v1:b-i2_s.gguf"]);
        fails("hf:o/n", &["a.gguf", "b.gguf"], &["hf:o/n:a.gguf", "hf:o/n:b.gguf"]);
    }

    #[test]
    fn parts_come_together() {
        let parts = ["q8_0/m-00002-of-00002.gguf", "q8_0/m-00001-of-00002.gguf"];
        for reference in ["hf:o/n", "hf:o/n:Q8_0", "hf:o/n:q8_0/m-00002-of-00002.gguf"] {
            let choice = pick(reference, &parts).unwrap();
            assert_eq!(choice.files, ["q8_0/m-00001-of-00002.gguf", "q8_0/m-00002-of-00002.gguf"]);
        }
        let error = pick("hf:o/n", &parts[1..]).unwrap_err();
        assert!(error.contains("m-00002-of-00002.gguf"), "{error}");
    }
}
