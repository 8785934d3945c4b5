//! The way of `mpirun` to the other ranks of a gang, without SSH: a shell for whoever knows the gang's token.
//!
//! The first rank runs `mpirun`, which starts its daemons elsewhere through [`shell`]; the others [`serve`] until the first
//! tells them that it is done. Open MPI's own connections are as open as this one, so it is not encrypted either.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};

/// Port on which the other ranks listen.
const PORT: u16 = 29_600;
/// Variable with the gang's token.
const TOKEN: &str = "SLIPWAY_MPI_TOKEN";
/// Variable with the rank.
const RANK: &str = "SLIPWAY_RANK";
/// Hosts of the gang, by rank, each with its slots.
const HOSTFILE: &str = "/etc/mpi/hostfile";
/// How long the other ranks may take to answer: as long as a gang may take to come up.
const COME_UP: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_millis(500);
/// How long one attempt to reach a rank may take, and one request to come in.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a rank that cannot be reached is told that all is done.
const END_TIME: Duration = Duration::from_secs(60);
/// Longest token and longest command.
const MAX_FIELD: usize = 256 << 10;
/// Largest piece of output.
const PIECE: usize = 64 << 10;
/// Requests that are served at once.
const MAX_REQUESTS: usize = 64;

/// Why a gang of MPI did not work.
#[derive(Debug, thiserror::Error)]
pub enum MpiError {
    /// Whoever started this did not say who it is.
    #[error("the variable {0} is not set")]
    Unset(&'static str),
    /// The hosts are not known.
    #[error("cannot read {HOSTFILE}")]
    Hosts(#[source] io::Error),
    /// A rank is not there.
    #[error("rank {rank} ({host}) does not answer")]
    Absent {
        /// Which.
        rank: usize,
        /// Its host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `mpirun` did not start.
    #[error("cannot run mpirun: the image must have Open MPI")]
    Start(#[source] io::Error),
    /// Nothing can be heard.
    #[error("cannot listen on port {PORT}")]
    Listen(#[source] io::Error),
    /// Signals do not arrive.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// A command on another rank came to no end.
    #[error("cannot run a command on {host}")]
    Remote {
        /// Its host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is asked of a rank.
const HELLO: u8 = 0;
const RUN: u8 = 1;
const END: u8 = 2;
/// What comes back of a command.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;

/// One rank of a gang, to its end; gives the exit code.
pub async fn rank(command: &[OsString]) -> Result<u8, MpiError> {
    let token = variable(TOKEN)?;
    if variable(RANK)? == "0" { first(&token, command).await } else { serve(&token).await }
}

fn variable(name: &'static str) -> Result<String, MpiError> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(MpiError::Unset(name))
}

async fn first(token: &str, command: &[OsString]) -> Result<u8, MpiError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(MpiError::Signals)?;
    let text = std::fs::read_to_string(HOSTFILE).map_err(MpiError::Hosts)?;
    let hosts: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    tokio::select! {
        all = all_there(&hosts, token) => all?,
        _ = terminate.recv() => return Ok(128 + 15),
    }
    let mut mpirun = Command::new("mpirun");
    let mut mpirun = mpirun.arg("--hostfile").arg(HOSTFILE).args(command).spawn().map_err(MpiError::Start)?;
    let status = loop {
        tokio::select! {
            status = mpirun.wait() => break status.map_err(MpiError::Start)?,
            _ = terminate.recv() => forward(mpirun.id()),
        }
    };
    let tell = |(rank, host): (usize, &&str)| tell_end(rank, (*host).to_owned(), token.to_owned());
    let told: Vec<_> = hosts.iter().enumerate().skip(1).map(tell).map(tokio::spawn).collect();
    for one in told {
        let _ = one.await;
    }
    Ok(exit_code(status))
}

/// Tells a rank that all is done. It would wait for that for ever, so what hinders it is waited out.
async fn tell_end(rank: usize, host: String, token: String) {
    let until = tokio::time::Instant::now() + END_TIME;
    loop {
        match ask(&host, &token, END, "").await {
            Ok(_) => return,
            // One that is gone has nothing to end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            Err(error) if tokio::time::Instant::now() >= until => {
                tracing::warn!(rank, %error, "a rank was not told that the run is done");
                return;
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Passes SIGTERM on: `mpirun` ends all processes, wherever they are.
fn forward(pid: Option<u32>) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Waits until every other rank answers, and the first knows itself by its name: `mpirun` would look for it elsewhere.
async fn all_there(hosts: &[&str], token: &str) -> Result<(), MpiError> {
    let until = Instant::now() + COME_UP;
    for (rank, host) in hosts.iter().enumerate() {
        loop {
            let answer = match rank {
                0 => tokio::net::lookup_host((*host, PORT)).await.map(drop),
                _ => ask(host, token, HELLO, "").await.map(drop),
            };
            match answer {
                Ok(()) => break,
                Err(source)
                    if Instant::now() >= until || source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    return Err(MpiError::Absent { rank, host: (*host).to_owned(), source });
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
    Ok(())
}

/// Connects, says who it is and what it wants, and hears whether that is done.
async fn ask(host: &str, token: &str, what: u8, command: &str) -> io::Result<TcpStream> {
    let asked = async {
        let mut stream = TcpStream::connect((host, PORT)).await?;
        field(&mut stream, token.as_bytes()).await?;
        stream.write_u8(what).await?;
        field(&mut stream, command.as_bytes()).await?;
        stream.flush().await?;
        match stream.read_u8().await? {
            1 => Ok(stream),
            _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another gang")),
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn field(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_u32(u32::try_from(bytes.len()).map_err(io::Error::other)?).await?;
    to.write_all(bytes).await
}

async fn read_field(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    if length > MAX_FIELD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a field is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Runs what the first rank asks for, until it says that all is done. SIGTERM ends nothing by itself: the first rank's
/// `mpirun` gets it as well, ends the processes here, and then says so.
async fn serve(token: &str) -> Result<u8, MpiError> {
    let _kept = signal(SignalKind::terminate()).map_err(MpiError::Signals)?;
    let listener = TcpListener::bind(("::", PORT)).await;
    let listener = match listener {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", PORT)).await.map_err(MpiError::Listen)?,
    };
    serve_on(&listener, token).await
}

async fn serve_on(listener: &TcpListener, token: &str) -> Result<u8, MpiError> {
    let (end, mut ended) = mpsc::channel::<()>(1);
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_REQUESTS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ended.recv() => return Ok(0),
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let (end, token) = (end.clone(), token.to_owned());
        let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else { continue };
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = answer(stream, &token, &end).await {
                tracing::warn!(%error, "a request of another rank failed");
            }
        });
    }
}

async fn answer(mut stream: TcpStream, token: &str, end: &mpsc::Sender<()>) -> io::Result<()> {
    let asked = async {
        let known = read_field(&mut stream).await?;
        let what = stream.read_u8().await?;
        Ok::<_, io::Error>((known, what, read_field(&mut stream).await?))
    };
    let (known, what, command) = tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if !same(&known, token.as_bytes()) {
        return stream.write_u8(0).await;
    }
    stream.write_u8(1).await?;
    match what {
        RUN => execute(stream, &String::from_utf8_lossy(&command)).await,
        END => {
            let _ = end.send(()).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether two tokens are one, in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

async fn execute(stream: TcpStream, command: &str) -> io::Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (_, write) = stream.into_split();
    let write = Mutex::new(write);
    let mut child = match shell.spawn() {
        Ok(child) => child,
        Err(error) => {
            let text = format!("cannot run /bin/sh: {error}\n");
            piece(&write, STDERR, text.as_bytes()).await?;
            return piece(&write, EXIT, &[127]).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // To their end, also where a daemon that was left behind holds them for a while.
    let copied = tokio::try_join!(pass_on(stdout, STDOUT, &write), pass_on(stderr, STDERR, &write));
    let status = child.wait().await?;
    copied?;
    piece(&write, EXIT, &[exit_code(status)]).await
}

async fn pass_on(
    from: Option<impl AsyncRead + Unpin>,
    kind: u8,
    to: &Mutex<impl AsyncWrite + Unpin>,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            read => piece(to, kind, &buffer[..read]).await?,
        }
    }
}

async fn piece(to: &Mutex<impl AsyncWrite + Unpin>, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut to = to.lock().await;
    to.write_u8(kind).await?;
    field(&mut *to, bytes).await?;
    to.flush().await
}

/// What `mpirun` takes for a remote shell: `[OPTION…] HOST WORD…`, of which the words are a command line; gives its exit code.
pub async fn shell(words: &[OsString]) -> Result<u8, MpiError> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some(at) = words.iter().position(|word| !word.starts_with('-')) else {
        return Err(MpiError::Unset("HOST"));
    };
    let (host, command) = (&words[at], words[at + 1..].join(" "));
    let failed = |source| MpiError::Remote { host: host.clone(), source };
    let mut stream = ask(host, &variable(TOKEN)?, RUN, &command).await.map_err(failed)?;
    // Nothing else runs meanwhile: what is written may block.
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    loop {
        let kind = stream.read_u8().await.map_err(failed)?;
        let bytes = read_field(&mut stream).await.map_err(failed)?;
        match kind {
            STDOUT => stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(failed)?,
            STDERR => stderr.write_all(&bytes).map_err(failed)?,
            _ => return Ok(bytes.first().copied().unwrap_or(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`ask`], of a listener of the test's own.
    async fn request(address: std::net::SocketAddr, token: &str, what: u8, command: &str) -> (u8, TcpStream) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        field(&mut stream, token.as_bytes()).await.unwrap();
        stream.write_u8(what).await.unwrap();
        field(&mut stream, command.as_bytes()).await.unwrap();
        (stream.read_u8().await.unwrap(), stream)
    }

    #[tokio::test]
    async fn runs_what_its_gang_asks_for_until_the_end() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { serve_on(&listener, "s3cret").await });
        let (said, _) = request(address, "other", RUN, "touch /tmp/never-to-be").await;
        assert_eq!(said, 0, "another gang's token");
        let (said, _) = request(address, "s3cre", END, "").await;
        assert_eq!(said, 0, "half a token");
        let (said, mut stream) = request(address, "s3cret", RUN, "echo out; echo err >&2; exit 3").await;
        assert_eq!(said, 1);
        let mut pieces = Vec::new();
        loop {
            let kind = stream.read_u8().await.unwrap();
            pieces.push((kind, read_field(&mut stream).await.unwrap()));
            if kind == EXIT {
                break;
            }
        }
        pieces.sort();
        let expected = [(STDOUT, b"out\n".to_vec()), (STDERR, b"err\n".to_vec()), (EXIT, vec![3])];
        assert_eq!(pieces, expected);
        assert_eq!(request(address, "s3cret", HELLO, "").await.0, 1);
        assert!(!serving.is_finished());
        assert_eq!(request(address, "s3cret", END, "").await.0, 1);
        let code = tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
        assert_eq!(code, 0);
    }

    #[tokio::test]
    async fn fields_have_an_end() {
        let mut long: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1];
        assert!(read_field(&mut long).await.is_err());
        assert!(same(b"ab", b"ab") && !same(b"ab", b"ac") && !same(b"ab", b"a"));
    }
}
