//! The texts: real ones out of packages (`cargo xtask fixtures fetch text-english ...`), a person's own, or made ones.

use anyhow::{Context, bail, ensure};
use bitnet_golden::fixtures;
use bitnet_harness::bench::tokenizers::Text;
use bitnet_harness::paths::Paths;
use bitnet_harness::strings;
use std::path::Path;

/// Kinds that are read; `mixed` is made of them: two parts of English, one of each other.
const READ: [&str; 3] = ["english", "code", "multilingual"];
/// All kinds, in the order of the report.
pub(crate) const KINDS: [&str; 4] = ["mixed", "english", "code", "multilingual"];

/// Whole texts, by kind.
pub(crate) struct Texts {
    read: Vec<(String, String)>,
}

/// Where they come from.
pub(crate) enum Source<'a> {
    /// The fixtures of the repository.
    Fixtures,
    /// `KIND.txt` in a folder.
    Folder(&'a Path),
    /// Made from seeds: few words, which caches like.
    Generated,
}

impl Texts {
    pub(crate) fn read(source: &Source<'_>, paths: &Paths, bytes: usize) -> anyhow::Result<Self> {
        let mut read = Vec::new();
        for kind in READ {
            let text = match source {
                Source::Generated => strings::documents(kind, 100 << 10, bytes).concat(),
                Source::Folder(folder) => lossy(&folder.join(format!("{kind}.txt")))?,
                Source::Fixtures => {
                    let name = format!("text-{kind}");
                    let fixture = fixtures::read(&paths.golden)?.into_iter().find(|fixture| fixture.name == name);
                    let path = paths.fixtures.join(fixture.with_context(|| format!("no fixture {name}"))?.file);
                    if !path.is_file() {
                        bail!(
                            "{} is not here; cargo xtask fixtures fetch {name}, or give texts of your own with --corpus, \
                             or made ones with --generated",
                            path.display()
                        );
                    }
                    lossy(&path)?
                }
            };
            ensure!(text.len() >= 100 << 10, "the {kind} text has {} bytes, at least 100 KiB are wanted", text.len());
            read.push((kind.to_owned(), text));
        }
        Ok(Self { read })
    }

    fn get(&self, kind: &str) -> &str {
        self.read.iter().find(|(name, _)| name == kind).map_or("", |(_, text)| text)
    }

    /// Documents of `size` bytes, `total` bytes of them at most, spread evenly over the text of a kind.
    pub(crate) fn documents(&self, kind: &str, size: usize, total: usize) -> Vec<&str> {
        if kind != "mixed" {
            return spread(self.get(kind), size, total);
        }
        let [english, code, multilingual] = READ.map(|kind| self.get(kind));
        // The shortest text decides, so that the shares are right.
        let quarter = [english.len() / 2, code.len(), multilingual.len(), total / 4].into_iter().min().unwrap_or(0);
        let parts = [(english, 2), (code, 1), (multilingual, 1)];
        let lists = parts.map(|(text, shares)| (spread(text, size, quarter * shares), shares));
        let rounds = quarter / size;
        let of = |round: usize| {
            lists.iter().flat_map(move |(list, shares)| list.iter().skip(round * shares).take(*shares).copied())
        };
        (0..rounds).flat_map(of).collect()
    }

    /// Text of a kind, whole.
    pub(crate) fn whole(&self, kind: &str) -> &str {
        self.get(kind)
    }

    /// What a report says of them.
    pub(crate) fn about(&self, source: &Source<'_>, paths: &Paths) -> anyhow::Result<Vec<Text>> {
        let fixtures = fixtures::read(&paths.golden)?;
        let about = |kind: &str| match source {
            Source::Fixtures => {
                let found = fixtures.iter().find(|fixture| fixture.name == format!("text-{kind}"));
                found.map_or_else(String::new, |fixture| format!("{} ({})", fixture.about, fixture.licence))
            }
            Source::Folder(_) => "given with --corpus".to_owned(),
            Source::Generated => "made from seeds, of few words".to_owned(),
        };
        let read =
            self.read.iter().map(|(kind, text)| Text { kind: kind.clone(), about: about(kind), bytes: text.len() });
        let mixed =
            Text { kind: "mixed".to_owned(), about: "two parts English, one of each other".to_owned(), bytes: 0 };
        Ok(std::iter::once(mixed).chain(read).collect())
    }
}

fn lossy(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn spread(text: &str, size: usize, total: usize) -> Vec<&str> {
    let (have, want) = (text.len() / size.max(1), total / size.max(1));
    let count = have.min(want);
    (0..count).map(|i| cut(text, i * have / count.max(1) * size, size)).collect()
}

/// About `size` bytes from about `at` on: both ends moved back to the start of a character.
pub(crate) fn cut(text: &str, at: usize, size: usize) -> &str {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    text.get(floor(at)..floor(at.saturating_add(size))).unwrap_or_default()
}
