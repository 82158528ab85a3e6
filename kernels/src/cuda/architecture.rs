//! Names of GPU architectures, as NVRTC takes them (`sm_80`, `sm_90a`), and which one a card needs.

use std::fmt;
use std::str::FromStr;

/// An architecture that cubins are made for.
///
/// A cubin runs on cards of its own major version with the same or a higher minor version; one with the ending `a`
/// (instructions of that architecture alone) on exactly its own. (CUDA C++ programming guide, "Binary compatibility" and
/// "Architecture-specific features".)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// `9` of `sm_90a`.
    pub major: u32,
    /// `0` of `sm_90a`.
    pub minor: u32,
    /// `a` of `sm_90a`.
    pub ending: Option<char>,
}

/// Not the name of an architecture, or not one for which a card could be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ArchitectureError {
    #[error("`{name}` names no GPU architecture; one looks like sm_80 or sm_90a")]
    Name { name: String },
    #[error(
        "NVRTC makes no cubin for a card of compute capability {}.{}; it offers {offered}. The kernels need 8.0 or higher; for a newer card take a newer NVRTC",
        compute.0, compute.1
    )]
    NoneFits { compute: (u32, u32), offered: String },
    #[error(
        "the driver speaks CUDA {}.{} and loads no cubin of NVRTC {}.{}; update the driver to CUDA {}.0, or take an NVRTC of CUDA {} (BITNET_NVRTC)",
        driver.0, driver.1, nvrtc.0, nvrtc.1, nvrtc.0, driver.0
    )]
    TooNew { driver: (u32, u32), nvrtc: (u32, u32) },
}

/// Whether a driver loads the cubins of an NVRTC: within a major version of CUDA all do, and newer drivers load older cubins.
/// (CUDA compatibility guide, "Minor version compatibility".)
///
/// # Errors
/// It does not.
pub fn loads(driver: (u32, u32), nvrtc: (u32, u32)) -> Result<(), ArchitectureError> {
    if driver.0 >= nvrtc.0 { Ok(()) } else { Err(ArchitectureError::TooNew { driver, nvrtc }) }
}

/// The lowest compute capability that the kernels are written for: int8 tensor cores and asynchronous copies.
pub const LOWEST: (u32, u32) = (8, 0);

impl Architecture {
    /// The number that NVRTC lists it by: 90 for `sm_90a`.
    pub fn number(self) -> u32 {
        self.major * 10 + self.minor
    }

    /// The architecture to compile for on a card, out of what NVRTC offers (`80`, `90`, ...): the card's own, else the
    /// highest below it with the same major version.
    ///
    /// # Errors
    /// None fits.
    pub fn for_card(compute: (u32, u32), offered: &[u32]) -> Result<Self, ArchitectureError> {
        let (major, minor) = compute;
        let best = offered.iter().filter(|number| **number / 10 == major && **number % 10 <= minor).max();
        match best {
            Some(number) if compute >= LOWEST => {
                // Hopper's own instructions do not exist without the `a`.
                let ending = (*number == 90 && compute == (9, 0)).then_some('a');
                Ok(Self { major, minor: number % 10, ending })
            }
            _ => Err(ArchitectureError::NoneFits { compute, offered: list(offered) }),
        }
    }
}

/// `sm_80, sm_90` of what NVRTC offers.
pub fn list(offered: &[u32]) -> String {
    let names: Vec<String> = offered.iter().map(|number| format!("sm_{number}")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)?;
        self.ending.map_or(Ok(()), |ending| write!(f, "{ending}"))
    }
}

impl FromStr for Architecture {
    type Err = ArchitectureError;

    fn from_str(name: &str) -> Result<Self, ArchitectureError> {
        let wrong = || ArchitectureError::Name { name: name.to_owned() };
        let rest = name.strip_prefix("sm_").ok_or_else(wrong)?;
        // `f` (family) exists beside `a` from Blackwell on.
        let (digits, ending) = match rest.strip_suffix(['a', 'f']) {
            Some(digits) => (digits, rest.chars().next_back()),
            None => (rest, None),
        };
        let number: u32 = match digits.len() {
            2 | 3 if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        Ok(Self { major: number / 10, minor: number % 10, ending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for name in ["sm_80", "sm_89", "sm_90a", "sm_100", "sm_100f", "sm_121"] {
            assert_eq!(name.parse::<Architecture>().unwrap().to_string(), name);
        }
        assert_eq!("sm_103a".parse::<Architecture>().unwrap().number(), 103);
        for name in ["", "80", "sm_", "sm_8", "sm_9a", "sm_90b", "sm_1000", "compute_80", "sm_+8"] {
            let error = name.parse::<Architecture>().unwrap_err();
            assert_eq!(error, ArchitectureError::Name { name: name.to_owned() });
        }
    }

    #[test]
    fn a_driver_loads_what_is_no_newer() {
        for (driver, nvrtc) in [((13, 0), (13, 5)), ((13, 4), (12, 0)), ((12, 0), (12, 9))] {
            assert_eq!(loads(driver, nvrtc), Ok(()));
        }
        let error = loads((12, 9), (13, 0)).unwrap_err().to_string();
        assert!(error.contains("update the driver to CUDA 13.0, or take an NVRTC of CUDA 12"), "{error}");
    }

    #[test]
    fn a_card_gets_what_runs_on_it() {
        let offered = [75, 80, 86, 89, 90, 100, 103, 120];
        for (compute, want) in [
            ((8, 0), "sm_80"),
            ((8, 7), "sm_86"),
            ((8, 9), "sm_89"),
            ((9, 0), "sm_90a"),
            ((10, 0), "sm_100"),
            ((10, 9), "sm_103"),
        ] {
            assert_eq!(Architecture::for_card(compute, &offered).unwrap().to_string(), want);
        }
        for compute in [(7, 5), (11, 0), (3, 5)] {
            let error = Architecture::for_card(compute, &offered).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{}.{}", compute.0, compute.1)) && error.contains("sm_75, sm_80"),
                "{error}"
            );
        }
        assert!(Architecture::for_card((8, 0), &[]).unwrap_err().to_string().contains("offers none"));
    }
}
