//! What a line says: a message, or a command that begins with a slash.

/// The commands, for people.
pub(super) const HELP: &str = "\
/system TEXT   another system message; `/system none` removes it, `/system` shows it
/reset         forget all turns
/save FILE     write the conversation as JSON messages
/load FILE     go on from such a file
/stats         tokens, times, what was kept from turn to turn
/help          this list
/quit          end (also Ctrl-D)
//TEXT         a message that begins with a slash";

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// An empty line.
    Nothing,
    Ask(&'a str),
    ShowSystem,
    System(Option<&'a str>),
    Reset,
    Save(&'a str),
    Load(&'a str),
    Stats,
    Help,
    Quit,
}

/// Reads a line, or says what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Command<'_>, String> {
    let Some(command) = line.trim_start().strip_prefix('/') else {
        return Ok(if line.trim().is_empty() { Command::Nothing } else { Command::Ask(line) });
    };
    if command.starts_with('/') {
        return Ok(Command::Ask(command));
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    let command = match name {
        "system" => match rest {
            "" => Command::ShowSystem,
            "none" => Command::System(None),
            text => Command::System(Some(text)),
        },
        "save" | "load" if rest.is_empty() => return Err(format!("/{name} wants the name of a file")),
        "save" => Command::Save(rest),
        "load" => Command::Load(rest),
        "reset" | "stats" | "help" | "quit" if !rest.is_empty() => return Err(format!("/{name} takes nothing more")),
        "reset" => Command::Reset,
        "stats" => Command::Stats,
        "help" => Command::Help,
        "quit" => Command::Quit,
        _ => return Err(format!("there is no command /{name}; /help lists them, //{name} sends it as a message")),
    };
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        for (line, expected) in [
            ("", Command::Nothing),
            ("  \t", Command::Nothing),
            (" Why? ", Command::Ask(" Why? ")),
            ("1/2", Command::Ask("1/2")),
            ("//etc/passwd", Command::Ask("/etc/passwd")),
            ("/system", Command::ShowSystem),
            ("/system Be brief. ", Command::System(Some("Be brief."))),
            ("/system none", Command::System(None)),
            (" /reset", Command::Reset),
            ("/save a b.json", Command::Save("a b.json")),
            ("/load\tx", Command::Load("x")),
            ("/stats ", Command::Stats),
            ("/help", Command::Help),
            ("/quit", Command::Quit),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        }
        for (line, words) in [
            ("/save", "/save wants the name"),
            ("/load  ", "/load wants the name"),
            ("/quit now", "/quit takes nothing"),
            ("/exit", "no command /exit"),
            ("/", "no command /"),
            ("/Help", "no command /Help"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line:?}: {error}");
        }
    }
}
