//! Resolves names. Called for every new connection, so that a broken one is made again to the address that the name has
//! by then.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use hyper_util::client::legacy::connect::dns::Name;
use std::task::{Context, Poll};

/// A name server that takes longer is queried again, then another one.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// As the system resolves names, or with this name server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) nameserver: Option<SocketAddr>,
}

impl Names {
    /// Made anew each time: it is cheap, the system's configuration may change, and results are cached elsewhere.
    pub(super) fn resolver(self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.nameserver {
            Some(address) => {
                let at = |mut connection: ConnectionConfig| {
                    connection.port = address.port();
                    connection
                };
                let both = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
                let server = NameServerConfig::new(address.ip(), true, both);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                *builder.options_mut() = ResolverOpts::default();
                builder
            }
            None => TokioResolver::builder_tokio()?,
        };
        builder.options_mut().cache_size = 0;
        builder.options_mut().timeout = QUERY_TIMEOUT;
        builder.build()
    }

    /// The caller sets the port.
    async fn addresses(self, name: &str) -> io::Result<Vec<SocketAddr>> {
        if self.nameserver.is_none() {
            return Ok(tokio::net::lookup_host((name, 0)).await?.collect());
        }
        let resolver = self.resolver().map_err(io::Error::other)?;
        // With a dot at the end, or a search list would be tried.
        let found = resolver.lookup_ip(format!("{}.", name.trim_end_matches('.'))).await.map_err(io::Error::other)?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, 0)).collect())
    }
}

impl tower::Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = *self;
        Box::pin(async move { Ok(names.addresses(name.as_str()).await?.into_iter()) })
    }
}

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let names = *self;
        Box::pin(async move {
            let found = names.addresses(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
