"""Is the mock hub honest? The official client, `huggingface_hub`, must get along with it.

    python huggingface_hub_check.py ENDPOINT DIR REPO

ENDPOINT serves DIR (`bitnet-mock-hub --dir DIR`), REPO is one `org/name` of it with at least one small file and one
that comes as LFS. Downloads into a fresh cache and compares files, cache layout and errors. Exits 0 only if all holds.
"""

import hashlib
import os
import pathlib
import sys
import tempfile


def git_blob_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def must_raise(error, call):
    try:
        call()
    except error:
        return
    raise AssertionError(f"{error.__name__} expected, but nothing was raised")


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    endpoint, folder, repo = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2]), sys.argv[3]
    with tempfile.TemporaryDirectory() as home:
        # before the import: huggingface_hub reads its environment once
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
            del os.environ[name]
        os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=home, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
        check(pathlib.Path(home) / "hub", folder / repo, repo)


def check(cache: pathlib.Path, truth: pathlib.Path, repo: str) -> None:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    files = sorted(path.relative_to(truth).as_posix() for path in truth.rglob("*") if path.is_file())
    assert files, f"{truth} is empty"
    kinds = set()
    for name in files:
        got = pathlib.Path(hf_hub_download(repo, name))
        data = (truth / name).read_bytes()
        assert got.read_bytes() == data, f"{name} differs"
        blob = got.resolve()
        assert blob.parent == (cache / ("models--" + repo.replace("/", "--")) / "blobs").resolve(), blob
        sums = {git_blob_sha1(data): "git", hashlib.sha256(data).hexdigest(): "lfs"}
        assert blob.name in sums, f"{name}: blob {blob.name} is neither checksum"
        kinds.add(sums[blob.name])
        print(f"ok {name} {sums[blob.name]} {len(data)} bytes")

    home = cache / ("models--" + repo.replace("/", "--"))
    commit = (home / "refs" / "main").read_text()
    assert HfApi().model_info(repo).sha == commit
    assert [s.rfilename for s in HfApi().model_info(repo).siblings] == files
    assert sorted(p.relative_to(home / "snapshots" / commit).as_posix() for p in (home / "snapshots" / commit).rglob("*") if p.is_file()) == files
    assert pathlib.Path(snapshot_download(repo)) == home / "snapshots" / commit
    assert pathlib.Path(snapshot_download(repo, revision=commit)) == home / "snapshots" / commit
    print(f"ok snapshot {commit}, kinds {sorted(kinds)}")

    must_raise(EntryNotFoundError, lambda: hf_hub_download(repo, "no-such-file.json"))
    assert (home / ".no_exist" / commit / "no-such-file.json").exists(), "EntryNotFound lacks X-Repo-Commit"
    must_raise(RevisionNotFoundError, lambda: hf_hub_download(repo, files[0], revision="no-such-branch"))
    must_raise(RepositoryNotFoundError, lambda: hf_hub_download("nobody/nothing", files[0]))
    print("ok errors")


if __name__ == "__main__":
    main()
