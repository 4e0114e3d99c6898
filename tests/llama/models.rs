//! Small models with random weights: shapes that upstream's test-llama-archs does not make.

use super::gguf::Gguf;
use super::temporary::Temporary;

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
