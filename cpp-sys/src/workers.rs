//! Where built workers lie, and whether what lies there can be relied on.
//!
//! ```text
//! <target>/cpp/<backend>/worker       the program
//! <target>/cpp/<backend>/build.json   its receipt
//! <target>/cpp/<backend>/checkout.json   the files of a user's checkout, if it was built from one
//! <target>/cpp/build/                 cargo's build folder for both: they share what bindgen is made of
//! ```

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::{BuildInfo, Checkout, CppBackend, fingerprint};

#[derive(Debug, Clone)]
pub struct Workers {
    folder: PathBuf,
}

/// A worker that is built and is what its receipt says.
#[derive(Debug, Clone)]
pub struct Installed {
    pub backend: CppBackend,
    pub program: PathBuf,
    pub build: BuildInfo,
}

/// A worker that is not there, or cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the worker of {} is not available:{}\nto fix it: {command}", backend.title(), list(what))]
pub struct Missing {
    pub backend: CppBackend,
    /// What is missing or wrong, one sentence each.
    pub what: Vec<String>,
    /// The one command that fixes it.
    pub command: String,
}

impl Missing {
    /// What is missing, in one line.
    pub fn line(&self) -> String {
        self.what.join("; ")
    }
}

impl Workers {
    /// The workers below a build folder (`target`).
    pub fn new(target: &Path) -> Self {
        Self { folder: target.join("cpp") }
    }

    /// The folder of one worker.
    pub fn folder(&self, backend: CppBackend) -> PathBuf {
        self.folder.join(backend.name())
    }

    /// Where cargo builds the workers.
    pub fn build_folder(&self) -> PathBuf {
        self.folder.join("build")
    }

    pub fn program(&self, backend: CppBackend) -> PathBuf {
        self.folder(backend).join("worker")
    }

    pub fn receipt(&self, backend: CppBackend) -> PathBuf {
        self.folder(backend).join("build.json")
    }

    /// Where the files of a user's checkout are noted.
    pub fn checkout(&self, backend: CppBackend) -> PathBuf {
        self.folder(backend).join("checkout.json")
    }

    /// Looks whether a worker is there, is what its receipt says, was built from the sources that this crate knows (of a user's
    /// checkout: from the files that lie there now), and for this machine's CPU. Starts nothing.
    ///
    /// # Errors
    /// What is missing, and the command that fixes it.
    pub fn preflight(&self, backend: CppBackend) -> Result<Installed, Missing> {
        let missing = |what: String| {
            let mut what = vec![what];
            what.extend(missing_tools());
            Missing { backend, what, command: backend.setup_command().to_owned() }
        };
        let (program, receipt) = (self.program(backend), self.receipt(backend));
        let text = std::fs::read(&receipt)
            .map_err(|error| missing(format!("it was not built: cannot read {}: {error}", receipt.display())))?;
        let build: BuildInfo = serde_json::from_slice(&text)
            .map_err(|error| missing(format!("{} is not a receipt: {error}", receipt.display())))?;
        if build.backend != backend.name() {
            return Err(missing(format!("{} is the receipt of `{}`", receipt.display(), build.backend)));
        }
        let found = hash_once(&program);
        let found = found.map_err(|error| missing(format!("cannot read {}: {error}", program.display())))?;
        if found != build.program_sha256 {
            let message = "is not the program of its receipt (another SHA-256)";
            return Err(missing(format!("{} {message}", program.display())));
        }
        if build.worker_sources != fingerprint(backend) {
            return Err(missing("it is stale: built from other sources of the worker than these".to_owned()));
        }
        if let Some(folder) = Checkout::folder(&build) {
            let path = self.checkout(backend);
            let noted = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Checkout>(&text).ok());
            let noted = noted.filter(|noted| noted.folder == folder).ok_or_else(|| {
                missing(format!(
                    "it is stale: {} does not say from which files of {} it was built",
                    path.display(),
                    folder.display()
                ))
            })?;
            noted.is_as_built().map_err(missing)?;
        }
        let here = cpu();
        if build.cpu != here {
            return Err(missing(format!("it was built for another CPU ({}; this is {here})", build.cpu)));
        }
        Ok(Installed { backend, program, build })
    }
}

/// Tools that a build needs and this machine lacks, one sentence each with the Debian package that has it.
pub fn missing_tools() -> Vec<String> {
    let named = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    missing_from(&std::env::var_os("PATH").unwrap_or_default(), has_libclang(named, Path::new("/usr")))
}

