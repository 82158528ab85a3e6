//! What was found about a card, for people.

use super::{CardReport, Clock};
use crate::bench::ratio::Spread;
use crate::bench::table::digits;

/// The report as one page of text.
pub fn page(report: &CardReport) -> String {
    let CardReport { model, bits, copy_bytes_per_second: copy, .. } = report;
    let mut out = String::new();
    let commit = report.commit.as_deref().unwrap_or("unknown");
    line!(out, "{}: {}, commit {commit:.12}, {}", report.device, report.about, report.at);
    if !report.optimised {
        line!(out, "the host's part is a debug build: `cargo run --release -p xtask -- bench-gpu`");
    }
    line!(
        out,
        "{} ({}, {}), {:.2} GB, of which {:.2} GB are read a token",
        model.name,
        model.architecture,
        model.quant,
        1e-9 * model.bytes as f64,
        1e-9 * model.weight_bytes as f64
    );
    for (chunk, digest) in &bits.card {
        let verdict = if *digest == bits.oracle { "the scalar oracle's" } else { "NOT the scalar oracle's" };
        line!(out, "logits of {} tokens in chunks of {chunk}: {verdict}, {digest}", bits.tokens);
    }
    let verdict = if bits.greedy[0] == bits.greedy[1] { "the processor's" } else { "NOT the processor's" };
    line!(out, "{} greedy tokens: {verdict}", bits.greedy[1].len());
    if report.decode.is_empty() && report.prefill.is_empty() {
        line!(out, "not measured: other bits have no speed");
        return out;
    }
    line!(
        out,
        "memory is copied at {} GB/s ({}..{}, read and written)",
        digits(1e-9 * copy.median),
        digits(1e-9 * copy.least),
        digits(1e-9 * copy.most)
    );
    let rate = |s: &Spread| format!("{} ({}..{})", digits(s.median), digits(s.least), digits(s.most));
    let clock = |card: &Clock| {
        let tokens = card.tokens_per_second.as_ref();
        (tokens.map_or("a token is more than one recording".to_owned(), rate), card.launches)
    };
    let generate = report.generate;
    line!(
        out,
        "\n| context | generate {generate}, tokens/s | without the host | launches a token | GB a token | bound, tokens/s | of the bound |"
    );
    line!(out, "|---|---|---|---|---|---|---|");
    for row in &report.decode {
        let (rate, bytes, share) = (rate(&row.tokens_per_second), 1e-9 * row.token_bytes as f64, 100.0 * row.share);
        let bound = digits(row.bound);
        let (alone, launches) = clock(&row.card);
        line!(out, "| {} | {rate} | {alone} | {launches} | {bytes:.3} | {bound} | {share:.1} % |", row.context);
    }
    line!(out, "\n| prompt | tokens/s, in chunks of {} | by the card's clock | launches |", report.chunk);
    line!(out, "|---|---|---|---|");
    for row in &report.prefill {
        let (card, launches) = clock(&row.card);
        line!(out, "| {} | {} | {card} | {launches} |", row.tokens, rate(&row.tokens_per_second));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::gpu::{Bits, Decode, Prefill};
    use crate::bench::peers::ModelFile;
    use crate::provenance::HostInfo;

    fn report() -> CardReport {
        let one = |v| Spread { median: v, least: v / 2.0, most: v * 2.0 };
        CardReport {
            outcome: "measured".to_owned(),
            at: "now".to_owned(),
            commit: Some("0123456789abcdef".to_owned()),
            host: HostInfo::here(),
            optimised: false,
            device: "cuda:0".to_owned(),
            about: "a card".to_owned(),
            model: ModelFile {
                name: "m.gguf".to_owned(),
                bytes: 1_300_000_000,
                weight_bytes: 1_200_000_000,
                architecture: "bitnet-b1.58".to_owned(),
                quant: "i2_s".to_owned(),
            },
            bits: Bits {
                tokens: 9,
                oracle: "aa".to_owned(),
                card: vec![(1, "aa".to_owned()), (9, "aa".to_owned())],
                greedy: [vec![1, 2], vec![1, 2]],
            },
            copy_bytes_per_second: one(3e12),
            generate: 64,
            decode: vec![Decode {
                context: 128,
                tokens_per_second: one(1500.0),
                card: Clock { tokens_per_second: Some(one(1600.0)), launches: 335 },
                token_bytes: 1_212_000_000,
                bound: 2475.0,
                share: 0.606,
            }],
            chunk: 512,
            prefill: vec![Prefill {
                tokens: 512,
                tokens_per_second: one(20_000.0),
                card: Clock { tokens_per_second: Some(one(22_000.0)), launches: 400 },
            }],
        }
    }

    #[test]
    fn a_page_has_figures_and_the_bits() {
        let page = page(&report());
        for words in [
            "cuda:0: a card, commit 0123456789ab, now",
            "the host's part is a debug build",
            "m.gguf (bitnet-b1.58, i2_s), 1.30 GB, of which 1.20 GB are read a token",
            "logits of 9 tokens in chunks of 1: the scalar oracle's, aa",
            "2 greedy tokens: the processor's",
            "memory is copied at 3000 GB/s (1500..6000, read and written)",
            "| context | generate 64, tokens/s | without the host | launches a token | GB a token | bound, tokens/s | of the bound |",
            "| 128 | 1500 (750.0..3000) | 1600 (800.0..3200) | 335 | 1.212 | 2475 | 60.6 % |",
            "| 512 | 20000 (10000..40000) | 22000 (11000..44000) | 400 |",
        ] {
            assert!(page.contains(words), "{words:?} is not in\n{page}");
        }
    }

    #[test]
    fn a_token_that_is_not_one_recording_has_no_time_of_its_own() {
        let mut report = report();
        report.decode[0].card.tokens_per_second = None;
        let page = page(&report);
        assert!(page.contains("| a token is more than one recording | 335 | 1.212 |"), "{page}");
    }

    #[test]
    fn other_bits_are_said() {
        let mut wrong = report();
        assert!(wrong.bits.equal());
        wrong.bits.card[0].1 = "bb".to_owned();
        (wrong.decode, wrong.prefill) = (Vec::new(), Vec::new());
        let page = page(&wrong);
        assert!(!wrong.bits.equal() && page.contains("in chunks of 1: NOT the scalar oracle's, bb"), "{page}");
        assert!(page.ends_with("not measured: other bits have no speed\n"), "{page}");
        let mut wrong = report();
        wrong.bits.greedy[1] = vec![1, 3];
        assert!(!wrong.bits.equal() && super::page(&wrong).contains("2 greedy tokens: NOT the processor's"));
    }
}
