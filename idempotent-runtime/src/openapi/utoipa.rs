//! The documents of utoipa.

use serde_json::Value;

use super::Documentation;

/// Completes a document in its JSON form. What cannot be completed stays as it is, with an error in the log.
macro_rules! modify {
    ($utoipa:ident, $feature:literal) => {
        #[cfg(feature = $feature)]
        impl $utoipa::Modify for Documentation {
            /// Completes the document. One that cannot be completed stays as it is, with an error in the log that says
            /// why.
            fn modify(&self, openapi: &mut $utoipa::openapi::OpenApi) {
                let completed = serde_json::to_value(&*openapi)
                    .map_err(|error| error.to_string())
                    .and_then(|mut document: Value| {
                        let count = self.complete(&mut document);
                        count.map_err(|error| error.to_string())?;
                        serde_json::from_value(document).map_err(|error| error.to_string())
                    });
                match completed {
                    Ok(completed) => *openapi = completed,
                    Err(error) => tracing::error!(error, "an OpenAPI document was not completed"),
                }
            }
        }
    };
}

modify!(utoipa5, "utoipa5");
modify!(utoipa6, "utoipa6");
