//! What all requests to one endpoint have in common, worked out once.

use std::sync::{Arc, OnceLock};

use http::{HeaderName, Method};

use super::Core;
use crate::{
    digest::Framed,
    fingerprint::begin,
    observe::EndpointMetrics,
    policy::{Policy, Settings},
    route::{Endpoint, is_standard},
    store::EndpointLabel,
};

/// An endpoint under its policy, in one engine.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    endpoint: Endpoint,
    /// The endpoint as the records of its claims show it: as metrics and spans do.
    pub(crate) endpoint_label: Option<EndpointLabel>,
    /// Its time series.
    pub(crate) metrics: EndpointMetrics,
    /// Whether the policy leaves the limit of a body to the route.
    pub(crate) limited_by_route: bool,
    /// The header that carries the key.
    pub(crate) key_header: HeaderName,
    /// The digest of every store key of this endpoint, up to what differs between them.
    pub(crate) store_key: Framed,
    /// The same of fingerprints.
    pub(crate) fingerprint: Framed,
    /// What it was made for.
    policy: usize,
    method: Method,
    template: Option<Arc<str>>,
}

impl Plan {
    /// The endpoint as it stands in the scope of a key.
    pub(crate) fn endpoint(&self) -> &str {
        self.endpoint.identity()
    }

    /// The route template that the router matched.
    pub(crate) fn template(&self) -> Option<&Arc<str>> {
        self.template.as_ref()
    }

    /// The endpoint as metrics and spans show it.
    pub(crate) fn label(&self) -> &str {
        self.endpoint.label()
    }

    /// The plan of an operation without a request, whose policy has its name. It is not remembered.
    pub(crate) fn of_operation(core: &Core, policy: &Policy) -> Self {
        let at = At {
            policy: 0,
            method: &Method::POST,
            template: None,
        };
        Self::new(core, policy, &at)
    }

    fn new(core: &Core, policy: &Policy, at: &At<'_>) -> Self {
        let endpoint = Endpoint::new(policy.name.as_ref(), at.method, at.template);
        let settings = core.settings(policy);
        let key_header = HeaderName::from_bytes(settings.header.as_str().as_bytes());
        Self {
            // Invariant: a policy's names are checked when they are set.
            key_header: key_header.expect("the name of a header"),
            fingerprint: begin(&settings.fingerprint, at.method),
            settings,
            limited_by_route: policy.max_body.or(core.defaults.max_body).is_none(),
            store_key: core.digester.endpoint(endpoint.identity()),
            endpoint_label: EndpointLabel::new(endpoint.label()),
            metrics: EndpointMetrics::new(endpoint.label()),
            endpoint,
            policy: at.policy,
            method: at.method.clone(),
            template: at.template.map(Arc::from),
        }
    }

    fn is_for(&self, at: &At<'_>) -> bool {
        self.policy == at.policy
            && self.method == at.method
            && self.template.as_deref() == at.template
    }
}

/// What tells one endpoint from the others of an engine.
struct At<'a> {
    policy: usize,
    method: &'a Method,
    template: Option<&'a str>,
}

