//! What several commands share: choosing and loading a model, threads, devices, texts.

use crate::commands::download::observer;
use crate::embedded;
pub(crate) use crate::model::{Allow, ModelArgs};
use crate::output::say;
use anyhow::Context;
use bitnet_engine::device;
use bitnet_engine::discovery::{DiscoverySettings, Resolved, TokenizerDiscovery, TokenizerFallbackChain};
use bitnet_engine::gguf::{GgufFile, same_file};
use bitnet_engine::inference::{Head, Session, SessionOptions, self_check, self_check_card};
use bitnet_engine::load::{LoadOptions, Loaded, Settled, TokenizerSource, agreed_layout, load_with};
use bitnet_engine::model::HugePages;
use bitnet_engine::settings::{Settings, discovery_from_env, layouts_from_env};
use bitnet_engine::tokenizer::{Diagnostic, Severity};
use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::quant::I2sLayout;
use bitnet_kernels::{Kernels, Pool};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The device that is chosen for the model.
pub(crate) const AUTO: &str = "auto";

/// Refuses an output that is the model, or a part of it, by whatever name.
pub(crate) fn not_the_input(file: &GgufFile, output: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !file.parts().filter_map(|part| part.path).any(|part| same_file(part, output)),
        "{} is the input itself, which is never overwritten; name another file with -o",
        output.display()
    );
    Ok(())
}

/// Where the tokenizer may come from. Without any of these: the model itself, files beside it, the caches.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TokenizerArgs {
    /// Use this tokenizer: tokenizer.json, tokenizer.model, vocab.json (with merges.txt beside it), a folder with them, or another GGUF.
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Fetch from the HuggingFace hub what is not here: a model that is named by its repository, and the tokenizer if the model has
    /// none and none is found here.
    #[arg(long)]
    pub auto_download: bool,
    /// Take no guess, no mock and no replacement for a broken tokenizer [also: $BITNET_STRICT_TOKENIZERS].
    #[arg(long)]
    pub strict: bool,
    /// Send no packet; caches are still read [also: $BITNET_OFFLINE, $HF_HUB_OFFLINE].
    #[arg(long)]
    pub offline: bool,
    /// If there is no tokenizer, take bytes for ids. The text will be nonsense: only to try the plumbing.
    #[arg(long, hide = true)]
    pub allow_mock_tokenizer: bool,
}

impl TokenizerArgs {
    /// The environment's settings and these on top.
    pub(crate) fn settings(&self, settings: &Settings) -> DiscoverySettings {
        let mut out = discovery_from_env(settings);
        out.offline |= self.offline;
        if let Some(hub) = &mut out.hub {
            hub.offline |= self.offline;
        }
        out.strict |= self.strict;
        out.auto_download = self.auto_download;
        out.allow_mock = self.allow_mock_tokenizer;
        out.exact.clone_from(&self.tokenizer);
        out
    }

    /// What may be done to get the model.
    pub(crate) fn allow(&self) -> Allow {
        Allow { auto_download: self.auto_download, offline: self.offline }
    }

    /// The chain of a command.
    pub(crate) fn chain(&self, settings: &Settings) -> TokenizerFallbackChain {
        TokenizerFallbackChain::new(self.settings(settings)).with_observer(observer())
    }
}

/// The tokenizer of a model whose weights are not needed.
pub(crate) fn tokenizer(model: &ModelArgs, args: &TokenizerArgs, settings: &Settings) -> anyhow::Result<Resolved> {
    let place = model.locate(args.allow(), settings)?;
    let resolve = || -> anyhow::Result<Resolved> {
        let discovery = TokenizerDiscovery::from_file(&place.open()?)?;
        Ok(args.chain(settings).resolve(&discovery)?)
    };
    let resolved = resolve().map_err(|error| cannot_use(&model_name(model, settings), error))?;
    print_diagnostics(&resolved.diagnostics);
    Ok(resolved)
}

/// The name of a device that is known, here or elsewhere.
pub(crate) fn device_name(name: &str) -> Result<String, device::DeviceError> {
    device::check_name(name).map(|()| name.to_owned())
}

