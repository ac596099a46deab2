//! The servers that a URL names.

use redis::{ConnectionInfo, IntoConnectionInfo};

use super::ConnectError;

/// The servers that a URL names.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// One server.
    Single(ConnectionInfo),
    /// Sentinels that know where the primary is.
    Sentinel {
        /// The sentinels, without credentials.
        sentinels: Vec<ConnectionInfo>,
        /// The name under which they know the primary.
        primary: String,
        /// Credentials, TLS and database of the primary; its host is not used.
        server: ConnectionInfo,
    },
    /// Some nodes of a Cluster.
    Cluster(Vec<ConnectionInfo>),
}

const SINGLE: &str = "expected redis://[user:password@]host[:port][/database]";
const SENTINEL: &str = "expected redis+sentinel://[user:password@]host[:port][,host[:port]…]/name-of-primary[/database]";
const CLUSTER: &str = "expected redis+cluster://[user:password@]host[:port][,host[:port]…]";
const SCHEME: &str =
    "expected redis, rediss, redis+sentinel, redis+cluster or redis+unix as its scheme";

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        let (scheme, rest) = url.split_once("://").ok_or(wrong(SCHEME))?;
        let (server, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = matches!(server, "rediss" | "valkeys");
        if tls && cfg!(not(feature = "redis-tls")) {
            return Err(ConnectError::NoTls);
        }
        match (server, kind) {
            ("redis" | "rediss" | "valkey" | "valkeys", "") => {
                let scheme = if tls { "rediss" } else { "redis" };
                node(&format!("{scheme}://{rest}"), SINGLE).map(Self::Single)
            }
            ("redis" | "valkey", "unix") => {
                node(&format!("redis+unix://{rest}"), SINGLE).map(Self::Single)
            }
            ("redis" | "rediss" | "valkey" | "valkeys", "sentinel") => sentinel(tls, rest),
            ("redis" | "rediss" | "valkey" | "valkeys", "cluster") => {
                let (credentials, hosts, path) = parts(rest);
                if !path.is_empty() {
                    return Err(wrong("a Cluster has one database only: remove the path"));
                }
                hosts
                    .map(|host| node(&one(tls, credentials, host, ""), CLUSTER))
                    .collect::<Result<_, _>>()
                    .map(Self::Cluster)
            }
            _ => Err(wrong(SCHEME)),
        }
    }
}

fn sentinel(tls: bool, rest: &str) -> Result<Address, ConnectError> {
    let (credentials, hosts, path) = parts(rest);
    let (primary, database) = path.split_once('/').unwrap_or((path, ""));
    if primary.is_empty() {
        return Err(wrong(SENTINEL));
    }
    // The default port of a sentinel.
    let at_port = |host: &str| match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:26379"),
    };
    let sentinels = hosts
        .map(|host| node(&one(tls, "", &at_port(host), ""), SENTINEL))
        .collect::<Result<_, _>>()?;
    Ok(Address::Sentinel {
        sentinels,
        primary: primary.to_owned(),
        server: node(&one(tls, credentials, "primary", database), SENTINEL)?,
    })
}

/// Credentials with their `@`, hosts, and the path without its first slash.
fn parts(rest: &str) -> (&str, impl Iterator<Item = &str>, &str) {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = authority.rfind('@').map_or(0, |at| at + 1);
    let (credentials, hosts) = authority.split_at(hosts);
    (credentials, hosts.split(','), path)
}

/// The URL of one of many hosts.
fn one(tls: bool, credentials: &str, host: &str, database: &str) -> String {
    let scheme = if tls { "rediss" } else { "redis" };
    format!("{scheme}://{credentials}{host}/{database}")
}

fn node(url: &str, expected: &'static str) -> Result<ConnectionInfo, ConnectError> {
    url.into_connection_info()
        .map_err(|source| ConnectError::Url {
            reason: expected,
            source: Some(source),
        })
}

fn wrong(reason: &'static str) -> ConnectError {
    ConnectError::Url {
        reason,
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &Address) -> String {
        let all = |nodes: &[ConnectionInfo]| {
            let nodes: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
            nodes.join(" ")
        };
        match address {
            Address::Single(node) => format!("{} {}", node.addr(), node.redis_settings().db()),
            Address::Cluster(nodes) => format!("cluster {}", all(nodes)),
            Address::Sentinel {
                sentinels,
                primary,
                server,
            } => format!(
                "{primary} by {}, database {}, password {:?}",
                all(sentinels),
                server.redis_settings().db(),
                server.redis_settings().password()
            ),
        }
    }

    #[test]
    fn urls_name_servers() {
        for (url, expected) in [
            ("redis://localhost", "localhost:6379 0"),
            ("valkey://u:p@localhost:7/3", "localhost:7 3"),
            ("redis+unix:///run/redis.sock", "/run/redis.sock 0"),
            ("redis+cluster://u:p@a:1,b,c:3", "cluster a:1 b:6379 c:3"),
            ("redis+cluster://[::1]:7,[::2]", "cluster ::1:7 ::2:6379"),
            (
                "redis+sentinel://[::1],[::2]:3/main",
                "main by ::1:26379 ::2:3, database 0, password None",
            ),
            (
                "redis+sentinel://:secret@a,b:2/main/5",
                "main by a:26379 b:2, database 5, password Some(\"secret\")",
            ),
        ] {
            assert_eq!(shown(&Address::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn errors_do_not_contain_the_password() {
        for url in [
            "localhost:6379",
            "http://u:secret@localhost",
            "redis://u:secret@localhost:port",
            "redis://u:secret@localhost/database",
            "redis+sentinel://u:secret@a,b",
            "redis+cluster://u:secret@a/1",
            "redis+magic://u:secret@a",
            "",
        ] {
            let error = Address::parse(url).expect_err(url);
            let all = format!("{error} {error:?}");
            assert!(matches!(error, ConnectError::Url { .. }), "{all}");
            assert!(!all.contains("secret"), "{all}");
        }
    }

    #[test]
    #[cfg(not(feature = "redis-tls"))]
    fn tls_needs_its_feature() {
        for url in ["rediss://a", "rediss+cluster://a,b", "valkeys://a"] {
            assert!(
                matches!(Address::parse(url), Err(ConnectError::NoTls)),
                "{url}"
            );
        }
    }
}
