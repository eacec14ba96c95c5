//! A Redis that a test starts, kills and starts again.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tollgate::edge::store::{Redis, RedisOptions};

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Server {
    child: Option<Child>,
    pub port: u16,
    pub directory: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// `None`, with a word about it, where there is none to start; under CI that is a failure.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "redis-server is missing");
            println!("skipped: redis-server is not installed (./test installs it)");
            return None;
        }
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { child: None, port: 0, directory: tempfile::tempdir().unwrap(), arguments };
        // Somebody else may take a port before it is bound.
        let began = (0..20).any(|_| {
            server.port = free_port();
            server.try_begin()
        });
        assert!(began, "redis-server does not stay: {:?}", server.arguments);
        Some(server)
    }

    /// Starts it again where it was.
    pub fn begin(&mut self) {
        let began = (0..20).any(|_| self.try_begin());
        assert!(began, "redis-server does not stay: {:?}", self.arguments);
    }

    /// Whether it stays; not, where its port is taken.
    fn try_begin(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--dir", self.directory.path().to_str().unwrap()]).args(&self.arguments);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        // Not before it has read what it had.
        while self.try_ask("PING").is_none_or(|answer| !answer.contains("+PONG")) {
            assert!(Instant::now() < until, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
            if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                std::thread::sleep(Duration::from_millis(100));
                return false;
            }
        }
        true
    }

    /// Stops it (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What it answers to a command, as it comes.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        // Where it wants a password, its answer to that comes first.
        let password = self.arguments.iter().skip_while(|argument| *argument != "--requirepass").nth(1);
        let admitted = password.map(|password| format!("AUTH {password}\r\n")).unwrap_or_default();
        stream.write_all(format!("{admitted}{command}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub fn options(&self, data: &Path, prefix: &str) -> RedisOptions {
        let mut options = RedisOptions::new(format!("redis://127.0.0.1:{}", self.port), data);
        // Long enough for a machine that does other things.
        options.timeout = Duration::from_secs(5);
        prefix.clone_into(&mut options.prefix);
        options
    }

    pub fn store(&self, data: &Path, prefix: &str) -> Redis {
        Redis::open(&self.options(data, prefix)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
