//! What the machine's name services know of addresses. Waits for them: not for threads that serve.

use std::ffi::CStr;
use std::net::IpAddr;

use socket2::SockAddr;

/// The name of an address, where it has one.
pub fn host(address: IpAddr) -> Option<String> {
    let address = SockAddr::from(std::net::SocketAddr::new(address, 0));
    let mut name = [0; libc::NI_MAXHOST as usize];
    // SAFETY: the address is valid for its length, and the name for its own; no service is asked for.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            name.as_mut_ptr(),
            libc::NI_MAXHOST,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return None;
    }
    // SAFETY: it succeeded, so that there is a text that ends within the array.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_documents_has_no_name() {
        assert_eq!(host("192.0.2.1".parse().unwrap()), None);
    }
}
