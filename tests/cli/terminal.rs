//! Where output goes: pipes that are closed, terminals.

use std::io;
use std::process::{Command, Stdio};

use super::root;

fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).current_dir(root()).env_clear();
    command
}

/// A reader that has seen enough is no error, and no reason for a panic.
#[test]
fn a_closed_pipe_is_no_error() {
    let question = ["--principal", "User::\"ian\"", "--action", "chat", "--resource", "Model::\"openai-main/gpt-4o\""];
    let decide = [&["decide"][..], &question].concat();
    let explain = [&["explain"][..], &question].concat();
    let cases: [(&[&str], i32); 10] = [
        (&["check", "--format", "json"], 0),
        (&["compile"], 0),
        (&["schema"], 0),
        (&["schema", "--yaml"], 0),
        (&["schema", "--admin"], 0),
        (&["completions", "zsh"], 0),
        (&["version"], 0),
        (&["--help"], 0),
        (&decide, 3),
        (&explain, 3),
    ];
    for (arguments, code) in cases {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = tollgate(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("error"), "{arguments:?}: {said}");
    }
}

/// What holds where the bundle says nothing of keys can be read, and begun from.
#[test]
fn the_policies_that_ship_are_printed() {
    // They are the same for every bundle.
    let output = tollgate(&["schema", "--admin"]).env("TOLLGATE_POLICIES", "policies").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.trim_end(), include_str!("../../schema/admin.cedar").trim_end());
    for other in ["--yaml", "--config"] {
        let output = tollgate(&["schema", "--admin", other]).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{other}");
    }
}

/// With both pipes closed nothing can be told, and the exit code still tells it.
#[test]
fn with_nobody_to_tell_the_exit_code_does() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let command = &mut tollgate(&["check", "nowhere"]);
    let status = command.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

/// Colours on a terminal, and none where `NO_COLOR` is set. `script` lends the terminal; without it nothing is tested.
#[test]
fn colours_are_for_terminals() {
    let line = format!(
        "{} decide --principal 'User::\"ian\"' --action chat --resource 'Model::\"mini\"'",
        env!("CARGO_BIN_EXE_tollgate")
    );
    let on_terminal = |line: &str, no_color: Option<&str>| {
        let mut script = Command::new("script");
        script.args(["-qec", line, "/dev/null"]).current_dir(root());
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        script.env_remove("NO_COLOR").env("TERM", "xterm");
        if let Some(value) = no_color {
            script.env("NO_COLOR", value);
        }
        let mut child = script.spawn().ok()?;
        // Where its input ends, `script` ends as well and leaves the rest unsaid.
        let input = child.stdin.take();
        let output = child.wait_with_output().ok()?;
        drop(input);
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(coloured) = on_terminal(&line, None) else { return };
    assert!(coloured.contains("\x1b["), "{coloured}");
    assert!(!on_terminal(&line, Some("1")).unwrap().contains("\x1b["));
    // What cannot be served ends at once: the log is text, with colours.
    let line = format!("{} serve --policies p --data /dev/null/none", env!("CARGO_BIN_EXE_tollgate"));
    let served = on_terminal(&line, None).unwrap();
    assert!(served.contains("Z \x1b[31merror:\x1b[0m ") && !served.contains("{\"timestamp"), "{served}");
    let plain = on_terminal(&line, Some("1")).unwrap();
    assert!(plain.contains("Z error: ") && !plain.contains("\x1b["), "{plain}");
    let piped = tollgate(&["--help"]).output().unwrap();
    assert!(!piped.stdout.contains(&0x1b));
}
