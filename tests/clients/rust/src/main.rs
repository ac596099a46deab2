//! A client of Stripe's API and a generic HTTP client for Rust against the service in `../../server`.
//!
//! usage: idempotent-clients SERVICE CONTROL      the two ports that the server prints
//!
//! Each row says what a user of the client sees, how often the handler executed, and how many requests were on the wire.

use std::{env, error::Error, ops::RangeInclusive, process::exit, time::Duration};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use serde::{Deserialize, Serialize};
use stripe::{RequestStrategy, StripeError};
use tokio::time::{sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const RETRIES: u32 = 3;
const SECOND: Duration = Duration::from_secs(1);

/// The service, and what was seen of it.
struct Service {
    service: String,
    control: String,
    http: reqwest::Client,
    failed: usize,
}

/// What a row has to show.
struct Expected<'a> {
    seen: &'a str,
    executions: u32,
    sent: RangeInclusive<u32>,
}

impl Service {
    /// Starts a case with a new engine and new counts.
    async fn begin(&self, profile: &str, case: &str) -> Result<()> {
        let url = format!("{}/control/{profile}/{case}", self.control);
        self.http.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// How many requests came, and how many executions had their effect.
    async fn counts(&self) -> Result<(u32, u32)> {
        let text = self
            .http
            .get(format!("{}/counts", self.control))
            .send()
            .await?
            .text()
            .await?;
        let (sent, executions) = text.split_once(' ').ok_or("no counts")?;
        Ok((sent.parse()?, executions.parse()?))
    }

    async fn check(&mut self, row: &str, seen: String, expected: Expected<'_>) -> Result<()> {
        let (sent, executions) = self.counts().await?;
        let passed = seen == expected.seen
            && executions == expected.executions
            && expected.sent.contains(&sent);
        let mark = if passed { "ok    " } else { "FAILED" };
        let line = format!("{mark} {row} | {seen} | {executions} executed, {sent} sent");
        if passed {
            println!("{line}");
        } else {
            self.failed += 1;
            let Expected {
                seen,
                executions,
                sent,
            } = expected;
            println!("{line} | expected {seen}, {executions} and {sent:?}");
        }
        Ok(())
    }
}

fn expected(seen: &str, executions: u32, sent: RangeInclusive<u32>) -> Expected<'_> {
    Expected {
        seen,
        executions,
        sent,
    }
}

// async-stripe

const STRIPE: &str = "async-stripe 0.41.0";

/// What the service answers. `stripe::PaymentIntent` has many fields more.
#[derive(Deserialize)]
struct Payment {
    id: String,
    amount: i64,
}

