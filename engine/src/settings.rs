//! The environment: every variable that BitNet.rs looks at is read here and nowhere else.
//!
//! | variable | meaning |
//! |---|---|
//! | `BITNET_GGUF` | the model, where no `--model` names one: a file or `hf:ORG/REPO...` |
//! | `BITNET_SEED` | seed of the sampler, where no `--seed` names one |
//! | `BITNET_DETERMINISTIC` | pin the seed (to `BITNET_SEED`, else 0) and the date of prompts, and refuse kernels that break the numerics contract |
//! | `BITNET_THREADS` | threads, where no `--threads` names a number |
//! | `BITNET_DEVICE` | device, where no `--device` names one |
//! | `BITNET_STRICT_TOKENIZERS` | neither a mock nor a guessed tokenizer ([`crate::discovery`]) |
//! | `BITNET_NVRTC` | NVIDIA's run-time compiler, a file or its folder, where the system's loader does not find it |
//! | `BITNET_CUDA_CACHE` | folder of compiled CUDA kernels; else the platform's cache folder + `bitnet/cuda` |
//! | `BITNET_CUDA_OVERLAP` | off: CUDA launches begin one after the other, also where card and driver let them overlap |
//! | `BITNET_OFFLINE`, `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | no packet leaves |
//! | `BITNET_DOWNLOAD_TIMEOUT` | seconds for one download, waiting included |
//! | `BITNET_TOKENIZER_CACHE`, `BITNET_TOKENIZER_CACHE_BYTES` | folder and budget of the cache of downloads |
//! | `BITNET_COMPILED_TOKENIZERS` | folder of compiled tokenizers, or off: none are kept or used; else the platform's cache folder + `bitnet/compiled` |
//! | `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`, ... | as for HuggingFace's own tools |
//!
//! Those of the hub are described where they are understood, in [`HubSettings::from_lookup`]; [`hub_from_env`] hands
//! them the environment.
//!
//! For switches `""`, `0`, `false`, `off` and `no` mean off; anything else means on. Paths are taken as the bytes that
//! they are; `~` and `~/...` stand for the home folder, because a quoted variable or a service file reaches us unexpanded.

use crate::chat::Clock;
use crate::discovery::DiscoverySettings;
use crate::hub::{HubError, HubSettings};
use crate::tokenizer::compiled::CompiledCache;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `BITNET_GGUF`.
    pub gguf: Option<PathBuf>,
    /// `BITNET_SEED`.
    pub seed: Option<u64>,
    /// `BITNET_DETERMINISTIC`.
    pub deterministic: bool,
    /// `BITNET_THREADS`.
    pub threads: Option<usize>,
    /// `BITNET_DEVICE`.
    pub device: Option<String>,
    /// `BITNET_STRICT_TOKENIZERS`.
    pub strict_tokenizers: bool,
    /// `BITNET_NVRTC`.
    pub nvrtc: Option<PathBuf>,
    /// `BITNET_CUDA_CACHE`.
    pub cuda_cache: Option<PathBuf>,
    /// `BITNET_CUDA_OVERLAP`; on if nothing is said.
    pub cuda_overlap: Option<bool>,
    /// `BITNET_COMPILED_TOKENIZERS`.
    pub compiled_tokenizers: Kept,
}

/// Where something is kept that can be made again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kept {
    /// In the platform's cache folder.
    #[default]
    Usual,
    /// In this folder.
    In(PathBuf),
    /// Nowhere.
    Off,
}

/// A variable whose value has no meaning.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the environment variable {name} is `{value}`, expected {expected}; unset it or correct it")]
pub struct SettingsError {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What is valid.
    pub expected: &'static str,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// A variable whose value is not what it must be.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::from_lookup(PROCESS)
    }

    /// Reads from any source of variables.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_lookup(lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let text = |name| text(lookup, name);
        let path = |name| path(lookup, name);
        Ok(Self {
            gguf: path("BITNET_GGUF")?,
            seed: number(lookup, "BITNET_SEED", "a whole number from 0 to 18446744073709551615", |_| true)?,
            deterministic: text("BITNET_DETERMINISTIC").is_some_and(|v| is_on(&v)),
            threads: number(lookup, "BITNET_THREADS", "a number of threads from 1 to 1024", |n: usize| {
                (1..=1024).contains(&n)
            })?,
            device: text("BITNET_DEVICE"),
            strict_tokenizers: text("BITNET_STRICT_TOKENIZERS").is_some_and(|v| is_on(&v)),
            nvrtc: path("BITNET_NVRTC")?,
            cuda_cache: path("BITNET_CUDA_CACHE")?,
            cuda_overlap: lookup("BITNET_CUDA_OVERLAP").map(|v| is_on(&v.to_string_lossy())),
            compiled_tokenizers: match path("BITNET_COMPILED_TOKENIZERS")? {
                None => Kept::Usual,
                Some(path) if !is_on(&path.to_string_lossy()) => Kept::Off,
                Some(path) => Kept::In(path),
            },
        })
    }

    /// What time it is for a chat template: always the same if pinned.
    pub fn clock(&self) -> Clock {
        if self.deterministic { Clock::pinned() } else { Clock::NOW }
    }

    /// The seed of a run: the argument, else the environment, else 0 if pinned, else one from the clock.
    pub fn seed(&self, argument: Option<u64>) -> u64 {
        argument.or(self.seed).unwrap_or_else(|| {
            if self.deterministic {
                return 0;
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |d| d.as_nanos() as u64)
        })
    }
}

