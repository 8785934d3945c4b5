//! ADD of a URL, from a server on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::world::World;
use crate::build::{BuildError, FetchError, StepErrorKind};

/// Answers `/` and `/file` with a body that can be changed, `/moved` with a redirect to it, `/loop` with one to itself, and everything else with 404.
struct Server {
    port: u16,
    body: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            body: Arc::new(Mutex::new("first".to_owned())),
            asked: Arc::default(),
            stop: Arc::default(),
        };
        let (body, asked, stop) = (server.body.clone(), server.asked.clone(), server.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let text = body.lock().unwrap().clone();
                let _ = answer(stream, &text);
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    fn set(&self, text: &str) {
        text.clone_into(&mut self.body.lock().unwrap());
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (status, more, body) = match path {
        "/" | "/file" | "/file?x=1" | "/file?token=hunter2" => {
            ("200 OK", "last-modified: Tue, 15 Nov 1994 12:45:26 GMT\r\n", body)
        }
        "/moved" => ("302 Found", "location: /file\r\n", ""),
        "/loop?token=hunter2" => ("302 Found", "location: /loop?token=hunter2\r\n", ""),
        _ => ("404 Not Found", "", "no"),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}")
}

#[test]
fn urls_become_files() {
    let (world, server) = (World::new(), Server::new());
    let files = |add: &str| {
        let built = world.build(&format!("FROM scratch\n{add}\n"));
        (world.files(&built.image()), built.counts())
    };
    // In a folder it has the URL's name; mode and time are as Docker has them.
    let add = format!("ADD {} /in/", server.url("file?x=1"));
    assert_eq!(files(&add).0, ["/in/", "/in/file 600 first"]);
    let built =
        world.build(&format!("FROM scratch\nADD --chmod=644 --chown=3:4 {} /to\n", server.url("moved")));
    assert_eq!(world.files(&built.image()), ["/to 3:4 first"]);
    let modified = world.look(&built.image(), |root| {
        std::os::unix::fs::MetadataExt::mtime(&root.join("to").metadata().unwrap())
    });
    assert_eq!(modified, 784_903_526);
    // What the server has counts for the cache, not when it was asked.
    assert_eq!(files(&add).1.0, 0);
    server.set("second");
    let (now, counts) = files(&add);
    assert_eq!((now[1].as_str(), counts.0), ("/in/file 600 second", 1));
    assert_eq!(world.leftovers(), 0);
}

#[test]
fn checksums_are_kept_and_spare_the_transfer() {
    let (world, server) = (World::new(), Server::new());
    let checksum = hex::encode(Sha256::digest("first"));
    let dockerfile = format!("FROM scratch\nADD --checksum=sha256:{checksum} {} /f\n", server.url("file"));
    let built = world.build(&dockerfile);
    assert_eq!(world.files(&built.image()), ["/f 600 first"]);
    assert_eq!(server.asked(), 1);
    assert_eq!(world.build(&dockerfile).counts().0, 0);
    assert_eq!(server.asked(), 0, "its content is known");
    server.set("other");
    let error = world.fail_as(&dockerfile, |request| request.no_cache = true);
    let BuildError::Step(failure) = &error else { panic!("{error:?}") };
    assert!(
        matches!(&failure.kind, StepErrorKind::Fetch(FetchError::Mismatch { wanted, .. }) if *wanted == checksum)
    );
    let error =
        world.fail(&format!("FROM scratch\nADD {} /f\n", server.url("absent").replace("//", "//me:pw@")));
    let text = error.to_string();
    assert!(text.contains("404") && !text.contains("pw@"), "{text}");
    assert_eq!(world.leftovers(), 0);
}

#[test]
fn credentials_of_a_url_are_nowhere() {
    let (world, server) = (World::new(), Server::new());
    let secret = server.url("file?token=hunter2").replace("//", "//me:hunter2@");
    let built = world.build(&format!("FROM scratch\nARG URL\nADD {secret} /to\n"));
    assert_eq!(world.files(&built.image()), ["/to 600 first"]);
    let history = world.history(&built.image()).join("\n");
    assert!(history.contains("/file?token=… /to") && !history.contains("hunter2"), "{history}");
    for (url, what) in [
        (secret.replace("/file", "/absent"), "404"),
        ("https://me:hunter2@h/x.git".to_owned(), "Git repository"),
        ("http://me:hunter2@".to_owned(), "URL"),
        (server.url("?token=hunter2"), "name of a file"),
        (server.url("loop?token=hunter2"), "redirects more than"),
    ] {
        let error = world.fail_as("FROM scratch\nARG URL\nWORKDIR /in\nADD $URL /in/\n", |request| {
            request.build_args.insert("URL".into(), url);
        });
        let text = format!("{error} {error:?}");
        assert!(text.contains(what) && !text.contains("hunter2"), "{text}");
    }
    // A folder that is there already asks for a name as well.
    let error = world.fail(&format!("FROM scratch\nWORKDIR /in\nADD {} /in\n", server.url("")));
    assert!(error.to_string().contains("name of a file"), "{error}");
}
