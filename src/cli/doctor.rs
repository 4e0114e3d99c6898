//! `pmkvq doctor`

use super::output::print;
use crate::build_info::{COMMIT, PATCHES, RELEASE};
use crate::kernels::Isa;

pub fn run() -> Result<(), String> {
    let isa = Isa::selected().map_err(|e| e.to_string())?;
    let mut lines = vec![
        format!("pmkvq        {}", env!("CARGO_PKG_VERSION")),
        format!("upstream     llama.cpp {COMMIT} ({RELEASE})"),
        format!("patches      {}", PATCHES.len()),
    ];
    lines.extend(PATCHES.iter().map(|(name, title)| format!("             {name}: {title}")));
    lines.extend(backends());
    lines.push(format!("CPU features {}", features().join(" ")));
    lines.push(format!("kernels      {isa:?} (PMKVQ_CPU forces another)"));
    print(&(lines.join("\n") + "\n"))
}

/// The backends that were linked, and where the KV cache of layers on each of their devices is.
#[cfg(feature = "llama")]
fn backends() -> Vec<String> {
    use crate::bytes::human;
    use crate::ffi;

    let found = ffi::backends();
    let names: Vec<&str> = found.iter().map(|b| b.name.as_str()).collect();
    let mut lines = vec![format!("backends     {}", names.join(" "))];
    for backend in &found {
        let mut devices: Vec<String> = backend.devices.iter().map(device).collect();
        if devices.is_empty() {
            devices.push(format!("{}: no usable device, everything runs on the CPU", backend.name));
        }
        lines.extend(devices.iter().map(|d| format!("device       {d}")));
    }
    return lines;

    fn device(of: &ffi::Device) -> String {
        let memory = if of.memory == 0 { String::new() } else { format!(", {}", human(of.memory)) };
        let cache = match (of.accelerator, of.operations) {
            (true, _) => "helps the CPU",
            (false, true) => "has the progressive KV cache's operations",
            (false, false) => "lacks the progressive KV cache's operations: the cache of its layers is on the CPU",
        };
        format!("{}: {}{memory}; {cache}", of.name, of.description)
    }
}

#[cfg(not(feature = "llama"))]
fn backends() -> Vec<String> {
    vec!["backends     none (built without llama.cpp)".to_string()]
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected;
    let all = [
        ("neon", is_aarch64_feature_detected!("neon")),
        ("dotprod", is_aarch64_feature_detected!("dotprod")),
        ("i8mm", is_aarch64_feature_detected!("i8mm")),
        ("sve", is_aarch64_feature_detected!("sve")),
        ("bf16", is_aarch64_feature_detected!("bf16")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    vec![std::env::consts::ARCH]
}
