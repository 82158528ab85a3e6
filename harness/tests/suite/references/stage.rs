//! Our engine on both sides, and a report of what came out.

use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::load;
use bitnet_harness::Failure;
use bitnet_harness::crossval::plant::flip;
use bitnet_harness::crossval::report::{Asked, CrossvalReport, Prompt, ReferenceFacts, SCHEMA};
use bitnet_harness::crossval::run::{self, BothLogits};
use bitnet_harness::crossval::{Ours, Reference, Section, Thresholds, Verdict};
use bitnet_harness::data::thresholds;
use bitnet_harness::env::Env;
use bitnet_harness::models;
use bitnet_harness::paths::Paths;
use bitnet_harness::provenance::{self, HostInfo};
use bitnet_harness::record::HarnessInfo;
use bitnet_kernels::best;
use bitnet_kernels::quant::I2sLayout;

pub(crate) const TEXT: &str = "In the beginning God created the heaven";

/// The tiny model's file.
pub(crate) fn tiny() -> Result<GgufFile, Failure> {
    Ok(GgufFile::open(Paths::discover(&Env::read()).golden.join("models/tiny-bitnet.gguf"))?)
}

/// Our engine on a file.
pub(crate) fn ours(file: GgufFile) -> Result<Ours, Failure> {
    let pool = models::pool(1)?;
    Ok(Ours::new(load(file, Some(I2sLayout::X86), best(), &pool)?, best(), pool))
}

/// Our engine on a copy with one wrong weight.
pub(crate) fn flipped(tensor: &str, row: usize, column: usize) -> Result<Ours, Failure> {
    let planted = flip(&tiny()?, tensor, row, column, I2sLayout::X86)?;
    if planted.before == planted.after {
        return Err(Failure::new(format_args!("{tensor}[{row}][{column}] did not change")));
    }
    ours(GgufFile::from_vec(planted.bytes)?)
}

/// The limits of the data for the tiny model against bitnet.cpp.
pub(crate) fn limits() -> Result<Thresholds, Failure> {
    Ok(thresholds::crossval(&Paths::discover(&Env::read()).golden, "bitnet", "tiny-bitnet", "i2_s")?)
}

pub(crate) fn asked(max_tokens: usize, trace: bool) -> Asked {
    Asked { positions: None, max_tokens, trace, cos_tol: None }
}

pub(crate) fn prompt(text: &str) -> Prompt {
    Prompt {
        prompt: text.to_owned(),
        template: "raw".to_owned(),
        text: text.to_owned(),
        add_special: true,
        parse_special: false,
    }
}

/// One prompt through both sides, judged.
pub(crate) fn report(
    ours: &mut Ours,
    reference: &mut dyn Reference,
    asked: &Asked,
) -> Result<(CrossvalReport, Vec<Option<BothLogits>>), Failure> {
    let limits = limits()?;
    let (found, data) = run::prompt(ours, reference, &prompt(TEXT), asked, &limits);
    let report = CrossvalReport {
        schema: SCHEMA,
        command: "references".to_owned(),
        verdict: Verdict::Unavailable,
        exit_code: Verdict::Unavailable.exit_code(),
        reason: String::new(),
        made_at: provenance::now(),
        harness: HarnessInfo { version: "test".to_owned(), commit: None },
        host: HostInfo::here(),
        model: ours.facts("tiny-bitnet.gguf"),
        reference_model: None,
        tokenizer: ours.tokenizer_facts(),
        ours: ours.version(),
        reference: Section::Ran(ReferenceFacts {
            backend: reference.name().to_owned(),
            chosen: "a test".to_owned(),
            version: reference.version(),
        }),
        asked: asked.clone(),
        limits,
        tokenizer_parity: Section::not_run("not asked for"),
        prompts: vec![found],
        performance: Section::not_run("not asked for"),
    };
    Ok((report.judged(), vec![data]))
}
