//! The operations of a store, as metrics name them.

macro_rules! operations {
    ($($variant:ident = $name:literal,)*) => {
        /// An operation of a store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum StoreOperation {
            $($variant,)*
        }

        impl StoreOperation {
            /// All of them; each stands at its own number.
            #[cfg(feature = "metrics")]
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    Acquire = "acquire",
    Renew = "renew",
    Complete = "complete",
    Release = "release",
    Abandon = "abandon",
    Get = "get",
    ReadSteps = "read_steps",
    AppendStep = "append_step",
    Begin = "begin",
    Commit = "commit",
    PurgeExpired = "purge_expired",
    List = "list",
    Stats = "stats",
    Append = "append",
    Forget = "forget",
    Events = "events",
    Claim = "claim",
    Mark = "mark",
    PurgeDelivered = "purge_delivered",
    DeadLetters = "dead_letters",
    Requeue = "requeue",
    Discard = "discard",
}
