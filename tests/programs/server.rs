//! `llama-server` with a plan: several slots on one cache, prefix reuse, states in files and in RAM, context shift, adapters.

use super::common::*;
use super::gguf::Gguf;
use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

struct Server {
    child: Child,
    port: u16,
    log: Temporary,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = Temporary::new("log");
        let child = command("llama-server")
            .arg("-m")
            .arg(model())
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "-t", "1", "--no-webui", "--no-warmup", "-v"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log.0).unwrap())
            .spawn()
            .unwrap();
        let mut server = Server { child, port, log };
        let started = Instant::now();
        while server.get("/health").0 != 200 {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("llama-server {args:?} ended with {status}: {}", server.log());
            }
            assert!(started.elapsed() < Duration::from_secs(120), "llama-server did not start: {}", server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn log(&self) -> String {
        text(&std::fs::read(&self.log.0).unwrap())
    }

    /// Status and body; status 0 if nobody answers.
    fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return (0, String::new()) };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let mut answer = Vec::new();
        if stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer)).is_err() {
            return (0, String::new());
        }
        let answer = text(&answer);
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |p| p.1);
        (status, body.to_string())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, "")
    }

    fn complete(&self, prompt: &str, n: u32, slot: i32) -> Value {
        self.complete_with(prompt, n, slot, json!({}))
    }

    /// With more fields in the request.
    fn complete_with(&self, prompt: &str, n: u32, slot: i32, more: Value) -> Value {
        let mut body =
            json!({ "prompt": prompt, "n_predict": n, "temperature": 0, "id_slot": slot, "cache_prompt": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = self.request("POST", "/completion", &body.to_string());
        assert_eq!(status, 200, "{answer}\n{}", self.log());
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"))
    }

    fn alive(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the server died: {}", self.log());
        assert_eq!(self.get("/health").0, 200);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn heldout(from: usize, n: usize) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/model/heldout.txt");
    std::fs::read_to_string(path).unwrap()[from..from + n].to_string()
}

#[test]
fn slots_share_a_cache_and_prefixes_are_used_again() {
    let plan = plan(4096, &["--uniform", "4", "--parallel", "4"]);
    let mut server = Server::start(&["-c", "4096", "-np", "4", "--pmkvq-plan", plan.text(), "--no-cache-idle-slots"]);
    let prompt = |(i, key): (usize, &str)| format!("@{key}=47{i}1\n{}\n?{key}=", heldout(3000 * i, 600));
    let prompts: Vec<String> = ["WXYA", "WXYB", "WXYC", "WXYD"].into_iter().enumerate().map(prompt).collect();
    // one after the other, then all at once on other slots: the answers are the same
    let alone: Vec<Value> = prompts.iter().enumerate().map(|(i, p)| server.complete(p, 12, i as i32)).collect();
    for (slot, (prompt, first)) in prompts.iter().zip(&alone).enumerate() {
        let again = server.complete(prompt, 12, slot as i32);
        let reused = again["timings"]["prompt_n"].as_u64().unwrap();
        assert!(reused <= 4, "slot {slot} read {reused} tokens of a prompt that it held");
        assert_eq!(again["content"], first["content"], "slot {slot}");
    }
    std::thread::scope(|s| {
        for (i, (prompt, first)) in prompts.iter().zip(&alone).enumerate() {
            let server = &server;
            s.spawn(move || {
                let other = server.complete(prompt, 12, (i as i32 + 1) % 4);
                assert_eq!(other["content"], first["content"], "prompt {i} on another slot");
            });
        }
    });
    for (i, answer) in alone.iter().enumerate() {
        let text = answer["content"].as_str().unwrap();
        assert!(text.starts_with(&format!("47{i}1")), "prompt {i} was answered with {text:?}");
    }
    server.alive();
}

/// A plan is made for one sequence unless told otherwise; the server has four slots unless told otherwise.
#[test]
fn a_plan_for_one_sequence_serves_the_default_slots() {
    for width in ["16", "8", "4", "2"] {
        let plan = plan(2048, &["--uniform", width]);
        let mut server = Server::start(&["--pmkvq-plan", plan.text()]);
        assert!(server.complete("@ABCD=12\n?ABCD=", 3, -1)["content"].as_str().unwrap().starts_with("12"));
        server.alive();
    }
}

/// The state of a slot goes into a file and comes back into another slot, with others at work.
#[test]
fn slots_are_saved_and_restored() {
    for width in ["8", "2"] {
        let folder = Temporary::new("slots");
        std::fs::create_dir(&folder.0).unwrap();
        let plan = plan(2048, &["--uniform", width, "--static", "--parallel", "2"]);
        let args = ["-c", "2048", "-np", "2", "--pmkvq-plan", plan.text(), "--cache-ram", "0"];
        let mut server = Server::start(&[&args[..], &["--slot-save-path", folder.text()]].concat());
        let prompt = format!("@WXYZ=4711\n{}\n?WXYZ=", heldout(100, 700));
        let first = server.complete(&prompt, 5, 0);
        let slot = |server: &Server, slot: u32, action: &str| {
            let path = format!("/slots/{slot}?action={action}");
            let (status, answer) = server.request("POST", &path, "{\"filename\":\"x.bin\"}");
            assert_eq!(status, 200, "{width} bits: {action}: {answer}\n{}", server.log());
        };
        slot(&server, 0, "save");
        server.complete(&heldout(5000, 600), 5, 0);
        server.complete(&heldout(9000, 400), 5, 1);
        slot(&server, 1, "restore");
        let again = server.complete(&prompt, 5, 1);
        assert!(again["timings"]["prompt_n"].as_u64().unwrap() <= 4, "{width} bits: slot 1 was not restored: {again}");
        assert_eq!(again["content"], first["content"], "{width} bits");
        server.alive();
    }
    let folder = Temporary::new("slots");
    std::fs::create_dir(&folder.0).unwrap();
    std::fs::write(folder.0.join("x.bin"), b"not a state").unwrap();
    let plan = plan(1024, &["--uniform", "4"]);
    let mut server = Server::start(&["-np", "1", "--pmkvq-plan", plan.text(), "--slot-save-path", folder.text()]);
    let (status, answer) = server.request("POST", "/slots/0?action=restore", "{\"filename\":\"x.bin\"}");
    assert!((400..600).contains(&status), "{status} {answer}");
    server.alive();
}

/// Prompts that had to leave their slot come back from the server's cache in RAM.
#[test]
fn prompts_come_back_from_ram() {
    let plan = plan(1024, &["--uniform", "4"]);
    let mut server = Server::start(&["-c", "1024", "-np", "1", "--pmkvq-plan", plan.text(), "--cache-ram", "100"]);
    let prompt = format!("@WXYZ=4711\n{}\n?WXYZ=", heldout(100, 500));
    let first = server.complete(&prompt, 5, 0);
    server.complete(&heldout(5000, 600), 5, 0);
    server.complete(&heldout(9000, 600), 5, 0);
    let again = server.complete(&prompt, 5, 0);
    assert_eq!(again["content"], first["content"]);
    assert!(again["timings"]["prompt_n"].as_u64().unwrap() <= 4, "the prompt was read again: {again}");
    server.alive();
}

/// Slots with nothing to do give their place in the cache to others, and get it back.
#[test]
fn idle_slots_make_room() {
    let plan = plan(1024, &["--uniform", "4", "--parallel", "2"]);
    let args = ["-c", "1024", "-np", "2", "--pmkvq-plan", plan.text(), "--cache-ram", "100", "--cache-idle-slots"];
    let mut server = Server::start(&args);
    let prompt = format!("@WXYZ=4711\n{}\n?WXYZ=", heldout(100, 350));
    let first = server.complete(&prompt, 5, -1);
    server.complete(&heldout(5000, 450), 5, -1);
    let again = server.complete(&prompt, 5, -1);
    assert_eq!(again["content"], first["content"]);
    assert!(again["timings"]["prompt_n"].as_u64().unwrap() <= 4, "the prompt was read again: {again}");
    server.alive();
}

/// Generation goes on when the context is full: the first half is forgotten, the rest moves up.
#[test]
fn a_full_context_shifts() {
    for width in ["16", "4"] {
        let plan = plan(512, &["--uniform", width]);
        let args = ["-c", "512", "-np", "1", "--pmkvq-plan", plan.text(), "--context-shift"];
        let mut server = Server::start(&args);
        let answer = server.complete(&heldout(0, 400), 700, 0);
        assert_eq!(answer["tokens_predicted"], 700, "{width} bits: {answer}");
        assert!(server.log().contains("context shift"), "{width} bits: nothing was shifted");
        // what is asked within the context is still answered
        let prompt = format!("@WXYZ=4711\n{}\n?WXYZ=", heldout(200, 200));
        let answer = server.complete(&prompt, 4, 0);
        assert_eq!(answer["content"], "4711", "{width} bits");
        server.alive();
    }
}

#[test]
fn a_context_that_overflows_is_an_answer_not_a_crash() {
    let plan = plan(512, &["--uniform", "2"]);
    let mut server = Server::start(&["-c", "512", "-np", "1", "--pmkvq-plan", plan.text()]);
    // generation runs into the end of the context
    let answer = server.complete(&heldout(0, 400), 1000, 0);
    assert_eq!(answer["stop_type"], "limit", "{answer}");
    // a prompt that can't fit
    let body = json!({ "prompt": heldout(0, 3000), "n_predict": 4, "temperature": 0 });
    let (status, answer) = server.request("POST", "/completion", &body.to_string());
    assert!((400..500).contains(&status), "{status} {answer}");
    // what fits still works
    assert!(server.complete("@ABCD=12\n?ABCD=", 3, 0)["content"].as_str().unwrap().starts_with("12"));
    server.alive();
}

/// A draft model has a cache of its own; its guesses are rolled back where the target disagrees, at every width.
#[test]
fn speculative_decoding_rolls_back() {
    let model = model();
    let model = model.to_str().unwrap();
    let plan = plan(2048, &["--uniform", "4", "--static"]);
    let draft = ["-md", model, "--spec-type", "draft-simple", "--spec-draft-n-max", "8"];
    let args = ["-c", "2048", "-np", "1", "--pmkvq-plan", plan.text()];
    let mut server = Server::start(&[args.as_slice(), &draft].concat());
    let prompt = format!("@WXYZ=4711\n{}\n?WXYZ=", heldout(7000, 900));
    let with_draft = server.complete(&prompt, 64, 0);
    assert!(with_draft["timings"]["draft_n"].as_u64().unwrap_or(0) > 0, "nothing was drafted: {with_draft}");
    server.alive();
    let said = server.log();
    assert!(!said.contains("number of layers"), "the plan was applied to the draft: {said}");
    let alone = Server::start(&args).complete(&prompt, 64, 0);
    let (a, b) = (with_draft["content"].as_str().unwrap(), alone["content"].as_str().unwrap());
    assert!(a.starts_with("4711") && b.starts_with("4711"), "{a:?} {b:?}");
}

/// Upstream's server ends when it can't wake up; here it says why.
#[test]
fn a_plan_that_is_gone_when_the_server_wakes_up_is_named() {
    let plan = plan(1024, &["--uniform", "4"]);
    let mut server = Server::start(&["-c", "1024", "--pmkvq-plan", plan.text(), "--sleep-idle-seconds", "1"]);
    let until = Instant::now() + Duration::from_secs(60);
    while !server.log().contains("entering sleeping state") {
        assert!(Instant::now() < until, "the server does not sleep: {}", server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    std::fs::remove_file(&plan.0).unwrap();
    server.request("POST", "/completion", r#"{ "prompt": "a", "n_predict": 1 }"#);
    server.child.wait().unwrap();
    let said = server.log();
    assert!(said.contains(&format!("{}: No such file", plan.text())), "{said}");
}

/// K and V that were made with an adapter are not used without it: what a slot holds goes when a request changes the scale.
#[test]
fn adapters_change_between_requests() {
    let mut lora = Gguf::lora("llama", 16.0);
    for layer in 0..6 {
        for (name, n_out) in [("attn_q", 256), ("attn_k", 128), ("attn_v", 128)] {
            lora.factors(&format!("blk.{layer}.{name}"), 256, n_out, 4);
        }
    }
    let lora = lora.write(17);
    let plan = plan(2048, &["--uniform", "4", "--parallel", "2"]);
    let flags = ["-c", "2048", "-np", "2", "--pmkvq-plan", plan.text()];
    let prompt = heldout(6000, 500);
    let without = Server::start(&flags).complete(&prompt, 30, 0)["content"].clone();

    let mut server = Server::start(&[&flags[..], &["--lora", lora.text()]].concat());
    let answer = |scale: f32, slot: i32| {
        let said = server.complete_with(&prompt, 30, slot, json!({ "lora": [{ "id": 0, "scale": scale }] }));
        said["content"].as_str().unwrap().to_string()
    };
    let with = answer(1.0, 0);
    assert_ne!(with, without, "the adapter changes nothing");
    for (scale, expected) in [(0.0, without.as_str().unwrap()), (1.0, &with), (0.0, without.as_str().unwrap())] {
        assert_eq!(answer(scale, 0), expected, "scale {scale}");
    }
    // both at once, which llama-server does not put into one batch
    std::thread::scope(|s| {
        let plain = s.spawn(|| answer(0.0, 0));
        let other = s.spawn(|| answer(1.0, 1));
        assert_eq!(plain.join().unwrap(), without.as_str().unwrap());
        assert_eq!(other.join().unwrap(), with);
    });
    server.alive();
}
