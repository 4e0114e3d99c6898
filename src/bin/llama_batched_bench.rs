//! `llama-batched-bench` with the progressive KV cache.
#![no_main]

pmkvq::llama_program!(pmkvq_entry_llama_batched_bench);
