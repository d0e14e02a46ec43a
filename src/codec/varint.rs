//! Unsigned LEB128: seven bits a byte, least significant first, the high bit set on all but the last byte.

/// The most bytes a `u64` takes: 64 bits, seven at a time.
pub(crate) const MAX_LEN: usize = 10;

/// Appends `value` to `out`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a varint from the front of `bytes`: the value and how many bytes it took, or `None` if it is cut short or
/// longer than a `u64`.
#[inline]
pub(crate) fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes {
        // Most lengths are short, and table reads spend their time here.
        [byte @ ..0x80, ..] => Some((u64::from(*byte), 1)),
        _ => get_long(bytes),
    }
}

fn get_long(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().take(MAX_LEN).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == MAX_LEN - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte < 0x80 {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_at_every_width_and_refuses_every_prefix() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(get(&bytes), Some((value, bytes.len())));
                for cut in 0..bytes.len() {
                    assert_eq!(get(&bytes[..cut]), None);
                }
            }
        }
    }

    #[test]
    fn refuses_more_than_64_bits() {
        assert_eq!(get(&[0xff; 11]), None);
        assert_eq!(get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
    }
}
