//! The device as the tests see it: the library that holds the kernels (`tests/cuda/device.h`), loaded at run time, and memory
//! in it. The library is the one in `PMKVQ_CUDA_LIB`, or else the shim, which runs the kernels on the host.
//!
//! Tests run side by side; what touches the device does so one at a time, and waits, so that an error belongs to its call.
#![allow(dead_code)] // not every test program uses all of it

use super::common::Cache;
use pmkvq::capi::types::{OpAttn, OpLoad, OpMerge, OpStore, OpTransform, SideDesc};
use pmkvq::policy::BlockOp;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, OnceLock};

/// `pmkvq_cuda_shrink`
#[repr(C)]
pub struct Shrink {
    pub ops: *const BlockOp,
    pub sides: *const SideDesc,
    pub n_ops: u32,
    pub n_sides: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    pub n_pages: u32,
    pub n_blocks: u32,
    pub pool: *mut u8,
    pub meta: *mut u8,
    pub table_bytes: u64,
    /// Null: nobody asks.
    pub done: *mut u32,
}

/// `pmkvq_dev_listed`
#[repr(C)]
pub struct Listed {
    pub op: OpAttn,
    pub seen: *mut u8,
}

/// `pmkvq_dev_within`: as on a GPU whose CTAs can have so many bytes of shared memory, which may not be more than this one's.
#[repr(C)]
pub struct Within {
    pub op: OpAttn,
    pub shared: usize,
}

/// `pmkvq_dev_end`
#[repr(C)]
pub struct End {
    pub merge: OpMerge,
    pub stores: [OpStore; 2],
}

/// `cudaErrorInvalidValue`
pub const INVALID_VALUE: i32 = 1;

type Ptr = *mut c_void;

/// The functions of `device.h`.
struct Library {
    open: unsafe extern "C" fn(*mut c_char, usize, *mut u32) -> c_int,
    seed: unsafe extern "C" fn(u64),
    alloc: unsafe extern "C" fn(*mut Ptr, usize) -> c_int,
    free: unsafe extern "C" fn(Ptr) -> c_int,
    copy_in: unsafe extern "C" fn(Ptr, *const c_void, usize) -> c_int,
    copy_out: unsafe extern "C" fn(Ptr, *const c_void, usize) -> c_int,
    fill: unsafe extern "C" fn(Ptr, c_int, usize) -> c_int,
    sync: unsafe extern "C" fn() -> c_int,
    store: unsafe extern "C" fn(*const OpStore) -> c_int,
    stores: unsafe extern "C" fn(*const OpStore) -> c_int,
    shrink: unsafe extern "C" fn(*const Shrink) -> c_int,
    attn: unsafe extern "C" fn(*const OpAttn) -> c_int,
    attn_within: unsafe extern "C" fn(*const Within) -> c_int,
    seen: unsafe extern "C" fn(*const Listed) -> c_int,
    attn_seen: unsafe extern "C" fn(*const Listed) -> c_int,
    merge: unsafe extern "C" fn(*const OpMerge) -> c_int,
    load: unsafe extern "C" fn(*const OpLoad) -> c_int,
    transform: unsafe extern "C" fn(*const OpTransform) -> c_int,
    finish: unsafe extern "C" fn(*const End) -> c_int,
    seen_bytes: unsafe extern "C" fn(*const OpAttn) -> usize,
    seen_pays: unsafe extern "C" fn(*const OpAttn) -> c_int,
    shared_limit: unsafe extern "C" fn() -> usize,
    n_chunk: unsafe extern "C" fn(u32, u32, u32, u32, u32) -> u32,
    supports: unsafe extern "C" fn(u32, u32, u32, u32, u32, u32) -> c_int,
    time: unsafe extern "C" fn(*const c_char, *const *const c_void, u32, u32, *mut f32) -> c_int,
    time_copy: unsafe extern "C" fn(Ptr, *const c_void, usize, u32, *mut f32) -> c_int,
}

