//! `/api/models/...`: as much of the hub's JSON as `huggingface_hub` needs to list and snapshot a repository.

use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::answer::{Answer, Ask, bare, decode, visible};
use crate::repo::{Access, File, Storage};
use crate::server::State;

/// `rest` is the path after `/api/models/`, split at slashes: `org/name[/revision/R | /tree/R]`.
pub(crate) fn models(state: &State, rest: &[&str], ask: &Ask) -> Answer {
    let at = rest.iter().position(|part| matches!(*part, "revision" | "tree")).unwrap_or(rest.len());
    let name = rest[..at].join("/");
    if let Some(new) = state.renamed.get(&name) {
        let tail: String = rest[at..].iter().map(|part| format!("/{part}")).collect();
        return (307, ResponseTemplate::new(307).insert_header("Location", format!("/api/models/{new}{tail}")));
    }
    let repo = match visible(state, &name, ask) {
        Ok(repo) => repo,
        Err(refusal) => return *refusal,
    };
    let revision = rest.get(at + 1).map_or_else(|| "main".to_owned(), |revision| decode(revision));
    let Some((commit, files)) = repo.find(&revision) else {
        let message = format!("Invalid rev id: {revision}");
        let answer = ResponseTemplate::new(404)
            .insert_header("X-Error-Code", "RevisionNotFound")
            .insert_header("X-Error-Message", message.as_str())
            .set_body_json(json!({ "error": message }));
        return (404, answer);
    };
    let body = match rest.get(at) {
        Some(&"tree") => {
            Value::from(files.iter().map(|(path, file)| entry(path, file, "path", "oid")).collect::<Vec<_>>())
        }
        _ if rest.len() > at + 2 => return bare(404),
        _ => json!({
            "_id": "0", "id": name, "modelId": name, "sha": commit,
            "private": matches!(repo.access, Access::Private(_)),
            "gated": if matches!(repo.access, Access::Gated(_)) { json!("manual") } else { json!(false) },
            "disabled": false, "downloads": 0, "likes": 0, "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": files.iter().map(|(path, file)| entry(path, file, "rfilename", "blobId")).collect::<Vec<_>>(),
        }),
    };
    (200, ResponseTemplate::new(200).insert_header("X-Repo-Commit", commit).set_body_json(body))
}

fn entry(path: &str, file: &File, path_key: &str, id_key: &str) -> Value {
    let mut entry = json!({ path_key: path, id_key: file.git_sha1, "size": file.size, "type": "file" });
    if matches!(file.storage, Storage::Lfs | Storage::Xet) {
        let lfs = json!({ "oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 130 });
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("lfs".to_owned(), lfs);
        }
    }
    entry
}
