//! Bytes over a Unix socket, with open descriptors beside them (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Descriptors at most beside one message; the kernel takes 253 (SCM_MAX_FD).
pub const AT_ONCE: usize = 200;

/// Sends some of `bytes`, and all of `descriptors` with the first of them; how many bytes went.
///
/// # Errors
/// The socket's; `InvalidInput` for more than [`AT_ONCE`] descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?)
}

/// Receives bytes, and appends descriptors that came with them; 0 at the end.
///
/// # Errors
/// The socket's; descriptors that had no room were closed by the kernel, and the message is an error, too.
pub fn receive(socket: impl AsFd, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(into)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost on the way: too many are open"));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_comes_with_its_byte() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let all = vec![far.as_fd(); AT_ONCE];
        assert_eq!(send(&here, b"ab", &all).unwrap(), 2);
        assert_eq!(send(&here, b"cd", &[]).unwrap(), 2);
        drop(far);
        let (mut bytes, mut got) = ([0; 1], Vec::new());
        assert_eq!(receive(&there, &mut bytes, &mut got).unwrap(), 1);
        assert_eq!((bytes, got.len()), (*b"a", AT_ONCE));
        let mut far = UnixStream::from(got.pop().unwrap());
        drop(got);
        far.write_all(b"x").unwrap();
        let mut read = [0; 1];
        near.read_exact(&mut read).unwrap();
        let (mut rest, mut none) = ([0; 8], Vec::new());
        assert!(receive(&there, &mut rest, &mut none).unwrap() > 0);
        assert!(none.is_empty());
        drop(here);
        while receive(&there, &mut rest, &mut none).unwrap() > 0 {}

        let too_many = vec![there.as_fd(); AT_ONCE + 60];
        assert!(send(&near, b"x", &too_many).is_err());
    }
}
