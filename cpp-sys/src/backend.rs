//! Which reference runs which file: rules as data, read from the top.
//!
//! What decides is what the file says (architecture, tensor types); its name counts only where the metadata is silent,
//! and the folder that it lies in never. Type ids are ggml's; 39 is TL2 in bitnet.cpp's fork and MXFP4 in today's
//! llama.cpp, so it needs a second witness: the file type (39 in the fork) or a `bitnet` architecture.

use std::fmt;
use std::str::FromStr;

/// A C++ reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CppBackend {
    /// Microsoft's bitnet.cpp with its fork of llama.cpp.
    BitNet,
    /// Today's llama.cpp.
    Llama,
}

/// What a GGUF file says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// `general.file_type`.
    pub file_type: Option<u32>,
    /// ggml's ids of the tensors' types, each once.
    pub tensor_types: Vec<u32>,
    /// Name of the file, without folders.
    pub file_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub backend: CppBackend,
    pub reason: String,
}

/// A reference cannot run a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{backend} cannot run this model: {reason}")]
pub struct Unsupported {
    pub backend: &'static str,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown C++ backend `{0}`; valid: bitnet, llama")]
pub struct UnknownBackend(pub String);

/// A sign in a file.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// One of these tensor types.
    Type(&'static [u32]),
    /// Type 39 where it means TL2.
    Tl2,
    Architecture(&'static str),
    /// The metadata names no architecture and the file's name contains this.
    Name(&'static str),
    Any,
}

const TL1: u32 = 38;
const PRISM: &[u32] = &[142, 143];
/// TL2 in the fork, MXFP4 in llama.cpp.
const AMBIGUOUS: u32 = 39;
const IK: &[u32] = &[134, 135, 335];
const BITNET_ARCHITECTURES: &[&str] = &["bitnet", "bitnet-b1.58", "bitnet-25"];

/// The first rule whose sign is there decides.
const CHOICES: &[(Sign, CppBackend, &str)] = &[
    (Sign::Type(&[36, 37]), CppBackend::BitNet, "it has I2_S tensors, which only bitnet.cpp reads"),
    (Sign::Type(&[TL1]), CppBackend::BitNet, "it has TL1 tensors, which only bitnet.cpp reads"),
    (Sign::Tl2, CppBackend::BitNet, "it has TL2 tensors, which only bitnet.cpp reads"),
    (
        Sign::Architecture("bitnet-b1.58"),
        CppBackend::BitNet,
        "its architecture is bitnet-b1.58, which llama.cpp refuses",
    ),
    (Sign::Architecture("bitnet-25"), CppBackend::BitNet, "its architecture is bitnet-25, which llama.cpp refuses"),
    (Sign::Type(&[34, 35]), CppBackend::Llama, "it has TQ1_0 or TQ2_0 tensors, whose home is llama.cpp"),
    (Sign::Type(&[10, 11, 12, 13, 14, 15]), CppBackend::Llama, "it has K-quants, whose home is llama.cpp"),
    (Sign::Architecture("bitnet"), CppBackend::BitNet, "its architecture is bitnet"),
    (Sign::Architecture("llama"), CppBackend::Llama, "its architecture is llama"),
    (Sign::Name("i2_s"), CppBackend::BitNet, "its name says I2_S; the metadata names no architecture"),
    (Sign::Name("tl1"), CppBackend::BitNet, "its name says TL1; the metadata names no architecture"),
    (Sign::Name("tl2"), CppBackend::BitNet, "its name says TL2; the metadata names no architecture"),
    (Sign::Name("bitnet"), CppBackend::BitNet, "its name says bitnet; the metadata names no architecture"),
    (Sign::Any, CppBackend::Llama, "nothing in it belongs to bitnet.cpp"),
];

/// Any of these signs is a refusal.
const REFUSALS: &[(CppBackend, Sign, &str)] = &[
    (
        CppBackend::BitNet,
        Sign::Tl2,
        "TL2 kernels are generated for the very shapes of a model, and the worker is built without them",
    ),
    (
        CppBackend::BitNet,
        Sign::Type(&[TL1]),
        "TL1 kernels exist for ARM only, and are generated for one model's shapes",
    ),
    (CppBackend::BitNet, Sign::Architecture("bitnet-25"), "its sources do not know the architecture bitnet-25"),
    (CppBackend::BitNet, Sign::Architecture("qwen3"), "its sources of 2024 do not know the architecture qwen3"),
    (CppBackend::BitNet, Sign::Architecture("gemma3"), "its sources of 2024 do not know the architecture gemma3"),
    (CppBackend::BitNet, Sign::Architecture("maple"), "its sources of 2024 do not know the architecture maple"),
    (
        CppBackend::BitNet,
        Sign::Architecture("minicpm"),
        "its sources of 2024 have the scales of one MiniCPM as constants, whatever the file says",
    ),
    (
        CppBackend::BitNet,
        Sign::Type(&[AMBIGUOUS, 40, 41, 42]),
        "the tensor types MXFP4 (its number 39 is TL2 there), NVFP4, Q1_0 and Q2_0 are younger than its fork",
    ),
    (CppBackend::BitNet, Sign::Type(IK), "the tensor types IQ1_BN and IQ2_BN exist in ik_llama.cpp only"),
    (CppBackend::BitNet, Sign::Type(PRISM), "the tensor types PQ2_0 and PTQ1_0 exist in PrismML's llama.cpp only"),
    (CppBackend::Llama, Sign::Type(PRISM), "the tensor types PQ2_0 and PTQ1_0 exist in PrismML's llama.cpp only"),
    (CppBackend::Llama, Sign::Type(&[36, 37]), "llama.cpp has no I2_S or I8_S (its ids 36 and 37 are retired)"),
    (CppBackend::Llama, Sign::Type(&[TL1]), "llama.cpp has no TL1 (its id 38 is retired)"),
    (CppBackend::Llama, Sign::Tl2, "llama.cpp has no TL2 (it reads id 39 as MXFP4)"),
    (CppBackend::Llama, Sign::Type(IK), "the tensor types IQ1_BN and IQ2_BN exist in ik_llama.cpp only"),
    (
        CppBackend::Llama,
        Sign::Architecture("bitnet-b1.58"),
        "llama.cpp knows the architecture bitnet (SiLU), not bitnet-b1.58",
    ),
    (CppBackend::Llama, Sign::Architecture("bitnet-25"), "llama.cpp knows the architecture bitnet, not bitnet-25"),
];

impl Sign {
    fn is_in(self, facts: &ModelFacts) -> bool {
        let architecture = facts.architecture.as_deref();
        match self {
            Self::Type(types) => facts.tensor_types.iter().any(|id| types.contains(id)),
            Self::Tl2 => {
                facts.tensor_types.contains(&AMBIGUOUS)
                    && (facts.file_type == Some(39)
                        || architecture.is_some_and(|name| BITNET_ARCHITECTURES.contains(&name)))
            }
            Self::Architecture(name) => architecture == Some(name),
            Self::Name(part) => {
                let name = facts.file_name.as_deref().map(str::to_ascii_lowercase);
                architecture.is_none() && name.is_some_and(|name| name.contains(part))
            }
            Self::Any => true,
        }
    }
}

impl CppBackend {
    pub const ALL: [Self; 2] = [Self::BitNet, Self::Llama];

    /// The name on command lines and in folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitNet => "bitnet",
            Self::Llama => "llama",
        }
    }

    /// The name in sentences.
    pub fn title(self) -> &'static str {
        match self {
            Self::BitNet => "bitnet.cpp",
            Self::Llama => "llama.cpp",
        }
    }

