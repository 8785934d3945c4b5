//! The socket pair between the runner and a worker.

use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::frame::MAX_FRAME;

/// The runner's end.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Channel {
    /// A pair: the runner's end, and the end for the worker, which blocks. Needs a tokio runtime with IO.
    #[allow(unsafe_code, reason = "tokio has no safe way to wait for a descriptor")]
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: an `OwnedFd` is open, always names the same descriptor, and is closed only when it is dropped,
        // which the `AsyncFd` that owns it does after its own registration.
        let socket = unsafe { AsyncFd::register_with_interest(ours, interest) }?;
        Ok((Self { socket, buffer: vec![0; MAX_FRAME].into_boxed_slice() }, theirs))
    }

    /// Sends one frame.
    pub async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let send =
            |socket: &OwnedFd| rustix::net::send(socket, frame, SendFlags::NOSIGNAL).map_err(io::Error::from);
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// Sends one frame and a file descriptor with it.
    pub async fn send_with_fd(&self, frame: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
        let send = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [fd];
            // The space is made for exactly one descriptor.
            let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
            debug_assert!(fits);
            rustix::net::sendmsg(socket, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL)
                .map_err(io::Error::from)
        };
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// Tells the worker that nothing more will come.
    pub fn close(&self) {
        // It fails only when the worker has gone already.
        let _ = rustix::net::shutdown(self.socket.get_ref(), rustix::net::Shutdown::Write);
    }

    /// Receives one frame; `None` when the worker closed its end.
    pub async fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        let buffer = &mut self.buffer;
        let receive = |socket: &OwnedFd| {
            rustix::net::recv(socket, &mut buffer[..], RecvFlags::TRUNC).map_err(io::Error::from)
        };
        let (_, len) = self.socket.async_io(Interest::READABLE, receive).await?;
        match len {
            0 => Ok(None),
            len if len > MAX_FRAME => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is longer than allowed"))
            }
            len => Ok(Some(&self.buffer[..len])),
        }
    }
}
