//! `bitnet download`

use super::{Format, print_json};
use crate::model::{not_here_offline, tell};
use crate::output::{self, counted, say};
use crate::usage;
use anyhow::Context;
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_engine::hub::checkpoints::{self, convert_command};
use bitnet_engine::hub::choose::{ORDER, all_parts};
use bitnet_engine::hub::glob::is_glob;
use bitnet_engine::hub::models::{self, is_model};
use bitnet_engine::hub::{Event, Fetched, HubError, HubMetrics, HubSettings, MAIN, ModelRef, Observer, Pick, Source};
use bitnet_engine::settings::hub_from_env;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// What a tokenizer is made of, as repositories on the hub name it.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "tokenizer.model"];

fn after_help() -> String {
    format!(
        "Examples:\n  bitnet download HuggingFaceTB/SmolLM2-135M-Instruct\n  bitnet download hf:microsoft/bitnet-b1.58-2B-4T-gguf\n  bitnet download microsoft/bitnet-b1.58-2B-4T-gguf --file ggml-model-i2_s.gguf --to models\n  bitnet download org/name --file '*.safetensors' --file '*.json'\n  bitnet download gpt2 --offline --format json\n\nFiles are verified and kept in the cache (see `bitnet cache`); an interrupted download is resumed by the same command. Models (GGUF, safetensors) and what is fetched with them are kept in HuggingFace's cache, where other tools find them too. Of several models of a repository the one is taken whose name has the first of these quantizations: {}.",
        ORDER.join(", ")
    )
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub struct Args {
    /// The repository, org/name; or a model of one, as --model takes it: hf:ORG/REPO[@REVISION][:FILE or QUANT].
    #[arg(value_name = "REPO|hf:ORG/REPO")]
    repo: String,
    /// Branch, tag or commit [default: main].
    #[arg(long)]
    revision: Option<String>,
    /// A file of the repository or a pattern (*, ?, [a-c]; * matches / too), several times if need be; a part of a split model
    /// stands for all of it [default: what there is of tokenizer.json, tokenizer_config.json and tokenizer.model].
    #[arg(long = "file", visible_alias = "files", value_name = "PATH")]
    files: Vec<String>,
    /// Also put the files into this folder.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Send no packet; take what the caches have [also: $BITNET_OFFLINE, $HF_HUB_OFFLINE].
    #[arg(long)]
    offline: bool,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What is asked for.
struct Job {
    repo: String,
    revision: String,
    /// The model, if one is named.
    model: Option<ModelRef>,
}

#[derive(serde::Serialize)]
struct Report<'a> {
    repo: &'a str,
    revision: &'a str,
    commit: &'a str,
    files: Vec<Line<'a>>,
    metrics: HubMetrics,
}

#[derive(serde::Serialize)]
struct Line<'a> {
    path: &'a str,
    size: u64,
    digest: String,
    source: Source,
    /// Where it can be read: in the folder of --to, else in the cache.
    file: String,
    /// Whether `file` is compressed with zstd, as small files of the cache are.
    compressed: bool,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut settings = hub_from_env()?;
        settings.offline |= self.offline;
        let client = BlockingDownload::new(settings.clone(), Some(observer()))?;
        let Job { repo, revision, model } = &self.job()?;
        let (repo, revision) = (repo.as_str(), revision.as_str());
        let fetched = match model {
            Some(reference) => fetch_model(&client, &settings, reference)?,
            None if self.files.is_empty() => tokenizer(&client, repo, revision)?,
            None => self.named(&client, repo, revision)?,
        };
        let mut files = Vec::with_capacity(fetched.len());
        for f in &fetched {
            let (file, compressed) = match &self.to {
                Some(dir) => (export(f, dir)?, false),
                None => (f.file.clone(), f.compressed),
            };
            let (digest, source) = (f.digest.to_string(), f.source);
            let file = file.display().to_string();
            files.push(Line { path: &f.path, size: f.size, digest, source, file, compressed });
        }
        let commit = fetched.first().map_or("", |f| f.commit.as_str());
        let metrics = client.metrics();
        let summary = format!(
            "{} at {commit}: {}, {} downloaded, {} bytes over the network, {} bytes from caches",
            repo,
            counted(files.len(), "file"),
            metrics.downloads,
            metrics.bytes,
            metrics.avoided_bytes
        );
        if self.format == Format::Json {
            print_json(&Report { repo, revision, commit, files, metrics })?;
        } else {
            let mut out = std::io::stdout().lock();
            for line in &files {
                writeln!(out, "{}\t{} bytes\t{}", output::line(line.path), line.size, line.file)?;
            }
        }
        say(summary);
        Ok(ExitCode::SUCCESS)
    }

    /// What is to be fetched from where. Only a name that cannot be a repository's alone is one of a model.
    fn job(&self) -> anyhow::Result<Job> {
        let named = || self.revision.clone().unwrap_or_else(|| MAIN.to_owned());
        if !self.repo.starts_with("hf:") && !self.repo.contains([':', '@']) {
            return Ok(Job { repo: self.repo.clone(), revision: named(), model: None });
        }
        let mut reference: ModelRef = self.repo.parse()?;
        if let Some(revision) = &self.revision {
            let other = reference.revision != MAIN && reference.revision != *revision;
            if other {
                return usage(format!("{reference} and --revision {revision} name two revisions; give one of them"));
            }
            reference.revision.clone_from(revision);
        }
        if !self.files.is_empty() && reference.pick != Pick::Auto {
            return usage(format!("{reference} names a model and --file names files; give one of them"));
        }
        let model = self.files.is_empty().then(|| reference.clone());
        Ok(Job { repo: reference.repo, revision: reference.revision, model })
    }

    /// The files of --file. Models go where other tools find them, and so does what is fetched with them.
    fn named(&self, client: &BlockingDownload, repo: &str, revision: &str) -> anyhow::Result<Vec<Fetched>> {
        let names: Vec<&str> = self.files.iter().map(String::as_str).collect();
        let mut files: Vec<String> = Vec::new();
        if names.iter().any(|name| is_glob(name)) {
            files = client.select(repo, revision, &names, &[])?.files;
        } else {
            for file in names.into_iter().flat_map(all_parts) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        let paths: Vec<&str> = files.iter().map(String::as_str).collect();
        if paths.iter().any(|path| is_model(path)) {
            return Ok(client.snapshot(repo, revision, &paths)?.files);
        }
        Ok(client.fetch_all(repo, revision, &paths)?)
    }
}

