//! A small valid model whose every key and tensor a test may spoil, and short ways to load and run it.
#![allow(dead_code, reason = "each test target uses its part")]
#![allow(unreachable_pub, reason = "shared by test targets")]

use bitnet_engine::device;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue, Metadata};
use bitnet_engine::inference::{Session, SessionOptions, Want};
use bitnet_engine::load::{LoadError, Loaded, load};
use bitnet_engine::model::Model;
use bitnet_engine::tokenizer::{EncodeOptions, SpecialTokens, Tokenizer, TokenizerError};
use bitnet_kernels::quant::{self, Format};
use bitnet_kernels::{Kernels, Pool};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub const ARCH: &str = "bitnet-b1.58";
pub const HIDDEN: usize = 128;
pub const FFN: usize = 256;
pub const KV: usize = 64;
/// Rows of the embedding; the tokenizer has fewer tokens, the rest is padding.
pub const VOCAB: usize = 288;
pub const CONTEXT: usize = 64;

pub fn format(name: &str) -> &'static Format {
    quant::by_name(name).unwrap()
}

/// Ternary weights of scale 0.05 without pattern.
pub fn ternary(rows: usize, cols: usize, salt: u32) -> Vec<f32> {
    (0..(rows * cols) as u32)
        .map(|i| {
            let bits = i.wrapping_add(salt).wrapping_mul(2_654_435_761);
            0.05 * (((bits ^ (bits >> 15)).wrapping_mul(0x85EB_CA6B) >> 16) % 3) as f32 - 0.05
        })
        .collect()
}

#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    pub ggml_type: u32,
    pub data: Vec<u8>,
}

/// A model in parts.
#[derive(Debug, Clone)]
pub struct Small {
    pub keys: Vec<(String, MetaValue)>,
    pub tensors: Vec<Tensor>,
}

impl Small {
    /// A valid BitNet b1.58 model of one block with I2_S layers, an f16 embedding and an SPM tokenizer of bytes.
    pub fn new() -> Self {
        let mut small = Self { keys: Vec::new(), tensors: Vec::new() };
        small.set("general.architecture", ARCH);
        for (name, value) in [
            ("vocab_size", VOCAB),
            ("context_length", CONTEXT),
            ("embedding_length", HIDDEN),
            ("block_count", 1),
            ("feed_forward_length", FFN),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("rope.dimension_count", 32),
        ] {
            small.set_arch(name, value as u32);
        }
        small.set_arch("attention.layer_norm_rms_epsilon", 1e-5f32);
        small.tokenizer();
        small.matrix("token_embd.weight", "f16", VOCAB, HIDDEN);
        for (part, rows, cols) in [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", KV, HIDDEN),
            ("attn_v", KV, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", FFN, HIDDEN),
            ("ffn_up", FFN, HIDDEN),
            ("ffn_down", HIDDEN, FFN),
        ] {
            small.matrix(&format!("blk.0.{part}.weight"), "i2_s", rows, cols);
        }
        for (name, width) in [
            ("blk.0.attn_norm", HIDDEN),
            ("blk.0.attn_sub_norm", HIDDEN),
            ("blk.0.ffn_norm", HIDDEN),
            ("blk.0.ffn_sub_norm", FFN),
            ("output_norm", HIDDEN),
        ] {
            let ones = vec![1.0; width];
            small.add(&format!("{name}.weight"), &[width as u64], "f32", &ones);
        }
        small
    }

    fn tokenizer(&mut self) {
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
        let mut kinds = vec![2i32, 3, 3];
        for byte in 0..=255u8 {
            tokens.push(format!("<0x{byte:02X}>"));
            kinds.push(6);
        }
        for text in std::iter::once("\u{2581}".to_owned()).chain(('a'..='z').map(String::from)) {
            tokens.push(text);
            kinds.push(1);
        }
        let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32)).collect();
        self.set("tokenizer.ggml.model", "llama");
        self.set("tokenizer.ggml.tokens", tokens);
        self.set("tokenizer.ggml.scores", scores);
        self.set("tokenizer.ggml.token_type", kinds);
        self.set("tokenizer.ggml.bos_token_id", 1u32);
        self.set("tokenizer.ggml.eos_token_id", 2u32);
    }

    /// Adds or replaces a key.
    pub fn set(&mut self, key: &str, value: impl Into<MetaValue>) -> &mut Self {
        self.remove(key);
        self.keys.push((key.to_owned(), value.into()));
        self
    }

    /// [`Small::set`] below the architecture's name.
    pub fn set_arch(&mut self, name: &str, value: impl Into<MetaValue>) -> &mut Self {
        self.set(&format!("{ARCH}.{name}"), value)
    }

    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(k, _)| k != key);
        self
    }

    pub fn remove_arch(&mut self, name: &str) -> &mut Self {
        self.remove(&format!("{ARCH}.{name}"))
    }

    /// Adds or replaces a tensor of zeros and ternary values that every format can hold.
    pub fn matrix(&mut self, name: &str, kind: &str, rows: usize, cols: usize) -> &mut Self {
        let salt = name.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
        self.add(name, &[cols as u64, rows as u64], kind, &ternary(rows, cols, salt))
    }

    /// Adds or replaces a tensor.
    pub fn add(&mut self, name: &str, dims: &[u64], kind: &str, values: &[f32]) -> &mut Self {
        let cols = dims[0] as usize;
        let data = (format(kind).pack)(values, values.len() / cols, cols).unwrap();
        self.put(name, dims, format(kind).ggml_type, data)
    }

    /// Adds or replaces a tensor's bytes.
    pub fn put(&mut self, name: &str, dims: &[u64], ggml_type: u32, data: Vec<u8>) -> &mut Self {
        let tensor = Tensor { name: name.to_owned(), dims: dims.to_vec(), ggml_type, data };
        match self.tensors.iter_mut().find(|t| t.name == name) {
            Some(old) => *old = tensor,
            None => self.tensors.push(tensor),
        }
        self
    }

    pub fn drop_tensor(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|t| t.name != name);
        self
    }

    pub fn data(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.tensors.iter_mut().find(|t| t.name == name).unwrap().data
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new(3, 32).unwrap();
        for (key, value) in &self.keys {
            writer.meta(key, value.clone()).unwrap();
        }
        for t in &self.tensors {
            writer.tensor(&t.name, &t.dims, t.ggml_type, t.data.as_slice()).unwrap();
        }
        writer.into_vec().unwrap()
    }

    pub fn load(&self) -> Result<Loaded, LoadError> {
        load_bytes(self.bytes())
    }
}

