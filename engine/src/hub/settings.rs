//! Every setting of the hub module, in one plain struct. Environment variables are named here and read elsewhere:
//! [`HubSettings::from_lookup`] takes the environment as a function, so that it can be tested and only one module of the
//! engine ever asks the process.
//!
//! | variable | meaning |
//! |---|---|
//! | `BITNET_OFFLINE`, `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | no packet leaves |
//! | `BITNET_DOWNLOAD_TIMEOUT` | seconds for one call, waiting included (600; for models a second more for every 64 KiB) |
//! | `BITNET_TOKENIZER_CACHE` | our cache folder; else the platform's cache folder + `bitnet/tokenizers` |
//! | `BITNET_TOKENIZER_CACHE_BYTES` | its budget in bytes, `K`/`M`/`G` allowed (4G) |
//! | `HF_ENDPOINT` | the hub or a mirror of it |
//! | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`/token | the access token; `HF_HUB_DISABLE_IMPLICIT_TOKEN` sends none |
//! | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`/hub, `XDG_CACHE_HOME`/huggingface/hub | the cache of HuggingFace's tools: models lie there, tokenizers are looked for |
//! | `HF_HUB_DISABLE_SYMLINKS` | files of models in place of links to them |
//! | `HF_HUB_ETAG_TIMEOUT`, `HF_HUB_DOWNLOAD_TIMEOUT` | seconds for metadata, and of silence in a body (10, 30) |
//! | `BITNET_SEED` | seed of the backoff's jitter |
//! | `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies, see [`Proxies`]; lower case names count too |

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::breaker::BreakerPolicy;
use super::error::HubError;
use super::proxy::Proxies;
use super::retry::RetryPolicy;
use crate::settings::{self as env, Lookup, SettingsError, is_on};

/// An access token that cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token; surrounding white space (the newline of a token file) is dropped. `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// Whether an HTTP header can carry it; else what is wrong, without the token.
    fn check(&self) -> Result<(), String> {
        match self.0.chars().position(|c| !c.is_ascii_graphic()) {
            None => Ok(()),
            Some(at) => {
                let what = match self.0.chars().nth(at) {
                    Some(c) if c.is_whitespace() => "white space",
                    Some(c) if c.is_control() => "a control character",
                    _ => "not an ASCII character",
                };
                Err(format!("its character {} of {} is {what}", at + 1, self.0.chars().count()))
            }
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Where the token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// No token is sent.
    None,
    /// This one.
    Value(Token),
    /// The contents of a file that somebody named, if it exists when the client is made.
    File(PathBuf),
    /// The contents of a file where HuggingFace's tools keep it, if it can be read when the client is made. The home folder may
    /// be another user's, and nobody named the file, so failing to read it is not an error.
    Implicit(PathBuf),
}

impl TokenSource {
    /// The token, if there is one.
    ///
    /// # Errors
    /// A named file that is there and cannot be read; a token that no HTTP header can carry.
    pub(crate) fn load(&self) -> Result<Option<Token>, HubError> {
        let (place, token) = match self {
            TokenSource::None => return Ok(None),
            TokenSource::Value(token) => ("HF_TOKEN or HUGGING_FACE_HUB_TOKEN".to_owned(), Some(token.clone())),
            TokenSource::File(path) | TokenSource::Implicit(path) => {
                let named = matches!(self, TokenSource::File(_));
                let text = match std::fs::read(path) {
                    Ok(text) => text,
                    Err(cause) if named && cause.kind() != std::io::ErrorKind::NotFound => {
                        return Err(HubError::io("read", path, cause));
                    }
                    Err(_) => return Ok(None),
                };
                (path.display().to_string(), Token::new(&String::from_utf8_lossy(&text)))
            }
        };
        if let Some(token) = &token {
            token.check().map_err(|why| HubError::Token { place, why })?;
        }
        Ok(token)
    }
}

/// How long everything may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// For one request of metadata.
    pub metadata: Duration,
    /// Silence inside a transfer.
    pub stall: Duration,
    /// For one call as a whole: retries, rate limits and waiting for other processes included.
    pub overall: Duration,
    /// Bytes a second that are enough for a model, which gets more time than `overall` for its size; `None` gives it no more.
    pub slowest: Option<u64>,
}

impl Timeouts {
    /// The time for one call that is to bring so many bytes of models.
    pub(crate) fn for_bytes(&self, bytes: u64) -> Duration {
        let more = self.slowest.map_or(0, |rate| bytes / rate.max(1));
        self.overall.saturating_add(Duration::from_secs(more))
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            metadata: seconds(10),
            stall: seconds(30),
            overall: seconds(600),
            slowest: Some(64 << 10),
        }
    }
}

