//! The PTX in what nvcc gives to `__cudaRegisterFatBinary`.

/// The text of the first PTX entry, if there is one that is not compressed.
///
/// # Safety
/// `wrapper` is nvcc's: magic, version, and a pointer to a fat binary that is as long as it says.
pub unsafe fn ptx(wrapper: *const u8) -> Result<&'static str, String> {
    let data = *wrapper.add(8).cast::<*const u8>();
    if *wrapper.cast::<u32>() != 0x466243b1 || *data.cast::<u32>() != 0xba55ed50 {
        return Err("no fat binary".into());
    }
    let header = *data.add(6).cast::<u16>() as usize;
    let size = *data.add(8).cast::<u64>() as usize;
    let (mut at, end) = (data.add(header), data.add(header + size));
    while at < end {
        // kind, version, size of this header and of what follows, and of that when compressed
        let kind = *at.cast::<u16>();
        let skip = *at.add(4).cast::<u32>() as usize;
        let size = *at.add(8).cast::<u64>() as usize;
        let compressed = *at.add(16).cast::<u32>();
        if kind == 1 {
            if compressed != 0 {
                return Err("the PTX is compressed: nvcc needs --no-compress".into());
            }
            let bytes = std::slice::from_raw_parts(at.add(skip), size);
            let text = &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(size)];
            return std::str::from_utf8(text).map_err(|e| format!("PTX that is no text: {e}"));
        }
        at = at.add(skip + size);
    }
    Err("there is no PTX in the fat binary: nvcc needs -gencode arch=compute_XX,code=compute_XX".into())
}
