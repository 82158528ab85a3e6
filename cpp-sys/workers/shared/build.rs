//! How a worker is built, the same for both: CMake for the reference's static libraries, `cc` for the shim, bindgen for its
//! interface, and a note of all this for the program's hello.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpp_sys::{BuildInfo, CppBackend, fingerprint, workers};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// No programs, no tests, no network, no GPU; static libraries for this CPU; ggml's own threads, since clang alone has no
/// OpenMP.
const FLAGS: &[&str] = &[
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_C_COMPILER=clang",
    "-DCMAKE_CXX_COMPILER=clang++",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_CURL=OFF",
    "-DGGML_CCACHE=OFF",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=OFF",
];

/// Where sources came from.
pub struct Origin {
    /// The folder.
    pub folder: PathBuf,
    /// In words, for the receipt.
    pub source: String,
    /// Version or revision.
    pub version: String,
}

impl Origin {
    /// A user's own checkout.
    pub fn checkout(folder: PathBuf) -> Result<Self> {
        let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
        let git = |args: &[&str]| {
            let out = Command::new("git").arg("-C").arg(&folder).args(args).output().ok()?;
            out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        let version = match (git(&["rev-parse", "HEAD"]), git(&["status", "--porcelain", "-uno"])) {
            (Some(commit), Some(changes)) if changes.is_empty() => commit,
            (Some(commit), _) => format!("{commit}, changed"),
            (None, _) => "no git revision".to_owned(),
        };
        for part in ["CMakeLists.txt", "include", "src", "ggml", "3rdparty"] {
            if folder.join(part).exists() {
                println!("cargo::rerun-if-changed={}", folder.join(part).display());
            }
        }
        Ok(Self { source: format!("the checkout {}", folder.display()), folder, version })
    }

    /// A package that cargo fetched for this workspace.
    pub fn package(name: &str) -> Result<Self> {
        let cargo = var("CARGO")?;
        let manifest = Path::new(&var("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
        let out = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
            .arg(manifest)
            .output()?;
        if !out.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        let metadata: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let package = metadata["packages"].as_array().into_iter().flatten().find(|package| package["name"] == name);
        let text = |field: &str| package.and_then(|package| package[field].as_str()).map(str::to_owned);
        let (Some(version), Some(manifest)) = (text("version"), text("manifest_path")) else {
            return Err(format!("cargo metadata does not list {name}").into());
        };
        let folder = Path::new(&manifest).parent().ok_or("a manifest without a folder")?.to_owned();
        Ok(Self { folder, source: format!("the crate {name} {version}"), version })
    }
}

/// What to build.
pub struct Recipe {
    /// Whose worker.
    pub backend: CppBackend,
    /// Folder of the CMakeLists.txt.
    pub root: PathBuf,
    /// llama.cpp's folder below it; empty: the same.
    pub llama: String,
    /// Where the sources came from.
    pub origin: Origin,
    /// What was changed in them.
    pub edits: Vec<String>,
    /// More flags for CMake.
    pub flags: Vec<String>,
}

impl Recipe {
    /// Builds libraries, shim and bindings, and says to cargo what to link.
    pub fn build(self) -> Result<()> {
        let out = out_dir()?;
        let tree = out.join("cmake");
        // CMake refuses a build folder that was made for other sources.
        let cache = fs::read_to_string(tree.join("CMakeCache.txt")).unwrap_or_default();
        let home = format!("CMAKE_HOME_DIRECTORY:INTERNAL={}", self.root.display());
        if !cache.is_empty() && !cache.lines().any(|line| line == home) {
            fs::remove_dir_all(&tree)?;
        }
        let flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).chain(self.flags.clone()).collect();
        run(Command::new("cmake").arg("-S").arg(&self.root).arg("-B").arg(&tree).args(&flags))?;
        let jobs = var("NUM_JOBS")?;
        run(Command::new("cmake").arg("--build").arg(&tree).args(["--target", "llama", "--parallel", &jobs]))?;
        let llama = self.root.join(&self.llama);
        let includes = [llama.join("include"), llama.join("ggml/include"), self.root.join("include")];
        let header = fs::read_to_string(llama.join("include/llama.h"))?;
        self.shim(&includes, header.contains("llama_memory_clear"))?;
        bindings(&out)?;
        let libraries = libraries(&tree)?;
        for (folder, name) in &libraries {
            println!("cargo::rustc-link-search=native={}", folder.display());
            println!("cargo::rustc-link-lib=static={name}");
        }
        let system = ["stdc++", "pthread", "dl", "m"];
        for name in system {
            println!("cargo::rustc-link-lib={name}");
        }
        let info = BuildInfo {
            backend: self.backend.name().to_owned(),
            source: self.origin.source.clone(),
            version: self.origin.version.clone(),
            edits: self.edits.clone(),
            compiler: first_line("clang++")?,
            cmake: first_line("cmake")?,
            flags,
            libraries: libraries.into_iter().map(|(_, name)| name).chain(system.map(str::to_owned)).collect(),
            architectures: architectures(&llama)?,
            cpu: workers::cpu(),
            worker_sources: fingerprint(self.backend),
            ..BuildInfo::default()
        };
        fs::write(out.join("build.json"), serde_json::to_vec_pretty(&info)?)?;
        // Files, not folders: cargo's own lock file comes and goes in this one. Rust sources are known to cargo.
        for file in ["Cargo.lock", "../shared/shim.cpp", "../shared/shim.h", "../shared/steps.h", "../shared/vintage.h"] {
            println!("cargo::rerun-if-changed={file}");
        }
        Ok(())
    }

    fn shim(&self, includes: &[PathBuf], memory_api: bool) -> Result<()> {
        let mut build = cc::Build::new();
        build.cpp(true).compiler("clang++").std("c++17").file("../shared/shim.cpp").include("../shared");
        build.includes(includes.iter().filter(|folder| folder.is_dir()));
        if memory_api {
            build.define("SHIM_MEMORY_API", None);
        }
        // Asserts of the shim stay on, whatever the profile.
        build.opt_level(2).try_compile("shim")?;
        Ok(())
    }
}

fn bindings(out: &Path) -> Result<()> {
    let bindings = bindgen::Builder::default().header("../shared/shim.h").allowlist_item("shim_.*").generate()?;
    bindings.write_to_file(out.join("shim.rs"))?;
    Ok(())
}

/// The libraries that CMake made, those first that need the others.
fn libraries(tree: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "a") {
                let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                found.push((folder.clone(), stem.trim_start_matches("lib").to_owned()));
            }
        }
    }
    let rank = |name: &str| ["llama", "ggml", "ggml-cpu", "ggml-base"].iter().position(|known| *known == name);
    found.retain(|(_, name)| rank(name).is_some());
    found.sort_by_key(|(_, name)| rank(name));
    match found.first() {
        Some((_, name)) if name == "llama" => Ok(found),
        _ => Err(format!("{} holds no libllama.a", tree.display()).into()),
    }
}