fn missing_from(path: &OsStr, libclang: bool) -> Vec<String> {
    let mut missing = Vec::new();
    for (tool, package) in [("cmake", "cmake"), ("make", "make"), ("clang", "clang"), ("clang++", "clang")] {
        if !std::env::split_paths(path).any(|folder| folder.join(tool).is_file()) {
            missing.push(format!("to build it, `{tool}` is missing (apt-get install {package})"));
        }
    }
    if !libclang {
        missing.push("to build it, libclang is missing (apt-get install libclang-dev)".to_owned());
    }
    missing
}

/// libclang where bindgen looks for it: in the folder that `LIBCLANG_PATH` names, LLVM's own, the system's. `usr` is `/usr`.
fn has_libclang(named: Option<PathBuf>, usr: &Path) -> bool {
    let llvm = std::fs::read_dir(usr.join("lib")).into_iter().flatten().flatten();
    let llvm = llvm.filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm"));
    let known = ["lib", "lib64", "local/lib", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];
    named
        .into_iter()
        .chain(llvm.map(|entry| entry.path().join("lib")))
        .chain(known.map(|folder| usr.join(folder)))
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // libclang-cpp is another library.
            let library = name.starts_with("libclang.so") || name.starts_with("libclang-");
            (library && !name.starts_with("libclang-cpp")) || name == "libclang.dylib"
        })
}

/// The CPU's name as the system tells it; "native" code is for this one.
pub fn cpu() -> String {
    static CPU: OnceLock<String> = OnceLock::new();
    CPU.get_or_init(read_cpu).clone()
}

fn read_cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    match (field("model name"), field("flags").or_else(|| field("Features"))) {
        (name, Some(flags)) => {
            let mut flags: Vec<&str> = flags.split_whitespace().collect();
            flags.sort_unstable();
            let hash = hex::encode(Sha256::digest(flags.join(" ")));
            let short = hash.get(..8).unwrap_or_default();
            format!("{}, flags {short}", name.unwrap_or_else(|| std::env::consts::ARCH.to_owned()))
        }
        _ => std::env::consts::ARCH.to_owned(),
    }
}

/// SHA-256 of a program. A matrix asks for each of its cells: the same file (length, time of change) is read once.
fn hash_once(program: &Path) -> std::io::Result<String> {
    type Known = HashMap<(PathBuf, u64, SystemTime), String>;
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    let meta = std::fs::metadata(program)?;
    let key = (program.to_owned(), meta.len(), meta.modified()?);
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hash) = known.get(&key) {
        return Ok(hash.clone());
    }
    let hash = sha256(program)?;
    known.insert(key, hash.clone());
    Ok(hash)
}

/// SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> std::io::Result<String> {
    Ok(hex::encode(Sha256::digest(std::fs::read(path)?)))
}

