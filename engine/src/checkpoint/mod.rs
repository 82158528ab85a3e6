//! A folder as HuggingFace has it (config.json, safetensors, tokenizer files), read as a model, and written as a GGUF.
//!
//! ```text
//! config.json ──> form, sizes, keys ──┐
//! *.safetensors ──> plan of tensors ──┼──> GGUF, loaded once before it gets its name
//! tokenizer files ──> tokenizer keys ─┘
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `store` | the mapped tensors, by name |
//! | `config` | config.json, key by key; sizes |
//! | `defaults` | what an absent key means, as data |
//! | `forms` | the families: names of tensors, as data |
//! | `keys`, `rope` | what config.json says of the graph, as keys of GGUF |
//! | `quantization`, `matrix` | packed weights, masters, the order of rows |
//! | `tokens` | the tokenizer and the chat template, as keys of GGUF |
//! | `write` | the GGUF, tensor by tensor |
//! | `forward`, `rotation` | the model computed from the checkpoint, for comparison |
//!
//! Nothing is left out silently: a tensor that the family does not have is an error, and so is a key that asks for another
//! graph.

mod config;
mod defaults;
mod error;
mod forms;
mod forward;
mod keys;
mod matrix;
mod quantization;
mod rope;
mod rotation;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod write;

pub use error::CheckpointError;
pub use write::{ToGguf, Written};

use crate::gguf::MetaValue;
use crate::tokenizer::Diagnostic;
use config::{Object, Sizes};
use defaults::Defaults;
use error::{config, tensor, unsupported};
use forms::{FORMS, Form, LM_HEAD, Part, What, Width};
use keys::Graph;
use matrix::{Source, Values};
use quantization::Quantization;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use store::{Float, Store};

/// A checkpoint that was understood: every tensor has its place, and every key its meaning.
pub struct Checkpoint {
    folder: PathBuf,
    store: Store,
    json: Value,
    form: &'static Form,
    defaults: &'static Defaults,
    sizes: Sizes,
    graph: Graph,
    quantization: Option<Quantization>,
    planned: Vec<Planned>,
    /// What the user should know.
    warnings: Vec<Diagnostic>,
}

/// A tensor of the GGUF.
struct Planned {
    name: String,
    content: Content,
}

enum Content {
    Matrix(Source, Role),
    Vector(Vec<f32>),
}

/// Which of the formats asked for a matrix gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// That of the embedding.
    Embedding,
    /// That of linear layers.
    Linear,
    /// The one that it has.
    Kept,
}

/// Opens a checkpoint: reads config.json and the headers of its tensors, and finds the place of each. Weights are not read yet.
///
/// # Errors
/// A file that is missing or damaged, a family that is not known, a tensor or a key that the family does not have.
pub fn open(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let json = store::json(&folder.join("config.json"))?;
    let object = Object::new(&json);
    let (form, tied_class) = form_of(object)?;
    let defaults = defaults::of(object.text("model_type")?.unwrap_or_default(), form.types);
    let sizes = Sizes::read(object, defaults, form.architecture == "gpt2")?;
    let quantization = Quantization::read(object)?;
    let graph = keys::read(form, &sizes, defaults, object)?;
    let mut warnings = Vec::new();
    let store = Store::open(folder, &mut warnings)?;
    let mut planner = Planner {
        form,
        sizes,
        quantization: quantization.as_ref(),
        store: &store,
        taken: HashSet::new(),
        out: Vec::new(),
    };
    planner.norm_before(object, defaults)?;
    let by_default = (tied_class || defaults.tied).then_some(true);
    let tied = if tied_class { by_default } else { object.flag("tie_word_embeddings")?.or(by_default) };
    planner.plan(tied)?;
    planner.nothing_left(tied)?;
    let planned = planner.out;
    warnings.extend(other_head(&store, &planned));
    Ok(Checkpoint {
        folder: folder.to_owned(),
        store,
        json,
        form,
        defaults,
        sizes,
        graph,
        quantization,
        planned,
        warnings,
    })
}

