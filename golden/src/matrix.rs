//! `matrix.toml`: which cells exist.
//!
//! The file declares the axes (models with the quants in which they exist, devices, backends) and, for
//! every check, the rectangles of the matrix that it covers. This module only reads; the meaning (names
//! that must exist, rectangles that must not be empty, the expansion into cells) is the harness's, which
//! reports all mistakes at once.

use std::path::Path;

use serde::Deserialize;

use crate::GoldenError;
use crate::pattern::Pattern;
pub use crate::shape::{Experts, RopeScaling, Scales, Shape, Window};

pub const SCHEMA: u32 = 1;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    pub schema: u32,
    /// Models, in the order in which reports show them.
    #[serde(default, rename = "model")]
    pub models: Vec<Model>,
    /// Devices: an instruction set of the CPU, or an accelerator.
    #[serde(default, rename = "device")]
    pub devices: Vec<Device>,
    /// What a cell is checked against.
    #[serde(default, rename = "backend")]
    pub backends: Vec<Backend>,
    /// Checks and the cells to which they apply.
    #[serde(default, rename = "check")]
    pub checks: Vec<CheckDecl>,
    /// Cells that are declared but cannot mean anything, with the reason.
    #[serde(default, rename = "unsupported")]
    pub unsupported: Vec<Unsupported>,
}

/// What a cell is checked against.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    pub name: String,
    pub about: String,
    /// What it does not know. No rectangle makes a cell of that, whatever it names.
    #[serde(default)]
    pub unknown: Vec<Unknown>,
}

/// Something that a backend does not know: every condition that is given must hold, and a list that is left out holds always.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// Architectures, as [`Model::family`] has them.
    #[serde(default)]
    pub families: Vec<String>,
    #[serde(default)]
    pub models: Vec<String>,
    #[serde(default)]
    pub quants: Vec<String>,
    pub reason: String,
}

impl Unknown {
    /// Whether it is about a model in a weight format.
    pub fn covers(&self, model: &Model, quant: &str) -> bool {
        let among = |list: &[String], name: &str| list.is_empty() || list.iter().any(|known| known == name);
        // An entry without any condition would take the whole backend away.
        let some = [&self.families, &self.models, &self.quants].iter().any(|list| !list.is_empty());
        some && among(&self.families, &model.family) && among(&self.models, &model.name) && among(&self.quants, quant)
    }
}

impl Backend {
    /// Why it cannot be asked about a model in a weight format, if it cannot.
    pub fn unknown(&self, model: &Model, quant: &str) -> Option<&Unknown> {
        self.unknown.iter().find(|unknown| unknown.covers(model, quant))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub about: String,
    /// `*` does not include it: it is named where it is meant.
    #[serde(default)]
    pub named_only: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub name: String,
    pub about: String,
    /// `general.architecture` of its GGUF (`bitnet-b1.58`, `llama`, `qwen3`...), or `none`.
    pub family: String,
    /// The weight formats in which the model exists, by the names of the kernels' formats.
    pub quants: Vec<String>,
    pub source: Source,
}

/// Where a model's bytes come from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// In the repository. Always available; other quants than the stored one are packed from it.
    Embedded {
        /// Path below `golden/`.
        file: String,
    },
    /// Downloaded once by `cargo xtask fixtures fetch`; unavailable until then.
    Fixture {
        /// File name in the fixtures folder.
        file: String,
    },
    /// Made from a seed at run time. Always available.
    Generated {
        seed: u64,
        /// Kind of the generated tokenizer: `spm` or `bpe`.
        tokenizer: String,
        shape: Shape,
        /// What the weights are.
        #[serde(default)]
        weights: Weights,
    },
    /// A tokenizer alone, in a GGUF without tensors. Its quants are the forms in which it is written: `vocab`, or
    /// `vocab-no-pre` without the name of its pre-tokenizer. `*` does not include it.
    Vocabulary {
        /// Name of the vocabulary in `harness/src/vocabularies.rs`.
        vocabulary: String,
        /// Name of a known difference (`differences.toml`): its tokens and merges are added to the vocabulary, and its
        /// example is all that is asked.
        #[serde(default)]
        difference: Option<String>,
    },
    /// A file of the user's, named by an environment variable; unavailable while that is not set.
    Path {
        /// The variable that holds the path.
        env: String,
    },
    /// Not a model: stands for the bare weight formats in checks that need no model. `*` in a check's
    /// `models` does not include it, it has to be named.
    Formats,
    /// Not a model: the mock hub. Its quants name the faults of `faults.toml`. `*` does not include it.
    Hub,
}

impl Source {
    /// Whether it is a model with weights, and so one of those that `*` means.
    pub fn is_model(&self) -> bool {
        !matches!(self, Self::Formats | Self::Hub | Self::Vocabulary { .. })
    }
}

