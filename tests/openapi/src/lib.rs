//! OpenAPI documents, with the newest utoipa: its crate has to have its own name where its macros are used.
