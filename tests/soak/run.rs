//! A run: rounds of traffic, each followed by rest and an audit.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    audit::audit,
    fleet::Fleet,
    ledger::{Ledger, Rule},
    measure::{Samples, growth},
    node::{Gauges, SPARE_TASKS},
    order::{Order, Protection},
    random::Random,
    report::Report,
    store::StoreKind,
    traffic::{Traffic, send},
};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How long new rounds begin. Each store has a round at least.
    pub(crate) time: Duration,
    /// How long requests are sent in one round.
    pub(crate) round: Duration,
    pub(crate) clients: u64,
    pub(crate) stores: Vec<StoreKind>,
    pub(crate) protections: Vec<Protection>,
    /// How often memory is sampled.
    pub(crate) sampled: Duration,
    /// How long processes may take to come to rest, and keys to be free.
    pub(crate) patience: Duration,
    /// Whether the run waits at its end until no claim is withdrawn any more, which takes ten minutes and more.
    pub(crate) outlives_withdrawals: bool,
    /// What the run has to reach: if it is counted nowhere, more rounds follow, up to [`MORE_ROUNDS`].
    pub(crate) reaches: &'static [&'static str],
    /// A fault that is planted in each round, to see that it is found.
    pub(crate) plant: Plant,
}

/// A fault to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the long run plants nothing")]
pub(crate) enum Plant {
    Nothing,
    /// A process with tasks that never end.
    Tasks,
    /// An execution that never ends.
    Execution,
    /// An execution whose process disappears.
    Loss,
}

/// One key in so many is sent again at the end of the run.
const KEPT: u64 = 16;
/// How many rounds may follow until a run has reached what it has to.
const MORE_ROUNDS: usize = 6;
/// At most so many violations are printed after each round.
const PRINTED: usize = 5;
/// How many keys are audited at the same time.
const AUDITORS: usize = 24;
/// The longest that a claim is withdrawn for, with the pause before the last withdrawal.
const WITHDRAWALS_END: Duration = Duration::from_secs(12 * 60);

/// Enough for what should come to an end: a claim that arrives late is withdrawn after half a minute at most, one and a half
/// times that with jitter, and an outcome in doubt is stored as late as that.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Runs the plan, on the stores whose servers are installed.
pub(crate) fn run(plan: &Plan) -> Report {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("soak-clients")
        .enable_all()
        .build()
        .expect("a runtime");
    let soak = Soak {
        plan: plan.clone(),
        ledger: Arc::default(),
        samples: Samples::new(),
        next_key: Arc::new(AtomicU64::new(1)),
        kept: Mutex::default(),
    };
    runtime.block_on(soak.run());
    runtime.shutdown_background();
    let rss = soak.samples.rss();
    if let Some(growth) = growth(&rss) {
        soak.ledger.violation(Rule::Memory, growth);
    }
    Report {
        seed: plan.seed,
        time: soak.samples.elapsed(),
        counts: soak.ledger.counts(),
        rss,
        violations: soak.ledger.violations(),
    }
}

struct Soak {
    plan: Plan,
    ledger: Arc<Ledger>,
    samples: Samples,
    next_key: Arc<AtomicU64>,
    /// Keys with an acknowledged outcome, for the end of the run.
    kept: Mutex<Vec<(StoreKind, u64)>>,
}

impl Soak {
    async fn run(&self) {
        let over = AtomicBool::new(false);
        let sampling = async {
            while !over.load(Ordering::SeqCst) {
                self.samples.take();
                sleep(self.plan.sampled).await;
            }
        };
        let rounds = async {
            self.rounds().await;
            over.store(true, Ordering::SeqCst);
        };
        tokio::join!(sampling, rounds);
    }

