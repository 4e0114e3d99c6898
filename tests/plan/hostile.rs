//! Torch files that were made to do harm: each is refused with a message, nothing is executed, nothing takes long.

use pmkvq::sensitivity::SensitivityFile;

use super::files::Folder;
use super::zipped::{archive, Entry};

/// What a file with this pickle gets.
fn message(pickle: &[u8]) -> String {
    refused(&archive(&[Entry::new("x/data.pkl", pickle)]))
}

fn refused(bytes: &[u8]) -> String {
    let e = SensitivityFile::from_bytes(bytes, "hostile").unwrap_err().to_string();
    assert!(e.len() < 400 && !e.contains('\n'), "{e}");
    e
}

#[test]
fn a_call_of_the_system_is_refused_and_not_made() {
    let folder = Folder::new("hostile");
    let target = folder.0.join("owned");
    let command = format!("touch {}", target.display());
    let text = |s: &str| [&[b'X'][..], &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    let short = |s: &str| [&[0x8c, s.len() as u8][..], s.as_bytes()].concat();
    for name in
        ["os system", "posix system", "nt system", "builtins eval", "builtins exec", "subprocess call", "torch load"]
    {
        let (module, name) = name.split_once(' ').unwrap();
        let global = format!("c{module}\n{name}\n").into_bytes();
        let reduce = [b"\x80\x02".to_vec(), global, text(&command), b"\x85R.".to_vec()].concat();
        let found = message(&reduce);
        assert!(found.contains(&format!("names '{module}.{name}' at byte 2")), "{found}");
        assert!(found.ends_with("refused, and nothing was executed"), "{found}");
        // the same by a name from the stack
        let by_stack =
            [b"\x80\x04".to_vec(), short(module), short(name), b"\x93".to_vec(), text(&command), b"\x85R.".to_vec()];
        assert!(message(&by_stack.concat()).contains(&format!("names '{module}.{name}'")));
    }
    // the other ways to call: inst, obj, newobj, newobj_ex, and a reduce hidden in an otherwise good dict
    let others: [&[u8]; 5] = [
        b"(X\x01\0\0\0xios\nsystem\n.",
        b"(cos\nsystem\nX\x01\0\0\0xo.",
        b"cos\nsystem\n)\x81.",
        b"cos\nsystem\n)}\x92.",
        b"\x80\x02}(X\x0d\0\0\0k_sensitivity}(K\x08](G\0\0\0\0\0\0\0\0cos\nsystem\nX\x01\0\0\0x\x85Reuu.",
    ];
    for pickle in others {
        let found = message(pickle);
        assert!(found.contains("os.system") || found.contains("refused"), "{found}");
    }
    // extension registry, persistent ids by text, old numbers
    for pickle in [&b"\x82\x01."[..], b"Pid\n.", b"I1\n.", b"S'x'\n.", b"\x97."] {
        assert!(message(pickle).contains("that data does not need; refused"), "{}", message(pickle));
    }
    // a bare pickle, which old versions of torch wrote, is not even started
    let bare = [b"\x80\x02cos\nsystem\n".to_vec(), text(&command), b"\x85R.".to_vec()].concat();
    assert!(refused(&bare).contains("an old torch file (a bare pickle)"));
    assert!(!target.exists());
}

#[test]
fn names_from_a_pickle_are_shortened() {
    let found = message(&[&b"c"[..], &b"x\x1b".repeat(50_000), b"\n", &b"y".repeat(50_000), b"\n."].concat());
    assert!(found.contains("names 'x\\u{1b}x"), "{found}");
}

#[test]
fn pickles_that_make_no_sense() {
    let cases: [(&[u8], &str); 26] = [
        (b"", "ends in the middle of an operation (byte 0)"),
        (b"\x80", "ends in the middle of an operation (byte 0)"),
        (b"]", "ends in the middle of an operation (byte 1)"),
        (b".", "nothing is on the stack"),
        (b"0.", "nothing is on the stack"),
        (b"(.", "nothing is on the stack"),
        (b"e.", "no mark is set"),
        (b"]N)a.", "nothing is on the stack"),
        (b"NNa.", "items for something that is not a list"),
        (b"N(Ne.", "items for something that is not a list"),
        (b"NNNs.", "items for something that is not a dict"),
        (b"}(Nu.", "a key without a value"),
        (b"q\0.", "nothing to remember"),
        (b"h\0.", "never remembered"),
        (b"NNR.", "not one of the known names"),
        (b"NNb.", "a state for something that has none"),
        (b"NQ.", "is not a storage of numbers"),
        (b"NN\x93.", "a name that is not a text"),
        (b"X\x02\0\0\0\xff\xfe.", "a text that is not UTF-8"),
        (b"X\xff\xff\xff\xffabc.", "ends in the middle of an operation (byte 0)"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "ends in the middle of an operation (byte 0)"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "ends in the middle of an operation (byte 0)"),
        (b"\x8a\x09123456789.", "more than 64 bits"),
        (b"G\0\0.", "ends in the middle of an operation (byte 0)"),
        (b"cnumpy\ndtype\nX\x02\0\0\0c8\x85R.", "arguments that don't make a tensor or a number"),
        (b"ccollections\nOrderedDict\nN\x85R.", "arguments that don't make a tensor or a number"),
    ];
    for (pickle, expected) in cases {
        let found = message(pickle);
        // some of these leave a mark behind and are refused one operation earlier
        assert!(found.contains(expected) || expected == "nothing is on the stack", "{pickle:?}: {found}");
    }
}

#[test]
fn what_is_not_the_format() {
    let cases: [(&[u8], &str); 13] = [
        (b"N.", "the file: expected a dict with k_sensitivity and v_sensitivity"),
        (b"].", "the file: expected a dict with k_sensitivity and v_sensitivity"),
        (b"}.", "k_sensitivity is missing"),
        (b"}X\x0d\0\0\0k_sensitivity}s.", "k_sensitivity: expected at least one width"),
        (b"}X\x0d\0\0\0k_sensitivity]s.", "k_sensitivity: expected a dict from width to a list"),
        (b"}X\x0d\0\0\0k_sensitivity}K\x03]ss.", "k_sensitivity[3]: 3 is not a width"),
        (b"}X\x0d\0\0\0k_sensitivity}J\xff\xff\xff\xff]ss.", "k_sensitivity[-1]: -1 is not a width"),
        (b"}X\x0d\0\0\0k_sensitivity}K\x08]sK\x08]ss.", "k_sensitivity[8]: expected each width once"),
        (b"}X\x0d\0\0\0k_sensitivity}K\x08Nss.", "k_sensitivity[8]: expected a list"),
        (b"}X\x0d\0\0\0k_sensitivity}K\x08]Nass.", "k_sensitivity[8][0]: expected a number"),
        (
            b"}X\x0d\0\0\0k_sensitivity}K\x08]G\x7f\xf8\0\0\0\0\0\0ass.",
            "k_sensitivity[8][0]: NaN and infinities are not allowed",
        ),
        (
            b"}X\x0d\0\0\0k_sensitivity}K\x08]G\x7f\xf0\0\0\0\0\0\0ass.",
            "k_sensitivity[8][0]: NaN and infinities are not allowed",
        ),
        (
            b"}X\x0d\0\0\0k_sensitivity}K\x08]G\xbf\xf0\0\0\0\0\0\0ass.",
            "k_sensitivity[8][0]: -1 is negative; expected at least 0",
        ),
    ];
    for (pickle, expected) in cases {
        let found = message(pickle);
        assert!(found.starts_with(expected), "{found}");
    }
    // a dict that holds itself, a list that holds itself
    assert!(message(b"}q\0X\x0d\0\0\0k_sensitivityh\0s.").starts_with("k_sensitivity["));
    assert!(
        message(b"}X\x0d\0\0\0k_sensitivity}K\x08]q\0h\0ass.").starts_with("k_sensitivity[8][0]: expected a number")
    );
}

#[test]
fn both_sides_agree() {
    let side = |name: &str, width: u8, n: usize| {
        let list = [b"](".to_vec(), b"G\x3f\xf0\0\0\0\0\0\0".repeat(n), b"e".to_vec()].concat();
        [b"X\x0d\0\0\0".to_vec(), name.as_bytes().to_vec(), vec![b'}', b'K', width], list, b"ss".to_vec()].concat()
    };
    let file = |k: Vec<u8>, v: Vec<u8>| [b"}".to_vec(), k, v, b".".to_vec()].concat();
    let (k, v) = ("k_sensitivity", "v_sensitivity");
    assert_eq!(message(&file(side(k, 8, 3), side(v, 4, 3))), "v_sensitivity: expected the widths of k_sensitivity");
    assert_eq!(
        message(&file(side(k, 8, 3), side(v, 8, 2))),
        "v_sensitivity[8] has 2 entries: expected 3 as k_sensitivity[8]"
    );
    assert_eq!(
        message(&file(side(k, 8, 0), side(v, 8, 0))),
        "k_sensitivity[8] has 0 entries: expected 1 as k_sensitivity[8]"
    );
    assert!(message(&file(side(k, 8, 3), Vec::new())).starts_with("v_sensitivity is missing"));
    assert!(message(&file(side(k, 8, 1025), side(v, 8, 1025)))
        .starts_with("k_sensitivity[8] has 1025 entries: expected at most 1024"));
    assert!(message(&file(side(k, 1, 3), side(v, 1, 3))).starts_with("k_sensitivity: expected at least one width"));
}

/// `k_sensitivity[8]` as one tensor: `n` numbers said to be in the storage, shape and stride of it.
fn tensor(n: i32, offset: i32, shape: &[i32], stride: &[i32]) -> Vec<u8> {
    let int = |v: i32| [&b"J"[..], &v.to_le_bytes()].concat();
    let tuple = |v: &[i32]| [b"(".to_vec(), v.iter().flat_map(|v| int(*v)).collect(), b"t".to_vec()].concat();
    let storage = [&b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0\x30X\x03\0\0\0cpu"[..], &int(n), b"tQ"];
    [
        b"}X\x0d\0\0\0k_sensitivity}K\x08ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
        storage.concat(),
        int(offset),
        tuple(shape),
        tuple(stride),
        b"\x89ccollections\nOrderedDict\n)RtRss.".to_vec(),
    ]
    .concat()
}

#[test]
fn tensors_that_reach_out_of_their_storage() {
    let with =
        |pickle: Vec<u8>| refused(&archive(&[Entry::new("x/data.pkl", &pickle), Entry::new("x/data/0", &[0; 16])]));
    // 4 numbers, as there are: only the other half of the file is missing
    assert_eq!(with(tensor(4, 0, &[4], &[1])), "v_sensitivity is missing");
    for (n, offset, shape, stride) in [
        (4, 1, &[4][..], &[1][..]),
        (4, 0, &[4], &[2]),
        (4, 0, &[2, 2], &[3, 1]),
        (4, i32::MAX, &[1], &[1]),
        (4, 0, &[2], &[i32::MAX]),
    ] {
        assert_eq!(
            with(tensor(n, offset, shape, stride)),
            "k_sensitivity[8]: expected a tensor that lies in its storage"
        );
    }
    // larger than its storage: numbers would be repeated
    for (shape, stride) in [(&[1 << 30][..], &[0][..]), (&[i32::MAX; 4], &[0; 4]), (&[5], &[0])] {
        assert_eq!(with(tensor(4, 0, shape, stride)), "k_sensitivity[8]: expected a tensor no larger than its storage");
    }
    assert_eq!(with(tensor(4, 0, &[2, 2], &[1])), "k_sensitivity[8]: expected as many strides as dimensions");
    for n in [5, i32::MAX] {
        assert_eq!(with(tensor(n, 0, &[4], &[1])), "the torch file has no x/data/0, or not enough of it");
    }
    assert!(with(tensor(-1, 0, &[4], &[1])).contains("is not a storage of numbers"));
    assert!(with(tensor(4, -1, &[4], &[1])).contains("don't make a tensor"));
    assert!(with(tensor(4, 0, &[-4], &[1])).contains("don't make a tensor"));
}

#[test]
fn a_file_that_copies_itself_in_memory_is_refused() {
    // 4 MiB of text, used a hundred thousand times as the bytes of a number, and as the name of a storage
    let text = [b"X".to_vec(), (4u32 << 20).to_le_bytes().to_vec(), vec![b'x'; 4 << 20], b"q\0".to_vec()].concat();
    let encode = b"c_codecs\nencode\nq\x01X\x06\0\0\0latin1q\x02".to_vec();
    let bytes = [text.clone(), encode, b"h\x01h\0h\x02\x86R".repeat(100_000), b".".to_vec()].concat();
    assert!(message(&bytes).contains("don't make a tensor or a number"));
    let start = b"ctorch\nFloatStorage\nq\x01X\x07\0\0\0storageq\x02".to_vec();
    let keys = [text, start, b"(h\x02h\x01h\0NK\x01tQ".repeat(100_000), b".".to_vec()].concat();
    assert!(message(&keys).contains("is not a storage of numbers"));
}
