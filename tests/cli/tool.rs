//! Running the tool in a folder of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

use pmkvq::plan::Plan;

/// A model of four layers, two KV heads of 128.
pub const SHAPE: &str = r#"{"arch": "llama", "name": "a test", "n_ctx_train": 32768, "layers": [
  {"il": 0, "n_head_kv": 2, "head_dim_k": 128, "head_dim_v": 128},
  {"il": 1, "n_head_kv": 2, "head_dim_k": 128, "head_dim_v": 128},
  {"il": 2, "n_head_kv": 2, "head_dim_k": 128, "head_dim_v": 128},
  {"il": 3, "n_head_kv": 2, "head_dim_k": 128, "head_dim_v": 128}
]}"#;

/// K costs more than V, and layer 0 more than the others.
pub const SENSITIVITY: &str = r#"{"pmkvq_sensitivity": 1, "source": "by hand", "method": "gradient", "widths": [16, 8, 4, 2], "layers": [
  {"il": 0, "k": [0, 1, 4, 16], "v": [0, 0.5, 2, 8]},
  {"il": 1, "k": [0, 0.1, 0.4, 1.6], "v": [0, 0.05, 0.2, 0.8]},
  {"il": 2, "k": [0, 0.11, 0.41, 1.7], "v": [0, 0.06, 0.21, 0.81]},
  {"il": 3, "k": [0, 0.12, 0.42, 1.8], "v": [0, 0.07, 0.22, 0.82]}
]}"#;

/// A folder with `shape.json` and `s.json`, removed when it is dropped.
pub struct Tool {
    pub folder: PathBuf,
}

/// What a run left behind.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Tool {
    pub fn new(name: &str) -> Tool {
        let folder = std::env::temp_dir().join(format!("pmkvq-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let tool = Tool { folder };
        tool.file("shape.json", SHAPE);
        tool.file("s.json", SENSITIVITY);
        tool
    }

    pub fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }

    /// Names of what is in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The tool with arguments that have no blanks in them.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmkvq"));
        command.current_dir(&self.folder).args(args.split_whitespace());
        command
    }

    pub fn run(&self, args: &str) -> Ran {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let ran = Ran {
            code: status.code().expect("killed"),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        };
        assert!(!ran.err.contains("panicked"), "{args}: {}", ran.err);
        ran
    }

    /// A run that must succeed.
    pub fn good(&self, args: &str) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args}: {}", ran.err);
        ran
    }

    /// The plan that `pmkvq plan --shape shape.json` prints with these arguments.
    pub fn plan(&self, args: &str) -> Plan {
        let ran = self.good(&format!("plan --shape shape.json {args}"));
        Plan::parse(&ran.out).unwrap_or_else(|e| panic!("{args}: {e}\n{}", ran.out))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
