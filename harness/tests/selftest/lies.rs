//! Faults planted around the download cells: lying data, lying clients. The check must see each of them.

use bitnet_engine::hub::{HubError, HubSettings};
use bitnet_harness::check::download::{Answer, fetch, judge};
use bitnet_harness::data::faults::{self, Fault, FaultOutcome};
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::{Check, Failure};
use std::sync::Arc;

use crate::cases::cases;
use crate::lost::context;

cases![
    the_faults_without_a_lie_are_green,
    an_expectation_that_says_ok_for_a_corrupt_file,
    an_expectation_of_an_error_where_all_is_well,
    wrong_figures_in_the_data,
    a_fault_that_never_strikes,
    a_fault_that_nobody_understands,
    a_fault_without_a_cell,
    a_client_that_hands_out_other_bytes,
    a_client_that_takes_the_error_page_for_the_file,
    a_client_that_keeps_what_failed,
    a_client_that_asks_again_for_what_it_has,
    a_client_that_ignores_offline,
    a_client_that_tells_its_token,
];

fn fault(name: &str) -> Fault {
    let paths = Paths::discover(&Env::default());
    let all = faults::read(&paths.golden).expect("faults.toml");
    all.into_iter().find(|fault| fault.name == name).expect(name)
}

#[track_caller]
fn red(fault: &Fault, client: bitnet_harness::check::download::Client<'_>, words: &str) {
    let failure = judge(fault, client).expect_err(words);
    assert!(failure.message.contains(words), "no `{words}` in: {}", failure.message);
}

fn the_faults_without_a_lie_are_green() {
    for name in ["none", "corrupt-always", "cut-in-the-body", "away-with-the-contents", "offline"] {
        judge(&fault(name), &fetch).unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
    }
}

fn an_expectation_that_says_ok_for_a_corrupt_file() {
    let lie = Fault { outcome: FaultOutcome::Ok, error: None, ..fault("corrupt-always") };
    red(&lie, &fetch, "the file should have come, but:");
}

fn an_expectation_of_an_error_where_all_is_well() {
    let lie = Fault { outcome: FaultOutcome::Error, error: Some("Checksum".to_owned()), ..fault("none") };
    red(&lie, &fetch, "3000 bytes were accepted, an error Checksum was to come");
    let lie = Fault { error: Some("Network".to_owned()), ..fault("corrupt-always") };
    red(&lie, &fetch, "the error is Checksum, expected Network");
    let lie = Fault { words: vec!["all is well".to_owned()], ..fault("corrupt-always") };
    red(&lie, &fetch, "the error does not say `all is well`");
}

fn wrong_figures_in_the_data() {
    let cut = || fault("cut-in-the-body");
    red(&Fault { requests: [6, 9], ..cut() }, &fetch, "5 requests instead of 6 to 9");
    red(&Fault { ranges: Some(vec![String::new(), String::new()]), ..cut() }, &fetch, "bytes=1234-");
    red(&Fault { transferred: Some(4234), ..cut() }, &fetch, "3000 bytes came over the network instead of 4234");
    red(&Fault { retries: Some(0), ..cut() }, &fetch, "1 retries instead of 0");
    red(&Fault { waited_ms: 5000, ..cut() }, &fetch, "ms instead of 5000");
    red(&Fault { elsewhere: true, ..cut() }, &fetch, "the third origin was never asked");
    red(&Fault { elsewhere: false, ..fault("away-with-the-contents") }, &fetch, "it must not be");
}

fn a_fault_that_never_strikes() {
    let lie = Fault { faults: vec!["corrupt=1,on=elsewhere".to_owned()], ..fault("none") };
    red(&lie, &fetch, "never struck, so nothing was proven");
}

fn a_fault_that_nobody_understands() {
    let lie = Fault { faults: vec!["earthquake=7".to_owned()], ..fault("none") };
    red(&lie, &fetch, "unknown fault `earthquake`");
}

