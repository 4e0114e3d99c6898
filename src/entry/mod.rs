//! `main` of the patched programs: register the runtime, then upstream's entry function.
//!
//! The programs are C programs with a table registered first. Rust's own `main` would ignore SIGPIPE, so they have none.

/// Defines `main` of a program.
#[macro_export]
macro_rules! llama_program {
    ($entry:ident) => {
        extern "C" {
            fn $entry(argc: std::ffi::c_int, argv: *mut *mut std::ffi::c_char) -> std::ffi::c_int;
        }

        /// # Safety
        /// Called by the C runtime, with the arguments of the program.
        #[no_mangle]
        pub unsafe extern "C" fn main(argc: std::ffi::c_int, argv: *mut *mut std::ffi::c_char) -> std::ffi::c_int {
            $crate::capi::register();
            $entry(argc, argv)
        }
    };
}
