//! The admin page in a browser.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, response::Html, routing::get};
use http::{Method, request::Parts};
use idempotent_runtime::{
    Fingerprint, Idempotency, IdempotencyKey, MemoryStore, StoreKey,
    admin::{self, Access},
    store::{Acquisition, Claim, EndpointLabel, Outcome, Record, RecordState, Store as _, Token},
};
use serde_json::json;

use super::browser::Browser;
use crate::support::{Server, in_real_time};

const KEY: &str = "canary-of-the-key";
/// An endpoint as the worst client could wish it.
const HOSTILE: &str = r#"POST /<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>"#;

/// A service with the routes nested in both ways, and a site of somebody else.
struct Site {
    engine: Idempotency,
    store: MemoryStore,
    server: Server,
    /// What the guard saw of every `POST`: its `Sec-Fetch-Site`.
    posts: Arc<Mutex<Vec<String>>>,
    elsewhere: Server,
}

impl Site {
    async fn start() -> Self {
        let store = MemoryStore::new();
        let builder = Idempotency::builder().store(store.clone());
        let engine = builder.admin_writes(true).build().unwrap();
        let posts = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&posts);
        let guard = move |parts: &Parts| {
            if parts.method == Method::POST {
                let site = parts.headers.get("sec-fetch-site");
                let site = site.map_or("", |site| site.to_str().unwrap());
                seen.lock().unwrap().push(site.to_owned());
            }
            Access::Write("ann".into())
        };
        let admin = admin::router(engine.clone(), guard);
        let app = Router::new()
            .nest("/ops/admin", admin.clone())
            .nest_service("/admin", admin);
        let elsewhere = Router::new().route("/", get(|| async { Html("<p>elsewhere</p>") }));
        Self {
            engine,
            store,
            server: Server::start(app).await,
            posts,
            elsewhere: Server::start(elsewhere).await,
        }
    }

    fn address(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    /// A claim of this key for a hostile endpoint, with this lease.
    async fn claim(&self, key: &str, lease: Duration) -> StoreKey {
        let key = self.key(key);
        let print = Fingerprint::from_bytes([7; 32]);
        let claim = Claim::new(
            key,
            print,
            Token::random(),
            lease,
            Duration::from_secs(3600),
        );
        let claim = claim.endpoint(EndpointLabel::new(HOSTILE));
        let acquired = self.store.acquire(&claim).await.unwrap();
        assert!(
            matches!(acquired, Acquisition::Acquired { .. }),
            "{acquired:?}"
        );
        key
    }

    /// A record whose outcome is unknown.
    async fn unknown(&self, key: &str) -> StoreKey {
        let key = self.claim(key, Duration::from_millis(1)).await;
        while !matches!(self.state(&key).await, RecordState::InFlight { remaining } if remaining.is_zero())
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        key
    }

    fn key(&self, key: &str) -> StoreKey {
        self.engine
            .store_key(HOSTILE, None, &IdempotencyKey::new(key).unwrap())
    }

    async fn state(&self, key: &StoreKey) -> RecordState {
        let record: Option<Record> = self.engine.inspect(key).await.unwrap();
        record.expect("the record").state
    }
}

/// Finds the hostile record by its key, resolves it with a hostile response, and reveals that.
async fn resolve_by_hand(browser: &mut Browser) {
    let fill = format!(
        "(() => {{ const form = document.querySelector('#lookup');
        form.elements.endpoint.value = {};
        form.elements.key.value = '{KEY}';
        form.requestSubmit(); }})()",
        json!(HOSTILE)
    );
    browser.evaluate(&fill).await;
    browser
        .until("!document.querySelector('#resolve').hidden")
        .await;
    browser
        .evaluate(
            "(() => { const form = document.querySelector('#resolve');
            form.querySelector('[value=resolve]').click();
            form.elements.status.value = 202;
            form.elements.headers.value = 'Content-Type: text/html\\nX-Evil: <script>';
            form.elements.body.value = '<script>document.title=\"hacked\"</script>';
            form.elements.reason.value = '<b>why</b>';
            form.requestSubmit(); })()",
        )
        .await;
    browser
        .until("document.querySelector('#outcome').textContent.startsWith('resolved')")
        .await;
    browser
        .evaluate(
            "(() => { const form = document.querySelector('#reveal');
            form.elements.reason.value = 'to see it';
            form.requestSubmit(); })()",
        )
        .await;
    browser
        .until("document.querySelector('#revealed pre').textContent.includes('hacked')")
        .await;
}