fn a_fault_without_a_cell() {
    let mut ctx = context();
    for model in &mut Arc::make_mut(&mut ctx.matrix).models {
        model.quants.retain(|quant| quant != "stall");
    }
    let cell = "hub::none::cpu-scalar::native::download".parse().expect("cell");
    let failure = bitnet_harness::check::download::Download.run(&cell, &ctx).expect_err("a lost fault");
    assert!(failure.message.contains("`stall`, which is not a quant of `hub`"), "{failure:?}");
}

fn a_client_that_hands_out_other_bytes() {
    let liar = |settings: HubSettings, fault: &Fault| -> Result<Answer, Failure> {
        let mut answer = fetch(settings, fault)?;
        if let Ok(bytes) = &mut answer.result {
            Arc::make_mut(bytes)[1700] ^= 1;
        }
        Ok(answer)
    };
    red(&fault("none"), &liar, "the first difference at byte 1700");
    let short = |settings: HubSettings, fault: &Fault| -> Result<Answer, Failure> {
        let mut answer = fetch(settings, fault)?;
        if let Ok(bytes) = &mut answer.result {
            Arc::make_mut(bytes).truncate(100);
        }
        Ok(answer)
    };
    red(&fault("none"), &short, "100 instead of 3000, the first difference at byte 100");
}

/// What one of the official clients does with a web page.
fn a_client_that_takes_the_error_page_for_the_file() {
    let naive = |settings: HubSettings, fault: &Fault| -> Result<Answer, Failure> {
        let mut answer = fetch(settings, fault)?;
        answer.result = Ok(Arc::new(b"<!DOCTYPE html>".to_vec()));
        Ok(answer)
    };
    red(&fault("get-403-html-cdn"), &naive, "15 bytes were accepted, an error Status was to come");
}

fn a_client_that_keeps_what_failed() {
    let hoarder = |settings: HubSettings, fault: &Fault| -> Result<Answer, Failure> {
        let blobs = settings.cache_dir.join("blobs");
        let answer = fetch(settings, fault)?;
        std::fs::create_dir_all(&blobs)?;
        std::fs::write(blobs.join("page.html"), "<!DOCTYPE html>")?;
        Ok(answer)
    };
    red(&fault("get-403-html-hub"), &hoarder, "was kept");
    red(&fault("none"), &hoarder, "there are 2 blobs");
}

fn a_client_that_asks_again_for_what_it_has() {
    let forgetful = |mut settings: HubSettings, fault: &Fault| -> Result<Answer, Failure> {
        settings.ref_ttl = std::time::Duration::ZERO;
        fetch(settings, fault)
    };
    red(&fault("none"), &forgetful, "1 requests for a file that is cached");
}

fn a_client_that_ignores_offline() {
    let deaf = |mut settings: HubSettings, fault: &Fault| -> Result<Answer, Failure> {
        settings.offline = false;
        let mut answer = fetch(settings, fault)?;
        answer.result = Err(HubError::Offline {
            repo: "org/name".to_owned(),
            revision: "main".to_owned(),
            path: "tokenizer.json".to_owned(),
            tried: bitnet_engine::hub::Tried::default(),
        });
        Ok(answer)
    };
    let offline = fault("offline");
    let failure = judge(&offline, &deaf).expect_err("packets");
    assert!(failure.message.contains("was kept") || failure.message.contains("requests instead of 0"), "{failure:?}");
}

fn a_client_that_tells_its_token() {
    let chatty = |settings: HubSettings, fault: &Fault| -> Result<Answer, Failure> {
        let mut answer = fetch(settings, fault)?;
        if let Err(HubError::Gated { message, .. }) = &mut answer.result {
            message.push_str(fault.token.as_deref().unwrap_or_default());
        }
        Ok(answer)
    };
    red(&fault("gated-with-a-wrong-token"), &chatty, "the error tells a secret, `of-somebody-else`");
}
