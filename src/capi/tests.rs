//! The structs against the header, as the C++ compiler sees it.

use super::types::*;
use crate::policy::BlockOp;
use std::mem::size_of;

/// Sizes that `llama/pmkvq.h` gives on a 64-bit machine; `llama/pmkvq-runtime.cpp` asserts the same numbers.
#[test]
fn sizes_agree_with_the_header() {
    assert_eq!(size_of::<BlockOp>(), 80);
    assert_eq!(size_of::<LayerDesc>(), 24);
    assert_eq!(size_of::<ModelDesc>(), 48);
    assert_eq!(size_of::<CellsC>(), 24);
    assert_eq!(size_of::<PoolDesc>(), 16);
    assert_eq!(size_of::<SideDesc>(), 24);
    assert_eq!(size_of::<TransformDesc>(), 40);
    assert_eq!(size_of::<TableChange>(), 24);
    assert_eq!(size_of::<CacheDesc>(), 40);
    assert_eq!(size_of::<OpStore>(), 88);
    assert_eq!(size_of::<OpShrink>(), 80);
    assert_eq!(size_of::<OpAttn>(), 224);
    assert_eq!(size_of::<RowTransformC>(), 24);
    assert_eq!(size_of::<TransformRowsC>(), 64);
    assert_eq!(size_of::<OpTransform>(), 200);
    assert_eq!(size_of::<OpMerge>(), 72);
    assert_eq!(size_of::<OpLoad>(), 72);
    assert_eq!(size_of::<StateIo>(), 48);
    assert_eq!(size_of::<Runtime>(), 288);
}
