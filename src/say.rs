//! Standard error. `eprint!` panics if nobody reads it any more (`2>&1 | head`) or a disk is full, and with it ends what may
//! have run for hours; these say it to nobody.

/// As `eprint!`. Without llama.cpp nothing takes long enough to say how far it is.
#[cfg(feature = "llama")]
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = write!(std::io::stderr(), $($arg)*);
    }};
}

/// As `eprintln!`.
macro_rules! sayln {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}
