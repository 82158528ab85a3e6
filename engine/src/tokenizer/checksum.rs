//! Naming the rule of a vocabulary that no fingerprint knows: by what it makes of one text.
//!
//! llama.cpp's converter recognises a pre-tokenizer by the digest of the ids that HuggingFace's own tokenizer gives a certain text
//! (`get_vocab_base_pre`). A vocabulary without its rule can be asked the other way round: the text is split by every rule there is, and
//! the one whose ids have a known digest is right, since a digest says vocabulary and rule at once.

use super::bpe::BpeTokenizer;
use super::pretokenize::{self, PreSpec};
use super::vocab::VocabSource;
use sha2::{Digest, Sha256};

/// llama.cpp's text: white space, emoji, numbers, scripts, quotes, contractions.
const TEXT: &str = "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u{200d}🌫️ (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL";

/// The first 64 bits of the digest, and the name that llama.cpp has for the rule. Facts of llama.cpp's `conversion/base.py`
/// (November 2026), which lists them by repository; some names have several.
static KNOWN: &[(u64, &str)] = &[
    (0x0ef9_807a_4087_ebef, "llama-bpe"),
    (0x9d03_2fcb_d550_1f4a, "falcon3"),
    (0x3ce8_3efd_a565_9b07, "gpt-2"),
    (0x0fe1_cf6e_da06_2318, "gpt-2"),
    (0x8550_5942_9035_d75a, "smollm"),
    (0xe636_dc30_a262_dcc0, "qwen2"),
    (0xd454_0891_389e_a895, "qwen2"),
    (0xd30d_75d9_059f_1aa2, "qwen35"),
    (0x1444_df51_289c_fa80, "qwen35"),
    (0x8aee_e386_0c56_296a, "falcon"),
    (0x049e_cf76_2987_1e30, "deepseek-llm"),
    (0x3477_15f5_4460_4f91, "deepseek-coder"),
    (0x8770_81d1_9cf6_996e, "deepseek-v3"),
    (0xb3f4_99bb_4255_f8ca, "deepseek-r1-qwen"),
    (0x63b9_7e42_5335_2e6f, "tekken"),
    (0xccc2_ef01_3c10_4be7, "gpt-4o"),
    (0xd353_350c_764d_8c3b, "llama4"),
    (0x0e94_33cb_bb16_1f89, "pixtral"),
    (0xa6b5_7017_d60e_6edb, "falcon-h1"),
    (0x6047_6e12_4377_6c4f, "falcon-h1"),
    (0x3eda_48b4_c4dc_7de7, "falcon-h1"),
    (0x48f8_e02c_0359_c0bb, "falcon-h1"),
    (0xb6e8_e151_8dc4_305b, "chatglm-bpe"),
    (0x81d7_2c73_48a9_f0eb, "chatglm-bpe"),
    (0xa133_6059_768a_55c9, "glm4"),
    (0x9ca2_dd61_8e8a_faf0, "glm4"),
    (0xcdf5_f353_2578_0597, "glm4"),
    (0x1431_a23e_583c_9743, "minerva-7b"),
    (0x7e57_df22_b1fe_23a7, "hunyuan"),
    (0xbba3_b336_6b64_6dbd, "hunyuan-dense"),
    (0x8121_2dc7_cdb7_e0c1, "kimi-k2"),
    (0x66b8_d4e1_9ab1_6c3b, "grok-2"),
    (0xb3d1_dd86_1f1d_4c5c, "jina-v2-de"),
    (0x2794_9a24_93fc_4a9f, "jina-v2-de"),
    (0x171a_eeed_d6fb_548d, "jina-v2-es"),
    (0xc769_9093_ba42_55a9, "jina-v1-en"),
    (0x7967_bfa4_98ad_e6b7, "jina-v2-code"),
    (0xa023_e9fd_c5a1_1f03, "jina-v5-nano"),
    (0xb6dc_8df9_98e1_cfbd, "olmo"),
    (0x35d9_1631_860c_815f, "starcoder"),
    (0x32d8_5c31_273f_8019, "stablelm2"),
    (0x6221_ad28_52e8_5ce9, "refact"),
    (0x9c22_27e4_dd92_2002, "command-r"),
    (0xd772_b220_ace2_baec, "tiny_aya"),
    (0xa859_4e3e_dff7_c29c, "dbrx"),
    (0xc136_ed14_d01c_2745, "smaug-bpe"),
    (0xc7ea_5862_a53e_4272, "poro-chat"),
    (0x7fc5_05bd_3104_ca10, "viking"),
    (0xb538_02fb_28e2_6d64, "jais"),
    (0xbc51_08ee_1eb6_a3d6, "jais-2"),
    (0x7b3e_7548_e430_8f52, "codeshell"),
    (0x3c30_d3ad_1d6b_6420, "bloom"),
    (0xbc01_ce58_980e_1db4, "gpt3-finnish"),
    (0x4e2b_24cc_4770_243d, "exaone"),
    (0x2085_e163_8f6c_377a, "exaone4"),
    (0x6c81_ce32_9e08_0288, "exaone-moe"),
    (0xfcac_e8b9_cac3_8ce8, "phi-2"),
    (0x6082_4e3c_0d94_01f8, "chameleon"),
    (0x8b5a_93ed_7040_5748, "roberta-bpe"),
    (0xad85_1be1_dba6_41f2, "gigachat"),
    (0xd4c8_f286_ea6b_520b, "megrez"),
    (0x7dec_8608_6fcc_38b6, "superbpe"),
    (0x1994_ffd0_1900_cfb3, "trillion"),
    (0x96a5_f08b_e625_9352, "bailingmoe"),
    (0x9b1b_e57e_70d2_0d95, "bailingmoe2"),
    (0xd5f1_dd6f_980f_ec56, "seed-coder"),
    (0xb0a6_b1c0_bd59_98eb, "a.x-4.0"),
    (0xf679_1d19_6f87_ce6b, "midm-2.0"),
    (0x169b_f029_6a13_c4d9, "lfm2"),
    (0xa1e1_63ec_ab2e_718a, "mellum"),
    (0xa0b6_4b43_85f1_2366, "modern-bert"),
    (0x49fc_0303_c9e0_d2c2, "afmoe"),
    (0x53e3_2597_6a6e_1423, "granite-docling"),
    (0xf4f3_7b6c_8eb9_ea29, "minimax-m2"),
    (0x4a2e_2aba_e11c_a2b8, "kormo"),
    (0x9d70_134b_369a_70e5, "youtu"),
    (0x1638_9f0a_1f51_ee53, "solar-open"),
    (0xb4b8_ca1f_9769_494f, "joyai-llm"),
    (0xe4d5_4df1_ebc1_f2b9, "kanana2"),
    (0x862f_8277_21df_9560, "f2llmv2"),
    (0x62f6_fb0a_6fd5_098c, "sarvam-moe"),
];

