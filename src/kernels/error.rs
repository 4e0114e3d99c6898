//! What a kernel refuses.

use std::fmt;

/// Why a kernel did not do (all of) its work. A refused token, block or head is left alone; the others are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// An argument that must not be null is null.
    Null(&'static str),
    /// An address or a stride does not suit the type that is read through it.
    Misaligned(&'static str),
    /// A size is zero, too large, or disagrees with another argument.
    Shape(&'static str),
    /// A block's width is none of 16, 8, 4, 2, or the side has no groups to be narrowed by.
    Width { block: usize, width: i32 },
    /// A block needs a page that its table entry does not have.
    MissingPage { block: usize, slot: usize },
    /// A page number beyond the pool.
    PageRange { block: usize, page: i32 },
    /// A cell beyond the table, or beyond the mask.
    CellRange { cell: i64 },
    /// A block operation on a block beyond the table.
    BlockRange { block: usize },
    /// `ith` is not below `nth`.
    Thread,
    /// `PMKVQ_CPU` asks for instructions that this CPU lacks, or is none of avx512, avxvnni, avx2, neon, scalar,
    /// reference.
    Isa,
}

impl KernelError {
    /// A stable number for the C interface; never 0.
    pub const fn code(self) -> i32 {
        match self {
            KernelError::Null(_) => 1,
            KernelError::Misaligned(_) => 2,
            KernelError::Shape(_) => 3,
            KernelError::Width { .. } => 4,
            KernelError::MissingPage { .. } => 5,
            KernelError::PageRange { .. } => 6,
            KernelError::CellRange { .. } => 7,
            KernelError::BlockRange { .. } => 8,
            KernelError::Thread => 9,
            KernelError::Isa => 10,
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            KernelError::Null(what) => write!(f, "{what} is null"),
            KernelError::Misaligned(what) => write!(f, "{what} is not aligned for its type"),
            KernelError::Shape(what) => write!(f, "{what}"),
            KernelError::Width { block, width } => {
                write!(f, "block {block} has width {width}, which this side cannot have")
            }
            KernelError::MissingPage { block, slot } => write!(f, "block {block} has no page in slot {slot}"),
            KernelError::PageRange { block, page } => write!(f, "block {block} names page {page}, beyond the pool"),
            KernelError::CellRange { cell } => write!(f, "cell {cell} is beyond the cache"),
            KernelError::BlockRange { block } => write!(f, "block {block} is beyond the table"),
            KernelError::Thread => write!(f, "the thread index is not below the number of threads"),
            KernelError::Isa => write!(
                f,
                "PMKVQ_CPU must be avx512, avxvnni, avx2, neon, scalar or reference, and a level that this CPU has; unset it to choose the best"
            ),
        }
    }
}

impl std::error::Error for KernelError {}
