//! Lists objects, page by page.
//!
//! Reads are consistent (no `resourceVersion=0`): an answer from the API server's cache could be older than the
//! problem, and a read that goes through to etcd says something about etcd, too.

use std::{path::Path, time::Duration};

use kube::core::{Request, params::ListParams};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    connect::Connection,
    error::{self, ApiError},
};

/// The same as kubectl's.
const PAGE_ITEMS: u32 = 500;
/// A page of that many pods has some megabytes; ten times as much is not a list of pods.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// The largest clusters have more pods, but a gate that reads them all every few seconds would cause problems itself.
const MAX_ITEMS: usize = 20_000;
/// Continue tokens live for minutes. A listing that loses them repeatedly will not finish.
const MAX_LISTINGS: u32 = 3;

pub(super) struct Resource {
    plural: &'static str,
    /// `kind` of a page: a proxy's `{}` is not an empty cluster.
    list_kind: &'static str,
}

pub(super) const PODS: Resource = Resource { plural: "pods", list_kind: "PodList" };
pub(super) const NODES: Resource = Resource { plural: "nodes", list_kind: "NodeList" };

pub(super) struct Listing<'a> {
    pub(super) resource: Resource,
    /// The path of each collection, and its place in messages: `in all namespaces`.
    pub(super) collections: Vec<(String, String)>,
    pub(super) label_selector: Option<&'a str>,
    pub(super) field_selector: Option<&'a str>,
}

/// A page of `GET /api/v1/pods`.
#[derive(Debug, Deserialize)]
struct Page<T> {
    kind: String,
    #[serde(default)]
    metadata: PageMetadata,
    /// Go writes an empty list as `null`, too.
    items: Option<Vec<T>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    token: Option<String>,
}

/// How to reach the API server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Api<'a> {
    pub(super) kubeconfig: Option<&'a Path>,
    pub(super) context: Option<&'a str>,
    /// Of one listing.
    pub(super) timeout: Duration,
}

impl Api<'_> {
    /// One listing, within its limit: each item is added to what `begin` gives. The connection is kept until something
    /// goes wrong with it.
    pub(super) async fn list<T: DeserializeOwned, S>(
        self,
        kept: &mut Option<Connection>,
        listing: &Listing<'_>,
        begin: impl Fn() -> S,
        add: impl Fn(&mut S, T),
    ) -> Result<S, ApiError> {
        // The server's name is unknown until the settings are read.
        let mut server = kept.as_ref().map_or_else(|| "of the cluster".to_owned(), |kept| kept.server.clone());
        let all = async {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(self.kubeconfig, self.context, self.timeout).await?,
            };
            server.clone_from(&connection.server);
            for _ in 0..MAX_LISTINGS {
                if let Some(found) = listing.once(&connection, &begin, &add).await? {
                    return Ok((connection, found));
                }
            }
            Err(ApiError::Expired { server: connection.server, times: MAX_LISTINGS })
        };
        match timeout(self.timeout, all).await {
            Ok(Ok((connection, found))) => {
                *kept = Some(connection);
                Ok(found)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let task = format!("list the {}", listing.resource.plural);
                Err(ApiError::TimedOut { server, task, after: self.timeout })
            }
        }
    }
}

impl Listing<'_> {
    /// All of them, or `None` if a continue token was too old and the listing must restart.
    async fn once<T: DeserializeOwned, S>(
        &self,
        connection: &Connection,
        begin: &impl Fn() -> S,
        add: &impl Fn(&mut S, T),
    ) -> Result<Option<S>, ApiError> {
        let (mut found, mut items) = (begin(), 0);
        for (path, place) in &self.collections {
            let mut token = None;
            loop {
                let (code, body) = self.get(connection, path, token.as_deref()).await?;
                if code == 410 && token.is_some() {
                    return Ok(None);
                }
                if code != 200 {
                    let task = format!("list {} {place}", self.resource.plural);
                    return Err(error::answer(code, &body, connection, task.trim_end()));
                }
                let page = self.read::<T>(&body, connection)?;
                for item in page.items.into_iter().flatten() {
                    if items >= MAX_ITEMS {
                        return Err(ApiError::TooMany { what: self.resource.plural, limit: MAX_ITEMS });
                    }
                    items += 1;
                    add(&mut found, item);
                }
                match page.metadata.token.filter(|token| !token.is_empty()) {
                    Some(next) if token.as_ref() == Some(&next) => {
                        return Err(self.not_understood(connection, "its pages do not end".to_owned()));
                    }
                    Some(next) => token = Some(next),
                    None => break,
                }
            }
        }
        Ok(Some(found))
    }

    async fn get(&self, connection: &Connection, path: &str, token: Option<&str>) -> Result<(u16, Vec<u8>), ApiError> {
        let params = ListParams {
            label_selector: self.label_selector.map(str::to_owned),
            field_selector: self.field_selector.map(str::to_owned),
            limit: Some(PAGE_ITEMS),
            continue_token: token.map(str::to_owned),
            ..ListParams::default()
        };
        let request = Request::new(path).list(&params);
        let request = request.map_err(|inner| self.not_understood(connection, error::chain(&inner)))?;
        connection.send(request, MAX_PAGE_BYTES, &self.wanted()).await
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8], connection: &Connection) -> Result<Page<T>, ApiError> {
        // serde's text may quote a value, so only the position is passed on.
        let page: Page<T> = serde_json::from_slice(body).map_err(|inner| {
            self.not_understood(connection, format!("line {} column {}", inner.line(), inner.column()))
        })?;
        if page.kind == self.resource.list_kind {
            Ok(page)
        } else {
            Err(self.not_understood(connection, "it has another kind".to_owned()))
        }
    }

    fn wanted(&self) -> String {
        format!("a list of {}", self.resource.plural)
    }

    fn not_understood(&self, connection: &Connection, detail: String) -> ApiError {
        ApiError::NotUnderstood { server: connection.server.clone(), wanted: self.wanted(), detail }
    }
}
