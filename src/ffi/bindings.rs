// Generated from the patched llama.h by pmkvq-bindings; do not edit.

/// If Bindgen could only determine the size and alignment of a
/// type, it is represented like this.
#[derive(PartialEq, Copy, Clone, Debug, Hash)]
#[repr(C)]
pub struct __BindgenOpaqueArray<T: Copy, const N: usize>(pub [T; N]);
impl<T: Copy + Default, const N: usize> Default for __BindgenOpaqueArray<T, N> {
    fn default() -> Self {
        Self([<T as Default>::default(); N])
    }
}
pub const LLAMA_DEFAULT_SEED: u32 = 4294967295;
pub const LLAMA_TOKEN_NULL: i32 = -1;
pub const LLAMA_FILE_MAGIC_GGLA: u32 = 1734831201;
pub const LLAMA_FILE_MAGIC_GGSN: u32 = 1734833006;
pub const LLAMA_FILE_MAGIC_GGSQ: u32 = 1734833009;
pub const LLAMA_SESSION_MAGIC: u32 = 1734833006;
pub const LLAMA_SESSION_VERSION: u32 = 10;
pub const LLAMA_STATE_SEQ_MAGIC: u32 = 1734833009;
pub const LLAMA_STATE_SEQ_VERSION: u32 = 3;
pub const LLAMA_STATE_SEQ_FLAGS_NONE: u32 = 0;
pub const LLAMA_STATE_SEQ_FLAGS_SWA_ONLY: u32 = 1;
pub const LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: u32 = 1;
pub const LLAMA_STATE_SEQ_FLAGS_ON_DEVICE: u32 = 2;
pub type FILE = __BindgenOpaqueArray<u64, 27usize>;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_context {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_cgraph {
    _unused: [u8; 0],
}
pub const GGML_TYPE_F32: ggml_type = 0;
pub const GGML_TYPE_F16: ggml_type = 1;
pub const GGML_TYPE_Q4_0: ggml_type = 2;
pub const GGML_TYPE_Q4_1: ggml_type = 3;
pub const GGML_TYPE_Q5_0: ggml_type = 6;
pub const GGML_TYPE_Q5_1: ggml_type = 7;
pub const GGML_TYPE_Q8_0: ggml_type = 8;
pub const GGML_TYPE_Q8_1: ggml_type = 9;
pub const GGML_TYPE_Q2_K: ggml_type = 10;
pub const GGML_TYPE_Q3_K: ggml_type = 11;
pub const GGML_TYPE_Q4_K: ggml_type = 12;
pub const GGML_TYPE_Q5_K: ggml_type = 13;
pub const GGML_TYPE_Q6_K: ggml_type = 14;
pub const GGML_TYPE_Q8_K: ggml_type = 15;
pub const GGML_TYPE_IQ2_XXS: ggml_type = 16;
pub const GGML_TYPE_IQ2_XS: ggml_type = 17;
pub const GGML_TYPE_IQ3_XXS: ggml_type = 18;
pub const GGML_TYPE_IQ1_S: ggml_type = 19;
pub const GGML_TYPE_IQ4_NL: ggml_type = 20;
pub const GGML_TYPE_IQ3_S: ggml_type = 21;
pub const GGML_TYPE_IQ2_S: ggml_type = 22;
pub const GGML_TYPE_IQ4_XS: ggml_type = 23;
pub const GGML_TYPE_I8: ggml_type = 24;
pub const GGML_TYPE_I16: ggml_type = 25;
pub const GGML_TYPE_I32: ggml_type = 26;
pub const GGML_TYPE_I64: ggml_type = 27;
pub const GGML_TYPE_F64: ggml_type = 28;
pub const GGML_TYPE_IQ1_M: ggml_type = 29;
pub const GGML_TYPE_BF16: ggml_type = 30;
pub const GGML_TYPE_TQ1_0: ggml_type = 34;
pub const GGML_TYPE_TQ2_0: ggml_type = 35;
pub const GGML_TYPE_MXFP4: ggml_type = 39;
pub const GGML_TYPE_NVFP4: ggml_type = 40;
pub const GGML_TYPE_Q1_0: ggml_type = 41;
pub const GGML_TYPE_Q2_0: ggml_type = 42;
pub const GGML_TYPE_COUNT: ggml_type = 43;
pub type ggml_type = ::core::ffi::c_uint;
pub const GGML_OP_NONE: ggml_op = 0;
pub const GGML_OP_DUP: ggml_op = 1;
pub const GGML_OP_ADD: ggml_op = 2;
pub const GGML_OP_ADD_ID: ggml_op = 3;
pub const GGML_OP_ADD1: ggml_op = 4;
pub const GGML_OP_ACC: ggml_op = 5;
pub const GGML_OP_SUB: ggml_op = 6;
pub const GGML_OP_MUL: ggml_op = 7;
pub const GGML_OP_DIV: ggml_op = 8;
pub const GGML_OP_SQR: ggml_op = 9;
pub const GGML_OP_SQRT: ggml_op = 10;
pub const GGML_OP_LOG: ggml_op = 11;
pub const GGML_OP_SIN: ggml_op = 12;
pub const GGML_OP_COS: ggml_op = 13;
pub const GGML_OP_SUM: ggml_op = 14;
pub const GGML_OP_SUM_ROWS: ggml_op = 15;
pub const GGML_OP_CUMSUM: ggml_op = 16;
pub const GGML_OP_MEAN: ggml_op = 17;
pub const GGML_OP_ARGMAX: ggml_op = 18;
pub const GGML_OP_COUNT_EQUAL: ggml_op = 19;
pub const GGML_OP_REPEAT: ggml_op = 20;
pub const GGML_OP_REPEAT_BACK: ggml_op = 21;
pub const GGML_OP_CONCAT: ggml_op = 22;
pub const GGML_OP_SILU_BACK: ggml_op = 23;
pub const GGML_OP_NORM: ggml_op = 24;
pub const GGML_OP_RMS_NORM: ggml_op = 25;
pub const GGML_OP_RMS_NORM_BACK: ggml_op = 26;
pub const GGML_OP_GROUP_NORM: ggml_op = 27;
pub const GGML_OP_L2_NORM: ggml_op = 28;
pub const GGML_OP_MUL_MAT: ggml_op = 29;
pub const GGML_OP_MUL_MAT_ID: ggml_op = 30;
pub const GGML_OP_OUT_PROD: ggml_op = 31;
pub const GGML_OP_SCALE: ggml_op = 32;
pub const GGML_OP_SET: ggml_op = 33;
pub const GGML_OP_CPY: ggml_op = 34;
pub const GGML_OP_CONT: ggml_op = 35;
pub const GGML_OP_RESHAPE: ggml_op = 36;
pub const GGML_OP_VIEW: ggml_op = 37;
pub const GGML_OP_PERMUTE: ggml_op = 38;
pub const GGML_OP_TRANSPOSE: ggml_op = 39;
pub const GGML_OP_GET_ROWS: ggml_op = 40;
pub const GGML_OP_GET_ROWS_BACK: ggml_op = 41;
pub const GGML_OP_SET_ROWS: ggml_op = 42;
pub const GGML_OP_DIAG: ggml_op = 43;
pub const GGML_OP_DIAG_MASK_INF: ggml_op = 44;
pub const GGML_OP_DIAG_MASK_ZERO: ggml_op = 45;
pub const GGML_OP_SOFT_MAX: ggml_op = 46;
pub const GGML_OP_SOFT_MAX_BACK: ggml_op = 47;
pub const GGML_OP_ROPE: ggml_op = 48;
pub const GGML_OP_ROPE_BACK: ggml_op = 49;
pub const GGML_OP_CLAMP: ggml_op = 50;
pub const GGML_OP_CONV_TRANSPOSE_1D: ggml_op = 51;
pub const GGML_OP_IM2COL: ggml_op = 52;
pub const GGML_OP_IM2COL_BACK: ggml_op = 53;
pub const GGML_OP_IM2COL_3D: ggml_op = 54;
pub const GGML_OP_COL2IM_1D: ggml_op = 55;
pub const GGML_OP_CONV_2D: ggml_op = 56;
pub const GGML_OP_CONV_3D: ggml_op = 57;
pub const GGML_OP_CONV_2D_DW: ggml_op = 58;
pub const GGML_OP_CONV_TRANSPOSE_2D: ggml_op = 59;
pub const GGML_OP_POOL_1D: ggml_op = 60;
pub const GGML_OP_POOL_2D: ggml_op = 61;
pub const GGML_OP_POOL_2D_BACK: ggml_op = 62;
pub const GGML_OP_UPSCALE: ggml_op = 63;
pub const GGML_OP_PAD: ggml_op = 64;
pub const GGML_OP_PAD_REFLECT_1D: ggml_op = 65;
pub const GGML_OP_ROLL: ggml_op = 66;
pub const GGML_OP_ARANGE: ggml_op = 67;
pub const GGML_OP_TIMESTEP_EMBEDDING: ggml_op = 68;
pub const GGML_OP_ARGSORT: ggml_op = 69;
pub const GGML_OP_TOP_K: ggml_op = 70;
pub const GGML_OP_LEAKY_RELU: ggml_op = 71;
pub const GGML_OP_TRI: ggml_op = 72;
pub const GGML_OP_FILL: ggml_op = 73;
pub const GGML_OP_FLASH_ATTN_EXT: ggml_op = 74;
pub const GGML_OP_FLASH_ATTN_BACK: ggml_op = 75;
pub const GGML_OP_SSM_CONV: ggml_op = 76;
pub const GGML_OP_SSM_SCAN: ggml_op = 77;
pub const GGML_OP_WIN_PART: ggml_op = 78;
pub const GGML_OP_WIN_UNPART: ggml_op = 79;
pub const GGML_OP_GET_REL_POS: ggml_op = 80;
pub const GGML_OP_ADD_REL_POS: ggml_op = 81;
pub const GGML_OP_RWKV_WKV6: ggml_op = 82;
pub const GGML_OP_GATED_LINEAR_ATTN: ggml_op = 83;
pub const GGML_OP_RWKV_WKV7: ggml_op = 84;
pub const GGML_OP_SOLVE_TRI: ggml_op = 85;
pub const GGML_OP_GATED_DELTA_NET: ggml_op = 86;
pub const GGML_OP_LIGHTNING_INDEXER: ggml_op = 87;
pub const GGML_OP_DSV4_HC_COMB: ggml_op = 88;
pub const GGML_OP_DSV4_HC_PRE: ggml_op = 89;
pub const GGML_OP_DSV4_HC_POST: ggml_op = 90;
pub const GGML_OP_UNARY: ggml_op = 91;
pub const GGML_OP_MAP_CUSTOM1: ggml_op = 92;
pub const GGML_OP_MAP_CUSTOM2: ggml_op = 93;
pub const GGML_OP_MAP_CUSTOM3: ggml_op = 94;
pub const GGML_OP_CUSTOM: ggml_op = 95;
pub const GGML_OP_CROSS_ENTROPY_LOSS: ggml_op = 96;
pub const GGML_OP_CROSS_ENTROPY_LOSS_BACK: ggml_op = 97;
pub const GGML_OP_OPT_STEP_ADAMW: ggml_op = 98;
pub const GGML_OP_OPT_STEP_SGD: ggml_op = 99;
pub const GGML_OP_GLU: ggml_op = 100;
pub const GGML_OP_COUNT: ggml_op = 101;
pub type ggml_op = ::core::ffi::c_uint;
pub const GGML_LOG_LEVEL_NONE: ggml_log_level = 0;
pub const GGML_LOG_LEVEL_DEBUG: ggml_log_level = 1;
pub const GGML_LOG_LEVEL_INFO: ggml_log_level = 2;
pub const GGML_LOG_LEVEL_WARN: ggml_log_level = 3;
pub const GGML_LOG_LEVEL_ERROR: ggml_log_level = 4;
pub const GGML_LOG_LEVEL_CONT: ggml_log_level = 5;
pub type ggml_log_level = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_tensor {
    pub type_: ggml_type,
    pub buffer: *mut ggml_backend_buffer,
    pub ne: [i64; 4usize],
    pub nb: [usize; 4usize],
    pub op: ggml_op,
    pub op_params: [i32; 16usize],
    pub flags: i32,
    pub src: [*mut ggml_tensor; 10usize],
    pub view_src: *mut ggml_tensor,
    pub view_offs: usize,
    pub data: *mut ::core::ffi::c_void,
    pub name: [::core::ffi::c_char; 64usize],
    pub extra: *mut ::core::ffi::c_void,
    pub padding: [::core::ffi::c_char; 8usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ggml_tensor"][::core::mem::size_of::<ggml_tensor>() - 336usize];
    ["Alignment of ggml_tensor"][::core::mem::align_of::<ggml_tensor>() - 8usize];
    [
        "Offset of field: ggml_tensor::type_",
    ][::core::mem::offset_of!(ggml_tensor, type_) - 0usize];
    [
        "Offset of field: ggml_tensor::buffer",
    ][::core::mem::offset_of!(ggml_tensor, buffer) - 8usize];
    [
        "Offset of field: ggml_tensor::ne",
    ][::core::mem::offset_of!(ggml_tensor, ne) - 16usize];
    [
        "Offset of field: ggml_tensor::nb",
    ][::core::mem::offset_of!(ggml_tensor, nb) - 48usize];
    [
        "Offset of field: ggml_tensor::op",
    ][::core::mem::offset_of!(ggml_tensor, op) - 80usize];
    [
        "Offset of field: ggml_tensor::op_params",
    ][::core::mem::offset_of!(ggml_tensor, op_params) - 84usize];
    [
        "Offset of field: ggml_tensor::flags",
    ][::core::mem::offset_of!(ggml_tensor, flags) - 148usize];
    [
        "Offset of field: ggml_tensor::src",
    ][::core::mem::offset_of!(ggml_tensor, src) - 152usize];
    [
        "Offset of field: ggml_tensor::view_src",
    ][::core::mem::offset_of!(ggml_tensor, view_src) - 232usize];
    [
        "Offset of field: ggml_tensor::view_offs",
    ][::core::mem::offset_of!(ggml_tensor, view_offs) - 240usize];
    [
        "Offset of field: ggml_tensor::data",
    ][::core::mem::offset_of!(ggml_tensor, data) - 248usize];
    [
        "Offset of field: ggml_tensor::name",
    ][::core::mem::offset_of!(ggml_tensor, name) - 256usize];
    [
        "Offset of field: ggml_tensor::extra",
    ][::core::mem::offset_of!(ggml_tensor, extra) - 320usize];
    [
        "Offset of field: ggml_tensor::padding",
    ][::core::mem::offset_of!(ggml_tensor, padding) - 328usize];
};
pub type ggml_abort_callback = ::core::option::Option<
    unsafe extern "C" fn(data: *mut ::core::ffi::c_void) -> bool,
>;
pub type ggml_log_callback = ::core::option::Option<
    unsafe extern "C" fn(
        level: ggml_log_level,
        text: *const ::core::ffi::c_char,
        user_data: *mut ::core::ffi::c_void,
    ),
>;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_threadpool {
    _unused: [u8; 0],
}
pub type ggml_threadpool_t = *mut ggml_threadpool;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_backend_buffer_type {
    _unused: [u8; 0],
}
pub type ggml_backend_buffer_type_t = *mut ggml_backend_buffer_type;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_backend_device {
    _unused: [u8; 0],
}
pub type ggml_backend_dev_t = *mut ggml_backend_device;
pub type ggml_backend_sched_eval_callback = ::core::option::Option<
    unsafe extern "C" fn(
        t: *mut ggml_tensor,
        ask: bool,
        user_data: *mut ::core::ffi::c_void,
    ) -> bool,
>;
pub const GGML_NUMA_STRATEGY_DISABLED: ggml_numa_strategy = 0;
pub const GGML_NUMA_STRATEGY_DISTRIBUTE: ggml_numa_strategy = 1;
pub const GGML_NUMA_STRATEGY_ISOLATE: ggml_numa_strategy = 2;
pub const GGML_NUMA_STRATEGY_NUMACTL: ggml_numa_strategy = 3;
pub const GGML_NUMA_STRATEGY_MIRROR: ggml_numa_strategy = 4;
pub const GGML_NUMA_STRATEGY_COUNT: ggml_numa_strategy = 5;
pub type ggml_numa_strategy = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_opt_dataset {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_opt_context {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_opt_result {
    _unused: [u8; 0],
}
pub type ggml_opt_dataset_t = *mut ggml_opt_dataset;
pub type ggml_opt_context_t = *mut ggml_opt_context;
pub type ggml_opt_result_t = *mut ggml_opt_result;
pub const GGML_OPT_OPTIMIZER_TYPE_ADAMW: ggml_opt_optimizer_type = 0;
pub const GGML_OPT_OPTIMIZER_TYPE_SGD: ggml_opt_optimizer_type = 1;
pub const GGML_OPT_OPTIMIZER_TYPE_COUNT: ggml_opt_optimizer_type = 2;
pub type ggml_opt_optimizer_type = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_opt_optimizer_params {
    pub adamw: ggml_opt_optimizer_params__bindgen_ty_1,
    pub sgd: ggml_opt_optimizer_params__bindgen_ty_2,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_opt_optimizer_params__bindgen_ty_1 {
    pub alpha: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub wd: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of ggml_opt_optimizer_params__bindgen_ty_1",
    ][::core::mem::size_of::<ggml_opt_optimizer_params__bindgen_ty_1>() - 20usize];
    [
        "Alignment of ggml_opt_optimizer_params__bindgen_ty_1",
    ][::core::mem::align_of::<ggml_opt_optimizer_params__bindgen_ty_1>() - 4usize];
    [
        "Offset of field: ggml_opt_optimizer_params__bindgen_ty_1::alpha",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params__bindgen_ty_1, alpha) - 0usize];
    [
        "Offset of field: ggml_opt_optimizer_params__bindgen_ty_1::beta1",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params__bindgen_ty_1, beta1) - 4usize];
    [
        "Offset of field: ggml_opt_optimizer_params__bindgen_ty_1::beta2",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params__bindgen_ty_1, beta2) - 8usize];
    [
        "Offset of field: ggml_opt_optimizer_params__bindgen_ty_1::eps",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params__bindgen_ty_1, eps) - 12usize];
    [
        "Offset of field: ggml_opt_optimizer_params__bindgen_ty_1::wd",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params__bindgen_ty_1, wd) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_opt_optimizer_params__bindgen_ty_2 {
    pub alpha: f32,
    pub wd: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of ggml_opt_optimizer_params__bindgen_ty_2",
    ][::core::mem::size_of::<ggml_opt_optimizer_params__bindgen_ty_2>() - 8usize];
    [
        "Alignment of ggml_opt_optimizer_params__bindgen_ty_2",
    ][::core::mem::align_of::<ggml_opt_optimizer_params__bindgen_ty_2>() - 4usize];
    [
        "Offset of field: ggml_opt_optimizer_params__bindgen_ty_2::alpha",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params__bindgen_ty_2, alpha) - 0usize];
    [
        "Offset of field: ggml_opt_optimizer_params__bindgen_ty_2::wd",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params__bindgen_ty_2, wd) - 4usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of ggml_opt_optimizer_params",
    ][::core::mem::size_of::<ggml_opt_optimizer_params>() - 28usize];
    [
        "Alignment of ggml_opt_optimizer_params",
    ][::core::mem::align_of::<ggml_opt_optimizer_params>() - 4usize];
    [
        "Offset of field: ggml_opt_optimizer_params::adamw",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params, adamw) - 0usize];
    [
        "Offset of field: ggml_opt_optimizer_params::sgd",
    ][::core::mem::offset_of!(ggml_opt_optimizer_params, sgd) - 20usize];
};
pub type ggml_opt_get_optimizer_params = ::core::option::Option<
    unsafe extern "C" fn(userdata: *mut ::core::ffi::c_void) -> ggml_opt_optimizer_params,