/// What the weights of a generated model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// Noise from the seed.
    #[default]
    Noise,
    /// Noise, but for the feed-forward part: its gate and up matrices have equal rows, so that all its activations are
    /// equal, and half of the rows of its down matrix are +1 everywhere. So every int8 activation there is 127 or -127,
    /// and the sums of such a row are the largest that its width allows.
    LargestSums,
}

/// A check and the part of the matrix that it covers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckDecl {
    /// The name as it stands in a cell, and of the file `harness/src/check/<name>.rs`.
    pub name: String,
    /// One sentence for people: what a green cell proves.
    pub about: String,
    /// Rectangles of the matrix; the check covers their union. Overlap is an error.
    pub cells: Vec<Rectangle>,
    /// How many cells the rectangles make. A fact or a name that takes cells away shows in this number.
    #[serde(default)]
    pub count: Option<usize>,
}

/// A product of axis values. An axis that is left out, or `["*"]`, means all its values.
///
/// A quant counts only for the models that exist in it, so that `quants` may name the formats of
/// several models at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rectangle {
    /// Names of models; `*` = all that have weights.
    #[serde(default = "all")]
    pub models: Vec<String>,
    #[serde(default = "all")]
    pub quants: Vec<String>,
    /// Names of devices; `*` = all that are not `named_only`.
    #[serde(default = "all")]
    pub devices: Vec<String>,
    #[serde(default = "all")]
    pub backends: Vec<String>,
}

impl Rectangle {
    /// Whether it names the device, and has the model in the weight format.
    pub fn names(&self, model: &str, quant: &str, device: &str) -> bool {
        let picked = |list: &[String], name: &str| list.iter().any(|value| value == "*" || value == name);
        picked(&self.models, model) && picked(&self.quants, quant) && self.devices.iter().any(|value| value == device)
    }
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Cells that are declared so that nobody wonders where they are, but that nothing can run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsupported {
    pub cells: Pattern,
    pub reason: String,
}

impl Matrix {
    /// Reads the file.
    ///
    /// # Errors
    /// [`GoldenError`] if it cannot be read, does not fit the schema, or is of another version.
    pub fn read(path: &Path) -> Result<Self, GoldenError> {
        let matrix: Self = crate::read_toml(path)?;
        crate::check_schema(path, matrix.schema, SCHEMA)?;
        Ok(matrix)
    }

    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_reads() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix.toml");
        let matrix = Matrix::read(&path).expect("golden/matrix.toml");
        assert!(matrix.model("tiny-bitnet").is_some());
        assert!(matrix.model("no-such-model").is_none());
    }

    #[test]
    fn what_a_backend_does_not_know_needs_every_condition() {
        let entry = |text: &str| -> Unknown { toml::from_str(&format!("{text}\nreason = \"r\"")).expect("entry") };
        let model: Model = toml::from_str(
            "name = \"m\"\nabout = \"\"\nfamily = \"f\"\nquants = [\"q\"]\nsource = { kind = \"formats\" }",
        )
        .expect("model");
        for (text, covers) in [
            ("families = [\"f\", \"g\"]", true),
            ("families = [\"g\"]", false),
            ("quants = [\"q\"]", true),
            ("families = [\"f\"]\nquants = [\"p\"]", false),
            ("models = [\"m\"]\nquants = [\"q\"]", true),
            ("models = [\"n\"]\nquants = [\"q\"]", false),
            ("", false),
        ] {
            assert_eq!(entry(text).covers(&model, "q"), covers, "{text}");
        }
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let text = "schema = 1\n[[device]]\nname = \"d\"\nabuot = \"x\"\n";
        let error = toml::from_str::<Matrix>(text).expect_err("unknown field");
        assert!(error.to_string().contains("abuot"), "{error}");
    }

    #[test]
    fn sources_deny_unknown_fields_too() {
        let ok: Source = toml::from_str("kind = \"fixture\"\nfile = \"a.gguf\"").expect("fixture");
        assert_eq!(ok, Source::Fixture { file: "a.gguf".to_owned() });
        let error =
            toml::from_str::<Source>("kind = \"fixture\"\nfile = \"a\"\nsha = \"b\"").expect_err("unknown field");
        assert!(error.to_string().contains("sha"), "{error}");
    }

    #[test]
    fn another_schema_is_refused() {
        let dir = std::env::temp_dir().join(format!("bitnet-golden-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("temp dir");
        let path = dir.join("matrix.toml");
        std::fs::write(&path, "schema = 99\n").expect("write");
        let error = Matrix::read(&path).expect_err("schema 99");
        std::fs::remove_dir_all(&dir).expect("clean up");
        assert!(error.to_string().contains("schema 99"), "{error}");
    }
}
