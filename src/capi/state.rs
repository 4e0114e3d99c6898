//! States through the C interface: what llama.cpp writes and reads between its own cells.

use std::ffi::{c_char, c_int};
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::cache::{get, get_mut, view, Cache};
use super::text::report;
use super::types::{CacheHandle, CellsC, StateIo};
use super::{guard, FAILED};
use crate::geometry::{BlockEntry, Side, BLOCK};
use crate::kernels::RangeRule;
use crate::policy::{BlockOp, CellView, Placed};
use crate::state::{self, Head, Place, SideShape, Storage};
use crate::transform;

/// A state that is being restored.
pub struct Pending {
    head: Head,
    placed: Placed,
}

/// llama.cpp's side of a state.
struct Io<'a>(&'a StateIo);

impl Io<'_> {
    fn check(status: c_int, what: &str) -> io::Result<()> {
        if status == 0 {
            Ok(())
        } else {
            Err(io::Error::other(what.to_string()))
        }
    }
}

impl Write for Io<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the caller of the C function vouches for the callbacks
        let status = unsafe { (self.0.write)(self.0.data, bytes.as_ptr().cast(), bytes.len() as u64) };
        Self::check(status, "the state can't be written").map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Io<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // SAFETY: as for write
        let status = unsafe { (self.0.read)(self.0.data, bytes.as_mut_ptr().cast(), bytes.len() as u64) };
        Self::check(status, "the state ends early").map(|()| bytes.len())
    }
}

impl Storage for Io<'_> {
    fn get(&mut self, place: Place, rows: &[i32], dst: &mut [u8]) -> Result<(), String> {
        let (pool, device) = address(place);
        let (n, rows, dst) = (rows.len() as u64, rows.as_ptr(), dst.as_mut_ptr().cast());
        // SAFETY: dst has room for the rows
        let status = unsafe { (self.0.get)(self.0.data, pool, device, rows, n, dst) };
        Self::check(status, "the KV cache can't be read").map_err(|e| e.to_string())
    }

    fn set(&mut self, place: Place, rows: &[i32], src: &[u8]) -> Result<(), String> {
        let (pool, device) = address(place);
        let (n, rows, src) = (rows.len() as u64, rows.as_ptr(), src.as_ptr().cast());
        // SAFETY: src has the rows
        let status = unsafe { (self.0.set)(self.0.data, pool, device, rows, n, src) };
        Self::check(status, "the KV cache can't be written").map_err(|e| e.to_string())
    }

    fn in_hand(&self) -> usize {
        self.0.in_hand as usize
    }
}

/// Pool and device as the callbacks have them.
fn address(place: Place) -> (u32, u32) {
    match place {
        Place::Pool(pool) => (pool, 0),
        Place::Meta(device) => (u32::MAX, device),
    }
}

impl Cache {
    fn side_shapes(&self) -> Vec<SideShape> {
        let shape = |(i, desc): (usize, &super::types::SideDesc)| {
            let pool = &self.layout.pools[desc.pool as usize];
            SideShape {
                side: Side::BOTH[i % 2],
                n_head_kv: pool.n_head_kv as usize,
                head_dim: pool.head_dim as usize,
                group: desc.group as usize,
                range: RangeRule::ALL.get(desc.range as usize).copied().unwrap_or_default(),
                pool: desc.pool,
                n_pages: self.pool_pages[desc.pool as usize] as usize,
                device: pool.device,
                params: desc.offset as usize + self.table_bytes(),
            }
        };
        self.sides.iter().enumerate().map(shape).collect()
    }

    /// A fingerprint of the transforms that K and V are stored under; 0 without any.
    fn transforms_id(&self) -> Result<u64, String> {
        if let Some(&id) = self.transforms_id.get() {
            return Ok(id);
        }
        let id = self.hash_transforms()?;
        Ok(*self.transforms_id.get_or_init(|| id))
    }

    fn hash_transforms(&self) -> Result<u64, String> {
        let Some(layers) = &self.plan.transforms else { return Ok(0) };
        let mut values = vec![0f32; self.transforms.bytes as usize / 4];
        if values.is_empty() {
            return Ok(0);
        }
        transform::write_all(&self.transforms, &self.plan.model, layers, &mut values).map_err(|e| e.to_string())?;
        let mut hash = Sha256::new();
        for side in &self.transforms.sides {
            hash.update(format!("{side:?}"));
        }
        values.iter().for_each(|x| hash.update(x.to_le_bytes()));
        let bytes: [u8; 32] = hash.finalize().into();
        Ok(u64::from_le_bytes(std::array::from_fn(|i| bytes[i])))
    }

