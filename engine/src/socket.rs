//! What the control side asks of its own sockets, and the standard library does not offer.
#![allow(unsafe_code, reason = "setsockopt")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Makes closing `socket` reset its connection (socket(7), SO_LINGER with a time of zero): nothing waits in TIME_WAIT
/// for it, here or in a gateway on its way. What was not sent yet is lost, so this is for connections that have done
/// their work.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the descriptor is open as long as the borrow lives; the kernel reads as many bytes as it is told, which
    // are those of a live `linger`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn closing_resets_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        reset_on_close(&client).unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        assert!(reset_on_close(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
