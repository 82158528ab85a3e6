//! What files a revision has. A commit's list never changes, so it is kept: a second question is answered without the network.

use super::download::SmartTokenizerDownload;
use super::error::{HubError, Tried};
use super::event::Event;
use super::failure::Failure;
use super::fetched::Listing;
use super::glob;
use super::hf_cache;
use super::http::Target;
use super::names::{check_path, check_repo, check_revision, encode, is_commit};
use super::steps::{GLANCE, offline};

const LONGEST_LIST: usize = 32 << 20;

/// Whether each name may be a file's. A list with others is not kept, so that it may be right the next time.
fn sound(files: &[String]) -> bool {
    files.iter().all(|file| check_path(file).is_ok())
}

impl SmartTokenizerDownload {
    /// The files of a revision. A list that is known is used while its branch is fresh (`ref_ttl`), offline, and, as
    /// [`Event::Stale`] says, while the hub is down.
    pub async fn list(&self, repo: &str, revision: &str) -> Result<Listing, HubError> {
        check_repo(repo)?;
        check_revision(revision)?;
        let target = Target { repo, revision, path: "*" };
        let settings = &self.0.settings;
        let known = self.known_list(repo, revision);
        let known = match known {
            Some((listing, fresh)) if settings.offline || fresh => return Ok(listing),
            other => other.map(|(listing, _)| listing),
        };
        if settings.offline {
            let mut tried = self.places();
            tried.push("a list of files needs the network".to_owned());
            return Err(offline(target, tried));
        }
        match self.ask_list(target, known.is_some()).await {
            Ok(listing) => {
                // a cache that cannot be written will say so when a file is stored
                let _ = self.0.cache.set_commit(repo, revision, &listing.commit);
                if sound(&listing.files) {
                    let _ = self.0.cache.set_files(repo, &listing.commit, &listing.files);
                }
                Ok(listing)
            }
            Err(error) if error.is_network() && known.is_some() => {
                let listing = known.unwrap_or_default();
                if let Some(observer) = &self.0.observer {
                    observer(&Event::Stale {
                        repo: repo.to_owned(),
                        revision: revision.to_owned(),
                        commit: listing.commit.clone(),
                        why: error.to_string(),
                    });
                }
                Ok(listing)
            }
            Err(error) => Err(error),
        }
    }

    /// The files of a revision that match. Each of `wanted` must match one, `welcome` may. A pattern is a glob or a path; of a
    /// split model all parts belong together.
    ///
    /// # Errors
    /// [`HubError::NoMatch`] with the files that are there.
    pub async fn select(
        &self,
        repo: &str,
        revision: &str,
        wanted: &[&str],
        welcome: &[&str],
    ) -> Result<Listing, HubError> {
        let listed = self.list(repo, revision).await.map_err(|error| match (error, wanted.first()) {
            // What is missing is what was asked for.
            (HubError::Offline { repo, revision, tried, .. }, Some(pattern)) => {
                HubError::Offline { repo, revision, path: (*pattern).to_owned(), tried }
            }
            (error, _) => error,
        });
        let Listing { commit, files } = listed?;
        let fits = |pattern: &str, file: &str| pattern == file || glob::matches(pattern, file);
        if let Some(pattern) = wanted.iter().find(|pattern| !files.iter().any(|file| fits(pattern, file))) {
            return Err(HubError::NoMatch {
                repo: repo.to_owned(),
                revision: revision.to_owned(),
                pattern: (*pattern).to_owned(),
                there: files,
            });
        }
        let mut out: Vec<String> = Vec::new();
        for file in &files {
            if wanted.iter().chain(welcome).any(|pattern| fits(pattern, file)) {
                for part in super::choose::all_parts(file) {
                    if !out.contains(&part) && files.contains(&part) {
                        out.push(part);
                    }
                }
            }
        }
        Ok(Listing { commit, files: out })
    }

    /// A list from an earlier answer, and whether its revision cannot have moved since, or was seen a moment ago.
    fn known_list(&self, repo: &str, revision: &str) -> Option<(Listing, bool)> {
        let (cache, settings) = (&self.0.cache, &self.0.settings);
        let (commit, fresh) = if is_commit(revision) {
            (revision.to_owned(), true)
        } else if let Some((commit, age)) = cache.commit_of(repo, revision) {
            (commit, age < settings.ref_ttl)
        } else {
            (settings.hf_caches.iter().find_map(|root| hf_cache::commit_of(root, repo, revision))?, false)
        };
        let files = cache.files_of(repo, &commit).filter(|files| sound(files))?;
        Some((Listing { commit, files }, fresh))
    }

    /// Asks the hub's API; `once` and shortly, where there is another answer.
    async fn ask_list(&self, target: Target<'_>, once: bool) -> Result<Listing, HubError> {
        let rest = format!("api/models/{}/revision/{}", target.repo, encode(target.revision, false));
        let http = &self.0.http;
        let url = || http.url(&rest).map_or_else(|_| rest.clone(), |url| url.to_string());
        let body = self
            .bounded(format!("listing {}", target.repo), "*", async |job| {
                if once {
                    let asked = http.json(&job.counters, &rest, target, LONGEST_LIST);
                    return match tokio::time::timeout(GLANCE, asked).await {
                        Ok(answer) => answer.map_err(|failure: Failure| *failure.error),
                        Err(_) => Err(HubError::Network {
                            url: url(),
                            why: format!("no answer in {GLANCE:?}"),
                            tried: Tried::default(),
                        }),
                    };
                }
                let mut attempts = job.attempts();
                loop {
                    match http.json(&job.counters, &rest, target, LONGEST_LIST).await {
                        Ok(body) => return Ok(body),
                        Err(failure) => attempts.again(failure, false).await?,
                    }
                }
            })
            .await?;
        let parse = || -> Option<Listing> {
            let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let files =
                json.get("siblings")?.as_array()?.iter().map(|file| Some(file.get("rfilename")?.as_str()?.to_owned()));
            let commit = json.get("sha")?.as_str().filter(|commit| is_commit(commit))?.to_owned();
            Some(Listing { commit, files: files.collect::<Option<_>>()? })
        };
        parse().ok_or_else(|| HubError::BadAnswer {
            url: url(),
            why: "no JSON with sha and siblings".to_owned(),
            tried: Tried::default(),
        })
    }
}
