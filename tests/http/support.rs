//! A server of its own for each test, and a client that sends exactly what it is told.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Only a hang takes this long, also on a machine that does much else.
pub const DEADLINE: Duration = Duration::from_mins(1);

pub const BUNDLE: &str = r#"
orgs: [{ id: acme }]
teams:
  - { id: research, org: acme, tags: [gpu] }
  - { id: gone, org: acme, disabled: true }
users:
  - { id: alice, team: research }
  - { id: ian, team: gone }
services: [{ id: bot, team: research }]
provider_accounts:
  - id: openai-main
    provider: openai
    models:
      - { name: gpt-4o, aliases: [best] }
      - gpt-4o-mini
      - { name: old, enabled: false }
routers: [{ id: chat-prod, models: [openai-main/gpt-4o, openai-main/gpt-4o-mini] }]
authz_rules:
  - { id: research-chat, teams: [research], models: ["openai-main/*"], actions: [chat] }
  - { id: alice-router, users: [alice], routers: [chat-prod], actions: [chat] }
  - { id: no-mini, effect: forbid, users: [alice], models: [openai-main/gpt-4o-mini] }
  - { id: small-only, users: [eve], models: ["open/*"], when: "context has input_tokens && context.input_tokens < 10" }
  - { id: overflow, effect: forbid, users: [erin], models: "*", when: "context.budget.remaining_micros + 1 < 0" }
  - { id: gpu, tags: [gpu], models: ["labs/*"] }
"#;

/// Secrets that tests use; no server may ever write one.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes that `text` is a secret: whatever a server writes is looked through for it when the server ends.
pub fn secret(text: impl Into<String>) -> String {
    let text = text.into();
    let mut secrets = SECRETS.lock().unwrap();
    if !secrets.contains(&text) {
        secrets.push(text.clone());
    }
    text
}

/// A running server with a bundle of its own.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    pub temp: TempDir,
}

/// How a server is started.
pub struct Setup {
    files: Vec<(String, String)>,
    config: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    outlives_full_disks: bool,
    log_format: Option<&'static str>,
}

impl Setup {
    pub fn new() -> Self {
        Self {
            files: vec![("bundle.yaml".to_owned(), BUNDLE.to_owned())],
            config: String::new(),
            arguments: Vec::new(),
            variables: Vec::new(),
            outlives_full_disks: false,
            // What tests look for is what people read.
            log_format: Some("text"),
        }
    }

    /// With a bundle that the test writes itself.
    pub fn without_files() -> Self {
        Self { files: Vec::new(), ..Self::new() }
    }

    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    pub fn config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// So that [`Server::fill_disk`] makes writes fail. It raises SIGXFSZ besides, which is to be ignored.
    pub fn outlives_full_disks(mut self) -> Self {
        self.outlives_full_disks = true;
        self
    }

    /// What the environment says of the form of log lines.
    pub fn log_format(mut self, format: Option<&'static str>) -> Self {
        self.log_format = format;
        self
    }