    /// The static libraries that its worker links.
    pub fn libraries(self) -> &'static [&'static str] {
        match self {
            Self::BitNet => &["llama", "ggml"],
            Self::Llama => &["llama", "ggml", "ggml-cpu", "ggml-base"],
        }
    }

    /// The crate that carries its sources.
    pub fn package(self) -> &'static str {
        match self {
            Self::BitNet => "bitnet-cpp-sys",
            Self::Llama => "llama-cpp-sys-2",
        }
    }

    /// The variable with a user's own checkout.
    pub fn checkout_variable(self) -> &'static str {
        match self {
            Self::BitNet => "BITNET_CPP_DIR",
            Self::Llama => "LLAMA_CPP_DIR",
        }
    }

    /// The one command that builds its worker.
    pub fn setup_command(self) -> &'static str {
        match self {
            Self::BitNet => "cargo xtask setup-cpp bitnet",
            Self::Llama => "cargo xtask setup-cpp llama",
        }
    }

    pub fn detect(facts: &ModelFacts) -> Selection {
        let rule = CHOICES.iter().find(|(sign, ..)| sign.is_in(facts));
        // The last rule fits any file, so there always is one.
        let (backend, reason) = rule.map_or((Self::Llama, ""), |(_, backend, reason)| (*backend, *reason));
        Selection { backend, reason: reason.to_owned() }
    }

    /// Whether this reference, as our worker builds it, can run a file.
    ///
    /// # Errors
    /// The reason why not.
    pub fn supports(self, facts: &ModelFacts) -> Result<(), Unsupported> {
        let refusal = REFUSALS.iter().find(|(backend, sign, _)| *backend == self && sign.is_in(facts));
        refusal
            .map_or(Ok(()), |(_, _, reason)| Err(Unsupported { backend: self.title(), reason: (*reason).to_owned() }))
    }
}