/// A model, with a word on which it is. Where the hub cannot be asked, what the cache has will do.
fn fetch_model(
    client: &BlockingDownload,
    settings: &HubSettings,
    reference: &ModelRef,
) -> anyhow::Result<Vec<Fetched>> {
    let error = match client.plan_model(reference) {
        Ok(plan) => {
            let (found, snapshot) = client.fetch_model(plan)?;
            tell(reference, &found.choice, &found.commit);
            return Ok(snapshot.files);
        }
        Err(HubError::NoModel { remedy, .. }) if reference.pick == Pick::Auto && !remedy.is_empty() => {
            let files = client.complete(client.plan_checkpoint(reference)?)?.files;
            tell_checkpoint(reference);
            return Ok(files);
        }
        Err(error) => error,
    };
    let down = error.is_network() || matches!(error, HubError::Offline { .. });
    let Some(found) = down.then(|| models::cached(settings, reference)).transpose()?.flatten() else {
        if let Some(here) = checkpoints::cached(settings, reference).filter(|_| down) {
            let paths: Vec<&str> = here.files.iter().map(String::as_str).collect();
            let files = client.snapshot(&reference.repo, &here.commit, &paths)?.files;
            tell_checkpoint(reference);
            return Ok(files);
        }
        anyhow::ensure!(!settings.offline, not_here_offline(reference, settings));
        return Err(error.into());
    };
    if error.is_network() {
        say(format_args!("{reference}: {error}; using what the cache has"));
    }
    tell(reference, &found.choice, &found.commit);
    let paths: Vec<&str> = found.choice.files.iter().map(String::as_str).collect();
    Ok(client.snapshot(&reference.repo, &found.commit, &paths)?.files)
}

