//! Whether the servers are a place for claims that must not be lost.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::{Instant, sleep};

use super::{
    ConnectError, Weakness,
    cluster::{Cluster, Node},
    error::denied,
    link::Link,
    server::Server,
    slots::{Doubt, Gaps},
};

/// How long a Cluster is asked again of which not all can be seen, and the pause in between. A failover is normally
/// done by then.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(250));

/// What the servers said about themselves.
pub(super) struct Facts {
    /// Major and minor version of the oldest; nothing if one would not say.
    pub(super) version: Option<(u32, u32)>,
    /// Whether all of them have an append-only file.
    pub(super) append_only: bool,
    /// All that were asked.
    pub(super) servers: Vec<Arc<Server>>,
}

/// What one server says.
struct Info(HashMap<String, String>);

/// What was found on one server.
struct Exam {
    /// Nothing if it would not say.
    info: Option<Info>,
    weaknesses: Vec<Weakness>,
    /// The commands that it did not permit.
    hidden: Vec<(&'static str, RedisError)>,
}

/// What was found in a Cluster.
struct Found {
    exams: Vec<(Arc<Node>, Exam)>,
    /// The primaries that could not be asked, and why.
    silent: Vec<(Arc<Node>, RedisError)>,
    /// The slots whose primary nobody named.
    gaps: Gaps,
}

/// Asks the servers, and refuses those that will not do.
///
/// `accept` says what the operator chose: to go on with a warning where durability is weak or unknown.
pub(super) async fn check(link: &Link, prefix: &str, accept: bool) -> Result<Facts, ConnectError> {
    let mut exams = Vec::new();
    let mut servers = Vec::new();
    let mut all = true;
    match link {
        Link::Server(server) => {
            exams.push(Exam::of(server, false).await?);
            servers.push(Arc::clone(server));
        }
        Link::Cluster(cluster) => {
            let found = primaries(cluster).await?;
            all = found.is_all();
            if !all {
                found.accepted(cluster, prefix, accept).await?;
            }
            for (node, exam) in found.exams {
                exams.push(exam);
                servers.push(Arc::clone(&node.server));
            }
        }
    }
    // Of all of them, or of none: one that could not be asked may be the oldest.
    let infos: Option<Vec<_>> = exams.iter().map(|exam| exam.info.as_ref()).collect();
    let infos = infos.filter(|_| all).unwrap_or_default();
    let versions: Option<Vec<_>> = infos.iter().map(|info| info.version()).collect();
    let facts = Facts {
        version: versions.and_then(|versions| versions.into_iter().min()),
        append_only: !infos.is_empty() && infos.iter().all(|info| info.append_only()),
        servers,
    };
    verdict(exams, accept)?;
    Ok(facts)
}

/// Errors for what was found, or warnings if the operator accepts it.
fn verdict(exams: Vec<Exam>, accept: bool) -> Result<(), ConnectError> {
    let mut weaknesses = Vec::new();
    for exam in exams {
        for (command, error) in exam.hidden {
            unverified(command, error, accept)?;
        }
        weaknesses.extend(exam.weaknesses);
    }
    weaknesses.sort();
    weaknesses.dedup();
    if !weaknesses.is_empty() && !accept {
        return Err(ConnectError::Weak { weaknesses });
    }
    for weakness in weaknesses {
        tracing::warn!("this Redis server can lose keys that it acknowledged: {weakness}");
    }
    Ok(())
}

/// Examines all primaries of a Cluster, again for a while if one of them cannot be asked, or is not even known: it
/// may be about to be replaced.
async fn primaries(cluster: &Cluster) -> Result<Found, ConnectError> {
    let end = Instant::now() + PATIENCE.0;
    loop {
        let found = Found::now(cluster).await;
        let late = Instant::now() >= end;
        match found {
            Ok(found) if late || found.is_all() => return Ok(found),
            // Nobody answered this time.
            Ok(_) | Err(ConnectError::Unreachable { .. }) if !late => {}
            other => return other,
        }
        sleep(PATIENCE.1).await;
    }
}

impl Found {
    async fn now(cluster: &Cluster) -> Result<Self, ConnectError> {
        let nodes = cluster.primaries().await;
        let nodes = nodes.map_err(|error| ConnectError::of("CLUSTER SLOTS", error))?;
        let exams = nodes.iter().map(|node| Exam::of(&node.server, true));
        let exams = join_all(exams).await;
        let mut found = Self {
            exams: Vec::new(),
            silent: Vec::new(),
            gaps: cluster.gaps(),
        };
        for (node, exam) in nodes.into_iter().zip(exams) {
            let (doubt, why) = match exam {
                Ok(exam) => {
                    found.exams.push((node, exam));
                    continue;
                }
                Err(ConnectError::Unreachable { source }) => (Doubt::Silent, source),
                // A primary until a moment ago. Whoever is it now has to be asked.
                Err(ConnectError::Replica) => {
                    (Doubt::Refused, (ErrorKind::Io, "it is a replica").into())
                }
                Err(other) => return Err(other),
            };
            node.doubt(Some(doubt));
            found.silent.push((node, why));
        }
        Ok(found)
    }