/// Settings of a [`SmartTokenizerDownload`](super::SmartTokenizerDownload).
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// The access token.
    pub token: TokenSource,
    /// No packet leaves.
    pub offline: bool,
    /// Root of our cache.
    pub cache_dir: PathBuf,
    /// Bytes that our cache may hold; the least recently used files go first.
    pub cache_budget: u64,
    /// Caches in HuggingFace's layout. Tokenizers are looked for in all of them; models are fetched into the first.
    pub hf_caches: Vec<PathBuf>,
    /// Whether a snapshot in HuggingFace's cache holds links. Without, or where the file system has none, it holds the files.
    pub hf_links: bool,
    /// A branch's commit is asked for again after this long.
    pub ref_ttl: Duration,
    /// How long everything may take.
    pub timeouts: Timeouts,
    /// Attempts and waits.
    pub retry: RetryPolicy,
    /// When an origin is left alone.
    pub breaker: BreakerPolicy,
    /// Files of one repository that are fetched at the same time.
    pub concurrency: usize,
    /// Proxies.
    pub proxies: Proxies,
}

impl HubSettings {
    /// Defaults, with our cache at `cache_dir`, no token and no other caches.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            token: TokenSource::None,
            offline: false,
            cache_dir: cache_dir.into(),
            cache_budget: 4 << 30,
            hf_caches: Vec::new(),
            hf_links: true,
            ref_ttl: Duration::from_secs(3600),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            breaker: BreakerPolicy::default(),
            concurrency: 4,
            proxies: Proxies::default(),
        }
    }

    /// Settings from an environment.
    ///
    /// # Errors
    /// [`HubError::Setting`]: a variable whose value has no meaning, or no place for the cache.
    pub fn from_lookup(lookup: Lookup<'_>) -> Result<Self, HubError> {
        let text = |name| env::text(lookup, name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let path = |name| env::path(lookup, name).map_err(HubError::from);
        let on = |name| text(name).is_some_and(|value| is_on(&value));

        let home = env::home(lookup);
        let system_cache = env::system_cache(lookup)?;
        let cache_dir = path("BITNET_TOKENIZER_CACHE")?
            .or_else(|| system_cache.map(|dir| dir.join("bitnet").join("tokenizers")))
            .ok_or_else(|| {
                let why = "neither it nor a home folder is set, so there is no place for the cache";
                wrong("BITNET_TOKENIZER_CACHE", "", why, "/var/cache/bitnet")
            })?;
        // HuggingFace's tools use ~/.cache on every system
        let hf_base = path("XDG_CACHE_HOME")?.or_else(|| home.map(|home| home.join(".cache")));
        let hf_home = path("HF_HOME")?.or_else(|| hf_base.map(|base| base.join("huggingface")));
        let hf_cache = match path("HF_HUB_CACHE")? {
            Some(dir) => Some(dir),
            None => path("HUGGINGFACE_HUB_CACHE")?.or_else(|| hf_home.as_deref().map(|home| home.join("hub"))),
        };
        let value = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| Token::new(&text(name)?));
        let token = if on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            TokenSource::None
        } else if let Some(token) = value {
            TokenSource::Value(token)
        } else if let Some(file) = path("HF_TOKEN_PATH")? {
            TokenSource::File(file)
        } else {
            hf_home.as_deref().map_or(TokenSource::None, |home: &Path| TokenSource::Implicit(home.join("token")))
        };

        let mut settings = Self::new(cache_dir);
        settings.token = token;
        settings.proxies = Proxies::from_lookup(lookup);
        settings.hf_caches = hf_cache.into_iter().collect();
        settings.hf_links = !on("HF_HUB_DISABLE_SYMLINKS");
        settings.offline = ["BITNET_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| on(name));
        if let Some(endpoint) = text("HF_ENDPOINT") {
            settings.endpoint = endpoint;
        }
        if let Some(value) = text("BITNET_TOKENIZER_CACHE_BYTES") {
            settings.cache_budget = bytes("BITNET_TOKENIZER_CACHE_BYTES", &value)?;
        }
        let mut slowest = settings.timeouts.slowest;
        for (name, slot) in [
            ("BITNET_DOWNLOAD_TIMEOUT", &mut settings.timeouts.overall),
            ("HF_HUB_ETAG_TIMEOUT", &mut settings.timeouts.metadata),
            ("HF_HUB_DOWNLOAD_TIMEOUT", &mut settings.timeouts.stall),
        ] {
            if let Some(value) = text(name) {
                *slot = seconds(name, &value)?;
                if name == "BITNET_DOWNLOAD_TIMEOUT" {
                    slowest = None; // whoever sets a limit means it
                }
            }
        }
        settings.timeouts.slowest = slowest;
        if let Some(value) = text("BITNET_SEED") {
            let seed = value.parse().map_err(|_| wrong("BITNET_SEED", &value, "it must be a whole number", "42"))?;
            settings.retry.seed = Some(seed);
        }
        Ok(settings)
    }
}

