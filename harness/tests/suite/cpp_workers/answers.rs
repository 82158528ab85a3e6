//! What the workers say.

use super::{Model, PATIENCE, Stage, check};
use bitnet_harness::Failure;
use bitnet_harness::crossval::distance;
use cpp_sys::{CacheType, CppBackend, CppError, LoadOptions, Logits, Positions, Session, Workers};
use std::collections::BTreeMap;

const TEXT: &str = "In the beginning God created the heaven and the earth.";

pub(crate) fn hello(stage: &Stage) -> Result<(), Failure> {
    let session = stage.session(PATIENCE)?;
    let (hello, receipt) = (session.hello(), Workers::new(&stage.paths.target).preflight(stage.backend)?.build);
    let said = cpp_sys::BuildInfo {
        program_sha256: receipt.program_sha256.clone(),
        built_at: receipt.built_at,
        build_seconds: receipt.build_seconds,
        ..hello.build.clone()
    };
    check(said == receipt, format_args!("the program says {said:?}, its receipt {receipt:?}"))?;
    check(hello.system.contains("AVX") || !cfg!(target_arch = "x86_64"), format_args!("no system: {}", hello.system))?;
    for name in ["bitnet", "llama"] {
        check(hello.architectures.iter().any(|known| known == name), format_args!("it does not know {name}"))?;
    }
    let tokens = stage.loaded(PATIENCE)?.0.tokenize(TEXT, true, false)?;
    check(tokens.len() > 5, format_args!("{tokens:?}"))
}

pub(crate) fn steps(stage: &Stage) -> Result<(), Failure> {
    let (mut session, Model { loaded, .. }) = stage.loaded(PATIENCE)?;
    let tokens = session.tokenize(TEXT, true, false)?;
    let trace = session.trace(&tokens, &[])?;
    // Bookkeeping of ours that no graph of theirs has.
    let ours = loaded.model.plan.iter().map(|step| step.name.as_str());
    let ours: Vec<&str> = ours.filter(|name| !name.ends_with(".cache") && *name != "select_rows").collect();
    let mut theirs = BTreeMap::new();
    for step in &trace {
        let name = step.step.as_deref().unwrap_or("a step without a name");
        let seen = theirs.insert(name, (step.rows, step.width, step.values.len()));
        check(seen.is_none(), format_args!("{name} ({}) comes twice", step.tensor))?;
        check(step.rows == tokens.len(), format_args!("{name} has {} rows", step.rows))?;
        check(step.values.iter().all(|value| value.is_finite()), format_args!("{name} is not finite"))?;
    }
    let missing: Vec<&&str> = ours.iter().filter(|name| !theirs.contains_key(**name)).collect();
    check(missing.is_empty(), format_args!("steps that are missing: {missing:?}"))?;
    check(theirs.len() == ours.len(), format_args!("{} steps, ours has {}", theirs.len(), ours.len()))?;
    let config = &loaded.model.config;
    for (name, width) in [
        ("token_embd", config.embedding_length),
        ("blk.0.attn_q_rope", config.query_width()),
        ("blk.1.attn_k_rope", config.kv_width()),
        ("blk.0.ffn_act", config.feed_forward_length),
        ("output", config.vocab_size),
    ] {
        let found = theirs.get(name).map(|(_, width, _)| *width);
        check(found == Some(width), format_args!("{name} has the width {found:?}, ours {width}"))?;
    }
    // A trace is the computation that gives the logits.
    let logits = session.logits(&tokens, &Positions::All, 512)?;
    let last = trace.iter().find(|step| step.step.as_deref() == Some("output"));
    check(last.is_some_and(|last| last.values == logits.values), "the step `output` is not the logits")?;
    // Asked for by name, a step is the same.
    let one = session.trace(&tokens, &["blk.1.attn".to_owned()])?;
    let same = trace.iter().find(|step| step.step.as_deref() == Some("blk.1.attn"));
    check(one.len() == 1 && one.first() == same, "one step alone is another than among all")
}

