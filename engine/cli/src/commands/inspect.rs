//! `bitnet inspect`

use super::{Format, print_json};
use crate::common;
use crate::model::FetchArgs;
use crate::output::{line, plain};
use bitnet_engine::device;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::LAYOUT_KEY;
use bitnet_engine::model::Model;
use bitnet_engine::ops::{Linear, Op};
use bitnet_engine::tokenizer::{from_gguf, name_model};
use bitnet_kernels::quant::I2sLayout;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use bitnet_engine::settings::{Settings, compiled_from_env};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bitnet inspect model.gguf\n  bitnet inspect model.gguf --tensors --format json")]
pub struct Args {
    /// The GGUF, of a split model any part, or a model of the hub: hf:ORG/REPO[@REVISION][:FILE or QUANT] [default: $BITNET_GGUF,
    /// else the embedded tiny model].
    model: Option<PathBuf>,
    #[command(flatten)]
    fetch: FetchArgs,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(serde::Serialize)]
struct Report {
    file: String,
    bytes: u64,
    sha256: String,
    gguf_version: u32,
    /// The files of a split model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<PartReport>,
    metadata: BTreeMap<String, String>,
    tensor_types: BTreeMap<String, TypeCount>,
    /// Why types whose number has several meanings are these: one tensor of each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    type_notes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
    tokenizer: Part<TokenizerReport>,
    run: Part<RunReport>,
}

#[derive(serde::Serialize, Default)]
struct TypeCount {
    tensors: usize,
    bytes: u64,
}

#[derive(serde::Serialize)]
struct PartReport {
    file: String,
    bytes: u64,
    tensors: usize,
}

#[derive(serde::Serialize)]
struct Tensor {
    name: String,
    /// Number of the part that holds it, from 1, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<usize>,
    r#type: String,
    dims: Vec<u64>,
    offset: u64,
    bytes: u64,
}

/// A part of the report that the file may be too broken for.
#[derive(serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Part<T> {
    Ok(T),
    Error(String),
}

#[derive(serde::Serialize)]
struct TokenizerReport {
    kind: String,
    pre: Option<String>,
    tokens: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    diagnostics: Vec<String>,
}

#[derive(serde::Serialize)]
struct RunReport {
    family: String,
    device: String,
    i2s_layout: Option<String>,
    /// How activations are rounded for ternary matrices, and why.
    activations: Option<String>,
    config: String,
    steps: usize,
    matrices: BTreeMap<String, usize>,
    multiplications_per_token: u64,
    kv_cache_bytes_per_token: usize,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let model = common::ModelArgs { model: self.model.clone() };
        let file = model.locate(self.fetch.allow(), settings)?.open()?;
        let report = self.report(&file, common::model_name(&model, settings), settings);
        if self.format == Format::Json {
            print_json(&report)?;
        } else {
            write!(std::io::stdout().lock(), "{}", plain(&text(&report)))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, file: &GgufFile, name: String, settings: &Settings) -> Report {
        let mut tensor_types: BTreeMap<String, TypeCount> = BTreeMap::new();
        let mut type_notes = BTreeMap::new();
        for tensor in file.tensors() {
            let name = file.type_name(tensor);
            if !type_notes.contains_key(name)
                && let Some(note) = file.type_note(tensor)
            {
                type_notes.insert(name.to_owned(), format!("{}: {note}", tensor.name));
            }
            let count = tensor_types.entry(name.to_owned()).or_default();
            count.tensors += 1;
            count.bytes += tensor.size;
        }
        let part = |part: bitnet_engine::gguf::Part<'_>| PartReport {
            file: part.path.map_or_else(String::new, |path| path.display().to_string()),
            bytes: part.len,
            tensors: part.tensors.len(),
        };
        let several = file.parts().len() > 1;
        let tensors = if self.tensors {
            let tensor = |t: &bitnet_engine::gguf::TensorInfo| Tensor {
                name: t.name.clone(),
                part: several.then_some(t.part + 1),
                r#type: file.type_name(t).to_owned(),
                dims: t.dims.clone(),
                offset: t.offset,
                bytes: t.size,
            };
            file.tensors().iter().map(tensor).collect()
        } else {
            Vec::new()
        };
        Report {
            file: name,
            bytes: file.file_len(),
            sha256: file.content_hash().to_owned(),
            gguf_version: file.version(),
            parts: if several { file.parts().map(part).collect() } else { Vec::new() },
            metadata: file.metadata().iter().map(|(key, value)| (key.to_owned(), value.describe())).collect(),
            tensor_types,
            type_notes,
            tensors,
            tokenizer: tokenizer(file, settings).map_or_else(Part::Error, Part::Ok),
            run: run(file).map_or_else(Part::Error, Part::Ok),
        }
    }
}

fn tokenizer(file: &GgufFile, settings: &Settings) -> Result<TokenizerReport, String> {
    let named = |text: String| match file.path() {
        Some(path) => name_model(&text, path),
        None => text,
    };
    let loaded = match compiled_from_env(settings) {
        Some(cache) => cache.gguf(file),
        None => from_gguf(file.metadata()),
    };
    let loaded = loaded.map_err(|e| named(e.to_string()))?;
    let (tokenizer, special) = (&loaded.tokenizer, loaded.tokenizer.special());
    Ok(TokenizerReport {
        kind: tokenizer.kind().to_owned(),
        pre: tokenizer.pre().map(str::to_owned),
        tokens: tokenizer.vocab_size(),
        bos: special.bos,
        eos: special.eos,
        add_bos: special.add_bos,
        diagnostics: loaded.diagnostics.iter().map(|d| named(d.to_string())).collect(),
    })
}