impl From<SettingsError> for HubError {
    fn from(error: SettingsError) -> Self {
        let why = format!("expected {}", error.expected);
        HubError::Setting { name: error.name, value: error.value, why, example: "/var/cache/bitnet" }
    }
}

fn wrong(name: &'static str, value: &str, why: &str, example: &'static str) -> HubError {
    HubError::Setting { name, value: value.to_owned(), why: why.to_owned(), example }
}

fn seconds(name: &'static str, value: &str) -> Result<Duration, HubError> {
    value
        .parse::<f64>()
        .ok()
        .filter(|s| *s > 0.0)
        .and_then(|s| Duration::try_from_secs_f64(s.min(1e7)).ok())
        .ok_or_else(|| wrong(name, value, "it must be a number of seconds above 0", "600"))
}

fn bytes(name: &'static str, value: &str) -> Result<u64, HubError> {
    let (digits, unit) = match value.to_ascii_uppercase().chars().last() {
        Some('K') => (&value[..value.len() - 1], 1 << 10),
        Some('M') => (&value[..value.len() - 1], 1 << 20),
        Some('G') => (&value[..value.len() - 1], 1 << 30),
        _ => (value, 1u64),
    };
    let count = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    count.ok_or_else(|| wrong(name, value, "it must be a number of bytes", "4G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<HubSettings, HubError> {
        HubSettings::from_lookup(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn the_documented_order_holds() {
        let s = from(&[("HOME", "/h"), ("HF_HOME", "/hf"), ("HF_TOKEN_PATH", "/t")]).unwrap();
        assert_eq!(s.hf_caches, [PathBuf::from("/hf/hub")]);
        assert_eq!(s.token, TokenSource::File("/t".into()));
        let s =
            from(&[("HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HUB_CACHE", "/a"), ("HF_TOKEN", " hf_x\n")])
                .unwrap();
        assert_eq!(s.hf_caches, [PathBuf::from("/a")]);
        assert_eq!(s.token, TokenSource::Value(Token("hf_x".to_owned())));
        let s = from(&[("HOME", "/h"), ("HF_TOKEN", "hf_x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap();
        assert_eq!(s.token, TokenSource::None);
        assert_eq!(from(&[("HOME", "/h"), ("BITNET_TOKENIZER_CACHE", "/c")]).unwrap().cache_dir, PathBuf::from("/c"));
        #[cfg(target_os = "linux")]
        assert_eq!(from(&[("HOME", "/h")]).unwrap().cache_dir, PathBuf::from("/h/.cache/bitnet/tokenizers"));
    }

    #[test]
    fn tokens_and_paths_as_people_write_them() {
        let token = |pairs: &[(&str, &str)]| from(&[&[("HOME", "/h")], pairs].concat()).unwrap().token;
        let value = |text: &str| TokenSource::Value(Token(text.to_owned()));
        assert_eq!(token(&[("HF_TOKEN", "hf_x\r\n")]), value("hf_x"));
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "hf_y")]), value("hf_y"));
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "hf_y"), ("HF_TOKEN", "hf_x")]), value("hf_x"));
        assert_eq!(token(&[]), TokenSource::Implicit("/h/.cache/huggingface/token".into()));
        for (bad, what) in
            [("hf_a\nhf_b", "character 5 of 9 is white space"), ("hf_\u{1b}", "control"), ("hf_ü", "not an ASCII")]
        {
            let error = token(&[("HF_TOKEN", bad)]).load().unwrap_err().to_string();
            assert!(error.contains("HF_TOKEN") && error.contains(what) && !error.contains("hf_"), "{error}");
        }
        let s = from(&[("HOME", "/h"), ("HF_HOME", "~/hf"), ("BITNET_TOKENIZER_CACHE", "~/c")]).unwrap();
        assert_eq!((s.hf_caches, s.cache_dir), (vec![PathBuf::from("/h/hf/hub")], PathBuf::from("/h/c")));
        for name in ["BITNET_TOKENIZER_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH", "XDG_CACHE_HOME"] {
            let error = from(&[("HOME", "/h"), (name, "~ann/x")]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("~ann/x"), "{error}");
        }
    }

    #[test]
    fn offline_words_and_numbers() {
        for (value, offline) in
            [("1", true), ("true", true), ("", false), ("0", false), ("off", false), ("FALSE", false)]
        {
            for name in ["BITNET_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
                assert_eq!(from(&[("HOME", "/h"), (name, value)]).unwrap().offline, offline, "{name}={value}");
            }
        }
        let s = from(&[("HOME", "/h"), ("BITNET_DOWNLOAD_TIMEOUT", "2.5"), ("BITNET_TOKENIZER_CACHE_BYTES", "3M")])
            .unwrap();
        assert_eq!((s.timeouts.overall, s.cache_budget), (Duration::from_millis(2500), 3 << 20));
        for (name, value) in
            [("BITNET_DOWNLOAD_TIMEOUT", "soon"), ("BITNET_TOKENIZER_CACHE_BYTES", "many"), ("BITNET_SEED", "x")]
        {
            let error = from(&[("HOME", "/h"), (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        assert!(from(&[]).is_err(), "no home, no cache folder");
    }

    #[test]
    fn a_token_is_never_printed() {
        let s = from(&[("HOME", "/h"), ("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{s:?} {s:#?}").contains("secret"));
        assert!(format!("{s:?}").contains("token: Value(Token(redacted))"));
    }

    #[test]
    fn times_and_sizes_have_units_and_limits() {
        for (text, expected) in [
            ("3", Some(3)),
            ("2K", Some(2 << 10)),
            ("2k", Some(2 << 10)),
            ("5M", Some(5 << 20)),
            ("7g", Some(7 << 30)),
            ("", None),
            ("K", None),
            ("-1", None),
            ("1T", None),
            ("18014398509481984K", None),
        ] {
            assert_eq!(bytes("X", text).ok(), expected, "{text}");
        }
        let longest = Duration::from_secs(10_000_000);
        for (text, expected) in [
            ("0.5", Some(Duration::from_millis(500))),
            ("inf", Some(longest)),
            ("10000001", Some(longest)),
            ("0", None),
            ("-1", None),
            ("nan", None),
        ] {
            assert_eq!(seconds("X", text).ok(), expected, "{text}");
        }
        let time = |slowest, bytes| Timeouts { slowest, ..Timeouts::default() }.for_bytes(bytes).as_secs();
        assert_eq!([time(None, 1 << 30), time(Some(1 << 20), 0), time(Some(1 << 20), 5 << 20)], [600, 600, 605]);
        assert_eq!(time(Some(0), 7), 607);
    }

    #[test]
    fn variables_set_what_they_say() {
        let s = |pairs: &[(&str, &str)]| from(&[&[("HOME", "/h")], pairs].concat()).unwrap();
        let plain = s(&[]);
        assert_eq!((plain.hf_links, plain.retry.seed, plain.timeouts.clone()), (true, None, Timeouts::default()));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        let other = s(&[
            ("HF_HUB_DISABLE_SYMLINKS", "1"),
            ("BITNET_SEED", "7"),
            ("HF_ENDPOINT", "http://mirror"),
            ("HF_HUB_ETAG_TIMEOUT", "3"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "4"),
        ]);
        assert_eq!((other.hf_links, other.retry.seed, other.endpoint.as_str()), (false, Some(7), "http://mirror"));
        let seconds = Duration::from_secs;
        let expected = Timeouts { metadata: seconds(3), stall: seconds(4), ..Timeouts::default() };
        assert_eq!(other.timeouts, expected);
        // Whoever sets a limit means it.
        let limited = s(&[("BITNET_DOWNLOAD_TIMEOUT", "5")]).timeouts;
        assert_eq!(limited, Timeouts { overall: seconds(5), slowest: None, ..Timeouts::default() });
    }

    #[test]
    fn a_token_file_that_somebody_named_must_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("token"), dir.path().join("missing"));
        std::fs::write(&file, "hf_x\n").unwrap();
        for source in [TokenSource::File, TokenSource::Implicit] {
            assert_eq!(source(file.clone()).load().unwrap(), Token::new("hf_x"));
            assert_eq!(source(missing.clone()).load().unwrap(), None);
        }
        let folder = dir.path().to_owned();
        assert!(TokenSource::File(folder.clone()).load().unwrap_err().to_string().starts_with("cannot read "));
        assert_eq!(TokenSource::Implicit(folder).load().unwrap(), None);
    }
}
