//! A cache behind the C interface: the policy, and where its tables lie in the meta buffer.

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

use super::describe::describe_json;
use super::text::{read, report, write};
use super::types::{
    CacheDesc, CacheHandle, CellsC, ModelDesc, PlanHandle, PoolDesc, SideDesc, TableChange, TransformDesc,
};
use super::{guard, FAILED};
use crate::bytes::{Layout, LayoutParams};
use crate::geometry::Side;
use crate::plan::Plan;
use crate::policy::{BlockOp, CellView, Policy};
use crate::shape::{LayerShape, ModelShape};
use crate::transform::{self, Factor, Transforms};

/// One llama.cpp cache with its plan.
pub struct Cache {
    pub plan: Plan,
    pub layout: Layout,
    pub policy: Policy,
    /// Pages of each pool.
    pub pool_pages: Vec<u32>,
    pub scratch_bytes: u64,
    pub(super) transforms: Transforms,
    /// Names of the devices that layers are on; empty where nobody has placed them.
    pub devices: Vec<String>,
    pub sides: Vec<SideDesc>,
    /// Bytes of the tables and parameters on each device.
    meta_bytes: Vec<u64>,
    desc: CacheDesc,
    /// By device: the meta buffer does not hold the tables yet.
    pub stale: Vec<bool>,
    /// What [`super::tables::table_changes`] returned last.
    pub changes: Vec<TableChange>,
    /// Of the transforms, once it was asked for (see [`super::state`]).
    pub(super) transforms_id: OnceLock<u64>,
    /// A state on its way in.
    pub(super) pending: Option<super::state::Pending>,
}

/// Where the layers are.
struct Placement {
    names: Vec<String>,
    /// Of each layer, an index in `names`.
    layers: Vec<u32>,
}

impl Cache {
    fn new(
        plan: &Plan,
        shape: &ModelShape,
        placement: Placement,
        n_ctx: u32,
        n_seq_max: u32,
        scratch_bytes: u64,
        estimate: bool,
    ) -> Result<Cache, String> {
        let mut plan = plan.clone();
        plan.check_model(shape).map_err(|e| e.to_string())?;
        let n_devices = placement.names.len().max(1);
        // every device has a copy of all transforms
        let transform_bytes = plan.transform_bytes() * n_devices as u64;
        let params = LayoutParams { n_ctx, n_seq_max, scratch_bytes, transform_bytes, ..plan.params() };
        let budget = plan.fit_budget(shape, &params, estimate)?;
        let layout = Layout::on_devices(shape, &plan.finals(), &params, &placement.layers);
        let pool_pages = layout.pool_pages(budget).map_err(|e| e.to_string())?;
        let policy = Policy::new(plan.policy_config(&layout, &pool_pages, &params)).map_err(|e| e.to_string())?;
        let mut meta_bytes = vec![0; n_devices];
        let sides = layout
            .sides
            .iter()
            .enumerate()
            .map(|(i, side)| {
                // a side that ends at 16 bits has no parameters
                let group = if side.params_bytes == 0 { 0 } else { side.group as u32 };
                let end = &mut meta_bytes[layout.pools[side.pool].device as usize];
                let desc = SideDesc {
                    pool: side.pool as u32,
                    group,
                    range: plan.ranges.side(Side::BOTH[i % 2]) as u32,
                    offset: *end,
                };
                *end += (side.table_bytes + side.params_bytes).next_multiple_of(64);
                desc
            })
            .collect::<Vec<_>>();
        let desc = CacheDesc {
            n_blocks: layout.n_blocks,
            n_pools: layout.pools.len() as u32,
            n_sides: sides.len() as u32,
            table_bytes: crate::geometry::table_bytes(layout.n_blocks as usize) as u64,
            transform_bytes: plan.transform_bytes(),
            sink: plan.sink,
            window: plan.window,
        };
        let transforms = plan.transforms.as_ref().map(|t| Transforms::new(&plan.model, t)).unwrap_or_default();
        Ok(Cache {
            plan,
            layout,
            policy,
            pool_pages,
            scratch_bytes,
            transforms,
            devices: placement.names,
            sides,
            desc,
            stale: vec![true; n_devices],
            meta_bytes,
            changes: Vec::new(),
            transforms_id: OnceLock::new(),
            pending: None,
        })
    }

    /// Bytes of all tables and parameters.
    pub fn meta_bytes(&self) -> u64 {
        self.meta_bytes.iter().sum()
    }

    /// Bytes of a side's table: its parameters follow.
    pub fn table_bytes(&self) -> usize {
        self.desc.table_bytes as usize
    }

    /// Bytes of the transforms' vectors and matrices, on all devices.
    pub fn transform_bytes(&self) -> u64 {
        self.layout.transform_bytes
    }

