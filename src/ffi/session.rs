//! Loading a model and decoding with it, no more than scoring needs.

use std::ffi::{c_char, c_void, CString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::bindings as c;
use super::observe::{self, Observer};

/// Which KV cache a context has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cache {
    /// llama.cpp's own, K and V of one type.
    Plain(PlainType),
    /// A plan's.
    Plan(PathBuf),
}

/// Types of llama.cpp's own KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainType {
    /// Without flash attention, which rounds K and V to f16: nothing is rounded, the yardstick for the others.
    F32,
    /// Without flash attention, which in batches of fewer than 64 tokens sums values up in f16.
    F16Exact,
    F16,
    Q8_0,
    Q4_0,
}

impl PlainType {
    fn ggml(self) -> c::ggml_type {
        match self {
            PlainType::F32 => c::GGML_TYPE_F32,
            PlainType::F16 | PlainType::F16Exact => c::GGML_TYPE_F16,
            PlainType::Q8_0 => c::GGML_TYPE_Q8_0,
            PlainType::Q4_0 => c::GGML_TYPE_Q4_0,
        }
    }

    /// Bytes of a value, scales included.
    pub fn bytes_per_value(self) -> f64 {
        match self {
            PlainType::F32 => 4.0,
            PlainType::F16 | PlainType::F16Exact => 2.0,
            PlainType::Q8_0 => 34.0 / 32.0,
            PlainType::Q4_0 => 18.0 / 32.0,
        }
    }
}

/// How large a context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextSizes {
    /// Tokens, all sequences together.
    pub n_ctx: u32,
    /// Tokens that are given to `decode` at once, and that go through the graph at once.
    pub n_batch: u32,
    pub n_ubatch: u32,
    pub n_seq_max: u32,
    pub threads: u32,
}

/// A token to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchToken {
    pub token: i32,
    pub pos: i32,
    pub seq: i32,
}

/// Why a batch was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Nothing was changed.
    NoRoom { n_tokens: usize },
    /// The abort callback said so; ubatches that were finished stay in the cache.
    Aborted,
    /// llama.cpp's reason is on stderr.
    Failed { status: i32 },
}

