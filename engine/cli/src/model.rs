//! Which model a command works on, and getting it: a path, or a model of the HuggingFace hub by its name.

use crate::commands::download::observer;
use crate::embedded;
use crate::output::{line, murmur, say};
use anyhow::{Context, bail};
use bitnet_engine::gguf::{GgufError, GgufFile};
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_engine::hub::checkpoints::{self, convert_command, is_checkpoint};
use bitnet_engine::hub::choose::Choice;
use bitnet_engine::hub::models::{self, ModelFiles, ModelPlan};
use bitnet_engine::hub::{HubSettings, ModelRef, Pick};
use bitnet_engine::settings::{Settings, hub_from_env};
use indicatif::HumanBytes;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

/// Which model.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// A GGUF file, or a model of the HuggingFace hub: hf:ORG/REPO[@REVISION][:FILE or QUANT], or ORG/REPO where there is no such
    /// path [default: $BITNET_GGUF, else the embedded tiny model].
    #[arg(short, long, value_name = "FILE|hf:ORG/REPO")]
    pub model: Option<PathBuf>,
}

/// A model that is here.
#[derive(Debug)]
pub(crate) enum Place {
    /// A file.
    File(PathBuf),
    /// The one in the program.
    Embedded,
}

impl Place {
    pub(crate) fn open(&self) -> anyhow::Result<GgufFile> {
        Ok(match self {
            Self::File(path) => GgufFile::open(path)?,
            Self::Embedded => GgufFile::from_static(embedded::model())?,
        })
    }
}

impl ModelArgs {
    /// Where the model lies, once it has been fetched if it must be. To be asked before a spinner covers the terminal.
    pub(crate) fn locate(&self, allow: Allow, settings: &Settings) -> anyhow::Result<Place> {
        match self.model.as_ref().or(settings.gguf.as_ref()) {
            Some(path) => locate(path, allow).map(Place::File),
            None => Ok(Place::Embedded),
        }
    }
}

/// What a command may do to get a model that is not here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allow {
    /// Fetch it without a question.
    pub(crate) auto_download: bool,
    /// Send no packet.
    pub(crate) offline: bool,
}

/// The same as arguments, for commands that need no tokenizer.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct FetchArgs {
    /// Fetch a model that is named by its repository if it is not here.
    #[arg(long)]
    pub auto_download: bool,
    /// Send no packet; caches are still read [also: $BITNET_OFFLINE, $HF_HUB_OFFLINE].
    #[arg(long)]
    pub offline: bool,
}

impl FetchArgs {
    pub(crate) fn allow(self) -> Allow {
        Allow { auto_download: self.auto_download, offline: self.offline }
    }
}

/// The file of a model: the path itself, or where the cache has what a reference means. If it has nothing, it is fetched where
/// `allow` or a person at the terminal says so.
///
/// # Errors
/// Whatever keeps the model from being here, with the command that gets it.
pub(crate) fn locate(model: &Path, allow: Allow) -> anyhow::Result<PathBuf> {
    let Some(reference) = ModelRef::of(model) else {
        return match instead(model) {
            Some(why) => bail!(why),
            None => Ok(model.to_owned()),
        };
    };
    let reference = reference?;
    let mut hub = hub_from_env()?;
    hub.offline |= allow.offline;
    if let Some(found) = models::cached(&hub, &reference)? {
        tell(&reference, &found.choice, &found.commit);
        return whole(&reference, found, hub, allow);
    }
    if (hub.offline || !allow.auto_download) && checkpoints::cached(&hub, &reference).is_some() {
        let made = convert_command(Path::new(&reference.to_string()), false);
        bail!("the cache has no GGUF of {reference}, but its checkpoint, of which one is made by: {made}");
    }
    let client = client(model, &reference, hub, allow)?;
    let plan = client.plan_model(&reference)?;
    if !allow.auto_download && !confirmed(&question(&reference, &plan))? {
        bail!("{reference} is not fetched; what fetches it: {}", reference.command());
    }
    let (found, _) = client.fetch_model(plan)?;
    tell(&reference, &found.choice, &found.commit);
    Ok(found.file)
}

