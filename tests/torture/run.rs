//! One run: processes that are killed, clients that retry, and the audit.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    app::App,
    client::{Answer, Client},
    ledger::Report,
    nodes::{Node, Setting, demo},
    proxy::Proxy,
    random::Random,
    servers::Folder,
    stores::{Backend, StoreKind},
    transfers::Books,
};

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) app: App,
    pub(crate) store: StoreKind,
    pub(crate) kill_store: bool,
    /// Whether replies are lost: those of the store, and those to clients.
    pub(crate) lose_replies: bool,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
    /// The path of a built example.
    pub(crate) demo: Option<PathBuf>,
}

/// What the clients share.
struct Shared {
    app: App,
    lose_replies: bool,
    seed: u64,
    /// The prefix of every key: two runs on one store have no key in common.
    run: String,
    ports: Vec<u16>,
    drawn: AtomicU64,
    over: AtomicBool,
    answers: Mutex<HashMap<u64, Vec<Answer>>>,
}

/// Stops the clients from drawing new keys, even if a server did not restart; otherwise they would never end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs the plan; nothing if the server is not installed.
pub(crate) fn run(plan: &Plan) -> Option<Report> {
    let mut backend = plan.store.start()?;
    let folder = Folder::new("torture");
    let (url, proxy) = reached_by(plan, &backend);
    let setting = Setting {
        demo: plan.demo.clone().unwrap_or_else(|| demo(plan.app)),
        folder: folder.path(),
        ledger: folder.path().join("ledger"),
        store: url,
        weak: plan.store == StoreKind::RedisWeak,
    };
    let mut nodes: Vec<_> = (0..plan.nodes).map(Node::new).collect();
    for node in &mut nodes {
        node.start(&setting);
    }
    let shared = Shared::new(plan, &nodes);
    let started = Instant::now();
    let mut report = Report {
        seed: plan.seed,
        ..Report::default()
    };
    thread::scope(|scope| {
        for number in 0..plan.clients {
            let shared = &shared;
            scope.spawn(move || shared.send_new_keys(number));
        }
        if let Some(proxy) = &proxy {
            scope.spawn(|| lose_replies(plan.seed, proxy, &shared.over));
        }
        // After this nothing is killed, so every client gets its answer.
        let _over = Over(&shared.over);
        kill_processes(plan, &mut nodes, &setting, &mut backend, &mut report);
    });
    shared.send_all_keys(plan.clients);
    report.time = started.elapsed();
    report.lost_replies = proxy.map_or(0, |proxy| proxy.lost());
    let answers = shared
        .answers
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    match plan.app {
        App::Payments => report.audit_payments(&answers, &setting.ledger),
        App::Transfers => {
            let books = Books::read(&backend.url(), answers.keys().copied());
            report.audit_transfers(&answers, books);
        }
    }
    Some(report)
}

/// The URL by which processes reach the store, and the proxy that loses its replies.
fn reached_by(plan: &Plan, backend: &Backend) -> (String, Option<Proxy>) {
    let url = backend.url();
    match backend.port() {
        Some(port) if plan.lose_replies => {
            let proxy = Proxy::to(port);
            let behind = format!(":{}", proxy.port());
            (url.replace(&format!(":{port}"), &behind), Some(proxy))
        }
        _ => (url, None),
    }
}

/// Loses a reply of the store every 20 to 200 ms, until the killing is over.
fn lose_replies(seed: u64, proxy: &Proxy, over: &AtomicBool) {
    let mut random = Random::new(seed.rotate_left(32));
    while !over.load(Ordering::SeqCst) {
        thread::sleep(random.millis(20, 200));
        proxy.lose_next_reply();
    }
}

/// Kills a process every 30 to 120 ms, and the store's server too if the plan says so. Leaves all of them running.
fn kill_processes(
    plan: &Plan,
    nodes: &mut [Node],
    setting: &Setting<'_>,
    backend: &mut Backend,
    report: &mut Report,
) {
    let end = Instant::now() + plan.time;
    thread::scope(|scope| {
        let store = plan
            .kill_store
            .then(|| scope.spawn(move || kill_store(plan.seed, backend, end)));
        let mut random = Random::new(plan.seed);
        while Instant::now() < end {
            thread::sleep(random.millis(30, 120));
            let index = random.index(nodes.len());
            nodes[index].start(setting);
            report.kills += 1;
        }
        report.store_kills = store.map_or(0, |store| store.join().expect("the store's killer"));
    });
    // A process that was started while the store was unreachable has ended by itself.
    for node in nodes {
        node.start(setting);
        report.kills += 1;
    }
}

/// Kills the store's server again and again, and returns how often. Between two kills it runs for 300 to 900 ms and for
/// as long as its restart took, so that slow servers serve half of the time.
fn kill_store(seed: u64, backend: &mut Backend, end: Instant) -> u32 {
    let mut random = Random::new(!seed);
    let mut kills = 0;
    let mut life = random.millis(300, 900);
    while Instant::now() + life < end {
        thread::sleep(life);
        let killed = Instant::now();
        backend.restart();
        kills += 1;
        life = random.millis(300, 900) + killed.elapsed();
    }
    kills
}

impl Shared {
    fn new(plan: &Plan, nodes: &[Node]) -> Self {
        let seed = plan.seed;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            app: plan.app,
            lose_replies: plan.lose_replies,
            seed,
            run: format!("torture-{seed}-{}-{}", std::process::id(), now.as_nanos()),
            ports: nodes.iter().map(Node::port).collect(),
            drawn: AtomicU64::new(0),
            over: AtomicBool::new(false),
            answers: Mutex::default(),
        }
    }

    /// Sends new keys until the killing is over. Two clients share each key, and each client sends it twice.
    fn send_new_keys(&self, number: usize) {
        let mut random = self.random(number);
        while !self.over.load(Ordering::SeqCst) {
            let key = self.drawn.fetch_add(1, Ordering::SeqCst) / 2;
            self.send(key, &mut random);
            self.send(key, &mut random);
        }
    }

    /// Sends all keys once more.
    fn send_all_keys(&self, clients: usize) {
        let keys: Vec<u64> = self.answers().keys().copied().collect();
        let share = keys.len().div_ceil(clients).max(1);
        thread::scope(|scope| {
            for (number, keys) in keys.chunks(share).enumerate() {
                let mut random = self.random(1000 + number);
                scope.spawn(move || keys.iter().for_each(|&key| self.send(key, &mut random)));
            }
        });
    }

    fn send(&self, key: u64, random: &mut Random) {
        // Only answers from before this request bind it: two clients that send at once may record their answers in
        // either order.
        let before = self.answers().get(&key).map_or(0, Vec::len);
        let name = format!("{}-{key}", self.run);
        let client = Client {
            app: self.app,
            ports: &self.ports,
            // Once the killing is over, every reply arrives.
            loses: self.lose_replies && !self.over.load(Ordering::SeqCst),
        };
        let answer = client.ask(&name, key, random);
        let mut all = self.answers();
        let answers = all.entry(key).or_default();
        if answer == Answer::Unknown && answers.len() > before {
            // Sent before the newer answers arrived: it is recorded before them.
            answers.insert(before, answer);
        } else {
            answers.push(answer);
        }
    }

    fn random(&self, number: usize) -> Random {
        Random::new(self.seed ^ (u64::try_from(number).unwrap_or_default() << 32))
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<Answer>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
