//! Several processes on one cache, and processes that die. The children are this very test program, started again with
//! `HUB_CHILD_*` set.

#[path = "hub/common.rs"]
mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_engine::hub::{Cache, HubError, HubSettings};
use bitnet_mock_hub::{Fault, MockHub, Repo, Side, Storage};
use common::*;

const BIG: usize = 400_000;

/// In a child: do the child's work and end. In the parent: go on.
fn be_child_if_told() {
    let Ok(endpoint) = std::env::var("HUB_CHILD_ENDPOINT") else {
        return;
    };
    let cache = std::env::var("HUB_CHILD_CACHE").unwrap();
    let mut settings = HubSettings::new(cache);
    settings.endpoint = endpoint;
    settings.retry.base = Duration::from_millis(5);
    settings.timeouts.overall = Duration::from_secs(30);
    let client = BlockingDownload::new(settings, None).unwrap();
    let files = client.fetch_all(REPO, "main", &["big", "config.json"]).unwrap();
    assert_eq!(*files[0].read().unwrap(), noise(BIG, 9));
    assert_eq!(*files[1].read().unwrap(), json());
    std::process::exit(0);
}

/// This program, told to run one test of this file.
fn only(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).stdout(Stdio::null());
    command
}

fn child_command(test: &str, hub: &MockHub, cache: &Path) -> Command {
    let mut command = only(test);
    command.env("HUB_CHILD_ENDPOINT", hub.endpoint()).env("HUB_CHILD_CACHE", cache);
    command
}

fn child(test: &str, hub: &MockHub, cache: &Path) -> Child {
    child_command(test, hub, cache).spawn().unwrap()
}

fn big_hub() -> MockHub {
    let repo = Repo::new(REPO).file("big", noise(BIG, 9), Storage::Lfs).file("config.json", json(), Storage::Git);
    MockHub::builder().repo(repo).start().unwrap()
}

#[test]
fn ten_processes_fetch_each_file_once() {
    be_child_if_told();
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    hub.fault(Fault::Drip { chunk: 40_000, pause: Duration::from_millis(20) }.always().on(Side::Cdn));
    let mut children: Vec<_> = (0..10).map(|_| child("ten_processes_fetch_each_file_once", &hub, dir.path())).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(hub.log().count(|entry| entry.side == Side::Cdn && entry.method == "GET"), 1);
    assert_eq!(hub.log().requests("GET", "config.json"), 1);
    assert_eq!(hub.log().bytes(Side::Cdn), BIG as u64);
    assert_eq!(Cache::new(dir.path()).verify().unwrap().sound.len(), 2);
}

#[test]
fn kill_nine_at_any_moment_leaves_old_or_new_and_the_next_run_resumes() {
    const NAME: &str = "kill_nine_at_any_moment_leaves_old_or_new_and_the_next_run_resumes";
    be_child_if_told();
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    // the whole transfer takes about 150 ms
    let drip = Fault::Drip { chunk: 10_000, pause: Duration::from_millis(3) };
    hub.fault(drip.always().on(Side::Cdn));
    let cache = Cache::new(dir.path());
    let (mut killed, mut complete) = (0, 0);
    for round in 0..24u64 {
        let mut child = child(NAME, &hub, dir.path());
        // until it transfers (or is done), then a little longer: from the first byte to after the last rename
        let (started, seen) = (Instant::now(), hub.log().len());
        while hub.log().len() < seen + 3
            && child.try_wait().unwrap().is_none()
            && started.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 37 % 190));
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill(); // SIGKILL; it may have ended by itself
        child.wait().unwrap();
        // whatever is visible is whole
        let found = cache.verify().unwrap();
        assert_eq!(found.damaged, [], "round {round}");
        if found.sound.len() == 2 {
            complete += 1;
            cache.clear().unwrap();
        }
    }
    assert!(killed >= 6, "only {killed} of the children were alive to be killed");
    assert!(complete >= 1, "no run ever got to its end");
    let ranges = hub.log().count(|entry| entry.side == Side::Cdn && entry.range.is_some());
    assert!(ranges >= 3, "only {ranges} runs resumed");
    // the locks died with their owners: the last run ends, and quickly
    hub.heal();
    let started = Instant::now();
    assert!(child(NAME, &hub, dir.path()).wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(cache.verify().unwrap().sound.len(), 2);
}

/// In a child: take the lock of a file, say so, and never end.
fn hold_a_lock_if_told() {
    let Ok(path) = std::env::var("HUB_CHILD_LOCK") else {
        return;
    };
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.lock().unwrap();
    println!("locked");
    std::thread::sleep(Duration::from_secs(60));
    std::process::exit(1);
}

