//! A browser without a window, driven by the `DevTools` protocol over one `WebSocket`: no driver and no crate of its own.

use std::{fs, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::servers::{Folder, Process, installed, server, until};

/// A browser with one page.
pub(super) struct Browser {
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    sent: u64,
    _process: Process,
    _folder: Folder,
}

/// After this long something that must show counts as missing.
const BOUND: Duration = Duration::from_secs(60);

impl Browser {
    /// Starts it; `None` if it is not installed, which a line on standard error says.
    pub(super) async fn start() -> Option<Self> {
        // Chrome has the same switches; Debian's and Ubuntu's names of Chromium differ.
        let others = ["chromium-browser", "google-chrome"];
        let program = match others.into_iter().find_map(installed) {
            Some(found) if installed("chromium").is_none() => found,
            _ => server("chromium")?,
        };
        let folder = Folder::new("browser");
        let profile = folder.path().join("profile");
        let arguments = [
            "--headless=new",
            // Root, as in a container, has no sandbox. The browser visits the test's own pages only.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--no-proxy-server",
            "--remote-debugging-port=0",
        ];
        let mut arguments: Vec<String> = arguments.map(String::from).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let process = Process::start(&program, arguments, folder.path());
        // The browser writes its port and path there when it listens.
        let file = profile.join("DevToolsActivePort");
        let listening = tokio::task::spawn_blocking(move || {
            until("the browser", || {
                let text = fs::read_to_string(&file).ok()?;
                let (port, path) = text.split_once('\n')?;
                (!path.is_empty()).then(|| (port.to_owned(), path.trim().to_owned()))
            })
        });
        let (port, path) = listening.await.unwrap();
        let stream = TcpStream::connect(format!("127.0.0.1:{port}"))
            .await
            .unwrap();
        let request = format!("ws://127.0.0.1:{port}{path}")
            .into_client_request()
            .unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        let mut browser = Self {
            socket,
            session: None,
            sent: 0,
            _process: process,
            _folder: folder,
        };
        let target = browser
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        Some(browser)
    }

    /// Calls a method of the protocol that must succeed.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method of the protocol, and gives its result or its error; events are passed over.
    async fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
        let answer = timeout(BOUND, async {
            loop {
                let message = self.socket.next().await.expect("an open browser").unwrap();
                let Message::Text(text) = message else {
                    continue;
                };
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["id"] == self.sent {
                    return message;
                }
            }
        });
        let answer = answer
            .await
            .unwrap_or_else(|_| panic!("{method}: no answer"));
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err(error.clone()),
        }
    }

    /// Opens an address. The page may still be loading.
    pub(super) async fn open(&mut self, address: &str) {
        let opened = self.call("Page.navigate", json!({ "url": address })).await;
        assert!(opened["errorText"].is_null(), "{address}: {opened}");
    }

    /// The value of this expression, awaited. It must not lead to another page, which would end it without a value.
    pub(super) async fn evaluate(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", evaluation(expression)).await;
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Waits until this expression is true.
    pub(super) async fn until(&mut self, expression: &str) {
        // While a page is loaded there may be no body.
        let guarded =
            format!("(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()");
        let shown = timeout(BOUND, async {
            // On the way from one page to the next there is nothing to ask: that is an error, and no answer.
            loop {
                match self.ask("Runtime.evaluate", evaluation(&guarded)).await {
                    Ok(found) if found["result"]["value"] == true => break,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        if shown.await.is_err() {
            let page = self.evaluate("document.body?.innerText").await;
            panic!("never {expression}: {page}");
        }
    }
}

/// The parameters that evaluate this expression.
fn evaluation(expression: &str) -> Value {
    json!({ "expression": expression, "awaitPromise": true, "returnByValue": true })
}
