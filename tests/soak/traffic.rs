//! Clients: each sends orders, new ones and repetitions, over HTTP/1.1 and h2, and leaves in every way.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use crate::{
    answer::Answer,
    fleet::Fleet,
    ledger::Ledger,
    order::{Order, Protection},
    random::Random,
    support::{Conn, H2Conn, H2Stream, TestRequest, TestResponse},
};

/// How long a request may take at most: the wait for another one, its own execution, and all time-outs of the store.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);
/// How many of the last keys are sent again.
const RECENT: usize = 48;

/// What the clients share.
pub(crate) struct Traffic {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) fleet: Arc<Fleet>,
    /// The protections to choose from.
    pub(crate) protections: Vec<Protection>,
    pub(crate) next_key: Arc<AtomicU64>,
    pub(crate) over: AtomicBool,
    pub(crate) recent: Mutex<VecDeque<Order>>,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Stays,
    /// FIN, or the end of the h2 connection.
    Closes,
    /// RST, or the reset of the h2 stream.
    Resets,
    /// FIN while it goes on reading.
    HalfCloses,
    /// Before the end of its request's body.
    InItsBody,
}

impl Traffic {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// One client, until the traffic is over.
    pub(crate) async fn client(&self, mut random: Random) {
        while !self.is_over() {
            let order = self.draw(&mut random);
            let sent = Instant::now();
            let rival = order.rivals && random.between(0, 1) == 0;
            if random.between(0, 9) < 4 {
                self.over_h2(order, rival, &mut random).await;
            } else {
                let leaving = leaving(&mut random);
                let answer = self.over_http1(order, rival, leaving, &mut random).await;
                self.ledger.answered(order.key, rival, sent, &answer);
            }
            sleep(random.millis(1, 40)).await;
        }
    }

