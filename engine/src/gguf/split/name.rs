//! The rule by which the parts of a model find each other.

use std::path::{Path, PathBuf};

/// The name of a part: `FOLDER/PREFIX-NUMBER-of-COUNT.gguf`, both numbers of five digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartName {
    folder: PathBuf,
    /// What comes before the numbers.
    pub prefix: String,
    /// Number of the part, from 1.
    pub number: u32,
    /// Number of parts.
    pub count: u32,
}

const DIGITS: usize = 5;
/// Most parts that five digits and a u16 can count.
pub(super) const MAX_PARTS: u32 = u16::MAX as u32;

impl PartName {
    /// Takes a path apart; `None` if the file's name does not follow the rule. Nothing is opened.
    pub fn parse(path: &Path) -> Option<PartName> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = last_number(stem)?;
        let (prefix, number) = last_number(rest.strip_suffix("-of-")?)?;
        let prefix = prefix.strip_suffix('-')?;
        (1..=count).contains(&number).then(|| PartName {
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            prefix: prefix.to_owned(),
            number,
            count,
        })
    }

    /// The name of the first of `count` parts of the model that would be called `whole` (with or without `.gguf`) in one file.
    pub fn first_of(whole: &Path, count: u32) -> PartName {
        let name = whole.file_name().unwrap_or_default().to_string_lossy();
        PartName {
            folder: whole.parent().unwrap_or(Path::new("")).to_owned(),
            prefix: name.strip_suffix(".gguf").unwrap_or(&name).to_owned(),
            number: 1,
            count,
        }
    }

    /// The path of another part of the same model.
    pub fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{}{}", self.prefix, suffix(number, self.count)))
    }
}

/// The end of a part's name.
pub(super) fn suffix(number: u32, count: u32) -> String {
    format!("-{number:0DIGITS$}-of-{count:0DIGITS$}.gguf")
}

/// Splits five digits from the end.
fn last_number(text: &str) -> Option<(&str, u32)> {
    let (rest, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    Some((rest, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_or_are_none() {
        let name = PartName::parse(Path::new("a/b-c-00002-of-00013.gguf")).unwrap();
        assert_eq!((name.prefix.as_str(), name.number, name.count), ("b-c", 2, 13));
        assert_eq!(name.path(13), Path::new("a/b-c-00013-of-00013.gguf"));
        assert_eq!(
            PartName::parse(Path::new("-00001-of-00001.gguf")).unwrap().path(1),
            Path::new("-00001-of-00001.gguf")
        );
        for no in [
            "a.gguf",
            "a-00000-of-00002.gguf",
            "a-00003-of-00002.gguf",
            "a-0001-of-00002.gguf",
            "a-00001-of-0002.gguf",
            "a-00001-of-00002.bin",
            "a-+0001-of-00002.gguf",
            "a00001-of-00002.gguf",
            "a-00001_of-00002.gguf",
            "é0002.gguf",
            "",
            "00001-of-00002.gguf",
        ] {
            assert_eq!(PartName::parse(Path::new(no)), None, "{no}");
        }
        assert_eq!(PartName::first_of(Path::new("d/m.gguf"), 2).path(2), Path::new("d/m-00002-of-00002.gguf"));
        assert_eq!(PartName::first_of(Path::new("m"), 2).path(1), Path::new("m-00001-of-00002.gguf"));
    }
}
