//! The rules of the contract, each of which can be taken away.

/// What the engine has to do. [`Rules::all`] is the contract; a test takes one rule away and names what breaks.
///
/// "Withdraw" means: the engine goes on giving the token back after the request has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Each is one sentence of the contract, taken away alone.
pub struct Rules {
    /// An acquire that timed out stays in doubt when its repetition is answered.
    pub keep_doubt_after_repetition: bool,
    /// Withdraw after an answer of 503, because every acquire timed out.
    pub withdraw_after_store_error: bool,
    /// Withdraw after `conflict`, `mismatch` and `outcome_unknown`.
    pub withdraw_after_other_answers: bool,
    /// Withdraw after a replay: the record may expire before the last copy of the acquire arrives.
    pub withdraw_after_replay: bool,
    /// Withdraw after a release: an earlier copy of the acquire may arrive behind it.
    pub withdraw_after_release: bool,
    /// Withdraw for a client that left while it waited.
    pub withdraw_after_client_left: bool,
    /// Withdraw for waiters that a shutdown sent away.
    pub withdraw_after_shutdown: bool,
    /// A withdrawal goes on until no copy of the acquire can arrive, not only until its first success.
    pub withdraw_until_none_can_arrive: bool,
    /// A release that was not acknowledged goes on in the background.
    pub release_until_acknowledged: bool,
    /// The acquire belongs to the engine: a client that leaves does not drop it.
    pub acquire_belongs_to_engine: bool,

    /// The handler starts only after the store said `Acquired`.
    pub start_only_when_acquired: bool,
    /// ... and only if less than one lease has passed since that acquire was sent.
    pub start_within_one_lease: bool,
    /// The same after a recovery function.
    pub recovery_starts_within_one_lease: bool,
    /// A renewal does not prolong the time in which the handler may start.
    pub renewal_does_not_prolong_the_start: bool,

    /// While a process executes a key, a duplicate that arrives there sends no acquire.
    pub own_process_follows: bool,
    /// ... nor does one that is under way repeat its acquire.
    pub repetitions_follow_too: bool,
    /// An execution that still has its outcome to store counts as executing.
    pub follow_until_outcome_is_stored: bool,
    /// A process that executes a key follows itself, whatever an earlier acquire or a read says of the lease.
    pub own_execution_is_never_unknown: bool,
    /// An acquire that succeeds beside an execution of its own process gives its claim back.
    pub give_back_beside_own_execution: bool,
    /// A process never takes over a lease whose token is its own.
    pub never_take_over_own_token: bool,
    /// ... while the request that made it goes on or withdraws. After that it may.
    pub ended_tokens_may_be_taken_over: bool,

    /// A take-over names the lapsed lease that the store reported, and applies to no other.
    pub take_over_names_the_lease: bool,
    /// A token under which a take-over was ever asked for is abandoned, never released.
    pub abandon_after_take_over: bool,
    /// With `on_crash = "retry"`, what panicked is abandoned, never released.
    pub abandon_after_panic: bool,

    /// A request that releases or abandons gives its own answer, even if that write was fenced or found nothing.
    pub release_gives_own_answer: bool,
    /// No client hears an outcome before its `complete` was acknowledged.
    pub answer_waits_for_acknowledgement: bool,
    /// A fenced `complete` answers with the winner's outcome, never with its own.
    pub fenced_complete_answers_with_winner: bool,
    /// When a `complete` was not acknowledged, the duplicates in that process hear `outcome_unknown` too.
    pub duplicates_hear_the_doubt: bool,

    /// A `complete` that was not acknowledged keeps the claim.
    pub unacknowledged_complete_keeps_claim: bool,
    /// ... and the engine goes on storing the outcome in the background.
    pub late_outcomes_are_stored: bool,
    /// An error status (503, 408) after the effect is an outcome like any other.
    pub error_statuses_are_outcomes: bool,
    /// A client that disconnects while its handler runs changes nothing.
    pub disconnect_keeps_claim: bool,
    /// A shutdown abandons what still executes.
    pub shutdown_keeps_claim: bool,

