//! From the settings to a client. Done anew for each check, and after each failure: credentials change.
//!
//! Without a kubeconfig it is the service account of the pod that we run in. `$KUBECONFIG` and `~/.kube/config`
//! are not looked at: they may well be another cluster's, and a gate that watches another cluster is none.
//! Credential plugins (`exec`) of a kubeconfig are run, without a terminal. No proxy is used.

use std::path::PathBuf;

use kube::{
    Client, Config,
    config::{ExecInteractiveMode, KubeConfigOptions, Kubeconfig},
};

use super::{PodsSettings, error, error::ListError};

/// A client, and the server that it is for, for messages.
pub(super) struct Connection {
    pub(super) client: Client,
    /// `scheme://host:port`, without anything that could be a secret.
    pub(super) server: String,
}

impl Connection {
    /// Reads files, and may run a credential plugin: bound it by a timeout.
    pub(super) async fn open(settings: &PodsSettings) -> Result<Self, ListError> {
        let mut config = match &settings.kubeconfig {
            Some(path) => from_file(path, settings.context.clone()).await?,
            None => Config::incluster()
                .map_err(|inner| ListError::Config { kubeconfig: None, detail: error::chain(&inner) })?,
        };
        // From the environment: a kubeconfig's own was refused above.
        config.proxy_url = None;
        // The listing as a whole has its limit, and the gate its own repetitions.
        config.default_retry = false;
        config.connect_timeout = Some(settings.timeout);
        let url = &config.cluster_url;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let server = format!("{}://{}{port}", url.scheme_str().unwrap_or("http"), url.host().unwrap_or_default());
        // On a thread that may wait: the plugin is run and files are read in there.
        let for_messages = server.clone();
        let made = tokio::task::spawn_blocking(move || {
            read_token(&mut config, &for_messages)?;
            Client::try_from(config).map_err(|inner| error::client(&inner, &for_messages))
        });
        match made.await {
            Ok(made) => Ok(Self { client: made?, server }),
            Err(_) => Err(ListError::Credentials { server, detail: "they cannot be read".to_owned() }),
        }
    }
}

/// The library takes a token file as it is, and a line end makes a token that no header can have.
fn read_token(config: &mut Config, server: &str) -> Result<(), ListError> {
    if let Some(file) = config.auth_info.token_file.take() {
        let token = std::fs::read_to_string(&file).map_err(|inner| ListError::Credentials {
            server: server.to_owned(),
            detail: format!("cannot read the token file {file}: {inner}"),
        })?;
        config.auth_info.token = Some(token.trim().to_owned().into());
    }
    Ok(())
}

async fn from_file(path: &PathBuf, context: Option<String>) -> Result<Config, ListError> {
    let bad = |detail: String| ListError::Config { kubeconfig: Some(path.clone()), detail };
    let file = path.clone();
    let mut kubeconfig = tokio::task::spawn_blocking(move || Kubeconfig::read_from(file))
        .await
        .map_err(|_| bad("it cannot be read".to_owned()))?
        .map_err(|inner| bad(error::kubeconfig(&inner)))?;
    for cluster in kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if cluster.proxy_url.as_ref().is_some_and(|proxy| !proxy.is_empty()) {
            return Err(bad("it has a proxy-url, which is not supported".to_owned()));
        }
    }
    for exec in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()?.exec.as_mut()) {
        // There is nobody to ask, and what a plugin writes to its standard error is not for our log.
        exec.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|inner| bad(error::kubeconfig(&inner)))
}
