//! `bitnet cache`

use super::{Format, print_json};
use crate::output::{line, say};
use bitnet_engine::hub::models::{ModelEntry, list_models};
use bitnet_engine::hub::{Cache, Verification};
use bitnet_engine::settings::hub_from_env;
use std::io::Write;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet cache list\n  bitnet cache verify --format json\n  bitnet cache evict --bytes 1000000000\n\nThe cache lies in $BITNET_TOKENIZER_CACHE, else in the system's folder for caches. Models lie in HuggingFace's cache ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub), which other tools share: they are listed and, if that is asked for, verified, but never removed."
)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the files that `bitnet download` keeps, and the models in HuggingFace's cache.
    List,
    /// Compare every file with its checksum and remove what is damaged; exit code 1 if anything was.
    Verify {
        /// Compare the models in HuggingFace's cache too, which takes its time; what is damaged there is named and not removed.
        #[arg(long)]
        models: bool,
    },
    /// Remove the least recently used files until the rest fits.
    Evict {
        /// Bytes that may stay [default: $BITNET_TOKENIZER_CACHE_BYTES, else 4G].
        #[arg(long)]
        bytes: Option<u64>,
    },
    /// Remove every file, but no model.
    Clear,
    /// Print the folder.
    Path,
}

#[derive(serde::Serialize)]
struct Verified {
    #[serde(flatten)]
    cache: Verification,
    /// Files in HuggingFace's cache, and what is wrong with them.
    damaged_models: Vec<(ModelEntry, String)>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let settings = hub_from_env()?;
        let cache = Cache::new(&settings.cache_dir);
        match &self.action {
            Action::List => self.list(&cache, &list_models(&settings.hf_caches)),
            Action::Verify { models } => {
                self.verify(&cache, if *models { list_models(&settings.hf_caches) } else { Vec::new() })
            }
            Action::Evict { bytes } => {
                let eviction = cache.evict(bytes.unwrap_or(settings.cache_budget), &[])?;
                let text = format!(
                    "{} files removed, {} bytes freed, {} bytes left",
                    eviction.removed.len(),
                    eviction.freed,
                    eviction.left
                );
                self.print(&eviction, &text)
            }
            Action::Clear => {
                let freed = cache.clear()?;
                self.print(&serde_json::json!({ "freed": freed }), &format!("{freed} bytes freed"))
            }
            Action::Path => {
                let path = cache.root().display().to_string();
                self.print(&serde_json::json!({ "path": path }), &path)
            }
        }
    }

    fn list(&self, cache: &Cache, models: &[ModelEntry]) -> anyhow::Result<ExitCode> {
        let (entries, stats) = (cache.list()?, cache.stats()?);
        if self.format == Format::Json {
            let path = cache.root().display().to_string();
            print_json(&serde_json::json!({ "path": path, "entries": entries, "stats": stats, "models": models }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = std::io::stdout().lock();
        for e in entries {
            writeln!(out, "{}\t{}\t{}\t{} bytes\t{}", line(&e.repo), e.commit, line(&e.path), e.size, e.digest)?;
        }
        for m in models {
            let digest = m.digest.as_ref().map_or_else(|| "no checksum".to_owned(), ToString::to_string);
            writeln!(out, "{}\t{}\t{}\t{} bytes\t{digest}", line(&m.repo), m.commit, line(&m.path), m.size)?;
        }
        say(format_args!(
            "{}: {} files, {} distinct, {} bytes ({} on disk)",
            cache.root().display(),
            stats.entries,
            stats.blobs,
            stats.logical,
            stats.stored
        ));
        if !models.is_empty() {
            let bytes: u64 = models.iter().map(|m| m.size).sum();
            say(format_args!("HuggingFace's cache: {} files of models, {bytes} bytes", models.len()));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn verify(&self, cache: &Cache, models: Vec<ModelEntry>) -> anyhow::Result<ExitCode> {
        let found = cache.verify()?;
        let total = models.len();
        let mut damaged = Vec::new();
        for model in models {
            if let Some(why) = model.verify()? {
                damaged.push((model, why));
            }
        }
        let code = if found.damaged.is_empty() && damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        if self.format == Format::Json {
            print_json(&Verified { cache: found, damaged_models: damaged })?;
            return Ok(code);
        }
        let mut out = std::io::stdout().lock();
        for (e, why) in &found.damaged {
            writeln!(out, "damaged, removed\t{}\t{}\t{}\t{}", line(&e.repo), e.commit, line(&e.path), line(why))?;
        }
        for (m, why) in &damaged {
            writeln!(out, "damaged\t{}\t{}\t{}\t{}", line(&m.repo), m.commit, line(&m.path), line(why))?;
        }
        writeln!(out, "{} files sound, {} damaged", found.sound.len(), found.damaged.len())?;
        if total > 0 {
            writeln!(out, "{} files of models sound, {} damaged", total - damaged.len(), damaged.len())?;
        }
        drop(out);
        for (m, _) in &damaged {
            say(format_args!("{} is damaged; fetch it again: {}", m.file.display(), m.command()));
        }
        Ok(code)
    }

    fn print(&self, value: &impl serde::Serialize, text: &str) -> anyhow::Result<ExitCode> {
        if self.format == Format::Json {
            print_json(value)?;
        } else {
            writeln!(std::io::stdout().lock(), "{text}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