    async fn rounds(&self) {
        let (mut durable, mut stores) = (Vec::new(), Vec::new());
        for &kind in &self.plan.stores {
            if kind == StoreKind::Memory {
                stores.push(kind);
            } else if let Some(fleet) = self.fleet(kind).await {
                stores.push(kind);
                durable.push(fleet);
            }
        }
        if stores.is_empty() {
            return;
        }
        let mut random = Random::new(self.plan.seed);
        let mut more = 0;
        for number in 0.. {
            if number >= stores.len() && self.samples.elapsed() >= self.plan.time {
                if self.has_reached_all() || more == MORE_ROUNDS {
                    break;
                }
                more += 1;
            }
            // Each store once, then any.
            let kind = match stores.get(number) {
                Some(&kind) => kind,
                None => stores[random.index(stores.len())],
            };
            if let Some(fleet) = durable.iter().find(|fleet| fleet.kind == kind) {
                self.round(number, fleet, &mut random).await;
            } else if kind == StoreKind::Memory
                && let Some(fleet) = self.fleet(kind).await
            {
                // Its records go with its processes.
                self.round(number, &fleet, &mut random).await;
                self.forget(|&(kept, _)| kept != StoreKind::Memory);
                fleet.end().await;
            }
        }
        self.end(&durable).await;
    }

    fn has_reached_all(&self) -> bool {
        let counts = self.ledger.counts();
        self.plan
            .reaches
            .iter()
            .all(|what| counts.contains_key(what))
    }

    /// A new fleet; nothing if its server is not installed.
    async fn fleet(&self, kind: StoreKind) -> Option<Arc<Fleet>> {
        Fleet::start(kind, &self.ledger).await.map(Arc::new)
    }

    /// The traffic, the rest and the audit.
    async fn round(&self, number: usize, fleet: &Arc<Fleet>, random: &mut Random) {
        let since = self.samples.elapsed();
        let before = self.ledger.violations().len();
        let first = self.next_key.load(Ordering::SeqCst);
        self.traffic(number, fleet).await;
        fleet.heal();
        self.plant(fleet, random).await;
        let rest = fleet.rest(self.plan.patience).await;
        let keys = first..self.next_key.load(Ordering::SeqCst);
        let audited = Instant::now();
        self.audit(keys.clone().collect(), fleet, random).await;
        let audited = audited.elapsed();
        fleet.rest(self.plan.patience).await;
        fleet.forget_ended();
        self.keep(fleet.kind, keys.clone());
        self.print_violations(before);
        println!(
            "{:7.1} s  round {number:3} {:8} {:5} keys, at rest after {:4.1} s, audited in {:4.1} s, {}, rss {:3.0} MiB",
            since.as_secs_f64(),
            fleet.kind.name(),
            keys.count(),
            rest.as_secs_f64(),
            audited.as_secs_f64(),
            shown(&fleet.gauges()),
            self.samples.take(),
        );
    }

    /// Prints what was found since there were so many violations.
    fn print_violations(&self, before: usize) {
        for (rule, what) in self.ledger.violations().iter().skip(before).take(PRINTED) {
            println!("{rule:?}: {what}");
        }
    }

    async fn traffic(&self, number: usize, fleet: &Arc<Fleet>) {
        let traffic = Arc::new(Traffic {
            ledger: Arc::clone(&self.ledger),
            fleet: Arc::clone(fleet),
            protections: self.plan.protections.clone(),
            next_key: Arc::clone(&self.next_key),
            over: AtomicBool::new(false),
            recent: Mutex::new(VecDeque::new()),
        });
        let number = u64::try_from(number).unwrap_or_default();
        let own = |what: u64| Random::new(self.plan.seed ^ (number << 40) ^ (what << 20));
        let mut clients = JoinSet::new();
        for client in 0..self.plan.clients {
            let (traffic, random) = (Arc::clone(&traffic), own(client + 10));
            clients.spawn(async move { traffic.client(random).await });
        }
        let faults = async {
            fleet.fail_store(&mut own(1), || traffic.is_over()).await;
        };
        let replacements = async {
            let mut random = own(2);
            // None in a third of the rounds: there nothing excuses a key that stays blocked.
            for _ in 0..random.between(0, 2) {
                sleep(self.plan.round.mul_f64(0.2) + random.millis(0, 1000)).await;
                fleet.replace_one(&mut random).await;
            }
        };
        let clock = async {
            sleep(self.plan.round).await;
            traffic.over.store(true, Ordering::SeqCst);
        };
        let ((), (), (), ()) = tokio::join!(faults, replacements, clock, all(clients));
    }