/// A source of environment variables.
pub type Lookup<'a> = &'a dyn Fn(&'static str) -> Option<OsString>;

/// The process's own.
const PROCESS: Lookup<'static> = &|name| std::env::var_os(name);

/// A variable that is set to something.
pub(crate) fn text(lookup: Lookup<'_>, name: &'static str) -> Option<String> {
    lookup(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

/// A variable that names a file or folder, `~` expanded.
///
/// # Errors
/// `~` where there is no home folder, and `~name`, which only a shell can look up.
pub(crate) fn path(lookup: Lookup<'_>, name: &'static str) -> Result<Option<PathBuf>, SettingsError> {
    let Some(value) = lookup(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    if !value.as_encoded_bytes().starts_with(b"~") {
        return Ok(Some(PathBuf::from(value)));
    }
    let refuse = |expected| SettingsError { name, value: value.to_string_lossy().into_owned(), expected };
    let Ok(rest) = Path::new(&value).strip_prefix("~") else {
        return Err(refuse("a path with the folder's whole name: `~name` is not looked up here"));
    };
    match home(lookup) {
        Some(home) => Ok(Some(home.join(rest))),
        None => Err(refuse("a path without `~`: neither HOME nor USERPROFILE is set")),
    }
}

/// The home folder.
pub(crate) fn home(lookup: Lookup<'_>) -> Option<PathBuf> {
    ["HOME", "USERPROFILE"].into_iter().find_map(|name| lookup(name).filter(|v| !v.is_empty())).map(PathBuf::from)
}

/// A path that a person typed where no shell expands `~`.
pub fn typed_path(text: &str) -> PathBuf {
    typed(PROCESS, text)
}

fn typed(lookup: Lookup<'_>, text: &str) -> PathBuf {
    let below = Path::new(text).strip_prefix("~").ok();
    below.and_then(|rest| Some(home(lookup)?.join(rest))).unwrap_or_else(|| PathBuf::from(text))
}

/// The folder of compiled CUDA kernels: the setting, else `bitnet/cuda` in the platform's cache folder. None on a machine
/// without a home folder, where nothing is kept.
pub fn cuda_cache_from_env(settings: &Settings) -> Option<PathBuf> {
    settings.cuda_cache.clone().or_else(|| usual("cuda"))
}

/// The folder that remembers the layouts of I2_S files: `bitnet/layouts` in the platform's cache folder, if there is one.
pub fn layouts_from_env() -> Option<PathBuf> {
    usual("layouts")
}

/// Compiled tokenizers: the setting, else `bitnet/compiled` in the platform's cache folder. None where they are off, and on a machine
/// without a home folder.
pub fn compiled_from_env(settings: &Settings) -> Option<CompiledCache> {
    let folder = match &settings.compiled_tokenizers {
        Kept::Usual => usual("compiled")?,
        Kept::In(folder) => folder.clone(),
        Kept::Off => return None,
    };
    Some(CompiledCache::new(folder))
}

/// A folder of this program's in the platform's cache folder.
fn usual(name: &str) -> Option<PathBuf> {
    Some(system_cache(PROCESS).ok().flatten()?.join("bitnet").join(name))
}

/// The platform's folder for what can be made again.
pub(crate) fn system_cache(lookup: Lookup<'_>) -> Result<Option<PathBuf>, SettingsError> {
    let home = home(lookup);
    Ok(if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Caches"))
    } else if cfg!(windows) {
        path(lookup, "LOCALAPPDATA")?
    } else {
        path(lookup, "XDG_CACHE_HOME")?.or_else(|| home.map(|home| home.join(".cache")))
    })
}

/// The hub's settings from the process's environment. Apart from [`Settings`]: only commands that download or look
/// after the cache need them, and a machine without a home folder can still run a model.
///
/// # Errors
/// A variable whose value has no meaning, or no place for the cache.
pub fn hub_from_env() -> Result<HubSettings, HubError> {
    HubSettings::from_lookup(PROCESS)
}

/// What the discovery of tokenizers may do by the environment. A machine without a place for the cache (or with a wrong
/// setting of the hub) can still run models that carry their tokenizer: the reason is kept for the step that needs it.
pub fn discovery_from_env(settings: &Settings) -> DiscoverySettings {
    let (hub, no_hub) = match hub_from_env() {
        Ok(hub) => (Some(hub), None),
        Err(error) => (None, Some(error.to_string())),
    };
    DiscoverySettings {
        offline: hub.as_ref().is_some_and(|hub| hub.offline),
        strict: settings.strict_tokenizers,
        compiled: compiled_from_env(settings),
        hub,
        no_hub,
        ..DiscoverySettings::default()
    }
}

fn number<T: std::str::FromStr + Copy>(
    lookup: Lookup<'_>,
    name: &'static str,
    expected: &'static str,
    valid: impl Fn(T) -> bool,
) -> Result<Option<T>, SettingsError> {
    let Some(value) = text(lookup, name) else { return Ok(None) };
    match value.trim().parse::<T>() {
        Ok(n) if valid(n) => Ok(Some(n)),
        _ => Err(SettingsError { name, value, expected }),
    }
}

/// Whether the value of a switch means on.
pub fn is_on(value: &str) -> bool {
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "false" | "off" | "no")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_lookup(&|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).into()))
    }

    #[test]
    fn switches_and_numbers() {
        for (value, on) in [("", false), ("0", false), ("False", false), ("off", false), ("1", true), ("yes", true)] {
            assert_eq!(settings(&[("BITNET_DETERMINISTIC", value)]).unwrap().deterministic, on, "{value:?}");
            assert_eq!(settings(&[("BITNET_STRICT_TOKENIZERS", value)]).unwrap().strict_tokenizers, on, "{value:?}");
            assert_eq!(settings(&[("BITNET_CUDA_OVERLAP", value)]).unwrap().cuda_overlap, Some(on), "{value:?}");
        }
        for (value, kept) in
            [("", Kept::Usual), ("off", Kept::Off), ("0", Kept::Off), ("./off", Kept::In("./off".into()))]
        {
            assert_eq!(
                settings(&[("BITNET_COMPILED_TOKENIZERS", value)]).unwrap().compiled_tokenizers,
                kept,
                "{value:?}"
            );
        }
        assert_eq!(settings(&[("BITNET_SEED", "42")]).unwrap().seed, Some(42));
        assert_eq!(settings(&[("BITNET_SEED", "")]).unwrap(), Settings::default());
        assert_eq!(settings(&[("BITNET_SEED", "-1")]).unwrap_err().name, "BITNET_SEED");
        assert_eq!(settings(&[("BITNET_THREADS", "0")]).unwrap_err().name, "BITNET_THREADS");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_cache_folder_is_the_platforms() {
        let at = |pairs: &'static [(&str, &str)]| {
            system_cache(&|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).into())).unwrap()
        };
        assert_eq!(at(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some(PathBuf::from("/x")));
        assert_eq!(at(&[("HOME", "/h"), ("OTHER", "")]), Some(PathBuf::from("/h/.cache")));
        assert_eq!(at(&[("HOME", "/h"), ("XDG_CACHE_HOME", "~/c")]), Some(PathBuf::from("/h/c")));
        assert_eq!(at(&[]), None);
        let own = settings(&[("BITNET_CUDA_CACHE", "/c"), ("BITNET_NVRTC", "/n")]).unwrap();
        assert_eq!((cuda_cache_from_env(&own), own.nvrtc), (Some(PathBuf::from("/c")), Some(PathBuf::from("/n"))));
    }

    #[test]
    fn a_path_is_taken_as_it_is_but_for_the_tilde() {
        for (value, wanted) in [("~/m.gguf", "/h/m.gguf"), ("~", "/h"), ("./~x", "./~x"), ("/a~b", "/a~b")] {
            let got = settings(&[("HOME", "/h"), ("BITNET_GGUF", value)]).unwrap().gguf;
            assert_eq!(got, Some(PathBuf::from(wanted)), "{value}");
        }
        for (pairs, word) in
            [(&[("HOME", "/h"), ("BITNET_GGUF", "~ann/m")][..], "~name"), (&[("BITNET_GGUF", "~/m")][..], "HOME")]
        {
            let error = settings(pairs).unwrap_err();
            assert!(error.name == "BITNET_GGUF" && error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_typed_path_knows_the_home_folder() {
        let home = |name| (name == "HOME").then(|| OsString::from("/h"));
        for (text, path) in [("~/a b.json", "/h/a b.json"), ("~", "/h"), ("~x/a", "~x/a"), ("a", "a"), ("/a~", "/a~")] {
            assert_eq!(typed(&home, text), PathBuf::from(path));
        }
        assert_eq!(typed(&|_| None, "~/a"), PathBuf::from("~/a"));
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(b"/models/\xff\xfe.gguf".to_vec());
        let read = Settings::from_lookup(&|name| (name == "BITNET_GGUF").then(odd)).unwrap();
        assert_eq!(read.gguf, Some(PathBuf::from(odd())));
    }

    #[test]
    fn the_seed_comes_from_the_nearest_source() {
        let env = settings(&[("BITNET_SEED", "5")]).unwrap();
        assert_eq!((env.seed(Some(9)), env.seed(None)), (9, 5));
        let pinned = settings(&[("BITNET_DETERMINISTIC", "1")]).unwrap();
        assert_eq!((pinned.seed(None), pinned.clock().strftime("%d %b %Y").as_str()), (0, "01 Jan 2025"));
        assert_eq!(env.clock(), Clock::NOW);
    }
}