impl Library {
    fn load(path: &str) -> Library {
        let c = CString::new(path).expect("a path without NUL");
        // the fields that are filled give the types
        #[allow(clippy::missing_transmute_annotations)]
        // SAFETY: the library is ours; its functions have the types that device.h gives
        unsafe {
            let handle = libc::dlopen(c.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!handle.is_null(), "{path}: {}", CStr::from_ptr(libc::dlerror()).to_string_lossy());
            macro_rules! get {
                ($name:literal) => {{
                    let p = libc::dlsym(handle, concat!($name, "\0").as_ptr().cast());
                    assert!(!p.is_null(), "{path} has no {}", $name);
                    std::mem::transmute(p)
                }};
            }
            Library {
                open: get!("pmkvq_dev_open"),
                seed: get!("pmkvq_dev_seed"),
                alloc: get!("pmkvq_dev_alloc"),
                free: get!("pmkvq_dev_free"),
                copy_in: get!("pmkvq_dev_in"),
                copy_out: get!("pmkvq_dev_out"),
                fill: get!("pmkvq_dev_fill"),
                sync: get!("pmkvq_dev_sync"),
                store: get!("pmkvq_dev_store"),
                stores: get!("pmkvq_dev_stores"),
                shrink: get!("pmkvq_dev_shrink"),
                attn: get!("pmkvq_dev_attn"),
                attn_within: get!("pmkvq_dev_attn_within"),
                seen: get!("pmkvq_dev_seen"),
                attn_seen: get!("pmkvq_dev_attn_seen"),
                merge: get!("pmkvq_dev_merge"),
                load: get!("pmkvq_dev_load"),
                transform: get!("pmkvq_dev_transform"),
                finish: get!("pmkvq_dev_finish"),
                seen_bytes: get!("pmkvq_cuda_seen_bytes"),
                seen_pays: get!("pmkvq_cuda_seen_pays"),
                shared_limit: get!("pmkvq_cuda_shared_limit"),
                n_chunk: get!("pmkvq_cuda_n_chunk"),
                supports: get!("pmkvq_cuda_supports_attn"),
                time: get!("pmkvq_dev_time"),
                time_copy: get!("pmkvq_dev_time_copy"),
            }
        }
    }
}

/// The library's path; the shim is built if it is missing or old.
fn library_path() -> Result<String, String> {
    if let Ok(path) = std::env::var("PMKVQ_CUDA_LIB") {
        return Ok(path);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cuda_lib.py");
    let out = std::process::Command::new("python3").args([script, "shim"]).output().expect("python3");
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        return Err(format!("{script} shim: {said}"));
    }
    Ok(String::from_utf8(out.stdout).expect("a path").trim().lines().last().expect("a path").to_string())
}

pub struct Device {
    /// Of the GPU, or "shim".
    pub name: String,
    /// Multiprocessors.
    pub n_sm: u32,
    lib: Library,
    turn: Mutex<()>,
}

fn must(code: c_int, what: &str) {
    assert!(code == 0, "{what}: error {code}");
}

