//! Small models with random weights, written as GGUF files: shapes that upstream's test-llama-archs does not make.

use super::common::{Rng, Temporary};

/// A GGUF file (version 3) in the making; all tensors are f32.
pub struct Gguf {
    arch: &'static str,
    n_kv: u64,
    kv: Vec<u8>,
    tensors: Vec<(String, Vec<u64>)>,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Gguf {
    /// A model without a tokenizer: token ids are all there is.
    pub fn new(arch: &'static str, n_vocab: u32) -> Gguf {
        let mut g = Gguf { arch, n_kv: 0, kv: Vec::new(), tensors: Vec::new() };
        g.text("general.architecture", arch);
        g.text("tokenizer.ggml.model", "no_vocab");
        g.u32("vocab_size", n_vocab);
        g
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.n_kv += 1;
        put_text(&mut self.kv, key);
        self.kv.extend(kind.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_text(&mut self.kv, value);
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(&format!("{}.{key}", self.arch), 4);
        self.kv.extend(value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(&format!("{}.{key}", self.arch), 6);
        self.kv.extend(value.to_le_bytes());
    }

    pub fn array(&mut self, key: &str, values: &[u32]) {
        self.key(&format!("{}.{key}", self.arch), 9);
        self.kv.extend(4u32.to_le_bytes());
        self.kv.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|v| self.kv.extend(v.to_le_bytes()));
    }

    /// A tensor by its name without `.weight`; the first dimension is the contiguous one.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[u32]) {
        self.tensors.push((name.into(), shape.iter().map(|n| u64::from(*n)).collect()));
    }

    /// Writes the file, weights drawn with `seed`: norms near one, the rest near zero.
    pub fn write(&self, seed: u64) -> Temporary {
        const ALIGNMENT: usize = 32;
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_kv.to_le_bytes());
        out.extend(&self.kv);
        let mut offset = 0u64;
        for (name, shape) in &self.tensors {
            put_text(&mut out, &format!("{name}.weight"));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(0u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (4 * shape.iter().product::<u64>()).next_multiple_of(ALIGNMENT as u64);
        }
        let mut rng = Rng::new(seed);
        for (name, shape) in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            let center = match name {
                // attention that isn't one peak: else the smallest rounding is another answer
                _ if name.contains("attn_q_norm") => 0.2,
                _ if name.contains("norm") => 1.0,
                _ => 0.0,
            };
            for _ in 0..shape.iter().product::<u64>() {
                out.extend((center + 0.1 * rng.normal()).to_le_bytes());
            }
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        let file = Temporary::new("gguf");
        std::fs::write(&file.0, out).unwrap();
        file
    }
}

/// Heads; V has K's dimension unless another is given.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub n_head: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
}

/// A Llama of three layers.
pub fn llama(heads: Heads) -> Temporary {
    decoder("llama", heads, heads.head_dim).write(11)
}

/// MiMo 2 of three layers: V has a dimension of its own, heads have attention sinks, the middle layer a sliding window.
pub fn mimo2(heads: Heads, head_dim_v: u32) -> Temporary {
    let mut g = decoder("mimo2", heads, head_dim_v);
    g.u32("expert_feed_forward_length", 0);
    g.u32("attention.sliding_window", 64);
    g.array("attention.sliding_window_pattern", &[0, 1, 0]);
    for i in 0..3 {
        g.tensor(format!("blk.{i}.attn_sinks"), &[heads.n_head]);
    }
    g.write(13)
}

