//! Byte-level BPE on a device (the CUDA kernels on the CPU), id by id against the CPU's tokenizer. Every launch runs in another
//! order of blocks, warps and lanes.

use super::bpe::pairs;
use crate::emulated::here;
use crate::tokenizer_support::*;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::byte_alphabet::encode;
use bitnet_engine::tokenizer::files::{Hints, load_path};
use bitnet_engine::tokenizer::gpu::{BYTES_A_THREAD, GpuTokenizer, LONGEST_PIECE, NotOnDevice, WhyCpu};
use bitnet_engine::tokenizer::{EncodeOptions, TokenKind, Tokenizer, VocabSource, from_gguf, from_source};
use bitnet_kernels::Pool;
use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::cuda::emu::Emulation;
use proptest::prelude::*;
use std::path::Path;
use std::sync::{Arc, OnceLock};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSE: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

fn device() -> Arc<dyn Device> {
    Arc::new(Emulation::new().unwrap())
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(2).unwrap())
}

fn on_device(tokenizer: &Arc<dyn Tokenizer>) -> GpuTokenizer {
    GpuTokenizer::new(&device(), Arc::clone(tokenizer)).unwrap()
}

/// Every pre-tokenizer's small vocabulary.
fn small() -> &'static [(&'static str, GpuTokenizer)] {
    static SMALL: OnceLock<Vec<(&'static str, GpuTokenizer)>> = OnceLock::new();
    SMALL.get_or_init(|| pairs().iter().map(|pair| (pair.pre, on_device(&pair.ours))).collect())
}

fn long_piece(tokenizer: &GpuTokenizer, text: &str, opts: EncodeOptions) -> bool {
    // What the device refuses, by the CPU's own splitter.
    let pre = bitnet_engine::tokenizer::pretokenize::by_name(tokenizer.pre().unwrap()).unwrap().pre;
    assert!(!opts.parse_special, "pieces between special tokens are shorter");
    pre.split(text.as_bytes()).iter().any(|piece| piece.len() > LONGEST_PIECE)
}

#[track_caller]
fn check(name: &str, tokenizer: &GpuTokenizer, texts: &[&str]) {
    for opts in [PLAIN, PARSE] {
        let (ids, report) = tokenizer.encode_on_device(texts, opts, pool()).unwrap().unwrap();
        assert_eq!(ids.len(), texts.len());
        for (text, ids) in texts.iter().zip(&ids) {
            assert_eq!(*ids, tokenizer.inner().encode(text, opts).unwrap(), "{name}, {opts:?}: {text:?}");
        }
        assert_eq!(report.on_device + report.long_pieces, texts.len(), "{name}: {report:?}");
        if opts == PLAIN {
            let long = texts.iter().filter(|text| long_piece(tokenizer, text, opts)).count();
            assert_eq!(report.long_pieces, long, "{name}: {report:?}");
        }
        assert_eq!((report.long_texts, report.why_cpu), (0, None));
        assert!(report.times.kernels > std::time::Duration::ZERO);
    }
}

#[test]
fn nasty_strings_have_the_cpus_ids() {
    if !here() {
        return;
    }
    let texts = nasty();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (name, tokenizer) in small() {
        check(name, tokenizer, &texts);
        // And one after the other in one text, so that pieces lie across stretches, tiles and threads.
        let all = texts.iter().filter(|t| t.len() < LONGEST_PIECE).copied().collect::<Vec<_>>().join(" x");
        check(name, tokenizer, &[&all, "y"]);
    }
}

#[test]
fn every_length_of_a_piece_at_every_place() {
    if !here() {
        return;
    }
    // Pieces of one character around the limits of a stretch (64), a warp (32), a piece (254) and a tile (1024).
    for (name, tokenizer) in small() {
        for unit in ["a", "é", "日", " ", "\n", "7", "!", "na"] {
            let texts: Vec<String> = [1, 31, 32, 33, 63, 64, 65, 127, 253, 254, 255, 256, 1023, 1024, 1025]
                .iter()
                .flat_map(|&n| {
                    let run = unit.repeat(n / unit.len());
                    [format!("{run}x y"), format!("a b{run}"), format!("{}{run} z", "c ".repeat(n % 40))]
                })
                .collect();
            check(name, tokenizer, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_texts_have_the_cpus_ids(texts in prop::collection::vec(any_text(), 1..40), copies in 1usize..4) {
        if !here() {
            return Ok(());
        }
        let long = texts.concat().repeat(copies);
        let texts: Vec<&str> = texts.iter().map(String::as_str).chain([&*long]).collect();
        for (name, tokenizer) in small() {
            check(name, tokenizer, &texts);
        }
    }
}

/// A vocabulary that merges whatever stands side by side, so that a piece that ends elsewhere has other ids.
fn glue(pre: &str, characters: &[&str], backwards: bool) -> GpuTokenizer {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|b| vec![b]).collect();
    let mut bytes: Vec<u8> = characters.iter().flat_map(|c| c.bytes()).collect();
    bytes.sort_unstable();
    bytes.dedup();
    let mut merges = Vec::new();
    let mut merge = |left: &[u8], right: &[u8]| {
        let text = [left, right].concat();
        if !tokens.contains(&text) {
            merges.push([encode(left), " ".into(), encode(right)].concat().into_bytes());
            tokens.push(text);
        }
    };
    let pairs: Vec<[u8; 2]> = bytes.iter().flat_map(|&a| bytes.iter().map(move |&b| [a, b])).collect();
    // Neither rises nor falls with the bytes; of two pairs each is first once.
    for i in 0..pairs.len() {
        let i = if backwards { pairs.len() - 1 - i } else { i };
        let pair = pairs[i * 389 % pairs.len()];
        merge(&pair[..1], &pair[1..]);
    }
    for i in 0..1500 {
        let (left, right) = (pairs[i * 7919 % pairs.len()], pairs[i * 104_729 % pairs.len()]);
        merge(&left, &right);
    }
    let source = VocabSource {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens: tokens.iter().map(|text| encode(text).into_bytes()).collect(),
        token_types: vec![TokenKind::Normal; tokens.len()],
        merges,
        ..VocabSource::default()
    };
    on_device(&from_source(source).unwrap().tokenizer)
}

#[test]
fn pieces_end_where_the_cpus_end() {
    if !here() {
        return;
    }
    let characters =
        ["s", "S", "r", "E", "l", "x", "\u{17f}", "é", "'", "!", "$", "1", "2", "٣", " ", "\n", "\r", "\t"];
    let mut seed = 7u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    // Each from few characters, so that runs of one kind come about.
    let texts: Vec<String> = (0..300)
        .map(|_| {
            let few: Vec<&str> = (0..=below(5)).map(|_| characters[below(characters.len())]).collect();
            (0..=below(60)).map(|_| few[below(few.len())]).collect()
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for pre in ["gpt-2", "llama-bpe", "qwen2", "smollm", "default"] {
        check(pre, &glue(pre, &characters, false), &texts);
        check(pre, &glue(pre, &characters, true), &texts);
    }
}

#[test]
fn bytes_that_are_no_text_have_the_cpus_ids() {
    if !here() {
        return;
    }
    // Special tokens of single bytes cut characters into pieces that are not UTF-8.
    let file = byte_level_json_file(train_byte_level("gpt-2", 700, true), "gpt-2", &[]);
    for pre in ["gpt-2", "llama-bpe", "default", "smollm"] {
        let mut source = source_of(&file, "gpt2", Some(pre));
        for byte in [0xa9, 0x97, 0x98, 0xf0, 0xcc] {
            source.tokens.push(vec![byte]);
            source.token_types.push(TokenKind::UserDefined);
        }
        let tokenizer = on_device(&from_source(source).unwrap().tokenizer);
        let text = "é ©日本 x😀y e\u{301}é日日 9😀 \u{301}\n日's ".repeat(9);
        let texts: Vec<&str> = (0..40).filter_map(|i| text.get(i..text.len() - i)).collect();
        let bytes: Vec<Vec<u8>> =
            texts.iter().map(|t| t.bytes().filter(|b| ![0xa9, 0x97, 0x98, 0xf0, 0xcc].contains(b)).collect()).collect();
        assert!(bytes.iter().any(|b| std::str::from_utf8(b).is_err()), "the cuts leave no stray bytes");
        for opts in [PLAIN, PARSE] {
            let (ids, report) = tokenizer.encode_on_device(&texts, opts, pool()).unwrap().unwrap();
            for (text, ids) in texts.iter().zip(&ids) {
                assert_eq!(*ids, tokenizer.inner().encode(text, opts).unwrap(), "{pre}: {text:?}");
            }
            assert_eq!(report.on_device, texts.len());
        }
    }
}

#[test]
fn real_vocabularies() {
    if !here() {
        return;
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
    let passage = std::fs::read_to_string(golden.join("texts/passage.txt")).unwrap();
    let strings: Vec<String> = nasty();
    let mut texts: Vec<&str> = strings.iter().map(String::as_str).collect();
    texts.extend([&*passage, CORPUS]);
    texts.extend(passage.split_inclusive("\n\n"));
    let gpt2 = load_path(&golden.join("vocab/gpt2"), &Hints::default()).unwrap().tokenizer;
    check("gpt2", &on_device(&gpt2), &texts);
    let file = GgufFile::open(golden.join("models/tiny-bitnet.gguf")).unwrap();
    let tiny = from_gguf(file.metadata()).unwrap().tokenizer;
    check("tiny-bitnet", &on_device(&tiny), &texts);
}

#[test]
fn the_device_is_asked_when_it_pays() {
    if !here() {
        return;
    }
    let (_, tokenizer) = &small()[0];
    let pool = Pool::new(1).unwrap();
    let text = CORPUS.repeat(BYTES_A_THREAD / CORPUS.len());
    let (short, long) = ([&*text], [&*text, CORPUS]);
    let (ids, report) = tokenizer.encode_batch_report(&short, PLAIN, &pool).unwrap();
    assert_eq!(report.why_cpu, Some(WhyCpu::Small { bytes: text.len(), from: BYTES_A_THREAD }));
    assert_eq!((ids.len(), report.on_device, report.bytes), (1, 0, text.len()));
    let (ids, report) = tokenizer.encode_batch_report(&long, PLAIN, &pool).unwrap();
    assert_eq!((report.why_cpu.clone(), report.on_device), (None, 2), "{report:?}");
    for (text, ids) in long.iter().zip(&ids) {
        assert_eq!(*ids, tokenizer.inner().encode(text, PLAIN).unwrap());
    }
    // As a tokenizer it does the same, and all else is that of the tokenizer inside.
    assert_eq!(tokenizer.encode_batch(&long, PLAIN, &pool).unwrap(), ids);
    assert_eq!(tokenizer.decode(&ids[1], false), CORPUS.as_bytes());
    assert_eq!(tokenizer.encode_batch(&[], PLAIN, &pool).unwrap(), Vec::<Vec<u32>>::new());
}

#[test]
fn texts_beyond_one_run() {
    if !here() {
        return;
    }
    let tokenizer = on_device(&pairs()[1].ours).with_batch_bytes(CORPUS.len());
    // Longer than a run: it stays here, and its neighbours go.
    let long = format!("{CORPUS} ");
    let (half, rest) = CORPUS.split_at(CORPUS.floor_char_boundary(CORPUS.len() / 2));
    let texts = ["Hello there", &*long, "", CORPUS, half, "x <|x|>y", rest, &*long, "y"];
    for opts in [PLAIN, PARSE] {
        let (ids, report) = tokenizer.encode_on_device(&texts, opts, pool()).unwrap().unwrap();
        assert_eq!((report.on_device, report.long_texts, report.long_pieces), (7, 2, 0));
        for (text, ids) in texts.iter().zip(&ids) {
            assert_eq!(*ids, tokenizer.inner().encode(text, opts).unwrap(), "{text:?}");
        }
    }
}

#[test]
fn what_does_not_run_there_says_so() {
    if !here() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/vocab/mistral-v1");
    let spm = load_path(&folder, &Hints::default()).unwrap().tokenizer;
    let error = GpuTokenizer::new(&device(), spm).unwrap_err();
    assert_eq!(error, NotOnDevice::NotByteLevel { kind: "spm", device: "cuda-emu".into() });
    assert!(error.to_string().contains("`spm` does not run on cuda-emu"), "{error}");
}
