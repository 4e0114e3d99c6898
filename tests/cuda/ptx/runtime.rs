//! What the CUDA runtime of `runtime.cpp` asks of the stand-in.

use crate::grid::Launch;
use crate::memory::Memory;
use crate::module::Module;
use crate::program::{place, Kernel};
use crate::report::Report;
use crate::{code, fatbin, grid, Rng};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::sync::{Arc, Mutex, MutexGuard};

/// A kernel that the host knows by the address of its stub.
struct Entry {
    module: usize,
    name: String,
    kernel: Option<Arc<Kernel>>,
    /// Dynamic shared memory that it may have.
    dynamic: usize,
}

#[derive(Default)]
struct Machine {
    modules: Vec<Module>,
    entries: HashMap<usize, Entry>,
    memory: Memory,
    seed: u64,
    launches: u64,
    /// Of kernels that failed, until somebody waits.
    failed: c_int,
    /// Of the last call.
    last: c_int,
    /// Parts of names of kernels that may read shared memory that was never written.
    lax: Vec<String>,
    report: Report,
}

static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);

fn locked() -> MutexGuard<'static, Option<Machine>> {
    MACHINE.lock().unwrap_or_else(|e| e.into_inner())
}

fn with<T>(f: impl FnOnce(&mut Machine) -> T) -> T {
    f(locked().get_or_insert_with(Machine::default))
}

fn set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|v| v == "1")
}

/// The number of a module, or -1.
///
/// # Safety
/// What nvcc's code gives to `__cudaRegisterFatBinary`.
#[no_mangle]
pub unsafe extern "C" fn ptx_register(wrapper: *const u8) -> c_int {
    match fatbin::ptx(wrapper).and_then(Module::new) {
        Ok(module) => with(|m| {
            m.modules.push(module);
            m.modules.len() as c_int - 1
        }),
        Err(e) => {
            eprintln!("ptx: {e}");
            -1
        }
    }
}

/// # Safety
/// `name` ends with NUL.
#[no_mangle]
pub unsafe extern "C" fn ptx_function(module: c_int, stub: *const c_void, name: *const c_char) {
    let name = CStr::from_ptr(name).to_string_lossy().into_owned();
    if module >= 0 {
        let entry = Entry { module: module as usize, name, kernel: None, dynamic: 48 * 1024 };
        with(|m| m.entries.insert(stub as usize, entry));
    }
}

impl Machine {
    fn kernel(&mut self, stub: usize) -> Result<Arc<Kernel>, c_int> {
        let Some(entry) = self.entries.get_mut(&stub) else { return Err(code::INVALID_FUNCTION) };
        if let Some(k) = &entry.kernel {
            return Ok(k.clone());
        }
        match Kernel::new(&self.modules[entry.module], &entry.name) {
            Ok(k) => Ok(entry.kernel.insert(Arc::new(k)).clone()),
            Err(e) => {
                eprintln!("ptx: {}: {e}", entry.name);
                Err(code::ILLEGAL_INSTRUCTION)
            }
        }
    }

    fn launch(&mut self, l: &Config, args: *const *const u8) -> c_int {
        let kernel = match self.kernel(l.stub as usize) {
            Ok(k) => k,
            Err(e) => return e,
        };
        let threads = l.block.iter().map(|x| *x as u64).product::<u64>();
        let limits = [(1u64 << 31) - 1, 65535, 65535];
        if l.grid.iter().zip(limits).any(|(n, most)| *n == 0 || *n as u64 > most) || threads == 0 || threads > 1024 {
            eprintln!("ptx: {}: {:?} CTAs of {:?} threads", kernel.name, l.grid, l.block);
            return code::INVALID_CONFIGURATION;
        }
        if l.dynamic as usize > self.entries[&(l.stub as usize)].dynamic {
            eprintln!("ptx: {}: {} bytes of shared memory are more than it asked for", kernel.name, l.dynamic);
            return code::INVALID_VALUE;
        }
        let mut params = vec![0u8; kernel.param_bytes];
        let places = place(&kernel.params).0;
        for (n, p) in kernel.params.iter().enumerate() {
            let (at, size) = (places[&p.name], p.size.unwrap_or(0));
            // SAFETY: nvcc's code gives the address of each argument, of the size that the kernel's PTX says
            params[at..at + size].copy_from_slice(unsafe { std::slice::from_raw_parts(*args.add(n), size) });
        }
        let launch = Launch {
            kernel: kernel.clone(),
            params,
            grid: l.grid,
            block: l.block,
            dynamic: l.dynamic as usize,
            early: l.early != 0,
            strict: !self.lax.iter().any(|part| kernel.name.contains(part)),
        };
        self.launches += 1;
        let mut rng = Rng(self.seed ^ self.launches.wrapping_mul(0x2545_f491_4f6c_dd1d));
        match grid::run(launch, &self.memory, &mut rng, set("PMKVQ_PTX_REPORT")) {
            Ok(Some(counts)) => self.report.add(&kernel, &counts),
            Ok(None) => {}
            Err(e) => {
                eprintln!("ptx: {} (seed {}, launch {})", e.text, self.seed, self.launches);
                if self.failed == 0 {
                    self.failed = e.code;
                }
            }
        }
        0
    }
}

