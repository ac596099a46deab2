//! One run: nodes that are killed, clients that do not give up, and the audit.

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
    client::{Answer, pay},
    ledger::Report,
    nodes::{Node, Setting, demo},
    random::Random,
    servers::Folder,
    stores::{Backend, StoreKind},
};

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) store: StoreKind,
    pub(crate) kill_store: bool,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
    /// A demo that was built already.
    pub(crate) demo: Option<PathBuf>,
}

/// What clients share.
struct Shared {
    seed: u64,
    /// Begins every key, so that no two runs on one store have a key in common.
    run: String,
    ports: Vec<u16>,
    drawn: AtomicU64,
    over: AtomicBool,
    told: Mutex<HashMap<u64, Vec<Answer>>>,
}

/// Ends the drawing of new keys, even where a server did not come back: the clients would never end else.
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
    let setting = Setting {
        demo: plan.demo.clone().unwrap_or_else(demo),
        folder: folder.path(),
        ledger: folder.path().join("ledger"),
        store: backend.url(),
        weak: plan.store == StoreKind::RedisWeak,
    };
    let mut nodes: Vec<_> = (0..plan.nodes).map(Node::new).collect();
    for node in &mut nodes {
        node.start(&setting);
    }
    let shared = Shared::new(plan.seed, &nodes);
    let started = Instant::now();
    let mut report = Report {
        seed: plan.seed,
        ..Report::default()
    };
    thread::scope(|scope| {
        for number in 0..plan.clients {
            let shared = &shared;
            scope.spawn(move || shared.ask_for_new_keys(number));
        }
        // From its end on nobody is killed, so every client gets its answer.
        let _over = Over(&shared.over);
        strike(plan, &mut nodes, &setting, &mut backend, &mut report);
    });
    shared.ask_for_all_keys(plan.clients);
    report.time = started.elapsed();
    let told = shared
        .told
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report.audit(&told, &setting.ledger);
    Some(report)
}

/// Kills a node every 30 to 120 ms, and the store meanwhile if the plan says so. Leaves all of them running.
fn strike(
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
            .then(|| scope.spawn(move || strike_store(plan.seed, backend, end)));
        let mut random = Random::new(plan.seed);
        while Instant::now() < end {
            thread::sleep(random.millis(30, 120));
            let place = random.place(nodes.len());
            nodes[place].start(setting);
            report.kills += 1;
        }
        report.store_kills = store.map_or(0, |store| store.join().expect("the store's killer"));
    });
    // One that began while the store was away has ended by itself.
    for node in nodes {
        node.start(setting);
        report.kills += 1;
    }
}

/// Kills the store again and again, and says how often. Between two kills it lives for 300 to 900 ms, and for as
/// long as it took to come back, so that slow servers serve half of the time.
fn strike_store(seed: u64, backend: &mut Backend, end: Instant) -> u32 {
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
    fn new(seed: u64, nodes: &[Node]) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seed,
            run: format!("torture-{seed}-{}-{}", std::process::id(), now.as_nanos()),
            ports: nodes.iter().map(Node::port).collect(),
            drawn: AtomicU64::new(0),
            over: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }

    /// New keys until the killing is over. Two clients share each, and each asks twice.
    fn ask_for_new_keys(&self, number: usize) {
        let mut random = self.random(number);
        while !self.over.load(Ordering::SeqCst) {
            let key = self.drawn.fetch_add(1, Ordering::SeqCst) / 2;
            self.ask(key, &mut random);
            self.ask(key, &mut random);
        }
    }

    /// All keys once more.
    fn ask_for_all_keys(&self, clients: usize) {
        let keys: Vec<u64> = self.told().keys().copied().collect();
        let share = keys.len().div_ceil(clients).max(1);
        thread::scope(|scope| {
            for (number, keys) in keys.chunks(share).enumerate() {
                let mut random = self.random(1000 + number);
                scope.spawn(move || keys.iter().for_each(|&key| self.ask(key, &mut random)));
            }
        });
    }

    fn ask(&self, key: u64, random: &mut Random) {
        // Only answers that came before this was asked are promised to it: two clients that ask at once may
        // write down what they heard in either order.
        let before = self.told().get(&key).map_or(0, Vec::len);
        let name = format!("{}-{key}", self.run);
        let answer = pay(&self.ports, &name, key, random);
        let mut told = self.told();
        let answers = told.entry(key).or_default();
        if answer == Answer::Unknown && answers.len() > before {
            // Asked before the other was answered: it stands before those answers.
            answers.insert(before, answer);
        } else {
            answers.push(answer);
        }
    }

    fn random(&self, number: usize) -> Random {
        Random::new(self.seed ^ (u64::try_from(number).unwrap_or_default() << 32))
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<Answer>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