pub(crate) fn batches(stage: &Stage) -> Result<(), Failure> {
    let (mut session, Model { loaded, .. }) = stage.loaded(PATIENCE)?;
    let tokens = session.tokenize(TEXT, true, false)?;
    let all = session.logits(&tokens, &Positions::All, 512)?;
    check(all.vocab == loaded.model.config.vocab_size, format_args!("a vocabulary of {}", all.vocab))?;
    for chunk in [1, 3] {
        let parts = session.logits(&tokens, &Positions::All, chunk)?;
        // Another order of sums in f32, which at int8 activations tips some roundings: up to 0.32 in logits of about 10.
        let cosines = all.rows().zip(parts.rows()).map(|(a, b)| distance::cosine(a, b));
        let least = cosines.fold(1.0_f64, f64::min);
        check(least > 0.999, format_args!("{chunk} tokens a batch: a cosine of {least}"))?;
    }
    let list = vec![0, 3, tokens.len() - 1];
    let some = session.logits(&tokens, &Positions::List(list.clone()), 512)?;
    let row = |logits: &Logits, index: usize| logits.rows().nth(index).map(<[f32]>::to_vec);
    for (index, position) in list.into_iter().enumerate() {
        // Rows that nobody asked for are left out of the last block, which changes no sum of the others.
        let apart = row(&some, index).zip(row(&all, position)).map(|(a, b)| distance::max_abs(&a, &b));
        check(apart.is_some_and(|apart| apart < 0.05), format_args!("position {position} alone: {apart:?}"))?;
    }
    // Greedy tokens are the largest logits.
    let made = session.generate(&tokens, 4)?;
    let last = row(&all, tokens.len() - 1).unwrap_or_default();
    let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b]));
    check(made.tokens.first().map(|id| *id as usize) == best, format_args!("{made:?}, the largest is {best:?}"))
}

pub(crate) fn models(stage: &Stage) -> Result<(), Failure> {
    let (mut session, model) = stage.loaded(PATIENCE)?;
    let tokens = session.tokenize(TEXT, true, false)?;
    let first = session.logits(&tokens, &Positions::All, 512)?;
    let text = session.detokenize(&tokens, false)?;
    check(text == TEXT.as_bytes(), format_args!("{}", String::from_utf8_lossy(&text)))?;
    session.load(&model.path, LoadOptions { vocab_only: true, ..LoadOptions::default() })?;
    check(session.tokenize(TEXT, true, false)? == tokens, "a vocabulary alone reads another text")?;
    refusal(&mut session, &tokens, "only the vocabulary is loaded")?;
    // An exact cache, where there is one.
    match (stage.backend, session.load(&model.path, LoadOptions { cache: CacheType::F32, ..LoadOptions::default() })) {
        (CppBackend::BitNet, Err(CppError::Refused { stderr, .. })) => {
            let said = stderr.iter().any(|line| line.contains("V cache") && line.contains("flash_attn"));
            check(said, format_args!("{stderr:?}"))?;
        }
        (CppBackend::Llama, Ok(_)) => {
            let exact = session.logits(&tokens, &Positions::All, 512)?;
            let apart = distance::max_abs(&exact.values, &first.values);
            check(exact != first && apart < 0.1, format_args!("an f32 cache changes logits by {apart}"))?;
        }
        (_, other) => return Err(Failure::new(format_args!("a cache in f32: {other:?}"))),
    }
    session.load(&model.path, LoadOptions { context: 4, ..LoadOptions::default() })?;
    refusal(&mut session, &tokens, "1 to 4 fit the context")?;
    session.load(&model.path, LoadOptions::default())?;
    check(
        session.logits(&tokens, &Positions::All, 512)? == first,
        "the model computes something else the second time",
    )?;
    check(session.timings().of("load").calls >= 4, "not one session")
}

fn refusal(session: &mut Session, tokens: &[u32], words: &str) -> Result<(), Failure> {
    match session.logits(tokens, &Positions::All, 512) {
        Err(CppError::Refused { message, .. }) if message.contains(words) => Ok(()),
        other => Err(Failure::new(format_args!("not refused with `{words}`: {:?}", other.map(|logits| logits.vocab)))),
    }
}

pub(crate) fn refused(stage: &Stage) -> Result<(), Failure> {
    let (mut session, model) = stage.loaded(PATIENCE)?;
    let folder = tempfile::tempdir()?;
    let whole = std::fs::read(&model.path)?;
    let files = [
        ("text.gguf", b"this is not a model".to_vec()),
        ("cut.gguf", whole.get(..whole.len() / 2).unwrap_or_default().to_vec()),
        ("empty.gguf", Vec::new()),
    ];
    for (name, bytes) in &files {
        std::fs::write(folder.path().join(name), bytes)?;
    }
    for name in ["missing.gguf"].into_iter().chain(files.iter().map(|(name, _)| *name)) {
        match session.load(&folder.path().join(name), LoadOptions::default()) {
            Err(error @ CppError::Refused { .. }) => {
                let text = error.to_string();
                let said = text.contains("cannot load the file") && text.contains("\n  | ") && text.contains(name);
                check(said, format_args!("{name}: {text}"))?;
            }
            other => return Err(Failure::new(format_args!("{name}: {other:?}"))),
        }
    }
    session.load(&model.path, LoadOptions::default())?;
    check(!session.tokenize(TEXT, true, false)?.is_empty(), "no tokens after the refusals")
}
