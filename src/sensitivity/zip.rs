//! The part of the zip format that torch writes: stored entries, no compression, no encryption.

use std::collections::BTreeMap;
use std::fmt;

/// Why an archive was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZipError {
    /// Cut off, or offsets that point outside.
    Truncated {
        what: &'static str,
    },
    /// No central directory.
    NotZip,
    Unsupported {
        name: String,
        what: &'static str,
    },
    Checksum {
        name: String,
    },
    Duplicate {
        name: String,
    },
    /// Entries that together are larger than the file: some share their bytes.
    Overlap {
        name: String,
    },
}

impl fmt::Display for ZipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what } => write!(f, "the archive is damaged or cut off ({what})"),
            Self::NotZip => f.write_str("the archive has no directory; the file is cut off or not a zip"),
            Self::Unsupported { name, what } => write!(f, "{name}: {what} is not read here; save it with torch.save"),
            Self::Checksum { name } => write!(f, "{name}: the checksum is wrong; the file is damaged"),
            Self::Duplicate { name } => write!(f, "{name} occurs twice in the archive"),
            Self::Overlap { name } => {
                write!(f, "{name}: the archive's entries add up to more than the file; refused, as torch.save writes no such file")
            }
        }
    }
}

impl std::error::Error for ZipError {}

/// The entries of an archive that lies in memory.
pub struct Archive<'a> {
    entries: BTreeMap<String, &'a [u8]>,
}

fn slice<'a>(bytes: &'a [u8], at: usize, n: usize, what: &'static str) -> Result<&'a [u8], ZipError> {
    at.checked_add(n).and_then(|end| bytes.get(at..end)).ok_or(ZipError::Truncated { what })
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

impl<'a> Archive<'a> {
    /// Reads the directory and checks every entry's checksum.
    ///
    /// # Errors
    /// One [`ZipError`].
    pub fn read(bytes: &'a [u8]) -> Result<Archive<'a>, ZipError> {
        // the end record has 22 bytes and a comment of up to 65,535
        let from = bytes.len().saturating_sub(22 + 65_535);
        let end = (from..bytes.len().saturating_sub(21))
            .rev()
            .find(|&i| bytes[i..].starts_with(b"PK\x05\x06"))
            .ok_or(ZipError::NotZip)?;
        let end = &bytes[end..];
        let (n, mut at) = (u16_at(end, 10), u32_at(end, 16));
        if n == 0xffff || at == 0xffff_ffff {
            return Err(ZipError::Unsupported { name: "the archive".to_string(), what: "the 64-bit zip format" });
        }
        let mut entries: BTreeMap<String, &[u8]> = BTreeMap::new();
        let mut in_all = 0usize;
        for _ in 0..n {
            const WHAT: &str = "directory";
            let head = slice(bytes, at, 46, WHAT)?;
            if !head.starts_with(b"PK\x01\x02") {
                return Err(ZipError::Truncated { what: WHAT });
            }
            let (n_name, n_extra, n_comment) = (u16_at(head, 28), u16_at(head, 30), u16_at(head, 32));
            let name = String::from_utf8_lossy(slice(bytes, at + 46, n_name, WHAT)?).into_owned();
            let unsupported = |what| Err(ZipError::Unsupported { name: name.clone(), what });
            if u16_at(head, 8) & 1 != 0 {
                return unsupported("an encrypted entry");
            }
            if u16_at(head, 10) != 0 {
                return unsupported("a compressed entry");
            }
            let (crc, size, local) = (u32_at(head, 16), u32_at(head, 24), u32_at(head, 42));
            if u32_at(head, 20) != size || size == 0xffff_ffff {
                return unsupported("an entry of this size");
            }
            let local_head = slice(bytes, local, 30, "entry")?;
            if !local_head.starts_with(b"PK\x03\x04") {
                return Err(ZipError::Truncated { what: "entry" });
            }
            let start = local + 30 + u16_at(local_head, 26) + u16_at(local_head, 28);
            let data = slice(bytes, start, size, "entry")?;
            // else a small file could make us read its bytes a thousand times
            in_all += size;
            if in_all > bytes.len() {
                return Err(ZipError::Overlap { name });
            }
            if crc32(data) as usize != crc {
                return Err(ZipError::Checksum { name });
            }
            if entries.contains_key(&name) {
                return Err(ZipError::Duplicate { name });
            }
            entries.insert(name, data);
            at += 46 + n_name + n_extra + n_comment;
        }
        Ok(Archive { entries })
    }

    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.entries.get(name).copied()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

/// The CRC-32 of zip and gzip, four bits at a time.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 16] {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    }
    const TABLE: [u32; 16] = table();
    let mut crc = !0u32;
    for &b in bytes {
        crc ^= u32::from(b);
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
