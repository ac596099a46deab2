//! One run: nodes that are killed, clients that do not give up, and the audit.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Answer, pay},
    ledger::Report,
    nodes::{Node, Setting, demo},
    random::Random,
    servers::{Folder, redis::Redis},
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

/// On what.
#[derive(Debug)]
pub(crate) enum StoreKind {
    /// A Redis of our own, with an append-only file.
    Durable,
    /// A Redis of our own, without persistence.
    Weak,
    /// Whatever this URL names.
    Running(String),
}

/// What clients share.
struct Shared {
    seed: u64,
    ports: Vec<u16>,
    drawn: AtomicU64,
    over: AtomicBool,
    told: Mutex<HashMap<u64, Vec<Answer>>>,
}

/// Runs the plan; nothing if the server is not installed.
pub(crate) fn run(plan: &Plan) -> Option<Report> {
    let mut server = match plan.store {
        StoreKind::Durable => Some(Redis::flushing()?),
        StoreKind::Weak => Some(Redis::with(&[])?),
        StoreKind::Running(_) => None,
    };
    let store = match (&plan.store, &server) {
        (StoreKind::Running(url), _) => url.clone(),
        (_, server) => server.as_ref().map(Redis::url)?,
    };
    let folder = Folder::new("torture");
    let setting = Setting {
        demo: plan.demo.clone().unwrap_or_else(demo),
        folder: folder.path(),
        ledger: folder.path().join("ledger"),
        store,
        weak: matches!(plan.store, StoreKind::Weak),
    };
    let mut nodes: Vec<_> = (0..plan.nodes).map(Node::new).collect();
    for node in &mut nodes {
        node.start(&setting);
    }
    let shared = Shared {
        seed: plan.seed,
        ports: nodes.iter().map(Node::port).collect(),
        drawn: AtomicU64::new(0),
        over: AtomicBool::new(false),
        told: Mutex::default(),
    };
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
        let server = if plan.kill_store {
            server.as_mut()
        } else {
            None
        };
        strike(plan, &mut nodes, &setting, server, &mut report);
        // From here on nobody is killed, so every client gets its answer.
        shared.over.store(true, Ordering::SeqCst);
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

/// Kills a node every 30 to 120 ms, and the store every 300 to 900 ms if there is one to be killed.
fn strike(
    plan: &Plan,
    nodes: &mut [Node],
    setting: &Setting<'_>,
    mut store: Option<&mut Redis>,
    report: &mut Report,
) {
    let mut random = Random::new(plan.seed);
    let end = Instant::now() + plan.time;
    let mut store_lives_until = Instant::now() + random.millis(300, 900);
    while Instant::now() < end {
        thread::sleep(random.millis(30, 120));
        let place = random.place(nodes.len());
        nodes[place].kill();
        nodes[place].start(setting);
        report.kills += 1;
        if let Some(store) = &mut store
            && Instant::now() >= store_lives_until
        {
            store.restart();
            report.store_kills += 1;
            store_lives_until = Instant::now() + random.millis(300, 900);
        }
    }
}

impl Shared {
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
        let name = format!("torture-{}-{key}", self.seed);
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
