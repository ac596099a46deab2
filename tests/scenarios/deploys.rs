//! What a deploy may change without executing a retry again (DESIGN.md, section 6).

use axum::{
    Extension, Router,
    extract::{Request, State},
    handler::Handler,
    response::Response,
    routing::{any, post},
};
use idempotent_runtime::{Idempotency, IdempotencyLayer, MemoryStore, idempotent};

use crate::support::{
    Adapter, CountingHandler, TestRequest, send, with_each_adapter, with_paused_clock,
};

type App = Router<CountingHandler>;

/// How a router becomes the app.
type Deploy<'a> = &'a dyn Fn(App) -> App;

/// The handlers of the version before.
mod before {
    use super::*;

    #[idempotent]
    pub(super) async fn pay(State(handler): State<CountingHandler>, request: Request) -> Response {
        handler.call(request).await
    }
}

/// The same in another module, under another name.
mod after {
    use super::*;

    #[idempotent]
    pub(super) async fn create_payment(
        State(handler): State<CountingHandler>,
        request: Request,
    ) -> Response {
        handler.call(request).await
    }
}

async fn bare(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

fn fallback<H, T>(pay: H) -> App
where
    H: Handler<T, CountingHandler>,
    T: 'static,
{
    Router::new().fallback(pay)
}

/// A service with these routes, whose every deploy has an engine of its own on the same store.
struct Service {
    store: MemoryStore,
    handler: CountingHandler,
}

impl Service {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            handler: CountingHandler::new(),
        }
    }

    fn engine(&self) -> Idempotency {
        let builder = Idempotency::builder().store(self.store.clone());
        builder.build().unwrap()
    }

    fn deploy(&self, app: App) -> Router {
        app.layer(Extension(self.engine()))
            .with_state(self.handler.clone())
    }

    fn deploy_with_layer(&self, app: App) -> Router {
        let layer = IdempotencyLayer::new(self.engine());
        app.layer(layer).with_state(self.handler.clone())
    }

    /// Asserts that a request to the first deploy replays from the second.
    async fn assert_replays(&self, before: &Router, after: &Router, path: &str) {
        let request = TestRequest::post(path).key(path).body("{}");
        let charge = self.handler.starts() + 1;
        send(before, &request).await.assert_charge(charge);
        send(after, &request).await.assert_replay_of_charge(charge);
    }
}

#[test]
fn a_renamed_parameter_of_the_path_keeps_the_records() {
    with_each_adapter(async |adapter| {
        let service = Service::new();
        let route = |template: &str| match adapter {
            Adapter::Attribute => service.deploy(Router::new().route(template, any(before::pay))),
            Adapter::Layer => service.deploy_with_layer(Router::new().route(template, any(bare))),
        };
        for (before, after, path) in [
            ("/p/{id}", "/p/{order_id}", "/p/7"),
            ("/p/{id}/refund", "/p/{order_id}/refund", "/p/8/refund"),
            ("/v{version}/pay", "/v{major}/pay", "/v1/pay"),
            ("/t/{t}/p/{id}", "/t/{tenant}/p/{order}", "/t/a/p/7"),
            // Swapped, so that each name stands for the other value.
            ("/s/{a}/{b}", "/s/{b}/{a}", "/s/1/2"),
            ("/f/{*rest}", "/f/{*path}", "/f/x/y"),
            ("/m/{id}/{*rest}", "/m/{order}/{*path}", "/m/7/x/y"),
        ] {
            service
                .assert_replays(&route(before), &route(after), path)
                .await;
        }
    });
}

#[test]
fn a_renamed_parameter_of_a_router_around_the_route_keeps_the_records() {
    with_paused_clock(async {
        let service = Service::new();
        let inner = || Router::new().route("/p/{id}", post(before::pay));
        let nest = |prefix: &str| service.deploy(Router::new().nest(prefix, inner()));
        service
            .assert_replays(&nest("/t/{t}"), &nest("/t/{tenant}"), "/t/a/p/1")
            .await;
        let nest = |prefix: &str| {
            let inner = inner().with_state(service.handler.clone());
            service.deploy(Router::new().nest_service(prefix, inner))
        };
        service
            .assert_replays(&nest("/s/{s}"), &nest("/s/{shop}"), "/s/a/p/1")
            .await;
    });
}

#[test]
fn other_routes_are_other_endpoints() {
    with_paused_clock(async {
        // Given one key, sent to a route of one template after the other.
        let service = Service::new();
        let templates = [
            ("/p/{id}", "/p/7"),
            ("/p/{id}/", "/p/7/"),
            ("/p/{{id}}", "/p/{id}"),
            ("/p/{{order}}", "/p/{order}"),
            ("/messages:send", "/messages:send"),
            ("/messages:cancel", "/messages:cancel"),
            ("/f/{*rest}", "/f/7"),
        ];
        for (n, (template, path)) in templates.into_iter().enumerate() {
            let app = service.deploy(Router::new().route(template, post(before::pay)));
            send(&app, &TestRequest::post(path).key("k"))
                .await
                .assert_charge(n + 1);
        }
        // A parameter and a wildcard differ, even if both match the path.
        let app = service.deploy(Router::new().route("/f/{id}", post(before::pay)));
        send(&app, &TestRequest::post("/f/7").key("k"))
            .await
            .assert_charge(templates.len() + 1);
    });
}

#[test]
fn a_template_written_for_axum_0_7_is_that_of_0_8() {
    with_paused_clock(async {
        let service = Service::new();
        for (template, before, path) in [
            ("/p/{id}", "POST /p/:id", "/p/7"),
            ("/f/{*rest}", "POST /f/*rest", "/f/x/y"),
        ] {
            // Given a record of the endpoint as axum 0.7 wrote it. A layer takes its text as a name.
            let layer = IdempotencyLayer::new(service.engine()).endpoint(before);
            let old = Router::new().route(template, post(bare)).layer(layer);
            let old = old.with_state(service.handler.clone());
            // Then the route of axum 0.8 replays it.
            let new = service.deploy(Router::new().route(template, post(before::pay)));
            service.assert_replays(&old, &new, path).await;
        }
    });
}

#[test]
fn a_fallback_whose_function_or_module_is_renamed_keeps_its_records() {
    with_paused_clock(async {
        let service = Service::new();
        let state = || service.handler.clone();
        let deploys: [Deploy<'_>; 4] = [
            &|fallback| fallback,
            &|fallback| Router::new().nest("/a", fallback),
            &|fallback| Router::new().nest_service("/a", fallback.with_state(state())),
            &|fallback| Router::new().fallback_service(fallback.with_state(state())),
        ];
        for (n, deploy) in deploys.iter().enumerate() {
            let old = service.deploy(deploy(fallback(before::pay)));
            let new = service.deploy(deploy(fallback(after::create_payment)));
            service.assert_replays(&old, &new, &format!("/a/{n}")).await;
            // From the attribute to the layer, too.
            let new = service.deploy_with_layer(deploy(fallback(bare)));
            service
                .assert_replays(&old, &new, &format!("/a/layer/{n}"))
                .await;
        }
        // A fallback of a route's methods has the route's template.
        let methods = |app: App| service.deploy(Router::new().merge(app));
        let old =
            methods(Router::new().route("/m", axum::routing::get(bare).fallback(before::pay)));
        let new = methods(Router::new().route(
            "/m",
            axum::routing::get(bare).fallback(after::create_payment),
        ));
        service.assert_replays(&old, &new, "/m").await;
    });
}
