//! What the tests run inside of containers: well-behaved, greedy and broken programs.

use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn say(words: &str) {
    let mut out = std::io::stdout();
    // A log that cannot be written fails the test that reads it.
    out.write_all(words.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).ok();
}

fn sleep_for_ever() -> ExitCode {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Takes memory and touches every page of it.
fn eat(mebibytes: usize) -> ExitCode {
    let mut held = Vec::new();
    for n in 0..mebibytes {
        held.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&held);
        if n % 8 == 0 {
            say(&format!("holding {n} MiB"));
        }
    }
    say("holding all of it");
    sleep_for_ever()
}

/// Starts children until the kernel refuses, and then goes on trying.
fn fork_for_ever() -> ExitCode {
    let mut children = Vec::new();
    loop {
        match Command::new("/proc/self/exe").arg("sleep").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                say(&format!("refused after {} children: {error}", children.len()));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["web"] => dev::web::main(),
        ["sleep"] => sleep_for_ever(),
        ["stubborn"] => {
            let mut stop = nix::sys::signal::SigSet::empty();
            stop.add(nix::sys::signal::Signal::SIGTERM);
            match stop.thread_block() {
                Ok(()) => sleep_for_ever(),
                Err(_) => ExitCode::from(71),
            }
        }
        ["say", word] => {
            say(word);
            sleep_for_ever()
        }
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap_or(255)),
        ["env", name] => {
            say(&std::env::var(name).unwrap_or_default());
            ExitCode::SUCCESS
        }
        ["eat", mebibytes] => eat(mebibytes.parse().unwrap_or(0)),
        ["fork"] => fork_for_ever(),
        _ => ExitCode::from(64),
    }
}
