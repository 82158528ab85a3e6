//! `bitnet chat` from a pipe: answers on stdout, commands, Ctrl-C, what is kept from turn to turn.

use crate::support::*;
use std::io::{Read, Write};
use std::process::Stdio;

/// The embedded model, which answers in the form of its own book.
const CHAT: &[&str] =
    &["chat", "--prompt-template", "instruct", "--temperature", "0", "-n", "10", "--context", "256", "--threads", "1"];

fn chat(lines: &str, more: &[&str]) -> Run {
    run_with(lines.as_bytes(), &[CHAT, more].concat())
}

/// The answers of a run; none of the model's has a line break here.
fn answers(run: &Run) -> Vec<&str> {
    run.out.lines().collect()
}

#[test]
fn turns_are_answered_as_a_new_session_would() {
    let run = chat("Who was Moses?\n\n  \nAnd Levi?\n/stats\n", &["--system", "Be brief."]).ok();
    let said = answers(&run);
    assert_eq!(said.len(), 2, "{}", run.out);
    let whole = |prompt: &str| {
        let raw = ["infer", "--prompt", prompt, "--prompt-template", "raw", "--no-echo", "--stop", "\nQ:"];
        crate::support::run(&[&raw[..], &["--temperature", "0", "-n", "10"]].concat()).ok().out
    };
    assert_eq!(format!("{}\n", said[0]), whole("Be brief.\n\nQ: Who was Moses?\nA:"));
    let second = format!("Be brief.\n\nQ: Who was Moses?\nA: {}\nQ: And Levi?\nA:", said[0]);
    assert_eq!(format!("{}\n", said[1]), whole(&second));

    // The tokens that were computed: each of the second prompt that the first had is counted once.
    let ids = |text: &str| crate::support::run(&["tokenize", "--text", text]).ok().out.split_whitespace().count();
    let figures: Vec<usize> = run.err.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let last = run.err.split("[last: ").nth(1).unwrap_or_else(|| panic!("{}", run.err));
    let mut last = last.split_whitespace().filter_map(|word| word.parse::<usize>().ok());
    let (prompt, kept) = (last.next().unwrap(), last.next().unwrap());
    assert_eq!(prompt, ids(&second));
    let first = ids("Be brief.\n\nQ: Who was Moses?\nA:");
    assert!(kept >= first - 1 && kept < prompt, "{}", run.err);
    let computed = first + 9 + (prompt - kept) + 9;
    assert!(figures.contains(&computed), "{computed} is not in: {}", run.err);
    assert!(run.err.contains("2 turns, 0 left out"), "{}", run.err);
    assert_eq!(run.err.matches("cut off after 10 tokens").count(), 2, "{}", run.err);
}

#[test]
fn a_conversation_is_saved_reset_and_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let talk = dir.path().join("my talk.json");
    let file = text(&talk);
    let lines = format!(
        "Who was Moses?\n/save {file}\nAnd Levi?\n/load {file}\nAnd Levi?\n/reset\nAnd Levi?\n/system Be kind.\n/system\n/quit\nno\n"
    );
    let run = chat(&lines, &[]).ok();
    let said = answers(&run);
    assert_eq!(said.len(), 4, "nothing after /quit: {}", run.out);
    assert_eq!(said[1], said[2], "the same question after the same messages");
    assert!(run.err.contains("2 messages saved") && run.err.contains("2 messages loaded"), "{}", run.err);
    assert!(run.err.contains("[system: Be kind.]"), "{}", run.err);
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&talk).unwrap()).unwrap();
    assert_eq!(saved[0], serde_json::json!({"role": "user", "content": "Who was Moses?"}));
    assert_eq!(saved[1]["content"].as_str().unwrap().trim(), said[0].trim());
    let other = chat(&format!("/load {file}\nAnd Levi?\n"), &[]).ok();
    assert_eq!(answers(&other), &said[1..2], "another process goes on");
    assert_eq!(answers(&chat("And Levi?\n", &[]).ok()), &said[3..4], "after /reset it is a new conversation");
}

#[test]
fn what_cannot_be_done_is_said_and_the_conversation_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.json");
    std::fs::write(&bad, "[{\"role\": \"assistant\", \"content\": \"\"}]").unwrap();
    let long = "Who was Moses? ".repeat(100);
    let lines = format!(
        "/exit\n/load no/such.json\n/load {}\n/save {}\n/save no/such/talk.json\n{long}\nWhy?\n",
        text(&bad),
        text(dir.path())
    );
    let run = chat(&lines, &[]).code(1);
    assert_eq!(answers(&run).len(), 1, "{}", run.out);
    for words in [
        "no command /exit",
        "no/such.json",
        "bad.json: message 1: its role is `assistant`, expected `user`",
        "cannot save to ",
        "cannot save to no/such/talk.json: cannot create a file in the folder no/such",
        "the context has room for 255",
    ] {
        assert!(run.err.contains(words), "no `{words}` in: {}", run.err);
    }
    assert_eq!(run.err.matches("error: ").count(), 6, "{}", run.err);
    let run = run_with(b"Who \xFF?\nWhy?\n", CHAT).code(1);
    assert!(run.err.contains("not UTF-8") && answers(&run).len() == 1, "{}", run.err);

    let many = "Who was the king of Israel?\n".repeat(12);
    let run = chat(&many, &[]).ok();
    assert_eq!(answers(&run).len(), 12);
    assert!(run.err.contains("[the context is full: the oldest "), "{}", run.err);
}

