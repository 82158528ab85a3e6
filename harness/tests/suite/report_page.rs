//! The HTML report in a real browser: what a reader sees first, what filters leave, what a click opens.
//!
//! A script at the end of the page clicks and measures, and leaves its answers in the page, which the browser prints.
//! `BITNET_CHROMIUM` names another program than `chromium`.

use crate::check;
use bitnet_harness::Failure;
use bitnet_harness::metrics::Value;
use bitnet_harness::provenance::HostInfo;
use bitnet_harness::record::{self, HarnessInfo, Record, SCHEMA};
use bitnet_harness::report::{self, Report};
use bitnet_harness::roster::Named;
use bitnet_harness::run::{self, Run};
use bitnet_harness::verdict::{Availability, Outcome};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

pub(crate) const CHROMIUM: &str = "chromium";
const DEVICES: usize = 8;
const BACKENDS: usize = 3;
const ROWS: usize = 42;
const FAILED: &str = "model07::q1::device2::backend1::check";

pub(crate) fn trials() -> Vec<Named> {
    let here = browser_here();
    type Run = fn() -> Result<(), Failure>;
    let trials: [(&str, Run); 5] = [
        ("failures_come_first_and_all_columns_fit", failures_come_first_and_all_columns_fit),
        ("filters_leave_what_they_say", filters_leave_what_they_say),
        ("a_click_opens_a_cell", a_click_opens_a_cell),
        ("names_stay_in_sight", names_stay_in_sight),
        ("dark_and_light", dark_and_light),
    ];
    trials.map(|(name, run)| Named { name: name.to_owned(), availability: here.clone(), run: Arc::new(run) }).to_vec()
}

fn browser() -> OsString {
    std::env::var_os("BITNET_CHROMIUM").unwrap_or_else(|| CHROMIUM.into())
}

fn browser_here() -> Availability {
    let why = match Command::new(browser()).arg("--version").output() {
        Ok(output) if output.status.success() => return Availability::Available,
        Ok(output) => format!("{} --version: {}", browser().display(), output.status),
        Err(error) => format!("{}: {error}", browser().display()),
    };
    Availability::unavailable(CHROMIUM, why, "apt-get install chromium, or name the program in BITNET_CHROMIUM")
}

/// 1,008 cells: one failed on the second host and passed on the first, one is known to fail; the last six rows ran nowhere.
fn page() -> Result<String, Failure> {
    let folder = tempfile::tempdir()?;
    let mut cells = Vec::new();
    for row in 0..ROWS {
        for device in 0..DEVICES {
            for backend in 0..BACKENDS {
                let name = format!("model{row:02}::q1::device{device}::backend{backend}::check");
                let outcome = match (row, device, backend) {
                    (36.., ..) => Outcome::Unavailable,
                    (3, 1, 1) => Outcome::Xfail,
                    _ => Outcome::Pass,
                };
                cells.push((name, outcome, None));
            }
        }
    }
    run(folder.path(), "one", &cells)?;
    let failed = (FAILED.to_owned(), Outcome::Fail, Some("logits differ: </script><b>token</b> 17"));
    run(folder.path(), "two", &[failed])?;
    let report = Report::load(&[folder.path().join("one"), folder.path().join("two")]).map_err(Failure::new)?;
    Ok(report::html(&report))
}

/// The folder of a run.
fn run(folder: &Path, host: &str, cells: &[(String, Outcome, Option<&str>)]) -> Result<(), Failure> {
    let run = Run {
        schema: run::SCHEMA,
        id: None,
        selection: String::new(),
        host: host_info(host),
        harness: harness_info(),
        timestamp: TIME.to_owned(),
        cells: cells.iter().map(|(name, ..)| name.clone()).collect(),
        elsewhere: BTreeMap::new(),
    };
    let folder = folder.join(host).join("records");
    std::fs::create_dir_all(&folder)?;
    run::begin(&folder, &run).map_err(Failure::new)?;
    cells.iter().try_for_each(|(name, outcome, reason)| write(&folder, host, name, *outcome, *reason))
}

const TIME: &str = "2026-11-28T08:58:21Z";

fn host_info(arch: &str) -> HostInfo {
    HostInfo { os: "linux".to_owned(), arch: arch.to_owned(), features: Vec::new() }
}

fn harness_info() -> HarnessInfo {
    HarnessInfo { version: "0.1.0".to_owned(), commit: Some("0123456789abcdef".to_owned()) }
}

fn write(folder: &Path, host: &str, name: &str, outcome: Outcome, reason: Option<&str>) -> Result<(), Failure> {
    let record = Record {
        schema: SCHEMA,
        name: name.to_owned(),
        outcome,
        reason: reason.map(str::to_owned).or((outcome != Outcome::Pass).then(|| "a reason".to_owned())),
        remedy: None,
        expected: None,
        metrics: BTreeMap::from([("max_abs".to_owned(), Value::Float(0.25))]),
        seed: "00".to_owned(),
        kernel: Some("avx2".to_owned()),
        model_sha256: None,
        reference: None,
        duration_ms: 1.5,
        host: host_info(host),
        harness: harness_info(),
        timestamp: TIME.to_owned(),
        run: None,
    };
    let cell = record.cell().map_err(Failure::new)?;
    record::write(folder, &cell, &record).map_err(Failure::new)
}