impl At<'_> {
    /// FNV-1a, over eight bytes at a time. Templates are the application's own: nobody chooses them to collide.
    fn hash(&self) -> usize {
        let template = self.template.unwrap_or_default().as_bytes();
        let (words, rest) = template.as_chunks();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words = words.iter().chain([&last]);
        let words = words.map(|word| u64::from_le_bytes(*word));
        let numbers = [self.policy, self.method.as_str().len(), template.len()];
        let numbers = numbers.into_iter().map(|number| number as u64).chain(words);
        let hash = numbers.fold(0xcbf2_9ce4_8422_2325_u64, |hash, number| {
            (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        // The high bits depend on all numbers.
        usize::try_from(hash >> 40).unwrap_or_default()
    }
}

/// How many endpoints are remembered. An application with more works out the rest for each request.
const SLOTS: usize = 256;

/// How many slots may hold one endpoint.
const PROBES: usize = 8;

/// The plans that were made so far. Reading one writes nothing, so that all threads share the table.
pub(crate) struct Plans(Box<[OnceLock<Arc<Plan>>]>);

impl Plans {
    pub(crate) fn new() -> Self {
        Self(std::iter::repeat_with(OnceLock::new).take(SLOTS).collect())
    }

    /// The plan for a request.
    ///
    /// `policy` is the address of a policy that outlives this table or, where the table is of one policy only, zero.
    pub(crate) fn get(
        &self,
        core: &Core,
        (policy, address): (&Policy, usize),
        method: &Method,
        template: Option<&str>,
    ) -> Arc<Plan> {
        let at = At {
            policy: address,
            method,
            template,
        };
        let make = || Arc::new(Plan::new(core, policy, &at));
        // Clients choose other methods, and would fill the table.
        if is_standard(method) {
            let first = at.hash();
            for probe in 0..PROBES {
                let slot = &self.0[first.wrapping_add(probe) % SLOTS];
                let plan = slot.get_or_init(make);
                if plan.is_for(&at) {
                    return Arc::clone(plan);
                }
            }
        }
        make()
    }
}

impl std::fmt::Debug for Plans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let made = self.0.iter().filter(|slot| slot.get().is_some()).count();
        write!(f, "Plans({made})")
    }
}

#[cfg(all(test, feature = "handlers"))]
mod tests {
    use super::*;
    use crate::{Idempotency, MemoryStore};

    static PAY: Policy = Policy::new().wait(false);
    static REFUND: Policy = Policy::new();

    fn plan(engine: &Idempotency, policy: &'static Policy, method: &Method) -> Arc<Plan> {
        let address = std::ptr::from_ref(policy).addr();
        let plans = &engine.0.plans;
        plans.get(&engine.0, (policy, address), method, None)
    }

    #[test]
    fn an_endpoint_is_planned_once_in_an_engine() {
        let engine = || {
            let engine = Idempotency::builder().store(MemoryStore::new()).build();
            engine.unwrap()
        };
        let (one, other) = (engine(), engine());
        let first = plan(&one, &PAY, &Method::POST);
        assert!(!first.settings.wait);
        assert!(Arc::ptr_eq(&first, &plan(&one, &PAY, &Method::POST)));
        for different in [
            plan(&one, &PAY, &Method::PUT),
            plan(&one, &REFUND, &Method::POST),
            plan(&other, &PAY, &Method::POST),
        ] {
            assert!(!Arc::ptr_eq(&first, &different));
        }
        assert!(plan(&one, &REFUND, &Method::POST).settings.wait);
    }

    #[test]
    fn a_plan_is_for_one_policy_one_method_and_one_template() {
        let engine = Idempotency::builder().build().unwrap();
        let (policy, method, template) = (1, &Method::POST, Some("/payments"));
        let at = At {
            policy,
            method,
            template,
        };
        let plan = Plan::new(&engine.0, &PAY, &at);
        assert!(plan.is_for(&at));
        for other in [
            At { policy: 2, ..at },
            At {
                method: &Method::PUT,
                ..at
            },
            At {
                template: Some("/refunds"),
                ..at
            },
            At {
                template: None,
                ..at
            },
        ] {
            assert!(!plan.is_for(&other));
        }
    }

    #[test]
    fn methods_that_clients_invent_are_not_remembered() {
        let engine = Idempotency::builder().build().unwrap();
        for n in 0..2 * SLOTS {
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            let made = plan(&engine, &PAY, &method);
            assert_eq!(made.label(), "OTHER unmatched");
        }
        assert_eq!(format!("{:?}", engine.0.plans), "Plans(0)");
    }

    #[test]
    fn more_endpoints_than_are_remembered_are_planned_too() {
        let engine = Idempotency::builder().build().unwrap();
        let plans = Plans::new();
        for address in 0..2 * SLOTS {
            let policy = (&PAY, address);
            let made = plans.get(&engine.0, policy, &Method::POST, None);
            assert_eq!(made.policy, address);
        }
    }
}