impl Checkpoint {
    /// `general.architecture` of the GGUF.
    pub fn architecture(&self) -> &'static str {
        self.form.architecture
    }

    /// Whether it was trained as BitNet: ternary weights, int8 activations with one scale a token.
    fn is_bitnet(&self) -> bool {
        self.form.bitnet || self.quantization.is_some()
    }

    fn matrix(&self, name: &str) -> Option<&Source> {
        matrix(&self.planned, name)
    }

    fn vector(&self, name: &str) -> Option<&[f32]> {
        self.planned.iter().find_map(|planned| match &planned.content {
            Content::Vector(values) if planned.name == name => Some(values.as_slice()),
            _ => None,
        })
    }

    fn key(&self, name: &str) -> Option<&MetaValue> {
        self.graph.keys.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

fn matrix<'p>(planned: &'p [Planned], name: &str) -> Option<&'p Source> {
    planned.iter().find_map(|planned| match &planned.content {
        Content::Matrix(source, _) if planned.name == name => Some(source),
        _ => None,
    })
}

/// A head that the checkpoint has, and the model does not use: the embedding is its head.
fn other_head(store: &Store, planned: &[Planned]) -> Option<Diagnostic> {
    let head = store.get(LM_HEAD)?;
    let embedding = matrix(planned, "token_embd.weight").filter(|_| matrix(planned, "output.weight").is_none())?;
    let same = (head.dtype, &head.shape) == (embedding.stored.dtype, &embedding.stored.shape)
        && store.bytes(head) == store.bytes(&embedding.stored);
    (!same).then(|| {
        Diagnostic::warning(
            "head_left_out",
            format!(
                "`{LM_HEAD}` is another matrix than the embedding and is left out: the head is tied to the embedding"
            ),
            "if the model has a head of its own, set `tie_word_embeddings` to false in config.json",
        )
    })
}

/// The form of a config.json, and whether its class has no head.
fn form_of(object: Object<'_>) -> Result<(&'static Form, bool), CheckpointError> {
    let classes = object.texts("architectures")?.unwrap_or_default();
    let model_type = object.text("model_type")?.unwrap_or_default();
    let mut act = None;
    for key in ["hidden_act", "hidden_activation", "activation_function"] {
        act = act.map_or_else(|| object.text(key), |act| Ok(Some(act)))?;
    }
    let act = act.or_else(|| defaults::of_type(model_type).map(|defaults| defaults.act));
    let class = classes.first().copied().unwrap_or_default();
    // The class counts: the first BitNet models call their type `llama`.
    let by_class = |form: &&Form| form.classes.contains(&class);
    let by_type = |form: &&Form| form.types.contains(&model_type);
    let mut forms: Vec<&'static Form> = FORMS.iter().filter(by_class).collect();
    if forms.is_empty() {
        forms = FORMS.iter().filter(by_type).collect();
    }
    if forms.is_empty() {
        let known: Vec<&str> = FORMS.iter().flat_map(|form| form.classes).copied().collect();
        let what = format!("architecture `{class}` (model_type `{model_type}`; known are {})", known.join(", "));
        return Err(unsupported(what));
    }
    let found = forms.iter().copied().find(|form| act.is_none_or(|act| act == form.act));
    match found {
        Some(form) => Ok((form, class.ends_with("Model") && !class.contains("LMHead"))),
        None => {
            let known: Vec<&str> = forms.iter().map(|form| form.act).collect();
            let why =
                format!("is `{}`; a model of this architecture has {}", act.unwrap_or_default(), known.join(" or "));
            Err(config("hidden_act", why))
        }
    }
}

/// Finds the place of every tensor.
struct Planner<'a> {
    form: &'static Form,
    sizes: Sizes,
    quantization: Option<&'a Quantization>,
    store: &'a Store,
    taken: HashSet<String>,
    out: Vec<Planned>,
}

