//! A payment provider and a mail server that honour keys and can be told to fail, and the client of both.

use std::{
    collections::{HashMap, VecDeque},
    future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Failure;

/// How long the shop waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that the provider charges.
const MOST: u64 = 1_000;

#[derive(Debug, Deserialize, Serialize)]
struct Charge {
    amount: u64,
}

/// The card is declined, for good.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Declined;

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Mail {
    pub(crate) to: String,
    pub(crate) text: String,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Trouble {
    /// Nothing happens, and the answer is 503.
    Fail,
    /// It happens, and the connection breaks within the answer.
    Lose,
    /// It happens, and there is no answer.
    Hang,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Troubles {
    charges: VecDeque<Trouble>,
    mails: VecDeque<Trouble>,
}

/// What the services remember.
#[derive(Debug, Default)]
struct Memory {
    troubles: Troubles,
    /// By key.
    charges: HashMap<String, Result<String, Declined>>,
    /// By id.
    mails: HashMap<String, Mail>,
    requests: Requests,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Requests {
    charges: usize,
    mails: usize,
}

#[derive(Debug, Serialize)]
struct Books {
    charges: usize,
    mails: usize,
    requests: Requests,
}

type Shared = Arc<Mutex<Memory>>;

/// The routes of both.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/charges", post(charge))
        .route("/mails", post(mail))
        .route("/trouble", post(trouble))
        .route("/books", get(books))
        .with_state(Shared::default())
}

/// The memory is whole whenever the lock is free.
fn memory(shared: &Shared) -> MutexGuard<'_, Memory> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key_of(headers: &HeaderMap) -> Option<String> {
    let key = headers.get("idempotency-key")?.to_str().ok()?;
    Some(key.to_owned())
}

async fn charge(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(Charge { amount }): Json<Charge>,
) -> Response {
    let Some(key) = key_of(&headers) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (charged, trouble) = {
        let mut memory = memory(&shared);
        memory.requests.charges += 1;
        let trouble = memory.troubles.charges.pop_front();
        if let Some(Trouble::Fail) = trouble {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let next = format!("charge-{}", memory.charges.len() + 1);
        let charged = if amount > MOST {
            Err(Declined)
        } else {
            Ok(next)
        };
        // Asked again under the same key, it answers as the first time.
        let charged = memory.charges.entry(key).or_insert(charged).clone();
        (charged, trouble)
    };
    answered(trouble, &charged).await
}

async fn mail(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(mail): Json<Mail>,
) -> Response {
    let Some(id) = key_of(&headers) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let trouble = {
        let mut memory = memory(&shared);
        memory.requests.mails += 1;
        let trouble = memory.troubles.mails.pop_front();
        if let Some(Trouble::Fail) = trouble {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        memory.mails.entry(id).or_insert(mail);
        trouble
    };
    answered(trouble, &()).await
}

async fn answered<T: Serialize + Sync>(trouble: Option<Trouble>, outcome: &T) -> Response {
    match trouble {
        Some(Trouble::Lose) => {
            let broken = Err::<String, _>(std::io::Error::other("the connection breaks"));
            Body::from_stream(stream::iter([broken])).into_response()
        }
        Some(Trouble::Hang) => future::pending().await,
        _ => Json(outcome).into_response(),
    }
}

async fn trouble(State(shared): State<Shared>, Json(troubles): Json<Troubles>) {
    memory(&shared).troubles = troubles;
}

async fn books(State(shared): State<Shared>) -> Json<Books> {
    let memory = memory(&shared);
    Json(Books {
        charges: memory
            .charges
            .values()
            .filter(|charge| charge.is_ok())
            .count(),
        mails: memory.mails.len(),
        requests: memory.requests,
    })
}

/// The client of both.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    client: reqwest::Client,
    address: String,
}

impl Services {
    pub(crate) fn at(address: &str) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(PATIENCE).build()?,
            address: address.to_owned(),
        })
    }

    /// Charges, once for each key. An error means that nobody knows.
    pub(crate) async fn charge(
        &self,
        key: &str,
        amount: u64,
    ) -> Result<Result<String, Declined>, Failure> {
        Ok(self.post("charges", key, &Charge { amount }).await?)
    }

    /// Sends a mail, once for each id.
    pub(crate) async fn send(&self, id: &str, mail: &Mail) -> Result<(), reqwest::Error> {
        self.post("mails", id, mail).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, reqwest::Error> {
        let url = format!("{}/outside/{path}", self.address);
        let request = self.client.post(url).header("idempotency-key", key);
        let response = request.json(body).send().await?;
        response.error_for_status()?.json().await
    }
}
