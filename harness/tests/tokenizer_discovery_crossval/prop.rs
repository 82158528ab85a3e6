//! Whatever proptest thinks of.

use crate::compare::one;
use crate::setup::Stage;
use bitnet_harness::Failure;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

const CASES: u32 = 400;

pub(crate) fn run(stage: &Stage, way: &str) -> Result<(), Failure> {
    let ours = stage.ours(way)?;
    let specials = stage.vocabulary.specials();
    let fragment = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        2 => "\\PC{0,6}",
        2 => "[ \\t\\r\\n\u{a0}\u{3000}]{0,5}",
        2 => "[a-zA-Z']{1,12}",
        1 => "[0-9٣१½]{1,7}",
        1 => prop::sample::select(specials),
        1 => prop::sample::select(vec!["'ſ", "'S", "'ll", "▁", "<0x41>", "\u{301}", "\u{200d}", "日本", "한국", "!!\n"])
            .prop_map(str::to_owned),
    ];
    let text = prop::collection::vec(fragment, 0..24).prop_map(|parts| parts.concat());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config)
        .run(&text, |text| one(stage, &*ours, &text).map_err(|failure| TestCaseError::fail(failure.message)));
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, text)) => Err(Failure::new(format_args!("{text:?}: {reason}"))),
        Err(TestError::Abort(reason)) => Err(Failure::new(reason)),
    }
}
