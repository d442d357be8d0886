//! Containers of a user who is not root.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use runtime::{ExecRequest, PublishedPort, Runtime, StartError};

use crate::world::{PATIENCE, World, await_that, image};

pub(crate) const CASES: &[super::Case] = &[(
    "without_root_containers_run_and_say_what_is_missing",
    without_root_containers_run_and_say_what_is_missing,
)];

/// Makes this program run the test's second half, as nobody.
pub(crate) const ROOTLESS_ARG: &str = "__rootless";

/// By convention the user who owns nothing.
const NOBODY: u32 = 65534;

fn without_root_containers_run_and_say_what_is_missing() {
    let world = World::new();
    let mut spec = world.spec("a1", &["serve", "80", "mine"]);
    // A copy, because the folder that this program is built in may be root's alone.
    let home = tempfile::tempdir().unwrap();
    let exe = home.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    // Such a user unpacks images as their own.
    let own = home.path().join("image");
    let copied = Command::new("cp").arg("-r").arg(image()).arg(&own).status().unwrap();
    assert!(copied.success());
    let paths = ["", "tests", "image", "image/bin", "image/bin/tool", "image/etc", "image/srv"];
    for path in paths.map(|path| home.path().join(path)) {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    spec.lower = vec![own];
    let spec = serde_json::to_string(&spec).unwrap();
    let status = Command::new(&exe)
        .arg(ROOTLESS_ARG)
        .arg(home.path().join("run"))
        .arg(spec)
        .uid(NOBODY)
        .gid(NOBODY)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(
        fs::read_dir(home.path().join("run"))
            .unwrap()
            .filter(|it| { !it.as_ref().unwrap().file_name().to_string_lossy().starts_with('.') })
            .count(),
        0
    );
}

pub(crate) fn rootless_main(args: &[OsString]) -> i32 {
    let [_, _, dir, spec] = args else { return 2 };
    let runtime = Runtime::new(dir, std::env::current_exe().unwrap()).unwrap();
    let mut spec: runtime::ContainerSpec = serde_json::from_str(spec.to_str().unwrap()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    spec.ports = vec![PublishedPort { host: port, container: 80 }];
    runtime.write_spec(&spec).unwrap();
    let started = runtime.start("a1").unwrap();
    println!("  missing without root: {:?}", started.degraded);
    assert!(started.degraded.iter().any(|it| it.contains("limits are not enforced")), "{started:?}");

    let mut line = String::new();
    await_that("an answer", || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        line.clear();
        matches!(BufReader::new(stream).read_line(&mut line), Ok(n) if n > 0)
    });
    assert_eq!(line, "mine\n");

    let tool = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let asked = ExecRequest { args: tool(&["tool", "pid"]), ..ExecRequest::default() };
    let session = runtime.exec("a1", asked).unwrap();
    let mut said = String::new();
    File::from(session.stdout).read_to_string(&mut said).unwrap();
    assert!(said.contains("host inside uid 0 gid 0"), "{said}");
    assert_eq!(session.control.wait().unwrap().code, Some(0));
    let asked = ExecRequest { args: tool(&["tool", "tty"]), tty: Some((4, 5)), ..ExecRequest::default() };
    let session = runtime.exec("a1", asked).unwrap();
    let mut line = String::new();
    BufReader::new(File::from(session.stdout)).read_line(&mut line).unwrap();
    assert_eq!(line, "tty 1 1 4x5\r\n");
    drop((session.stdin, session.control));

    let exit =
        runtime.stop("a1", PATIENCE).unwrap_or_else(|error| panic!("{error}: {:?}", runtime.state("a1")));
    assert_eq!(exit.signal, Some(libc::SIGTERM));
    for (args, code) in
        [(["tool", "write", "/srv/x"], 0), (["tool", "try", ""], 0), (["tool", "exit", "7"], 7)]
    {
        spec.args = tool(&args);
        runtime.write_spec(&spec).unwrap();
        runtime.start("a1").unwrap();
        assert_eq!(runtime.wait_blocking("a1", Some(PATIENCE)).unwrap().code, Some(code));
    }
    spec.user = Some("web".into());
    runtime.write_spec(&spec).unwrap();
    assert!(matches!(runtime.start("a1"), Err(StartError::UserRefused { .. })));
    runtime.remove("a1").unwrap();
    0
}
