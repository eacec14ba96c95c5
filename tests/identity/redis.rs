//! A Redis of the test's own.

use std::time::{Duration, Instant};

use crate::support::DEADLINE;

pub struct Redis {
    child: std::process::Child,
    pub port: u16,
    _data: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = tempfile::TempDir::new().unwrap();
        let started = std::process::Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir"])
            .arg(data.path())
            .stdout(std::process::Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "there is no redis-server: {error}");
                eprintln!("passed over: there is no redis-server");
                return None;
            }
        };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < DEADLINE, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { child, port, _data: data })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
