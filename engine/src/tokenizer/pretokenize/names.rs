//! The names of `tokenizer.ggml.pre`, and what comes with each: all that llama.cpp knows (its src/llama-vocab.cpp, of the
//! crate llama-cpp-sys-2 0.1.161), and `falcon_e`.

use super::Pre;
use super::rules::{self, Rule};

/// What comes with a name in `tokenizer.ggml.pre`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreSpec {
    /// The name.
    pub name: &'static str,
    /// The splitting rule.
    pub pre: Pre,
    /// A piece that is a token as it stands is that token, whatever the merges say.
    pub ignore_merges: bool,
    /// BOS is put in front unless `add_bos_token` says otherwise.
    pub add_bos: bool,
    /// Two texts are put together with a separator between. One text is not changed by it.
    pub add_sep: bool,
    /// llama.cpp takes spaces in front of punctuation off a decoded text. We never do: tokens are shown as they come.
    pub clean_spaces: bool,
    /// Without `bos_token_id` there is no BOS, whatever llama.cpp's default id is.
    pub no_bos: bool,
}

/// Flags of a line of [`KNOWN`].
const PLAIN: u8 = 0;
const IGNORE_MERGES: u8 = 1;
const ADD_BOS: u8 = 2;
const ADD_SEP: u8 = 4;
const KEEP_SPACES: u8 = 8;
const NO_BOS: u8 = 16;
const LLAMA3: u8 = IGNORE_MERGES | ADD_BOS;

const fn spec(name: &'static str, pre: Pre, flags: u8) -> PreSpec {
    PreSpec {
        name,
        pre,
        ignore_merges: flags & IGNORE_MERGES != 0,
        add_bos: flags & ADD_BOS != 0,
        add_sep: flags & ADD_SEP != 0,
        clean_spaces: flags & KEEP_SPACES == 0,
        no_bos: flags & NO_BOS != 0,
    }
}

const fn data(name: &'static str, rule: &'static Rule, flags: u8) -> PreSpec {
    spec(name, Pre::Rule(rule), flags)
}

