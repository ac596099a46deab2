//! The error of a step as a response.

use axum::response::{IntoResponse, Response};

use super::{StepError, StepFault};
use crate::{axum::unstyled, engine::Retention, problem::ProblemCode};

impl IntoResponse for StepFault {
    fn into_response(self) -> Response {
        unknown(unstyled(ProblemCode::OutcomeUnknown))
    }
}

impl<E: IntoResponse> IntoResponse for StepError<E> {
    fn into_response(self) -> Response {
        match self {
            Self::Failed(error) => unknown(error.into_response()),
            Self::Fault(fault) => fault.into_response(),
        }
    }
}

/// What happened is not known, unless the response says what becomes of it.
fn unknown(mut response: Response) -> Response {
    response.extensions_mut().get_or_insert(Retention::Unknown);
    response
}