    /// The device that a side (`2 * layer + side`) is on.
    pub fn device(&self, side: usize) -> u32 {
        self.layout.pools[self.sides[side].pool as usize].device
    }
}

unsafe fn shape_of(model: &ModelDesc) -> Result<ModelShape, String> {
    let layers =
        if model.n_layers == 0 { &[] } else { std::slice::from_raw_parts(model.layers, model.n_layers as usize) };
    Ok(ModelShape {
        arch: read(model.arch, "the model's architecture")?.unwrap_or("").to_string(),
        name: read(model.name, "the model's name").ok().flatten().unwrap_or("").to_string(),
        n_ctx_train: model.n_ctx_train,
        layers: layers
            .iter()
            .map(|l| LayerShape {
                il: l.il,
                n_head_kv: l.n_head_kv,
                head_dim_k: l.head_dim_k,
                head_dim_v: l.head_dim_v,
            })
            .collect(),
    })
}

unsafe fn placement_of(model: &ModelDesc) -> Result<Placement, String> {
    if model.n_devices == 0 {
        return Ok(Placement { names: Vec::new(), layers: Vec::new() });
    }
    let names = std::slice::from_raw_parts(model.devices, model.n_devices as usize);
    let names: Result<Vec<String>, String> =
        names.iter().map(|name| Ok(read(*name, "a device's name")?.unwrap_or("").to_string())).collect();
    let layers = std::slice::from_raw_parts(model.layers, model.n_layers as usize);
    let layers: Vec<u32> = layers.iter().map(|l| l.device).collect();
    match layers.iter().find(|d| **d >= model.n_devices) {
        Some(device) => Err(format!("a layer is on device {device} of {}", model.n_devices)),
        None => Ok(Placement { names: names?, layers }),
    }
}

/// The model that a description from llama.cpp stands for.
///
/// # Safety
/// The pointers in `model` are valid.
pub unsafe fn model_shape(model: &ModelDesc) -> Result<ModelShape, String> {
    shape_of(model)
}

pub(super) unsafe fn get<'a>(cache: *const CacheHandle) -> &'a Cache {
    let handle = &*cache;
    &handle.0
}

pub(super) unsafe fn get_mut<'a>(cache: *mut CacheHandle) -> &'a mut Cache {
    let handle = &mut *cache;
    &mut handle.0
}

pub(super) unsafe fn view<'a>(cells: *const CellsC) -> CellView<'a> {
    let cells = &*cells;
    CellView {
        pos: std::slice::from_raw_parts(cells.pos, cells.n as usize),
        seq: std::slice::from_raw_parts(cells.seq, cells.n as usize),
    }
}

/// # Safety
/// `plan` comes from `plan_load`, `model` is valid, `cache` is writable, `err` is writable for `n_err` bytes.
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cache_new(
    plan: *const PlanHandle,
    model: *const ModelDesc,
    n_ctx: u32,
    n_seq_max: u32,
    scratch_bytes: u64,
    estimate: c_int,
    cache: *mut *mut CacheHandle,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let shape = shape_of(&*model)?;
        let placement = placement_of(&*model)?;
        let new = Cache::new(&(*plan).0, &shape, placement, n_ctx, n_seq_max, scratch_bytes, estimate != 0)?;
        *cache = Box::into_raw(Box::new(CacheHandle(new)));
        Ok(())
    })
}

/// # Safety
/// `cache` comes from [`cache_new`] and is not used again.
pub unsafe extern "C" fn cache_free(cache: *mut CacheHandle) {
    if !cache.is_null() {
        drop(Box::from_raw(cache));
    }
}

/// # Safety
/// `cache` comes from [`cache_new`]; `desc` is writable.
pub unsafe extern "C" fn cache_desc(cache: *const CacheHandle, desc: *mut CacheDesc) {
    *desc = (*cache).0.desc;
}

/// # Safety
/// As for [`cache_desc`].
pub unsafe extern "C" fn cache_meta_bytes(cache: *const CacheHandle, device: u32) -> u64 {
    get(cache).meta_bytes.get(device as usize).copied().unwrap_or(0)
}

/// # Safety
/// As for [`cache_desc`].
pub unsafe extern "C" fn cache_pool(cache: *const CacheHandle, pool: u32, desc: *mut PoolDesc) -> c_int {
    let cache = get(cache);
    let (Some(pool), Some(&n_pages)) = (cache.layout.pools.get(pool as usize), cache.pool_pages.get(pool as usize))
    else {
        return FAILED;
    };
    *desc = PoolDesc { device: pool.device, n_head_kv: pool.n_head_kv, head_dim: pool.head_dim, n_pages };
    0
}

/// # Safety
/// As for [`cache_desc`].
pub unsafe extern "C" fn cache_side(cache: *const CacheHandle, side: u32, desc: *mut SideDesc) -> c_int {
    match get(cache).sides.get(side as usize) {
        Some(&side) => {
            *desc = side;
            0
        }
        None => FAILED,
    }
}