fn list(what: &[String]) -> String {
    what.iter().map(|line| format!("\n  - {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(dir: &Path, change: impl FnOnce(&mut BuildInfo)) -> Workers {
        let workers = Workers::new(dir);
        let backend = CppBackend::Llama;
        std::fs::create_dir_all(workers.folder(backend)).expect("folder");
        std::fs::write(workers.program(backend), "program").expect("program");
        let mut build = BuildInfo {
            backend: "llama".to_owned(),
            cpu: cpu(),
            worker_sources: fingerprint(backend),
            program_sha256: sha256(&workers.program(backend)).expect("hash"),
            ..BuildInfo::default()
        };
        change(&mut build);
        std::fs::write(workers.receipt(backend), serde_json::to_vec(&build).expect("json")).expect("receipt");
        workers
    }

    #[test]
    fn only_what_fits_its_receipt_is_installed() {
        let dir = tempfile::tempdir().expect("folder");
        let installed = install(dir.path(), |_| ()).preflight(CppBackend::Llama).expect("all fits");
        assert!(installed.program.is_file());
        type Change = fn(&mut BuildInfo);
        let lies: [(Change, &str); 4] = [
            (|build| build.backend = "bitnet".to_owned(), "is the receipt of `bitnet`"),
            (|build| build.program_sha256.clear(), "is not the program of its receipt"),
            (|build| build.worker_sources.clear(), "it is stale"),
            (|build| build.cpu.clear(), "another CPU"),
        ];
        for (change, words) in lies {
            let missing = install(dir.path(), change).preflight(CppBackend::Llama).expect_err(words);
            assert!(missing.line().contains(words), "{missing}");
            assert!(missing.to_string().ends_with("to fix it: cargo xtask setup-cpp llama"), "{missing}");
        }
    }

    #[test]
    fn a_checkout_must_be_as_it_was_built() {
        let (dir, fork) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let source = |text: &str| {
            std::fs::create_dir_all(fork.path().join("src")).expect("folder");
            std::fs::write(fork.path().join("src/llama.cpp"), text).expect("source");
        };
        source("1");
        let workers = install(dir.path(), |build| build.source = format!("the checkout {}", fork.path().display()));
        let lacking = |words: &str| {
            let missing = workers.preflight(CppBackend::Llama).expect_err(words);
            assert!(missing.line().contains(words), "{missing}");
        };
        lacking("does not say from which files");
        let note = |checkout: &Checkout| {
            let text = serde_json::to_vec(checkout).expect("json");
            std::fs::write(workers.checkout(CppBackend::Llama), text).expect("write");
        };
        let built = Checkout::read(fork.path(), "abc123").expect("files");
        note(&Checkout { sha256: "0".to_owned(), ..built.clone() });
        lacking("(built at abc123) was edited since it was built");
        note(&built);
        workers.preflight(CppBackend::Llama).expect("as it was built");
    }

    #[test]
    fn tools_are_missing_until_they_are_there() {
        let dir = tempfile::tempdir().expect("folder");
        let put = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, "").expect("write");
        };
        let path = std::env::join_paths([dir.path().join("none"), dir.path().to_owned()]).expect("path");
        let words = |missing: Vec<String>| missing.join("; ");
        let all = words(missing_from(&path, false));
        for name in ["`cmake` is missing (apt-get install cmake)", "`make`", "`clang`", "`clang++`", "libclang-dev"] {
            assert!(all.contains(name), "{name}: {all}");
        }
        ["cmake", "make", "clang"].into_iter().for_each(put);
        let one = words(missing_from(&path, true));
        assert_eq!(one, "to build it, `clang++` is missing (apt-get install clang)");
        put("clang++");
        assert_eq!(missing_from(&path, true), Vec::<String>::new());

        let usr = dir.path().join("usr");
        let found = |named: Option<&str>| has_libclang(named.map(|name| dir.path().join(name)), &usr);
        assert!(!found(None), "nothing is there");
        for not_it in
            ["usr/lib/llvm-14/lib/libclang-cpp.so.14", "usr/lib/libclangy.so", "usr/lib/other/lib/libclang.so"]
        {
            put(not_it);
            assert!(!found(None), "{not_it}");
        }
        for it in ["a/libclang.so", "b/libclang-14.so.1", "c/libclang.dylib"] {
            put(it);
            assert!(found(it.split('/').next()), "{it}");
        }
        put("usr/lib/llvm-14/lib/libclang.so.1");
        assert!(found(None));
        // Of this machine, whatever it has, and of one without any.
        let here = missing_tools();
        if std::env::var_os("NO_TOOLS").is_some() {
            assert_eq!(here.iter().filter(|line| line.contains("`cmake` is missing")).count(), 1, "{here:?}");
        } else {
            let this = std::env::current_exe().expect("this program");
            let mut again = std::process::Command::new(this);
            again.args(["--exact", "workers::tests::tools_are_missing_until_they_are_there"]);
            let again = again.env("NO_TOOLS", "1").env("PATH", "/nonexistent").output().expect("the same test");
            assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
        }
        let named = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from);
        assert_eq!(
            here,
            missing_from(&std::env::var_os("PATH").unwrap_or_default(), has_libclang(named, "/usr".as_ref()))
        );
    }

    #[test]
    fn a_program_and_a_cpu_have_their_fingerprints() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("abc");
        std::fs::write(&file, "abc").expect("write");
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file).expect("hash"), abc);
        assert_eq!(hash_once(&file).expect("hash"), abc);
        assert_eq!(cpu(), read_cpu());
        if std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("flags")) {
            let (_, flags) =
                read_cpu().rsplit_once(", flags ").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("flags");
            assert!(flags.len() == 8 && flags.bytes().all(|byte| byte.is_ascii_hexdigit()), "{flags}");
        }
        assert_eq!(list(&["a".to_owned(), "b".to_owned()]), "\n  - a\n  - b");
        let workers = Workers::new("t".as_ref());
        assert_eq!(workers.build_folder(), Path::new("t/cpp/build"));
        assert_eq!(workers.program(CppBackend::Llama), Path::new("t/cpp/llama/worker"));
        let (one, other) = (fingerprint(CppBackend::BitNet), fingerprint(CppBackend::Llama));
        assert!(one != other && one.len() == 64 && hex::decode(&one).is_ok(), "{one}");
    }

    #[test]
    fn nothing_there_is_said_with_the_command() {
        let dir = tempfile::tempdir().expect("folder");
        let missing = Workers::new(dir.path()).preflight(CppBackend::BitNet).expect_err("empty");
        assert!(missing.line().contains("it was not built"), "{missing}");
        assert_eq!(missing.command, "cargo xtask setup-cpp bitnet");
    }
}
