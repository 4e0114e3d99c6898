//! Views refuse what they can't hold.

use pmkvq::geometry::{BlockEntry, Side};
use pmkvq::kernels::{Isa, KernelError, MaskF16, PartialsMut, RowsF32, SideView};

#[test]
fn views_check_their_arguments() {
    let mut pool = vec![0u64; 4096];
    let table = [BlockEntry::EMPTY; 2];
    let mut params = vec![0u16; 4096];
    let (pool, params) = (pool.as_mut_ptr().cast::<u8>(), params.as_mut_ptr());
    let view = |pool, params, heads, d, group| unsafe {
        SideView::new(Side::K, pool, table.as_ptr(), params, heads, 2, 2, d, group).map(|_| ())
    };
    assert_eq!(view(pool, params, 1, 64, 64), Ok(()));
    assert_eq!(view(pool, std::ptr::null_mut(), 1, 72, 0), Ok(()));
    assert_eq!(view(std::ptr::null_mut(), params, 1, 64, 64), Err(KernelError::Null("the pool")));
    assert_eq!(view(pool, std::ptr::null_mut(), 1, 64, 64), Err(KernelError::Null("the parameters")));
    assert!(matches!(view(pool.wrapping_add(1), params, 1, 64, 64), Err(KernelError::Misaligned(_))));
    for (heads, d, group) in [(0, 64, 64), (1, 0, 0), (1, 5000, 0), (1, 72, 72), (1, 64, 48), (1, 256, 256), (1, 64, 8)]
    {
        assert!(matches!(view(pool, params, heads, d, group), Err(KernelError::Shape(_))), "{heads} {d} {group}");
    }
    let x = [0.0f32; 8];
    unsafe {
        assert!(RowsF32::new(std::ptr::null(), 4, 1, 1, 0, 0).is_err());
        assert!(RowsF32::new(x.as_ptr(), 0, 1, 1, 0, 0).is_err());
        assert!(RowsF32::new(x.as_ptr(), 4, 1, 1, 2, 0).is_err());
        assert!(MaskF16::new(std::ptr::null(), 4, 1, 0).is_err());
        assert!(PartialsMut::new(std::ptr::null_mut(), 4).is_err());
    }
    assert!(RowsF32::from_slice(&x, 3, 1).is_err());
    assert!(MaskF16::from_slice(&[0; 5], 2).is_err());
}

#[test]
fn errors_have_codes_and_words() {
    let all = [
        KernelError::Null("x"),
        KernelError::Misaligned("x"),
        KernelError::Shape("x"),
        KernelError::Width { block: 1, width: 3 },
        KernelError::MissingPage { block: 1, slot: 2 },
        KernelError::PageRange { block: 1, page: -7 },
        KernelError::CellRange { cell: -1 },
        KernelError::BlockRange { block: 1 },
        KernelError::Thread,
        KernelError::Isa,
    ];
    let codes: std::collections::HashSet<i32> = all.iter().map(|e| e.code()).collect();
    assert_eq!(codes.len(), all.len());
    assert!(!codes.contains(&0));
    assert!(all.iter().all(|e| !e.to_string().is_empty()));
    assert!(KernelError::PageRange { block: 1, page: -7 }.to_string().contains("-7"));
}

#[test]
fn the_scalar_level_is_always_there() {
    assert!(Isa::Reference.available() && Isa::Scalar.available() && Isa::best().available());
}