>;
pub type ggml_opt_epoch_callback = ::core::option::Option<
    unsafe extern "C" fn(
        train: bool,
        opt_ctx: ggml_opt_context_t,
        dataset: ggml_opt_dataset_t,
        result: ggml_opt_result_t,
        ibatch: i64,
        ibatch_max: i64,
        t_start_us: i64,
    ),
>;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gguf_context {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_vocab {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_model {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_context {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_memory_i {
    _unused: [u8; 0],
}
pub type llama_memory_t = *mut llama_memory_i;
pub type llama_pos = i32;
pub type llama_token = i32;
pub type llama_seq_id = i32;
pub const LLAMA_VOCAB_TYPE_NONE: llama_vocab_type = 0;
pub const LLAMA_VOCAB_TYPE_SPM: llama_vocab_type = 1;
pub const LLAMA_VOCAB_TYPE_BPE: llama_vocab_type = 2;
pub const LLAMA_VOCAB_TYPE_WPM: llama_vocab_type = 3;
pub const LLAMA_VOCAB_TYPE_UGM: llama_vocab_type = 4;
pub const LLAMA_VOCAB_TYPE_RWKV: llama_vocab_type = 5;
pub const LLAMA_VOCAB_TYPE_PLAMO2: llama_vocab_type = 6;
pub const LLAMA_VOCAB_TYPE_TEST: llama_vocab_type = 7;
pub type llama_vocab_type = ::core::ffi::c_uint;
pub const LLAMA_ROPE_TYPE_NONE: llama_rope_type = -1;
pub const LLAMA_ROPE_TYPE_NORM: llama_rope_type = 0;
pub const LLAMA_ROPE_TYPE_NEOX: llama_rope_type = 2;
pub const LLAMA_ROPE_TYPE_MROPE: llama_rope_type = 8;
pub const LLAMA_ROPE_TYPE_IMROPE: llama_rope_type = 40;
pub const LLAMA_ROPE_TYPE_VISION: llama_rope_type = 24;
pub type llama_rope_type = ::core::ffi::c_int;
pub const LLAMA_TOKEN_TYPE_UNDEFINED: llama_token_type = 0;
pub const LLAMA_TOKEN_TYPE_NORMAL: llama_token_type = 1;
pub const LLAMA_TOKEN_TYPE_UNKNOWN: llama_token_type = 2;
pub const LLAMA_TOKEN_TYPE_CONTROL: llama_token_type = 3;
pub const LLAMA_TOKEN_TYPE_USER_DEFINED: llama_token_type = 4;
pub const LLAMA_TOKEN_TYPE_UNUSED: llama_token_type = 5;
pub const LLAMA_TOKEN_TYPE_BYTE: llama_token_type = 6;
pub type llama_token_type = ::core::ffi::c_uint;
pub const LLAMA_TOKEN_ATTR_UNDEFINED: llama_token_attr = 0;
pub const LLAMA_TOKEN_ATTR_UNKNOWN: llama_token_attr = 1;
pub const LLAMA_TOKEN_ATTR_UNUSED: llama_token_attr = 2;
pub const LLAMA_TOKEN_ATTR_NORMAL: llama_token_attr = 4;
pub const LLAMA_TOKEN_ATTR_CONTROL: llama_token_attr = 8;
pub const LLAMA_TOKEN_ATTR_USER_DEFINED: llama_token_attr = 16;
pub const LLAMA_TOKEN_ATTR_BYTE: llama_token_attr = 32;
pub const LLAMA_TOKEN_ATTR_NORMALIZED: llama_token_attr = 64;
pub const LLAMA_TOKEN_ATTR_LSTRIP: llama_token_attr = 128;
pub const LLAMA_TOKEN_ATTR_RSTRIP: llama_token_attr = 256;
pub const LLAMA_TOKEN_ATTR_SINGLE_WORD: llama_token_attr = 512;
pub type llama_token_attr = ::core::ffi::c_uint;
pub const LLAMA_FTYPE_ALL_F32: llama_ftype = 0;
pub const LLAMA_FTYPE_MOSTLY_F16: llama_ftype = 1;
pub const LLAMA_FTYPE_MOSTLY_Q4_0: llama_ftype = 2;
pub const LLAMA_FTYPE_MOSTLY_Q4_1: llama_ftype = 3;
pub const LLAMA_FTYPE_MOSTLY_Q8_0: llama_ftype = 7;
pub const LLAMA_FTYPE_MOSTLY_Q5_0: llama_ftype = 8;
pub const LLAMA_FTYPE_MOSTLY_Q5_1: llama_ftype = 9;
pub const LLAMA_FTYPE_MOSTLY_Q2_K: llama_ftype = 10;
pub const LLAMA_FTYPE_MOSTLY_Q3_K_S: llama_ftype = 11;
pub const LLAMA_FTYPE_MOSTLY_Q3_K_M: llama_ftype = 12;
pub const LLAMA_FTYPE_MOSTLY_Q3_K_L: llama_ftype = 13;
pub const LLAMA_FTYPE_MOSTLY_Q4_K_S: llama_ftype = 14;
pub const LLAMA_FTYPE_MOSTLY_Q4_K_M: llama_ftype = 15;
pub const LLAMA_FTYPE_MOSTLY_Q5_K_S: llama_ftype = 16;
pub const LLAMA_FTYPE_MOSTLY_Q5_K_M: llama_ftype = 17;
pub const LLAMA_FTYPE_MOSTLY_Q6_K: llama_ftype = 18;
pub const LLAMA_FTYPE_MOSTLY_IQ2_XXS: llama_ftype = 19;
pub const LLAMA_FTYPE_MOSTLY_IQ2_XS: llama_ftype = 20;
pub const LLAMA_FTYPE_MOSTLY_Q2_K_S: llama_ftype = 21;
pub const LLAMA_FTYPE_MOSTLY_IQ3_XS: llama_ftype = 22;
pub const LLAMA_FTYPE_MOSTLY_IQ3_XXS: llama_ftype = 23;
pub const LLAMA_FTYPE_MOSTLY_IQ1_S: llama_ftype = 24;
pub const LLAMA_FTYPE_MOSTLY_IQ4_NL: llama_ftype = 25;
pub const LLAMA_FTYPE_MOSTLY_IQ3_S: llama_ftype = 26;
pub const LLAMA_FTYPE_MOSTLY_IQ3_M: llama_ftype = 27;
pub const LLAMA_FTYPE_MOSTLY_IQ2_S: llama_ftype = 28;
pub const LLAMA_FTYPE_MOSTLY_IQ2_M: llama_ftype = 29;
pub const LLAMA_FTYPE_MOSTLY_IQ4_XS: llama_ftype = 30;
pub const LLAMA_FTYPE_MOSTLY_IQ1_M: llama_ftype = 31;
pub const LLAMA_FTYPE_MOSTLY_BF16: llama_ftype = 32;
pub const LLAMA_FTYPE_MOSTLY_TQ1_0: llama_ftype = 36;
pub const LLAMA_FTYPE_MOSTLY_TQ2_0: llama_ftype = 37;
pub const LLAMA_FTYPE_MOSTLY_MXFP4_MOE: llama_ftype = 38;
pub const LLAMA_FTYPE_MOSTLY_NVFP4: llama_ftype = 39;
pub const LLAMA_FTYPE_MOSTLY_Q1_0: llama_ftype = 40;
pub const LLAMA_FTYPE_MOSTLY_Q2_0: llama_ftype = 41;
pub const LLAMA_FTYPE_GUESSED: llama_ftype = 1024;
pub type llama_ftype = ::core::ffi::c_uint;
unsafe extern "C" {
    pub fn llama_ftype_name(ftype: llama_ftype) -> *const ::core::ffi::c_char;
}
pub const LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED: llama_rope_scaling_type = -1;
pub const LLAMA_ROPE_SCALING_TYPE_NONE: llama_rope_scaling_type = 0;
pub const LLAMA_ROPE_SCALING_TYPE_LINEAR: llama_rope_scaling_type = 1;
pub const LLAMA_ROPE_SCALING_TYPE_YARN: llama_rope_scaling_type = 2;
pub const LLAMA_ROPE_SCALING_TYPE_LONGROPE: llama_rope_scaling_type = 3;
pub const LLAMA_ROPE_SCALING_TYPE_MAX_VALUE: llama_rope_scaling_type = 3;
pub type llama_rope_scaling_type = ::core::ffi::c_int;
pub const LLAMA_POOLING_TYPE_UNSPECIFIED: llama_pooling_type = -1;
pub const LLAMA_POOLING_TYPE_NONE: llama_pooling_type = 0;
pub const LLAMA_POOLING_TYPE_MEAN: llama_pooling_type = 1;
pub const LLAMA_POOLING_TYPE_CLS: llama_pooling_type = 2;
pub const LLAMA_POOLING_TYPE_LAST: llama_pooling_type = 3;
pub const LLAMA_POOLING_TYPE_RANK: llama_pooling_type = 4;
pub type llama_pooling_type = ::core::ffi::c_int;
pub const LLAMA_ATTENTION_TYPE_UNSPECIFIED: llama_attention_type = -1;
pub const LLAMA_ATTENTION_TYPE_CAUSAL: llama_attention_type = 0;
pub const LLAMA_ATTENTION_TYPE_NON_CAUSAL: llama_attention_type = 1;
pub type llama_attention_type = ::core::ffi::c_int;
pub const LLAMA_FLASH_ATTN_TYPE_AUTO: llama_flash_attn_type = -1;
pub const LLAMA_FLASH_ATTN_TYPE_DISABLED: llama_flash_attn_type = 0;
pub const LLAMA_FLASH_ATTN_TYPE_ENABLED: llama_flash_attn_type = 1;
pub type llama_flash_attn_type = ::core::ffi::c_int;
unsafe extern "C" {
    pub fn llama_flash_attn_type_name(
        flash_attn_type: llama_flash_attn_type,
    ) -> *const ::core::ffi::c_char;
}
pub const LLAMA_SPLIT_MODE_NONE: llama_split_mode = 0;
pub const LLAMA_SPLIT_MODE_LAYER: llama_split_mode = 1;
pub const LLAMA_SPLIT_MODE_ROW: llama_split_mode = 2;
pub const LLAMA_SPLIT_MODE_TENSOR: llama_split_mode = 3;
pub type llama_split_mode = ::core::ffi::c_uint;
pub const LLAMA_LOAD_MODE_AUTO: llama_load_mode = -1;
pub const LLAMA_LOAD_MODE_NONE: llama_load_mode = 0;
pub const LLAMA_LOAD_MODE_MMAP: llama_load_mode = 1;
pub const LLAMA_LOAD_MODE_MLOCK: llama_load_mode = 2;
pub const LLAMA_LOAD_MODE_MMAP_MLOCK: llama_load_mode = 3;
pub const LLAMA_LOAD_MODE_DIRECT_IO: llama_load_mode = 4;
pub type llama_load_mode = ::core::ffi::c_int;
unsafe extern "C" {
    pub fn llama_load_mode_name(
        load_mode: llama_load_mode,
    ) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_load_mode_from_str(str_: *const ::core::ffi::c_char) -> llama_load_mode;
}
pub const LLAMA_LAZY_MODE_OFF: llama_lazy_mode = 0;
pub const LLAMA_LAZY_MODE_AUTO: llama_lazy_mode = 1;
pub const LLAMA_LAZY_MODE_ON: llama_lazy_mode = 2;
pub type llama_lazy_mode = ::core::ffi::c_uint;
pub const LLAMA_CONTEXT_TYPE_DEFAULT: llama_context_type = 0;
pub const LLAMA_CONTEXT_TYPE_MTP: llama_context_type = 1;
pub type llama_context_type = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_token_data {
    pub id: llama_token,
    pub logit: f32,
    pub p: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of llama_token_data"][::core::mem::size_of::<llama_token_data>() - 12usize];
    [
        "Alignment of llama_token_data",
    ][::core::mem::align_of::<llama_token_data>() - 4usize];
    [
        "Offset of field: llama_token_data::id",
    ][::core::mem::offset_of!(llama_token_data, id) - 0usize];
    [
        "Offset of field: llama_token_data::logit",
    ][::core::mem::offset_of!(llama_token_data, logit) - 4usize];
    [
        "Offset of field: llama_token_data::p",
    ][::core::mem::offset_of!(llama_token_data, p) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_token_data_array {
    pub data: *mut llama_token_data,
    pub size: usize,
    pub selected: i64,
    pub sorted: bool,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_token_data_array",
    ][::core::mem::size_of::<llama_token_data_array>() - 32usize];
    [
        "Alignment of llama_token_data_array",
    ][::core::mem::align_of::<llama_token_data_array>() - 8usize];
    [
        "Offset of field: llama_token_data_array::data",
    ][::core::mem::offset_of!(llama_token_data_array, data) - 0usize];
    [
        "Offset of field: llama_token_data_array::size",
    ][::core::mem::offset_of!(llama_token_data_array, size) - 8usize];
    [
        "Offset of field: llama_token_data_array::selected",
    ][::core::mem::offset_of!(llama_token_data_array, selected) - 16usize];
    [
        "Offset of field: llama_token_data_array::sorted",
    ][::core::mem::offset_of!(llama_token_data_array, sorted) - 24usize];
};
pub type llama_progress_callback = ::core::option::Option<
    unsafe extern "C" fn(progress: f32, user_data: *mut ::core::ffi::c_void) -> bool,
>;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_batch {
    pub n_tokens: i32,
    pub token: *mut llama_token,
    pub embd: *mut f32,
    pub pos: *mut llama_pos,
    pub n_seq_id: *mut i32,
    pub seq_id: *mut *mut llama_seq_id,
    pub logits: *mut i8,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of llama_batch"][::core::mem::size_of::<llama_batch>() - 56usize];
    ["Alignment of llama_batch"][::core::mem::align_of::<llama_batch>() - 8usize];
    [
        "Offset of field: llama_batch::n_tokens",
    ][::core::mem::offset_of!(llama_batch, n_tokens) - 0usize];
    [
        "Offset of field: llama_batch::token",
    ][::core::mem::offset_of!(llama_batch, token) - 8usize];
    [
        "Offset of field: llama_batch::embd",
    ][::core::mem::offset_of!(llama_batch, embd) - 16usize];
    [
        "Offset of field: llama_batch::pos",
    ][::core::mem::offset_of!(llama_batch, pos) - 24usize];
    [
        "Offset of field: llama_batch::n_seq_id",
    ][::core::mem::offset_of!(llama_batch, n_seq_id) - 32usize];
    [
        "Offset of field: llama_batch::seq_id",
    ][::core::mem::offset_of!(llama_batch, seq_id) - 40usize];
    [
        "Offset of field: llama_batch::logits",
    ][::core::mem::offset_of!(llama_batch, logits) - 48usize];
};
pub const LLAMA_KV_OVERRIDE_TYPE_INT: llama_model_kv_override_type = 0;
pub const LLAMA_KV_OVERRIDE_TYPE_FLOAT: llama_model_kv_override_type = 1;
pub const LLAMA_KV_OVERRIDE_TYPE_BOOL: llama_model_kv_override_type = 2;
pub const LLAMA_KV_OVERRIDE_TYPE_STR: llama_model_kv_override_type = 3;
pub type llama_model_kv_override_type = ::core::ffi::c_uint;
pub const LLAMA_MODEL_META_KEY_SAMPLING_SEQUENCE: llama_model_meta_key = 0;
pub const LLAMA_MODEL_META_KEY_SAMPLING_TOP_K: llama_model_meta_key = 1;
pub const LLAMA_MODEL_META_KEY_SAMPLING_TOP_P: llama_model_meta_key = 2;
pub const LLAMA_MODEL_META_KEY_SAMPLING_MIN_P: llama_model_meta_key = 3;
pub const LLAMA_MODEL_META_KEY_SAMPLING_XTC_PROBABILITY: llama_model_meta_key = 4;
pub const LLAMA_MODEL_META_KEY_SAMPLING_XTC_THRESHOLD: llama_model_meta_key = 5;
pub const LLAMA_MODEL_META_KEY_SAMPLING_TEMP: llama_model_meta_key = 6;
pub const LLAMA_MODEL_META_KEY_SAMPLING_PENALTY_LAST_N: llama_model_meta_key = 7;
pub const LLAMA_MODEL_META_KEY_SAMPLING_PENALTY_REPEAT: llama_model_meta_key = 8;
pub const LLAMA_MODEL_META_KEY_SAMPLING_MIROSTAT: llama_model_meta_key = 9;
pub const LLAMA_MODEL_META_KEY_SAMPLING_MIROSTAT_TAU: llama_model_meta_key = 10;
pub const LLAMA_MODEL_META_KEY_SAMPLING_MIROSTAT_ETA: llama_model_meta_key = 11;
pub type llama_model_meta_key = ::core::ffi::c_uint;
pub const LLAMA_PROCESS_TYPE_ENCODE: llama_process_type = 0;
pub const LLAMA_PROCESS_TYPE_DECODE: llama_process_type = 1;
pub type llama_process_type = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct llama_model_kv_override {
    pub tag: llama_model_kv_override_type,
    pub key: [::core::ffi::c_char; 128usize],
    pub __bindgen_anon_1: llama_model_kv_override__bindgen_ty_1,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union llama_model_kv_override__bindgen_ty_1 {
    pub val_i64: i64,
    pub val_f64: f64,
    pub val_bool: bool,
    pub val_str: [::core::ffi::c_char; 128usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_model_kv_override__bindgen_ty_1",
    ][::core::mem::size_of::<llama_model_kv_override__bindgen_ty_1>() - 128usize];
    [
        "Alignment of llama_model_kv_override__bindgen_ty_1",
    ][::core::mem::align_of::<llama_model_kv_override__bindgen_ty_1>() - 8usize];
    [
        "Offset of field: llama_model_kv_override__bindgen_ty_1::val_i64",
    ][::core::mem::offset_of!(llama_model_kv_override__bindgen_ty_1, val_i64) - 0usize];
    [
        "Offset of field: llama_model_kv_override__bindgen_ty_1::val_f64",
    ][::core::mem::offset_of!(llama_model_kv_override__bindgen_ty_1, val_f64) - 0usize];
    [
        "Offset of field: llama_model_kv_override__bindgen_ty_1::val_bool",
    ][::core::mem::offset_of!(llama_model_kv_override__bindgen_ty_1, val_bool) - 0usize];
    [
        "Offset of field: llama_model_kv_override__bindgen_ty_1::val_str",
    ][::core::mem::offset_of!(llama_model_kv_override__bindgen_ty_1, val_str) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_model_kv_override",
    ][::core::mem::size_of::<llama_model_kv_override>() - 264usize];
    [
        "Alignment of llama_model_kv_override",
    ][::core::mem::align_of::<llama_model_kv_override>() - 8usize];
    [
        "Offset of field: llama_model_kv_override::tag",
    ][::core::mem::offset_of!(llama_model_kv_override, tag) - 0usize];
    [
        "Offset of field: llama_model_kv_override::key",
    ][::core::mem::offset_of!(llama_model_kv_override, key) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_model_tensor_buft_override {
    pub pattern: *const ::core::ffi::c_char,
    pub buft: ggml_backend_buffer_type_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_model_tensor_buft_override",
    ][::core::mem::size_of::<llama_model_tensor_buft_override>() - 16usize];
    [
        "Alignment of llama_model_tensor_buft_override",
    ][::core::mem::align_of::<llama_model_tensor_buft_override>() - 8usize];
    [
        "Offset of field: llama_model_tensor_buft_override::pattern",
    ][::core::mem::offset_of!(llama_model_tensor_buft_override, pattern) - 0usize];
    [
        "Offset of field: llama_model_tensor_buft_override::buft",
    ][::core::mem::offset_of!(llama_model_tensor_buft_override, buft) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_model_params {
    pub devices: *mut ggml_backend_dev_t,
    pub tensor_buft_overrides: *const llama_model_tensor_buft_override,
    pub n_gpu_layers: i32,
    pub split_mode: llama_split_mode,
    pub load_mode: llama_load_mode,
    pub lazy_mode: llama_lazy_mode,
    pub main_gpu: i32,
    pub tensor_split: *const f32,
    pub progress_callback: llama_progress_callback,
    pub progress_callback_user_data: *mut ::core::ffi::c_void,
    pub kv_overrides: *const llama_model_kv_override,
    pub vocab_only: bool,
    pub check_tensors: bool,
    pub use_extra_bufts: bool,
    pub no_host: bool,
    pub no_alloc: bool,
    pub load_mtp: bool,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_model_params",
    ][::core::mem::size_of::<llama_model_params>() - 80usize];
    [
        "Alignment of llama_model_params",
    ][::core::mem::align_of::<llama_model_params>() - 8usize];
    [
        "Offset of field: llama_model_params::devices",
    ][::core::mem::offset_of!(llama_model_params, devices) - 0usize];
    [
        "Offset of field: llama_model_params::tensor_buft_overrides",
    ][::core::mem::offset_of!(llama_model_params, tensor_buft_overrides) - 8usize];
    [
        "Offset of field: llama_model_params::n_gpu_layers",
    ][::core::mem::offset_of!(llama_model_params, n_gpu_layers) - 16usize];
    [
        "Offset of field: llama_model_params::split_mode",
    ][::core::mem::offset_of!(llama_model_params, split_mode) - 20usize];
    [
        "Offset of field: llama_model_params::load_mode",
    ][::core::mem::offset_of!(llama_model_params, load_mode) - 24usize];
    [
        "Offset of field: llama_model_params::lazy_mode",
    ][::core::mem::offset_of!(llama_model_params, lazy_mode) - 28usize];
    [
        "Offset of field: llama_model_params::main_gpu",
    ][::core::mem::offset_of!(llama_model_params, main_gpu) - 32usize];
    [
        "Offset of field: llama_model_params::tensor_split",
    ][::core::mem::offset_of!(llama_model_params, tensor_split) - 40usize];
    [
        "Offset of field: llama_model_params::progress_callback",
    ][::core::mem::offset_of!(llama_model_params, progress_callback) - 48usize];
    [
        "Offset of field: llama_model_params::progress_callback_user_data",
    ][::core::mem::offset_of!(llama_model_params, progress_callback_user_data)
        - 56usize];
    [
        "Offset of field: llama_model_params::kv_overrides",
    ][::core::mem::offset_of!(llama_model_params, kv_overrides) - 64usize];
    [
        "Offset of field: llama_model_params::vocab_only",
    ][::core::mem::offset_of!(llama_model_params, vocab_only) - 72usize];
    [
        "Offset of field: llama_model_params::check_tensors",
    ][::core::mem::offset_of!(llama_model_params, check_tensors) - 73usize];
    [
        "Offset of field: llama_model_params::use_extra_bufts",
    ][::core::mem::offset_of!(llama_model_params, use_extra_bufts) - 74usize];
    [
        "Offset of field: llama_model_params::no_host",
    ][::core::mem::offset_of!(llama_model_params, no_host) - 75usize];
    [
        "Offset of field: llama_model_params::no_alloc",
    ][::core::mem::offset_of!(llama_model_params, no_alloc) - 76usize];
    [
        "Offset of field: llama_model_params::load_mtp",
    ][::core::mem::offset_of!(llama_model_params, load_mtp) - 77usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_sampler_seq_config {
    pub seq_id: llama_seq_id,
    pub sampler: *mut llama_sampler,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_sampler_seq_config",
    ][::core::mem::size_of::<llama_sampler_seq_config>() - 16usize];
    [
        "Alignment of llama_sampler_seq_config",
    ][::core::mem::align_of::<llama_sampler_seq_config>() - 8usize];
    [
        "Offset of field: llama_sampler_seq_config::seq_id",
    ][::core::mem::offset_of!(llama_sampler_seq_config, seq_id) - 0usize];
    [
        "Offset of field: llama_sampler_seq_config::sampler",
    ][::core::mem::offset_of!(llama_sampler_seq_config, sampler) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_context_params {
    pub n_ctx: u32,
    pub n_batch: u32,
    pub n_ubatch: u32,
    pub n_seq_max: u32,
    pub n_rs_seq: u32,
    pub n_outputs_max: u32,
    pub n_outputs_max_per_seq: u32,
    pub n_threads: i32,
    pub n_threads_batch: i32,
    pub ctx_type: llama_context_type,
    pub rope_scaling_type: llama_rope_scaling_type,
    pub pooling_type: llama_pooling_type,
    pub attention_type: llama_attention_type,
    pub flash_attn_type: llama_flash_attn_type,
    pub rope_freq_base: f32,
    pub rope_freq_scale: f32,
    pub yarn_ext_factor: f32,
    pub yarn_attn_factor: f32,
    pub yarn_beta_fast: f32,
    pub yarn_beta_slow: f32,
    pub yarn_orig_ctx: u32,
    pub defrag_thold: f32,
    pub cb_eval: ggml_backend_sched_eval_callback,
    pub cb_eval_user_data: *mut ::core::ffi::c_void,
    pub type_k: ggml_type,
    pub type_v: ggml_type,
    pub abort_callback: ggml_abort_callback,
    pub abort_callback_data: *mut ::core::ffi::c_void,
    pub embeddings: bool,
    pub offload_kqv: bool,
    pub no_perf: bool,
    pub op_offload: bool,
    pub swa_full: bool,
    pub kv_unified: bool,
    pub samplers: *mut llama_sampler_seq_config,
    pub n_samplers: usize,
    pub ctx_other: *mut llama_context,
    pub pmkvq_plan: *const ::core::ffi::c_char,
    pub pmkvq_budget: *const ::core::ffi::c_char,
    pub pmkvq_rule: *const ::core::ffi::c_char,
    pub pmkvq_pos_gaps: bool,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_context_params",
    ][::core::mem::size_of::<llama_context_params>() - 192usize];
    [
        "Alignment of llama_context_params",
    ][::core::mem::align_of::<llama_context_params>() - 8usize];
    [
        "Offset of field: llama_context_params::n_ctx",
    ][::core::mem::offset_of!(llama_context_params, n_ctx) - 0usize];
    [
        "Offset of field: llama_context_params::n_batch",
    ][::core::mem::offset_of!(llama_context_params, n_batch) - 4usize];
    [
        "Offset of field: llama_context_params::n_ubatch",
    ][::core::mem::offset_of!(llama_context_params, n_ubatch) - 8usize];
    [
        "Offset of field: llama_context_params::n_seq_max",
    ][::core::mem::offset_of!(llama_context_params, n_seq_max) - 12usize];
    [
        "Offset of field: llama_context_params::n_rs_seq",
    ][::core::mem::offset_of!(llama_context_params, n_rs_seq) - 16usize];
    [
        "Offset of field: llama_context_params::n_outputs_max",
    ][::core::mem::offset_of!(llama_context_params, n_outputs_max) - 20usize];
    [
        "Offset of field: llama_context_params::n_outputs_max_per_seq",
    ][::core::mem::offset_of!(llama_context_params, n_outputs_max_per_seq) - 24usize];
    [
        "Offset of field: llama_context_params::n_threads",
    ][::core::mem::offset_of!(llama_context_params, n_threads) - 28usize];
    [
        "Offset of field: llama_context_params::n_threads_batch",
    ][::core::mem::offset_of!(llama_context_params, n_threads_batch) - 32usize];
    [
        "Offset of field: llama_context_params::ctx_type",
    ][::core::mem::offset_of!(llama_context_params, ctx_type) - 36usize];
    [
        "Offset of field: llama_context_params::rope_scaling_type",
    ][::core::mem::offset_of!(llama_context_params, rope_scaling_type) - 40usize];
    [
        "Offset of field: llama_context_params::pooling_type",
    ][::core::mem::offset_of!(llama_context_params, pooling_type) - 44usize];
    [
        "Offset of field: llama_context_params::attention_type",
    ][::core::mem::offset_of!(llama_context_params, attention_type) - 48usize];
    [
        "Offset of field: llama_context_params::flash_attn_type",
    ][::core::mem::offset_of!(llama_context_params, flash_attn_type) - 52usize];
    [
        "Offset of field: llama_context_params::rope_freq_base",
    ][::core::mem::offset_of!(llama_context_params, rope_freq_base) - 56usize];
    [
        "Offset of field: llama_context_params::rope_freq_scale",
    ][::core::mem::offset_of!(llama_context_params, rope_freq_scale) - 60usize];
    [
        "Offset of field: llama_context_params::yarn_ext_factor",
    ][::core::mem::offset_of!(llama_context_params, yarn_ext_factor) - 64usize];
    [
        "Offset of field: llama_context_params::yarn_attn_factor",
    ][::core::mem::offset_of!(llama_context_params, yarn_attn_factor) - 68usize];
    [
        "Offset of field: llama_context_params::yarn_beta_fast",
    ][::core::mem::offset_of!(llama_context_params, yarn_beta_fast) - 72usize];
    [
        "Offset of field: llama_context_params::yarn_beta_slow",
    ][::core::mem::offset_of!(llama_context_params, yarn_beta_slow) - 76usize];
    [
        "Offset of field: llama_context_params::yarn_orig_ctx",
    ][::core::mem::offset_of!(llama_context_params, yarn_orig_ctx) - 80usize];
    [
        "Offset of field: llama_context_params::defrag_thold",
    ][::core::mem::offset_of!(llama_context_params, defrag_thold) - 84usize];
    [
        "Offset of field: llama_context_params::cb_eval",
    ][::core::mem::offset_of!(llama_context_params, cb_eval) - 88usize];
    [
        "Offset of field: llama_context_params::cb_eval_user_data",
    ][::core::mem::offset_of!(llama_context_params, cb_eval_user_data) - 96usize];
    [
        "Offset of field: llama_context_params::type_k",
    ][::core::mem::offset_of!(llama_context_params, type_k) - 104usize];
    [
        "Offset of field: llama_context_params::type_v",
    ][::core::mem::offset_of!(llama_context_params, type_v) - 108usize];
    [
        "Offset of field: llama_context_params::abort_callback",
    ][::core::mem::offset_of!(llama_context_params, abort_callback) - 112usize];
    [
        "Offset of field: llama_context_params::abort_callback_data",
    ][::core::mem::offset_of!(llama_context_params, abort_callback_data) - 120usize];
    [
        "Offset of field: llama_context_params::embeddings",
    ][::core::mem::offset_of!(llama_context_params, embeddings) - 128usize];
    [
        "Offset of field: llama_context_params::offload_kqv",
    ][::core::mem::offset_of!(llama_context_params, offload_kqv) - 129usize];
    [
        "Offset of field: llama_context_params::no_perf",
    ][::core::mem::offset_of!(llama_context_params, no_perf) - 130usize];
    [
        "Offset of field: llama_context_params::op_offload",
    ][::core::mem::offset_of!(llama_context_params, op_offload) - 131usize];
    [
        "Offset of field: llama_context_params::swa_full",
    ][::core::mem::offset_of!(llama_context_params, swa_full) - 132usize];
    [
        "Offset of field: llama_context_params::kv_unified",
    ][::core::mem::offset_of!(llama_context_params, kv_unified) - 133usize];
    [
        "Offset of field: llama_context_params::samplers",
    ][::core::mem::offset_of!(llama_context_params, samplers) - 136usize];
    [
        "Offset of field: llama_context_params::n_samplers",
    ][::core::mem::offset_of!(llama_context_params, n_samplers) - 144usize];
    [
        "Offset of field: llama_context_params::ctx_other",
    ][::core::mem::offset_of!(llama_context_params, ctx_other) - 152usize];
    [
        "Offset of field: llama_context_params::pmkvq_plan",
    ][::core::mem::offset_of!(llama_context_params, pmkvq_plan) - 160usize];
    [
        "Offset of field: llama_context_params::pmkvq_budget",
    ][::core::mem::offset_of!(llama_context_params, pmkvq_budget) - 168usize];
    [
        "Offset of field: llama_context_params::pmkvq_rule",
    ][::core::mem::offset_of!(llama_context_params, pmkvq_rule) - 176usize];
    [
        "Offset of field: llama_context_params::pmkvq_pos_gaps",
    ][::core::mem::offset_of!(llama_context_params, pmkvq_pos_gaps) - 184usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_model_tensor_override {
    pub pattern: *const ::core::ffi::c_char,
    pub type_: ggml_type,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_model_tensor_override",
    ][::core::mem::size_of::<llama_model_tensor_override>() - 16usize];
    [
        "Alignment of llama_model_tensor_override",
    ][::core::mem::align_of::<llama_model_tensor_override>() - 8usize];
    [
        "Offset of field: llama_model_tensor_override::pattern",
    ][::core::mem::offset_of!(llama_model_tensor_override, pattern) - 0usize];
    [
        "Offset of field: llama_model_tensor_override::type_",
    ][::core::mem::offset_of!(llama_model_tensor_override, type_) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_model_imatrix_data {
    pub name: *const ::core::ffi::c_char,
    pub data: *const f32,
    pub size: usize,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_model_imatrix_data",
    ][::core::mem::size_of::<llama_model_imatrix_data>() - 24usize];
    [
        "Alignment of llama_model_imatrix_data",
    ][::core::mem::align_of::<llama_model_imatrix_data>() - 8usize];
    [
        "Offset of field: llama_model_imatrix_data::name",
    ][::core::mem::offset_of!(llama_model_imatrix_data, name) - 0usize];
    [
        "Offset of field: llama_model_imatrix_data::data",
    ][::core::mem::offset_of!(llama_model_imatrix_data, data) - 8usize];
    [
        "Offset of field: llama_model_imatrix_data::size",
    ][::core::mem::offset_of!(llama_model_imatrix_data, size) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_model_quantize_params {
    pub nthread: i32,
    pub ftype: llama_ftype,
    pub output_tensor_type: ggml_type,
    pub token_embedding_type: ggml_type,
    pub allow_requantize: bool,
    pub quantize_output_tensor: bool,
    pub only_copy: bool,
    pub pure_: bool,
    pub keep_split: bool,
    pub dry_run: bool,
    pub imatrix: *const llama_model_imatrix_data,
    pub kv_overrides: *const llama_model_kv_override,
    pub tt_overrides: *const llama_model_tensor_override,
    pub prune_layers: *const i32,
    pub max_buf_size: usize,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_model_quantize_params",
    ][::core::mem::size_of::<llama_model_quantize_params>() - 64usize];
    [
        "Alignment of llama_model_quantize_params",
    ][::core::mem::align_of::<llama_model_quantize_params>() - 8usize];
    [
        "Offset of field: llama_model_quantize_params::nthread",
    ][::core::mem::offset_of!(llama_model_quantize_params, nthread) - 0usize];
    [
        "Offset of field: llama_model_quantize_params::ftype",
    ][::core::mem::offset_of!(llama_model_quantize_params, ftype) - 4usize];
    [
        "Offset of field: llama_model_quantize_params::output_tensor_type",
    ][::core::mem::offset_of!(llama_model_quantize_params, output_tensor_type) - 8usize];
    [
        "Offset of field: llama_model_quantize_params::token_embedding_type",
    ][::core::mem::offset_of!(llama_model_quantize_params, token_embedding_type)
        - 12usize];
    [
        "Offset of field: llama_model_quantize_params::allow_requantize",
    ][::core::mem::offset_of!(llama_model_quantize_params, allow_requantize) - 16usize];
    [
        "Offset of field: llama_model_quantize_params::quantize_output_tensor",
    ][::core::mem::offset_of!(llama_model_quantize_params, quantize_output_tensor)
        - 17usize];
    [
        "Offset of field: llama_model_quantize_params::only_copy",
    ][::core::mem::offset_of!(llama_model_quantize_params, only_copy) - 18usize];
    [
        "Offset of field: llama_model_quantize_params::pure_",
    ][::core::mem::offset_of!(llama_model_quantize_params, pure_) - 19usize];
    [
        "Offset of field: llama_model_quantize_params::keep_split",
    ][::core::mem::offset_of!(llama_model_quantize_params, keep_split) - 20usize];
    [
        "Offset of field: llama_model_quantize_params::dry_run",
    ][::core::mem::offset_of!(llama_model_quantize_params, dry_run) - 21usize];
    [
        "Offset of field: llama_model_quantize_params::imatrix",
    ][::core::mem::offset_of!(llama_model_quantize_params, imatrix) - 24usize];
    [
        "Offset of field: llama_model_quantize_params::kv_overrides",
    ][::core::mem::offset_of!(llama_model_quantize_params, kv_overrides) - 32usize];
    [
        "Offset of field: llama_model_quantize_params::tt_overrides",
    ][::core::mem::offset_of!(llama_model_quantize_params, tt_overrides) - 40usize];
    [
        "Offset of field: llama_model_quantize_params::prune_layers",
    ][::core::mem::offset_of!(llama_model_quantize_params, prune_layers) - 48usize];
    [
        "Offset of field: llama_model_quantize_params::max_buf_size",
    ][::core::mem::offset_of!(llama_model_quantize_params, max_buf_size) - 56usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_logit_bias {
    pub token: llama_token,
    pub bias: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of llama_logit_bias"][::core::mem::size_of::<llama_logit_bias>() - 8usize];
    [
        "Alignment of llama_logit_bias",
    ][::core::mem::align_of::<llama_logit_bias>() - 4usize];
    [
        "Offset of field: llama_logit_bias::token",
    ][::core::mem::offset_of!(llama_logit_bias, token) - 0usize];
    [
        "Offset of field: llama_logit_bias::bias",
    ][::core::mem::offset_of!(llama_logit_bias, bias) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_sampler_chain_params {
    pub no_perf: bool,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_sampler_chain_params",
    ][::core::mem::size_of::<llama_sampler_chain_params>() - 1usize];
    [
        "Alignment of llama_sampler_chain_params",
    ][::core::mem::align_of::<llama_sampler_chain_params>() - 1usize];
    [
        "Offset of field: llama_sampler_chain_params::no_perf",
    ][::core::mem::offset_of!(llama_sampler_chain_params, no_perf) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_chat_message {
    pub role: *const ::core::ffi::c_char,
    pub content: *const ::core::ffi::c_char,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_chat_message",
    ][::core::mem::size_of::<llama_chat_message>() - 16usize];
    [
        "Alignment of llama_chat_message",
    ][::core::mem::align_of::<llama_chat_message>() - 8usize];
    [
        "Offset of field: llama_chat_message::role",
    ][::core::mem::offset_of!(llama_chat_message, role) - 0usize];
    [
        "Offset of field: llama_chat_message::content",
    ][::core::mem::offset_of!(llama_chat_message, content) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_adapter_lora {
    _unused: [u8; 0],
}
unsafe extern "C" {
    pub fn llama_version() -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_model_default_params() -> llama_model_params;
}
unsafe extern "C" {
    pub fn llama_context_default_params() -> llama_context_params;
}
unsafe extern "C" {
    pub fn llama_sampler_chain_default_params() -> llama_sampler_chain_params;
}
unsafe extern "C" {
    pub fn llama_model_quantize_default_params() -> llama_model_quantize_params;
}
unsafe extern "C" {
    pub fn llama_backend_init();
}
unsafe extern "C" {
    pub fn llama_backend_free();
}
unsafe extern "C" {
    pub fn llama_numa_init(numa: ggml_numa_strategy);
}
unsafe extern "C" {
    pub fn llama_attach_threadpool(
        ctx: *mut llama_context,
        threadpool: ggml_threadpool_t,
        threadpool_batch: ggml_threadpool_t,
    );
}
unsafe extern "C" {
    pub fn llama_detach_threadpool(ctx: *mut llama_context);
}
pub type llama_model_set_tensor_data_t = ::core::option::Option<
    unsafe extern "C" fn(tensor: *mut ggml_tensor, userdata: *mut ::core::ffi::c_void),
>;
unsafe extern "C" {
    pub fn llama_model_init_from_user(
        metadata: *mut gguf_context,
        set_tensor_data: llama_model_set_tensor_data_t,
        set_tensor_data_ud: *mut ::core::ffi::c_void,
        params: llama_model_params,
    ) -> *mut llama_model;
}
unsafe extern "C" {
    pub fn llama_load_model_from_file(
        path_model: *const ::core::ffi::c_char,
        params: llama_model_params,
    ) -> *mut llama_model;
}
unsafe extern "C" {
    pub fn llama_model_load_from_file(
        path_model: *const ::core::ffi::c_char,
        params: llama_model_params,
    ) -> *mut llama_model;
}
unsafe extern "C" {
    pub fn llama_model_load_from_file_ptr(
        file: *mut FILE,
        params: llama_model_params,
    ) -> *mut llama_model;
}
unsafe extern "C" {
    pub fn llama_model_load_from_splits(
        paths: *mut *const ::core::ffi::c_char,
        n_paths: usize,
        params: llama_model_params,
    ) -> *mut llama_model;
}
unsafe extern "C" {
    pub fn llama_model_save_to_file(
        model: *const llama_model,
        path_model: *const ::core::ffi::c_char,
    );
}
unsafe extern "C" {
    pub fn llama_free_model(model: *mut llama_model);
}
unsafe extern "C" {
    pub fn llama_model_free(model: *mut llama_model);
}
unsafe extern "C" {
    pub fn llama_init_from_model(
        model: *mut llama_model,
        params: llama_context_params,
    ) -> *mut llama_context;
}
unsafe extern "C" {
    pub fn llama_new_context_with_model(
        model: *mut llama_model,
        params: llama_context_params,
    ) -> *mut llama_context;
}
unsafe extern "C" {
    pub fn llama_free(ctx: *mut llama_context);
}
unsafe extern "C" {
    pub fn llama_time_us() -> i64;
}
unsafe extern "C" {
    pub fn llama_max_devices() -> usize;
}
unsafe extern "C" {
    pub fn llama_max_parallel_sequences() -> usize;
}
unsafe extern "C" {
    pub fn llama_max_tensor_buft_overrides() -> usize;
}
unsafe extern "C" {
    pub fn llama_supports_mmap() -> bool;
}
unsafe extern "C" {
    pub fn llama_supports_mlock() -> bool;
}
unsafe extern "C" {
    pub fn llama_supports_gpu_offload() -> bool;
}
unsafe extern "C" {
    pub fn llama_supports_rpc() -> bool;
}
unsafe extern "C" {
    pub fn llama_n_ctx(ctx: *const llama_context) -> u32;
}
unsafe extern "C" {
    pub fn llama_n_ctx_seq(ctx: *const llama_context) -> u32;
}
unsafe extern "C" {
    pub fn llama_n_batch(ctx: *const llama_context) -> u32;
}
unsafe extern "C" {
    pub fn llama_n_ubatch(ctx: *const llama_context) -> u32;
}
unsafe extern "C" {
    pub fn llama_n_seq_max(ctx: *const llama_context) -> u32;
}
unsafe extern "C" {
    pub fn llama_pmkvq_describe(
        ctx: *const llama_context,
        buf: *mut ::core::ffi::c_char,
        n: usize,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_n_rs_seq(ctx: *const llama_context) -> u32;
}
unsafe extern "C" {
    pub fn llama_n_ctx_train(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_n_embd(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_n_layer(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_n_head(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_n_vocab(vocab: *const llama_vocab) -> i32;
}
unsafe extern "C" {
    pub fn llama_get_model(ctx: *const llama_context) -> *const llama_model;
}
unsafe extern "C" {
    pub fn llama_get_memory(ctx: *const llama_context) -> llama_memory_t;
}
unsafe extern "C" {
    pub fn llama_pooling_type(ctx: *const llama_context) -> llama_pooling_type;
}
unsafe extern "C" {
    pub fn llama_model_get_vocab(model: *const llama_model) -> *const llama_vocab;
}
unsafe extern "C" {
    pub fn llama_model_rope_type(model: *const llama_model) -> llama_rope_type;
}
unsafe extern "C" {
    pub fn llama_model_n_ctx_train(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_embd(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_embd_inp(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_embd_out(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_layer(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_layer_nextn(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_head(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_head_kv(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_n_swa(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_rope_freq_scale_train(model: *const llama_model) -> f32;
}
unsafe extern "C" {
    pub fn llama_model_n_cls_out(model: *const llama_model) -> u32;
}
unsafe extern "C" {
    pub fn llama_model_cls_label(
        model: *const llama_model,
        i: u32,
    ) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_vocab_type(vocab: *const llama_vocab) -> llama_vocab_type;
}
unsafe extern "C" {
    pub fn llama_vocab_n_tokens(vocab: *const llama_vocab) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_meta_val_str(
        model: *const llama_model,
        key: *const ::core::ffi::c_char,
        buf: *mut ::core::ffi::c_char,
        buf_size: usize,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_meta_count(model: *const llama_model) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_meta_key_str(
        key: llama_model_meta_key,
    ) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_model_meta_key_by_index(
        model: *const llama_model,
        i: i32,
        buf: *mut ::core::ffi::c_char,
        buf_size: usize,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_meta_val_str_by_index(
        model: *const llama_model,
        i: i32,
        buf: *mut ::core::ffi::c_char,
        buf_size: usize,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_desc(
        model: *const llama_model,
        buf: *mut ::core::ffi::c_char,
        buf_size: usize,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_model_ftype(model: *const llama_model) -> llama_ftype;
}
unsafe extern "C" {
    pub fn llama_model_size(model: *const llama_model) -> u64;
}
unsafe extern "C" {
    pub fn llama_model_chat_template(
        model: *const llama_model,
        name: *const ::core::ffi::c_char,
    ) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_model_n_params(model: *const llama_model) -> u64;
}
unsafe extern "C" {
    pub fn llama_model_has_encoder(model: *const llama_model) -> bool;
}
unsafe extern "C" {
    pub fn llama_model_has_decoder(model: *const llama_model) -> bool;
}
unsafe extern "C" {
    pub fn llama_model_decoder_start_token(model: *const llama_model) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_model_is_recurrent(model: *const llama_model) -> bool;
}
unsafe extern "C" {
    pub fn llama_model_is_hybrid(model: *const llama_model) -> bool;
}
unsafe extern "C" {
    pub fn llama_model_is_diffusion(model: *const llama_model) -> bool;
}
unsafe extern "C" {
    pub fn llama_model_quantize(
        fname_inp: *const ::core::ffi::c_char,
        fname_out: *const ::core::ffi::c_char,
        params: *const llama_model_quantize_params,
    ) -> u32;
}
unsafe extern "C" {
    pub fn llama_adapter_lora_init(
        model: *mut llama_model,
        path_lora: *const ::core::ffi::c_char,
    ) -> *mut llama_adapter_lora;
}
unsafe extern "C" {
    pub fn llama_adapter_lora_init_from_file_ptr(
        model: *mut llama_model,
        file: *mut FILE,
    ) -> *mut llama_adapter_lora;
}
unsafe extern "C" {
    pub fn llama_adapter_meta_val_str(
        adapter: *const llama_adapter_lora,
        key: *const ::core::ffi::c_char,
        buf: *mut ::core::ffi::c_char,
        buf_size: usize,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_adapter_meta_count(adapter: *const llama_adapter_lora) -> i32;
}
unsafe extern "C" {
    pub fn llama_adapter_meta_key_by_index(
        adapter: *const llama_adapter_lora,
        i: i32,
        buf: *mut ::core::ffi::c_char,
        buf_size: usize,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_adapter_meta_val_str_by_index(
        adapter: *const llama_adapter_lora,
        i: i32,
        buf: *mut ::core::ffi::c_char,
        buf_size: usize,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_adapter_lora_free(adapter: *mut llama_adapter_lora);
}
unsafe extern "C" {
    pub fn llama_adapter_get_alora_n_invocation_tokens(
        adapter: *const llama_adapter_lora,
    ) -> u64;
}
unsafe extern "C" {
    pub fn llama_adapter_get_alora_invocation_tokens(
        adapter: *const llama_adapter_lora,
    ) -> *const llama_token;
}
unsafe extern "C" {
    pub fn llama_set_adapters_lora(
        ctx: *mut llama_context,
        adapters: *mut *mut llama_adapter_lora,
        n_adapters: usize,
        scales: *mut f32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_set_adapter_cvec(
        ctx: *mut llama_context,
        data: *const f32,
        len: usize,
        n_embd: i32,
        il_start: i32,
        il_end: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_memory_clear(mem: llama_memory_t, data: bool);
}
unsafe extern "C" {
    pub fn llama_memory_seq_rm(
        mem: llama_memory_t,
        seq_id: llama_seq_id,
        p0: llama_pos,
        p1: llama_pos,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_memory_seq_cp(
        mem: llama_memory_t,
        seq_id_src: llama_seq_id,
        seq_id_dst: llama_seq_id,
        p0: llama_pos,
        p1: llama_pos,
    );
}
unsafe extern "C" {
    pub fn llama_memory_seq_keep(mem: llama_memory_t, seq_id: llama_seq_id);
}
unsafe extern "C" {
    pub fn llama_memory_seq_add(
        mem: llama_memory_t,
        seq_id: llama_seq_id,
        p0: llama_pos,
        p1: llama_pos,
        delta: llama_pos,
    );
}
unsafe extern "C" {
    pub fn llama_memory_seq_div(
        mem: llama_memory_t,
        seq_id: llama_seq_id,
        p0: llama_pos,
        p1: llama_pos,
        d: ::core::ffi::c_int,
    );
}
unsafe extern "C" {
    pub fn llama_memory_seq_pos_min(
        mem: llama_memory_t,
        seq_id: llama_seq_id,
    ) -> llama_pos;
}
unsafe extern "C" {
    pub fn llama_memory_seq_pos_max(
        mem: llama_memory_t,
        seq_id: llama_seq_id,
    ) -> llama_pos;
}
unsafe extern "C" {
    pub fn llama_memory_can_shift(mem: llama_memory_t) -> bool;
}
unsafe extern "C" {
    pub fn llama_state_get_size(ctx: *mut llama_context) -> usize;
}
unsafe extern "C" {
    pub fn llama_get_state_size(ctx: *mut llama_context) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_get_data(
        ctx: *mut llama_context,
        dst: *mut u8,
        size: usize,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_copy_state_data(ctx: *mut llama_context, dst: *mut u8) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_set_data(
        ctx: *mut llama_context,
        src: *const u8,
        size: usize,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_set_state_data(ctx: *mut llama_context, src: *const u8) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_load_file(
        ctx: *mut llama_context,
        path_session: *const ::core::ffi::c_char,
        tokens_out: *mut llama_token,
        n_token_capacity: usize,
        n_token_count_out: *mut usize,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_load_session_file(
        ctx: *mut llama_context,
        path_session: *const ::core::ffi::c_char,
        tokens_out: *mut llama_token,
        n_token_capacity: usize,
        n_token_count_out: *mut usize,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_state_save_file(
        ctx: *mut llama_context,
        path_session: *const ::core::ffi::c_char,
        tokens: *const llama_token,
        n_token_count: usize,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_save_session_file(
        ctx: *mut llama_context,
        path_session: *const ::core::ffi::c_char,
        tokens: *const llama_token,
        n_token_count: usize,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_state_seq_get_size(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_seq_get_data(
        ctx: *mut llama_context,
        dst: *mut u8,
        size: usize,
        seq_id: llama_seq_id,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_seq_set_data(
        ctx: *mut llama_context,
        src: *const u8,
        size: usize,
        dest_seq_id: llama_seq_id,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_seq_save_file(
        ctx: *mut llama_context,
        filepath: *const ::core::ffi::c_char,
        seq_id: llama_seq_id,
        tokens: *const llama_token,
        n_token_count: usize,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_seq_load_file(
        ctx: *mut llama_context,
        filepath: *const ::core::ffi::c_char,
        dest_seq_id: llama_seq_id,
        tokens_out: *mut llama_token,
        n_token_capacity: usize,
        n_token_count_out: *mut usize,
    ) -> usize;
}
pub type llama_state_seq_flags = u32;
unsafe extern "C" {
    pub fn llama_state_seq_get_size_ext(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        flags: llama_state_seq_flags,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_seq_get_data_ext(
        ctx: *mut llama_context,
        dst: *mut u8,
        size: usize,
        seq_id: llama_seq_id,
        flags: llama_state_seq_flags,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_state_seq_set_data_ext(
        ctx: *mut llama_context,
        src: *const u8,
        size: usize,
        dest_seq_id: llama_seq_id,
        flags: llama_state_seq_flags,
    ) -> usize;
}
unsafe extern "C" {
    pub fn llama_batch_get_one(tokens: *mut llama_token, n_tokens: i32) -> llama_batch;
}
unsafe extern "C" {
    pub fn llama_batch_init(n_tokens: i32, embd: i32, n_seq_max: i32) -> llama_batch;
}
unsafe extern "C" {
    pub fn llama_batch_free(batch: llama_batch);
}
unsafe extern "C" {
    pub fn llama_encode(ctx: *mut llama_context, batch: llama_batch) -> i32;
}
unsafe extern "C" {
    pub fn llama_decode(ctx: *mut llama_context, batch: llama_batch) -> i32;
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_batch_ext {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_embd {
    pub data: *const f32,
    pub n_rows: usize,
    pub n_embd: usize,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of llama_embd"][::core::mem::size_of::<llama_embd>() - 24usize];
    ["Alignment of llama_embd"][::core::mem::align_of::<llama_embd>() - 8usize];
    [
        "Offset of field: llama_embd::data",
    ][::core::mem::offset_of!(llama_embd, data) - 0usize];
    [
        "Offset of field: llama_embd::n_rows",
    ][::core::mem::offset_of!(llama_embd, n_rows) - 8usize];
    [
        "Offset of field: llama_embd::n_embd",
    ][::core::mem::offset_of!(llama_embd, n_embd) - 16usize];
};
unsafe extern "C" {
    pub fn llama_batch_ext_init(ctx: *mut llama_context) -> *mut llama_batch_ext;
}
unsafe extern "C" {
    pub fn llama_batch_ext_free(batch: *mut llama_batch_ext);
}
unsafe extern "C" {
    pub fn llama_batch_ext_clear(batch: *mut llama_batch_ext);
}
unsafe extern "C" {
    pub fn llama_batch_ext_add(batch: *mut llama_batch_ext, seq_id: llama_seq_id) -> i32;
}
unsafe extern "C" {
    pub fn llama_batch_ext_add_token(
        batch: *mut llama_batch_ext,
        seq_id: llama_seq_id,
        id: llama_token,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_batch_ext_add_embd(
        batch: *mut llama_batch_ext,
        seq_id: llama_seq_id,
        embd: llama_embd,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_batch_ext_add_seq(
        batch: *mut llama_batch_ext,
        idx: i32,
        seq_id: llama_seq_id,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_batch_ext_set_embd_token(
        batch: *mut llama_batch_ext,
        idx: i32,
        embd: llama_embd,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_batch_ext_set_embd_state(
        batch: *mut llama_batch_ext,
        idx: i32,
        embd: llama_embd,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_batch_ext_set_output_embd(
        batch: *mut llama_batch_ext,
        idx: i32,
        value: bool,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_batch_ext_set_output_logits(
        batch: *mut llama_batch_ext,
        idx: i32,
        value: bool,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_batch_ext_set_pos(
        batch: *mut llama_batch_ext,
        idx: i32,
        pos: *const llama_pos,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_process(
        ctx: *mut llama_context,
        type_: llama_process_type,
        batch: *mut llama_batch_ext,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_set_n_threads(
        ctx: *mut llama_context,
        n_threads: i32,
        n_threads_batch: i32,
    );
}
unsafe extern "C" {
    pub fn llama_n_threads(ctx: *mut llama_context) -> i32;
}
unsafe extern "C" {
    pub fn llama_n_threads_batch(ctx: *mut llama_context) -> i32;
}
unsafe extern "C" {
    pub fn llama_set_embeddings(ctx: *mut llama_context, embeddings: bool);
}
unsafe extern "C" {
    pub fn llama_set_causal_attn(ctx: *mut llama_context, causal_attn: bool);
}
unsafe extern "C" {
    pub fn llama_get_causal_attn(ctx: *const llama_context) -> bool;
}
unsafe extern "C" {
    pub fn llama_set_warmup(ctx: *mut llama_context, warmup: bool);
}
unsafe extern "C" {
    pub fn llama_set_abort_callback(
        ctx: *mut llama_context,
        abort_callback: ggml_abort_callback,
        abort_callback_data: *mut ::core::ffi::c_void,
    );
}
unsafe extern "C" {
    pub fn llama_synchronize(ctx: *mut llama_context);
}
unsafe extern "C" {
    pub fn llama_get_logits(ctx: *mut llama_context) -> *mut f32;
}
unsafe extern "C" {
    pub fn llama_get_logits_ith(ctx: *mut llama_context, i: i32) -> *mut f32;
}
unsafe extern "C" {
    pub fn llama_get_embeddings(ctx: *mut llama_context) -> *mut f32;
}
unsafe extern "C" {
    pub fn llama_get_embeddings_ith(ctx: *mut llama_context, i: i32) -> *mut f32;
}
unsafe extern "C" {
    pub fn llama_get_embeddings_seq(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
    ) -> *mut f32;
}
unsafe extern "C" {
    pub fn llama_get_sampled_token_ith(ctx: *mut llama_context, i: i32) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_get_sampled_probs_ith(ctx: *mut llama_context, i: i32) -> *mut f32;
}
unsafe extern "C" {
    pub fn llama_get_sampled_probs_count_ith(ctx: *mut llama_context, i: i32) -> u32;
}
unsafe extern "C" {
    pub fn llama_get_sampled_logits_ith(ctx: *mut llama_context, i: i32) -> *mut f32;
}
unsafe extern "C" {
    pub fn llama_get_sampled_logits_count_ith(ctx: *mut llama_context, i: i32) -> u32;
}
unsafe extern "C" {
    pub fn llama_get_sampled_candidates_ith(
        ctx: *mut llama_context,
        i: i32,
    ) -> *mut llama_token;
}
unsafe extern "C" {
    pub fn llama_get_sampled_candidates_count_ith(
        ctx: *mut llama_context,
        i: i32,
    ) -> u32;
}
unsafe extern "C" {
    pub fn llama_vocab_get_text(
        vocab: *const llama_vocab,
        token: llama_token,
    ) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_vocab_get_score(vocab: *const llama_vocab, token: llama_token) -> f32;
}
unsafe extern "C" {
    pub fn llama_vocab_get_attr(
        vocab: *const llama_vocab,
        token: llama_token,
    ) -> llama_token_attr;
}
unsafe extern "C" {
    pub fn llama_vocab_is_eog(vocab: *const llama_vocab, token: llama_token) -> bool;
}
unsafe extern "C" {
    pub fn llama_vocab_is_control(vocab: *const llama_vocab, token: llama_token) -> bool;
}
unsafe extern "C" {
    pub fn llama_vocab_bos(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_eos(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_eot(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_sep(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_nl(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_pad(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_mask(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_get_add_bos(vocab: *const llama_vocab) -> bool;
}
unsafe extern "C" {
    pub fn llama_vocab_get_add_eos(vocab: *const llama_vocab) -> bool;
}
unsafe extern "C" {
    pub fn llama_vocab_get_add_sep(vocab: *const llama_vocab) -> bool;
}
unsafe extern "C" {
    pub fn llama_vocab_get_suppress_tokens(
        vocab: *const llama_vocab,
        n_suppress_tokens: *mut i32,
    ) -> *const llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_fim_pre(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_fim_suf(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_fim_mid(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_fim_pad(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_fim_rep(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_fim_sep(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_get_text(
        vocab: *const llama_vocab,
        token: llama_token,
    ) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_token_get_score(vocab: *const llama_vocab, token: llama_token) -> f32;
}
unsafe extern "C" {
    pub fn llama_token_get_attr(
        vocab: *const llama_vocab,
        token: llama_token,
    ) -> llama_token_attr;
}
unsafe extern "C" {
    pub fn llama_token_is_eog(vocab: *const llama_vocab, token: llama_token) -> bool;
}
unsafe extern "C" {
    pub fn llama_token_is_control(vocab: *const llama_vocab, token: llama_token) -> bool;
}
unsafe extern "C" {
    pub fn llama_token_bos(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_eos(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_eot(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_cls(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_sep(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_nl(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_pad(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_add_bos_token(vocab: *const llama_vocab) -> bool;
}
unsafe extern "C" {
    pub fn llama_add_eos_token(vocab: *const llama_vocab) -> bool;
}
unsafe extern "C" {
    pub fn llama_token_fim_pre(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_fim_suf(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_fim_mid(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_fim_pad(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_fim_rep(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_token_fim_sep(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_vocab_cls(vocab: *const llama_vocab) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_tokenize(
        vocab: *const llama_vocab,
        text: *const ::core::ffi::c_char,
        text_len: i32,
        tokens: *mut llama_token,
        n_tokens_max: i32,
        add_special: bool,
        parse_special: bool,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_token_to_piece(
        vocab: *const llama_vocab,
        token: llama_token,
        buf: *mut ::core::ffi::c_char,
        length: i32,
        lstrip: i32,
        special: bool,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_detokenize(
        vocab: *const llama_vocab,
        tokens: *const llama_token,
        n_tokens: i32,
        text: *mut ::core::ffi::c_char,
        text_len_max: i32,
        remove_special: bool,
        unparse_special: bool,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_chat_apply_template(
        tmpl: *const ::core::ffi::c_char,
        chat: *const llama_chat_message,
        n_msg: usize,
        add_ass: bool,
        buf: *mut ::core::ffi::c_char,
        length: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_chat_builtin_templates(
        output: *mut *const ::core::ffi::c_char,
        len: usize,
    ) -> i32;
}
pub type llama_sampler_context_t = *mut ::core::ffi::c_void;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_sampler_data {
    pub logits: *mut ggml_tensor,
    pub probs: *mut ggml_tensor,
    pub sampled: *mut ggml_tensor,
    pub candidates: *mut ggml_tensor,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_sampler_data",
    ][::core::mem::size_of::<llama_sampler_data>() - 32usize];
    [
        "Alignment of llama_sampler_data",
    ][::core::mem::align_of::<llama_sampler_data>() - 8usize];
    [
        "Offset of field: llama_sampler_data::logits",
    ][::core::mem::offset_of!(llama_sampler_data, logits) - 0usize];
    [
        "Offset of field: llama_sampler_data::probs",
    ][::core::mem::offset_of!(llama_sampler_data, probs) - 8usize];
    [
        "Offset of field: llama_sampler_data::sampled",
    ][::core::mem::offset_of!(llama_sampler_data, sampled) - 16usize];
    [
        "Offset of field: llama_sampler_data::candidates",
    ][::core::mem::offset_of!(llama_sampler_data, candidates) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_sampler_i {
    pub name: ::core::option::Option<
        unsafe extern "C" fn(smpl: *const llama_sampler) -> *const ::core::ffi::c_char,
    >,
    pub accept: ::core::option::Option<
        unsafe extern "C" fn(smpl: *mut llama_sampler, token: llama_token),
    >,
    pub apply: ::core::option::Option<
        unsafe extern "C" fn(
            smpl: *mut llama_sampler,
            cur_p: *mut llama_token_data_array,
        ),
    >,
    pub reset: ::core::option::Option<unsafe extern "C" fn(smpl: *mut llama_sampler)>,
    pub clone: ::core::option::Option<
        unsafe extern "C" fn(smpl: *const llama_sampler) -> *mut llama_sampler,
    >,
    pub free: ::core::option::Option<unsafe extern "C" fn(smpl: *mut llama_sampler)>,
    pub backend_init: ::core::option::Option<
        unsafe extern "C" fn(
            smpl: *mut llama_sampler,
            buft: ggml_backend_buffer_type_t,
            n_outputs_max_per_seq: u32,
        ) -> bool,
    >,
    pub backend_accept: ::core::option::Option<
        unsafe extern "C" fn(
            smpl: *mut llama_sampler,
            ctx: *mut ggml_context,
            gf: *mut ggml_cgraph,
            selected_token: *mut ggml_tensor,
        ),
    >,
    pub backend_apply: ::core::option::Option<
        unsafe extern "C" fn(
            smpl: *mut llama_sampler,
            ctx: *mut ggml_context,
            gf: *mut ggml_cgraph,
            data: *mut llama_sampler_data,
        ),
    >,
    pub backend_set_input: ::core::option::Option<
        unsafe extern "C" fn(smpl: *mut llama_sampler),
    >,
    pub backend_reset: ::core::option::Option<
        unsafe extern "C" fn(smpl: *mut llama_sampler),
    >,
    pub copy_state: ::core::option::Option<
        unsafe extern "C" fn(src: *const llama_sampler, dst: *mut llama_sampler),
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of llama_sampler_i"][::core::mem::size_of::<llama_sampler_i>() - 96usize];
    [
        "Alignment of llama_sampler_i",
    ][::core::mem::align_of::<llama_sampler_i>() - 8usize];
    [
        "Offset of field: llama_sampler_i::name",
    ][::core::mem::offset_of!(llama_sampler_i, name) - 0usize];
    [
        "Offset of field: llama_sampler_i::accept",
    ][::core::mem::offset_of!(llama_sampler_i, accept) - 8usize];
    [
        "Offset of field: llama_sampler_i::apply",
    ][::core::mem::offset_of!(llama_sampler_i, apply) - 16usize];
    [
        "Offset of field: llama_sampler_i::reset",
    ][::core::mem::offset_of!(llama_sampler_i, reset) - 24usize];
    [
        "Offset of field: llama_sampler_i::clone",
    ][::core::mem::offset_of!(llama_sampler_i, clone) - 32usize];
    [
        "Offset of field: llama_sampler_i::free",
    ][::core::mem::offset_of!(llama_sampler_i, free) - 40usize];
    [
        "Offset of field: llama_sampler_i::backend_init",
    ][::core::mem::offset_of!(llama_sampler_i, backend_init) - 48usize];
    [
        "Offset of field: llama_sampler_i::backend_accept",
    ][::core::mem::offset_of!(llama_sampler_i, backend_accept) - 56usize];
    [
        "Offset of field: llama_sampler_i::backend_apply",
    ][::core::mem::offset_of!(llama_sampler_i, backend_apply) - 64usize];
    [
        "Offset of field: llama_sampler_i::backend_set_input",
    ][::core::mem::offset_of!(llama_sampler_i, backend_set_input) - 72usize];
    [
        "Offset of field: llama_sampler_i::backend_reset",
    ][::core::mem::offset_of!(llama_sampler_i, backend_reset) - 80usize];
    [
        "Offset of field: llama_sampler_i::copy_state",
    ][::core::mem::offset_of!(llama_sampler_i, copy_state) - 88usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_sampler {
    pub iface: *mut llama_sampler_i,
    pub ctx: llama_sampler_context_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of llama_sampler"][::core::mem::size_of::<llama_sampler>() - 16usize];
    ["Alignment of llama_sampler"][::core::mem::align_of::<llama_sampler>() - 8usize];
    [
        "Offset of field: llama_sampler::iface",
    ][::core::mem::offset_of!(llama_sampler, iface) - 0usize];
    [
        "Offset of field: llama_sampler::ctx",
    ][::core::mem::offset_of!(llama_sampler, ctx) - 8usize];
};
unsafe extern "C" {
    pub fn llama_set_sampler(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        smpl: *mut llama_sampler,
    ) -> bool;
}
unsafe extern "C" {
    pub fn llama_sampler_init(
        iface: *mut llama_sampler_i,
        ctx: llama_sampler_context_t,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_name(smpl: *const llama_sampler) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_sampler_accept(smpl: *mut llama_sampler, token: llama_token);
}
unsafe extern "C" {
    pub fn llama_sampler_apply(
        smpl: *mut llama_sampler,
        cur_p: *mut llama_token_data_array,
    );
}
unsafe extern "C" {
    pub fn llama_sampler_reset(smpl: *mut llama_sampler);
}
unsafe extern "C" {
    pub fn llama_sampler_clone(smpl: *const llama_sampler) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_copy(src: *const llama_sampler, dst: *mut llama_sampler);
}
unsafe extern "C" {
    pub fn llama_sampler_free(smpl: *mut llama_sampler);
}
unsafe extern "C" {
    pub fn llama_sampler_chain_init(
        params: llama_sampler_chain_params,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_chain_add(chain: *mut llama_sampler, smpl: *mut llama_sampler);
}
unsafe extern "C" {
    pub fn llama_sampler_chain_get(
        chain: *mut llama_sampler,
        i: i32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_chain_n(chain: *const llama_sampler) -> i32;
}
unsafe extern "C" {
    pub fn llama_sampler_chain_remove(
        chain: *mut llama_sampler,
        i: i32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_greedy() -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_dist(seed: u32) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_top_k(k: i32) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_top_p(p: f32, min_keep: usize) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_min_p(p: f32, min_keep: usize) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_typical(p: f32, min_keep: usize) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_temp(t: f32) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_temp_ext(
        t: f32,
        delta: f32,
        exponent: f32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_xtc(
        p: f32,
        t: f32,
        min_keep: usize,
        seed: u32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_top_n_sigma(n: f32) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_mirostat(
        n_vocab: i32,
        seed: u32,
        tau: f32,
        eta: f32,
        m: i32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_mirostat_v2(
        seed: u32,
        tau: f32,
        eta: f32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_grammar(
        vocab: *const llama_vocab,
        grammar_str: *const ::core::ffi::c_char,
        grammar_root: *const ::core::ffi::c_char,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_grammar_lazy(
        vocab: *const llama_vocab,
        grammar_str: *const ::core::ffi::c_char,
        grammar_root: *const ::core::ffi::c_char,
        trigger_words: *mut *const ::core::ffi::c_char,
        num_trigger_words: usize,
        trigger_tokens: *const llama_token,
        num_trigger_tokens: usize,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_grammar_lazy_patterns(
        vocab: *const llama_vocab,
        grammar_str: *const ::core::ffi::c_char,
        grammar_root: *const ::core::ffi::c_char,
        trigger_patterns: *mut *const ::core::ffi::c_char,
        num_trigger_patterns: usize,
        trigger_tokens: *const llama_token,
        num_trigger_tokens: usize,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_penalties(
        n_vocab: i32,
        penalty_last_n: i32,
        penalty_repeat: f32,
        penalty_freq: f32,
        penalty_present: f32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_dry(
        vocab: *const llama_vocab,
        dry_multiplier: f32,
        dry_base: f32,
        dry_allowed_length: i32,
        dry_penalty_last_n: i32,
        seq_breakers: *mut *const ::core::ffi::c_char,
        num_breakers: usize,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_adaptive_p(
        target: f32,
        decay: f32,
        seed: u32,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_logit_bias(
        n_vocab: i32,
        n_logit_bias: i32,
        logit_bias: *const llama_logit_bias,
    ) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_init_infill(vocab: *const llama_vocab) -> *mut llama_sampler;
}
unsafe extern "C" {
    pub fn llama_sampler_get_seed(smpl: *const llama_sampler) -> u32;
}
unsafe extern "C" {
    pub fn llama_sampler_sample(
        smpl: *mut llama_sampler,
        ctx: *mut llama_context,
        idx: i32,
    ) -> llama_token;
}
unsafe extern "C" {
    pub fn llama_split_path(
        split_path: *mut ::core::ffi::c_char,
        maxlen: usize,
        path_prefix: *const ::core::ffi::c_char,
        split_no: i32,
        split_count: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_split_prefix(
        split_prefix: *mut ::core::ffi::c_char,
        maxlen: usize,
        split_path: *const ::core::ffi::c_char,
        split_no: i32,
        split_count: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn llama_print_system_info() -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn llama_log_get(
        log_callback: *mut ggml_log_callback,
        user_data: *mut *mut ::core::ffi::c_void,
    );
}
unsafe extern "C" {
    pub fn llama_log_set(
        log_callback: ggml_log_callback,
        user_data: *mut ::core::ffi::c_void,
    );
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_perf_context_data {
    pub t_start_ms: f64,
    pub t_load_ms: f64,
    pub t_p_eval_ms: f64,
    pub t_eval_ms: f64,
    pub n_p_eval: i32,
    pub n_eval: i32,
    pub n_reused: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_perf_context_data",
    ][::core::mem::size_of::<llama_perf_context_data>() - 48usize];
    [
        "Alignment of llama_perf_context_data",
    ][::core::mem::align_of::<llama_perf_context_data>() - 8usize];
    [
        "Offset of field: llama_perf_context_data::t_start_ms",
    ][::core::mem::offset_of!(llama_perf_context_data, t_start_ms) - 0usize];
    [
        "Offset of field: llama_perf_context_data::t_load_ms",
    ][::core::mem::offset_of!(llama_perf_context_data, t_load_ms) - 8usize];
    [
        "Offset of field: llama_perf_context_data::t_p_eval_ms",
    ][::core::mem::offset_of!(llama_perf_context_data, t_p_eval_ms) - 16usize];
    [
        "Offset of field: llama_perf_context_data::t_eval_ms",
    ][::core::mem::offset_of!(llama_perf_context_data, t_eval_ms) - 24usize];
    [
        "Offset of field: llama_perf_context_data::n_p_eval",
    ][::core::mem::offset_of!(llama_perf_context_data, n_p_eval) - 32usize];
    [
        "Offset of field: llama_perf_context_data::n_eval",
    ][::core::mem::offset_of!(llama_perf_context_data, n_eval) - 36usize];
    [
        "Offset of field: llama_perf_context_data::n_reused",
    ][::core::mem::offset_of!(llama_perf_context_data, n_reused) - 40usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_perf_sampler_data {
    pub t_sample_ms: f64,
    pub n_sample: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of llama_perf_sampler_data",
    ][::core::mem::size_of::<llama_perf_sampler_data>() - 16usize];
    [
        "Alignment of llama_perf_sampler_data",
    ][::core::mem::align_of::<llama_perf_sampler_data>() - 8usize];
    [
        "Offset of field: llama_perf_sampler_data::t_sample_ms",
    ][::core::mem::offset_of!(llama_perf_sampler_data, t_sample_ms) - 0usize];
    [
        "Offset of field: llama_perf_sampler_data::n_sample",
    ][::core::mem::offset_of!(llama_perf_sampler_data, n_sample) - 8usize];
};
unsafe extern "C" {
    pub fn llama_perf_context(ctx: *const llama_context) -> llama_perf_context_data;
}
unsafe extern "C" {
    pub fn llama_perf_context_print(ctx: *const llama_context);
}
unsafe extern "C" {
    pub fn llama_perf_context_reset(ctx: *mut llama_context);
}
unsafe extern "C" {
    pub fn llama_perf_sampler(chain: *const llama_sampler) -> llama_perf_sampler_data;
}
unsafe extern "C" {
    pub fn llama_perf_sampler_print(chain: *const llama_sampler);
}
unsafe extern "C" {
    pub fn llama_perf_sampler_reset(chain: *mut llama_sampler);
}
pub type llama_opt_param_filter = ::core::option::Option<
    unsafe extern "C" fn(
        tensor: *const ggml_tensor,
        userdata: *mut ::core::ffi::c_void,
    ) -> bool,
>;
unsafe extern "C" {
    pub fn llama_opt_param_filter_all(
        tensor: *const ggml_tensor,
        userdata: *mut ::core::ffi::c_void,
    ) -> bool;
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct llama_opt_params {
    pub n_ctx_train: u32,
    pub param_filter: llama_opt_param_filter,
    pub param_filter_ud: *mut ::core::ffi::c_void,
    pub get_opt_pars: ggml_opt_get_optimizer_params,
    pub get_opt_pars_ud: *mut ::core::ffi::c_void,
    pub optimizer_type: ggml_opt_optimizer_type,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of llama_opt_params"][::core::mem::size_of::<llama_opt_params>() - 48usize];
    [
        "Alignment of llama_opt_params",
    ][::core::mem::align_of::<llama_opt_params>() - 8usize];
    [
        "Offset of field: llama_opt_params::n_ctx_train",
    ][::core::mem::offset_of!(llama_opt_params, n_ctx_train) - 0usize];
    [
        "Offset of field: llama_opt_params::param_filter",
    ][::core::mem::offset_of!(llama_opt_params, param_filter) - 8usize];
    [
        "Offset of field: llama_opt_params::param_filter_ud",
    ][::core::mem::offset_of!(llama_opt_params, param_filter_ud) - 16usize];
    [
        "Offset of field: llama_opt_params::get_opt_pars",
    ][::core::mem::offset_of!(llama_opt_params, get_opt_pars) - 24usize];
    [
        "Offset of field: llama_opt_params::get_opt_pars_ud",
    ][::core::mem::offset_of!(llama_opt_params, get_opt_pars_ud) - 32usize];
    [
        "Offset of field: llama_opt_params::optimizer_type",
    ][::core::mem::offset_of!(llama_opt_params, optimizer_type) - 40usize];
};
unsafe extern "C" {
    pub fn llama_opt_init(
        lctx: *mut llama_context,
        model: *mut llama_model,
        lopt_params: llama_opt_params,
    );
}
unsafe extern "C" {
    pub fn llama_opt_epoch(
        lctx: *mut llama_context,
        dataset: ggml_opt_dataset_t,
        result_train: ggml_opt_result_t,
        result_eval: ggml_opt_result_t,
        idata_split: i64,
        callback_train: ggml_opt_epoch_callback,
        callback_eval: ggml_opt_epoch_callback,
    );
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ggml_backend_buffer {
    pub _address: u8,
}