pub fn kernels() -> &'static dyn Kernels {
    device::kernels("auto").unwrap()
}

pub fn pool(threads: usize) -> Arc<Pool> {
    Arc::new(Pool::new(threads).unwrap())
}

pub fn load_bytes(bytes: Vec<u8>) -> Result<Loaded, LoadError> {
    load(GgufFile::from_vec(bytes)?, None, kernels(), &pool(1))
}

pub fn session(model: &Arc<Model>, context: Option<usize>, chunk: usize) -> Session {
    let options = SessionOptions { context, chunk, ..SessionOptions::new(kernels(), pool(1)) };
    Session::new(Arc::clone(model), options).unwrap()
}

/// Logits of every token as bits.
pub fn logits_bits(session: &mut Session, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut out = Vec::new();
    session
        .forward(tokens, Want::All, &mut |_, logits| out.push(logits.iter().map(|l| l.to_bits()).collect()))
        .unwrap();
    out
}

/// Where the trained small model lies.
pub fn tiny_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden/models/tiny-bitnet.gguf")
}

/// The trained small model, loaded once.
pub fn tiny() -> &'static Loaded {
    static TINY: OnceLock<Loaded> = OnceLock::new();
    TINY.get_or_init(|| load(GgufFile::open(tiny_path()).unwrap(), None, kernels(), &pool(1)).unwrap())
}

/// The same file with other metadata: `keep` says which keys stay.
pub fn with_keys(file: &GgufFile, keep: impl Fn(&str) -> bool) -> Vec<u8> {
    let metadata: &Metadata = file.metadata();
    let mut writer = GgufWriter::new(3, file.alignment()).unwrap();
    writer.copy_all_meta(metadata, keep).unwrap();
    for view in file.views() {
        writer.copy_tensor(view).unwrap();
    }
    writer.into_vec().unwrap()
}

/// The model's tokenizer; one token may be chosen to end a generation, and one to be a control token of a text.
pub struct Odd {
    pub end: Option<u32>,
    pub control: Option<(u32, &'static str)>,
}

impl Tokenizer for Odd {
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        tiny().tokenizer.encode_bytes(bytes, opts)
    }
    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        match self.control {
            Some((control, text)) if control == id => Some(Cow::Borrowed(if special { text.as_bytes() } else { b"" })),
            _ => tiny().tokenizer.token_bytes(id, special),
        }
    }
    fn vocab_size(&self) -> usize {
        tiny().tokenizer.vocab_size()
    }
    fn special(&self) -> &SpecialTokens {
        tiny().tokenizer.special()
    }
    fn is_eog(&self, id: u32) -> bool {
        self.end == Some(id)
    }
    fn kind(&self) -> &'static str {
        "test"
    }
    fn pre(&self) -> Option<&str> {
        None
    }
}