    fn command(&self, temp: &Path) -> Command {
        std::fs::create_dir_all(temp.join("policies")).unwrap();
        for (name, text) in &self.files {
            std::fs::write(temp.join("policies").join(name), text).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        if self.outlives_full_disks {
            command = Command::new("/bin/sh");
            command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tollgate")]);
        }
        command.current_dir(temp).arg("serve").env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        if !self.arguments.iter().any(|argument| argument == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !self.config.is_empty() {
            std::fs::write(temp.join("tollgate.yaml"), &self.config).unwrap();
        }
        command.envs(self.log_format.map(|format| ("TOLLGATE_LOG_FORMAT", format)));
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn start(self) -> Server {
        self.start_in(TempDir::new().unwrap())
    }

    pub fn start_in(self, temp: TempDir) -> Server {
        let mut child = self.command(temp.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (printed, shared) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in printed.map_while(Result::ok) {
                let _ = writeln!(shared.lock().unwrap(), "{line}");
            }
        });
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            let _ = writeln!(log.lock().unwrap(), "{line}");
            let listens = line.split_once("listens on http://").or_else(|| line.split_once("listens on https://"));
            if let Some((_, rest)) = listens {
                address = Some(rest.split(',').next().unwrap().parse().unwrap());
                break;
            }
        }
        let shared = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = writeln!(shared.lock().unwrap(), "{line}");
            }
        });
        let address = address.unwrap_or_else(|| panic!("the server did not start: {}", log.lock().unwrap()));
        let server = Server { child, address, log, temp };
        // It listens after some seconds also where the bundle takes longer; on a busy machine it may.
        server.until("the first load", |server| {
            ["loaded revision", "does not load"].iter().any(|told| server.log().contains(told))
        });
        server
    }

    /// Starts what is expected not to start; its exit code and what it said.
    pub fn fail(self) -> (Option<i32>, String) {
        self.fail_in(TempDir::new().unwrap().path())
    }

    pub fn fail_in(self, temp: &Path) -> (Option<i32>, String) {
        let output = self.command(temp).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Server {
    pub fn start() -> Self {
        Setup::new().start()
    }

    pub fn policies(&self) -> PathBuf {
        self.temp.path().join("policies")
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.connect().post(path, body)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.connect().request("GET", path, &[], b"")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// From here on nothing can be written to files, as on a full disk; or it can again.
    pub fn fill_disk(&self, full: bool) {
        let most = if full { "--fsize=1:" } else { "--fsize=unlimited:" };
        let status = Command::new("prlimit").args(["--pid", &self.child.id().to_string(), most]).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < DEADLINE, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the process at once, as a crash does; what it wrote stays.
    pub fn crash(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.temp, TempDir::new().unwrap())
    }

    fn last_metrics(&self) -> String {
        let Ok(mut client) = Client::try_connect(self.address) else { return String::new() };
        let _ = client.stream.get_ref().set_read_timeout(Some(Duration::from_secs(2)));
        client.try_request("GET", "/metrics", &[], b"").map(|answer| answer.body).unwrap_or_default()
    }

    pub fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < DEADLINE, "not in time: {what}; {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it counts is written too; where somebody may read it without a credential, it is looked at.
        let metrics = if SECRETS.lock().unwrap().is_empty() { String::new() } else { self.last_metrics() };
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = format!("{metrics}\n{}", self.log());
        for secret in SECRETS.lock().unwrap().iter().filter(|_| !std::thread::panicking()) {
            assert!(!log.contains(secret.as_str()), "the server wrote a secret: {log}");
        }
    }
}

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// One response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn finish_sending(&mut self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }

    pub fn post(&mut self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &["Content-Type: application/json"], body.as_bytes())
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.try_request(method, path, headers, body).expect("an answer")
    }

    /// `None` where the connection is closed instead of an answer.
    pub fn try_request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Option<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for header in headers {
            let _ = write!(head, "{header}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        // A server may refuse what it has not read to its end.
        let _ = self.try_send(&bytes);
        self.read_to(method)
    }

    /// The next response; `None` where the connection is closed instead.
    pub fn read(&mut self) -> Option<Answer> {
        self.read_to("")
    }

    fn read_to(&mut self, method: &str) -> Option<Answer> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        let length = length.filter(|_| method != "HEAD");
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).unwrap();
        if status >= 400 {
            let shown = SECRETS.lock().unwrap().iter().any(|secret| body.contains(secret.as_str()));
            assert!(!shown, "an error shows a secret: {body}");
        }
        Some(Answer { status, head, body })
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether this is the error of `code` about `param` (empty for none).
    pub fn is_error(&self, status: u16, code: &str, param: &str) -> bool {
        let Ok(body) = serde_json::from_str::<Value>(&self.body) else { return false };
        let error = &body["error"];
        let told = error["message"].as_str().is_some_and(|message| !message.is_empty());
        let members = body.as_object().is_some_and(|body| body.len() == 1);
        let about = if param.is_empty() { error["param"].is_null() } else { error["param"] == param };
        self.status == status && error["code"] == code && about && told && members
    }
}

/// The body of a question about a model.
pub fn question(principal: &str, model: &str) -> String {
    format!(
        r#"{{"principal": {{"type": "User", "id": "{principal}"}}, "action": "chat", "resource": {{"type": "Model", "id": "{model}"}}}}"#
    )
}