/// Every known name. To add one: a line here, and one in the table of rules if the rule is new.
#[rustfmt::skip]
pub static KNOWN: &[PreSpec] = &[
    spec("default", Pre::Default, PLAIN),
    spec("gpt-2", Pre::Gpt2, PLAIN),
    spec("phi-2", Pre::Gpt2, PLAIN),
    spec("mpt", Pre::Gpt2, PLAIN),
    spec("olmo", Pre::Gpt2, PLAIN),
    spec("jais", Pre::Gpt2, PLAIN),
    spec("exaone4", Pre::Gpt2, PLAIN),
    spec("jina-es", Pre::Gpt2, PLAIN),
    spec("jina-de", Pre::Gpt2, PLAIN),
    spec("jina-v2-es", Pre::Gpt2, PLAIN),
    spec("jina-v2-de", Pre::Gpt2, PLAIN),
    spec("gigachat", Pre::Gpt2, PLAIN),
    spec("a.x-4.0", Pre::Gpt2, PLAIN),
    spec("mellum", Pre::Gpt2, PLAIN),
    spec("modern-bert", Pre::Gpt2, PLAIN),
    spec("trillion", Pre::Gpt2, KEEP_SPACES),
    spec("granite-docling", Pre::Gpt2, KEEP_SPACES),
    spec("jina-v1-en", Pre::Gpt2, ADD_SEP),
    spec("jina-v2-code", Pre::Gpt2, ADD_SEP),
    spec("roberta-bpe", Pre::Gpt2, ADD_SEP),
    spec("llama-bpe", Pre::Llama3, LLAMA3),
    spec("llama3", Pre::Llama3, LLAMA3),
    spec("llama-v3", Pre::Llama3, LLAMA3),
    spec("falcon3", Pre::Llama3, LLAMA3),
    spec("pixtral", Pre::Llama3, LLAMA3),
    spec("falcon-h1", Pre::Llama3, LLAMA3),
    spec("midm-2.0", Pre::Llama3, LLAMA3),
    spec("lfm2", Pre::Llama3, LLAMA3),
    spec("jina-v5-nano", Pre::Llama3, LLAMA3),
    spec("dbrx", Pre::Llama3, PLAIN),
    spec("smaug-bpe", Pre::Llama3, PLAIN),
    spec("chatglm-bpe", Pre::Llama3, NO_BOS),
    spec("glm4", Pre::Llama3, IGNORE_MERGES | NO_BOS),
    spec("glm5", Pre::Llama3, IGNORE_MERGES | NO_BOS),
    spec("smollm", Pre::Smollm, KEEP_SPACES),
    spec("starcoder", Pre::Smollm, PLAIN),
    spec("refact", Pre::Smollm, PLAIN),
    spec("command-r", Pre::Smollm, KEEP_SPACES),
    spec("codeshell", Pre::Smollm, PLAIN),
    spec("exaone", Pre::Smollm, PLAIN),
    spec("minerva-7b", Pre::Smollm, PLAIN),
    spec("mellum2", Pre::Smollm, PLAIN),
    spec("qwen2", Pre::Qwen2, KEEP_SPACES),
    spec("stablelm2", Pre::Qwen2, PLAIN),
    spec("megrez", Pre::Qwen2, PLAIN),
    spec("deepseek-r1-qwen", Pre::Qwen2, KEEP_SPACES),
    spec("kormo", Pre::Qwen2, KEEP_SPACES),
    spec("f2llmv2", Pre::Qwen2, KEEP_SPACES),
    spec("hunyuan", Pre::Qwen2, KEEP_SPACES),
    spec("solar-open", Pre::Qwen2, KEEP_SPACES),
    spec("grok-2", Pre::Qwen2, KEEP_SPACES),
    data("falcon", &rules::FALCON, PLAIN),
    data("falcon_e", &rules::FALCON_E, PLAIN),
    data("qwen35", &rules::QWEN35, KEEP_SPACES),
    data("tekken", &rules::TEKKEN, LLAMA3 | KEEP_SPACES),
    data("gpt-4o", &rules::GPT4O, KEEP_SPACES),
    data("llama4", &rules::GPT4O, KEEP_SPACES),
    data("kanana2", &rules::GPT4O, KEEP_SPACES),
    data("talkie", &rules::GPT4O, KEEP_SPACES),
    data("minimax-m2", &rules::GPT4O, KEEP_SPACES),
    data("granite-embed-multi-97m", &rules::GPT4O, IGNORE_MERGES | KEEP_SPACES),
    data("tiny_aya", &rules::TINY_AYA, KEEP_SPACES),
    data("cohere2moe", &rules::TINY_AYA, KEEP_SPACES),
    data("kimi-k2", &rules::KIMI_K2, KEEP_SPACES),
    data("youtu", &rules::YOUTU, IGNORE_MERGES | KEEP_SPACES),
    data("deepseek-v3", &rules::DEEPSEEK_V3, KEEP_SPACES),
    data("hunyuan-dense", &rules::DEEPSEEK_V3, KEEP_SPACES),
    data("joyai-llm", &rules::DEEPSEEK_V3, KEEP_SPACES),
    data("hy_v4", &rules::DEEPSEEK_V3, KEEP_SPACES),
    data("spark2_5", &rules::SPARK, KEEP_SPACES),
    data("afmoe", &rules::AFMOE, KEEP_SPACES),
    data("deepseek-coder", &rules::DEEPSEEK_CODER, KEEP_SPACES),
    data("deepseek-llm", &rules::DEEPSEEK_LLM, KEEP_SPACES),
    data("poro-chat", &rules::BLOOM, KEEP_SPACES),
    data("bloom", &rules::BLOOM, PLAIN),
    data("gpt3-finnish", &rules::BLOOM, PLAIN),
    data("viking", &rules::VIKING, KEEP_SPACES),
    data("superbpe", &rules::SUPERBPE, KEEP_SPACES),
    data("chameleon", &rules::CHAMELEON, ADD_BOS | KEEP_SPACES),
    data("jais-2", &rules::JAIS2, PLAIN),
    data("minicpm5", &rules::MINICPM5, IGNORE_MERGES),
    data("laguna", &rules::LAGUNA, KEEP_SPACES),
    data("ufakzeka", &rules::UFAKZEKA, KEEP_SPACES),
    data("seed-coder", &rules::SEED_CODER, KEEP_SPACES),
    data("bailingmoe", &rules::BAILINGMOE, KEEP_SPACES),
    data("bailingmoe2", &rules::BAILINGMOE, KEEP_SPACES),
    data("llada-moe", &rules::BAILINGMOE, KEEP_SPACES),
    data("exaone-moe", &rules::EXAONE_MOE, PLAIN),
    spec("gemma4", Pre::Pieces, PLAIN),
    spec("granite-embed-multi-311m", Pre::Pieces, PLAIN),
    spec("sarvam-moe", Pre::Pieces, KEEP_SPACES),
];

/// Names that llama.cpp knows and that cannot be computed here, and why.
pub static REFUSED: &[(&str, &str)] = &[
    (
        "mmbert",
        "it puts a space in front of every line, and whether its own tokenizer does is not known; use its tokenizer.json",
    ),
    ("whitespace", "its words are raw text in lower case, without a token for every byte; use its tokenizer.json"),
];

/// The entry of `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static PreSpec> {
    KNOWN.iter().find(|s| s.name == name)
}

/// Known names, comma separated, for messages.
#[must_use]
pub fn known_names() -> String {
    KNOWN.iter().map(|s| s.name).collect::<Vec<_>>().join(", ")
}

/// The first name whose rule is these expressions, one pass each.
pub(crate) fn by_expressions(passes: &[&str]) -> Option<&'static str> {
    let same = |spec: &&PreSpec| match spec.pre {
        Pre::Gpt2 => passes == [Pre::GPT2],
        Pre::Llama3 => passes == [Pre::LLAMA3],
        Pre::Qwen2 => passes == [Pre::QWEN2],
        Pre::Smollm => passes == [r"\p{N}", Pre::GPT2],
        Pre::Default => passes == [r"[\p{P}\$\+<=>\^~\|]+", Pre::GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        Pre::Rule(rule) => rule.expressions() == passes,
        Pre::Pieces => false,
    };
    KNOWN.iter().find(same).map(|spec| spec.name)
}