#[derive(Clone, Serialize)]
struct Parameters {
    amount: i64,
    currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl Parameters {
    fn of(amount: i64) -> Self {
        Self {
            amount,
            currency: "eur",
            description: None,
        }
    }
}

/// What the user of the client sees: a payment, or the variant of the error with its type and status.
async fn pay(client: &stripe::Client, strategy: RequestStrategy, parameters: Parameters) -> String {
    let client = client.clone().with_strategy(strategy);
    let paid = client
        .post_form::<Payment, _>("/payment_intents", parameters)
        .await;
    match paid {
        Ok(payment) => format!("{} of {}", payment.id, payment.amount),
        Err(StripeError::Stripe(error)) => {
            format!("Stripe {} {}", error.http_status, error.error_type)
        }
        Err(StripeError::ClientError(_)) => "ClientError".to_owned(),
        // It knows the codes of `error` by name, and takes no others: its user sees neither the status nor the type.
        Err(StripeError::JSONSerialize(_)) => "JSONSerialize".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn idempotent() -> RequestStrategy {
    RequestStrategy::Idempotent("k".to_owned())
}

/// The client has no time-out of its own: its user gives up after a second, and sends the request again.
async fn pay_impatiently(client: &stripe::Client) -> String {
    for _ in 0..=RETRIES {
        if let Ok(seen) = timeout(SECOND, pay(client, idempotent(), Parameters::of(100))).await {
            return seen;
        }
    }
    "Timeout".to_owned()
}

async fn stripe_rows(service: &mut Service) -> Result<()> {
    let url = format!("{}/", service.service);
    let client = stripe::Client::from_url(url.as_str(), "sk_test_1");
    let retry = || RequestStrategy::Retry(RETRIES);
    let payment = || Parameters::of(100);
    let row = |name: &str| format!("{STRIPE} | stripe | {name}");

    service.begin("stripe", "plain").await?;
    let seen = pay(&client, idempotent(), payment()).await;
    service
        .check(&row("a_payment"), seen, expected("pi_1 of 100", 1, 1..=1))
        .await?;

    for (name, strategy) in [
        ("a_lost_answer", retry()),
        (
            "a_lost_answer_and_a_back_off",
            RequestStrategy::ExponentialBackoff(RETRIES),
        ),
    ] {
        service.begin("stripe", "cut").await?;
        let seen = pay(&client, strategy, payment()).await;
        service
            .check(&row(name), seen, expected("pi_1 of 100", 1, 2..=2))
            .await?;
    }

    // This strategy sends the request once; the user sends it again.
    service.begin("stripe", "cut").await?;
    let first = pay(&client, idempotent(), payment()).await;
    let again = pay(&client, idempotent(), payment()).await;
    let seen = format!("{first}, then {again}");
    let both = expected("ClientError, then pi_1 of 100", 1, 2..=2);
    service
        .check(&row("a_lost_answer_that_the_user_repeats"), seen, both)
        .await?;

    service.begin("stripe", "slow").await?;
    let seen = pay_impatiently(&client).await;
    let name = row("a_handler_slower_than_the_client");
    service
        .check(&name, seen, expected("pi_1 of 100", 1, 2..=1 + RETRIES))
        .await?;

    service.begin("stripe", "slow").await?;
    let (one, other) = tokio::join!(
        pay(&client, idempotent(), payment()),
        pay(&client, idempotent(), payment())
    );
    let both = expected("pi_1 of 100 and pi_1 of 100", 1, 2..=2);
    service
        .check(
            &row("concurrent_duplicates"),
            format!("{one} and {other}"),
            both,
        )
        .await?;

    service.begin("stripe", "plain").await?;
    pay(&client, idempotent(), payment()).await;
    let seen = pay(&client, idempotent(), Parameters::of(9999)).await;
    let mismatch = "Stripe 400 idempotency_error_error";
    let name = row("another_amount_under_the_same_key");
    service
        .check(&name, seen, expected(mismatch, 1, 2..=2))
        .await?;

    service.begin("stripe", "plain").await?;
    pay(&client, idempotent(), payment()).await;
    let other = stripe::Client::from_url(url.as_str(), "sk_test_2");
    let seen = pay(&other, idempotent(), payment()).await;
    let name = row("the_same_key_of_another_caller");
    service
        .check(&name, seen, expected(mismatch, 1, 2..=2))
        .await?;

    for (case, name, seen, executions, sent) in [
        (
            "500",
            "an_error_of_the_handler",
            "Stripe 500 api_error",
            1,
            2,
        ),
        (
            "503",
            "an_error_of_the_handler",
            "Stripe 503 api_error",
            1,
            2,
        ),
        ("panic", "a_panic", "Stripe 500 api_error", 1, 1),
        (
            "not-stored",
            "a_response_that_was_not_stored",
            "JSONSerialize",
            1,
            2,
        ),
        (
            "full",
            "a_store_without_room",
            "Stripe 503 api_error",
            0,
            RETRIES,
        ),
    ] {
        service.begin("stripe", case).await?;
        let found = pay(&client, retry(), payment()).await;
        service
            .check(&row(name), found, expected(seen, executions, sent..=sent))
            .await?;
    }

    service.begin("stripe", "unknown").await?;
    let seen = pay_impatiently(&client).await;
    let name = row("an_unknown_outcome");
    service
        .check(&name, seen, expected("JSONSerialize", 1, 2..=2))
        .await?;

    service.begin("stripe", "plain").await?;
    let strategy = RequestStrategy::Idempotent("x".repeat(256));
    let seen = pay(&client, strategy, payment()).await;
    let refused = expected("Stripe 400 invalid_request_error", 0, 1..=1);
    service
        .check(&row("a_key_of_256_bytes"), seen, refused)
        .await?;

    service.begin("stripe", "small").await?;
    let large = Parameters {
        description: Some("x".repeat(100)),
        ..payment()
    };
    let seen = pay(&client, idempotent(), large).await;
    let refused = expected("Stripe 413 invalid_request_error", 0, 1..=1);
    service
        .check(&row("a_body_that_is_too_large"), seen, refused)
        .await?;

    service.begin("stripe", "conflict").await?;
    let (held, begun) = (client.clone(), payment());
    let held = tokio::spawn(async move { pay(&held, idempotent(), begun).await });
    while service.counts().await?.1 == 0 {
        sleep(SECOND / 100).await;
    }
    let seen = pay(&client, idempotent(), payment()).await;
    held.abort();
    let conflict = expected("Stripe 409 idempotency_error_error", 1, 2..=2);
    service
        .check(&row("a_conflict_that_lasts"), seen, conflict)
        .await?;
    Ok(())
}

// reqwest, set up to repeat what its users have it repeat: broken connections, time-outs and 5xx.

const REQWEST: &str = "reqwest 0.13.5 + reqwest-retry 0.9.1";

fn generic(limit: Duration) -> Result<ClientWithMiddleware> {
    let policy = ExponentialBackoff::builder()
        .retry_bounds(SECOND / 10, SECOND)
        .build_with_max_retries(RETRIES);
    let http = reqwest::Client::builder().timeout(limit).build()?;
    let retry = RetryTransientMiddleware::new_with_policy(policy);
    Ok(ClientBuilder::new(http).with(retry).build())
}

/// What the user of the client sees: the status, and which payment.
async fn post(client: &ClientWithMiddleware, service: &str, amount: u32) -> String {
    let request = client.post(format!("{service}/v1/payments"));
    let request = request.header(
        "idempotency-key",
        "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"",
    );
    let request = request.header("content-type", "application/json");
    match request
        .body(format!("{{\"amount\":{amount}}}"))
        .send()
        .await
    {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let body = answer
                .text()
                .await
                .unwrap_or_else(|error| error.to_string());
            let paid = if body.contains("pi_1") { " pi_1" } else { "" };
            format!("{status}{paid}")
        }
        Err(error) => format!("{error:?}"),
    }
}

async fn generic_rows(service: &mut Service) -> Result<()> {
    let (client, patient) = (generic(SECOND)?, generic(SECOND * 20)?);
    let url = service.service.clone();
    let row = |profile: &str, name: &str| format!("{REQWEST} | {profile} | {name}");
    let all = 1 + RETRIES;

    service.begin("default", "cut").await?;
    let seen = post(&client, &url, 100).await;
    service
        .check(
            &row("default", "a_lost_answer"),
            seen,
            expected("200 pi_1", 1, 2..=2),
        )
        .await?;

    for (profile, mismatch) in [("default", "409"), ("ietf", "422"), ("stripe", "400")] {
        service.begin(profile, "slow").await?;
        let seen = post(&client, &url, 100).await;
        let name = row(profile, "a_handler_slower_than_the_client");
        service
            .check(&name, seen, expected("200 pi_1", 1, 2..=all))
            .await?;

        service.begin(profile, "slow").await?;
        let (one, other) = tokio::join!(post(&patient, &url, 100), post(&patient, &url, 100));
        let both = expected("200 pi_1 and 200 pi_1", 1, 2..=2);
        let name = row(profile, "concurrent_duplicates");
        service
            .check(&name, format!("{one} and {other}"), both)
            .await?;

        for case in ["500", "503", "panic"] {
            service.begin(profile, case).await?;
            let seen = post(&client, &url, 100).await;
            let status = if case == "503" { case } else { "500" };
            let name = row(profile, &format!("{case}_after_the_effect"));
            service
                .check(&name, seen, expected(status, 1, all..=all))
                .await?;
        }

        service.begin(profile, "plain").await?;
        post(&client, &url, 100).await;
        let seen = post(&client, &url, 9999).await;
        let name = row(profile, "another_amount_under_the_same_key");
        service
            .check(&name, seen, expected(mismatch, 1, 2..=2))
            .await?;
    }

    service.begin("default", "full").await?;
    let seen = post(&client, &url, 100).await;
    let name = row("default", "a_store_without_room");
    service
        .check(&name, seen, expected("503", 0, all..=all))
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut ports = env::args()
        .skip(1)
        .map(|port| format!("http://127.0.0.1:{port}"));
    let (service, control) = (
        ports.next().ok_or("no port")?,
        ports.next().ok_or("no port")?,
    );
    let mut service = Service {
        service,
        control,
        http: reqwest::Client::new(),
        failed: 0,
    };
    stripe_rows(&mut service).await?;
    generic_rows(&mut service).await?;
    exit(i32::from(service.failed > 0));
}