    /// A waiter polls the store: notifications only make it quicker.
    pub waiters_poll: bool,
    /// A waiter returns at its deadline.
    pub waiters_have_a_deadline: bool,
    /// With `on_crash = "retry"` or a recovery function, a lapsed lease is taken over.
    pub lapsed_leases_are_taken_over: bool,
    /// With `refuse`, none is.
    pub refuse_never_executes_again: bool,
}

impl Rules {
    /// The contract.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            keep_doubt_after_repetition: true,
            withdraw_after_store_error: true,
            withdraw_after_other_answers: true,
            withdraw_after_replay: true,
            withdraw_after_release: true,
            withdraw_after_client_left: true,
            withdraw_after_shutdown: true,
            withdraw_until_none_can_arrive: true,
            release_until_acknowledged: true,
            acquire_belongs_to_engine: true,
            start_only_when_acquired: true,
            start_within_one_lease: true,
            recovery_starts_within_one_lease: true,
            renewal_does_not_prolong_the_start: true,
            own_process_follows: true,
            repetitions_follow_too: true,
            follow_until_outcome_is_stored: true,
            own_execution_is_never_unknown: true,
            give_back_beside_own_execution: true,
            never_take_over_own_token: true,
            ended_tokens_may_be_taken_over: true,
            take_over_names_the_lease: true,
            abandon_after_take_over: true,
            abandon_after_panic: true,
            release_gives_own_answer: true,
            answer_waits_for_acknowledgement: true,
            fenced_complete_answers_with_winner: true,
            duplicates_hear_the_doubt: true,
            unacknowledged_complete_keeps_claim: true,
            late_outcomes_are_stored: true,
            error_statuses_are_outcomes: true,
            disconnect_keeps_claim: true,
            shutdown_keeps_claim: true,
            waiters_poll: true,
            waiters_have_a_deadline: true,
            lapsed_leases_are_taken_over: true,
            refuse_never_executes_again: true,
        }
    }
}

/// What a route wants when a lease lapsed without an outcome (`on_crash`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The outcome is unknown. Never a second execution.
    Refuse,
    /// The next request executes again, as the next attempt.
    Retry,
    /// The next request asks a function that knows what happened, or says that it does not know.
    Recover,
}

/// A deliberate fault of the store. Each breaks an invariant, which shows that the invariant has teeth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// `release` deletes the record whatever its token.
    ReleaseIgnoresTheToken,
    /// `complete` stores an outcome over another token's lease.
    CompleteIgnoresTheToken,
    /// `renew` prolongs another token's lease.
    RenewIgnoresTheToken,
    /// `abandon` ends another token's lease.
    AbandonIgnoresTheToken,
    /// A late `renew` puts a completed record back in flight.
    RenewReopensTheRecord,
    /// `complete` by the current token is refused once its lease lapsed.
    LateCompleteIsRefused,
    /// A `complete` that was fenced is acknowledged as if it were stored.
    FencedCompleteIsAcknowledged,
    /// `acquire` reads first and writes later, in two steps.
    CheckThenAct,
    /// A lease is taken over one tick before it lapsed, as by a caller's clock that is ahead.
    LeaseLapsesEarly,
    /// A take-over keeps the attempt of the lease that it takes over.
    TakeOverKeepsTheAttempt,
    /// Renewal does not move the expiry, and a purge checks the expiry only.
    PurgesLiveLeases,
    /// A completed record is evicted before it expires.
    EvictsCompletedRecords,
    /// `acquire` does not compare what the requests ask for.
    PayloadIsNotCompared,
    /// An acquire that is repeated with its token is answered with "in flight".
    RepetitionIsAConflict,
    /// The store's client sends an acquire twice within one operation, and does not say so.
    AcquireIsSentTwice,
}