/// Where and how to compute.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ComputeArgs {
    /// auto, cpu, cuda, cuda:N, or one that `bitnet devices` lists [default: $BITNET_DEVICE, else auto].
    #[arg(long, value_parser = device_name)]
    pub device: Option<String>,
    /// Threads [default: $BITNET_THREADS, else one per processor].
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Tokens that the context holds [default: what the model was trained for].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// Prompt tokens computed together; changes the speed, never the result.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub chunk: u32,
    /// How I2_S tensors are laid out, which the format does not record.
    #[arg(long, default_value = "auto", value_parser = ["auto", "x86", "arm", "rows4"])]
    pub i2s_layout: String,
    /// The weights of the layers in huge pages: on copies them while loading, auto in the course of a long run of a large model, if
    /// memory suffices; the results are the same.
    #[arg(long, default_value = "auto", value_name = "auto|on|off")]
    pub huge_pages: HugePages,
}

/// Devices and threads of a command.
#[derive(Clone)]
pub(crate) struct Compute {
    pub(crate) kernels: &'static dyn Kernels,
    pub(crate) pool: Arc<Pool>,
    /// What `auto` comes to depends on the model, so it is found when that is there.
    pub(crate) card: OnceLock<Option<Arc<dyn Device>>>,
    pub(crate) settings: Settings,
}

impl Compute {
    /// The device that a model runs on, by its name in reports.
    pub(crate) fn device(&self) -> String {
        let card = self.card.get().and_then(Option::as_ref);
        card.map_or_else(|| format!("cpu-{}", self.kernels.name()), |card| card.name().to_owned())
    }

    fn card(&self, loaded: &Loaded) -> anyhow::Result<Option<Arc<dyn Device>>> {
        if let Some(card) = self.card.get() {
            return Ok(card.clone());
        }
        let weights = loaded.model.weights.matrices().map(|(_, m)| m.data.len() as u64).sum();
        let opened = device::open_for(AUTO, weights, &self.settings)?;
        Ok(self.card.get_or_init(|| opened.card).clone())
    }
}

/// How many threads compute.
pub(crate) fn threads(asked: Option<u16>, settings: &Settings) -> usize {
    let default = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.map(usize::from).or(settings.threads).unwrap_or_else(default)
}

impl ComputeArgs {
    pub(crate) fn start(&self, settings: &Settings) -> anyhow::Result<Compute> {
        let name = self.device.as_deref().or(settings.device.as_deref()).unwrap_or(AUTO);
        let opened = device::open(name, settings)?;
        let kernels = opened.kernels;
        if settings.deterministic {
            self_check(kernels)?;
        }
        let card = if name == AUTO { OnceLock::new() } else { OnceLock::from(opened.card) };
        let threads = threads(self.threads, settings);
        let pool = Pool::new(threads).with_context(|| format!("cannot start {threads} threads"))?;
        Ok(Compute { kernels, pool: Arc::new(pool), card, settings: settings.clone() })
    }

    pub(crate) fn layout(&self) -> Option<I2sLayout> {
        I2sLayout::from_name(&self.i2s_layout)
    }

    pub(crate) fn session(&self, loaded: &Loaded, compute: &Compute, head: Head) -> anyhow::Result<Session> {
        let options = SessionOptions {
            context: self.context.map(|n| n as usize),
            chunk: self.chunk as usize,
            head,
            card: compute.card(loaded)?,
            ..SessionOptions::new(compute.kernels, Arc::clone(&compute.pool))
        };
        if compute.settings.deterministic {
            self_check_card(&loaded.model, &options)?;
        }
        Ok(Session::new(Arc::clone(&loaded.model), options)?)
    }
}

/// A model, and where and how it is run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

impl RunArgs {
    /// What to call the model in messages.
    pub(crate) fn name(&self, settings: &Settings) -> String {
        model_name(&self.model, settings)
    }

    /// Loads the model with a spinner on a terminal, and says what the user should know about it.
    pub(crate) fn load(&self, compute: &Compute, settings: &Settings) -> anyhow::Result<Loaded> {
        self.load_for(compute, settings, false).map(|(loaded, _)| loaded)
    }

