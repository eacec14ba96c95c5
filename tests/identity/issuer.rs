//! An issuer that is made while tests run: it answers what it is told to, and notes what it was asked.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub head: String,
    pub body: String,
}

impl Asked {
    /// A member of a form.
    pub fn form(&self, name: &str) -> Option<String> {
        self.body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    }
}

type Answers = dyn Fn(&Asked, usize) -> (u16, Value) + Send + Sync;

/// An issuer on this machine.
pub struct FakeIssuer {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeIssuer {
    /// Answers each request with `answers`, which is also told how many came before on the same path.
    pub fn start(answers: impl Fn(&Asked, usize) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self::start_as("application/json", answers)
    }

    /// The same, whose answers are of another content type.
    pub fn start_as(
        kind: &'static str,
        answers: impl Fn(&Asked, usize) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (noted, answers, name): (_, Arc<Answers>, _) = (Arc::clone(&asked), Arc::new(answers), url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, answers, name) = (Arc::clone(&noted), Arc::clone(&answers), name.clone());
                std::thread::spawn(move || serve(stream, &noted, &*answers, (&name, kind)));
            }
        });
        Self { url, asked }
    }

    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path == path).cloned().collect()
    }
}

fn serve(stream: TcpStream, noted: &Mutex<Vec<Asked>>, answers: &Answers, (name, kind): (&str, &str)) {
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read(&mut stream) {
        let before = {
            let mut noted = noted.lock().unwrap();
            noted.push(asked.clone());
            noted.iter().filter(|other| other.path == asked.path).count() - 1
        };
        let (status, body) = match asked.path.as_str() {
            "/.well-known/openid-configuration" => (
                200,
                json!({
                    "issuer": name,
                    "token_endpoint": format!("{name}/token"),
                    "device_authorization_endpoint": format!("{name}/device"),
                }),
            ),
            _ => answers(&asked, before),
        };
        let body = body.to_string();
        let mut text = format!("HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\n");
        let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    Some(Asked { path, head, body: String::from_utf8(body).unwrap() })
}