impl DecodeError {
    fn of(status: i32, n_tokens: usize) -> Result<(), DecodeError> {
        match status {
            0 => Ok(()),
            1 => Err(DecodeError::NoRoom { n_tokens }),
            2 => Err(DecodeError::Aborted),
            status => Err(DecodeError::Failed { status }),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { n_tokens } => write!(f, "no room in the KV cache for {n_tokens} more tokens"),
            Self::Aborted => f.write_str("decoding was aborted"),
            Self::Failed { status } => write!(f, "llama_decode failed ({status})"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Errors of llama.cpp go to stderr, the rest nowhere.
pub(super) unsafe extern "C" fn only_errors(level: c::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level == c::GGML_LOG_LEVEL_ERROR && !text.is_null() {
        say!("{}", std::ffi::CStr::from_ptr(text).to_string_lossy());
    }
}

pub struct Model {
    model: NonNull<c::llama_model>,
}

impl Model {
    /// # Errors
    /// Names the file; llama.cpp's reason is on stderr.
    pub fn load(path: &Path) -> Result<Model, String> {
        crate::capi::register();
        let text = path.to_str().and_then(|p| CString::new(p).ok());
        let text = text.ok_or_else(|| format!("{}: not a path that llama.cpp can open", path.display()))?;
        // SAFETY: plain calls with valid arguments
        let model = unsafe {
            c::llama_log_set(Some(only_errors), std::ptr::null_mut());
            c::llama_backend_init();
            c::llama_model_load_from_file(text.as_ptr(), c::llama_model_default_params())
        };
        let model = NonNull::new(model).ok_or_else(|| format!("{}: llama.cpp can't load it", path.display()))?;
        Ok(Model { model })
    }

    /// Values of an embedding that `Context::decode_embeddings` takes.
    pub fn n_embd(&self) -> usize {
        // SAFETY: the model is valid
        unsafe { c::llama_model_n_embd_inp(self.model.as_ptr()) as usize }
    }

    /// Whether positions have four parts: time, height, width and one that is not used (M-RoPE).
    pub fn positions_have_parts(&self) -> bool {
        // SAFETY: the model is valid
        has_parts(unsafe { c::llama_model_rope_type(self.model.as_ptr()) })
    }

    pub fn n_vocab(&self) -> usize {
        // SAFETY: the model is valid
        unsafe { c::llama_vocab_n_tokens(c::llama_model_get_vocab(self.model.as_ptr())) as usize }
    }

    /// The tokens of a text, without special tokens around it.
    ///
    /// # Errors
    /// A text that llama.cpp can't tokenize.
    pub fn tokenize(&self, text: &str) -> Result<Vec<i32>, String> {
        let mut tokens = vec![0i32; text.len() + 8];
        // SAFETY: the buffers are as long as said
        let n = unsafe {
            let vocab = c::llama_model_get_vocab(self.model.as_ptr());
            let (len, room) = (text.len() as i32, tokens.len() as i32);
            c::llama_tokenize(vocab, text.as_ptr().cast(), len, tokens.as_mut_ptr(), room, false, false)
        };
        if n < 0 {
            return Err("llama.cpp can't tokenize the text".to_string());
        }
        tokens.truncate(n as usize);
        Ok(tokens)
    }

    /// The token that the model wants before every text, if it wants one.
    pub fn first_token(&self) -> Option<i32> {
        // SAFETY: the model is valid
        unsafe {
            let vocab = c::llama_model_get_vocab(self.model.as_ptr());
            c::llama_vocab_get_add_bos(vocab).then(|| c::llama_vocab_bos(vocab)).filter(|t| *t >= 0)
        }
    }

    /// The bytes that a token stands for.
    pub fn piece(&self, token: i32) -> Vec<u8> {
        let mut bytes = vec![0u8; 64];
        // SAFETY: the buffer is as long as said; where it is too short, llama.cpp says how long it must be
        unsafe {
            let vocab = c::llama_model_get_vocab(self.model.as_ptr());
            let mut n = c::llama_token_to_piece(vocab, token, bytes.as_mut_ptr().cast(), bytes.len() as i32, 0, false);
            if n < 0 {
                bytes.resize(n.unsigned_abs() as usize, 0);
                n = c::llama_token_to_piece(vocab, token, bytes.as_mut_ptr().cast(), bytes.len() as i32, 0, false);
            }
            bytes.truncate(n.max(0) as usize);
        }
        bytes
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts borrow the model, so none is left
        unsafe { c::llama_model_free(self.model.as_ptr()) }
    }
}

fn has_parts(rope: c::llama_rope_type) -> bool {
    [c::LLAMA_ROPE_TYPE_MROPE, c::LLAMA_ROPE_TYPE_IMROPE].contains(&rope)
}

/// What a context is made with besides cache and sizes.
#[derive(Default)]
pub struct ContextOptions<'o> {
    /// Positions of a sequence may jump forward.
    pub position_gaps: bool,
    /// Sees what the attention of every layer with a progressive cache gets.
    pub observer: Option<Observer<'o>>,
}

pub struct Context<'m> {
    ctx: NonNull<c::llama_context>,
    n_vocab: usize,
    /// How often the abort callback still says no.
    abort: Option<Box<AtomicU32>>,
    /// llama.cpp has its address.
    _observer: Option<Box<Observer<'m>>>,
    model: std::marker::PhantomData<&'m Model>,
}

impl<'m> Context<'m> {
    /// A context with one KV cache for all its sequences; flash attention is on except with the exact plain types.
    ///
    /// # Errors
    /// llama.cpp's reason is on stderr.
    pub fn new(model: &'m Model, cache: &Cache, sizes: &ContextSizes) -> Result<Context<'m>, String> {
        Context::with(model, cache, sizes, ContextOptions::default())
    }

    /// As [`Context::new`], with options.
    ///
    /// # Errors
    /// As [`Context::new`].
    pub fn with(
        model: &'m Model,
        cache: &Cache,
        sizes: &ContextSizes,
        options: ContextOptions<'m>,
    ) -> Result<Context<'m>, String> {
        let mut plan_path = None;
        let mut observer = options.observer.map(Box::new);
        // SAFETY: the strings live until the context is made
        let ctx = unsafe {
            let mut params = c::llama_context_default_params();
            params.n_ctx = sizes.n_ctx;
            params.n_batch = sizes.n_batch;
            params.n_ubatch = sizes.n_ubatch;
            params.n_seq_max = sizes.n_seq_max;
            params.n_threads = sizes.threads as i32;
            params.n_threads_batch = sizes.threads as i32;
            params.flash_attn_type = c::LLAMA_FLASH_ATTN_TYPE_ENABLED;
            params.kv_unified = true;
            params.pmkvq_pos_gaps = options.position_gaps;
            if let Some(observer) = &mut observer {
                params.cb_eval = Some(observe::callback);
                params.cb_eval_user_data = std::ptr::from_mut::<Observer>(observer).cast();
            }
            match cache {
                Cache::Plain(t) => {
                    if matches!(t, PlainType::F32 | PlainType::F16Exact) {
                        params.flash_attn_type = c::LLAMA_FLASH_ATTN_TYPE_DISABLED;
                    }
                    params.type_k = t.ggml();
                    params.type_v = t.ggml();
                }
                Cache::Plan(path) => {
                    let text = path.to_str().and_then(|p| CString::new(p).ok());
                    let text = text.ok_or_else(|| format!("{}: not a usable path", path.display()))?;
                    params.pmkvq_plan = plan_path.insert(text).as_ptr();
                }
            }
            c::llama_init_from_model(model.model.as_ptr(), params)
        };
        let ctx = NonNull::new(ctx).ok_or("llama.cpp could not create a context with this KV cache")?;
        Ok(Context { ctx, n_vocab: model.n_vocab(), abort: None, _observer: observer, model: std::marker::PhantomData })
    }

    /// Decodes tokens of one sequence at positions `pos ..`, logits for all of them.
    ///
    /// # Errors
    /// What `llama_decode` returned.
    pub fn decode(&mut self, tokens: &[i32], pos: i32, seq: i32) -> Result<(), DecodeError> {
        let batch: Vec<BatchToken> =
            tokens.iter().zip(pos..).map(|(&token, pos)| BatchToken { token, pos, seq }).collect();
        self.decode_batch(&batch)
    }

    /// Decodes tokens of any sequences, logits for all of them.
    ///
    /// # Errors
    /// What `llama_decode` returned.
    pub fn decode_batch(&mut self, tokens: &[BatchToken]) -> Result<(), DecodeError> {
        // SAFETY: the batch has room for the tokens and is freed
        let status = unsafe {
            let mut batch = c::llama_batch_init(tokens.len() as i32, 0, 1);
            for (i, t) in tokens.iter().enumerate() {
                *batch.token.add(i) = t.token;
                *batch.pos.add(i) = t.pos;
                *batch.n_seq_id.add(i) = 1;
                **batch.seq_id.add(i) = t.seq;
                *batch.logits.add(i) = 1;
            }
            batch.n_tokens = tokens.len() as i32;
            let status = c::llama_decode(self.ctx.as_ptr(), batch);
            c::llama_batch_free(batch);
            status
        };
        DecodeError::of(status, tokens.len())
    }

    /// Decodes an image's embeddings of one sequence, `[n][n_embd]`, as llama.cpp's multimodal programs do; logits for all of them.
    /// `pos`: a position each, or, for models whose positions have four parts, four planes of `n`. Not `causal`: each sees all.
    ///
    /// # Errors
    /// What `llama_decode` returned.
    pub fn decode_embeddings(
        &mut self,
        embeddings: &[f32],
        pos: &[i32],
        seq: i32,
        causal: bool,
    ) -> Result<(), DecodeError> {
        // SAFETY: every list is as long as llama.cpp expects, checked here, and outlives the call
        let (n, status) = unsafe {
            let model = c::llama_get_model(self.ctx.as_ptr());
            let n = embeddings.len() / c::llama_model_n_embd_inp(model) as usize;
            let parts = if has_parts(c::llama_model_rope_type(model)) { 4 } else { 1 };
            assert_eq!(pos.len(), n * parts, "positions of {n} embeddings");
            let mut seq = [seq];
            let (mut ones, mut seqs, mut logits) = (vec![1i32; n], vec![seq.as_mut_ptr(); n], vec![1i8; n]);
            let batch = c::llama_batch {
                n_tokens: n as i32,
                token: std::ptr::null_mut(),
                embd: embeddings.as_ptr().cast_mut(),
                pos: pos.as_ptr().cast_mut(),
                n_seq_id: ones.as_mut_ptr(),
                seq_id: seqs.as_mut_ptr(),
                logits: logits.as_mut_ptr(),
            };
            c::llama_set_causal_attn(self.ctx.as_ptr(), causal);
            let status = c::llama_decode(self.ctx.as_ptr(), batch);
            c::llama_set_causal_attn(self.ctx.as_ptr(), true);
            (n, status)
        };
        DecodeError::of(status, n)
    }

    /// Logits of token `i` of the last batch.
    pub fn logits(&self, i: usize) -> &[f32] {
        // SAFETY: every token of the last batch has a row of n_vocab logits
        unsafe {
            let row = c::llama_get_logits_ith(self.ctx.as_ptr(), i as i32);
            assert!(!row.is_null(), "token {i} of the last batch has no logits");
            std::slice::from_raw_parts(row, self.n_vocab)
        }
    }

    fn memory(&self) -> c::llama_memory_t {
        // SAFETY: the context is valid
        unsafe { c::llama_get_memory(self.ctx.as_ptr()) }
    }

    pub fn clear(&mut self) {
        // SAFETY: the context is valid
        unsafe { c::llama_memory_clear(self.memory(), true) }
    }

    /// Removes positions `p0 .. p1` of a sequence (negative: from the start, to the end; `seq` -1: of all).
    pub fn seq_rm(&mut self, seq: i32, p0: i32, p1: i32) -> bool {
        // SAFETY: the context is valid
        unsafe { c::llama_memory_seq_rm(self.memory(), seq, p0, p1) }
    }

    pub fn seq_cp(&mut self, from: i32, to: i32, p0: i32, p1: i32) {
        // SAFETY: the context is valid
        unsafe { c::llama_memory_seq_cp(self.memory(), from, to, p0, p1) }
    }

    pub fn seq_keep(&mut self, seq: i32) {
        // SAFETY: the context is valid
        unsafe { c::llama_memory_seq_keep(self.memory(), seq) }
    }

    /// Moves positions `p0 .. p1` of a sequence by `delta`; the next batch rotates the keys.
    pub fn seq_add(&mut self, seq: i32, p0: i32, p1: i32, delta: i32) {
        // SAFETY: the context is valid
        unsafe { c::llama_memory_seq_add(self.memory(), seq, p0, p1, delta) }
    }

    /// Whether positions can be moved.
    pub fn can_shift(&self) -> bool {
        // SAFETY: the context is valid
        unsafe { c::llama_memory_can_shift(self.memory()) }
    }

    /// What a sequence holds, or all of them (`None`).
    ///
    /// # Errors
    /// llama.cpp's reason is on stderr.
    pub fn state(&mut self, seq: Option<i32>) -> Result<Vec<u8>, String> {
        let ctx = self.ctx.as_ptr();
        // SAFETY: the buffer is as long as said
        let (bytes, n) = unsafe {
            let size = match seq {
                Some(seq) => c::llama_state_seq_get_size(ctx, seq),
                None => c::llama_state_get_size(ctx),
            };
            let mut bytes = vec![0u8; size];
            let n = match seq {
                Some(seq) => c::llama_state_seq_get_data(ctx, bytes.as_mut_ptr(), size, seq),
                None => c::llama_state_get_data(ctx, bytes.as_mut_ptr(), size),
            };
            (bytes, n)
        };
        if n == 0 || n != bytes.len() {
            return Err(format!("the state was not saved: {n} of {} bytes", bytes.len()));
        }
        Ok(bytes)
    }

    /// Brings back what [`Context::state`] gave: for one sequence, which it replaces, or for all.
    ///
    /// # Errors
    /// llama.cpp's reason is on stderr; the sequence (all of them) may be empty then.
    pub fn set_state(&mut self, bytes: &[u8], seq: Option<i32>) -> Result<(), String> {
        let ctx = self.ctx.as_ptr();
        // SAFETY: the buffer is as long as said
        let n = unsafe {
            match seq {
                Some(seq) => c::llama_state_seq_set_data(ctx, bytes.as_ptr(), bytes.len(), seq),
                None => c::llama_state_set_data(ctx, bytes.as_ptr(), bytes.len()),
            }
        };
        if n > 0 && n == bytes.len() {
            Ok(())
        } else {
            Err(format!("the state was not restored: {n} of {} bytes", bytes.len()))
        }
    }

    /// The largest position of a sequence; -1 if it has no token.
    pub fn pos_max(&self, seq: i32) -> i32 {
        // SAFETY: the context is valid
        unsafe { c::llama_memory_seq_pos_max(self.memory(), seq) }
    }

    /// Aborts decoding when the graphs have asked for the `n`-th time whether they should stop; `None`: never.
    pub fn abort_after(&mut self, n: Option<u32>) {
        unsafe extern "C" fn ask(left: *mut c_void) -> bool {
            let left = &*left.cast::<AtomicU32>();
            left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err()
        }
        let left = Box::new(AtomicU32::new(n.unwrap_or(0)));
        // SAFETY: the counter is kept as long as llama.cpp has its address
        unsafe {
            let data = std::ptr::from_ref(&*left).cast_mut().cast();
            match n {
                Some(_) => c::llama_set_abort_callback(self.ctx.as_ptr(), Some(ask), data),
                None => c::llama_set_abort_callback(self.ctx.as_ptr(), None, std::ptr::null_mut()),
            }
        }
        self.abort = Some(left);
    }

    /// Graphs that were reused since the context was made.
    pub fn n_reused(&self) -> i32 {
        // SAFETY: the context is valid
        unsafe { c::llama_perf_context(self.ctx.as_ptr()).n_reused }
    }

    /// What the progressive cache holds; `None` for a plain one.
    pub fn describe(&self) -> Option<serde_json::Value> {
        // SAFETY: the buffer is as long as said
        unsafe {
            let n = c::llama_pmkvq_describe(self.ctx.as_ptr(), std::ptr::null_mut(), 0);
            let mut buf = vec![0u8; n + 1];
            let m = c::llama_pmkvq_describe(self.ctx.as_ptr(), buf.as_mut_ptr().cast(), buf.len());
            buf.truncate(m.min(n));
            serde_json::from_slice(&buf).ok()
        }
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody else has it
        unsafe { c::llama_free(self.ctx.as_ptr()) }
    }
}
