//! The program of a worker, the same for both references: the protocol over stdin and stdout, the shim below it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::io::{BufReader, BufWriter};
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use cpp_sys::serve::{Reference, serve};
use cpp_sys::wire::{CacheType, Fault, Generated, Hello, LoadInfo, LoadOptions, PROTOCOL, Refusal, TraceStep};

#[allow(non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code)]
mod shim {
    include!(concat!(env!("OUT_DIR"), "/shim.rs"));
}

/// What the build script wrote down.
const BUILD: &str = include_str!(concat!(env!("OUT_DIR"), "/build.json"));
/// The requests of the protocol; this worker answers all.
const REQUESTS: [&str; 7] = ["load", "tokenize", "detokenize", "logits", "generate", "trace", "provoke"];
/// Tokens a batch where the client does not say.
const CHUNK: usize = 512;
/// File types of the fork whose kernels go wrong for more than one token a batch: TL1, TL2.
const ONE_BY_ONE: [i32; 2] = [38, 39];

pub fn main() -> ExitCode {
    match go() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("worker: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn go() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: the C++ side prints to stdout at will, and from here on that is stderr.
    // SAFETY: plain calls on descriptors; 1 and 2 are open, since the client made them pipes.
    let out = unsafe { libc::dup(1) };
    // SAFETY: as above.
    if out < 0 || unsafe { libc::dup2(2, 1) } < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: `out` was made above and has no other owner.
    let mut out = BufWriter::new(unsafe { std::fs::File::from_raw_fd(out) });
    // SAFETY: `on_log` lives for ever.
    unsafe { shim::shim_start(Some(on_log)) };
    let mut worker = Worker { build: serde_json::from_str(BUILD)?, info: None };
    serve(&mut worker, &mut BufReader::new(std::io::stdin()), &mut out)?;
    Ok(())
}

/// Lines of warnings and errors of the current request.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Everything goes to stderr, whose end the client keeps; warnings and errors also into the answer.
unsafe extern "C" fn on_log(notable: i32, text: *const c_char) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a C string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    eprint!("{text}");
    let line = text.trim_end();
    if notable != 0 && !line.is_empty() {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < 40 {
            log.push(line.to_owned());
        }
    }
}

struct Worker {
    build: cpp_sys::BuildInfo,
    info: Option<LoadInfo>,
}