#[test]
fn a_person_finds_an_unknown_record_on_the_page_and_resolves_it() {
    in_real_time(async {
        let Some(mut browser) = Browser::start().await else {
            return;
        };
        // Nested in both ways, with and without a slash at the end.
        for path in ["/ops/admin", "/admin", "/admin/"] {
            let site = Site::start().await;
            let key = site.unknown(KEY).await;
            site.claim("another", Duration::from_secs(60)).await;
            browser.open(&site.address(path)).await;

            // It is listed, its endpoint as text.
            browser
                .until("document.querySelectorAll('#unknown tbody tr').length == 1")
                .await;
            browser
                .until("document.querySelectorAll('#in-flight tbody tr').length == 1")
                .await;
            let shown = browser
                .evaluate("document.querySelector('#unknown tbody').innerText")
                .await;
            assert!(shown.as_str().unwrap().contains(HOSTILE), "{shown}");

            resolve_by_hand(&mut browser).await;
            browser
                .until("document.querySelector('#unknown').textContent == 'No outcome is unknown.'")
                .await;
            browser
                .until("document.querySelectorAll('#audit tbody tr').length == 4")
                .await;
            let RecordState::Completed(Outcome::Response(response)) = site.state(&key).await else {
                panic!("not resolved");
            };
            let (status, headers, body) = response.decode().unwrap();
            assert_eq!(
                (status.as_u16(), &*body),
                (202, &b"<script>document.title=\"hacked\"</script>"[..])
            );
            assert_eq!(headers["x-evil"], "<script>");

            // Nothing of it became HTML, and the key is nowhere.
            assert_eq!(
                browser.evaluate("document.title").await,
                "Idempotency records"
            );
            let made = "document.querySelectorAll('main script, main img, main b:not([data-count])').length";
            assert_eq!(browser.evaluate(made).await, 0);
            let page = "document.documentElement.outerHTML + location.href + JSON.stringify(performance.getEntries()) + \
                        [...document.querySelectorAll('input, textarea')].map(field => field.value)";
            let page = browser.evaluate(page).await;
            assert!(!page.as_str().unwrap().contains(KEY), "{page}");
            assert_eq!(
                browser
                    .evaluate("document.querySelector('#error').hidden")
                    .await,
                true
            );
        }
    });
}

#[test]
fn the_address_of_the_page_says_what_it_shows() {
    in_real_time(async {
        let Some(mut browser) = Browser::start().await else {
            return;
        };
        let site = Site::start().await;
        let key = site.unknown(KEY).await;
        site.claim("another", Duration::from_secs(60)).await;
        let id = idempotent_runtime::store::inspect::KeyPrefix::from(&key).to_string();
        let query = format!("?state=unknown&record={}", &id[..16]);
        browser
            .open(&site.address(&format!("/admin/{query}")))
            .await;
        browser
            .until("document.querySelectorAll('#records tbody tr').length == 1")
            .await;
        // The beginning of an ID becomes the whole one.
        browser
            .until(&format!(
                "document.querySelector('#facts').textContent.includes('{id}')"
            ))
            .await;
        assert_eq!(
            browser.evaluate("location.search").await,
            format!("?state=unknown&record={id}")
        );

        browser
            .evaluate(
                "(() => { const form = document.querySelector('#filters');
                form.elements.state.value = 'in-flight'; form.requestSubmit(); })()",
            )
            .await;
        browser
            .until("document.querySelector('#records tbody td.in-flight')")
            .await;
        assert_eq!(
            browser.evaluate("location.search").await,
            format!("?state=in-flight&record={id}")
        );
        // Released by somebody else, it is gone with the next refresh.
        let operator = site.engine.operator("bob", "no charge");
        operator
            .resolve(&key, idempotent_runtime::Resolution::NotExecuted)
            .await
            .unwrap();
        browser
            .until("document.querySelector('#unknown').textContent == 'No outcome is unknown.'")
            .await;
    });
}

