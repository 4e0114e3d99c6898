//! Sizes as people write them.

use pmkvq::plan::size::{human, parse_size, SizeError, LARGEST};

#[test]
fn sizes_that_people_write() {
    let cases = [
        ("1", 1),
        ("65536", 65536),
        ("12B", 12),
        ("1k", 1024),
        ("2GiB", 2 << 30),
        ("2 GiB", 2 << 30),
        (" 2gib ", 2 << 30),
        ("800M", 800 << 20),
        ("800MB", 800_000_000),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        ("1.0009765625K", 1025),
        ("0.0000000001T", 109),
        ("1T", 1 << 40),
        ("1TB", 1_000_000_000_000),
        ("1024T", LARGEST),
        ("007", 7),
        ("1.000000000000000000000000000001M", 1 << 20),
    ];
    for (text, bytes) in cases {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
}

#[test]
fn each_mistake_has_its_own_message() {
    let text = |s: &str| s.to_string();
    let cases = [
        ("", SizeError::Empty, "a size is missing"),
        ("  ", SizeError::Empty, "a size is missing"),
        ("0", SizeError::Zero(text("0")), "no bytes at all"),
        ("0.0GiB", SizeError::Zero(text("0.0GiB")), "no bytes at all"),
        ("0.3", SizeError::Zero(text("0.3")), "no bytes at all"),
        ("-1", SizeError::Negative(text("-1")), "negative"),
        ("-2GiB", SizeError::Negative(text("-2GiB")), "negative"),
        ("1025T", SizeError::Absurd(text("1025T")), "more than 1 PiB"),
        ("18446744073709551616", SizeError::Absurd(text("18446744073709551616")), "more than 1 PiB"),
        ("99999999999999999999999999", SizeError::Absurd(text("99999999999999999999999999")), "more than 1 PiB"),
        ("GiB", SizeError::NotASize(text("GiB")), "not a size"),
        (".5G", SizeError::NotASize(text(".5G")), "not a size"),
        ("1.G", SizeError::NotASize(text("1.G")), "not a size"),
        ("1.2.3G", SizeError::NotASize(text("1.2.3G")), "not a size"),
        ("NaN", SizeError::NotASize(text("NaN")), "not a size"),
        ("inf", SizeError::NotASize(text("inf")), "not a size"),
        ("+1", SizeError::NotASize(text("+1")), "not a size"),
        ("1e9", SizeError::Unit { text: text("1e9"), unit: text("e9") }, "not a unit"),
        ("2XiB", SizeError::Unit { text: text("2XiB"), unit: text("XiB") }, "not a unit"),
        ("2GiB2", SizeError::Unit { text: text("2GiB2"), unit: text("GiB2") }, "not a unit"),
        ("0x10", SizeError::Unit { text: text("0x10"), unit: text("x10") }, "not a unit"),
        ("1,5G", SizeError::Unit { text: text("1,5G"), unit: text(",5G") }, "not a unit"),
        ("2 G iB", SizeError::Unit { text: text("2 G iB"), unit: text("G iB") }, "not a unit"),
        ("1٣", SizeError::Unit { text: text("1٣"), unit: text("٣") }, "not a unit"),
    ];
    for (size, error, part) in cases {
        assert_eq!(parse_size(size), Err(error.clone()), "{size}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_goes_into_a_message_fits_a_line() {
    for long in ["9".repeat(10_000), format!("1{}", "x".repeat(10_000)), "1\u{1b}[31m\n".to_string()] {
        let message = parse_size(&long).unwrap_err().to_string();
        assert!(message.len() < 400 && !message.contains(char::is_control), "{message}");
    }
}

#[test]
fn bytes_for_people() {
    let cases = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        ((1 << 20) - 1, "1.00 MiB"),
        (2 << 30, "2.00 GiB"),
        (u64::MAX, "16384.00 PiB"),
    ];
    for (bytes, text) in cases {
        assert_eq!(human(bytes), text);
    }
}
