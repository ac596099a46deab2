//! The engine of the process: the one that the application installed, or one in memory for routes that were given none.

use std::{
    collections::HashSet,
    error::Error,
    fmt,
    sync::{LazyLock, Mutex, PoisonError},
};

use once_cell::sync::OnceCell;

use super::{
    build_error::BuildError,
    builder::Builder,
    core::{Idempotency, alive::Alive},
};

static ENGINE: OnceCell<ProcessWide> = OnceCell::new();

enum ProcessWide {
    Installed(Idempotency),
    Fallback {
        engine: Idempotency,
        /// The first route that used it.
        endpoint: String,
    },
}

/// Why an engine did not become the one of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstallError {
    /// Settings that cannot work.
    Build(BuildError),
    /// Another engine was installed before.
    AlreadyInstalled,
    /// A route was called before, found no engine, and keeps its keys in the memory of the process.
    FallbackInUse {
        /// That route, as `POST /payments`.
        endpoint: String,
    },
}

impl Builder {
    /// Builds the engine and makes it the one of this process: every annotated handler uses it that is not given another
    /// by its router. Neither the order of layers nor a forgotten one can lose it, and it costs a request nothing.
    ///
    /// Call it once, before the server starts. A handler takes the first of these engines that there is:
    ///
    /// 1. the one in the router's state, with the option `engine = State<…>`;
    /// 2. an `Extension<Idempotency>` of the router, or the engine of an [`IdempotencyLayer`](crate::IdempotencyLayer)
    ///    around the handler;
    /// 3. the installed one;
    /// 4. one in the memory of the process, which the log then warns of.
    ///
    /// The engine lives as long as the process. [`Idempotency::installed`] returns it where it is needed again, as for
    /// [`Idempotency::shutdown`].
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use idempotent_runtime::{Idempotency, idempotent};
    ///
    /// #[idempotent]
    /// async fn pay() -> &'static str {
    ///     "paid"
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let idempotency = Idempotency::builder().install()?;
    /// let app: Router = Router::new().route("/payments", post(pay));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If an engine is installed already, if a route was called before and fell back to memory, or if the settings cannot
    /// work, see [`InstallError`].
    pub fn install(self) -> Result<Idempotency, InstallError> {
        if let Some(taken) = ENGINE.get() {
            return Err(taken.refusal());
        }
        let engine = self.build().map_err(InstallError::Build)?;
        match ENGINE.try_insert(ProcessWide::Installed(engine.clone())) {
            Ok(_) => Ok(engine),
            Err((taken, _)) => Err(taken.refusal()),
        }
    }
}

impl Idempotency {
    /// The engine that [`Builder::install`] made the one of this process.
    #[must_use]
    pub fn installed() -> Option<Self> {
        Self::process_wide().cloned()
    }

    /// The engine for a route that may have one in its state: else that of the request's extensions, else the installed one.
    pub(crate) fn for_route<'a>(
        state: Option<&'a Self>,
        extensions: &'a http::Extensions,
    ) -> Option<&'a Self> {
        state
            .or_else(|| extensions.get())
            .or_else(|| Self::process_wide())
    }

    fn process_wide() -> Option<&'static Self> {
        match ENGINE.get()? {
            ProcessWide::Installed(engine) => Some(engine),
            ProcessWide::Fallback { .. } => None,
        }
    }

    /// The engine for a route that was given none, where none is installed: in memory, with all defaults, made at the
    /// first call.
    ///
    /// It protects one process only and forgets everything when that process ends, and says so once in the log. If the
    /// application has another engine, the route was meant to use that one: an error in the log then names the route.
    pub(crate) fn fallback(endpoint: &str, keyed: bool) -> &'static Self {
        let process_wide = ENGINE.get_or_init(|| {
            if Alive::count() == 0 {
                tracing::warn!(
                    "idempotency is kept in the memory of this process only: it does not survive a restart and is \
                     not shared with other processes. Call `Idempotency::builder().store(…).install()` before the \
                     server starts to change that, with a `MemoryStore` to say that it is meant"
                );
            }
            ProcessWide::Fallback {
                // Invariant: no default is refused, and the feature `handlers` brings the `memory` store along.
                engine: Self::builder().build().expect("the defaults are valid"),
                endpoint: endpoint.to_owned(),
            }
        });
        match process_wide {
            ProcessWide::Installed(engine) => engine,
            ProcessWide::Fallback { engine, .. } => {
                // One of them is the fall-back itself. Without a key nothing is kept, and a layer around the route may have
                // an engine for requests with one.
                if keyed && Alive::count() > 1 {
                    report(endpoint);
                }
                engine
            }
        }
    }
}

/// Says once for each endpoint that it lost the application's engine.
fn report(endpoint: &str) {
    static REPORTED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    if reported.contains(endpoint) {
        return;
    }
    tracing::error!(
        endpoint,
        "this route keeps its keys in the memory of the process, although another engine was built: no \
         `Extension(idempotency)` reaches it (`Router::layer` reaches only routes that were added before), and it has \
         no `engine = State<…>`. Build the engine with `install()`, and every route uses it"
    );
    reported.insert(endpoint.to_owned());
}

impl ProcessWide {
    /// Why no other engine can take its place.
    fn refusal(&self) -> InstallError {
        match self {
            Self::Installed(_) => InstallError::AlreadyInstalled,
            Self::Fallback { endpoint, .. } => InstallError::FallbackInUse {
                endpoint: endpoint.clone(),
            },
        }
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(error) => error.fmt(f),
            Self::AlreadyInstalled => f.write_str(
                "an engine is installed in this process already: install one, and get it by `Idempotency::installed()`",
            ),
            Self::FallbackInUse { endpoint } => write!(
                f,
                "the route `{endpoint}` was called before and keeps its keys in the memory of the process: install the \
                 engine before the server starts"
            ),
        }
    }
}

// `Display` shows the reason itself, so there is no source to show after it.
impl Error for InstallError {}
