//! Parses the command line, builds the runtime, and maps the result to an exit code.

use std::process::ExitCode;

use clap::Parser;
use defragd::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS library for all of gRPC and HTTP. It fails only if somebody else was first, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli.run());
            // A blocked write of the journal must not hold up the end of the process.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            code
        }
        Err(error) => {
            eprintln!("defragd: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
