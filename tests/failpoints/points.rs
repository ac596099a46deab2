//! Where a process ends: the names by which the guide and the tests know each point.

/// A point in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    BeforeTheClaim,
    BeforeTheHandler,
    BeforeItsEffect,
    AfterItsEffect,
    BeforeTheStep,
    InTheStep,
    AfterTheStep,
    AfterTheHandler,
    CompletionLost,
    CompletionDone,
    CommitLost,
    CommitDone,
    BeforeTheAnswer,
}

impl Point {
    pub(crate) const ALL: [Self; 13] = [
        Self::BeforeTheClaim,
        Self::BeforeTheHandler,
        Self::BeforeItsEffect,
        Self::AfterItsEffect,
        Self::BeforeTheStep,
        Self::InTheStep,
        Self::AfterTheStep,
        Self::AfterTheHandler,
        Self::CompletionLost,
        Self::CompletionDone,
        Self::CommitLost,
        Self::CommitDone,
        Self::BeforeTheAnswer,
    ];

    /// As the guide writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BeforeTheClaim => "before the key is claimed",
            Self::BeforeTheHandler => "before the handler is called",
            Self::BeforeItsEffect => "in the handler, before its effect",
            Self::AfterItsEffect => "in the handler, after its effect",
            Self::BeforeTheStep => "in the handler, before a step",
            Self::InTheStep => "in a step, after its effect",
            Self::AfterTheStep => "in the handler, after a step",
            Self::AfterTheHandler => "when the handler has returned",
            Self::CompletionLost => "when the outcome was sent, and has not reached the database",
            Self::CompletionDone => "when the outcome is written, and its reply has not arrived",
            Self::CommitLost => "when COMMIT was sent, and has not reached the database",
            Self::CommitDone => "when COMMIT is done, and its reply has not arrived",
            Self::BeforeTheAnswer => "before the answer is sent",
        }
    }
}