fn run(file: &GgufFile) -> Result<RunReport, String> {
    let recorded = file.metadata().str(LAYOUT_KEY).map_err(|e| e.to_string())?;
    let layout = recorded.and_then(I2sLayout::from_name);
    let model = Model::open(file, layout.unwrap_or_default()).map_err(|e| e.to_string())?;
    let device = device::devices().into_iter().find(|d| d.automatic).map(|d| format!("{} ({})", d.name, d.description));
    let mut matrices: BTreeMap<String, usize> = BTreeMap::new();
    let mut work = 0;
    for step in &model.plan {
        if let Op::Linear(Linear { weight, .. }) = step.op {
            let matrix = model.weights.matrix(weight);
            *matrices.entry(model.weights.storage(weight).name().to_owned()).or_default() += 1;
            work += (matrix.rows * matrix.cols) as u64;
        }
    }
    let c = &model.config;
    let i2s_layout = model.has_i2s().then(|| match layout {
        Some(layout) => format!("{} (recorded in the file)", layout.name()),
        None => "x86 unless a probe at load says otherwise".to_owned(),
    });
    Ok(RunReport {
        family: model.family.name.to_owned(),
        device: device.unwrap_or_default(),
        i2s_layout,
        activations: model
            .weights
            .storages()
            .any(|(_, storage)| storage.is_ternary())
            .then(|| format!("{}: {}", model.rounding.name(), model.rounding.why)),
        config: format!(
            "{} blocks, width {}, feed-forward {}, {} heads / {} kv of {}, vocabulary {}, context {}, {}",
            c.block_count,
            c.embedding_length,
            c.feed_forward_length,
            c.heads,
            c.kv_heads,
            c.head_dim,
            c.vocab_size,
            c.context_length,
            positions(&model)
        ),
        steps: model.plan.len(),
        matrices,
        multiplications_per_token: work,
        kv_cache_bytes_per_token: 4 * c.kv_width() * c.block_count,
    })
}

/// How a model knows where a token stands.
fn positions(model: &Model) -> String {
    let rotations: Vec<String> = model
        .ropes
        .iter()
        .map(|rope| {
            let scaled = rope.factors.is_some() || rope.beyond.is_some() || rope.magnitude != 1.0;
            format!("rope {} dims at {}{}", rope.dims, rope.theta, if scaled { ", scaled" } else { "" })
        })
        .collect();
    match model.positions {
        Some(positions) => format!("{positions} learnt positions"),
        None => rotations.join(" and "),
    }
}

fn text(report: &Report) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: GGUF v{}, {} bytes, sha256 {}",
        line(&report.file),
        report.gguf_version,
        report.bytes,
        report.sha256
    );
    if !report.parts.is_empty() {
        let _ = writeln!(out, "\nparts (the digest is of all, one after the other)");
        for p in &report.parts {
            let _ = writeln!(out, "  {} {:>5} tensors {:>14} bytes", line(&p.file), p.tensors, p.bytes);
        }
    }
    let _ = writeln!(out, "\nmetadata");
    for (key, value) in &report.metadata {
        let _ = writeln!(out, "  {} = {}", line(key), line(value));
    }
    let _ = writeln!(out, "\ntensors");
    for (name, count) in &report.tensor_types {
        let _ = writeln!(out, "  {name:<8} {:>5} tensors {:>14} bytes", count.tensors, count.bytes);
    }
    for note in report.type_notes.values() {
        let _ = writeln!(out, "  {}", line(note));
    }
    for t in &report.tensors {
        let part = t.part.map_or_else(String::new, |part| format!(" of part {part}"));
        let name = line(&t.name);
        let _ = writeln!(out, "  {name:<36} {:<8} {:?} at {}{part}, {} bytes", t.r#type, t.dims, t.offset, t.bytes);
    }
    let _ = writeln!(out, "\ntokenizer");
    match &report.tokenizer {
        Part::Ok(t) => {
            let pre = t.pre.as_deref().unwrap_or("none");
            let _ = writeln!(out, "  {}, pre-tokenizer {pre}, {} tokens", t.kind, t.tokens);
            let id = |id: Option<u32>| id.map_or("none".to_owned(), |id| id.to_string());
            let added = if t.add_bos { " (added)" } else { "" };
            let _ = writeln!(out, "  bos {}{added}, eos {}", id(t.bos), id(t.eos));
            for diagnostic in &t.diagnostics {
                let _ = writeln!(out, "  {}", line(diagnostic));
            }
        }
        Part::Error(error) => {
            let _ = writeln!(out, "  unusable: {}", line(error));
        }
    }
    let _ = writeln!(out, "\nwhat would run");
    match &report.run {
        Part::Ok(r) => {
            let _ = writeln!(out, "  {}: {}", r.family, r.config);
            let _ = writeln!(out, "  {} steps on {}", r.steps, r.device);
            let kinds: Vec<String> = r.matrices.iter().map(|(format, n)| format!("{n} x {format}")).collect();
            let _ = writeln!(
                out,
                "  matrices: {}; {:.1} M multiplications a token, {} bytes of KV cache a token",
                kinds.join(", "),
                r.multiplications_per_token as f64 / 1e6,
                r.kv_cache_bytes_per_token
            );
            if let Some(activations) = &r.activations {
                let _ = writeln!(out, "  activations {activations}");
            }
            if let Some(layout) = &r.i2s_layout {
                let _ = writeln!(out, "  I2_S layout: {layout}");
            }
        }
        Part::Error(error) => {
            let _ = writeln!(out, "  nothing: {}", line(error));
        }
    }
    out
}
