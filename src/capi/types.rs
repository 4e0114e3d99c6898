//! The C structs of `llama/pmkvq.h`, field by field. A test compares sizes and offsets with the header.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::AtomicU32;

use crate::geometry::BlockEntry;
use crate::policy::BlockOp;

pub const ABI_VERSION: u32 = 7;

/// `pmkvq_layer_desc`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LayerDesc {
    pub il: u32,
    pub n_head: u32,
    pub n_head_kv: u32,
    pub head_dim_k: u32,
    pub head_dim_v: u32,
    /// Index in [`ModelDesc::devices`].
    pub device: u32,
}

/// `pmkvq_model_desc`
#[repr(C)]
pub struct ModelDesc {
    pub arch: *const c_char,
    pub name: *const c_char,
    pub n_ctx_train: u32,
    pub n_layers: u32,
    pub layers: *const LayerDesc,
    /// `enum llama_rope_type`
    pub rope_type: i32,
    /// 0: nobody has placed the layers; they count as one device's.
    pub n_devices: u32,
    /// Names.
    pub devices: *const *const c_char,
}

/// `pmkvq_cells`
#[repr(C)]
pub struct CellsC {
    pub n: u32,
    pub pos: *const i32,
    pub seq: *const [u64; 4],
}

/// `pmkvq_pool_desc`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolDesc {
    pub device: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    pub n_pages: u32,
}

/// `pmkvq_side_desc`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SideDesc {
    pub pool: u32,
    pub group: u32,
    /// 0: `RangeRule::Shift`, 1: `RangeRule::Fit`
    pub range: u32,
    /// In the meta buffer of the layer's device.
    pub offset: u64,
}

/// `pmkvq_table_change`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TableChange {
    pub data: *const BlockEntry,
    pub offset: u64,
    pub size: u64,
}

/// `pmkvq_transform_desc`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TransformDesc {
    pub hadamard: u32,
    pub center: u32,
    pub factor: u32,
    pub offset_center: u64,
    pub offset_forward: u64,
    pub offset_inverse: u64,
}

/// `pmkvq_cache_desc`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheDesc {
    pub n_blocks: u32,
    pub n_pools: u32,
    pub n_sides: u32,
    pub table_bytes: u64,
    pub transform_bytes: u64,
    pub sink: u32,
    pub window: u32,
}

/// `pmkvq_op_store`
#[repr(C)]
pub struct OpStore {
    pub x: *const f32,
    pub x_nb_head: usize,
    pub x_nb_token: usize,
    pub cells: *const i64,
    pub n_tokens: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    pub group: u32,
    pub range: u32,
    pub n_pages: u32,
    pub n_blocks: u32,
    pub side: u32,
    pub pool: *mut u8,
    pub table: *const BlockEntry,
    pub params: *mut u16,
}

/// `pmkvq_op_shrink`
#[repr(C)]
pub struct OpShrink {
    pub ops: *const BlockOp,
    pub done: *mut u32,
    pub n_ops: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    pub n_pages: u32,
    pub n_blocks: u32,
    pub pool: *mut u8,
    pub meta: *mut u8,
    pub sides: *const SideDesc,
    pub n_sides: u32,
    pub table_bytes: u64,
}