#[test]
fn a_page_that_nobody_sees_asks_for_nothing() {
    in_real_time(async {
        let Some(mut browser) = Browser::start().await else {
            return;
        };
        let site = Site::start().await;
        browser.open(&site.address("/admin/")).await;
        browser
            .until("document.querySelector('#status').textContent.startsWith('fresh')")
            .await;
        // Timers that are set and not cleared.
        let hide = "(() => { window.cleared = 0; const clear = clearTimeout;
            window.clearTimeout = (id) => { if (id) window.cleared += 1; clear(id); };
            window.asked = 0; const ask = fetch; window.fetch = (...what) => { window.asked += 1; return ask(...what); };
            Object.defineProperty(document, 'hidden', { value: true, configurable: true });
            document.dispatchEvent(new Event('visibilitychange'));
            return window.cleared; })()";
        assert_eq!(browser.evaluate(hide).await, 1);
        let paused = browser
            .evaluate("document.querySelector('#status').textContent")
            .await;
        assert!(paused.as_str().unwrap().ends_with("(paused)"), "{paused}");
        assert_eq!(browser.evaluate("window.asked").await, 0);
        browser
            .evaluate(
                "delete document.hidden, document.dispatchEvent(new Event('visibilitychange')), 0",
            )
            .await;
        browser.until("window.asked > 0").await;
    });
}

#[test]
fn the_page_of_another_site_cannot_resolve_a_record() {
    in_real_time(async {
        let Some(mut browser) = Browser::start().await else {
            return;
        };
        let site = Site::start().await;
        let key = site.unknown(KEY).await;
        let id = idempotent_runtime::store::inspect::KeyPrefix::from(&key).to_string();
        let target = site.address(&format!("/admin/api/records/{id}/release"));
        let port = site.elsewhere.address.port();
        // Another port of this host is the same site to a browser, and another name is another site.
        for (host, kind) in [("127.0.0.1", "same-site"), ("localhost", "cross-site")] {
            browser.open(&format!("http://{host}:{port}/")).await;
            browser
                .until("document.body.textContent == 'elsewhere'")
                .await;
            // What needs no permission: a request whose answer the page may not read, and a form.
            let order = r#"{"reason":"forged"}"#;
            let forge = format!(
                "fetch('{target}', {{ method: 'POST', mode: 'no-cors', credentials: 'include', body: '{order}' }}).then(() => 1, () => 1)"
            );
            assert_eq!(browser.evaluate(&forge).await, 1);
            // What does need it: JSON. The browser asks first, and is not answered as it would have to be.
            let forge = format!(
                "fetch('{target}', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: '{order}' }})
                .then(() => 'sent', () => 'refused')"
            );
            assert_eq!(browser.evaluate(&forge).await, "refused");
            // Sent once this is evaluated, for it leads to another page.
            let form = format!(
                "(() => {{ const form = document.createElement('form');
                form.method = 'post'; form.enctype = 'text/plain'; form.action = '{target}';
                const field = document.createElement('input');
                field.name = '{{\"reason\":\"forged'; field.value = '\"}}';
                form.append(field); document.body.append(form); setTimeout(() => form.submit()); }})()"
            );
            browser.evaluate(&form).await;
            browser
                .until("document.body.textContent.includes('cross_origin')")
                .await;
            let seen = std::mem::take(&mut *site.posts.lock().unwrap());
            assert_eq!(seen, [kind, kind], "the forged requests arrived");
        }
        let state = site.state(&key).await;
        assert!(matches!(state, RecordState::InFlight { .. }), "{state:?}");
        assert_eq!(site.engine.audit(10).await.unwrap(), []);

        // Nor can it frame the page.
        browser.open(&format!("http://127.0.0.1:{port}/")).await;
        browser
            .until("document.body.textContent == 'elsewhere'")
            .await;
        let frame = format!(
            "new Promise((done) => {{ const frame = document.createElement('iframe');
            frame.onload = () => {{ try {{ done(frame.contentDocument === null); }} catch {{ done(true); }} }};
            frame.src = '{}'; document.body.append(frame); }})",
            site.address("/admin/")
        );
        assert_eq!(browser.evaluate(&frame).await, true);
    });
}
