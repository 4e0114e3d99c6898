//! Files that are not there, not text, not files, too large; and writing one.

use std::path::{Path, PathBuf};

use pmkvq::plan::{write_beside, Plan, PlanError, MAX_FILE};

use super::samples;

/// A folder of its own for a test, removed when it is dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("pmkvq-plan-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Names of what is in the folder, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn message(path: &Path) -> String {
    Plan::load(path).unwrap_err().to_string()
}

#[test]
fn files_that_are_no_plans() {
    let folder = Folder::new("load");
    assert!(message(&folder.0.join("none.json")).contains("No such file"));
    assert_eq!(message(&folder.0), "is a folder, not a file");
    assert_eq!(message(&folder.file("empty", b"")), "not valid JSON: the file is empty");
    let utf16: Vec<u8> = "{\"pmkvq_plan\": 1}".encode_utf16().flat_map(u16::to_le_bytes).chain([0xff]).collect();
    assert_eq!(message(&folder.file("utf16", &utf16)), "the file is not text (UTF-8)");
    // a sparse file: its size alone says that it is no plan
    let large = folder.file("large", b"{");
    std::fs::File::options().write(true).open(&large).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(Plan::load(&large).unwrap_err(), PlanError::TooLarge { bytes: 1 << 40, most: MAX_FILE });
    assert!(message(&large).contains("1099511627776 bytes"));
    let plan = samples::rich();
    assert_eq!(Plan::load(&folder.file("plan.json", plan.to_json().as_bytes())).unwrap(), plan);
}

#[cfg(unix)]
#[test]
fn an_endless_file_is_not_read_to_its_end() {
    assert!(matches!(Plan::load(Path::new("/dev/zero")), Err(PlanError::TooLarge { .. })));
    assert_eq!(message(Path::new("/dev/null")), "not valid JSON: the file is empty");
}

#[test]
fn a_file_is_replaced_as_a_whole_or_not_at_all() {
    let folder = Folder::new("write");
    let path = folder.file("plan.json", b"old");
    write_beside(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    write_beside(&folder.0.join("other.json"), b"first").unwrap();
    assert_eq!(folder.names(), ["other.json", "plan.json"]);
    // a folder stays a folder
    let sub = folder.0.join("sub");
    std::fs::create_dir(&sub).unwrap();
    write_beside(&sub, b"x").unwrap_err();
    write_beside(&folder.0.join("none/plan.json"), b"x").unwrap_err();
    write_beside(Path::new(""), b"x").unwrap_err();
    write_beside(Path::new("/"), b"x").unwrap_err();
    assert_eq!(folder.names(), ["other.json", "plan.json", "sub"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_stay_devices() {
    use std::os::unix::fs::FileTypeExt;
    let folder = Folder::new("links");
    let path = folder.file("plan.json", b"old");
    let link = folder.0.join("link");
    std::os::unix::fs::symlink("plan.json", &link).unwrap();
    write_beside(&link, b"new").unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    // through a link, so that a failure of this test does not cost the machine its device
    let null = folder.0.join("null");
    std::os::unix::fs::symlink("/dev/null", &null).unwrap();
    write_beside(&null, b"new").unwrap();
    assert!(std::fs::metadata(&null).unwrap().file_type().is_char_device());
    assert_eq!(folder.names(), ["link", "null", "plan.json"]);
}
