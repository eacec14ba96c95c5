//! A receiver of webhooks: a real HTTP server on the loopback that stores every request and can be stopped.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

pub const SECRET: &str = "a secret of thirty-two bytes ...";

/// One request, as it was received.
pub struct Post {
    pub signature: String,
    pub body: Vec<u8>,
}

impl Post {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the signature of the request.
    pub fn check(&self) {
        let (t, v1) = self.signature.split_once(',').unwrap();
        let (t, v1) = (t.strip_prefix("t=").unwrap(), v1.strip_prefix("v1=").unwrap());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(t.parse::<u64>().unwrap().abs_diff(now) < 120);
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let signed = [t.as_bytes(), b".", self.body.as_slice()].concat();
        let tag: Vec<u8> = (0..v1.len() / 2).map(|at| u8::from_str_radix(&v1[2 * at..][..2], 16).unwrap()).collect();
        aws_lc_rs::hmac::verify(&key, &signed, &tag).expect("the signature");
    }
}

/// Reads one request, and answers it with this status.
pub fn take(stream: impl Read + Write, status: u16) -> Option<Post> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut signature, mut line) = (0, String::new(), String::new());
    while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "x-tollgate-signature" => signature = value.trim().to_owned(),
            _ => {}
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status} Fine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(Post { signature, body })
}

/// Receives requests on `listener`, and answers each with the next of `statuses`, and with 200 after the last one.
pub fn serve(listener: TcpListener, statuses: &[u16]) -> mpsc::Receiver<Post> {
    Receiver::serve(listener, statuses).detach()
}

/// A receiver that can be stopped: afterwards its port refuses connections.
pub struct Receiver {
    pub port: u16,
    pub posts: mpsc::Receiver<Post>,
    stops: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Receiver {
    /// Starts on this port; 0 for any that is free.
    pub fn start(port: u16, statuses: &[u16]) -> Self {
        Self::serve(TcpListener::bind(("127.0.0.1", port)).unwrap(), statuses)
    }

    fn serve(listener: TcpListener, statuses: &[u16]) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (sender, posts) = channel();
        let stops = Arc::new(AtomicBool::new(false));
        let (stopped, statuses) = (Arc::clone(&stops), Mutex::new(statuses.to_vec()));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut left = statuses.lock().unwrap();
                let status = if left.is_empty() { 200 } else { left.remove(0) };
                if let Some(post) = take(stream, status)
                    && sender.send(post).is_err()
                {
                    return;
                }
            }
        });
        Self { port, posts, stops, thread }
    }

    fn detach(self) -> mpsc::Receiver<Post> {
        self.posts
    }

    /// Stops, and returns the requests that were not taken out of `posts`.
    pub fn stop(self) -> Vec<Post> {
        self.stops.store(true, Ordering::SeqCst);
        // The thread waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.join().unwrap();
        self.posts.try_iter().collect()
    }
}