impl Planner<'_> {
    /// The norms in front of matrices share the model's epsilon in GGUF.
    fn norm_before(&self, object: Object<'_>, defaults: &Defaults) -> Result<(), CheckpointError> {
        let Some(eps) = self.quantization.and_then(|q| q.norm_before) else { return Ok(()) };
        let usual = object.float("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps);
        if eps as f32 == usual as f32 {
            return Ok(());
        }
        Err(unsupported(format!("norms before its matrices with epsilon {eps} beside others with {usual}")))
    }

    fn plan(&mut self, tied: Option<bool>) -> Result<(), CheckpointError> {
        for part in self.form.first {
            self.add("", "", part)?;
        }
        for block in 0..self.sizes.layers {
            let (theirs, ours) = (format!("{}{block}.", self.form.blocks), format!("blk.{block}."));
            for part in self.form.block.iter().copied().flatten() {
                self.add(&theirs, &ours, part)?;
            }
        }
        for part in self.form.last {
            let absent = part.what == What::Head && self.store.get(LM_HEAD).is_none();
            if part.what == What::Head && (tied == Some(true) || tied.is_none() && absent) {
                continue;
            }
            self.add("", "", part)?;
        }
        Ok(())
    }

    /// The name under which the checkpoint has a part.
    fn find(&self, place: &str, part: &Part) -> Result<String, CheckpointError> {
        let named = |name: &&str| {
            let full = format!("{place}{name}");
            let prefixed = format!("{}{full}", self.form.prefix);
            [prefixed, full].into_iter().find(|name| self.store.get(name).is_some())
        };
        part.names.iter().find_map(named).ok_or_else(|| {
            let prefix = if part.what == What::Head { "" } else { self.form.prefix };
            CheckpointError::MissingTensor {
                name: format!("{prefix}{place}{}", part.names[0]),
                architecture: self.form.architecture,
            }
        })
    }

    fn add(&mut self, place: &str, ours: &str, part: &Part) -> Result<(), CheckpointError> {
        let name = self.find(place, part)?;
        let gguf = format!("{ours}{}", part.gguf);
        let width = |width: Width| width.of(&self.sizes);
        match part.what {
            What::Vector(length) => self.vector(&name, gguf, width(length), 0.0),
            What::PlusOne(length) => self.vector(&name, gguf, width(length), 1.0),
            What::Table(rows) => {
                let role = if rows == Width::Vocab { Role::Embedding } else { Role::Kept };
                self.table(name, gguf, width(rows), role)
            }
            What::Head => self.table(name, gguf, self.sizes.vocab, Role::Embedding),
            What::Matrix(rows, cols) => self.linear(name, gguf, (width(rows), width(cols)), None, false),
            What::Permuted(rows, cols) => {
                let heads = if rows == Width::Query { self.sizes.heads } else { self.sizes.kv_heads };
                self.linear(name, gguf, (width(rows), width(cols)), Some(heads), false)
            }
            What::Transposed(rows, cols) => self.linear(name, gguf, (width(rows), width(cols)), None, true),
        }
    }

    /// The type of a tensor that must hold floats. It is asked before the shape: packed forms of others have both unlike ours.
    fn float(&self, name: &str) -> Result<Option<Float>, CheckpointError> {
        self.store.get(name).map(|stored| Float::of(name, stored.dtype)).transpose()
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<store::Stored, CheckpointError> {
        let missing = || CheckpointError::MissingTensor { name: name.to_owned(), architecture: self.form.architecture };
        let stored = self.store.get(name).ok_or_else(missing)?.clone();
        if stored.shape != shape {
            return Err(tensor(name, format!("has the shape {:?}, config.json asks for {shape:?}", stored.shape)));
        }
        self.taken.insert(name.to_owned());
        Ok(stored)
    }

    fn vector(&mut self, name: &str, gguf: String, length: usize, plus: f32) -> Result<(), CheckpointError> {
        self.float(name)?;
        let stored = self.take(name, &[length])?;
        let mut values = self.store.floats(name, &stored)?;
        values.iter_mut().for_each(|value| *value += plus);
        self.out.push(Planned { name: gguf, content: Content::Vector(values) });
        Ok(())
    }

    fn table(&mut self, name: String, gguf: String, rows: usize, role: Role) -> Result<(), CheckpointError> {
        self.float(&name)?;
        let stored = self.take(&name, &[rows, self.sizes.hidden])?;
        let float = Float::of(&name, stored.dtype)?;
        let source = Source::new(name, stored, (rows, self.sizes.hidden), Values::Float(float));
        self.out.push(Planned { name: gguf, content: Content::Matrix(source, role) });
        Ok(())
    }

    /// A matrix of a block, and the norm in front of it.
    fn linear(
        &mut self,
        name: String,
        gguf: String,
        (rows, cols): (usize, usize),
        heads: Option<usize>,
        transposed: bool,
    ) -> Result<(), CheckpointError> {
        let module = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
        let exempt = self.quantization.is_some_and(|q| q.exempts(&module));
        if let (Some(_), false) = (self.quantization.and_then(|q| q.norm_before), exempt) {
            let ours = format!("{}_norm_in.weight", gguf.strip_suffix(".weight").unwrap_or(&gguf));
            self.vector(&format!("{module}.rms_norm.weight"), ours, cols, 0.0)?;
        }
        let packed = self.store.get(&name).is_some_and(|stored| stored.dtype == safetensors::Dtype::U8);
        let (mut source, role) = if packed {
            (self.packed(&name, &module, rows, cols)?, Role::Linear)
        } else {
            self.float(&name)?;
            let shape = if transposed { [cols, rows] } else { [rows, cols] };
            let stored = self.take(&name, &shape)?;
            let float = Float::of(&name, stored.dtype)?;
            let (values, role) = match self.quantization {
                _ if transposed => (Values::Transposed(float), Role::Linear),
                Some(_) if exempt => (Values::Float(float), Role::Kept),
                Some(q) if q.online => (Values::Master { float, exact: false }, Role::Linear),
                Some(_) => {
                    let why =
                        format!("is {}, where `quantization_config` says that weights are packed (U8)", stored.dtype);
                    return Err(tensor(&name, why));
                }
                None if self.form.bitnet => (Values::Master { float, exact: true }, Role::Linear),
                None => (Values::Float(float), Role::Linear),
            };
            (Source::new(name, stored, (rows, cols), values), role)
        };
        source.permuted = heads;
        self.out.push(Planned { name: gguf, content: Content::Matrix(source, role) });
        Ok(())
    }

    fn packed(&mut self, name: &str, module: &str, rows: usize, cols: usize) -> Result<Source, CheckpointError> {
        let Some(quantization) = self.quantization else {
            let why = "is packed (U8), and config.json has no `quantization_config` that says what its scale means";
            return Err(tensor(name, why));
        };
        if !rows.is_multiple_of(4) {
            return Err(tensor(name, format!("is packed (U8), and its {rows} rows are not a multiple of 4")));
        }
        let stored = self.take(name, &[rows / 4, cols])?;
        let scale_name = format!("{module}.weight_scale");
        let scale = self.store.get(&scale_name).cloned();
        let scale = scale.ok_or_else(|| tensor(name, format!("is packed (U8) and has no `{scale_name}`")))?;
        let values = self.store.floats(&scale_name, &scale)?;
        let &[value] = values.as_slice() else {
            return Err(tensor(&scale_name, format!("has the shape {:?}, expected one value", scale.shape)));
        };
        let factor = quantization.factor(value);
        if !(value.is_finite() && value > 0.0 && factor.is_finite() && factor > 0.0) {
            return Err(tensor(&scale_name, format!("is {value}, which is not a scale")));
        }
        self.taken.insert(scale_name);
        Ok(Source::new(name.to_owned(), stored, (rows, cols), Values::Packed(factor)))
    }

    fn nothing_left(&self, tied: Option<bool>) -> Result<(), CheckpointError> {
        let known = |name: &str| {
            self.taken.contains(name)
                || self.form.buffers.iter().any(|end| name.ends_with(end))
                || tied == Some(true) && name == LM_HEAD
        };
        match self.store.names().find(|name| !known(name)) {
            Some(name) => {
                Err(CheckpointError::UnknownTensor { name: name.to_owned(), architecture: self.form.architecture })
            }
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (architecture, tensors) = (self.form.architecture, self.planned.len());
        f.debug_struct("Checkpoint")
            .field("architecture", &architecture)
            .field("tensors", &tensors)
            .finish_non_exhaustive()
    }
}
