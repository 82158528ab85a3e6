//! `bitnet discover`

use super::{Format, print_json};
use crate::common::{self, ModelArgs, TokenizerArgs};
use crate::output::{line, plain, say};
use bitnet_engine::discovery::{Chain, DiscoverySettings, Resolved, TokenizerDiscovery, TokenizerFallbackChain, Ways};
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::{Diagnostic, SpecialTokens};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet discover model.gguf\n  bitnet discover model.gguf --build --format json\n  bitnet discover bare.gguf --auto-download\n\nLooks only: nothing is fetched without --auto-download, and the tokenizer of the GGUF is examined but not built without --build. Exit code 1 if nothing usable is found."
)]
pub struct Args {
    /// The GGUF, or a model of the hub: hf:ORG/REPO[@REVISION][:FILE or QUANT] [default: $BITNET_GGUF, else the embedded tiny model].
    model: Option<PathBuf>,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// Build the tokenizer that wins, as `bitnet infer` would; --auto-download does that too.
    #[arg(long)]
    build: bool,
    /// Output; `table` is the same as text.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(serde::Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    chain: &'a Chain,
    usable: bool,
    description: Option<String>,
    special: Value,
    chat_template: bool,
    built: Option<Value>,
    diagnostics: &'a [Diagnostic],
    ways_out: Option<&'a Ways>,
    /// Whether it is all of the settings that could have had a say.
    strict: bool,
    offline: bool,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let model = ModelArgs { model: self.model.clone() };
        let name = common::model_name(&model, settings);
        let discovery = model
            .locate(self.tokenizer.allow(), settings)?
            .open()
            .and_then(|file| Ok(TokenizerDiscovery::from_file(&file)?))
            .map_err(|error| common::cannot_use(&name, error))?;
        let allowed = self.tokenizer.settings(settings);
        let (chain, resolved) = self.walk(&discovery, &allowed);
        let usable = chain.winner.is_some();
        let ways = (!usable).then(|| discovery.ways(allowed.is_offline()));
        if self.format == Format::Json {
            print_json(&report(&discovery, &chain, resolved.as_ref(), ways.as_deref(), &allowed))?;
        } else {
            let text = text(&line(&name), &discovery, &chain, resolved.as_ref());
            std::io::stdout().lock().write_all(plain(&text).as_bytes())?;
        }
        if let Some(resolved) = &resolved {
            common::print_diagnostics(&resolved.diagnostics);
        }
        if let Some(ways) = &ways {
            say(format_args!("{name}: no usable tokenizer{ways}"));
        }
        Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn walk(&self, discovery: &TokenizerDiscovery, allowed: &DiscoverySettings) -> (Chain, Option<Resolved>) {
        if !self.build && !self.tokenizer.auto_download {
            return (discovery.chain(allowed), None);
        }
        let walked =
            TokenizerFallbackChain::new(allowed.clone()).with_observer(super::download::observer()).run(discovery);
        (walked.chain, walked.resolved)
    }
}

/// Those of the built tokenizer, else what the metadata declares.
fn special<'a>(discovery: &'a TokenizerDiscovery, resolved: Option<&'a Resolved>) -> &'a SpecialTokens {
    resolved.map_or_else(|| discovery.special(), |r| r.tokenizer.special())
}

fn report<'a>(
    discovery: &'a TokenizerDiscovery,
    chain: &'a Chain,
    resolved: Option<&'a Resolved>,
    ways: Option<&'a Ways>,
    allowed: &DiscoverySettings,
) -> Report<'a> {
    let s = special(discovery, resolved);
    Report {
        chain,
        usable: chain.winner.is_some(),
        description: chain.strategy.as_ref().map(|strategy| strategy.description()),
        special: json!({
            "bos": s.bos, "eos": s.eos, "eot": s.eot, "unk": s.unk, "pad": s.pad, "add_bos": s.add_bos, "add_eos": s.add_eos,
        }),
        chat_template: discovery.chat_template().is_some(),
        built: resolved
            .map(|r| &r.tokenizer)
            .map(|t| json!({ "kind": t.kind(), "pre": t.pre(), "vocab_size": t.vocab_size() })),
        diagnostics: resolved.map_or(&[], |r| &r.diagnostics),
        ways_out: ways,
        strict: allowed.strict,
        offline: allowed.is_offline(),
    }
}

fn text(name: &str, discovery: &TokenizerDiscovery, chain: &Chain, resolved: Option<&Resolved>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{name}: {} tokens, architecture {}, tokenizer.ggml.model {}",
        chain.vocab_size,
        if chain.architecture.is_empty() { "unnamed".into() } else { line(&chain.architecture) },
        line(chain.model_type.as_deref().unwrap_or("absent"))
    );
    match &chain.family {
        Some(f) => {
            let others =
                if f.others.is_empty() { String::new() } else { format!(", may be {} as well", f.others.join(" or ")) };
            let _ = writeln!(out, "family {} ({}), by {}{others}", f.family, f.label, f.evidence);
        }
        None => {
            let _ = writeln!(out, "family unknown");
        }
    }
    let s = special(discovery, resolved);
    let id = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let _ = writeln!(
        out,
        "special ids{}: bos {}{}, eos {}{}, eot {}, unk {}, pad {}; chat template: {}",
        if resolved.is_some() { "" } else { " declared" },
        id(s.bos),
        if s.add_bos { " (added)" } else { "" },
        id(s.eos),
        if s.add_eos { " (added)" } else { "" },
        id(s.eot),
        id(s.unk),
        id(s.pad),
        if discovery.chat_template().is_some() { "yes" } else { "no" }
    );
    for disagreement in &chain.disagreements {
        let _ = writeln!(out, "disagreement: {disagreement}");
    }
    let _ = writeln!(out, "\n{chain}");
    match (&chain.winner, &chain.strategy) {
        (Some(winner), Some(strategy)) => {
            let why = chain.step(*winner).map_or("", |step| step.why.as_str());
            let _ = writeln!(out, "{winner} wins: {} [{why}]", strategy.description());
        }
        _ => {
            let _ = writeln!(out, "nothing usable");
        }
    }
    let _ = writeln!(out, "{:.3} ms", chain.micros as f64 / 1e3);
    out
}