    async fn plant(&self, fleet: &Fleet, random: &mut Random) {
        match self.plan.plant {
            Plant::Nothing => {}
            Plant::Tasks => fleet.leak_tasks(SPARE_TASKS * 2),
            Plant::Execution | Plant::Loss => {
                let key = self.next_key.fetch_add(1, Ordering::SeqCst);
                let order = Order::endless(key);
                self.ledger.order(order);
                let Some(address) = fleet.address(random) else {
                    return;
                };
                let request = order.request(false);
                let sent = send(address, &request, false);
                // The client leaves.
                let _left = timeout(Duration::from_millis(500), sent).await;
                if self.plan.plant == Plant::Loss {
                    fleet.lose(address).await;
                }
            }
        }
    }

    /// Sends these keys until each has its final answer.
    async fn audit(&self, keys: Vec<u64>, fleet: &Arc<Fleet>, random: &mut Random) {
        let keys = Arc::new(Mutex::new(keys.into_iter()));
        let mut auditors = JoinSet::new();
        for _ in 0..AUDITORS {
            let mut random = Random::new(random.between(0, u64::MAX - 1));
            let patience = self.plan.patience;
            let (fleet, ledger, keys) = (
                Arc::clone(fleet),
                Arc::clone(&self.ledger),
                Arc::clone(&keys),
            );
            auditors.spawn(async move {
                let next = || keys.lock().expect("nothing panics under it").next();
                while let Some(key) = next() {
                    audit(key, &fleet, &ledger, &mut random, patience).await;
                }
            });
        }
        all(auditors).await;
    }

    /// Keeps some of these keys for the end of the run.
    fn keep(&self, kind: StoreKind, keys: Range<u64>) {
        let is_kept = |key| {
            let entry = self.ledger.entry(key);
            key % KEPT == 0 && entry.is_some_and(|entry| entry.is_replayable())
        };
        self.kept()
            .extend(keys.filter(|&key| is_kept(key)).map(|key| (kind, key)));
        self.forget(|_| true);
    }

    /// Forgets all keys but those that are kept, of which only these. An hour of keys would look like a leak.
    fn forget(&self, keeps: impl Fn(&(StoreKind, u64)) -> bool) {
        let mut kept = self.kept();
        kept.retain(keeps);
        let keys: HashSet<_> = kept.iter().map(|&(_, key)| key).collect();
        self.ledger.forget(|key| !keys.contains(&key));
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(StoreKind, u64)>> {
        self.kept.lock().expect("nothing panics under it")
    }

    /// The kept keys once more, the last withdrawals, and the end of all processes.
    async fn end(&self, fleets: &[Arc<Fleet>]) {
        let mut random = Random::new(!self.plan.seed);
        let since = Instant::now();
        let left = || fleets.iter().map(|fleet| withdrawals(fleet)).sum::<usize>();
        while self.plan.outlives_withdrawals && left() > 0 {
            if since.elapsed() > WITHDRAWALS_END {
                let what = format!("{} withdrawals after {WITHDRAWALS_END:?}", left());
                self.ledger.violation(Rule::NotIdle, what);
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        for fleet in fleets {
            let kept = self.kept().clone();
            let mine = kept.into_iter().filter(|(kind, _)| *kind == fleet.kind);
            let mine: Vec<_> = mine.map(|(_, key)| key).collect();
            let count = mine.len();
            self.audit(mine, fleet, &mut random).await;
            fleet.rest(self.plan.patience).await;
            println!(
                "{:7.1} s  end       {:8} {count:5} kept keys sent once more, {}",
                self.samples.elapsed().as_secs_f64(),
                fleet.kind.name(),
                shown(&fleet.gauges()),
            );
            fleet.end().await;
        }
    }
}

/// Waits for all of them, and passes on the first panic.
async fn all(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a client or an auditor does not panic");
    }
}

fn withdrawals(fleet: &Fleet) -> usize {
    fleet.gauges().iter().map(|node| node.withdrawals).sum()
}

fn shown(gauges: &[Gauges]) -> String {
    let list = |of: fn(&Gauges) -> usize| {
        let numbers: Vec<_> = gauges.iter().map(|node| of(node).to_string()).collect();
        numbers.join("+")
    };
    format!(
        "tasks {} of which withdrawals {}",
        list(|node| node.tasks),
        list(|node| node.withdrawals)
    )
}
