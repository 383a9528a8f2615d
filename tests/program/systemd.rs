//! What defragd reports to systemd and gets from it, with a socket of ours in its place: `READY=1` only when it is true,
//! reloads, the end, the watchdog, and sockets that were bound before. There is no etcd.

use std::{
    fs::{self, File},
    io::ErrorKind,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use testkit::{Home, Port};

use crate::rig::{MINUTE, binary, client, home};

/// A folder with a configuration, a journal and the socket that systemd would listen at.
struct Host {
    home: Home,
    notify: UnixDatagram,
}

/// A started program, which ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Started {
    fn signal(&self, signal: Signal) {
        // Not waited for so far, so the number is still its own.
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            // Until every thread has stopped, one of them may still be about to say something.
            let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(pid), options).unwrap();
        }
    }
}

impl Host {
    fn new() -> Self {
        let home = home();
        home.write("config.yaml", "clusters: [{name: demo, endpoints: ['http://127.0.0.1:1']}]").unwrap();
        let notify = UnixDatagram::bind(home.path("notify")).unwrap();
        Self { home, notify }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    fn args(&self) -> [String; 3] {
        ["serve".to_owned(), self.home.flag("--config", "config.yaml"), self.home.flag("--data-dir", "journal")]
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        command
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// `sh` puts what is its standard input where systemd puts its first socket, and becomes the program.
    fn handing_over(&self, fd: OwnedFd, extra: &[&str]) -> Command {
        let mut command = self.command(Path::new("sh"));
        let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 0</dev/null";
        command.args(["-c", script, "sh"]).arg(binary()).args(self.args()).args(extra).stdin(fd);
        command
    }

    /// The next message, if one comes in this time.
    fn hear(&self, limit: Duration) -> Option<String> {
        self.notify.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 4096];
        match self.notify.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// All messages until one has this line, that one included.
    fn until(&self, line: &str) -> Vec<String> {
        let mut heard: Vec<String> = Vec::new();
        let end = Instant::now() + MINUTE;
        while Instant::now() < end {
            if let Some(message) = self.hear(Duration::from_secs(1)) {
                let is_it = message.lines().any(|said| said == line);
                heard.push(message);
                if is_it {
                    return heard;
                }
            }
        }
        panic!("no {line} among {heard:?}; log: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// Where it says that it listens.
fn address(ready: &[String]) -> String {
    let last = ready.last().unwrap();
    last.split_once("STATUS=1 cluster on ").unwrap_or_else(|| panic!("{last}")).1.trim().to_owned()
}

async fn get(address: &str, path: &str) -> (u16, String) {
    let answer = client(None).build().unwrap().get(format!("http://{address}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_of_the_start_the_reloads_and_the_end_when_they_are_so() {
    let host = Host::new();
    let mut command = host.command(binary());
    let mut defragd = Started(command.args(host.args()).arg("--web.listen-address=127.0.0.1:0").spawn().unwrap());
    let heard = host.until("READY=1");
    assert!(heard[0].starts_with("STATUS=opening the journal"), "{heard:?}");
    assert!(!heard.iter().any(|message| message.contains("WATCHDOG=1")), "nobody asked for it: {heard:?}");
    // Ready means ready: no waiting here.
    let address = address(&heard);
    assert_eq!(get(&address, "/-/ready").await.0, 200);

    for (config, successful) in [("clusters: [{name: demo, endpoints: ['http://127.0.0.1:1']}]", 1), ("clusters: 7", 0)]
    {
        fs::write(host.path("config.yaml"), config).unwrap();
        defragd.signal(Signal::HUP);
        let began = host.until("RELOADING=1").pop().unwrap();
        let at = began.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(at.parse::<u64>().unwrap() > 0, "{began}");
        // A failed reload ends as well: the old configuration stays in use.
        host.until("READY=1");
        let metric = format!("defragd_config_last_reload_successful {successful}\n");
        assert!(get(&address, "/metrics").await.1.contains(&metric));
    }

    defragd.signal(Signal::TERM);
    let heard = host.until("STOPPING=1");
    assert!(heard.last().unwrap().contains("STATUS=stopping: 1 cluster on "), "{heard:?}");
    assert!(defragd.0.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_is_fed_until_the_loop_hangs() {
    let host = Host::new();
    let mut command = host.command(binary());
    command.env("WATCHDOG_USEC", "400000").args(host.args()).arg("--web.listen-address=127.0.0.1:0");
    let defragd = Started(command.spawn().unwrap());
    host.until("READY=1");
    for _ in 0..3 {
        host.until("WATCHDOG=1");
    }
    // A file that can be opened and never read: the reload hangs. It is a task of its own, so the loop goes round.
    fs::remove_file(host.path("config.yaml")).unwrap();
    assert!(Command::new("mkfifo").arg(host.path("config.yaml")).status().unwrap().success());
    defragd.signal(Signal::HUP);
    host.until("RELOADING=1");
    host.until("WATCHDOG=1");
    // It continues once it can: when the writer closes, the reader gets the end of the file.
    fs::write(host.path("config.yaml"), "clusters: [{name: demo, endpoints: ['http://127.0.0.1:1']}]").unwrap();
    host.until("READY=1");

    defragd.signal(Signal::STOP);
    // What was sent before that.
    while host.hear(Duration::from_millis(1)).is_some() {}
    // Long enough for ten messages of a loop that goes round. One that hangs has none to send, however long it takes.
    assert_eq!(host.hear(Duration::from_secs(2)), None, "it hangs, and says that it does not");
    defragd.signal(Signal::CONT);
    host.until("WATCHDOG=1");
}

#[test]
fn what_does_not_start_never_says_that_it_is_ready() {
    let host = Host::new();
    fs::create_dir(host.path("journal")).unwrap();
    fs::write(host.path("journal/journal.db"), "this is no database, but a text of some length".repeat(99)).unwrap();
    let ended = host.command(binary()).args(host.args()).arg("--web.listen-address=127.0.0.1:0").status().unwrap();
    assert!(!ended.success());
    // It has ended: its messages wait in the socket.
    while let Some(message) = host.hear(Duration::from_millis(1)) {
        assert!(!message.contains("READY"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_handed_over_is_listened_on_instead_of_the_address() {
    let host = Host::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = socket.local_addr().unwrap().to_string();
    // An address that it could not bind, to see that it does not try.
    let taken = format!("--web.listen-address={bound}");
    let mut command = host.handing_over(socket.into(), &["--web.systemd-socket", &taken]);
    let mut defragd = Started(command.spawn().unwrap());
    // Nothing is lost of what comes before it is there: the socket holds it. `socket` itself is gone from this process.
    drop(command);
    assert_eq!(get(&bound, "/-/healthy").await.0, 200);
    assert_eq!(address(&host.until("READY=1")), bound);
    defragd.signal(Signal::TERM);
    assert!(defragd.0.wait().unwrap().success());
}

#[test]
fn without_a_usable_socket_it_does_not_start_and_says_why() {
    let host = Host::new();
    let run =
        |mut command: Command| -> Output { command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap() };
    let mut none = host.command(binary());
    none.args(host.args()).arg("--web.systemd-socket").env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let file = File::open(host.path("config.yaml")).unwrap();
    let anywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    for (command, says) in [
        (none, "systemd passed no socket"),
        (host.handing_over(file.into(), &["--web.systemd-socket"]), "socket 0 is unusable"),
        // The addresses that count are those of the sockets.
        (
            host.handing_over(anywhere.into(), &["--web.systemd-socket"]),
            "the webhook would be open to the network on 0.0.0.0:",
        ),
    ] {
        let output = run(command);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(says), "{says:?} is not in {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemds_own_launcher_starts_it_with_the_first_connection() {
    let launcher = Path::new("/usr/bin/systemd-socket-activate");
    if !launcher.exists() {
        return testkit::skipped("no systemd-socket-activate here");
    }
    let host = Host::new();
    // A free port that no other process gets by chance: the launcher must bind it itself.
    let mut port = Port::reserve().unwrap();
    let bound = port.address().to_string();
    let mut command = host.command(launcher);
    command.args([&format!("--listen={bound}"), "--setenv=NOTIFY_SOCKET"]).arg(binary()).args(host.args());
    port.release();
    let started = Started(command.arg("--web.systemd-socket").spawn().unwrap());
    let end = Instant::now() + MINUTE;
    let (client, url) = (client(None).build().unwrap(), format!("http://{bound}/-/healthy"));
    while !client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
        assert!(Instant::now() < end, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(address(&host.until("READY=1")), bound);
    drop(started);
}
