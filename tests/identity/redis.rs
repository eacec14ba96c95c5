//! A Redis of the test's own.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::support::DEADLINE;

pub struct Redis {
    child: std::process::Child,
    pub port: u16,
    _data: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Option<Self> {
        // Somebody else may take a port before it is bound.
        (0..20).find_map(|_| Self::try_start()).expect("redis-server does not stay")
    }

    /// `Some(None)` where there is none to start; `None` where it does not stay, since its port is taken.
    fn try_start() -> Option<Option<Self>> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = tempfile::TempDir::new().unwrap();
        let started = std::process::Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir"])
            .arg(data.path())
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "there is no redis-server: {error}");
                eprintln!("passed over: there is no redis-server");
                return Some(None);
            }
        };
        let began = Instant::now();
        while !answers(port) {
            assert!(began.elapsed() < DEADLINE, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
            if child.try_wait().unwrap().is_some() {
                return None;
            }
        }
        Some(Some(Self { child, port, _data: data }))
    }
}

/// Whether a Redis does.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"+PONG"
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
