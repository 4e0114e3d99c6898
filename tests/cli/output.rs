//! Files that are written whole or not at all, and readers that leave early.

use super::tool::Tool;

const MAKE: &str = "plan --shape shape.json --ctx 4096 --uniform 4";
const SWEEP: &str = "plan --shape shape.json --ctx 4096 --sensitivity s.json --sweep";

#[test]
fn a_file_instead_of_standard_output() {
    let tool = Tool::new("file");
    let printed = tool.good(MAKE);
    let ran = tool.good(&format!("{MAKE} -o plan.json"));
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", printed.err.as_str()));
    assert_eq!(tool.read("plan.json"), printed.out);
    tool.good(&format!("{MAKE} --output plan.json"));
    assert_eq!(tool.names(), ["plan.json", "s.json", "shape.json"]);
}

#[test]
fn what_was_there_stays_when_a_plan_can_t_be_made() {
    let tool = Tool::new("keep");
    tool.file("plan.json", "precious");
    let ran = tool.run("plan --shape shape.json --ctx 4096 --uniform 4 --budget 1K -o plan.json");
    assert_eq!(ran.code, 1);
    assert_eq!(tool.read("plan.json"), "precious");
    assert_eq!(tool.names(), ["plan.json", "s.json", "shape.json"]);
}

#[test]
fn places_that_can_t_be_written() {
    let tool = Tool::new("places");
    std::fs::create_dir(tool.folder.join("sub")).unwrap();
    for (place, expected) in
        [("none/plan.json", "No such file"), ("sub", "directory"), ("s.json/plan.json", "directory")]
    {
        let ran = tool.run(&format!("{MAKE} -o {place}"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{place}");
        assert!(ran.err.starts_with(&format!("pmkvq: {place}: ")) && ran.err.contains(expected), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    assert_eq!(tool.names(), ["s.json", "shape.json", "sub"]);
}

#[cfg(unix)]
#[test]
fn standard_output_by_its_name() {
    let tool = Tool::new("dev");
    let printed = tool.good(MAKE);
    assert_eq!(tool.good(&format!("{MAKE} -o /dev/stdout")).out, printed.out);
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let tool = Tool::new("pipe");
    tool.good(&format!("{MAKE} -o plan.json"));
    for args in [
        MAKE,
        SWEEP,
        "show plan.json",
        "check plan.json --shape shape.json",
        "diff plan.json plan.json",
        "doctor",
        "--help",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = tool.command(args).stdout(writer).output().unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(0), "{args}: {err}");
        assert!(!err.contains("panicked") && !err.contains("pipe"), "{args}: {err}");
    }
}

/// What was made is worth more than what is said about it.
#[cfg(unix)]
#[test]
fn nobody_reads_standard_error() {
    let tool = Tool::new("stderr");
    // a plan says what it is, and remarks on zeros
    tool.file("zeros.json", &tool.read("s.json").replace("[0, 1, 4, 16]", "[0, 0, 4, 16]"));
    let zeros = "plan --shape shape.json --ctx 4096 --sensitivity zeros.json --budget 8M";
    for (args, code) in [(MAKE, 0), (zeros, 0), ("show none.json", 1), ("diff none.json none.json", 2)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = tool.command(args).stderr(writer).output().unwrap();
        assert_eq!(ran.status.code(), Some(code), "{args}");
        assert_eq!(ran.stdout.is_empty(), code > 0, "{args}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure() {
    let tool = Tool::new("full");
    tool.good(&format!("{MAKE} -o plan.json"));
    for args in [MAKE, SWEEP, "show plan.json", "check plan.json --shape shape.json", "doctor"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = tool.command(args).stdout(full).output().unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{args}: {err}");
        assert!(err.starts_with("pmkvq: standard output: No space left"), "{args}: {err}");
    }
}