impl fmt::Display for CppBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CppBackend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        Self::ALL.into_iter().find(|backend| backend.name() == name).ok_or_else(|| UnknownBackend(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(architecture: Option<&str>, file_type: Option<u32>, types: &[u32], name: &str) -> ModelFacts {
        ModelFacts {
            architecture: architecture.map(str::to_owned),
            file_type,
            tensor_types: types.to_vec(),
            file_name: Some(name.to_owned()),
        }
    }

    #[test]
    fn files_find_their_reference() {
        use CppBackend::{BitNet, Llama};
        let b158 = Some("bitnet-b1.58");
        for (facts, backend, bitnet, llama) in [
            (facts(b158, Some(40), &[0, 1, 36], "ggml-model-i2_s.gguf"), BitNet, true, false),
            (facts(b158, Some(1), &[0, 1], "f16.gguf"), BitNet, true, false),
            (facts(Some("bitnet"), Some(40), &[0, 36], "x"), BitNet, true, false),
            (facts(Some("bitnet"), Some(1), &[0, 1], "x"), BitNet, true, true),
            (facts(Some("bitnet"), Some(37), &[0, 35], "x"), Llama, true, true),
            (facts(Some("bitnet"), Some(39), &[0, 39], "x"), BitNet, false, false),
            (facts(Some("llama"), Some(39), &[0, 39], "x"), BitNet, false, false),
            (facts(Some("llama"), Some(38), &[0, 39], "x"), Llama, false, true),
            (facts(Some("llama"), Some(40), &[0, 36], "x"), BitNet, true, false),
            (facts(Some("bitnet"), Some(38), &[0, 38], "x"), BitNet, false, false),
            (facts(Some("llama"), Some(15), &[0, 12, 14], "bitnet.gguf"), Llama, true, true),
            (facts(Some("llama"), Some(3), &[0, 3], "ggml-i2_s.gguf"), Llama, true, true),
            (facts(Some("bitnet-25"), Some(40), &[0, 36], "x"), BitNet, false, false),
            (facts(Some("bitnet"), None, &[0, 135], "x"), BitNet, false, false),
            (facts(Some("qwen3"), Some(40), &[1, 36], "embedding.gguf"), BitNet, false, false),
            (facts(Some("gemma3"), Some(1), &[0, 1], "x"), Llama, false, true),
            (facts(Some("maple"), Some(37), &[0, 35], "x"), Llama, false, true),
            (facts(Some("minicpm"), Some(37), &[0, 35], "x"), Llama, false, true),
            (facts(Some("gpt2"), Some(1), &[0, 1], "x"), Llama, true, true),
            (facts(None, None, &[], "My-BitNet-2B.gguf"), BitNet, true, true),
            (facts(None, None, &[], "model.gguf"), Llama, true, true),
        ] {
            let chosen = CppBackend::detect(&facts);
            assert_eq!(chosen.backend, backend, "{facts:?}");
            assert!(!chosen.reason.is_empty());
            assert_eq!(BitNet.supports(&facts).is_ok(), bitnet, "bitnet.cpp: {facts:?}");
            assert_eq!(Llama.supports(&facts).is_ok(), llama, "llama.cpp: {facts:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for backend in CppBackend::ALL {
            assert_eq!(backend.name().parse(), Ok(backend));
            assert!(backend.setup_command().ends_with(backend.name()));
            assert_eq!(backend.to_string(), backend.name());
            assert!(backend.libraries().starts_with(&["llama", "ggml"]), "{:?}", backend.libraries());
            let title = backend.title().trim_end_matches(".cpp").to_uppercase();
            assert_eq!(backend.checkout_variable(), format!("{title}_CPP_DIR"));
            assert!(backend.package().starts_with(&format!("{}-cpp-sys", backend.name())));
        }
        let error = "LLAMA".parse::<CppBackend>().expect_err("names are lower case");
        assert!(error.to_string().contains("valid: bitnet, llama"));
    }
}
