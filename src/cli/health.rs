//! `defragd health`: checks a running `defragd serve`. For probes, and for images without a shell.

use std::{io::Write, path::PathBuf};

use super::{Exit, args::UsageError};
use crate::{
    adapters::outgoing::{ClientSettings, ClientTls, ControlClient, Credentials},
    core::time::Time,
};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(super) struct Args {
    /// URL of the running `defragd serve`, with its route prefix if it has one
    #[arg(
        long = "url",
        visible_alias = "server",
        env = "DEFRAGD_SERVER",
        default_value = "http://127.0.0.1:9379",
        value_name = "URL"
    )]
    url: String,
    /// Check whether it is ready to work (/-/ready), not only whether it is alive (/-/healthy)
    #[arg(long)]
    ready: bool,
    /// How long to wait for the answer
    #[arg(long, default_value = "3s", value_name = "TIME")]
    timeout: Time,
    /// CA certificates to trust for https
    #[arg(long = "server-ca-file", env = "DEFRAGD_SERVER_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name in its certificate, if it differs from the host in the URL
    #[arg(long = "server-name", env = "DEFRAGD_SERVER_NAME", value_name = "NAME")]
    server_name: Option<String>,
    /// Client certificate
    #[arg(long, env = "DEFRAGD_SERVER_CERT_FILE", requires = "key_file", value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "DEFRAGD_SERVER_KEY_FILE", requires = "cert_file", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// File with a bearer token, if the web configuration requires authentication
    #[arg(long, env = "DEFRAGD_TOKEN_FILE", conflicts_with = "user", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// User for basic authentication
    #[arg(long, env = "DEFRAGD_SERVER_USER", requires = "password_file", value_name = "NAME")]
    user: Option<String>,
    /// File with the user's password
    #[arg(long, env = "DEFRAGD_SERVER_PASSWORD_FILE", requires = "user", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let credentials = Credentials::of_flags(args.token_file, args.user, args.password_file);
    let tls = ClientTls {
        ca_file: args.ca_file,
        cert_file: args.cert_file,
        key_file: args.key_file,
        server_name: args.server_name,
        ..ClientTls::default()
    };
    let access = ClientSettings::new(credentials, tls, args.timeout.into());
    let client = ControlClient::new(&args.url, access).map_err(|error| UsageError(format!("--url: {error}")))?;
    let said = client.health(if args.ready { "-/ready" } else { "-/healthy" }).await?;
    writeln!(std::io::stdout(), "{said}")?;
    Ok(Exit::Done)
}
