//! Other protocols that knock on this port: what telnet says besides the line that was typed is dropped; a web page or
//! a TLS client has the wrong door, and nothing it sends may be executed.

use memchr::memchr;

/// A telnet subnegotiation is a terminal name or a window size; a longer one is no telnet.
const MAX_SUBNEGOTIATION: usize = 512;

const TELNET_IAC: u8 = 0xff;
const TELNET_SE: u8 = 0xf0;
const TELNET_SB: u8 = 0xfa;
const TELNET_WILL: u8 = 0xfb;
const TELNET_DONT: u8 = 0xfe;

const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;

/// What a request's first bytes give away.
pub(crate) enum FirstBytes {
    Ours,
    /// Cannot be told before the buffer holds `at_least` bytes.
    Undecided {
        at_least: usize,
    },
    /// A telnet command of `used` bytes.
    Telnet {
        used: usize,
    },
    Foreign {
        why: &'static str,
    },
}

/// A telnet command is `IAC verb`, `IAC WILL|WONT|DO|DONT option` or `IAC SB ... IAC SE` (RFC 854); a TLS hello begins
/// with the record type and the major version.
pub(crate) fn first_bytes(buffer: &[u8]) -> FirstBytes {
    match buffer {
        [TELNET_IAC | TLS_HANDSHAKE] => FirstBytes::Undecided { at_least: 2 },
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => FirstBytes::Foreign { why: "TLS hello on a plain port" },
        [TELNET_IAC, TELNET_WILL..=TELNET_DONT] => FirstBytes::Undecided { at_least: 3 },
        [TELNET_IAC, TELNET_WILL..=TELNET_DONT, ..] => FirstBytes::Telnet { used: 3 },
        [TELNET_IAC, TELNET_SB, ..] => {
            let window = &buffer[..buffer.len().min(MAX_SUBNEGOTIATION)];
            match window.windows(2).position(|pair| pair == [TELNET_IAC, TELNET_SE]) {
                Some(at) => FirstBytes::Telnet { used: at + 2 },
                None if window.len() < MAX_SUBNEGOTIATION => FirstBytes::Undecided { at_least: buffer.len() + 1 },
                None => FirstBytes::Foreign { why: "endless telnet subnegotiation" },
            }
        }
        [TELNET_IAC, _, ..] => FirstBytes::Telnet { used: 2 },
        _ => FirstBytes::Ours,
    }
}

/// Is this line part of an HTTP request, which a web page may have been tricked into sending here?
pub(crate) fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];
    let name = &line[..memchr(b' ', line).unwrap_or(line.len())];
    if name.get(..5).is_some_and(|front| front.eq_ignore_ascii_case(b"host:")) || name.eq_ignore_ascii_case(b"post") {
        return true;
    }
    // "GET / HTTP/1.1": exactly three words, of which the last is a version, so that hardly a command can look like it.
    let mut words = line[name.len()..].split(|&byte| byte == b' ').skip(1);
    matches!(
        (words.next(), words.next(), words.next()),
        (Some([_, ..]), Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..]), None) if METHODS.contains(&name)
    )
}