/// Three layers of attention and a gated feed-forward part, as most architectures have them.
fn decoder(arch: &'static str, heads: Heads, head_dim_v: u32) -> Gguf {
    let (n_vocab, n_embd, n_ff, n_layer) = (64, 64, 96, 3);
    let mut g = Gguf::new(arch, n_vocab);
    g.u32("context_length", 2048);
    g.u32("embedding_length", n_embd);
    g.u32("block_count", n_layer);
    g.u32("feed_forward_length", n_ff);
    g.u32("attention.head_count", heads.n_head);
    g.u32("attention.head_count_kv", heads.n_head_kv);
    g.u32("attention.key_length", heads.head_dim);
    g.u32("attention.value_length", head_dim_v);
    g.u32("rope.dimension_count", heads.head_dim);
    g.f32("attention.layer_norm_rms_epsilon", 1e-5);
    g.tensor("token_embd", &[n_embd, n_vocab]);
    g.tensor("output_norm", &[n_embd]);
    g.tensor("output", &[n_embd, n_vocab]);
    for i in 0..n_layer {
        g.tensor(format!("blk.{i}.attn_norm"), &[n_embd]);
        g.tensor(format!("blk.{i}.attn_q"), &[n_embd, heads.n_head * heads.head_dim]);
        g.tensor(format!("blk.{i}.attn_k"), &[n_embd, heads.n_head_kv * heads.head_dim]);
        g.tensor(format!("blk.{i}.attn_v"), &[n_embd, heads.n_head_kv * head_dim_v]);
        g.tensor(format!("blk.{i}.attn_output"), &[heads.n_head * head_dim_v, n_embd]);
        g.tensor(format!("blk.{i}.ffn_norm"), &[n_embd]);
        g.tensor(format!("blk.{i}.ffn_gate"), &[n_embd, n_ff]);
        g.tensor(format!("blk.{i}.ffn_up"), &[n_embd, n_ff]);
        g.tensor(format!("blk.{i}.ffn_down"), &[n_ff, n_embd]);
    }
    g
}

/// Gemma 3n of 25 layers: every fifth attends to all tokens, the others to a window, and from layer 20 on (which upstream
/// fixes) layers have no K and V of their own; layer 24 reads those of layer 19.
pub fn gemma3n() -> Temporary {
    let (n_vocab, n_embd, n_ff, n_layer, n_head, head_dim) = (64, 64, 96, 25, 2, 64);
    // what upstream fixes: n_altup, laurel_rank, n_embd_altup
    let (n_altup, laurel, n_embd_altup) = (4, 64, 256);
    let mut g = Gguf::new("gemma3n", n_vocab);
    g.u32("context_length", 2048);
    g.u32("embedding_length", n_embd);
    g.u32("embedding_length_per_layer_input", n_embd_altup);
    g.u32("block_count", n_layer);
    g.u32("feed_forward_length", n_ff);
    g.u32("attention.head_count", n_head);
    g.u32("attention.head_count_kv", 1);
    g.u32("attention.key_length", head_dim);
    g.u32("attention.value_length", head_dim);
    g.u32("attention.sliding_window", 64);
    g.f32("attention.layer_norm_rms_epsilon", 1e-6);
    g.tensor("token_embd", &[n_embd, n_vocab]);
    g.tensor("altup_proj", &[n_embd, n_embd, n_altup - 1]);
    g.tensor("altup_unembd_proj", &[n_embd, n_embd, n_altup - 1]);
    g.tensor("per_layer_token_embd", &[n_embd_altup * n_layer, n_vocab]);
    g.tensor("per_layer_model_proj", &[n_embd, n_embd_altup * n_layer]);
    g.tensor("per_layer_proj_norm", &[n_embd_altup]);
    g.tensor("output_norm", &[n_embd]);
    for i in 0..n_layer {
        let matrices = [
            ("attn_q", [n_embd, head_dim * n_head]),
            ("attn_k", [n_embd, head_dim]),
            ("attn_v", [n_embd, head_dim]),
            ("attn_output", [head_dim * n_head, n_embd]),
            ("ffn_gate", [n_embd, n_ff]),
            ("ffn_up", [n_embd, n_ff]),
            ("ffn_down", [n_ff, n_embd]),
            ("inp_gate", [n_embd, n_embd_altup]),
            ("proj", [n_embd_altup, n_embd]),
            ("altup_correct_coef", [n_altup, n_altup]),
            ("altup_predict_coef", [n_altup, n_altup * n_altup]),
            ("altup_router", [n_embd, n_altup]),
            ("laurel_l", [n_embd, laurel]),
            ("laurel_r", [laurel, n_embd]),
        ];
        for (name, shape) in matrices {
            g.tensor(format!("blk.{i}.{name}"), &shape);
        }
        for name in [
            "attn_norm",
            "post_attention_norm",
            "ffn_norm",
            "post_ffw_norm",
            "post_norm",
            "altup_correct_scale",
            "altup_router_norm",
            "laurel_post_norm",
        ] {
            g.tensor(format!("blk.{i}.{name}"), &[n_embd]);
        }
        g.tensor(format!("blk.{i}.attn_q_norm"), &[head_dim]);
        g.tensor(format!("blk.{i}.attn_k_norm"), &[head_dim]);
    }
    g.write(12)
}