    fn tables(&self) -> impl Fn(usize, usize) -> BlockEntry + '_ {
        |side, block| self.policy.table(side)[block]
    }

    fn head(&self, saved: &[u128]) -> Result<Head, String> {
        let sinks = self.policy.config().sink_blocks() as usize;
        Head::of(&self.side_shapes(), self.transforms_id()?, saved, sinks, &self.tables())
    }
}

/// Cells of a sequence, or of all (-1): a word for each block.
fn saved(cells: CellView, seq: i32) -> Vec<u128> {
    let has = |cell: usize| match u32::try_from(seq) {
        Ok(seq) => cells.has(cell, seq),
        Err(_) => true,
    };
    let word = |b: usize| {
        (0..BLOCK).fold(0u128, |word, i| {
            let cell = b * BLOCK + i;
            word | u128::from(cells.pos[cell] >= 0 && has(cell)) << i
        })
    };
    (0..cells.pos.len() / BLOCK).map(word).collect()
}

/// # Safety
/// `cache` comes from `cache_new`, `cells` describes valid arrays, `head` and `data` are writable, `err` is writable for `n_err` bytes.
pub unsafe extern "C" fn state_size(
    cache: *const CacheHandle,
    cells: *const CellsC,
    seq: i32,
    head: *mut u64,
    data: *mut u64,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let cache = get(cache);
        let of = cache.head(&saved(view(cells), seq))?;
        *head = of.bytes() as u64;
        *data = state::data_bytes(&of, &cache.side_shapes()) as u64;
        Ok(())
    })
}

/// # Safety
/// As for [`state_size`]; the callbacks of `io` are as `llama/pmkvq.h` says.
pub unsafe extern "C" fn state_save(
    cache: *const CacheHandle,
    cells: *const CellsC,
    seq: i32,
    data: c_int,
    io: *const StateIo,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let cache = get(cache);
        let saved = saved(view(cells), seq);
        let (mut storage, mut out) = (Io(&*io), Io(&*io));
        if data == 0 {
            return cache.head(&saved)?.write(&mut out).map_err(|e| e.to_string());
        }
        state::save(&cache.side_shapes(), &saved, &cache.tables(), &mut storage, &mut out)
    })
}

/// # Safety
/// As for [`state_save`]; `n_cells` is writable.
pub unsafe extern "C" fn state_open(
    cache: *mut CacheHandle,
    io: *const StateIo,
    n_cells: *mut u32,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let cache = get_mut(cache);
        cache.pending = None;
        let n_ctx = cache.policy.config().n_ctx;
        let head = Head::read(&mut Io(&*io), &cache.side_shapes(), cache.transforms_id()?, n_ctx)?;
        *n_cells = head.n_cells() as u32;
        cache.pending = Some(Pending { head, placed: Placed::default() });
        Ok(())
    })
}

/// # Safety
/// As for [`state_size`]; `out` is writable for as many cells as [`state_open`] said.
pub unsafe extern "C" fn state_place(cache: *mut CacheHandle, cells: *const CellsC, out: *mut u32) -> c_int {
    guard(FAILED, || {
        let cache = get_mut(cache);
        let Some(pending) = &mut cache.pending else { return FAILED };
        match cache.policy.place_blocks(view(cells), &pending.head.blocks) {
            Some(placed) => {
                out.copy_from_nonoverlapping(placed.cells.as_ptr(), placed.cells.len());
                pending.placed = placed;
                0
            }
            None => FAILED,
        }
    })
}

/// # Safety
/// As for `plan_ubatch`.
pub unsafe extern "C" fn state_plan(
    cache: *mut CacheHandle,
    cells: *const CellsC,
    ops: *mut *const BlockOp,
    n_ops: *mut u32,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let cache = get_mut(cache);
        let placed = &cache.pending.as_ref().ok_or("no state is being restored")?.placed;
        let planned = cache.policy.plan_blocks(view(cells), &placed.cells, &placed.starts);
        let planned = planned.map_err(|e| e.to_string())?;
        *ops = planned.ops.as_ptr();
        *n_ops = planned.ops.len() as u32;
        Ok(())
    })
}

/// # Safety
/// As for [`state_save`].
pub unsafe extern "C" fn state_restore(
    cache: *mut CacheHandle,
    io: *const StateIo,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let cache = get_mut(cache);
        let pending = cache.pending.take().ok_or("no state is being restored")?;
        let fresh: Vec<u32> = pending.placed.starts.iter().map(|s| s.0).collect();
        let (mut storage, mut from) = (Io(&*io), Io(&*io));
        state::restore(
            &pending.head,
            &cache.side_shapes(),
            &pending.placed.cells,
            &fresh,
            &cache.tables(),
            &mut storage,
            &mut from,
        )
    })
}