fn log() -> Vec<String> {
    std::mem::take(&mut LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

fn refusal() -> Refusal {
    // SAFETY: the shim returns a C string that lives until its next call.
    let message = unsafe { CStr::from_ptr(shim::shim_error()) }.to_string_lossy().into_owned();
    Refusal { message, log: log() }
}

fn int(value: usize) -> Result<i32, Refusal> {
    i32::try_from(value).map_err(|_| Refusal::new(format!("{value} is too much for the reference's i32")))
}

fn signed(tokens: &[u32]) -> Vec<i32> {
    // Ids are in the vocabulary, whose size is an i32.
    tokens.iter().map(|id| *id as i32).collect()
}

impl Worker {
    fn vocab(&self) -> usize {
        self.info.as_ref().map_or(0, |info| info.vocab_size)
    }

    fn chunk(&self) -> Result<i32, Refusal> {
        int(self.info.as_ref().and_then(|info| info.largest_batch).unwrap_or(CHUNK))
    }
}

impl Reference for Worker {
    fn hello(&self) -> Hello {
        // SAFETY: a C string that lives until the next call.
        let system = unsafe { CStr::from_ptr(shim::shim_system()) }.to_string_lossy().trim().to_owned();
        Hello {
            protocol: PROTOCOL,
            backend: self.build.backend.clone(),
            build: self.build.clone(),
            system,
            requests: REQUESTS.map(str::to_owned).to_vec(),
            architectures: self.build.architectures.clone(),
        }
    }

    fn load(&mut self, path: &Path, options: &LoadOptions, threads: usize) -> Result<LoadInfo, Refusal> {
        log();
        self.info = None;
        let text = path.to_str().and_then(|path| CString::new(path).ok());
        let path = text.ok_or_else(|| Refusal::new("the path is not UTF-8, or has a zero byte"))?;
        let threads = if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
        // SAFETY: all zeros are a value of this plain struct.
        let mut info: shim::shim_info = unsafe { std::mem::zeroed() };
        let (context, count) = (int(options.context)?, int(threads)?);
        let (vocab_only, cache_f32) = (i32::from(options.vocab_only), i32::from(options.cache == CacheType::F32));
        // SAFETY: the path is a C string, `info` is ours; both outlive the call.
        if unsafe { shim::shim_load(path.as_ptr(), context, vocab_only, cache_f32, count, &mut info) } != 0 {
            return Err(refusal());
        }
        let size = |value: i32| usize::try_from(value).unwrap_or_default();
        // SAFETY: the shim ends the text with a zero.
        let description = unsafe { CStr::from_ptr(info.description.as_ptr()) }.to_string_lossy().into_owned();
        let one = self.build.backend == "bitnet" && ONE_BY_ONE.contains(&info.file_type);
        let loaded = LoadInfo {
            vocab_size: size(info.vocab),
            context: size(info.context),
            layers: size(info.layers),
            width: size(info.width),
            heads: size(info.heads),
            kv_heads: size(info.kv_heads),
            description,
            bytes: info.bytes,
            parameters: info.parameters,
            bos: u32::try_from(info.bos).ok(),
            eos: u32::try_from(info.eos).ok(),
            add_bos: info.add_bos != 0,
            largest_batch: one.then_some(1),
            threads,
            warnings: log(),
        };
        self.info = Some(loaded.clone());
        Ok(loaded)
    }

    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, Refusal> {
        log();
        let length = int(text.len())?;
        let mut ids = vec![0_i32; text.len() + 8];
        loop {
            let room = int(ids.len())?;
            let (start, add, parse) = (text.as_ptr().cast(), i32::from(add_special), i32::from(parse_special));
            // SAFETY: text and ids are as long as said.
            let count = unsafe { shim::shim_tokenize(start, length, add, parse, ids.as_mut_ptr(), room) };
            let count = usize::try_from(count).map_err(|_| refusal())?;
            let fits = count <= ids.len();
            ids.resize(count, 0);
            if fits {
                return Ok(ids.iter().map(|id| *id as u32).collect());
            }
        }
    }

    fn detokenize(&mut self, tokens: &[u32], special: bool) -> Result<Vec<u8>, Refusal> {
        log();
        let (ids, count) = (signed(tokens), int(tokens.len())?);
        let mut text = vec![0_u8; tokens.len() * 8 + 64];
        loop {
            let (start, room) = (text.as_mut_ptr().cast(), int(text.len())?);
            // SAFETY: ids and text are as long as said.
            let length = unsafe { shim::shim_detokenize(ids.as_ptr(), count, i32::from(special), start, room) };
            let length = usize::try_from(length).map_err(|_| refusal())?;
            let fits = length <= text.len();
            text.resize(length, 0);
            if fits {
                return Ok(text);
            }
        }
    }

    fn logits(&mut self, tokens: &[u32], positions: &[usize], chunk: usize) -> Result<Vec<f32>, Refusal> {
        log();
        let mut wanted = vec![0_u8; tokens.len()];
        for position in positions {
            *wanted.get_mut(*position).ok_or_else(|| Refusal::new("a position outside the sequence"))? = 1;
        }
        let (ids, count, chunk) = (signed(tokens), int(tokens.len())?, int(chunk.min(CHUNK))?);
        let mut logits = vec![0_f32; positions.len() * self.vocab()];
        // SAFETY: positions are distinct, so there are as many marks as rows; a row is a vocabulary.
        match unsafe { shim::shim_logits(ids.as_ptr(), count, wanted.as_ptr(), chunk, logits.as_mut_ptr()) } {
            0 => Ok(logits),
            _ => Err(refusal()),
        }
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Generated, Refusal> {
        log();
        let (ids, count, most) = (signed(prompt), int(prompt.len())?, int(max_tokens)?);
        let mut made = vec![0_i32; max_tokens];
        let (mut made_count, mut ended, mut prompt_seconds, mut decode_seconds) = (0, 0, 0.0, 0.0);
        // SAFETY: `made` has room for `most` ids, the others are ours.
        let code = unsafe {
            shim::shim_generate(
                ids.as_ptr(),
                count,
                self.chunk()?,
                most,
                made.as_mut_ptr(),
                &mut made_count,
                &mut ended,
                &mut prompt_seconds,
                &mut decode_seconds,
            )
        };
        if code != 0 {
            return Err(refusal());
        }
        let tokens = made.iter().take(usize::try_from(made_count).unwrap_or_default()).map(|id| *id as u32).collect();
        Ok(Generated { tokens, ended: ended != 0, prompt_seconds, decode_seconds })
    }

    fn trace(&mut self, tokens: &[u32], steps: &[String]) -> Result<Vec<TraceStep>, Refusal> {
        log();
        let mut taken = Taken { wanted: steps.to_vec(), steps: Vec::new() };
        let user: *mut Taken = &mut taken;
        let (ids, count) = (signed(tokens), int(tokens.len())?);
        // SAFETY: `taken` outlives the call, and the callbacks run during it, one at a time.
        let code =
            unsafe { shim::shim_trace(ids.as_ptr(), count, self.chunk()?, Some(wants), Some(takes), user.cast()) };
        if code != 0 {
            return Err(refusal());
        }
        match taken.steps.iter().find(|step| step.rows != tokens.len()) {
            Some(step) => Err(Refusal::new(format!("{} has {} rows for {count} tokens", step.tensor, step.rows))),
            None => Ok(taken.steps),
        }
    }

    fn provoke(&mut self, fault: Fault) -> Result<(), Refusal> {
        log();
        let fault = match fault {
            Fault::Assert => 0,
            Fault::Hang => 1,
            Fault::Chatter => 2,
        };
        // SAFETY: a number.
        if unsafe { shim::shim_provoke(fault) } == 0 { Ok(()) } else { Err(refusal()) }
    }
}

/// Steps as they come; a step comes once a batch.
struct Taken {
    wanted: Vec<String>,
    steps: Vec<TraceStep>,
}

unsafe extern "C" fn wants(user: *mut c_void, step: *const c_char) -> i32 {
    // SAFETY: `user` is the `Taken` of the running request, `step` a C string.
    let (taken, step) = unsafe { (&*user.cast::<Taken>(), CStr::from_ptr(step).to_string_lossy()) };
    i32::from(taken.wanted.is_empty() || taken.wanted.iter().any(|wanted| *wanted == step))
}

unsafe extern "C" fn takes(
    user: *mut c_void,
    step: *const c_char,
    tensor: *const c_char,
    op: *const c_char,
    rows: i64,
    width: i64,
    values: *const f32,
) {
    // SAFETY: `user` is the `Taken` of the running request, which nobody else uses now.
    let taken = unsafe { &mut *user.cast::<Taken>() };
    // SAFETY: C strings that live during the call.
    let text = |text| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    let (rows, width) = (usize::try_from(rows).unwrap_or_default(), usize::try_from(width).unwrap_or_default());
    // SAFETY: the shim passes `rows * width` values.
    let values = unsafe { std::slice::from_raw_parts(values, rows * width) };
    let (step, tensor, op) = (text(step), text(tensor), text(op));
    match taken.steps.iter_mut().find(|known| known.step.as_ref() == Some(&step)) {
        Some(known) => {
            known.rows += rows;
            known.values.extend_from_slice(values);
        }
        None => taken.steps.push(TraceStep { step: Some(step), tensor, op, rows, width, values: values.to_vec() }),
    }
}
