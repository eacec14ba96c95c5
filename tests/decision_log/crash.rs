//! What is in the log after a crash, and what `verify` finds.

use std::path::Path;

use serde_json::Value;

use crate::support::{Client, DEADLINE, Setup, question};
use crate::{decisions, files, folder, lines, log, stop};

fn setup() -> Setup {
    Setup::new().config("decision_log: { level: all }\n")
}

/// The numbers of the decisions within their process, as their ids end.
fn numbers(records: &[Value]) -> Vec<u64> {
    let number = |record: &Value| u64::from_str_radix(record["id"].as_str()?.split_once('-')?.1, 16).ok();
    records.iter().map(|record| number(record).unwrap()).collect()
}

#[test]
fn what_is_in_the_log_after_a_crash_is_a_prefix_and_a_restart_goes_on() {
    let server = setup().start();
    let address = server.address;
    let asking = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let began = std::time::Instant::now();
        let mut answered = 0_u64;
        while began.elapsed() < DEADLINE {
            let asked = question("alice", "openai-main/gpt-4o");
            if client
                .try_request("POST", "/is_authorized", &["Content-Type: application/json"], asked.as_bytes())
                .is_none()
            {
                break;
            }
            answered += 1;
        }
        answered
    });
    server.until("some of the log", |server| {
        let folder = folder(server.temp.path());
        folder.exists() && files(&folder).iter().any(|file| std::fs::metadata(file).unwrap().len() > 50_000)
    });
    let temp = server.crash();
    let answered = asking.join().unwrap();
    let folder = folder(temp.path());
    let (code, told) = log(&folder, &["verify"]);
    // A write of the system is whole or torn; which it was is said, and nothing else is wrong.
    assert!(code == 0 || told.contains("follow the last complete record"), "{told}");
    let text: String = files(&folder).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let before: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let before: Vec<Value> = before.into_iter().filter(|line| line.get("event").is_none()).collect();
    let recorded = numbers(&before);
    assert_eq!(recorded, (1..=recorded.len() as u64).collect::<Vec<_>>());
    assert!(!recorded.is_empty() && recorded.len() as u64 <= answered + 1);

    let mut server = setup().start_in(temp);
    server.post("/is_authorized", &question("alice", "openai-main/gpt-4o"));
    stop(&mut server);
    let (code, told) = log(&folder, &["verify"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(decisions(&folder).len(), recorded.len() + 1);
    let starts = lines(&folder).iter().filter(|line| line["event"] == "start").count();
    assert_eq!(starts, 2);
}

/// A log of a few decisions that were made by a server which has stopped.
fn written() -> tempfile::TempDir {
    let mut server = setup().start();
    for number in 0..6 {
        server.post("/is_authorized", &question("alice", &format!("openai-main/model-{number}")));
    }
    stop(&mut server);
    std::mem::replace(&mut server.temp, tempfile::TempDir::new().unwrap())
}

pub fn change(folder: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let file = &files(folder)[0];
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    std::fs::write(file, lines.concat()).unwrap();
}

#[test]
fn verify_names_the_first_record_that_is_wrong() {
    type Change = fn(&mut Vec<String>);
    let damages: [(&str, Change, &str); 5] = [
        ("another outcome", |lines| lines[3] = lines[3].replace("forbid", "permit"), "record 4: it was changed"),
        ("a record less", |lines| drop(lines.remove(3)), "record 4: it is missing"),
        ("two swapped", |lines| lines.swap(3, 4), "record 4: it is missing"),
        ("one twice", |lines| lines.insert(4, lines[3].clone()), "record 5: record 4 is in its place again"),
        (
            "half a line at the end",
            |lines| {
                let last = lines.last_mut().unwrap();
                last.truncate(20);
            },
            "20 bytes follow the last complete record",
        ),
    ];
    for (what, damage, expected) in damages {
        let temp = written();
        let folder = folder(temp.path());
        assert_eq!(log(&folder, &["verify"]).0, 0);
        change(&folder, damage);
        let (code, told) = log(&folder, &["verify"]);
        assert_eq!((code, told.contains(expected)), (1, true), "{what}: {told}");
    }
    assert_eq!(log(Path::new("/nowhere"), &["verify"]).0, 2);
}

#[test]
fn a_cut_tail_is_found_with_a_checkpoint_that_is_kept_elsewhere() {
    let temp = tempfile::TempDir::new().unwrap();
    let elsewhere = temp.path().join("checkpoints.jsonl");
    let config = format!("decision_log: {{ level: all, checkpoints: {{ file: {} }} }}\n", elsewhere.display());
    let mut server = Setup::new().config(&config).start();
    server.post("/is_authorized", &question("alice", "openai-main/gpt-4o"));
    stop(&mut server);
    assert!(server.log().contains("\"event\":\"checkpoint\""), "{}", server.log());
    let folder = folder(server.temp.path());
    let checkpoint = elsewhere.to_str().unwrap();
    assert_eq!(log(&folder, &["verify", "--checkpoint", checkpoint]).0, 0);
    change(&folder, |lines| lines.truncate(3));
    assert_eq!(log(&folder, &["verify"]).0, 0);
    let (code, told) = log(&folder, &["verify", "--checkpoint", checkpoint]);
    assert_eq!((code, told.contains("the log ends here")), (1, true), "{told}");
}

#[test]
fn a_disk_that_cannot_be_written_stops_the_log_and_no_decision() {
    let config = "meters: { in_memory: true }\ndecision_log: { level: all }\n";
    let mut server = Setup::new().config(config).outlives_full_disks().start();
    let ask = |server: &crate::support::Server| server.post("/is_authorized", &question("alice", "openai-main/gpt-4o"));
    assert_eq!(ask(&server).json()["decision"], "permit");
    let has = |server: &crate::support::Server, text: &str| server.get("/metrics").body.contains(text);
    server.until("a record", |server| has(server, "tollgate_decision_log_records_total{outcome=\"written\"} 1\n"));
    server.fill_disk(true);
    for _ in 0..3 {
        assert_eq!(ask(&server).json()["decision"], "permit");
    }
    server.until("that it has stopped", |server| has(server, "tollgate_decision_log_stopped 1\n"));
    server.until("the losses", |server| has(server, "tollgate_decision_log_records_total{outcome=\"lost\"} 3\n"));
    server.fill_disk(false);
    ask(&server);
    server.until("that it goes on", |server| has(server, "tollgate_decision_log_stopped 0\n"));
    stop(&mut server);
    let folder = folder(server.temp.path());
    let (code, told) = log(&folder, &["verify"]);
    assert_eq!((code, told.contains("could not be written")), (0, true), "{told}");
    let gap: u64 =
        lines(&folder).iter().filter(|line| line["event"] == "gap").map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(decisions(&folder).len() as u64 + gap, 5);
}

#[test]
fn two_processes_do_not_write_one_log() {
    let first = setup().start();
    let elsewhere = first.temp.path().join("tollgate-data/decisions");
    let config = format!(
        "meters: {{ in_memory: true }}\nidentity: {{ providers: [] }}\ndecision_log: {{ file: {{ directory: {} }} }}\n",
        elsewhere.display()
    );
    let (code, told) = Setup::new().config(&config).fail();
    assert_eq!((code, told.contains("another process writes the decision log")), (Some(2), true), "{told}");
}