impl Device {
    pub fn get() -> &'static Device {
        static DEVICE: OnceLock<Device> = OnceLock::new();
        // what can't be built is not tried again by each test
        static PATH: OnceLock<Result<String, String>> = OnceLock::new();
        let path = PATH.get_or_init(library_path).as_ref().unwrap_or_else(|e| panic!("{e}"));
        DEVICE.get_or_init(|| {
            let lib = Library::load(path);
            let (mut name, mut n_sm) = ([0u8; 256], 0);
            // SAFETY: the name's room is given
            must(unsafe { (lib.open)(name.as_mut_ptr().cast(), name.len(), &mut n_sm) }, "opening the device");
            let name = CStr::from_bytes_until_nul(&name).expect("a name that ends").to_string_lossy().into_owned();
            Device { name, n_sm, lib, turn: Mutex::new(()) }
        })
    }

    pub fn is_shim(&self) -> bool {
        self.name.starts_with("shim")
    }

    /// In which order the shim runs what may run in any order.
    pub fn seed(&self, seed: u64) {
        let _turn = self.turn();
        // SAFETY: takes a number
        unsafe { (self.lib.seed)(seed) }
    }

    /// Waits; panics with the error of anything since the last time.
    pub fn sync(&self) {
        let _turn = self.turn();
        // SAFETY: no arguments
        must(unsafe { (self.lib.sync)() }, "the device");
    }

    /// Bytes of shared memory that a CTA can have.
    pub fn shared_limit(&self) -> usize {
        // SAFETY: no arguments
        unsafe { (self.lib.shared_limit)() }
    }

    /// Chunks that suit an attention.
    pub fn n_chunk(&self, n_tokens: u32, n_kv: u32, n_head: u32, n_head_kv: u32) -> u32 {
        // SAFETY: takes numbers
        unsafe { (self.lib.n_chunk)(self.n_sm, n_tokens, n_kv, n_head, n_head_kv) }
    }

    /// Whether there are attention kernels for a shape.
    pub fn supports(&self, n_head: u32, n_head_kv: u32, dk: u32, dv: u32, group_k: u32, group_v: u32) -> bool {
        // SAFETY: takes numbers
        unsafe { (self.lib.supports)(n_head, n_head_kv, dk, dv, group_k, group_v) != 0 }
    }

    /// A test that panicked left nothing half done here.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What the launch gave; panics if what was launched failed.
    fn run(&self, what: &str, launch: impl FnOnce(&Library) -> c_int) -> i32 {
        let _turn = self.turn();
        let code = launch(&self.lib);
        if code == 0 {
            // SAFETY: no arguments
            must(unsafe { (self.lib.sync)() }, what);
        }
        code
    }
}

pub fn store(op: &OpStore) -> i32 {
    // SAFETY: the caller's operation names device memory of its sizes
    Device::get().run("store", |l| unsafe { (l.store)(op) })
}

/// K and V in one launch.
pub fn stores(ops: &[OpStore; 2]) -> i32 {
    // SAFETY: as above
    Device::get().run("stores", |l| unsafe { (l.stores)(ops.as_ptr()) })
}

pub fn shrink(op: &Shrink) -> i32 {
    // SAFETY: as above
    Device::get().run("shrink", |l| unsafe { (l.shrink)(op) })
}

pub fn attn(op: &OpAttn) -> i32 {
    // SAFETY: as above
    Device::get().run("attention", |l| unsafe { (l.attn)(op) })
}

pub fn attn_within(op: &Within) -> i32 {
    // SAFETY: as above
    Device::get().run("attention", |l| unsafe { (l.attn_within)(op) })
}

/// Bytes of the lists of what is seen; 0: there are none for such an attention.
pub fn seen_bytes(op: &OpAttn) -> usize {
    // SAFETY: reads numbers
    unsafe { (Device::get().lib.seen_bytes)(op) }
}

/// Whether llama.cpp would have lists for such an attention.
pub fn seen_pays(op: &OpAttn) -> bool {
    // SAFETY: reads numbers
    unsafe { (Device::get().lib.seen_pays)(op) != 0 }
}

/// Makes the lists.
pub fn seen(op: &Listed) -> i32 {
    // SAFETY: as above
    Device::get().run("lists", |l| unsafe { (l.seen)(op) })
}

pub fn attn_seen(op: &Listed) -> i32 {
    // SAFETY: as above
    Device::get().run("attention with lists", |l| unsafe { (l.attn_seen)(op) })
}

pub fn merge(op: &OpMerge) -> i32 {
    // SAFETY: as above
    Device::get().run("merge", |l| unsafe { (l.merge)(op) })
}

pub fn load(op: &OpLoad) -> i32 {
    // SAFETY: as above
    Device::get().run("load", |l| unsafe { (l.load)(op) })
}

pub fn transform(op: &OpTransform) -> i32 {
    // SAFETY: as above
    Device::get().run("transform", |l| unsafe { (l.transform)(op) })
}

/// A merge and both stores in one launch.
pub fn finish(op: &End) -> i32 {
    // SAFETY: as above
    Device::get().run("merge and stores", |l| unsafe { (l.finish)(op) })
}

/// How often to try something: on a GPU it costs nothing.
pub fn times(n: u64) -> u64 {
    if Device::get().is_shim() {
        n
    } else {
        8 * n
    }
}

