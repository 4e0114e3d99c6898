//! Which instructions the kernels use.

use super::KernelError;
#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::sync::OnceLock;

/// A level of instructions that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// The scalar versions that are written for reading.
    Reference,
    /// The fast versions in plain Rust, for whatever the target guarantees.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2 and the dot products of AVX-VNNI, or their twins of AVX-512 VNNI on vectors of 256 bits.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// NEON and its dot products.
    Neon,
}

impl Isa {
    pub const ALL: [Isa; 6] = [Isa::Reference, Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Neon];

    pub const fn name(self) -> &'static str {
        match self {
            Isa::Reference => "reference",
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// Whether this CPU can run it.
    pub fn available(self) -> bool {
        match self {
            Isa::Reference | Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => {
                Isa::Avx2.available()
                    && (is_x86_feature_detected!("avxvnni")
                        || (is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni")))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => false,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod"),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon => false,
        }
    }

    /// What every kernel looks at first.
    ///
    /// # Errors
    /// A level that the CPU lacks, a thread that is none of `nth`.
    pub(super) fn check(self, ith: usize, nth: usize) -> Result<(), KernelError> {
        match self.available() {
            false => Err(KernelError::Isa),
            true if ith >= nth => Err(KernelError::Thread),
            true => Ok(()),
        }
    }

    /// The best that this CPU has.
    pub fn best() -> Isa {
        [Isa::Avx512, Isa::AvxVnni, Isa::Avx2, Isa::Neon].into_iter().find(|l| l.available()).unwrap_or(Isa::Scalar)
    }

    /// The level in use: `PMKVQ_CPU`, read once, or the best.
    pub fn selected() -> Result<Isa, KernelError> {
        static SELECTED: OnceLock<Result<Isa, KernelError>> = OnceLock::new();
        *SELECTED.get_or_init(|| match std::env::var_os("PMKVQ_CPU") {
            None => Ok(Isa::best()),
            Some(name) if name.is_empty() => Ok(Isa::best()),
            Some(name) => Isa::ALL
                .into_iter()
                .find(|l| name.to_str() == Some(l.name()))
                .filter(|l| l.available())
                .ok_or(KernelError::Isa),
        })
    }
}