#[repr(C)]
pub struct Config {
    stub: *const c_void,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic: u64,
    early: c_int,
}

/// # Safety
/// As many arguments as the kernel has.
#[no_mangle]
pub unsafe extern "C" fn ptx_launch(config: *const Config, args: *const *const u8) -> c_int {
    with(|m| {
        let code = m.launch(&*config, args);
        if code != 0 {
            m.last = code;
        }
        code
    })
}

/// Bytes of dynamic shared memory that a kernel may have; and what its code was made for, as 90.
#[no_mangle]
pub extern "C" fn ptx_allow_shared(stub: *const c_void, bytes: usize) -> c_int {
    with(|m| match m.entries.get_mut(&(stub as usize)) {
        Some(e) => {
            e.dynamic = bytes;
            0
        }
        None => code::INVALID_FUNCTION,
    })
}

#[no_mangle]
pub extern "C" fn ptx_target(stub: *const c_void) -> c_int {
    with(|m| m.entries.get(&(stub as usize)).map_or(-1, |e| m.modules[e.module].target as c_int))
}

/// What all modules were made for, as 90.
#[no_mangle]
pub extern "C" fn ptx_arch() -> c_int {
    with(|m| m.modules.iter().map(|x| x.target as c_int).min().unwrap_or(0))
}

/// Decodes every kernel, so that an instruction that is not known is found before a launch of it. How many are not understood.
#[no_mangle]
pub extern "C" fn ptx_decode_all() -> c_int {
    with(|m| {
        let stubs: Vec<usize> = m.entries.keys().copied().collect();
        stubs.into_iter().filter(|stub| m.kernel(*stub).is_err()).count() as c_int
    })
}

#[no_mangle]
pub extern "C" fn ptx_alloc(bytes: usize) -> *mut c_void {
    with(|m| m.memory.alloc(bytes).unwrap_or(0) as *mut c_void)
}

#[no_mangle]
pub extern "C" fn ptx_free(p: *mut c_void) -> c_int {
    with(|m| if p.is_null() || m.memory.free(p as u64) { 0 } else { code::INVALID_VALUE })
}

/// Whether these bytes are device memory.
#[no_mangle]
pub extern "C" fn ptx_has(p: *const c_void, bytes: usize, what: *const c_char) -> c_int {
    // SAFETY: runtime.cpp gives a constant
    let what = unsafe { CStr::from_ptr(what) }.to_string_lossy();
    with(|m| match m.memory.check(p as u64, bytes as u64, &what) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("ptx: {}", e.text);
            m.last = code::INVALID_VALUE;
            code::INVALID_VALUE
        }
    })
}

/// The error of kernels that were launched since the last time.
#[no_mangle]
pub extern "C" fn ptx_sync() -> c_int {
    with(|m| std::mem::take(&mut m.failed))
}

#[no_mangle]
pub extern "C" fn ptx_last_error(clear: c_int) -> c_int {
    with(|m| if clear != 0 { std::mem::take(&mut m.last) } else { m.last })
}

#[no_mangle]
pub extern "C" fn ptx_fail(code: c_int) {
    with(|m| m.last = code);
}

#[no_mangle]
pub extern "C" fn ptx_seed(seed: u64) {
    with(|m| (m.seed, m.launches) = (seed, 0));
}

/// Kernels of such names may read shared memory that was never written: it is no number, and -1.
///
/// # Safety
/// `part` ends with NUL.
#[no_mangle]
pub unsafe extern "C" fn ptx_may_read_unwritten(part: *const c_char) {
    let part = CStr::from_ptr(part).to_string_lossy().into_owned();
    with(|m| m.lax.push(part));
}

#[no_mangle]
pub extern "C" fn ptx_report() {
    if set("PMKVQ_PTX_REPORT") {
        eprint!("{}", with(|m| m.report.text()));
    }
}
