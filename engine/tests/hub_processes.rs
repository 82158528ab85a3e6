//! Several processes on one cache, and processes that die. The children are this very test program, started again with `HUB_CHILD_*` set.

mod hub_common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitnet_engine::hub::HubSettings;
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_mock_hub::{Fault, MockHub, Repo, Side, Storage};
use hub_common::*;

const BIG: usize = 400_000;

/// In a child: do the child's work and end. In the parent: go on.
fn be_child_if_told() {
    let Ok(endpoint) = std::env::var("HUB_CHILD_ENDPOINT") else {
        return;
    };
    let cache = std::env::var("HUB_CHILD_CACHE").unwrap();
    let mut settings = HubSettings::new(cache);
    settings.endpoint = endpoint;
    settings.system_proxy = false;
    settings.retry.base = Duration::from_millis(5);
    settings.timeouts.overall = Duration::from_secs(30);
    let client = BlockingDownload::new(settings, None).unwrap();
    let files = client
        .fetch_all(REPO, "main", &["big", "config.json"])
        .unwrap();
    assert_eq!(*files[0].read().unwrap(), noise(BIG, 9));
    assert_eq!(*files[1].read().unwrap(), json());
    std::process::exit(0);
}

fn child(test: &str, hub: &MockHub, cache: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env("HUB_CHILD_ENDPOINT", hub.endpoint())
        .env("HUB_CHILD_CACHE", cache)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn big_hub() -> MockHub {
    let repo = Repo::new(REPO)
        .file("big", noise(BIG, 9), Storage::Lfs)
        .file("config.json", json(), Storage::Git);
    MockHub::builder().repo(repo).start().unwrap()
}

#[test]
fn ten_processes_fetch_each_file_once() {
    be_child_if_told();
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    hub.fault(
        Fault::Drip {
            chunk: 40_000,
            pause: Duration::from_millis(20),
        }
        .always()
        .on(Side::Cdn),
    );
    let mut children: Vec<_> = (0..10)
        .map(|_| child("ten_processes_fetch_each_file_once", &hub, dir.path()))
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(
        hub.log()
            .count(|entry| entry.side == Side::Cdn && entry.method == "GET"),
        1
    );
    assert_eq!(hub.log().requests("GET", "config.json"), 1);
    assert_eq!(hub.log().bytes(Side::Cdn), BIG as u64);
    assert_eq!(
        bitnet_engine::hub::Cache::new(dir.path())
            .verify()
            .unwrap()
            .sound
            .len(),
        2
    );
}

#[test]
fn kill_nine_at_any_moment_leaves_old_or_new_and_the_next_run_resumes() {
    be_child_if_told();
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    hub.fault(
        Fault::Drip {
            chunk: 10_000,
            pause: Duration::from_millis(5),
        }
        .always()
        .on(Side::Cdn),
    );
    let mut killed = 0;
    for round in 0..12u64 {
        let mut child = child(
            "kill_nine_at_any_moment_leaves_old_or_new_and_the_next_run_resumes",
            &hub,
            dir.path(),
        );
        // wait until it transfers (or is done), then a little longer each round
        let started = Instant::now();
        let seen = hub.log().len();
        while hub.log().len() < seen + 3
            && child.try_wait().unwrap().is_none()
            && started.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 3));
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill(); // SIGKILL; it may have ended by itself
        child.wait().unwrap();
        // whatever is visible is whole
        let cache = bitnet_engine::hub::Cache::new(dir.path());
        let found = cache.verify().unwrap();
        assert_eq!(found.damaged, [], "round {round}");
    }
    assert!(
        killed >= 3,
        "only {killed} of the children were still alive to be killed"
    );
    hub.heal();
    // the locks died with their owners: the last run ends, and quickly
    let started = Instant::now();
    let status = child(
        "kill_nine_at_any_moment_leaves_old_or_new_and_the_next_run_resumes",
        &hub,
        dir.path(),
    )
    .wait()
    .unwrap();
    assert!(status.success() && started.elapsed() < Duration::from_secs(10));
    let ranges = hub
        .log()
        .count(|entry| entry.side == Side::Cdn && entry.range.is_some());
    assert!(ranges > 0, "no run resumed");
    let cache = bitnet_engine::hub::Cache::new(dir.path());
    assert_eq!(cache.verify().unwrap().sound.len(), 2);
}

#[tokio::test]
async fn many_tasks_of_one_process_fetch_once_too() {
    let (hub, dir) = (big_hub(), tempfile::tempdir().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (client, _) = client(&hub, dir.path());
        tasks.spawn(async move {
            client
                .fetch(REPO, "main", "big")
                .await
                .map(|file| file.size)
        });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap().unwrap(), BIG as u64);
    }
    assert_eq!(hub.log().bytes(Side::Cdn), BIG as u64);
}
