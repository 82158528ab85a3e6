//! `bitnet cache`

use super::{Format, print_json};
use crate::output::{line, say};
use bitnet_engine::hub::Cache;
use bitnet_engine::settings::hub_from_env;
use std::io::Write;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet cache list\n  bitnet cache verify --format json\n  bitnet cache evict --bytes 1000000000\n\nThe cache lies in $BITNET_TOKENIZER_CACHE, else in the system's folder for caches."
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
    /// List the files that `bitnet download` keeps.
    List,
    /// Compare every file with its checksum and remove what is damaged; exit code 1 if anything was.
    Verify,
    /// Remove the least recently used files until the rest fits.
    Evict {
        /// Bytes that may stay [default: $BITNET_TOKENIZER_CACHE_BYTES, else 4G].
        #[arg(long)]
        bytes: Option<u64>,
    },
    /// Remove every file.
    Clear,
    /// Print the folder.
    Path,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let settings = hub_from_env()?;
        let cache = Cache::new(&settings.cache_dir);
        match &self.action {
            Action::List => self.list(&cache),
            Action::Verify => self.verify(&cache),
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

    fn list(&self, cache: &Cache) -> anyhow::Result<ExitCode> {
        let (entries, stats) = (cache.list()?, cache.stats()?);
        if self.format == Format::Json {
            print_json(
                &serde_json::json!({ "path": cache.root().display().to_string(), "entries": entries, "stats": stats }),
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = std::io::stdout().lock();
        for e in entries {
            writeln!(out, "{}\t{}\t{}\t{} bytes\t{}", line(&e.repo), e.commit, line(&e.path), e.size, e.digest)?;
        }
        say(format_args!(
            "{}: {} files, {} distinct, {} bytes ({} on disk)",
            cache.root().display(),
            stats.entries,
            stats.blobs,
            stats.logical,
            stats.stored
        ));
        Ok(ExitCode::SUCCESS)
    }

    fn verify(&self, cache: &Cache) -> anyhow::Result<ExitCode> {
        let found = cache.verify()?;
        let code = if found.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        if self.format == Format::Json {
            print_json(&found)?;
            return Ok(code);
        }
        let mut out = std::io::stdout().lock();
        for (e, why) in &found.damaged {
            writeln!(out, "damaged, removed\t{}\t{}\t{}\t{}", line(&e.repo), e.commit, line(&e.path), line(why))?;
        }
        writeln!(out, "{} files sound, {} damaged", found.sound.len(), found.damaged.len())?;
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