    fn is_all(&self) -> bool {
        self.silent.is_empty() && self.gaps.is_empty()
    }

    /// Whether the Cluster is to be used although not all of it can be seen.
    async fn accepted(
        &self,
        cluster: &Cluster,
        prefix: &str,
        accept: bool,
    ) -> Result<(), ConnectError> {
        let first = self.silent.first().map(|(_, source)| source.clone());
        if !accept {
            return Err(self.refusal(first));
        }
        self.any_serves(cluster, prefix, first).await?;
        for (node, source) in &self.silent {
            let error: &dyn std::error::Error = source;
            tracing::warn!(
                error,
                "the primary {node} of the Redis Cluster cannot be asked: keys that are there get errors, and its \
                 durability is unknown"
            );
        }
        if !self.gaps.is_empty() {
            let slots = &self.gaps;
            tracing::warn!(
                "no node of the Redis Cluster says who has the slots {slots}: keys that are there get errors, and the \
                 durability of their primaries is unknown"
            );
        }
        Ok(())
    }

    fn refusal(&self, silent: Option<RedisError>) -> ConnectError {
        let Some(source) = silent else {
            let slots = self.gaps.to_string();
            return ConnectError::Uncovered { slots };
        };
        let nodes = self.silent.iter().map(|(node, _)| node.to_string());
        let node = nodes.collect::<Vec<_>>().join(", ");
        ConnectError::SilentNode { node, source }
    }

    /// An error unless one of those that were asked serves its slots.
    async fn any_serves(
        &self,
        cluster: &Cluster,
        prefix: &str,
        mut why: Option<RedisError>,
    ) -> Result<(), ConnectError> {
        for (node, _) in &self.exams {
            match cluster.serves(node, prefix).await {
                Ok(()) => return Ok(()),
                Err(error) => why = Some(error),
            }
        }
        let none = || RedisError::from((ErrorKind::Io, "no primary is known"));
        let source = why.unwrap_or_else(none);
        Err(ConnectError::Unreachable { source })
    }
}

/// Settings under which an append-only file is not flushed: the command that asks, the setting, the value that is
/// none to rely on, and what is the matter then.
const FLUSHES: [(&str, &str, &str, Weakness); 2] = [
    (
        "CONFIG GET appendfsync",
        "appendfsync",
        "no",
        Weakness::NeverFlushed,
    ),
    (
        "CONFIG GET no-appendfsync-on-rewrite",
        "no-appendfsync-on-rewrite",
        "yes",
        Weakness::NotFlushedInRewrites,
    ),
];

/// Whether a setting has this value.
async fn is_set(server: &Arc<Server>, setting: &str, value: &str) -> RedisResult<bool> {
    let mut command = redis::cmd("CONFIG");
    let found = server.send(command.arg("GET").arg(setting)).await?;
    Ok(texts(found).any(|found| found == value))
}

/// A server that does not permit to look.
fn unverified(command: &'static str, error: RedisError, accept: bool) -> Result<(), ConnectError> {
    if !accept {
        return Err(ConnectError::Unverified {
            command,
            source: error,
        });
    }
    let source: &dyn std::error::Error = &error;
    tracing::warn!(
        error = source,
        "the Redis server does not permit {command}: its durability is unknown"
    );
    Ok(())
}

/// The texts in a reply: what a server says of itself, or names and values of settings.
fn texts(value: Value) -> Box<dyn Iterator<Item = String> + Send> {
    match value {
        Value::BulkString(bytes) => Box::new(std::iter::once(
            String::from_utf8_lossy(&bytes).into_owned(),
        )),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => {
            Box::new(std::iter::once(text))
        }
        Value::Array(values) => Box::new(values.into_iter().flat_map(texts)),
        Value::Map(pairs) => Box::new(pairs.into_iter().flat_map(|(_, value)| texts(value))),
        _ => Box::new(std::iter::empty()),
    }
}

impl Exam {
    /// What the server says. An error if it does not answer, or will not do whatever the operator chose.
    async fn of(server: &Arc<Server>, by_cluster: bool) -> Result<Self, ConnectError> {
        let mut exam = Self {
            info: None,
            weaknesses: Vec::new(),
            hidden: Vec::new(),
        };
        let info = match server.send(&redis::cmd("INFO")).await {
            Ok(value) => Info::parse(&texts(value).collect::<String>()),
            Err(error) => return exam.hide("INFO", error),
        };
        info.refuse(by_cluster)?;
        if info.get("loading") == "1" {
            // It says what it is, and does nothing else yet.
            let loading = ErrorKind::Server(ServerErrorKind::BusyLoading);
            let source = (loading, "it is loading its data").into();
            return Err(ConnectError::Unreachable { source });
        }
        info.weaknesses(&mut exam.weaknesses);
        let append_only = info.append_only();
        exam.info = Some(info);
        for (command, setting, bad, weakness) in FLUSHES.into_iter().filter(|_| append_only) {
            match is_set(server, setting, bad).await {
                Ok(true) => exam.weaknesses.push(weakness),
                Ok(false) => {}
                Err(error) => exam = exam.hide(command, error)?,
            }
        }
        Ok(exam)
    }

