//! What the commands of the cross-validation share: choosing the two sides, running a plan, and the one way out.
//!
//! Exit codes, the same in text and JSON: 0 parity, 1 divergence, 2 token mismatch, 3 usage, 4 backend unavailable.

mod out;
mod sides;

pub(crate) use out::{Format, OutArgs, default_receipt, finish, print, print_usage, report_usage};
pub(crate) use sides::{SideArgs, limits_of};

use bitnet_engine::chat::Message;
use bitnet_engine::chat::prompt::{self, Input, PromptOptions};
use bitnet_engine::chat::source::{self, Wanted};
use bitnet_engine::settings::Settings;
use bitnet_harness::crossval::performance;
use bitnet_harness::crossval::report::{Asked, CrossvalReport, Prompt, ReferenceFacts, SCHEMA, Verdict};
use bitnet_harness::crossval::run::{self, BothLogits};
use bitnet_harness::crossval::{Ours, Reference, Section};
use bitnet_harness::env::Env;
use bitnet_harness::provenance::{self, HostInfo};
use bitnet_harness::record::HarnessInfo;
use sides::Sides;

/// What a command wants compared.
pub(crate) struct Comparing {
    pub(crate) command: &'static str,
    /// Prompts as they were given, and the name of their template.
    pub(crate) prompts: Vec<String>,
    pub(crate) template: String,
    pub(crate) asked: Asked,
    /// Texts whose tokens are compared, or why none are.
    pub(crate) texts: Result<Vec<String>, String>,
    /// How often speed is measured, or why it is not.
    pub(crate) repeats: Result<usize, String>,
}

/// A finished comparison.
pub(crate) struct Done {
    pub(crate) report: CrossvalReport,
    pub(crate) data: Vec<Option<BothLogits>>,
    pub(crate) ours: Ours,
}

/// Runs a plan. That the reference is not there is a report too.
///
/// # Errors
/// What the user must fix: our side cannot be had.
pub(crate) fn compare(args: &SideArgs, plan: &Comparing) -> anyhow::Result<Done> {
    let Sides { mut ours, limits, model, tokenizer, reference_model } = args.ours(&plan.asked)?;
    let prompts =
        plan.prompts.iter().map(|text| wrap(&ours, text, &plan.template)).collect::<anyhow::Result<Vec<Prompt>>>()?;
    let longest = longest(&mut ours, &prompts)? + plan.asked.max_tokens;
    // Wrong whether or not there is a reference; how far a continuation really goes shows later.
    if let Some(position) = plan.asked.positions.iter().flatten().find(|position| **position >= longest) {
        anyhow::bail!(
            "--positions: {position} was asked for, and the longest prompt with its continuation has {longest} tokens"
        );
    }
    let longest = longest + 1;
    // As llama.cpp rounds what it allocates.
    ours.context = longest.next_multiple_of(256);
    let mut report = CrossvalReport {
        schema: SCHEMA,
        command: plan.command.to_owned(),
        verdict: Verdict::Unavailable,
        exit_code: Verdict::Unavailable.exit_code(),
        reason: String::new(),
        made_at: provenance::now(),
        harness: HarnessInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: provenance::commit(&crate::root::root(), &Env::read()),
        },
        host: HostInfo::here(),
        model,
        reference_model,
        tokenizer,
        ours: ours.version(),
        reference: Section::not_run("not reached"),
        asked: plan.asked.clone(),
        limits,
        tokenizer_parity: Section::not_run("not reached"),
        prompts: Vec::new(),
        performance: Section::not_run("not reached"),
    };
    let mut data = Vec::new();
    match args.reference(longest) {
        Err(missing) => {
            report.reference = missing.section();
            report.tokenizer_parity = Section::not_run("there is no reference");
            report.performance = Section::not_run("there is no reference");
        }
        Ok((mut reference, chosen)) => {
            data = ask(&mut ours, &mut reference, &prompts, plan, &mut report);
            let facts = ReferenceFacts { backend: reference.name().to_owned(), chosen, version: reference.version() };
            report.reference = Section::Ran(facts);
        }
    }
    Ok(Done { report: report.judged(), data, ours })
}

fn ask(
    ours: &mut Ours,
    reference: &mut dyn Reference,
    prompts: &[Prompt],
    plan: &Comparing,
    report: &mut CrossvalReport,
) -> Vec<Option<BothLogits>> {
    report.tokenizer_parity = match &plan.texts {
        Err(reason) => Section::not_run(reason),
        Ok(texts) => run::tokenizer_parity(ours, reference, texts),
    };
    let mut data = Vec::new();
    for prompt in prompts {
        let (found, both) = run::prompt(ours, reference, prompt, &plan.asked, &report.limits);
        report.prompts.push(found);
        data.push(both);
    }
    // Times of different answers say nothing.
    let timed = report.prompts.iter().find_map(|p| p.generation.ran().and(p.tokens.ran()));
    report.performance = match (&plan.repeats, timed) {
        (Err(reason), _) => Section::not_run(reason),
        (Ok(_), None) => Section::not_run("no prompt was continued by both sides"),
        (Ok(repeats), Some(tokens)) => {
            match performance::measure((ours, reference), &tokens.ours, plan.asked.max_tokens, *repeats) {
                Ok(found) => Section::Ran(found),
                Err(error) => run::failed(&error),
            }
        }
    };
    data
}

/// Tokens of the longest prompt on our side: the reference's context must hold them.
fn longest(ours: &mut Ours, prompts: &[Prompt]) -> anyhow::Result<usize> {
    let mut longest = 0;
    for p in prompts {
        longest = longest.max(ours.prompt(&p.text, p.parse_special)?.len());
    }
    Ok(longest)
}

/// A prompt in its template, as `bitnet infer` wraps it.
fn wrap(ours: &Ours, text: &str, template: &str) -> anyhow::Result<Prompt> {
    let file = &ours.loaded.file;
    let wanted = Wanted { name: template, file: None, model: file.path(), tell: false };
    let template = source::choose(wanted, file.metadata())?.template;
    let options = PromptOptions { template: &template, parse_special: false, clock: Settings::from_env()?.clock() };
    let made = prompt::prompt(&*ours.loaded.tokenizer, Input::Messages(&[Message::user(text)]), options)?;
    Ok(Prompt {
        prompt: text.to_owned(),
        template: template.name().to_owned(),
        add_special: true,
        parse_special: made.parse_special,
        text: made.text,
    })
}
