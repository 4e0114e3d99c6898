//! Numbers as people read them.

use crate::eval::stats::Mean;

/// Three significant digits; powers of ten where that would be long.
pub fn short(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 {
        "0".to_string()
    } else if !x.is_finite() {
        x.to_string()
    } else if !(1e-4..1e6).contains(&size) {
        format!("{x:.2e}")
    } else {
        let digits = 2 - size.log10().floor() as i32;
        format!("{x:.*}", digits.clamp(0, 6) as usize)
    }
}

/// A mean with its error, if it has one.
pub fn with_error(mean: f64, se: Option<f64>) -> String {
    match se {
        Some(se) => format!("{} ± {}", short(mean), short(se)),
        None => short(mean),
    }
}

pub fn mean(m: Mean) -> String {
    with_error(m.mean, m.se)
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// Thousands apart.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or_default()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_read_them() {
        assert_eq!(
            [0.0, 1.23456, 0.012345, 123456.0, 0.00001234, -0.5].map(short),
            ["0", "1.23", "0.0123", "123456", "1.23e-5", "-0.500"]
        );
        assert_eq!(with_error(0.5, Some(0.25)), "0.500 ± 0.250");
        assert_eq!(percent(0.98765), "98.77%");
        assert_eq!([7, 1024, 1234567].map(count), ["7", "1,024", "1,234,567"]);
    }
}