    /// A server that does not answer is one thing, one that does not permit to ask another.
    fn hide(mut self, command: &'static str, error: RedisError) -> Result<Self, ConnectError> {
        if !denied(&error) {
            return Err(ConnectError::of(command, error));
        }
        self.hidden.push((command, error));
        Ok(self)
    }
}

impl Info {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.get("redis_version").split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    fn append_only(&self) -> bool {
        self.get("aof_enabled") == "1"
    }

    /// What no choice of the operator mends.
    fn refuse(&self, by_cluster: bool) -> Result<(), ConnectError> {
        if self.version().is_some_and(|version| version < (6, 0)) {
            return Err(ConnectError::TooOld {
                version: self.get("redis_version").to_owned(),
            });
        }
        if self.get("cluster_enabled") == "1" && !by_cluster {
            return Err(ConnectError::PartOfCluster);
        }
        if matches!(self.get("role"), "slave" | "replica") {
            return Err(ConnectError::Replica);
        }
        Ok(())
    }

    fn weaknesses(&self, found: &mut Vec<Weakness>) {
        if !self.append_only() {
            found.push(Weakness::NoAppendOnlyFile);
        }
        let policy = self.get("maxmemory_policy");
        // Without a limit nothing is ever evicted, whatever the policy.
        if self.get("maxmemory") != "0" && policy != "noeviction" {
            found.push(Weakness::Evicts {
                policy: policy.to_owned(),
            });
        }
    }
}

/// Makes the servers know the scripts. Those that do not permit it are told with the first call of each, and so are
/// the nodes of a Cluster that stumble just now: the others serve.
pub(super) async fn load(
    link: &Link,
    servers: &[Arc<Server>],
    scripts: &super::script::Scripts,
) -> Result<(), ConnectError> {
    for server in servers {
        for command in scripts.load() {
            match server.send(&command).await {
                Err(error) if denied(&error) => {
                    tracing::debug!("the Redis server does not permit SCRIPT LOAD: EVAL will do");
                    break;
                }
                Err(error) if matches!(link, Link::Cluster(_)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        "a primary of the Redis Cluster did not take the scripts: EVAL will do"
                    );
                    break;
                }
                Err(error) => return Err(ConnectError::of("SCRIPT LOAD", error)),
                Ok(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{
        super::{
            RedisStore, RedisStoreBuilder,
            fake::{Fake, info, slots, text},
        },
        *,
    };

    const HERE: &str = "127.0.0.1";

    fn on(nodes: &[&Fake]) -> RedisStoreBuilder {
        let hosts: Vec<_> = nodes
            .iter()
            .map(|node| format!("{HERE}:{}", node.port()))
            .collect();
        RedisStore::builder(format!("redis+cluster://{}", hosts.join(",")))
    }

    /// For where a node is silent.
    fn impatient(builder: RedisStoreBuilder) -> RedisStoreBuilder {
        let soon = Duration::from_millis(400);
        builder.connect_timeout(soon).response_timeout(soon)
    }

    /// Three nodes that say who has the slots: a third each, and the hosts of the last two.
    async fn three(hosts: [&str; 2]) -> [Fake; 3] {
        let nodes = [Fake::new().await, Fake::new().await, Fake::new().await];
        let [first, second, third] = [0, 1, 2].map(|at| nodes[at].port());
        for node in &nodes {
            node.says(
                "CLUSTER SLOTS",
                slots(&[
                    (0, 5000, &[(HERE, first)]),
                    (5001, 11_000, &[(hosts[0], second)]),
                    (11_001, 16_383, &[(hosts[1], third)]),
                ]),
            );
        }
        nodes
    }

    /// A primary that no node names escapes no check.
    #[tokio::test]
    async fn slots_whose_primary_is_not_named_are_told_unless_that_is_accepted() {
        let nodes = three([HERE, "?"]).await;
        let builder = on(&[&nodes[0]]);
        let accepting = builder.clone().accept_weaker_durability();
        let (refused, accepted) = tokio::join!(builder.connect(), accepting.connect());
        accepted.expect("two of three");
        let error = refused.expect_err("who knows");
        let said = error.to_string();
        match error {
            ConnectError::Uncovered { slots } => assert_eq!(slots, "11001-16383"),
            other => panic!("{other:?} is another error"),
        }
        assert!(
            said.contains("11001-16383") && said.contains("accept_weaker"),
            "{said}"
        );
    }

    /// Who says nothing may be older than the others, whose scripts it may have to run.
    #[tokio::test]
    async fn all_silent_primaries_are_named_and_their_version_is_unknown() {
        let nodes = three([HERE, HERE]).await;
        for silent in &nodes[1..] {
            silent.says("", None);
        }
        let builder = impatient(on(&[&nodes[0]]));
        let accepting = builder.clone().accept_weaker_durability();
        let (refused, accepted) = tokio::join!(builder.connect(), accepting.connect());
        accepted.expect("one of three");
        match refused.expect_err("who knows") {
            ConnectError::SilentNode { node, .. } => {
                let mut named: Vec<_> = node.split(", ").collect();
                named.sort_unstable();
                let mut silent = [1, 2].map(|at| format!("{HERE}:{}", nodes[at].port()));
                silent.sort_unstable();
                assert_eq!(named, silent);
            }
            other => panic!("{other:?} is another error"),
        }
        assert!(!nodes[0].heard("SCRIPT LOAD").is_empty());
        assert!(nodes[0].heard("SCRIPT LOAD #!lua").is_empty());
        let whole = three([HERE, HERE]).await;
        on(&[&whole[0]]).connect().await.expect("all of them");
        assert!(!whole[0].heard("SCRIPT LOAD #!lua").is_empty());
    }

    /// A node that does not answer does not serve.
    #[tokio::test]
    async fn a_cluster_none_of_whose_primaries_serves_is_never_opened() {
        let nodes = three([HERE, "?"]).await;
        for node in &nodes[..2] {
            node.says("PEXPIRE", None);
        }
        let builder = impatient(on(&[&nodes[0]])).accept_weaker_durability();
        let error = builder.connect().await;
        assert!(
            matches!(error, Err(ConnectError::Unreachable { .. })),
            "{error:?}"
        );
    }

    /// A former primary that came back as a replica is not examined in place of the one that took over.
    #[tokio::test]
    async fn who_took_over_is_examined_and_not_who_came_back() {
        let [old, new] = [Fake::new().await, Fake::new().await];
        let answer = |node: &Fake| slots(&[(0, 16_383, &[(HERE, node.port())])]);
        old.says("INFO", info("7.0.0", "1", "slave"));
        new.says("INFO", info("7.0.0", "0", "master"));
        let (before, after) = (answer(&old), answer(&new));
        let asked = AtomicUsize::new(0);
        old.answers("CLUSTER SLOTS", move |_| {
            let late = asked.fetch_add(1, Ordering::SeqCst) > 1;
            Some(if late { after.clone() } else { before.clone() })
        });
        let error = on(&[&old]).connect().await.expect_err("weak");
        match error {
            ConnectError::Weak { weaknesses } => {
                assert_eq!(weaknesses, [Weakness::NoAppendOnlyFile]);
            }
            other => panic!("{other:?} is another error"),
        }
    }

    /// It said itself that it is none: that outweighs what two say who have not heard of it.
    #[tokio::test]
    async fn what_a_former_primary_says_of_itself_counts_for_more_than_what_most_say_of_it() {
        let [old, near, new] = [Fake::new().await, Fake::new().await, Fake::new().await];
        let answer = |node: &Fake| slots(&[(0, 16_383, &[(HERE, node.port())])]);
        old.says("INFO", info("7.0.0", "1", "slave"));
        for node in [&old, &near] {
            node.says("CLUSTER SLOTS", answer(&old));
        }
        new.says("CLUSTER SLOTS", answer(&new));
        let opened = on(&[&old, &near, &new]).connect().await;
        opened.expect("the new one is asked");
    }

    #[tokio::test]
    async fn one_look_that_fails_is_not_the_end() {
        let node = Fake::new().await;
        let answer = slots(&[(0, 16_383, &[(HERE, node.port())])]);
        let asked = AtomicUsize::new(0);
        node.answers("CLUSTER SLOTS", move |_| {
            let late = asked.fetch_add(1, Ordering::SeqCst) > 1;
            let loading = "-LOADING Redis is loading the dataset in memory\r\n";
            Some(if late {
                answer.clone()
            } else {
                loading.to_owned()
            })
        });
        on(&[&node]).connect().await.expect("loaded by now");
    }

    /// It answers INFO, and nothing that the store needs.
    #[tokio::test]
    async fn a_primary_that_is_loading_its_data_is_asked_again() {
        let nodes = three([HERE, HERE]).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let loading = "-LOADING Redis is loading the dataset in memory\r\n".to_owned();
        let loads = Arc::clone(&asked);
        nodes[1].answers("SCRIPT LOAD", move |_| {
            let loaded = loads.load(Ordering::SeqCst) > 2;
            Some(if loaded {
                text("hash")
            } else {
                loading.clone()
            })
        });
        nodes[1].answers("INFO", move |_| {
            let loaded = asked.fetch_add(1, Ordering::SeqCst) > 1;
            let role = ["master\r\nloading:1", "master\r\nloading:0"][usize::from(loaded)];
            Some(info("7.0.0", "1", role))
        });
        on(&[&nodes[0]]).connect().await.expect("loaded by now");
        assert_eq!(nodes[1].heard("INFO").len(), 3);
        let [scripts, others] = [1, 2].map(|at| nodes[at].heard("SCRIPT LOAD").len());
        assert_eq!(scripts, others);
    }

    /// It was sound a moment ago, and learns the scripts with the first call of each.
    #[tokio::test]
    async fn a_primary_that_does_not_take_the_scripts_does_not_keep_a_cluster_closed() {
        let nodes = three([HERE, HERE]).await;
        nodes[0].closes_after("SCRIPT LOAD");
        nodes[1].says("SCRIPT LOAD", "-LOADING it loads\r\n".to_owned());
        on(&[&nodes[0]]).connect().await.expect("it was sound");
        assert!(nodes[2].heard("SCRIPT LOAD").len() > 1);
        // Of a single server there is no other.
        let alone = Fake::new().await;
        let about = info("7.0.0", "1", "master").replace("cluster_enabled:1", "cluster_enabled:0");
        alone.says("INFO", about);
        alone.says("SCRIPT LOAD", "-LOADING it loads\r\n".to_owned());
        let error = RedisStore::connect(format!("redis://{HERE}:{}", alone.port())).await;
        assert!(
            matches!(error, Err(ConnectError::Unreachable { .. })),
            "{error:?}"
        );
    }

    fn weaknesses(text: &str) -> Vec<Weakness> {
        let mut found = Vec::new();
        Info::parse(text).weaknesses(&mut found);
        found
    }

    #[test]
    fn what_can_lose_keys_is_found() {
        assert_eq!(
            weaknesses("aof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"),
            []
        );
        assert_eq!(
            weaknesses("aof_enabled:1\r\nmaxmemory:9\r\nmaxmemory_policy:noeviction\r\n"),
            []
        );
        let found = weaknesses("aof_enabled:0\r\nmaxmemory:9\r\nmaxmemory_policy:volatile-ttl\r\n");
        let policy = "volatile-ttl".to_owned();
        assert_eq!(
            found,
            [Weakness::NoAppendOnlyFile, Weakness::Evicts { policy }]
        );
        // A server that says nothing is not trusted.
        assert_eq!(weaknesses("").len(), 2);
    }

    #[test]
    fn servers_that_will_not_do_are_refused() {
        let refused = |text: &str| Info::parse(text).refuse(false).expect_err(text);
        assert!(matches!(
            refused("redis_version:5.0.14"),
            ConnectError::TooOld { .. }
        ));
        assert!(matches!(refused("role:slave"), ConnectError::Replica));
        assert!(matches!(
            refused("cluster_enabled:1"),
            ConnectError::PartOfCluster
        ));
        assert!(Info::parse("cluster_enabled:1").refuse(true).is_ok());
        let replica = Info::parse("role:slave").refuse(true);
        assert!(matches!(replica, Err(ConnectError::Replica)));
    }
}