/// Which of the architectures that concern us are named in the sources.
fn architectures(llama: &Path) -> Result<Vec<String>> {
    let mut text = String::new();
    for file in ["src/llama.cpp", "src/llama-arch.cpp"] {
        let file = llama.join(file);
        if file.is_file() {
            text += &fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    let known = [
        "llama", "bitnet", "bitnet-b1.58", "bitnet-25", "gpt2", "qwen2", "qwen3", "minicpm", "gemma3", "maple",
    ]
    .into_iter();
    Ok(known.filter(|name| text.contains(&format!("\"{name}\""))).map(str::to_owned).collect())
}

/// Copies a folder, except for the files of these paths.
#[allow(dead_code)] // llama.cpp is built where it lies.
pub fn copy(from: &Path, to: &Path, except: &[PathBuf]) -> Result<()> {
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        for entry in fs::read_dir(&from)? {
            let path = entry?.path();
            let target = to.join(path.file_name().ok_or("a file without a name")?);
            if path.is_dir() {
                folders.push((path, target));
            } else if !except.contains(&path) {
                write(&target, &fs::read(&path)?)?;
            }
        }
    }
    Ok(())
}

/// Writes a file, unless it is the same already: what was compiled from it then stays.
#[allow(dead_code)] // as above
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().ok_or("a file without a folder")?)?;
    Ok(fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// Cargo's folder for what this script makes.
pub fn out_dir() -> Result<PathBuf> {
    Ok(PathBuf::from(var("OUT_DIR")?))
}

fn var(name: &str) -> Result<String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

fn first_line(program: &str) -> Result<String> {
    let out = Command::new(program).arg("--version").output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if out.status.success() {
        return Ok(());
    }
    // The end of both streams: warnings go before errors, and CMake's own words to stdout.
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let lines: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains("error")).collect();
    let tail: Vec<&str> = text.lines().rev().take(30).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!("{command:?}: {}\n{}\n...\n{}", out.status, lines.join("\n"), tail.join("\n")).into())
}