/// Says what a repository without a GGUF has instead, and what makes one of it.
fn tell_checkpoint(reference: &ModelRef) {
    let made = convert_command(Path::new(&reference.to_string()), false);
    say(format_args!("{reference}: there is no GGUF, this is its checkpoint; a GGUF is made of it by: {made}"));
}

/// What there is of a tokenizer, all of one commit. Asked for one by one and not by the hub's list of files: this way a second run
/// needs no more than the knowledge of what is missing.
fn tokenizer(client: &BlockingDownload, repo: &str, revision: &str) -> anyhow::Result<Vec<Fetched>> {
    let asked = ModelRef { repo: repo.to_owned(), revision: revision.to_owned(), pick: Pick::Auto };
    let (mut revision, mut found, mut missing) = (revision.to_owned(), Vec::new(), None);
    for path in TOKENIZER_FILES {
        match client.fetch(repo, &revision, path) {
            Ok(file) => {
                revision.clone_from(&file.commit);
                found.push(file);
            }
            Err(error @ (HubError::EntryNotFound { .. } | HubError::Offline { .. })) => {
                // Offline, the first that is not here says enough.
                if !matches!(missing, Some(HubError::Offline { .. })) {
                    missing = Some(error);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let names = TOKENIZER_FILES.join(", ");
    match missing {
        Some(error @ HubError::Offline { .. }) if found.is_empty() => Err(error).with_context(|| {
            format!("none of {names} of {repo} is in a cache, and the hub was not asked, because this run is offline")
        }),
        Some(error) if found.is_empty() => Err(error).with_context(|| {
            let list = client.list(repo, &revision).ok();
            let model = list.and_then(|list| checkpoints::command(&asked, &list.files));
            let model = model.map_or_else(String::new, |command| format!(", or fetch its model ({command})"));
            format!("there is none of {names}; name what you want with --file{model}")
        }),
        _ => Ok(found),
    }
}

fn export(fetched: &Fetched, dir: &Path) -> anyhow::Result<PathBuf> {
    // The hub module has made sure that the path stays inside.
    let target = dir.join(&fetched.path);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fetched.export(&target)?;
    Ok(target)
}

/// One bar a file on stderr, if that is a terminal; what a person should know as lines in any case.
pub(crate) fn observer() -> Observer {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let (all, bars) = (MultiProgress::new(), Mutex::new(HashMap::<String, ProgressBar>::new()));
    Arc::new(move |event: &Event| {
        let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
        let say = |text: String| all.suspend(|| output::say(text));
        match event {
            Event::Started { path, resumed, total } => {
                let bar = all.add(ProgressBar::new(*total).with_style(style.clone()).with_message(path.clone()));
                // Rate and remaining time are of this run, not of the bytes that were there.
                bar.set_position(*resumed);
                bar.reset_eta();
                if let Some(old) = bars.insert(path.clone(), bar) {
                    old.finish_and_clear();
                }
            }
            Event::Progress { path, done, .. } => {
                if let Some(bar) = bars.get(path) {
                    bar.set_position(*done);
                }
            }
            Event::Finished { path, .. } => {
                if let Some(bar) = bars.remove(path) {
                    bar.finish_and_clear();
                }
            }
            Event::Retry { path, attempt, why, delay, .. } => {
                say(format!("{path}: attempt {attempt} failed ({why}); the next one in {delay:.1?}"));
            }
            Event::Waiting { path } => say(format!("{path}: another process is fetching it; waiting")),
            Event::Restarted { path, why } => say(format!("{path}: starting over ({why})")),
            Event::Stale { repo, revision, commit, why } => {
                say(format!("{repo}: {why}; using {revision} as it was last seen, {commit}"));
            }
            Event::PassedOver { path, file, why } => {
                say(format!("{path}: {} is damaged ({why}) and is not used; remove it", file.display()));
            }
            Event::Damaged { path, why } => say(format!("{path}: the cached file is damaged ({why}) and is not used")),
            _ => {}
        }
    })
}
