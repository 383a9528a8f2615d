//! Parses the command line, builds the runtime, and maps the result to an exit code.

use std::process::ExitCode;

use defragd::cli::Cli;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tikv_jemallocator::Jemalloc;

/// With a large fleet, it uses less memory and processor time than the system's allocator: `benches/FLEET.md`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The largest fleet keeps two cores busy for a fraction of a second, once a scrape. On a large machine, one thread for
/// each core would only take memory.
const MAX_WORKERS: usize = 4;

fn main() -> ExitCode {
    let cli = Cli::of_program();
    raise_descriptor_limit();
    // One TLS library for all of gRPC and HTTP. It fails only if one is already installed, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    match tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli.run());
            // A blocked write of the journal must not delay the end of the process.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            code
        }
        Err(error) => {
            eprintln!("defragd: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// systemd's default of 1,024, which is for programs that use select(2), is too small for some hundred clusters.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