/// Opens the page in the browser, runs `script` there and hands out what it returns.
fn ask(script: &str, flags: &[&str]) -> Result<serde_json::Value, Failure> {
    const MARK: &str = "answer-of-the-script:";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("page.html");
    let script = script.replace("</", "<\\/");
    let end = format!(
        "<script>addEventListener('load',()=>{{let a;try{{a=(()=>{{{script}}})()}}catch(e){{a=String(e)}}\
         document.body.dataset.answer='{MARK}'+btoa(JSON.stringify(a))}})</script></body>"
    );
    let text = page()?;
    let (before, after) = text.rsplit_once("</body>").ok_or_else(|| Failure::new("the page has no </body>"))?;
    std::fs::write(&file, format!("{before}{end}{after}"))?;
    let output = Command::new(browser())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--window-size=1600,1000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .args(flags)
        .arg(format!("file://{}", file.display()))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.split_once(MARK).and_then(|(_, rest)| rest.split('"').next()).ok_or_else(|| {
        Failure::new(format!("the browser gave no answer: {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    use base64::Engine as _;
    let json = base64::engine::general_purpose::STANDARD.decode(answer).map_err(Failure::new)?;
    serde_json::from_slice(&json).map_err(Failure::new)
}

fn is(found: serde_json::Value, wanted: serde_json::Value) -> Result<(), Failure> {
    check(found == wanted, format_args!("found {found}, wanted {wanted}"))
}

fn failures_come_first_and_all_columns_fit() -> Result<(), Failure> {
    let script =
        "const top=s=>document.querySelector(s).getBoundingClientRect().top,box=document.querySelector('.scroll');
        return [document.querySelector('.verdict').textContent,top('.failure')<top('table.matrix'),
        document.querySelectorAll('.failure').length,document.querySelector('.failure pre').textContent,
        box.scrollWidth<=box.clientWidth,box.clientWidth>1500,document.querySelectorAll('thead th').length,
        [...document.querySelectorAll('tbody th')].map(t=>t.textContent.slice(0,7)).filter((_,i)=>i<3||i==36)]";
    is(
        ask(script, &[])?,
        serde_json::json!([
            "RED",
            true,
            1,
            "logits differ: </script><b>token</b> 17",
            true,
            true,
            DEVICES * BACKENDS + 1,
            ["model07", "model03", "model00", "model36"]
        ]),
    )
}

fn filters_leave_what_they_say() -> Result<(), Failure> {
    let script = "const see=()=>[document.getElementById('shown').textContent,
            [...document.querySelectorAll('tbody tr')].filter(r=>r.offsetHeight>0).length,
            [...document.querySelectorAll('thead th')].filter(h=>h.offsetWidth>0).length];
        const set=(id,v)=>{const e=document.getElementById(id);e.value=v;e.dispatchEvent(new Event(id=='q'?'input':'change'))};
        const all=see();set('device','device2');const device=see();set('backend','backend1');const both=see();
        for(const b of document.querySelectorAll('.filters input[type=checkbox]'))if(b.value!='fail')b.click();
        const failed=see();set('q','MODEL08');const none=see();
        return [all,device,both,failed,none]";
    let cells = ROWS * DEVICES * BACKENDS;
    let shown = |n: usize| format!("{n} of {cells} cells");
    is(
        ask(script, &[])?,
        serde_json::json!([
            [shown(cells), ROWS, DEVICES * BACKENDS + 1],
            [shown(ROWS * BACKENDS), ROWS, BACKENDS + 1],
            [shown(ROWS), ROWS, 2],
            [shown(1), 1, 2],
            [shown(0), 0, 1]
        ]),
    )
}

fn a_click_opens_a_cell() -> Result<(), Failure> {
    let script = format!(
        "const panel=document.getElementById('cell'),before=panel.offsetWidth;document.getElementById('{FAILED}').click();
        const text=panel.textContent,shown=panel.offsetWidth>0;
        const history=[...panel.querySelectorAll('.history tr')].map(r=>r.children[1].textContent+' '+r.children[3].textContent);
        const hash=decodeURIComponent(location.hash);document.getElementById('close').click();
        return [before,shown,['logits differ: </script><b>token</b> 17','max_abs','0123456789abcdef',
        'cargo test --test matrix -- --exact {FAILED}',
        'model07__q1__device2__backend1__check.json'].filter(t=>!text.includes(t)),history,hash,panel.offsetWidth]"
    );
    is(
        ask(&script, &[])?,
        serde_json::json!([
            0,
            true,
            [],
            ["fail linux two () at commit 0123456789ab", "pass linux one () at commit 0123456789ab"],
            format!("#{FAILED}"),
            0
        ]),
    )
}

fn names_stay_in_sight() -> Result<(), Failure> {
    let script = "const box=document.querySelector('.scroll');box.style.width='400px';box.style.flex='none';
        box.scrollTop=300;box.scrollLeft=150;const b=box.getBoundingClientRect();
        const near=(a,b)=>Math.abs(a-b)<=2,row=document.querySelectorAll('tbody th')[20].getBoundingClientRect();
        const head=document.querySelector('thead th.column').getBoundingClientRect();
        return [box.scrollTop,box.scrollLeft,near(row.left,b.left),near(head.top,b.top)]";
    is(ask(script, &["--window-size=1600,600"])?, serde_json::json!([300, 150, true, true]))
}

fn dark_and_light() -> Result<(), Failure> {
    // The text against what lies behind it, 0 to 765 each.
    let script = "const sum=c=>c.match(/\\d+/g).slice(0,3).reduce((a,b)=>a+Number(b),0);
        const s=getComputedStyle(document.querySelector('tbody th'));
        return [matchMedia('(prefers-color-scheme: dark)').matches,sum(s.color)>sum(s.backgroundColor)+300,
        sum(s.backgroundColor)>sum(s.color)+300]";
    is(ask(script, &["--blink-settings=preferredColorScheme=1"])?, serde_json::json!([false, false, true]))?;
    is(ask(script, &["--blink-settings=preferredColorScheme=0"])?, serde_json::json!([true, true, false]))
}
