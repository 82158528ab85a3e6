"""Is our cache of models the one of HuggingFace's tools? The official client must find what `bitnet` fetched, and `bitnet` what it fetched.

    python huggingface_cache_check.py BITNET MOCK_HUB MODEL.gguf

BITNET and MOCK_HUB are the programs `bitnet` and `bitnet-mock-hub`. Needs `pip install huggingface_hub`. Exits 0 only if all holds.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    bitnet, mock, gguf = (pathlib.Path(path).resolve() for path in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        for repo, name in [("ours", "a-i2_s.gguf"), ("theirs", "b-i2_s.gguf"), ("locked", "c-i2_s.gguf")]:
            (home / "repos/org" / repo / "sub").mkdir(parents=True)
            (home / "repos/org" / repo / name).write_bytes(gguf.read_bytes())
            (home / "repos/org" / repo / "sub/d-q8_0.gguf").write_bytes(b"small")
        hub = subprocess.Popen([mock, "--dir", home / "repos", "--port", "0"], stdout=subprocess.PIPE, text=True)
        try:
            endpoint = next(word for word in hub.stdout.readline().split() if word.startswith("http://"))
            # before the import: huggingface_hub reads its environment once
            for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "BITNET_"))]:
                del os.environ[name]
            os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=folder, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
            os.environ["BITNET_TOKENIZER_CACHE"] = str(home / "bitnet")
            check(bitnet, gguf.read_bytes(), home / "hub")
        finally:
            hub.terminate()


def check(bitnet: pathlib.Path, data: bytes, cache: pathlib.Path) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
    from huggingface_hub.utils import WeakFileLock

    def run(*args, **env):
        done = subprocess.run([bitnet, *args], env={**os.environ, **env}, capture_output=True, text=True)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return done

    run("download", "hf:org/ours")
    run("download", "hf:org/ours:q8_0")
    got = pathlib.Path(hf_hub_download("org/ours", "a-i2_s.gguf", local_files_only=True))
    assert got.read_bytes() == data and got.is_symlink()
    assert pathlib.Path(hf_hub_download("org/ours", "sub/d-q8_0.gguf", local_files_only=True)).read_bytes() == b"small"
    found = scan_cache_dir()
    assert not found.warnings, found.warnings
    (revision,) = next(iter(found.repos)).revisions
    assert set(revision.refs) == {"main"} and len(revision.files) == 2, revision
    assert snapshot_download("org/ours", local_files_only=True) == str(revision.snapshot_path)
    print("ok they find what we fetched")

    hf_hub_download("org/theirs", "b-i2_s.gguf")
    run("tokenize", "--text", "a", "--model", "hf:org/theirs", BITNET_OFFLINE="1")
    assert run("cache", "list").stdout.count("org/") == 3
    run("cache", "verify", "--models")
    print("ok we find what they fetched")

    lock = cache / ".locks/models--org--locked" / f"{hashlib.sha256(data).hexdigest()}.lock"
    lock.parent.mkdir(parents=True)
    with WeakFileLock(lock):
        waiting = subprocess.Popen([bitnet, "download", "hf:org/locked"], stderr=subprocess.PIPE, text=True)
        time.sleep(1.5)
        assert waiting.poll() is None, "it did not wait for their lock"
    assert waiting.wait(30) == 0 and "waiting" in waiting.stderr.read()
    print("ok we wait for their lock")


if __name__ == "__main__":
    main()