#[test]
fn a_model_without_a_template_is_not_talked_to() {
    for template in [&[][..], &["--prompt-template", "auto"]] {
        let args = [&["chat"][..], template].concat();
        run_with(b"Why?\n", &args).fails_with(&["no chat template", "--prompt-template", "--chat-template-file"]);
    }
    let raw = ["chat", "--prompt-template", "raw", "-n", "4", "--temperature", "0"];
    let infer = ["infer", "--prompt", "In the beginning", "--no-echo", "-n", "4", "--temperature", "0"];
    assert_eq!(run_with(b"In the beginning", &raw).ok().out, run(&infer).ok().out);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.jinja");
    std::fs::write(&file, "{% for m in messages %}<{{ m.content }}>{% endfor %}").unwrap();
    let own = ["chat", "--chat-template-file", text(&file), "-n", "4", "--seed", "7"];
    assert_eq!(run_with(b"Why?\nWhy?\n", &own).ok().out, run_with(b"Why?\nWhy?\n", &own).ok().out, "a seed repeats");
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_the_answer_and_not_the_program() {
    let endless = ["chat", "--prompt-template", "raw", "--ignore-eos", "--seed", "1", "-n", "1000000"];
    let mut child = bitnet(&[&endless[..], &["--context", "1000000"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut out = Vec::new();
    for question in ["In the beginning\n", "And the sons of Levi\n"] {
        stdin.write_all(question.as_bytes()).unwrap();
        let mut some = [0; 40];
        stdout.read_exact(&mut some).unwrap();
        out.extend_from_slice(&some);
        wait_for_handler(child.id());
        interrupt(child.id());
    }
    // What is said to be saved is there: both turns, each cut short.
    let dir = tempfile::tempdir().unwrap();
    let talk = dir.path().join("talk.json");
    stdin.write_all(format!("/save {}\n", text(&talk)).as_bytes()).unwrap();
    drop(stdin);
    stdout.read_to_end(&mut out).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(err.matches("[stopped]").count(), 2, "{err}");
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&talk).unwrap()).unwrap();
    let text = |i: usize| saved[i]["content"].as_str().unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), format!("{}\n{}\n", text(1), text(3)));

    // Where nothing is answered it ends a program that waits for a pipe.
    let mut child = bitnet(&endless).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Kept: `wait` would close it, and the end of the pipe may come before the signal.
    let stdin = child.stdin.take();
    wait_for_handler(child.id());
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
}

/// A conversation on a terminal of its own: each text is typed at once when the words before it are shown. The answers, all
/// that was shown, and the exit code. `setsid` makes it the program's terminal, whatever terminal the tests run on.
#[cfg(target_os = "linux")]
fn on_a_terminal(typed: &[(&str, &[u8])]) -> (String, String, Option<i32>) {
    let (mut master, open) = terminal();
    let program = bitnet(CHAT);
    // A line that is lost would be waited for.
    let mut command = std::process::Command::new("timeout");
    command
        .args(["--foreground", "60", "setsid", "-c"])
        .arg(program.get_program())
        .args(program.get_args())
        .env("TERM", "xterm");
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    let mut child = command.stdin(open()).stderr(open()).stdout(Stdio::piped()).spawn().unwrap();
    drop(command);
    let (mut shown, mut some) = (Vec::new(), [0; 1024]);
    for (words, bytes) in typed {
        while !String::from_utf8_lossy(&shown).contains(words) {
            let length = master.read(&mut some).unwrap();
            shown.extend_from_slice(&some[..length]);
        }
        master.write_all(bytes).unwrap();
    }
    // The end of a terminal is an error of reading.
    let _ = master.read_to_end(&mut shown);
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    (out, String::from_utf8_lossy(&shown).into_owned(), child.wait().unwrap().code())
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_typed_ahead_on_a_terminal_is_kept() {
    let piped = chat("/system Be brief.\nWho was Moses?\nAnd Levi?\nWhy?\n", &[]).ok().out;
    let typed: &[u8] = b"/system Be brief.\rWho was Moses?\rAnd Levi?\nWhy?\r/quit\r";
    let (out, shown, code) = on_a_terminal(&[("> ", typed)]);
    assert_eq!((out.as_str(), code), (piped.as_str(), Some(0)), "{shown}");
    // While it answers, perhaps: the first line is echoed then.
    let later: &[u8] = b"And Levi?\rWhy?\r/quit\r";
    let (out, shown, code) = on_a_terminal(&[("> ", b"/system Be brief.\rWho was Moses?\r"), ("Moses?", later)]);
    assert_eq!((out.as_str(), code), (piped.as_str(), Some(0)), "{shown}");
}

#[cfg(target_os = "linux")]
#[test]
fn bytes_that_are_not_utf8_do_not_end_a_conversation_on_a_terminal() {
    let typed: [(&str, &[u8]); 2] = [("> ", b"caf\xe9\r"), ("type it again", b"Who was Moses?\r/quit\r")];
    let (out, shown, code) = on_a_terminal(&typed);
    assert!(shown.contains("not UTF-8"), "{shown}");
    assert_eq!((out.lines().count(), code), (1, Some(0)), "{shown}");
}
