//! The one hash that is written to disk: XXH3, 64 bits, seed 0 (<https://github.com/Cyan4973/xxHash>, format stable
//! since 0.8.0). Filters and data blocks hold its bits, so it may never change.

/// The hash of a user key. Computed once for each lookup and handed to every table on the way down, for its filter and
/// for the tags in its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    pub(crate) fn of(key: &[u8]) -> KeyHash {
        KeyHash(xxhash_rust::xxh3::xxh3_64(key))
    }

    /// The eight bits by which a data block tells its keys apart.
    #[inline]
    pub(crate) fn tag(self) -> u8 {
        self.0 as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_values() {
        assert_eq!(KeyHash::of(b"").0, 0x2D06_8005_38D3_94C2);
        assert_eq!(KeyHash::of(b"a").0, 0xE6C6_32B6_1E96_4E1F);
        assert_eq!(KeyHash::of(b"abc").0, 0x78AF_5F94_892F_3950);
    }
}