/// # Safety
/// As for [`cache_desc`].
pub unsafe extern "C" fn cache_transform(cache: *const CacheHandle, side: u32, desc: *mut TransformDesc) -> c_int {
    let s = get(cache).transforms.sides.get(side as usize).copied().unwrap_or_default();
    *desc = TransformDesc {
        hadamard: s.hadamard as u32,
        center: s.center.into(),
        factor: match s.factor {
            Factor::None => 0,
            Factor::Scale => 1,
            Factor::Matrix => 2,
        },
        offset_center: s.offset_center,
        offset_forward: s.offset_forward,
        offset_inverse: s.offset_inverse,
    };
    0
}

/// # Safety
/// `cache` comes from [`cache_new`]; `out` is writable for the `transform_bytes` of its description.
pub unsafe extern "C" fn write_transforms(cache: *const CacheHandle, out: *mut f32) -> c_int {
    guard(FAILED, || {
        let cache = get(cache);
        let Some(layers) = &cache.plan.transforms else { return 0 };
        let out = std::slice::from_raw_parts_mut(out, cache.transforms.bytes as usize / 4);
        match transform::write_all(&cache.transforms, &cache.plan.model, layers, out) {
            Ok(()) => 0,
            Err(_) => FAILED,
        }
    })
}

/// # Safety
/// `cache` comes from [`cache_new`]; `cells` describes valid arrays.
pub unsafe extern "C" fn observe(cache: *mut CacheHandle, cells: *const CellsC) {
    guard((), || get_mut(cache).policy.observe(view(cells)));
}

/// # Safety
/// `cache` comes from [`cache_new`]; the arrays have `n_tokens` entries; `cells` describes valid arrays.
pub unsafe extern "C" fn place(
    cache: *const CacheHandle,
    cells: *const CellsC,
    n_tokens: u32,
    pos: *const i32,
    seq: *const i32,
    out: *mut u32,
) -> c_int {
    guard(FAILED, || {
        let n = n_tokens as usize;
        let pos = std::slice::from_raw_parts(pos, n);
        let seq = std::slice::from_raw_parts(seq, n);
        let tokens: Vec<(i32, u32)> = pos.iter().zip(seq).map(|(&p, &s)| (p, s as u32)).collect();
        match get(cache).policy.place(view(cells), &tokens) {
            Some(found) if found.len() == n => {
                std::slice::from_raw_parts_mut(out, n).copy_from_slice(&found);
                0
            }
            _ => FAILED,
        }
    })
}

/// # Safety
/// As for [`place`]; `ops` and `n_ops` are writable; the operations are valid until the next call with the cache.
pub unsafe extern "C" fn plan_ubatch(
    cache: *mut CacheHandle,
    cells: *const CellsC,
    n_tokens: u32,
    new_cells: *const u32,
    ops: *mut *const BlockOp,
    n_ops: *mut u32,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let new_cells = std::slice::from_raw_parts(new_cells, n_tokens as usize);
        let planned = get_mut(cache).policy.plan_ubatch(view(cells), new_cells).map_err(|e| e.to_string())?;
        *ops = planned.ops.as_ptr();
        *n_ops = planned.ops.len() as u32;
        Ok(())
    })
}

/// # Safety
/// `cache` comes from [`cache_new`].
pub unsafe extern "C" fn commit(cache: *mut CacheHandle) {
    guard((), || get_mut(cache).policy.commit());
}

/// # Safety
/// `cache` comes from [`cache_new`]; `done` is valid for `n_ops` bytes.
pub unsafe extern "C" fn commit_partly(cache: *mut CacheHandle, done: *const u8, n_ops: u32) {
    guard((), || {
        let done: Vec<bool> = (0..n_ops as usize).map(|i| *done.add(i) != 0).collect();
        get_mut(cache).policy.commit_partly(&done);
    });
}

/// # Safety
/// `cache` comes from [`cache_new`].
pub unsafe extern "C" fn rollback(cache: *mut CacheHandle) {
    guard((), || get_mut(cache).policy.rollback());
}

/// # Safety
/// `cache` comes from [`cache_new`].
pub unsafe extern "C" fn reset(cache: *mut CacheHandle) {
    guard((), || {
        let cache = get_mut(cache);
        cache.policy.reset();
        cache.stale.fill(true);
    });
}

/// # Safety
/// `cache` comes from [`cache_new`]; `cells` describes valid arrays; `buf` is null or writable for `n` bytes.
pub unsafe extern "C" fn describe(
    cache: *const CacheHandle,
    cells: *const CellsC,
    buf: *mut c_char,
    n: usize,
) -> usize {
    guard(0, || write(&describe_json(&(*cache).0, view(cells)).to_string(), buf, n))
}