/// `pmkvq_op_attn`
#[repr(C)]
pub struct OpAttn {
    pub q: *const f32,
    pub q_nb_head: usize,
    pub q_nb_token: usize,
    pub k_cur: *const f32,
    pub k_nb_head: usize,
    pub k_nb_token: usize,
    pub v_cur: *const f32,
    pub v_nb_head: usize,
    pub v_nb_token: usize,
    pub mask: *const u16,
    pub mask_nb_token: usize,
    pub cells: *const i64,
    pub n_tokens: u32,
    pub n_kv: u32,
    pub n_head: u32,
    pub n_head_kv: u32,
    pub head_dim_k: u32,
    pub head_dim_v: u32,
    pub group_k: u32,
    pub group_v: u32,
    pub n_blocks: u32,
    pub n_chunk: u32,
    pub scale: f32,
    pub softcap: f32,
    pub max_bias: f32,
    /// The tokens are of one sequence: they see much the same cells.
    pub one_seq: u32,
    pub pool_k: *const u8,
    pub pool_v: *const u8,
    pub n_pages_k: u32,
    pub n_pages_v: u32,
    pub table_k: *const BlockEntry,
    pub table_v: *const BlockEntry,
    pub params_k: *const u16,
    pub params_v: *const u16,
    pub dst: *mut f32,
    pub next_task: *const AtomicU32,
}

/// `pmkvq_row_transform`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RowTransformC {
    pub center: *const f32,
    pub factor: *const f32,
    pub hadamard: u32,
}

impl RowTransformC {
    pub const NONE: RowTransformC = RowTransformC { center: std::ptr::null(), factor: std::ptr::null(), hadamard: 0 };
}

/// `pmkvq_transform_rows`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TransformRowsC {
    pub x: *const f32,
    pub x_nb_head: usize,
    pub x_nb_token: usize,
    /// 0: there are none.
    pub n_head: u32,
    pub head_dim: u32,
    pub of: RowTransformC,
    pub dst: *mut f32,
}

/// `pmkvq_op_transform`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OpTransform {
    pub rows: [TransformRowsC; 3],
    pub n_tokens: u32,
    pub n_head_kv: u32,
}

/// `pmkvq_op_merge`
#[repr(C)]
pub struct OpMerge {
    pub partial: *const f32,
    pub sinks: *const f32,
    pub n_tokens: u32,
    pub n_head: u32,
    pub head_dim_v: u32,
    pub n_chunk: u32,
    pub n_head_kv: u32,
    pub back: RowTransformC,
    pub dst: *mut f32,
}

/// `pmkvq_op_load`
#[repr(C)]
pub struct OpLoad {
    pub cells: *const i64,
    pub n_tokens: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    pub group: u32,
    pub n_pages: u32,
    pub n_blocks: u32,
    pub side: u32,
    pub pool: *const u8,
    pub table: *const BlockEntry,
    pub params: *const u16,
    pub dst: *mut f32,
}

/// `pmkvq_state_io`
#[repr(C)]
pub struct StateIo {
    pub data: *mut c_void,
    pub in_hand: u64,
    pub write: unsafe extern "C" fn(*mut c_void, *const c_void, u64) -> c_int,
    pub read: unsafe extern "C" fn(*mut c_void, *mut c_void, u64) -> c_int,
    pub get: unsafe extern "C" fn(*mut c_void, u32, u32, *const i32, u64, *mut c_void) -> c_int,
    pub set: unsafe extern "C" fn(*mut c_void, u32, u32, *const i32, u64, *const c_void) -> c_int,
}

/// `pmkvq_plan`, opaque to C
pub struct PlanHandle(pub(super) crate::plan::Plan);

/// `pmkvq_cache`, opaque to C
pub struct CacheHandle(pub(super) super::cache::Cache);