    /// [`RunArgs::load`] and the time that it took; with `by_prompt` the caller will ask [`settle`] before the first token.
    pub(crate) fn load_for(
        &self,
        compute: &Compute,
        settings: &Settings,
        by_prompt: bool,
    ) -> anyhow::Result<(Loaded, Duration)> {
        let place = self.model.locate(self.tokenizer.allow(), settings)?;
        let (started, layouts) = (Instant::now(), layouts_from_env());
        let chain = self.tokenizer.chain(settings);
        let spinner = ProgressBar::new_spinner().with_message("loading the model");
        spinner.enable_steady_tick(Duration::from_millis(100));
        let loaded = place
            .open()
            .and_then(|file| {
                let options = LoadOptions {
                    layout: agreed_layout(&file, self.compute.layout())?,
                    tokenizer: TokenizerSource::Discover(&chain),
                    huge_pages: self.compute.huge_pages,
                    layouts: layouts.as_deref(),
                    by_prompt,
                };
                Ok(load_with(file, options, compute.kernels, &compute.pool)?)
            })
            .map_err(|error| cannot_use(&self.name(settings), error));
        spinner.finish_and_clear();
        let loaded = loaded?;
        print_diagnostics(&loaded.diagnostics);
        Ok((loaded, started.elapsed()))
    }
}

/// A flag that Ctrl-C raises from now on.
pub(crate) fn on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    Ok(cancel)
}

/// Moves a bar, and ends the work at Ctrl-C, which must leave no half-written file behind.
pub(crate) fn step(bar: &ProgressBar) -> anyhow::Result<impl FnMut(usize, usize) -> ControlFlow<()>> {
    let cancel = on_interrupt()?;
    Ok(move |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

/// Settles what only a prompt tells of the model, and says it.
pub(crate) fn settle(loaded: &mut Loaded, session: Session, prompt: &[u32]) -> anyhow::Result<Settled> {
    let said = loaded.diagnostics.len();
    let settled = loaded.settle(session, prompt)?;
    print_diagnostics(&loaded.diagnostics[said..]);
    Ok(settled)
}

/// The error with the name of the model, which errors of its file begin with anyway.
pub(crate) fn cannot_use(name: &str, error: anyhow::Error) -> anyhow::Error {
    let named = error.to_string().strip_prefix(name).is_some_and(|rest| rest.starts_with(": "));
    let other = if name == embedded::NAME { ", the model that is used where -m names none" } else { "" };
    if named { error } else { error.context(format!("cannot use {name}{other}")) }
}

/// What to call the model in messages.
pub(crate) fn model_name(model: &ModelArgs, settings: &Settings) -> String {
    match model.model.as_ref().or(settings.gguf.as_ref()) {
        Some(path) => path.display().to_string(),
        None => embedded::NAME.to_owned(),
    }
}

/// Warnings always, the rest with `--verbose`.
pub(crate) fn print_diagnostics(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        match diagnostic.severity {
            Severity::Warning => say(diagnostic),
            Severity::Info => tracing::info!("{diagnostic}"),
        }
    }
}

/// A bar on stderr, invisible when that is not a terminal.
pub(crate) fn progress(total: u64, unit: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{msg}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{eta}} left"));
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A text.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TextArgs {
    /// The text.
    #[arg(long, conflicts_with = "text_file")]
    text: Option<String>,
    /// A file with the text; `-` is stdin, which is also read if neither is given.
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
}

impl TextArgs {
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        text(self.text.as_deref(), self.text_file.as_deref(), "text")
    }
}

/// A text from an argument, a file (`-` is stdin), or stdin if it is not a terminal.
pub(crate) fn text(argument: Option<&str>, file: Option<&Path>, what: &str) -> anyhow::Result<String> {
    let stdin = || -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
        String::from_utf8(bytes).context("stdin is not UTF-8")
    };
    match (argument, file) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(path)) if path == Path::new("-") => stdin(),
        (None, Some(path)) => {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
        }
        (None, None) if !std::io::stdin().is_terminal() => stdin(),
        (None, None) => anyhow::bail!("no {what}: give one as an argument, in a file, or on stdin (see --help)"),
    }
}