/// What to do with a path that leads to no GGUF, where its name and what lies there tell.
fn instead(path: &Path) -> Option<String> {
    let shown = path.display();
    if path.is_dir() {
        if is_checkpoint(&names_in(path)) {
            return Some(format!(
                "{shown}: this is the folder of a checkpoint, of which a GGUF is made by: {}",
                convert_command(path, false)
            ));
        }
        let reference: ModelRef = path.to_str().filter(|text| text.contains('/'))?.parse().ok()?;
        return Some(format!("{shown}: this is a directory; the model of the hub with that name is {reference}"));
    }
    if path.extension().is_none_or(|end| end != "safetensors") || !path.is_file() {
        return None;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lacks = if folder.join("config.json").is_file() { "" } else { " (which needs its config.json)" };
    Some(format!(
        "{shown}: these are tensors of a checkpoint; give its folder{lacks}, of which a GGUF is made by: {}",
        convert_command(folder, false)
    ))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// A model of the cache, fetched again where its file was cut off or damaged so that it does not open.
fn whole(reference: &ModelRef, found: ModelFiles, hub: HubSettings, allow: Allow) -> anyhow::Result<PathBuf> {
    let error = match GgufFile::open(&found.file) {
        Ok(_) => return Ok(found.file),
        Err(error) => error,
    };
    // These are said where the file is used; no other copy of it would be better.
    if matches!(
        error.cause(),
        GgufError::UnsupportedVersion { .. }
            | GgufError::BigEndian { .. }
            | GgufError::TooLargeToMap { .. }
            | GgufError::PermissionDenied { .. }
            | GgufError::Io { .. }
    ) {
        return Ok(found.file);
    }
    let same = ModelRef { revision: found.commit, ..reference.with(Pick::File(found.choice.first().to_owned())) };
    let command = same.command();
    if hub.offline {
        bail!("{error}; offline nothing is fetched: go online, and fetch it again by: {command}");
    }
    if !allow.auto_download && !can_ask() {
        bail!("{error}; what fetches it again: {command}");
    }
    let again = || -> anyhow::Result<PathBuf> {
        let client = BlockingDownload::new(hub, Some(observer()))?;
        let plan = client.plan_model(&same)?;
        if plan.plan.missing_files().next().is_some()
            && !allow.auto_download
            && !confirmed(&format!("{error}. {}", question(&same, &plan)))?
        {
            bail!("it is not fetched");
        }
        Ok(client.fetch_model(plan)?.0.file)
    };
    again().with_context(|| format!("{error} (what fetches it again: {command})"))
}

/// What `bitnet convert` reads: as [`locate`]; but of a repository without a GGUF the folder of its checkpoint.
pub(crate) fn source(model: &Path, allow: Allow) -> anyhow::Result<PathBuf> {
    if model.join("config.json").exists() {
        return Ok(model.to_owned());
    }
    let Some(Ok(reference)) = ModelRef::of(model).filter(|r| r.as_ref().is_ok_and(|r| r.pick == Pick::Auto)) else {
        return locate(model, allow);
    };
    let mut hub = hub_from_env()?;
    hub.offline |= allow.offline;
    if models::cached(&hub, &reference)?.is_none() {
        // What is here needs neither packets nor leave.
        if let Some(folder) = checkpoints::sound(&hub, &reference) {
            return Ok(folder);
        }
        let client = client(model, &reference, hub, allow)?;
        let files = client.list(&reference.repo, &reference.revision).map_err(|error| error.of(&reference))?.files;
        if is_checkpoint(&files) && !files.iter().any(|file| file.ends_with(".gguf")) {
            return checkpoint(&client, &reference, allow);
        }
    }
    locate(model, allow)
}

fn checkpoint(client: &BlockingDownload, reference: &ModelRef, allow: Allow) -> anyhow::Result<PathBuf> {
    let plan = client.plan_checkpoint(reference)?;
    if !allow.auto_download {
        let (count, bytes) = (plan.missing_files().count(), HumanBytes(plan.missing_bytes()));
        let question = format!("Fetch {count} files of the checkpoint {reference}, {bytes}?");
        let command = reference.command();
        anyhow::ensure!(confirmed(&question)?, "{reference} is not fetched; what fetches it: {command}");
    }
    Ok(client.complete(plan)?.folder)
}

fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// A client for what is not here, if it may be fetched.
fn client(model: &Path, reference: &ModelRef, hub: HubSettings, allow: Allow) -> anyhow::Result<BlockingDownload> {
    let no_path = if model.to_string_lossy().starts_with("hf:") { "" } else { "there is no such path, and " };
    if hub.offline {
        bail!("{no_path}{}", not_here_offline(reference, &hub));
    }
    if !allow.auto_download && !can_ask() {
        let (missing, command) = (missing(reference, &hub), reference.command());
        bail!("{no_path}{missing}; add --auto-download to fetch it, or run: {command}");
    }
    Ok(BlockingDownload::new(hub, Some(observer()))?)
}

fn missing(reference: &ModelRef, hub: &HubSettings) -> String {
    let caches: Vec<String> = hub.hf_caches.iter().map(|root| root.display().to_string()).collect();
    format!("{reference} is not in the cache ({})", caches.join(", "))
}

/// What to say of a model that is not here, where nothing may be asked for it.
pub(crate) fn not_here_offline(reference: &ModelRef, hub: &HubSettings) -> String {
    format!(
        "{}, and offline nothing is fetched; go online (unset BITNET_OFFLINE HF_HUB_OFFLINE TRANSFORMERS_OFFLINE, no --offline) and \
         run: {}",
        missing(reference, hub),
        reference.command()
    )
}

/// Says which model was chosen where the reference leaves it open.
pub(crate) fn tell(reference: &ModelRef, choice: &Choice, commit: &str) {
    let Choice { files, why, others } = choice;
    let parts = if files.len() > 1 { format!(" and {} more parts", files.len() - 1) } else { String::new() };
    let more = others.len().saturating_sub(8);
    let others: Vec<String> = others.iter().take(8).map(|name| line(name).into_owned()).collect();
    let also = match (others.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!("; also there: {}", others.join(", ")),
        (false, more) => format!("; also there: {} and {more} more", others.join(", ")),
    };
    let text = format!("{reference}: {}{parts} of commit {commit} ({why}{also})", line(choice.first()));
    if reference.pick == Pick::Auto { say(text) } else { tracing::info!("{text}") }
}

fn question(reference: &ModelRef, ModelPlan { choice, plan }: &ModelPlan) -> String {
    let files: Vec<String> = plan.missing_files().map(|name| line(name).into_owned()).collect();
    format!("Fetch {} for {reference} ({}), {}?", files.join(", "), choice.why, HumanBytes(plan.missing_bytes()))
}

/// Asks on the terminal. Enter means yes, the end of the input no.
fn confirmed(question: &str) -> anyhow::Result<bool> {
    murmur(format_args!("{} [Y/n] ", line(question)));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(agrees(&answer))
}

fn agrees(answer: &str) -> bool {
    answer.ends_with('\n') && matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_that_agrees_is_a_yes() {
        for (answer, yes) in
            [("\n", true), ("y\n", true), ("Yes\r\n", true), ("", false), ("n\n", false), ("yy\n", false)]
        {
            assert_eq!(agrees(answer), yes, "{answer:?}");
        }
    }
}