/// `pmkvq_runtime`
#[repr(C)]
pub struct Runtime {
    pub abi_version: u32,
    pub size: u32,
    pub plan_load: unsafe extern "C" fn(
        *const c_char,
        *const c_char,
        *const c_char,
        *mut *mut PlanHandle,
        *mut c_char,
        usize,
    ) -> c_int,
    pub plan_free: unsafe extern "C" fn(*mut PlanHandle),
    pub plan_n_ctx: unsafe extern "C" fn(*const PlanHandle) -> u32,
    pub plan_check: unsafe extern "C" fn(*const PlanHandle, *const c_char, u32, *mut c_char, usize) -> c_int,
    pub plan_n_cells: unsafe extern "C" fn(*const PlanHandle, u32, u32) -> u32,
    pub cache_new: unsafe extern "C" fn(
        *const PlanHandle,
        *const ModelDesc,
        u32,
        u32,
        u64,
        c_int,
        *mut *mut CacheHandle,
        *mut c_char,
        usize,
    ) -> c_int,
    pub cache_free: unsafe extern "C" fn(*mut CacheHandle),
    pub cache_desc: unsafe extern "C" fn(*const CacheHandle, *mut CacheDesc),
    pub cache_meta_bytes: unsafe extern "C" fn(*const CacheHandle, u32) -> u64,
    pub cache_pool: unsafe extern "C" fn(*const CacheHandle, u32, *mut PoolDesc) -> c_int,
    pub cache_side: unsafe extern "C" fn(*const CacheHandle, u32, *mut SideDesc) -> c_int,
    pub cache_transform: unsafe extern "C" fn(*const CacheHandle, u32, *mut TransformDesc) -> c_int,
    pub write_transforms: unsafe extern "C" fn(*const CacheHandle, *mut f32) -> c_int,
    pub observe: unsafe extern "C" fn(*mut CacheHandle, *const CellsC),
    pub place: unsafe extern "C" fn(*const CacheHandle, *const CellsC, u32, *const i32, *const i32, *mut u32) -> c_int,
    pub plan_ubatch: unsafe extern "C" fn(
        *mut CacheHandle,
        *const CellsC,
        u32,
        *const u32,
        *mut *const BlockOp,
        *mut u32,
        *mut c_char,
        usize,
    ) -> c_int,
    pub commit: unsafe extern "C" fn(*mut CacheHandle),
    pub commit_partly: unsafe extern "C" fn(*mut CacheHandle, *const u8, u32),
    pub rollback: unsafe extern "C" fn(*mut CacheHandle),
    pub reset: unsafe extern "C" fn(*mut CacheHandle),
    pub sync_table: unsafe extern "C" fn(*mut CacheHandle, u32, *mut u8),
    pub table_changes: unsafe extern "C" fn(*mut CacheHandle, u32, *mut *const TableChange) -> u32,
    pub state_size:
        unsafe extern "C" fn(*const CacheHandle, *const CellsC, i32, *mut u64, *mut u64, *mut c_char, usize) -> c_int,
    pub state_save: unsafe extern "C" fn(
        *const CacheHandle,
        *const CellsC,
        i32,
        c_int,
        *const StateIo,
        *mut c_char,
        usize,
    ) -> c_int,
    pub state_open: unsafe extern "C" fn(*mut CacheHandle, *const StateIo, *mut u32, *mut c_char, usize) -> c_int,
    pub state_place: unsafe extern "C" fn(*mut CacheHandle, *const CellsC, *mut u32) -> c_int,
    pub state_plan: unsafe extern "C" fn(
        *mut CacheHandle,
        *const CellsC,
        *mut *const BlockOp,
        *mut u32,
        *mut c_char,
        usize,
    ) -> c_int,
    pub state_restore: unsafe extern "C" fn(*mut CacheHandle, *const StateIo, *mut c_char, usize) -> c_int,
    pub describe: unsafe extern "C" fn(*const CacheHandle, *const CellsC, *mut c_char, usize) -> usize,
    pub op_store: unsafe extern "C" fn(*const OpStore, c_int, c_int) -> c_int,
    pub op_shrink: unsafe extern "C" fn(*const OpShrink, c_int, c_int) -> c_int,
    pub op_attn: unsafe extern "C" fn(*const OpAttn, c_int, c_int) -> c_int,
    pub op_merge: unsafe extern "C" fn(*const OpMerge, c_int, c_int) -> c_int,
    pub op_load: unsafe extern "C" fn(*const OpLoad, c_int, c_int) -> c_int,
    pub op_transform: unsafe extern "C" fn(*const OpTransform, c_int, c_int) -> c_int,
}