/// Digests and names.
pub(super) fn known() -> &'static [(u64, &'static str)] {
    KNOWN
}

/// The place in [`KNOWN`] of these ids of [`TEXT`], written as Python writes a list.
fn place(ids: &[u32]) -> Option<usize> {
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let digest = Sha256::digest(format!("[{list}]"));
    let (first, _) = digest.split_first_chunk::<8>()?;
    let first = u64::from_be_bytes(*first);
    KNOWN.iter().position(|(known, _)| *known == first)
}

/// The rule of a byte-level BPE. The tokenizer that a digest was made with may have put a BOS in front and an EOS behind, which the
/// vocabulary does not tell: where several lines fit, the first counts, and the more usual model stands first.
pub(super) fn identify(source: &VocabSource<&[u8]>) -> Option<&'static PreSpec> {
    let mut best: Option<(usize, &PreSpec)> = None;
    for ignore_merges in [false, true] {
        let source =
            VocabSource { pre: Some("gpt-2".to_owned()), ignore_merges: Some(ignore_merges), ..source.clone() };
        let mut tokenizer = BpeTokenizer::new(source, &mut Vec::new()).ok()?;
        let mut seen = Vec::new();
        for spec in pretokenize::KNOWN.iter().filter(|spec| spec.ignore_merges == ignore_merges) {
            if seen.contains(&spec.pre) {
                continue;
            }
            seen.push(spec.pre);
            let (bos, ids, eos) = tokenizer.ids_by(spec, TEXT);
            for (front, back) in [(None, None), (bos, None), (None, eos), (bos, eos)] {
                let all: Vec<u32> = front.into_iter().chain(ids.iter().copied()).chain(back).collect();
                let found = place(&all).and_then(|at| Some((at, pretokenize::by_name(KNOWN[at].1)?)));
                let better = |at| best.is_none_or(|(first, _)| at < first);
                best = found.filter(|&(at, found)| found.pre == spec.pre && better(at)).or(best);
            }
        }
    }
    best.map(|(_, spec)| spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::files::{self, FileSet};
    use std::collections::HashSet;
    use std::path::Path;

    fn gpt2() -> VocabSource {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/vocab/gpt2");
        let set = FileSet::from_path(&folder).expect("GPT-2's files");
        files::sources(&set).into_iter().find_map(|(_, source)| source.ok()).expect("GPT-2's vocabulary")
    }

    /// The digest in the table is llama.cpp's own, of the real vocabulary.
    #[test]
    fn a_vocabulary_names_its_rule() {
        let source = VocabSource { pre: None, ..gpt2() };
        assert_eq!(identify(&source.borrowed()).map(|spec| spec.name), Some("gpt-2"));
        // Two tokens change places that the text needs.
        let mut other = source.clone();
        let id = |text: &str| source.tokens.iter().position(|token| token == text.as_bytes()).expect(text);
        other.tokens.swap(id("Ġsure"), id("Ġtea"));
        assert_eq!(identify(&other.borrowed()), None);
    }

    #[test]
    fn names_of_the_table_are_rules() {
        let mut digests = HashSet::new();
        for (digest, name) in KNOWN {
            assert!(digests.insert(digest), "{name}: {digest:x} twice");
            assert!(pretokenize::by_name(name).is_some(), "{name} is not a known rule");
        }
    }
}
