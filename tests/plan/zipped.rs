//! Archives as torch writes them, built by hand so that they can be damaged by hand; and what damaged ones get.

use pmkvq::sensitivity::SensitivityFile;

/// An entry: what its two headers say may differ from what it is.
#[derive(Clone)]
pub struct Entry {
    name: String,
    data: Vec<u8>,
    /// Bits, method, checksum, packed size, size, offset as the directory has them, where they are not the true ones.
    flags: u16,
    method: u16,
    crc: Option<u32>,
    packed: Option<u32>,
    size: Option<u32>,
    offset: Option<u32>,
}

impl Entry {
    pub fn new(name: &str, data: &[u8]) -> Entry {
        Entry {
            name: name.to_string(),
            data: data.to_vec(),
            flags: 0,
            method: 0,
            crc: None,
            packed: None,
            size: None,
            offset: None,
        }
    }
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for e in entries {
        let (n_name, n) = (e.name.len() as u16, e.data.len() as u32);
        let crc = e.crc.unwrap_or_else(|| crc32(&e.data));
        let offset = file.len() as u32;
        let common = |packed: u32, size: u32| {
            let mut head = [20u16, e.flags, e.method, 0, 0].map(u16::to_le_bytes).concat();
            head.extend([crc, packed, size].map(u32::to_le_bytes).concat());
            head.extend([n_name, 0].map(u16::to_le_bytes).concat());
            head
        };
        file.extend(b"PK\x03\x04");
        file.extend(common(n, n));
        file.extend(e.name.as_bytes());
        file.extend(&e.data);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(common(e.packed.or(e.size).unwrap_or(n), e.size.unwrap_or(n)));
        directory.extend([0u8; 10]);
        directory.extend(e.offset.unwrap_or(offset).to_le_bytes());
        directory.extend(e.name.as_bytes());
    }
    let (n, at) = (entries.len() as u16, file.len() as u32);
    let size = directory.len() as u32;
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([n, n].map(u16::to_le_bytes).concat());
    file.extend([size, at].map(u32::to_le_bytes).concat());
    file.extend([0, 0]);
    file
}

fn message(bytes: &[u8]) -> String {
    SensitivityFile::from_bytes(bytes, "zipped").unwrap_err().to_string()
}

fn pickle() -> Entry {
    Entry::new("x/data.pkl", b"}.")
}

#[test]
fn a_good_archive_is_read() {
    // the pickle is an empty dict
    assert_eq!(message(&archive(&[pickle()])), "k_sensitivity is missing");
    let order = Entry::new("x/byteorder", b"little");
    assert_eq!(message(&archive(&[order, pickle()])), "k_sensitivity is missing");
    let order = Entry::new("x/byteorder", b"big");
    assert!(message(&archive(&[order, pickle()])).contains("big-endian"));
    assert!(message(&archive(&[Entry::new("x/data.txt", b"}.")])).contains("has no data.pkl"));
    assert!(message(&archive(&[])).contains("has no data.pkl"));
}

#[test]
fn an_archive_cut_off_anywhere_is_refused() {
    let golden = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sensitivity.pt")).unwrap();
    for n in (0..golden.len()).step_by(13) {
        let found = message(&golden[..n]);
        let known = ["not valid JSON", "the archive has no directory", "the archive is damaged or cut off"];
        assert!(known.iter().any(|k| found.starts_with(k)), "{n}: {found}");
    }
    let start = golden.len() - 2000;
    for at in start..golden.len() {
        message(&golden[at..]);
    }
}

#[test]
fn damage_is_found() {
    let bad = |change: &dyn Fn(&mut Entry)| {
        let mut e = pickle();
        change(&mut e);
        message(&archive(&[e]))
    };
    assert_eq!(bad(&|e| e.crc = Some(1)), "x/data.pkl: the checksum is wrong; the file is damaged");
    assert!(bad(&|e| e.flags = 1).contains("an encrypted entry is not read here; save it with torch.save"));
    assert!(bad(&|e| e.method = 8).contains("a compressed entry is not read here"));
    assert!(bad(&|e| e.packed = Some(1)).contains("an entry of this size"));
    assert!(bad(&|e| e.size = Some(u32::MAX)).contains("an entry of this size"));
    for size in [1 << 20, u32::MAX - 1] {
        assert_eq!(bad(&|e| e.size = Some(size)), "the archive is damaged or cut off (entry)");
    }
    for offset in [1, 1 << 20, u32::MAX] {
        assert_eq!(bad(&|e| e.offset = Some(offset)), "the archive is damaged or cut off (entry)");
    }
    assert!(message(&archive(&[pickle(), pickle()])).contains("x/data.pkl occurs twice"));
}

#[test]
fn counts_in_the_end_record_are_not_believed() {
    let good = archive(&[pickle()]);
    let end = good.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        message(&file)
    };
    assert_eq!(with(10, &[0xfe, 0xff]), "the archive is damaged or cut off (directory)");
    assert_eq!(with(10, &[2, 0]), "the archive is damaged or cut off (directory)");
    assert!(with(10, &[0xff, 0xff]).contains("64-bit zip"));
    assert_eq!(with(16, &[0xfe, 0xff, 0xff, 0xff]), "the archive is damaged or cut off (directory)");
    assert!(with(16, &[0xff; 4]).contains("64-bit zip"));
}

#[test]
fn entries_that_share_their_bytes_are_refused() {
    // 60,000 names for one megabyte would be 60 GB to read
    let data = vec![7; 1 << 20];
    let mut entries = vec![Entry::new("x/data/0", &data)];
    let crc = crc32(&data);
    for i in 1..60_000 {
        let mut e = Entry::new(&format!("x/data/{i}"), b"");
        (e.crc, e.size, e.offset) = (Some(crc), Some(1 << 20), Some(0));
        entries.push(e);
    }
    let found = message(&archive(&entries));
    assert!(found.contains("add up to more than the file"), "{found}");
}