    /// A new order, or one of the last ones.
    fn draw(&self, random: &mut Random) -> Order {
        let mut recent = self.recent();
        if recent.is_empty() || random.between(0, 9) < 3 {
            let key = self.next_key.fetch_add(1, Ordering::SeqCst);
            let protection = self.protections[random.index(self.protections.len())];
            let order = Order::random(key, protection, random);
            self.ledger.order(order);
            recent.push_back(order);
            if recent.len() > RECENT {
                recent.pop_front();
            }
            return order;
        }
        recent[random.index(recent.len())]
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Order>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn over_http1(
        &self,
        order: Order,
        rival: bool,
        leaving: Leaving,
        random: &mut Random,
    ) -> Answer {
        self.ledger.count(match leaving {
            Leaving::Stays => "http/1.1: the client stays",
            Leaving::Closes => "http/1.1: FIN",
            Leaving::Resets => "http/1.1: RST",
            Leaving::HalfCloses => "http/1.1: half-close",
            Leaving::InItsBody => "http/1.1: the body breaks off",
        });
        let Some(address) = self.fleet.address(random) else {
            return Answer::Cut;
        };
        let after = moment(random);
        limited(http1(address, &order.request(rival), leaving, after)).await
    }

    /// Up to three requests on one connection: the order, repetitions of it, and others.
    async fn over_h2(&self, first: Order, rival: bool, random: &mut Random) {
        let sent = Instant::now();
        let Some(address) = self.fleet.address(random) else {
            return;
        };
        let Ok(Ok(mut conn)) = timeout(LONGEST_REQUEST, H2Conn::try_open(address)).await else {
            self.ledger.answered(first.key, rival, sent, &Answer::Cut);
            return;
        };
        let mut streams = Vec::new();
        for n in 0..random.between(1, 3) {
            let (order, rival) = match random.between(0, 1) {
                _ if n == 0 => (first, rival),
                0 => (first, rival),
                _ => (self.draw(random), false),
            };
            if let Ok(stream) = conn.try_send(&order.request(rival)).await {
                streams.push((order, rival, stream));
            }
        }
        let leaving = leaving(random);
        self.ledger.count(match leaving {
            Leaving::Stays | Leaving::HalfCloses => "h2: the client stays",
            Leaving::Closes => "h2: the connection ends",
            Leaving::Resets => "h2: a stream is reset",
            Leaving::InItsBody => "h2: the body breaks off",
        });
        match leaving {
            Leaving::Stays | Leaving::HalfCloses => {}
            Leaving::Closes => {
                sleep(moment(random)).await;
                conn.close();
                for (order, rival, _) in streams {
                    self.ledger.answered(order.key, rival, sent, &Answer::Left);
                }
                return;
            }
            Leaving::Resets => {
                sleep(moment(random)).await;
                if let Some((order, rival, stream)) = streams.pop() {
                    stream.reset();
                    self.ledger.answered(order.key, rival, sent, &Answer::Left);
                }
            }
            Leaving::InItsBody => {
                if let Ok(mut stream) = conn.try_begin(&first.request(rival)).await {
                    stream.piece(b"{\"order\":");
                    stream.reset();
                }
            }
        }
        for (order, rival, stream) in streams {
            let answer = limited(read_h2(stream)).await;
            self.ledger.answered(order.key, rival, sent, &answer);
        }
    }
}

/// Sends a request of the audit: the client stays.
pub(crate) async fn send(address: SocketAddr, request: &TestRequest, over_h2: bool) -> Answer {
    if !over_h2 {
        return limited(http1(address, request, Leaving::Stays, Duration::ZERO)).await;
    }
    limited(async {
        let mut conn = H2Conn::try_open(address).await?;
        let stream = conn.try_send(request).await?;
        read_h2(stream).await
    })
    .await
}

/// The kind of an answer, if there is one in time.
async fn limited(answer: impl Future<Output = io::Result<Option<TestResponse>>>) -> Answer {
    match timeout(LONGEST_REQUEST, answer).await {
        Ok(Ok(Some(response))) => Answer::of(&response),
        Ok(Ok(None)) => Answer::Left,
        Ok(Err(_)) => Answer::Cut,
        Err(_) => Answer::Nothing,
    }
}

async fn read_h2(stream: H2Stream) -> io::Result<Option<TestResponse>> {
    Ok(Some(stream.try_answer().await?))
}

async fn http1(
    address: SocketAddr,
    request: &TestRequest,
    leaving: Leaving,
    after: Duration,
) -> io::Result<Option<TestResponse>> {
    let mut conn = Conn::try_open(address).await?;
    let wire = request.wire();
    if leaving == Leaving::InItsBody {
        conn.send(&wire[..wire.len() - request.body.len() / 2])
            .await;
        sleep(after).await;
        conn.close();
        return Ok(None);
    }
    conn.send(&wire).await;
    match leaving {
        Leaving::Stays | Leaving::InItsBody => {}
        Leaving::HalfCloses => {
            sleep(after).await;
            conn.half_close().await;
        }
        Leaving::Closes | Leaving::Resets => {
            // It leaves in the middle, unless the answer comes first.
            if let Ok(answer) = timeout(after, conn.try_answer()).await {
                return answer.map(Some);
            }
            if leaving == Leaving::Closes {
                conn.close();
            } else {
                conn.reset();
            }
            return Ok(None);
        }
    }
    conn.try_answer().await.map(Some)
}

fn leaving(random: &mut Random) -> Leaving {
    match random.between(0, 19) {
        0..12 => Leaving::Stays,
        12..15 => Leaving::Closes,
        15..18 => Leaving::Resets,
        18 => Leaving::HalfCloses,
        _ => Leaving::InItsBody,
    }
}

/// When a client leaves: mostly in the first moments.
fn moment(random: &mut Random) -> Duration {
    let most = [2_000, 20_000, 200_000][random.index(3)];
    Duration::from_micros(random.between(0, most))
}