/// (head dimension, group): every group that there can be, shapes of real models among them.
pub const SHAPES: [(usize, usize); 20] = [
    (16, 16),
    (32, 32),
    (48, 48),
    (64, 16),
    (64, 64),
    (80, 80),
    (80, 16),
    (96, 96),
    (96, 48),
    (112, 112),
    (128, 128),
    (128, 64),
    (128, 32),
    (128, 16),
    (160, 80),
    (192, 96),
    (256, 128),
    (512, 128),
    (576, 96),
    (576, 64),
];

/// An operation to be timed.
#[derive(Clone, Copy)]
pub enum Op<'a> {
    Store(&'a OpStore),
    Stores(&'a [OpStore; 2]),
    Shrink(&'a Shrink),
    Attn(&'a OpAttn),
    Seen(&'a Listed),
    AttnSeen(&'a Listed),
    Within(&'a Within),
    Merge(&'a OpMerge),
    End(&'a End),
}

/// Seconds for each of `n_runs` runs of the operations in turn; `None` where there is no clock.
pub fn time(ops: &[Op], n_runs: usize) -> Option<Vec<f32>> {
    fn raw<T>(p: &T) -> *const c_void {
        std::ptr::from_ref(p).cast()
    }
    let (kinds, ops): (Vec<u8>, Vec<*const c_void>) = ops
        .iter()
        .map(|op| match *op {
            Op::Store(o) => (b's', raw(o)),
            Op::Stores(o) => (b'b', raw(o)),
            Op::Shrink(o) => (b'k', raw(o)),
            Op::Attn(o) => (b'a', raw(o)),
            Op::Seen(o) => (b'i', raw(o)),
            Op::AttnSeen(o) => (b'w', raw(o)),
            Op::Within(o) => (b'p', raw(o)),
            Op::Merge(o) => (b'm', raw(o)),
            Op::End(o) => (b'e', raw(o)),
        })
        .unzip();
    let kinds = CString::new(kinds).expect("letters");
    let (device, mut seconds) = (Device::get(), vec![0.0; n_runs]);
    let _turn = device.turn();
    // SAFETY: as many operations and places for seconds as said
    let code = unsafe {
        (device.lib.time)(kinds.as_ptr(), ops.as_ptr(), ops.len() as u32, n_runs as u32, seconds.as_mut_ptr())
    };
    if code == -1 {
        return None;
    }
    must(code, "timing");
    Some(seconds)
}

/// Seconds for each of `n_runs` copies of a buffer into another of its size; `None` where there is no clock.
pub fn time_copy(dst: &Buffer, src: &Buffer, n_runs: usize) -> Option<Vec<f32>> {
    assert!(src.len() <= dst.len());
    let (device, mut seconds) = (Device::get(), vec![0.0; n_runs]);
    let _turn = device.turn();
    // SAFETY: both hold that many bytes
    let code = unsafe {
        (device.lib.time_copy)(dst.ptr().cast(), src.ptr().cast(), src.len(), n_runs as u32, seconds.as_mut_ptr())
    };
    if code == -1 {
        return None;
    }
    must(code, "timing a copy");
    Some(seconds)
}

const GUARD_BYTE: u8 = 0xa5;

/// Device memory. On a GPU it has guards on both sides that are looked at when it is freed; the shim has its own.
pub struct Buffer {
    base: Ptr,
    len: usize,
    guard: usize,
    memory: PhantomData<*mut u8>,
}

// SAFETY: the device is used by one thread at a time
unsafe impl Send for Buffer {}
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Filled with 0xFF.
    pub fn new(bytes: usize) -> Buffer {
        let device = Device::get();
        // a GPU's checker sees the first byte beyond an allocation itself
        let guarded = !device.is_shim() && std::env::var("PMKVQ_GUARDS").as_deref() != Ok("0");
        let guard = if guarded { 256 } else { 0 };
        let all = (bytes + 2 * guard).max(1);
        let _turn = device.turn();
        let mut base = std::ptr::null_mut();
        // SAFETY: what was allocated is filled
        unsafe {
            must((device.lib.alloc)(&mut base, all), "device memory");
            must((device.lib.fill)(base, GUARD_BYTE.into(), all), "device memory");
            must((device.lib.fill)(base.byte_add(guard), 0xff, bytes), "device memory");
        }
        Buffer { base, len: bytes, guard, memory: PhantomData }
    }

    pub fn of<T: Copy>(values: &[T]) -> Buffer {
        let b = Buffer::new(size_of_val(values));
        b.write(values);
        b
    }

    pub fn ptr(&self) -> *mut u8 {
        self.base.wrapping_byte_add(self.guard).cast()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// From the start on.
    pub fn write<T: Copy>(&self, values: &[T]) {
        self.write_at(0, values);
    }

    /// From byte `at` on.
    pub fn write_at<T: Copy>(&self, at: usize, values: &[T]) {
        let n = size_of_val(values);
        assert!(at + n <= self.len);
        let (device, to) = (Device::get(), self.ptr().wrapping_add(at));
        let _turn = device.turn();
        // SAFETY: checked just above
        must(unsafe { (device.lib.copy_in)(to.cast(), values.as_ptr().cast(), n) }, "copying to the device");
    }

    /// All of it. `T` must be a type that any bytes are a value of.
    pub fn read<T: Copy>(&self) -> Vec<T> {
        let n = self.len / size_of::<T>();
        let mut values = Vec::<T>::with_capacity(n);
        self.out(self.ptr(), values.as_mut_ptr().cast(), n * size_of::<T>());
        // SAFETY: filled just above
        unsafe { values.set_len(n) };
        values
    }

    fn out(&self, from: *mut u8, to: *mut u8, n: usize) {
        let device = Device::get();
        let _turn = device.turn();
        // SAFETY: the caller's: within this allocation, and as many bytes there
        must(unsafe { (device.lib.copy_out)(to.cast(), from.cast(), n) }, "copying from the device");
    }

    /// Panics if a guard was written.
    pub fn check(&self) {
        for at in [self.base, self.ptr().wrapping_add(self.len).cast()] {
            let mut guard = vec![GUARD_BYTE; self.guard];
            self.out(at.cast(), guard.as_mut_ptr(), self.guard);
            assert!(guard.iter().all(|&b| b == GUARD_BYTE), "a guard of device memory was written");
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
        let device = Device::get();
        let _turn = device.turn();
        // SAFETY: allocated in new
        let code = unsafe { (device.lib.free)(self.base) };
        if !std::thread::panicking() {
            must(code, "freeing device memory");
        }
    }
}

/// A store or load of rows of a cache on the device; `$rest` is what the other one has not.
macro_rules! rows_op {
    ($op:ident, $cache:expr, $on:expr, $cells:expr, $n_tokens:expr, $($rest:tt)*) => {
        $op {
            cells: $cells.ptr().cast(),
            n_tokens: $n_tokens as u32,
            n_head_kv: $cache.n_head as u32,
            head_dim: $cache.d as u32,
            group: $cache.group as u32,
            n_pages: $cache.n_pages as u32,
            n_blocks: $cache.n_blocks as u32,
            side: $cache.side.index() as u32,
            pool: $on.pool.ptr(),
            table: $on.table.ptr().cast(),
            params: $on.params.ptr().cast(),
            $($rest)*
        }
    };
}
pub(crate) use rows_op;

/// A [`Cache`] on the device.
pub struct DeviceCache {
    pub pool: Buffer,
    pub table: Buffer,
    pub params: Buffer,
}

impl DeviceCache {
    pub fn of(c: &Cache) -> DeviceCache {
        DeviceCache {
            pool: Buffer::of(c.pool.bytes()),
            table: Buffer::of(&c.table),
            params: Buffer::of(c.params.bytes()),
        }
    }

    /// What the device holds now. Panics if the table was changed: no kernel does that.
    pub fn read_into(&self, c: &mut Cache) {
        assert!(self.table.read::<pmkvq::geometry::BlockEntry>() == c.table, "the table was written");
        c.pool.bytes_mut().copy_from_slice(&self.pool.read::<u8>());
        c.params.bytes_mut().copy_from_slice(&self.params.read::<u8>());
    }
}