#[test]
fn the_lock_of_a_dead_owner_is_free_at_once() {
    hold_a_lock_if_told();
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    let fetch = || {
        let mut settings = HubSettings::new(dir.path());
        settings.endpoint = hub.endpoint().to_owned();
        settings.timeouts.overall = Duration::from_millis(500);
        BlockingDownload::new(settings, None).unwrap().fetch_all(REPO, "main", &["big"])
    };
    fetch().unwrap();
    let locks: Vec<_> =
        files_below(dir.path()).into_iter().filter(|path| path.to_string_lossy().contains(".lock")).collect();
    assert!(!locks.is_empty(), "the locks lie where the test looks for them");
    let blobs = files_below(dir.path()).into_iter().filter(|path| path.to_string_lossy().contains("blobs"));
    blobs.for_each(|blob| std::fs::remove_file(blob).unwrap());
    let mut owners: Vec<Child> = locks
        .iter()
        .map(|lock| {
            let mut child = only("the_lock_of_a_dead_owner_is_free_at_once")
                .env("HUB_CHILD_LOCK", lock)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
            assert!(lines.map_while(Result::ok).any(|line| line.ends_with("locked")));
            child
        })
        .collect();
    fetch().expect_err("the owners live");
    for owner in &mut owners {
        owner.kill().unwrap(); // SIGKILL
        owner.wait().unwrap();
    }
    let started = Instant::now();
    fetch().unwrap();
    assert!(started.elapsed() < Duration::from_millis(450), "{:?}", started.elapsed());
}

/// All files below a folder, links among them.
fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Right size, wrong bytes: whenever the process dies, nothing of it is ever shown.
#[test]
fn kill_nine_under_a_corrupting_hub_shows_nothing() {
    const NAME: &str = "kill_nine_under_a_corrupting_hub_shows_nothing";
    be_child_if_told();
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    hub.fault(Fault::Corrupt { at: BIG as u64 / 2 }.always().on(Side::Cdn));
    let cache = Cache::new(dir.path());
    let mut fetched = 0;
    for round in 0..12u64 {
        let seen = hub.log().bytes(Side::Cdn);
        let mut command = child_command(NAME, &hub, dir.path());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap(); // it fails, and says so
        let started = Instant::now();
        while hub.log().bytes(Side::Cdn) == seen && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 2));
        let _ = child.kill(); // SIGKILL; it may have failed by itself
        child.wait().unwrap();
        fetched += u32::from(hub.log().bytes(Side::Cdn) >= seen + BIG as u64);
        let found = cache.verify().unwrap();
        assert_eq!(found.damaged, [], "round {round}");
        assert!(found.sound.len() <= 1, "round {round}: only config.json is sound");
    }
    assert!(fetched >= 1, "no child got all of the bytes");
    // What was kept of it does not spoil the next one.
    hub.heal();
    assert!(child(NAME, &hub, dir.path()).wait().unwrap().success());
    assert_eq!(cache.verify().unwrap().sound.len(), 2);
}

/// Files of the soak, and bytes of each.
const SOAK: (u64, usize) = (6, 4000);

/// Fetches soak files for ever; notes each outcome in a file of its own: `o` for a sound file, `e` for a reported error.
fn be_soak_child_if_told() {
    let (Ok(endpoint), Ok(cache), Ok(notes)) =
        (std::env::var("HUB_CHILD_ENDPOINT"), std::env::var("HUB_CHILD_CACHE"), std::env::var("HUB_CHILD_NOTES"))
    else {
        return;
    };
    let notes = Path::new(&notes).join(std::process::id().to_string());
    let mut notes = std::fs::File::options().create(true).append(true).open(notes).unwrap();
    for round in 0u64.. {
        let mut settings = HubSettings::new(&cache);
        settings.endpoint = endpoint.clone();
        settings.ref_ttl = Duration::ZERO;
        settings.retry.base = Duration::from_millis(2);
        settings.timeouts.stall = Duration::from_millis(300);
        settings.timeouts.overall = Duration::from_secs(20);
        let client = BlockingDownload::new(settings, None).unwrap();
        let n = (u64::from(std::process::id()) + round) % SOAK.0;
        let outcome = match client.fetch("soak/repo", "main", &format!("f{n}")).and_then(|file| file.read()) {
            Ok(bytes) if *bytes == noise(SOAK.1, n) => b"o",
            Ok(_) => b"W",
            Err(HubError::Io { .. } | HubError::Corrupt { .. } | HubError::Deadline { .. }) => b"D",
            Err(_) => b"e",
        };
        notes.write_all(outcome).unwrap();
    }
}

