//! The DPDK binding on virtual devices. EAL starts once in a process, so each check starts this binary again in a role
//! of its own: the code of `roles` runs there, the rest here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

#[path = "dpdk/namespace.rs"]
mod namespace;
#[path = "dpdk/roles.rs"]
mod roles;

use std::io::{BufRead, BufReader};
use std::panic::catch_unwind;
use std::process::{Child, Command, ExitCode, Stdio};
use std::{env, fs};

/// How a check ended, if it did not panic.
enum Outcome {
    Passed,
    Skipped(String),
}

type Check = fn() -> Outcome;

const CHECKS: [(&str, Check); 6] = [
    ("unknown_driver_stops_the_start", || role("unknown_driver", &[])),
    ("mistakes_have_names", || role("mistakes", &[])),
    ("buffers_come_back", || role("buffers", &[])),
    ("ring_gives_back_what_it_was_given", || role("ring", &[])),
    ("capture_files_pass_unchanged", capture_files_pass_unchanged),
    ("tap_answers_from_another_namespace", tap_answers_from_another_namespace),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(("--role", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        roles::run(&rest[0], &rest[1..]);
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (name, check) in CHECKS.iter().filter(|(name, _)| filter.is_none_or(|part| name.contains(part))) {
        match catch_unwind(check) {
            Ok(Outcome::Passed) => println!("test {name} ... ok"),
            Ok(Outcome::Skipped(reason)) => println!("test {name} ... skipped: {reason}"),
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn this_binary(role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg("--role").arg(role).args(arguments);
    command
}

fn role(role: &str, arguments: &[&str]) -> Outcome {
    let output = this_binary(role, arguments).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "role {role} ended with {}:\n{said}", output.status);
    Outcome::Passed
}

fn capture_files_pass_unchanged() -> Outcome {
    let folder = env::temp_dir().join(format!("pollgate-capture-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (input, output) = (folder.join("in.pcap"), folder.join("out.pcap"));
    let frames: Vec<Vec<u8>> = (0..100).map(|index| vec![index as u8; 60 + index * 14]).collect();
    roles::write_capture(&input, &frames);
    role("capture", &[input.to_str().unwrap(), output.to_str().unwrap(), "100"]);
    let passed = roles::read_capture(&output);
    fs::remove_dir_all(&folder).unwrap();
    assert!(passed == frames, "{} of {} frames came out, or not as they were", passed.len(), frames.len());
    Outcome::Passed
}

/// Ends a child that a failed check leaves behind.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tap_answers_from_another_namespace() -> Outcome {
    if let Err(reason) = namespace::is_possible() {
        return Outcome::Skipped(reason);
    }
    let interface = format!("pgt{}", std::process::id());
    let mut command = this_binary("tap", &[&interface]);
    let mut child = Ended(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");

    let namespace = namespace::Namespace::new(&format!("pollgate-{interface}"));
    namespace.take(&interface);
    // The smallest frame, and the largest that the MTU of 1450 allows.
    for length in [60, 1464] {
        let frame: Vec<u8> = namespace::test_frame(length);
        let mut expected = frame.clone();
        expected[..12].rotate_left(6);
        let answer = namespace.exchange(&interface, &frame);
        assert!(answer == expected, "{length} bytes sent, {} came back, or not the same", answer.len());
    }

    // The role ends when its standard input does, and then checks its own buffers.
    drop(child.0.stdin.take());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(child.0.wait().unwrap().success(), "{rest:?}");
    Outcome::Passed
}