/// `HUB_SOAK=500` (or more) makes it as long as one likes.
#[test]
fn soak_of_processes_under_random_faults_and_kills() {
    be_soak_child_if_told();
    let wanted = std::env::var("HUB_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let repo =
        (0..SOAK.0).fold(Repo::new("soak/repo"), |repo, n| repo.file(&format!("f{n}"), noise(SOAK.1, n), Storage::Lfs));
    let mut builder = MockHub::builder().repo(repo).seed(5);
    for rule in [
        "cut=900,on=cdn,chance=25",
        "corrupt=9,on=cdn,chance=5",
        "html=500,chance=3",
        "html=200,chance=3",
        "status=503,chance=3",
        "refuse,chance=5",
        "length=-800,on=cdn,chance=10",
        "stall=500/10s,on=cdn,chance=3",
        "norange,chance=20",
    ] {
        builder = builder.rule(rule.parse().unwrap());
    }
    let (hub, dir) = (builder.start().unwrap(), tempfile::tempdir().unwrap());
    let (cache, notes) = (dir.path().join("cache"), dir.path().join("notes"));
    std::fs::create_dir(&notes).unwrap();
    let start = || {
        only("soak_of_processes_under_random_faults_and_kills")
            .env("HUB_CHILD_ENDPOINT", hub.endpoint())
            .env("HUB_CHILD_CACHE", &cache)
            .env("HUB_CHILD_NOTES", &notes)
            .spawn()
            .unwrap()
    };
    let count = || {
        let mut all = Vec::new();
        for file in std::fs::read_dir(&notes).unwrap() {
            all.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
        let of = |kind| all.iter().filter(|note| **note == kind).count();
        (of(b'o'), of(b'e'), of(b'W'), of(b'D'))
    };
    let mut children: Vec<Child> = (0..8).map(|_| start()).collect();
    let (began, mut kills) = (Instant::now(), 0usize);
    while count().0 < wanted && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(120));
        let victim = kills * 5 % children.len();
        children[victim].kill().unwrap();
        children[victim].wait().unwrap();
        children[victim] = start();
        kills += 1;
        if kills % 8 == 0 {
            Cache::new(&cache).clear().unwrap(); // so that there is something to fetch, and to disturb
        }
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (sound, errors, wrong, damaged) = count();
    assert!(sound >= wanted, "{sound} of {wanted} in {:?}: hanging?", began.elapsed());
    assert_eq!((wrong, damaged), (0, 0), "wrong bytes, or damage, I/O trouble or a deadline");
    assert!(errors * 10 <= sound, "{errors} errors to {sound} sound files");
    let share = hub.log().bytes(Side::Cdn) as f64 / (sound * SOAK.1) as f64;
    // nothing that the dead left behind is in anybody's way
    hub.heal();
    let mut settings = settings(&hub, &cache);
    settings.ref_ttl = Duration::ZERO;
    let client = BlockingDownload::new(settings, None).unwrap();
    for n in 0..SOAK.0 {
        let file = client.fetch("soak/repo", "main", &format!("f{n}")).unwrap();
        assert_eq!(*file.read().unwrap(), noise(SOAK.1, n));
    }
    let found = Cache::new(&cache).verify().unwrap();
    assert_eq!((found.damaged.len(), found.sound.len()), (0, SOAK.0 as usize));
    assert!(kills >= 1 && share < 0.25, "{kills} kills, {:.1} % of the bytes were fetched", share * 100.0);
    eprintln!(
        "{sound} sound, {errors} errors, {kills} kills, {:.1} % of the bytes fetched, {:?}",
        share * 100.0,
        began.elapsed()
    );
}

#[test]
fn the_systems_proxy_is_used_and_no_proxy_is_heeded() {
    const NAME: &str = "the_systems_proxy_is_used_and_no_proxy_is_heeded";
    if let (Ok(endpoint), Ok(cache)) = (std::env::var("HUB_CHILD_ENDPOINT"), std::env::var("HUB_CHILD_CACHE")) {
        let mut settings = HubSettings::new(cache);
        settings.endpoint = endpoint;
        settings.proxies = bitnet_engine::settings::hub_from_env().unwrap().proxies;
        settings.retry.retries = 0;
        settings.timeouts.overall = Duration::from_secs(5);
        let file = BlockingDownload::new(settings, None).unwrap().fetch(REPO, "main", "config.json");
        std::process::exit(if file.is_ok_and(|file| *file.read().unwrap() == json()) { 0 } else { 7 });
    }
    // the endpoint's host does not exist; only a proxy can know what is meant, and our hub answers whatever the host
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    let run = |no_proxy: &str| {
        let mut command = only(NAME);
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "REQUEST_METHOD"]
        {
            command.env_remove(name);
        }
        let status = command
            .env("HTTP_PROXY", hub.endpoint())
            .env("NO_PROXY", no_proxy)
            .env("HUB_CHILD_ENDPOINT", "http://hub.invalid")
            .env("HUB_CHILD_CACHE", dir.path())
            .status()
            .unwrap();
        status.code()
    };
    assert_eq!((run("hub.invalid"), hub.log().len()), (Some(7), 0));
    assert_eq!(run(""), Some(0));
    assert_eq!(hub.log().requests("GET", "config.json"), 1);
}

#[tokio::test]
async fn many_tasks_of_one_process_fetch_once_too() {
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (client, _) = client(&hub, dir.path());
        tasks.spawn(async move { client.fetch(REPO, "main", "big").await.map(|file| file.size) });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap().unwrap(), BIG as u64);
    }
    assert_eq!(hub.log().bytes(Side::Cdn), BIG as u64);
}
